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
 * What was used when is counted in blocks that entered and in visits; so "long
 * ago" means that much has happened since, whatever the load.  Whether an owner
 * has gone is told by the caller's clock (kv_time): a flood cannot make that go
 * faster.
 *
 * GROUPS.  The first group without a window names the tree's nodes.  Of others
 * a node has a block as well, and of one with a window a sequence uses only
 * those in it: what it leaves behind stays with its node until the block is
 * needed.  A match gives what the window needs of those, or is shorter.
 * Models all of whose layers have windows have no cache.
 *
 * INVARIANTS.  A cached block is a node's, and the other way round; a sequence
 * has references to the first depths[seq] nodes of its text, and its tables
 * name, for each that is in their span, the node's block, to which it has a
 * reference too, or a private one.
 *
 * Owned and called by the loop thread only, through the scheduler.
 */
#include "kv_impl.h"
#include "mem.h"

#include <string.h>

_Static_assert(KV_GROUPS <= RADIX_GROUPS_MAX, "each has a part of the tree");

/* A step of keep is worth this part of the time it takes to renew it all. */
#define KV_CACHE_KEEP 4


/* Numbers the groups as the tree has them.  0, or -1: none is the first. */
static int
map_groups(kv_t *kv, radix_cfg_t *rc)
{
    uint32_t g, n = 1, window;

    for (g = 0; g < kv->c.groups && kv->window[g] > 0; g++) { /* none */
    }
    if (g == kv->c.groups) {
        return -1;
    }

    kv->first_group = g;
    for (g = 0; g < kv->c.groups; g++) {
        kv->tree_group[g] = g == kv->first_group ? 0 : n++;

        /* the next token looks at window - 1 positions before its own */
        window = kv->window[g];
        rc->window[kv->tree_group[g]] =
            window == 0   ? UINT32_MAX
            : window == 1 ? 0
                          : (window - 2) / kv->c.block_tokens + 1;
    }
    rc->groups = n;

    return 0;
}


int
kv_cache(kv_t *kv, uint32_t owners, uint64_t seed)
{
    size_t places = (size_t) kv->lots * KV_LOT;
    radix_cfg_t rc;

    assert(kv->tree == NULL && kv->counts[KV_FREE] == kv->c.blocks);

    memset(&rc, 0, sizeof(rc));
    if (map_groups(kv, &rc) != 0) {
        return 0;
    }

    rc.nodes = kv->c.blocks;
    rc.block_tokens = kv->c.block_tokens;
    rc.owners = owners;
    rc.seed = seed;
    rc.keep_bonus = kv->c.blocks / KV_CACHE_KEEP;
    rc.stale = KV_IDLE_US;
    rc.floor = KV_FLOOR;

    kv->tree = radix_open(&rc);
    kv->depths = mem_zero(places, sizeof(uint32_t));
    kv->nodes = mem_zero(places, kv->stride * sizeof(uint32_t));
    kv->whos = mem_zero(places, sizeof(kv_who_t));
    kv->ids = mem_zero(kv->c.groups, kv->row * sizeof(uint32_t));
    kv->taken = mem_zero(kv->row, sizeof(uint8_t));

    return kv->tree == NULL || kv->depths == NULL || kv->nodes == NULL
                   || kv->whos == NULL || kv->ids == NULL || kv->taken == NULL
               ? -1
               : 0;
}


void
kv_cache_close(kv_t *kv)
{
    radix_close(kv->tree);
    mem_free(kv->depths);
    mem_free(kv->nodes);
    mem_free(kv->whos);
    mem_free(kv->ids);
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
    uint64_t sum = kv->tree == NULL ? 0 : radix_idle(kv->tree);

    assert(sum <= kv->counts[KV_CACHED]);

    return (uint32_t) sum;
}


/* Blocks that have left the tree are free. */
static void
put_free(kv_t *kv, const uint32_t blocks[RADIX_GROUPS_MAX])
{
    uint32_t g;

    if (kv->tier != NULL) {
        kv_tier_gone(kv, blocks[0]);
    }
    for (g = 0; g < kv->c.groups; g++) {
        if (blocks[g] != RADIX_NONE) {
            kv_put_free(kv, blocks[g], KV_CACHED);
        }
    }
}


/* A sequence that was never matched is of weight 1, as its owner 0 is. */
static uint32_t
weight_of(const kv_t *kv, uint32_t seq)
{
    return kv_whose(kv, seq)->weight > 0 ? kv_whose(kv, seq)->weight : 1;
}


