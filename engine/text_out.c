/*
 * The thread between the loop and the workers: see text_out.h.
 *
 *      in_out    COUNTED, FAIL ─┐               ┌─> EVENT rings (ipc)
 *      loop_out  TOKEN, END ────┴─> text_out ───┼─> out_loop  VERDICT
 *                                               └─> out_in    FREE
 *
 * DESIGN.  A turn takes all messages there are, each into the state of its
 * request (text_choice.c), and then posts, for every request that changed,
 * what has become ready: so the tokens of one choice in one turn are one
 * record, and a worker is rung once.
 *
 * Nothing here waits.  A ring without room leaves its text where it is, the
 * request on the list, and the thread looks again after 5 ms or the next bell;
 * meanwhile what comes is added to what lies there.  That is bounded: `sent`
 * counts what is ready, posted or not, and the loop samples only while it is
 * within the request's credit of what the client took.  The pool holds every
 * request's credit and more; a request that still finds it empty ends with an
 * error, the others go on.
 *
 * Order within a request: COUNTED, the prompt's text (echo), text of each
 * choice, last DONE or ERROR, for which the ring keeps room.  A cancelled
 * request, or one whose worker is dead, loses its text, but it is counted and
 * freed like any other.  FREE comes after the doorbells of the turn, since
 * with it the attachment may go.
 *
 * Invariants: exactly one terminal event per request; after FREE neither
 * request nor attachment is touched; no allocation, lock or system call per
 * token.  All memory is the thread's own, taken by text_out_open.
 */
#include "text_out.h"
#include "clock.h"
#include "mem.h"
#include "text_choice.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define RETRY_MS 5    /* while text waits for room */
#define IDLE_MS  500  /* the heartbeat is due every second */
#define QUIET_MS 100  /* after stop: silence that means all is done */
#define GRACE_MS 1000 /* after stop: the longest wait for it */

/* A turn takes at most so many tokens before it posts: bounds its length. */
#define TOKENS_MAX 16384

/* Pool memory per request beyond its credit: partly filled chunks, entries of
 * tokens that are held back. */
#define REQ_SLACK  32768
/* And for all: what may lie in loop_out when credit ends. */
#define POOL_SLACK (16u << 20)

#define ECHO_PART 256  /* bytes of a prompt's token taken at once */
#define ECHO_MAX  2048 /* bytes of one record of prompt text */
#define IDS_ONE   12   /* of one of its ids, a comma and the final 0 */

_Static_assert(LLM_TOKENS_HEAD + ECHO_MAX + 8 <= LLM_TOKENS_MAX,
    "prompt text fits a record");
_Static_assert(UTF8_OUT_MAX(ECHO_PART) + UTF8_TAIL_MAX < ECHO_MAX,
    "a part of a prompt's token fits a record");

/* The prompt's text on its way out, before the choice's own. */
typedef struct {
    uint32_t on;    /* is there more? */
    uint32_t id;    /* next of the prompt's ids */
    size_t byte;    /* next of its bytes */
    uint32_t strip; /* the first space is the tokenizer's own */
    utf8_t utf8;
} text_echo_t;

typedef struct {
    uint32_t gen;      /* 0: none of ours */
    uint32_t gen_last; /* of the one before: what it still sends is stale */
    uint32_t listed;   /* on the list of those to look at */
    uint32_t counted;  /* COUNTED is to be posted */
    uint32_t begun;    /* choices and stops are set up */
    uint32_t ended;    /* END or FAIL has come */
    uint32_t dropped;  /* cancelled: text goes nowhere */
    uint32_t broken;   /* llm_err.h: the pool was empty */
    uint32_t fail;     /* ended by FAIL */
    uint32_t taken;    /* tokens before the ends of their choices' texts */
    req_msg_end_t end;
    char param[32], text[160]; /* FAIL's */
    text_choice_t choices[LLM_CHOICES_MAX];
    text_echo_t echoes[LLM_CHOICES_MAX];
    uint8_t prompted[LLM_CHOICES_MAX]; /* its prompt's first token is taken */
    stop_t stops;                      /* last: untouched by most requests */
} text_req_t;

