
/*
 * What /metrics and /status tell of tenants: how their requests ended, what
 * they used, how long they waited.
 *
 * DESIGN.  Times are observed by the worker as its client sees them, and added
 * to the tenant's series (tenant/series.h) in the shared zone, so any worker
 * can print the sum of all.  Tokens are those of the usage log: added when a
 * row is closed, also another's.  Requests in progress are not counted
 * anywhere, but read off the rows, so no kill can leave one behind.
 */


#include "ngx_http_llm_module.h"


typedef struct {
    llm_buf_t                 *out;
    ngx_http_llm_zone_t       *zone;
    uint32_t                  *open;       /* requests, of each series */
} ngx_http_llm_metrics_t;


static ngx_uint_t ngx_http_llm_metrics_end(ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_metrics_count(ngx_http_request_t *r,
    ngx_http_llm_metrics_t *m);
static ngx_uint_t ngx_http_llm_metrics_skip(ngx_http_llm_metrics_t *m,
    ngx_uint_t i);
static const char *ngx_http_llm_metrics_name(ngx_http_llm_metrics_t *m,
    ngx_uint_t i);
static void ngx_http_llm_metrics_label(ngx_http_llm_metrics_t *m,
    const char *name, const char *suffix, ngx_uint_t i);
static void ngx_http_llm_metrics_tokens(ngx_http_llm_metrics_t *m,
    const char *name, const char *help, size_t offset);
static void ngx_http_llm_metrics_budgets(ngx_http_llm_metrics_t *m,
    ngx_uint_t limit);
static void ngx_http_llm_metrics_times(ngx_http_llm_metrics_t *m,
    const char *name, const char *help, ngx_uint_t which);
static void ngx_http_llm_metrics_seconds(llm_buf_t *out, uint64_t ms);


static const char  *ngx_http_llm_series_ends[] = {
#define X(name)  #name,
    LLM_SERIES_ENDS(X)
#undef X
};


void
ngx_http_llm_metrics_begin(ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_zone_t       *zone;
    ngx_http_llm_main_conf_t  *lmcf;

    lmcf = ngx_http_get_module_main_conf(ctx->request, ngx_http_llm_module);
    zone = lmcf->zone;

    if (zone) {
        ctx->series = &zone->series.series[LLM_SERIES_NONE];
    }
}


void
ngx_http_llm_metrics_time(ngx_http_llm_ctx_t *ctx, ngx_uint_t which,
    uint64_t ms, uint64_t n)
{
    if (ctx->series) {
        llm_series_time(ctx->series, (uint32_t) which, ms, n);
    }
}


void
ngx_http_llm_metrics_ended(ngx_http_llm_ctx_t *ctx)
{
    if (ctx->series == NULL) {
        return;
    }

    llm_series_end(ctx->series, (uint32_t) ngx_http_llm_metrics_end(ctx));

    if (ctx->start) {
        llm_series_time(ctx->series, LLM_SERIES_request_seconds,
                        ngx_current_msec - ctx->start, 1);
    }

    if (ctx->timed) {
        llm_series_time(ctx->series, LLM_SERIES_queue_seconds,
                        ctx->done.queue_us / 1000, 1);
    }

    if (ctx->usage == NULL) {
        ngx_http_llm_metrics_used(ctx->series, ctx->prompt_tokens,
                                  ctx->cached_tokens, ctx->completion_tokens);
    }
}


void
ngx_http_llm_metrics_used(llm_series_t *s, uint64_t prompt, uint64_t cached,
    uint64_t completion)
{
    (void) __atomic_add_fetch(&s->prompt, prompt, __ATOMIC_RELAXED);
    (void) __atomic_add_fetch(&s->cached, cached, __ATOMIC_RELAXED);
    (void) __atomic_add_fetch(&s->completion, completion, __ATOMIC_RELAXED);
}


static ngx_uint_t
ngx_http_llm_metrics_end(ngx_http_llm_ctx_t *ctx)
{
    ngx_uint_t  status;

    status = ctx->request->headers_out.status;

    if (status == 0 || status == NGX_HTTP_CLIENT_CLOSED_REQUEST
        || (ctx->finish && ngx_strcmp(ctx->finish, "abort") == 0))
    {
        return LLM_SERIES_END_abort;
    }

    /* another module's, or ours, whatever llm_limit_status is */

    if (status == NGX_HTTP_TOO_MANY_REQUESTS
        || (ctx->refusal.err && !ctx->head_sent
            && llm_err(ctx->refusal.err)->http == NGX_HTTP_TOO_MANY_REQUESTS))
    {
        return LLM_SERIES_END_refused;
    }

    if (status >= NGX_HTTP_INTERNAL_SERVER_ERROR) {
        return LLM_SERIES_END_server_error;
    }

    if (status >= NGX_HTTP_BAD_REQUEST) {
        return LLM_SERIES_END_client_error;
    }

    /* a stream whose head was out when it failed */

    return ctx->refusal.err ? LLM_SERIES_END_server_error : LLM_SERIES_END_ok;
}


/* requests in progress, of each series; one pass over all rows */

static ngx_int_t
ngx_http_llm_metrics_count(ngx_http_request_t *r, ngx_http_llm_metrics_t *m)
{
    uint32_t       i, account;
    llm_series_t  *s;

    m->open = ngx_pcalloc(r->pool, m->zone->series.n * sizeof(uint32_t));
    if (m->open == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < m->zone->rows.n; i++) {

        if (!llm_rows_tenant(&m->zone->rows, i, &account)) {
            continue;
        }

        s = llm_series_get(&m->zone->series, account);
        m->open[s - m->zone->series.series]++;
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_llm_metrics_json(ngx_http_request_t *r, llm_buf_t *out,
    ngx_http_llm_zone_t *zone)
{
    ngx_uint_t               i, k, n;
    llm_series_t            *s;
    ngx_http_llm_metrics_t   m;

    m.out = out;
    m.zone = zone;

    if (ngx_http_llm_metrics_count(r, &m) != NGX_OK) {
        return NGX_ERROR;
    }

    n = 0;

    for (i = 0; i < zone->series.n; i++) {

        if (ngx_http_llm_metrics_skip(&m, i)) {
            continue;
        }

        s = &zone->series.series[i];

        llm_buf_str(out, n++ ? ",{\"name\":\"" : "{\"name\":\"");
        llm_buf_str(out, ngx_http_llm_metrics_name(&m, i));
        llm_buf_lit(out, "\",\"open\":");
        llm_buf_u64(out, m.open[i]);
        llm_buf_lit(out, ",\"requests\":{");

        for (k = 0; k < LLM_SERIES_ENDS_N; k++) {
            llm_buf_str(out, k ? ",\"" : "\"");
            llm_buf_str(out, ngx_http_llm_series_ends[k]);
            llm_buf_lit(out, "\":");
            llm_buf_u64(out, __atomic_load_n(&s->ends[k], __ATOMIC_RELAXED));
        }

        llm_buf_lit(out, "},\"prompt_tokens\":");
        llm_buf_u64(out, __atomic_load_n(&s->prompt, __ATOMIC_RELAXED));
        llm_buf_lit(out, ",\"cached_tokens\":");
        llm_buf_u64(out, __atomic_load_n(&s->cached, __ATOMIC_RELAXED));
        llm_buf_lit(out, ",\"completion_tokens\":");
        llm_buf_u64(out, __atomic_load_n(&s->completion, __ATOMIC_RELAXED));
        llm_buf_lit(out, "}");
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_llm_metrics_prometheus(ngx_http_request_t *r, llm_buf_t *out,
    ngx_http_llm_zone_t *zone)
{
    ngx_uint_t               i, k;
    llm_series_t            *s;
    ngx_http_llm_metrics_t   m;

    m.out = out;
    m.zone = zone;

    if (ngx_http_llm_metrics_count(r, &m) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_llm_status_head(out, "tenant_requests_total", "counter",
                              "requests, by how they ended");

    for (i = 0; i < zone->series.n; i++) {

        s = &zone->series.series[i];

        for (k = 0; k < LLM_SERIES_ENDS_N; k++) {

            if (ngx_http_llm_metrics_skip(&m, i)) {
                continue;
            }

            ngx_http_llm_metrics_label(&m, "tenant_requests_total", "", i);
            llm_buf_lit(out, ",end=\"");
            llm_buf_str(out, ngx_http_llm_series_ends[k]);
            llm_buf_lit(out, "\"} ");
            llm_buf_u64(out, __atomic_load_n(&s->ends[k], __ATOMIC_RELAXED));
            llm_buf_lit(out, "\n");
        }
    }

    ngx_http_llm_status_head(out, "tenant_requests_open", "gauge",
                              "requests in progress, of known tenants");

    for (i = 0; i < zone->series.n; i++) {

        if (i == LLM_SERIES_NONE || ngx_http_llm_metrics_skip(&m, i)) {
            continue;
        }

        ngx_http_llm_metrics_label(&m, "tenant_requests_open", "", i);
        llm_buf_lit(out, "} ");
        llm_buf_u64(out, m.open[i]);
        llm_buf_lit(out, "\n");
    }

    ngx_http_llm_metrics_tokens(&m, "tenant_prompt_tokens_total",
                                "prompt tokens of ended requests",
                                offsetof(llm_series_t, prompt));
    ngx_http_llm_metrics_tokens(&m, "tenant_cached_tokens_total",
                                "of them, those from the prefix cache",
                                offsetof(llm_series_t, cached));
    ngx_http_llm_metrics_tokens(&m, "tenant_completion_tokens_total",
                                "tokens of answers that ended",
                                offsetof(llm_series_t, completion));

    ngx_http_llm_metrics_budgets(&m, 0);
    ngx_http_llm_metrics_budgets(&m, 1);

#define X(name, help)                                                         \
    ngx_http_llm_metrics_times(&m, #name, help, LLM_SERIES_##name);

    LLM_SERIES_TIMES(X)

#undef X

    ngx_http_llm_status_head(out, "usage_log_lost_total", "counter",
                              "lines that llm_usage_log could not take");
    llm_buf_lit(out, "llm_usage_log_lost_total ");
    llm_buf_u64(out, __atomic_load_n(&zone->ledger.head->lost,
                                     __ATOMIC_RELAXED));
    llm_buf_lit(out, "\n");

    return NGX_OK;
}


/* places that are free, and the two that are nobody's until they are used */

static ngx_uint_t
ngx_http_llm_metrics_skip(ngx_http_llm_metrics_t *m, ngx_uint_t i)
{
    uint64_t       n;
    ngx_uint_t     k;
    llm_series_t  *s;

    if (llm_series_owner(&m->zone->series, (uint32_t) i) >= 0) {
        return 0;
    }

    s = &m->zone->series.series[i];
    n = m->open[i];

    for (k = 0; k < LLM_SERIES_ENDS_N; k++) {
        n += __atomic_load_n(&s->ends[k], __ATOMIC_RELAXED);
    }

    return n == 0;
}


/* "*" is no name that a tenant can have */

static const char *
ngx_http_llm_metrics_name(ngx_http_llm_metrics_t *m, ngx_uint_t i)
{
    int64_t  account;

    if (i == LLM_SERIES_REST) {
        return "*";
    }

    account = llm_series_owner(&m->zone->series, (uint32_t) i);

    return account >= 0 ? llm_ledger_name(&m->zone->ledger,
                                          (uint32_t) account)
                        : "";
}


/* a sample up to behind its first label; the names are checked ones */

static void
ngx_http_llm_metrics_label(ngx_http_llm_metrics_t *m, const char *name,
    const char *suffix, ngx_uint_t i)
{
    llm_buf_lit(m->out, "llm_");
    llm_buf_str(m->out, name);
    llm_buf_str(m->out, suffix);
    llm_buf_lit(m->out, "{tenant=\"");
    llm_buf_str(m->out, ngx_http_llm_metrics_name(m, i));
    llm_buf_lit(m->out, "\"");
}


static void
ngx_http_llm_metrics_tokens(ngx_http_llm_metrics_t *m, const char *name,
    const char *help, size_t offset)
{
    u_char      *p;
    ngx_uint_t   i;

    ngx_http_llm_status_head(m->out, name, "counter", help);

    for (i = 0; i < m->zone->series.n; i++) {

        if (ngx_http_llm_metrics_skip(m, i)) {
            continue;
        }

        p = (u_char *) &m->zone->series.series[i] + offset;

        ngx_http_llm_metrics_label(m, name, "", i);
        llm_buf_lit(m->out, "} ");
        llm_buf_u64(m->out, __atomic_load_n((uint64_t *) (void *) p,
                                            __ATOMIC_RELAXED));
        llm_buf_lit(m->out, "\n");
    }
}


/* what tenants with a budget may use in the period, or have used */

static void
ngx_http_llm_metrics_budgets(ngx_http_llm_metrics_t *m, ngx_uint_t limit)
{
    int64_t                 account;
    uint64_t                value, most;
    ngx_str_t               name;
    ngx_uint_t              i, month;
    const char             *what;
    llm_account_t          *a;
    llm_periods_t           now;
    ngx_http_llm_tenant_t  *policy;

    what = limit ? "tenant_budget_tokens" : "tenant_budget_used_tokens";

    llm_periods(ngx_time(), &now);

    ngx_http_llm_status_head(m->out, what, "gauge", limit
                              ? "what the tenant may use in the period"
                              : "of it, what has been used or is reserved");

    for (i = 0; i < m->zone->series.n; i++) {

        account = llm_series_owner(&m->zone->series, (uint32_t) i);

        if (account < 0 || account > m->zone->ledger.mask) {
            continue;
        }

        a = &m->zone->ledger.accounts[account];
        name.data = (u_char *) ngx_http_llm_metrics_name(m, i);
        name.len = ngx_strlen(name.data);

        policy = ngx_http_llm_tenant_policy(m->zone->lmcf, &name);

        for (month = 0; month < 2; month++) {

            most = policy == NULL ? 0 : month ? policy->limits[0].month
                                              : policy->limits[0].day;
            if (most == 0) {
                continue;
            }

            most += llm_budget_used(month ? &a->month_granted
                                          : &a->day_granted,
                                    month ? now.month : now.day);

            value = limit ? most
                          : llm_budget_used(month ? &a->month : &a->day,
                                            month ? now.month : now.day);

            ngx_http_llm_metrics_label(m, what, "", i);
            llm_buf_str(m->out, month ? ",per=\"month\"} " : ",per=\"day\"} ");
            llm_buf_u64(m->out, value / LLM_LEDGER_UNIT);
            llm_buf_lit(m->out, "\n");
        }
    }
}


static void
ngx_http_llm_metrics_times(ngx_http_llm_metrics_t *m, const char *name,
    const char *help, ngx_uint_t which)
{
    uint64_t          n;
    ngx_uint_t        i, k;
    llm_buf_t        *out;
    llm_histogram_t  *h;

    out = m->out;

    ngx_http_llm_status_head(out, name, "histogram", help);

    for (i = 0; i < m->zone->series.n; i++) {

        if (ngx_http_llm_metrics_skip(m, i)) {
            continue;
        }

        h = &m->zone->series.series[i].times[which];
        n = 0;

        for (k = 0; k < LLM_SERIES_BUCKETS; k++) {

            n += __atomic_load_n(&h->counts[k], __ATOMIC_RELAXED);

            ngx_http_llm_metrics_label(m, name, "_bucket", i);
            llm_buf_lit(out, ",le=\"");

            if (k < LLM_SERIES_BUCKETS - 1) {
                ngx_http_llm_metrics_seconds(out, llm_series_bounds[k]);

            } else {
                llm_buf_lit(out, "+Inf");
            }

            llm_buf_lit(out, "\"} ");
            llm_buf_u64(out, n);
            llm_buf_lit(out, "\n");
        }

        ngx_http_llm_metrics_label(m, name, "_sum", i);
        llm_buf_lit(out, "} ");
        ngx_http_llm_metrics_seconds(out, __atomic_load_n(&h->sum,
                                                          __ATOMIC_RELAXED));
        llm_buf_lit(out, "\n");
        ngx_http_llm_metrics_label(m, name, "_count", i);
        llm_buf_lit(out, "} ");
        llm_buf_u64(out, n);
        llm_buf_lit(out, "\n");
    }
}


static void
ngx_http_llm_metrics_seconds(llm_buf_t *out, uint64_t ms)
{
    u_char  *last;
    u_char   text[NGX_INT64_LEN + sizeof(".000")];

    last = ngx_sprintf(text, "%uL.%03uL", ms / 1000, ms % 1000);

    llm_buf_add(out, text, last - text);
}
