/*
 * Records into calls.
 *
 * DESIGN.  One call at a time is put together, of one record or of several (a
 * request and its prompts, a plan and its rows), in arrays of a size that the
 * head gives.  A recording may end anywhere, torn by a crash; a call that is
 * not whole then is as if it were not there.
 *
 * A recording comes from outside.  Every number has a limit, what is allocated
 * for a prompt is bounded by the context, and what a plan lists by
 * REPLAY_IDS_MAX.
 *
 * Any thread; not the engine's while it serves: it allocates.
 */
#include "replay_read.h"
#include "mem.h"

#include <assert.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define REPLAY_IDS_MAX (1u << 22) /* blocks that a plan may list */

struct replay_file_s {
    record_file_t *file; /* owned, as are all below */
    record_head_t head;
    replay_row_t *rows;  /* [head.rows] */
    uint32_t *ids;       /* [REPLAY_IDS_MAX] */
    sched_take_t *takes; /* [head.batch_outs] */
    uint32_t *more;      /* [head.batch_outs] */
    req_t r;
    uint32_t ids_n;
    uint64_t calls;
    const char *ends;
    char *err; /* borrowed */
    size_t errlen;
};


replay_file_t *
replay_file_open(FILE *f, record_head_t *h, char *err, size_t errlen)
{
    replay_file_t *rf = mem_zero(1, sizeof(*rf));

    assert(f != NULL && errlen > 0);

    if (rf == NULL) {
        snprintf(err, errlen, "out of memory");
        return NULL;
    }
    rf->err = err;
    rf->errlen = errlen;
    rf->file = record_file_open(f, &rf->head, err, errlen);
    if (rf->file == NULL) {
        mem_free(rf);
        return NULL;
    }

    *h = rf->head;
    rf->rows = mem_zero(rf->head.rows, sizeof(*rf->rows));
    rf->ids = mem_zero(REPLAY_IDS_MAX, sizeof(*rf->ids));
    rf->takes = mem_zero(rf->head.batch_outs, sizeof(*rf->takes));
    rf->more = mem_zero(rf->head.batch_outs, sizeof(*rf->more));
    if (rf->rows == NULL || rf->ids == NULL || rf->takes == NULL
        || rf->more == NULL) {
        snprintf(err, errlen, "out of memory");
        replay_file_close(rf);
        return NULL;
    }

    return rf;
}


void
replay_file_close(replay_file_t *rf)
{
    if (rf == NULL) {
        return;
    }

    record_file_close(rf->file);
    mem_free(rf->rows);
    mem_free(rf->ids);
    mem_free(rf->takes);
    mem_free(rf->more);
    mem_free(rf);
}


void
replay_free(req_t *r)
{
    uint32_t i;

    for (i = 0; i < LLM_CHOICES_MAX; i++) {
        free(r->prompts[i].ids);
        r->prompts[i].ids = NULL;
    }
}


const char *
replay_ends(const replay_file_t *rf)
{
    assert(rf->ends != NULL);

    return rf->ends;
}


/* -1, with what is wrong in err. */
static int
bad(replay_file_t *rf, const char *what)
{
    assert(what != NULL && rf->errlen > 0);

    snprintf(rf->err, rf->errlen, "call %llu is damaged: %s",
        (unsigned long long) rf->calls, what);

    return -1;
}


/* The next record: 1; 0: the recording ends; -1. */
static int
next(replay_file_t *rf, record_t *r)
{
    static const char *const ends[] = {
#define X(name, doc) doc,
        RECORD_ENDS(X)
#undef X
    };
    int cut, rc;

    if (rf->ends != NULL) {
        return 0;
    }

    rc = record_file_next(rf->file, r, &cut, rf->err, rf->errlen);
    if (rc == 0) {
        rf->ends = cut ? "the file is cut off" : "the file has no end";
    }
    if (rc == 1 && r->type == RECORD_END_OF_FILE) {
        rf->ends = ends[record_get(r, RECORD_ENDS_N - 1)];
        return record_whole(r) ? 0 : bad(rf, "it is no end");
    }

    return rc;
}


/* --- requests ----------------------------------------------------------- */

