/*
 * The search for a capacity, by bisection over the rate of arrivals.
 *
 * DESIGN.  A trial is a run of a load whose lengths are the same at each rate
 * and whose gaps only stretch.  It is given up as soon as it can only fail:
 * more gaps above the objective, or more waits above theirs, than there may be
 * of all that will be.  The median rule is passed by a queue that only begins
 * to grow, so a search may ask besides that waiting does not grow over the
 * last half of a trial.
 */
#include "search.h"
#include "run.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define QUARTERS  4
#define MOST_RUNS 24
#define BURSTS_CV 3

typedef struct {
    uint64_t gaps; /* all that there will be */
    const load_t *load;
} trial_t;


/* Ends a trial that has failed already. */
static int
watch(run_t *r, void *arg)
{
    trial_t *t = arg;

    return r->tbt.over * 100 > t->gaps || r->delay.over * 2 > t->load->n;
}


/* Does waiting grow over the last half? */
static int
grows(const run_t *r)
{
    double sum[QUARTERS] = {0};
    size_t i, n = r->c.load->n, k;

    for (i = 0; i < n; i++) {
        k = i * QUARTERS / n;
        sum[k] += (double) (r->items[i].begun_us - r->c.load->v[i].at_us) / 1e6;
    }

    /* half a second on average is not a queue */
    return sum[3] > 1.25 * sum[2] && sum[3] > 0.5 * (double) n / QUARTERS;
}


static run_cfg_t
settings(const search_t *q, const contender_t *c, const load_t *l)
{
    run_cfg_t rc;

    memset(&rc, 0, sizeof(rc));
    rc.sched.policy = c->policy;
    rc.sched.rows = c->rows;
    rc.sched.tokens = q->context + c->rows;
    rc.sched.budget = c->budget;
    rc.sched.tile = 64;
    rc.sched.target_us = (uint32_t) ((uint64_t) q->slo_us * c->target / 100);
    rc.sched.context = q->context;
    rc.blocks = q->blocks;
    rc.block_tokens = 16;
    rc.cost = q->cost;
    rc.load = l;
    rc.tbt_limit_us = q->slo_us;
    rc.delay_limit_us = q->delay_us;
    rc.cache = q->cache;

    return rc;
}


/* whole: to its end, whatever it is like. */
static int
trial(const search_t *q, const contender_t *c, const load_t *l, int whole,
    capacity_t *at)
{
    trial_t t = {0, l};
    run_t *r = malloc(sizeof(*r));
    run_cfg_t rc = settings(q, c, l);
    sched_stats_t st;
    size_t i;
    int ok;

    assert(r != NULL);
    for (i = 0; i < l->n; i++) {
        t.gaps += l->v[i].output - 1;
    }
    rc.arg = &t;
    rc.watch = whole ? NULL : watch;

    run_open(r, &rc);
    run_all(r);
    ok = !r->stopped && !watch(r, &t) && (!q->steady || !grows(r));
    if (ok || whole) {
        sched_stats(r->s, &st);
        at->ttft50 = stat_percentile(&r->ttft, 50);
        at->ttft99 = stat_percentile(&r->ttft, 99);
        at->tbt99 = stat_percentile(&r->tbt, 99);
        at->hits = st.cache_asked > 0
                       ? (double) st.cache_hits / (double) st.cache_asked
                       : 0;
    }
    run_close(r);
    free(r);

    return ok;
}


static void
arrivals(load_t *l, const search_t *q, double rate)
{
    rnd_t rnd;

    rnd_seed(&rnd, q->seed + 1000);
    switch (q->arrive) {
    case ARRIVE_POISSON:
        load_arrive(l, 0, rate, 1, &rnd);
        break;
    case ARRIVE_BURSTY:
        load_arrive(l, 0, rate, BURSTS_CV, &rnd);
        break;
    case ARRIVE_RECORDED:
        load_stretch(l, rate);
        break;
    }
}


static void
lengths(load_t *l, const search_t *q)
{
    rnd_t rnd;

    rnd_seed(&rnd, q->seed);
    if (q->follow) {
        load_follow(l, q->from, q->n, q->context, &rnd);
    } else {
        load_draw(l, q->from, q->n, q->context, &rnd);
    }
    assert(l->n > 0);
}


double
search_guess(const search_t *q)
{
    const cost_t *c = q->cost;
    double prompt = 0, output = 0, token, iter;
    size_t i;

    for (i = 0; i < q->from->n; i++) {
        prompt += q->from->v[i].prompt;
        output += q->from->v[i].output;
    }
    prompt /= (double) q->from->n;
    output /= (double) q->from->n;
    token = cost_linear_us(c, 2048) / 2048;
    iter = c->base_us + cost_linear_us(c, 32);

    return 1e6 / (token * prompt + iter / 32 * output);
}


/* A trial at one rate, whole or not. */
static int
at_rate(const search_t *q, const contender_t *c, double rate, int whole,
    capacity_t *at)
{
    load_t l = {0};
    int ok;

    lengths(&l, q);
    arrivals(&l, q, rate);
    ok = trial(q, c, &l, whole, at);
    at->rate = rate;
    load_free(&l);

    return ok;
}


int
search_holds(const search_t *q, const contender_t *c, double rate)
{
    capacity_t at;

    return at_rate(q, c, rate, 0, &at);
}


capacity_t
search_at(const search_t *q, const contender_t *c, double rate)
{
    capacity_t at = {0};

    (void) at_rate(q, c, rate, 1, &at);

    return at;
}


capacity_t
search(const search_t *q, const contender_t *c, double guess)
{
    capacity_t best = {0};
    double lo = 0, hi = 0, rate = guess;
    load_t l = {0};
    int n;

    assert(guess > 0);
    lengths(&l, q);

    for (n = 0; n < MOST_RUNS && (lo == 0 || hi == 0 || hi > lo * SEARCH_STEP);
         n++) {
        arrivals(&l, q, rate);
        if (trial(q, c, &l, 0, &best)) {
            lo = rate;
        } else {
            hi = rate;
        }
        if (hi == 0) {
            rate = lo * 1.3;
        } else if (lo == 0) {
            rate = hi / 1.3;
        } else {
            rate = (lo + hi) / 2;
        }
        if (rate < guess / 100) {
            break;
        }
    }
    load_free(&l);
    best.rate = lo;

    return best;
}
