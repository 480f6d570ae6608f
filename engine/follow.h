/*
 * Ranks in other processes: rank 0 tells them each step, and they follow.  See
 * follow.c.
 */
#ifndef FOLLOW_H
#define FOLLOW_H

#include "forward.h"
#include "../kernels/comm.h"

#include <signal.h>
#include <stddef.h>
#include <stdint.h>

typedef struct follow_s follow_t;

/* All borrowed until follow_close. */
typedef struct {
    comm_t *comm; /* of this rank */
    forward_t *forward;
    forward_cfg_t shape; /* what it was opened with, */
    uint32_t vocab;      /* and of its model: as in all ranks */
} follow_cfg_t;

/*
 * Everything that it will need.  Call it before mem_seal.  In rank 0 all steps
 * and copies of the forward are told from then on.  NULL when out of memory.
 */
follow_t *follow_open(const follow_cfg_t *c);

/*
 * Not rank 0: takes part in all that rank 0 computes.  0 when rank 0 says that
 * the end has come; -1 with one sentence in err: the group has ended without.
 */
int follow_run(follow_t *w, char *err, size_t errlen);

/* Rank 0, w, when it has nothing to do: ends the process if a rank is gone. */
void follow_look(void *w);

/* Rank 0: says that the end has come, when no step runs. */
void follow_end(follow_t *w);

/* The rank's place, as it was opened with. */
comm_t *follow_comm(const follow_t *w);

/* What ends a follower but rank 0. */
typedef struct {
    const sigset_t *signals; /* blocked in all threads */
    uint64_t drain_ms;       /* how long it goes on after the first */
} follow_life_t;

/*
 * follow_run in a thread of its own until it ends or is told to; the exit
 * status, 1 with one sentence in err.
 */
int follow_main(
    follow_t *w, const follow_life_t *life, char *err, size_t errlen);

/* w may be NULL. */
void follow_close(follow_t *w);

#endif
