/*
 * A recording, on the side of the one who is recorded.
 *
 * DESIGN.  The scheduler is pure: the calls made to it determine every plan.
 * So a recording is a list of calls and, for whoever replays it, of the plans
 * that came of them.  It is taken at the scheduler's own boundary (sched_tap),
 * where no call can be forgotten, whoever makes them and in what order.
 *
 *      loop ─ sched_* ─ tap ──> ring ──> writer's thread ──> file
 *                     (copies)          (hides, encodes, sums)
 *
 * The loop only copies.  Tokens are hidden, numbers made small and sums formed
 * on the other side of the ring (record_write.c).  When the ring is full the
 * recording ends, with a line in the log; the loop never waits.
 *
 * BLOCKS.  A sequence's table would be most of a plan, and changes little from
 * step to step: a row lists those blocks that are new since the sequence's
 * last row, and a sum of all of them, so that no change can hide.
 *
 * All memory is taken by record_open: what belongs to sequences is mapped as
 * they use it (mem.h).
 *
 * Called by the scheduler's thread, but for record_open and record_close.
 */
#include "record_impl.h"
#include "log.h"
#include "mem.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>


/* --- opening ------------------------------------------------------------ */

/* The file, new, only the owner's; -1 with err. */
static int
open_file(const char *path, char *err, size_t errlen)
{
    char old[4096];
    struct stat st;
    int fd;

    if (lstat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0) {
        if ((size_t) snprintf(old, sizeof(old), "%s.old", path) >= sizeof(old)
            || rename(path, old) != 0) {
            snprintf(err, errlen, "record %s: cannot keep the old one: %s",
                path, strerror(errno));
            return -1;
        }
    }

    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC,
        S_IRUSR | S_IWUSR);
    if (fd == -1
        || (fstat(fd, &st) == 0 && S_ISREG(st.st_mode)
            && fchmod(fd, S_IRUSR | S_IWUSR) != 0)) {
        snprintf(err, errlen, "record %s: %s", path, strerror(errno));
        if (fd != -1) {
            (void) close(fd);
        }
        return -1;
    }

    return fd;
}


static int
open_memory(recorder_t *rec)
{
    rec->ctl = mem_zero(1, sizeof(llm_ring_ctl_t) + RECORD_RING);
    rec->next = mem_zero(rec->seqs, sizeof(uint32_t));
    rec->ends = mem_zero(rec->seqs, rec->groups * sizeof(uint32_t));
    rec->call = mem_zero(RECORD_CALL, 1);
    rec->buf = mem_zero(RECORD_FRAME + RECORD_FRAME_MAX, 1);
    rec->known = mem_zero(rec->seqs, sizeof(record_chain_t));
    rec->rows = mem_zero(rec->seqs, sizeof(record_chain_t));
    rec->marks = mem_zero(rec->seqs, rec->marks_n * sizeof(uint64_t));
    if (rec->ctl == NULL || rec->next == NULL || rec->ends == NULL
        || rec->call == NULL || rec->buf == NULL || rec->known == NULL
        || rec->rows == NULL || rec->marks == NULL) {
        return -1;
    }

    llm_ring_init(&rec->in, rec->ctl, rec->ctl + 1, RECORD_RING);
    llm_ring_init(&rec->out, rec->ctl, rec->ctl + 1, RECORD_RING);

    return 0;
}


static void
free_all(recorder_t *rec)
{
    if (rec->fd != -1) {
        (void) close(rec->fd);
    }
    mem_free(rec->ctl);
    mem_free(rec->next);
    mem_free(rec->ends);
    mem_free(rec->call);
    mem_free(rec->buf);
    mem_free(rec->known);
    mem_free(rec->rows);
    mem_free(rec->marks);
    mem_free(rec);
}


recorder_t *
record_open(const char *path, uint64_t limit, const record_head_t *h, char *err,
    size_t errlen)
{
    uint8_t head[RECORD_HEAD_BYTES];
    const char *field = record_head_bad(h);
    recorder_t *rec;
    size_t n;

    if (field != NULL) {
        snprintf(err, errlen,
            "a recording cannot have that %s: see "
            "engine/record_file.h",
            field);
        return NULL;
    }
    rec = mem_zero(1, sizeof(*rec));
    if (rec == NULL) {
        goto memory;
    }

    rec->fd = -1;
    rec->head = *h;
    rec->head.unix_s = (uint64_t) time(NULL);
    rec->seqs = (uint32_t) h->reqs * LLM_CHOICES_MAX;
    rec->groups = (uint32_t) h->groups;
    rec->block_tokens = (uint32_t) h->block_tokens;
    rec->marks_n = (uint32_t) (h->context / h->block_tokens) + 1;
    rec->limit = limit;
    if (open_memory(rec) != 0) {
        goto memory;
    }
    if (getrandom(rec->key, sizeof(rec->key), 0) != sizeof(rec->key)) {
        snprintf(err, errlen, "no random numbers: %s", strerror(errno));
        goto failed;
    }

    rec->fd = open_file(path, err, errlen);
    if (rec->fd == -1) {
        goto failed;
    }
    n = record_head_put(head, &rec->head);
    if (write(rec->fd, head, n) != (ssize_t) n) {
        snprintf(err, errlen, "record %s: %s", path, strerror(errno));
        goto failed;
    }
    rec->written = n;

    return rec;

memory:

    snprintf(err, errlen, "no memory for a recording");

failed:

    if (rec != NULL) {
        free_all(rec);
    }

    return NULL;
}


