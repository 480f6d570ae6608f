
/*
 * OpenAI's request bodies: what a chat template gets beside the messages.
 *
 * DESIGN.  tools are what the template makes of them: it tells the model, and
 * what the model then writes is the answer's content, in the model's own form.
 * Nothing takes calls out of it yet, and nothing makes a model call: so
 * tool_choice may be "auto", which asks for nothing, and "none", with which
 * the template is not told of tools.  functions are the older form of tools,
 * whose answers differ; they are refused.
 *
 * The template's variables (chat_template_kwargs, such as enable_thinking) and
 * documents go on as they are, as compact JSON.
 *
 * Whether thought is told from the answer (separate_reasoning) stands here too,
 * as it is the other half of what a template does with it.
 */


#include "openai.h"

#include <stdio.h>


#define LLM_OPENAI_TOOLS_MAX  1024


static int
llm_openai_pass(llm_openai_in_t *in, const json_t *v, size_t body_len,
    llm_str_t *s)
{
    llm_buf_t  b;

    /* see llm_openai_parse_messages() */

    llm_buf_init(&b, body_len * 8 + 1024, in->alloc, in->arg);

    (void) json_dump_callback(v, llm_openai_dump, &b, JSON_COMPACT);

    if (b.failed) {
        return llm_refuse(in->why, LLM_ERR_NO_MEMORY, NULL, NULL);
    }

    s->data = b.data;
    s->len = b.len;

    in->call->head.flags |= LLM_F_TEMPLATE;

    return 0;
}


/* {"type":"function","function":{"name":"..."}} */

static int
llm_openai_tool(llm_openai_in_t *in, size_t i, const json_t *tool)
{
    char     param[48];
    json_t  *type, *function, *name;

    type = json_is_object(tool) ? llm_openai_field(tool, "type") : NULL;

    if (!json_is_string(type)) {
        (void) snprintf(param, sizeof(param), "tools[%zu]", i);

        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, param,
                          "%s must be an object with a type.", param);
    }

    if (strcmp(json_string_value(type), "function") != 0) {
        (void) snprintf(param, sizeof(param), "tools[%zu].type", i);

        return llm_refuse(in->why, LLM_ERR_UNSUPPORTED, param,
                          "Only tools of type \"function\" are supported.");
    }

    function = llm_openai_field(tool, "function");
    name = json_is_object(function) ? llm_openai_field(function, "name")
                                    : NULL;

    if (!json_is_string(name) || json_string_length(name) == 0) {
        (void) snprintf(param, sizeof(param), "tools[%zu].function.name", i);

        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, param,
                          "%s must be a string that is not empty.", param);
    }

    return 0;
}


static int
llm_openai_tool_choice(llm_openai_in_t *in, int *none)
{
    json_t      *v;
    const char  *s;

    v = llm_openai_field(in->root, "tool_choice");

    *none = 0;

    if (v == NULL) {
        return 0;
    }

    if (!json_is_string(v) && !json_is_object(v)) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "tool_choice",
                          "tool_choice must be a string or an object.");
    }

    s = json_is_string(v) ? json_string_value(v) : "";

    *none = strcmp(s, "none") == 0;

    if (*none || strcmp(s, "auto") == 0) {
        return 0;
    }

    return llm_refuse(in->why, LLM_ERR_UNSUPPORTED, "tool_choice",
                      "Of tool_choice only \"auto\" and \"none\" are "
                      "supported.");
}


static int
llm_openai_tools(llm_openai_in_t *in, size_t body_len)
{
    int      rc, none;
    json_t  *v, *tool;
    size_t   i;

    rc = llm_openai_tool_choice(in, &none);
    if (rc != 0) {
        return rc;
    }

    v = llm_openai_field(in->root, "tools");

    if (v == NULL) {
        return 0;
    }

    if (!json_is_array(v) || json_array_size(v) > LLM_OPENAI_TOOLS_MAX) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "tools",
                          "tools must be an array of at most %d tools.",
                          LLM_OPENAI_TOOLS_MAX);
    }

    json_array_foreach(v, i, tool) {
        rc = llm_openai_tool(in, i, tool);
        if (rc != 0) {
            return rc;
        }
    }

    if (none || json_array_size(v) == 0) {
        return 0;
    }

    return llm_openai_pass(in, v, body_len, &in->call->tools);
}


