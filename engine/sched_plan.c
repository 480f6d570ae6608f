/*
 * The plan of one step: who sits, whose blocks are taken, which rows.  The
 * order is told in sched.c; this file is its sched_plan() and the passes that
 * policies compose a step of.
 *
 * DESIGN.  A plan is these passes, each bounded by the live requests, the
 * seats or the active tenants:
 *
 *      expire   those that have waited too long; find the most important ones
 *      seats    out of credit: stand up; in credit again: sit down
 *      top      the oldest one that has begun keeps or gets what it needs
 *      floor    one of a lower class that is owed gets in (sched_floor.c)
 *      urgent   one of a higher class gets in before lower ones
 *      claim    who is far behind gets in before who is ahead
 *      ones     a row for everyone who lacks one token         } as the
 *      prompts  what is left of the budget, tenant by tenant   } policy says
 *
 * Whoever takes blocks from sequences with credit does it before the first row
 * is written, so no victim has a row in this batch; if one has a row in the
 * step in flight, there is no plan (sched_ahead.c).
 */
#include "sched_int.h"
#include "kv_tier.h"

#include <assert.h>
#include <string.h>

/* Sequences that one plan finds to be another's followers, at most: each
 * costs a look at the cache. */
#define PLAN_FOLLOWERS 64

int
sched_may_start(const sched_t *s, const sreq_t *sr)
{
    return sr->r->concurrent == 0
           || s->tenants[sr->tenant].started < sr->r->concurrent;
}


/* Starts that the mean time between them goes back to. */
#define GAPS 16


/* From the queue into the tenant's ready list, choice by choice. */
static void
req_start(sched_t *s, uint32_t req)
{
    sreq_t *sr = &s->reqs[req];
    tenant_t *t = &s->tenants[sr->tenant];
    uint32_t c, id, near = sched_seated_before(s, s->lane_links[req].key);
    uint64_t gap_us;

    assert(sr->r != NULL && !sr->started && !sr->expired);
    assert(t->waiting > 0);

    /* who starts at once tells nothing about how long others wait */
    if (sr->r->arrival_us <= s->then_us && s->then_us > 0) {
        gap_us = s->now_us > t->queue_us ? s->now_us - t->queue_us : 0;
        t->gaps += t->gaps < GAPS;
        t->gap_us = (t->gap_us * (t->gaps - 1) + gap_us) / t->gaps + 1;
    }
    t->queue_us = s->now_us;

    sched_unqueue(s, req);
    lanes_insert_near(
        &s->begun, s->lane_links, req, near == NONE ? NONE : seq_req(near));
    t->started++;
    sr->started = 1;
    s->started_n++;
    s->stalled_n += !sr->credit;

    for (c = 0; c < sr->r->choices; c++) {
        id = req * LLM_CHOICES_MAX + c;
        sched_seq_state(seq_at(s, id), SCHED_WAITING);
        list_insert(&t->ready, s->links, id);
    }
    t->next_ok = 0;
}


/* --- what those seated will need ---------------------------------------- */

/* A group of layers more is a token's blocks more. */
static uint32_t
growth_tokens(const sched_t *s)
{
    uint32_t n = kv_block_tokens(s->kv) / kv_groups(s->kv);

    return n > 0 ? n : 1;
}


static void
plan_futures(sched_t *s)
{
    uint32_t i, id, lacks, holds;
    const sched_guess_t *g;

    memset(&s->futures, 0, sizeof(s->futures));
    s->lacking = s->holding = 0;
    for (i = 0; i < s->run_n; i++) {
        id = s->run[i];
        if (i + SCHED_FETCH_ROWS < s->run_n) {
            g = &s->guesses[s->reqs[seq_req(s->run[i + SCHED_FETCH_ROWS])]
                                .tenant];
            __builtin_prefetch(g->mean);
            __builtin_prefetch(g->mean + 16);
        }
        lacks = sched_lacks(s, id);
        holds = seq_held(s, id);
        s->lacking += lacks;
        s->holding += holds;
        sched_futures_add(
            &s->futures, lacks + (uint64_t) holds, sched_to_come(s, id));
    }
    s->foreseen = 1;
}


