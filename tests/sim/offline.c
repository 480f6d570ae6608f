/*
 * An order made beforehand, to hold the scheduler's against: see offline.h.
 *
 * DESIGN.  Who runs holds the blocks of its whole text from its first step to
 * its last, a token a step, so only what is left of the pool can keep what
 * others will find; a cache without end, or one ask at a time, says nothing
 * about that.  Here all asks are known.  Their ranks are the order of a walk
 * through the tree of all that is asked, depth first:
 *
 *      (root) ──┬── 0 ──┬── 1
 *               │       └── 2
 *               └── 3 ───── 4
 *
 * Of the asks that could begin that of the lowest rank does, or the one that
 * finds most; evicted is what is wanted next by the ask of the highest rank.
 * Both are tried, and the better one counts.  Nothing here is proven to be the
 * best there is, but with that pool and so many at once it can be done.  An ask
 * begins only if all its blocks can be had, and then has its prompt at once;
 * whoever begins beside it finds that.  Nobody's patience ends.
 */
#include "offline.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { LATER, READY, RUNS, ENDED };

typedef struct {
    const asks_t *a;
    const offline_t *c;
    tree_t t;
    int longest;     /* the longest match first; else the least rank */
    uint32_t *ask;   /* [asks] by rank; owned, as are all below */
    uint32_t *rank;  /* [asks] */
    uint8_t *state;  /* [asks] */
    uint64_t *ends;  /* [asks] the step in which it does */
    uint32_t *users; /* [nodes] that run; their kids that are in the pool */
    uint32_t *kids;
    uint8_t *in;      /* [nodes] */
    uint32_t *pool;   /* [blocks] nodes that are in */
    size_t *wants_at; /* [nodes + 1] the asks that would find it, by rank */
    uint32_t *wants;
    uint32_t *left; /* [groups] asks that have not ended */
    uint32_t groups, next, open, pool_n, held, runs;
    uint64_t now, found;
} walk_t;


static const tree_t *tree_sorted;

/* Depth first: nodes are numbered as they come up first. */
static int
by_path(const void *x, const void *y)
{
    const tree_t *t = tree_sorted;
    uint32_t a = *(const uint32_t *) x, b = *(const uint32_t *) y;
    size_t i = t->at[a], k = t->at[b];

    for (; i < t->at[a + 1] && k < t->at[b + 1]; i++, k++) {
        if (t->paths[i] != t->paths[k]) {
            return t->paths[i] < t->paths[k] ? -1 : 1;
        }
    }
    if (t->at[a + 1] - i != t->at[b + 1] - k) {
        return i == t->at[a + 1] ? -1 : 1;
    }

    return a < b ? -1 : 1;
}


static void *
cells(size_t n, size_t size)
{
    void *p = calloc(n + 1, size);

    assert(p != NULL);

    return p;
}


/* How many blocks of its path an ask may find. */
static size_t
may_find(const walk_t *o, uint32_t i)
{
    return o->a->v[i].most / o->c->block_tokens;
}


/* The asks that want each node, by rank. */
static void
list_wants(walk_t *o)
{
    size_t *fill = cells(o->t.nodes + 1, sizeof(*fill)), k, r;
    uint32_t i, node;

    for (i = 0; i < o->a->n; i++) {
        for (k = 0; k < may_find(o, i); k++) {
            o->wants_at[o->t.paths[o->t.at[i] + k] + 1]++;
        }
    }
    for (node = 0; node < o->t.nodes; node++) {
        o->wants_at[node + 1] += o->wants_at[node];
        fill[node] = o->wants_at[node];
    }
    o->wants = cells(o->wants_at[o->t.nodes], sizeof(uint32_t));
    for (r = 0; r < o->a->n; r++) {
        i = o->ask[r];
        for (k = 0; k < may_find(o, i); k++) {
            o->wants[fill[o->t.paths[o->t.at[i] + k]]++] = i;
        }
    }
    free(fill);
}


static void
off_open(walk_t *o, const asks_t *a, const offline_t *c)
{
    uint32_t i;

    memset(o, 0, sizeof(*o));
    o->a = a;
    o->c = c;
    tree_open(&o->t, a, c->block_tokens);
    o->ask = cells(a->n, sizeof(uint32_t));
    o->rank = cells(a->n, sizeof(uint32_t));
    o->state = cells(a->n, 1);
    o->ends = cells(a->n, sizeof(uint64_t));
    o->users = cells(o->t.nodes, sizeof(uint32_t));
    o->kids = cells(o->t.nodes, sizeof(uint32_t));
    o->in = cells(o->t.nodes, 1);
    o->pool = cells(o->t.nodes, sizeof(uint32_t));
    o->wants_at = cells(o->t.nodes + 1, sizeof(size_t));
    for (i = 0; i < a->n; i++) {
        o->ask[i] = i;
        o->groups =
            a->v[i].group + 1 > o->groups ? a->v[i].group + 1 : o->groups;
    }
    tree_sorted = &o->t;
    qsort(o->ask, a->n, sizeof(uint32_t), by_path);
    for (i = 0; i < a->n; i++) {
        o->rank[o->ask[i]] = i;
    }
    o->left = cells(o->groups, sizeof(uint32_t));
    for (i = 0; i < a->n; i++) {
        o->left[a->v[i].group]++;
    }
    list_wants(o);
}


static void
off_close(walk_t *o)
{
    tree_close(&o->t);
    free(o->ask);
    free(o->rank);
    free(o->state);
    free(o->ends);
    free(o->users);
    free(o->kids);
    free(o->in);
    free(o->pool);
    free(o->wants_at);
    free(o->wants);
    free(o->left);
}


