/*
 * A run in virtual time: see run.h.
 *
 * DESIGN.  The loop's turn without the loop: arrivals up to now, plan, the
 * cost model's time, commit, and what the tokens end.  The clock jumps to the
 * next arrival or expiry when there is nothing to compute; if there is neither,
 * the scheduler is stuck, and that is an assertion.
 *
 * Prompts are made of tokens that tell requests apart, but for the prefix
 * blocks that the load says they share.
 */
#include "run.h"
#include "../unit/kv_plain.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void
pool_open(run_t *r)
{
    const run_cfg_t *c = &r->c;
    kv_cfg_t kc = {c->blocks, c->block_tokens, sched_seqs(&c->sched),
        c->sched.context, c->sched.tokens * (1 + c->sched.depth), c->groups,
        c->windows};

    r->kv = c->groups > 0 ? kv_open(&kc)
                          : kv_open_plain(
                              kc.blocks, kc.block_tokens, kc.seqs, kc.context);
    assert(r->kv != NULL);
    if (c->cache && kv_cache(r->kv, 2 * c->sched.reqs, 1) != 0) {
        assert(0);
    }
    if (c->tier.slots > 0) {
        r->tier = tier_open(&c->tier, r->kv, 2 * c->sched.reqs, 9);
    }
    r->free_least = c->blocks;
}


/* Without a step a turn takes so long. */
#define TURN_US 100


static void
batch_open(batch_t *b, const sched_cfg_t *c)
{
    b->rows_max = b->outs_max = c->rows;
    b->tokens_max = c->tokens;
    b->rows = calloc(c->rows, sizeof(batch_row_t));
    b->outs = calloc(c->rows, sizeof(batch_out_t));
    b->tokens = calloc(c->tokens, sizeof(uint32_t));
    b->late = calloc(c->rows, sizeof(batch_late_t));
    assert(b->rows != NULL && b->outs != NULL && b->tokens != NULL);
    assert(b->late != NULL);
}


static void
batch_close(batch_t *b)
{
    free(b->rows);
    free(b->outs);
    free(b->tokens);
    free(b->late);
}


void
run_open(run_t *r, const run_cfg_t *c)
{
    uint32_t reqs = (uint32_t) c->load->n, i;
    sched_cfg_t *sc;

    memset(r, 0, sizeof(*r));
    r->c = *c;
    sc = &r->c.sched;
    sc->reqs = sc->reqs != 0 && sc->reqs < reqs ? sc->reqs : reqs;
    rnd_seed(&r->rnd, 77);
    r->tbt.limit = c->tbt_limit_us / 1e6;
    r->delay.limit = c->delay_limit_us / 1e6;

    r->c.hash_tokens = c->hash_tokens ? c->hash_tokens : LOAD_HASH_TOKENS;
    pool_open(r);
    r->s = sched_open(sc, r->kv);
    batch_open(&r->b, sc);
    batch_open(&r->ahead, sc);
    r->takes = calloc(sc->rows, sizeof(sched_take_t));
    r->reqs = calloc(sc->reqs, sizeof(req_t));
    r->item = calloc(sc->reqs, sizeof(uint32_t));
    r->row_items = calloc(sc->rows, sizeof(uint32_t));
    r->unused = calloc(sc->reqs, sizeof(uint32_t));
    r->items = calloc(reqs, sizeof(run_req_t));
    r->back = calloc(reqs, sizeof(uint32_t));
    assert(r->s != NULL && r->takes != NULL && r->reqs != NULL);
    assert(r->item != NULL && r->unused != NULL && r->items != NULL);
    assert(r->row_items != NULL && r->back != NULL);

    for (i = 0; i < sc->reqs; i++) {
        r->item[i] = RUN_NONE;
        r->unused[i] = sc->reqs - 1 - i;
    }
    r->unused_n = sc->reqs;
}


void
run_close(run_t *r)
{
    uint32_t i;

    if (!r->stopped) {
        assert(r->live_n == 0);
        assert(kv_count(r->kv, KV_PRIVATE) == 0);
    }
    kv_check_deep(r->kv);
    tier_close(r->tier);

    for (i = 0; i < r->c.sched.reqs; i++) {
        if (r->item[i] != RUN_NONE) {
            free(r->reqs[i].prompts[0].ids);
        }
    }
    sched_close(r->s);
    kv_close(r->kv);
    batch_close(&r->b);
    batch_close(&r->ahead);
    free(r->takes);
    free(r->reqs);
    free(r->item);
    free(r->row_items);
    free(r->unused);
    free(r->items);
    free(r->back);
}


/* --- requests ----------------------------------------------------------- */

