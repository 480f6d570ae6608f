/*
 * Catches a second tier that gives a sequence another's keys and values, or
 * half-copied ones; that loses a block or a slot, or reads or writes one that
 * somebody else has meanwhile, when copies are late, fail, or are for somebody
 * who has gone; that shows one namespace to another, copies what is not worth
 * it, or nothing of what is.
 *
 * Memory is played: a block's content is a hash of all tokens up to its end.
 * What a copy writes is nonsense from its begin on until it has ended well.
 */
#include "kv_plain.h"
#include "kv_tier.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

enum { BT = 4, SEQS = 12, CONTEXT = 120, BLOCKS = 60, SLOTS = 150, WAYS = 16 };

#define NONSENSE 0x6e6f6e73656e7365ull

typedef struct {
    kv_tier_copy_t c;
    uint64_t reads[CONTEXT / BT]; /* what it saw at its begin */
    int late;                     /* turns until it ends */
} way_t;

typedef struct {
    kv_who_t who;
    uint32_t text[CONTEXT];
    uint32_t known, computed;
    uint64_t ticket;
    int live, waits;
} fake_t;

typedef struct {
    kv_t *kv;
    uint64_t pool[BLOCKS], host[SLOTS];
    way_t ways[WAYS];
    uint32_t ways_n;
    fake_t seqs[SEQS];
    uint32_t fail; /* one of so many copies; 0: none */
    uint32_t late; /* turns that a copy takes, at most */
    uint64_t came; /* tokens that were found behind a fetch */
} world_t;


static world_t *
open_world(uint32_t slots, int again)
{
    world_t *w = calloc(1, sizeof(*w));
    kv_tier_cfg_t c = {slots, 16, 99, again};

    assert_non_null(w);
    w->kv = kv_open_plain(BLOCKS, BT, SEQS, CONTEXT);
    assert_non_null(w->kv);
    assert_int_equal(kv_cache(w->kv, 16, 7), 0);
    assert_int_equal(kv_tier(w->kv, &c), 0);
    assert_true(kv_tiers(w->kv));

    return w;
}


static void
close_world(world_t *w)
{
    kv_check_deep(w->kv);
    kv_close(w->kv);
    free(w);
}


static uint32_t pinned; /* blocks that are the same in all namespaces */


/* What block i of a text holds. */
static uint64_t
content(const fake_t *q, uint32_t i)
{
    uint64_t h = i < pinned ? 5 : q->who.space * 31 + 5;
    uint32_t k;

    for (k = 0; k < (i + 1) * BT; k++) {
        h = (h ^ q->text[k]) * 0x9e3779b97f4a7c15ull;
        h ^= h >> 29;
    }

    return h;
}


/* --- copies ------------------------------------------------------------- */

static uint64_t *
source(world_t *w, const kv_tier_copy_t *c, uint32_t i)
{
    return c->in ? &w->host[c->slots[i]] : &w->pool[c->blocks[i]];
}


static uint64_t *
target(world_t *w, const kv_tier_copy_t *c, uint32_t i)
{
    return c->in ? &w->pool[c->blocks[i]] : &w->host[c->slots[i]];
}


/* One copy more, if there is one. */
static int
begin(world_t *w, uint32_t most)
{
    way_t *y = &w->ways[w->ways_n];
    uint32_t i;

    if (w->ways_n == WAYS || !kv_tier_next(w->kv, most, &y->c)) {
        return 0;
    }

    assert_true(y->c.n > 0 && y->c.n <= most);
    for (i = 0; i < y->c.n; i++) {
        y->reads[i] = *source(w, &y->c, i);
        assert_true(y->reads[i] != NONSENSE);
        *target(w, &y->c, i) = NONSENSE;
    }
    y->late = w->late == 0 ? 0 : rand() % (int) (w->late + 1);
    w->ways_n++;
    kv_check_deep(w->kv);

    return 1;
}


