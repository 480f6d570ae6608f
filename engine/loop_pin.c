/*
 * Computes what all prompts begin with, before the first one comes.
 *
 * DESIGN.  A prefix is a sequence as any other, in steps of as many tokens as
 * a batch takes, but nobody waits beside it: so it needs no scheduler, and the
 * steps are written here.  Only whole blocks are computed, for only these can
 * be met.  At the last position a logprob is asked for, which tells whether
 * the logits are finite: a model that diverges there would do so for everyone.
 *
 * The main thread, before the loop's has begun.
 */
#include "loop_pin.h"
#include "log.h"

#include <assert.h>
#include <string.h>
#include <unistd.h>

/* The sequence that computes it: nobody's yet. */
#define SEQ 0

/* Writes the step of ids [at, end), of n in all. */
static void
fill(const loop_pin_t *p, const uint32_t *ids, uint32_t at, uint32_t end,
    uint32_t n, const sample_params_t *params)
{
    batch_t *b = p->b;
    batch_row_t *row = &b->rows[0];
    batch_out_t *out = &b->outs[0];
    uint32_t g;

    assert(end > at && end - at <= b->tokens_max);

    memset(row, 0, sizeof(*row));
    row->seq = SEQ;
    row->q_start = at;
    row->q_len = end - at;
    row->kv_len = end;
    for (g = 0; g < kv_groups(p->kv); g++) {
        row->blocks[g].ids =
            kv_table(p->kv, SEQ, g, &row->blocks[g].first, &row->blocks[g].n);
    }
    memcpy(b->tokens, ids + at, (end - at) * sizeof(*ids));
    b->rows_n = 1;
    b->tokens_n = end - at;
    b->outs_n = end == n;

    memset(out, 0, sizeof(*out));
    out->tok = end - at - 1;
    out->pos = end - 1;
    out->params = params;
    out->known = ids;
    out->known_n = out->prompt_n = end;
    out->wanted = 1 + ids[end - 1];
    out->mask = NULL;
}


int
loop_pin_prefix(const loop_pin_t *p, const uint32_t *ids, uint32_t n)
{
    const sample_params_t params = {
        .top_p = 1, .repetition_penalty = 1, .logprobs = 1};
    const kv_who_t all = kv_everyone();
    uint32_t at, end;
    int rc;

    n -= n % kv_block_tokens(p->kv);
    assert(n > 0 && n < kv_fits(p->kv) && kv_caches(p->kv));
    assert(p->b->rows_max > 0 && p->b->outs_max > 0);

    p->outs[0].err = 0;
    at = kv_match(p->kv, SEQ, &all, ids, n);
    for (; at < n; at = end) {
        end = n - at < p->b->tokens_max ? n : at + p->b->tokens_max;
        rc = kv_grow(p->kv, SEQ, end);
        assert(rc == 0);
        fill(p, ids, at, end, n, &params);
        forward_submit(p->forward, p->b);
        loop_wait(p->forward, p->outs);
        if (p->outs[0].err != 0) {
            (void) kv_drop(p->kv, SEQ, 0);
            return -(int) p->outs[0].err;
        }
        kv_insert(p->kv, SEQ, &all, ids, end);
        kv_slide(p->kv, SEQ, end, n);
    }

    rc = kv_pin(p->kv, SEQ);
    assert(rc == 0);
    (void) rc;
    kv_check(p->kv);

    return 0;
}


/*
 * What runs could be ended with an error each; but a group does not come back,
 * so there would be nothing to go on with.  A supervisor starts the engine
 * anew, and workers answer 503 meanwhile.
 */
void
loop_wait(forward_t *f, sample_out_t *out)
{
    const char *why;

    if (forward_wait(f, out) == 0) {
        return;
    }

    why = forward_error(f);
    log_line(LOG_ALERT, "a step cannot end: %s",
        why != NULL ? why : "its device does not say why");
    _exit(1);
}
