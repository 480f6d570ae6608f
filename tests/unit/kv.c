/*
 * Catches a block pool that loses a block, gives one to two sequences, grows
 * half-way when it should refuse, or whose counts drift from the truth; one
 * that drops a block of a window while a step still looks at it, or keeps it
 * for longer, or lets a sequence that slides wait for a block.
 */
#include "kv_plain.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>


static void
test_sizes(void **state)
{
    kv_t *kv = kv_open_plain(10, 4, 3, 40);

    (void) state;
    assert_non_null(kv);
    assert_int_equal(kv_total(kv), 10);
    assert_int_equal(kv_block_tokens(kv), 4);
    assert_int_equal(kv_groups(kv), 1);
    assert_int_equal(kv_fits(kv), 40);
    assert_int_equal(kv_missing(kv, 0, 0), 0);
    assert_int_equal(kv_missing(kv, 0, 1), 1);
    assert_int_equal(kv_missing(kv, 0, 4), 1);
    assert_int_equal(kv_missing(kv, 0, 5), 2);
    assert_int_equal(kv_count(kv, KV_FREE), 10);
    assert_int_equal(kv_count(kv, KV_PRIVATE), 0);
    assert_int_equal(kv_count(kv, KV_CACHED), 0);
    assert_int_equal(kv_count(kv, KV_TRANSIT), 0);
    kv_close(kv);
}


static void
test_grow_all_or_nothing(void **state)
{
    kv_t *kv = kv_open_plain(5, 4, 2, 20);
    const uint32_t *t;
    uint32_t n, at, first[3];

    (void) state;
    assert_int_equal(kv_grow(kv, 0, 9), 0);
    t = kv_table(kv, 0, 0, &at, &n);
    assert_int_equal(n, 3);
    memcpy(first, t, sizeof(first));

    /* two are left, three are asked for */
    assert_int_equal(kv_missing(kv, 1, 12), 3);
    assert_int_equal(kv_grow(kv, 1, 12), -1);
    (void) kv_table(kv, 1, 0, &at, &n);
    assert_int_equal(n, 0);
    assert_int_equal(kv_count(kv, KV_FREE), 2);

    assert_int_equal(kv_grow(kv, 1, 8), 0);
    assert_int_equal(kv_count(kv, KV_FREE), 0);
    assert_int_equal(kv_grow(kv, 0, 12), 0); /* has room for it already */
    assert_int_equal(kv_grow(kv, 0, 13), -1);

    t = kv_table(kv, 0, 0, &at, &n);
    assert_int_equal(n, 3);
    assert_memory_equal(t, first, sizeof(first));

    assert_int_equal(kv_release(kv, 1), 2);
    assert_int_equal(kv_release(kv, 1), 0);
    assert_int_equal(kv_grow(kv, 0, 13), 0);
    t = kv_table(kv, 0, 0, &at, &n);
    assert_int_equal(n, 4);
    assert_memory_equal(t, first, sizeof(first)); /* positions stay put */
    kv_check_deep(kv);
    kv_close(kv);
}


/* Every block is held at most once, whatever the order of events. */
static void
test_storm(void **state)
{
    enum { BLOCKS = 97, SEQS = 13, CONTEXT = 150, BT = 8 };
    kv_t *kv = kv_open_plain(BLOCKS, BT, SEQS, CONTEXT);
    uint32_t len[SEQS] = {0}, seq, want, n, at, i, round, used;
    uint8_t seen[BLOCKS];
    const uint32_t *t;
    int refused = 0;

    (void) state;
    srand(7);

    for (round = 0; round < 20000; round++) {
        seq = (uint32_t) rand() % SEQS;
        if (rand() % 6 == 0) {
            assert_int_equal(kv_release(kv, seq), (len[seq] + BT - 1) / BT);
            len[seq] = 0;
        } else {
            want = len[seq] + (uint32_t) rand() % 20;
            want = want > CONTEXT ? CONTEXT : want;
            if (kv_missing(kv, seq, want) <= kv_count(kv, KV_FREE)) {
                assert_int_equal(kv_grow(kv, seq, want), 0);
                len[seq] = want;
            } else {
                assert_int_equal(kv_grow(kv, seq, want), -1);
                refused++;
            }
        }

        memset(seen, 0, sizeof(seen));
        for (seq = 0, used = 0; seq < SEQS; seq++) {
            t = kv_table(kv, seq, 0, &at, &n);
            assert_int_equal(at, 0);
            assert_int_equal(n, (len[seq] + BT - 1) / BT);
            for (i = 0; i < n; i++, used++) {
                assert_true(t[i] < BLOCKS);
                assert_int_equal(seen[t[i]], 0);
                seen[t[i]] = 1;
            }
        }
        assert_int_equal(used, kv_count(kv, KV_PRIVATE));
        assert_int_equal(BLOCKS - used, kv_count(kv, KV_FREE));
        kv_check_deep(kv);
    }

    assert_true(refused > 100); /* the storm was one */
    kv_close(kv);
}


