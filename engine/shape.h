/*
 * What the engine is opened for: sizes of steps, KV blocks and sequences.  See
 * shape.c.
 */
#ifndef SHAPE_H
#define SHAPE_H

#include "forward.h"
#include "model.h"
#include "opts.h"
#include "prefix.h"
#include "sched.h"

#include <stddef.h>

/* What it follows from; all borrowed. */
typedef struct {
    const opts_t *o;
    const model_t *model;
    const prefix_set_t *prefixes; /* that are to be pinned */
    const sched_policy_t *policy;
} shape_from_t;

/* Fills s, which was zeroed.  0, or -1 with one sentence in err. */
int shape_plan(
    forward_cfg_t *s, const shape_from_t *from, char *err, size_t errlen);

/* Are the words of the prefix cache's options known?  0, or -1 with err. */
int shape_cache(const opts_t *o, char *err, size_t errlen);

#endif
