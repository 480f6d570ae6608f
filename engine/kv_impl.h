/*
 * The block pool's inside, shared by kv.c (who holds which block), kv_cache.c
 * (blocks that the prefix tree holds) and kv_pin.c (which of them stay).
 * Nobody else includes it.
 */
#ifndef KV_IMPL_H
#define KV_IMPL_H

#include "kv.h"
#include "radix.h"

#include <assert.h>
#include <stddef.h>

/* What a sequence holds of a group: blocks number first to end - 1. */
typedef struct {
    uint32_t first, end;
} kv_span_t;

typedef struct kv_tier_s kv_tier_t;

/* A step of keep is worth this part of the time it takes to renew all that is
 * cached. */
#define KV_CACHE_KEEP 4

struct kv_s {
    kv_cfg_t c;
    uint32_t window[KV_GROUPS];
    int slides;      /* is there a window? */
    uint32_t row;    /* table entries of one sequence and group */
    uint32_t stride; /* from one's to the next one's */
    uint32_t lots;   /* sequences / KV_LOT, rounded up: see kv_place */
    uint32_t fits;
    uint32_t counts[KV_STATES_N];
    uint32_t *stack;  /* [blocks] owned; the first counts[FREE] are free */
    uint32_t *owner;  /* [blocks] owned; KV_NONE unless private */
    uint8_t *states;  /* [blocks] owned; kv_state_t */
    kv_span_t *spans; /* [places, groups] owned */
    uint32_t *table;  /* [places, groups, stride] owned */

    /* the prefix cache; its time is what it was asked so far */
    radix_t *tree; /* owned; NULL: there is none */
    uint64_t clock;
    uint32_t first_group;           /* whose blocks name the nodes */
    uint32_t tree_group[KV_GROUPS]; /* the tree's number of each group */
    uint32_t *depths; /* [places] owned; how many nodes it has references to */
    uint32_t *nodes;  /* [places, stride] owned; these */
    kv_who_t *whos;   /* [places] owned; of the last match */
    uint32_t *ids;    /* [groups, row] owned; for one call, as is taken */
    uint8_t *taken;   /* [row] owned */

    /* what is kept of it for all: kv_pin.c */
    uint32_t pins_n, pinned;      /* prefixes, and blocks of them */
    uint64_t pin_refs[KV_GROUPS]; /* references, by group */

    kv_tier_t *tier; /* owned; NULL: there is no second one */
};


/*
 * Where a sequence's entries lie.  Names come in lots, a request's, of which
 * the first ones are used most: these lie together, or each would take a line
 * and a page of its own in each of the tables.
 */
#define KV_LOT 16

static inline size_t
kv_place(const kv_t *kv, uint32_t seq)
{
    assert(seq < kv->c.seqs);

    return (size_t) (seq % KV_LOT) * kv->lots + seq / KV_LOT;
}


static inline kv_span_t *
kv_span(const kv_t *kv, uint32_t seq, uint32_t group)
{
    assert(group < kv->c.groups);

    return kv->spans + kv_place(kv, seq) * kv->c.groups + group;
}


static inline uint32_t *
kv_row(const kv_t *kv, uint32_t seq, uint32_t group)
{
    assert(group < kv->c.groups);

    return kv->table + (kv_place(kv, seq) * kv->c.groups + group) * kv->stride;
}


/* The first block that what follows computed tokens looks at. */
static inline uint32_t
kv_first_of(uint32_t window, uint32_t block_tokens, uint32_t computed)
{
    /* the next token looks at its own position, and window - 1 before */
    return window == 0 || computed < window
               ? 0
               : (computed - window + 1) / block_tokens;
}


/* The same of a group. */
static inline uint32_t
kv_first(const kv_t *kv, uint32_t group, uint32_t computed)
{
    return kv_first_of(kv->window[group], kv->c.block_tokens, computed);
}


/* The nodes that seq has references to, and how many. */
static inline uint32_t *
kv_nodes(const kv_t *kv, uint32_t seq)
{
    return kv->nodes + kv_place(kv, seq) * kv->stride;
}


static inline uint32_t *
kv_depth(const kv_t *kv, uint32_t seq)
{
    return kv->depths + kv_place(kv, seq);
}


/* As whose it was matched last. */
static inline kv_who_t *
kv_whose(const kv_t *kv, uint32_t seq)
{
    return kv->whos + kv_place(kv, seq);
}


/* Moves block id from one state to another, and the counts with it. */
static inline void
kv_move(kv_t *kv, uint32_t id, kv_state_t from, kv_state_t to, uint32_t owner)
{
    assert(id < kv->c.blocks);
    assert(kv->states[id] == from && kv->counts[from] > 0);
    assert((to == KV_PRIVATE) == (owner != KV_NONE));

    kv->states[id] = (uint8_t) to;
    kv->owner[id] = owner;
    kv->counts[from]--;
    kv->counts[to]++;
}


/* Makes a block free that was in state from. */
static inline void
kv_put_free(kv_t *kv, uint32_t id, kv_state_t from)
{
    kv_move(kv, id, from, KV_FREE, KV_NONE);
    kv->stack[kv->counts[KV_FREE] - 1] = id;
}


void kv_cache_close(kv_t *kv);

/* Evicts until n blocks are free for seq, which must be possible. */
void kv_cache_room(kv_t *kv, uint32_t seq, uint32_t n);

/* Blocks in the tree that nobody uses. */
uint32_t kv_cache_idle(const kv_t *kv);

/* Seq no longer needs its block number i of a group, which the tree has. */
void kv_cache_leave(kv_t *kv, uint32_t seq, uint32_t group, uint32_t i);

/*
 * Gives up what nodes seq has of the tree; those behind its first tokens
 * tokens leave it, if nobody else has them.
 */
void kv_cache_release(kv_t *kv, uint32_t seq, uint32_t tokens);

/* Its nodes become those of seq to, which has none. */
void kv_cache_hand(kv_t *kv, uint32_t from, uint32_t to);

/* The tree has as many blocks as are in state CACHED. */
void kv_cache_check(const kv_t *kv);
void kv_cache_check_deep(const kv_t *kv);

/* --- the second tier, kv->tier being there: kv_tier.c -------------------- */

void kv_tier_close(kv_t *kv); /* or not */

/* The block is no longer a node's. */
void kv_tier_gone(kv_t *kv, uint32_t block);

/* A sequence gives up the prefix with that tip, or has found it again. */
void kv_tier_idle(kv_t *kv, uint32_t tip, int again);

/* As radix_time, and how long an owner has a share that is not seen. */
void kv_tier_time(kv_t *kv, uint64_t now_us);
void kv_tier_stale(kv_t *kv, uint64_t idle_us);

/* Its sums; for tests, all else, and how many references to the pool's tree
 * it has. */
void kv_tier_check(const kv_t *kv);
uint64_t kv_tier_check_deep(const kv_t *kv);

#endif
