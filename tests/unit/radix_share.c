/*
 * Catches a prefix cache in which an owner is pushed below its weighted share,
 * by what another left idle or by what it runs; in which a flood makes another
 * look as if it had gone; or in which who has gone keeps anything.
 */
#include "radix_tree.h"

static const uint32_t text[] = {1, 2, 3, 4};


/* One who floods evicts itself, down to what the others have for their
 * weight. */
static void
test_share(void **state)
{
    radix_t *r = open_tree(100, 1, 0);
    uint32_t i, block;

    (void) state;
    flood(r, 1, 1, 0, 0, 20, 1); /* old, and not much */
    flood(r, 2, 3, 0, 20, 40, 2);
    flood(r, 3, 1, 0, 60, 40, 3);

    for (i = 0; i < 200; i++) {
        block = evict(r, 4 + i);
        assert_true(block != RADIX_NONE);
        flood(r, 3, 1, 0, block, 1, 4 + i);
        assert_int_equal(radix_owned(r, 1, 0), 20);
        assert_int_equal(radix_owned(r, 2, 0), 40);
    }

    /* owner 2 comes up to its share, three times theirs, at their cost */
    for (i = 0; i < 200; i++) {
        block = evict(r, 300 + i);
        flood(r, 2, 3, 0, block, 1, 300 + i);
    }
    assert_in_range(radix_owned(r, 1, 0), 19, 20);
    assert_in_range(radix_owned(r, 2, 0), 60, 61);
    assert_in_range(radix_owned(r, 3, 0), 19, 20);
    radix_close(r);
}


/* What owners of a tree of WALL blocks have, one of whom floods. */
enum { WALL = 400, WALL_OWNERS = 20 };

typedef struct {
    radix_t *r;
    uint32_t n; /* owners, of whom 0 floods */
    uint32_t weight[WALL_OWNERS], texts[WALL_OWNERS];
    uint64_t weights, now;
    uint32_t free[WALL], free_n;
    uint32_t used[WALL], used_n; /* by the flood, the oldest first */
} wall_t;


/* One block more for owner o, as who runs gets it: not beyond what is spare.
 * 0: there is none. */
static int
wall_add(wall_t *w, uint32_t o, int use)
{
    uint32_t words[BT] = {o, w->texts[o]++, 0, 0}, path, block;
    uint32_t blocks[RADIX_GROUPS_MAX];
    radix_new_t new;
    uint8_t taken;

    if (w->free_n == 0) {
        if (radix_spare(w->r, o, w->weight[o], 1) == 0) {
            return 0;
        }
        assert_int_equal(radix_evict(w->r, 0, o, w->weight[o], blocks), 1);
        w->free[w->free_n++] = blocks[0];
    }
    block = w->free[--w->free_n];

    memset(&new, 0, sizeof(new));
    new.parent = RADIX_NONE;
    new.space = new.owner = o;
    new.weight = w->weight[o];
    new.now = ++w->now;
    new.n = 1;
    new.tokens = words;
    new.blocks[0] = &block;
    assert_int_equal(radix_insert(w->r, &new, &path, &taken), block);
    if (use) {
        w->used[w->used_n++] = block;
    } else {
        radix_release(w->r, block, w->now);
    }

    return 1;
}


/* The flood, idle or in use as it likes; the others lose nothing of what they
 * have, up to their share.  How often it had to wait. */
static uint32_t
wall_flood(wall_t *w, uint32_t floor)
{
    uint64_t had[WALL_OWNERS], share, least;
    uint32_t i, o, waits = 0;

    for (i = 0; i < 100 * WALL / 4; i++) {
        for (o = 0; o < w->n; o++) {
            had[o] = radix_owned(w->r, o, 0);
        }
        if (!wall_add(w, 0, rand() % 4 > 0)) {
            assert_true(w->used_n > 0);
            waits++;
        }
        if (w->used_n > 0 && rand() % 4 == 0) {
            w->now++;
            radix_release(w->r, w->used[0], w->now);
            memmove(w->used, w->used + 1, --w->used_n * sizeof(uint32_t));
        }
        for (o = 1; o < w->n; o++) {
            share = (uint64_t) WALL * floor * w->weight[o] / w->weights / 100;
            least = share < had[o] ? share : had[o];
            assert_true(radix_owned(w->r, o, 0) >= least);
        }
    }

    return waits;
}


