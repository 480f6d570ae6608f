/*
 * Would catch: text lost, doubled or out of order when a ring is full, a stop
 * string that reaches the client, no verdict or a second one, a request with
 * no terminal event or two, text after it, FREE before the doorbells, a
 * cancelled request that keeps its memory, a logprob entry that parts from its
 * text or vanishes.
 *
 * The rings are real, the attachment is a fake: ipc_event_* below gives room
 * as long as there is some and notes each record.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "text_out.h"
#include "vocab_file.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQS 8
#define RECS 65536


/* --- a fake attachment -------------------------------------------------- */

struct ipc_s {
    uint32_t room; /* records that may still be posted */
    uint32_t dead;
    uint32_t flushes;
    uint32_t since; /* records since the last flush */
    uint8_t rec[LLM_TOKENS_MAX];
    uint8_t *recs[RECS];
    uint32_t recs_n;
};

void *
ipc_event_reserve(
    ipc_t *ipc, uint32_t att, uint32_t len, int terminal, uint64_t now_ms)
{
    (void) now_ms;
    assert_int_equal(att, 3);
    assert_true(len <= (terminal ? LLM_TERMINAL_MAX : LLM_TOKENS_MAX));
    if (ipc->dead || (!terminal && ipc->room == 0)) {
        return NULL;
    }
    memset(ipc->rec, 0xee, sizeof(ipc->rec));

    return ipc->rec;
}

void
ipc_event_commit(ipc_t *ipc, uint32_t att)
{
    llm_ring_hdr_t hdr;

    (void) att;
    memcpy(&hdr, ipc->rec, sizeof(hdr));
    assert_true(ipc->recs_n < RECS && hdr.len <= LLM_TOKENS_MAX);
    if (hdr.len < sizeof(ipc->rec)) {
        assert_int_equal(ipc->rec[hdr.len], 0xee); /* not a byte too many */
    }
    ipc->recs[ipc->recs_n] = malloc(hdr.len);
    memcpy(ipc->recs[ipc->recs_n++], ipc->rec, hdr.len);
    ipc->room -= ipc->room > 0;
    ipc->since++;
}

void
ipc_event_flush(ipc_t *ipc)
{
    ipc->flushes++;
    ipc->since = 0;
}


/* --- one engine --------------------------------------------------------- */

typedef struct {
    ipc_t ipc;
    llm_state_t page;
    inner_t *in;
    token_t *tok;
    reason_t *reason;
    text_out_t *to;
    llm_slot_line_t line;
    uint32_t dead;
    uint32_t prompt[64];
} world_t;

static world_t *w;

/* How the loop and text_in talk; each message as they send it. */
static void
say(inner_ring_t *ring, void *msg, uint32_t len, uint16_t type)
{
    llm_ring_hdr_t hdr = {.len = len, .type = type};
    void *p = llm_ring_reserve(&ring->in, len, 0);

    assert_non_null(p);
    memcpy(msg, &hdr, sizeof(hdr));
    memcpy(p, msg, len);
    llm_ring_commit(&ring->in);
}

static void
token(uint32_t req, uint32_t choice, uint32_t index, uint32_t id,
    uint32_t finish, uint32_t shown)
{
    req_msg_token_t m;

    memset(&m, 0, sizeof(m));
    m.req = req;
    m.gen = w->in->reqs[req].gen;
    m.choice = choice;
    m.index = index;
    m.finish = finish;
    m.shown = shown;
    m.out.token = id;
    m.out.logprob = -1.5f;
    say(&w->in->loop_out, &m, offsetof(req_msg_token_t, out.top_ids),
        REQ_MSG_TOKEN);
}

/* One token per byte: the null back end's vocabulary. */
static void
text(uint32_t req, uint32_t choice, const char *s)
{
    static uint32_t index;

    for (; *s != '\0'; s++) {
        token(req, choice, index++, (uint8_t) *s, 0, 1);
    }
}

static void
end(uint32_t req, uint32_t err)
{
    req_msg_end_t m;

    memset(&m, 0, sizeof(m));
    m.req = req;
    m.gen = w->in->reqs[req].gen;
    m.err = err;
    m.completion_tokens = 7;
    m.cached_tokens = 2;
    say(&w->in->loop_out, &m, sizeof(m), REQ_MSG_END);
}

static req_t *
request(uint32_t i, uint32_t n)
{
    req_t *r = &w->in->reqs[i];
    uint32_t gen = r->gen + 1;

    memset(r, 0, sizeof(*r));
    r->gen = gen;
    r->wire = (llm_wire_id_t){9, i, 40 + gen};
    r->att = 3;
    r->line = &w->line;
    r->dead = &w->dead;
    r->n = n;
    r->prompts_n = 1;
    r->choices = n;
    r->max_tokens = 100;
    r->prompt_tokens = 5;
    r->credit = 1 << 20;
    r->prompts[0].ids = w->prompt;
    r->prompts[0].len = 2;
    w->prompt[0] = token_bos(w->tok);
    w->prompt[1] = 'p';

    return r;
}

