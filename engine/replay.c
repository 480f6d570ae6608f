/*
 * The same calls again.
 *
 * DESIGN.  The scheduler is pure, so one that was opened alike and is told the
 * same plans the same, block by block.  Each recorded call is made, and each
 * plan that comes of it is compared with the recorded one:
 *
 *      recorded   PLAN 2 rows ROW ROW ── COMMIT ── TOOK ── END ── PLAN ...
 *                   │ equal?                │
 *      here       sched_plan ─────────── sched_commit ...
 *
 * The first plan that differs is the end: what was recorded after it belongs
 * to other plans.  Equal are the rows, which blocks each has, how many outputs
 * it has, and its tokens, of which the last stands for all before it
 * (record_write.c).
 *
 * A recording comes from outside, and the scheduler asserts what its caller
 * owes it.  So each call is judged before it is made: is that request there,
 * has that choice such a token, is there a step to commit, was what it ended
 * ended before the next plan?
 *
 * The recorded plan comes first or second as it was made: nothing here knows
 * when a loop plans.
 *
 * Not for the engine's threads: it allocates.
 */
#include "replay_impl.h"
#include "mem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define REPLAY_SHOWN 12 /* rows of a plan that are printed */

typedef struct {
    replay_sched_t rs;
    uint8_t *owed;    /* [reqs] owned; must end before the next plan, */
    uint32_t owed_n;  /* and how many must */
    uint32_t *in;     /* [reqs] owned; the step that it is in, */
    uint32_t step;    /* if that is this one, and that is not committed */
    int running, ran; /* there is a step to commit; and one that took time */
    double *us;       /* [us_n] owned; of plans */
    size_t us_n, us_max;
    uint64_t spent_ns, calls;
    FILE *out; /* borrowed */
    replay_stats_t *st;
    char *err; /* borrowed */
    size_t errlen;
} replay_t;


/* --- a scheduler -------------------------------------------------------- */

static void
change_head(record_head_t *h, const replay_change_t *c)
{
    if (c->policy != NULL) {
        snprintf(h->policy, sizeof(h->policy), "%s", c->policy);
    }
    if (c->tokens >= 0) {
        h->tokens = (uint64_t) c->tokens;
        h->batch_tokens = h->step = h->tokens;
        h->budget = 0;
    }
    if (c->tile >= 0) {
        h->tile = (uint64_t) c->tile;
    }
    if (c->target_us >= 0) {
        h->target_us = (uint64_t) c->target_us;
    }
    if (c->floor >= 0) {
        h->floor = (uint64_t) c->floor;
    }
    if (c->cache >= 0) {
        h->cache = (uint64_t) c->cache;
        h->owners = 2 * h->reqs;
    }
}


static int
open_tables(replay_sched_t *rs)
{
    const record_head_t *h = &rs->head;

    rs->b.rows_max = (uint32_t) h->batch_rows;
    rs->b.tokens_max = (uint32_t) h->batch_tokens;
    rs->b.outs_max = (uint32_t) h->batch_outs;
    rs->b.rows = mem_zero(h->batch_rows, sizeof(batch_row_t));
    rs->b.tokens = mem_zero(h->batch_tokens, sizeof(uint32_t));
    rs->b.outs = mem_zero(h->batch_outs, sizeof(batch_out_t));
    rs->reqs = mem_zero(h->reqs, sizeof(req_t));
    rs->live = mem_zero(h->reqs, 1);

    return rs->b.rows == NULL || rs->b.tokens == NULL || rs->b.outs == NULL
                   || rs->reqs == NULL || rs->live == NULL
               ? -1
               : 0;
}


