/*
 * The weight types in blocks, as they lie in panels: how a step's numbers and
 * what they are scaled by are taken out.  A part of vec_panel.h, which says
 * what is done with them; panel.c has where things are.
 *
 * DESIGN.  A type is a row of the table below, and a case of three functions:
 * quants() gives four numbers of each lane, factor() and summand() what a
 * step's sums are to be multiplied by.  With the type and the places constant,
 * wherever they are inlined, nothing is left of the table and the cases.
 */
#ifndef VEC_BLOCKS_H
#define VEC_BLOCKS_H

#include "../dequant_tables.h"

/*
 * X(name, as, steps in a block, its bytes in a panel's row, bits of a number,
 * how much numbers are too large, factors of a step, has it summands?, words?,
 * run, direct)
 *
 * Once unpacked a type is as another one, and that one's code is for both: they
 * have as many factors and summands, and sums have room for as many numbers.
 * Words are numbers that, where WORDS_8 says so, meet x as such, and are not
 * too large then.  A run is how many steps, from a multiple of it on, have
 * their bits in places that constants say.  Direct is up to how many rows
 * nothing is unpacked: more of it is more speed, and more to compile.
 */
/* clang-format off */
#define BLOCK_LIST(X)                                                          \
    X(Q8_0, Q8_0, 1, 34, 8, 128, 1, 0, 1, 1, 4)                                \
    X(Q4_0, Q4_0, 1, 18, 4, 8, 1, 0, 0, 1, 4)                                  \
    X(Q4_1, Q4_1, 1, 20, 4, 0, 1, 1, 0, 1, 1)                                  \
    X(Q5_0, Q5_0, 1, 22, 5, 16, 1, 0, 0, 1, 1)                                 \
    X(Q5_1, Q5_1, 1, 24, 5, 0, 1, 1, 0, 1, 1)                                  \
    X(Q4_K, Q4_1, 8, 148, 4, 0, 1, 1, 0, 2, 4)                                 \
    X(Q5_K, Q5_1, 8, 180, 5, 0, 1, 1, 0, 2, 4)                                 \
    X(Q6_K, Q6_K, 8, 210, 6, 32, 2, 0, 0, 4, 4)                                \
    X(Q2_K, Q2_K, 8, 84, 2, 0, 2, 1, 0, 4, 1)                                  \
    X(Q3_K, Q3_K, 8, 114, 3, 4, 2, 0, 0, 4, 1)                                 \
    X(TQ1_0, Q4_0, 8, 54, 2, 1, 1, 0, 0, 1, 0)                                 \
    X(TQ2_0, Q4_0, 8, 66, 2, 1, 1, 0, 0, 4, 1)                                 \
    X(MXFP4, Q5_0, 1, 17, 5, 12, 1, 0, 0, 1, 1)                                \
    X(IQ4_NL, Q8_0, 1, 18, 8, 128, 1, 0, 1, 1, 1)                              \
    X(IQ4_XS, Q8_0, 8, 138, 8, 128, 1, 0, 1, 1, 1)                             \
    X(IQ3_S, Q5_0, 8, 110, 5, 16, 1, 0, 0, 1, 0)                               \
    X(IQ3_XXS, IQ3_XXS, 8, 102, 7, 64, 1, 0, 0, 1, 0)

/* Those that are as themselves. */
#define AS_LIST(X)                                                             \
    X(Q8_0) X(Q4_0) X(Q4_1) X(Q5_0) X(Q5_1) X(Q6_K) X(Q2_K) X(Q3_K) X(IQ3_XXS)
/* clang-format on */

typedef struct {
    uint8_t steps, bytes, bits, above, factors, summand, words, run, direct;
} block_t;

#define X(name, as, ...) [KN_##name] = {__VA_ARGS__},
static const block_t blocks[KN_TYPES] = {BLOCK_LIST(X)};
#undef X

/* What code for the unpacked knows of a type: see step_tile() and macs_in(). */
#define X(name, as, steps, bytes, bits, above, factors, summand, words, ...)   \
    LIKE_##name = ((bits < 4 ? 4 : bits) * 2 + (above != 0)) * 2 + words,      \
    SCALES_##name = factors * 2 + summand,
enum { BLOCK_LIST(X) };
#undef X

