/*
 * Catches: a body or an event that makes the OpenAI dialect crash, read or
 * write out of bounds, or put out what is not JSON.
 *
 * The input is a body and, behind the first 0 byte, what an engine sends
 * back: events of (choice and finish, text length, logprob length, bytes).
 * The body is parsed for all routes; where it is accepted, its call is
 * answered with the events, else a plain call is.
 */
#include "dialect.h"
#include "must.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define CHUNKS 256

typedef struct {
    void *p[CHUNKS];
    size_t n;
} pool_t;

static void *
pool_alloc(void *arg, size_t size)
{
    pool_t *pool = arg;

    if (pool->n == CHUNKS) {
        return NULL;
    }
    pool->p[pool->n] = malloc(size ? size : 1);

    return pool->p[pool->n++];
}

static void
pool_empty(pool_t *pool)
{
    while (pool->n > 0) {
        free(pool->p[--pool->n]);
    }
}

static void
json_whole(const char *s, size_t len)
{
    json_error_t e;
    json_t *v = json_loadb(
        s, len, JSON_ALLOW_NUL | JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &e);

    /* a token of one 0 byte is a legal key that jansson cannot hold */

    must(v != NULL || json_error_code(&e) == json_error_null_byte_in_key);
    json_decref(v);
}

/* Is what the output is to obey as the wire has it? */
static void
grammar_whole(const llm_call_t *call)
{
    llm_wire_grammar_t head;
    const char *p;
    uint32_t len;
    size_t left;

    if (call->grammar.len == 0) {
        must(!(call->head.flags & LLM_F_GRAMMAR));
        return;
    }
    must(call->head.flags & LLM_F_GRAMMAR);
    must(call->grammar.len >= sizeof(head));
    memcpy(&head, call->grammar.data, sizeof(head));
    p = call->grammar.data + sizeof(head);
    left = call->grammar.len - sizeof(head);
    must(head.type < LLM_GRAMMARS && left <= 1 << 20);
    must((head.flags & ~(uint32_t) LLM_GRAMMAR_FLAGS) == 0);
    must(head.param[0] != '\0' && head.param[sizeof(head.param) - 1] == '\0');
    must(head.type != LLM_GRAMMAR_JSON || left == 0);
    must(head.type != LLM_GRAMMAR_TOOLS
         || (call->tools.len > 0 && call->head.wants & LLM_W_CALLS));
    if (head.type == LLM_GRAMMAR_TAGS) {
        json_whole(p, left);
    }
    while (head.type == LLM_GRAMMAR_CHOICE && left > 0) {
        must(left > sizeof(len));
        memcpy(&len, p, sizeof(len));
        must(len > 0 && len <= left - sizeof(len));
        p += sizeof(len) + len;
        left -= sizeof(len) + len;
    }
}

/* Is the output whole events, or one JSON text? */
static void
output_whole(const llm_answer_t *a)
{
    const char *p = a->out.data, *last, *end;

    if (a->out.len == 0) {
        return; /* and may have no address */
    }
    if (!a->call->stream) {
        json_whole(p, a->out.len);
        return;
    }
    last = p + a->out.len;
    while (p < last) {
        must(last - p > 8 && memcmp(p, "data: ", 6) == 0);
        end = memmem(p, (size_t) (last - p), "\n\n", 2);
        must(end != NULL);
        must(memchr(p, '\n', (size_t) (end - p)) == NULL);
        if (memcmp(p, "data: [DONE]", 12) != 0) {
            json_whole(p + 6, (size_t) (end - p) - 6);
        }
        p = end + 2;
    }
}

/*
 * An event from the input, through the judge that a worker uses.  -1 is the
 * input's end, all else the dialect's.
 */
