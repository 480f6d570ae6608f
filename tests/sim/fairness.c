/*
 * Fairness among tenants: the set-ups of the virtual token counter's paper
 * (VTC), a pool of 10,000 tokens on a simulated A10G, and isolation from a
 * tenant that floods.
 *
 * DESIGN.  A tenant's service is its prompt tokens computed plus twice its
 * tokens sampled.  While two tenants both have requests waiting, neither could
 * have been given less on its own account, so over any such interval their
 * services should differ by a constant only.  VTC's bound for that is 2 U,
 * with U the larger of the longest prompt and twice the pool; ours is in
 * sched_fair.c.  The largest difference over any interval is the range of the
 * running difference.  The last set-up has a prefix cache and more beginnings
 * than fit: what the matches gain, and that they take from nobody's share.
 */
#include "tables.h"
#include "policy.h"
#include "trace.h"
#include "sched_int.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TENANTS  27
#define CONTEXT  2048
#define POOL     10000 /* tokens */
#define BT       16
#define SECONDS  600
#define MINUTE_S 60.0

/* The running difference of each pair while both wait. */
typedef struct {
    uint32_t tenants;
    uint64_t until_us;
    double service[TENANTS];
    double d[TENANTS][TENANTS], lo[TENANTS][TENANTS], hi[TENANTS][TENANTS];
    double range; /* the largest of all pairs */
    double sum;   /* of all service */
    uint32_t waits[TENANTS];
} pairs_t;


/* Who has requests that have not begun. */
static void
count_waiting(run_t *r, pairs_t *p)
{
    uint32_t i, known, computed;

    memset(p->waits, 0, sizeof(p->waits));
    for (i = 0; i < r->c.sched.reqs; i++) {
        if (r->item[i] != RUN_NONE
            && sched_seq(r->s, i * LLM_CHOICES_MAX, &known, &computed)
                   == SCHED_QUEUED) {
            p->waits[r->reqs[i].tenant]++;
        }
    }
}


/* What this step has given to each. */
static void
count_service(run_t *r, double *got)
{
    const load_req_t *q;
    const batch_row_t *row;
    run_req_t *it;
    uint32_t k, upto;

    for (k = 0; k < r->b.rows_n; k++) {
        row = &r->b.rows[k];
        q = &r->c.load->v[r->row_items[k]];
        upto = row->kv_len < q->prompt ? row->kv_len : q->prompt;
        it = &r->items[r->row_items[k]];
        if (it->paid == 0) { /* what the cache had is not computed */
            it->paid = row->q_start < q->prompt ? row->q_start : q->prompt;
        }
        if (upto > it->paid) { /* not again after preemption */
            got[q->tenant] += upto - it->paid;
            it->paid = upto;
        }
    }
    for (k = 0; k < r->b.outs_n; k++) {
        q = &r->c.load->v[r->row_items[r->b.outs[k].row]];
        got[q->tenant] += SCHED_COST_OUT;
    }
}


static int
watch_pairs(run_t *r, void *arg)
{
    pairs_t *p = arg;
    double got[TENANTS] = {0};
    uint32_t a, b;

    count_service(r, got);
    for (a = 0; a < p->tenants; a++) {
        p->service[a] += got[a];
        p->sum += got[a];
    }

    for (a = 0; a < p->tenants; a++) {
        for (b = a + 1; b < p->tenants; b++) {
            if (p->waits[a] == 0 || p->waits[b] == 0) {
                p->d[a][b] = p->lo[a][b] = p->hi[a][b] = 0;
                continue;
            }
            p->d[a][b] += got[a] - got[b];
            p->lo[a][b] = p->d[a][b] < p->lo[a][b] ? p->d[a][b] : p->lo[a][b];
            p->hi[a][b] = p->d[a][b] > p->hi[a][b] ? p->d[a][b] : p->hi[a][b];
            if (p->hi[a][b] - p->lo[a][b] > p->range) {
                p->range = p->hi[a][b] - p->lo[a][b];
            }
        }
    }
    /* those who wait now do through the next step, unless they are let in */
    count_waiting(r, p);

    return r->now_us > p->until_us;
}


