
/*
 * Tenants by JWT: llm_jwt_key, and the claims of a good token as variables.
 *
 * DESIGN.  A token's claims are only ever variables, $llm_jwt_claim_NAME and
 * those of llm_jwt_claim_set: which of them is the tenant is said by
 * llm_tenant_key, as with a client certificate, and map, limit_req, log_format
 * and other modules may use them in any location.  They are empty unless the
 * whole token is good, so there is nothing to forget to check.
 *
 * What the client has sent as its key (llm_key, Authorization, x-api-key) is
 * taken for a token if it has the form of one.  It is verified when a variable
 * is first asked for, and once: the result hangs at the request's pool, which
 * internal redirects and subrequests share, beside the text that it is about,
 * as another location may look for keys in another place.  A bad token is no
 * error here: the key lookup goes on with its text, and refuses it.
 *
 * Keys are read with the configuration, by the master, so their files may be
 * root's alone; a reload takes up new ones.  The log tells at "info" why a
 * token was refused, and never holds any of it.
 */


#include "ngx_http_llm_module.h"
#include "jwt.h"


#define NGX_HTTP_LLM_JWT_PREFIX      "llm_jwt_claim_"
#define NGX_HTTP_LLM_JWT_LEEWAY      60     /* RFC 7519: "a few minutes" */
#define NGX_HTTP_LLM_JWT_LEEWAY_MAX  86400


typedef struct {
    ngx_str_t        token;
    ngx_int_t        rc;                /* LLM_JWT_* */
    struct json_t   *claims;            /* NULL unless it is good */
} ngx_http_llm_jwt_t;


static ngx_int_t ngx_http_llm_jwt_rule(ngx_conf_t *cf, llm_jwt_rule_t *rule);
static ngx_int_t ngx_http_llm_jwt_parameter(ngx_str_t *arg, const char *name,
    const char **value);
static ssize_t ngx_http_llm_jwt_read(ngx_conf_t *cf, ngx_str_t *path,
    u_char *buf, size_t size);
static void ngx_http_llm_jwt_keys_cleanup(void *data);
static ngx_int_t ngx_http_llm_jwt_claim(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_llm_jwt_claim_at(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_llm_jwt_value(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, llm_jwt_str_t *path, ngx_uint_t n);
static ngx_int_t ngx_http_llm_jwt_get(ngx_http_request_t *r,
    ngx_uint_t verify, ngx_http_llm_jwt_t **result);
static void ngx_http_llm_jwt_cleanup(void *data);


/* llm_key is being evaluated, for a claim; one request at a time is */

static ngx_uint_t  ngx_http_llm_jwt_asking;


/* llm_jwt_key KID ALG FILE [iss=TEXT] [aud=TEXT] [leeway=TIME] */

char *
ngx_http_llm_jwt_key(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_main_conf_t *lmcf = conf;

    int                  rv;
    u_char              *buf;
    ssize_t              n;
    ngx_str_t           *value, path;
    llm_jwt_rule_t       rule;
    ngx_pool_cleanup_t  *cln;
    char                 err[LLM_JWT_ERR];

    if (ngx_http_llm_jwt_rule(cf, &rule) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    value = cf->args->elts;
    path = value[3];

    if (ngx_conf_full_name(cf->cycle, &path, 1) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    if (lmcf->jwt_keys == NULL) {

        cln = ngx_pool_cleanup_add(cf->pool, 0);
        if (cln == NULL) {
            return NGX_CONF_ERROR;
        }

        lmcf->jwt_keys = llm_jwt_keys_create();
        if (lmcf->jwt_keys == NULL) {
            return NGX_CONF_ERROR;
        }

        cln->handler = ngx_http_llm_jwt_keys_cleanup;
        cln->data = lmcf->jwt_keys;
    }

    /* one byte more than it may have */

    buf = ngx_alloc(LLM_JWT_FILE_MAX + 1, cf->log);
    if (buf == NULL) {
        return NGX_CONF_ERROR;
    }

    n = ngx_http_llm_jwt_read(cf, &path, buf, LLM_JWT_FILE_MAX + 1);

    rv = n < 0 ? 0 : llm_jwt_keys_add(lmcf->jwt_keys, &rule, (char *) buf, n,
                                      err);

    ngx_explicit_memzero(buf, LLM_JWT_FILE_MAX + 1);
    ngx_free(buf);

    if (rv < 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "llm_jwt_key \"%V\", file \"%V\": %s",
                           &value[1], &path, err);
    }

    return n < 0 || rv < 0 ? NGX_CONF_ERROR : NGX_CONF_OK;
}


static ngx_int_t
ngx_http_llm_jwt_rule(ngx_conf_t *cf, llm_jwt_rule_t *rule)
{
    time_t       leeway;
    ngx_str_t   *value, s;
    ngx_uint_t   i;
    const char  *text;

    ngx_memzero(rule, sizeof(llm_jwt_rule_t));

    value = cf->args->elts;

    rule->kid = (char *) value[1].data;
    rule->alg = (char *) value[2].data;
    rule->leeway = NGX_HTTP_LLM_JWT_LEEWAY;

    text = NULL;

    for (i = 4; i < cf->args->nelts; i++) {

        if (ngx_http_llm_jwt_parameter(&value[i], "iss=", &rule->iss)
            == NGX_OK
            || ngx_http_llm_jwt_parameter(&value[i], "aud=", &rule->aud)
               == NGX_OK)
        {
            continue;
        }

        if (ngx_http_llm_jwt_parameter(&value[i], "leeway=", &text) != NGX_OK)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\"", &value[i]);
            return NGX_ERROR;
        }

        s.data = (u_char *) text;
        s.len = ngx_strlen(text);

        leeway = ngx_parse_time(&s, 1);

        if (leeway == (time_t) NGX_ERROR
            || leeway > NGX_HTTP_LLM_JWT_LEEWAY_MAX)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid time in \"%V\", it may be a day at "
                               "most", &value[i]);
            return NGX_ERROR;
        }

        rule->leeway = leeway;
    }

    return NGX_OK;
}


