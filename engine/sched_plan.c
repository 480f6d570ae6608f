/*
 * The plan of one step: who sits, whose blocks are taken, which rows.  The
 * policy is told in sched.c; this file is its sched_plan().
 *
 * DESIGN.  A plan is five passes, each bounded by the live requests, the
 * seats or the active tenants:
 *
 *      scan     expire the queues, find the most important request
 *      seats    out of credit: stand up; in credit again: sit down
 *      top      the most important request takes what it needs
 *      ones     a row for everyone who lacks one token
 *      prompts  what is left of the budget, tenant by tenant
 *
 * Only ones and top take blocks from sequences with credit, and both before
 * the victim could have a row in this batch.
 */
#include "sched_int.h"

#include <assert.h>
#include <string.h>

/* Sequences that one plan finds to be another's followers, at most: each
 * costs a look at the cache. */
#define PLAN_FOLLOWERS 64

/* What has begun goes before what has not. */
enum { PICK_TODO, PICK_READY, PICK_WAIT, PICK_NONE };


/* May the request start, as far as its tenant's own limit goes? */
static int
may_start(const sched_t *s, const sreq_t *sr)
{
    return sr->r->concurrent == 0
           || s->tenants[sr->tenant].started < sr->r->concurrent;
}


/* From the queue into the tenant's ready list, choice by choice. */
static void
req_start(sched_t *s, uint32_t req)
{
    sreq_t *sr = &s->reqs[req];
    tenant_t *t = &s->tenants[sr->tenant];
    uint32_t c, id;

    assert(sr->r != NULL && !sr->started && !sr->expired);
    assert(t->waiting > 0);

    list_remove(&t->wait, s->wait_links, req);
    t->waiting--;
    t->started++;
    sr->started = 1;
    s->started_n++;
    s->stalled_n += !sr->credit;

    for (c = 0; c < sr->r->choices; c++) {
        id = req * LLM_CHOICES_MAX + c;
        sched_seq_state(&s->seqs[id], SCHED_WAITING);
        list_insert(&t->ready, s->links, id);
    }
}


/* --- seats and blocks --------------------------------------------------- */

static void
run_insert(sched_t *s, uint32_t id)
{
    uint32_t i = s->run_n;

    assert(s->run_n < s->seats);

    while (i > 0 && s->links[s->run[i - 1]].key > s->links[id].key) {
        s->run[i] = s->run[i - 1];
        i--;
    }
    s->run[i] = id;
    s->run_n++;
}


static void
seq_seat(sched_t *s, uint32_t id)
{
    sched_seq_detach(s, id);
    sched_seq_state(&s->seqs[id], SCHED_RUNNING);
    run_insert(s, id);
}


static void
seq_hold(sched_t *s, uint32_t id)
{
    sched_seq_detach(s, id);
    sched_seq_state(&s->seqs[id], SCHED_HELD);
    list_insert(&s->held, s->links, id);
}


/* Takes its blocks away; what it knows stays, and is computed again. */
static void
seq_preempt(sched_t *s, uint32_t id)
{
    seq_t *q = &s->seqs[id];

    assert(q->state == SCHED_RUNNING || q->state == SCHED_HELD);

    sched_seq_detach(s, id);
    sched_seq_state(q, SCHED_WAITING);
    (void) kv_release(s->kv, id);
    q->computed = 0;
    list_insert(&seq_tenant(s, id)->ready, s->links, id);
    s->preemptions++;
}


/*
 * Whose blocks may be taken for a sequence of this key: the least important
 * one without credit, else the least important one behind key.
 */
static uint32_t
victim(const sched_t *s, uint64_t key)
{
    uint32_t id, last = s->held.tail;

    for (id = last; id != NONE; id = s->links[id].prev) {
        if (!s->reqs[seq_req(id)].credit) {
            return id;
        }
    }

    if (s->run_n > 0
        && (last == NONE
            || s->links[s->run[s->run_n - 1]].key > s->links[last].key)) {
        last = s->run[s->run_n - 1];
    }

    return last != NONE && s->links[last].key > key ? last : NONE;
}


