/*
 * Fair: the tenant that was served least, in weighted tokens over its weight,
 * goes first; inside a tenant what the prefix cache has most of, in the bounds
 * of sched_order.c.
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
 * LOCALITY.  A tenant that is ahead of the least served one by `lead` at most
 * may go before it with a request of which the cache has more (DLPM, the
 * longest match first among those whose deficit allows it; here the deficit is
 * what a tenant's counter lacks to the least one and the lead).  So requests
 * that share a prefix across tenants, or that find theirs before another
 * tenant's work has evicted it, go together.  A match is worth nothing against
 * what is further behind, and without matches the order is that of the
 * counters.
 *
 * BOUND.  Two tenants whose requests both wait: when one gets a turn its
 * counter is above the other's by the lead at most.  What it is charged from
 * then on for what was let in is U at most: what fits into the pool at the
 * output price, or one prompt, whichever is more.  So the counters of those who
 * wait differ by U + lead, plus the quantum for one that has just come; and
 * their service over any interval in which both wait by 2 (U + lead), or, from
 * the coming of one on, by the quantum more.  VTC's bound is that with a lead
 * of 0.  The quantum is 8 steps' budget, at most half the pool; the lead is a
 * quarter of it, less than the half from which on blocks are taken by force,
 * so that locality forces nobody out.  tests/sim prints U, lead, bound and
 * what was measured.
 *
 * Blocks are taken first from whom has been served most, or the difference
 * would be paid by who had less.
 */
#include "sched_int.h"

#include <assert.h>

static uint64_t
by_service(const sched_t *s, const tenant_t *t)
{
    (void) s;

    return t->service;
}


/* Tenants whose matches are compared for one piece of work: those that lie
 * first in the order, as it lies, have been served least, nearly. */
#define LOCAL_TENANTS 63


/* The longest match of those that the least served one lets go before it. */
static uint32_t
prefer(sched_t *s)
{
    const turn_t *v = s->order;
    uint32_t at, best = 0;

    for (at = 1; at < s->order_n && at < LOCAL_TENANTS; at++) {
        if (key_class(v[at].key) != key_class(v[0].key)
            || v[at].rank - v[0].rank > s->lead) {
            continue;
        }
        if (v[at].match > v[best].match
            || (v[at].match == v[best].match && best > 0
                && sched_turn_sooner(&v[at], &v[best]))) {
            best = at;
        }
    }

    return best;
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
    "fair", by_service, rather, claims, sched_stall_free, prefer};
