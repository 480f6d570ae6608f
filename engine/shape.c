/*
 * How large everything is: what a step may hold, how many KV blocks there are,
 * and how long a sequence may be, from the options and the model.
 *
 * DESIGN.  All that is sized at start follows from these numbers, here and in
 * every other process that computes the same model: they must come from
 * options, model and prefixes alone, in one place.
 *
 * The main thread, at start.
 */
#include "shape.h"
#include "log.h"
#include "ranks.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* Outputs of a step beyond one for each row: positions of prompts whose
 * logprobs are asked for, however many rows sample. */
#define PROMPT_OUTS 64

#define KV_CONTEXTS 8 /* contexts' worth of blocks by default */

/* A plan being made. */
typedef struct {
    const opts_t *o;
    const model_t *model;
    const prefix_set_t *prefixes;
    const sched_policy_t *policy;
    forward_cfg_t *s;
    char *err;
    size_t errlen;
} plan_t;


/* The word's type, which the model's heads must fit. */
static int
parse_kv_type(plan_t *e)
{
    static const struct {
        const char *name;
        uint32_t type;
    } types[KN_KV_TYPES] = {
        {"f32", KN_F32}, {"f16", KN_F16}, {"bf16", KN_BF16}, {"q8_0", KN_Q8_0}};
    uint32_t i;

    for (i = 0; i < KN_KV_TYPES; i++) {
        if (strcmp(e->o->kv_type, types[i].name) == 0) {
            e->s->kv_type = types[i].type;
            return forward_kv_fits(e->model, types[i].type, e->err, e->errlen);
        }
    }

    snprintf(e->err, e->errlen,
        "kv_type must be f32, f16, bf16 or q8_0, found \"%s\"", e->o->kv_type);

    return -1;
}


/* The second arena's blocks, if there is a cache that has a use for them. */
static int
plan_host(plan_t *e)
{
    uint64_t bytes = ranks_block_bytes(e->model, e->s), blocks;

    assert(bytes > 0);
    if (e->o->kv_host_memory == 0) {
        return 0;
    }
    if (strcmp(e->o->prefix_cache, "on") != 0 || e->s->groups.n > 1) {
        log_line(LOG_WARN, "kv_host_memory is not used: %s",
            e->s->groups.n > 1 ? "layers of this model have windows"
                               : "there is no prefix cache");
        return 0;
    }

    blocks = (uint64_t) e->o->kv_host_memory / bytes;
    e->s->host_blocks = blocks < 1u << 30 ? (uint32_t) blocks : 1u << 30;
    if (blocks == 0) {
        snprintf(e->err, e->errlen,
            "kv_host_memory of %lld bytes is too small: a block takes %llu",
            (long long) e->o->kv_host_memory, (unsigned long long) bytes);
        return -1;
    }

    return 0;
}


/*
 * How many blocks the pinned prefixes take, at most; 0, or -1 if they cannot
 * be pinned.
 */
static int
plan_pins(plan_t *e, const kv_cfg_t *kc, uint64_t *pins)
{
    const prefix_t *p;
    uint32_t i, g;

    assert(kc->groups >= 1 && kc->block_tokens > 0);
    *pins = 0;
    if (e->prefixes->n == 0) {
        return 0;
    }

    for (g = 0; g < kc->groups && kc->window[g] > 0; g++) { /* none */
    }
    if (g == kc->groups || strcmp(e->o->prefix_cache, "on") != 0) {
        snprintf(e->err, e->errlen, "prefix_pin: %s",
            g == kc->groups ? "all layers of this model have windows, so it "
                              "has no prefix cache"
                            : "prefix_cache is off");
        return -1;
    }

    for (i = 0; i < e->prefixes->n; i++) {
        p = &e->prefixes->v[i];
        if (p->n < kc->block_tokens) {
            snprintf(e->err, e->errlen,
                "prefix_pin %.200s: expected at least a block of %u tokens "
                "that all prompts begin with, found %u",
                p->path, kc->block_tokens, p->n);
            return -1;
        }
        *pins += kv_pin_blocks(kc, p->n);
    }

    return 0;
}


/* Some of the policies that are there to compare with cut no prompt. */
static int
check_whole(plan_t *e)
{
    int64_t least = (int64_t) e->s->context + e->o->batch_rows;

    if (!sched_policy_whole(e->policy) || e->o->batch_tokens >= least) {
        return 0;
    }

    snprintf(e->err, e->errlen,
        "policy %s needs batch_tokens of at least %lld, context and "
        "batch_rows, found %lld",
        e->o->policy, (long long) least, (long long) e->o->batch_tokens);

    return -1;
}


