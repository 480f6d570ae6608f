/*
 * Ranks that are threads of this process: each has a part of the model on a
 * device of its own, and all take the steps of rank 0.  See ranks.c.
 */
#ifndef RANKS_H
#define RANKS_H

#include "forward.h"

#include <stddef.h>
#include <stdint.h>

#define RANKS_MAX COMM_RANKS_MAX

typedef struct ranks_s ranks_t;

typedef struct {
    const kernels_t *kn;
    const model_t *model;
    forward_cfg_t shape; /* its rank, ranks and comm are not looked at, */
    uint32_t ranks;      /* 1 to RANKS_MAX; 1: no thread is started */
    kn_open_t open;      /* threads and CPUs of all ranks together */
    comm_t *comm;        /* NULL; or this process is the one rank of several
                          * that shape says, and ranks is 1; borrowed */
} ranks_cfg_t;

/*
 * Opens a device for each rank, and the forward pass on it, all at once.  What
 * c borrows must outlive it.  NULL with one sentence in err.
 */
ranks_t *ranks_open(const ranks_cfg_t *c, char *err, size_t errlen);

/* Between two steps; r may be NULL. */
void ranks_close(ranks_t *r);

/*
 * Rank 0's pass.  Its steps and copies are those of all ranks; one thread calls
 * it, and that one is rank 0's.
 */
forward_t *ranks_forward(const ranks_t *r);

/* What all ranks hold together; tensors are counted once. */
const forward_held_t *ranks_held(const ranks_t *r);

/* The device that a rank has, and all as one: with a name for people. */
void ranks_info(const ranks_t *r, kn_info_t *info);

/* Bytes of one KV block in all of c's ranks together. */
uint64_t ranks_block_bytes(const model_t *m, const forward_cfg_t *c);

/* Any thread: what runs in any rank fails, with this sentence. */
void ranks_abort(ranks_t *r, const char *why);

/* The pass of a rank, for tests. */
const forward_t *ranks_look(const ranks_t *r, uint32_t rank);

#endif