/* what follows name in arg; NGX_DECLINED if it is another, empty, or twice */

static ngx_int_t
ngx_http_llm_jwt_parameter(ngx_str_t *arg, const char *name,
    const char **value)
{
    size_t  len;

    len = ngx_strlen(name);

    if (arg->len <= len || ngx_strncmp(arg->data, name, len) != 0 || *value) {
        return NGX_DECLINED;
    }

    *value = (char *) arg->data + len;

    return NGX_OK;
}


/* the file's length, or -1 and a line in the log; more than size is cut */

static ssize_t
ngx_http_llm_jwt_read(ngx_conf_t *cf, ngx_str_t *path, u_char *buf,
    size_t size)
{
    size_t           len;
    ssize_t          n;
    ngx_fd_t         fd;
    ngx_file_info_t  fi;

    fd = ngx_open_file(path->data, NGX_FILE_RDONLY|O_CLOEXEC|O_NONBLOCK,
                       NGX_FILE_OPEN, 0);

    if (fd == NGX_INVALID_FILE) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                           ngx_open_file_n " \"%V\" failed", path);
        return -1;
    }

    if (ngx_fd_info(fd, &fi) == NGX_FILE_ERROR || !ngx_is_file(&fi)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"%V\" is not a file", path);
        n = -1;
        goto done;
    }

    for (len = 0; len < size; len += n) {

        n = ngx_read_fd(fd, buf + len, size - len);

        if (n == -1) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                               ngx_read_fd_n " \"%V\" failed", path);
            goto done;
        }

        if (n == 0) {
            break;
        }
    }

    n = len;

done:

    (void) ngx_close_file(fd);

    return n;
}


static void
ngx_http_llm_jwt_keys_cleanup(void *data)
{
    llm_jwt_keys_free(data);
}


/*
 * llm_jwt_claim_set $VARIABLE NAME ...: a claim by its exact name, or by the
 * names on the way to it.  What follows a prefix of nginx's variables can hold
 * neither capitals nor anything but letters, digits and "_".
 */

