
/*
 * What others may look at: llm_status and llm_health.
 *
 * DESIGN.  The engine's numbers are its state page, which any worker can read
 * at any time; a metric is a row of LLM_METRICS and appears here by itself.
 * The requests that are in the engine lie behind them (ngx_http_llm_live.c).
 * What only this worker knows (is it attached, how many slots are in use)
 * says which worker it was that answered.
 */


#include "ngx_http_llm_module.h"


typedef struct {
    const char  *name;
    const char  *kind;
    const char  *help;
    size_t       offset;
} ngx_http_llm_metric_t;


typedef struct {
    const char  *name;
    const char  *kind;
    const char  *help;
    uint64_t   (*get)(ngx_http_llm_peer_t *peer);
} ngx_http_llm_worker_metric_t;


static ngx_int_t ngx_http_llm_status_json(ngx_http_request_t *r,
    llm_buf_t *out, ngx_http_llm_main_conf_t *lmcf);
static void ngx_http_llm_status_engine(llm_buf_t *out,
    ngx_http_llm_engine_t *engine);
static void ngx_http_llm_status_prometheus(llm_buf_t *out,
    ngx_http_llm_main_conf_t *lmcf);
static const char *ngx_http_llm_status_suffix(const char *name,
    const char *kind);
static ngx_int_t ngx_http_llm_status_metric(ngx_http_llm_channel_t *ch,
    const ngx_http_llm_metric_t *metric, uint64_t *value);
static uint64_t ngx_http_llm_peer_up(ngx_http_llm_peer_t *peer);
static uint64_t ngx_http_llm_peer_slots(ngx_http_llm_peer_t *peer);
static uint64_t ngx_http_llm_peer_slots_used(ngx_http_llm_peer_t *peer);
static uint64_t ngx_http_llm_peer_waiting(ngx_http_llm_peer_t *peer);
static uint64_t ngx_http_llm_peer_attachments(ngx_http_llm_peer_t *peer);
static uint64_t ngx_http_llm_peer_draining(ngx_http_llm_peer_t *peer);
static uint64_t ngx_http_llm_peer_submit_bytes(ngx_http_llm_peer_t *peer);
static uint64_t ngx_http_llm_peer_event_bytes(ngx_http_llm_peer_t *peer);
static uint64_t ngx_http_llm_ring_bytes(llm_ring_t *ring);
static uint64_t ngx_http_llm_peer_heartbeat(ngx_http_llm_peer_t *peer);


static const ngx_http_llm_metric_t  ngx_http_llm_metrics[] = {

#define X(name, kind, help)                                                   \
    { #name, #kind, help, offsetof(llm_state_t, name) },

    LLM_METRICS(X)

#undef X

    { NULL, NULL, NULL, 0 }
};


static const ngx_http_llm_worker_metric_t  ngx_http_llm_worker_metrics[] = {

    { "worker_up", "gauge",
      "1 if the worker can submit requests to the engine",
      ngx_http_llm_peer_up },

    { "worker_slots", "gauge",
      "requests that the worker may have in the engine",
      ngx_http_llm_peer_slots },

    { "worker_slots_used", "gauge",
      "requests that the worker has in the engine",
      ngx_http_llm_peer_slots_used },

    { "worker_waiting", "gauge",
      "requests that wait in the worker for a slot or for room in the ring",
      ngx_http_llm_peer_waiting },

    { "worker_attachments", "counter",
      "times that the worker attached to the engine",
      ngx_http_llm_peer_attachments },

    { "worker_draining", "gauge",
      "older attachments that wait for their last requests",
      ngx_http_llm_peer_draining },

    { "worker_submit_ring_bytes", "gauge",
      "bytes of requests that the engine has not taken yet",
      ngx_http_llm_peer_submit_bytes },

    { "worker_event_ring_bytes", "gauge",
      "bytes of events that the worker has not taken yet",
      ngx_http_llm_peer_event_bytes },

    { "worker_heartbeat_age_milliseconds", "gauge",
      "time since all of the engine's threads showed signs of life",
      ngx_http_llm_peer_heartbeat },

    { NULL, NULL, NULL, NULL }
};


ngx_int_t
ngx_http_llm_status_handler(ngx_http_request_t *r)
{
    llm_buf_t                  out;
    ngx_int_t                  rc;
    const char                *type;
    ngx_http_llm_loc_conf_t   *llcf;
    ngx_http_llm_main_conf_t  *lmcf;

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {
        return NGX_HTTP_NOT_ALLOWED;
    }

    rc = ngx_http_discard_request_body(r);

    if (rc != NGX_OK) {
        return rc;
    }

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_module);
    lmcf = ngx_http_get_module_main_conf(r, ngx_http_llm_module);

    llm_buf_init(&out, NGX_HTTP_LLM_ANSWER_MAX, ngx_http_llm_alloc, r->pool);

    if (llcf->status == NGX_HTTP_LLM_STATUS_JSON) {
        type = "application/json";
        rc = ngx_http_llm_status_json(r, &out, lmcf);

    } else {
        type = "text/plain; version=0.0.4";
        ngx_http_llm_status_prometheus(&out, lmcf);
        rc = ngx_http_llm_metrics_prometheus(r, &out, lmcf->zone);
    }

    if (rc != NGX_OK || out.failed) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_llm_send(r, NGX_HTTP_OK, type, &out);
}


