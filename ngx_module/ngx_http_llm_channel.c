
/*
 * A channel at work: rings, doorbell, slots, heartbeat, and what happens when
 * an engine goes.
 *
 * DESIGN.  One channel is one attachment: a SOCK_SEQPACKET connection, the
 * segment with the two rings, and a table of slots.  The socket is an nginx
 * connection like any other; after the handshake (ngx_http_llm_attach.c) it
 * carries doorbell bytes, then EOF, which is how either side learns of the
 * other's death.
 *
 *     peer->channel --+-- EOF, no heartbeat, nonsense --> lost: requests fail
 *                     |
 *                     +-- state page says draining --> peer->draining, until
 *                                                      the last slot is free
 *
 * One whose engine has a successor already takes requests until the channel to
 * that one is there, so that no request comes in between.
 *
 * A turn is bounded: after NGX_HTTP_LLM_BATCH records and NGX_HTTP_LLM_FLUSH
 * requests the rest waits for the next turn of the event loop, else a fast
 * engine and slow clients would keep timers and new requests from ever
 * running.  A record only marks its request as ready; ready ones are flushed
 * in their order, each in one write, whatever has come for it until then.  A
 * turn takes in four times as many records as it makes writes, as a write
 * costs about four records: so a worker that falls behind joins events and
 * catches up, and one that does not writes each at once.
 *
 * A slot belongs to the channel, not to the request: when a client leaves,
 * the request is gone at once, and the slot stays until its terminal event,
 * its events being swallowed (and called taken, so that no lack of credit can
 * keep the engine from coming to the end).
 *
 * The engine's memory is input.  Records are judged in a private copy;
 * nonsense costs the attachment: it is dropped, logged at ALERT, and the
 * requests fail.
 *
 * Shutdown.  A worker that shuts down gracefully keeps its channels until it
 * exits: a client whose request is just being read (TLS handshake, body) is
 * as entitled to an answer as one whose stream runs, and the timers of
 * requests, not connections, are what nginx waits for.  When
 * worker_shutdown_timeout is over the requests fail.
 */


#include "ngx_http_llm_module.h"


#define NGX_HTTP_LLM_BATCH        1024  /* records per turn */
#define NGX_HTTP_LLM_FLUSH        256   /* writes per turn */
#define NGX_HTTP_LLM_BELLS        64    /* doorbell messages per turn */


static ngx_int_t ngx_http_llm_channel_bells(ngx_http_llm_channel_t *ch);
static ngx_int_t ngx_http_llm_channel_drain(ngx_http_llm_channel_t *ch);
static ngx_int_t ngx_http_llm_channel_record(ngx_http_llm_channel_t *ch,
    u_char *rec, uint32_t len);
static ngx_int_t ngx_http_llm_channel_terminal(ngx_http_llm_channel_t *ch,
    uint32_t n, u_char *rec, uint32_t len);
static void ngx_http_llm_channel_slot_ended(ngx_http_llm_slot_t *slot,
    ngx_uint_t again);
static void ngx_http_llm_channel_line(ngx_http_llm_channel_t *ch);
static void ngx_http_llm_channel_ring(ngx_http_llm_channel_t *ch);
static void ngx_http_llm_channel_draining(ngx_http_llm_channel_t *ch,
    uint32_t draining);
static void ngx_http_llm_channel_lost(ngx_http_llm_channel_t *ch,
    ngx_uint_t level, const char *why);


ngx_http_llm_channel_t *
ngx_http_llm_channel_get(ngx_http_llm_engine_t *engine, ngx_uint_t *err)
{
    uint32_t                 draining;
    ngx_http_llm_channel_t  *ch;

    *err = LLM_ERR_NO_ENGINE;

    if (engine->peer == NULL || engine->peer->channel == NULL) {
        return NULL;
    }

    ch = engine->peer->channel;

    if (ch->eof) {
        return NULL;
    }

    draining = __atomic_load_n(&ch->state->draining, __ATOMIC_RELAXED);

    if (draining) {
        ngx_http_llm_channel_draining(ch, draining);

        if (ch->retired) {
            *err = LLM_ERR_DRAINING;
            return NULL;
        }
    }

    if (!__atomic_load_n(&ch->state->ready, __ATOMIC_RELAXED)) {
        return NULL;
    }

    return ch;
}


