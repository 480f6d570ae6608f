/*
 * Catches an estimate of outputs that forgets to look at what is known, is
 * over the bound or nothing, and a peak of blocks that is not the highest
 * point of what the sequences hold.
 */
#include "sched_guess.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>


static void
test_learns(void **state)
{
    sched_guess_t g;
    uint32_t i, more;

    (void) state;
    memset(&g, 0, sizeof(g));
    assert_int_equal(sched_guess_more(&g, 0, 20), 20);
    assert_int_equal(sched_guess_more(&g, 0, 100000), 256);

    /* nine of ten end at 100, one at 2000 */
    for (i = 0; i < 400; i++) {
        sched_guess_ended(&g, i % 10 == 9 ? 2000 : 100);
    }
    more = sched_guess_more(&g, 0, 100000);
    assert_true(more > 260 && more < 320); /* 290 on average */
    more = sched_guess_more(&g, 300, 100000);
    assert_true(more > 1650 && more < 1750);
    assert_int_equal(sched_guess_more(&g, 300, 50), 50);

    /* what is longer than any was still has an end */
    assert_int_equal(sched_guess_more(&g, 5000, 100000), 5001);
    assert_int_equal(sched_guess_more(&g, 5000, 7), 7);
    assert_true(sched_guess_more(&g, 2001, 100000) >= 100);

    /* and all that is forgotten */
    for (i = 0; i < 3000; i++) {
        sched_guess_ended(&g, 10);
    }
    more = sched_guess_more(&g, 0, 100000);
    assert_true(more >= 10 && more <= 12);
    sched_guess_ended(&g, UINT32_MAX);
    assert_true(sched_guess_more(&g, 0, UINT32_MAX) > 0);
}


/* The peak by going through every moment. */
static uint64_t
slow_peak(const sched_future_t *f, uint32_t n, uint32_t bt)
{
    uint64_t sum, most = 0;
    uint32_t t, i;

    for (t = 0; t <= 400; t++) {
        sum = 0;
        for (i = 0; i < n; i++) {
            sum += f[i].more >= t ? f[i].blocks + t / bt + 1 : 0;
        }
        most = sum > most ? sum : most;
    }

    return most;
}


static void
test_peak(void **state)
{
    sched_future_t f[20], v;
    uint32_t i, n, round;

    (void) state;
    srand(5);
    assert_int_equal(sched_guess_peak(f, 0, 16), 0);
    for (round = 0; round < 500; round++) {
        n = 1 + (uint32_t) rand() % 20;
        for (i = 0; i < n; i++) {
            v.blocks = (uint32_t) rand() % 30;
            v.more = (uint32_t) rand() % 400;
            sched_guess_put(f, i, v);
        }
        for (i = 1; i < n; i++) {
            assert_true(f[i - 1].more <= f[i].more);
        }
        assert_int_equal(sched_guess_peak(f, n, 16), slow_peak(f, n, 16));
    }
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_learns),
        cmocka_unit_test(test_peak),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
