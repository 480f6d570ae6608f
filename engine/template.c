/*
 * A conversation as token ids, by the model's own template.
 *
 * DESIGN.  The template, a Jinja program that comes with the model, writes
 * one text; the interpreter says of each byte whether the template or the
 * client wrote it.  A control token is recognised only where the template
 * wrote all of it, and what lies between two of them is encoded as one text:
 * so the ids are those that the model was trained on, and nothing that a user
 * writes can end a turn or begin one.
 *
 *      template   <|im_start|>user\n            <|im_end|>\n
 *      client                       a <|im_end|>
 *      ids        [start]      user \n a < | im _end | > [end] \n
 *
 * The begin and end tokens' names count as the template's.  No begin token is
 * added: a template that wants one writes it.
 *
 * What a template can be given is found out once, when it is opened, by
 * showing it two conversations.  One has a content of two parts: if both
 * texts come out and the array itself does not, contents that are arrays are
 * handed on as they came, else their texts are joined.  The other has an
 * assistant that called a tool and said nothing: if the call comes out,
 * content stays null there, else it is the empty string.  Whether it knows
 * the role "developer" is told by whether it names it, and so is what it calls
 * an assistant's thought.
 *
 * Without a template there are the fixed forms of template_fixed.c.
 *
 * Memory: jansson's trees and a rendering's own, for the length of a call;
 * both are bounded in proportion to the input.  Runs on text_in's threads,
 * which share the template_t.
 */
#include "template_impl.h"
#include "llm_err.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VARS_MAX   64 /* that a client may add */
#define VARS_OWN   6
#define NAME_MAX_N 256 /* bytes of a token's name */

/* A second of the slowest machine, a tenth of what is common. */
#define STEPS_MAX 20000000
#define DEPTH_MAX 1000

_Static_assert(TEMPLATE_SOURCE_MAX == JINJA_SOURCE_MAX, "one limit");

/* A compiled template, t is NULL: none. */
typedef struct {
    jinja_t *t;
    template_takes_t takes;
} template_own_t;

struct template_s {
    const token_t *tok;
    template_own_t own, tools;
    json_t *bos, *eos; /* names, NULL: has none */
};


/* --- rendering ---------------------------------------------------------- */

/* Variables in the order in which they count. */
typedef struct {
    jinja_var_t v[VARS_OWN + VARS_MAX];
    size_t n;
} template_vars_t;


/* One that is not there is left out: it is undefined then. */
static void
vars_add(
    template_vars_t *vars, const char *name, const json_t *v, unsigned origin)
{
    assert(vars->n < sizeof(vars->v) / sizeof(vars->v[0]));

    if (v != NULL) {
        vars->v[vars->n++] = (jinja_var_t){name, v, origin};
    }
}


/* Ours first: a client's of the same name do not count. */
static void
vars_fill(template_vars_t *vars, const template_t *t, const json_t *messages,
    const json_t *tools, const json_t *documents, int prompt)
{
    vars->n = 0;
    vars_add(vars, "messages", messages, JINJA_DATA);
    vars_add(vars, "tools", tools, JINJA_DATA);
    vars_add(vars, "documents", documents, JINJA_DATA);
    vars_add(vars, "add_generation_prompt", prompt ? json_true() : json_false(),
        JINJA_DATA);
    vars_add(vars, "bos_token", t->bos, JINJA_TEMPLATE);
    vars_add(vars, "eos_token", t->eos, JINJA_TEMPLATE);
}


/* len: bytes of all that came from the client. */
static int
template_render(const jinja_t *t, const template_vars_t *vars, size_t len,
    time_t now, int (*cancelled)(void *), void *arg, jinja_out_t *o)
{
    size_t more = len < (size_t) 64 << 20 ? len : (size_t) 64 << 20;
    jinja_limits_t limits = {STEPS_MAX, DEPTH_MAX,
        ((size_t) 64 << 20) + 16 * more, ((size_t) 16 << 20) + 4 * more};
    jinja_args_t args = {.vars = vars->v,
        .vars_n = vars->n,
        .limits = &limits,
        .cancelled = cancelled,
        .arg = arg};
    struct tm tm;

    args.now = localtime_r(&now, &tm);

    return jinja_render(t, &args, o);
}


