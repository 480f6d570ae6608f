/*
 * Products of BF16 over panels with AVX512_BF16: the one that differs from
 * AVX-512 with VNNI, whose table has all the others.
 *
 * DESIGN.  A panel's unit is a pair of elements of k (panel.h), and so is an
 * activation's: BF16 too, rounded to nearest even once for all that a row
 * meets.  One instruction (vdpbf16ps) adds a pair's two products to a sum of
 * F32, for 16 outputs: twice what a multiply-add of floats does, and nothing
 * is made a float before.
 *
 * As in vec_panel.h a tile is C rows by P panels, k goes by chunks whose sums
 * are added to the total, and the first tile of a chunk asks for the next
 * chunk's weights.  A last element without another is a pair with nothing.
 *
 * The instruction takes numbers below the normal ones for nothing, as does the
 * rounding of activations, and gives none: weights of next to nothing add
 * nothing.  It adds the second element's product and then the first's, each
 * exact and each sum rounded to nearest even.
 */
#include "cpu.h"
#include "panel.h"

#include <assert.h>
#include <immintrin.h>
#include <string.h>

#ifndef ALWAYS
#define ALWAYS static inline __attribute__((always_inline))
#endif

#define CHUNK 128 /* elements */
#define PAIR  4   /* bytes */
#define LINE  (PANEL * PAIR)

/* Rows and panels of a tile: of 32 registers the sums take 24. */
#define C_MAX 6
#define P_MAX 4

#define ROWS CPU_TILE_M

_Static_assert(LINE == sizeof(__m512), "a pair of all rows is a vector");
_Static_assert(CHUNK % 2 == 0, "only the last chunk is odd");

/* A chunk of P panels and some rows. */
typedef struct {
    const char *w; /* the panels, stride bytes apart */
    size_t stride;
    const char *x; /* rows of BF16, ldx bytes apart */
    size_t ldx;
    uint32_t n;     /* elements */
    uint32_t first; /* 0, 1: of k? */
    uint32_t next;  /* 0, 1: is the next chunk to be asked for? */
    float *sums;    /* [rows][P][PANEL] */
} chunk_t;

/* The two at p in all lanes, or one with nothing. */
ALWAYS __m512bh
spread_pair(const char *p, uint32_t elements)
{
    int32_t pair = 0;

    memcpy(&pair, p, elements * 2);

    return (__m512bh) _mm512_set1_epi32(pair);
}

/* Those of a panel's rows. */
ALWAYS __m512bh
load_pair(const char *p, uint32_t elements)
{
    return (__m512bh) (elements == 2 ? _mm512_loadu_si512(p)
                                     : _mm512_cvtepu16_epi32(_mm256_loadu_si256(
                                         (const __m256i *) (const void *) p)));
}

/* A pair of C rows and P panels, of two elements or one, at x and at w. */
ALWAYS void
add_pair(uint32_t C, uint32_t P, const chunk_t *a, const char *x, const char *w,
    uint32_t elements, __m512 acc[C_MAX][P_MAX])
{
    __m512bh by[P_MAX], pair;
    size_t c, p;

    for (p = 0; p < P; p++) {
        by[p] = load_pair(w + p * a->stride, elements);
    }

    for (c = 0; c < C; c++) {
        pair = spread_pair(x + c * a->ldx, elements);
        for (p = 0; p < P; p++) {
            acc[c][p] = _mm512_dpbf16_ps(acc[c][p], by[p], pair);
        }
    }
}

/* The chunk's sums go to the totals. */
ALWAYS void
add_sums(uint32_t C, uint32_t P, const chunk_t *a, __m512 acc[C_MAX][P_MAX])
{
    uint32_t c, p;
    float *to;

    for (c = 0; c < C; c++) {
        for (p = 0; p < P; p++) {
            to = a->sums + (c * P + p) * PANEL;
            if (!a->first) {
                acc[c][p] = _mm512_add_ps(_mm512_loadu_ps(to), acc[c][p]);
            }
            _mm512_storeu_ps(to, acc[c][p]);
        }
    }
}

