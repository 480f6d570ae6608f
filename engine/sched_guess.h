/*
 * How long outputs will get, and how many blocks that will take.  Pure.  See
 * sched_guess.c.
 */
#ifndef SCHED_GUESS_H
#define SCHED_GUESS_H

#include <stdint.h>

enum { SCHED_LENGTHS = 44 }; /* two for each power of two */

/* Tokens of an output, while nothing is known. */
#define SCHED_GUESS_PRIOR 256

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


/* The class of a length. */
static inline uint32_t
sched_guess_class(uint32_t tokens)
{
    uint32_t top;

    if (tokens < 2) {
        return tokens;
    }
    top = 31 - (uint32_t) __builtin_clz(tokens);
    top = 2 * top + (tokens >> (top - 1) & 1);

    return top < SCHED_LENGTHS ? top : SCHED_LENGTHS - 1;
}


/*
 * How many more tokens an output that has `tokens` will get; at most most.
 * Here, for a plan that admits asks it of everyone who sits.
 */
static inline uint32_t
sched_guess_more(const sched_guess_t *g, uint32_t tokens, uint32_t most)
{
    double mean = g->mean[sched_guess_class(tokens)], more;

    if (mean <= 0) {
        /* longer than any of late: as much again */
        tokens = sched_guess_knows(g) ? tokens + 1 : SCHED_GUESS_PRIOR;
        return tokens < most ? tokens : most;
    }

    /* at least a little: those that ended lie anywhere in the class */
    more = mean > tokens ? mean - tokens : 0;
    more = more > tokens / 8.0 ? more : tokens / 8.0;

    return more + 1 < most ? (uint32_t) more + 1 : most;
}


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
