
/*
 * What a tenant and its key have left: requests a minute before the body is
 * read, tokens and budgets when the engine has counted the prompt.
 *
 * DESIGN.  Everything is asked for before it is used.  A request that may use
 * n choices of m tokens reserves the prompt and n x m, from the tenant and
 * from the key, all or nothing; nothing runs before that (LLM_F_HOLD, COUNTED,
 * ADMIT).  At its end, whatever that is, what was not used goes back (rows.c).
 * So no number of requests at a time comes past a limit, and no stream does by
 * being long.
 *
 * What can never fit is the client's mistake: 400.  What fits later is 429,
 * with the time.
 */


#include "ngx_http_llm_module.h"


#define NGX_HTTP_LLM_SECOND  1000000000ull


static ngx_uint_t ngx_http_llm_limit_payers(ngx_http_llm_ctx_t *ctx,
    llm_payer_t *payer);
static ngx_uint_t ngx_http_llm_limit_refuse(ngx_http_llm_ctx_t *ctx,
    llm_meter_t rv, llm_refusal_of_t *why);
static ngx_int_t ngx_http_llm_limit_retry(ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_limit_header(ngx_http_llm_ctx_t *ctx,
    const char *key, const char *fmt, uint64_t value);


static ngx_uint_t
ngx_http_llm_limit_payers(ngx_http_llm_ctx_t *ctx, llm_payer_t *payer)
{
    ngx_uint_t   i, n;
    llm_row_t   *row;

    row = ctx->usage->row;
    n = 0;

    for (i = 0; i < 2; i++) {
        if (row->payers[i].used) {
            payer[n].account =
                &ctx->usage->zone->ledger.accounts[row->payers[i].account];
            payer[n].limits = &row->payers[i].limits;
            n++;
        }
    }

    return n;
}


ngx_uint_t
ngx_http_llm_limit_ask(ngx_http_llm_ctx_t *ctx)
{
    llm_row_t        *row;
    ngx_uint_t        n;
    llm_meter_t       rv;
    llm_payer_t       payer[2];
    llm_refusal_of_t  why;

    if (ctx->usage == NULL) {
        return LLM_ERR_NONE;
    }

    row = ctx->usage->row;

    if (row->payers[0].used
        && __atomic_load_n(&ctx->usage->zone->ledger.accounts
                           [row->payers[0].account].blocked,
                           __ATOMIC_RELAXED))
    {
        ngx_http_llm_refuse(ctx, LLM_ERR_BLOCKED);
        return LLM_ERR_BLOCKED;
    }

    if (ctx->policy == NULL || !ctx->policy->limited) {
        return LLM_ERR_NONE;
    }

    /* what cannot be counted has nothing left */

    if (!row->payers[0].used || (ctx->key_id.len && !row->payers[1].used)) {
        ngx_http_llm_refuse(ctx, LLM_ERR_BUSY);
        return LLM_ERR_BUSY;
    }

    n = ngx_http_llm_limit_payers(ctx, payer);

    ctx->limit_status = NGX_HTTP_LLM_LIMIT_PASSED;

    rv = llm_ledger_ask(payer, n, ngx_http_llm_now(), &why);

    return rv == LLM_METER_TAKEN ? LLM_ERR_NONE
                                 : ngx_http_llm_limit_refuse(ctx, rv, &why);
}


ngx_uint_t
ngx_http_llm_limit_reserve(ngx_http_llm_ctx_t *ctx,
    const llm_wire_counted_t *counted)
{
    uint64_t          cost, now;
    ngx_uint_t        n;
    llm_row_t        *row;
    llm_meter_t       rv;
    llm_payer_t       payer[2];
    llm_refusal_of_t  why;

    if (ctx->policy && ctx->policy->max_input_tokens
        && counted->prompt_tokens > (uint32_t) ctx->policy->max_input_tokens)
    {
        (void) llm_refuse(&ctx->refusal, LLM_ERR_CONTEXT_FULL, NULL,
                          "The prompt has %u tokens; %ld are allowed.",
                          counted->prompt_tokens,
                          (long) ctx->policy->max_input_tokens);
        return LLM_ERR_CONTEXT_FULL;
    }

    if (ctx->usage == NULL) {
        return LLM_ERR_NONE;
    }

    row = ctx->usage->row;
    row->prompt = counted->prompt_tokens;
    row->choices = counted->choices;

    if (ctx->policy == NULL || !ctx->policy->metered) {
        return LLM_ERR_NONE;
    }

    /* that was for an engine that has not done it */

    if (row->reserved) {
        return LLM_ERR_NONE;
    }

    /* cached tokens are known at the end; until then they are as the others */

    cost = (uint64_t) counted->prompt_tokens
           * ngx_max(row->weights[0], row->weights[1])
           + (uint64_t) counted->choices * counted->max_tokens
             * row->weights[2];

    if (cost == 0) {
        return LLM_ERR_NONE;
    }

    now = ngx_http_llm_now();
    n = ngx_http_llm_limit_payers(ctx, payer);

    rv = llm_ledger_reserve(payer, n, cost, now, &why);

    if (rv != LLM_METER_TAKEN) {
        return ngx_http_llm_limit_refuse(ctx, rv, &why);
    }

    row->reserved_at = now;
    row->reserved = cost;

    return LLM_ERR_NONE;
}


static ngx_uint_t
ngx_http_llm_limit_refuse(ngx_http_llm_ctx_t *ctx, llm_meter_t rv,
    llm_refusal_of_t *why)
{
    int          err;
    const char  *whose;

    static const char  *limits[] = {
        "", "requests a minute", "tokens a minute", "tokens of today",
        "tokens of this month"
    };

    whose = ctx->key_id.len && why->payer ? "key" : "tenant";

    if (rv == LLM_METER_NEVER) {
        err = llm_refuse(&ctx->refusal, LLM_ERR_TOKENS_NEVER, NULL,
                         "The request could use more tokens than the limit of "
                         "this %s allows at once: its prompt and max_tokens "
                         "must be less.", whose);

    } else {
        err = llm_refuse(&ctx->refusal,
                         why->limit == LLM_LIMIT_REQUESTS
                         ? LLM_ERR_RATE_REQUESTS
                         : why->limit == LLM_LIMIT_TOKENS
                           ? LLM_ERR_RATE_TOKENS : LLM_ERR_QUOTA, NULL,
                         "The %s of this %s are used up; try again in %llu "
                         "seconds.", limits[why->limit], whose,
                         (unsigned long long) (why->wait / NGX_HTTP_LLM_SECOND
                                               + 1));
        ctx->retry_after = why->wait;
    }

    ctx->limit_reason = why->limit;

    ngx_log_error(ctx->conf->limit_log_level,
                  ctx->request->connection->log, 0, "llm limit%s: %s",
                  ctx->conf->limit_dry_run ? ", dry run" : "",
                  ctx->refusal.text);

    ctx->limit_status = NGX_HTTP_LLM_LIMIT_REJECTED;

    if (ctx->conf->limit_dry_run) {
        ctx->limit_status = NGX_HTTP_LLM_LIMIT_REJECTED_DRY_RUN;
        ngx_memzero(&ctx->refusal, sizeof(llm_refusal_t));
        ctx->retry_after = 0;
        return LLM_ERR_NONE;
    }

    return -err;
}


/*
 * x-ratelimit-*: of tenant and key that which has less left; reset is when it
 * has all of it again.
 */

ngx_int_t
ngx_http_llm_limit_headers(ngx_http_llm_ctx_t *ctx)
{
    uint64_t           left, full, now, unit, least;
    ngx_uint_t         i, k, n, best;
    llm_payer_t        payer[2];
    const uint64_t    *word;
    const llm_rate_t  *rate[2];

    static const char  *names[2][3] = {
        { "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests",
          "x-ratelimit-reset-requests" },
        { "x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens",
          "x-ratelimit-reset-tokens" }
    };

    /* an engine that refuses says when to come back, limits or not */

    if (ctx->usage == NULL || ctx->policy == NULL || !ctx->policy->limited
        || !ctx->conf->limit_headers)
    {
        return ngx_http_llm_limit_retry(ctx);
    }

    now = ngx_http_llm_now();
    n = ngx_http_llm_limit_payers(ctx, payer);

    for (k = 0; k < 2; k++) {

        unit = k ? LLM_LEDGER_UNIT : 1;
        best = n;
        least = 0;

        for (i = 0; i < n; i++) {

            rate[i] = k ? &payer[i].limits->tokens
                        : &payer[i].limits->requests;
            word = k ? &payer[i].account->tokens
                     : &payer[i].account->requests;

            if (rate[i]->limit == 0) {
                continue;
            }

            llm_bucket_look(word, rate[i], now, &left, &full);

            if (best == n || left < least) {
                best = i;
                least = left;
            }
        }

        if (best == n) {
            continue;
        }

        word = k ? &payer[best].account->tokens
                 : &payer[best].account->requests;

        llm_bucket_look(word, rate[best], now, &left, &full);

        if (ngx_http_llm_limit_header(ctx, names[k][0], "%uL",
                                      rate[best]->limit / unit)
               != NGX_OK
            || ngx_http_llm_limit_header(ctx, names[k][1], "%uL", left / unit)
               != NGX_OK
            || ngx_http_llm_limit_header(ctx, names[k][2], "%uLms",
                                         (full + 999999) / 1000000)
               != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return ngx_http_llm_limit_retry(ctx);
}


static ngx_int_t
ngx_http_llm_limit_retry(ngx_http_llm_ctx_t *ctx)
{
    if (ctx->retry_after) {

        if (ngx_http_llm_limit_header(ctx, "Retry-After", "%uL",
                                      ctx->retry_after / NGX_HTTP_LLM_SECOND
                                      + 1)
               != NGX_OK
            || ngx_http_llm_limit_header(ctx, "retry-after-ms", "%uL",
                                         ctx->retry_after / 1000000 + 1)
               != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_limit_header(ngx_http_llm_ctx_t *ctx, const char *key,
    const char *fmt, uint64_t value)
{
    ngx_str_t  s;

    s.data = ngx_pnalloc(ctx->request->pool, NGX_INT64_LEN + sizeof("ms"));
    if (s.data == NULL) {
        return NGX_ERROR;
    }

    s.len = ngx_sprintf(s.data, fmt, value) - s.data;

    return ngx_http_llm_add_header(ctx->request, key, &s);
}
