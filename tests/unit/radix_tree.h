/*
 * A prefix tree and what to put into it, for the tests of its parts.
 */
#ifndef RADIX_TREE_H
#define RADIX_TREE_H

#include "radix.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

enum { BT = 4 };


static inline radix_t *
open_tree(uint32_t nodes, uint32_t groups, uint32_t window)
{
    radix_cfg_t c;
    radix_t *r;
    uint32_t g;

    memset(&c, 0, sizeof(c));
    c.nodes = nodes;
    c.block_tokens = BT;
    c.groups = groups;
    for (g = 1; g < groups; g++) {
        c.window[g] = window + g - 1;
    }
    c.owners = 8;
    c.seed = 77;
    c.keep_bonus = 100;
    r = radix_open(&c);
    assert_non_null(r);
    assert_true(radix_bytes(&c) > nodes * (BT * 4 + 32));

    return r;
}


/* Inserts n blocks of text below parent; group 0's ids from `block` on. */
static inline uint32_t
add(radix_t *r, uint64_t space, uint32_t owner, uint32_t parent,
    const uint32_t *text, uint32_t n, uint32_t block, uint64_t now)
{
    radix_new_t w;
    uint32_t blocks[16], path[16], i, g, tip;
    uint8_t taken[16];

    memset(&w, 0, sizeof(w));
    w.space = space;
    w.owner = owner;
    w.weight = 1;
    w.now = now;
    w.parent = parent;
    w.n = n;
    w.tokens = text;
    for (i = 0; i < n; i++) {
        blocks[i] = block + i;
    }
    for (g = 0; g < RADIX_GROUPS_MAX; g++) {
        w.blocks[g] = blocks;
    }
    tip = radix_insert(r, &w, path, taken);
    radix_check_deep(r);
    for (i = 0; i < n; i++) {
        assert_int_equal(taken[i] & 1, path[i] == block + i);
        assert_int_equal(
            radix_parent(r, path[i]), i == 0 ? parent : path[i - 1]);
    }
    assert_int_equal(tip, path[n - 1]);

    return tip;
}


static inline uint32_t
evict(radix_t *r, uint64_t now)
{
    uint32_t blocks[RADIX_GROUPS_MAX];

    radix_time(r, now);
    if (!radix_evict(r, 0, RADIX_NONE, 1, blocks)) {
        return RADIX_NONE;
    }
    radix_check_deep(r);

    return blocks[0];
}


/* Unlike texts, each of one block: `n` of them from id `block` on. */
static inline void
flood(radix_t *r, uint32_t owner, uint32_t weight, uint32_t keep,
    uint32_t block, uint32_t n, uint64_t now)
{
    uint32_t words[BT] = {owner, 0, 0, 0}, i, path;
    radix_new_t w;
    uint8_t taken;

    radix_time(r, now);
    memset(&w, 0, sizeof(w));
    w.parent = RADIX_NONE;
    w.space = owner;
    w.owner = owner;
    w.weight = weight;
    w.keep = keep;
    w.now = now;
    w.n = 1;
    w.tokens = words;
    w.blocks[0] = &words[1];
    for (i = 0; i < n; i++) {
        words[1] = block + i;
        assert_int_equal(radix_insert(r, &w, &path, &taken), block + i);
        radix_release(r, block + i, now);
    }
    radix_check_deep(r);
}

#endif
