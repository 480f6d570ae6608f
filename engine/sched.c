/*
 * The scheduling policy: iteration-level batching with chunked prompts that
 * never stall a running stream.
 *
 * DESIGN.  A sequence is `known` tokens (prompt and what was sampled) and
 * `computed` of them (whose keys and values lie in blocks).  A row computes
 * some of the difference.  When nothing is left, the row's last position is
 * sampled and known grows by one.  Prefill, chunk, decode and resume after
 * preemption are the same thing with other numbers.
 *
 *                      start               admit
 *      FREE ─> QUEUED ──────> WAITING ───────────────> RUNNING ──> ENDED
 *                                ^  \                   ^   │
 *                                │   `──preempt──┐      │   │
 *                                └───────────── HELD <──┴───┘
 *                                               no credit, outranked
 *
 * A seat is the right to a row in every step.  There are no more seats than a
 * batch has rows and tokens, so a decoding sequence gets its row in each step
 * whatever prompts arrive: that is what makes it free of stalls.  What is
 * left of the token budget goes to unfinished prompts, in chunks, and then to
 * admissions.
 *
 * LOGPROBS OF A PROMPT (LLM_F_PROMPT_LPS) are outputs at its positions.  A
 * batch has room for so many outputs, so such a prompt's chunks are as long as
 * what is left of it: memory is that of a batch, whatever the prompt.  What
 * has been handed out once is not asked for again after preemption.  With
 * LLM_F_SCORE the one token behind the prompt is sampled and forgotten.
 *
 * ORDER.  A key orders sequences by importance: class, then arrival, then
 * choice.  Who decodes needs no order.  Who gets prompt tokens and admission:
 * the highest class, but for a floor for lower ones (sched_floor.c); in it the
 * tenant whose turn it is by the policy (sched_fair.c, sched_prefix.c,
 * sched_fcfs.c); of its work what has begun before what has not, then by key,
 * or the longest match in the prefix cache first (sched_order.c).  A tenant
 * that comes (back) is lifted to a quantum below the least served of those
 * active, so that being idle saves up no more.  A token computed again after
 * preemption is not charged again.
 *
 * BUDGET.  A step has a fixed number of tokens, or as many as the step-time
 * model (sched_pace.c) lets into the target; single-token rows count, and the
 * sum fills whole tiles of the device.  What is left for prompts may be
 * nothing, but for a minimum under a target that cannot be met.
 *
 * MEMORY.  Blocks are taken as tokens are computed, chunk by chunk; what the
 * prefix cache has and nobody uses is as good as free (sched_cache.c).
 * Admission looks ahead: what the seated prompts still lack, and what all
 * outputs are likely to come to (sched_guess.c), must find room at every later
 * time.  If that was too hopeful, a decode that finds the pool empty takes the
 * blocks of, first, sequences without credit, then of the lowest class the one
 * that the policy says, which may be itself; and nobody is admitted in that
 * step.  The oldest request of the highest class that has begun keeps its
 * blocks and may take blocks and a seat from any other, so something always
 * finishes; one that has not begun may do so to lower classes.  Nobody is
 * admitted past a request that waits for blocks.
 *
 * AHEAD.  At depth 1 a step may be planned while the one before runs, as if
 * that had ended and nobody in it had (sched_ahead.c).
 *
 * COST.  Each plan walks the seats and the active tenants some times, not once
 * for each piece of work that it gives out; of those who wait it looks at some
 * (sched_order.c).  Nothing depends on the length of a prompt but the copy of
 * its tokens into the batch.
 *
 * Owned and called by one thread: the loop, or the simulator.
 */
#include "sched_int.h"
#include "mem.h"

#include <assert.h>
#include <string.h>

