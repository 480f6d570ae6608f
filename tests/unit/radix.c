/*
 * Catches a prefix cache that takes one text for another, or one namespace;
 * that frees a block in use, loses one or gives one out twice; that evicts a
 * prefix before what continues it, the wrong owner's block, or not the one
 * used least lately; a match that ends where a window has a hole; and one that
 * goes on from what all share into another namespace.
 */
#include "radix_tree.h"

static const uint32_t text[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13};
static const uint32_t fork_[] = {1, 2, 3, 4, 5, 6, 7, 9, 9, 10, 11, 12};


static void
test_match(void **state)
{
    radix_t *r = open_tree(32, 1, 0);
    uint32_t path[8], tip;
    radix_stats_t st;

    (void) state;
    assert_int_equal(radix_match(r, 1, 0, text, 3, path), 0);
    tip = add(r, 1, 0, RADIX_NONE, text, 3, 10, 1);
    assert_int_equal(tip, 12);
    radix_release(r, tip, 2);

    assert_int_equal(radix_peek(r, 1, text, 3), 3);
    assert_int_equal(radix_peek(r, 1, text, 2), 2);
    assert_int_equal(radix_peek(r, 1, text, 0), 0);
    assert_int_equal(radix_peek(r, 2, text, 3), 0); /* another's */
    assert_int_equal(radix_peek(r, 1, text + 1, 3), 0);
    assert_int_equal(radix_peek(r, 1, fork_, 3), 1); /* one token differs */

    assert_int_equal(radix_match(r, 1, 0, fork_, 3, path), 1);
    assert_int_equal(path[0], 10);
    assert_int_equal(radix_refs(r, 10, 0), 1);
    assert_int_equal(radix_refs(r, 11, 0), 0);

    /* same tokens at another place of the text are another node */
    tip = add(r, 1, 0, path[0], text, 1, 20, 4);
    assert_int_equal(tip, 20);
    assert_int_equal(radix_parent(r, 20), 10);
    radix_release(r, tip, 5);
    radix_stats(r, &st);
    assert_int_equal(st.blocks[0], 4);
    assert_int_equal(st.idle[0], 4);
    assert_int_equal(st.owners, 1);
    assert_int_equal(radix_owned(r, 0, 0), 4);
    assert_int_equal(radix_owned(r, 1, 0), 0);
    radix_close(r);
}


/* Looks, in `steps` steps, how many of text's blocks are there. */
static uint32_t
look(const radix_t *r, radix_spot_t *spot, uint32_t *steps)
{
    uint32_t n = radix_look(r, 1, text, 3, spot, steps);

    assert_int_equal(n, spot->found);

    return n;
}


/* A look goes on where the last one ended, or begins again if that is gone. */
static void
test_look(void **state)
{
    radix_t *r = open_tree(32, 1, 0);
    radix_spot_t spot = {0, 0, 0};
    uint32_t steps = 9, tip;

    (void) state;
    assert_int_equal(look(r, &spot, &steps), 0);
    assert_int_equal(steps, 7);

    tip = add(r, 1, 0, RADIX_NONE, text, 2, 10, 1);
    assert_int_equal(look(r, &spot, &steps), 2);
    assert_int_equal(steps, 3);
    assert_int_equal(look(r, &spot, &steps), 2); /* one step to the end */
    assert_int_equal(steps, 1);
    assert_int_equal(look(r, &spot, &steps), 2); /* none: as it was */
    assert_int_equal(look(r, &spot, &steps), 2);
    assert_int_equal(steps, 0);
    tip = add(r, 1, 0, tip, text + 2 * BT, 1, 12, 2);
    steps = 2;
    assert_int_equal(look(r, &spot, &steps), 3);
    assert_int_equal(steps, 0);
    steps = 9;
    assert_int_equal(look(r, &spot, &steps), 3); /* all there is to find */
    assert_int_equal(steps, 8);

    /* the last one goes, and its number is another's then */
    radix_release(r, tip, 3);
    assert_int_equal(evict(r, 4), 12);
    radix_release(r, add(r, 1, 0, RADIX_NONE, fork_ + 4, 1, 12, 5), 6);
    assert_int_equal(look(r, &spot, &steps), 2);
    assert_int_equal(steps, 4);
    while (evict(r, 7) != RADIX_NONE) { /* none */
    }
    assert_int_equal(look(r, &spot, &steps), 0);

    /* few steps: it gets there in several looks */
    radix_release(r, add(r, 1, 0, RADIX_NONE, text, 3, 20, 8), 8);
    steps = 2;
    assert_int_equal(look(r, &spot, &steps), 1);
    steps = 2;
    assert_int_equal(look(r, &spot, &steps), 2);
    steps = 9;
    assert_int_equal(look(r, &spot, &steps), 3);
    assert_int_equal(spot.node, 22);
    radix_close(r);
}


