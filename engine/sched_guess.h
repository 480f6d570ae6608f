/*
 * How long outputs will get, and how many blocks that will take.  Pure.  See
 * sched_guess.c.
 */
#ifndef SCHED_GUESS_H
#define SCHED_GUESS_H

#include <stdint.h>

enum { SCHED_LENGTHS = 44 }; /* two for each power of two */

typedef struct {
    float n[SCHED_LENGTHS];    /* outputs that ended there, decayed */
    float sum[SCHED_LENGTHS];  /* and their tokens */
    float mean[SCHED_LENGTHS]; /* of outputs that got that far; 0: none did */
} sched_guess_t;

/* A sequence as far as its future goes. */
typedef struct {
    uint32_t blocks; /* that it has and was promised */
    uint32_t more;   /* tokens expected to come */
} sched_future_t;

/* An output has ended with that many tokens. */
void sched_guess_ended(sched_guess_t *g, uint32_t tokens);

/* Have enough ended to say anything? */
static inline int
sched_guess_knows(const sched_guess_t *g)
{
    return g->mean[0] > 0;
}


/*
 * How many more tokens an output that has `tokens` will get; at most most.
 */
uint32_t sched_guess_more(
    const sched_guess_t *g, uint32_t tokens, uint32_t most);

/*
 * The most blocks that the n sequences will hold together at any time, if each
 * grows by a token a step, takes a block each block_tokens of them, and gives
 * all back when it ends.  f is in rising order of more.
 */
uint64_t sched_guess_peak(
    const sched_future_t *f, uint32_t n, uint32_t block_tokens);

/* Puts v where it belongs among the n in f, which has room for one more. */
void sched_guess_put(sched_future_t *f, uint32_t n, sched_future_t v);

#endif
