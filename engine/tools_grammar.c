/*
 * The grammar of the calls that a family's models write, for the functions
 * that a request declares: what it admits its parser (tools_feed) reads as
 * calls whose arguments obey the declared schemas.
 *
 * DESIGN.  A family's form is rows of a table: a mark that opens calls, and the
 * shape of what is behind it until they are closed.
 *
 *      required    white, then one of the rows; several where rows repeat
 *      automatic   free text (grammar_tags.c) whose triggers are the marks
 *
 * A mark that is a token without text is asked for as that token.  Written out
 * it opens a call too, as the parser has it, but only in free text.
 *
 *      rule of a call: {"name": " -+- f", "arguments": schema of f -+- }
 *                                  +- g", "arguments": schema of g -+
 *
 * Where parameters are elements (tools_xml.c) the properties come in their
 * order, as elements: of strings the bare text, of all else the JSON, by the
 * types that the parser knows (tools_schema.c), so that both read a value in
 * one way.  The mark that ends a value cannot be in one, nor in a string
 * within one (grammar_build_t, only).
 *
 * Where calls have no mark (Llama's JSON) free text must not begin as a call
 * does: a text that has reached a function's name goes on as a call or not at
 * all.
 *
 * A function with "strict" is held to its whole schema, or the request is in
 * error.  Of others what cannot be enforced is not, and if nothing can be, the
 * arguments are any object: which they are is found out when the whole fails,
 * by compiling each alone.
 *
 * White space is bounded, as the parser holds what it has not told apart yet.
 * All is the build's but the request's JSON.  One thread.
 */
#include "clock.h"
#include "tools_grammar.h"

#include <assert.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WHITE     8    /* bytes between tokens of a call's own JSON */
#define LEAD      2    /* before the first call */
#define CHARS_MAX 1024 /* characters of a bare string that are counted */
#define FUNCS_MAX 2048
#define TIME_US   1000000
#define DS_BAR    "\xef\xbd\x9c"
#define DS_DASH   "\xe2\x96\x81"
#define DS(a, b)  "<" DS_BAR "tool" DS_DASH a b DS_BAR ">"
#define DS_SEP    "<" DS_BAR "tool" DS_DASH "sep" DS_BAR ">"

/* What is behind a mark. */
enum {
    CALL, /* an object */
    LIST, /* of them */
    EITHER,
    BRACKET, /* a list whose bracket is the mark's */
    SERIES,  /* objects with ";" between them */
    MISTRAL,
    SECTION, /* DeepSeek's calls, and one of them */
    SECTION_1,
    KIMI,
    KIMI_1,
    HARMONY,
    ELEMENTS, /* of a call's mark, and of its inner one */
    ELEMENTS_1
};

typedef struct {
    const char *family;
    const char *open; /* NULL: none, the text begins with it */
    int shape;
    const char *close; /* NULL: none */
    int inner;         /* opens calls only where text is free */
    int more;          /* another may follow */
} form_t;

static const form_t forms[] = {
    {"hermes", "<tool_call>", CALL, "</tool_call>", 0, 1},
    {"granite", "<|tool_call|>", LIST, NULL, 0, 0},
    {"granite", "<tool_call>", EITHER, "</tool_call>", 0, 0},
    {"phi-4", "functools[", BRACKET, NULL, 0, 0},
    {"phi-4", "functools [", BRACKET, NULL, 1, 0},
    {"phi-4", "<|tool_call|>", LIST, "<|/tool_call|>", 0, 0},
    {"apriel", "<tool_calls>", LIST, "</tool_calls>", 0, 0},
    {"nemotron", "<TOOLCALL>", LIST, "</TOOLCALL>", 0, 0},
    {"llama", "<|python_tag|>", SERIES, NULL, 0, 0},
    {"llama", NULL, SERIES, NULL, 0, 0},
    {"json", NULL, EITHER, NULL, 0, 0},
    {"mistral", "[TOOL_CALLS]", MISTRAL, NULL, 0, 1},
    {"deepseek", DS("calls" DS_DASH, "begin"), SECTION,
        DS("calls" DS_DASH, "end"), 0, 0},
    {"deepseek", DS("call" DS_DASH, "begin"), SECTION_1, NULL, 1, 0},
    {"kimi", "<|tool_calls_section_begin|>", KIMI, "<|tool_calls_section_end|>",
        0, 0},
    {"kimi", "<|tool_call_begin|>", KIMI_1, NULL, 1, 0},
    {"harmony", "to=functions.", HARMONY, NULL, 1, 0},
    {"qwen-coder", "<tool_call>", ELEMENTS, "</tool_call>", 0, 1},
    {"qwen-coder", "<function=", ELEMENTS_1, "</tool_call>", 0, 1},
    {"glm", "<tool_call>", ELEMENTS, "</tool_call>", 0, 1},
};