uint64_t
record_close(recorder_t *rec)
{
    uint64_t written;

    if (rec == NULL) {
        return 0;
    }

    __atomic_store_n(&rec->stop, 1, __ATOMIC_RELEASE);
    if (rec->threaded) {
        (void) pthread_join(rec->thread, NULL);
    } else {
        record_write(rec, 1);
    }
    record_finish(
        rec, __atomic_load_n(&rec->off, __ATOMIC_ACQUIRE) == RECORD_LOST
                 ? RECORD_BY_BEHIND
                 : RECORD_BY_CLOSED);

    written = rec->written;
    free_all(rec);

    return written;
}


int
record_on(const recorder_t *rec)
{
    assert(rec->seqs > 0);

    return __atomic_load_n(&rec->off, __ATOMIC_ACQUIRE) == 0;
}


/* --- telling ------------------------------------------------------------ */

/*
 * Room for a call of len bytes; NULL: there is none, and from here on nothing
 * is recorded.
 */
static void *
call_room(recorder_t *rec, size_t len, record_type_t type)
{
    llm_ring_hdr_t *h = NULL;

    assert(type < RECORD_TYPES_N);

    if (len <= RECORD_CALL) {
        h = llm_ring_reserve(&rec->in, (uint32_t) len, 0);
        if (h == NULL && !rec->threaded) {
            record_write(rec, 0);
            h = llm_ring_reserve(&rec->in, (uint32_t) len, 0);
        }
    }
    if (h == NULL) {
        __atomic_store_n(&rec->off, RECORD_LOST, __ATOMIC_RELEASE);
        return NULL;
    }
    h->type = (uint16_t) (type + 1);

    return h;
}


static void
tell_plain(recorder_t *rec, record_type_t type, uint64_t a, uint64_t b,
    uint64_t c, uint64_t d)
{
    record_plain_t *m = call_room(rec, sizeof(*m), type);

    if (m != NULL) {
        m->v[0] = a;
        m->v[1] = b;
        m->v[2] = c;
        m->v[3] = d;
        llm_ring_commit(&rec->in);
    }
}


/* One prompt of a request, in parts. */
static int
tell_prompt(recorder_t *rec, uint32_t req, const req_t *r, uint32_t p)
{
    const req_prompt_t *all = &r->prompts[p];
    record_prompt_t *m;
    uint32_t at, n;

    for (at = 0; at < all->len; at += n) {
        n = all->len - at < RECORD_PART ? all->len - at : RECORD_PART;
        m = call_room(rec, sizeof(*m) + n * sizeof(uint32_t), RECORD_PROMPT);
        if (m == NULL) {
            return -1;
        }
        m->seq = req * LLM_CHOICES_MAX + p * r->n;
        m->copies = r->n;
        m->n = n;
        m->last = at + n == all->len;
        memcpy(m->ids, all->ids + at, n * sizeof(uint32_t));
        llm_ring_commit(&rec->in);
    }

    return 0;
}


static void
tell_add(recorder_t *rec, const sched_call_t *c)
{
    record_add_t *m = call_room(rec, sizeof(*m), RECORD_ADD);
    const req_t *r = c->r;
    uint32_t i;

    assert(c->req < rec->head.reqs && r->prompts_n <= LLM_CHOICES_MAX);

    if (m == NULL) {
        return;
    }
    m->req = c->req;
    m->answer = (uint32_t) -c->value;
    m->arrival_us = r->arrival_us;
    m->space = r->space;
    m->flags = r->flags;
    m->n = r->n;
    m->prompts_n = r->prompts_n;
    m->max_tokens = r->max_tokens;
    m->tenant = r->tenant;
    m->weight = r->weight;
    m->priority = r->priority;
    m->concurrent = r->concurrent;
    m->queue_max = r->queue_max;
    m->queue_ms = r->queue_ms;
    for (i = 0; i < r->prompts_n; i++) {
        m->lens[i] = r->prompts[i].len;
    }
    llm_ring_commit(&rec->in);

    if (c->value != 0) {
        return; /* nobody looked at its prompts */
    }
    for (i = 0; i < r->choices; i++) {
        rec->next[c->req * LLM_CHOICES_MAX + i] = 0;
    }
    for (i = 0; i < r->prompts_n; i++) {
        if (tell_prompt(rec, c->req, r, i) != 0) {
            return;
        }
    }
}


/*
 * Which of a row's blocks in a group are to be listed: those behind the ones
 * that were, if the row goes on where the last one ended.
 */
