/*
 * Would catch: a part that is run twice, not at all or after cpu_run has
 * returned, by a worker that was late for its job; a scratch number that two
 * threads share; a sleeper that nobody wakes; a caller that burns a processor
 * while others work; a thread that is not where it was told to be.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "cpu/cpu.h"
#include "cpu/pool.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PARTS_MAX 300
#define THREADS   4
#define LARGE     (1ull << 40) /* a cost that is worth threads */

static const kn_open_t anywhere;

typedef struct {
    uint32_t round;
    uint32_t ran[PARTS_MAX]; /* atomic: the round that it ran in */
    uint32_t busy[THREADS];  /* atomic: is the worker in a part? */
    uint32_t wrong;          /* atomic */
    uint32_t others;         /* atomic: parts not run by the caller */
} job_t;

static void
part(void *arg, uint32_t i, uint32_t worker)
{
    volatile uint32_t spin;
    job_t *j = arg;

    if (worker >= THREADS
        || __atomic_exchange_n(&j->busy[worker], 1, __ATOMIC_RELAXED) != 0
        || __atomic_exchange_n(&j->ran[i], j->round, __ATOMIC_RELAXED)
               == j->round) {
        __atomic_store_n(&j->wrong, 1, __ATOMIC_RELAXED);
        return;
    }

    if (worker != 0) {
        __atomic_fetch_add(&j->others, 1, __ATOMIC_RELAXED);
    }

    for (spin = 0; spin < (i * 7919 + j->round) % 200; spin++) {
    }

    __atomic_store_n(&j->busy[worker], 0, __ATOMIC_RELAXED);
}

static void
each_part_once(void **state)
{
    uint32_t i, parts;
    kn_dev_t dev;
    static job_t j;

    (void) state;
    memset(&dev, 0, sizeof(dev));
    dev.threads = THREADS;
    dev.pool = cpu_pool_open(THREADS, &anywhere);
    assert_non_null(dev.pool);

    for (j.round = 1; j.round <= 20000; j.round++) {
        parts = 1 + j.round * 31 % (j.round % 5 == 0 ? PARTS_MAX : 8);
        cpu_run(&dev, parts, LARGE, part, &j);

        for (i = 0; i < parts; i++) {
            assert_int_equal(j.ran[i], j.round);
        }

        assert_int_equal(j.wrong, 0);
    }

    assert_true(j.others > 0);
    cpu_pool_close(dev.pool);
}

/* Long enough between jobs for every worker to fall asleep. */
static void
sleepers_wake(void **state)
{
    kn_dev_t dev;
    static job_t j;
    struct timespec pause = {0, 3000000};

    (void) state;
    memset(&dev, 0, sizeof(dev));
    dev.threads = THREADS;
    dev.pool = cpu_pool_open(THREADS, &anywhere);
    assert_non_null(dev.pool);

    for (j.round = 1; j.round <= 50; j.round++) {
        nanosleep(&pause, NULL);
        cpu_run(&dev, PARTS_MAX, LARGE, part, &j);
        assert_int_equal(j.wrong, 0);
    }

    cpu_pool_close(dev.pool);
}

/* An idle pool burns nothing. */
static void
idle_is_idle(void **state)
{
    kn_dev_t dev;
    static job_t j;
    struct timespec pause = {0, 300000000}, a, b;
    int64_t ns;

    (void) state;
    memset(&dev, 0, sizeof(dev));
    dev.threads = THREADS;
    dev.pool = cpu_pool_open(THREADS, &anywhere);
    assert_non_null(dev.pool);
    j.round = 1;
    cpu_run(&dev, PARTS_MAX, LARGE, part, &j);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
    nanosleep(&pause, NULL);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
    ns = (b.tv_sec - a.tv_sec) * 1000000000ll + b.tv_nsec - a.tv_nsec;
    assert_true(ns < 100000000);
    cpu_pool_close(dev.pool);
}