static void
stop(req_t *r, const char *s)
{
    r->stops[r->stops_n].s = s;
    r->stops[r->stops_n++].len = (uint32_t) strlen(s);
}

static int
turn(void)
{
    return text_out_turn(w->to, 1000);
}

static uint32_t
rec_len(uint32_t i)
{
    llm_ring_hdr_t hdr;

    memcpy(&hdr, w->ipc.recs[i], sizeof(hdr));

    return hdr.len;
}

/* All text of a choice so far, '|' between records; finish as a digit. */
static const char *
posted(uint32_t slot, uint32_t choice)
{
    static char buf[1 << 20];
    const uint8_t *p = NULL, *lp = NULL;
    llm_wire_tokens_t t;
    size_t at = 0;
    uint32_t i;

    for (i = 0; i < w->ipc.recs_n; i++) {
        llm_ring_hdr_t hdr;

        memcpy(&hdr, w->ipc.recs[i], sizeof(hdr));
        if (hdr.type != LLM_REC_TOKENS) {
            continue;
        }
        assert_true(llm_tokens_ok(w->ipc.recs[i], hdr.len, &t, &p, &lp));
        if (t.id.slot != slot || t.choice != choice) {
            continue;
        }
        assert_true(at + t.text_len + 3 < sizeof(buf));
        memcpy(buf + at, p, t.text_len);
        at += t.text_len;
        if (t.finish) {
            buf[at++] = (char) ('0' + t.finish);
        }
        buf[at++] = '|';
    }
    buf[at] = '\0';

    return buf;
}

static uint16_t
rec_type(uint32_t i)
{
    llm_ring_hdr_t hdr;

    assert_true(i < w->ipc.recs_n);
    memcpy(&hdr, w->ipc.recs[i], sizeof(hdr));

    return hdr.type;
}

/* The one terminal record of a slot, which must be its last. */
static uint16_t
terminal(uint32_t slot, void *rec, size_t len)
{
    llm_wire_id_t id;
    uint16_t type = 0;
    uint32_t i;

    for (i = 0; i < w->ipc.recs_n; i++) {
        memcpy(&id, w->ipc.recs[i] + sizeof(llm_ring_hdr_t), sizeof(id));
        if (id.slot != slot) {
            continue;
        }
        assert_int_equal(type, 0);
        if (rec_type(i) == LLM_REC_DONE || rec_type(i) == LLM_REC_ERROR) {
            type = rec_type(i);
            memcpy(rec, w->ipc.recs[i], len);
        }
    }

    return type;
}

static int
freed_quietly(uint32_t req)
{
    req_msg_t m;

    if (llm_ring_peek(&w->in->out_in.out, &m, sizeof(m)) <= 0) {
        return 0;
    }
    llm_ring_advance(&w->in->out_in.out);
    assert_int_equal(m.hdr.type, REQ_MSG_FREE);
    assert_int_equal(m.req, req);
    assert_int_equal(m.gen, w->in->reqs[req].gen);

    return 1;
}

static int
freed(uint32_t req)
{
    assert_int_equal(w->ipc.since, 0); /* rung before */

    return freed_quietly(req);
}

static int
verdict(req_msg_verdict_t *m)
{
    if (llm_ring_peek(&w->in->out_loop.out, m, sizeof(*m)) <= 0) {
        return 0;
    }
    llm_ring_advance(&w->in->out_loop.out);
    assert_int_equal(m->hdr.type, REQ_MSG_VERDICT);

    return 1;
}

static int
world_open(token_t *tok)
{
    text_out_args_t a;
    char err[256];

    w = calloc(1, sizeof(*w));
    assert_non_null(w);
    w->ipc.room = RECS;
    w->in = inner_open(REQS, &w->page);
    assert_non_null(w->in);
    w->tok = tok != NULL ? tok : token_open_null();
    assert_int_equal(
        reason_open(&w->reason, "think", NULL, 0, w->tok, err, sizeof(err)), 0);
    a = (text_out_args_t){w->in, &w->ipc, w->tok, w->reason, 65536};
    w->to = text_out_open(&a);
    assert_non_null(w->to);

    return 0;
}

static int
setup(void **state)
{
    (void) state;
    return world_open(NULL);
}

static int
teardown(void **state)
{
    uint32_t i;

    (void) state;
    for (i = 0; i < w->ipc.recs_n; i++) {
        free(w->ipc.recs[i]);
    }
    text_out_close(w->to);
    token_close(w->tok);
    reason_close(w->reason);
    inner_close(w->in);
    free(w);

    return 0;
}


/* --- the plain way ------------------------------------------------------ */

