/*
 * Products over panels (panel.h), at every width.
 *
 * DESIGN.  A panel's row of PANEL outputs is PV vectors of floats.  A tile is
 * C rows of activations by one panel or some; an activation is one number that
 * all lanes multiply by.
 *
 * Plain types: one fused multiply-add a weight, k upwards; after every CHUNK
 * of k the sum is added to the total and begins anew, which keeps the error of
 * long rows small.
 *
 * Types in blocks: activations are whole numbers too, 32 of them (a step) with
 * a factor d of their own; sums of a step are exact integers, and then
 *
 *      y += (d S) D              S: sum of q x; D: the weights' factor
 *      y += (d S + o s) D        with numbers q that are o too large; s is d
 *                                times the sum of x
 *      y += (d S) D; y += s M    with a summand M
 *
 * Numbers of up to seven bits meet x of eight bits, those of eight bits x of
 * sixteen (words) where the instruction set has no product of bytes that cannot
 * overflow.
 *
 * A few rows take the weights out of their bits in the registers.  Of many the
 * first tile does so with a chunk of the panel and leaves it unpacked in the
 * first cache, where the others go through it; meanwhile all ask for what the
 * next chunk is made of.  Both compute the same numbers in the same order: an
 * output's bits depend on its type and k.
 *
 * Plain types are made floats on the way: with AVX2 by each tile of rows again,
 * since conversions do not take from multiplications what storing would; where
 * they do (AVX-512), by the first of many tiles.  While that first tile
 * multiplies it asks for the chunk after: memory is never idle for long.
 *
 * Included once by an instruction set's file, which says before:
 *
 *      PANELS            the table made here
 *      REST              one whose products of plain types are no others, and
 *                        are not made here then
 *      ALWAYS  LANES     as in vec.h
 *      P_INTS P_MANY     panels by four or six rows that fit the registers, of
 *                        types in blocks and of plain ones
 *      P_FLOATS          plain panels by one row that keep multiplications busy
 *      P_KEEP            from so many rows on weights of plain types are made
 *                        floats once for all rows; else by each tile of rows
 *      vf_t  V(op)       LANES floats and the intrinsics over them
 *      vi_t              as many bytes as a vf_t
 *      from_f16(h) from_bf16(h) load_halves(p)         as in vec.h
 *      from_bytes(p) from_chars(p)   LANES bytes as floats; signed ones
 *      from_bits(p, n, mask)         their bits from bit n on, masked
 *      from_powers(p)                2^(byte - 128)
 *      to_floats32(v)                LANES i32 as floats
 *      load_ints(p)  store_ints(p, v)  zero_ints()  add32(a, b)
 *      bits_of(v, n, mask)           bytes' bits from bit n on, masked
 *      or_above(v, h, n)             v with h above its n bits
 *      plus(v, n)                    bytes plus n
 *      digit(v, power)               the first digit of base 3 of bytes, as
 *                                    fractions of 256, times a power of 3
 *      look(table, n, v)             table[byte] + n, of sixteen bytes
 *      widen(p)                      LANES bytes, one in each lane
 *      look_far(table, v)            table[lane], of i32
 *      negate(v, s, n)               bytes of v negated where bit n and the
 *                                    next three of a lane of s are set
 *      spread(p)                     the 4 bytes at p in all lanes
 *      mac(acc, w, x)                acc plus products of bytes, w unsigned
 *      MAC_BITS                      room that acc has for them: how many
 *                                    products of 15 bits; fold() empties it
 *      fold(acc)                     acc as LANES i32
 *      WORDS_8                       do numbers of eight bits go by words?
 *                                    Then also
 *      load_words(p)                 LANES * 2 signed bytes as words
 *      look_words(table, p, n)       LANES * 2 of table, by nibbles: bits of
 *                                    bytes from bit n on
 *      mac_words(acc, w, x)          acc plus products of words, as i32
 */
#ifndef VEC_PANEL_H
#define VEC_PANEL_H

