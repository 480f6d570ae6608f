
/*
 * From EVENT records to the client's socket.
 *
 * DESIGN.  Events only collect; ngx_http_llm_stream_flush(), once per request
 * and batch of events, sends.  The head goes out with the first bytes of the
 * answer, so what fails before has a real status.
 *
 *     tokens --> out ------> output filters --> socket
 *          \      ^ render      |
 *           \-> held            +--> spare, until the socket has taken it
 *
 * Two buffers take turns: out is filled by the dialect while spare lies in
 * nginx's chains.  When a client is slow, out grows to llm_output_buffer; from
 * then on text is held as it came, joined per choice (a token rendered as an
 * event is fifty times its text), and rendered when there is room again.
 * What is held is bounded by the credit that SUBMIT gave: `taken` is moved on
 * only when bytes have reached the socket, so the engine stops sampling, and
 * send_timeout decides about the client.  An engine that sends more than its
 * credit allows loses the request.
 *
 * A request always has a timer that is not cancelable: it is the only thing
 * for which a worker waits that shuts down gracefully.  The timer is not moved
 * with every event; it looks at the clock when it fires.
 *
 * Any function that may finalize the request does so last: ctx is gone then.
 */


#include "ngx_http_llm_module.h"


#define NGX_HTTP_LLM_TIMER     60000    /* when there is nothing to wait for */


static void ngx_http_llm_stream_abort(ngx_http_llm_ctx_t *ctx,
    ngx_uint_t err);