static int
event_send(llm_answer_t *a, const uint8_t **p, size_t *left)
{
    llm_wire_tokens_t head, t;
    const uint8_t *text, *lp;
    uint32_t text_len, lp_len, pad;
    uint8_t *rec;
    int rc = 0;

    if (*left < 3) {
        return -1;
    }
    text_len = (*p)[1];
    lp_len = (*p)[2];
    if (*left - 3 < text_len + lp_len) {
        return -1;
    }
    memset(&head, 0, sizeof(head));
    head.choice = (*p)[0] & 15;
    head.kind = ((*p)[0] >> 5 & 1) | ((*p)[0] >> 3 & 2);
    head.finish = (*p)[0] >> 6;
    head.text_len = text_len;
    head.lp_len = lp_len;
    pad = (text_len + 3) & ~3u;

    head.reasoning = text_len;
    rec = calloc(1, sizeof(head) + pad + lp_len);
    memcpy(rec, &head, LLM_TOKENS_HEAD);
    memcpy(rec + LLM_TOKENS_HEAD, *p + 3, text_len);
    memcpy(rec + LLM_TOKENS_HEAD + pad, *p + 3 + text_len, lp_len);
    memcpy(rec + LLM_TOKENS_HEAD + pad + lp_len, &head.kind, LLM_TOKENS_TAIL);
    if (llm_tokens_ok(
            rec, (uint32_t) sizeof(head) + pad + lp_len, &t, &text, &lp)) {
        rc = llm_dialect_openai.tokens(a, &t, text, lp);
        must(rc <= 0);
    }
    free(rec);

    *p += 3 + text_len + lp_len;
    *left -= 3 + text_len + lp_len;

    return rc;
}

static void
answer(const llm_call_t *call, pool_t *pool, const uint8_t *p, size_t left)
{
    llm_refusal_t why;
    llm_wire_done_t d;
    llm_answer_t a;
    uint32_t i;
    int rc;

    memset(&a, 0, sizeof(a));
    memset(&d, 0xff, sizeof(d));
    a.call = call;
    a.id.data = "id";
    a.id.len = 2;
    a.model = call->model;
    llm_buf_init(&a.out, 1 << 20, pool_alloc, pool);

    do {
        rc = event_send(&a, &p, &left);
    } while (rc == 0);

    /* one that broke off is not used again, but for the error behind it */

    if (rc == -1) {
        for (i = 0; i < LLM_CHOICES_MAX; i++) {
            if (a.choices[i].finish == 0) {
                llm_wire_tokens_t t = {.choice = i, .finish = 1};

                (void) llm_dialect_openai.tokens(&a, &t, p, p);
            }
        }
        rc = llm_dialect_openai.done(&a, &d);
        must(rc == 0 || rc == -LLM_ERR_NO_MEMORY);
    }
    output_whole(&a);

    if (call->stream && left > 0) {
        memset(&why, p[0], sizeof(why));
        rc = llm_dialect_openai.error(&a.out, &why, 1);
        must(rc == 0 || rc == -LLM_ERR_NO_MEMORY);
        output_whole(&a);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const llm_caps_t caps = {100, 10, 0};
    const uint8_t *events;
    llm_refusal_t why;
    llm_call_t call;
    llm_str_t body, name;
    const char *allow;
    uint32_t route;
    char *copy;
    pool_t pool;
    size_t left;
    int rc;

    pool.n = 0;
    events = size != 0 ? memchr(data, 0, size) : NULL;
    body.len = events != NULL ? (size_t) (events - data) : size;
    left = events != NULL ? size - body.len - 1 : 0;
    events = events != NULL ? events + 1 : data;
    copy = malloc(body.len ? body.len : 1);
    memcpy(copy, data, body.len);
    body.data = copy;

    rc = llm_dialect_openai.route(body, body, &route, &name, &allow);
    must(rc <= 0);

    for (route = LLM_ROUTE_CHAT; route <= LLM_ROUTE_DETOKENIZE; route++) {
        rc = llm_dialect_openai.parse(
            body, route, &caps, pool_alloc, &pool, &call, &why);
        must(rc <= 0);
        if (rc != 0) {
            must(why.err == (uint32_t) -rc);
            if (route > LLM_ROUTE_TEXT) {
                pool_empty(&pool);
                continue; /* its answers have no other form */
            }
            memset(&call, 0, sizeof(call));
            call.route = route;
            call.head.n = 2;
            call.prompts_n = 2;
            call.stream = (int) (left & 1);
            call.include_usage = (int) (left >> 1 & 1);
            call.head.flags = left & 4 ? LLM_F_LOGPROBS : 0;
            call.head.top_logprobs = left & 8;
        } else if (route == LLM_ROUTE_CHAT) {
            must(call.messages.len > 0);
            json_whole(call.messages.data, call.messages.len);
            if (call.tools.len > 0) {
                json_whole(call.tools.data, call.tools.len);
            }
        }
        grammar_whole(&call);
        answer(&call, &pool, events, left);
        pool_empty(&pool);
    }
    free(copy);

    return 0;
}