int
replay_sched_open(replay_sched_t *rs, const record_head_t *h,
    const replay_change_t *change, char *err, size_t errlen)
{
    sched_cfg_t sc;
    kv_cfg_t kc;
    const char *field;

    memset(rs, 0, sizeof(*rs));
    rs->head = *h;
    change_head(&rs->head, change);
    field = record_head_bad(&rs->head);
    if (field != NULL) {
        snprintf(err, errlen, "that %s is not one that can be", field);
        return -1;
    }

    record_configs(&rs->head, &sc, &kc, rs->window);
    sc.policy = change->find != NULL ? change->find(rs->head.policy)
                                     : sched_policy(rs->head.policy);
    if (sc.policy == NULL) {
        snprintf(err, errlen, "there is no policy \"%s\"", rs->head.policy);
        return -1;
    }
    if (sched_policy_whole(sc.policy)
        && sc.tokens < (uint64_t) sc.context + sc.rows) {
        snprintf(err, errlen,
            "policy %s needs steps as long as context and rows",
            rs->head.policy);
        return -1;
    }
    if (kv_longest(&kc) < 2) {
        snprintf(err, errlen, "its blocks hold no sequence");
        return -1;
    }

    rs->kv = kv_open(&kc);
    if (open_tables(rs) != 0 || rs->kv == NULL
        || (rs->head.cache
            && kv_cache(rs->kv, (uint32_t) rs->head.owners, 1) != 0)
        || (rs->s = sched_open(&sc, rs->kv)) == NULL) {
        replay_sched_close(rs);
        snprintf(err, errlen, "out of memory");
        return -1;
    }
    kv_shares(rs->kv, (uint32_t) rs->head.kept, rs->head.idle_us);

    return 0;
}


void
replay_sched_close(replay_sched_t *rs)
{
    uint64_t i;

    for (i = 0; rs->live != NULL && i < rs->head.reqs; i++) {
        if (rs->live[i]) {
            replay_free(&rs->reqs[i]);
        }
    }
    sched_close(rs->s);
    kv_close(rs->kv);
    mem_free(rs->b.rows);
    mem_free(rs->b.tokens);
    mem_free(rs->b.outs);
    mem_free(rs->reqs);
    mem_free(rs->live);
    memset(rs, 0, sizeof(*rs));
}


/* --- figures ------------------------------------------------------------ */

static int
by_value(const void *a, const void *b)
{
    const double x = *(const double *) a, y = *(const double *) b;

    return (x > y) - (x < y);
}


double
replay_percentile(double *v, size_t n, double p)
{
    size_t at = (size_t) ((double) n * p / 100);

    assert(p >= 0 && p <= 100);

    if (n == 0) {
        return 0;
    }
    qsort(v, n, sizeof(*v), by_value);

    return v[at < n ? at : n - 1];
}


int
replay_room(void **table, size_t n, size_t *max, size_t size)
{
    size_t more = *max > 0 ? *max * 2 : 1024;
    void *p;

    assert(n <= *max && size > 0);

    if (n < *max) {
        return 0;
    }
    p = reallocarray(*table, more, size);
    if (p == NULL) {
        return -1;
    }
    *table = p;
    *max = more;

    return 0;
}


static uint64_t
now_ns(void)
{
    struct timespec ts;

    (void) clock_gettime(CLOCK_MONOTONIC, &ts);

    return (uint64_t) ts.tv_sec * 1000000000 + (uint64_t) ts.tv_nsec;
}


/* --- what differs ------------------------------------------------------- */

/* Prints a plan: of each row its sequence, where it begins, how long it is. */
static void
print_rows(FILE *out, const char *whose, const replay_row_t *rows, uint32_t n)
{
    uint32_t i, g;

    fprintf(out, "  %s %u rows%s", whose, n, n > 0 ? ":" : "");
    for (i = 0; i < n && i < REPLAY_SHOWN; i++) {
        fprintf(out, "%s request %u choice %u at %u + %u, blocks",
            i > 0 ? ";" : "", rows[i].seq / LLM_CHOICES_MAX,
            rows[i].seq % LLM_CHOICES_MAX, rows[i].start, rows[i].len);
        for (g = 0; g < KV_GROUPS && rows[i].blocks[g].n > 0; g++) {
            fprintf(out, " %u", rows[i].blocks[g].n);
        }
    }
    fprintf(out, "%s\n", n > REPLAY_SHOWN ? "; ..." : "");
}


