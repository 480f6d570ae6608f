
/*
 * What the files of the module share: configuration, this worker's side of an
 * engine, a request's context, and the prototypes of the files beside it.
 *
 *     engine (configuration)
 *       peer          this worker's relation to it: one per worker
 *         channel     one attachment: socket, segment, rings, slots; one that
 *           slot      takes new requests, and older ones that only drain
 *             ctx     a request, for as long as its client is there
 */


#ifndef _NGX_HTTP_LLM_MODULE_H_INCLUDED_
#define _NGX_HTTP_LLM_MODULE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_http.h>

#include "dialect.h"
#include "rows.h"
#include "series.h"

#include <sys/un.h>


/* what an answer that is not streamed may grow to, bytes per choice */

#define NGX_HTTP_LLM_ANSWER_MAX   (64 * 1024 * 1024)

/*
 * What one rendering may add beyond llm_output_buffer: a TOKENS record whose
 * bytes all become six-byte escapes, twice (text and logprobs), and the frame.
 */

#define NGX_HTTP_LLM_RENDER_MAX   (16 * LLM_TOKENS_MAX)

#define NGX_HTTP_LLM_TARGETS_MAX  64    /* engines of an llm_pass */

#define NGX_HTTP_LLM_OWNERS       64    /* of rows, looked at in a round */

#define NGX_HTTP_LLM_ID_MAX       128   /* request id, bytes */


typedef struct ngx_http_llm_peer_s     ngx_http_llm_peer_t;
typedef struct ngx_http_llm_channel_s  ngx_http_llm_channel_t;
typedef struct ngx_http_llm_ctx_s      ngx_http_llm_ctx_t;
typedef struct ngx_http_llm_line_s     ngx_http_llm_line_t;
typedef struct ngx_http_llm_keys_s     ngx_http_llm_keys_t;
typedef struct ngx_http_llm_zone_s     ngx_http_llm_zone_t;
typedef struct ngx_http_llm_usage_s    ngx_http_llm_usage_t;


typedef struct {
    ngx_str_t                  name;
    ngx_str_t                  path;
    struct sockaddr_un         sockaddr;

    ngx_msec_t                 connect_timeout;
    ngx_msec_t                 reconnect_min;
    ngx_msec_t                 reconnect_max;
    ngx_msec_t                 heartbeat;
    ngx_uint_t                 fails;
    ngx_int_t                  queue;      /* of a worker, for slot and ring */
    ngx_msec_t                 queue_timeout;

    ngx_uint_t                 models;     /* llm_model rows; 0: all */
    ngx_uint_t                 defaults;   /* of them, marked default */
    ngx_http_llm_peer_t       *peer;       /* NULL outside of workers */

    u_char                    *file_name;  /* of the first mention */
    ngx_uint_t                 line;
    unsigned                   defined:1;
} ngx_http_llm_engine_t;


typedef struct {
    ngx_str_t                  name;       /* public */
    ngx_str_t                  as;         /* the engine's */
    ngx_http_llm_engine_t     *engine;
    unsigned                   is_default:1;
} ngx_http_llm_model_t;


/* what a tenant may do; of a number 0 is no limit */

typedef struct {
    ngx_str_t                  name;
    ngx_int_t                  weight;
    ngx_int_t                  priority;   /* class, 0 is first */
    ngx_int_t                  concurrent;
    ngx_int_t                  queue;      /* requests that wait */
    ngx_msec_t                 queue_timeout;
    ngx_int_t                  max_tokens;
    ngx_int_t                  max_input_tokens;
    ngx_int_t                  max_n;
    ngx_array_t               *models;     /* ngx_str_t; NULL: all */

    llm_limits_t               limits[2];  /* its own, and each key's */
    uint32_t                   weights[3]; /* of tokens, in thousandths */
    unsigned                   limited:1;  /* limits has one */
    unsigned                   metered:1;  /* of tokens */
} ngx_http_llm_tenant_t;


typedef struct {
    ngx_array_t                engines;    /* ngx_http_llm_engine_t * */
    ngx_array_t                models;     /* ngx_http_llm_model_t */
    ngx_array_t                tenants;    /* ngx_http_llm_tenant_t * */
    ngx_http_llm_tenant_t     *default_tenant;
    ngx_http_llm_keys_t       *keys;       /* NULL: no llm_key_file */
    struct llm_jwt_keys_s     *jwt_keys;   /* NULL: no llm_jwt_key */
    ngx_uint_t                 jwt_claims; /* there is llm_jwt_claim_set */
    ngx_http_llm_zone_t       *zone;       /* NULL: nothing is counted */
    ngx_open_file_t           *usage_log;
    ngx_uint_t                 watched;    /* there is an llm_status */
#if (NGX_THREADS)
    ngx_thread_pool_t         *thread_pool;    /* for long bodies */
#endif
} ngx_http_llm_main_conf_t;


