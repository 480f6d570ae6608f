/*
 * Weights into panels and a row out again.
 *
 * DESIGN.  A block is first made straight: whatever its type packs into odd
 * bits is moved to where its place says which element it belongs to.  Most
 * blocks are so already.  Then it is pieces, each of units that go as they are;
 * so a type is a line of a table, and the way back is the same table.
 *
 * The fifth bits of Q5_0 and Q5_1 are straight when bit g of byte t is that of
 * element 4 g + t; scales of six bits when they are bytes, those of Q4_K and
 * Q5_K eight of factors and then eight of summands; IQ3_XXS when it is what
 * IQ3_S is, without the high bits.
 *
 * Pure functions; a panel per call, so that threads can share the work.
 */
#include "panel_turn.h"

#include <assert.h>
#include <string.h>

#define STRAIGHT_MAX 256
#define PIECES_MAX   4

_Static_assert(
    STRAIGHT_MAX % 4 == 0, "what is packed at a time is whole units");

typedef struct {
    uint8_t at, bytes; /* of the straight block */
    uint8_t unit;      /* 0: as the instruction set says */
} piece_t;

typedef struct {
    uint16_t elems, bytes, straight; /* of a block, in the file and straight */
    void (*make)(uint8_t *to, const uint8_t *from);
    void (*undo)(uint8_t *to, const uint8_t *from);
    piece_t pieces[PIECES_MAX];
} format_t;

/* Bit 4 g + t becomes bit 8 t + g, or the other way round. */
static uint32_t
fives_move(uint32_t h, int undo)
{
    uint32_t g, t, from, to, out = 0;

    for (t = 0; t < 4; t++) {
        for (g = 0; g < 8; g++) {
            from = undo ? 8 * t + g : 4 * g + t;
            to = undo ? 4 * g + t : 8 * t + g;
            out |= (h >> from & 1) << to;
        }
    }

    return out;
}

static void
fives(uint8_t *to, const uint8_t *from, uint32_t at, uint32_t size, int undo)
{
    uint32_t h;

    memcpy(to, from, size);
    memcpy(&h, from + at, 4);
    h = fives_move(h, undo);
    memcpy(to + at, &h, 4);
}

#define FIVES(name, at, bytes)                                                 \
    static void make_##name(uint8_t *to, const uint8_t *from)                  \
    {                                                                          \
        fives(to, from, at, bytes, 0);                                         \
    }                                                                          \
                                                                               \
    static void undo_##name(uint8_t *to, const uint8_t *from)                  \
    {                                                                          \
        fives(to, from, at, bytes, 1);                                         \
    }
FIVES(Q5_0, 2, 22)
FIVES(Q5_1, 4, 24)

/* Twelve bytes of six bits to sixteen bytes; dequant.h says where they are. */
static void
sixes_make(uint8_t *to, const uint8_t *from)
{
    uint32_t i;

    for (i = 0; i < 4; i++) {
        to[i] = from[i] & 63;
        to[8 + i] = from[4 + i] & 63;
        to[4 + i] = (uint8_t) ((from[8 + i] & 15) | from[i] >> 6 << 4);
        to[12 + i] = (uint8_t) (from[8 + i] >> 4 | from[4 + i] >> 6 << 4);
    }
}

static void
sixes_undo(uint8_t *to, const uint8_t *from)
{
    uint32_t i;

    for (i = 0; i < 4; i++) {
        to[i] = (uint8_t) (from[i] | from[4 + i] >> 4 << 6);
        to[4 + i] = (uint8_t) (from[8 + i] | from[12 + i] >> 4 << 6);
        to[8 + i] = (uint8_t) ((from[4 + i] & 15) | (from[12 + i] & 15) << 4);
    }
}

#define SIXES(name, bytes)                                                     \
    static void make_##name(uint8_t *to, const uint8_t *from)                  \
    {                                                                          \
        memcpy(to, from, 4);                                                   \
        sixes_make(to + 4, from + 4);                                          \
        memcpy(to + 20, from + 16, (bytes) -16);                               \
    }                                                                          \
                                                                               \
    static void undo_##name(uint8_t *to, const uint8_t *from)                  \
    {                                                                          \
        memcpy(to, from, 4);                                                   \
        sixes_undo(to + 4, from + 4);                                          \
        memcpy(to + 16, from + 20, (bytes) -16);                               \
    }
