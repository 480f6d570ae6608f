/*
 * Plans of attention's work.  It would catch: a partition that no unit has, or
 * two, a place for two sums, a plan that outgrows its memory, one that leaves a
 * device idle, and one that cuts what need not be cut.
 */
#include "cuda/attn_plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ROWS_MAX  40
#define UNITS_MAX 8192
#define SLOTS_MAX 400000
#define TILES_MAX 4096

static uint64_t random_now = 88172645463325252u;

static uint32_t
draw(uint32_t n)
{
    random_now ^= random_now << 13;
    random_now ^= random_now >> 7;
    random_now ^= random_now << 17;

    return (uint32_t) (random_now >> 33) % n;
}

/* A step, its plan, and what the units were seen to have. */
typedef struct {
    attn_shape_t shape;
    kn_limits_t limits;
    kn_row_t rows[ROWS_MAX];
    uint32_t rows_n;
    attn_plan_t plan;
    attn_unit_t units[2][UNITS_MAX];
    unsigned char slots[SLOTS_MAX];
    uint32_t covered[TILES_MAX]; /* partitions, by tile */
    uint32_t of[TILES_MAX];      /* units */
} step_t;

static step_t s; /* large */

static void
add_row(uint32_t start, uint32_t len)
{
    kn_row_t *r = &s.rows[s.rows_n++];

    memset(r, 0, sizeof(*r));
    r->q_start = start;
    r->q_len = len;
    r->tok = s.limits.tokens;
    r->blocks[3].at = 1000 * s.rows_n;
    r->blocks[3].first = start / 1000;
    s.limits.tokens += len;
    s.limits.rows++;
}

static void
reset(uint32_t share, uint32_t window, uint32_t units, uint32_t slots)
{
    memset(&s, 0, sizeof(s));
    s.shape.group = 3;
    s.shape.share = share;
    s.shape.window = window;
    s.shape.narrow = 16;
    s.shape.wide = 128;
    s.shape.units[0] = s.shape.units[1] = units;
    s.shape.slots = slots;
}

static uint32_t
round_up(uint32_t n, uint32_t to)
{
    return (n + to - 1) / to;
}

/* How many positions the unit's tile's first query sees, or its last one. */
static uint32_t
seen_by(const attn_unit_t *u, uint32_t query)
{
    uint32_t n = u->start + query / s.shape.share + 1;

    return s.shape.window > 0 && n > s.shape.window ? s.shape.window : n;
}

/* The positions that a unit's tile is about. */
static void
range_of(const attn_unit_t *u, uint32_t *from, uint32_t *to)
{
    *to = u->start + (u->query + u->n - 1) / s.shape.share + 1;
    *from = u->start + u->query / s.shape.share + 1 - seen_by(u, u->query);
}

static void
take_slots(uint32_t from, uint32_t n)
{
    for (; n > 0; n--, from++) {
        assert_true(from < s.plan.slots);
        assert_int_equal(s.slots[from], 0);
        s.slots[from] = 1;
    }
}

static void
check_unit(uint32_t kind, const attn_unit_t *u)
{
    uint32_t from, to, most, last, sums, place;
    uint32_t each = round_up(u->n, ATTN_ROWS);
    uint32_t queries = u->len * s.shape.share;
    const kn_row_t *r;

    for (r = s.rows; r->tok != u->tok; r++) {
        assert_true(r < s.rows + s.rows_n);
    }
    assert_int_equal(u->start, r->q_start);
    assert_int_equal(u->len, r->q_len);
    assert_int_equal(u->at, r->blocks[3].at);
    assert_int_equal(u->first, r->blocks[3].first);

    assert_int_equal(kind, queries > 16 ? ATTN_WIDE : ATTN_NARROW);
    assert_int_equal(u->query % (kind == ATTN_WIDE ? 128 : 16), 0);
    assert_true(u->query < queries);
    assert_int_equal(u->n, queries - u->query < 128 ? queries - u->query : 128);

    range_of(u, &from, &to);
    assert_true(from <= u->from && u->from < u->to && u->to <= to);
    assert_int_equal(u->head, u->from == from);
    assert_true(u->tile < s.plan.tiles);
    s.covered[u->tile] += u->to - u->from;
    s.of[u->tile]++;
    assert_int_equal(u->bits, attn_bits(seen_by(u, u->query)));

    if (u->units == 1) {
        assert_int_equal(u->slots, 0);
        assert_int_equal(u->to - u->from, to - from);
        return;
    }

    /* cuts are where every query has one */
    most = 1u << attn_bits(seen_by(u, u->query + u->n - 1));
    assert_true(u->from == from || u->from % most == 0);
    assert_true(u->to == to || u->to % most == 0);

    /* the head's sum, then those of every partition of the others */
    last = (to - 1) >> u->bits;
    place = u->head ? 0 : u->slots - 1 - (last - (u->from >> u->bits));
    sums = u->head ? 1 : ((u->to - 1) >> u->bits) - (u->from >> u->bits) + 1;
    assert_int_equal(u->slot, u->tile_slot + place * each);
    assert_true(u->head || place + sums <= u->slots);
    take_slots(u->slot, sums * each);
}