static void ngx_http_llm_stream_again(ngx_http_llm_ctx_t *ctx);
static void ngx_http_llm_stream_whole(ngx_http_llm_ctx_t *ctx);
static void ngx_http_llm_stream_render(ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_stream_piece(ngx_http_llm_ctx_t *ctx,
    ngx_uint_t choice);
static ngx_int_t ngx_http_llm_stream_output(ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_stream_head(ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_stream_sent(ngx_http_llm_ctx_t *ctx,
    ngx_int_t rc);
static void ngx_http_llm_stream_write(ngx_http_request_t *r);
static ngx_uint_t ngx_http_llm_stream_superseded(ngx_http_llm_ctx_t *ctx);
static void ngx_http_llm_stream_client_lost(ngx_http_llm_ctx_t *ctx);
static void ngx_http_llm_stream_timer(ngx_event_t *ev);
static ngx_msec_t ngx_http_llm_stream_next(ngx_http_llm_ctx_t *ctx);
static void ngx_http_llm_stream_finalize(ngx_http_llm_ctx_t *ctx,
    ngx_int_t rc);


ngx_int_t
ngx_http_llm_stream_create(ngx_http_llm_ctx_t *ctx)
{
    size_t               max;
    llm_answer_t        *a;
    ngx_http_request_t  *r;

    r = ctx->request;

    a = ngx_pcalloc(r->pool, sizeof(llm_answer_t));
    if (a == NULL) {
        return NGX_ERROR;
    }

    a->fingerprint.data = ngx_pnalloc(r->pool, sizeof("fp_00000000") - 1);
    if (a->fingerprint.data == NULL) {
        return NGX_ERROR;
    }

    a->call = &ctx->call;
    a->id.data = (char *) ctx->id.data;
    a->id.len = ctx->id.len;
    a->created = ngx_time();

    max = NGX_HTTP_LLM_ANSWER_MAX;

    if (ctx->call.stream) {
        max = ctx->conf->output_buffer + NGX_HTTP_LLM_RENDER_MAX;
    }

    llm_buf_init(&a->out, max, ngx_http_llm_alloc, r->pool);
    llm_buf_init(&ctx->spare, max, ngx_http_llm_alloc, r->pool);

    ctx->answer = a;

    return NGX_OK;
}


void
ngx_http_llm_stream_model(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_target_t *target)
{
    u_char        *p;
    uint32_t       fingerprint;
    llm_answer_t  *a;

    fingerprint = ngx_crc32_long(target->as.data, target->as.len)
                  ^ (uint32_t) target->created;

    a = ctx->answer;
    a->context = target->context;

    a->model.data = (char *) ctx->model.data;
    a->model.len = ctx->model.len;

    p = (u_char *) a->fingerprint.data;
    a->fingerprint.len = ngx_sprintf(p, "fp_%08xD", fingerprint) - p;
}


void
ngx_http_llm_stream_start(ngx_http_llm_ctx_t *ctx)
{
    ngx_event_t         *rev;
    ngx_connection_t    *c;
    ngx_http_request_t  *r;

    r = ctx->request;
    c = r->connection;
    rev = c->read;

    c->log->action = "waiting for llm engine";

    ctx->start = ngx_current_msec;
    ctx->last_event = ctx->start;
    ctx->last_sent = ctx->start;

    ctx->timer.handler = ngx_http_llm_stream_timer;
    ctx->timer.data = ctx;
    ctx->timer.log = c->log;
    ngx_add_timer(&ctx->timer, ngx_http_llm_stream_next(ctx));

    if (rev->timer_set) {
        ngx_del_timer(rev);
    }

    r->write_event_handler = ngx_http_llm_stream_write;

    if (ctx->conf->ignore_client_abort) {
        r->read_event_handler = ngx_http_block_reading;
        return;
    }

    r->read_event_handler = ngx_http_test_reading;

    /* a client that left during the upload has had its event already */

    if (rev->ready || rev->pending_eof) {
        ngx_post_event(rev, &ngx_posted_events);
    }
}


void
ngx_http_llm_stream_tokens(ngx_http_llm_ctx_t *ctx,
    const llm_wire_tokens_t *t, const uint8_t *text, const uint8_t *lp)
{
    int     rv;
    size_t  n, waiting;

    static const char  *finishes[LLM_FINISHES] =
        { NULL, "stop", "length", "tool_calls" };

    n = (size_t) t->text_len + t->lp_len;

    if (ctx->events && ctx->choices == 1 && t->tokens) {
        ngx_http_llm_metrics_time(ctx, LLM_SERIES_inter_token_seconds,
                                  (ngx_current_msec - ctx->last_event)
                                  / t->tokens, t->tokens);
    }

    ctx->last_event = ngx_current_msec;

    if (!ctx->events) {
        ctx->events = 1;
        ctx->first_token_time = ctx->last_event - ctx->start;

        if (!(ctx->call.head.flags & LLM_F_PROMPT)) {
            ngx_http_llm_metrics_time(ctx, LLM_SERIES_first_token_seconds,
                                      ctx->first_token_time, 1);
        }

        /* the only limit that may come sooner than what the timer waits for */

        ngx_add_timer(&ctx->timer, ngx_http_llm_stream_next(ctx));

        if (ctx->kept) {
            ngx_http_llm_submit_forget(ctx);
        }
    }

    ctx->completion_tokens += t->tokens;

    if (t->finish != LLM_FINISH_NONE && ctx->finish == NULL) {
        ctx->finish = finishes[t->finish];
    }

    if (ctx->gone) {
        ngx_http_llm_channel_taken(ctx, n);
        return;
    }

    waiting = ctx->out_payload + ctx->spare_payload + ctx->held_payload;

    if (t->choice >= ctx->choices
        || waiting + n > ctx->credit + ctx->choices * LLM_TOKENS_MAX)
    {
        ngx_log_error(NGX_LOG_ALERT, ctx->request->connection->log, 0,
                      "llm engine \"%V\" sent choice %uD of %uD, %uz bytes "
                      "on a credit of %uz", &ctx->engine->name, t->choice,
                      ctx->choices, waiting + n, ctx->credit);

        ngx_http_llm_stream_abort(ctx, LLM_ERR_PROTOCOL);
        return;
    }

    if (ctx->call.stream
        && (ctx->holding || ctx->answer->out.len >= ctx->conf->output_buffer))
    {
        if (ngx_http_llm_held_add(ctx, t, text, lp) != NGX_OK) {
            ngx_http_llm_stream_abort(ctx, LLM_ERR_NO_MEMORY);
        }

        return;
    }

    rv = ctx->dialect->tokens(ctx->answer, t, text, lp);

    if (rv < 0) {
        ngx_http_llm_stream_abort(ctx, -rv);
        return;
    }

    if (ctx->call.stream) {
        ctx->out_payload += n;

    } else {
        ngx_http_llm_channel_taken(ctx, n);
    }
}


/* the engine has counted the prompt, and waits */

void
ngx_http_llm_stream_counted(ngx_http_llm_ctx_t *ctx,
    const llm_wire_counted_t *c)
{
    ngx_uint_t  err;

    ctx->last_event = ngx_current_msec;
    ctx->prompt_tokens = c->prompt_tokens;

    err = ngx_http_llm_limit_reserve(ctx, c);

    if (err == LLM_ERR_NONE) {

        if (!ngx_http_llm_channel_admit(ctx, c->max_tokens)) {
            ngx_http_llm_stream_abort(ctx, LLM_ERR_BUSY);
        }

        return;
    }

    /* the sentence is there already */

    ngx_http_llm_log_refusal(ctx);

    ctx->end = 1;
    ctx->finish = "error";

    ngx_http_llm_channel_cancel(ctx);
}


void
ngx_http_llm_stream_done(ngx_http_llm_ctx_t *ctx, const llm_wire_done_t *d)
{
    ctx->last_event = ngx_current_msec;
    ctx->done = *d;
    ctx->end = 1;

    ctx->counted = 1;
    ctx->timed = 1;
    ctx->prompt_tokens = d->prompt_tokens;
    ctx->cached_tokens = d->cached_tokens;
    ctx->completion_tokens = d->completion_tokens;
}


void
ngx_http_llm_stream_error(ngx_http_llm_ctx_t *ctx, ngx_uint_t err,
    const char *param, const char *text)
{
    ctx->end = 1;
    ctx->finish = err == LLM_ERR_TIMEOUT ? "timeout" : "error";

    ctx->refusal.err = err ? (uint32_t) err : LLM_ERR_INTERNAL;
    (void) ngx_cpystrn((u_char *) ctx->refusal.param, (u_char *) param,
                       sizeof(ctx->refusal.param));
    (void) ngx_cpystrn((u_char *) ctx->refusal.text, (u_char *) text,
                       sizeof(ctx->refusal.text));
}


/* an end that the engine does not know of yet */

static void
ngx_http_llm_stream_abort(ngx_http_llm_ctx_t *ctx, ngx_uint_t err)
{
    ngx_http_llm_stream_error(ctx, err, "", "");

    if (ctx->line) {
        ngx_http_llm_line_leave(ctx);
    }

    ngx_http_llm_channel_cancel(ctx);
}


void
ngx_http_llm_stream_stop(ngx_http_llm_ctx_t *ctx, ngx_uint_t err)
{
    ngx_connection_t  *c;

    c = ctx->request->connection;

    ngx_http_set_log_request(c->log, ctx->request);

    ngx_http_llm_stream_abort(ctx, err);
    ngx_http_llm_stream_flush(ctx);

    ngx_http_run_posted_requests(c);
}


void
ngx_http_llm_stream_flush_all(ngx_queue_t *ready, ngx_uint_t n)
{
    ngx_queue_t         *q;
    ngx_connection_t    *c;
    ngx_http_llm_ctx_t  *ctx;

    while (n-- && !ngx_queue_empty(ready)) {

        q = ngx_queue_head(ready);
        ctx = ngx_queue_data(q, ngx_http_llm_ctx_t, queue);

        ngx_queue_remove(q);
        ctx->queued = 0;

        c = ctx->request->connection;
        ngx_http_set_log_request(c->log, ctx->request);

        ngx_http_llm_stream_flush(ctx);

        ngx_http_run_posted_requests(c);
    }
}


void
ngx_http_llm_stream_flush(ngx_http_llm_ctx_t *ctx)
{
    ngx_int_t  rc;

    if (ngx_http_llm_stream_superseded(ctx)) {
        ngx_http_llm_stream_cleanup(ctx);
        return;
    }

    if (ctx->again && !ctx->end) {
        ngx_http_llm_stream_again(ctx);
    }

    if (ctx->refusal.err && !ctx->head_sent) {
        ngx_http_llm_stream_finalize(ctx, ngx_http_llm_send_refusal(ctx));
        return;
    }

    if (!ctx->call.stream) {
        if (ctx->end) {
            ngx_http_llm_stream_whole(ctx);
        }

        return;
    }

    if (ctx->gone) {
        if (ctx->end) {
            ngx_http_llm_stream_finalize(ctx, NGX_ERROR);
        }

        return;
    }

    while (!ctx->blocked) {

        ngx_http_llm_stream_render(ctx);

        if (ctx->answer->out.len == 0 && !ctx->ended) {
            return;
        }

        rc = ngx_http_llm_stream_output(ctx);

        if (rc == NGX_ERROR) {
            ngx_http_llm_stream_client_lost(ctx);
            return;
        }

        if (rc > NGX_OK || ctx->ended) {
            ngx_http_llm_stream_finalize(ctx, rc);
            return;
        }
    }
}


/* its engine did not take it: does another one? */

static void
ngx_http_llm_stream_again(ngx_http_llm_ctx_t *ctx)
{
    ngx_uint_t  err, why;

    why = ctx->again;
    ctx->again = LLM_ERR_NONE;

    /* the timer has been first */

    if (ctx->queued) {
        ngx_queue_remove(&ctx->queue);
        ctx->queued = 0;
    }

    err = ngx_http_llm_submit(ctx);

    if (err == LLM_ERR_BUSY) {
        err = ngx_http_llm_line_join(ctx);
    }

    if (err == LLM_ERR_NONE) {
        ngx_log_error(NGX_LOG_NOTICE, ctx->request->connection->log, 0,
                      "llm request goes on to engine \"%V\": %s",
                      &ctx->engine->name, llm_err(why)->code);
        return;
    }

    ngx_http_llm_stream_error(ctx, why, "", "");
}


/* an answer in one piece */

static void
ngx_http_llm_stream_whole(ngx_http_llm_ctx_t *ctx)
{
    int                  rv;
    ngx_int_t            rc;
    ngx_str_t            value;
    ngx_http_request_t  *r;

    r = ctx->request;

    rv = ctx->dialect->done(ctx->answer, &ctx->done);

    if (rv < 0) {
        ngx_http_llm_stream_error(ctx, -rv, "", "");
        rc = ngx_http_llm_send_refusal(ctx);

    } else {
        ngx_str_set(&value, "no-cache");
        rc = ngx_http_llm_add_header(r, "Cache-Control", &value);

        if (rc == NGX_OK) {
            rc = ngx_http_llm_limit_headers(ctx);
        }

        if (rc == NGX_OK) {
            rc = ngx_http_llm_send(r, NGX_HTTP_OK,
                                   ctx->dialect->content_type(&ctx->call),
                                   &ctx->answer->out);
        }
    }

    ngx_http_llm_stream_finalize(ctx, rc);
}


/* fills out from what is held, then with the end if it has come */

static void
ngx_http_llm_stream_render(ngx_http_llm_ctx_t *ctx)
{
    int                   rv;
    llm_buf_t            *out;
    ngx_uint_t            i;
    ngx_http_llm_held_t  *h;

    out = &ctx->answer->out;

    for (i = 0; ctx->holding && i < ctx->choices; i++) {

        h = &ctx->held[i];

        while (h->tokens || h->finish || h->text.len || h->logprobs.len) {

            if (out->len >= ctx->conf->output_buffer) {
                return;
            }

            if (ngx_http_llm_stream_piece(ctx, i) != NGX_OK) {
                break;
            }
        }
    }

    ctx->holding = 0;

    if (!ctx->end || ctx->ended) {
        return;
    }

    rv = 0;

    if (ctx->refusal.err == LLM_ERR_NONE) {
        rv = ctx->dialect->done(ctx->answer, &ctx->done);

        if (rv < 0) {
            ngx_http_llm_stream_error(ctx, -rv, "", "");
        }
    }

    if (ctx->refusal.err) {
        if (ctx->refusal.err == LLM_ERR_CANCELLED) {
            ctx->refusal.err = LLM_ERR_INTERNAL;
        }

        rv = ctx->dialect->error(out, &ctx->refusal, 1);
    }

    if (rv < 0) {
        ngx_log_error(NGX_LOG_ERR, ctx->request->connection->log, 0,
                      "llm answer ends without its last event: %s",
                      llm_err(-rv)->code);
    }

    ctx->ended = 1;
}


/* renders some of a choice's held text; NGX_ERROR when that failed all */

static ngx_int_t
ngx_http_llm_stream_piece(ngx_http_llm_ctx_t *ctx, ngx_uint_t choice)
{
    int                rv;
    const uint8_t     *text, *lp;
    llm_wire_tokens_t  t;

    ngx_http_llm_held_piece(ctx, choice, &t, &text, &lp);

    rv = ctx->dialect->tokens(ctx->answer, &t, text, lp);

    if (rv < 0) {
        ctx->holding = 0;
        ngx_http_llm_stream_abort(ctx, -rv);
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* out to the client; out is empty afterwards */

static ngx_int_t
ngx_http_llm_stream_output(ngx_http_llm_ctx_t *ctx)
{
    ngx_int_t            rc;
    ngx_buf_t           *b;
    llm_buf_t            tmp, *out;
    ngx_chain_t         *cl;
    ngx_http_request_t  *r;

    r = ctx->request;
    out = &ctx->answer->out;

    if (!ctx->head_sent) {
        rc = ngx_http_llm_stream_head(ctx);

        if (rc == NGX_ERROR || rc > NGX_OK) {
            return rc;
        }
    }

    cl = ngx_chain_get_free_buf(r->pool, &ctx->free);
    if (cl == NULL) {
        return NGX_ERROR;
    }

    b = cl->buf;
    ngx_memzero(b, sizeof(ngx_buf_t));

    b->start = (u_char *) out->data;
    b->pos = b->start;
    b->last = b->start + out->len;
    b->end = b->last;
    b->tag = (ngx_buf_tag_t) &ngx_http_llm_module;
    b->temporary = out->len ? 1 : 0;
    b->flush = 1;
    b->last_buf = ctx->ended;
    b->last_in_chain = ctx->ended;

    tmp = ctx->spare;
    ctx->spare = *out;
    *out = tmp;
    out->len = 0;

    ctx->spare_payload = ctx->out_payload;
    ctx->out_payload = 0;

    ctx->last_sent = ngx_current_msec;

    rc = ngx_http_output_filter(r, cl);

    ngx_chain_update_chains(r->pool, &ctx->free, &ctx->busy, &cl,
                            (ngx_buf_tag_t) &ngx_http_llm_module);

    return ngx_http_llm_stream_sent(ctx, rc);
}


static ngx_int_t
ngx_http_llm_stream_head(ngx_http_llm_ctx_t *ctx)
{
    ngx_str_t                  value;
    const char                *type;
    ngx_connection_t          *c;
    ngx_http_request_t        *r;
    ngx_http_core_loc_conf_t  *clcf;

    r = ctx->request;
    c = r->connection;

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    /* else a token would wait for the client to acknowledge the last one */

    if (clcf->tcp_nodelay && ngx_tcp_nodelay(c) != NGX_OK) {
        return NGX_ERROR;
    }

    c->log->action = "sending to client";

    type = ctx->dialect->content_type(&ctx->call);

    r->headers_out.status = NGX_HTTP_OK;
    r->headers_out.content_type.data = (u_char *) type;
    r->headers_out.content_type.len = ngx_strlen(type);
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;

    ngx_http_clear_content_length(r);
    ngx_http_clear_accept_ranges(r);

    ngx_str_set(&value, "no-cache");

    if (ngx_http_llm_add_header(r, "Cache-Control", &value) != NGX_OK) {
        return NGX_ERROR;
    }

    /* for an nginx in front of us */

    ngx_str_set(&value, "no");

    if (ngx_http_llm_add_header(r, "X-Accel-Buffering", &value) != NGX_OK
        || ngx_http_llm_limit_headers(ctx) != NGX_OK)
    {
        return NGX_ERROR;
    }

    ctx->head_sent = 1;

    return ngx_http_send_header(r);
}


/* what became of a write: rc, or NGX_ERROR; credit, blocked, timer */

static ngx_int_t
ngx_http_llm_stream_sent(ngx_http_llm_ctx_t *ctx, ngx_int_t rc)
{
    ngx_event_t               *wev;
    ngx_connection_t          *c;
    ngx_http_request_t        *r;
    ngx_http_core_loc_conf_t  *clcf;

    r = ctx->request;
    c = r->connection;
    wev = c->write;

    if (rc == NGX_ERROR || c->error) {
        return NGX_ERROR;
    }

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    if (rc == NGX_AGAIN || ctx->busy) {

        ctx->blocked = 1;

        /* limit_rate has armed the timer for its own delay */

        if (!wev->delayed) {
            ngx_add_timer(wev, clcf->send_timeout);
        }

        /*
         * TLS may keep back the end of a write, a chunk's CRLF, though the
         * socket is not full, and no event will come to tell that it is not.
         */

        if ((c->buffered & NGX_LOWLEVEL_BUFFERED)
            && wev->ready && !wev->delayed)
        {
            ngx_post_event(wev, &ngx_posted_next_events);
        }

    } else {
        ctx->blocked = 0;

        if (wev->timer_set && !wev->delayed) {
            ngx_del_timer(wev);
        }

        ngx_http_llm_channel_taken(ctx, ctx->spare_payload);
        ctx->spare_payload = 0;
    }

    if (ngx_handle_write_event(wev, clcf->send_lowat) != NGX_OK) {
        return NGX_ERROR;
    }

    return rc;
}


static void
ngx_http_llm_stream_write(ngx_http_request_t *r)
{
    ngx_int_t            rc;
    ngx_event_t         *wev;
    ngx_chain_t         *out;
    ngx_connection_t    *c;
    ngx_http_llm_ctx_t  *ctx;

    c = r->connection;
    wev = c->write;

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_module);

    if (wev->timedout) {
        ngx_log_error(NGX_LOG_INFO, c->log, NGX_ETIMEDOUT,
                      "client timed out");
        c->timedout = 1;
        ngx_http_llm_stream_finalize(ctx, NGX_HTTP_REQUEST_TIME_OUT);
        return;
    }

    if (!ctx->blocked || wev->delayed) {
        if (ngx_handle_write_event(wev, 0) != NGX_OK) {
            ngx_http_llm_stream_finalize(ctx, NGX_ERROR);
        }

        return;
    }

    rc = ngx_http_output_filter(r, NULL);

    out = NULL;

    ngx_chain_update_chains(r->pool, &ctx->free, &ctx->busy, &out,
                            (ngx_buf_tag_t) &ngx_http_llm_module);

    rc = ngx_http_llm_stream_sent(ctx, rc);

    if (rc == NGX_ERROR) {
        ngx_http_llm_stream_client_lost(ctx);
        return;
    }

    if (!ctx->blocked) {

        /* the engine may have waited for credit until now */

        ctx->last_event = ngx_current_msec;

        ngx_http_llm_stream_flush(ctx);
    }
}


/*
 * Has the request become another one?  post_action begins a new one in the
 * place of one whose client has left, error_page in the place of one that a
 * header filter has refused.  Neither runs cleanups; what shows is that the
 * contexts have been cleared.
 */

static ngx_uint_t
ngx_http_llm_stream_superseded(ngx_http_llm_ctx_t *ctx)
{
    return ctx->request == NULL
           || ngx_http_get_module_ctx(ctx->request, ngx_http_llm_module)
              != ctx;
}


/* writing has failed */

static void
ngx_http_llm_stream_client_lost(ngx_http_llm_ctx_t *ctx)
{
    if (!ctx->conf->ignore_client_abort || ctx->end
        || ngx_http_llm_stream_superseded(ctx))
    {
        ngx_http_llm_stream_finalize(ctx, NGX_ERROR);
        return;
    }

    /* the answer is of use to the log only, and keeps no credit back */

    ctx->gone = 1;
    ctx->blocked = 0;

    if (ctx->request->connection->write->timer_set) {
        ngx_del_timer(ctx->request->connection->write);
    }

    ngx_http_llm_channel_taken(ctx, ctx->out_payload + ctx->spare_payload
                                    + ctx->held_payload);
    ctx->out_payload = 0;
    ctx->spare_payload = 0;
    ctx->held_payload = 0;
    ctx->holding = 0;
}


static void
ngx_http_llm_stream_timer(ngx_event_t *ev)
{
    ngx_msec_t                now, limit, woke;
    ngx_connection_t         *c;
    ngx_http_llm_ctx_t       *ctx;
    ngx_http_llm_loc_conf_t  *conf;

    ctx = ev->data;
    conf = ctx->conf;
    c = ctx->request->connection;
    now = ngx_current_msec;

    ngx_http_set_log_request(c->log, ctx->request);

    if (!ctx->end) {

        /*
         * the time in which this worker stood still is not the engine's: its
         * events may lie in the ring, or wait until there is room
         */

        if (ctx->channel) {
            woke = ngx_http_llm_channel_woke(ctx->channel);

            if ((ngx_msec_int_t) (woke - ctx->last_event) > 0) {
                ctx->last_event = woke;
            }
        }

        limit = ctx->events ? conf->token_timeout : conf->first_token_timeout;

        if ((conf->request_timeout
             && now - ctx->start >= conf->request_timeout)
            || (limit && !ctx->blocked && now - ctx->last_event >= limit))
        {
            ngx_log_error(NGX_LOG_ERR, c->log, NGX_ETIMEDOUT,
                          "llm engine \"%V\" timed out", &ctx->engine->name);

            ngx_http_llm_stream_abort(ctx, LLM_ERR_TIMEOUT);

        } else if (conf->ping_interval && ctx->call.stream && !ctx->blocked
                   && !ctx->gone
                   && now - ctx->last_sent >= conf->ping_interval)
        {
            (void) ctx->dialect->ping(&ctx->answer->out);
            ctx->last_sent = now;
        }
    }

    ngx_add_timer(ev, ngx_http_llm_stream_next(ctx));

    ngx_http_llm_stream_flush(ctx);

    ngx_http_run_posted_requests(c);
}


/* how long until the timer has something to look at */

static ngx_msec_t
ngx_http_llm_stream_next(ngx_http_llm_ctx_t *ctx)
{
    ngx_msec_t                now, limit, next, left;
    ngx_http_llm_loc_conf_t  *conf;

    conf = ctx->conf;
    now = ngx_current_msec;
    next = NGX_HTTP_LLM_TIMER;

    if (ctx->end) {
        return next;
    }

#define ngx_http_llm_stream_until(since, period)                              \
    if (period) {                                                             \
        left = now - (since) < (period) ? (period) - (now - (since)) : 1;     \
        next = ngx_min(next, left);                                           \
    }

    limit = ctx->events ? conf->token_timeout : conf->first_token_timeout;

    ngx_http_llm_stream_until(ctx->start, conf->request_timeout);

    if (ctx->blocked) {
        ngx_http_llm_stream_until(now, limit);

    } else {
        ngx_http_llm_stream_until(ctx->last_event, limit);
    }

    if (ctx->call.stream && !ctx->gone) {

        if (ctx->blocked) {
            ngx_http_llm_stream_until(now, conf->ping_interval);

        } else {
            ngx_http_llm_stream_until(ctx->last_sent, conf->ping_interval);
        }
    }

    return next;
}


static void
ngx_http_llm_stream_finalize(ngx_http_llm_ctx_t *ctx, ngx_int_t rc)
{
    ngx_http_request_t  *r;

    r = ctx->request;

    /*
     * A header filter that turned the answer into an error page has ended the
     * request already; what is left of it is posted.
     */

    if (r == NULL) {
        return;
    }

    /*
     * Whatever becomes of the request, a last write or a post_action, is the
     * core's affair, and its timers'.
     */

    ngx_http_llm_stream_cleanup(ctx);

    ngx_http_finalize_request(r, rc);
}


/*
 * Lets go of the request; also runs when it ends, and with its pool.  One that
 * ends before its terminal event leaves the slot to the channel.
 */

void
ngx_http_llm_stream_cleanup(void *data)
{
    ngx_http_llm_ctx_t *ctx = data;

    if (ctx->request == NULL) {
        return;
    }

    if (ctx->timer.timer_set) {
        ngx_del_timer(&ctx->timer);
    }

    if (ctx->queued) {
        ngx_queue_remove(&ctx->queue);
        ctx->queued = 0;
    }

    if (ctx->line) {
        ngx_http_llm_line_leave(ctx);
    }

    if (ctx->channel) {
        ctx->finish = "abort";
        ngx_http_llm_channel_cancel(ctx);
    }

    ngx_http_llm_metrics_ended(ctx);
    ngx_http_llm_usage_ended(ctx);

    ctx->request = NULL;
}
