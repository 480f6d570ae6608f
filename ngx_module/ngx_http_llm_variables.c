
/*
 * The $llm_* variables: what a request was, for access logs and for other
 * modules' directives.
 *
 * DESIGN.  A variable is empty ("-" in a log) until what it says is known, and
 * never a guess: of a stream that is cut short there are no totals.  They are
 * found behind an internal redirect, too (ngx_http_llm_get_ctx).
 */


#include "ngx_http_llm_module.h"


static ngx_int_t ngx_http_llm_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static u_char *ngx_http_llm_variable_count(ngx_http_llm_ctx_t *ctx,
    uintptr_t data, u_char *p);
static u_char *ngx_http_llm_variable_thousandths(ngx_http_llm_ctx_t *ctx,
    uintptr_t data, u_char *p);


enum {
    NGX_HTTP_LLM_VAR_MODEL = 0,
    NGX_HTTP_LLM_VAR_ENGINE,
    NGX_HTTP_LLM_VAR_STREAM,
    NGX_HTTP_LLM_VAR_FINISH_REASON,
    NGX_HTTP_LLM_VAR_ERROR,
    NGX_HTTP_LLM_VAR_LIMIT_STATUS,
    NGX_HTTP_LLM_VAR_LIMIT_REASON,

    NGX_HTTP_LLM_VAR_PRIORITY,          /* numbers from here on */
    NGX_HTTP_LLM_VAR_MAX_TOKENS,
    NGX_HTTP_LLM_VAR_PROMPT_TOKENS,
    NGX_HTTP_LLM_VAR_CACHED_TOKENS,
    NGX_HTTP_LLM_VAR_COMPLETION_TOKENS,
    NGX_HTTP_LLM_VAR_TOTAL_TOKENS,

    NGX_HTTP_LLM_VAR_CHARGED_TOKENS,    /* thousandths from here on */
    NGX_HTTP_LLM_VAR_QUEUE_TIME,
    NGX_HTTP_LLM_VAR_PREFILL_TIME,
    NGX_HTTP_LLM_VAR_FIRST_TOKEN_TIME,
    NGX_HTTP_LLM_VAR_TOKEN_TIME
};


static ngx_http_variable_t  ngx_http_llm_vars[] = {

    { ngx_string("llm_model"), NULL, ngx_http_llm_variable,
      NGX_HTTP_LLM_VAR_MODEL, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_engine"), NULL, ngx_http_llm_variable,
      NGX_HTTP_LLM_VAR_ENGINE, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_stream"), NULL, ngx_http_llm_variable,
      NGX_HTTP_LLM_VAR_STREAM, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_finish_reason"), NULL, ngx_http_llm_variable,
      NGX_HTTP_LLM_VAR_FINISH_REASON, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_error"), NULL, ngx_http_llm_variable,
      NGX_HTTP_LLM_VAR_ERROR, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_tenant"), NULL, ngx_http_llm_variable_identity,
      offsetof(ngx_http_llm_ctx_t, tenant), NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_key_id"), NULL, ngx_http_llm_variable_identity,
      offsetof(ngx_http_llm_ctx_t, key_id), NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_limit_status"), NULL, ngx_http_llm_variable,
      NGX_HTTP_LLM_VAR_LIMIT_STATUS, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_limit_reason"), NULL, ngx_http_llm_variable,
      NGX_HTTP_LLM_VAR_LIMIT_REASON, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_priority"), NULL, ngx_http_llm_variable,
      NGX_HTTP_LLM_VAR_PRIORITY, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_max_tokens"), NULL, ngx_http_llm_variable,
      NGX_HTTP_LLM_VAR_MAX_TOKENS, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_prompt_tokens"), NULL, ngx_http_llm_variable,
      NGX_HTTP_LLM_VAR_PROMPT_TOKENS, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_cached_tokens"), NULL, ngx_http_llm_variable,
      NGX_HTTP_LLM_VAR_CACHED_TOKENS, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_completion_tokens"), NULL, ngx_http_llm_variable,
      NGX_HTTP_LLM_VAR_COMPLETION_TOKENS, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_total_tokens"), NULL, ngx_http_llm_variable,
      NGX_HTTP_LLM_VAR_TOTAL_TOKENS, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_charged_tokens"), NULL, ngx_http_llm_variable,
      NGX_HTTP_LLM_VAR_CHARGED_TOKENS, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_queue_time"), NULL, ngx_http_llm_variable,
      NGX_HTTP_LLM_VAR_QUEUE_TIME, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_prefill_time"), NULL, ngx_http_llm_variable,
      NGX_HTTP_LLM_VAR_PREFILL_TIME, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_first_token_time"), NULL, ngx_http_llm_variable,
      NGX_HTTP_LLM_VAR_FIRST_TOKEN_TIME, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_token_time"), NULL, ngx_http_llm_variable,
      NGX_HTTP_LLM_VAR_TOKEN_TIME, NGX_HTTP_VAR_NOCACHEABLE, 0 },

      ngx_http_null_variable
};


/* as of limit_req's */

static const ngx_str_t  ngx_http_llm_limit_statuses[] = {
    ngx_null_string,
    ngx_string("PASSED"),
    ngx_string("REJECTED"),
    ngx_string("REJECTED_DRY_RUN")
};