/*
 * Is there room for a waiting sequence, now and, as far as can be guessed,
 * until it ends?  Takes what those without credit hold.
 */
static int
room_for(sched_t *s, uint32_t id)
{
    uint64_t need, have = kv_avail(s->kv) + sched_dry_blocks(s);
    uint32_t lacks = kv_missing(s->kv, id, seq_at(s, id)->known_n + 1);
    uint32_t holds = seq_held(s, id), more = sched_to_come(s, id), v;
    uint64_t blocks = lacks + (uint64_t) holds;
    int fits;

    assert(s->run_n < s->seats);

    if (!s->foreseen) {
        plan_futures(s);
    }
    sched_futures_add(&s->futures, blocks, more);

    /* what it has found in the cache it holds already; alone it fits, whatever
     * it may come to need */
    need = lacks + s->lacking;
    if (s->run_n == 0) {
        fits = need <= have;
    } else {
        have += holds + s->holding;
        fits = sched_futures_peak(&s->futures, growth_tokens(s)) <= have;
    }

    fits = fits && sched_share_lets(s, id, blocks, more);
    while (fits && kv_avail(s->kv) < need) {
        v = sched_victim(s, 0);
        fits = v != NONE && !s->reqs[seq_req(v)].credit
               && !seq_flies(seq_at(s, v));
        if (fits) { /* else they share theirs with others */
            sched_preempt(s, v);
        }
    }

    if (fits) {
        s->lacking += lacks;
        s->holding += holds;
    } else {
        sched_futures_remove(&s->futures, blocks, more);
    }

    return fits;
}


/* Gives a waiting sequence a seat; blocks follow as it is computed. */
static void
seq_admit(sched_t *s, uint32_t id)
{
    seq_t *q = seq_at(s, id);

    assert(q->state == SCHED_WAITING && q->computed < q->known_n);
    assert(!seq_follows(q) && seq_held(s, id) == kv_held(s->kv, id));

    if (q->known_n == q->prompt_n) {
        memcpy(seq_known(s, id), sched_cache_tokens(s, id),
            q->prompt_n * sizeof(uint32_t));
        q->last = seq_known(s, id)[q->prompt_n - 1];
    }

    sched_cache_admitted(s, id);
    sched_seat(s, id);
    s->prompts += s->prompts != NONE;
}


/*
 * Looks what the cache has of a sequence without blocks, and keeps it if it
 * may be admitted.  *full: there are no blocks for the rest.
 */
static int
seq_enter(sched_t *s, uint32_t id, int *full)
{
    sched_cache_match(s, id);

    *full = 0;
    if (!sched_cache_follow(s, id)) {
        if (!room_for(s, id)) {
            *full = 1;
        } else if (!sched_cache_fetch(s, id)) {
            return 1;
        }
    }

    sched_cache_unmatch(s, id);

    return 0;
}


/* --- plan --------------------------------------------------------------- */

/* Takes out of the queues those that waited too long.  They are walked only
 * when somebody's time may be up. */
static void
plan_expire(sched_t *s, uint64_t now_us)
{
    uint32_t class = lanes_next(&s->queue, 0), req, next;

    if (now_us < s->expires_us) {
        return;
    }
    s->expires_us = UINT64_MAX;

    for (; class < SCHED_CLASSES; class = lanes_next(&s->queue, class + 1)) {
        for (req = s->queue.of[class].head; req != NONE; req = next) {
            next = s->lane_links[req].next;
            if (s->reqs[req].expires_us <= now_us) {
                sched_unqueue(s, req);
                s->reqs[req].expired = 1;
                list_insert(&s->expired, s->wait_links, req);
            } else if (s->reqs[req].expires_us < s->expires_us) {
                s->expires_us = s->reqs[req].expires_us;
            }
        }
    }
}


