/*
 * Would catch an answer that depends, by a bit, on what else is served: on the
 * prefix cache and its second tier, on copies that are late or bad, on a pinned
 * prefix, on chunks, on who is in the batch, on having been preempted, on steps
 * that are planned ahead.
 * The real scheduler, pool and forward pass with tiny checkpoints of
 * tests/data/models, some of whose layers have windows.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "brief.h"
#include "ferry.h"
#include "forward.h"
#include "kv.h"
#include "kv_tier.h"
#include "loop_pin.h"
#include "sched.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIR "tests/data/models/"

enum { REQS = 6, CONTEXT = 320, BLOCK = 8, TEXT = 24, PROMPT = 280, ROWS = 8 };

/* How it is served. */
typedef struct {
    const char *name;
    uint32_t cache;
    uint32_t tokens; /* of a step */
    uint32_t alone;  /* one request after another */
    uint32_t blocks; /* per cent of what one context takes */
    uint32_t passes; /* the last one counts */
    uint32_t pin;    /* tokens that all begin with */
    uint32_t host;   /* slots of the second tier */
    uint32_t late;   /* looks until a copy has ended */
    uint32_t bad;    /* one of so many copies fails */
    uint32_t depth;  /* steps planned ahead */
} way_t;

static const way_t ways[] = {
    {"alone, whole prompts, no cache", 0, CONTEXT, 1, 400, 1, 0, 0, 0, 0, 0},
    {"together, in chunks, no cache", 0, 24, 0, 800, 1, 0, 0, 0, 0, 0},
    {"alone, whole, cached", 1, CONTEXT, 1, 400, 2, 0, 0, 0, 0, 0},
    {"together, in chunks, cached", 1, 24, 0, 800, 1, 0, 0, 0, 0, 0},
    {"together again, all of it cached", 1, 40, 0, 800, 2, 0, 0, 0, 0, 0},
    {"together, no room, no cache", 0, 24, 0, 150, 1, 0, 0, 0, 0, 0},
    {"together, no room, cached", 1, 24, 0, 150, 2, 0, 0, 0, 0, 0},
    {"together, a prefix pinned", 1, 40, 0, 800, 1, 59, 0, 0, 0, 0},
    {"together, no room, a prefix pinned", 1, 24, 0, 150, 2, 100, 0, 0, 0, 0},
    {"together, in chunks, ahead", 1, 24, 0, 800, 2, 0, 0, 0, 0, 1},
    {"together, no room, no cache, ahead", 0, 24, 0, 150, 1, 0, 0, 0, 0, 1},
    {"together, no room, ahead", 1, 40, 0, 150, 1, 59, 0, 0, 0, 1},
};

static const way_t tiers[] = {
    {"alone, whole prompts, no cache", 0, CONTEXT, 1, 400, 1, 0, 0, 0, 0, 0},
    {"no room, second tier, bad", 1, 48, 0, 150, 2, 0, 400, 2, 3, 0},
    {"no room, second tier", 1, 24, 0, 150, 2, 0, 400, 0, 0, 0},
    {"no room, second tier, late", 1, 48, 0, 150, 2, 0, 400, 5, 0, 0},
    {"no room, second tier, pinned", 1, 48, 0, 150, 2, 100, 400, 1, 4, 0},
    {"no room there either", 1, 48, 0, 150, 2, 0, 50, 0, 0, 0},
    {"no room, second tier, ahead", 1, 24, 0, 150, 2, 0, 400, 0, 0, 1},
};

typedef struct {
    uint32_t tokens[TEXT];
    float logprobs[TEXT];
    uint32_t n;
} answer_t;

typedef struct {
    model_t *m;
    const kernels_t *kn;
    kn_dev_t *dev;
    forward_t *f;
    kv_t *kv;
    ferry_t *ferry;
    sched_t *s;
    batch_t b, ahead; /* the one that runs; the next, if it has rows */
    batch_row_t rows[2][ROWS];
    batch_out_t outs[2][ROWS];
    batch_late_t lates[2][ROWS];
    sample_out_t sampled[ROWS];
    sched_take_t takes[ROWS];
    uint32_t tokens[2][CONTEXT];
    uint32_t prompts[REQS][PROMPT];
    req_t reqs[REQS];
    answer_t answers[REQS];
    uint32_t live; /* by request */
    uint32_t dry;  /* who has no credit; REQS: nobody */
    uint32_t depth;
    uint64_t late; /* tokens that their plan did not know */
} serve_t;


/* --- a device whose copies are late, or go wrong ------------------------- */

static struct {
    kernels_t table;
    const way_t *way;
    kn_copy_t copies[32];
    uint64_t begun, ended, looks;
} faulty;


