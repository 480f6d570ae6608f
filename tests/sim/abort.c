/*
 * A client that leaves at each stage of its request: brought about by
 * construction, under every variant.
 *
 * DESIGN.  A scene is a few requests and a pool for which one of them, the
 * target, must come to the stage; it is ended there, and the rest must come to
 * its end.  Every block is looked at after each step and after the abort
 * (run.c), and at the end none may be anybody's.  A scene whose target never
 * came to its stage has shown nothing, and that fails too.
 *
 * The oldest request that has begun is safe, so it is never the one to lose
 * its seat or its blocks.  A request of a higher class does not wait until a
 * lower one's chunks leave room, so it finds a leader at once.
 */
#include "stage.h"
#include "tables.h"
#include "trouble.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    BT = 16,
    BUDGET = 32,
    CONTEXT = 512,
    PARTS = 4,
    LARGE = 2048,
    SPARE = 3
};

typedef struct {
    uint32_t at_ms, class, prompt, output;
} part_t;

typedef struct {
    stage_t stage;
    uint32_t target; /* of the parts */
    uint32_t rows;
    uint32_t tokens; /* of the pool */
    int dry;         /* does the target's client stop reading? */
    int cache;       /* must there be one? Then prompts begin alike */
    part_t parts[PARTS];
} scene_t;

static const scene_t scenes[] = {
    {STAGE_QUEUED, 1, 1, LARGE, 0, 0, {{0, 1, 40, 20}, {0, 1, 40, 20}}},
    {STAGE_FOLLOWS, 2, 4, LARGE, 0, 1,
        {{0, 2, 1, 90}, {20, 1, 200, 9}, {20, 1, 200, 9}}},
    {STAGE_CHUNKS, 0, 4, LARGE, 0, 0, {{0, 1, 200, 20}, {0, 1, 200, 20}}},
    {STAGE_LEADS, 1, 4, LARGE, 0, 1,
        {{0, 2, 1, 90}, {20, 1, 200, 9}, {20, 1, 200, 9}, {20, 1, 200, 9}}},
    {STAGE_DECODES, 0, 4, LARGE, 0, 0, {{0, 1, 40, 20}, {0, 1, 40, 20}}},
    {STAGE_DRY, 0, 4, LARGE, 1, 0, {{0, 1, 40, 20}, {0, 1, 40, 90}}},
    {STAGE_OUTRANKED, 1, 2, LARGE, 0, 0,
        {{0, 1, 40, 90}, {0, 1, 40, 90}, {40, 0, 40, 9}}},
    {STAGE_PREEMPTED, 1, 4, 310, 0, 0,
        {{0, 1, 16, 45}, {0, 1, 100, 50}, {40, 0, 200, 9}}},
    {STAGE_RESUMES, 1, 4, 310, 0, 0,
        {{0, 1, 16, 45}, {0, 1, 100, 50}, {40, 0, 200, 9}}},
    {STAGE_FETCHES, 1, 4, 310, 0, 0,
        {{0, 1, 16, 90}, {0, 1, 100, 50}, {40, 0, 250, 30}}},
};

#define SCENES (sizeof(scenes) / sizeof(scenes[0]))

_Static_assert(SCENES == STAGE_N, "a scene for each stage");

typedef struct {
    const scene_t *scene;
    uint32_t hits;
} act_t;


void
variant_apply(const variant_t *v, run_cfg_t *c)
{
    c->sched.policy = v->policy;
    c->sched.target_us = v->target_us;
    c->cache = v->cache;
    c->groups = v->groups;
    c->tier = v->tier;
    c->sched.depth = v->depth;
    c->sched.pass_us = v->pass_us;
    c->apart = v->apart;
    memcpy(c->windows, v->windows, sizeof(c->windows));
}


/* After a step: the target goes once it is where it is to go. */
static int
watch_target(run_t *r, void *arg)
{
    act_t *a = arg;
    uint32_t place = run_place(r, a->scene->target);

    if (place == RUN_NONE) {
        return 0;
    }
    if (a->scene->dry && r->items[a->scene->target].tokens == 3) {
        sched_credit(r->s, place, 0);
    }
    if (stage_of(r, place) == a->scene->stage) {
        a->hits++;
        run_abort(r, a->scene->target);
    }

    return 0;
}