SIXES(Q4_K, 144)
SIXES(Q5_K, 176)

/* Sixteen signed bytes of what is six bits, 32 more, in twelve. */
static void
make_Q3_K(uint8_t *to, const uint8_t *from)
{
    uint32_t i, q;
    const uint8_t *s = from + 96;

    memcpy(to, from, 96);
    for (i = 0; i < 16; i++) {
        q = (s[i % 8] >> i / 8 * 4 & 15) | (s[8 + i % 4] >> i / 4 * 2 & 3) << 4;
        to[96 + i] = (uint8_t) (q - 32);
    }
    memcpy(to + 112, from + 108, 2);
}

static void
undo_Q3_K(uint8_t *to, const uint8_t *from)
{
    uint32_t i, q;
    uint8_t *s = to + 96;

    memcpy(to, from, 96);
    memset(s, 0, 12);
    for (i = 0; i < 16; i++) {
        q = from[96 + i] + 32u;
        s[i % 8] |= (uint8_t) ((q & 15) << i / 8 * 4);
        s[8 + i % 4] |= (uint8_t) ((q >> 4 & 3) << i / 4 * 2);
    }
    memcpy(to + 108, from + 112, 2);
}

/* Eight of them in six bytes, the high bits first. */
static void
make_IQ4_XS(uint8_t *to, const uint8_t *from)
{
    uint32_t i, q;

    memcpy(to, from, 2);
    for (i = 0; i < 8; i++) {
        q = (from[4 + i / 2] >> i % 2 * 4 & 15)
            | (from[2 + i / 4] >> i % 4 * 2 & 3) << 4;
        to[2 + i] = (uint8_t) (q - 32);
    }
    memcpy(to + 10, from + 8, 128);
}

static void
undo_IQ4_XS(uint8_t *to, const uint8_t *from)
{
    uint32_t i, q;

    memcpy(to, from, 2);
    memset(to + 2, 0, 6);
    for (i = 0; i < 8; i++) {
        q = from[2 + i] + 32u;
        to[4 + i / 2] |= (uint8_t) ((q & 15) << i % 2 * 4);
        to[2 + i / 4] |= (uint8_t) ((q >> 4 & 3) << i % 4 * 2);
    }
    memcpy(to + 8, from + 10, 128);
}

/* Signs of seven bits to eight of them, a scale's nibble to those of scales. */
static void
make_IQ3_XXS(uint8_t *to, const uint8_t *from)
{
    uint32_t s, i, u, signs;

    memcpy(to, from, 66);
    memset(to + 98, 0, 4);
    for (s = 0; s < 8; s++) {
        memcpy(&u, from + 66 + s * 4, 4);
        for (i = 0; i < 4; i++) {
            signs = u >> i * 7 & 127;
            signs |= (uint32_t) __builtin_parity(signs) << 7;
            to[66 + s * 4 + i] = (uint8_t) signs;
        }
        to[98 + s / 2] |= (uint8_t) (u >> 28 << s % 2 * 4);
    }
}

static void
undo_IQ3_XXS(uint8_t *to, const uint8_t *from)
{
    uint32_t s, i, u;

    memcpy(to, from, 66);
    for (s = 0; s < 8; s++) {
        u = (from[98 + s / 2] >> s % 2 * 4 & 15u) << 28;
        for (i = 0; i < 4; i++) {
            u |= (from[66 + s * 4 + i] & 127u) << i * 7;
        }
        memcpy(to + 66 + s * 4, &u, 4);
    }
}

