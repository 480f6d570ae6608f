/*
 * A pool of KV blocks: who holds which.
 *
 * DESIGN.  A block is an id.  Each is in exactly one state, kept beside its
 * owner in one word per block, and the states are counted as they change, so
 * that "the counts add up" is checked on every step for nothing.  The free
 * ids are a stack: the block freed last is taken first, while its memory may
 * still be in a cache.
 *
 *      stack   [ 7 3 9 ... ]          free ids, top at counts[FREE]
 *      owner   [ seq, NONE, ... ]     by block
 *      table   [ 4 0 8 . . ]          by sequence: ids in order of position
 *               ^-- have[seq] --^
 *
 * A sequence's table is a row of one array that is sized for the longest
 * sequence; pages of it that no sequence has reached cost nothing.
 *
 * INVARIANTS.  The counts add up to the pool; a private block is in the table
 * of its owner, once, and in no other; taking or freeing one block is O(1).
 *
 * Owned and called by the loop thread only, through the scheduler.
 */
#include "kv.h"
#include "mem.h"

#include <assert.h>
#include <stddef.h>

struct kv_s {
    uint32_t total;
    uint32_t block_tokens;
    uint32_t seqs;
    uint32_t row; /* table entries of one sequence */
    uint32_t counts[KV_STATES_N];
    uint32_t *stack; /* [total] owned; the first counts[FREE] are free */
    uint32_t *owner; /* [total] owned; KV_NONE unless private */
    uint8_t *states; /* [total] owned; kv_state_t */
    uint32_t *have;  /* [seqs] owned; blocks in each table */
    uint32_t *table; /* [seqs, row] owned */
};


kv_t *
kv_open(uint32_t blocks, uint32_t block_tokens, uint32_t seqs, uint32_t context)
{
    kv_t *kv;
    uint32_t i;

    assert(blocks > 0 && blocks < KV_NONE);
    assert(block_tokens > 0 && seqs > 0);
    assert(context > 0 && context <= UINT32_MAX - block_tokens);

    kv = mem_zero(1, sizeof(*kv));
    if (kv == NULL) {
        return NULL;
    }

    kv->total = blocks;
    kv->block_tokens = block_tokens;
    kv->seqs = seqs;
    kv->row = kv_blocks_for(kv, context);
    kv->stack = mem_zero(blocks, sizeof(uint32_t));
    kv->owner = mem_zero(blocks, sizeof(uint32_t));
    kv->states = mem_zero(blocks, sizeof(uint8_t));
    kv->have = mem_zero(seqs, sizeof(uint32_t));
    kv->table = mem_zero(seqs, kv->row * sizeof(uint32_t));

    if (kv->stack == NULL || kv->owner == NULL || kv->states == NULL
        || kv->have == NULL || kv->table == NULL) {
        kv_close(kv);
        return NULL;
    }

    /* lowest ids on top, so that a small load touches little memory */
    for (i = 0; i < blocks; i++) {
        kv->stack[i] = blocks - 1 - i;
        kv->owner[i] = KV_NONE;
        kv->states[i] = KV_FREE;
    }
    kv->counts[KV_FREE] = blocks;

    return kv;
}


void
kv_close(kv_t *kv)
{
    if (kv == NULL) {
        return;
    }

    mem_free(kv->stack);
    mem_free(kv->owner);
    mem_free(kv->states);
    mem_free(kv->have);
    mem_free(kv->table);
    mem_free(kv);
}


uint32_t
kv_blocks_for(const kv_t *kv, uint32_t tokens)
{
    assert(kv != NULL && kv->block_tokens > 0);

    /* not (tokens + block_tokens - 1): that may overflow */
    return tokens / kv->block_tokens + (tokens % kv->block_tokens != 0);
}


uint32_t
kv_missing(const kv_t *kv, uint32_t seq, uint32_t tokens)
{
    uint32_t need = kv_blocks_for(kv, tokens);

    assert(seq < kv->seqs);
    assert(need <= kv->row);
    assert(kv->have[seq] <= kv->row);

    return need > kv->have[seq] ? need - kv->have[seq] : 0;
}


