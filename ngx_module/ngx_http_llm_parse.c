
/*
 * Parsing of a request's body, beside the event loop where it is long.
 *
 * DESIGN.  A megabyte of JSON takes about ten milliseconds, and all streams of
 * the worker would wait for it.  So a body of more than 64k is parsed by a
 * thread of nginx's pool "default", as "aio threads" uses it; what is shorter
 * costs less than the way there and back.  Without threads in nginx all is
 * parsed at once.
 *
 * The thread touches what is in its task, and nothing of nginx but a pool that
 * is the task's alone: the request's is in use by the event loop.  What it has
 * found is taken over when it is back.
 *
 * Meanwhile the request is blocked, so that it is not freed under the task,
 * and the task has a timer, so that a worker which shuts down waits for it.
 * The request looks neither at its client nor at its clocks; a client that has
 * left is found when it begins to wait for its engine.  Only the end of
 * worker_shutdown_timeout can end it here: then ctx->request is gone when the
 * task is back, and what the core has left of the request is carried on.
 */


#include "ngx_http_llm_module.h"


#define NGX_HTTP_LLM_PARSE_AT_ONCE  (64 * 1024)
#define NGX_HTTP_LLM_PARSE_TIMER    60000


static void ngx_http_llm_parse_caps(ngx_http_llm_ctx_t *ctx,
    llm_caps_t *caps);


#if (NGX_THREADS)

typedef struct {
    ngx_http_request_t        *request;    /* the event loop's: not to be */
    ngx_http_llm_ctx_t        *ctx;        /* touched by the thread */

    const llm_dialect_t       *dialect;
    llm_str_t                  body;
    uint32_t                   route;
    llm_caps_t                 caps;
    ngx_pool_t                *pool;       /* what call points to */

    int                        rv;
    llm_call_t                 call;
    llm_refusal_t              refusal;
} ngx_http_llm_parse_t;


static ngx_int_t ngx_http_llm_parse_post(ngx_http_llm_ctx_t *ctx,
    llm_caps_t *caps);
static void ngx_http_llm_parse_thread(void *data, ngx_log_t *log);
static void ngx_http_llm_parse_event(ngx_event_t *ev);
static void ngx_http_llm_parse_cleanup(void *data);

#endif


ngx_int_t
ngx_http_llm_parse_init(ngx_conf_t *cf)
{
#if (NGX_THREADS)

    ngx_http_llm_main_conf_t  *lmcf;

    lmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_module);

    lmcf->thread_pool = ngx_thread_pool_add(cf, NULL);

    if (lmcf->thread_pool == NULL) {
        return NGX_ERROR;
    }

#endif

    return NGX_OK;
}


void
ngx_http_llm_parse(ngx_http_llm_ctx_t *ctx)
{
    int         rv;
    llm_str_t   body;
    llm_caps_t  caps;

    ngx_http_llm_parse_caps(ctx, &caps);

#if (NGX_THREADS)

    if (ctx->body.len > NGX_HTTP_LLM_PARSE_AT_ONCE
        && ngx_http_llm_parse_post(ctx, &caps) == NGX_OK)
    {
        return;
    }

    /* the queue is full, and has said so: one after the other then */

#endif

    body.data = ctx->body.len ? ctx->body.data : "";
    body.len = ctx->body.len;

    ctx->call_pool = ctx->request->pool;

    rv = ctx->dialect->parse(body, ctx->route, &caps, ngx_http_llm_alloc,
                             ctx->call_pool, &ctx->call, &ctx->refusal);

    ngx_http_llm_parsed(ctx, rv);
}


/* the location's limits, and the tenant's where they are tighter */

static void
ngx_http_llm_parse_caps(ngx_http_llm_ctx_t *ctx, llm_caps_t *caps)
{
    ngx_int_t  max, fallback;

    max = ctx->conf->max_tokens;
    fallback = ctx->conf->default_max_tokens;

    if (ctx->policy && ctx->policy->max_tokens
        && (max == 0 || ctx->policy->max_tokens < max))
    {
        max = ctx->policy->max_tokens;
    }

    if (max && fallback > max) {
        fallback = max;
    }

    caps->max_tokens = (uint32_t) max;
    caps->default_max_tokens = (uint32_t) fallback;
    caps->model_optional = ctx->conf->model_optional;
}