/* Two who compute the same at once: the second keeps its own blocks. */
static void
test_own(void **state)
{
    radix_t *r = open_tree(32, 1, 0);
    uint32_t a, b;

    (void) state;
    a = add(r, 1, 0, RADIX_NONE, text, 3, 0, 1);
    b = add(r, 1, 0, RADIX_NONE, text, 3, 10, 1);
    assert_int_equal(a, b);
    assert_int_equal(radix_refs(r, 0, 0), 2);
    radix_release(r, a, 2);
    assert_int_equal(evict(r, 3), RADIX_NONE);
    radix_release(r, b, 4);
    assert_int_equal(evict(r, 5), 2);
    assert_int_equal(evict(r, 5), 1);
    assert_int_equal(evict(r, 5), 0);
    assert_int_equal(evict(r, 5), RADIX_NONE);
    radix_close(r);
}


/* Leaves by their last use; a prefix after all that continues it. */
static void
test_order(void **state)
{
    radix_t *r = open_tree(32, 1, 0);
    uint32_t path[8], a, b, c;

    (void) state;
    a = add(r, 1, 0, RADIX_NONE, text, 2, 0, 1);
    radix_release(r, a, 1);
    b = add(r, 1, 0, RADIX_NONE, fork_, 3, 10, 2); /* shares block 0 */
    radix_release(r, b, 2);
    c = add(r, 1, 0, RADIX_NONE, text + 4, 1, 20, 3);
    radix_release(r, c, 3);

    assert_int_equal(radix_match(r, 1, 0, text, 2, path), 2);
    radix_release(r, path[1], 4); /* the first one was used again */

    assert_int_equal(evict(r, 9), 12);
    assert_int_equal(evict(r, 9), 11);
    assert_int_equal(evict(r, 9), 20);
    assert_int_equal(evict(r, 9), 1);
    assert_int_equal(evict(r, 9), 0);
    radix_close(r);
}


static void
test_pinned(void **state)
{
    radix_t *r = open_tree(32, 1, 0);
    uint32_t path[8], a, b;

    (void) state;
    a = add(r, 1, 0, RADIX_NONE, text, 3, 0, 1);
    radix_release(r, a, 1);
    assert_int_equal(radix_match(r, 1, 0, text, 2, path), 2); /* kept */
    b = add(r, 1, 0, RADIX_NONE, text + 4, 2, 10, 3);
    radix_release(r, b, 3);
    assert_int_equal(evict(r, 9), 2);
    assert_int_equal(evict(r, 9), 11);
    assert_int_equal(evict(r, 9), 10);
    assert_int_equal(evict(r, 9), RADIX_NONE);
    assert_int_equal(radix_peek(r, 1, text, 3), 2);
    radix_release(r, path[1], 10);
    assert_int_equal(evict(r, 11), 1);
    radix_close(r);
}


/*
 * What all share comes first; beyond it, and beside it, nobody meets another's,
 * however equal the tokens and the numbers of the namespaces.
 */
static void
test_shared(void **state)
{
    radix_t *r = open_tree(64, 1, 0);
    uint32_t path[8], tip, a, b, i;

    (void) state;
    tip = add(r, RADIX_SHARED, 7, RADIX_NONE, text, 2, 0, 1); /* kept */
    assert_int_equal(radix_peek(r, 1, text, 3), 2);
    assert_int_equal(radix_peek(r, 2, fork_, 3), 1);
    assert_int_equal(radix_peek(r, 2, text + 4, 1), 0);

    /* two go on alike, below the same node */
    assert_int_equal(radix_match(r, 1, 1, text, 3, path), 2);
    assert_int_equal(path[1], tip);
    a = add(r, 1, 1, tip, text + 8, 1, 10, 2);
    assert_int_equal(radix_peek(r, 1, text, 3), 3);
    assert_int_equal(radix_peek(r, 2, text, 3), 2);
    assert_int_equal(radix_peek(r, RADIX_SHARED, text, 3), 2);
    assert_int_equal(radix_match(r, 2, 2, text, 3, path), 2);
    b = add(r, 2, 2, tip, text + 8, 1, 20, 3);
    assert_int_equal(b, 20);
    assert_int_equal(radix_peek(r, 2, text, 3), 3);

    /* who computes what is shared itself enters nothing of its own */
    assert_int_equal(add(r, 3, 3, RADIX_NONE, text, 3, 30, 4), 32);
    assert_false(radix_live(r, 30));
    assert_int_equal(radix_refs(r, 0, 0), 4);

    /* beside it, in the middle of it */
    assert_int_equal(radix_match(r, 2, 2, fork_, 3, path), 1);
    assert_int_equal(add(r, 2, 2, path[0], fork_ + 4, 2, 40, 5), 41);
    assert_int_equal(radix_peek(r, 2, fork_, 3), 3);
    assert_int_equal(radix_peek(r, 1, fork_, 3), 1);

    radix_release(r, a, 6);
    radix_release(r, b, 6);
    radix_release(r, 32, 6);
    radix_release(r, 41, 6);
    for (i = 0; i < 5; i++) {
        assert_true(evict(r, 9) >= 10);
    }
    assert_int_equal(evict(r, 9), RADIX_NONE); /* it is kept */
    radix_release(r, tip, 10);
    assert_int_equal(evict(r, 11), 1);
    assert_int_equal(evict(r, 11), 0);
    assert_int_equal(radix_peek(r, 1, text, 3), 0);
    radix_close(r);
}


