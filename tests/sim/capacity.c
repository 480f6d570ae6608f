/*
 * Capacity as Sarathi-Serve defines it: the highest Poisson rate at which the
 * P99 gap between tokens keeps to an objective and the median wait before the
 * first chunk is at most 2 s.
 *
 * DESIGN.  Bisection to 2.5 % over rates, 2,048 requests a trial with lengths
 * of the ShareGPT trace, a Mistral-7B-like model on a simulated A100 with
 * 25,000 blocks.  Every policy has the same loads, pool and cost model, and the
 * best of the settings listed for it.  Steps are calibrated by nothing but the
 * public profile (cost.c); capacity came out, it was not put in.
 *
 * The median rule is passed by a queue that only begins to grow, so a second
 * capacity asks that waiting does not grow over the last half of a trial.
 */
#include "tables.h"
#include "policy.h"
#include "trace.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQUESTS  2048
#define CONTEXT   8192
#define BLOCKS    25000
#define DELAY_US  2000000
#define STEP      1.025
#define QUARTERS  4
#define MOST_RUNS 20

typedef struct {
    const char *name;
    const sched_policy_t *policy;
    uint32_t rows, budget;
    uint32_t target; /* a step's, in percent of the objective; 0: none */
} contender_t;

/* Settings worth trying are rows of their own; the best of a name counts. */
static const contender_t contenders[] = {
    {"ours", &sched_fair, 128, 256, 0},
    {"ours", &sched_fair, 128, 512, 0},
    {"ours", &sched_fair, 128, 1024, 0},
    {"ours", &sched_fair, 128, 2048, 0},
    {"ours, step_target", &sched_fair, 128, 4096, 80},
    {"ours, step_target", &sched_fair, 128, 4096, 95},
    {"prefill_first", &sched_prefill_first, 64, 8192, 0},
    {"prefill_first", &sched_prefill_first, 128, 2048, 0},
    {"prefill_first", &sched_prefill_first, 128, 8192, 0},
    {"orca", &sched_orca, 16, 8192, 0},
    {"orca", &sched_orca, 32, 8192, 0},
    {"hybrid_only", &sched_hybrid_only, 128, 2048, 0},
    {"hybrid_only", &sched_hybrid_only, 128, 8192, 0},
    {"chunk_only", &sched_chunk_only, 128, 512, 0},
    {"chunk_only", &sched_chunk_only, 128, 1024, 0},
    {"chunk_only", &sched_chunk_only, 128, 2048, 0},
};

#define CONTENDERS (sizeof(contenders) / sizeof(contenders[0]))

typedef struct {
    double base_us, tflops, tbytes;
    uint64_t seed;
} setting_t;

/* The first is the reference; others move one thing. */
static const setting_t settings[] = {
    {3000, 130, 1.5, 42},
    {3000, 130, 1.5, 43},
    {3000, 130, 1.5, 44},
    {0, 130, 1.7, 42},
    {8000, 130, 1.5, 42},
    {3000, 90, 1.5, 42},
    {3000, 190, 1.5, 42},
};

#define SETTINGS (sizeof(settings) / sizeof(settings[0]))

typedef struct {
    uint64_t gaps; /* all that there will be */
    const load_t *load;
} trial_t;

typedef struct {
    double rate, ttft50, ttft99, tbt99;
} capacity_t;


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


static int
trial(const contender_t *c, const cost_t *cost, uint32_t slo_us, load_t *l,
    int no_growth, capacity_t *at)
{
    trial_t t = {0, l};
    run_cfg_t rc;
    run_t *r = malloc(sizeof(*r));
    size_t i;
    int ok;

    assert(r != NULL);
    for (i = 0; i < l->n; i++) {
        t.gaps += l->v[i].output - 1;
    }

    memset(&rc, 0, sizeof(rc));
    rc.sched.policy = c->policy;
    rc.sched.rows = c->rows;
    rc.sched.tokens = CONTEXT + c->rows;
    rc.sched.budget = c->budget;
    rc.sched.tile = 64;
    rc.sched.target_us = (uint32_t) ((uint64_t) slo_us * c->target / 100);
    rc.sched.context = CONTEXT;
    rc.blocks = BLOCKS;
    rc.block_tokens = 16;
    rc.cost = cost;
    rc.load = l;
    rc.tbt_limit_us = slo_us;
    rc.delay_limit_us = DELAY_US;
    rc.watch = watch;
    rc.arg = &t;

    run_open(r, &rc);
    run_all(r);
    ok = !r->stopped && (!no_growth || !grows(r));
    if (ok) {
        at->ttft50 = stat_percentile(&r->ttft, 50);
        at->ttft99 = stat_percentile(&r->ttft, 99);
        at->tbt99 = stat_percentile(&r->tbt, 99);
    }
    run_close(r);
    free(r);

    return ok;
}