/* The fields of a request, and the lengths of its prompts. */
static int
read_fields(replay_file_t *rf, record_t *rec, replay_call_t *c)
{
    req_t *r = &rf->r;
    uint32_t i;

    memset(r, 0, sizeof(*r));
    c->req = (uint32_t) record_get(rec, rf->head.reqs - 1);
    c->value = -(int) record_get(rec, LLM_ERR_END - 1);
    r->arrival_us = record_get(rec, RECORD_US_MAX);
    r->space = record_get(rec, UINT64_MAX);
    r->flags = (uint32_t) record_get(rec, UINT32_MAX);
    r->n = (uint32_t) record_get(rec, LLM_CHOICES_MAX);
    r->prompts_n = (uint32_t) record_get(rec, LLM_CHOICES_MAX);
    r->max_tokens = (uint32_t) record_get(rec, UINT32_MAX);
    r->tenant = (uint32_t) record_get(rec, UINT32_MAX);
    r->weight = (uint32_t) record_get(rec, UINT32_MAX);
    r->priority = (uint32_t) record_get(rec, UINT32_MAX);
    r->concurrent = (uint32_t) record_get(rec, UINT32_MAX);
    r->queue_max = (uint32_t) record_get(rec, UINT32_MAX);
    r->queue_ms = (uint32_t) record_get(rec, UINT32_MAX);
    for (i = 0; i < r->prompts_n; i++) {
        r->prompts[i].len = (uint32_t) record_get(rec, rf->head.context - 1);
        rec->bad |= r->prompts[i].len == 0;
    }
    r->choices = r->n * r->prompts_n;
    c->r = r;

    if (!record_whole(rec) || r->choices == 0 || r->choices > LLM_CHOICES_MAX) {
        return bad(rf, "a request that cannot be");
    }

    return 1;
}


/* The tokens of one prompt, from as many records as it takes. */
static int
read_prompt(replay_file_t *rf, req_prompt_t *p)
{
    uint32_t at = 0, n;
    record_t rec;
    int rc;

    assert(p->len > 0 && p->len < rf->head.context && p->ids == NULL);

    p->ids = malloc(p->len * sizeof(*p->ids));
    if (p->ids == NULL) {
        return bad(rf, "no memory for a prompt");
    }

    while (at < p->len) {
        rc = next(rf, &rec);
        if (rc <= 0) {
            return rc;
        }
        n = (uint32_t) record_tokens_n(&rec);
        if (rec.type != RECORD_PROMPT || n == 0 || n > p->len - at) {
            return bad(rf, "a prompt that is not as long as was said");
        }
        record_tokens(&rec, p->ids + at, n);
        if (!record_whole(&rec)) {
            return bad(rf, "a token that cannot be");
        }
        at += n;
    }

    return 1;
}


static int
read_add(replay_file_t *rf, record_t *rec, replay_call_t *c)
{
    uint32_t i;
    int rc = read_fields(rf, rec, c);

    for (i = 0; i < rf->r.prompts_n && rc == 1 && c->value == 0; i++) {
        rc = read_prompt(rf, &rf->r.prompts[i]);
    }
    if (rc != 1) {
        replay_free(&rf->r);
    }

    return rc;
}


static int
read_retry(replay_file_t *rf, record_t *rec, replay_call_t *c)
{
    req_t *r = &rf->r;

    memset(r, 0, sizeof(*r));
    r->tenant = (uint32_t) record_get(rec, UINT32_MAX);
    r->priority = (uint32_t) record_get(rec, UINT32_MAX);
    r->queue_max = (uint32_t) record_get(rec, UINT32_MAX);
    r->queue_ms = (uint32_t) record_get(rec, UINT32_MAX);
    c->r = r;

    return record_whole(rec) ? 1 : bad(rf, "a refusal that cannot be");
}


/* --- plans -------------------------------------------------------------- */

static int
read_row(replay_file_t *rf, record_t *rec, replay_row_t *row)
{
    const record_head_t *h = &rf->head;
    uint32_t g, i;

    assert(row - rf->rows < (ptrdiff_t) h->rows);

    row->seq = (uint32_t) record_get(rec, h->reqs * LLM_CHOICES_MAX - 1);
    row->start = (uint32_t) record_get(rec, h->context);
    row->len = (uint32_t) record_get(rec, h->tokens);
    row->outs = (uint32_t) record_get(
        rec, row->len < h->batch_outs ? row->len : h->batch_outs);
    row->last = (uint32_t) record_get(rec, RECORD_TOKENS);
    for (g = 0; g < h->groups; g++) {
        row->blocks[g].first = (uint32_t) record_get(rec, h->context);
        row->blocks[g].n = (uint32_t) record_get(rec, h->context);
        row->blocks[g].sum = (uint32_t) record_get(rec, UINT32_MAX);
        row->blocks[g].listed = (uint32_t) record_get(rec, row->blocks[g].n);
        row->blocks[g].at = rf->ids_n;
        if (row->blocks[g].listed > REPLAY_IDS_MAX - rf->ids_n) {
            return bad(rf, "more blocks in a plan than can be");
        }
        for (i = 0; i < row->blocks[g].listed && !rec->bad; i++) {
            rf->ids[rf->ids_n++] = (uint32_t) record_get(rec, h->blocks - 1);
        }
    }

    return record_whole(rec) ? 1 : bad(rf, "a row that cannot be");
}