static uint32_t *
prompt(const load_t *l, uint32_t item, uint32_t hash_tokens)
{
    const load_req_t *q = &l->v[item];
    uint32_t *ids = malloc(q->prompt * sizeof(*ids)), i, b, stem;

    assert(ids != NULL);

    for (i = 0; i < q->prompt; i++) {
        b = i / hash_tokens;
        stem = b < q->hashes_n ? l->hashes[q->hash + b] : item | 1u << 31;
        ids[i] = (stem * 2654435761u) ^ (i * 40503u);
    }

    return ids;
}


/* Processor time so far, if anybody asks for it. */
static double
timed_us(const run_t *r)
{
    struct timespec ts;

    if (!r->c.timed) {
        return 0;
    }
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);

    return (double) ts.tv_sec * 1e6 + (double) ts.tv_nsec / 1e3;
}


/* The request in place i is over. */
static void
end(run_t *r, uint32_t i)
{
    double from = timed_us(r);

    sched_end(r->s, i);
    r->plan_us += timed_us(r) - from;
    if (r->c.deep) {
        kv_check_deep(r->kv);
    }
}


/* Forgets the request in place i. */
static void
drop(run_t *r, uint32_t i)
{
    assert(r->item[i] != RUN_NONE && r->live_n > 0);

    free(r->reqs[i].prompts[0].ids);
    r->item[i] = RUN_NONE;
    r->unused[r->unused_n++] = i;
    r->live_n--;
}


/* A request of the load arrives, at that time. */
static void
arrive(run_t *r, uint32_t item, uint64_t at_us)
{
    const load_req_t *q = &r->c.load->v[item];
    uint32_t i = r->unused[r->unused_n - 1];
    run_req_t *it = &r->items[item];
    req_t *e = &r->reqs[i];
    uint64_t again;
    double from;
    int rc;

    assert(r->unused_n > 0 && q->prompt < r->c.sched.context);

    memset(e, 0, sizeof(*e));
    e->prompts_n = 1;
    e->n = e->choices = q->choices;
    e->prompts[0].ids = prompt(r->c.load, item, r->c.hash_tokens);
    e->prompts[0].len = q->prompt;
    e->max_tokens = q->output;
    e->tenant = q->tenant;
    e->space = r->c.apart ? q->tenant + 1 : 0;
    e->weight = q->weight;
    e->priority = q->priority;
    e->arrival_us = at_us;
    e->queue_max = r->c.queue_max;
    e->queue_ms = r->c.queue_ms;

    r->unused_n--;
    r->item[i] = item;
    r->live_n++;
    it->guess_us = sched_wait_us(r->s, e);

    from = timed_us(r);
    rc = sched_add(r->s, i, e);
    r->plan_us += timed_us(r) - from;
    if (rc != 0) {
        again = sched_retry_us(r->s, e);
        if (it->refused < r->c.again) {
            it->back_us = r->now_us + again + 1;
            r->back[r->back_n++] = item;
        }
        it->refused++;
        r->refused_n++;
        drop(r, i);
    }
}


/* The place in back[] of who comes back first; back_n: nobody does. */
static uint32_t
first_back(const run_t *r)
{
    uint32_t i, best = 0;

    for (i = 1; i < r->back_n; i++) {
        if (r->items[r->back[i]].back_us < r->items[r->back[best]].back_us) {
            best = i;
        }
    }

    return best;
}


/* All that arrive by now, as far as the table has room. */
static void
arrivals(run_t *r)
{
    const load_t *l = r->c.load;
    uint32_t i, item;

    while (
        r->next < l->n && l->v[r->next].at_us <= r->now_us && r->unused_n > 0) {
        arrive(r, (uint32_t) r->next, l->v[r->next].at_us);
        r->next++;
    }
    while (r->back_n > 0 && r->unused_n > 0) {
        i = first_back(r);
        item = r->back[i];
        if (r->items[item].back_us > r->now_us) {
            break;
        }
        r->back[i] = r->back[--r->back_n];
        arrive(r, item, r->now_us);
    }
}


/* When somebody will arrive. */
static uint64_t
next_arrival(const run_t *r)
{
    const load_t *l = r->c.load;
    uint64_t at = UINT64_MAX, back;

    if (r->next < l->n) {
        at = l->v[r->next].at_us;
    }
    if (r->back_n > 0) {
        back = r->items[r->back[first_back(r)]].back_us;
        at = back < at ? back : at;
    }

    return at;
}


uint32_t
run_place(const run_t *r, uint32_t item)
{
    uint32_t i;

    for (i = 0; i < r->c.sched.reqs; i++) {
        if (r->item[i] == item) {
            return i;
        }
    }

    return RUN_NONE;
}


void
run_abort(run_t *r, uint32_t item)
{
    uint32_t i = run_place(r, item), c;

    if (i == RUN_NONE) {
        return;
    }

    r->items[item].aborted = 1;
    r->aborted_n++;
    end(r, i);
    for (c = 0; c < LLM_CHOICES_MAX; c++) {
        assert(kv_held(r->kv, i * LLM_CHOICES_MAX + c) == 0);
    }
    drop(r, i);
}