struct text_out_s {
    inner_t *in; /* borrowed */
    ipc_t *ipc;  /* borrowed */
    text_shared_t sh;
    text_req_t *reqs; /* [in->reqs_n] */
    uint32_t *list;   /* [list_n] requests to look at, oldest first */
    uint32_t list_n;
    uint32_t *frees; /* [frees_n] requests that are done with */
    uint32_t frees_n;
    uint32_t live; /* requests known and not freed */
    uint32_t said; /* verdicts in this turn */
    uint64_t now_ms;
};


text_out_t *
text_out_open(const text_out_args_t *a)
{
    text_out_t *to;
    uint64_t bytes;

    assert(a->in != NULL && a->ipc != NULL && a->tok != NULL);

    to = mem_zero(1, sizeof(*to));
    if (to == NULL) {
        return NULL;
    }

    to->in = a->in;
    to->ipc = a->ipc;
    to->sh.tok = a->tok;
    to->sh.reason = a->reason;

    /* entries carry a head of 8 bytes on at least 12: credit times 5/3 */
    bytes = ((uint64_t) a->credit_max / 3 + 1) * 5 + REQ_SLACK;
    bytes = bytes * a->in->reqs_n + POOL_SLACK;

    to->reqs = mem_zero(a->in->reqs_n, sizeof(*to->reqs));
    to->list = mem_zero(a->in->reqs_n, sizeof(*to->list));
    to->frees = mem_zero(a->in->reqs_n, sizeof(*to->frees));

    if (to->reqs == NULL || to->list == NULL || to->frees == NULL
        || fifo_pool_open(&to->sh.pool, bytes) != 0) {
        text_out_close(to);
        return NULL;
    }

    return to;
}


void
text_out_close(text_out_t *to)
{
    if (to == NULL) {
        return;
    }

    fifo_pool_close(&to->sh.pool);
    mem_free(to->reqs);
    mem_free(to->list);
    mem_free(to->frees);
    mem_free(to);
}


/* --- messages out ------------------------------------------------------- */

static void
count(uint64_t *metric, uint64_t n)
{
    __atomic_fetch_add(metric, n, __ATOMIC_RELAXED);
}


/* Rings sized so that they are never full: inner.h. */
static void
tell(inner_ring_t *ring, const void *msg, uint32_t len)
{
    void *p = llm_ring_reserve(&ring->in, len, 0);

    assert(p != NULL);
    memcpy(p, msg, len);
    llm_ring_commit(&ring->in);
}


static void
tell_verdict(text_out_t *to, const req_msg_token_t *t)
{
    req_msg_verdict_t m;

    memset(&m, 0, sizeof(m));
    m.hdr.len = sizeof(m);
    m.hdr.type = REQ_MSG_VERDICT;
    m.req = t->req;
    m.gen = t->gen;
    m.choice = t->choice;
    m.index = t->index;
    tell(&to->in->out_loop, &m, sizeof(m));
    to->said++;
}


static void
tell_frees(text_out_t *to)
{
    req_msg_t m;
    uint32_t i;

    if (to->frees_n == 0) {
        return;
    }

    memset(&m, 0, sizeof(m));
    m.hdr.len = sizeof(m);
    m.hdr.type = REQ_MSG_FREE;

    for (i = 0; i < to->frees_n; i++) {
        m.req = to->frees[i];
        m.gen = to->reqs[m.req].gen_last;
        tell(&to->in->out_in, &m, sizeof(m));
    }

    to->frees_n = 0;
    bell_ring(&to->in->in_bell);
}


/* --- messages in -------------------------------------------------------- */

/*
 * The state that a message for (i, gen) is about, put on the list.  NULL if
 * the message is stale.
 */
static text_req_t *
find(text_out_t *to, uint32_t i, uint32_t gen)
{
    text_req_t *x;

    assert(i < to->in->reqs_n);

    x = &to->reqs[i];

    if (x->gen == 0) {
        if (gen == 0 || gen == x->gen_last || gen != to->in->reqs[i].gen) {
            return NULL;
        }
        x->gen = gen;
        to->live++;
    }

    if (x->gen != gen) {
        return NULL;
    }

    if (!x->listed) {
        assert(to->list_n < to->in->reqs_n);
        x->listed = 1;
        to->list[to->list_n++] = i;
    }

    return x;
}


