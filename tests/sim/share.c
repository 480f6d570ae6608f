/*
 * The cache's shares: a tenant that floods with prompts of its own, and others
 * that come now and then and begin as they did before.
 *
 * DESIGN.  After each step each of the others must still have in the cache what
 * it had, up to its weighted share of the pool (of the floor's part of it);
 * what is held against that is counted here, by all tenants' weights, and not
 * asked of the pool.  Only what a tenant took itself may be missing: while a
 * request of it runs, its blocks that are not full count for it.
 *
 * One of the others sends nothing for minutes on end while the flood goes on.
 * With a floor of 0 the same load shows what happens without any of this, or
 * the test would show nothing.
 */
#include "tables.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BT      16
#define POOL    10000 /* tokens */
#define CONTEXT 2048
#define TENANTS 12 /* at most; 0 floods */
#define STEMS   2  /* beginnings that one of the others has */
#define TIMES   100
#define TABLE_S 600
#define CHECK_S 90
#define IDLE_S  150
#define MORE_US 600000000ull /* longer than anybody is idle */

typedef struct {
    uint32_t tenants, floor;
    uint32_t weight[TENANTS];
    uint64_t weights;
    uint64_t until_us;
    uint64_t had[TENANTS], most[TENANTS];
    double lowest; /* of what it had, up to its share: the least of any step */
    uint64_t pushed;          /* steps in which somebody lost more */
    double computed, prompts; /* tokens of the others' prompts */
    double flooded;           /* tokens computed for the flood */
} share_t;


/* Blocks of each tenant's requests that are not full. */
static void
unfinished(run_t *r, uint64_t *slack)
{
    uint32_t i, known, computed, seq;

    memset(slack, 0, TENANTS * sizeof(*slack));
    for (i = 0; i < r->c.sched.reqs; i++) {
        if (r->item[i] != RUN_NONE) {
            seq = i * LLM_CHOICES_MAX;
            (void) sched_seq(r->s, seq, &known, &computed);
            slack[r->reqs[i].tenant] += kv_held(r->kv, seq) - computed / BT;
        }
    }
}


/* What the step has computed, for whom. */
static void
count_rows(run_t *r, share_t *sh)
{
    const load_req_t *q;
    const batch_row_t *row;
    uint32_t k;

    for (k = 0; k < r->b.rows_n; k++) {
        row = &r->b.rows[k];
        q = &r->c.load->v[r->row_items[k]];
        if (q->tenant == 0) {
            sh->flooded += row->q_len;
        } else if (row->q_start < q->prompt) {
            sh->computed += row->q_len;
            sh->prompts += row->kv_len == q->prompt ? q->prompt : 0;
        }
    }
}


static int
watch_share(run_t *r, void *arg)
{
    share_t *sh = arg;
    uint64_t slack[TENANTS], share, least, has;
    uint32_t t;

    count_rows(r, sh);
    unfinished(r, slack);
    for (t = 1; t < sh->tenants; t++) {
        share = (uint64_t) r->c.blocks * sh->floor * sh->weight[t] / sh->weights
                / 100;
        has = kv_owned(r->kv, t) + slack[t];
        least = share < sh->had[t] ? share : sh->had[t];
        sh->pushed += has < least;

        /* and as a figure, against the most that it ever had, and all */
        share = (uint64_t) r->c.blocks * sh->weight[t] / sh->weights;
        least = share < sh->most[t] ? share : sh->most[t];
        if (least > 0 && (double) has / (double) least < sh->lowest) {
            sh->lowest = (double) has / (double) least;
        }
        sh->had[t] = kv_owned(r->kv, t);
        sh->most[t] = sh->had[t] > sh->most[t] ? sh->had[t] : sh->most[t];
    }

    return r->now_us > sh->until_us;
}


/* Requests of one of the others: one of its beginnings, then its own words. */
static void
visitor(load_t *l, const share_t *sh, uint32_t t, uint32_t s, double rate,
    rnd_t *rnd)
{
    size_t first = l->n, n = (size_t) (rate * s), i;
    load_req_t *q;

    for (i = 0; i < n; i++) {
        q = load_add(l, LOAD_HASH_TOKENS + 40 + rnd_below(rnd, 60), 24);
        q->tenant = t;
        q->weight = sh->weight[t];
        load_hash(l, 1000 * t + rnd_below(rnd, STEMS));
    }
    load_arrive(l, first, rate, 1, rnd);

    /* the first of them pauses */
    for (i = first; i < l->n && t == 1; i++) {
        if (l->v[i].at_us > s * 1000000ull / 4) {
            l->v[i].at_us += IDLE_S * 1000000ull;
        }
    }
}