/* Many who go on alike below one node cost a look-up no more each. */
static void
test_shared_many(void **state)
{
    enum { MANY = 500 };
    radix_t *r = open_tree(MANY + 8, 1, 0);
    uint32_t path[8], tip, i, block = 2;
    radix_new_t w;
    uint8_t taken;

    (void) state;
    tip = add(r, RADIX_SHARED, 7, RADIX_NONE, text, 2, 0, 1);
    memset(&w, 0, sizeof(w));
    w.parent = tip;
    w.weight = w.n = 1;
    w.now = 2;
    w.tokens = text + 8;
    w.blocks[0] = &block;
    for (i = 0; i < MANY; i++, block++) {
        w.space = i;
        w.owner = i % 5;
        assert_int_equal(radix_match(r, i, w.owner, text, 3, path), 2);
        assert_int_equal(radix_insert(r, &w, path, &taken), block);
    }
    radix_check_deep(r);
    for (i = 0; i < MANY; i++) {
        assert_int_equal(radix_match(r, i, i % 5, text, 3, path), 3);
        assert_int_equal(path[2], 2 + i);
        radix_release(r, path[2], 4);
        radix_release(r, path[2], 4);
        radix_check_deep(r);
    }
    assert_int_equal(radix_refs(r, tip, 0), 1);
    radix_close(r);
}


/* What was written behind a stop is taken back, unless it is shared. */
static void
test_retreat(void **state)
{
    radix_t *r = open_tree(32, 1, 0);
    uint32_t blocks[RADIX_GROUPS_MAX], path[8], tip;

    (void) state;
    tip = add(r, 1, 0, RADIX_NONE, text, 3, 0, 1);
    assert_int_equal(radix_match(r, 1, 0, text, 2, path), 2);
    assert_int_equal(radix_retreat(r, tip, 2, blocks), 1);
    assert_int_equal(blocks[0], 2);
    assert_int_equal(radix_retreat(r, 1, 2, blocks), 0); /* another's too */
    radix_check_deep(r);
    assert_int_equal(radix_refs(r, 1, 0), 1);
    radix_release(r, 0, 3);
    radix_release(r, 1, 3);
    assert_int_equal(evict(r, 4), 1);
    assert_int_equal(evict(r, 4), 0);
    radix_close(r);
}


/* keep delays, it does not save. */
static void
test_keep(void **state)
{
    radix_t *r = open_tree(64, 1, 0); /* 100 a step */

    (void) state;
    flood(r, 1, 1, 1, 0, 2, 10);
    flood(r, 1, 1, 0, 10, 2, 109);
    flood(r, 1, 1, 0, 20, 2, 111);
    assert_int_equal(evict(r, 200), 10);
    assert_int_equal(evict(r, 200), 11);
    assert_int_equal(evict(r, 200), 0);
    assert_int_equal(evict(r, 200), 1);
    assert_int_equal(evict(r, 200), 20);
    radix_close(r);
}


/* More owners than it can tell apart. */
static void
test_many_owners(void **state)
{
    radix_t *r = open_tree(64, 1, 0); /* 8 */
    radix_stats_t st;
    uint32_t i;

    (void) state;
    for (i = 0; i < 30; i++) {
        flood(r, 1000 + i * 7, 1 + i, 0, 2 * i, 2, i);
    }
    radix_stats(r, &st);
    assert_int_equal(st.owners, 9);
    assert_int_equal(radix_owned(r, 1000, 0), 2);
    assert_int_equal(radix_owned(r, 1000 + 29 * 7, 0), 0);
    for (i = 0; i < 60; i++) {
        assert_true(evict(r, 100) != RADIX_NONE);
    }
    radix_stats(r, &st);
    assert_int_equal(st.owners, 0);
    flood(r, 5, 1, 0, 0, 4, 200); /* the places are free again */
    assert_int_equal(radix_owned(r, 5, 0), 4);
    radix_close(r);
}