/* Sets up choices and stop strings, once the request is known to run. */
static void
begin(text_out_t *to, text_req_t *x, const req_t *r)
{
    const req_prompt_t *p;
    uint32_t i, bos_only;
    int rc;

    if (x->begun) {
        return;
    }

    assert(r->n >= 1 && r->choices <= LLM_CHOICES_MAX);
    assert(r->choices <= r->n * r->prompts_n && r->stops_n <= LLM_STOPS_MAX);

    for (i = 0; i < r->choices; i++) {
        p = &r->prompts[i / r->n];
        bos_only = p->len == 1 && p->ids[0] == token_bos(to->sh.tok);
        x->choices[i].strip = bos_only && token_strips_space(to->sh.tok);
        x->choices[i].logprobs = (r->flags & LLM_F_LOGPROBS) != 0;
        x->choices[i].apart = r->apart;
        x->choices[i].reason = r->reason;
        x->choices[i].tools = r->tools;
        x->choices[i].number = i;
        x->echoes[i].on =
            (r->flags & (LLM_F_ECHO | LLM_F_PROMPT_LPS)) == LLM_F_ECHO;
        x->echoes[i].strip = (uint32_t) token_strips_space(to->sh.tok);
    }

    for (i = 0; i < r->stops_n; i++) {
        rc = stop_add(&x->stops, r->stops[i].s, r->stops[i].len);
        assert(rc == 0);
        (void) rc;
    }

    x->begun = 1;
}


/* The text of x goes nowhere from now on. */
static void
drop(text_out_t *to, text_req_t *x)
{
    uint32_t i;

    for (i = 0; x->begun && i < LLM_CHOICES_MAX; i++) {
        text_choice_clear(&to->sh, &x->choices[i]);
        x->echoes[i].on = 0;
    }
    x->dropped = 1;
    x->counted = 0;
}


/* The pool is used up: x cannot be continued. */
static void
give_up(text_out_t *to, text_req_t *x)
{
    drop(to, x);
    x->broken = LLM_ERR_NO_MEMORY;
}


/*
 * A token of the prompt, with its logprob.  The first has none, so nobody
 * sends it: it goes with what comes first of its choice.
 */
static void
prompt_token(text_out_t *to, text_req_t *x, req_t *r, uint32_t choice,
    const sample_out_t *token, uint32_t index)
{
    const req_prompt_t *p = &r->prompts[choice / r->n];
    text_choice_t *c = &x->choices[choice];
    int echo = (r->flags & LLM_F_ECHO) != 0, rc = 0;
    uint64_t sent = 0;
    sample_out_t none;

    assert(index >= 1 && index <= p->len);

    if (!x->prompted[choice]) {
        x->prompted[choice] = 1;
        c->strip = echo ? (uint32_t) token_strips_space(to->sh.tok) : c->strip;
        memset(&none, 0, sizeof(none));
        none.token = p->ids[0];
        none.logprob = NAN;
        rc = text_choice_prompt(&to->sh, c, &none, echo, p->len == 1, &sent);
    }
    if (rc == 0 && token != NULL) {
        rc = text_choice_prompt(
            &to->sh, c, token, echo, index + 1 == p->len, &sent);
    }

    __atomic_store_n(&r->sent, r->sent + sent, __ATOMIC_RELEASE);
    if (rc != 0) {
        give_up(to, x);
    }
}


static void
on_token(text_out_t *to, const req_msg_token_t *m)
{
    text_req_t *x = find(to, m->req, m->gen);
    uint64_t sent = 0;
    text_choice_t *c;
    req_t *r;
    int rc;

    if (x == NULL || x->ended || (x->dropped && !x->broken)) {
        return;
    }

    r = &to->in->reqs[m->req];
    assert(m->choice < r->choices && m->finish < LLM_FINISHES);
    begin(to, x, r);
    c = &x->choices[m->choice];

    if (m->out.err == LLM_ERR_NONE && (r->flags & LLM_F_PROMPT_LPS) != 0
        && !x->broken && c->finish == LLM_FINISH_NONE
        && (m->prompt || !x->prompted[m->choice])) {
        prompt_token(to, x, r, m->choice, m->prompt ? &m->out : NULL,
            m->prompt ? m->index : 1);
    }
    if (m->prompt) {
        return;
    }

    /* sampled before the loop knew of the end; closed: of this choice it has
     * been told since the pool was empty */
    if (x->broken && !c->closed) {
        c->closed = 1;
        tell_verdict(to, m);
    }
    if (x->broken || c->finish != LLM_FINISH_NONE) {
        count(&to->in->state->wasted_tokens, m->shown != 0);
        return;
    }

    if (m->out.err != LLM_ERR_NONE) {
        return; /* the loop ends the request */
    }
    x->taken++;

    rc = text_choice_token(
        &to->sh, c, &x->stops, m->shown ? &m->out : NULL, m->finish, &sent);

    __atomic_store_n(&r->sent, r->sent + sent, __ATOMIC_RELEASE);

    if (rc < 0) {
        give_up(to, x);
        c->closed = 1;
    }
    if (rc != 0 && m->finish == LLM_FINISH_NONE) {
        tell_verdict(to, m);
    }
}