/* Blocks that admission must leave to those who decode already. */
static uint64_t
reserve(const sched_t *s)
{
    return (uint64_t) s->run_n * kv_groups(s->kv);
}


/* Blocks held by sequences without credit: anyone may have them. */
static uint64_t
dry_blocks(const sched_t *s)
{
    uint64_t sum = 0;
    uint32_t id;

    for (id = s->held.head; id != NONE; id = s->links[id].next) {
        if (!s->reqs[seq_req(id)].credit) {
            sum += kv_held(s->kv, id);
        }
    }

    return sum;
}


/* Are there blocks for a waiting sequence?  Takes them from the dry ones. */
static int
room_for(sched_t *s, uint32_t id)
{
    uint64_t need, free_n = kv_avail(s->kv);
    uint32_t v;

    need =
        (uint64_t) kv_missing(s->kv, id, s->seqs[id].known_n + 1) + reserve(s);

    if (free_n >= need) {
        return 1;
    }
    if (free_n + dry_blocks(s) < need) {
        return 0;
    }

    while (kv_avail(s->kv) < need) {
        v = victim(s, UINT64_MAX);
        if (v == NONE) {
            return 0; /* others use those blocks, too */
        }
        assert(!s->reqs[seq_req(v)].credit);
        seq_preempt(s, v);
    }

    return 1;
}


/*
 * Gives a waiting sequence, which has what the cache had of it, the other
 * blocks and a seat, which must be there.
 */
static void
seq_admit(sched_t *s, uint32_t id)
{
    seq_t *q = &s->seqs[id];
    int rc;

    assert(q->state == SCHED_WAITING && q->computed < q->known_n);

    if (q->known_n == q->prompt_n) {
        memcpy(seq_known(s, id), sched_cache_tokens(s, id),
            q->prompt_n * sizeof(uint32_t));
    }

    rc = kv_grow(s->kv, id, q->known_n + 1);
    assert(rc == 0);
    (void) rc;

    sched_cache_admitted(s, id);
    seq_seat(s, id);
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
        if (room_for(s, id)) {
            return 1;
        }
        *full = 1;
    }

    sched_cache_unmatch(s, id);

    return 0;
}


/* --- plan --------------------------------------------------------------- */

/*
 * Walks the requests by importance: takes out of the queues those that
 * waited too long, and returns the first that could run, NONE if none.
 */
static uint32_t
plan_scan(sched_t *s, uint64_t now_us)
{
    uint32_t req, top = NONE;
    sreq_t *sr;
    tenant_t *t;

    s->expires_us = UINT64_MAX;

    for (req = s->all.head; req != NONE; req = s->all_links[req].next) {
        sr = &s->reqs[req];

        if (!sr->started && !sr->expired) {
            if (sr->expires_us <= now_us) {
                t = &s->tenants[sr->tenant];
                list_remove(&t->wait, s->wait_links, req);
                t->waiting--;
                sr->expired = 1;
                list_insert(&s->expired, s->wait_links, req);
            } else if (sr->expires_us < s->expires_us) {
                s->expires_us = sr->expires_us;
            }
        }

        if (top == NONE && sr->credit && !sr->expired && sr->open_n > 0
            && (sr->started || may_start(s, sr))) {
            top = req;
        }
    }

    return top;
}


/* Who has no credit stands up; who has it again sits down, if there is room. */
static void
plan_seats(sched_t *s)
{
    uint32_t i = 0, id, next;

    while (i < s->run_n) {
        if (s->reqs[seq_req(s->run[i])].credit) {
            i++;
        } else {
            seq_hold(s, s->run[i]);
        }
    }

    for (id = s->held.head; id != NONE && s->run_n < s->seats; id = next) {
        next = s->links[id].next;
        if (s->reqs[seq_req(id)].credit) {
            seq_seat(s, id);
        }
    }
}


/* The first choice of req that has neither a seat nor ended; NONE if none.
 * *mine is how many blocks its choices before that hold, at most. */
