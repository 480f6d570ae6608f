/*
 * How the vector instruction sets hold a weight matrix: in panels.
 *
 * A panel is PANEL consecutive rows of the matrix, so PANEL outputs, cut into
 * the blocks of their type and each block of them interleaved: what the rows
 * have at the same place of their blocks stands side by side, in units of as
 * many bytes as a multiplication takes from a row at a time.  So a load gets
 * the same elements of all rows, a sum stays in one lane, and no lanes are
 * ever added up.
 *
 *      a row's block          d q0 q1 q2 ...
 *      a panel's block        d d d ... q0 q0 q0 ... q1 q1 q1 ...
 *
 * It takes as many bytes as the rows do, but scales of six bits and signs of
 * seven are spread to bytes for up to 4.1 % more.  A last panel that lacks rows
 * is filled up with zeros.  Of pairs the last element that has none to go with
 * stands alone.
 */
#ifndef PANEL_H
#define PANEL_H

#include "cpu.h"

#define PANEL 16

/* Bytes of a panel with rows of k elements, a multiple of the type's block. */
uint64_t panel_bytes(uint32_t type, uint32_t k);

/*
 * A panel from rows of the file, n of them from src on, 1 to PANEL, back to
 * back.  unit is how many bytes stand side by side, 2 or 4, of numbers of eight
 * bits (Q8_0 and two more) and of BF16, which goes by pairs or not.
 */
void panel_pack(uint32_t type, uint32_t unit, void *panel, const void *src,
    uint32_t n, uint32_t k);

/* Row i of the panel as the file had it. */
void panel_row(uint32_t type, uint32_t unit, void *dst, const void *panel,
    uint32_t i, uint32_t k);

/*
 * Those of n panels' sums, the first being number p, that are asked for go to
 * their places; sums are [a->m][n][PANEL].
 */
void panel_put(
    const cpu_panels_t *a, uint32_t p, uint32_t n, const float *sums);

#endif
