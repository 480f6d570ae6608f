/*
 * What goes wrong: clients that leave at any moment, workers that die with all
 * of theirs, readers that stall, pools too small for what is in them, outputs
 * far longer than those before.
 *
 * It would catch a block that is lost or held twice (every block is looked at
 * after each step), a request that never ends, two that wait for each other,
 * and the spiral in which each preemption makes the next one necessary.
 */
#include "tables.h"
#include "policy.h"
#include "stage.h"
#include "trouble.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BT 16

/*
 * Who plans, and over what: each has all of what goes wrong, and so have more
 * that are drawn by chance, as options may meet in ways that nobody thought
 * of.
 */
const variant_t variants[] = {
    {.name = "fair", .policy = &sched_fair},
    {.name = "fair, cache", .policy = &sched_fair, .cache = 1},
    {.name = "fair, target",
        .policy = &sched_fair,
        .target_us = 3000,
        .cache = 1},
    {.name = "fair, windows",
        .policy = &sched_fair,
        .cache = 1,
        .groups = 2,
        .windows = {0, 48}},
    {.name = "fcfs", .policy = &sched_fcfs, .cache = 1},
    {.name = "vtc", .policy = &policy_vtc, .cache = 1},
    {.name = "prefill_first", .policy = &sched_prefill_first, .whole = 1},
    {.name = "orca", .policy = &sched_orca, .whole = 1},
    {.name = "hybrid_only", .policy = &sched_hybrid_only, .whole = 1},
    {.name = "chunk_only", .policy = &sched_chunk_only},
    {.name = "fair, tier",
        .policy = &sched_fair,
        .cache = 1,
        .tier = {.slots = 160, .turn = 16}},
    {.name = "fair, bad copies",
        .policy = &sched_fair,
        .target_us = 3000,
        .cache = 1,
        .tier = {.slots = 160, .turn = 6, .late = 9, .bad = 5}},
    {.name = "fcfs, bad copies",
        .policy = &sched_fcfs,
        .cache = 1,
        .tier = {.slots = 60, .turn = 6, .late = 9, .bad = 5}},
    {.name = "fair, ahead", .policy = &sched_fair, .cache = 1, .depth = 1},
    {.name = "windows, ahead",
        .policy = &sched_fair,
        .target_us = 3000,
        .cache = 1,
        .groups = 2,
        .windows = {0, 48},
        .depth = 1},
    {.name = "fcfs, tier, ahead",
        .policy = &sched_fcfs,
        .cache = 1,
        .tier = {.slots = 160, .turn = 16},
        .depth = 1},
    {.name = "orca, ahead", .policy = &sched_orca, .whole = 1, .depth = 1},
    {.name = "prefix",
        .policy = &sched_prefix,
        .cache = 1,
        .pass_us = 100000,
        .shares = 1},
    {.name = "fair, shares",
        .policy = &sched_fair,
        .cache = 1,
        .pass_us = 5000000,
        .shares = 1,
        .kept = 100,
        .idle_us = 20000},
    {.name = NULL},
};


typedef struct {
    rnd_t rnd;
    uint32_t deaths, stalls;
    uint32_t want; /* the stage at which the next one leaves */
    uint32_t wait; /* steps until then; when it is up, those it is looked for */
    uint64_t left[STAGE_N];
} chaos_t;

/* Prompts begin with blocks of these many, so that some share. */
#define STEMS 6

/* From here on every stage is met by chance, too. */
#define CHAOS_MANY 100000


/* Somebody leaves who stands where the next one is to, if there is one. */
static void
leave(run_t *r, chaos_t *c)
{
    uint32_t from = rnd_below(&c->rnd, r->c.sched.reqs), i, k;

    if (c->wait++ < 16) {
        return;
    }

    for (k = 0; k < r->c.sched.reqs; k++) {
        i = (from + k) % r->c.sched.reqs;
        if (r->item[i] != RUN_NONE && stage_of(r, i) == (stage_t) c->want) {
            c->left[c->want]++;
            run_abort(r, r->item[i]);
            break;
        }
    }
    if (k < r->c.sched.reqs || c->wait > 128) {
        c->want = rnd_below(&c->rnd, STAGE_N);
        c->wait = rnd_below(&c->rnd, 16);
    }
}


