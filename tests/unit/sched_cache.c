/*
 * Catches a scheduler that computes what the prefix cache has, charges for it,
 * lets those who begin alike compute the same side by side, or wait for one
 * who will not come on; that loses blocks on any way out, keeps what nobody
 * should build on, or lets one tenant's flood wash away another's blocks.
 */
#include "kv_tier.h"
#include "sched_world.h"


static world_t *
world_open_cache(
    uint32_t rows, uint32_t tokens, uint32_t context, uint32_t blocks)
{
    world_t *w = world_open(rows, tokens, context, blocks);

    assert_int_equal(kv_cache(w->kv, 16, 5), 0);
    assert_true(kv_caches(w->kv));

    return w;
}


/* Nobody has anything: all blocks can be had again. */
static void
world_close_cache(world_t *w, uint32_t blocks)
{
    assert_int_equal(kv_avail(w->kv), blocks);
    assert_int_equal(kv_count(w->kv, KV_PRIVATE), 0);
    world_close(w);
}


/* Runs request i to its end. */
static void
finish(world_t *w, uint32_t i)
{
    uint32_t t;

    for (t = 0; t < 2000 && !sched_done(w->s, i); t++) {
        turn(w);
    }
    assert_true(sched_done(w->s, i));
    sched_end(w->s, i);
    kv_check_deep(w->kv);
}


/* What was computed, prompt or sampled, is there for the next who has it. */
static void
test_cache(void **state)
{
    world_t *w = world_open_cache(8, 64, 256, 256);
    uint32_t chat[64], k;
    sched_stats_t st;
    uint64_t service;

    (void) state;
    make(w, 0, 20, 13)->tenant = 3;
    assert_int_equal(sched_add(w->s, 0, &w->reqs[0]), 0);
    finish(w, 0);
    assert_int_equal(kv_count(w->kv, KV_CACHED), 8); /* of 32 computed */
    service = sched_service(w->s, 3);

    /* the last token is computed again, and with it its block */
    make(w, 1, 20, 1)->tenant = 3;
    assert_int_equal(sched_add(w->s, 1, &w->reqs[1]), 0);
    plan(w);
    assert_int_equal(row_of(w, 1)->q_start, 16);
    assert_int_equal(row_of(w, 1)->q_len, 4);
    assert_int_equal(sched_cached(w->s, 1), 16);
    assert_int_equal(sched_service(w->s, 3) - service, 4 * SCHED_SCALE);
    commit(w);
    assert_int_equal(kv_count(w->kv, KV_CACHED), 8); /* has its own of it */
    assert_int_equal(w->b.outs[0].pos, 19);
    sched_end(w->s, 1);

    /* the next turn of the conversation: with what was answered */
    memcpy(chat, w->ids, 20 * 4);
    for (k = 20; k < 33; k++) {
        chat[k] = 1000 + k - 1;
    }
    memset(chat + 33, 0, sizeof(chat) - 33 * 4);
    make(w, 2, 64, 1)->prompts[0].ids = chat;
    assert_int_equal(sched_add(w->s, 2, &w->reqs[2]), 0);
    plan(w);
    assert_int_equal(row_of(w, 2)->q_start, 32);
    commit(w);
    sched_end(w->s, 2);

    /* another namespace, and another text */
    make(w, 3, 20, 1)->space = 1;
    assert_int_equal(sched_add(w->s, 3, &w->reqs[3]), 0);
    make(w, 4, 20, 1)->prompts[0].ids = w->ids + 1;
    assert_int_equal(sched_add(w->s, 4, &w->reqs[4]), 0);
    plan(w);
    assert_int_equal(row_of(w, 3)->q_start, 0);
    assert_int_equal(row_of(w, 4)->q_start, 0);
    commit(w);
    sched_end(w->s, 3);
    sched_end(w->s, 4);

    sched_stats(w->s, &st);
    assert_int_equal(st.cache_asked, 20 + 20 + 64 + 20 + 20);
    assert_int_equal(st.cache_hits, 16 + 32);
    world_close_cache(w, 256);
}