uint32_t
kv_room(const kv_t *kv, uint32_t seq, uint32_t want)
{
    uint32_t free = kv->counts[KV_FREE];

    assert(seq < kv->c.seqs);

    if (free >= want || kv->tree == NULL) {
        return free < want ? free : want;
    }

    return free
           + (uint32_t) radix_spare(kv->tree, kv_whose(kv, seq)->owner,
               weight_of(kv, seq), want - free);
}


uint32_t
kv_most(const kv_t *kv, uint32_t seq)
{
    uint64_t most = kv->c.blocks;

    if (kv->tree != NULL) {
        most =
            radix_most(kv->tree, kv_whose(kv, seq)->owner, weight_of(kv, seq));
    }

    return most > kv->pinned ? (uint32_t) most - kv->pinned : 0;
}


void
kv_shares(kv_t *kv, uint32_t floor, uint64_t idle_us)
{
    assert(floor <= 100);

    if (kv->tree != NULL) {
        radix_rules(kv->tree, idle_us, floor);
        kv_tier_stale(kv, idle_us);
    }
}


void
kv_time(kv_t *kv, uint64_t now_us)
{
    if (kv->tree != NULL) {
        radix_time(kv->tree, now_us);
        kv_tier_time(kv, now_us);
    }
}


uint64_t
kv_kept(const kv_t *kv, uint32_t owner)
{
    return kv->tree == NULL ? 0 : radix_floor(kv->tree, owner);
}


void
kv_cache_room(kv_t *kv, uint32_t seq, uint32_t n)
{
    uint32_t blocks[RADIX_GROUPS_MAX];
    int found;

    while (kv->counts[KV_FREE] < n) {
        assert(kv->tree != NULL);
        found = radix_evict(kv->tree, RADIX_NONE, kv_whose(kv, seq)->owner,
            weight_of(kv, seq), blocks);
        assert(found);
        (void) found;
        put_free(kv, blocks);
    }
}


uint32_t
kv_match(kv_t *kv, uint32_t seq, const kv_who_t *who, const uint32_t *tokens,
    uint32_t n)
{
    uint32_t *nodes, *row, found, g, i;
    kv_span_t *span;

    if (kv->tree == NULL) {
        return 0;
    }

    assert(kv_held(kv, seq) == 0 && *kv_depth(kv, seq) == 0);
    assert(n <= kv->c.context);

    nodes = kv_nodes(kv, seq);
    *kv_whose(kv, seq) = *who;
    kv->clock++;
    found = radix_match(kv->tree, who->space, who->owner, tokens,
        n / kv->c.block_tokens, nodes);
    *kv_depth(kv, seq) = found;
    if (kv->tier != NULL && found > 0) {
        kv_tier_idle(kv, nodes[found - 1], 1);
    }
    n = found * kv->c.block_tokens;

    for (g = 0; g < kv->c.groups && found > 0; g++) {
        span = kv_span(kv, seq, g);
        row = kv_row(kv, seq, g);
        span->first = kv_first(kv, g, n);
        span->end = found;
        for (i = span->first; i < found; i++) {
            row[i] = radix_block(kv->tree, nodes[i], kv->tree_group[g]);
            assert(kv->states[row[i]] == KV_CACHED);
        }
    }

    return n;
}


uint32_t
kv_look(const kv_t *kv, uint64_t space, const uint32_t *tokens, uint32_t n,
    radix_spot_t *spot, uint32_t *steps)
{
    assert(n <= kv->c.context);

    return kv->tree == NULL ? 0
                            : kv->c.block_tokens
                                  * radix_look(kv->tree, space, tokens,
                                      n / kv->c.block_tokens, spot, steps);
}


void
kv_look_fetch(const kv_t *kv, const uint32_t *tokens, const radix_spot_t *spot)
{
    __builtin_prefetch(tokens + (size_t) spot->found * kv->c.block_tokens);
    if (kv->tree != NULL && spot->found > 0) {
        radix_fetch(kv->tree, spot->node);
    }
}


/* Lays out seq's blocks [from, from + n) of all groups for the tree. */
static void
fill_ids(kv_t *kv, uint32_t seq, uint32_t from, radix_new_t *w)
{
    const kv_span_t *span;
    const uint32_t *row;
    uint32_t g, i, k, *ids;

    for (g = 0; g < kv->c.groups; g++) {
        span = kv_span(kv, seq, g);
        row = kv_row(kv, seq, g);
        ids = kv->ids + (size_t) g * kv->row;
        w->blocks[kv->tree_group[g]] = ids;

        for (i = 0; i < w->n; i++) {
            k = from + i;
            ids[i] = k >= span->first && k < span->end ? row[k] : RADIX_NONE;
            assert(ids[i] == RADIX_NONE || kv->owner[ids[i]] == seq);
        }
    }
}


