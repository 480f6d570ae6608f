/*
 * The prefix cache against plain LRU and against who knows the future.
 *
 * DESIGN.  Only eviction: requests come one after the other, each is matched,
 * computed, inserted and given up, through kv.h as the scheduler does it; no
 * time, no batch.  LRU and the optimum are the simulator's own (tree.c), over
 * the same blocks, and take as many for a request as the pool does.
 *
 * MOONCAKE.  A block of the trace, 512 tokens that its hash stands for, is a
 * block of the cache, of one token that is the hash.  Cut into eight it gives
 * the same figures, for requests share whole ones.  The trace does not say what
 * was generated.  The pool is a share of all different blocks in the trace.
 *
 * SHAPES (shapes.h) come depth first, which is what taking the longest match
 * first makes of all that waits; and mixed, as it comes when nobody sorts; what
 * the scheduler makes of that order.c shows.  Beside the optimum of that order
 * and pool stands what a cache without end would find, token by token: the
 * paper's optimum.
 */
#include "tables.h"

#include "../unit/kv_plain.h"
#include "shapes.h"
#include "trace.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define BLOCK_TOKENS 16
#define SEEDS        3


/* --- ours --------------------------------------------------------------- */

/* Blocks that the shipped cache finds. */
static uint64_t
ours(const asks_t *a, uint32_t block_tokens, uint32_t blocks)
{
    const kv_who_t who = {.weight = 1};
    uint64_t hits = 0, found;
    const uint32_t *tokens;
    size_t i;
    kv_t *kv;

    kv = kv_open_plain(blocks, block_tokens, 1, a->longest + 1);
    assert(kv != NULL);
    if (kv_cache(kv, 1, 1) != 0) {
        assert(0);
    }

    for (i = 0; i < a->n; i++) {
        tokens = a->tokens + a->v[i].from;
        found = kv_match(kv, 0, &who, tokens, a->v[i].most);
        hits += found / block_tokens;
        if (kv_grow(kv, 0, a->v[i].n) != 0) {
            assert(0);
        }
        kv_insert(kv, 0, &who, tokens, a->v[i].n);
        (void) kv_release(kv, 0);
        kv_check(kv);
    }
    kv_close(kv);

    return hits;
}


/* --- Mooncake ----------------------------------------------------------- */

/* Each of the trace's blocks becomes a token. */
static void
from_load(asks_t *a, const load_t *l)
{
    const load_req_t *q;
    uint32_t k;
    size_t i;

    for (i = 0; i < l->n; i++) {
        q = &l->v[i];
        ask_begin(a);
        for (k = 0; k < q->hashes_n; k++) {
            ask_token(a, l->hashes[q->hash + k]);
        }
        ask_prompt(a, q->hashes_n);
    }
}


/* One row for each size of the pool; what was not as it should be. */
static int
mooncake_rows(const asks_t *a, uint64_t seed)
{
    static const uint32_t percents[] = {5, 10, 25, 50, 100};
    uint64_t lru, best, mine;
    uint32_t blocks;
    double asked;
    size_t i;
    tree_t t;
    int bad = 0;

    tree_open(&t, a, 1);
    asked = (double) tree_asked(&t) / 100;
    for (i = 0; i < sizeof(percents) / sizeof(percents[0]); i++) {
        blocks = (uint32_t) ((uint64_t) t.nodes * percents[i] / 100);
        blocks = blocks < a->longest ? a->longest : blocks;
        mine = ours(a, 1, blocks);
        lru = tree_hits(&t, TREE_LRU, blocks);
        best = tree_hits(&t, TREE_BEST, blocks);
        printf("  %4llu %5u %% %9u %7.2f %7.2f %7.2f %8.1f %%\n",
            (unsigned long long) seed, percents[i], blocks,
            (double) mine / asked, (double) lru / asked, (double) best / asked,
            100 * (double) mine / (double) best);
        bad += table_expect(mine >= lru, "ours finds no less than LRU");
        bad += table_expect(best >= lru && best >= mine,
            "nobody finds more than who knows the future");
    }
    tree_close(&t);

    return bad;
}


static int
mooncake(void)
{
    load_t l = {0};
    asks_t a = {0};
    uint64_t seed = 1;
    int real, bad = 0;

    printf("  seed    pool    blocks    ours     LRU optimum      of it\n");
    do {
        real = trace_load(TRACE_MOONCAKE, &l, seed);
        from_load(&a, &l);
        bad += mooncake_rows(&a, real ? 0 : seed);
        asks_free(&a);
        load_free(&l);
    } while (!real && ++seed <= SEEDS);
    printf("  %s%s\n", trace_name(TRACE_MOONCAKE),
        real ? "; read, the same with every seed" : " (generated)");

    return bad;
}


/* --- shapes ------------------------------------------------------------- */

