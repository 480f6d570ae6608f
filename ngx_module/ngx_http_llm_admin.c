
/*
 * llm_admin: what an administrator may look at and do, in a location that only
 * this machine can reach.
 *
 *     GET    .../requests             those in progress, of all workers
 *     DELETE .../requests/ID          ends one, within a second
 *     GET    .../tenants              all that have ever asked
 *     PUT    .../tenants/NAME/block   new requests get 403
 *     DELETE .../tenants/NAME/block
 *     POST   .../tenants/NAME/grant?tokens=N&per=day|month
 *                                     on top of the budget of this period
 *
 * DESIGN.  All of it is reading and writing words of the shared zone, so any
 * worker can serve it and it outlives reloads, and restarts with state=FILE.
 * A request belongs to its worker: ending one is a mark in its row that the
 * worker finds at its next round of housekeeping.
 *
 * Only clients on this machine are served, whatever allow and deny say, and no
 * web page is.
 */


#include "ngx_http_llm_module.h"


static ngx_uint_t ngx_http_llm_admin_local(ngx_http_request_t *r);
static ngx_uint_t ngx_http_llm_admin_loopback(struct sockaddr *sa);
static ngx_int_t ngx_http_llm_admin_requests(ngx_http_request_t *r,
    ngx_http_llm_zone_t *zone, llm_buf_t *out);
static ngx_int_t ngx_http_llm_admin_cancel(ngx_http_llm_zone_t *zone,
    ngx_str_t *id);
static void ngx_http_llm_admin_tenants(ngx_http_llm_zone_t *zone,
    llm_buf_t *out);
static ngx_int_t ngx_http_llm_admin_tenant(ngx_http_request_t *r,
    ngx_http_llm_zone_t *zone, ngx_str_t *path);
static ngx_int_t ngx_http_llm_admin_grant(ngx_http_request_t *r,
    llm_account_t *a);
static void ngx_http_llm_admin_text(llm_buf_t *out, const char *name,
    const char *text, size_t size);
static void ngx_http_llm_admin_number(llm_buf_t *out, const char *name,
    uint64_t value);


/* llm_admin */

char *
ngx_http_llm_admin(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_loc_conf_t *llcf = conf;

    ngx_http_core_loc_conf_t  *clcf;
    ngx_http_llm_main_conf_t  *lmcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (clcf->handler) {
        return "is duplicate, or the location has another handler already";
    }

    if (clcf->noname || clcf->named || clcf->exact_match
#if (NGX_PCRE)
        || clcf->regex
#endif
       )
    {
        return "stands in a location that is a prefix only";
    }

    clcf->handler = ngx_http_llm_admin_handler;
    llcf->admin = 1;

    lmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_module);
    lmcf->watched = 1;

    return NGX_CONF_OK;
}