/* Until it has ended, and for ever if it is bad, nonsense is where it goes. */
static void
faulty_copy(kn_dev_t *dev, const kn_copy_t *a)
{
    uint32_t i;

    (void) dev;
    assert_true(faulty.begun - faulty.ended < 32);
    for (i = 0; i < a->n; i++) {
        memset((char *) a->dst.a + a->to[i] * a->stride, 0x7f, a->stride);
    }
    faulty.copies[faulty.begun++ % 32] = *a;
}


static int
faulty_copied(const kn_dev_t *dev, uint64_t nth)
{
    const kn_copy_t *a = &faulty.copies[nth % 32];
    uint32_t i;

    (void) dev;
    assert_true(nth == faulty.ended && nth < faulty.begun);
    if (faulty.looks++ < faulty.way->late) {
        return KN_COPY_RUNS;
    }
    faulty.looks = 0;
    faulty.ended++;
    if (faulty.way->bad > 0 && nth % faulty.way->bad == 0) {
        return KN_COPY_FAILED;
    }
    for (i = 0; i < a->n; i++) {
        memcpy((char *) a->dst.a + a->to[i] * a->stride,
            (const char *) a->src.a + a->from[i] * a->stride, a->stride);
    }

    return KN_COPY_DONE;
}


static const kernels_t *
faulty_kernels(const kernels_t *real, const way_t *way)
{
    if (way->late == 0 && way->bad == 0) {
        return real;
    }

    memset(&faulty, 0, sizeof(faulty));
    faulty.way = way;
    faulty.table = *real;
    faulty.table.copy = faulty_copy;
    faulty.table.copied = faulty_copied;

    return &faulty.table;
}


/* --- serving ------------------------------------------------------------ */

/* The second tier, and who copies. */
static void
serve_tier(serve_t *v, const forward_cfg_t *c)
{
    kv_tier_cfg_t tc = {c->host_blocks, 8, 5, 0};
    ferry_cfg_t fc = {v->kv, v->f, forward_block_bytes(v->m, c), 0};

    if (c->host_blocks > 0) {
        assert_int_equal(kv_tier(v->kv, &tc), 0);
        assert_true(kv_tiers(v->kv));
        v->ferry = ferry_open(&fc);
        assert_non_null(v->ferry);
    }
}


/* Token k of prompt i: they begin alike, and go on otherwise, at several
 * places. */
static uint32_t
word(const serve_t *v, uint32_t i, uint32_t k)
{
    return (k * k * 7 + k * 31 + (k >= 60 + 50 * (i % 3) ? i : 0))
           % model_info(v->m)->vocab;
}


/* Computes what request 2 begins with, and the others the first part of. */
static void
pin(serve_t *v, const way_t *way)
{
    const loop_pin_t p = {v->kv, v->f, &v->b, v->sampled};
    uint32_t ids[PROMPT], k;

    for (k = 0; k < way->pin; k++) {
        ids[k] = word(v, 2, k);
    }
    v->b.tokens_max = way->tokens;
    assert_int_equal(loop_pin_prefix(&p, ids, way->pin), 0);
    v->b.tokens_max = CONTEXT;
    assert_true(kv_pinned(v->kv) >= way->pin / BLOCK);
    assert_int_equal(kv_fits(v->kv), CONTEXT);
    kv_check_deep(v->kv);
}


