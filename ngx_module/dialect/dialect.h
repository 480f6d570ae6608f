
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
#include <string.h>


struct json_t;


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
    LLM_ROUTE_TOKENIZE,                 /* POST, does not */
    LLM_ROUTE_DETOKENIZE,               /* POST, does not */
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
    uint32_t       model_optional;      /* call->model may stay empty */
} llm_caps_t;


#define LLM_LEAD_MAX       4096         /* bytes of messages in lead */
#define LLM_LEAD_TEXT_MAX  256          /* bytes of a prompt in it */


/* what a request asks for: the arguments of one SUBMIT */

typedef struct {
    uint32_t           route;
    int                stream;
    int                include_usage;   /* stream_options.include_usage */
    int                prompt_logprobs; /* in a field of their own */
    int                named;           /* the one function that is called */

    llm_wire_submit_t  head;            /* all but hdr, id, credit, tenant's */

    llm_str_t          model;
    llm_str_t          messages;        /* CHAT: compact JSON array */
    llm_str_t          tools;           /* the same, or none */
    llm_str_t          documents;       /* the same, or none */
    llm_str_t          kwargs;          /* CHAT: compact JSON object, or none */
    llm_str_t          salt;            /* of the prefix cache, or none */
    llm_str_t          grammar;         /* LLM_SEC_GRAMMAR, or none */
    uint32_t           prompts_n;       /* TEXT */
    llm_str_t          prompts[LLM_CHOICES_MAX];
    int                prompt_is_ids[LLM_CHOICES_MAX];  /* then u32 each */
    llm_str_t          lead;            /* of messages or prompts[0]: what all
                                         * turns of a conversation begin with */
    uint32_t           stops_n;
    llm_str_t          stops[LLM_STOPS_MAX];
    uint32_t           bias_n;
    llm_wire_bias_t   *bias;
} llm_call_t;


/*
 * One answer being written; the dialect's own between calls.  The caller
 * zeroes it, fills in what stands before choices and calls llm_buf_init() for
 * out, whose max also bounds what is collected for each choice.  To take what
 * was written it sets out's data, len and cap to nothing, or copies it and
 * sets len to 0.
 */

typedef struct {
    const llm_call_t  *call;
    llm_str_t          id;              /* unique: "chatcmpl-" is put before */
    llm_str_t          model;           /* as the client named it */
    llm_str_t          fingerprint;     /* system_fingerprint */
    int64_t            created;         /* unix seconds */
    uint32_t           context;         /* the model's, tokens */
    llm_buf_t          out;             /* what to send; the caller takes it */

    /* collected text and logprobs of an answer that is not streamed, and
     * what a streamed one must remember */

    struct {
        llm_buf_t      text;
        llm_buf_t      reasoning;       /* thought before the text */
        llm_buf_t      calls;           /* JSON, the last one still open */
        llm_buf_t      call_name;       /* of the call that begins */
        uint32_t       calls_n;         /* that have begun */
        uint32_t       call_open;       /* arguments may come */
        llm_buf_t      logprobs;        /* JSON, comma separated */
        llm_buf_t      prompt_lps;      /* the same of the prompt */
        uint32_t       finish;
        uint32_t       started;         /* role chunk sent */
        uint32_t       tokens;
        uint32_t       thought;         /* of tokens, those of reasoning */
        size_t         text_offset;     /* completions' logprobs */
        llm_buf_t      lp_aux[4];       /* completions' parallel lists */
    } choices[LLM_CHOICES_MAX];

    llm_buf_t          head;            /* what every chunk begins with */
} llm_answer_t;


typedef struct {
    const char     *name;
    uint64_t        created;
    uint32_t        context;            /* tokens; 0: not known */
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
     * wrong type or out of range are refused by name.  Nothing in call
     * points into body, and messages and prompts are only for SUBMIT: the
     * caller may free all three when that is done.
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


/*
 * What the dialects share (dialect.c).
 *
 * The buffer: appending to one that has failed does nothing, so a writer
 * looks at failed once, at its end.
 */

void llm_buf_init(llm_buf_t *b, size_t max,
    void *(*alloc)(void *arg, size_t size), void *arg);

/* makes room for n bytes behind len; 0 and failed set if there is none */
int llm_buf_grow(llm_buf_t *b, size_t n);


static inline void
llm_buf_add(llm_buf_t *b, const void *p, size_t n)
{
    if (n > b->cap - b->len && !llm_buf_grow(b, n)) {
        return;
    }

    if (n != 0) {
        memcpy(b->data + b->len, p, n);
        b->len += n;
    }
}


#define llm_buf_lit(b, s)  llm_buf_add(b, s, sizeof(s) - 1)

void llm_buf_str(llm_buf_t *b, const char *s);
void llm_buf_u64(llm_buf_t *b, uint64_t v);

/*
 * A number of at most nine digits that reads back as the same float, in JSON
 * and whatever the locale; NaN and infinities, which JSON has no words for,
 * are written as the largest float of their sign.
 */
void llm_buf_float(llm_buf_t *b, float v);

/*
 * The inside of a JSON string: n bytes of text, each ill-formed UTF-8 sequence
 * replaced by U+FFFD.  Line separators that some clients split an event
 * stream at (U+0085, U+2028, U+2029) are escaped too.
 */
void llm_buf_json(llm_buf_t *b, const char *text, size_t n);

/* the length of the well-formed UTF-8 character at p, 0 if there is none */
unsigned llm_utf8_len(const uint8_t *p, size_t left);

/*
 * Reads a body: 0 with *root, which the caller decrefs, or a negative
 * llm_err.h code with *why.  Any JSON value is accepted, but for its depth,
 * its size in values, and what jansson cannot hold (numbers beyond 64 bits or
 * a double, NUL in a key); of equal keys the last one counts.
 */
int llm_json_read(llm_str_t body, struct json_t **root, llm_refusal_t *why);

/* fills in why; returns -err.  param and fmt may be NULL. */
int llm_refuse(llm_refusal_t *why, uint32_t err, const char *param,
    const char *fmt, ...) __attribute__((format(printf, 4, 5)));


#endif /* LLM_DIALECT_H_INCLUDED_ */
