
/*
 * OpenAI's request bodies: what to answer, and what nobody here can.
 *
 * DESIGN.  What a conversation may look like is the chat template's affair.
 * Here messages are looked at only so far that the worst is told at once and
 * by name; then they travel on as they came, as compact JSON, and the engine
 * looks into them.  Prompts of completions are strings, or token ids as they
 * go onto the wire.
 */


#include "openai.h"

#include <stdio.h>


#define LLM_OPENAI_MESSAGES_MAX  4096


/* what is refused when it is there at all */

static const char  *llm_openai_unsupported[] = {
    "audio",
    "web_search_options",
    "suffix",
    "guided_whitespace_pattern",
    "chat_template",
    NULL
};


static int
llm_openai_message(llm_openai_in_t *in, size_t i, const json_t *message)
{
    char     param[64];
    size_t   k;
    json_t  *v, *part;

    if (!json_is_object(message)) {
        (void) snprintf(param, sizeof(param), "messages[%zu]", i);

        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, param,
                          "%s must be an object.", param);
    }

    v = llm_openai_field(message, "role");

    if (!json_is_string(v) || json_string_length(v) == 0) {
        (void) snprintf(param, sizeof(param), "messages[%zu].role", i);

        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, param,
                          "%s must be a string that is not empty.", param);
    }

    v = llm_openai_field(message, "content");

    if (v == NULL || json_is_string(v)) {
        return 0;
    }

    if (!json_is_array(v)) {
        (void) snprintf(param, sizeof(param), "messages[%zu].content", i);

        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, param,
                          "%s must be a string, null or an array of parts.",
                          param);
    }

    json_array_foreach(v, k, part) {

        if (!json_is_object(part)) {
            (void) snprintf(param, sizeof(param), "messages[%zu].content[%zu]",
                            i, k);

            return llm_refuse(in->why, LLM_ERR_BAD_FIELD, param,
                              "%s must be an object.", param);
        }
    }

    return 0;
}


static int
llm_openai_is_user(const json_t *message)
{
    return strcmp(json_string_value(llm_openai_field(message, "role")), "user")
           == 0;
}


int
llm_openai_parse_messages(llm_openai_in_t *in)
{
    int         rc;
    size_t      i, lead;
    json_t     *v, *message;
    llm_buf_t   b;

    v = llm_openai_field(in->root, "messages");

    if (v == NULL) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "messages",
                          "messages is required.");
    }

    if (!json_is_array(v) || json_array_size(v) == 0
        || json_array_size(v) > LLM_OPENAI_MESSAGES_MAX)
    {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "messages",
                          "messages must be an array of 1 to %d messages.",
                          LLM_OPENAI_MESSAGES_MAX);
    }

    json_array_foreach(v, i, message) {
        rc = llm_openai_message(in, i, message);
        if (rc != 0) {
            return rc;
        }
    }

    /*
     * Compact, they are no longer than the body, unless they hold numbers
     * such as 0.1, which come out with all their 17 digits.
     */

    llm_buf_init(&b, in->body_len * 8 + 1024, in->alloc, in->arg);

    (void) llm_buf_grow(&b, in->body_len);

    lead = 0;

    json_array_foreach(v, i, message) {

        llm_buf_str(&b, i ? "," : "[");
        (void) json_dump_callback(message, llm_openai_dump, &b, JSON_COMPACT);

        if (lead == 0 && llm_openai_is_user(message)) {
            lead = b.len;
        }
    }

    llm_buf_lit(&b, "]");

    if (b.failed) {
        return llm_refuse(in->why, LLM_ERR_NO_MEMORY, NULL, NULL);
    }

    in->call->messages.data = b.data;
    in->call->messages.len = b.len;

    in->call->lead.data = b.data;
    in->call->lead.len = lead == 0 || lead > LLM_LEAD_MAX
                         ? (b.len < LLM_LEAD_MAX ? b.len : LLM_LEAD_MAX)
                         : lead;

    return llm_openai_parse_template(in);
}


int
llm_openai_prompt_ids(llm_openai_in_t *in, const json_t *v, const char *param,
    uint32_t at)
{
    size_t     i, n;
    json_t    *one;
    int64_t    id;
    uint32_t  *ids;

    n = json_array_size(v);

    if (n == 0) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, param,
                          "%s must not be empty.", param);
    }

    ids = in->alloc(in->arg, n * sizeof(uint32_t));
    if (ids == NULL) {
        return llm_refuse(in->why, LLM_ERR_NO_MEMORY, NULL, NULL);
    }

    json_array_foreach(v, i, one) {

        if (!llm_openai_whole(one, &id) || id < 0 || id >= UINT32_MAX) {
            return llm_refuse(in->why, LLM_ERR_BAD_FIELD, param,
                              "%s must hold token ids only.", param);
        }

        ids[i] = (uint32_t) id;
    }

    in->call->prompts[at].data = (const char *) ids;
    in->call->prompts[at].len = n * sizeof(uint32_t);
    in->call->prompt_is_ids[at] = 1;

    return 0;
}


/* [strings] or [[ids]] */

