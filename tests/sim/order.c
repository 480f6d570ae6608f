/*
 * What the order of the scheduler makes of the prefix cache: the shapes of
 * shapes.h through the shipped scheduler and pool, in virtual time.
 *
 * DESIGN.  An ask is a request that comes as soon as what it needs is there:
 * all of few-shot's at once, mixed; a thought when the one before it has ended.
 * What is sampled is what the ask says, so that answers are found, too.  Found
 * are prompt tokens that were there when their request was let in first;
 * computed are all prompt tokens that were, those after preemption too.
 *
 * The optimum is a cache without end, token by token: each token once, whoever
 * asks (the paper's).  No order can do better, and with blocks and a pool that
 * holds a part of it none does as well.  "offline" is what offline.c finds with
 * the same pool and as many who run at once, the order being chosen beforehand:
 * who runs keeps blocks, so that tells what the pool lets one find.  What is
 * lost beyond that is the price of the bound on who may pass whom: where all of
 * a hundred trees wait longer than it, each of their levels is begun before the
 * next one of any.
 */
#include "tables.h"

#include "../unit/kv_plain.h"
#include "offline.h"
#include "policy.h"
#include "shapes.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BT      16
#define ROWS    64
#define TOKENS  512
#define CONTEXT 4096
#define SEEDS   3

typedef struct {
    const asks_t *a;
    kv_t *kv;
    sched_t *s;
    batch_t b;
    sched_take_t *takes;
    req_t *reqs;     /* [asks] by ask */
    uint64_t *begun; /* [asks] turn of the first row; 0: not yet */
    uint64_t turns, now_us, added;
    uint64_t gap_us; /* 0, or between one ask and the next of a group */
    uint64_t prompts, found, computed; /* tokens */
    uint64_t ran;                      /* rows, of all turns */
    uint32_t next, open;               /* groups: to begin, under way */
    uint32_t *left;                    /* [groups] asks that have not ended */
    uint32_t at_once, groups;
} order_t;

static void
order_open(order_t *o, const asks_t *a, const sched_policy_t *policy,
    uint32_t pass_us, uint32_t pool)
{
    sched_cfg_t c;
    size_t i;

    memset(o, 0, sizeof(*o));
    memset(&c, 0, sizeof(c));
    o->a = a;
    c.reqs = (uint32_t) a->n;
    c.rows = ROWS;
    c.tokens = TOKENS;
    c.tile = 16;
    c.context = CONTEXT;
    c.policy = policy;
    c.pass_us = pass_us;
    assert(a->longest <= CONTEXT);
    o->kv = kv_open_plain(pool / BT, BT, c.reqs * LLM_CHOICES_MAX, CONTEXT);
    assert(o->kv != NULL);
    if (kv_cache(o->kv, 8, 1) != 0) {
        assert(0);
    }
    o->s = sched_open(&c, o->kv);
    o->b.rows_max = o->b.outs_max = ROWS;
    o->b.tokens_max = TOKENS;
    o->b.rows = calloc(ROWS, sizeof(batch_row_t));
    o->b.outs = calloc(ROWS, sizeof(batch_out_t));
    o->b.tokens = calloc(TOKENS, sizeof(uint32_t));
    o->takes = calloc(ROWS, sizeof(sched_take_t));
    o->reqs = calloc(a->n, sizeof(req_t));
    o->begun = calloc(a->n, sizeof(uint64_t));
    for (i = 0; i < a->n; i++) {
        o->groups =
            a->v[i].group + 1 > o->groups ? a->v[i].group + 1 : o->groups;
    }
    o->left = calloc(o->groups, sizeof(uint32_t));
    assert(o->s != NULL && o->b.rows != NULL && o->b.outs != NULL);
    assert(o->b.tokens != NULL && o->takes != NULL && o->reqs != NULL);
    assert(o->begun != NULL && o->left != NULL);
    for (i = 0; i < a->n; i++) {
        o->left[a->v[i].group]++;
        o->prompts += a->v[i].prompt;
    }
}


static void
order_close(order_t *o)
{
    kv_check_deep(o->kv);
    sched_close(o->s);
    kv_close(o->kv);
    free(o->b.rows);
    free(o->b.outs);
    free(o->b.tokens);
    free(o->takes);
    free(o->reqs);
    free(o->begun);
    free(o->left);
}


static void
ask(order_t *o, uint32_t i)
{
    const ask_t *q = &o->a->v[i];
    req_t *r = &o->reqs[i];

    r->n = r->prompts_n = r->choices = 1;
    r->prompts[0].ids = o->a->tokens + q->from;
    r->prompts[0].len = q->prompt;
    r->max_tokens = q->n - q->prompt;
    r->weight = 1;
    r->arrival_us = o->now_us;
    o->added++;
    if (sched_add(o->s, i, r) != 0) {
        assert(0);
    }
}


/* Those who waited for ask i, or all that wait for none. */
static void
ask_after(order_t *o, uint32_t after, uint32_t group)
{
    uint32_t i;

    for (i = 0; i < o->a->n; i++) {
        if (o->a->v[i].after == after && o->a->v[i].group == group) {
            ask(o, i);
        }
    }
}