/* Bits of the longest unit, for the order. */
static uint32_t
bits(uint32_t n)
{
    uint32_t i;

    for (i = 0; n > 0; n /= 2) {
        i++;
    }

    return i;
}

static void
check_plan(void)
{
    uint32_t kind, i, from, to, last;
    uint32_t tiles = 0, share;
    uint64_t all[2] = {0, 0};
    const attn_unit_t *u;

    s.plan.units[0] = s.units[0];
    s.plan.units[1] = s.units[1];
    attn_plan(&s.shape, s.rows, s.rows_n, &s.plan);
    assert_true(s.plan.slots <= s.shape.slots);
    assert_true(s.plan.tiles <= TILES_MAX);

    for (kind = 0; kind < 2; kind++) {
        assert_true(s.plan.n[kind] <= attn_plan_max(&s.shape, &s.limits, kind));
        last = UINT32_MAX;

        for (i = 0; i < s.plan.n[kind]; i++) {
            u = &s.units[kind][i];
            check_unit(kind, u);
            assert_true(bits(u->to - u->from) <= last);
            last = bits(u->to - u->from);
        }
    }

    for (kind = 0; kind < 2; kind++) {
        for (i = 0; i < s.plan.n[kind]; i++) {
            u = &s.units[kind][i];
            range_of(u, &from, &to);
            assert_int_equal(s.covered[u->tile], to - from);
            assert_int_equal(s.of[u->tile], u->units);
            tiles += u->head;
            all[kind] += u->to - u->from;
        }

        /* with room for sums no unit is longer than the others on average */
        share = (uint32_t) ((all[kind] + s.shape.units[kind] - 1)
                            / s.shape.units[kind]);
        for (i = 0; s.shape.slots == SLOTS_MAX && i < s.plan.n[kind]; i++) {
            u = &s.units[kind][i];
            last = 1u << attn_bits(seen_by(u, u->query + u->n - 1));
            assert_true(u->to - u->from <= round_up(share, last) * last);
        }
    }

    assert_int_equal(tiles, s.plan.tiles);
    for (i = 0; i < s.rows_n; i++) {
        to = s.rows[i].q_len * s.shape.share;
        tiles -= to > 16 ? round_up(to, 128) : 1;
    }
    assert_int_equal(tiles, 0);
}

static void
test_any(void **state)
{
    static const uint32_t shares[] = {1, 4, 7, 8, 20};
    uint32_t i, n;

    (void) state;

    for (i = 0; i < 400; i++) {
        reset(shares[draw(5)], draw(3) ? 0 : 1 + draw(700), 1 + draw(300),
            draw(2) ? SLOTS_MAX : draw(60));

        for (n = 1 + draw(ROWS_MAX); n > 0; n--) {
            add_row(
                draw(4) ? draw(600) : draw(20000), draw(3) ? 1 : 1 + draw(200));
        }

        check_plan();
    }
}

/* One long context is cut for the whole device, at partitions. */
static void
test_alone(void **state)
{
    (void) state;
    reset(4, 0, 33, SLOTS_MAX);
    add_row(32767, 1);
    check_plan();
    assert_int_equal(s.plan.n[ATTN_NARROW], 32);
    assert_int_equal(s.plan.n[ATTN_WIDE], 0);
    assert_int_equal(s.units[0][0].to, 1024);

    /* but never finer than that */
    reset(4, 0, 33, SLOTS_MAX);
    add_row(1023, 1);
    check_plan();
    assert_int_equal(s.plan.n[ATTN_NARROW], 4);
}

/* Many of one length are not cut; a long one among short ones is. */
static void
test_many(void **state)
{
    uint32_t i;

    (void) state;
    reset(4, 0, 33, SLOTS_MAX);
    for (i = 0; i < 40; i++) {
        add_row(2000, 1);
    }
    check_plan();
    assert_int_equal(s.plan.n[ATTN_NARROW], 40);
    assert_int_equal(s.plan.slots, 0);

    reset(4, 0, 33, SLOTS_MAX);
    add_row(100000, 1);
    for (i = 0; i < 30; i++) {
        add_row(300, 1);
    }
    check_plan();
    assert_int_equal(s.units[0][0].units, 25);
}

/* Where there is no room for sums nothing is cut. */
static void
test_no_room(void **state)
{
    (void) state;
    reset(4, 0, 33, 0);
    add_row(32767, 1);
    add_row(5000, 100);
    check_plan();
    assert_int_equal(s.plan.n[ATTN_NARROW], 1);
    assert_int_equal(s.plan.n[ATTN_WIDE], 4);
}

static void
test_empty(void **state)
{
    (void) state;
    reset(4, 0, 33, 0);
    check_plan();
    assert_int_equal(s.plan.n[ATTN_NARROW] + s.plan.n[ATTN_WIDE], 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any),
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_no_room),
        cmocka_unit_test(test_empty),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