void
sched_seq_state(seq_t *q, sched_state_t state)
{
#define TO(x) (1u << SCHED_##x)
    static const unsigned legal[SCHED_STATES_N] = {
        [SCHED_FREE] = TO(QUEUED),
        [SCHED_QUEUED] = TO(WAITING) | TO(FREE),
        [SCHED_WAITING] = TO(RUNNING) | TO(ENDED) | TO(FREE),
        [SCHED_HELD] = TO(RUNNING) | TO(WAITING) | TO(ENDED) | TO(FREE),
        [SCHED_RUNNING] = TO(HELD) | TO(WAITING) | TO(ENDED) | TO(FREE),
        [SCHED_ENDED] = TO(FREE),
    };
#undef TO

    assert(q->state < SCHED_STATES_N && (unsigned) state < SCHED_STATES_N);
    assert(legal[q->state] & (1u << state));

    q->state = (uint8_t) state;
}


static void
run_remove(sched_t *s, uint32_t id)
{
    tenant_t *t = seq_tenant(s, id);
    uint32_t i = 0;

    while (i < s->run_n && s->run[i] != id) {
        i++;
    }
    assert(i < s->run_n && t->sits > 0);

    t->sits--;
    s->run_n--;
    memmove(s->run + i, s->run + i + 1, (s->run_n - i) * sizeof(uint32_t));
}


void
sched_seq_detach(sched_t *s, uint32_t id)
{
    switch (seq_at(s, id)->state) {
    case SCHED_RUNNING:
        run_remove(s, id);
        break;
    case SCHED_HELD:
        list_remove(&s->held, s->links, id);
        break;
    case SCHED_WAITING:
        list_remove(&seq_tenant(s, id)->ready, s->links, id);
        seq_tenant(s, id)->next_ok = 0;
        break;
    default:
        break;
    }
}


/*
 * By how much a tenant that comes may be ahead of the others, in weighted
 * tokens: some steps' worth, but not more than half the pool.  More would let
 * it crowd out who stayed; with less, a tenant below its share that comes in
 * bursts waits for blocks behind one that floods.  So (sim fairness) a flood
 * moves another's P99 by less than 10 %, and the differences of service stay
 * below those of strict VTC.
 */
#define QUANTUM_STEPS 8

/* A longer match lets a tenant be ahead by this part of it: less than the half
 * at which blocks are taken by force (sched_fair.c). */
#define LEAD_PART 4

/* A wait is estimated: refused is who would use up that much of its time in
 * the queue, in us of each ms. */
#define WAIT_TRUST 900

/* Nobody is told to come back later than that. */
#define RETRY_US_MAX 600000000ull

/*
 * Tokens by which a sequence's row is longer than the context, which often is a
 * power of two: then all rows would begin in the same sets of the caches, and
 * of the page tables' cache, and each step would miss both for each of them.
 * So the next one's is a page and a line further on.
 */
#define ROW_SKEW ((4096 + 64) / 4)

static uint64_t
quantum(const sched_t *s)
{
    uint64_t pool =
        (uint64_t) kv_total(s->kv) * kv_block_tokens(s->kv) / kv_groups(s->kv);
    uint64_t steps = (uint64_t) QUANTUM_STEPS * s->c.budget;

    return pool / 2 < steps ? pool / 2 : steps;
}


