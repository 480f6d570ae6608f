
/*
 * The module's face to nginx: directives, their checks, the module
 * definition.
 *
 * DESIGN.  Whatever can be wrong in a configuration is found while it is
 * read, with file and line; what is accepted is enforced.  Reading it touches
 * nothing outside: `nginx -t` and the master never connect to an engine, only
 * a worker's init_process does, and an engine that is not there is no error:
 * it may come later.
 */


#include "ngx_http_llm_module.h"

#include <sys/prctl.h>
#include <sys/resource.h>


static ngx_int_t ngx_http_llm_preconfiguration(ngx_conf_t *cf);
static ngx_int_t ngx_http_llm_postconfiguration(ngx_conf_t *cf);
static void *ngx_http_llm_create_main_conf(ngx_conf_t *cf);
static char *ngx_http_llm_init_main_conf(ngx_conf_t *cf, void *conf);
static void *ngx_http_llm_create_loc_conf(ngx_conf_t *cf);
static char *ngx_http_llm_merge_loc_conf(ngx_conf_t *cf, void *parent,
    void *child);
static ngx_int_t ngx_http_llm_merge_handler(ngx_conf_t *cf,
    ngx_http_core_loc_conf_t *clcf, ngx_http_llm_loc_conf_t *prev,
    ngx_http_llm_loc_conf_t *conf);
static ngx_int_t ngx_http_llm_merge_auth(ngx_conf_t *cf,
    ngx_http_core_loc_conf_t *clcf, ngx_http_llm_loc_conf_t *prev,
    ngx_http_llm_loc_conf_t *conf);
static ngx_int_t ngx_http_llm_init_process(ngx_cycle_t *cycle);
static void ngx_http_llm_exit_process(ngx_cycle_t *cycle);

