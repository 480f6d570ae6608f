
/*
 * llm_cors: pages of other origins may call the API (Fetch Standard, section
 * "CORS protocol").
 *
 * DESIGN.  A preflight, OPTIONS with Origin and Access-Control-Request-Method,
 * carries no key by its nature, so it is answered in the access phase before
 * anybody is asked for one; what it grants is nothing but the asking.  Every
 * answer of the location then names the origin, and errors do too, also those
 * of other modules: hence a header filter.  What a page may read beyond the
 * body are the headers that say when to try again.
 *
 * Credentials in the sense of CORS are cookies and client certificates, which
 * are not allowed; a key is a header like any other.
 */


#include "ngx_http_llm_module.h"


#define NGX_HTTP_LLM_CORS_ASKED_MAX  1024   /* of requested header names */


static ngx_int_t ngx_http_llm_cors_init(ngx_conf_t *cf);
static ngx_str_t *ngx_http_llm_cors_origin(ngx_http_request_t *r,
    ngx_http_llm_loc_conf_t *llcf);
static ngx_int_t ngx_http_llm_cors_filter(ngx_http_request_t *r);
static void ngx_http_llm_cors_asked(ngx_http_request_t *r, ngx_str_t *names);


static ngx_http_module_t  ngx_http_llm_cors_filter_module_ctx = {
    NULL,                                  /* preconfiguration */
    ngx_http_llm_cors_init,                /* postconfiguration */

    NULL,                                  /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    NULL,                                  /* create location configuration */
    NULL                                   /* merge location configuration */
};


ngx_module_t  ngx_http_llm_cors_filter_module = {
    NGX_MODULE_V1,
    &ngx_http_llm_cors_filter_module_ctx,  /* module context */
    NULL,                                  /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    NULL,                                  /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    NULL,                                  /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static ngx_http_output_header_filter_pt  ngx_http_llm_next_header_filter;


/* llm_cors off | * | ORIGIN ... */

char *
ngx_http_llm_cors(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_loc_conf_t *llcf = conf;

    ngx_str_t   *value, *origin;
    ngx_uint_t   i, any;

    if (llcf->cors != NGX_CONF_UNSET_PTR) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (cf->args->nelts == 2 && ngx_strcmp(value[1].data, "off") == 0) {
        llcf->cors = NULL;
        return NGX_CONF_OK;
    }

    llcf->cors = ngx_array_create(cf->pool, cf->args->nelts - 1,
                                  sizeof(ngx_str_t));
    if (llcf->cors == NULL) {
        return NGX_CONF_ERROR;
    }

    for (i = 1; i < cf->args->nelts; i++) {

        any = value[i].len == 1 && value[i].data[0] == '*';

        /* scheme://host[:port], as a browser writes it: no path, no slash */

        if ((any && cf->args->nelts > 2)
            || (!any && (ngx_strstr(value[i].data, "://") == NULL
                         || value[i].data[value[i].len - 1] == '/')))
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid origin \"%V\", it must be \"off\", "
                               "\"*\", or as in \"https://example.com\"",
                               &value[i]);
            return NGX_CONF_ERROR;
        }

        origin = ngx_array_push(llcf->cors);
        if (origin == NULL) {
            return NGX_CONF_ERROR;
        }

        *origin = value[i];
    }

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_llm_cors_init(ngx_conf_t *cf)
{
    ngx_http_llm_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_llm_cors_filter;

    return NGX_OK;
}


/* what to answer the request's origin with; NULL: nothing */

static ngx_str_t *
ngx_http_llm_cors_origin(ngx_http_request_t *r, ngx_http_llm_loc_conf_t *llcf)
{
    ngx_str_t   *origin, *allowed;
    ngx_uint_t   i;

    if (llcf->cors == NULL || r != r->main) {
        return NULL;
    }

    origin = ngx_http_llm_header_in(r, "Origin");

    if (origin == NULL) {
        return NULL;
    }

    allowed = llcf->cors->elts;

    for (i = 0; i < llcf->cors->nelts; i++) {

        if (allowed[i].len == 1 && allowed[i].data[0] == '*') {
            return &allowed[i];
        }

        if (allowed[i].len == origin->len
            && ngx_strncmp(allowed[i].data, origin->data, origin->len) == 0)
        {
            return &allowed[i];
        }
    }

    return NULL;
}


ngx_int_t
ngx_http_llm_cors_preflight(ngx_http_request_t *r)
{
    ngx_str_t                 value;
    ngx_http_llm_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_module);

    if (llcf->engines == NULL || r->method != NGX_HTTP_OPTIONS
        || ngx_http_llm_cors_origin(r, llcf) == NULL
        || ngx_http_llm_header_in(r, "Access-Control-Request-Method") == NULL)
    {
        return NGX_DECLINED;
    }

    ngx_str_set(&value, "GET, POST, OPTIONS");

    if (ngx_http_llm_add_header(r, "Access-Control-Allow-Methods", &value)
        != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_http_llm_cors_asked(r, &value);

    if (ngx_http_llm_add_header(r, "Access-Control-Allow-Headers", &value)
        != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    /* browsers cap it at two hours, or at a day */

    ngx_str_set(&value, "7200");

    if (ngx_http_llm_add_header(r, "Access-Control-Max-Age", &value)
        != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return NGX_HTTP_NO_CONTENT;
}


/*
 * The names that were asked for, as client libraries send headers of their
 * own (x-stainless-*), if they are a list of names; else what the API knows.
 */

static void
ngx_http_llm_cors_asked(ngx_http_request_t *r, ngx_str_t *names)
{
    u_char       ch;
    size_t       i;
    ngx_str_t   *asked;

    ngx_str_set(names, "authorization, content-type, x-api-key");

    asked = ngx_http_llm_header_in(r, "Access-Control-Request-Headers");

    if (asked == NULL || asked->len == 0
        || asked->len > NGX_HTTP_LLM_CORS_ASKED_MAX)
    {
        return;
    }

    for (i = 0; i < asked->len; i++) {
        ch = asked->data[i];

        if (!((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z')
              || (ch >= '0' && ch <= '9')
              || ch == '-' || ch == '_' || ch == ',' || ch == ' '))
        {
            return;
        }
    }

    *names = *asked;
}


static ngx_int_t
ngx_http_llm_cors_filter(ngx_http_request_t *r)
{
    ngx_str_t                *origin, value;
    ngx_http_llm_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_module);

    if (llcf->cors == NULL || r != r->main) {
        return ngx_http_llm_next_header_filter(r);
    }

    /* what is not the same for all must not be cached for all */

    ngx_str_set(&value, "Origin");

    if (ngx_http_llm_add_header(r, "Vary", &value) != NGX_OK) {
        return NGX_ERROR;
    }

    origin = ngx_http_llm_cors_origin(r, llcf);

    if (origin == NULL) {
        return ngx_http_llm_next_header_filter(r);
    }

    ngx_str_set(&value, "x-request-id, retry-after, retry-after-ms, "
                        "x-ratelimit-limit-requests, "
                        "x-ratelimit-remaining-requests, "
                        "x-ratelimit-reset-requests, "
                        "x-ratelimit-limit-tokens, "
                        "x-ratelimit-remaining-tokens, "
                        "x-ratelimit-reset-tokens");

    if (ngx_http_llm_add_header(r, "Access-Control-Allow-Origin", origin)
           != NGX_OK
        || ngx_http_llm_add_header(r, "Access-Control-Expose-Headers", &value)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_llm_next_header_filter(r);
}