#define FORMS (sizeof(forms) / sizeof(forms[0]))

/* --- nodes -------------------------------------------------------------- */

/* Is s a token without text? */
static const grammar_mark_t *
token_of(const tools_make_t *x, const char *s)
{
    uint32_t i;

    assert(x->f->calls <= x->f->all);
    for (i = 0; i < x->f->all; i++) {
        if (strcmp(x->f->marks[i].s + 1, s) == 0) {
            return &x->f->marks[i];
        }
    }

    return NULL;
}


/* As a model writes it. */
uint32_t
tools_make_mark(tools_make_t *x, const char *s)
{
    const grammar_mark_t *m = token_of(x, s);

    assert(m == NULL || (m->len > 1 && m->s[0] == GRAMMAR_TOKEN[0]));
    return m != NULL ? grammar_bytes(x->b, m->s, m->len) : tools_text(x, s);
}


/* White space of bytes lo to hi and blank, at most so many. */
static uint32_t
white(tools_make_t *x, uint32_t most)
{
    uint32_t node = grammar_alt2(x->b, grammar_byte(x->b, '\t', '\n'),
        grammar_alt2(x->b, tools_text(x, " "), tools_text(x, "\r")));

    return grammar_rep(x->b, node, 0, most);
}


/* "," or ":" with what may stand around it. */
static uint32_t
between(tools_make_t *x, const char *s)
{
    return SEQ(x->b, x->white, tools_text(x, s), x->white);
}


/* --- arguments that are JSON -------------------------------------------- */

/* A schema's rule; object: of the arguments. */
static uint32_t
schema_rule(tools_make_t *x, const tools_callee_t *f)
{
    uint32_t lenient = x->b->o.lenient, rule = 0;
    schema_t c;

    assert(f->params != NULL && !f->loose);
    x->b->o.lenient = !f->strict;
    if (grammar_schema_begin(&c, x->b, json_incref(f->params)) == 0) {
        rule = grammar_schema_make(&c, f->params, 1);
    }
    grammar_schema_end(&c);
    x->b->o.lenient = lenient;
    if (x->b->failed) {
        grammar_fail_at(x->b, "tools/%zu/function/parameters", f->at);
    }

    return rule;
}


static uint32_t
arguments_new(tools_make_t *x, const tools_callee_t *f)
{
    grammar_build_t *b = x->b;

    assert(!f->strict || !f->loose);
    if (f->strict && f->params == NULL) {
        return SEQ(b, tools_text(x, "{"), x->white, tools_text(x, "}"));
    }

    return grammar_ref_node(b, f->params == NULL || f->loose
                                   ? grammar_json_object(b)
                                   : schema_rule(x, f));
}


/* The arguments' object, made once for all ways to write the call. */
static uint32_t
arguments(tools_make_t *x, uint32_t i)
{
    assert(i < x->n);
    if (x->b->failed) {
        return 0;
    }
    if (x->args[i] == 0) {
        x->args[i] = arguments_new(x, &x->functions[i]);
    }

    return x->args[i];
}


uint32_t
tools_make_name(tools_make_t *x, const tools_callee_t *f, uint32_t behind)
{
    uint32_t rule = grammar_rule(x->b, NULL);

    assert(f->len > 0 && f->len <= TOOLS_NAME_MAX);
    if (x->b->failed) {
        return 0;
    }
    x->b->rules[rule].node = behind;

    return SEQ(x->b, grammar_bytes(x->b, f->name, f->len),
        grammar_ref_node(x->b, rule));
}


