/*
 * The device thread's turn.
 *
 * DESIGN.  One thread owns the requests between READY and END, the KV blocks
 * and the device, so nothing here takes a lock.  It runs at its own pace: what
 * others have for it lies in rings and in words that it looks at once a turn,
 * and what it has for text_out leaves in one batch with one bell.
 *
 *      drain    READY, VERDICT                       <─ rings
 *      watch    credit, cancel, death, kill          <─ lines
 *      copy     blocks, to the second tier and back  ─> device
 *      trim     sched_trim: who left, of a step planned ahead
 *      plan     sched_plan: pure                     (room in loop_out?)
 *      run      forward_submit, forward_wait         ─> device
 *      masks      within: what may be sampled
 *      commit   sched_commit: pure
 *      push     TOKEN, END, metrics, bell            ─> ring
 *      pace     the rest of step_min
 *
 * AHEAD.  At planning depth 1 the next step is planned between submit and
 * wait, and run by the turn after: a device that computes by itself has it the
 * sooner.  The CPU's back end computes inside submit; there it saves nothing,
 * and what comes waits a step longer.  Who ends until it is submitted has his
 * rows trimmed from it, and they are never computed; none ends while a step
 * runs.  So has a sequence that jumps (obey.c): it sits that step out.
 *
 * SLEEP.  Without a row to run it arms its bell, sets line_sleeps in the
 * segment of each request it has, and goes round once more: what came before
 * the arming is found by that round, what comes after it rings.  Requests
 * that only wait for credit therefore cost nothing.
 *
 * ROOM.  Before a step loop_out must have room for the tokens of a whole
 * batch, as many that follow them (obey.c), and one END of every request; so
 * no push can fail, and text_out need never wait for the loop nor the loop in
 * the middle of a turn.  Also, a turn is run only when text_out has read what
 * the turn LOOP_AHEAD before it pushed: credit is counted by text_out, and what
 * it has not seen yet must be bounded too.
 *
 * SEEN.  What others may know of each request (live.h) is written behind the
 * step for those that were in it, and for LOOP_SHOWN more in turn, as those in
 * no batch change too; for all of them before a sleep.
 *
 * LIFE.  The heartbeat grows with each turn, and with each operation of a step:
 * on a slow device a step may take longer than workers would wait for it.
 *
 * TIME.  The clock is read after each step and after each sleep; in between
 * it stands.  So what a step took, as the scheduler is told, is the time from
 * the end of the step before, with all that the turn does: the gap between two
 * tokens of a stream.
 */
#include "loop.h"
#include "clock.h"
#include "ferry.h"
#include "kv_tier.h"
#include "live.h"
#include "loop_pin.h"
#include "log.h"
#include "mem.h"
#include "obey.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

#define LOOP_AHEAD    16     /* turns that text_out may be behind */
#define LOOP_BEAT_MS  1000   /* a heartbeat at least this often */
#define LOOP_SLICE_US 250000 /* of a paced sleep: kill and stop are seen */

/* A token without logprobs, as push_token sends it. */
#define TOKEN_BARE                                                             \
    (offsetof(req_msg_token_t, out) + offsetof(sample_out_t, top_ids))

#define LOOP_SHOWN 16 /* requests outside of the batch, in a step */

/* Should text_out's bell get lost, the loop still looks this often. */
#define LOOP_ROOM_MS 10

/* What the loop keeps of a request beside req_t. */
typedef struct {
    uint64_t begun_us; /* first row computed; 0: not yet */
    uint64_t first_us; /* first token sampled; 0: not yet */
    uint32_t at;       /* place in live[] */
    uint32_t owned;    /* between READY and END */
} lreq_t;

struct loop_s {
    loop_cfg_t c;
    inner_t *in; /* borrowed */
    kv_t *kv;    /* owned, as are all below */
    sched_t *sched;
    ferry_t *ferry; /* NULL: there is no second tier */
    obey_t *obey;
    live_t *show;
    batch_t batches[2];
    batch_t *b;          /* of the step that runs; in batches, as is next */
    batch_t *next;       /* the one behind it; no rows: it is not planned */
    sample_out_t *outs;  /* [outs_max] */
    sched_take_t *takes; /* [outs_max] */
    uint32_t *more;      /* [outs_max] what follows sampled tokens */
    uint32_t more_n;     /* of this step */
    lreq_t *reqs;        /* [reqs_n] */
    uint32_t *live;      /* [reqs_n] indices of the requests owned */
    uint32_t live_n;
    llm_live_step_t step; /* this one */
    uint32_t show_at;     /* place in live[]: who is shown next */
    uint32_t pushed;      /* since out_bell was rung last */
    uint32_t kill;        /* atomic */
    uint32_t room;        /* bytes of loop_out that a turn may need */
    uint64_t now_us;
    uint64_t beats;
    uint64_t turns, computed, sampled;
    uint64_t marks[LOOP_AHEAD]; /* loop_out's tail after each last turn */
};