#if (NGX_THREADS)

/* NGX_OK: the rest is ngx_http_llm_parse_event()'s; NGX_ERROR: nothing is */

static ngx_int_t
ngx_http_llm_parse_post(ngx_http_llm_ctx_t *ctx, llm_caps_t *caps)
{
    ngx_pool_t                *pool;
    ngx_thread_task_t         *task;
    ngx_pool_cleanup_t        *cln;
    ngx_http_request_t        *r;
    ngx_http_llm_parse_t      *p;
    ngx_http_llm_main_conf_t  *lmcf;

    r = ctx->request;

    lmcf = ngx_http_get_module_main_conf(r, ngx_http_llm_module);

    task = ngx_thread_task_alloc(r->pool, sizeof(ngx_http_llm_parse_t));
    cln = ngx_pool_cleanup_add(r->pool, 0);

    if (task == NULL || cln == NULL) {
        return NGX_ERROR;
    }

    /* the request's log would look at the request to say whose it is */

    pool = ngx_create_pool(1024, ngx_cycle->log);
    if (pool == NULL) {
        return NGX_ERROR;
    }

    cln->handler = ngx_http_llm_parse_cleanup;
    cln->data = pool;

    p = task->ctx;

    p->request = r;
    p->ctx = ctx;
    p->dialect = ctx->dialect;
    p->body.data = ctx->body.data;
    p->body.len = ctx->body.len;
    p->route = ctx->route;
    p->caps = *caps;
    p->pool = pool;

    task->handler = ngx_http_llm_parse_thread;
    task->event.handler = ngx_http_llm_parse_event;
    task->event.data = p;
    task->event.log = ngx_cycle->log;

    if (ngx_thread_task_post(lmcf->thread_pool, task) != NGX_OK) {
        return NGX_ERROR;
    }

    r->main->blocked++;

    r->read_event_handler = ngx_http_block_reading;
    r->write_event_handler = ngx_http_request_empty_handler;

    if (r->connection->read->timer_set) {
        ngx_del_timer(r->connection->read);
    }

    ngx_add_timer(&task->event, NGX_HTTP_LLM_PARSE_TIMER);

    return NGX_OK;
}


/* in a thread of the pool */

static void
ngx_http_llm_parse_thread(void *data, ngx_log_t *log)
{
    ngx_http_llm_parse_t *p = data;

    p->rv = p->dialect->parse(p->body, p->route, &p->caps, ngx_http_llm_alloc,
                              p->pool, &p->call, &p->refusal);
}


/* the thread is done, or the timer fires: it is only there to be waited for */

static void
ngx_http_llm_parse_event(ngx_event_t *ev)
{
    ngx_connection_t      *c;
    ngx_http_request_t    *r;
    ngx_http_llm_ctx_t    *ctx;
    ngx_http_llm_parse_t  *p;

    if (ev->timedout) {
        ev->timedout = 0;
        ngx_add_timer(ev, NGX_HTTP_LLM_PARSE_TIMER);
        return;
    }

    if (ev->timer_set) {
        ngx_del_timer(ev);
    }

    p = ev->data;
    ctx = p->ctx;
    r = p->request;
    c = r->connection;

    ngx_http_set_log_request(c->log, r);

    r->main->blocked--;

    if (ctx->request == NULL) {
        r->write_event_handler(r);
        ngx_http_run_posted_requests(c);
        return;
    }

    ctx->call = p->call;
    ctx->call_pool = p->pool;
    ctx->refusal = p->refusal;

    ngx_http_llm_parsed(ctx, p->rv);

    ngx_http_run_posted_requests(c);
}


static void
ngx_http_llm_parse_cleanup(void *data)
{
    ngx_destroy_pool(data);
}

#endif
