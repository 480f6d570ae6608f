/*
 * The product over packed weight types, at every width: a part of vec.h.
 *
 * DESIGN.  To unpack a block takes longer than to multiply by it, so it is
 * done once for all rows of x: a piece of four weight rows becomes floats in
 * the first cache (dequant.h, compiled with the instruction set's flags), and
 * the rows of x are taken through it in turn, their sums waiting in memory
 * from piece to piece.  A type costs one function that unpacks a block, and is
 * multiplied by exactly what it is worth.
 *
 * For one row of x, which a sequence's next token is, the types with blocks of
 * sixteen groups are unpacked in the registers: up to a half faster, and the
 * same floats in the same order.
 *
 * The order is vec.h's: partial sum l of an output takes the terms l,
 * l + LANES, ... in turn.  A piece is a multiple of LANES and of all blocks.
 */
#ifndef VEC_PACKED_H
#define VEC_PACKED_H

#define PIECE 256

/* Rows of x from which on plain types with blocks are done so too. */
#define PACKED_MIN 8

/* Rows of x that a piece meets together: with four of w they fill vec.h's. */
#define PIECE_C TILE_R

#define DEQUANT_HALF(h) _cvtsh_ss(h)
#define DEQUANT_VECTORS

/*
 * dequant.h's sixteen numbers and what is done with them.  Shifts go over
 * pairs of bytes; what they carry from byte to byte is cut off.
 */
typedef __m128i q16_t;

ALWAYS q16_t
q16_load(const uint8_t *p)
{
    return _mm_loadu_si128((const __m128i *) p);
}

ALWAYS q16_t
q16_of(uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    return _mm_setr_epi32((int) a, (int) b, (int) c, (int) d);
}

ALWAYS q16_t
q16_low(q16_t q)
{
    return _mm_and_si128(q, _mm_set1_epi8(15));
}

ALWAYS q16_t
q16_high(q16_t q)
{
    return q16_low(_mm_srli_epi16(q, 4));
}

ALWAYS q16_t
q16_pair(q16_t q, uint32_t n)
{
    return _mm_and_si128(
        _mm_srl_epi16(q, _mm_cvtsi32_si128((int) n)), _mm_set1_epi8(3));
}

ALWAYS q16_t
q16_bit(q16_t q, uint32_t n, uint8_t v)
{
    __m128i bit = _mm_set1_epi8((char) (1u << n));

    return _mm_and_si128(
        _mm_cmpeq_epi8(_mm_and_si128(q, bit), bit), _mm_set1_epi8((char) v));
}

ALWAYS q16_t
q16_spread(uint32_t h, uint8_t v)
{
    __m128i q, bit = _mm_set1_epi64x((long long) 0x8040201008040201);

    q = _mm_shuffle_epi8(_mm_cvtsi32_si128((int) h),
        _mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1));

    return _mm_and_si128(
        _mm_cmpeq_epi8(_mm_and_si128(q, bit), bit), _mm_set1_epi8((char) v));
}

ALWAYS q16_t
q16_plus(q16_t q, q16_t o)
{
    return _mm_add_epi8(q, o);
}

ALWAYS q16_t
q16_less(q16_t q, uint8_t v)
{
    return _mm_sub_epi8(q, _mm_set1_epi8((char) v));
}

ALWAYS q16_t
q16_times16(q16_t q)
{
    return _mm_slli_epi16(q, 4);
}

ALWAYS q16_t
q16_digit(q16_t q, uint32_t power)
{
    __m256i v = _mm256_cvtepu8_epi16(q);

    v = _mm256_mullo_epi16(v, _mm256_set1_epi16((short) power));
    v = _mm256_and_si256(v, _mm256_set1_epi16(255));
    v = _mm256_mullo_epi16(v, _mm256_set1_epi16(3));
    v = _mm256_srli_epi16(v, 8);

    return _mm_packus_epi16(
        _mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
}

ALWAYS q16_t
q16_look(const int8_t *table, q16_t q)
{
    return _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *) table), q);
}

/* The first eight as floats, and the others. */
ALWAYS __m256
q16_first(q16_t q)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q));
}

ALWAYS __m256
q16_second(q16_t q)
{
    return q16_first(_mm_unpackhi_epi64(q, q));
}

ALWAYS void
q16_put(float *y, q16_t q, float d)
{
    __m256 ds = _mm256_set1_ps(d);

    _mm256_storeu_ps(y, _mm256_mul_ps(ds, q16_first(q)));
    _mm256_storeu_ps(y + 8, _mm256_mul_ps(ds, q16_second(q)));
}

