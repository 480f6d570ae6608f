
/*
 * /tokenize and /detokenize: a model's token ids, without running it.
 *
 *     {"model":M,"prompt":"text"}     {"count":2,"max_model_len":4096,
 *     {"model":M,"messages":[...]}     "tokens":[1,15043]}
 *     {"model":M,"tokens":[1,15043]}  {"prompt":"text"}
 *
 * DESIGN.  Bodies and answers are those of vLLM's endpoints of these names, so
 * that what counts tokens before it asks finds them.  For the engine it is a
 * request whose prompt is echoed and nothing else (LLM_F_PROMPT).  A text gets
 * the model's begin token unless add_special_tokens is false; messages go
 * through its chat template, and are what /chat/completions would make of
 * them.  In the text of ids control tokens have their names ("<|im_end|>"), as
 * a decoder gives them that skips none.
 */


#include "openai.h"


static int
llm_openai_parse_detokenize(llm_openai_in_t *in)
{
    json_t  *v;

    v = llm_openai_field(in->root, "tokens");

    if (!json_is_array(v) || json_array_size(v) == 0) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "tokens",
                          "tokens must be an array of token ids that is not "
                          "empty.");
    }

    in->call->prompts_n = 1;

    return llm_openai_prompt_ids(in, v, "tokens", 0);
}


static int
llm_openai_parse_tokenize(llm_openai_in_t *in)
{
    int      rc, special;
    json_t  *v;

    special = 1;
    rc = llm_openai_bool(in, in->root, "add_special_tokens",
                         "add_special_tokens", &special);
    if (rc != 0) {
        return rc;
    }

    if (!special) {
        in->call->head.flags |= LLM_F_NO_BOS;
    }

    in->call->head.flags |= LLM_F_IDS;

    v = llm_openai_field(in->root, "prompt");

    if (v == NULL) {
        in->call->head.kind = LLM_KIND_CHAT;
        return llm_openai_parse_messages(in);
    }

    if (!json_is_string(v)) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "prompt",
                          "prompt must be a string.");
    }

    in->call->prompts_n = 1;

    return llm_openai_copy(in, v, &in->call->prompts[0]);
}


int
llm_openai_parse_ids(llm_openai_in_t *in)
{
    int                 rc;
    llm_wire_submit_t  *head;

    head = &in->call->head;

    head->kind = LLM_KIND_TEXT;
    head->flags = LLM_F_PROMPT|LLM_F_ECHO;
    head->n = 1;
    head->max_tokens = 1;
    head->temperature = 1;
    head->top_p = 1;
    head->repetition_penalty = 1;

    rc = in->call->route == LLM_ROUTE_TOKENIZE
         ? llm_openai_parse_tokenize(in)
         : llm_openai_parse_detokenize(in);

    if (rc != 0) {
        return rc;
    }

    /* any engine that has the model knows its tokens */

    in->call->lead.len = 0;

    return 0;
}


/* of the engine's text only what may stand in the answer */

int
llm_openai_ids_tokens(llm_answer_t *a, const llm_wire_tokens_t *t,
    const uint8_t *text)
{
    size_t      was;
    uint32_t    i;
    llm_buf_t  *b;

    if (t->choice != 0 || t->tokens != 0 || t->lp_len != 0) {
        return -LLM_ERR_PROTOCOL;
    }

    b = llm_openai_buf(a, &a->choices[0].text);
    was = b->len;

    if (a->call->route == LLM_ROUTE_DETOKENIZE) {
        llm_buf_json(b, (const char *) text, t->text_len);

    } else {
        for (i = 0; i < t->text_len; i++) {

            if (text[i] == ',') {
                a->choices[0].tokens++;

            } else if (text[i] < '0' || text[i] > '9') {
                return -LLM_ERR_PROTOCOL;
            }
        }

        llm_buf_add(b, text, t->text_len);
    }

    if (b->failed) {
        b->len = was;
        b->failed = 0;
        return -LLM_ERR_NO_MEMORY;
    }

    return 0;
}


int
llm_openai_ids_done(llm_answer_t *a)
{
    size_t      was;
    llm_buf_t  *out, *b;

    out = &a->out;
    was = out->len;
    b = llm_openai_buf(a, &a->choices[0].text);

    if (a->call->route == LLM_ROUTE_DETOKENIZE) {
        llm_buf_lit(out, "{\"prompt\":\"");
        llm_buf_add(out, b->data, b->len);
        llm_buf_lit(out, "\"}\n");

    } else {
        llm_buf_lit(out, "{\"count\":");
        llm_buf_u64(out, b->len ? a->choices[0].tokens + 1 : 0);
        llm_buf_lit(out, ",\"max_model_len\":");
        llm_buf_u64(out, a->context);
        llm_buf_lit(out, ",\"tokens\":[");
        llm_buf_add(out, b->data, b->len);
        llm_buf_lit(out, "]}\n");
    }

    if (out->failed) {
        out->len = was;
        out->failed = 0;
        return -LLM_ERR_NO_MEMORY;
    }

    return 0;
}