/* Copy i has ended. */
static void
end(world_t *w, uint32_t i, int ok)
{
    way_t y = w->ways[i];
    uint32_t k;

    for (k = 0; k < y.c.n; k++) {
        assert_true(*source(w, &y.c, k) == y.reads[k]);
        assert_true(*target(w, &y.c, k) == NONSENSE);
        if (ok) {
            *target(w, &y.c, k) = y.reads[k];
        }
    }
    w->ways[i] = w->ways[--w->ways_n];
    kv_tier_done(w->kv, &y.c, ok);
    kv_check_deep(w->kv);
}


/* A turn's copying: what is due ends, at random also badly; others begin. */
static void
copies(world_t *w, uint32_t most)
{
    uint32_t i = 0;

    while (i < w->ways_n) {
        if (w->ways[i].late-- > 0) {
            i++;
        } else {
            end(w, i, w->fail == 0 || (uint32_t) rand() % w->fail != 0);
        }
    }
    while (rand() % 3 > 0 && begin(w, most)) { /* some */
    }
}


/* All that there is to copy, at once. */
static void
copy_all(world_t *w)
{
    while (w->ways_n > 0 || begin(w, 1000)) {
        end(w, 0, 1);
    }
}


/* --- sequences ---------------------------------------------------------- */

static fake_t *
fake(world_t *w, uint32_t seq, uint64_t space, uint32_t first, uint32_t known)
{
    fake_t *q = &w->seqs[seq];
    uint32_t i;

    memset(q, 0, sizeof(*q));
    q->who.space = space;
    q->who.owner = (uint32_t) space;
    q->who.weight = 1;
    q->live = 1;
    q->known = known;
    for (i = 0; i < CONTEXT; i++) {
        q->text[i] = first + i;
    }

    return q;
}


/* Looks what is there: it must be the right thing. */
static uint32_t
match(world_t *w, uint32_t seq)
{
    fake_t *q = &w->seqs[seq];
    const uint32_t *ids;
    uint32_t n, i, at, len;

    n = kv_match(w->kv, seq, &q->who, q->text, q->known - 1);
    ids = kv_table(w->kv, seq, 0, &at, &len);
    assert_int_equal(len, n / BT);
    for (i = 0; i < len; i++) {
        assert_true(w->pool[ids[i]] == content(q, i));
    }
    q->computed = n;

    return n;
}


/* Computes n tokens of seq; 0: there were no blocks. */
static int
compute(world_t *w, uint32_t seq, uint32_t n)
{
    fake_t *q = &w->seqs[seq];
    const uint32_t *ids;
    uint32_t i, at, len;

    if (kv_grow(w->kv, seq, q->computed + n) != 0) {
        return 0;
    }

    ids = kv_table(w->kv, seq, 0, &at, &len);
    for (i = q->computed / BT; i < (q->computed + n + BT - 1) / BT; i++) {
        w->pool[ids[i]] = (i + 1) * BT <= q->computed + n ? content(q, i) : 1;
    }
    q->computed += n;
    kv_insert(w->kv, seq, &q->who, q->text, q->computed);

    /* what was found is still what it was */
    ids = kv_table(w->kv, seq, 0, &at, &len);
    for (i = 0; i < q->computed / BT; i++) {
        assert_true(w->pool[ids[i]] == content(q, i));
    }

    return 1;
}


/* Runs a text of that many tokens through the pool. */
static void
run(world_t *w, uint64_t space, uint32_t first, uint32_t known)
{
    fake_t *q = fake(w, 0, space, first, known);

    (void) match(w, 0);
    assert_true(compute(w, 0, q->known - q->computed));
    (void) kv_release(w->kv, 0);
}


/* Pushes all that is idle out of the pool. */
static void
flood(world_t *w)
{
    kv_tier_stats_t st;

    assert_int_equal(kv_grow(w->kv, 1, CONTEXT), 0);
    assert_int_equal(kv_grow(w->kv, 2, CONTEXT), 0);
    assert_int_equal(kv_count(w->kv, KV_CACHED), 0);
    (void) kv_release(w->kv, 1);
    (void) kv_release(w->kv, 2);
    kv_tier_stats(w->kv, &st);
    assert_int_equal(st.transit, 0);
}


