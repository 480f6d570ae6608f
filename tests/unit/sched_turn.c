/*
 * Catches a turn given to another tenant than a search of all of them would
 * find: after one that was served, one that has nothing left, or one whose
 * next request is of another class; and turns given when no seat is free.
 */
#include "sched_world.h"

enum { TENANTS = 16, LEN = 8 };

typedef struct {
    uint64_t service[TENANTS];
    int gone[REQS]; /* has had its turn */
} model_t;

static uint32_t seed;


static uint32_t
below(uint32_t n)
{
    seed = seed * 1664525u + 1013904223u;

    return (uint32_t) ((uint64_t) seed * n >> 32);
}


/* Is it the turn of request a rather than b's?  Both are their tenants' next,
 * and the lower number came first. */
static int
goes_first(const world_t *w, const model_t *m, uint32_t a, uint32_t b)
{
    const req_t *x = &w->reqs[a], *y = &w->reqs[b];

    if (x->priority != y->priority) {
        return x->priority < y->priority;
    }
    if (m->service[x->tenant] != m->service[y->tenant]) {
        return m->service[x->tenant] < m->service[y->tenant];
    }

    return a < b;
}


/* Of tenant t the first of its highest class; REQS: none is left. */
static uint32_t
next_of(const world_t *w, const model_t *m, uint32_t t)
{
    uint32_t i, best = REQS;

    for (i = 0; i < REQS; i++) {
        if (!m->gone[i] && w->reqs[i].tenant == t
            && (best == REQS || w->reqs[i].priority < w->reqs[best].priority)) {
            best = i;
        }
    }

    return best;
}


/* The request whose turn it is, which is charged. */
static uint32_t
expect(const world_t *w, model_t *m)
{
    uint32_t t, i, best = REQS;
    const req_t *r;

    for (t = 0; t < TENANTS; t++) {
        i = next_of(w, m, t);
        if (i < REQS && (best == REQS || goes_first(w, m, i, best))) {
            best = i;
        }
    }

    if (best < REQS) {
        r = &w->reqs[best];
        m->service[r->tenant] +=
            (uint64_t) LEN * SCHED_COST_IN * SCHED_SCALE / r->weight;
        m->gone[best] = 1;
    }

    return best;
}


/* Steps with that many seats and room for five prompts of as many. */
static void
run(uint32_t seats, uint32_t classes)
{
    world_t *w = world_open(seats, 5 * LEN, 64, 512);
    uint32_t i, n, most = seats < 5 ? seats : 5, done = 0;
    model_t m;
    req_t *r;

    memset(&m, 0, sizeof(m));
    for (i = 0; i < REQS; i++) {
        r = make(w, i, LEN, 1);
        r->tenant = below(TENANTS);
        r->priority = below(classes);
        r->weight = 1 + r->tenant % 3;
        assert_int_equal(sched_add(w->s, i, r), 0);
    }

    while (done < REQS) {
        for (i = 0; i < TENANTS; i++) {
            m.service[i] = sched_service(w->s, i);
        }
        plan(w);

        n = REQS - done < most ? REQS - done : most;
        assert_int_equal(w->b.rows_n, n);
        for (i = 0; i < n; i++) {
            assert_int_equal(w->b.rows[i].seq, expect(w, &m) * LLM_CHOICES_MAX);
        }
        commit(w);
        done += (uint32_t) reap(w);
    }
    world_close(w);
}


static void
test_turns(void **state)
{
    uint32_t i;

    (void) state;
    for (seed = i = 0; i < 20; i++) {
        run(8, 1 + i % 3);
    }
}


static void
test_last_seat(void **state)
{
    uint32_t i;

    (void) state;
    for (seed = 7, i = 0; i < 20; i++) {
        run(1 + i % 4, 1 + i % 3);
    }
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_turns),
        cmocka_unit_test(test_last_seat),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
