/*
 * The random numbers of the `sample` row.  Its own function is in cpu.h.
 */
#ifndef CPU_SAMPLE_H
#define CPU_SAMPLE_H

#include <stdint.h>

/*
 * The ten-round generator: 128 random bits that are a function of counter and
 * key alone.
 */
void cpu_philox4x32(
    const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

#endif