/* --- what it asks of the tree ------------------------------------------- */

static const uint32_t words[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};


/* n blocks of words at the top of space, idle; ids from block on. */
static void
plant(radix_t *r, uint64_t space, uint32_t owner, uint32_t n, uint32_t block,
    uint64_t now)
{
    uint32_t ids[3] = {block, block + 1, block + 2}, path[3];
    radix_new_t w = {RADIX_NONE, owner, 1, 0, space, now, n, words, {ids}};
    uint8_t taken[3];

    radix_release(r, radix_insert(r, &w, path, taken), now);
    radix_check_deep(r);
}


static uint32_t
fell(radix_t *r)
{
    uint32_t blocks[RADIX_GROUPS_MAX];
    int found = radix_evict(r, 0, RADIX_NONE, 1, blocks);

    radix_check_deep(r);

    return found ? blocks[0] : RADIX_NONE;
}


/* A reference of nobody's keeps a prefix, and is no use of it. */
static void
test_hold(void **state)
{
    radix_cfg_t c = {32, BT, 1, {0}, 8, 77, 0, 0, 0};
    radix_t *r = radix_open(&c);
    radix_stats_t st;
    radix_new_t w;

    (void) state;
    assert_non_null(r);
    plant(r, 1, 3, 3, 10, 1);
    plant(r, 2, 4, 2, 20, 3);

    assert_int_equal(radix_child(r, RADIX_NONE, 1, words), 10);
    assert_int_equal(radix_child(r, RADIX_NONE, 2, words), 20);
    assert_int_equal(radix_child(r, 10, 1, words + 4), 11);
    assert_int_equal(radix_child(r, 11, 1, words + 4), RADIX_NONE);
    radix_of(r, 21, &w);
    assert_int_equal(w.space, 2);
    assert_int_equal(w.owner, 4);
    assert_int_equal(w.weight, 1);
    assert_int_equal(w.n, 1);
    assert_memory_equal(w.tokens, words + 4, BT * 4);

    radix_hold(r, 11);
    radix_check_deep(r);
    radix_stats(r, &st);
    assert_int_equal(st.idle[0], 3);
    assert_int_equal(radix_refs(r, 10, 0), 1);
    assert_int_equal(radix_refs(r, 12, 0), 0);
    radix_hold(r, RADIX_NONE);
    radix_unhold(r, 11);
    radix_check_deep(r);
    assert_int_equal(fell(r), 12); /* it was used before the other */
    assert_int_equal(fell(r), 11);
    radix_hold(r, 10);
    assert_int_equal(fell(r), 21);
    assert_int_equal(fell(r), 20);
    assert_int_equal(fell(r), RADIX_NONE);
    radix_unhold(r, 10);
    assert_int_equal(fell(r), 10);
    radix_close(r);
}


/* --- tests -------------------------------------------------------------- */

