/*
 * The scheduler in virtual time: the shipped sched.c under a cost model of a
 * step and seeded arrivals of two tenants, in seconds of computer time for
 * hours of serving.
 *
 *      step_us = base + token * tokens + kv * sum of kv_len
 *
 * Without arguments it runs a few short scenarios and checks what must hold in
 * each (exit 1 if not): it would catch a policy that stalls decodes behind
 * prompts, loses a request, or lets one tenant crowd out the other.  With
 * arguments it runs one scenario and prints it:
 *
 *      sim --requests 20000 --rate 30 --seed 3 --blocks 4000
 *
 * The figures are of the model, not of a machine.
 */
#include "sched.h"
#include "../unit/kv_plain.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIM_REQS    512 /* the request table */
#define SIM_CONTEXT 8192
#define SIM_BT      16
#define SIM_TENANTS 2

/* X(name, default, help) */
#define SIM_OPTS(X)                                                            \
    X(requests, 2000, "how many arrive")                                       \
    X(rate, 20, "of them per second, both tenants together")                   \
    X(share, 0.5, "of them that are tenant 1's")                               \
    X(seed, 1, "of arrivals and lengths")                                      \
    X(rows, 64, "batch_rows")                                                  \
    X(tokens, 512, "batch_tokens")                                             \
    X(blocks, 20000, "KV blocks of 16 tokens")                                 \
    X(prompt0, 600, "mean prompt of tenant 0, tokens")                         \
    X(prompt1, 600, "mean prompt of tenant 1")                                 \
    X(output, 150, "mean output, tokens")                                      \
    X(weight0, 1, "of tenant 0")                                               \
    X(weight1, 1, "of tenant 1")                                               \
    X(base, 5000, "of a step, us")                                             \
    X(token, 40, "us per token of a step")                                     \
    X(kv, 0.02, "us per token of context read")

typedef struct {
#define X(name, def, help) double name;
    SIM_OPTS(X)
#undef X
} sim_opts_t;

typedef struct {
    float *v; /* owned */
    size_t n, cap;
} samples_t;

typedef struct {
    uint64_t last_us; /* its last token, or arrival */
    uint64_t last_step;
    uint32_t tokens;
    int live;
} sim_req_t;

typedef struct {
    sim_opts_t o;
    kv_t *kv;
    sched_t *s;
    batch_t b;
    sched_take_t *takes;
    req_t reqs[SIM_REQS];
    sim_req_t more[SIM_REQS];
    uint32_t *ids; /* every prompt's tokens: the model looks at none */
    uint64_t random;
    uint64_t now_us, next_us;
    uint64_t steps, tokens, outputs;
    uint32_t arrived, ended, held_back;
    samples_t ttft, itl;          /* milliseconds */
    uint64_t gap_max;             /* steps between two tokens of one request */
    uint64_t served[SIM_TENANTS]; /* tokens, while both had work waiting */
} sim_t;


static double
uniform(sim_t *m)
{
    uint64_t z = m->random += 0x9e3779b97f4a7c15ull;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    z ^= z >> 31;

    return ((double) (z >> 11) + 0.5) / 9007199254740992.0;
}


static double
exponential(sim_t *m, double mean)
{
    return -mean * log(uniform(m));
}


static void
sample(samples_t *a, double v)
{
    if (a->n == a->cap) {
        a->cap = a->cap ? 2 * a->cap : 4096;
        a->v = realloc(a->v, a->cap * sizeof(*a->v));
        assert(a->v != NULL);
    }
    a->v[a->n++] = (float) v;
}


static int
by_value(const void *a, const void *b)
{
    float x = *(const float *) a, y = *(const float *) b;

    return (x > y) - (x < y);
}


static double
percentile(samples_t *a, double p)
{
    if (a->n == 0) {
        return 0;
    }
    qsort(a->v, a->n, sizeof(*a->v), by_value);

    return a->v[(size_t) (p / 100 * (double) (a->n - 1) + 0.5)];
}


static void
sim_open(sim_t *m, const sim_opts_t *o)
{
    sched_cfg_t c;

    memset(m, 0, sizeof(*m));
    m->o = *o;
    m->random = (uint64_t) o->seed * 7919;
    c.reqs = SIM_REQS;
    c.rows = (uint32_t) o->rows;
    c.tokens = (uint32_t) o->tokens;
    c.context = SIM_CONTEXT;
    m->kv = kv_open_plain(
        (uint32_t) o->blocks, SIM_BT, SIM_REQS * LLM_CHOICES_MAX, SIM_CONTEXT);
    assert(m->kv != NULL);
    m->s = sched_open(&c, m->kv);
    m->b.rows_max = m->b.outs_max = c.rows;
    m->b.tokens_max = c.tokens;
    m->b.rows = calloc(c.rows, sizeof(batch_row_t));
    m->b.outs = calloc(c.rows, sizeof(batch_out_t));
    m->b.tokens = calloc(c.tokens, sizeof(uint32_t));
    m->takes = calloc(c.rows, sizeof(sched_take_t));
    m->ids = calloc(SIM_CONTEXT, sizeof(uint32_t));
    assert(m->s != NULL && m->b.rows != NULL && m->b.outs != NULL);
    assert(m->b.tokens != NULL && m->takes != NULL && m->ids != NULL);
}


