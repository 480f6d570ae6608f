
/*
 * Which engine gets a request.
 *
 * DESIGN.  A name of a model is looked up among the engines of the location:
 * in llm_model rows for those engines that have any, in what the engine
 * announced for the others.
 *
 * Where several engines have the model, requests that begin alike go to the
 * same one, whose prefix cache knows their beginning: each engine gets a score
 * from a hash of its name and of the request's leading bytes, and the highest
 * wins (rendezvous hashing, Thaler and Ravishankar 1998), so an engine that
 * goes or comes moves no other's requests.  All turns of a conversation begin
 * alike (llm_call_t's lead).  An engine that has no room, or too many requests
 * in comparison with the others, is passed over (consistent hashing with
 * bounded loads, Mirrokni, Thorup and Zadimoghaddam 2018).
 *
 * None of the engines sees how many requests of a tenant the others run, so
 * "concurrent" is dealt out among them: whole numbers whose sum it is.  Who
 * gets one more is another score, of the tenant's name, and an engine that
 * gets none is none of the tenant's.
 */


#include "ngx_http_llm_module.h"
#include "hash.h"


/* what an engine may have above the average: a quarter, or so many */

#define NGX_HTTP_LLM_LOAD_SLACK  4


typedef struct {
    ngx_http_llm_target_t    target;
    ngx_uint_t               err;      /* NONE or BUSY */
    uint64_t                 load;
    uint64_t                 rank;     /* among the tenant's */
} ngx_http_llm_candidate_t;


static ngx_uint_t ngx_http_llm_target_all(ngx_http_llm_ctx_t *ctx,
    ngx_str_t *name, ngx_http_llm_candidate_t *all, ngx_uint_t *n);
static void ngx_http_llm_target_deal(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_candidate_t *all, ngx_uint_t n);
static ngx_http_llm_candidate_t *ngx_http_llm_target_best(
    ngx_http_llm_ctx_t *ctx, ngx_http_llm_candidate_t *all, ngx_uint_t n);
static ngx_uint_t ngx_http_llm_target_at(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_engine_t *engine, ngx_str_t *name,
    ngx_http_llm_target_t *target);
static uint64_t ngx_http_llm_target_load(ngx_http_llm_channel_t *ch);
static uint64_t ngx_http_llm_target_room(ngx_http_llm_channel_t *ch);


ngx_uint_t
ngx_http_llm_target(ngx_http_llm_ctx_t *ctx, ngx_http_llm_target_t *target)
{
    ngx_str_t                  name;
    ngx_uint_t                 i, n, err;
    ngx_http_llm_target_t      one;
    ngx_http_llm_engine_t    **engines;
    ngx_http_llm_candidate_t  *best, all[NGX_HTTP_LLM_TARGETS_MAX];

    name.data = (u_char *) ctx->call.model.data;
    name.len = ctx->call.model.len;

    /* defaults may differ: the first engine that has one names it */

    engines = ctx->conf->engines->elts;

    for (i = 0; name.len == 0 && i < ctx->conf->engines->nelts; i++) {
        (void) ngx_http_llm_target_at(ctx, engines[i], &name, &one);
        name = one.name;
    }

    err = ngx_http_llm_target_all(ctx, &name, all, &n);

    if (n == 0) {
        return err;
    }

    ngx_http_llm_target_deal(ctx, all, n);

    best = n == 1 ? &all[0] : ngx_http_llm_target_best(ctx, all, n);

    *target = best->target;
    target->several = ctx->conf->engines->nelts > 1;

    return best->err;
}


/* those that have the model; of none it is told why */

static ngx_uint_t
ngx_http_llm_target_all(ngx_http_llm_ctx_t *ctx, ngx_str_t *name,
    ngx_http_llm_candidate_t *all, ngx_uint_t *n)
{
    ngx_uint_t                 i, answer;
    ngx_http_llm_engine_t    **engines;
    ngx_http_llm_candidate_t  *c;

    engines = ctx->conf->engines->elts;
    answer = LLM_ERR_NO_MODEL;
    *n = 0;

    for (i = 0; i < ctx->conf->engines->nelts; i++) {

        if (ctx->tried & ((uint64_t) 1 << i)) {
            continue;
        }

        c = &all[*n];
        c->err = ngx_http_llm_target_at(ctx, engines[i], name, &c->target);

        if (c->err == LLM_ERR_NONE || c->err == LLM_ERR_BUSY) {
            c->target.index = i;
            c->load = ngx_http_llm_target_load(c->target.channel);
            (*n)++;

        } else if (c->err != LLM_ERR_NO_MODEL) {
            answer = c->err;
        }
    }

    return answer;
}


/* what each of them may run of the tenant's requests at a time */

static void
ngx_http_llm_target_deal(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_candidate_t *all, ngx_uint_t n)
{
    uint64_t    tenant;
    ngx_uint_t  i, j, before, concurrent;
    ngx_str_t  *name;

    concurrent = ctx->policy ? ctx->policy->concurrent : 0;

    if (concurrent == 0) {
        return;
    }

    tenant = llm_hash(LLM_HASH_BASIS, ctx->tenant.data, ctx->tenant.len);

    for (i = 0; i < n; i++) {
        name = &all[i].target.engine->name;
        all[i].rank = llm_hash(tenant, name->data, name->len);
    }

    for (i = 0; i < n; i++) {
        before = 0;

        for (j = 0; j < n; j++) {
            before += all[j].rank > all[i].rank
                      || (all[j].rank == all[i].rank && j < i);
        }

        all[i].target.concurrent = concurrent / n + (before < concurrent % n);
    }
}


