/*
 * The pool of KV blocks and the block table of each sequence: numbers only,
 * the memory behind a block is the back end's.  See kv.c.
 */
#ifndef KV_H
#define KV_H

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

#define KV_NONE UINT32_MAX

typedef struct kv_s kv_t;

/*
 * A pool of blocks of block_tokens tokens, and tables for seqs sequences of
 * at most context tokens.  NULL when out of memory.
 */
kv_t *kv_open(
    uint32_t blocks, uint32_t block_tokens, uint32_t seqs, uint32_t context);
void kv_close(kv_t *kv);

/* How many blocks hold that many tokens. */
uint32_t kv_blocks_for(const kv_t *kv, uint32_t tokens);

/* How many more blocks seq needs to hold tokens; 0 if it has enough. */
uint32_t kv_missing(const kv_t *kv, uint32_t seq, uint32_t tokens);

/*
 * Gives seq the blocks it lacks for tokens tokens.  0, or -1 with nothing
 * changed if fewer are free.  tokens must be within context.
 */
int kv_grow(kv_t *kv, uint32_t seq, uint32_t tokens);

/* Frees all blocks of seq; how many there were. */
uint32_t kv_release(kv_t *kv, uint32_t seq);

/* Seq's block ids, *n of them; valid until it grows or is released. */
const uint32_t *kv_table(const kv_t *kv, uint32_t seq, uint32_t *n);

uint32_t kv_total(const kv_t *kv);
uint32_t kv_block_tokens(const kv_t *kv);

/* Blocks in one state. */
uint32_t kv_count(const kv_t *kv, kv_state_t state);

/* O(1): asserts that the states' counts add up to the pool. */
void kv_check(const kv_t *kv);

/* O(blocks), for tests: asserts that every block is where it says it is. */
void kv_check_deep(const kv_t *kv);

#endif
