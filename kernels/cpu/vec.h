/*
 * The small functions over vectors: the text that is one at every width.
 *
 * DESIGN.  A product is computed in tiles of R weight rows by C activation
 * rows, each output having one vector of partial sums in a register.  A weight
 * is turned into floats once per tile, which is exact for every plain type (a
 * half times a small integer fits a float), so they are one text.  The packed
 * types, which take more work to unpack, are vec_packed.h's;
 * attention's and the cache's functions are vec_attn.h's and vec_cache.h's.
 *
 * The order: partial sum l of an output takes the terms l, l + LANES,
 * l + 2 LANES, ... in turn, each by one fused multiply-add; a last vector that
 * k does not fill is padded with zeros; then the sums are added as reduce()
 * says.  None of that knows the tile's size, so whichever tile computes an
 * output, its bits are the same.
 *
 * More outputs at a time, not more sums per output, keep the multipliers busy:
 * an addition takes four cycles, and a tile has eight of them or more on the
 * way.
 *
 * Included once and last by the file of an instruction set, which says before:
 *
 *      ISA, ISA_NAME     the table made here, and its name
 *      PANELS_OF         the set's products over panels, or NULL
 *      ALWAYS            how a function is made part of its callers
 *      LANES             floats of a vector
 *      TILE_R            weight rows by four rows of x that fit the registers:
 *                        4, or 2
 *
 *      vf_t vd_t vh_t    LANES floats, LANES / 2 doubles, LANES half words
 *      vi_t              2 * LANES half words, or as many bytes of anything
 *      V(op) D(op) INT(op)     the intrinsic of that name over vf_t, vd_t, vi_t
 *
 *      fold4(v) fold2(d)       upper half added to lower, until v has four
 *                              lanes, d two
 *      from_f16(h) from_bf16(h) to_f16(v)    vh_t to vf_t and back
 *      low(v) high(v)          half of v, as doubles
 *      nearest(v)              rounded to whole numbers, halves to even
 *      scale_by(v, n)          v * 2^n: n whole, the result a normal number
 *
 *      load_halves(p)          LANES half words
 *      load_some_halves(p, n)  the first n <= LANES, zeros after; like all the
 *                              following it touches no memory beyond
 *      load_floats(p, n) store_floats(p, v, n)
 *      first(v, n)             the first n lanes of v, zeros after
 *      gather(p, step, at)     vi_t of the 16 bytes at p[0] + at, p[step] + at,
 *                              p[2 * step] + at, ...
 *      halves_low(i) halves_high(i)    vi_t's, as vh_t
 *      as_floats(i)            its bits
 *      max_floats(v, top, n)   top, its first n lanes the larger ones of both
 *
 *      to_floats(q)            the first LANES of sixteen bytes, signed
 *      scale_at(type, p)       what load_quants() needs of the block that
 *                              begins at p; anything for plain types
 *      load_quants(type, p, u, d)      elements u to u + LANES - 1 of it; u is
 *                              as in load(), d what scale_at() gave
 */
#ifndef VEC_H
#define VEC_H

#include "cpu.h"

#include <assert.h>
#include <immintrin.h>
#include <math.h>
#include <string.h>

/* Elements of the step that loops take through k. */
#define STEP 32

/* Bytes of STEP elements. */
ALWAYS size_t
step_bytes(uint32_t type)
{
#define X(name, elems, bytes) (STEP / (elems)) * (bytes),
    static const uint8_t size[] = {KN_PLAIN_LIST(X)};
#undef X

    return size[type];
}

/*
 * Asks for the memory of a step in a row yet to come.  A row is often shorter
 * than what the processor's own prefetcher needs to see before it runs ahead.
 * Into the second cache, because two tiles of rows and x are more than the
 * first one holds; but for the smallest type, where they are not.  May name
 * any address.
 */
ALWAYS void
prefetch(uint32_t type, uintptr_t p)
{
    if (type == KN_Q4_0) {
        _mm_prefetch((const char *) p, _MM_HINT_T0);
        return;
    }

    _mm_prefetch((const char *) p, _MM_HINT_T1);

    if (step_bytes(type) > 64) {
        _mm_prefetch((const char *) (p + 64), _MM_HINT_T1);
    }
}

ALWAYS float
reduce(vf_t v)
{
    __m128 s = fold4(v);

    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    s = _mm_add_ss(s, _mm_movehdup_ps(s));

    return _mm_cvtss_f32(s);
}