static void
sim_close(sim_t *m)
{
    sched_close(m->s);
    kv_close(m->kv);
    free(m->b.rows);
    free(m->b.outs);
    free(m->b.tokens);
    free(m->takes);
    free(m->ids);
    free(m->ttft.v);
    free(m->itl.v);
}


/* A length around mean, so that prompt and output fit context and pool. */
static uint32_t
length(sim_t *m, double mean)
{
    double most = SIM_CONTEXT / 2 - 2, v = 1 + exponential(m, mean);

    if (most > m->o.blocks * SIM_BT / 2 - 2) {
        most = m->o.blocks * SIM_BT / 2 - 2;
    }

    return (uint32_t) (v < most ? v : most);
}


/* One request arrives; 0 if the table is full and it must come again. */
static int
arrive(sim_t *m)
{
    uint32_t i = 0, tenant;
    req_t *r;
    int rc;

    while (i < SIM_REQS && m->more[i].live) {
        i++;
    }
    if (i == SIM_REQS) {
        m->held_back++;
        return 0;
    }

    tenant = uniform(m) < m->o.share;
    r = &m->reqs[i];
    memset(r, 0, sizeof(*r));
    r->n = r->prompts_n = r->choices = 1;
    r->prompts[0].ids = m->ids;
    r->prompts[0].len = length(m, tenant ? m->o.prompt1 : m->o.prompt0);
    r->max_tokens = length(m, m->o.output);
    r->tenant = tenant;
    r->weight = (uint32_t) (tenant ? m->o.weight1 : m->o.weight0);
    r->arrival_us = m->next_us;

    memset(&m->more[i], 0, sizeof(m->more[i]));
    m->more[i].live = 1;
    m->more[i].last_us = m->next_us;
    rc = sched_add(m->s, i, r);
    assert(rc == 0);
    (void) rc;
    m->arrived++;

    return 1;
}


/* Both tenants' service counts only while neither could have had more. */
static void
count_served(sim_t *m)
{
    uint32_t i, k, waits[SIM_TENANTS] = {0};
    uint32_t known, computed;

    for (i = 0; i < SIM_REQS; i++) {
        if (m->more[i].live
            && sched_seq(m->s, i * LLM_CHOICES_MAX, &known, &computed)
                   == SCHED_QUEUED) {
            waits[m->reqs[i].tenant]++;
        }
    }

    if (waits[0] > 0 && waits[1] > 0) {
        for (k = 0; k < m->b.rows_n; k++) {
            i = m->b.rows[k].seq / LLM_CHOICES_MAX;
            m->served[m->reqs[i].tenant] += m->b.rows[k].q_len;
        }
    }
}


static void
step(sim_t *m)
{
    double us = m->o.base + m->o.token * m->b.tokens_n;
    const sched_take_t *t;
    sim_req_t *q;
    uint32_t k;

    for (k = 0; k < m->b.rows_n; k++) {
        us += m->o.kv * m->b.rows[k].kv_len;
    }
    count_served(m);
    m->now_us += (uint64_t) us;
    m->steps++;
    m->tokens += m->b.tokens_n;
    memset(m->takes, 0, m->b.outs_n * sizeof(*m->takes));
    sched_commit(m->s, &m->b, m->takes);

    for (k = 0; k < m->b.outs_n; k++) {
        t = &m->takes[k];
        q = &m->more[t->req];
        assert(q->live && t->index == q->tokens);
        sample(q->tokens == 0 ? &m->ttft : &m->itl,
            (double) (m->now_us - q->last_us) / 1000);
        if (q->tokens > 0 && m->steps - q->last_step > m->gap_max) {
            m->gap_max = m->steps - q->last_step;
        }
        q->tokens++;
        q->last_us = m->now_us;
        q->last_step = m->steps;
        m->outputs++;

        if (sched_done(m->s, t->req)) {
            assert(q->tokens == m->reqs[t->req].max_tokens);
            sched_end(m->s, t->req);
            q->live = 0;
            m->ended++;
        }
    }
}


static void
sim_run(sim_t *m)
{
    uint32_t most = (uint32_t) m->o.requests;

    while (m->ended < most) {
        while (m->arrived < most && m->next_us <= m->now_us && arrive(m)) {
            m->next_us += (uint64_t) exponential(m, 1e6 / m->o.rate);
        }

        sched_plan(m->s, m->now_us, &m->b);
        if (m->b.rows_n > 0) {
            step(m);
        } else {
            /* nothing to do before the next arrival, or it is stuck */
            assert(m->arrived < most && m->next_us > m->now_us);
            m->now_us = m->next_us;
        }
    }

    assert(kv_count(m->kv, KV_FREE) == kv_total(m->kv));
    kv_check_deep(m->kv);
}