/* this process's view of the shared zone, and its housekeeping */

struct ngx_http_llm_zone_s {
    ngx_shm_zone_t            *shm;
    ngx_str_t                  state;      /* file, or empty */
    ngx_http_llm_main_conf_t  *lmcf;

    void                      *mem;        /* ledger, series, rows */
    size_t                     size;
    llm_ledger_t               ledger;
    llm_series_table_t         series;
    llm_rows_t                 rows;

    llm_owner_t                self;
    ngx_uint_t                 asked_n;    /* in this round */
    struct {
        llm_owner_t            owner;
        int                    dead;
    }                          asked[NGX_HTTP_LLM_OWNERS];

    uint32_t                  *held;       /* rows of this worker, by account */
    uint32_t                   share;      /* what an account may hold */
    ngx_event_t                tick;
    ngx_queue_t                open;       /* usages of this worker */

    time_t                     lost_logged;
    time_t                     full_logged;
    unsigned                   mapped:1;   /* mem is the file */
};


/* a request's row, for as long as its client or its slot needs it */

struct ngx_http_llm_usage_s {
    ngx_queue_t                queue;      /* in zone->open */
    ngx_http_llm_ctx_t        *ctx;        /* NULL: not in there any more */
    ngx_http_llm_zone_t       *zone;
    llm_row_t                 *row;
    ngx_uint_t                 refs;
    unsigned                   own:1;      /* the row is in no table */
};


typedef struct {
    ngx_array_t               *engines;    /* ngx_http_llm_engine_t * */

    ngx_msec_t                 first_token_timeout;
    ngx_msec_t                 token_timeout;
    ngx_msec_t                 request_timeout;
    ngx_msec_t                 ping_interval;

    size_t                     body_buffer_size;
    size_t                     body_max;   /* it or client_max_body_size */
    size_t                     output_buffer;

    ngx_int_t                  max_tokens;
    ngx_int_t                  default_max_tokens;

    ngx_uint_t                 model_optional;  /* there is a default */
    ngx_flag_t                 ignore_client_abort;
    ngx_flag_t                 limit_dry_run;
    ngx_flag_t                 limit_headers;
    ngx_uint_t                 limit_status;
    ngx_uint_t                 limit_log_level;
    ngx_http_complex_value_t  *request_id;

    ngx_uint_t                 auth;       /* NGX_HTTP_LLM_AUTH_* */
    ngx_uint_t                 auth_mode;  /* the same, where it is unset too */
    ngx_http_complex_value_t  *key;        /* NULL: Bearer or x-api-key */
    ngx_http_complex_value_t  *tenant_key;
    ngx_array_t               *cors;       /* ngx_str_t; NULL: off */

    ngx_uint_t                 status;     /* NGX_HTTP_LLM_STATUS_* */
    ngx_uint_t                 admin;
    ngx_uint_t                 health;     /* NGX_HTTP_LLM_HEALTH_* */
    ngx_http_llm_engine_t     *health_engine;
} ngx_http_llm_loc_conf_t;


#define NGX_HTTP_LLM_AUTH_OFF           0
#define NGX_HTTP_LLM_AUTH_ON            1
#define NGX_HTTP_LLM_AUTH_OPTIONAL      2

#define NGX_HTTP_LLM_LIMIT_PASSED            1
#define NGX_HTTP_LLM_LIMIT_REJECTED          2
#define NGX_HTTP_LLM_LIMIT_REJECTED_DRY_RUN  3

#define NGX_HTTP_LLM_STATUS_JSON        1
#define NGX_HTTP_LLM_STATUS_PROMETHEUS  2

#define NGX_HTTP_LLM_HEALTH_LIVE        1
#define NGX_HTTP_LLM_HEALTH_READY       2


struct ngx_http_llm_peer_s {
    ngx_http_llm_engine_t     *engine;
    ngx_http_llm_channel_t    *channel;    /* takes requests, or NULL */
    ngx_http_llm_channel_t    *pending;    /* shaking hands, or NULL */
    ngx_queue_t                draining;   /* older channels */

