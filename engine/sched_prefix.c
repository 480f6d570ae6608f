/*
 * Prefix: of all that waits the longest match in the prefix cache goes first,
 * whoever sent it; for an engine that serves one tenant, or several that need
 * no protection from each other.
 *
 * What has begun goes before what has not, so that few prompts lie about half
 * computed.  Nobody is passed by who came much later (sched_order.c), so each
 * request starts after those that came before it and a bounded number of
 * others; one tenant that floods delays all others, as under fcfs.
 */
#include "sched_int.h"

#include <assert.h>

static uint64_t
by_match(const sched_t *s, const tenant_t *t)
{
    uint64_t waits = t->pick_kind == PICK_WAIT;

    (void) s;

    return waits << 32 | (UINT32_MAX - sched_order_match(t));
}


/* The place of the tenant that has the oldest request waiting, of those whose
 * picks are of that class and wait. */
static uint32_t
oldest(const sched_t *s, uint32_t class)
{
    const tenant_t *t;
    uint32_t at, best = NONE;

    for (at = 0; at < s->order_n; at++) {
        t = &s->tenants[s->order[at].tenant];
        if (t->pick_kind == PICK_WAIT
            && key_class(s->links[t->pick].key) == class
            && (best == NONE
                || t->first_key
                       < s->tenants[s->order[best].tenant].first_key)) {
            best = at;
        }
    }
    assert(best != NONE);

    return best;
}


/* The first, unless the oldest may not be passed by it: then that one's. */
static uint32_t
prefer(sched_t *s)
{
    const tenant_t *first = &s->tenants[s->order[0].tenant];
    uint32_t class = key_class(s->links[first->pick].key);

    if (first->pick_kind != PICK_WAIT || s->order_n == 1) {
        return 0;
    }
    if (s->oldest == NONE) {
        s->oldest = s->order[oldest(s, class)].tenant;
    }

    return sched_order_passes(s, first, &s->tenants[s->oldest])
               ? 0
               : oldest(s, class);
}


const sched_policy_t sched_prefix = {
    "prefix", by_match, sched_later, NULL, sched_stall_free, prefer};
