/*
 * Batches of sequences that are there only to be computed: tokens by a
 * counter, block tables that scatter a sequence over the whole pool.
 */
#ifndef SEQS_H
#define SEQS_H

#include "forward.h"

#include <stdlib.h>
#include <string.h>

#define SEQS_BLOCK 16u

typedef struct {
    batch_t b;
    uint32_t seqs, each; /* blocks of a sequence */
    uint32_t *tables;    /* [seqs, each] */
    uint32_t vocab, drawn;
} seqs_t;

static const sample_params_t seqs_greedy = {
    .top_p = 1, .repetition_penalty = 1};

/* For up to seqs sequences of a pool of so many blocks; aborts without
 * memory. */
static inline void
seqs_open(seqs_t *s, uint32_t seqs, uint32_t tokens_max, uint32_t blocks,
    uint32_t vocab)
{
    uint32_t i;

    memset(s, 0, sizeof(*s));
    s->seqs = seqs;
    s->each = blocks / seqs;
    s->vocab = vocab;
    s->b.rows_max = seqs;
    s->b.outs_max = tokens_max;
    s->b.tokens_max = tokens_max;
    s->b.rows = calloc(seqs, sizeof(*s->b.rows));
    s->b.outs = calloc(tokens_max, sizeof(*s->b.outs));
    s->b.tokens = calloc(tokens_max, sizeof(*s->b.tokens));
    s->tables = calloc((size_t) seqs * s->each, sizeof(*s->tables));
    if (s->b.rows == NULL || s->b.outs == NULL || s->b.tokens == NULL
        || s->tables == NULL || blocks % 7919 == 0) {
        abort();
    }

    /* neighbours in a sequence are none in the pool, as after long use */
    for (i = 0; i < seqs * s->each; i++) {
        s->tables[i] = (uint32_t) ((uint64_t) i * 7919 % blocks);
    }
}

static inline void
seqs_close(seqs_t *s)
{
    free(s->b.rows);
    free(s->b.outs);
    free(s->b.tokens);
    free(s->tables);
}

static inline void
seqs_begin(seqs_t *s)
{
    s->b.rows_n = s->b.tokens_n = s->b.outs_n = 0;
}

/* Positions from start to start + n of seq, tokens by place unless they are
 * given; outs of the last ones. */
static inline void
seqs_add(seqs_t *s, uint32_t seq, uint32_t start, uint32_t n, uint32_t outs,
    const uint32_t *tokens, const sample_params_t *params)
{
    batch_row_t *row = &s->b.rows[s->b.rows_n];
    batch_out_t *o;
    uint32_t i;

    assert(s->b.rows_n < s->b.rows_max && seq < s->seqs);
    assert(s->b.tokens_n + n <= s->b.tokens_max);
    assert((start + n + SEQS_BLOCK - 1) / SEQS_BLOCK <= s->each);

    memset(row, 0, sizeof(*row));
    row->seq = seq;
    row->q_start = start;
    row->q_len = n;
    row->kv_len = start + n;
    row->tok = s->b.tokens_n;
    row->blocks[0].ids = s->tables + (size_t) seq * s->each;
    row->blocks[0].n = (start + n + SEQS_BLOCK - 1) / SEQS_BLOCK;

    for (i = 0; i < n; i++) {
        if (n - i <= outs) {
            o = &s->b.outs[s->b.outs_n++];
            memset(o, 0, sizeof(*o));
            o->row = s->b.rows_n;
            o->tok = s->b.tokens_n;
            o->pos = start + i;
            o->params = params;
            o->known = s->b.tokens;
        }
        s->b.tokens[s->b.tokens_n++] =
            tokens != NULL
                ? tokens[i]
                : ((start + i) * 40503u + seq * 977u + 7u) % s->vocab;
    }
    s->b.rows_n++;
}

#endif
