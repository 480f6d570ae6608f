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

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BT 16

typedef struct {
    rnd_t rnd;
    uint32_t deaths;
} chaos_t;


/* After a step: somebody leaves, a worker dies, readers stall and go on. */
static int
watch_chaos(run_t *r, void *arg)
{
    chaos_t *c = arg;
    uint32_t n = rnd_below(&c->rnd, r->c.sched.reqs), i, tenant;

    if (r->item[n] != RUN_NONE) {
        if (rnd_below(&c->rnd, 20) == 0) {
            run_abort(r, r->item[n]);
        } else {
            sched_credit(r->s, n, rnd_below(&c->rnd, 4) != 0);
        }
    }

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


static int
chaos(const char *name, const sched_policy_t *policy, uint32_t target_us,
    int cache, size_t n, uint64_t seed)
{
    cost_t cost = cost_two(1000, 16, 50, 0.1);
    run_t *r = malloc(sizeof(*r));
    load_t l = {0};
    sched_stats_t st;
    load_req_t *q;
    run_cfg_t c;
    chaos_t ch;
    size_t i;
    int bad = 0;

    assert(r != NULL);
    rnd_seed(&ch.rnd, seed);
    ch.deaths = 0;
    for (i = 0; i < n; i++) {
        q = load_add(
            &l, 1 + rnd_below(&ch.rnd, 200), 1 + rnd_below(&ch.rnd, 40));
        q->tenant = rnd_below(&ch.rnd, 5);
        q->priority = rnd_below(&ch.rnd, 3);
        q->weight = 1 + rnd_below(&ch.rnd, 3);
    }
    load_arrive(&l, 0, 300, 3, &ch.rnd);

    memset(&c, 0, sizeof(c));
    c.sched.policy = policy;
    c.sched.reqs = 48;
    c.sched.rows = 12;
    c.sched.tokens = 300;
    c.sched.budget = 64;
    c.sched.tile = 16;
    c.sched.target_us = target_us;
    c.sched.floor = 5;
    c.sched.context = 256;
    c.blocks = 40; /* 640 tokens */
    c.block_tokens = BT;
    c.cost = &cost;
    c.noise = 0.1;
    c.load = &l;
    c.queue_ms = 400;
    c.cache = cache;
    c.deep = 1;
    c.watch = watch_chaos;
    c.stuck = stuck_chaos;
    c.arg = &ch;
    run_open(r, &c);
    run_all(r);
    sched_stats(r->s, &st);
    printf("  %-16s %8zu %8u %8u %8u %8u %8u %10llu %9llu\n", name, n,
        r->done_n, r->aborted_n, r->refused_n, r->expired_n, ch.deaths,
        (unsigned long long) st.preemptions, (unsigned long long) r->steps);
    bad += table_expect(
        r->done_n + r->aborted_n + r->refused_n + r->expired_n == n,
        "every request has exactly one end");
    run_close(r);
    load_free(&l);
    free(r);

    return bad;
}


static int
chaos_all(size_t n)
{
    static const struct {
        const char *name;
        const sched_policy_t *policy;
        uint32_t target_us;
        int cache;
    } kinds[] = {
        {"fair", &sched_fair, 0, 0},
        {"fair, cache", &sched_fair, 0, 1},
        {"fair, target", &sched_fair, 3000, 1},
        {"fcfs", &sched_fcfs, 0, 1},
        {"prefill_first", &policy_prefill_first, 0, 0},
        {"orca", &policy_orca, 0, 0},
        {"chunk_only", &policy_chunk_only, 0, 0},
    };
    uint32_t i;
    int bad = 0;

    printf("  %-16s %8s %8s %8s %8s %8s %8s %10s %9s\n", "aborts, deaths",
        "requests", "done", "aborted", "refused", "expired", "deaths",
        "preempted", "steps");
    for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        bad += chaos(kinds[i].name, kinds[i].policy, kinds[i].target_us,
            kinds[i].cache, i == 0 ? n : n / 5, 7 + i);
    }

    return bad;
}


/* --- outputs that nobody expected --------------------------------------- */

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
    for (i = 0; i < 60; i++) {
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
    bad += table_expect(
        (double) r->tokens <= 1.2 * work, "at most a fifth computed twice");
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
    int bad = chaos_all(n);

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
    return trouble(4000);
}
