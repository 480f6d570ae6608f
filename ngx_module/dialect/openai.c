
/*
 * OpenAI's dialect: the table, its routes, the list of models and errors.
 *
 *     POST .../chat/completions      LLM_ROUTE_CHAT
 *     POST .../completions           LLM_ROUTE_TEXT
 *     GET  .../models                LLM_ROUTE_MODELS
 *     GET  .../models/NAME           LLM_ROUTE_MODEL, NAME may hold slashes
 *
 * An error that ends a stream is one event and no [DONE] behind it: OpenAI's
 * own clients raise on the event, and one that does not know such events must
 * not take a truncated answer for a whole one.
 */


#include "openai.h"


static int llm_openai_route(llm_str_t method, llm_str_t uri, uint32_t *route,
    llm_str_t *name, const char **allow);
static const char *llm_openai_content_type(const llm_call_t *call);
static int llm_openai_error(llm_buf_t *out, const llm_refusal_t *why,
    int in_stream);
static int llm_openai_ping(llm_buf_t *out);
static int llm_openai_models(llm_buf_t *out, const llm_model_name_t *models,
    uint32_t n, const llm_str_t *name);


const llm_dialect_t  llm_dialect_openai = {
    "openai",
    llm_openai_route,
    llm_openai_parse,
    llm_openai_content_type,
    llm_openai_tokens,
    llm_openai_done,
    llm_openai_error,
    llm_openai_ping,
    llm_openai_models
};


static int
llm_openai_is(llm_str_t s, const char *word)
{
    return s.len == strlen(word) && memcmp(s.data, word, s.len) == 0;
}


static int
llm_openai_ends(llm_str_t uri, const char *tail)
{
    size_t  len;

    len = strlen(tail);

    return uri.len >= len
           && memcmp(uri.data + uri.len - len, tail, len) == 0;
}


/* what stands behind the first "/models/"; first, as a name may hold it too */

static llm_str_t
llm_openai_model_name(llm_str_t uri)
{
    size_t            i, len;
    llm_str_t         name;
    static const char  dir[] = "/models/";

    len = sizeof(dir) - 1;
    name.len = 0;
    name.data = NULL;

    for (i = 0; i + len < uri.len; i++) {
        if (memcmp(uri.data + i, dir, len) == 0) {
            name.data = uri.data + i + len;
            name.len = uri.len - i - len;
            break;
        }
    }

    return name;
}


static int
llm_openai_route(llm_str_t method, llm_str_t uri, uint32_t *route,
    llm_str_t *name, const char **allow)
{
    int        get;
    uint32_t   which;
    llm_str_t  model;

    get = 0;
    model.len = 0;
    model.data = NULL;

    if (llm_openai_ends(uri, "/chat/completions")) {
        which = LLM_ROUTE_CHAT;

    } else if (llm_openai_ends(uri, "/completions")) {
        which = LLM_ROUTE_TEXT;

    } else if (llm_openai_ends(uri, "/detokenize")) {
        which = LLM_ROUTE_DETOKENIZE;

    } else if (llm_openai_ends(uri, "/tokenize")) {
        which = LLM_ROUTE_TOKENIZE;

    } else if (llm_openai_ends(uri, "/models")) {
        which = LLM_ROUTE_MODELS;
        get = 1;

    } else {
        model = llm_openai_model_name(uri);

        if (model.len == 0) {
            return -LLM_ERR_NO_ROUTE;
        }

        which = LLM_ROUTE_MODEL;
        get = 1;
    }

    if (get ? !llm_openai_is(method, "GET") && !llm_openai_is(method, "HEAD")
            : !llm_openai_is(method, "POST"))
    {
        *allow = get ? "GET, HEAD" : "POST";
        return -LLM_ERR_BAD_METHOD;
    }

    *route = which;

    if (which == LLM_ROUTE_MODEL) {
        *name = model;
    }

    return 0;
}


static const char *
llm_openai_content_type(const llm_call_t *call)
{
    return call->stream ? "text/event-stream; charset=utf-8"
                        : "application/json";
}


/* 0, or what out held before and the code of why it holds no more */

static int
llm_openai_end(llm_buf_t *out, size_t was)
{
    if (!out->failed) {
        return 0;
    }

    out->len = was;
    out->failed = 0;

    return -LLM_ERR_NO_MEMORY;
}


static int
llm_openai_error(llm_buf_t *out, const llm_refusal_t *why, int in_stream)
{
    size_t            was, len;
    const llm_err_t  *err;

    was = out->len;
    err = llm_err(why->err);

    if (in_stream) {
        llm_buf_lit(out, "data: ");
    }

    llm_buf_lit(out, "{\"error\":{\"message\":\"");

    len = strnlen(why->text, sizeof(why->text));

    if (len != 0) {
        llm_buf_json(out, why->text, len);

    } else {
        llm_buf_str(out, err->text);
    }

    llm_buf_lit(out, "\",\"type\":\"");
    llm_buf_str(out, err->type);
    llm_buf_lit(out, "\",\"param\":");

    len = strnlen(why->param, sizeof(why->param));

    if (len != 0) {
        llm_buf_lit(out, "\"");
        llm_buf_json(out, why->param, len);
        llm_buf_lit(out, "\"");

    } else {
        llm_buf_lit(out, "null");
    }

    llm_buf_lit(out, ",\"code\":\"");
    llm_buf_str(out, err->code);
    llm_buf_lit(out, "\"}}");

    if (in_stream) {
        llm_buf_lit(out, "\n\n");

    } else {
        llm_buf_lit(out, "\n");
    }

    return llm_openai_end(out, was);
}


static int
llm_openai_ping(llm_buf_t *out)
{
    size_t  was;

    was = out->len;

    llm_buf_lit(out, ": ping\n\n");

    return llm_openai_end(out, was);
}


static void
llm_openai_model(llm_buf_t *out, const llm_model_name_t *model)
{
    llm_buf_lit(out, "{\"id\":\"");
    llm_buf_json(out, model->name, strlen(model->name));
    llm_buf_lit(out, "\",\"object\":\"model\",\"created\":");
    llm_buf_u64(out, model->created);
    llm_buf_lit(out, ",\"owned_by\":\"ngx_llm\"");

    if (model->context) {
        llm_buf_lit(out, ",\"max_model_len\":");
        llm_buf_u64(out, model->context);
    }

    llm_buf_lit(out, "}");
}


static int
llm_openai_models(llm_buf_t *out, const llm_model_name_t *models, uint32_t n,
    const llm_str_t *name)
{
    size_t    was;
    uint32_t  i;

    was = out->len;

    if (name != NULL) {

        for (i = 0; i < n; i++) {
            if (llm_openai_is(*name, models[i].name)) {
                llm_openai_model(out, &models[i]);
                llm_buf_lit(out, "\n");
                return llm_openai_end(out, was);
            }
        }

        return -LLM_ERR_NO_MODEL;
    }

    llm_buf_lit(out, "{\"object\":\"list\",\"data\":[");

    for (i = 0; i < n; i++) {
        if (i != 0) {
            llm_buf_lit(out, ",");
        }

        llm_openai_model(out, &models[i]);
    }

    llm_buf_lit(out, "]}\n");

    return llm_openai_end(out, was);
}
