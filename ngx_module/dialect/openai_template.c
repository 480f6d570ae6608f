
/*
 * OpenAI's request bodies: what a chat template gets beside the messages and
 * tools (openai_tools.c).
 *
 * DESIGN.  The template's variables (chat_template_kwargs, such as
 * enable_thinking) and documents go on as they are, as compact JSON.
 *
 * Whether thought is told from the answer (separate_reasoning) stands here too,
 * as it is the other half of what a template does with it.
 */


#include "openai.h"


int
llm_openai_pass(llm_openai_in_t *in, const json_t *v, llm_str_t *s)
{
    llm_buf_t  b;

    /* see llm_openai_parse_messages() */

    llm_buf_init(&b, in->body_len * 8 + 1024, in->alloc, in->arg);

    llm_openai_json(&b, v);

    if (b.failed) {
        return llm_refuse(in->why, LLM_ERR_NO_MEMORY, NULL, NULL);
    }

    s->data = b.data;
    s->len = b.len;

    in->call->head.flags |= LLM_F_TEMPLATE;

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
llm_openai_parse_template(llm_openai_in_t *in)
{
    int      rc;
    json_t  *v;

    rc = llm_openai_parse_tools(in);
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
        rc = llm_openai_pass(in, v, &in->call->documents);
        if (rc != 0) {
            return rc;
        }
    }

    v = llm_openai_field(in->root, "chat_template_kwargs");

    if (v != NULL && !json_is_object(v)) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "chat_template_kwargs",
                          "chat_template_kwargs must be an object.");
    }

    return v != NULL ? llm_openai_pass(in, v, &in->call->kwargs) : 0;
}
