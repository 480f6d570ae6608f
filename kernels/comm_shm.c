/*
 * A group whose ranks are threads of one process.
 *
 * DESIGN.  Each rank puts the address of its buffer in the group and arrives;
 * the last to arrive knows that all buffers are there.  Then there are two
 * ways, chosen by size alone:
 *
 *      small   the last one does the work of all, in their buffers, and lets
 *              them go.  A rank sleeps and is woken once at most, which is
 *              what a small message costs where ranks share processors.
 *      large   the last one lets all go; each does its part; and they meet
 *              again before any leaves.
 *
 * No byte is copied twice, and no rank needs room for others.  In a large sum
 * rank r adds up slice r of all buffers and writes it to all of them: nobody
 * else reads or writes slice r, so it can be done in place.
 *
 * Waiting: a short bounded spin where there is a processor for each rank, then
 * a futex; with more ranks than processors the futex at once, as the one that
 * is waited for needs the processor.
 *
 * Orders.  arrive: buffers and address, then arrived (add, acquire and
 * release): the last sees all.  release: results, then turn (add).  wait: turn
 * (acquire), results.  Sleep: sleepers is raised, then the kernel compares
 * turn; the other side bumps turn, then reads sleepers; all sequentially
 * consistent, so one of them sees the other.
 *
 * Abort: the flag, then turn is bumped.  A rank that has seen the flag leaves
 * only when nobody works in others' buffers: busy is raised before the flag is
 * looked at, and the flag before busy, again sequentially consistent.
 *
 * The group is freed by the last rank that is closed.
 */
#include "comm.h"

#include <assert.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/*
 * Looks at the turn before sleeping: as long as a sleep takes, so that waiting
 * costs twice the least at most, also where others have the processors.
 */
#define SPINS 400

/* Bytes of all buffers together that one rank works through alone. */
#define SMALL (256u << 10)

/* Floats that are added up at a time: they stay in the first cache. */
#define PIECE 1024

#define WHY_MAX 256

typedef struct {
    comm_t c; /* first */
    struct group_s *group;
    char *buffer; /* of the call that there is */
    char pad[32];
} rank_t;

typedef struct group_s {
    uint32_t ranks, spins;
    char pad1[56];
    uint32_t arrived; /* atomic */
    char pad2[60];
    uint32_t turn;     /* atomic, futex: meetings that have ended */
    uint32_t sleepers; /* atomic */
    char pad3[56];
    uint32_t aborted; /* atomic: 0; 1, being told why; 2 */
    uint32_t busy;    /* atomic: ranks that work in others' buffers */
    uint32_t open;    /* atomic: ranks not closed */
    char why[WHY_MAX];
    rank_t rank[]; /* [ranks] */
} group_t;

/*
 * What a call wants done in the buffers: a part by each rank, none of which
 * reads or writes what another writes.
 */
typedef struct job_s {
    void (*part)(const group_t *g, const struct job_s *job, uint32_t rank);
    uint32_t root, width;
    uint64_t rows;
    uint64_t n; /* floats of a sum, bytes of a message */
} job_t;

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

static int
aborted(group_t *g)
{
    return __atomic_load_n(&g->aborted, __ATOMIC_SEQ_CST) != 0;
}

/* The rest of a call that fails: nobody is in our buffer any more after it. */
static int
leave(group_t *g)
{
    while (__atomic_load_n(&g->busy, __ATOMIC_SEQ_CST) != 0) {
        sched_yield(); /* it copies, and does not wait */
    }

    return -1;
}

/* The parts of ranks from to end - 1.  0, or -1: aborted. */
static int
work(group_t *g, const job_t *job, uint32_t from, uint32_t end)
{
    uint32_t i;
    int rc = 0;

    __atomic_fetch_add(&g->busy, 1, __ATOMIC_SEQ_CST);

    if (aborted(g)) {
        rc = -1;
    } else {
        for (i = from; i < end; i++) {
            job->part(g, job, i);
        }
    }

    __atomic_fetch_sub(&g->busy, 1, __ATOMIC_SEQ_CST);

    return rc == 0 ? 0 : leave(g);
}

/* A meeting ends, or all. */
static void
bump(group_t *g)
{
    __atomic_fetch_add(&g->turn, 1, __ATOMIC_SEQ_CST);

    if (__atomic_load_n(&g->sleepers, __ATOMIC_SEQ_CST) != 0) {
        futex_wake(&g->turn);
    }
}

/*
 * Waits until it is no longer turn `seen`.  0, or -1: aborted, by what may have
 * bumped the turn before it was seen.
 */
static int
wait_turn(group_t *g, uint32_t seen)
{
    uint32_t i;

    for (i = 0; i < g->spins; i++) {
        if (__atomic_load_n(&g->turn, __ATOMIC_ACQUIRE) != seen) {
            break;
        }

        __builtin_ia32_pause();
    }

    if (i == g->spins) {
        __atomic_fetch_add(&g->sleepers, 1, __ATOMIC_SEQ_CST);

        while (__atomic_load_n(&g->turn, __ATOMIC_SEQ_CST) == seen
               && !aborted(g)) {
            futex_wait(&g->turn, seen);
        }

        __atomic_fetch_sub(&g->sleepers, 1, __ATOMIC_SEQ_CST);
    }

    return aborted(g) ? leave(g) : 0;
}

/*
 * Meets all others; the last to come does `all` of them first, if there is
 * one.  0, or -1: aborted.
 */
