/*
 * What one element of a packed block is worth, found by its number alone: the
 * judge of dequant.h, which goes through a block in the order of its bytes.
 * Arithmetic is the format's: F32, each step rounded.
 */
#ifndef PACKED_H
#define PACKED_H

#include "dequant_tables.h"
#include "kernels.h"

#include <string.h>

static inline double half_value(uint16_t h);

static inline float
packed_half(const uint8_t *p)
{
    uint16_t h;

    memcpy(&h, p, 2);

    return (float) half_value(h);
}

/* Nibble e of 32 in 16 bytes. */
static inline int
packed_nibble(const uint8_t *p, uint32_t e)
{
    return e < 16 ? p[e] % 16 : p[e - 16] / 16;
}

static inline int
packed_bit(const uint8_t *p, uint32_t e)
{
    return p[e / 8] >> e % 8 & 1;
}

/* Pair of bits e of 256, of 32 bytes first the lowest. */
static inline int
packed_pair(const uint8_t *p, uint32_t e)
{
    return p[e / 128 * 32 + e % 32] >> e % 128 / 32 * 2 & 3;
}

/* Group g's scale and least value in the twelve bytes of Q4_K and Q5_K. */
static inline void
packed_scales(const uint8_t *p, uint32_t g, int *scale, int *least)
{
    if (g < 4) {
        *scale = p[g] % 64;
        *least = p[4 + g] % 64;
    } else {
        *scale = p[4 + g] % 16 + p[g - 4] / 64 * 16;
        *least = p[4 + g] / 16 + p[g] / 64 * 16;
    }
}

static inline float
packed_4_or_5_k(const uint8_t *b, uint32_t e, int five)
{
    int q, scale, least;
    const uint8_t *quants = b + (five ? 48 : 16);
    float d, m;

    packed_scales(b + 4, e / 32, &scale, &least);
    q = quants[e / 64 * 32 + e % 32];
    q = e / 32 % 2 ? q / 16 : q % 16;

    if (five && b[16 + e % 32] & 1 << e / 32) {
        q += 16;
    }

    d = packed_half(b) * (float) scale;
    m = packed_half(b + 2) * (float) least;
    d *= (float) q;

    return d - m;
}

static inline float
packed_3_k(const uint8_t *b, uint32_t e)
{
    static const uint8_t place[] = {0, 2, 4, 6};
    uint32_t g = e / 16;
    int q, scale;
    float d;

    scale = g < 8 ? b[96 + g] % 16 : b[96 + g - 8] / 16;
    scale += (b[104 + g % 4] >> place[g / 4]) % 4 * 16;
    q = packed_pair(b + 32, e);

    if (!(b[e % 32] & 1 << e / 32)) {
        q -= 4;
    }

    d = packed_half(b + 108) * (float) (scale - 32);

    return d * (float) q;
}

static inline float
packed_6_k(const uint8_t *b, uint32_t e)
{
    int q;
    float d;

    q = b[e / 128 * 64 + e % 64];
    q = e % 128 < 64 ? q % 16 : q / 16;
    q += packed_pair(b + 128, e) * 16;
    d = packed_half(b + 208) * (float) (int8_t) b[192 + e / 16];

    return d * (float) (q - 32);
}

static inline float
packed_tq1_0(const uint8_t *b, uint32_t e)
{
    uint32_t n, q;

    if (e < 160) {
        q = b[e % 32];
        n = e / 32;
    } else if (e < 240) {
        q = b[32 + e % 16];
        n = (e - 160) / 16;
    } else {
        q = b[48 + e % 4];
        n = (e - 240) / 4;
    }

    for (; n > 0; n--) {
        q = q * 3 % 256;
    }

    return (float) ((int) (q * 3 / 256) - 1) * packed_half(b + 52);
}

static inline float
packed_iq4_xs(const uint8_t *b, uint32_t e)
{
    uint32_t g = e / 32;
    int scale;
    float d;

    scale = g % 2 ? b[4 + g / 2] / 16 : b[4 + g / 2] % 16;
    scale += packed_bit(b + 2, 2 * g) * 16 + packed_bit(b + 2, 2 * g + 1) * 32;
    d = packed_half(b) * (float) (scale - 32);

    return d * kernels_iq4[packed_nibble(b + 8 + g * 16, e % 32)];
}

static inline float
packed_iq3_s(const uint8_t *b, uint32_t e)
{
    int point, scale;
    float d;

    point = b[2 + e / 4] + packed_bit(b + 66, e / 4) * 256;
    scale = e / 32 % 2 ? b[106 + e / 64] / 16 : b[106 + e / 64] % 16;
    d = packed_half(b) * (float) (2 * scale + 1);
    d *= (float) (kernels_iq3_s[point] >> e % 4 * 8 & 255);

    return packed_bit(b + 74, e) ? -d : d;
}

static inline float
packed_iq3_xxs(const uint8_t *b, uint32_t e)
{
    uint32_t u, i, bit, odd;
    float d;

    memcpy(&u, b + 66 + e / 32 * 4, 4);
    d = packed_half(b) * ((float) (u >> 28) + 0.5f);
    d *= 0.5f;
    d *= (float) (kernels_iq3_xxs[b[2 + e / 4]] >> e % 4 * 8 & 255);

    for (odd = 0, i = 0; i < 7; i++) {
        odd ^= u >> (e % 32 / 8 * 7 + i) & 1;
    }

    bit = e % 8 == 7 ? odd : u >> (e % 32 / 8 * 7 + e % 8) & 1;

    return bit ? -d : d;
}

static inline float
packed_mxfp4(const uint8_t *b, uint32_t e)
{
    int i, q = packed_nibble(b + 1, e);
    float v = kernels_e2m1[q];

    for (i = b[0]; i < 128; i++) {
        v /= 2;
    }

    return v;
}

/* Element e of the block at b. */
static inline float
packed_at(uint32_t type, const uint8_t *b, uint32_t e)
{
    float v;

    switch (type) {

    case KN_Q4_1:
        v = packed_half(b) * (float) packed_nibble(b + 4, e);
        return v + packed_half(b + 2);

    case KN_Q5_0:
        return packed_half(b)
               * (float) (packed_nibble(b + 6, e) + 16 * packed_bit(b + 2, e)
                          - 16);

    case KN_Q5_1:
        v = packed_half(b)
            * (float) (packed_nibble(b + 8, e) + 16 * packed_bit(b + 4, e));
        return v + packed_half(b + 2);

    case KN_Q2_K:
        v = packed_half(b + 80) * (float) (b[e / 16] % 16);
        v *= (float) packed_pair(b + 16, e);
        return v - packed_half(b + 82) * (float) (b[e / 16] / 16);

    case KN_Q3_K:
        return packed_3_k(b, e);

    case KN_Q4_K:
        return packed_4_or_5_k(b, e, 0);

    case KN_Q5_K:
        return packed_4_or_5_k(b, e, 1);

    case KN_Q6_K:
        return packed_6_k(b, e);

    case KN_IQ4_NL:
        return packed_half(b) * kernels_iq4[packed_nibble(b + 2, e)];

    case KN_IQ4_XS:
        return packed_iq4_xs(b, e);

    case KN_IQ3_S:
        return packed_iq3_s(b, e);

    case KN_IQ3_XXS:
        return packed_iq3_xxs(b, e);

    case KN_TQ1_0:
        return packed_tq1_0(b, e);

    case KN_TQ2_0:
        return packed_half(b + 64) * (float) (packed_pair(b, e) - 1);

    default:
        return packed_mxfp4(b, e);
    }
}

#endif