ngx_int_t
ngx_http_llm_admin_handler(ngx_http_request_t *r)
{
    u_char                    *p, *last;
    llm_buf_t                  out;
    ngx_int_t                  rc;
    ngx_str_t                  path;
    ngx_http_llm_main_conf_t  *lmcf;
    ngx_http_core_loc_conf_t  *clcf;

    if (!ngx_http_llm_admin_local(r)) {
        return NGX_HTTP_FORBIDDEN;
    }

    rc = ngx_http_discard_request_body(r);

    if (rc != NGX_OK) {
        return rc;
    }

    lmcf = ngx_http_get_module_main_conf(r, ngx_http_llm_module);
    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    /* what is behind the location */

    p = r->uri.data + ngx_min(clcf->name.len, r->uri.len);
    last = r->uri.data + r->uri.len;

    while (p < last && *p == '/') {
        p++;
    }

    path.data = p;
    path.len = last - p;

    llm_buf_init(&out, NGX_HTTP_LLM_ANSWER_MAX, ngx_http_llm_alloc, r->pool);

    rc = NGX_HTTP_NOT_FOUND;

    if (path.len == 8 && ngx_strncmp(p, "requests", 8) == 0) {
        rc = NGX_HTTP_NOT_ALLOWED;

        if (r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD)) {
            rc = ngx_http_llm_admin_requests(r, lmcf->zone, &out);
        }

    } else if (path.len == 7 && ngx_strncmp(p, "tenants", 7) == 0) {
        rc = NGX_HTTP_NOT_ALLOWED;

        if (r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD)) {
            ngx_http_llm_admin_tenants(lmcf->zone, &out);
            rc = NGX_HTTP_OK;
        }

    } else if (path.len > 9 && ngx_strncmp(p, "requests/", 9) == 0) {
        rc = NGX_HTTP_NOT_ALLOWED;

        path.data += 9;
        path.len -= 9;

        if (r->method == NGX_HTTP_DELETE) {
            rc = ngx_http_llm_admin_cancel(lmcf->zone, &path);
            llm_buf_lit(&out, "{}\n");
        }

    } else if (path.len > 8 && ngx_strncmp(p, "tenants/", 8) == 0) {

        path.data += 8;
        path.len -= 8;

        rc = ngx_http_llm_admin_tenant(r, lmcf->zone, &path);
        llm_buf_lit(&out, "{}\n");
    }

    if (rc != NGX_HTTP_OK && rc != NGX_HTTP_ACCEPTED) {
        return rc;
    }

    if (out.failed) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_llm_send(r, rc, "application/json", &out);
}


/*
 * Both ends are this machine, as the client's may be what a header said
 * (realip); and it is no browser, or one into which somebody typed the
 * address of this machine: not a page's request, nor one to a name that
 * leads here (DNS rebinding).
 */

static ngx_uint_t
ngx_http_llm_admin_local(ngx_http_request_t *r)
{
    ngx_str_t  *site, host;

    if (ngx_connection_local_sockaddr(r->connection, NULL, 0) != NGX_OK
        || !ngx_http_llm_admin_loopback(r->connection->sockaddr)
        || !ngx_http_llm_admin_loopback(r->connection->local_sockaddr))
    {
        return 0;
    }

    site = ngx_http_llm_header_in(r, "Sec-Fetch-Site");

    if (ngx_http_llm_header_in(r, "Origin")
        || (site && (site->len != 4
                     || ngx_strncmp(site->data, "none", 4) != 0)))
    {
        return 0;
    }

    host = r->headers_in.server;

    return r->connection->sockaddr->sa_family == AF_UNIX
           || host.len == 0
           || (host.len == 9 && ngx_strncmp(host.data, "localhost", 9) == 0)
           || (host.len == 5 && ngx_strncmp(host.data, "[::1]", 5) == 0)
           || ngx_inet_addr(host.data, host.len) != INADDR_NONE;
}


static ngx_uint_t
ngx_http_llm_admin_loopback(struct sockaddr *sa)
{
    struct sockaddr_in  *sin;
#if (NGX_HAVE_INET6)
    struct in6_addr     *addr;
#endif

    switch (sa->sa_family) {

    case AF_UNIX:
        return 1;

    case AF_INET:
        sin = (struct sockaddr_in *) sa;
        return (ntohl(sin->sin_addr.s_addr) >> 24) == 127;

#if (NGX_HAVE_INET6)
    case AF_INET6:
        addr = &((struct sockaddr_in6 *) sa)->sin6_addr;
        return IN6_IS_ADDR_LOOPBACK(addr)
               || (IN6_IS_ADDR_V4MAPPED(addr) && addr->s6_addr[12] == 127);
#endif

    default:
        return 0;
    }
}


/* a row may end while it is read: what is printed is a copy of one state */