/* A window of two: where a match may end. */
static void
test_window(void **state)
{
    static const uint32_t words[] = {
        1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 6, 6, 6, 6};
    radix_t *r = open_tree(32, 2, 2);
    uint32_t blocks[RADIX_GROUPS_MAX], path[8], i, tip;
    static const uint32_t own[] = {20, 21};
    uint8_t taken[2];
    radix_stats_t st;
    radix_new_t w;

    (void) state;
    tip = add(r, 1, 0, RADIX_NONE, words, 6, 10, 1);
    for (i = 0; i < 4; i++) {
        radix_leave(r, 10 + i, 1, 2 + i);
    }
    radix_check_deep(r);
    radix_stats(r, &st);
    assert_int_equal(st.idle[0], 0);
    assert_int_equal(st.idle[1], 4);
    assert_int_equal(radix_peek(r, 1, words, 6), 6);
    assert_int_equal(radix_peek(r, 1, words, 1), 1);

    /* the window's first block goes, the node stays */
    assert_int_equal(radix_evict(r, 1, RADIX_NONE, 1, blocks), 1);
    assert_int_equal(blocks[0], RADIX_NONE);
    assert_int_equal(blocks[1], 10);
    assert_int_equal(radix_block(r, 10, 1), RADIX_NONE);
    assert_int_equal(radix_peek(r, 1, words, 1), 0);
    assert_int_equal(radix_peek(r, 1, words, 2), 0);
    assert_int_equal(radix_peek(r, 1, words, 3), 3);
    for (i = 11; i < 14; i++) {
        assert_int_equal(radix_evict(r, 1, RADIX_NONE, 1, blocks), 1);
        assert_int_equal(blocks[1], i);
    }
    assert_int_equal(
        radix_evict(r, 1, RADIX_NONE, 1, blocks), 0); /* those are in use */
    assert_int_equal(radix_peek(r, 1, words, 6), 6);
    assert_int_equal(radix_peek(r, 1, words, 5), 0);
    radix_check_deep(r);

    /* who computes it again heals it, with its own blocks of the window */
    memset(&w, 0, sizeof(w));
    w.space = 1;
    w.weight = 1;
    w.now = 10;
    w.parent = RADIX_NONE;
    w.n = 2;
    w.tokens = words;
    w.blocks[0] = w.blocks[1] = own;
    assert_int_equal(radix_insert(r, &w, path, taken), 11);
    assert_true(path[0] == 10 && taken[0] == 2 && taken[1] == 2);
    radix_check_deep(r);
    assert_int_equal(radix_block(r, 11, 1), 21);
    assert_int_equal(radix_peek(r, 1, words, 3), 2);
    assert_int_equal(radix_match(r, 1, 0, words, 2, path), 2);
    radix_leave(r, 10, 1, 12);
    radix_leave(r, 11, 1, 12);
    radix_release(r, 11, 12);
    radix_leave(r, 10, 1, 12);
    radix_leave(r, 11, 1, 12);
    radix_release(r, 11, 12);

    /* a leaf takes what it has of the window with it */
    radix_leave(r, 14, 1, 13);
    radix_leave(r, 15, 1, 13);
    radix_release(r, tip, 13);
    assert_int_equal(radix_evict(r, 0, RADIX_NONE, 1, blocks), 1);
    assert_int_equal(blocks[0], 15);
    assert_int_equal(blocks[1], 15);
    radix_check_deep(r);
    radix_close(r);
}


/* Among so many, some have the same hash: none is taken for another. */
static void
test_equal_hashes(void **state)
{
    enum { MANY = 300000 };
    radix_t *r = open_tree(MANY, 1, 0);
    uint32_t words[BT] = {0}, i, path;
    radix_new_t w;
    uint8_t taken;

    (void) state;
    memset(&w, 0, sizeof(w));
    w.parent = RADIX_NONE;
    w.weight = 1;
    w.n = 1;
    w.tokens = words;
    w.blocks[0] = &i;
    for (i = 0; i < MANY; i++) {
        words[i % BT] = i;
        assert_int_equal(radix_insert(r, &w, &path, &taken), i);
        assert_int_equal(taken, 1);
    }
    radix_close(r);
}


/* --- against a model ---------------------------------------------------- */

enum {
    NODES = 60,
    SEQS = 10,
    DEPTH = 12,
    GROUPS = 3,
    OWNERS = 4,
    STALE = 300,
    BONUS = 20
};

/* The same tree, as plainly as can be. */
typedef struct {
    int live;
    uint32_t parent, owner, keep;
    uint64_t space, used;
    uint32_t tokens[BT];
    uint32_t block[GROUPS], users[GROUPS];
    uint64_t key[GROUPS]; /* set when users became 0 */
} mnode_t;

typedef struct {
    int live;
    uint32_t owner, keep;
    uint64_t space;
    uint32_t n, own; /* blocks; of them, computed */
    uint32_t tokens[DEPTH * BT];
    uint32_t path[DEPTH];
    uint32_t block[GROUPS][DEPTH]; /* RADIX_NONE: left behind */
    uint8_t cached[GROUPS][DEPTH];
} mseq_t;

