/*
 * The sampler's walks over a vocabulary with AVX2: see scan.h.  No operation
 * is fused with another, and lanes are those of scan.c.
 */
#include "scan.h"

#include <assert.h>
#include <immintrin.h>
#include <math.h>
#include <string.h>

#define LANES 8

/* The first n <= LANES, copies of other behind. */
static inline __m256
some(const float *p, uint32_t n, float other)
{
    float v[LANES];
    uint32_t i;

    for (i = 0; i < LANES; i++) {
        v[i] = other;
    }

    memcpy(v, p, n * sizeof(float));

    return _mm256_loadu_ps(v);
}

static inline float
largest(__m256 v)
{
    float lane[LANES], max = -INFINITY;
    uint32_t i;

    _mm256_storeu_ps(lane, v);

    for (i = 0; i < LANES; i++) {
        max = lane[i] > max ? lane[i] : max;
    }

    return max;
}

static float
tops(const float *x, uint32_t n, float *top)
{
    const __m256 inf = _mm256_set1_ps(INFINITY);
    __m256 v, max, max2, all, good;
    uint32_t i, j;

    assert(n > 0);
    all = _mm256_set1_ps(-INFINITY);
    good = _mm256_castsi256_ps(_mm256_set1_epi32(-1));

    for (i = 0; i + SCAN_BLOCK <= n; i += SCAN_BLOCK) {
        max = max2 = _mm256_set1_ps(-INFINITY);

        /* max gives its second operand where one is NaN */
        for (j = 0; j < SCAN_BLOCK; j += 2 * LANES) {
            v = _mm256_loadu_ps(x + i + j);
            max = _mm256_max_ps(v, max);
            good = _mm256_and_ps(good, _mm256_cmp_ps(v, inf, _CMP_LT_OQ));
            v = _mm256_loadu_ps(x + i + j + LANES);
            max2 = _mm256_max_ps(v, max2);
            good = _mm256_and_ps(good, _mm256_cmp_ps(v, inf, _CMP_LT_OQ));
        }

        max = _mm256_max_ps(max, max2);
        all = _mm256_max_ps(max, all);
        max = _mm256_max_ps(max, _mm256_permute2f128_ps(max, max, 1));
        max = _mm256_max_ps(max, _mm256_shuffle_ps(max, max, 0x4e));
        max = _mm256_max_ps(max, _mm256_shuffle_ps(max, max, 0xb1));
        top[i / SCAN_BLOCK] = _mm256_cvtss_f32(max);
    }

    for (max = _mm256_set1_ps(-INFINITY), j = i; j < n; j += LANES) {
        v = some(x + j, n - j < LANES ? n - j : LANES, -INFINITY);
        max = _mm256_max_ps(v, max);
        good = _mm256_and_ps(good, _mm256_cmp_ps(v, inf, _CMP_LT_OQ));
    }

    if (i < n) {
        top[i / SCAN_BLOCK] = largest(max);
        all = _mm256_max_ps(max, all);
    }

    return _mm256_movemask_ps(good) == 0xff ? largest(all) : INFINITY;
}

