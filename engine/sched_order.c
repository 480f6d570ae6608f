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
 * if that place is gone and nothing has.  In each plan some of those that wait
 * are looked at: those first that never were, then those that were longest ago;
 * and only those that could be next, so many of each queue.  What is remembered
 * may be wrong by then, and decides about order only: the match itself is made
 * when the request is let in, and before it is taken it is looked at again, for
 * what was evicted.
 *
 * BEST.  A tenant's queue is walked once; from then on the best of it are known
 * and kept so by what happens: a request comes or goes, a look finds something
 * else, credit is gone or back, a leader has computed what was waited for.
 *
 *      queue   [ first ............. edge ...... ]    before the edge: looked
 *      best    [ v0 v1 ... ]                          over; v outrank the rest
 *
 * A list of SCHED_BEST is as many as that; if all of them are gone and there
 * were more, the queue is walked again.
 *
 * Of models with windows only the blocks of the first group without one are
 * looked at; then a match may be shorter than it seemed.
 */
#include "sched_int.h"

#include <assert.h>
#include <string.h>

/* Requests that are looked at in one plan, of those waiting. */
#define LOOKS 32

/* So many of a queue are looked over at most: those behind them wait. */
#define OVER_MAX 2048

/* What a look costs besides: memory that nobody has touched lately. */
#define LOOK_COST 4

/* For those that are about to be taken; and how many of them in a plan turn
 * out to be worth less before one is taken as it is. */
#define CONFIRM_STEPS 24
#define CONFIRMS      32


/* Are matches of who waits asked for at all? */
static int
matters(const sched_t *s)
{
    return s->policy->prefer != NULL && s->c.pass_us > 0;
}


/* --- one's best ---------------------------------------------------------- */

/* May one that came then with that key go before one that came first? */
static int
passes(const sched_t *s, uint64_t key, uint64_t us, uint64_t first_key,
    uint64_t first_us)
{
    return key - first_key <= (uint64_t) SCHED_PASS_REQS << 4
           && (us <= first_us || us - first_us <= s->c.pass_us);
}


/* May it go before the first of b, which came before it? */
static int
in_reach(const sched_t *s, const best_t *b, uint32_t req)
{
    const look_t *l = &s->looks[req];

    return l->key <= b->first_key
           || passes(s, l->key, l->arrival_us, b->first_key, b->first_us);
}


/* Does a go before b?  Of equal ones the older does. */
static int
outranks(const sched_t *s, uint32_t a, uint32_t b)
{
    const look_t *x = &s->looks[a], *y = &s->looks[b];

    return x->match != y->match ? x->match > y->match : x->key < y->key;
}


/* Takes request req out of the best, if it is one of them. */
static void
best_remove(best_t *b, uint32_t req)
{
    uint32_t i = 0;

    while (i < b->n && b->v[i] != req) {
        i++;
    }
    if (i < b->n) {
        b->n--;
        memmove(b->v + i, b->v + i + 1, (b->n - i) * sizeof(b->v[0]));
    }
}


/* Puts a request that is not there among the best, if it belongs there as far
 * as is known: those that are not there rank below the last of them. */
static void
best_insert(const sched_t *s, best_t *b, uint32_t req)
{
    uint32_t i = b->n;

    if (!in_reach(s, b, req)) {
        b->missed = 1;
        return;
    }
    if (b->n == 0 ? b->more : !outranks(s, req, b->v[b->n - 1])) {
        if (b->more || b->n == SCHED_BEST) {
            b->more = 1;
            return;
        }
    } else if (b->n == SCHED_BEST) {
        b->more = 1;
        i = --b->n;
    }

    for (; i > 0 && outranks(s, req, b->v[i - 1]); i--) {
        b->v[i] = b->v[i - 1];
    }
    b->v[i] = req;
    b->n++;
}


/* Has the request been looked over for b? */
static int
before_edge(const sched_t *s, const best_t *b, uint32_t req)
{
    return b->edge == NONE || s->looks[req].key < s->looks[b->edge].key;
}


/* The request will be looked at. */
static void
to_look(sched_t *s, uint32_t req)
{
    if (s->looks[req].list == LOOK_NONE) {
        s->looks[req].list = LOOK_FRESH;
        list_append(&s->look_lists[LOOK_FRESH], s->look_links, req);
    }
}


/* It counts as looked over for b. */
static void
best_over(sched_t *s, best_t *b, uint32_t req)
{
    b->over++;
    to_look(s, req);
    if (s->looks[req].may) {
        best_insert(s, b, req);
    }
}


/* Looks over those behind the edge, as far as they may pass the first. */
static void
best_extend(sched_t *s, best_t *b)
{
    while (b->edge != NONE && b->over < OVER_MAX && in_reach(s, b, b->edge)) {
        best_over(s, b, b->edge);
        b->edge = s->wait_links[b->edge].next;
    }
}