/* The most important request that has begun and is not stalled; NONE. */
static uint32_t
first_begun(const sched_t *s)
{
    uint32_t class = lanes_next(&s->begun, 0), req;

    for (; class < SCHED_CLASSES; class = lanes_next(&s->begun, class + 1)) {
        for (req = s->begun.of[class].head; req != NONE;
             req = s->lane_links[req].next) {
            if (s->reqs[req].credit && s->reqs[req].open_n > 0) {
                return req;
            }
        }
    }

    return NONE;
}


/* And the most important one that could begin. */
static uint32_t
first_startable(const sched_t *s)
{
    uint32_t class = lanes_next(&s->queue, 0), req;

    for (; class < SCHED_CLASSES; class = lanes_next(&s->queue, class + 1)) {
        for (req = s->queue.of[class].head; req != NONE;
             req = s->lane_links[req].next) {
            if (s->reqs[req].credit && sched_may_start(s, &s->reqs[req])) {
                return req;
            }
        }
    }

    return NONE;
}


/* Who has no credit stands up; who has it again sits down, if there is room. */
static void
plan_seats(sched_t *s)
{
    uint32_t i = 0, id, next;

    while (s->credits && i < s->run_n) {
        if (s->reqs[seq_req(s->run[i])].credit) {
            i++;
        } else {
            sched_hold(s, s->run[i]);
        }
    }

    s->credits = 0;

    for (id = s->held.head; id != NONE && s->run_n < s->seats; id = next) {
        next = s->links[id].next;
        if (s->reqs[seq_req(id)].credit) {
            sched_seat(s, id);
        }
    }
}


/* A seat for id, if need be that of one of class `from` or below. */
static int
take_seat(sched_t *s, uint32_t from)
{
    uint32_t v;

    if (s->run_n < s->seats) {
        return 1;
    }
    v = sched_worst_seated(s, from);
    if (v == NONE) {
        return 0;
    }
    sched_hold(s, v);

    return 1;
}


/* Gives id what the cache has of it; 0: it waits for who computes the same, or
 * for what is fetched. */
static int
plan_match(sched_t *s, uint32_t id)
{
    if (sched_cache_waits(s, id)) {
        return 0;
    }

    sched_cache_match(s, id);
    if (sched_cache_follow(s, id) || sched_cache_fetch(s, id)) {
        sched_cache_unmatch(s, id);
        return 0;
    }

    return 1;
}


/* Others give way before the top takes what is kept for other tenants; 0: the
 * step in flight uses what they have. */
static int
top_room(sched_t *s, uint32_t id, uint32_t need)
{
    uint32_t v;

    while (kv_room(s->kv, id, need) < need
           && (v = sched_share_victim(s, id, need)) != NONE) {
        if (!sched_may_preempt(s, v)) {
            return 0;
        }
        sched_preempt(s, v);
        s->pressed = 1;
    }

    return 1;
}


/*
 * The oldest request of the highest class that has begun: its first open
 * choice keeps its blocks in this plan, and gets, by force if the ordinary way
 * would not do, what it lacks.  All others are behind it and could be made to
 * give way, so there is always one that comes to its end.
 */
static void
plan_top(sched_t *s, uint32_t req)
{
    uint32_t id = req * LLM_CHOICES_MAX, need;
    uint32_t end = id + s->reqs[req].r->choices;
    const seq_t *q;
    int rc, waiting, room;

    while (id < end
           && (seq_at(s, id)->state == SCHED_ENDED
               || seq_at(s, id)->known_n == seq_at(s, id)->limit)) {
        id++;
    }
    if (id == end) {
        assert(s->steps_n > 0); /* all have their last token in flight */
        return;
    }
    s->top = id;
    q = seq_at(s, id);
    waiting = q->state == SCHED_WAITING;
    if (waiting && !plan_match(s, id)) {
        return;
    }

    need = kv_missing(s->kv, id, q->known_n + 1);
    room = top_room(s, id, need);
    if (q->state == SCHED_RUNNING && need <= kv_avail(s->kv)) {
        return;
    }
    if (!room || !sched_take_blocks(s, need, 0)
        || (q->state != SCHED_RUNNING && !take_seat(s, 0))) {
        if (waiting) {
            sched_cache_unmatch(s, id);
        }
        return;
    }

    if (q->state == SCHED_HELD) {
        sched_seat(s, id);
    } else if (q->state == SCHED_WAITING) {
        seq_admit(s, id);
    }
    rc = sched_grow(s, id, q->known_n + 1);
    assert(rc == 0);
    (void) rc;
}