/* By bisection on the ratio of rates; 0: not even the least. */
static capacity_t
capacity(const contender_t *c, const cost_t *cost, uint32_t slo_us,
    const load_t *lengths, uint64_t seed, int no_growth, double guess)
{
    capacity_t best = {0, 0, 0, 0};
    double lo = 0, hi = 0, rate = guess;
    load_t l = {0};
    rnd_t rnd;
    int n;

    rnd_seed(&rnd, seed);
    load_draw(&l, lengths, REQUESTS, CONTEXT, &rnd);

    for (n = 0; n < MOST_RUNS && (lo == 0 || hi == 0 || hi > lo * STEP); n++) {
        rnd_seed(&rnd, seed + 1000);
        load_arrive(&l, 0, rate, 1, &rnd);

        if (trial(c, cost, slo_us, &l, no_growth, &best)) {
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
        if (rate < 0.05) {
            break;
        }
    }
    load_free(&l);
    best.rate = lo;

    return best;
}


/* The best of a name's rows under one setting. */
static capacity_t
best_of(const char *name, const setting_t *s, uint32_t slo_us,
    const load_t *lengths, int no_growth, const contender_t **who)
{
    cost_t cost = cost_a100(s->base_us, s->tflops, s->tbytes);
    capacity_t best = {0, 0, 0, 0}, c;
    size_t i;

    *who = NULL;
    for (i = 0; i < CONTENDERS; i++) {
        if (strcmp(contenders[i].name, name) != 0) {
            continue;
        }
        c = capacity(&contenders[i], &cost, slo_us, lengths, s->seed, no_growth,
            best.rate > 0 ? best.rate : 1.5);
        if (c.rate > best.rate || *who == NULL) {
            best = c;
            *who = &contenders[i];
        }
    }

    return best;
}


/* What a name gets under each setting; prints its row. */
static void
row(const char *name, uint32_t slo_us, const load_t *l, size_t settings_n,
    double rates[])
{
    const contender_t *who, *any;
    double lo = 1e9, hi = 0;
    capacity_t at, steady;
    size_t i;

    at = best_of(name, &settings[0], slo_us, l, 0, &who);
    rates[0] = lo = hi = at.rate;
    steady = best_of(name, &settings[0], slo_us, l, 1, &any);
    for (i = 1; i < settings_n; i++) {
        rates[i] = best_of(name, &settings[i], slo_us, l, 0, &any).rate;
        lo = rates[i] < lo ? rates[i] : lo;
        hi = rates[i] > hi ? rates[i] : hi;
    }
    printf("  %-18s %4u %5u %7.2f %5.2f-%4.2f %8.2f %8.2f %8.2f %8.0f\n", name,
        who->rows, who->budget, at.rate, lo, hi, steady.rate, at.ttft50,
        at.ttft99, 1e3 * at.tbt99);
    fflush(stdout);
}


/* Each of ours over prefill_first, setting by setting. */
static int
ratios(const double ours[], const double theirs[], size_t n, double *first)
{
    double lo = 1e9, hi = 0, v;
    size_t i;

    for (i = 0; i < n; i++) {
        v = theirs[i] > 0 ? ours[i] / theirs[i] : 0;
        lo = v < lo ? v : lo;
        hi = v > hi ? v : hi;
    }
    *first = theirs[0] > 0 ? ours[0] / theirs[0] : 0;
    printf("  ours / prefill_first: %.2f, over settings %.2f to %.2f\n", *first,
        lo, hi);

    return 0;
}


static int
objective(uint32_t slo_us, const load_t *l, size_t settings_n, double wanted)
{
    static const char *const names[] = {"ours", "ours, step_target",
        "prefill_first", "orca", "hybrid_only", "chunk_only"};
    double rates[6][SETTINGS], first;
    size_t i;
    int bad = 0;

    printf("P99 TBT <= %u ms, median delay <= 2 s\n", slo_us / 1000);
    printf("  %-18s %4s %5s %7s %10s %8s %8s %8s %8s\n", "policy", "rows",
        "budg.", "req/s", "settings", "steady", "TTFT p50", "p99 s", "TBT p99");
    for (i = 0; i < 6; i++) {
        row(names[i], slo_us, l, settings_n, rates[i]);
    }
    (void) ratios(rates[0], rates[2], settings_n, &first);
    if (wanted > 0) {
        bad += table_expect(first >= wanted, "ours is 2.6 times prefill_first");
    }
    for (i = 2; i < 6; i++) {
        bad += table_expect(rates[0][0] >= rates[i][0] / STEP,
            "ours is not below an ablation by more than the search step");
    }

    return bad;
}


int
capacity_table(void)
{
    load_t l = {0};
    int real = trace_load(TRACE_SHAREGPT, &l, 1), bad;

    printf("\na. Capacity, simulated A100, Mistral-7B-like; lengths of %s%s\n",
        trace_name(TRACE_SHAREGPT), real ? "" : " (generated)");
    bad = objective(100000, &l, SETTINGS, 2.6);
    bad += objective(500000, &l, SETTINGS, 0);
    load_free(&l);

    return bad;
}