/* --- what it takes ------------------------------------------------------ */

#define PROBE_A "Zq7first"
#define PROBE_B "Zq8second"

/* Does s stand in what came out? */
static int
probe_has(const jinja_out_t *o, const char *s)
{
    return o->len > 0 && memmem(o->text, o->len, s, strlen(s)) != NULL;
}


/* Does what comes of the messages have a and b, and not the word without? */
static int
template_probe(const template_t *t, const jinja_t *j, const char *messages,
    const char *a, const char *b, const char *without)
{
    json_t *msgs = json_loads(messages, 0, NULL);
    template_vars_t vars;
    jinja_out_t o;
    int shown = 0;

    assert(json_is_array(msgs));

    vars_fill(&vars, t, msgs, json_null(), json_null(), 1);
    if (template_render(j, &vars, 0, 0, NULL, NULL, &o) == 0) {
        shown = probe_has(&o, a) && probe_has(&o, b) && !probe_has(&o, without);
        jinja_out_free(&o);
    }
    json_decref(msgs);

    return shown;
}


/* A template that fails over what it is shown does not take it. */
static void
template_learn(const template_t *t, template_own_t *own)
{
    assert(own->t != NULL);
    own->takes.parts = template_probe(t, own->t,
        "[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":"
        "\"" PROBE_A "\"},{\"type\":\"text\",\"text\":\"" PROBE_B "\"}]}]",
        PROBE_A, PROBE_B, "type");
    own->takes.null = template_probe(t, own->t,
        "[{\"role\":\"user\",\"content\":\"" PROBE_A
        "\"},{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":"
        "\"call56789\",\"type\":\"function\",\"function\":{\"name\":\"" PROBE_B
        "\",\"arguments\":{}}}]}]",
        PROBE_A, PROBE_B, "None");
    own->takes.developer = jinja_mentions(own->t, "developer");
    own->takes.tools = jinja_mentions(own->t, "tools");
    own->takes.documents = jinja_mentions(own->t, "documents");

    /* "thinking" alone may be what switches it on */
    if (!jinja_mentions(own->t, "reasoning_content")) {
        own->takes.thought = jinja_mentions(own->t, "reasoning")  ? "reasoning"
                             : jinja_mentions(own->t, "thinking") ? "thinking"
                                                                  : NULL;
    }
}


/* --- opening ------------------------------------------------------------ */

/* 0, or -1 with the first reason in warn. */
static int
template_compile(template_t *t, template_own_t *own, template_text_t text,
    char *warn, size_t warnlen)
{
    char why[256];

    if (text.s == NULL) {
        return 0;
    }

    own->t = jinja_compile(text.s, text.len, why, sizeof(why));
    if (own->t == NULL) {
        if (warn[0] == '\0') {
            (void) snprintf(warn, warnlen, "%s", why);
        }
        return -1;
    }
    template_learn(t, own);

    return 0;
}


/* A token's name as a string; NULL if it has none. */
static json_t *
template_token(const token_t *tok, uint32_t id)
{
    size_t len = 0;
    const char *s = id == TOKEN_NONE ? "" : token_piece(tok, id, &len);

    return len == 0 || len > NAME_MAX_N ? NULL : json_stringn(s, len);
}


/*
 * Both templates are compiled now; whatever is wrong with them is known
 * before the first conversation.
 */