static void
beat(loop_t *l)
{
    __atomic_store_n(&l->in->state->heartbeat[LLM_THREAD_LOOP], ++l->beats,
        __ATOMIC_RELAXED);
}


/* forward_watch's. */
static void
beat_in_step(void *arg)
{
    beat(arg);
}


/* forward_masks': b is the step's. */
static void
mask_step(void *arg, const batch_t *b)
{
    loop_t *l = arg;

    assert(b == l->b);
    obey_masks(l->obey, l->b);
}


/* Brings the loop's rows of the state page up to date. */
static void
publish(loop_t *l)
{
    llm_state_t *st = l->in->state;
    kv_tier_stats_t ts;
    ferry_stats_t fs;
    sched_stats_t ss;

    sched_stats(l->sched, &ss);
    assert(ss.waiting + ss.running == l->live_n);

#define PUT(field, value)                                                      \
    __atomic_store_n(&st->field, (uint64_t) (value), __ATOMIC_RELAXED)
#define X(name, field, doc) PUT(field, kv_count(l->kv, KV_##name));
    KV_STATES(X)
#undef X
    PUT(requests_waiting, ss.waiting);
    PUT(requests_running, ss.running);
    PUT(requests_stalled, ss.stalled);
    PUT(credit_stalls, ss.credit_stalls);
    PUT(preemptions, ss.preemptions);
    PUT(computed_tokens, l->computed);
    PUT(completion_tokens, l->sampled);
    PUT(turns, l->turns);
    PUT(cache_asked, ss.cache_asked);
    PUT(cache_hits, ss.cache_hits);
    PUT(cache_waits, ss.follows);
    PUT(cache_evictions, kv_evicted(l->kv));
    PUT(blocks_pinned, kv_pinned(l->kv));
    PUT(discarded_rows, ss.discarded);
    if (l->ferry != NULL) {
        kv_tier_stats(l->kv, &ts);
        ferry_stats(l->ferry, &fs);
        PUT(host_blocks_total, ts.slots);
        PUT(host_blocks_used, ts.used);
        PUT(host_blocks_out, ts.out);
        PUT(host_blocks_in, ts.in);
        PUT(host_bytes_out, fs.bytes_out);
        PUT(host_bytes_in, fs.bytes_in);
        PUT(host_copy_us, fs.us);
        PUT(host_copies_failed, ts.failed);
        PUT(host_blocks_lost, ts.lost);
        PUT(host_hits, ss.fetches);
        PUT(host_tokens, ss.fetched_tokens);
    }
#undef PUT
}


/* What is shown of a sequence that lacks left of its known tokens. */
static uint32_t
shown_state(sched_state_t s, uint32_t left)
{
    switch (s) {
    case SCHED_RUNNING:
        return left > 1 ? LLM_LIVE_PREFILL : LLM_LIVE_DECODE;
    case SCHED_HELD:
        return LLM_LIVE_STALLED;
    case SCHED_WAITING:
        return LLM_LIVE_PREEMPTED;
    default:
        return LLM_LIVE_WAITING;
    }
}


