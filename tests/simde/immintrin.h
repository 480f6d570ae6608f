/*
 * Stands in for the compiler's header of this name, for a file that is built
 * for an instruction set that this machine may lack (tests/simde.sh): SIMDe
 * computes in plain C what the intrinsics say, and what Debian 12's does not
 * have yet is here.  A file that is built with AVX2 gets the compiler's own.
 *
 * fmadd is one rounding here as it is there: SIMDe's is two without FMA.
 */
#ifndef SIMDE_IMMINTRIN_H
#define SIMDE_IMMINTRIN_H

#ifdef __AVX2__
#include_next <immintrin.h>

/* Sums of four products of bytes; the machine lacks no other of AVX-VNNI's. */
#define _mm256_dpbusd_avx_epi32 emu_dpbusd256

static inline __m256i __attribute__((unused))
emu_dpbusd256(__m256i acc, __m256i u, __m256i s)
{
    __m256i bytes = _mm256_set1_epi16(255);
    __m256i even, odd;

    even = _mm256_madd_epi16(_mm256_and_si256(u, bytes),
        _mm256_srai_epi16(_mm256_slli_epi16(s, 8), 8));
    odd = _mm256_madd_epi16(_mm256_srli_epi16(u, 8), _mm256_srai_epi16(s, 8));

    return _mm256_add_epi32(acc, _mm256_add_epi32(even, odd));
}

#else

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <simde/x86/avx2.h>
#include <simde/x86/fma.h>
#include <simde/x86/f16c.h>

#include <math.h>
#include <stdint.h>
#include <string.h>

#define EMU               static inline __attribute__((unused))

typedef uint16_t __mmask16;

/* Lanes of a vector, in memory and back. */
#define EMU_GET(lanes, v) memcpy(lanes, &(v), sizeof(v))
#define EMU_PUT(v, lanes) memcpy(&(v), lanes, sizeof(v))

EMU float
emu_half(uint16_t h)
{
    return simde_mm_cvtss_f32(
        simde_mm_cvtph_ps(simde_mm_set1_epi16((short) h)));
}

EMU __m512
emu_cvtph_ps(__m256i h)
{
    uint16_t from[16];
    float to[16];
    __m512 v;
    int i;

    EMU_GET(from, h);
    for (i = 0; i < 16; i++) {
        to[i] = emu_half(from[i]);
    }
    EMU_PUT(v, to);
    return v;
}

/* Halves, to nearest even: the only rounding that is asked for. */
EMU __m256i
emu_cvtps_ph(__m512 v)
{
    float from[16];
    uint16_t to[16];
    uint32_t u, exp, frac, rest, at;
    __m256i h;
    int i;

    EMU_GET(from, v);
    for (i = 0; i < 16; i++) {
        memcpy(&u, &from[i], 4);
        to[i] = (uint16_t) (u >> 16 & 0x8000);
        exp = u >> 23 & 0xff;
        frac = u & 0x7fffff;
        if (exp == 0xff) {
            to[i] |= (uint16_t) (0x7c00 | (frac != 0 ? 0x200 | frac >> 13 : 0));
        } else if (exp > 142) {
            to[i] |= 0x7c00;
        } else if (exp >= 102) {
            at = exp > 112 ? 13 : 126 - exp;
            frac |= 0x800000;
            rest = frac & ((1u << at) - 1);
            frac >>= at;
            frac +=
                rest > 1u << (at - 1) || (rest == 1u << (at - 1) && (frac & 1));
            /* the one before the point is the exponent's lowest bit */
            to[i] |= (uint16_t) (exp > 112 ? ((exp - 113) << 10) + frac : frac);
        }
    }
    EMU_PUT(h, to);
    return h;
}

