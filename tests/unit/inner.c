/*
 * Would catch a lost wake-up between threads, a bell that wakes nobody or
 * always, a request state that may go anywhere, inner rings too small for
 * what their comment promises, and an allocation after the seal.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "bell.h"
#include "inner.h"
#include "mem.h"
#include "req.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PINGS 20000

typedef struct {
    bell_t bell;
    uint32_t value; /* atomic */
    uint32_t seen;  /* atomic */
} pair_t;


static void *
sleeper(void *arg)
{
    pair_t *p = arg;
    uint32_t seen = 0, v;

    while (seen < PINGS) {
        v = __atomic_load_n(&p->value, __ATOMIC_ACQUIRE);
        if (v != seen) {
            seen = v;
            __atomic_store_n(&p->seen, seen, __ATOMIC_RELEASE);
            continue;
        }
        bell_arm(&p->bell);
        if (__atomic_load_n(&p->value, __ATOMIC_ACQUIRE) != seen) {
            bell_stay(&p->bell);
            continue;
        }
        bell_wait(&p->bell, 10000);
    }

    return NULL;
}


static uint64_t
now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);

    return (uint64_t) t.tv_sec * 1000 + (uint64_t) t.tv_nsec / 1000000;
}


static void
test_no_lost_wakeup(void **state)
{
    pair_t p;
    pthread_t t;
    uint32_t i;
    uint64_t start, took;

    (void) state;
    memset(&p, 0, sizeof(p));
    assert_int_equal(bell_open(&p.bell), 0);
    assert_int_equal(pthread_create(&t, NULL, sleeper, &p), 0);

    for (i = 1; i <= PINGS; i++) {
        /* at once, or the sleeper is never met at the moment when it arms */
        __atomic_store_n(&p.value, i, __ATOMIC_RELEASE);
        bell_ring(&p.bell);
        start = now_ms();
        while (__atomic_load_n(&p.seen, __ATOMIC_ACQUIRE) != i) {
            /* a lost wake-up would show as ten seconds in poll, however busy
             * the machine is */
            took = now_ms() - start;
            if (took > 9000) {
                fail_msg("ring %u was lost", i);
            }
            if (took > 2) { /* the sleeper may want this processor */
                (void) sched_yield();
            }
        }
    }

    pthread_join(t, NULL);
    bell_close(&p.bell);
}


static void
test_timeout(void **state)
{
    bell_t b;
    uint64_t start = now_ms();

    (void) state;
    assert_int_equal(bell_open(&b), 0);
    bell_ring(&b); /* nobody sleeps: must leave nothing behind */
    bell_arm(&b);
    bell_wait(&b, 50);
    assert_true(now_ms() - start >= 49);
    bell_close(&b);
}


/* Runs f in a child and returns whether it died of an assertion. */
static int
aborts(void (*f)(void *), void *arg)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        signal(SIGABRT, SIG_DFL);
        fclose(stderr);
        f(arg);
        _exit(0);
    }
    waitpid(pid, &status, 0);

    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}


static void
illegal(void *arg)
{
    req_t *r = arg;

    req_set_state(r, REQ_RUNNING);
}


static void
test_states(void **state)
{
    static req_t r;

    (void) state;
    req_set_state(&r, REQ_TEXT);
    req_set_state(&r, REQ_WAITING);
    req_set_state(&r, REQ_RUNNING);
    req_set_state(&r, REQ_WAITING);
    req_set_state(&r, REQ_RUNNING);
    req_set_state(&r, REQ_ENDING);
    assert_string_equal(req_state_name(r.state), "ENDING");
    assert_true(aborts(illegal, &r));
    req_set_state(&r, REQ_FREE);
    assert_true(aborts(illegal, &r));
}


static void
test_inner_capacity(void **state)
{
    static llm_state_t page;
    inner_t *in = inner_open(100, &page);
    uint32_t i, round;
    uint8_t buf[512];
    llm_ring_hdr_t *h;

    (void) state;
    assert_non_null(in);

    /* start at all offsets: the wrap must not cost a promised place */
    for (round = 0; round < 300; round++) {
        for (i = 0; i < 100 * LLM_CHOICES_MAX; i++) {
            h = llm_ring_reserve(
                &in->out_loop.in, sizeof(req_msg_verdict_t), 0);
            assert_non_null(h);
            h->type = REQ_MSG_VERDICT;
            llm_ring_commit(&in->out_loop.in);
        }
        while (llm_ring_peek(&in->out_loop.out, buf, sizeof(buf)) > 0) {
            llm_ring_advance(&in->out_loop.out);
        }
    }

    inner_close(in);
    assert_int_equal(mem_total(), 0);
}


static void
sealed(void *arg)
{
    (void) arg;
    mem_seal();
    (void) mem_zero(1, 1);
}


static void
test_mem(void **state)
{
    char *p = mem_zero(3, 5000);
    size_t i;

    (void) state;
    assert_non_null(p);
    assert_int_equal((uintptr_t) p % 64, 0);
    for (i = 0; i < 15000; i++) {
        assert_int_equal(p[i], 0);
    }
    mem_free(p);
    mem_free(NULL);
    assert_int_equal(mem_total(), 0);
    assert_null(mem_zero(SIZE_MAX / 2, 3));
    assert_true(aborts(sealed, NULL));
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_lost_wakeup),
        cmocka_unit_test(test_timeout),
        cmocka_unit_test(test_states),
        cmocka_unit_test(test_inner_capacity),
        cmocka_unit_test(test_mem),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
