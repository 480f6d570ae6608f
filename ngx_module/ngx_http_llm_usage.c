
/*
 * llm_usage_log: one line for each request of a known tenant, whatever its
 * end.
 *
 * DESIGN.  A request has a row in the shared zone from the access phase on.
 * It ends twice: for the client (status, reason) and for the engine (counts),
 * in either order, and a client that leaves does not end what the engine has
 * yet to say.  When both have been, the row is closed, its line written and
 * its reservation settled; a row whose worker is killed is closed by another
 * one (ngx_http_llm_zone.c) with what had been counted until then.
 *
 * A line is one write to a file opened for appending, so that lines of several
 * workers do not mix.  A disk that is full costs the line, never the request:
 * it is counted and logged.
 *
 *     {"time":"2026-11-25T10:00:00.123Z","id":"...","tenant":"acme",
 *      "key":"ci","model":"small","status":200,"finish":"stop","error":"",
 *      "prompt_tokens":12,"cached_tokens":0,"completion_tokens":30,
 *      "ms":812,"traceparent":"","recovered":false}
 */


#include "ngx_http_llm_module.h"


#define NGX_HTTP_LLM_USAGE_LINE  2048


static void ngx_http_llm_usage_payers(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_zone_t *zone, llm_row_payer_t *payers);
static void ngx_http_llm_usage_full(ngx_http_llm_zone_t *zone,
    ngx_str_t *name);
static void ngx_http_llm_usage_release(ngx_http_llm_usage_t *u);
static void ngx_http_llm_usage_write(ngx_http_llm_zone_t *zone,
    llm_row_t *row, ngx_uint_t recovered);
static void ngx_http_llm_usage_trace(llm_row_t *row, ngx_http_request_t *r);
static void ngx_http_llm_usage_sum(ngx_http_llm_zone_t *zone, llm_row_t *row);
static void ngx_http_llm_usage_name(char *dst, size_t size, ngx_str_t *src);


#define NGX_HTTP_LLM_FINISH_ABORT  3

static const char  *ngx_http_llm_finishes[] =
    { "", "stop", "length", "abort", "timeout", "error", "tool_calls" };


/* llm_usage_log PATH */

char *
ngx_http_llm_usage_log(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_main_conf_t *lmcf = conf;

    ngx_str_t  *value;

    if (lmcf->usage_log) {
        return "is duplicate";
    }

    value = cf->args->elts;

    lmcf->usage_log = ngx_conf_open_file(cf->cycle, &value[1]);

    return lmcf->usage_log ? NGX_CONF_OK : NGX_CONF_ERROR;
}


uint64_t
ngx_http_llm_now(void)
{
    ngx_time_t  *tp;

    tp = ngx_timeofday();

    return ((uint64_t) tp->sec * 1000 + tp->msec) * 1000000;
}


ngx_int_t
ngx_http_llm_usage_open(ngx_http_llm_ctx_t *ctx)
{
    llm_row_t                 *row;
    llm_row_payer_t            payers[2];
    ngx_http_llm_zone_t       *zone;
    ngx_http_llm_usage_t      *u;
    ngx_http_llm_main_conf_t  *lmcf;

    lmcf = ngx_http_get_module_main_conf(ctx->request, ngx_http_llm_module);
    zone = lmcf->zone;

    if (zone == NULL || ctx->usage) {
        return NGX_OK;
    }

    u = ngx_calloc(sizeof(ngx_http_llm_usage_t) + sizeof(llm_row_t),
                   ctx->request->connection->log);
    if (u == NULL) {
        return NGX_ERROR;
    }

    ngx_http_llm_usage_payers(ctx, zone, payers);

    row = NULL;

    if (!payers[0].used || zone->held[payers[0].account] < zone->share) {
        row = llm_rows_claim(&zone->rows, zone->self);
    }

    /* without one its line is written all the same */

    if (row == NULL) {
        row = (llm_row_t *) (u + 1);
        u->own = 1;
        ngx_http_llm_usage_full(zone, &ctx->tenant);

    } else if (payers[0].used) {
        zone->held[payers[0].account]++;
    }

    row->began = ngx_http_llm_now();

    ngx_memcpy(row->payers, payers, sizeof(payers));

    if (ctx->policy) {
        ngx_memcpy(row->weights, ctx->policy->weights, sizeof(row->weights));
    }

    ngx_http_llm_usage_name(row->id, sizeof(row->id), &ctx->id);
    ngx_http_llm_usage_name(row->tenant, sizeof(row->tenant), &ctx->tenant);
    ngx_http_llm_usage_name(row->key, sizeof(row->key), &ctx->key_id);
    ngx_http_llm_usage_trace(row, ctx->request);

    llm_row_open(row);

    u->ctx = ctx;
    u->zone = zone;
    u->row = row;
    u->refs = 1;

    ngx_queue_insert_tail(&zone->open, &u->queue);

    ctx->usage = u;

    return u->own ? NGX_DECLINED : NGX_OK;
}