static void
test_done(void **state)
{
    llm_wire_done_t d;

    (void) state;
    request(1, 1);
    text(1, 0, "Hello");
    assert_false(turn());
    assert_string_equal(posted(1, 0), "Hello|"); /* one turn, one record */
    assert_int_equal(w->in->reqs[1].sent, 5);
    assert_int_equal(w->ipc.flushes, 1);

    text(1, 0, " you");
    token(1, 0, 9, token_eos(w->tok), LLM_FINISH_STOP, 0);
    end(1, 0);
    assert_false(turn());
    assert_string_equal(posted(1, 0), "Hello| you1|");
    assert_int_equal(terminal(1, &d, sizeof(d)), LLM_REC_DONE);
    assert_int_equal(d.hdr.len, sizeof(d));
    assert_int_equal(d.id.epoch, 9);
    assert_int_equal(d.id.gen, 41);
    assert_int_equal(d.prompt_tokens, 5);
    assert_int_equal(d.completion_tokens, 7);
    assert_int_equal(d.cached_tokens, 2);
    assert_true(freed(1));
    assert_false(freed(1));
    assert_int_equal(w->page.requests_done, 1);
    assert_int_equal(w->page.prompt_tokens, 5);
    assert_int_equal(w->page.heartbeat[LLM_THREAD_OUT], 2);
}

/* A character in four tokens comes whole; half a one becomes U+FFFD. */
static void
test_utf8(void **state)
{
    (void) state;
    request(0, 2);
    text(0, 0, "a\xf0\x9f");
    text(0, 1,
        "\xff"
        "b\xe4\xb8");
    turn();
    assert_string_equal(posted(0, 0), "a|");
    assert_string_equal(posted(0, 1), "\xef\xbf\xbd"
                                      "b|");
    text(0, 0, "\xa6");
    turn();
    assert_string_equal(posted(0, 0), "a|");
    text(0, 0, "\x99");
    token(0, 1, 5, 'x', LLM_FINISH_LENGTH, 0);
    turn();
    assert_string_equal(posted(0, 0), "a|\xf0\x9f\xa6\x99|");
    assert_string_equal(posted(0, 1), "\xef\xbf\xbd"
                                      "b|\xef\xbf\xbd"
                                      "2|");
}

static void
test_counted_fail(void **state)
{
    llm_wire_counted_t c;
    llm_wire_error_t e;
    req_msg_t m;
    req_msg_fail_t f;

    (void) state;
    request(2, 3);
    memset(&m, 0, sizeof(m));
    m.req = 2;
    m.gen = 1;
    say(&w->in->in_out, &m, sizeof(m), REQ_MSG_COUNTED);
    w->ipc.room = 0;
    assert_true(turn());
    assert_int_equal(w->ipc.recs_n, 0);
    w->ipc.room = 9;
    assert_false(turn());
    assert_int_equal(rec_type(0), LLM_REC_COUNTED);
    memcpy(&c, w->ipc.recs[0], sizeof(c));
    assert_int_equal(c.prompt_tokens, 5);
    assert_int_equal(c.max_tokens, 100);
    assert_int_equal(c.choices, 3);

    memset(&f, 0, sizeof(f));
    f.req = 2;
    f.gen = 1;
    f.err = LLM_ERR_BAD_FIELD;
    strcpy(f.param, "messages[0].role");
    strcpy(f.text, "No.");
    w->ipc.room = 0; /* a terminal record needs none */
    say(&w->in->in_out, &f, sizeof(f), REQ_MSG_FAIL);
    assert_false(turn());
    assert_int_equal(terminal(2, &e, sizeof(e)), LLM_REC_ERROR);
    assert_int_equal(e.err, LLM_ERR_BAD_FIELD);
    assert_string_equal(e.param, "messages[0].role");
    assert_string_equal(e.text, "No.");
    assert_true(freed(2));
    assert_int_equal(w->page.requests_failed, 1);

    /* the index is used again; what still names the old generation is stale */
    request(2, 1);
    say(&w->in->in_out, &f, sizeof(f), REQ_MSG_FAIL);
    turn();
    assert_int_equal(w->ipc.recs_n, 2);
    w->ipc.room = 9;
    text(2, 0, "ok");
    turn();
    assert_string_equal(posted(2, 0), "ok|");
}


/* --- stop strings ------------------------------------------------------- */