/* Four sums, each with the bits of reduce(). */
ALWAYS __m128
reduce4(const vf_t *v, size_t step)
{
    __m128 s[4], lo, hi;
    uint32_t i;

    for (i = 0; i < 4; i++) {
        s[i] = fold4(v[i * step]);
    }

    lo = _mm_add_ps(_mm_unpacklo_ps(s[0], s[1]), _mm_unpackhi_ps(s[0], s[1]));
    hi = _mm_add_ps(_mm_unpacklo_ps(s[2], s[3]), _mm_unpackhi_ps(s[2], s[3]));

    return _mm_add_ps(_mm_movelh_ps(lo, hi), _mm_movehl_ps(hi, lo));
}

ALWAYS double
sum_doubles(vd_t v)
{
    __m128d s = fold2(v);

    return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
}

ALWAYS vd_t
add_squares(vd_t s, vd_t v)
{
    return D(fmadd)(v, v, s);
}

/*
 * Elements u to u + LANES - 1 from p on, which begins a block; u is a multiple
 * of LANES, below STEP in types with blocks.  d is what scale_at() gave.
 */
ALWAYS vf_t
load(uint32_t type, const char *p, uint32_t u, vf_t d)
{
    switch (type) {

    case KN_F32:
        return V(loadu)((const float *) (p + (size_t) u * 4));

    case KN_F16:
        return from_f16(load_halves(p + (size_t) u * 2));

    case KN_BF16:
        return from_bf16(load_halves(p + (size_t) u * 2));

    default:
        return load_quants(type, p, u, d);
    }
}

/*
 * The first n <= LANES of them, zeros after; nothing beyond is read.  Types
 * with blocks have no such rest.
 */
ALWAYS vf_t
load_part(uint32_t type, const char *w, uint32_t e, uint32_t n)
{
    vh_t h;

    if (type == KN_F32) {
        return load_floats((const float *) (w + (size_t) e * 4), n);
    }

    h = load_some_halves(w + (size_t) e * 2, n);

    return type == KN_F16 ? from_f16(h) : from_bf16(h);
}

/* The sums of a tile to their places. */
ALWAYS void
finish(const cpu_mm_t *a, uint32_t i, uint32_t j, uint32_t R, uint32_t C,
    vf_t acc[4][4])
{
    float y[4];
    uint32_t r, c;

    for (c = 0; R == 4 && c < C; c++) {
        _mm_storeu_ps(a->y + (i + c) * a->ldy + j, reduce4(&acc[0][c], 4));
    }

    for (r = 0; R < 4 && r < R; r++) {
        if (C == 4) {
            _mm_storeu_ps(y, reduce4(acc[r], 1));
        }

        for (c = 0; c < C; c++) {
            a->y[(i + c) * a->ldy + j + r] = C == 4 ? y[c] : reduce(acc[r][c]);
        }
    }
}

/*
 * Outputs [i, i + C) by [j, j + R).  type, R and C are constants wherever this
 * is inlined, and the loops over them vanish.
 */
ALWAYS void
tile(const cpu_mm_t *a, uint32_t i, uint32_t j, uint32_t type, uint32_t R,
    uint32_t C)
{
    const char *w[4];
    const float *x[4];
    vf_t acc[4][4], d[4], v, t[4];
    uint32_t e, u, r, c;
    size_t at, ahead = R * a->stride;

    for (r = 0; r < R; r++) {
        w[r] = (const char *) a->w + (j + r) * a->stride;
        for (c = 0; c < C; c++) {
            acc[r][c] = V(setzero)();
        }
    }

    for (c = 0; c < C; c++) {
        x[c] = a->x + (i + c) * a->ldx;
    }

    at = 0;

    for (e = 0; e + STEP <= a->k; e += STEP) {
        for (r = 0; r < R; r++) {
            d[r] = scale_at(type, w[r] + at);
            if (i == 0) {
                prefetch(type, (uintptr_t) w[r] + at + ahead);
            }
        }

        for (u = 0; u < STEP; u += LANES) {
            for (c = 0; c < C; c++) {
                t[c] = V(loadu)(x[c] + e + u);
            }

            for (r = 0; r < R; r++) {
                v = load(type, w[r] + at, u, d[r]);
                for (c = 0; c < C; c++) {
                    acc[r][c] = V(fmadd)(v, t[c], acc[r][c]);
                }
            }
        }

        at += step_bytes(type);
    }

    for (; e < a->k; e += LANES) {
        u = a->k - e < LANES ? a->k - e : LANES;

        for (c = 0; c < C; c++) {
            t[c] = load_floats(x[c] + e, u);
        }

        for (r = 0; r < R; r++) {
            v = load_part(type, w[r], e, u);
            for (c = 0; c < C; c++) {
                acc[r][c] = V(fmadd)(v, t[c], acc[r][c]);
            }
        }
    }

    finish(a, i, j, R, C, acc);
}