static char *ngx_http_llm_pass(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_llm_status(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_llm_health(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_llm_check_body_size(ngx_conf_t *cf, void *post,
    void *data);
static char *ngx_http_llm_check_output_size(ngx_conf_t *cf, void *post,
    void *data);


static ngx_conf_post_t  ngx_http_llm_body_size_post =
    { ngx_http_llm_check_body_size };

static ngx_conf_post_t  ngx_http_llm_output_size_post =
    { ngx_http_llm_check_output_size };

static ngx_conf_num_bounds_t  ngx_http_llm_tokens_bounds =
    { ngx_conf_check_num_bounds, 1, 16 * 1024 * 1024 };

static ngx_conf_num_bounds_t  ngx_http_llm_limit_status_bounds =
    { ngx_conf_check_num_bounds, 400, 599 };

static ngx_conf_enum_t  ngx_http_llm_limit_log_levels[] = {
    { ngx_string("info"), NGX_LOG_INFO },
    { ngx_string("notice"), NGX_LOG_NOTICE },
    { ngx_string("warn"), NGX_LOG_WARN },
    { ngx_string("error"), NGX_LOG_ERR },
    { ngx_null_string, 0 }
};


static ngx_command_t  ngx_http_llm_commands[] = {

    { ngx_string("llm_engine"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_BLOCK|NGX_CONF_TAKE1,
      ngx_http_llm_engine_block,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_model"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE2|NGX_CONF_TAKE3|NGX_CONF_TAKE4,
      ngx_http_llm_model,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_tenant"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_BLOCK|NGX_CONF_TAKE1,
      ngx_http_llm_tenant_block,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_zone"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE12,
      ngx_http_llm_zone,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_usage_log"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_http_llm_usage_log,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_key_file"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE12,
      ngx_http_llm_key_file,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_jwt_key"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE3|NGX_CONF_TAKE4|NGX_CONF_TAKE5
                        |NGX_CONF_TAKE6,
      ngx_http_llm_jwt_key,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_jwt_claim_set"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_2MORE,
      ngx_http_llm_jwt_claim_set,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_auth"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_http_llm_auth,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_key"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_http_set_complex_value_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_llm_loc_conf_t, key),
      NULL },

    { ngx_string("llm_tenant_key"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_http_set_complex_value_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_llm_loc_conf_t, tenant_key),
      NULL },

    { ngx_string("llm_cors"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_llm_cors,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_pass"),
      NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_llm_pass,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_status"),
      NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_http_llm_status,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_admin"),
      NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS,
      ngx_http_llm_admin,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_health"),
      NGX_HTTP_LOC_CONF|NGX_CONF_TAKE12,
      ngx_http_llm_health,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_first_token_timeout"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_msec_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_llm_loc_conf_t, first_token_timeout),
      NULL },

    { ngx_string("llm_token_timeout"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_msec_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_llm_loc_conf_t, token_timeout),
      NULL },

    { ngx_string("llm_request_timeout"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_msec_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_llm_loc_conf_t, request_timeout),
      NULL },

    { ngx_string("llm_ping_interval"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_msec_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_llm_loc_conf_t, ping_interval),
      NULL },

    { ngx_string("llm_body_buffer_size"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_size_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_llm_loc_conf_t, body_buffer_size),
      &ngx_http_llm_body_size_post },

    { ngx_string("llm_output_buffer"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_size_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_llm_loc_conf_t, output_buffer),
      &ngx_http_llm_output_size_post },

    { ngx_string("llm_max_tokens"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_num_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_llm_loc_conf_t, max_tokens),
      &ngx_http_llm_tokens_bounds },

    { ngx_string("llm_default_max_tokens"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_num_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_llm_loc_conf_t, default_max_tokens),
      &ngx_http_llm_tokens_bounds },

    { ngx_string("llm_ignore_client_abort"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_llm_loc_conf_t, ignore_client_abort),
      NULL },

    { ngx_string("llm_limit_dry_run"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_llm_loc_conf_t, limit_dry_run),
      NULL },

    { ngx_string("llm_limit_headers"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_llm_loc_conf_t, limit_headers),
      NULL },

    { ngx_string("llm_limit_status"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_num_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_llm_loc_conf_t, limit_status),
      &ngx_http_llm_limit_status_bounds },

    { ngx_string("llm_limit_log_level"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_enum_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_llm_loc_conf_t, limit_log_level),
      &ngx_http_llm_limit_log_levels },

    { ngx_string("llm_request_id"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_http_set_complex_value_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_llm_loc_conf_t, request_id),
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_llm_module_ctx = {
    ngx_http_llm_preconfiguration,         /* preconfiguration */
    ngx_http_llm_postconfiguration,        /* postconfiguration */

    ngx_http_llm_create_main_conf,         /* create main configuration */
    ngx_http_llm_init_main_conf,           /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_llm_create_loc_conf,          /* create location configuration */
    ngx_http_llm_merge_loc_conf            /* merge location configuration */
};


ngx_module_t  ngx_http_llm_module = {
    NGX_MODULE_V1,
    &ngx_http_llm_module_ctx,              /* module context */
    ngx_http_llm_commands,                 /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    ngx_http_llm_init_process,             /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    ngx_http_llm_exit_process,             /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


/*
 * An internal redirect (error_page) clears the request's contexts, but the
 * access log still wants $llm_*: a pool cleanup entry remembers ours.
 */

ngx_http_llm_ctx_t *
ngx_http_llm_get_ctx(ngx_http_request_t *r)
{
    ngx_http_llm_ctx_t  *ctx;
    ngx_pool_cleanup_t  *cln;

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_module);

    if (ctx == NULL && (r->internal || r->filter_finalize)) {

        for (cln = r->pool->cleanup; cln; cln = cln->next) {
            if (cln->handler == ngx_http_llm_stream_cleanup) {
                ctx = cln->data;
                break;
            }
        }
    }

    return ctx;
}


static ngx_int_t
ngx_http_llm_preconfiguration(ngx_conf_t *cf)
{
    if (ngx_http_llm_add_variables(cf) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_llm_jwt_add_variables(cf);
}


static ngx_int_t
ngx_http_llm_postconfiguration(ngx_conf_t *cf)
{
    ngx_uint_t                  n;
    ngx_array_t                *handlers;
    ngx_http_handler_pt        *h;
    ngx_http_core_main_conf_t  *cmcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    handlers = &cmcf->phases[NGX_HTTP_ACCESS_PHASE].handlers;

    if (ngx_array_push_n(handlers, 2) == NULL) {
        return NGX_ERROR;
    }

    /* they run from the last to the first: ours is to know all others' word */

    h = handlers->elts;
    n = handlers->nelts;

    ngx_memmove(&h[1], &h[0], (n - 2) * sizeof(ngx_http_handler_pt));

    h[0] = ngx_http_llm_access_handler;
    h[n - 1] = ngx_http_llm_cors_preflight;

    return ngx_http_llm_jwt_check_variables(cf);
}


static void *
ngx_http_llm_create_main_conf(ngx_conf_t *cf)
{
    ngx_http_llm_main_conf_t  *lmcf;

    lmcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_llm_main_conf_t));
    if (lmcf == NULL) {
        return NULL;
    }

    if (ngx_array_init(&lmcf->engines, cf->pool, 4,
                       sizeof(ngx_http_llm_engine_t *))
        != NGX_OK)
    {
        return NULL;
    }

    if (ngx_array_init(&lmcf->models, cf->pool, 4,
                       sizeof(ngx_http_llm_model_t))
        != NGX_OK)
    {
        return NULL;
    }

    if (ngx_array_init(&lmcf->tenants, cf->pool, 4,
                       sizeof(ngx_http_llm_tenant_t *))
        != NGX_OK)
    {
        return NULL;
    }

    return lmcf;
}


static char *
ngx_http_llm_init_main_conf(ngx_conf_t *cf, void *conf)
{
    ngx_http_llm_main_conf_t *lmcf = conf;

    ngx_str_t                name, state;
    ngx_uint_t               i, needed;
    ngx_http_llm_engine_t  **engine;
    ngx_http_llm_tenant_t  **tenant;

    engine = lmcf->engines.elts;

    for (i = 0; i < lmcf->engines.nelts; i++) {

        if (!engine[i]->defined) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "unknown llm engine \"%V\" in %s:%ui",
                          &engine[i]->name, engine[i]->file_name,
                          engine[i]->line);
            return NGX_CONF_ERROR;
        }
    }

    ngx_http_llm_tenant_sort(lmcf);

    tenant = lmcf->tenants.elts;
    needed = lmcf->usage_log != NULL || lmcf->watched;

    for (i = 0; i < lmcf->tenants.nelts; i++) {
        needed |= tenant[i]->limited;
    }

    if (needed && lmcf->zone == NULL) {

        ngx_str_set(&name, "llm");
        ngx_str_null(&state);

        if (ngx_http_llm_zone_add(cf, lmcf, &name, 4 * 1024 * 1024, &state)
            != NGX_OK)
        {
            return NGX_CONF_ERROR;
        }
    }

    return NGX_CONF_OK;
}


static void *
ngx_http_llm_create_loc_conf(ngx_conf_t *cf)
{
    ngx_http_llm_loc_conf_t  *conf;

    conf = ngx_pcalloc(cf->pool, sizeof(ngx_http_llm_loc_conf_t));
    if (conf == NULL) {
        return NULL;
    }

    /*
     * set by ngx_pcalloc():
     *
     *     conf->engines = NULL;
     *     conf->request_id = NULL;
     *     conf->key = NULL;
     *     conf->tenant_key = NULL;
     *     conf->status = 0;
     *     conf->health = 0;
     *     conf->health_engine = NULL;
     */

    conf->first_token_timeout = NGX_CONF_UNSET_MSEC;
    conf->token_timeout = NGX_CONF_UNSET_MSEC;
    conf->request_timeout = NGX_CONF_UNSET_MSEC;
    conf->ping_interval = NGX_CONF_UNSET_MSEC;
    conf->body_buffer_size = NGX_CONF_UNSET_SIZE;
    conf->output_buffer = NGX_CONF_UNSET_SIZE;
    conf->max_tokens = NGX_CONF_UNSET;
    conf->default_max_tokens = NGX_CONF_UNSET;
    conf->ignore_client_abort = NGX_CONF_UNSET;
    conf->limit_dry_run = NGX_CONF_UNSET;
    conf->limit_headers = NGX_CONF_UNSET;
    conf->limit_status = NGX_CONF_UNSET_UINT;
    conf->limit_log_level = NGX_CONF_UNSET_UINT;
    conf->auth = NGX_CONF_UNSET_UINT;
    conf->cors = NGX_CONF_UNSET_PTR;

    return conf;
}


static char *
ngx_http_llm_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_llm_loc_conf_t *prev = parent;
    ngx_http_llm_loc_conf_t *conf = child;

    ngx_str_t                          value;
    ngx_uint_t                         i;
    ngx_http_llm_engine_t            **engines;
    ngx_http_core_loc_conf_t          *clcf;
    ngx_http_compile_complex_value_t   ccv;

    ngx_conf_merge_msec_value(conf->first_token_timeout,
                              prev->first_token_timeout, 120000);
    ngx_conf_merge_msec_value(conf->token_timeout,
                              prev->token_timeout, 30000);
    ngx_conf_merge_msec_value(conf->request_timeout,
                              prev->request_timeout, 900000);
    ngx_conf_merge_msec_value(conf->ping_interval, prev->ping_interval, 0);
    ngx_conf_merge_size_value(conf->body_buffer_size,
                              prev->body_buffer_size, 1024 * 1024);
    ngx_conf_merge_size_value(conf->output_buffer,
                              prev->output_buffer, 64 * 1024);
    ngx_conf_merge_value(conf->max_tokens, prev->max_tokens, 0);
    ngx_conf_merge_value(conf->default_max_tokens,
                         prev->default_max_tokens, 0);
    ngx_conf_merge_value(conf->ignore_client_abort,
                         prev->ignore_client_abort, 0);
    ngx_conf_merge_value(conf->limit_dry_run, prev->limit_dry_run, 0);
    ngx_conf_merge_value(conf->limit_headers, prev->limit_headers, 1);
    ngx_conf_merge_uint_value(conf->limit_status, prev->limit_status,
                              NGX_HTTP_TOO_MANY_REQUESTS);
    ngx_conf_merge_uint_value(conf->limit_log_level, prev->limit_log_level,
                              NGX_LOG_ERR);
    ngx_conf_merge_ptr_value(conf->cors, prev->cors, NULL);

    if (conf->request_id == NULL) {
        conf->request_id = prev->request_id;
    }

    if (conf->max_tokens && conf->default_max_tokens > conf->max_tokens) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"llm_default_max_tokens\" %i is greater than "
                           "\"llm_max_tokens\" %i",
                           conf->default_max_tokens, conf->max_tokens);
        return NGX_CONF_ERROR;
    }

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (ngx_http_llm_merge_handler(cf, clcf, prev, conf) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    if (ngx_http_llm_merge_auth(cf, clcf, prev, conf) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    if (conf->engines == NULL) {
        return NGX_CONF_OK;
    }

    engines = conf->engines->elts;

    for (i = 0; i < conf->engines->nelts; i++) {
        if (engines[i]->defaults) {
            conf->model_optional = 1;
        }
    }

    if (conf->request_id == NULL) {

        ngx_str_set(&value, "$request_id");

        conf->request_id = ngx_palloc(cf->pool,
                                      sizeof(ngx_http_complex_value_t));
        if (conf->request_id == NULL) {
            return NGX_CONF_ERROR;
        }

        ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));

        ccv.cf = cf;
        ccv.value = &value;
        ccv.complex_value = conf->request_id;

        if (ngx_http_compile_complex_value(&ccv) != NGX_OK) {
            return NGX_CONF_ERROR;
        }
    }

    /*
     * Too large a body is refused in the API's own form, so the check of
     * client_max_body_size is made by us instead of by the core.
     */

    conf->body_max = conf->body_buffer_size;

    if (clcf->client_max_body_size
        && clcf->client_max_body_size < (off_t) conf->body_max)
    {
        conf->body_max = (size_t) clcf->client_max_body_size;
    }

    clcf->client_max_body_size = 0;

    return NGX_CONF_OK;
}


