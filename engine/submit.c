/*
 * What a worker may ask for.
 *
 * DESIGN.  Two kinds of wrong are told apart.  A record that lies about its
 * lengths comes from a writer that is broken or hostile: submit_parse says so
 * and the attachment is given up.  A value that is out of range is a client's
 * mistake that the worker let through: submit_check names the field and the
 * request ends with an ERROR event.  Both look at the same private copy, and
 * submit_fill trusts only what passed them.
 *
 * Ranges are OpenAI's where they have one.  They are rows of a table, so that
 * what is allowed can be read in one place.
 */
#include "submit.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A number's range, and the words for it. */
typedef struct {
    const char *name;
    size_t offset;
    float min, max;
    const char *range;
} submit_float_t;

static const submit_float_t submit_floats[] = {
/* clang-format off */
#define F(name, min, max, range)                                               \
    {#name, offsetof(llm_wire_submit_t, name), min, max, range}
    F(temperature, 0, 2, "from 0 to 2"),
    F(top_p, 0, 1, "from 0 to 1"),
    F(min_p, 0, 1, "from 0 to 1"),
    F(repetition_penalty, 1e-6f, 10, "above 0 and at most 10"),
    F(presence_penalty, -2, 2, "from -2 to 2"),
    F(frequency_penalty, -2, 2, "from -2 to 2"),
#undef F
    /* clang-format on */
};

_Static_assert(sizeof(sample_bias_t) == sizeof(llm_wire_bias_t), "one copy");

#define SUBMIT_FLOATS (sizeof(submit_floats) / sizeof(submit_floats[0]))


void
submit_refuse(
    submit_fail_t *why, uint32_t err, const char *param, const char *fmt, ...)
{
    va_list args;

    assert(err != LLM_ERR_NONE && err < LLM_ERR_END);

    memset(why, 0, sizeof(*why));
    why->err = err;
    snprintf(why->param, sizeof(why->param), "%s", param);

    va_start(args, fmt);
    (void) vsnprintf(why->text, sizeof(why->text), fmt, args);
    va_end(args);
}


/* Notes one list of biases. */
static void
submit_bias(submit_t *s, const uint8_t *body, uint32_t len)
{
    llm_wire_bias_t b;
    uint32_t i;

    s->bias_n += len / (uint32_t) sizeof(b);
    s->bias_bad |= len % (uint32_t) sizeof(b) != 0;

    for (i = 0; len - i >= sizeof(b); i += (uint32_t) sizeof(b)) {
        memcpy(&b, body + i, sizeof(b));

        s->bias_bad |= !(b.bias >= -100 && b.bias <= 100);
        if (b.token > s->bias_token_max) {
            s->bias_token_max = b.token;
        }
    }
}


/* Notes one section. */
static void
submit_section(submit_t *s, const llm_wire_sec_t *sec, const uint8_t *body)
{
    const submit_input_t part = {sec->type, sec->len, body};

    switch (sec->type) {
    case LLM_SEC_MODEL:
        s->model = part;
        break;
    case LLM_SEC_TENANT:
        s->tenant = part;
        break;
    case LLM_SEC_REQUEST_ID:
        s->id = part;
        break;
    case LLM_SEC_SALT:
        s->salt = part;
        break;
    case LLM_SEC_TOOLS:
        s->tools = part;
        break;
    case LLM_SEC_DOCUMENTS:
        s->documents = part;
        break;
    case LLM_SEC_KWARGS:
        s->kwargs = part;
        break;
    case LLM_SEC_GRAMMAR:
        s->grammar = part;
        break;
    case LLM_SEC_MESSAGES:
    case LLM_SEC_PROMPT:
    case LLM_SEC_PROMPT_IDS:
        if (s->inputs_n < LLM_CHOICES_MAX) {
            s->inputs[s->inputs_n] = part;
        }
        s->inputs_n++;
        break;
    case LLM_SEC_STOP:
        s->stops_n++;
        s->stops_len += sec->len;
        s->stops_bad |= sec->len == 0 || sec->len > LLM_STOP_LEN_MAX;
        break;
    case LLM_SEC_BIAS:
        submit_bias(s, body, sec->len);
        break;
    default:
        break; /* a newer worker's: skipped */
    }
}


int
submit_parse(const void *rec, uint32_t len, submit_t *s)
{
    llm_wire_sec_t sec;
    const uint8_t *body;
    uint32_t at = 0, head_len;
    int rc;

    assert((uintptr_t) rec % 8 == 0);
    memset(s, 0, sizeof(*s));

    /* the first call judges head_len, so what it says is in the record */
    while ((rc = llm_submit_section(rec, len, &at, &sec, &body)) == 1) {
        submit_section(s, &sec, body);
    }
    if (rc != 0) {
        return -1;
    }

    memcpy(&head_len,
        (const uint8_t *) rec + offsetof(llm_wire_submit_t, head_len), 4);
    memcpy(
        &s->head, rec, head_len < sizeof(s->head) ? head_len : sizeof(s->head));

    return 0;
}


/* Judges the numbers of the head. */
static int
submit_check_head(const llm_wire_submit_t *h, submit_fail_t *why)
{
    const submit_float_t *f;
    float v;
    size_t i;

    if (h->kind >= LLM_KINDS || (h->flags & ~(uint32_t) LLM_F_ALL) != 0) {
        submit_refuse(why, LLM_ERR_UNSUPPORTED, "",
            "This engine is older than the gateway and lacks a feature.");
        return -1;
    }

    for (i = 0; i < SUBMIT_FLOATS; i++) {
        f = &submit_floats[i];
        memcpy(&v, (const uint8_t *) h + f->offset, sizeof(v));

        /* so that a NaN is out of range too */
        if (!(v >= f->min && v <= f->max)) {
            submit_refuse(why, LLM_ERR_BAD_FIELD, f->name, "%s must be %s.",
                f->name, f->range);
            return -1;
        }
    }

    if (h->n < 1 || h->n > LLM_CHOICES_MAX) {
        submit_refuse(why, LLM_ERR_BAD_FIELD, "n", "n must be from 1 to %d.",
            LLM_CHOICES_MAX);
        return -1;
    }

    if (h->prompt_tops > LLM_TOP_LOGPROBS_MAX) {
        submit_refuse(why, LLM_ERR_BAD_FIELD, "prompt_logprobs",
            "prompt_logprobs must be at most %d.", LLM_TOP_LOGPROBS_MAX);
        return -1;
    }

    if (h->top_logprobs > LLM_TOP_LOGPROBS_MAX) {
        submit_refuse(why, LLM_ERR_BAD_FIELD, "top_logprobs",
            "top_logprobs must be at most %d.", LLM_TOP_LOGPROBS_MAX);
        return -1;
    }

    if (h->credit == 0 || h->weight == 0) {
        submit_refuse(why, LLM_ERR_BAD_FIELD,
            h->credit == 0 ? "credit" : "weight", "It must be at least 1.");
        return -1;
    }

    return 0;
}


/* Judges what the output is to obey, as far as it can be told at once. */
static int
submit_check_grammar(const submit_t *s, submit_fail_t *why)
{
    const submit_input_t *in = &s->grammar;
    llm_wire_grammar_t g;

    if ((s->head.flags & LLM_F_GRAMMAR) == 0) {
        return 0;
    }

    memset(&g, 0, sizeof(g));
    if (in->p != NULL && in->len >= sizeof(g)) {
        memcpy(&g, in->p, sizeof(g));
    } else {
        g.type = LLM_GRAMMARS;
    }

    if (g.type >= LLM_GRAMMARS || (g.flags & ~(uint32_t) LLM_GRAMMAR_FLAGS) != 0
        || memchr(g.param, '\0', sizeof(g.param)) == NULL) {
        submit_refuse(why, LLM_ERR_UNSUPPORTED, "",
            "This engine is older than the gateway and lacks a feature.");
        return -1;
    }

    if (g.type == LLM_GRAMMAR_TOOLS
        && ((s->head.wants & LLM_W_CALLS) == 0 || s->tools.p == NULL)) {
        submit_refuse(why, LLM_ERR_BAD_FIELD, "tools", "tools is missing.");
        return -1;
    }

    return 0;
}


/* Judges what is to become prompts. */
static int
submit_check_inputs(
    const submit_t *s, const submit_rules_t *rules, submit_fail_t *why)
{
    int chat = s->head.kind == LLM_KIND_CHAT;
    const char *param = chat ? "messages" : "prompt";
    const submit_input_t *in;
    uint32_t i, k, id;

    if (s->inputs_n == 0 || (chat && s->inputs_n != 1)) {
        submit_refuse(why, LLM_ERR_BAD_FIELD, param, "%s is missing.", param);
        return -1;
    }

    if ((uint64_t) s->inputs_n * s->head.n > LLM_CHOICES_MAX) {
        submit_refuse(why, LLM_ERR_BAD_FIELD, chat ? "n" : "prompt",
            "Prompts times n must be at most %d.", LLM_CHOICES_MAX);
        return -1;
    }

    for (i = 0; i < s->inputs_n; i++) {
        in = &s->inputs[i];

        if (chat != (in->type == LLM_SEC_MESSAGES)
            || (in->type == LLM_SEC_PROMPT_IDS && in->len % 4 != 0)) {
            submit_refuse(
                why, LLM_ERR_BAD_FIELD, param, "%s has a wrong form.", param);
            return -1;
        }

        for (k = 0; in->type == LLM_SEC_PROMPT_IDS && k < in->len; k += 4) {
            memcpy(&id, in->p + k, 4);
            if (id >= rules->vocab) {
                submit_refuse(why, LLM_ERR_BAD_FIELD, param,
                    "Token %u is outside the model's vocabulary of %u.", id,
                    rules->vocab);
                return -1;
            }
        }
    }

    return 0;
}


int
submit_check(const submit_t *s, const submit_rules_t *rules, submit_fail_t *why)
{
    const submit_input_t *m = &s->model;

    if (m->p == NULL || m->len != strlen(rules->model)
        || memcmp(m->p, rules->model, m->len) != 0) {
        submit_refuse(why, LLM_ERR_NO_MODEL, "model", "%s", "");
        return -1;
    }

    if (submit_check_head(&s->head, why) != 0
        || submit_check_grammar(s, why) != 0
        || submit_check_inputs(s, rules, why) != 0) {
        return -1;
    }

    if (s->salt.len > LLM_SALT_MAX) {
        submit_refuse(why, LLM_ERR_BAD_FIELD, "cache_salt",
            "cache_salt must be a string of 1 to %d bytes.", LLM_SALT_MAX);
        return -1;
    }

    if (s->stops_n > LLM_STOPS_MAX || s->stops_bad) {
        submit_refuse(why, LLM_ERR_BAD_FIELD, "stop",
            "stop takes at most %d strings of 1 to %d bytes.", LLM_STOPS_MAX,
            LLM_STOP_LEN_MAX);
        return -1;
    }

    if (s->bias_n > LLM_BIAS_MAX || s->bias_bad
        || s->bias_token_max >= rules->vocab) {
        submit_refuse(why, LLM_ERR_BAD_FIELD, "logit_bias",
            "logit_bias takes at most %d tokens, each below %u, and values "
            "from -100 to 100.",
            LLM_BIAS_MAX, rules->vocab);
        return -1;
    }

    return 0;
}


uint32_t
submit_keep_size(const submit_t *s)
{
    return s->bias_n * (uint32_t) sizeof(sample_bias_t) + s->stops_len;
}


/* The id for log lines: what could spoil one is replaced. */
static void
submit_fill_id(const submit_t *s, req_t *r)
{
    uint32_t i, n;
    char c;

    n = s->id.len < sizeof(r->id) ? s->id.len : sizeof(r->id) - 1;

    for (i = 0; i < n; i++) {
        c = (char) s->id.p[i];
        r->id[i] = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z')
                           || (c >= 'A' && c <= 'Z')
                           || (c != 0 && strchr("_.:-", c) != NULL)
                       ? c
                       : '_';
    }

    r->id[n] = '\0';
    if (n == 0) {
        memcpy(r->id, "-", 2);
    }
}


/* Copies biases and stop strings to keep. */
static void
submit_fill_lists(
    const submit_t *s, const void *rec, uint32_t len, uint8_t *keep, req_t *r)
{
    sample_bias_t *bias = (sample_bias_t *) (void *) keep;
    char *stop = (char *) (keep + s->bias_n * sizeof(*bias));
    llm_wire_sec_t sec;
    const uint8_t *body;
    uint32_t at = 0, bias_n = 0;

    r->stops_n = 0;

    while (llm_submit_section(rec, len, &at, &sec, &body) == 1) {
        if (sec.type == LLM_SEC_BIAS && sec.len > 0) {
            assert(bias_n + sec.len / sizeof(*bias) <= s->bias_n);
            memcpy(bias + bias_n, body, sec.len);
            bias_n += sec.len / (uint32_t) sizeof(*bias);
        }
        if (sec.type == LLM_SEC_STOP) {
            assert(r->stops_n < s->stops_n);
            memcpy(stop, body, sec.len);
            r->stops[r->stops_n].s = stop;
            r->stops[r->stops_n].len = sec.len;
            r->stops_n++;
            stop += sec.len;
        }
    }

    assert(bias_n == s->bias_n && r->stops_n == s->stops_n);
    r->params.bias = bias_n > 0 ? bias : NULL;
    r->params.bias_n = bias_n;
}


/* The shorter of two times, of which 0 is none. */
static uint32_t
shorter(uint32_t a, uint32_t b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}


void
submit_fill(const submit_t *s, const submit_rules_t *rules, const void *rec,
    uint32_t len, uint8_t *keep, req_t *r)
{
    const llm_wire_submit_t *h = &s->head;
    sample_params_t *p = &r->params;

    assert(h->n >= 1 && s->inputs_n * h->n <= LLM_CHOICES_MAX);

    r->flags = h->flags;
    if (r->flags & LLM_F_GRAMMAR) {
        r->flags &= ~(uint32_t) LLM_F_IGNORE_EOS; /* nothing else may follow */
    }
    r->n = h->n;
    r->prompts_n = s->inputs_n;
    r->choices = s->inputs_n * h->n;
    r->max_tokens = h->max_tokens;
    r->credit = h->credit < rules->credit_max ? h->credit : rules->credit_max;
    r->weight = h->weight;
    r->priority = h->priority;
    r->concurrent = h->concurrent;
    r->queue_max = h->queue_max;
    r->queue_ms = shorter(h->queue_ms, h->first_ms);

    p->temperature = h->temperature;
    p->top_p = h->top_p;
    p->min_p = h->min_p;
    p->repetition_penalty = h->repetition_penalty;
    p->presence_penalty = h->presence_penalty;
    p->frequency_penalty = h->frequency_penalty;
    p->top_k = h->top_k < rules->vocab ? h->top_k : rules->vocab;
    p->logprobs = (h->flags & LLM_F_LOGPROBS) != 0;
    p->tops = p->logprobs ? h->top_logprobs : 0;
    p->seed = h->seed;

    if (h->flags & LLM_F_PROMPT_LPS) {
        r->prompt_params.logprobs = 1;
        r->prompt_params.tops = h->prompt_tops;
    }

    submit_fill_id(s, r);
    submit_fill_lists(s, rec, len, keep, r);
}