/* A request that has not begun gets in by force where a lower class sits. */
static void
plan_urgent(sched_t *s, uint32_t req)
{
    uint32_t id = req * LLM_CHOICES_MAX, need, from;
    int rc;

    from = key_class(s->links[id].key) + 1;
    if (sched_victim(s, from) == NONE || !plan_match(s, id)) {
        return;
    }

    need = kv_missing(s->kv, id, seq_at(s, id)->known_n + 1);
    if (!sched_take_blocks(s, need, from) || !take_seat(s, from)) {
        sched_cache_unmatch(s, id);
        return;
    }

    req_start(s, req);
    seq_admit(s, id);
    rc = sched_grow(s, id, seq_at(s, id)->known_n + 1);
    assert(rc == 0);
    (void) rc;
}


/*
 * Blocks first, for all, and then the rows: so whose blocks are taken has no
 * row yet.
 */
void
sched_pass_ones(sched_t *s, batch_t *b)
{
    uint32_t i = 0, id, v, n, room;

    assert(b->rows_n == 0);

    while (i < s->run_n) {
        id = s->run[i];
        if (i + SCHED_FETCH_ROWS < s->run_n) {
            seq_fetch(s, s->run[i + SCHED_FETCH_ROWS]);
        }

        if (seq_decodes(seq_at(s, id)) == 0
            || seq_reaches(seq_at(s, id), seq_at(s, id)->known_n)
            || sched_share_grow(s, id, seq_at(s, id)->known_n) == 0) {
            i++;
            continue;
        }

        /* the victim may be id itself, or stand before it */
        v = sched_share_victim(
            s, id, kv_missing(s->kv, id, seq_at(s, id)->known_n));
        v = v == NONE ? sched_victim(s, 0) : v;
        if (v == NONE) { /* a copy has the block, or who ended in the step in
                          * flight: the next one will do */
            assert(kv_tier_keeps(s->kv) > 0 || s->steps_n > 0);
            i++;
            continue;
        }
        if (!sched_may_preempt(s, v)) {
            return;
        }
        if (seq_at(s, v)->state == SCHED_RUNNING
            && s->links[v].key < s->links[id].key) {
            i--;
        }
        sched_preempt(s, v);
        s->pressed = 1;
    }

    s->prompts = 0;
    for (i = 0; i < s->run_n; i++) {
        id = s->run[i];
        s->prompts += seq_prompts(seq_at(s, id));
        n = seq_decodes(seq_at(s, id));
        if (n > 0
            && (seq_reaches(seq_at(s, id), seq_at(s, id)->known_n)
                || kv_missing(s->kv, id, seq_at(s, id)->known_n) == 0)) {
            /* and one for each of the others */
            room = s->c.tokens - b->tokens_n - (s->run_n - 1 - i);
            sched_row(s, b, id, n < room ? n : room);
        }
    }
}


/* No tenant has unfinished prompts, as far as is known. */
static void
todo_none(sched_t *s)
{
    while (s->todo_n > 0) {
        s->tenants[s->todo[--s->todo_n]].todo = NONE;
    }
}


/* Hands each tenant its seated unfinished prompts, by importance. */
static void
plan_todo(sched_t *s)
{
    uint32_t i, id;
    tenant_t *t;

    todo_none(s);

    for (i = 0; s->prompts > 0 && i < s->run_n; i++) {
        id = s->run[i];
        if (!seq_prompts(seq_at(s, id)) || id == s->floor_seq) {
            continue;
        }

        t = seq_tenant(s, id);
        if (t->todo == NONE) {
            t->todo = id;
            s->todo[s->todo_n++] = s->reqs[seq_req(id)].tenant;
        } else {
            seq_at(s, t->todo_tail)->todo = id;
        }
        t->todo_tail = id;
        seq_at(s, id)->todo = NONE;
    }
}


