/*
 * Values that a schema names, and whether they satisfy the rest of it.
 *
 * DESIGN.  "enum" and "const" make a schema finite: each value is tried against
 * all other demands, and what passes is written out.  An object is written as
 * its properties, in any order; an array item by item; a number as it is
 * printed, a string with the escapes that it needs, and characters that are not
 * ASCII escaped or not.
 *
 * The same trial tells alternatives of "oneOf" apart, and names against
 * "propertyNames".
 *
 * Numbers are compared as the document's reader has them, whole ones exactly,
 * others as doubles; texts byte by byte.  A trial of a value goes down both the
 * value and the schema, at most CHECK_DEPTH deep.
 */
#include "grammar_schema.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define CHECK_DEPTH 24   /* of trials within trials */
#define EMPTY_DEPTH 3    /* alternatives differ near their top, or not at all */
#define ESCAPES_MAX 2048 /* characters of literals, in a grammar */


/* --- what stands where -------------------------------------------------- */

/* Characters, as JSON Schema counts them: bytes that begin one.  The text is
 * valid, or it would not have been read. */
static size_t
chars_of(const char *s, size_t len)
{
    size_t i, n = 0;

    for (i = 0; i < len; i++) {
        n += ((uint8_t) s[i] & 0xc0) != 0x80;
    }

    return n;
}


grammar_dfa_t *
grammar_schema_pattern(schema_t *c, const char *s, size_t len, unsigned flags)
{
    schema_pattern_t *p;
    grammar_dfa_t *d;
    char what[128];
    uint32_t i;

    assert(s != NULL);
    /* the same text often stands in many places; compiling it is dear */
    (void) grammar_spend(c->b, c->patterns_n);
    for (i = 0; i < c->patterns_n; i++) {
        p = &c->patterns[i];
        if (p->flags == flags && p->len == len && memcmp(p->s, s, len) == 0) {
            return p->dfa;
        }
    }

    (void) snprintf(what, sizeof(what), "pattern %.100s", s);
    d = grammar_regex(c->b, s, len, flags, what);
    if (d == NULL
        || grammar_room(c->b, &c->patterns, c->patterns_n, &c->patterns_cap,
               sizeof(*c->patterns))
               != 0) {
        return NULL;
    }
    c->patterns[c->patterns_n].s = s;
    c->patterns[c->patterns_n].len = len;
    c->patterns[c->patterns_n].flags = flags;
    c->patterns[c->patterns_n++].dfa = d;

    return d;
}


/* Does re match the text, or with REGEX_SEARCH a part of it?  One that cannot
 * be compiled has failed the whole, so that it does not matter what is said. */
static int
matches(schema_t *c, const char *re, size_t re_len, unsigned flags,
    const char *s, size_t len)
{
    grammar_dfa_t *d =
        grammar_schema_pattern(c, re, re_len, REGEX_ECMA | flags);

    return d != NULL && !grammar_spend(c->b, len)
           && grammar_dfa_run(d, s, len) != 0;
}


/* Does a key match one of "patternProperties"? */
static int
key_matches(schema_t *c, const char *pattern, const char *s, size_t len)
{
    return matches(c, pattern, strlen(pattern), REGEX_SEARCH, s, len);
}


/* What one schema's properties, patterns and the rest ask of a key's value,
 * put before t.  The rest has a say only if no other has. */
static const schema_terms_t *
props_terms(schema_t *c, const json_t *s, const char *key, size_t len,
    const schema_terms_t *t)
{
    json_t *patterns = json_object_get(s, "patternProperties"), *v;
    const char *pattern;
    int any = 0;

    v = json_object_getn(json_object_get(s, "properties"), key, len);
    if (v != NULL) {
        t = grammar_schema_term(c, v, 0, t);
        any = 1;
    }
    json_object_foreach(patterns, pattern, v)
    {
        if (key_matches(c, pattern, key, len)) {
            t = grammar_schema_term(c, v, 0, t);
            any = 1;
        }
    }
    v = json_object_get(s, "additionalProperties");

    return any || v == NULL ? t : grammar_schema_term(c, v, 0, t);
}


