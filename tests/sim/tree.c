/*
 * Two caches on the tree of what is asked: see tree.h.
 *
 * DESIGN.  Nothing here is shared with engine/radix.c: the whole tree is laid
 * out beforehand, each ask is a path in it, and a cache is a set of nodes that
 * has with each its parent.  Both rules evict leaves, by a score: a heap holds
 * (score, node), and an entry that is no longer true is dropped when it comes
 * up.
 *
 * FARTHEST NEXT USE is the best that can be, with blocks of one size all of
 * which an ask needs at once: an ask for a node asks for its parent, so the
 * farthest block of all is always a leaf, or as far as one.
 *
 * An ask takes, besides what it finds, blocks for all of its tokens, the last
 * of them maybe partial; what is full stays.  As the pool does it (kv.c).
 */
#include "tree.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define TRIED_NODES 32


/* --- asks --------------------------------------------------------------- */

void
ask_begin(asks_t *a)
{
    if (a->n == a->cap) {
        a->cap = a->cap ? 2 * a->cap : 1024;
        a->v = realloc(a->v, a->cap * sizeof(*a->v));
        assert(a->v != NULL);
    }
    a->v[a->n++] = (ask_t){.from = a->tokens_n, .after = TREE_NEVER};
}


void
ask_token(asks_t *a, uint32_t token)
{
    ask_t *q = &a->v[a->n - 1];

    assert(a->n > 0);
    if (a->tokens_n == a->tokens_cap) {
        a->tokens_cap = a->tokens_cap ? 2 * a->tokens_cap : 4096;
        a->tokens = realloc(a->tokens, a->tokens_cap * sizeof(uint32_t));
        assert(a->tokens != NULL);
    }
    a->tokens[a->tokens_n++] = token;
    q->n++;
    a->longest = q->n > a->longest ? q->n : a->longest;
}


void
ask_prompt(asks_t *a, uint32_t most)
{
    ask_t *q = &a->v[a->n - 1];

    assert(a->n > 0 && most <= q->n);
    q->prompt = q->n;
    q->most = most;
}


void
asks_free(asks_t *a)
{
    free(a->v);
    free(a->tokens);
    memset(a, 0, sizeof(*a));
}


/* --- the tree ----------------------------------------------------------- */

/* Nodes by parent and tokens, while the tree is laid out. */
typedef struct {
    size_t mask;
    uint32_t *node;          /* owned */
    const uint32_t **tokens; /* [nodes] owned: of each node's block */
} names_t;


/* The child of parent with these tokens, made if there is none. */
static uint32_t
child(tree_t *t, names_t *m, uint32_t parent, const uint32_t *tokens)
{
    uint64_t h = (parent + 1ull) * 0xa0761d6478bd642full;
    uint32_t i, node;
    size_t at;

    for (i = 0; i < t->block_tokens; i++) {
        h = (h ^ tokens[i]) * 0x9e3779b97f4a7c15ull;
        h ^= h >> 29;
    }
    for (at = h & m->mask; (node = m->node[at]) != TREE_NEVER;
         at = (at + 1) & m->mask) {
        if (t->parent[node] == parent
            && memcmp(m->tokens[node], tokens, t->block_tokens * 4) == 0) {
            return node;
        }
    }
    node = m->node[at] = t->nodes++;
    t->parent[node] = parent;
    m->tokens[node] = tokens;

    return node;
}


/* For each node of each path the next ask that has it, backwards. */
static void
look_ahead(tree_t *t)
{
    uint32_t *seen = malloc((t->nodes + 1ull) * sizeof(*seen));
    size_t i, k;

    assert(seen != NULL);
    memset(seen, 255, t->nodes * sizeof(*seen));
    for (i = t->asks->n; i-- > 0;) {
        for (k = t->at[i]; k < t->at[i + 1]; k++) {
            t->next[k] = seen[t->paths[k]];
            seen[t->paths[k]] = (uint32_t) i;
        }
    }
    free(seen);
}