/*
 * The accounts of tenant and key, and their limits.  Where the ledger is full
 * there is none; what has limits is refused then.
 */

static void
ngx_http_llm_usage_payers(ngx_http_llm_ctx_t *ctx, ngx_http_llm_zone_t *zone,
    llm_row_payer_t *payers)
{
    ngx_str_t      *name;
    ngx_uint_t      i;
    llm_account_t  *a;

    ngx_memzero(payers, 2 * sizeof(llm_row_payer_t));

    for (i = 0; i < 2; i++) {

        name = i ? &ctx->key_id : &ctx->tenant;

        if (name->len == 0) {
            continue;
        }

        a = llm_ledger_account(&zone->ledger,
                               i ? LLM_ACCOUNT_KEY : LLM_ACCOUNT_TENANT,
                               (char *) name->data, name->len);
        if (a == NULL) {
            ngx_http_llm_usage_full(zone, name);
            continue;
        }

        payers[i].account = (uint32_t) (a - zone->ledger.accounts);
        payers[i].used = 1;

        if (ctx->policy) {
            payers[i].limits = ctx->policy->limits[i];
        }

        if (i == 0) {
            ctx->series = llm_series_get(&zone->series, payers[0].account);
        }
    }
}


/* once a second: whoever fills the zone would fill the log, too */

static void
ngx_http_llm_usage_full(ngx_http_llm_zone_t *zone, ngx_str_t *name)
{
    if (zone->full_logged == ngx_time()) {
        return;
    }

    zone->full_logged = ngx_time();

    ngx_log_error(NGX_LOG_ALERT, ngx_cycle->log, 0,
                  "llm zone \"%V\" has no room for a request of \"%V\"",
                  &zone->shm->shm.name, name);
}


void
ngx_http_llm_usage_submit(ngx_http_llm_ctx_t *ctx, ngx_http_llm_slot_t *slot)
{
    slot->usage = NULL;

    if (ctx->usage) {

        /* of what runs no model the engine's counts are no usage */

        if (!(ctx->call.head.flags & LLM_F_PROMPT)) {
            slot->usage = ctx->usage;
            ctx->usage->refs++;
        }

        ngx_http_llm_usage_name(ctx->usage->row->model,
                                sizeof(ctx->usage->row->model), &ctx->model);
    }
}


void
ngx_http_llm_usage_ended(ngx_http_llm_ctx_t *ctx)
{
    ngx_uint_t             i;
    llm_row_t             *row;
    ngx_http_llm_usage_t  *u;

    u = ctx->usage;

    if (u == NULL) {
        return;
    }

    ctx->usage = NULL;

    u->ctx = NULL;
    ngx_queue_remove(&u->queue);

    row = u->row;
    row->status = ctx->request->headers_out.status;

    if (row->status == 0) {
        row->status = NGX_HTTP_CLIENT_CLOSED_REQUEST;
    }

    row->error = ctx->refusal.err;

    for (i = 0; ctx->finish && i < sizeof(ngx_http_llm_finishes)
                                   / sizeof(ngx_http_llm_finishes[0]); i++)
    {
        if (ngx_strcmp(ngx_http_llm_finishes[i], ctx->finish) == 0) {
            row->finish = i;
        }
    }

    ngx_http_llm_usage_release(u);
}


