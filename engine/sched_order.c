/*
 * Which of a tenant's waiting requests starts next: the one of which the prefix
 * cache has most, within bounds.
 *
 * DESIGN.  Requests that begin alike, taken one after the other, find what the
 * first of them computed; in the order in which they came, mixed with others,
 * they find it gone.  The longest match first is the order of a walk through
 * the tree of all that waits, and that is the best there is.
 *
 * BOUND.  Longest first alone would let one whose prefix nobody shares wait for
 * ever.  So a request may go before an earlier one of its class only if it came
 * at most `pass_us` after it, and as one of the next SCHED_PASS_REQS:
 *
 *      waiting, by arrival   x a b c d e f g h i j k l ...
 *                            |<--- may pass x --->|
 *
 * x is the oldest that could start.  Before x then start those that came before
 * it, as many as there are, and of those who came after it at most so many.
 * That is relative to x, not to how long x has waited: a queue that is long
 * everywhere is sorted as well as a short one, and does not turn into first
 * come, first served when all in it have become old.  (Who waits for blocks
 * that another computes does so by its own choice, bounded in sched_cache.c,
 * and holds nobody up meanwhile.)  Under `fair` x is the tenant's own oldest,
 * and between tenants service decides; under `prefix` it is that of all.
 *
 * COST.  To match a thousand waiting prompts in each plan would cost more than
 * the step.  So each request remembers where in the tree its last look ended
 * (radix_look): the next one costs as much as what has come since, and nothing
 * if that place is gone and nothing has.  A plan has so many steps for looks;
 * those longest not looked at come first, each at about the same distance.
 * What is remembered may be wrong by then, and decides about order only: the
 * match itself is made when the request is let in.  One walk of the queue finds
 * the best SCHED_BEST of it, and before one of them is taken it is looked at
 * again, for what was evicted.
 *
 * Of models with windows only the blocks of the first group without one are
 * looked at; then a match may be shorter than it seemed.
 */
#include "sched_int.h"

#include <assert.h>

/* Requests whose turn it is to be looked at, of those waiting, in one plan. */
#define LOOKS 48

/* One walk goes past so many at most: those behind them wait for the next. */
#define WALK_MAX 2048

/* What a look costs besides: memory that nobody has touched lately. */
#define LOOK_COST 4

/* For one that is about to be taken, when the plan has no steps left. */
#define CONFIRM_STEPS 24


/* Could the request start, but for its tenant's limit? */
static int
pickable(sched_t *s, uint32_t req)
{
    return s->reqs[req].credit && !sched_cache_waits(s, req * LLM_CHOICES_MAX);
}


static uint32_t
oldest(sched_t *s, const tenant_t *t, uint32_t from)
{
    uint32_t req = t->wait.head;

    while (req != NONE
           && (key_class(s->wait_links[req].key) < from || !pickable(s, req))) {
        req = s->wait_links[req].next;
    }

    return req;
}


/* May one that came then with that key go before one that came first? */
static int
passes(const sched_t *s, uint64_t key, uint64_t us, uint64_t first_key,
    uint64_t first_us)
{
    return key - first_key <= (uint64_t) SCHED_PASS_REQS << 4
           && (us <= first_us || us - first_us <= s->c.pass_us);
}


/* Looks what the cache has of a request. */
static void
look(sched_t *s, uint32_t req, uint32_t *steps)
{
    look_t *l = &s->looks[req];

    *steps = *steps > LOOK_COST ? *steps - LOOK_COST : 1;
    l->plan = s->plans;
    l->match = sched_cache_look(s, req * LLM_CHOICES_MAX, &l->spot, steps);
}


/* Puts a request among the tenant's best, where it belongs; of equal ones the
 * older goes first. */
static void
rank(const sched_t *s, best_t *b, uint32_t req)
{
    uint32_t i = b->n < SCHED_BEST ? b->n++ : SCHED_BEST - 1;

    for (; i > 0; i--) {
        if (s->looks[b->v[i - 1]].match > s->looks[req].match
            || (s->looks[b->v[i - 1]].match == s->looks[req].match
                && s->wait_links[b->v[i - 1]].key < s->wait_links[req].key)) {
            break;
        }
        b->v[i] = b->v[i - 1];
    }
    b->v[i] = req;
}