/* Opens all but the requests for a way of serving. */
static void
serve_open(serve_t *v, const char *model, uint32_t kv_type, const way_t *way)
{
    char path[256], err[256];
    kn_open_t o = {.threads = 2};
    forward_cfg_t c = {ROWS, way->tokens, ROWS, CONTEXT, 0, BLOCK, kv_type,
        .groups = {.n = 0}};
    sched_cfg_t sc;
    kv_cfg_t kc;

    memset(v, 0, sizeof(*v));
    v->kn = kernels_cpu("auto", err, sizeof(err));
    assert_non_null(v->kn);
    v->kn = faulty_kernels(v->kn, way);
    c.host_blocks = way->host;
    c.depth = way->depth;
    snprintf(path, sizeof(path), DIR "%s", model);
    v->m = model_open(path, err, sizeof(err));
    if (v->m == NULL) {
        fail_msg("%s", err);
    }
    v->dev = v->kn->open(&o, err, sizeof(err));
    assert_non_null(v->dev);

    model_groups(v->m, CONTEXT, &c.groups);
    memset(&sc, 0, sizeof(sc));
    sc.reqs = REQS;
    sc.rows = ROWS;
    sc.tokens = way->tokens;
    sc.context = CONTEXT;
    sc.depth = v->depth = way->depth;
    forward_kv(&c, sched_seqs(&sc), &kc);
    kc.blocks = (uint32_t) kv_blocks_for(&kc, CONTEXT) * way->blocks / 100
                + (uint32_t) kv_pin_blocks(&kc, way->pin);
    c.blocks = kc.blocks;
    v->kv = kv_open(&kc);
    assert_non_null(v->kv);
    if (way->cache) {
        assert_int_equal(kv_cache(v->kv, 8, 3), 0);
    }
    v->f = forward_open(v->kn, v->dev, v->m, &c, err, sizeof(err));
    if (v->f == NULL) {
        fail_msg("%s", err);
    }
    serve_tier(v, &c);

    v->s = sched_open(&sc, v->kv);
    assert_non_null(v->s);
    v->b.rows_max = v->b.outs_max = ROWS;
    v->b.tokens_max = CONTEXT;
    v->ahead = v->b;
    v->b.rows = v->rows[0];
    v->b.outs = v->outs[0];
    v->b.tokens = v->tokens[0];
    v->b.late = v->lates[0];
    v->ahead.rows = v->rows[1];
    v->ahead.outs = v->outs[1];
    v->ahead.tokens = v->tokens[1];
    v->ahead.late = v->lates[1];
    v->dry = REQS;
    if (way->pin > 0 && kv_caches(v->kv)) {
        pin(v, way);
    }
}


static void
serve_close(serve_t *v)
{
    if (v->ahead.rows_n > 0) {
        sched_trim(v->s, &v->ahead);
    }
    while (ferry_idle(v->ferry)) { /* what is under way */
    }
    assert_int_equal(kv_avail(v->kv), kv_total(v->kv) - kv_pinned(v->kv));
    sched_close(v->s);
    ferry_close(v->ferry);
    forward_close(v->f);
    kv_close(v->kv);
    v->kn->close(v->dev);
    model_close(v->m);
}


static void
add(serve_t *v, uint32_t i)
{
    uint32_t k, len = 190 + 17 * i;
    req_t *r = &v->reqs[i];

    for (k = 0; k < len; k++) {
        v->prompts[i][k] = word(v, i, k);
    }

    memset(r, 0, sizeof(*r));
    r->prompts_n = 1;
    r->n = r->choices = i == 2 ? 2 : 1;
    r->flags = LLM_F_IGNORE_EOS;
    r->prompts[0].ids = v->prompts[i];
    r->prompts[0].len = len;
    r->max_tokens = TEXT;
    r->tenant = kv_pinned(v->kv) > 0 ? i : 0; /* nothing else is shared */
    r->space = r->tenant;
    r->weight = 1;
    r->params.top_p = 1;
    r->params.repetition_penalty = i == 3 ? 1.5f : 1;
    r->params.presence_penalty = i == 4 ? 0.7f : 0;
    r->params.frequency_penalty = i == 4 ? 0.3f : 0;
    r->params.logprobs = 1;
    r->params.temperature = i % 2 ? 1 : 0;
    r->params.seed = i;
    v->answers[i].n = 0;
    assert_int_equal(sched_add(v->s, i, r), 0);
    v->live |= 1u << i;
}


/* Another client stops to read, so that others may take its blocks. */
static void
stall(serve_t *v, uint32_t t)
{
    if (v->dry < REQS && v->live >> v->dry & 1) {
        sched_credit(v->s, v->dry, 1);
    }
    v->dry = t / 24 % REQS;
    if ((v->live & (v->live - 1)) == 0) {
        v->dry = REQS; /* not the last one */
    } else if (v->live >> v->dry & 1) {
        sched_credit(v->s, v->dry, 0);
    }
}


/* The next step is the one that runs; 0: it has no rows. */
static int
next(serve_t *v, uint64_t now_us)
{
    batch_t b = v->b;

    if (v->ahead.rows_n > 0) {
        sched_trim(v->s, &v->ahead);
    }
    if (v->ahead.rows_n == 0) {
        sched_plan(v->s, now_us, &v->ahead);
        kv_check_deep(v->kv);
    }
    v->b = v->ahead;
    v->ahead = b;
    v->ahead.rows_n = 0;
    v->late += v->b.late_n;

    return v->b.rows_n > 0;
}


