/*
 * The prefix cache: a tree of blocks that knows which tokens' keys and values
 * each holds.
 *
 * DESIGN.  An edge is one block of tokens.  A node is named by its block of
 * group 0, so that there are as many nodes as blocks, each of a size known at
 * start, and the tree takes no memory later.
 *
 *      (space 7) ── "the cat " ── "sat on a" ── "mat and"
 *                        │             └─────── "hat. He"
 *                        └─────── "ran off "
 *
 * Longer edges were rejected: they would have to be split and joined, and what
 * they would save, the look-up between two nodes that nothing branches from,
 * is saved here by a guess: a node remembers the child used last, and it is
 * compared first.  Only where the guess is wrong is the child looked for in a
 * table, by a hash of its parent's name (at the top: the namespace) and its
 * tokens.  Tokens are always compared one by one: a hash is never believed.
 * It is keyed by a seed, so that nobody can make up colliding prompts.
 *
 * REFERENCES.  Whoever uses a node has a reference to it and to all above it;
 * so references never grow on the way down, and what has none is a whole tree
 * whose leaves can go one by one (radix_order.c says in which order).  Only a
 * leaf can go, so a prefix stays longer than what continues it.
 *
 * GROUPS.  A node's parts in groups with a window have references of their
 * own: a sequence has one to those in its window only, and what it leaves
 * behind may be evicted for that group while the node stays.  A match may end
 * where the window's blocks before its end are all there:
 *
 *      group 0   [a][b][c][d][e][f]        window of 2: ends after f, after c,
 *      group 1   [.][b][c][.][e][f]        not after a, b, d, e
 *
 * so a window's block that went and was computed again is put back: the
 * insertion finds the node but takes the block.
 *
 * NAMESPACES.  A namespace is part of what a node is found by, and its children
 * are of the same; but for one, RADIX_SHARED, which all others begin with:
 *
 *      (shared) ── "You are " ── "a polite" ──┬ (space 7) "clerk. W"
 *                                             └ (space 9) "clerk. W"
 *
 * At the top and below a shared node the shared child comes first, then that
 * of one's own namespace.  Nothing becomes shared but by insertion into that
 * namespace, which no request can name; so what a request finds beyond the
 * shared nodes is its own namespace's, and another's texts can be seen neither
 * by what is found nor by the guess, which is never the child of another.
 *
 * INVARIANTS.  A node has no fewer references than its children together.  A
 * node in use has its block of group 0; the table has each node once; kids is
 * the number of nodes whose parent it is.
 *
 * Owned and called by the thread that has the block pool.
 */
#include "radix_impl.h"
#include "mem.h"

#include <string.h>

#define RADIX_LOT 16 /* insertions under way at once */

__extension__ typedef unsigned __int128 wide_t;


/* --- opening ------------------------------------------------------------ */

/* The least power of two that is not below n. */
static uint32_t
power(uint32_t n)
{
    uint32_t p = 16;

    while (p < n) {
        p *= 2;
    }

    return p;
}


static void
check_cfg(const radix_cfg_t *c)
{
    assert(c->nodes > 0 && c->nodes <= 1u << 30);
    assert(c->block_tokens <= 1u << 20);
    assert(c->block_tokens > 0 && c->owners > 0
           && c->owners < 1u << RADIX_OWNER_BITS);
    assert(c->groups > 0 && c->groups <= RADIX_GROUPS_MAX);
}


/* Whole lines, so that a node begins one. */
static uint64_t
stride(const radix_cfg_t *c)
{
    return (sizeof(radix_node_t) + c->block_tokens * sizeof(uint32_t) + 63) / 64
           * 64;
}


uint64_t
radix_bytes(const radix_cfg_t *c)
{
    uint64_t node, owner = sizeof(radix_owner_t);

    check_cfg(c);

    node = stride(c) + (c->groups - 1) * sizeof(radix_part_t);
    owner += c->groups * sizeof(radix_turn_t);

    return node * c->nodes
           + (uint64_t) power(2 * c->nodes) * sizeof(radix_place_t)
           + owner * (c->owners + 1)
           + (uint64_t) power(c->owners) * sizeof(uint32_t) + sizeof(radix_t);
}


