/*
 * Would catch a SUBMIT that is lost or answered twice, a value out of range
 * that reaches the model, a record whose lies lead outside it, a prompt that
 * does not fit and is let through, max_tokens that break the context, a held
 * request that runs before its ADMIT or never ends, a slot used again too
 * early, one worker's requests that keep out another's, and a request table
 * that does not come back to empty.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "inner.h"
#include "ipc.h"
#include "ipc_client.h"
#include "log.h"
#include "text_in.h"

#include <math.h>
#include <pthread.h>

#define SLOTS    8
#define REQS     4 /* the `requests` option */
#define CONTEXT  64
#define SUBMIT   65536
#define DEADLINE 2000 /* turns before a test gives up waiting */

typedef struct {
    char dir[64], path[96];
    ipc_t *ipc;
    inner_t *in;
    token_t *tok;
    reason_t *reason;
    template_t *tpl;
    text_in_t *ti;
    client_t c;
    uint64_t now_us;
    grammar_cache_t *grammars;
    uint32_t requests; /* the option */
} fix_t;

/* A SUBMIT in the making. */
typedef struct {
    union {
        llm_wire_submit_t head;
        uint8_t bytes[SUBMIT / 2];
    } u;
    uint32_t len;
} rec_t;


static void
rig_open(fix_t *f, uint32_t context, uint32_t slots)
{
    char err[256] = "";
    ipc_cfg_t ic = {f->path, "", slots, 3, SUBMIT, 1 << 17, 4096, 0, 0};
    grammar_cache_cfg_t gc = {.tools = NULL};
    text_in_cfg_t tc;

    f->ipc = ipc_open(&ic, err, sizeof(err));
    assert_string_equal(err, "");
    assert_int_equal(ipc_listen(f->ipc, err, sizeof(err)), 0);
    f->in = inner_open(f->requests + TEXT_IN_SPARE, ipc_state(f->ipc));
    f->tok = token_open_null();
    assert_non_null(f->in);
    assert_non_null(f->tok);
    f->tpl = template_open(f->tok, (template_text_t){NULL, 0},
        (template_text_t){NULL, 0}, err, sizeof(err));
    assert_non_null(f->tpl);

    memset(&tc, 0, sizeof(tc));
    tc.in = f->in;
    tc.ipc = f->ipc;
    tc.tok = f->tok;
    tc.tpl = f->tpl;
    assert_int_equal(
        reason_open(&f->reason, "think", NULL, 0, f->tok, err, sizeof(err)), 0);
    tc.reason = f->reason;
    tc.model = "m";
    tc.context = context;
    tc.slots = slots;
    tc.submit_size = SUBMIT;
    tc.credit_max = 4096;
    tc.threads = 2;
    gc.tok = f->tok;
    gc.bytes = 1 << 24;
    gc.compile_us = 1000000;
    gc.refused_us = 1000000;
    gc.state = f->in->state;
    f->grammars = grammar_cache_open(&gc);
    assert_non_null(f->grammars);
    tc.grammars = f->grammars;
    tc.compilers = 1;
    f->ti = text_in_open(&tc);
    assert_non_null(f->ti);
}


static void
rig_close(fix_t *f)
{
    text_in_close(f->ti);
    grammar_cache_close(f->grammars);
    inner_close(f->in);
    ipc_close(f->ipc);
    template_close(f->tpl);
    reason_close(f->reason);
    token_close(f->tok);
}


static void
turn(fix_t *f)
{
    ipc_wait(f->ipc, 1);
    f->now_us += 1000;
    (void) text_in_turn(f->ti, f->now_us);
}


static void
attach(fix_t *f, client_t *c)
{
    client_connect(c, f->path);
    client_hello(c, LLM_WIRE_VERSION_MIN, LLM_WIRE_VERSION);
    turn(f);
    turn(f);
    assert_int_equal(client_answer(c), 1);
}


