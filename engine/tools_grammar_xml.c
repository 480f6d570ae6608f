/*
 * The grammar of calls whose parameters are elements (tools_xml.c).
 *
 *      <parameter=city>\n  bare text, or JSON  \n</parameter>
 *
 * DESIGN.  The properties come in their order, those that are required always.
 * A value is taken apart by its schema's alternatives (grammar_schema_flat.c):
 *
 *      a string      the bare text, an automaton of all that is asked of it
 *      else          JSON of the schema
 *
 * of which those are left that the parser reads as what they are, by the types
 * that it knows: where a value may be a string or a number, text that looks
 * like a number is one.  The mark that ends a value is in none: bare text has
 * an automaton without it, and so have the strings within JSON (only, of
 * grammar_build_t).  A newline at either end is the mark's own, so a text that
 * is held to anything has none there.
 *
 * What is asked of the object as a whole and elements cannot say is refused.
 *
 * All is the build's.  One thread.
 */
#include "tools_grammar.h"

#include <assert.h>
#include <jansson.h>
#include <string.h>

#define CHARS_MAX   1024 /* characters that an automaton counts */
#define CHARS_SHORT 32   /* without patterns the matcher counts more */


/* Texts of characters, so many; NUL is none that JSON's readers like. */
static grammar_dfa_t *
chars(grammar_build_t *b, uint32_t min, uint32_t max)
{
    grammar_set_t s = {NULL, 0, 0};
    uint32_t node;

    assert(min <= max);
    if (grammar_set_add(&s, 1, GRAMMAR_CODE_MAX) != 0) {
        grammar_fail(b, "the grammar needs too much memory");
    }
    node = grammar_copies(b, grammar_set_node(b, &s, 0), min, max);

    return b->failed ? NULL : grammar_dfa(b, &node, 1, NULL, NULL);
}


/* Texts that the parser takes for something else than a string, where types
 * allow that (tools_xml.c, scalar); NULL: none, or failed. */
static grammar_dfa_t *
no_strings(tools_make_t *x, uint32_t types)
{
#define W "[ \\t\\r\\n]*"
    static const struct {
        uint32_t types;
        const char *re;
    } rows[] = {
        {TOOLS_NUMBER,
            W "-?(?:0|[1-9][0-9]*)(?:\\.[0-9]+)?(?:[eE][-+]?[0-9]+)?" W},
        {TOOLS_BOOLEAN, W "(?:[tT][rR][uU][eE]|[fF][aA][lL][sS][eE])" W},
        {TOOLS_NULL | TOOLS_NUMBER | TOOLS_BOOLEAN | TOOLS_OBJECT | TOOLS_ARRAY,
            W "[nN][uU][lL][lL]" W},
        {TOOLS_NULL, W "[nN][oO][nN][eE]" W},
        {TOOLS_OBJECT, W "\\{[\\s\\S]*"},
        {TOOLS_ARRAY, W "\\[[\\s\\S]*"},
    };
#undef W
    grammar_list_t l = {NULL, 0, 0};
    grammar_dfa_t *d;
    uint32_t i, node;

    assert(!(types & TOOLS_STRING));
    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (types & rows[i].types) {
            d = grammar_regex(
                x->b, rows[i].re, strlen(rows[i].re), REGEX_ECMA, "a value");
            (void) grammar_list_put(x->b, &l, grammar_dfa_node(x->b, d));
        }
    }
    if (l.n == 0) {
        return NULL;
    }
    node = grammar_list_alt(x->b, &l);

    return x->b->failed ? NULL : grammar_dfa(x->b, &node, 1, NULL, NULL);
}


/* Newlines at the ends are the marks' own: a text that is held to anything has
 * none there. */
static grammar_dfa_t *
trimmed(tools_make_t *x, grammar_dfa_t *d)
{
    static const char re[] = "\\n[\\s\\S]*|[\\s\\S]*\\n";
    grammar_dfa_t *ends;

    ends = grammar_regex(x->b, re, sizeof(re) - 1, REGEX_ECMA, "a value");

    return d == NULL || ends == NULL ? NULL : grammar_dfa_and(x->b, d, ends, 1);
}