radix_t *
radix_open(const radix_cfg_t *c)
{
    radix_t *r;
    uint32_t g, i;
    int bad = 0;

    check_cfg(c);

    r = mem_zero(1, sizeof(*r));
    if (r == NULL) {
        return NULL;
    }

    r->c = *c;
    r->stride = stride(c);
    r->mask = power(2 * c->nodes) - 1; /* half of it stays empty */
    r->owner_mask = power(c->owners) - 1;
    r->nodes = mem_zero_huge(c->nodes, r->stride);
    r->places = mem_zero_huge(r->mask + 1ull, sizeof(radix_place_t));
    r->owners = mem_zero(c->owners + 1ull, sizeof(radix_owner_t));
    r->owner_buckets = mem_zero(r->owner_mask + 1ull, sizeof(uint32_t));
    bad = r->nodes == NULL || r->places == NULL || r->owners == NULL
          || r->owner_buckets == NULL;

    for (g = 0; g < c->groups; g++) {
        r->order[g] = mem_zero(c->owners + 1ull, sizeof(radix_turn_t));
        bad |= r->order[g] == NULL;
    }
    for (g = 1; g < c->groups; g++) {
        r->further[g] = mem_zero_huge(c->nodes, sizeof(radix_part_t));
        bad |= r->further[g] == NULL;
    }

    if (bad) {
        radix_close(r);
        return NULL;
    }

    memset(r->places, 255, (r->mask + 1ull) * sizeof(radix_place_t));
    for (g = 1; g < c->groups; g++) {
        for (i = 0; i < c->nodes; i++) {
            r->further[g][i].block = NONE;
        }
    }
    radix_order_init(r);

    return r;
}


void
radix_close(radix_t *r)
{
    uint32_t g;

    if (r == NULL) {
        return;
    }

    mem_free(r->nodes);
    mem_free(r->places);
    mem_free(r->owners);
    mem_free(r->owner_buckets);
    for (g = 0; g < RADIX_GROUPS_MAX; g++) {
        mem_free(r->further[g]);
        mem_free(r->order[g]);
    }
    mem_free(r);
}


/* --- finding ------------------------------------------------------------ */

/* A product's halves together: each bit of both factors tells in all. */
static inline uint64_t
fold(uint64_t a, uint64_t b)
{
    wide_t w = (wide_t) a * b;

    return (uint64_t) w ^ (uint64_t) (w >> 64);
}


static uint32_t
hash(const radix_t *r, uint32_t parent, uint64_t space, const uint32_t *tokens)
{
    uint64_t h = r->c.seed ^ space ^ (parent + 1ull) * 0xd6e8feb86659fd93ull;
    uint64_t s = r->c.seed * 0x9e3779b97f4a7c15ull | 1, a, b;
    uint32_t i = 0, n = r->c.block_tokens;

    h = fold(h ^ 0xa0761d6478bd642full, s);

    for (; n - i >= 4; i += 4) {
        memcpy(&a, tokens + i, sizeof(a));
        memcpy(&b, tokens + i + 2, sizeof(b));
        h = fold(h ^ a, s ^ b);
    }
    for (; i < n; i++) {
        h = fold(h ^ tokens[i], s);
    }

    return (uint32_t) (h ^ h >> 32);
}


static inline int
same(const radix_t *r, uint32_t i, const uint32_t *tokens)
{
    return memcmp(radix_node(r, i)->tokens, tokens,
               r->c.block_tokens * sizeof(uint32_t))
           == 0;
}


/* The child of parent with these tokens in that namespace; NONE: there is
 * none. */
static uint32_t
find_in(
    const radix_t *r, uint32_t parent, uint64_t space, const uint32_t *tokens)
{
    const radix_node_t *n;
    uint32_t i, h, at;

    if (parent != NONE) {
        n = radix_node(r, parent);
        if (n->kids == 0) {
            return NONE;
        }
        if (n->child != NONE && n->space == space
            && same(r, n->child, tokens)) {
            return n->child;
        }
    }

    h = hash(r, parent, space, tokens);
    for (at = h & r->mask; (i = r->places[at].node) != NONE;
         at = (at + 1) & r->mask) {
        if (r->places[at].hash != h) {
            continue;
        }
        n = radix_node(r, i);
        if (n->parent == parent && n->space == space && same(r, i, tokens)) {
            return i;
        }
    }

    return NONE;
}