int
grammar_schema_within(const schema_scope_t *scope, const json_t *s)
{
    while (scope != NULL && scope->s != s) {
        scope = scope->up;
    }

    return scope != NULL;
}


/* Has a schema in the scope of r's, which is an "unevaluatedProperties", looked
 * at a key?  By the standard one that says what other keys must be has looked
 * at all of them. */
static int
key_seen(schema_t *c, const schema_flat_t *f, const schema_atom_t *r,
    const char *key, size_t len)
{
    const schema_atom_t *a;
    const char *pattern;
    json_t *v;

    assert(r->kind == A_REST_PROPS);
    for (a = f->atoms; a != NULL; a = a->next) {
        if (!grammar_schema_within(a->scope, r->schema)) {
            continue;
        }
        if (a->kind == A_REST_PROPS && a->schema != r->schema) {
            return 1;
        }
        if (a->kind != A_PROPS) {
            continue;
        }
        if (json_object_get(a->schema, "additionalProperties") != NULL
            || json_object_getn(
                   json_object_get(a->schema, "properties"), key, len)
                   != NULL) {
            return 1;
        }
        json_object_foreach(
            json_object_get(a->schema, "patternProperties"), pattern, v)
        {
            if (key_matches(c, pattern, key, len)) {
                return 1;
            }
        }
    }

    return 0;
}


const schema_terms_t *
grammar_schema_key_terms(
    schema_t *c, const schema_flat_t *f, const char *key, size_t len)
{
    const schema_terms_t *t = NULL;
    const schema_atom_t *a;

    assert(key != NULL);
    for (a = f->atoms; a != NULL; a = a->next) {
        if (a->kind == A_PROPS) {
            t = props_terms(c, a->schema, key, len, t);
        } else if (a->kind == A_PROP && a->name_len == len
                   && memcmp(a->name, key, len) == 0) {
            t = grammar_schema_term(c, a->term.s, a->term.negated, t);
        } else if (a->kind == A_REST_PROPS && !key_seen(c, f, a, key, len)) {
            t = grammar_schema_term(c, a->term.s, 0, t);
        }
    }

    return t;
}


/* The schemas of the first items: "prefixItems", or "items" of old. */
static const json_t *
prefix_of(const json_t *s)
{
    const json_t *v = json_object_get(s, "prefixItems"),
                 *items = json_object_get(s, "items");

    return json_is_array(v) ? v : json_is_array(items) ? items : NULL;
}


uint32_t
grammar_schema_prefix(const schema_flat_t *f)
{
    const schema_atom_t *a;
    size_t n = 0, k;

    for (a = f->atoms; a != NULL; a = a->next) {
        if (a->kind == A_ITEMS) {
            k = json_array_size(prefix_of(a->schema));
            n = k > n ? k : n;
        }
    }
    /* an item takes a byte at least */
    assert(n <= GRAMMAR_TEXT_MAX);

    return (uint32_t) n;
}


/* Has one in the scope of r's, an "unevaluatedItems", looked at the item at
 * index?  "items" that is a schema looks at all, a list at as many as it has.
 */
static int
item_seen(const schema_flat_t *f, const schema_atom_t *r, uint32_t index)
{
    const schema_atom_t *a;
    const json_t *items;

    assert(r->kind == A_REST_ITEMS);
    for (a = f->atoms; a != NULL; a = a->next) {
        if (!grammar_schema_within(a->scope, r->schema)) {
            continue;
        }
        if (a->kind == A_REST_ITEMS && a->schema != r->schema) {
            return 1;
        }
        if (a->kind != A_ITEMS) {
            continue;
        }
        items = json_object_get(a->schema, "items");
        if (json_array_size(prefix_of(a->schema)) > index
            || (items != NULL && !json_is_array(items))
            || (json_is_array(items)
                && json_object_get(a->schema, "additionalItems") != NULL)) {
            return 1;
        }
    }

    return 0;
}


