/*
 * Calls in what a model says: see tools.h.
 *
 * DESIGN.  A family is a row of a table: the marks that a call begins with,
 * what stands behind one, and how its inside is written, which is one of three
 * machines.  What a call comes to is two pieces of text, its name and its
 * arguments as JSON; they are told apart by their kind and nothing else, so a
 * stream of calls goes the way that all text goes.
 *
 *      TEXT ──mark──> BODY ──{ [──> IN_JSON ─> LIST ──┐
 *       ^ ^             ├───────> IN_NAMED ───────────┤
 *       │ │             └──< a──> IN_XML ─────────────┤
 *       │ └───────────── no call: all that was held   │
 *       └──────────── white space and fills dropped ──┘
 *
 * A mark is text.  A token that has none and stands for a part of a call is
 * fed as what it is called, so there is one way for both; if no call comes of
 * it, it has no text again.  Where a family has no marks (Llama's JSON) a call
 * is an object that the answer begins with, with the name of a function that
 * the request declares and no other keys than a call's: other JSON is the
 * answer.
 *
 * Everything is done a byte at a time, so that it cannot matter how tokens cut
 * the text.  What may be a call is held here, TOOLS_HELD_MAX bytes at most;
 * what does not fit is text.  White space before a mark goes with it.
 *
 * A tools_t is one request's: text_in's thread opens it, text_out's alone
 * feeds it, and it is closed when both are done with the request.  No
 * allocation after opening.
 */
#include "tools_impl.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WHITE_MAX 16 /* white space that may wait for a mark */

#define DS_BAR    "\xef\xbd\x9c"
#define DS_DASH   "\xe2\x96\x81"
#define DS(words) "<" DS_BAR words DS_BAR ">"

static const tools_xml_t xml_coder = {
    "<function=", '>', "<parameter=", ">", "", "</parameter>", "</function>"};
static const tools_xml_t xml_glm = {"", '\n', "<arg_key>", "</arg_key>",
    "<arg_value>", "</arg_value>", "</tool_call>"};

/* In the order in which they are looked for: the particular ones first. */
static const tools_row_t rows[] = {
    {"deepseek", {"tool" DS_DASH "calls" DS_DASH "begin"}, TOOLS_NAMED,
        {DS("tool" DS_DASH "calls" DS_DASH "begin"),
            DS("tool" DS_DASH "call" DS_DASH "begin")},
        {DS("tool" DS_DASH "call" DS_DASH "end"),
            DS("tool" DS_DASH "calls" DS_DASH "end"), "```"},
        {DS("tool" DS_DASH "call" DS_DASH "begin"), DS("tool" DS_DASH "sep")},
        NULL, {NULL}},
    {"kimi", {"<|tool_call_argument_begin|>"}, TOOLS_NAMED,
        {"<|tool_calls_section_begin|>", "<|tool_call_begin|>"},
        {"<|tool_call_end|>", "<|tool_calls_section_end|>"},
        {"<|tool_call_begin|>", "<|tool_call_argument_begin|>"}, NULL, {NULL}},
    {"harmony", {"<|channel|>"}, TOOLS_NAMED,
        {"commentary to=functions.", "assistantcommentary to=functions.",
            "assistant to=functions.", "to=functions."},
        {NULL}, {NULL}, NULL,
        {"<|start|>", "<|channel|>", "<|constrain|>", "<|message|>",
            "<|end|>"}},
    {"qwen-coder", {"<function="}, TOOLS_XML | TOOLS_JSON,
        {"<tool_call>", "<function="}, {"</tool_call>"}, {NULL}, &xml_coder,
        {NULL}},
    {"glm", {"<arg_key>"}, TOOLS_XML | TOOLS_JSON, {"<tool_call>"},
        {"</tool_call>"}, {NULL}, &xml_glm, {NULL}},
    {"mistral", {"[TOOL_CALLS]"}, TOOLS_JSON | TOOLS_NAMED, {"[TOOL_CALLS]"},
        {NULL}, {"[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"}, NULL, {NULL}},
    {"granite", {"<|tool_call|>"}, TOOLS_JSON, {"<|tool_call|>", "<tool_call>"},
        {"</tool_call>", "<|/tool_call|>"}, {NULL}, NULL, {NULL}},
    {"phi-4", {"functools", "<|tool|>"}, TOOLS_JSON,
        {"functools", "<|tool_call|>"}, {"<|/tool_call|>"}, {NULL}, NULL,
        {NULL}},
    {"apriel", {"<tool_calls>"}, TOOLS_JSON, {"<tool_calls>"},
        {"</tool_calls>"}, {NULL}, NULL, {NULL}},
    {"nemotron", {"<TOOLCALL>"}, TOOLS_JSON, {"<TOOLCALL>"}, {"</TOOLCALL>"},
        {NULL}, NULL, {NULL}},
    {"hermes", {"<tool_call>"}, TOOLS_JSON, {"<tool_call>"}, {"</tool_call>"},
        {NULL}, NULL, {NULL}},
    {"llama", {"<|python_tag|>", "Environment: ipython"},
        TOOLS_JSON | TOOLS_BARE, {"<|python_tag|>"}, {";"}, {NULL}, NULL,
        {NULL}},
    {"json", {"tools"}, TOOLS_JSON | TOOLS_BARE, {NULL}, {NULL}, {NULL}, NULL,
        {NULL}},
};