static int
llm_openai_prompt_list(llm_openai_in_t *in, const json_t *v)
{
    int      rc;
    char     param[32];
    size_t   i;
    json_t  *one;

    if (json_array_size(v) > LLM_CHOICES_MAX) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "prompt",
                          "prompt may hold at most %d prompts.",
                          LLM_CHOICES_MAX);
    }

    json_array_foreach(v, i, one) {

        (void) snprintf(param, sizeof(param), "prompt[%zu]", i);

        if (json_typeof(one) != json_typeof(json_array_get(v, 0))) {
            return llm_refuse(in->why, LLM_ERR_BAD_FIELD, param,
                              "All prompts must be of one type.");
        }

        if (json_is_string(one)) {
            rc = llm_openai_copy(in, one, &in->call->prompts[i]);

        } else if (json_is_array(one)) {
            rc = llm_openai_prompt_ids(in, one, param, (uint32_t) i);

        } else {
            rc = llm_refuse(in->why, LLM_ERR_BAD_FIELD, param,
                            "%s must be a string or an array of token ids.",
                            param);
        }

        if (rc != 0) {
            return rc;
        }
    }

    in->call->prompts_n = (uint32_t) json_array_size(v);

    return 0;
}


static int
llm_openai_parse_prompt(llm_openai_in_t *in)
{
    json_t  *v;

    v = llm_openai_field(in->root, "prompt");

    if (v == NULL) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "prompt",
                          "prompt is required.");
    }

    in->call->prompts_n = 1;

    if (json_is_string(v)) {
        return llm_openai_copy(in, v, &in->call->prompts[0]);
    }

    if (!json_is_array(v) || json_array_size(v) == 0) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "prompt",
                          "prompt must be a string, an array of strings, of "
                          "token ids, or of arrays of token ids.");
    }

    if (json_is_number(json_array_get(v, 0))) {
        return llm_openai_prompt_ids(in, v, "prompt", 0);
    }

    return llm_openai_prompt_list(in, v);
}


static int
llm_openai_refuse_modalities(llm_openai_in_t *in)
{
    size_t   i;
    json_t  *v, *one;

    v = llm_openai_field(in->root, "modalities");

    if (v == NULL) {
        return 0;
    }

    if (!json_is_array(v)) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "modalities",
                          "modalities must be an array.");
    }

    json_array_foreach(v, i, one) {

        if (!json_is_string(one)) {
            return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "modalities",
                              "modalities must hold strings.");
        }

        if (strcmp(json_string_value(one), "text") != 0) {
            return llm_refuse(in->why, LLM_ERR_UNSUPPORTED, "modalities",
                              "Only the modality \"text\" is supported.");
        }
    }

    return 0;
}


int
llm_openai_refuse_others(llm_openai_in_t *in)
{
    const char **name;

    for (name = llm_openai_unsupported; *name != NULL; name++) {

        if (llm_openai_field(in->root, *name) != NULL) {
            return llm_refuse(in->why, LLM_ERR_UNSUPPORTED, *name,
                              "%s is not supported.", *name);
        }
    }

    return llm_openai_refuse_modalities(in);
}


/* the prompt before the answer, and with logprobs those of its tokens too */

static int
llm_openai_parse_echo(llm_openai_in_t *in)
{
    int                 rc, echo;
    llm_wire_submit_t  *head;

    head = &in->call->head;

    echo = 0;
    rc = llm_openai_bool(in, in->root, "echo", "echo", &echo);
    if (rc != 0) {
        return rc;
    }

    if (!echo && head->flags & LLM_F_SCORE && !in->call->prompt_logprobs) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "max_tokens",
                          "max_tokens may be 0 only with echo or "
                          "prompt_logprobs.");
    }

    if (!echo) {
        return 0;
    }

    head->flags |= LLM_F_ECHO;

    if (!(head->flags & LLM_F_LOGPROBS)) {
        return 0;
    }

    if (in->call->prompt_logprobs && head->prompt_tops != head->top_logprobs) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "prompt_logprobs",
                          "With echo, prompt_logprobs must be as many as "
                          "logprobs.");
    }

    head->flags |= LLM_F_PROMPT_LPS;
    head->prompt_tops = head->top_logprobs;

    return 0;
}


int
llm_openai_parse_text(llm_openai_in_t *in)
{
    int                 rc;
    int64_t             best_of;
    llm_wire_submit_t  *head;

    head = &in->call->head;

    rc = llm_openai_refuse_tools(in, "tools", "tool_choice");
    if (rc != 0) {
        return rc;
    }

    rc = llm_openai_refuse_tools(in, "functions", "function_call");
    if (rc != 0) {
        return rc;
    }

    rc = llm_openai_parse_prompt(in);
    if (rc != 0) {
        return rc;
    }

    in->call->lead = in->call->prompts[0];

    if (in->call->lead.len > LLM_LEAD_TEXT_MAX) {
        in->call->lead.len = LLM_LEAD_TEXT_MAX;
    }

    if (in->call->prompts_n * head->n > LLM_CHOICES_MAX) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "n",
                          "n times the number of prompts may be %d at most.",
                          LLM_CHOICES_MAX);
    }

    best_of = head->n;
    rc = llm_openai_int(in, "best_of", 1, LLM_CHOICES_MAX, &best_of, NULL);
    if (rc != 0) {
        return rc;
    }

    if (best_of != head->n) {
        return llm_refuse(in->why, LLM_ERR_UNSUPPORTED, "best_of",
                          "best_of other than n is not supported.");
    }

    return llm_openai_parse_echo(in);
}