    ngx_event_t                reconnect;
    ngx_msec_t                 delay;      /* of the next attempt */
    ngx_uint_t                 failures;   /* since the last attachment */
    ngx_err_t                  failed_err; /* of the last one */
    ngx_uint_t                 attachments;
    ngx_log_t                 *log;

    ngx_queue_t                lines;      /* in the order of their turns */
    ngx_uint_t                 waiting;    /* requests in all of them */
    ngx_queue_t                leaving;    /* ctxs that have been refused */
    ngx_event_t                turn;
};


/* requests of a tenant that wait for a slot, or for room in the ring */

struct ngx_http_llm_line_s {
    ngx_queue_t                queue;      /* in peer->lines */
    ngx_http_llm_peer_t       *peer;
    ngx_queue_t                requests;   /* ctxs, never empty */
    ngx_uint_t                 n;
    ngx_str_t                  tenant;
};


/*
 * A slot is used from SUBMIT to its terminal event, whether or not the client
 * is still there (ctx).
 */

typedef struct {
    ngx_http_llm_ctx_t        *ctx;
    ngx_http_llm_usage_t      *usage;      /* NULL: not counted */
    uint64_t                   received;   /* payload bytes since SUBMIT */
    uint64_t                   taken;      /* as written to the line */
    uint32_t                   gen;        /* never 0 */
    uint32_t                   next;       /* in the free list */
    unsigned                   used:1;
    unsigned                   held:1;     /* COUNTED is to come */
} ngx_http_llm_slot_t;


/* where a request goes */

typedef struct {
    ngx_http_llm_engine_t     *engine;
    ngx_http_llm_channel_t    *channel;
    ngx_str_t                  name;       /* public */
    ngx_str_t                  as;         /* the engine's */
    uint64_t                   created;
    uint32_t                   context;    /* tokens */
    ngx_uint_t                 index;      /* in the location's engines */
    ngx_uint_t                 concurrent; /* for this tenant; 0: no limit */
    ngx_uint_t                 several;    /* others might have it, too */
} ngx_http_llm_target_t;


typedef struct {
    ngx_str_t                  name;
    u_char                     data[LLM_NAME_MAX];  /* 0-terminated */
    uint64_t                   created;
    uint32_t                   context;    /* tokens */
} ngx_http_llm_announced_t;


struct ngx_http_llm_channel_s {
    ngx_queue_t                queue;      /* in peer->draining */
    ngx_http_llm_peer_t       *peer;
    ngx_pool_t                *pool;
    ngx_connection_t          *connection;
    ngx_pid_t                  pid;        /* SO_PEERCRED's */

    /* from here on nothing is set before WELCOME */

    u_char                    *segment;    /* NULL: still shaking hands */
    size_t                     segment_size;
    llm_state_t               *state;      /* mapped read-only */
    size_t                     state_size;

    uint32_t                   epoch;
    uint32_t                   slots_n;
    uint32_t                   used;       /* slots */
    uint32_t                   free;       /* first free slot, or slots_n */
    uint32_t                   credit_max;
    ngx_http_llm_slot_t       *slots;
    llm_slot_line_t           *lines;
    llm_ring_t                 submit;
    llm_ring_t                 event;
    uint64_t                   eof_pos;    /* of event, when the peer went */

    ngx_queue_t                ready;      /* ctxs with something to do */

    ngx_event_t                tick;
    ngx_msec_t                 tick_due;
    ngx_uint_t                 misses;
    ngx_msec_t                 alive;      /* when all words had moved */
    ngx_msec_t                 woke;       /* this worker, after a stop */
    uint64_t                   heartbeat[LLM_THREADS];

    ngx_uint_t                 models_n;
    ngx_http_llm_announced_t  *models;

    unsigned                   eof:1;
    unsigned                   retired:1;  /* in peer->draining */
    unsigned                   succeeded:1;    /* its engine is, by another */
    unsigned                   processing:1;
    unsigned                   bell:1;     /* lines changed meanwhile */
};


/* text that waits because its client is slow, per choice */

typedef struct {
    size_t                     len;
    uint32_t                   kind;       /* LLM_TEXT_* */
} ngx_http_llm_kind_t;


typedef struct {
    llm_buf_t                  text;
    llm_buf_t                  logprobs;
    llm_buf_t                  kinds;      /* of text: ngx_http_llm_kind_t */
    size_t                     text_pos;   /* rendered so far */
    size_t                     logprobs_pos;
    size_t                     kinds_pos;
    uint32_t                   tokens;
    uint32_t                   reasoning;  /* of tokens */
    uint32_t                   finish;
} ngx_http_llm_held_t;


