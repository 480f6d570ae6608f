/*
 * Blocks of each weight type as floats: dequant_TYPE(y, p) writes a block's
 * elements to y from the bytes at p.
 *
 * DESIGN.  A block is small whole numbers q and what they are scaled by.  They
 * are taken out of the bytes sixteen at a time, by the few operations on a
 * q16_t, so that compilers find vectors in them.  The bits of a value are part
 * of the format: each product and sum is rounded once, in the order written,
 * and must not be fused (the Makefile's -ffp-contract=off).
 *
 * In the layouts below [n] counts bytes.
 *
 *      Q4_1    d f16, m f16, q[16]            q d + m
 *      Q5_0    d f16, h[4], q[16]             (q - 16) d
 *      Q5_1    d f16, m f16, h[4], q[16]      q d + m
 *          q are nibbles, the low ones first; bit i of h is the fifth of q
 *      Q2_K    scales[16], q[64], d f16, m f16
 *      Q3_K    high[32], q[64], scales[12], d f16
 *          q are pairs of bits: of 32 bytes first all lowest pairs, then the
 *          next; groups of 16
 *      Q4_K    d f16, m f16, scales[12], q[128]
 *      Q5_K    d f16, m f16, scales[12], high[32], q[128]
 *          nibbles: of 32 bytes the low ones, then the high; groups of 32
 *      Q6_K    low[128], high[64], scales[16], d f16
 *      IQ4_NL  d f16, q[16]                   d level(q)
 *      IQ4_XS  d f16, high u16, low[4], q[128]
 *      IQ3_S   d f16, q[64], high[8], signs[32], scales[4]
 *      IQ3_XXS d f16, q[64], (signs and scale u32)[8]
 *      TQ1_0   q[48], rest[4], d f16          five or four -1, 0, 1 in a byte
 *      TQ2_0   q[64], d f16                   (q - 1) d, in Q2_K's order
 *      MXFP4   e u8, q[16]                    2^(e - 127) E2M1(q)
 */
#ifndef DEQUANT_H
#define DEQUANT_H

#include "dequant_tables.h"
#include "kernels.h"

#include <string.h>

#define DEQUANT static inline

/* The f16 number of those 16 bits. */
DEQUANT float
dequant_half_bits(uint16_t h)
{
    union {
        uint32_t u;
        float f;
    } v;
    uint32_t sign, mag;

    sign = (uint32_t) (h & 0x8000) << 16;
    mag = h & 0x7fff;

    if (mag >= 0x7c00) { /* Inf, NaN */
        v.u = sign | 0x7f800000 | (mag & 0x3ff) << 13;
        return v.f;
    }

    if (mag >= 0x400) {
        v.u = sign | ((mag << 13) + (112u << 23));
        return v.f;
    }

    v.f = (float) mag * 0x1p-24f; /* subnormal: exact in a float */
    v.u |= sign;
    return v.f;
}

/* The f16 number at p. */
DEQUANT float
dequant_half(const uint8_t *p)
{
    uint16_t h;

    memcpy(&h, p, 2);
    return dequant_half_bits(h);
}

/* Sixteen whole numbers of a byte each. */
typedef struct {
    uint8_t b[16];
} q16_t;

#define Q16_EACH(expression)                                                   \
    q16_t r;                                                                   \
                                                                               \
    for (uint32_t i = 0; i < 16; i++) {                                        \
        r.b[i] = (uint8_t) (expression);                                       \
    }                                                                          \
                                                                               \
    return r

DEQUANT q16_t
q16_load(const uint8_t *p)
{
    Q16_EACH(p[i]);
}

/* The bytes of a and b, the lowest first; of c and d. */
DEQUANT q16_t
q16_of(uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    uint32_t u[4] = {a, b, c, d};

    return q16_load((const uint8_t *) u);
}

/* The low and the high nibbles. */
DEQUANT q16_t
q16_low(q16_t q)
{
    Q16_EACH(q.b[i] & 15);
}

DEQUANT q16_t
q16_high(q16_t q)
{
    Q16_EACH(q.b[i] >> 4);
}

/* Bits n and n + 1. */
DEQUANT q16_t
q16_pair(q16_t q, uint32_t n)
{
    Q16_EACH(q.b[i] >> n & 3);
}

/* v where bit n is set, else 0. */
DEQUANT q16_t
q16_bit(q16_t q, uint32_t n, uint8_t v)
{
    Q16_EACH(q.b[i] >> n & 1 ? v : 0);
}