sched_t *
sched_open(const sched_cfg_t *c, kv_t *kv)
{
    sched_t *s;
    size_t seqs;

    assert(c->reqs > 0 && c->reqs < NONE / LLM_CHOICES_MAX / 2);
    assert(c->rows > 0 && c->tokens > 0 && c->context > 1);
    assert(c->floor <= 100 && c->depth <= 1);
    assert(kv != NULL && kv_seqs(kv) >= sched_seqs(c));

    s = mem_zero(1, sizeof(*s));
    if (s == NULL) {
        return NULL;
    }

    seqs = (size_t) c->reqs * LLM_CHOICES_MAX;
    s->c = *c;
    s->kv = kv;
    s->block_tokens = kv_block_tokens(kv);
    s->block_part = UINT64_MAX / s->block_tokens + 1;
    s->groups = kv_groups(kv);
    s->slides = kv_slides(kv);
    s->policy = c->policy != NULL ? c->policy : &sched_fair;
    assert(!sched_policy_whole(s->policy) || c->tokens >= c->context);
    s->c.tile = c->tile > 0 ? c->tile : 1;
    s->c.budget =
        c->budget > 0 && c->budget < c->tokens ? c->budget : c->tokens;
    s->top = s->upper = s->floor_seq = NONE;
    if (s->policy->claims != NULL) {
        s->quantum = quantum(s) * SCHED_SCALE;
        s->lead = s->quantum / LEAD_PART;
    }
    s->vtime = s->quantum;
    if (c->target_us > 0) {
        sched_pace_init(&s->pace, c->target_us, s->c.tile);
    }
    s->seats = c->rows < c->tokens ? c->rows : c->tokens;
    s->expires_us = UINT64_MAX;
    lanes_init(&s->queue);
    lanes_init(&s->begun);
    list_init(&s->held);
    list_init(&s->expired);
    s->reqs = mem_zero(c->reqs, sizeof(sreq_t));
    s->lane_links = mem_zero(c->reqs, sizeof(link_t));
    s->wait_links = mem_zero(c->reqs, sizeof(link_t));
    s->looks = mem_zero(c->reqs, sizeof(look_t));
    list_init(&s->look_lists[LOOK_FRESH]);
    list_init(&s->look_lists[LOOK_AGED]);
    s->look_links = mem_zero(c->reqs, sizeof(link_t));
    s->follow = mem_zero(seqs, sizeof(uint32_t));
    s->seqs = mem_zero(seqs, sizeof(seq_t));
    s->links = mem_zero(seqs, sizeof(link_t));
    s->row = c->context + ROW_SKEW;
    s->known = mem_zero(seqs, s->row * sizeof(uint32_t));
    s->run = mem_zero(s->seats, sizeof(uint32_t));
    s->todo = mem_zero(s->seats, sizeof(uint32_t));
    s->order = mem_zero(c->reqs, sizeof(turn_t));

    if (s->reqs == NULL || s->lane_links == NULL || s->wait_links == NULL
        || s->looks == NULL || s->look_links == NULL || s->follow == NULL
        || s->seqs == NULL || s->links == NULL || s->known == NULL
        || s->run == NULL || s->todo == NULL || s->order == NULL
        || sched_tenants_open(s) != 0 || sched_ahead_open(s) != 0) {
        sched_close(s);
        return NULL;
    }

    /* each step writes a token to each row */
    mem_huge(s->known, (size_t) c->reqs * s->row * sizeof(uint32_t));

    return s;
}


void
sched_close(sched_t *s)
{
    if (s == NULL) {
        return;
    }

    mem_free(s->reqs);
    mem_free(s->lane_links);
    mem_free(s->wait_links);
    mem_free(s->looks);
    mem_free(s->look_links);
    mem_free(s->follow);
    mem_free(s->seqs);
    mem_free(s->links);
    mem_free(s->known);
    mem_free(s->run);
    mem_free(s->todo);
    mem_free(s->order);
    sched_tenants_close(s);
    sched_ahead_close(s);
    mem_free(s);
}


void
sched_tap(sched_t *s, sched_tap_t tap, void *arg)
{
    assert(s->tap == NULL && tap != NULL);

    s->tap = tap;
    s->tap_arg = arg;
}


/* --- requests ----------------------------------------------------------- */

/* Is the tenant's queue full for one more?  Seats that it would get at once
 * are not the queue. */
static int
queue_full(const sched_t *s, const tenant_t *t, const req_t *r)
{
    uint32_t others, room = 0, waiting = s->live_n - s->started_n;

    if (r->queue_max == 0) {
        return 0;
    }

    assert(waiting >= t->waiting && s->run_n <= s->seats);
    others = waiting - t->waiting;

    if (s->seats - s->run_n > others) {
        room = s->seats - s->run_n - others;
    }
    if (r->concurrent != 0 && r->concurrent <= t->started) {
        room = 0;
    } else if (r->concurrent != 0 && r->concurrent - t->started < room) {
        room = r->concurrent - t->started;
    }

    return t->waiting >= (uint64_t) r->queue_max + room;
}


