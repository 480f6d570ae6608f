/*
 * The pool of KV blocks and the block tables of each sequence: numbers only,
 * the memory behind a block is the back end's.  See kv.c.
 */
#ifndef KV_H
#define KV_H

#include "radix.h"

#include <stdint.h>

/* X(state, field of the state page, meaning): a block is exactly one */
#define KV_STATES(X)                                                           \
    X(FREE, blocks_free, "nobody's")                                           \
    X(PRIVATE, blocks_private, "one sequence's, named by its owner")           \
    X(CACHED, blocks_cached, "a node's of the prefix tree")                    \
    X(TRANSIT, blocks_transit, "being copied; nobody may take it")

/* clang-format off */
typedef enum {
#define X(name, field, doc) KV_##name,
    KV_STATES(X)
#undef X
    KV_STATES_N
} kv_state_t;
/* clang-format on */

#define KV_NONE   UINT32_MAX
#define KV_GROUPS 8

typedef struct kv_s kv_t;

/*
 * A group of layers has blocks of its own for the same positions.  One with a
 * window holds, besides those of the next step, the blocks of the last window
 * positions only.
 */
typedef struct {
    uint32_t blocks; /* in the pool */
    uint32_t block_tokens;
    uint32_t seqs;
    uint32_t context;       /* longest sequence, tokens */
    uint32_t step;          /* most tokens of a sequence in one step */
    uint32_t groups;        /* 1 to KV_GROUPS */
    const uint32_t *window; /* [groups], 0 is none; borrowed by kv_open */
} kv_cfg_t;

/* Whose blocks they are, in the prefix cache; see radix.h. */
typedef struct {
    uint64_t space; /* who has another one never meets these */
    uint32_t owner;
    uint32_t weight;
    uint32_t keep;
} kv_who_t;

/* NULL when out of memory. */
kv_t *kv_open(const kv_cfg_t *c);
void kv_close(kv_t *kv);

/*
 * The most blocks, over all groups, that a sequence of tokens ever holds: what
 * the pool must have for it to be computed at all.
 */
uint64_t kv_blocks_for(const kv_cfg_t *c, uint32_t tokens);

/* The longest sequence that fits in the pool alone, at most context, beside
 * what is pinned. */
uint32_t kv_longest(const kv_cfg_t *c);
uint32_t kv_fits(const kv_t *kv); /* the same */

/*
 * Prefixes that all begin with: at start a sequence is matched, computed and
 * inserted as everyone's, in whole blocks, at least one, and then pinned.  They
 * stay, and are met in every namespace; seq has no blocks afterwards.  0, or
 * -1 when there are KV_PINS_MAX already.
 */
#define KV_PINS_MAX 64
#define KV_EVERYONE UINT64_MAX /* the namespace; no request may have it */
kv_who_t kv_everyone(void);
int kv_pin(kv_t *kv, uint32_t seq);

/* The most blocks that a pinned prefix of tokens keeps; those kept. */
uint64_t kv_pin_blocks(const kv_cfg_t *c, uint32_t tokens);
uint32_t kv_pinned(const kv_t *kv);

/* How many more blocks seq needs to hold tokens; 0 if it has enough. */
uint32_t kv_missing(const kv_t *kv, uint32_t seq, uint32_t tokens);

/* How many tokens seq has blocks for in all groups, those that have left a
 * window included. */
uint64_t kv_reach(const kv_t *kv, uint32_t seq);

/*
 * Gives seq the blocks it lacks for tokens tokens; in a group with a window
 * as many of them as the next step can reach.  0, or -1 with nothing changed
 * if fewer are available.  tokens must be within context.
 */
int kv_grow(kv_t *kv, uint32_t seq, uint32_t tokens);

/*
 * The first computed tokens of seq are: the blocks that fell out of a window
 * become those of the positions ahead, up to tokens, or are freed.  Cached
 * ones are left to the cache; what that leaves missing, kv_grow must get.
 */
void kv_slide(kv_t *kv, uint32_t seq, uint32_t computed, uint32_t tokens);

/* Has any group a window, so that this does something? */
int kv_slides(const kv_t *kv);

/*
 * Takes all blocks of seq; how many there were.  What is in the cache stays
 * there; with kv_drop only as far as the first tokens tokens go.
 */
uint32_t kv_release(kv_t *kv, uint32_t seq);
uint32_t kv_drop(kv_t *kv, uint32_t seq, uint32_t tokens);