void
ngx_http_llm_usage_counted(ngx_http_llm_slot_t *slot, uint32_t prompt,
    uint32_t cached, uint32_t completion)
{
    llm_row_t  *row;

    if (slot->usage == NULL) {
        return;
    }

    row = slot->usage->row;

    row->prompt = prompt;
    row->cached = cached;
    row->completion = completion;

    if (slot->ctx && row->reserved) {
        slot->ctx->cost = llm_row_cost(row);
        slot->ctx->charged = 1;
    }
}


void
ngx_http_llm_usage_slot_ended(ngx_http_llm_slot_t *slot)
{
    ngx_http_llm_usage_t  *u;

    u = slot->usage;

    if (u) {
        slot->usage = NULL;

        /* at once: the client may be slow to take what is there */

        llm_row_settle(u->row, &u->zone->ledger);

        ngx_http_llm_usage_release(u);
    }
}


void
ngx_http_llm_usage_slot_left(ngx_http_llm_slot_t *slot)
{
    if (slot->usage) {
        slot->usage->refs--;        /* the client's is left */
        slot->usage = NULL;
    }
}


static void
ngx_http_llm_usage_release(ngx_http_llm_usage_t *u)
{
    llm_row_t            *row;
    ngx_http_llm_zone_t  *zone;

    if (--u->refs) {
        return;
    }

    row = u->row;
    zone = u->zone;

    if (u->own) {
        ngx_http_llm_usage_write(zone, row, 0);
        ngx_free(u);
        return;
    }

    if (row->payers[0].used && row->payers[0].account <= zone->ledger.mask) {
        zone->held[row->payers[0].account]--;
    }

    /* it may have been taken from us, if only by mistake */

    if (llm_row_owner(row) == zone->self) {
        llm_row_close(row);
        ngx_http_llm_usage_close(zone, row, 0);
    }

    ngx_free(u);
}


void
ngx_http_llm_usage_close(ngx_http_llm_zone_t *zone, llm_row_t *row,
    ngx_uint_t recovered)
{
    ngx_http_llm_usage_write(zone, row, recovered);
    llm_row_settle(row, &zone->ledger);
    llm_row_free(row);
}


/* traceparent (W3C Trace Context, section 3.2): kept if it is one */

static void
ngx_http_llm_usage_trace(llm_row_t *row, ngx_http_request_t *r)
{
    u_char       ch;
    size_t       i;
    ngx_str_t   *value;

    value = ngx_http_llm_header_in(r, "traceparent");

    if (value == NULL || value->len != LLM_ROW_TRACE_MAX) {
        return;
    }

    for (i = 0; i < value->len; i++) {
        ch = value->data[i];

        if (i == 2 || i == 35 || i == 52) {
            if (ch != '-') {
                return;
            }

        } else if (!((ch >= '0' && ch <= '9') || (ch >= 'a' && ch <= 'f'))) {
            return;
        }
    }

    ngx_http_llm_usage_name(row->trace, sizeof(row->trace), value);
}


/* what it used, to its tenant's and its key's sums */

static void
ngx_http_llm_usage_sum(ngx_http_llm_zone_t *zone, llm_row_t *row)
{
    ngx_uint_t      i;
    llm_account_t  *a;

    for (i = 0; i < 2; i++) {

        if (!row->payers[i].used || row->payers[i].account > zone->ledger.mask)
        {
            continue;
        }

        a = &zone->ledger.accounts[row->payers[i].account];

        (void) __atomic_add_fetch(&a->asked, 1, __ATOMIC_RELAXED);
        (void) __atomic_add_fetch(&a->input, row->prompt, __ATOMIC_RELAXED);
        (void) __atomic_add_fetch(&a->cached, row->cached, __ATOMIC_RELAXED);
        (void) __atomic_add_fetch(&a->output, row->completion,
                                  __ATOMIC_RELAXED);

        /* by the reason: the status is llm_limit_status */

        if (row->error
            && llm_err(row->error)->http == NGX_HTTP_TOO_MANY_REQUESTS)
        {
            (void) __atomic_add_fetch(&a->refused, 1, __ATOMIC_RELAXED);
        }

        if (i == 0) {
            ngx_http_llm_metrics_used(llm_series_get(&zone->series,
                                                     row->payers[0].account),
                                      row->prompt, row->cached,
                                      row->completion);
        }
    }
}


