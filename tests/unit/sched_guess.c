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


typedef struct {
    uint32_t blocks, more;
} one_t;


/* The peak by going through every moment. */
static uint64_t
slow_peak(const one_t *f, uint32_t n, uint32_t bt)
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
    static sched_futures_t f;
    one_t v[20];
    uint32_t i, n, round;
    uint64_t peak, slow;

    (void) state;
    srand(5);
    assert_int_equal(sched_futures_peak(&f, 16), 0);
    for (round = 0; round < 500; round++) {
        memset(&f, 0, sizeof(f));
        n = 1 + (uint32_t) rand() % 20;
        for (i = 0; i < n; i++) {
            v[i].blocks = (uint32_t) rand() % 30;
            v[i].more = (uint32_t) rand() % 400;
            sched_futures_add(&f, v[i].blocks, v[i].more);
        }
        peak = sched_futures_peak(&f, 16);
        slow = slow_peak(v, n, 16);
        assert_true(peak >= slow);
        assert_true(peak <= slow + n * 400 / 4 / 16);

        /* who leaves leaves nothing behind but that caution */
        sched_futures_remove(&f, v[n - 1].blocks, v[n - 1].more);
        assert_true(sched_futures_peak(&f, 16) >= slow_peak(v, n - 1, 16));
    }

    /* alone it is exact */
    memset(&f, 0, sizeof(f));
    sched_futures_add(&f, 7, 159);
    assert_int_equal(sched_futures_peak(&f, 16), 7 + 159 / 16 + 1);
    sched_futures_add(&f, 1, UINT32_MAX);
    assert_true(sched_futures_peak(&f, 16) >= UINT32_MAX / 16);
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