/* A text ends by a stop string, somewhere in its last tokens. */
static void
cut(run_t *r, chaos_t *c, uint32_t i)
{
    uint32_t id = i * LLM_CHOICES_MAX, known, computed, n;
    sched_state_t state = sched_seq(r->s, id, &known, &computed);

    n = r->items[r->item[i]].tokens;
    if (n > 0 && state != SCHED_ENDED && state != SCHED_QUEUED) {
        run_cut(r, i, 0, n - 1 - rnd_below(&c->rnd, n < 3 ? n : 3));
    }
}


/* Before a commit: an output in a thousand is not finite. */
static void
fault_chaos(run_t *r, sched_take_t *takes, void *arg)
{
    chaos_t *c = arg;
    uint32_t k;

    for (k = 0; k < r->b.outs_n; k++) {
        takes[k].err = rnd_below(&c->rnd, 1000) == 0;
    }
}


/* After a step: somebody leaves, a worker dies, readers stall and go on, a stop
 * string is seen. */
static int
watch_chaos(run_t *r, void *arg)
{
    chaos_t *c = arg;
    uint32_t n = rnd_below(&c->rnd, r->c.sched.reqs), i, tenant;

    if (r->item[n] != RUN_NONE) {
        sched_credit(r->s, n, rnd_below(&c->rnd, 4) != 0);
        c->stalls++;
        if (rnd_below(&c->rnd, 30) == 0) {
            cut(r, c, n);
        }
    }
    leave(r, c);

    if (rnd_below(&c->rnd, 2000) == 0) {
        tenant = rnd_below(&c->rnd, 5);
        c->deaths++;
        for (i = 0; i < r->c.sched.reqs; i++) {
            if (r->item[i] != RUN_NONE && r->reqs[i].tenant == tenant) {
                run_abort(r, r->item[i]);
            }
        }
    }

    return 0;
}


/* All readers go on. */
static int
stuck_chaos(run_t *r, void *arg)
{
    uint32_t i;
    int any = 0;

    (void) arg;
    for (i = 0; i < r->c.sched.reqs; i++) {
        if (r->item[i] != RUN_NONE) {
            sched_credit(r->s, i, 1);
            any = 1;
        }
    }

    return any;
}


static void
chaos_load(load_t *l, size_t n, rnd_t *rnd)
{
    load_req_t *q;
    uint32_t k, stem;
    size_t i;

    for (i = 0; i < n; i++) {
        q = load_add(l, 1 + rnd_below(rnd, 200), 1 + rnd_below(rnd, 40));
        q->tenant = rnd_below(rnd, 5);
        q->priority = rnd_below(rnd, 3);
        q->weight = 1 + rnd_below(rnd, 3);
        q->choices = rnd_below(rnd, 8) == 0 ? 2 + rnd_below(rnd, 2) : 1;
        stem = rnd_below(rnd, STEMS);
        for (k = 0; k < stem * 2; k++) {
            load_hash(l, stem * 100 + k);
        }
    }
    load_arrive(l, 0, 150, 3, rnd);
}


static void
chaos_cfg(run_cfg_t *c, const variant_t *v)
{
    memset(c, 0, sizeof(*c));
    variant_apply(v, c);
    c->sched.reqs = 48;
    c->sched.rows = 8;
    c->sched.tokens = 300;
    c->sched.budget = 64;
    c->sched.tile = 16;
    c->sched.floor = v->floor > 0 ? v->floor : 5;
    c->sched.context = 256;
    c->blocks = v->groups > 1 ? 60 : 40;
    c->block_tokens = c->hash_tokens = BT;
    c->noise = 0.1;
    c->queue_ms = 400;
    c->deep = 1;
    c->fault = fault_chaos;
    c->watch = watch_chaos;
    c->amid = 1;
    c->stuck = stuck_chaos;
}


/* What a run was like, beside how its requests ended; or some runs. */
typedef struct {
    sched_stats_t st;
    kv_tier_stats_t ts;
    uint64_t failed, stalls, outputs, late;
} seen_t;


static void
see(seen_t *a, const run_t *r, const chaos_t *ch)
{
    sched_stats_t st;
    kv_tier_stats_t ts = {0};

    sched_stats(r->s, &st);
    if (r->c.tier.slots > 0) {
        kv_tier_stats(r->kv, &ts);
    }
    a->st.preemptions += st.preemptions;
    a->st.follows += st.follows;
    a->st.fetches += st.fetches;
    a->st.fetched_tokens += st.fetched_tokens;
    a->st.discarded += st.discarded;
    a->st.wasted += st.wasted;
    a->ts.out += ts.out;
    a->ts.in += ts.in;
    a->ts.failed += ts.failed;
    a->failed += r->failed_n;
    a->stalls += ch->stalls;
    a->outputs += r->outputs;
    a->late += r->late;
}


