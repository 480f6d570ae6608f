/*
 * Seeded random numbers for the simulator: the same seed gives the same run
 * on every machine.
 */
#ifndef RND_H
#define RND_H

#include <stdint.h>

typedef struct {
    uint64_t state;
} rnd_t;

/* Streams of different seeds have nothing to do with each other. */
void rnd_seed(rnd_t *r, uint64_t seed);

uint64_t rnd_next(rnd_t *r);

/* In (0, 1). */
double rnd_uniform(rnd_t *r);

/* In [0, n). */
uint32_t rnd_below(rnd_t *r, uint32_t n);

double rnd_exponential(rnd_t *r, double mean);

/* Gamma with that mean and coefficient of variation; 1 is exponential. */
double rnd_gamma(rnd_t *r, double mean, double cv);

#endif