/* Finds what tenant t would do next of class `from` or below, of all that has
 * no seat. */
static void
find_next(sched_t *s, tenant_t *t, uint32_t from)
{
    uint32_t id = t->ready.head, req = NONE;

    while (id != NONE
           && (key_class(s->links[id].key) < from
               || !s->reqs[seq_req(id)].credit || seq_follows(seq_at(s, id)))) {
        id = s->links[id].next;
    }

    if (t->wait.head != NONE && sched_may_start(s, &s->reqs[t->wait.head])) {
        req = sched_order_pick(s, t, from);
    }
    if (req != NONE && !sched_may_start(s, &s->reqs[req])) {
        req = NONE;
    }

    t->next = id;
    t->next_kind = PICK_READY;
    t->next_key = id == NONE ? UINT64_MAX : s->links[id].key;
    t->next_match = 0;
    if (req != NONE
        && (id == NONE
            || key_class(s->looks[req].key) < key_class(t->next_key))) {
        t->next = req * LLM_CHOICES_MAX;
        t->next_kind = PICK_WAIT;
        t->next_key = s->looks[req].key;
        t->next_match = s->looks[req].match;
    }
    t->next_ok = from == 0 && !s->plain;
}


/* Finds what tenant t would do next of class `from` or below; admit: are there
 * seats and blocks? */
static void
plan_pick(sched_t *s, tenant_t *t, uint32_t from, int admit)
{
    t->pick = t->todo;
    t->pick_kind = t->todo != NONE ? PICK_TODO : PICK_NONE;
    if (!admit) {
        return;
    }

    if (!t->next_ok || from > 0 || s->plain) {
        find_next(s, t, from);
    }
    if (t->next != NONE
        && (t->todo == NONE
            || key_class(t->next_key) < key_class(s->links[t->todo].key))) {
        t->pick = t->next;
        t->pick_kind = t->next_kind;
    }
}


/* The same for all, who queue for their turns with it. */
#define PICKS_AHEAD 6
static void
plan_picks(sched_t *s, uint32_t from, int admit)
{
    uint32_t i, n = admit ? s->active_n : s->todo_n;
    const uint32_t *who = admit ? s->active : s->todo;
    tenant_t *t;

    sched_turn_none(s);
    for (i = 0; i < n; i++) {
        if (i + PICKS_AHEAD < n) {
            __builtin_prefetch(&s->tenants[who[i + PICKS_AHEAD]]);
        }
        t = &s->tenants[who[i]];
        plan_pick(s, t, from, admit);
        if (t->pick != NONE) {
            sched_turn_add(s, t);
        }
    }
    sched_turn_all(s);
}


uint32_t
sched_budget(const sched_t *s)
{
    uint32_t n = s->c.budget, tile = s->c.tile;

    return n >= tile ? n - n % tile : n;
}


/*
 * Prompts get on by this much a step where the target cannot be held; by as
 * little as this where it can, even if that leaves a tile unfilled.
 */
#define CHUNK_LEAST 16
#define CHUNK_FEW   4


/*
 * How many of the want tokens that sequence id still lacks go into this step;
 * 0: none, and none of anyone behind it.
 */
static uint32_t
chunk(sched_t *s, const batch_t *b, uint32_t id, uint32_t want, uint32_t cap,
    int whole, int first)
{
    uint32_t room = s->c.tokens - b->tokens_n, left, least, most, n;
    int scored = (s->reqs[seq_req(id)].r->flags & LLM_F_PROMPT_LPS) != 0;

    if (whole) {
        left = cap > b->tokens_n ? cap - b->tokens_n : 0;
        n = want <= room && (want <= left || first) ? want : 0;
        return n;
    }

    left = cap > b->tokens_n ? cap - b->tokens_n : 0;
    want = want < left ? want : left;
    if (s->c.target_us == 0 || s->decoding == 0 || want == 0) {
        return want;
    }

    n = sched_pace_room(
        &s->pace, &s->load, seq_at(s, id)->computed, want, scored);
    if (n > 0 || !first) {
        return n;
    }

    most = sched_pace_most(
        &s->pace, &s->load, seq_at(s, id)->computed, want, scored);
    if (most >= CHUNK_FEW) {
        return most;
    }
    least = s->c.tile > CHUNK_LEAST ? s->c.tile : CHUNK_LEAST;

    return want < least ? want : least;
}


