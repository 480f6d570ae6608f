/*
 * Blocks of each weight type as floats: dequant_TYPE(y, p) writes a block's
 * elements to y from the bytes at p.
 *
 * DESIGN.  A block is small whole numbers q and what they are scaled by.  They
 * are taken out of the bytes sixteen at a time, by the few operations on a
 * q16_t that are below in plain C; an instruction set brings its own, so that
 * the formats are written once.  The bits of a value are part of the format:
 * each product and sum is rounded once, in the order written, and must not be
 * fused (the Makefile's -ffp-contract=off).
 *
 * Whoever includes this says before
 *
 *      DEQUANT_HALF(h)     the f16 number of those 16 bits as a float
 *      DEQUANT_VECTORS     if he defines q16_t and its operations himself
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

#define DEQUANT static inline __attribute__((always_inline))

/* DEQUANT_HALF for those whose machine has no instruction for it. */
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
    return DEQUANT_HALF(h);
}

#ifndef DEQUANT_VECTORS

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

#endif

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

DEQUANT void
dequant_Q4_1(float *restrict y, const uint8_t *restrict p)
{
    q16_t q = q16_load(p + 4);
    float d = dequant_half(p), m = dequant_half(p + 2);

    q16_put_plus(y, q16_low(q), d, m);
    q16_put_plus(y + 16, q16_high(q), d, m);
}

/* Nibbles q with fifth bits h. */
DEQUANT q16_t
dequant_five(q16_t q, uint32_t h)
{
    return q16_plus(q, q16_spread(h, 16));
}

DEQUANT void
dequant_Q5_0(float *restrict y, const uint8_t *restrict p)
{
    uint32_t h;
    q16_t q = q16_load(p + 6);
    float d = dequant_half(p);

    memcpy(&h, p + 2, 4);
    q16_put(y, q16_less(dequant_five(q16_low(q), h), 16), d);
    q16_put(y + 16, q16_less(dequant_five(q16_high(q), h >> 16), 16), d);
}

DEQUANT void
dequant_Q5_1(float *restrict y, const uint8_t *restrict p)
{
    uint32_t h;
    q16_t q = q16_load(p + 8);
    float d = dequant_half(p), m = dequant_half(p + 2);

    memcpy(&h, p + 4, 4);
    q16_put_plus(y, dequant_five(q16_low(q), h), d, m);
    q16_put_plus(y + 16, dequant_five(q16_high(q), h >> 16), d, m);
}

/*
 * A byte of scales has in its low nibble what d, in its high one what m is to
 * be multiplied by.
 */
DEQUANT void
dequant_Q2_K(float *restrict y, const uint8_t *restrict p)
{
    uint32_t s;
    float d[16], m[16];
    q16_t q = q16_load(p);

    q16_put(d, q16_low(q), dequant_half(p + 80));
    q16_put(m, q16_high(q), -dequant_half(p + 82));

    for (s = 0; s < 16; s++, y += 16) {
        q = q16_load(p + 16 + s / 8 * 32 + s % 2 * 16);
        q16_put_plus(y, q16_pair(q, s % 8 / 2 * 2), d[s], m[s]);
    }
}

/* The low n bits of each byte of u, from bit at on. */
DEQUANT uint32_t
dequant_bits(uint32_t u, uint32_t at, uint32_t n)
{
    return u >> at & 0x01010101u * ((1u << n) - 1);
}

/*
 * high: a bit of byte s % 2 * 16 + i is q's third, and says that it is not
 * less than 0.  scales: four low bits of each in nibbles, groups 0 to 7 in the
 * low ones; then of every fourth group the two high bits in a byte; less 32.
 */
DEQUANT void
dequant_Q3_K(float *restrict y, const uint8_t *restrict p)
{
    uint32_t s, from[3], to[4];
    q16_t q, h;
    float d[16];

    memcpy(from, p + 96, sizeof(from));

    for (s = 0; s < 4; s++) {
        to[s] = dequant_bits(from[s % 2], s / 2 * 4, 4)
                | dequant_bits(from[2], s * 2, 2) << 4;
    }

    q = q16_less(q16_load((const uint8_t *) to), 32);
    q16_put(d, q, dequant_half(p + 108));

    for (s = 0; s < 16; s++, y += 16) {
        q = q16_load(p + 32 + s / 8 * 32 + s % 2 * 16);
        h = q16_load(p + s % 2 * 16);
        q = q16_plus(q16_pair(q, s % 8 / 2 * 2), q16_bit(h, s / 2, 4));
        q16_put(y, q16_less(q, 4), d[s]);
    }
}

/*
 * What d is multiplied by for each group, and -m: d[0 .. 8), m[8 .. 16).  Six
 * bits each: those of groups 0 to 3 are the low ones of the first eight bytes;
 * of the others the low four are the nibbles of the last four bytes, the rest
 * the highest two of the first eight.
 */