static uint32_t
first_unseated(const sched_t *s, uint32_t req, uint32_t *mine)
{
    uint32_t c, id;

    *mine = 0;

    for (c = 0; c < s->reqs[req].r->choices; c++) {
        id = req * LLM_CHOICES_MAX + c;
        switch (s->seqs[id].state) {
        case SCHED_QUEUED:
        case SCHED_WAITING:
        case SCHED_HELD:
            return id;
        default:
            *mine += kv_held(s->kv, id);
            if (c % s->reqs[req].r->n > 0) {
                *mine -= kv_shared(s->kv, id, id - 1);
            }
        }
    }

    return NONE;
}


/* Takes blocks and, if need be, a seat from others until there are enough
 * for a sequence of this key.  0: it did not come to that. */
static int
plan_force(sched_t *s, uint64_t key, uint32_t need)
{
    uint32_t v;

    if (s->run_n == s->seats) {
        v = s->run[s->run_n - 1];
        if (s->links[v].key < key) {
            return 0;
        }
        seq_hold(s, v);
    }

    while (kv_avail(s->kv) < need) {
        v = victim(s, key);
        if (v == NONE) {
            return 0;
        }
        seq_preempt(s, v);
        s->pressed = 1;
    }

    return 1;
}


/*
 * The most important request gets, by force if the ordinary way would not do,
 * what its next choice needs.  All others are behind it, but for its own
 * choices, so it is known beforehand whether force is enough.
 */
static void
plan_top(sched_t *s, uint32_t req)
{
    uint32_t id, need, mine;
    seq_t *q;

    id = first_unseated(s, req, &mine);
    if (id == NONE || sched_cache_waits(s, id)) {
        return;
    }

    q = &s->seqs[id];

    if (q->state == SCHED_HELD) {
        if (plan_force(s, s->links[id].key, 0)) {
            seq_seat(s, id);
        }
        return;
    }

    sched_cache_match(s, id);
    mine += kv_held(s->kv, id);
    need = kv_missing(s->kv, id, q->known_n + 1);

    if ((s->run_n < s->seats && (uint64_t) need + reserve(s) <= kv_avail(s->kv))
        || (uint64_t) need + mine > kv_total(s->kv) || sched_cache_follow(s, id)
        || !plan_force(s, s->links[id].key, need)) {
        sched_cache_unmatch(s, id);
        return;
    }

    if (q->state == SCHED_QUEUED) {
        req_start(s, req);
    }
    seq_admit(s, id);
}


/* Positions from *from to before the result: their logprobs are asked for, as
 * far as end. */
static uint32_t
seq_scores(const sched_t *s, uint32_t id, uint32_t end, uint32_t *from)
{
    const seq_t *q = &s->seqs[id];
    uint32_t last = q->prompt_n - 1;

    *from = q->computed > q->scored ? q->computed : q->scored;

    if ((s->reqs[seq_req(id)].r->flags & LLM_F_PROMPT_LPS) == 0) {
        return *from;
    }
    last = last < end ? last : end;

    return last > *from ? last : *from;
}


/* The most of its next n tokens whose outputs the batch has room for. */
static uint32_t
plan_fit(const sched_t *s, const batch_t *b, uint32_t id, uint32_t n)
{
    const seq_t *q = &s->seqs[id];
    uint32_t room = b->outs_max - b->outs_n, from, to;

    assert(b->outs_n <= b->outs_max);

    to = seq_scores(s, id, q->computed + n, &from);
    if (to - from > room) {
        n = from + room - q->computed;
        to = from + room;
    }
    if (q->computed + n == q->known_n && to - from == room) {
        n--; /* none is left for what comes behind it */
    }

    return n;
}