/* Each function's name, what is behind it, and its arguments.  bare: nothing
 * before the name says that it is one. */
static uint32_t
named(tools_make_t *x, const char *middle, uint32_t node, int bare)
{
    grammar_list_t l = {NULL, 0, 0};
    const tools_callee_t *f;
    uint32_t i;

    assert(x->n > 0 && (middle != NULL || node != 0 || x->b->failed));
    node = middle != NULL ? tools_text(x, middle) : node;
    for (i = 0; i < x->n && !grammar_tick(x->b); i++) {
        f = &x->functions[i];
        if (!bare || f->len != 8 || memcmp(f->name, "function", 8) != 0) {
            (void) grammar_list_put(x->b, &l,
                tools_make_name(
                    x, f, grammar_seq2(x->b, node, arguments(x, i))));
        }
    }

    return grammar_list_alt(x->b, &l);
}


/* The key's name in quotes, and what is behind the value; 0: nothing else. */
static uint32_t
field(tools_make_t *x, const char *key, uint32_t value)
{
    return SEQ(x->b, tools_text(x, "\""), tools_text(x, key),
        tools_text(x, "\""), between(x, ":"), value);
}


/* A number of letters and digits. */
static uint32_t
id_of(tools_make_t *x, uint32_t n)
{
    grammar_build_t *b = x->b;

    return grammar_rep(b,
        ALT(b, grammar_byte(b, '0', '9'), grammar_byte(b, 'a', 'z'),
            grammar_byte(b, 'A', 'Z')),
        n, n);
}


static int
is_family(const tools_make_t *x, const char *name)
{
    return strcmp(x->row->name, name) == 0;
}


/* The beginning of a call's object, up to the name. */
static uint32_t
call_head(tools_make_t *x)
{
    uint32_t type = grammar_empty(x->b);

    assert(x->row->form & TOOLS_JSON);
    if (x->row->form & TOOLS_BARE) {
        type = tools_maybe(
            x, SEQ(x->b, field(x, "type", tools_text(x, "\"function\"")),
                   between(x, ",")));
    }

    return SEQ(x->b, tools_text(x, "{"), x->white, type,
        field(x, "name", tools_text(x, "\"")));
}


/* {"name": .., "arguments": ..} */
static uint32_t
call_object(tools_make_t *x)
{
    grammar_build_t *b = x->b;
    uint32_t key, id = grammar_empty(b);

    key = is_family(x, "llama") ? tools_text(x, "parameters")
                                : tools_text(x, "arguments");
    if (is_family(x, "json")) {
        key = grammar_alt2(b, key, tools_text(x, "parameters"));
    }
    key = SEQ(b, tools_text(x, "\""), between(x, ","), tools_text(x, "\""), key,
        tools_text(x, "\""), between(x, ":"));
    if (is_family(x, "mistral")) {
        id = SEQ(b, tools_text(x, "\""), id_of(x, 9), tools_text(x, "\""));
    } else if (is_family(x, "apriel")) {
        id = grammar_alt2(b, grammar_ref_node(b, grammar_json_string(b)),
            grammar_rep(b, grammar_byte(b, '0', '9'), 1, 9));
    }
    if (is_family(x, "mistral") || is_family(x, "apriel")) {
        id = tools_maybe(x, SEQ(b, between(x, ","), field(x, "id", id)));
    }

    return SEQ(b, call_head(x), named(x, NULL, key, 0), id, x->white,
        tools_text(x, "}"));
}


/* --- what is behind a mark ---------------------------------------------- */

/* A call's rule, made once. */
static uint32_t
call(tools_make_t *x)
{
    uint32_t node;

    if (x->call == GRAMMAR_MANY) {
        x->call = grammar_rule(x->b, NULL);
        node = x->row->xml != NULL ? tools_make_xml(x) : call_object(x);
        if (!x->b->failed) {
            x->b->rules[x->call].node = node;
        }
    }

    return x->b->failed ? 0 : grammar_ref_node(x->b, x->call);
}


static int
is_one(const tools_make_t *x)
{
    return (x->flags & TOOLS_GRAMMAR_ONE) != 0;
}


