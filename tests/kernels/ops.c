/*
 * The differential runner: every row of the op list on every CPU table, at
 * shapes with edges.  Fails when a table differs from the plain C one by more
 * than rounding, when a row of a batch has other bits than alone or with
 * another number of threads, when an op writes outside its output or reads
 * what no sequence of the step owns, or when an op has no test.
 *
 * Each op is a function that builds its inputs from a case, runs, and gives
 * its output as [rows, width] floats.  Device memory is poisoned with NaN
 * wherever the op has no business.
 */
#include "guard.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define ROWS_MAX   4
#define TOKENS_MAX 80
#define BLOCKS_MAX 256
#define CANARY     64 /* bytes */
#define ALL        UINT32_MAX

typedef struct {
    uint64_t seed;
    uint32_t rows_n;
    uint32_t q_start[ROWS_MAX], q_len[ROWS_MAX];
    uint32_t which; /* KN_TOKENS or KN_OUTS */
    uint32_t n, k;  /* of a matrix; k is also the width of vectors */
    uint32_t type;  /* of weights or cache */
    uint32_t heads, kv_heads, head_dim, half, block_tokens;
    uint32_t add;  /* rmsnorm: with a residual? matmul: with a bias? */
    uint32_t same; /* rmsnorm: is y x? */
    uint32_t parts, halves, act, window, sinks;
    float scale, cap;
    uint32_t only; /* one of the op's rows alone, or ALL */
} case_t;

