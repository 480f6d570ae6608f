/*
 * The CPU back end's thread pool: one job at a time, cut into numbered parts.
 *
 * DESIGN.  The job's generation and how many of its parts are unclaimed are
 * one 64-bit word, the ticket:
 *
 *      63        32 31         0
 *     | generation | unclaimed  |
 *
 * Parts are claimed from the last to the first, so that a finished job always
 * reads 0 and nothing but the ticket says whether there is work.
 *
 * A worker reads the ticket, then the job's fields, then claims a part by
 * compare and exchange of the ticket.  Success proves that the fields were
 * this generation's: they are rewritten only after all parts of the old job
 * are done, so after all were claimed, when no exchange on the old generation
 * can succeed any more.  So a worker that was late or asleep need not be
 * waited for, and a small job never pays for threads that did not take part.
 *
 * A worker with nothing to do spins a little, because the ops of a step follow
 * each other within microseconds, then sleeps on a futex; an idle engine burns
 * nothing.  The caller works too and then waits for the parts that others
 * hold, in the same way: where another process has taken a worker's processor
 * in the middle of a part, the caller's goes idle, and the system moves the
 * worker there unless it is bound to its own.
 *
 * Orders.  publish: fields, then ticket (release).  claim: ticket (acquire),
 * fields, exchange (acquire, release: reads stay above it).  done: add
 * (release) after the part's work, read (acquire) by the caller.  Sleep: the
 * worker raises sleepers, then the kernel compares bell; the caller bumps
 * bell, then reads sleepers; all sequentially consistent, so one of them sees
 * the other.  The caller's sleep is the same, with waits and done.
 *
 * A pool belongs to one device, and one thread calls cpu_run.
 */
#include "cpu.h"
#include "pool.h"

#include <assert.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Looks at the ticket before sleeping: some tens of microseconds. */
#define SPINS 1500

/* Multiply-adds that a second thread must bring: what waking it costs. */
#define COST_MIN 250000

typedef void (*part_fn)(void *arg, uint32_t part, uint32_t worker);

typedef struct {
    struct cpu_pool_s *pool;
    uint32_t worker;
    pthread_t thread;
} worker_t;

struct cpu_pool_s {
    uint64_t ticket; /* atomic */
    char pad1[56];
    uint32_t done;  /* atomic, futex: parts that have ended */
    uint32_t waits; /* atomic: does the caller sleep on it? */
    char pad2[56];
    part_fn fn; /* atomic, as is arg: a late reader may be there */
    void *arg;
    uint32_t bell;     /* atomic, futex: bumped by each job */
    uint32_t sleepers; /* atomic */
    uint32_t stop;     /* atomic */
    uint32_t workers_n;
    worker_t *workers; /* [workers_n], owned */
};

static inline void
relax(void)
{
    __builtin_ia32_pause();
}

