/*
 * The ops of the paged cache for the differential runner: rope_store and attn,
 * which look at a cache that is NaN wherever no sequence of the step has
 * anything, and copy.
 */
#ifndef CACHE_H
#define CACHE_H

#include "rig.h"

static inline kn_kv_t
cache_shape(const case_t *c)
{
    kn_kv_t kv;
    uint64_t keys, values, rows = (uint64_t) c->kv_heads * c->block_tokens;

    /* Another layer's keys lie before and its values between. */
    keys = type_bytes(c->type, rows * c->head_dim);
    values = type_bytes(c->type, rows * c->v_dim);
    memset(&kv, 0, sizeof(kv));
    kv.k_off = keys;
    kv.v_off = 2 * keys + values;
    kv.stride = 2 * (keys + values);
    kv.group = c->group;
    kv.type = c->type;
    kv.block_tokens = c->block_tokens;
    kv.kv_heads = c->kv_heads;
    kv.head_dim = c->head_dim;
    kv.v_dim = c->v_dim;
    kv.inside = c->inside;

    return kv;
}

/* Where, after off, token t's sequence has position pos and head h. */
static inline size_t
cache_at(const sub_t *s, const kn_kv_t *kv, uint64_t off, uint32_t width,
    uint32_t t, uint32_t pos, uint32_t h)
{
    const kn_blocks_t *b = &s->rows[s->row[t]].blocks[kv->group];
    uint32_t number = pos / kv->block_tokens - b->first;

    assert_true(number < b->n);
    return s->blocks[b->at + number] * kv->stride + off
           + type_bytes(kv->type,
               ((size_t) h * kv->block_tokens + pos % kv->block_tokens)
                   * width);
}

static inline size_t
key_at(const sub_t *s, const kn_kv_t *kv, uint32_t t, uint32_t pos, uint32_t h)
{
    return cache_at(s, kv, kv->k_off, kv->head_dim, t, pos, h);
}

static inline size_t
value_at(
    const sub_t *s, const kn_kv_t *kv, uint32_t t, uint32_t pos, uint32_t h)
{
    return kv->inside ? key_at(s, kv, t, pos, h)
                            + type_bytes(kv->type, kv->head_dim - kv->v_dim)
                      : cache_at(s, kv, kv->v_off, kv->v_dim, t, pos, h);
}

/* Element i of head x, rotated as the row says. */
static inline double
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

static inline double
cache_tolerance(uint32_t type)
{
    /* Q8_0: half of a factor and its own rounding, of numbers up to 2 */
    return type == KN_F32    ? 3e-7
           : type == KN_F16  ? 2e-3
           : type == KN_Q8_0 ? 9e-3
                             : 1e-2;
}

/* What run_rope_store() gave the op, rows of the case. */
typedef struct {
    float *q, *k, *v, *cs;
} rope_in_t;

/* Element i of what lies at p is expected there up to its rounding. */
static inline float
cached(const kn_kv_t *kv, const char *p, uint32_t i, double expected)
{
    double v = weight_at(kv->type, p, i);

    assert_true(fabs(v - expected) < cache_tolerance(kv->type));

    return (float) v;
}

/* Token t's output, [q, its cached k, its cached v], checked on the way. */
static inline void
rope_token(const sub_t *s, const case_t *c, const kn_kv_t *kv,
    const rope_in_t *in, const char *cache, uint32_t t, float *out)
{
    uint32_t i, h, e, src, qw, kw, vw, own = kn_kv_own(kv);
    const float *cs;

    src = s->first + t;
    qw = c->heads * c->head_dim;
    kw = c->kv_heads * own;
    vw = c->kv_heads * c->v_dim;
    cs = in->cs + src * c->half * 2;

    for (i = 0; i < qw; i++) {
        e = i % c->head_dim;
        assert_true(
            fabs(out[i] - rotated(c, in->q + src * qw + i - e, cs, e)) < 3e-7);
    }

    for (i = 0; i < kw; i++) {
        h = i / own;
        e = i % own;
        out[qw + i] = cached(kv, cache + key_at(s, kv, t, s->pos[t], h), e,
            rotated(c, in->k + src * kw + i - e, cs, e));
    }

    for (i = 0; i < vw; i++) {
        h = i / c->v_dim;
        e = i % c->v_dim;
        out[qw + kw + i] = cached(kv, cache + value_at(s, kv, t, s->pos[t], h),
            e, in->v[src * vw + i]);
    }
}