/* A client: requests a minute, and its lengths. */
static void
client(load_t *l, uint32_t tenant, double per_minute, uint32_t prompt,
    uint32_t output, rnd_t *rnd)
{
    size_t first = l->n, n = (size_t) (per_minute * SECONDS / MINUTE_S);

    while (n-- > 0) {
        load_add(l, prompt, output)->tenant = tenant;
    }
    load_arrive(l, first, per_minute / MINUTE_S, 1, rnd);
}


/* Two clients, both sending more than their half. */
static void
load_two(load_t *l, uint64_t seed)
{
    rnd_t rnd;

    rnd_seed(&rnd, seed);
    client(l, 0, 90, 256, 256, &rnd);
    client(l, 1, 180, 256, 256, &rnd);
    load_sort(l);
}


/* Short prompts and long outputs against the reverse. */
static void
load_lengths(load_t *l, uint64_t seed)
{
    rnd_t rnd;

    rnd_seed(&rnd, seed);
    client(l, 0, 150, 64, 512, &rnd);
    client(l, 1, 300, 512, 64, &rnd);
    load_sort(l);
}


/* 27 clients, 210 requests a minute, a few of them sending most. */
static void
load_many(load_t *l, uint64_t seed)
{
    load_t lengths = {0};
    double share[TENANTS], sum = 0;
    uint32_t i, k;
    size_t first;
    rnd_t rnd;

    rnd_seed(&rnd, seed);
    (void) trace_load(TRACE_SHAREGPT, &lengths, 1);
    for (i = 0; i < TENANTS; i++) {
        sum += share[i] = 1.0 / (i + 1);
    }
    for (i = 0; i < TENANTS; i++) {
        first = l->n;
        k = (uint32_t) (210 * SECONDS / MINUTE_S * share[i] / sum + 0.5);
        load_draw(l, &lengths, k, CONTEXT / 2, &rnd);
        load_arrive(l, first, 210 / MINUTE_S * share[i] / sum, 1, &rnd);
        for (; first < l->n; first++) {
            l->v[first].tenant = i;
        }
    }
    load_free(&lengths);
    load_sort(l);
}


/* Four tenants that share eight beginnings of 512 tokens, and have as many of
 * their own: more than the pool holds.  One sends half of all. */
static void
load_alike(load_t *l, uint64_t seed)
{
    static const double per_minute[] = {300, 100, 100, 100};
    uint32_t i, tenant, own;
    rnd_t rnd;

    rnd_seed(&rnd, seed);
    for (tenant = 0; tenant < 4; tenant++) {
        size_t first = l->n;

        for (i = 0; i < per_minute[tenant] * SECONDS / MINUTE_S; i++) {
            load_add(l, LOAD_HASH_TOKENS + 50 + rnd_below(&rnd, 130), 32)
                ->tenant = tenant;
            own = rnd_below(&rnd, 16);
            load_hash(l, own < 8 ? own : 8 * (tenant + 1) + own);
        }
        load_arrive(l, first, per_minute[tenant] / MINUTE_S, 1, &rnd);
    }
    load_sort(l);
}


typedef struct {
    double range, rate, idle, requests;
    uint64_t preemptions;
} outcome_t;

typedef struct {
    const char *title;
    void (*make)(load_t *, uint64_t);
    uint32_t tenants;
    int alike; /* who is served does not change what can be */
    int cache; /* is there one? */
    int seeds;
} set_up_t;

typedef struct {
    const char *name;
    const sched_policy_t *policy;
    uint32_t pass_us;
} rule_t;

#define PASS_US 5000000

static const rule_t rules[] = {
    {"fair", &sched_fair, PASS_US},
    {"strict VTC", &policy_vtc, 0},
    {"fcfs", &sched_fcfs, 0},
    {"fair, no matches", &sched_fair, 0},
    {"prefix", &sched_prefix, PASS_US},
};

enum { FAIR, VTC, FCFS, UNCACHED_RULES, RULES = 5 };


static void
usual(run_cfg_t *c, const rule_t *rule, const cost_t *cost, const load_t *l)
{
    memset(c, 0, sizeof(*c));
    c->sched.policy = rule->policy;
    c->sched.pass_us = rule->pass_us;
    c->sched.rows = 64;
    c->sched.tokens = 512;
    c->sched.tile = 64;
    c->sched.context = CONTEXT;
    c->blocks = POOL / BT;
    c->block_tokens = BT;
    c->cost = cost;
    c->load = l;
}


