/*
 * Activations as whole numbers, a step of them: four vectors of 256 bits, which
 * is what every set here has.
 */
#ifndef VEC_WHOLE_H
#define VEC_WHOLE_H

#include "cpu.h"

#include <immintrin.h>
#include <string.h>

/* The largest of CPU_STEP sizes, a NaN being the largest. */
ALWAYS float
top_of(const float *x)
{
    __m256i t, m = _mm256_set1_epi32(INT32_MAX);
    __m128i h;
    uint32_t i;
    float f;
    int32_t n;

    t = _mm256_setzero_si256();
    for (i = 0; i < CPU_STEP; i += 8) {
        t = _mm256_max_epi32(t,
            _mm256_and_si256(_mm256_castps_si256(_mm256_loadu_ps(x + i)), m));
    }

    h = _mm_max_epi32(
        _mm256_castsi256_si128(t), _mm256_extracti128_si256(t, 1));
    h = _mm_max_epi32(h, _mm_shuffle_epi32(h, 0x4e));
    h = _mm_max_epi32(h, _mm_shuffle_epi32(h, 0xb1));
    n = _mm_cvtsi128_si32(h);
    memcpy(&f, &n, 4);

    return f;
}

/* The sum of four. */
ALWAYS int32_t
sum_of(__m128i v)
{
    v = _mm_add_epi32(v, _mm_shuffle_epi32(v, 0x4e));
    v = _mm_add_epi32(v, _mm_shuffle_epi32(v, 0xb1));

    return _mm_cvtsi128_si32(v);
}

ALWAYS int32_t
sum_of_words(__m256i v)
{
    v = _mm256_madd_epi16(v, _mm256_set1_epi16(1));

    return sum_of(_mm_add_epi32(
        _mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1)));
}

/* Packing goes within halves of a vector: the quarters are put in order. */
ALWAYS void
round_step(char *q, const float *x, float r, uint32_t bytes, int32_t half[2])
{
    __m256i n[4], w[2];
    uint32_t i;

    for (i = 0; i < 4; i++) {
        n[i] = _mm256_cvtps_epi32(
            _mm256_mul_ps(_mm256_loadu_ps(x + i * 8), _mm256_set1_ps(r)));
    }

    for (i = 0; i < 2; i++) {
        w[i] = _mm256_permute4x64_epi64(
            _mm256_packs_epi32(n[2 * i], n[2 * i + 1]), 0xd8);
        half[i] = sum_of_words(w[i]);
    }

    if (bytes == 2) {
        _mm256_storeu_si256((__m256i *) (void *) q, w[0]);
        _mm256_storeu_si256((__m256i *) (void *) (q + 32), w[1]);
    } else {
        _mm256_storeu_si256((__m256i *) (void *) q,
            _mm256_permute4x64_epi64(_mm256_packs_epi16(w[0], w[1]), 0xd8));
    }
}

#endif