static void
futex_wait(uint32_t *word, uint32_t value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void
futex_wake(uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/*
 * Claims and runs one part of the job there is. 0 when there is none to claim.
 */
static int
run_part(cpu_pool_t *p, uint32_t worker)
{
    uint64_t ticket;
    part_fn fn;
    void *arg;

    ticket = __atomic_load_n(&p->ticket, __ATOMIC_ACQUIRE);

    do {
        if ((uint32_t) ticket == 0) {
            return 0;
        }

        fn = __atomic_load_n(&p->fn, __ATOMIC_RELAXED);
        arg = __atomic_load_n(&p->arg, __ATOMIC_RELAXED);
    } while (!__atomic_compare_exchange_n(&p->ticket, &ticket, ticket - 1, 0,
        __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));

    fn(arg, (uint32_t) ticket - 1, worker);
    __atomic_fetch_add(&p->done, 1, __ATOMIC_SEQ_CST);

    /* late, and of another job's caller by then, it wakes for nothing */
    if (__atomic_load_n(&p->waits, __ATOMIC_SEQ_CST) != 0) {
        futex_wake(&p->done);
    }

    return 1;
}

/* Is there a part to claim?  A wrong yes costs one failed claim. */
static int
has_work(const cpu_pool_t *p)
{
    return (uint32_t) __atomic_load_n(&p->ticket, __ATOMIC_ACQUIRE) != 0;
}

/* Returns when there may be work, or at the end. */
static void
wait_for_work(cpu_pool_t *p)
{
    uint32_t i, bell;

    bell = __atomic_load_n(&p->bell, __ATOMIC_SEQ_CST);

    for (i = 0; i < SPINS; i++) {
        if (has_work(p) || __atomic_load_n(&p->stop, __ATOMIC_ACQUIRE)) {
            return;
        }

        relax();
    }

    __atomic_fetch_add(&p->sleepers, 1, __ATOMIC_SEQ_CST);
    futex_wait(&p->bell, bell);
    __atomic_fetch_sub(&p->sleepers, 1, __ATOMIC_SEQ_CST);
}

static void *
worker_main(void *arg)
{
    worker_t *w = arg;

    while (!__atomic_load_n(&w->pool->stop, __ATOMIC_ACQUIRE)) {
        if (!run_part(w->pool, w->worker)) {
            wait_for_work(w->pool);
        }
    }

    return NULL;
}

static void
ring(cpu_pool_t *p)
{
    __atomic_fetch_add(&p->bell, 1, __ATOMIC_SEQ_CST);

    if (__atomic_load_n(&p->sleepers, __ATOMIC_SEQ_CST) != 0) {
        futex_wake(&p->bell);
    }
}

/* 0, or the error's number. */
static int
start(worker_t *w, const kn_open_t *o)
{
    int rc;
    cpu_set_t set;
    pthread_attr_t attr;

    if (pthread_attr_init(&attr) != 0) {
        return -1;
    }

    rc = 0;

    if (o->cpus_n > 0) {
        CPU_ZERO(&set);
        CPU_SET(o->cpus[w->worker % o->cpus_n], &set);
        rc = pthread_attr_setaffinity_np(&attr, sizeof(set), &set);
    }

    if (rc == 0) {
        rc = pthread_create(&w->thread, &attr, worker_main, w);
    }

    (void) pthread_attr_destroy(&attr);

    return rc;
}

cpu_pool_t *
cpu_pool_open(uint32_t threads, const kn_open_t *o)
{
    uint32_t i;
    cpu_pool_t *p;

    assert(threads >= 1);
    p = calloc(1, sizeof(*p));

    if (p == NULL) {
        return NULL;
    }

    p->workers = calloc(threads, sizeof(*p->workers));

    if (p->workers == NULL) {
        free(p);
        return NULL;
    }

    for (i = 0; i + 1 < threads; i++) {
        p->workers[i].pool = p;
        p->workers[i].worker = i + 1;

        if (start(&p->workers[i], o) != 0) {
            cpu_pool_close(p);
            return NULL;
        }

        p->workers_n++;
    }

    return p;
}

void
cpu_pool_close(cpu_pool_t *p)
{
    uint32_t i;

    if (p == NULL) {
        return;
    }

    __atomic_store_n(&p->stop, 1, __ATOMIC_SEQ_CST);
    ring(p);

    for (i = 0; i < p->workers_n; i++) {
        pthread_join(p->workers[i].thread, NULL);
    }

    free(p->workers);
    free(p);
}

/* Returns when so many parts have ended, all of them being claimed. */
static void
wait_for_end(cpu_pool_t *p, uint32_t parts)
{
    uint32_t i, done;

    for (i = 0; i < SPINS; i++) {
        if (__atomic_load_n(&p->done, __ATOMIC_ACQUIRE) == parts) {
            return;
        }

        relax();
    }

    __atomic_store_n(&p->waits, 1, __ATOMIC_SEQ_CST);

    while ((done = __atomic_load_n(&p->done, __ATOMIC_SEQ_CST)) != parts) {
        assert(done < parts);
        futex_wait(&p->done, done);
    }

    __atomic_store_n(&p->waits, 0, __ATOMIC_RELAXED);
}

void
cpu_run(kn_dev_t *dev, uint32_t parts, uint64_t cost, part_fn fn, void *arg)
{
    uint32_t i;
    uint64_t generation;
    cpu_pool_t *p = dev->pool;

    assert(p->workers_n < dev->threads);
    assert((uint32_t) __atomic_load_n(&p->ticket, __ATOMIC_RELAXED) == 0);

    if (parts <= 1 || p->workers_n == 0 || cost < 2 * COST_MIN) {
        for (i = 0; i < parts; i++) {
            fn(arg, i, 0);
        }

        return;
    }

    /* every part of the last job is done, so nobody can claim any */
    generation = (__atomic_load_n(&p->ticket, __ATOMIC_RELAXED) >> 32) + 1;
    __atomic_store_n(&p->done, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&p->fn, fn, __ATOMIC_RELAXED);
    __atomic_store_n(&p->arg, arg, __ATOMIC_RELAXED);
    __atomic_store_n(&p->ticket, generation << 32 | parts, __ATOMIC_RELEASE);
    ring(p);

    while (run_part(p, 0)) {
    }

    wait_for_end(p, parts);
}