static int
read_plan(replay_file_t *rf, record_t *rec, replay_call_t *c)
{
    uint32_t i;
    int rc;

    c->us = record_get(rec, RECORD_US_MAX);
    c->rows_n = (uint32_t) record_get(rec, rf->head.rows);
    c->tokens_n = (uint32_t) record_get(rec, rf->head.batch_tokens);
    c->outs_n = (uint32_t) record_get(rec, rf->head.batch_outs);
    c->rows = rf->rows;
    c->ids = rf->ids;
    rf->ids_n = 0;
    if (!record_whole(rec)) {
        return bad(rf, "a plan that cannot be");
    }

    for (i = 0; i < c->rows_n; i++) {
        rc = next(rf, rec);
        if (rc <= 0) {
            return rc;
        }
        if (rec->type != RECORD_ROW) {
            return bad(rf, "a plan without all of its rows");
        }
        rc = read_row(rf, rec, &rf->rows[i]);
        if (rc < 0) {
            return rc;
        }
    }

    return 1;
}


/* The tokens that follow one; *used of the room for them is. */
static void
read_more(
    const replay_file_t *rf, record_t *rec, sched_take_t *t, uint32_t *used)
{
    uint32_t left = (uint32_t) rf->head.batch_outs - *used;

    left = left < SCHED_MORE_MAX ? left : SCHED_MORE_MAX;
    t->more_n = (uint32_t) record_get(rec, left);
    rec->bad |= t->err != 0 || t->prompt || t->more_n == 0;
    if (!rec->bad) {
        t->more = rf->more + *used;
        record_tokens(rec, rf->more + *used, t->more_n);
        *used += t->more_n;
    }
}


static int
read_commit(replay_file_t *rf, record_t *rec, replay_call_t *c)
{
    uint32_t i, flags, more = 0;
    sched_take_t *t;

    c->outs_n = (uint32_t) record_get(rec, rf->head.batch_outs);
    c->takes = rf->takes;
    memset(rf->takes, 0, c->outs_n * sizeof(*rf->takes));

    for (i = 0; i < c->outs_n && !rec->bad; i++) {
        t = &rf->takes[i];
        flags = (uint32_t) record_get(rec, 31);
        t->ends = (flags & RECORD_ENDS_TEXT) != 0;
        t->over = (flags & RECORD_ENDS_ALL) != 0;
        t->prompt = (flags & RECORD_OF_PROMPT) != 0;
        if (flags & RECORD_ERR) {
            t->err = (uint32_t) record_get(rec, LLM_ERR_END - 1);
            rec->bad |= t->err == 0;
        } else if (!t->prompt) {
            record_tokens(rec, &t->token, 1);
        }
        if (flags & RECORD_MORE) {
            read_more(rf, rec, t, &more);
        }
    }

    return record_whole(rec) ? 1 : bad(rf, "sampled tokens that cannot be");
}


/* A call that is a few numbers. */
static int
read_plain(replay_file_t *rf, record_t *rec, replay_call_t *c)
{
    switch (rec->type) {
    case RECORD_TOOK:
        c->us = record_get(rec, RECORD_US_MAX);
        break;
    case RECORD_CREDIT:
        c->req = (uint32_t) record_get(rec, rf->head.reqs - 1);
        c->value = (int) record_get(rec, 1);
        break;
    case RECORD_CUT:
        c->req = (uint32_t) record_get(rec, rf->head.reqs - 1);
        c->choice = (uint32_t) record_get(rec, LLM_CHOICES_MAX - 1);
        c->index = (uint32_t) record_get(rec, rf->head.context);
        break;
    default:
        c->req = (uint32_t) record_get(rec, rf->head.reqs - 1);
    }

    return record_whole(rec) ? 1 : bad(rf, "a call that cannot be");
}


int
replay_read(replay_file_t *rf, replay_call_t *c)
{
    record_t rec;
    int rc = next(rf, &rec);

    if (rc <= 0) {
        return rc;
    }

    memset(c, 0, sizeof(*c));
    rf->calls++;
    c->type = rec.type;

    switch (rec.type) {
    case RECORD_ADD:
        return read_add(rf, &rec, c);
    case RECORD_RETRY:
        return read_retry(rf, &rec, c);
    case RECORD_PLAN:
        return read_plan(rf, &rec, c);
    case RECORD_COMMIT:
        return read_commit(rf, &rec, c);
    case RECORD_CREDIT:
    case RECORD_TOOK:
    case RECORD_CUT:
    case RECORD_END:
        return read_plain(rf, &rec, c);
    default:
        return bad(rf, "no call begins so");
    }
}