const schema_terms_t *
grammar_schema_item_terms(schema_t *c, const schema_flat_t *f, uint32_t index)
{
    const schema_terms_t *t = NULL;
    const schema_atom_t *a;
    const json_t *v, *prefix;

    for (a = f->atoms; a != NULL; a = a->next) {
        if (a->kind == A_EACH
            || (a->kind == A_REST_ITEMS && !item_seen(f, a, index))) {
            t = grammar_schema_term(c, a->term.s, a->term.negated, t);
        }
        if (a->kind != A_ITEMS) {
            continue;
        }
        prefix = prefix_of(a->schema);
        v = json_array_get(prefix, index);
        if (v == NULL) {
            /* behind them: "items", or what it was called beside a list */
            v = json_object_get(a->schema, "items");
            if (json_is_array(v)) {
                v = json_object_get(a->schema, "additionalItems");
            }
        }
        if (v != NULL) {
            t = grammar_schema_term(c, v, 0, t);
        }
    }

    return t;
}


/* --- trials ------------------------------------------------------------- */

static int holds(schema_t *c, const schema_terms_t *terms, const json_t *v);


/* Whole numbers are compared as such: a double would take large ones that are
 * near each other for one. */
static int
same_number(const json_t *x, const json_t *y)
{
    assert(json_is_number(x) && json_is_number(y));

    return json_is_integer(x) && json_is_integer(y)
               ? json_integer_value(x) == json_integer_value(y)
               : json_number_value(x) == json_number_value(y);
}


/* Equal as JSON Schema has it: 1 is 1.0, and true is not 1.  y may be missing,
 * NULL; what is deeper than any grammar could be is not equal. */
static int
same_value(schema_t *c, const json_t *x, const json_t *y, uint32_t depth)
{
    const char *key;
    json_t *v;
    size_t i;

    if (depth > GRAMMAR_DEPTH_MAX
        || grammar_spend(c->b, 2 + json_string_length(x) / 16)) {
        return 0;
    }
    if (json_is_number(x) && json_is_number(y)) {
        return same_number(x, y);
    }
    if (json_is_array(x) && json_is_array(y)) {
        json_array_foreach(x, i, v)
        {
            if (!same_value(c, v, json_array_get(y, i), depth + 1)) {
                return 0;
            }
        }
        return json_array_size(x) == json_array_size(y);
    }
    if (json_is_object(x) && json_is_object(y)) {
        json_object_foreach((json_t *) x, key, v)
        {
            if (!same_value(c, v, json_object_get(y, key), depth + 1)) {
                return 0;
            }
        }
        return json_object_size(x) == json_object_size(y);
    }

    return y != NULL && json_equal(x, y);
}


int
grammar_schema_same(schema_t *c, const json_t *x, const json_t *y)
{
    return same_value(c, x, y, 0);
}


/* Is each item of an array there once? */
static int
unique_holds(schema_t *c, const json_t *v)
{
    size_t i, k, n = json_array_size(v);

    for (i = 0; i < n; i++) {
        for (k = 0; k < i; k++) {
            if (same_value(c, json_array_get(v, i), json_array_get(v, k), 0)) {
                return 0;
            }
        }
    }

    return 1;
}


/* The one type that a value is of.  1.0 is whole, as drafts since 6 have it. */
static unsigned
type_of(const json_t *v)
{
    double d;

    assert(v != NULL);
    switch (json_typeof(v)) {
    case JSON_NULL:
        return T_NULL;
    case JSON_TRUE:
        return T_TRUE;
    case JSON_FALSE:
        return T_FALSE;
    case JSON_INTEGER:
        return T_INT;
    case JSON_REAL:
        d = json_real_value(v);
        return d == floor(d) ? T_INT : T_FRAC;
    case JSON_STRING:
        return T_STRING;
    case JSON_ARRAY:
        return T_ARRAY;
    default:
        return T_OBJECT;
    }
}


