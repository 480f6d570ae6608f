/*
 * The few threads that tokenise: a bounded queue of job numbers in, finished
 * job numbers out.
 */
#ifndef TEXT_POOL_H
#define TEXT_POOL_H

#include "bell.h"

#include <stdint.h>

typedef struct text_pool_s text_pool_t;

typedef struct {
    uint32_t jobs_max; /* job numbers are below it, each queued once */
    uint32_t threads;
    int nice; /* how far they give way to others, as nice(1) says */
    /* does job, on thread number thread; the only place with long work */
    void (*run)(void *arg, uint32_t thread, uint32_t job);
    void *arg;
    bell_t *bell; /* rung when a job is done, borrowed */
} text_pool_cfg_t;

/* Starts the threads. NULL when out of memory or threads. */
text_pool_t *text_pool_open(const text_pool_cfg_t *cfg);

/*
 * Waits for running jobs (whoever calls has told them to stop) and ends the
 * threads; queued jobs are dropped.  NULL is allowed.
 */
void text_pool_close(text_pool_t *p);

/* Queues a job; jobs of one group give way to other groups'. */
void text_pool_put(text_pool_t *p, uint32_t job, uint32_t group);

/* Takes a finished job: 1 with *job, or 0. */
int text_pool_get(text_pool_t *p, uint32_t *job);

/* Is a finished job waiting? */
int text_pool_ready(text_pool_t *p);

#endif
