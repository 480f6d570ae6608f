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


/* An output of the row that is being added, at position pos. */
static batch_out_t *
row_out(sched_t *s, batch_t *b, uint32_t id, uint32_t pos)
{
    const seq_t *q = seq_at(s, id);
    batch_out_t *out = &b->outs[b->outs_n++];

    assert(b->outs_n <= b->outs_max && pos >= q->computed);

    out->row = b->rows_n;
    out->tok = b->tokens_n + pos - q->computed;
    out->pos = pos;
    out->choice = id % LLM_CHOICES_MAX;
    out->known = seq_known(s, id);
    out->known_n = pos + 1;
    out->prompt_n = q->prompt_n < pos + 1 ? q->prompt_n : pos + 1;
    out->wanted = 0;

    return out;
}


void
sched_row(sched_t *s, batch_t *b, uint32_t id, uint32_t n)
{
    seq_t *q = seq_at(s, id);
    const req_t *r = s->reqs[seq_req(id)].r;
    batch_row_t *row = &b->rows[b->rows_n];
    uint32_t end = q->computed + n, pos, to, g, outs = b->outs_n;
    batch_blocks_t *blocks;
    batch_out_t *out;

    assert(b->rows_n < s->c.rows && n <= s->c.tokens - b->tokens_n);
    assert(q->state == SCHED_RUNNING && n > 0 && end <= q->known_n);

    row->seq = id;
    row->q_start = q->computed;
    row->q_len = n;
    row->kv_len = end;
    row->tok = b->tokens_n;
    row->adapter = 0;

    for (g = 0; g < s->groups; g++) {
        blocks = &row->blocks[g];
        blocks->ids = kv_table(s->kv, id, g, &blocks->first, &blocks->n);
        assert((blocks->first + (uint64_t) blocks->n) * s->block_tokens >= end);
    }

    if (n == 1) {
        b->tokens[b->tokens_n] =
            end == q->known_n ? q->last : seq_known(s, id)[q->computed];
    } else {
        memcpy(b->tokens + b->tokens_n, seq_known(s, id) + q->computed,
            n * sizeof(uint32_t));
    }

    for (to = seq_scores(s, id, end, &pos); pos < to; pos++) {
        out = row_out(s, b, id, pos);
        out->params = &r->prompt_params;
        out->wanted = seq_known(s, id)[pos + 1] + 1;
    }
    if (end == q->known_n) {
        out = row_out(s, b, id, end - 1);
        out->params = &r->params;
    }
    if (s->c.depth > 0) {
        sched_ahead_row(
            s, b, b->rows_n, id, end == q->known_n ? b->outs_n - 1 : NONE);
    }

    b->rows_n++;
    b->tokens_n += n;

    sched_load_row(&s->load, row->q_start, n, b->outs_n - outs);

    /* a decode counts when it is sampled */
    sched_floor_served(s, id, n - (end == q->known_n && end > q->prompt_n));

    /* what was sampled was charged then */
    if (q->charged < q->prompt_n && end > q->charged) {
        end = end < q->prompt_n ? end : q->prompt_n;
        sched_charge(s, id, (uint64_t) (end - q->charged) * SCHED_COST_IN);
        q->charged = end;
    }
}