/* Moves block id from one state to another, and the counts with it. */
static void
kv_move(kv_t *kv, uint32_t id, kv_state_t from, kv_state_t to, uint32_t owner)
{
    assert(id < kv->total);
    assert(kv->states[id] == from && kv->counts[from] > 0);
    assert((to == KV_PRIVATE) == (owner != KV_NONE));

    kv->states[id] = (uint8_t) to;
    kv->owner[id] = owner;
    kv->counts[from]--;
    kv->counts[to]++;
}


int
kv_grow(kv_t *kv, uint32_t seq, uint32_t tokens)
{
    uint32_t n = kv_missing(kv, seq, tokens), id;
    uint32_t *row = kv->table + (size_t) seq * kv->row;

    if (n > kv->counts[KV_FREE]) {
        return -1;
    }

    while (n-- > 0) {
        id = kv->stack[kv->counts[KV_FREE] - 1];
        kv_move(kv, id, KV_FREE, KV_PRIVATE, seq);
        row[kv->have[seq]++] = id;
    }

    assert(kv->have[seq] <= kv->row);
    assert(kv_missing(kv, seq, tokens) == 0);

    return 0;
}


uint32_t
kv_release(kv_t *kv, uint32_t seq)
{
    uint32_t n, i, id;
    const uint32_t *row;

    assert(seq < kv->seqs);
    assert(kv->have[seq] <= kv->counts[KV_PRIVATE]);

    row = kv->table + (size_t) seq * kv->row;
    n = kv->have[seq];

    /* backwards: the first block, most likely to be used again, on top */
    for (i = n; i-- > 0;) {
        id = row[i];
        assert(kv->owner[id] == seq);
        kv_move(kv, id, KV_PRIVATE, KV_FREE, KV_NONE);
        kv->stack[kv->counts[KV_FREE] - 1] = id;
    }
    kv->have[seq] = 0;

    return n;
}


const uint32_t *
kv_table(const kv_t *kv, uint32_t seq, uint32_t *n)
{
    assert(seq < kv->seqs);
    assert(kv->have[seq] <= kv->row);

    *n = kv->have[seq];

    return kv->table + (size_t) seq * kv->row;
}


uint32_t
kv_total(const kv_t *kv)
{
    return kv->total;
}


uint32_t
kv_block_tokens(const kv_t *kv)
{
    return kv->block_tokens;
}


uint32_t
kv_count(const kv_t *kv, kv_state_t state)
{
    assert((unsigned) state < KV_STATES_N);

    return kv->counts[state];
}


void
kv_check(const kv_t *kv)
{
    uint64_t sum = 0;
    unsigned i;

    for (i = 0; i < KV_STATES_N; i++) {
        assert(kv->counts[i] <= kv->total);
        sum += kv->counts[i];
    }

    assert(sum == kv->total);
}


void
kv_check_deep(const kv_t *kv)
{
    uint32_t counts[KV_STATES_N] = {0};
    uint32_t i, seq, id;
    uint64_t held = 0;

    kv_check(kv);

    for (i = 0; i < kv->total; i++) {
        assert(kv->states[i] < KV_STATES_N);
        assert((kv->states[i] == KV_PRIVATE) == (kv->owner[i] != KV_NONE));
        counts[kv->states[i]]++;
    }

    for (i = 0; i < KV_STATES_N; i++) {
        assert(counts[i] == kv->counts[i]);
    }

    for (i = 0; i < kv->counts[KV_FREE]; i++) {
        assert(kv->states[kv->stack[i]] == KV_FREE);
    }

    /* owners agree and the sum does, so no block is in two tables */
    for (seq = 0; seq < kv->seqs; seq++) {
        held += kv->have[seq];
        for (i = 0; i < kv->have[seq]; i++) {
            id = kv->table[(size_t) seq * kv->row + i];
            assert(id < kv->total && kv->owner[id] == seq);
        }
    }
    assert(held == kv->counts[KV_PRIVATE]);
}
