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
 * SHAPES.  As the SGLang paper describes its programs.  Few-shot: examples,
 * then a question; tree of thought: each thought goes on from one before, with
 * the whole path as its prompt.  They come depth first, which is what taking
 * the longest match first makes of all that waits; and mixed, as it comes when
 * nobody sorts.  Beside the optimum of that order and pool stands what a cache
 * without end would find, token by token: the paper's optimum.
 */
#include "tables.h"

#include "../unit/kv_plain.h"
#include "trace.h"
#include "tree.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define BLOCK_TOKENS 16
#define POOL_TOKENS  16384 /* beside a 7B model in 24 GB */
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

/* Tokens [from, from + n) of a text that no other has. */
static void
text(asks_t *a, uint32_t name, uint32_t n)
{
    uint32_t i;

    for (i = 0; i < n; i++) {
        ask_token(a, name * 2654435761u + i);
    }
}


static uint32_t
between(rnd_t *r, uint32_t low, uint32_t high)
{
    return low + rnd_below(r, high - low + 1);
}


/* Puts things in an order that nobody has chosen. */
static void
shuffle(uint32_t *v, uint32_t n, rnd_t *r)
{
    uint32_t i, k, x;

    for (i = n; i > 1; i--) {
        k = rnd_below(r, i);
        x = v[i - 1];
        v[i - 1] = v[k];
        v[k] = x;
    }
}


typedef struct {
    const char *name;
    uint32_t subjects, shots[2]; /* tokens of a subject's examples */
    uint32_t questions, question[2];
    uint32_t endings, ending[2]; /* a request for each */
} few_t;

static const few_t few[] = {
    {"few-shot, 57 subjects", 57, {300, 1000}, 100, {50, 180}, 1, {1, 1}},
    {"20-shot, 4 endings", 1, {2000, 2000}, 1000, {30, 70}, 4, {15, 35}},
};


static void
few_asks(asks_t *a, const few_t *f, int mixed, rnd_t *r)
{
    uint32_t n = f->subjects * f->questions, i, e, name = f->subjects, subject;
    uint32_t *order = malloc(n * sizeof(*order));
    uint32_t *shots = malloc(f->subjects * sizeof(*shots)), question;

    assert(order != NULL && shots != NULL);
    for (i = 0; i < f->subjects; i++) {
        shots[i] = between(r, f->shots[0], f->shots[1]);
    }
    for (i = 0; i < n; i++) {
        order[i] = i / f->questions;
    }
    if (mixed) {
        shuffle(order, n, r);
    }

    for (i = 0; i < n; i++, name++) {
        subject = order[i];
        question = between(r, f->question[0], f->question[1]);
        for (e = 0; e < f->endings; e++) {
            ask_begin(a);
            text(a, subject, shots[subject]);
            text(a, name, question);
            if (f->endings > 1) {
                text(a, n + f->subjects + i * f->endings + e,
                    between(r, f->ending[0], f->ending[1]));
            }
            ask_prompt(a, a->v[a->n - 1].n - 1);
            ask_token(a, e); /* the answer */
        }
    }
    free(order);
    free(shots);
}


/* A tree of thought: node k's children are k * BRANCHES + 1 and on. */
enum {
    PROGRAMS = 100,
    BRANCHES = 2,
    LEVELS = 4,
    THOUGHTS = 30, /* 2 + 4 + 8 + 16 */
    QUESTION = 120,
    ADVICE = 40 /* tokens that ask for the next thought */
};

typedef struct {
    uint32_t name;                  /* of the program */
    uint32_t length[THOUGHTS + 1];  /* tokens of each thought; 0: the root */
    uint32_t order[THOUGHTS], done; /* of its thoughts */
} thinker_t;


/* The thoughts below k, children behind their parent. */
static void
depth_first(thinker_t *p, uint32_t k, uint32_t *n)
{
    uint32_t i, child;

    for (i = 1; i <= BRANCHES; i++) {
        child = k * BRANCHES + i;
        if (child <= THOUGHTS) {
            p->order[(*n)++] = child;
            depth_first(p, child, n);
        }
    }
}


/* What leads to thought k, and what asks for the next. */
static void
think(asks_t *a, const thinker_t *p, uint32_t k)
{
    uint32_t up = (k - 1) / BRANCHES;

    if (up == 0) {
        text(a, p->name * (THOUGHTS + 1), QUESTION);
    } else {
        think(a, p, up);
        text(a, p->name * (THOUGHTS + 1) + up, p->length[up]);
    }
    text(a, UINT32_MAX, ADVICE);
}


/* Depth first one after the other, or that many at once, level by level. */
static void
tree_asks(asks_t *a, uint32_t at_once, rnd_t *r)
{
    thinker_t *p = calloc(at_once, sizeof(*p)), *q;
    uint32_t begun = 0, n = 0, i, k;

    assert(p != NULL);
    while (begun < PROGRAMS || n > 0) {
        for (; n < at_once && begun < PROGRAMS; n++) {
            p[n].name = begun++;
            p[n].done = 0;
            for (i = 0; i < THOUGHTS; i++) {
                p[n].length[i + 1] = between(r, 100, 300);
                p[n].order[i] = i + 1;
            }
            k = 0;
            if (at_once == 1) {
                depth_first(&p[n], 0, &k);
            }
        }

        i = rnd_below(r, n);
        q = &p[i];
        k = q->order[q->done++];
        ask_begin(a);
        think(a, q, k);
        ask_prompt(a, a->v[a->n - 1].n - 1);
        text(a, q->name * (THOUGHTS + 1) + k, q->length[k]);
        if (q->done == THOUGHTS) {
            p[i] = p[--n];
        }
    }
    free(p);
}


/* A shape's row; `floor` is wanted of the paper's optimum, in percent. */
static int
shape_row(const char *name, const asks_t *a, uint64_t seed, double floor)
{
    uint32_t pool = POOL_TOKENS / BLOCK_TOKENS;
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
        for (i = 0; i < sizeof(few) / sizeof(few[0]); i++) {
            snprintf(name, sizeof(name), "%s%s", few[i].name,
                mixed ? ", mixed" : "");
            for (seed = 1; seed <= SEEDS; seed++) {
                rnd_seed(&r, seed);
                few_asks(&a, &few[i], mixed, &r);
                bad += shape_row(name, &a, seed, mixed ? 0 : 96);
                asks_free(&a);
            }
        }
        snprintf(name, sizeof(name), "tree of thought%s",
            mixed ? ", 4 at once" : "");
        for (seed = 1; seed <= SEEDS; seed++) {
            rnd_seed(&r, seed);
            tree_asks(&a, mixed ? 4 : 1, &r);
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
        POOL_TOKENS, BLOCK_TOKENS);
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
        len = between(r, 1, longest);
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
        pool = between(&r, 3, 6);
        best = tree_hits(&t, TREE_BEST, pool);
        bad += table_expect(best == tree_hits_tried(&t, pool),
            "the optimum is the best of all choices");
        tree_close(&t);
        asks_free(&a);

        letters(&a, 300, 10, &r);
        tree_open(&t, &a, 1);
        pool = between(&r, 10, 200);
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