/* Asks of that group that needed ask `after` can begin. */
static void
ready(walk_t *o, uint32_t after, uint32_t group)
{
    uint32_t i;

    for (i = 0; i < o->a->n; i++) {
        if (o->a->v[i].after == after && o->a->v[i].group == group) {
            o->state[i] = READY;
        }
    }
}


static void
open_groups(walk_t *o)
{
    while (o->open < o->c->at_once && o->next < o->groups) {
        ready(o, TREE_NEVER, o->next++);
        o->open++;
    }
}


/* The rank of who would find it next. */
static uint32_t
next_use(const walk_t *o, uint32_t node)
{
    size_t k;

    for (k = o->wants_at[node]; k < o->wants_at[node + 1]; k++) {
        if (o->state[o->wants[k]] <= READY) {
            return o->rank[o->wants[k]];
        }
    }

    return TREE_NEVER;
}


/* 0: all that is there is in use. */
static int
evict(walk_t *o)
{
    uint32_t i, node, use, far = 0, found = TREE_NEVER;

    for (i = 0; i < o->pool_n; i++) {
        node = o->pool[i];
        if (o->users[node] == 0 && o->kids[node] == 0) {
            use = next_use(o, node);
            if (found == TREE_NEVER || use > far) {
                far = use;
                found = i;
            }
        }
    }
    if (found == TREE_NEVER) {
        return 0;
    }

    node = o->pool[found];
    o->pool[found] = o->pool[--o->pool_n];
    o->in[node] = 0;
    if (o->t.parent[node] != TREE_NEVER) {
        o->kids[o->t.parent[node]]--;
    }

    return 1;
}


static uint32_t
match(const walk_t *o, uint32_t i)
{
    uint32_t n = 0;

    while (n < may_find(o, i) && o->in[o->t.paths[o->t.at[i] + n]]) {
        n++;
    }

    return n;
}


/* Its partial block and those of its text that are not nodes. */
static uint32_t
beside(const walk_t *o, uint32_t i)
{
    uint32_t bt = o->c->block_tokens;

    return (o->a->v[i].n + bt - 1) / bt - o->a->v[i].n / bt;
}


/* 0: there is no room. */
static int
begin(walk_t *o, uint32_t i)
{
    uint32_t hits = match(o, i), lacks = beside(o, i), node;
    size_t k;

    for (k = o->t.at[i]; k < o->t.at[i + 1]; k++) {
        node = o->t.paths[k];
        o->users[node]++;
        lacks += !o->in[node];
    }
    while (o->pool_n + o->held + lacks > o->c->blocks) {
        if (!evict(o)) {
            for (k = o->t.at[i]; k < o->t.at[i + 1]; k++) {
                o->users[o->t.paths[k]]--;
            }
            return 0;
        }
    }
    for (k = o->t.at[i]; k < o->t.at[i + 1]; k++) {
        node = o->t.paths[k];
        if (!o->in[node]) {
            o->in[node] = 1;
            o->pool[o->pool_n++] = node;
            if (o->t.parent[node] != TREE_NEVER) {
                o->kids[o->t.parent[node]]++;
            }
        }
    }
    o->held += beside(o, i);
    o->found += (uint64_t) hits * o->c->block_tokens;
    o->state[i] = RUNS;
    o->ends[i] = o->now + o->a->v[i].n - o->a->v[i].prompt;
    o->runs++;

    return 1;
}


/* The one to begin next; TREE_NEVER: none could. */
static uint32_t
choose(const walk_t *o)
{
    uint32_t r, n, most = 0, found = TREE_NEVER;

    for (r = 0; r < o->a->n; r++) {
        if (o->state[o->ask[r]] != READY) {
            continue;
        }
        n = o->longest ? match(o, o->ask[r]) : 0;
        if (found == TREE_NEVER || n > most) {
            most = n;
            found = o->ask[r];
        }
        if (!o->longest) {
            break;
        }
    }

    return found;
}


/* Time goes on until somebody ends. */
static void
pass(walk_t *o)
{
    uint64_t first = UINT64_MAX;
    uint32_t i;
    size_t k;

    for (i = 0; i < o->a->n; i++) {
        if (o->state[i] == RUNS && o->ends[i] < first) {
            first = o->ends[i];
        }
    }
    assert(first != UINT64_MAX);
    o->now = first;

    for (i = 0; i < o->a->n; i++) {
        if (o->state[i] != RUNS || o->ends[i] > o->now) {
            continue;
        }
        for (k = o->t.at[i]; k < o->t.at[i + 1]; k++) {
            o->users[o->t.paths[k]]--;
        }
        o->held -= beside(o, i);
        o->state[i] = ENDED;
        o->runs--;
        if (--o->left[o->a->v[i].group] == 0) {
            o->open--;
        }
        ready(o, i, o->a->v[i].group);
    }
    open_groups(o);
}


static uint64_t
found_by(const asks_t *a, const offline_t *c, int longest)
{
    uint32_t i, n = 0;
    uint64_t found;
    walk_t o;

    off_open(&o, a, c);
    o.longest = longest;
    open_groups(&o);
    while (n < a->n || o.runs > 0) {
        i = o.runs < c->running ? choose(&o) : TREE_NEVER;
        if (i != TREE_NEVER && begin(&o, i)) {
            n++;
        } else {
            pass(&o);
        }
    }
    found = o.found;
    off_close(&o);

    return found;
}


uint64_t
offline_found(const asks_t *a, const offline_t *c)
{
    uint64_t least = found_by(a, c, 0), longest = 0;
    size_t i;

    /* where all may begin at once the walk through the tree is the best */
    for (i = 0; i < a->n && a->v[i].after == TREE_NEVER; i++) { /* any? */
    }
    if (i < a->n) {
        longest = found_by(a, c, 1);
    }

    return longest > least ? longest : least;
}
