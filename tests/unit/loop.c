/*
 * Catches a loop that loses or doubles an END, skips or repeats a token index,
 * goes on after a cancel, sleeps while there is work, spins while there is
 * none, stalls a stream, runs ahead of text_out, lets one sequence see
 * another's keys and values, or shows others a request that is not so.
 *
 * All is deterministic: forward and bell are fakes that let the other threads'
 * events happen, from a seed, where they could hurt most.  The device's keeps a
 * token per cache position and samples a hash of all that it reads there.
 */
#include "brief.h"
#include "live.h"
#include "loop.h"
#include "mem.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    REQS = 24,
    ROWS = 6,
    TOKENS = 24,
    CONTEXT = 96,
    BT = 4,
    BLOCKS = 40,
    SLOTS = 120, /* of the second tier, if there is one */
    COPIES = 32, /* under way */
    SEGS = 3,
    VOCAB = 250,
    EOS = 7
};

/* What the test knows of one request. */
typedef struct {
    int live;                               /* READY was sent, END not seen */
    int ends;                               /* ENDs seen */
    int cancelled_at;                       /* world step; -1: no */
    uint32_t ids[LLM_CHOICES_MAX][CONTEXT]; /* known, by choice */
    uint32_t known[LLM_CHOICES_MAX];
    uint32_t finish[LLM_CHOICES_MAX];
    uint32_t verdict[LLM_CHOICES_MAX]; /* index + 1; 0: none said */
    uint32_t tokens;
    llm_slot_line_t line;
    sample_params_t params;
} fake_req_t;

typedef struct {
    inner_t *in;
    loop_t *loop;
    llm_state_t state;
    llm_seg_head_t segs[SEGS];
    uint32_t dead[SEGS];
    fake_req_t reqs[REQS];
    token_t *tok;
    uint32_t kv[BLOCKS * BT]; /* the device's memory */
    uint32_t host[SLOTS * BT];
    struct {
        const uint32_t *from, *to;
        uint32_t n;
        int in, late;
    } copies[COPIES];
    uint64_t copies_n, copied_n; /* begun, ended */
    uint32_t late, bad; /* turns that a copy takes; one of so many fails */
    batch_t b;          /* of the step in flight, copied */
    batch_row_t rows[ROWS];
    batch_out_t outs[ROWS];
    uint32_t tokens[TOKENS];
    uint32_t sampled[ROWS]; /* by the step before */
    uint64_t ahead;         /* tokens that were late */
    int armed;
    int arming; /* inside bell_arm */
    int step;   /* of the world */
    int until;  /* nothing new from this step on */
    int lag;    /* world steps in which text_out reads nothing */
    int quiet;  /* no random events at all */
    int rung;   /* out_bell */
    int waits;
    int forwards;
    void (*watch)(void *arg);
    void *watch_arg;
    unsigned nan_seq;            /* sequence whose logits are not finite */
    uint32_t ended[LLM_ERR_END]; /* ENDs by error */
    void (*script)(void);        /* instead of random events; NULL: those */
    uint8_t *page;               /* where requests are shown */
} fake_t;

static fake_t *g; /* the fakes have no argument to carry it */
static uint32_t depth;


/* --- the device --------------------------------------------------------- */

static uint32_t
hash(uint32_t h, uint32_t v)
{
    h = (h ^ v) * 2654435761u;
    return h ^ h >> 15;
}

/* What follows these tokens. */
static uint32_t
next_token(const uint32_t *ids, uint32_t n, uint32_t choice)
{
    uint32_t h = hash(1, choice), i;

    for (i = 0; i < n; i++) {
        h = hash(h, ids[i]);
    }

    return h % 41 == 0 ? EOS : 10 + h % (VOCAB - 10);
}

static void world(void);

void
forward_watch(forward_t *f, void (*fn)(void *arg), void *arg)
{
    (void) f;
    g->watch = fn;
    g->watch_arg = arg;
}

void
forward_masks(forward_t *f, void (*fn)(void *arg, const batch_t *b), void *arg)
{
    assert_true(f != NULL && fn == NULL && arg == NULL); /* no grammars here */
}

