
/*
 * From a request's first byte to a call: llm_pass's content handler.
 *
 * DESIGN.  Everything that can be refused is refused here, in the API's own
 * form and before a byte of the answer has gone out: path, method, size,
 * body, model, engine, slots.  The body is pulled from the connection into
 * one buffer of the request's pool with a cap of its own; it never touches
 * the disk, whatever client_body_buffer_size is.  The dialect turns it into a
 * call (ngx_http_llm_parse.c), which is submitted (ngx_http_llm_submit.c) or
 * stands in line for that.
 */


#include "ngx_http_llm_module.h"


static ngx_int_t ngx_http_llm_request_id(ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_send_models(ngx_http_llm_ctx_t *ctx,
    llm_str_t *name);
static void ngx_http_llm_body_handler(ngx_http_request_t *r);
static void ngx_http_llm_body_read(ngx_http_request_t *r);
static ngx_int_t ngx_http_llm_body_take(ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_body_file(ngx_http_llm_ctx_t *ctx,
    ngx_buf_t *b);


void *
ngx_http_llm_alloc(void *arg, size_t size)
{
    return ngx_palloc(arg, size);
}


ngx_int_t
ngx_http_llm_handler(ngx_http_request_t *r)
{
    int                       rv;
    ngx_int_t                 rc;
    llm_str_t                 method, uri, name;
    ngx_str_t                 value;
    ngx_uint_t                err;
    const char               *allow;
    ngx_http_llm_ctx_t       *ctx;

    if (r != r->main) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "llm_pass does not serve subrequests");
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ctx = ngx_http_llm_make_ctx(r);
    if (ctx == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    err = ngx_http_llm_enter(ctx);

    if (err == LLM_ERR_INTERNAL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (err != LLM_ERR_NONE) {
        ngx_http_llm_log_refusal(ctx);
        goto refused;
    }

    /* HEAD is GET to all but the core, which leaves the body out */

    method.data = (char *) r->method_name.data;
    method.len = r->method_name.len;

    if (r->method == NGX_HTTP_HEAD) {
        method.data = "GET";
        method.len = 3;
    }

    uri.data = (char *) r->uri.data;
    uri.len = r->uri.len;

    allow = NULL;
    ngx_memzero(&name, sizeof(llm_str_t));

    rv = ctx->dialect->route(method, uri, &ctx->route, &name, &allow);

    if (rv < 0) {
        if (-rv == LLM_ERR_BAD_METHOD && allow) {
            value.data = (u_char *) allow;
            value.len = ngx_strlen(allow);

            if (ngx_http_llm_add_header(r, "Allow", &value) != NGX_OK) {
                return NGX_HTTP_INTERNAL_SERVER_ERROR;
            }
        }

        ngx_http_llm_refuse(ctx, -rv);
        goto refused;
    }

    if (ctx->route == LLM_ROUTE_MODELS) {
        return ngx_http_llm_send_models(ctx, NULL);
    }

    if (ctx->route == LLM_ROUTE_MODEL) {
        return ngx_http_llm_send_models(ctx, &name);
    }

    if (r->headers_in.content_length_n > (off_t) ctx->conf->body_max) {
        r->expect_tested = 1;   /* no 100-continue for what is not wanted */
        ngx_http_llm_refuse(ctx, LLM_ERR_BODY_LARGE);
        goto refused;
    }

    r->request_body_no_buffering = 1;

    rc = ngx_http_read_client_request_body(r, ngx_http_llm_body_handler);

    if (rc >= NGX_HTTP_SPECIAL_RESPONSE) {
        return rc;
    }

    return NGX_DONE;

refused:

    rc = ngx_http_discard_request_body(r);

    if (rc != NGX_OK) {
        return rc;
    }

    return ngx_http_llm_end_refused(ctx);
}


ngx_http_llm_ctx_t *
ngx_http_llm_make_ctx(ngx_http_request_t *r)
{
    ngx_http_cleanup_t       *hcln;
    ngx_pool_cleanup_t       *pcln;
    ngx_http_llm_ctx_t       *ctx, *old;
    ngx_http_llm_loc_conf_t  *llcf;

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_module);
    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_module);

    if (ctx && ctx->conf != llcf && ctx->request && !ctx->entered) {

        /* asked about in one location and rewritten into another */

        ctx->conf = llcf;
        ctx->body.max = llcf->body_max;
        ctx->policy = NULL;
        ctx->identified = 0;
        ctx->expired = 0;

        ngx_str_null(&ctx->tenant);
        ngx_str_null(&ctx->key_id);
        ngx_str_null(&ctx->key_models);
    }

    if (ctx) {
        return ctx;
    }

    /* an error page that is ours again: one request is counted once */

    old = ngx_http_llm_get_ctx(r);

    if (old) {
        ngx_http_llm_stream_cleanup(old);
    }

    ctx = ngx_pcalloc(r->pool, sizeof(ngx_http_llm_ctx_t));
    if (ctx == NULL) {
        return NULL;
    }

    ctx->request = r;
    ctx->conf = llcf;
    ctx->dialect = &llm_dialect_openai;

    llm_buf_init(&ctx->body, ctx->conf->body_max, ngx_http_llm_alloc,
                 r->pool);

    /*
     * The request's cleanup ends the call, before the access log is written
     * and while memory is whole.  The pool's does nothing more: it is where
     * $llm_* variables find the context behind an internal redirect.
     */

    hcln = ngx_http_cleanup_add(r, 0);
    if (hcln == NULL) {
        return NULL;
    }

    hcln->handler = ngx_http_llm_stream_cleanup;
    hcln->data = ctx;

    pcln = ngx_pool_cleanup_add(r->pool, 0);
    if (pcln == NULL) {
        return NULL;
    }

    pcln->handler = ngx_http_llm_stream_cleanup;
    pcln->data = ctx;

    ngx_http_set_ctx(r, ctx, ngx_http_llm_module);

    /* If-Match and the like are about documents, and would spoil answers */

    r->disable_not_modified = 1;

    ngx_http_llm_metrics_begin(ctx);

    if (old && !r->filter_finalize) {
        ctx->id = old->id;      /* its header is there already */
        return ctx;
    }

    return ngx_http_llm_request_id(ctx) == NGX_OK ? ctx : NULL;
}


/*
 * The id is the client's text where llm_request_id says so, and goes into
 * headers, bodies and the engine's log: harmless characters are kept, and if
 * there are none a number takes their place.
 */

static ngx_int_t
ngx_http_llm_request_id(ngx_http_llm_ctx_t *ctx)
{
    u_char              *p, ch;
    size_t               i;
    ngx_str_t            value;
    ngx_http_request_t  *r;

    r = ctx->request;

    if (ngx_http_complex_value(r, ctx->conf->request_id, &value) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    p = ngx_pnalloc(r->pool, NGX_HTTP_LLM_ID_MAX);
    if (p == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ctx->id.data = p;

    for (i = 0; i < value.len; i++) {
        ch = value.data[i];

        if ((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z')
            || (ch >= '0' && ch <= '9')
            || ch == '_' || ch == '.' || ch == ':' || ch == '-')
        {
            *p++ = ch;
        }

        if (p - ctx->id.data == NGX_HTTP_LLM_ID_MAX) {
            break;
        }
    }

    if (p == ctx->id.data) {
        p = ngx_sprintf(p, "%08xD%08xD%08xD", (uint32_t) ngx_random(),
                        (uint32_t) ngx_random(), (uint32_t) ngx_random());
    }

    ctx->id.len = p - ctx->id.data;

    value.data = ctx->id.data;
    value.len = ctx->id.len;

    if (ngx_http_llm_add_header(r, "x-request-id", &value) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_send_models(ngx_http_llm_ctx_t *ctx, llm_str_t *name)
{
    int                      rv;
    llm_buf_t                out;
    ngx_int_t                rc;
    ngx_uint_t               i, j, n, up, err;
    llm_model_name_t        *names;
    ngx_http_request_t      *r;
    ngx_http_llm_target_t   *targets;
    ngx_http_llm_engine_t  **engines;

    r = ctx->request;

    rc = ngx_http_discard_request_body(r);

    if (rc != NGX_OK) {
        return rc;
    }

    engines = ctx->conf->engines->elts;
    up = 0;
    n = 0;

    for (i = 0; i < ctx->conf->engines->nelts; i++) {
        n += ngx_max(engines[i]->models, LLM_MODELS_MAX);
    }

    targets = ngx_palloc(r->pool, n * sizeof(ngx_http_llm_target_t));
    names = ngx_palloc(r->pool, n * sizeof(llm_model_name_t));

    if (targets == NULL || names == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    n = 0;

    for (i = 0; i < ctx->conf->engines->nelts; i++) {

        if (ngx_http_llm_channel_get(engines[i], &err) == NULL) {
            continue;
        }

        up = 1;
        n += ngx_http_llm_targets(ctx, engines[i], &targets[n],
                               ngx_max(engines[i]->models, LLM_MODELS_MAX));
    }

    if (!up) {
        ngx_http_llm_refuse(ctx, LLM_ERR_NO_ENGINE);
        return ngx_http_llm_end_refused(ctx);
    }

    for (i = 0, up = 0; i < n; i++) {

        if (!ngx_http_llm_may_use(ctx, &targets[i].name)) {
            continue;
        }

        /* replicas are one model, and any of them may get a request */

        for (j = 0; j < up; j++) {
            if (ngx_strcmp(names[j].name, targets[i].name.data) == 0) {
                names[j].context = ngx_min(names[j].context,
                                           targets[i].context);
                break;
            }
        }

        if (j < up) {
            continue;
        }

        names[up].name = (char *) targets[i].name.data;
        names[up].created = targets[i].created;
        names[up].context = targets[i].context;
        up++;
    }

    llm_buf_init(&out, NGX_HTTP_LLM_ANSWER_MAX, ngx_http_llm_alloc, r->pool);

    rv = ctx->dialect->models(&out, names, up, name);

    if (rv < 0) {
        ngx_http_llm_refuse(ctx, -rv);
        return ngx_http_llm_end_refused(ctx);
    }

    rc = ngx_http_llm_send(r, NGX_HTTP_OK, "application/json", &out);

    ngx_http_llm_stream_cleanup(ctx);

    return rc;
}


static void
ngx_http_llm_body_handler(ngx_http_request_t *r)
{
    if (r->reading_body) {
        r->read_event_handler = ngx_http_llm_body_read;
    }

    ngx_http_llm_body_read(r);
}


static void
ngx_http_llm_body_read(ngx_http_request_t *r)
{
    ngx_int_t            rc;
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_module);

    for ( ;; ) {

        rc = ngx_http_llm_body_take(ctx);

        if (rc == NGX_DECLINED) {
            r->read_event_handler = ngx_http_block_reading;

            if (r->connection->read->timer_set) {
                ngx_del_timer(r->connection->read);
            }

            ngx_http_llm_refuse(ctx, LLM_ERR_BODY_LARGE);
            ngx_http_finalize_request(r, ngx_http_llm_end_refused(ctx));
            return;
        }

        if (rc != NGX_OK) {
            ngx_http_finalize_request(r, rc);
            return;
        }

        if (!r->reading_body) {
            ngx_http_llm_parse(ctx);
            return;
        }

        rc = ngx_http_read_unbuffered_request_body(r);

        if (rc >= NGX_HTTP_SPECIAL_RESPONSE) {
            ngx_http_finalize_request(r, rc);
            return;
        }

        if (rc == NGX_AGAIN && r->request_body->bufs == NULL) {
            return;
        }
    }
}


/*
 * Moves what has been read into ctx->body.  NGX_DECLINED when it is too much,
 * an HTTP status when it cannot be had.
 */

static ngx_int_t
ngx_http_llm_body_take(ngx_http_llm_ctx_t *ctx)
{
    ngx_buf_t                *b;
    ngx_chain_t              *cl;
    ngx_http_request_t       *r;
    ngx_http_request_body_t  *rb;

    r = ctx->request;
    rb = r->request_body;

    /* none where a handler before us has thrown it away */

    if (rb == NULL) {
        return NGX_OK;
    }

    /* of a chunked body it is the length so far */

    if (r->headers_in.content_length_n > (off_t) ctx->body.max) {
        return NGX_DECLINED;
    }

    if (r->headers_in.content_length_n > 0 && ctx->body.cap == 0
        && !llm_buf_grow(&ctx->body, r->headers_in.content_length_n))
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    for (cl = rb->bufs; cl; cl = cl->next) {

        b = cl->buf;

        if ((size_t) ngx_buf_size(b) > ctx->body.max - ctx->body.len) {
            return NGX_DECLINED;
        }

        if (ngx_buf_in_memory(b)) {
            llm_buf_add(&ctx->body, b->pos, b->last - b->pos);

        } else if (b->in_file && ngx_http_llm_body_file(ctx, b) != NGX_OK) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        if (ctx->body.failed) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
    }

    /* a body that is all there stays whole: mirror may want to send it on */

    if (!r->reading_body) {
        return NGX_OK;
    }

    for (cl = rb->bufs; cl; cl = cl->next) {
        cl->buf->pos = cl->buf->last;
    }

    rb->bufs = NULL;

    return NGX_OK;
}


/* another module has had the body read before us, and it went to a file */

static ngx_int_t
ngx_http_llm_body_file(ngx_http_llm_ctx_t *ctx, ngx_buf_t *b)
{
    size_t   size;
    ssize_t  n;

    size = b->file_last - b->file_pos;

    if (!llm_buf_grow(&ctx->body, size)) {
        return NGX_OK;
    }

    n = ngx_read_file(b->file, (u_char *) ctx->body.data + ctx->body.len,
                      size, b->file_pos);

    if (n != (ssize_t) size) {
        return NGX_ERROR;
    }

    ctx->body.len += size;

    return NGX_OK;
}


void
ngx_http_llm_parsed(ngx_http_llm_ctx_t *ctx, int rv)
{
    size_t               i;
    ngx_str_t            name;
    ngx_uint_t           err;
    ngx_http_request_t  *r;

    r = ctx->request;

    if (rv < 0) {
        ctx->refusal.err = -rv;
        goto refused;
    }

    if (ctx->policy && ctx->policy->max_n
        && ctx->call.head.n > (uint32_t) ctx->policy->max_n)
    {
        (void) llm_refuse(&ctx->refusal, LLM_ERR_BAD_FIELD, "n",
                          "At most %ld choices are allowed.",
                          (long) ctx->policy->max_n);
        goto refused;
    }

    ctx->parsed = 1;
    ctx->choices = ctx->call.head.n;

    if (ctx->route == LLM_ROUTE_TEXT) {
        ctx->choices *= ctx->call.prompts_n;
    }

    if (ctx->choices == 0 || ctx->choices > LLM_CHOICES_MAX) {
        ngx_http_llm_refuse(ctx, LLM_ERR_BAD_FIELD);
        goto refused;
    }

    name.data = (u_char *) ctx->call.model.data;
    name.len = ctx->call.model.len;

    /* it becomes $llm_model, and add_header writes what it is given */

    for (i = 0; i < name.len; i++) {
        if (name.data[i] < 0x20 || name.data[i] == 0x7f) {
            break;
        }
    }

    if (i == name.len) {
        ctx->model = name;
    }

    /* nothing in call points into the body */

    if (ctx->body.data) {
        (void) ngx_pfree(r->pool, ctx->body.data);
        ctx->body.data = NULL;
        ctx->body.len = 0;
        ctx->body.cap = 0;
    }

    err = LLM_ERR_NO_MEMORY;

    if (ngx_http_llm_stream_create(ctx) == NGX_OK) {

        err = ngx_http_llm_submit(ctx);

        if (err == LLM_ERR_BUSY) {
            err = ngx_http_llm_line_join(ctx);
        }
    }

    if (err == LLM_ERR_NONE) {
        ngx_http_llm_stream_start(ctx);
        return;
    }

    ngx_http_llm_refuse(ctx, err);

refused:

    ngx_http_llm_log_refusal(ctx);

    ngx_http_finalize_request(r, ngx_http_llm_end_refused(ctx));
}
