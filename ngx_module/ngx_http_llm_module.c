
/*
 * The module's face to nginx: directives, their checks, the module
 * definition.
 *
 * DESIGN.  Whatever can be wrong in a configuration is found while it is
 * read, with file and line; what is accepted is enforced.  Reading it touches
 * nothing outside: `nginx -t` and the master never connect to an engine, only
 * a worker's init_process does, and an engine that is not there is no error:
 * it may come later.
 *
 * Engines are named before or after they are used, so a mention makes an
 * entry and the block defines it; entries that stay undefined are reported
 * when http{} has been read.
 */


#include "ngx_http_llm_module.h"

#include <sys/prctl.h>
#include <sys/resource.h>


static ngx_int_t ngx_http_llm_preconfiguration(ngx_conf_t *cf);
static void *ngx_http_llm_create_main_conf(ngx_conf_t *cf);
static char *ngx_http_llm_init_main_conf(ngx_conf_t *cf, void *conf);
static void *ngx_http_llm_create_loc_conf(ngx_conf_t *cf);
static char *ngx_http_llm_merge_loc_conf(ngx_conf_t *cf, void *parent,
    void *child);
static ngx_int_t ngx_http_llm_merge_handler(ngx_conf_t *cf,
    ngx_http_core_loc_conf_t *clcf, ngx_http_llm_loc_conf_t *prev,
    ngx_http_llm_loc_conf_t *conf);
static ngx_int_t ngx_http_llm_init_process(ngx_cycle_t *cycle);
static void ngx_http_llm_exit_process(ngx_cycle_t *cycle);

static char *ngx_http_llm_engine_block(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_llm_engine_option(ngx_conf_t *cf, ngx_command_t *dummy,
    void *conf);
static char *ngx_http_llm_engine_server(ngx_conf_t *cf,
    ngx_http_llm_engine_t *engine);
static char *ngx_http_llm_engine_heartbeat(ngx_conf_t *cf,
    ngx_http_llm_engine_t *engine);
static char *ngx_http_llm_engine_reconnect(ngx_conf_t *cf,
    ngx_http_llm_engine_t *engine);
static ngx_http_llm_engine_t *ngx_http_llm_engine_mention(ngx_conf_t *cf,
    ngx_str_t *name);
static char *ngx_http_llm_model(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
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
    NULL,                                  /* postconfiguration */

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
    return ngx_http_llm_add_variables(cf);
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

    return lmcf;
}


static char *
ngx_http_llm_init_main_conf(ngx_conf_t *cf, void *conf)
{
    ngx_http_llm_main_conf_t *lmcf = conf;

    ngx_uint_t               i;
    ngx_http_llm_engine_t  **engine;

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
        conf->health = prev->health;
        conf->health_engine = prev->health_engine;
    }

    if (conf->engines) {
        handler = ngx_http_llm_handler;

    } else if (conf->status) {
        handler = ngx_http_llm_status_handler;

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

    return ngx_http_llm_channels_open(cycle);
}


static void
ngx_http_llm_exit_process(ngx_cycle_t *cycle)
{
    ngx_http_llm_channels_close(cycle);
}


/* the entry called name, made if there is none yet */

static ngx_http_llm_engine_t *
ngx_http_llm_engine_mention(ngx_conf_t *cf, ngx_str_t *name)
{
    ngx_uint_t                 i;
    ngx_http_llm_engine_t     *engine, **engines;
    ngx_http_llm_main_conf_t  *lmcf;

    lmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_module);

    engines = lmcf->engines.elts;

    for (i = 0; i < lmcf->engines.nelts; i++) {
        if (engines[i]->name.len == name->len
            && ngx_strncmp(engines[i]->name.data, name->data, name->len) == 0)
        {
            return engines[i];
        }
    }

    engine = ngx_pcalloc(cf->pool, sizeof(ngx_http_llm_engine_t));
    if (engine == NULL) {
        return NULL;
    }

    engine->name = *name;
    engine->file_name = cf->conf_file->file.name.data;
    engine->line = cf->conf_file->line;

    engines = ngx_array_push(&lmcf->engines);
    if (engines == NULL) {
        return NULL;
    }

    *engines = engine;

    return engine;
}


