
/*
 * A request that has been parsed becomes a SUBMIT record of an engine.
 *
 * DESIGN.  Submitting is all or nothing, and the event loop waits for no
 * engine: there is a slot and room in the ring, or the request stands in line
 * (ngx_http_llm_line.c).
 *
 * Where several engines have the model, an engine that goes before it has
 * given the first token takes no request with it: what was asked is kept until
 * then, and another engine gets it.  One that is full or about to end, and has
 * said so, has not been tried at all.  But one that is lost may have died of
 * this very request, so only one more is put at risk.  What was reserved for
 * the request stays reserved.
 */


#include "ngx_http_llm_module.h"


#define NGX_HTTP_LLM_EXTRAS  3

#define ngx_http_llm_section_size(n)                                          \
    (sizeof(llm_wire_sec_t) + ngx_align((uint64_t) (n), 8))


static ngx_uint_t ngx_http_llm_submit_record(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_target_t *target);
static llm_str_t *ngx_http_llm_submit_extra(llm_call_t *call, ngx_uint_t i);
static size_t ngx_http_llm_submit_size(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_target_t *target);
static void ngx_http_llm_submit_head(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_target_t *target);
static u_char *ngx_http_llm_section(u_char *p, uint32_t type,
    const void *data, size_t len);


ngx_uint_t
ngx_http_llm_submit(ngx_http_llm_ctx_t *ctx)
{
    ngx_uint_t             err;
    ngx_http_llm_target_t  target;

    err = ngx_http_llm_target(ctx, &target);

    if (err != LLM_ERR_NONE && err != LLM_ERR_BUSY) {
        return err;
    }

    ctx->engine = target.engine;
    ctx->model = target.name;

    if (!ngx_http_llm_may_use(ctx, &target.name)) {
        return LLM_ERR_MODEL_DENIED;
    }

    /* those that stand in line are first */

    if (err == LLM_ERR_BUSY
        || (target.engine->peer->waiting && ctx->line == NULL))
    {
        return LLM_ERR_BUSY;
    }

    err = ngx_http_llm_submit_record(ctx, &target);

    if (err == LLM_ERR_NONE) {
        ctx->target = target.index;
        ctx->kept = target.several;

        if (!ctx->kept) {
            ngx_http_llm_submit_forget(ctx);
        }
    }

    return err;
}


ngx_uint_t
ngx_http_llm_submit_again(ngx_http_llm_ctx_t *ctx, ngx_uint_t err)
{
    if (!ctx->kept || ctx->events || ctx->end) {
        return 0;
    }

    if (err == LLM_ERR_ENGINE_LOST) {

        if (ctx->lost) {
            return 0;
        }

        ctx->lost = 1;

    } else if (err != LLM_ERR_DRAINING && err != LLM_ERR_BUSY) {
        return 0;
    }

    ctx->tried |= (uint64_t) 1 << ctx->target;
    ctx->again = err;

    return 1;
}


/*
 * The prompt is with the engine now, or will be with none.  It may be a
 * megabyte, and the answer may take minutes.  What is too small to be given
 * back stays.
 */

void
ngx_http_llm_submit_forget(ngx_http_llm_ctx_t *ctx)
{
    uint32_t     i;
    llm_str_t   *extra;
    ngx_pool_t  *pool;

    ctx->kept = 0;

    pool = ctx->call_pool;

    if (ctx->call.messages.data) {
        (void) ngx_pfree(pool, (void *) ctx->call.messages.data);
        ngx_memzero(&ctx->call.messages, sizeof(llm_str_t));
    }

    if (ctx->call.grammar.data) {
        (void) ngx_pfree(pool, (void *) ctx->call.grammar.data);
        ngx_memzero(&ctx->call.grammar, sizeof(llm_str_t));
    }

    for (i = 0; i < NGX_HTTP_LLM_EXTRAS; i++) {
        extra = ngx_http_llm_submit_extra(&ctx->call, i);

        if (extra->data) {
            (void) ngx_pfree(pool, (void *) extra->data);
            ngx_memzero(extra, sizeof(llm_str_t));
        }
    }

    for (i = 0; i < ctx->call.prompts_n; i++) {
        (void) ngx_pfree(pool, (void *) ctx->call.prompts[i].data);
        ngx_memzero(&ctx->call.prompts[i], sizeof(llm_str_t));
    }
}


/* LLM_ERR_NONE, or why not */