/* Shows how request i stands. */
static void
show(loop_t *l, uint32_t i)
{
    /* of several choices the one that gets most speaks for all */
    static const uint8_t rank[LLM_LIVE_STATES_N] = {[LLM_LIVE_PREEMPTED] = 1,
        [LLM_LIVE_STALLED] = 2,
        [LLM_LIVE_PREFILL] = 3,
        [LLM_LIVE_DECODE] = 4};
    uint32_t c, known, computed, seq, one, choices = l->in->reqs[i].choices;
    sched_state_t state;
    live_work_t w;

    assert(l->reqs[i].owned);
    memset(&w, 0, sizeof(w));
    w.state = LLM_LIVE_WAITING;
    w.sampled = sched_completion(l->sched, i);
    w.cached = sched_cached(l->sched, i);

    for (c = 0; c < choices; c++) {
        seq = i * LLM_CHOICES_MAX + c;
        state = sched_seq(l->sched, seq, &known, &computed);
        one = shown_state(state, known - computed);
        w.state = rank[one] > rank[w.state] ? one : w.state;
        w.computed += state == SCHED_ENDED ? 0 : computed;
        w.blocks += kv_held(l->kv, seq);
    }
    if (l->reqs[i].begun_us == 0) {
        w.state = LLM_LIVE_WAITING; /* was let in, and out again at once */
    }
    live_show(l->show, i, &w);
}


/* Shows the next n in turn, or as many as there are. */
static void
show_some(loop_t *l, uint32_t n)
{
    uint32_t k;

    n = n < l->live_n ? n : l->live_n;
    for (k = 0; k < n; k++) {
        l->show_at = l->show_at + 1 < l->live_n ? l->show_at + 1 : 0;
        show(l, l->live[l->show_at]);
    }
}


/* Shows the step that has run, and who was in it. */
static void
show_step(loop_t *l, uint64_t us)
{
    uint32_t k, i, last = UINT32_MAX;

    l->step.us = us < UINT32_MAX ? (uint32_t) us : UINT32_MAX;
    live_step(l->show, &l->step);

    for (k = 0; k < l->b->rows_n; k++) {
        i = l->b->rows[k].seq / LLM_CHOICES_MAX;
        /* a request's choices mostly stand side by side */
        if (i != last && l->reqs[i].owned) {
            show(l, i);
        }
        last = i;
    }
    show_some(l, LOOP_SHOWN);
}


/* The second tier, if there is a cache that it can be of. */
static int
open_tier(loop_t *l, const forward_cfg_t *f)
{
    kv_tier_cfg_t tc = {f->host_blocks, 2 * l->in->reqs_n, l->c.cache_seed,
        l->c.host_again != 0};
    ferry_cfg_t fc = {
        l->kv, l->c.forward, l->c.block_bytes, l->c.step_target_ms * 1000};

    if (f->host_blocks == 0) {
        return 0;
    }
    if (kv_tier(l->kv, &tc) != 0) {
        return -1;
    }
    if (!kv_tiers(l->kv)) {
        log_line(LOG_INFO, "no second tier of the prefix cache");
        return 0;
    }
    l->ferry = ferry_open(&fc);

    return l->ferry == NULL ? -1 : 0;
}


static int
open_obey(loop_t *l)
{
    const obey_cfg_t oc = {l->c.grammars, l->c.token, l->c.reason, l->c.vocab,
        l->in->reqs_n, l->c.shape.outs_max, l->c.jump, l->in->state};

    if (l->c.grammars != NULL) {
        l->obey = obey_open(&oc);
    }

    return l->c.grammars != NULL && l->obey == NULL ? -1 : 0;
}


/* The scheduler knows twice as many tenants as there are requests. */
static uint32_t
tenants(const loop_t *l)
{
    return 2 * l->in->reqs_n;
}


/* What scheduler and pool are opened with. */
static void
configs(const loop_t *l, sched_cfg_t *sc, kv_cfg_t *kc)
{
    const forward_cfg_t *f = &l->c.shape;

    memset(sc, 0, sizeof(*sc));
    sc->reqs = l->in->reqs_n;
    sc->rows = f->rows_max < f->outs_max ? f->rows_max : f->outs_max;
    sc->tokens = f->tokens_max;
    sc->context = f->context;
    sc->policy = l->c.policy;
    sc->tile = l->c.tile;
    sc->target_us = l->c.step_target_ms * 1000;
    sc->pass_us = l->c.prefix_pass_ms * 1000;
    sc->floor = l->c.class_floor;
    sc->depth = f->depth;
    forward_kv(f, sched_seqs(sc), kc);
}


static int
open_batch(batch_t *b, const forward_cfg_t *f)
{
    b->rows_max = f->rows_max;
    b->tokens_max = f->tokens_max;
    b->outs_max = f->outs_max;
    b->rows = mem_zero(f->rows_max, sizeof(batch_row_t));
    b->tokens = mem_zero(f->tokens_max, sizeof(uint32_t));
    b->outs = mem_zero(f->outs_max, sizeof(batch_out_t));
    b->late = mem_zero(f->rows_max, sizeof(batch_late_t));

    return b->rows == NULL || b->tokens == NULL || b->outs == NULL
                   || b->late == NULL
               ? -1
               : 0;
}


