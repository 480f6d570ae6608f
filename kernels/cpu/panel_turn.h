/*
 * Rows side by side to a panel: the inner loop of loading a model.
 *
 * DESIGN.  PANEL rows are a matrix of units that is turned over: sixteen bytes
 * of each row at a time, in registers, by doublings.  Interleaving two vectors
 * of units gives pairs of units of two rows, interleaving pairs gives fours,
 * until a vector has one unit of each row that fits in it.  So a line of the
 * panel is written once and whole, where a row at a time would visit each line
 * PANEL times.  SSE2 does, which every x86-64 has: with it loading waits for
 * memory.
 */
#ifndef PANEL_TURN_H
#define PANEL_TURN_H

#include "panel.h"

#include <emmintrin.h>
#include <string.h>

#define TURN_BYTES 16 /* of a row at a time */

/* Low and high halves of rows a and b, interleaved by units of so many bytes */
static inline void
turn_pair(__m128i *lo, __m128i *hi, __m128i a, __m128i b, uint32_t unit)
{
    if (unit == 1) {
        *lo = _mm_unpacklo_epi8(a, b);
        *hi = _mm_unpackhi_epi8(a, b);
    } else if (unit == 2) {
        *lo = _mm_unpacklo_epi16(a, b);
        *hi = _mm_unpackhi_epi16(a, b);
    } else if (unit == 4) {
        *lo = _mm_unpacklo_epi32(a, b);
        *hi = _mm_unpackhi_epi32(a, b);
    } else {
        *lo = _mm_unpacklo_epi64(a, b);
        *hi = _mm_unpackhi_epi64(a, b);
    }
}

/*
 * n vectors, one of each of n rows, become n of each one unit of all of them,
 * n times a unit being a vector.  A round interleaves the first half of them
 * with the second: their order comes out right after as many rounds as n has
 * halves.
 */
static inline __attribute__((always_inline)) void
turn_square(__m128i *v, uint32_t n, uint32_t unit)
{
    __m128i w[PANEL];
    uint32_t round, i;

#pragma GCC unroll 4
    for (round = 1; round < n; round *= 2) {
#pragma GCC unroll 8
        for (i = 0; i < n / 2; i++) {
            turn_pair(&w[2 * i], &w[2 * i + 1], v[i], v[n / 2 + i], unit);
        }
#pragma GCC unroll 16
        for (i = 0; i < n; i++) {
            v[i] = w[i];
        }
    }
}

/* TURN_BYTES of each row at rows[i] + at, to `to`. */
static inline __attribute__((always_inline)) void
turn_whole(
    uint8_t *to, const uint8_t *const rows[PANEL], size_t at, uint32_t unit)
{
    const uint32_t side = TURN_BYTES / unit; /* rows that fill a vector */
    __m128i v[PANEL];
    uint32_t g, i;

    for (g = 0; g < PANEL; g += side) {
#pragma GCC unroll 16
        for (i = 0; i < side; i++) {
            v[i] = _mm_loadu_si128((const __m128i *) (rows[g + i] + at));
        }
        turn_square(v, side, unit);
#pragma GCC unroll 16
        for (i = 0; i < side; i++) {
            _mm_storeu_si128(
                (__m128i *) (to + (size_t) (i * PANEL + g) * unit), v[i]);
        }
    }
}

/* n bytes of each row, a multiple of the unit, which is a constant */
static inline __attribute__((always_inline)) void
turn_by(uint8_t *to, const uint8_t *const rows[PANEL], size_t at, uint32_t n,
    uint32_t unit)
{
    uint32_t i, done = 0;

    for (; done + TURN_BYTES <= n; done += TURN_BYTES) {
        turn_whole(to + (size_t) done * PANEL, rows, at + done, unit);
    }

    for (to += (size_t) done * PANEL; done < n; done += unit) {
#pragma GCC unroll 16
        for (i = 0; i < PANEL; i++, to += unit) {
            memcpy(to, rows[i] + at + done, unit);
        }
    }
}

/*
 * n bytes of each of PANEL rows, from rows[i] + at on, as a piece of a panel:
 * the first unit of all rows, then the second, and so on.
 */
static inline void
panel_turn(uint8_t *to, const uint8_t *const rows[PANEL], size_t at, uint32_t n,
    uint32_t unit)
{
    if (unit == 4) {
        turn_by(to, rows, at, n, 4);
    } else if (unit == 2) {
        turn_by(to, rows, at, n, 2);
    } else {
        turn_by(to, rows, at, n, 1);
    }
}

#endif
