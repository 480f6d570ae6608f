/*
 * A recording, on the side of the one who writes it.
 *
 * DESIGN.  A thread looks into the ring a hundred times a second, makes records
 * of the calls there, and writes a frame.  Nobody wakes it, so whoever tells
 * makes no system call.
 *
 * WHAT IS HIDDEN.  A recording is to be sent to who can mend a scheduler, and
 * prompts are private.  What a plan depends on is which texts begin alike, not
 * what they say; so a token is written as a keyed hash (SipHash-2-4) of itself
 * and all before it in its sequence and namespace:
 *
 *      h(0) = H(key, namespace)      h(i + 1) = H(key, h(i), token i)
 *
 * of which the low 31 bits stand for token i.  Equal beginnings stay equal,
 * all else looks random: neither how often a token occurs nor where it comes
 * again is left, as it would be if tokens were merely renamed.  The key is
 * drawn for each recording, never written, and gone with the process; so two
 * recordings cannot be compared.  Namespaces are hidden likewise, tenants are
 * numbers.  Left are lengths, times, and who shares how much with whom.
 *
 * As such a hash holds for all before it, a row's last one says whether its
 * sequence has the right tokens.  It is formed anew from the row's own tokens,
 * on from where the sequence's last row ended, or, where a row begins behind
 * what the cache had, from the hash kept for that block's end.
 *
 * Runs in the writer's thread, or if there is none in the one that tells.
 */
#include "record_impl.h"
#include "log.h"
#include "mem.h"
#include "space.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define RECORD_LOOK_NS 10000000 /* between two looks into the ring */
#define RECORD_UNKNOWN UINT32_MAX

/* What an end needs, kept free below the limit. */
#define RECORD_LAST (RECORD_FRAME + RECORD_LEAD + RECORD_NUM)


/* --- hiding ------------------------------------------------------------- */

static uint64_t
hash(const recorder_t *rec, uint64_t h, uint32_t token, size_t len)
{
    uint8_t bytes[sizeof(h) + sizeof(token)];
    const space_part_t part = {bytes, len};

    assert(len <= sizeof(bytes));

    memcpy(bytes, &h, sizeof(h));
    memcpy(bytes + sizeof(h), &token, sizeof(token));

    return space_of(rec->key, &part, 1);
}


/* Takes one more token; what stands for it. */
static uint32_t
chain(const recorder_t *rec, record_chain_t *c, uint32_t token)
{
    c->h = hash(rec, c->h, token, sizeof(c->h) + sizeof(token));
    c->n++;

    return (uint32_t) c->h & (RECORD_TOKENS - 1);
}


static uint64_t *
marks(const recorder_t *rec, uint32_t seq)
{
    assert(seq < rec->seqs);

    return rec->marks + (size_t) seq * rec->marks_n;
}


/* One more token of what is known of seq. */
static uint32_t
know(recorder_t *rec, uint32_t seq, uint32_t token)
{
    record_chain_t *c = &rec->known[seq];
    uint32_t stands = chain(rec, c, token);

    assert(seq < rec->seqs && rec->block_tokens > 0);

    if (c->n % rec->block_tokens == 0) {
        assert(c->n / rec->block_tokens < rec->marks_n);
        marks(rec, seq)[c->n / rec->block_tokens] = c->h;
    }

    return stands;
}


/* The hash of seq's first n tokens, in rows[seq]; 0: it is not known. */
static int
find(recorder_t *rec, uint32_t seq, uint32_t n)
{
    record_chain_t *c = &rec->rows[seq];

    assert(seq < rec->seqs && rec->block_tokens > 0);

    if (c->n == n) {
        return 1;
    }
    if (n % rec->block_tokens != 0 || n > rec->known[seq].n) {
        c->n = RECORD_UNKNOWN;
        return 0;
    }
    c->h = marks(rec, seq)[n / rec->block_tokens];
    c->n = n;

    return 1;
}


/* --- records ------------------------------------------------------------ */

static uint8_t *
put_token(uint8_t *p, uint32_t token)
{
    p[0] = (uint8_t) token;
    p[1] = (uint8_t) (token >> 8);
    p[2] = (uint8_t) (token >> 16);
    p[3] = (uint8_t) (token >> 24);

    return p + 4;
}


