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
 *      table   [ 4 0 8 . . ]          by sequence and group: ids in order of
 *                                     position, from block number first to end
 *
 * GROUPS.  The layers of a model may look back to different positions.  Those
 * that do alike are a group (model_groups()), whose blocks are its own; blocks
 * of all groups have one size and come from one pool, so nothing has to be
 * guessed about how long sequences will be.  A group with a window holds what
 * the next step can reach and no more:
 *
 *      positions   . . . . . | window | step . |
 *      first ----------------^                 ^---- end, at the latest
 *
 * What a sequence holds of such a group is bounded by window_blocks();
 * kv_slide() gives it the blocks that it leaves behind again as those it comes
 * to, but for those that are cached: these are for others then.
 *
 * A table is a row of one array that is sized for the longest sequence; pages
 * of it that no sequence has reached cost nothing.
 *
 * What of a sequence's blocks is cached (kv_cache.c) stands in its table like
 * the rest.
 *
 * INVARIANTS.  The counts add up to the pool; a private block is in one table
 * of its owner, once, and in no other; taking or freeing one block is O(1), or
 * O(log) when the cache must give one up.
 *
 * Owned and called by the loop thread only, through the scheduler.
 */
#include "kv_impl.h"
#include "mem.h"

#include <string.h>


/* Entries by which a row is longer than the context needs, which often is a
 * power of two: then all rows would begin in the same sets of the caches. */
#define KV_SKEW 16

static uint32_t
blocks_of(uint32_t tokens, uint32_t block_tokens)
{
    assert(block_tokens > 0);

    /* not (tokens + block_tokens - 1): that may overflow */
    return tokens / block_tokens + (tokens % block_tokens != 0);
}


/* The most blocks that a sequence holds of a group with that window. */
static uint64_t
window_blocks(const kv_cfg_t *c, uint32_t window)
{
    /* the window ends, and the step begins, anywhere in a block */
    return ((uint64_t) window + c->step - 2) / c->block_tokens + 2;
}


uint64_t
kv_blocks_for(const kv_cfg_t *c, uint32_t tokens)
{
    uint32_t g;
    uint64_t sum = 0, n, most;

    assert(c->step > 0 && c->groups >= 1 && c->groups <= KV_GROUPS);

    for (g = 0; g < c->groups; g++) {
        n = blocks_of(tokens, c->block_tokens);
        most = window_blocks(c, c->window[g]);
        sum += c->window[g] > 0 && most < n ? most : n;
    }

    return sum;
}


/* By bisection: what a sequence takes grows with its length. */
uint32_t
kv_longest(const kv_cfg_t *c)
{
    uint32_t low = 0, high = c->context, mid;

    while (low < high) {
        mid = high - (high - low) / 2;

        if (kv_blocks_for(c, mid) <= c->blocks) {
            low = mid;
        } else {
            high = mid - 1;
        }
    }

    return low;
}


kv_t *
kv_open(const kv_cfg_t *c)
{
    kv_t *kv;
    uint32_t i;
    size_t tables;

    assert(c->blocks > 0 && c->blocks < KV_NONE);
    assert(c->block_tokens > 0 && c->seqs > 0);
    assert(c->context > 0 && c->context <= UINT32_MAX - c->block_tokens);
    assert(c->step > 0 && c->groups >= 1 && c->groups <= KV_GROUPS);

    kv = mem_zero(1, sizeof(*kv));
    if (kv == NULL) {
        return NULL;
    }

    kv->c = *c;
    memcpy(kv->window, c->window, c->groups * sizeof(uint32_t));
    kv->c.window = kv->window;
    for (i = 0; i < c->groups; i++) {
        kv->slides |= c->window[i] > 0;
    }
    kv->row = blocks_of(c->context, c->block_tokens);
    kv->stride = kv->row + KV_SKEW;
    kv->lots = c->seqs / KV_LOT + (c->seqs % KV_LOT != 0);
    tables = (size_t) kv->lots * KV_LOT * c->groups;
    kv->fits = kv_longest(&kv->c);
    kv->stack = mem_zero(c->blocks, sizeof(uint32_t));
    kv->owner = mem_zero(c->blocks, sizeof(uint32_t));
    kv->states = mem_zero(c->blocks, sizeof(uint8_t));
    kv->spans = mem_zero(tables, sizeof(kv_span_t));
    kv->table = mem_zero(tables, kv->stride * sizeof(uint32_t));

    if (kv->stack == NULL || kv->owner == NULL || kv->states == NULL
        || kv->spans == NULL || kv->table == NULL) {
        kv_close(kv);
        return NULL;
    }

    /* lowest ids on top, so that a small load touches little memory */
    for (i = 0; i < c->blocks; i++) {
        kv->stack[i] = c->blocks - 1 - i;
        kv->owner[i] = KV_NONE;
        kv->states[i] = KV_FREE;
    }
    kv->counts[KV_FREE] = c->blocks;

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
    mem_free(kv->spans);
    mem_free(kv->table);
    kv_tier_close(kv);
    kv_cache_close(kv);
    mem_free(kv);
}