/* Exactly for whole numbers, else as near as a double is: 0.3 is a multiple of
 * 0.1.  Nothing is a multiple of 0. */
static int
is_multiple(const json_t *v, const json_t *of)
{
    double q;

    assert(json_is_number(v) && json_is_number(of));
    if (json_is_integer(v) && json_is_integer(of)
        && json_integer_value(of) > 0) {
        return json_integer_value(v) % json_integer_value(of) == 0;
    }
    q = json_number_value(v) / json_number_value(of);

    return isfinite(q) && fabs(q - round(q)) < 1e-9;
}


/* One demand on a number. */
static int
number_holds(const schema_atom_t *a, const json_t *v)
{
    double x = json_number_value(v), y = json_number_value(a->value);

    assert(a->kind <= A_MULTIPLE && json_is_number(a->value));
    switch (a->kind) {
    case A_MIN:
        return x >= y;
    case A_MAX:
        return x <= y;
    case A_XMIN:
        return x > y;
    case A_XMAX:
        return x < y;
    default:
        return is_multiple(v, a->value) != a->negated;
    }
}


/* One demand on a string.  Its text is matched as it is, not as it is written:
 * the automata here are not those that the grammar gets. */
static int
string_holds(schema_t *c, const schema_atom_t *a, const json_t *v)
{
    const char *s = json_string_value(v), *re;
    size_t len = json_string_length(v);

    assert(a->kind >= A_MINLEN && a->kind <= A_FORMAT && json_is_string(v));
    switch (a->kind) {
    case A_MINLEN:
        return chars_of(s, len) >= a->n;
    case A_MAXLEN:
        return chars_of(s, len) <= a->n;
    case A_PATTERN:
        return matches(c, json_string_value(a->value),
                   json_string_length(a->value), REGEX_SEARCH, s, len)
               != a->negated;
    default:
        /* formats that ask for nothing have become no atoms */
        re = grammar_schema_format(json_string_value(a->value));
        assert(a->kind == A_FORMAT && re != NULL && *re != '\0');
        return matches(c, re, strlen(re), 0, s, len) != a->negated;
    }
}


/* If the name is there, are all that it requires? */
static int
dep_holds(const schema_atom_t *a, const json_t *v)
{
    json_t *name;
    size_t i;

    assert(a->kind == A_DEP && json_is_object(v));
    if (json_object_getn(v, a->name, a->name_len) == NULL) {
        return 1;
    }
    json_array_foreach(a->value, i, name)
    {
        if (json_is_string(name)
            && json_object_getn(
                   v, json_string_value(name), json_string_length(name))
                   == NULL) {
            return 0;
        }
    }

    return 1;
}


/* Each key, as a string, is tried against "propertyNames". */
static int
names_hold(schema_t *c, schema_term_t term, const json_t *v)
{
    const schema_terms_t *t =
        grammar_schema_term(c, term.s, term.negated, NULL);
    const char *key;
    json_t *each, *name;
    int yes = 1;

    assert(json_is_object(v));
    json_object_foreach((json_t *) v, key, each)
    {
        name = json_string(key);
        if (name == NULL) {
            grammar_fail(c->b, "the grammar needs too much memory");
            return 0;
        }
        yes = yes && holds(c, t, name);
        json_decref(name);
    }

    return yes;
}


/* Are so many items as there should be? */
static int
contains_holds(schema_t *c, const schema_atom_t *a, const json_t *v)
{
    const schema_terms_t *t =
        grammar_schema_term(c, a->term.s, a->term.negated, NULL);
    json_t *each;
    size_t i, n = 0;

    assert(a->kind == A_CONTAINS && json_is_array(v));
    json_array_foreach((json_t *) v, i, each) { n += holds(c, t, each) != 0; }

    return n >= a->n
           && (a->value == NULL || (double) n <= json_number_value(a->value));
}


