/*
 * Catches a step-time model that does not find a device's line, knee or
 * change of speed, overshoots the target, runs away on steps that all look
 * alike or on absurd times, or breaks the tile rule.
 */
#include "sched_pace.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A device: us for a load. */
typedef struct {
    double base, knee, token, read, pair, noise;
} device_t;


static double
takes(const device_t *d, const sched_load_t *l)
{
    double us = d->base + d->read * l->reads + d->pair * l->pairs;

    us += l->tokens > d->knee ? d->token * (l->tokens - d->knee) : 0;

    return us * (1 + d->noise * (2.0 * rand() / RAND_MAX - 1));
}


/* Steps as the scheduler makes them; how many were over 1.2 times the target
 * after the first, and the mean length of the others over the target. */
static uint32_t
drive(sched_pace_t *p, const device_t *d, uint32_t steps, double *use)
{
    uint32_t i, k, rows, q, start = 0, over = 0, n = 0;
    sched_load_t l;
    double us, sum = 0;

    for (i = 0; i < steps; i++) {
        memset(&l, 0, sizeof(l));
        rows = 1 + (i / 50) % 40;
        for (k = 0; k < rows; k++) {
            sched_load_row(&l, 200 + 37 * k, 1);
        }
        q = 0;
        if (i % 5 != 4) { /* a prompt of 8000 tokens, again and again */
            q = sched_pace_room(p, &l, start, 4096);
            assert_true(q <= 4096);
            assert_true(q == 4096 || q == 0
                        || (uint32_t) (l.tokens + q) % p->tile == 0);
            if (q > 0) {
                sched_load_row(&l, start, q);
                start = start + q < 8000 ? start + q : 0;
            }
        }
        us = takes(d, &l);
        over += i >= 100 && us > 1.2 * p->target_us;
        if (q > 0 && q < 4096 && i >= 100) {
            sum += us / p->target_us;
            n++;
        }
        sched_pace_took(p, &l, us);
    }
    *use = n > 0 ? sum / n : 0;

    return over;
}


static void
test_devices(void **state)
{
    static const device_t devices[] = {
        {2000, 0, 50, 0.01, 0.001, 0},       /* a line */
        {11000, 200, 60, 0.08, 0.004, 0.05}, /* with a knee */
        {5000, 0, 400, 0.3, 0.02, 0.1},      /* slow, and noisy */
        {8000, 448, 20, 0.02, 0, 0.03},
    };
    sched_pace_t p;
    uint32_t i, over;
    double use;

    (void) state;
    srand(3);
    for (i = 0; i < 4; i++) {
        sched_pace_init(&p, 50000, i % 2 ? 64 : 1);
        over = drive(&p, &devices[i], 3000, &use);
        if (over > 15 || use < 0.7 || use > 1.1) {
            fail_msg("device %u: %u over, %.2f of the target", i, over, use);
        }
        assert_true(p.fits[p.best].miss < 0.2);
    }
}


/* The machine becomes three times slower, and fast again. */
static void
test_change(void **state)
{
    device_t d = {2000, 0, 50, 0.01, 0.001, 0.02};
    sched_pace_t p;
    double use;

    (void) state;
    srand(4);
    sched_pace_init(&p, 40000, 16);
    assert_true(drive(&p, &d, 1500, &use) < 10);
    d.base *= 3;
    d.token *= 3;
    (void) drive(&p, &d, 1500, &use);
    assert_true(drive(&p, &d, 1000, &use) < 10);
    assert_true(use > 0.7);
    d.base /= 3;
    d.token /= 3;
    (void) drive(&p, &d, 1500, &use);
    assert_true(drive(&p, &d, 1000, &use) < 10);
    assert_true(use > 0.7);
}


/* It begins small, whatever it is asked. */
static void
test_start(void **state)
{
    sched_load_t l = {4, 4000, 0};
    sched_pace_t p;
    uint32_t q, last = 0;
    int i;

    (void) state;
    sched_pace_init(&p, 1000000, 16);
    for (i = 0; i < 18; i++) {
        q = sched_pace_room(&p, &l, 0, 100000);
        assert_true(q > 0 && (last == 0 || q <= 2 * (last + 4)));
        last = q;
        sched_load_t step = l;
        sched_load_row(&step, 0, q);
        sched_pace_took(&p, &step, 1000 + 10 * step.tokens);
    }
    assert_true(last > 10000);
}


/* Nothing finite goes in that makes anything but finite numbers come out. */
static void
test_absurd(void **state)
{
    static const double times[] = {0, 1, 1e15, 3, 1e-9, 5e4};
    sched_load_t l;
    sched_pace_t p;
    uint32_t i, q;
    double us;

    (void) state;
    sched_pace_init(&p, 50000, 256);
    for (i = 0; i < 5000; i++) {
        memset(&l, 0, sizeof(l));
        sched_load_row(&l, i % 7 == 0 ? UINT32_MAX / 2 : 5, 1);
        q = sched_pace_room(&p, &l, UINT32_MAX / 2, UINT32_MAX / 4);
        assert_true(q <= UINT32_MAX / 4);
        sched_pace_took(&p, &l, times[i % 6]);
        us = sched_pace_guess(&p, &l);
        assert_true(isfinite(us) && us >= 0);
    }
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_devices),
        cmocka_unit_test(test_change),
        cmocka_unit_test(test_start),
        cmocka_unit_test(test_absurd),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