/* The pool: what that many tokens need, in sequences as long as the context,
 * and a little for what they are expected to grow. */
static uint32_t
scene_blocks(const scene_t *sc, const run_cfg_t *c)
{
    kv_cfg_t kc = {.block_tokens = BT,
        .context = CONTEXT,
        .step = c->sched.tokens * (1 + c->sched.depth),
        .groups = c->groups > 0 ? c->groups : 1,
        .window = c->windows};
    uint64_t n = sc->tokens / CONTEXT * kv_blocks_for(&kc, CONTEXT);

    n += kv_blocks_for(&kc, sc->tokens % CONTEXT) + SPARE * kc.groups;

    return (uint32_t) n;
}


static void
scene_load(load_t *l, const scene_t *sc)
{
    const part_t *p;
    load_req_t *q;
    uint32_t k;

    for (p = sc->parts; p < sc->parts + PARTS && p->prompt > 0; p++) {
        q = load_add(l, p->prompt, p->output);
        q->at_us = p->at_ms * 1000;
        q->priority = p->class;
        for (k = 0; sc->cache && k < p->prompt / BT; k++) {
            load_hash(l, k);
        }
    }
}


/* Runs a scene; how many times the target was ended where it should be. */
static uint32_t
scene_run(const scene_t *sc, const variant_t *v)
{
    cost_t cost = cost_two(1000, 16, 50, 0.1);
    run_t *r = malloc(sizeof(*r));
    act_t a = {.scene = sc};
    load_t l = {0};
    run_cfg_t c;

    assert(r != NULL);
    scene_load(&l, sc);
    memset(&c, 0, sizeof(c));
    variant_apply(v, &c);
    c.sched.rows = sc->rows;
    c.sched.tokens = v->whole ? CONTEXT : BUDGET + sc->rows;
    c.sched.budget = v->whole ? CONTEXT : BUDGET;
    c.sched.context = CONTEXT;
    c.block_tokens = c.hash_tokens = BT;
    c.blocks = scene_blocks(sc, &c);
    c.cost = &cost;
    c.load = &l;
    c.deep = 1;
    c.watch = watch_target;
    c.arg = &a;
    run_open(r, &c);
    run_all(r);
    assert(r->done_n + r->aborted_n == l.n && r->aborted_n == a.hits);
    run_close(r);
    load_free(&l);
    free(r);

    return a.hits;
}


/* Can the variant come there at all? */
static int
applies(const scene_t *sc, const variant_t *v)
{
    int chunks = sc->stage == STAGE_CHUNKS || sc->stage == STAGE_FOLLOWS
                 || sc->stage == STAGE_LEADS || sc->stage == STAGE_RESUMES;

    /* with a second tier whose copies are good, and then not much is computed
     * again */
    if (sc->stage == STAGE_FETCHES) {
        return v->tier.slots > 0 && v->tier.bad == 0;
    }
    if (sc->stage == STAGE_RESUMES && v->tier.slots > 0) {
        return 0;
    }

    return (v->cache || !sc->cache) && !(v->whole && chunks);
}


int
abort_each(void)
{
    uint32_t hits, runs, k;
    const variant_t *v;
    int bad = 0;

    printf("  %-38s %8s %8s\n", "clients that leave, by construction",
        "variants", "hit");
    for (k = 0; k < SCENES; k++) {
        assert(scenes[k].stage == (stage_t) k);
        hits = runs = 0;
        for (v = variants; v->name != NULL; v++) {
            if (applies(&scenes[k], v)) {
                runs++;
                hits += scene_run(&scenes[k], v);
            }
        }
        printf("  %-38s %8u %8u\n", stage_name((stage_t) k), runs, hits);
        bad += table_expect(runs > 0 && hits == runs,
            "a request was ended at each stage under each variant");
    }

    return bad;
}
