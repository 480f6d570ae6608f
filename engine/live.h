/*
 * The writing end of the list of requests that others may look at
 * (llm_live.h).  The loop's alone: rows follow the requests that it owns.
 * See live.c.
 */
#ifndef LIVE_H
#define LIVE_H

#include "llm_live.h"
#include "req.h"

#include <stdint.h>

typedef struct live_s live_t;

typedef struct {
    void *page;    /* the state page, borrowed; NULL: memory of its own */
    uint64_t size; /* bytes of it, llm_live_size() of the rows it is to have */
    uint32_t reqs; /* size of the request table; more than rows are not shown */
    uint32_t batch_tokens; /* a step's limits */
    uint32_t batch_rows;
    uint64_t now_us;
} live_cfg_t;

/* What changes about a request while it runs. */
typedef struct {
    uint32_t state; /* LLM_LIVE_* */
    uint64_t computed;
    uint64_t sampled;
    uint64_t cached;
    uint64_t blocks;
} live_work_t;

/* Writes the head.  NULL when out of memory. */
live_t *live_open(const live_cfg_t *c);
void live_close(live_t *l);

/* What steps are to take; 0: nothing is asked for. */
void live_target(live_t *l, uint64_t us);

/* Request req came; r is read, not kept. */
void live_add(live_t *l, uint32_t req, const req_t *r);

/* Its first token is about to be computed. */
void live_begin(live_t *l, uint32_t req, uint64_t now_us);

/* n of its tokens are computed in this step. */
void live_served(live_t *l, uint32_t req, uint32_t n);

/* A token of it was sampled; those with equal now_us are of one step. */
void live_token(live_t *l, uint32_t req, uint64_t now_us);

/* How it stands. */
void live_show(live_t *l, uint32_t req, const live_work_t *w);

/* It has gone. */
void live_end(live_t *l, uint32_t req);

/* A step has run. */
void live_step(live_t *l, const llm_live_step_t *step);

#endif