typedef struct {
    radix_t *r;
    radix_cfg_t c;
    mnode_t nodes[NODES];
    mseq_t seqs[SEQS];
    uint64_t owner_used[OWNERS];
    uint8_t held[GROUPS][NODES]; /* by the tree 1, a sequence 2 */
    uint64_t now;
    uint32_t hits, evictions, healed, same, retreats, walled;
} model_t;


static uint32_t
model_child(
    const model_t *m, uint32_t parent, uint64_t space, const uint32_t *tokens)
{
    uint32_t i;

    for (i = 0; i < NODES; i++) {
        if (m->nodes[i].live && m->nodes[i].parent == parent
            && m->nodes[i].space == space
            && memcmp(m->nodes[i].tokens, tokens, sizeof(m->nodes[i].tokens))
                   == 0) {
            return i;
        }
    }

    return RADIX_NONE;
}


static uint32_t
model_match(const model_t *m, const mseq_t *q, uint32_t most, uint32_t *path)
{
    uint32_t n, g, k, node = RADIX_NONE, usable = 0, window;
    int ok;

    for (n = 0; n < most; n++) {
        node = model_child(m, node, q->space, q->tokens + n * BT);
        if (node == RADIX_NONE) {
            break;
        }
        path[n] = node;
        ok = 1;
        for (g = 1; g < m->c.groups; g++) {
            window = m->c.window[g];
            for (k = n + 1 > window ? n + 1 - window : 0; k <= n; k++) {
                ok &= m->nodes[path[k]].block[g] != RADIX_NONE;
            }
        }
        usable = ok ? n + 1 : usable;
    }

    return usable;
}


static int
model_loose(const model_t *m, uint32_t i, uint32_t g)
{
    uint32_t k;

    if (!m->nodes[i].live || m->nodes[i].block[g] == RADIX_NONE
        || m->nodes[i].users[g] > 0) {
        return 0;
    }
    for (k = 0; k < NODES && g == 0; k++) {
        if (m->nodes[k].live && m->nodes[k].parent == i) {
            return 0;
        }
    }

    return 1;
}


static uint64_t
model_owned(const model_t *m, uint32_t owner, uint32_t g)
{
    uint64_t sum = 0;
    uint32_t i;

    for (i = 0; i < NODES; i++) {
        sum += m->nodes[i].live && m->nodes[i].owner == owner
               && m->nodes[i].block[g] != RADIX_NONE;
    }

    return sum;
}


static uint64_t
model_total(const model_t *m, uint32_t owner)
{
    uint64_t sum = 0;
    uint32_t g;

    for (g = 0; g < m->c.groups; g++) {
        sum += model_owned(m, owner, g);
    }

    return sum;
}


static uint32_t
model_weight(uint32_t owner)
{
    return owner == RADIX_NONE ? 1 : 1 + owner % 3;
}


static int
model_stale(const model_t *m, uint32_t owner)
{
    return m->now - m->owner_used[owner] > STALE;
}


/* What is kept for an owner while another, or RADIX_NONE, wants blocks. */
static uint64_t
model_floor(const model_t *m, uint32_t owner, uint32_t who)
{
    uint64_t weights = 0;
    uint32_t i;
    int counted = 0;

    for (i = 0; i < OWNERS; i++) {
        if ((model_owned(m, i, 0) > 0 && !model_stale(m, i)) || i == who) {
            weights += model_weight(i);
            counted |= i == who;
        }
    }
    weights += counted ? 0 : model_weight(who);

    return model_stale(m, owner)
               ? 0
               : NODES * m->c.floor * model_weight(owner) / weights / 100;
}


/* Does owner a go before b, or not after it? */
static int
model_first(const model_t *m, uint32_t a, uint32_t b)
{
    int x = model_stale(m, a), y = model_stale(m, b);

    return x != y ? x
                  : model_total(m, a) * model_weight(b)
                        >= model_total(m, b) * model_weight(a);
}


/* Idle blocks that may be taken for who. */
static uint64_t
model_spare(const model_t *m, uint32_t who)
{
    uint64_t sum = 0, idle, kept, total, loose;
    uint32_t o, i, g;

    for (o = 0; o < OWNERS; o++) {
        idle = loose = 0;
        for (i = 0; i < NODES; i++) {
            for (g = 0; g < m->c.groups && m->nodes[i].owner == o; g++) {
                idle += m->nodes[i].live && m->nodes[i].block[g] != RADIX_NONE
                        && m->nodes[i].users[g] == 0;
                loose += (uint64_t) model_loose(m, i, g);
            }
        }
        if (loose == 0 && o != who) {
            continue; /* another's hang from all of its */
        }
        kept = model_floor(m, o, who);
        total = model_total(m, o);
        if (o != who) {
            kept = total > kept ? total - kept : 0;
            idle = idle < kept ? idle : kept;
        }
        sum += idle;
    }

    return sum;
}