/* node, then more of it with between before each, unless one is all. */
static uint32_t
several(tools_make_t *x, uint32_t node, uint32_t between)
{
    if (is_one(x)) {
        return node;
    }

    return SEQ(x->b, node,
        grammar_rep(x->b, grammar_seq2(x->b, between, node), 0, GRAMMAR_MANY));
}


/* A list behind its bracket. */
static uint32_t
list_rest(tools_make_t *x)
{
    return SEQ(x->b, x->white, several(x, call(x), between(x, ",")), x->white,
        tools_text(x, "]"));
}


static uint32_t
list(tools_make_t *x)
{
    return SEQ(x->b, tools_text(x, "["), list_rest(x));
}


/* Mistral's: a list, or where its tokens are known, and before them where no
 * token is, a name. */
static uint32_t
mistral(tools_make_t *x)
{
    grammar_build_t *b = x->b;
    uint32_t middle, node = 0;

    assert(x->call == GRAMMAR_MANY);
    if (token_of(x, "[ARGS]") == NULL) {
        node = SEQ(b, x->white, list(x));
    }
    if (token_of(x, "[ARGS]") != NULL || token_of(x, "[TOOL_CALLS]") == NULL) {
        middle = SEQ(b,
            tools_maybe(
                x, SEQ(b, tools_make_mark(x, "[CALL_ID]"), id_of(x, 9))),
            tools_make_mark(x, "[ARGS]"));
        node = grammar_alt2(b, node, named(x, NULL, middle, 1));
    }

    return node;
}


/* DeepSeek's, behind the mark of one: of its third version, and of 3.1. */
static uint32_t
deepseek(tools_make_t *x)
{
    grammar_build_t *b = x->b;
    uint32_t sep = tools_make_mark(x, DS_SEP);

    if (x->call == GRAMMAR_MANY) {
        x->call = grammar_rule(b, NULL);
        sep = ALT(b,
            SEQ(b, tools_text(x, "function"), sep,
                named(x, "\n```json\n", 0, 0), tools_text(x, "\n```")),
            named(x, NULL, sep, 1));
        sep = SEQ(b, sep, tools_make_mark(x, DS("call" DS_DASH, "end")));
        if (!b->failed) {
            b->rules[x->call].node = sep;
        }
    }

    return b->failed ? 0 : grammar_ref_node(b, x->call);
}


/* Kimi's, behind the mark of one: a number counts the calls. */
static uint32_t
kimi(tools_make_t *x)
{
    grammar_build_t *b = x->b;
    uint32_t middle;

    if (x->call == GRAMMAR_MANY) {
        x->call = grammar_rule(b, NULL);
        middle = SEQ(b, tools_text(x, ":"),
            grammar_rep(b, grammar_byte(b, '0', '9'), 1, 4),
            tools_make_mark(x, "<|tool_call_argument_begin|>"));
        middle = SEQ(b, tools_text(x, "functions."), named(x, NULL, middle, 0),
            tools_make_mark(x, "<|tool_call_end|>"));
        if (!b->failed) {
            b->rules[x->call].node = middle;
        }
    }

    return b->failed ? 0 : grammar_ref_node(b, x->call);
}


/* Is there a function whose name is f's and then word? */
static int
is_prefix(const tools_make_t *x, const tools_callee_t *f, const char *word)
{
    uint32_t i, n = (uint32_t) strlen(word);

    assert(n > 0 && f->len > 0);
    for (i = 0; i < x->n; i++) {
        if (x->functions[i].len == f->len + n
            && memcmp(x->functions[i].name, f->name, f->len) == 0
            && memcmp(x->functions[i].name + f->len, word, n) == 0) {
            return 1;
        }
    }

    return 0;
}


/* Are the tokens of headers known? */
static int
has_heads(const tools_make_t *x)
{
    return token_of(x, "<|message|>") != NULL
           && token_of(x, "<|channel|>") != NULL
           && token_of(x, "<|start|>") != NULL;
}


/*
 * GPT-OSS's, behind "to=functions.": the recipient is in the channel, or in the
 * role, and then the channel follows, whose name ends the function's.
 *
 *      f <|constrain|>json<|message|>{..}   f<|channel|>commentary json<..
 */
