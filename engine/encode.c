/*
 * From what a client sent to token ids.
 *
 * DESIGN.  Every prompt is encoded into scratch memory first and copied out
 * at its true length, so a request holds what it needs and no more.  The
 * scratch is larger than any prompt that is let through: so a refusal can say
 * how long the prompt is, and not only that it is too long.
 *
 * Text of a completion is plain text: special tokens in it are not parsed.
 * What is empty becomes the begin token, if the model has one.
 */
#include "encode.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* One call's arguments. */
typedef struct {
    const encode_rules_t *e;
    const submit_t *s;
    uint32_t *work; /* [work_max] */
    int (*cancelled)(void *);
    void *arg;
    submit_fail_t *why;
} encode_t;


static void
encode_too_long(
    const encode_t *c, const char *param, const char *more, uint64_t tokens)
{
    submit_refuse(c->why, LLM_ERR_CONTEXT_FULL, param,
        "The model takes at most %u tokens, prompt and answer together; this "
        "prompt has %s%llu.",
        c->e->limit, more, (unsigned long long) tokens);
}


/* Ids that the client made itself; submit_check saw that they exist. */
static int64_t
encode_ids(const encode_t *c, const submit_input_t *in)
{
    assert(in->len % 4 == 0);

    if (in->len == 0) {
        c->work[0] = token_bos(c->e->tok);
        return c->work[0] == TOKEN_NONE ? 0 : 1;
    }

    if (in->len / 4 > c->e->work_max) {
        return -LLM_ERR_CONTEXT_FULL;
    }
    memcpy(c->work, in->p, in->len);

    return in->len / 4;
}


static template_text_t
encode_text(const submit_input_t *in)
{
    const template_text_t text = {(const char *) in->p, in->len};

    return text;
}


/* A conversation, with all that its template gets. */
static int64_t
encode_chat(const encode_t *c, const submit_input_t *in)
{
    template_input_t chat;
    submit_fail_t *why = c->why;

    memset(&chat, 0, sizeof(chat));
    chat.messages = encode_text(in);
    chat.tools = encode_text(&c->s->tools);
    chat.documents = encode_text(&c->s->documents);
    chat.kwargs = encode_text(&c->s->kwargs);
    chat.no_prompt = (c->s->head.flags & LLM_F_NO_TURN) != 0;
    chat.go_on = (c->s->head.flags & LLM_F_GO_ON) != 0;
    chat.now = time(NULL);

    return template_encode(c->e->tpl, &chat, c->work, c->e->work_max,
        c->cancelled, c->arg, why->text, sizeof(why->text), why->param,
        sizeof(why->param));
}


/* One input to work; the count, or -1 with why. */
static int64_t
encode_input(const encode_t *c, const submit_input_t *in)
{
    const encode_rules_t *e = c->e;
    const char *param = in->type == LLM_SEC_MESSAGES ? "messages" : "prompt";
    const char *text = (const char *) in->p;
    submit_fail_t *why = c->why;
    int64_t n;

    if (in->type == LLM_SEC_MESSAGES) {
        n = encode_chat(c, in);
    } else if (in->type == LLM_SEC_PROMPT) {
        n = token_encode(e->tok, text, in->len,
            c->s->head.flags & LLM_F_NO_BOS ? 0 : TOKEN_F_BOS, c->work,
            e->work_max, c->cancelled, c->arg);
    } else {
        n = encode_ids(c, in);
    }

    if (n < 0 && why->text[0] != '\0') {
        why->err = (uint32_t) -n; /* in the template's own words */
    } else if (n == -LLM_ERR_CONTEXT_FULL) {
        encode_too_long(c, param, "more than ", e->work_max);
    } else if (n < 0) {
        submit_refuse(why, (uint32_t) -n, param, "%s", "");
    } else if (n == 0) {
        submit_refuse(
            why, LLM_ERR_BAD_FIELD, param, "%s must not be empty.", param);
    } else if (n > (int64_t) e->limit - 1) {
        encode_too_long(c, param, "", (uint64_t) n);
    } else {
        return n;
    }

    return -1;
}


/* What tells calls from the text, if the request wants that.  0 or -1. */
static int
encode_tools(const encode_t *c, req_t *r)
{
    const submit_t *s = c->s;

    if (c->e->tools == NULL || s->head.kind != LLM_KIND_CHAT
        || (s->head.wants & LLM_W_CALLS) == 0 || s->tools.len == 0) {
        return 0;
    }

    r->tools = tools_open(c->e->tools, (const char *) s->tools.p, s->tools.len,
        r->choices, (s->head.wants & LLM_W_ONE_CALL) != 0);
    if (r->tools == NULL) {
        submit_refuse(c->why, LLM_ERR_NO_MEMORY, "", "%s", "");
        return -1;
    }

    return 0;
}


uint32_t *
encode_prompts(const encode_rules_t *e, const submit_t *s, uint32_t *work,
    int (*cancelled)(void *), void *arg, req_t *r, submit_fail_t *why)
{
    const encode_t c = {e, s, work, cancelled, arg, why};
    uint32_t *ids = NULL, *more, *at;
    uint32_t i;
    int64_t n;

    assert(r->prompts_n >= 1 && r->prompts_n <= LLM_CHOICES_MAX);
    assert(r->prompts_n == s->inputs_n && e->limit >= 2);

    memset(why, 0, sizeof(*why));
    r->prompt_tokens = 0;

    for (i = 0; i < r->prompts_n; i++) {
        if (cancelled(arg)) {
            submit_refuse(why, LLM_ERR_CANCELLED, "", "%s", "");
            goto failed;
        }

        n = encode_input(&c, &s->inputs[i]);
        if (n < 0) {
            goto failed;
        }

        more = realloc(
            ids, ((size_t) r->prompt_tokens + (size_t) n) * sizeof(*ids));
        if (more == NULL) {
            submit_refuse(why, LLM_ERR_NO_MEMORY, "", "%s", "");
            goto failed;
        }
        ids = more;

        memcpy(ids + r->prompt_tokens, work, (size_t) n * sizeof(*ids));
        r->prompts[i].len = (uint32_t) n;
        r->prompt_tokens += (uint32_t) n;
    }

    if (encode_tools(&c, r) != 0) {
        goto failed;
    }

    /* messages are one prompt */
    r->apart = e->reason != NULL && s->head.kind == LLM_KIND_CHAT
               && (s->head.wants & LLM_W_REASONING) != 0;
    if (r->apart
        || (e->reason != NULL && s->head.kind == LLM_KIND_CHAT
            && (s->head.flags & LLM_F_GRAMMAR) != 0)) {
        reason_begin(e->reason, ids, r->prompts[0].len,
            (s->head.flags & LLM_F_GO_ON) != 0, &r->reason);
    }

    /* only now do the ids stay where they are */
    for (i = 0, at = ids; i < r->prompts_n; i++) {
        r->prompts[i].ids = at;
        at += r->prompts[i].len;
    }

    return ids;

failed:

    assert(why->err != LLM_ERR_NONE);
    free(ids);

    return NULL;
}
