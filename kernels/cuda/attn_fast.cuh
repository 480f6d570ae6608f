// Attention on tensor cores, as the device uses it: plans with each step, and
// launches.  Where there is no kernel for a shape the caller has another one.
#ifndef ATTN_FAST_H
#define ATTN_FAST_H

#include "rt.h"

#include "../kernels.h"

typedef struct attn_fast_s attn_fast_t;

// For steps within the limits; NULL, which the next two take, when there is no
// memory left.  Owned by the caller.  What it has on the device grows by lists
// of units when a layer's shape is seen for the first time.
attn_fast_t *attn_fast_open(const kn_limits_t *limits);
void attn_fast_close(attn_fast_t *f);
uint64_t attn_fast_bytes(const attn_fast_t *f);

// In plan(): the step that follows, for the shapes that have been seen.  Those
// are copied in the stream's order; no step may be under way.
void attn_fast_plan(attn_fast_t *f, const kn_step_t *step, rt_stream_t stream);

// Launches that are recorded have blocks for the most units that a step can
// have, so that they fit every step; others as many as there are.
void attn_fast_recorded(attn_fast_t *f, int yes);

// The op: 1 if it is on its way, 0 if it is not for these kernels (a type, a
// size of heads or a layout that they do not take, or no memory for lists).
// *blocks are the step's; both are on the device, and blocks stays.
int attn_fast(attn_fast_t *f, const kn_attn_t *a, const uint32_t *const *blocks,
    rt_stream_t stream);

#endif