static void
on_end(text_out_t *to, const req_msg_end_t *m)
{
    text_req_t *x = find(to, m->req, m->gen);
    uint64_t sent = 0;
    req_t *r;
    uint32_t i;

    if (x == NULL || x->ended) {
        return;
    }

    r = &to->in->reqs[m->req];
    x->ended = 1;
    x->end = *m;

    /* What comes behind a stop is nobody's, also where the loop came to the
     * choice's own end before it was told: a client pays for the same text the
     * same, whenever its end was seen. */
    if (m->err == LLM_ERR_NONE && !x->dropped && !x->broken
        && x->taken < m->completion_tokens) {
        x->end.completion_tokens = x->taken;
    }

    if (m->err != LLM_ERR_NONE || x->dropped) {
        for (i = 0; i < LLM_CHOICES_MAX; i++) {
            x->echoes[i].on = 0;
        }
        return;
    }

    begin(to, x, r);
    for (i = 0; i < r->choices; i++) {
        if (x->choices[i].finish == LLM_FINISH_NONE
            && text_choice_token(&to->sh, &x->choices[i], &x->stops, NULL,
                   LLM_FINISH_LENGTH, &sent)
                   < 0) {
            give_up(to, x);
            return;
        }
    }
    __atomic_store_n(&r->sent, r->sent + sent, __ATOMIC_RELEASE);
}


static void
on_fail(text_out_t *to, const req_msg_fail_t *m)
{
    text_req_t *x = find(to, m->req, m->gen);

    if (x == NULL || x->ended) {
        return;
    }

    assert(!x->begun);
    x->ended = 1;
    x->fail = 1;
    x->counted = 0;
    x->end.err = m->err;
    memcpy(x->param, m->param, sizeof(x->param));
    memcpy(x->text, m->text, sizeof(x->text));
}


static void
on_counted(text_out_t *to, const req_msg_t *m)
{
    text_req_t *x = find(to, m->req, m->gen);

    if (x != NULL && !x->ended) {
        x->counted = 1;
    }
}


/* The prompt is all there is. */
static void
on_prompt(text_out_t *to, const req_msg_t *m)
{
    text_req_t *x = find(to, m->req, m->gen);

    if (x == NULL || x->ended) {
        return;
    }

    assert(to->in->reqs[m->req].flags & LLM_F_PROMPT);
    begin(to, x, &to->in->reqs[m->req]);
    x->ended = 1;
}


static void
drain_in(text_out_t *to)
{
    llm_ring_t *ring = &to->in->in_out.out;
    union {
        llm_ring_hdr_t hdr;
        req_msg_t req;
        req_msg_fail_t fail;
    } m;

    while (llm_ring_peek(ring, &m, sizeof(m)) > 0) {
        llm_ring_advance(ring);
        if (m.hdr.type == REQ_MSG_FAIL) {
            assert(m.hdr.len == sizeof(m.fail));
            on_fail(to, &m.fail);
        } else if (m.hdr.type == REQ_MSG_PROMPT) {
            assert(m.hdr.len == sizeof(m.req));
            on_prompt(to, &m.req);
        } else {
            assert(m.hdr.type == REQ_MSG_COUNTED);
            assert(m.hdr.len == sizeof(m.req));
            on_counted(to, &m.req);
        }
    }
}