static void
close_batch(batch_t *b)
{
    mem_free(b->rows);
    mem_free(b->tokens);
    mem_free(b->outs);
    mem_free(b->late);
}


static int
open_tables(loop_t *l, const forward_cfg_t *f)
{
    uint32_t reqs_n = l->in->reqs_n;
    sched_cfg_t sc;
    live_cfg_t lc;
    kv_cfg_t kc;

    configs(l, &sc, &kc);
    l->b = &l->batches[0];
    l->next = &l->batches[1];
    l->outs = mem_zero(f->outs_max, sizeof(sample_out_t));
    l->takes = mem_zero(f->outs_max, sizeof(sched_take_t));
    l->more = mem_zero(f->outs_max, sizeof(*l->more));
    l->reqs = mem_zero(reqs_n, sizeof(lreq_t));
    l->live = mem_zero(reqs_n, sizeof(uint32_t));
    l->kv = kv_open(&kc);

    if (open_batch(l->b, f) != 0 || open_batch(l->next, f) != 0
        || l->outs == NULL || l->takes == NULL || l->more == NULL
        || l->reqs == NULL || l->live == NULL || l->kv == NULL) {
        return -1;
    }

    if (l->c.cache && kv_cache(l->kv, tenants(l), l->c.cache_seed) != 0) {
        return -1;
    }
    kv_shares(l->kv, l->c.cache_floor, l->c.cache_idle_us);
    if (l->c.cache && !kv_caches(l->kv)) {
        log_line(
            LOG_INFO, "no prefix cache: all layers of this model have windows");
    }
    if (open_tier(l, f) != 0) {
        return -1;
    }

    l->sched = sched_open(&sc, l->kv);
    if (open_obey(l) != 0) {
        return -1;
    }

    memset(&lc, 0, sizeof(lc));
    lc.page = l->c.page_size > 0 ? l->c.page : NULL;
    lc.size = l->c.page_size;
    lc.reqs = reqs_n;
    lc.batch_tokens = f->tokens_max;
    lc.batch_rows = sc.rows;
    lc.now_us = clock_us();
    l->show = live_open(&lc);
    if (l->show != NULL) {
        live_target(l->show, sc.target_us);
    }

    return l->sched == NULL || l->show == NULL ? -1 : 0;
}


loop_t *
loop_open(const loop_cfg_t *c)
{
    loop_t *l;
    uint64_t room;

    assert(c->inner != NULL && c->token != NULL);

    l = mem_zero(1, sizeof(*l));
    if (l == NULL) {
        return NULL;
    }

    l->c = *c;
    l->in = c->inner;

    /* the last addend is what a skip at the wrap may waste */
    room =
        (uint64_t) c->shape.outs_max * llm_ring_align(sizeof(req_msg_token_t))
        + (uint64_t) c->shape.outs_max * llm_ring_align(TOKEN_BARE)
        + (uint64_t) l->in->reqs_n * llm_ring_align(sizeof(req_msg_end_t))
        + sizeof(req_msg_token_t);
    assert(room <= l->in->loop_out.in.size);
    l->room = (uint32_t) room;

    if (open_tables(l, &c->shape) != 0) {
        loop_close(l);
        return NULL;
    }

    forward_watch(c->forward, beat_in_step, l);
    if (l->obey != NULL) {
        forward_masks(c->forward, mask_step, l);
    }

    assert(kv_fits(l->kv) == c->shape.context);
    l->in->state->blocks_total = c->shape.blocks;
    l->in->state->block_tokens = c->shape.block_tokens;
    publish(l);

    return l;
}


int
loop_pin(loop_t *l, const uint32_t *ids, uint32_t n)
{
    const loop_pin_t p = {l->kv, l->c.forward, l->b, l->outs};
    int rc = loop_pin_prefix(&p, ids, n);

    assert(kv_fits(l->kv) == l->c.shape.context);
    publish(l);

    return rc;
}


