/*
 * Catches a policy that stalls a stream behind a prompt, exceeds a batch's
 * limits, starves a tenant or a class, preempts the wrong sequence or forgets
 * what it knew, and limits (concurrent, queue_max, queue_ms, max_tokens,
 * context) that are off by one.
 */
#include "brief.h"
#include "sched_world.h"

static void
test_chunks(void **state)
{
    world_t *w = world_open(8, 32, 256, 256);
    static const uint32_t lens[] = {32, 32, 32, 4, 1, 1};
    uint32_t i, at = 0, k;
    const batch_row_t *r;

    (void) state;
    add(w, 5, 100, 10);

    for (i = 0; i < 6; i++) {
        plan(w);
        assert_int_equal(w->b.rows_n, 1);
        r = row_of(w, 5);
        assert_non_null(r);
        assert_int_equal(r->q_start, at);
        assert_int_equal(r->q_len, lens[i]);
        assert_int_equal(r->kv_len, at + lens[i]);
        assert_true(r->blocks[0].n * BT >= r->kv_len);
        for (k = 0; k < r->q_len && at + k < 100; k++) {
            assert_int_equal(w->b.tokens[r->tok + k], w->ids[at + k]);
        }
        at += lens[i];
        assert_int_equal(w->b.outs_n, at >= 100);
        if (at >= 100) {
            assert_int_equal(w->b.outs[0].pos, at - 1);
            assert_int_equal(w->b.outs[0].known_n, at);
            assert_int_equal(w->b.outs[0].prompt_n, 100);
        }
        commit(w);
        if (at >= 100) {
            assert_int_equal(w->takes[0].req, 5);
            assert_int_equal(w->takes[0].index, at - 100);
            assert_int_equal(w->takes[0].finish, LLM_FINISH_NONE);
            assert_int_equal(w->takes[0].shown, 1);
        }
    }

    /* what was sampled is the next row's token */
    plan(w);
    assert_int_equal(w->b.tokens[0], 1000 + at - 1);
    sched_end(w->s, 5);
    assert_int_equal(kv_count(w->kv, KV_FREE), 256);
    world_close(w);
}


/* Decodes get their row in every step while long prompts pour in. */
static void
test_stall_free(void **state)
{
    world_t *w = world_open(8, 16, 512, 2048);
    uint32_t i, t, next = 3;

    (void) state;
    for (i = 0; i < 3; i++) {
        add(w, i, 4, 300);
    }
    turn(w);
    assert_int_equal(w->b.outs_n, 3);

    for (t = 0; t < 250; t++) {
        if (next < REQS) {
            make(w, next, 200 + t, 2)->tenant = t % 5;
            assert_int_equal(sched_add(w->s, next, &w->reqs[next]), 0);
            next++;
        }
        plan(w);
        for (i = 0; i < 3; i++) {
            assert_non_null(row_of(w, i));
            assert_int_equal(row_of(w, i)->q_len, 1);
        }
        /* and the budget is spent, never exceeded */
        assert_int_equal(w->b.tokens_n, 16);
        commit(w);
        (void) reap(w);
    }
    world_close(w);
}


/* More sequences than rows: all are served in the end, none beyond limits. */
static void
test_seats(void **state)
{
    world_t *w = world_open(4, 64, 64, 1024);
    uint32_t i, done = 0, t;

    (void) state;
    for (i = 0; i < 20; i++) {
        add(w, i, 5, 7);
    }
    for (t = 0; t < 200 && done < 20; t++) {
        turn(w);
        assert_true(w->b.rows_n <= 4);
        done += (uint32_t) reap(w);
    }
    assert_int_equal(done, 20);
    assert_int_equal(kv_count(w->kv, KV_FREE), 1024);
    world_close(w);
}


/* One token per batch is the smallest engine there is; it must not hang. */
static void
test_tiny_batch(void **state)
{
    world_t *w = world_open(1, 1, 64, 16);
    uint32_t i, done = 0, t;

    (void) state;
    for (i = 0; i < 3; i++) {
        add(w, i, 6, 3);
    }
    for (t = 0; t < 100 && done < 3; t++) {
        turn(w);
        done += (uint32_t) reap(w);
    }
    assert_int_equal(done, 3);
    assert_int_equal(t, 3 * (6 + 2));
    world_close(w);
}


