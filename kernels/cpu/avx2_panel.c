/*
 * Products over panels with AVX2 and FMA: what vec_panel.h is told.
 *
 * There is no product of signed bytes.  maddubs adds two products of an
 * unsigned and a signed byte to sixteen bits, which eight numbers of four bits
 * fit one upon another; numbers of eight bits go as words, exactly.
 */
#include "cpu.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define ALWAYS static inline __attribute__((always_inline))

#define PANELS   cpu_panels_avx2
#define LANES    8
#define P_INTS   1
#define P_MANY   1
#define P_FLOATS 4
#define WORDS_8  1
#define MAC_BITS 15

#define V(op) _mm256_##op##_ps

typedef __m256 vf_t;
typedef __m256i vi_t;
typedef __m128i vh_t;

ALWAYS vf_t
from_f16(vh_t h)
{
    return _mm256_cvtph_ps(h);
}

ALWAYS vf_t
from_bf16(vh_t h)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

ALWAYS vh_t
load_halves(const char *p)
{
    return _mm_loadu_si128((const __m128i *) p);
}

ALWAYS vf_t
from_bytes(const uint8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadu_si64(p)));
}

ALWAYS vf_t
from_chars(const uint8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadu_si64(p)));
}

ALWAYS vf_t
to_floats32(vi_t v)
{
    return _mm256_cvtepi32_ps(v);
}

ALWAYS vi_t
load_ints(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *) p);
}

ALWAYS void
store_ints(uint8_t *p, vi_t v)
{
    _mm256_storeu_si256((__m256i *) p, v);
}

ALWAYS vi_t
zero_ints(void)
{
    return _mm256_setzero_si256();
}

ALWAYS vi_t
add32(vi_t a, vi_t b)
{
    return _mm256_add_epi32(a, b);
}

/* Shifts go over pairs of bytes; what they carry across is cut off. */
ALWAYS vi_t
bits_of(vi_t v, uint32_t n, uint8_t mask)
{
    v = n == 0 ? v : _mm256_srl_epi16(v, _mm_cvtsi32_si128((int) n));

    return _mm256_and_si256(v, _mm256_set1_epi8((char) mask));
}

ALWAYS vi_t
or_bit4(vi_t v, vi_t h, uint32_t n)
{
    return _mm256_or_si256(v, _mm256_slli_epi16(bits_of(h, n, 1), 4));
}

ALWAYS vi_t
or_times16(vi_t v, vi_t h)
{
    return _mm256_or_si256(v, _mm256_slli_epi16(h, 4));
}

ALWAYS vi_t
spread(const uint8_t *p)
{
    int32_t n;

    memcpy(&n, p, 4);

    return _mm256_set1_epi32(n);
}

ALWAYS vi_t
mac(vi_t acc, vi_t w, vi_t x)
{
    acc = _mm256_add_epi16(acc, _mm256_maddubs_epi16(w, x));
    __asm__("" : "+x"(acc));

    return acc;
}

ALWAYS vi_t
fold(vi_t acc)
{
    return _mm256_madd_epi16(acc, _mm256_set1_epi16(1));
}

ALWAYS vi_t
load_words(const uint8_t *p)
{
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *) p));
}

ALWAYS vi_t
mac_words(vi_t acc, vi_t w, vi_t x)
{
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(w, x));
    __asm__("" : "+x"(acc));

    return acc;
}

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
    for (i = 0; i < CPU_STEP; i += LANES) {
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
    v = fold(v);

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
            _mm256_mul_ps(_mm256_loadu_ps(x + i * LANES), _mm256_set1_ps(r)));
    }

    for (i = 0; i < 2; i++) {
        w[i] = _mm256_permute4x64_epi64(
            _mm256_packs_epi32(n[2 * i], n[2 * i + 1]), 0xd8);
        half[i] = sum_of_words(w[i]);
    }

    if (bytes == 2) {
        store_ints((uint8_t *) q, w[0]);
        store_ints((uint8_t *) q + 32, w[1]);
    } else {
        store_ints((uint8_t *) q,
            _mm256_permute4x64_epi64(_mm256_packs_epi16(w[0], w[1]), 0xd8));
    }
}

#include "vec_panel.h"