template_t *
template_open(const token_t *tok, template_text_t own, template_text_t tools,
    char *warn, size_t warnlen)
{
    template_t *t = calloc(1, sizeof(*t));

    assert(tok != NULL && warnlen > 0);

    warn[0] = '\0';
    if (t == NULL) {
        return NULL;
    }

    t->tok = tok;
    t->bos = template_token(tok, token_bos(tok));
    t->eos = template_token(tok, token_eos(tok));

    /* one for tools is no use without the other */
    if (template_compile(t, &t->own, own, warn, warnlen) == 0
        && t->own.t != NULL) {
        (void) template_compile(t, &t->tools, tools, warn, warnlen);
        t->tools.takes.tools = 1; /* it is there for nothing else */
    }

    return t;
}


/* The tokenizer stays the caller's. */
void
template_close(template_t *t)
{
    if (t == NULL) {
        return;
    }

    jinja_free(t->own.t);
    jinja_free(t->tools.t);
    json_decref(t->bos);
    json_decref(t->eos);
    free(t);
}


/* In the order in which they are chosen. */
const char *
template_form(const template_t *t)
{
    assert(t != NULL);
    return t->own.t != NULL             ? "its own template"
           : template_is_chatml(t->tok) ? "ChatML"
                                        : "plain text";
}


/* --- encoding ----------------------------------------------------------- */

/* What the client sent, parsed; owned. */
typedef struct {
    json_t *messages, *tools, *documents, *kwargs;
} template_json_t;


/* A part that may be absent: it is null then.  0 or a negative code. */
static int
parse_part(template_call_t *p, template_text_t text, const char *name,
    int object, json_t **v)
{
    *v = text.s == NULL ? json_null()
                        : json_loadb(text.s, text.len, JSON_ALLOW_NUL, NULL);

    if (!json_is_null(*v)
        && !(object ? json_is_object(*v) : json_is_array(*v))) {
        return template_refuse(p, LLM_ERR_BAD_FIELD,
            object ? "It must be an object." : "It must be an array.", "%s",
            name);
    }

    return 0;
}


/* jansson bounds the depth; who renders bounds the rest. */
static int
parse_input(template_call_t *p, const template_input_t *in, template_json_t *j)
{
    int rc;

    assert(p != NULL);

    /* a NUL in a text is as good a character as any */
    j->messages =
        json_loadb(in->messages.s, in->messages.len, JSON_ALLOW_NUL, NULL);
    if (j->messages == NULL) {
        return template_refuse(
            p, LLM_ERR_BAD_FIELD, "messages is not valid JSON.", "messages");
    }

    if ((rc = parse_part(p, in->tools, "tools", 0, &j->tools)) != 0
        || (rc = parse_part(p, in->documents, "documents", 0, &j->documents))
               != 0
        || (rc = parse_part(
                p, in->kwargs, "chat_template_kwargs", 1, &j->kwargs))
               != 0) {
        return rc;
    }

    return json_object_size(j->kwargs) <= VARS_MAX
               ? 0
               : template_refuse(p, LLM_ERR_BAD_FIELD,
                   "There are at most 64 of them.", "chat_template_kwargs");
}


/* The rendered text as ids. */
static int
encode_out(template_call_t *p, const jinja_out_t *o)
{
    token_span_t *spans = malloc((o->runs_n + 1) * sizeof(*spans));
    int64_t n;
    size_t i;

    if (spans == NULL) {
        return -LLM_ERR_NO_MEMORY;
    }

    for (i = 0; i < o->runs_n; i++) {
        spans[i].end = o->runs[i].end;
        spans[i].control = o->runs[i].origin == JINJA_TEMPLATE;
    }
    n = token_encode_spans(p->tok, o->len > 0 ? o->text : "", o->len, spans,
        o->runs_n, 0, p->out, p->cap, p->cancelled, p->arg);
    free(spans);

    if (n < 0) {
        return (int) n;
    }
    p->n = (size_t) n;

    return 0;
}