static char *
ngx_http_llm_engine_block(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    char                   *rv;
    size_t                  i;
    u_char                  ch;
    ngx_str_t              *value;
    ngx_conf_t              save;
    ngx_http_llm_engine_t  *engine;

    value = cf->args->elts;

    /* the name becomes a metric's label and part of log lines */

    for (i = 0; i < value[1].len; i++) {
        ch = value[1].data[i];

        if (!((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z')
              || (ch >= '0' && ch <= '9')
              || ch == '_' || ch == '-' || ch == '.'))
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid llm engine name \"%V\": only letters, "
                               "digits, \"_\", \"-\" and \".\" are allowed",
                               &value[1]);
            return NGX_CONF_ERROR;
        }
    }

    engine = ngx_http_llm_engine_mention(cf, &value[1]);
    if (engine == NULL) {
        return NGX_CONF_ERROR;
    }

    if (engine->defined) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "duplicate llm engine \"%V\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    engine->defined = 1;
    engine->connect_timeout = NGX_CONF_UNSET_MSEC;
    engine->reconnect_min = NGX_CONF_UNSET_MSEC;
    engine->reconnect_max = NGX_CONF_UNSET_MSEC;
    engine->heartbeat = NGX_CONF_UNSET_MSEC;
    engine->fails = NGX_CONF_UNSET_UINT;

    save = *cf;
    cf->handler = ngx_http_llm_engine_option;
    cf->handler_conf = (char *) engine;

    rv = ngx_conf_parse(cf, NULL);

    *cf = save;

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    if (engine->path.len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "llm engine \"%V\" has no \"server\"",
                           &engine->name);
        return NGX_CONF_ERROR;
    }

    ngx_conf_init_msec_value(engine->connect_timeout, 2000);
    ngx_conf_init_msec_value(engine->reconnect_min, 100);
    ngx_conf_init_msec_value(engine->reconnect_max, 5000);
    ngx_conf_init_msec_value(engine->heartbeat, 1000);
    ngx_conf_init_uint_value(engine->fails, 3);

    /* an engine moves its words once a second, so less would be chance */

    if (engine->heartbeat * engine->fails < 2000) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"heartbeat\" of llm engine \"%V\" gives up after "
                           "less than 2 seconds", &engine->name);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_llm_engine_option(ngx_conf_t *cf, ngx_command_t *dummy, void *conf)
{
    ngx_http_llm_engine_t  *engine;

    ngx_str_t   *value;
    ngx_msec_t   msec;

    value = cf->args->elts;
    engine = (ngx_http_llm_engine_t *) cf->handler_conf;

    if (ngx_strcmp(value[0].data, "server") == 0) {
        return ngx_http_llm_engine_server(cf, engine);
    }

    if (ngx_strcmp(value[0].data, "reconnect") == 0) {
        return ngx_http_llm_engine_reconnect(cf, engine);
    }

    if (ngx_strcmp(value[0].data, "heartbeat") == 0) {
        return ngx_http_llm_engine_heartbeat(cf, engine);
    }

    if (ngx_strcmp(value[0].data, "connect_timeout") == 0) {

        if (cf->args->nelts != 2) {
            return "invalid number of arguments in \"connect_timeout\" "
                   "directive";
        }

        if (engine->connect_timeout != NGX_CONF_UNSET_MSEC) {
            return "\"connect_timeout\" directive is duplicate";
        }

        msec = ngx_parse_time(&value[1], 0);

        if (msec == (ngx_msec_t) NGX_ERROR || msec == 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid time \"%V\" in \"connect_timeout\"",
                               &value[1]);
            return NGX_CONF_ERROR;
        }

        engine->connect_timeout = msec;

        return NGX_CONF_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "unknown directive \"%V\" in \"llm_engine\"",
                       &value[0]);
    return NGX_CONF_ERROR;
}


static char *
ngx_http_llm_engine_server(ngx_conf_t *cf, ngx_http_llm_engine_t *engine)
{
    ngx_str_t           *value, path;
    struct sockaddr_un  *sa;

    value = cf->args->elts;

    if (cf->args->nelts != 2) {
        return "invalid number of arguments in \"server\" directive";
    }

    if (engine->path.len) {
        return "\"server\" directive is duplicate";
    }

    if (value[1].len <= 5 || ngx_strncmp(value[1].data, "unix:", 5) != 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid server \"%V\": \"unix:\" and a path are "
                           "expected", &value[1]);
        return NGX_CONF_ERROR;
    }

    path.data = value[1].data + 5;
    path.len = value[1].len - 5;

    sa = &engine->sockaddr;

    if (path.data[0] != '/') {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the path in server \"%V\" is not absolute",
                           &value[1]);
        return NGX_CONF_ERROR;
    }

    if (path.len >= sizeof(sa->sun_path)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the path in server \"%V\" is longer than %uz "
                           "bytes", &value[1], sizeof(sa->sun_path) - 1);
        return NGX_CONF_ERROR;
    }

    sa->sun_family = AF_UNIX;
    ngx_memcpy(sa->sun_path, path.data, path.len);

    engine->path = path;

    return NGX_CONF_OK;
}


/* reconnect MIN MAX */

