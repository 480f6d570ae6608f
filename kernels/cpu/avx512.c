/*
 * The small functions with AVX-512 (F, BW, DQ, VL).
 *
 * DESIGN.  As in avx2.c: tiles of outputs, each with one vector of partial
 * sums, sum l of which takes the terms l, l + 16, l + 32, ... in turn, each by
 * one fused multiply-add, a last vector padded with zeros by a load mask; then
 * the sixteen are added as reduce() says.  With 32 registers a tile is four by
 * four, so eight loads feed sixteen multiplications.
 */
#include "cpu.h"

#include <assert.h>
#include <immintrin.h>
#include <math.h>
#include <string.h>

#define ALWAYS static inline __attribute__((always_inline))

/* Elements of a vector, and of the step that loops take through k. */
#define LANES 16
#define STEP  32

/* Bytes of STEP elements. */
ALWAYS size_t
step_bytes(uint32_t type)
{
#define X(name, elems, bytes) (STEP / (elems)) * (bytes),
    static const uint8_t size[] = {KN_TYPE_LIST(X)};
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
reduce(__m512 v)
{
    __m256 h;
    __m128 s;

    h = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    s = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    s = _mm_add_ss(s, _mm_movehdup_ps(s));

    return _mm_cvtss_f32(s);
}

/* Four sums, each with the bits of reduce(). */
ALWAYS __m128
reduce4(const __m512 *v, size_t step)
{
    __m256 h;
    __m128 s[4], lo, hi;
    uint32_t i;

    for (i = 0; i < 4; i++) {
        h = _mm256_add_ps(_mm512_castps512_ps256(v[i * step]),
            _mm512_extractf32x8_ps(v[i * step], 1));
        s[i] =
            _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    }

    lo = _mm_add_ps(_mm_unpacklo_ps(s[0], s[1]), _mm_unpackhi_ps(s[0], s[1]));
    hi = _mm_add_ps(_mm_unpacklo_ps(s[2], s[3]), _mm_unpackhi_ps(s[2], s[3]));

    return _mm_add_ps(_mm_movelh_ps(lo, hi), _mm_movehl_ps(hi, lo));
}

ALWAYS __m512
from_f16(__m256i h)
{
    return _mm512_cvtph_ps(h);
}

ALWAYS __m512
from_bf16(__m256i h)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

/*
 * What load() needs of the block that begins at p: its scale; for Q4_0
 * the scale times each value of a nibble; plain types have none.
 */
ALWAYS __m512
scale_at(uint32_t type, const char *p)
{
    uint16_t d;

    if (type == KN_Q8_0) {
        memcpy(&d, p, 2);
        return _mm512_cvtph_ps(_mm256_set1_epi16((short) d));
    }

    if (type == KN_Q4_0) {
        memcpy(&d, p, 2);
        return _mm512_mul_ps(_mm512_cvtph_ps(_mm256_set1_epi16((short) d)),
            _mm512_setr_ps(
                -8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7));
    }

    return _mm512_setzero_ps();
}

/*
 * Elements u to u + 15 from p on, which begins a block; u is a multiple of
 * LANES, below STEP in types with blocks.  d is what scale_at() gave.
 */
ALWAYS __m512
load(uint32_t type, const char *p, uint32_t u, __m512 d)
{
    const char *q;
    __m512i n;

    switch (type) {

    case KN_F32:
        return _mm512_loadu_ps(p + (size_t) u * 4);

    case KN_F16:
        return from_f16(
            _mm256_loadu_si256((const __m256i *) (p + (size_t) u * 2)));

    case KN_BF16:
        return from_bf16(
            _mm256_loadu_si256((const __m256i *) (p + (size_t) u * 2)));

    case KN_Q8_0:
        q = p + 2 + u;
        n = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *) q));
        return _mm512_mul_ps(_mm512_cvtepi32_ps(n), d);

    default:
        /* The permutation looks at an index's low four bits only. */
        q = p + 2;
        n = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *) q));
        n = u < 16 ? n : _mm512_srli_epi32(n, 4);
        return _mm512_permutexvar_ps(n, d);
    }
}

/*
 * The first n <= 16 of them, zeros after; nothing beyond is read.  Types with
 * blocks have no such rest.
 */
ALWAYS __m512
load_part(uint32_t type, const char *w, uint32_t e, uint32_t n)
{
    __mmask16 mask;
    __m256i h;

    mask = (__mmask16) ((1u << n) - 1);

    if (type == KN_F32) {
        return _mm512_maskz_loadu_ps(mask, w + (size_t) e * 4);
    }

    h = _mm256_maskz_loadu_epi16(mask, w + (size_t) e * 2);

    return type == KN_F16 ? from_f16(h) : from_bf16(h);
}