/* One demand on a string's text; d: what it may be so far. */
static grammar_dfa_t *
string_and(schema_t *c, const schema_atom_t *a, grammar_dfa_t *d)
{
    grammar_build_t *b = c->b;
    const char *re = json_string_value(a->value);
    grammar_dfa_t *e;
    uint32_t node;
    json_t *v;
    size_t i;

    if (a->kind == A_PATTERN) {
        e = grammar_schema_pattern(
            c, re, json_string_length(a->value), REGEX_ECMA | REGEX_SEARCH);
        return d == NULL || e == NULL ? NULL
                                      : grammar_dfa_and(b, d, e, a->negated);
    }
    if (a->kind == A_FORMAT) {
        re = grammar_schema_format(re);
        e = re == NULL || *re == '\0'
                ? NULL
                : grammar_schema_pattern(c, re, strlen(re), REGEX_ECMA);
        return d == NULL || e == NULL ? NULL
                                      : grammar_dfa_and(b, d, e, a->negated);
    }
    assert(a->kind == A_ENUM && a->negated);
    json_array_foreach((json_t *) a->value, i, v)
    {
        if (json_is_string(v) && d != NULL && !b->failed) {
            node =
                grammar_bytes(b, json_string_value(v), json_string_length(v));
            d = grammar_dfa_and(b, d, grammar_dfa(b, &node, 1, NULL, NULL), 1);
        }
    }

    return b->failed ? NULL : d;
}


/* Bounds of a length, and whether anything else is asked of a string. */
static int
string_demands(const schema_flat_t *f, uint32_t *min, uint32_t *max)
{
    const schema_atom_t *a;
    int any = 0;

    assert(f->types & T_STRING);
    *min = 0;
    *max = GRAMMAR_MANY;
    for (a = f->atoms; a != NULL; a = a->next) {
        if (a->kind == A_MINLEN && a->n > *min) {
            *min = a->n;
        } else if (a->kind == A_MAXLEN && a->n < *max) {
            *max = a->n;
        }
        any |= a->kind == A_PATTERN || a->kind == A_FORMAT || a->kind == A_ENUM;
    }

    return any;
}


/* Characters that are counted by the matcher, as an automaton that counts far
 * is large: none begins a mark, and the first and the last are no newline, as
 * that would be the mark's. */
static uint32_t
counted(tools_make_t *x, uint32_t min, uint32_t max)
{
    grammar_build_t *b = x->b;
    grammar_set_t s[2] = {{NULL, 0, 0}, {NULL, 0, 0}};
    uint32_t item = grammar_rule(b, NULL), rule = grammar_rule(b, NULL), i;
    uint32_t edge, node = 0;

    assert(max > CHARS_SHORT && min <= max);
    for (i = 0; i < 2; i++) {
        if (grammar_set_add(&s[i], '<', '<') != 0
            || grammar_set_add(&s[i], 0, 0) != 0
            || (i == 1 && grammar_set_add(&s[i], '\n', '\n') != 0)
            || grammar_set_not(&s[i]) != 0) {
            grammar_fail(b, "the grammar needs too much memory");
        }
    }
    node = grammar_set_node(b, &s[0], 0);
    edge = grammar_set_node(b, &s[1], 0);
    if (b->failed) {
        return 0;
    }
    b->rules[item].node = node;
    b->rules[rule].kind = RULE_COUNT;
    b->rules[rule].u.count.rule = item;
    b->rules[rule].u.count.min = min < 2 ? 0 : min - 2;
    b->rules[rule].u.count.max = max == GRAMMAR_MANY ? max : max - 2;
    node = SEQ(b, edge, grammar_ref_node(b, rule), edge);
    node = min < 2 ? grammar_alt2(b, node, edge) : node;

    return min == 0 ? tools_maybe(x, node) : node;
}


/* Values that an atom names, as texts, those that may be one. */
static uint32_t
string_values(tools_make_t *x, schema_t *c, const schema_flat_t *f,
    const schema_atom_t *a, const grammar_dfa_t *ok)
{
    grammar_list_t l = {NULL, 0, 0};
    const char *s;
    json_t *v;
    size_t i, n;

    assert(json_is_array(a->value) && ok->call_at == NULL);
    json_array_foreach((json_t *) a->value, i, v)
    {
        s = json_string_value(v);
        n = json_string_length(v);
        if (s != NULL && !grammar_tick(x->b)
            && grammar_schema_flat_holds(c, f, v, a)
            && grammar_dfa_run(ok, s, n) != 0) {
            (void) grammar_list_put(x->b, &l, grammar_bytes(x->b, s, n));
        }
    }

    return grammar_list_alt(x->b, &l);
}


/* A string's text, which is read back as the string; types: what the parser
 * may take it for. */
