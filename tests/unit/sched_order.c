/*
 * Catches an order of the waiting that does not take the longest match first,
 * believes a match that was evicted, lets somebody wait while others who came
 * much later pass without end, or, between tenants, lets a match weigh more
 * than what one is behind.
 */
#include "sched_int.h"
#include "sched_world.h"

#define PASS_US 20000 /* 20 plans */


/* One seat; a prefix cache. */
static world_t *
world_open_order(
    const sched_policy_t *policy, uint32_t pass_us, uint32_t blocks)
{
    static const uint32_t none[1];
    sched_cfg_t c = {.policy = policy, .pass_us = pass_us};
    world_t *w = world_open_as(1, 64, 256, blocks, 1, none, c);

    assert_int_equal(kv_cache(w->kv, 16, 5), 0);

    return w;
}


/* A request for len tokens of the text that begins at ids[from]. */
static void
add_text(world_t *w, uint32_t i, uint32_t from, uint32_t len, uint32_t tenant)
{
    req_t *r = make(w, i, len, 1);

    r->prompts[0].ids = w->ids + from;
    r->tenant = tenant;
    assert_int_equal(sched_add(w->s, i, r), 0);
}


/* Turns until somebody ends: who. */
static uint32_t
next_done(world_t *w)
{
    uint32_t t, i;

    for (t = 0; t < 100; t++) {
        turn(w);
        for (i = 0; i < w->b.outs_n; i++) {
            if (sched_done(w->s, w->takes[i].req)) {
                sched_end(w->s, w->takes[i].req);
                return w->takes[i].req;
            }
        }
    }
    fail();

    return 0;
}


/* Text 0 is in the cache; then come 1 with another, 2 with a part of it, 3
 * with more of it.  In which order do they go? */
static uint32_t
order_of(const sched_policy_t *policy, uint32_t pass_us)
{
    world_t *w = world_open_order(policy, pass_us, 256);
    uint32_t order;

    add_text(w, 0, 0, 60, 0);
    assert_int_equal(next_done(w), 0);
    add_text(w, 1, 1000, 60, 0);
    add_text(w, 2, 0, 20, 0);
    add_text(w, 3, 0, 50, 0);
    order = next_done(w) * 100;
    order += next_done(w) * 10;
    order += next_done(w);
    world_close(w);

    return order;
}


static void
test_longest(void **state)
{
    (void) state;
    assert_int_equal(order_of(&sched_fair, PASS_US), 321);
    assert_int_equal(order_of(&sched_prefix, PASS_US), 321);
    assert_int_equal(order_of(&sched_fcfs, PASS_US), 123);
    assert_int_equal(order_of(&sched_fair, 0), 123);
    assert_int_equal(order_of(&sched_prefix, 0), 123);
}


/* What others compute meanwhile counts; what was evicted does not. */
static void
test_news(void **state)
{
    world_t *w = world_open_order(&sched_fair, PASS_US, 40);

    (void) state;
    add_text(w, 0, 0, 60, 0);
    add_text(w, 1, 1000, 60, 0);
    add_text(w, 2, 0, 60, 0); /* like 0, which has not been computed yet */
    assert_int_equal(next_done(w), 0);
    assert_int_equal(next_done(w), 2);
    assert_int_equal(next_done(w), 1);

    /* 6 has 60 tokens there, as all know, but 5 needs that room */
    add_text(w, 3, 2000, 65, 0);
    assert_int_equal(next_done(w), 3);
    add_text(w, 4, 3000, 60, 0);
    add_text(w, 5, 2000, 150, 0);
    memset(w->ids + 2065, 0, 85 * sizeof(uint32_t));
    add_text(w, 6, 1000, 60, 0);
    add_text(w, 7, 2000, 40, 0);
    assert_int_equal(next_done(w), 5);
    assert_int_equal(next_done(w), 7);
    world_close(w);
}