static uint32_t
harmony(tools_make_t *x)
{
    grammar_build_t *b = x->b;
    grammar_list_t l = {NULL, 0, 0};
    const int tokens = has_heads(x);
    uint32_t json, message, role, i;
    const tools_callee_t *f;

    assert(is_family(x, "harmony"));

    json = tools_text(x, "json");
    if (tokens && token_of(x, "<|constrain|>") != NULL) {
        json = grammar_seq2(
            b, tools_maybe(x, tools_make_mark(x, "<|constrain|>")), json);
    }
    json = tools_maybe(
        x, grammar_seq2(b, tools_text(x, " "), tools_maybe(x, json)));
    message = tokens ? tools_make_mark(x, "<|message|>") : grammar_empty(b);
    role = tokens ? tools_make_mark(x, "<|channel|>") : grammar_empty(b);
    role = SEQ(b, role, tools_text(x, "commentary"));
    for (i = 0; i < x->n && !grammar_tick(b); i++) {
        f = &x->functions[i];
        (void) grammar_list_put(b, &l,
            tools_make_name(x, f,
                SEQ(b,
                    is_prefix(x, f, "commentary") ? grammar_empty(b)
                                                  : tools_maybe(x, role),
                    json, message, arguments(x, i))));
    }

    return grammar_list_alt(b, &l);
}


/* The calls that a mark opens, to their end. */
static uint32_t
behind(tools_make_t *x, const form_t *f)
{
    grammar_build_t *b = x->b;
    uint32_t node, close;

    assert(is_family(x, f->family));
    close = f->close == NULL ? grammar_empty(b) : tools_make_mark(x, f->close);
    switch (f->shape) {
    case CALL:
        return SEQ(b, x->white, call(x), x->white, close);
    case LIST:
        return SEQ(b, x->white, list(x), x->white, close);
    case EITHER:
        return SEQ(b, x->white, grammar_alt2(b, call(x), list(x)),
            f->close == NULL ? close : SEQ(b, x->white, close));
    case BRACKET:
        return list_rest(x);
    case SERIES:
        return SEQ(b, x->white, several(x, call(x), between(x, ";")));
    case MISTRAL:
        return mistral(x);
    case SECTION:
        node = tools_make_mark(x, DS("call" DS_DASH, "begin"));
        return SEQ(b,
            several(x, SEQ(b, node, deepseek(x)),
                tools_maybe(x, tools_text(x, "\n"))),
            tools_maybe(x, tools_text(x, "\n")), close);
    case SECTION_1:
        return deepseek(x);
    case KIMI:
        node = tools_make_mark(x, "<|tool_call_begin|>");
        return SEQ(
            b, several(x, SEQ(b, node, kimi(x)), grammar_empty(b)), close);
    case KIMI_1:
        return kimi(x);
    case HARMONY:
        return harmony(x);
    case ELEMENTS:
        return x->row->xml->open[0] != '\0' ? SEQ(b, x->breaks,
                   tools_text(x, x->row->xml->open), call(x), x->breaks, close)
                                            : SEQ(b, x->breaks, call(x));
    default:
        assert(f->shape == ELEMENTS_1);
        return SEQ(b, call(x), tools_maybe(x, SEQ(b, x->breaks, close)));
    }
}


/* --- the whole ---------------------------------------------------------- */

/* The header of a message that is a call: with its tokens, from where a prompt
 * leaves off, or behind thought, which is not the grammar's; as text if there
 * are no such tokens. */
static uint32_t
harmony_required(tools_make_t *x)
{
    grammar_build_t *b = x->b;
    uint32_t again, thought, head;

    assert(is_family(x, "harmony"));
    if (!has_heads(x)) {
        head = tools_maybe(
            x, ALT(b, tools_text(x, "commentary "), tools_text(x, "assistant "),
                   tools_text(x, "assistantcommentary ")));
        return SEQ(b, head, tools_text(x, "to=functions."), harmony(x));
    }

    again = SEQ(b, tools_maybe(x, tools_make_mark(x, "<|end|>")),
        tools_make_mark(x, "<|start|>"), tools_text(x, "assistant"));
    thought = SEQ(b, tools_make_mark(x, "<|channel|>"),
        tools_text(x, "analysis"), tools_make_mark(x, "<|message|>"), again);
    head = grammar_alt2(b,
        SEQ(b, tools_make_mark(x, "<|channel|>"), tools_text(x, "commentary ")),
        tools_text(x, " "));

    return SEQ(b, tools_maybe(x, again),
        grammar_rep(b, thought, 0, GRAMMAR_MANY), head,
        tools_text(x, "to=functions."), harmony(x));
}