/*
 * A handler is a location's own, but "if" and "limit_except" blocks in it
 * serve the same requests.
 */

static ngx_int_t
ngx_http_llm_merge_handler(ngx_conf_t *cf, ngx_http_core_loc_conf_t *clcf,
    ngx_http_llm_loc_conf_t *prev, ngx_http_llm_loc_conf_t *conf)
{
    ngx_http_handler_pt  handler;

    if (clcf->noname) {
        conf->engines = prev->engines;
        conf->status = prev->status;
        conf->admin = prev->admin;
        conf->health = prev->health;
        conf->health_engine = prev->health_engine;
    }

    if (conf->engines) {
        handler = ngx_http_llm_handler;

    } else if (conf->status) {
        handler = ngx_http_llm_status_handler;

    } else if (conf->admin) {
        handler = ngx_http_llm_admin_handler;

    } else if (conf->health) {
        handler = ngx_http_llm_health_handler;

    } else {
        return NGX_OK;
    }

    if (clcf->lmt_excpt && clcf->handler == NULL) {
        clcf->handler = handler;
    }

    if (clcf->handler && clcf->handler != handler) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "location \"%V\" has an llm handler and another "
                           "one", &clcf->name);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_merge_auth(ngx_conf_t *cf, ngx_http_core_loc_conf_t *clcf,
    ngx_http_llm_loc_conf_t *prev, ngx_http_llm_loc_conf_t *conf)
{
    ngx_uint_t                 known;
    ngx_http_llm_main_conf_t  *lmcf;

    if (conf->key == NULL) {
        conf->key = prev->key;
    }

    if (conf->tenant_key == NULL) {
        conf->tenant_key = prev->tenant_key;
    }

    if (conf->auth == NGX_CONF_UNSET_UINT) {
        conf->auth = prev->auth;
    }

    if (conf->engines == NULL) {
        return NGX_OK;
    }

    /* as soon as there is something to ask by, it is asked */

    lmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_module);
    known = lmcf->keys != NULL || conf->tenant_key != NULL;

    conf->auth_mode = conf->auth;

    if (conf->auth == NGX_CONF_UNSET_UINT) {
        conf->auth_mode = known ? NGX_HTTP_LLM_AUTH_ON
                                : NGX_HTTP_LLM_AUTH_OFF;
    }

    if (conf->auth_mode != NGX_HTTP_LLM_AUTH_OFF && !known) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"llm_auth\" in location \"%V\" needs "
                           "\"llm_key_file\" or \"llm_tenant_key\"",
                           &clcf->name);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_init_process(ngx_cycle_t *cycle)
{
    struct rlimit              rlmt;
    ngx_core_conf_t           *ccf;
    ngx_http_llm_main_conf_t  *lmcf;

    /* cache manager and loader come through here too */

    if (ngx_process != NGX_PROCESS_WORKER
        && ngx_process != NGX_PROCESS_SINGLE)
    {
        return NGX_OK;
    }

    lmcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_llm_module);

    if (lmcf == NULL || lmcf->engines.nelts == 0) {
        return NGX_OK;
    }

    /*
     * A core dump would hold prompts and answers.  worker_rlimit_core is how
     * an administrator says that dumps are wanted nevertheless.
     */

    ccf = (ngx_core_conf_t *) ngx_get_conf(cycle->conf_ctx, ngx_core_module);

    if (ccf->rlimit_core == NGX_CONF_UNSET) {
        rlmt.rlim_cur = 0;
        rlmt.rlim_max = 0;

        if (setrlimit(RLIMIT_CORE, &rlmt) == -1) {
            ngx_log_error(NGX_LOG_ALERT, cycle->log, ngx_errno,
                          "setrlimit(RLIMIT_CORE, 0) failed");
        }

        if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == -1) {
            ngx_log_error(NGX_LOG_ALERT, cycle->log, ngx_errno,
                          "prctl(PR_SET_DUMPABLE) failed");
        }
    }

    if (lmcf->zone
        && ngx_http_llm_zone_open(lmcf->zone, cycle->log) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (lmcf->keys) {
        ngx_http_llm_keys_open(lmcf->keys, cycle->log);
    }

    return ngx_http_llm_channels_open(cycle);
}