/* Who passes must have come soon after the oldest. */
static void
check_pass(const sched_policy_t *policy, uint32_t tenants)
{
    world_t *w = world_open_order(policy, PASS_US, 256);
    uint64_t came = 0;
    uint32_t i, n, passed = 0;

    add_text(w, 0, 0, 60, 0);
    assert_int_equal(next_done(w), 0);

    add_text(w, 2, 0, 60, 1 % tenants);
    add_text(w, 1, 1000, 60, 0); /* nobody has its prefix */
    came = w->now;
    for (n = 0; n < 200; n++) {
        add_text(w, 3 + n % 2, 0, 60, n % tenants);
        i = next_done(w);
        if (i == 1) {
            break;
        }
        passed++;
        assert_true(w->reqs[i].arrival_us <= came + PASS_US);
    }

    /* all that came in that time were let past, one a plan, but no more */
    assert_int_equal(passed, 1 + PASS_US / 1000 + 1);
    world_close(w);
}


static void
test_bound(void **state)
{
    (void) state;
    check_pass(&sched_fair, 1);
    check_pass(&sched_prefix, 1);
    check_pass(&sched_prefix, 3);
}


/* The same when they come too fast for the time to help. */
static void
test_bound_count(void **state)
{
    world_t *w = world_open_order(&sched_fair, 4000000000u, 64);
    uint32_t passed = 0;

    (void) state;
    add_text(w, 0, 0, 9, 0);
    assert_int_equal(next_done(w), 0);
    add_text(w, 1, 1000, 9, 0);
    add_text(w, 2, 0, 9, 0);
    while (passed < 2 * SCHED_PASS_REQS) {
        add_text(w, 2 + (passed + 1) % 2, 0, 9, 0);
        if (next_done(w) == 1) {
            break;
        }
        passed++;
    }
    assert_int_equal(passed, SCHED_PASS_REQS);
    world_close(w);
}


/* Tenant 1 is ahead by that many weighted tokens, and has a match: does it go
 * first? */
static int
goes_first(uint32_t ahead, uint32_t pass_us)
{
    world_t *w = world_open_order(&sched_fair, pass_us, 256);
    uint32_t first;

    add_text(w, 0, 1000, 60, 0);
    add_text(w, 1, 0, 60, 1);
    assert_int_equal(next_done(w) + next_done(w), 1);
    assert_int_equal(sched_service(w->s, 0), sched_service(w->s, 1));
    add_text(w, 2, 2000, ahead - SCHED_COST_OUT, 1);
    assert_int_equal(next_done(w), 2);
    assert_int_equal(sched_service(w->s, 1) - sched_service(w->s, 0),
        (uint64_t) ahead * SCHED_SCALE);

    add_text(w, 3, 3000, 60, 0);
    add_text(w, 4, 0, 60, 1);
    first = next_done(w);
    assert_true(first == 3 || first == 4);
    world_close(w);

    return first == 4;
}


/* The quantum is half the pool, the lead a quarter of that: 128 tokens. */
static void
test_lead(void **state)
{
    (void) state;
    assert_true(goes_first(10, PASS_US));
    assert_true(goes_first(128, PASS_US));
    assert_false(goes_first(129, PASS_US));
    assert_false(goes_first(10, 0));
}


/* Who may not pass the oldest goes after it, in the same step if there is
 * room. */
static void
check_both(const sched_policy_t *policy, uint32_t tenant)
{
    static const uint32_t none[1];
    sched_cfg_t c = {.policy = policy, .pass_us = PASS_US};
    world_t *w = world_open_as(4, 64, 256, 256, 1, none, c);

    assert_int_equal(kv_cache(w->kv, 16, 5), 0);
    add_text(w, 0, 0, 9, 0);
    w->now += 2 * PASS_US;
    add_text(w, 1, 1000, 9, tenant);
    w->now += 2 * PASS_US;
    add_text(w, 2, 2000, 9, tenant);
    turn(w);
    assert_int_equal(w->b.rows_n, 3);
    world_close(w);
}


static void
test_both(void **state)
{
    (void) state;
    check_both(&sched_fair, 0);
    check_both(&sched_fair, 1);
    check_both(&sched_prefix, 0);
    check_both(&sched_prefix, 1);
}


