/*
 * The forms that conversations take without a template of the model's own.
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
 * Memory: jansson's strings and one buffer for the length of a call.  Runs on
 * text_in's threads.
 */
#include "template_impl.h"
#include "llm_err.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>


/* Both markers, or it is something else. */
int
template_is_chatml(const token_t *tok)
{
    assert(tok != NULL);
    return token_find(tok, "<|im_start|>", 12) != TOKEN_NONE
           && token_find(tok, "<|im_end|>", 10) != TOKEN_NONE;
}


/* Adds the ids of plain text. */
static int
fixed_text(template_call_t *p, const char *s, size_t len, unsigned flags)
{
    int64_t n;

    assert(p->n <= p->cap);

    n = token_encode(p->tok, s, len, flags, p->out + p->n, p->cap - p->n,
        p->cancelled, p->arg);
    if (n < 0) {
        return (int) n;
    }
    p->n += (size_t) n;

    return 0;
}


/* By its id, not by its name in a text. */
static int
fixed_marker(template_call_t *p, const char *name)
{
    uint32_t id = token_find(p->tok, name, strlen(name));

    assert(id != TOKEN_NONE);

    if (p->n == p->cap) {
        return -LLM_ERR_CONTEXT_FULL;
    }
    p->out[p->n++] = id;

    return 0;
}


/* "role\ncontent" as one text. */
static int
fixed_message(template_call_t *p, const json_t *msg)
{
    const json_t *role = json_object_get(msg, "role");
    const json_t *content = json_object_get(msg, "content");
    size_t a = json_string_length(role), b = json_string_length(content);
    char *text = malloc(a + 1 + b);
    int rc;

    if (text == NULL) {
        return -LLM_ERR_NO_MEMORY;
    }

    memcpy(text, json_string_value(role), a);
    text[a] = '\n';
    memcpy(text + a + 1, json_string_value(content), b);
    rc = fixed_text(p, text, a + 1 + b, 0);
    free(text);

    return rc;
}


/* Each message is one text between two markers. */
int
template_chatml(
    template_call_t *p, const json_t *messages, int prompt, int go_on)
{
    size_t i, n = json_array_size(messages);
    int rc = fixed_text(p, "", 0, TOKEN_F_BOS);

    assert(json_is_array(messages) && !(prompt && go_on));

    for (i = 0; i < n && rc == 0; i++) {
        if ((rc = fixed_marker(p, "<|im_start|>")) == 0
            && (rc = fixed_message(p, json_array_get(messages, i))) == 0
            && !(go_on && i == n - 1)
            && (rc = fixed_marker(p, "<|im_end|>")) == 0) {
            rc = fixed_text(p, "\n", 1, 0);
        }
    }

    if (rc != 0 || !prompt || (rc = fixed_marker(p, "<|im_start|>")) != 0) {
        return rc;
    }

    return fixed_text(p, "assistant\n", 10, 0);
}


/* As a base model reads a page. */
int
template_plain(template_call_t *p, const json_t *messages)
{
    const json_t *content;
    size_t i, len = 0, at = 0;
    char *text;
    int rc;

    assert(json_is_array(messages));

    for (i = 0; i < json_array_size(messages); i++) {
        content = json_object_get(json_array_get(messages, i), "content");
        len += json_string_length(content) + 1;
    }

    text = malloc(len + 1);
    if (text == NULL) {
        return -LLM_ERR_NO_MEMORY;
    }

    /* a message without text leaves no empty line */
    for (i = 0; i < json_array_size(messages); i++) {
        content = json_object_get(json_array_get(messages, i), "content");
        if (json_string_length(content) == 0) {
            continue;
        }
        if (at > 0) {
            text[at++] = '\n';
        }
        memcpy(
            text + at, json_string_value(content), json_string_length(content));
        at += json_string_length(content);
    }
    assert(at <= len);

    rc = fixed_text(p, text, at, TOKEN_F_BOS);
    free(text);

    return rc;
}