/* An output of the row that is being added, at position pos. */
static batch_out_t *
plan_out(sched_t *s, batch_t *b, uint32_t id, uint32_t pos)
{
    const seq_t *q = &s->seqs[id];
    batch_out_t *out = &b->outs[b->outs_n++];

    assert(b->outs_n <= b->outs_max && pos >= q->computed);

    memset(out, 0, sizeof(*out));
    out->row = b->rows_n;
    out->tok = b->tokens_n + pos - q->computed;
    out->pos = pos;
    out->choice = id % LLM_CHOICES_MAX;
    out->known = seq_known(s, id);
    out->known_n = pos + 1;
    out->prompt_n = q->prompt_n < pos + 1 ? q->prompt_n : pos + 1;

    return out;
}


/* Adds the next n tokens of a seated sequence to the batch. */
static void
plan_row(sched_t *s, batch_t *b, uint32_t id, uint32_t n)
{
    seq_t *q = &s->seqs[id];
    const req_t *r = s->reqs[seq_req(id)].r;
    batch_row_t *row = &b->rows[b->rows_n];
    uint32_t end = q->computed + n, pos, to, g;
    batch_out_t *out;

    assert(b->rows_n < s->c.rows && n <= s->c.tokens - b->tokens_n);
    assert(q->state == SCHED_RUNNING && n > 0 && end <= q->known_n);

    row->seq = id;
    row->q_start = q->computed;
    row->q_len = n;
    row->kv_len = end;
    row->tok = b->tokens_n;
    row->adapter = 0;
    assert(kv_missing(s->kv, id, end) == 0);

    for (g = 0; g < kv_groups(s->kv); g++) {
        row->blocks[g].ids =
            kv_table(s->kv, id, g, &row->blocks[g].first, &row->blocks[g].n);
    }

    memcpy(b->tokens + b->tokens_n, seq_known(s, id) + q->computed,
        n * sizeof(uint32_t));

    for (to = seq_scores(s, id, end, &pos); pos < to; pos++) {
        out = plan_out(s, b, id, pos);
        out->params = &r->prompt_params;
        out->wanted = seq_known(s, id)[pos + 1] + 1;
    }
    if (end == q->known_n) {
        out = plan_out(s, b, id, end - 1);
        out->params = &r->params;
    }

    b->rows_n++;
    b->tokens_n += n;

    if (end > q->charged) {
        seq_tenant(s, id)->service += (uint64_t) (end - q->charged)
                                      * SCHED_SCALE
                                      / (r->weight > 0 ? r->weight : 1);
        q->charged = end;
    }
}


/*
 * A row for everyone who lacks one token.  By importance, so that whose
 * blocks are taken has no row in this batch yet.
 */
static void
plan_ones(sched_t *s, batch_t *b)
{
    uint32_t i = 0, id, v;
    const seq_t *q;

    while (i < s->run_n) {
        id = s->run[i];
        q = &s->seqs[id];

        if (q->known_n - q->computed != 1) {
            i++;
            continue;
        }

        if (kv_grow(s->kv, id, q->known_n) == 0) {
            plan_row(s, b, id, 1);
            i++;
            continue;
        }

        v = victim(s, s->links[id].key);
        seq_preempt(s, v == NONE ? id : v);
        s->pressed = 1;
    }
}


/* Hands each tenant its seated unfinished prompts, by importance. */
static void
plan_todo(sched_t *s)
{
    uint32_t i, id;
    tenant_t *t;

    for (i = 0; i < s->active_n; i++) {
        s->tenants[s->active[i]].todo = NONE;
    }

    for (i = 0; i < s->run_n; i++) {
        id = s->run[i];
        if (s->seqs[id].known_n - s->seqs[id].computed < 2) {
            continue;
        }

        t = seq_tenant(s, id);
        if (t->todo == NONE) {
            t->todo = id;
        } else {
            s->seqs[t->todo_tail].todo = id;
        }
        t->todo_tail = id;
        s->seqs[id].todo = NONE;
    }
}


/* Makes id t's pick, if its class is higher than that of the pick so far. */
static void
pick_better(const sched_t *s, tenant_t *t, uint32_t id, uint32_t kind)
{
    if (t->pick == NONE
        || key_class(s->links[id].key) < key_class(s->links[t->pick].key)) {
        t->pick = id;
        t->pick_kind = kind;
    }
}