/* Blocks for the next n tokens of a seated prompt: as many as there are. */
static uint32_t
chunk_blocks(sched_t *s, uint32_t id, uint32_t n, int whole)
{
    uint32_t computed = seq_at(s, id)->computed, lo = 0, hi = n + 1, mid = n;
    uint32_t got = kv_missing(s->kv, id, computed + n);
    uint32_t room = sched_share_room(s, id, got);

    while (hi - lo > 1) { /* as a rule there is enough */
        if (kv_missing(s->kv, id, computed + mid) <= room) {
            lo = mid;
        } else if (whole) {
            return 0;
        } else {
            hi = mid;
        }
        mid = lo + (hi - lo) / 2;
    }
    if (lo == 0) {
        return 0;
    }

    got = kv_missing(s->kv, id, computed + lo);
    (void) sched_grow(s, id, computed + lo);
    if (s->foreseen) {
        assert(s->lacking >= got);
        s->lacking -= got;
        s->holding += got;
    }

    return lo;
}


/* The next n tokens of a seated prompt, as far as outputs and blocks allow; how
 * many rows that makes. */
static uint32_t
plan_piece(sched_t *s, batch_t *b, uint32_t id, uint32_t n, int whole)
{
    n = n > 0 ? sched_row_fit(s, b, id, n) : 0;
    n = n > 0 ? chunk_blocks(s, id, n, whole) : 0;
    if (n > 0) {
        sched_row(s, b, id, n);
    }

    return n > 0;
}


/* The prompt whose turn it is by the floor, before all others. */
static uint32_t
floor_piece(sched_t *s, batch_t *b, uint32_t cap, int whole)
{
    uint32_t id = s->floor_seq;

    /* it may have lost its blocks to a decode; a prompt of one token has its
     * row already */
    if (id == NONE || seq_at(s, id)->state != SCHED_RUNNING
        || !seq_prompts(seq_at(s, id))) {
        return 0;
    }

    return plan_piece(s, b, id,
        chunk(s, b, id, seq_at(s, id)->known_n - seq_at(s, id)->computed, cap,
            whole, 1),
        whole);
}


/*
 * Piece by piece, for the tenant whose turn it is.  One who waits for blocks
 * closes the door for all behind; so does the last seat.
 */
void
sched_pass_prompts(sched_t *s, batch_t *b, uint32_t cap, int whole)
{
    uint32_t id, n, pieces, tries = PLAN_FOLLOWERS;
    int open = !s->pressed && !s->shut && s->run_n < s->seats, shuts, full = 0;
    tenant_t *t;

    if (s->blocked) {
        return;
    }

    s->decoding = b->rows_n;
    s->foreseen = 0;
    cap = cap < s->c.tokens ? cap : s->c.tokens;
    pieces = floor_piece(s, b, cap, whole);
    plan_todo(s);
    plan_picks(s, 0, open);

    while (b->tokens_n < s->c.tokens && (t = sched_turn(s)) != NULL) {
        if (!sched_order_holds(s, t)) {
            plan_pick(s, t, 0, open);
            sched_turn_again(s);
            continue;
        }
        id = t->pick;
        n = chunk(s, b, id, seq_at(s, id)->known_n - seq_at(s, id)->computed,
            cap, whole, pieces == 0);
        if (n == 0) {
            return;
        }

        if (t->pick_kind == PICK_TODO) {
            t->todo = seq_at(s, id)->todo;
            shuts = 0;

        } else if (!seq_enter(s, id, &full)) {
            /* one who follows another keeps nobody out */
            n = 0;
            shuts = full || tries-- == 0;

        } else {
            if (t->pick_kind == PICK_WAIT) {
                req_start(s, seq_req(id));
            }
            seq_admit(s, id);
            n = chunk(s, b, id,
                seq_at(s, id)->known_n - seq_at(s, id)->computed, cap, whole,
                pieces == 0);
            shuts = s->run_n == s->seats;
        }

        pieces += plan_piece(s, b, id, n, whole);
        if (open && shuts) {
            open = 0;
            plan_picks(s, 0, 0);
        } else {
            plan_pick(s, t, 0, open);
            sched_turn_again(s);
        }
    }
}