DEQUANT void
dequant_scales(float *restrict d, float *restrict m, const uint8_t *restrict p)
{
    uint32_t from[3], to[4];
    q16_t q;

    memcpy(from, p + 4, sizeof(from));
    to[0] = dequant_bits(from[0], 0, 6);
    to[1] = dequant_bits(from[2], 0, 4) | dequant_bits(from[0], 6, 2) << 4;
    to[2] = dequant_bits(from[1], 0, 6);
    to[3] = dequant_bits(from[2], 4, 4) | dequant_bits(from[1], 6, 2) << 4;

    q = q16_load((const uint8_t *) to);
    q16_put(d, q, dequant_half(p));
    q16_put(m, q, -dequant_half(p + 2));
}

/* Q4_K (five is 0) or Q5_K: two groups share the bytes of their nibbles. */
DEQUANT void
dequant_nibbles(float *restrict y, const uint8_t *restrict p, uint32_t five)
{
    uint32_t s, i;
    float d[16], m[16];
    q16_t q, h, low, high;

    dequant_scales(d, m, p);

    for (s = 0; s < 8; s += 2, y += 64) {
        for (i = 0; i < 32; i += 16) {
            q = q16_load(p + (five ? 48 : 16) + s * 16 + i);
            low = q16_low(q);
            high = q16_high(q);

            if (five) {
                h = q16_load(p + 16 + i);
                low = q16_plus(low, q16_bit(h, s, 16));
                high = q16_plus(high, q16_bit(h, s + 1, 16));
            }

            q16_put_plus(y + i, low, d[s], m[8 + s]);
            q16_put_plus(y + 32 + i, high, d[s + 1], m[9 + s]);
        }
    }
}

DEQUANT void
dequant_Q4_K(float *restrict y, const uint8_t *restrict p)
{
    dequant_nibbles(y, p, 0);
}

/* high: bit s of byte i is q's fifth */
DEQUANT void
dequant_Q5_K(float *restrict y, const uint8_t *restrict p)
{
    dequant_nibbles(y, p, 1);
}

/*
 * low: of 64 bytes the low nibbles, then the high; high: of 32 bytes the
 * lowest pairs, then the next; groups of 16; scales are signed; q less 32.
 */
DEQUANT void
dequant_Q6_K(float *restrict y, const uint8_t *restrict p)
{
    uint32_t s;
    float d[16];
    q16_t q, h;

    q16_put(d, q16_load(p + 192), dequant_half(p + 208));

    for (s = 0; s < 16; s++, y += 16) {
        q = q16_load(p + s / 8 * 64 + s % 4 * 16);
        h = q16_load(p + 128 + s / 8 * 32 + s % 2 * 16);
        q = s % 8 < 4 ? q16_low(q) : q16_high(q);
        q = q16_plus(q, q16_times16(q16_pair(h, s % 8 / 2 * 2)));
        q16_put(y, q16_less(q, 32), d[s]);
    }
}

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

DEQUANT void
dequant_TQ2_0(float *restrict y, const uint8_t *restrict p)
{
    uint32_t s;
    q16_t q;
    float d = dequant_half(p + 64);

    for (s = 0; s < 16; s++, y += 16) {
        q = q16_pair(q16_load(p + s / 8 * 32 + s % 2 * 16), s % 8 / 2 * 2);
        q16_put(y, q16_less(q, 1), d);
    }
}

/* d times the levels of 16 bytes' nibbles, the low ones first. */
DEQUANT void
dequant_levels(
    float *restrict y, const uint8_t *restrict p, const int8_t *level, float d)
{
    q16_t q = q16_load(p);

    q16_put(y, q16_look(level, q16_low(q)), d);
    q16_put(y + 16, q16_look(level, q16_high(q)), d);
}

DEQUANT void
dequant_IQ4_NL(float *restrict y, const uint8_t *restrict p)
{
    dequant_levels(y, p + 2, kernels_iq4, dequant_half(p));
}

/* Groups of 32, as IQ4_NL's; scales of six bits, less 32. */
DEQUANT void
dequant_IQ4_XS(float *restrict y, const uint8_t *restrict p)
{
    uint32_t s;
    uint16_t high;
    int scale;
    float d = dequant_half(p);

    memcpy(&high, p + 2, 2);

    for (s = 0; s < 8; s++, y += 32) {
        scale = p[4 + s / 2] >> s % 2 * 4 & 15;
        scale |= (high >> s * 2 & 3) << 4;
        dequant_levels(
            y, p + 8 + s * 16, kernels_iq4, d * (float) (scale - 32));
    }
}

/* The scale's exponent is below a float's for e 0 and 1: 2^-128, 2^-127. */
DEQUANT void
dequant_MXFP4(float *restrict y, const uint8_t *restrict p)
{
    uint32_t u;
    float d;

    u = p[0] < 2 ? 0x200000u << p[0] : (uint32_t) (p[0] - 1) << 23;
    memcpy(&d, &u, 4);
    dequant_levels(y, p + 1, kernels_e2m1, d);
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
