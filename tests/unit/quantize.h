/*
 * Floats as blocks of each type of weights (kernels/dequant.h has the
 * layouts): factors that reach a group's largest element, then the nearest
 * numbers.  Files are made with more care.  These are for tests that want real
 * weights in a type that there is no file of, and what they are worth is what
 * kernels_dequant() says.
 */
#ifndef QUANTIZE_H
#define QUANTIZE_H

#include "../kernels/guard.h"

#include "dequant_tables.h"

#include <math.h>

/* f as the f16 number at p; what it is now worth. */
static inline float
q_half(uint8_t *p, float f)
{
    cpu_ref.kv_put[KN_F16](p, &f, 1);
    return packed_half(p);
}

/* The whole number nearest to x / by in [lo, hi]. */
static inline int
q_number(float x, float by, int lo, int hi)
{
    float v = by == 0 ? 0 : roundf(x / by);

    return v < (float) lo ? lo : v > (float) hi ? hi : (int) v;
}

/* Element e of 32 in 16 bytes, its fifth bit, element e of 256 as a pair. */
static inline void
q_nibble(uint8_t *p, uint32_t e, int v)
{
    p[e % 16] |= (uint8_t) (v << e / 16 * 4);
}

static inline void
q_bit(uint8_t *p, uint32_t e, int v)
{
    p[e / 8] |= (uint8_t) (v << e % 8);
}

static inline void
q_pair(uint8_t *p, uint32_t e, int v)
{
    p[e / 128 * 32 + e % 32] |= (uint8_t) (v << e % 128 / 32 * 2);
}

/* That of n with the largest magnitude. */
static inline float
q_largest(const float *x, uint32_t n)
{
    uint32_t i;
    float v = x[0];

    for (i = 1; i < n; i++) {
        v = fabsf(x[i]) > fabsf(v) ? x[i] : v;
    }

    return v;
}

/* The number of the table's value nearest to v. */
static inline int
q_near(const int8_t table[16], float v)
{
    int i, best = 0;

    for (i = 1; i < 16; i++) {
        best = fabsf(v - table[i]) < fabsf(v - table[best]) ? i : best;
    }

    return best;
}

/* What the groups of a block of 256 are scaled by. */
typedef struct {
    float d, m; /* as the block has them */
    int scale[16], least[16];
} q_groups_t;

/*
 * Groups of size elements, d scale q - m least: q up to top, scale and least up
 * to most.
 */
static inline void
q_groups_plus(
    q_groups_t *g, const float *x, uint32_t size, int top, int most, uint8_t *p)
{
    float step[16], least[16], lo, hi;
    uint32_t i, e;

    for (i = 0; i < 256 / size; i++) {
        for (lo = hi = 0, e = 0; e < size; e++) {
            lo = fminf(lo, x[i * size + e]);
            hi = fmaxf(hi, x[i * size + e]);
        }

        step[i] = (hi - lo) / (float) top;
        least[i] = -lo;
    }

    g->d = q_half(p, q_largest(step, 256 / size) / (float) most);
    g->m = q_half(p + 2, q_largest(least, 256 / size) / (float) most);

    for (i = 0; i < 256 / size; i++) {
        g->scale[i] = q_number(step[i], g->d, 0, most);
        g->least[i] = q_number(least[i], g->m, 0, most);
    }
}

/* The same without least: q from -low on, scale from -most to most. */
static inline void
q_groups(
    q_groups_t *g, const float *x, uint32_t size, int low, int most, uint8_t *p)
{
    float step[16];
    uint32_t i;

    for (i = 0; i < 256 / size; i++) {
        step[i] = q_largest(x + i * size, size) / (float) -low;
    }

    g->d = q_half(p, fabsf(q_largest(step, 256 / size)) / (float) most);

    for (i = 0; i < 256 / size; i++) {
        g->scale[i] = q_number(step[i], g->d, -most, most);
    }
}

static inline int
q_plus(const q_groups_t *g, uint32_t i, float x, int top)
{
    return q_number(
        x + g->m * (float) g->least[i], g->d * (float) g->scale[i], 0, top);
}