static ngx_int_t
ngx_http_llm_admin_requests(ngx_http_request_t *r, ngx_http_llm_zone_t *zone,
    llm_buf_t *out)
{
    uint32_t    i, n;
    uint64_t    now;
    llm_row_t  *row;

    row = ngx_palloc(r->pool, sizeof(llm_row_t));
    if (row == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    now = ngx_http_llm_now();
    n = 0;

    llm_buf_lit(out, "{\"requests\":[");

    for (i = 0; i < zone->rows.n; i++) {

        if (!llm_rows_copy(&zone->rows, i, row)) {
            continue;
        }

        llm_buf_str(out, n++ ? ",\n{" : "\n{");
        ngx_http_llm_admin_text(out, "id", row->id, sizeof(row->id));
        ngx_http_llm_admin_text(out, "tenant", row->tenant,
                                sizeof(row->tenant));
        ngx_http_llm_admin_text(out, "key", row->key, sizeof(row->key));
        ngx_http_llm_admin_text(out, "model", row->model, sizeof(row->model));
        ngx_http_llm_admin_text(out, "traceparent", row->trace,
                                sizeof(row->trace));
        ngx_http_llm_admin_number(out, "ms", now > row->began
                                             ? (now - row->began) / 1000000
                                             : 0);
        ngx_http_llm_admin_number(out, "prompt_tokens", row->prompt);
        ngx_http_llm_admin_number(out, "completion_tokens", row->completion);
        ngx_http_llm_admin_number(out, "worker", llm_owner_pid(row->owner));
        llm_buf_str(out, "\"cancelled\":");
        llm_buf_str(out, row->cancel ? "true}" : "false}");
    }

    llm_buf_lit(out, "]}\n");

    return NGX_HTTP_OK;
}


static ngx_int_t
ngx_http_llm_admin_cancel(ngx_http_llm_zone_t *zone, ngx_str_t *id)
{
    ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0,
                  "llm request %V is to be ended", id);

    return llm_rows_cancel(&zone->rows, (char *) id->data, id->len)
           ? NGX_HTTP_ACCEPTED : NGX_HTTP_NOT_FOUND;
}


static void
ngx_http_llm_admin_tenants(ngx_http_llm_zone_t *zone, llm_buf_t *out)
{
    uint32_t        i, n;
    const char     *name;
    llm_periods_t   now;
    llm_account_t  *a;

    llm_periods(ngx_time(), &now);
    n = 0;

    llm_buf_lit(out, "{\"tenants\":[");

    for (i = 0; i <= zone->ledger.mask; i++) {

        a = &zone->ledger.accounts[i];
        name = llm_ledger_name(&zone->ledger, i);

        if (a->kind != LLM_ACCOUNT_TENANT || name[0] == '\0') {
            continue;
        }

        llm_buf_str(out, n++ ? ",\n{" : "\n{");
        ngx_http_llm_admin_text(out, "name", name, LLM_KEY_NAME_MAX);
        ngx_http_llm_admin_number(out, "requests", a->asked);
        ngx_http_llm_admin_number(out, "refused", a->refused);
        ngx_http_llm_admin_number(out, "prompt_tokens", a->input);
        ngx_http_llm_admin_number(out, "cached_tokens", a->cached);
        ngx_http_llm_admin_number(out, "completion_tokens", a->output);
        ngx_http_llm_admin_number(out, "day_used",
                                  llm_budget_used(&a->day, now.day)
                                  / LLM_LEDGER_UNIT);
        ngx_http_llm_admin_number(out, "day_granted",
                                  llm_budget_used(&a->day_granted, now.day)
                                  / LLM_LEDGER_UNIT);
        ngx_http_llm_admin_number(out, "month_used",
                                  llm_budget_used(&a->month, now.month)
                                  / LLM_LEDGER_UNIT);
        ngx_http_llm_admin_number(out, "month_granted",
                                  llm_budget_used(&a->month_granted,
                                                  now.month)
                                  / LLM_LEDGER_UNIT);
        llm_buf_str(out, "\"blocked\":");
        llm_buf_str(out, __atomic_load_n(&a->blocked, __ATOMIC_RELAXED)
                         ? "true}" : "false}");
    }

    llm_buf_lit(out, "]}\n");
}


/* NAME/block, NAME/grant; one who has never asked can be blocked, too */