/* Is v one of the values, or negated: none of them? */
static int
enum_holds(schema_t *c, const schema_atom_t *a, const json_t *v)
{
    json_t *each;
    size_t i;

    assert(a->kind == A_ENUM && json_is_array(a->value));
    json_array_foreach(a->value, i, each)
    {
        if (same_value(c, each, v, 0)) {
            return !a->negated;
        }
    }

    return a->negated;
}


/* Does v, of that type, meet one demand?  Parts of it are tried elsewhere. */
static int
atom_holds(schema_t *c, const schema_atom_t *a, const json_t *v, unsigned type)
{
    if (a->kind == A_ENUM) {
        return enum_holds(c, a, v);
    }
    if (a->kind <= A_MULTIPLE) {
        return !(type & T_NUMBER) || number_holds(a, v);
    }
    if (a->kind <= A_FORMAT) {
        return type != T_STRING || string_holds(c, a, v);
    }
    if (type == T_ARRAY) {
        return a->kind == A_MINITEMS   ? json_array_size(v) >= a->n
               : a->kind == A_MAXITEMS ? json_array_size(v) <= a->n
               : a->kind == A_UNIQUE   ? unique_holds(c, v)
               : a->kind == A_CONTAINS ? contains_holds(c, a, v)
                                       : 1;
    }
    if (type != T_OBJECT) {
        return 1;
    }

    switch (a->kind) {
    case A_MINPROPS:
        return json_object_size(v) >= a->n;
    case A_MAXPROPS:
        return json_object_size(v) <= a->n;
    case A_REQUIRED:
        return json_object_getn(v, a->name, a->name_len) != NULL;
    case A_DEP:
        return dep_holds(a, v);
    case A_NAMES:
        return names_hold(c, a->term, v);
    default:
        return 1;
    }
}


/* Demands on the whole first, as they are cheap; then its parts, each against
 * what the schemas that stand there ask of it. */
int
grammar_schema_flat_holds(schema_t *c, const schema_flat_t *f, const json_t *v,
    const schema_atom_t *of)
{
    const schema_atom_t *a;
    unsigned type = type_of(v);
    const char *key;
    json_t *each;
    size_t i;

    assert((type & (type - 1)) == 0); /* one, which may be compared */
    if (!(f->types & type) || grammar_tick(c->b)) {
        return 0;
    }
    for (a = f->atoms; a != NULL; a = a->next) {
        if (a != of && !atom_holds(c, a, v, type)) {
            return 0;
        }
    }
    json_array_foreach(v, i, each)
    {
        if (!holds(c, grammar_schema_item_terms(c, f, (uint32_t) i), each)) {
            return 0;
        }
    }
    json_object_foreach((json_t *) v, key, each)
    {
        if (!holds(c, grammar_schema_key_terms(c, f, key, strlen(key)), each)) {
            return 0;
        }
    }

    return 1;
}


/* One of the flats must hold.  Depth is counted here, where every trial of a
 * part passes: a value may be as deep as the document's reader takes, and each
 * level has its own alternatives. */
static int
holds(schema_t *c, const schema_terms_t *terms, const json_t *v)
{
    const schema_flat_t *f;
    int yes = 0;

    assert(v != NULL);
    if (terms == NULL) {
        return 1;
    }
    if (c->depth == CHECK_DEPTH) {
        grammar_fail(c->b, "the schema's values nest too deeply");
        return 0;
    }

    c->depth++;
    for (f = grammar_schema_flats(c, terms); f != NULL && !yes; f = f->next) {
        yes = grammar_schema_flat_holds(c, f, v, NULL);
    }
    c->depth--;

    return yes;
}


/* --- what cannot be ----------------------------------------------------- */

static int terms_empty(schema_t *c, const schema_terms_t *t, uint32_t depth);


