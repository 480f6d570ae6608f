
/*
 * OpenAI's request bodies: how to answer.  What to answer, the messages or
 * prompts, is openai_input.c's.
 *
 * DESIGN.  A body is judged as far as it can be without a model: types,
 * ranges, caps.  Three kinds of fields:
 *   - known: wrong types and values are refused by name; null is absent;
 *   - unknown here, but they change what an answer is (audio, modalities,
 *     templates): refused, as an answer that ignores them would look right and
 *     be wrong;
 *   - all others (user, metadata, store, ...) are advice, and ignored.
 *
 * Whole numbers may be written as 16.0, which some clients do; that is the
 * same number in JSON.  top_k, min_p, repetition_penalty, ignore_eos and
 * prompt_logprobs are the customary extensions.
 */


#include "openai.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>


#define LLM_OPENAI_TEXT_TOKENS  16      /* OpenAI's default for completions */


typedef struct {
    const char        *name;
    double             min;
    double             max;
    size_t             offset;          /* of a float in llm_wire_submit_t */
} llm_openai_float_t;


/* numbers that go on as they are; both routes know all of them */

static const llm_openai_float_t  llm_openai_floats[] = {

    { "temperature", 0, 2, offsetof(llm_wire_submit_t, temperature) },
    { "top_p", 0, 1, offsetof(llm_wire_submit_t, top_p) },
    { "min_p", 0, 1, offsetof(llm_wire_submit_t, min_p) },
    { "presence_penalty", -2, 2,
      offsetof(llm_wire_submit_t, presence_penalty) },
    { "frequency_penalty", -2, 2,
      offsetof(llm_wire_submit_t, frequency_penalty) },
    { "repetition_penalty", 0.01, 10,
      offsetof(llm_wire_submit_t, repetition_penalty) },

    { NULL, 0, 0, 0 }
};


json_t *
llm_openai_field(const json_t *object, const char *name)
{
    json_t  *v;

    v = json_object_get(object, name);

    return json_is_null(v) ? NULL : v;
}


int
llm_openai_copy(llm_openai_in_t *in, const json_t *v, llm_str_t *s)
{
    char  *p;

    s->len = json_string_length(v);

    p = in->alloc(in->arg, s->len + 1);
    if (p == NULL) {
        return llm_refuse(in->why, LLM_ERR_NO_MEMORY, NULL, NULL);
    }

    memcpy(p, json_string_value(v), s->len + 1);
    s->data = p;

    return 0;
}


int
llm_openai_bool(llm_openai_in_t *in, const json_t *object, const char *name,
    const char *param, int *value)
{
    json_t  *v;

    v = llm_openai_field(object, name);

    if (v == NULL) {
        return 0;
    }

    if (!json_is_boolean(v)) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, param,
                          "%s must be true or false.", param);
    }

    *value = json_is_true(v);

    return 0;
}


int
llm_openai_whole(const json_t *v, int64_t *value)
{
    double  x;

    if (json_is_integer(v)) {
        *value = json_integer_value(v);
        return 1;
    }

    if (!json_is_real(v)) {
        return 0;
    }

    x = json_real_value(v);

    if (!(fabs(x) < 9007199254740992.0) || floor(x) != x) {
        return 0;
    }

    *value = (int64_t) x;

    return 1;
}


int
llm_openai_int(llm_openai_in_t *in, const char *name, int64_t min, int64_t max,
    int64_t *value, int *given)
{
    json_t   *v;
    int64_t   n;

    v = llm_openai_field(in->root, name);

    if (v == NULL) {
        return 0;
    }

    if (!llm_openai_whole(v, &n) || n < min || n > max) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, name,
                          "%s must be a whole number from %lld to %lld.", name,
                          (long long) min, (long long) max);
    }

    *value = n;

    if (given != NULL) {
        *given = 1;
    }

    return 0;
}


static int
llm_openai_parse_floats(llm_openai_in_t *in)
{
    json_t                    *v;
    float                      f;
    double                     x;
    const llm_openai_float_t  *row;

    for (row = llm_openai_floats; row->name != NULL; row++) {

        v = llm_openai_field(in->root, row->name);

        if (v == NULL) {
            continue;
        }

        x = json_number_value(v);

        if (!json_is_number(v) || x < row->min || x > row->max) {
            return llm_refuse(in->why, LLM_ERR_BAD_FIELD, row->name,
                              "%s must be a number from %g to %g.", row->name,
                              row->min, row->max);
        }

        f = (float) x;
        memcpy((char *) &in->call->head + row->offset, &f, sizeof(f));
    }

    return 0;
}