/* Those who come together with the same compute it once. */
static void
test_follow(void **state)
{
    world_t *w = world_open_cache(8, 128, 256, 256);
    uint32_t t, i, computed = 0;
    sched_stats_t st;

    (void) state;
    for (i = 0; i < 5; i++) {
        add(w, i, 101, 2);
    }
    make(w, 5, 101, 2)->prompts[0].ids = w->ids + 50; /* a text of its own */
    assert_int_equal(sched_add(w->s, 5, &w->reqs[5]), 0);

    for (t = 0; t < 40; t++) {
        turn(w);
        computed += w->b.tokens_n;
        if (t == 0) {
            for (i = 1; i < 5; i++) {
                assert_null(row_of(w, i));
            }
        }
        if (sched_done(w->s, 4) && sched_done(w->s, 5)) {
            break;
        }
    }
    for (i = 0; i < 5; i++) {
        assert_int_equal(sched_cached(w->s, i), i == 0 ? 0 : 100);
    }
    assert_int_equal(computed, 2 * 101 + 4 + 6);
    sched_stats(w->s, &st);
    assert_int_equal(st.follows, 4);
    for (i = 0; i < 6; i++) {
        sched_end(w->s, i);
    }
    world_close_cache(w, 256);
}


/* The leader goes, in whatever way: a follower goes on from there. */
static void
test_take_over(void **state)
{
    enum { CANCEL, STALL, PREEMPT, WAYS };
    uint32_t way, t, high;
    world_t *w;

    (void) state;
    for (way = 0; way < WAYS; way++) {
        w = world_open_cache(8, 32, 256, 40);
        add(w, 0, 101, 3);
        add(w, 1, 101, 3);
        add(w, 2, 101, 3);
        turn(w);
        turn(w);
        assert_int_equal(row_of(w, 0)->kv_len, 64);
        assert_null(row_of(w, 1));

        high = 0;
        if (way == CANCEL) {
            sched_end(w->s, 0);
        } else if (way == STALL) {
            sched_credit(w->s, 0, 0);
        } else {
            high = 3;
            make(w, 3, 20 * BT, 4)->prompts[0].ids = w->ids + 300;
            w->reqs[3].tenant = 1; /* needs more than there is */
            w->reqs[3].priority = 0;
            assert_int_equal(sched_add(w->s, 3, &w->reqs[3]), 0);
            sched_credit(w->s, 0, 0);
        }

        for (t = 0; t < 10 && row_of(w, 1) == NULL; t++) {
            turn(w);
        }
        assert_non_null(row_of(w, 1));
        assert_int_equal(sched_cached(w->s, 1), 64);
        assert_null(row_of(w, 2)); /* who has a leader again */

        if (way != CANCEL) {
            sched_credit(w->s, 0, 1);
        }
        for (t = 0; t < 100; t++) {
            turn(w);
            (void) reap(w);
            if (kv_avail(w->kv) == 40 && w->b.rows_n == 0) {
                break;
            }
        }
        assert_true(t < 100);
        (void) high;
        world_close_cache(w, 40);
    }
}


/* A leader that does not come on is waited for, but not for ever. */
static void
test_follow_bound(void **state)
{
    world_t *w = world_open_cache(34, 34, 256, 1024);
    uint32_t t;

    (void) state;
    make(w, 40, 150, 2)->tenant = 1;
    assert_int_equal(sched_add(w->s, 40, &w->reqs[40]), 0);
    make(w, 41, 150, 2)->tenant = 2; /* has a right to nearly all there is */
    w->reqs[41].weight = 100000;
    assert_int_equal(sched_add(w->s, 41, &w->reqs[41]), 0);
    turn(w);
    assert_int_equal(row_of(w, 40)->kv_len, 34);

    for (t = 0; t < 39 && state_of(w, 41) != SCHED_RUNNING; t++) {
        make(w, t, 34, 1)->prompts[0].ids = w->ids + 200 + t;
        w->reqs[t].tenant = 2;
        w->reqs[t].weight = 100000;
        assert_int_equal(sched_add(w->s, t, &w->reqs[t]), 0);
        turn(w);
        (void) reap(w);
    }
    assert_in_range(t, 20, 35);
    assert_int_equal(state_of(w, 40), SCHED_RUNNING);
    assert_int_equal(sched_cached(w->s, 41), 32);
    sched_end(w->s, 40);
    sched_end(w->s, 41);
    for (t = 0; t < 5; t++) {
        turn(w);
        (void) reap(w);
    }
    world_close_cache(w, 1024);
}


