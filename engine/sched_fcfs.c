/*
 * First come, first served: what arrived first, whoever sent it, gets prompt
 * tokens and blocks first and loses its blocks last.  One tenant that floods
 * delays all others; for an engine that serves one tenant it is the least
 * surprising order.
 */
#include "sched_int.h"

#include <assert.h>

static int
before(const sched_t *s, const tenant_t *a, const tenant_t *b)
{
    assert(a->pick != NONE && b->pick != NONE);

    return s->links[a->pick].key < s->links[b->pick].key;
}


const sched_policy_t sched_fcfs = {
    "fcfs", before, sched_later, NULL, sched_stall_free, NULL};
