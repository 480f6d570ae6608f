/*
 * Policies to compare with: see policy.h.
 */
#include "policy.h"
#include "sched_int.h"

#include <assert.h>

static int
by_arrival(const sched_t *s, const tenant_t *a, const tenant_t *b)
{
    return s->links[a->pick].key < s->links[b->pick].key;
}


static void
prefill_first(sched_t *s, batch_t *b)
{
    sched_pass_prompts(s, b, sched_budget(s), 1);
    if (b->rows_n == 0) {
        sched_pass_ones(s, b);
    }
}


static void
orca(sched_t *s, batch_t *b)
{
    sched_pass_ones(s, b);
    sched_pass_prompts(s, b, UINT32_MAX, 1);
}


static void
hybrid_only(sched_t *s, batch_t *b)
{
    sched_pass_ones(s, b);
    sched_pass_prompts(s, b, sched_budget(s), 1);
}


static void
chunk_only(sched_t *s, batch_t *b)
{
    s->turns ^= 1;
    if (s->turns) {
        sched_pass_prompts(s, b, sched_budget(s), 0);
    }
    if (b->rows_n == 0) {
        sched_pass_ones(s, b);
    }
    if (b->rows_n == 0) {
        sched_pass_prompts(s, b, sched_budget(s), 0);
    }
}


/* A tenant's counter with what its prompts in work have still to be charged. */
static uint64_t
vtc_counter(const sched_t *s, const tenant_t *t)
{
    uint64_t n = t->service;
    uint32_t i, id;

    for (i = 0; i < s->run_n; i++) {
        id = s->run[i];
        if (&s->tenants[s->reqs[seq_req(id)].tenant] == t
            && s->seqs[id].charged < s->seqs[id].prompt_n) {
            n += (uint64_t) (s->seqs[id].prompt_n - s->seqs[id].charged)
                 * SCHED_COST_IN * SCHED_SCALE / s->reqs[seq_req(id)].r->weight;
        }
    }

    return n;
}


static int
by_counter(const sched_t *s, const tenant_t *a, const tenant_t *b)
{
    uint64_t x = vtc_counter(s, a), y = vtc_counter(s, b);

    return x != y ? x < y : by_arrival(s, a, b);
}


const sched_policy_t policy_prefill_first = {
    "prefill_first", by_arrival, sched_later, NULL, prefill_first};
const sched_policy_t policy_orca = {
    "orca", by_arrival, sched_later, NULL, orca};
const sched_policy_t policy_hybrid_only = {
    "hybrid_only", by_arrival, sched_later, NULL, hybrid_only};
const sched_policy_t policy_chunk_only = {
    "chunk_only", by_arrival, sched_later, NULL, chunk_only};
const sched_policy_t policy_vtc = {
    "vtc", by_counter, sched_later, NULL, sched_stall_free};
