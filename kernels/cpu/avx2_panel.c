/*
 * Products over panels with AVX2 and FMA, without and with VNNI: what
 * vec_panel.h is told.
 *
 * AVX2 has no product of signed bytes.  maddubs adds two products of an
 * unsigned and a signed byte to sixteen bits, which eight numbers of four bits
 * fit one upon another; numbers of eight bits go as words, exactly.
 *
 * VNNI's product of unsigned and signed bytes adds up in 32 bits and cannot
 * overflow, so that all kinds of numbers go as bytes: signed ones of eight bits
 * as if they were 128 larger.
 */
#include "cpu.h"

#include <immintrin.h>
#include <string.h>

#ifndef ALWAYS
#define ALWAYS static inline __attribute__((always_inline))
#endif

#define LANES    8
#define P_INTS   1
#define P_MANY   1
#define P_FLOATS 4
#define P_KEEP   (ROWS + 1)

#ifdef CPU_VNNI
#define PANELS   cpu_panels_avxvnni
#define REST     cpu_panels_avx2
#define WORDS_8  0
#define MAC_BITS 32
#else
#define PANELS   cpu_panels_avx2
#define WORDS_8  1
#define MAC_BITS 15
#endif

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

/* LANES bytes, one in each lane. */
ALWAYS vi_t
widen(const uint8_t *p)
{
    return _mm256_cvtepu8_epi32(_mm_loadu_si64(p));
}

ALWAYS vf_t
from_bits(const uint8_t *p, uint32_t n, uint8_t mask)
{
    vi_t v = _mm256_srl_epi32(widen(p), _mm_cvtsi32_si128((int) n));

    return _mm256_cvtepi32_ps(_mm256_and_si256(v, _mm256_set1_epi32(mask)));
}

/* The first two are below the exponents of normal numbers. */
ALWAYS vf_t
from_powers(const uint8_t *p)
{
    vi_t one = _mm256_set1_epi32(1), n = widen(p);
    vi_t low = _mm256_slli_epi32(_mm256_add_epi32(n, one), 21);

    n = _mm256_slli_epi32(_mm256_sub_epi32(n, one), 23);
    return _mm256_castsi256_ps(_mm256_blendv_epi8(
        low, n, _mm256_cmpgt_epi32(n, _mm256_setzero_si256())));
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
or_above(vi_t v, vi_t h, uint32_t n)
{
    return _mm256_or_si256(v, _mm256_sll_epi16(h, _mm_cvtsi32_si128((int) n)));
}

ALWAYS vi_t
plus(vi_t v, uint32_t n)
{
    return _mm256_add_epi8(v, _mm256_set1_epi8((char) n));
}

ALWAYS vi_t
times(vi_t v, uint32_t n)
{
    return _mm256_mullo_epi16(v, _mm256_set1_epi16((short) n));
}

/* Of pairs of bytes the lower ones, and the upper ones where they are. */
ALWAYS vi_t
digit(vi_t v, uint32_t power)
{
    vi_t byte = _mm256_set1_epi16(255), low, up;

    low = times(_mm256_and_si256(times(v, power), byte), 3);
    up =
        times(_mm256_and_si256(times(_mm256_srli_epi16(v, 8), power), byte), 3);

    return _mm256_or_si256(
        _mm256_srli_epi16(low, 8), _mm256_andnot_si256(byte, up));
}

ALWAYS vi_t
look(const int8_t *table, uint32_t n, vi_t v)
{
    vi_t t =
        _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *) table));

    return _mm256_shuffle_epi8(plus(t, n), v);
}

ALWAYS vi_t
look_far(const uint32_t *table, vi_t v)
{
    return _mm256_i32gather_epi32((const int *) table, v, 4);
}

ALWAYS vi_t
negate(vi_t v, vi_t s, uint32_t n)
{
    vi_t bits = _mm256_set1_epi32((int) (0x08040201u << n));

    s = _mm256_mullo_epi32(s, _mm256_set1_epi32(0x01010101));
    s = _mm256_cmpeq_epi8(_mm256_and_si256(s, bits), bits);

    return _mm256_sub_epi8(_mm256_xor_si256(v, s), s);
}

ALWAYS vi_t
spread(const uint8_t *p)
{
    int32_t n;

    memcpy(&n, p, 4);

    return _mm256_set1_epi32(n);
}

#ifdef CPU_VNNI

ALWAYS vi_t
mac(vi_t acc, vi_t w, vi_t x)
{
    return _mm256_dpbusd_avx_epi32(acc, w, x);
}

ALWAYS vi_t
fold(vi_t acc)
{
    return acc;
}

#else

ALWAYS vi_t
mac(vi_t acc, vi_t w, vi_t x)
{
    acc = _mm256_add_epi16(acc, _mm256_maddubs_epi16(w, x));
    CPU_HERE(acc);

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
look_words(const int8_t *table, const uint8_t *p, uint32_t n)
{
    __m128i q = _mm_loadu_si128((const __m128i *) p);

    q = _mm_srl_epi16(q, _mm_cvtsi32_si128((int) n));
    q = _mm_and_si128(q, _mm_set1_epi8(15));
    q = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *) table), q);

    return _mm256_cvtepi8_epi16(q);
}

ALWAYS vi_t
mac_words(vi_t acc, vi_t w, vi_t x)
{
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(w, x));
    CPU_HERE(acc);

    return acc;
}

#endif

#include "vec_panel.h"