/*
 * Random weights, many owners, some idle for as long as the flood lasts: nobody
 * is pushed below its weighted share, whether what floods lies idle or runs;
 * and all of the rest can be had.
 */
static void
test_wall(void **state)
{
    radix_cfg_t c = {.nodes = WALL, .block_tokens = BT, .groups = 1};
    uint32_t i, o, k, waits = 0;
    uint64_t kept;
    unsigned seed;
    wall_t *w;

    (void) state;
    for (seed = 1; seed <= 30; seed++) {
        srand(seed);
        w = calloc(1, sizeof(*w));
        assert_non_null(w);
        c.owners = WALL_OWNERS;
        c.floor = seed % 3 == 0 ? 50 : 100;
        c.stale = 100;
        w->r = radix_open(&c);
        assert_non_null(w->r);
        w->n = 2 + (uint32_t) rand() % (WALL_OWNERS - 1);
        for (i = 0; i < WALL; i++) {
            w->free[w->free_n++] = i;
        }
        for (o = 0; o < w->n; o++) {
            w->weight[o] = 1 + (uint32_t) rand() % 9;
            w->weights += w->weight[o];
        }
        (void) wall_add(w, 0, 0);
        for (o = 1; o < w->n; o++) {
            k = 1 + (uint32_t) rand() % (3 * WALL / w->n);
            for (i = 0; i < k; i++) {
                (void) wall_add(w, o, 0);
            }
        }

        /* a clock that only time makes go: a flood takes no time here */
        radix_time(w->r, 50);
        waits += wall_flood(w, c.floor);
        radix_check_deep(w->r);

        /* now it takes all that is spare, in use: the rest is kept exactly */
        while (wall_add(w, 0, 1)) {
        }
        kept = 0;
        for (o = 1; o < w->n; o++) {
            assert_true(
                radix_owned(w->r, o, 0)
                <= (uint64_t) WALL * c.floor * w->weight[o] / w->weights / 100);
            kept += radix_owned(w->r, o, 0);
        }
        assert_int_equal(radix_owned(w->r, 0, 0), WALL - kept);
        assert_int_equal(w->used_n, WALL - kept);

        /* who has gone has no share any more */
        radix_time(w->r, 1000);
        while (wall_add(w, 0, 1)) {
        }
        assert_int_equal(radix_owned(w->r, 0, 0), WALL);
        radix_close(w->r);
        free(w);
    }
    assert_true(waits > 1000);
}


static void
test_stale(void **state)
{
    radix_cfg_t c = {.nodes = 100, .block_tokens = BT, .groups = 1};
    uint32_t path[2], i, block, words[BT] = {1, 19, 0, 0};
    radix_t *r;

    (void) state;
    c.owners = 8;
    c.stale = 50;
    r = radix_open(&c);
    flood(r, 1, 1, 0, 0, 20, 1);
    flood(r, 2, 1, 0, 20, 20, 2);
    flood(r, 3, 1, 0, 40, 60, 3);
    radix_time(r, 40);
    assert_int_equal(radix_match(r, 2, 2, text, 1, path), 0); /* is here */

    for (i = 0; i < 45; i++) {
        block = evict(r, 60);
        flood(r, 3, 1, 0, block, 1, 60);
    }
    assert_int_equal(radix_owned(r, 1, 0), 0); /* has not been for long */
    assert_int_equal(radix_owned(r, 2, 0), 20);

    /* back again, it has a share as before */
    flood(r, 1, 1, 0, evict(r, 61), 1, 61);
    flood(r, 2, 1, 0, evict(r, 62), 1, 62);
    for (i = 0; i < 50; i++) {
        block = evict(r, 63);
        flood(r, 3, 1, 0, block, 1, 63);
    }
    assert_int_equal(radix_owned(r, 1, 0), 1);
    words[1] = 19;
    assert_int_equal(radix_peek(r, 1, words, 1), 0);
    radix_close(r);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_share),
        cmocka_unit_test(test_wall),
        cmocka_unit_test(test_stale),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