/* Requests of tenant t that would start before one like r. */
static uint64_t
ahead(const sched_t *s, const tenant_t *t, const req_t *r)
{
    uint64_t n = 0;
    uint32_t i;

    for (i = t->wait.head; i != NONE && s->reqs[i].r->priority <= r->priority;
         i = s->wait_links[i].next) {
        n++;
    }

    return n;
}


uint64_t
sched_wait_us(const sched_t *s, const req_t *r)
{
    const tenant_t *t = sched_tenant_find(s, r->tenant);
    uint64_t n;

    if (t == NULL || t->waiting == 0) {
        return 0;
    }
    n = ahead(s, t, r);

    return n == 0 ? 0 : (n + 1) * t->gap_us;
}


uint64_t
sched_retry_us(sched_t *s, const req_t *r)
{
    uint32_t i = sched_tenant_get(s, r->tenant);
    tenant_t *t = &s->tenants[i];
    uint64_t most = (uint64_t) r->queue_ms * WAIT_TRUST;
    uint64_t wait = sched_wait_us(s, r);
    uint64_t at = s->now_us, over;

    if (r->queue_ms != 0 && wait > most) {
        at += wait - most + t->gap_us; /* the queue moves in leaps */
    }
    if (r->queue_max != 0 && t->waiting >= r->queue_max) {
        over =
            s->now_us + (uint64_t) (t->waiting - r->queue_max + 1) * t->gap_us;
        at = over > at ? over : at;
    }

    /* behind those told before, at the pace at which requests begin */
    at = t->told_us > at ? t->told_us : at;
    t->told_us = at + t->gap_us;
    if (t->told_us > s->now_us + RETRY_US_MAX) {
        t->told_us = s->now_us + RETRY_US_MAX;
    }
    SCHED_TELL(s, .type = SCHED_CALL_RETRY, .r = r);

    return at - s->now_us;
}


/* Sets up choice c of request req. */
static void
seq_open(sched_t *s, uint32_t req, uint32_t c, uint64_t key)
{
    const req_t *r = s->reqs[req].r;
    uint32_t id = req * LLM_CHOICES_MAX + c;
    seq_t *q = seq_at(s, id);
    uint64_t limit;

    limit = (uint64_t) r->prompts[c / r->n].len
            + (r->max_tokens > 0 ? r->max_tokens : 1);
    if (limit > s->c.context) {
        limit = s->c.context;
    }
    if (limit > kv_fits(s->kv)) {
        limit = kv_fits(s->kv);
    }

    sched_seq_state(q, SCHED_QUEUED);
    q->prompt_n = r->prompts[c / r->n].len;
    q->known_n = q->prompt_n;
    q->computed = 0;
    q->room = 0;
    q->charged = 0;
    q->scored = 0;
    q->limit = (uint32_t) limit;
    q->found = 0;
    q->stays = UINT32_MAX;
    q->leader = NONE;
    q->fetch = 0;
    q->fetched = 0;
    q->alone = 0;
    q->met = 0;
    q->floor = 0;
    q->late = 0;
    q->row[0] = q->row[1] = NONE;
    s->links[id].key = key | c;

    /* text_in refused what can never fit */
    assert(q->prompt_n > 0 && q->prompt_n < q->limit);
}