static void
test_choices(void **state)
{
    world_t *w = world_open(8, 64, 64, 128);
    req_t *r = make(w, 0, 6, 3);
    uint32_t i, seen = 0;

    (void) state;
    r->n = 2;
    r->prompts_n = 2;
    r->choices = 4;
    r->prompts[1].ids = w->ids + 50;
    r->prompts[1].len = 9;
    assert_int_equal(sched_add(w->s, 0, r), 0);
    plan(w);
    assert_int_equal(w->b.rows_n, 4);
    for (i = 0; i < 4; i++) {
        assert_int_equal(w->b.rows[i].q_len, i < 2 ? 6 : 9);
        assert_int_equal(w->b.tokens[w->b.rows[i].tok], w->ids[i < 2 ? 0 : 50]);
        seen |= 1u << w->b.outs[i].choice;
    }
    assert_int_equal(seen, 15);
    commit(w);
    turn(w);
    assert_false(sched_done(w->s, 0));
    turn(w);
    for (i = 0; i < 4; i++) {
        assert_int_equal(w->takes[i].finish, LLM_FINISH_LENGTH);
        assert_int_equal(w->takes[i].index, 2);
    }
    assert_true(sched_done(w->s, 0));
    assert_int_equal(sched_completion(w->s, 0), 12);
    sched_end(w->s, 0);
    world_close(w);
}


static void
test_ends(void **state)
{
    world_t *w = world_open(8, 64, 16, 64);
    uint32_t k;

    (void) state;
    add(w, 0, 4, 100); /* context: 16 */
    add(w, 1, 4, 8);
    make(w, 2, 4, 8)->flags = LLM_F_IGNORE_EOS;
    assert_int_equal(sched_add(w->s, 2, &w->reqs[2]), 0);
    add(w, 3, 4, 8);
    add(w, 4, 4, 1);

    plan(w);
    memset(w->takes, 0, sizeof(w->takes));
    for (k = 0; k < w->b.outs_n; k++) {
        uint32_t req = w->b.rows[w->b.outs[k].row].seq / LLM_CHOICES_MAX;

        w->takes[k].token = END;
        w->takes[k].ends = req == 1 || req == 2;
        w->takes[k].err = req == 3 ? LLM_ERR_NAN_LOGITS : 0;
    }
    sched_commit(w->s, &w->b, w->takes);
    for (k = 0; k < w->b.outs_n; k++) {
        switch (w->takes[k].req) {
        case 1:
            assert_int_equal(w->takes[k].finish, LLM_FINISH_STOP);
            assert_int_equal(w->takes[k].shown, 0);
            break;
        case 2:
            assert_int_equal(w->takes[k].finish, LLM_FINISH_NONE);
            assert_int_equal(w->takes[k].shown, 0);
            break;
        case 3:
            assert_int_equal(sched_completion(w->s, 3), 0);
            break;
        case 4:
            assert_int_equal(w->takes[k].finish, LLM_FINISH_LENGTH);
            assert_int_equal(w->takes[k].shown, 1);
            break;
        default:
            assert_int_equal(w->takes[k].finish, LLM_FINISH_NONE);
        }
    }
    assert_true(sched_done(w->s, 1) && sched_done(w->s, 4));
    assert_int_equal(sched_completion(w->s, 1), 1);
    sched_end(w->s, 1);
    sched_end(w->s, 3);
    sched_end(w->s, 4);

    for (k = 0; k < 50 && !sched_done(w->s, 0); k++) {
        turn(w);
    }
    assert_int_equal(sched_completion(w->s, 0), 12);
    assert_int_equal(sched_completion(w->s, 2), 8);
    assert_true(sched_done(w->s, 2));
    world_close(w);
}


/* Tokens that follow a sampled one are one row with it, and no prompt: others
 * that decode have theirs, as small as the step may be. */