/* Two groups, one with a window of 10: blocks of 4, steps of at most 6. */
static const uint32_t windows[] = {0, 10};
static const kv_cfg_t windowed = {40, 4, 3, 60, 6, 2, windows};


static void
test_window(void **state)
{
    kv_t *kv = kv_open(&windowed);
    uint32_t n, at, free_n;

    (void) state;

    /* 60 tokens: 15 blocks, and 5 of the window (16 positions and one) */
    assert_int_equal(kv_blocks_for(&windowed, 60), 20);
    assert_int_equal(kv_blocks_for(&windowed, 8), 4);
    assert_int_equal(kv_fits(kv), 60);
    assert_int_equal(kv_missing(kv, 0, 60), 20);
    assert_int_equal(kv_grow(kv, 0, 60), 0);
    assert_int_equal(kv_held(kv, 0), 20);
    free_n = kv_count(kv, KV_FREE);

    /* token 9 looks at 0 to 9, token 13 at 4 to 13 */
    kv_slide(kv, 0, 9, 60);
    (void) kv_table(kv, 0, 1, &at, &n);
    assert_int_equal(at, 0);
    kv_slide(kv, 0, 12, 60);
    (void) kv_table(kv, 0, 1, &at, &n);
    assert_int_equal(at, 0);
    kv_slide(kv, 0, 13, 60);
    (void) kv_table(kv, 0, 1, &at, &n);
    assert_int_equal(at, 1);
    assert_int_equal(n, 5);
    assert_int_equal(kv_missing(kv, 0, 60), 0);
    assert_int_equal(kv_count(kv, KV_FREE), free_n);

    /* what has nothing to come to is freed; the full group keeps its own */
    for (at = 14; at < 60; at++) {
        kv_slide(kv, 0, at, 60);
    }
    (void) kv_table(kv, 0, 1, &at, &n);
    assert_int_equal(at, 12);
    assert_int_equal(n, 3);
    (void) kv_table(kv, 0, 0, &at, &n);
    assert_int_equal(at, 0);
    assert_int_equal(n, 15);
    assert_int_equal(kv_count(kv, KV_FREE), free_n + 2);
    assert_int_equal(kv_release(kv, 0), 18);
    (void) kv_table(kv, 0, 1, &at, &n);
    assert_int_equal(at, 0);
    kv_check_deep(kv);
    kv_close(kv);
}


/* The longest sequence is what the pool holds, to the token. */
static void
test_fits(void **state)
{
    uint32_t blocks, fits, before = 0;
    kv_cfg_t c = windowed;

    (void) state;

    for (blocks = 2; blocks <= 24; blocks++) {
        c.blocks = blocks;
        fits = kv_longest(&c);
        assert_true(kv_blocks_for(&c, fits) <= blocks);
        assert_true(fits == 60 || kv_blocks_for(&c, fits + 1) > blocks);
        assert_true(fits >= before);
        before = fits;
    }

    assert_int_equal(before, 60);
}


/*
 * Sequences that are computed in steps of any length and decode, until the
 * pool is empty: before each step the blocks that it reads and writes are
 * there, and those of others are not among them.
 */