static ngx_int_t
ngx_http_llm_status_json(ngx_http_request_t *r, llm_buf_t *out,
    ngx_http_llm_main_conf_t *lmcf)
{
    ngx_int_t                rc;
    ngx_uint_t               i;
    ngx_http_llm_engine_t  **engines;

    llm_buf_lit(out, "{\"worker\":");
    llm_buf_u64(out, ngx_worker);
    llm_buf_lit(out, ",\"pid\":");
    llm_buf_u64(out, ngx_pid);
    llm_buf_lit(out, ",\"engines\":[");

    engines = lmcf->engines.elts;

    for (i = 0; i < lmcf->engines.nelts; i++) {

        if (i) {
            llm_buf_lit(out, ",");
        }

        ngx_http_llm_status_engine(out, engines[i]);
    }

    llm_buf_lit(out, "],\"tenants\":[");

    rc = ngx_http_llm_metrics_json(r, out, lmcf->zone);

    llm_buf_lit(out, "]}\n");

    return rc;
}


static void
ngx_http_llm_status_engine(llm_buf_t *out, ngx_http_llm_engine_t *engine)
{
    uint64_t                             value;
    ngx_uint_t                           i;
    ngx_http_llm_peer_t                 *peer;
    ngx_http_llm_channel_t              *ch;
    const ngx_http_llm_metric_t         *metric;
    const ngx_http_llm_worker_metric_t  *wm;

    peer = engine->peer;
    ch = peer ? peer->channel : NULL;

    llm_buf_lit(out, "{\"name\":\"");
    llm_buf_add(out, engine->name.data, engine->name.len);
    llm_buf_lit(out, "\",\"attached\":");
    llm_buf_str(out, ch ? "true" : "false");

    if (peer) {
        for (wm = ngx_http_llm_worker_metrics; wm->name; wm++) {
            llm_buf_lit(out, ",\"");
            llm_buf_str(out, wm->name);
            llm_buf_lit(out, "\":");
            llm_buf_u64(out, wm->get(peer));
        }
    }

    if (ch) {
        llm_buf_lit(out, ",\"ready\":");
        llm_buf_str(out, __atomic_load_n(&ch->state->ready, __ATOMIC_RELAXED)
                         ? "true" : "false");
        llm_buf_lit(out, ",\"engine_pid\":");
        llm_buf_u64(out, ch->pid);
        llm_buf_lit(out, ",\"epoch\":");
        llm_buf_u64(out, ch->epoch);
        llm_buf_lit(out, ",\"models\":[");

        for (i = 0; i < ch->models_n; i++) {
            llm_buf_str(out, i ? ",\"" : "\"");
            llm_buf_json(out, (char *) ch->models[i].name.data,
                         ch->models[i].name.len);
            llm_buf_lit(out, "\"");
        }

        llm_buf_lit(out, "]");

        for (metric = ngx_http_llm_metrics; metric->name; metric++) {

            if (ngx_http_llm_status_metric(ch, metric, &value) != NGX_OK) {
                continue;
            }

            llm_buf_lit(out, ",\"");
            llm_buf_str(out, metric->name);
            llm_buf_lit(out, "\":");
            llm_buf_u64(out, value);
        }

        ngx_http_llm_live_json(out, ch);
    }

    llm_buf_lit(out, "}");
}