struct ngx_http_llm_ctx_s {
    ngx_http_request_t        *request;    /* NULL once it is over */
    ngx_http_llm_loc_conf_t   *conf;
    const llm_dialect_t       *dialect;

    ngx_queue_t                queue;      /* in a line, or if queued in
                                            * channel->ready and the like */
    ngx_http_llm_channel_t    *channel;    /* NULL: no slot */
    uint32_t                   slot;
    ngx_http_llm_line_t       *line;       /* NULL: in none */
    ngx_msec_t                 joined;     /* it, when */

    ngx_str_t                  id;

    ngx_str_t                  tenant;     /* empty: nobody's */
    ngx_str_t                  key_id;     /* empty: not by a key */
    ngx_str_t                  key_models; /* empty: all */
    ngx_http_llm_tenant_t     *policy;     /* NULL: no limits */
    ngx_uint_t                 identity_err;
    ngx_http_llm_usage_t      *usage;      /* NULL: not counted */
    llm_series_t              *series;     /* NULL: there is no zone */
    uint64_t                   retry_after;    /* ns; 0: not known */
    uint64_t                   cost;           /* thousandths of a token */
    ngx_uint_t                 limit_status;   /* NGX_HTTP_LLM_LIMIT_* */
    ngx_uint_t                 limit_reason;   /* LLM_LIMIT_* */

    llm_buf_t                  body;
    llm_call_t                 call;
    ngx_pool_t                *call_pool;  /* what it points to */
    uint32_t                   route;
    uint32_t                   choices;
    ngx_http_llm_engine_t     *engine;
    ngx_str_t                  model;      /* public name */
    ngx_uint_t                 target;     /* engine among the location's */
    uint64_t                   tried;      /* those that did not take it */
    ngx_uint_t                 again;      /* why not; to be submitted anew */

    llm_answer_t              *answer;
    llm_buf_t                  spare;      /* what is being sent, or unused */
    ngx_chain_t               *free;
    ngx_chain_t               *busy;
    size_t                     out_payload;    /* in answer->out */
    size_t                     spare_payload;  /* in spare */
    size_t                     held_payload;   /* in held */
    size_t                     credit;
    ngx_http_llm_held_t       *held;       /* [choices], or NULL */

    llm_refusal_t              refusal;    /* err 0: none */
    llm_wire_done_t            done;

    ngx_event_t                timer;
    ngx_msec_t                 start;      /* parsed; 0: not yet */
    ngx_msec_t                 last_event; /* from the engine */
    ngx_msec_t                 last_sent;  /* to the client */
    ngx_msec_t                 first_token_time;

    uint32_t                   prompt_tokens;
    uint32_t                   cached_tokens;
    uint32_t                   completion_tokens;
    const char                *finish;

    unsigned                   identified:1;
    unsigned                   entered:1;
    unsigned                   expired:1;  /* the key */
    unsigned                   parsed:1;
    unsigned                   queued:1;
    unsigned                   kept:1;     /* call, to be submitted again */
    unsigned                   lost:1;     /* an engine that had it went */
    unsigned                   events:1;   /* one has come */
    unsigned                   counted:1;  /* DONE or ERROR gave totals */
    unsigned                   charged:1;  /* cost is known */
    unsigned                   timed:1;    /* DONE gave times */
    unsigned                   end:1;      /* no more events */
    unsigned                   ended:1;    /* the last byte is in out */
    unsigned                   head_sent:1;
    unsigned                   blocked:1;  /* by the client's socket */
    unsigned                   holding:1;  /* something is in held */
    unsigned                   gone:1;     /* client left, and is ignored */
};


extern ngx_module_t  ngx_http_llm_module;


/* ngx_http_llm_module.c */

/* the request's context, also behind an internal redirect; NULL if none */
ngx_http_llm_ctx_t *ngx_http_llm_get_ctx(ngx_http_request_t *r);


/* ngx_http_llm_engine.c */

