/*
 * How long outputs will get, and how many blocks that will take.  Pure.  See
 * sched_guess.c.
 */
#ifndef SCHED_GUESS_H
#define SCHED_GUESS_H

#include <stdint.h>

enum { SCHED_LENGTHS = 44 }; /* two for each power of two */

typedef struct {
    float mean[SCHED_LENGTHS]; /* of outputs that got that far; 0: none did */
    float n[SCHED_LENGTHS];    /* that ended there, decayed */
    float sum[SCHED_LENGTHS];  /* and their tokens */
} sched_guess_t;

/*
 * What sequences will need, by how many tokens they have still to come: four
 * classes for each power of two, so that adding one is O(1).
 */
enum { SCHED_FUTURES = 88 };

typedef struct {
    uint32_t n[SCHED_FUTURES];      /* sequences */
    uint64_t blocks[SCHED_FUTURES]; /* that they have and were promised */
    uint32_t more[SCHED_FUTURES];   /* the most of them, tokens */
} sched_futures_t;

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

/* A sequence with that many blocks and tokens to come joins, or leaves. */
void sched_futures_add(sched_futures_t *f, uint64_t blocks, uint32_t more);
void sched_futures_remove(sched_futures_t *f, uint64_t blocks, uint32_t more);

/*
 * The most blocks that all will hold together at any time, if each grows by a
 * token a step, takes a block each block_tokens of them, and gives all back
 * when it ends.  Never too few, and at most what a quarter more tokens take.
 */
uint64_t sched_futures_peak(const sched_futures_t *f, uint32_t block_tokens);

#endif