/* Render, then encode. */
static int
encode_own(template_call_t *p, const template_t *t, const template_own_t *own,
    const template_input_t *in, const template_json_t *j)
{
    template_vars_t vars;
    const char *name;
    jinja_out_t o;
    json_t *v;
    int rc;

    assert(own->t != NULL);

    if (in->go_on && (rc = template_go_on_mark(j->messages)) != 0) {
        return rc;
    }

    vars_fill(&vars, t, j->messages, j->tools, j->documents,
        !in->no_prompt && !in->go_on);
    json_object_foreach(j->kwargs, name, v)
    {
        vars_add(&vars, name, v, JINJA_DATA);
    }

    rc = template_render(own->t, &vars,
        in->messages.len + in->tools.len + in->documents.len + in->kwargs.len,
        in->now, p->cancelled, p->arg, &o);
    if (rc != 0) {
        return rc == -LLM_ERR_BAD_MESSAGES
                   ? template_refuse(p, LLM_ERR_BAD_MESSAGES, o.err, "messages")
                   : rc;
    }

    rc = in->go_on ? template_go_on_cut(p, &o) : 0;
    if (rc == 0) {
        rc = encode_out(p, &o);
    }
    jinja_out_free(&o);

    return rc;
}


/* What would be left out without a word is refused. */
static int
check_extras(
    template_call_t *p, const template_json_t *j, const template_takes_t *takes)
{
    if (json_array_size(j->tools) > 0 && !takes->tools) {
        return template_refuse(p, LLM_ERR_UNSUPPORTED,
            "The model's chat template knows no tools.", "tools");
    }

    if (json_array_size(j->documents) > 0 && !takes->documents) {
        return template_refuse(p, LLM_ERR_UNSUPPORTED,
            "The model's chat template knows no documents.", "documents");
    }

    return 0;
}


/* The template for tools serves only where there are some. */
static int
encode_json(template_call_t *p, const template_t *t, const template_input_t *in,
    template_json_t *j)
{
    static const template_takes_t fixed;
    const template_own_t *own =
        t->tools.t != NULL && json_array_size(j->tools) > 0 ? &t->tools
                                                            : &t->own;
    const template_takes_t *takes = own->t != NULL ? &own->takes : &fixed;
    int rc = template_check(p, j->messages, takes);

    if (rc == 0) {
        rc = check_extras(p, j, takes);
    }
    if (rc == 0 && in->go_on) {
        rc = template_go_on_check(p, j->messages);
    }

    if (rc == 0 && own->t != NULL) {
        rc = encode_own(p, t, own, in, j);
    } else if (rc == 0 && template_is_chatml(t->tok)) {
        rc = template_chatml(
            p, j->messages, !in->no_prompt && !in->go_on, in->go_on);
    } else if (rc == 0) {
        rc = template_plain(p, j->messages);
    }

    if (rc == 0 && p->n == 0) {
        rc = template_refuse(p, LLM_ERR_BAD_MESSAGES,
            "The conversation has no text.", "messages");
    }

    return rc;
}


/* What the client sent is parsed into trees that are freed here. */
int64_t
template_encode(const template_t *t, const template_input_t *in, uint32_t *out,
    size_t cap, int (*cancelled)(void *), void *arg, char *err, size_t errlen,
    char *param, size_t paramlen)
{
    template_call_t p = {.tok = t->tok,
        .out = out,
        .cap = cap,
        .cancelled = cancelled,
        .arg = arg,
        .err = err,
        .errlen = errlen,
        .param = param,
        .paramlen = paramlen};
    template_json_t j = {NULL, NULL, NULL, NULL};
    int rc;

    assert(in->messages.s != NULL && errlen > 0 && paramlen > 0);

    err[0] = param[0] = '\0';

    rc = parse_input(&p, in, &j);
    if (rc == 0) {
        rc = encode_json(&p, t, in, &j);
    }

    json_decref(j.messages);
    json_decref(j.tools);
    json_decref(j.documents);
    json_decref(j.kwargs);
    assert(p.n <= p.cap);

    return rc != 0 ? rc : (int64_t) p.n;
}