static void
test_more(void **state)
{
    static const uint32_t more[] = {501, 502, 503};
    world_t *w = world_open(3, 6, 64, 64);
    uint32_t k;

    (void) state;
    add(w, 0, 4, 9);
    turn(w);
    assert_int_equal(sched_more_room(w->s, 0), 6);
    add(w, 1, 4, 40);
    add(w, 2, 3, 40);
    turn(w);
    turn(w);

    /* 4 + 9 at the end; 7 are known, one comes with the step */
    plan(w);
    assert_int_equal(w->b.rows_n, 3);
    memset(w->takes, 0, sizeof(w->takes));
    for (k = 0; k < w->b.outs_n; k++) {
        w->takes[k].token = 900;
        if (w->b.rows[w->b.outs[k].row].seq == 0) {
            assert_int_equal(sched_more_room(w->s, 0), 4);
            w->takes[k].more = more;
            w->takes[k].more_n = 3;
        }
    }
    sched_commit(w->s, &w->b, w->takes);
    assert_int_equal(sched_completion(w->s, 0), 7);

    plan(w);
    assert_int_equal(w->b.rows_n, 3);
    assert_int_equal(w->b.tokens_n, 6);
    assert_int_equal(row_of(w, 0)->q_len, 4);
    assert_int_equal(w->b.tokens[row_of(w, 0)->tok], 900);
    assert_memory_equal(
        w->b.tokens + row_of(w, 0)->tok + 1, more, sizeof(more));
    assert_int_equal(w->b.outs_n, 3);
    commit(w);
    for (k = 0; k < w->b.outs_n; k++) {
        assert_int_equal(
            w->takes[k].index, w->takes[k].req == 0 ? 7 : 4 - w->takes[k].req);
    }

    /* the last one is sampled */
    assert_int_equal(sched_more_room(w->s, 0), 0);
    turn(w);
    assert_int_equal(sched_done(w->s, 0), 1);

    for (k = 0; k < 3; k++) {
        sched_end(w->s, k);
    }
    world_close(w);
}


/* A text that is whole ends with its last token, which is shown. */
static void
test_over(void **state)
{
    world_t *w = world_open(2, 8, 64, 64);

    (void) state;
    add(w, 0, 4, 9);
    plan(w);
    memset(w->takes, 0, sizeof(w->takes));
    w->takes[0].token = 900;
    w->takes[0].over = 1;
    sched_commit(w->s, &w->b, w->takes);
    assert_int_equal(w->takes[0].finish, LLM_FINISH_STOP);
    assert_int_equal(w->takes[0].shown, 1);
    sched_end(w->s, 0);
    world_close(w);
}


static void
test_cut(void **state)
{
    world_t *w = world_open(8, 64, 64, 64);
    uint32_t t;

    (void) state;
    add(w, 0, 4, 20);
    for (t = 0; t < 6; t++) {
        turn(w);
    }
    assert_int_equal(sched_completion(w->s, 0), 6);
    assert_int_equal(sched_cut(w->s, 0, 0, 3), 2);
    assert_int_equal(sched_completion(w->s, 0), 4);
    assert_true(sched_done(w->s, 0));
    assert_int_equal(kv_count(w->kv, KV_FREE), 64);
    assert_int_equal(sched_cut(w->s, 0, 0, 3), 0); /* said twice */
    plan(w);
    assert_int_equal(w->b.rows_n, 0);
    sched_end(w->s, 0);
    world_close(w);
}


/* Two tenants, always backlogged: one with long prompts, one with short. */
static void
fair(uint32_t weight, uint64_t slack)
{
    enum { BUDGET = 32 };
    world_t *w = world_open(16, BUDGET, 512, 4096);
    uint32_t owner[REQS], i, t;
    uint64_t a, b, d, most = 0;
    req_t *r;

    memset(owner, 255, sizeof(owner));
    for (t = 0; t < 3000; t++) {
        for (i = 0; i < REQS; i++) {
            if (owner[i] != UINT32_MAX) {
                continue;
            }
            owner[i] = i % 2;
            r = i % 2 ? make(w, i, 3 + t % 9, 1) : make(w, i, 300 + t % 90, 1);
            r->tenant = 70 + i % 2;
            r->weight = i % 2 ? 1 : weight;
            assert_int_equal(sched_add(w->s, i, r), 0);
        }
        turn(w);
        for (i = 0; i < w->b.outs_n; i++) {
            if (sched_done(w->s, w->takes[i].req)) {
                sched_end(w->s, w->takes[i].req);
                owner[w->takes[i].req] = UINT32_MAX;
            }
        }
        a = sched_service(w->s, 70);
        b = sched_service(w->s, 71);
        d = a > b ? a - b : b - a;
        most = d > most ? d : most;
    }

    assert_true(most <= slack * SCHED_SCALE);
    assert_true(a / SCHED_SCALE > 3000 * BUDGET / 4 / weight);
    world_close(w);
}