static int
llm_openai_parse_model(llm_openai_in_t *in)
{
    json_t  *v;

    v = llm_openai_field(in->root, "model");

    if (v == NULL) {
        if (in->caps->model_optional) {
            return 0;
        }

        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "model",
                          "model is required.");
    }

    if (!json_is_string(v) || json_string_length(v) == 0) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "model",
                          "model must be a string that is not empty.");
    }

    if (json_string_length(v) >= LLM_NAME_MAX) {
        return llm_refuse(in->why, LLM_ERR_NO_MODEL, "model", NULL);
    }

    return llm_openai_copy(in, v, &in->call->model);
}


static int
llm_openai_parse_stream(llm_openai_in_t *in)
{
    int      rc;
    json_t  *v;

    rc = llm_openai_bool(in, in->root, "stream", "stream", &in->call->stream);
    if (rc != 0) {
        return rc;
    }

    v = llm_openai_field(in->root, "stream_options");

    if (v == NULL) {
        return 0;
    }

    if (!json_is_object(v)) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "stream_options",
                          "stream_options must be an object.");
    }

    if (!in->call->stream) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "stream_options",
                          "stream_options needs stream to be true.");
    }

    return llm_openai_bool(in, v, "include_usage",
                           "stream_options.include_usage",
                           &in->call->include_usage);
}


static int
llm_openai_parse_stop(llm_openai_in_t *in)
{
    int      rc;
    char     param[32];
    json_t  *v, *one;
    size_t   i, n;

    v = llm_openai_field(in->root, "stop");

    if (v == NULL) {
        return 0;
    }

    if (!json_is_string(v) && !json_is_array(v)) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "stop",
                          "stop must be a string or an array of strings.");
    }

    n = json_is_array(v) ? json_array_size(v) : 1;

    if (n > LLM_STOPS_MAX) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "stop",
                          "stop may hold at most %d strings.", LLM_STOPS_MAX);
    }

    for (i = 0; i < n; i++) {

        one = json_is_array(v) ? json_array_get(v, i) : v;

        if (!json_is_string(one) || json_string_length(one) == 0
            || json_string_length(one) > LLM_STOP_LEN_MAX)
        {
            (void) snprintf(param, sizeof(param),
                            json_is_array(v) ? "stop[%zu]" : "stop", i);

            return llm_refuse(in->why, LLM_ERR_BAD_FIELD, param,
                              "%s must be a string of 1 to %d bytes.", param,
                              LLM_STOP_LEN_MAX);
        }

        rc = llm_openai_copy(in, one, &in->call->stops[i]);
        if (rc != 0) {
            return rc;
        }
    }

    in->call->stops_n = (uint32_t) n;

    return 0;
}


/*
 * A token id as a key: digits, with no zero before them, so that an id is
 * named by one key only.
 */

static int
llm_openai_token_id(const char *key, uint32_t *id)
{
    uint64_t     n;
    const char  *p;

    n = 0;

    for (p = key; *p >= '0' && *p <= '9' && n < UINT32_MAX; p++) {
        n = n * 10 + (uint64_t) (*p - '0');
    }

    if (*p != '\0' || p == key || n >= UINT32_MAX
        || (key[0] == '0' && key[1] != '\0'))
    {
        return 0;
    }

    *id = (uint32_t) n;

    return 1;
}