/*
 * May what seated sequence v holds go to tenant t?  A seat only if v's tenant
 * has most of them: who streams is not to pause because others come.
 */
static int
claimable(
    const sched_t *s, const tenant_t *t, uint32_t class, int seat, uint32_t v)
{
    const tenant_t *o = &s->tenants[s->reqs[seq_req(v)].tenant];

    return v != s->top && o != t && key_class(s->links[v].key) >= class
           && (key_class(s->links[v].key) == class || !seq_at(s, v)->floor)
           && (!seat || o->seats > s->seats / 2) && s->policy->claims(s, t, o);
}


static uint32_t
worst_claimable(const sched_t *s, const tenant_t *t, uint32_t class, int seat)
{
    uint32_t i, v = NONE;

    for (i = 0; i < s->run_n; i++) {
        if (claimable(s, t, class, seat, s->run[i])) {
            v = sched_worse(s, v, s->run[i]);
        }
    }

    return v;
}


/* Has anyone who sits been served so much more than anyone who waits that the
 * policy may let this one take it?  As a rule not, and it is cheap to tell. */
static int
may_claim(const sched_t *s)
{
    const tenant_t *t, *least = NULL, *most = NULL;
    uint32_t i;

    for (i = 0; i < s->active_n; i++) {
        t = &s->tenants[s->active[i]];
        if ((t->waiting > 0 || t->ready.head != NONE)
            && (least == NULL || t->service < least->service)) {
            least = t;
        }
        if (t->sits > 0 && (most == NULL || t->service > most->service)) {
            most = t;
        }
    }

    return least != NULL && most != NULL && s->policy->claims(s, least, most);
}


/*
 * Whose turn it is but for whom there is no room takes it from those who were
 * served so much more that the policy lets it.
 */
static void
plan_claim(sched_t *s)
{
    uint32_t have;
    int seat = s->run_n == s->seats, rc;
    uint32_t i, id, class, need, v, claims = 0;
    tenant_t *t;

    if (!may_claim(s)) {
        return;
    }

    todo_none(s);
    for (i = 0; i < s->active_n; i++) {
        t = &s->tenants[s->active[i]];
        t->seats = t->sits;
    }
    /* nobody is to be forced out for the sake of a match */
    s->plain = 1;
    plan_picks(s, 0, 1);
    t = sched_turn(s);
    s->plain = 0;
    if (t == NULL) {
        return;
    }

    id = t->pick;
    class = key_class(s->links[id].key);
    for (i = 0; i < s->run_n; i++) {
        if (claimable(s, t, class, seat, s->run[i])) {
            claims++;
        }
    }
    if (claims == 0 || !plan_match(s, id)) {
        return;
    }

    /* what the match shares with them cannot be had from them */
    need = kv_missing(s->kv, id, seq_at(s, id)->known_n + 1) + s->run_n;
    have = sched_share_room(s, id, need);
    for (i = 0; have < need && i < s->run_n; i++) {
        if (claimable(s, t, class, seat, s->run[i])) {
            have += kv_own(s->kv, s->run[i]);
        }
    }

    /* what they leave behind may be kept for them */
    v = have < need ? NONE : id;
    while (v != NONE && sched_share_room(s, id, need) < need) {
        v = worst_claimable(s, t, class, seat);
        if (v != NONE && !sched_may_preempt(s, v)) {
            v = NONE;
        }
        if (v != NONE) {
            sched_preempt(s, v);
            s->pressed = 1;
        }
    }
    if (v == NONE) {
        sched_cache_unmatch(s, id);
        return;
    }
    if (s->run_n == s->seats) {
        v = worst_claimable(s, t, class, seat);
        assert(v != NONE);
        sched_hold(s, v);
    }
    if (t->pick_kind == PICK_WAIT) {
        req_start(s, seq_req(id));
    }
    seq_admit(s, id);
    rc = sched_grow(s, id, seq_at(s, id)->known_n + 1);
    assert(rc == 0);
    (void) rc;
}


