/*
 * Plans of attention's work; attn_plan.h says what they decide.
 *
 * DESIGN.  All positions of all tiles, shared out evenly over the units that
 * fill the device, are what a unit gets at most, rounded up to partitions: then
 * no unit takes much longer than all of them on average, and there are at most
 * so many units more than tiles.  Tiles that have less than that are not cut.
 *
 * A tile's first unit joins its partitions as it goes and leaves one sum; the
 * others leave one of each partition, because sums are joined from the first
 * one on, in order, and they do not have what comes before.  A tile with one
 * unit leaves nothing.
 *
 * Queries of a tile may differ in the length of their partitions, those of the
 * last tokens having twice that of the first.  Cuts are where all have one, and
 * sums are left wherever one has.
 *
 * Long units go first, so that the device ends with short ones.  Lengths are
 * told apart by powers of two: units are made in as many passes, each over all
 * tiles, which costs a microsecond or two and needs no memory.
 */
#include "attn_plan.h"

#include <assert.h>
#include <string.h>

/* A tile and what has been given out before it. */
typedef struct {
    const kn_row_t *row;
    uint32_t query, n;
    uint32_t from, to;
    uint32_t bits, most; /* of its queries' partitions: least, and most */
    uint32_t number, slot;
} tile_t;

static uint32_t
parts_of(uint64_t n, uint64_t each)
{
    assert(each > 0);
    return (uint32_t) ((n + each - 1) / each);
}

static uint32_t
kind_of(const attn_shape_t *s, uint32_t q_len)
{
    return (uint64_t) q_len * s->share <= s->narrow ? ATTN_NARROW : ATTN_WIDE;
}

static uint32_t
seen_by(const attn_shape_t *s, uint32_t pos)
{
    return s->window > 0 && pos >= s->window ? s->window : pos + 1;
}

/* The positions that the tile's queries look at, together. */
static void
tile_range(const attn_shape_t *s, tile_t *t)
{
    uint32_t first = t->row->q_start + t->query / s->share;
    uint32_t last = t->row->q_start + (t->query + t->n - 1) / s->share;

    t->from = first + 1 - seen_by(s, first);
    t->to = last + 1;
    t->bits = attn_bits(seen_by(s, first));
    t->most = attn_bits(seen_by(s, last));
    assert(t->from < t->to && t->bits <= t->most);
}

/*
 * Where a unit ends that begins at from, if it has share positions at most, or
 * a partition.  The first one is longer by what its tile lacks of that.
 */
static uint32_t
unit_end(const tile_t *t, uint32_t from, uint64_t share)
{
    uint64_t each = parts_of(share, 1u << t->most), to;

    to = ((uint64_t) (from >> t->most) + each) << t->most;

    return to < t->to ? (uint32_t) to : t->to;
}

/* Partitions, the shortest there are, from unit's begin from to `to`. */
static uint32_t
sums_of(const tile_t *t, uint32_t from, uint32_t to)
{
    return parts_of(to, 1u << t->bits) - (from >> t->bits);
}

/* What is left of the tile, by all its units; 0 if it has one. */
static uint32_t
tile_sums(const tile_t *t, uint64_t share)
{
    uint32_t end = unit_end(t, t->from, share);

    return end == t->to ? 0 : 1 + sums_of(t, end, t->to);
}

static uint32_t
tile_slots(const tile_t *t, uint64_t share)
{
    return tile_sums(t, share) * parts_of(t->n, ATTN_ROWS);
}

/* Goes to the next tile of a kind, from a zeroed *t on; 0: there is none. */
static int
tile_next(const attn_shape_t *s, const kn_row_t *rows, uint32_t rows_n,
    uint32_t kind, uint64_t share, tile_t *t)
{
    uint32_t wide = kind == ATTN_NARROW ? s->narrow : s->wide;
    uint64_t all;

    if (t->row != NULL) {
        t->slot += tile_slots(t, share);
        t->number++;
        t->query += t->n;
        if (t->query == t->row->q_len * s->share) {
            t->row++;
            t->query = 0;
        }
    } else {
        t->row = rows;
    }

    while (t->row < rows + rows_n
           && (kind_of(s, t->row->q_len) != kind || t->row->q_len == 0)) {
        t->row++;
    }
    if (t->row == rows + rows_n) {
        return 0;
    }

    all = (uint64_t) t->row->q_len * s->share - t->query;
    t->n = all < wide ? (uint32_t) all : wide;
    tile_range(s, t);

    return 1;
}

