/*
 * The short form: a few scenarios and what must hold in each.  It would catch
 * a policy that stalls decodes behind prompts, loses a request, lets one
 * tenant crowd out the other, or preempts without end; and a trace reader that
 * reads something else than it says.
 */
#include "tables.h"

#include "trace.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONTEXT 8192


/* A run with usual settings. */
static run_cfg_t
usual(const cost_t *cost, const load_t *l)
{
    run_cfg_t c;

    memset(&c, 0, sizeof(c));
    c.sched.rows = 64;
    c.sched.tokens = 512;
    c.sched.context = CONTEXT;
    c.blocks = 20000;
    c.block_tokens = 16;
    c.cost = cost;
    c.load = l;

    return c;
}


/* n requests of one tenant, lengths exponential around the means. */
static void
add(load_t *l, rnd_t *r, uint32_t tenant, size_t n, double rate, double prompt,
    double output)
{
    double at = 0, most = CONTEXT / 2 - 2, p, o;
    load_req_t *q;

    while (n-- > 0) {
        at += rnd_exponential(r, 1e6 / rate);
        p = 1 + rnd_exponential(r, prompt);
        o = 1 + rnd_exponential(r, output);
        q = load_add(l, (uint32_t) (p < most ? p : most),
            (uint32_t) (o < most ? o : most));
        q->tenant = tenant;
        q->at_us = (uint64_t) at;
    }
}


static int
check_light(void)
{
    cost_t cost = cost_two(5000, 0, 40, 0.02);
    load_t l = {0};
    sched_stats_t st;
    run_cfg_t c;
    rnd_t rnd;
    run_t r;
    int bad = 0;

    rnd_seed(&rnd, 1);
    add(&l, &rnd, 0, 600, 4, 600, 150);
    c = usual(&cost, &l);
    run_open(&r, &c);
    run_all(&r);
    run_print(&r, "light load");
    sched_stats(r.s, &st);
    bad += table_expect(st.preemptions == 0, "no preemption in a large pool");
    bad += table_expect(
        r.gap_steps_max == 1, "a token in every step for who decodes");
    bad += table_expect(
        r.tbt.max <= r.step.max + 1e-5, "no gap longer than the longest step");
    run_close(&r);
    load_free(&l);

    return bad;
}


/* Weighted tokens of each of two tenants while both had requests waiting. */
typedef struct {
    uint64_t served[2];
} share_t;


static int
watch_share(run_t *r, void *arg)
{
    share_t *s = arg;
    uint32_t i, k, known, computed, waits[2] = {0};
    const batch_row_t *row;
    const load_req_t *q;

    for (i = 0; i < r->c.sched.reqs; i++) {
        if (r->item[i] != RUN_NONE
            && sched_seq(r->s, i * LLM_CHOICES_MAX, &known, &computed)
                   == SCHED_QUEUED) {
            waits[r->reqs[i].tenant]++;
        }
    }
    if (waits[0] > 0 && waits[1] > 0) {
        for (k = 0; k < r->b.rows_n; k++) {
            row = &r->b.rows[k];
            q = &r->c.load->v[r->row_items[k]];
            s->served[q->tenant] += row->kv_len <= q->prompt
                                        ? row->q_len * SCHED_COST_IN
                                        : SCHED_COST_OUT;
        }
    }

    return 0;
}


/* Runs load l to its end, and looks who is served. */
static void
run_share(
    run_t *r, const cost_t *cost, load_t *l, uint32_t floor, share_t *share)
{
    run_cfg_t c = usual(cost, l);

    c.sched.floor = floor;
    c.watch = watch_share;
    c.arg = share;
    run_open(r, &c);
    run_all(r);
}