/* The sums of a tile to their places. */
ALWAYS void
finish(const cpu_mm_t *a, uint32_t i, uint32_t j, uint32_t R, uint32_t C,
    __m512 acc[4][4])
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
    __m512 acc[4][4], d[4], v, t[4];
    uint32_t e, u, r, c;
    size_t at, ahead = R * a->stride;

    for (r = 0; r < R; r++) {
        w[r] = (const char *) a->w + (j + r) * a->stride;
        for (c = 0; c < C; c++) {
            acc[r][c] = _mm512_setzero_ps();
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
                t[c] = _mm512_loadu_ps(x[c] + e + u);
            }

            for (r = 0; r < R; r++) {
                v = load(type, w[r] + at, u, d[r]);
                for (c = 0; c < C; c++) {
                    acc[r][c] = _mm512_fmadd_ps(v, t[c], acc[r][c]);
                }
            }
        }

        at += step_bytes(type);
    }

    for (; e < a->k; e += LANES) {
        u = a->k - e < LANES ? a->k - e : LANES;

        for (c = 0; c < C; c++) {
            t[c] = load_part(KN_F32, (const char *) x[c], e, u);
        }

        for (r = 0; r < R; r++) {
            v = load_part(type, w[r], e, u);
            for (c = 0; c < C; c++) {
                acc[r][c] = _mm512_fmadd_ps(v, t[c], acc[r][c]);
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
            tile(a, i, j, type, 4, 4);
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

/* The first n <= 16 floats at p, zeros after. */
ALWAYS __m512
load_floats(const float *p, uint32_t n)
{
    return _mm512_maskz_loadu_ps((__mmask16) ((1u << n) - 1), p);
}

ALWAYS void
store_floats(float *p, __m512 v, uint32_t n)
{
    _mm512_mask_storeu_ps(p, (__mmask16) ((1u << n) - 1), v);
}

/* The first n lanes of v, zeros after. */
ALWAYS __m512
first(__m512 v, uint32_t n)
{
    return _mm512_maskz_mov_ps((__mmask16) ((1u << n) - 1), v);
}

/* top, its first n lanes the larger ones of v's and its own */
ALWAYS __m512
max_floats(__m512 v, __m512 top, uint32_t n)
{
    return _mm512_mask_max_ps(top, (__mmask16) ((1u << n) - 1), v, top);
}

ALWAYS double
sum_doubles(__m512d v)
{
    __m256d h;
    __m128d s;

    h = _mm256_add_pd(_mm512_castpd512_pd256(v), _mm512_extractf64x4_pd(v, 1));
    s = _mm_add_pd(_mm256_castpd256_pd128(h), _mm256_extractf128_pd(h, 1));

    return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
}

#define ROUND(x)      _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT)
#define SCALE(y, n)   _mm512_scalef_ps(y, n)
#define LOW(v)        _mm512_cvtps_pd(_mm512_castps512_ps256(v))
#define HIGH(v)       _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1))
#define SQUARES(v, s) _mm512_fmadd_pd(v, v, s)

/* Vectors of a row that weighted values take at a time. */
#define MIX_U 4

/*
 * exp(x), x cut to where the result is a normal number; NaN stays.  x is n ln 2
 * and a rest, whose power series is cut where its terms are below rounding.
 */
ALWAYS __m512
expv(__m512 x)
{
    __m512 n, r, y;

    x = _mm512_max_ps(_mm512_set1_ps(-87.3f), x);
    x = _mm512_min_ps(_mm512_set1_ps(88.3f), x);
    n = ROUND(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)));
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693145752f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(1.42860677e-6f), r);

    y = _mm512_set1_ps(1.0f / 5040);
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(1.0f / 720));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(1.0f / 120));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(1.0f / 24));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(1.0f / 6));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(0.5f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(1));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(1));

    return SCALE(y, n);
}

/* y[i, e ...] of C queries by U vectors, n < LANES of the last one used. */
ALWAYS void
mix_tile(const cpu_mix_t *a, uint32_t type, uint32_t i, uint32_t e, uint32_t C,
    uint32_t U, uint32_t n)
{
    const char *v = a->v;
    const float *p = a->p + i * a->ldp;
    float *y = a->y + i * a->ldy + e;
    __m512 acc[4][4], t, zero = _mm512_setzero_ps();
    uint32_t j, c, u;

    for (c = 0; c < C; c++) {
        for (u = 0; u < U; u++) {
            acc[c][u] = n == LANES ? _mm512_loadu_ps(y + c * a->ldy + u * LANES)
                                   : load_floats(y + c * a->ldy, n);
        }
    }

    for (j = 0; j < a->n; j++, v += a->stride) {
        for (u = 0; u < U; u++) {
            t = n == LANES ? load(type, v, e + u * LANES, zero)
                           : load_part(type, v, e, n);
            for (c = 0; c < C; c++) {
                acc[c][u] = _mm512_fmadd_ps(
                    _mm512_set1_ps(p[c * a->ldp + j]), t, acc[c][u]);
            }
        }
    }

    for (c = 0; c < C; c++) {
        for (u = 0; u < U; u++) {
            if (n == LANES) {
                _mm512_storeu_ps(y + c * a->ldy + u * LANES, acc[c][u]);
            } else {
                store_floats(y + c * a->ldy, acc[c][u], n);
            }
        }
    }
}