/* Q4_1 and Q5_1 */
static inline void
q_short_plus(uint8_t *b, const float *x, int five)
{
    float lo = x[0], hi = x[0], d, m;
    uint32_t e;
    int q;

    for (e = 1; e < 32; e++) {
        lo = fminf(lo, x[e]);
        hi = fmaxf(hi, x[e]);
    }

    d = q_half(b, (hi - lo) / (five ? 31 : 15));
    m = q_half(b + 2, lo);

    for (e = 0; e < 32; e++) {
        q = q_number(x[e] - m, d, 0, five ? 31 : 15);
        q_nibble(b + (five ? 8 : 4), e, q % 16);
        if (five) {
            q_bit(b + 4, e, q / 16);
        }
    }
}

/* Q8_0, Q4_0, Q5_0, IQ4_NL, MXFP4 */
static inline void
q_short(uint32_t type, uint8_t *b, const float *x)
{
    float d, v = q_largest(x, 32);
    uint32_t e;
    int q;

    if (type == KN_MXFP4) { /* the table is twice what elements are */
        (void) frexpf(v / 12, &q);
        b[0] = (uint8_t) (v == 0 || q < -128 ? 0 : 128 + q);
        d = ldexpf(1, b[0] - 128);
    } else {
        d = q_half(b, v
                          / (type == KN_Q4_0    ? -8
                              : type == KN_Q5_0 ? -16
                                                : -127));
    }

    for (e = 0; e < 32; e++) {
        if (type == KN_Q8_0) {
            b[2 + e] = (uint8_t) q_number(x[e], d, -127, 127);
        } else if (type == KN_Q4_0) {
            q_nibble(b + 2, e, q_number(x[e], d, -8, 7) + 8);
        } else if (type == KN_Q5_0) {
            q = q_number(x[e], d, -16, 15) + 16;
            q_nibble(b + 6, e, q % 16);
            q_bit(b + 2, e, q / 16);
        } else if (type == KN_IQ4_NL) {
            q_nibble(b + 2, e, q_near(kernels_iq4, d == 0 ? 0 : x[e] / d));
        } else {
            q_nibble(b + 1, e, q_near(kernels_e2m1, d == 0 ? 0 : x[e] / d));
        }
    }
}

static inline void
q_2_k(uint8_t *b, const float *x)
{
    q_groups_t g;
    uint32_t e;

    q_groups_plus(&g, x, 16, 3, 15, b + 80);

    for (e = 0; e < 256; e++) {
        b[e / 16] = (uint8_t) (g.scale[e / 16] | g.least[e / 16] << 4);
        q_pair(b + 16, e, q_plus(&g, e / 16, x[e], 3));
    }
}

static inline void
q_3_k(uint8_t *b, const float *x)
{
    q_groups_t g;
    uint32_t e, i;
    int q;

    q_groups(&g, x, 16, 4, 31, b + 108);

    for (i = 0; i < 16; i++) {
        q = g.scale[i] + 32;
        b[96 + i % 8] |= (uint8_t) (q % 16 << i / 8 * 4);
        b[104 + i % 4] |= (uint8_t) (q / 16 << i / 4 * 2);
    }

    for (e = 0; e < 256; e++) {
        q = q_number(x[e], g.d * (float) g.scale[e / 16], -4, 3) + 4;
        q_pair(b + 32, e, q % 4);
        b[e % 32] |= (uint8_t) (q / 4 << e / 32);
    }
}

/* Q4_K and Q5_K */
static inline void
q_4_or_5_k(uint8_t *b, const float *x, int five)
{
    q_groups_t g;
    uint32_t e, i;
    int q;
    uint8_t *s = b + 4;

    q_groups_plus(&g, x, 32, five ? 31 : 15, 63, b);

    for (i = 0; i < 4; i++) {
        s[i] = (uint8_t) (g.scale[i] | g.scale[i + 4] / 16 << 6);
        s[4 + i] = (uint8_t) (g.least[i] | g.least[i + 4] / 16 << 6);
        s[8 + i] = (uint8_t) (g.scale[i + 4] % 16 | g.least[i + 4] % 16 << 4);
    }

    for (e = 0; e < 256; e++) {
        q = q_plus(&g, e / 32, x[e], five ? 31 : 15);
        b[(five ? 48 : 16) + e / 64 * 32 + e % 32] |=
            (uint8_t) (q % 16 << e / 32 % 2 * 4);
        if (five) {
            b[16 + e % 32] |= (uint8_t) (q / 16 << e / 32);
        }
    }
}

