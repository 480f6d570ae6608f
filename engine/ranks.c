/*
 * Ranks as threads of one process.
 *
 * DESIGN.  The loop knows one forward pass, rank 0's, and calls it as if there
 * were no other.  What that begins is told (forward_tell): a step goes to every
 * rank's thread, which runs it with its own part of the model; where they need
 * each other, in the midst of a step, they meet in the group (comm.h), rank 0
 * by the loop's thread.  So rank 0's step cannot end before the others have
 * done all that it needs of them.
 *
 *      loop, rank 0   submit ─> job ─> ops ... sum ... gather ─> sample
 *      rank 1              job ─> ops ... sum ... gather
 *      rank 2 ...          job ─> ops ... sum ... gather
 *
 * A job is one word, its number, that all threads wait for, and one that counts
 * who has done it; there is one at a time.  A step is copied, since the batch
 * may be reused when submit returns, and on a device that computes by itself a
 * rank may look at it later than that.  Copies of blocks are told and waited
 * for: rank 0 says of its own when the loop may use them, which must hold for
 * all.
 *
 * The next job waits for the last one's end in all ranks, which is near: after
 * the last meeting there is nothing left to do.
 *
 * Waiting is as in the group: a short bounded spin if each rank has a processor
 * to do it on, then a futex.
 *
 * Processors and threads are dealt out: a rank's own come one after another in
 * the list, its thread being on the first of them.
 *
 * Everything is owned and allocated when opened.
 */
#include "ranks.h"
#include "backend.h"
#include "mem.h"

#include <assert.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SPINS        400   /* as in comm_shm.c */
#define COPY_LOOK_NS 50000 /* between two looks at a copy */
#define CPUS_MAX     256   /* of a device, and its threads */
#define ERR_MAX      512

enum { JOB_OPEN, JOB_STEP, JOB_COPY, JOB_END };

typedef struct {
    struct ranks_s *all;
    uint32_t rank;
    comm_t *comm;
    kn_dev_t *dev;
    kn_open_t open;
    forward_t *forward;
    pthread_t thread;
    uint32_t started; /* 0, 1 */
    char err[ERR_MAX];
} rank_t;

struct ranks_s {
    ranks_cfg_t c;
    uint32_t spins;
    uint32_t job; /* atomic, futex: number of the job that there is */
    char pad1[60];
    uint32_t done;  /* atomic, futex: ranks that have done it, but rank 0 */
    uint32_t waits; /* atomic: does somebody sleep on it? */
    char pad2[56];
    int kind; /* JOB_*, with what it needs: */
    kn_step_t step;
    uint32_t *tokens, *blocks; /* owned */
    kn_row_t *rows;            /* owned */
    kn_out_t *outs;            /* owned */
    uint32_t blocks_max;
    int in; /* a copy's, borrowed while it lasts */
    const uint32_t *from, *to;
    uint32_t n;
    forward_held_t held;
    rank_t *rank; /* [c.ranks], owned */
};

/* Waits until *word is no longer value. */
static void
wait_for(uint32_t *word, uint32_t value, uint32_t spins)
{
    uint32_t i;

    for (i = 0; i < spins; i++) {
        if (__atomic_load_n(word, __ATOMIC_ACQUIRE) != value) {
            return;
        }

        __builtin_ia32_pause();
    }

    while (__atomic_load_n(word, __ATOMIC_SEQ_CST) == value) {
        syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
    }
}

