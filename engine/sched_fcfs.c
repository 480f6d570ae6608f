/*
 * First come, first served: what arrived first, whoever sent it, gets prompt
 * tokens and blocks first and loses its blocks last.  One tenant that floods
 * delays all others; for an engine that serves one tenant it is the least
 * surprising order.
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


const sched_policy_t sched_fcfs = {
    "fcfs", by_arrival, sched_later, NULL, sched_stall_free, NULL};
