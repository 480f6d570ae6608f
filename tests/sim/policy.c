/*
 * Policies to compare with: see policy.h.
 */
#include "policy.h"
#include "sched_int.h"

#include <assert.h>

/* A tenant's counter with what its prompts in work have still to be charged. */
static uint64_t
vtc_counter(const sched_t *s, const tenant_t *t)
{
    uint64_t n = t->service;
    uint32_t i, id;

    for (i = 0; i < s->run_n; i++) {
        id = s->run[i];
        if (&s->tenants[s->reqs[seq_req(id)].tenant] == t
            && seq_at(s, id)->charged < seq_at(s, id)->prompt_n) {
            n += (uint64_t) (seq_at(s, id)->prompt_n - seq_at(s, id)->charged)
                 * SCHED_COST_IN * SCHED_SCALE / s->reqs[seq_req(id)].r->weight;
        }
    }

    return n;
}


const sched_policy_t policy_vtc = {
    "vtc", vtc_counter, sched_later, NULL, sched_stall_free, NULL};