static void
wake(uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* Waits until all have done their job. */
static void
join(ranks_t *r)
{
    uint32_t done, others = r->c.ranks - 1;

    __atomic_store_n(&r->waits, 1, __ATOMIC_SEQ_CST);

    while ((done = __atomic_load_n(&r->done, __ATOMIC_SEQ_CST)) != others) {
        assert(done < others);
        wait_for(&r->done, done, r->spins);
    }

    __atomic_store_n(&r->waits, 0, __ATOMIC_RELAXED);
}

/* Gives all another; the last one must have been joined. */
static void
post(ranks_t *r, int kind)
{
    assert(__atomic_load_n(&r->done, __ATOMIC_RELAXED) == r->c.ranks - 1);
    r->kind = kind;
    __atomic_store_n(&r->done, 0, __ATOMIC_RELAXED);
    __atomic_fetch_add(&r->job, 1, __ATOMIC_SEQ_CST);
    wake(&r->job);
}

/* --- a rank's thread ----------------------------------------------------- */

static void
open_rank(rank_t *k)
{
    ranks_t *r = k->all;
    forward_cfg_t shape = r->c.shape;
    kn_info_t device;

    assert(k->dev != NULL && k->forward == NULL);
    r->c.kn->info(k->dev, &device);
    if (r->c.comm == NULL) {
        shape.rank = k->rank;
        shape.ranks = r->c.ranks;
    }
    shape.comm = k->comm;
    k->forward = forward_open(
        r->c.kn, k->dev, r->c.model, &shape, k->err, sizeof(k->err));
    if (k->forward == NULL) {
        backend_short(r->c.kn, k->dev, device.left, r->c.model, &shape, k->err,
            sizeof(k->err));
        if (r->c.comm == NULL) {
            comm_abort(k->comm, k->err); /* they may wait to meet */
        }
    }
}

static void
copy(const rank_t *k)
{
    const struct timespec look = {0, COPY_LOOK_NS};
    const ranks_t *r = k->all;
    uint64_t nth = forward_copy(k->forward, r->in, r->from, r->to, r->n);

    while (forward_copied(k->forward, nth) == KN_COPY_RUNS) {
        (void) nanosleep(&look, NULL);
    }
}

static void *
rank_main(void *arg)
{
    rank_t *k = arg;
    ranks_t *r = k->all;
    uint32_t job = 0;
    int kind;

    do {
        wait_for(&r->job, job, r->spins);
        job++;
        assert(__atomic_load_n(&r->job, __ATOMIC_ACQUIRE) == job);
        kind = r->kind;

        switch (kind) {
        case JOB_OPEN:
            open_rank(k);
            break;

        case JOB_STEP:
            forward_follow(k->forward, &r->step);
            break;

        case JOB_COPY:
            copy(k);
        }

        __atomic_fetch_add(&r->done, 1, __ATOMIC_SEQ_CST);

        if (__atomic_load_n(&r->waits, __ATOMIC_SEQ_CST) != 0) {
            wake(&r->done);
        }
    } while (kind != JOB_END);

    return NULL;
}

/* --- what rank 0 begins -------------------------------------------------- */

#define COPY(to, from, n) memcpy((to), (from), (n) * sizeof(*(from)))

static void
tell_step(void *arg, const kn_step_t *s)
{
    ranks_t *r = arg;

    join(r);
    assert(s->blocks_n <= r->blocks_max && s->tokens_n > 0 && s->rows_n > 0);
    r->step = *s;
    COPY(r->tokens, s->tokens, s->tokens_n);
    COPY(r->rows, s->rows, s->rows_n);
    COPY(r->blocks, s->blocks, s->blocks_n);
    COPY(r->outs, s->outs, s->outs_n);
    r->step.tokens = r->tokens;
    r->step.rows = r->rows;
    r->step.blocks = r->blocks;
    r->step.outs = r->outs;
    post(r, JOB_STEP);
}

static void
tell_copy(
    void *arg, int in, const uint32_t *from, const uint32_t *to, uint32_t n)
{
    ranks_t *r = arg;

    assert(n > 0 && from != NULL && to != NULL);
    join(r);
    r->in = in;
    r->from = from;
    r->to = to;
    r->n = n;
    post(r, JOB_COPY);
    join(r);
}

/* --- open and close ------------------------------------------------------ */

/* Rank k's share of threads and processors. */
static void
share(rank_t *k)
{
    const ranks_cfg_t *c = &k->all->c;
    uint32_t at, n, threads = c->open.threads;

    if (threads == 0) {
        threads = c->open.cpus_n > 0 ? c->open.cpus_n : comm_processors();
        threads = threads < CPUS_MAX ? threads : CPUS_MAX;
    }

    assert(threads > 0 && k->rank < c->ranks);
    k->open = c->open;
    k->open.comm = k->comm;
    n = comm_part(threads, k->rank, c->ranks, &at);
    k->open.threads = n > 0 ? n : 1;

    if (c->open.cpus_n > 0) {
        n = comm_part(c->open.cpus_n, k->rank, c->ranks, &at);
        at = n > 0 ? at : k->rank % c->open.cpus_n;
        k->open.cpus = c->open.cpus + at;
        k->open.cpus_n = n > 0 ? n : 1;
    }
}

/* 0, or the error's number. */
static int
start(rank_t *k)
{
    int rc;
    cpu_set_t set;
    pthread_attr_t attr;

    if (pthread_attr_init(&attr) != 0) {
        return -1;
    }

    rc = 0;

    if (k->open.cpus_n > 0) {
        CPU_ZERO(&set);
        CPU_SET(k->open.cpus[0], &set);
        rc = pthread_attr_setaffinity_np(&attr, sizeof(set), &set);
    }

    if (rc == 0) {
        rc = pthread_create(&k->thread, &attr, rank_main, k);
    }

    (void) pthread_attr_destroy(&attr);
    k->started = rc == 0;

    return rc;
}

/* Devices and threads; 0, or -1 with one sentence. */
static int
open_devices(ranks_t *r, char *err, size_t errlen)
{
    uint32_t i;
    rank_t *k;
    comm_t *comm[RANKS_MAX];

    comm[0] = r->c.comm;
    if (r->c.comm == NULL
        && comm_shm_open(r->c.ranks, comm, err, errlen) != 0) {
        return -1;
    }

    for (i = 0; i < r->c.ranks; i++) {
        r->rank[i].comm = comm[i];
    }

    for (i = 0; i < r->c.ranks; i++) {
        k = &r->rank[i];
        k->all = r;
        k->rank = i;
        share(k);
        k->dev = r->c.kn->open(&k->open, err, errlen);

        if (k->dev == NULL) {
            return -1;
        }

        if (i > 0 && start(k) != 0) {
            snprintf(err, errlen, "cannot start a thread for rank %u", i);
            return -1;
        }
    }

    return 0;
}

/* What a step is copied to; 0, or -1 with one sentence. */
static int
open_step(ranks_t *r, char *err, size_t errlen)
{
    kv_cfg_t kc;
    const forward_cfg_t *s = &r->c.shape;

    /* forward_open says if that is too much */
    forward_kv(s, s->rows_max, &kc);
    r->blocks_max =
        (uint32_t) ((uint64_t) kv_blocks_for(&kc, s->context) * s->rows_max);
    r->tokens = mem_zero(s->tokens_max, sizeof(*r->tokens));
    r->rows = mem_zero(s->rows_max, sizeof(*r->rows));
    r->outs = mem_zero(s->outs_max, sizeof(*r->outs));
    r->blocks = mem_zero(r->blocks_max, sizeof(*r->blocks));

    if (r->tokens == NULL || r->rows == NULL || r->outs == NULL
        || r->blocks == NULL) {
        snprintf(err, errlen, "ranks: not enough memory");
        return -1;
    }

    return 0;
}

static void
add_held(forward_held_t *all, const forward_held_t *h, int first)
{
    uint32_t i;

    assert(h->rounded <= h->converted);

    for (i = 0; i < KN_TYPES; i++) {
        all->weights[i].bytes += h->weights[i].bytes;
        all->weights[i].n += first ? h->weights[i].n : 0;
    }

    all->converted += h->converted;
    all->rounded += h->rounded;
    all->kv += h->kv;
    all->host += h->host;
    all->acts += h->acts;
}

/* The passes, all at once; 0, or -1 with the first rank's sentence. */
static int
open_passes(ranks_t *r, char *err, size_t errlen)
{
    uint32_t i;

    post(r, JOB_OPEN);
    open_rank(&r->rank[0]);
    join(r);

    for (i = 0; i < r->c.ranks; i++) {
        if (r->rank[i].forward == NULL) {
            snprintf(err, errlen, "%s", r->rank[i].err);
            return -1;
        }

        add_held(&r->held, forward_held(r->rank[i].forward), i == 0);
    }

    return 0;
}

ranks_t *
ranks_open(const ranks_cfg_t *c, char *err, size_t errlen)
{
    ranks_t *r = mem_zero(1, sizeof(*r));
    forward_tell_t tell = {tell_step, tell_copy, r};

    assert(c->ranks >= 1 && c->ranks <= RANKS_MAX);
    assert(c->comm == NULL || (c->ranks == 1 && c->shape.comm == c->comm));

    if (r != NULL) {
        r->c = *c;
        r->spins = c->ranks <= comm_processors() ? SPINS : 0;
        r->done = c->ranks - 1;
        r->rank = mem_zero(c->ranks, sizeof(*r->rank));
    }

    if (r == NULL || r->rank == NULL) {
        snprintf(err, errlen, "ranks: not enough memory");
        ranks_close(r);
        return NULL;
    }

    if (open_devices(r, err, errlen) != 0 || open_step(r, err, errlen) != 0
        || open_passes(r, err, errlen) != 0) {
        ranks_close(r);
        return NULL;
    }

    if (c->ranks > 1) {
        forward_tell(r->rank[0].forward, &tell);
    }

    return r;
}

/* Ends those threads that were started. */
static void
end_threads(ranks_t *r)
{
    uint32_t i, n = 0;

    for (i = 1; i < r->c.ranks; i++) {
        n += r->rank[i].started;
    }

    if (n > 0) {
        /* a start that failed half-way has nobody to wait for */
        if (n == r->c.ranks - 1) {
            join(r);
        }

        __atomic_store_n(&r->done, r->c.ranks - 1, __ATOMIC_RELAXED);
        post(r, JOB_END);
    }

    for (i = 1; i < r->c.ranks; i++) {
        if (r->rank[i].started) {
            (void) pthread_join(r->rank[i].thread, NULL);
        }
    }
}

void
ranks_close(ranks_t *r)
{
    uint32_t i;

    if (r == NULL) {
        return;
    }

    if (r->rank != NULL) {
        end_threads(r);
    }

    for (i = 0; r->rank != NULL && i < r->c.ranks; i++) {
        forward_close(r->rank[i].forward);

        if (r->rank[i].dev != NULL) {
            r->c.kn->close(r->rank[i].dev);
        }
    }

    for (i = 0; r->rank != NULL && i < r->c.ranks && r->c.comm == NULL; i++) {
        comm_close(r->rank[i].comm);
    }

    mem_free(r->tokens);
    mem_free(r->rows);
    mem_free(r->outs);
    mem_free(r->blocks);
    mem_free(r->rank);
    mem_free(r);
}

/* --- what others ask ----------------------------------------------------- */

forward_t *
ranks_forward(const ranks_t *r)
{
    assert(r->rank[0].forward != NULL);
    return r->rank[0].forward;
}

const forward_held_t *
ranks_held(const ranks_t *r)
{
    return &r->held;
}

void
ranks_info(const ranks_t *r, kn_info_t *info)
{
    kn_info_t one;
    uint32_t i;

    r->c.kn->info(r->rank[0].dev, info);

    for (i = 1; i < r->c.ranks; i++) {
        r->c.kn->info(r->rank[i].dev, &one);
        info->used += one.used;
    }

    if (r->c.ranks > 1) {
        one = *info;
        snprintf(info->name, sizeof(info->name), "%u ranks, each %.40s",
            r->c.ranks, one.name);
    }
}

uint64_t
ranks_block_bytes(const model_t *m, const forward_cfg_t *c)
{
    return forward_block_bytes(m, c) * forward_ranks(c);
}

void
ranks_abort(ranks_t *r, const char *why)
{
    comm_abort(r->rank[0].comm, why);
}

const forward_t *
ranks_look(const ranks_t *r, uint32_t rank)
{
    assert(rank < r->c.ranks);
    return r->rank[rank].forward;
}