#define X(name, as, ...)                                                       \
    _Static_assert(LIKE_##name == LIKE_##as, #name);                           \
    _Static_assert(SCALES_##name == SCALES_##as, #name);
BLOCK_LIST(X)
#undef X

ALWAYS int
is_words(uint32_t type)
{
    return WORDS_8 && blocks[type].words;
}

/* What a number is to be given. */
ALWAYS float
offset_of(uint32_t type)
{
    return is_words(type) ? 0 : -(float) blocks[type].above;
}

ALWAYS int
has_summand(uint32_t type)
{
    return blocks[type].summand;
}

ALWAYS uint32_t
factors_in(uint32_t type)
{
    return blocks[type].factors;
}

/* How many times mac() may add to the same sum. */
ALWAYS uint32_t
macs_in(uint32_t type)
{
    return MAC_BITS >= 8 + 16 ? 8 : 1u << (MAC_BITS - blocks[type].bits - 8);
}

ALWAYS uint32_t
steps_in(uint32_t type)
{
    return blocks[type].steps;
}

ALWAYS uint32_t
run_of(uint32_t type)
{
    return blocks[type].run;
}

ALWAYS uint32_t
direct_rows(uint32_t type)
{
    return blocks[type].direct;
}

/* Bytes of a panel's block. */
ALWAYS size_t
block_size(uint32_t type)
{
    return (size_t) blocks[type].bytes * PANEL;
}

/* Vector v of the units number i of some that begin at p. */
ALWAYS vi_t
ints_at(const uint8_t *p, uint32_t i, uint32_t v)
{
    return load_ints(p + ((size_t) i * PV + v) * sizeof(vi_t));
}

/*
 * The same of unit i + g, where i is no constant and g is one: it is then part
 * of an address, and no sum of its own.
 */
ALWAYS vi_t
ints_from(const uint8_t *p, uint32_t i, uint32_t g, uint32_t v)
{
    return ints_at(p + (size_t) i * PV * sizeof(vi_t), g, v);
}

ALWAYS vi_t
nibbles(const uint8_t *p, uint32_t i, uint32_t v, uint32_t high)
{
    return bits_of(ints_at(p, i, v), high ? 4 : 0, 15);
}

/* Of eight units the lowest pairs of bits first; again eight after 4 steps. */
ALWAYS vi_t
pairs(const uint8_t *p, uint32_t s, uint32_t g, uint32_t v)
{
    return bits_of(ints_at(p, s / 4 * 8 + g, v), s % 4 * 2, 3);
}

/* dequant.h's digits of TQ1_0, which are units as well: number u of 64. */
ALWAYS vi_t
trits(const uint8_t *p, uint32_t u, uint32_t v)
{
    static const uint32_t power[] = {1, 3, 9, 27, 81};

    if (u < 40) {
        return digit(ints_at(p, u % 8, v), power[u / 8]);
    }
    if (u < 60) {
        return digit(ints_at(p, 8 + u % 4, v), power[(u - 40) / 4]);
    }
    return digit(ints_at(p, 12, v), power[u - 60]);
}

/*
 * Points of four numbers that are named by bytes from q on, and in IQ3_S by a
 * bit of those of high; signs have a bit for each of eight.
 */
ALWAYS vi_t
points(uint32_t type, const uint8_t *p, uint32_t s, uint32_t g, uint32_t v)
{
    const uint8_t *q = p + (2 + s * 8 + g) * PANEL + v * LANES;
    const uint8_t *high = p + (66 + s) * PANEL + v * LANES;
    const uint8_t *signs = high + (type == KN_IQ3_S ? 8 * PANEL : 0);
    vi_t i = widen(q);

    signs += (size_t) (s * 3 + g / 2) * PANEL;
    if (type == KN_IQ3_S) {
        i = or_above(i, bits_of(widen(high), g, 1), 8);
    }
    i = look_far(type == KN_IQ3_S ? kernels_iq3_s : kernels_iq3_xxs, i);
    i = negate(i, widen(signs), g % 2 * 4);

    return plus(i, blocks[type].above);
}

/*
 * Vector v of unit g of step s of the block at p: four elements of each lane.
 */
ALWAYS vi_t
quants(uint32_t type, const uint8_t *p, uint32_t s, uint32_t g, uint32_t v)
{
    vi_t q;

    switch (type) {

#if !WORDS_8
    case KN_Q8_0:
        return plus(ints_at(p + 2 * PANEL, g, v), 128);

    case KN_IQ4_NL:
        return look(kernels_iq4, 128, nibbles(p + 2 * PANEL, g % 4, v, g / 4));

    case KN_IQ4_XS:
        q = nibbles(p + 10 * PANEL, s * 4 + g % 4, v, g / 4);
        return look(kernels_iq4, 128, q);
#endif

    case KN_Q4_0:
        return nibbles(p + 2 * PANEL, g % 4, v, g / 4);

    case KN_Q4_1:
        return nibbles(p + 4 * PANEL, g % 4, v, g / 4);

    case KN_Q5_0:
        q = nibbles(p + 6 * PANEL, g % 4, v, g / 4);
        return or_above(q, bits_of(ints_at(p + 2 * PANEL, 0, v), g, 1), 4);

    case KN_Q5_1:
        q = nibbles(p + 8 * PANEL, g % 4, v, g / 4);
        return or_above(q, bits_of(ints_at(p + 4 * PANEL, 0, v), g, 1), 4);

    case KN_Q4_K:
        q = ints_from(p + 20 * PANEL, s / 2 * 8, g, v);
        return bits_of(q, s % 2 * 4, 15);

    case KN_Q5_K:
        q = nibbles(p + 52 * PANEL, s / 2 * 8 + g, v, s % 2);
        return or_above(q, bits_of(ints_at(p + 20 * PANEL, g, v), s, 1), 4);

    case KN_Q6_K:
        q = nibbles(p + 18 * PANEL, s / 4 * 16 + s % 2 * 8 + g, v, s % 4 / 2);
        return or_above(q, pairs(p + 146 * PANEL, s, g, v), 4);

    case KN_Q2_K:
        return pairs(p + 20 * PANEL, s, g, v);

    case KN_Q3_K:
        q = ints_from(p + 50 * PANEL, s / 4 * 8, g, v);
        q = bits_of(q, s % 4 * 2, 3);
        return or_above(q, bits_of(ints_at(p + 18 * PANEL, g, v), s, 1), 2);

    case KN_TQ1_0:
        return trits(p + 2 * PANEL, s * 8 + g, v);

    case KN_TQ2_0:
        return pairs(p + 2 * PANEL, s, g, v);

    case KN_MXFP4:
        return look(kernels_e2m1, 12, nibbles(p + PANEL, g % 4, v, g / 4));

    default:
        return points(type, p, s, g, v);
    }
}

/* Factor and summand g, of factors_in, of step s, for vector v. */
ALWAYS vf_t
factor(uint32_t type, const uint8_t *p, uint32_t s, uint32_t g, uint32_t v)
{
    vf_t d, t;

    if (type == KN_MXFP4) { /* its numbers are twice what they are */
        return from_powers(p + v * LANES);
    }

    d = from_f16(load_halves((const char *) p + v * LANES * 2));
    p += v * LANES;

    switch (type) {

    case KN_Q4_K:
    case KN_Q5_K:
        return V(mul)(d, from_bytes(p + (4 + s) * PANEL));

    case KN_Q3_K:
    case KN_Q6_K:
        return V(mul)(d, from_chars(p + (2 + 2 * s + g) * PANEL));

    case KN_Q2_K:
        return V(mul)(d, from_bits(p + (4 + 2 * s + g) * PANEL, 0, 15));

    case KN_IQ4_XS:
        return V(mul)(d, from_chars(p + (2 + s) * PANEL));

    case KN_IQ3_S:
        t = from_bits(p + (106 + s / 2) * PANEL, s % 2 * 4, 15);
        return V(mul)(d, V(fmadd)(t, V(set1)(2), V(set1)(1)));

    case KN_IQ3_XXS:
        t = from_bits(p + (98 + s / 2) * PANEL, s % 2 * 4, 15);
        t = V(mul)(d, V(add)(t, V(set1)(0.5f)));
        return V(mul)(t, V(set1)(0.5f));

    default:
        return d;
    }
}

ALWAYS vf_t
summand(uint32_t type, const uint8_t *p, uint32_t s, uint32_t g, uint32_t v)
{
    vf_t m =
        from_f16(load_halves((const char *) p + 2 * PANEL + v * LANES * 2));

    if (type == KN_Q4_1 || type == KN_Q5_1) {
        return m;
    }

    if (type == KN_Q2_K) {
        p += (4 + 2 * s + g) * PANEL + v * LANES;
        m = V(mul)(m, from_bits(p, 4, 15));
    } else {
        m = V(mul)(m, from_bytes(p + (12 + s) * PANEL + v * LANES));
    }

    return V(sub)(V(setzero)(), m);
}

#if WORDS_8
/* Words: two elements of each lane. */
ALWAYS vi_t
words(uint32_t type, const uint8_t *p, uint32_t s, uint32_t g, uint32_t v)
{
    size_t unit = sizeof(vi_t) / 2;

    switch (type) {

    case KN_IQ4_NL:
        p += 2 * PANEL + ((size_t) (g % 8) * PV + v) * unit;
        return look_words(kernels_iq4, p, g / 8 * 4);

    case KN_IQ4_XS:
        p += 10 * PANEL + ((size_t) (s * 8 + g % 8) * PV + v) * unit;
        return look_words(kernels_iq4, p, g / 8 * 4);

    default:
        return load_words(p + 2 * PANEL + ((size_t) g * PV + v) * unit);
    }
}
#endif

#endif