#define ROWS (sizeof(rows) / sizeof(rows[0]))

/* --- families ----------------------------------------------------------- */

/* Those of a family's marks that are tokens without text. */
static void
family_marks(
    tools_family_t *f, const token_t *tok, const char *const marks[TOOLS_MARKS])
{
    uint32_t i, id, n;
    size_t len = 0;

    for (i = 0; i < TOOLS_MARKS && marks[i] != NULL; i++) {
        n = (uint32_t) strlen(marks[i]);
        id = token_find(tok, marks[i], n);
        if (id != TOKEN_NONE) {
            (void) token_bytes(tok, id, &len);
        }
        if (id != TOKEN_NONE && len == 0) {
            assert(f->all < sizeof(f->marks) / sizeof(f->marks[0]));
            assert(n + sizeof(GRAMMAR_TOKEN) <= TOOLS_MARK);
            memcpy(f->texts[f->all], GRAMMAR_TOKEN, 1);
            memcpy(f->texts[f->all] + 1, marks[i], n);
            f->marks[f->all].id = id;
            f->marks[f->all].s = f->texts[f->all];
            f->marks[f->all++].len = n + 1;
        }
    }
}


/* The row that a template speaks of; ROWS: none. */
static size_t
find_row(const char *source, size_t len)
{
    size_t i, k;

    for (i = 0; source != NULL && i < ROWS; i++) {
        for (k = 0; k < 2 && rows[i].signs[k] != NULL; k++) {
            if (memmem(source, len, rows[i].signs[k], strlen(rows[i].signs[k]))
                != NULL) {
                return i;
            }
        }
    }

    return ROWS;
}


int
tools_family_open(tools_family_t **out, const char *name, const char *source,
    size_t len, const token_t *tok, char *err, size_t errlen)
{
    tools_family_t *f;
    size_t i, n;

    assert(name != NULL && tok != NULL && errlen > 0);

    *out = NULL;
    if (strcmp(name, "off") == 0) {
        return 0;
    }

    for (i = 0; i < ROWS && strcmp(name, rows[i].name) != 0; i++) {
    }
    if (strcmp(name, "auto") == 0) {
        i = find_row(source, len);
        if (i == ROWS) {
            return 0;
        }
    }
    if (i == ROWS) {
        n = (size_t) snprintf(err, errlen, "tool_calls: expected auto, off");
        for (i = 0; i < ROWS && n < errlen; i++) {
            n += (size_t) snprintf(err + n, errlen - n, "%s%s",
                i + 1 < ROWS ? ", " : " or ", rows[i].name);
        }
        if (n < errlen) {
            snprintf(err + n, errlen - n, ", found \"%.64s\"", name);
        }
        return -1;
    }

    f = calloc(1, sizeof(*f));
    if (f == NULL) {
        snprintf(err, errlen, "out of memory");
        return -1;
    }
    f->row = &rows[i];
    family_marks(f, tok, rows[i].opens);
    family_marks(f, tok, rows[i].fills);
    family_marks(f, tok, rows[i].inner);
    f->calls = f->all;
    family_marks(f, tok, rows[i].heads);
    *out = f;

    return 0;
}


