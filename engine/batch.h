/*
 * What one engine step computes: the plan that sched_plan() writes and
 * forward_submit() runs.
 *
 * There is one shape for all work.  A row is a run of consecutive tokens of
 * one sequence: a whole prompt, a chunk of it, one decoding token, a resumed
 * sequence after preemption, a few drafted tokens.  The sequence's keys and
 * values for positions [0, q_start) are in its KV blocks already, but for
 * those that no later token looks at; the row computes [q_start, q_start +
 * q_len) and stores theirs.
 *
 *      positions   0 ........ q_start ...... kv_len = q_start + q_len
 *                  in blocks      this row's
 *
 * All arrays belong to the batch, are sized at start and reused each step.
 */
#ifndef BATCH_H
#define BATCH_H

#include "sample.h"

#include <stdint.h>

#define BATCH_GROUPS 8

/* Blocks of a group of layers, in the order of positions. */
typedef struct {
    const uint32_t *ids; /* [n], borrowed from the sequence */
    uint32_t first;      /* the sequence's block number of ids[0] */
    uint32_t n;          /* enough for what the row reads and writes */
} batch_blocks_t;

typedef struct {
    uint32_t seq; /* the scheduler's own name for the sequence */
    uint32_t q_start;
    uint32_t q_len;   /* >= 1 */
    uint32_t kv_len;  /* q_start + q_len */
    uint32_t tok;     /* the row's tokens are tokens[tok .. tok + q_len) */
    uint32_t adapter; /* 0 is none */
    batch_blocks_t blocks[BATCH_GROUPS]; /* as many as the model has groups */
} batch_row_t;

/*
 * A position whose logits are wanted.  The token sampled there, or asked for,
 * has the position pos + 1 of its sequence.
 */
typedef struct {
    uint32_t row;
    uint32_t tok;                  /* index into tokens[] */
    uint32_t pos;                  /* of that token in its sequence */
    uint32_t choice;               /* second word of the sampler's counter */
    const sample_params_t *params; /* borrowed until the step has ended */
    const uint32_t *known;         /* [known_n] prompt and output so far; of a
                                    * late token's row complete when the step
                                    * before has been committed */
    uint32_t known_n;
    uint32_t prompt_n;    /* how many of them are prompt */
    uint32_t wanted;      /* 1 + a token whose logprob is asked for, and none is
                        * sampled; 0: one is */
    const uint32_t *mask; /* which tokens may be, as in kn_out_t; borrowed until
                           * the step has ended; NULL: all */
} batch_out_t;

/* A token that was not known when the batch was planned: it is what output
 * out of the step that ran before samples. */
typedef struct {
    uint32_t tok; /* index into tokens[], which says 0 there */
    uint32_t out;
} batch_late_t;

typedef struct {
    uint32_t rows_n, rows_max;
    uint32_t tokens_n, tokens_max;
    uint32_t outs_n, outs_max;
    uint32_t late_n;    /* 0 unless it was planned ahead */
    batch_row_t *rows;  /* [rows_max] */
    uint32_t *tokens;   /* [tokens_max] token ids */
    batch_out_t *outs;  /* [outs_max], in the order of rows */
    batch_late_t *late; /* [rows_max], in the order of rows; NULL: for steps
                         * that are never planned ahead */
} batch_t;

#endif
