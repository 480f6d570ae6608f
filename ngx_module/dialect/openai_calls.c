
/*
 * OpenAI's answers: calls of tools.
 *
 * DESIGN.  The engine sends a call as two texts, the function's name and its
 * arguments (llm_wire.h), which events may cut anywhere.  So a name waits until
 * arguments come; then the call begins, with its id, and from there on
 * arguments go out as they are:
 *
 *     stream   {"index":0,"id":"...","type":"function",
 *               "function":{"name":"f","arguments":""}}
 *              {"index":0,"function":{"arguments":"{\"a\":"}} ...
 *     whole    [{"id":"...","type":"function","function":{"name":"f",
 *               "arguments":"..."}}, ...]
 *
 * An id is nine letters and digits and no more, as there are templates that
 * take no other when it comes back (Mistral's).  It is made of the answer's own
 * id and the call's number, so an answer is the same however it is sent.
 */


#include "openai.h"


#define LLM_OPENAI_CALL_ID    9
#define LLM_OPENAI_CALL_NAME  512       /* bytes; the engine sends fewer */


static void
llm_openai_call_id(llm_answer_t *a, llm_buf_t *b, uint32_t choice)
{
    char      id[LLM_OPENAI_CALL_ID];
    size_t    i;
    uint64_t  h;

    static const char  digits[] =
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

    h = 14695981039346656037ull;

    for (i = 0; i < a->id.len; i++) {
        h = (h ^ (uint8_t) a->id.data[i]) * 1099511628211ull;
    }

    h = (h ^ choice) * 1099511628211ull;
    h = (h ^ a->choices[choice].calls_n) * 1099511628211ull;

    /* FNV leaves the last bytes' marks in its low bits only */

    h = (h ^ h >> 32) * 0x9e3779b97f4a7c15ull;
    h ^= h >> 29;

    for (i = 0; i < LLM_OPENAI_CALL_ID; i++) {
        id[i] = digits[h % 62];
        h /= 62;
    }

    llm_buf_add(b, id, sizeof(id));
}


/* a name waits for its arguments; anything else of a call is none */

static int
llm_openai_call_judge(llm_answer_t *a, const llm_wire_tokens_t *t,
    const uint8_t *text)
{
    llm_buf_t  *name;

    name = llm_openai_buf(a, &a->choices[t->choice].call_name);

    if (t->kind == LLM_TEXT_CALL) {

        if (name->len + t->text_len > LLM_OPENAI_CALL_NAME) {
            return -LLM_ERR_PROTOCOL;
        }

        llm_buf_add(name, text, t->text_len);

        return name->failed ? -LLM_ERR_NO_MEMORY : 0;
    }

    /* arguments need a name before them, or a call that goes on */

    return name->len != 0 || a->choices[t->choice].call_open
           ? 0 : -LLM_ERR_PROTOCOL;
}


/* "id":..., up to the arguments' quote */

static void
llm_openai_call_begin(llm_answer_t *a, llm_buf_t *b, uint32_t choice)
{
    llm_buf_t  *name;

    name = &a->choices[choice].call_name;

    llm_buf_lit(b, "\"id\":\"");
    llm_openai_call_id(a, b, choice);
    llm_buf_lit(b, "\",\"type\":\"function\",\"function\":{\"name\":\"");
    llm_buf_json(b, name->data, name->len);
    llm_buf_lit(b, "\",\"arguments\":\"");
}


int
llm_openai_call_collect(llm_answer_t *a, const llm_wire_tokens_t *t,
    const uint8_t *text)
{
    int         rc;
    llm_buf_t  *b, *name;

    rc = llm_openai_call_judge(a, t, text);

    if (rc != 0 || t->kind == LLM_TEXT_CALL) {
        return rc;
    }

    b = llm_openai_buf(a, &a->choices[t->choice].calls);
    name = &a->choices[t->choice].call_name;

    if (name->len != 0) {
        if (a->choices[t->choice].call_open) {
            llm_buf_lit(b, "\"}},");
        }

        llm_buf_lit(b, "{");
        llm_openai_call_begin(a, b, t->choice);

        name->len = 0;
        a->choices[t->choice].call_open = 1;
        a->choices[t->choice].calls_n++;
    }

    llm_buf_json(b, (const char *) text, t->text_len);

    return b->failed ? -LLM_ERR_NO_MEMORY : 0;
}


int
llm_openai_call_chunk(llm_answer_t *a, const llm_wire_tokens_t *t,
    const uint8_t *text)
{
    int         rc;
    llm_buf_t  *out, *name;

    rc = llm_openai_call_judge(a, t, text);

    if (rc != 0 || t->kind == LLM_TEXT_CALL) {
        return rc;
    }

    out = &a->out;
    name = &a->choices[t->choice].call_name;

    if (name->len != 0) {
        llm_openai_delta_begin(a, t->choice);
        llm_buf_lit(out, "\"tool_calls\":[{\"index\":");
        llm_buf_u64(out, a->choices[t->choice].calls_n);
        llm_buf_lit(out, ",");
        llm_openai_call_begin(a, out, t->choice);
        llm_buf_lit(out, "\"}}]");
        llm_openai_delta_end(a);

        name->len = 0;
        a->choices[t->choice].call_open = 1;
        a->choices[t->choice].calls_n++;
    }

    llm_openai_delta_begin(a, t->choice);
    llm_buf_lit(out, "\"tool_calls\":[{\"index\":");
    llm_buf_u64(out, a->choices[t->choice].calls_n - 1);
    llm_buf_lit(out, ",\"function\":{\"arguments\":\"");
    llm_buf_json(out, (const char *) text, t->text_len);
    llm_buf_lit(out, "\"}}]");
    llm_openai_delta_end(a);

    return 0;
}


void
llm_openai_calls_out(llm_answer_t *a, llm_buf_t *out, uint32_t choice)
{
    llm_buf_t  *b;

    b = &a->choices[choice].calls;

    if (!a->choices[choice].call_open) {
        return;
    }

    llm_buf_lit(out, ",\"tool_calls\":[");
    llm_buf_add(out, b->data, b->len);
    llm_buf_lit(out, "\"}}]");
}