void
tools_family_close(tools_family_t *f)
{
    free(f);
}


const char *
tools_family_name(const tools_family_t *f)
{
    assert(f->row != NULL);
    return f->row->name;
}


int
tools_mark(const tools_family_t *f, uint32_t id, const char **s, size_t *n)
{
    uint32_t i;

    for (i = 0; i < f->calls; i++) {
        if (f->marks[i].id == id) {
            *s = f->marks[i].s + 1;
            *n = f->marks[i].len - 1;
            return 1;
        }
    }

    return 0;
}


uint32_t
tools_marks(const tools_family_t *f, const grammar_mark_t **marks)
{
    *marks = f == NULL ? NULL : f->marks;
    assert(f == NULL || f->calls <= f->all);

    return f == NULL ? 0 : f->all;
}


/* --- one request -------------------------------------------------------- */

tools_t *
tools_open(const tools_family_t *f, const char *json, size_t len,
    uint32_t choices, int one)
{
    tools_t *t;
    uint32_t i;

    assert(f != NULL && choices >= 1 && choices <= LLM_CHOICES_MAX);

    t = malloc(sizeof(*t) + choices * sizeof(t->states[0]));
    if (t == NULL || tools_schema_open(&t->schema, json, len) != 0) {
        free(t);
        return NULL;
    }

    t->family = f;
    t->choices = choices;
    t->one = one;
    for (i = 0; i < choices; i++) {
        memset(&t->states[i], 0, offsetof(tools_state_t, held));
    }

    return t;
}


void
tools_close(tools_t *t)
{
    if (t != NULL) {
        tools_schema_close(&t->schema);
        free(t);
    }
}


const tools_family_t *
tools_family(const tools_t *t)
{
    assert(t->family != NULL);
    return t->family;
}


/* --- what goes out ------------------------------------------------------ */

/* What is in out goes to the caller, unless it has refused before. */
static void
flush(tools_run_t *x)
{
    if (x->n > 0 && x->rc == 0) {
        x->rc = x->put(x->arg, x->kind, x->out, x->n);
    }
    x->n = 0;
}


void
tools_emit(tools_run_t *x, uint32_t kind, const char *p, size_t n)
{
    size_t part;

    assert(kind < LLM_TEXTS && x->n <= sizeof(x->out));

    for (; n > 0; p += part, n -= part) {
        if (kind != x->kind || x->n == sizeof(x->out)) {
            flush(x);
            x->kind = kind;
        }
        part = sizeof(x->out) - x->n;
        part = n < part ? n : part;
        memcpy(x->out + x->n, p, part);
        x->n += (uint32_t) part;
    }
}


int
tools_hold(tools_run_t *x, char c)
{
    if (x->s->n == TOOLS_HELD_MAX) {
        x->s->full = 1;
        return 0;
    }
    x->s->held[x->s->n++] = c;

    return 1;
}


/* Text of the answer: from here on it has begun. */
static void
answer(tools_run_t *x, const char *p, size_t n)
{
    if (n > 0) {
        x->s->begun = 1;
        x->s->after = 0;
        tools_emit(x, LLM_TEXT_ANSWER, p, n);
    }
}


/* The held bytes but for the last few, as text. */
static void
answer_held(tools_run_t *x, uint32_t but)
{
    tools_state_t *s = x->s;
    uint32_t from = 0;

    assert(but <= s->n);

    if (s->ghost && s->mark <= s->n - but) {
        from = s->mark;
        answer(x, s->held, s->mark - s->open);
    }
    answer(x, s->held + from, s->n - but - from);
    s->n = 0;
    s->ghost = 0;
}