static void
test_window_storm(void **state)
{
    enum { SEQS = 3, BT = 4, STEP = 6 };
    kv_t *kv = kv_open(&windowed);
    uint32_t computed[SEQS] = {0}, known[SEQS] = {0};
    uint32_t round, seq, to, g, i, n, at, from, refused = 0;
    uint8_t seen[40];
    const uint32_t *t;

    (void) state;
    srand(11);

    for (round = 0; round < 20000; round++) {
        seq = (uint32_t) rand() % SEQS;

        if (rand() % 50 == 0 || computed[seq] >= 59) {
            (void) kv_release(kv, seq);
            computed[seq] = known[seq] = 0;
        }

        if (known[seq] == 0) {
            to = 1 + (uint32_t) rand() % 58;
            if (kv_grow(kv, seq, to + 1) != 0) {
                refused++;
                continue;
            }
            known[seq] = to;
        }

        to = computed[seq] + 1 + (uint32_t) rand() % STEP;
        to = to > known[seq] ? known[seq] : to;

        /* a decoding one may have to wait, and nothing of it changes */
        if (kv_grow(kv, seq, to) != 0) {
            assert_int_equal(to, computed[seq] + 1);
            refused++;
            continue;
        }

        from = computed[seq] >= 10 ? (computed[seq] - 9) / BT : 0;
        memset(seen, 0, sizeof(seen));

        for (g = 0; g < 2; g++) {
            t = kv_table(kv, seq, g, &at, &n);
            assert_int_equal(at, g == 0 ? 0 : from);
            assert_true((at + n) * BT >= to);
            for (i = 0; i < n; i++) {
                assert_int_equal(seen[t[i]]++, 0);
            }
        }

        computed[seq] = to;
        known[seq] += known[seq] == to;
        kv_slide(kv, seq, to, known[seq] < 60 ? known[seq] + 1 : 60);
        kv_check_deep(kv);
    }

    assert_true(refused > 100);
    kv_close(kv);
}


/* A pool with a cache, for sequences that follow one of a few texts. */
enum { C_BLOCKS = 40, C_SEQS = 8, C_CONTEXT = 60, C_BT = 4 };

typedef struct {
    uint32_t text[C_CONTEXT];
    uint32_t n, computed, matched;
    kv_who_t who;
} cseq_t;


static kv_t *
open_cache(void)
{
    kv_t *kv = kv_open_plain(C_BLOCKS, C_BT, C_SEQS, C_CONTEXT);

    assert_non_null(kv);
    assert_false(kv_caches(kv));
    assert_int_equal(kv_cache(kv, 4, 99), 0);
    assert_true(kv_caches(kv));

    return kv;
}


/* Blocks live on, serve others, keep apart by namespace, give way. */
static void
test_cache(void **state)
{
    kv_t *kv = open_cache();
    uint32_t text[C_CONTEXT], i, n, first;
    const kv_who_t a = {1, 1, 1, 0}, b = {2, 2, 1, 0};
    const uint32_t *t;

    (void) state;
    for (i = 0; i < C_CONTEXT; i++) {
        text[i] = i;
    }

    assert_int_equal(kv_match(kv, 0, &a, text, 60), 0);
    assert_int_equal(kv_grow(kv, 0, 22), 0);
    kv_insert(kv, 0, &a, text, 19);
    kv_check_deep(kv);
    assert_int_equal(kv_count(kv, KV_CACHED), 4);
    assert_int_equal(kv_count(kv, KV_PRIVATE), 2);
    assert_int_equal(kv_avail(kv), C_BLOCKS - 6); /* all in use */

    /* at once, for whoever has the same */
    assert_int_equal(kv_match(kv, 1, &a, text, 15), 12);
    assert_int_equal(kv_match(kv, 2, &b, text, 15), 0);
    assert_int_equal(kv_shared(kv, 0, 1), 3);
    assert_int_equal(kv_held(kv, 1), 3);
    t = kv_table(kv, 1, 0, &first, &n);
    assert_memory_equal(t, kv_table(kv, 0, 0, &first, &n), 12);
    assert_int_equal(kv_grow(kv, 1, 15), 0);
    assert_int_equal(kv_count(kv, KV_PRIVATE), 3);

    /* the same computed twice: the second keeps its own */
    kv_insert(kv, 1, &a, text, 15);
    assert_int_equal(kv_count(kv, KV_CACHED), 4);
    assert_int_equal(kv_grow(kv, 1, 16), 0);
    kv_insert(kv, 1, &a, text, 16);
    kv_check_deep(kv);
    assert_int_equal(kv_count(kv, KV_CACHED), 4);
    assert_int_equal(kv_count(kv, KV_PRIVATE), 3);

    assert_int_equal(kv_release(kv, 0), 6);
    assert_int_equal(kv_release(kv, 1), 4);
    kv_check_deep(kv);
    assert_int_equal(kv_count(kv, KV_CACHED), 4);
    assert_int_equal(kv_avail(kv), C_BLOCKS);

    /* it gives way, the end before the beginning */
    for (i = 3; i < 5; i++) {
        assert_int_equal(kv_grow(kv, i, C_CONTEXT), 0);
    }
    assert_int_equal(kv_grow(kv, 5, 8 * C_BT), 0);
    assert_int_equal(kv_evicted(kv), 2);
    assert_int_equal(kv_match(kv, 0, &a, text, 60), 8);
    assert_int_equal(kv_grow(kv, 0, 12), -1);
    assert_int_equal(kv_held(kv, 0), 2);
    kv_check_deep(kv);
    for (i = 0; i < C_SEQS; i++) {
        (void) kv_release(kv, i);
    }
    assert_int_equal(kv_avail(kv), C_BLOCKS);
    kv_close(kv);
}


