/*
 * Carries blocks between the pool and the second arena: what kv_tier.h wants
 * copied, by the device (forward.h), a bounded part of it in each turn of the
 * loop.  See ferry.c.  The loop thread only.
 */
#ifndef FERRY_H
#define FERRY_H

#include "forward.h"
#include "kv.h"

#include <stdint.h>

typedef struct ferry_s ferry_t;

typedef struct {
    kv_t *kv;             /* borrowed until ferry_close */
    forward_t *forward;   /* the same */
    uint64_t block_bytes; /* of a block */
    uint32_t target_us;   /* of a step with decoding rows; 0: none */
} ferry_cfg_t;

typedef struct {
    uint64_t bytes_out, bytes_in; /* that were copied, or tried to */
    uint64_t us;                  /* that this took, as far as it was seen */
} ferry_stats_t;

/* NULL when out of memory. */
ferry_t *ferry_open(const ferry_cfg_t *c);
void ferry_close(ferry_t *f);

/*
 * Between two steps: sees what copies have ended, and begins others.  How long
 * that took, in microseconds; 0 where there is nothing to copy.
 */
uint64_t ferry_turn(ferry_t *f);

/*
 * There is no step to be run: a turn, and a moment's wait if copies are under
 * way.  0: there is nothing to wait for.
 */
int ferry_idle(ferry_t *f);

void ferry_stats(const ferry_t *f, ferry_stats_t *st);

#endif
