/*
 * The monotonic clock.  Read by the threads' outermost loops only, once a turn;
 * everything below takes the time as an argument.
 */
#ifndef CLOCK_H
#define CLOCK_H

#include <assert.h>
#include <stdint.h>
#include <time.h>

static inline uint64_t
clock_us(void)
{
    struct timespec ts;
    int rc;

    rc = clock_gettime(CLOCK_MONOTONIC, &ts);
    assert(rc == 0);
    (void) rc;

    return (uint64_t) ts.tv_sec * 1000000 + (uint64_t) ts.tv_nsec / 1000;
}

static inline uint64_t
clock_ms(void)
{
    return clock_us() / 1000;
}

#endif