/* Of scan.c, operation by operation. */
static inline __m256
exp_neg(__m256 x)
{
    const __m256 least = _mm256_set1_ps(SCAN_EXP_MIN);
    __m256 c, n, r, y;
    __m256i e;

#define MUL(a, b) _mm256_mul_ps(a, b)
#define ADD(a, b) _mm256_add_ps(a, b)
#define SET(a)    _mm256_set1_ps(a)

    c = _mm256_max_ps(least, x);
    e = _mm256_cvttps_epi32(_mm256_sub_ps(MUL(c, SET(1.44269504f)), SET(0.5f)));
    n = _mm256_cvtepi32_ps(e);
    r = ADD(_mm256_sub_ps(c, MUL(n, SET(0.693359375f))),
        MUL(n, SET(2.12194440e-4f)));

    y = SET(1.0f / 5040);
    y = ADD(MUL(y, r), SET(1.0f / 720));
    y = ADD(MUL(y, r), SET(1.0f / 120));
    y = ADD(MUL(y, r), SET(1.0f / 24));
    y = ADD(MUL(y, r), SET(1.0f / 6));
    y = ADD(MUL(y, r), SET(0.5f));
    y = ADD(MUL(y, r), SET(1.0f));
    y = ADD(MUL(y, r), SET(1.0f));

#undef MUL
#undef ADD
#undef SET

    e = _mm256_slli_epi32(_mm256_add_epi32(e, _mm256_set1_epi32(127)), 23);
    y = _mm256_mul_ps(y, _mm256_castsi256_ps(e));

    return _mm256_andnot_ps(_mm256_cmp_ps(x, least, _CMP_LT_OQ), y);
}

/* Eight lanes, half of them in each. */
typedef struct {
    __m256d low, high;
} lanes_t;

static inline void
lanes_add(lanes_t *s, __m256 v)
{
    s->low = _mm256_add_pd(s->low, _mm256_cvtps_pd(_mm256_castps256_ps128(v)));
    s->high =
        _mm256_add_pd(s->high, _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1)));
}

static inline double
lanes_join(const lanes_t *s)
{
    double lane[LANES];

    _mm256_storeu_pd(lane, s->low);
    _mm256_storeu_pd(lane + 4, s->high);

    return ((lane[0] + lane[1]) + (lane[2] + lane[3]))
           + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

static double
weights(const float *x, uint32_t n, float max, float t, float *w)
{
    const __m256 top = _mm256_set1_ps(max), by = _mm256_set1_ps(t);
    lanes_t s = {_mm256_setzero_pd(), _mm256_setzero_pd()};
    float rest[LANES];
    uint32_t i;
    __m256 v;

    assert(t > 0);

    for (i = 0; i < n; i += LANES) {
        v = n - i < LANES ? some(x + i, n - i, -INFINITY)
                          : _mm256_loadu_ps(x + i);
        v = _mm256_sub_ps(v, top);
        v = exp_neg(t == 1 ? v : _mm256_div_ps(v, by));
        lanes_add(&s, v);

        if (w != NULL && n - i < LANES) {
            _mm256_storeu_ps(rest, v);
            memcpy(w + i, rest, (n - i) * sizeof(float));
        } else if (w != NULL) {
            _mm256_storeu_ps(w + i, v);
        }
    }

    return lanes_join(&s);
}

static double
sum(const float *w, uint32_t n)
{
    lanes_t s = {_mm256_setzero_pd(), _mm256_setzero_pd()};
    uint32_t i;

    assert(n > 0);

    for (i = 0; i + LANES <= n; i += LANES) {
        lanes_add(&s, _mm256_loadu_ps(w + i));
    }

    if (i < n) {
        lanes_add(&s, some(w + i, n - i, 0));
    }

    return lanes_join(&s);
}

static void
allow(float *x, const float *from, uint32_t n, const uint32_t *mask)
{
    const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256 none = _mm256_set1_ps(-INFINITY);
    uint32_t i;
    __m256i m;
    __m256 v;

    for (i = 0; i + LANES <= n; i += LANES) {
        m = _mm256_set1_epi32((int) (mask[i / 32] >> i % 32));
        m = _mm256_cmpeq_epi32(_mm256_and_si256(m, bits), bits);
        v = _mm256_loadu_ps(from + i);
        v = _mm256_blendv_ps(none, v, _mm256_castsi256_ps(m));
        _mm256_storeu_ps(x + i, v);
    }

    for (; i < n; i++) {
        x[i] = mask[i / 32] >> i % 32 & 1 ? from[i] : -INFINITY;
    }
}

const cpu_scan_t cpu_scan_avx2 = {tops, weights, allow, sum};