static char *
ngx_http_llm_engine_reconnect(ngx_conf_t *cf, ngx_http_llm_engine_t *engine)
{
    ngx_str_t   *value;
    ngx_msec_t   min, max;

    value = cf->args->elts;

    if (cf->args->nelts != 3) {
        return "invalid number of arguments in \"reconnect\" directive";
    }

    if (engine->reconnect_min != NGX_CONF_UNSET_MSEC) {
        return "\"reconnect\" directive is duplicate";
    }

    min = ngx_parse_time(&value[1], 0);
    max = ngx_parse_time(&value[2], 0);

    if (min == (ngx_msec_t) NGX_ERROR || max == (ngx_msec_t) NGX_ERROR
        || min < 10 || max < min)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid times \"%V\" and \"%V\" in \"reconnect\": "
                           "two are expected, the first from 10ms on, the "
                           "second not below it", &value[1], &value[2]);
        return NGX_CONF_ERROR;
    }

    engine->reconnect_min = min;
    engine->reconnect_max = max;

    return NGX_CONF_OK;
}


/* heartbeat TIME [fails=NUMBER] */

static char *
ngx_http_llm_engine_heartbeat(ngx_conf_t *cf, ngx_http_llm_engine_t *engine)
{
    ngx_int_t    n;
    ngx_str_t   *value;
    ngx_msec_t   msec;

    value = cf->args->elts;

    if (cf->args->nelts != 2 && cf->args->nelts != 3) {
        return "invalid number of arguments in \"heartbeat\" directive";
    }

    if (engine->heartbeat != NGX_CONF_UNSET_MSEC) {
        return "\"heartbeat\" directive is duplicate";
    }

    msec = ngx_parse_time(&value[1], 0);

    if (msec == (ngx_msec_t) NGX_ERROR || msec == 0 || msec > 3600000) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid time \"%V\" in \"heartbeat\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    if (cf->args->nelts == 3) {

        n = NGX_ERROR;

        if (value[2].len > 6 && ngx_strncmp(value[2].data, "fails=", 6) == 0) {
            n = ngx_atoi(value[2].data + 6, value[2].len - 6);
        }

        if (n < 1 || n > 1000) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\" in \"heartbeat\"",
                               &value[2]);
            return NGX_CONF_ERROR;
        }

        engine->fails = n;
    }

    engine->heartbeat = msec;

    return NGX_CONF_OK;
}


/* llm_model NAME engine=ENGINE [as=NAME] [default] */

static char *
ngx_http_llm_model(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_main_conf_t *lmcf = conf;

    ngx_str_t             *value, name;
    ngx_uint_t             i;
    ngx_http_llm_model_t   row, *model;

    value = cf->args->elts;

    ngx_memzero(&row, sizeof(ngx_http_llm_model_t));

    row.name = value[1];
    row.as = value[1];

    for (i = 2; i < cf->args->nelts; i++) {

        if (value[i].len > 7
            && ngx_strncmp(value[i].data, "engine=", 7) == 0)
        {
            name.data = value[i].data + 7;
            name.len = value[i].len - 7;

            row.engine = ngx_http_llm_engine_mention(cf, &name);
            if (row.engine == NULL) {
                return NGX_CONF_ERROR;
            }

            continue;
        }

        if (value[i].len > 3 && ngx_strncmp(value[i].data, "as=", 3) == 0) {
            row.as.data = value[i].data + 3;
            row.as.len = value[i].len - 3;
            continue;
        }

        if (ngx_strcmp(value[i].data, "default") == 0) {
            row.is_default = 1;
            continue;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\"", &value[i]);
        return NGX_CONF_ERROR;
    }

    if (row.engine == NULL) {
        return "has no \"engine=\" parameter";
    }

    if (row.name.len == 0 || row.name.len >= LLM_NAME_MAX
        || row.as.len >= LLM_NAME_MAX)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "a model name has from 1 to %d bytes",
                           LLM_NAME_MAX - 1);
        return NGX_CONF_ERROR;
    }

    model = lmcf->models.elts;

    for (i = 0; i < lmcf->models.nelts; i++) {

        if (model[i].engine != row.engine) {
            continue;
        }

        if (model[i].name.len == row.name.len
            && ngx_strncmp(model[i].name.data, row.name.data, row.name.len)
               == 0)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "duplicate llm model \"%V\"", &row.name);
            return NGX_CONF_ERROR;
        }

        if (model[i].is_default && row.is_default) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "llm models \"%V\" and \"%V\" are both the "
                               "default of engine \"%V\"",
                               &model[i].name, &row.name, &row.engine->name);
            return NGX_CONF_ERROR;
        }
    }

    model = ngx_array_push(&lmcf->models);
    if (model == NULL) {
        return NGX_CONF_ERROR;
    }

    *model = row;
    row.engine->models++;
    row.engine->defaults += row.is_default;

    return NGX_CONF_OK;
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

    return ngx_http_llm_set_handler(cf, ngx_http_llm_handler);
}


/* llm_status json | prometheus */

static char *
ngx_http_llm_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_loc_conf_t *llcf = conf;

    ngx_str_t  *value;

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
