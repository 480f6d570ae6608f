/*
 * The second tier of the prefix cache: what the pool gives up goes to another
 * arena, and comes back for who wants it.  Numbers only, as in kv.h: the caller
 * does the copying (ferry.h).  See kv_tier.c.
 *
 * Owned and called by the loop thread only.  All of it may be called of a pool
 * without a second tier, and does nothing then.
 */
#ifndef KV_TIER_H
#define KV_TIER_H

#include "kv.h"

#include <stdint.h>

/* Blocks that are worth a copy: fewer are computed as fast. */
#define KV_TIER_LEAST 2

typedef struct {
    uint32_t slots;  /* blocks that the second arena has */
    uint32_t owners; /* as in kv_cache */
    uint64_t seed;
    int again; /* only what was wanted twice is taken in, or was taken from
                * one who will want it again */
} kv_tier_cfg_t;

/* Copying that is to be done: blocks[i] to slots[i], or back. */
typedef struct {
    uint32_t job, at; /* the tier's own names */
    uint32_t n;
    int in;                 /* from the second arena to the pool */
    const uint32_t *blocks; /* [n] until kv_tier_done */
    const uint32_t *slots;  /* [n] */
} kv_tier_copy_t;

typedef struct {
    uint32_t slots, used, transit; /* all, those with blocks, being written */
    uint64_t out, in;              /* blocks that were copied, each way */
    uint64_t failed;               /* copies */
    uint64_t lost;                 /* blocks evicted before they were copied */
} kv_tier_stats_t;

/*
 * After kv_cache, before the first use.  0, or -1 when out of memory.  Models
 * of which layers have windows, or without a cache, get no second tier.
 */
int kv_tier(kv_t *kv, const kv_tier_cfg_t *c);

/* Is there one? */
int kv_tiers(const kv_t *kv);

/*
 * Begins to bring what follows the blocks that seq has found, of the first n
 * tokens, if there is enough of it and spare blocks remain available.  They
 * will be cached, for seq as for others; whatever becomes of seq.  Returns what
 * to ask kv_tier_coming for; 0: nothing comes.
 */
uint64_t kv_tier_fetch(kv_t *kv, uint32_t seq, const kv_who_t *who,
    const uint32_t *tokens, uint32_t n, uint32_t spare);

/* Is that still on its way? */
int kv_tier_coming(const kv_t *kv, uint64_t ticket);

/* Seq, which is about to lose its blocks, will want them again. */
void kv_tier_save(kv_t *kv, uint32_t seq);

/*
 * The next copy of at most most blocks; 1, or 0: there is none now.  It may be
 * begun at once: what it reads was written by steps that are committed, and
 * nobody looks at what it writes.
 */
int kv_tier_next(kv_t *kv, uint32_t most, kv_tier_copy_t *c);

/* The copy has ended, in any order; whether well. */
void kv_tier_done(kv_t *kv, const kv_tier_copy_t *c, int ok);

/* Blocks that copies under way keep from being had, at most. */
uint32_t kv_tier_keeps(const kv_t *kv);

void kv_tier_stats(const kv_t *kv, kv_tier_stats_t *st);

#endif
