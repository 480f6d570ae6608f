/*
 * A row of a step: the next tokens of a seated sequence and the outputs that
 * are wanted at them, written into the batch.
 *
 * DESIGN.  The plan (sched_plan.c) decides how many tokens and has taken the
 * blocks; here is what the batch is told of them, and what the tenant pays.
 * Outputs are the token behind what is known, and the logprobs of a prompt's
 * own tokens if they are asked for (sched.c).  The batch borrows tokens and
 * block tables from the scheduler and the pool until the step is committed.
 */
#include "sched_int.h"

#include <assert.h>
#include <string.h>

_Static_assert(KV_GROUPS <= BATCH_GROUPS, "a row has a table of each");

/* Positions from *from to before the result: their logprobs are asked for, as
 * far as end. */
static uint32_t
seq_scores(const sched_t *s, uint32_t id, uint32_t end, uint32_t *from)
{
    const seq_t *q = seq_at(s, id);
    uint32_t last = q->prompt_n - 1;

    *from = q->computed > q->scored ? q->computed : q->scored;

    if ((s->reqs[seq_req(id)].flags & LLM_F_PROMPT_LPS) == 0) {
        return *from;
    }
    last = last < end ? last : end;

    return last > *from ? last : *from;
}


uint32_t
sched_row_fit(const sched_t *s, const batch_t *b, uint32_t id, uint32_t n)
{
    const seq_t *q = seq_at(s, id);
    uint32_t room = b->outs_max - b->outs_n, from, to;

    assert(b->outs_n <= b->outs_max);

    to = seq_scores(s, id, q->computed + n, &from);
    if (to - from > room) {
        n = from + room - q->computed;
        to = from + room;
    }
    if (q->computed + n == q->known_n && to - from == room) {
        n--; /* none is left for what comes behind it */
    }

    return n;
}


/* An output of the row that is being added, which begins at position start:
 * at position pos of sequence id, which has that prompt and knows that. */
static inline batch_out_t *
row_out(batch_t *b, uint32_t id, uint32_t prompt_n, const uint32_t *known,
    uint32_t start, uint32_t pos)
{
    uint32_t tok = b->tokens_n;
    batch_out_t *out = &b->outs[b->outs_n++];

    assert(b->outs_n <= b->outs_max && pos >= start);

    out->row = b->rows_n;
    out->tok = tok + pos - start;
    out->pos = pos;
    out->choice = id % LLM_CHOICES_MAX;
    out->known = known;
    out->known_n = pos + 1;
    out->prompt_n = prompt_n < pos + 1 ? prompt_n : pos + 1;
    out->wanted = 0;
    out->mask = NULL;

    return out;
}


/* The logprobs of the prompt's own tokens that are asked for, of a row that
 * ends at end. */
static void
row_scores(sched_t *s, batch_t *b, uint32_t id, uint32_t end)
{
    const sreq_t *sr = &s->reqs[seq_req(id)];
    const uint32_t *known = seq_known(s, id);
    const seq_t *q = seq_at(s, id);
    uint32_t pos, to;
    batch_out_t *out;

    for (to = seq_scores(s, id, end, &pos); pos < to; pos++) {
        out = row_out(b, id, q->prompt_n, known, q->computed, pos);
        out->params = &sr->r->prompt_params;
        out->wanted = known[pos + 1] + 1;
    }
}


/* The tenant pays for prompt tokens up to position end: what was sampled was
 * charged then. */
static inline void
row_charge(sched_t *s, uint32_t id, seq_t *q, uint32_t end)
{
    end = end < q->prompt_n ? end : q->prompt_n;
    if (end > q->charged) {
        sched_charge(s, id, (uint64_t) (end - q->charged) * SCHED_COST_IN);
        q->charged = end;
    }
}


void
sched_row(sched_t *s, batch_t *b, uint32_t id, uint32_t n)
{
    const uint32_t *known = seq_known(s, id);
    const sreq_t *sr = &s->reqs[seq_req(id)];
    seq_t *q = seq_at(s, id);
    uint32_t start = q->computed, end = start + n, known_n = q->known_n;
    uint32_t g, tok = b->tokens_n, outs = b->outs_n;
    batch_row_t *row = &b->rows[b->rows_n];
    batch_blocks_t *blocks;

    assert(b->rows_n < s->c.rows && n <= s->c.tokens - tok);
    assert(q->state == SCHED_RUNNING && n > 0 && end <= known_n);

    row->seq = id;
    row->q_start = start;
    row->q_len = n;
    row->kv_len = end;
    row->tok = tok;
    row->adapter = 0;

    for (g = 0; g < s->groups; g++) {
        blocks = &row->blocks[g];
        blocks->ids = kv_table(s->kv, id, g, &blocks->first, &blocks->n);
        assert((blocks->first + (uint64_t) blocks->n) * s->block_tokens >= end);
    }

    if (n == 1 && end == known_n) {
        b->tokens[tok] = q->last;
    } else {
        memcpy(b->tokens + tok, known + start, n * sizeof(uint32_t));
    }

    if ((sr->flags & LLM_F_PROMPT_LPS) != 0) {
        row_scores(s, b, id, end);
    }
    if (end == known_n) {
        row_out(b, id, q->prompt_n, known, start, end - 1)->params =
            &sr->r->params;
    }
    if (s->c.depth > 0) {
        sched_ahead_row(
            s, b, b->rows_n, id, end == known_n ? b->outs_n - 1 : NONE);
    }

    b->rows_n++;
    b->tokens_n = tok + n;
    sched_load_row(&s->load, start, n, b->outs_n - outs);

    /* a decode counts when it is sampled */
    sched_floor_served(s, id, n - (end == known_n && end > q->prompt_n));
    row_charge(s, id, q, end);
}