/* The request in place i is over as it should be, if it is. */
static void
finish(run_t *r, uint32_t i)
{
    if (sched_done(r->s, i)) {
        r->items[r->item[i]].done = 1;
        r->done_n++;
        end(r, i);
        drop(r, i);
    }
}


void
run_cut(run_t *r, uint32_t place, uint32_t choice, uint32_t index)
{
    assert(r->item[place] != RUN_NONE);

    (void) sched_cut(r->s, place, choice, index);
    finish(r, place);
}


/* --- a step ------------------------------------------------------------- */

/* Has whose row it was ended since the step was planned? */
static int
gone(const run_t *r, uint32_t row)
{
    return r->c.sched.depth > 0 && r->s->steps[r->s->step_at].seqs[row] == NONE;
}


static void
begin(run_t *r)
{
    run_req_t *q;
    uint32_t k, item;

    for (k = 0; k < r->b.rows_n; k++) {
        r->row_items[k] = RUN_NONE;
        if (gone(r, k)) {
            continue;
        }
        item = r->item[r->b.rows[k].seq / LLM_CHOICES_MAX];
        q = &r->items[item];
        r->row_items[k] = item;
        if (q->begun_us == 0) {
            q->begun_us = r->now_us + 1;
            stat_add(&r->delay,
                (double) (r->now_us - r->c.load->v[item].at_us) / 1e6);
        }
    }
}


/* One token of a request's first choice, for which times are kept. */
static void
token_first(run_t *r, uint32_t item)
{
    run_req_t *q = &r->items[item];
    uint64_t gap;

    if (q->tokens == 0) {
        q->first_us = r->now_us;
        stat_add(
            &r->ttft, (double) (r->now_us - r->c.load->v[item].at_us) / 1e6);
    } else {
        gap = r->now_us - q->last_us;
        q->gap_max_us = gap > q->gap_max_us ? gap : q->gap_max_us;
        stat_add(&r->tbt, (double) gap / 1e6);
        if (r->steps - q->last_step > r->gap_steps_max) {
            r->gap_steps_max = r->steps - q->last_step;
        }
    }
    q->tokens++;
    q->last_us = r->now_us;
    q->last_step = r->steps;
}


/* One token of one request, or none: then it is over. */
static void
token(run_t *r, const sched_take_t *t)
{
    uint32_t item = r->item[t->req];

    if (item == RUN_NONE) { /* over by another choice's fault */
        assert(r->c.fault != NULL);
        return;
    }
    if (t->err != 0) {
        r->items[item].failed = 1;
        r->failed_n++;
        end(r, t->req);
        drop(r, t->req);
        return;
    }

    assert(t->index < r->c.load->v[item].output);
    if (t->choice == 0) {
        assert(t->index == r->items[item].tokens);
        token_first(r, item);
    }
    r->outputs++;
    assert(t->finish != LLM_FINISH_LENGTH
           || t->index + 1 == r->c.load->v[item].output);
    finish(r, t->req);
}


static void
expire(run_t *r)
{
    uint32_t i;

    while (sched_expired(r->s, &i)) {
        r->items[r->item[i]].expired = 1;
        r->expired_n++;
        end(r, i);
        drop(r, i);
    }
}


/* Looks at all blocks, and at those of steps in flight. */
static void
check(const run_t *r)
{
    if (r->c.deep) {
        kv_check_deep(r->kv);
        flight_check(&r->flight, r->s, r->kv);
    }
}


/* Writes the next step. */
static void
plan(run_t *r)
{
    double from = timed_us(r);

    sched_plan(r->s, r->now_us, &r->ahead);
    r->plan_us += timed_us(r) - from;
    r->late += r->ahead.late_n;
    if (r->c.deep && r->ahead.rows_n > 0) {
        flight_push(&r->flight, r->kv, &r->ahead);
    }
    expire(r);
    check(r);
}


/* Rows of who has ended need not run. */
static void
trim(run_t *r)
{
    sched_trim(r->s, &r->ahead);
    if (r->c.deep) {
        flight_drop(&r->flight);
        if (r->ahead.rows_n > 0) {
            flight_push(&r->flight, r->kv, &r->ahead);
        }
    }
    check(r);
}


/* While the step runs the next one may be planned, and things happen. */
static void
amid(run_t *r)
{
    uint32_t when = rnd_below(&r->rnd, 4);

    if (when == 0 && r->c.amid) {
        (void) r->c.watch(r, r->c.arg);
        check(r);
    }
    plan(r);
    if (when == 1 && r->c.amid) {
        (void) r->c.watch(r, r->c.arg);
        check(r);
    }
}