static void
begin_groups(order_t *o)
{
    if (o->gap_us > 0) {
        for (; o->added < o->a->n && o->added * o->gap_us <= o->now_us;) {
            ask(o, (uint32_t) o->added);
        }
        return;
    }
    while (o->open < o->at_once && o->next < o->groups) {
        ask_after(o, TREE_NEVER, o->next++);
        o->open++;
    }
}


/* One step; what it ends lets others come. */
static void
order_turn(order_t *o, const cost_t *cost)
{
    const batch_row_t *row;
    uint32_t k, i, upto;

    sched_plan(o->s, o->now_us, &o->b);
    if (o->b.rows_n == 0) { /* the next one has not come */
        assert(o->gap_us > 0);
        o->now_us += o->gap_us;
        begin_groups(o);
        return;
    }
    o->turns++;
    o->now_us += (uint64_t) cost_us(cost, &o->b) + 1;

    for (k = 0; k < o->b.rows_n; k++) {
        row = &o->b.rows[k];
        i = row->seq / LLM_CHOICES_MAX;
        upto =
            row->kv_len < o->a->v[i].prompt ? row->kv_len : o->a->v[i].prompt;
        o->computed += upto > row->q_start ? upto - row->q_start : 0;
        if (o->begun[i] == 0) {
            o->begun[i] = o->turns;
            o->found += sched_cached(o->s, i);
        }
    }
    memset(o->takes, 0, o->b.outs_n * sizeof(*o->takes));
    for (k = 0; k < o->b.outs_n; k++) {
        i = o->b.rows[o->b.outs[k].row].seq / LLM_CHOICES_MAX;
        o->takes[k].token =
            o->a->tokens[o->a->v[i].from + o->b.outs[k].pos + 1];
    }
    sched_commit(o->s, &o->b, o->takes);

    o->ran += o->b.rows_n;
    for (k = 0; k < o->b.outs_n; k++) {
        i = o->takes[k].req;
        if (sched_done(o->s, i)) {
            sched_end(o->s, i);
            if (--o->left[o->a->v[i].group] == 0) {
                o->open--;
            }
            if (o->groups > 1) {
                ask_after(o, i, o->a->v[i].group);
            }
        }
    }
    begin_groups(o);
}


static void
order_all(order_t *o, uint32_t at_once)
{
    cost_t cost = cost_a10g(3000);
    sched_stats_t st;

    o->at_once = at_once;
    begin_groups(o);
    do {
        order_turn(o, &cost);
        sched_stats(o->s, &st);
    } while (st.waiting + st.running > 0 || o->added < o->a->n);
    assert(o->added == o->a->n);
}


/* --- the table ---------------------------------------------------------- */

typedef struct {
    const char *name;
    const sched_policy_t *policy;
    uint32_t pass_us;
} rule_t;

#define PASS_US 5000000

static const rule_t rules[] = {
    {"fcfs", &sched_fcfs, 0},
    {"fair, no matches", &sched_fair, 0},
    {"fair", &sched_fair, PASS_US},
    {"prefix", &sched_prefix, PASS_US},
    {"prefix, no bound", &sched_prefix, UINT32_MAX},
};

#define RULES (sizeof(rules) / sizeof(rules[0]))


/* What a cache without end finds of all. */
static double
optimum(const asks_t *a)
{
    double all;
    tree_t t;

    tree_open(&t, a, 1);
    all = (double) tree_hits(&t, TREE_LRU, t.nodes + a->longest);
    tree_close(&t);

    return all;
}


/* What is found by who chooses the order beforehand, with that pool and as many
 * who run at once; the same again costs nothing. */
static double
offline(const asks_t *a, uint32_t at_once, double running)
{
    static offline_t last;
    static const asks_t *of;
    static uint64_t named;
    static double found;
    offline_t c = {at_once, (uint32_t) (running + 0.5), SHAPE_POOL / BT, BT};
    uint64_t name = a->tokens_n ^ (uint64_t) a->tokens[a->tokens_n - 1] << 32;

    if (of != a || named != name || memcmp(&c, &last, sizeof(c)) != 0) {
        found = (double) offline_found(a, &c);
        of = a;
        named = name;
        last = c;
    }

    return found;
}


/* A shape under each rule. */
static int
shape(const char *name, const asks_t *a, uint32_t at_once, uint64_t seed,
    double floor)
{
    double best = optimum(a), running, reach, part;
    order_t o;
    size_t i;
    int bad = 0;

    for (i = 0; i < RULES; i++) {
        order_open(&o, a, rules[i].policy, rules[i].pass_us, SHAPE_POOL);
        order_all(&o, at_once);
        running = (double) o.ran / (double) o.turns;
        reach = offline(a, at_once, running);
        part = (double) o.found / (double) o.prompts;
        printf("  %-28s %4llu %-17s %6.2f %7.2f %6.1f %% %8.1f %7.2f %6.1f %% "
               "%9llu %8.1f\n",
            name, (unsigned long long) seed, rules[i].name, 100 * part,
            100 * best / (double) o.prompts, 100 * (double) o.found / best,
            running, 100 * reach / (double) o.prompts,
            100 * (double) o.found / reach, (unsigned long long) o.computed,
            (double) o.now_us / 1e6);
        bad += table_expect(
            rules[i].pass_us == 0 || 100 * (double) o.found >= floor * best,
            "96 % of the optimum");
        bad += table_expect(rules[i].pass_us < UINT32_MAX
                                || 100 * (double) o.found >= 96 * reach,
            "without the bound 96 % of what is found offline");
        order_close(&o);
    }

    return bad;
}


