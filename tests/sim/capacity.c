/*
 * Capacity as Sarathi-Serve defines it: the highest Poisson rate at which the
 * P99 gap between tokens keeps to an objective and the median wait before the
 * first chunk is at most 2 s.
 *
 * THE PAPER'S SETTING, for the figure of 2.6 times vLLM's capacity: Mistral-7B
 * on one A100 of 80 GB; each round of a ShareGPT chat a request, prompt and
 * output at most 8,192 tokens (openchat_sharegpt4: the very list of lengths,
 * 30,731 of them); Poisson arrivals, 2,048 requests a trial, seed 42, bisection
 * to 2.5 %; P99 of the gaps at most 0.1 s (strict: five decode iterations of 32
 * sequences at 4,096 tokens) or 0.5 s (relaxed: 25); a budget of 512 tokens
 * when strict, 2,048 when relaxed; at most 128 sequences in a batch, for vLLM,
 * too; blocks of 16 tokens in what is left of 85 % of the memory, which is
 * 25,000.  The paper's "up to 2.6" does not say of which objective and trace it
 * is; its sweep of objectives has 3.5 at 0.1 s on this trace.  So 2.6 is asked
 * for here under the strict objective.
 *
 * WHAT IS NOT THE PAPER'S.  The steps are simulated: the profile is that of
 * Llama-3-8B, which has Mistral-7B's layers and another vocabulary, and
 * attention and the host's share are computed (cost.c), so ratios are compared
 * and rates are not.  vLLM and the others are our engine with their
 * composition of steps (sched_compare.c); it takes blocks as tokens are
 * computed and admits by an estimate, where they took blocks for whole prompts.
 * Steps are calibrated by nothing but the public profile; capacity came out, it
 * was not put in.
 *
 * DESIGN.  Every policy has the same loads, pool and cost model, and the best
 * of the settings listed for it.  Bands are over seeds, and for the A100 over
 * the host's share and the speed of attention, too.  That ours is nowhere below
 * an ablation is checked for each of them by itself.
 */
#include "tables.h"
#include "policy.h"
#include "search.h"
#include "trace.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQUESTS 2048
#define CONTEXT  8192
#define DELAY_US 2000000

/* Settings worth trying are rows of their own; the best of a name counts. */
static const contender_t contenders[] = {
    {"ours", &sched_fair, 128, 256, 0},
    {"ours", &sched_fair, 128, 512, 0},
    {"ours", &sched_fair, 128, 1024, 0},
    {"ours", &sched_fair, 128, 2048, 0},
    {"ours", &sched_fair, 128, 4096, 0},
    {"ours, step_target", &sched_fair, 128, 4096, 80},
    {"ours, step_target", &sched_fair, 128, 4096, 95},
    {"fcfs", &sched_fcfs, 128, 512, 0},
    {"fcfs", &sched_fcfs, 128, 1024, 0},
    {"fcfs", &sched_fcfs, 128, 2048, 0},
    {"prefill_first", &sched_prefill_first, 64, 8192, 0},
    {"prefill_first", &sched_prefill_first, 128, 2048, 0},
    {"prefill_first", &sched_prefill_first, 128, 8192, 0},
    {"orca", &sched_orca, 16, 8192, 0},
    {"orca", &sched_orca, 32, 8192, 0},
    {"orca", &sched_orca, 128, 8192, 0},
    {"hybrid_only", &sched_hybrid_only, 128, 2048, 0},
    {"hybrid_only", &sched_hybrid_only, 128, 8192, 0},
    {"chunk_only", &sched_chunk_only, 128, 512, 0},
    {"chunk_only", &sched_chunk_only, 128, 1024, 0},
    {"chunk_only", &sched_chunk_only, 128, 2048, 0},
    {"chunk_only", &sched_chunk_only, 128, 4096, 0},
};

#define CONTENDERS (sizeof(contenders) / sizeof(contenders[0]))

/* Ours first, then what it is compared with. */
enum { OURS, TARGET, FCFS, PREFILL_FIRST, ORCA, HYBRID, CHUNK, NAMES };

