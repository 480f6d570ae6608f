/*
 * A scheduler with its pool, batch and requests, for the tests of its parts.
 */
#ifndef SCHED_WORLD_H
#define SCHED_WORLD_H

#include "sched.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#define REQS 64
#define BT   4
#define END  2 /* the token that ends a text */

typedef struct {
    kv_t *kv;
    sched_t *s;
    batch_t b;
    sched_take_t takes[64];
    req_t reqs[REQS];
    uint32_t ids[4096]; /* every prompt is a piece of it */
    uint64_t now;
} world_t;


/* Groups of layers with these windows share the blocks. */
/* With settings as they are in c but for the sizes. */
static inline world_t *
world_open_as(uint32_t rows, uint32_t tokens, uint32_t context, uint32_t blocks,
    uint32_t groups, const uint32_t *windows, sched_cfg_t c)
{
    world_t *w = calloc(1, sizeof(*w));
    kv_cfg_t kc = {
        blocks, BT, REQS * LLM_CHOICES_MAX, context, tokens, groups, windows};
    uint32_t i;

    c.reqs = REQS;
    c.rows = rows;
    c.tokens = tokens;
    c.context = context;
    assert_non_null(w);
    w->kv = kv_open(&kc);
    assert_non_null(w->kv);
    w->s = sched_open(&c, w->kv);
    assert_non_null(w->s);
    w->b.rows_max = w->b.outs_max = rows;
    w->b.tokens_max = tokens;
    w->b.rows = calloc(rows, sizeof(batch_row_t));
    w->b.outs = calloc(rows, sizeof(batch_out_t));
    w->b.tokens = calloc(tokens, sizeof(uint32_t));
    for (i = 0; i < 4096; i++) {
        w->ids[i] = 100 + i;
    }

    return w;
}


static inline world_t *
world_open(uint32_t rows, uint32_t tokens, uint32_t context, uint32_t blocks)
{
    static const uint32_t none[1];
    sched_cfg_t c;

    memset(&c, 0, sizeof(c));

    return world_open_as(rows, tokens, context, blocks, 1, none, c);
}


static inline void
world_close(world_t *w)
{
    kv_check_deep(w->kv);
    sched_close(w->s);
    kv_close(w->kv);
    free(w->b.rows);
    free(w->b.outs);
    free(w->b.tokens);
    free(w);
}


/* A request with usual values, not yet added. */
static inline req_t *
make(world_t *w, uint32_t i, uint32_t len, uint32_t max_tokens)
{
    req_t *r = &w->reqs[i];

    memset(r, 0, sizeof(*r));
    r->n = r->prompts_n = r->choices = 1;
    r->prompts[0].ids = w->ids;
    r->prompts[0].len = len;
    r->max_tokens = max_tokens;
    r->weight = 1;
    r->arrival_us = w->now;

    return r;
}


static inline void
add(world_t *w, uint32_t i, uint32_t len, uint32_t max_tokens)
{
    assert_int_equal(sched_add(w->s, i, make(w, i, len, max_tokens)), 0);
}


static inline void
plan(world_t *w)
{
    w->now += 1000;
    sched_plan(w->s, w->now, &w->b);
    kv_check_deep(w->kv);
}


/* Runs the planned step; each output samples 1000 + its position. */
static inline void
commit(world_t *w)
{
    uint32_t i;

    memset(w->takes, 0, sizeof(w->takes));
    for (i = 0; i < w->b.outs_n; i++) {
        w->takes[i].token = 1000 + w->b.outs[i].pos;
    }
    sched_commit(w->s, &w->b, w->takes);
}


static inline void
turn(world_t *w)
{
    plan(w);
    commit(w);
}


/* Ends what is done; how many. */
static inline int
reap(world_t *w)
{
    uint32_t i;
    int n = 0;

    for (i = 0; i < w->b.outs_n; i++) {
        if (sched_done(w->s, w->takes[i].req)) {
            sched_end(w->s, w->takes[i].req);
            w->takes[i].finish = 0;
            n++;
        }
    }

    return n;
}


/* Has outputs of one token end, so that more are expected to be short. */
static inline void
teach_short(world_t *w)
{
    uint32_t i, t, done = 0;

    for (i = REQS - 6; i < REQS; i++) {
        add(w, i, 3, 1);
    }
    for (t = 0; t < 50 && done < 6; t++) {
        turn(w);
        done += (uint32_t) reap(w);
    }
    assert_int_equal(done, 6);
}


/* The row of request i's choice 0 in the batch, or NULL. */
static inline const batch_row_t *
row_of(const world_t *w, uint32_t i)
{
    uint32_t k;

    for (k = 0; k < w->b.rows_n; k++) {
        if (w->b.rows[k].seq == i * LLM_CHOICES_MAX) {
            return &w->b.rows[k];
        }
    }

    return NULL;
}


static inline sched_state_t
state_of(const world_t *w, uint32_t i)
{
    uint32_t known, computed;

    return sched_seq(w->s, i * LLM_CHOICES_MAX, &known, &computed);
}

#endif
