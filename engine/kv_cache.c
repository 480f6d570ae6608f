/*
 * The prefix cache in the block pool: blocks that outlive their sequences.
 *
 * DESIGN.  There is one pool and no share of it for the cache: what no
 * sequence needs is cached, and what a sequence needs is taken from the cache,
 * least valuable first (radix_order.c).  So "free" means two things to whoever
 * wants blocks, nobody's and cached but idle, and kv_avail() is their sum.
 *
 *      table of a sequence   [ c c c c ][ p c p p ][ p ]
 *                              matched    own        partial
 *
 * A sequence that starts gets the longest prefix that is there, by reference.
 * What it computes itself enters the tree block by block, as each is full, and
 * serves others at once.  Where the tree has such a block already, because
 * another computed the same meanwhile, the sequence keeps its own, privately:
 * a block never changes under a step that reads it.  Its reference goes to the
 * other's node nevertheless, so that what it computes next has its place.
 *
 * Time is counted in blocks that entered and in visits; so "long ago" means
 * that much has happened since, whatever the load.
 *
 * Models with windows have no cache: kv_slide() gives a sequence the blocks
 * that it leaves behind, which it could not if others might look at them.
 *
 * INVARIANTS.  A cached block is a node's, of the same name, and the other way
 * round; a sequence has references to the first depths[seq] nodes of its text,
 * and its table names, for each, the node's block or a private one.
 *
 * Owned and called by the loop thread only, through the scheduler.
 */
#include "kv_impl.h"
#include "mem.h"

#include <string.h>

/* An owner unseen while the cache was renewed so many times has no share. */
#define KV_CACHE_STALE 4

/* A step of keep is worth this part of the time it takes to renew it all. */
#define KV_CACHE_KEEP 4


int
kv_cache(kv_t *kv, uint32_t owners, uint64_t seed)
{
    radix_cfg_t rc;

    assert(kv->tree == NULL && kv->counts[KV_FREE] == kv->c.blocks);

    if (kv->c.groups > 1 || kv->window[0] > 0) {
        return 0;
    }

    memset(&rc, 0, sizeof(rc));
    rc.nodes = kv->c.blocks;
    rc.block_tokens = kv->c.block_tokens;
    rc.groups = 1;
    rc.owners = owners;
    rc.seed = seed;
    rc.keep_bonus = kv->c.blocks / KV_CACHE_KEEP;
    rc.stale = (uint64_t) kv->c.blocks * KV_CACHE_STALE;

    kv->tree = radix_open(&rc);
    kv->tips = mem_zero(kv->c.seqs, sizeof(uint32_t));
    kv->depths = mem_zero(kv->c.seqs, sizeof(uint32_t));
    kv->path = mem_zero(kv->row, sizeof(uint32_t));
    kv->taken = mem_zero(kv->row, sizeof(uint8_t));

    return kv->tree == NULL || kv->tips == NULL || kv->depths == NULL
                   || kv->path == NULL || kv->taken == NULL
               ? -1
               : 0;
}


void
kv_cache_close(kv_t *kv)
{
    radix_close(kv->tree);
    mem_free(kv->tips);
    mem_free(kv->depths);
    mem_free(kv->path);
    mem_free(kv->taken);
}


int
kv_caches(const kv_t *kv)
{
    return kv->tree != NULL;
}


uint64_t
kv_evicted(const kv_t *kv)
{
    radix_stats_t st = {.evicted = 0};

    if (kv->tree != NULL) {
        radix_stats(kv->tree, &st);
    }

    return st.evicted;
}


uint32_t
kv_cache_idle(const kv_t *kv)
{
    radix_stats_t st;

    if (kv->tree == NULL) {
        return 0;
    }

    radix_stats(kv->tree, &st);
    assert(st.idle[0] <= kv->counts[KV_CACHED]);

    return (uint32_t) st.idle[0];
}


void
kv_cache_room(kv_t *kv, uint32_t n)
{
    uint32_t blocks[RADIX_GROUPS_MAX];
    int found;

    while (kv->counts[KV_FREE] < n) {
        assert(kv->tree != NULL);
        found = radix_evict(kv->tree, 0, kv->clock, blocks);
        assert(found);
        (void) found;
        kv_put_free(kv, blocks[0], KV_CACHED);
    }
}


uint32_t
kv_match(kv_t *kv, uint32_t seq, const kv_who_t *who, const uint32_t *tokens,
    uint32_t n)
{
    kv_span_t *span = kv_span(kv, seq, 0);
    uint32_t *row = kv_row(kv, seq, 0), found;

    if (kv->tree == NULL) {
        return 0;
    }

    assert(span->first == 0 && span->end == 0 && kv->depths[seq] == 0);
    assert(n <= kv->c.context);

    kv->clock++;
    found = radix_match(kv->tree, who->space, who->owner, tokens,
        n / kv->c.block_tokens, kv->clock, row);
    if (found > 0) {
        span->end = found;
        kv->depths[seq] = found;
        kv->tips[seq] = row[found - 1];
    }

    return found * kv->c.block_tokens;
}