/* Small work stays with the caller. */
static void
small_is_alone(void **state)
{
    kn_dev_t dev;
    static job_t j;

    (void) state;
    memset(&dev, 0, sizeof(dev));
    dev.threads = THREADS;
    dev.pool = cpu_pool_open(THREADS, &anywhere);
    assert_non_null(dev.pool);

    for (j.round = 1; j.round <= 100; j.round++) {
        cpu_run(&dev, PARTS_MAX, 1000, part, &j);
        assert_int_equal(j.ran[PARTS_MAX - 1], j.round);
    }

    assert_int_equal(j.wrong, 0);
    assert_int_equal(j.others, 0);
    cpu_run(&dev, 0, LARGE, part, &j);
    cpu_pool_close(dev.pool);
}

typedef struct {
    uint32_t started;    /* atomic: another has a part */
    struct timespec end; /* of the caller's own, by the caller's clock */
} slow_t;

/* One part for the caller, which waits for the other to be under way. */
static void
slow_part(void *arg, uint32_t i, uint32_t worker)
{
    slow_t *s = arg;
    struct timespec pause = {0, 60000000};

    (void) i;

    if (worker != 0) {
        __atomic_store_n(&s->started, 1, __ATOMIC_RELEASE);
        nanosleep(&pause, NULL);
        return;
    }

    while (__atomic_load_n(&s->started, __ATOMIC_ACQUIRE) == 0) {
        sched_yield();
    }

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &s->end);
}

/* Waiting for a part that takes long burns nothing, and ends. */
static void
caller_sleeps(void **state)
{
    kn_dev_t dev;
    struct timespec now;
    uint32_t i;
    int64_t ns;
    slow_t s;

    (void) state;
    memset(&dev, 0, sizeof(dev));
    dev.threads = 2;
    dev.pool = cpu_pool_open(2, &anywhere);
    assert_non_null(dev.pool);

    for (ns = 0, i = 0; i < 5; i++) {
        memset(&s, 0, sizeof(s));
        cpu_run(&dev, 2, LARGE, slow_part, &s);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
        ns += (now.tv_sec - s.end.tv_sec) * 1000000000ll + now.tv_nsec
              - s.end.tv_nsec;
    }

    assert_true(ns < 5 * 30000000);
    cpu_pool_close(dev.pool);
}

typedef struct {
    int cpu;
    uint32_t wrong, others; /* atomic */
} place_t;

static void
placed_part(void *arg, uint32_t i, uint32_t worker)
{
    place_t *p = arg;
    cpu_set_t set;

    (void) i;

    if (worker == 0) {
        return;
    }

    __atomic_fetch_add(&p->others, 1, __ATOMIC_RELAXED);

    if (sched_getaffinity(0, sizeof(set), &set) != 0 || CPU_COUNT(&set) != 1
        || !CPU_ISSET(p->cpu, &set)) {
        __atomic_store_n(&p->wrong, 1, __ATOMIC_RELAXED);
    }
}

static void
workers_stay(void **state)
{
    uint32_t cpu, n;
    kn_open_t o = {.cpus = &cpu, .cpus_n = 1};
    kn_dev_t dev;
    cpu_set_t set;
    place_t p;

    (void) state;
    assert_int_equal(sched_getaffinity(0, sizeof(set), &set), 0);

    for (cpu = 0; !CPU_ISSET(cpu, &set); cpu++) { /* there is one */
    }

    memset(&p, 0, sizeof(p));
    p.cpu = (int) cpu;
    memset(&dev, 0, sizeof(dev));
    dev.threads = THREADS;
    dev.pool = cpu_pool_open(THREADS, &o);
    assert_non_null(dev.pool);

    for (n = 0; n < 100000 && __atomic_load_n(&p.others, __ATOMIC_RELAXED) < 20;
         n++) {
        cpu_run(&dev, PARTS_MAX, LARGE, placed_part, &p);
    }

    assert_int_equal(p.wrong, 0);
    assert_true(p.others >= 20);
    cpu_pool_close(dev.pool);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_part_once),
        cmocka_unit_test(sleepers_wake),
        cmocka_unit_test(idle_is_idle),
        cmocka_unit_test(small_is_alone),
        cmocka_unit_test(caller_sleeps),
        cmocka_unit_test(workers_stay),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