/* Returns how many messages it took. */
static uint32_t
drain_loop(text_out_t *to)
{
    llm_ring_t *ring = &to->in->loop_out.out;
    uint32_t n;
    union {
        llm_ring_hdr_t hdr;
        req_msg_token_t token;
        req_msg_end_t end;
    } m;

    for (n = 0; n < TOKENS_MAX; n++) {
        if (llm_ring_peek(ring, &m, sizeof(m)) <= 0) {
            break;
        }
        llm_ring_advance(ring);
        if (m.hdr.type == REQ_MSG_END) {
            assert(m.hdr.len == sizeof(m.end));
            on_end(to, &m.end);
        } else {
            assert(m.hdr.type == REQ_MSG_TOKEN);
            /* the tops that are not in use did not travel */
            assert(m.hdr.len >= offsetof(req_msg_token_t, out.top_ids));
            on_token(to, &m.token);
        }
    }

    return n;
}


/* --- posting ------------------------------------------------------------ */

/* 1 if it is out, 0 if there is no room. */
static int
post_counted(text_out_t *to, const req_t *r)
{
    llm_wire_counted_t *rec;

    rec = ipc_event_reserve(to->ipc, r->att, sizeof(*rec), 0, to->now_ms);
    if (rec == NULL) {
        return 0;
    }

    memset(rec, 0, sizeof(*rec));
    rec->hdr.len = sizeof(*rec);
    rec->hdr.type = LLM_REC_COUNTED;
    rec->id = r->wire;
    rec->prompt_tokens = r->prompt_tokens;
    rec->max_tokens = r->max_tokens;
    rec->choices = r->choices;
    ipc_event_commit(to->ipc, r->att);

    return 1;
}


/* Commits a TOKENS record of n bytes of payload, counting them first: the
 * worker may have them before this returns. */
static void
commit_text(text_out_t *to, req_t *r, uint32_t n)
{
    __atomic_store_n(&r->posted, r->posted + n, __ATOMIC_RELEASE);
    ipc_event_commit(to->ipc, r->att);
}


/*
 * The next text of a prompt, at most ECHO_MAX bytes, to dst; e moves on and
 * says whether there is more.  names: control tokens by their names, else they
 * have no text.
 */
static uint32_t
echo_next(const text_out_t *to, const req_prompt_t *p, int names,
    text_echo_t *e, char *dst)
{
    size_t len, part, n = 0;
    const char *s;

    while (e->id < p->len && n + UTF8_OUT_MAX(ECHO_PART) < ECHO_MAX - 3) {
        s = token_bytes(to->sh.tok, p->ids[e->id], &len);
        if (names && len == 0) {
            s = token_piece(to->sh.tok, p->ids[e->id], &len);
        } else if (!names && p->ids[e->id] == token_bos(to->sh.tok)) {
            len = 0;
        }
        if (e->strip && len > 0) {
            e->byte += s[0] == ' ';
            e->strip = 0;
        }

        part = len - e->byte < ECHO_PART ? len - e->byte : ECHO_PART;
        n += utf8_feed(&e->utf8, s + e->byte, part, dst + n);
        e->byte += part;
        if (e->byte == len) {
            e->id++;
            e->byte = 0;
        }
    }

    if (e->id == p->len) {
        n += utf8_end(&e->utf8, dst + n);
        e->on = 0;
    }

    assert(n <= ECHO_MAX);

    return (uint32_t) n;
}


/* The same with its ids: "1,15043". */
static uint32_t
ids_next(const req_prompt_t *p, text_echo_t *e, char *dst)
{
    uint32_t n = 0;

    while (e->id < p->len && n + IDS_ONE <= ECHO_MAX) {
        n += (uint32_t) snprintf(
            dst + n, IDS_ONE, e->id > 0 ? ",%u" : "%u", p->ids[e->id]);
        e->id++;
    }

    e->on = e->id < p->len;
    assert(n <= ECHO_MAX);

    return n;
}


/*
 * A prompt is not bounded by the credit as sampled text is, so it goes out
 * piece by piece while there is some.  1 if it is all out, 0 to try again.
 */