static inline result_t
run_rope_store(sub_t *s, const case_t *c)
{
    kn_rope_store_t a;
    rope_in_t in;
    uint32_t t, qw, kw, vw, elems;
    result_t r;
    char *cache, none[34];
    float *q;
    size_t size, one, touched, j;

    memset(&a, 0, sizeof(a));
    a.kv = cache_shape(c);
    qw = c->heads * c->head_dim;
    kw = c->kv_heads * kn_kv_own(&a.kv);
    vw = c->kv_heads * c->v_dim;
    in.q = vectors(c->seed + 1, tokens_of(c), qw);
    in.k = vectors(c->seed + 2, tokens_of(c), kw);
    in.v = vectors(c->seed + 3, tokens_of(c), vw);
    in.cs = vectors(c->seed + 4, tokens_of(c), c->half * 2);

    a.q = put_rows(s, c, in.q, qw);
    a.k = put_rows(s, c, in.k, kw);
    a.v = put_rows(s, c, in.v, vw);
    a.cs = put_rows(s, c, in.cs, c->half * 2);
    a.heads = c->heads;
    a.half = c->half;
    a.halves = c->halves;
    size = s->pool * a.kv.stride;
    a.kv.kv = put(s, NULL, size);
    call(s, OP_rope_store, &a);

    r.rows = s->step.tokens_n;
    r.width = qw + kw + vw;
    r.v = need((size_t) r.rows * r.width * sizeof(float));
    q = get(s, a.q, (size_t) r.rows * qw * sizeof(float));
    cache = get(s, a.kv.kv, size);

    for (t = 0; t < r.rows; t++) {
        memcpy(r.v + t * r.width, q + t * qw, qw * sizeof(float));
        rope_token(s, c, &a.kv, &in, cache, t, r.v + t * r.width);
    }

    /* Nothing else in the cache has changed: all ones is a NaN. */
    memset(none, 0xff, sizeof(none));
    elems = kn_kv_block(c->type);
    one = type_bytes(c->type, elems);

    for (touched = 0, j = 0; j < size; j += one) {
        touched += memcmp(cache + j, none, one) != 0 ? elems : 0;
    }

    assert_int_equal(touched, (size_t) r.rows * (kw + vw));
    free(in.q);
    free(in.k);
    free(in.v);
    free(in.cs);
    free(q);
    free(cache);

    return r;
}

/* Keys and values of every sequence in its blocks, NaN elsewhere. */
static inline char *
cache_fill(const sub_t *s, const case_t *c, const kn_kv_t *kv)
{
    uint32_t r, pos, h, t, end;
    uint64_t seed;
    char *cache;
    const kn_blocks_t *b;

    cache = need(s->pool * kv->stride);

    for (r = 0, t = 0; r < s->step.rows_n; r++) {
        end = s->rows[r].q_start + s->rows[r].q_len;
        b = &s->rows[r].blocks[kv->group];

        for (pos = b->first * c->block_tokens; pos < end; pos++) {
            for (h = 0; h < c->kv_heads; h++) {
                /* The same whether the row is here whole or in part. */
                seed =
                    c->seed + 1 + (s->blocks[b->at] * 1000ull + pos) * 64 + h;
                seed *= 0x9E3779B97F4A7C15ull;
                rnd_weights(&seed, c->type, cache + key_at(s, kv, t, pos, h),
                    c->head_dim);
                rnd_weights(&seed, c->type, cache + value_at(s, kv, t, pos, h),
                    c->v_dim);
            }
        }

        t += s->rows[r].q_len;
    }

    return cache;
}

/*
 * What CUDA's may be off, relative L2: on tensor cores queries and weights are
 * rounded to the cache's type.
 */
static inline double
attn_rounding(uint32_t type)
{
    return type == KN_BF16 ? 8e-3 : type == KN_F16 ? 1e-3 : 0;
}

/* Attention of one head of token t, in the plainest way. */
static inline void
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
        p = cache + key_at(s, &a->kv, t, pos, h);

        for (w[pos] = 0, i = 0; i < a->kv.head_dim; i++) {
            w[pos] += q[i] * weight_at(a->kv.type, p, i);
        }

        w[pos] *= a->scale;
        w[pos] = exp(a->cap > 0 ? a->cap * tanh(w[pos] / a->cap) : w[pos]);
        sum += w[pos];
    }

    for (i = 0; i < a->kv.v_dim; i++) {
        for (y[i] = 0, pos = begin; pos <= s->pos[t]; pos++) {
            p = cache + value_at(s, &a->kv, t, pos, h);
            y[i] += w[pos] / sum * weight_at(a->kv.type, p, i);
        }
    }
}