ALWAYS void
mix_queries(const cpu_mix_t *a, uint32_t type, uint32_t i, uint32_t C)
{
    uint32_t e;

    for (e = 0; e + MIX_U * LANES <= a->k; e += MIX_U * LANES) {
        mix_tile(a, type, i, e, C, MIX_U, LANES);
    }

    for (; e + LANES <= a->k; e += LANES) {
        mix_tile(a, type, i, e, C, 1, LANES);
    }

    if (e < a->k) {
        mix_tile(a, type, i, e, C, 1, a->k - e);
    }
}

ALWAYS void
mix(const cpu_mix_t *a, uint32_t type)
{
    uint32_t i;

    for (i = 0; i + 4 <= a->m; i += 4) {
        mix_queries(a, type, i, 4);
    }

    if (i + 2 <= a->m) {
        mix_queries(a, type, i, 2);
        i += 2;
    }

    if (i < a->m) {
        mix_queries(a, type, i, 1);
    }
}

static float
softmax(float *w, uint32_t n, float scale, float *max)
{
    __m512 top, sum, v;
    float lanes[LANES];
    uint32_t e, u;

    top = _mm512_set1_ps(-INFINITY);
    sum = _mm512_setzero_ps();

    for (e = 0; e < n; e += LANES) {
        u = n - e < LANES ? n - e : LANES;
        v = _mm512_mul_ps(load_floats(w + e, u), _mm512_set1_ps(scale));
        store_floats(w + e, v, u);
        top = max_floats(v, top, u);
    }

    _mm512_storeu_ps(lanes, top);
    for (*max = lanes[0], u = 1; u < LANES; u++) {
        *max = lanes[u] > *max ? lanes[u] : *max;
    }

    top = _mm512_set1_ps(*max);

    for (e = 0; e < n; e += LANES) {
        u = n - e < LANES ? n - e : LANES;
        v = expv(_mm512_sub_ps(load_floats(w + e, u), top));
        store_floats(w + e, v, u);
        sum = _mm512_add_ps(sum, first(v, u));
    }

    return reduce(sum);
}

static void
rmsnorm(
    float *y, float *x, const float *add, const float *w, uint32_t n, float eps)
{
    __m512 v, r;
    __m512d s[2];
    uint32_t e, u;

    s[0] = s[1] = _mm512_setzero_pd();

    for (e = 0; e < n; e += LANES) {
        u = n - e < LANES ? n - e : LANES;
        v = load_floats(x + e, u);
        if (add != NULL) {
            v = _mm512_add_ps(v, load_floats(add + e, u));
            store_floats(x + e, v, u);
        }

        s[0] = SQUARES(LOW(v), s[0]);
        s[1] = SQUARES(HIGH(v), s[1]);
    }

    r = _mm512_set1_ps(
        1.0f
        / sqrtf(
            (float) sum_doubles(_mm512_add_pd(s[0], s[1])) / (float) n + eps));

    for (e = 0; e < n; e += LANES) {
        u = n - e < LANES ? n - e : LANES;
        v = _mm512_mul_ps(load_floats(x + e, u), r);
        store_floats(y + e, _mm512_mul_ps(v, load_floats(w + e, u)), u);
    }
}

static void
silu_mul(float *gate, const float *up, uint32_t n)
{
    __m512 g, v;
    uint32_t e, u;

    for (e = 0; e < n; e += LANES) {
        u = n - e < LANES ? n - e : LANES;
        g = load_floats(gate + e, u);
        v = expv(_mm512_sub_ps(_mm512_setzero_ps(), g));
        v = _mm512_div_ps(g, _mm512_add_ps(_mm512_set1_ps(1), v));
        store_floats(gate + e, _mm512_mul_ps(v, load_floats(up + e, u)), u);
    }
}

static void
kv_put_f16(void *dst, const float *src, uint32_t n)
{
    __m256i h;
    uint32_t e, u;

    for (e = 0; e < n; e += LANES) {
        u = n - e < LANES ? n - e : LANES;
        h = _mm512_cvtps_ph(load_part(KN_F32, (const char *) src, e, u),
            _MM_FROUND_TO_NEAREST_INT);
        memcpy((char *) dst + (size_t) e * 2, &h, u * 2);
    }
}

#define X(name, elems, bytes)                                                  \
    static void matmul_##name(const cpu_mm_t *a) { matmul(a, KN_##name); }
KN_TYPE_LIST(X)
#undef X

#define X(name)                                                                \
    static void mix_##name(const cpu_mix_t *a) { mix(a, KN_##name); }
X(F32)
X(F16)
X(BF16)
#undef X

const cpu_isa_t cpu_avx512 = {
    .name = "avx512",
#define X(name, elems, bytes) .matmul[KN_##name] = matmul_##name,
    KN_TYPE_LIST(X)
#undef X
        .kv_put[KN_F16] = kv_put_f16,
    .mix = {mix_F32, mix_F16, mix_BF16},
    .softmax = softmax,
    .rmsnorm = rmsnorm,
    .silu_mul = silu_mul,
};
