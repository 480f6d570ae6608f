/*
 * Strings to numbers, walked a byte at a time: what begins here, and which is
 * the longest?
 *
 * DESIGN.  A trie whose edges lie in one hash table: a node and a byte give
 * the next node in one probe.  Double arrays are smaller and a little faster,
 * but take long to build, and this is built at every start.
 *
 *      root --'a'--> 1 --'b'--> 2 (value 7: "ab")
 *              \--'c'--> 3 (value 9: "c")
 *
 * A node's number and a byte share 32 bits, so there are at most 2^24 nodes;
 * one more string then fails as if memory were used up.
 *
 * Memory: two tables that grow by doubling, at most about 40 bytes for each
 * byte of the strings; freed by token_trie_close.  Read-only once built.
 */
#include "token_impl.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define TRIE_NODES_MAX (1u << 24)


static uint32_t
trie_hash(uint32_t key)
{
    uint64_t h = (uint64_t) key * 0x9e3779b97f4a7c15ull;

    return (uint32_t) (h >> 32) ^ (uint32_t) (h >> 52);
}


/* The slot of key, or the empty one where it belongs. */
static token_edge_t *
trie_slot(const token_trie_t *t, uint32_t key)
{
    uint32_t i = trie_hash(key);
    token_edge_t *e;

    /* half of the slots are empty, so this ends */
    for (;; i++) {
        e = &t->edges[i & t->mask];
        if (e->to == 0 || e->key == key) {
            return e;
        }
    }
}


static int
trie_grow_edges(token_trie_t *t)
{
    token_trie_t more = *t;
    uint32_t i, size = t->edges == NULL ? 64 : (t->mask + 1) * 2;

    if (t->edges != NULL && t->edges_n * 2 < t->mask) {
        return 0;
    }

    more.mask = size - 1;
    more.edges = calloc(size, sizeof(*more.edges));
    if (more.edges == NULL) {
        return -1;
    }

    for (i = 0; t->edges != NULL && i <= t->mask; i++) {
        if (t->edges[i].to != 0) {
            *trie_slot(&more, t->edges[i].key) = t->edges[i];
        }
    }

    free(t->edges);
    *t = more;

    return 0;
}


/* A new node's number, 0 if there is no room. */
static uint32_t
trie_node(token_trie_t *t)
{
    uint32_t cap = t->nodes_cap == 0 ? 32 : t->nodes_cap * 2;
    uint32_t *v;

    if (t->nodes_n == TRIE_NODES_MAX) {
        return 0;
    }

    if (t->nodes_n == t->nodes_cap) {
        v = realloc(t->value, cap * sizeof(*v));
        if (v == NULL) {
            return 0;
        }
        memset(v + t->nodes_cap, 0, (cap - t->nodes_cap) * sizeof(*v));
        t->value = v;
        t->nodes_cap = cap;
    }

    return t->nodes_n++;
}


int
token_trie_put(token_trie_t *t, const char *s, size_t len, uint32_t value)
{
    uint32_t node = 0, key;
    token_edge_t *e;
    size_t i;

    assert(len > 0 && value > 0);

    if (t->nodes_n == 0 && (trie_node(t) != 0 || t->nodes_n == 0)) {
        return -1;
    }

    for (i = 0; i < len; i++) {
        if (trie_grow_edges(t) != 0) {
            return -1;
        }
        key = node << 8 | (uint8_t) s[i];
        e = trie_slot(t, key);
        if (e->to == 0) {
            node = trie_node(t);
            if (node == 0) {
                return -1;
            }
            e->key = key;
            e->to = node;
            t->edges_n++;
        }
        node = e->to;
    }

    assert(node > 0 && node < t->nodes_n);
    if (t->value[node] == 0) {
        t->value[node] = value;
    }

    return 0;
}


uint32_t
token_trie_step(const token_trie_t *t, uint32_t node, uint8_t byte)
{
    assert(node < t->nodes_n || t->nodes_n == 0);

    return t->edges == NULL ? 0 : trie_slot(t, node << 8 | byte)->to;
}


uint32_t
token_trie_longest(const token_trie_t *t, const char *s, size_t len, size_t *n)
{
    uint32_t node = 0, found = 0;
    size_t i;

    for (i = 0; i < len; i++) {
        node = token_trie_step(t, node, (uint8_t) s[i]);
        if (node == 0) {
            break;
        }
        if (t->value[node] != 0) {
            found = t->value[node];
            *n = i + 1;
        }
    }

    return found;
}


void
token_trie_close(token_trie_t *t)
{
    free(t->edges);
    free(t->value);
    memset(t, 0, sizeof(*t));
}
