/*
 * A rank's place in a group of ranks that compute one model together.
 *
 * DESIGN.  A rank is one thread that calls, with its share of every layer's
 * work; what it shares with the others are sums of activations, parts of rows
 * and, between processes, messages.  All ranks of a group make the same calls
 * in the same order with the same sizes, and each call returns in a rank when
 * that rank's buffer has the result.  How they meet is the transport's secret:
 * threads of one process (comm_shm.c) or processes over sockets; a transport
 * is a table of functions and the head of a struct.  Buffers are the host's.
 * A GPU's back end needs a group too: its ranks tell each other by it where
 * their memory is, before they can do without.
 *
 * RULE.  A sum is that of rank 0, 1, 2, ... from the left, each addition in
 * F32, in whatever pieces a transport computes it.  So the bits are the same in
 * all ranks, in all runs and over all transports.
 *
 * A failure is for good and of all: a rank that cannot go on, or any other
 * thread, aborts the group with one sentence, and every call of every rank
 * fails from then on, also one that waits.  A call that fails leaves anything
 * in its buffer, but when it has returned no other rank looks at that any more.
 *
 * No call checks what others pass: sizes that differ are a bug of the caller.
 */
#ifndef COMM_H
#define COMM_H

#include <stddef.h>
#include <stdint.h>

#define COMM_RANKS_MAX 64

/* gather's root: every rank gets the whole. */
#define COMM_ALL UINT32_MAX

typedef struct comm_s comm_t;

/* What a transport gives.  The functions below say what each does. */
typedef struct {
    int (*sum)(comm_t *c, float *x, uint64_t n);
    int (*gather)(
        comm_t *c, uint32_t root, float *x, uint64_t rows, uint32_t width);
    int (*cast)(comm_t *c, uint32_t root, void *p, uint64_t bytes);
    int (*barrier)(comm_t *c);
    void (*abort)(comm_t *c, const char *why);
    const char *(*error)(comm_t *c);
    void (*close)(comm_t *c);
} comm_ops_t;

/* The head of every transport's rank. */
struct comm_s {
    const comm_ops_t *ops;
    uint32_t rank, ranks; /* ranks at most COMM_RANKS_MAX */
};

/*
 * The part of n that a rank has: *at is its first, the result how many.  Parts
 * are in the order of ranks and differ by one at most.
 */
static inline uint32_t
comm_part(uint32_t n, uint32_t rank, uint32_t ranks, uint32_t *at)
{
    uint32_t end = (uint32_t) ((uint64_t) n * (rank + 1) / ranks);

    *at = (uint32_t) ((uint64_t) n * rank / ranks);
    return end - *at;
}

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The calls of a rank's own thread.  0, or -1 when the group has been aborted:
 * comm_error says why.  A group of one, as c NULL is, has nothing to do.
 */

/* x[i] = x[i] of rank 0 + x[i] of rank 1 + ..., for i below n, in all ranks */
int comm_sum(comm_t *c, float *x, uint64_t n);

/*
 * x is [rows, width], and each rank has made the columns that are comm_part()'s
 * of width.  Afterwards root, or with COMM_ALL every rank, has them all; of the
 * others what is not their own is anything.
 */
int comm_gather(
    comm_t *c, uint32_t root, float *x, uint64_t rows, uint32_t width);

/* p of all ranks = p of root, bytes long */
int comm_cast(comm_t *c, uint32_t root, void *p, uint64_t bytes);

/* All have come; what they wrote before, all see. */
int comm_barrier(comm_t *c);

/* Any thread, at any time before close; the first `why`, copied, stays. */
void comm_abort(comm_t *c, const char *why);

/* One sentence, until close; any thread.  NULL: not aborted. */
const char *comm_error(comm_t *c);

/* When the rank's thread calls no more.  c may be NULL. */
void comm_close(comm_t *c);

/* Processors that this process may use, which ranks share. */
uint32_t comm_processors(void);

/*
 * Threads of one process: c[r] is rank r's, each to be closed, c [ranks].  0,
 * or -1 with one sentence in err.
 */
int comm_shm_open(uint32_t ranks, comm_t **c, char *err, size_t errlen);

#ifdef __cplusplus
}
#endif

#endif
