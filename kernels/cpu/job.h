/*
 * What the op rows' files share: how an op's rows become parts for the pool.
 */
#ifndef CPU_JOB_H
#define CPU_JOB_H

#include "cpu.h"

#include <assert.h>

/* Tokens of a part where rows are cheap. */
#define ROWS_PART 8

#define HOST(type, ptr) ((type *) (ptr).a)

static inline uint32_t
parts_of(uint32_t n, uint32_t size)
{
    return (n + size - 1) / size;
}

static inline uint32_t
min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* The M of an op. */
static inline uint32_t
rows_of(const kn_dev_t *dev, uint32_t which)
{
    assert(which == KN_TOKENS || which == KN_OUTS);
    return which == KN_TOKENS ? dev->step.tokens_n : dev->step.outs_n;
}

/* What a part needs: the device and the op's arguments. */
typedef struct {
    kn_dev_t *dev;
    const void *a;
    uint32_t m;
} job_t;

/* Runs fn over parts of ROWS_PART rows of m. */
static inline void
run_rows(kn_dev_t *dev, const void *a, uint32_t m, uint64_t row_cost,
    void (*fn)(void *, uint32_t, uint32_t))
{
    job_t j = {dev, a, m};

    cpu_run(dev, parts_of(m, ROWS_PART), m * row_cost, fn, &j);
}

#endif