/* Out, evicted, and in again. */
static void
test_back(void **state)
{
    world_t *w = open_world(SLOTS, 0);
    kv_tier_stats_t st;
    uint64_t ticket;
    fake_t *q;

    (void) state;
    run(w, 1, 100, 81); /* 20 blocks */
    copy_all(w);
    kv_tier_stats(w->kv, &st);
    assert_int_equal(st.out, 20);
    assert_int_equal(st.used, 20);
    flood(w);

    q = fake(w, 0, 1, 100, 81);
    assert_int_equal(match(w, 0), 0);
    ticket = kv_tier_fetch(w->kv, 0, &q->who, q->text, 80, 0);
    assert_true(ticket > 0 && kv_tier_coming(w->kv, ticket));
    assert_int_equal(kv_count(w->kv, KV_TRANSIT), 20);
    assert_int_equal(kv_tier_keeps(w->kv), 20);
    /* who comes with the same waits for the same */
    assert_int_equal(kv_tier_fetch(w->kv, 0, &q->who, q->text, 80, 0), ticket);
    (void) kv_release(w->kv, 0);
    copy_all(w);
    assert_false(kv_tier_coming(w->kv, ticket));
    assert_int_equal(kv_count(w->kv, KV_TRANSIT), 0);
    assert_int_equal(kv_tier_keeps(w->kv), 0);

    assert_int_equal(match(w, 0), 80);
    assert_int_equal(kv_tier_fetch(w->kv, 0, &q->who, q->text, 80, 0), 0);
    (void) kv_release(w->kv, 0);

    /* nothing of it has to go out again */
    assert_false(begin(w, 1000));
    kv_tier_stats(w->kv, &st);
    assert_int_equal(st.in, 20);
    assert_int_equal(st.out, 20);
    assert_int_equal(st.failed + st.lost, 0);
    close_world(w);
}


/* A longer text finds the part that it shares, behind what the pool has. */
static void
test_part(void **state)
{
    world_t *w = open_world(SLOTS, 0);
    fake_t *q;

    (void) state;
    run(w, 1, 100, 81);
    copy_all(w);
    flood(w);
    run(w, 1, 100, 21);           /* 5 blocks, computed anew */
    assert_false(begin(w, 1000)); /* and known to be there */

    q = fake(w, 0, 1, 100, 101);
    q->text[62] = 7;
    assert_int_equal(match(w, 0), 20);
    assert_true(kv_tier_fetch(w->kv, 0, &q->who, q->text, 100, 0) > 0);
    assert_int_equal(kv_count(w->kv, KV_TRANSIT), 10);
    assert_int_equal(kv_tier_keeps(w->kv), 15);

    /* in pieces, the first of which ends last */
    assert_true(begin(w, 4));
    assert_true(begin(w, 4));
    assert_true(begin(w, 4));
    assert_false(begin(w, 4));
    end(w, 2, 1);
    end(w, 1, 1);
    assert_int_equal(kv_count(w->kv, KV_TRANSIT), 10);
    end(w, 0, 1);
    (void) kv_release(w->kv, 0);
    assert_int_equal(match(w, 0), 60);
    (void) kv_release(w->kv, 0);
    close_world(w);
}


/* Another namespace has the same tokens, and finds nothing. */
static void
test_space(void **state)
{
    world_t *w = open_world(SLOTS, 0);
    fake_t *q;

    (void) state;
    run(w, 1, 100, 81);
    copy_all(w);
    flood(w);
    q = fake(w, 0, 2, 100, 81);
    assert_int_equal(match(w, 0), 0);
    assert_int_equal(kv_tier_fetch(w->kv, 0, &q->who, q->text, 80, 0), 0);
    q->who.space = 1;
    assert_true(kv_tier_fetch(w->kv, 0, &q->who, q->text, 80, 0) > 0);
    copy_all(w);
    close_world(w);
}


/* What all begin with is in both trees the same for all. */
static void
test_pinned(void **state)
{
    world_t *w = open_world(SLOTS, 0);
    uint32_t space;
    fake_t *q;

    (void) state;
    q = fake(w, 0, 0, 100, 41);
    q->who = kv_everyone();
    pinned = 10;
    assert_true(compute(w, 0, 40));
    assert_int_equal(kv_pin(w->kv, 0), 0);
    for (space = 1; space < 3; space++) { /* and go on alike */
        run(w, space, 100, 81);
        copy_all(w);
    }
    assert_int_equal(kv_grow(w->kv, 1, CONTEXT), 0);
    assert_int_equal(kv_grow(w->kv, 2, (BLOCKS - 10) * BT - CONTEXT), 0);
    assert_int_equal(kv_count(w->kv, KV_CACHED), 10);
    (void) kv_release(w->kv, 1);
    (void) kv_release(w->kv, 2);

    for (space = 1; space < 4; space++) {
        q = fake(w, 0, space, 100, 81);
        assert_int_equal(match(w, 0), 40);
        assert_int_equal(
            kv_tier_fetch(w->kv, 0, &q->who, q->text, 80, 0) > 0, space < 3);
        copy_all(w);
        (void) kv_release(w->kv, 0);
        assert_int_equal(match(w, 0), space < 3 ? 80 : 40);
        (void) kv_release(w->kv, 0);
    }
    assert_int_equal(kv_avail(w->kv), BLOCKS - 10);
    pinned = 0;
    close_world(w);
}