/* From whom is it right to take a block for who, all those being loose? */
static int
model_fair(const model_t *m, uint32_t victim, uint32_t who, uint32_t g)
{
    uint32_t i, k, rich = 0, own = 0;
    int above;

    for (i = 0; i < NODES * m->c.groups; i++) {
        k = i / NODES;
        if ((g != RADIX_NONE && g != k) || !model_loose(m, i % NODES, k)) {
            continue;
        }
        own += m->nodes[i % NODES].owner == who;
        rich += model_total(m, m->nodes[i % NODES].owner)
                > model_floor(m, m->nodes[i % NODES].owner, who);
    }
    above = model_total(m, victim) > model_floor(m, victim, who);

    return rich > 0 ? above : own > 0 ? victim == who : 1;
}


static uint64_t
model_key(const model_t *m, uint32_t i, uint32_t g)
{
    return (g == 0 ? m->nodes[i].used : m->nodes[i].key[g])
           + m->nodes[i].keep * BONUS;
}


/* Is part g of that node the one to go among its owner's, and is there nobody
 * richer who could lose one of that group? */
static void
model_right(const model_t *m, uint32_t victim, uint32_t g, uint32_t who)
{
    const mnode_t *v = &m->nodes[victim];
    uint32_t i;

    assert_true(model_loose(m, victim, g));
    for (i = 0; i < NODES; i++) {
        if (!model_loose(m, i, g)) {
            continue;
        }
        if (v->owner != who) {
            assert_true(model_first(m, v->owner, m->nodes[i].owner));
        }
        if (m->nodes[i].owner == v->owner) {
            assert_true(model_key(m, victim, g) < model_key(m, i, g)
                        || (model_key(m, victim, g) == model_key(m, i, g)
                            && victim <= i));
        }
    }
}


/* Evicts one of group g, of any if that is RADIX_NONE, for who, and looks
 * whether it was the right one. */
static int
model_evict(model_t *m, uint32_t g, uint32_t who)
{
    uint32_t blocks[RADIX_GROUPS_MAX], i, k, loose = 0, victim, any = g;
    uint64_t spare = model_spare(m, who);
    mnode_t *v;

    for (i = 0; i < NODES * m->c.groups; i++) {
        loose += (g == RADIX_NONE || g == i / NODES)
                 && model_loose(m, i % NODES, i / NODES);
    }
    assert_int_equal(radix_spare(m->r, who, model_weight(who), 1000), spare);
    assert_int_equal(
        radix_spare(m->r, who, model_weight(who), 3), spare < 3 ? spare : 3);
    if (!radix_evict(m->r, g, who, model_weight(who), blocks)) {
        assert_int_equal(loose, 0);
        return 0;
    }
    m->evictions++;
    for (k = 0; g == RADIX_NONE; k++) {
        g = blocks[k] != RADIX_NONE ? k : g;
    }

    for (victim = 0;
         m->nodes[victim].block[g] != blocks[g] || !m->nodes[victim].live;
         victim++) {
        assert_true(victim + 1 < NODES);
    }
    v = &m->nodes[victim];
    model_right(m, victim, g, who);
    assert_true(model_fair(m, v->owner, who, any));
    m->walled +=
        v->owner == who && model_total(m, who) <= model_floor(m, who, who);

    for (k = 0; k < m->c.groups; k++) {
        if (g == 0 || k == g) {
            assert_int_equal(blocks[k], v->block[k]);
            if (blocks[k] != RADIX_NONE) {
                assert_int_equal(m->held[k][blocks[k]], 1);
                m->held[k][blocks[k]] = 0;
            }
            v->block[k] = RADIX_NONE;
        } else {
            assert_int_equal(blocks[k], RADIX_NONE);
        }
    }
    v->live = g != 0;

    return 1;
}


/* A free block of group g; RADIX_NONE: there is none. */
static uint32_t
model_take(model_t *m, uint32_t g, uint32_t who)
{
    uint32_t i, first = (uint32_t) rand() % NODES;

    for (i = 0; i < NODES; i++) {
        if (m->held[g][(first + i) % NODES] == 0) {
            m->held[g][(first + i) % NODES] = 2;
            return (first + i) % NODES;
        }
    }

    (void) (rand() % 2 && model_evict(m, RADIX_NONE, who));

    return model_evict(m, g, who) ? model_take(m, g, who) : RADIX_NONE;
}


/* The sequence no longer needs its block k of group g. */
static void
model_drop(model_t *m, mseq_t *q, uint32_t g, uint32_t k)
{
    uint32_t b = q->block[g][k];
    mnode_t *n = &m->nodes[q->path[k]];

    if (b == RADIX_NONE) {
        return;
    }
    q->block[g][k] = RADIX_NONE;
    if (!q->cached[g][k]) {
        assert_int_equal(m->held[g][b], 2);
        m->held[g][b] = 0;
        return;
    }

    assert_int_equal(m->held[g][b], 1);
    assert_int_equal(n->block[g], b);
    if (g > 0) {
        radix_leave(m->r, q->path[k], g, m->now);
        n->users[g]--;
        n->key[g] = m->now;
    }
}


