/*
 * The thread pool behind cpu_run (cpu.h).
 */
#ifndef POOL_H
#define POOL_H

#include "cpu.h"

/*
 * A pool of threads, the caller of cpu_run among them, bound to o's CPUs;
 * NULL if it fails.
 */
cpu_pool_t *cpu_pool_open(uint32_t threads, const kn_open_t *o);

void cpu_pool_close(cpu_pool_t *p);

#endif