/* Calls and nothing else. */
static uint32_t
required(tools_make_t *x)
{
    grammar_list_t l = {NULL, 0, 0};
    uint32_t node, more = 0;
    size_t i;

    if (is_family(x, "harmony")) {
        return harmony_required(x);
    }
    for (i = 0; i < FORMS; i++) {
        if (is_family(x, forms[i].family) && !forms[i].inner) {
            node = behind(x, &forms[i]);
            if (forms[i].open != NULL) {
                node = SEQ(x->b, tools_make_mark(x, forms[i].open), node);
            }
            (void) grammar_list_put(x->b, &l, node);
            more |= (uint32_t) forms[i].more;
        }
    }
    node = grammar_list_alt(x->b, &l);
    if (more) {
        node = several(x, node, x->breaks);
    }

    return SEQ(x->b, white(x, LEAD), node);
}


/* What a text without a mark must not begin with, or it is a call: that, up to
 * the quote behind a name. */
static grammar_dfa_t *
front(tools_make_t *x)
{
    grammar_build_t *b = x->b;
    grammar_list_t l = {NULL, 0, 0};
    uint32_t i, node, was = x->white;

    assert((x->row->form & TOOLS_BARE) && x->n > 0);
    x->white = white(x, GRAMMAR_MANY);
    for (i = 0; i < x->n; i++) {
        (void) grammar_list_put(
            b, &l, grammar_bytes(b, x->functions[i].name, x->functions[i].len));
    }
    node =
        SEQ(b, x->white, tools_maybe(x, SEQ(b, tools_text(x, "["), x->white)),
            call_head(x), grammar_list_alt(b, &l), tools_text(x, "\""));
    x->white = was;

    return b->failed ? NULL : grammar_dfa(b, &node, 1, NULL, NULL);
}


/* Free text until a mark opens calls. */
static uint32_t
automatic(tools_make_t *x)
{
    grammar_str_t triggers[2 * FORMS], passes[TOOLS_MARKS];
    grammar_tag_t tags[2 * FORMS];
    grammar_tags_t t = {.tags = tags,
        .triggers = triggers,
        .passes = passes,
        .free = 1,
        .one = is_one(x)};
    const grammar_mark_t *m;
    uint32_t node, bare = 0, i;

    for (i = 0; i < FORMS && !grammar_tick(x->b); i++) {
        if (!is_family(x, forms[i].family)) {
            continue;
        }
        node = behind(x, &forms[i]);
        if (forms[i].open == NULL) {
            bare = SEQ(x->b, white(x, LEAD), node);
            t.front = front(x);
            /* behind a call another needs no mark */
            t.one = 1;
            continue;
        }
        triggers[t.tags_n].s = forms[i].open;
        triggers[t.tags_n].len = (uint32_t) strlen(forms[i].open);
        tags[t.tags_n++].node = node;
        m = token_of(x, forms[i].open);
        if (m != NULL) {
            triggers[t.tags_n].s = m->s;
            triggers[t.tags_n].len = (uint32_t) m->len;
            tags[t.tags_n++].node = node;
        }
    }
    for (i = 0; i < t.tags_n; i++) {
        tags[i].begin = triggers[i];
    }
    t.triggers_n = t.tags_n;
    assert(t.triggers_n <= 2 * FORMS);
    assert(x->f->all - x->f->calls <= TOOLS_MARKS);
    for (i = x->f->calls; i < x->f->all; i++) {
        passes[t.passes_n].s = x->f->marks[i].s;
        passes[t.passes_n++].len = (uint32_t) x->f->marks[i].len;
    }
    node = x->b->failed ? 0 : grammar_tags(x->b, &t);

    return bare == 0 ? node : grammar_alt2(x->b, bare, node);
}


