
/*
 * llm_tenant: what each tenant may do.
 *
 * DESIGN.  A block gives a tenant's share and limits; llm_tenant default
 * { ... } those of every tenant that has no block, each for itself.  What is
 * enforced by the engine, which sees all workers, travels with each SUBMIT:
 * weight, priority, requests at a time, queue.  What a request may ask for is
 * checked here.
 */


#include "ngx_http_llm_module.h"
#include "keyfile.h"


typedef struct {
    ngx_str_t    name;
    size_t       offset;
    ngx_int_t    min;
    ngx_int_t    max;
} ngx_http_llm_tenant_number_t;


static char *ngx_http_llm_tenant_option(ngx_conf_t *cf, ngx_command_t *dummy,
    void *conf);
static char *ngx_http_llm_tenant_models(ngx_conf_t *cf,
    ngx_http_llm_tenant_t *tenant);
static char *ngx_http_llm_tenant_rate(ngx_conf_t *cf,
    ngx_http_llm_tenant_t *tenant, llm_rate_t *rate, uint64_t unit);
static char *ngx_http_llm_tenant_budget(ngx_conf_t *cf,
    ngx_http_llm_tenant_t *tenant, llm_limits_t *limits);
static char *ngx_http_llm_tenant_weights(ngx_conf_t *cf,
    ngx_http_llm_tenant_t *tenant);
static int ngx_libc_cdecl ngx_http_llm_tenant_cmp(const void *one,
    const void *two);


static const ngx_http_llm_tenant_number_t  ngx_http_llm_tenant_numbers[] = {

    { ngx_string("weight"), offsetof(ngx_http_llm_tenant_t, weight),
      1, 1000000 },

    { ngx_string("priority"), offsetof(ngx_http_llm_tenant_t, priority),
      0, 7 },

    { ngx_string("concurrent"), offsetof(ngx_http_llm_tenant_t, concurrent),
      1, 1000000 },

    { ngx_string("max_tokens"), offsetof(ngx_http_llm_tenant_t, max_tokens),
      1, 16 * 1024 * 1024 },

    { ngx_string("max_input_tokens"),
      offsetof(ngx_http_llm_tenant_t, max_input_tokens),
      1, 16 * 1024 * 1024 },

    { ngx_string("max_n"), offsetof(ngx_http_llm_tenant_t, max_n),
      1, LLM_CHOICES_MAX },

    { ngx_null_string, 0, 0, 0 }
};


/* llm_tenant NAME | default { ... } */