ALWAYS void
q16_put_plus(float *y, q16_t q, float d, float m)
{
    __m256 ds = _mm256_set1_ps(d), ms = _mm256_set1_ps(m);

    _mm256_storeu_ps(y, _mm256_add_ps(_mm256_mul_ps(ds, q16_first(q)), ms));
    _mm256_storeu_ps(
        y + 8, _mm256_add_ps(_mm256_mul_ps(ds, q16_second(q)), ms));
}

/* A sign is a bit moved to where a float has it. */
ALWAYS void
q16_points(float *y, uint32_t a, uint32_t b, uint32_t signs, float d)
{
    __m256i q = _mm256_cvtepu8_epi32(
        _mm_cvtsi64_si128((int64_t) ((uint64_t) b << 32 | a)));
    __m256 v = _mm256_mul_ps(_mm256_cvtepi32_ps(q), _mm256_set1_ps(d));
    __m256i s = _mm256_sllv_epi32(_mm256_set1_epi32((int) signs),
        _mm256_setr_epi32(31, 30, 29, 28, 27, 26, 25, 24));

    s = _mm256_and_si256(s, _mm256_set1_epi32(INT32_MIN));
    _mm256_storeu_ps(y, _mm256_xor_ps(v, _mm256_castsi256_ps(s)));
}

#include "../dequant.h"

/* Part i of sixteen numbers that are LANES floats each. */
ALWAYS vf_t
part_of(q16_t q, uint32_t i)
{
    return to_floats(i == 0 ? q : _mm_unpackhi_epi64(q, q));
}

/* dequant.h's two functions of a type in groups. */
ALWAYS void
scales_of(uint32_t type, float *d, float *m, const uint8_t *p)
{
    switch (type) {
#define X(name, elems, bytes, share, plus)                                     \
    case KN_##name:                                                            \
        dequant_scales_##name(d, m, p);                                        \
        break;
        DEQUANT_K_LIST(X)
#undef X
    }
}

ALWAYS q16_t
quants_of(uint32_t type, const uint8_t *p, uint32_t g)
{
    switch (type) {
#define X(name, elems, bytes, share, plus)                                     \
    case KN_##name:                                                            \
        return dequant_quants_##name(p, g);
        DEQUANT_K_LIST(X)
#undef X
    default:
        return q16_load(p);
    }
}

/*
 * A row of x with four of w, from row j on, unpacked in the registers: the
 * floats of a piece, in their order.
 */
ALWAYS void
grouped_tile(const cpu_mm_t *a, uint32_t j, uint32_t type, uint32_t bytes,
    uint32_t share, uint32_t plus)
{
    vf_t acc[4][4], t, v;
    const uint8_t *w[4];
    float d[4][16], m[4][16];
    uint32_t e, g, u, r, b;
    q16_t q;

    for (r = 0; r < 4; r++) {
        w[r] = (const uint8_t *) a->w + (j + r) * a->stride;
        acc[r][0] = V(setzero)();
    }

    for (e = 0; e < a->k; e += 256) {
        for (r = 0; r < 4; r++) {
            for (b = 0; b < bytes; b += 64) {
                _mm_prefetch(
                    (const char *) ((uintptr_t) w[r] + 4 * a->stride + b),
                    _MM_HINT_T0);
            }

            scales_of(type, d[r], m[r], w[r]);
        }

        DEQUANT_UNROLL
        for (g = 0; g < 16; g++) {
            for (r = 0; r < 4; r++) {
                q = quants_of(type, w[r], g);

                for (u = 0; u < 16 / LANES; u++) {
                    t = V(loadu)(a->x + e + g * 16 + u * LANES);
                    v = V(mul)(V(set1)(d[r][g / share]), part_of(q, u));
                    v = plus ? V(add)(v, V(set1)(m[r][g / share])) : v;
                    acc[r][0] = V(fmadd)(v, t, acc[r][0]);
                }
            }
        }

        for (r = 0; r < 4; r++) {
            w[r] += bytes;
        }
    }

    finish(a, 0, j, 4, 1, acc);
}

typedef void (*row_fn)(float *dst, const void *src, uint32_t n);