void
kv_insert(kv_t *kv, uint32_t seq, const kv_who_t *who, const uint32_t *tokens,
    uint32_t computed)
{
    uint32_t full = computed / kv->c.block_tokens, from, i, g, *nodes;
    radix_new_t w;

    if (kv->tree == NULL || full <= *kv_depth(kv, seq)) {
        return;
    }

    from = *kv_depth(kv, seq);
    nodes = kv_nodes(kv, seq);
    assert(full <= kv_span(kv, seq, kv->first_group)->end);

    memset(&w, 0, sizeof(w));
    w.parent = from == 0 ? RADIX_NONE : nodes[from - 1];
    w.owner = who->owner;
    w.weight = who->weight;
    w.keep = who->keep;
    w.space = who->space;
    w.n = full - from;
    w.tokens = tokens + (size_t) from * kv->c.block_tokens;
    fill_ids(kv, seq, from, &w);
    kv->clock += w.n;
    w.now = kv->clock;

    (void) radix_insert(kv->tree, &w, nodes + from, kv->taken);
    *kv_depth(kv, seq) = full;

    for (g = 0; g < kv->c.groups; g++) {
        for (i = 0; i < w.n; i++) {
            if (kv->taken[i] >> kv->tree_group[g] & 1) {
                kv_move(kv, w.blocks[kv->tree_group[g]][i], KV_PRIVATE,
                    KV_CACHED, KV_NONE);
            }
        }
    }
}


void
kv_insert_fetch(const kv_t *kv, uint32_t seq, int stage)
{
    uint32_t depth, block;

    if (kv->tree == NULL) {
        return;
    }

    /* nearly always it is the one block behind what the tree has of it */
    depth = *kv_depth(kv, seq);
    if (stage == 0) {
        __builtin_prefetch(kv_nodes(kv, seq) + depth, 1);
        __builtin_prefetch(kv_row(kv, seq, kv->first_group) + depth);
    } else if (depth < kv_span(kv, seq, kv->first_group)->end) {
        block = kv_row(kv, seq, kv->first_group)[depth];
        radix_fetch(kv->tree, block);
        __builtin_prefetch(&kv->states[block], 1);
        __builtin_prefetch(&kv->owner[block], 1);
        if (depth > 0) {
            radix_fetch(kv->tree, kv_nodes(kv, seq)[depth - 1]);
        }
    }
}


void
kv_cache_leave(kv_t *kv, uint32_t seq, uint32_t group, uint32_t i)
{
    assert(kv->tree != NULL && i < *kv_depth(kv, seq));

    /* of the first group the reference is to the node: kv_cache_release */
    if (group != kv->first_group) {
        radix_leave(
            kv->tree, kv_nodes(kv, seq)[i], kv->tree_group[group], kv->clock);
    }
}


void
kv_cache_release(kv_t *kv, uint32_t seq, uint32_t tokens)
{
    uint32_t blocks[RADIX_GROUPS_MAX], *nodes, n, i;

    if (kv->tree == NULL || *kv_depth(kv, seq) == 0) {
        return;
    }

    nodes = kv_nodes(kv, seq);
    for (n = *kv_depth(kv, seq); n > tokens / kv->c.block_tokens; n--) {
        if (radix_retreat(kv->tree, nodes[n - 1], kv->clock, blocks)) {
            put_free(kv, blocks);
        }
    }

    if (n > 0) {
        for (i = n; i-- > 0;) {
            radix_fetch(kv->tree, nodes[i]);
        }
        if (kv->tier != NULL) {
            kv_tier_idle(kv, nodes[n - 1], 0);
        }
        radix_release(kv->tree, nodes[n - 1], kv->clock);
    }
    *kv_depth(kv, seq) = 0;
    kv->clock++;
}


void
kv_cache_hand(kv_t *kv, uint32_t from, uint32_t to)
{
    if (kv->tree == NULL) {
        return;
    }

    assert(*kv_depth(kv, to) == 0);
    memcpy(kv_nodes(kv, to), kv_nodes(kv, from),
        *kv_depth(kv, from) * sizeof(uint32_t));
    *kv_whose(kv, to) = *kv_whose(kv, from);
    *kv_depth(kv, to) = *kv_depth(kv, from);
    *kv_depth(kv, from) = 0;
}


