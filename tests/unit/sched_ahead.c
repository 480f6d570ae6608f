/*
 * Catches a scheduler whose answers depend on the planning depth; one that
 * takes a late token from the wrong output, forgets one, or counts one that
 * nobody sampled; that gives a block away or into the cache while a row in
 * flight still uses it; and that hands out what a discarded row sampled.
 *
 * The device keeps a token per cache position of each group of layers, and
 * samples a hash of all that it reads back through the block table.  Steps run
 * as early or as late as they may, seeded.  Each request's text is compared to
 * that of depth 0, and each token to what follows from the text so far.
 */
#include "brief.h"
#include "flight.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

enum {
    REQS = 20,
    ROWS = 6,
    TOKENS = 24,
    CONTEXT = 80,
    BT = 4,
    BLOCKS = 44,
    TEXTS = 250, /* requests of a run */
    EOS = 7,
    GROUPS = 2
};

static const uint32_t windows[2][GROUPS] = {{0}, {0, 9}};

/* What a request is, by its number alone, and what became of it. */
typedef struct {
    uint32_t prompt[CONTEXT], prompt_n, max, n, flags, tenant;
    uint32_t cut[3]; /* token in which a stop string ends; NONE: in none */
    uint32_t text[3][CONTEXT], text_n[3], finish[3];
    uint32_t scored; /* prompt logprobs handed out, of all choices */
    int broken;      /* left, or its logits were not finite */
} text_t;

/* A step as the device has it. */
typedef struct {
    batch_t b;
    uint32_t tokens[TOKENS], tables[GROUPS][ROWS][CONTEXT];
    batch_row_t rows[ROWS];
    batch_out_t outs[ROWS];
    batch_late_t late[ROWS];
    uint32_t sampled[ROWS], bad[ROWS];
    int ran;
} dev_step_t;

typedef struct {
    uint32_t depth, groups;
    kv_t *kv;
    sched_t *s;
    batch_t b[2];
    flight_t flight; /* batches planned and not committed */
    dev_step_t dev[2];
    uint32_t last[ROWS], last_n; /* what the step before sampled */
    uint32_t mem[GROUPS][BLOCKS * BT];
    req_t reqs[REQS];
    uint32_t item[REQS]; /* whose it is; NONE: free */
    text_t *texts;
    uint32_t next, done;
    sched_stats_t st;
    uint64_t now, rows, late, gone, blocked, trimmed, jumps, skipped;
} world_t;

static uint32_t seed;


static uint32_t
hash(uint32_t h, uint32_t v)
{
    h = (h ^ v) * 2654435761u;
    return h ^ h >> 15;
}


/* What follows these tokens; *bad: nothing finite does. */
static uint32_t
next_token(const uint32_t *ids, uint32_t n, uint32_t choice, uint32_t *bad)
{
    uint32_t h = hash(1, choice), i;

    for (i = 0; i < n; i++) {
        h = hash(h, ids[i]);
    }
    *bad = h % 1999 == 0;

    return h % 29 == 0 ? EOS : 10 + h % 300;
}


/* Request number i of the run, always the same. */
static void
text_make(text_t *t, uint32_t i)
{
    uint32_t h = hash(seed * 1000 + 5, i), k, stem = h % 3;

    memset(t, 0, sizeof(*t));
    t->prompt_n = 1 + (h >> 4) % 40;
    t->max = 1 + (h >> 10) % 30;
    t->n = 1 + (h >> 16) % 3;
    t->tenant = (h >> 18) % 3;
    t->flags = (h >> 20) % 4 == 0 ? LLM_F_IGNORE_EOS : 0;
    if ((h >> 22) % 6 == 0) {
        t->flags |= LLM_F_PROMPT_LPS;
        if ((h >> 24) % 2) {
            t->flags |= LLM_F_SCORE;
            t->max = 1;
        }
    }
    for (k = 0; k < t->prompt_n; k++) {
        t->prompt[k] = k < (h >> 25) ? stem * 100 + k : hash(h, k) % 300;
    }
    for (k = 0; k < 3; k++) {
        t->cut[k] = hash(h, k) % 5 ? NONE : hash(h, k) / 5 % 12;
    }
}