char *
ngx_http_llm_jwt_claim_set(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_main_conf_t *lmcf = conf;

    ngx_str_t            *value, name;
    ngx_uint_t            i;
    ngx_array_t          *path;
    llm_jwt_str_t        *step;
    ngx_http_variable_t  *var;

    value = cf->args->elts;
    name = value[1];

    if (name.len < 2 || name.data[0] != '$') {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid variable name \"%V\"", &name);
        return NGX_CONF_ERROR;
    }

    name.data++;
    name.len--;

    path = ngx_array_create(cf->pool, cf->args->nelts - 2,
                            sizeof(llm_jwt_str_t));
    if (path == NULL) {
        return NGX_CONF_ERROR;
    }

    for (i = 2; i < cf->args->nelts; i++) {

        step = ngx_array_push(path);
        if (step == NULL) {
            return NGX_CONF_ERROR;
        }

        step->data = (char *) value[i].data;
        step->len = value[i].len;
    }

    var = ngx_http_add_variable(cf, &name, NGX_HTTP_VAR_NOCACHEABLE);
    if (var == NULL) {
        return NGX_CONF_ERROR;
    }

    var->get_handler = ngx_http_llm_jwt_claim_at;
    var->data = (uintptr_t) path;

    lmcf->jwt_claims = 1;

    return NGX_CONF_OK;
}


ngx_int_t
ngx_http_llm_jwt_add_variables(ngx_conf_t *cf)
{
    ngx_str_t             name;
    ngx_http_variable_t  *var;

    ngx_str_set(&name, NGX_HTTP_LLM_JWT_PREFIX);

    var = ngx_http_add_variable(cf, &name,
                                NGX_HTTP_VAR_NOCACHEABLE|NGX_HTTP_VAR_PREFIX);
    if (var == NULL) {
        return NGX_ERROR;
    }

    var->get_handler = ngx_http_llm_jwt_claim;

    return NGX_OK;
}


/* a claim that nothing can vouch for would be empty for ever */