/* cut to what a row holds; all of these are plain text by their checks */

static void
ngx_http_llm_usage_name(char *dst, size_t size, ngx_str_t *src)
{
    size_t  n;

    n = ngx_min(src->len, size - 1);

    ngx_memcpy(dst, src->data, n);
    dst[n] = '\0';
}


static void
ngx_http_llm_usage_write(ngx_http_llm_zone_t *zone, llm_row_t *row,
    ngx_uint_t recovered)
{
    u_char                    *p, *last;
    time_t                     sec;
    ssize_t                    n;
    uint64_t                   lost, now;
    uint32_t                   finish;
    ngx_tm_t                   tm;
    ngx_open_file_t           *file;
    ngx_http_llm_main_conf_t  *lmcf;
    u_char                     line[NGX_HTTP_LLM_USAGE_LINE];
    u_char                     model[6 * (LLM_ROW_MODEL_MAX + 1)];

    lmcf = zone->lmcf;

    ngx_http_llm_usage_sum(zone, row);

    file = lmcf->usage_log;

    if (file == NULL || file->fd == NGX_INVALID_FILE) {
        return;
    }

    /* a client names the model */

    p = model;
    last = (u_char *) ngx_escape_json(p, (u_char *) row->model,
                                      ngx_strlen(row->model));
    *last = '\0';

    finish = row->finish < sizeof(ngx_http_llm_finishes)
                           / sizeof(ngx_http_llm_finishes[0])
             ? row->finish : 0;

    /* it never came to an end: whoever ran it was stopped or killed */

    if (finish == 0 && row->error == 0 && row->model[0]) {
        finish = NGX_HTTP_LLM_FINISH_ABORT;
    }

    now = ngx_http_llm_now();       /* may have been set back */

    sec = (time_t) (row->began / 1000000000);
    ngx_gmtime(sec, &tm);

    last = line + sizeof(line);

    p = ngx_slprintf(line, last,
                     "{\"time\":\"%4d-%02d-%02dT%02d:%02d:%02d.%03uLZ\","
                     "\"id\":\"%s\",\"tenant\":\"%s\",\"key\":\"%s\","
                     "\"model\":\"%s\",\"status\":%uD,\"finish\":\"%s\","
                     "\"error\":\"%s\",\"prompt_tokens\":%uD,"
                     "\"cached_tokens\":%uD,\"completion_tokens\":%uD,"
                     "\"ms\":%uL,\"traceparent\":\"%s\",\"recovered\":%s}\n",
                     tm.ngx_tm_year, tm.ngx_tm_mon, tm.ngx_tm_mday,
                     tm.ngx_tm_hour, tm.ngx_tm_min, tm.ngx_tm_sec,
                     row->began / 1000000 % 1000,
                     row->id, row->tenant, row->key, model, row->status,
                     ngx_http_llm_finishes[finish],
                     row->error ? llm_err(row->error)->code : "",
                     row->prompt, row->cached, row->completion,
                     now > row->began ? (now - row->began) / 1000000 : 0,
                     row->trace, recovered ? "true" : "false");

    n = write(file->fd, line, p - line);

    if (n == p - line) {
        return;
    }

    lost = __atomic_add_fetch(&zone->ledger.head->lost, 1, __ATOMIC_RELAXED);

    if (zone->lost_logged != ngx_time()) {
        zone->lost_logged = ngx_time();
        ngx_log_error(NGX_LOG_ALERT, ngx_cycle->log,
                      n == -1 ? ngx_errno : 0,
                      "writing to llm_usage_log \"%V\" failed, %uL lines lost",
                      &file->name, lost);
    }
}