/* Row k as it is here, in the form in which rows are recorded. */
static void
own_row(const replay_t *rp, uint32_t k, uint32_t *o, replay_row_t *row)
{
    const batch_t *b = &rp->rs.b;
    const batch_row_t *r = &b->rows[k];
    uint32_t g, i;

    assert(k < b->rows_n && r->q_len > 0 && r->tok < b->tokens_n);

    memset(row, 0, sizeof(*row));
    row->seq = r->seq;
    row->start = r->q_start;
    row->len = r->q_len;
    for (; *o < b->outs_n && b->outs[*o].row == k; (*o)++) {
        row->outs++;
    }
    row->last = b->tokens[r->tok + r->q_len - 1] + 1;
    for (g = 0; g < rp->rs.head.groups; g++) {
        row->blocks[g].first = r->blocks[g].first;
        row->blocks[g].n = r->blocks[g].n;
        for (i = 0; i < r->blocks[g].n; i++) {
            row->blocks[g].sum += r->blocks[g].ids[i];
        }
    }
}


/* In what row k differs; NULL: in nothing. */
static const char *
row_differs(const replay_t *rp, const replay_call_t *c, uint32_t k,
    const replay_row_t *own)
{
    const replay_row_t *row = &c->rows[k];
    const batch_blocks_t *b;
    uint32_t g;

    if (row->seq != own->seq) {
        return "its sequence";
    }
    if (row->start != own->start || row->len != own->len) {
        return "its tokens' place";
    }
    if (row->outs != own->outs) {
        return "its outputs";
    }
    if (row->last != 0 && row->last != own->last) {
        return "its tokens";
    }
    for (g = 0; g < rp->rs.head.groups; g++) {
        b = &rp->rs.b.rows[k].blocks[g];
        if (row->blocks[g].first != own->blocks[g].first
            || row->blocks[g].n != own->blocks[g].n
            || row->blocks[g].sum != own->blocks[g].sum
            || memcmp(c->ids + row->blocks[g].at,
                   b->ids + b->n - row->blocks[g].listed,
                   row->blocks[g].listed * sizeof(uint32_t))
                   != 0) {
            return "its blocks";
        }
    }

    return NULL;
}


/* Compares the plan just made; 1: it differs, which has been said. */
static int
plan_differs(replay_t *rp, const replay_call_t *c)
{
    const batch_t *b = &rp->rs.b;
    replay_row_t *own = calloc(b->rows_n + 1, sizeof(*own));
    const char *what = NULL;
    uint32_t k, o = 0;

    if (own == NULL) {
        return 0;
    }
    for (k = 0; k < b->rows_n; k++) {
        own_row(rp, k, &o, &own[k]);
    }
    for (k = 0; k < b->rows_n && k < c->rows_n && what == NULL; k++) {
        what = row_differs(rp, c, k, &own[k]);
    }
    if (what == NULL
        && (b->rows_n != c->rows_n || b->tokens_n != c->tokens_n
            || b->outs_n != c->outs_n)) {
        what = "how much there is";
    }

    if (what != NULL) {
        rp->st->differs = rp->st->plans;
        if (rp->out != NULL) {
            fprintf(rp->out, "plan %llu at %.6f s differs: row %u, %s\n",
                (unsigned long long) rp->st->plans,
                (double) (c->us - rp->st->from_us) / 1e6, k, what);
            print_rows(rp->out, "recorded:", c->rows, c->rows_n);
            print_rows(rp->out, "here:    ", own, b->rows_n);
        }
    }
    free(own);

    return what != NULL;
}


/* --- calls -------------------------------------------------------------- */

/* -1: nobody may make that call now. */
static int
wrong(replay_t *rp, const char *what)
{
    snprintf(rp->err, rp->errlen, "call %llu cannot be: %s",
        (unsigned long long) rp->calls, what);

    return -1;
}


/* Notes that a request must end before the next plan. */
static void
owe(replay_t *rp, uint32_t req)
{
    assert(rp->rs.live[req]);

    rp->owed_n += !rp->owed[req];
    rp->owed[req] = 1;
}


static int
is_running(const replay_t *rp, uint32_t req)
{
    return rp->running && rp->in[req] == rp->step;
}