/* A shape's row; `floor` is wanted of the paper's optimum, in percent. */
static int
shape_row(const char *name, const asks_t *a, uint64_t seed, double floor)
{
    uint32_t pool = SHAPE_POOL / BLOCK_TOKENS;
    double mine, lru, best, all, prompts = 0;
    tree_t t, fine;
    size_t i;
    int bad = 0;

    for (i = 0; i < a->n; i++) {
        prompts += (double) a->v[i].prompt / 100;
    }

    tree_open(&t, a, BLOCK_TOKENS);
    mine = (double) ours(a, BLOCK_TOKENS, pool) * BLOCK_TOKENS;
    lru = (double) tree_hits(&t, TREE_LRU, pool) * BLOCK_TOKENS;
    best = (double) tree_hits(&t, TREE_BEST, pool) * BLOCK_TOKENS;
    tree_close(&t);

    tree_open(&fine, a, 1);
    all = (double) tree_hits(&fine, TREE_LRU, fine.nodes + a->longest);
    tree_close(&fine);

    printf("  %-28s %4llu %6zu %7.2f %7.2f %7.2f %8.1f %% %8.2f %6.1f %%\n",
        name, (unsigned long long) seed, a->n, mine / prompts, lru / prompts,
        best / prompts, 100 * mine / best, all / prompts, 100 * mine / all);
    bad += table_expect(mine >= lru, "ours finds no less than LRU");
    bad += table_expect(
        100 * mine >= floor * all, "ours finds 96 % of the paper's optimum");

    return bad;
}


static int
shapes(void)
{
    char name[64];
    asks_t a = {0};
    uint64_t seed;
    int mixed, bad = 0;
    rnd_t r;
    size_t i;

    printf("  %-28s %4s %6s %7s %7s %7s %10s %8s %8s\n", "shape", "seed",
        "asks", "ours", "LRU", "optimum", "of it", "no end", "of it");
    for (mixed = 0; mixed < 2; mixed++) {
        for (i = 0; i < SHAPES_FEW; i++) {
            snprintf(name, sizeof(name), "%s%s", shapes_few[i].name,
                mixed ? ", mixed" : "");
            for (seed = 1; seed <= SEEDS; seed++) {
                rnd_seed(&r, seed);
                shape_few(&a, &shapes_few[i], mixed, &r);
                bad += shape_row(name, &a, seed, mixed ? 0 : 96);
                asks_free(&a);
            }
        }
        snprintf(name, sizeof(name), "tree of thought%s",
            mixed ? ", 4 at once" : "");
        for (seed = 1; seed <= SEEDS; seed++) {
            rnd_seed(&r, seed);
            shape_tree(&a, mixed ? 4 : 1, &r);
            bad += shape_row(name, &a, seed, mixed ? 0 : 96);
            asks_free(&a);
        }
    }

    return bad;
}


int
cache_table(void)
{
    int bad;

    printf("\nb. Prefix cache: percent of blocks found, one request at a "
           "time\n");
    bad = mooncake();
    printf("  percent of prompt tokens; a pool of %u tokens, blocks of %u\n",
        SHAPE_POOL, BLOCK_TOKENS);
    bad += shapes();

    return bad;
}


/* --- the short form ----------------------------------------------------- */

/* A load of short texts over two letters: a small tree. */
static void
letters(asks_t *a, uint32_t n, uint32_t longest, rnd_t *r)
{
    uint32_t i, k, len;

    for (i = 0; i < n; i++) {
        ask_begin(a);
        len = 1 + rnd_below(r, longest);
        for (k = 0; k < len; k++) {
            ask_token(a, rnd_below(r, 2));
        }
        ask_prompt(a, len);
    }
}


int
cache_check(void)
{
    uint64_t hits, lru, best, sum[3] = {0};
    asks_t a = {0};
    uint32_t pool;
    tree_t t;
    rnd_t r;
    int i, bad = 0;

    rnd_seed(&r, 1);
    for (i = 0; i < 200; i++) {
        letters(&a, 12, 3, &r);
        tree_open(&t, &a, 1);
        pool = 3 + rnd_below(&r, 4);
        best = tree_hits(&t, TREE_BEST, pool);
        bad += table_expect(best == tree_hits_tried(&t, pool),
            "the optimum is the best of all choices");
        tree_close(&t);
        asks_free(&a);

        letters(&a, 300, 10, &r);
        tree_open(&t, &a, 1);
        pool = 10 + rnd_below(&r, 191);
        hits = ours(&a, 1, pool);
        lru = tree_hits(&t, TREE_LRU, pool);
        best = tree_hits(&t, TREE_BEST, pool);
        bad += table_expect(hits >= lru, "ours finds no less than LRU");
        bad += table_expect(hits <= best, "nobody knows more than the future");
        sum[0] += hits;
        sum[1] += lru;
        sum[2] += best;
        tree_close(&t);
        asks_free(&a);
    }
    printf("prefix cache: ours found %llu, LRU %llu, the optimum %llu\n",
        (unsigned long long) sum[0], (unsigned long long) sum[1],
        (unsigned long long) sum[2]);
    bad += table_expect(sum[2] > sum[1] && sum[0] > 0, "it mattered who goes");

    return bad;
}