int
order_table(void)
{
    static const uint32_t at_once[] = {4, 8, 100};
    char name[64];
    asks_t a = {0};
    uint64_t seed;
    int bad = 0;
    uint32_t k;
    rnd_t r;
    size_t i;

    printf(
        "\nb2. The order of those who wait: percent of prompt tokens found; "
        "%d tokens' pool\n  %-28s %4s %-17s %6s %7s %8s %8s %7s %8s %9s %8s\n",
        SHAPE_POOL, "shape", "seed", "policy", "found", "optimum", "of it",
        "running", "offline", "of it", "computed", "seconds");
    for (seed = 1; seed <= SEEDS; seed++) {
        for (i = 0; i < SHAPES_FEW; i++) {
            rnd_seed(&r, seed);
            shape_few(&a, &shapes_few[i], 1, &r);
            snprintf(name, sizeof(name), "%s, mixed", shapes_few[i].name);
            bad += shape(name, &a, 1, seed, 96);
            asks_free(&a);
        }
        for (k = 0; k < sizeof(at_once) / sizeof(at_once[0]); k++) {
            rnd_seed(&r, seed);
            shape_tree(&a, 1, &r);
            snprintf(
                name, sizeof(name), "tree of thought, %u at once", at_once[k]);
            bad += shape(name, &a, at_once[k], seed, at_once[k] == 4 ? 96 : 0);
            asks_free(&a);
        }
    }

    return bad;
}


/* --- the short form ----------------------------------------------------- */

#define CHECK_ASKS    600
#define CHECK_PASS_US 2000000
#define EVERY_LONE    5 /* of so many asks one begins as no other does */

static int
lone(uint32_t i)
{
    return i % EVERY_LONE == 0;
}


/* Eight beginnings, and some that nobody shares. */
static void
check_asks(asks_t *a)
{
    uint32_t i;
    rnd_t r;

    rnd_seed(&r, 1);
    for (i = 0; i < CHECK_ASKS; i++) {
        ask_begin(a);
        shape_text(a, lone(i) ? 1000 + i : rnd_below(&r, 8), 400);
        shape_text(a, 2000 + i, 60);
        ask_prompt(a, a->v[i].n - 1);
        ask_token(a, 0);
    }
}


/* The most by which somebody was passed who has no leader to wait for: how much
 * later the one came that began earlier. */
static uint64_t
passed_us(const order_t *o)
{
    uint64_t most = 0, late;
    uint32_t x, y;

    for (x = 0; x < o->a->n; x++) {
        for (y = x + 1; lone(x) && y < o->a->n; y++) {
            late = o->reqs[y].arrival_us - o->reqs[x].arrival_us;
            if (o->begun[y] < o->begun[x] && late > most) {
                most = late;
            }
        }
    }

    return most;
}


/* More comes than can be served: what is found, and who waits how long. */
int
order_check(void)
{
    static const rule_t tried[] = {
        {"fcfs", &sched_fcfs, CHECK_PASS_US},
        {"fair", &sched_fair, CHECK_PASS_US},
        {"prefix", &sched_prefix, CHECK_PASS_US},
        {"fair, no bound", &sched_fair, UINT32_MAX},
    };
    enum { TRIED = sizeof(tried) / sizeof(tried[0]) };
    uint64_t passed[TRIED], found[TRIED];
    double best;
    asks_t a = {0};
    order_t o;
    int i, bad = 0;

    check_asks(&a);
    best = optimum(&a);
    for (i = 0; i < TRIED; i++) {
        order_open(&o, &a, tried[i].policy, tried[i].pass_us, 2048);
        o.gap_us = 15000;
        order_all(&o, 1);
        passed[i] = passed_us(&o);
        found[i] = o.found;
        printf("prefixes, %s: %.1f %% of the optimum found, nobody was passed "
               "by who came more than %.2f s later\n",
            tried[i].name, 100 * (double) o.found / best,
            (double) passed[i] / 1e6);
        order_close(&o);
    }
    asks_free(&a);

    bad += table_expect(passed[0] == 0, "fcfs lets nobody pass");
    for (i = 1; i < 3; i++) {
        bad += table_expect((double) found[i] > 1.3 * (double) found[0],
            "more is found than in order of arrival");
        bad += table_expect(passed[i] > 0 && passed[i] <= CHECK_PASS_US,
            "who is passed is so by who came soon after");
    }
    bad += table_expect(
        passed[3] > CHECK_PASS_US, "without the bound somebody waits longer");

    return bad;
}