/* One walk: the best of those that may pass the oldest. */
static void
collect(sched_t *s, tenant_t *t, uint32_t from)
{
    uint32_t req = oldest(s, t, from);
    uint64_t every = (s->live_n - s->started_n) / LOOKS + 1;
    best_t *b = &t->best;
    uint32_t left = WALK_MAX;
    const look_t *l;

    b->plan = s->plans;
    b->from = from;
    b->n = b->more = 0;
    if (req == NONE) {
        return;
    }
    b->first_key = s->wait_links[req].key;
    b->first_us = s->looks[req].arrival_us;

    for (; req != NONE; req = s->wait_links[req].next) {
        l = &s->looks[req];
        if (left-- == 0) {
            b->more = 1;
            break;
        }
        if (!passes(s, s->wait_links[req].key, l->arrival_us, b->first_key,
                b->first_us)) {
            b->more = 1; /* once the first is gone */
            continue;
        }
        if (s->look_steps > LOOK_COST
            && (l->plan == 0 || s->plans - l->plan >= every)) {
            look(s, req, &s->look_steps);
        }
        if (b->n == SCHED_BEST
            && l->match <= s->looks[b->v[SCHED_BEST - 1]].match) {
            b->more = 1;
        } else if (pickable(s, req)) {
            b->more |= b->n == SCHED_BEST;
            rank(s, b, req);
        }
    }
}


/* Drops the first of the best. */
static void
shift(best_t *b)
{
    uint32_t i;

    assert(b->n > 0);

    b->n--;
    for (i = 0; i < b->n; i++) {
        b->v[i] = b->v[i + 1];
    }
}


/* Is what was best best still?  Else the list has changed. */
static int
confirm(sched_t *s, best_t *b)
{
    uint32_t req = b->v[0], match = s->looks[req].match, steps = CONFIRM_STEPS;

    if (s->looks[req].plan == s->plans) {
        return 1;
    }

    look(s, req, s->look_steps > steps ? &s->look_steps : &steps);
    if (s->looks[req].match >= match) {
        return 1;
    }

    /* there may be better ones than it that are not in the list */
    shift(b);
    if (!b->more || s->look_steps <= CONFIRM_STEPS) {
        rank(s, b, req);
    }

    return 0;
}


uint32_t
sched_order_pick(sched_t *s, tenant_t *t, uint32_t from)
{
    best_t *b = &t->best;
    uint32_t req;

    if (s->policy->prefer == NULL || s->c.pass_us == 0 || s->plain) {
        req = oldest(s, t, from);
        if (req != NONE) {
            b->first_key = s->wait_links[req].key;
            b->first_us = s->looks[req].arrival_us;
        }
        return req;
    }

    if (b->plan != s->plans || b->from != from) {
        collect(s, t, from);
    }
    for (;;) {
        if (b->n == 0) {
            if (!b->more) {
                return NONE;
            }
            collect(s, t, from);
        } else if (s->reqs[b->v[0]].started || !pickable(s, b->v[0])) {
            shift(b);
        } else if (confirm(s, b)) {
            return b->v[0];
        }
    }
}


uint32_t
sched_order_match(const sched_t *s, const tenant_t *t)
{
    assert(t->pick != NONE);

    return t->pick_kind == PICK_WAIT ? s->looks[seq_req(t->pick)].match : 0;
}


int
sched_order_passes(const sched_t *s, const tenant_t *t, const tenant_t *o)
{
    uint32_t req = seq_req(t->pick);

    assert(t->pick_kind == PICK_WAIT && o->pick_kind == PICK_WAIT);

    return s->wait_links[req].key <= o->best.first_key
           || passes(s, s->wait_links[req].key, s->looks[req].arrival_us,
               o->best.first_key, o->best.first_us);
}