/* Choices of one prompt share its blocks, but for the last one. */
static void
test_cache_choices(void **state)
{
    world_t *w = world_open_cache(8, 128, 256, 256);
    req_t *r = make(w, 0, 42, 3);
    uint32_t i, computed = 0;

    (void) state;
    r->n = 4;
    r->prompts_n = 2;
    r->choices = 8;
    r->prompts[1].ids = w->ids + 100;
    r->prompts[1].len = 21;
    assert_int_equal(sched_add(w->s, 0, r), 0);
    turn(w);
    computed += w->b.tokens_n;
    assert_int_equal(w->b.rows_n, 2);
    turn(w);
    computed += w->b.tokens_n;
    assert_int_equal(w->b.rows_n, 8);
    for (i = 1; i < 4; i++) {
        assert_int_equal(kv_shared(w->kv, 0, i), 10);
        assert_int_equal(kv_shared(w->kv, 4, 4 + i), 5);
    }
    assert_int_equal(computed, 42 + 21 + 2 + 3 * 2 + 3 * 1);
    assert_int_equal(kv_count(w->kv, KV_CACHED), 15);
    assert_int_equal(kv_count(w->kv, KV_PRIVATE), 8);
    assert_int_equal(sched_cached(w->s, 0), 0); /* as the prompts go */
    while (!sched_done(w->s, 0)) {
        turn(w);
    }
    sched_end(w->s, 0);
    world_close_cache(w, 256);
}


/* Preempted, it finds its own blocks again, if nobody needed them. */
static void
test_cache_preempt(void **state)
{
    world_t *w = world_open_cache(8, 64, 64, 16);
    const batch_row_t *r;
    uint32_t t;

    (void) state;
    add(w, 0, 30, 20); /* 8 blocks */
    turn(w);
    sched_credit(w->s, 0, 0);
    make(w, 1, 34, 2)->prompts[0].ids = w->ids + 500; /* 9: one too many */
    assert_int_equal(sched_add(w->s, 1, &w->reqs[1]), 0);
    turn(w);
    assert_int_equal(state_of(w, 0), SCHED_WAITING);
    finish(w, 1);
    sched_credit(w->s, 0, 1);
    plan(w);
    r = row_of(w, 0);
    assert_non_null(r);
    assert_int_equal(r->kv_len, 31);
    assert_true(r->q_start >= 24); /* of 28 one was taken at most */
    assert_int_equal(sched_cached(w->s, 0), 0); /* was not so at first */
    commit(w);
    for (t = 0; !sched_done(w->s, 0); t++) {
        turn(w);
    }
    assert_int_equal(sched_completion(w->s, 0), 20);
    sched_end(w->s, 0);
    world_close_cache(w, 16);
}


/* What nobody should build on leaves the cache. */
static void
test_cache_taken_back(void **state)
{
    world_t *w = world_open_cache(8, 64, 64, 64);
    uint32_t t;

    (void) state;
    /* behind a stop */
    add(w, 0, 6, 30);
    for (t = 0; t < 20; t++) {
        turn(w);
    }
    assert_int_equal(kv_count(w->kv, KV_CACHED), 6);
    assert_int_equal(sched_cut(w->s, 0, 0, 7), 12);
    assert_int_equal(kv_count(w->kv, KV_CACHED), 3);
    sched_end(w->s, 0);

    /* not finite: what it found stays, what it computed does not */
    add(w, 1, 30, 4);
    plan(w);
    assert_int_equal(row_of(w, 1)->q_start, 4); /* what is alike */
    memset(w->takes, 0, sizeof(w->takes));
    w->takes[0].err = LLM_ERR_NAN_LOGITS;
    sched_commit(w->s, &w->b, w->takes);
    assert_int_equal(kv_count(w->kv, KV_CACHED), 3);
    sched_end(w->s, 1);
    assert_int_equal(kv_count(w->kv, KV_CACHED), 3);
    world_close_cache(w, 64);
}