char *
ngx_http_llm_tenant_block(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_main_conf_t *lmcf = conf;

    char                    *rv;
    ngx_str_t               *value;
    ngx_uint_t               i;
    ngx_conf_t               save;
    ngx_http_llm_tenant_t   *tenant, **tenants;

    value = cf->args->elts;

    if (!llm_key_name_ok((char *) value[1].data, value[1].len)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid llm tenant name \"%V\": from 1 to %d "
                           "letters, digits, \"_\", \"-\", \".\" and \":\" "
                           "are allowed", &value[1], LLM_KEY_NAME_MAX);
        return NGX_CONF_ERROR;
    }

    tenants = lmcf->tenants.elts;

    for (i = 0; i < lmcf->tenants.nelts; i++) {
        if (tenants[i]->name.len == value[1].len
            && ngx_strncmp(tenants[i]->name.data, value[1].data, value[1].len)
               == 0)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "duplicate llm tenant \"%V\"", &value[1]);
            return NGX_CONF_ERROR;
        }
    }

    tenant = ngx_pcalloc(cf->pool, sizeof(ngx_http_llm_tenant_t));
    if (tenant == NULL) {
        return NGX_CONF_ERROR;
    }

    tenant->name = value[1];
    tenant->weight = NGX_CONF_UNSET;
    tenant->priority = NGX_CONF_UNSET;
    tenant->concurrent = NGX_CONF_UNSET;
    tenant->queue = NGX_CONF_UNSET;
    tenant->queue_timeout = NGX_CONF_UNSET_MSEC;
    tenant->max_tokens = NGX_CONF_UNSET;
    tenant->max_input_tokens = NGX_CONF_UNSET;
    tenant->max_n = NGX_CONF_UNSET;

    tenant->weights[0] = LLM_LEDGER_UNIT;
    tenant->weights[1] = LLM_LEDGER_UNIT;
    tenant->weights[2] = LLM_LEDGER_UNIT;

    save = *cf;
    cf->handler = ngx_http_llm_tenant_option;
    cf->handler_conf = (char *) tenant;

    rv = ngx_conf_parse(cf, NULL);

    *cf = save;

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    ngx_conf_init_value(tenant->weight, 1);
    ngx_conf_init_value(tenant->priority, 0);
    ngx_conf_init_value(tenant->concurrent, 0);
    ngx_conf_init_value(tenant->queue, 0);
    ngx_conf_init_msec_value(tenant->queue_timeout, 0);
    ngx_conf_init_value(tenant->max_tokens, 0);
    ngx_conf_init_value(tenant->max_input_tokens, 0);
    ngx_conf_init_value(tenant->max_n, 0);

    tenants = ngx_array_push(&lmcf->tenants);
    if (tenants == NULL) {
        return NGX_CONF_ERROR;
    }

    *tenants = tenant;

    if (tenant->name.len == sizeof("default") - 1
        && ngx_strncmp(tenant->name.data, "default", 7) == 0)
    {
        lmcf->default_tenant = tenant;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_llm_tenant_option(ngx_conf_t *cf, ngx_command_t *dummy, void *conf)
{
    ngx_int_t                            n, *field;
    ngx_str_t                           *value, name;
    llm_limits_t                        *limits;
    ngx_http_llm_tenant_t               *tenant;
    const ngx_http_llm_tenant_number_t  *number;

    value = cf->args->elts;
    tenant = (ngx_http_llm_tenant_t *) cf->handler_conf;

    if (ngx_strcmp(value[0].data, "queue") == 0) {
        return ngx_http_llm_conf_queue(cf, 1, &tenant->queue,
                                       &tenant->queue_timeout);
    }

    if (ngx_strcmp(value[0].data, "models") == 0) {
        return ngx_http_llm_tenant_models(cf, tenant);
    }

    name = value[0];
    limits = &tenant->limits[0];

    if (name.len > 4 && ngx_strncmp(name.data, "key_", 4) == 0) {
        name.data += 4;
        limits = &tenant->limits[1];
    }

    if (ngx_strcmp(name.data, "requests") == 0) {
        return ngx_http_llm_tenant_rate(cf, tenant, &limits->requests, 1);
    }

    if (ngx_strcmp(name.data, "tokens") == 0) {
        tenant->metered = 1;
        return ngx_http_llm_tenant_rate(cf, tenant, &limits->tokens,
                                        LLM_LEDGER_UNIT);
    }

    if (ngx_strcmp(name.data, "budget") == 0) {
        tenant->metered = 1;
        return ngx_http_llm_tenant_budget(cf, tenant, limits);
    }

    if (ngx_strcmp(name.data, "token_weights") == 0) {
        return ngx_http_llm_tenant_weights(cf, tenant);
    }

    for (number = ngx_http_llm_tenant_numbers; number->name.len; number++) {

        if (ngx_strcmp(value[0].data, number->name.data) != 0) {
            continue;
        }

        field = (ngx_int_t *) ((u_char *) tenant + number->offset);

        if (*field != NGX_CONF_UNSET) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"%V\" directive is duplicate", &value[0]);
            return NGX_CONF_ERROR;
        }

        n = cf->args->nelts == 2 ? ngx_atoi(value[1].data, value[1].len)
                                 : NGX_ERROR;

        if (n < number->min || n > number->max) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"%V\" takes a number from %i to %i",
                               &value[0], number->min, number->max);
            return NGX_CONF_ERROR;
        }

        *field = n;

        return NGX_CONF_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "unknown directive \"%V\" in \"llm_tenant\"",
                       &value[0]);
    return NGX_CONF_ERROR;
}


/* requests | tokens NUMBER [burst=NUMBER]; a minute, of unit each */

static char *
ngx_http_llm_tenant_rate(ngx_conf_t *cf, ngx_http_llm_tenant_t *tenant,
    llm_rate_t *rate, uint64_t unit)
{
    ngx_int_t    n, burst;
    ngx_str_t   *value;

    value = cf->args->elts;

    if (rate->limit) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" directive is duplicate", &value[0]);
        return NGX_CONF_ERROR;
    }

    n = NGX_ERROR;
    burst = NGX_ERROR;

    if (cf->args->nelts == 2 || cf->args->nelts == 3) {
        n = ngx_atoi(value[1].data, value[1].len);
        burst = n;
    }

    if (cf->args->nelts == 3) {
        burst = NGX_ERROR;

        if (value[2].len > 6 && ngx_strncmp(value[2].data, "burst=", 6) == 0) {
            burst = ngx_atoi(value[2].data + 6, value[2].len - 6);
        }
    }

    if (n < 1 || n > 1000000000 || burst < 1 || burst > 1000000000) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" takes a number a minute, from 1 to "
                           "1000000000, and perhaps a burst= in the same range",
                           &value[0]);
        return NGX_CONF_ERROR;
    }

    if (burst / n > 500000) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the burst of \"%V\" is more than a year of it",
                           &value[0]);
        return NGX_CONF_ERROR;
    }

    rate->limit = n * unit;
    rate->burst = burst * unit;
    tenant->limited = 1;

    return NGX_CONF_OK;
}


