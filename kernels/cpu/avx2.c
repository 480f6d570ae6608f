/* The small functions with AVX2, FMA and F16C: what vec.h is told. */
#include "cpu.h"

#include <immintrin.h>
#include <string.h>

#ifndef ALWAYS
#define ALWAYS static inline __attribute__((always_inline))
#endif

#define ISA       cpu_avx2
#define ISA_NAME  "avx2"
#define LANES     8
#define PANELS_OF &cpu_panels_avx2

#define V(op)   _mm256_##op##_ps
#define D(op)   _mm256_##op##_pd
#define INT(op) _mm256_##op

typedef __m256 vf_t;
typedef __m256d vd_t;
typedef __m128i vh_t;
typedef __m256i vi_t;

ALWAYS __m128
fold4(vf_t v)
{
    return _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
}

ALWAYS __m128d
fold2(vd_t v)
{
    return _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
}

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
to_f16(vf_t v)
{
    return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT);
}

ALWAYS vd_t
low(vf_t v)
{
    return _mm256_cvtps_pd(_mm256_castps256_ps128(v));
}

ALWAYS vd_t
high(vf_t v)
{
    return _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1));
}

ALWAYS vf_t
nearest(vf_t v)
{
    return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* The power is made of its exponent's bits. */
ALWAYS vf_t
scale_by(vf_t v, vf_t n)
{
    __m256i e;

    e = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));

    return _mm256_mul_ps(v, _mm256_castsi256_ps(_mm256_slli_epi32(e, 23)));
}

ALWAYS __m256i
mask_of(uint32_t n)
{
    return _mm256_cmpgt_epi32(
        _mm256_set1_epi32((int) n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

ALWAYS vh_t
load_halves(const char *p)
{
    return _mm_loadu_si128((const __m128i *) p);
}

ALWAYS vh_t
load_some_halves(const char *p, uint32_t n)
{
    vh_t h = _mm_setzero_si128();

    memcpy(&h, p, n * 2);

    return h;
}

ALWAYS vf_t
load_floats(const float *p, uint32_t n)
{
    return n == LANES ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, mask_of(n));
}

ALWAYS void
store_floats(float *p, vf_t v, uint32_t n)
{
    if (n == LANES) { /* masked stores are several times as slow */
        _mm256_storeu_ps(p, v);
    } else {
        _mm256_maskstore_ps(p, mask_of(n), v);
    }
}

ALWAYS vf_t
first(vf_t v, uint32_t n)
{
    return _mm256_and_ps(v, _mm256_castsi256_ps(mask_of(n)));
}

ALWAYS vf_t
max_floats(vf_t v, vf_t top, uint32_t n)
{
    return _mm256_blendv_ps(
        top, _mm256_max_ps(v, top), _mm256_castsi256_ps(mask_of(n)));
}

ALWAYS vi_t
gather(const char *const *p, uint32_t step, size_t at)
{
    return _mm256_inserti128_si256(
        _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *) (p[0] + at))),
        _mm_loadu_si128((const __m128i *) (p[step] + at)), 1);
}

ALWAYS vh_t
halves_low(vi_t v)
{
    return _mm256_castsi256_si128(v);
}

ALWAYS vh_t
halves_high(vi_t v)
{
    return _mm256_extracti128_si256(v, 1);
}

ALWAYS __m128i
bytes_low(vh_t h)
{
    return h;
}

ALWAYS __m128i
bytes_high(vh_t h)
{
    return _mm_unpackhi_epi64(h, h);
}

ALWAYS vf_t
as_floats(vi_t v)
{
    return _mm256_castsi256_ps(v);
}

ALWAYS __m128i
load_bytes(const char *p)
{
    return _mm_loadu_si64(p);
}

ALWAYS vf_t
to_floats(__m128i q)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q));
}

#include "vec.h"