#include "cpu.h"
#include "panel.h"
#include "vec_whole.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define PV    (PANEL / LANES)
#define CHUNK 128
#define STEPS (256 / CPU_STEP) /* of the others: a multiple of all blocks */
#define ROWS  CPU_TILE_M

/* Rows that a tile of each kind takes, and up to which nothing is unpacked. */
#define C_FLOATS 6
#define C_INTS   4
#define C_DIRECT 4

/* Elements of plain types between two times that memory is asked. */
#define GROUP 8

/* Panels, alone or by P_INTS, that many rows take together. */
#define GROUPS (CPU_TILE_N / PANEL)

_Static_assert(P_INTS <= GROUPS, "one stack of sums is for both");

#ifndef UNROLL
#define UNROLL _Pragma("GCC unroll 16")
#endif

#include "vec_blocks.h"

/* A step of a panel, unpacked. */
typedef struct {
    uint8_t q[CPU_STEP * PANEL * (1 + WORDS_8)];
    float d[2][PANEL];
    float m[2][PANEL];
} unpacked_t;

/*
 * Where a tile has the weights of a step from: the blocks of panels, the next
 * one's stride bytes further on; or u, the next panel's STEPS further on; or
 * from the blocks and leaves them in u.  A tile's vector v is vector v % PV of
 * panel v / PV.
 */
typedef struct {
    enum { BLOCKS, UNPACKED, BOTH } from;
    const uint8_t *p;
    size_t stride;
    unpacked_t *u;
    float offset; /* offset_of() the type */
} from_t;

#define NV (P_INTS * PV)

/* The block, the step unpacked, of vector v. */
ALWAYS const uint8_t *
block_of(const from_t *w, uint32_t v)
{
    return w->p + v / PV * w->stride;
}

ALWAYS unpacked_t *
unpacked_of(const from_t *w, uint32_t v)
{
    return w->u + v / PV * STEPS;
}

ALWAYS vf_t
from_factor(uint32_t type, const from_t *w, uint32_t s, uint32_t g, uint32_t v)
{
    vf_t d = w->from == UNPACKED
                 ? V(loadu)(unpacked_of(w, v)->d[g] + v % PV * LANES)
                 : factor(type, block_of(w, v), s, g, v % PV);

    if (w->from == BOTH) {
        V(storeu)(unpacked_of(w, v)->d[g] + v % PV * LANES, d);
    }

    return d;
}

ALWAYS vf_t
from_summand(uint32_t type, const from_t *w, uint32_t s, uint32_t g, uint32_t v)
{
    vf_t m = w->from == UNPACKED
                 ? V(loadu)(unpacked_of(w, v)->m[g] + v % PV * LANES)
                 : summand(type, block_of(w, v), s, g, v % PV);

    if (w->from == BOTH) {
        V(storeu)(unpacked_of(w, v)->m[g] + v % PV * LANES, m);
    }

    return m;
}

/* Unit g, of words where the type goes by them. */
ALWAYS vi_t
from_quants(uint32_t type, const from_t *w, uint32_t s, uint32_t g, uint32_t v)
{
    size_t at = ((size_t) g * PV + v % PV) * sizeof(vi_t);
    vi_t q;

    if (w->from == UNPACKED) {
        return load_ints(unpacked_of(w, v)->q + at);
    }

#if WORDS_8
    q = is_words(type) ? words(type, block_of(w, v), s, g, v % PV)
                       : quants(type, block_of(w, v), s, g, v % PV);
#else
    q = quants(type, block_of(w, v), s, g, v % PV);
#endif
    if (w->from == BOTH) {
        store_ints(unpacked_of(w, v)->q + at, q);
    }

    return q;
}

/* Activations of a tile: C rows, each of numbers and of steps. */
typedef struct {
    const uint8_t *q;    /* at the first number of the step */
    const cpu_step_t *s; /* the step */
    size_t ldq, lds;     /* bytes; steps */
} acts_t;