static void
test_stop(void **state)
{
    req_msg_verdict_t v;
    llm_wire_done_t d;
    req_t *r;

    (void) state;
    r = request(4, 2);
    stop(r, "END");
    stop(r, "\n\n");
    text(4, 0, "one E");
    text(4, 1, "two\n");
    turn();
    assert_string_equal(posted(4, 0), "one |");
    assert_string_equal(posted(4, 1), "two|");
    assert_false(verdict(&v));

    token(4, 0, 20, 'N', 0, 1);
    token(4, 0, 21, 'D', 0, 1);
    token(4, 0, 22, '!', 0, 1);
    text(4, 1, "x\n");
    turn();
    assert_string_equal(posted(4, 0), "one |1|");
    assert_string_equal(posted(4, 1), "two|\nx|");
    assert_true(verdict(&v));
    assert_int_equal(v.req, 4);
    assert_int_equal(v.gen, 1);
    assert_int_equal(v.choice, 0);
    assert_int_equal(v.index, 21);
    assert_false(verdict(&v));
    assert_int_equal(w->page.wasted_tokens, 1);

    /* what looked like a stop string and was none comes out at the end */
    token(4, 1, 9, 'E', LLM_FINISH_LENGTH, 1);
    end(4, 0);
    turn();
    assert_string_equal(posted(4, 1), "two|\nx|\nE2|");
    assert_false(verdict(&v));
    assert_true(freed(4));

    /* the loop came to the text's own end before it was told: what is behind
     * the stop is not the client's */
    stop(request(5, 1), "END");
    text(5, 0, "ENDabc");
    token(5, 0, 6, token_eos(w->tok), LLM_FINISH_STOP, 0);
    end(5, 0); /* which says that there are seven */
    turn();
    assert_true(verdict(&v));
    assert_int_equal(terminal(5, &d, sizeof(d)), LLM_REC_DONE);
    assert_int_equal(d.completion_tokens, 3);
}

/* The cut is at a byte, not at a token. */
static void
test_stop_edge(void **state)
{
    req_msg_verdict_t v;
    size_t len;
    uint32_t lorem = token_find(w->tok, " lorem", 6);
    req_t *r;

    (void) state;
    (void) token_bytes(w->tok, lorem, &len);
    assert_int_equal(len, 6);
    r = request(0, 1);
    stop(r, "rem l");
    token(0, 0, 0, lorem, 0, 1);
    turn();
    assert_string_equal(posted(0, 0), " lo|");
    token(0, 0, 1, lorem, LLM_FINISH_LENGTH, 1);
    end(0, 0);
    turn();
    assert_string_equal(posted(0, 0), " lo|1|");
    assert_false(verdict(&v)); /* the loop ended it in the same token */
    assert_int_equal(w->in->reqs[0].sent, 3);
}


/* --- no room ------------------------------------------------------------ */

static void
test_full(void **state)
{
    llm_wire_done_t d;
    llm_wire_error_t e;

    (void) state;
    request(0, 1);
    request(1, 1);
    w->ipc.room = 0;
    text(0, 0, "abc");
    text(1, 0, "xyz");
    assert_true(turn());
    assert_true(turn());
    assert_int_equal(w->ipc.recs_n, 0);
    assert_int_equal(w->in->reqs[0].sent, 3); /* ready counts as sent */
    text(0, 0, "def");
    token(0, 0, 6, 'g', LLM_FINISH_LENGTH, 1);
    end(0, 0);
    end(1, LLM_ERR_NAN_LOGITS);
    assert_true(turn());
    assert_int_equal(w->ipc.recs_n, 0); /* no end before the text */
    assert_false(freed(0));

    w->ipc.room = 1;
    assert_true(turn());
    assert_string_equal(posted(0, 0), "abcdefg2|"); /* all in one */
    assert_int_equal(terminal(0, &d, sizeof(d)), LLM_REC_DONE);
    assert_true(freed(0));
    w->ipc.room = 1;
    assert_false(turn());
    assert_string_equal(posted(1, 0), "xyz|");
    assert_int_equal(terminal(1, &e, sizeof(e)), LLM_REC_ERROR);
    assert_int_equal(e.err, LLM_ERR_NAN_LOGITS);
    assert_int_equal(e.prompt_tokens, 5);
    assert_int_equal(e.completion_tokens, 7);
    assert_true(freed(1));
}

/* More than a record holds, of characters that must not be split. */
static void
test_long(void **state)
{
    char want[30001], *out;
    uint32_t i, n;

    (void) state;
    request(0, 1);
    w->ipc.room = 0;
    for (i = 0; i < 30000; i += 3) {
        memcpy(want + i, "\xe4\xb8\x96", 3);
    }
    want[30000] = '\0';
    text(0, 0, want);
    assert_true(turn());
    w->ipc.room = RECS;
    assert_false(turn());
    assert_true(w->ipc.recs_n >= 4);
    out = strdup(posted(0, 0));
    for (i = 0, n = 0; out[i] != '\0'; i++) {
        if (out[i] == '|') {
            assert_int_equal(n % 3, 0);
        } else {
            assert_int_equal(out[i], want[n++]);
        }
    }
    assert_int_equal(n, 30000);
    free(out);
}

static void
test_cancel(void **state)
{
    llm_wire_error_t e;

    (void) state;
    request(0, 1);
    w->ipc.room = 0;
    text(0, 0, "secret");
    assert_true(turn());
    w->line.cancel = 41;
    w->ipc.room = 9;
    assert_false(turn());
    assert_string_equal(posted(0, 0), "");
    text(0, 0, "more");
    end(0, LLM_ERR_CANCELLED);
    assert_false(turn());
    assert_string_equal(posted(0, 0), "");
    assert_int_equal(terminal(0, &e, sizeof(e)), LLM_REC_ERROR);
    assert_int_equal(e.err, LLM_ERR_CANCELLED);
    assert_true(freed(0));
    assert_int_equal(w->page.requests_cancelled, 1);
}

