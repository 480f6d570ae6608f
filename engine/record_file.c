/*
 * The file of a recording.
 *
 * DESIGN.  Bytes, little endian whatever the machine:
 *
 *      "llmrec\r\n"  version (4)
 *      frame         length (4), CRC-32 (4), that many bytes of records
 *      record        type + length * 256 (4), that many bytes of numbers
 *
 * A frame is what was written at once; it holds whole records, and its sum
 * tells a torn or damaged one.  A file that ends inside a frame, as after a
 * power cut, is good up to there.  Numbers are varints (seven bits a byte, low
 * ones first), for most are small; tokens are four bytes each.  The first
 * record is the head, whose fields come with their number: a reader leaves
 * those it does not know, and takes those that an older file lacks as 0.
 *
 * A recording comes from outside: every number is read with a limit, and one
 * that breaks it makes the record bad; nothing here believes a length.
 *
 * Pure but for reading the file; any thread.
 */
#include "record_file.h"
#include "mem.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

_Static_assert(sizeof(RECORD_MAGIC) == 9, "eight bytes");

struct record_file_s {
    FILE *f;      /* borrowed */
    uint8_t *buf; /* [RECORD_FRAME_MAX] owned: the frame */
    size_t at, n; /* read, and there */
    uint64_t frames;
};


/* --- head --------------------------------------------------------------- */

void
record_head(record_head_t *h, const sched_cfg_t *s, const kv_cfg_t *kv,
    uint32_t owners, const batch_t *b)
{
    uint64_t *window = &h->window0;

    assert(kv->groups >= 1 && kv->groups <= KV_GROUPS);
    assert(&h->window7 - &h->window0 == KV_GROUPS - 1);

    memset(h, 0, sizeof(*h));
    h->reqs = s->reqs;
    h->rows = s->rows;
    h->tokens = s->tokens;
    h->context = s->context;
    h->budget = s->budget;
    h->tile = s->tile;
    h->target_us = s->target_us;
    h->floor = s->floor;
    h->pass_us = s->pass_us;
    h->kept = KV_FLOOR;
    h->idle_us = KV_IDLE_US;
    h->batch_rows = b->rows_max;
    h->batch_tokens = b->tokens_max;
    h->batch_outs = b->outs_max;
    h->blocks = kv->blocks;
    h->block_tokens = kv->block_tokens;
    h->step = kv->step;
    h->groups = kv->groups;
    h->cache = owners > 0;
    h->owners = owners > 0 ? owners : 1;
    for (uint32_t g = 0; g < kv->groups; g++) {
        window[g] = kv->window[g];
    }
    snprintf(h->policy, sizeof(h->policy), "%s", sched_policy_name(s->policy));
}


void
record_configs(const record_head_t *h, sched_cfg_t *s, kv_cfg_t *kv,
    uint32_t window[KV_GROUPS])
{
    uint32_t g;

    assert(record_head_bad(h) == NULL);

    memset(s, 0, sizeof(*s));
    s->reqs = (uint32_t) h->reqs;
    s->rows = (uint32_t) h->rows;
    s->tokens = (uint32_t) h->tokens;
    s->context = (uint32_t) h->context;
    s->budget = (uint32_t) h->budget;
    s->tile = (uint32_t) h->tile;
    s->target_us = (uint32_t) h->target_us;
    s->floor = (uint32_t) h->floor;
    s->pass_us = (uint32_t) h->pass_us;

    memset(kv, 0, sizeof(*kv));
    kv->blocks = (uint32_t) h->blocks;
    kv->block_tokens = (uint32_t) h->block_tokens;
    kv->seqs = (uint32_t) h->reqs * LLM_CHOICES_MAX;
    kv->context = (uint32_t) h->context;
    kv->step = (uint32_t) h->step;
    kv->groups = (uint32_t) h->groups;
    kv->window = window;
    for (g = 0; g < KV_GROUPS; g++) {
        window[g] = (uint32_t) (&h->window0)[g];
    }
}


static int
outside(uint64_t v, uint64_t least, uint64_t most)
{
    return v < least || v > most;
}


const char *
record_head_bad(const record_head_t *h)
{
#define X(name, least, most)                                                   \
    if (outside(h->name, (uint64_t) least, (uint64_t) most)) {                 \
        return #name;                                                          \
    }
    RECORD_HEAD_LIST(X)
#undef X

    /* one with fewer than it plans for is no batch */
    if (h->batch_rows < h->rows || h->batch_outs < h->rows) {
        return "rows";
    }
    if (h->batch_tokens < h->tokens) {
        return "tokens";
    }
    if (h->step < h->tokens && h->step < h->context) {
        return "step";
    }
    if (memchr(h->policy, 0, sizeof(h->policy)) == NULL) {
        return "policy";
    }

    return NULL;
}


