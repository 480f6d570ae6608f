/*
 * Who sits, who holds blocks, and who gives them up.
 *
 * DESIGN.  A seated sequence has blocks and a row in every step; one that is
 * held has blocks only.  Blocks are taken from who has no credit first, from
 * anyone; then from the lowest class, and in it from whom the policy says
 * (rather).  The top, the oldest of the highest class that has begun, keeps
 * its own always: so something finishes.  What is taken goes to the prefix
 * cache and, if there is one, to the second tier.
 *
 * Pure, as all of the scheduler.
 */
#include "kv_tier.h"
#include "sched_int.h"

#include <assert.h>
#include <string.h>


/* Where in run the sequences with a higher key begin. */
static uint32_t
run_place(const sched_t *s, uint64_t key)
{
    uint32_t low = 0, high = s->run_n, mid;

    while (low < high) {
        mid = low + (high - low) / 2;
        if (s->links[s->run[mid]].key > key) {
            high = mid;
        } else {
            low = mid + 1;
        }
    }

    return low;
}


static void
run_insert(sched_t *s, uint32_t id)
{
    uint32_t i = run_place(s, s->links[id].key);

    assert(s->run_n < s->seats);

    memmove(s->run + i + 1, s->run + i, (s->run_n - i) * sizeof(uint32_t));
    s->run[i] = id;
    s->run_n++;
    seq_tenant(s, id)->sits++;
}


uint32_t
sched_seated_before(const sched_t *s, uint64_t key)
{
    uint32_t i = run_place(s, key);

    return i == 0 ? NONE : s->run[i - 1];
}


void
sched_seat(sched_t *s, uint32_t id)
{
    sched_seq_detach(s, id);
    sched_seq_state(seq_at(s, id), SCHED_RUNNING);
    run_insert(s, id);
}


void
sched_hold(sched_t *s, uint32_t id)
{
    sched_seq_detach(s, id);
    sched_seq_state(seq_at(s, id), SCHED_HELD);
    list_insert(&s->held, s->links, id);
}


int
sched_may_preempt(sched_t *s, uint32_t id)
{
    if (!seq_flies(seq_at(s, id))) {
        return 1;
    }
    assert(s->steps_n > 0);
    s->blocked = 1;

    return 0;
}


void
sched_preempt(sched_t *s, uint32_t id)
{
    seq_t *q = seq_at(s, id);

    assert(q->state == SCHED_RUNNING || q->state == SCHED_HELD);
    assert(!seq_flies(q) && !q->late);

    sched_seq_detach(s, id);
    sched_seq_state(q, SCHED_WAITING);
    kv_tier_save(s->kv, id);
    (void) kv_release(s->kv, id);
    q->computed = 0;
    q->room = 0;
    q->floor = 0;
    list_insert(&seq_tenant(s, id)->ready, s->links, id);
    seq_tenant(s, id)->next_ok = 0;
    s->preemptions++;
}


int
sched_later(const sched_t *s, uint32_t a, uint32_t b)
{
    return s->links[a].key > s->links[b].key;
}


uint32_t
sched_worse(const sched_t *s, uint32_t a, uint32_t b)
{
    uint32_t ca, cb;

    if (a == NONE || b == NONE) {
        return a == NONE ? b : a;
    }

    ca = key_class(s->links[a].key);
    cb = key_class(s->links[b].key);
    if (ca != cb) {
        return ca > cb ? a : b;
    }

    return s->policy->rather(s, a, b) ? a : b;
}


/* May id have to give way to class `from` - 1?  From 0: to anyone, and then
 * the floor does not keep it. */
static int
yields(const sched_t *s, uint32_t id, uint32_t from)
{
    return id != s->top && key_class(s->links[id].key) >= from
           && (from == 0 || !seq_at(s, id)->floor);
}


uint32_t
sched_worst_seated(const sched_t *s, uint32_t from)
{
    uint32_t i, id, found = NONE;

    for (i = s->run_n; i-- > 0;) {
        id = s->run[i];
        if (key_class(s->links[id].key) < from) {
            break; /* so are all before it */
        }
        if (yields(s, id, from)) {
            found = sched_worse(s, found, id);
        }
    }

    return found;
}


uint32_t
sched_victim(const sched_t *s, uint32_t from)
{
    uint32_t id, found = NONE;

    for (id = s->held.tail; id != NONE; id = s->links[id].prev) {
        if (!s->reqs[seq_req(id)].credit) {
            return id;
        }
        if (yields(s, id, from)) {
            found = sched_worse(s, found, id);
        }
    }

    return sched_worse(s, found, sched_worst_seated(s, from));
}


uint64_t
sched_dry_blocks(const sched_t *s)
{
    uint64_t sum = 0;
    uint32_t id;

    for (id = s->held.head; id != NONE; id = s->links[id].next) {
        if (!s->reqs[seq_req(id)].credit) {
            sum += seq_held(s, id);
        }
    }

    return sum;
}


/*
 * Blocks that come free if sequence id gives way to class `from` - 1, at
 * least.  If all others give way, from 0, all blocks do, whoever shares them.
 */
static uint64_t
worth(const sched_t *s, uint32_t id, uint32_t from)
{
    int dry =
        seq_at(s, id)->state == SCHED_HELD && !s->reqs[seq_req(id)].credit;

    if (id == s->top || (!dry && !yields(s, id, from))) {
        return 0;
    }

    return from == 0 ? seq_held(s, id) : kv_own(s->kv, id);
}


/* Even if all give way but the top: does a copy under way keep blocks from
 * being had that are needed?  It ends soon. */
static int
kept_back(const sched_t *s, uint64_t need)
{
    uint64_t kept = kv_tier_keeps(s->kv);

    if (kept == 0) {
        return 0;
    }
    kept += kv_pinned(s->kv) + (s->top != NONE ? seq_held(s, s->top) : 0);

    return need + kept > kv_total(s->kv);
}


int
sched_take_blocks(sched_t *s, uint64_t need, uint32_t from)
{
    uint64_t have = kv_avail(s->kv);
    uint32_t i, id;

    if (have >= need) {
        return 1;
    }
    if (from == 0 && kept_back(s, need)) {
        return 0;
    }

    for (i = 0; i < s->run_n; i++) {
        have += worth(s, s->run[i], from);
    }
    for (id = s->held.head; id != NONE; id = s->links[id].next) {
        have += worth(s, id, from);
    }
    if (have < need) {
        return 0;
    }

    while (kv_avail(s->kv) < need) {
        id = sched_victim(s, from);
        assert(id != s->top && (id != NONE || s->steps_n > 0));
        if (id == NONE || !sched_may_preempt(s, id)) {
            s->blocked = 1; /* a step in flight keeps the rest */
            return 0;
        }
        sched_preempt(s, id);
        s->pressed = 1;
    }

    return 1;
}