#define EMU_WIDEN(name, from_t, vec_t, to_t, out_t)                            \
    EMU out_t name(vec_t a)                                                    \
    {                                                                          \
        from_t from[sizeof(a) / sizeof(from_t)];                               \
        to_t to[sizeof(out_t) / sizeof(to_t)];                                 \
        out_t v;                                                               \
        size_t i;                                                              \
                                                                               \
        EMU_GET(from, a);                                                      \
        for (i = 0; i < sizeof(to) / sizeof(to[0]); i++) {                     \
            to[i] = (to_t) from[i];                                            \
        }                                                                      \
        EMU_PUT(v, to);                                                        \
        return v;                                                              \
    }

EMU_WIDEN(emu_epi8_epi32, int8_t, __m128i, int32_t, __m512i)
EMU_WIDEN(emu_epu8_epi32, uint8_t, __m128i, int32_t, __m512i)
EMU_WIDEN(emu_epu16_epi32, uint16_t, __m256i, int32_t, __m512i)
EMU_WIDEN(emu_epi32_ps, int32_t, __m512i, float, __m512)
EMU_WIDEN(emu_ps_pd, float, __m256, double, __m512d)

EMU __m256
emu_f32x8(__m512 v, int half)
{
    float lanes[16];
    __m256 h;

    EMU_GET(lanes, v);
    EMU_PUT(h, lanes + 8 * half);
    return h;
}

EMU __m256d
emu_f64x4(__m512d v, int half)
{
    double lanes[8];
    __m256d h;

    EMU_GET(lanes, v);
    EMU_PUT(h, lanes + 4 * half);
    return h;
}

/* Only what the mask has is touched. */
EMU __m512
emu_maskz_loadu_ps(__mmask16 m, const void *p)
{
    float lanes[16] = {0};
    __m512 v;
    int i;

    for (i = 0; i < 16; i++) {
        if (m >> i & 1) {
            memcpy(&lanes[i], (const char *) p + 4 * i, 4);
        }
    }
    EMU_PUT(v, lanes);
    return v;
}

EMU void
emu_mask_storeu_ps(void *p, __mmask16 m, __m512 v)
{
    float lanes[16];
    int i;

    EMU_GET(lanes, v);
    for (i = 0; i < 16; i++) {
        if (m >> i & 1) {
            memcpy((char *) p + 4 * i, &lanes[i], 4);
        }
    }
}

EMU void
emu_mask_storeu_epi16(void *p, __mmask16 m, __m256i v)
{
    uint16_t lanes[16];
    int i;

    EMU_GET(lanes, v);
    for (i = 0; i < 16; i++) {
        if (m >> i & 1) {
            memcpy((char *) p + 2 * i, &lanes[i], 2);
        }
    }
}

EMU __m256i
emu_maskz_loadu_epi16(__mmask16 m, const void *p)
{
    uint16_t lanes[16] = {0};
    __m256i v;
    int i;

    for (i = 0; i < 16; i++) {
        if (m >> i & 1) {
            memcpy(&lanes[i], (const char *) p + 2 * i, 2);
        }
    }
    EMU_PUT(v, lanes);
    return v;
}

#define EMU_FMA(name, vec_t, real_t, term)                                     \
    EMU vec_t name(vec_t a, vec_t b, vec_t c)                                  \
    {                                                                          \
        real_t x[sizeof(a) / sizeof(real_t)], y[sizeof(a) / sizeof(real_t)];   \
        real_t z[sizeof(a) / sizeof(real_t)];                                  \
        size_t i;                                                              \
                                                                               \
        EMU_GET(x, a);                                                         \
        EMU_GET(y, b);                                                         \
        EMU_GET(z, c);                                                         \
        for (i = 0; i < sizeof(x) / sizeof(x[0]); i++) {                       \
            z[i] = term;                                                       \
        }                                                                      \
        EMU_PUT(c, z);                                                         \
        return c;                                                              \
    }

EMU __m512i
emu_madd_epi16(__m512i a, __m512i b)
{
    int16_t x[32], y[32];
    int32_t z[16];
    int i;

    EMU_GET(x, a);
    EMU_GET(y, b);
    for (i = 0; i < 16; i++) {
        z[i] = x[2 * i] * y[2 * i] + x[2 * i + 1] * y[2 * i + 1];
    }
    EMU_PUT(a, z);
    return a;
}

