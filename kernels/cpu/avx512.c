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
#include <string.h>

#define ALWAYS static inline __attribute__((always_inline))

/* Elements of a vector, and of the step that loops take through k. */
#define LANES 16
#define STEP  32

/*
 * Asks for the memory of the STEP elements that e begins in a row yet to come.
 * A row is often shorter than what the processor's own prefetcher needs to see
 * before it runs ahead.  May name any address.
 */
ALWAYS void
prefetch(uint32_t type, const char *w, uint32_t e)
{
#define X(name, elems, bytes) (STEP / (elems)) * (bytes),
    static const uint8_t size[] = {KN_TYPE_LIST(X)};
#undef X
    uintptr_t p;

    p = (uintptr_t) w + (size_t) e / STEP * size[type];
    _mm_prefetch((const char *) p, _MM_HINT_T0);

    if (size[type] > 64) {
        _mm_prefetch((const char *) (p + 64), _MM_HINT_T0);
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
 * What load() needs of the block that element e begins: its scale; for Q4_0
 * the scale times each value of a nibble; plain types have none.
 */
ALWAYS __m512
scale_at(uint32_t type, const char *w, uint32_t e)
{
    uint16_t d;

    if (type == KN_Q8_0) {
        memcpy(&d, w + (size_t) e / 32 * 34, 2);
        return _mm512_cvtph_ps(_mm256_set1_epi16((short) d));
    }

    if (type == KN_Q4_0) {
        memcpy(&d, w + (size_t) e / 32 * 18, 2);
        return _mm512_mul_ps(_mm512_cvtph_ps(_mm256_set1_epi16((short) d)),
            _mm512_setr_ps(
                -8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7));
    }

    return _mm512_setzero_ps();
}

/* Elements e to e + 15, e a multiple of 16; d is their block's scale. */
ALWAYS __m512
load(uint32_t type, const char *w, uint32_t e, __m512 d)
{
    const char *q;
    __m512i n;

    switch (type) {

    case KN_F32:
        return _mm512_loadu_ps(w + (size_t) e * 4);

    case KN_F16:
        return from_f16(
            _mm256_loadu_si256((const __m256i *) (w + (size_t) e * 2)));

    case KN_BF16:
        return from_bf16(
            _mm256_loadu_si256((const __m256i *) (w + (size_t) e * 2)));

    case KN_Q8_0:
        q = w + (size_t) e / 32 * 34 + 2 + e % 32;
        n = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *) q));
        return _mm512_mul_ps(_mm512_cvtepi32_ps(n), d);

    default:
        /* The permutation looks at an index's low four bits only. */
        q = w + (size_t) e / 32 * 18 + 2;
        n = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *) q));
        n = e % 32 < 16 ? n : _mm512_srli_epi32(n, 4);
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

    for (r = 0; r < R; r++) {
        w[r] = (const char *) a->w + (j + r) * a->stride;
        for (c = 0; c < C; c++) {
            acc[r][c] = _mm512_setzero_ps();
        }
    }

    for (c = 0; c < C; c++) {
        x[c] = a->x + (i + c) * a->ldx;
    }

    for (e = 0; e + STEP <= a->k; e += STEP) {
        for (r = 0; r < R; r++) {
            d[r] = scale_at(type, w[r], e);
            if (i == 0) {
                prefetch(type, w[r] + R * a->stride, e);
            }
        }

        for (u = 0; u < STEP; u += LANES) {
            for (c = 0; c < C; c++) {
                t[c] = _mm512_loadu_ps(x[c] + e + u);
            }

            for (r = 0; r < R; r++) {
                v = load(type, w[r], e + u, d[r]);
                for (c = 0; c < C; c++) {
                    acc[r][c] = _mm512_fmadd_ps(v, t[c], acc[r][c]);
                }
            }
        }
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

    for (r = 0; r < R; r++) {
        for (c = 0; c < C; c++) {
            a->y[(i + c) * a->ldy + j + r] = reduce(acc[r][c]);
        }
    }
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

/*
 * Four vectors of partial sums where n has them: here one output is alone, and
 * must keep the multipliers busy by itself.
 */
ALWAYS float
kv_dot(uint32_t type, const float *q, const void *k, uint32_t n)
{
    __m512 acc[4], v;
    uint32_t e, u, c;

    for (c = 0; c < 4; c++) {
        acc[c] = _mm512_setzero_ps();
    }

    for (e = 0; e + 4 * LANES <= n; e += 4 * LANES) {
        for (c = 0; c < 4; c++) {
            v = load(type, k, e + c * LANES, acc[0]);
            acc[c] =
                _mm512_fmadd_ps(v, _mm512_loadu_ps(q + e + c * LANES), acc[c]);
        }
    }

    for (; e < n; e += LANES) {
        u = n - e < LANES ? n - e : LANES;
        v = load_part(type, k, e, u);
        acc[0] = _mm512_fmadd_ps(
            v, load_part(KN_F32, (const char *) q, e, u), acc[0]);
    }

    return reduce(_mm512_add_ps(
        _mm512_add_ps(acc[0], acc[1]), _mm512_add_ps(acc[2], acc[3])));
}

ALWAYS void
kv_axpy(uint32_t type, float *acc, float p, const void *v, uint32_t n)
{
    __m512 pv, t;
    uint32_t e, u;

    pv = _mm512_set1_ps(p);

    for (e = 0; e + LANES <= n; e += LANES) {
        t = _mm512_fmadd_ps(pv, load(type, v, e, pv), _mm512_loadu_ps(acc + e));
        _mm512_storeu_ps(acc + e, t);
    }

    if (e < n) {
        u = n - e;
        t = _mm512_fmadd_ps(pv, load_part(type, v, e, u),
            load_part(KN_F32, (const char *) acc, e, u));
        _mm512_mask_storeu_ps(acc + e, (__mmask16) ((1u << u) - 1), t);
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

#define KV(name)                                                               \
    static float kv_dot_##name(const float *q, const void *k, uint32_t n)      \
    {                                                                          \
        return kv_dot(KN_##name, q, k, n);                                     \
    }                                                                          \
    static void kv_axpy_##name(float *acc, float p, const void *v, uint32_t n) \
    {                                                                          \
        kv_axpy(KN_##name, acc, p, v, n);                                      \
    }
KV(F32)
KV(F16)
KV(BF16)

const cpu_isa_t cpu_avx512 = {
    .name = "avx512",
#define X(name, elems, bytes) .matmul[KN_##name] = matmul_##name,
    KN_TYPE_LIST(X)
#undef X
        .kv_put[KN_F16] = kv_put_f16,
    .kv_dot = {kv_dot_F32, kv_dot_F16, kv_dot_BF16},
    .kv_axpy = {kv_axpy_F32, kv_axpy_F16, kv_axpy_BF16},
};