static uint32_t
row_blocks(
    recorder_t *rec, const batch_row_t *row, uint32_t g, record_blocks_t *out)
{
    uint32_t *end = &rec->ends[(size_t) row->seq * rec->groups + g];
    const batch_blocks_t *b = &row->blocks[g];
    uint32_t i, sum = 0;

    out->first = b->first;
    out->n = out->listed = b->n;
    if (row->q_start > 0 && row->q_start == rec->next[row->seq]
        && *end > b->first) {
        out->listed = b->first + b->n > *end ? b->first + b->n - *end : 0;
    }
    *end = b->first + b->n;

    for (i = 0; i < b->n; i++) {
        sum += b->ids[i];
    }
    out->sum = sum;

    return out->listed;
}


static int
tell_row(recorder_t *rec, const batch_t *b, uint32_t k, uint32_t outs)
{
    const batch_row_t *row = &b->rows[k];
    record_blocks_t blocks[KV_GROUPS];
    uint32_t g, n = row->q_len, *to;
    record_row_t *m;

    assert(row->seq < rec->seqs);

    for (g = 0; g < rec->groups; g++) {
        n += row_blocks(rec, row, g, &blocks[g]);
    }
    rec->next[row->seq] = row->kv_len;

    m = call_room(rec, sizeof(*m) + n * sizeof(uint32_t), RECORD_ROW);
    if (m == NULL) {
        return -1;
    }
    m->seq = row->seq;
    m->start = row->q_start;
    m->len = row->q_len;
    m->outs = outs;
    to = m->ids;
    for (g = 0; g < rec->groups; g++) {
        m->blocks[g] = blocks[g];
        memcpy(to, row->blocks[g].ids + row->blocks[g].n - blocks[g].listed,
            blocks[g].listed * sizeof(uint32_t));
        to += blocks[g].listed;
    }
    memcpy(to, b->tokens + row->tok, row->q_len * sizeof(uint32_t));
    llm_ring_commit(&rec->in);

    return 0;
}


static void
tell_plan(recorder_t *rec, const sched_call_t *c)
{
    const batch_t *b = c->b;
    uint32_t k, o = 0, outs;

    tell_plain(rec, RECORD_PLAN, c->us, b->rows_n, b->tokens_n, b->outs_n);

    for (k = 0; k < b->rows_n && record_on(rec); k++) {
        for (outs = 0; o < b->outs_n && b->outs[o].row == k; o++) {
            outs++;
        }
        if (tell_row(rec, b, k, outs) != 0) {
            return;
        }
    }
}


static void
tell_commit(recorder_t *rec, const sched_call_t *c)
{
    record_commit_t *m;
    const sched_take_t *t;
    uint32_t i, n = c->b->outs_n, more = 0, *ids;

    for (i = 0; i < n; i++) {
        more += c->takes[i].more_n;
    }
    m = call_room(rec,
        sizeof(*m) + n * sizeof(m->takes[0]) + more * sizeof(*ids),
        RECORD_COMMIT);
    if (m == NULL) {
        return;
    }
    m->n = n;
    m->more = more;
    ids = (uint32_t *) (void *) &m->takes[n];
    for (i = 0; i < n; i++) {
        t = &c->takes[i];
        m->takes[i].seq = t->req * LLM_CHOICES_MAX + t->choice;
        m->takes[i].token = t->token;
        m->takes[i].err = t->err;
        m->takes[i].flags = (t->ends ? RECORD_ENDS_TEXT : 0)
                            | (t->over ? RECORD_ENDS_ALL : 0)
                            | (t->prompt ? RECORD_OF_PROMPT : 0)
                            | (t->more_n > 0 ? RECORD_MORE : 0);
        m->takes[i].more = t->more_n;
        if (t->more_n > 0) {
            memcpy(ids, t->more, t->more_n * sizeof(*ids));
            ids += t->more_n;
        }
    }
    llm_ring_commit(&rec->in);
}


void
record_tell(void *arg, const sched_call_t *c)
{
    recorder_t *rec = arg;

    if (!record_on(rec)) {
        return;
    }

    switch (c->type) {
    case SCHED_CALL_ADD:
        tell_add(rec, c);
        break;
    case SCHED_CALL_RETRY:
        tell_plain(rec, RECORD_RETRY, c->r->tenant, c->r->priority,
            c->r->queue_max, c->r->queue_ms);
        break;
    case SCHED_CALL_CREDIT:
        tell_plain(rec, RECORD_CREDIT, c->req, c->value != 0, 0, 0);
        break;
    case SCHED_CALL_PLAN:
        tell_plan(rec, c);
        break;
    case SCHED_CALL_COMMIT:
        tell_commit(rec, c);
        break;
    case SCHED_CALL_TOOK:
        tell_plain(rec, RECORD_TOOK, c->us, 0, 0, 0);
        break;
    case SCHED_CALL_CUT:
        tell_plain(rec, RECORD_CUT, c->req, c->choice, c->index, 0);
        break;
    case SCHED_CALL_END:
        tell_plain(rec, RECORD_END, c->req, 0, 0, 0);
        break;
    default:
        assert(0); /* TRIM: a scheduler of depth 1 has no recorder */
    }
}