void
forward_submit(forward_t *f, const batch_t *b)
{
    const batch_row_t *r;
    const batch_blocks_t *blocks;
    uint8_t used[BLOCKS] = {0};
    uint32_t i, k, sum = 0;
    uint64_t beats = g->state.heartbeat[LLM_THREAD_LOOP];

    (void) f;
    g->forwards++;

    /* it shows in the middle of a step that the loop lives */
    assert_non_null(g->watch);
    g->watch(g->watch_arg);
    assert_int_equal(g->state.heartbeat[LLM_THREAD_LOOP], beats + 1);
    assert_true(b->rows_n > 0 && b->rows_n <= ROWS);
    assert_true(b->tokens_n <= TOKENS && b->outs_n <= b->rows_n);

    memcpy(g->tokens, b->tokens, b->tokens_n * sizeof(uint32_t));
    assert_true(b->late_n == 0 || depth > 0);
    for (i = 0; i < b->late_n; i++) {
        assert_true(b->late[i].out < g->b.outs_n);
        g->tokens[b->late[i].tok] = g->sampled[b->late[i].out];
        g->ahead++;
    }

    for (i = 0; i < b->rows_n; i++) {
        r = &b->rows[i];
        sum += r->q_len;
        assert_int_equal(r->kv_len, r->q_start + r->q_len);
        blocks = &r->blocks[0];
        assert_int_equal(blocks->first, 0);
        assert_true(blocks->n * BT >= r->kv_len);
        for (k = 0; k < blocks->n; k++) {
            assert_true(blocks->ids[k] < BLOCKS);
            used[blocks->ids[k]]++;
        }
        for (k = 0; k < r->q_len; k++) {
            uint32_t pos = r->q_start + k;

            g->kv[blocks->ids[pos / BT] * BT + pos % BT] =
                g->tokens[r->tok + k];
        }
    }
    assert_int_equal(sum, b->tokens_n);

    /* what is written is nobody else's */
    for (i = 0; i < b->rows_n; i++) {
        r = &b->rows[i];
        for (k = r->q_start / BT; k <= (r->kv_len - 1) / BT; k++) {
            assert_int_equal(used[r->blocks[0].ids[k]], 1);
        }
    }
    assert_int_equal(g->state.blocks_free + g->state.blocks_private
                         + g->state.blocks_cached + g->state.blocks_transit,
        BLOCKS);

    memcpy(g->rows, b->rows, b->rows_n * sizeof(batch_row_t));
    memcpy(g->outs, b->outs, b->outs_n * sizeof(batch_out_t));
    g->b = *b;

    world();
}

int
forward_wait(forward_t *f, sample_out_t *out)
{
    uint32_t i, k, ids[CONTEXT];
    const batch_row_t *r;

    (void) f;
    for (i = 0; i < g->b.outs_n; i++) {
        r = &g->rows[g->outs[i].row];
        for (k = 0; k < r->kv_len; k++) {
            ids[k] = g->kv[r->blocks[0].ids[k / BT] * BT + k % BT];
        }
        assert_int_equal(g->outs[i].known_n, r->kv_len);
        assert_memory_equal(g->outs[i].known, ids, r->kv_len * 4);
        memset(&out[i], 0, sizeof(out[i]));
        out[i].token = next_token(ids, r->kv_len, g->outs[i].choice);
        g->sampled[i] = out[i].token;
        out[i].err = r->seq == g->nan_seq ? LLM_ERR_NAN_LOGITS : 0;
        out[i].logprob = -1.5f;
        out[i].tops_n = g->outs[i].params->tops;
        for (k = 0; k < out[i].tops_n; k++) {
            out[i].top_ids[k] = k;
            out[i].top_logprobs[k] = -(float) k;
        }
    }

    return 0; /* there is no other rank that could be lost */
}

const char *
forward_error(const forward_t *f)
{
    return f == NULL ? "" : NULL;
}

/* Nonsense is where it writes, until it has ended well. */
static void
move(const uint32_t *from, const uint32_t *to, uint32_t n, int in, int well)
{
    const uint32_t *src = in ? g->host : g->kv;
    uint32_t i, *dst = in ? g->kv : g->host;

    for (i = 0; i < n; i++) {
        assert_true(from[i] < (in ? SLOTS : BLOCKS));
        assert_true(to[i] < (in ? BLOCKS : SLOTS));
        if (well) {
            memcpy(dst + to[i] * BT, src + from[i] * BT, BT * 4);
        } else {
            memset(dst + to[i] * BT, 0xee, BT * 4);
        }
    }
}

uint64_t
forward_copy(
    forward_t *f, int in, const uint32_t *from, const uint32_t *to, uint32_t n)
{
    uint64_t nth = g->copies_n++;

    (void) f;
    assert_true(nth - g->copied_n < COPIES);
    g->copies[nth % COPIES].from = from;
    g->copies[nth % COPIES].to = to;
    g->copies[nth % COPIES].n = n;
    g->copies[nth % COPIES].in = in;
    g->copies[nth % COPIES].late =
        g->late == 0 ? 0 : rand() % (int) (g->late + 1);
    move(from, to, n, in, 0);

    return nth;
}