/* A flood and the others, for s seconds. */
static void
make_load(load_t *l, share_t *sh, uint32_t s, uint64_t seed, int many)
{
    double rate = 0.05;
    size_t i, n = (size_t) (rate * TIMES * s);
    rnd_t rnd;
    uint32_t t;

    rnd_seed(&rnd, seed);
    sh->tenants = many ? 3 + rnd_below(&rnd, TENANTS - 3) : 4;
    for (t = 0; t < sh->tenants; t++) {
        sh->weight[t] = many ? 1 + rnd_below(&rnd, 5) : 1 + (t == 2);
        sh->weights += sh->weight[t];
    }
    for (i = 0; i < n; i++) {
        load_add(l, 100 + rnd_below(&rnd, 400), 1 + rnd_below(&rnd, 250))
            ->weight = sh->weight[0];
    }
    load_arrive(l, 0, rate * TIMES, 1, &rnd);
    for (t = 1; t < sh->tenants; t++) {
        visitor(l, sh, t, s, rate, &rnd);
    }
    load_sort(l);
    sh->until_us = s * 1000000ull;
}


static void
run_share(share_t *sh, uint32_t s, uint64_t seed, int many)
{
    cost_t cost = cost_a10g(3000);
    run_t *r = malloc(sizeof(*r));
    load_t l = {0};
    run_cfg_t c;

    assert(r != NULL);
    make_load(&l, sh, s, seed, many);
    memset(&c, 0, sizeof(c));
    c.sched.rows = 64;
    c.sched.tokens = 512;
    c.sched.tile = 64;
    c.sched.context = CONTEXT;
    c.sched.reqs = 256;
    c.queue_max = 64;
    c.blocks = POOL / BT;
    c.block_tokens = BT;
    c.cache = 1;
    c.cost = &cost;
    c.load = &l;
    c.watch = watch_share;
    c.arg = sh;
    run_open(r, &c);
    kv_shares(r->kv, sh->floor, MORE_US);
    sh->lowest = 1;
    run_all(r);
    run_close(r);
    load_free(&l);
    free(r);
}


int
share_table(void)
{
    static const uint32_t floors[] = {0, KV_FLOOR, 100};
    share_t sh;
    double lowest, found, rate;
    uint64_t seed, pushed;
    int bad = 0;
    size_t i;

    printf("Shares of the prefix cache: a tenant with unique prompts, %d times "
           "as many as each\n  of 3 others; weights 1, 1, 2, 1; one of them "
           "pauses for %d s; pool %d tokens, 3 seeds\n",
        TIMES, IDLE_S, POOL);
    printf("  floor   others' least, of min(share, used)   steps below the "
           "floor   found   flood tokens/s\n");
    for (i = 0; i < sizeof(floors) / sizeof(floors[0]); i++) {
        lowest = 1;
        found = rate = 0;
        pushed = 0;
        for (seed = 1; seed <= 3; seed++) {
            memset(&sh, 0, sizeof(sh));
            sh.floor = floors[i];
            run_share(&sh, TABLE_S, seed, 0);
            lowest = sh.lowest < lowest ? sh.lowest : lowest;
            pushed += sh.pushed;
            found += 100 * (1 - sh.computed / sh.prompts) / 3;
            rate += sh.flooded / TABLE_S / 3;
        }
        printf("  %3u %%   %31.1f %%   %21llu   %3.0f %%   %14.0f\n", floors[i],
            100 * lowest, (unsigned long long) pushed, found, rate);
        bad += table_expect(pushed == 0, "nobody is pushed below its floor");
        bad += table_expect(100 * lowest + 1 >= floors[i],
            "a flood leaves others the floor's part of their share");
        bad += table_expect(floors[i] > 0 || lowest < 0.3,
            "without a floor they would be pushed");
    }

    return bad;
}


int
share_check(void)
{
    double lowest = 1;
    uint32_t tenants = 0;
    uint64_t seed;
    share_t sh;
    int bad = 0;

    for (seed = 1; seed <= 8; seed++) {
        memset(&sh, 0, sizeof(sh));
        sh.floor = seed % 2 ? 100 : KV_FLOOR;
        run_share(&sh, CHECK_S, seed, 1);
        bad += table_expect(sh.pushed == 0, "nobody is pushed below its floor");
        lowest = sh.lowest < lowest ? sh.lowest : lowest;
        tenants += sh.tenants - 1;
    }
    printf("cache shares: %u tenants beside floods, the least %.1f %% of "
           "min(share, used)\n",
        tenants, 100 * lowest);

    return bad;
}
