/*
 * Pinned prefixes, computed at start.  See loop_pin.c.
 */
#ifndef LOOP_PIN_H
#define LOOP_PIN_H

#include "batch.h"
#include "forward.h"
#include "kv.h"

#include <stdint.h>

/* All borrowed during a call; nothing else may use them meanwhile. */
typedef struct {
    kv_t *kv; /* with a cache; no sequence has anything */
    forward_t *forward;
    batch_t *b;
    sample_out_t *outs; /* [outs_max] */
} loop_pin_t;

/*
 * Computes the full blocks of n tokens, at least one, on from what is there
 * of them, and pins them.  0, or a negative llm_err.h code when the logits at
 * their end are not finite: then nothing is pinned.  The pool must have room
 * for them as for any sequence, and for one pin more.
 */
int loop_pin_prefix(const loop_pin_t *p, const uint32_t *ids, uint32_t n);

/*
 * forward_wait.  It returns only where the step has ended: one that cannot,
 * since ranks are lost, ends the engine with one line in the log.
 */
void loop_wait(forward_t *f, sample_out_t *out);

#endif