static void
test_fair(void **state)
{
    (void) state;
    fair(1, 2 * 32);
    fair(3, 2 * 32);
}


/* Having been away saves up a quantum and no more, and costs nothing. */
static void
test_newcomer(void **state)
{
    world_t *w = world_open(8, 32, 512, 400);
    const uint32_t quantum = 8 * 32;
    uint32_t t, i, rows[2] = {0, 0}, k;

    (void) state;
    for (i = 0; i < 20; i++) {
        make(w, i, 400, 1)->tenant = 1;
        assert_int_equal(sched_add(w->s, i, &w->reqs[i]), 0);
    }
    for (t = 0; t < 100; t++) {
        turn(w);
        (void) reap(w);
    }
    for (i = 20; i < 40; i++) {
        make(w, i, 400, 1)->tenant = 2;
        assert_int_equal(sched_add(w->s, i, &w->reqs[i]), 0);
    }
    assert_true(sched_service(w->s, 2) >= (90 * 32 - quantum) * SCHED_SCALE);
    for (t = 0; t < 100; t++) {
        plan(w);
        for (k = 0; k < w->b.rows_n; k++) {
            rows[w->b.rows[k].seq / LLM_CHOICES_MAX >= 20] +=
                w->b.rows[k].q_len;
        }
        commit(w);
        (void) reap(w);
    }
    assert_true(rows[1] >= rows[0] && rows[1] - rows[0] <= quantum + 128);
    world_close(w);
}


static void
test_classes(void **state)
{
    world_t *w = world_open(2, 16, 64, 64);

    (void) state;
    /* low first, then high: high gets the budget and a seat at once */
    make(w, 0, 30, 4)->priority = 3;
    make(w, 1, 30, 4)->priority = 3;
    assert_int_equal(sched_add(w->s, 0, &w->reqs[0]), 0);
    assert_int_equal(sched_add(w->s, 1, &w->reqs[1]), 0);
    turn(w);
    turn(w);
    assert_int_equal(state_of(w, 1), SCHED_RUNNING);
    make(w, 2, 20, 4)->priority = 0;
    assert_int_equal(sched_add(w->s, 2, &w->reqs[2]), 0);
    plan(w);
    assert_non_null(row_of(w, 2));
    assert_int_equal(row_of(w, 2)->q_len, 15);    /* 0 decodes */
    assert_int_equal(state_of(w, 1), SCHED_HELD); /* keeps its blocks */
    commit(w);
    while (!sched_done(w->s, 2)) {
        turn(w);
        assert_non_null(row_of(w, 2));
    }
    sched_end(w->s, 2);
    turn(w);
    assert_int_equal(state_of(w, 1), SCHED_RUNNING);
    world_close(w);
}