static int
call_add(replay_t *rp, const replay_call_t *c)
{
    const req_t *given = c->r;
    req_t *r = &rp->rs.reqs[c->req];
    uint32_t i;
    int rc;

    if (rp->rs.live[c->req]) {
        replay_free(c->r);
        return wrong(rp, "a request of that number is there already");
    }
    *r = *given;
    rp->rs.live[c->req] = 1; /* so that its prompts are freed */
    for (i = 0; i < r->prompts_n; i++) {
        if (r->prompts[i].len >= kv_fits(rp->rs.kv)) {
            return wrong(rp, "its prompt is longer than all blocks");
        }
        /* refused: nobody knows them, and nobody should look */
        if (r->prompts[i].ids == NULL) {
            r->prompts[i].ids = calloc(r->prompts[i].len, sizeof(uint32_t));
        }
        if (r->prompts[i].ids == NULL) {
            return wrong(rp, "no memory for a prompt");
        }
    }

    rc = sched_add(rp->rs.s, c->req, r);
    if (rc != 0) {
        rp->rs.live[c->req] = 0;
        replay_free(r);
    }
    rp->st->requests += rc == 0;
    rp->st->refused += rc != 0;
    if (rc != c->value) {
        rp->st->differs = rp->st->plans + 1;
        if (rp->out != NULL) {
            fprintf(rp->out,
                "request %u after plan %llu differs: recorded %s, here %s\n",
                c->req, (unsigned long long) rp->st->plans,
                c->value == 0 ? "taken in" : "refused",
                rc == 0 ? "taken in" : "refused");
        }
        return 1;
    }

    return 0;
}


/* Who is in the step that was just planned. */
static void
enter(replay_t *rp)
{
    const batch_t *b = &rp->rs.b;
    uint32_t k;

    rp->running = b->rows_n > 0;
    rp->step++;
    for (k = 0; k < b->rows_n; k++) {
        rp->in[b->rows[k].seq / LLM_CHOICES_MAX] = rp->step;
    }
    rp->st->steps += b->rows_n > 0;
    rp->st->tokens += b->tokens_n;
}


static int
call_plan(replay_t *rp, const replay_call_t *c)
{
    uint64_t from;
    uint32_t i;

    if (rp->running) {
        return wrong(rp, "the last step was not committed");
    }
    if (rp->owed_n > 0 || sched_expired(rp->rs.s, &i)) {
        return wrong(rp, "a request was to end before");
    }
    if (rp->st->plans > 0 && c->us < rp->st->until_us) {
        return wrong(rp, "time went back");
    }
    if (replay_room((void **) &rp->us, rp->us_n, &rp->us_max, sizeof(double))
        != 0) {
        return wrong(rp, "no memory for the times of plans");
    }

    from = now_ns();
    sched_plan(rp->rs.s, c->us, &rp->rs.b);
    from = now_ns() - from;
    rp->spent_ns += from;
    rp->us[rp->us_n++] = (double) from / 1e3;

    rp->st->from_us = rp->st->plans == 0 ? c->us : rp->st->from_us;
    rp->st->until_us = c->us;
    rp->st->plans++;
    rp->ran = 0;
    enter(rp);

    return plan_differs(rp, c);
}


static int
call_commit(replay_t *rp, const replay_call_t *c)
{
    const batch_t *b = &rp->rs.b;
    uint64_t from;
    uint32_t i;

    if (!rp->running || b->outs_n != c->outs_n) {
        return wrong(rp, "there is no such step to commit");
    }

    for (i = 0; i < c->outs_n; i++) {
        if ((c->takes[i].prompt != 0) != (b->outs[i].wanted != 0)) {
            return wrong(rp, "a token for another output");
        }
        if (c->takes[i].more_n > 0
            && c->takes[i].more_n
                   > sched_more_room(rp->rs.s, b->rows[b->outs[i].row].seq)) {
            return wrong(rp, "more tokens than there is room for");
        }
        rp->st->sampled += !c->takes[i].prompt && c->takes[i].err == 0;
    }
    from = now_ns();
    sched_commit(rp->rs.s, b, c->takes);
    rp->spent_ns += now_ns() - from;
    rp->running = 0;
    rp->ran = 1;

    for (i = 0; i < c->outs_n; i++) {
        if (c->takes[i].err != 0) {
            owe(rp, c->takes[i].req);
        }
    }

    return 0;
}