/* One step; how many requests ended. */
static uint32_t
step(serve_t *v, uint64_t now_us)
{
    const sched_take_t *t;
    uint32_t k, ended = 0;
    answer_t *a;

    (void) ferry_turn(v->ferry);
    if (!next(v, now_us)) { /* all wait for copies */
        assert_true(ferry_idle(v->ferry));
        return 0;
    }
    forward_submit(v->f, &v->b);
    if (v->depth > 0) {
        sched_plan(v->s, now_us, &v->ahead);
        kv_check_deep(v->kv);
    }
    forward_wait(v->f, v->sampled);

    memset(v->takes, 0, sizeof(v->takes));
    for (k = 0; k < v->b.outs_n; k++) {
        v->takes[k].token = v->sampled[k].token;
        v->takes[k].err = v->sampled[k].err;
        assert_int_equal(v->takes[k].err, 0);
    }
    sched_commit(v->s, &v->b, v->takes);

    for (k = 0; k < v->b.outs_n; k++) {
        t = &v->takes[k];
        a = &v->answers[t->req];
        if (t->choice == 0) {
            assert_int_equal(t->index, a->n);
            a->tokens[a->n] = t->token;
            a->logprobs[a->n++] = v->sampled[k].logprob;
        }
    }
    for (k = 0; k < v->b.outs_n; k++) {
        t = &v->takes[k];
        if (v->live >> t->req & 1 && sched_done(v->s, t->req)) {
            sched_end(v->s, t->req);
            v->live &= ~(1u << t->req);
            ended++;
        }
    }

    return ended;
}


static void
serve(serve_t *v, const way_t *way, sched_stats_t *st)
{
    uint32_t pass, i, ended, t = 0;

    for (pass = 0; pass < way->passes; pass++) {
        ended = 0;
        for (i = 0; i < REQS; i++) {
            add(v, i);
            while (way->alone && ended <= i) {
                ended += step(v, ++t);
            }
        }
        while (ended < REQS) {
            if (way->blocks < 200) {
                stall(v, ++t);
            }
            ended += step(v, ++t);
            assert_true(t < 5000);
        }
    }
    sched_stats(v->s, st);
}


/* Each of n ways has the answers of the first one. */
static void
test_ways(const char *model, uint32_t kv_type, const way_t *way, uint32_t n)
{
    static answer_t want[REQS];
    static serve_t v;
    kv_tier_stats_t ts;
    sched_stats_t st;
    uint32_t w, i, preempted = 0;

    for (w = 0; w < n; w++, way++) {
        serve_open(&v, model, kv_type, way);
        serve(&v, way, &st);
        if (w == 0) {
            memcpy(want, v.answers, sizeof(want));
        }
        for (i = 0; i < REQS; i++) {
            assert_int_equal(v.answers[i].n, TEXT);
            if (memcmp(&want[i], &v.answers[i], sizeof(want[i])) != 0) {
                fail_msg(
                    "%s: request %u: another answer %s", model, i, way->name);
            }
        }
        preempted += (uint32_t) st.preemptions;
        assert_int_equal(st.cache_hits > 0, kv_caches(v.kv));
        assert_true(kv_pinned(v.kv) == 0
                    || st.cache_hits >= REQS * (way->pin / BLOCK) * BLOCK
                    || way->pin > 60);
        kv_tier_stats(v.kv, &ts);
        assert_int_equal(ts.out > 0, way->host > 0);
        assert_int_equal(ts.failed > 0, way->bad > 0);
        assert_true(st.fetches > 0 || way->host < 400);
        assert_int_equal(v.late > REQS * TEXT / 4, way->depth);
        serve_close(&v);
    }

    assert_true(preempted > 0);
}


static void
test_model(const char *model)
{
    test_ways(model, KN_F16, ways, sizeof(ways) / sizeof(ways[0]));
}


/* Blocks that went out and came back have the same bits in them. */
static void
test_tier(void **state)
{
    uint32_t n = sizeof(tiers) / sizeof(tiers[0]);

    (void) state;
    test_ways("qwen3", KN_F16, tiers, brief() ? 2 : n);
    if (!brief()) {
        test_ways("deepseek2", KN_F16, tiers, n);
    }
}


/* Blocks of whole numbers and their factors are as good as any. */
static void
test_q8_0(void **state)
{
    (void) state;
    if (!brief()) {
        test_ways("qwen3-yarn", KN_Q8_0, ways, sizeof(ways) / sizeof(ways[0]));
    }
    test_ways("qwen3-yarn", KN_Q8_0, tiers, brief() ? 2 : 5);
}


static void
test_full(void **state)
{
    (void) state;
    if (!brief()) {
        test_model("qwen3");
    }
}


/* Windows in some layers, and in all. */
static void
test_windows(void **state)
{
    (void) state;
    test_model("gemma3");
    if (!brief()) {
        test_model("gemma2");
        test_model("mistral");
    }
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_tier),
        cmocka_unit_test(test_q8_0),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