static const ngx_str_t  ngx_http_llm_limit_reasons[] = {
    ngx_null_string,
    ngx_string("requests"),
    ngx_string("tokens"),
    ngx_string("day"),
    ngx_string("month")
};


ngx_int_t
ngx_http_llm_add_variables(ngx_conf_t *cf)
{
    ngx_http_variable_t  *var, *v;

    for (v = ngx_http_llm_vars; v->name.len; v++) {

        var = ngx_http_add_variable(cf, &v->name, v->flags);
        if (var == NULL) {
            return NGX_ERROR;
        }

        var->get_handler = v->get_handler;
        var->data = v->data;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_variable(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    uintptr_t data)
{
    u_char              *p, *last;
    ngx_str_t            value;
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_llm_get_ctx(r);

    ngx_str_null(&value);

    if (ctx && data >= NGX_HTTP_LLM_VAR_PRIORITY) {

        p = ngx_pnalloc(r->pool, NGX_INT64_LEN + sizeof(".000"));
        if (p == NULL) {
            return NGX_ERROR;
        }

        last = data < NGX_HTTP_LLM_VAR_CHARGED_TOKENS
               ? ngx_http_llm_variable_count(ctx, data, p)
               : ngx_http_llm_variable_thousandths(ctx, data, p);

        value.data = p;
        value.len = last - p;

    } else if (ctx) {

        switch (data) {

        case NGX_HTTP_LLM_VAR_MODEL:
            value = ctx->model;
            break;

        case NGX_HTTP_LLM_VAR_ENGINE:
            if (ctx->engine) {
                value = ctx->engine->name;
            }

            break;

        case NGX_HTTP_LLM_VAR_STREAM:
            if (ctx->parsed) {
                value.data = (u_char *) (ctx->call.stream ? "1" : "0");
                value.len = 1;
            }

            break;

        case NGX_HTTP_LLM_VAR_FINISH_REASON:
            if (ctx->finish) {
                value.data = (u_char *) ctx->finish;
                value.len = ngx_strlen(ctx->finish);
            }

            break;

        case NGX_HTTP_LLM_VAR_ERROR:
            if (ctx->refusal.err) {
                value.data = (u_char *) llm_err(ctx->refusal.err)->code;
                value.len = ngx_strlen(value.data);
            }

            break;

        case NGX_HTTP_LLM_VAR_LIMIT_STATUS:
            value = ngx_http_llm_limit_statuses[ctx->limit_status];
            break;

        default: /* NGX_HTTP_LLM_VAR_LIMIT_REASON */
            value = ngx_http_llm_limit_reasons[ctx->limit_reason];
        }
    }

    if (value.len == 0) {
        v->not_found = 1;
        return NGX_OK;
    }

    v->len = value.len;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;
    v->data = value.data;

    return NGX_OK;
}


/* what is not known yet leaves p as it is */

static u_char *
ngx_http_llm_variable_count(ngx_http_llm_ctx_t *ctx, uintptr_t data,
    u_char *p)
{
    uint64_t  n;

    if (data == NGX_HTTP_LLM_VAR_PRIORITY) {

        if (!ctx->entered) {
            return p;
        }

        n = ctx->policy ? ctx->policy->priority : 0;

    } else if (data == NGX_HTTP_LLM_VAR_MAX_TOKENS) {

        if (!ctx->parsed || ctx->call.head.max_tokens == 0) {
            return p;
        }

        n = ctx->call.head.max_tokens;

    } else if (data == NGX_HTTP_LLM_VAR_COMPLETION_TOKENS) {

        /* of a stream that was cut short: those that came */

        if (!ctx->counted && !ctx->events) {
            return p;
        }

        n = ctx->completion_tokens;

    } else if (!ctx->counted) {
        return p;

    } else if (data == NGX_HTTP_LLM_VAR_PROMPT_TOKENS) {
        n = ctx->prompt_tokens;

    } else if (data == NGX_HTTP_LLM_VAR_CACHED_TOKENS) {
        n = ctx->cached_tokens;

    } else {
        n = (uint64_t) ctx->prompt_tokens + ctx->completion_tokens;
    }

    return ngx_sprintf(p, "%uL", n);
}


static u_char *
ngx_http_llm_variable_thousandths(ngx_http_llm_ctx_t *ctx, uintptr_t data,
    u_char *p)
{
    uint64_t  n, tokens;

    if (data == NGX_HTTP_LLM_VAR_FIRST_TOKEN_TIME) {

        if (!ctx->events) {
            return p;
        }

        n = ctx->first_token_time;

    } else if (data == NGX_HTTP_LLM_VAR_CHARGED_TOKENS) {

        if (!ctx->charged) {
            return p;
        }

        n = ctx->cost;

    } else if (!ctx->timed) {
        return p;

    } else if (data == NGX_HTTP_LLM_VAR_QUEUE_TIME) {
        n = ctx->done.queue_us / 1000;

    } else if (data == NGX_HTTP_LLM_VAR_PREFILL_TIME) {
        n = ctx->done.prefill_us / 1000;

    } else {

        /* of the tokens behind the first; choices run at the same time */

        tokens = ctx->completion_tokens / ctx->choices;

        if (tokens < 2) {
            return p;
        }

        n = ctx->done.decode_us / 1000 / (tokens - 1);
    }

    return ngx_sprintf(p, "%uL.%03uL", n / 1000, n % 1000);
}