static inline void
q_6_k(uint8_t *b, const float *x)
{
    q_groups_t g;
    uint32_t e;
    int q;

    q_groups(&g, x, 16, 32, 127, b + 208);

    for (e = 0; e < 256; e++) {
        b[192 + e / 16] = (uint8_t) g.scale[e / 16];
        q = q_number(x[e], g.d * (float) g.scale[e / 16], -32, 31) + 32;
        b[e / 128 * 64 + e % 64] |= (uint8_t) (q % 16 << e % 128 / 64 * 4);
        q_pair(b + 128, e, q / 16);
    }
}

static inline void
q_iq4_xs(uint8_t *b, const float *x)
{
    q_groups_t g;
    uint32_t e, i;
    float d;

    q_groups(&g, x, 32, 127, 31, b);

    for (i = 0; i < 8; i++) {
        b[4 + i / 2] |= (uint8_t) ((g.scale[i] + 32) % 16 << i % 2 * 4);
        b[2 + i / 4] |= (uint8_t) ((g.scale[i] + 32) / 16 << i % 4 * 2);
    }

    for (e = 0; e < 256; e++) {
        d = g.d * (float) g.scale[e / 32];
        q_nibble(b + 8 + e / 32 * 16, e % 32,
            q_near(kernels_iq4, d == 0 ? 0 : x[e] / d));
    }
}

/* A grid of points: eight values a side, and the point next to each cell. */
typedef struct {
    uint32_t made;
    float values[8];
    uint16_t near[8 * 8 * 8 * 8];
} q_grid_t;

static inline uint16_t
q_point(const uint32_t *points, uint32_t n, const q_grid_t *g, uint32_t cell)
{
    uint32_t i, j, best = 0;
    float away, most = INFINITY, v;

    for (i = 0; i < n; i++) {
        for (away = 0, j = 0; j < 4; j++) {
            v = g->values[cell >> 3 * j & 7];
            v -= (float) (points[i] >> 8 * j & 255);
            away += v * v;
        }

        if (away < most) {
            most = away;
            best = i;
        }
    }

    return (uint16_t) best;
}

static inline const q_grid_t *
q_grid(q_grid_t *g, const uint32_t *points, uint32_t n)
{
    uint32_t i, values = 0;
    char there[256] = {0};

    if (g->made) {
        return g;
    }

    for (i = 0; i < n * 4; i++) {
        there[points[i / 4] >> i % 4 * 8 & 255] = 1;
    }

    for (i = 0; i < 256; i++) {
        if (there[i]) {
            assert_true(values < 8);
            g->values[values++] = (float) i;
        }
    }

    assert_int_equal(values, 8);

    for (i = 0; i < 8 * 8 * 8 * 8; i++) {
        g->near[i] = q_point(points, n, g, i);
    }

    g->made = 1;
    return g;
}

/* The point for the magnitudes of four elements. */
static inline uint32_t
q_grid_near(const q_grid_t *g, const float *x, float d)
{
    uint32_t i, j, at, cell = 0;
    float v;

    for (i = 0; i < 4; i++) {
        v = d == 0 ? 0 : fabsf(x[i]) / d;
        for (at = 0, j = 1; j < 8; j++) {
            at = fabsf(v - g->values[j]) < fabsf(v - g->values[at]) ? j : at;
        }
        cell |= at << 3 * i;
    }

    return g->near[cell];
}

static inline void
q_iq3_s(uint8_t *b, const float *x)
{
    static q_grid_t grid;
    const q_grid_t *g = q_grid(&grid, kernels_iq3_s, 512);
    uint32_t i, e, point;
    int scale;
    float d = q_half(b, fabsf(q_largest(x, 256)) / g->values[7] / 31), by;

    for (i = 0; i < 8; i++, x += 32) {
        by = fabsf(q_largest(x, 32)) / g->values[7];
        scale = q_number(by - d, 2 * d, 0, 15);
        b[106 + i / 2] |= (uint8_t) (scale << i % 2 * 4);
        by = d * (float) (2 * scale + 1);

        for (e = 0; e < 8; e++) {
            point = q_grid_near(g, x + e * 4, by);
            b[2 + i * 8 + e] = (uint8_t) point;
            q_bit(b + 66 + i, e, (int) (point >> 8));
        }

        for (e = 0; e < 32; e++) {
            q_bit(b + 74 + i * 4, e, x[e] < 0);
        }
    }
}