/* v where bit i of h is set, else 0. */
DEQUANT q16_t
q16_spread(uint32_t h, uint8_t v)
{
    Q16_EACH(h >> i & 1 ? v : 0);
}

DEQUANT q16_t
q16_plus(q16_t q, q16_t o)
{
    Q16_EACH(q.b[i] + o.b[i]);
}

DEQUANT q16_t
q16_less(q16_t q, uint8_t v)
{
    Q16_EACH(q.b[i] - v);
}

/* Each of 0 to 3 times 16. */
DEQUANT q16_t
q16_times16(q16_t q)
{
    Q16_EACH(q.b[i] << 4);
}

/* The first digit of base 3 of the fraction that is left after n of them. */
DEQUANT q16_t
q16_digit(q16_t q, uint32_t power)
{
    Q16_EACH((uint8_t) (q.b[i] * power) * 3 >> 8);
}

/* Numbers of a table, each q being below 16. */
DEQUANT q16_t
q16_look(const int8_t *table, q16_t q)
{
    Q16_EACH(table[q.b[i]]);
}

/* y = d q, q being signed */
DEQUANT void
q16_put(float *restrict y, q16_t q, float d)
{
    for (uint32_t i = 0; i < 16; i++) {
        y[i] = d * (float) (int8_t) q.b[i];
    }
}

/* y = d q + m, in two roundings */
DEQUANT void
q16_put_plus(float *restrict y, q16_t q, float d, float m)
{
    for (uint32_t i = 0; i < 16; i++) {
        y[i] = d * (float) (int8_t) q.b[i] + m;
    }
}

/* d times the bytes of two points, negated where a bit of signs is set. */
DEQUANT void
q16_points(float *restrict y, uint32_t a, uint32_t b, uint32_t signs, float d)
{
    float v;

    for (uint32_t i = 0; i < 8; i++) {
        v = d * (float) ((i < 4 ? a : b) >> i % 4 * 8 & 255);
        y[i] = signs >> i & 1 ? -v : v;
    }
}

DEQUANT void
dequant_F32(float *restrict y, const uint8_t *restrict p)
{
    memcpy(y, p, 4);
}

DEQUANT void
dequant_F16(float *restrict y, const uint8_t *restrict p)
{
    *y = dequant_half(p);
}

DEQUANT void
dequant_BF16(float *restrict y, const uint8_t *restrict p)
{
    uint16_t h;
    uint32_t u;

    memcpy(&h, p, 2);
    u = (uint32_t) h << 16;
    memcpy(y, &u, 4);
}

DEQUANT void
dequant_Q8_0(float *restrict y, const uint8_t *restrict p)
{
    float d = dequant_half(p);

    q16_put(y, q16_load(p + 2), d);
    q16_put(y + 16, q16_load(p + 18), d);
}

DEQUANT void
dequant_Q4_0(float *restrict y, const uint8_t *restrict p)
{
    q16_t q = q16_load(p + 2);
    float d = dequant_half(p);

    q16_put(y, q16_less(q16_low(q), 8), d);
    q16_put(y + 16, q16_less(q16_high(q), 8), d);
}

/*
 * TYPES IN GROUPS.  The blocks of most types are groups of sixteen numbers q,
 * each group with a factor d and perhaps a summand m.  A type is then two
 * functions: dequant_scales_TYPE writes the factors and summands of a block,
 * dequant_quants_TYPE gives the numbers of group g.  X(name, elements, bytes,
 * groups that share a factor, has it summands?); the short ones have a factor
 * for all of the block.
 */
#define DEQUANT_K_LIST(X)                                                      \
    X(Q2_K, 256, 84, 1, 1)                                                     \
    X(Q3_K, 256, 110, 1, 0)                                                    \
    X(Q4_K, 256, 144, 2, 1)                                                    \
    X(Q5_K, 256, 176, 2, 1)                                                    \
    X(Q6_K, 256, 210, 1, 0)                                                    \
    X(IQ4_XS, 256, 136, 2, 0)

#define DEQUANT_SHORT_LIST(X)                                                  \
    X(Q4_1, 32, 20, 2, 1)                                                      \
    X(Q5_0, 32, 22, 2, 0)                                                      \
    X(Q5_1, 32, 24, 2, 1)                                                      \
    X(IQ4_NL, 32, 18, 2, 0)                                                    \
    X(TQ2_0, 256, 66, 16, 0)                                                   \
    X(MXFP4, 32, 17, 2, 0)

