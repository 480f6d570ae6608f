/*
 * Whose turn it is: the active tenants that have a piece of work to do, in the
 * order of their classes and then of the policy.
 *
 * DESIGN.  A plan gives out pieces one by one, and between two of them only
 * the tenant who got the last one has changed: it was charged, and has another
 * pick or none.  So they are an array heap whose first has the turn; a piece
 * costs the logarithm of the tenants, not all of them.
 *
 *      order   [ t3 | t0 t7 | t5 t1 ... ]     before the two below it, each
 *
 * The order is total, as the policy's is, so that a heap gives the same turns
 * as a search of all would.  A policy may prefer one further behind for what
 * the prefix cache has of its pick.
 */
#include "sched_int.h"

#include <assert.h>

/* Does tenant a, by its pick, go before b? */
static int
sooner(const sched_t *s, uint32_t a, uint32_t b)
{
    const tenant_t *x = &s->tenants[a], *y = &s->tenants[b];
    uint32_t cx = key_class(s->links[x->pick].key);
    uint32_t cy = key_class(s->links[y->pick].key);

    return cx != cy ? cx < cy : s->policy->before(s, x, y);
}


/* Moves what is at that place down to where it belongs. */
static void
sift(sched_t *s, uint32_t at)
{
    uint32_t *v = s->order, t = v[at], kid;

    assert(at < s->order_n);

    while ((kid = 2 * at + 1) < s->order_n) {
        if (kid + 1 < s->order_n && sooner(s, v[kid + 1], v[kid])) {
            kid++;
        }
        if (!sooner(s, v[kid], t)) {
            break;
        }
        v[at] = v[kid];
        at = kid;
    }

    v[at] = t;
}


/* Moves it up. */
static void
rise(sched_t *s, uint32_t at)
{
    uint32_t *v = s->order, t = v[at], up;

    while (at > 0 && sooner(s, t, v[up = (at - 1) / 2])) {
        v[at] = v[up];
        at = up;
    }

    v[at] = t;
}


void
sched_turn_all(sched_t *s)
{
    uint32_t i;

    s->oldest = NONE;
    s->order_n = 0;
    for (i = 0; i < s->active_n; i++) {
        if (s->tenants[s->active[i]].pick != NONE) {
            s->order[s->order_n++] = s->active[i];
        }
    }

    for (i = s->order_n / 2; i-- > 0;) {
        sift(s, i);
    }
}


tenant_t *
sched_turn(sched_t *s)
{
    if (s->order_n == 0) {
        return NULL;
    }

    s->turn = s->policy->prefer == NULL || s->plain ? 0 : s->policy->prefer(s);
    assert(s->turn < s->order_n);

    return &s->tenants[s->order[s->turn]];
}


void
sched_turn_again(sched_t *s)
{
    uint32_t at = s->turn;

    assert(at < s->order_n);

    if (s->oldest == s->order[at]) {
        s->oldest = NONE;
    }
    if (s->tenants[s->order[at]].pick == NONE) {
        s->order[at] = s->order[--s->order_n];
    }
    if (at < s->order_n) {
        rise(s, at);
        sift(s, at);
    }
}