int
forward_copied(const forward_t *f, uint64_t nth)
{
    (void) f;
    assert_int_equal(nth, g->copied_n); /* in order, and each once */
    assert_true(nth < g->copies_n);
    if (g->copies[nth % COPIES].late-- > 0) {
        return KN_COPY_RUNS;
    }
    g->copied_n++;
    if (g->bad > 0 && (uint32_t) rand() % g->bad == 0) {
        return KN_COPY_FAILED;
    }
    move(g->copies[nth % COPIES].from, g->copies[nth % COPIES].to,
        g->copies[nth % COPIES].n, g->copies[nth % COPIES].in, 1);

    return KN_COPY_DONE;
}


/* --- bells -------------------------------------------------------------- */

int
bell_open(bell_t *b)
{
    b->fd = 0;
    return 0;
}


void
bell_close(bell_t *b)
{
    (void) b;
}


void
bell_ring(bell_t *b)
{
    if (b == &g->in->out_bell) {
        g->rung = 1;
    } else {
        g->armed = 0;
    }
}


void
bell_arm(bell_t *b)
{
    assert_ptr_equal(b, &g->in->loop_bell);
    g->armed = 1;
    g->arming = 1;
    world(); /* comes after arming, before line_sleeps: must be found */
    g->arming = 0;
}


void
bell_stay(bell_t *b)
{
    (void) b;
    g->armed = 0;
}


/* Is there anything that the loop, about to sleep, ought to have seen? */
static void
assert_idle(void)
{
    const req_t *r;
    uint32_t i, waiting = 0;
    int behind;

    assert_int_equal(g->in->in_loop.out.ctl->tail, g->in->in_loop.out.pos);
    assert_int_equal(g->in->out_loop.out.ctl->tail, g->in->out_loop.out.pos);
    behind = g->in->loop_out.in.pos != g->in->loop_out.out.pos;

    for (i = 0; i < REQS; i++) {
        if (g->in->reqs[i].state != REQ_RUNNING
            && g->in->reqs[i].state != REQ_WAITING) {
            continue;
        }
        r = &g->in->reqs[i];
        assert_false(req_cancelled(r));
        assert_int_equal(r->seg->line_sleeps, 1);
        /* a tenant's own limit may keep one waiting behind a stalled one */
        if (req_has_credit(r)
            && (r->concurrent == 0 || r->state == REQ_RUNNING)) {
            waiting++;
        }
    }

    /* it may leave work alone only because text_out is far behind */
    assert_true(waiting == 0 || behind);
    assert_false(g->rung == 0 && behind && g->lag == 0);
}


/* The sums of what is shown of the tenants. */
static void
add_tenants(const llm_live_t *live, llm_live_tenant_t *sum)
{
    llm_live_tenant_t t;
    uint32_t i;

    memset(sum, 0, sizeof(*sum));
    for (i = 0; i < live->head.tenants_n; i++) {
        if (llm_live_tenant(live, i, &t)) {
            sum->waiting += t.waiting;
            sum->running += t.running;
            sum->blocks += t.blocks;
            sum->computed += t.computed;
            sum->sampled += t.sampled;
        }
    }
}


/* Before a sleep all that is shown of requests is as it is. */
static void
assert_shown(void)
{
    const llm_state_t *s = &g->state;
    uint64_t i, n = 0, blocks = 0, stalled = 0;
    llm_live_tenant_t sum;
    llm_live_row_t row;
    llm_live_t live;
    const req_t *r;
    int shown;

    assert_int_equal(llm_live_open(&live, g->page, llm_live_size(REQS)), 1);
    for (i = 0; i < REQS; i++) {
        r = &g->in->reqs[i];
        shown = llm_live_row(&live, (uint32_t) i, &row);
        assert_int_equal(
            shown, r->state == REQ_RUNNING || r->state == REQ_WAITING);
        if (!shown) {
            continue;
        }
        n++;
        blocks += row.blocks;
        assert_int_equal(row.who >> 32, r->gen);
        assert_int_equal(row.begun_us != 0, r->state == REQ_RUNNING);
        if (row.begun_us == 0) {
            assert_string_equal(llm_live_state_name(row.who), "waiting");
            /* it may have a seat, what the cache had, and no row yet */
            assert_int_equal(row.sampled + row.computed % BT, 0);
        }
        stalled += llm_live_state(row.who) == LLM_LIVE_STALLED;
        assert_true(row.computed <= row.blocks * BT);
        assert_true(row.sampled <= row.limit);
        assert_true(row.cached <= row.prompt);
    }

    assert_int_equal(n, s->requests_waiting + s->requests_running);
    assert_true(blocks >= s->blocks_private); /* prefixes are shared */
    assert_true(stalled <= s->requests_running);
    add_tenants(&live, &sum);
    assert_int_equal(sum.waiting + sum.running, n);
    assert_int_equal(sum.blocks, blocks);
    assert_int_equal(sum.computed, s->computed_tokens);
    assert_int_equal(sum.sampled, s->completion_tokens);
    assert_int_equal(llm_live_head(&live)->steps, s->turns);
}