/* Units g from begin to end of step s of the weights, times x: sums. */
ALWAYS void
step_bytes_sums(uint32_t type, uint32_t C, uint32_t P, const from_t *w,
    uint32_t s, const acts_t *x, uint32_t begin, uint32_t end,
    vi_t sums[C_INTS][NV])
{
    uint32_t c, g, v, n, each = macs_in(type);
    vi_t acc[C_INTS][NV], q[NV], t;

    each = each < end - begin ? each : end - begin;

    for (c = 0; c < C; c++) {
        for (v = 0; v < P * PV; v++) {
            sums[c][v] = zero_ints();
        }
    }

    UNROLL
    for (g = begin; g < end; g += each) {
        for (c = 0; c < C; c++) {
            for (v = 0; v < P * PV; v++) {
                acc[c][v] = zero_ints();
            }
        }

        UNROLL
        for (n = g; n < g + each; n++) {
            for (v = 0; v < P * PV; v++) {
                q[v] = from_quants(type, w, s, n, v);
            }
            for (c = 0; c < C; c++) {
                t = spread(x->q + c * x->ldq + n * 4);
                for (v = 0; v < P * PV; v++) {
                    acc[c][v] = mac(acc[c][v], q[v], t);
                }
            }
        }

        for (c = 0; c < C; c++) {
            for (v = 0; v < P * PV; v++) {
                sums[c][v] = add32(sums[c][v], fold(acc[c][v]));
            }
        }
    }
}

/* The same of numbers of eight bits, x being of sixteen. */
ALWAYS void
step_words_sums(uint32_t type, uint32_t C, uint32_t P, const from_t *w,
    uint32_t s, const acts_t *x, vi_t sums[C_INTS][NV])
{
#if WORDS_8
    uint32_t c, g, v;
    vi_t q[NV], t;

    for (c = 0; c < C; c++) {
        for (v = 0; v < P * PV; v++) {
            sums[c][v] = zero_ints();
        }
    }

    UNROLL
    for (g = 0; g < CPU_STEP / 2; g++) {
        for (v = 0; v < P * PV; v++) {
            q[v] = from_quants(type, w, s, g, v);
        }
        for (c = 0; c < C; c++) {
            t = spread(x->q + c * x->ldq + g * 4);
            for (v = 0; v < P * PV; v++) {
                sums[c][v] = mac_words(sums[c][v], q[v], t);
            }
        }
    }
#else
    (void) type, (void) C, (void) P, (void) w;
    (void) s, (void) x, (void) sums;
#endif
}

/* A step of C rows by P panels: y takes its share. */
ALWAYS void
step_tile(uint32_t type, uint32_t C, uint32_t P, const from_t *w, uint32_t s,
    const acts_t *x, vf_t y[C_INTS][NV])
{
    uint32_t c, f, v, n = factors_in(type), units = CPU_STEP / 4 / n;
    vi_t sums[C_INTS][NV];
    vf_t d[NV], m[NV], t, by, o;
    const cpu_step_t *step;

    UNROLL
    for (f = 0; f < n; f++) {
        if (is_words(type)) {
            step_words_sums(type, C, P, w, s, x, sums);
        } else {
            step_bytes_sums(
                type, C, P, w, s, x, f * units, (f + 1) * units, sums);
        }

        for (v = 0; v < P * PV; v++) {
            d[v] = from_factor(type, w, s, f, v);
            m[v] = has_summand(type) ? from_summand(type, w, s, f, v) : d[v];
        }

        for (c = 0; c < C; c++) {
            step = x->s + c * x->lds;
            by = V(set1)(step->d);
            o = V(set1)(n == 2 ? step->half[f] : step->sum);
            if (offset_of(type) != 0) {
                o = V(mul)(o, V(set1)(w->offset));
            }

            for (v = 0; v < P * PV; v++) {
                t = to_floats32(sums[c][v]);
                t = offset_of(type) != 0 ? V(fmadd)(t, by, o) : V(mul)(t, by);
                y[c][v] = V(fmadd)(t, d[v], y[c][v]);
                if (has_summand(type)) {
                    y[c][v] = V(fmadd)(o, m[v], y[c][v]);
                }
            }
        }
    }
}