ngx_int_t
ngx_http_llm_jwt_check_variables(ngx_conf_t *cf)
{
    size_t                      len;
    ngx_uint_t                  i;
    ngx_http_variable_t        *var;
    ngx_http_llm_main_conf_t   *lmcf;
    ngx_http_core_main_conf_t  *cmcf;

    lmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_module);

    if (lmcf->jwt_keys) {
        return NGX_OK;
    }

    if (lmcf->jwt_claims) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"llm_jwt_claim_set\" needs \"llm_jwt_key\"");
        return NGX_ERROR;
    }

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    len = sizeof(NGX_HTTP_LLM_JWT_PREFIX) - 1;
    var = cmcf->variables.elts;

    for (i = 0; i < cmcf->variables.nelts; i++) {

        if (var[i].name.len > len
            && ngx_strncmp(var[i].name.data, NGX_HTTP_LLM_JWT_PREFIX, len)
               == 0)
        {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "\"$%V\" needs \"llm_jwt_key\"", &var[i].name);
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* $llm_jwt_claim_NAME; data is its whole name */

static ngx_int_t
ngx_http_llm_jwt_claim(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    uintptr_t data)
{
    ngx_str_t *name = (ngx_str_t *) data;

    llm_jwt_str_t  path;

    path.data = (char *) name->data + sizeof(NGX_HTTP_LLM_JWT_PREFIX) - 1;
    path.len = name->len - (sizeof(NGX_HTTP_LLM_JWT_PREFIX) - 1);

    return ngx_http_llm_jwt_value(r, v, &path, 1);
}


/* a variable of llm_jwt_claim_set; data is the path */

static ngx_int_t
ngx_http_llm_jwt_claim_at(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    uintptr_t data)
{
    ngx_array_t *path = (ngx_array_t *) data;

    return ngx_http_llm_jwt_value(r, v, path->elts, path->nelts);
}


static ngx_int_t
ngx_http_llm_jwt_value(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    llm_jwt_str_t *path, ngx_uint_t n)
{
    char                 num[LLM_JWT_INT];
    llm_jwt_str_t        value;
    ngx_http_llm_jwt_t  *jwt;

    v->not_found = 1;

    if (ngx_http_llm_jwt_get(r, 1, &jwt) != NGX_OK) {
        return NGX_ERROR;
    }

    if (jwt == NULL || jwt->claims == NULL
        || llm_jwt_claim(jwt->claims, path, n, num, &value) < 0)
    {
        return NGX_OK;
    }

    /* a string lives as long as the claims do, which is until the pool's end */

    v->data = (u_char *) value.data;

    if (value.data == num) {

        v->data = ngx_pnalloc(r->pool, value.len);
        if (v->data == NULL) {
            return NGX_ERROR;
        }

        ngx_memcpy(v->data, num, value.len);
    }

    v->len = value.len;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    return NGX_OK;
}


/*
 * What is known of the text that the client has sent as its key; verify says
 * whether to find it out if it is not.  NULL in *result if nothing is known,
 * or there is no text.  NGX_OK, or NGX_ERROR when out of memory.
 */

static ngx_int_t
ngx_http_llm_jwt_get(ngx_http_request_t *r, ngx_uint_t verify,
    ngx_http_llm_jwt_t **result)
{
    ngx_int_t                  rc;
    ngx_str_t                  text;
    ngx_http_llm_ctx_t        *ctx;
    ngx_http_llm_jwt_t        *jwt;
    ngx_pool_cleanup_t        *cln;
    ngx_http_llm_loc_conf_t   *llcf;
    ngx_http_llm_main_conf_t  *lmcf;

    *result = NULL;

    lmcf = ngx_http_get_module_main_conf(r, ngx_http_llm_module);

    if (lmcf->jwt_keys == NULL) {
        return NGX_OK;
    }

    /* the key that was, or is to be, looked up */

    ctx = ngx_http_llm_get_ctx(r);
    llcf = ctx ? ctx->conf
               : ngx_http_get_module_loc_conf(r, ngx_http_llm_module);

    /*
     * nginx finds such cycles too, but a hundred deep, and a value is asked
     * for twice at each depth: once for its length
     */

    if (ngx_http_llm_jwt_asking) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "llm_key depends on a claim of the token that it gives");
        return NGX_OK;
    }

    ngx_http_llm_jwt_asking = 1;
    rc = ngx_http_llm_key_text(r, llcf, &text);
    ngx_http_llm_jwt_asking = 0;

    if (rc != NGX_OK) {
        return NGX_ERROR;
    }

    if (text.len == 0) {
        return NGX_OK;
    }

    for (cln = r->pool->cleanup; cln; cln = cln->next) {

        if (cln->handler != ngx_http_llm_jwt_cleanup) {
            continue;
        }

        jwt = cln->data;

        if (jwt->token.len == text.len
            && ngx_memcmp(jwt->token.data, text.data, text.len) == 0)
        {
            *result = jwt;
            return NGX_OK;
        }
    }

    if (!verify) {
        return NGX_OK;
    }

    cln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_http_llm_jwt_t));
    if (cln == NULL) {
        return NGX_ERROR;
    }

    jwt = cln->data;
    jwt->token = text;
    jwt->rc = llm_jwt_verify(lmcf->jwt_keys, (char *) text.data, text.len,
                             ngx_time(), &jwt->claims);

    cln->handler = ngx_http_llm_jwt_cleanup;

    if (jwt->rc == LLM_JWT_MEMORY) {
        return NGX_ERROR;
    }

    if (jwt->rc != LLM_JWT_OK && jwt->rc != LLM_JWT_FORM) {
        ngx_log_error(NGX_LOG_INFO, r->connection->log, 0,
                      "JWT is refused: %s", llm_jwt_reason(jwt->rc));
    }

    *result = jwt;

    return NGX_OK;
}


static void
ngx_http_llm_jwt_cleanup(void *data)
{
    ngx_http_llm_jwt_t *jwt = data;

    llm_jwt_free(jwt->claims);
}


const char *
ngx_http_llm_jwt_told(ngx_http_request_t *r)
{
    ngx_http_llm_jwt_t  *jwt;

    if (ngx_http_llm_jwt_get(r, 0, &jwt) != NGX_OK || jwt == NULL) {
        return NULL;
    }

    return jwt->claims ? "The token names no tenant." : llm_jwt_told(jwt->rc);
}