/* budget NUMBER per=day|month */

static char *
ngx_http_llm_tenant_budget(ngx_conf_t *cf, ngx_http_llm_tenant_t *tenant,
    llm_limits_t *limits)
{
    off_t        n;
    uint64_t    *budget;
    ngx_str_t   *value;

    value = cf->args->elts;
    budget = NULL;
    n = NGX_ERROR;

    if (cf->args->nelts == 3) {
        n = ngx_atoof(value[1].data, value[1].len);

        if (ngx_strcmp(value[2].data, "per=day") == 0) {
            budget = &limits->day;

        } else if (ngx_strcmp(value[2].data, "per=month") == 0) {
            budget = &limits->month;
        }
    }

    if (budget == NULL || n < 1
        || (uint64_t) n > LLM_BUDGET_MAX / LLM_LEDGER_UNIT)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" takes a number of tokens, from 1 to %uL, "
                           "and \"per=day\" or \"per=month\"", &value[0],
                           LLM_BUDGET_MAX / LLM_LEDGER_UNIT);
        return NGX_CONF_ERROR;
    }

    if (*budget) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" directive is duplicate", &value[0]);
        return NGX_CONF_ERROR;
    }

    *budget = n * LLM_LEDGER_UNIT;
    tenant->limited = 1;

    return NGX_CONF_OK;
}


/* token_weights [input=N] [cached=N] [output=N]; up to three decimals */

static char *
ngx_http_llm_tenant_weights(ngx_conf_t *cf, ngx_http_llm_tenant_t *tenant)
{
    ngx_int_t    n;
    ngx_str_t   *value;
    ngx_uint_t   i, j;

    static ngx_str_t  names[] = {
        ngx_string("input="), ngx_string("cached="), ngx_string("output=")
    };

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        n = NGX_ERROR;

        for (j = 0; j < 3; j++) {

            if (value[i].len > names[j].len
                && ngx_strncmp(value[i].data, names[j].data, names[j].len)
                   == 0)
            {
                n = ngx_atofp(value[i].data + names[j].len,
                              value[i].len - names[j].len, 3);
                break;
            }
        }

        if (n < 0 || n > 100 * LLM_LEDGER_UNIT) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\" in \"token_weights\":"
                               " input=, cached= and output= take a number "
                               "from 0 to 100", &value[i]);
            return NGX_CONF_ERROR;
        }

        tenant->weights[j] = n;
    }

    return NGX_CONF_OK;
}


/* models NAME ... */

static char *
ngx_http_llm_tenant_models(ngx_conf_t *cf, ngx_http_llm_tenant_t *tenant)
{
    ngx_str_t   *value, *name;
    ngx_uint_t   i;

    value = cf->args->elts;

    if (cf->args->nelts < 2) {
        return "invalid number of arguments in \"models\" directive";
    }

    if (tenant->models == NULL) {
        tenant->models = ngx_array_create(cf->pool, cf->args->nelts - 1,
                                          sizeof(ngx_str_t));
        if (tenant->models == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    for (i = 1; i < cf->args->nelts; i++) {
        name = ngx_array_push(tenant->models);
        if (name == NULL) {
            return NGX_CONF_ERROR;
        }

        *name = value[i];
    }

    return NGX_CONF_OK;
}


void
ngx_http_llm_tenant_sort(ngx_http_llm_main_conf_t *lmcf)
{
    ngx_qsort(lmcf->tenants.elts, lmcf->tenants.nelts,
              sizeof(ngx_http_llm_tenant_t *), ngx_http_llm_tenant_cmp);
}


static int ngx_libc_cdecl
ngx_http_llm_tenant_cmp(const void *one, const void *two)
{
    ngx_http_llm_tenant_t  *first, *second;

    first = *(ngx_http_llm_tenant_t **) one;
    second = *(ngx_http_llm_tenant_t **) two;

    return (int) ngx_memn2cmp(first->name.data, second->name.data,
                              first->name.len, second->name.len);
}


ngx_http_llm_tenant_t *
ngx_http_llm_tenant_policy(ngx_http_llm_main_conf_t *lmcf, ngx_str_t *name)
{
    ngx_int_t                rc;
    ngx_uint_t               low, high, mid;
    ngx_http_llm_tenant_t  **tenants;

    tenants = lmcf->tenants.elts;
    low = 0;
    high = lmcf->tenants.nelts;

    while (low < high) {

        mid = low + (high - low) / 2;

        rc = ngx_memn2cmp(name->data, tenants[mid]->name.data, name->len,
                          tenants[mid]->name.len);

        if (rc == 0) {
            return tenants[mid];
        }

        if (rc < 0) {
            high = mid;

        } else {
            low = mid + 1;
        }
    }

    return lmcf->default_tenant;
}