void
ngx_http_llm_channel_read_handler(ngx_event_t *rev)
{
    ngx_connection_t        *c;
    ngx_http_llm_channel_t  *ch;

    c = rev->data;
    ch = c->data;

    if (c->close) {

        /*
         * With c->error worker_shutdown_timeout is over.  Without it the
         * worker begins to shut down gracefully: see on top.
         */

        if (c->error) {
            if (ch->segment == NULL) {
                ngx_http_llm_channel_close(ch);

            } else {
                ngx_http_llm_channel_lost(ch, NGX_LOG_NOTICE,
                                          "worker shutdown timeout");
            }

            return;
        }

        c->close = 0;
    }

    if (ch->segment == NULL) {
        ngx_http_llm_channel_handshake(ch);
        return;
    }

    if (ngx_http_llm_channel_bells(ch) == NGX_ERROR && !ch->eof) {
        ch->eof = 1;
        ch->eof_pos = ch->event.pos;
    }

    ngx_http_llm_channel_process(ch);
}


/* takes the doorbell's bytes; NGX_ERROR when the engine has gone */

static ngx_int_t
ngx_http_llm_channel_bells(ngx_http_llm_channel_t *ch)
{
    char          buf[64];
    ssize_t       n;
    ngx_uint_t    i;
    ngx_event_t  *rev;

    rev = ch->connection->read;

    for (i = 0; i < NGX_HTTP_LLM_BELLS; i++) {

        n = recv(ch->connection->fd, buf, sizeof(buf), MSG_DONTWAIT);

        if (n > 0) {
            continue;
        }

        if (n == -1 && ngx_socket_errno == NGX_EINTR) {
            continue;
        }

        if (n == -1 && ngx_socket_errno == NGX_EAGAIN) {
            rev->ready = 0;
            return NGX_OK;
        }

        return NGX_ERROR;
    }

    /* the rest is taken next time: ready stays set */

    return NGX_OK;
}


void
ngx_http_llm_channel_process(ngx_http_llm_channel_t *ch)
{
    ngx_int_t     rc;
    ngx_event_t  *rev;

    rev = ch->connection->read;

    ch->processing = 1;
    ch->bell = 0;

    rc = ngx_http_llm_channel_drain(ch);

    ngx_http_llm_stream_flush_all(&ch->ready, NGX_HTTP_LLM_FLUSH);

    ch->processing = 0;

    if (ch->bell) {
        ngx_http_llm_channel_line(ch);
    }

    if (rc == NGX_ERROR) {
        ngx_http_llm_channel_lost(ch, NGX_LOG_ALERT,
                                  "wrote nonsense into its ring");
        return;
    }

    if (ch->eof && (rc == NGX_OK
                    || ch->event.pos - ch->eof_pos > ch->event.size))
    {
        ngx_http_llm_channel_lost(ch, NGX_LOG_ERR, "closed the connection");
        return;
    }

    if (rc == NGX_AGAIN || rev->ready || !ngx_queue_empty(&ch->ready)) {
        ngx_post_event(rev, &ngx_posted_next_events);
        return;
    }

    if (ch->retired && ch->used == 0) {
        ngx_http_llm_channel_close(ch);
        return;
    }

    if (ngx_handle_read_event(rev, 0) != NGX_OK) {
        ngx_http_llm_channel_lost(ch, NGX_LOG_ALERT, "adding an event failed");
    }
}


/*
 * NGX_OK: empty, and the engine knows that we sleep.  NGX_AGAIN: there is
 * more.  NGX_ERROR: nonsense.
 */

