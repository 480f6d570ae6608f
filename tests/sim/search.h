/*
 * The search for a capacity: the highest rate at which the objectives hold.
 */
#ifndef SEARCH_H
#define SEARCH_H

#include "cost.h"
#include "load.h"
#include "sched.h"

/* A policy with settings that are worth trying. */
typedef struct {
    const char *name;
    const sched_policy_t *policy;
    uint32_t rows, budget;
    uint32_t target; /* a step's, in percent of the objective; 0: none */
} contender_t;

typedef enum {
    ARRIVE_POISSON,
    ARRIVE_BURSTY,  /* gaps vary three times as much */
    ARRIVE_RECORDED /* the trace's, stretched to the rate */
} arrive_t;

typedef struct {
    const cost_t *cost;
    uint32_t blocks, context;
    uint32_t slo_us;    /* P99 of the gaps between tokens */
    uint32_t delay_us;  /* median of the waits before the first chunk */
    const load_t *from; /* where lengths come from */
    size_t n;
    int follow; /* requests as they follow each other there, not drawn */
    arrive_t arrive;
    int cache;
    int steady; /* besides, waiting must not grow */
    uint64_t seed;
} search_t;

typedef struct {
    double rate, ttft50, ttft99, tbt99;
    double hits; /* of the prompt tokens, in the cache */
} capacity_t;

/* Two rates that are no further apart are one. */
#define SEARCH_STEP 1.025

/* By bisection, from guess on; rate 0: not even a hundredth of it. */
capacity_t search(const search_t *q, const contender_t *c, double guess);

/* Do the objectives hold at that rate? */
int search_holds(const search_t *q, const contender_t *c, double rate);

/* How it is at one rate, whatever that is. */
capacity_t search_at(const search_t *q, const contender_t *c, double rate);

/* A rate for a search to begin with: what the work takes if a step has 32
 * decodes. */
double search_guess(const search_t *q);

#endif