void
kv_insert(kv_t *kv, uint32_t seq, const kv_who_t *who, const uint32_t *tokens,
    uint32_t computed)
{
    uint32_t full = computed / kv->c.block_tokens, from, i;
    const uint32_t *row = kv_row(kv, seq, 0);
    radix_new_t w;

    if (kv->tree == NULL || full <= kv->depths[seq]) {
        return;
    }

    from = kv->depths[seq];
    assert(full <= kv_span(kv, seq, 0)->end);

    memset(&w, 0, sizeof(w));
    w.parent = from == 0 ? RADIX_NONE : kv->tips[seq];
    w.owner = who->owner;
    w.weight = who->weight;
    w.keep = who->keep;
    w.space = who->space;
    w.n = full - from;
    w.tokens = tokens + (size_t) from * kv->c.block_tokens;
    w.blocks[0] = row + from;
    kv->clock += w.n;
    w.now = kv->clock;

    kv->tips[seq] = radix_insert(kv->tree, &w, kv->path, kv->taken);
    kv->depths[seq] = full;

    for (i = 0; i < w.n; i++) {
        assert(kv->owner[row[from + i]] == seq);
        if (kv->taken[i]) {
            kv_move(kv, row[from + i], KV_PRIVATE, KV_CACHED, KV_NONE);
        }
    }
}


void
kv_cache_release(kv_t *kv, uint32_t seq, uint32_t tokens)
{
    uint32_t blocks[RADIX_GROUPS_MAX], node, up;

    if (kv->tree == NULL || kv->depths[seq] == 0) {
        return;
    }

    kv->clock++;
    node = kv->tips[seq];

    for (; kv->depths[seq] > tokens / kv->c.block_tokens; kv->depths[seq]--) {
        up = radix_parent(kv->tree, node);
        if (radix_retreat(kv->tree, node, kv->clock, blocks)) {
            kv_put_free(kv, node, KV_CACHED);
        }
        node = up;
    }

    if (kv->depths[seq] > 0) {
        radix_release(kv->tree, node, kv->clock);
        kv->depths[seq] = 0;
    }
}


uint32_t
kv_own(const kv_t *kv, uint32_t seq)
{
    const uint32_t *row = kv_row(kv, seq, 0);
    uint32_t i, n = 0;

    if (kv->tree == NULL) {
        return kv_held(kv, seq);
    }

    for (i = 0; i < kv_span(kv, seq, 0)->end; i++) {
        n += kv->states[row[i]] == KV_PRIVATE
             || radix_refs(kv->tree, row[i]) == 1;
    }

    return n;
}


uint64_t
kv_owned(const kv_t *kv, uint32_t owner)
{
    return kv->tree == NULL ? 0 : radix_owned(kv->tree, owner, 0);
}


void
kv_cache_check(const kv_t *kv)
{
    radix_stats_t st;

    if (kv->tree == NULL) {
        assert(kv->counts[KV_CACHED] == 0);
        return;
    }

    radix_check(kv->tree);
    radix_stats(kv->tree, &st);
    assert(st.blocks[0] == kv->counts[KV_CACHED]);
}


void
kv_cache_check_deep(const kv_t *kv)
{
    uint32_t seq, i, node;
    const uint32_t *row;
    uint64_t used = 0;
    radix_stats_t st;

    if (kv->tree == NULL) {
        return;
    }

    radix_check_deep(kv->tree);
    radix_stats(kv->tree, &st);

    for (seq = 0; seq < kv->c.seqs; seq++) {
        row = kv_row(kv, seq, 0);
        node = kv->depths[seq] > 0 ? kv->tips[seq] : RADIX_NONE;
        assert(kv->depths[seq] <= kv_span(kv, seq, 0)->end);

        for (i = kv->depths[seq]; i < kv_span(kv, seq, 0)->end; i++) {
            assert(kv->owner[row[i]] == seq);
        }
        for (i = kv->depths[seq]; i-- > 0;) {
            assert(radix_refs(kv->tree, node) > 0);
            assert(kv->states[node] == KV_CACHED);
            assert(row[i] == node || kv->owner[row[i]] == seq);
            node = radix_parent(kv->tree, node);
            used++;
        }
        assert(node == RADIX_NONE);
    }

    for (i = 0; i < kv->c.blocks; i++) {
        if (kv->states[i] == KV_CACHED) {
            used -= radix_refs(kv->tree, i);
        }
    }

    /* each reference is some sequence's */
    assert(used == 0);
}