/* What stands behind a stop does not stay, but for who has it. */
static void
test_cache_drop(void **state)
{
    kv_t *kv = open_cache();
    uint32_t text[C_CONTEXT] = {0};
    const kv_who_t a = {1, 1, 1, 0};

    (void) state;
    assert_int_equal(kv_grow(kv, 0, 30), 0);
    kv_insert(kv, 0, &a, text, 28);
    assert_int_equal(kv_count(kv, KV_CACHED), 7);
    assert_int_equal(kv_match(kv, 1, &a, text, 20), 20);
    assert_int_equal(kv_drop(kv, 0, 13), 8);
    kv_check_deep(kv);
    assert_int_equal(kv_count(kv, KV_CACHED), 5); /* 1 has five of them */
    assert_int_equal(kv_drop(kv, 1, 0), 5);
    assert_int_equal(kv_count(kv, KV_CACHED), 0);
    assert_int_equal(kv_count(kv, KV_FREE), C_BLOCKS);
    kv_check_deep(kv);
    kv_close(kv);
}


/* Computes a prefix as everyone's, a few tokens at a time, and pins it. */
static void
pin(kv_t *kv, const uint32_t *text, uint32_t n)
{
    const kv_who_t all = kv_everyone();
    uint32_t at = kv_match(kv, 0, &all, text, n);

    n -= n % C_BT;
    while (at < n) {
        at = at + 7 < n ? at + 7 : n;
        assert_int_equal(kv_grow(kv, 0, at), 0);
        kv_insert(kv, 0, &all, text, at);
        kv_slide(kv, 0, at, n);
    }
    assert_int_equal(kv_pin(kv, 0), 0);
    kv_check_deep(kv);
    assert_int_equal(kv_held(kv, 0), 0);
    assert_int_equal(kv_count(kv, KV_PRIVATE), 0);
}


/* What is pinned is found by all, counted once, never evicted, and missing
 * from what a sequence may take. */