static ngx_uint_t
ngx_http_llm_submit_record(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_target_t *target)
{
    size_t                   len;
    u_char                  *p;
    uint32_t                 i;
    llm_str_t               *extra;
    llm_call_t              *call;
    ngx_http_llm_channel_t  *ch;

    call = &ctx->call;
    ch = target->channel;

    len = ngx_http_llm_submit_size(ctx, target);

    if (len > llm_ring_record_max(&ch->submit)) {
        return LLM_ERR_BODY_LARGE;
    }

    /*
     * An answer in one piece is collected at once and waits for no one, so
     * its credit is as much as the engine grants.
     */

    ctx->credit = ch->credit_max;

    if (call->stream && ctx->conf->output_buffer < ctx->credit) {
        ctx->credit = ctx->conf->output_buffer;
    }

    ngx_http_llm_submit_head(ctx, target);

    p = ngx_http_llm_channel_reserve(ch, (uint32_t) len, &call->head);
    if (p == NULL) {
        return LLM_ERR_BUSY;
    }

    ngx_http_llm_stream_model(ctx, target);

    p = ngx_cpymem(p, &call->head, sizeof(llm_wire_submit_t));

    p = ngx_http_llm_section(p, LLM_SEC_MODEL, target->as.data,
                             target->as.len);
    p = ngx_http_llm_section(p, LLM_SEC_REQUEST_ID, ctx->id.data,
                             ctx->id.len);

    if (ctx->tenant.len) {
        p = ngx_http_llm_section(p, LLM_SEC_TENANT, ctx->tenant.data,
                                 ctx->tenant.len);
    }

    if (call->salt.len) {
        p = ngx_http_llm_section(p, LLM_SEC_SALT, call->salt.data,
                                 call->salt.len);
    }

    if (call->grammar.len) {
        p = ngx_http_llm_section(p, LLM_SEC_GRAMMAR, call->grammar.data,
                                 call->grammar.len);
    }

    if (call->head.kind == LLM_KIND_CHAT) {
        p = ngx_http_llm_section(p, LLM_SEC_MESSAGES, call->messages.data,
                                 call->messages.len);

        for (i = 0; i < NGX_HTTP_LLM_EXTRAS; i++) {
            extra = ngx_http_llm_submit_extra(call, i);

            if (extra->len) {
                p = ngx_http_llm_section(p, LLM_SEC_TOOLS + i, extra->data,
                                         extra->len);
            }
        }

    } else {
        for (i = 0; i < call->prompts_n; i++) {
            p = ngx_http_llm_section(p, call->prompt_is_ids[i]
                                        ? LLM_SEC_PROMPT_IDS : LLM_SEC_PROMPT,
                                     call->prompts[i].data,
                                     call->prompts[i].len);
        }
    }

    for (i = 0; i < call->stops_n; i++) {
        p = ngx_http_llm_section(p, LLM_SEC_STOP, call->stops[i].data,
                                 call->stops[i].len);
    }

    if (call->bias_n) {
        (void) ngx_http_llm_section(p, LLM_SEC_BIAS, call->bias,
                                    call->bias_n * sizeof(llm_wire_bias_t));
    }

    ngx_http_llm_channel_commit(ch, ctx);

    return LLM_ERR_NONE;
}


/* what a template gets beside the messages, in the order of LLM_SEC_TOOLS on */

static llm_str_t *
ngx_http_llm_submit_extra(llm_call_t *call, ngx_uint_t i)
{
    llm_str_t *const  extras[NGX_HTTP_LLM_EXTRAS] =
        { &call->tools, &call->documents, &call->kwargs };

    return extras[i];
}


/* of the record, bytes */

static size_t
ngx_http_llm_submit_size(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_target_t *target)
{
    size_t       len;
    uint32_t     i;
    llm_str_t   *extra;
    llm_call_t  *call;

    call = &ctx->call;

    len = sizeof(llm_wire_submit_t)
          + ngx_http_llm_section_size(target->as.len)
          + ngx_http_llm_section_size(ctx->id.len);

    if (ctx->tenant.len) {
        len += ngx_http_llm_section_size(ctx->tenant.len);
    }

    if (call->salt.len) {
        len += ngx_http_llm_section_size(call->salt.len);
    }

    if (call->grammar.len) {
        len += ngx_http_llm_section_size(call->grammar.len);
    }

    if (call->head.kind == LLM_KIND_CHAT) {
        len += ngx_http_llm_section_size(call->messages.len);

        for (i = 0; i < NGX_HTTP_LLM_EXTRAS; i++) {
            extra = ngx_http_llm_submit_extra(call, i);

            if (extra->len) {
                len += ngx_http_llm_section_size(extra->len);
            }
        }

    } else {
        for (i = 0; i < call->prompts_n; i++) {
            len += ngx_http_llm_section_size(call->prompts[i].len);
        }
    }

    for (i = 0; i < call->stops_n; i++) {
        len += ngx_http_llm_section_size(call->stops[i].len);
    }

    if (call->bias_n) {
        len += ngx_http_llm_section_size(call->bias_n
                                         * sizeof(llm_wire_bias_t));
    }

    return len;
}


static void
ngx_http_llm_submit_head(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_target_t *target)
{
    llm_wire_submit_t      *head;
    ngx_http_llm_tenant_t  *policy;

    head = &ctx->call.head;
    policy = ctx->policy;

    head->head_len = sizeof(llm_wire_submit_t);
    head->credit = (uint32_t) ctx->credit;
    head->first_ms = (uint32_t) ctx->conf->first_token_timeout;
    head->weight = 1;

    if (policy) {
        head->weight = (uint32_t) policy->weight;
        head->priority = (uint32_t) policy->priority;

        head->concurrent = (uint32_t) target->concurrent;
        head->queue_max = (uint32_t) policy->queue;
        head->queue_ms = (uint32_t) policy->queue_timeout;
    }

    /* what runs no model costs no tokens */

    if ((ctx->usage || (policy && policy->max_input_tokens))
        && !(head->flags & LLM_F_PROMPT))
    {
        head->flags |= LLM_F_HOLD;
    }
}


static u_char *
ngx_http_llm_section(u_char *p, uint32_t type, const void *data, size_t len)
{
    size_t          pad;
    llm_wire_sec_t  sec;

    sec.type = type;
    sec.len = (uint32_t) len;

    p = ngx_cpymem(p, &sec, sizeof(llm_wire_sec_t));

    if (len) {
        p = ngx_cpymem(p, data, len);
    }

    pad = ngx_align(len, 8) - len;
    ngx_memzero(p, pad);

    return p + pad;
}
