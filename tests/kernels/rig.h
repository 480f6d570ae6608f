/*
 * What the differential runner's ops share: a case, the device and step that
 * it is run on, and what goes to the device and comes back.
 */
#ifndef RIG_H
#define RIG_H

#include "guard.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define ROWS_MAX   4
#define TOKENS_MAX 80
#define BLOCKS_MAX 256
#define CANARY     64 /* bytes */
#define ALL        UINT32_MAX
#define EXPERTS    5
#define USED       3

typedef struct {
    uint64_t seed;
    uint32_t rows_n;
    uint32_t q_start[ROWS_MAX], q_len[ROWS_MAX];
    uint32_t which; /* KN_TOKENS or KN_OUTS */
    uint32_t n, k;  /* of a matrix; k is also the width of vectors */
    uint32_t type;  /* of weights or cache */
    uint32_t heads, kv_heads, head_dim, v_dim, half, block_tokens;
    uint32_t group;  /* of layers, for the block tables */
    uint32_t inside; /* cache: are values in their keys? */
    uint32_t add;    /* rmsnorm: with a residual? matmul, moe_ffn: a bias? */
    uint32_t same;   /* rmsnorm: is y x? moe_ffn: is an expert all tokens'? */
    uint32_t mixed;  /* products: are their weights' types not all one? */
    uint32_t parts, halves, act, window, sinks;
    uint32_t rest;   /* headmul: elements before the product */
    uint32_t groups; /* of experts, or 0 */
    uint32_t score, group_best;
    float scale, cap, limit;
    uint32_t only; /* one of the op's rows alone, or ALL */
} case_t;

typedef struct {
    const kernels_t *kn;
    const cpu_isa_t *isa; /* the device's; NULL: it is none of the CPU's */
    kn_dev_t *dev;
    kn_step_t step;
    kn_row_t rows[ROWS_MAX];
    kn_out_t outs[TOKENS_MAX];
    int masks; /* have some of these one? */
    uint32_t tokens[TOKENS_MAX];
    uint32_t blocks[BLOCKS_MAX];
    uint32_t pos[TOKENS_MAX]; /* of the step's tokens */
    uint32_t row[TOKENS_MAX];
    uint32_t pool;  /* blocks in the cache */
    uint32_t first; /* the case's number of the step's first token */
    sample_params_t params[TOKENS_MAX];
    uint32_t known[TOKENS_MAX];
} sub_t;

typedef struct {
    float *v; /* [rows, width], owned */
    uint32_t rows, width;
} result_t;

enum {
#define X(op, doc) OP_##op,
    KERNELS(X)
#undef X
        OPS
};

typedef struct {
    sub_t *s;
    int op;
    const void *a;
} call_t;

static inline void
call_body(void *arg)
{
    const call_t *c = arg;

    switch (c->op) {
#define X(name, doc)                                                           \
    case OP_##name:                                                            \
        c->s->kn->name(c->s->dev, c->a);                                       \
        break;
        KERNELS(X)
#undef X
    }
}

static inline void
call(sub_t *s, int op, const void *a)
{
    call_t c = {s, op, a};

    s->kn->plan(s->dev, &s->step);
    if (s->masks) {
        s->kn->masks(s->dev, s->outs);
    }
    s->kn->submit(s->dev, call_body, &c);
    s->kn->wait(s->dev);
}

static inline void *
need(size_t n)
{
    void *p;

    p = malloc(n ? n : 1);
    assert_non_null(p);
    memset(p, 0xff, n);

    return p;
}

static inline kn_ptr_t
put(sub_t *s, const void *src, size_t n)
{
    kn_ptr_t p;
    char *host;

    host = need(n + CANARY);
    p = s->kn->alloc(s->dev, n + CANARY);
    assert_true(p.a != 0);

    if (src != NULL) {
        memcpy(host, src, n);
    }

    s->kn->copy_in(s->dev, p, host, n + CANARY);
    free(host);

    return p;
}

/* n bytes of p, which put() made; what follows them must be untouched. */
static inline void *
get(sub_t *s, kn_ptr_t p, size_t n)
{
    unsigned char *host;
    size_t i;

    host = need(n + CANARY);
    s->kn->copy_out(s->dev, host, p, n + CANARY);

    for (i = 0; i < CANARY; i++) {
        assert_int_equal(host[n + i], 0xff);
    }

    return host;
}

static inline float *
vectors(uint64_t seed, uint32_t rows, uint32_t width)
{
    float *v;
    size_t i;

    v = need((size_t) rows * width * sizeof(float));

    for (i = 0; i < (size_t) rows * width; i++) {
        v[i] = rnd_float(&seed);
    }

    return v;
}

static inline uint32_t
tokens_of(const case_t *c)
{
    uint32_t i, n;

    for (n = 0, i = 0; i < c->rows_n; i++) {
        n += c->q_len[i];
    }

    return n;
}

/* Every other token is an output. */
static inline uint32_t
op_rows(const case_t *c)
{
    uint32_t n;

    n = tokens_of(c);

    return c->which == KN_OUTS ? (n + 1) / 2 : n;
}

/* Which token of the case the op's row i is. */
static inline uint32_t
token_of(const case_t *c, uint32_t i)
{
    return c->which == KN_OUTS ? i * 2 : i;
}

/* The shared object of the table that is no instruction set's. */
static const char *plug_in;

/* That table runs under another schedule for each number of threads. */
static inline const kernels_t *
plugged(uint32_t threads, char *err, size_t errlen)
{
    char seed[16];

    snprintf(seed, sizeof(seed), "%u", threads - 1);
    setenv("LLM_SIMT_SEED", seed, 1);

    return kernels_cuda(plug_in, err, errlen);
}