static uint8_t *
put_add(recorder_t *rec, uint8_t *p, const record_add_t *m)
{
    uint64_t start = hash(rec, m->space, 0, sizeof(m->space));
    uint32_t i, seq = m->req * LLM_CHOICES_MAX;

    assert(m->req < rec->head.reqs);

    p = record_put(p, m->req);
    p = record_put(p, m->answer);
    p = record_put(p, m->arrival_us);
    p = record_put(p, start);
    p = record_put(p, m->flags);
    p = record_put(p, m->n);
    p = record_put(p, m->prompts_n);
    p = record_put(p, m->max_tokens);
    p = record_put(p, m->tenant);
    p = record_put(p, m->weight);
    p = record_put(p, m->priority);
    p = record_put(p, m->concurrent);
    p = record_put(p, m->queue_max);
    p = record_put(p, m->queue_ms);
    for (i = 0; i < m->prompts_n; i++) {
        p = record_put(p, m->lens[i]);
    }

    for (i = 0; i < m->n * m->prompts_n; i++, seq++) {
        rec->known[seq].h = marks(rec, seq)[0] = start;
        rec->known[seq].n = 0;
        rec->rows[seq].n = RECORD_UNKNOWN;
    }

    return p;
}


static uint8_t *
put_prompt(recorder_t *rec, uint8_t *p, const record_prompt_t *m)
{
    uint32_t i, n;

    assert(m->copies > 0);

    for (i = 0; i < m->n; i++) {
        p = put_token(p, know(rec, m->seq, m->ids[i]));
    }
    for (i = 1; m->last && i < m->copies; i++) {
        n = rec->known[m->seq].n / rec->block_tokens + 1;
        rec->known[m->seq + i] = rec->known[m->seq];
        memcpy(
            marks(rec, m->seq + i), marks(rec, m->seq), n * sizeof(uint64_t));
    }

    return p;
}


static uint8_t *
put_row(recorder_t *rec, uint8_t *p, const record_row_t *m)
{
    const uint32_t *ids = m->ids;
    int known = find(rec, m->seq, m->start);
    uint32_t i, g, last = 0, listed = 0;

    assert(m->seq < rec->seqs && m->len > 0);

    for (g = 0; g < rec->groups; g++) {
        listed += m->blocks[g].listed;
    }
    for (i = 0; known && i < m->len; i++) {
        last = chain(rec, &rec->rows[m->seq], ids[listed + i]) + 1;
    }

    p = record_put(p, m->seq);
    p = record_put(p, m->start);
    p = record_put(p, m->len);
    p = record_put(p, m->outs);
    p = record_put(p, last);
    for (g = 0; g < rec->groups; g++) {
        p = record_put(p, m->blocks[g].first);
        p = record_put(p, m->blocks[g].n);
        p = record_put(p, m->blocks[g].sum);
        p = record_put(p, m->blocks[g].listed);
        for (i = 0; i < m->blocks[g].listed; i++) {
            p = record_put(p, *ids++);
        }
    }

    return p;
}


static uint8_t *
put_commit(recorder_t *rec, uint8_t *p, const record_commit_t *m)
{
    const uint32_t *ids = (const uint32_t *) (const void *) &m->takes[m->n];
    const record_take_t *t;
    uint32_t i, k;

    assert(m->n <= rec->head.batch_outs);

    p = record_put(p, m->n);
    for (i = 0; i < m->n; i++) {
        t = &m->takes[i];
        p = record_put(p, t->flags | (t->err != 0 ? RECORD_ERR : 0));
        if (t->err != 0) {
            p = record_put(p, t->err);
        } else if ((t->flags & RECORD_OF_PROMPT) == 0) {
            p = put_token(p, know(rec, t->seq, t->token));
        }
        if (t->flags & RECORD_MORE) {
            p = record_put(p, t->more);
        }
        for (k = 0; k < t->more; k++) {
            p = put_token(p, know(rec, t->seq, *ids++));
        }
    }

    return p;
}


/* The numbers of a record that is nothing but some. */
static uint8_t *
put_plain(uint8_t *p, const record_plain_t *m, unsigned n)
{
    unsigned i;

    assert(n <= sizeof(m->v) / sizeof(m->v[0]));

    for (i = 0; i < n; i++) {
        p = record_put(p, m->v[i]);
    }

    return p;
}


/* Appends the call that lies in rec->call to the frame. */
static void
put(recorder_t *rec, record_type_t type)
{
    static const uint8_t plain[RECORD_TYPES_N] = {[RECORD_RETRY] = 4,
        [RECORD_CREDIT] = 2,
        [RECORD_PLAN] = 4,
        [RECORD_TOOK] = 1,
        [RECORD_CUT] = 3,
        [RECORD_END] = 1};
    uint8_t *lead = rec->buf + RECORD_FRAME + rec->buf_n;
    uint8_t *p = lead + RECORD_LEAD;
    const void *m = rec->call;

    switch (type) {
    case RECORD_ADD:
        p = put_add(rec, p, m);
        break;
    case RECORD_PROMPT:
        p = put_prompt(rec, p, m);
        break;
    case RECORD_ROW:
        p = put_row(rec, p, m);
        break;
    case RECORD_COMMIT:
        p = put_commit(rec, p, m);
        break;
    default:
        assert(plain[type] > 0);
        p = put_plain(p, m, plain[type]);
    }

    record_lead(lead, type, (size_t) (p - lead) - RECORD_LEAD);
    rec->buf_n += (size_t) (p - lead);
    assert(rec->buf_n <= RECORD_FRAME_MAX);
}