int
sched_add(sched_t *s, uint32_t req, const req_t *r)
{
    uint32_t ti, c, class;
    sreq_t *sr;
    tenant_t *t;
    uint64_t key;

    assert(req < s->c.reqs && s->reqs[req].r == NULL);
    assert(r->n > 0 && r->choices > 0 && r->choices <= LLM_CHOICES_MAX);
    assert(r->choices == r->prompts_n * r->n);

    ti = sched_tenant_get(s, r->tenant);
    t = &s->tenants[ti];

    if (queue_full(s, t, r)
        || (r->queue_ms != 0
            && sched_wait_us(s, r) > (uint64_t) r->queue_ms * WAIT_TRUST)) {
        SCHED_TELL(s, .type = SCHED_CALL_ADD, .req = req, .r = r,
            .value = -LLM_ERR_BUSY);
        return -LLM_ERR_BUSY;
    }
    if (t->waiting == 0 && t->started == 0) {
        t->queue_us = r->arrival_us > s->now_us ? r->arrival_us : s->now_us;
    }

    class = r->priority < SCHED_CLASS_MAX ? r->priority : SCHED_CLASS_MAX;
    key = (uint64_t) class << 56 | s->arrivals++ << 4;

    sr = &s->reqs[req];
    memset(sr, 0, sizeof(*sr));
    sr->r = r;
    sr->tenant = ti;
    sr->flags = r->flags;
    sr->weight = r->weight > 0 ? r->weight : 1;
    sched_cache_own(sr, r);
    sr->price = (uint64_t) SCHED_COST_OUT * SCHED_SCALE / sr->weight;
    sr->open_n = r->choices;
    sr->credit = 1;
    sr->expires_us = r->queue_ms == 0
                         ? UINT64_MAX
                         : r->arrival_us + (uint64_t) r->queue_ms * 1000;

    if (sr->expires_us < s->expires_us) {
        s->expires_us = sr->expires_us;
    }

    for (c = 0; c < r->choices; c++) {
        seq_open(s, req, c, key);
    }

    sched_tenant_enter(s, ti);
    s->live_n++;
    s->lane_links[req].key = key;
    lanes_insert(&s->queue, s->lane_links, req);
    s->wait_links[req].key = key;
    list_insert(&t->wait, s->wait_links, req);
    t->waiting++;
    sched_order_came(s, req);
    SCHED_TELL(s, .type = SCHED_CALL_ADD, .req = req, .r = r);

    return 0;
}


void
sched_credit(sched_t *s, uint32_t req, int has)
{
    sreq_t *sr = &s->reqs[req];
    tenant_t *t = &s->tenants[sr->tenant];

    assert(req < s->c.reqs && sr->r != NULL);

    if (has == (int) sr->credit) {
        return;
    }

    if (has) {
        assert(t->dry > 0);
        if (t->dry == t->live) {
            sched_tenant_lift(s, t);
        }
        t->dry--;
        s->stalled_n -= sr->started;
    } else {
        assert(t->dry < t->live);
        t->dry++;
        s->stalled_n += sr->started;
        s->credit_stalls++;
    }

    sr->credit = (uint8_t) (has != 0);
    s->credits = 1;
    t->next_ok = 0;
    sched_order_may(s, req);
    SCHED_TELL(s, .type = SCHED_CALL_CREDIT, .req = req, .value = has);
}


int
sched_expired(sched_t *s, uint32_t *req)
{
    if (s->expired.head == NONE) {
        return 0;
    }

    *req = s->expired.head;
    assert(s->reqs[*req].r != NULL && s->reqs[*req].expired);

    return 1;
}


uint64_t
sched_expires_us(const sched_t *s)
{
    return s->expires_us;
}


void
sched_unqueue(sched_t *s, uint32_t req)
{
    tenant_t *t = &s->tenants[s->reqs[req].tenant];

    assert(t->waiting > 0 && !s->reqs[req].started && !s->reqs[req].expired);

    sched_order_goes(s, req);
    lanes_remove(&s->queue, s->lane_links, req);
    list_remove(&t->wait, s->wait_links, req);
    t->waiting--;
}


/* --- commit and end ----------------------------------------------------- */

/* The sequence leaves its blocks. */
static void
seq_leave(sched_t *s, uint32_t id)
{
    if (!sched_ahead_discard(s, id)) {
        (void) kv_drop(s->kv, id, seq_at(s, id)->stays);
    }
}


/* The sequence has its last token. */
static void
seq_finish(sched_t *s, uint32_t id)
{
    sreq_t *sr = &s->reqs[seq_req(id)];
    uint32_t n;

    assert(sr->open_n > 0);

    n = seq_at(s, id)->known_n - seq_at(s, id)->prompt_n;
    sched_guess_ended(&s->guess, n);
    sched_guess_ended(&s->guesses[sr->tenant], n);
    sched_cache_alone(s, id);
    sched_seq_detach(s, id);
    sched_seq_state(seq_at(s, id), SCHED_ENDED);
    seq_leave(s, id);
    sr->open_n--;
}