/* The same, but what all share comes first. */
static uint32_t
find(const radix_t *r, uint32_t parent, uint64_t space, const uint32_t *tokens)
{
    uint32_t i;

    if (r->shared > 0 && space != RADIX_SHARED
        && (parent == NONE || radix_node(r, parent)->space == RADIX_SHARED)) {
        i = find_in(r, parent, RADIX_SHARED, tokens);
        if (i != NONE) {
            return i;
        }
    }

    return find_in(r, parent, space, tokens);
}


static void
place_add(radix_t *r, uint32_t node, uint32_t h)
{
    uint32_t at = h & r->mask;

    while (r->places[at].node != NONE) {
        at = (at + 1) & r->mask;
    }
    r->places[at].node = node;
    r->places[at].hash = h;
}


/* Empties node's place, and moves up what had to go past it. */
static void
place_remove(radix_t *r, uint32_t node, uint32_t h)
{
    uint32_t at = h & r->mask, next, home;

    while (r->places[at].node != node) {
        assert(r->places[at].node != NONE);
        at = (at + 1) & r->mask;
    }

    for (next = (at + 1) & r->mask; r->places[next].node != NONE;
         next = (next + 1) & r->mask) {
        home = r->places[next].hash & r->mask;
        if (((next - home) & r->mask) >= ((next - at) & r->mask)) {
            r->places[at] = r->places[next];
            at = next;
        }
    }
    r->places[at].node = NONE;
}


/*
 * Walks down as far as tokens go, and says how much of that is usable.  path
 * may be NULL.
 */
static uint32_t
walk(const radix_t *r, uint64_t space, const uint32_t *tokens, uint32_t most,
    uint32_t *path)
{
    uint32_t run[RADIX_GROUPS_MAX] = {0}, node = NONE, n = 0, usable = 0, g;
    int ok;

    while (n < most) {
        node = find(r, node, space, tokens + (size_t) n * r->c.block_tokens);
        if (node == NONE) {
            break;
        }
        if (path != NULL) {
            path[n] = node;
        }
        n++;

        for (g = 1, ok = 1; g < r->c.groups; g++) {
            run[g] = r->further[g][node].block != NONE ? run[g] + 1 : 0;
            ok &= run[g] >= (n < r->c.window[g] ? n : r->c.window[g]);
        }
        if (ok) {
            usable = n;
        }
    }

    return usable;
}


uint32_t
radix_peek(
    const radix_t *r, uint64_t space, const uint32_t *tokens, uint32_t most)
{
    return walk(r, space, tokens, most, NULL);
}


uint32_t
radix_look(const radix_t *r, uint64_t space, const uint32_t *tokens,
    uint32_t most, radix_spot_t *spot, uint32_t *steps)
{
    uint32_t node = NONE, i;

    assert(spot->found == 0 || spot->node < r->c.nodes);

    *steps -= *steps > 0;
    if (spot->found > 0) {
        node = spot->node;
        if (!radix_node(r, node)->live
            || radix_node(r, node)->hash != spot->name) {
            spot->found = 0;
            node = NONE;
        }
    }

    while (spot->found<most && * steps> 0) {
        (*steps)--;
        i = find(
            r, node, space, tokens + (size_t) spot->found * r->c.block_tokens);
        if (i == NONE) {
            break;
        }
        node = i;
        spot->found++;
    }

    if (spot->found > 0) {
        spot->node = node;
        spot->name = radix_node(r, node)->hash;
    }

    return spot->found;
}


/* --- references --------------------------------------------------------- */

/* A block of the node has no users any more, or some again. */
static void
idle_more(radix_t *r, uint32_t node, uint32_t g)
{
    r->idle[g]++;
    r->owners[radix_node(r, node)->owner].idle++;
}


