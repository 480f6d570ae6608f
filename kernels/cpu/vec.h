/*
 * The small functions over vectors: the text that is one at every width.
 *
 * DESIGN.  The end of a row is met by a vector of fewer lanes, so that no row
 * is padded and nothing beyond one is touched.  Where lanes are added up, lane
 * l has the terms l, l + LANES, ... in turn, and then the lanes are added as
 * reduce() says: the order depends on the row's length only.
 *
 * Products over weights are vec_panel.h's; attention's and the cache's
 * functions, parts of this one, vec_attn.h's and vec_cache.h's.
 *
 * Included once and last by the file of an instruction set, which says before:
 *
 *      ISA, ISA_NAME     the table made here, and its name
 *      PANELS_OF         the set's products over panels, or NULL
 *      ALWAYS            how a function is made part of its callers
 *      LANES             floats of a vector
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
 *      bytes_low(h) bytes_high(h)      the first halves of vh_t's runs of 16
 *                              bytes, one after another; the second ones
 *      max_floats(v, top, n)   top, its first n lanes the larger ones of both
 *      load_bytes(p) to_floats(q)      LANES bytes; q's first LANES, signed
 */
#ifndef VEC_H
#define VEC_H

#include "cpu.h"

#include <assert.h>
#include <immintrin.h>
#include <math.h>
#include <string.h>

ALWAYS float
reduce(vf_t v)
{
    __m128 s = fold4(v);

    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    s = _mm_add_ss(s, _mm_movehdup_ps(s));

    return _mm_cvtss_f32(s);
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

/* LANES elements from p on of a type of the cache. */
ALWAYS vf_t
load(uint32_t type, const char *p)
{
    vh_t h;

    if (type == KN_F32) {
        return V(loadu)((const float *) (const void *) p);
    }

    h = load_halves(p);

    return type == KN_F16 ? from_f16(h) : from_bf16(h);
}

/* The first n <= LANES from element e on, zeros after. */
ALWAYS vf_t
load_part(uint32_t type, const char *p, uint32_t e, uint32_t n)
{
    vh_t h;

    if (type == KN_F32) {
        return load_floats((const float *) (p + (size_t) e * 4), n);
    }

    h = load_some_halves(p + (size_t) e * 2, n);

    return type == KN_F16 ? from_f16(h) : from_bf16(h);
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

#include "vec_attn.h"
#include "vec_cache.h"

const cpu_isa_t ISA = {
    .name = ISA_NAME,
    .kv_put[KN_F16] = kv_put_f16,
    .kv_put[KN_Q8_0] = kv_put_q8_0,
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