static ngx_http_llm_candidate_t *
ngx_http_llm_target_best(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_candidate_t *all, ngx_uint_t n)
{
    uint64_t                   load, bound, lead, score, best;
    ngx_str_t                 *name;
    ngx_uint_t                 i, fit, fittest;
    ngx_http_llm_candidate_t  *c, *found;

    load = 1;

    for (i = 0; i < n; i++) {
        load += all[i].load;
    }

    bound = ngx_max((5 * load + 4 * n - 1) / (4 * n),
                    load / n + NGX_HTTP_LLM_LOAD_SLACK);

    lead = llm_hash(LLM_HASH_BASIS, ctx->tenant.data, ctx->tenant.len);
    lead = llm_hash(lead ^ LLM_HASH_BASIS, ctx->call.lead.data,
                    ctx->call.lead.len);

    found = NULL;
    fittest = 0;
    best = 0;

    for (i = 0; i < n; i++) {

        c = &all[i];

        if (ctx->policy && ctx->policy->concurrent
            && c->target.concurrent == 0)
        {
            continue;
        }

        fit = c->err == LLM_ERR_BUSY ? 0
              : c->load < ngx_min(bound,
                                  ngx_http_llm_target_room(c->target.channel))
                ? 2 : 1;

        name = &c->target.engine->name;
        score = llm_hash(lead ^ LLM_HASH_BASIS, name->data, name->len);

        if (found == NULL || fit > fittest
            || (fit == fittest && score > best))
        {
            found = c;
            fittest = fit;
            best = score;
        }
    }

    return found;
}


/*
 * Does engine run the model called name, and under which name there?  An empty
 * name asks for the default.  LLM_ERR_NONE, or LLM_ERR_BUSY if it has no slot
 * left, and *target; LLM_ERR_NO_MODEL; or why that cannot be said at the
 * moment.  The public name is in *target in any case.
 */

static ngx_uint_t
ngx_http_llm_target_at(ngx_http_llm_ctx_t *ctx, ngx_http_llm_engine_t *engine,
    ngx_str_t *name, ngx_http_llm_target_t *target)
{
    ngx_str_t                *announced;
    ngx_uint_t                i, err;
    ngx_http_llm_model_t     *model;
    ngx_http_llm_channel_t   *ch;
    ngx_http_llm_main_conf_t *lmcf;

    ngx_memzero(target, sizeof(ngx_http_llm_target_t));

    target->engine = engine;
    target->name = *name;
    target->as = *name;

    if (engine->models) {

        lmcf = ngx_http_get_module_main_conf(ctx->request,
                                             ngx_http_llm_module);
        model = lmcf->models.elts;

        for (i = 0; i < lmcf->models.nelts; i++) {

            if (model[i].engine != engine) {
                continue;
            }

            if (name->len == 0
                ? model[i].is_default
                : (model[i].name.len == name->len
                   && ngx_strncmp(model[i].name.data, name->data, name->len)
                      == 0))
            {
                break;
            }
        }

        if (i == lmcf->models.nelts) {

            /* the rows say that it is not there, up or not */

            return LLM_ERR_NO_MODEL;
        }

        target->name = model[i].name;
        target->as = model[i].as;
    }

    ch = ngx_http_llm_channel_get(engine, &err);

    if (ch == NULL) {
        return err;
    }

    for (i = 0; i < ch->models_n; i++) {

        announced = &ch->models[i].name;

        if (announced->len == target->as.len
            && ngx_strncmp(announced->data, target->as.data, announced->len)
               == 0)
        {
            target->channel = ch;
            target->created = ch->models[i].created;
            target->context = ch->models[i].context;

            return ch->used < ch->slots_n ? LLM_ERR_NONE : LLM_ERR_BUSY;
        }
    }

    return LLM_ERR_NO_MODEL;
}


/* requests of all workers, as the engine said; of this one's it may be late */

static uint64_t
ngx_http_llm_target_load(ngx_http_llm_channel_t *ch)
{
    uint64_t  held;

    held = __atomic_load_n(&ch->state->requests_held, __ATOMIC_RELAXED);

    return ngx_max(held, ch->used);
}


static uint64_t
ngx_http_llm_target_room(ngx_http_llm_channel_t *ch)
{
    return __atomic_load_n(&ch->state->requests_max, __ATOMIC_RELAXED);
}


ngx_uint_t
ngx_http_llm_targets(ngx_http_llm_ctx_t *ctx, ngx_http_llm_engine_t *engine,
    ngx_http_llm_target_t *targets, ngx_uint_t max)
{
    ngx_str_t                 *as;
    ngx_uint_t                 i, j, n;
    ngx_http_llm_model_t      *model;
    ngx_http_llm_channel_t    *ch;
    ngx_http_llm_main_conf_t  *lmcf;

    ch = engine->peer->channel;
    n = 0;

    if (engine->models == 0) {

        for (i = 0; i < ch->models_n && n < max; i++) {
            targets[n].name = ch->models[i].name;
            targets[n].created = ch->models[i].created;
            targets[n].context = ch->models[i].context;
            n++;
        }

        return n;
    }

    lmcf = ngx_http_get_module_main_conf(ctx->request, ngx_http_llm_module);

    model = lmcf->models.elts;

    for (i = 0; i < lmcf->models.nelts; i++) {

        if (model[i].engine != engine) {
            continue;
        }

        as = &model[i].as;

        for (j = 0; j < ch->models_n && n < max; j++) {

            if (ch->models[j].name.len == as->len
                && ngx_strncmp(ch->models[j].name.data, as->data, as->len)
                   == 0)
            {
                targets[n].name = model[i].name;
                targets[n].created = ch->models[j].created;
                targets[n].context = ch->models[j].context;
                n++;
                break;
            }
        }
    }

    return n;
}