/* The pool is empty when a decode must grow. */
static void
test_preempt_order(void **state)
{
    world_t *w = world_open(8, 64, 32, 8); /* 8 blocks of 4 */
    sched_stats_t st;
    uint32_t known, computed, t;

    (void) state;
    teach_short(w);
    add(w, 0, 6, 20); /* 2 blocks each */
    turn(w);
    make(w, 1, 6, 20)->priority = 1;
    assert_int_equal(sched_add(w->s, 1, &w->reqs[1]), 0);
    turn(w);
    add(w, 2, 6, 20);
    turn(w);
    assert_int_equal(state_of(w, 0), SCHED_RUNNING);
    assert_int_equal(state_of(w, 1), SCHED_RUNNING);

    /* request 2 finds room only when there is some to spare for growth */
    for (t = 0; t < 30 && state_of(w, 1) == SCHED_RUNNING; t++) {
        turn(w);
    }

    /* the lowest class went first, although it is not the latest */
    sched_stats(w->s, &st);
    assert_true(st.preemptions >= 1);
    assert_int_equal(state_of(w, 1), SCHED_WAITING);
    assert_int_equal(state_of(w, 0), SCHED_RUNNING);
    (void) sched_seq(w->s, 1 * LLM_CHOICES_MAX, &known, &computed);
    assert_true(known > 6);
    assert_int_equal(computed, 0);

    /* in the end all finish, each with all its tokens */
    for (t = 0; t < 200; t++) {
        turn(w);
        if (sched_done(w->s, 0) && sched_done(w->s, 1) && sched_done(w->s, 2)) {
            break;
        }
    }
    assert_int_equal(sched_completion(w->s, 0), 20);
    assert_int_equal(sched_completion(w->s, 1), 20);
    assert_int_equal(sched_completion(w->s, 2), 20);
    assert_int_equal(kv_count(w->kv, KV_FREE), 8);
    world_close(w);
}


/* A stalled client costs nobody else: its blocks go first. */
static void
test_dry_first(void **state)
{
    world_t *w = world_open(8, 64, 32, 8);
    sched_stats_t st;
    const batch_row_t *r;
    uint32_t t;

    (void) state;
    add(w, 0, 14, 10); /* 4 blocks, the most important one */
    turn(w);
    sched_credit(w->s, 0, 0);
    sched_credit(w->s, 0, 0); /* one edge */
    turn(w);
    assert_null(row_of(w, 0));
    assert_int_equal(state_of(w, 0), SCHED_HELD);
    sched_stats(w->s, &st);
    assert_int_equal(st.credit_stalls, 1);
    assert_int_equal(st.stalled, 1);
    assert_int_equal(st.preemptions, 0);

    add(w, 1, 22, 8); /* 6 blocks: needs those of the stalled one */
    turn(w);
    assert_non_null(row_of(w, 1));
    assert_int_equal(state_of(w, 0), SCHED_WAITING);
    sched_stats(w->s, &st);
    assert_int_equal(st.preemptions, 1);

    sched_credit(w->s, 0, 1);
    sched_stats(w->s, &st);
    assert_int_equal(st.stalled, 0);
    for (t = 0; t < 100 && !sched_done(w->s, 0); t++) {
        turn(w);
        r = row_of(w, 0);
        if (r != NULL && r->q_start == 0) {
            /* resumes with what it had: prompt and one token */
            assert_int_equal(r->q_len, 15);
            assert_int_equal(w->b.tokens[r->tok + 14], 1000 + 13);
        }
    }
    assert_int_equal(sched_completion(w->s, 0), 10);
    while (!sched_done(w->s, 1)) {
        turn(w);
    }
    world_close(w);
}


static void
test_limits(void **state)
{
    world_t *w = world_open(8, 64, 64, 256);
    sched_stats_t st;
    uint32_t i, req;

    (void) state;
    for (i = 0; i < 5; i++) {
        make(w, i, 4, 4)->concurrent = 2;
        w->reqs[i].queue_max = 2;
        w->reqs[i].queue_ms = 50;
        /* two run, two wait, one is too many */
        assert_int_equal(
            sched_add(w->s, i, &w->reqs[i]), i < 4 ? 0 : -LLM_ERR_BUSY);
    }
    add(w, 10, 4, 4);
    w->reqs[10].tenant = 0;
    turn(w);
    sched_stats(w->s, &st);
    assert_int_equal(st.running, 2);
    /* 10 is of the same tenant, without limit of its own, but in line */
    assert_int_equal(st.waiting, 3);
    assert_true(sched_expires_us(w->s) == 50 * 1000);

    w->now = 50 * 1000;
    plan(w);
    assert_true(sched_expired(w->s, &req));
    assert_int_equal(req, 2);
    sched_end(w->s, req);
    assert_true(sched_expired(w->s, &req));
    assert_int_equal(req, 3);
    sched_end(w->s, req);
    assert_false(sched_expired(w->s, &req));
    assert_true(sched_expires_us(w->s) == UINT64_MAX);
    commit(w);
    world_close(w);
}