ALWAYS void
matmul(const cpu_mm_t *a, uint32_t type)
{
    uint32_t i, j;

    assert(a->m > 0 && a->n > 0);
    assert((type != KN_Q8_0 && type != KN_Q4_0) || a->k % STEP == 0);

    for (j = 0; j + 4 <= a->n; j += 4) {
        for (i = 0; i + 4 <= a->m; i += 4) {
            tile(a, i, j, type, TILE_R, 4);
            if (TILE_R == 2) {
                tile(a, i, j + 2, type, 2, 4);
            }
        }

        if (i + 2 <= a->m) {
            tile(a, i, j, type, 4, 2);
            i += 2;
        }

        if (i < a->m) {
            tile(a, i, j, type, 4, 1);
        }
    }

    for (; j < a->n; j++) {
        for (i = 0; i + 4 <= a->m; i += 4) {
            tile(a, i, j, type, 1, 4);
        }

        for (; i < a->m; i++) {
            tile(a, i, j, type, 1, 1);
        }
    }
}

/*
 * x is n ln 2 and a rest r, x cut to where exp(x) is a normal number; NaN
 * stays.  Returns (exp(r) - 1 - r) / r^2, as a power series that is cut where
 * its terms are below rounding.
 */
ALWAYS vf_t
exp_series(vf_t x, vf_t *n, vf_t *r)
{
    vf_t y;

    x = V(max)(V(set1)(-87.3f), x);
    x = V(min)(V(set1)(88.3f), x);
    *n = nearest(V(mul)(x, V(set1)(1.44269504f)));
    *r = V(fnmadd)(*n, V(set1)(0.693145752f), x);
    *r = V(fnmadd)(*n, V(set1)(1.42860677e-6f), *r);

    y = V(set1)(1.0f / 5040);
    y = V(fmadd)(y, *r, V(set1)(1.0f / 720));
    y = V(fmadd)(y, *r, V(set1)(1.0f / 120));
    y = V(fmadd)(y, *r, V(set1)(1.0f / 24));
    y = V(fmadd)(y, *r, V(set1)(1.0f / 6));

    return V(fmadd)(y, *r, V(set1)(0.5f));
}

/* exp(x) */
ALWAYS vf_t
expv(vf_t x)
{
    vf_t n, r, y;

    y = exp_series(x, &n, &r);
    y = V(fmadd)(y, r, V(set1)(1));
    y = V(fmadd)(y, r, V(set1)(1));

    return scale_by(y, n);
}

/*
 * exp(x) - 1, as exact near zero as elsewhere: with the rest's series apart
 * from its one, n = 0 adds nothing to it.
 */
ALWAYS vf_t
expm1v(vf_t x)
{
    vf_t n, r, y, s;

    y = exp_series(x, &n, &r);
    y = V(fmadd)(V(mul)(y, r), r, r);
    s = scale_by(V(set1)(1), n);

    return V(fmadd)(s, y, V(sub)(s, V(set1)(1)));
}

/* tanh(x) = (exp(2x) - 1) / (exp(2x) - 1 + 2); NaN stays. */
ALWAYS vf_t
tanhv(vf_t x)
{
    vf_t e;

    x = expm1v(V(add)(x, x));
    e = V(add)(x, V(set1)(2));

    return V(div)(x, e);
}

static void
rmsnorm(
    float *y, float *x, const float *add, const float *w, uint32_t n, float eps)
{
    vf_t v, r;
    vd_t s[2];
    uint32_t e, u;

    s[0] = s[1] = D(setzero)();

    for (e = 0; e < n; e += LANES) {
        u = n - e < LANES ? n - e : LANES;
        v = load_floats(x + e, u);
        if (add != NULL) {
            v = V(add)(v, load_floats(add + e, u));
            store_floats(x + e, v, u);
        }

        s[0] = add_squares(s[0], low(v));
        s[1] = add_squares(s[1], high(v));
    }

    r = V(set1)(
        1.0f
        / sqrtf((float) sum_doubles(D(add)(s[0], s[1])) / (float) n + eps));

    for (e = 0; e < n; e += LANES) {
        u = n - e < LANES ? n - e : LANES;
        v = V(mul)(load_floats(x + e, u), r);
        store_floats(y + e, V(mul)(v, load_floats(w + e, u)), u);
    }
}

