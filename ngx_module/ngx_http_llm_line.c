
/*
 * Requests that wait in the worker.
 *
 * DESIGN.  Waiting belongs into the engine, which sees the requests of all
 * workers.  But a worker has only so many slots there, and a ring of so many
 * bytes; what does not fit at the moment waits here.  Mostly that takes a
 * millisecond, until the engine has read a long prompt.
 *
 * Each engine has a line for each tenant that waits for it, and takes from
 * them in turn, so who sends much waits behind himself only.  A line is first
 * come, first served, and nobody overtakes the one whose turn it is, else a
 * long prompt would never find room.  Requests of all lines are so many at
 * most ("queue"); one more takes the last place of the longest line, unless
 * that would make its own the longest.
 *
 * A slot that becomes free gives the next turn; room in the ring is not
 * announced, so there is a timer, too.  Who is refused is only marked here,
 * and ended when all have been looked at: the end of one request may be that
 * of others, or begin a new one.
 */


#include "ngx_http_llm_module.h"


#define NGX_HTTP_LLM_LINE_TIMER  5      /* milliseconds */


static ngx_http_llm_line_t *ngx_http_llm_line_find(ngx_http_llm_ctx_t *ctx);
static ngx_uint_t ngx_http_llm_line_displace(ngx_http_llm_peer_t *peer,
    ngx_http_llm_line_t *own);
static void ngx_http_llm_line_refuse(ngx_http_llm_ctx_t *ctx,
    ngx_uint_t err);
static void ngx_http_llm_line_turn(ngx_event_t *ev);
static void ngx_http_llm_line_expire(ngx_http_llm_peer_t *peer);


#define ngx_http_llm_line_first(line)                                         \
    ngx_queue_data(ngx_queue_head(&(line)->requests), ngx_http_llm_ctx_t,     \
                   queue)


void
ngx_http_llm_line_open(ngx_http_llm_peer_t *peer)
{
    ngx_queue_init(&peer->lines);
    ngx_queue_init(&peer->leaving);

    peer->turn.handler = ngx_http_llm_line_turn;
    peer->turn.data = peer;
    peer->turn.log = peer->log;
    peer->turn.cancelable = 1;
}


ngx_uint_t
ngx_http_llm_line_join(ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_peer_t  *peer;
    ngx_http_llm_line_t  *line;

    peer = ctx->engine->peer;
    line = ngx_http_llm_line_find(ctx);

    if (peer->waiting >= (ngx_uint_t) peer->engine->queue
        && !ngx_http_llm_line_displace(peer, line))
    {
        return LLM_ERR_BUSY;
    }

    if (line == NULL) {

        line = ngx_alloc(sizeof(ngx_http_llm_line_t) + ctx->tenant.len,
                         ctx->request->connection->log);
        if (line == NULL) {
            return LLM_ERR_NO_MEMORY;
        }

        line->peer = peer;
        line->n = 0;
        line->tenant.data = (u_char *) (line + 1);
        line->tenant.len = ctx->tenant.len;
        ngx_memcpy(line->tenant.data, ctx->tenant.data, ctx->tenant.len);

        ngx_queue_init(&line->requests);
        ngx_queue_insert_tail(&peer->lines, &line->queue);
    }

    ngx_queue_insert_tail(&line->requests, &ctx->queue);
    line->n++;
    peer->waiting++;

    ctx->line = line;
    ctx->joined = ngx_current_msec;

    if (!peer->turn.timer_set) {
        ngx_add_timer(&peer->turn, NGX_HTTP_LLM_LINE_TIMER);
    }

    return LLM_ERR_NONE;
}


void
ngx_http_llm_line_leave(ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_line_t  *line;

    line = ctx->line;

    ngx_queue_remove(&ctx->queue);
    ctx->line = NULL;

    line->n--;
    line->peer->waiting--;

    if (line->n == 0) {
        ngx_queue_remove(&line->queue);
        ngx_free(line);
    }
}