/* Cancelled at any place: the sums hold, and nothing is lost. */
static void
test_cache_aborts(void **state)
{
    enum { QUEUED, FOLLOWING, CHUNK, DECODING, HELD, PREEMPTED, ENDED, PLACES };
    uint32_t place, t;
    world_t *w;

    (void) state;
    for (place = 0; place < PLACES; place++) {
        w = world_open_cache(place == QUEUED ? 1 : 4, 32, 128, 40);
        add(w, 0, 70, 40);
        make(w, 1, 70, 40)->tenant = 1;
        assert_int_equal(sched_add(w->s, 1, &w->reqs[1]), 0);
        turn(w);

        switch (place) {
        case QUEUED:
            assert_int_equal(state_of(w, 1), SCHED_QUEUED);
            sched_end(w->s, 1);
            break;
        case FOLLOWING:
            turn(w);
            assert_null(row_of(w, 1));
            sched_end(w->s, 1);
            break;
        case CHUNK:
            assert_int_equal(row_of(w, 0)->kv_len, 32);
            sched_end(w->s, 0);
            break;
        case DECODING:
            for (t = 0; t < 12; t++) {
                turn(w);
            }
            assert_int_equal(row_of(w, 0)->q_len, 1);
            assert_int_equal(row_of(w, 1)->q_len, 1);
            sched_end(w->s, 0);
            break;
        case HELD:
            sched_credit(w->s, 0, 0);
            turn(w);
            assert_int_equal(state_of(w, 0), SCHED_HELD);
            sched_end(w->s, 0);
            break;
        case PREEMPTED:
            turn(w);
            turn(w);
            sched_credit(w->s, 0, 0);
            make(w, 2, 110, 4)->prompts[0].ids = w->ids + 200;
            assert_int_equal(sched_add(w->s, 2, &w->reqs[2]), 0);
            for (t = 0; t < 150 && state_of(w, 0) != SCHED_WAITING; t++) {
                turn(w);
                (void) reap(w);
            }
            assert_int_equal(state_of(w, 0), SCHED_WAITING);
            sched_end(w->s, 0);
            break;
        default:
            for (t = 0; t < 60 && !sched_done(w->s, 0); t++) {
                turn(w);
            }
            sched_end(w->s, 0);
        }

        kv_check_deep(w->kv);
        for (t = 0; t < 200; t++) {
            turn(w);
            (void) reap(w);
            if (w->b.rows_n == 0) {
                break;
            }
        }
        world_close_cache(w, 40);
    }
}


/* One who floods takes none of another's share. */
static void
test_cache_share(void **state)
{
    world_t *w = world_open_cache(8, 64, 128, 100);
    uint32_t i, k, *flood = calloc(40 * 80, sizeof(uint32_t));
    uint32_t kept;

    (void) state;
    assert_non_null(flood);
    for (i = 0; i < 40 * 80; i++) {
        flood[i] = 5000 + i;
    }
    make(w, 0, 80, 2)->tenant = 1;
    w->reqs[0].space = 1;
    assert_int_equal(sched_add(w->s, 0, &w->reqs[0]), 0);
    finish(w, 0);
    kept = (uint32_t) kv_owned(w->kv, 1);
    assert_int_equal(kept, 20);

    for (k = 0; k < 40; k++) {
        make(w, 1, 80, 2)->tenant = 2;
        w->reqs[1].space = 2;
        w->reqs[1].prompts[0].ids = flood + k * 80;
        assert_int_equal(sched_add(w->s, 1, &w->reqs[1]), 0);
        finish(w, 1);
        assert_int_equal(kv_owned(w->kv, 1), kept);

        if (k % 8 == 7) { /* it is still there, and so is its owner */
            make(w, 0, 80, 1)->tenant = 1;
            w->reqs[0].space = 1;
            assert_int_equal(sched_add(w->s, 0, &w->reqs[0]), 0);
            plan(w);
            assert_int_equal(row_of(w, 0)->q_start, 76);
            commit(w);
            sched_end(w->s, 0);
        }
    }
    assert_true(kv_evicted(w->kv) > 500);
    free(flood);
    world_close_cache(w, 100);
}