void
bell_wait(bell_t *b, int timeout_ms)
{
    (void) b;
    assert_shown();
    assert_true(timeout_ms >= 0 && timeout_ms <= 1000);
    assert_true(g->armed);
    assert_idle();
    g->waits++;
    g->lag = 0; /* time passes: text_out gets its turn */
    world();
    g->armed = 0;
}


/* --- the other threads -------------------------------------------------- */

static void
post(inner_ring_t *ring, void *msg, uint32_t len, uint16_t type)
{
    llm_ring_hdr_t *h = llm_ring_reserve(&ring->in, len, 0);

    if (h == NULL) {
        abort(); /* these rings are never full */
    }
    memcpy(h + 1, (llm_ring_hdr_t *) msg + 1, len - sizeof(*h));
    h->type = type;
    llm_ring_commit(&ring->in);
}


/* Fills request i in as text_in would, with usual values. */
static req_t *
fill(uint32_t i, uint32_t len, uint32_t max_tokens, uint32_t choices)
{
    fake_req_t *f = &g->reqs[i];
    req_t *r = &g->in->reqs[i];
    uint32_t gen = r->gen + 1, c, k, alike, text;

    assert_int_equal(r->state, REQ_FREE);
    memset(f, 0, sizeof(*f));
    memset(r, 0, sizeof(*r));
    f->cancelled_at = -1;
    f->params.seed = i;
    r->gen = gen;
    r->wire.gen = gen;
    r->line = &f->line;
    r->seg = &g->segs[i % SEGS];
    r->dead = &g->dead[i % SEGS];
    r->n = r->choices = choices;
    r->prompts_n = 1;
    r->prompt_tokens = len;
    r->max_tokens = max_tokens;
    r->credit = 100;
    r->weight = 1;
    alike = g->quiet ? 0 : (uint32_t) rand() % 60;
    text = g->quiet ? 0 : (uint32_t) rand() % 3;
    for (c = 0; c < choices; c++) {
        for (k = 0; k < len; k++) {
            f->ids[c][k] = 10
                           + (k < alike ? text * 100 + k : i * 31 + gen * 7 + k)
                                 % (VOCAB - 10);
        }
        f->known[c] = len;
    }
    r->prompts[0].ids = malloc(len * sizeof(uint32_t));
    memcpy(r->prompts[0].ids, f->ids[0], len * sizeof(uint32_t));
    r->prompts[0].len = len;

    return r;
}


static void
ready(uint32_t i)
{
    req_t *r = &g->in->reqs[i];
    req_msg_t m = {.req = i, .gen = r->gen};

    r->params = g->reqs[i].params;
    req_set_state(r, REQ_TEXT);
    req_set_state(r, REQ_WAITING);
    g->reqs[i].live = 1;
    post(&g->in->in_loop, &m, sizeof(m), REQ_MSG_READY);
}


static void
cancel(uint32_t i)
{
    __atomic_store_n(
        &g->reqs[i].line.cancel, g->in->reqs[i].wire.gen, __ATOMIC_RELEASE);
    g->reqs[i].cancelled_at = g->step;
}


static void
on_token(const req_msg_token_t *m, int64_t len)
{
    fake_req_t *f = &g->reqs[m->req];
    req_t *r = &g->in->reqs[m->req];
    uint32_t c = m->choice, n, over, prompt_n = r->prompts[0].len;
    req_msg_verdict_t v = {.req = m->req, .gen = m->gen, .choice = c};

    assert_true(f->live && m->gen == r->gen && c < r->choices);
    assert_int_equal(f->finish[c], LLM_FINISH_NONE);
    assert_int_equal(len,
        r->params.tops == 0
            ? offsetof(req_msg_token_t, out.top_ids)
            : offsetof(req_msg_token_t, out.top_logprobs) + 4 * r->params.tops);

    n = f->known[c];
    assert_int_equal(m->index, n - prompt_n);
    assert_int_equal(m->out.token, next_token(f->ids[c], n, c));
    f->ids[c][f->known[c]++] = m->out.token;
    f->finish[c] = m->finish;
    f->tokens++;

    over = m->index + 1 == r->max_tokens;
    if (m->out.token == EOS && !(r->flags & LLM_F_IGNORE_EOS)) {
        assert_int_equal(m->finish, LLM_FINISH_STOP);
    } else {
        assert_int_equal(m->finish, over ? LLM_FINISH_LENGTH : LLM_FINISH_NONE);
    }
    assert_int_equal(m->shown, m->out.token != EOS);

    /* payload waits until the client takes it */
    __atomic_store_n(&r->sent, r->sent + 10, __ATOMIC_RELEASE);
    __atomic_store_n(&r->posted, r->sent, __ATOMIC_RELEASE);

    if (!g->quiet && !f->verdict[c] && rand() % 60 == 0) {
        v.index = m->index;
        f->verdict[c] = v.index + 1;
        post(&g->in->out_loop, &v, sizeof(v), REQ_MSG_VERDICT);
    }
}