/* A unit's positions, for a kind whose slots are slots at most. */
static uint64_t
share_of(const attn_shape_t *s, const kn_row_t *rows, uint32_t rows_n,
    uint32_t kind, uint32_t slots)
{
    uint64_t all = 0, need, share;
    tile_t t;

    memset(&t, 0, sizeof(t));
    while (tile_next(s, rows, rows_n, kind, 1, &t)) {
        all += t.to - t.from;
    }

    share = parts_of(all, s->units[kind]);
    for (share += share == 0;; share *= 2) {
        need = 0;
        memset(&t, 0, sizeof(t));
        while (tile_next(s, rows, rows_n, kind, share, &t)) {
            need += tile_slots(&t, share);
        }
        if (need <= slots) {
            return share;
        }
    }
}

static uint32_t
log_of(uint32_t n)
{
    uint32_t i;

    for (i = 0; n > 1; n /= 2) {
        i++;
    }

    return i;
}

static uint32_t
units_of(const tile_t *t, uint64_t share)
{
    uint32_t n, at = t->from;

    for (n = 0; at < t->to; n++) {
        at = unit_end(t, at, share);
    }

    return n;
}

/* Adds those units of the tile whose length's logarithm is log. */
static void
tile_emit(const attn_shape_t *s, const tile_t *t, uint64_t share, uint32_t log,
    attn_unit_t *units, uint32_t *n)
{
    uint32_t from, to, place = 0, all = units_of(t, share);
    uint32_t each = parts_of(t->n, ATTN_ROWS);
    const kn_blocks_t *b = &t->row->blocks[s->group];
    attn_unit_t *u;

    for (from = t->from; from < t->to; from = to) {
        to = unit_end(t, from, share);

        if (log_of(to - from) == log) {
            u = &units[(*n)++];
            u->tok = t->row->tok;
            u->start = t->row->q_start;
            u->len = t->row->q_len;
            u->query = t->query;
            u->n = t->n;
            u->from = from;
            u->to = to;
            u->bits = t->bits;
            u->at = b->at;
            u->first = b->first;
            u->tile = t->number;
            u->units = all;
            u->head = from == t->from;
            u->slot = t->slot + place * each;
            u->slots = tile_sums(t, share);
            u->tile_slot = t->slot;
        }

        place += from == t->from ? 1 : sums_of(t, from, to);
    }
}

/* A window's first partition may be short: one unit more of a tile. */
static uint32_t
units_most(const attn_shape_t *s, uint64_t tiles, uint32_t kind)
{
    assert(s->units[kind] > 0);
    return (uint32_t) (s->units[kind] + tiles * (s->window > 0 ? 2 : 1));
}

uint32_t
attn_plan_max(const attn_shape_t *s, const kn_limits_t *l, uint32_t kind)
{
    uint64_t all = (uint64_t) l->tokens * s->share, tiles = l->rows;

    tiles += kind == ATTN_WIDE ? parts_of(all, s->wide) : 0;

    return units_most(s, tiles, kind);
}

uint32_t
attn_plan_ones(const attn_shape_t *s, uint32_t rows, uint32_t kind)
{
    uint32_t wide = kind == ATTN_NARROW ? s->narrow : s->wide;

    return kind_of(s, 1) == kind
               ? units_most(s, (uint64_t) rows * parts_of(s->share, wide), kind)
               : 0;
}

void
attn_plan(const attn_shape_t *s, const kn_row_t *rows, uint32_t rows_n,
    attn_plan_t *p)
{
    uint32_t kind, log, longest;
    uint32_t number = 0, slot = 0;
    uint64_t share;
    tile_t t;

    assert(s->share > 0 && s->narrow > 0 && s->wide > 0);
    assert(s->group < KN_GROUPS && s->units[0] > 0 && s->units[1] > 0);

    for (kind = 0; kind < 2; kind++) {
        share = share_of(s, rows, rows_n, kind, s->slots - slot);
        longest = 1;
        memset(&t, 0, sizeof(t));
        while (tile_next(s, rows, rows_n, kind, share, &t)) {
            longest = t.to - t.from > longest ? t.to - t.from : longest;
        }

        p->n[kind] = 0;
        for (log = log_of(longest) + 1; log-- > 0;) {
            memset(&t, 0, sizeof(t));
            t.number = number;
            t.slot = slot;
            while (tile_next(s, rows, rows_n, kind, share, &t)) {
                tile_emit(s, &t, share, log, p->units[kind], &p->n[kind]);
            }
        }

        number = t.number;
        slot = t.slot;
    }

    p->tiles = number;
    p->slots = slot;
    assert(slot <= s->slots);
}