/* clang-format off */
static const format_t formats[KN_TYPES] = {
    /* the plain ones have no blocks: of the pieces only the unit counts */
    [KN_F32] = {1, 4, 4, NULL, NULL, {{0, 4, 4}}},
    [KN_F16] = {1, 2, 2, NULL, NULL, {{0, 2, 2}}},
    [KN_BF16] = {1, 2, 2, NULL, NULL, {{0, 2, 0}}},
    [KN_Q8_0] = {32, 34, 34, NULL, NULL, {{0, 2, 2}, {2, 32, 0}}},
    [KN_Q4_0] = {32, 18, 18, NULL, NULL, {{0, 2, 2}, {2, 16, 4}}},
    [KN_Q4_1] = {32, 20, 20, NULL, NULL, {{0, 4, 2}, {4, 16, 4}}},
    [KN_Q5_0] = {32, 22, 22, make_Q5_0, undo_Q5_0, {{0, 2, 2}, {2, 20, 4}}},
    [KN_Q5_1] = {32, 24, 24, make_Q5_1, undo_Q5_1, {{0, 4, 2}, {4, 20, 4}}},
    [KN_Q4_K] = {256, 144, 148, make_Q4_K, undo_Q4_K,
        {{0, 4, 2}, {4, 16, 1}, {20, 128, 4}}},
    [KN_Q5_K] = {256, 176, 180, make_Q5_K, undo_Q5_K,
        {{0, 4, 2}, {4, 16, 1}, {20, 32, 4}, {52, 128, 4}}},
    [KN_Q6_K] = {256, 210, 210, NULL, NULL,
        {{208, 2, 2}, {192, 16, 1}, {0, 128, 4}, {128, 64, 4}}},
    [KN_Q2_K] = {256, 84, 84, NULL, NULL,
        {{80, 4, 2}, {0, 16, 1}, {16, 64, 4}}},
    [KN_Q3_K] = {256, 110, 114, make_Q3_K, undo_Q3_K,
        {{112, 2, 2}, {96, 16, 1}, {0, 32, 4}, {32, 64, 4}}},
    [KN_TQ1_0] = {256, 54, 54, NULL, NULL, {{52, 2, 2}, {0, 52, 4}}},
    [KN_TQ2_0] = {256, 66, 66, NULL, NULL, {{64, 2, 2}, {0, 64, 4}}},
    [KN_MXFP4] = {32, 17, 17, NULL, NULL, {{0, 1, 1}, {1, 16, 4}}},
    [KN_IQ4_NL] = {32, 18, 18, NULL, NULL, {{0, 2, 2}, {2, 16, 0}}},
    [KN_IQ4_XS] = {256, 136, 138, make_IQ4_XS, undo_IQ4_XS,
        {{0, 2, 2}, {2, 8, 1}, {10, 128, 0}}},
    [KN_IQ3_S] = {256, 110, 110, NULL, NULL, {{0, 2, 2}, {2, 108, 1}}},
    [KN_IQ3_XXS] = {256, 98, 102, make_IQ3_XXS, undo_IQ3_XXS,
        {{0, 2, 2}, {2, 100, 1}}},
};
/* clang-format on */

uint64_t
panel_bytes(uint32_t type, uint32_t k)
{
    const format_t *f = &formats[type];

    assert(type < KN_TYPES && k % f->elems == 0);
    return (uint64_t) k / f->elems * f->straight * PANEL;
}

/* Bytes that stand side by side. */
static uint32_t
unit_of(const piece_t *piece, uint32_t unit)
{
    return piece->unit != 0 ? piece->unit : unit;
}

/* Number i of PANEL units at from. */
static inline void
unit_take(uint8_t *to, const uint8_t *from, uint32_t unit, uint32_t i)
{
    switch (unit) {

    case 4:
        memcpy(to, from + i * 4, 4);
        break;

    case 2:
        memcpy(to, from + i * 2, 2);
        break;

    default:
        assert(unit == 1);
        *to = from[i];
    }
}

/* n bytes of row i out of a piece of a panel. */
static void
piece_take(
    uint8_t *row, const uint8_t *panel, uint32_t n, uint32_t unit, uint32_t i)
{
    uint32_t at;

    for (at = 0; at < n; at += unit) {
        unit_take(row + at, panel + at * PANEL, unit, i);
    }
}

/* The straight block of row i out of a panel's block. */
static void
block_take(const format_t *f, uint32_t unit, uint8_t *row, const uint8_t *panel,
    uint32_t i)
{
    uint32_t p;
    const piece_t *piece;

    for (p = 0; p < PIECES_MAX && f->pieces[p].bytes > 0; p++) {
        piece = &f->pieces[p];
        piece_take(
            row + piece->at, panel, piece->bytes, unit_of(piece, unit), i);
        panel += piece->bytes * PANEL;
    }
}