/* What comes with a sampled token is paid for like it. */
static void
commit_more(sched_t *s, uint32_t id, const sched_take_t *take)
{
    sreq_t *sr = &s->reqs[seq_req(id)];
    uint32_t i;

    assert(take->more_n <= SCHED_MORE_MAX);
    assert(seq_at(s, id)->known_n + take->more_n < seq_at(s, id)->limit);

    if (take->more_n > 0 && s->c.depth > 0) {
        sched_ahead_skip(s, id);
    }

    for (i = 0; i < take->more_n; i++) {
        seq_append(s, id, take->more[i]);
        s->tenants[sr->tenant].service += sr->price;
        sr->sampled++;
    }
}


/* Appends one sampled token and says what is to become of its choice. */
static void
commit_token(sched_t *s, uint32_t id, sched_take_t *take)
{
    seq_t *q = seq_at(s, id);
    sreq_t *sr = &s->reqs[seq_req(id)];

    assert(q->known_n < q->limit && q->known_n == q->computed);

    take->index = q->known_n - q->prompt_n;
    take->shown = !take->ends;
    seq_append(s, id, take->token);

    if (sr->flags & LLM_F_SCORE) {
        take->shown = 0;
        take->finish = LLM_FINISH_LENGTH;
        return;
    }
    s->tenants[sr->tenant].service += sr->price;
    sched_floor_served(s, id, SCHED_COST_OUT);
    sr->sampled++;

    if (take->over || (take->ends && !(sr->flags & LLM_F_IGNORE_EOS))) {
        take->finish = LLM_FINISH_STOP;
    } else if (q->known_n == q->limit) {
        take->finish = LLM_FINISH_LENGTH;
    } else {
        commit_more(s, id, take);
    }
}


/* Does the row complete a block? */
static int
completes(const sched_t *s, const batch_row_t *row)
{
    return seq_past_block(s, row->kv_len) < row->q_len;
}


/* The sequence's next tokens are computed; bad: to nothing that makes sense. */
static void
commit_row(sched_t *s, uint32_t id, const batch_row_t *row, int bad)
{
    seq_t *q = seq_at(s, id);

    assert(q->state == SCHED_RUNNING || s->c.depth > 0);
    assert(q->state == SCHED_RUNNING || q->state == SCHED_HELD);
    assert(q->computed == (s->c.depth > 0 ? row->kv_len : row->q_start));
    assert(row->kv_len <= q->known_n && q->known_n < q->limit && !q->late);

    q->computed = row->kv_len;
    if (bad) {
        q->stays = q->found; /* what it computed is not to be trusted */
    } else if (completes(s, row)) {
        sched_cache_keep(s, id);
    }
    if (s->slides) {
        kv_slide(s->kv, id, q->computed, q->known_n + 1);
    }
}


/* What an output of sequence id came to; NONE: it is nobody's. */
static void
commit_out(sched_t *s, uint32_t id, const batch_out_t *out, sched_take_t *take)
{
    take->req = id == NONE ? NONE : seq_req(id);
    take->choice = id % LLM_CHOICES_MAX;
    take->index = 0;
    take->finish = LLM_FINISH_NONE;
    take->shown = 0;
    take->prompt = out->wanted > 0;
    take->gone = id == NONE;
    if (take->gone) {
        s->wasted += !take->prompt;
        return;
    }
    assert(s->reqs[take->req].r != NULL);

    if (take->err == 0 && take->prompt) {
        take->index = out->pos + 1;
        seq_at(s, id)->scored = take->index;
    } else if (take->err == 0) {
        commit_token(s, id, take);
    }
}


