/*
 * Products over panels with AVX-512 (F, BW, DQ, VL), without and with VNNI:
 * what vec_panel.h is told.
 *
 * Both are as in avx2_panel.c, at twice the width: a panel is one vector.  With
 * 32 registers a tile has four panels, all of which a load of x feeds.
 */
#include "cpu.h"

#include <immintrin.h>
#include <string.h>

#ifndef ALWAYS
#define ALWAYS static inline __attribute__((always_inline))
#endif

#define LANES    16
#define P_INTS   4
#define P_MANY   4
#define P_FLOATS 8

#ifdef CPU_VNNI
#define PANELS   cpu_panels_avx512vnni
#define WORDS_8  0
#define MAC_BITS 32
#else
#define PANELS   cpu_panels_avx512
#define WORDS_8  1
#define MAC_BITS 15
#endif

#define V(op) _mm512_##op##_ps

typedef __m512 vf_t;
typedef __m512i vi_t;
typedef __m256i vh_t;

ALWAYS vf_t
from_f16(vh_t h)
{
    return _mm512_cvtph_ps(h);
}

ALWAYS vf_t
from_bf16(vh_t h)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

ALWAYS vh_t
load_halves(const char *p)
{
    return _mm256_loadu_si256((const __m256i *) p);
}

ALWAYS vf_t
from_bytes(const uint8_t *p)
{
    return _mm512_cvtepi32_ps(
        _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *) p)));
}

ALWAYS vf_t
from_chars(const uint8_t *p)
{
    return _mm512_cvtepi32_ps(
        _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *) p)));
}

ALWAYS vf_t
to_floats32(vi_t v)
{
    return _mm512_cvtepi32_ps(v);
}

ALWAYS vi_t
load_ints(const uint8_t *p)
{
    return _mm512_loadu_si512(p);
}

ALWAYS void
store_ints(uint8_t *p, vi_t v)
{
    _mm512_storeu_si512(p, v);
}

ALWAYS vi_t
zero_ints(void)
{
    return _mm512_setzero_si512();
}

ALWAYS vi_t
add32(vi_t a, vi_t b)
{
    return _mm512_add_epi32(a, b);
}

/* Shifts go over pairs of bytes; what they carry across is cut off. */
ALWAYS vi_t
bits_of(vi_t v, uint32_t n, uint8_t mask)
{
    v = n == 0 ? v : _mm512_srl_epi16(v, _mm_cvtsi32_si128((int) n));

    return _mm512_and_si512(v, _mm512_set1_epi8((char) mask));
}

ALWAYS vi_t
or_bit4(vi_t v, vi_t h, uint32_t n)
{
    return _mm512_or_si512(v, _mm512_slli_epi16(bits_of(h, n, 1), 4));
}

ALWAYS vi_t
or_times16(vi_t v, vi_t h)
{
    return _mm512_or_si512(v, _mm512_slli_epi16(h, 4));
}

ALWAYS vi_t
spread(const uint8_t *p)
{
    int32_t n;

    memcpy(&n, p, 4);

    return _mm512_set1_epi32(n);
}

#ifdef CPU_VNNI

ALWAYS vi_t
flip_top(vi_t v)
{
    return _mm512_xor_si512(v, _mm512_set1_epi8((char) 0x80));
}

ALWAYS vi_t
mac(vi_t acc, vi_t w, vi_t x)
{
    return _mm512_dpbusd_epi32(acc, w, x);
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
    acc = _mm512_add_epi16(acc, _mm512_maddubs_epi16(w, x));
    CPU_HERE(acc);

    return acc;
}

ALWAYS vi_t
fold(vi_t acc)
{
    return _mm512_madd_epi16(acc, _mm512_set1_epi16(1));
}

ALWAYS vi_t
load_words(const uint8_t *p)
{
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *) p));
}

ALWAYS vi_t
mac_words(vi_t acc, vi_t w, vi_t x)
{
    acc = _mm512_add_epi32(acc, _mm512_madd_epi16(w, x));
    CPU_HERE(acc);

    return acc;
}

#endif

#include "vec_panel.h"
