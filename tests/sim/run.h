/*
 * A run: a load through the shipped scheduler and pool in virtual time.
 *
 * A run ends when every request of the load has ended, or when `watch` says
 * so.  Everything that follows from seed, load and settings is the same in
 * each run.
 */
#ifndef RUN_H
#define RUN_H

#include "cost.h"
#include "load.h"
#include "sched.h"
#include "stat.h"
#include "tier.h"
#include "../unit/flight.h"

typedef struct run_s run_t;

typedef struct {
    sched_cfg_t sched; /* reqs is made large enough for the whole load */
    uint32_t blocks, block_tokens;
    uint32_t groups; /* of layers; 0: one without a window */
    uint32_t windows[KV_GROUPS];
    uint32_t hash_tokens; /* of a prefix block; 0: LOAD_HASH_TOKENS */
    const cost_t *cost;
    const load_t *load;
    double noise;       /* of a step's time: +- that share, seeded */
    uint32_t queue_max; /* for every request, as SUBMIT has them */
    uint32_t queue_ms;
    uint32_t tbt_limit_us;   /* gaps above it are counted exactly */
    uint32_t delay_limit_us; /* and delays */
    int cache;               /* is there a prefix cache? */
    int apart;               /* each tenant's in a namespace of its own */
    tier_cfg_t tier;         /* its second tier, if it has slots */
    uint32_t again;          /* times that the refused come back, when told */
    int deep;                /* check every block after each step and abort */
    int timed;               /* measure what planning and committing takes */

    /* Before a step is committed: may say that outputs are not finite.  NULL:
     * they all are. */
    void (*fault)(run_t *r, sched_take_t *takes, void *arg);

    /* After each step; nonzero ends the run.  May be NULL. */
    int (*watch)(run_t *r, void *arg);
    int amid; /* at depth 1 also while a step runs, every second time */

    /* Nothing can run: may change that, and returns nonzero if it has. */
    int (*stuck)(run_t *r, void *arg);
    void *arg;
} run_cfg_t;

/* What became of the request with the same number in the load. */
typedef struct {
    uint64_t begun_us, first_us, last_us; /* 0: not yet */
    uint64_t last_step;
    uint64_t gap_max_us;
    uint32_t tokens; /* sampled, of the first choice */
    uint32_t paid;   /* prompt tokens computed, each once */
    uint32_t refused, expired, aborted, done, failed; /* refused: times */
    uint64_t guess_us; /* how long it was expected to wait */
    uint64_t back_us;  /* when it comes back; 0: it does not */
} run_req_t;

struct run_s {
    run_cfg_t c;
    kv_t *kv;
    tier_t *tier; /* NULL: there is none */
    sched_t *s;
    batch_t b;     /* of the step that runs, or ran last */
    batch_t ahead; /* the one behind it; no rows: it is not planned */
    flight_t flight;
    uint64_t late; /* tokens that were not known when they were planned */
    sched_take_t *takes;
    req_t *reqs;         /* by place in the scheduler's table */
    uint32_t *item;      /* their number in the load; NONE: free */
    uint32_t *row_items; /* by row of the step that ran last */
    uint32_t *unused;
    uint32_t unused_n;
    run_req_t *items; /* by number in the load */
    size_t next;      /* of the load, to arrive */
    uint32_t *back;   /* [reqs] items that will come back */
    uint32_t back_n;
    uint64_t now_us;
    rnd_t rnd;
    double step_us;   /* the last one */
    uint64_t idle_us; /* with nothing to compute though requests were there */
    uint64_t steps, tokens, outputs;
    uint32_t free_least;    /* blocks, after any step */
    uint64_t gap_steps_max; /* steps between two tokens of one request */
    uint32_t live_n, done_n, refused_n, expired_n, aborted_n, failed_n;
    double plan_us; /* processor time of add, plan, commit and end, if timed */
    stat_t ttft, tbt, delay, step; /* seconds */
    int stopped;                   /* by watch */
};

#define RUN_NONE UINT32_MAX

void run_open(run_t *r, const run_cfg_t *c);
void run_all(run_t *r);

/* Checks that all blocks came back, unless the run was stopped. */
void run_close(run_t *r);

/* The client leaves: item's request ends where it stands. */
void run_abort(run_t *r, uint32_t item);

/* A stop string ended the choice of the request in that place inside its token
 * number index; it may be over then. */
void run_cut(run_t *r, uint32_t place, uint32_t choice, uint32_t index);

/* The place of item in the scheduler's table; RUN_NONE: it is not there. */
uint32_t run_place(const run_t *r, uint32_t item);

/* Prints what a run was like, in a few lines. */
void run_print(const run_t *r, const char *title);

#endif