static int
post_echo(text_out_t *to, text_req_t *x, req_t *r, uint32_t choice)
{
    llm_wire_tokens_t head;
    char text[ECHO_MAX + 4];
    text_echo_t next;
    uint32_t n;
    uint8_t *p;

    while (x->echoes[choice].on) {
        if (!req_has_credit(r)) {
            return 0;
        }

        memset(&head, 0, sizeof(head));
        next = x->echoes[choice];
        n = r->flags & LLM_F_IDS
                ? ids_next(&r->prompts[choice / r->n], &next, text)
                : echo_next(to, &r->prompts[choice / r->n],
                    (r->flags & LLM_F_PROMPT) != 0, &next, text);
        memset(text + n, 0, 4);

        if (n > 0) {
            head.hdr.len = LLM_TOKENS_HEAD + ((n + 3) & ~3u);
            head.hdr.type = LLM_REC_TOKENS;
            head.id = r->wire;
            head.choice = choice;
            head.text_len = n;
            p = ipc_event_reserve(to->ipc, r->att, head.hdr.len, 0, to->now_ms);
            if (p == NULL) {
                return 0;
            }
            memcpy(p, &head, LLM_TOKENS_HEAD);
            memcpy(p + LLM_TOKENS_HEAD, text, (n + 3) & ~3u);
            __atomic_store_n(&r->sent, r->sent + n, __ATOMIC_RELEASE);
            commit_text(to, r, n);
        }
        x->echoes[choice] = next;
    }

    return 1;
}


/* 1 if all that is ready is out, 0 to try again. */
static int
post_choice(text_out_t *to, text_req_t *x, req_t *r, uint32_t choice)
{
    text_choice_t *c = &x->choices[choice];
    llm_wire_tokens_t head;
    text_cut_t cut;
    uint8_t *p;

    if (!post_echo(to, x, r, choice)) {
        return 0;
    }

    while (text_choice_plan(&to->sh, c, &cut)) {
        p = ipc_event_reserve(
            to->ipc, r->att, text_choice_len(&cut), 0, to->now_ms);
        if (p == NULL) {
            return 0;
        }
        text_choice_take(&to->sh, c, &cut, &head, p + LLM_TOKENS_HEAD);
        head.id = r->wire;
        head.choice = choice;
        memcpy(p, &head, LLM_TOKENS_HEAD);
        commit_text(to, r, head.text_len + head.lp_len);
    }

    return 1;
}


static void
post_done(text_out_t *to, const text_req_t *x, const req_t *r)
{
    llm_wire_done_t *rec;

    count(&to->in->state->requests_done, 1);

    rec = ipc_event_reserve(to->ipc, r->att, sizeof(*rec), 1, to->now_ms);
    if (rec == NULL) {
        return; /* the worker is dead or broke the rules */
    }

    memset(rec, 0, sizeof(*rec));
    rec->hdr.len = sizeof(*rec);
    rec->hdr.type = LLM_REC_DONE;
    rec->id = r->wire;
    rec->prompt_tokens = r->prompt_tokens;
    rec->cached_tokens = x->end.cached_tokens;
    rec->completion_tokens = x->end.completion_tokens;
    rec->queue_us = x->end.queue_us;
    rec->prefill_us = x->end.prefill_us;
    rec->decode_us = x->end.decode_us;
    ipc_event_commit(to->ipc, r->att);
}


static void
post_error(text_out_t *to, const text_req_t *x, const req_t *r, uint32_t err)
{
    llm_wire_error_t *rec;

    count(err == LLM_ERR_CANCELLED ? &to->in->state->requests_cancelled
                                   : &to->in->state->requests_failed,
        1);

    rec = ipc_event_reserve(to->ipc, r->att, sizeof(*rec), 1, to->now_ms);
    if (rec == NULL) {
        return;
    }

    memset(rec, 0, sizeof(*rec));
    rec->hdr.len = sizeof(*rec);
    rec->hdr.type = LLM_REC_ERROR;
    rec->id = r->wire;
    rec->err = err;
    rec->completion_tokens = x->end.completion_tokens;
    if (err == x->end.err) {
        rec->retry_ms = x->end.retry_ms;
    }
    if (!x->fail) {
        rec->prompt_tokens = r->prompt_tokens;
    } else if (err == x->end.err) {
        memcpy(rec->param, x->param, sizeof(rec->param) - 1);
        memcpy(rec->text, x->text, sizeof(rec->text) - 1);
    }
    ipc_event_commit(to->ipc, r->att);
}