/* What is too short, was wanted once, or finds no room. */
static void
test_not_worth_it(void **state)
{
    world_t *w = open_world(SLOTS, 0);
    uint32_t two[2] = {0, 8}, zeros[40] = {0};
    kv_cfg_t windows = {40, BT, 3, 60, 6, 2, two};
    kv_tier_cfg_t c = {SLOTS, 16, 99, 0};
    kv_who_t who = {0, 0, 1, 0};
    kv_tier_copy_t copy;
    fake_t *q;
    kv_t *kv;

    (void) state;
    run(w, 1, 100, BT * (KV_TIER_LEAST - 1) + 1);
    assert_false(begin(w, 1000));
    run(w, 1, 300, 81);
    copy_all(w);
    flood(w);
    run(w, 1, 300, BT * 19 + 1);
    q = fake(w, 0, 1, 300, 81);
    assert_int_equal(match(w, 0), 76);
    assert_int_equal(kv_tier_fetch(w->kv, 0, &q->who, q->text, 80, 0), 0);
    (void) kv_release(w->kv, 0);
    flood(w);

    /* as much as there is room for, and spare */
    assert_int_equal(
        kv_grow(w->kv, 1,
            (BLOCKS - 11) * BT > CONTEXT ? CONTEXT : (BLOCKS - 11) * BT),
        0);
    assert_int_equal(kv_grow(w->kv, 2, (BLOCKS - 11) * BT - CONTEXT), 0);
    assert_int_equal(kv_avail(w->kv), 11);
    assert_int_equal(kv_tier_fetch(w->kv, 0, &q->who, q->text, 80, 10), 0);
    assert_true(kv_tier_fetch(w->kv, 0, &q->who, q->text, 80, 6) > 0);
    assert_int_equal(kv_avail(w->kv), 6);
    copy_all(w);
    (void) kv_release(w->kv, 1);
    (void) kv_release(w->kv, 2);
    close_world(w);

    /* only what is wanted twice, or was taken away */
    w = open_world(SLOTS, 1);
    run(w, 1, 100, 81);
    assert_false(begin(w, 1000));
    run(w, 1, 100, 41);
    assert_true(begin(w, 1000));
    assert_int_equal(w->ways[0].c.n, 10);
    copy_all(w);
    q = fake(w, 3, 1, 500, 61);
    assert_true(compute(w, 3, 60));
    kv_tier_save(w->kv, 3);
    (void) kv_release(w->kv, 3);
    assert_true(begin(w, 1000));
    assert_int_equal(w->ways[0].c.n, 15);
    copy_all(w);
    close_world(w);

    /* windows: no second tier, and all calls do nothing */
    kv = kv_open(&windows);
    assert_int_equal(kv_cache(kv, 4, 1), 0);
    assert_int_equal(kv_tier(kv, &c), 0);
    assert_false(kv_tiers(kv));
    assert_false(kv_tier_next(kv, 9, &copy));
    kv_tier_save(kv, 0);
    assert_int_equal(kv_tier_fetch(kv, 0, &who, zeros, 40, 0), 0);
    assert_int_equal(kv_tier_keeps(kv), 0);
    assert_false(kv_tier_coming(kv, 1));
    kv_close(kv);
}