/* Of the 16 bytes at p the low nibbles for an even g, the high for an odd. */
DEQUANT q16_t
dequant_nibbles(const uint8_t *p, uint32_t g)
{
    return g % 2 == 0 ? q16_low(q16_load(p)) : q16_high(q16_load(p));
}

/* The same of 32 bytes, for g 0 and 1, 2 and 3. */
DEQUANT q16_t
dequant_nibbles32(const uint8_t *p, uint32_t g)
{
    return dequant_nibbles(p + g % 2 * 16, g / 2);
}

/* Of 32 bytes the lowest pairs of bits first; again 32 for the next 8 g. */
DEQUANT q16_t
dequant_pairs(const uint8_t *p, uint32_t g)
{
    return q16_pair(q16_load(p + g / 8 * 32 + g % 2 * 16), g % 8 / 2 * 2);
}

DEQUANT void
dequant_scales_Q4_1(float *d, float *m, const uint8_t *p)
{
    d[0] = dequant_half(p);
    m[0] = dequant_half(p + 2);
}

DEQUANT q16_t
dequant_quants_Q4_1(const uint8_t *p, uint32_t g)
{
    return dequant_nibbles(p + 4, g);
}

/* Nibbles with fifth bits: bit i of the four bytes at h is element i's. */
DEQUANT q16_t
dequant_fives(const uint8_t *p, const uint8_t *h, uint32_t g)
{
    uint16_t bits;

    memcpy(&bits, h + g * 2, 2);
    return q16_plus(dequant_nibbles(p, g), q16_spread(bits, 16));
}

DEQUANT void
dequant_scales_Q5_0(float *d, float *m, const uint8_t *p)
{
    (void) m;
    d[0] = dequant_half(p);
}

DEQUANT q16_t
dequant_quants_Q5_0(const uint8_t *p, uint32_t g)
{
    return q16_less(dequant_fives(p + 6, p + 2, g), 16);
}

DEQUANT void
dequant_scales_Q5_1(float *d, float *m, const uint8_t *p)
{
    dequant_scales_Q4_1(d, m, p);
}

DEQUANT q16_t
dequant_quants_Q5_1(const uint8_t *p, uint32_t g)
{
    return dequant_fives(p + 8, p + 4, g);
}

/*
 * A byte of scales has in its low nibble what d, in its high one what m is to
 * be multiplied by.
 */
DEQUANT void
dequant_scales_Q2_K(float *d, float *m, const uint8_t *p)
{
    q16_t q = q16_load(p);

    q16_put(d, q16_low(q), dequant_half(p + 80));
    q16_put(m, q16_high(q), -dequant_half(p + 82));
}

DEQUANT q16_t
dequant_quants_Q2_K(const uint8_t *p, uint32_t g)
{
    return dequant_pairs(p + 16, g);
}

/* The low n bits of each byte of u, from bit at on. */
DEQUANT uint32_t
dequant_bits(uint32_t u, uint32_t at, uint32_t n)
{
    return u >> at & 0x01010101u * ((1u << n) - 1);
}

/*
 * scales: four low bits of each in nibbles, groups 0 to 7 in the low ones;
 * then of every fourth group the two high bits in a byte; less 32.
 */
DEQUANT void
dequant_scales_Q3_K(float *d, float *m, const uint8_t *p)
{
    uint32_t i, from[3], to[4];

    (void) m;
    memcpy(from, p + 96, sizeof(from));

    for (i = 0; i < 4; i++) {
        to[i] = dequant_bits(from[i % 2], i / 2 * 4, 4)
                | dequant_bits(from[2], i * 2, 2) << 4;
    }

    q16_put(d, q16_less(q16_of(to[0], to[1], to[2], to[3]), 32),
        dequant_half(p + 108));
}

/* high: a bit is q's third, and says that it is not less than 0. */
DEQUANT q16_t
dequant_quants_Q3_K(const uint8_t *p, uint32_t g)
{
    q16_t h = q16_bit(q16_load(p + g % 2 * 16), g / 2, 4);

    return q16_less(q16_plus(dequant_pairs(p + 32, g), h), 4);
}

/*
 * Eight times six bits for d, eight for m: those of the first four are the low
 * ones of the first eight bytes; of the others the low four are the nibbles of
 * the last four bytes, the rest the highest two of the first eight.
 */
