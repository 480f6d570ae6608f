/*
 * Would catch: a message of another rank that leads step_wire_get outside of
 * its bytes, or is taken though operations would go outside of tokens, blocks
 * or the cache with it, and one that is not written again as it was.
 *
 * The first two bytes choose the limits, the rest is the message, in memory of
 * exactly its size.
 */
#include "step_wire.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


/* What must hold, also where assert() is compiled out. */
static void
must(int holds)
{
    if (!holds) {
        abort();
    }
}


static step_wire_limits_t
choose(const uint8_t *b)
{
    step_wire_limits_t l = {.tokens = 64,
        .rows = 8,
        .outs = 16,
        .blocks = 200,
        .context = 256,
        .vocab = 1000,
        .pool = 50,
        .host = (b[0] & 8) != 0 ? 20 : 0,
        .block_tokens = (b[0] & 16) != 0 ? 4 : 16,
        .groups = 1 + (b[0] & 7)};
    uint32_t g;

    for (g = 0; g < l.groups; g++) {
        l.window[g] = (b[1] >> g & 1) != 0 ? 8u << (g & 3) : 0;
    }

    return l;
}


/* The key of each position that a token looks at must have its block. */
static void
check_row(const step_wire_t *w, const kn_row_t *r)
{
    const step_wire_limits_t *l = &w->limits;
    uint32_t g, p, first;
    const kn_blocks_t *b;

    must(r->q_len >= 1 && r->q_start + r->q_len <= l->context);
    must(r->tok + r->q_len <= w->step.tokens_n);
    for (g = 0; g < l->groups; g++) {
        b = &r->blocks[g];
        must(b->at + b->n <= w->step.blocks_n);
        first = l->window[g] > 0 && r->q_start + 1 > l->window[g]
                    ? r->q_start + 1 - l->window[g]
                    : 0;
        for (p = first; p < r->q_start + r->q_len; p++) {
            must(p / l->block_tokens >= b->first);
            must(p / l->block_tokens - b->first < b->n);
            must(w->step.blocks[b->at + p / l->block_tokens - b->first]
                 < l->pool);
        }
    }
}


static void
check(const step_wire_t *w)
{
    uint32_t i;

    if (w->type == STEP_WIRE_STEP) {
        for (i = 0; i < w->step.tokens_n; i++) {
            must(w->step.tokens[i] < w->limits.vocab);
        }
        for (i = 0; i < w->step.rows_n; i++) {
            check_row(w, &w->step.rows[i]);
        }
        for (i = 0; i < w->step.outs_n; i++) {
            must(w->step.outs[i].tok < w->step.tokens_n);
        }
    } else if (w->type == STEP_WIRE_COPY) {
        for (i = 0; i < w->n; i++) {
            must(w->from[i] < (w->in ? w->limits.host : w->limits.pool));
            must(w->to[i] < (w->in ? w->limits.pool : w->limits.host));
        }
    } else {
        must(w->type == STEP_WIRE_END);
    }
}


static size_t
write_again(const step_wire_t *w, uint8_t *p)
{
    switch (w->type) {
    case STEP_WIRE_STEP:
        return step_wire_step(p, &w->limits, &w->step);
    case STEP_WIRE_COPY:
        return step_wire_copy(p, &w->limits, (int) w->in, w->from, w->to, w->n);
    default:
        return step_wire_end(p);
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    step_wire_limits_t l;
    char err[128] = "";
    uint8_t *p, *again;
    step_wire_t w;
    size_t n;

    if (size < 2 || size > 1 << 16) {
        return 0;
    }
    l = choose(data);
    n = size - 2;
    p = malloc(n > 0 ? n : 1);
    again = malloc(step_wire_bytes(&l));
    must(p != NULL && again != NULL && step_wire_open(&w, &l) == 0);
    memcpy(p, data + 2, n);

    if (step_wire_get(&w, p, n, err, sizeof(err)) == 0) {
        check(&w);
        must(n <= step_wire_bytes(&l));
        must(write_again(&w, again) == n && memcmp(p, again, n) == 0);
    } else {
        must(err[0] != '\0' && strchr(err, '\n') == NULL);
    }

    step_wire_close(&w);
    free(again);
    free(p);

    return 0;
}
