
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
 */


#include "ngx_http_llm_module.h"
#include "hash.h"


/* what an engine may have above the average: a quarter, or so many */

#define NGX_HTTP_LLM_LOAD_SLACK  4


static ngx_uint_t ngx_http_llm_target_at(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_engine_t *engine, ngx_str_t *name,
    ngx_http_llm_target_t *target);
static uint64_t ngx_http_llm_target_load(ngx_http_llm_channel_t *ch);
static uint64_t ngx_http_llm_target_room(ngx_http_llm_channel_t *ch);


ngx_uint_t
ngx_http_llm_target(ngx_http_llm_ctx_t *ctx, ngx_str_t *name,
    ngx_http_llm_target_t *target)
{
    uint64_t                 load, bound, lead, score, best;
    ngx_uint_t               i, n, err, answer;
    ngx_http_llm_target_t    one;
    ngx_http_llm_engine_t  **engines;

    engines = ctx->conf->engines->elts;
    answer = LLM_ERR_NO_MODEL;
    load = 0;
    n = 0;

    if (name->len == 0) {

        /* defaults may differ: the first engine that has one names it */

        for (i = 0; i < ctx->conf->engines->nelts; i++) {

            err = ngx_http_llm_target_at(ctx, engines[i], name, &one);

            if (one.name.len) {
                return ngx_http_llm_target(ctx, &one.name, target);
            }
        }
    }

    for (i = 0; i < ctx->conf->engines->nelts; i++) {

        err = ngx_http_llm_target_at(ctx, engines[i], name, &one);

        if (err == LLM_ERR_NONE) {
            load += ngx_http_llm_target_load(one.channel);
            *target = one;
            n++;

        } else if (err != LLM_ERR_NO_MODEL) {
            answer = err;
        }
    }

    if (n == 0) {
        return answer;
    }

    target->n = n;

    if (n == 1) {
        return LLM_ERR_NONE;
    }

    bound = ngx_max((5 * (load + 1) + 4 * n - 1) / (4 * n),
                    (load + 1) / n + NGX_HTTP_LLM_LOAD_SLACK);

    lead = llm_hash(LLM_HASH_BASIS, ctx->tenant.data, ctx->tenant.len);
    lead = llm_hash(lead ^ LLM_HASH_BASIS, ctx->call.lead.data,
                    ctx->call.lead.len);
    best = 0;

    for (i = 0; i < ctx->conf->engines->nelts; i++) {

        if (ngx_http_llm_target_at(ctx, engines[i], name, &one)
               != LLM_ERR_NONE
            || ngx_http_llm_target_load(one.channel)
               >= ngx_min(bound, ngx_http_llm_target_room(one.channel)))
        {
            continue;
        }

        score = llm_hash(lead ^ LLM_HASH_BASIS, engines[i]->name.data,
                         engines[i]->name.len)
                | 1;

        if (score > best) {
            best = score;
            *target = one;
            target->n = n;
        }
    }

    return LLM_ERR_NONE;
}


/*
 * Does engine run the model called name, and under which name there?  An empty
 * name asks for the default.  LLM_ERR_NONE and *target; LLM_ERR_NO_MODEL; or
 * why that cannot be said at the moment, or nothing be submitted.
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
                n++;
                break;
            }
        }
    }

    return n;
}