/* What the rows behind row i need is to be on its way from memory. */
static void
commit_fetch(const sched_t *s, const batch_t *b, uint32_t i)
{
    uint32_t far = i + 2 * SCHED_FETCH_ROWS, near = i + SCHED_FETCH_ROWS, id;

    if (far < b->rows_n && completes(s, &b->rows[far])) {
        kv_insert_fetch(s->kv, b->rows[far].seq, 0);
    }
    if (near < b->rows_n) {
        id = b->rows[near].seq;
        seq_fetch(s, id);
        __builtin_prefetch(/* where its token goes */
            seq_known(s, id) + b->rows[near].kv_len, 1);
        if (completes(s, &b->rows[near])) {
            kv_insert_fetch(s->kv, id, 1);
        }
    }
}


void
sched_commit(sched_t *s, const batch_t *b, sched_take_t *takes)
{
    const sched_step_t *step = sched_ahead_ended(s, b);
    uint32_t i, id, o = 0, end = 0;
    int bad;

    for (i = 0; i < b->rows_n; i++) {
        id = step == NULL ? b->rows[i].seq : step->seqs[i];
        commit_fetch(s, b, i);
        for (bad = 0; end < b->outs_n && b->outs[end].row == i; end++) {
            bad |= takes[end].err != 0;
        }
        if (id != NONE) {
            commit_row(s, id, &b->rows[i], bad);
        }
        for (; o < end; o++) {
            commit_out(s, id, &b->outs[o], &takes[o]);
        }
    }
    assert(o == b->outs_n);

    /* who has ended leaves when all that is computed has entered the cache */
    for (i = 0; i < b->outs_n; i++) {
        if (takes[i].finish != LLM_FINISH_NONE) {
            assert(!takes[i].gone && !takes[i].prompt);
            seq_finish(s, takes[i].req * LLM_CHOICES_MAX + takes[i].choice);
        }
    }

    kv_check(s->kv);
    SCHED_TELL(s, .type = SCHED_CALL_COMMIT, .b = b, .takes = takes);
}


uint32_t
sched_more_room(const sched_t *s, uint32_t seq)
{
    const seq_t *q = seq_at(s, seq);
    uint32_t known_n = q->known_n + !q->late; /* with that token */

    assert(s->reqs[seq_req(seq)].r != NULL && known_n <= q->limit);

    if (known_n + 1 >= q->limit) {
        return 0;
    }

    return q->limit - known_n - 1 < SCHED_MORE_MAX ? q->limit - known_n - 1
                                                   : SCHED_MORE_MAX;
}


/* What b costs, as far as the model goes. */
static sched_load_t
load_of(const batch_t *b)
{
    sched_load_t l = {0, 0, 0, 0};
    uint32_t i;

    for (i = 0; i < b->rows_n; i++) {
        sched_load_row(&l, b->rows[i].q_start, b->rows[i].q_len, 0);
    }
    l.outs = b->outs_n;

    return l;
}


void
sched_took(sched_t *s, const batch_t *b, uint64_t us)
{
    sched_load_t l = load_of(b);

    assert(b->rows_n > 0);

    if (s->c.target_us > 0) {
        sched_pace_took(&s->pace, &l, (double) us);
    }
    SCHED_TELL(s, .type = SCHED_CALL_TOOK, .us = us);
}


uint64_t
sched_expects(const sched_t *s, const batch_t *b)
{
    sched_load_t l = load_of(b);

    return s->c.target_us == 0 ? 0 : (uint64_t) sched_pace_guess(&s->pace, &l);
}


uint32_t
sched_cut(sched_t *s, uint32_t req, uint32_t choice, uint32_t index)
{
    sreq_t *sr = &s->reqs[req];
    uint32_t id = req * LLM_CHOICES_MAX + choice, wasted = 0;
    seq_t *q = seq_at(s, id);

    assert(req < s->c.reqs && sr->r != NULL && choice < sr->r->choices);

    /* what it may get yet, nobody has seen */
    q->known_n -= q->late;
    q->late = 0;
    assert(q->known_n >= q->prompt_n);

    if (q->known_n - q->prompt_n > (uint64_t) index + 1) {
        wasted = q->known_n - q->prompt_n - index - 1;
        q->known_n -= wasted;
        q->stays = q->known_n;
        assert(sr->sampled >= wasted);
        sr->sampled -= wasted;
    }

    if (q->state != SCHED_ENDED) {
        seq_finish(s, id);
    }
    SCHED_TELL(s, .type = SCHED_CALL_CUT, .req = req, .choice = choice,
        .index = index);

    return wasted;
}


