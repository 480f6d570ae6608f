/*
 * A pool of threads for jobs that take long: templates and tokenising.
 *
 * DESIGN.  One mutex over two queues of numbers.  It is taken a few times per
 * request, never per token, and held for a few instructions, so there is
 * nothing to gain from anything finer.  A job number is queued at most once,
 * so queues of jobs_max places never overflow.
 *
 * Fairness: a group (tenant) with a running job waits while another group's
 * job is among the next TEXT_POOL_LOOK; so a tenant that sends many long
 * prompts holds one thread, and not all, while others have work.
 *
 * Finished jobs hand all that they wrote to whoever takes them, through the
 * mutex.
 */
#include "text_pool.h"
#include "mem.h"

#include <assert.h>
#include <pthread.h>
#include <sys/resource.h>

/* Jobs looked at for one of an idle group: some microseconds at most. */
#define TEXT_POOL_LOOK 1024
#define TEXT_POOL_IDLE UINT32_MAX

typedef struct {
    uint32_t job;
    uint32_t group;
} text_job_t;

typedef struct {
    text_pool_t *pool;
    pthread_t id;
    uint32_t number;
    uint32_t group; /* of the running job, TEXT_POOL_IDLE: none */
} text_thread_t;

struct text_pool_s {
    text_pool_cfg_t cfg;
    pthread_mutex_t lock;
    pthread_cond_t work;
    int stop;
    uint32_t started;       /* threads */
    uint32_t at, n;         /* todo[at], todo[at + 1], ... modulo jobs_max */
    uint32_t done_at;       /* the same of done */
    uint32_t done_n;        /* atomic, so that text_pool_ready takes no lock */
    text_job_t *todo;       /* [jobs_max] */
    uint32_t *done;         /* [jobs_max] */
    text_thread_t *threads; /* [threads] */
};


static text_job_t *
pool_todo(text_pool_t *p, uint32_t i)
{
    return &p->todo[(p->at + i) % p->cfg.jobs_max];
}


static int
pool_group_runs(const text_pool_t *p, uint32_t group)
{
    uint32_t i;

    for (i = 0; i < p->started; i++) {
        if (p->threads[i].group == group) {
            return 1;
        }
    }

    return 0;
}


/* Takes the next job off the queue; the lock is held and n > 0. */
static text_job_t
pool_take(text_pool_t *p)
{
    text_job_t job;
    uint32_t i, look;

    assert(p->n > 0);

    look = p->n < TEXT_POOL_LOOK ? p->n : TEXT_POOL_LOOK;
    for (i = 0; i < look; i++) {
        if (!pool_group_runs(p, pool_todo(p, i)->group)) {
            break;
        }
    }
    if (i == look) {
        i = 0;
    }

    /* those before it move up by one: order within a group stays */
    job = *pool_todo(p, i);
    for (; i > 0; i--) {
        *pool_todo(p, i) = *pool_todo(p, i - 1);
    }
    p->at = (p->at + 1) % p->cfg.jobs_max;
    p->n--;

    return job;
}


static void *
pool_thread(void *arg)
{
    text_thread_t *t = arg;
    text_pool_t *p = t->pool;
    text_job_t job;

    if (p->cfg.nice > 0) {
        /* on Linux of the calling thread alone */
        (void) setpriority(PRIO_PROCESS, 0, p->cfg.nice);
    }

    (void) pthread_mutex_lock(&p->lock);

    for (;;) {
        while (p->n == 0 && !p->stop) {
            (void) pthread_cond_wait(&p->work, &p->lock);
        }
        if (p->stop) {
            break;
        }

        job = pool_take(p);
        t->group = job.group;
        (void) pthread_mutex_unlock(&p->lock);

        p->cfg.run(p->cfg.arg, t->number, job.job);

        (void) pthread_mutex_lock(&p->lock);
        t->group = TEXT_POOL_IDLE;
        assert(p->done_n < p->cfg.jobs_max);
        p->done[(p->done_at + p->done_n) % p->cfg.jobs_max] = job.job;
        (void) __atomic_add_fetch(&p->done_n, 1, __ATOMIC_RELEASE);
        (void) pthread_mutex_unlock(&p->lock);

        bell_ring(p->cfg.bell);

        (void) pthread_mutex_lock(&p->lock);
    }

    (void) pthread_mutex_unlock(&p->lock);

    return NULL;
}


text_pool_t *
text_pool_open(const text_pool_cfg_t *cfg)
{
    text_pool_t *p;
    text_thread_t *t;

    assert(cfg->jobs_max >= 1 && cfg->threads >= 1);

    p = mem_zero(1, sizeof(*p));
    if (p == NULL) {
        return NULL;
    }

    p->cfg = *cfg;
    (void) pthread_mutex_init(&p->lock, NULL);
    (void) pthread_cond_init(&p->work, NULL);
    p->todo = mem_zero(cfg->jobs_max, sizeof(*p->todo));
    p->done = mem_zero(cfg->jobs_max, sizeof(*p->done));
    p->threads = mem_zero(cfg->threads, sizeof(*p->threads));
    if (p->todo == NULL || p->done == NULL || p->threads == NULL) {
        goto failed;
    }

    while (p->started < cfg->threads) {
        t = &p->threads[p->started];
        t->pool = p;
        t->number = p->started;
        t->group = TEXT_POOL_IDLE;
        if (pthread_create(&t->id, NULL, pool_thread, t) != 0) {
            goto failed;
        }
        (void) pthread_mutex_lock(&p->lock);
        p->started++;
        (void) pthread_mutex_unlock(&p->lock);
    }

    return p;

failed:

    text_pool_close(p);
    return NULL;
}


void
text_pool_close(text_pool_t *p)
{
    uint32_t i;

    if (p == NULL) {
        return;
    }

    (void) pthread_mutex_lock(&p->lock);
    p->stop = 1;
    (void) pthread_cond_broadcast(&p->work);
    (void) pthread_mutex_unlock(&p->lock);

    for (i = 0; i < p->started; i++) {
        (void) pthread_join(p->threads[i].id, NULL);
    }

    (void) pthread_cond_destroy(&p->work);
    (void) pthread_mutex_destroy(&p->lock);
    mem_free(p->todo);
    mem_free(p->done);
    mem_free(p->threads);
    mem_free(p);
}


void
text_pool_put(text_pool_t *p, uint32_t job, uint32_t group)
{
    assert(job < p->cfg.jobs_max && group != TEXT_POOL_IDLE);

    (void) pthread_mutex_lock(&p->lock);
    assert(p->n < p->cfg.jobs_max);
    pool_todo(p, p->n)->job = job;
    pool_todo(p, p->n)->group = group;
    p->n++;
    (void) pthread_cond_signal(&p->work);
    (void) pthread_mutex_unlock(&p->lock);
}


int
text_pool_get(text_pool_t *p, uint32_t *job)
{
    int got = 0;

    if (!text_pool_ready(p)) {
        return 0;
    }

    (void) pthread_mutex_lock(&p->lock);
    if (p->done_n > 0) {
        *job = p->done[p->done_at];
        p->done_at = (p->done_at + 1) % p->cfg.jobs_max;
        (void) __atomic_sub_fetch(&p->done_n, 1, __ATOMIC_RELEASE);
        got = 1;
    }
    (void) pthread_mutex_unlock(&p->lock);

    return got;
}


int
text_pool_ready(text_pool_t *p)
{
    return __atomic_load_n(&p->done_n, __ATOMIC_ACQUIRE) != 0;
}
