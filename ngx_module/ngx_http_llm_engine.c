
/*
 * What http{} says about engines and models: llm_engine { ... } and
 * llm_model.
 *
 * DESIGN.  Engines are named before or after they are used, so a mention
 * makes an entry and the block defines it; entries that stay undefined are
 * reported when http{} has been read.
 */


#include "ngx_http_llm_module.h"


static char *ngx_http_llm_engine_option(ngx_conf_t *cf, ngx_command_t *dummy,
    void *conf);
static char *ngx_http_llm_engine_server(ngx_conf_t *cf,
    ngx_http_llm_engine_t *engine);
static char *ngx_http_llm_engine_heartbeat(ngx_conf_t *cf,
    ngx_http_llm_engine_t *engine);
static char *ngx_http_llm_engine_reconnect(ngx_conf_t *cf,
    ngx_http_llm_engine_t *engine);


/* the entry called name, made if there is none yet */

ngx_http_llm_engine_t *
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


char *
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
    engine->queue = NGX_CONF_UNSET;
    engine->queue_timeout = NGX_CONF_UNSET_MSEC;

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
    ngx_conf_init_value(engine->queue, 64);
    ngx_conf_init_msec_value(engine->queue_timeout, 5000);

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

    if (ngx_strcmp(value[0].data, "queue") == 0) {
        return ngx_http_llm_conf_queue(cf, 0, &engine->queue,
                                       &engine->queue_timeout);
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


char *
ngx_http_llm_conf_queue(ngx_conf_t *cf, ngx_int_t min, ngx_int_t *queue,
    ngx_msec_t *timeout)
{
    ngx_str_t   *value, s;
    ngx_msec_t   msec;

    value = cf->args->elts;

    if (*queue != NGX_CONF_UNSET) {
        return "\"queue\" directive is duplicate";
    }

    if (cf->args->nelts != 2 && cf->args->nelts != 3) {
        return "invalid number of arguments in \"queue\" directive";
    }

    *queue = ngx_atoi(value[1].data, value[1].len);

    if (*queue < min || *queue > 1000000) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid number \"%V\" in \"queue\", it must be "
                           "from %i to 1000000", &value[1], min);
        return NGX_CONF_ERROR;
    }

    if (cf->args->nelts == 2) {
        return NGX_CONF_OK;
    }

    msec = (ngx_msec_t) NGX_ERROR;

    if (value[2].len > 8 && ngx_strncmp(value[2].data, "timeout=", 8) == 0) {
        s.data = value[2].data + 8;
        s.len = value[2].len - 8;

        msec = ngx_parse_time(&s, 0);
    }

    if (msec == 0 || msec > 86400000) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\" in \"queue\"", &value[2]);
        return NGX_CONF_ERROR;
    }

    *timeout = msec;

    return NGX_CONF_OK;
}


/* llm_model NAME engine=ENGINE [as=NAME] [default] */

char *
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