static void
sim_print(sim_t *m, const char *name)
{
    double s = (double) m->now_us / 1e6;
    sched_stats_t st;

    sched_stats(m->s, &st);
    printf("%s: %u requests in %.1f s of virtual time, seed %.0f\n", name,
        m->ended, s, m->o.seed);
    printf("  steps %llu, tokens/step %.1f, tokens/s %.0f, output/s %.0f\n",
        (unsigned long long) m->steps, (double) m->tokens / (double) m->steps,
        (double) m->tokens / s, (double) m->outputs / s);
    printf("  TTFT ms p50 %.0f p90 %.0f p99 %.0f\n", percentile(&m->ttft, 50),
        percentile(&m->ttft, 90), percentile(&m->ttft, 99));
    printf("  ITL ms p50 %.1f p99 %.1f max %.1f, at most %llu steps\n",
        percentile(&m->itl, 50), percentile(&m->itl, 99),
        percentile(&m->itl, 100), (unsigned long long) m->gap_max);
    printf("  preemptions %llu, table full %u times\n",
        (unsigned long long) st.preemptions, m->held_back);
    printf("  served while both waited: tenant 0 %llu, tenant 1 %llu\n",
        (unsigned long long) m->served[0], (unsigned long long) m->served[1]);
}


static sim_opts_t
defaults(void)
{
    sim_opts_t o;

#define X(name, def, help) o.name = def;
    SIM_OPTS(X)
#undef X

    return o;
}


/* Says what failed, and counts it. */
static int
expect(int ok, const char *what)
{
    if (!ok) {
        printf("  NOT SO: %s\n", what);
    }

    return !ok;
}


static int
check_light(void)
{
    static sim_t m;
    sim_opts_t o = defaults();
    sched_stats_t st;
    double step_ms;
    int bad = 0;

    o.requests = 600;
    o.rate = 4;
    sim_open(&m, &o);
    sim_run(&m);
    sim_print(&m, "light load");
    sched_stats(m.s, &st);
    bad += expect(st.preemptions == 0, "no preemption in a large pool");
    bad += expect(m.gap_max == 1, "a token in every step for who decodes");
    step_ms =
        (o.base + o.token * o.tokens + o.kv * SIM_CONTEXT * o.rows) / 1000;
    bad += expect(percentile(&m.itl, 100) <= step_ms,
        "no gap longer than the longest step");
    sim_close(&m);

    return bad;
}


static int
check_fair(double weight1)
{
    static sim_t m;
    sim_opts_t o = defaults();
    double ratio;
    int bad = 0;

    o.requests = 1200;
    o.rate = 200;    /* far more than it can serve */
    o.prompt1 = 150; /* small ones against large ones */
    o.share = 0.8;
    o.output = 20;
    o.weight1 = weight1;
    sim_open(&m, &o);
    sim_run(&m);
    sim_print(&m, "overload, two tenants");
    ratio = (double) m.served[1] / (double) (m.served[0] + 1);
    bad += expect(ratio > 0.9 * weight1 && ratio < 1.1 * weight1,
        "served tokens are as the weights");
    bad += expect(m.gap_max == 1, "a token in every step for who decodes");
    sim_close(&m);

    return bad;
}


static int
check_tight(void)
{
    static sim_t m;
    sim_opts_t o = defaults();
    sched_stats_t st;
    int bad = 0;

    o.requests = 500;
    o.rate = 60;
    o.blocks = 700;
    sim_open(&m, &o);
    sim_run(&m);
    sim_print(&m, "small pool");
    sched_stats(m.s, &st);
    bad += expect(st.preemptions > 0 && st.preemptions < 25,
        "a small pool preempts, but few");
    bad += expect(
        (double) m.tokens < 1.3 * ((double) m.outputs + o.requests * o.prompt0),
        "computing again costs less than 30 %");
    sim_close(&m);

    return bad;
}


static void
usage(void)
{
    printf("sim [--NAME VALUE]...\n");
#define X(name, def, help)                                                     \
    printf("  --%-10s %-8g %s\n", #name, (double) def, help);
    SIM_OPTS(X)
#undef X
}


int
main(int argc, char **argv)
{
    static sim_t m;
    sim_opts_t o = defaults();
    int i, known, bad;
    double v;

    if (argc == 1) {
        bad = check_light() + check_fair(1) + check_fair(3) + check_tight();
        printf("%s\n", bad ? "FAILED" : "ok");
        return bad != 0;
    }

    for (i = 1; i + 1 < argc; i += 2) {
        known = 0;
        v = atof(argv[i + 1]);
#define X(name, def, help)                                                     \
    if (strcmp(argv[i], "--" #name) == 0) {                                    \
        o.name = v;                                                            \
        known = 1;                                                             \
    }
        SIM_OPTS(X)
#undef X
        if (!known) {
            break;
        }
    }

    if (i < argc || o.requests < 1 || o.rate <= 0 || o.rows < 1 || o.tokens < 1
        || o.blocks < 16 || o.weight0 < 1 || o.weight1 < 1) {
        usage();
        return 1;
    }

    sim_open(&m, &o);
    sim_run(&m);
    sim_print(&m, "run");
    sim_close(&m);

    return 0;
}
