/*
 * Catches a step whose tokens do not fill tiles, a chunk below zero, blocks
 * taken before they are needed, a target that is not kept or that starves
 * prompts, admission that fills the pool to the brim, and victims that are not
 * those the policy names.
 */
#include "sched_world.h"

static const uint32_t no_window[1];


static void
test_tile(void **state)
{
    sched_cfg_t c = {.tile = 16, .budget = 40};
    world_t *w = world_open_as(8, 64, 512, 512, 1, no_window, c);
    uint32_t i, t;

    (void) state;
    for (i = 1; i < 6; i++) {
        add(w, i, 3, 100);
    }
    turn(w);
    add(w, 0, 500, 1);
    for (t = 0; t < 12; t++) {
        turn(w);
        /* of 40, whole tiles, rows of one token among them */
        assert_int_equal(w->b.tokens_n, 32);
    }
    assert_int_equal(w->b.rows_n, 6);
    world_close(w);
}


/* More rows of one token than the budget: prompts get nothing, not less. */
static void
test_chunk_zero(void **state)
{
    sched_cfg_t c = {.budget = 4};
    world_t *w = world_open_as(8, 64, 128, 512, 1, no_window, c);
    uint32_t i, t;

    (void) state;
    for (i = 0; i < 8; i++) {
        add(w, i, 1, 10);
    }
    add(w, 8, 90, 1);
    for (t = 0; t < 6; t++) {
        turn(w);
        assert_true(w->b.tokens_n <= 8);
        assert_null(row_of(w, 8));
    }
    while (!sched_done(w->s, 0)) {
        turn(w);
    }
    for (t = 0; t < 60 && !sched_done(w->s, 8); t++) {
        turn(w);
    }
    assert_true(sched_done(w->s, 8));
    world_close(w);
}


static void
test_blocks_per_chunk(void **state)
{
    world_t *w = world_open(8, 16, 512, 256);
    uint32_t t;

    (void) state;
    add(w, 0, 200, 4);
    for (t = 1; t <= 12; t++) {
        turn(w);
        assert_int_equal(kv_count(w->kv, KV_PRIVATE), t * 16 / BT);
    }
    turn(w);
    assert_int_equal(kv_count(w->kv, KV_PRIVATE), 200 / BT);
    world_close(w);
}


/* A device that takes 1 ms and 100 us a token. */
static void
took(world_t *w)
{
    if (w->b.rows_n > 0) {
        sched_took(w->s, &w->b, 1000 + 100 * (uint64_t) w->b.tokens_n);
    }
}


static void
test_target(void **state)
{
    sched_cfg_t c = {.target_us = 5000, .tile = 4};
    world_t *w = world_open_as(8, 512, 4096, 4096, 1, no_window, c);
    uint32_t t, over = 0, filled = 0, tokens = 0, steps = 0;
    uint64_t expects;

    (void) state;
    add(w, 0, 4, 2000);
    turn(w);
    took(w);
    for (t = 0; t < 400; t++) {
        if (t % 100 == 0) {
            add(w, 1 + t / 100, 1500, 1);
        }
        turn(w);
        assert_non_null(row_of(w, 0));
        over += 1000 + 100 * w->b.tokens_n > 1.2 * 5000;
        if (w->b.tokens_n > 1 && t > 50) {
            tokens += w->b.tokens_n;
            steps++;
            filled += w->b.tokens_n % 4 == 0;
        }
        took(w);
        (void) reap(w);
    }
    assert_int_equal(over, 0);
    /* 40 tokens would take the target; most of that is used */
    assert_true(tokens > 30 * steps && steps > 50);
    assert_true(filled + 10 > steps);
    expects = sched_expects(w->s, &w->b);
    assert_true(expects > 1000 && expects < 1300);

    /* alone, a prompt has nobody to hurry for */
    sched_end(w->s, 0);
    add(w, 10, 1500, 2);
    plan(w);
    assert_int_equal(w->b.tokens_n, 512);
    commit(w);
    world_close(w);
}


/* A target that a few tokens fit but no tile of them: they are all there is. */
static void
test_target_narrow(void **state)
{
    sched_cfg_t c = {.target_us = 1800, .tile = 16};
    world_t *w = world_open_as(8, 512, 4096, 4096, 1, no_window, c);
    uint32_t t, over = 0;

    (void) state;
    add(w, 0, 4, 2000);
    turn(w);
    took(w);
    add(w, 1, 900, 1);
    for (t = 0; t < 250 && !sched_done(w->s, 1); t++) {
        turn(w);
        assert_non_null(row_of(w, 0));
        /* at first it does not know better */
        over += t >= 12 && 1000 + 100 * w->b.tokens_n > 1.2 * 1800;
        took(w);
    }
    assert_true(sched_done(w->s, 1));
    assert_int_equal(over, 0);
    world_close(w);
}