/* Seven signs of eight elements: the least of them gives way to the eighth. */
static inline uint32_t
q_signs(const float *x)
{
    uint32_t e, signs = 0, least = 0;

    for (e = 0; e < 8; e++) {
        signs |= (uint32_t) (x[e] < 0) << e;
        least = fabsf(x[e]) < fabsf(x[least]) ? e : least;
    }

    signs ^= (uint32_t) __builtin_parity(signs) << least;
    return signs & 127;
}

static inline void
q_iq3_xxs(uint8_t *b, const float *x)
{
    static q_grid_t grid;
    const q_grid_t *g = q_grid(&grid, kernels_iq3_xxs, 256);
    uint32_t i, e, u;
    float d = q_half(b, fabsf(q_largest(x, 256)) / g->values[7] / 7.75f), by;

    for (i = 0; i < 8; i++, x += 32) {
        by = fabsf(q_largest(x, 32)) / g->values[7];
        u = (uint32_t) q_number(by - d / 4, d / 2, 0, 15) << 28;
        by = d * ((float) (u >> 28) + 0.5f) / 2;

        for (e = 0; e < 8; e++) {
            b[2 + i * 8 + e] = (uint8_t) q_grid_near(g, x + e * 4, by);
        }

        for (e = 0; e < 4; e++) {
            u |= q_signs(x + e * 8) << e * 7;
        }

        memcpy(b + 66 + i * 4, &u, 4);
    }
}

/* TQ1_0 and TQ2_0: elements beyond 2/3 of the mean magnitude count. */
static inline void
q_three(uint32_t type, uint8_t *b, const float *x)
{
    static const uint8_t power[] = {81, 27, 9, 3, 1};
    uint32_t e, at, place, bytes[52] = {0};
    float d, sum = 0;
    int q;

    for (e = 0; e < 256; e++) {
        sum += fabsf(x[e]);
    }

    d = q_half(b + (type == KN_TQ1_0 ? 52 : 64), sum / 256 * 4 / 3);

    for (e = 0; e < 256; e++) {
        q = q_number(x[e], d, -1, 1) + 1;

        if (type == KN_TQ2_0) {
            q_pair(b, e, q);
            continue;
        }

        at = e < 160 ? e % 32 : e < 240 ? 32 + e % 16 : 48 + e % 4;
        place = e < 160 ? e / 32 : e < 240 ? (e - 160) / 16 : (e - 240) / 4;
        bytes[at] += (uint32_t) q * power[place];
    }

    for (e = 0; type == KN_TQ1_0 && e < 52; e++) {
        b[e] = (uint8_t) ((bytes[e] * 256 + 242) / 243);
    }
}

/* One block. */
static inline void
q_block(uint32_t type, uint8_t *b, const float *x)
{
    switch (type) {

    case KN_F32:
    case KN_F16:
    case KN_BF16:
        cpu_ref.kv_put[type](b, x, 1);
        break;

    case KN_Q4_1:
    case KN_Q5_1:
        q_short_plus(b, x, type == KN_Q5_1);
        break;

    case KN_Q2_K:
        q_2_k(b, x);
        break;

    case KN_Q3_K:
        q_3_k(b, x);
        break;

    case KN_Q4_K:
    case KN_Q5_K:
        q_4_or_5_k(b, x, type == KN_Q5_K);
        break;

    case KN_Q6_K:
        q_6_k(b, x);
        break;

    case KN_IQ4_XS:
        q_iq4_xs(b, x);
        break;

    case KN_IQ3_S:
        q_iq3_s(b, x);
        break;

    case KN_IQ3_XXS:
        q_iq3_xxs(b, x);
        break;

    case KN_TQ1_0:
    case KN_TQ2_0:
        q_three(type, b, x);
        break;

    default:
        q_short(type, b, x);
    }
}

/* n floats, whole blocks, as weights of a type: type_bytes(type, n) bytes. */
static inline void
quantize(uint32_t type, void *to, const float *x, size_t n)
{
    uint8_t *b = to;
    size_t i, elems = type_elems(type);

    assert_int_equal(n % elems, 0);
    memset(to, 0, type_bytes(type, n));

    for (i = 0; i < n; i += elems, b += type_bytes(type, elems)) {
        q_block(type, b, x + i);
    }
}

#endif