/* Finds what tenant t would do next; admit: are there seats and blocks? */
static void
plan_pick(sched_t *s, tenant_t *t, int admit)
{
    uint32_t id, req;

    t->pick = NONE;
    t->pick_kind = PICK_NONE;

    if (t->todo != NONE) {
        pick_better(s, t, t->todo, PICK_TODO);
    }
    if (!admit) {
        return;
    }

    id = t->ready.head;
    while (id != NONE
           && (!s->reqs[seq_req(id)].credit || sched_cache_waits(s, id))) {
        id = s->links[id].next;
    }
    if (id != NONE) {
        pick_better(s, t, id, PICK_READY);
    }

    req = t->wait.head;
    while (req != NONE
           && (!s->reqs[req].credit
               || sched_cache_waits(s, req * LLM_CHOICES_MAX))) {
        req = s->wait_links[req].next;
    }
    if (req != NONE && may_start(s, &s->reqs[req])) {
        pick_better(s, t, req * LLM_CHOICES_MAX, PICK_WAIT);
    }
}


/* The tenant whose turn it is among those with a pick; NULL if none has. */
static tenant_t *
plan_turn(const sched_t *s)
{
    tenant_t *t, *best = NULL;
    uint64_t key, best_key = 0;
    uint32_t i;

    for (i = 0; i < s->active_n; i++) {
        t = &s->tenants[s->active[i]];
        if (t->pick == NONE) {
            continue;
        }

        key = s->links[t->pick].key;
        if (best == NULL || key_class(key) < key_class(best_key)
            || (key_class(key) == key_class(best_key)
                && (t->service < best->service
                    || (t->service == best->service && key < best_key)))) {
            best = t;
            best_key = key;
        }
    }

    return best;
}


/*
 * Spends what is left of the budget, piece by piece, on the tenant whose turn
 * it is.  One who waits for blocks closes the door for all behind.
 */
static void
plan_prompts(sched_t *s, batch_t *b)
{
    int admit = !s->pressed, full = 0;
    uint32_t i, id, left, want, tries = PLAN_FOLLOWERS;
    tenant_t *t;

    plan_todo(s);

    for (i = 0; i < s->active_n; i++) {
        plan_pick(s, &s->tenants[s->active[i]], admit && s->run_n < s->seats);
    }

    while (b->tokens_n < s->c.tokens && (t = plan_turn(s)) != NULL) {
        id = t->pick;

        if (t->pick_kind == PICK_TODO) {
            t->todo = s->seqs[id].todo;

        } else if (!admit || s->run_n == s->seats || !seq_enter(s, id, &full)) {
            /* one who follows another keeps nobody out */
            admit = admit && s->run_n < s->seats && !full && tries-- > 0;
            plan_pick(s, t, admit);
            continue;

        } else {
            if (t->pick_kind == PICK_WAIT) {
                req_start(s, seq_req(id));
            }
            seq_admit(s, id);
        }

        want = s->seqs[id].known_n - s->seqs[id].computed;
        left = s->c.tokens - b->tokens_n;
        want = plan_fit(s, b, id, want < left ? want : left);
        if (want > 0) {
            plan_row(s, b, id, want);
        }
        plan_pick(s, t, admit && s->run_n < s->seats);
    }
}


void
sched_plan(sched_t *s, uint64_t now_us, batch_t *b)
{
    uint32_t top;

    assert(b->rows_max >= s->c.rows && b->outs_max >= s->c.rows);
    assert(b->tokens_max >= s->c.tokens);

    b->rows_n = 0;
    b->tokens_n = 0;
    b->outs_n = 0;
    s->pressed = 0;
    s->plans++;

    top = plan_scan(s, now_us);
    plan_seats(s);
    if (top != NONE) {
        plan_top(s, top);
    }
    plan_ones(s, b);
    plan_prompts(s, b);

    assert(b->rows_n <= s->run_n && s->run_n <= s->seats);
    assert(b->outs_n <= b->outs_max);
    kv_check(s->kv);
}