static void
ngx_http_llm_status_prometheus(llm_buf_t *out, ngx_http_llm_main_conf_t *lmcf)
{
    uint64_t                             value;
    ngx_uint_t                           i, n;
    ngx_http_llm_engine_t              **engines, *engine;
    const ngx_http_llm_metric_t         *metric;
    const ngx_http_llm_worker_metric_t  *wm;

    engines = lmcf->engines.elts;
    n = lmcf->engines.nelts;

    for (metric = ngx_http_llm_metrics; metric->name; metric++) {

        ngx_http_llm_status_head(out, metric->name, metric->kind,
                                 metric->help);

        for (i = 0; i < n; i++) {
            engine = engines[i];

            if (engine->peer == NULL || engine->peer->channel == NULL
                || ngx_http_llm_status_metric(engine->peer->channel, metric,
                                              &value)
                   != NGX_OK)
            {
                continue;
            }

            llm_buf_lit(out, "llm_");
            llm_buf_str(out, metric->name);
            llm_buf_str(out, ngx_http_llm_status_suffix(metric->name,
                                                        metric->kind));
            llm_buf_lit(out, "{engine=\"");
            llm_buf_add(out, engine->name.data, engine->name.len);
            llm_buf_lit(out, "\"} ");
            llm_buf_u64(out, value);
            llm_buf_lit(out, "\n");
        }
    }

    for (wm = ngx_http_llm_worker_metrics; wm->name; wm++) {

        ngx_http_llm_status_head(out, wm->name, wm->kind, wm->help);

        for (i = 0; i < n; i++) {
            engine = engines[i];

            if (engine->peer == NULL) {
                continue;
            }

            llm_buf_lit(out, "llm_");
            llm_buf_str(out, wm->name);
            llm_buf_str(out, ngx_http_llm_status_suffix(wm->name, wm->kind));
            llm_buf_lit(out, "{engine=\"");
            llm_buf_add(out, engine->name.data, engine->name.len);
            llm_buf_lit(out, "\",worker=\"");
            llm_buf_u64(out, ngx_worker);
            llm_buf_lit(out, "\"} ");
            llm_buf_u64(out, wm->get(engine->peer));
            llm_buf_lit(out, "\n");
        }
    }
}


void
ngx_http_llm_status_head(llm_buf_t *out, const char *name, const char *kind,
    const char *help)
{
    const char  *suffix;

    suffix = ngx_http_llm_status_suffix(name, kind);

    llm_buf_lit(out, "# HELP llm_");
    llm_buf_str(out, name);
    llm_buf_str(out, suffix);
    llm_buf_lit(out, " ");
    llm_buf_str(out, help);
    llm_buf_lit(out, "\n# TYPE llm_");
    llm_buf_str(out, name);
    llm_buf_str(out, suffix);
    llm_buf_lit(out, " ");
    llm_buf_str(out, kind);
    llm_buf_lit(out, "\n");
}


/* a counter's name ends in _total, by custom */

static const char *
ngx_http_llm_status_suffix(const char *name, const char *kind)
{
    size_t  len;

    len = ngx_strlen(name);

    if (ngx_strcmp(kind, "counter") != 0
        || (len > 6 && ngx_strcmp(name + len - 6, "_total") == 0))
    {
        return "";
    }

    return "_total";
}


/* NGX_DECLINED when the engine is too old to have it */

static ngx_int_t
ngx_http_llm_status_metric(ngx_http_llm_channel_t *ch,
    const ngx_http_llm_metric_t *metric, uint64_t *value)
{
    uint32_t  size;
    u_char   *p;

    size = __atomic_load_n(&ch->state->size, __ATOMIC_RELAXED);

    if (metric->offset + sizeof(uint64_t) > ngx_min(size, ch->state_size)) {
        return NGX_DECLINED;
    }

    p = (u_char *) ch->state + metric->offset;

    *value = __atomic_load_n((uint64_t *) (void *) p, __ATOMIC_RELAXED);

    return NGX_OK;
}


static uint64_t
ngx_http_llm_peer_up(ngx_http_llm_peer_t *peer)
{
    ngx_uint_t  err;

    return ngx_http_llm_channel_get(peer->engine, &err) != NULL;
}


static uint64_t
ngx_http_llm_peer_slots(ngx_http_llm_peer_t *peer)
{
    return peer->channel ? peer->channel->slots_n : 0;
}