void
tree_open(tree_t *t, const asks_t *a, uint32_t block_tokens)
{
    size_t i, k, total = 0;
    uint32_t up;
    names_t m;

    memset(t, 0, sizeof(*t));
    t->asks = a;
    t->block_tokens = block_tokens;
    for (i = 0; i < a->n; i++) {
        total += a->v[i].n / block_tokens;
    }
    for (m.mask = 16; m.mask < 2 * total; m.mask *= 2) { /* none */
    }
    m.node = malloc(m.mask * sizeof(*m.node));
    m.tokens = malloc((total + 1) * sizeof(*m.tokens));
    t->parent = malloc((total + 1) * sizeof(uint32_t));
    t->paths = malloc((total + 1) * sizeof(uint32_t));
    t->next = malloc((total + 1) * sizeof(uint32_t));
    t->at = malloc((a->n + 1) * sizeof(size_t));
    assert(m.node != NULL && m.tokens != NULL && t->parent != NULL);
    assert(t->paths != NULL && t->next != NULL && t->at != NULL);
    memset(m.node, 255, m.mask * sizeof(*m.node));
    m.mask--;

    for (i = total = 0; i < a->n; i++) {
        t->at[i] = total;
        for (k = 0, up = TREE_NEVER; k < a->v[i].n / block_tokens; k++) {
            up = child(t, &m, up, a->tokens + a->v[i].from + k * block_tokens);
            t->paths[total++] = up;
        }
    }
    t->at[i] = total;
    look_ahead(t);
    free(m.node);
    free(m.tokens);
}


void
tree_close(tree_t *t)
{
    free(t->parent);
    free(t->paths);
    free(t->next);
    free(t->at);
    memset(t, 0, sizeof(*t));
}


uint64_t
tree_asked(const tree_t *t)
{
    uint64_t sum = 0;
    size_t i;

    for (i = 0; i < t->asks->n; i++) {
        sum += t->asks->v[i].most / t->block_tokens;
    }

    return sum;
}


/* Blocks that an ask has at once, when it found that many. */
static uint32_t
takes(const tree_t *t, size_t i, uint32_t found)
{
    uint32_t bt = t->block_tokens;

    return (t->asks->v[i].n + bt - 1) / bt - found;
}


/* --- a cache ------------------------------------------------------------ */

typedef struct {
    uint32_t score; /* the highest goes */
    uint32_t node;
} entry_t;

typedef struct {
    const tree_t *t;
    uint32_t blocks, used;
    uint32_t now;    /* the ask */
    uint8_t *in;     /* [nodes] owned, as are all below */
    uint32_t *kids;  /* of those in it */
    uint32_t *score; /* the last one */
    uint32_t *busy;  /* the last ask that had it */
    entry_t *heap; /* grows: what is no longer true stays until it is on top */
    size_t heap_n, heap_cap;
} cache_t;


static int
above(entry_t a, entry_t b)
{
    return a.score != b.score ? a.score > b.score : a.node > b.node;
}


static void
push(cache_t *c, uint32_t node)
{
    entry_t e = {c->score[node], node};
    size_t i, up;

    if (c->heap_n == c->heap_cap) {
        c->heap_cap = c->heap_cap ? 2 * c->heap_cap : 1024;
        c->heap = realloc(c->heap, c->heap_cap * sizeof(*c->heap));
        assert(c->heap != NULL);
    }
    for (i = c->heap_n++; i > 0; i = up) {
        up = (i - 1) / 2;
        if (!above(e, c->heap[up])) {
            break;
        }
        c->heap[i] = c->heap[up];
    }
    c->heap[i] = e;
}


static entry_t
pop(cache_t *c)
{
    entry_t top = c->heap[0], e = c->heap[c->heap_n - 1];
    size_t i = 0, k;

    assert(c->heap_n > 0);
    c->heap_n--;
    while ((k = 2 * i + 1) < c->heap_n) {
        k += k + 1 < c->heap_n && above(c->heap[k + 1], c->heap[k]);
        if (!above(c->heap[k], e)) {
            break;
        }
        c->heap[i] = c->heap[k];
        i = k;
    }
    if (c->heap_n > 0) {
        c->heap[i] = e;
    }

    return top;
}


static void
evict(cache_t *c)
{
    uint32_t up;
    entry_t e;

    /* what is not true of a node any more, or is in use, does not count */
    do {
        e = pop(c);
    } while (!c->in[e.node] || c->kids[e.node] > 0
             || c->score[e.node] != e.score || c->busy[e.node] == c->now);

    c->in[e.node] = 0;
    c->used--;
    up = c->t->parent[e.node];
    if (up != TREE_NEVER && --c->kids[up] == 0 && c->busy[up] != c->now) {
        push(c, up);
    }
}