void
loop_close(loop_t *l)
{
    if (l == NULL) {
        return;
    }

    forward_watch(l->c.forward, NULL, NULL);
    forward_masks(l->c.forward, NULL, NULL);
    live_close(l->show);
    sched_close(l->sched);
    obey_close(l->obey);
    ferry_close(l->ferry);
    kv_close(l->kv);
    close_batch(&l->batches[0]);
    close_batch(&l->batches[1]);
    mem_free(l->outs);
    mem_free(l->takes);
    mem_free(l->more);
    mem_free(l->reqs);
    mem_free(l->live);
    mem_free(l);
}


void
loop_record_head(const loop_t *l, record_head_t *h)
{
    sched_cfg_t sc;
    kv_cfg_t kc;

    configs(l, &sc, &kc);
    record_head(h, &sc, &kc, l->c.cache ? tenants(l) : 0, l->b);
    h->kept = l->c.cache_floor;
    h->idle_us = l->c.cache_idle_us;
}


void
loop_record(loop_t *l, recorder_t *rec)
{
    assert(l->turns == 0 && l->live_n == 0);

    sched_tap(l->sched, record_tell, rec);
}


void
loop_kill(loop_t *l)
{
    __atomic_store_n(&l->kill, 1, __ATOMIC_RELEASE);
    bell_ring(&l->in->loop_bell);
}


static int
flag(const uint32_t *word)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE) != 0;
}


/* --- to text_out -------------------------------------------------------- */

/* A record of loop_out; there is room (see ROOM). */
static void
push(loop_t *l, const void *msg, size_t len, uint16_t type)
{
    llm_ring_t *r = &l->in->loop_out.in;
    llm_ring_hdr_t *h;

    h = llm_ring_reserve(r, (uint32_t) len, 0);
    assert(h != NULL);
    memcpy((uint8_t *) h + sizeof(*h), (const uint8_t *) msg + sizeof(*h),
        len - sizeof(*h));
    h->type = type;
    llm_ring_commit(r);
    l->pushed = 1;
}


/* Rings text_out, if there is something for it: once a turn. */
static void
push_done(loop_t *l)
{
    if (l->pushed) {
        l->pushed = 0;
        bell_ring(&l->in->out_bell);
    }
}


static void
push_token(loop_t *l, const sched_take_t *take, const sample_out_t *out)
{
    req_msg_token_t m;
    size_t len = offsetof(req_msg_token_t, out);

    assert(out->tops_n <= SAMPLE_TOPS_MAX);

    memset(&m, 0, sizeof(m));
    m.req = take->req;
    m.gen = l->in->reqs[take->req].gen;
    m.choice = take->choice;
    m.index = take->index;
    m.finish = take->finish;
    m.shown = take->shown;
    m.prompt = take->prompt;
    m.out = *out;

    /* what lies behind the last top in use does not travel */
    len += out->tops_n == 0 ? offsetof(sample_out_t, top_ids)
                            : offsetof(sample_out_t, top_logprobs)
                                  + out->tops_n * sizeof(float);
    push(l, &m, len, REQ_MSG_TOKEN);
}


/* What came with a token that was sampled: without logprobs. */
static void
push_more(loop_t *l, const sched_take_t *take)
{
    sched_take_t t = *take;
    sample_out_t out;
    uint32_t i;

    for (i = 0; i < take->more_n; i++) {
        memset(&out, 0, sizeof(out));
        out.token = take->more[i];
        t.index = take->index + 1 + i;
        push_token(l, &t, &out);
        live_token(l->show, t.req, l->now_us);
    }
    l->sampled += take->more_n;
}


/* When a request like r should come again. */
static uint32_t
retry_ms(loop_t *l, const req_t *r)
{
    uint64_t ms = (sched_retry_us(l->sched, r) + 999) / 1000;

    return ms < UINT32_MAX ? (uint32_t) ms : UINT32_MAX;
}


/*
 * The loop's last word on request i.  known: does the scheduler have it?
 */