static int
llm_openai_parse_bias(llm_openai_in_t *in)
{
    size_t            n;
    json_t           *v, *value;
    double            x;
    uint32_t          id;
    const char       *key;
    llm_wire_bias_t  *bias;

    v = llm_openai_field(in->root, "logit_bias");

    if (v == NULL) {
        return 0;
    }

    if (!json_is_object(v)) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "logit_bias",
                          "logit_bias must be an object.");
    }

    n = json_object_size(v);

    if (n > LLM_BIAS_MAX) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "logit_bias",
                          "logit_bias may name at most %d tokens.",
                          LLM_BIAS_MAX);
    }

    if (n == 0) {
        return 0;
    }

    bias = in->alloc(in->arg, n * sizeof(llm_wire_bias_t));
    if (bias == NULL) {
        return llm_refuse(in->why, LLM_ERR_NO_MEMORY, NULL, NULL);
    }

    n = 0;

    json_object_foreach(v, key, value) {

        x = json_number_value(value);

        if (!llm_openai_token_id(key, &id) || !json_is_number(value)
            || x < -100 || x > 100)
        {
            return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "logit_bias",
                              "logit_bias must map token ids to numbers from "
                              "-100 to 100.");
        }

        bias[n].token = id;
        bias[n].bias = (float) x;
        n++;
    }

    in->call->bias = bias;
    in->call->bias_n = (uint32_t) n;

    return 0;
}


/* an answer has one place for them, its end */

static int
llm_openai_parse_prompt_lps(llm_openai_in_t *in)
{
    int                 rc;
    int64_t             tops;
    llm_wire_submit_t  *head;

    head = &in->call->head;
    tops = 0;

    rc = llm_openai_int(in, "prompt_logprobs", 0, LLM_TOP_LOGPROBS_MAX, &tops,
                        &in->call->prompt_logprobs);
    if (rc != 0 || !in->call->prompt_logprobs) {
        return rc;
    }

    if (in->call->stream) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "prompt_logprobs",
                          "prompt_logprobs needs stream to be false.");
    }

    head->flags |= LLM_F_PROMPT_LPS;
    head->prompt_tops = (uint32_t) tops;

    return 0;
}


/* chat has a switch and a number of alternatives, completions one number */

static int
llm_openai_parse_logprobs(llm_openai_in_t *in)
{
    int                 rc, on, given;
    int64_t             tops;
    llm_wire_submit_t  *head;

    head = &in->call->head;
    on = 0;
    given = 0;
    tops = 0;

    if (in->call->route == LLM_ROUTE_CHAT) {

        rc = llm_openai_bool(in, in->root, "logprobs", "logprobs", &on);
        if (rc != 0) {
            return rc;
        }

        rc = llm_openai_int(in, "top_logprobs", 0, LLM_TOP_LOGPROBS_MAX, &tops,
                            NULL);
        if (rc != 0) {
            return rc;
        }

        if (tops != 0 && !on) {
            return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "top_logprobs",
                              "top_logprobs needs logprobs to be true.");
        }

    } else {

        rc = llm_openai_int(in, "logprobs", 0, LLM_TOP_LOGPROBS_MAX, &tops,
                            &given);
        if (rc != 0) {
            return rc;
        }

        on = given;
    }

    if (on) {
        head->flags |= LLM_F_LOGPROBS;
        head->top_logprobs = (uint32_t) tops;
    }

    return llm_openai_parse_prompt_lps(in);
}


/* how many tokens at most, per choice: the request's wish and the caps */

static int
llm_openai_parse_limit(llm_openai_in_t *in)
{
    int        rc, given;
    int64_t    max;
    uint32_t   cap;

    if (in->caps->default_max_tokens != 0) {
        max = in->caps->default_max_tokens;

    } else {
        max = in->call->route == LLM_ROUTE_TEXT ? LLM_OPENAI_TEXT_TOKENS : 0;
    }

    /* a completion of nothing is its prompt: llm_openai_parse_echo() */

    given = 0;
    rc = llm_openai_int(in, "max_tokens",
                        in->call->route == LLM_ROUTE_TEXT ? 0 : 1, INT32_MAX,
                        &max, &given);
    if (rc != 0) {
        return rc;
    }

    if (given && max == 0) {
        in->call->head.flags |= LLM_F_SCORE;
        max = 1;
    }

    /* the newer name of the same wins */

    if (in->call->route == LLM_ROUTE_CHAT) {
        rc = llm_openai_int(in, "max_completion_tokens", 1, INT32_MAX, &max,
                            NULL);
        if (rc != 0) {
            return rc;
        }
    }

    cap = in->caps->max_tokens;

    if (cap != 0 && (max == 0 || max > cap)) {
        max = cap;
    }

    in->call->head.max_tokens = (uint32_t) max;

    return 0;
}