/* How many of an ask's blocks are there and may be found. */
static uint32_t
found(const cache_t *c, size_t i)
{
    uint32_t n = 0, most = c->t->asks->v[i].most / c->t->block_tokens;

    while (n < most && c->in[c->t->paths[c->t->at[i] + n]]) {
        n++;
    }

    return n;
}


/* The whole ask; how many blocks it found. */
static uint32_t
serve(cache_t *c, size_t i, tree_rule_t rule)
{
    const tree_t *t = c->t;
    uint32_t node, hits = found(c, i);
    size_t k;

    c->now = (uint32_t) i;
    for (k = t->at[i]; k < t->at[i] + hits; k++) {
        c->busy[t->paths[k]] = c->now;
    }
    assert(takes(t, i, 0) <= c->blocks);
    while (c->blocks - c->used < takes(t, i, hits)) {
        evict(c);
    }
    for (k = t->at[i]; k < t->at[i + 1]; k++) {
        node = t->paths[k];
        c->busy[node] = c->now;
        c->score[node] = rule == TREE_BEST ? t->next[k] : ~c->now;
        if (!c->in[node]) {
            c->in[node] = 1;
            c->used++;
            if (t->parent[node] != TREE_NEVER) {
                c->kids[t->parent[node]]++;
            }
        }
    }
    if (k > t->at[i] && c->kids[t->paths[k - 1]] == 0) {
        push(c, t->paths[k - 1]);
    }

    return hits;
}


uint64_t
tree_hits(const tree_t *t, tree_rule_t rule, uint32_t blocks)
{
    cache_t c = {.t = t, .blocks = blocks};
    uint64_t hits = 0;
    size_t i;

    c.in = calloc(t->nodes + 1ull, sizeof(*c.in));
    c.kids = calloc(t->nodes + 1ull, sizeof(*c.kids));
    c.score = calloc(t->nodes + 1ull, sizeof(*c.score));
    c.busy = malloc((t->nodes + 1ull) * sizeof(*c.busy));
    assert(c.in != NULL && c.kids != NULL && c.score != NULL);
    assert(c.busy != NULL);
    memset(c.busy, 255, (t->nodes + 1ull) * sizeof(*c.busy));

    for (i = 0; i < t->asks->n; i++) {
        hits += serve(&c, i, rule);
    }
    free(c.in);
    free(c.kids);
    free(c.score);
    free(c.busy);
    free(c.heap);

    return hits;
}


/* --- every choice ------------------------------------------------------- */

static uint32_t
bits(uint32_t set)
{
    return (uint32_t) __builtin_popcount(set);
}


/* The most hits of asks i and on, with that set of nodes in the cache. */
static uint64_t
tried(const tree_t *t, uint32_t blocks, size_t i, uint32_t set)
{
    uint32_t hits = 0, path = 0, node, most, inner = 0, left;
    uint64_t best = 0, n;
    size_t k;

    if (i == t->asks->n) {
        return 0;
    }

    most = t->asks->v[i].most / t->block_tokens;
    while (hits < most && (set >> t->paths[t->at[i] + hits] & 1)) {
        path |= 1u << t->paths[t->at[i] + hits++];
    }
    if (blocks - bits(set) >= takes(t, i, hits)) {
        for (k = t->at[i]; k < t->at[i + 1]; k++) {
            set |= 1u << t->paths[k];
        }
        return hits + tried(t, blocks, i + 1, set);
    }

    /* one goes, any but those in use and above others */
    for (node = 0; node < t->nodes; node++) {
        if ((set >> node & 1) && t->parent[node] != TREE_NEVER) {
            inner |= 1u << t->parent[node];
        }
    }
    for (left = set & ~path & ~inner; left != 0; left &= left - 1) {
        n = tried(t, blocks, i, set & ~(left & -left));
        best = n > best ? n : best;
    }

    return best;
}


uint64_t
tree_hits_tried(const tree_t *t, uint32_t blocks)
{
    assert(t->nodes <= TRIED_NODES);

    return tried(t, blocks, 0, 0);
}