static int
meet(group_t *g, const job_t *all)
{
    uint32_t turn = __atomic_load_n(&g->turn, __ATOMIC_ACQUIRE), n;

    n = __atomic_add_fetch(&g->arrived, 1, __ATOMIC_ACQ_REL);
    assert(n <= g->ranks);

    if (n < g->ranks) {
        return wait_turn(g, turn);
    }

    if (all != NULL && work(g, all, 0, g->ranks) != 0) {
        return -1;
    }

    __atomic_store_n(&g->arrived, 0, __ATOMIC_RELAXED);
    bump(g);

    return aborted(g) ? leave(g) : 0;
}

/* A call: bytes are those of all buffers together. */
static int
call(comm_t *c, const job_t *job, void *buffer, uint64_t bytes)
{
    rank_t *r = (rank_t *) c;
    group_t *g = r->group;

    if (aborted(g)) {
        return leave(g);
    }

    r->buffer = buffer;

    if (bytes <= SMALL) {
        return meet(g, job);
    }

    if (meet(g, NULL) != 0 || work(g, job, c->rank, c->rank + 1) != 0) {
        return -1;
    }

    return meet(g, NULL);
}

/* Slice `rank` of all buffers, whole cache lines but for the last. */
static void
sum_part(const group_t *g, const job_t *job, uint32_t rank)
{
    uint64_t lines = (job->n + 15) / 16, i, end, n, j;
    uint32_t r;
    const float *from;
    float t[PIECE];

    i = lines * rank / g->ranks * 16;
    end = lines * (rank + 1) / g->ranks * 16;
    end = end < job->n ? end : job->n;

    for (; i < end; i += n) {
        n = end - i < PIECE ? end - i : PIECE;
        memcpy(t, (const float *) g->rank[0].buffer + i, n * sizeof(float));

        for (r = 1; r < g->ranks; r++) {
            from = (const float *) g->rank[r].buffer + i;

            for (j = 0; j < n; j++) {
                t[j] += from[j];
            }
        }

        for (r = 0; r < g->ranks; r++) {
            memcpy((float *) g->rank[r].buffer + i, t, n * sizeof(float));
        }
    }
}

static int
shm_sum(comm_t *c, float *x, uint64_t n)
{
    job_t job = {.part = sum_part, .n = n};

    return call(c, &job, x, n * sizeof(float) * c->ranks);
}

/* The columns of `rank`, to whom they are wanted by. */
static void
gather_part(const group_t *g, const job_t *job, uint32_t rank)
{
    uint32_t r, at, n = comm_part(job->width, rank, g->ranks, &at);
    uint64_t row, i;

    for (r = 0; r < g->ranks; r++) {
        if (r == rank || (job->root != COMM_ALL && job->root != r)) {
            continue;
        }

        for (row = 0; row < job->rows; row++) {
            i = (row * job->width + at) * sizeof(float);
            memcpy(g->rank[r].buffer + i, g->rank[rank].buffer + i,
                n * sizeof(float));
        }
    }
}

static int
shm_gather(comm_t *c, uint32_t root, float *x, uint64_t rows, uint32_t width)
{
    job_t job = {
        .part = gather_part, .root = root, .width = width, .rows = rows};

    return call(c, &job, x, rows * width * sizeof(float));
}

static void
cast_part(const group_t *g, const job_t *job, uint32_t rank)
{
    if (rank != job->root) {
        memcpy(g->rank[rank].buffer, g->rank[job->root].buffer, job->n);
    }
}

static int
shm_cast(comm_t *c, uint32_t root, void *p, uint64_t bytes)
{
    job_t job = {.part = cast_part, .root = root, .n = bytes};

    return call(c, &job, p, bytes * (c->ranks - 1));
}

static int
shm_barrier(comm_t *c)
{
    group_t *g = ((rank_t *) c)->group;

    return aborted(g) ? leave(g) : meet(g, NULL);
}

static void
shm_abort(comm_t *c, const char *why)
{
    uint32_t none = 0;
    group_t *g = ((rank_t *) c)->group;

    if (!__atomic_compare_exchange_n(
            &g->aborted, &none, 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
        return;
    }

    snprintf(g->why, sizeof(g->why), "%s", why);
    __atomic_store_n(&g->aborted, 2, __ATOMIC_SEQ_CST);
    bump(g);
}

static const char *
shm_error(comm_t *c)
{
    uint32_t state;
    group_t *g = ((rank_t *) c)->group;

    while ((state = __atomic_load_n(&g->aborted, __ATOMIC_SEQ_CST)) == 1) {
        sched_yield(); /* it is being written */
    }

    return state == 0 ? NULL : g->why;
}

static void
shm_close(comm_t *c)
{
    group_t *g = ((rank_t *) c)->group;

    if (__atomic_sub_fetch(&g->open, 1, __ATOMIC_ACQ_REL) == 0) {
        free(g);
    }
}

int
comm_shm_open(uint32_t ranks, comm_t **c, char *err, size_t errlen)
{
    uint32_t i;
    group_t *g;
    static const comm_ops_t ops = {
        .sum = shm_sum,
        .gather = shm_gather,
        .cast = shm_cast,
        .barrier = shm_barrier,
        .abort = shm_abort,
        .error = shm_error,
        .close = shm_close,
    };

    assert(ranks > 0 && ranks <= COMM_RANKS_MAX);
    g = calloc(1, sizeof(*g) + ranks * sizeof(g->rank[0]));

    if (g == NULL) {
        snprintf(err, errlen, "group of %u ranks: not enough memory", ranks);
        return -1;
    }

    g->ranks = ranks;
    g->open = ranks;
    g->spins = ranks <= comm_processors() ? SPINS : 0;

    for (i = 0; i < ranks; i++) {
        g->rank[i].group = g;
        g->rank[i].c.ops = &ops;
        g->rank[i].c.rank = i;
        g->rank[i].c.ranks = ranks;
        c[i] = &g->rank[i].c;
    }

    return 0;
}