static ngx_int_t
ngx_http_llm_admin_tenant(ngx_http_request_t *r, ngx_http_llm_zone_t *zone,
    ngx_str_t *path)
{
    u_char         *slash;
    ngx_str_t       name, what;
    llm_account_t  *a;

    slash = ngx_strlchr(path->data, path->data + path->len, '/');

    if (slash == NULL) {
        return NGX_HTTP_NOT_FOUND;
    }

    name.data = path->data;
    name.len = slash - path->data;
    what.data = slash + 1;
    what.len = path->len - name.len - 1;

    if (what.len != 5 || !llm_key_name_ok((char *) name.data, name.len)) {
        return NGX_HTTP_NOT_FOUND;
    }

    a = llm_ledger_account(&zone->ledger, LLM_ACCOUNT_TENANT,
                           (char *) name.data, name.len);
    if (a == NULL) {
        return NGX_HTTP_INSUFFICIENT_STORAGE;
    }

    if (ngx_strncmp(what.data, "grant", 5) == 0) {
        return r->method == NGX_HTTP_POST ? ngx_http_llm_admin_grant(r, a)
                                          : NGX_HTTP_NOT_ALLOWED;
    }

    if (ngx_strncmp(what.data, "block", 5) != 0) {
        return NGX_HTTP_NOT_FOUND;
    }

    if (!(r->method & (NGX_HTTP_PUT|NGX_HTTP_DELETE))) {
        return NGX_HTTP_NOT_ALLOWED;
    }

    __atomic_store_n(&a->blocked, r->method == NGX_HTTP_PUT,
                     __ATOMIC_RELAXED);

    ngx_log_error(NGX_LOG_NOTICE, r->connection->log, 0,
                  "llm tenant \"%V\" is %s", &name,
                  r->method == NGX_HTTP_PUT ? "blocked" : "not blocked");

    return NGX_HTTP_OK;
}


static ngx_int_t
ngx_http_llm_admin_grant(ngx_http_request_t *r, llm_account_t *a)
{
    off_t           n;
    ngx_str_t       tokens, per;
    llm_periods_t   now;

    n = NGX_ERROR;

    if (ngx_http_arg(r, (u_char *) "tokens", 6, &tokens) == NGX_OK) {
        n = ngx_atoof(tokens.data, tokens.len);
    }

    if (n < 1 || (uint64_t) n > LLM_BUDGET_MAX / LLM_LEDGER_UNIT
        || ngx_http_arg(r, (u_char *) "per", 3, &per) != NGX_OK)
    {
        return NGX_HTTP_BAD_REQUEST;
    }

    llm_periods(ngx_time(), &now);

    if (per.len == 3 && ngx_strncmp(per.data, "day", 3) == 0) {
        (void) llm_budget_take(&a->day_granted, 0, n * LLM_LEDGER_UNIT,
                               now.day);

    } else if (per.len == 5 && ngx_strncmp(per.data, "month", 5) == 0) {
        (void) llm_budget_take(&a->month_granted, 0, n * LLM_LEDGER_UNIT,
                               now.month);

    } else {
        return NGX_HTTP_BAD_REQUEST;
    }

    ngx_log_error(NGX_LOG_NOTICE, r->connection->log, 0,
                  "llm tenant \"%s\" is granted %O tokens of this %V",
                  a->name, n, &per);

    return NGX_HTTP_OK;
}


/* what is in the zone may be a file's: within size, and escaped */

static void
ngx_http_llm_admin_text(llm_buf_t *out, const char *name, const char *text,
    size_t size)
{
    llm_buf_lit(out, "\"");
    llm_buf_str(out, name);
    llm_buf_lit(out, "\":\"");
    llm_buf_json(out, text, ngx_strnlen((u_char *) text, size));
    llm_buf_lit(out, "\",");
}


static void
ngx_http_llm_admin_number(llm_buf_t *out, const char *name, uint64_t value)
{
    llm_buf_lit(out, "\"");
    llm_buf_str(out, name);
    llm_buf_lit(out, "\":");
    llm_buf_u64(out, value);
    llm_buf_lit(out, ",");
}