static int
setup(void **state)
{
    fix_t *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    log_level_set(LOG_ALERT);
    snprintf(f->dir, sizeof(f->dir), "/tmp/llm-text-in-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->path, sizeof(f->path), "%s/e.sock", f->dir);
    f->now_us = 1000000;
    f->requests = REQS;
    rig_open(f, CONTEXT, SLOTS);
    attach(f, &f->c);
    *state = f;

    return 0;
}


static int
teardown(void **state)
{
    fix_t *f = *state;
    char lock[128];

    client_close(&f->c);
    rig_close(f);
    snprintf(lock, sizeof(lock), "%s.lock", f->path);
    (void) unlink(lock);
    (void) rmdir(f->dir);
    free(f);

    return 0;
}


/* --- records ------------------------------------------------------------ */

static void
section(rec_t *r, uint32_t type, const void *p, uint32_t len)
{
    const llm_wire_sec_t sec = {type, len};

    assert_true(r->len + sizeof(sec) + len + 8 < sizeof(r->u.bytes));
    memcpy(r->u.bytes + r->len, &sec, sizeof(sec));
    r->len += (uint32_t) sizeof(sec);
    memcpy(r->u.bytes + r->len, p, len);
    r->len += (len + 7) & ~7u;
    r->u.head.hdr.len = r->len;
}


/* A head with sound values and the model's name. */
static rec_t *
submit(const client_t *c, uint32_t slot, uint32_t gen, uint32_t kind)
{
    rec_t *r = calloc(1, sizeof(*r));
    llm_wire_submit_t *h = &r->u.head;

    assert_non_null(r);
    h->hdr.type = LLM_REC_SUBMIT;
    h->id.epoch = c->w.epoch;
    h->id.slot = slot;
    h->id.gen = gen;
    h->head_len = sizeof(*h);
    h->kind = kind;
    h->n = 1;
    h->credit = 1000;
    h->temperature = 1;
    h->top_p = 1;
    h->repetition_penalty = 1;
    h->weight = 1;
    r->len = sizeof(*h);
    section(r, LLM_SEC_MODEL, "m", 1);

    return r;
}


/* The same with a prompt. */
static rec_t *
text(const client_t *c, uint32_t slot, uint32_t gen, const char *prompt)
{
    rec_t *r = submit(c, slot, gen, LLM_KIND_TEXT);

    section(r, LLM_SEC_PROMPT, prompt, (uint32_t) strlen(prompt));

    return r;
}


/* Commits and frees r. */
static void
push(client_t *c, rec_t *r)
{
    void *p = llm_ring_reserve(&c->submit, r->len, 0);

    assert_non_null(p);
    memcpy(p, r->u.bytes, r->len);
    llm_ring_commit(&c->submit);
    free(r);

    if (llm_ring_must_wake(&c->submit)) {
        (void) send(c->fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
}


static void
push_admit(client_t *c, uint32_t slot, uint32_t gen, uint32_t max_tokens)
{
    llm_wire_admit_t *m = llm_ring_reserve(&c->submit, sizeof(*m), 0);

    assert_non_null(m);
    m->hdr.type = LLM_REC_ADMIT;
    m->id.epoch = c->w.epoch;
    m->id.slot = slot;
    m->id.gen = gen;
    m->max_tokens = max_tokens;
    llm_ring_commit(&c->submit);
}


/* --- the neighbours' part ----------------------------------------------- */

/* What comes out next, to loop or text_out; the message's type, 0: nothing. */
static int
next(fix_t *f, req_msg_fail_t *m, int turns)
{
    int i;

    memset(m, 0, sizeof(*m));
    for (i = 0; i < turns; i++) {
        if (llm_ring_peek(&f->in->in_out.out, m, sizeof(*m)) > 0) {
            llm_ring_advance(&f->in->in_out.out);
            return m->hdr.type;
        }
        if (llm_ring_peek(&f->in->in_loop.out, m, sizeof(*m)) > 0) {
            llm_ring_advance(&f->in->in_loop.out);
            return m->hdr.type;
        }
        turn(f);
    }

    return 0;
}


/* Ends a request as loop and text_out would. */
static void
give_back(fix_t *f, const req_msg_fail_t *m)
{
    req_msg_t *b;

    if (f->in->reqs[m->req].state != REQ_ENDING) {
        req_set_state(&f->in->reqs[m->req], REQ_ENDING);
    }
    b = llm_ring_reserve(&f->in->out_in.in, sizeof(*b), 0);
    assert_non_null(b);
    b->hdr.type = REQ_MSG_FREE;
    b->req = m->req;
    b->gen = m->gen;
    llm_ring_commit(&f->in->out_in.in);
    turn(f);
}


static req_t *
expect_ready(fix_t *f, req_msg_fail_t *m)
{
    assert_int_equal(next(f, m, DEADLINE), REQ_MSG_READY);
    assert_int_equal(f->in->reqs[m->req].state, REQ_WAITING);
    assert_int_equal(f->in->reqs[m->req].gen, m->gen);

    return &f->in->reqs[m->req];
}


static void
expect_fail(fix_t *f, uint32_t err, const char *param)
{
    req_msg_fail_t m;

    assert_int_equal(next(f, &m, DEADLINE), REQ_MSG_FAIL);
    assert_int_equal(m.err, err);
    assert_string_equal(m.param, param);
    assert_int_equal(f->in->reqs[m.req].state, REQ_ENDING);
    give_back(f, &m);
    assert_int_equal(f->in->state->requests_held, 0);
}


/* --- tests -------------------------------------------------------------- */

static void
test_text(void **state)
{
    fix_t *f = *state;
    const llm_wire_bias_t bias[2] = {{65, -100}, {66, 1.5f}};
    req_msg_fail_t m;
    const req_t *r;
    rec_t *s;
    uint32_t i, bos;

    s = text(&f->c, 3, 9, "hi \xff<");
    section(s, LLM_SEC_STOP, "end", 3);
    section(s, LLM_SEC_STOP, "\n", 1);
    section(s, LLM_SEC_BIAS, bias, sizeof(bias));
    section(s, 9999, "unknown", 7);
    section(s, LLM_SEC_REQUEST_ID, "ab\n.1", 5);
    s->u.head.max_tokens = 10;
    s->u.head.flags = LLM_F_SEED | LLM_F_LOGPROBS;
    s->u.head.top_logprobs = 3;
    s->u.head.seed = 77;
    s->u.head.credit = 1 << 30;
    push(&f->c, s);

    r = expect_ready(f, &m);
    bos = token_bos(f->tok) != TOKEN_NONE ? 1 : 0;
    assert_int_equal(r->prompts_n, 1);
    assert_int_equal(r->prompts[0].len, 5 + bos);
    for (i = 0; i < 5; i++) {
        assert_int_equal(r->prompts[0].ids[i + bos], (uint8_t) "hi \xff<"[i]);
    }
    assert_int_equal(r->prompt_tokens, 5 + bos);
    assert_int_equal(r->max_tokens, 10);
    assert_int_equal(r->choices, 1);
    assert_int_equal(r->wire.slot, 3);
    assert_int_equal(r->wire.gen, 9);
    assert_int_equal(r->credit, 4096);
    assert_string_equal(r->id, "ab_.1");
    assert_int_equal(r->stops_n, 2);
    assert_int_equal(r->stops[0].len, 3);
    assert_memory_equal(r->stops[0].s, "end", 3);
    assert_memory_equal(r->stops[1].s, "\n", 1);
    assert_int_equal(r->params.bias_n, 2);
    assert_int_equal(r->params.bias[1].token, 66);
    assert_true(r->params.bias[0].bias == -100.0f);
    assert_int_equal(r->params.seed, 77);
    assert_int_equal(r->params.tops, 3);
    assert_false(req_cancelled(r));
    assert_int_equal(f->in->state->requests_held, 1);
    give_back(f, &m);
    assert_int_equal(f->in->state->requests_held, 0);
    assert_int_equal(f->in->state->requests_total, 1);
}


/* Whose blocks a request may meet: tenant and salt tell. */
static void
test_space(void **state)
{
    static const char *const rows[][2] = {
        {"a", ""}, {"a", ""}, {"b", ""}, {"a", "b"}, {"", "a"}, {"", ""}};
    uint64_t spaces[6];
    fix_t *f = *state;
    req_msg_fail_t m;
    const req_t *r;
    uint32_t i, k;
    rec_t *s;

    for (i = 0; i < 6; i++) {
        s = text(&f->c, 0, i + 1, "x");
        if (rows[i][0][0] != 0) {
            section(s, LLM_SEC_TENANT, rows[i][0], 1);
        }
        if (rows[i][1][0] != 0) {
            section(s, LLM_SEC_SALT, rows[i][1], 1);
        }
        push(&f->c, s);
        r = expect_ready(f, &m);
        spaces[i] = r->space;
        give_back(f, &m);
        for (k = 0; k < i; k++) {
            assert_int_equal(spaces[i] == spaces[k], i == 1);
        }
    }
}


static void
test_ids_and_many(void **state)
{
    fix_t *f = *state;
    const uint32_t ids[3] = {72, 0, 255};
    uint32_t vocab = token_vocab(f->tok);
    req_msg_fail_t m;
    const req_t *r;
    uint64_t seed;
    rec_t *s;

    s = submit(&f->c, 0, 1, LLM_KIND_TEXT);
    section(s, LLM_SEC_PROMPT_IDS, ids, sizeof(ids));
    section(s, LLM_SEC_PROMPT, "abcdef", 6);
    s->u.head.n = 3;
    push(&f->c, s);
    r = expect_ready(f, &m);
    assert_int_equal(r->prompts_n, 2);
    assert_int_equal(r->choices, 6);
    assert_int_equal(r->prompts[0].len, 3);
    assert_memory_equal(r->prompts[0].ids, ids, sizeof(ids));
    assert_int_equal(r->prompts[1].ids[r->prompts[1].len - 1], 'f');
    assert_int_equal(r->prompt_tokens, r->prompts[0].len + r->prompts[1].len);
    assert_int_equal(r->max_tokens, CONTEXT - r->prompts[1].len);
    seed = r->params.seed;
    give_back(f, &m);

    /* a seed of its own for each that names none */
    push(&f->c, text(&f->c, 0, 2, "x"));
    r = expect_ready(f, &m);
    assert_true(r->params.seed != seed);
    give_back(f, &m);

    s = submit(&f->c, 0, 3, LLM_KIND_TEXT);
    section(s, LLM_SEC_PROMPT_IDS, &vocab, 4);
    push(&f->c, s);
    expect_fail(f, LLM_ERR_BAD_FIELD, "prompt");

    s = submit(&f->c, 0, 4, LLM_KIND_TEXT);
    section(s, LLM_SEC_PROMPT_IDS, ids, 7);
    push(&f->c, s);
    expect_fail(f, LLM_ERR_BAD_FIELD, "prompt");

    /* nothing becomes the begin token, if there is one */
    push(&f->c, text(&f->c, 0, 5, ""));
    if (token_bos(f->tok) == TOKEN_NONE) {
        expect_fail(f, LLM_ERR_BAD_FIELD, "prompt");
    } else {
        r = expect_ready(f, &m);
        assert_int_equal(r->prompts[0].len, 1);
        assert_int_equal(r->prompts[0].ids[0], token_bos(f->tok));
        give_back(f, &m);
    }
}


static void
test_chat(void **state)
{
    fix_t *f = *state;
    static const char good[] = "[{\"role\":\"user\",\"content\":\"hello\"}]";
    static const char thought[] =
        "[{\"role\":\"user\",\"content\":\"<think>\"}]";
    static const char *const bad[] = {"", "[", "{}", "[{\"role\":1}]", "[]"};
    req_msg_fail_t m;
    const req_t *r;
    rec_t *s;
    size_t i;

    s = submit(&f->c, 0, 1, LLM_KIND_CHAT);
    section(s, LLM_SEC_MESSAGES, good, sizeof(good) - 1);
    push(&f->c, s);
    r = expect_ready(f, &m);
    assert_true(r->prompts[0].len >= 5);
    give_back(f, &m);

    assert_int_equal(r->apart, 0);

    /* thought apart, from where the prompt leaves off */
    s = submit(&f->c, 0, 1, LLM_KIND_CHAT);
    s->u.head.wants = LLM_W_REASONING;
    section(s, LLM_SEC_MESSAGES, thought, sizeof(thought) - 1);
    push(&f->c, s);
    r = expect_ready(f, &m);
    assert_int_equal(r->apart, 1);
    assert_int_equal(r->reason.lead, 1);
    give_back(f, &m);

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        s = submit(&f->c, 0, 2, LLM_KIND_CHAT);
        section(s, LLM_SEC_MESSAGES, bad[i], (uint32_t) strlen(bad[i]));
        push(&f->c, s);
        assert_int_equal(next(f, &m, DEADLINE), REQ_MSG_FAIL);
        assert_int_equal(llm_err(m.err)->http, 400);
        assert_true(m.text[0] != '\0');
        assert_int_equal(strncmp(m.param, "messages", 8), 0);
        give_back(f, &m);
    }

    /* a prompt where messages belong, and the other way round */
    s = submit(&f->c, 0, 3, LLM_KIND_CHAT);
    section(s, LLM_SEC_PROMPT, "x", 1);
    push(&f->c, s);
    expect_fail(f, LLM_ERR_BAD_FIELD, "messages");
    s = submit(&f->c, 0, 3, LLM_KIND_TEXT);
    section(s, LLM_SEC_MESSAGES, good, sizeof(good) - 1);
    push(&f->c, s);
    expect_fail(f, LLM_ERR_BAD_FIELD, "prompt");
    push(&f->c, submit(&f->c, 0, 4, LLM_KIND_TEXT));
    expect_fail(f, LLM_ERR_BAD_FIELD, "prompt");
}


#define HEAD(field) offsetof(llm_wire_submit_t, field)

/* One wrong value at a time, each named. */
static void
test_values(void **state)
{
    fix_t *f = *state;
    static const struct {
        size_t at;
        float v;
        const char *param;
    } floats[] = {
        {HEAD(temperature), -0.1f, "temperature"},
        {HEAD(temperature), 2.1f, "temperature"},
        {HEAD(temperature), NAN, "temperature"},
        {HEAD(temperature), INFINITY, "temperature"},
        {HEAD(top_p), 1.5f, "top_p"},
        {HEAD(top_p), -1, "top_p"},
        {HEAD(min_p), NAN, "min_p"},
        {HEAD(repetition_penalty), 0, "repetition_penalty"},
        {HEAD(repetition_penalty), 11, "repetition_penalty"},
        {HEAD(presence_penalty), -2.5f, "presence_penalty"},
        {HEAD(frequency_penalty), 2.5f, "frequency_penalty"},
    };
    static const struct {
        size_t at;
        uint32_t v, err;
        const char *param;
    } ints[] = {
        {HEAD(n), 0, LLM_ERR_BAD_FIELD, "n"},
        {HEAD(n), LLM_CHOICES_MAX + 1, LLM_ERR_BAD_FIELD, "n"},
        {HEAD(n), UINT32_MAX, LLM_ERR_BAD_FIELD, "n"},
        {HEAD(top_logprobs), 21, LLM_ERR_BAD_FIELD, "top_logprobs"},
        {HEAD(credit), 0, LLM_ERR_BAD_FIELD, "credit"},
        {HEAD(weight), 0, LLM_ERR_BAD_FIELD, "weight"},
        {HEAD(kind), LLM_KINDS, LLM_ERR_UNSUPPORTED, ""},
        {HEAD(flags), LLM_F_ALL + 1, LLM_ERR_UNSUPPORTED, ""},
    };
    static const llm_wire_bias_t odd[3] = {{100000, 1}, {1, 101}, {1, NAN}};
    rec_t *s;
    size_t i;

    for (i = 0; i < sizeof(floats) / sizeof(floats[0]); i++) {
        s = text(&f->c, 1, 1, "x");
        memcpy(s->u.bytes + floats[i].at, &floats[i].v, 4);
        push(&f->c, s);
        expect_fail(f, LLM_ERR_BAD_FIELD, floats[i].param);
    }
    for (i = 0; i < sizeof(ints) / sizeof(ints[0]); i++) {
        s = text(&f->c, 1, 1, "x");
        memcpy(s->u.bytes + ints[i].at, &ints[i].v, 4);
        push(&f->c, s);
        expect_fail(f, ints[i].err, ints[i].param);
    }
    for (i = 0; i < 3; i++) {
        s = text(&f->c, 1, 1, "x");
        section(s, LLM_SEC_BIAS, &odd[i], sizeof(odd[i]));
        push(&f->c, s);
        expect_fail(f, LLM_ERR_BAD_FIELD, "logit_bias");
    }
    for (i = 0; i < 3; i++) {
        static const uint32_t lens[3] = {0, LLM_STOP_LEN_MAX + 1, 1};
        static const char stop[LLM_STOP_LEN_MAX + 1];
        uint32_t k;

        s = text(&f->c, 1, 1, "x");
        for (k = 0; k <= LLM_STOPS_MAX; k++) {
            section(s, LLM_SEC_STOP, stop, lens[i]);
        }
        push(&f->c, s);
        expect_fail(f, LLM_ERR_BAD_FIELD, "stop");
    }

    s = submit(&f->c, 1, 1, LLM_KIND_TEXT);
    for (i = 0; i <= LLM_CHOICES_MAX; i++) {
        section(s, LLM_SEC_PROMPT, "x", 1);
    }
    push(&f->c, s);
    expect_fail(f, LLM_ERR_BAD_FIELD, "prompt");

    s = text(&f->c, 1, 1, "x");
    section(s, LLM_SEC_MODEL, "mm", 2);
    push(&f->c, s);
    expect_fail(f, LLM_ERR_NO_MODEL, "model");
}


static void
test_context(void **state)
{
    fix_t *f = *state;
    char prompt[5000];
    uint32_t bos = token_bos(f->tok) != TOKEN_NONE ? 1 : 0;
    req_msg_fail_t m;
    const req_t *r;
    char want[16];

    memset(prompt, 'x', sizeof(prompt));

    /* the longest that leaves room for one token */
    prompt[CONTEXT - 1 - bos] = '\0';
    push(&f->c, text(&f->c, 0, 1, prompt));
    r = expect_ready(f, &m);
    assert_int_equal(r->prompts[0].len, CONTEXT - 1);
    assert_int_equal(r->max_tokens, 1);
    give_back(f, &m);

    prompt[CONTEXT - 1 - bos] = 'x';
    prompt[CONTEXT - bos] = '\0';
    push(&f->c, text(&f->c, 0, 2, prompt));
    assert_int_equal(next(f, &m, DEADLINE), REQ_MSG_FAIL);
    assert_int_equal(m.err, LLM_ERR_CONTEXT_FULL);
    snprintf(want, sizeof(want), "%d tokens", CONTEXT);
    assert_non_null(strstr(m.text, want));
    snprintf(want, sizeof(want), "has %d.", CONTEXT);
    assert_non_null(strstr(m.text, want));
    give_back(f, &m);

    prompt[CONTEXT - bos] = 'x';
    prompt[4999] = '\0';
    push(&f->c, text(&f->c, 0, 3, prompt));
    expect_fail(f, LLM_ERR_CONTEXT_FULL, "prompt");
}


/* A pool smaller than the context is the limit then. */
static void
test_pool(void **state)
{
    fix_t *f = *state;
    req_msg_fail_t m;
    const req_t *r;

    client_close(&f->c);
    rig_close(f);
    rig_open(f, 20, SLOTS);
    attach(f, &f->c);

    push(&f->c, text(&f->c, 0, 1, "0123456789"));
    r = expect_ready(f, &m);
    assert_int_equal(r->max_tokens, 20 - r->prompts[0].len);
    give_back(f, &m);

    push(&f->c, text(&f->c, 0, 2, "01234567890123456789"));
    expect_fail(f, LLM_ERR_CONTEXT_FULL, "prompt");
}


static void
test_hold(void **state)
{
    fix_t *f = *state;
    req_msg_fail_t m;
    const req_t *r;
    uint32_t max;
    rec_t *s;

    s = text(&f->c, 2, 5, "hold me");
    s->u.head.flags = LLM_F_HOLD;
    push(&f->c, s);
    assert_int_equal(next(f, &m, DEADLINE), REQ_MSG_COUNTED);
    r = &f->in->reqs[m.req];
    assert_int_equal(r->state, REQ_HELD);
    max = r->max_tokens;
    assert_true(max > 5);

    /* not for it: another slot, another generation */
    push_admit(&f->c, 1, 5, 3);
    push_admit(&f->c, 2, 4, 3);
    assert_int_equal(next(f, &m, 5), 0);
    assert_int_equal(r->state, REQ_HELD);

    /* more than was counted is not given */
    push_admit(&f->c, 2, 5, max + 100);
    r = expect_ready(f, &m);
    assert_int_equal(r->max_tokens, max);
    push_admit(&f->c, 2, 5, 1);
    assert_int_equal(next(f, &m, 5), 0);
    assert_int_equal(r->max_tokens, max);
    m.req = (uint32_t) (r - f->in->reqs);
    m.gen = r->gen;
    give_back(f, &m);

    s = text(&f->c, 2, 6, "hold me");
    s->u.head.flags = LLM_F_HOLD;
    push(&f->c, s);
    assert_int_equal(next(f, &m, DEADLINE), REQ_MSG_COUNTED);
    push_admit(&f->c, 2, 6, 3);
    r = expect_ready(f, &m);
    assert_int_equal(r->max_tokens, 3);
    give_back(f, &m);

    /* cancelled while held, and forgotten by its worker */
    s = text(&f->c, 2, 7, "hold me");
    s->u.head.flags = LLM_F_HOLD;
    push(&f->c, s);
    assert_int_equal(next(f, &m, DEADLINE), REQ_MSG_COUNTED);
    __atomic_store_n(&f->c.lines[2].cancel, 7, __ATOMIC_RELEASE);
    expect_fail(f, LLM_ERR_CANCELLED, "");

    s = text(&f->c, 2, 8, "hold me");
    s->u.head.flags = LLM_F_HOLD;
    push(&f->c, s);
    assert_int_equal(next(f, &m, DEADLINE), REQ_MSG_COUNTED);
    f->now_us += 61000000;
    expect_fail(f, LLM_ERR_TIMEOUT, "");
}


static void
test_cancel_and_death(void **state)
{
    fix_t *f = *state;
    req_msg_fail_t m, k;
    rec_t *s;

    __atomic_store_n(&f->c.lines[0].cancel, 3, __ATOMIC_RELEASE);
    push(&f->c, text(&f->c, 0, 3, "too late"));
    expect_fail(f, LLM_ERR_CANCELLED, "");

    /* one held, one at the loop; the worker dies */
    s = text(&f->c, 1, 1, "held");
    s->u.head.flags = LLM_F_HOLD;
    push(&f->c, s);
    assert_int_equal(next(f, &m, DEADLINE), REQ_MSG_COUNTED);
    push(&f->c, text(&f->c, 2, 1, "ready"));
    (void) expect_ready(f, &m);
    client_close(&f->c);

    assert_int_equal(next(f, &k, DEADLINE), REQ_MSG_FAIL);
    assert_int_equal(k.err, LLM_ERR_CANCELLED);
    assert_true(req_cancelled(&f->in->reqs[m.req]));
    assert_int_equal(f->in->reqs[m.req].line->cancel, 0); /* still mapped */
    give_back(f, &k);
    assert_int_equal(f->in->state->attachments, 1);
    give_back(f, &m);
    assert_int_equal(f->in->state->attachments, 0);
    assert_int_equal(f->in->state->requests_held, 0);
}


static void
test_slot_again(void **state)
{
    fix_t *f = *state;
    req_msg_fail_t m, k;

    push(&f->c, text(&f->c, 4, 1, "one"));
    (void) expect_ready(f, &m);

    /* the worker has its DONE already; our FREE is still on the way */
    push(&f->c, text(&f->c, 4, 2, "two"));
    push(&f->c, text(&f->c, 5, 1, "behind it"));
    assert_int_equal(next(f, &k, 10), 0);
    assert_int_equal(f->in->state->requests_held, 1);

    give_back(f, &m);
    (void) expect_ready(f, &m);
    (void) expect_ready(f, &k);
    assert_int_equal(f->in->state->requests_held, 2);
    give_back(f, &m);
    give_back(f, &k);
}


/* A full table refuses, each once, and never more than it can hold. */
static void
test_busy(void **state)
{
    fix_t *f = *state;
    enum { MORE = REQS + TEXT_IN_SPARE + 10 };
    static req_msg_fail_t got[MORE];
    uint32_t i, n = 0, ready = 0, busy = 0;
    req_msg_fail_t m;

    client_close(&f->c);
    rig_close(f);
    rig_open(f, CONTEXT, 128);
    attach(f, &f->c);

    for (i = 0; i < MORE; i++) {
        push(&f->c, text(&f->c, i, 1, "x"));
    }

    while (next(f, &m, 50) != 0) {
        if (m.hdr.type == REQ_MSG_READY) {
            ready++;
        } else {
            assert_int_equal(m.err, LLM_ERR_BUSY);
            busy++;
        }
        got[n++] = m;
    }
    assert_int_equal(ready, REQS);
    assert_int_equal(busy, TEXT_IN_SPARE);
    assert_int_equal(f->in->state->requests_held, REQS + TEXT_IN_SPARE);
    assert_int_equal(f->in->state->requests_max, REQS);

    for (i = 0; i < n; i++) {
        give_back(f, &got[i]);
    }
    while (next(f, &m, 50) != 0) {
        give_back(f, &m);
        n++;
    }
    assert_int_equal(n, MORE);
    assert_int_equal(f->in->state->requests_held, 0);
    assert_int_equal(f->in->state->requests_total, MORE);
}


/* One worker cannot have the whole table while there is another. */
static void
test_share(void **state)
{
    fix_t *f = *state;
    enum { MORE = 200 };
    static req_msg_fail_t got[MORE];
    uint32_t i, n = 0, ready = 0, busy = 0, rest;
    req_msg_fail_t m;
    client_t d;

    client_close(&f->c);
    rig_close(f);
    f->requests = 100;
    rig_open(f, CONTEXT, 128);
    attach(f, &f->c);
    attach(f, &d);

    for (i = 0; i < 128; i++) {
        push(&f->c, text(&f->c, i, 1, "x"));
    }
    while (next(f, &m, 50) != 0) {
        got[n++] = m;
        if (m.hdr.type == REQ_MSG_READY) {
            ready++;
        } else {
            assert_int_equal(m.err, LLM_ERR_BUSY);
            busy++;
        }
    }
    assert_in_range(ready, 80, 95);

    /* nor all the places of those that are refused: its ring waits */
    assert_int_equal(busy, TEXT_IN_SPARE / 4);

    /* what is left is the other's */
    rest = 100 - ready;
    push(&d, text(&d, 0, 1, "x"));
    got[n++] = (expect_ready(f, &m), m);
    for (i = 1; i < rest / 2; i++) {
        push(&d, text(&d, i, 1, "x"));
        got[n++] = (expect_ready(f, &m), m);
    }

    /* alone, it may have it all */
    while (n > 0) {
        give_back(f, &got[--n]);
    }
    while (next(f, &m, 50) != 0) {
        give_back(f, &m);
    }
    client_close(&d);
    turn(f);
    turn(f);
    for (i = 0; i < 100; i++) {
        push(&f->c, text(&f->c, i, 2, "x"));
        got[n++] = (expect_ready(f, &m), m);
    }
    while (n > 0) {
        give_back(f, &got[--n]);
    }
    assert_int_equal(f->in->state->requests_held, 0);
}


/* A place used 2^32 times begins again at 1: 0 is nobody's generation. */
static void
test_gen_wraps(void **state)
{
    fix_t *f = *state;
    req_msg_fail_t m;
    uint32_t i;

    for (i = 0; i < f->in->reqs_n; i++) {
        f->in->reqs[i].gen = UINT32_MAX;
    }
    push(&f->c, text(&f->c, 0, 1, "x"));
    assert_int_equal(expect_ready(f, &m)->gen, 1);
    give_back(f, &m);
}


static void
test_draining(void **state)
{
    fix_t *f = *state;
    req_msg_fail_t m;
    rec_t *s;

    s = text(&f->c, 0, 1, "held");
    s->u.head.flags = LLM_F_HOLD;
    push(&f->c, s);
    assert_int_equal(next(f, &m, DEADLINE), REQ_MSG_COUNTED);

    __atomic_store_n(&f->in->draining, 1, __ATOMIC_RELEASE);
    turn(f);
    assert_int_equal(access(f->path, F_OK), -1);
    assert_int_equal(f->in->state->draining, 1);
    assert_true(client_rings(&f->c) >= 1);

    push(&f->c, text(&f->c, 1, 1, "late"));
    assert_int_equal(next(f, &m, DEADLINE), REQ_MSG_FAIL);
    assert_int_equal(m.err, LLM_ERR_DRAINING);
    give_back(f, &m);

    /* what was there may go on, until the deadline */
    assert_int_equal(next(f, &m, 5), 0);
    text_in_kill(f->ti);
    expect_fail(f, LLM_ERR_DRAINING, "");
}


/* What no sound worker writes: it is let go, and nothing else happens. */
static void
test_lies(void **state)
{
    fix_t *f = *state;
    uint32_t i;
    rec_t *s;
    llm_wire_sec_t *sec;
    req_msg_fail_t m;

    for (i = 0; i < 9; i++) {
        s = text(&f->c, 0, 1, "0123456789abcdef");
        sec = (llm_wire_sec_t *) (void *) (s->u.bytes + sizeof(s->u.head));

        switch (i) {
        case 0:
            s->u.head.head_len = 0xfffffff8u;
            break;
        case 1:
            s->u.head.head_len = 4;
            break;
        case 2:
            sec->len = UINT32_MAX;
            break;
        case 3:
            sec->len = s->len;
            break;
        case 4:
            s->u.head.id.epoch ^= 5;
            break;
        case 5:
            s->u.head.id.slot = SLOTS;
            break;
        case 6:
            s->u.head.id.gen = 0;
            break;
        case 7:
            s->len = s->u.head.hdr.len = 16;
            break;
        case 8:
            s->len = s->u.head.hdr.len = 12;
            s->u.head.hdr.type = LLM_REC_ADMIT;
            break;
        }

        push(&f->c, s);
        assert_int_equal(next(f, &m, 5), 0);
        assert_int_equal(client_rings(&f->c), -1);
        assert_int_equal(f->in->state->attachments, 0);
        client_close(&f->c);
        attach(f, &f->c);
    }

    /* a record type of the future is no lie */
    s = text(&f->c, 0, 1, "x");
    s->u.head.hdr.type = 77;
    push(&f->c, s);
    assert_int_equal(next(f, &m, 5), 0);
    assert_int_equal(f->in->state->attachments, 1);
}


/* Ends what came out, whatever it is; a held request as its client would. */
static void
end_any(fix_t *f, const req_msg_fail_t *m)
{
    const req_t *r = &f->in->reqs[m->req];

    if (m->hdr.type == REQ_MSG_COUNTED) {
        __atomic_store_n(
            &f->c.lines[r->wire.slot].cancel, r->wire.gen, __ATOMIC_RELEASE);
    } else {
        give_back(f, m);
    }
}


/* Random records over a sound one: an answer, a detach, never a crash. */
static void
test_noise(void **state)
{
    fix_t *f = *state;
    uint32_t x = 12345, i, k;
    req_msg_fail_t m;
    rec_t *s;

    for (i = 0; i < 1500; i++) {
        s = text(&f->c, i % SLOTS, 1, "0123456789abcdef");
        section(s, LLM_SEC_STOP, "stop", 4);
        for (k = 0; k < 1 + i % 3; k++) {
            x = x * 1664525 + 1013904223;
            s->u.bytes[8 + (x >> 8) % (s->len - 8)] = (uint8_t) (x >> 24);
        }
        push(&f->c, s);

        while (next(f, &m, 3) != 0) {
            end_any(f, &m);
        }
        if (client_rings(&f->c) == -1) {
            client_close(&f->c);
            attach(f, &f->c);
        }
    }

    while (next(f, &m, 50) != 0) {
        end_any(f, &m);
    }
    assert_int_equal(f->in->state->requests_held, 0);
}


/* The thread itself: asleep, rung, stopped. */
static void
test_thread(void **state)
{
    fix_t *f = *state;
    pthread_t id;
    req_msg_fail_t m;
    uint32_t i, k;

    assert_int_equal(pthread_create(&id, NULL, text_in_run, f->ti), 0);

    for (i = 0; i < 200; i++) {
        push(&f->c, text(&f->c, 0, i + 1, "wake up"));
        for (k = 0; k < 5000; k++) {
            bell_arm(&f->in->loop_bell);
            if (llm_ring_peek(&f->in->in_loop.out, &m, sizeof(m)) > 0) {
                bell_stay(&f->in->loop_bell);
                break;
            }
            bell_wait(&f->in->loop_bell, 1000);
        }
        assert_int_equal(m.hdr.type, REQ_MSG_READY);
        llm_ring_advance(&f->in->in_loop.out);
        req_set_state(&f->in->reqs[m.req], REQ_ENDING);
        m.hdr.type = REQ_MSG_FREE;
        m.hdr.len = sizeof(req_msg_t);
        memcpy(llm_ring_reserve(&f->in->out_in.in, sizeof(req_msg_t), 0), &m,
            sizeof(req_msg_t));
        llm_ring_commit(&f->in->out_in.in);
        bell_ring(&f->in->in_bell);
    }

    __atomic_store_n(&f->in->stop, 1, __ATOMIC_RELEASE);
    bell_ring(&f->in->in_bell);
    assert_int_equal(pthread_join(id, NULL), 0);
    assert_true(f->in->state->heartbeat[LLM_THREAD_IN] > 100);
    assert_int_equal(f->in->state->requests_total, 200);
}


/* What an output is to obey: of the cache, compiled, refused. */
static void
test_grammar(void **state)
{
    fix_t *f = *state;
    const llm_wire_grammar_t head = {LLM_GRAMMAR_REGEX, 0, "regex"};
    static const struct {
        const char *text;
        int good;
    } rows[] = {{"ab*", 1}, {"ab*", 1}, {"(", 0}, {"(", 0}};
    uint8_t body[sizeof(head) + 8];
    req_msg_fail_t m;
    rec_t *s;
    uint32_t i, n;

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        n = (uint32_t) strlen(rows[i].text);
        memcpy(body, &head, sizeof(head));
        memcpy(body + sizeof(head), rows[i].text, n);
        s = text(&f->c, 0, i + 1, "hi");
        s->u.head.flags = LLM_F_GRAMMAR | LLM_F_IGNORE_EOS;
        section(s, LLM_SEC_GRAMMAR, body, (uint32_t) sizeof(head) + n);
        push(&f->c, s);
        if (rows[i].good) {
            assert_non_null(expect_ready(f, &m)->grammar);
            assert_false(f->in->reqs[m.req].flags & LLM_F_IGNORE_EOS);
            give_back(f, &m);
        } else {
            expect_fail(f, LLM_ERR_BAD_FIELD, "regex");
        }
    }
    assert_int_equal(f->in->state->grammars_compiled, 1);
    assert_int_equal(f->in->state->grammars_reused, 1);
    assert_int_equal(f->in->state->grammars_refused, 1);

    /* without the section, or one that is cut short */
    for (i = 0; i < 2; i++) {
        s = text(&f->c, 0, 10 + i, "hi");
        s->u.head.flags = LLM_F_GRAMMAR;
        if (i == 1) {
            section(s, LLM_SEC_GRAMMAR, &head, sizeof(head) - 1);
        }
        push(&f->c, s);
        expect_fail(f, LLM_ERR_UNSUPPORTED, "");
    }
}


int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_grammar),
        T(test_text),
        T(test_space),
        T(test_ids_and_many),
        T(test_chat),
        T(test_values),
        T(test_context),
        T(test_pool),
        T(test_hold),
        T(test_cancel_and_death),
        T(test_slot_again),
        T(test_busy),
        T(test_share),
        T(test_gen_wraps),
        T(test_draining),
        T(test_lies),
        T(test_noise),
        T(test_thread),
    };

    return cmocka_run_group_tests_name("text_in", tests, NULL, NULL);
}