/*
 * How many blocks, and how long a sequence may be, from the options.  A pool
 * that the user made small shortens the context, unless that was asked for
 * by number: then the two contradict each other.
 */
static int
plan_blocks(plan_t *e)
{
    const opts_t *o = e->o;
    forward_cfg_t *s = e->s;
    uint64_t bytes, want, blocks, pins;
    kv_cfg_t kc;

    s->block_tokens = (uint32_t) o->block_tokens;
    s->context =
        o->context > 0 ? (uint32_t) o->context : model_info(e->model)->context;
    if (s->context > model_info(e->model)->context) {
        log_line(LOG_WARN, "context %u is beyond the %u the model learned",
            s->context, model_info(e->model)->context);
    }

    model_groups(e->model, s->context, &s->groups);
    bytes = ranks_block_bytes(e->model, s);
    forward_kv(s, 1, &kc);
    want = kv_blocks_for(&kc, s->context);
    if (plan_pins(e, &kc, &pins) != 0) {
        return -1;
    }
    blocks = o->kv_memory > 0 ? (uint64_t) o->kv_memory / bytes
                              : KV_CONTEXTS * want + pins;
    if (blocks > UINT32_MAX / 2) {
        blocks = UINT32_MAX / 2;
    }
    if (pins > blocks / 2) {
        snprintf(e->err, e->errlen,
            "prefix_pin: expected prefixes that take at most a half of the %llu"
            " KV blocks, found %llu: they take a kv_memory of %llu bytes",
            (unsigned long long) blocks, (unsigned long long) pins,
            (unsigned long long) (2 * pins * bytes));
        return -1;
    }

    kc.blocks = (uint32_t) (blocks - pins);

    if (kc.blocks < want && (o->context > 0 || kv_longest(&kc) < 2)) {
        snprintf(e->err, e->errlen,
            "kv_memory of %lld bytes is too small: a context of %u tokens "
            "takes %llu bytes%s",
            (long long) o->kv_memory, s->context,
            (unsigned long long) ((want + pins) * bytes),
            pins > 0 ? ", with what is pinned" : "");
        return -1;
    }
    if (kc.blocks < want) {
        s->context = kv_longest(&kc);
        log_line(LOG_WARN, "kv_memory shortens the context to %u tokens",
            s->context);
    }
    if (s->context < 2) {
        snprintf(e->err, e->errlen,
            "context must be at least 2 tokens, found %u", s->context);
        return -1;
    }

    assert(blocks > 0 && kv_blocks_for(&kc, s->context) <= blocks);
    s->blocks = (uint32_t) blocks;

    return 0;
}


int
shape_cache(const opts_t *o, char *err, size_t errlen)
{
    const char *on = o->prefix_cache, *share = o->prefix_share;

    if (strcmp(on, "on") != 0 && strcmp(on, "off") != 0) {
        snprintf(
            err, errlen, "prefix_cache must be on or off, found \"%s\"", on);
        return -1;
    }
    if (strcmp(share, "tenant") != 0 && strcmp(share, "all") != 0) {
        snprintf(err, errlen,
            "prefix_share must be tenant or all, found \"%s\"", share);
        return -1;
    }

    if (strcmp(o->kv_host_copy, "all") != 0
        && strcmp(o->kv_host_copy, "again") != 0) {
        snprintf(err, errlen, "kv_host_copy must be all or again, found \"%s\"",
            o->kv_host_copy);
        return -1;
    }

    return 0;
}


int
shape_plan(forward_cfg_t *s, const shape_from_t *from, char *err, size_t errlen)
{
    plan_t e = {
        from->o, from->model, from->prefixes, from->policy, s, err, errlen};

    assert(from->o->batch_rows > 0 && from->policy != NULL);

    s->rows_max = (uint32_t) from->o->batch_rows;
    s->tokens_max = (uint32_t) from->o->batch_tokens;
    s->depth = (uint32_t) from->o->planning_depth;
    s->outs_max = s->rows_max + PROMPT_OUTS;

    return parse_kv_type(&e) != 0 || shape_cache(e.o, err, errlen) != 0
                   || plan_blocks(&e) != 0 || plan_host(&e) != 0
                   || check_whole(&e) != 0
               ? -1
               : 0;
}
