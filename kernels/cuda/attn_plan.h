/*
 * Which part of the cache which block of attention's kernels goes through.
 *
 * The sums of a query (a token and a head) are cut where its own position says,
 * and nowhere else: into partitions, counted from position 0, whose results are
 * joined in order.  A plan may therefore give a tile's partitions to as many
 * blocks as the device wants and moves no bit of a result: it decides who
 * computes what, not what is computed.
 *
 * Plain C, since it runs on the host; C++ and the device read it too.
 */
#ifndef ATTN_PLAN_H
#define ATTN_PLAN_H

#include "../kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ATTN_TILE 64 /* positions of a step */
#define ATTN_ROWS 16 /* queries that are multiplied together */

/*
 * A query that sees n positions has partitions of 2^attn_bits(n) of them: 256,
 * or as many that they are no more than ATTN_PARTS.  Fewer would leave a device
 * idle where there is one context, more would take long to join.
 */
#ifndef ATTN_PARTS
#define ATTN_PARTS 32
#endif

#ifdef __CUDACC__
#define ATTN_BOTH __host__ __device__
#else
#define ATTN_BOTH
#endif

static inline ATTN_BOTH uint32_t
attn_bits(uint32_t n)
{
    uint32_t bits = 8;

    while (n > 0 && (n - 1) >> bits >= ATTN_PARTS) {
        bits++;
    }

    return bits;
}

/*
 * A tile is consecutive queries of a row, in the order of tokens and of the
 * heads that share a head of keys.  A unit is some partitions of a tile, for
 * each head of keys: what one block goes through.
 */
typedef struct {
    uint32_t tok;        /* of the row: its first token in the step, */
    uint32_t start, len; /* that token's position, and how many there are */
    uint32_t query, n;   /* the tile: queries [query, query + n) of the row */
    uint32_t from, to;   /* positions; the tile's, or cut between partitions */
    uint32_t bits;       /* the least of its queries' */
    uint32_t at, first;  /* number b of the row is blocks[at + b - first] */
    uint32_t tile;       /* counted over all tiles of the plan */
    uint32_t units;      /* of this tile */
    uint32_t head;       /* is it the tile's first unit? */
    uint32_t slot;       /* its first; a slot is ATTN_ROWS queries' sums */
    uint32_t slots;      /* sums to join, of the tile, from tile_slot on */
    uint32_t tile_slot;
} attn_unit_t;

/* Units of a kind, as a launch finds them: both are the device's. */
typedef struct {
    const attn_unit_t *units; /* [n] */
    uint64_t n;
} attn_list_t;

/* Of the layers that share a plan. */
typedef struct {
    uint32_t group;    /* whose blocks they read */
    uint32_t share;    /* query heads of a head of keys */
    uint32_t window;   /* 0 is none */
    uint32_t narrow;   /* a tile's queries where a row has no more, */
    uint32_t wide;     /* and where it has */
    uint32_t units[2]; /* that fill the device, of narrow and wide tiles */
    uint32_t slots;    /* that there are */
} attn_shape_t;

enum { ATTN_NARROW, ATTN_WIDE };

/* The units of both kinds, the longest first, in the caller's memory. */
typedef struct {
    attn_unit_t *units[2]; /* [attn_plan_max()] */
    uint32_t n[2];
    uint32_t tiles, slots; /* in use, of both kinds */
} attn_plan_t;

/* The most units of a kind, and tiles of both, that a step within l has. */
uint32_t attn_plan_max(
    const attn_shape_t *s, const kn_limits_t *l, uint32_t kind);

/* The most units of a kind for so many rows of one token each; 0: of none. */
uint32_t attn_plan_ones(const attn_shape_t *s, uint32_t rows, uint32_t kind);

/*
 * Fills in *p for the rows.  A unit's share is what each of so many units would
 * get of all there is, in whole partitions; more if slots would not do.
 */
void attn_plan(const attn_shape_t *s, const kn_row_t *rows, uint32_t rows_n,
    attn_plan_t *p);

#ifdef __cplusplus
}
#endif

#endif