/*
 * Seq to, which has nothing, gets all that from has.  What kv_table said of
 * from can be read until from is given blocks again.
 */
void kv_hand(kv_t *kv, uint32_t from, uint32_t to);

/*
 * From now on blocks are kept for who comes with the same tokens; owners is
 * how many of those are told apart, and nobody outside may know seed.  To be
 * called once, before the first use; 0, or -1 when out of memory.
 */
int kv_cache(kv_t *kv, uint32_t owners, uint64_t seed);

/* Is there a cache?  Not for a model all of whose layers have windows. */
int kv_caches(const kv_t *kv);

/*
 * Gives seq, which has no blocks, those of the longest prefix of tokens that
 * is in the cache, in whole blocks within the first n.  Returns how many
 * tokens they hold.
 */
uint32_t kv_match(kv_t *kv, uint32_t seq, const kv_who_t *who,
    const uint32_t *tokens, uint32_t n);

/*
 * How many of the first n tokens kv_match would find, nearly: of the first
 * group without a window, and going on from where the last look at the same
 * tokens ended, in so many steps.  See radix_look.
 */
uint32_t kv_look(const kv_t *kv, uint64_t space, const uint32_t *tokens,
    uint32_t n, radix_spot_t *spot, uint32_t *steps);

/* The next kv_look from there is to find what it needs on its way from memory.
 */
void kv_look_fetch(
    const kv_t *kv, const uint32_t *tokens, const radix_spot_t *spot);

/*
 * The first computed of seq's tokens are: what of their blocks is full serves
 * others, too, from now on.
 */
void kv_insert(kv_t *kv, uint32_t seq, const kv_who_t *who,
    const uint32_t *tokens, uint32_t computed);

/*
 * The next kv_insert of seq is to find what it needs on its way from memory:
 * some calls of others before it, first of stage 0 and then of stage 1.
 */
void kv_insert_fetch(const kv_t *kv, uint32_t seq, int stage);

/* Blocks that can be had: free ones, and cached ones that nobody uses. */
uint32_t kv_avail(const kv_t *kv);

/*
 * Of want blocks, how many seq can have without taking what is kept for other
 * owners than that of its last match.
 */
uint32_t kv_room(const kv_t *kv, uint32_t seq, uint32_t want);

/* The most blocks that seq can ever come to have so, when others have ended. */
uint32_t kv_most(const kv_t *kv, uint32_t seq);

/*
 * What is kept: of each owner's share of the blocks, by weight, floor percent,
 * as far as it has used it, unless it was not seen for idle_us, 0: ever.  So
 * it begins with KV_FLOOR and KV_IDLE_US.
 */
#define KV_FLOOR   50
#define KV_IDLE_US 600000000ull
void kv_shares(kv_t *kv, uint32_t floor, uint64_t idle_us);

/* It is now; a time that goes back is none. */
void kv_time(kv_t *kv, uint64_t now_us);

/* How many of an owner's cached blocks are kept from others, if it has so
 * many. */
uint64_t kv_kept(const kv_t *kv, uint32_t owner);

/* How many of their first blocks two sequences share. */
uint32_t kv_shared(const kv_t *kv, uint32_t a, uint32_t b);

/* How many of seq's blocks can be had once it is released: nobody else has
 * them. */
uint32_t kv_own(const kv_t *kv, uint32_t seq);

/* Blocks that the cache gave up so far, and those in it of one owner. */
uint64_t kv_evicted(const kv_t *kv);
uint64_t kv_owned(const kv_t *kv, uint32_t owner);

/* How many blocks seq holds, over all groups. */
uint32_t kv_held(const kv_t *kv, uint32_t seq);

/*
 * Seq's blocks of a group: *n ids, the first of which is the sequence's block
 * number *first; valid until it grows, slides or is released.
 */
const uint32_t *kv_table(
    const kv_t *kv, uint32_t seq, uint32_t group, uint32_t *first, uint32_t *n);

uint32_t kv_groups(const kv_t *kv);
uint32_t kv_seqs(const kv_t *kv);
uint32_t kv_total(const kv_t *kv);
uint32_t kv_block_tokens(const kv_t *kv);

/* Blocks in one state. */
uint32_t kv_count(const kv_t *kv, kv_state_t state);

/* O(1): asserts that the states' counts add up to the pool. */
void kv_check(const kv_t *kv);

/* O(blocks), for tests: asserts that every block is where it says it is. */
void kv_check_deep(const kv_t *kv);

#endif