/* --- the device --------------------------------------------------------- */

static void
submit(world_t *w, uint32_t at)
{
    dev_step_t *d = &w->dev[at];
    const batch_t *b = &w->b[at];
    uint32_t i, g;

    d->b = *b;
    d->ran = 0;
    memcpy(d->tokens, b->tokens, b->tokens_n * sizeof(uint32_t));
    memcpy(d->rows, b->rows, b->rows_n * sizeof(batch_row_t));
    memcpy(d->outs, b->outs, b->outs_n * sizeof(batch_out_t));
    memcpy(d->late, b->late, b->late_n * sizeof(batch_late_t));
    for (i = 0; i < b->rows_n; i++) {
        for (g = 0; g < w->groups; g++) {
            memcpy(d->tables[g][i], b->rows[i].blocks[g].ids,
                b->rows[i].blocks[g].n * sizeof(uint32_t));
        }
    }
}


static uint32_t *
place(world_t *w, dev_step_t *d, uint32_t g, uint32_t row, uint32_t pos)
{
    const batch_blocks_t *t = &d->rows[row].blocks[g];
    uint32_t i = pos / BT - t->first;

    assert_true(pos / BT >= t->first && i < t->n);

    return &w->mem[g][d->tables[g][row][i] * BT + pos % BT];
}


/* The step computes, after the one before it. */
static void
run(world_t *w, dev_step_t *d)
{
    uint32_t i, k, g, from, ids[CONTEXT];
    const batch_row_t *r;
    const batch_out_t *o;

    assert_false(d->ran);
    d->ran = 1;
    for (i = 0; i < d->b.late_n; i++) {
        assert_true(d->late[i].out < w->last_n);
        assert_int_equal(d->tokens[d->late[i].tok], 0);
        d->tokens[d->late[i].tok] = w->last[d->late[i].out];
    }
    for (i = 0; i < d->b.rows_n; i++) {
        r = &d->rows[i];
        for (g = 0; g < w->groups; g++) {
            for (k = 0; k < r->q_len; k++) {
                *place(w, d, g, i, r->q_start + k) = d->tokens[r->tok + k];
            }
        }
    }
    for (i = 0; i < d->b.outs_n; i++) {
        o = &d->outs[i];
        r = &d->rows[o->row];
        for (k = 0; k <= o->pos; k++) {
            ids[k] = *place(w, d, 0, o->row, k);
        }
        from = o->pos >= 9 ? o->pos - 8 : 0;
        for (k = from; w->groups > 1 && k <= o->pos; k++) {
            assert_int_equal(*place(w, d, 1, o->row, k), ids[k]);
        }
        d->sampled[i] = next_token(ids, o->pos + 1, o->choice, &d->bad[i]);
    }
    w->last_n = d->b.outs_n;
    memcpy(w->last, d->sampled, w->last_n * sizeof(uint32_t));
}


/* --- events ------------------------------------------------------------- */

static void
end(world_t *w, uint32_t i)
{
    sched_end(w->s, i);
    w->item[i] = NONE;
    w->done++;
    flight_check(&w->flight, w->s, w->kv);
}


static void
arrive(world_t *w, uint32_t i)
{
    req_t *r = &w->reqs[i];
    text_t *t = &w->texts[w->next];

    text_make(t, w->next);
    memset(r, 0, sizeof(*r));
    r->n = r->choices = t->n;
    r->prompts_n = 1;
    r->prompts[0].ids = t->prompt;
    r->prompts[0].len = t->prompt_n;
    r->max_tokens = t->max;
    r->flags = t->flags;
    r->weight = 1;
    r->tenant = t->tenant;
    r->space = t->tenant / 2;
    r->priority = w->next % 7 == 0;
    w->item[i] = w->next++;
    assert_int_equal(sched_add(w->s, i, r), 0);
}


/* At any time: some come, some leave, some have credit or none. */
static void
events(world_t *w)
{
    uint32_t i = (uint32_t) rand() % REQS;

    if (w->item[i] == NONE) {
        if (w->next < TEXTS && rand() % 2) {
            arrive(w, i);
        }
    } else if (rand() % 60 == 0) {
        w->texts[w->item[i]].broken = 1;
        end(w, i);
    } else {
        sched_credit(w->s, i, rand() % 4 != 0 || w->next == TEXTS);
    }
}


