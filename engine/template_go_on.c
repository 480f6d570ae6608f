/*
 * The last message left open, so that the model goes on with its text
 * (continue_final_message).
 *
 * DESIGN.  Where a message's text ends in a rendering nobody can tell from the
 * rendering alone: its words may stand there twice, or not at all as they
 * were sent.  So a mark is put behind the text before the template gets it,
 * and the rendering is cut where the mark came out:
 *
 *      message     Once upon
 *      template gets    Once upon<mark><space>
 *      it makes         <|im_start|>assistant\nOnce upon<mark><space><|im_end|>
 *      cut              <|im_start|>assistant\nOnce upon
 *
 * The mark ends with a space.  If that is gone the template trims its texts:
 * then the white space before the mark, which it would have taken too, goes
 * as well, as far as a client wrote it.  Of several marks the last counts, and
 * only where all of it is the client's, which is all that a mark can be.
 *
 * No state; runs on text_in's threads.
 */
#include "template_impl.h"
#include "llm_err.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Letters only, that no filter changes, and the space. */
#define MARK      "NGXLLMGOESONHERE "
#define MARK_LEN  (sizeof(MARK) - 1)
#define MARK_BARE (MARK_LEN - 1)


/* Its last part, if it has parts; NULL: it has no text. */
static json_t *
go_on_holder(json_t *msg, const char **key)
{
    json_t *v = json_object_get(msg, "content");

    *key = "content";
    if (json_is_array(v)) {
        msg = json_array_get(v, json_array_size(v) - 1);
        *key = "text";
        v = json_object_get(msg, "text");
    }

    return json_is_string(v) ? msg : NULL;
}


/* Judged messages: there are some, each with a role. */
int
template_go_on_check(template_call_t *p, json_t *messages)
{
    size_t n = json_array_size(messages);
    json_t *msg = json_array_get(messages, n - 1);
    const char *role = json_string_value(json_object_get(msg, "role")), *key;

    assert(n > 0 && role != NULL);

    if (strcmp(role, "assistant") != 0) {
        return template_refuse(p, LLM_ERR_BAD_FIELD,
            "continue_final_message needs a last message of the assistant's.",
            "messages[%zu].role", n - 1);
    }

    if (go_on_holder(msg, &key) == NULL) {
        return template_refuse(p, LLM_ERR_BAD_FIELD,
            "continue_final_message needs a last message with text.",
            "messages[%zu].content", n - 1);
    }

    return 0;
}


/* What template_go_on_check let pass. */
int
template_go_on_mark(json_t *messages)
{
    const char *key;
    json_t *at = go_on_holder(
        json_array_get(messages, json_array_size(messages) - 1), &key);
    const json_t *old = json_object_get(at, key);
    size_t len = json_string_length(old);
    char *text = malloc(len + MARK_LEN);
    int rc;

    assert(at != NULL && json_is_string(old));
    if (text == NULL) {
        return -LLM_ERR_NO_MEMORY;
    }

    memcpy(text, json_string_value(old), len);
    memcpy(text + len, MARK, MARK_LEN);
    rc = json_object_set_new(
        at, key, json_stringn_nocheck(text, len + MARK_LEN));
    free(text);

    return rc != 0 ? -LLM_ERR_NO_MEMORY : 0;
}


/* The last mark in a client's stretch; SIZE_MAX: none.  *run is where. */
static size_t
go_on_find(const jinja_out_t *o, size_t *run)
{
    size_t at = SIZE_MAX, from = 0, i;
    const char *s, *end, *hit;

    for (i = 0; i < o->runs_n; from = o->runs[i++].end) {
        assert(o->runs[i].end >= from && o->runs[i].end <= o->len);
        s = o->text + from;
        end = o->text + o->runs[i].end;

        while (
            o->runs[i].origin == JINJA_DATA
            && (hit = memmem(s, (size_t) (end - s), MARK, MARK_BARE)) != NULL) {
            at = (size_t) (hit - o->text);
            *run = i;
            s = hit + MARK_BARE;
        }
    }

    return at;
}


int
template_go_on_cut(template_call_t *p, jinja_out_t *o)
{
    size_t run = 0, at = go_on_find(o, &run), from;

    if (at == SIZE_MAX) {
        return template_refuse(p, LLM_ERR_BAD_MESSAGES,
            "The model's chat template does not show the last message, so it "
            "cannot be continued.",
            "messages");
    }

    from = run > 0 ? o->runs[run - 1].end : 0;
    if (at + MARK_LEN > o->runs[run].end
        || memcmp(o->text + at, MARK, MARK_LEN) != 0) {
        at = from + jinja_trimmed(o->text + from, at - from);
    }

    o->len = at;
    o->runs[run].end = (uint32_t) at;
    o->runs_n = at > from ? run + 1 : run;
    assert(o->runs_n == 0 || o->runs[o->runs_n - 1].end == o->len);

    return 0;
}