static int
check_fair(uint32_t weight1)
{
    cost_t cost = cost_two(5000, 0, 40, 0.02);
    share_t share = {{0}};
    load_t l = {0};
    double ratio;
    rnd_t rnd;
    size_t i;
    run_t r;
    int bad = 0;

    /* far more than can be served; small prompts against large ones */
    rnd_seed(&rnd, 1);
    add(&l, &rnd, 0, 240, 40, 600, 20);
    add(&l, &rnd, 1, 960, 160, 150, 20);
    load_sort(&l);
    for (i = 0; i < l.n; i++) {
        l.v[i].weight = l.v[i].tenant ? weight1 : 1;
    }
    run_share(&r, &cost, &l, 0, &share);
    run_print(&r, "overload, two tenants");
    ratio = (double) share.served[1] / (double) (share.served[0] + 1);
    printf("  served while both waited: %llu and %llu\n",
        (unsigned long long) share.served[0],
        (unsigned long long) share.served[1]);
    bad += table_expect(ratio > 0.9 * weight1 && ratio < 1.1 * weight1,
        "served tokens are as the weights");
    bad += table_expect(
        r.gap_steps_max == 1, "a token in every step for who decodes");
    run_close(&r);
    load_free(&l);

    return bad;
}


/* Tenant 1 is of a lower class, and both send more than can be served. */
static int
check_floor(uint32_t floor)
{
    cost_t cost = cost_two(5000, 0, 40, 0.02);
    share_t share = {{0}};
    load_t l = {0};
    double part;
    rnd_t rnd;
    size_t i;
    run_t r;
    int bad = 0;

    rnd_seed(&rnd, 1);
    add(&l, &rnd, 0, 480, 80, 300, 40);
    add(&l, &rnd, 1, 100, 80, 300, 40);
    load_sort(&l);
    for (i = 0; i < l.n; i++) {
        l.v[i].priority = l.v[i].tenant;
    }
    run_share(&r, &cost, &l, floor, &share);
    part = 100.0 * (double) share.served[1]
           / (double) (share.served[0] + share.served[1]);
    printf("overload, two classes, floor %u: the lower one had %.2f %% while "
           "both waited, pauses of at most %llu steps\n",
        floor, part, (unsigned long long) r.gap_steps_max);
    bad += table_expect(
        part >= 0.8 * floor && part <= 1.4 * floor + 1, "the floor is kept");
    bad += table_expect(floor == 0 || r.gap_steps_max == 1,
        "who was let in gets a token in every step");
    run_close(&r);
    load_free(&l);

    return bad;
}


static int
check_tight(void)
{
    cost_t cost = cost_two(5000, 0, 40, 0.02);
    load_t l = {0};
    sched_stats_t st;
    run_cfg_t c;
    rnd_t rnd;
    run_t r;
    int bad = 0;
    size_t i, work = 0;

    rnd_seed(&rnd, 1);
    add(&l, &rnd, 0, 500, 60, 600, 150);
    for (i = 0; i < l.n; i++) {
        work += l.v[i].prompt + l.v[i].output;
    }
    c = usual(&cost, &l);
    c.blocks = 700;
    run_open(&r, &c);
    run_all(&r);
    run_print(&r, "small pool");
    sched_stats(r.s, &st);
    bad += table_expect(r.free_least < c.blocks / 10, "the pool gets full");
    bad += table_expect(st.preemptions < 10, "a full pool preempts few");
    bad += table_expect((double) r.tokens < 1.3 * (double) work,
        "computing again costs less than 30 %");
    run_close(&r);
    load_free(&l);

    return bad;
}


/* The distance of two values, relative to the first. */
static double
off(double want, double have)
{
    return want == have ? 0 : fabs(have - want) / want;
}


/* A window without any requests tells nothing of how they come. */
#define SILENCE_S 600

/* What a trace is like. */
typedef struct {
    double prompt[4], output[4]; /* mean, quantiles */
    double rate, cv;             /* of arrivals; 0: all at once */
    double again;                /* prefix blocks that were there before */
} shape_t;


static int
by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *) a, y = *(const uint32_t *) b;

    return (x > y) - (x < y);
}


/* Mean and the 50th, 90th and 99th percentile. */
static void
quantiles(uint32_t *v, size_t n, double *q)
{
    double sum = 0;
    size_t i;

    qsort(v, n, sizeof(*v), by_size);
    for (i = 0; i < n; i++) {
        sum += v[i];
    }
    q[0] = sum / (double) n;
    q[1] = v[n / 2];
    q[2] = v[n * 9 / 10];
    q[3] = v[n * 99 / 100];
}


