/*
 * Samples of one quantity: count, mean, greatest, percentiles.
 *
 * They are kept as a histogram of 1 % wide buckets, so that a run may have
 * millions of them; what a rule turns on is counted exactly beside it.
 */
#ifndef STAT_H
#define STAT_H

#include <stdint.h>

#define STAT_BUCKETS 4096

typedef struct {
    double limit; /* samples above it are counted; 0: none is */
    double sum, max;
    uint64_t n, over;
    uint32_t bucket[STAT_BUCKETS];
} stat_t;

void stat_add(stat_t *s, double v);

/* The p-th percentile within 1 %, the greatest exactly; 0 without samples. */
double stat_percentile(const stat_t *s, double p);

double stat_mean(const stat_t *s);

#endif