/* The largest one that fits the pool gets it, though small ones keep coming. */
static void
test_large_gets_in(void **state)
{
    world_t *w = world_open(8, 64, 64, 16); /* 64 tokens in all */
    uint32_t i, t, next = 1, done = 0;

    (void) state;
    for (i = 1; i < 5; i++, next++) {
        add(w, i, 6, 6);
    }
    turn(w);
    add(w, 0, 60, 3);
    for (t = 0; t < 200 && !sched_done(w->s, 0); t++) {
        if (next < REQS) {
            add(w, next++, 6, 6);
        }
        turn(w);
        for (i = 0; i < w->b.outs_n; i++) {
            if (w->takes[i].req != 0 && sched_done(w->s, w->takes[i].req)) {
                sched_end(w->s, w->takes[i].req);
                done++;
            }
        }
    }
    assert_true(sched_done(w->s, 0));
    assert_true(t < 60);
    world_close(w);
}


/* Nobody small slips past one that waits for blocks. */
static void
test_door(void **state)
{
    world_t *w = world_open(8, 64, 64, 16);

    (void) state;
    add(w, 0, 24, 8); /* 7 blocks */
    turn(w);
    add(w, 1, 40, 8); /* 11 blocks: not now */
    add(w, 2, 4, 2);
    make(w, 3, 4, 2)->tenant = 9;
    w->reqs[3].priority = 1;
    assert_int_equal(sched_add(w->s, 3, &w->reqs[3]), 0);

    while (!sched_done(w->s, 0)) {
        turn(w);
        assert_int_equal(state_of(w, 1), SCHED_QUEUED);
        assert_int_equal(state_of(w, 2), SCHED_QUEUED);
        assert_int_equal(state_of(w, 3), SCHED_QUEUED);
    }
    sched_end(w->s, 0);
    turn(w);
    assert_int_equal(state_of(w, 1), SCHED_RUNNING);
    assert_int_equal(state_of(w, 2), SCHED_RUNNING);
    world_close(w);
}


/* A row's blocks are there for all that its tokens read and write. */
static void
check_blocks(const batch_row_t *r, uint32_t groups, const uint32_t *windows)
{
    uint32_t g, first;
    const batch_blocks_t *b;

    for (g = 0; g < groups; g++) {
        b = &r->blocks[g];
        first = windows[g] > 0 && r->q_start >= windows[g]
                    ? (r->q_start - windows[g] + 1) / BT
                    : 0;
        assert_int_equal(b->first, first);
        assert_true((b->first + b->n) * BT >= r->kv_len);
    }
}


/* The first tokens of every prompt are kept for all. */
static void
pin(world_t *w, uint32_t tokens)
{
    const kv_who_t all = kv_everyone();

    assert_int_equal(kv_grow(w->kv, 0, tokens), 0);
    kv_insert(w->kv, 0, &all, w->ids, tokens);
    kv_slide(w->kv, 0, tokens, tokens);
    assert_int_equal(kv_pin(w->kv, 0), 0);
    assert_int_equal(kv_fits(w->kv), 64);
    kv_check_deep(w->kv);
}


/* A world for a storm; cache 2: with what all prompts begin with pinned. */
static world_t *
storm_open(unsigned seed, uint32_t blocks, uint32_t groups,
    const uint32_t *windows, sched_cfg_t c, int cache)
{
    world_t *w = world_open_as(
        6, 24, 64, blocks + (cache > 1 ? 12 : 0), groups, windows, c);

    assert_true(!cache || kv_cache(w->kv, 4, seed) == 0);
    if (cache > 1) {
        pin(w, groups == 1 ? 48 : 24);
    }

    return w;
}