static const char *const names[NAMES] = {"ours", "ours, step_target", "fcfs",
    "prefill_first", "orca", "hybrid_only", "chunk_only"};

typedef struct {
    cost_t cost;
    uint64_t seed;
} setting_t;

#define SETTINGS_MAX 8

typedef struct {
    double first, lo, hi;
} band_t;


/* The first is the reference; others move one thing. */
static size_t
settings_of(const cost_setting_t *c, int reference, setting_t *v)
{
    static const double other[][3] = {
        {0, 130, 1.7}, {8000, 130, 1.5}, {3000, 90, 1.5}, {3000, 190, 1.5}};
    size_t n = 0, i;

    for (i = 0; i < 3; i++) {
        v[n++] = (setting_t){c->cost, 42 + i};
    }
    for (i = 0; reference && i < sizeof(other) / sizeof(other[0]); i++) {
        v[n++] =
            (setting_t){cost_a100(other[i][0], other[i][1], other[i][2]), 42};
    }
    assert(n <= SETTINGS_MAX);

    return n;
}


static search_t
question(const cost_setting_t *c, uint32_t slo_us, const load_t *lengths)
{
    search_t q;

    memset(&q, 0, sizeof(q));
    q.cost = &c->cost;
    q.blocks = c->blocks;
    q.context = CONTEXT;
    q.slo_us = slo_us;
    /* a machine whose steps are seconds long has 100 iterations */
    q.delay_us =
        c->iter_us * 100 > DELAY_US ? (uint32_t) (c->iter_us * 100) : DELAY_US;
    q.from = lengths;
    q.n = REQUESTS;
    q.seed = 42;

    return q;
}


/*
 * The best of a name's rows under one setting.  *who, if not NULL, is tried
 * first, from the rate guess on; whoever does not hold a step above the best so
 * far is not looked at further.
 */
static capacity_t
best_of(const char *name, search_t q, const setting_t *s, int steady,
    double guess, const contender_t **who)
{
    const contender_t *first = *who;
    capacity_t best = {0}, c;
    size_t i;

    q.cost = &s->cost;
    q.seed = s->seed;
    q.steady = steady;
    if (first != NULL) {
        best = search(&q, first, guess > 0 ? guess : search_guess(&q));
    }
    for (i = 0; i < CONTENDERS; i++) {
        if (strcmp(contenders[i].name, name) != 0 || &contenders[i] == first) {
            continue;
        }
        if (best.rate > 0
            && !search_holds(&q, &contenders[i], best.rate * SEARCH_STEP)) {
            continue;
        }
        c = search(&q, &contenders[i],
            best.rate > 0 ? best.rate * SEARCH_STEP : search_guess(&q));
        if (c.rate > best.rate || *who == NULL) {
            best = c;
            *who = &contenders[i];
        }
    }

    return best;
}


/* What a name gets under each setting; prints its row. */
static void
row(const char *name, const search_t *q, const setting_t *v, size_t n,
    double rates[])
{
    const contender_t *who = NULL, *any;
    capacity_t at, steady;
    double lo, hi;
    size_t i;

    at = best_of(name, *q, &v[0], 0, 0, &who);
    rates[0] = lo = hi = at.rate;
    any = who;
    steady = best_of(name, *q, &v[0], 1, at.rate, &any);
    any = who;
    for (i = 1; i < n; i++) {
        rates[i] = best_of(name, *q, &v[i], 0, at.rate, &any).rate;
        lo = rates[i] < lo ? rates[i] : lo;
        hi = rates[i] > hi ? rates[i] : hi;
    }
    printf("  %-18s %4u %5u %7.3f %6.3f-%6.3f %8.3f %8.2f %8.2f %8.0f\n", name,
        who->rows, who->budget, at.rate, lo, hi, steady.rate, at.ttft50,
        at.ttft99, 1e3 * at.tbt99);
    fflush(stdout);
}