/* g / (1 + exp(x)) */
ALWAYS vf_t
over_exp(vf_t g, vf_t x)
{
    return V(div)(g, V(add)(V(set1)(1), expv(x)));
}

ALWAYS vf_t
silu(vf_t g, vf_t u, vf_t limit)
{
    (void) limit;
    return V(mul)(over_exp(g, V(sub)(V(setzero)(), g)), u);
}

ALWAYS vf_t
gelu(vf_t g, vf_t u, vf_t limit)
{
    vf_t v;

    (void) limit;
    v = V(fmadd)(V(mul)(g, g), V(set1)(0.044715f), V(set1)(1));
    v = V(mul)(V(mul)(v, g), V(set1)(-1.59576912f)); /* -2 sqrt(2 / pi) */

    return V(mul)(over_exp(g, v), u);
}

/* min and max give their second operand where one is NaN: NaN stays. */
ALWAYS vf_t
clamp(vf_t g, vf_t u, vf_t limit)
{
    g = V(min)(limit, g);
    u = V(max)(V(sub)(V(setzero)(), limit), V(min)(limit, u));

    return V(mul)(
        over_exp(g, V(mul)(g, V(set1)(-1.702f))), V(add)(u, V(set1)(1)));
}

#define X(name, fn)                                                            \
    static void fn##_mul(float *gate, const float *up, uint32_t n, float l)    \
    {                                                                          \
        vf_t g, limit = V(set1)(l);                                            \
        uint32_t e, u;                                                         \
                                                                               \
        for (e = 0; e < n; e += LANES) {                                       \
            u = n - e < LANES ? n - e : LANES;                                 \
            g = fn(load_floats(gate + e, u), load_floats(up + e, u), limit);   \
            store_floats(gate + e, g, u);                                      \
        }                                                                      \
    }
KN_ACT_LIST(X)
#undef X

static void
soft_cap(float *x, uint32_t n, float scale, float cap)
{
    vf_t v, in, out;
    uint32_t e, u;

    in = V(set1)(scale / cap);
    out = V(set1)(cap);

    for (e = 0; e < n; e += LANES) {
        u = n - e < LANES ? n - e : LANES;
        v = tanhv(V(mul)(load_floats(x + e, u), in));
        store_floats(x + e, V(mul)(v, out), u);
    }
}

#include "vec_packed.h"
#include "vec_attn.h"
#include "vec_cache.h"

#define X(name)                                                                \
    static void matmul_##name(const cpu_mm_t *a) { matmul(a, KN_##name); }
X(F32)
X(F16)
X(BF16)
#undef X

/*
 * Blocks are unpacked in the registers for a few rows of x, and once and for
 * all for more: the same floats in the same order, and so the same bits.
 */
#define X(name, elems, bytes)                                                  \
    static void matmul_##name(const cpu_mm_t *a)                               \
    {                                                                          \
        if (a->m < PACKED_MIN) {                                               \
            matmul(a, KN_##name);                                              \
        } else {                                                               \
            matmul_packed(a, elems, bytes, row_##name);                        \
        }                                                                      \
    }
X(Q8_0, 32, 34)
X(Q4_0, 32, 18)
#undef X

const cpu_isa_t ISA = {
    .name = ISA_NAME,
#define X(name, elems, bytes) .matmul[KN_##name] = matmul_##name,
    KN_PLAIN_LIST(X)
#undef X
#define X(name, elems, bytes)                                                  \
    .matmul[KN_##name] = matmul_##name, .row[KN_##name] = row_##name,
        KN_PACKED_LIST(X)
#undef X
            .row[KN_Q8_0] = row_Q8_0,
    .row[KN_Q4_0] = row_Q4_0,
    .kv_put[KN_F16] = kv_put_f16,
    .rotate = {rotate_neighbours, rotate_halves},
    .attn = &attn,
    .rmsnorm = rmsnorm,
#define X(name, fn) .act_mul[KN_##name] = fn##_mul,
    KN_ACT_LIST(X)
#undef X
        .soft_cap = soft_cap,
    .panels = PANELS_OF,
};

#endif