/* Everything at random; limits and sums hold, and all come to an end. */
static void
storm(unsigned seed, uint32_t blocks, uint32_t groups, const uint32_t *windows,
    sched_cfg_t c, int cache)
{
    world_t *w = storm_open(seed, blocks, groups, windows, c, cache);
    uint32_t i, t, req, k, live_n = 0, rows;
    uint8_t live[REQS] = {0};
    uint64_t seen[REQS];
    sched_stats_t st;
    req_t *r;

    srand(seed);
    for (t = 0; t < 4000 || live_n > 0; t++) {
        assert_true(t < 20000);
        i = (uint32_t) rand() % REQS;
        if (!live[i] && t < 4000 && rand() % 3 == 0) {
            r = make(
                w, i, 1 + (uint32_t) rand() % 50, 1 + (uint32_t) rand() % 13);
            r->tenant = (uint32_t) rand() % 4;
            r->priority = (uint32_t) rand() % 3;
            r->weight = 1 + (uint32_t) rand() % 3;
            r->concurrent = rand() % 2 ? 0 : 2;
            r->queue_max = rand() % 2 ? 0 : 3;
            r->queue_ms = rand() % 3 ? 0 : 40;
            r->n = r->choices = 1 + (uint32_t) rand() % 3;
            if (sched_add(w->s, i, r) == 0) {
                live[i] = 1;
                live_n++;
            }
        } else if (live[i] && rand() % 40 == 0) {
            sched_end(w->s, i);
            live[i] = 0;
            live_n--;
        } else if (live[i]) {
            sched_credit(w->s, i, t >= 4000 || rand() % 3 != 0);
        }
        if (t >= 4000) {
            for (i = 0; i < REQS; i++) {
                if (live[i]) {
                    sched_credit(w->s, i, 1);
                }
            }
        }

        plan(w);
        while (sched_expired(w->s, &req)) {
            sched_end(w->s, req);
            live[req] = 0;
            live_n--;
        }
        memset(seen, 0, sizeof(seen));
        for (k = 0, rows = 0; k < w->b.rows_n; k++) {
            req = w->b.rows[k].seq / LLM_CHOICES_MAX;
            assert_true(live[req]);
            assert_false(seen[req] >> (w->b.rows[k].seq % LLM_CHOICES_MAX) & 1);
            seen[req] |= 1u << (w->b.rows[k].seq % LLM_CHOICES_MAX);
            rows += w->b.rows[k].q_len;
            check_blocks(&w->b.rows[k], groups, windows);
        }
        assert_int_equal(rows, w->b.tokens_n);
        assert_true(rows <= 24 && w->b.rows_n <= 6);
        commit(w);
        if (w->b.rows_n > 0) {
            sched_took(w->s, &w->b, (uint64_t) rand() % 4000);
        }
        for (k = 0; k < w->b.outs_n; k++) {
            req = w->takes[k].req;
            if (live[req] && sched_done(w->s, req)) {
                sched_end(w->s, req);
                live[req] = 0;
                live_n--;
            }
        }
    }

    sched_stats(w->s, &st);
    assert_int_equal(st.waiting + st.running + st.stalled, 0);
    assert_true(st.preemptions > 10);
    assert_int_equal(kv_avail(w->kv), kv_total(w->kv) - kv_pinned(w->kv));
    assert_true((cache > 0) == (st.cache_hits > 500));
    assert_true(cache == 0 || kv_evicted(w->kv) > 100);
    world_close(w);
}


static void
test_storm(void **state)
{
    static const uint32_t none[1];
    sched_cfg_t c;
    unsigned seed;

    (void) state;
    memset(&c, 0, sizeof(c));
    for (seed = 1; seed <= (brief() ? 4 : 12); seed++) {
        storm(seed, 20, 1, none, c, 0);
        if (seed <= 3) {
            storm(seed, 20, 1, none, c, 1);
            storm(seed, 20, 1, none, c, 2);
        }
        c.policy = seed % 2 ? &sched_fcfs : &sched_fair;
        c.target_us = seed % 3 * 1000;
        c.tile = 1 + seed % 5;
    }
}


/* The same where layers have windows. */
static void
test_windows(void **state)
{
    static const uint32_t windows[] = {0, 10, 10}, all[] = {10};
    sched_cfg_t c;
    unsigned seed;

    (void) state;
    memset(&c, 0, sizeof(c));
    for (seed = 1; seed <= (brief() ? 2 : 6); seed++) {
        storm(seed, 44, 3, windows, c, 0);
        if (seed <= (brief() ? 1 : 2)) {
            storm(seed, 44, 3, windows, c, 1);
            storm(seed, 44, 3, windows, c, 2);
        }
        storm(seed, 16, 1, all, c, 0);
    }
}


