/*
 * Catches a tenant that is not found again while it has requests, one who is
 * forgotten though another, who was served less, could be, and entries that
 * two names have.
 */
#include "sched_int.h"
#include "sched_world.h"

enum { NAMES = 400, ENTRIES = 2 * REQS };

/* Who is known, as a search of all of them would have it. */
typedef struct {
    uint32_t names[ENTRIES];
    uint32_t live[ENTRIES];
    uint32_t n;
} model_t;

static uint32_t seed;


static uint32_t
below(uint32_t n)
{
    seed = seed * 1664525u + 1013904223u;

    return (uint32_t) ((uint64_t) seed * n >> 32);
}


/* The entry of a name; if need be that of the least served without requests. */
static uint32_t
entry(const world_t *w, model_t *m, uint32_t name)
{
    uint32_t i, idle = NONE;
    uint64_t least = 0, service;

    for (i = 0; i < m->n; i++) {
        if (m->names[i] == name) {
            return i;
        }
        service = sched_service(w->s, m->names[i]);
        if (m->live[i] == 0 && (idle == NONE || service < least)) {
            idle = i;
            least = service;
        }
    }

    i = m->n < ENTRIES ? m->n++ : idle;
    m->names[i] = name;
    m->live[i] = 0;

    return i;
}


static void
check(const world_t *w, const model_t *m)
{
    uint32_t i, known = 0;

    for (i = 0; i < m->n; i++) {
        assert_non_null(sched_tenant_find(w->s, m->names[i]));
        assert_int_equal(
            sched_tenant_find(w->s, m->names[i])->live, m->live[i]);
    }
    for (i = 0; i < NAMES; i++) {
        known += sched_tenant_find(w->s, i) != NULL;
    }
    assert_int_equal(known, m->n);
}


static void
test_names(void **state)
{
    world_t *w = world_open(8, 64, 64, 512);
    uint32_t at[REQS], t, i, name;
    model_t m = {.n = 0};

    (void) state;
    memset(at, 255, sizeof(at));
    for (t = 0; t < 4000; t++) {
        i = below(REQS);
        if (at[i] == NONE) {
            name = below(below(2) ? NAMES : NAMES / 8);
            at[i] = entry(w, &m, name);
            m.live[at[i]]++;
            make(w, i, 1 + below(40), 1 + below(9))->tenant = name;
            assert_int_equal(sched_add(w->s, i, &w->reqs[i]), 0);
        } else if (below(3) == 0 || sched_done(w->s, i)) {
            sched_end(w->s, i);
            m.live[at[i]]--;
            at[i] = NONE;
        }
        if (t % 3 == 0) {
            turn(w);
        }
        check(w, &m);
    }
    assert_int_equal(m.n, ENTRIES);
    world_close(w);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
