/*
 * Catches a block pool that loses a block, gives one to two sequences, grows
 * half-way when it should refuse, or whose counts drift from the truth.
 */
#include "kv.h"

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
    kv_t *kv = kv_open(10, 4, 3, 40);

    (void) state;
    assert_non_null(kv);
    assert_int_equal(kv_total(kv), 10);
    assert_int_equal(kv_block_tokens(kv), 4);
    assert_int_equal(kv_blocks_for(kv, 0), 0);
    assert_int_equal(kv_blocks_for(kv, 1), 1);
    assert_int_equal(kv_blocks_for(kv, 4), 1);
    assert_int_equal(kv_blocks_for(kv, 5), 2);
    assert_int_equal(kv_blocks_for(kv, UINT32_MAX), 1u << 30);
    assert_int_equal(kv_count(kv, KV_FREE), 10);
    assert_int_equal(kv_count(kv, KV_PRIVATE), 0);
    assert_int_equal(kv_count(kv, KV_CACHED), 0);
    assert_int_equal(kv_count(kv, KV_TRANSIT), 0);
    kv_close(kv);
}


static void
test_grow_all_or_nothing(void **state)
{
    kv_t *kv = kv_open(5, 4, 2, 20);
    const uint32_t *t;
    uint32_t n, first[3];

    (void) state;
    assert_int_equal(kv_grow(kv, 0, 9), 0);
    t = kv_table(kv, 0, &n);
    assert_int_equal(n, 3);
    memcpy(first, t, sizeof(first));

    /* two are left, three are asked for */
    assert_int_equal(kv_missing(kv, 1, 12), 3);
    assert_int_equal(kv_grow(kv, 1, 12), -1);
    (void) kv_table(kv, 1, &n);
    assert_int_equal(n, 0);
    assert_int_equal(kv_count(kv, KV_FREE), 2);

    assert_int_equal(kv_grow(kv, 1, 8), 0);
    assert_int_equal(kv_count(kv, KV_FREE), 0);
    assert_int_equal(kv_grow(kv, 0, 12), 0); /* has room for it already */
    assert_int_equal(kv_grow(kv, 0, 13), -1);

    t = kv_table(kv, 0, &n);
    assert_int_equal(n, 3);
    assert_memory_equal(t, first, sizeof(first));

    assert_int_equal(kv_release(kv, 1), 2);
    assert_int_equal(kv_release(kv, 1), 0);
    assert_int_equal(kv_grow(kv, 0, 13), 0);
    t = kv_table(kv, 0, &n);
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
    kv_t *kv = kv_open(BLOCKS, BT, SEQS, CONTEXT);
    uint32_t len[SEQS] = {0}, seq, want, n, i, round, used;
    uint8_t seen[BLOCKS];
    const uint32_t *t;
    int refused = 0;

    (void) state;
    srand(7);

    for (round = 0; round < 20000; round++) {
        seq = (uint32_t) rand() % SEQS;
        if (rand() % 6 == 0) {
            assert_int_equal(kv_release(kv, seq), kv_blocks_for(kv, len[seq]));
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
            t = kv_table(kv, seq, &n);
            assert_int_equal(n, kv_blocks_for(kv, len[seq]));
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


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_grow_all_or_nothing),
        cmocka_unit_test(test_storm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