/* --- writing ------------------------------------------------------------ */

static void
put_u32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t) v;
    p[1] = (uint8_t) (v >> 8);
    p[2] = (uint8_t) (v >> 16);
    p[3] = (uint8_t) (v >> 24);
}


static uint32_t
get_u32(const uint8_t *p)
{
    return (uint32_t) p[0] | (uint32_t) p[1] << 8 | (uint32_t) p[2] << 16
           | (uint32_t) p[3] << 24;
}


/* CRC-32 as in Ethernet, four bits at a time: the table is a line. */
static uint32_t
crc(const uint8_t *p, size_t n)
{
    static const uint32_t table[16] = {0x00000000, 0x1db71064, 0x3b6e20c8,
        0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c, 0xedb88320,
        0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278,
        0xbdbdf21c};
    uint32_t c = UINT32_MAX;
    size_t i;

    for (i = 0; i < n; i++) {
        c = table[(c ^ p[i]) & 15] ^ c >> 4;
        c = table[(c ^ p[i] >> 4) & 15] ^ c >> 4;
    }

    return ~c;
}


uint8_t *
record_put(uint8_t *p, uint64_t v)
{
    while (v >= 128) {
        *p++ = (uint8_t) (v | 128);
        v >>= 7;
    }
    *p++ = (uint8_t) v;

    return p;
}


void
record_lead(uint8_t *p, record_type_t type, size_t len)
{
    assert(type < RECORD_TYPES_N && len < 1u << 24);

    put_u32(p, (uint32_t) type | (uint32_t) len << 8);
}


void
record_frame(uint8_t lead[RECORD_FRAME], const uint8_t *p, size_t len)
{
    assert(len > 0 && len <= RECORD_FRAME_MAX);

    put_u32(lead, (uint32_t) len);
    put_u32(lead + 4, crc(p, len));
}


size_t
record_head_put(uint8_t *start, const record_head_t *h)
{
    uint8_t *frame = start + sizeof(RECORD_MAGIC) - 1 + 4, *lead, *p;
    size_t len = strnlen(h->policy, sizeof(h->policy) - 1);
    unsigned n = 0;

#define X(name, least, most) n++;
    RECORD_HEAD_LIST(X)
#undef X

    memcpy(start, RECORD_MAGIC, sizeof(RECORD_MAGIC) - 1);
    put_u32(frame - 4, RECORD_VERSION);
    lead = frame + RECORD_FRAME;
    p = record_put(lead + RECORD_LEAD, n);
#define X(name, least, most) p = record_put(p, h->name);
    RECORD_HEAD_LIST(X)
#undef X
    p = record_put(p, len);
    memcpy(p, h->policy, len);
    p += len;

    record_lead(lead, RECORD_HEAD, (size_t) (p - lead) - RECORD_LEAD);
    record_frame(frame, lead, (size_t) (p - lead));
    assert(p - start <= RECORD_HEAD_BYTES);

    return (size_t) (p - start);
}


/* --- reading ------------------------------------------------------------ */

uint64_t
record_get(record_t *r, uint64_t most)
{
    uint64_t v = 0;
    unsigned shift = 0;

    while (r->p < r->end && shift < 64) {
        v |= (uint64_t) (*r->p & 127) << shift;
        if (*r->p++ < 128) {
            if (v <= most) {
                return v;
            }
            break;
        }
        shift += 7;
    }
    r->bad = 1;

    return 0;
}


size_t
record_tokens_n(const record_t *r)
{
    assert(r->p <= r->end);

    return (size_t) (r->end - r->p) / 4;
}


void
record_tokens(record_t *r, uint32_t *ids, size_t n)
{
    size_t i;

    if (n > record_tokens_n(r)) {
        r->bad = 1;
        n = 0;
    }
    for (i = 0; i < n; i++, r->p += 4) {
        ids[i] = get_u32(r->p);
        if (ids[i] >= RECORD_TOKENS) {
            r->bad = 1;
            ids[i] = 0;
        }
    }
}


int
record_whole(const record_t *r)
{
    return !r->bad && r->p == r->end;
}


/* Reads the next frame: 1.  0: there is none, or not all of it. */
static int
read_frame(record_file_t *rf, int *cut, char *err, size_t errlen)
{
    uint8_t lead[RECORD_FRAME];
    size_t n = fread(lead, 1, sizeof(lead), rf->f);
    uint32_t len;

    rf->at = rf->n = 0;
    if (n < sizeof(lead)) {
        *cut = n > 0;
        return 0;
    }

    len = get_u32(lead);
    if (len == 0 || len > RECORD_FRAME_MAX) {
        snprintf(err, errlen,
            "frame %llu is damaged: expected 1 to %u bytes, found %u",
            (unsigned long long) rf->frames, RECORD_FRAME_MAX, len);
        return -1;
    }
    if (fread(rf->buf, 1, len, rf->f) < len) {
        *cut = 1;
        return 0;
    }
    if (crc(rf->buf, len) != get_u32(lead + 4)) {
        snprintf(err, errlen, "frame %llu is damaged: its sum is wrong",
            (unsigned long long) rf->frames);
        return -1;
    }
    rf->frames++;
    rf->n = len;

    return 1;
}