static void
on_end(const req_msg_end_t *m)
{
    fake_req_t *f = &g->reqs[m->req];
    req_t *r = &g->in->reqs[m->req];
    uint32_t c, verdicts = 0;

    assert_true(f->live && m->gen == r->gen && m->err < LLM_ERR_END);
    assert_int_equal(r->state, REQ_ENDING);
    assert_int_equal(f->ends, 0);
    f->ends++;
    f->live = 0;
    g->ended[m->err]++;

    for (c = 0; c < r->choices; c++) {
        verdicts += f->verdict[c] != 0;
        if (m->err == 0) {
            assert_true(f->finish[c] != LLM_FINISH_NONE || f->verdict[c]);
        }
    }
    assert_true(m->cached_tokens < r->prompts[0].len);
    if (verdicts == 0) {
        assert_int_equal(m->completion_tokens, f->tokens);
    } else {
        assert_true(m->completion_tokens <= f->tokens);
    }
    if (m->err == LLM_ERR_CANCELLED) {
        assert_true(f->cancelled_at >= 0 || *r->dead);
    }

    free(r->prompts[0].ids);
    req_set_state(r, REQ_FREE);
}


/* text_out's turn: reads all that is there. */
static void
read_out(void)
{
    union {
        req_msg_token_t token;
        req_msg_end_t end;
    } m;
    uint32_t i;
    int64_t n;

    if (g->lag > 0) {
        g->lag--;
        return;
    }

    while ((n = llm_ring_peek(&g->in->loop_out.out, &m, sizeof(m))) > 0) {
        llm_ring_advance(&g->in->loop_out.out);
        if (m.token.hdr.type == REQ_MSG_TOKEN) {
            on_token(&m.token, n);
        } else {
            assert_int_equal(m.token.hdr.type, REQ_MSG_END);
            assert_int_equal(n, sizeof(req_msg_end_t));
            on_end(&m.end);
        }
    }
    assert_int_equal(n, LLM_RING_EMPTY);
    g->rung = 0;

    /* whoever left is gone one turn later */
    for (i = 0; i < REQS; i++) {
        if (g->reqs[i].live && g->reqs[i].cancelled_at >= 0) {
            assert_true(g->step - g->reqs[i].cancelled_at <= 1);
        }
    }
}


static void
random_events(void)
{
    uint32_t i = (uint32_t) rand() % REQS, len, max;
    req_t *r = &g->in->reqs[i];

    if (r->state == REQ_FREE && g->step < g->until && rand() % 2) {
        len = 1 + (uint32_t) rand() % 60;
        max = 1 + (uint32_t) rand() % 30;
        r = fill(i, len, max, 1 + (uint32_t) rand() % 3);
        g->reqs[i].params.tops =
            rand() % 2 ? 0 : (uint32_t) rand() % (SAMPLE_TOPS_MAX + 1);
        r->flags = rand() % 3 ? 0 : LLM_F_IGNORE_EOS;
        r->tenant = (uint32_t) rand() % 4;
        r->space = r->tenant / 2;
        r->priority = (uint32_t) rand() % 2;
        r->queue_max = rand() % 4 ? 0 : 1;
        r->concurrent = r->tenant == 3;
        r->credit = 30 + (uint32_t) rand() % 200;
        ready(i);
    }

    i = (uint32_t) rand() % REQS;
    if (g->reqs[i].live && g->lag == 0) {
        switch (rand() % 20) {
        case 0:
            cancel(i);
            break;
        case 1:
            if (g->step < g->until && rand() % 8 == 0) {
                g->lag = 1 + rand() % 40;
            }
            break;
        case 2:
            g->nan_seq = rand() % 4 ? UINT32_MAX : i * LLM_CHOICES_MAX;
            break;
        default:
            break;
        }
    }

    /* clients take what they were sent, some of it, some of the time */
    for (i = 0; i < REQS; i++) {
        if (rand() % 4 == 0 || g->step >= g->until) {
            __atomic_store_n(
                &g->reqs[i].line.taken, g->in->reqs[i].sent, __ATOMIC_RELEASE);
        }
    }
}


