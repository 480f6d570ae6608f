/*
 * Policies of others, over the engine's passes, to compare with: same pool,
 * same admission, same order but for VTC's; only what a step is made of
 * differs.  None of them is in the engine.
 */
#ifndef POLICY_H
#define POLICY_H

#include "sched.h"

/* Whole prompts in a step of their own whenever one fits, else decodes: vLLM
 * of 2023.  The budget caps the sum of prompts. */
extern const sched_policy_t policy_prefill_first;

/* Decodes and whole prompts in one step, no cap: Orca. */
extern const sched_policy_t policy_orca;

/* The same with a cap: hybrid batches without chunks. */
extern const sched_policy_t policy_hybrid_only;

/* Chunks and decodes take turns, never together. */
extern const sched_policy_t policy_chunk_only;

/* Ours, but ordered as VTC says: a prompt is charged whole when it is let
 * in. */
extern const sched_policy_t policy_vtc;

#endif