int
record_file_next(
    record_file_t *rf, record_t *r, int *cut, char *err, size_t errlen)
{
    uint32_t lead, len;
    int rc;

    *cut = 0;
    if (rf->at == rf->n) {
        rc = read_frame(rf, cut, err, errlen);
        if (rc == 0 && ferror(rf->f)) {
            snprintf(err, errlen, "%s", strerror(errno));
            return -1;
        }
        if (rc <= 0) {
            return rc;
        }
    }

    if (rf->n - rf->at < RECORD_LEAD) {
        goto bad;
    }
    lead = get_u32(rf->buf + rf->at);
    len = lead >> 8;
    rf->at += RECORD_LEAD;
    if ((lead & 255) >= RECORD_TYPES_N || len > rf->n - rf->at) {
        goto bad;
    }

    r->type = (record_type_t) (lead & 255);
    r->p = rf->buf + rf->at;
    r->end = r->p + len;
    r->bad = 0;
    rf->at += len;

    return 1;

bad:

    snprintf(err, errlen, "frame %llu is damaged: no record where one begins",
        (unsigned long long) rf->frames);

    return -1;
}


/* Takes the head apart; what it lacks is 0, and limits say if that will do. */
static void
read_head(record_t *r, record_head_t *h)
{
    uint64_t n = record_get(r, 1024), len;
    uint64_t i = 0;

    memset(h, 0, sizeof(*h));
#define X(name, least, most)                                                   \
    if (i++ < n) {                                                             \
        h->name = record_get(r, UINT64_MAX);                                   \
    }
    RECORD_HEAD_LIST(X)
#undef X
    for (; i < n && !r->bad; i++) {
        (void) record_get(r, UINT64_MAX);
    }

    len = record_get(r, sizeof(h->policy) - 1);
    if (len > (uint64_t) (r->end - r->p)) {
        r->bad = 1;
        return;
    }
    memcpy(h->policy, r->p, len);
    r->p += len;
}


/* 0, or -1 with err: f does not begin as a recording does. */
static int
open_head(record_file_t *rf, record_head_t *h, char *err, size_t errlen)
{
    uint8_t start[sizeof(RECORD_MAGIC) - 1 + 4];
    const char *field;
    record_t r;
    int cut;

    if (fread(start, 1, sizeof(start), rf->f) < sizeof(start)
        || memcmp(start, RECORD_MAGIC, sizeof(RECORD_MAGIC) - 1) != 0) {
        snprintf(err, errlen, "this is not a recording");
        return -1;
    }
    if (get_u32(start + sizeof(RECORD_MAGIC) - 1) != RECORD_VERSION) {
        snprintf(err, errlen,
            "expected a recording of version %d, found version %u",
            RECORD_VERSION, get_u32(start + sizeof(RECORD_MAGIC) - 1));
        return -1;
    }

    switch (record_file_next(rf, &r, &cut, err, errlen)) {
    case 1:
        break;
    case 0:
        snprintf(err, errlen, "the recording has no head");
        return -1;
    default:
        return -1;
    }

    read_head(&r, h);
    field = r.type != RECORD_HEAD || !record_whole(&r) ? "form"
                                                       : record_head_bad(h);
    if (field != NULL) {
        snprintf(err, errlen, "the head's %s is not one that can be", field);
        return -1;
    }

    return 0;
}


record_file_t *
record_file_open(FILE *f, record_head_t *h, char *err, size_t errlen)
{
    record_file_t *rf = mem_zero(1, sizeof(*rf));

    assert(f != NULL && errlen > 0);

    if (rf == NULL) {
        goto memory;
    }
    rf->f = f;
    rf->buf = mem_zero(RECORD_FRAME_MAX, 1);
    if (rf->buf == NULL) {
        goto memory;
    }
    if (open_head(rf, h, err, errlen) == 0) {
        return rf;
    }
    record_file_close(rf);

    return NULL;

memory:

    snprintf(err, errlen, "out of memory");
    record_file_close(rf);

    return NULL;
}


void
record_file_close(record_file_t *rf)
{
    if (rf == NULL) {
        return;
    }

    mem_free(rf->buf);
    mem_free(rf);
}