/* A choice has one token more; stop strings are found some tokens later. */
static void
token(world_t *w, const sched_take_t *t)
{
    text_t *x = &w->texts[w->item[t->req]];
    uint32_t c = t->choice, ids[CONTEXT], bad, n = x->text_n[c];

    assert_int_equal(x->finish[c], LLM_FINISH_NONE);
    assert_int_equal(t->index, n);
    memcpy(ids, x->prompt, x->prompt_n * sizeof(uint32_t));
    memcpy(ids + x->prompt_n, x->text[c], n * sizeof(uint32_t));
    assert_int_equal(t->token, next_token(ids, x->prompt_n + n, c, &bad));
    assert_false(bad);
    x->text[c][x->text_n[c]++] = t->token;
    x->finish[c] = t->finish;
}


/* Some tokens are so certain that those behind them need not be sampled: into
 * more, and how many. */
static uint32_t
forced(world_t *w, const dev_step_t *d, uint32_t i, uint32_t *more)
{
    const batch_out_t *o = &d->outs[i];
    uint32_t seq = d->rows[o->row].seq, n = o->known_n, k, room, bad;
    uint32_t ids[CONTEXT + SCHED_MORE_MAX + 1];
    const text_t *x = &w->texts[w->item[seq / LLM_CHOICES_MAX]];

    if (o->wanted > 0 || d->bad[i] || d->sampled[i] == EOS
        || (x->flags & LLM_F_SCORE) || d->sampled[i] % 5 > 0) {
        return 0;
    }
    memcpy(ids, o->known, n * sizeof(uint32_t));
    ids[n++] = d->sampled[i];
    room = sched_more_room(w->s, seq);
    for (k = 0; k < room && k < 1 + d->sampled[i] % 4; k++) {
        more[k] = ids[n] = next_token(ids, n, o->choice, &bad);
        if (bad || more[k] == EOS) {
            break;
        }
        n++;
    }

    return k;
}


/* Tells of the stop strings found, if it is time. */
static void
stops(world_t *w, int now)
{
    uint32_t i, c, k;
    text_t *x;

    for (i = 0; i < REQS; i++) {
        for (c = 0; w->item[i] != NONE && c < w->reqs[i].choices; c++) {
            x = &w->texts[w->item[i]];
            k = x->cut[c];
            if (k == NONE || x->text_n[c] <= k || x->finish[c] == 99
                || (x->flags & LLM_F_SCORE)
                || (!now && x->finish[c] == 0 && rand() % 3)) {
                continue;
            }
            if (x->finish[c] == LLM_FINISH_NONE || x->text_n[c] > k + 1) {
                (void) sched_cut(w->s, i, c, k);
                x->text_n[c] = k + 1;
                x->finish[c] = 99;
                flight_check(&w->flight, w->s, w->kv);
            }
        }
        if (w->item[i] != NONE && sched_done(w->s, i)) {
            end(w, i);
        }
    }
}


/* --- a run -------------------------------------------------------------- */

/* What is left of the next step, if who has ended is taken out. */
static void
trim(world_t *w, uint32_t at)
{
    uint32_t rows = w->b[at].rows_n;

    sched_trim(w->s, &w->b[at]);
    w->trimmed += rows - w->b[at].rows_n;
    flight_drop(&w->flight);
    if (w->b[at].rows_n > 0) {
        flight_push(&w->flight, w->kv, &w->b[at]);
    }
    flight_check(&w->flight, w->s, w->kv);
}