static uint64_t
ngx_http_llm_peer_slots_used(ngx_http_llm_peer_t *peer)
{
    uint64_t                 n;
    ngx_queue_t             *q;
    ngx_http_llm_channel_t  *ch;

    n = peer->channel ? peer->channel->used : 0;

    for (q = ngx_queue_head(&peer->draining);
         q != ngx_queue_sentinel(&peer->draining);
         q = ngx_queue_next(q))
    {
        ch = ngx_queue_data(q, ngx_http_llm_channel_t, queue);
        n += ch->used;
    }

    return n;
}


static uint64_t
ngx_http_llm_peer_waiting(ngx_http_llm_peer_t *peer)
{
    return peer->waiting;
}


static uint64_t
ngx_http_llm_peer_attachments(ngx_http_llm_peer_t *peer)
{
    return peer->attachments;
}


static uint64_t
ngx_http_llm_peer_draining(ngx_http_llm_peer_t *peer)
{
    uint64_t      n;
    ngx_queue_t  *q;

    n = 0;

    for (q = ngx_queue_head(&peer->draining);
         q != ngx_queue_sentinel(&peer->draining);
         q = ngx_queue_next(q))
    {
        n++;
    }

    return n;
}


static uint64_t
ngx_http_llm_peer_submit_bytes(ngx_http_llm_peer_t *peer)
{
    return peer->channel ? ngx_http_llm_ring_bytes(&peer->channel->submit) : 0;
}


static uint64_t
ngx_http_llm_peer_event_bytes(ngx_http_llm_peer_t *peer)
{
    return peer->channel ? ngx_http_llm_ring_bytes(&peer->channel->event) : 0;
}


/* the other side writes one of the two, so the difference may be anything */

static uint64_t
ngx_http_llm_ring_bytes(llm_ring_t *ring)
{
    uint64_t  head, tail;

    tail = __atomic_load_n(&ring->ctl->tail, __ATOMIC_RELAXED);
    head = __atomic_load_n(&ring->ctl->head, __ATOMIC_RELAXED);

    return ngx_min(tail - head, ring->size);
}


static uint64_t
ngx_http_llm_peer_heartbeat(ngx_http_llm_peer_t *peer)
{
    return peer->channel ? ngx_current_msec - peer->channel->alive : 0;
}


/*
 * live: the worker runs, and this answer shows it.  ready: the engine, or all
 * of them, can take requests.
 */

ngx_int_t
ngx_http_llm_health_handler(ngx_http_request_t *r)
{
    llm_buf_t                  out;
    ngx_int_t                  rc;
    ngx_str_t                  value;
    ngx_uint_t                 i, ready, err, status;
    ngx_http_llm_engine_t    **engines;
    ngx_http_llm_loc_conf_t   *llcf;
    ngx_http_llm_main_conf_t  *lmcf;

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {
        return NGX_HTTP_NOT_ALLOWED;
    }

    rc = ngx_http_discard_request_body(r);

    if (rc != NGX_OK) {
        return rc;
    }

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_module);
    lmcf = ngx_http_get_module_main_conf(r, ngx_http_llm_module);

    ready = 1;

    if (llcf->health_engine) {
        ready = ngx_http_llm_channel_get(llcf->health_engine, &err) != NULL;

    } else if (llcf->health == NGX_HTTP_LLM_HEALTH_READY) {

        engines = lmcf->engines.elts;

        for (i = 0; i < lmcf->engines.nelts; i++) {
            if (ngx_http_llm_channel_get(engines[i], &err) == NULL) {
                ready = 0;
            }
        }

        if (lmcf->engines.nelts == 0) {
            ready = 0;
        }
    }

    llm_buf_init(&out, NGX_HTTP_LLM_RENDER_MAX, ngx_http_llm_alloc, r->pool);

    if (ready) {
        status = NGX_HTTP_OK;
        llm_buf_lit(&out, "{\"status\":\"ok\"}\n");

    } else {
        status = NGX_HTTP_SERVICE_UNAVAILABLE;
        llm_buf_lit(&out, "{\"status\":\"unavailable\"}\n");

        ngx_str_set(&value, "1");

        if (ngx_http_llm_add_header(r, "Retry-After", &value) != NGX_OK) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
    }

    if (out.failed) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_llm_send(r, status, "application/json", &out);
}
