/*
 * What planning costs: sched_plan and sched_commit with sequences that decode
 * in every seat, prompts in chunks, and a queue behind them.
 *
 * Each line is one size; the times are of single steps, plan and commit
 * together, with a request that ends and one that comes in most of them.  It
 * is processor time: what others on the machine take is not counted.
 */
#include "sched.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { STEPS = 4000, CONTEXT = 4096, BT = 16 };

typedef struct {
    sched_t *s;
    kv_t *kv;
    batch_t b;
    sched_take_t *takes;
    req_t *reqs;
    uint32_t *ids;
    uint32_t n, tenants, seed;
} bench_t;


static uint32_t
below(bench_t *t, uint32_t n)
{
    t->seed = t->seed * 1664525u + 1013904223u;

    return (uint32_t) ((uint64_t) t->seed * n >> 32);
}


static void
add(bench_t *t, uint32_t i)
{
    req_t *r = &t->reqs[i];
    int rc;

    memset(r, 0, sizeof(*r));
    r->n = r->prompts_n = r->choices = 1;
    r->prompts[0].ids = t->ids + below(t, CONTEXT / 2);
    r->prompts[0].len = 64 + below(t, 512);
    r->max_tokens = 50 + below(t, 400);
    r->tenant = below(t, t->tenants);
    r->weight = 1;
    rc = sched_add(t->s, i, r);
    assert(rc == 0);
    (void) rc;
}


static double
now_us(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);

    return (double) ts.tv_sec * 1e6 + (double) ts.tv_nsec / 1e3;
}


static int
by_value(const void *a, const void *b)
{
    double x = *(const double *) a, y = *(const double *) b;

    return (x > y) - (x < y);
}


static void
bench(uint32_t running, uint32_t waiting, uint32_t tenants, uint32_t target_us)
{
    static const uint32_t none[1];
    static double us[STEPS];
    bench_t t = {.n = running + waiting, .tenants = tenants, .seed = 1};
    kv_cfg_t kc = {
        running * 64, BT, t.n * LLM_CHOICES_MAX, CONTEXT, 2048, 1, none};
    sched_cfg_t c = {.reqs = t.n,
        .rows = running,
        .tokens = running + 1024,
        .context = CONTEXT,
        .tile = 64,
        .target_us = target_us};
    double from, rows = 0;
    uint32_t i, k;

    t.kv = kv_open(&kc);
    t.s = sched_open(&c, t.kv);
    t.b.rows_max = t.b.outs_max = c.rows;
    t.b.tokens_max = c.tokens;
    t.b.rows = calloc(c.rows, sizeof(batch_row_t));
    t.b.outs = calloc(c.rows, sizeof(batch_out_t));
    t.b.tokens = calloc(c.tokens, sizeof(uint32_t));
    t.takes = calloc(c.rows, sizeof(sched_take_t));
    t.reqs = calloc(t.n, sizeof(req_t));
    t.ids = calloc(CONTEXT, sizeof(uint32_t));
    assert(t.s != NULL && t.b.rows != NULL && t.b.outs != NULL);
    assert(t.b.tokens != NULL && t.takes != NULL && t.reqs != NULL);

    for (i = 0; i < t.n; i++) {
        add(&t, i);
    }

    for (i = 0; i < 2 * STEPS; i++) {
        from = now_us();
        sched_plan(t.s, i * 20000ull, &t.b);
        memset(t.takes, 0, t.b.outs_n * sizeof(*t.takes));
        sched_commit(t.s, &t.b, t.takes);
        sched_took(t.s, &t.b, 10000 + 10 * t.b.tokens_n);
        if (i >= STEPS) {
            us[i - STEPS] = now_us() - from;
            rows += t.b.rows_n;
        }
        for (k = 0; k < t.b.outs_n; k++) {
            if (sched_done(t.s, t.takes[k].req)) {
                sched_end(t.s, t.takes[k].req);
                add(&t, t.takes[k].req);
            }
        }
    }

    qsort(us, STEPS, sizeof(us[0]), by_value);
    printf("%5u seats, %6u waiting, %4u tenants%s: %4.0f rows, p50 %6.1f us, "
           "p99 %6.1f us\n",
        running, waiting, tenants, target_us ? ", target" : "", rows / STEPS,
        us[STEPS / 2], us[STEPS * 99 / 100]);

    sched_close(t.s);
    kv_close(t.kv);
    free(t.b.rows);
    free(t.b.outs);
    free(t.b.tokens);
    free(t.takes);
    free(t.reqs);
    free(t.ids);
}


int
main(void)
{
    bench(26, 100, 4, 0);
    bench(256, 1000, 4, 0);
    bench(256, 1000, 4, 30000);
    bench(256, 1000, 100, 0);
    bench(256, 10000, 100, 0);
    bench(2560, 10000, 100, 0);

    return 0;
}