/* The step has ended; early: the next one has been given to the device. */
static void
commit(world_t *w, uint32_t at, int early)
{
    dev_step_t *d = &w->dev[at];
    uint32_t more[ROWS][SCHED_MORE_MAX], i, k, jumps = 0;
    sched_take_t takes[ROWS], t;
    int gone;

    if (!d->ran) {
        run(w, d);
    }
    memset(takes, 0, sizeof(takes));
    for (i = 0; i < d->b.outs_n; i++) {
        takes[i].token = d->sampled[i];
        takes[i].err = d->bad[i];
        takes[i].ends = d->sampled[i] == EOS;
        gone = w->depth > 0
               && w->s->steps[w->s->step_at].seqs[d->outs[i].row] == NONE;
        if (!early && !gone) {
            takes[i].more = more[i];
            takes[i].more_n = forced(w, d, i, more[i]);
            jumps += takes[i].more_n > 0;
        }
    }
    flight_pop(&w->flight);
    sched_commit(w->s, &w->b[at], takes);
    if (jumps > 0 && w->b[1 - at].rows_n > 0) {
        w->skipped++;
        trim(w, 1 - at);
    }
    w->jumps += jumps;
    flight_check(&w->flight, w->s, w->kv);

    for (i = 0; i < d->b.outs_n; i++) {
        if (takes[i].gone) {
            w->gone++;
        } else if (w->item[takes[i].req] == NONE) {
            continue; /* an output of its request before it was bad */
        } else if (takes[i].err) {
            w->texts[w->item[takes[i].req]].broken = 1;
            end(w, takes[i].req);
        } else if (takes[i].prompt) {
            w->texts[w->item[takes[i].req]].scored++;
        } else {
            token(w, &takes[i]);
            for (t = takes[i], k = 0; k < takes[i].more_n; k++) {
                t.token = more[i][k];
                t.index++;
                token(w, &t);
            }
        }
    }
    stops(w, 0);
}


static void
plan(world_t *w, uint32_t at, int ahead)
{
    w->now += 1000;
    sched_plan(w->s, w->now, &w->b[at]);
    kv_check_deep(w->kv);
    w->blocked += ahead && w->b[at].rows_n == 0;
    w->rows += w->b[at].rows_n;
    w->late += w->b[at].late_n;
    if (w->b[at].rows_n > 0) {
        flight_push(&w->flight, w->kv, &w->b[at]);
    }
    flight_check(&w->flight, w->s, w->kv);
}


/* One step to its commit, with the next one planned meanwhile. */
static void
turn(world_t *w, uint32_t *at)
{
    uint32_t cur = *at, next = 1 - cur;
    int early = 0, planned;

    if (w->b[cur].rows_n == 0) {
        plan(w, cur, 0);
    }
    if (w->b[cur].rows_n == 0) {
        return;
    }
    if (w->dev[cur].ran == 0 || w->dev[cur].b.rows != w->b[cur].rows) {
        submit(w, cur);
    }
    w->b[next].rows_n = 0;
    if (w->depth > 0 && rand() % 10) {
        if (rand() % 2 && !w->dev[cur].ran) {
            run(w, &w->dev[cur]);
        }
        events(w);
        plan(w, next, 1);
        events(w);
        early = w->b[next].rows_n > 0 && rand() % 2;
        if (early) { /* queued before anybody knows how the first ended */
            submit(w, next);
            if (w->dev[cur].ran && rand() % 2) {
                run(w, &w->dev[next]);
            }
        }
    }
    commit(w, cur, early);
    w->b[cur].rows_n = 0;
    w->dev[cur].b.rows = NULL;
    events(w);
    planned = w->b[next].rows_n > 0;
    if (planned && !early && rand() % 4) {
        trim(w, next);
    }
    *at = w->b[next].rows_n > 0 ? next : cur;
}