static int
llm_openai_parse_sampling(llm_openai_in_t *in)
{
    int                 rc, flag;
    int64_t             n, top_k, seed;
    llm_wire_submit_t  *head;

    head = &in->call->head;

    head->temperature = 1;
    head->top_p = 1;
    head->repetition_penalty = 1;

    rc = llm_openai_parse_floats(in);
    if (rc != 0) {
        return rc;
    }

    n = 1;
    rc = llm_openai_int(in, "n", 1, LLM_CHOICES_MAX, &n, NULL);
    if (rc != 0) {
        return rc;
    }

    head->n = (uint32_t) n;

    /* -1 is another customary way to say "off" */

    top_k = 0;
    rc = llm_openai_int(in, "top_k", -1, INT32_MAX, &top_k, NULL);
    if (rc != 0) {
        return rc;
    }

    head->top_k = top_k < 0 ? 0 : (uint32_t) top_k;

    flag = 0;
    seed = 0;
    rc = llm_openai_int(in, "seed", INT64_MIN, INT64_MAX, &seed, &flag);
    if (rc != 0) {
        return rc;
    }

    if (flag) {
        head->flags |= LLM_F_SEED;
        head->seed = (uint64_t) seed;
    }

    flag = 0;
    rc = llm_openai_bool(in, in->root, "ignore_eos", "ignore_eos", &flag);
    if (rc != 0) {
        return rc;
    }

    if (flag) {
        head->flags |= LLM_F_IGNORE_EOS;
    }

    return 0;
}


/* vLLM's: requests with another one share no cached prefix */

static int
llm_openai_parse_salt(llm_openai_in_t *in)
{
    json_t  *v;

    v = llm_openai_field(in->root, "cache_salt");

    if (v == NULL) {
        return 0;
    }

    if (!json_is_string(v) || json_string_length(v) == 0
        || json_string_length(v) > LLM_SALT_MAX)
    {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "cache_salt",
                          "cache_salt must be a string of 1 to %d bytes.",
                          LLM_SALT_MAX);
    }

    return llm_openai_copy(in, v, &in->call->salt);
}


static int
llm_openai_parse_fields(llm_openai_in_t *in)
{
    int                 rc, i;
    static int       (*steps[])(llm_openai_in_t *in) = {
        llm_openai_parse_model,
        llm_openai_parse_stream,
        llm_openai_parse_sampling,
        llm_openai_parse_limit,
        llm_openai_parse_stop,
        llm_openai_parse_bias,
        llm_openai_parse_logprobs,
        llm_openai_parse_salt,
        llm_openai_refuse_others,
        llm_openai_parse_grammar,
        NULL
    };

    if (!json_is_object(in->root)) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, NULL,
                          "The body must be a JSON object.");
    }

    if (in->call->route != LLM_ROUTE_CHAT && in->call->route != LLM_ROUTE_TEXT)
    {
        rc = llm_openai_parse_model(in);

        return rc ? rc : llm_openai_parse_ids(in);
    }

    for (i = 0; steps[i] != NULL; i++) {
        rc = steps[i](in);
        if (rc != 0) {
            return rc;
        }
    }

    if (in->call->route == LLM_ROUTE_TEXT) {
        return llm_openai_parse_text(in);
    }

    return llm_openai_parse_messages(in);
}


int
llm_openai_parse(llm_str_t body, uint32_t route, const llm_caps_t *caps,
    void *(*alloc)(void *, size_t), void *arg, llm_call_t *call,
    llm_refusal_t *why)
{
    int              rc;
    llm_openai_in_t  in;

    memset(call, 0, sizeof(*call));
    memset(why, 0, sizeof(*why));

    if (route > LLM_ROUTE_DETOKENIZE) {
        return llm_refuse(why, LLM_ERR_INTERNAL, NULL, NULL);
    }

    rc = llm_json_read(body, &in.root, why);
    if (rc != 0) {
        return rc;
    }

    call->route = route;
    call->head.head_len = sizeof(llm_wire_submit_t);
    call->head.kind = route == LLM_ROUTE_CHAT ? LLM_KIND_CHAT : LLM_KIND_TEXT;

    in.body_len = body.len;
    in.caps = caps;
    in.alloc = alloc;
    in.arg = arg;
    in.call = call;
    in.why = why;

    rc = llm_openai_parse_fields(&in);

    json_decref(in.root);

    return rc;
}