/* sums[c][r] += x[c, 0 .. n) . w[r, 0 .. n), for C rows of x and four of w */
ALWAYS void
piece_tile(vf_t (*sums)[4], const float *x, size_t ldx, const float *w,
    uint32_t n, uint32_t C)
{
    vf_t acc[4][4], t[4], v;
    uint32_t e, r, c;

    for (c = 0; c < C; c++) {
        for (r = 0; r < 4; r++) {
            acc[c][r] = sums[c][r];
        }
    }

    for (e = 0; e < n; e += LANES) {
        for (c = 0; c < C; c++) {
            t[c] = V(loadu)(x + c * ldx + e);
        }

        for (r = 0; r < 4; r++) {
            v = V(load)(w + r * PIECE + e);
            for (c = 0; c < C; c++) {
                acc[c][r] = V(fmadd)(v, t[c], acc[c][r]);
            }
        }
    }

    for (c = 0; c < C; c++) {
        for (r = 0; r < 4; r++) {
            sums[c][r] = acc[c][r];
        }
    }
}

/* The R rows of w from j on, at byte at, as floats; asks for the next four. */
ALWAYS void
unpack(const cpu_mm_t *a, uint32_t j, uint32_t R, size_t at, uint32_t n,
    size_t bytes, row_fn row, float *w)
{
    const char *src;
    size_t b;
    uint32_t r;

    for (r = 0; r < R; r++) {
        src = (const char *) a->w + (j + r) * a->stride + at;

        for (b = 0; b < bytes; b += 64) {
            _mm_prefetch((const char *) ((uintptr_t) src + 4 * a->stride + b),
                _MM_HINT_T0);
        }

        row(w + r * PIECE, src, n);
    }
}

static void
matmul_packed(const cpu_mm_t *a, uint32_t block, uint32_t bytes, row_fn row)
{
    vf_t sums[CPU_TILE_M][4];
    float w[4 * PIECE] __attribute__((aligned(64)));
    const float *x;
    uint32_t i, j, e, n, R;
    size_t size;

    assert(a->m > 0 && a->m <= CPU_TILE_M && a->n > 0 && a->k % block == 0);
    memset(w, 0, sizeof(w));

    for (j = 0; j < a->n; j += R) {
        R = a->n - j < 4 ? a->n - j : 4;
        memset(sums, 0, a->m * sizeof(sums[0]));

        for (e = 0; e < a->k; e += n) {
            n = a->k - e < PIECE ? a->k - e : PIECE;
            size = (size_t) n / block * bytes;
            unpack(a, j, R, (size_t) e / block * bytes, n, size, row, w);
            x = a->x + e;

            for (i = 0; i + PIECE_C <= a->m; i += PIECE_C) {
                piece_tile(sums + i, x + i * a->ldx, a->ldx, w, n, PIECE_C);
            }

            for (; i < a->m; i++) {
                piece_tile(sums + i, x + i * a->ldx, a->ldx, w, n, 1);
            }
        }

        for (i = 0; i < a->m; i++) {
            float y[4];

            _mm_storeu_ps(y, reduce4(sums[i], 1));
            memcpy(a->y + i * a->ldy + j, y, R * sizeof(float));
        }
    }
}

#define X(name, elems, bytes)                                                  \
    static void row_##name(float *dst, const void *src, uint32_t n)            \
    {                                                                          \
        uint32_t i;                                                            \
        const uint8_t *p = src;                                                \
                                                                               \
        for (i = 0; i < n; i += (elems), p += (bytes)) {                       \
            dequant_##name(dst + i, p);                                        \
        }                                                                      \
    }
KN_PACKED_LIST(X)
X(Q8_0, 32, 34)
X(Q4_0, 32, 18)
#undef X

/* One row of x takes the tiles that are whole; all else goes by pieces. */
#define X(name, elems, bytes, share, plus)                                     \
    static void matmul_##name(const cpu_mm_t *a)                               \
    {                                                                          \
        uint32_t j;                                                            \
        cpu_mm_t rest = *a;                                                    \
                                                                               \
        for (j = 0; a->m == 1 && j + 4 <= a->n; j += 4) {                      \
            grouped_tile(a, j, KN_##name, bytes, share, plus);                 \
        }                                                                      \
                                                                               \
        if (j < a->n) {                                                        \
            rest.w = (const char *) a->w + j * a->stride;                      \
            rest.y += j;                                                       \
            rest.n -= j;                                                       \
            matmul_packed(&rest, elems, bytes, row_##name);                    \
        }                                                                      \
    }
DEQUANT_K_LIST(X)
#undef X

#define X(name, elems, bytes, share, plus)                                     \
    static void matmul_##name(const cpu_mm_t *a)                               \
    {                                                                          \
        matmul_packed(a, elems, bytes, row_##name);                            \
    }
DEQUANT_SHORT_LIST(X)
X(TQ1_0, 256, 54, 0, 0)
X(IQ3_S, 256, 110, 0, 0)
X(IQ3_XXS, 256, 98, 0, 0)
#undef X

#endif