/* A copy that fails leaves nothing, and a part of it what is good. */
static void
test_fails(void **state)
{
    world_t *w = open_world(SLOTS, 0);
    kv_tier_stats_t st;
    fake_t *q;

    (void) state;
    run(w, 1, 100, 81);
    assert_true(begin(w, 8));
    end(w, 0, 0);
    kv_tier_stats(w->kv, &st);
    assert_int_equal(st.used + st.transit, 0);
    assert_false(begin(w, 8)); /* not again and again */
    run(w, 1, 100, 81);        /* but for who wants it */
    copy_all(w);
    flood(w);

    q = fake(w, 0, 1, 100, 81);
    assert_true(kv_tier_fetch(w->kv, 0, &q->who, q->text, 80, 0) > 0);
    assert_true(begin(w, 8));
    end(w, 0, 0);
    assert_int_equal(kv_count(w->kv, KV_FREE), BLOCKS);
    assert_int_equal(match(w, 0), 0);

    assert_true(kv_tier_fetch(w->kv, 0, &q->who, q->text, 80, 0) > 0);
    assert_true(begin(w, 8));
    assert_true(begin(w, 8));
    assert_true(begin(w, 8));
    end(w, 1, 0);
    end(w, 1, 1);
    end(w, 0, 1);
    assert_int_equal(kv_count(w->kv, KV_FREE), BLOCKS - 8);
    assert_int_equal(match(w, 0), 32);
    (void) kv_release(w->kv, 0);
    kv_tier_stats(w->kv, &st);
    assert_int_equal(st.failed, 3);
    assert_int_equal(st.in, 8);
    close_world(w);
}


/* The pool runs over while a block goes out: that one is not evicted, and what
 * is, before its turn, is lost and no more. */
static void
test_pressure(void **state)
{
    world_t *w = open_world(SLOTS, 0);
    kv_tier_stats_t st;

    (void) state;
    run(w, 1, 100, 81);
    assert_true(begin(w, 6));
    assert_int_equal(kv_tier_keeps(w->kv), 6);
    assert_int_equal(kv_avail(w->kv), BLOCKS - 6);
    assert_int_equal(kv_grow(w->kv, 1, CONTEXT), 0);
    assert_int_equal(kv_grow(w->kv, 2, CONTEXT), -1);
    assert_int_equal(kv_grow(w->kv, 2, (BLOCKS - 6) * BT - CONTEXT), 0);
    assert_int_equal(kv_count(w->kv, KV_CACHED), 6);
    end(w, 0, 1);
    assert_int_equal(kv_grow(w->kv, 2, CONTEXT), 0);
    assert_int_equal(kv_count(w->kv, KV_CACHED), 0);
    kv_tier_stats(w->kv, &st);
    assert_int_equal(st.lost, 14);
    assert_int_equal(st.used, 6);
    (void) kv_release(w->kv, 1);
    (void) kv_release(w->kv, 2);
    close_world(w);
}


/* The tier is full: what was used least lately goes there too. */
static void
test_evicts(void **state)
{
    world_t *w = open_world(30, 0);
    kv_tier_stats_t st;
    uint32_t i;
    fake_t *q;

    (void) state;
    for (i = 0; i < 6; i++) {
        run(w, 1, 1000 * i, 41);
        copy_all(w);
    }
    kv_tier_stats(w->kv, &st);
    assert_int_equal(st.used, 30);
    assert_int_equal(st.out, 60);
    flood(w);
    for (i = 0; i < 6; i++) {
        q = fake(w, 0, 1, 1000 * i, 41);
        assert_int_equal(match(w, 0), 0);
        assert_int_equal(
            kv_tier_fetch(w->kv, 0, &q->who, q->text, 40, 0) > 0, i >= 3);
        copy_all(w);
    }
    close_world(w);
}


/* --- the storm ---------------------------------------------------------- */

