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

/*
 * X(name, steps in a block, its bytes in a panel's row, bits of a number, how
 * much numbers are too large, factors of a step, has it summands?, words?, run)
 *
 * Words are numbers that, where WORDS_8 says so, meet x as such, and are not
 * too large then.  A run is how many steps, from a multiple of it on, have
 * their bits in places that constants say.
 */
/* clang-format off */
#define BLOCKS(X)                                                              \
    X(Q8_0, 1, 34, 8, 128, 1, 0, 1, 1)                                         \
    X(Q4_0, 1, 18, 4, 8, 1, 0, 0, 1)                                           \
    X(Q4_1, 1, 20, 4, 0, 1, 1, 0, 1)                                           \
    X(Q5_0, 1, 22, 5, 16, 1, 0, 0, 1)                                          \
    X(Q5_1, 1, 24, 5, 0, 1, 1, 0, 1)                                           \
    X(Q4_K, 8, 148, 4, 0, 1, 1, 0, 2)                                          \
    X(Q5_K, 8, 180, 5, 0, 1, 1, 0, 2)                                          \
    X(Q6_K, 8, 210, 6, 32, 2, 0, 0, 4)
/* clang-format on */

typedef struct {
    uint8_t steps, bytes, bits, above, factors, summand, words, run;
} block_t;

#define X(name, ...) [KN_##name] = {__VA_ARGS__},
static const block_t blocks[KN_TYPES] = {BLOCKS(X)};
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

ALWAYS vi_t
nibbles(const uint8_t *p, uint32_t i, uint32_t v, uint32_t high)
{
    return bits_of(ints_at(p, i, v), high ? 4 : 0, 15);
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
        return flip_top(ints_at(p + 2 * PANEL, g, v));
#endif

    case KN_Q4_0:
        return nibbles(p + 2 * PANEL, g % 4, v, g / 4);

    case KN_Q4_1:
        return nibbles(p + 4 * PANEL, g % 4, v, g / 4);

    case KN_Q5_0:
        q = nibbles(p + 6 * PANEL, g % 4, v, g / 4);
        return or_bit4(q, ints_at(p + 2 * PANEL, 0, v), g);

    case KN_Q5_1:
        q = nibbles(p + 8 * PANEL, g % 4, v, g / 4);
        return or_bit4(q, ints_at(p + 4 * PANEL, 0, v), g);

    case KN_Q4_K:
        return nibbles(p + 20 * PANEL, s / 2 * 8 + g, v, s % 2);

    case KN_Q5_K:
        q = nibbles(p + 52 * PANEL, s / 2 * 8 + g, v, s % 2);
        return or_bit4(q, ints_at(p + 20 * PANEL, g, v), s);

    default:
        q = nibbles(p + 18 * PANEL, s / 4 * 16 + s % 2 * 8 + g, v, s % 4 / 2);
        return or_times16(q,
            bits_of(ints_at(p + 146 * PANEL, s / 4 * 8 + g, v), s % 4 * 2, 3));
    }
}

/* The factors and summands of step s, for vector v; factor g of factors_in. */
ALWAYS vf_t
factor(uint32_t type, const uint8_t *p, uint32_t s, uint32_t g, uint32_t v)
{
    vf_t d = from_f16(load_halves((const char *) p + v * LANES * 2));

    switch (type) {

    case KN_Q4_K:
    case KN_Q5_K:
        return V(mul)(d, from_bytes(p + (4 + s) * PANEL + v * LANES));

    case KN_Q6_K:
        return V(mul)(d, from_chars(p + (2 + 2 * s + g) * PANEL + v * LANES));

    default:
        return d;
    }
}

ALWAYS vf_t
summand(uint32_t type, const uint8_t *p, uint32_t s, uint32_t v)
{
    vf_t m =
        from_f16(load_halves((const char *) p + 2 * PANEL + v * LANES * 2));

    if (type == KN_Q4_1 || type == KN_Q5_1) {
        return m;
    }

    m = V(mul)(m, from_bytes(p + (12 + s) * PANEL + v * LANES));
    return V(sub)(V(setzero)(), m);
}

#if WORDS_8
ALWAYS vi_t
words(const uint8_t *p, uint32_t g, uint32_t v)
{
    return load_words(p + 2 * PANEL + ((size_t) g * PV + v) * sizeof(vi_t) / 2);
}
#endif

#endif