static ngx_http_llm_line_t *
ngx_http_llm_line_find(ngx_http_llm_ctx_t *ctx)
{
    ngx_queue_t          *q, *lines;
    ngx_http_llm_line_t  *line;

    lines = &ctx->engine->peer->lines;

    for (q = ngx_queue_head(lines);
         q != ngx_queue_sentinel(lines);
         q = ngx_queue_next(q))
    {
        line = ngx_queue_data(q, ngx_http_llm_line_t, queue);

        if (line->tenant.len == ctx->tenant.len
            && ngx_strncmp(line->tenant.data, ctx->tenant.data,
                           ctx->tenant.len)
               == 0)
        {
            return line;
        }
    }

    return NULL;
}


/* makes room for one more in own, which may be NULL; 0 if it must not be */

static ngx_uint_t
ngx_http_llm_line_displace(ngx_http_llm_peer_t *peer,
    ngx_http_llm_line_t *own)
{
    ngx_queue_t          *q;
    ngx_http_llm_ctx_t   *last;
    ngx_http_llm_line_t  *line, *longest;

    longest = NULL;

    for (q = ngx_queue_head(&peer->lines);
         q != ngx_queue_sentinel(&peer->lines);
         q = ngx_queue_next(q))
    {
        line = ngx_queue_data(q, ngx_http_llm_line_t, queue);

        if (longest == NULL || line->n > longest->n) {
            longest = line;
        }
    }

    if (longest == NULL || longest->n <= (own ? own->n : 0) + 1) {
        return 0;
    }

    last = ngx_queue_data(ngx_queue_last(&longest->requests),
                          ngx_http_llm_ctx_t, queue);

    ngx_http_llm_line_refuse(last, LLM_ERR_BUSY);

    ngx_post_event(&peer->turn, &ngx_posted_events);

    return 1;
}


static void
ngx_http_llm_line_refuse(ngx_http_llm_ctx_t *ctx, ngx_uint_t err)
{
    ngx_http_llm_peer_t  *peer;

    peer = ctx->line->peer;

    ngx_http_llm_line_leave(ctx);

    ngx_http_llm_stream_error(ctx, err, "", "");
    ngx_http_llm_log_refusal(ctx);

    ctx->queued = 1;
    ngx_queue_insert_tail(&peer->leaving, &ctx->queue);
}


static void
ngx_http_llm_line_turn(ngx_event_t *ev)
{
    ngx_uint_t            err;
    ngx_queue_t          *q;
    ngx_http_llm_ctx_t   *ctx;
    ngx_http_llm_line_t  *line;
    ngx_http_llm_peer_t  *peer;

    peer = ev->data;

    ngx_http_llm_line_expire(peer);

    while (!ngx_queue_empty(&peer->lines)) {

        q = ngx_queue_head(&peer->lines);
        line = ngx_queue_data(q, ngx_http_llm_line_t, queue);
        ctx = ngx_http_llm_line_first(line);

        err = ngx_http_llm_submit(ctx);

        if (err == LLM_ERR_BUSY) {
            break;
        }

        /* the next turn is another's */

        ngx_queue_remove(q);
        ngx_queue_insert_tail(&peer->lines, q);

        if (err == LLM_ERR_NONE) {
            ngx_http_llm_line_leave(ctx);

        } else {
            ngx_http_llm_line_refuse(ctx, err);
        }
    }

    ngx_http_llm_stream_flush_all(&peer->leaving, (ngx_uint_t) -1);

    if (peer->waiting && !ev->timer_set) {
        ngx_add_timer(ev, NGX_HTTP_LLM_LINE_TIMER);
    }
}


/* those that have waited for too long are the first ones of their lines */

static void
ngx_http_llm_line_expire(ngx_http_llm_peer_t *peer)
{
    ngx_uint_t            n;
    ngx_queue_t          *q, *next;
    ngx_http_llm_ctx_t   *ctx;
    ngx_http_llm_line_t  *line;

    for (q = ngx_queue_head(&peer->lines);
         q != ngx_queue_sentinel(&peer->lines);
         q = next)
    {
        next = ngx_queue_next(q);
        line = ngx_queue_data(q, ngx_http_llm_line_t, queue);

        for (n = line->n; n; n--) {

            ctx = ngx_http_llm_line_first(line);

            if (ngx_current_msec - ctx->joined < peer->engine->queue_timeout) {
                break;
            }

            /* with its last request the line is gone, too */

            ngx_http_llm_line_refuse(ctx, LLM_ERR_QUEUE_TIMEOUT);
        }
    }
}