typedef struct {
    const kernels_t *kn;
    kn_dev_t *dev;
    kn_step_t step;
    kn_row_t rows[ROWS_MAX];
    kn_out_t outs[TOKENS_MAX];
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

static void
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

static void
call(sub_t *s, int op, const void *a)
{
    call_t c = {s, op, a};

    s->kn->plan(s->dev, &s->step);
    s->kn->submit(s->dev, call_body, &c);
    s->kn->wait(s->dev);
}

static void *
need(size_t n)
{
    void *p;

    p = malloc(n ? n : 1);
    assert_non_null(p);
    memset(p, 0xff, n);

    return p;
}

static kn_ptr_t
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
static void *
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

static float *
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

static uint32_t
tokens_of(const case_t *c)
{
    uint32_t i, n;

    for (n = 0, i = 0; i < c->rows_n; i++) {
        n += c->q_len[i];
    }

    return n;
}

/* Every other token is an output. */
static uint32_t
op_rows(const case_t *c)
{
    uint32_t n;

    n = tokens_of(c);

    return c->which == KN_OUTS ? (n + 1) / 2 : n;
}

/* Which token of the case the op's row i is. */
static uint32_t
token_of(const case_t *c, uint32_t i)
{
    return c->which == KN_OUTS ? i * 2 : i;
}

static void
sub_open(sub_t *s, const char *isa, uint32_t threads)
{
    kn_open_t o = {threads};
    kn_limits_t l = {
        TOKENS_MAX, ROWS_MAX, TOKENS_MAX, BLOCKS_MAX, 1000, 32, 128, 1000};
    char err[200];

    memset(s, 0, sizeof(*s));
    s->kn = kernels_cpu(isa, err, sizeof(err));
    assert_non_null(s->kn);
    s->dev = s->kn->open(&o, err, sizeof(err));
    assert_non_null(s->dev);
    assert_int_equal(s->kn->reserve(s->dev, &l, err, sizeof(err)), 0);
}

static uint32_t
blocks_of(const case_t *c, uint32_t i)
{
    return (c->q_start[i] + c->q_len[i] + c->block_tokens - 1)
           / c->block_tokens;
}

/* A power of two that has room for every sequence of the case. */
static uint32_t
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
static void
sub_step(sub_t *s, const case_t *c)
{
    uint32_t i, j, b, t, n, at, only;

    only = c->only == ALL ? ALL : token_of(c, c->only);
    s->pool = pool_of(c);
    s->first = only == ALL ? 0 : only;

    for (at = 0, t = 0, n = 0, b = 0, i = 0; i < c->rows_n; i++) {
        kn_row_t r = {c->q_start[i], c->q_len[i], n, b, blocks_of(c, i)};

        for (j = 0; j < r.blocks_n; j++, b++) {
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
static kn_ptr_t
put_rows(sub_t *s, const case_t *c, const float *v, uint32_t width)
{
    uint32_t rows;

    rows = c->only == ALL ? op_rows(c) : 1;

    return put(s, v + (c->only == ALL ? 0 : (size_t) c->only * width),
        (size_t) rows * width * sizeof(float));
}

static result_t
get_rows(sub_t *s, const case_t *c, kn_ptr_t p, uint32_t width)
{
    result_t r;

    r.rows = c->only == ALL ? op_rows(c) : 1;
    r.width = width;
    r.v = get(s, p, (size_t) r.rows * width * sizeof(float));

    return r;
}

static kn_w_t *
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

static result_t
run_embed(sub_t *s, const case_t *c)
{
    kn_embed_t a = {weight(s, c), {0}, c->scale};

    a.y = put(s, NULL, s->step.tokens_n * c->k * sizeof(float));
    call(s, OP_embed, &a);

    return get_rows(s, c, a.y, c->k);
}

/* Part i of what rmsnorm did to x: left is x after, y the norm. */
static void
check_norm(const case_t *c, const float *x, const float *add, const float *w,
    const float *left, const float *y)
{
    uint32_t j;
    float v;
    double sum;

    for (sum = 0, j = 0; j < c->k; j++) {
        v = c->add ? x[j] + add[j] : x[j];
        assert_true(left[j] == (c->same ? y[j] : v));
        sum += (double) v * v;
    }

    sum = 1 / sqrt(sum / c->k + 1e-5f);

    for (j = 0; j < c->k; j++) {
        v = c->add ? x[j] + add[j] : x[j];
        assert_true(fabs(y[j] - v * sum * w[j]) < 1e-6 * (fabs(y[j]) + 1));
    }
}

static result_t
run_rmsnorm(sub_t *s, const case_t *c)
{
    kn_rmsnorm_t a;
    float *x, *add, *w, *y, *left;
    uint32_t i, rows, width;
    size_t at;
    result_t r;

    memset(&a, 0, sizeof(a));
    width = c->parts * c->k;
    x = vectors(c->seed + 1, op_rows(c), width);
    add = vectors(c->seed + 2, op_rows(c), width);
    w = vectors(c->seed + 3, 1, c->k);
    rows = c->only == ALL ? op_rows(c) : 1;

    a.x = put_rows(s, c, x, width);
    a.w = put(s, w, c->k * sizeof(float));
    a.y = c->same ? a.x : put(s, NULL, rows * width * sizeof(float));
    a.parts = c->parts;
    a.dim = c->k;
    a.rows = c->which;
    a.eps = 1e-5f;

    if (c->add) {
        a.add = put_rows(s, c, add, width);
    }

    call(s, OP_rmsnorm, &a);

    /* The residual is an output too: [y, x]. */
    y = get(s, a.y, rows * width * sizeof(float));
    left = get(s, a.x, rows * width * sizeof(float));
    r.rows = rows;
    r.width = 2 * width;
    r.v = need((size_t) rows * r.width * sizeof(float));

    for (i = 0; i < rows; i++) {
        memcpy(r.v + i * r.width, y + i * width, width * sizeof(float));
        memcpy(
            r.v + i * r.width + width, left + i * width, width * sizeof(float));
    }

    for (i = 0; i < rows * c->parts; i++) {
        at = (size_t) i * c->k + (c->only == ALL ? 0 : c->only * width);
        check_norm(c, x + at, add + at, w, left + i * c->k, y + i * c->k);
    }

    free(x);
    free(add);
    free(w);
    free(y);
    free(left);

    return r;
}

static result_t
run_add(sub_t *s, const case_t *c)
{
    kn_add_t a = {{0}, {0}, {0}, c->k, c->which};
    float *x, *add, *gate;
    uint32_t i, at;
    result_t r;

    x = vectors(c->seed + 1, op_rows(c), c->k);
    add = vectors(c->seed + 2, op_rows(c), c->k);
    a.x = put_rows(s, c, x, c->k);
    a.add = put_rows(s, c, add, c->k);
    gate = vectors(c->seed + 3, op_rows(c), 1);

    if (c->add) {
        a.gate = put_rows(s, c, gate, 1);
    }

    call(s, OP_add, &a);
    r = get_rows(s, c, a.x, c->k);

    for (i = 0; i < r.rows * c->k; i++) {
        at = i + (c->only == ALL ? 0 : c->only * c->k);
        assert_true(fabs(r.v[i] - x[at]
                         - add[at] / (c->add ? 1 + exp(-gate[at / c->k]) : 1))
                    < 2e-7);
    }

    free(x);
    free(add);
    free(gate);

    return r;
}

static result_t
run_matmul(sub_t *s, const case_t *c)
{
    kn_matmul_t a = {weight(s, c), {0}, {0}, {0}, c->which, c->scale, c->cap};
    float *x, *bias;

    x = vectors(c->seed + 2, op_rows(c), c->k);
    a.x = put_rows(s, c, x, c->k);
    a.y =
        put(s, NULL, (c->only == ALL ? op_rows(c) : 1) * c->n * sizeof(float));

    if (c->add) {
        bias = vectors(c->seed + 3, 1, c->n);
        a.bias = put(s, bias, c->n * sizeof(float));
        free(bias);
    }

    call(s, OP_matmul, &a);
    free(x);

    return get_rows(s, c, a.y, c->n);
}

static result_t
run_rope_angles(sub_t *s, const case_t *c)
{
    kn_rope_angles_t a = {{0}, {0}, c->half, c->scale};
    double freq[128];
    uint32_t i, t;
    size_t at;
    result_t r;

    for (i = 0; i < c->half; i++) {
        freq[i] = pow(10000, -(double) i / c->half);
    }

    a.freq = put(s, freq, c->half * sizeof(double));
    a.cs = put(s, NULL, s->step.tokens_n * c->half * 2 * sizeof(float));
    call(s, OP_rope_angles, &a);
    r = get_rows(s, c, a.cs, c->half * 2);

    for (t = 0; t < s->step.tokens_n; t++) {
        for (i = 0; i < c->half; i++) {
            at = (size_t) (t * c->half + i) * 2;
            assert_true(
                fabs(r.v[at] - c->scale * cos(s->pos[t] * freq[i])) < 2e-7);
            assert_true(
                fabs(r.v[at + 1] - c->scale * sin(s->pos[t] * freq[i])) < 2e-7);
        }
    }

    return r;
}

static kn_kv_t
cache_shape(const case_t *c)
{
    kn_kv_t kv;
    uint64_t half;

    /* Another layer's keys lie before and its values between. */
    half = type_bytes(
        c->type, (size_t) c->kv_heads * c->block_tokens * c->head_dim);
    memset(&kv, 0, sizeof(kv));
    kv.k_off = half;
    kv.v_off = 3 * half;
    kv.stride = 4 * half;
    kv.type = c->type;
    kv.block_tokens = c->block_tokens;
    kv.kv_heads = c->kv_heads;
    kv.head_dim = c->head_dim;

    return kv;
}

/* Where head h of token t's sequence lies at position pos. */
static size_t
cache_at(const sub_t *s, const kn_kv_t *kv, uint64_t off, uint32_t t,
    uint32_t pos, uint32_t h)
{
    const kn_row_t *r = &s->rows[s->row[t]];

    return s->blocks[r->block + pos / kv->block_tokens] * kv->stride + off
           + type_bytes(kv->type,
               ((size_t) h * kv->block_tokens + pos % kv->block_tokens)
                   * kv->head_dim);
}

/* Element i of head x, rotated as the row says. */
static double
rotated(const case_t *c, const float *x, const float *cs, uint32_t i)
{
    uint32_t pair, second, half = c->half;
    double a, b;

    if (i >= 2 * half) {
        return x[i];
    }

    if (c->halves) {
        pair = i % half;
        second = i / half;
        a = x[pair];
        b = x[pair + half];
    } else {
        pair = i / 2;
        second = i % 2;
        a = x[2 * pair];
        b = x[2 * pair + 1];
    }

    return second ? a * cs[2 * pair + 1] + b * cs[2 * pair]
                  : a * cs[2 * pair] - b * cs[2 * pair + 1];
}

static double
cache_tolerance(uint32_t type)
{
    return type == KN_F32 ? 3e-7 : type == KN_F16 ? 2e-3 : 1e-2;
}

/* What run_rope_store() gave the op, rows of the case. */
typedef struct {
    float *q, *k, *v, *cs;
} rope_in_t;

/*
 * Element i of token t's head h in the cache, at off, is expected there up to
 * its rounding.
 */
static float
cached(const sub_t *s, const kn_kv_t *kv, const char *cache, uint64_t off,
    uint32_t t, uint32_t h, uint32_t i, double expected)
{
    double v;

    v = weight_at(kv->type, cache + cache_at(s, kv, off, t, s->pos[t], h), i);
    assert_true(fabs(v - expected) < cache_tolerance(kv->type));

    return (float) v;
}

/* Token t's output, [q, its cached k, its cached v], checked on the way. */
static void
rope_token(const sub_t *s, const case_t *c, const kn_kv_t *kv,
    const rope_in_t *in, const char *cache, uint32_t t, float *out)
{
    uint32_t i, h, e, src, qw, kw;
    const float *cs;

    src = s->first + t;
    qw = c->heads * c->head_dim;
    kw = c->kv_heads * c->head_dim;
    cs = in->cs + src * c->half * 2;

    for (i = 0; i < qw; i++) {
        e = i % c->head_dim;
        assert_true(
            fabs(out[i] - rotated(c, in->q + src * qw + i - e, cs, e)) < 3e-7);
    }

    for (i = 0; i < kw; i++) {
        h = i / c->head_dim;
        e = i % c->head_dim;
        out[qw + i] = cached(s, kv, cache, kv->k_off, t, h, e,
            rotated(c, in->k + src * kw + i - e, cs, e));
        out[qw + kw + i] =
            cached(s, kv, cache, kv->v_off, t, h, e, in->v[src * kw + i]);
    }
}

static result_t
run_rope_store(sub_t *s, const case_t *c)
{
    kn_rope_store_t a;
    rope_in_t in;
    uint32_t t, qw, kw;
    result_t r;
    char *cache;
    float *q;
    size_t size, one, touched, j;

    memset(&a, 0, sizeof(a));
    qw = c->heads * c->head_dim;
    kw = c->kv_heads * c->head_dim;
    in.q = vectors(c->seed + 1, tokens_of(c), qw);
    in.k = vectors(c->seed + 2, tokens_of(c), kw);
    in.v = vectors(c->seed + 3, tokens_of(c), kw);
    in.cs = vectors(c->seed + 4, tokens_of(c), c->half * 2);

    a.q = put_rows(s, c, in.q, qw);
    a.k = put_rows(s, c, in.k, kw);
    a.v = put_rows(s, c, in.v, kw);
    a.cs = put_rows(s, c, in.cs, c->half * 2);
    a.heads = c->heads;
    a.half = c->half;
    a.halves = c->halves;
    a.kv = cache_shape(c);
    size = s->pool * a.kv.stride;
    a.kv.kv = put(s, NULL, size);
    call(s, OP_rope_store, &a);

    r.rows = s->step.tokens_n;
    r.width = qw + 2 * kw;
    r.v = need((size_t) r.rows * r.width * sizeof(float));
    q = get(s, a.q, (size_t) r.rows * qw * sizeof(float));
    cache = get(s, a.kv.kv, size);

    for (t = 0; t < r.rows; t++) {
        memcpy(r.v + t * r.width, q + t * qw, qw * sizeof(float));
        rope_token(s, c, &a.kv, &in, cache, t, r.v + t * r.width);
    }

    /* Nothing else in the cache has changed: all ones is a NaN. */
    one = type_bytes(c->type, 1);

    for (touched = 0, j = 0; j < size; j += one) {
        touched += memcmp(cache + j, "\xff\xff\xff\xff", one) != 0;
    }

    assert_int_equal(touched, (size_t) r.rows * 2 * kw);
    free(in.q);
    free(in.k);
    free(in.v);
    free(in.cs);
    free(q);
    free(cache);

    return r;
}

/* Keys and values of every sequence at its positions, NaN elsewhere. */
static char *
cache_fill(const sub_t *s, const case_t *c, const kn_kv_t *kv)
{
    uint32_t r, pos, h, t, end;
    uint64_t seed;
    char *cache;

    cache = need(s->pool * kv->stride);

    for (r = 0, t = 0; r < s->step.rows_n; r++) {
        end = s->rows[r].q_start + s->rows[r].q_len;

        for (pos = 0; pos < end; pos++) {
            for (h = 0; h < c->kv_heads; h++) {
                /* The same whether the row is here whole or in part. */
                seed = c->seed + 1
                       + (s->blocks[s->rows[r].block] * 1000ull + pos) * 64 + h;
                seed *= 0x9E3779B97F4A7C15ull;
                rnd_weights(&seed, c->type,
                    cache + cache_at(s, kv, kv->k_off, t, pos, h), c->head_dim);
                rnd_weights(&seed, c->type,
                    cache + cache_at(s, kv, kv->v_off, t, pos, h), c->head_dim);
            }
        }

        t += s->rows[r].q_len;
    }

    return cache;
}

/* Attention of one head of token t, in the plainest way. */
static void
attn_naive(const sub_t *s, const kn_attn_t *a, const char *cache,
    const float *q, const float *sink, uint32_t t, uint32_t head, double *y)
{
    uint32_t pos, i, h, begin;
    double w[1000], sum;
    const char *p;

    h = head / (a->heads / a->kv.kv_heads);
    begin = 0;

    if (a->window > 0 && s->pos[t] >= a->window) {
        begin = s->pos[t] - a->window + 1;
    }

    for (sum = sink ? exp(*sink) : 0, pos = begin; pos <= s->pos[t]; pos++) {
        p = cache + cache_at(s, &a->kv, a->kv.k_off, t, pos, h);

        for (w[pos] = 0, i = 0; i < a->kv.head_dim; i++) {
            w[pos] += q[i] * weight_at(a->kv.type, p, i);
        }

        w[pos] *= a->scale;
        w[pos] = exp(a->cap > 0 ? a->cap * tanh(w[pos] / a->cap) : w[pos]);
        sum += w[pos];
    }

    for (i = 0; i < a->kv.head_dim; i++) {
        for (y[i] = 0, pos = begin; pos <= s->pos[t]; pos++) {
            p = cache + cache_at(s, &a->kv, a->kv.v_off, t, pos, h);
            y[i] += w[pos] / sum * weight_at(a->kv.type, p, i);
        }
    }
}

static result_t
run_attn(sub_t *s, const case_t *c)
{
    kn_attn_t a;
    float *q, *sinks;
    char *cache;
    double y[128];
    uint32_t t, h, i, width;
    size_t at;
    result_t r;

    memset(&a, 0, sizeof(a));
    width = c->heads * c->head_dim;
    q = vectors(c->seed + 9, tokens_of(c), width);
    a.kv = cache_shape(c);
    cache = cache_fill(s, c, &a.kv);
    a.kv.kv = put(s, cache, s->pool * a.kv.stride);
    a.q = put_rows(s, c, q, width);
    a.y = put(s, NULL, s->step.tokens_n * width * sizeof(float));
    a.heads = c->heads;
    a.scale = 1.0f / sqrtf((float) c->head_dim);
    a.window = c->window;
    a.cap = c->cap;
    sinks = vectors(c->seed + 3, 1, c->heads);

    if (c->sinks) {
        a.sinks = put(s, sinks, c->heads * sizeof(float));
    }

    call(s, OP_attn, &a);
    r = get_rows(s, c, a.y, width);

    for (t = 0; t < s->step.tokens_n; t++) {
        for (h = 0; h < c->heads; h++) {
            at = (size_t) (s->first + t) * width + h * c->head_dim;
            attn_naive(
                s, &a, cache, q + at, c->sinks ? sinks + h : NULL, t, h, y);

            for (i = 0; i < c->head_dim; i++) {
                at = (size_t) t * width + h * c->head_dim + i;
                assert_true(fabs(r.v[at] - y[i]) < 3e-6);
            }
        }
    }

    free(q);
    free(sinks);
    free(cache);

    return r;
}

static result_t
run_act_mul(sub_t *s, const case_t *c)
{
    kn_act_mul_t a = {{0}, {0}, c->k, c->which, c->act};
    float *gate, *up;

    gate = vectors(c->seed + 1, op_rows(c), c->k);
    up = vectors(c->seed + 2, op_rows(c), c->k);
    a.gate = put_rows(s, c, gate, c->k);
    a.up = put_rows(s, c, up, c->k);
    call(s, OP_act_mul, &a);
    free(gate);
    free(up);

    return get_rows(s, c, a.gate, c->k);
}

static result_t
run_router(sub_t *s, const case_t *c)
{
    kn_router_t a = {{0}, {0}, {0}, c->k, 1 + (c->k - 1) / 3, c->add, c->which};
    float *logits, *w;
    uint32_t i, j, e, rows, larger, *ids;
    double sum, taken, v;
    const float *l;
    result_t r;

    rows = c->only == ALL ? op_rows(c) : 1;
    logits = vectors(c->seed + 1, op_rows(c), c->k);
    a.logits = put_rows(s, c, logits, c->k);
    a.ids = put(s, NULL, (size_t) rows * a.used * 4);
    a.weights = put(s, NULL, (size_t) rows * a.used * 4);
    call(s, OP_router, &a);
    ids = get(s, a.ids, (size_t) rows * a.used * 4);
    w = get(s, a.weights, (size_t) rows * a.used * 4);
    r = (result_t){need((size_t) rows * a.used * 8), rows, 2 * a.used};

    for (i = 0; i < rows * a.used; i++) {
        l = logits + (c->only == ALL ? i / a.used : c->only) * c->k;

        for (sum = 0, larger = 0, e = 0; e < c->k; e++) {
            sum += exp(l[e]);
            larger += l[e] > l[ids[i]] || (l[e] == l[ids[i]] && e < ids[i]);
        }

        for (taken = 0, j = i / a.used * a.used; j / a.used == i / a.used;
             j++) {
            taken += exp(l[ids[j]]);
        }

        v = exp(l[ids[i]]) / (c->add ? taken : sum);
        assert_true(larger == i % a.used && fabs(w[i] - v) < 1e-6);
        r.v[i * 2] = (float) ids[i];
        r.v[i * 2 + 1] = w[i];
    }

    free(logits);
    free(ids);
    free(w);

    return r;
}

/* The experts' products are those of matmul, whose own test judges them. */
static result_t
run_moe_ffn(sub_t *s, const case_t *c)
{
    enum { EXPERTS = 5, USED = 3 };
    const kn_w_t *w[3][EXPERTS];
    kn_moe_ffn_t a = {w[0], w[1], w[2], {0}, {0}, {0}, {0}, {0}, c->k, c->n,
        EXPERTS, USED, c->which, c->act};
    uint32_t i, rows = c->only == ALL ? op_rows(c) : 1, ids[TOKENS_MAX * USED];
    float *x = vectors(c->seed + 9, op_rows(c), c->k), *weights;
    case_t one = *c;

    for (i = 0; i < 3 * EXPERTS; i++) {
        one.seed = c->seed + 20 * i;
        one.n = i < 2 * EXPERTS ? c->n : c->k;
        one.k = i < 2 * EXPERTS ? c->k : c->n;
        w[i / EXPERTS][i % EXPERTS] = weight(s, &one);
    }

    for (i = 0; i < op_rows(c) * USED; i++) {
        ids[i] = (i / USED * 2 + i % USED) % EXPERTS;
    }

    weights = vectors(c->seed + 8, op_rows(c), USED);
    i = c->only == ALL ? 0 : c->only;
    a.x = put_rows(s, c, x, c->k);
    a.ids = put(s, ids + i * USED, (size_t) rows * USED * 4);
    a.weights = put_rows(s, c, weights, USED);
    a.mid = put(s, NULL, (size_t) rows * USED * c->n * 4);
    a.y = put(s, NULL, (size_t) rows * c->k * 4);
    call(s, OP_moe_ffn, &a);
    free(x);
    free(weights);

    return get_rows(s, c, a.y, c->k);
}

static result_t
run_gather(sub_t *s, const case_t *c)
{
    kn_gather_t a = {{0}, {0}, c->k};
    float *x;
    uint32_t i;
    result_t r;

    x = vectors(c->seed + 1, tokens_of(c), c->k);
    a.x = put(s, x + s->first * c->k, s->step.tokens_n * c->k * sizeof(float));
    a.y = put(s, NULL, s->step.outs_n * c->k * sizeof(float));
    call(s, OP_gather, &a);
    r = get_rows(s, c, a.y, c->k);

    for (i = 0; i < r.rows; i++) {
        assert_memory_equal(r.v + i * c->k,
            x + (s->first + s->outs[i].tok) * c->k, c->k * sizeof(float));
    }

    free(x);

    return r;
}

/* sample_out_t is words, which are compared as such. */
static result_t
run_sample(sub_t *s, const case_t *c)
{
    kn_sample_t a = {{0}, {0}, c->k};
    float *logits;
    uint32_t i, n;

    logits = vectors(c->seed + 1, op_rows(c), c->k);
    logits[(op_rows(c) - 1) * c->k] = NAN;

    for (i = 0; i < s->step.outs_n; i++) {
        n = c->only == ALL ? i : c->only;
        s->params[i].temperature = n % 3 ? 1.5f : 0;
        s->params[i].top_p = n % 2 ? 0.9f : 1;
        s->params[i].top_k = n % 5 ? 0 : 7;
        s->params[i].repetition_penalty = n % 4 ? 1 : 1.3f;
        s->params[i].tops = n % 21;
        s->params[i].seed = n;
        s->outs[i].known_n = n % TOKENS_MAX;
        s->outs[i].prompt_n = n / 2;
    }

    a.logits = put_rows(s, c, logits, c->k);
    a.out = put(s, NULL, s->step.outs_n * sizeof(sample_out_t));
    call(s, OP_sample, &a);
    free(logits);

    return get_rows(s, c, a.out, sizeof(sample_out_t) / sizeof(float));
}

/* Largest relative L2 by which tables may differ; 0 asks for equal bits. */
typedef struct {
    const char *name;
    result_t (*run)(sub_t *s, const case_t *c);
    double tolerance;
} op_t;

#define TOLERANCE_embed       0
#define TOLERANCE_rmsnorm     1e-6
#define TOLERANCE_add         0
#define TOLERANCE_matmul      1e-6
#define TOLERANCE_rope_angles 0
#define TOLERANCE_rope_store  1e-6
#define TOLERANCE_attn        2e-6
#define TOLERANCE_act_mul     1e-6
#define TOLERANCE_router      1e-6
#define TOLERANCE_moe_ffn     3e-6
#define TOLERANCE_gather      0
#define TOLERANCE_sample      0

static const op_t ops[OPS] = {
#define X(op, doc) {#op, run_##op, TOLERANCE_##op},
    KERNELS(X)
#undef X
};

static result_t
run(const op_t *op, const char *isa, uint32_t threads, const case_t *c)
{
    static sub_t s;
    result_t r;

    sub_open(&s, isa, threads);
    sub_step(&s, c);
    r = op->run(&s, c);
    s.kn->close(s.dev);

    return r;
}

static void
check_close(const op_t *op, const result_t *a, const result_t *b)
{
    double diff, size;
    size_t i;

    assert_int_equal(a->rows, b->rows);
    assert_int_equal(a->width, b->width);

    if (op->tolerance == 0) {
        assert_memory_equal(
            a->v, b->v, (size_t) a->rows * a->width * sizeof(float));
        return;
    }

    for (diff = 0, size = 0, i = 0; i < (size_t) a->rows * a->width; i++) {
        diff += ((double) a->v[i] - b->v[i]) * ((double) a->v[i] - b->v[i]);
        size += (double) a->v[i] * a->v[i];
    }

    /* Written so that NaN fails. */
    if (!(sqrt(diff) <= op->tolerance * sqrt(size))) {
        fail_msg("%s: relative error %g, allowed %g", op->name,
            sqrt(diff / size), op->tolerance);
    }
}

/* One table at one case: against the oracle's result, threads, rows alone. */
static void
check_isa(
    const op_t *op, const char *isa, const case_t *c, const result_t *oracle)
{
    result_t one, two, alone;
    case_t single = *c;
    uint32_t i;

    one = run(op, isa, 1, c);
    check_close(op, oracle, &one);

    two = run(op, isa, 2, c);
    assert_memory_equal(
        one.v, two.v, (size_t) one.rows * one.width * sizeof(float));

    /* In long batches some of the rows, the last one too. */
    for (i = 0; i<one.rows; i += one.rows - i> 18 ? 7 : 1) {
        single.only = i;
        alone = run(op, isa, 1, &single);
        assert_int_equal(alone.rows, 1);
        assert_memory_equal(
            alone.v, one.v + (size_t) i * one.width, one.width * sizeof(float));
        free(alone.v);
    }

    free(one.v);
    free(two.v);
}

/* Batches: one token, one prompt, chunks and decoding tokens together. */
static void
shape(case_t *c, uint32_t i)
{
    static const struct {
        uint32_t n, q_start[ROWS_MAX], q_len[ROWS_MAX];
    } list[] = {
        {1, {0}, {1}},
        {1, {0}, {17}},
        {2, {15, 16}, {1, 1}},
        {4, {0, 63, 300, 5}, {2, 1, 1, 4}},
        {3, {254, 0, 600}, {5, 8, 5}},
        {1, {31}, {2}},
        {3, {0, 0, 0}, {30, 40, 9}},
    };

    i %= sizeof(list) / sizeof(list[0]);
    c->rows_n = list[i].n;
    memcpy(c->q_start, list[i].q_start, sizeof(c->q_start));
    memcpy(c->q_len, list[i].q_len, sizeof(c->q_len));
}

/* Sizes of heads that the op and the cache allow: rope needs no whole head. */
static case_t
make_case(int op, uint32_t i)
{
    static const uint32_t dims[] = {8, 16, 20, 33, 64, 80, 128};
    static const uint32_t groups[] = {1, 3, 8};
    static const uint32_t blocks[] = {16, 4, 7, 32};
    static const uint32_t widths[] = {1, 5, 172, 64, 300, 31, 33, 256};
    static const uint32_t windows[] = {0, 1, 33, 0, 300};
    static const uint32_t outputs[] = {1, 2, 7, 63, 64, 65, 130};
    case_t c;
    uint32_t block;

    memset(&c, 0, sizeof(c));
    shape(&c, i);
    c.only = ALL;
    c.seed = i * 7919 + 17;
    c.which = op == OP_gather || op == OP_sample ? KN_OUTS
              : op == OP_rmsnorm || op == OP_add || op == OP_matmul
                      || op == OP_act_mul || op == OP_router || op == OP_moe_ffn
                  ? i / 3 % 2 ? KN_OUTS : KN_TOKENS
                  : KN_TOKENS;
    c.scale = i % 4 == 3 ? 0.37f : 1;
    c.cap = i / 4 % 2 ? 0.8f : 0;

    if (op == OP_attn || op == OP_rope_store) {
        c.type = i % KN_KV_TYPES;
        c.head_dim = dims[i % 7];
        c.kv_heads = 1 + i % 2;
        c.heads = c.kv_heads * groups[i / 2 % 3];
        c.half = i % 4 ? c.head_dim / 2 : c.head_dim / 4;
        c.half = i % 5 == 2 ? 0 : c.half;
        c.halves = i / 2 % 2;
        c.window = windows[i / 2 % 5];
        c.sinks = i / 8 % 2;
        c.block_tokens = blocks[i / 3 % 4];
        c.n = c.k = 1;
        return c;
    }

    c.type = i % KN_TYPES;
    block = type_elems(c.type);
    c.k = (widths[i % 8] + block - 1) / block * block;
    c.n = op == OP_moe_ffn ? c.k : outputs[i % 7];
    c.half = 1 + i % 64;
    c.block_tokens = 16;
    c.add = i % 2;
    c.same = i / 2 % 3 == 1;
    c.parts = i / 4 % 3 ? 1 : 3;
    c.act = i / 2 % KN_ACTS;

    return c;
}

static const struct {
    const char *isa;
    int op;
} runs[] = {
#define X(name, doc) {"ref", OP_##name},
    KERNELS(X)
#undef X
#define X(name, doc) {"avx2", OP_##name},
        KERNELS(X)
#undef X
#define X(name, doc) {"avx512", OP_##name},
            KERNELS(X)
#undef X
};

static void
test_op(void **state)
{
    const char *isa;
    const op_t *op;
    result_t oracle;
    char err[200];
    case_t c;
    uint32_t i;
    int r;

    r = *(const int *) *state;
    isa = runs[r].isa;
    op = &ops[runs[r].op];

    if (kernels_cpu(isa, err, sizeof(err)) == NULL) {
        print_message("%s: this machine lacks it\n", isa);
        skip();
    }

    for (i = 0; i < 2 * KN_TYPES; i++) {
        c = make_case(runs[r].op, i);
        oracle = run(op, "ref", 1, &c);
        check_isa(op, isa, &c, &oracle);
        free(oracle.v);
    }
}

int
main(void)
{
    enum { RUNS = sizeof(runs) / sizeof(runs[0]) };
    struct CMUnitTest tests[RUNS];
    char names[RUNS][64];
    int i, number[RUNS];

    for (i = 0; i < RUNS; i++) {
        number[i] = i;
        snprintf(names[i], sizeof(names[i]), "%s %s", runs[i].isa,
            ops[runs[i].op].name);
        tests[i] =
            (struct CMUnitTest){names[i], test_op, NULL, NULL, &number[i]};
    }

    return cmocka_run_group_tests_name("ops", tests, NULL, NULL);
}
