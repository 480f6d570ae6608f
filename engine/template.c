/*
 * A conversation as token ids, in one of two fixed forms.
 *
 * DESIGN.  A vocabulary that has <|im_start|> and <|im_end|> gets ChatML; any
 * other gets the contents one below the other, as a base model reads text.
 *
 *      <|im_start|> system \n You are terse. <|im_end|> \n
 *      <|im_start|> user \n Hi <|im_end|> \n
 *      <|im_start|> assistant \n
 *
 * The two markers are written as ids, by this file only; role and content are
 * encoded as plain text, in which no control piece can arise.  So there is
 * nothing to escape, whatever a user writes.
 *
 * The messages are a client's: every type is checked, counts are capped, and
 * what is wrong is answered with the field's path.
 *
 * Memory: jansson's tree and one buffer of text for the length of the call;
 * both are in proportion to the input.  Runs on text_in's threads.
 */
#include "template.h"
#include "llm_err.h"

#include <assert.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGES_MAX 4096
#define PARTS_MAX    4096

/* Roles as clients name them, and as ChatML calls them. */
static const struct {
    const char *api, *chatml;
} roles[] = {{"system", "system"}, {"developer", "system"}, {"user", "user"},
    {"assistant", "assistant"}, {"tool", "tool"}};

typedef struct {
    const token_t *t;
    uint32_t *out;
    size_t n, cap;
    int (*cancelled)(void *);
    void *arg;
    char *text; /* what is to be encoded next, owned */
    size_t text_n, text_cap;
    char *err;
    size_t errlen;
    char *param;
    size_t paramlen;
} tpl_t;


/* Notes the refusal of a field (path in printf's form) and gives its code. */
__attribute__((format(printf, 4, 5))) static int
tpl_refuse(tpl_t *p, int code, const char *why, const char *path, ...)
{
    va_list ap;

    va_start(ap, path);
    (void) vsnprintf(p->param, p->paramlen, path, ap);
    va_end(ap);
    (void) snprintf(p->err, p->errlen, "%s", why);

    return -code;
}


/* --- output ------------------------------------------------------------- */

static int
tpl_text(tpl_t *p, const char *s, size_t len)
{
    size_t cap = p->text_cap == 0 ? 1024 : p->text_cap;
    char *text;

    while (cap - p->text_n < len) {
        cap *= 2;
    }

    if (cap != p->text_cap) {
        text = realloc(p->text, cap);
        if (text == NULL) {
            return -LLM_ERR_NO_MEMORY;
        }
        p->text = text;
        p->text_cap = cap;
    }

    if (len > 0) {
        memcpy(p->text + p->text_n, s, len);
    }
    p->text_n += len;
    assert(p->text_n <= p->text_cap);

    return 0;
}


/* Encodes the text gathered so far, and begins anew. */
static int
tpl_flush(tpl_t *p, unsigned flags)
{
    int64_t n;

    assert(p->n <= p->cap);

    n = token_encode(p->t, p->text_n > 0 ? p->text : "", p->text_n, flags,
        p->out + p->n, p->cap - p->n, p->cancelled, p->arg);
    p->text_n = 0;

    if (n < 0) {
        return (int) n;
    }
    p->n += (size_t) n;

    return 0;
}


static int
tpl_id(tpl_t *p, uint32_t id)
{
    if (p->n == p->cap) {
        return -LLM_ERR_CONTEXT_FULL;
    }
    p->out[p->n++] = id;

    return 0;
}


/* --- messages ----------------------------------------------------------- */

/* The role's number, or a negative code. */
static int
tpl_role(tpl_t *p, const json_t *msg, size_t i)
{
    const json_t *v = json_object_get(msg, "role");
    size_t k;

    if (!json_is_string(v)) {
        return tpl_refuse(p, LLM_ERR_BAD_FIELD, "A role must be a string.",
            "messages[%zu].role", i);
    }

    for (k = 0; k < sizeof(roles) / sizeof(roles[0]); k++) {
        if (strcmp(json_string_value(v), roles[k].api) == 0
            && json_string_length(v) == strlen(roles[k].api)) {
            return (int) k;
        }
    }

    return tpl_refuse(p, LLM_ERR_BAD_FIELD,
        "A role must be system, developer, user, assistant or tool.",
        "messages[%zu].role", i);
}


/* Adds a content that is an array of parts to the text. */
static int
tpl_parts(tpl_t *p, const json_t *parts, size_t i)
{
    const json_t *part, *type, *text;
    size_t k, n = json_array_size(parts);
    int rc = 0;

    if (n == 0 || n > PARTS_MAX) {
        return tpl_refuse(p, LLM_ERR_BAD_FIELD,
            "A content must have 1 to 4096 parts.", "messages[%zu].content", i);
    }

    for (k = 0; k < n && rc == 0; k++) {
        part = json_array_get(parts, k);
        type = json_object_get(part, "type");
        text = json_object_get(part, "text");

        if (!json_is_string(type)
            || strcmp(json_string_value(type), "text") != 0) {
            return tpl_refuse(p, LLM_ERR_BAD_FIELD,
                "Only content parts of type text are supported.",
                "messages[%zu].content[%zu].type", i, k);
        }
        if (!json_is_string(text)) {
            return tpl_refuse(p, LLM_ERR_BAD_FIELD,
                "The text of a content part must be a string.",
                "messages[%zu].content[%zu].text", i, k);
        }

        if (k > 0) {
            rc = tpl_text(p, "\n", 1);
        }
        if (rc == 0) {
            rc = tpl_text(p, json_string_value(text), json_string_length(text));
        }
    }

    return rc;
}