DEQUANT void
dequant_scales_Q4_K(float *d, float *m, const uint8_t *p)
{
    uint32_t u[3], low, high;

    memcpy(u, p + 4, sizeof(u));
    low = dequant_bits(u[0], 0, 6);
    high = dequant_bits(u[2], 0, 4) | dequant_bits(u[0], 6, 2) << 4;
    q16_put(d, q16_of(low, high, 0, 0), dequant_half(p));

    low = dequant_bits(u[1], 0, 6);
    high = dequant_bits(u[2], 4, 4) | dequant_bits(u[1], 6, 2) << 4;
    q16_put(m, q16_of(low, high, 0, 0), -dequant_half(p + 2));
}

DEQUANT q16_t
dequant_quants_Q4_K(const uint8_t *p, uint32_t g)
{
    return dequant_nibbles32(p + 16 + g / 4 * 32, g % 4);
}

DEQUANT void
dequant_scales_Q5_K(float *d, float *m, const uint8_t *p)
{
    dequant_scales_Q4_K(d, m, p);
}

/* high: of each byte a bit for two groups, q's fifth */
DEQUANT q16_t
dequant_quants_Q5_K(const uint8_t *p, uint32_t g)
{
    q16_t h = q16_bit(q16_load(p + 16 + g % 2 * 16), g / 2, 16);

    return q16_plus(dequant_nibbles32(p + 48 + g / 4 * 32, g % 4), h);
}

/* scales are signed */
DEQUANT void
dequant_scales_Q6_K(float *d, float *m, const uint8_t *p)
{
    (void) m;
    q16_put(d, q16_load(p + 192), dequant_half(p + 208));
}

/* low: of 64 bytes the low nibbles, then the high; high: pairs; less 32 */
DEQUANT q16_t
dequant_quants_Q6_K(const uint8_t *p, uint32_t g)
{
    q16_t q, h = q16_times16(dequant_pairs(p + 128, g));

    q = dequant_nibbles(p + g / 8 * 64 + g % 4 * 16, g % 8 / 4);
    return q16_less(q16_plus(q, h), 32);
}

DEQUANT void
dequant_scales_IQ4_NL(float *d, float *m, const uint8_t *p)
{
    (void) m;
    d[0] = dequant_half(p);
}

DEQUANT q16_t
dequant_quants_IQ4_NL(const uint8_t *p, uint32_t g)
{
    return q16_look(kernels_iq4, dequant_nibbles(p + 2, g));
}

/*
 * low: eight nibbles; high: eight pairs of bits above them; less 32.  Both are
 * spread to a byte each by halves, as in 0xabcd to 0x0a0b0c0d.
 */
DEQUANT void
dequant_scales_IQ4_XS(float *d, float *m, const uint8_t *p)
{
    uint32_t low;
    uint16_t high;
    uint64_t n, h;

    (void) m;
    memcpy(&high, p + 2, 2);
    memcpy(&low, p + 4, 4);
    n = (low | (uint64_t) low << 16) & 0x0000ffff0000ffff;
    n = (n | n << 8) & 0x00ff00ff00ff00ff;
    n = (n | n << 4) & 0x0f0f0f0f0f0f0f0f;
    h = (high | (uint64_t) high << 24) & 0x000000ff000000ff;
    h = (h | h << 12) & 0x000f000f000f000f;
    h = (h | h << 6) & 0x0303030303030303;
    n |= h << 4;

    q16_put(d, q16_less(q16_of((uint32_t) n, (uint32_t) (n >> 32), 0, 0), 32),
        dequant_half(p));
}

DEQUANT q16_t
dequant_quants_IQ4_XS(const uint8_t *p, uint32_t g)
{
    return q16_look(kernels_iq4, dequant_nibbles(p + 8 + g / 2 * 16, g));
}

DEQUANT void
dequant_scales_TQ2_0(float *d, float *m, const uint8_t *p)
{
    (void) m;
    d[0] = dequant_half(p + 64);
}

DEQUANT q16_t
dequant_quants_TQ2_0(const uint8_t *p, uint32_t g)
{
    return q16_less(dequant_pairs(p, g), 1);
}

/* The scale's exponent is below a float's for e 0 and 1: 2^-128, 2^-127. */
DEQUANT void
dequant_scales_MXFP4(float *d, float *m, const uint8_t *p)
{
    uint32_t u;

    (void) m;
    u = p[0] < 2 ? 0x200000u << p[0] : (uint32_t) (p[0] - 1) << 23;
    memcpy(d, &u, 4);
}