static void
test_pin(void **state)
{
    static const uint32_t windows[] = {0, 10};
    kv_cfg_t c = {C_BLOCKS, C_BT, C_SEQS, C_CONTEXT, 9, 1, windows};
    const kv_who_t a = {1, 1, 1, 0}, b = {2, 2, 1, 0};
    uint32_t text[C_CONTEXT], other[C_CONTEXT] = {0}, i, k, kept, g;
    kv_t *kv;

    (void) state;
    for (i = 0; i < C_CONTEXT; i++) {
        text[i] = i;
    }

    for (g = 1; g <= 2; g++) {
        c.groups = g;
        kv = kv_open(&c);
        assert_non_null(kv);
        assert_int_equal(kv_cache(kv, 4, 99), 0);
        assert_int_equal(kv_pinned(kv), 0);

        pin(kv, text, 30); /* 7 blocks, two tokens left over */
        kept = kv_pinned(kv);
        assert_int_equal(kept, kv_pin_blocks(&c, 30));
        assert_int_equal(kept, g == 1 ? 7 : 7 + 3);
        assert_int_equal(kv_avail(kv), C_BLOCKS - kept);

        /* its beginning alone, and what goes on from that otherwise */
        pin(kv, text, 20);
        assert_in_range(kv_pinned(kv), kept, kept + (g == 2 ? 3 : 0));
        memcpy(other, text, 24 * sizeof(*text));
        pin(kv, other, 32);
        assert_true(kv_pinned(kv) <= kept + 2 + (g == 2 ? 8 : 0));
        assert_int_equal(kv_avail(kv), C_BLOCKS - kv_pinned(kv));
        assert_true(kv_fits(kv) == C_CONTEXT
                    || kv_blocks_for(&c, kv_fits(kv) + 1) > kv_avail(kv));

        /* everyone's, and beyond it each one's own */
        assert_int_equal(kv_match(kv, 1, &a, text, 59), 28);
        assert_int_equal(kv_match(kv, 2, &b, text, 59), 28);
        assert_int_equal(kv_shared(kv, 1, 2), 7);
        assert_int_equal(kv_own(kv, 1), 0);
        assert_int_equal(kv_grow(kv, 1, 40), 0);
        kv_insert(kv, 1, &a, text, 40);
        kv_slide(kv, 1, 40, 41);
        kv_check_deep(kv);
        (void) kv_release(kv, 1);
        (void) kv_release(kv, 2);
        assert_int_equal(kv_match(kv, 1, &b, text, 59), 28);
        assert_int_equal(kv_match(kv, 2, &a, text, 59), 40);
        (void) kv_release(kv, 1);
        (void) kv_release(kv, 2);

        /* whatever else wants room, to the last block */
        for (i = 0; i < C_SEQS; i++) {
            for (k = C_CONTEXT; kv_grow(kv, i, k) != 0; k--) {
            }
            kv_check_deep(kv);
        }
        assert_true(kv_avail(kv) < g);
        assert_true(kv_evicted(kv) > 0);
        for (i = 0; i < C_SEQS; i++) {
            (void) kv_release(kv, i);
        }
        assert_int_equal(kv_match(kv, 1, &b, text, 59), 28);
        assert_int_equal(kv_match(kv, 2, &b, other, 59), 32);
        (void) kv_release(kv, 1);
        (void) kv_release(kv, 2);
        kv_check_deep(kv);
        assert_int_equal(kv_avail(kv), C_BLOCKS - kv_pinned(kv));
        kv_close(kv);
    }
}


/* All that one has is another's, and what was told of it can still be read. */
static void
test_hand(void **state)
{
    kv_t *kv = open_cache();
    uint32_t text[C_CONTEXT] = {0}, first, n;
    const kv_who_t a = {1, 1, 1, 0};
    const uint32_t *was, *t;

    (void) state;
    assert_int_equal(kv_grow(kv, 3, 30), 0);
    kv_insert(kv, 3, &a, text, 14);
    was = kv_table(kv, 3, 0, &first, &n);
    kv_hand(kv, 3, 7);
    kv_check_deep(kv);
    assert_int_equal(kv_held(kv, 3), 0);
    assert_int_equal(kv_held(kv, 7), 8);
    assert_int_equal(kv_count(kv, KV_CACHED), 3);
    t = kv_table(kv, 7, 0, &first, &n);
    assert_int_equal(n, 8);
    assert_memory_equal(t, was, 8 * sizeof(*t));

    /* whose name is free again while the other still has the blocks */
    assert_int_equal(kv_match(kv, 3, &a, text, 20), 12);
    assert_int_equal(kv_grow(kv, 3, 20), 0);
    assert_int_equal(kv_shared(kv, 3, 7), 3);
    kv_insert(kv, 7, &a, text, 30);
    kv_check_deep(kv);
    assert_int_equal(kv_drop(kv, 7, 13), 8);
    kv_check_deep(kv);
    assert_int_equal(kv_count(kv, KV_CACHED), 3);
    assert_int_equal(kv_release(kv, 3), 5);
    assert_int_equal(kv_avail(kv), C_BLOCKS);
    kv_close(kv);
}


/* A sequence goes on under another name. */
static void
hand(kv_t *kv, cseq_t *q, uint32_t s)
{
    kv_hand(kv, s, s ^ 1);
    q[s ^ 1] = q[s];
    q[s].n = 0;
}


/* A plain model of what each block says: nobody reads another's tokens, nor
 * those of another group of layers. */