/* One of few texts, so that they meet: a stem of 40 tokens, then the rest. */
static void
storm_start(world_t *w, uint32_t seq)
{
    uint32_t stem = (uint32_t) rand() % 5, tail = (uint32_t) rand() % 4, i;
    fake_t *q = fake(w, seq, (uint64_t) rand() % 2, stem * 1000,
        30 + (uint32_t) rand() % (CONTEXT - 30));

    for (i = 40; i < CONTEXT; i++) {
        q->text[i] += tail * 100000;
    }
    q->waits = 1;
}


/* As the scheduler does it: wait for what is fetched, or go without it. */
static void
storm_enter(world_t *w, uint32_t seq)
{
    fake_t *q = &w->seqs[seq];
    uint32_t had = q->computed;

    if (q->ticket != 0 && kv_tier_coming(w->kv, q->ticket)
        && rand() % 20 != 0) {
        return;
    }
    (void) match(w, seq);
    if (q->ticket == 0) {
        had = q->computed;
        q->ticket =
            kv_tier_fetch(w->kv, seq, &q->who, q->text, q->known - 1, 4);
        if (q->ticket != 0) {
            (void) kv_release(w->kv, seq);
            q->computed = had;
            return;
        }
    } else if (q->computed > had) {
        w->came += q->computed - had;
    }
    q->ticket = 0;
    q->waits = 0;
}


static void
storm_turn(world_t *w, uint32_t seq)
{
    fake_t *q = &w->seqs[seq];
    uint32_t n = 1 + (uint32_t) rand() % 24;

    if (!q->live) {
        storm_start(w, seq);
    } else if (q->waits && rand() % 30 == 0) {
        q->live = 0; /* cancelled, its blocks may be on their way */
    } else if (q->waits) {
        storm_enter(w, seq);
    } else if (rand() % 40 == 0 || q->computed == q->known) {
        (void) kv_drop(w->kv, seq,
            rand() % 4 ? UINT32_MAX : q->computed - q->computed / 3);
        q->live = 0;
    } else {
        n = n > q->known - q->computed ? q->known - q->computed : n;
        if (!compute(w, seq, n) || rand() % 50 == 0) { /* preempted */
            kv_tier_save(w->kv, seq);
            (void) kv_release(w->kv, seq);
            q->waits = 1;
        }
    }
    kv_check_deep(w->kv);
}


static void
storm(uint32_t seed, uint32_t fail, uint32_t late, int again)
{
    world_t *w = open_world(SLOTS, again);
    kv_tier_stats_t st;
    uint32_t i;

    srand(seed);
    w->fail = fail;
    w->late = late;
    for (i = 0; i < 4000; i++) {
        copies(w, 1 + (uint32_t) rand() % 12);
        storm_turn(w, (uint32_t) rand() % SEQS);
    }

    /* all leave while copies are under way, and these end */
    for (i = 0; i < SEQS; i++) {
        (void) kv_release(w->kv, i);
    }
    while (w->ways_n > 0) {
        end(w, 0, 1);
    }
    kv_tier_stats(w->kv, &st);
    assert_true(st.out > 300 && st.in > 300 && w->came > 100);
    assert_int_equal(st.failed > 0, fail > 0);
    assert_int_equal(st.transit, 0);

    /* fetches of which no piece had begun */
    w->late = 0;
    w->fail = 0;
    copy_all(w);
    assert_int_equal(kv_count(w->kv, KV_TRANSIT), 0);
    assert_int_equal(kv_avail(w->kv), BLOCKS);
    close_world(w);
}


static void
test_storm(void **state)
{
    (void) state;
    storm(1, 0, 0, 0);
    storm(2, 0, 12, 0);
    storm(3, 5, 12, 0);
    storm(4, 3, 3, 1);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hold),
        cmocka_unit_test(test_back),
        cmocka_unit_test(test_part),
        cmocka_unit_test(test_space),
        cmocka_unit_test(test_pinned),
        cmocka_unit_test(test_not_worth_it),
        cmocka_unit_test(test_fails),
        cmocka_unit_test(test_pressure),
        cmocka_unit_test(test_evicts),
        cmocka_unit_test(test_storm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