/* One over the other, setting by setting. */
static band_t
ratios(const double a[], const double b[], size_t n)
{
    band_t r = {0, 1e9, 0};
    size_t i;
    double v;

    for (i = 0; i < n; i++) {
        v = b[i] > 0 ? a[i] / b[i] : 0;
        r.lo = v < r.lo ? v : r.lo;
        r.hi = v > r.hi ? v : r.hi;
        r.first = i == 0 ? v : r.first;
    }

    return r;
}


/*
 * One machine under one objective; *over: ours over prefill_first.  Ours is
 * configured as suits the machine: a budget, or a target, which is what a
 * device has by default whose steps are long.
 */
static int
objective(const cost_setting_t *c, int relaxed, int reference, const load_t *l,
    band_t *over)
{
    uint32_t slo_us = cost_slo_us(c, relaxed);
    search_t q = question(c, slo_us, l);
    double rates[NAMES][SETTINGS_MAX], ours;
    setting_t v[SETTINGS_MAX];
    size_t n = settings_of(c, reference, v), i, k;
    int bad = 0;

    printf("%s, %s: P99 TBT <= %u ms, median delay <= %.0f s; %s\n", c->name,
        relaxed ? "relaxed" : "strict", slo_us / 1000, q.delay_us / 1e6,
        c->cost.name);
    printf("  %-18s %4s %5s %7s %13s %8s %8s %8s %8s\n", "policy", "rows",
        "budg.", "req/s", reference ? "seeds, costs" : "seeds", "steady",
        "TTFT p50", "p99 s", "TBT p99");
    for (i = 0; i < NAMES; i++) {
        row(names[i], &q, v, n, rates[i]);
    }
    *over = ratios(rates[OURS], rates[PREFILL_FIRST], n);
    printf("  ours / prefill_first: %.2f, over all %.2f to %.2f\n", over->first,
        over->lo, over->hi);
    for (i = FCFS; i < NAMES; i++) {
        for (k = 0; k < n; k++) {
            ours = fmax(rates[OURS][k], rates[TARGET][k]);
            bad += table_expect(ours >= rates[i][k] / SEARCH_STEP,
                "ours is below no ablation by more than the search step");
        }
    }

    return bad;
}


/* --- what is published -------------------------------------------------- */

static void
published(const char *what, const char *theirs, const char *ours, int so)
{
    printf(
        "  %-52s %-16s %-22s %s\n", what, theirs, ours, so ? "so" : "NOT SO");
}


/* vLLM's capacity at caps of 32, 64 and 128: greatest over least. */
static double
caps_spread(const search_t *q)
{
    contender_t c = {"prefill_first", &sched_prefill_first, 32, 8192, 0};
    double lo = 1e9, hi = 0, rate;

    for (; c.rows <= 128; c.rows *= 2) {
        rate = search(q, &c, search_guess(q) / 3).rate;
        lo = rate < lo ? rate : lo;
        hi = rate > hi ? rate : hi;
    }

    return hi / lo;
}


/* Time of a prompt of 4,096 tokens in chunks of n, over that in one. */
static double
chunked(const cost_t *c, uint32_t n)
{
    double parts = 0;
    batch_row_t row;
    uint32_t at;

    for (at = 0; at < 4096; at += n) {
        row = (batch_row_t){.q_start = at, .q_len = n, .kv_len = at + n};
        parts += c->base_us + cost_linear_us(c, n) + cost_row_us(c, &row);
    }
    row = (batch_row_t){.q_start = 0, .q_len = 4096, .kv_len = 4096};

    return parts
           / (c->base_us + cost_linear_us(c, 4096) + cost_row_us(c, &row));
}