static void
world_run(world_t *w, uint32_t depth, uint32_t groups, text_t *texts,
    const sched_policy_t *policy)
{
    kv_cfg_t kc = {BLOCKS, BT, 0, CONTEXT, TOKENS * (1 + depth), groups,
        windows[groups - 1]};
    sched_cfg_t sc;
    uint32_t i, at = 0, turns = 0;

    memset(w, 0, sizeof(*w));
    memset(&sc, 0, sizeof(sc));
    sc.reqs = REQS;
    sc.rows = ROWS;
    sc.tokens = TOKENS;
    sc.context = CONTEXT;
    sc.depth = depth;
    sc.policy = policy;
    sc.floor = 5;
    kc.seqs = sched_seqs(&sc);
    w->depth = depth;
    w->groups = groups;
    w->texts = texts;
    w->kv = kv_open(&kc);
    assert_int_equal(kv_cache(w->kv, 2 * REQS, seed), 0);
    w->s = sched_open(&sc, w->kv);
    assert_non_null(w->s);
    for (i = 0; i < 2; i++) {
        w->b[i].rows_max = w->b[i].outs_max = ROWS;
        w->b[i].tokens_max = TOKENS;
        w->b[i].rows = calloc(ROWS, sizeof(batch_row_t));
        w->b[i].outs = calloc(ROWS, sizeof(batch_out_t));
        w->b[i].tokens = calloc(TOKENS, sizeof(uint32_t));
        w->b[i].late = calloc(ROWS, sizeof(batch_late_t));
    }
    for (i = 0; i < REQS; i++) {
        w->item[i] = NONE;
    }

    srand(seed);
    while (w->done < TEXTS) {
        events(w);
        turn(w, &at);
        assert_true(++turns < 50000); /* it hangs */
    }
    assert_int_equal(w->flight.n, w->b[at].rows_n > 0);
    if (w->b[at].rows_n > 0) {
        trim(w, at);
        assert_int_equal(w->b[at].rows_n, 0);
    }
    assert_int_equal(kv_count(w->kv, KV_PRIVATE), 0);
    assert_int_equal(kv_avail(w->kv), BLOCKS);
    sched_stats(w->s, &w->st);
    assert_true(w->st.wasted <= w->gone);

    sched_close(w->s);
    kv_close(w->kv);
    for (i = 0; i < 2; i++) {
        free(w->b[i].rows);
        free(w->b[i].outs);
        free(w->b[i].tokens);
        free(w->b[i].late);
    }
}


/* Both depths, of all that was not broken off, gave the same. */
static uint32_t
compare(const text_t *a, const text_t *b)
{
    uint32_t i, c, n = 0;

    for (i = 0; i < TEXTS; i++) {
        if (a[i].broken || b[i].broken) {
            continue;
        }
        n++;
        assert_int_equal(a[i].scored, b[i].scored);
        for (c = 0; c < a[i].n; c++) {
            assert_int_equal(a[i].text_n[c], b[i].text_n[c]);
            assert_int_equal(a[i].finish[c], b[i].finish[c]);
            assert_memory_equal(
                a[i].text[c], b[i].text[c], a[i].text_n[c] * sizeof(uint32_t));
        }
    }

    return n;
}


static void
same_texts(uint32_t groups, const sched_policy_t *policy, uint32_t from)
{
    static text_t texts[2][TEXTS];
    static world_t w;
    uint64_t late = 0, gone = 0, wasted = 0, blocked = 0, trimmed = 0, hits = 0;
    uint64_t preempted = 0, rows = 0, jumps = 0, skipped = 0;
    uint32_t compared = 0, seeds = brief() ? 2 : 12;

    for (seed = from; seed < from + seeds; seed++) {
        world_run(&w, 0, groups, texts[0], policy);
        assert_int_equal(w.late + w.gone + w.st.wasted, 0);
        world_run(&w, 1, groups, texts[1], policy);
        compared += compare(texts[0], texts[1]);
        late += w.late;
        rows += w.rows;
        gone += w.gone;
        wasted += w.st.wasted;
        blocked += w.blocked;
        trimmed += w.trimmed;
        preempted += w.st.preemptions;
        hits += w.st.cache_hits;
        jumps += w.jumps;
        skipped += w.skipped;
    }

    /* it had all weathers */
    assert_true(compared > seeds * TEXTS / 3);
    assert_true(late > rows / 4);
    assert_true(gone > 10 * seeds && wasted > 5 * seeds);
    assert_true(blocked > seeds && trimmed > 10 * seeds);
    assert_true(preempted > seeds && hits > 100 * seeds);
    assert_true(jumps > 100 * seeds && skipped > 50 * seeds);
}


static void
test_same_texts(void **state)
{
    (void) state;
    same_texts(1, &sched_fair, 1);
}


static void
test_same_texts_windows(void **state)
{
    (void) state;
    same_texts(2, &sched_fair, 100);
}


static void
test_same_texts_prefix(void **state)
{
    (void) state;
    same_texts(1, &sched_prefix, 200);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_texts),
        cmocka_unit_test(test_same_texts_windows),
        cmocka_unit_test(test_same_texts_prefix),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