static void
model_start(model_t *m, mseq_t *q)
{
    uint32_t path[DEPTH], i, g, n;

    memset(q, 0, sizeof(*q));
    q->live = 1;
    q->owner = (uint32_t) rand() % OWNERS;
    q->space = rand() % 3 ? 9 : q->owner;
    q->keep = (uint32_t) rand() % 3;
    q->n = 1 + (uint32_t) rand() % DEPTH;
    for (i = 0; i < q->n * BT; i++) {
        q->tokens[i] = rand() % 12 == 0;
    }

    n = model_match(m, q, q->n - 1, path);
    assert_int_equal(radix_peek(m->r, q->space, q->tokens, q->n - 1), n);
    q->own =
        radix_match(m->r, q->space, q->owner, q->tokens, q->n - 1, q->path);
    assert_int_equal(q->own, n);
    assert_memory_equal(path, q->path, n * sizeof(*path));
    m->hits += n;
    if (model_owned(m, q->owner, 0) > 0) {
        m->owner_used[q->owner] = m->now;
    }

    for (i = 0; i < n; i++) {
        m->nodes[path[i]].users[0]++;
        for (g = 0; g < m->c.groups; g++) {
            q->block[g][i] = m->nodes[path[i]].block[g];
            q->cached[g][i] = 1;
            if (g > 0 && n - i > m->c.window[g]) {
                q->block[g][i] = RADIX_NONE;
            } else if (g > 0) {
                m->nodes[path[i]].users[g]++;
            }
        }
    }
}


/* The next block has been computed. */
static void
model_step(model_t *m, mseq_t *q)
{
    uint32_t k = q->own, g, node, want, expect = 0, blocks[GROUPS];
    radix_new_t w;
    uint8_t taken;
    mnode_t *n;

    memset(&w, 0, sizeof(w));
    w.n = 1;
    w.parent = k == 0 ? RADIX_NONE : q->path[k - 1];
    w.owner = q->owner;
    w.weight = 1 + q->owner % 3;
    w.keep = q->keep;
    w.space = q->space;
    w.now = m->now;
    w.tokens = q->tokens + k * BT;
    for (g = 0; g < m->c.groups; g++) {
        blocks[g] = RADIX_NONE;
        w.blocks[g] = &blocks[g];
    }
    for (g = 0; g < m->c.groups; g++) {
        if (g == 0 || rand() % 8) {
            blocks[g] = model_take(m, g, q->owner);
        }
        if (blocks[g] == RADIX_NONE && g == 0) {
            return;
        }
    }

    want = model_child(m, w.parent, q->space, w.tokens);
    m->same += want != RADIX_NONE;
    if (want == RADIX_NONE) {
        want = blocks[0];
        n = &m->nodes[want];
        memset(n, 0, sizeof(*n));
        memset(n->block, 255, sizeof(n->block));
        n->live = 1;
        n->parent = w.parent;
        n->owner = q->owner;
        n->keep = q->keep;
        n->space = q->space;
        n->used = m->now;
        memcpy(n->tokens, w.tokens, sizeof(n->tokens));
    } else {
        m->nodes[want].users[0]++;
    }
    n = &m->nodes[want];
    for (g = 0; g < m->c.groups; g++) {
        q->block[g][k] = blocks[g];
        q->cached[g][k] = 0;
        if (blocks[g] != RADIX_NONE && n->block[g] == RADIX_NONE) {
            m->healed += g > 0 && want != blocks[0];
            n->block[g] = blocks[g];
            n->users[g] = 1;
            m->held[g][blocks[g]] = 1;
            q->cached[g][k] = 1;
            expect |= 1u << g;
        }
    }
    m->owner_used[n->owner] = m->now;

    node = radix_insert(m->r, &w, &q->path[k], &taken);
    assert_int_equal(node, want);
    assert_int_equal(q->path[k], want);
    assert_int_equal(taken, expect);
    q->own++;

    for (g = 1; g < m->c.groups; g++) {
        if (q->own > m->c.window[g]) {
            model_drop(m, q, g, q->own - m->c.window[g] - 1);
        }
    }
}


static void
model_end(model_t *m, mseq_t *q)
{
    uint32_t k, g;

    for (g = m->c.groups; g-- > 0;) {
        for (k = 0; k < q->own; k++) {
            model_drop(m, q, g, k);
        }
    }
    if (q->own > 0) {
        radix_release(m->r, q->path[q->own - 1], m->now);
    }
    for (k = 0; k < q->own; k++) {
        m->nodes[q->path[k]].users[0]--;
        m->nodes[q->path[k]].used = m->now;
    }
    q->live = 0;
}