static uint32_t
string_text(tools_make_t *x, schema_t *c, const json_t *s,
    const schema_flat_t *f, uint32_t types)
{
    grammar_build_t *b = x->b;
    grammar_dfa_t *d = x->open_text, *no;
    const schema_atom_t *a;
    uint32_t min, max, node, most;
    int any;

    assert(types == 0 || (types & TOOLS_STRING));
    any = string_demands(f, &min, &max);
    most = max != GRAMMAR_MANY ? max : min;
    no = no_strings(x, types & ~(uint32_t) TOOLS_STRING);
    if (b->failed || min > max) {
        return 0;
    }
    if (no != NULL) {
        d = grammar_dfa_and(b, d, no, 1);
    }
    if (!any && no == NULL && min == 0 && max == GRAMMAR_MANY) {
        return grammar_dfa_node(b, d);
    }
    if (!any && no == NULL && most > CHARS_SHORT) {
        return SEQ(b, tools_maybe(x, tools_text(x, "\n")), counted(x, min, max),
            tools_maybe(x, tools_text(x, "\n")));
    }
    if (most > CHARS_MAX) {
        if (grammar_schema_refuse(c, s, "the length of a string",
                "is too long beside what else is asked of it")) {
            return 0;
        }
        min = min < CHARS_MAX ? min : CHARS_MAX;
        max = max <= CHARS_MAX ? max : GRAMMAR_MANY;
    }

    d = trimmed(x, d);
    for (a = f->atoms; a != NULL && d != NULL; a = a->next) {
        if (a->kind == A_ENUM && !a->negated) {
            node = string_values(x, c, f, a, d);
            return SEQ(b, tools_maybe(x, tools_text(x, "\n")), node,
                tools_maybe(x, tools_text(x, "\n")));
        }
    }
    if (d != NULL && (min > 0 || max != GRAMMAR_MANY)) {
        d = grammar_dfa_and(b, d, chars(b, min, max), 0);
    }
    for (a = f->atoms; a != NULL && d != NULL; a = a->next) {
        if (a->kind == A_PATTERN || a->kind == A_FORMAT || a->kind == A_ENUM) {
            d = string_and(c, a, d);
        }
    }
    node = d == NULL ? 0 : grammar_dfa_node(b, d);

    return SEQ(b, tools_maybe(x, tools_text(x, "\n")), node,
        tools_maybe(x, tools_text(x, "\n")));
}


/* The schema's types of which the parser takes a value for one. */
static unsigned
types_json(uint32_t types)
{
    return (types & TOOLS_NUMBER ? T_NUMBER : 0u)
           | (types & TOOLS_BOOLEAN ? T_BOOL : 0u)
           | (types & TOOLS_OBJECT ? T_OBJECT : 0u)
           | (types & TOOLS_ARRAY ? T_ARRAY : 0u)
           | (types & ~(uint32_t) TOOLS_STRING ? T_NULL : 0u);
}


/* A value between its marks. */
static uint32_t
value(tools_make_t *x, schema_t *c, const json_t *s, uint32_t types)
{
    grammar_list_t l = {NULL, 0, 0};
    grammar_build_t *b = x->b;
    const schema_flat_t *f;
    schema_flat_t json;
    uint32_t node;

    assert(c->b == b && s != NULL);
    c->flats = 0;
    f = grammar_schema_flats(c, grammar_schema_term(c, s, 0, NULL));
    for (; f != NULL && !grammar_tick(b); f = f->next) {
        if ((f->types & T_STRING)
            && (types == 0 || (types & TOOLS_STRING) != 0)) {
            (void) grammar_list_put(b, &l, string_text(x, c, s, f, types));
        }
        json = *f;
        json.types &= types_json(types);
        if (json.types != 0) {
            node = grammar_schema_flat_node(c, &json);
            (void) grammar_list_put(b, &l,
                SEQ(b, tools_maybe(x, tools_text(x, "\n")), node,
                    tools_maybe(x, tools_text(x, "\n"))));
        }
    }
    grammar_schema_rules(c);

    return grammar_list_alt(b, &l);
}


/* A schema that says no more than types as the parser knows them; c's. */
static const json_t *
of_types(schema_t *c, uint32_t types)
{
    static const struct {
        const char *name;
        uint32_t type;
    } names[] = {{"string", TOOLS_STRING}, {"number", TOOLS_NUMBER},
        {"boolean", TOOLS_BOOLEAN}, {"null", TOOLS_NULL},
        {"object", TOOLS_OBJECT}, {"array", TOOLS_ARRAY}};
    json_t *list = json_array(), *s = json_pack("{s:o}", "type", list);
    size_t i;

    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if ((types == 0 && i == 0) || (types & names[i].type)) {
            (void) json_array_append_new(list, json_string(names[i].name));
        }
    }
    if (json_array_append_new(c->consts, s) != 0) {
        grammar_fail(c->b, "the grammar needs too much memory");
        return NULL;
    }

    return s;
}