/* --- the second tier ---------------------------------------------------- */

static world_t *
world_open_tier(uint32_t blocks)
{
    world_t *w = world_open_cache(8, 64, 256, blocks);
    kv_tier_cfg_t c = {400, 16, 9, 0};

    assert_int_equal(kv_tier(w->kv, &c), 0);

    return w;
}


/* Copies all that there is to copy, well or not; how many copies. */
static uint32_t
copy(world_t *w, int ok)
{
    kv_tier_copy_t c;
    uint32_t n = 0;

    while (kv_tier_next(w->kv, 1000, &c)) {
        kv_tier_done(w->kv, &c, ok);
        n++;
    }

    return n;
}


/* Request 0's 200 tokens are in the second tier only. */
static void
fill_tier(world_t *w)
{
    uint32_t i;

    add(w, 0, 200, 1);
    finish(w, 0);
    (void) copy(w, 1);
    for (i = 1; i < 4; i++) {
        make(w, i, 200, 1)->prompts[0].ids = w->ids + 300 * i;
        assert_int_equal(sched_add(w->s, i, &w->reqs[i]), 0);
        finish(w, i);
    }
    (void) copy(w, 1);
    assert_int_equal(kv_count(w->kv, KV_TRANSIT), 0);
}


/* Who wants it waits for the copy, and computes the rest. */
static void
test_fetch(void **state)
{
    world_t *w = world_open_tier(64);
    sched_stats_t st;
    kv_tier_copy_t c;
    uint64_t service;

    (void) state;
    fill_tier(w);
    service = sched_service(w->s, 0);
    add(w, 0, 200, 1);
    plan(w);
    assert_int_equal(w->b.rows_n, 0);
    assert_int_equal(state_of(w, 0), SCHED_QUEUED);
    assert_int_equal(kv_count(w->kv, KV_TRANSIT), 49);
    assert_true(kv_tier_next(w->kv, 1000, &c));
    plan(w); /* it takes its time */
    assert_int_equal(w->b.rows_n, 0);
    kv_tier_done(w->kv, &c, 1);
    plan(w);
    assert_int_equal(row_of(w, 0)->q_start, 196);
    assert_int_equal(row_of(w, 0)->q_len, 4);
    assert_int_equal(sched_cached(w->s, 0), 196);
    assert_int_equal(sched_service(w->s, 0) - service, 4 * SCHED_SCALE);
    commit(w);
    sched_end(w->s, 0);
    sched_stats(w->s, &st);
    assert_int_equal(st.fetches, 1);
    assert_int_equal(st.fetched_tokens, 196);
    world_close_cache(w, 64);
}


/* Others are not held up; who waits in vain, or too long, computes. */
static void
test_fetch_fails(void **state)
{
    world_t *w = world_open_tier(130);
    sched_stats_t st;
    kv_tier_copy_t c;

    (void) state;
    fill_tier(w);
    add(w, 0, 200, 1);
    make(w, 1, 20, 9)->prompts[0].ids = w->ids + 2000;
    assert_int_equal(sched_add(w->s, 1, &w->reqs[1]), 0);
    plan(w);
    assert_non_null(row_of(w, 1));
    assert_null(row_of(w, 0));
    commit(w);
    assert_true(copy(w, 0) > 0);
    plan(w); /* and it does not try again */
    assert_int_equal(row_of(w, 0)->q_start, 0);
    commit(w);
    sched_end(w->s, 0);

    /* too late: the blocks are cached then, for others */
    add(w, 0, 200, 1);
    plan(w);
    assert_null(row_of(w, 0));
    commit(w);
    assert_true(kv_tier_next(w->kv, 1000, &c) && c.in);
    w->now += 2000000;
    plan(w);
    assert_non_null(row_of(w, 0));
    commit(w);
    kv_tier_done(w->kv, &c, 1);
    sched_end(w->s, 0);
    sched_end(w->s, 1);
    sched_stats(w->s, &st);
    assert_int_equal(st.fetches, 0);
    (void) copy(w, 1);
    world_close_cache(w, 130);
}


