/*
 * The one list of things that can go wrong with a request, shared by both
 * processes: a row gives the number on the wire, the HTTP status, the API
 * error type and code, and the sentence shown when nothing more exact is
 * known.  Rows are only ever appended: the number is part of the wire.
 *
 * Functions of ours return 0 or a negative number from this list
 * (-LLM_ERR_CONTEXT_FULL).
 */
#ifndef LLM_ERR_H
#define LLM_ERR_H

/* X(name, http, api type, api code, text) */
#define LLM_ERR_LIST(X)                                                        \
    X(INTERNAL, 500, "server_error", "internal_error",                         \
        "The server had an internal error.")                                   \
    X(BAD_JSON, 400, "invalid_request_error", "invalid_json",                  \
        "The body is not valid JSON.")                                         \
    X(BAD_FIELD, 400, "invalid_request_error", "invalid_value",                \
        "A field has a wrong type or value.")                                  \
    X(NO_MODEL, 404, "invalid_request_error", "model_not_found",               \
        "The model does not exist.")                                           \
    X(CONTEXT_FULL, 400, "invalid_request_error", "context_length_exceeded",   \
        "The prompt is longer than the model's context.")                      \
    X(BODY_LARGE, 413, "invalid_request_error", "request_too_large",           \
        "The request is too large.")                                           \
    X(BAD_METHOD, 405, "invalid_request_error", "method_not_allowed",          \
        "The method is not allowed here.")                                     \
    X(NO_ROUTE, 404, "invalid_request_error", "unknown_url",                   \
        "There is no such path.")                                              \
    X(NO_ENGINE, 503, "server_error", "engine_unavailable",                    \
        "No engine is attached at the moment.")                                \
    X(ENGINE_LOST, 503, "server_error", "engine_lost",                         \
        "The engine went away during this request.")                           \
    X(DRAINING, 503, "server_error", "engine_draining",                        \
        "The engine is shutting down.")                                        \
    X(BUSY, 429, "rate_limit_error", "server_busy",                            \
        "Too many requests are in progress.")                                  \
    X(QUEUE_TIMEOUT, 503, "server_error", "queue_timeout",                     \
        "The request waited too long for its turn.")                           \
    X(TIMEOUT, 504, "server_error", "timeout",                                 \
        "The engine did not answer in time.")                                  \
    X(CANCELLED, 499, "invalid_request_error", "cancelled",                    \
        "The request was cancelled.")                                          \
    X(BAD_TEXT, 400, "invalid_request_error", "invalid_text",                  \
        "The prompt cannot be expressed in the model's vocabulary.")           \
    X(BAD_MESSAGES, 400, "invalid_request_error", "invalid_messages",          \
        "The model's chat template refuses this conversation.")                \
    X(NAN_LOGITS, 500, "server_error", "model_diverged",                       \
        "The model produced numbers that are not finite.")                     \
    X(PROTOCOL, 500, "server_error", "protocol_error",                         \
        "The engine and the gateway disagree.")                                \
    X(NO_MEMORY, 503, "server_error", "out_of_memory",                         \
        "The server is out of memory for this request.")                       \
    X(UNSUPPORTED, 400, "invalid_request_error", "unsupported",                \
        "This is not supported.")                                              \
    X(NO_KEY, 401, "invalid_request_error", "missing_api_key",                 \
        "No API key was given: it belongs into the header Authorization, "     \
        "behind Bearer.")                                                      \
    X(BAD_KEY, 401, "invalid_request_error", "invalid_api_key",                \
        "The API key is not valid.")                                           \
    X(MODEL_DENIED, 403, "invalid_request_error", "model_not_allowed",         \
        "This API key may not use the model.")                                 \
    X(RATE_REQUESTS, 429, "requests", "rate_limit_exceeded",                   \
        "Too many requests a minute.")                                         \
    X(RATE_TOKENS, 429, "tokens", "rate_limit_exceeded",                       \
        "Too many tokens a minute.")                                           \
    X(QUOTA, 429, "insufficient_quota", "insufficient_quota",                  \
        "The budget of tokens is used up.")                                    \
    X(TOKENS_NEVER, 400, "invalid_request_error", "tokens_exceed_limit",       \
        "The request could use more tokens than its limit allows at once.")    \
    X(BLOCKED, 403, "invalid_request_error", "tenant_blocked",                 \
        "This account is blocked.")                                            \
    X(STOPPED, 503, "server_error", "request_stopped",                         \
        "The server's administrator has ended this request.")

enum {
    LLM_ERR_NONE = 0,
#define X(name, http, type, code, text) LLM_ERR_##name,
    LLM_ERR_LIST(X)
#undef X
        LLM_ERR_END
};

typedef struct {
    int http;
    const char *type;
    const char *code;
    const char *text;
} llm_err_t;

/*
 * The row of error number err (positive).  A number that is not in the list,
 * as a newer peer may send, gives the row of LLM_ERR_INTERNAL.
 */
static inline const llm_err_t *
llm_err(unsigned err)
{
    static const llm_err_t table[] = {
#define X(name, http, type, code, text) {http, type, code, text},
        LLM_ERR_LIST(X)
#undef X
    };

    if (err == LLM_ERR_NONE || err >= LLM_ERR_END) {
        err = LLM_ERR_INTERNAL;
    }

    return &table[err - 1];
}

#endif
