// Attention on tensor cores, as the device uses it: plans with each step, and
// launches.  Where there is no kernel for a shape the caller has another one.
#ifndef ATTN_FAST_H
#define ATTN_FAST_H

#include "attn_plan.h"
#include "rt.h"

#include "../kernels.h"

typedef struct attn_fast_s attn_fast_t;

// Shapes that are told apart; layers of others take the other way.
#define ATTN_SHAPES 8

// Where a step has what attention looks at, all on the device.
typedef struct {
    const uint32_t *const *blocks; // block ids
    attn_list_t *lists;            // [ATTN_SHAPES, 2] by ATTN_NARROW and _WIDE
} attn_step_t;

// For steps within the limits; NULL, which the next two take, when there is no
// memory left.  Owned by the caller.  What it has on the device grows by lists
// of units when a layer's shape is seen for the first time.
attn_fast_t *attn_fast_open(const kn_limits_t *limits);
void attn_fast_close(attn_fast_t *f);
uint64_t attn_fast_bytes(const attn_fast_t *f);

// In plan(): the units of the step that follows, for the shapes that have been
// seen; how many bytes their lists take.
uint64_t attn_fast_plan(attn_fast_t *f, const kn_step_t *step);

// Puts those lists at `to`, which the device will have at `device`, and into
// lists where it has which.
void attn_fast_put(const attn_fast_t *f, unsigned char *to,
    const unsigned char *device, attn_list_t lists[ATTN_SHAPES][2]);

// Launches that are recorded have blocks for the most units of so many rows of
// one token each; others, with 0, as many as there are.  While it is not 0 no
// shape is new.
void attn_fast_recorded(attn_fast_t *f, uint32_t rows);

// Do those launches have blocks for all units of the step that is planned?
int attn_fast_fits(const attn_fast_t *f, uint32_t rows);

// The op: 1 if it is on its way, 0 if it is not for these kernels (a type, a
// size of heads or a layout that they do not take, or no memory for lists).  A
// shape that is new puts its lists in the stream itself.
int attn_fast(attn_fast_t *f, const kn_attn_t *a, const attn_step_t *at,
    rt_stream_t stream);

#endif