static void
step(run_t *r)
{
    double us = cost_us(r->c.cost, &r->b), from;
    const req_t *e;
    uint32_t k;

    begin(r);
    for (k = 0; k < r->b.rows_n && r->tier != NULL; k++) {
        if (gone(r, k)) {
            continue;
        }
        e = &r->reqs[r->b.rows[k].seq / LLM_CHOICES_MAX];
        tier_row(r->tier, &r->b.rows[k], e->prompts[0].ids, e->prompts[0].len);
    }
    if (r->c.noise > 0) {
        us *= 1 + r->c.noise * (2 * rnd_uniform(&r->rnd) - 1);
    }
    r->step_us = us;
    if (r->c.sched.depth > 0) {
        amid(r);
    }
    r->now_us += (uint64_t) us + 1;
    r->steps++;
    r->tokens += r->b.tokens_n;
    stat_add(&r->step, us / 1e6);
    memset(r->takes, 0, r->b.outs_n * sizeof(*r->takes));
    if (kv_count(r->kv, KV_FREE) < r->free_least) {
        r->free_least = kv_count(r->kv, KV_FREE);
    }
    if (r->c.fault != NULL) {
        r->c.fault(r, r->takes, r->c.arg);
    }
    from = timed_us(r);
    if (r->c.deep) {
        flight_pop(&r->flight);
    }
    sched_commit(r->s, &r->b, r->takes);
    sched_took(r->s, &r->b, (uint64_t) us);
    r->plan_us += timed_us(r) - from;

    for (k = 0; k < r->b.outs_n; k++) {
        if (!r->takes[k].gone) {
            token(r, &r->takes[k]);
        }
    }
    check(r);
}


/* The next step is the one that runs, unless it has no rows. */
static void
next(run_t *r)
{
    batch_t b = r->b;

    /* three times of four it was not queued before anybody knew who ended */
    if (r->ahead.rows_n > 0 && rnd_below(&r->rnd, 4) != 0) {
        trim(r);
    }
    if (r->ahead.rows_n == 0) {
        plan(r);
    }
    r->b = r->ahead;
    r->ahead = b;
    r->ahead.rows_n = 0;
}


void
run_all(run_t *r)
{
    const load_t *l = r->c.load;
    uint64_t at, expires;

    while (r->next < l->n || r->live_n > 0 || r->back_n > 0) {
        arrivals(r);
        if (r->tier != NULL) {
            tier_turn(r->tier);
        }

        next(r);
        if (r->b.rows_n > 0) {
            step(r);
            if (r->c.watch != NULL && r->c.watch(r, r->c.arg)) {
                r->stopped = 1;
                return;
            }
            continue;
        }

        /* nothing to do before the next event, or it is stuck */
        at = next_arrival(r);
        expires = sched_expires_us(r->s);
        at = expires < at ? expires : at;
        if (r->live_n == 0 && r->next == l->n && r->back_n == 0) {
            break;
        }
        if (r->tier != NULL && (tier_busy(r->tier) || kv_tier_keeps(r->kv))) {
            r->now_us += TURN_US; /* for what is being copied */
            continue;
        }
        if (r->c.stuck != NULL && r->c.stuck(r, r->c.arg)) {
            continue;
        }
        assert(at != UINT64_MAX && at > r->now_us);
        r->idle_us += r->live_n > 0 ? at - r->now_us : 0;
        r->now_us = at;
    }

    if (r->ahead.rows_n > 0) { /* who is in it has ended */
        trim(r);
    }
    assert(r->ahead.rows_n == 0);
}


void
run_print(const run_t *r, const char *title)
{
    double s = (double) r->now_us / 1e6;
    sched_stats_t st;

    sched_stats(r->s, &st);
    printf("%s: %u requests in %.1f s of virtual time; %s\n", title, r->done_n,
        s, r->c.cost->name);
    printf("  steps %llu, tokens/step %.1f, tokens/s %.0f, output/s %.0f\n",
        (unsigned long long) r->steps, (double) r->tokens / (double) r->steps,
        (double) r->tokens / s, (double) r->outputs / s);
    printf("  delay s p50 %.3f p99 %.3f; TTFT s p50 %.3f p90 %.3f p99 %.3f\n",
        stat_percentile(&r->delay, 50), stat_percentile(&r->delay, 99),
        stat_percentile(&r->ttft, 50), stat_percentile(&r->ttft, 90),
        stat_percentile(&r->ttft, 99));
    printf("  TBT ms p50 %.1f p99 %.1f max %.1f, at most %llu steps\n",
        1e3 * stat_percentile(&r->tbt, 50), 1e3 * stat_percentile(&r->tbt, 99),
        1e3 * r->tbt.max, (unsigned long long) r->gap_steps_max);
    printf("  preemptions %llu, refused %u, expired %u, aborted %u\n",
        (unsigned long long) st.preemptions, r->refused_n, r->expired_n,
        r->aborted_n);
}