/* The sequence takes its last block back. */
static void
model_retreat(model_t *m, mseq_t *q)
{
    uint32_t k = q->own - 1, g, blocks[RADIX_GROUPS_MAX], i;
    mnode_t *n = &m->nodes[q->path[k]];
    int gone;

    for (g = m->c.groups; g-- > 0;) {
        model_drop(m, q, g, k);
    }
    n->used = m->now;
    n->users[0]--;
    gone = model_loose(m, q->path[k], 0);
    m->retreats += (uint32_t) gone;
    i = (uint32_t) radix_retreat(m->r, q->path[k], m->now, blocks);
    assert_int_equal(i, gone);
    for (g = 0; gone && g < m->c.groups; g++) {
        assert_int_equal(blocks[g], n->block[g]);
        if (blocks[g] != RADIX_NONE) {
            m->held[g][blocks[g]] = 0;
        }
    }
    n->live = !gone;
    q->own--;
    q->n = q->own > 0 ? q->own : 1;
}


static void
model_compare(const model_t *m)
{
    radix_stats_t st;
    uint32_t i, g, live = 0;

    radix_check_deep(m->r);
    radix_stats(m->r, &st);
    for (i = 0; i < NODES; i++) {
        if (!m->nodes[i].live) {
            continue;
        }
        live++;
        assert_int_equal(radix_parent(m->r, i), m->nodes[i].parent);

        for (g = 0; g < m->c.groups; g++) {
            assert_int_equal(radix_block(m->r, i, g), m->nodes[i].block[g]);
            assert_int_equal(radix_refs(m->r, i, g), m->nodes[i].users[g]);
        }
    }
    assert_int_equal(st.blocks[0], live);
    for (i = 0; i < OWNERS; i++) {
        for (g = 0; g < m->c.groups; g++) {
            assert_int_equal(radix_owned(m->r, i, g), model_owned(m, i, g));
        }
    }
}


/* How often one evicted its own because others had no more than is kept. */
static uint32_t
storm(unsigned seed, uint32_t groups)
{
    model_t *m = calloc(1, sizeof(*m));
    mseq_t *q;
    uint32_t t, i, walled;

    assert_non_null(m);
    srand(seed);
    m->c.nodes = NODES;
    m->c.block_tokens = BT;
    m->c.groups = groups;
    m->c.window[1] = 2;
    m->c.window[2] = seed % 2 ? 4 : UINT32_MAX;
    m->c.owners = 4;
    m->c.seed = seed;
    m->c.keep_bonus = BONUS;
    m->c.stale = STALE;
    m->c.floor = seed % 3 * 50;
    m->r = radix_open(&m->c);
    assert_non_null(m->r);

    for (t = 0; t < 6000; t++) {
        m->now += (uint64_t) rand() % 3;
        radix_time(m->r, m->now);
        q = &m->seqs[rand() % SEQS];
        if (!q->live) {
            model_start(m, q);
        } else if (q->own < q->n && rand() % 40) {
            model_step(m, q);
        } else if (q->own > 0 && rand() % 6 == 0) {
            model_retreat(m, q);
        } else {
            model_end(m, q);
        }
        if (t % 16 == 0) {
            model_compare(m);
        }
    }

    for (i = 0; i < SEQS; i++) {
        if (m->seqs[i].live) {
            model_end(m, &m->seqs[i]);
        }
    }
    model_compare(m);
    while (model_evict(m, 0, RADIX_NONE)) {
        model_compare(m);
    }
    for (i = 0; i < NODES * GROUPS; i++) {
        assert_int_equal(m->held[i / NODES][i % NODES], 0);
    }

    /* it was one */
    assert_true(m->hits > 500 && m->evictions > 500 && m->same > 100);
    assert_true(m->retreats > 20 && (groups == 1 || m->healed > 10));
    walled = m->walled;
    radix_close(m->r);
    free(m);

    return walled;
}


static void
test_storm(void **state)
{
    uint32_t walled = 0;
    unsigned seed;

    (void) state;
    for (seed = 1; seed <= 9; seed++) {
        walled += storm(seed, 1 + seed / 3 % GROUPS);
    }
    print_message("%u times its own\n", walled);
    assert_true(walled > 50);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_match),
        cmocka_unit_test(test_look),
        cmocka_unit_test(test_own),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_pinned),
        cmocka_unit_test(test_shared),
        cmocka_unit_test(test_shared_many),
        cmocka_unit_test(test_retreat),
        cmocka_unit_test(test_keep),
        cmocka_unit_test(test_many_owners),
        cmocka_unit_test(test_window),
        cmocka_unit_test(test_equal_hashes),
        cmocka_unit_test(test_storm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