/* From request req on the first that could start becomes the first. */
static void
best_first(const sched_t *s, best_t *b, uint32_t req)
{
    while (req != NONE
           && (!s->looks[req].may
               || key_class(s->wait_links[req].key) < b->from)) {
        req = s->wait_links[req].next;
    }

    b->first = req;
    if (req != NONE) {
        b->first_key = s->looks[req].key;
        b->first_us = s->looks[req].arrival_us;
    }
}


/* The first is gone; if others could not pass it that may pass the next one,
 * all is to be looked over again. */
static void
best_next_first(sched_t *s, best_t *b)
{
    best_first(s, b, s->wait_links[b->first].next);

    if (b->first == NONE || b->missed) {
        b->valid = 0;
    } else {
        best_extend(s, b);
    }
}


/* One walk of the queue. */
static void
best_collect(sched_t *s, const tenant_t *t, best_t *b, uint32_t from)
{
    b->from = from;
    b->n = b->more = b->missed = b->over = 0;
    b->valid = 1;
    best_first(s, b, t->wait.head);
    b->start_key = b->first_key;
    b->edge = b->first;
    if (b->first != NONE) {
        best_extend(s, b);
    }
}


/* --- what happens -------------------------------------------------------- */

enum { CAME, GOES, CHANGED };

/* Something happens to a request of the tenant that b is about. */
static void
best_hears(sched_t *s, best_t *b, uint32_t req, int what)
{
    const look_t *l = &s->looks[req];
    int before;

    if (!b->valid || key_class(l->key) < b->from) {
        return;
    }
    if (what == CAME && b->edge == NONE && l->key > b->first_key
        && (b->over == OVER_MAX || !in_reach(s, b, req))) {
        b->edge = req;
    }
    if (b->first == NONE || (l->may && what != GOES && l->key < b->first_key)) {
        b->valid = 0; /* it is the first */
        return;
    }

    before = l->key >= b->start_key && before_edge(s, b, req);
    best_remove(b, req);
    if (what == CAME && before) {
        best_over(s, b, req);
    } else if (what == CHANGED && l->may && before) {
        best_insert(s, b, req);
    } else if (what == GOES && b->edge == req) {
        b->edge = s->wait_links[req].next;
    } else if (what == GOES) {
        b->over -= (uint32_t) before;
    }
    if (b->first == req && (what == GOES || !l->may)) {
        best_next_first(s, b);
    } else if (what == GOES) {
        best_extend(s, b);
    }
}


static void
hear(sched_t *s, uint32_t req, int what)
{
    tenant_t *t = &s->tenants[s->reqs[req].tenant];

    t->next_ok = 0;
    best_hears(s, &t->best[0], req, what);
    best_hears(s, &t->best[1], req, what);
}


/* Could it start, but for its tenant's limit? */
static int
may(const sched_t *s, uint32_t req)
{
    return s->reqs[req].credit
           && !seq_follows(seq_at(s, (size_t) req * LLM_CHOICES_MAX));
}


void
sched_order_came(sched_t *s, uint32_t req)
{
    const req_t *r = s->reqs[req].r;
    look_t *l = &s->looks[req];

    memset(l, 0, sizeof(*l));
    l->key = s->wait_links[req].key;
    l->arrival_us = r->arrival_us;
    l->may = (uint8_t) may(s, req);
    l->waits = 1;
    l->list = LOOK_NONE;
    if (matters(s)) {
        sched_cache_to_look(s, req * LLM_CHOICES_MAX, l);
        if (s->tenants[s->reqs[req].tenant].waiting <= OVER_MAX) {
            to_look(s, req); /* it may be next in the very next plan */
        }
    }
    hear(s, req, CAME);
}


void
sched_order_goes(sched_t *s, uint32_t req)
{
    look_t *l = &s->looks[req];

    assert(l->waits);

    hear(s, req, GOES);
    l->waits = 0;
    if (l->list != LOOK_NONE) {
        list_remove(&s->look_lists[l->list], s->look_links, req);
        l->list = LOOK_NONE;
    }
}


void
sched_order_may(sched_t *s, uint32_t req)
{
    look_t *l = &s->looks[req];

    if (l->waits && l->may != may(s, req)) {
        l->may = !l->may;
        hear(s, req, CHANGED);
    }
}


/* --- looks --------------------------------------------------------------- */

/* Looks what the cache has of a request, which says so if that is news. */
static void
look(sched_t *s, uint32_t req, uint32_t *steps)
{
    look_t *l = &s->looks[req];
    uint32_t match;

    *steps = *steps > LOOK_COST ? *steps - LOOK_COST : 1;
    l->plan = s->plans;
    match = kv_look(s->kv, l->space, l->tokens, l->most, &l->spot, steps);
    if (match != l->match) {
        l->match = match;
        hear(s, req, CHANGED);
    }
}