/* The terminal event; then the request is not ours any more. */
static void
finish(text_out_t *to, text_req_t *x, uint32_t i, const req_t *r)
{
    uint32_t err = x->end.err, gen = x->gen;

    assert(x->ended && to->live > 0);

    if (req_cancelled(r)) {
        err = LLM_ERR_CANCELLED;
    } else if (x->broken) {
        err = x->broken;
    }

    if (!x->fail && !(r->flags & LLM_F_PROMPT)) {
        count(&to->in->state->prompt_tokens, r->prompt_tokens);
    }

    if (err == LLM_ERR_NONE) {
        post_done(to, x, r);
    } else {
        post_error(to, x, r, err);
    }

    drop(to, x);
    memset(x, 0, offsetof(text_req_t, stops));
    x->stops.n = 0;
    x->gen_last = gen;
    to->live--;

    assert(to->frees_n < to->in->reqs_n);
    to->frees[to->frees_n++] = i;
}


/* Posts what request i has ready. 1 if nothing is left to be tried again. */
static int
settle(text_out_t *to, uint32_t i)
{
    text_req_t *x = &to->reqs[i];
    req_t *r = &to->in->reqs[i];
    uint32_t k;
    int out = 1;

    if (!x->dropped && req_cancelled(r)) {
        drop(to, x);
    }

    if (x->counted) {
        if (!post_counted(to, r)) {
            return 0;
        }
        x->counted = 0;
    }

    for (k = 0; x->begun && !x->dropped && k < r->choices; k++) {
        out &= post_choice(to, x, r, k);
    }

    if (out && x->ended) {
        finish(to, x, i, r);
        return 1;
    }

    return out;
}


/* --- the thread --------------------------------------------------------- */

int
text_out_turn(text_out_t *to, uint64_t now_ms)
{
    uint32_t i, k, n, took;

    to->now_ms = now_ms;
    to->said = 0;

    drain_in(to);
    took = drain_loop(to);

    for (i = 0, n = 0; i < to->list_n; i++) {
        k = to->list[i];
        if (settle(to, k)) {
            to->reqs[k].listed = 0;
        } else {
            to->list[n++] = k;
        }
    }
    to->list_n = n;

    ipc_event_flush(to->ipc);
    tell_frees(to);

    /* it may wait for room in loop_out */
    if (to->said > 0 || took > 0) {
        bell_ring(&to->in->loop_bell);
    }

    count(&to->in->state->heartbeat[LLM_THREAD_OUT], 1);

    return to->list_n > 0;
}


static int
ring_empty(const llm_ring_t *r)
{
    return __atomic_load_n(&r->ctl->tail, __ATOMIC_ACQUIRE) == r->pos;
}


static int
idle(const text_out_t *to)
{
    return ring_empty(&to->in->in_out.out) && ring_empty(&to->in->loop_out.out);
}


/*
 * Stop is set: may the thread end?  The loop's last messages may still be on
 * their way, so it must have been quiet for a while; text for a worker that
 * does not read is given up after a longer one.
 */
static int
may_end(const text_out_t *to, uint64_t now, uint64_t since, uint64_t quiet)
{
    uint64_t held;

    held = __atomic_load_n(&to->in->state->requests_held, __ATOMIC_RELAXED);
    if (to->live == 0 && held == 0 && now - quiet >= QUIET_MS) {
        return 1;
    }

    return now - quiet >= GRACE_MS || now - since >= 2 * GRACE_MS;
}


void *
text_out_run(void *arg)
{
    text_out_t *to = arg;
    uint64_t now, quiet, since = 0;
    int blocked, stop;

    quiet = clock_ms();

    for (;;) {
        now = clock_ms();
        if (!idle(to)) {
            quiet = now;
        }
        blocked = text_out_turn(to, now);

        stop = __atomic_load_n(&to->in->stop, __ATOMIC_ACQUIRE) != 0;
        if (stop && since == 0) {
            since = quiet = now;
        }
        if (stop && idle(to) && may_end(to, now, since, quiet)) {
            break;
        }

        bell_arm(&to->in->out_bell);
        if (!idle(to)) {
            bell_stay(&to->in->out_bell);
            continue;
        }
        bell_wait(&to->in->out_bell, blocked || stop ? RETRY_MS : IDLE_MS);
    }

    return NULL;
}