static void
test_dead(void **state)
{
    (void) state;
    request(0, 1);
    w->ipc.room = 0;
    text(0, 0, "text");
    assert_true(turn());
    w->dead = w->ipc.dead = 1;
    assert_false(turn());
    end(0, 0);
    assert_false(turn());
    assert_int_equal(w->ipc.recs_n, 0);
    assert_true(freed(0));
    assert_int_equal(w->page.requests_cancelled, 1);
    assert_int_equal(w->page.prompt_tokens, 5);
}

/* Far beyond all credit: the request ends with an error, others go on. */
static void
test_pool_empty(void **state)
{
    uint32_t word = token_find(w->tok, " consectetur", 12);
    req_msg_verdict_t v;
    llm_wire_error_t e;
    uint32_t i, k, told = 0;

    (void) state;
    request(0, 1);
    request(1, 1);
    text(1, 0, "a");
    turn();
    w->ipc.room = 0;
    for (i = 0; i < 4000 && told == 0; i++) {
        for (k = 0; k < 1000; k++) {
            token(0, 0, k, word, 0, 1);
        }
        turn();
        told += (uint32_t) verdict(&v);
    }
    assert_int_equal(told, 1);
    assert_true(i * 12000 > 17000000); /* what the pool is promised to hold */
    text(0, 0, "xy");
    turn();
    assert_false(verdict(&v));
    w->ipc.room = RECS;
    text(1, 0, "b");
    end(0, 0);
    assert_false(turn());
    assert_int_equal(terminal(0, &e, sizeof(e)), LLM_REC_ERROR);
    assert_int_equal(e.err, LLM_ERR_NO_MEMORY);
    assert_string_equal(posted(1, 0), "a|b|");
}


/* --- thought ------------------------------------------------------------ */

/* A choice's text, thought in braces, and its entries, those of its prompt in
 * brackets; *tokens is how many, *thought of them that. */
static char told_text[4096], told_entries[4096];

static const char *
told(uint32_t choice, uint32_t *thought, uint32_t *tokens)
{
    const uint8_t *p = NULL, *lp = NULL, *bytes;
    llm_wire_tokens_t t = {.text_len = 0};
    uint32_t i, k, left, kind = LLM_TEXT_ANSWER;
    char *at = told_text, *to = told_entries;
    llm_wire_lp_t e;

    for (i = *thought = *tokens = 0; i < w->ipc.recs_n; i++) {
        if (!llm_tokens_ok(w->ipc.recs[i], rec_len(i), &t, &p, &lp)
            || t.hdr.type != LLM_REC_TOKENS || t.choice != choice) {
            continue;
        }
        if (t.text_len > 0 && t.kind != kind) {
            *at++ = t.kind == LLM_TEXT_REASONING ? '{' : '}';
            kind = t.kind;
        }
        at += sprintf(at, "%.*s", (int) t.text_len, (const char *) p);
        left = t.lp_len;
        for (k = 0; llm_lp_next(&lp, &left, &e, &bytes) == 1; k++) {
            to += sprintf(to, k < t.prompt ? "(%.*s%s)" : "%.*s%s", (int) e.len,
                (const char *) bytes, isnan(e.logprob) ? "?" : "");
        }
        assert_int_equal(left, 0);
        assert_true(t.prompt <= k);
        *thought += t.reasoning;
        *tokens += t.tokens;
    }
    *at = *to = '\0';

    return told_text;
}

/* Each choice for itself; a stop string ends thought as it ends answers. */
static void
test_thought(void **state)
{
    uint32_t n, all;
    req_t *r;

    (void) state;
    r = request(0, 3);
    r->apart = 1;
    r->flags = LLM_F_LOGPROBS;
    reason_begin(w->reason, NULL, 0, 0, &r->reason);
    stop(r, "STOP");

    text(0, 0, "<think>\nab");
    text(0, 1, "cd");
    text(0, 2, "<think>STO");
    turn();
    assert_string_equal(told(0, &n, &all), "{ab");
    text(0, 0, "\n</think>\n\nef");
    text(0, 2, "P and more");
    turn();
    assert_string_equal(told(0, &n, &all), "{ab}ef");
    assert_int_equal(n, 19);
    assert_string_equal(told(1, &n, &all), "cd");
    assert_int_equal(n, 0);
    assert_string_equal(told(2, &n, &all), "");
    assert_int_equal(n, 11);
    assert_int_equal(w->in->reqs[0].sent, w->in->reqs[0].posted);

    token(0, 0, 21, token_eos(w->tok), LLM_FINISH_STOP, 0);
    token(0, 1, 2, token_eos(w->tok), LLM_FINISH_STOP, 0);
    end(0, 0);
    turn();
    assert_true(freed(0));

    /* one that does not ask for it has all in one piece */
    request(1, 1);
    text(1, 0, "<think>x</think>y");
    turn();
    assert_string_equal(posted(1, 0), "<think>x</think>y|");
}


