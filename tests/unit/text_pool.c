/*
 * Would catch a job that is lost or done twice, a finished job that wakes
 * nobody, one tenant's jobs on all threads while another's wait, and a close
 * that hangs on jobs still queued.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "text_pool.h"

#include <string.h>
#include <unistd.h>

#define JOBS 500

typedef struct {
    bell_t bell;
    text_pool_t *pool;
    uint32_t did[JOBS];   /* times each job was done */
    uint32_t order[JOBS]; /* jobs as they were begun */
    uint32_t begun;       /* atomic */
    uint32_t hold[2];     /* atomic: jobs 0 and 1 wait while it is set */
} rig_t;


static void
run(void *arg, uint32_t thread, uint32_t job)
{
    rig_t *g = arg;

    assert_true(thread < 2);
    g->order[__atomic_fetch_add(&g->begun, 1, __ATOMIC_ACQ_REL)] = job;
    while (job < 2 && __atomic_load_n(&g->hold[job], __ATOMIC_ACQUIRE)) {
        (void) usleep(100);
    }
    g->did[job]++;
}


static void
rig_open(rig_t *g)
{
    text_pool_cfg_t c;

    memset(g, 0, sizeof(*g));
    assert_int_equal(bell_open(&g->bell), 0);
    memset(&c, 0, sizeof(c));
    c.jobs_max = JOBS;
    c.threads = 2;
    c.run = run;
    c.arg = g;
    c.bell = &g->bell;
    g->pool = text_pool_open(&c);
    assert_non_null(g->pool);
}


/* Waits for the next finished job as text_in does. */
static uint32_t
take(rig_t *g)
{
    uint32_t job;
    int i;

    for (i = 0; i < 10; i++) {
        bell_arm(&g->bell);
        if (text_pool_get(g->pool, &job)) {
            bell_stay(&g->bell);
            return job;
        }
        bell_wait(&g->bell, 1000);
    }
    fail();

    return 0;
}


static void
test_all(void **state)
{
    static rig_t g;
    uint32_t lap, i;

    (void) state;
    rig_open(&g);

    for (lap = 1; lap <= 5; lap++) {
        __atomic_store_n(&g.begun, 0, __ATOMIC_RELEASE);
        for (i = 0; i < JOBS; i++) {
            text_pool_put(g.pool, i, i % 7);
        }
        for (i = 0; i < JOBS; i++) {
            (void) take(&g);
        }
        assert_false(text_pool_ready(g.pool));
        for (i = 0; i < JOBS; i++) {
            assert_int_equal(g.did[i], lap);
        }
    }

    text_pool_close(g.pool);
    bell_close(&g.bell);
}


static void
test_fair(void **state)
{
    static rig_t g;
    uint32_t i;

    (void) state;
    rig_open(&g);

    /* both threads busy, one with tenant 1, who has many more; then 2 */
    g.hold[0] = g.hold[1] = 1;
    text_pool_put(g.pool, 0, 1);
    text_pool_put(g.pool, 1, 3);
    while (__atomic_load_n(&g.begun, __ATOMIC_ACQUIRE) < 2) {
        (void) usleep(100);
    }
    for (i = 2; i < JOBS - 1; i++) {
        text_pool_put(g.pool, i, 1);
    }
    text_pool_put(g.pool, JOBS - 1, 2);

    /* the thread that gets free takes tenant 2's, then the others in order */
    __atomic_store_n(&g.hold[1], 0, __ATOMIC_RELEASE);
    assert_int_equal(take(&g), 1);
    assert_int_equal(take(&g), JOBS - 1);
    for (i = 2; i < JOBS - 1; i++) {
        assert_int_equal(take(&g), i);
    }
    __atomic_store_n(&g.hold[0], 0, __ATOMIC_RELEASE);
    assert_int_equal(take(&g), 0);

    text_pool_close(g.pool);
    bell_close(&g.bell);
}


static void
test_close(void **state)
{
    static rig_t g;
    uint32_t i;

    (void) state;
    rig_open(&g);
    for (i = 0; i < JOBS; i++) {
        text_pool_put(g.pool, i, 0);
    }
    text_pool_close(g.pool);
    text_pool_close(NULL);
    bell_close(&g.bell);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all),
        cmocka_unit_test(test_fair),
        cmocka_unit_test(test_close),
    };

    return cmocka_run_group_tests_name("text_pool", tests, NULL, NULL);
}