DEQUANT q16_t
dequant_quants_MXFP4(const uint8_t *p, uint32_t g)
{
    return q16_look(kernels_e2m1, dequant_nibbles(p + 1, g));
}

/* clang-format off */
#define X(name, elems, bytes, share, plus)                                     \
    DEQUANT void dequant_##name(                                               \
        float *restrict y, const uint8_t *restrict p)                          \
    {                                                                          \
        float d[16], m[16];                                                    \
                                                                               \
        dequant_scales_##name(d, m, p);                                        \
                                                                               \
        for (uint32_t g = 0; g < (elems) / 16; g++) {                          \
            q16_t q = dequant_quants_##name(p, g);                             \
                                                                               \
            if (plus) {                                                        \
                q16_put_plus(y + g * 16, q, d[g / (share)], m[g / (share)]);   \
            } else {                                                           \
                q16_put(y + g * 16, q, d[g / (share)]);                        \
            }                                                                  \
        }                                                                      \
    }
DEQUANT_K_LIST(X)
DEQUANT_SHORT_LIST(X)
#undef X
/* clang-format on */

/*
 * q[48]: of the first 32 bytes and then of the other 16 all first digits, then
 * all second ones, to the fifth; of rest four.  A byte is the fraction that
 * its digits of base 3 make, times 256 and rounded up: multiplied by 3^n it
 * begins with digit n.
 */
DEQUANT void
dequant_TQ1_0(float *restrict y, const uint8_t *restrict p)
{
    static const uint8_t power[] = {1, 3, 9, 27, 81};
    uint32_t n, i;
    q16_t q, r;
    uint8_t rest[16];
    float d = dequant_half(p + 52);

    for (n = 0; n < 5; n++) {
        for (i = 0; i < 32; i += 16) {
            q = q16_digit(q16_load(p + i), power[n]);
            q16_put(y + n * 32 + i, q16_less(q, 1), d);
        }

        q = q16_digit(q16_load(p + 32), power[n]);
        q16_put(y + 160 + n * 16, q16_less(q, 1), d);
    }

    /* four bytes, four digits each: every byte by its own power */
    for (i = 0; i < 16; i++) {
        rest[i] = (uint8_t) (p[48 + i % 4] * power[i / 4]);
    }

    r = q16_digit(q16_load(rest), 1);
    q16_put(y + 240, q16_less(r, 1), d);
}

/*
 * A group of 32 is eight points, each named by a byte of q and a bit of the
 * group's byte of high; four bytes of signs, a bit for each element; a nibble
 * of scales, n: 1 + 2 n.
 */
DEQUANT void
dequant_IQ3_S(float *restrict y, const uint8_t *restrict p)
{
    uint32_t s, i, h;
    const uint8_t *q = p + 2;
    float d = dequant_half(p), ds;

    for (s = 0; s < 8; s++) {
        ds = d * (float) (1 + 2 * (p[106 + s / 2] >> s % 2 * 4 & 15));
        h = p[66 + s];

        for (i = 0; i < 4; i++, q += 2, y += 8) {
            q16_points(y, kernels_iq3_s[q[0] | (h << (8 - 2 * i) & 256)],
                kernels_iq3_s[q[1] | (h << (7 - 2 * i) & 256)],
                p[74 + s * 4 + i], ds);
        }
    }
}

/*
 * A group of 32 is eight points.  Its u32 has four times seven signs, the
 * eighth making the count of set ones even, and in bits 28..31 the scale n:
 * (n + 1/2) / 2.
 */
DEQUANT void
dequant_IQ3_XXS(float *restrict y, const uint8_t *restrict p)
{
    uint32_t s, i, u, signs;
    const uint8_t *q = p + 2;
    float d = dequant_half(p), ds;

    for (s = 0; s < 8; s++) {
        memcpy(&u, p + 66 + s * 4, 4);
        ds = d * (0.5f + (float) (u >> 28)) * 0.5f;

        for (i = 0; i < 4; i++, q += 2, y += 8) {
            signs = u >> i * 7 & 127;
            signs |= (uint32_t) __builtin_parity(signs) << 7;
            q16_points(
                y, kernels_iq3_xxs[q[0]], kernels_iq3_xxs[q[1]], signs, ds);
        }
    }
}

#endif