static void
ngx_http_llm_exit_process(ngx_cycle_t *cycle)
{
    ngx_http_llm_main_conf_t  *lmcf;

    ngx_http_llm_channels_close(cycle);

    lmcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_llm_module);

    if (lmcf && lmcf->zone && lmcf->zone->self) {
        ngx_http_llm_zone_close(lmcf->zone);
    }
}


/* makes handler the location's, if it has none yet */

static char *
ngx_http_llm_set_handler(ngx_conf_t *cf, ngx_http_handler_pt handler)
{
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (clcf->handler) {
        return "is duplicate, or the location has another handler already";
    }

    clcf->handler = handler;

    return NGX_CONF_OK;
}


/* llm_pass ENGINE ... */

static char *
ngx_http_llm_pass(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_loc_conf_t *llcf = conf;

    ngx_str_t              *value;
    ngx_uint_t              i, j;
    ngx_http_llm_engine_t  *engine, **engines;

    value = cf->args->elts;

    if (cf->args->nelts - 1 > NGX_HTTP_LLM_TARGETS_MAX) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "more than %d llm engines",
                           NGX_HTTP_LLM_TARGETS_MAX);
        return NGX_CONF_ERROR;
    }

    llcf->engines = ngx_array_create(cf->pool, cf->args->nelts - 1,
                                     sizeof(ngx_http_llm_engine_t *));
    if (llcf->engines == NULL) {
        return NGX_CONF_ERROR;
    }

    for (i = 1; i < cf->args->nelts; i++) {

        engine = ngx_http_llm_engine_mention(cf, &value[i]);
        if (engine == NULL) {
            return NGX_CONF_ERROR;
        }

        engines = llcf->engines->elts;

        for (j = 0; j < llcf->engines->nelts; j++) {
            if (engines[j] == engine) {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "duplicate llm engine \"%V\"", &value[i]);
                return NGX_CONF_ERROR;
            }
        }

        engines = ngx_array_push(llcf->engines);
        if (engines == NULL) {
            return NGX_CONF_ERROR;
        }

        *engines = engine;
    }

    if (ngx_http_llm_parse_init(cf) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    return ngx_http_llm_set_handler(cf, ngx_http_llm_handler);
}