/* A target below what a step takes in any case: prompts still get on. */
static void
test_target_too_low(void **state)
{
    sched_cfg_t c = {.target_us = 500};
    world_t *w = world_open_as(8, 512, 4096, 4096, 1, no_window, c);
    uint32_t t;

    (void) state;
    add(w, 0, 4, 2000);
    for (t = 0; t < 20; t++) {
        turn(w);
        took(w);
    }
    add(w, 1, 320, 1);
    for (t = 0; t < 22 && !sched_done(w->s, 1); t++) {
        turn(w);
        took(w);
    }
    assert_true(sched_done(w->s, 1));
    world_close(w);
}


/* Who is expected to need the pool keeps others out; who is not does not. */
static void
test_looks_ahead(void **state)
{
    world_t *w = world_open(8, 64, 128, 16); /* 64 tokens */

    (void) state;
    add(w, 0, 8, 40); /* 12 blocks in the end, and nothing is known */
    turn(w);
    add(w, 1, 8, 40);
    turn(w);
    assert_int_equal(state_of(w, 1), SCHED_QUEUED);
    sched_end(w->s, 0);
    sched_end(w->s, 1);

    teach_short(w);
    add(w, 0, 8, 40);
    add(w, 1, 8, 40);
    turn(w);
    assert_int_equal(state_of(w, 0), SCHED_RUNNING);
    assert_int_equal(state_of(w, 1), SCHED_RUNNING);
    world_close(w);
}


/* Fair: who was served most gives way, though it came first. */
static void
victim_of(const sched_policy_t *policy, int expect_oldest)
{
    sched_cfg_t c = {.policy = policy};
    world_t *w = world_open_as(8, 64, 128, 40, 1, no_window, c);
    sched_stats_t st;
    uint32_t t;

    teach_short(w);
    add(w, 9, 8, 100); /* the oldest that has begun: never */
    turn(w);
    make(w, 0, 60, 60)->tenant = 1;
    assert_int_equal(sched_add(w->s, 0, &w->reqs[0]), 0);
    turn(w);
    make(w, 1, 8, 60)->tenant = 2;
    assert_int_equal(sched_add(w->s, 1, &w->reqs[1]), 0);
    make(w, 2, 8, 60)->tenant = 3;
    assert_int_equal(sched_add(w->s, 2, &w->reqs[2]), 0);
    do {
        turn(w);
        sched_stats(w->s, &st);
    } while (st.preemptions == 0);

    assert_int_equal(state_of(w, 9), SCHED_RUNNING);
    assert_int_equal(
        state_of(w, 0), expect_oldest ? SCHED_WAITING : SCHED_RUNNING);
    assert_int_equal(
        state_of(w, 2), expect_oldest ? SCHED_RUNNING : SCHED_WAITING);
    for (t = 0; t < 1000; t++) {
        turn(w);
        (void) reap(w);
    }
    assert_int_equal(kv_count(w->kv, KV_FREE), 40);
    world_close(w);
}


static void
test_victims(void **state)
{
    (void) state;
    victim_of(&sched_fair, 1);
    victim_of(&sched_fcfs, 0);
}


/* A step that took blocks away lets nobody in, though there would be room; the
 * next one does. */
static void
test_pressed(void **state)
{
    sched_cfg_t c = {.policy = &sched_fcfs};
    world_t *w = world_open_as(8, 32, 64, 9, 1, no_window, c);
    uint32_t known, computed, t;

    (void) state;
    teach_short(w);
    add(w, 0, 11, 40);
    add(w, 1, 15, 40);
    turn(w);
    sched_credit(w->s, 1, 0); /* its blocks are anybody's */

    do {
        turn(w);
        (void) sched_seq(w->s, 0, &known, &computed);
        assert_true(known < 28);
    } while (
        kv_count(w->kv, KV_FREE) > 0 || kv_missing(w->kv, 0, known + 1) == 0);
    assert_int_equal(state_of(w, 1), SCHED_HELD);
    add(w, 2, 2, 2);
    plan(w);
    assert_int_equal(state_of(w, 1), SCHED_WAITING);
    assert_true(kv_count(w->kv, KV_FREE) >= 2);
    assert_int_equal(state_of(w, 2), SCHED_QUEUED);
    commit(w);
    turn(w);
    assert_int_equal(state_of(w, 2), SCHED_RUNNING);
    for (t = 0; t < 3; t++) {
        sched_end(w->s, t);
    }
    world_close(w);
}


/* First come, first served, whoever it is. */
static void
test_fcfs(void **state)
{
    sched_cfg_t c = {.policy = &sched_fcfs};
    world_t *w = world_open_as(2, 16, 128, 256, 1, no_window, c);
    uint32_t i, next = 0, t;

    (void) state;
    assert_ptr_equal(sched_policy("fcfs"), &sched_fcfs);
    assert_ptr_equal(sched_policy("fair"), &sched_fair);
    assert_ptr_equal(sched_policy("prefill_first"), &sched_prefill_first);
    assert_int_equal(sched_policy_whole(&sched_fair), 0);
    assert_int_equal(sched_policy_whole(&sched_orca), 1);
    assert_null(sched_policy("best"));
    for (i = 0; i < 20; i++) {
        make(w, i, 30, 1)->tenant = i >= 15;
        assert_int_equal(sched_add(w->s, i, &w->reqs[i]), 0);
    }
    for (t = 0; t < 100; t++) {
        turn(w);
        for (i = 0; i < w->b.outs_n; i++) {
            assert_int_equal(w->takes[i].req, next++);
        }
        (void) reap(w);
    }
    assert_int_equal(next, 20);
    world_close(w);
}