/* A compilation begins: what all of it shares. */
static void
make_open(tools_make_t *x, grammar_build_t *b)
{
    assert(x->row != NULL && x->functions != NULL);

    x->b = b;
    (void) grammar_hold(b, x->held);
    x->call = GRAMMAR_MANY;
    x->args = grammar_get(b, (x->n + 1) * sizeof(*x->args));
    x->white =
        b->o.compact ? tools_maybe(x, tools_text(x, " ")) : white(x, WHITE);
    x->breaks = grammar_rep(b, tools_text(x, "\n"), 0, 2);
    if (x->row->xml != NULL) {
        tools_make_texts(x);
    }
}


/* One try. */
static grammar_t *
make(tools_make_t *x, const grammar_opts_t *o, char *err, size_t errlen)
{
    grammar_build_t b;
    uint32_t node, root;

    grammar_build_open(&b, o, err, errlen);
    make_open(x, &b);
    node = b.failed                        ? 0
           : x->flags & TOOLS_GRAMMAR_AUTO ? automatic(x)
                                           : required(x);
    root = grammar_rule(&b, NULL);
    if (!b.failed) {
        b.rules[root].node = node;
    }

    return grammar_link(&b, root);
}


/* Can a function's arguments be compiled, by themselves? */
static int
compiles(tools_make_t *x, const tools_callee_t *f, const grammar_opts_t *o)
{
    grammar_build_t b;
    uint32_t node, root;
    char err[256];
    grammar_t *g;

    assert(!f->strict && o->until_us != 0);
    grammar_build_open(&b, o, err, sizeof(err));
    make_open(x, &b);
    root = grammar_rule(&b, NULL);
    node = b.failed              ? 0
           : x->row->xml != NULL ? tools_make_elements(x, f)
                                 : arguments_new(x, f);
    if (!b.failed) {
        b.rules[root].node = node;
    }
    g = grammar_link(&b, root);
    grammar_close(g);

    return g != NULL;
}


/* --- what a request declares -------------------------------------------- */

/* Types by the names that other languages have for them (tools_schema.c). */
static void
types_named(json_t *s, int depth)
{
    static const char *const names[][2] = {{"str", "string"},
        {"int", "integer"}, {"float", "number"}, {"bool", "boolean"},
        {"dict", "object"}, {"list", "array"}, {"tuple", "array"}};
    static const char *const data[] = {"enum", "const", "default", "examples"};
    const char *key;
    json_t *v;
    size_t i;

    assert(depth >= 0);
    if (depth == GRAMMAR_DEPTH_MAX) {
        return;
    }
    json_object_foreach(s, key, v)
    {
        for (i = 0;
             i < sizeof(data) / sizeof(data[0]) && strcmp(key, data[i]) != 0;
             i++) {
        }
        if (i == sizeof(data) / sizeof(data[0])) {
            types_named(v, depth + 1);
        }
        for (i = 0; strcmp(key, "type") == 0 && json_is_string(v)
                    && i < sizeof(names) / sizeof(names[0]);
             i++) {
            if (strcmp(json_string_value(v), names[i][0]) == 0) {
                (void) json_string_set(v, names[i][1]);
            }
        }
    }
    json_array_foreach(s, i, v) { types_named(v, depth + 1); }
    v = json_object_get(s, "type");
    if (json_is_string(v) && strcmp(json_string_value(v), "any") == 0) {
        (void) json_object_del(s, "type");
    }
}


/* Has the parser a way to read that name? */
static int
is_name(const tools_row_t *row, const char *s, size_t len)
{
    static const char space[] = "functions.";
    size_t i;

    for (i = 0; i < len && tools_is_name(s[i]); i++) {
    }

    return i == len && len > 0 && len <= TOOLS_NAME_MAX
           && (!(row->form & TOOLS_NAMED) || strcmp(row->name, "kimi") == 0
               || len < sizeof(space) - 1
               || memcmp(s, space, sizeof(space) - 1) != 0);
}


/* The functions that may be called, those of that name if there is one.  Of
 * two with one name the first counts, as it does for the parser.  How many;
 * 0 with one sentence. */