/* --- the file ----------------------------------------------------------- */

/* Writes the frame that has been put together; 0, or -1 with errno. */
static int
send_frame(recorder_t *rec)
{
    uint8_t *p = rec->buf;
    size_t left = rec->buf_n + RECORD_FRAME;
    ssize_t n;

    assert(rec->fd != -1 && rec->buf_n > 0);

    record_frame(p, p + RECORD_FRAME, rec->buf_n);
    rec->written += left;
    rec->buf_n = 0;

    while (left > 0) {
        n = write(rec->fd, p, left);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            rec->written -= left;
            return -1;
        }
        p += n;
        left -= (size_t) n;
    }

    return 0;
}


static int
over(const recorder_t *rec)
{
    return __atomic_load_n(&rec->off, __ATOMIC_ACQUIRE) == RECORD_OVER;
}


void
record_finish(recorder_t *rec, record_end_t why)
{
    static const char *const reasons[] = {
#define X(name, doc) doc,
        RECORD_ENDS(X)
#undef X
    };
    uint8_t *lead = rec->buf + RECORD_FRAME, *p;

    assert(why < RECORD_ENDS_N);

    if (over(rec)) {
        return;
    }
    __atomic_store_n(&rec->off, RECORD_OVER, __ATOMIC_RELEASE);

    if (why != RECORD_BY_FAILED) {
        p = record_put(lead + RECORD_LEAD, why);
        record_lead(
            lead, RECORD_END_OF_FILE, (size_t) (p - lead) - RECORD_LEAD);
        rec->buf_n = (size_t) (p - lead);
        if (send_frame(rec) != 0) {
            why = RECORD_BY_FAILED;
        }
    }

    log_line(why == RECORD_BY_CLOSED ? LOG_INFO : LOG_WARN,
        "the recording ends after %llu bytes: %s%s%s",
        (unsigned long long) rec->written, reasons[why],
        why == RECORD_BY_FAILED ? ": " : "",
        why == RECORD_BY_FAILED ? strerror(errno) : "");
}


/* Writes what there is, if that is within the limit. */
static void
send_some(recorder_t *rec)
{
    if (rec->buf_n == 0 || over(rec)) {
        return;
    }
    if (rec->written + RECORD_FRAME + rec->buf_n + RECORD_LAST > rec->limit) {
        record_finish(rec, RECORD_BY_LIMIT);
    } else if (send_frame(rec) != 0) {
        record_finish(rec, RECORD_BY_FAILED);
    }
}


void
record_write(recorder_t *rec, int all)
{
    const llm_ring_hdr_t *h = (const void *) rec->call;
    int64_t n;

    while (!over(rec)
           && (n = llm_ring_peek(&rec->out, rec->call, RECORD_CALL)) > 0) {
        llm_ring_advance(&rec->out);
        put(rec, (record_type_t) (h->type - 1));
        if (rec->buf_n >= RECORD_SEND
            || rec->buf_n >= rec->limit / RECORD_SENDS) {
            send_some(rec);
        }
    }
    if (all) {
        send_some(rec);
    }
}


static void *
run(void *arg)
{
    const struct timespec look = {0, RECORD_LOOK_NS};
    recorder_t *rec = arg;
    uint32_t stop, off;

    do {
        /* before the ring: what was told until then is in it */
        stop = __atomic_load_n(&rec->stop, __ATOMIC_ACQUIRE);
        off = __atomic_load_n(&rec->off, __ATOMIC_ACQUIRE);
        record_write(rec, 1);
        if (off == RECORD_LOST) {
            record_finish(rec, RECORD_BY_BEHIND);
        }
        if (stop || over(rec)) {
            break;
        }
        (void) nanosleep(&look, NULL);
    } while (1);

    return NULL;
}


int
record_start(recorder_t *rec, char *err, size_t errlen)
{
    int rc = pthread_create(&rec->thread, NULL, run, rec);

    if (rc != 0) {
        snprintf(err, errlen, "cannot start a thread: %s", strerror(rc));
        return -1;
    }

    (void) pthread_setname_np(rec->thread, "record");
    rec->threaded = 1;

    return 0;
}