/* The share of equal values among v: blocks that somebody had before. */
static double
seen(const uint32_t *v, size_t n)
{
    uint32_t *sorted;
    size_t i, again = 0;

    if (n == 0) { /* and then there may be no v */
        return 0;
    }
    sorted = malloc(n * sizeof(*sorted));
    assert(sorted != NULL);
    memcpy(sorted, v, n * sizeof(*v));
    qsort(sorted, n, sizeof(*sorted), by_size);
    for (i = 1; i < n; i++) {
        again += sorted[i] == sorted[i - 1];
    }
    free(sorted);

    return (double) again / (double) n;
}


static shape_t
shape_of(const load_t *l)
{
    uint32_t *v = malloc(l->n * sizeof(*v));
    double gap, sum = 0, squares = 0, n = 0;
    shape_t s = {.rate = 0};
    size_t i;

    assert(v != NULL && l->n > 1);
    for (i = 0; i < l->n; i++) {
        v[i] = l->v[i].prompt;
    }
    quantiles(v, l->n, s.prompt);
    for (i = 0; i < l->n; i++) {
        v[i] = l->v[i].output;
    }
    quantiles(v, l->n, s.output);
    free(v);

    for (i = 1; i < l->n; i++) {
        gap = (double) (l->v[i].at_us - l->v[i - 1].at_us) / 1e6;
        if (gap <= SILENCE_S) {
            sum += gap;
            squares += gap * gap;
            n++;
        }
    }
    if (sum > 0) {
        s.rate = n / sum;
        s.cv = sqrt(squares / n - sum / n * sum / n) * s.rate;
    }
    s.again = seen(l->hashes, l->hashes_n);

    return s;
}


static void
print_shape(const char *name, size_t n, const shape_t *s)
{
    printf("  %-28s %6zu %6.0f %6.0f %6.0f %6.0f %6.0f %5.0f %5.0f %5.0f "
           "%5.2f %5.2f %4.0f %%\n",
        name, n, s->prompt[0], s->prompt[1], s->prompt[2], s->prompt[3],
        s->output[0], s->output[1], s->output[2], s->output[3], s->rate, s->cv,
        100 * s->again);
}


/* Is the twin what the trace is?  A few silences make most of some cv. */
static int
alike(const shape_t *a, const shape_t *b)
{
    int i, bad = 0;

    for (i = 0; i < 4; i++) {
        bad += table_expect(off(a->prompt[i], b->prompt[i]) < 0.1,
            "generated prompts are as long as the trace's");
        bad += table_expect(off(a->output[i], b->output[i]) < 0.1,
            "generated outputs are as long as the trace's");
    }
    bad += table_expect(off(a->rate, b->rate) < 0.1,
        "generated requests come as fast as the trace's");
    bad += table_expect(off(a->cv, b->cv) < 0.3,
        "generated requests come as unevenly as the trace's");
    bad += table_expect(fabs(a->again - b->again) < 0.03,
        "generated prompts share as much as the trace's");

    return bad;
}


/* Each trace, and its generated twin beneath. */
static int
check_traces(void)
{
    load_t real = {0}, twin = {0};
    shape_t a, b;
    int t, bad = 0;

    printf("  %-28s %6s %6s %6s %6s %6s %6s %5s %5s %5s %5s %5s %6s\n",
        "trace, and generated", "reqs", "prompt", "p50", "p90", "p99", "output",
        "p50", "p90", "p99", "req/s", "cv", "shared");
    for (t = 0; t < TRACE_N; t++) {
        if (trace_load((trace_t) t, &real, 1)) {
            trace_generate((trace_t) t, &twin, 2);
            a = shape_of(&real);
            b = shape_of(&twin);
            print_shape(trace_name((trace_t) t), real.n, &a);
            print_shape("", twin.n, &b);
            bad += alike(&a, &b);
            bad += table_expect((real.hashes_n > 0) == (t == TRACE_MOONCAKE),
                "prefix blocks where there are some");
        } else {
            printf("  %-28s no file: generated\n", trace_name((trace_t) t));
        }
        load_free(&real);
        load_free(&twin);
    }

    return bad;
}


int
check_all(void)
{
    return check_light() + check_fair(1) + check_fair(3) + check_floor(0)
           + check_floor(5) + check_tight() + check_traces() + cache_check()
           + order_check() + share_check() + trouble_check();
}