static outcome_t
measure(const rule_t *rule, const load_t *l, const set_up_t *su)
{
    cost_t cost = cost_a10g(3000);
    pairs_t *p = calloc(1, sizeof(*p));
    run_t *r = malloc(sizeof(*r));
    sched_stats_t st;
    outcome_t o;
    run_cfg_t c;

    assert(p != NULL && r != NULL);
    p->tenants = su->tenants;
    p->until_us = SECONDS * 1000000ull;
    usual(&c, rule, &cost, l);
    c.cache = su->cache;
    c.watch = watch_pairs;
    c.arg = p;
    run_open(r, &c);
    run_all(r);
    sched_stats(r->s, &st);
    o.range = p->range;
    o.rate = p->sum / ((double) r->now_us / 1e6);
    o.requests = r->done_n / ((double) r->now_us / 1e6);
    o.idle = (double) r->idle_us / 1e6;
    o.preemptions = st.preemptions;
    run_close(r);
    free(r);
    free(p);

    return o;
}


/* What must hold of a set-up. */
static int
judge(const set_up_t *su, const outcome_t *o, double bound)
{
    int bad = 0;

    bad += table_expect(o[FAIR].range <= bound, "within the bound");
    bad += table_expect(
        o[FAIR].range <= 1.2 * o[VTC].range, "at most 1.2 times strict VTC's");
    bad +=
        table_expect(o[FCFS].range > bound && o[FCFS].range > 2 * o[FAIR].range,
            "fcfs is not fair");
    bad += table_expect(!su->alike || o[FAIR].rate >= 0.99 * o[FCFS].rate
                            || o[FAIR].requests >= 0.99 * o[FCFS].requests,
        "throughput within 1 % of fcfs");
    bad += table_expect(o[FAIR].idle == 0, "work conserving");
    bad += table_expect(!su->cache || o[FAIR].requests > o[VTC].requests,
        "more served than by strict VTC");

    return bad;
}


/* One set-up under each policy, the worst of the seeds. */
static int
set_up(const set_up_t *su)
{
    const double u = 2.0 * POOL; /* no prompt is longer than that */
    const double quantum = 8.0 * 512, lead = quantum / 4;
    const double bound = 2 * (u + lead) + quantum;
    int i, seed, n = su->cache ? RULES : UNCACHED_RULES;
    outcome_t worst[RULES], o;
    load_t l = {0};

    memset(worst, 0, sizeof(worst));
    for (seed = 1; seed <= su->seeds; seed++) {
        su->make(&l, (uint64_t) seed);
        for (i = 0; i < n; i++) {
            o = measure(&rules[i], &l, su);
            worst[i].rate += o.rate / su->seeds;
            worst[i].requests += o.requests / su->seeds;
            worst[i].idle += o.idle;
            worst[i].preemptions += o.preemptions;
            worst[i].range =
                o.range > worst[i].range ? o.range : worst[i].range;
        }
        load_free(&l);
    }

    printf("%s:\n  U %.0f, quantum %.0f, lead %.0f: bound 2 (U + lead) + "
           "quantum %.0f; VTC's 2 U %.0f\n",
        su->title, u, quantum, lead, bound, 2 * u);
    for (i = 0; i < n; i++) {
        printf("  %-16s largest difference %8.0f, service/s %6.0f, requests/s "
               "%6.2f, preemptions %llu\n",
            rules[i].name, worst[i].range, worst[i].rate, worst[i].requests,
            (unsigned long long) worst[i].preemptions);
    }

    return judge(su, worst, bound);
}


/* --- a tenant that floods ----------------------------------------------- */

static int
watch_time(run_t *r, void *arg)
{
    return r->now_us > *(uint64_t *) arg;
}


/* P99 of the time to first token of tenant 0, which sends 0.4 of what can be
 * served, beside one that sends `other` of it. */