uint32_t
kv_own(const kv_t *kv, uint32_t seq)
{
    const uint32_t *row, *nodes;
    const kv_span_t *span;
    uint32_t g, i, n = 0;

    if (kv->tree == NULL) {
        return kv_held(kv, seq);
    }

    nodes = kv_nodes(kv, seq);
    for (g = 0; g < kv->c.groups; g++) {
        span = kv_span(kv, seq, g);
        row = kv_row(kv, seq, g);
        for (i = span->first; i < span->end; i++) {
            n += kv->states[row[i]] == KV_PRIVATE
                 || radix_refs(kv->tree, nodes[i], kv->tree_group[g]) == 1;
        }
    }

    return n;
}


uint32_t
kv_shared(const kv_t *kv, uint32_t a, uint32_t b)
{
    const uint32_t *x = kv_row(kv, a, kv->first_group);
    const uint32_t *y = kv_row(kv, b, kv->first_group);
    uint32_t n, i = 0;

    if (kv->tree == NULL) {
        return 0;
    }

    n = *kv_depth(kv, a) < *kv_depth(kv, b) ? *kv_depth(kv, a)
                                            : *kv_depth(kv, b);
    while (i < n && x[i] == y[i]) {
        i++;
    }

    return i;
}


uint64_t
kv_owned(const kv_t *kv, uint32_t owner)
{
    uint64_t sum = 0;
    uint32_t g;

    for (g = 0; kv->tree != NULL && g < kv->c.groups; g++) {
        sum += radix_owned(kv->tree, owner, g);
    }

    return sum;
}


void
kv_cache_check(const kv_t *kv)
{
    radix_stats_t st;
    uint64_t sum = 0;
    uint32_t g;

    if (kv->tree == NULL) {
        assert(kv->counts[KV_CACHED] == 0);
        return;
    }

    radix_check(kv->tree);
    if (kv->tier != NULL) {
        kv_tier_check(kv);
    }
    radix_stats(kv->tree, &st);
    for (g = 0; g < kv->c.groups; g++) {
        sum += st.blocks[g];
    }
    assert(sum == kv->counts[KV_CACHED]);
}


/* What one sequence has of one group: its nodes' blocks, or private ones.
 * How many references that makes. */
static uint64_t
check_group(const kv_t *kv, uint32_t seq, uint32_t g)
{
    const kv_span_t *span = kv_span(kv, seq, g);
    const uint32_t *row = kv_row(kv, seq, g), *nodes = kv_nodes(kv, seq);
    uint32_t i, tg = kv->tree_group[g];
    uint64_t used = 0;

    for (i = span->first; i < span->end; i++) {
        if (kv->states[row[i]] == KV_CACHED) {
            assert(i < *kv_depth(kv, seq));
            assert(radix_block(kv->tree, nodes[i], tg) == row[i]);
            used++;
        } else {
            assert(kv->owner[row[i]] == seq);
        }
    }
    assert(g != kv->first_group || span->end >= *kv_depth(kv, seq));

    return g == kv->first_group ? *kv_depth(kv, seq) : used;
}


void
kv_cache_check_deep(const kv_t *kv)
{
    uint64_t used[KV_GROUPS];
    uint32_t seq, g, i, tg;

    if (kv->tree == NULL) {
        return;
    }

    radix_check_deep(kv->tree);

    memcpy(used, kv->pin_refs, sizeof(used));
    for (seq = 0; seq < kv->c.seqs; seq++) {
        for (g = 0; g < kv->c.groups; g++) {
            used[g] += check_group(kv, seq, g);
        }
        for (i = 0; i < *kv_depth(kv, seq); i++) {
            assert(radix_parent(kv->tree, kv_nodes(kv, seq)[i])
                   == (i == 0 ? RADIX_NONE : kv_nodes(kv, seq)[i - 1]));
        }
    }

    if (kv->tier != NULL) {
        used[kv->first_group] += kv_tier_check_deep(kv);
    }

    /* each reference is a sequence's, a pin's or a copy's, and each block's
     * state is told */
    for (i = 0; i < kv->c.blocks; i++) {
        if (!radix_live(kv->tree, i)) {
            continue;
        }
        for (g = 0; g < kv->c.groups; g++) {
            tg = kv->tree_group[g];
            used[g] -= radix_refs(kv->tree, i, tg);
            assert(radix_block(kv->tree, i, tg) == RADIX_NONE
                   || kv->states[radix_block(kv->tree, i, tg)] == KV_CACHED);
        }
    }
    for (g = 0; g < kv->c.groups; g++) {
        assert(used[g] == 0);
    }
}