/* llm_status json | prometheus */

static char *
ngx_http_llm_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_loc_conf_t *llcf = conf;

    ngx_str_t                 *value;
    ngx_http_llm_main_conf_t  *lmcf;

    lmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_module);
    lmcf->watched = 1;

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "json") == 0) {
        llcf->status = NGX_HTTP_LLM_STATUS_JSON;

    } else if (ngx_strcmp(value[1].data, "prometheus") == 0) {
        llcf->status = NGX_HTTP_LLM_STATUS_PROMETHEUS;

    } else {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\", it must be \"json\" or "
                           "\"prometheus\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    return ngx_http_llm_set_handler(cf, ngx_http_llm_status_handler);
}


/* llm_health live | ready [ENGINE] */

static char *
ngx_http_llm_health(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_loc_conf_t *llcf = conf;

    ngx_str_t  *value;

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "live") == 0 && cf->args->nelts == 2) {
        llcf->health = NGX_HTTP_LLM_HEALTH_LIVE;

    } else if (ngx_strcmp(value[1].data, "ready") == 0) {
        llcf->health = NGX_HTTP_LLM_HEALTH_READY;

        if (cf->args->nelts == 3) {
            llcf->health_engine = ngx_http_llm_engine_mention(cf, &value[2]);
            if (llcf->health_engine == NULL) {
                return NGX_CONF_ERROR;
            }
        }

    } else {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\", it must be \"live\", or "
                           "\"ready\" and possibly an engine", &value[1]);
        return NGX_CONF_ERROR;
    }

    return ngx_http_llm_set_handler(cf, ngx_http_llm_health_handler);
}


static char *
ngx_http_llm_check_body_size(ngx_conf_t *cf, void *post, void *data)
{
    size_t *sp = data;

    if (*sp < 1024 || *sp > 1024 * 1024 * 1024) {
        return "must be from 1k to 1g";
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_llm_check_output_size(ngx_conf_t *cf, void *post, void *data)
{
    size_t *sp = data;

    if (*sp < 1024 || *sp > 16 * 1024 * 1024) {
        return "must be from 1k to 16m";
    }

    return NGX_CONF_OK;
}