/* A property as an element.  0: it cannot be. */
static uint32_t
element(tools_make_t *x, schema_t *c, const tools_callee_t *f, const char *key,
    const json_t *s)
{
    const tools_xml_t *m = x->row->xml;
    uint32_t len = (uint32_t) strlen(key), types, node;
    grammar_build_t *b = x->b;

    assert(m != NULL && m->key_close[0] != '\0');
    if (strstr(key, m->key_close) != NULL) {
        return 0;
    }
    types = tools_schema_types(
        x->types, tools_schema_find(x->types, f->name, f->len), key, len);
    s = f->loose ? of_types(c, types) : s;
    node = s == NULL ? 0 : value(x, c, s, types);
    if (m->value_open[0] != '\0') {
        node = SEQ(b, x->breaks, tools_text(x, m->value_open), node);
    }

    return SEQ(b, tools_text(x, m->key_open), grammar_bytes(b, key, len),
        tools_text(x, m->key_close), node, tools_text(x, m->value_close),
        x->breaks);
}


/* Is key among those that are required? */
static int
is_required(const json_t *params, const char *key)
{
    const json_t *list = json_object_get(params, "required"), *v;
    size_t i;

    for (i = 0; i < json_array_size(list); i++) {
        v = json_array_get(list, i);
        if (json_is_string(v) && strcmp(json_string_value(v), key) == 0) {
            return 1;
        }
    }

    return 0;
}


/* Is a required property none that is declared?  It could be anything, and
 * elements are declared ones. */
static int
lacks_required(const json_t *params)
{
    const json_t *list = json_object_get(params, "required"), *v;
    size_t i;

    for (i = 0; i < json_array_size(list); i++) {
        v = json_array_get(list, i);
        if (json_is_string(v)
            && json_object_get(
                   json_object_get(params, "properties"), json_string_value(v))
                   == NULL) {
            return 1;
        }
    }

    return 0;
}


/* What elements cannot say of an object as a whole. */
static void
refuse_whole(schema_t *c, const json_t *s)
{
    static const char *const keys[] = {"$ref", "allOf", "anyOf", "oneOf", "not",
        "if", "enum", "const", "minProperties", "maxProperties",
        "dependentRequired", "dependentSchemas", "dependencies",
        "patternProperties", "propertyNames"};
    size_t i;

    for (i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        if (json_object_get(s, keys[i]) != NULL
            && grammar_schema_refuse(
                c, s, keys[i], "cannot be enforced in elements")) {
            return;
        }
    }
    if (lacks_required(s)) {
        (void) grammar_schema_refuse(c, s, "required",
            "names what is no property, which cannot be an element");
    }
}


/* All properties, in their order; those that are required always. */
uint32_t
tools_make_elements(tools_make_t *x, const tools_callee_t *f)
{
    grammar_build_t *b = x->b;
    grammar_list_t l = {NULL, 0, 0};
    uint32_t lenient = b->o.lenient, node;
    json_t *s;
    const char *key;
    schema_t c;

    assert(x->row->xml != NULL && b->only != NULL);
    if (f->params == NULL) {
        return grammar_empty(b);
    }
    b->o.lenient = !f->strict;
    if (grammar_schema_begin(
            &c, b, f->loose ? json_object() : json_incref(f->params))
        == 0) {
        if (!f->loose) {
            refuse_whole(&c, f->params);
        }
        json_object_foreach(json_object_get(f->params, "properties"), key, s)
        {
            node = b->failed ? 0 : element(x, &c, f, key, s);
            if (!b->failed && !is_required(f->params, key)) {
                node = tools_maybe(x, node);
            }
            (void) grammar_list_put(b, &l, node);
        }
    }
    grammar_schema_end(&c);
    b->o.lenient = lenient;
    if (b->failed) {
        grammar_fail_at(b, "tools/%zu/function/parameters", f->at);
    }

    return grammar_list_seq(b, &l);
}


/* A call from its name on, to the mark that ends it. */
uint32_t
tools_make_xml(tools_make_t *x)
{
    const char *open = x->row->xml->open, *close = x->row->xml->close;
    grammar_list_t l = {NULL, 0, 0};
    uint32_t i,
        end = open[0] != '\0' ? tools_text(x, ">") : grammar_empty(x->b);

    assert(x->row->xml != NULL && close[0] != '\0');
    for (i = 0; i < x->n && !grammar_tick(x->b); i++) {
        (void) grammar_list_put(x->b, &l,
            tools_make_name(x, &x->functions[i],
                SEQ(x->b, end, x->breaks,
                    tools_make_elements(x, &x->functions[i]),
                    tools_make_mark(x, close))));
    }

    return grammar_list_alt(x->b, &l);
}


void
tools_make_texts(tools_make_t *x)
{
    grammar_build_t *b = x->b;
    grammar_str_t close;

    assert(x->row->xml != NULL && b->only == NULL);
    close.s = x->row->xml->value_close;
    close.len = (uint32_t) strlen(close.s);
    b->only = x->open_text = grammar_dfa_without(b, &close, 1);
    if (!b->failed) {
        x->open_text =
            grammar_dfa_and(b, chars(b, 0, GRAMMAR_MANY), x->open_text, 0);
    }
}