/* One tenant has filled the pool; another, far behind, comes. */
static void
newcomer_waits(const sched_policy_t *policy, int at_all)
{
    sched_cfg_t c = {.policy = policy};
    world_t *w = world_open_as(8, 32, 128, 40, 1, no_window, c);
    uint32_t i, t;

    teach_short(w);
    for (i = 0; i < 20; i++) {
        make(w, i, 30, 60)->tenant = 1;
        assert_int_equal(sched_add(w->s, i, &w->reqs[i]), 0);
    }
    for (t = 0; t < 25; t++) {
        turn(w);
        (void) reap(w);
    }
    make(w, 30, 40, 4)->tenant = 2;
    assert_int_equal(sched_add(w->s, 30, &w->reqs[30]), 0);
    for (t = 0; t < 10 && state_of(w, 30) == SCHED_QUEUED; t++) {
        turn(w);
        (void) reap(w);
    }
    assert_int_equal(t == 1, !at_all);
    for (t = 0; t < 3000; t++) {
        turn(w);
        (void) reap(w);
    }
    assert_int_equal(kv_count(w->kv, KV_FREE), 40);
    world_close(w);
}


static void
test_claim(void **state)
{
    (void) state;
    newcomer_waits(&sched_fair, 0);
    newcomer_waits(&sched_fcfs, 1);
}


/* Who would only wait until its time is up is refused at once. */
static void
test_refused_early(void **state)
{
    world_t *w = world_open(1, 32, 64, 64);
    uint32_t i, t, req;
    uint64_t first, second;
    req_t *r;

    (void) state;
    for (i = 0; i < 20; i++) {
        add(w, i, 4, 10); /* a seat for ten steps of 1 ms each */
    }
    for (t = 0; t < 100; t++) {
        turn(w);
        (void) reap(w);
    }
    r = make(w, 40, 4, 10);
    /* ten wait before it */
    assert_true(sched_wait_us(w->s, r) > 85000);
    assert_true(sched_wait_us(w->s, r) < 135000);
    r->queue_ms = 150;
    assert_int_equal(sched_add(w->s, 40, r), 0);
    r = make(w, 41, 4, 10);
    r->queue_ms = 50;
    assert_int_equal(sched_add(w->s, 41, r), -LLM_ERR_BUSY);
    first = sched_retry_us(w->s, r);
    second = sched_retry_us(w->s, r);
    assert_true(first >= 50000 && first < 120000);
    assert_true(second >= first + 8000);

    /* later it is let in, and not in vain */
    for (t = 0; t < first / 1000 + 1; t++) {
        turn(w);
        (void) reap(w);
    }
    r = make(w, 41, 4, 10);
    r->queue_ms = 50;
    assert_int_equal(sched_add(w->s, 41, r), 0);
    for (t = 0; t < 200; t++) {
        turn(w);
        assert_false(sched_expired(w->s, &req));
        (void) reap(w);
    }
    make(w, 50, 4, 1)->tenant = 5; /* new: nothing is known */
    assert_int_equal(sched_wait_us(w->s, &w->reqs[50]), 0);
    assert_int_equal(sched_retry_us(w->s, &w->reqs[50]), 0);
    assert_int_equal(kv_count(w->kv, KV_FREE), 64);
    world_close(w);
}


/* N prompts of 60 % of the pool each, of as many tenants. */
static void
large_prompts(const sched_policy_t *policy)
{
    sched_cfg_t c = {.policy = policy};
    world_t *w = world_open_as(8, 16, 128, 40, 1, no_window, c);
    uint32_t i, t, done = 0;

    teach_short(w); /* so that admission is hopeful */
    for (i = 0; i < 10; i++) {
        make(w, i, 96, 30)->tenant = i;
        assert_int_equal(sched_add(w->s, i, &w->reqs[i]), 0);
    }
    for (t = 0; t < 600 && done < 10; t++) {
        turn(w);
        done += (uint32_t) reap(w);
    }
    assert_int_equal(done, 10);
    /* one after the other, nothing twice: 6 steps and 29 each */
    assert_true(t <= 10 * (6 + 29));
    assert_int_equal(kv_count(w->kv, KV_FREE), 40);
    world_close(w);
}


static void
test_no_deadlock(void **state)
{
    (void) state;
    large_prompts(&sched_fair);
    large_prompts(&sched_fcfs);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tile),
        cmocka_unit_test(test_chunk_zero),
        cmocka_unit_test(test_blocks_per_chunk),
        cmocka_unit_test(test_target),
        cmocka_unit_test(test_target_narrow),
        cmocka_unit_test(test_target_too_low),
        cmocka_unit_test(test_looks_ahead),
        cmocka_unit_test(test_victims),
        cmocka_unit_test(test_pressed),
        cmocka_unit_test(test_fcfs),
        cmocka_unit_test(test_claim),
        cmocka_unit_test(test_refused_early),
        cmocka_unit_test(test_no_deadlock),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