static void
print_tier(const seen_t *a)
{
    printf("    blocks out %llu, in %llu; copies failed %llu; %llu requests "
           "began with %llu tokens from there\n",
        (unsigned long long) a->ts.out, (unsigned long long) a->ts.in,
        (unsigned long long) a->ts.failed, (unsigned long long) a->st.fetches,
        (unsigned long long) a->st.fetched_tokens);
}


static void
print_ahead(const seen_t *a)
{
    printf("    of %llu outputs %llu were the next step's token before "
           "anybody knew it;\n    rows discarded %llu, tokens wasted %llu\n",
        (unsigned long long) a->outputs, (unsigned long long) a->late,
        (unsigned long long) a->st.discarded,
        (unsigned long long) a->st.wasted);
}


/* n requests under a variant; what was seen is added to a. */
static int
chaos(const variant_t *v, size_t n, uint64_t seed, uint64_t *left, seen_t *a)
{
    cost_t cost = cost_two(1000, 16, 50, 0.1);
    run_t *r = malloc(sizeof(*r));
    load_t l = {0};
    sched_stats_t st;
    chaos_t ch = {0};
    run_cfg_t c;
    uint32_t k;
    int bad;

    assert(r != NULL);
    rnd_seed(&ch.rnd, seed);
    chaos_load(&l, n, &ch.rnd);
    chaos_cfg(&c, v);
    c.cost = &cost;
    c.load = &l;
    c.arg = &ch;
    run_open(r, &c);
    if (v->shares) {
        kv_shares(r->kv, v->kept, v->idle_us);
    }
    run_all(r);
    sched_stats(r->s, &st);
    printf("  %-16s %8zu %7u %7u %6u %7u %7u %6u %9llu %8llu %8llu\n", v->name,
        n, r->done_n, r->aborted_n, r->failed_n, r->refused_n, r->expired_n,
        ch.deaths, (unsigned long long) st.preemptions,
        (unsigned long long) st.follows, (unsigned long long) r->steps);
    bad = table_expect(
        r->done_n + r->aborted_n + r->failed_n + r->refused_n + r->expired_n
            == n,
        "every request has exactly one end");
    for (k = 0; k < STAGE_N; k++) {
        left[k] += ch.left[k];
    }
    see(a, r, &ch);
    run_close(r);
    load_free(&l);
    free(r);

    return bad;
}


/* Has what was to happen under a variant? */
static int
expect_seen(const variant_t *v, const seen_t *a)
{
    int bad = 0;

    if (v->tier.slots > 0) {
        print_tier(a);
        bad += table_expect(
            a->st.fetches > 0 && (a->ts.failed > 0) == (v->tier.bad > 0),
            "blocks come back, in spite of copies that fail");
    }
    if (v->depth > 0) {
        print_ahead(a);
        bad += table_expect(a->late > a->outputs / 4
                                && a->st.discarded > a->st.wasted
                                && a->st.wasted > 0,
            "steps are planned ahead, and rows discarded");
    }

    return bad
           + table_expect(a->st.preemptions > 0 && a->failed > 0
                              && a->stalls > 0
                              && (a->st.follows > 0) == v->cache,
               "all that can go wrong did");
}