static int
tpl_content(tpl_t *p, const json_t *msg, int role, size_t i)
{
    const json_t *v = json_object_get(msg, "content");

    if (json_is_string(v)) {
        return tpl_text(p, json_string_value(v), json_string_length(v));
    }

    if (json_is_array(v)) {
        return tpl_parts(p, v, i);
    }

    /* an assistant that only called tools has said nothing */
    if ((v == NULL || json_is_null(v))
        && strcmp(roles[role].api, "assistant") == 0) {
        return 0;
    }

    return tpl_refuse(p, LLM_ERR_BAD_FIELD,
        "A content must be a string or an array of parts.",
        "messages[%zu].content", i);
}


/* "<|im_start|>role\ncontent<|im_end|>\n"; without message the prompt. */
static int
tpl_chatml(tpl_t *p, const json_t *msgs, uint32_t start, uint32_t end)
{
    size_t i;
    const json_t *msg;
    int role, rc;

    rc = tpl_flush(p, TOKEN_F_BOS);

    for (i = 0; i < json_array_size(msgs) && rc == 0; i++) {
        msg = json_array_get(msgs, i);
        role = tpl_role(p, msg, i);
        if (role < 0) {
            return role;
        }

        if ((rc = tpl_id(p, start)) != 0
            || (rc = tpl_text(
                    p, roles[role].chatml, strlen(roles[role].chatml)))
                   != 0
            || (rc = tpl_text(p, "\n", 1)) != 0
            || (rc = tpl_content(p, msg, role, i)) != 0
            || (rc = tpl_flush(p, 0)) != 0 || (rc = tpl_id(p, end)) != 0
            || (rc = tpl_text(p, "\n", 1)) != 0) {
            break;
        }
        rc = tpl_flush(p, 0);
    }

    if (rc != 0 || (rc = tpl_id(p, start)) != 0
        || (rc = tpl_text(p, "assistant\n", 10)) != 0) {
        return rc;
    }

    return tpl_flush(p, 0);
}


/* The contents, one below the other. */
static int
tpl_plain(tpl_t *p, const json_t *msgs)
{
    size_t i, before;
    const json_t *msg;
    int role, rc = 0;

    for (i = 0; i < json_array_size(msgs) && rc == 0; i++) {
        msg = json_array_get(msgs, i);
        role = tpl_role(p, msg, i);
        if (role < 0) {
            return role;
        }

        /* a message without text leaves no empty line */
        before = p->text_n;
        if (before > 0) {
            rc = tpl_text(p, "\n", 1);
        }
        if (rc == 0) {
            rc = tpl_content(p, msg, role, i);
        }
        if (p->text_n == before + (before > 0)) {
            p->text_n = before;
        }
    }

    return rc != 0 ? rc : tpl_flush(p, TOKEN_F_BOS);
}


static int
tpl_run(tpl_t *p, const json_t *msgs)
{
    uint32_t start, end;
    size_t i, n;

    n = json_array_size(msgs);
    if (!json_is_array(msgs) || n == 0 || n > MESSAGES_MAX) {
        return tpl_refuse(p, LLM_ERR_BAD_FIELD,
            "messages must be an array of 1 to 4096 messages.", "messages");
    }

    for (i = 0; i < n; i++) {
        if (!json_is_object(json_array_get(msgs, i))) {
            return tpl_refuse(p, LLM_ERR_BAD_FIELD,
                "A message must be an object.", "messages[%zu]", i);
        }
    }

    start = token_find(p->t, "<|im_start|>", 12);
    end = token_find(p->t, "<|im_end|>", 10);

    return start != TOKEN_NONE && end != TOKEN_NONE
               ? tpl_chatml(p, msgs, start, end)
               : tpl_plain(p, msgs);
}


int64_t
template_encode(const token_t *t, const char *messages, size_t len,
    uint32_t *out, size_t cap, int (*cancelled)(void *), void *arg, char *err,
    size_t errlen, char *param, size_t paramlen)
{
    tpl_t p = {.t = t,
        .out = out,
        .cap = cap,
        .cancelled = cancelled,
        .arg = arg,
        .err = err,
        .errlen = errlen,
        .param = param,
        .paramlen = paramlen};
    json_t *msgs;
    int rc;

    assert(t != NULL && messages != NULL);
    assert(errlen > 0 && paramlen > 0);

    err[0] = param[0] = '\0';

    /* a NUL in a text is as good a character as any */
    msgs = json_loadb(messages, len, JSON_ALLOW_NUL, NULL);
    if (msgs == NULL) {
        return tpl_refuse(
            &p, LLM_ERR_BAD_FIELD, "messages is not valid JSON.", "messages");
    }

    rc = tpl_run(&p, msgs);
    if (rc == 0 && p.n == 0) {
        rc = tpl_refuse(&p, LLM_ERR_BAD_MESSAGES,
            "The conversation has no text.", "messages");
    }

    json_decref(msgs);
    free(p.text);
    assert(p.n <= p.cap);

    return rc != 0 ? rc : (int64_t) p.n;
}