/* --- logprobs, echo, spaces --------------------------------------------- */

static void
test_logprobs(void **state)
{
    const uint8_t *p = NULL, *lp = NULL, *bytes;
    llm_wire_tokens_t t = {.text_len = 0};
    llm_wire_lp_t e;
    req_msg_token_t m;
    uint32_t left, i, entries = 0, tops = 0;
    req_t *r;

    (void) state;
    r = request(0, 1);
    r->flags = LLM_F_LOGPROBS;
    stop(r, "bcd");

    memset(&m, 0, sizeof(m));
    m.req = 0;
    m.gen = 1;
    m.shown = 1;
    m.out.token = 'a';
    m.out.logprob = -0.5f;
    m.out.tops_n = 2;
    m.out.top_ids[0] = 'a';
    m.out.top_ids[1] = token_find(w->tok, " lorem", 6);
    m.out.top_logprobs[1] = -3;
    say(&w->in->loop_out, &m, sizeof(m), REQ_MSG_TOKEN);
    text(0, 0, "bc");
    turn();
    assert_int_equal(w->ipc.recs_n, 1);
    assert_true(llm_tokens_ok(w->ipc.recs[0], rec_len(0), &t, &p, &lp));
    assert_int_equal(t.text_len, 1);
    assert_int_equal(t.tokens, 3);
    left = t.lp_len;
    assert_int_equal(w->in->reqs[0].sent, 1 + left);
    while (llm_lp_next(&lp, &left, &e, &bytes) == 1) {
        tops += e.top;
        entries++;
        if (entries == 3) {
            assert_int_equal(e.len, 6);
            assert_memory_equal(bytes, " lorem", 6);
        }
    }
    assert_int_equal(left, 0);
    assert_int_equal(entries, 3); /* the held b and c are not in it */
    assert_int_equal(tops, 2);

    /* no stop after all: three tokens, three entries, with their text */
    text(0, 0, "x");
    turn();
    assert_true(llm_tokens_ok(w->ipc.recs[1], rec_len(1), &t, &p, &lp));
    assert_int_equal(t.text_len, 3);
    left = t.lp_len;
    for (i = 0; llm_lp_next(&lp, &left, &e, &bytes) == 1; i++) {
        assert_int_equal(*bytes, "bcx"[i]);
        assert_true(e.logprob < -1.4f && e.logprob > -1.6f);
    }
    assert_int_equal(i, 3);

    /* tokens that a stop string swallowed have no entry */
    text(0, 0, "ybcd");
    turn();
    assert_true(llm_tokens_ok(w->ipc.recs[2], rec_len(2), &t, &p, &lp));
    assert_int_equal(t.finish, LLM_FINISH_STOP);
    assert_int_equal(t.text_len, 1);
    assert_int_equal(t.tokens, 4);
    assert_int_equal(t.lp_len, 16);
}

static void
prompt(uint32_t req, uint32_t index, uint32_t id)
{
    req_msg_token_t m;

    memset(&m, 0, sizeof(m));
    m.req = req;
    m.gen = w->in->reqs[req].gen;
    m.index = index;
    m.prompt = 1;
    m.out.token = id;
    m.out.logprob = -2;
    say(&w->in->loop_out, &m, offsetof(req_msg_token_t, out.top_ids),
        REQ_MSG_TOKEN);
}

/* Entries of prompts, with echo their text, in which nothing stops. */
static void
test_prompt_logprobs(void **state)
{
    static uint32_t ids[4] = {0, 'a', 'b', 0xc3};
    uint32_t echo, n, all;
    req_t *r;

    (void) state;
    ids[0] = token_bos(w->tok);
    for (echo = 0; echo < 2; echo++) {
        r = request(echo, 2);
        r->flags = LLM_F_PROMPT_LPS | (echo ? LLM_F_ECHO | LLM_F_LOGPROBS : 0);
        r->prompts[0].ids = ids;
        r->prompts[0].len = 4;
        stop(r, "ab");
        prompt(echo, 1, 'a');
        turn();
        prompt(echo, 2, 'b');
        prompt(echo, 3, 0xc3);
        text(echo, 0, "c");
        turn();
        assert_string_equal(told(0, &n, &all), echo ? "cab\xef\xbf\xbd"
                                                      "c"
                                                    : "c");
        assert_string_equal(told_entries,
            echo ? "(?)(a)(b)(\xc3)(?)(a)(b)(\xc3)c" : "(?)(a)(b)(\xc3)");
        assert_int_equal(all, 1 + echo);

        /* scored: the end and nothing else */
        token(echo, 0, 1, 'x', LLM_FINISH_LENGTH, 0);
        token(echo, 1, 1, 'x', LLM_FINISH_LENGTH, 0);
        end(echo, 0);
        turn();
        assert_int_equal(r->sent, r->posted);
        assert_true(freed(echo));
    }
}

