
/*
 * Answers in one piece, refusals above all; and the headers of requests and
 * answers.
 */


#include "ngx_http_llm_module.h"


ngx_str_t *
ngx_http_llm_header_in(ngx_http_request_t *r, const char *name)
{
    size_t            len;
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    len = ngx_strlen(name);
    part = &r->headers_in.headers.part;
    h = part->elts;

    for (i = 0; /* void */ ; i++) {

        if (i >= part->nelts) {

            if (part->next == NULL) {
                return NULL;
            }

            part = part->next;
            h = part->elts;
            i = 0;
        }

        if (h[i].key.len == len
            && ngx_strncasecmp(h[i].key.data, (u_char *) name, len) == 0)
        {
            return &h[i].value;
        }
    }
}


void
ngx_http_llm_refuse(ngx_http_llm_ctx_t *ctx, ngx_uint_t err)
{
    ctx->refusal.err = (uint32_t) err;
    ctx->refusal.param[0] = '\0';
    ctx->refusal.text[0] = '\0';

    if (err == LLM_ERR_NO_MODEL || err == LLM_ERR_MODEL_DENIED) {
        ngx_memcpy(ctx->refusal.param, "model", sizeof("model"));
    }
}


/* the reason's code only: the sentence may cite the body */

void
ngx_http_llm_log_refusal(ngx_http_llm_ctx_t *ctx)
{
    ngx_log_error(NGX_LOG_INFO, ctx->request->connection->log, 0,
                  "llm request refused: %s",
                  llm_err(ctx->refusal.err)->code);
}


ngx_int_t
ngx_http_llm_add_header(ngx_http_request_t *r, const char *key,
    ngx_str_t *value)
{
    ngx_table_elt_t  *h;

    h = ngx_list_push(&r->headers_out.headers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    h->hash = 1;
#if (nginx_version >= 1023000)
    h->next = NULL;
#endif
    h->key.data = (u_char *) key;
    h->key.len = ngx_strlen(key);
    h->value = *value;

    return NGX_OK;
}


ngx_int_t
ngx_http_llm_send(ngx_http_request_t *r, ngx_uint_t status, const char *type,
    llm_buf_t *body)
{
    ngx_int_t     rc;
    ngx_buf_t    *b;
    ngx_chain_t   out;

    r->headers_out.status = status;
    r->headers_out.content_length_n = body->len;
    r->headers_out.content_type.data = (u_char *) type;
    r->headers_out.content_type.len = ngx_strlen(type);
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;

    ngx_http_clear_accept_ranges(r);

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    b = ngx_calloc_buf(r->pool);
    if (b == NULL) {
        return NGX_ERROR;
    }

    b->pos = (u_char *) body->data;
    b->last = b->pos + body->len;
    b->memory = body->len ? 1 : 0;
    b->last_buf = (r == r->main) ? 1 : 0;
    b->last_in_chain = 1;

    out.buf = b;
    out.next = NULL;

    return ngx_http_output_filter(r, &out);
}


static ngx_uint_t
ngx_http_llm_refusal_status(ngx_http_llm_ctx_t *ctx)
{
    switch (ctx->refusal.err) {

    case LLM_ERR_RATE_REQUESTS:
    case LLM_ERR_RATE_TOKENS:
    case LLM_ERR_QUOTA:
        return ctx->conf->limit_status;

    default:
        return llm_err(ctx->refusal.err)->http;
    }
}


ngx_int_t
ngx_http_llm_send_refusal(ngx_http_llm_ctx_t *ctx)
{
    llm_buf_t            out;
    ngx_str_t            value;
    ngx_uint_t           status;
    ngx_http_request_t  *r;

    r = ctx->request;

    /* an engine that ends what nobody has cancelled is a broken promise */

    if (ctx->refusal.err == LLM_ERR_CANCELLED) {
        ctx->refusal.err = LLM_ERR_INTERNAL;
    }

    status = ngx_http_llm_refusal_status(ctx);

    if (ngx_http_llm_limit_headers(ctx) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    /* the clients of OpenAI try again by themselves, unless they are told */

    if (ctx->refusal.err == LLM_ERR_STOPPED
        || ctx->refusal.err == LLM_ERR_QUOTA)
    {
        ngx_str_set(&value, "false");

        if (ngx_http_llm_add_header(r, "x-should-retry", &value) != NGX_OK) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
    }

    if (ctx->retry_after == 0 && ctx->refusal.err != LLM_ERR_STOPPED
        && (status == NGX_HTTP_TOO_MANY_REQUESTS
            || status == NGX_HTTP_SERVICE_UNAVAILABLE))
    {
        ngx_str_set(&value, "1");

        if (ngx_http_llm_add_header(r, "Retry-After", &value) != NGX_OK) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
    }

    llm_buf_init(&out, NGX_HTTP_LLM_RENDER_MAX, ngx_http_llm_alloc, r->pool);

    if (ctx->dialect->error(&out, &ctx->refusal, 0) < 0) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_llm_send(r, status, "application/json", &out);
}


/*
 * The body may take its time to be thrown away, which is nobody's request any
 * more: row and counts are done with at once.
 */

ngx_int_t
ngx_http_llm_end_refused(ngx_http_llm_ctx_t *ctx)
{
    ngx_int_t  rc;

    rc = ngx_http_llm_send_refusal(ctx);

    ngx_http_llm_stream_cleanup(ctx);

    return rc;
}