static void
finish(loop_t *l, uint32_t i, uint32_t err, int known)
{
    req_t *r = &l->in->reqs[i];
    lreq_t *lr = &l->reqs[i];
    uint64_t begun, first;
    req_msg_end_t m;

    assert(lr->owned && l->live[lr->at] == i);

    memset(&m, 0, sizeof(m));
    m.req = i;
    m.gen = r->gen;
    m.err = err;

    begun = lr->begun_us != 0 ? lr->begun_us : l->now_us;
    first = lr->first_us != 0 ? lr->first_us : l->now_us;
    if (err == LLM_ERR_BUSY || err == LLM_ERR_QUEUE_TIMEOUT) {
        m.retry_ms = retry_ms(l, r);
    }
    m.queue_us = begun > r->arrival_us ? begun - r->arrival_us : 0;
    m.prefill_us = first > begun ? first - begun : 0;
    m.decode_us = l->now_us > first ? l->now_us - first : 0;

    if (known) {
        m.completion_tokens = sched_completion(l->sched, i);
        m.cached_tokens = sched_cached(l->sched, i);
        sched_end(l->sched, i);
        live_end(l->show, i);
    }
    if (r->grammar != NULL) {
        obey_end(l->obey, i);
    }

    l->live[lr->at] = l->live[--l->live_n];
    l->reqs[l->live[lr->at]].at = lr->at;
    lr->owned = 0;

    /* from the push on the request is text_out's */
    req_set_state(r, REQ_ENDING);
    push(l, &m, sizeof(m), REQ_MSG_END);
}


/* --- what others have to say -------------------------------------------- */

static void
take_ready(loop_t *l, const req_msg_t *m)
{
    req_t *r;
    lreq_t *lr;
    int rc;

    assert(m->req < l->in->reqs_n);
    r = &l->in->reqs[m->req];
    lr = &l->reqs[m->req];
    assert(r->gen == m->gen && r->state == REQ_WAITING && !lr->owned);

    memset(lr, 0, sizeof(*lr));
    lr->owned = 1;
    lr->at = l->live_n;
    l->live[l->live_n++] = m->req;

    rc = r->grammar != NULL ? obey_begin(l->obey, m->req, r) : 0;
    if (rc == 0) {
        rc = sched_add(l->sched, m->req, r);
    }
    if (rc != 0) {
        finish(l, m->req, (uint32_t) -rc, 0);
    } else {
        live_add(l->show, m->req, r);
    }
}


static void
take_verdict(loop_t *l, const req_msg_verdict_t *m)
{
    assert(m->req < l->in->reqs_n);

    /* it may have ended, and its index be in use again, in the meantime */
    if (!l->reqs[m->req].owned || l->in->reqs[m->req].gen != m->gen) {
        return;
    }

    (void) sched_cut(l->sched, m->req, m->choice, m->index);
    if (sched_done(l->sched, m->req)) {
        finish(l, m->req, 0, 1);
    }
}


/* Empties the rings that lead here. Returns how many requests came. */
static uint32_t
drain(loop_t *l)
{
    llm_ring_t *ready = &l->in->in_loop.out, *said = &l->in->out_loop.out;
    req_msg_verdict_t verdict;
    uint32_t came = 0;
    req_msg_t msg;
    int64_t n;

    while ((n = llm_ring_peek(ready, &msg, sizeof(msg))) > 0) {
        assert(n == sizeof(msg) && msg.hdr.type == REQ_MSG_READY);
        llm_ring_advance(ready);
        take_ready(l, &msg);
        came++;
    }
    assert(n == LLM_RING_EMPTY);

    while ((n = llm_ring_peek(said, &verdict, sizeof(verdict))) > 0) {
        assert(n == sizeof(verdict) && verdict.hdr.type == REQ_MSG_VERDICT);
        llm_ring_advance(said);
        take_verdict(l, &verdict);
    }
    assert(n == LLM_RING_EMPTY);

    return came;
}


/* Looks at each request's line: who left, who has credit. */
static void
watch(loop_t *l, int kill)
{
    uint32_t n = l->live_n, i;
    const req_t *r;

    /* backwards: finish() moves the last one, seen already, into the gap */
    while (n-- > 0) {
        i = l->live[n];
        r = &l->in->reqs[i];

        if (req_cancelled(r)) {
            finish(l, i, LLM_ERR_CANCELLED, 1);
        } else if (kill) {
            finish(l, i, LLM_ERR_DRAINING, 1);
        } else {
            sched_credit(l->sched, i, req_has_credit(r));
        }
    }
}


/* --- the step ----------------------------------------------------------- */

/* May a turn be run, as far as text_out has come? (See ROOM.) */
static int
has_room(const loop_t *l)
{
    const llm_ring_t *r = &l->in->loop_out.in;
    uint64_t head = __atomic_load_n(&r->ctl->head, __ATOMIC_ACQUIRE);

    assert(r->pos - head <= r->size);

    return r->size - (r->pos - head) >= l->room
           && r->pos - head <= r->pos - l->marks[l->turns % LOOP_AHEAD];
}