/*
 * Is it seen at once that no value satisfies f?  Either all of the values that
 * it names fail, or, for an object, some property that is required cannot be.
 * That tells apart what schemas mean by "oneOf": a constant, a type, a name.
 */
static int
flat_empty(schema_t *c, const schema_flat_t *f, uint32_t depth)
{
    const schema_atom_t *a;
    unsigned types = f->types;
    json_t *v;
    size_t i;

    assert(depth <= EMPTY_DEPTH);
    for (a = f->atoms; a != NULL && types != 0; a = a->next) {
        if (a->kind == A_ENUM && !a->negated) {
            json_array_foreach(a->value, i, v)
            {
                if (grammar_schema_flat_holds(c, f, v, a)) {
                    return 0;
                }
            }
            return 1;
        }
        if (a->kind == A_REQUIRED && (types & T_OBJECT)
            && terms_empty(c,
                grammar_schema_key_terms(c, f, a->name, a->name_len),
                depth + 1)) {
            types &= ~(unsigned) T_OBJECT;
        }
    }

    return types == 0;
}


/* Are all flats of terms empty?  0 too if that is not known: too deep, or
 * failed. */
static int
terms_empty(schema_t *c, const schema_terms_t *t, uint32_t depth)
{
    const schema_flat_t *f;

    if (t == NULL || depth > EMPTY_DEPTH) {
        return 0;
    }
    for (f = grammar_schema_flats(c, t); f != NULL; f = f->next) {
        if (!flat_empty(c, f, depth)) {
            return 0;
        }
    }

    return !c->b->failed;
}


/* A 1 in doubt is right too, only dearer: what cannot be is negated as well. */
int
grammar_schema_meets(schema_t *c, schema_term_t x, schema_term_t y)
{
    const schema_terms_t *t = grammar_schema_term(
        c, x.s, x.negated, grammar_schema_term(c, y.s, y.negated, NULL));
    int empty;

    if (c->depth == CHECK_DEPTH) {
        return 1;
    }
    c->depth++;
    empty = terms_empty(c, t, 0);
    c->depth--;

    return !empty;
}


/* --- written out -------------------------------------------------------- */

void
grammar_schema_digits(const json_t *v, char *buf, size_t cap)
{
    double d = json_number_value(v);
    int digits;

    assert(cap >= 64);
    if (json_is_integer(v)) {
        (void) snprintf(buf, cap, "%lld", (long long) json_integer_value(v));
    } else if (d == floor(d) && fabs(d) < 1e15) {
        (void) snprintf(buf, cap, "%.0f", d);
    } else {
        /* the fewest that are read back as the same: 17 always are */
        for (digits = 15; digits <= 17; digits++) {
            (void) snprintf(buf, cap, "%.*g", digits, d);
            if (strtod(buf, NULL) == d) {
                break;
            }
        }
    }
}


/* A number as it is printed. */
static uint32_t
literal_number(schema_t *c, const json_t *v)
{
    char buf[64];

    assert(json_is_number(v));
    grammar_schema_digits(v, buf, sizeof(buf));

    return grammar_bytes(c->b, buf, strlen(buf));
}


uint32_t
grammar_schema_quoted(schema_t *c, const char *s, size_t len)
{
    uint32_t kids[3];

    kids[0] = kids[2] = grammar_bytes(c->b, "\"", 1);
    kids[1] = grammar_text(c->b, s, len, 1);

    return grammar_seq(c->b, kids, 3);
}


/* "\u" and four digits, letters in either case. */
static uint32_t
escaped_unit(schema_t *c, uint32_t unit)
{
    static const char lower[] = "0123456789abcdef",
                      upper[] = "0123456789ABCDEF";
    uint32_t kids[5], i, d;

    assert(unit <= 0xffff);
    kids[0] = grammar_bytes(c->b, "\\u", 2);
    for (i = 0; i < 4; i++) {
        d = unit >> (12 - 4 * i) & 15;
        kids[i + 1] = grammar_bytes(c->b, lower + d, 1);
        if (d > 9) {
            kids[i + 1] = grammar_alt2(
                c->b, kids[i + 1], grammar_bytes(c->b, upper + d, 1));
        }
    }

    return grammar_seq(c->b, kids, 5);
}


