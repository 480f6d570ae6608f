/*
 * The scheduler's tenants: found by name, known while they have requests and as
 * long after as there is room.
 *
 * DESIGN.  There are twice as many entries as requests, so that one whose
 * tenant has none can always be found for a new name.  It is that of the least
 * served, who would be lifted anyway when it comes back, and the idle ones
 * stand in a heap by service, for whose sake adding a request looks at a few
 * entries and not at all of them:
 *
 *      buckets   name -> entry -> entry      chains by name
 *      active    those with requests, in no order
 *      idle      those without               heap: the least served first
 *
 * An entry's `at` is its place in one of the two.
 *
 * Owned and called by the scheduler's thread.
 */
#include "sched_int.h"
#include "mem.h"

#include <assert.h>
#include <string.h>


/* The least power of two that is not below n. */
static uint32_t
power(uint32_t n)
{
    uint32_t p = 16;

    while (p < n) {
        p *= 2;
    }

    return p;
}


int
sched_tenants_open(sched_t *s)
{
    size_t n = 2 * (size_t) s->c.reqs;
    uint32_t buckets = power((uint32_t) n);

    s->tenants = mem_zero(n, sizeof(tenant_t));
    s->guesses = mem_zero(n, sizeof(sched_guess_t));
    s->active = mem_zero(s->c.reqs, sizeof(uint32_t));
    s->idle = mem_zero(n, sizeof(uint32_t));
    s->tenant_buckets = mem_zero(buckets, sizeof(uint32_t));
    if (s->tenants == NULL || s->guesses == NULL || s->active == NULL
        || s->idle == NULL || s->tenant_buckets == NULL) {
        return -1;
    }

    s->tenant_mask = buckets - 1;
    memset(s->tenant_buckets, 255, buckets * sizeof(uint32_t));

    return 0;
}


void
sched_tenants_close(sched_t *s)
{
    mem_free(s->tenants);
    mem_free(s->guesses);
    mem_free(s->active);
    mem_free(s->idle);
    mem_free(s->tenant_buckets);
}


/* --- those without requests ---------------------------------------------- */

static int
served_less(const sched_t *s, uint32_t a, uint32_t b)
{
    uint64_t x = s->tenants[a].service, y = s->tenants[b].service;

    return x != y ? x < y : a < b;
}


static void
idle_set(sched_t *s, uint32_t at, uint32_t i)
{
    s->idle[at] = i;
    s->tenants[i].at = at;
}


/* Moves the one at that place to where it belongs. */
static void
idle_sift(sched_t *s, uint32_t at)
{
    uint32_t *v = s->idle, i = v[at], kid;

    assert(at < s->idle_n);

    while (at > 0 && served_less(s, i, v[(at - 1) / 2])) {
        idle_set(s, at, v[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    while ((kid = 2 * at + 1) < s->idle_n) {
        if (kid + 1 < s->idle_n && served_less(s, v[kid + 1], v[kid])) {
            kid++;
        }
        if (!served_less(s, v[kid], i)) {
            break;
        }
        idle_set(s, at, v[kid]);
        at = kid;
    }

    idle_set(s, at, i);
}


static void
idle_add(sched_t *s, uint32_t i)
{
    assert(s->idle_n < 2 * s->c.reqs && s->tenants[i].live == 0);

    idle_set(s, s->idle_n++, i);
    idle_sift(s, s->tenants[i].at);
}


static void
idle_remove(sched_t *s, uint32_t i)
{
    uint32_t at = s->tenants[i].at, last;

    assert(at < s->idle_n && s->idle[at] == i);

    last = s->idle[--s->idle_n];
    if (last != i) {
        idle_set(s, at, last);
        idle_sift(s, at);
    }
}


/* --- by name ------------------------------------------------------------- */

static uint32_t *
bucket(const sched_t *s, uint32_t name)
{
    return &s->tenant_buckets[name * 2654435761u & s->tenant_mask];
}


static uint32_t
find(const sched_t *s, uint32_t name)
{
    uint32_t i = *bucket(s, name);

    while (i != NONE && s->tenants[i].name != name) {
        i = s->tenants[i].next_name;
    }

    return i;
}


const tenant_t *
sched_tenant_find(const sched_t *s, uint32_t name)
{
    uint32_t i = find(s, name);

    return i == NONE ? NULL : &s->tenants[i];
}


/* The entry of who is forgotten. */
static uint32_t
forget(sched_t *s)
{
    uint32_t i = s->idle[0], *link;

    assert(s->idle_n > 0 && s->tenants[i].live == 0);

    idle_remove(s, i);
    for (link = bucket(s, s->tenants[i].name); *link != i;
         link = &s->tenants[*link].next_name) {
        assert(*link != NONE);
    }
    *link = s->tenants[i].next_name;

    return i;
}


uint32_t
sched_tenant_get(sched_t *s, uint32_t name)
{
    uint32_t i = find(s, name), *head = bucket(s, name);
    tenant_t *t;

    if (i != NONE) {
        return i;
    }

    i = s->tenants_n < 2 * s->c.reqs ? s->tenants_n++ : forget(s);
    t = &s->tenants[i];
    memset(t, 0, sizeof(*t));
    memset(&s->guesses[i], 0, sizeof(s->guesses[i]));
    t->name = name;
    t->todo = NONE;
    t->next_name = *head;
    *head = i;
    list_init(&t->wait);
    list_init(&t->ready);
    idle_add(s, i);

    return i;
}


/* --- service ------------------------------------------------------------- */

void
sched_tenant_lift(sched_t *s, tenant_t *t)
{
    uint64_t least = UINT64_MAX;
    const tenant_t *o;
    uint32_t i;

    for (i = 0; i < s->active_n; i++) {
        o = &s->tenants[s->active[i]];
        if (o != t && o->live > o->dry && o->service < least) {
            least = o->service;
        }
    }

    if (least == UINT64_MAX) {
        least = s->left_service;
    }

    /* it never goes back, or each newcomer would be ahead of the last */
    if (s->vtime < least) {
        s->vtime = least;
    }
    assert(s->vtime >= s->quantum);
    if (t->service < s->vtime - s->quantum) {
        t->service = s->vtime - s->quantum;
    }
}


void
sched_tenant_enter(sched_t *s, uint32_t i)
{
    tenant_t *t = &s->tenants[i];

    if (t->live == 0) {
        idle_remove(s, i);
    }
    if (t->live == t->dry) {
        sched_tenant_lift(s, t);
    }

    if (t->live++ == 0) {
        assert(s->active_n < s->c.reqs);
        t->at = s->active_n;
        s->active[s->active_n++] = i;
    }
}


void
sched_tenant_leave(sched_t *s, uint32_t i)
{
    tenant_t *t = &s->tenants[i];
    uint32_t last;

    assert(t->live > 0 && t->dry <= t->live - 1);

    if (--t->live > 0) {
        return;
    }

    assert(t->wait.head == NONE && t->ready.head == NONE);
    assert(s->active[t->at] == i);

    last = s->active[--s->active_n];
    s->active[t->at] = last;
    s->tenants[last].at = t->at;
    idle_add(s, i);

    if (s->left_service < t->service) {
        s->left_service = t->service;
    }
}
