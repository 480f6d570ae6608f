/*
 * The sampler's walks over a whole vocabulary.
 *
 * Two texts, plain C and AVX2, that give the same bits: every operation is
 * rounded for itself and sums have one order, so that what a seed draws does
 * not depend on the machine.
 */
#ifndef CPU_SCAN_H
#define CPU_SCAN_H

#include <stdint.h>

/* Neighbours that share a maximum. */
#define SCAN_BLOCK 64

/* Below this the weight is less than 1e-37 of the best one's: it is 0. */
#define SCAN_EXP_MIN (-87.0f)

typedef struct {
    /*
     * top[b] is the largest of block b of the n numbers; returns the largest
     * of all, or INFINITY when one of them is NaN or +Inf.
     */
    float (*tops)(const float *x, uint32_t n, float *top);

    /*
     * w[i], if there is a w, becomes exp((x[i] - max) / t); x and w may be the
     * same.  Returns their sum().  x[i] <= max, t > 0.
     */
    double (*weights)(const float *x, uint32_t n, float max, float t, float *w);

    /* x[i] = bit i % 32 of mask[i / 32] ? from[i] : -INFINITY, i below n. */
    void (*allow)(
        float *x, const float *from, uint32_t n, const uint32_t *mask);

    /* Eight sums of every eighth in double precision, then those in pairs. */
    double (*sum)(const float *w, uint32_t n);
} cpu_scan_t;

extern const cpu_scan_t cpu_scan_ref;
extern const cpu_scan_t cpu_scan_avx2;

#endif
