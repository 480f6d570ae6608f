/*
 * Fair: the tenant that was served least, in weighted tokens over its weight,
 * goes first; inside a tenant first come, first served.
 *
 * DESIGN.  The virtual token counter, charged as the work is done: a prompt
 * token when it is computed and an output token when it is sampled, so that a
 * long prompt that is admitted and then cancelled has cost what it cost.  A
 * tenant that comes back is lifted to a quantum below the least served of those
 * active (sched.c): what it did not use is saved up to that and no more.
 *
 * ISOLATION.  A pool that others have filled would make a tenant that sends
 * little wait for blocks, however much it is behind.  So one whose turn it is
 * takes blocks from those who were served more by half a quantum: their newest
 * sequences, whose loss is least.  Two tenants that both always wait stay
 * closer than that and take nothing from each other by force, or seldom.
 *
 * BOUND.  Between two tenants that both wait, service differs by at most what
 * one can have in work when the other gets its turn: the pool's tokens at the
 * output price, or one prompt, whichever is more, and the quantum.  Blocks are
 * taken first from whom has been served most, or the difference would be paid
 * by who had less.
 */
#include "sched_int.h"

#include <assert.h>

static int
before(const sched_t *s, const tenant_t *a, const tenant_t *b)
{
    assert(a->pick != NONE && b->pick != NONE);

    if (a->service != b->service) {
        return a->service < b->service;
    }

    return s->links[a->pick].key < s->links[b->pick].key;
}


static int
rather(const sched_t *s, uint32_t a, uint32_t b)
{
    uint32_t ta = s->reqs[seq_req(a)].tenant, tb = s->reqs[seq_req(b)].tenant;
    uint32_t ca = key_class(s->links[a].key), cb = key_class(s->links[b].key);

    if (ca == cb && s->tenants[ta].service != s->tenants[tb].service) {
        return s->tenants[ta].service > s->tenants[tb].service;
    }

    return sched_later(s, a, b);
}


static int
claims(const sched_t *s, const tenant_t *a, const tenant_t *b)
{
    return a->service + s->quantum / 2 < b->service;
}


const sched_policy_t sched_fair = {
    "fair", before, rather, claims, sched_stall_free};