static void
idle_less(radix_t *r, uint32_t node, uint32_t g)
{
    radix_owner_t *o = &r->owners[radix_node(r, node)->owner];

    assert(r->idle[g] > 0 && o->idle > 0);
    r->idle[g]--;
    o->idle--;
}


static void
take(radix_t *r, uint32_t node, uint32_t g)
{
    uint32_t *users = radix_users(r, node, g);

    assert(radix_part_block(r, node, g) != NONE && *users < UINT32_MAX);

    if (*users == 0) {
        if (radix_loose(r, node, g)) {
            radix_order_pull(r, node, g);
        }
        idle_less(r, node, g);
    }
    (*users)++;
}


static void
give(radix_t *r, uint32_t node, uint32_t g, uint64_t now)
{
    uint32_t *users = radix_users(r, node, g);

    assert(radix_part_block(r, node, g) != NONE && *users > 0);

    if (--*users == 0) {
        idle_more(r, node, g);
        if (radix_loose(r, node, g)) {
            radix_order_push(r, node, g, now);
        }
    }
}


/* The child that is compared first next time: of parent's own namespace. */
static void
guess(radix_t *r, uint32_t parent, uint32_t child)
{
    if (radix_node(r, parent)->space == radix_node(r, child)->space) {
        radix_node(r, parent)->child = child;
    }
}


uint32_t
radix_match(radix_t *r, uint64_t space, uint32_t owner, const uint32_t *tokens,
    uint32_t most, uint32_t *path)
{
    uint32_t n = walk(r, space, tokens, most, path), i, g, first;

    for (i = 0; i < n; i++) {
        take(r, path[i], 0);
        if (i > 0) {
            guess(r, path[i - 1], path[i]);
        }
    }

    for (g = 1; g < r->c.groups; g++) {
        first = n > r->c.window[g] ? n - r->c.window[g] : 0;
        for (i = first; i < n; i++) {
            take(r, path[i], g);
        }
    }

    i = radix_order_find(r, owner);
    if (i != NONE) {
        radix_order_touch(r, i);
    }

    return n;
}


void
radix_leave(radix_t *r, uint32_t node, uint32_t g, uint64_t now)
{
    assert(g > 0 && g < r->c.groups && node < r->c.nodes);

    give(r, node, g, now);
}


void
radix_release(radix_t *r, uint32_t tip, uint64_t now)
{
    uint32_t i = tip;
    radix_node_t *n;

    while (i != NONE) {
        assert(i < r->c.nodes);
        n = radix_node(r, i);
        n->used = now;
        give(r, i, 0, now);
        i = n->parent;
    }
}


void
radix_hold(radix_t *r, uint32_t tip)
{
    uint32_t i;

    for (i = tip; i != NONE; i = radix_node(r, i)->parent) {
        assert(i < r->c.nodes);
        take(r, i, 0);
    }
}


void
radix_unhold(radix_t *r, uint32_t tip)
{
    uint32_t i;

    for (i = tip; i != NONE; i = radix_node(r, i)->parent) {
        assert(i < r->c.nodes);
        give(r, i, 0, radix_node(r, i)->used);
    }
}


/* --- growing and shrinking ---------------------------------------------- */

/* The tree takes a block of group g > 0, in use by the caller. */
static void
put(radix_t *r, uint32_t node, uint32_t g, uint32_t block)
{
    radix_part_t *p = &r->further[g][node];

    assert(p->block == NONE && p->users == 0 && p->link.rank == 0);

    p->block = block;
    p->users = 1;
    r->blocks[g]++;
    radix_order_more(r, radix_node(r, node)->owner, g, 1);
}