/* Marks what begins with this batch, and counts what is in it. */
static void
begin(loop_t *l)
{
    const batch_row_t *row;
    uint32_t k, i;
    req_t *r;

    memset(&l->step, 0, sizeof(l->step));

    for (k = 0; k < l->b->rows_n; k++) {
        row = &l->b->rows[k];
        i = row->seq / LLM_CHOICES_MAX;
        r = &l->in->reqs[i];
        assert(l->reqs[i].owned);

        if (l->reqs[i].begun_us == 0) {
            l->reqs[i].begun_us = l->now_us;
            req_set_state(r, REQ_RUNNING);
            live_begin(l->show, i, l->now_us);
        }
        live_served(l->show, i, row->q_len);

        if (row->q_len == 1
            && row->q_start
                   >= r->prompts[row->seq % LLM_CHOICES_MAX / r->n].len) {
            l->step.decode++;
        } else {
            l->step.prefill += row->q_len;
        }
    }
}


/*
 * Hands the step's tokens on, and then ends what they end: the last token of
 * each choice comes before its request's END.
 */
static void
deliver(loop_t *l)
{
    const sched_take_t *t;
    uint32_t k;

    for (k = 0; k < l->b->outs_n; k++) {
        t = &l->takes[k];
        assert(!t->gone);
        if (t->err != 0) {
            continue;
        }
        if (l->reqs[t->req].first_us == 0 && !t->prompt) {
            l->reqs[t->req].first_us = l->now_us;
        }
        l->sampled += !t->prompt;
        if (!t->prompt) {
            live_token(l->show, t->req, l->now_us);
        }
        push_token(l, t, &l->outs[k]);
        push_more(l, t);
    }

    for (k = 0; k < l->b->outs_n; k++) {
        t = &l->takes[k];
        if (!l->reqs[t->req].owned) {
            continue;
        }
        if (t->err != 0) {
            finish(l, t->req, t->err, 1);
        } else if (t->finish != LLM_FINISH_NONE
                   && sched_done(l->sched, t->req)) {
            finish(l, t->req, 0, 1);
        }
    }
}


/* Sleeps until start + step_min, beating, unless all is to end. */
static void
pace(loop_t *l, uint64_t start_us)
{
    uint64_t until = start_us + l->c.step_min_ms * 1000, left;
    struct timespec ts;

    while (l->now_us < until && !flag(&l->kill) && !flag(&l->in->stop)) {
        left = until - l->now_us;
        left = left < LOOP_SLICE_US ? left : LOOP_SLICE_US;
        ts.tv_sec = 0;
        ts.tv_nsec = (long) left * 1000;
        (void) nanosleep(&ts, NULL);
        beat(l);
        l->now_us = clock_us();
    }
}


/* There is no step.  0: nor a copy that somebody may wait for. */
static int
idle(loop_t *l)
{
    if (!ferry_idle(l->ferry)) {
        return 0;
    }
    l->now_us = clock_us();

    return 1;
}


/* Writes the next step; who has waited too long leaves the queue. */
static void
plan(loop_t *l)
{
    uint32_t i;

    sched_plan(l->sched, l->now_us, l->next);
    while (sched_expired(l->sched, &i)) {
        finish(l, i, LLM_ERR_QUEUE_TIMEOUT, 1);
    }
}


/* Runs the next step, planned ahead or now; 0: there was nothing to run. */
static int
run(loop_t *l)
{
    batch_t *b = l->next;

    if (b->rows_n == 0) {
        plan(l);
    }
    if (b->rows_n == 0) {
        return 0;
    }

    l->next = l->b;
    l->next->rows_n = 0;
    l->b = b;
    begin(l);
    forward_submit(l->c.forward, b);
    if (l->c.shape.depth > 0) {
        plan(l);
    }
    loop_wait(l->c.forward, l->outs);
    l->now_us = clock_us();

    return 1;
}