/* All that happens beside the loop, between two of its moves. */
static void
world(void)
{
    uint32_t i, live = 0;

    read_out();
    g->step++;

    if (g->script != NULL) {
        g->script();
    } else {
        random_events();
    }

    for (i = 0; i < REQS; i++) {
        live += (uint32_t) g->reqs[i].live;
    }
    if (g->step >= g->until && live == 0) {
        __atomic_store_n(&g->in->stop, 1, __ATOMIC_RELEASE);
    }
    assert_true(g->step < g->until + 5000); /* it hangs */
}


/* --- tests -------------------------------------------------------------- */

static uint32_t tier; /* slots of the second tier of worlds to be opened */


static void
open_world(unsigned seed, int until, void (*script)(void), uint64_t step_min)
{
    static uint32_t any[2];
    loop_cfg_t c;

    srand(seed);
    g = calloc(1, sizeof(*g));
    assert_non_null(g);
    g->tok = token_open_null();
    assert_non_null(g->tok);
    token_add_end(g->tok, EOS);
    g->in = inner_open(REQS, &g->state);
    assert_non_null(g->in);
    g->until = until;
    g->script = script;
    g->quiet = script != NULL;
    g->nan_seq = UINT32_MAX;

    memset(&c, 0, sizeof(c));
    c.inner = g->in;
    c.forward = (forward_t *) (void *) any; /* never looked into */
    c.token = g->tok;
    c.shape.rows_max = c.shape.outs_max = ROWS;
    c.shape.tokens_max = TOKENS;
    c.shape.context = CONTEXT;
    c.shape.blocks = BLOCKS;
    c.shape.block_tokens = BT;
    c.shape.depth = depth;
    c.step_min_ms = step_min;
    c.cache = 1;
    c.cache_seed = seed;
    c.shape.host_blocks = tier;
    c.block_bytes = BT * 4;
    c.cache_floor = seed % 3 * 50;
    c.cache_idle_us = 1000000;
    g->page = calloc(1, llm_live_size(REQS));
    assert_non_null(g->page);
    c.page = g->page;
    c.page_size = llm_live_size(REQS);
    g->loop = loop_open(&c);
    assert_non_null(g->loop);
    assert_int_equal(g->state.blocks_total, BLOCKS);
    assert_int_equal(g->state.blocks_free, BLOCKS);
}


/* The loop has returned: nothing may be left of anything. */
static void
close_world(void)
{
    uint32_t i;

    g->lag = 0;
    read_out();
    for (i = 0; i < REQS; i++) {
        assert_int_equal(g->in->reqs[i].state, REQ_FREE);
        assert_false(g->reqs[i].live);
    }
    assert_int_equal(
        g->state.blocks_free + g->state.blocks_cached + g->state.blocks_transit,
        BLOCKS);
    assert_true(g->state.blocks_transit == 0 || tier > 0);
    assert_int_equal(g->state.blocks_private, 0);
    assert_int_equal(g->state.requests_running, 0);
    assert_int_equal(g->state.requests_waiting, 0);
    assert_int_equal(g->state.requests_stalled, 0);
    assert_true(g->state.heartbeat[LLM_THREAD_LOOP] > 0);
    assert_int_equal(g->state.turns, g->forwards);
    loop_close(g->loop);
    assert_null(g->watch);
    inner_close(g->in);
    token_close(g->tok);
    free(g->page);
    free(g);
    g = NULL;
}


/* With steps ahead a storm is a part of itself, where time is short. */
static unsigned
less(void)
{
    return depth > 0 && brief() ? 4 : 1;
}


static void
test_storm(void **state)
{
    uint32_t ended[LLM_ERR_END] = {0}, k;
    uint64_t stalls = 0, preemptions = 0, hits = 0, evictions = 0, follows = 0;
    uint64_t ahead = 0, discarded = 0;
    int waits = 0;
    unsigned seed;

    (void) state;
    for (seed = 1; seed <= 30 / less(); seed++) {
        open_world(seed, 2000, NULL, 0);
        (void) loop_run(g->loop);
        for (k = 0; k < LLM_ERR_END; k++) {
            ended[k] += g->ended[k];
        }
        stalls += g->state.credit_stalls;
        preemptions += g->state.preemptions;
        waits += g->waits;
        hits += g->state.cache_hits;
        evictions += g->state.cache_evictions;
        follows += g->state.cache_waits;
        ahead += g->ahead;
        discarded += g->state.discarded_rows;
        assert_true(g->state.cache_hits <= g->state.cache_asked);
        close_world();
    }

    /* the storm had all weathers */
    assert_true(ended[0] > 500 / less());
    assert_true(ended[LLM_ERR_CANCELLED] > 100 / less());
    assert_true(ended[LLM_ERR_NAN_LOGITS] > 10 / less());
    assert_true(ended[LLM_ERR_BUSY] > 10 / less());
    assert_int_equal(ended[LLM_ERR_DRAINING], 0);
    assert_true(stalls > 100 / less() && preemptions > 100 / less());
    assert_true(waits > 50 / (int) less() && follows > 100 / less());
    assert_true(hits > 10000 / less() && evictions > 10000 / less());
    assert_true(depth == 0
                    ? ahead == 0 && discarded == 0
                    : ahead > 10000 / less() && discarded > 1000 / less());
}


