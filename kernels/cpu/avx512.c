/*
 * The small functions with AVX-512 (F, BW, DQ, VL): what vec.h is told.  Ends
 * are met by masks.
 */
#include "cpu.h"

#include <immintrin.h>
#include <string.h>

#ifndef ALWAYS
#define ALWAYS static inline __attribute__((always_inline))
#endif

#define ISA       cpu_avx512
#define ISA_NAME  "avx512"
#define LANES     16
#define PANELS_OF &cpu_panels_avx512

#define V(op)   _mm512_##op##_ps
#define D(op)   _mm512_##op##_pd
#define INT(op) _mm512_##op

typedef __m512 vf_t;
typedef __m512d vd_t;
typedef __m256i vh_t;
typedef __m512i vi_t;

ALWAYS __m128
fold4(vf_t v)
{
    __m256 h;

    h = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));

    return _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
}

ALWAYS __m128d
fold2(vd_t v)
{
    __m256d h;

    h = _mm256_add_pd(_mm512_castpd512_pd256(v), _mm512_extractf64x4_pd(v, 1));

    return _mm_add_pd(_mm256_castpd256_pd128(h), _mm256_extractf128_pd(h, 1));
}

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
to_f16(vf_t v)
{
    return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT);
}

ALWAYS vd_t
low(vf_t v)
{
    return _mm512_cvtps_pd(_mm512_castps512_ps256(v));
}

ALWAYS vd_t
high(vf_t v)
{
    return _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1));
}

ALWAYS vf_t
nearest(vf_t v)
{
    return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT);
}

ALWAYS vf_t
scale_by(vf_t v, vf_t n)
{
    return _mm512_scalef_ps(v, n);
}

ALWAYS __mmask16
mask_of(uint32_t n)
{
    return (__mmask16) ((1u << n) - 1);
}

ALWAYS vh_t
load_halves(const char *p)
{
    return _mm256_loadu_si256((const __m256i *) p);
}

ALWAYS vh_t
load_some_halves(const char *p, uint32_t n)
{
    return _mm256_maskz_loadu_epi16(mask_of(n), p);
}

ALWAYS vf_t
load_floats(const float *p, uint32_t n)
{
    return _mm512_maskz_loadu_ps(mask_of(n), p);
}

ALWAYS void
store_floats(float *p, vf_t v, uint32_t n)
{
    _mm512_mask_storeu_ps(p, mask_of(n), v);
}

ALWAYS vf_t
first(vf_t v, uint32_t n)
{
    return _mm512_maskz_mov_ps(mask_of(n), v);
}

ALWAYS vf_t
max_floats(vf_t v, vf_t top, uint32_t n)
{
    return _mm512_mask_max_ps(top, mask_of(n), v, top);
}

ALWAYS vi_t
gather(const char *const *p, uint32_t step, size_t at)
{
    __m128i q[4];
    uint32_t i;

    for (i = 0; i < 4; i++) {
        q[i] = _mm_loadu_si128((const __m128i *) (p[i * step] + at));
    }

    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_inserti128_si256(
                                  _mm256_castsi128_si256(q[0]), q[1], 1)),
        _mm256_inserti128_si256(_mm256_castsi128_si256(q[2]), q[3], 1), 1);
}

ALWAYS vh_t
halves_low(vi_t v)
{
    return _mm512_castsi512_si256(v);
}

ALWAYS vh_t
halves_high(vi_t v)
{
    return _mm512_extracti64x4_epi64(v, 1);
}

ALWAYS __m128i
bytes_low(vh_t h)
{
    return _mm_unpacklo_epi64(
        _mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));
}

ALWAYS __m128i
bytes_high(vh_t h)
{
    return _mm_unpackhi_epi64(
        _mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));
}

ALWAYS vf_t
as_floats(vi_t v)
{
    return _mm512_castsi512_ps(v);
}

ALWAYS __m128i
load_bytes(const char *p)
{
    return _mm_loadu_si128((const __m128i *) p);
}

ALWAYS vf_t
to_floats(__m128i q)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q));
}

#include "vec.h"