/* --- logprobs of prompts -------------------------------------------------- */

/*
 * Runs to the end; each position of the prompts must be asked for once, with
 * the token behind it, and never more than the batch has room for.
 */
static void
run_scores(world_t *w, uint32_t reqs, uint32_t *seen, uint32_t *sampled)
{
    sched_take_t takes[16];
    const batch_out_t *o;
    uint32_t steps = 0, i, done = 0, req;

    memset(seen, 0, reqs * 64 * sizeof(*seen));
    memset(sampled, 0, reqs * sizeof(*sampled));

    while (done < reqs) {
        assert_true(steps++ < 500);
        plan(w);
        assert_true(w->b.outs_n <= w->b.outs_max && w->b.rows_n > 0);
        memset(takes, 0, sizeof(takes));
        for (i = 0; i < w->b.outs_n; i++) {
            o = &w->b.outs[i];
            req = w->b.rows[o->row].seq / LLM_CHOICES_MAX;
            assert_int_equal(w->b.tokens[o->tok], o->known[o->pos]);
            takes[i].token = 7;
            if (o->wanted > 0) {
                assert_int_equal(o->wanted - 1, w->ids[o->pos + 1]);
                assert_ptr_equal(o->params, &w->reqs[req].prompt_params);
                seen[req * 64 + o->pos]++;
            } else {
                assert_ptr_equal(o->params, &w->reqs[req].params);
                sampled[req]++;
            }
        }
        sched_commit(w->s, &w->b, takes);
        for (i = 0; i < w->b.outs_n; i++) {
            assert_int_equal(takes[i].prompt, w->b.outs[i].wanted > 0);
            if (takes[i].prompt) {
                assert_int_equal(takes[i].index, w->b.outs[i].pos + 1);
                assert_int_equal(takes[i].finish, LLM_FINISH_NONE);
            } else if (takes[i].finish != LLM_FINISH_NONE) {
                done++;
            }
        }
    }
}


static void
test_scores(void **state)
{
    static const uint32_t outs[] = {2, 3, 7, 16}, blocks[] = {64, 9};
    uint32_t seen[3 * 64], sampled[3], k, b, i, p;
    world_t *w;
    req_t *r;

    (void) state;
    for (k = 0; k < 4; k++) {
        for (b = 0; b < 2; b++) {
            w = world_open(2, 12, 64, blocks[b]);
            free(w->b.outs);
            w->b.outs = calloc(16, sizeof(batch_out_t));
            w->b.outs_max = outs[k];
            for (i = 0; i < 3; i++) {
                r = make(w, i, i == 2 ? 1 : 20, i == 1 ? 1 : 6);
                r->flags = LLM_F_PROMPT_LPS | (i == 1 ? LLM_F_SCORE : 0);
                assert_int_equal(sched_add(w->s, i, r), 0);
            }
            run_scores(w, 3, seen, sampled);
            for (i = 0; i < 3; i++) {
                for (p = 0; p < 64; p++) {
                    assert_int_equal(seen[i * 64 + p], i < 2 && p < 19 ? 1 : 0);
                }
                assert_int_equal(sampled[i], i == 1 ? 1 : 6);
                assert_int_equal(sched_completion(w->s, i), i == 1 ? 0 : 6);
                sched_end(w->s, i);
            }
            world_close(w);
        }
    }
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scores),
        cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_stall_free),
        cmocka_unit_test(test_seats),
        cmocka_unit_test(test_tiny_batch),
        cmocka_unit_test(test_choices),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_more),
        cmocka_unit_test(test_over),
        cmocka_unit_test(test_fair),
        cmocka_unit_test(test_newcomer),
        cmocka_unit_test(test_classes),
        cmocka_unit_test(test_preempt_order),
        cmocka_unit_test(test_dry_first),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_large_gets_in),
        cmocka_unit_test(test_door),
        cmocka_unit_test(test_storm),
        cmocka_unit_test(test_windows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
