/*
 * Steps as other servers make them, to compare with: same pool, same
 * admission, same order by arrival; only what a step is made of differs.
 *
 *      prefill_first   whole prompts in a step of their own whenever one
 *                      fits, else decodes: vLLM of 2023; the budget caps the
 *                      sum of prompts
 *      orca            decodes and whole prompts in one step, no cap: Orca
 *      hybrid_only     the same with a cap: no chunks
 *      chunk_only      chunks and decodes take turns, never together
 *
 * The first three cut no prompt, so a batch must hold the longest one.  Each
 * makes streams wait for prompts; nobody should serve with them.
 */
#include "sched_int.h"

#include <assert.h>

static uint64_t
by_arrival(const sched_t *s, const tenant_t *t)
{
    (void) s;
    (void) t;

    return 0;
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


const sched_policy_t sched_prefill_first = {
    "prefill_first", by_arrival, sched_later, NULL, prefill_first, NULL};
const sched_policy_t sched_orca = {
    "orca", by_arrival, sched_later, NULL, orca, NULL};
const sched_policy_t sched_hybrid_only = {
    "hybrid_only", by_arrival, sched_later, NULL, hybrid_only, NULL};
const sched_policy_t sched_chunk_only = {
    "chunk_only", by_arrival, sched_later, NULL, chunk_only, NULL};


int
sched_policy_whole(const sched_policy_t *p)
{
    assert(p != NULL);

    return p == &sched_prefill_first || p == &sched_orca
           || p == &sched_hybrid_only;
}