/* Any settings that go together, with a line that tells them. */
static void
draw(variant_t *v, char name[16], rnd_t *rnd)
{
    static const sched_policy_t *const policies[] = {
        &sched_fair, &sched_prefix, &sched_fcfs, &policy_vtc};
    static const uint32_t passes[] = {0, 3000, 100000, 5000000};
    static const uint64_t idles[] = {0, 5000, 100000, 600000000};

    memset(v, 0, sizeof(*v));
    v->name = name;
    v->policy = policies[rnd_below(rnd, 4)];
    v->cache = v->shares = 1;
    v->pass_us = passes[rnd_below(rnd, 4)];
    v->kept = rnd_below(rnd, 101);
    v->idle_us = idles[rnd_below(rnd, 4)];
    v->floor = 1 + rnd_below(rnd, 60);
    v->apart = rnd_below(rnd, 2) == 0;
    v->target_us = rnd_below(rnd, 2) * 3000;
    v->depth = rnd_below(rnd, 2);
    if (rnd_below(rnd, 4) == 0) { /* and then there is no second tier */
        v->groups = 2;
        v->windows[1] = 16 + rnd_below(rnd, 100);
    } else if (rnd_below(rnd, 3) > 0) {
        v->tier.slots = 1 + rnd_below(rnd, 200);
        v->tier.turn = 2 + rnd_below(rnd, 20);
        v->tier.late = rnd_below(rnd, 10);
        v->tier.bad = rnd_below(rnd, 2) * (2 + rnd_below(rnd, 20));
        v->tier.again = rnd_below(rnd, 3) == 0;
    }
    snprintf(name, 16, "%s%s", sched_policy_name(v->policy),
        v->depth > 0 ? ", ahead" : "");
    printf("    %s: pass %u us, kept %u %% for %llu us, floor %u, target %u; "
           "window %u;\n      tier %u, %u a turn, late %u, bad %u%s\n",
        v->apart ? "apart" : "together", v->pass_us, v->kept,
        (unsigned long long) v->idle_us, v->floor, v->target_us, v->windows[1],
        v->tier.slots, v->tier.turn, v->tier.late, v->tier.bad,
        v->tier.again ? ", again" : "");
    fflush(stdout); /* for who looks why an assertion failed */
}


/* n requests under settings that are drawn. */
static int
chaos_drawn(size_t n, uint64_t *left)
{
    uint32_t draws = n >= CHAOS_MANY ? 40 : 8, i;
    char name[16];
    seen_t a = {0};
    variant_t v;
    rnd_t rnd;
    int bad = 0;

    rnd_seed(&rnd, n);
    for (i = 0; i < draws; i++) {
        draw(&v, name, &rnd);
        bad += chaos(&v, n / draws + (i < n % draws), 1000 + i, left, &a);
    }
    print_tier(&a);
    print_ahead(&a);

    return bad
           + table_expect(a.st.preemptions > 0 && a.failed > 0 && a.stalls > 0
                              && a.st.follows > 0 && a.st.fetches > 0
                              && a.ts.failed > 0 && a.late > 0
                              && a.st.wasted > 0,
               "so it did under settings that are drawn");
}


/* n requests in all: an eighth by the first variant, a third under settings
 * that are drawn. */
static int
chaos_all(size_t n)
{
    uint64_t left[STAGE_N] = {0};
    uint32_t i, k, others = 0;
    size_t one;
    int bad = 0;
    seen_t a;

    while (variants[others + 1].name != NULL) {
        others++;
    }

    printf("  %-16s %8s %7s %7s %6s %7s %7s %6s %9s %8s %8s\n", "variant",
        "requests", "done", "aborted", "failed", "refused", "expired", "deaths",
        "preempted", "followed", "steps");
    for (i = 0; variants[i].name != NULL; i++) {
        one = (n - n / 3 - n / 8) / others;
        one = i == 0 ? n - n / 3 - one * others : one;
        memset(&a, 0, sizeof(a));
        bad += chaos(&variants[i], one, 7 + i, left, &a);
        bad += expect_seen(&variants[i], &a);
    }
    bad += chaos_drawn(n / 3, left);

    printf("  of the clients that left, by where their request stood:\n");
    for (k = 0; k < STAGE_N; k++) {
        printf("    %-38s %8llu\n", stage_name((stage_t) k),
            (unsigned long long) left[k]);
        if (n >= CHAOS_MANY) {
            bad += table_expect(left[k] > 0, "somebody left at each stage");
        }
    }

    return bad;
}


/* --- outputs that nobody expected --------------------------------------- */

#define LONG_ONES 60

/* Outputs and computed tokens in thirds of the time. */
typedef struct {
    uint64_t from_us, until_us; /* of the long ones' stay */
    double before_s, after_s;
    uint64_t before, after, last_us, outputs;
} spiral_t;


static int
watch_spiral(run_t *r, void *arg)
{
    spiral_t *s = arg;
    double took = (double) (r->now_us - s->last_us) / 1e6;
    uint64_t got = r->outputs - s->outputs;

    if (r->now_us > 10000000 && r->now_us <= s->from_us) {
        s->before += got;
        s->before_s += took;
    } else if (r->now_us > s->until_us && r->next < r->c.load->n) {
        s->after += got;
        s->after_s += took;
    }
    s->last_us = r->now_us;
    s->outputs = r->outputs;

    return 0;
}