static void
cache_storm(uint32_t groups, const uint32_t *window)
{
    kv_cfg_t c = {C_BLOCKS, C_BT, C_SEQS, C_CONTEXT, 9, groups, window};
    kv_t *kv = kv_open(&c);
    static cseq_t q[C_SEQS];
    uint32_t mem[C_BLOCKS * C_BT] = {0}, round, s, i, k, n, g, first, hits = 0;
    const uint32_t *t;
    int refused = 0, handed = 0;

    memset(q, 0, sizeof(q));
    srand(11);
    assert_non_null(kv);
    assert_int_equal(kv_cache(kv, 4, 99), 0);
    assert_true(kv_caches(kv));

    for (round = 0; round < 20000; round++) {
        s = (uint32_t) rand() % C_SEQS;
        if (q[s].n == 0) {
            q[s].n = 1 + (uint32_t) rand() % C_CONTEXT;
            q[s].who.owner = (uint32_t) rand() % 3;
            q[s].who.space = q[s].who.owner / 2;
            q[s].who.weight = 1;
            k = (uint32_t) rand() % 3;
            for (i = 0; i < q[s].n; i++) {
                q[s].text[i] = 1 + k * 100 + i;
                k = rand() % 30 ? k : (uint32_t) rand() % 3;
            }
            q[s].computed = kv_match(kv, s, &q[s].who, q[s].text, q[s].n - 1);
            hits += q[s].computed;
        } else if (rand() % 20 == 0 && q[s ^ 1].n == 0) {
            hand(kv, q, s);
            handed++;
        } else if (rand() % 12 == 0 || q[s].computed == q[s].n) {
            (void) kv_drop(kv, s,
                rand() % 4 ? UINT32_MAX : (uint32_t) rand() % (q[s].n + 1));
            q[s].n = 0;
        } else {
            k = q[s].computed + 1 + (uint32_t) rand() % 9;
            k = k > q[s].n ? q[s].n : k;
            if (kv_missing(kv, s, k) > kv_avail(kv)) {
                assert_int_equal(kv_grow(kv, s, k), -1);
                refused++;
            } else {
                assert_int_equal(kv_grow(kv, s, k), 0);
                for (g = 0; g < groups; g++) {
                    t = kv_table(kv, s, g, &first, &n);
                    for (i = q[s].computed; i < k; i++) {
                        mem[t[i / C_BT - first] * C_BT + i % C_BT] =
                            q[s].who.space * 1000 + q[s].text[i] + g * 10000;
                    }
                }
                q[s].computed = k;
                kv_insert(kv, s, &q[s].who, q[s].text, k);
                kv_slide(kv, s, k, k);
            }
        }

        kv_check_deep(kv);
        for (s = 0; s < C_SEQS * groups; s++) {
            g = s / C_SEQS;
            k = s % C_SEQS;
            t = kv_table(kv, k, g, &first, &n);
            i = window[g] > 0 && q[k].computed >= window[g]
                    ? q[k].computed - window[g] + 1
                    : 0;
            for (; q[k].n > 0 && i < q[k].computed; i++) {
                assert_int_equal(mem[t[i / C_BT - first] * C_BT + i % C_BT],
                    q[k].who.space * 1000 + q[k].text[i] + g * 10000);
            }
        }
    }

    assert_true(hits > 2000 && refused > 50 && kv_evicted(kv) > 500);
    assert_true(handed > 50);
    for (s = 0; s < C_SEQS; s++) {
        (void) kv_release(kv, s);
    }
    kv_check_deep(kv);
    assert_int_equal(kv_avail(kv), C_BLOCKS);
    kv_close(kv);
}


static void
test_cache_storm(void **state)
{
    static const uint32_t one[] = {0}, three[] = {10, 0, 5}, full[] = {0, 0, 1};
    static const uint32_t all[] = {10};
    kv_cfg_t c = {C_BLOCKS, C_BT, C_SEQS, C_CONTEXT, 9, 1, all};
    kv_t *kv = kv_open(&c);

    (void) state;
    cache_storm(1, one);
    cache_storm(3, three);
    cache_storm(3, full);

    /* nothing that a node could be named by */
    assert_int_equal(kv_cache(kv, 4, 99), 0);
    assert_false(kv_caches(kv));
    kv_close(kv);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_grow_all_or_nothing),
        cmocka_unit_test(test_storm),
        cmocka_unit_test(test_cache),
        cmocka_unit_test(test_cache_drop),
        cmocka_unit_test(test_pin),
        cmocka_unit_test(test_hand),
        cmocka_unit_test(test_cache_storm),
        cmocka_unit_test(test_window),
        cmocka_unit_test(test_fits),
        cmocka_unit_test(test_window_storm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