/* A character of a literal that need not be escaped and often is: those which
 * are not ASCII, and the slash. */
static uint32_t
either_way(schema_t *c, const char *s, uint32_t n, uint32_t code)
{
    uint32_t as_is = grammar_bytes(c->b, s, n), other;

    if (code == '/') {
        other = grammar_bytes(c->b, "\\/", 2);
    } else if (code > 0xffff) {
        other = grammar_seq2(c->b,
            escaped_unit(c, 0xd800 + ((code - 0x10000) >> 10)),
            escaped_unit(c, 0xdc00 + ((code - 0x10000) & 0x3ff)));
    } else {
        other = escaped_unit(c, code);
    }

    return grammar_alt2(c->b, as_is, other);
}


/* A text between quotes.  ESCAPES_MAX bounds what a large enum may cost more
 * than its own bytes. */
static uint32_t
literal_string(schema_t *c, const char *s, size_t len)
{
    grammar_list_t l = {NULL, 0, 0};
    uint32_t code, n;
    size_t at, from = 0;

    (void) grammar_list_put(c->b, &l, grammar_bytes(c->b, "\"", 1));
    for (at = 0; at < len; at += n) {
        n = grammar_utf8(s + at, len - at, &code);
        if (n == 0) {
            break;
        }
        if ((code != '/' && code < 0x80) || c->escapes == ESCAPES_MAX) {
            continue;
        }
        c->escapes++;
        if (at > from) {
            (void) grammar_list_put(
                c->b, &l, grammar_text(c->b, s + from, at - from, 1));
        }
        (void) grammar_list_put(c->b, &l, either_way(c, s + at, n, code));
        from = at + n;
    }
    if (len > from) {
        (void) grammar_list_put(
            c->b, &l, grammar_text(c->b, s + from, len - from, 1));
    }
    (void) grammar_list_put(c->b, &l, grammar_bytes(c->b, "\"", 1));

    return grammar_list_seq(c->b, &l);
}


/* So many items, each as it is, and none behind them.  A rule, as white space
 * may stand between them. */
static uint32_t
literal_array(schema_t *c, const json_t *v)
{
    uint32_t n = (uint32_t) json_array_size(v), i, rule;
    grammar_array_t *a = grammar_get(c->b, sizeof(*a));

    assert(json_is_array(v));
    rule = grammar_rule(c->b, NULL);
    if (c->b->failed) {
        return 0;
    }
    c->b->rules[rule].kind = RULE_ARRAY;
    c->b->rules[rule].u.array = a;
    a->min = a->max = a->prefix_n = n;
    a->rest = GRAMMAR_MANY;
    a->prefix = grammar_get(c->b, (n + 1) * sizeof(*a->prefix));
    for (i = 0; i < n && !c->b->failed; i++) {
        a->prefix[i] = grammar_rule(c->b, NULL);
        if (!c->b->failed) {
            uint32_t node = grammar_schema_literal(c, json_array_get(v, i));

            c->b->rules[a->prefix[i]].node = node;
        }
    }

    return grammar_ref_node(c->b, rule);
}


/* Where a byte stands in the order of what is written: behind a backslash if it
 * is escaped, by its letter then. */
static uint32_t
written(uint8_t c)
{
    static const char what[] = "\"\\\b\f\n\r\t", how[] = "\"\\bfnrt";
    const char *at;
    uint8_t letter;

    _Static_assert(sizeof(what) == sizeof(how), "each has what it is written");
    if (c >= 0x20 && c != '"' && c != '\\') {
        return (uint32_t) c << 16;
    }
    at = c == 0 ? NULL : strchr(what, c);
    letter = at != NULL ? (uint8_t) how[at - what] : 'u';

    return (uint32_t) '\\' << 16 | (uint32_t) letter << 8 | c;
}