/* The ablation: each half alone, and both, at one rate and budget. */
static void
halves(const search_t *q)
{
    static const contender_t who[3] = {
        {"hybrid batches alone", &sched_hybrid_only, 128, 1024, 0},
        {"chunks alone", &sched_chunk_only, 128, 1024, 0},
        {"both", &sched_fair, 128, 1024, 0}};
    const double rate = 2;
    capacity_t at[3];
    char text[32];
    int i;

    for (i = 0; i < 3; i++) {
        at[i] = search_at(q, &who[i], rate);
    }
    printf(
        "  budget 1024 at %.0f req/s: TTFT p50, TBT p99 of hybrid batches "
        "alone %.2f, %.2f;\n    chunks alone %.2f, %.2f; both %.2f, %.2f s\n",
        rate, at[0].ttft50, at[0].tbt99, at[1].ttft50, at[1].tbt99,
        at[2].ttft50, at[2].tbt99);
    snprintf(text, sizeof(text), "%.0f, %.0f, %.0f ms", 1e3 * at[0].tbt99,
        1e3 * at[1].tbt99, 1e3 * at[2].tbt99);
    published("TBT p99: hybrid > chunks > both", "680, 170, 140", text,
        at[0].tbt99 > at[1].tbt99 && at[1].tbt99 >= at[2].tbt99);
    snprintf(text, sizeof(text), "%.2f, %.2f, %.2f s", at[0].ttft50,
        at[1].ttft50, at[2].ttft50);
    published("TTFT p50: hybrid < both < chunks", "0.53, 1.04, 0.76", text,
        at[0].ttft50 < at[2].ttft50 && at[2].ttft50 < at[1].ttft50);
}


static void
claims(const cost_setting_t *c, const load_t *l, band_t strict, band_t relaxed)
{
    search_t q = question(c, cost_slo_us(c, 0), l);
    double caps = caps_spread(&q), by512, by2048;
    char text[32];

    printf("Published, and here\n");
    printf("  %-52s %-16s %-22s %s\n", "claim", "published", "here", "");
    snprintf(text, sizeof(text), "%.2f (%.2f-%.2f)", strict.first, strict.lo,
        strict.hi);
    published("Mistral-7B, over vLLM, up to", "2.6", text, strict.first >= 2.6);
    published("the same in the sweep, chat, 100 ms: in our band", "3.5", text,
        strict.hi >= 3.5 && strict.lo <= 3.5);
    snprintf(text, sizeof(text), "%.2f (%.2f-%.2f)", relaxed.first, relaxed.lo,
        relaxed.hi);
    published("a looser objective gains less (Yi-34B at 1 s: 1.65)", "less",
        text, relaxed.hi < strict.lo);
    snprintf(text, sizeof(text), "within %.0f %%", 100 * (caps - 1));
    published("vLLM's capacity at caps of 32, 64, 128", "hardly changes", text,
        caps < 1.1);
    by512 = 100 * (chunked(&c->cost, 512) - 1);
    by2048 = 100 * (chunked(&c->cost, 2048) - 1);
    snprintf(text, sizeof(text), "%+.0f %%, %+.0f %%", by512, by2048);
    published("a 4k prompt in chunks of 512, 2048 takes longer by",
        "<= 25 %, ~0", text, by512 <= 25 && by2048 <= 5);
    halves(&q);
    printf("  not tried: Yi-34B, LLaMA2-70B, Falcon-180B (no public profile, "
           "several GPUs), the\n  arXiv trace (not to be had), rates a second "
           "(bars in the paper, other costs here)\n");
}


int
capacity_table(void)
{
    cost_setting_t v[COST_SETTINGS_MAX];
    uint32_t n = cost_settings(v), i;
    band_t strict[COST_SETTINGS_MAX], relaxed[COST_SETTINGS_MAX];
    load_t l = {0};
    int real = trace_load(TRACE_SHAREGPT, &l, 1), bad = 0;

    printf("a. Capacity; simulated; %s%s, %d requests a trial\n",
        trace_name(TRACE_SHAREGPT), real ? "" : " (generated)", REQUESTS);
    for (i = 0; i < n; i++) {
        bad += objective(&v[i], 0, i == 0, &l, &strict[i]);
        bad += objective(&v[i], 1, i == 0, &l, &relaxed[i]);
    }
    bad += table_expect(strict[0].first >= 2.6,
        "the paper's setting: ours is 2.6 times prefill_first");
    claims(&v[0], &l, strict[0], relaxed[0]);
    load_free(&l);

    return bad;
}
