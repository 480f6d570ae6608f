/*
 * What ranks add up in tests of groups, over whichever transport: numbers whose
 * sum shows in which order it was made.
 */
#ifndef COMM_VALUES_H
#define COMM_VALUES_H

#include <stdint.h>

static inline uint32_t
mix(uint32_t x)
{
    x = (x ^ (x >> 16)) * 0x7feb352du;
    x = (x ^ (x >> 15)) * 0x846ca68bu;
    return x ^ (x >> 16);
}

/* What rank r has of number i in a round: of any size and sign. */
static inline float
value(uint32_t round, uint32_t r, uint64_t i)
{
    uint32_t x = mix(round * 64 + r + mix((uint32_t) i));

    return ((float) (x & 0xffff) - 32768) * (x & 1u << 20 ? 1e-3f : 1e4f);
}

static inline float
sum_of(uint32_t round, uint32_t ranks, uint64_t i)
{
    uint32_t r;
    float sum = value(round, 0, i);

    for (r = 1; r < ranks; r++) {
        sum += value(round, r, i);
    }

    return sum;
}

#endif