/* What must follow the token that sequence seq got, as far as there is room. */
static void
take_more(loop_t *l, uint32_t seq, sched_take_t *t)
{
    uint32_t room = sched_more_room(l->sched, seq);

    room = room < l->c.shape.outs_max - l->more_n
               ? room
               : l->c.shape.outs_max - l->more_n;
    t->more = l->more + l->more_n;
    t->more_n = obey_jump(l->obey, seq / LLM_CHOICES_MAX, seq % LLM_CHOICES_MAX,
        l->more + l->more_n, room);
    l->more_n += t->more_n;
}


/* What output k came to. */
static void
take(loop_t *l, uint32_t k)
{
    const batch_out_t *out = &l->b->outs[k];
    sched_take_t *t = &l->takes[k];
    obey_verdict_t v = OBEY_ON;

    t->token = l->outs[k].token;
    t->err = l->outs[k].err;
    t->ends = t->err == 0 && token_is_end(l->c.token, t->token);

    if (l->obey != NULL && t->err == 0 && !t->ends && out->wanted == 0) {
        v = obey_took(l->obey, l->b->rows[out->row].seq / LLM_CHOICES_MAX,
            out->choice, t->token);
    }
    t->over = v == OBEY_OVER;
    t->more_n = 0;
    if (v == OBEY_BROKEN) {
        t->err = LLM_ERR_INTERNAL;
    } else if (v == OBEY_JUMP) {
        take_more(l, l->b->rows[out->row].seq, t);
    }
}


/* Runs a step, and hands on what it gave. 0: there was nothing to run. */
static int
step(loop_t *l)
{
    uint64_t start = l->now_us, copied = ferry_turn(l->ferry);
    uint32_t k;

    if (!run(l)) {
        return idle(l);
    }

    l->more_n = 0;
    for (k = 0; k < l->b->outs_n; k++) {
        take(l, k);
    }
    sched_commit(l->sched, l->b, l->takes);
    sched_took(l->sched, l->b, l->now_us - start - copied);

    l->computed += l->b->tokens_n;
    deliver(l);
    l->marks[l->turns % LOOP_AHEAD] = l->in->loop_out.in.pos;
    l->turns++;
    publish(l);
    show_step(l, l->now_us - start);
    push_done(l);
    pace(l, start);

    return 1;
}


/* --- sleep -------------------------------------------------------------- */

/* Bell and lines: whoever changes something from here on rings. */
static void
arm(loop_t *l)
{
    llm_seg_head_t *seg, *last = NULL;
    uint32_t n;

    bell_arm(&l->in->loop_bell);

    for (n = 0; n < l->live_n; n++) {
        seg = l->in->reqs[l->live[n]].seg;
        if (seg != last) {
            (void) __atomic_exchange_n(&seg->line_sleeps, 1, __ATOMIC_SEQ_CST);
            last = seg;
        }
    }
}


/* How long a sleep may take at most. */
static int
sleep_ms(const loop_t *l, int room)
{
    uint64_t at = sched_expires_us(l->sched);
    int ms = room ? LOOP_BEAT_MS : LOOP_ROOM_MS;

    if (at != UINT64_MAX) {
        if (at <= l->now_us) {
            return 0;
        }
        if (at - l->now_us < (uint64_t) ms * 1000) {
            ms = (int) ((at - l->now_us + 999) / 1000);
        }
    }

    return ms;
}


void *
loop_run(void *loop)
{
    loop_t *l = loop;
    int armed = 0, stop, room;
    uint32_t came;

    l->now_us = clock_us();

    do {
        beat(l);

        /* before the drain: what was handed over before stop is ended */
        stop = flag(&l->in->stop);
        came = drain(l);
        watch(l, stop || flag(&l->kill));
        if (l->next->rows_n > 0) {
            sched_trim(l->sched, l->next);
        }

        room = has_room(l);
        if (room && step(l)) {
            if (armed) {
                bell_stay(&l->in->loop_bell);
                armed = 0;
            }
            continue;
        }

        publish(l);
        show_some(l, l->live_n);
        push_done(l);

        if (stop) {
            break;
        }
        /* once more for those whose line does not say yet that it sleeps */
        if (!armed || came > 0) {
            arm(l);
            armed = 1;
            continue;
        }

        if (l->c.idle != NULL) {
            l->c.idle(l->c.idle_arg);
        }
        bell_wait(&l->in->loop_bell, sleep_ms(l, room));
        armed = 0;
        l->now_us = clock_us();

    } while (1);

    assert(l->live_n == 0 && l->next->rows_n == 0);

    return NULL;
}
