/*
 * The second tier in a run: copies that take turns, and go wrong; and what lies
 * in the blocks, which must be what the sequences that use them have computed.
 */
#ifndef TIER_H
#define TIER_H

#include "kv_tier.h"
#include "rnd.h"
#include "sched.h"

typedef struct tier_s tier_t;

typedef struct {
    uint32_t slots; /* 0: there is no second tier */
    uint32_t turn;  /* blocks that a turn may begin to copy */
    uint32_t late;  /* turns that a copy takes, at most */
    uint32_t bad;   /* one of so many copies fails; 0: none */
    int again;      /* only what is wanted twice is copied */
} tier_cfg_t;

/* kv has a cache, and gets its second tier here. */
tier_t *tier_open(
    const tier_cfg_t *c, kv_t *kv, uint32_t owners, uint64_t seed);
void tier_close(tier_t *t);

/* Before a plan: some copies end, others begin. */
void tier_turn(tier_t *t);

/* Are there any under way? */
int tier_busy(const tier_t *t);

/* A row of a step, of a sequence that begins with n tokens and goes on with
 * zeros: what it reads is what it should be; what it computes is there now. */
void tier_row(
    tier_t *t, const batch_row_t *row, const uint32_t *tokens, uint32_t n);

#endif