ALWAYS void
load_sums(uint32_t C, uint32_t P, vf_t y[][NV], const float *sums)
{
    uint32_t c, v;

    for (c = 0; c < C; c++) {
        for (v = 0; v < P * PV; v++) {
            y[c][v] = sums != NULL ? V(loadu)(sums + c * P * PANEL + v * LANES)
                                   : V(setzero)();
        }
    }
}

ALWAYS void
store_sums(uint32_t C, uint32_t P, vf_t y[][NV], float *sums)
{
    uint32_t c, v;

    for (c = 0; c < C; c++) {
        for (v = 0; v < P * PV; v++) {
            V(storeu)(sums + c * P * PANEL + v * LANES, y[c][v]);
        }
    }
}

/* Asks for what a stream of weights will read in a while. */
ALWAYS void
ask(const uint8_t *p, size_t n)
{
    size_t i;

    for (i = 0; i < n; i += 64) {
        _mm_prefetch(
            (const char *) ((uintptr_t) p + CPU_AHEAD + i), _MM_HINT_T0);
    }
}

/*
 * The chunk after this one, of P panels that are stride bytes apart.  Each step
 * of each tile asks for `each` bytes more of it, so that memory is read all the
 * time and not only by those who unpack.
 */
typedef struct {
    uintptr_t p, end;
    size_t each, stride;
} next_t;

ALWAYS void
ask_next(uint32_t P, next_t *next)
{
    uintptr_t to = next->p + next->each;
    uint32_t i;

    for (; next->p < to && next->p < next->end; next->p += 64) {
        for (i = 0; i < P; i++) {
            _mm_prefetch(
                (const char *) (next->p + i * next->stride), _MM_HINT_T0);
        }
    }
}

/*
 * C rows by n steps of P panels, a multiple of a block's unless they are
 * unpacked.
 */
ALWAYS void
ints_tile(uint32_t type, uint32_t C, uint32_t P, from_t w, acts_t x, uint32_t n,
    next_t *next, float *sums, int first)
{
    vf_t y[C_INTS][NV];
    uint32_t b, h, s;
    uint32_t steps = w.from == UNPACKED ? 1 : steps_in(type);
    uint32_t run = w.from == UNPACKED ? 1 : run_of(type);
    size_t bytes = CPU_STEP * (1 + (size_t) is_words(type));

    load_sums(C, P, y, first ? NULL : sums);

    for (b = 0; b < n; b += steps) {
        if (w.from == BLOCKS) {
            ask(w.p, block_size(type));
        }

        for (h = 0; h < steps / run; h++) {
            UNROLL
            for (s = 0; s < run; s++) {
                if (w.from != BLOCKS) {
                    ask_next(P, next);
                }
                step_tile(type, C, P, &w, h * run + s, &x, y);
                x.q += bytes;
                x.s++;
                w.u = w.from != BLOCKS ? w.u + 1 : NULL;
            }
        }

        w.p = w.from != UNPACKED ? w.p + block_size(type) : NULL;
    }

    store_sums(C, P, y, sums);
}

/* Rows [i, i + C) of a through all that was unpacked, or directly. */
ALWAYS acts_t
acts_at(const cpu_panels_t *a, uint32_t type, uint32_t i, uint32_t e)
{
    acts_t x;

    x.ldq = (size_t) a->k * (1 + (size_t) is_words(type));
    x.lds = a->k / CPU_STEP;
    x.q = (const uint8_t *) a->q + i * x.ldq
          + (size_t) e * (1 + (size_t) is_words(type));
    x.s = a->s + i * x.lds + e / CPU_STEP;

    return x;
}

/* A chunk of P panels, n steps from element e on, and where its sums are. */
typedef struct {
    unpacked_t *u;
    uint32_t P, e, n;
    float offset;
    next_t *next;
    float *sums; /* [rows][P][PANEL] */
} chunk_t;