/* Many entries: records stay within bounds, texts stay with entries. */
static void
test_logprobs_long(void **state)
{
    const uint8_t *p = NULL, *lp = NULL, *bytes;
    llm_wire_tokens_t t = {.text_len = 0};
    llm_wire_lp_t e;
    req_msg_token_t m;
    uint32_t left, i, k, at = 0;
    llm_ring_hdr_t hdr;

    (void) state;
    request(0, 1)->flags = LLM_F_LOGPROBS;
    memset(&m, 0, sizeof(m));
    m.req = 0;
    m.gen = 1;
    m.shown = 1;
    m.out.tops_n = SAMPLE_TOPS_MAX;
    for (i = 0; i < 500; i++) {
        m.out.token = 'a' + i % 26;
        say(&w->in->loop_out, &m, sizeof(m), REQ_MSG_TOKEN);
    }
    end(0, 0);
    assert_false(turn());
    assert_true(w->ipc.recs_n > 20);
    for (i = 0; i + 1 < w->ipc.recs_n; i++) {
        memcpy(&hdr, w->ipc.recs[i], sizeof(hdr));
        assert_true(llm_tokens_ok(w->ipc.recs[i], hdr.len, &t, &p, &lp));
        left = t.lp_len;
        k = 0;
        while (llm_lp_next(&lp, &left, &e, &bytes) == 1) {
            if (e.top > 0) {
                assert_int_equal(*bytes, 'a' + at % 26);
                assert_int_equal(p[k++], 'a' + at++ % 26);
            }
        }
        assert_int_equal(left, 0);
        assert_int_equal(k, t.text_len);
    }
    assert_int_equal(at, 500);
}

/* The prompt comes first, within the credit, also when tokens came already. */
static void
test_echo(void **state)
{
    static uint32_t ids[9000];
    char *out;
    uint32_t i, n = 0;
    req_t *r;

    (void) state;
    r = request(0, 1);
    r->flags = LLM_F_ECHO;
    r->credit = 3000;
    ids[0] = token_bos(w->tok);
    for (i = 1; i < 9000; i++) {
        ids[i] = i % 3 == 1 ? 0xe4 : i % 3 == 2 ? 0xb8 : 0x96;
    }
    r->prompts[0].ids = ids;
    r->prompts[0].len = 8999; /* ends inside a character */
    text(0, 0, "go");
    assert_true(turn());
    assert_true(r->sent < 3000 + 2048 + 2);
    assert_null(strstr(posted(0, 0), "go"));
    while (w->line.taken = r->sent, turn()) {
    }
    out = strdup(posted(0, 0));
    for (i = 0; out[i] != '\0'; i++) {
        n += out[i] != '|';
    }
    assert_int_equal(n, 8997 + 3 + 2);
    assert_non_null(strstr(out, "\x96\xef\xbf\xbd"));
    assert_non_null(strstr(out, "go|"));
    free(out);
}

/* Only the prompt: its ids, bounded by credit, and DONE without a token. */
static void
test_prompt(void **state)
{
    static uint32_t ids[3000];
    llm_wire_done_t d;
    req_msg_t m = {.req = 0, .gen = 1};
    char *out, want[16];
    uint32_t i;
    const char *p;
    req_t *r;

    (void) state;
    r = request(0, 1);
    r->flags = LLM_F_ECHO | LLM_F_IDS | LLM_F_PROMPT;
    r->credit = 3000;
    for (i = 0; i < 3000; i++) {
        ids[i] = i * i * 400;
    }
    r->prompts[0].ids = ids;
    r->prompts[0].len = 3000;
    r->prompt_tokens = 3000;

    say(&w->in->in_out, &m, sizeof(m), REQ_MSG_PROMPT);
    assert_true(turn());
    assert_true(r->sent < 3000 + 2048 + 2);
    while (w->line.taken = r->sent, turn()) {
    }

    /* posted() has "|" between records */
    out = strdup(posted(0, 0));
    p = out;
    for (i = 0; i < 3000; i++) {
        snprintf(want, sizeof(want), i ? ",%u" : "%u", ids[i]);
        p += *p == '|';
        assert_memory_equal(p, want, strlen(want));
        p += strlen(want);
    }
    assert_string_equal(p, "|");
    free(out);

    assert_int_equal(terminal(0, &d, sizeof(d)), LLM_REC_DONE);
    assert_int_equal(d.prompt_tokens, 3000);
    assert_int_equal(d.completion_tokens, 0);
    assert_true(freed(0));
    assert_int_equal(w->page.prompt_tokens, 0);
    assert_int_equal(w->page.requests_done, 1);
}