static uint32_t
functions_of(const tools_row_t *row, json_t *tools, tools_callee_t *f,
    const char *name, size_t len, char *err, size_t errlen)
{
    json_t *decl, *s;
    uint32_t n = 0, k;
    size_t i, size;

    for (i = 0; i < json_array_size(tools) && n < FUNCS_MAX; i++) {
        decl = json_object_get(json_array_get(tools, i), "function");
        s = json_object_get(decl, "name");
        size = json_string_length(s);
        if (!json_is_string(s) || !is_name(row, json_string_value(s), size)
            || (len > 0
                && (size != len
                    || memcmp(json_string_value(s), name, len) != 0))) {
            continue;
        }
        for (k = 0; k < n
                    && (f[k].len != size
                        || memcmp(f[k].name, json_string_value(s), size) != 0);
             k++) {
        }
        if (k < n) {
            continue;
        }
        memset(&f[n], 0, sizeof(*f));
        f[n].at = i;
        f[n].name = json_string_value(s);
        f[n].len = (uint32_t) size;
        f[n].strict = json_is_true(json_object_get(decl, "strict"));
        f[n].params = json_object_get(decl, "parameters");
        f[n].params = json_is_null(f[n].params) ? NULL : f[n].params;
        if (f[n].params != NULL && !f[n].strict) {
            types_named(f[n].params, 0);
        }
        n++;
    }
    if (n == 0 && len > 0) {
        (void) snprintf(err, errlen,
            "tools: no function is called \"%.*s\", or the model's form has "
            "no way to write that name",
            (int) (len < 64 ? len : 64), name);
    } else if (n == 0) {
        (void) snprintf(err, errlen, "tools: there is no function to call");
    }

    return n;
}


/* Tries, and where it fails without those schemas that cannot be compiled and
 * need not be. */
static grammar_t *
make_or_loosen(tools_make_t *x, tools_callee_t *f, const grammar_opts_t *o,
    char *err, size_t errlen)
{
    grammar_t *g = make(x, o, err, errlen);
    uint32_t i, loose = 0;

    assert(o->until_us != 0);
    if (g != NULL) {
        return g;
    }
    for (i = 0; i < x->n && clock_us() < o->until_us; i++) {
        if (!f[i].strict && f[i].params != NULL && !compiles(x, &f[i], o)) {
            f[i].loose = 1;
            loose++;
        }
    }

    return loose == 0 || clock_us() >= o->until_us ? NULL
                                                   : make(x, o, err, errlen);
}


grammar_t *
tools_grammar(const tools_family_t *f, const char *tools, size_t len,
    const char *name, size_t name_len, uint32_t flags, const grammar_opts_t *o,
    char *err, size_t errlen)
{
    tools_make_t x = {.f = f, .row = f->row, .flags = flags};
    tools_schema_t types = {0};
    grammar_opts_t opts = {0};
    tools_callee_t *functions = NULL;
    grammar_t *g = NULL;
    grammar_build_t b;
    json_t *json;

    assert(errlen > 0 && (flags & ~(uint32_t) TOOLS_GRAMMAR_FLAGS) == 0);
    if (o != NULL) {
        opts = *o;
    }
    if (opts.until_us == 0) {
        opts.until_us = clock_us() + TIME_US;
    }

    grammar_build_open(&b, &opts, err, errlen);
    json = grammar_document(&b, "tools", tools, len, &x.held);
    if (!json_is_array(json)) {
        grammar_fail(&b, "tools: expected an array");
        goto done;
    }
    functions = calloc(FUNCS_MAX, sizeof(*functions));
    if (functions == NULL || tools_schema_open(&types, tools, len) != 0) {
        (void) snprintf(err, errlen, "out of memory");
        goto done;
    }
    x.n = functions_of(f->row, json, functions, name, name_len, err, errlen);
    x.functions = functions;
    x.types = &types;
    if (x.n > 0) {
        g = make_or_loosen(&x, functions, &opts, err, errlen);
    }

done:
    tools_schema_close(&types);
    free(functions);
    json_decref(json);
    grammar_drop(&b, x.held);
    grammar_build_close(&b);

    return g;
}
