/*
 * What the machine can do, and when: its memory's speed, what a launch costs,
 * and marks on the device's stream of steps.  On the emulator the same with
 * the host's clock, which proves the code and measures nothing.
 */
#ifndef PROBE_H
#define PROBE_H

#include "kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes per us of a copy, read and written, and of a plain read, of so many. */
double probe_copy(uint64_t bytes);
double probe_read(uint64_t bytes);

/* Us that a kernel which does nothing takes, of n in a graph; next: each may
 * begin before the one before it has ended. */
double probe_launch(uint32_t n, int next);

#define PROBE_MARKS 512

/* Mark i, on what dev was given so far; us between two that have passed, which
 * they have when dev's wait() returns and there was a wait behind them. */
void probe_mark(kn_dev_t *dev, uint32_t i);
double probe_between(uint32_t from, uint32_t to);

/* CUDA's table, which is linked in. */
const kernels_t *llm_cuda_kernels(void);

#ifdef __cplusplus
}
#endif

#endif