int
llm_openai_refuse_tools(llm_openai_in_t *in, const char *name,
    const char *choice_name)
{
    json_t  *v, *choice;

    v = llm_openai_field(in->root, name);
    choice = llm_openai_field(in->root, choice_name);

    if (v != NULL && !json_is_array(v)) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, name,
                          "%s must be an array.", name);
    }

    if (choice != NULL && !json_is_string(choice) && !json_is_object(choice)) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, choice_name,
                          "%s must be a string or an object.", choice_name);
    }

    if (json_is_string(choice)
        && strcmp(json_string_value(choice), "none") == 0)
    {
        return 0;
    }

    if (json_array_size(v) != 0) {
        return llm_refuse(in->why, LLM_ERR_UNSUPPORTED, name,
                          "%s is not supported.", name);
    }

    /* without tools "auto" asks for nothing; all else asks for a call */

    if (choice != NULL
        && !(json_is_string(choice)
             && strcmp(json_string_value(choice), "auto") == 0))
    {
        return llm_refuse(in->why, LLM_ERR_UNSUPPORTED, choice_name,
                          "%s is not supported.", choice_name);
    }

    return 0;
}


/*
 * How the prompt ends: with the beginning of an answer, with the last message,
 * or with the last message's text, which the model then goes on with.
 */

static int
llm_openai_turn(llm_openai_in_t *in)
{
    int          rc, begin, go_on;
    size_t       n;
    json_t      *v;
    const char  *role;

    go_on = 0;
    rc = llm_openai_bool(in, in->root, "continue_final_message",
                         "continue_final_message", &go_on);
    if (rc != 0) {
        return rc;
    }

    begin = !go_on;
    rc = llm_openai_bool(in, in->root, "add_generation_prompt",
                         "add_generation_prompt", &begin);
    if (rc != 0) {
        return rc;
    }

    if (!begin) {
        in->call->head.flags |= LLM_F_NO_TURN;
    }

    if (!go_on) {
        return 0;
    }

    if (begin) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "continue_final_message",
                          "continue_final_message and add_generation_prompt "
                          "cannot both be true.");
    }

    v = llm_openai_field(in->root, "messages");
    n = json_array_size(v);
    role = json_string_value(json_object_get(json_array_get(v, n - 1),
                                             "role"));

    if (role == NULL || strcmp(role, "assistant") != 0) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "continue_final_message",
                          "continue_final_message needs a last message of the "
                          "assistant's.");
    }

    in->call->head.flags |= LLM_F_GO_ON;

    return 0;
}


/* thought apart from the answer, unless the client wants all of one piece */

static int
llm_openai_apart(llm_openai_in_t *in)
{
    int  rc, apart;

    apart = 1;
    rc = llm_openai_bool(in, in->root, "separate_reasoning",
                         "separate_reasoning", &apart);
    if (rc != 0) {
        return rc;
    }

    if (apart) {
        in->call->head.wants |= LLM_W_REASONING;
    }

    return 0;
}


int
llm_openai_parse_template(llm_openai_in_t *in, size_t body_len)
{
    int      rc;
    json_t  *v;

    rc = llm_openai_tools(in, body_len);
    if (rc != 0) {
        return rc;
    }

    rc = llm_openai_refuse_tools(in, "functions", "function_call");
    if (rc != 0) {
        return rc;
    }

    rc = llm_openai_turn(in);
    if (rc != 0) {
        return rc;
    }

    rc = llm_openai_apart(in);
    if (rc != 0) {
        return rc;
    }

    v = llm_openai_field(in->root, "documents");

    if (v != NULL && !json_is_array(v)) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "documents",
                          "documents must be an array.");
    }

    if (v != NULL) {
        rc = llm_openai_pass(in, v, body_len, &in->call->documents);
        if (rc != 0) {
            return rc;
        }
    }

    v = llm_openai_field(in->root, "chat_template_kwargs");

    if (v != NULL && !json_is_object(v)) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "chat_template_kwargs",
                          "chat_template_kwargs must be an object.");
    }

    return v != NULL
           ? llm_openai_pass(in, v, body_len, &in->call->kwargs) : 0;
}
