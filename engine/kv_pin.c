/*
 * Pinned prefixes: blocks of the prefix cache that stay, for all.
 *
 * DESIGN.  At start, before anybody is served, a sequence computes what the
 * operator says that prompts begin with, and enters it into the namespace that
 * all others begin with (radix.c).  kv_pin() then lets go of the sequence but
 * not of its references, so that nothing can evict these nodes:
 *
 *      a sequence    [ p p p p ][ p p ]      computes, inserts
 *      kv_pin        [ c c c c ][ c c ]      its references are the pool's now
 *      later         [ c c c c ][ c c ][ p p p ]   any tenant's, by a match
 *
 * Only full blocks: what is left of a prefix is computed by each tenant that
 * comes, in its own namespace.  Of a group with a window the blocks stay that
 * whoever goes on from the prefix's end looks at; a match that ends earlier
 * finds what happens to be there.
 *
 * What is pinned is no longer there for anything else, so the longest sequence
 * that fits alone is shorter by it (kv_fits).
 *
 * INVARIANTS.  pinned counts each block once, however many prefixes begin with
 * it; pin_refs are the references that no sequence has.
 *
 * Owned and called by the thread that has the pool, before others run.
 */
#include "kv_impl.h"

#include <string.h>

_Static_assert(KV_EVERYONE == RADIX_SHARED, "the tree's name for it");


kv_who_t
kv_everyone(void)
{
    kv_who_t who;

    who.space = KV_EVERYONE;
    who.owner = RADIX_OPERATOR;
    who.weight = 1;
    who.keep = 255;

    return who;
}


uint64_t
kv_pin_blocks(const kv_cfg_t *c, uint32_t tokens)
{
    uint32_t full = tokens / c->block_tokens, at = full * c->block_tokens, g;
    uint64_t sum = 0;

    assert(c->groups >= 1 && c->groups <= KV_GROUPS);

    for (g = 0; g < c->groups; g++) {
        sum += full - kv_first_of(c->window[g], c->block_tokens, at);
    }

    return sum;
}


/* Seq's references in group g become the pool's; its own blocks are free. */
static void
pin_group(kv_t *kv, uint32_t seq, uint32_t g)
{
    const uint32_t *row = kv_row(kv, seq, g), *nodes = kv_nodes(kv, seq);
    kv_span_t *span = kv_span(kv, seq, g);
    uint32_t i, tg = kv->tree_group[g];

    for (i = span->end; i-- > span->first;) {
        if (kv->states[row[i]] != KV_CACHED) {
            kv_put_free(kv, row[i], KV_PRIVATE);
        } else if (g != kv->first_group) {
            kv->pinned += radix_refs(kv->tree, nodes[i], tg) == 1;
            kv->pin_refs[g]++;
        }
    }
    span->first = span->end = 0;
}


int
kv_pin(kv_t *kv, uint32_t seq)
{
    uint32_t depth = *kv_depth(kv, seq), g, i;
    kv_cfg_t left = kv->c;

    assert(kv->tree != NULL && depth > 0);

    if (kv->pins_n == KV_PINS_MAX) {
        return -1;
    }

    for (i = 0; i < depth; i++) {
        kv->pinned += radix_refs(kv->tree, kv_nodes(kv, seq)[i], 0) == 1;
    }
    kv->pin_refs[kv->first_group] += depth;
    for (g = 0; g < kv->c.groups; g++) {
        pin_group(kv, seq, g);
    }
    *kv_depth(kv, seq) = 0;
    kv->pins_n++;

    assert(kv->pinned < kv->c.blocks);
    left.blocks -= kv->pinned;
    kv->fits = kv_longest(&left);

    return 0;
}


uint32_t
kv_pinned(const kv_t *kv)
{
    assert(kv->pinned <= kv->counts[KV_CACHED]);

    return kv->pinned;
}