ALWAYS void
tile(uint32_t C, uint32_t P, const chunk_t *a)
{
    __m512 acc[C_MAX][P_MAX];
    const char *x = a->x, *w = a->w, *end = w + (size_t) a->n / 2 * LINE;
    size_t c, p;

    for (c = 0; c < C; c++) {
        for (p = 0; p < P; p++) {
            acc[c][p] = _mm512_setzero_ps();
        }
    }

    for (; w < end; w += LINE, x += PAIR) {
        for (p = 0; a->next && p < P; p++) {
            _mm_prefetch((const char *) ((uintptr_t) w + CHUNK / 2 * LINE
                                         + p * a->stride),
                _MM_HINT_T0);
        }
        add_pair(C, P, a, x, w, 2, acc);
    }
    if (a->n % 2 != 0) {
        add_pair(C, P, a, x, w, 1, acc);
    }

    add_sums(C, P, a, acc);
}

ALWAYS void
tile_of(uint32_t C, uint32_t P, const chunk_t *a)
{
    switch (C) {

    case 1:
        tile(1, P, a);
        break;

    case 2:
        tile(2, P, a);
        break;

    case 3:
        tile(3, P, a);
        break;

    case 4:
        tile(4, P, a);
        break;

    case 5:
        tile(5, P, a);
        break;

    default:
        tile(6, P, a);
    }
}

/* All rows by a chunk, in tiles as even as can be. */
ALWAYS void
rows_chunk(uint32_t m, uint32_t P, chunk_t a)
{
    uint32_t rows, tiles = (m + C_MAX - 1) / C_MAX;

    for (; m > 0; m -= rows, tiles--) {
        rows = m / tiles;
        tile_of(rows, P, &a);
        a.next = 0;
        a.x += rows * a.ldx;
        a.sums += rows * P * PANEL;
    }
}

/* The rows by P panels from w on, all of k. */
ALWAYS void
rows_panels(const cpu_panels_t *a, uint32_t P, const char *w, float *sums)
{
    chunk_t f = {.stride = a->stride, .ldx = (size_t) a->k * 2, .sums = sums};
    uint32_t e;

    for (e = 0; e < a->k; e += f.n) {
        f.w = w + (size_t) e / 2 * LINE;
        f.x = (const char *) a->q + (size_t) e * 2;
        f.n = a->k - e < CHUNK ? a->k - e : CHUNK;
        f.first = e == 0;
        f.next = 1;
        rows_chunk(a->m, P, f);
    }
}

static void
panels_pairs(const cpu_panels_t *a)
{
    float sums[ROWS * P_MAX * PANEL] __attribute__((aligned(64)));
    uint32_t p, n, end = (a->n0 + a->n + PANEL - 1) / PANEL;
    const char *w;

    assert(a->m > 0 && a->m <= ROWS && a->n > 0);

    for (p = a->n0 / PANEL; p < end; p += n) {
        w = a->w + p * a->stride;
        n = end - p >= P_MAX ? P_MAX : 1;

        if (n == P_MAX) {
            rows_panels(a, P_MAX, w, sums);
        } else {
            rows_panels(a, 1, w, sums);
        }

        panel_put(a, p, n, sums);
    }
}

/* k activations, 16 at a time, to nearest even. */
static void
round_all(void *q, cpu_step_t *s, const float *x, uint32_t k)
{
    uint32_t e, left;
    char *to = q;
    __mmask16 m;

    (void) s;

    for (e = 0; e + 16 <= k; e += 16) {
        _mm256_storeu_si256((__m256i *) (void *) (to + (size_t) e * 2),
            (__m256i) _mm512_cvtneps_pbh(_mm512_loadu_ps(x + e)));
    }

    left = k - e;
    if (left > 0) {
        m = (__mmask16) ((1u << left) - 1);
        _mm256_mask_storeu_epi16(to + (size_t) e * 2, m,
            (__m256i) _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(m, x + e)));
    }
}

const cpu_panel_isa_t cpu_panels_avx512bf16 = {
    .rest = &cpu_panels_avx512vnni,
    .mm[KN_BF16] = panels_pairs,
    .kind[KN_BF16] = CPU_BF16,
    .numbers[CPU_BF16] = round_all,
};