/* Its client leaves: cancelled, and nothing more is posted. */
static void
test_prompt_cancel(void **state)
{
    static uint32_t ids[3000];
    llm_wire_error_t e;
    req_msg_t m = {.req = 0, .gen = 1};
    uint32_t n;
    req_t *r;

    (void) state;
    r = request(0, 1);
    r->flags = LLM_F_ECHO | LLM_F_IDS | LLM_F_PROMPT;
    r->credit = 100;
    r->prompts[0].ids = ids;
    r->prompts[0].len = 3000;

    say(&w->in->in_out, &m, sizeof(m), REQ_MSG_PROMPT);
    assert_true(turn());
    n = w->ipc.recs_n;
    w->line.cancel = r->wire.gen;
    turn();
    assert_int_equal(w->ipc.recs_n, n + 1);
    assert_int_equal(terminal(0, &e, sizeof(e)), LLM_REC_ERROR);
    assert_int_equal(e.err, LLM_ERR_CANCELLED);
    assert_true(freed(0));
}

/* A worker that claims to have passed on what it was never given, and reads
 * nothing, gets its credit's worth of memory, and no more. */
static void
test_lies(void **state)
{
    req_t *r = request(0, 1);
    uint32_t i;

    (void) state;
    r->credit = 1000;
    w->ipc.room = 0;
    w->line.taken = UINT64_MAX;
    assert_true(req_has_credit(r));
    for (i = 0; i < 100; i++) {
        text(0, 0, "ten bytes.");
        assert_true(turn() || i == 0);
    }
    assert_int_equal(r->sent, 1000);
    assert_false(req_has_credit(r));

    w->ipc.room = RECS;
    assert_false(turn());
    assert_true(req_has_credit(r));
    w->line.taken = 0;
    assert_false(req_has_credit(r));
    w->line.taken = 1;
    assert_true(req_has_credit(r));
}

static void
test_strip(void **state)
{
    static const piece_t v[] = {{"<s>", 0, 3}, {"</s>", 0, 3},
        {SP "Once", 0, 1}, {SP "upon", 0, 1}, {"<0x0A>", 0, 6}};
    file_t f;
    gguf_t *g;
    char err[256];
    req_t *r;

    (void) state;
    file_vocab(&f, v, 5);
    file_done(&f);
    g = gguf_open_mem(f.p, f.n, "v", err, sizeof(err));
    assert_non_null(g);
    world_open(token_open_gguf(g, err, sizeof(err)));

    r = request(0, 1);
    r->prompts[0].len = 1;
    token(0, 0, 0, 0, 0, 1); /* a control token is no text */
    token(0, 0, 1, 2, 0, 1);
    token(0, 0, 2, 3, 0, 1);
    turn();
    assert_string_equal(posted(0, 0), "Once upon|");

    r = request(1, 1);
    w->prompt[1] = 2;
    r->flags = LLM_F_ECHO;
    token(1, 0, 0, 3, 0, 1);
    turn();
    assert_string_equal(posted(1, 0), "Once| upon|");

    teardown(NULL);
    gguf_close(g);
    free(f.p);
}

/*
 * The thread itself: it is woken, answers, and ends when it is told to.  Run
 * under ThreadSanitizer too.
 */
static void
test_thread(void **state)
{
    llm_wire_done_t d;
    pthread_t thread;
    uint32_t i, k;

    (void) state;
    assert_int_equal(pthread_create(&thread, NULL, text_out_run, w->to), 0);
    for (i = 0; i < 200; i++) {
        request(i % REQS, 1);
        text(i % REQS, 0, "some text");
        token(i % REQS, 0, 9, 'x', LLM_FINISH_LENGTH, 0);
        end(i % REQS, 0);
        bell_ring(&w->in->out_bell);
        for (k = 0; k < 20000; k++) {
            bell_arm(&w->in->in_bell);
            if (__atomic_load_n(&w->in->out_in.out.ctl->tail, __ATOMIC_ACQUIRE)
                != w->in->out_in.out.pos) {
                bell_stay(&w->in->in_bell);
                break;
            }
            bell_wait(&w->in->in_bell, 1000);
        }
        assert_true(freed_quietly(i % REQS));
    }

    __atomic_store_n(&w->in->stop, 1, __ATOMIC_RELEASE);
    bell_ring(&w->in->out_bell);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(w->page.requests_done, 200);

    /* a text may come in two, where the thread was awake between its tokens */
    assert_in_range(w->ipc.recs_n, 400, 600);
    memcpy(&d, w->ipc.recs[w->ipc.recs_n - 1], sizeof(d));
    assert_int_equal(d.hdr.type, LLM_REC_DONE);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_done),
        TEST(test_utf8),
        TEST(test_counted_fail),
        TEST(test_stop),
        TEST(test_stop_edge),
        TEST(test_full),
        TEST(test_long),
        TEST(test_cancel),
        TEST(test_dead),
        TEST(test_pool_empty),
        TEST(test_thought),
        TEST(test_logprobs),
        TEST(test_prompt_logprobs),
        TEST(test_logprobs_long),
        TEST(test_echo),
        TEST(test_prompt),
        TEST(test_prompt_cancel),
        TEST(test_lies),
        TEST(test_thread),
        cmocka_unit_test(test_strip),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