/* A new node i, in use by the caller; counted by him. */
static void
grow(radix_t *r, const radix_new_t *w, uint32_t i, uint32_t parent, uint32_t h,
    const uint32_t *tokens, uint32_t owner)
{
    radix_node_t *n = radix_node(r, i), *up;

    assert(i < r->c.nodes && !n->live);

    n->space = w->space;
    n->used = w->now;
    n->hash = h;
    n->parent = parent;
    n->child = NONE;
    n->kids = 0;
    n->users = 1;
    n->owner = owner;
    n->keep = (uint8_t) w->keep;
    n->live = 1;
    memcpy(n->tokens, tokens, r->c.block_tokens * sizeof(uint32_t));
    place_add(r, i, h);

    if (parent != NONE) {
        up = radix_node(r, parent);
        assert(up->users > 0);
        assert(up->space == w->space || up->space == RADIX_SHARED);
        up->kids++;
        guess(r, parent, i);
    }
    r->shared += w->space == RADIX_SHARED;
}


/*
 * Blocks [from, n) of the run, none of which is there: what hangs from a new
 * node is new.  In small lots, so that a lot's memory is on its way when its
 * first node is written.
 */
static void
grow_run(radix_t *r, const radix_new_t *w, uint32_t from, uint32_t up,
    uint32_t *path)
{
    uint32_t owner = radix_order_owner(r, w->owner, w->weight);
    uint32_t hashes[RADIX_LOT], parent, k, j, m;
    const uint32_t *ids = w->blocks[0], *tokens;
    size_t bt = r->c.block_tokens;

    for (k = from; k < w->n; k += m) {
        m = w->n - k < RADIX_LOT ? w->n - k : RADIX_LOT;

        for (j = 0, parent = up; j < m; j++, parent = ids[k + j - 1]) {
            hashes[j] = hash(r, parent, w->space, w->tokens + (k + j) * bt);
            __builtin_prefetch(&r->places[hashes[j] & r->mask], 1);
            __builtin_prefetch(radix_node(r, ids[k + j]), 1);
            __builtin_prefetch(radix_node(r, ids[k + j])->tokens, 1);
        }
        for (j = 0; j < m; j++, up = ids[k + j - 1]) {
            tokens = w->tokens + (k + j) * bt;
            grow(r, w, ids[k + j], up, hashes[j], tokens, owner);
            path[k + j] = ids[k + j];
        }
    }

    r->blocks[0] += w->n - from;
    radix_order_more(r, owner, 0, w->n - from);
}


uint32_t
radix_insert(radix_t *r, const radix_new_t *w, uint32_t *path, uint8_t *taken)
{
    uint32_t up = w->parent, i, k, g, there;

    assert(w->n > 0 && w->keep < 256);
    assert(up == NONE || (up < r->c.nodes && radix_node(r, up)->users > 0));

    for (k = 0; k < w->n; k++, up = i) {
        i = find(r, up, w->space, w->tokens + (size_t) k * r->c.block_tokens);
        if (i == NONE) {
            break;
        }
        take(r, i, 0);
        path[k] = i;
    }

    there = k;
    if (there < w->n) {
        grow_run(r, w, there, up, path);
    }

    for (k = 0; k < w->n; k++) {
        taken[k] = k >= there;
        for (g = 1; g < r->c.groups; g++) {
            if (w->blocks[g][k] != NONE
                && r->further[g][path[k]].block == NONE) {
                put(r, path[k], g, w->blocks[g][k]);
                taken[k] |= (uint8_t) (1u << g);
            }
        }
    }

    radix_order_touch(r, radix_node(r, path[w->n - 1])->owner);

    return path[w->n - 1];
}


/* Takes the block of group g, which nobody uses, out of the node. */
static uint32_t
strip(radix_t *r, uint32_t node, uint32_t g)
{
    uint32_t block = radix_part_block(r, node, g);

    if (block == NONE) {
        return NONE;
    }

    assert(*radix_users(r, node, g) == 0);
    assert(r->blocks[g] > 0);

    if (radix_link(r, node, g)->rank > 0) {
        radix_order_pull(r, node, g);
    }
    if (g > 0) {
        r->further[g][node].block = NONE;
    }
    r->blocks[g]--;
    idle_less(r, node, g);

    return block;
}