/* Cancelled while its blocks are on their way: they stay for the next. */
static void
test_fetch_cancelled(void **state)
{
    world_t *w = world_open_tier(64);
    kv_tier_copy_t c;

    (void) state;
    fill_tier(w);
    add(w, 0, 200, 1);
    plan(w);
    assert_true(kv_tier_next(w->kv, 1000, &c));
    sched_end(w->s, 0);
    assert_int_equal(kv_count(w->kv, KV_TRANSIT), 49);
    plan(w);
    kv_tier_done(w->kv, &c, 1);
    assert_int_equal(kv_avail(w->kv), 64);
    add(w, 0, 200, 1);
    plan(w);
    assert_int_equal(row_of(w, 0)->q_start, 196);
    commit(w);
    sched_end(w->s, 0);
    world_close_cache(w, 64);
}


/*
 * Two that do not fit together: what one lost is copied out before it is
 * evicted, and back when its turn comes; nothing is computed twice but what is
 * too little to copy.
 */
static void
test_resume_by_copy(void **state)
{
    world_t *w = world_open_tier(64);
    uint32_t t, i, done = 0, computed = 0;
    sched_stats_t st;

    (void) state;
    teach_short(w);
    for (i = 0; i < 2; i++) {
        make(w, i, 100, 100)->prompts[0].ids = w->ids + 1000 * i;
        assert_int_equal(sched_add(w->s, i, &w->reqs[i]), 0);
    }
    for (t = 0; t < 500 && done < 2; t++) {
        (void) copy(w, 1);
        plan(w);
        commit(w);
        computed += w->b.tokens_n;
        done += (uint32_t) reap(w);
    }
    assert_int_equal(done, 2);
    sched_stats(w->s, &st);
    assert_true(st.preemptions > 0 && st.fetches > 0);
    assert_true(st.fetched_tokens > 50);
    assert_true(computed >= 2 * 199 && computed <= 2 * 199 + 40);
    (void) copy(w, 1);
    world_close_cache(w, 64);
}


/* A pool that copies under way make smaller than the one who must go on needs:
 * it waits for them, and for nothing else. */
static void
test_kept_back(void **state)
{
    world_t *w = world_open_tier(26);
    kv_tier_copy_t c;
    uint32_t t;

    (void) state;
    add(w, 0, 40, 60); /* 25 blocks in the end */
    turn(w);
    make(w, 1, 40, 1)->prompts[0].ids = w->ids + 1000;
    assert_int_equal(sched_add(w->s, 1, &w->reqs[1]), 0);
    finish(w, 1);
    assert_true(kv_tier_next(w->kv, 6, &c) && !c.in && c.n > 0);
    for (t = 0; t < 60 && !sched_done(w->s, 0); t++) {
        turn(w);
    }
    assert_false(sched_done(w->s, 0));
    assert_int_equal(w->b.rows_n, 0);
    kv_tier_done(w->kv, &c, 1);
    finish(w, 0);
    (void) copy(w, 1);
    world_close_cache(w, 26);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cache),
        cmocka_unit_test(test_follow),
        cmocka_unit_test(test_take_over),
        cmocka_unit_test(test_follow_bound),
        cmocka_unit_test(test_cache_choices),
        cmocka_unit_test(test_cache_preempt),
        cmocka_unit_test(test_cache_taken_back),
        cmocka_unit_test(test_cache_aborts),
        cmocka_unit_test(test_cache_share),
        cmocka_unit_test(test_fetch),
        cmocka_unit_test(test_fetch_fails),
        cmocka_unit_test(test_fetch_cancelled),
        cmocka_unit_test(test_resume_by_copy),
        cmocka_unit_test(test_kept_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