/* Before and after a test with steps ahead. */
static int
other_depth(void **state)
{
    (void) state;
    depth = 1 - depth;

    return 0;
}


/*
 * The same with a second tier, whose copies are at once, late, or bad: all
 * tokens are as without it.
 */
static void
test_storm_tier(void **state)
{
    uint64_t hits = 0, out = 0, in = 0, failed = 0, saved = 0, lost = 0;
    unsigned seed;

    (void) state;
    tier = SLOTS;
    for (seed = 1; seed <= 24 / less(); seed++) {
        open_world(seed, 1500, NULL, 0);
        g->late = seed % 3 * 4;
        g->bad = seed % 4 < 2 ? 0 : 6;
        (void) loop_run(g->loop);
        hits += g->state.host_hits;
        saved += g->state.host_tokens;
        out += g->state.host_blocks_out;
        in += g->state.host_blocks_in;
        failed += g->state.host_copies_failed;
        lost += g->state.host_blocks_lost;
        assert_int_equal(g->state.host_blocks_total, SLOTS);
        assert_true(g->state.host_blocks_used <= SLOTS);
        assert_int_equal(g->state.host_copies_failed > 0, g->bad > 0);
        assert_true(
            g->state.host_bytes_out >= g->state.host_blocks_out * BT * 4);
        close_world();
    }
    tier = 0;
    assert_true(hits > 300 / less() && saved > hits * BT);
    assert_true(out > 5000 / less() && in > 2000 / less());
    assert_true(failed > 100 / less() && lost > 10 / less());
}


/* Request 0 decodes; prompts pour in; it has a row in every single step. */
static void
script_stall_free(void)
{
    uint32_t i;
    int found = 0;

    if (g->step == 1) {
        fill(0, 3, 80, 1)->flags = LLM_F_IGNORE_EOS;
        g->in->reqs[0].credit = 1u << 30;
        ready(0);
        return;
    }
    if (!g->reqs[0].live) {
        for (i = 1; i < REQS; i++) {
            if (g->reqs[i].live) {
                cancel(i);
            }
        }
        return;
    }

    for (i = 0; i < g->b.rows_n; i++) {
        found |= g->rows[i].seq == 0;
    }
    assert_true(found);
    for (i = 1; i < REQS; i++) {
        if (g->in->reqs[i].state == REQ_FREE) {
            (void) fill(i, 60, 1 + i % 3, 1);
            ready(i);
            break;
        }
    }
}


static void
test_stall_free(void **state)
{
    (void) state;
    open_world(1, 40, script_stall_free, 0);
    (void) loop_run(g->loop);
    assert_true(g->forwards >= 80 && g->forwards <= 90);
    assert_int_equal(g->state.preemptions, 0);
    close_world();
}


/* Out of credit: no turns, no spinning; a changed line starts it again. */
static void
script_credit(void)
{
    if (g->step == 1) {
        fill(0, 3, 12, 1)->flags = LLM_F_IGNORE_EOS;
        g->in->reqs[0].credit = 35; /* four tokens of 10 */
        ready(0);
    }
    if (g->waits == 5 && g->reqs[0].line.taken == 0) {
        assert_int_equal(g->state.requests_stalled, 1);
        assert_int_equal(g->forwards, g->reqs[0].tokens);
        __atomic_store_n(&g->reqs[0].line.taken, 1ull << 40, __ATOMIC_RELEASE);
    }
    if (g->waits > 5) {
        /* more than was posted: nonsense that counts as all of it */
        assert_true(req_has_credit(&g->in->reqs[0]));
    }
}


static void
test_credit(void **state)
{
    (void) state;
    open_world(1, 12, script_credit, 0);
    (void) loop_run(g->loop);
    assert_int_equal(g->state.credit_stalls, 1);
    assert_int_equal(g->ended[0], 1);
    assert_int_equal(g->forwards, 12);
    close_world();
}


/*
 * A request that comes right after arming and cannot start (its tenant's limit
 * is spent on a stalled one) must get its line watched like all others.
 */
static void
script_late(void)
{
    uint32_t i;

    if (g->step == 1 || (g->arming && g->waits == 2 && !g->reqs[1].live)) {
        i = g->step == 1 ? 0 : 1;
        fill(i, 3, 12, 1)->concurrent = 1;
        g->in->reqs[i].credit = 5;
        ready(i);
    }
    if (g->waits == 6 && g->reqs[1].live && g->reqs[1].cancelled_at < 0) {
        assert_int_equal(g->state.requests_waiting, 1);
        cancel(0);
        cancel(1);
    }
}