static ngx_int_t
ngx_http_llm_channel_drain(ngx_http_llm_channel_t *ch)
{
    int64_t     n;
    ngx_uint_t  i;

    union {
        uint64_t  align;
        u_char    data[LLM_TOKENS_MAX];
    } rec;

    for (i = 0; i < NGX_HTTP_LLM_BATCH; i++) {

        n = llm_ring_peek(&ch->event, rec.data, LLM_TOKENS_MAX);

        if (n == LLM_RING_EMPTY) {

            if (ch->eof || llm_ring_may_sleep(&ch->event)) {
                return NGX_OK;
            }

            continue;
        }

        if (n < 0) {
            return NGX_ERROR;
        }

        llm_ring_advance(&ch->event);

        if (ngx_http_llm_channel_record(ch, rec.data, (uint32_t) n)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_AGAIN;
}


/* one event, in private memory; each begins with header and id */

static ngx_int_t
ngx_http_llm_channel_record(ngx_http_llm_channel_t *ch, u_char *rec,
    uint32_t len)
{
    size_t                n;
    const uint8_t        *text, *lp;
    llm_wire_id_t         id;
    llm_ring_hdr_t        hdr;
    llm_wire_tokens_t     tokens;
    llm_wire_counted_t    counted;
    ngx_http_llm_ctx_t   *ctx;
    ngx_http_llm_slot_t  *slot;

    if (len < sizeof(hdr) + sizeof(id)) {
        return NGX_ERROR;
    }

    ngx_memcpy(&hdr, rec, sizeof(hdr));
    ngx_memcpy(&id, rec + sizeof(hdr), sizeof(id));

    if (id.epoch != ch->epoch || id.slot >= ch->slots_n) {
        return NGX_ERROR;
    }

    slot = &ch->slots[id.slot];

    if (!slot->used || slot->gen != id.gen) {
        return NGX_ERROR;
    }

    ctx = slot->ctx;

    /* nothing runs before ADMIT */

    if (slot->held
        && (hdr.type == LLM_REC_TOKENS || hdr.type == LLM_REC_DONE))
    {
        return NGX_ERROR;
    }

    if (hdr.type == LLM_REC_TOKENS) {

        if (!llm_tokens_ok(rec, len, &tokens, &text, &lp)) {
            return NGX_ERROR;
        }

        n = (size_t) tokens.text_len + tokens.lp_len;
        slot->received += n;

        if (slot->usage) {
            slot->usage->row->completion += tokens.tokens;
        }

        if (ctx == NULL) {
            slot->taken = slot->received;
            __atomic_store_n(&ch->lines[id.slot].taken, slot->taken,
                             __ATOMIC_RELAXED);
            ch->bell = 1;
            return NGX_OK;
        }

        ngx_http_llm_stream_tokens(ctx, &tokens, text, lp);

    } else if (hdr.type == LLM_REC_COUNTED) {

        if (!slot->held
            || !llm_wire_read(&counted, sizeof(counted), LLM_COUNTED_MIN,
                              rec, len))
        {
            return NGX_ERROR;
        }

        slot->held = 0;

        /* whoever has left is cancelled already */

        if (ctx == NULL) {
            return NGX_OK;
        }

        ngx_http_llm_stream_counted(ctx, &counted);

    } else {

        if (ngx_http_llm_channel_terminal(ch, id.slot, rec, len) != NGX_OK) {
            return NGX_ERROR;
        }

        if (ctx == NULL) {
            return NGX_OK;
        }
    }

    if (!ctx->queued) {
        ctx->queued = 1;
        ngx_queue_insert_tail(&ch->ready, &ctx->queue);
    }

    return NGX_OK;
}


/* the last record of a slot, which is free then; it has no ctx any more */

static ngx_int_t
ngx_http_llm_channel_terminal(ngx_http_llm_channel_t *ch, uint32_t n,
    u_char *rec, uint32_t len)
{
    llm_ring_hdr_t        hdr;
    llm_wire_done_t       done;
    llm_wire_error_t      error;
    ngx_uint_t            again;
    ngx_http_llm_ctx_t   *ctx;
    ngx_http_llm_slot_t  *slot;

    ngx_memcpy(&hdr, rec, sizeof(hdr));

    slot = &ch->slots[n];
    ctx = slot->ctx;
    again = 0;

    if (hdr.type == LLM_REC_DONE
        && llm_wire_read(&done, sizeof(done), LLM_DONE_MIN, rec, len))
    {
        ngx_http_llm_usage_counted(slot, done.prompt_tokens,
                                   done.cached_tokens,
                                   done.completion_tokens);

    } else if (hdr.type == LLM_REC_ERROR
               && llm_wire_read(&error, sizeof(error), LLM_ERROR_MIN, rec,
                                len))
    {
        error.param[sizeof(error.param) - 1] = '\0';
        error.text[sizeof(error.text) - 1] = '\0';
        ngx_http_llm_usage_counted(slot, error.prompt_tokens, 0,
                                   error.completion_tokens);

        again = ctx && ngx_http_llm_submit_again(ctx, error.err);

    } else {
        return NGX_ERROR;
    }

    ngx_http_llm_channel_slot_ended(slot, again);

    slot->used = 0;
    slot->next = ch->free;
    ch->free = n;
    ch->used--;

    if (ch->peer->waiting) {
        ngx_post_event(&ch->peer->turn, &ngx_posted_events);
    }

    ch->peer->delay = ch->peer->engine->reconnect_min;

    if (ctx == NULL || again) {
        return NGX_OK;
    }

    if (hdr.type == LLM_REC_DONE) {
        ngx_http_llm_stream_done(ctx, &done);
        return NGX_OK;
    }

    ctx->prompt_tokens = error.prompt_tokens;
    ctx->completion_tokens = error.completion_tokens;
    ctx->counted = 1;

    if (error.retry_ms) {
        ctx->retry_after = (uint64_t) error.retry_ms * 1000000;
    }

    ngx_http_llm_stream_error(ctx, error.err, error.param, error.text);

    return NGX_OK;
}


/* slot and request part; one that goes on elsewhere takes its usage along */

static void
ngx_http_llm_channel_slot_ended(ngx_http_llm_slot_t *slot, ngx_uint_t again)
{
    if (slot->ctx) {
        slot->ctx->channel = NULL;
        slot->ctx = NULL;
    }

    if (again) {
        ngx_http_llm_usage_slot_left(slot);

    } else {
        ngx_http_llm_usage_slot_ended(slot);
    }
}


u_char *
ngx_http_llm_channel_reserve(ngx_http_llm_channel_t *ch, uint32_t len,
    llm_wire_submit_t *head)
{
    void                 *p;
    uint32_t              keep;
    ngx_http_llm_slot_t  *slot;

    if (ch->free == ch->slots_n) {
        return NULL;
    }

    /* those that are held may have to be admitted yet */

    keep = ngx_min(ch->slots_n * (uint32_t) sizeof(llm_wire_admit_t),
                   ch->submit.size / 4);

    p = llm_ring_reserve(&ch->submit, len, keep);
    if (p == NULL) {
        return NULL;
    }

    slot = &ch->slots[ch->free];

    slot->gen++;

    if (slot->gen == 0) {
        slot->gen = 1;
    }

    head->hdr.len = len;
    head->hdr.type = LLM_REC_SUBMIT;
    head->hdr.flags = 0;
    head->id.epoch = ch->epoch;
    head->id.slot = ch->free;
    head->id.gen = slot->gen;

    return p;
}


void
ngx_http_llm_channel_commit(ngx_http_llm_channel_t *ch,
    ngx_http_llm_ctx_t *ctx)
{
    uint32_t              n;
    ngx_http_llm_slot_t  *slot;

    n = ch->free;
    slot = &ch->slots[n];

    ch->free = slot->next;
    ch->used++;

    slot->used = 1;
    slot->ctx = ctx;
    slot->received = 0;
    slot->taken = 0;

    ctx->channel = ch;
    ctx->slot = n;

    slot->held = (ctx->call.head.flags & LLM_F_HOLD) != 0;
    ngx_http_llm_usage_submit(ctx, slot);

    /* seen by the engine before the record is: commit releases */

    __atomic_store_n(&ch->lines[n].taken, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&ch->lines[n].cancel, 0, __ATOMIC_RELAXED);

    llm_ring_commit(&ch->submit);

    if (llm_ring_must_wake(&ch->submit)) {
        ngx_http_llm_channel_ring(ch);
    }
}


ngx_uint_t
ngx_http_llm_channel_admit(ngx_http_llm_ctx_t *ctx, uint32_t max_tokens)
{
    void                    *p;
    llm_wire_admit_t         admit;
    ngx_http_llm_channel_t  *ch;

    ch = ctx->channel;

    p = llm_ring_reserve(&ch->submit, sizeof(llm_wire_admit_t), 0);
    if (p == NULL) {
        return 0;
    }

    ngx_memzero(&admit, sizeof(llm_wire_admit_t));

    admit.hdr.len = sizeof(llm_wire_admit_t);
    admit.hdr.type = LLM_REC_ADMIT;
    admit.id.epoch = ch->epoch;
    admit.id.slot = ctx->slot;
    admit.id.gen = ch->slots[ctx->slot].gen;
    admit.max_tokens = max_tokens;

    ngx_memcpy(p, &admit, sizeof(llm_wire_admit_t));

    llm_ring_commit(&ch->submit);

    if (llm_ring_must_wake(&ch->submit)) {
        ngx_http_llm_channel_ring(ch);
    }

    return 1;
}


void
ngx_http_llm_channel_taken(ngx_http_llm_ctx_t *ctx, size_t n)
{
    ngx_http_llm_slot_t     *slot;
    ngx_http_llm_channel_t  *ch;

    ch = ctx->channel;

    if (ch == NULL || n == 0) {
        return;
    }

    slot = &ch->slots[ctx->slot];
    slot->taken += n;

    __atomic_store_n(&ch->lines[ctx->slot].taken, slot->taken,
                     __ATOMIC_RELAXED);

    ngx_http_llm_channel_line(ch);
}


void
ngx_http_llm_channel_cancel(ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_slot_t     *slot;
    ngx_http_llm_channel_t  *ch;

    ch = ctx->channel;

    if (ch == NULL) {
        return;
    }

    slot = &ch->slots[ctx->slot];

    slot->ctx = NULL;
    slot->taken = slot->received;
    ctx->channel = NULL;

    __atomic_store_n(&ch->lines[ctx->slot].taken, slot->taken,
                     __ATOMIC_RELAXED);
    __atomic_store_n(&ch->lines[ctx->slot].cancel, slot->gen,
                     __ATOMIC_RELAXED);

    ngx_http_llm_channel_line(ch);
}


/*
 * A slot's line has changed: wakes the engine's loop if it sleeps, once for
 * all lines that change in a batch.
 */

static void
ngx_http_llm_channel_line(ngx_http_llm_channel_t *ch)
{
    llm_seg_head_t  *head;

    if (ch->processing) {
        ch->bell = 1;
        return;
    }

    head = (llm_seg_head_t *) (void *) ch->segment;

    if (__atomic_exchange_n(&head->line_sleeps, 0, __ATOMIC_SEQ_CST)) {
        ngx_http_llm_channel_ring(ch);
    }
}


static void
ngx_http_llm_channel_ring(ngx_http_llm_channel_t *ch)
{
    /*
     * EAGAIN says that it has been rung often enough; any other error will
     * come as EOF too.
     */

    if (send(ch->connection->fd, "", 1, MSG_DONTWAIT|MSG_NOSIGNAL) == -1) {
        ngx_log_debug0(NGX_LOG_DEBUG_HTTP, ch->peer->log, ngx_socket_errno,
                       "llm doorbell");
    }
}


/*
 * The engine is to end.  If it has a successor it is as good as that until we
 * are attached there; else it takes no more requests, and one is looked for.
 */

static void
ngx_http_llm_channel_draining(ngx_http_llm_channel_t *ch, uint32_t draining)
{
    ngx_http_llm_peer_t  *peer;

    peer = ch->peer;

    if (draining != LLM_DRAIN_SUCCEEDED) {
        ngx_http_llm_channel_retire(ch);

    } else if (!ch->succeeded) {
        ch->succeeded = 1;
        peer->delay = 0;
    }

    ngx_http_llm_channel_again(peer);
}


/*
 * The channel gets no more requests, and keeps those it has.  Called from
 * requests too, so it does not close.
 */

void
ngx_http_llm_channel_retire(ngx_http_llm_channel_t *ch)
{
    ngx_http_llm_peer_t  *peer;

    peer = ch->peer;

    ngx_log_error(NGX_LOG_NOTICE, peer->log, 0,
                  "llm engine \"%V\" is draining: pid %P, epoch %uD, "
                  "%uD requests left", &peer->engine->name, ch->pid,
                  ch->epoch, ch->used);

    ch->retired = 1;
    ngx_queue_insert_tail(&peer->draining, &ch->queue);

    peer->channel = NULL;

    /* at once: the successor may be listening already */

    peer->delay = 0;
}


/* a tick that is overdue by half a period: nobody was here to look */

ngx_msec_t
ngx_http_llm_channel_woke(ngx_http_llm_channel_t *ch)
{
    ngx_msec_int_t  late;

    late = (ngx_msec_int_t) (ngx_current_msec - ch->tick_due);

    return late > (ngx_msec_int_t) (ch->peer->engine->heartbeat / 2)
           ? ngx_current_msec : ch->woke;
}


/* the engine's words must move, and its state page is looked at */

void
ngx_http_llm_channel_tick(ngx_event_t *ev)
{
    uint32_t                 draining;
    uint64_t                 beat;
    ngx_uint_t               i, stuck;
    ngx_msec_t               period;
    ngx_http_llm_channel_t  *ch;

    ch = ev->data;
    period = ch->peer->engine->heartbeat;
    ch->woke = ngx_http_llm_channel_woke(ch);
    stuck = 0;

    for (i = 0; i < LLM_THREADS; i++) {

        beat = __atomic_load_n(&ch->state->heartbeat[i], __ATOMIC_RELAXED);

        if (beat == ch->heartbeat[i]) {
            stuck = 1;
        }

        ch->heartbeat[i] = beat;
    }

    if (!stuck) {
        ch->alive = ngx_current_msec;
        ch->misses = 0;
        ch->peer->delay = ch->peer->engine->reconnect_min;

    } else if (ch->woke != ngx_current_msec) {

        /* a worker that was late itself has no say in others' lateness */

        ch->misses++;
    }

    if (ch->misses >= ch->peer->engine->fails) {
        ngx_http_llm_channel_lost(ch, NGX_LOG_ERR, "shows no heartbeat");
        return;
    }

    draining = __atomic_load_n(&ch->state->draining, __ATOMIC_RELAXED);

    if (draining && !ch->retired) {
        ngx_http_llm_channel_draining(ch, draining);
    }

    if (ch->retired && ch->used == 0 && ngx_queue_empty(&ch->ready)) {
        ngx_http_llm_channel_close(ch);
        return;
    }

    ch->tick_due = ngx_current_msec + period;
    ngx_add_timer(ev, period);
}


/*
 * The attachment is over: its requests fail, or another engine gets them, and
 * a new one is tried for.  ch is gone afterwards.
 */

static void
ngx_http_llm_channel_lost(ngx_http_llm_channel_t *ch, ngx_uint_t level,
    const char *why)
{
    uint32_t              i;
    ngx_uint_t            again;
    ngx_queue_t           lost;
    ngx_http_llm_ctx_t   *ctx;
    ngx_http_llm_slot_t  *slot;
    ngx_http_llm_peer_t  *peer;

    peer = ch->peer;

    ngx_log_error(level, peer->log, 0,
                  "llm engine \"%V\" %s: pid %P, epoch %uD, %uD requests in "
                  "progress", &peer->engine->name, why, ch->pid, ch->epoch,
                  ch->used);

    /* what has come is delivered, and with it goes the head of an answer */

    ngx_http_llm_stream_flush_all(&ch->ready, (ngx_uint_t) -1);

    ngx_queue_init(&lost);

    for (i = 0; i < ch->slots_n; i++) {

        slot = &ch->slots[i];
        ctx = slot->ctx;

        again = ctx && ngx_http_llm_submit_again(ctx, LLM_ERR_ENGINE_LOST);

        ngx_http_llm_channel_slot_ended(slot, again);

        if (ctx == NULL) {
            continue;
        }

        if (ctx->queued) {
            ngx_queue_remove(&ctx->queue);
        }

        ctx->queued = 1;
        ngx_queue_insert_tail(&lost, &ctx->queue);

        if (!again) {
            ngx_http_llm_stream_error(ctx, LLM_ERR_ENGINE_LOST, "", "");
        }
    }

    if (!ch->retired) {
        peer->channel = NULL;
        ngx_http_llm_channel_again(peer);
    }

    ngx_http_llm_channel_close(ch);

    ngx_http_llm_stream_flush_all(&lost, (ngx_uint_t) -1);
}