/* Lets the next sequence of class `class` or below in by the floor: where there
 * is room, and nobody past it where there is not. */
static void
floor_admit(sched_t *s, uint32_t class)
{
    tenant_t *t;
    uint32_t id;

    todo_none(s);
    plan_picks(s, class, 1);
    while ((t = sched_turn(s)) != NULL && !sched_order_holds(s, t)) {
        plan_pick(s, t, class, 1);
        sched_turn_again(s);
    }
    if (t == NULL) {
        return;
    }

    id = t->pick;
    s->foreseen = 0;
    if (seq_enter(s, id, &s->shut)) {
        if (t->pick_kind == PICK_WAIT) {
            req_start(s, seq_req(id));
        }
        seq_admit(s, id);
        seq_at(s, id)->floor = 1;
        s->floor_seq = id;
    }
}


/*
 * The turn of a lower class that is owed something: one of its seated prompts
 * gets on, or else one that decodes is kept, or else one is let in.
 */
static void
plan_floor(sched_t *s)
{
    uint32_t class = sched_floor_turn(s), i, id, kept = NONE;
    seq_t *q;

    s->floor_seq = NONE;
    s->shut = 0;
    if (class == NONE) {
        return;
    }

    for (i = 0; i < s->run_n; i++) {
        id = s->run[i];
        q = seq_at(s, id);
        if (key_class(s->links[id].key) < class) {
            continue;
        }
        if (seq_prompts(q)) {
            q->floor = 1;
            s->floor_seq = id;
            return;
        }
        kept = kept == NONE && !q->floor ? id : kept;
    }

    if (kept != NONE) {
        seq_at(s, kept)->floor = 1;
    } else if (!s->pressed && s->run_n < s->seats) {
        floor_admit(s, class);
    }
}


void
sched_stall_free(sched_t *s, batch_t *b)
{
    sched_pass_ones(s, b);
    sched_pass_prompts(s, b, sched_budget(s), 0);
}


void
sched_plan(sched_t *s, uint64_t now_us, batch_t *b)
{
    uint32_t top, urgent;

    assert(s->c.depth == 0 || b->late != NULL);
    assert(b->rows_max >= s->c.rows && b->outs_max >= s->c.rows);
    assert(b->tokens_max >= s->c.tokens);

    s->then_us = s->now_us;
    s->now_us = now_us;
    b->rows_n = 0;
    b->tokens_n = 0;
    b->outs_n = 0;
    b->late_n = 0;
    sched_ahead_begin(s);
    s->pressed = 0;
    s->prompts = NONE;
    s->plans++;
    s->top = NONE;
    memset(&s->load, 0, sizeof(s->load));
    kv_time(s->kv, now_us);

    plan_expire(s, now_us);
    top = first_begun(s);
    urgent = first_startable(s);
    plan_seats(s);
    sched_cache_wait_all(s);
    sched_order_looks(s);
    if (top != NONE) {
        plan_top(s, top);
    }
    if (!s->blocked) {
        plan_floor(s);
    }
    if (urgent != NONE && !s->shut && !s->reqs[urgent].started && !s->blocked) {
        plan_urgent(s, urgent); /* the floor has not let it in yet */
    }
    if (s->policy->claims != NULL && !s->shut && !s->blocked) {
        plan_claim(s);
    }
    if (!s->blocked) {
        s->policy->compose(s, b);
    }
    sched_ahead_planned(s, b->rows_n);

    assert(b->rows_n <= s->run_n && s->run_n <= s->seats);
    assert(b->outs_n <= b->outs_max && (!s->blocked || b->rows_n == 0));
    kv_check(s->kv);
    SCHED_TELL(s, .type = SCHED_CALL_PLAN, .us = now_us, .b = b);
}