int
grammar_schema_order(const char *s, size_t n, const char *t, size_t m)
{
    size_t least = n < m ? n : m, i = 0;
    uint32_t u, v;

    while (i < least && s[i] == t[i]) {
        i++;
    }
    if (i == least) {
        return (n > m) - (n < m);
    }
    u = written((uint8_t) s[i]);
    v = written((uint8_t) t[i]);

    return (u > v) - (u < v);
}


/* In which an object's classes are numbered. */
static int
by_key(const void *a, const void *b)
{
    const char *s = *(const char *const *) a, *t = *(const char *const *) b;

    return grammar_schema_order(s, strlen(s), t, strlen(t));
}


/* All keys, none else, in any order. */
static uint32_t
literal_object(schema_t *c, const json_t *v)
{
    uint32_t n = (uint32_t) json_object_size(v), i = 0, rule, node;
    grammar_object_t *o = grammar_get(c->b, sizeof(*o));
    const char **keys = grammar_get(c->b, (n + 1) * sizeof(*keys)), *key;
    uint32_t *nodes = grammar_get(c->b, (n + 1) * sizeof(*nodes));
    json_t *each;

    assert(json_is_object(v));
    rule = grammar_rule(c->b, NULL);
    if (c->b->failed) {
        return 0;
    }
    json_object_foreach((json_t *) v, key, each) { keys[i++] = key; }
    assert(i == n);
    qsort(keys, n, sizeof(*keys), by_key);

    o->props = o->classes = o->min = o->max = n;
    o->words = (n + 31) / 32;
    o->rule = grammar_get(c->b, (n + 1) * sizeof(*o->rule));
    o->order = grammar_get(c->b, (n + 1) * sizeof(*o->order));
    o->required = grammar_get(c->b, (o->words + 1) * sizeof(*o->required));
    for (i = 0; i < n && !c->b->failed; i++) {
        nodes[i] = grammar_schema_quoted(c, keys[i], strlen(keys[i]));
        o->order[i] = i;
        o->required[i / 32] |= 1u << i % 32;
        o->rule[i] = grammar_rule(c->b, NULL);
        node = grammar_schema_literal(c, json_object_get(v, keys[i]));
        if (!c->b->failed) {
            c->b->rules[o->rule[i]].node = node;
        }
    }
    o->key = grammar_dfa(c->b, nodes, n, NULL, NULL);
    if (!c->b->failed) {
        c->b->rules[rule].kind = RULE_OBJECT;
        c->b->rules[rule].u.object = o;
    }

    return grammar_ref_node(c->b, rule);
}


/* By recursion, as deep as the value: what the document's reader takes may be
 * deeper than a grammar should be. */
uint32_t
grammar_schema_literal(schema_t *c, const json_t *v)
{
    uint32_t node;

    if (++c->depth > GRAMMAR_DEPTH_MAX || c->b->failed) {
        return grammar_fail(c->b, "the schema's values nest too deeply");
    }
    switch (json_typeof(v)) {
    case JSON_NULL:
        node = grammar_bytes(c->b, "null", 4);
        break;
    case JSON_TRUE:
        node = grammar_bytes(c->b, "true", 4);
        break;
    case JSON_FALSE:
        node = grammar_bytes(c->b, "false", 5);
        break;
    case JSON_INTEGER:
    case JSON_REAL:
        node = literal_number(c, v);
        break;
    case JSON_STRING:
        node = literal_string(c, json_string_value(v), json_string_length(v));
        break;
    case JSON_ARRAY:
        node = literal_array(c, v);
        break;
    default:
        assert(json_is_object(v));
        node = literal_object(c, v);
    }
    c->depth--;

    return node;
}
