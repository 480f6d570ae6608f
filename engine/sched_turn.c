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
 * What the order is by lies in the heap itself, so that building it and going
 * through it touches no tenant.
 *
 * The order is total, as the policy's is, so that a heap gives the same turns
 * as a search of all would.  A policy may prefer one further behind for what
 * the prefix cache has of its pick.
 */
#include "sched_int.h"

#include <assert.h>

/* Moves what is at that place down to where it belongs. */
static void
sift(sched_t *s, uint32_t at)
{
    turn_t *v = s->order, t = v[at];
    uint32_t kid;

    assert(at < s->order_n);

    while ((kid = 2 * at + 1) < s->order_n) {
        if (kid + 1 < s->order_n && sched_turn_sooner(&v[kid + 1], &v[kid])) {
            kid++;
        }
        if (!sched_turn_sooner(&v[kid], &t)) {
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
    turn_t *v = s->order, t = v[at];
    uint32_t up;

    while (at > 0 && sched_turn_sooner(&t, &v[up = (at - 1) / 2])) {
        v[at] = v[up];
        at = up;
    }

    v[at] = t;
}


/* What its turn is by. */
static turn_t
turn_of(const sched_t *s, const tenant_t *t)
{
    turn_t x;

    assert(t->pick != NONE);

    x.rank = s->policy->rank(s, t);
    x.key = t->pick_kind == PICK_TODO ? s->links[t->pick].key : t->next_key;
    x.tenant = (uint32_t) (t - s->tenants);
    x.match = sched_order_match(t);
    assert(t->pick_kind == PICK_TODO || t->pick == t->next);

    return x;
}


void
sched_turn_none(sched_t *s)
{
    s->oldest = NONE;
    s->order_n = 0;
}


void
sched_turn_add(sched_t *s, const tenant_t *t)
{
    assert(s->order_n < s->c.reqs);

    s->order[s->order_n++] = turn_of(s, t);
}


void
sched_turn_all(sched_t *s)
{
    uint32_t i;

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

    return &s->tenants[s->order[s->turn].tenant];
}


void
sched_turn_again(sched_t *s)
{
    uint32_t at = s->turn;
    const tenant_t *t;

    assert(at < s->order_n);

    t = &s->tenants[s->order[at].tenant];
    if (s->oldest == s->order[at].tenant) {
        s->oldest = NONE;
    }
    if (t->pick == NONE) {
        s->order[at] = s->order[--s->order_n];
    } else {
        s->order[at] = turn_of(s, t);
    }
    if (at < s->order_n) {
        rise(s, at);
        sift(s, at);
    }
}
