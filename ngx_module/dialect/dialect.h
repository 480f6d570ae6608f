
/*
 * A dialect is one family of HTTP APIs: how its requests are read and how
 * answers are written.  A dialect is plain C over jansson and the wire's
 * types; it knows no nginx, no socket and no engine, so that it can be
 * fuzzed and tested alone (tests/unit/, tests/fuzz/).  The rest of the module
 * knows no API.
 *
 *     body --parse--> call --(request.c)--> SUBMIT
 *     TOKENS --tokens--> bytes,  DONE --done--> bytes,  ERROR --error--> bytes
 *
 * Memory comes from the caller's allocator (the request pool) and is never
 * given back by the dialect, except jansson's own, which it frees before it
 * returns.
 */


#ifndef LLM_DIALECT_H_INCLUDED_
#define LLM_DIALECT_H_INCLUDED_


#include "llm_err.h"
#include "llm_wire.h"

#include <stddef.h>
#include <stdint.h>


typedef struct {
    size_t         len;
    const char    *data;                /* not 0-terminated */
} llm_str_t;


/* an output buffer that grows; failed says that memory or max ran out */

typedef struct {
    char          *data;
    size_t         len;
    size_t         cap;
    size_t         max;                 /* never longer than this */
    int            failed;
    void        *(*alloc)(void *arg, size_t size);
    void          *arg;
} llm_buf_t;


enum {
    LLM_ROUTE_CHAT = 0,                 /* POST, runs the model */
    LLM_ROUTE_TEXT,                     /* POST, runs the model */
    LLM_ROUTE_MODELS,                   /* GET, a list */
    LLM_ROUTE_MODEL                     /* GET, one by name */
};


/* a refusal, in the terms of llm_err.h */

typedef struct {
    uint32_t       err;
    char           param[64];           /* field to blame, may be empty */
    char           text[256];           /* one sentence, empty: the list's */
} llm_refusal_t;


/* limits from the configuration that parse applies; 0 is none */

typedef struct {
    uint32_t       max_tokens;          /* clamp */
    uint32_t       default_max_tokens;  /* when the request names none */
} llm_caps_t;


/* what a request asks for: the arguments of one SUBMIT */

typedef struct {
    uint32_t           route;
    int                stream;
    int                include_usage;   /* stream_options.include_usage */

    llm_wire_submit_t  head;            /* all but hdr, id, credit, tenant's */

    llm_str_t          model;
    llm_str_t          messages;        /* CHAT: compact JSON array */
    uint32_t           prompts_n;       /* TEXT */
    llm_str_t          prompts[LLM_CHOICES_MAX];
    int                prompt_is_ids[LLM_CHOICES_MAX];  /* then u32 each */
    uint32_t           stops_n;
    llm_str_t          stops[LLM_STOPS_MAX];
    uint32_t           bias_n;
    llm_wire_bias_t   *bias;
} llm_call_t;


/* one answer being written; the dialect's own between calls */

typedef struct {
    const llm_call_t  *call;
    llm_str_t          id;              /* unique: "chatcmpl-" is put before */
    llm_str_t          model;           /* as the client named it */
    llm_str_t          fingerprint;     /* system_fingerprint */
    int64_t            created;         /* unix seconds */
    llm_buf_t          out;             /* what to send; the caller takes it */

    /* collected text and logprobs of an answer that is not streamed, and
     * what a streamed one must remember */

    struct {
        llm_buf_t      text;
        llm_buf_t      logprobs;        /* JSON, comma separated */
        uint32_t       finish;
        uint32_t       started;         /* role chunk sent */
        uint32_t       tokens;
        size_t         text_offset;     /* completions' logprobs */
        llm_buf_t      lp_aux[4];       /* completions' parallel lists */
    } choices[LLM_CHOICES_MAX];
} llm_answer_t;


typedef struct {
    const char     *name;
    uint64_t        created;
} llm_model_name_t;


typedef struct {
    const char  *name;                  /* "openai" */

    /*
     * Which endpoint is method (upper case) uri (no arguments, whole path)?
     * The path's tail counts, so that the API may live below any location.
     * 0 and *route, *name (LLM_ROUTE_MODEL); or a negative llm_err.h code,
     * with *allow, for LLM_ERR_BAD_METHOD, the method that would do.
     */
    int        (*route)(llm_str_t method, llm_str_t uri, uint32_t *route,
                     llm_str_t *name, const char **allow);

    /*
     * body to call.  alloc/arg as in llm_buf_t.  0, or a negative llm_err.h
     * code with *why filled in.  Unknown fields are ignored, known ones of a
     * wrong type or out of range are refused by name.
     */
    int        (*parse)(llm_str_t body, uint32_t route, const llm_caps_t *caps,
                     void *(*alloc)(void *, size_t), void *arg,
                     llm_call_t *call, llm_refusal_t *why);

    /* the content type of an answer */
    const char  *(*content_type)(const llm_call_t *call);

    /*
     * Appends to a->out what the client is to see of an event: for a stream
     * at once, else with done.  0, or a negative llm_err.h code when the
     * event makes no sense or memory ran out (a->out is then as it was).
     */
    int        (*tokens)(llm_answer_t *a, const llm_wire_tokens_t *t,
                     const uint8_t *text, const uint8_t *lp);
    int        (*done)(llm_answer_t *a, const llm_wire_done_t *d);

    /*
     * Appends an error: a whole JSON body if in_stream is 0, else the event
     * that ends a stream after its head was sent.
     */
    int        (*error)(llm_buf_t *out, const llm_refusal_t *why,
                     int in_stream);

    /* a comment that keeps a silent stream alive */
    int        (*ping)(llm_buf_t *out);

    /* the list of models, or the one called name (-LLM_ERR_NO_MODEL) */
    int        (*models)(llm_buf_t *out, const llm_model_name_t *models,
                     uint32_t n, const llm_str_t *name);
} llm_dialect_t;


extern const llm_dialect_t  llm_dialect_openai;


#endif /* LLM_DIALECT_H_INCLUDED_ */