/* f, or nothing of its sign where it is below the normal numbers. */
EMU float
emu_normal(float f)
{
    return fabsf(f) < 0x1p-126f ? copysignf(0, f) : f;
}

/* Floats as BF16, to nearest even. */
EMU __m256bh
emu_cvtneps_pbh(__m512 v)
{
    float from[16];
    uint16_t to[16];
    uint32_t u;
    __m256bh h;
    int i;

    EMU_GET(from, v);
    for (i = 0; i < 16; i++) {
        from[i] = emu_normal(from[i]);
        memcpy(&u, &from[i], 4);
        u = isnan(from[i]) ? u | 0x400000 : u + 0x7fff + (u >> 16 & 1);
        to[i] = (uint16_t) (u >> 16);
    }
    EMU_PUT(h, to);
    return h;
}

EMU float
emu_bf16(uint16_t h)
{
    uint32_t u = (uint32_t) h << 16;
    float f;

    memcpy(&f, &u, 4);
    return emu_normal(f);
}

/*
 * Sums of products of pairs of BF16, the second of a pair first; what is below
 * the normal numbers is nothing, on the way in and out.
 */
EMU __m512
emu_dpbf16(__m512 acc, __m512bh a, __m512bh b)
{
    uint16_t x[32], y[32];
    float z[16];
    int i, j;

    EMU_GET(x, a);
    EMU_GET(y, b);
    EMU_GET(z, acc);
    for (i = 0; i < 16; i++) {
        for (j = 2 * i + 1; j >= 2 * i; j--) {
            z[i] = emu_normal(
                fmaf(emu_bf16(x[j]), emu_bf16(y[j]), emu_normal(z[i])));
        }
    }
    EMU_PUT(acc, z);
    return acc;
}

EMU_FMA(emu_fmadd_ps, __m512, float, fmaf(x[i], y[i], z[i]))
EMU_FMA(emu_fnmadd_ps, __m512, float, fmaf(-x[i], y[i], z[i]))
EMU_FMA(emu_fmadd_pd, __m512d, double, fma(x[i], y[i], z[i]))

#undef _mm512_fmadd_ps
#undef _mm512_fnmadd_ps
#undef _mm512_fmadd_pd
#define _mm512_fmadd_ps          emu_fmadd_ps
#define _mm512_fnmadd_ps         emu_fnmadd_ps
#define _mm512_fmadd_pd          emu_fmadd_pd
#define _mm512_cvtph_ps          emu_cvtph_ps
#define _mm512_cvtps_ph(v, mode) emu_cvtps_ph(v)
#define _mm512_cvtepi8_epi32     emu_epi8_epi32
#define _mm512_cvtepu8_epi32     emu_epu8_epi32
#define _mm512_cvtepu16_epi32    emu_epu16_epi32
#define _mm512_cvtepi32_ps       emu_epi32_ps
#define _mm512_cvtps_pd          emu_ps_pd
#undef _mm512_extractf32x8_ps
#undef _mm512_extractf64x4_pd
#define _mm512_extractf32x8_ps   emu_f32x8
#define _mm512_extractf64x4_pd   emu_f64x4
#define _mm512_maskz_loadu_ps    emu_maskz_loadu_ps
#define _mm512_mask_storeu_ps    emu_mask_storeu_ps
#define _mm256_maskz_loadu_epi16 emu_maskz_loadu_epi16
#define _cvtsh_ss                emu_half
#undef _mm512_dpbf16_ps
#define _mm256_mask_storeu_epi16 emu_mask_storeu_epi16
#define _mm512_cvtneps_pbh       emu_cvtneps_pbh
#define _mm512_dpbf16_ps         emu_dpbf16
#undef _mm512_madd_epi16
#define _mm512_madd_epi16 emu_madd_epi16

#endif
#endif