uint32_t
kv_fits(const kv_t *kv)
{
    assert(kv->fits <= kv->c.context);

    return kv->fits;
}


/* Where the blocks of a group end that begin at first and reach tokens. */
static uint32_t
end_for(const kv_t *kv, uint32_t group, uint32_t first, uint32_t tokens)
{
    uint32_t end = blocks_of(tokens, kv->c.block_tokens);
    uint64_t most;

    assert(end <= kv->row);

    if (kv->window[group] > 0) {
        most = first + window_blocks(&kv->c, kv->window[group]);
        end = end > most ? (uint32_t) most : end;
    }

    return end;
}


uint64_t
kv_reach(const kv_t *kv, uint32_t seq)
{
    const kv_span_t *span = kv_span(kv, seq, 0);
    uint32_t g, end = span[0].end;

    for (g = 1; g < kv->c.groups; g++) {
        end = span[g].end < end ? span[g].end : end;
    }

    return (uint64_t) end * kv->c.block_tokens;
}


uint32_t
kv_missing(const kv_t *kv, uint32_t seq, uint32_t tokens)
{
    uint32_t g, end, sum = 0;
    const kv_span_t *span;

    if (kv_reach(kv, seq) >= tokens) {
        return 0;
    }

    for (g = 0; g < kv->c.groups; g++) {
        span = kv_span(kv, seq, g);
        end = end_for(kv, g, span->first, tokens);
        sum += end > span->end ? end - span->end : 0;
    }

    return sum;
}


int
kv_grow(kv_t *kv, uint32_t seq, uint32_t tokens)
{
    uint32_t g, id, end, missing;
    uint32_t *row;
    kv_span_t *span;

    if (kv_reach(kv, seq) >= tokens) {
        return 0;
    }
    missing = kv_missing(kv, seq, tokens);
    if (missing > kv_avail(kv)) {
        return -1;
    }
    kv_cache_room(kv, seq, missing);

    for (g = 0; g < kv->c.groups; g++) {
        span = kv_span(kv, seq, g);
        row = kv_row(kv, seq, g);
        end = end_for(kv, g, span->first, tokens);

        while (span->end < end) {
            id = kv->stack[kv->counts[KV_FREE] - 1];
            kv_move(kv, id, KV_FREE, KV_PRIVATE, seq);
            row[span->end++] = id;
        }
    }

    assert(kv_missing(kv, seq, tokens) == 0);

    return 0;
}


void
kv_slide(kv_t *kv, uint32_t seq, uint32_t computed, uint32_t tokens)
{
    uint32_t g, first, end;
    uint32_t *row;
    kv_span_t *span;

    assert(computed <= tokens);

    if (!kv->slides) {
        return;
    }

    for (g = 0; g < kv->c.groups; g++) {
        span = kv_span(kv, seq, g);
        first = kv_first(kv, g, computed);
        assert(first <= span->end);
        row = kv_row(kv, seq, g);
        end = end_for(kv, g, first, tokens);

        for (; span->first < first; span->first++) {
            if (kv->states[row[span->first]] == KV_CACHED) {
                kv_cache_leave(kv, seq, g, span->first);
            } else if (span->end < end) {
                row[span->end++] = row[span->first];
            } else {
                assert(kv->owner[row[span->first]] == seq);
                kv_put_free(kv, row[span->first], KV_PRIVATE);
            }
        }
    }
}