static void
test_late(void **state)
{
    (void) state;
    open_world(1, 30, script_late, 0);
    (void) loop_run(g->loop);
    assert_int_equal(g->ended[LLM_ERR_CANCELLED], 2);
    close_world();
}


/* text_out does not read: the loop stops in time, and goes on after. */
static void
script_lag(void)
{
    if (g->step == 1) {
        fill(0, 3, 60, 1)->flags = LLM_F_IGNORE_EOS;
        g->in->reqs[0].credit = 1u << 30;
        ready(0);
        g->lag = 1000;
    }
    if (g->lag > 0) {
        assert_true(g->forwards <= 16);
    }
}


static void
test_lag(void **state)
{
    (void) state;
    open_world(1, 10, script_lag, 0);
    (void) loop_run(g->loop);
    assert_int_equal(g->forwards, 60);
    assert_int_equal(g->ended[0], 1);
    close_world();
}


/* The drain deadline: all that is there, and all that still comes, ends. */
static void
script_kill(void)
{
    if (g->step <= 8) {
        (void) fill((uint32_t) g->step, 30, 60, 2);
        ready((uint32_t) g->step);
    }
    if (g->step == 5) {
        loop_kill(g->loop);
    }
}


static void
test_kill(void **state)
{
    (void) state;
    open_world(1, 12, script_kill, 0);
    (void) loop_run(g->loop);
    assert_int_equal(g->ended[LLM_ERR_DRAINING], 8);
    close_world();
}


/* stop alone ends what is left, too: the thread must come home. */
static void
script_stop(void)
{
    if (g->step <= 3) {
        (void) fill((uint32_t) g->step, 30, 60, 1);
        ready((uint32_t) g->step);
    }
    if (g->step == 6) {
        __atomic_store_n(&g->in->stop, 1, __ATOMIC_RELEASE);
    }
}


static void
test_stop(void **state)
{
    (void) state;
    open_world(1, 1000, script_stop, 0);
    (void) loop_run(g->loop);
    read_out();
    assert_int_equal(g->ended[LLM_ERR_DRAINING], 3);
    close_world();
}


/* The worker died: its requests, and no others, are cancelled. */
static void
script_dead(void)
{
    uint32_t i;

    if (g->step == 1) {
        for (i = 0; i < 6; i++) {
            (void) fill(i, 5, 20, 1);
            g->in->reqs[i].flags = LLM_F_IGNORE_EOS;
            g->in->reqs[i].credit = 1u << 30;
            ready(i);
        }
    }
    if (g->step == 10) {
        __atomic_store_n(&g->dead[1], 1, __ATOMIC_RELEASE);
    }
    if (g->step == 11) {
        assert_int_equal(g->reqs[1].ends + g->reqs[4].ends, 2);
    }
}


static void
test_dead(void **state)
{
    (void) state;
    open_world(1, 12, script_dead, 0);
    (void) loop_run(g->loop);
    assert_int_equal(g->ended[LLM_ERR_CANCELLED], 2);
    assert_int_equal(g->ended[0], 4);
    close_world();
}


static void
script_pace(void)
{
    if (g->step == 1) {
        fill(0, 3, 10, 1)->flags = LLM_F_IGNORE_EOS;
        ready(0);
    }
}


static void
test_pace(void **state)
{
    struct timespec a, b;
    int64_t ms;

    (void) state;
    open_world(1, 3, script_pace, 15);
    (void) clock_gettime(CLOCK_MONOTONIC, &a);
    (void) loop_run(g->loop);
    (void) clock_gettime(CLOCK_MONOTONIC, &b);
    ms = (b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000;
    assert_int_equal(g->forwards, 10);
    assert_true(ms >= 9 * 15);
    close_world();
}


/* The test once more with steps that are planned ahead. */
#define AHEAD(test)                                                            \
    cmocka_unit_test_setup_teardown(test, other_depth, other_depth)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_storm),
        cmocka_unit_test(test_storm_tier),
        cmocka_unit_test(test_stall_free),
        cmocka_unit_test(test_credit),
        cmocka_unit_test(test_late),
        cmocka_unit_test(test_lag),
        cmocka_unit_test(test_kill),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_dead),
        cmocka_unit_test(test_pace),
        AHEAD(test_storm),
        AHEAD(test_storm_tier),
        AHEAD(test_stall_free),
        AHEAD(test_late),
        AHEAD(test_lag),
        AHEAD(test_kill),
        AHEAD(test_stop),
        AHEAD(test_dead),
        AHEAD(test_pace),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