static int
call_cut(replay_t *rp, const replay_call_t *c)
{
    const req_t *r = &rp->rs.reqs[c->req];
    uint32_t known, computed, prompt;

    if (!rp->rs.live[c->req] || c->choice >= r->choices
        || is_running(rp, c->req)) {
        return wrong(rp, "no such choice can be cut");
    }

    (void) sched_seq(
        rp->rs.s, c->req * LLM_CHOICES_MAX + c->choice, &known, &computed);
    prompt = r->prompts[c->choice / r->n].len;
    if (c->index >= known - prompt) {
        return wrong(rp, "a token is cut that was not sampled");
    }
    (void) sched_cut(rp->rs.s, c->req, c->choice, c->index);

    return 0;
}


static int
call_end(replay_t *rp, const replay_call_t *c)
{
    if (!rp->rs.live[c->req] || is_running(rp, c->req)) {
        return wrong(rp, "no such request can end");
    }

    sched_end(rp->rs.s, c->req);
    replay_free(&rp->rs.reqs[c->req]);
    rp->rs.live[c->req] = 0;
    assert(rp->owed_n >= rp->owed[c->req]);
    rp->owed_n -= rp->owed[c->req];
    rp->owed[c->req] = 0;

    return 0;
}


/* Makes one call. 0; 1: something differs; -1: it cannot be. */
static int
call(replay_t *rp, const replay_call_t *c)
{
    rp->calls++;

    switch (c->type) {
    case RECORD_ADD:
        return call_add(rp, c);
    case RECORD_RETRY:
        (void) sched_retry_us(rp->rs.s, c->r);
        return 0;
    case RECORD_CREDIT:
        if (!rp->rs.live[c->req]) {
            return wrong(rp, "credit for a request that is not there");
        }
        sched_credit(rp->rs.s, c->req, c->value);
        return 0;
    case RECORD_PLAN:
        return call_plan(rp, c);
    case RECORD_COMMIT:
        return call_commit(rp, c);
    case RECORD_TOOK:
        if (!rp->ran) {
            return wrong(rp, "no step took that time");
        }
        sched_took(rp->rs.s, &rp->rs.b, c->us);
        rp->ran = 0;
        return 0;
    case RECORD_CUT:
        return call_cut(rp, c);
    default:
        assert(c->type == RECORD_END);
        return call_end(rp, c);
    }
}


static int
run(replay_t *rp, replay_file_t *rf)
{
    replay_stats_t *st = rp->st;
    sched_stats_t ss;
    replay_call_t c;
    int rc;

    do {
        rc = replay_read(rf, &c);
        if (rc != 1) {
            break;
        }
        rc = call(rp, &c);
    } while (rc == 0);

    if (rc < 0) {
        return -1;
    }

    st->ends = rc == 0 ? replay_ends(rf) : "a plan differs";
    sched_stats(rp->rs.s, &ss);
    st->preemptions = ss.preemptions;
    st->cache_asked = ss.cache_asked;
    st->cache_hits = ss.cache_hits;
    st->plan_us_50 = replay_percentile(rp->us, rp->us_n, 50);
    st->plan_us_99 = replay_percentile(rp->us, rp->us_n, 99);
    st->steps_s =
        rp->spent_ns > 0 ? (double) st->steps * 1e9 / (double) rp->spent_ns : 0;

    return 0;
}


int
replay_calls(FILE *f, const replay_change_t *change, FILE *out,
    replay_stats_t *st, char *err, size_t errlen)
{
    replay_t rp = {.out = out, .st = st, .err = err, .errlen = errlen};
    record_head_t head;
    replay_file_t *rf;
    int rc = -1;

    memset(st, 0, sizeof(*st));
    rf = replay_file_open(f, &head, err, errlen);
    if (rf == NULL) {
        return -1;
    }
    if (replay_sched_open(&rp.rs, &head, change, err, errlen) != 0) {
        goto done;
    }

    rp.owed = mem_zero(head.reqs, 1);
    rp.in = mem_zero(head.reqs, sizeof(uint32_t));
    if (rp.owed == NULL || rp.in == NULL) {
        snprintf(err, errlen, "out of memory");
        goto done;
    }
    rc = run(&rp, rf);

done:

    replay_sched_close(&rp.rs);
    replay_file_close(rf);
    mem_free(rp.owed);
    mem_free(rp.in);
    free(rp.us);

    return rc;
}