/* the directives */
char *ngx_http_llm_engine_block(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_llm_model(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);

/*
 * queue NUMBER [timeout=TIME], of an engine or a tenant: a number from min on;
 * *timeout is as it was if there is none.
 */
char *ngx_http_llm_conf_queue(ngx_conf_t *cf, ngx_int_t min,
    ngx_int_t *queue, ngx_msec_t *timeout);

/* the entry called name, made if there is none yet; NULL: out of memory */
ngx_http_llm_engine_t *ngx_http_llm_engine_mention(ngx_conf_t *cf,
    ngx_str_t *name);


/* ngx_http_llm_keys.c */

/* the directive */
char *ngx_http_llm_key_file(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);

/* a worker's start: from now on it looks whether the file changes */
void ngx_http_llm_keys_open(ngx_http_llm_keys_t *keys, ngx_log_t *log);

/* the key of that SHA-256 or NULL; good until the event loop is entered */
const struct llm_key_s *ngx_http_llm_keys_find(ngx_http_llm_keys_t *keys,
    const u_char *digest);


/* ngx_http_llm_access.c */

ngx_int_t ngx_http_llm_access_handler(ngx_http_request_t *r);

/*
 * Who asks?  Once found out the answer stays.  LLM_ERR_NONE with tenant,
 * policy and, of a key, key_id set; LLM_ERR_NO_KEY, LLM_ERR_BAD_KEY (of an
 * expired one the rest is set nevertheless), LLM_ERR_INTERNAL.
 */
ngx_uint_t ngx_http_llm_identify(ngx_http_llm_ctx_t *ctx);

/*
 * Once for each request, before its body is read: its row and what it pays, or
 * that it is nobody's.  LLM_ERR_NONE; LLM_ERR_INTERNAL; or why it is refused,
 * with ctx->refusal filled in.
 */
ngx_uint_t ngx_http_llm_enter(ngx_http_llm_ctx_t *ctx);

/*
 * What the client has sent where its key belongs; empty if nothing.  NGX_OK,
 * or NGX_ERROR when out of memory.
 */
ngx_int_t ngx_http_llm_key_text(ngx_http_request_t *r,
    ngx_http_llm_loc_conf_t *llcf, ngx_str_t *text);

/* $llm_tenant and $llm_key_id; data is where the ngx_str_t is in ctx */
ngx_int_t ngx_http_llm_variable_identity(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);

/* may the key and the tenant use the model of this public name? */
ngx_uint_t ngx_http_llm_may_use(ngx_http_llm_ctx_t *ctx, ngx_str_t *model);

/* the directive */
char *ngx_http_llm_auth(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);


/* ngx_http_llm_cors.c */

/* the directive */
char *ngx_http_llm_cors(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);

/* an access handler, to be asked before all others */
ngx_int_t ngx_http_llm_cors_preflight(ngx_http_request_t *r);


/* ngx_http_llm_jwt.c */

/* the directives */
char *ngx_http_llm_jwt_key(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_llm_jwt_claim_set(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);

/* before the first directive, and behind the last: $llm_jwt_claim_NAME */
ngx_int_t ngx_http_llm_jwt_add_variables(ngx_conf_t *cf);
ngx_int_t ngx_http_llm_jwt_check_variables(ngx_conf_t *cf);

/* what a client may know whose JWT gave no tenant; NULL: there was none */
const char *ngx_http_llm_jwt_told(ngx_http_request_t *r);


/* ngx_http_llm_zone.c */

/* the directive */
char *ngx_http_llm_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);

/* the same for a zone that nobody asked for; NGX_OK or NGX_ERROR */
ngx_int_t ngx_http_llm_zone_add(ngx_conf_t *cf,
    ngx_http_llm_main_conf_t *lmcf, ngx_str_t *name, size_t size,
    ngx_str_t *state);

/* a worker's start: who it is, and its housekeeping; NGX_OK or NGX_ERROR */
ngx_int_t ngx_http_llm_zone_open(ngx_http_llm_zone_t *zone, ngx_log_t *log);

/* its end, also in the middle of requests: they are written down as they are */
void ngx_http_llm_zone_close(ngx_http_llm_zone_t *zone);


/* ngx_http_llm_usage.c */

/* the directive */
char *ngx_http_llm_usage_log(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);

/*
 * A row for a request whose tenant is known.  NGX_OK, also where nothing is
 * counted; NGX_DECLINED when there is none left for this tenant: then it can
 * only be refused; NGX_ERROR out of memory.
 */
ngx_int_t ngx_http_llm_usage_open(ngx_http_llm_ctx_t *ctx);

/* from now on the slot has a part in it */
void ngx_http_llm_usage_submit(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_slot_t *slot);

/* what the engine has said so far; of what has ended it is the last word */
void ngx_http_llm_usage_counted(ngx_http_llm_slot_t *slot, uint32_t prompt,
    uint32_t cached, uint32_t completion);

/* nanoseconds since 1970, as of this turn of the event loop */
uint64_t ngx_http_llm_now(void);

/* the slot has none any more: another one will */
void ngx_http_llm_usage_slot_left(ngx_http_llm_slot_t *slot);

/* the client's end, and the slot's; behind the second one it is written */
void ngx_http_llm_usage_ended(ngx_http_llm_ctx_t *ctx);
void ngx_http_llm_usage_slot_ended(ngx_http_llm_slot_t *slot);

/* writes and frees a row whose request is over, or whose worker is */
void ngx_http_llm_usage_close(ngx_http_llm_zone_t *zone, llm_row_t *row,
    ngx_uint_t recovered);


/* ngx_http_llm_limit.c */

/*
 * One request from what tenant and key have left; LLM_ERR_NONE, or why not,
 * with ctx->refusal filled in.
 */
ngx_uint_t ngx_http_llm_limit_ask(ngx_http_llm_ctx_t *ctx);

/* the same for all tokens that it may use, once the prompt is counted */
ngx_uint_t ngx_http_llm_limit_reserve(ngx_http_llm_ctx_t *ctx,
    const llm_wire_counted_t *counted);

/* x-ratelimit-* and Retry-After; NGX_OK or NGX_ERROR */
ngx_int_t ngx_http_llm_limit_headers(ngx_http_llm_ctx_t *ctx);


/* ngx_http_llm_tenant.c */

/* the directive */
char *ngx_http_llm_tenant_block(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);

/* after the last block, before the first lookup */
void ngx_http_llm_tenant_sort(ngx_http_llm_main_conf_t *lmcf);

/* the block of that name, else the default one, else NULL */
ngx_http_llm_tenant_t *ngx_http_llm_tenant_policy(
    ngx_http_llm_main_conf_t *lmcf, ngx_str_t *name);


/* ngx_http_llm_request.c */

/* llm_pass's content handler */
ngx_int_t ngx_http_llm_handler(ngx_http_request_t *r);

/* the request's context, made if there is none yet; NULL: out of memory */
ngx_http_llm_ctx_t *ngx_http_llm_make_ctx(ngx_http_request_t *r);

/*
 * Goes on with a body that has been parsed: rv is what the dialect returned,
 * ctx->call and ctx->refusal what it found.  ctx may be gone afterwards.
 */
void ngx_http_llm_parsed(ngx_http_llm_ctx_t *ctx, int rv);

/* the request pool as a dialect's allocator */
void *ngx_http_llm_alloc(void *arg, size_t size);


/* ngx_http_llm_submit.c */

/*
 * To the engine that suits best.  LLM_ERR_NONE, with ctx->channel set;
 * LLM_ERR_BUSY if ctx->engine has no room at the moment; or why not.
 */
ngx_uint_t ngx_http_llm_submit(ngx_http_llm_ctx_t *ctx);

/*
 * Its engine ends it with err: may another one be tried?  If so the next
 * ngx_http_llm_stream_flush() does.
 */
ngx_uint_t ngx_http_llm_submit_again(ngx_http_llm_ctx_t *ctx, ngx_uint_t err);

/* frees what only SUBMIT needs */
void ngx_http_llm_submit_forget(ngx_http_llm_ctx_t *ctx);


/* ngx_http_llm_line.c */

/* a worker's start */
void ngx_http_llm_line_open(ngx_http_llm_peer_t *peer);

/*
 * Waits for room at ctx->engine: LLM_ERR_NONE, and the request is submitted
 * or ended later, from the event loop; LLM_ERR_BUSY if it may not wait.
 */
ngx_uint_t ngx_http_llm_line_join(ngx_http_llm_ctx_t *ctx);

/* waits no more; ctx->line must be set */
void ngx_http_llm_line_leave(ngx_http_llm_ctx_t *ctx);


/* ngx_http_llm_target.c */

/*
 * The engine for a request, by its model, or for the default one if it names
 * none; those in ctx->tried are left out.  LLM_ERR_NONE, or LLM_ERR_BUSY if it
 * is the one but has no slot left, and *target.  Else why not: a name that no
 * engine knows does not exist, unless there is one that cannot be asked at the
 * moment.
 */
ngx_uint_t ngx_http_llm_target(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_target_t *target);

/* what an engine that is up serves, at most max of them; returns how many */
ngx_uint_t ngx_http_llm_targets(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_engine_t *engine, ngx_http_llm_target_t *targets,
    ngx_uint_t max);


/* ngx_http_llm_answer.c */

/* what is to be said, by llm_err.h, and a line of it in the error log */
void ngx_http_llm_refuse(ngx_http_llm_ctx_t *ctx, ngx_uint_t err);
void ngx_http_llm_log_refusal(ngx_http_llm_ctx_t *ctx);

/*
 * Sends a whole answer: status, type, body.  Returns what a content handler
 * returns, or ngx_http_finalize_request() takes.
 */
ngx_int_t ngx_http_llm_send(ngx_http_request_t *r, ngx_uint_t status,
    const char *type, llm_buf_t *body);

/* the same for an error, in the dialect's form, with Retry-After */
ngx_int_t ngx_http_llm_send_refusal(ngx_http_llm_ctx_t *ctx);

/* NGX_OK, or NGX_ERROR when out of memory; value must be lasting */
ngx_int_t ngx_http_llm_add_header(ngx_http_request_t *r, const char *key,
    ngx_str_t *value);

/* the same as the request's last word; then it is over for us */
ngx_int_t ngx_http_llm_end_refused(ngx_http_llm_ctx_t *ctx);

/* the request's header of that name; NULL: there is none */
ngx_str_t *ngx_http_llm_header_in(ngx_http_request_t *r, const char *name);


/* ngx_http_llm_parse.c */

/* while the configuration is read; NGX_OK or NGX_ERROR */
ngx_int_t ngx_http_llm_parse_init(ngx_conf_t *cf);

/*
 * ctx->body is whole: parses it and calls ngx_http_llm_parsed(), now or, when
 * it is long, from the event loop later.  ctx may be gone afterwards.
 */
void ngx_http_llm_parse(ngx_http_llm_ctx_t *ctx);


/* ngx_http_llm_attach.c */

/* a worker's start and end; NGX_ERROR only when out of memory */
ngx_int_t ngx_http_llm_channels_open(ngx_cycle_t *cycle);
void ngx_http_llm_channels_close(ngx_cycle_t *cycle);

/* what has come on a pending channel's socket; ch may be gone afterwards */
void ngx_http_llm_channel_handshake(ngx_http_llm_channel_t *ch);

/* takes ch out of its peer and frees it; its requests must be gone */
void ngx_http_llm_channel_retire(ngx_http_llm_channel_t *ch);
void ngx_http_llm_channel_close(ngx_http_llm_channel_t *ch);

/* arms the next attempt, if one is due: twice as late as the last one */
void ngx_http_llm_channel_again(ngx_http_llm_peer_t *peer);


/* ngx_http_llm_channel.c */

/* the event handlers of a channel's connection and of its tick */
void ngx_http_llm_channel_read_handler(ngx_event_t *rev);
void ngx_http_llm_channel_tick(ngx_event_t *ev);

/*
 * Takes a batch of events, sends what they mean, and settles how to go on.
 * ch may be gone afterwards.
 */
void ngx_http_llm_channel_process(ngx_http_llm_channel_t *ch);

/*
 * The channel that takes requests for an engine: attached, model loaded, not
 * draining.  NULL, and *err, if there is none.
 */
ngx_http_llm_channel_t *ngx_http_llm_channel_get(
    ngx_http_llm_engine_t *engine, ngx_uint_t *err);

/*
 * Takes a slot and room for a record of len bytes, and fills in header and id
 * of head; the caller writes it and what follows to the room, reads nothing
 * back, and commits before anything else is reserved.  NULL if either has run
 * out.  From commit on the channel calls ngx_http_llm_stream_*().
 */
u_char *ngx_http_llm_channel_reserve(ngx_http_llm_channel_t *ch, uint32_t len,
    llm_wire_submit_t *head);
void ngx_http_llm_channel_commit(ngx_http_llm_channel_t *ch,
    ngx_http_llm_ctx_t *ctx);

/* a request that was held may run; 0 if there is no room to say so */
ngx_uint_t ngx_http_llm_channel_admit(ngx_http_llm_ctx_t *ctx,
    uint32_t max_tokens);

/* since when this worker has been about, without having stood still */
ngx_msec_t ngx_http_llm_channel_woke(ngx_http_llm_channel_t *ch);

/* n more payload bytes are with the client */
void ngx_http_llm_channel_taken(ngx_http_llm_ctx_t *ctx, size_t n);

/*
 * The request is of no more interest: asks the engine to end it.  The slot
 * stays with the channel until it has.
 */
void ngx_http_llm_channel_cancel(ngx_http_llm_ctx_t *ctx);


/*
 * ngx_http_llm_held.c: text that waits because its client is slow.  add takes
 * an event's, NGX_ERROR when memory ran out; piece hands out what makes one
 * event, in t, text and lp, which are good until the next add.
 */
ngx_int_t ngx_http_llm_held_add(ngx_http_llm_ctx_t *ctx,
    const llm_wire_tokens_t *t, const uint8_t *text, const uint8_t *lp);
void ngx_http_llm_held_piece(ngx_http_llm_ctx_t *ctx, ngx_uint_t choice,
    llm_wire_tokens_t *t, const uint8_t **text, const uint8_t **lp);


/* ngx_http_llm_stream.c */

/* all that an answer needs but for its model; NGX_OK or NGX_ERROR */
ngx_int_t ngx_http_llm_stream_create(ngx_http_llm_ctx_t *ctx);

/* ctx->model is known, and which weights that is */
void ngx_http_llm_stream_model(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_target_t *target);

/* right after SUBMIT, or waiting for it: timers, and the watch on the client */
void ngx_http_llm_stream_start(ngx_http_llm_ctx_t *ctx);

/* events; none of these sends or ends anything: that is flush() */
void ngx_http_llm_stream_tokens(ngx_http_llm_ctx_t *ctx,
    const llm_wire_tokens_t *t, const uint8_t *text, const uint8_t *lp);
void ngx_http_llm_stream_counted(ngx_http_llm_ctx_t *ctx,
    const llm_wire_counted_t *c);
void ngx_http_llm_stream_done(ngx_http_llm_ctx_t *ctx,
    const llm_wire_done_t *d);
void ngx_http_llm_stream_error(ngx_http_llm_ctx_t *ctx, ngx_uint_t err,
    const char *param, const char *text);

/* ends it for a reason of ours: an error to the client, a cancel beyond */
void ngx_http_llm_stream_stop(ngx_http_llm_ctx_t *ctx, ngx_uint_t err);

/* sends what there is; may end the request, and with it ctx */
void ngx_http_llm_stream_flush(ngx_http_llm_ctx_t *ctx);

/*
 * The same for the first n of a list of ctxs, which are queued in it.  One may
 * end in here, and take others of its connection with it.
 */
void ngx_http_llm_stream_flush_all(ngx_queue_t *ready, ngx_uint_t n);

/* request cleanup */
void ngx_http_llm_stream_cleanup(void *data);


/* ngx_http_llm_metrics.c */

/* a request of nobody's, for the time being */
void ngx_http_llm_metrics_begin(ngx_http_llm_ctx_t *ctx);

/* n times of ms, LLM_SERIES_*; nothing if there is no zone */
void ngx_http_llm_metrics_time(ngx_http_llm_ctx_t *ctx, ngx_uint_t which,
    uint64_t ms, uint64_t n);

/* its end, before that of usage */
void ngx_http_llm_metrics_ended(ngx_http_llm_ctx_t *ctx);

/* tokens, when they are known for good */
void ngx_http_llm_metrics_used(llm_series_t *s, uint64_t prompt,
    uint64_t cached, uint64_t completion);

/* members of an array, and samples; NGX_ERROR: out of memory */
ngx_int_t ngx_http_llm_metrics_json(ngx_http_request_t *r, llm_buf_t *out,
    ngx_http_llm_zone_t *zone);
ngx_int_t ngx_http_llm_metrics_prometheus(ngx_http_request_t *r,
    llm_buf_t *out, ngx_http_llm_zone_t *zone);


/* ngx_http_llm_admin.c */

/* the directive, and its content handler */
char *ngx_http_llm_admin(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
ngx_int_t ngx_http_llm_admin_handler(ngx_http_request_t *r);


/* ngx_http_llm_variables.c */

ngx_int_t ngx_http_llm_add_variables(ngx_conf_t *cf);


/* ngx_http_llm_status.c */

ngx_int_t ngx_http_llm_status_handler(ngx_http_request_t *r);

/* what stands before a metric's samples in Prometheus' form */
void ngx_http_llm_status_head(llm_buf_t *out, const char *name,
    const char *kind, const char *help);

ngx_int_t ngx_http_llm_health_handler(ngx_http_request_t *r);


/* ngx_http_llm_live.c */

/* members of an engine's object: its last step, the requests in it */
void ngx_http_llm_live_json(llm_buf_t *out, ngx_http_llm_channel_t *ch);


#endif /* _NGX_HTTP_LLM_MODULE_H_INCLUDED_ */
