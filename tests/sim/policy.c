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


const sched_policy_t policy_vtc = {
    "vtc", by_counter, sched_later, NULL, sched_stall_free, NULL};