int
sched_done(const sched_t *s, uint32_t req)
{
    assert(req < s->c.reqs && s->reqs[req].r != NULL);

    return s->reqs[req].open_n == 0;
}


uint32_t
sched_completion(const sched_t *s, uint32_t req)
{
    assert(req < s->c.reqs && s->reqs[req].r != NULL);

    return s->reqs[req].sampled;
}


uint32_t
sched_cached(const sched_t *s, uint32_t req)
{
    assert(req < s->c.reqs && s->reqs[req].r != NULL);

    return s->reqs[req].cached;
}


void
sched_end(sched_t *s, uint32_t req)
{
    sreq_t *sr = &s->reqs[req];
    tenant_t *t;
    uint32_t c, id;

    assert(req < s->c.reqs && sr->r != NULL);
    t = &s->tenants[sr->tenant];

    if (sr->started) {
        assert(t->started > 0 && s->started_n > 0);
        t->started--;
        t->next_ok = 0;
        s->started_n--;
        s->stalled_n -= !sr->credit;
        lanes_remove(&s->begun, s->lane_links, req);
    } else if (sr->expired) {
        list_remove(&s->expired, s->wait_links, req);
    } else {
        sched_unqueue(s, req);
    }

    for (c = 0; c < sr->r->choices; c++) {
        id = req * LLM_CHOICES_MAX + c;
        sched_cache_alone(s, id);
        sched_seq_detach(s, id);
        seq_leave(s, id);
        sched_seq_state(seq_at(s, id), SCHED_FREE);
    }

    t->dry -= !sr->credit;
    sched_tenant_leave(s, sr->tenant);
    sr->r = NULL;
    assert(s->live_n > 0);
    s->live_n--;
    kv_check(s->kv);
    SCHED_TELL(s, .type = SCHED_CALL_END, .req = req);
}


const sched_policy_t *
sched_policy(const char *name)
{
    static const sched_policy_t *const all[] = {&sched_fair, &sched_prefix,
        &sched_fcfs, &sched_prefill_first, &sched_orca, &sched_hybrid_only,
        &sched_chunk_only};
    size_t i;

    for (i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (strcmp(all[i]->name, name) == 0) {
            return all[i];
        }
    }

    return NULL;
}


const char *
sched_policy_name(const sched_policy_t *policy)
{
    return policy != NULL ? policy->name : sched_fair.name;
}


/* --- looking in --------------------------------------------------------- */

void
sched_stats(const sched_t *s, sched_stats_t *st)
{
    assert(s->stalled_n <= s->started_n && s->started_n <= s->live_n);

    st->waiting = s->live_n - s->started_n;
    st->running = s->started_n;
    st->stalled = s->stalled_n;
    st->seats_used = s->run_n;
    st->credit_stalls = s->credit_stalls;
    st->preemptions = s->preemptions;
    st->cache_asked = s->cache_asked;
    st->cache_hits = s->cache_hits;
    st->follows = s->follows;
    st->fetches = s->fetches;
    st->fetched_tokens = s->fetched_tokens;
    st->discarded = s->discarded;
    st->wasted = s->wasted;
}


sched_state_t
sched_seq(const sched_t *s, uint32_t seq, uint32_t *known_n, uint32_t *computed)
{
    assert(seq_req(seq) < s->c.reqs);

    *known_n = seq_at(s, seq)->known_n;
    *computed = seq_at(s, seq)->computed;

    return (sched_state_t) seq_at(s, seq)->state;
}


uint64_t
sched_service(const sched_t *s, uint32_t tenant)
{
    const tenant_t *t = sched_tenant_find(s, tenant);

    return t == NULL ? 0 : t->service;
}
