/*
 * How long a step will take: a model fitted to the steps that were run, and
 * from it how many prompt tokens fit into a step of wanted length.  Pure.
 * See sched_pace.c.
 */
#ifndef SCHED_PACE_H
#define SCHED_PACE_H

#include <assert.h>
#include <stdint.h>

/* What a step's time depends on. */
typedef struct {
    double tokens; /* of all rows */
    double reads;  /* context of the rows of one token, summed */
    double pairs;  /* of positions that longer rows look from and at */
    double outs;   /* tokens that the head computes logits for */
} sched_load_t;

enum { SCHED_FITS = 4, SCHED_TERMS = 6 };

/* A linear model with a knee at a given number of tokens. */
typedef struct {
    double knee;
    double a[SCHED_TERMS][SCHED_TERMS]; /* decayed sums of products */
    double b[SCHED_TERMS];
    double coef[SCHED_TERMS]; /* us, none below 0 */
    double miss;              /* relative error of late, averaged */
} sched_fit_t;

typedef struct {
    double target_us;
    uint32_t tile;
    sched_load_t seen; /* the most of each in any step so far */
    uint64_t steps;
    uint32_t best; /* the fit with the least miss */
    sched_fit_t fits[SCHED_FITS];
} sched_pace_t;

/* target_us must be above 0. */
void sched_pace_init(sched_pace_t *p, uint64_t target_us, uint32_t tile);

/* Adds a row of q_len tokens that begins at position start, with outs
 * outputs. */
static inline void
sched_load_row(sched_load_t *l, uint32_t start, uint32_t q_len, uint32_t outs)
{
    assert(q_len > 0 && outs <= q_len);

    l->tokens += q_len;
    l->outs += outs;
    if (q_len == 1) {
        l->reads += start + 1.0;
    } else {
        l->pairs += q_len * (start + q_len / 2.0);
    }
}


/* A step of this load took us. */
void sched_pace_took(sched_pace_t *p, const sched_load_t *l, double us);

/* How long it would take, us. */
double sched_pace_guess(const sched_pace_t *p, const sched_load_t *l);

/*
 * How many of want more tokens of a sequence that stands at position start may
 * join the step so that it keeps to the target; fewer than want only so that
 * all tokens of the step fill whole tiles, or to the most that fit where that
 * is more of them for each tile, filled or not.  May be 0.  scored: each of
 * them has an output, else the last one at most.
 */
uint32_t sched_pace_room(const sched_pace_t *p, const sched_load_t *l,
    uint32_t start, uint32_t want, int scored);

/* The same, whole tiles or not. */
uint32_t sched_pace_most(const sched_pace_t *p, const sched_load_t *l,
    uint32_t start, uint32_t want, int scored);

#endif