/* Takes a leaf that nobody uses out of the tree. */
static void
fell(radix_t *r, uint32_t i, uint32_t blocks[RADIX_GROUPS_MAX])
{
    radix_node_t *n = radix_node(r, i), *up;
    uint32_t g;

    assert(n->live && n->kids == 0);

    for (g = r->c.groups; g-- > 0;) {
        blocks[g] = strip(r, i, g);
        if (blocks[g] != NONE) {
            radix_order_less(r, n->owner, g);
        }
    }
    assert(blocks[0] == i);

    place_remove(r, i, n->hash);
    n->live = 0;
    r->shared -= n->space == RADIX_SHARED;

    if (n->parent != NONE) {
        up = radix_node(r, n->parent);
        assert(up->live && up->kids > 0);
        up->kids--;
        if (up->child == i) {
            up->child = NONE;
        }
        if (radix_loose(r, n->parent, 0)) {
            radix_order_push(r, n->parent, 0, up->used);

            /* it is likely to be among the next to go */
            __builtin_prefetch(&r->places[up->hash & r->mask], 1);
            if (up->parent != NONE) {
                __builtin_prefetch(radix_node(r, up->parent), 1);
            }
        }
    }
}


int
radix_retreat(
    radix_t *r, uint32_t tip, uint64_t now, uint32_t blocks[RADIX_GROUPS_MAX])
{
    assert(tip < r->c.nodes && radix_node(r, tip)->live);

    radix_node(r, tip)->used = now;
    give(r, tip, 0, now);
    if (!radix_loose(r, tip, 0)) {
        return 0;
    }

    fell(r, tip, blocks);

    return 1;
}


int
radix_evict(radix_t *r, uint32_t g, uint32_t owner, uint32_t weight,
    uint32_t blocks[RADIX_GROUPS_MAX])
{
    uint32_t i = radix_share_next(r, owner, weight, &g), k;

    if (i == NONE) {
        return 0;
    }
    assert(g < r->c.groups);

    if (g == 0) {
        fell(r, i, blocks);
        r->evicted++;
        return 1;
    }

    for (k = 0; k < r->c.groups; k++) {
        blocks[k] = NONE;
    }
    blocks[g] = strip(r, i, g);
    radix_order_less(r, radix_node(r, i)->owner, g);

    return 1;
}


/* --- looking in --------------------------------------------------------- */

void
radix_fetch(const radix_t *r, uint32_t node)
{
    assert(node < r->c.nodes);

    __builtin_prefetch(radix_node(r, node), 1);
}


int
radix_live(const radix_t *r, uint32_t node)
{
    assert(node < r->c.nodes);

    return radix_node(r, node)->live;
}


uint32_t
radix_parent(const radix_t *r, uint32_t node)
{
    assert(node < r->c.nodes && radix_node(r, node)->live);

    return radix_node(r, node)->parent;
}


uint32_t
radix_child(
    const radix_t *r, uint32_t parent, uint64_t space, const uint32_t *tokens)
{
    assert(parent == NONE || radix_live(r, parent));

    return find(r, parent, space, tokens);
}


void
radix_of(const radix_t *r, uint32_t node, radix_new_t *w)
{
    const radix_node_t *n = radix_node(r, node);
    const radix_owner_t *o = &r->owners[n->owner];

    assert(node < r->c.nodes && n->live && o->live);

    memset(w, 0, sizeof(*w));
    w->space = n->space;
    w->owner = n->owner < r->c.owners ? o->name : NONE; /* all the others */
    w->weight = o->weight;
    w->keep = n->keep;
    w->n = 1;
    w->tokens = n->tokens;
}


uint32_t
radix_block(const radix_t *r, uint32_t node, uint32_t g)
{
    assert(node < r->c.nodes && radix_node(r, node)->live && g < r->c.groups);

    return radix_part_block(r, node, g);
}


uint32_t
radix_refs(const radix_t *r, uint32_t node, uint32_t g)
{
    assert(node < r->c.nodes && radix_node(r, node)->live && g < r->c.groups);

    return *radix_users(r, node, g);
}


uint64_t
radix_owned(const radix_t *r, uint32_t owner, uint32_t g)
{
    uint32_t i = radix_order_find(r, owner);

    assert(g < r->c.groups);

    return i == NONE ? 0 : r->owners[i].blocks[g];
}