/* Under prefix whose it is does not matter, and what has begun goes on. */
static void
test_prefix(void **state)
{
    static const uint32_t none[1];
    sched_cfg_t c = {.policy = &sched_prefix, .pass_us = PASS_US};
    world_t *w = world_open_as(4, 64, 256, 256, 1, none, c);

    (void) state;
    assert_int_equal(kv_cache(w->kv, 16, 5), 0);
    add_text(w, 0, 0, 60, 0);
    assert_int_equal(next_done(w), 0);
    add_text(w, 1, 1000, 200, 1);
    turn(w);
    assert_int_equal(row_of(w, 1)->kv_len, 64);

    /* 2 is of the tenant that has had nothing yet */
    add_text(w, 2, 2000, 60, 2);
    add_text(w, 3, 0, 60, 0);
    add_text(w, 4, 0, 30, 2);
    turn(w);
    assert_int_equal(row_of(w, 1)->kv_len, 128);
    assert_null(row_of(w, 3));
    turn(w);
    assert_int_equal(row_of(w, 1)->kv_len, 192);
    turn(w); /* the rest of 1, and then there is room */
    assert_int_equal(row_of(w, 1)->kv_len, 200);
    assert_int_equal(row_of(w, 3)->q_start, 56);
    assert_int_equal(row_of(w, 4)->q_start, 28);
    assert_int_equal(row_of(w, 2)->q_start, 0);
    assert_true(row_of(w, 3) < row_of(w, 4) && row_of(w, 4) < row_of(w, 2));
    world_close(w);
}


static uint32_t
below(uint32_t *seed, uint32_t n)
{
    *seed = *seed * 1664525u + 1013904223u;

    return (uint32_t) ((uint64_t) *seed * n >> 32);
}


/* One of a few beginnings, an own end; of any tenant and class. */
static void
add_any(world_t *w, uint32_t i, uint32_t *seed)
{
    req_t *r = make(w, i, 8 + below(seed, 90), 1 + below(seed, 12));

    r->prompts[0].ids = w->ids + 700 * below(seed, 5);
    r->tenant = below(seed, 3);
    r->priority = below(seed, 2);
    r->weight = 1 + r->tenant;
    r->queue_ms = below(seed, 4) == 0 ? 30 : 0;
    (void) sched_add(w->s, i, r);
}


/* Turns with all that can happen to those who wait; then all of them end. */
static void
storm(const sched_policy_t *policy, uint32_t seed)
{
    static const uint32_t none[1];
    sched_cfg_t c = {.policy = policy, .pass_us = PASS_US, .floor = 5};
    world_t *w = world_open_as(4, 64, 256, 60, 1, none, c);
    uint8_t live[REQS] = {0};
    uint32_t t, i, n, k;
    sched_stats_t st;

    assert_int_equal(kv_cache(w->kv, 16, 5), 0);
    for (t = 0; t < 1500; t++) {
        for (k = below(&seed, 3); k > 0; k--) {
            i = below(&seed, REQS);
            if (live[i] && below(&seed, 6) == 0) {
                sched_end(w->s, i);
                live[i] = 0;
            } else if (live[i]) {
                sched_credit(w->s, i, below(&seed, 4) > 0);
            } else if (t < 1000) {
                sched_stats(w->s, &st);
                n = st.waiting + st.running;
                add_any(w, i, &seed);
                sched_stats(w->s, &st);
                live[i] = st.waiting + st.running > n;
            }
        }
        sched_order_check(w->s);
        plan(w);
        sched_order_check(w->s);
        while (sched_expired(w->s, &i)) {
            sched_end(w->s, i);
            live[i] = 0;
        }
        commit(w);
        sched_order_check(w->s);
        for (k = 0; k < w->b.outs_n; k++) {
            i = w->takes[k].req;
            if (live[i] && sched_done(w->s, i)) {
                sched_end(w->s, i);
                live[i] = 0;
            }
        }
        for (i = 0; t > 1000 && i < REQS; i++) {
            if (live[i]) {
                sched_credit(w->s, i, 1);
            }
        }
    }

    sched_stats(w->s, &st);
    assert_int_equal(st.waiting + st.running, 0);
    assert_int_equal(kv_avail(w->kv), 60);
    world_close(w);
}


static void
test_storm(void **state)
{
    (void) state;
    storm(&sched_fair, 1);
    storm(&sched_prefix, 2);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_longest),
        cmocka_unit_test(test_news),
        cmocka_unit_test(test_bound),
        cmocka_unit_test(test_bound_count),
        cmocka_unit_test(test_both),
        cmocka_unit_test(test_lead),
        cmocka_unit_test(test_prefix),
        cmocka_unit_test(test_storm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