int
kv_slides(const kv_t *kv)
{
    return kv->slides;
}


uint32_t
kv_drop(kv_t *kv, uint32_t seq, uint32_t tokens)
{
    uint32_t g, i, n = 0;
    const uint32_t *row;
    kv_span_t *span;

    for (g = 0; g < kv->c.groups; g++) {
        span = kv_span(kv, seq, g);
        row = kv_row(kv, seq, g);
        n += span->end - span->first;

        /* backwards: the first, most likely to be used again, on top */
        for (i = span->end; i-- > span->first;) {
            if (kv->states[row[i]] == KV_CACHED) {
                kv_cache_leave(kv, seq, g, i);
            } else {
                assert(kv->owner[row[i]] == seq);
                kv_put_free(kv, row[i], KV_PRIVATE);
            }
        }

        span->first = 0;
        span->end = 0;
    }

    kv_cache_release(kv, seq, tokens);

    return n;
}


uint32_t
kv_release(kv_t *kv, uint32_t seq)
{
    return kv_drop(kv, seq, UINT32_MAX);
}


void
kv_hand(kv_t *kv, uint32_t from, uint32_t to)
{
    uint32_t g, i, *row;
    kv_span_t *span;

    assert(from != to && kv_held(kv, to) == 0);

    for (g = 0; g < kv->c.groups; g++) {
        span = kv_span(kv, from, g);
        row = kv_row(kv, to, g);

        for (i = span->first; i < span->end; i++) {
            row[i] = kv_row(kv, from, g)[i];
            if (kv->states[row[i]] == KV_PRIVATE) {
                assert(kv->owner[row[i]] == from);
                kv->owner[row[i]] = to;
            }
        }
        *kv_span(kv, to, g) = *span;
        span->first = 0;
        span->end = 0;
    }

    kv_cache_hand(kv, from, to);
}


uint32_t
kv_held(const kv_t *kv, uint32_t seq)
{
    uint32_t g, n = 0;
    const kv_span_t *span;

    for (g = 0; g < kv->c.groups; g++) {
        span = kv_span(kv, seq, g);
        assert(span->first <= span->end && span->end <= kv->row);
        n += span->end - span->first;
    }

    return n;
}


const uint32_t *
kv_table(
    const kv_t *kv, uint32_t seq, uint32_t group, uint32_t *first, uint32_t *n)
{
    size_t at = kv_place(kv, seq) * kv->c.groups + group;
    kv_span_t span = kv->spans[at];

    assert(group < kv->c.groups);
    assert(span.first <= span.end && span.end <= kv->row);

    *first = span.first;
    *n = span.end - span.first;

    return kv->table + at * kv->stride + span.first;
}


uint32_t
kv_avail(const kv_t *kv)
{
    return kv->counts[KV_FREE] + kv_cache_idle(kv);
}


uint32_t
kv_groups(const kv_t *kv)
{
    return kv->c.groups;
}


uint32_t
kv_seqs(const kv_t *kv)
{
    return kv->c.seqs;
}


uint32_t
kv_total(const kv_t *kv)
{
    return kv->c.blocks;
}


uint32_t
kv_block_tokens(const kv_t *kv)
{
    return kv->c.block_tokens;
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
        assert(kv->counts[i] <= kv->c.blocks);
        sum += kv->counts[i];
    }

    assert(sum == kv->c.blocks);
    kv_cache_check(kv);
}


void
kv_check_deep(const kv_t *kv)
{
    uint32_t counts[KV_STATES_N] = {0};
    uint32_t i, seq, g, id, first, n;
    const uint32_t *ids;
    uint64_t held = 0;

    kv_check(kv);

    for (i = 0; i < kv->c.blocks; i++) {
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
    for (seq = 0; seq < kv->c.seqs; seq++) {
        for (g = 0; g < kv->c.groups; g++) {
            ids = kv_table(kv, seq, g, &first, &n);
            for (i = 0; i < n; i++) {
                id = ids[i];
                assert(id < kv->c.blocks);
                assert(kv->owner[id] == seq || kv->states[id] == KV_CACHED);
                held += kv->states[id] == KV_PRIVATE;
            }
        }
    }
    assert(held == kv->counts[KV_PRIVATE]);
    kv_cache_check_deep(kv);
}