/*
 * A server that is busy with short outputs, and in the middle a wave of long
 * ones that were let in as if they were short: the pool runs over.  Afterwards
 * it must be as fast as before, and little may have been computed twice.
 */
static int
spiral(const char *name, const sched_policy_t *policy)
{
    cost_t cost = cost_a10g(3000);
    run_t *r = malloc(sizeof(*r));
    spiral_t s = {60000000, 120000000, 0, 0, 0, 0, 0, 0};
    load_t l = {0};
    sched_stats_t st;
    run_cfg_t c;
    size_t first, i;
    double before, after, work = 0;
    rnd_t rnd;
    int bad = 0;

    assert(r != NULL);
    rnd_seed(&rnd, 3);
    for (i = 0; i < 1500; i++) { /* far more than can be served */
        (void) load_add(&l, 200 + rnd_below(&rnd, 200), 32);
    }
    load_arrive(&l, 0, 8, 1, &rnd);
    first = l.n;
    for (i = 0; i < LONG_ONES; i++) {
        load_add(&l, 100, 1200)->at_us = s.from_us + i * 1000;
    }
    for (i = first; i < l.n; i++) {
        l.v[i].tenant = 1;
    }
    load_sort(&l);
    for (i = 0; i < l.n; i++) {
        work += l.v[i].prompt + l.v[i].output;
    }

    memset(&c, 0, sizeof(c));
    c.sched.policy = policy;
    c.sched.rows = 64;
    c.sched.tokens = 512;
    c.sched.tile = 64;
    c.sched.context = 2048;
    c.blocks = 10000 / BT;
    c.block_tokens = BT;
    c.cost = &cost;
    c.load = &l;
    c.watch = watch_spiral;
    c.arg = &s;
    run_open(r, &c);
    run_all(r);
    sched_stats(r->s, &st);
    before = (double) s.before / s.before_s;
    after = (double) s.after / s.after_s;
    printf("  outputs 40 times longer than known, %s: output/s %.0f before, "
           "%.0f after;\n    preemptions %llu, computed %.2f of the work\n",
        name, before, after, (unsigned long long) st.preemptions,
        (double) r->tokens / work);
    bad += table_expect(after >= 0.9 * before, "as fast after as before");
    bad += table_expect((double) r->tokens <= 1.08 * work,
        "hardly anything is computed twice: no spiral");
    bad += table_expect(
        st.preemptions <= 2 * LONG_ONES, "nobody is preempted again and again");
    run_close(r);
    load_free(&l);
    free(r);

    return bad;
}


/* --- prompts that do not fit together ----------------------------------- */

static int
large(const char *name, const sched_policy_t *policy, uint32_t tenants)
{
    cost_t cost = cost_two(1000, 0, 10, 0);
    run_t *r = malloc(sizeof(*r));
    uint32_t blocks = 400, i, n = 40;
    load_t l = {0};
    run_cfg_t c;
    double work = 0;
    int bad;

    assert(r != NULL);
    for (i = 0; i < n; i++) {
        load_add(&l, blocks * BT * 6 / 10, 100)->tenant = i % tenants;
        work += l.v[i].prompt + l.v[i].output;
    }

    memset(&c, 0, sizeof(c));
    c.sched.policy = policy;
    c.sched.rows = 64;
    c.sched.tokens = 4096;
    c.sched.budget = 256;
    c.sched.context = 4096;
    c.blocks = blocks;
    c.block_tokens = BT;
    c.cost = &cost;
    c.load = &l;
    run_open(r, &c);
    run_all(r);
    printf(
        "  %u prompts of 60 %% of the pool, %u tenants, %s: computed %.2f of "
        "the work\n",
        n, tenants, name, (double) r->tokens / work);
    bad = table_expect(
        (double) r->tokens < 1.1 * work, "one after the other, hardly twice");
    run_close(r);
    load_free(&l);
    free(r);

    return bad;
}


static int
trouble(size_t n)
{
    int bad = abort_each() + chaos_all(n);

    bad += large("fair", &sched_fair, 1) + large("fair", &sched_fair, 40);
    bad += large("fcfs", &sched_fcfs, 40);
    bad += spiral("fair", &sched_fair) + spiral("fcfs", &sched_fcfs);

    return bad;
}


int
trouble_table(void)
{
    printf("\ne. Trouble: every block checked after each step\n");

    return trouble(1000000);
}


int
trouble_check(void)
{
    return trouble(9000);
}
