/*
 * The forward pass: one batch through one model on one device.
 */
#ifndef FORWARD_H
#define FORWARD_H

#include "batch.h"
#include "kv.h"
#include "model.h"
#include "../kernels/kernels.h"

#include <assert.h>

typedef struct forward_s forward_t;

typedef struct {
    uint32_t rows_max, tokens_max, outs_max; /* of a batch */
    uint32_t context;                        /* longest sequence, tokens */
    uint32_t blocks;                         /* KV blocks in the pool */
    uint32_t block_tokens;
    uint32_t kv_type; /* below KN_KV_TYPES */
    uint32_t depth;   /* steps planned while one runs: 0 or 1 */
    model_groups_t groups;
    uint32_t host_blocks; /* in the second arena, which may have none */
    uint32_t rank, ranks; /* of those that have a part each; ranks 0: alone */
    comm_t *comm;         /* their group, borrowed; NULL: there is none */
} forward_cfg_t;

/* What opening has put on the device, in bytes. */
typedef struct {
    struct {
        uint64_t n, bytes;
    } weights[KN_TYPES]; /* by type; vectors count as F32 */
    uint64_t converted;  /* of those, what has another type in the file; */
    uint64_t rounded;    /* and of that, what is not exact (tensor_bf16) */
    uint64_t kv;         /* the pool */
    uint64_t host;       /* the second arena, in the host's memory */
    uint64_t acts;       /* of the largest step; committed as steps use it */
} forward_held_t;

/* How many compute the model together. */
static inline uint32_t
forward_ranks(const forward_cfg_t *c)
{
    return c->ranks > 0 ? c->ranks : 1;
}

/* The block pool's configuration for seqs sequences; c borrows from shape. */
static inline void
forward_kv(const forward_cfg_t *shape, uint32_t seqs, kv_cfg_t *c)
{
    assert(shape->groups.n <= KV_GROUPS && shape->depth <= 1);

    c->blocks = shape->blocks;
    c->block_tokens = shape->block_tokens;
    c->seqs = seqs;
    c->context = shape->context;
    /* a window does not slide before the step in flight has ended */
    c->step = shape->tokens_max * (1 + shape->depth);
    c->groups = shape->groups.n > 0 ? shape->groups.n : 1;
    c->window = shape->groups.window;
}

/* May m's keys and values be of that type?  0, or -1 with one sentence. */
int forward_kv_fits(
    const model_t *m, uint32_t kv_type, char *err, size_t errlen);

/*
 * Bytes of one KV block (a group's layers, keys and values), of a type that
 * fits, in one of the ranks.
 */
uint64_t forward_block_bytes(const model_t *m, const forward_cfg_t *c);

/*
 * Loads the weights onto dev and allocates everything a step will need.  NULL
 * with one sentence in err.  m and dev must outlive it.  One of some ranks
 * loads its part only, and its dev has that place in their group; ranks may
 * open at once, each in a thread of its own, if who watches m allows.
 */
forward_t *forward_open(const kernels_t *kn, kn_dev_t *dev, const model_t *m,
    const forward_cfg_t *c, char *err, size_t errlen);

void forward_close(forward_t *f);

const forward_held_t *forward_held(const forward_t *f);

/*
 * Calls fn(arg) between the ops of each step from now on, in the thread that
 * submits it: so a step that takes long shows that it gets on.  On a device
 * that records its ops it is called when they are recorded.  NULL: no more.
 */
void forward_watch(forward_t *f, void (*fn)(void *arg), void *arg);

/* What ranks elsewhere are told: each step and each copy, before it begins. */
typedef struct {
    void (*step)(void *arg, const kn_step_t *s);
    void (*copy)(void *arg, int in, const uint32_t *from, const uint32_t *to,
        uint32_t n);
    void *arg;
} forward_tell_t;

/* Calls t's functions from now on, in the thread that begins a step or copy. */
void forward_tell(forward_t *f, const forward_tell_t *t);

/*
 * The other side: runs such a step to its end, but samples nothing.  It has
 * the numbers that forward_submit would have made of a batch.
 */
void forward_follow(forward_t *f, const kn_step_t *s);

/*
 * Calls fn(arg, b) in each forward_submit from now on, where the device has the
 * whole step but for the sampling: it sets the masks of b's outs, which are not
 * looked at before.  NULL: no more, and masks are those that outs have.
 */
void forward_masks(
    forward_t *f, void (*fn)(void *arg, const batch_t *b), void *arg);

/*
 * Starts a step.  b may be reused when it returns; what its outs point to
 * stays until forward_wait.  One step at a time; its late tokens are those of
 * the step waited for last.
 */
void forward_submit(forward_t *f, const batch_t *b);

/*
 * Waits for the step; out[i] belongs to the batch's outs[i].  0, or -1 when the
 * ranks' group was aborted: out has nothing, and nor will any later step.
 */
int forward_wait(forward_t *f, sample_out_t *out);

/* Why it was aborted, one sentence; NULL: it was not. */
const char *forward_error(const forward_t *f);

/*
 * Begins to copy n blocks from[i] of the pool to to[i] of the second arena, or
 * if `in` of the second arena to the pool; how many copies were begun before.
 * from and to stay until it has ended.  May be called while a step runs that
 * neither writes what is read nor looks at what is written.
 */
uint64_t forward_copy(
    forward_t *f, int in, const uint32_t *from, const uint32_t *to, uint32_t n);

/* How copy nth stands: KN_COPY_*.  They end in the order of their begin. */
int forward_copied(const forward_t *f, uint64_t nth);

/*
 * The logits of output i of the step waited for last, [vocab], valid until
 * the next submit.  For tests; NULL where the device keeps them to itself.
 */
const float *forward_logits(const forward_t *f, uint32_t i);

/* The same of what its outputs' logits were made of, [outs, hidden]. */
const float *forward_vectors(const forward_t *f);

#endif