/* A panel's block of the rows' straight ones. */
static void
block_turn(const format_t *f, uint32_t unit, uint8_t *panel,
    const uint8_t *const rows[PANEL])
{
    uint32_t p;
    const piece_t *piece;

    for (p = 0; p < PIECES_MAX && f->pieces[p].bytes > 0; p++) {
        piece = &f->pieces[p];
        panel_turn(panel, rows, piece->at, piece->bytes, unit_of(piece, unit));
        panel += piece->bytes * PANEL;
    }
}

/* n bytes of rows of a plain type; what is no whole unit goes by elements. */
static void
plain_turn(const format_t *f, uint32_t unit, uint8_t *panel,
    const uint8_t *const rows[PANEL], uint32_t n)
{
    uint32_t u = unit_of(f->pieces, unit), whole = n - n % u;

    panel_turn(panel, rows, 0, whole, u);
    panel_turn(panel + whole * PANEL, rows, whole, n - whole, f->bytes);
}

static void
plain_take(const format_t *f, uint32_t unit, uint8_t *row, const uint8_t *panel,
    uint32_t n, uint32_t i)
{
    uint32_t u = unit_of(f->pieces, unit), whole = n - n % u;

    piece_take(row, panel, whole, u, i);
    piece_take(
        row + whole, panel + (size_t) whole * PANEL, n - whole, f->bytes, i);
}

void
panel_pack(uint32_t type, uint32_t unit, void *panel, const void *src,
    uint32_t n, uint32_t k)
{
    static const uint8_t nothing[STRAIGHT_MAX];
    const format_t *f = &formats[type];
    const uint8_t *rows[PANEL], *from = src;
    uint8_t *to = panel, straight[PANEL][STRAIGHT_MAX];
    size_t at, bytes, row = (size_t) k / f->elems * f->bytes;
    uint32_t i;

    assert(type < KN_TYPES && n >= 1 && n <= PANEL && k % f->elems == 0);
    assert(unit == 2 || unit == 4);

    for (i = n; i < PANEL; i++) {
        rows[i] = nothing;
    }

    for (at = 0; at < row; at += bytes) {
        /* of plain types as much as there is of zeros */
        bytes = f->elems > 1              ? f->bytes
                : row - at < STRAIGHT_MAX ? row - at
                                          : STRAIGHT_MAX;

        for (i = 0; i < n; i++) {
            rows[i] = from + i * row + at;
            if (f->make != NULL) {
                f->make(straight[i], rows[i]);
                rows[i] = straight[i];
            }
        }

        if (f->elems > 1) {
            block_turn(f, unit, to, rows);
            to += f->straight * PANEL;
        } else {
            plain_turn(f, unit, to, rows, (uint32_t) bytes);
            to += bytes * PANEL;
        }
    }
}

void
panel_row(uint32_t type, uint32_t unit, void *dst, const void *panel,
    uint32_t i, uint32_t k)
{
    const format_t *f = &formats[type];
    const uint8_t *from = panel;
    uint8_t *to = dst, straight[STRAIGHT_MAX];
    uint32_t b;

    assert(type < KN_TYPES && i < PANEL && k % f->elems == 0);

    if (f->elems == 1) {
        plain_take(f, unit, to, from, k * f->bytes, i);
        return;
    }

    for (b = 0; b < k / f->elems; b++) {
        block_take(f, unit, straight, from, i);
        if (f->undo != NULL) {
            f->undo(to, straight);
        } else {
            memcpy(to, straight, f->bytes);
        }
        from += f->straight * PANEL;
        to += f->bytes;
    }
}

void
panel_put(const cpu_panels_t *a, uint32_t p, uint32_t n, const float *sums)
{
    uint32_t i, begin = p * PANEL, from = begin, to = begin + n * PANEL;

    from = from > a->n0 ? from : a->n0;
    to = to < a->n0 + a->n ? to : a->n0 + a->n;
    assert(from < to);

    for (i = 0; i < a->m; i++) {
        memcpy(a->y + i * a->ldy + (from - a->n0),
            sums + i * n * PANEL + (from - begin), (to - from) * sizeof(float));
    }
}