static inline void
sub_open(sub_t *s, const char *isa, uint32_t threads)
{
    kn_open_t o = {.threads = threads};
    kn_limits_t l = {TOKENS_MAX, ROWS_MAX, TOKENS_MAX, BLOCKS_MAX, 1000, 100,
        CPU_HEAD_DIM_MAX, 1000, USED, 512};
    char err[200];

    memset(s, 0, sizeof(*s));
    s->kn = strcmp(isa, "cuda") == 0 ? plugged(threads, err, sizeof(err))
                                     : kernels_cpu(isa, err, sizeof(err));
    assert_non_null(s->kn);
    s->dev = s->kn->open(&o, err, sizeof(err));
    assert_non_null(s->dev);
    s->isa = strcmp(isa, "cuda") == 0 ? NULL : &s->dev->isa;
    assert_int_equal(s->kn->reserve(s->dev, &l, err, sizeof(err)), 0);
}

static inline uint32_t
blocks_of(const case_t *c, uint32_t i)
{
    return (c->q_start[i] + c->q_len[i] + c->block_tokens - 1)
           / c->block_tokens;
}

/* Blocks of row i that its window has left. */
static inline uint32_t
left_behind(const case_t *c, uint32_t i)
{
    return c->window > 0 && c->q_start[i] >= c->window
               ? (c->q_start[i] - c->window + 1) / c->block_tokens
               : 0;
}

/* A power of two that has room for every sequence of the case. */
static inline uint32_t
pool_of(const case_t *c)
{
    uint32_t i, n, pool;

    for (n = 0, i = 0; i < c->rows_n; i++) {
        n += blocks_of(c, i);
    }

    for (pool = 8; pool < n; pool *= 2) { /* none */
    }

    assert_true(pool <= BLOCKS_MAX);

    return pool;
}

/*
 * The case's step, or the one token of it that is asked for.  Block ids are a
 * permutation, so that neighbours in a sequence are none in memory.
 */
static inline void
sub_step(sub_t *s, const case_t *c)
{
    uint32_t i, j, b, t, n, at, only;

    only = c->only == ALL ? ALL : token_of(c, c->only);
    s->pool = pool_of(c);
    s->first = only == ALL ? 0 : only;

    for (at = 0, t = 0, n = 0, b = 0, i = 0; i < c->rows_n; i++) {
        kn_row_t r = {c->q_start[i], c->q_len[i], n, {{0, 0, 0}}};

        j = left_behind(c, i);
        r.blocks[c->group].at = b + j;
        r.blocks[c->group].first = j;
        r.blocks[c->group].n = blocks_of(c, i) - j;

        for (j = 0; j < blocks_of(c, i); j++, b++) {
            s->blocks[b] = (b * 151 + 77) % s->pool;
        }

        t = at;
        at += r.q_len;

        if (only != ALL) {
            if (only < t || only >= at) {
                continue;
            }

            r.q_start += only - t;
            r.q_len = 1;
            t = only;
        }

        for (j = 0; j < r.q_len; j++, n++) {
            assert_true(n < TOKENS_MAX);
            s->tokens[n] = ((t + j) * 7 + 3) % c->n;
            s->pos[n] = r.q_start + j;
            s->row[n] = s->step.rows_n;
        }

        s->rows[s->step.rows_n++] = r;
    }

    s->step.tokens_n = n;
    s->step.blocks_n = b;
    s->step.outs_n = (n + 1) / 2;
    s->step.tokens = s->tokens;
    s->step.rows = s->rows;
    s->step.blocks = s->blocks;
    s->step.outs = s->outs;

    for (i = 0; i < s->step.outs_n; i++) {
        s->outs[i].tok = i * 2;
        s->outs[i].pos = s->pos[i * 2];
        s->outs[i].choice = 1;
        s->outs[i].known = s->known;
        s->outs[i].params = &s->params[i];
    }
}

/* The input rows of the step, out of those of the case. */
static inline kn_ptr_t
put_rows(sub_t *s, const case_t *c, const float *v, uint32_t width)
{
    uint32_t rows;

    rows = c->only == ALL ? op_rows(c) : 1;

    return put(s, v + (c->only == ALL ? 0 : (size_t) c->only * width),
        (size_t) rows * width * sizeof(float));
}

static inline result_t
get_rows(sub_t *s, const case_t *c, kn_ptr_t p, uint32_t width)
{
    result_t r;

    r.rows = c->only == ALL ? op_rows(c) : 1;
    r.width = width;
    r.v = get(s, p, (size_t) r.rows * width * sizeof(float));

    return r;
}

static inline kn_w_t *
weight(sub_t *s, const case_t *c)
{
    kn_source_t src = {"w", c->type, c->n, c->k, NULL};
    uint64_t seed = c->seed + 1;
    char err[200];
    guard_t g;
    kn_w_t *w;

    src.data = guard_open(&g, type_bytes(c->type, (size_t) c->n * c->k));
    rnd_weights(&seed, c->type, g.p, (size_t) c->n * c->k);
    w = s->kn->weight_load(s->dev, &src, err, sizeof(err));
    assert_non_null(w);
    guard_close(&g);

    return w;
}

/* The same matrix as plain floats, [n, k]. */
static inline void
weight_floats(const case_t *c, float *w)
{
    uint64_t seed = c->seed + 1;
    size_t n = (size_t) c->n * c->k;
    void *raw = need(type_bytes(c->type, n));

    rnd_weights(&seed, c->type, raw, n);
    kernels_dequant(c->type, w, raw, n);
    free(raw);
}

#endif