static inline result_t
run_attn(sub_t *s, const case_t *c)
{
    kn_attn_t a;
    float *q, *sinks;
    char *cache;
    double y[CPU_HEAD_DIM_MAX], most;
    uint32_t t, h, i, width, out;
    size_t at;
    result_t r;

    memset(&a, 0, sizeof(a));
    width = c->heads * c->head_dim;
    out = c->heads * c->v_dim;
    q = vectors(c->seed + 9, tokens_of(c), width);
    a.kv = cache_shape(c);
    cache = cache_fill(s, c, &a.kv);
    a.kv.kv = put(s, cache, s->pool * a.kv.stride);
    a.q = put_rows(s, c, q, width);
    a.y = put(s, NULL, s->step.tokens_n * out * sizeof(float));
    a.heads = c->heads;
    a.scale = 1.0f / sqrtf((float) c->head_dim);
    a.window = c->window;
    a.cap = c->cap;
    most = s->isa != NULL ? 3e-6 : 3e-6 + 5 * attn_rounding(c->type);
    sinks = vectors(c->seed + 3, 1, c->heads);

    if (c->sinks) {
        a.sinks = put(s, sinks, c->heads * sizeof(float));
    }

    call(s, OP_attn, &a);
    r = get_rows(s, c, a.y, out);

    for (t = 0; t < s->step.tokens_n; t++) {
        for (h = 0; h < c->heads; h++) {
            at = (size_t) (s->first + t) * width + h * c->head_dim;
            attn_naive(
                s, &a, cache, q + at, c->sinks ? sinks + h : NULL, t, h, y);

            for (i = 0; i < c->v_dim; i++) {
                at = (size_t) t * out + h * c->v_dim + i;
                assert_true(fabs(r.v[at] - y[i]) < most);
            }
        }
    }

    free(q);
    free(sinks);
    free(cache);

    return r;
}

/* As many blocks as the case has tokens, of c->k words, from one arena to
 * another of other size; both numbered as if at random. */
static inline result_t
run_copy(sub_t *s, const case_t *c)
{
    enum { SRC = 128, DST = 256 };
    uint32_t from[TOKENS_MAX], to[TOKENS_MAX], i, n = tokens_of(c), touched = 0;
    size_t block = (size_t) c->k * sizeof(float);
    float *src = vectors(c->seed + 1, SRC, c->k), *dst;
    kn_copy_t a;
    result_t r;

    for (i = 0; i < n; i++) {
        from[i] = (i * 37 + c->seed) % SRC;
        to[i] = (i * 151 + c->seed) % DST;
    }

    memset(&a, 0, sizeof(a));
    a.src = put(s, src, SRC * block);
    a.dst = s->kn->alloc_host(s->dev, DST * block + CANARY);
    assert_true(a.dst.a != 0);
    dst = need(DST * block + CANARY);
    s->kn->copy_in(s->dev, a.dst, dst, DST * block + CANARY);
    free(dst);
    a.stride = block;
    a.from = from + (c->only == ALL ? 0 : c->only);
    a.to = to + (c->only == ALL ? 0 : c->only);
    a.n = c->only == ALL ? n : 1;
    s->kn->copy(s->dev, &a);

    while (s->kn->copied(s->dev, 0) == KN_COPY_RUNS) { /* on its way */
    }

    assert_int_equal(s->kn->copied(s->dev, 0), KN_COPY_DONE);
    dst = get(s, a.dst, DST * block);
    r.rows = a.n;
    r.width = c->k;
    r.v = need(a.n * block);

    for (i = 0; i < a.n; i++) {
        memcpy(r.v + (size_t) i * c->k, dst + (size_t) a.to[i] * c->k, block);
        assert_memory_equal(
            r.v + (size_t) i * c->k, src + (size_t) a.from[i] * c->k, block);
    }

    /* nothing else has changed: all ones is a NaN */
    for (i = 0; i < DST; i++) {
        touched += !isnan(dst[(size_t) i * c->k]);
    }

    assert_int_equal(touched, a.n);
    free(src);
    free(dst);

    return r;
}

#endif