/* What the looks after that at req need is to be on its way from memory. */
static void
looks_fetch(const sched_t *s, uint32_t req)
{
    uint32_t next = s->look_links[req].next;
    const look_t *l;

    if (next == NONE) {
        return;
    }
    l = &s->looks[next];
    kv_look_fetch(s->kv, l->tokens, &l->spot);

    next = s->look_links[next].next;
    if (next != NONE) {
        __builtin_prefetch(&s->looks[next], 1);
        __builtin_prefetch(&s->look_links[next], 1);
    }
}


void
sched_order_looks(sched_t *s)
{
    uint32_t n, req, from, steps = SCHED_LOOK_STEPS;

    s->confirms = CONFIRMS;
    if (!matters(s) || !kv_caches(s->kv)) {
        return;
    }

    for (n = 0; n < LOOKS && steps > LOOK_COST; n++) {
        from = s->look_lists[LOOK_FRESH].head != NONE ? LOOK_FRESH : LOOK_AGED;
        req = s->look_lists[from].head;
        if (req == NONE || s->looks[req].plan == s->plans) {
            break; /* all of them have been looked at */
        }
        looks_fetch(s, req);
        look(s, req, &steps);
        if (steps > 0) { /* else it goes on from there */
            list_remove(&s->look_lists[from], s->look_links, req);
            list_append(&s->look_lists[LOOK_AGED], s->look_links, req);
            s->looks[req].list = LOOK_AGED;
        }
    }
}


int
sched_order_holds(sched_t *s, const tenant_t *t)
{
    uint32_t req = seq_req(t->pick), match, steps = CONFIRM_STEPS;

    if (t->pick_kind != PICK_WAIT || !matters(s) || s->plain
        || s->looks[req].plan == s->plans || s->confirms == 0) {
        return 1;
    }

    match = s->looks[req].match;
    look(s, req, &steps);
    if (s->looks[req].match >= match) {
        return 1;
    }
    s->confirms--;

    return 0;
}


/* --- picks --------------------------------------------------------------- */

uint32_t
sched_order_pick(sched_t *s, tenant_t *t, uint32_t from)
{
    best_t *b = &t->best[from > 0];
    best_t plain = {.from = from};

    if (!matters(s) || s->plain) {
        best_first(s, &plain, t->wait.head);
        b = &plain;
    } else if (!b->valid || b->from != from || (b->n == 0 && b->more)) {
        best_collect(s, t, b, from);
    }

    t->first_key = b->first_key;
    t->first_us = b->first_us;
    assert(b->first == NONE || b->n > 0 || b == &plain);

    return b == &plain || b->first == NONE ? b->first : b->v[0];
}


int
sched_order_passes(const sched_t *s, const tenant_t *t, const tenant_t *o)
{
    const look_t *l = &s->looks[seq_req(t->pick)];

    assert(t->pick_kind == PICK_WAIT && o->pick_kind == PICK_WAIT);

    return l->key <= o->first_key
           || passes(s, l->key, l->arrival_us, o->first_key, o->first_us);
}


/* --- for tests ----------------------------------------------------------- */

/* The best of t's queue are those of it that could be. */
static void
check_best(const sched_t *s, const tenant_t *t, const best_t *b)
{
    uint32_t req, i, in = 0, over = 0, first = NONE;

    for (req = t->wait.head; req != NONE; req = s->wait_links[req].next) {
        assert(s->looks[req].waits && s->looks[req].may == may(s, req));
        if (!b->valid || key_class(s->looks[req].key) < b->from) {
            continue;
        }
        over += s->looks[req].key >= b->start_key && before_edge(s, b, req);
        if (!s->looks[req].may) {
            continue;
        }
        first = first == NONE ? req : first;
        for (i = 0; i < b->n && b->v[i] != req; i++) { /* is it one? */
        }
        if (i < b->n) {
            in++;
            assert(before_edge(s, b, req) && in_reach(s, b, req));
        } else if (before_edge(s, b, req) && in_reach(s, b, req)) {
            assert(b->more);
            assert(b->n == 0 || outranks(s, b->v[b->n - 1], req));
        }
    }

    if (b->valid) {
        assert(first == b->first && in == b->n);
        assert(first == NONE || over == b->over);
        assert(first == NONE || b->n > 0 || b->more);
        for (i = 1; i < b->n; i++) {
            assert(outranks(s, b->v[i - 1], b->v[i]));
        }
    }
}


void
sched_order_check(const sched_t *s)
{
    const tenant_t *t;
    uint32_t i;

    for (i = 0; i < s->active_n; i++) {
        t = &s->tenants[s->active[i]];
        check_best(s, t, &t->best[0]);
        check_best(s, t, &t->best[1]);
    }
}