static void text_byte(tools_run_t *x, char c);


void
tools_fail(tools_run_t *x, char c)
{
    tools_state_t *s = x->s;

    assert(s->state != TOOLS_TEXT && s->state != TOOLS_ENDED);

    s->calls += tools_json_over(s);
    s->state = TOOLS_TEXT;
    if (s->named) {
        s->n = 0;
    } else {
        answer_held(x, s->full ? 0 : 1);
    }
    s->named = s->full = s->list = s->bare = s->after = 0;
    s->begun = 1;
    text_byte(x, c);
}


void
tools_name(tools_run_t *x, const char *name, uint32_t len)
{
    tools_state_t *s = x->s;

    assert(!s->named && len > 0 && len <= TOOLS_NAME_MAX);

    tools_emit(x, LLM_TEXT_CALL, name, len);
    s->function = tools_schema_find(x->schema, name, len);
    s->named = 1;
}


void
tools_whole(tools_run_t *x)
{
    tools_state_t *s = x->s;

    assert(s->named && s->state != TOOLS_TEXT);
    s->calls++;
    s->state = TOOLS_TEXT;
    s->after = 1;
    s->named = s->ghost = 0;
    s->n = 0;
}


/* --- text --------------------------------------------------------------- */

enum { NO, PART, OPENS, FILLS };

/* Is n bytes at p one of the marks, then what, or the beginning of one? */
static int
matches(const char *const marks[TOOLS_MARKS], const char *p, size_t n,
    size_t *len, int what)
{
    int rc = NO;
    uint32_t i;

    for (i = 0; i < TOOLS_MARKS && marks[i] != NULL; i++) {
        *len = strlen(marks[i]);
        if (n >= *len && memcmp(p, marks[i], *len) == 0) {
            return what;
        }
        if (n < *len && memcmp(p, marks[i], n) == 0) {
            rc = PART;
        }
    }

    return rc;
}


/* What the held bytes are, from the first one on. */
static int
look(tools_run_t *x, size_t *len)
{
    const tools_state_t *s = x->s;
    uint32_t white = 0;
    int rc;

    assert(s->n > 0 && s->n <= TOOLS_HELD_MAX);
    while (white < s->n && tools_is_white(s->held[white])) {
        white++;
    }
    if (white == s->n) {
        return s->after || white <= WHITE_MAX ? PART : NO;
    }

    rc = matches(x->row->opens, s->held + white, s->n - white, len, OPENS);
    if (rc == NO && s->after) {
        rc = matches(x->row->fills, s->held + white, s->n - white, len, FILLS);
    }
    if (rc == NO && (x->row->form & TOOLS_BARE) && (s->after || !s->begun)
        && (s->held[white] == '{' || s->held[white] == '[')) {
        *len = 0;
        rc = OPENS;
    }

    return rc;
}


/* A mark is there, or what needs none. */
static void
body_begin(tools_run_t *x, size_t len)
{
    tools_state_t *s = x->s;
    char c;

    assert(s->n > 0 && len <= s->n);
    c = s->held[s->n - 1];
    s->state = TOOLS_BODY;
    s->mark = len > 0 ? s->n : s->n - 1;
    s->open = (uint32_t) len;
    s->bare = len == 0;
    s->list = s->calls_list = s->named = s->ghost = 0;
    if (s->bare) {
        tools_json_begin(x, c);
    } else if (x->row->xml != NULL && x->row->xml->open[0] != '\0'
               && len == strlen(x->row->xml->open) && c == '=') {
        tools_xml_begin(x, c);
    }
}


/* A byte outside of calls.  As long as the held ones may be a mark they stay;
 * else the first of them is text, and the others are looked at again. */