static double
beside(const rule_t *rule, double capacity, double other, uint64_t seed)
{
    uint64_t until = SECONDS * 1000000ull;
    cost_t cost = cost_a10g(3000);
    run_t *r = malloc(sizeof(*r));
    stat_t *ttft = calloc(1, sizeof(*ttft));
    load_t l = {0};
    run_cfg_t c;
    rnd_t rnd;
    double p99;
    size_t i;

    assert(r != NULL && ttft != NULL);
    rnd_seed(&rnd, seed);
    client(&l, 0, 0.4 * capacity * MINUTE_S, 256, 128, &rnd);
    rnd_seed(&rnd, seed + 1);
    client(&l, 1, other * capacity * MINUTE_S, 256, 128, &rnd);
    load_sort(&l);
    usual(&c, rule, &cost, &l);
    c.sched.reqs = 4096;
    c.queue_max = 64;
    c.watch = watch_time;
    c.arg = &until;
    run_open(r, &c);
    run_all(r);
    for (i = 0; i < l.n; i++) {
        if (l.v[i].tenant == 0 && r->items[i].first_us > 0) {
            stat_add(
                ttft, (double) (r->items[i].first_us - l.v[i].at_us) / 1e6);
        }
    }
    p99 = stat_percentile(ttft, 99);
    run_close(r);
    load_free(&l);
    free(r);
    free(ttft);

    return p99;
}


/* Requests a second of the flood's kind that can be served. */
static double
flood_capacity(void)
{
    cost_t cost = cost_a10g(3000);
    run_t *r = malloc(sizeof(*r));
    load_t l = {0};
    run_cfg_t c;
    rnd_t rnd;
    double rate;

    assert(r != NULL);
    rnd_seed(&rnd, 1);
    client(&l, 0, 100, 256, 128, &rnd);
    memset(&c, 0, sizeof(c));
    usual(&c, &rules[FAIR], &cost, &l);
    for (size_t i = 0; i < l.n; i++) {
        l.v[i].at_us = 0;
    }
    run_open(r, &c);
    run_all(r);
    rate = (double) l.n / ((double) r->now_us / 1e6);
    run_close(r);
    load_free(&l);
    free(r);

    return rate;
}


static int
flood(void)
{
    double capacity = flood_capacity(), quiet, loud;
    int i, bad = 0;
    uint64_t seed;

    printf("P99 TTFT of a tenant that sends 0.4 of the %.2f req/s served, "
           "beside one that sends\n  its half, and one that sends 100 times "
           "that; 3 seeds\n",
        capacity);
    for (i = 0; i < UNCACHED_RULES; i++) {
        quiet = loud = 0;
        for (seed = 1; seed <= 3; seed++) {
            quiet += beside(&rules[i], capacity, 0.5, 10 * seed) / 3;
            loud += beside(&rules[i], capacity, 50, 10 * seed) / 3;
        }
        printf("  %-16s %.3f s, %.3f s: %+.1f %%\n", rules[i].name, quiet, loud,
            100 * (loud / quiet - 1));
        if (i == 0) {
            bad += table_expect(
                loud < 1.1 * quiet, "a flood moves another's P99 by < 10 %");
        }
    }

    return bad;
}


int
fairness_table(void)
{
    static const set_up_t set_ups[] = {
        {"two clients, 90 and 180 a minute, 256 in, 256 out", load_two, 2, 1, 0,
            3},
        {"64 in, 512 out against 512 in, 64 out", load_lengths, 2, 0, 0, 3},
        {"27 clients, 210 a minute, ShareGPT lengths to 1,024", load_many,
            TENANTS, 1, 0, 3},
        {"four clients, 300 and 3 times 100 a minute, 40 beginnings of 512 "
         "tokens, a cache",
            load_alike, 4, 1, 1, 3},
    };
    cost_t cost = cost_a10g(3000);
    size_t i;
    int bad = 0;

    printf("\nc. Fairness; simulated %s,\n   pool %d tokens, ten minutes; "
           "charged as computed, a step's budget 512 tokens\n",
        cost.name, POOL);
    for (i = 0; i < sizeof(set_ups) / sizeof(set_ups[0]); i++) {
        bad += set_up(&set_ups[i]);
    }

    return bad + flood() + share_table();
}
