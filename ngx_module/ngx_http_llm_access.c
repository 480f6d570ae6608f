
/*
 * Who is asking: the access phase of llm_pass.
 *
 * DESIGN.  A request becomes a tenant's by a key (llm_key: whatever text of
 * the request holds it, looked up by its SHA-256 in llm_key_file), or by a
 * name that something trusted has found out already (llm_tenant_key: a client
 * certificate's subject, a claim of a JWT, a variable of auth_request).  It is
 * found out once, when first asked for: in the access phase, behind all other
 * modules, or before it by limit_req and map through $llm_tenant.  401 and 403
 * are said before a byte of the body has been read, in the API's own form.
 *
 * Who is let in by another module (satisfy any) is asked at the content
 * handler, and who has no name then is nobody: with the caps of llm_tenant
 * default, but no account.
 *
 * A key is never logged, kept or compared as text.
 */


#include "ngx_http_llm_module.h"
#include "keyfile.h"

#include <openssl/evp.h>


#define NGX_HTTP_LLM_KEY_MAX  512       /* of what a client sends, bytes */


static ngx_int_t ngx_http_llm_access_refused(ngx_http_llm_ctx_t *ctx);
static ngx_uint_t ngx_http_llm_identify_name(ngx_http_llm_ctx_t *ctx,
    ngx_str_t *name);
static ngx_uint_t ngx_http_llm_identify_key(ngx_http_llm_ctx_t *ctx,
    ngx_str_t *text);
static void ngx_http_llm_key_bearer(ngx_str_t *text);
static ngx_int_t ngx_http_llm_copy(ngx_pool_t *pool, ngx_str_t *dst,
    const char *src);