void
radix_stats(const radix_t *r, radix_stats_t *st)
{
    memset(st, 0, sizeof(*st));
    memcpy(st->blocks, r->blocks, sizeof(st->blocks));
    memcpy(st->idle, r->idle, sizeof(st->idle));
    st->evicted = r->evicted;
    st->owners = r->owners_n;
    st->weights = r->weights;
}


uint64_t
radix_idle(const radix_t *r)
{
    uint64_t sum = 0;
    uint32_t g;

    for (g = 0; g < r->c.groups; g++) {
        assert(r->idle[g] <= r->blocks[g]);
        sum += r->idle[g];
    }

    return sum;
}


void
radix_check(const radix_t *r)
{
    uint32_t g;

    assert(r->blocks[0] <= r->c.nodes && r->owners_n <= r->c.owners + 1);

    for (g = 0; g < r->c.groups; g++) {
        assert(r->idle[g] <= r->blocks[g] && r->blocks[g] <= r->blocks[0]);
        assert(r->order_n[g] <= r->owners_n);
        assert(r->order_n[g] == 0 || r->idle[g] > 0);
    }

    /* what is idle has a leaf that is */
    assert((r->order_n[0] == 0) == (r->idle[0] == 0));
}


/* One node: found in the table, its parent no less in use. */
static void
check_node(const radix_t *r, uint32_t i)
{
    const radix_node_t *n = radix_node(r, i), *up;
    uint32_t at = n->hash & r->mask;

    assert(n->hash == hash(r, n->parent, n->space, n->tokens));
    assert(r->owners[n->owner].live);
    assert(find_in(r, n->parent, n->space, n->tokens) == i);

    while (r->places[at].node != i) {
        assert(r->places[at].node != NONE);
        at = (at + 1) & r->mask;
    }
    assert(r->places[at].hash == n->hash);

    if (n->parent != NONE) {
        up = radix_node(r, n->parent);
        assert(up->live && n->parent != i);
        assert(up->space == n->space || up->space == RADIX_SHARED);
        assert(up->kids > 0 && up->users >= n->users);
    }
    if (n->child != NONE) {
        assert(radix_node(r, n->child)->live);
        assert(radix_node(r, n->child)->parent == i);
        assert(radix_node(r, n->child)->space == n->space);
    }
}


void
radix_check_deep(const radix_t *r)
{
    uint64_t blocks[RADIX_GROUPS_MAX] = {0}, idle[RADIX_GROUPS_MAX] = {0};
    uint64_t owners_idle = 0, all_idle = 0;
    uint64_t owned[RADIX_GROUPS_MAX] = {0}, kids = 0, below = 0, full = 0;
    uint64_t shared = 0;
    uint32_t i, g;

    radix_check(r);

    for (i = 0; i < r->c.nodes; i++) {
        for (g = 0; g < r->c.groups; g++) {
            if (radix_part_block(r, i, g) != NONE) {
                assert(radix_node(r, i)->live);
                blocks[g]++;
                idle[g] += *radix_users(r, i, g) == 0;
            }
        }
        if (radix_node(r, i)->live) {
            check_node(r, i);
            kids += radix_node(r, i)->kids;
            shared += radix_node(r, i)->space == RADIX_SHARED;
            below += radix_node(r, i)->parent != NONE;
        }
    }

    /* each has at least one if its parent says so, so none has too many */
    assert(kids == below && shared == r->shared);

    for (i = 0; i <= r->mask; i++) {
        full += r->places[i].node != NONE;
    }
    assert(full == r->blocks[0]);

    for (i = 0; i <= r->c.owners; i++) {
        for (g = 0; g < r->c.groups; g++) {
            owned[g] += r->owners[i].live ? r->owners[i].blocks[g] : 0;
        }
        owners_idle += r->owners[i].idle;
    }
    for (g = 0; g < r->c.groups; g++) {
        assert(blocks[g] == r->blocks[g] && idle[g] == r->idle[g]);
        assert(owned[g] == r->blocks[g]);
        all_idle += idle[g];
    }
    assert(owners_idle == all_idle);

    radix_order_check_deep(r);
}