static void
text_byte(tools_run_t *x, char c)
{
    tools_state_t *s = x->s;
    size_t len = 0;
    int rc;

    assert(s->state == TOOLS_TEXT);
    if (s->after && s->n == TOOLS_HELD_MAX) {
        s->n = 0; /* white space without end */
    }
    (void) tools_hold(x, c);

    while (s->n > 0 && (rc = look(x, &len)) != PART) {
        if (rc == OPENS) {
            body_begin(x, len);
            return;
        }
        if (rc == FILLS) {
            s->n = 0;
            return;
        }
        answer(x, s->held, 1);
        memmove(s->held, s->held + 1, --s->n);
    }
}


/* The first byte behind a mark says how the call is written. */
static void
body_byte(tools_run_t *x, char c)
{
    tools_state_t *s = x->s;
    uint32_t form = x->row->form;

    if (!tools_hold(x, c)) {
        tools_fail(x, c);
    } else if (tools_is_white(c)) {
        return;
    } else if ((form & TOOLS_JSON) && (c == '{' || c == '[')) {
        tools_json_begin(x, c);
    } else if ((form & TOOLS_NAMED) && c != '{') {
        s->state = TOOLS_IN_NAMED;
    } else if (form & TOOLS_XML) {
        s->n--;
        tools_xml_begin(x, c);
    } else {
        tools_fail(x, c);
    }
}


/* A byte goes to the machine that the state is one of. */
static void
feed_byte(tools_run_t *x, char c)
{
    switch (x->s->state) {
    case TOOLS_TEXT:
        text_byte(x, c);
        break;
    case TOOLS_BODY:
        body_byte(x, c);
        break;
    case TOOLS_IN_JSON:
        tools_json_byte(x, c);
        break;
    case TOOLS_LIST:
        tools_list_byte(x, c);
        break;
    case TOOLS_IN_NAMED:
        tools_named_byte(x, c);
        break;
    case TOOLS_IN_XML:
        tools_xml_byte(x, c);
        break;
    default:
        assert(x->s->state == TOOLS_ENDED);
    }
}


static void
run_begin(
    tools_run_t *x, tools_t *t, uint32_t choice, tools_put_t put, void *arg)
{
    assert(choice < t->choices);

    x->row = t->family->row;
    x->schema = &t->schema;
    x->s = &t->states[choice];
    x->put = put;
    x->arg = arg;
    x->rc = 0;
    x->kind = LLM_TEXT_ANSWER;
    x->n = 0;
}


int
tools_feed(tools_t *t, uint32_t choice, const char *p, size_t n, int mark,
    tools_put_t put, void *arg)
{
    tools_run_t x;
    uint32_t calls;
    size_t i;

    run_begin(&x, t, choice, put, arg);
    for (i = 0; i < n; i++) {
        calls = x.s->calls;
        feed_byte(&x, p[i]);
        if (t->one && x.s->calls > calls) {
            x.s->state = TOOLS_ENDED;
        }
    }
    if (mark && x.s->state == TOOLS_BODY && x.s->n == x.s->mark) {
        x.s->ghost = 1;
    }
    flush(&x);

    return x.rc;
}


int
tools_end(tools_t *t, uint32_t choice, tools_put_t put, void *arg)
{
    tools_run_t x;
    tools_state_t *s;

    run_begin(&x, t, choice, put, arg);
    s = x.s;

    if (tools_json_over(s)) {
        tools_whole(&x);
    }
    /* behind a call white space and half a mark are its own */
    if (s->state != TOOLS_ENDED && !s->named
        && !(s->state == TOOLS_TEXT && s->after)) {
        answer_held(&x, 0);
    }
    s->n = 0;
    flush(&x);

    return x.rc;
}


int
tools_called(const tools_t *t, uint32_t choice)
{
    const tools_state_t *s;

    assert(choice < t->choices);
    s = &t->states[choice];

    return s->calls > 0 && !s->named;
}


int
tools_over(const tools_t *t, uint32_t choice)
{
    assert(choice < t->choices);
    return t->states[choice].state == TOOLS_ENDED;
}