ngx_int_t
ngx_http_llm_access_handler(ngx_http_request_t *r)
{
    ngx_uint_t                 err;
    const char                *told;
    ngx_http_llm_ctx_t        *ctx;
    ngx_http_core_loc_conf_t  *clcf;
    ngx_http_llm_loc_conf_t   *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_module);

    if (llcf->engines == NULL || llcf->auth_mode == NGX_HTTP_LLM_AUTH_OFF
        || r != r->main)
    {
        return NGX_DECLINED;
    }

    ctx = ngx_http_llm_make_ctx(r);
    if (ctx == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    err = ngx_http_llm_identify(ctx);

    if (err == LLM_ERR_NONE) {

        err = ngx_http_llm_enter(ctx);

        if (err == LLM_ERR_NONE) {
            return NGX_OK;
        }

        if (err == LLM_ERR_INTERNAL) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        return ngx_http_llm_access_refused(ctx);
    }

    if (err == LLM_ERR_NO_KEY
        && llcf->auth_mode == NGX_HTTP_LLM_AUTH_OPTIONAL)
    {
        return NGX_DECLINED;
    }

    if (err == LLM_ERR_INTERNAL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    if (clcf->satisfy == NGX_HTTP_SATISFY_ANY) {

        /* if no other module has let it in the core answers */

        return llm_err(err)->http;
    }

    ngx_http_llm_refuse(ctx, err);

    if (err == LLM_ERR_BAD_KEY) {
        told = ctx->expired ? "The API key has expired."
                            : ngx_http_llm_jwt_told(r);

        if (told) {
            (void) llm_refuse(&ctx->refusal, err, NULL, "%s", told);
        }
    }

    return ngx_http_llm_access_refused(ctx);
}


static ngx_int_t
ngx_http_llm_access_refused(ngx_http_llm_ctx_t *ctx)
{
    ngx_int_t            rc;
    ngx_str_t            value;
    ngx_http_request_t  *r;

    r = ctx->request;

    ngx_http_llm_log_refusal(ctx);

    ngx_str_set(&value, "Bearer");

    if (llm_err(ctx->refusal.err)->http == NGX_HTTP_UNAUTHORIZED
        && ngx_http_llm_add_header(r, "WWW-Authenticate", &value) != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    rc = ngx_http_discard_request_body(r);

    if (rc == NGX_OK) {
        rc = ngx_http_llm_end_refused(ctx);
    }

    ngx_http_finalize_request(r, rc);

    return NGX_DONE;
}


ngx_uint_t
ngx_http_llm_enter(ngx_http_llm_ctx_t *ctx)
{
    ngx_int_t                  rc;
    ngx_http_llm_main_conf_t  *lmcf;

    if (ctx->entered) {
        return LLM_ERR_NONE;
    }

    ctx->entered = 1;

    if (ctx->conf->auth_mode == NGX_HTTP_LLM_AUTH_OFF
        || ngx_http_llm_identify(ctx) != LLM_ERR_NONE)
    {
        /* it was let in nevertheless, as somebody of no name */

        ngx_str_null(&ctx->tenant);
        ngx_str_null(&ctx->key_id);
        ngx_str_null(&ctx->key_models);

        lmcf = ngx_http_get_module_main_conf(ctx->request,
                                             ngx_http_llm_module);
        ctx->policy = lmcf->default_tenant;

        return LLM_ERR_NONE;
    }

    rc = ngx_http_llm_usage_open(ctx);

    if (rc == NGX_ERROR) {
        return LLM_ERR_INTERNAL;
    }

    if (rc == NGX_DECLINED) {
        ngx_http_llm_refuse(ctx, LLM_ERR_BUSY);
        return LLM_ERR_BUSY;
    }

    return ngx_http_llm_limit_ask(ctx);
}


ngx_uint_t
ngx_http_llm_identify(ngx_http_llm_ctx_t *ctx)
{
    ngx_str_t  text;

    if (ctx->identified) {
        return ctx->identity_err;
    }

    ctx->identified = 1;
    ctx->identity_err = LLM_ERR_INTERNAL;

    ngx_str_null(&text);

    if (ctx->conf->tenant_key
        && ngx_http_complex_value(ctx->request, ctx->conf->tenant_key, &text)
           != NGX_OK)
    {
        return LLM_ERR_INTERNAL;
    }

    if (text.len) {
        ctx->identity_err = ngx_http_llm_identify_name(ctx, &text);
        return ctx->identity_err;
    }

    if (ngx_http_llm_key_text(ctx->request, ctx->conf, &text) != NGX_OK) {
        return LLM_ERR_INTERNAL;
    }

    ctx->identity_err = ngx_http_llm_identify_key(ctx, &text);

    return ctx->identity_err;
}


/* a name comes from what the configuration trusts, but becomes a label */

static ngx_uint_t
ngx_http_llm_identify_name(ngx_http_llm_ctx_t *ctx, ngx_str_t *name)
{
    ngx_http_llm_main_conf_t  *lmcf;

    if (!llm_key_name_ok((char *) name->data, name->len)) {
        ngx_log_error(NGX_LOG_ERR, ctx->request->connection->log, 0,
                      "llm_tenant_key gave \"%V\", which is no tenant's name",
                      name);
        return LLM_ERR_BAD_KEY;
    }

    ctx->tenant = *name;

    lmcf = ngx_http_get_module_main_conf(ctx->request, ngx_http_llm_module);
    ctx->policy = ngx_http_llm_tenant_policy(lmcf, name);

    return LLM_ERR_NONE;
}


static ngx_uint_t
ngx_http_llm_identify_key(ngx_http_llm_ctx_t *ctx, ngx_str_t *text)
{
    u_char                     digest[EVP_MAX_MD_SIZE];
    ngx_pool_t                *pool;
    const llm_key_t           *key;
    ngx_http_llm_main_conf_t  *lmcf;

    if (text->len == 0) {
        return LLM_ERR_NO_KEY;
    }

    lmcf = ngx_http_get_module_main_conf(ctx->request, ngx_http_llm_module);

    if (lmcf->keys == NULL || text->len > NGX_HTTP_LLM_KEY_MAX) {
        return LLM_ERR_BAD_KEY;
    }

    if (EVP_Digest(text->data, text->len, digest, NULL, EVP_sha256(), NULL)
        != 1)
    {
        return LLM_ERR_INTERNAL;
    }

    key = ngx_http_llm_keys_find(lmcf->keys, digest);

    if (key == NULL) {
        return LLM_ERR_BAD_KEY;
    }

    /* the table may be replaced while the request runs */

    pool = ctx->request->pool;

    if (ngx_http_llm_copy(pool, &ctx->tenant, key->tenant) != NGX_OK
        || ngx_http_llm_copy(pool, &ctx->key_id, key->id) != NGX_OK
        || ngx_http_llm_copy(pool, &ctx->key_models, key->models) != NGX_OK)
    {
        return LLM_ERR_INTERNAL;
    }

    ctx->policy = ngx_http_llm_tenant_policy(lmcf, &ctx->tenant);

    /* its name may be logged: whose client has to be told is known */

    if (key->expires && key->expires <= ngx_time()) {
        ctx->expired = 1;
        return LLM_ERR_BAD_KEY;
    }

    return LLM_ERR_NONE;
}


static ngx_int_t
ngx_http_llm_copy(ngx_pool_t *pool, ngx_str_t *dst, const char *src)
{
    if (src == NULL) {
        return NGX_OK;
    }

    dst->len = ngx_strlen(src);
    dst->data = ngx_pnalloc(pool, dst->len + 1);

    if (dst->data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(dst->data, src, dst->len + 1);

    return NGX_OK;
}


/*
 * llm_key, or what clients of the two large APIs send: "Authorization: Bearer"
 * (OpenAI), x-api-key (Anthropic).
 */

ngx_int_t
ngx_http_llm_key_text(ngx_http_request_t *r, ngx_http_llm_loc_conf_t *llcf,
    ngx_str_t *text)
{
    ngx_str_t  *value;

    ngx_str_null(text);

    if (llcf->key) {

        if (ngx_http_complex_value(r, llcf->key, text) != NGX_OK) {
            return NGX_ERROR;
        }

        ngx_http_llm_key_bearer(text);

        return NGX_OK;
    }

    if (r->headers_in.authorization) {

        *text = r->headers_in.authorization->value;
        ngx_http_llm_key_bearer(text);

        if (text->len) {
            return NGX_OK;
        }
    }

    value = ngx_http_llm_header_in(r, "x-api-key");

    if (value) {
        *text = *value;
    }

    return NGX_OK;
}


/* what follows the scheme; nothing if it is another scheme */

static void
ngx_http_llm_key_bearer(ngx_str_t *text)
{
    u_char  *p, *last;

    p = text->data;
    last = p + text->len;

    if (text->len == 6 && ngx_strncasecmp(p, (u_char *) "Bearer", 6) == 0) {

        /* the core has taken off the space */

        p = last;

    } else if (text->len > 7
               && ngx_strncasecmp(p, (u_char *) "Bearer ", 7) == 0)
    {

        p += 7;

        while (p < last && *p == ' ') {
            p++;
        }

    } else if (ngx_strlchr(p, last, ' ')) {
        p = last;
    }

    text->data = p;
    text->len = last - p;
}


/*
 * Asked for before the access phase it finds out by itself; behind the answer,
 * when a request that was refused earlier is logged, it does not any more.
 */

ngx_int_t
ngx_http_llm_variable_identity(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_str_t                *value;
    ngx_http_llm_ctx_t       *ctx;
    ngx_http_llm_loc_conf_t  *llcf;

    v->not_found = 1;

    ctx = ngx_http_llm_get_ctx(r);

    if (ctx == NULL || !ctx->identified) {

        llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_module);

        if (llcf->engines == NULL || llcf->auth_mode == NGX_HTTP_LLM_AUTH_OFF
            || r != r->main || r->header_sent)
        {
            return NGX_OK;
        }

        ctx = ngx_http_llm_make_ctx(r);
        if (ctx == NULL) {
            return NGX_ERROR;
        }

        if (ctx->request == NULL) {
            return NGX_OK;
        }

        (void) ngx_http_llm_identify(ctx);
    }

    value = (ngx_str_t *) ((u_char *) ctx + data);

    if (value->len == 0) {
        return NGX_OK;
    }

    v->len = value->len;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;
    v->data = value->data;

    return NGX_OK;
}


ngx_uint_t
ngx_http_llm_may_use(ngx_http_llm_ctx_t *ctx, ngx_str_t *model)
{
    llm_key_t    key;
    ngx_str_t   *name;
    ngx_uint_t   i;

    if (ctx->key_models.len) {

        key.models = (char *) ctx->key_models.data;

        if (!llm_key_model(&key, (char *) model->data, model->len)) {
            return 0;
        }
    }

    if (ctx->policy == NULL || ctx->policy->models == NULL) {
        return 1;
    }

    name = ctx->policy->models->elts;

    for (i = 0; i < ctx->policy->models->nelts; i++) {
        if (name[i].len == model->len
            && ngx_strncmp(name[i].data, model->data, model->len) == 0)
        {
            return 1;
        }
    }

    return 0;
}


char *
ngx_http_llm_auth(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_loc_conf_t *llcf = conf;

    ngx_str_t  *value;

    if (llcf->auth != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "on") == 0) {
        llcf->auth = NGX_HTTP_LLM_AUTH_ON;

    } else if (ngx_strcmp(value[1].data, "off") == 0) {
        llcf->auth = NGX_HTTP_LLM_AUTH_OFF;

    } else if (ngx_strcmp(value[1].data, "optional") == 0) {
        llcf->auth = NGX_HTTP_LLM_AUTH_OPTIONAL;

    } else {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\", it must be \"on\", \"off\" "
                           "or \"optional\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}
