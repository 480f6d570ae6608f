/*
 * The small functions with AVX2, FMA and F16C.
 *
 * DESIGN.  A product is computed in tiles of R weight rows by C activation
 * rows, each output having one vector of partial sums in a register.  A weight
 * is turned into floats once per tile, which is exact for every type (a half
 * times a small integer fits a float), so all types are one text.
 *
 * The order: partial sum l of an output takes the terms l, l + 8, l + 16, ...
 * in turn, each by one fused multiply-add; a last vector that k does not fill
 * is padded with zeros; then the eight sums are added as reduce() says.  None
 * of that knows the tile's size, so whichever tile computes an output, its
 * bits are the same.
 *
 * More outputs at a time, not more sums per output, keep the multipliers busy:
 * an addition takes four cycles, and a tile has eight of them on the way.
 */
#include "cpu.h"

#include <assert.h>
#include <immintrin.h>
#include <string.h>

#define ALWAYS static inline __attribute__((always_inline))

/* Elements of a vector, and of the step that loops take through k. */
#define LANES 8
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
reduce(__m256 v)
{
    __m128 s;

    s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    s = _mm_add_ss(s, _mm_movehdup_ps(s));

    return _mm_cvtss_f32(s);
}

ALWAYS __m256
from_f16(__m128i h)
{
    return _mm256_cvtph_ps(h);
}

ALWAYS __m256
from_bf16(__m128i h)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

/* The scale of the block that element e begins; plain types have none. */
ALWAYS __m256
scale_at(uint32_t type, const char *w, uint32_t e)
{
    uint16_t d;

    if (type == KN_Q8_0) {
        memcpy(&d, w + (size_t) e / 32 * 34, 2);
    } else if (type == KN_Q4_0) {
        memcpy(&d, w + (size_t) e / 32 * 18, 2);
    } else {
        return _mm256_setzero_ps();
    }

    return _mm256_cvtph_ps(_mm_set1_epi16((short) d));
}

/* Elements e to e + 7, e a multiple of 8; d is their block's scale. */
ALWAYS __m256
load(uint32_t type, const char *w, uint32_t e, __m256 d)
{
    const char *q;
    __m256i n;

    switch (type) {

    case KN_F32:
        return _mm256_loadu_ps((const float *) (w + (size_t) e * 4));

    case KN_F16:
        return from_f16(
            _mm_loadu_si128((const __m128i *) (w + (size_t) e * 2)));

    case KN_BF16:
        return from_bf16(
            _mm_loadu_si128((const __m128i *) (w + (size_t) e * 2)));

    case KN_Q8_0:
        q = w + (size_t) e / 32 * 34 + 2 + e % 32;
        n = _mm256_cvtepi8_epi32(_mm_loadu_si64(q));
        break;

    default:
        q = w + (size_t) e / 32 * 18 + 2 + e % 16;
        n = _mm256_cvtepu8_epi32(_mm_loadu_si64(q));
        n = e % 32 < 16 ? _mm256_and_si256(n, _mm256_set1_epi32(15))
                        : _mm256_srli_epi32(n, 4);
        n = _mm256_sub_epi32(n, _mm256_set1_epi32(8));
        break;
    }

    return _mm256_mul_ps(_mm256_cvtepi32_ps(n), d);
}

/*
 * The first n <= 8 of them, zeros after; nothing beyond is read.  Types with
 * blocks have no such rest.
 */
ALWAYS __m256
load_part(uint32_t type, const char *w, uint32_t e, uint32_t n)
{
    __m128i h;
    __m256i mask;

    if (type == KN_F32) {
        mask = _mm256_cmpgt_epi32(_mm256_set1_epi32((int) n),
            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
        return _mm256_maskload_ps((const float *) (w + (size_t) e * 4), mask);
    }

    h = _mm_setzero_si128();
    memcpy(&h, w + (size_t) e * 2, n * 2);

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
    __m256 acc[4][4], d[4], v, t[4];
    uint32_t e, u, r, c;

    for (r = 0; r < R; r++) {
        w[r] = (const char *) a->w + (j + r) * a->stride;
        for (c = 0; c < C; c++) {
            acc[r][c] = _mm256_setzero_ps();
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
                t[c] = _mm256_loadu_ps(x[c] + e + u);
            }

            for (r = 0; r < R; r++) {
                v = load(type, w[r], e + u, d[r]);
                for (c = 0; c < C; c++) {
                    acc[r][c] = _mm256_fmadd_ps(v, t[c], acc[r][c]);
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
                acc[r][c] = _mm256_fmadd_ps(v, t[c], acc[r][c]);
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
            tile(a, i, j, type, 2, 4);
            tile(a, i, j + 2, type, 2, 4);
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
    __m256 acc[4], v;
    uint32_t e, u, c;

    for (c = 0; c < 4; c++) {
        acc[c] = _mm256_setzero_ps();
    }

    for (e = 0; e + STEP <= n; e += STEP) {
        for (c = 0; c < 4; c++) {
            v = load(type, k, e + c * LANES, acc[0]);
            acc[c] =
                _mm256_fmadd_ps(v, _mm256_loadu_ps(q + e + c * LANES), acc[c]);
        }
    }

    for (; e < n; e += LANES) {
        u = n - e < LANES ? n - e : LANES;
        v = load_part(type, k, e, u);
        acc[0] = _mm256_fmadd_ps(
            v, load_part(KN_F32, (const char *) q, e, u), acc[0]);
    }

    return reduce(_mm256_add_ps(
        _mm256_add_ps(acc[0], acc[1]), _mm256_add_ps(acc[2], acc[3])));
}

ALWAYS void
kv_axpy(uint32_t type, float *acc, float p, const void *v, uint32_t n)
{
    __m256 pv, t;
    float part[LANES];
    uint32_t e, u;

    pv = _mm256_set1_ps(p);

    for (e = 0; e + LANES <= n; e += LANES) {
        t = _mm256_fmadd_ps(pv, load(type, v, e, pv), _mm256_loadu_ps(acc + e));
        _mm256_storeu_ps(acc + e, t);
    }

    if (e < n) {
        u = n - e;
        t = _mm256_fmadd_ps(pv, load_part(type, v, e, u),
            load_part(KN_F32, (const char *) acc, e, u));
        _mm256_storeu_ps(part, t);
        memcpy(acc + e, part, u * sizeof(float));
    }
}

static void
kv_put_f16(void *dst, const float *src, uint32_t n)
{
    __m128i h;
    uint32_t e, u;

    for (e = 0; e < n; e += LANES) {
        u = n - e < LANES ? n - e : LANES;
        h = _mm256_cvtps_ph(load_part(KN_F32, (const char *) src, e, u),
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

const cpu_isa_t cpu_avx2 = {
    .name = "avx2",
#define X(name, elems, bytes) .matmul[KN_##name] = matmul_##name,
    KN_TYPE_LIST(X)
#undef X
        .kv_put[KN_F16] = kv_put_f16,
    .kv_dot = {kv_dot_F32, kv_dot_F16, kv_dot_BF16},
    .kv_axpy = {kv_axpy_F32, kv_axpy_F16, kv_axpy_BF16},
};