/* C rows from i on by a chunk that is unpacked. */
ALWAYS void
unpacked_tile(const cpu_panels_t *a, uint32_t type, uint32_t C, uint32_t P,
    const chunk_t *k, uint32_t i)
{
    from_t w = {UNPACKED, NULL, 0, k->u, k->offset};

    ints_tile(type, C, P, w, acts_at(a, type, i, k->e), k->n, k->next,
        k->sums + i * P * PANEL, k->e == 0);
}

ALWAYS void
unpacked_rows(const cpu_panels_t *a, uint32_t type, uint32_t P,
    const chunk_t *k, uint32_t i)
{
    for (; i + C_INTS <= a->m; i += C_INTS) {
        unpacked_tile(a, type, C_INTS, P, k, i);
    }

    if (i + 2 <= a->m) {
        unpacked_tile(a, type, 2, P, k, i);
        i += 2;
    }

    if (i < a->m) {
        unpacked_tile(a, type, 1, P, k, i);
    }
}

/*
 * Rows from i on by a chunk that is unpacked: a function for all types that are
 * then as one.
 */
typedef void rows_f(const cpu_panels_t *a, const chunk_t *k, uint32_t i);

/* clang-format off */
#define X(name)                                                                \
    static void rows_##name(const cpu_panels_t *a, const chunk_t *k,           \
        uint32_t i)                                                            \
    {                                                                          \
        if (k->P == P_INTS) {                                                  \
            unpacked_rows(a, KN_##name, P_INTS, k, i);                         \
        } else {                                                               \
            unpacked_rows(a, KN_##name, 1, k, i);                              \
        }                                                                      \
    }
AS_LIST(X)
#undef X

static rows_f *const rows_of[KN_TYPES] = {
#define X(name, as, ...) [KN_##name] = rows_##as,
    BLOCK_LIST(X)
#undef X
};
/* clang-format on */

/*
 * Many rows by n steps of P panels' blocks at p, from element e on.  Where not
 * even a few are direct, or panels are what is left of them, the first tile is
 * one row.
 */
ALWAYS void
ints_chunk(const cpu_panels_t *a, uint32_t type, uint32_t P, const uint8_t *p,
    uint32_t e, uint32_t n, next_t *next, float *sums)
{
    unpacked_t u[P_INTS * STEPS] __attribute__((aligned(64)));
    from_t both = {BOTH, p, a->stride, u, offset_of(type)};
    chunk_t k = {u, P, e, n, offset_of(type), next, sums};
    uint32_t first = direct_rows(type) < C_DIRECT || P < P_INTS ? 1 : C_INTS;

    ints_tile(
        type, first, P, both, acts_at(a, type, 0, e), n, next, sums, e == 0);

    if (first < a->m) {
        rows_of[type](a, &k, first);
    }
}

/*
 * Many rows by n groups of P panels from w on, n being GROUPS at most; sums are
 * [n][ROWS][P][PANEL].  All groups go through a chunk of activations before the
 * next, while it is in a near cache.
 */
ALWAYS void
ints_many(const cpu_panels_t *a, uint32_t type, uint32_t P, uint32_t n,
    const uint8_t *w, float *sums)
{
    uint32_t e, g, steps, tiles = (a->m + C_INTS - 1) / C_INTS;
    size_t size, then, at = 0, each = P * a->stride;
    next_t next;

    for (e = 0; e < a->k; e += steps * CPU_STEP, at += size) {
        steps = (a->k - e) / CPU_STEP;
        steps = steps < STEPS ? steps : STEPS;
        size = steps / steps_in(type) * block_size(type);
        then = e + steps * CPU_STEP < a->k ? at + size : n * each;

        for (g = 0; g < n; g++) {
            next.p = (uintptr_t) w + (g + 1 < n ? (g + 1) * each + at : then);
            next.end = next.p + size;
            next.each = (size + steps * tiles - 1) / (steps * tiles);
            next.stride = a->stride;
            ints_chunk(a, type, P, w + g * each + at, e, steps, &next,
                sums + g * ROWS * P * PANEL);
        }
    }
}

/* As few rows as are direct, by a panel. */
ALWAYS void
ints_few(const cpu_panels_t *a, uint32_t type, const uint8_t *p, float *sums)
{
    acts_t x = acts_at(a, type, 0, 0);
    from_t w = {BLOCKS, p, 0, NULL, offset_of(type)};
    uint32_t n = a->k / CPU_STEP, m = direct_rows(type) > 1 ? a->m : 1;

    switch (m) {

    case 1:
        ints_tile(type, 1, 1, w, x, n, NULL, sums, 1);
        break;

    case 2:
        ints_tile(type, 2, 1, w, x, n, NULL, sums, 1);
        break;

    case 3:
        ints_tile(type, 3, 1, w, x, n, NULL, sums, 1);
        break;

    default:
        ints_tile(type, 4, 1, w, x, n, NULL, sums, 1);
    }
}

/* Many rows by n groups of P panels from number p on. */
ALWAYS void
ints_groups(
    const cpu_panels_t *a, uint32_t type, uint32_t p, uint32_t P, uint32_t n)
{
    float sums[GROUPS * ROWS * PANEL] __attribute__((aligned(64)));
    const uint8_t *w = (const uint8_t *) a->w + p * a->stride;
    uint32_t g;

    assert(n * P <= GROUPS);
    ints_many(a, type, P, n, w, sums);

    for (g = 0; g < n; g++) {
        panel_put(a, p + g * P, P, sums + g * ROWS * P * PANEL);
    }
}

ALWAYS void
ints_panels(const cpu_panels_t *a, uint32_t type)
{
    float sums[C_DIRECT * PANEL] __attribute__((aligned(64)));
    uint32_t p = a->n0 / PANEL, n, end = (a->n0 + a->n + PANEL - 1) / PANEL;

    assert(a->m > 0 && a->m <= ROWS && a->n > 0);
    assert(a->k % (steps_in(type) * CPU_STEP) == 0);

    for (; a->m <= direct_rows(type) && p < end; p++) {
        ints_few(a, type, (const uint8_t *) a->w + p * a->stride, sums);
        panel_put(a, p, 1, sums);
    }

    for (; P_INTS > 1 && end - p >= P_INTS; p += P_INTS) {
        ints_groups(a, type, p, P_INTS, 1);
    }

    for (; p < end; p += n) {
        n = end - p < GROUPS ? end - p : GROUPS;
        ints_groups(a, type, p, 1, n);
    }
}

#ifndef REST

/* Weights of element e, vector v, of a panel of a plain type. */
ALWAYS vf_t
plain(uint32_t type, const char *p, size_t e, uint32_t v)
{
    size_t at = e * PANEL + v * LANES;

    switch (type) {

    case KN_F16:
        return from_f16(load_halves(p + at * 2));

    case KN_BF16:
        return from_bf16(load_halves(p + at * 2));

    default:
        return V(loadu)((const float *) (const void *) p + at);
    }
}

ALWAYS size_t
plain_size(uint32_t type)
{
    return type == KN_F32 ? 4 : 2;
}

/* A chunk of P panels and some rows: see floats_many(). */
typedef struct {
    const char *w; /* the panels, stride bytes apart */
    size_t stride;
    const float *x;
    size_t ldx;
    uint32_t n;      /* elements */
    uint32_t first;  /* 0, 1: of k? */
    float *sums;     /* [rows][P][PANEL] */
    float *keep;     /* [P][CHUNK][PANEL] for the weights as floats, or NULL */
    const char *ask; /* what will be read next, or NULL */
    size_t ask_stride;
} floats_t;

/* Asks for the bytes of GROUP elements of P panels, n elements further on. */
ALWAYS void
floats_ask(uint32_t type, uint32_t P, const floats_t *f, uint32_t n)
{
    uint32_t p, i;
    size_t size = plain_size(type) * PANEL;

    for (p = 0; p < P; p++) {
        for (i = 0; i < GROUP * size; i += 64) {
            _mm_prefetch((const char *) ((uintptr_t) f->ask + n * size + i
                                         + p * f->ask_stride),
                _MM_HINT_T0);
        }
    }
}

/* Element e of C rows and P panels. */
ALWAYS void
floats_element(uint32_t type, uint32_t C, uint32_t P, const floats_t *f,
    uint32_t e, vf_t acc[][P_FLOATS * PV])
{
    vf_t t[P_FLOATS * PV], by;
    uint32_t c, v;

    for (v = 0; v < P * PV; v++) {
        t[v] = plain(type, f->w + v / PV * f->stride, e, v % PV);
        if (f->keep != NULL) {
            V(storeu)
            (f->keep + (v / PV * CHUNK + e) * PANEL + v % PV * LANES, t[v]);
        }
    }

    for (c = 0; c < C; c++) {
        by = V(set1)(f->x[c * f->ldx + e]);
        for (v = 0; v < P * PV; v++) {
            acc[c][v] = V(fmadd)(t[v], by, acc[c][v]);
        }
    }
}

/* C rows by a chunk; what is asked for is of the type `asked`. */
ALWAYS void
floats_tile(
    uint32_t type, uint32_t asked, uint32_t C, uint32_t P, const floats_t *f)
{
    vf_t acc[C_FLOATS][P_FLOATS * PV];
    uint32_t e, i, c, v;
    float *to;

    for (c = 0; c < C; c++) {
        for (v = 0; v < P * PV; v++) {
            acc[c][v] = V(setzero)();
        }
    }

    for (e = 0; e + GROUP <= f->n; e += GROUP) {
        if (f->ask != NULL) {
            floats_ask(asked, P, f, e);
        }
        for (i = 0; i < GROUP; i++) {
            floats_element(type, C, P, f, e + i, acc);
        }
    }
    for (; e < f->n; e++) {
        floats_element(type, C, P, f, e, acc);
    }

    for (c = 0; c < C; c++) {
        for (v = 0; v < P * PV; v++) {
            to = f->sums + c * P * PANEL + v * LANES;
            if (!f->first) {
                acc[c][v] = V(add)(V(loadu)(to), acc[c][v]);
            }
            V(storeu)(to, acc[c][v]);
        }
    }
}

ALWAYS void
floats_rows(
    uint32_t type, uint32_t asked, uint32_t C, uint32_t P, const floats_t *f)
{
    switch (C) {

    case 1:
        floats_tile(type, asked, 1, P, f);
        break;

    case 2:
        floats_tile(type, asked, 2, P, f);
        break;

    case 3:
        floats_tile(type, asked, 3, P, f);
        break;

    case 4:
        floats_tile(type, asked, 4, P, f);
        break;

    case 5:
        floats_tile(type, asked, 5, P, f);
        break;

    default:
        floats_tile(type, asked, 6, P, f);
    }
}

/*
 * All rows by a chunk of P panels, in tiles as even as can be: one of few rows
 * would wait for its own sums.  The first tile has the weights come out of
 * memory, asks for the next chunk's while it multiplies, and may keep them for
 * the others as floats.
 */
ALWAYS void
floats_chunk(uint32_t type, uint32_t m, uint32_t P, floats_t *f)
{
    float u[P_MANY * CHUNK * PANEL] __attribute__((aligned(64)));
    uint32_t rows, tiles = (m + C_FLOATS - 1) / C_FLOATS;
    int keep = type != KN_F32 && m >= P_KEEP;

    f->keep = keep ? u : NULL;

    for (; m > 0; m -= rows, tiles--) {
        rows = m / tiles;
        if (keep && f->keep == NULL) {
            floats_rows(KN_F32, type, rows, P, f);
        } else {
            floats_rows(type, type, rows, P, f);
        }

        if (f->keep != NULL) {
            f->keep = NULL;
            f->w = (const char *) u;
            f->stride = sizeof(u) / P_MANY;
        }

        f->ask = NULL;
        f->x += rows * f->ldx;
        f->sums += rows * P * PANEL;
    }
}

/* The rows by P panels from w on, all of k. */
ALWAYS void
floats_many(const cpu_panels_t *a, uint32_t type, uint32_t P, const char *w,
    float *sums)
{
    floats_t f;
    uint32_t e;
    size_t size = plain_size(type) * PANEL;

    for (e = 0; e < a->k; e += f.n, w += f.n * size) {
        f = (floats_t){w, a->stride, a->x + e, a->ldx,
            a->k - e < CHUNK ? a->k - e : CHUNK, e == 0, sums, NULL, NULL,
            a->stride};
        f.ask = (const char *) ((uintptr_t) w + CHUNK * size);

        if (P == P_FLOATS) {
            floats_tile(type, type, 1, P, &f);
        } else {
            floats_chunk(type, a->m, P, &f);
        }
    }
}

/* One row takes some panels together: a panel alone has too few sums. */
ALWAYS void
floats_panels(const cpu_panels_t *a, uint32_t type)
{
    float sums[ROWS * P_MANY * PANEL + P_FLOATS * PANEL]
        __attribute__((aligned(64)));
    uint32_t p, n, end = (a->n0 + a->n + PANEL - 1) / PANEL;
    const char *w;

    assert(a->m > 0 && a->m <= ROWS && a->n > 0);

    for (p = a->n0 / PANEL; p < end; p += n) {
        w = a->w + p * a->stride;

        if (a->m == 1 && end - p >= P_FLOATS) {
            n = P_FLOATS;
            floats_many(a, type, P_FLOATS, w, sums);
        } else if (P_MANY > 1 && end - p >= P_MANY) {
            n = P_MANY;
            floats_many(a, type, P_MANY, w, sums);
        } else {
            n = 1;
            floats_many(a, type, 1, w, sums);
        }

        panel_put(a, p, n, sums);
    }
}

#endif

/*
 * k numbers of x as whole ones, bytes of bytes each: in each step the largest
 * is 127 or 32767.  A step with one that is not finite has a factor that is
 * none, so that all that it meets is none; one of next to nothing is nothing.
 */
ALWAYS void
whole(char *q, cpu_step_t *s, const float *x, uint32_t k, uint32_t bytes)
{
    uint32_t e;
    float top, most = bytes == 1 ? 127 : 32767;
    int32_t half[2];

    for (e = 0; e < k; e += CPU_STEP, x += CPU_STEP, s++) {
        top = top_of(x);
        s->d = top >= 1e-30f || isnan(top) ? top / most : 0;
        round_step(q + (size_t) e * bytes, x, top >= 1e-30f ? most / top : 0,
            bytes, half);
        s->sum = s->d * (float) (half[0] + half[1]);
        s->half[0] = s->d * (float) half[0];
        s->half[1] = s->d * (float) half[1];
    }
}

static void
whole_bytes(void *q, cpu_step_t *s, const float *x, uint32_t k)
{
    whole(q, s, x, k, 1);
}

static void
whole_words(void *q, cpu_step_t *s, const float *x, uint32_t k)
{
    whole(q, s, x, k, 2);
}

/* clang-format off */
#define X(name, ...)                                                           \
    static void panels_##name(const cpu_panels_t *a)                           \
    {                                                                          \
        ints_panels(a, KN_##name);                                             \
    }
BLOCK_LIST(X)
#undef X

#ifndef REST
#define X(name)                                                                \
    static void panels_##name(const cpu_panels_t *a)                           \
    {                                                                          \
        floats_panels(a, KN_##name);                                           \
    }
X(F32) X(F16) X(BF16)
#undef X
#endif

const cpu_panel_isa_t PANELS = {
#define X(name, as, steps, size, bits, above, factors, summand, words, ...)    \
    .mm[KN_##name] = panels_##name,                                            \
    .kind[KN_##name] = WORDS_8 && words ? CPU_WORDS : CPU_BYTES,
    BLOCK_LIST(X)
#undef X
#ifdef REST
    .rest = &REST,
#else
    .mm[KN_F32] = panels_F32,
    .mm[KN_F16] = panels_F16,
    .mm[KN_BF16] = panels_BF16,
#endif
    .numbers[CPU_BYTES] = whole_bytes,
    .numbers[CPU_WORDS] = whole_words,
};
/* clang-format on */

#endif
