/*
 * What schemas demand, as alternatives without "any of" and "not" in them.
 *
 * DESIGN.  A schema and its negation are terms; a value must satisfy a set of
 * them.  Keywords become atoms, each about one type, or more terms ("$ref",
 * "allOf"), or a choice between ways (types, atoms and terms each):
 *
 *      not {minimum: 3, required: [a, b]}  ->  a number below 3
 *                                              | an object without a
 *                                              | an object without b
 *
 * Choices are multiplied out, ways that no type is left for fall away, and what
 * remains are flats: types and a list of atoms that all hold.  Exactly one of
 * several is: one, and none of those that may hold together with it.
 *
 * Lists are linked, never changed and shared between alternatives; all memory
 * is the build's.  The product is limited (FLATS_MAX); terms met again on the
 * way are skipped, which ends references in circles.
 *
 * "unevaluated..." asks which schemas looked at a part of the value: each atom
 * has its scope, the chain of schemas applied to the same value that it came
 * from, and what is within a negation has none.
 */
#include "grammar_schema.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define FLATS_MAX 4096 /* of a schema; a real one has a few dozens */
#define DEPTH_MAX 150
#define ANY_MAX   4 /* of which each selection is a way */

/* One of the ways must be gone. */
typedef struct choice_s {
    const schema_way_t *ways;
    const struct choice_s *next;
} choice_t;

/* A conjunction under way. */
typedef struct {
    unsigned types; /* that are left */
    const schema_atom_t *atoms;
    const schema_terms_t *todo, *seen; /* terms to take apart, and taken */
    const choice_t *choices;
} part_t;


const schema_terms_t *
grammar_schema_term(
    schema_t *c, const json_t *s, int negated, const schema_terms_t *next)
{
    schema_terms_t *t = grammar_get(c->b, sizeof(*t));

    assert(s != NULL && (negated == 0 || negated == 1));
    if (t == NULL) {
        return next;
    }
    t->t.s = s;
    t->t.negated = negated != 0;
    t->scope = c->scope;
    t->next = next;

    return t;
}


/* --- atoms and ways ----------------------------------------------------- */

/*
 * Each puts one more in front of a list, which what shares the list's rest does
 * not see.  If failed they do nothing: the list is shorter, and not used.
 */

static schema_atom_t *
atom_new(schema_t *c, int kind, const schema_atom_t **list)
{
    schema_atom_t *a = grammar_get(c->b, sizeof(*a));

    assert(list != NULL);
    if (a != NULL) {
        a->kind = kind;
        a->scope = c->scope;
        a->next = *list;
        *list = a;
    }

    return a;
}


static void
atom_value(schema_t *c, int kind, const json_t *value, int negated,
    const schema_atom_t **list)
{
    schema_atom_t *a = atom_new(c, kind, list);

    assert(value != NULL);
    if (a != NULL) {
        a->value = value;
        a->negated = negated;
    }
}


static void
atom_count(schema_t *c, int kind, uint32_t n, const schema_atom_t **list)
{
    schema_atom_t *a = atom_new(c, kind, list);

    if (a != NULL) {
        a->n = n;
    }
}


static void
atom_name(schema_t *c, int kind, const char *name, size_t len,
    schema_term_t term, const json_t *value, const schema_atom_t **list)
{
    schema_atom_t *a = atom_new(c, kind, list);

    assert(name != NULL && term.s != NULL);
    if (a != NULL) {
        a->name = name;
        a->name_len = len;
        a->term = term;
        a->value = value;
    }
}


static void
way_put(schema_t *c, const schema_way_t **ways, unsigned types,
    const schema_atom_t *atoms, const schema_terms_t *terms)
{
    schema_way_t *w = grammar_get(c->b, sizeof(*w));

    assert(ways != NULL);
    if (w != NULL) {
        w->types = types;
        w->atoms = atoms;
        w->terms = terms;
        w->next = *ways;
        *ways = w;
    }
}


/* One of the ways must be gone; no way at all is never. */
static void
choose(schema_t *c, part_t *p, const schema_way_t *ways)
{
    choice_t *x = grammar_get(c->b, sizeof(*x));

    if (x != NULL) {
        x->ways = ways;
        x->next = p->choices;
        p->choices = x;
    }
}


/* --- keywords ----------------------------------------------------------- */

/*
 * What follows reads one keyword, of schema s, its value v.  What it asks for
 * is put into the part p: more atoms, terms, choices.  Negated, where one of a
 * schema's keywords must fail, it adds the ways in which it fails to ways.
 */

/* The types that "type" names, in a list or alone. */
static unsigned
types_of(schema_t *c, const json_t *type, const json_t *s)
{
    static const struct {
        const char *name;
        unsigned types;
    } names[] = {{"null", T_NULL}, {"boolean", T_BOOL}, {"integer", T_INT},
        {"number", T_NUMBER}, {"string", T_STRING}, {"array", T_ARRAY},
        {"object", T_OBJECT}, {"any", T_ALL}};
    unsigned types = 0;
    size_t i;

    for (i = 0; i < json_array_size(type); i++) {
        types |= types_of(c, json_array_get(type, i), s);
    }
    if (json_is_array(type)) {
        return types;
    }
    for (i = 0; json_is_string(type) && i < sizeof(names) / sizeof(names[0]);
         i++) {
        if (strcmp(names[i].name, json_string_value(type)) == 0) {
            return names[i].types;
        }
    }
    (void) grammar_schema_refuse(c, s, "type", "names no type");

    return T_ALL;
}


/* A number of things; 0: it is none, which is refused. */
static int
read_count(
    schema_t *c, const json_t *s, const char *key, const json_t *v, uint32_t *n)
{
    double d = json_number_value(v);

    assert(json_is_object(s) && key != NULL);
    if (!json_is_number(v) || d < 0 || d != floor(d)) {
        (void) grammar_schema_refuse(c, s, key, "is no whole number");
        return 0;
    }
    *n = d >= GRAMMAR_MANY - 1 ? GRAMMAR_MANY - 1 : (uint32_t) d;

    return 1;
}


/* Keywords about one type with one value; the kind is an atom's. */
typedef struct {
    const char *key;
    unsigned types;
    int kind, inverse; /* what is not so: below a minimum */
    int counts;        /* of counts: what is not so begins so far from it */
} keyword_t;

static const keyword_t keywords[] = {{"minimum", T_NUMBER, A_MIN, A_XMAX, 0},
    {"maximum", T_NUMBER, A_MAX, A_XMIN, 0},
    {"exclusiveMinimum", T_NUMBER, A_XMIN, A_MAX, 0},
    {"exclusiveMaximum", T_NUMBER, A_XMAX, A_MIN, 0},
    {"multipleOf", T_NUMBER, A_MULTIPLE, A_MULTIPLE, 0},
    {"pattern", T_STRING, A_PATTERN, A_PATTERN, 0},
    {"format", T_STRING, A_FORMAT, A_FORMAT, 0},
    {"minLength", T_STRING, A_MINLEN, A_MAXLEN, -1},
    {"maxLength", T_STRING, A_MAXLEN, A_MINLEN, 1},
    {"minItems", T_ARRAY, A_MINITEMS, A_MAXITEMS, -1},
    {"maxItems", T_ARRAY, A_MAXITEMS, A_MINITEMS, 1},
    {"minProperties", T_OBJECT, A_MINPROPS, A_MAXPROPS, -1},
    {"maxProperties", T_OBJECT, A_MAXPROPS, A_MINPROPS, 1}};


/* NULL: it is none of these. */
static const keyword_t *
keyword_of(const char *key)
{
    size_t i;

    for (i = 0; i < sizeof(keywords) / sizeof(keywords[0]); i++) {
        if (strcmp(keywords[i].key, key) == 0) {
            return &keywords[i];
        }
    }

    return NULL;
}


/* The kind of atom; in draft 4 a bound is exclusive by a flag beside it. */
static int
kind_of(const json_t *s, const keyword_t *k, int negated)
{
    int kind = negated ? k->inverse : k->kind;

    if (k->kind == A_MIN
        && json_is_true(json_object_get(s, "exclusiveMinimum"))) {
        kind = negated ? A_MAX : A_XMIN;
    }
    if (k->kind == A_MAX
        && json_is_true(json_object_get(s, "exclusiveMaximum"))) {
        kind = negated ? A_MIN : A_XMAX;
    }

    return kind;
}


/* A format that asks for nothing: 1. */
static int
format_free(schema_t *c, const json_t *s, const json_t *v)
{
    const char *re =
        json_is_string(v) ? grammar_schema_format(json_string_value(v)) : NULL;

    if (re != NULL && *re == '\0') {
        (void) grammar_schema_refuse(c, s, "format", json_string_value(v));
    }

    return re == NULL || *re == '\0';
}


/*
 * The keyword into atoms. 0: it asks for nothing; -1: not so is never.
 *
 *      not {maxLength: 3}   minLength 4        not {minLength: 0}    never
 *      not {minimum: 3}     below 3            not {pattern: x}      negated
 */
static int
keyword_atom(schema_t *c, const json_t *s, const keyword_t *k, const json_t *v,
    int negated, const schema_atom_t **list)
{
    uint32_t n;

    assert(k->kind <= A_MAXPROPS);
    if (k->kind == A_FORMAT && format_free(c, s, v)) {
        return negated ? -1 : 0;
    }
    if (k->counts != 0) {
        if (!read_count(c, s, k->key, v, &n)) {
            return 0;
        }
        if (negated && k->counts < 0 && n == 0) {
            return -1;
        }
        atom_count(c, negated ? k->inverse : k->kind,
            negated ? n + (uint32_t) k->counts : n, list);
        return 1;
    }
    if (k->types == T_NUMBER && !json_is_number(v)) {
        if (json_is_boolean(v) && k->kind >= A_XMIN && k->kind <= A_XMAX) {
            return negated ? -1 : 0;
        }
        (void) grammar_schema_refuse(c, s, k->key, "is no number");
        return 0;
    }
    if (k->types == T_STRING && !json_is_string(v)) {
        (void) grammar_schema_refuse(c, s, k->key, "is no string");
        return 0;
    }
    n = (uint32_t) kind_of(s, k, negated);
    atom_value(c, (int) n, v,
        negated && (n == A_MULTIPLE || n == A_PATTERN || n == A_FORMAT), list);

    return 1;
}


/* Since draft 6 true and false are schemas. */
static int
is_schema(const json_t *s)
{
    return json_is_object(s) || json_is_boolean(s);
}


/* Every schema of a list, or of an object's values, into terms. */
static const schema_terms_t *
list_terms(schema_t *c, const json_t *s, const char *key, int negated,
    const schema_terms_t *next)
{
    const json_t *list = json_object_get(s, key);
    json_t *v;
    size_t i;

    if (!json_is_array(list)) {
        (void) grammar_schema_refuse(c, s, key, "is no array");
    }
    json_array_foreach((json_t *) list, i, v)
    {
        if (!is_schema(v)) {
            (void) grammar_schema_refuse(c, s, key, "has what is no schema");
            break;
        }
        next = grammar_schema_term(c, v, negated, next);
    }

    return next;
}


/* Each schema of a list, or its negation, is a way. */
static void
each_of(schema_t *c, const json_t *s, const char *key, int negated,
    const schema_way_t **ways)
{
    const schema_terms_t *t = list_terms(c, s, key, negated, NULL);

    for (; t != NULL; t = t->next) {
        way_put(c, ways, T_ALL, NULL,
            grammar_schema_term(c, t->t.s, t->t.negated, NULL));
    }
}


/* One at least; where it matters to "unevaluated..." which, each selection. */
static void
any_of(schema_t *c, const json_t *s, const schema_way_t **ways)
{
    const json_t *list = json_object_get(s, "anyOf");
    const schema_terms_t *t;
    size_t n = json_array_size(list), i, set;

    if (!json_is_array(list) || (c->rest && n > ANY_MAX)) {
        (void) grammar_schema_refuse(c, s, "anyOf",
            json_is_array(list)
                ? "has too many schemas beside \"unevaluated...\""
                : "is no array");
        /* lenient: it asks for nothing */
        way_put(c, ways, T_ALL, NULL, NULL);
        return;
    }
    if (!c->rest) {
        each_of(c, s, "anyOf", 0, ways);
        return;
    }
    (void) list_terms(c, s, "anyOf", 0, NULL);
    for (set = 1; set < (size_t) 1 << n && !c->b->failed; set++) {
        for (t = NULL, i = 0; i < n; i++) {
            if (set >> i & 1) {
                t = grammar_schema_term(c, json_array_get(list, i), 0, t);
            }
        }
        way_put(c, ways, T_ALL, NULL, t);
    }
}


/*
 * Exactly one of a list: it, and the negation of those that may hold together
 * with it, which for most schemas is none.  Not: none, or some two.
 */
static void
one_of(schema_t *c, const json_t *s, int negated, const schema_way_t **ways)
{
    const schema_terms_t *all = list_terms(c, s, "oneOf", 0, NULL), *x, *y, *t;

    if (negated) {
        way_put(c, ways, T_ALL, NULL, list_terms(c, s, "oneOf", 1, NULL));
    } else if (!json_is_array(json_object_get(s, "oneOf"))) {
        /* was refused; lenient: it asks for nothing */
        way_put(c, ways, T_ALL, NULL, NULL);
    }
    for (x = all; x != NULL && !c->b->failed; x = x->next) {
        t = grammar_schema_term(c, x->t.s, 0, NULL);
        for (y = negated ? x->next : all; y != NULL; y = y->next) {
            if (x == y || !grammar_schema_meets(c, x->t, y->t)) {
                continue;
            }
            if (negated) {
                way_put(c, ways, T_ALL, NULL,
                    grammar_schema_term(
                        c, y->t.s, 0, grammar_schema_term(c, x->t.s, 0, NULL)));
            } else {
                t = grammar_schema_term(c, y->t.s, 1, t);
            }
        }
        if (!negated) {
            way_put(c, ways, T_ALL, NULL, t);
        }
    }
}


/* (if and then) or (not if and else); not: with then and else negated. */
static void
if_then(schema_t *c, const json_t *s, int negated, const schema_way_t **ways)
{
    const json_t *i = json_object_get(s, "if"), *t = json_object_get(s, "then"),
                 *e = json_object_get(s, "else");

    if (!is_schema(i) || (t != NULL && !is_schema(t))
        || (e != NULL && !is_schema(e))) {
        (void) grammar_schema_refuse(c, s, "if", "is no schema");
        if (!negated) {
            way_put(c, ways, T_ALL, NULL, NULL);
        }
        return;
    }
    if (t != NULL || !negated) {
        way_put(c, ways, T_ALL, NULL,
            grammar_schema_term(c, i, 0,
                t == NULL ? NULL : grammar_schema_term(c, t, negated, NULL)));
    }
    if (e != NULL || !negated) {
        way_put(c, ways, T_ALL, NULL,
            grammar_schema_term(c, i, 1,
                e == NULL ? NULL : grammar_schema_term(c, e, negated, NULL)));
    }
}


/* The term that nothing satisfies, and the one that all does. */
static schema_term_t
never(void)
{
    schema_term_t t = {json_true(), 1};

    return t;
}


static schema_term_t
whatever(void)
{
    schema_term_t t = {json_true(), 0};

    return t;
}


/* The name must be there, whatever it is. */
static void
require(schema_t *c, const char *name, size_t len, const schema_atom_t **list)
{
    atom_name(c, A_REQUIRED, name, len, whatever(), NULL, list);
}


/*
 * "dependencies" and what became of them: names or a schema for each name.
 *
 *      names        an atom, which the matcher knows (A_DEP)
 *      a schema     the name and it | an object without the name | no object
 *      not names    the name, and one of them is not there
 *      not it       the name, and not the schema
 */
static void
dependent(schema_t *c, const json_t *s, const char *key, int negated, part_t *p,
    const schema_way_t **ways)
{
    json_t *o = json_object_get(s, key), *v, *name;
    const schema_atom_t *list;
    const schema_way_t *own;
    const char *who;
    size_t i;

    json_object_foreach(o, who, v)
    {
        if (json_is_array(v) && !negated) {
            atom_name(c, A_DEP, who, strlen(who), whatever(), v, &p->atoms);
        } else if (json_is_array(v)) {
            json_array_foreach(v, i, name)
            {
                if (!json_is_string(name)) {
                    continue;
                }
                list = NULL;
                require(c, who, strlen(who), &list);
                atom_name(c, A_PROP, json_string_value(name),
                    json_string_length(name), never(), NULL, &list);
                way_put(c, ways, T_OBJECT, list, NULL);
            }
        } else if (!is_schema(v)) {
            (void) grammar_schema_refuse(c, s, key, "has what is no schema");
        } else {
            list = NULL;
            require(c, who, strlen(who), &list);
            if (negated) {
                way_put(c, ways, T_OBJECT, list,
                    grammar_schema_term(c, v, 1, NULL));
                continue;
            }
            own = NULL;
            way_put(
                c, &own, T_OBJECT, list, grammar_schema_term(c, v, 0, NULL));
            list = NULL;
            atom_name(c, A_PROP, who, strlen(who), never(), NULL, &list);
            way_put(c, &own, T_OBJECT, list, NULL);
            way_put(c, &own, T_ALL & ~T_OBJECT, NULL, NULL);
            choose(c, p, own);
        }
    }
}


/* Names that must be there; not: one of them is not. */
static void
required(schema_t *c, const json_t *s, int negated, part_t *p,
    const schema_way_t **ways)
{
    json_t *v;
    const json_t *o = json_object_get(s, "required");
    const schema_atom_t *list;
    size_t i;

    /* draft 3 had a flag, which later ones ignore */
    if (!json_is_array(o) && !json_is_boolean(o)) {
        (void) grammar_schema_refuse(c, s, "required", "is no array");
    }
    json_array_foreach((json_t *) o, i, v)
    {
        if (!json_is_string(v)) {
            (void) grammar_schema_refuse(
                c, s, "required", "has what is no name");
            return;
        }
        if (!negated) {
            require(c, json_string_value(v), json_string_length(v), &p->atoms);
            continue;
        }
        list = NULL;
        atom_name(c, A_PROP, json_string_value(v), json_string_length(v),
            never(), NULL, &list);
        way_put(c, ways, T_OBJECT, list, NULL);
    }
}


/* Some property is there and is not what it should be. */
static void
not_properties(schema_t *c, const json_t *s, const schema_way_t **ways)
{
    const json_t *o = json_object_get(s, "properties");
    const schema_atom_t *list;
    schema_term_t t;
    const char *key;
    json_t *v;

    json_object_foreach((json_t *) o, key, v)
    {
        t.s = v;
        t.negated = 1;
        list = NULL;
        require(c, key, strlen(key), &list);
        atom_name(c, A_PROP, key, strlen(key), t, NULL, &list);
        way_put(c, ways, T_OBJECT, list, NULL);
    }
}


/* Does a keyword ask for nothing, or only tell? */
static int
is_quiet(const char *key, const json_t *v)
{
    return (json_is_true(v) && strcmp(key, "uniqueItems") != 0)
           || (json_is_false(v) && strcmp(key, "uniqueItems") == 0)
           || (json_is_object(v) && json_object_size(v) == 0);
}


/* Keywords whose negation would say that something is there: some item, some
 * key without a name.  A matcher would have to remember whether it was. */
static void
not_there(schema_t *c, const json_t *s, const char *key, const json_t *v)
{
    if (!is_quiet(key, v)) {
        (void) grammar_schema_refuse(
            c, s, key, "cannot be enforced within \"not\"");
    }
}


/* So many items at least must be as a term says. */
static schema_atom_t *
contain(schema_t *c, const json_t *s, const json_t *v, int negated, uint32_t n,
    const schema_atom_t **list)
{
    schema_atom_t *a = atom_new(c, A_CONTAINS, list);

    if (a != NULL) {
        a->schema = s;
        a->term.s = v;
        a->term.negated = negated;
        a->n = n;
    }

    return a;
}


/* "contains" and the two numbers beside it, which old drafts do not know.  Not
 * so: no item matches, if one must. */
static void
contains(schema_t *c, const json_t *s, const json_t *v, int negated, part_t *p,
    const schema_way_t **ways)
{
    const json_t *least = c->old ? NULL : json_object_get(s, "minContains"),
                 *most = c->old ? NULL : json_object_get(s, "maxContains");
    const schema_atom_t *list = NULL;
    schema_atom_t *a;
    uint32_t n = 1, m;

    if (!is_schema(v)) {
        (void) grammar_schema_refuse(c, s, "contains", "is no schema");
        return;
    }
    if ((least != NULL && !read_count(c, s, "minContains", least, &n))
        || (most != NULL && !read_count(c, s, "maxContains", most, &m))) {
        return;
    }
    if (!negated) {
        a = contain(c, s, v, 0, n, &p->atoms);
        if (a != NULL) {
            a->value = most;
        }
        return;
    }
    if (most != NULL || n > 1) {
        (void) grammar_schema_refuse(
            c, s, "contains", "cannot be enforced within \"not\"");
        return;
    }
    a = n == 0 ? NULL : atom_new(c, A_EACH, &list);
    if (a != NULL) {
        a->term.s = v;
        a->term.negated = 1;
        way_put(c, ways, T_ARRAY, list, NULL);
    }
}


/* Keywords about several items at once. 1: key is one. */
static int
several(schema_t *c, const json_t *s, const char *key, const json_t *v,
    int negated, part_t *p, const schema_way_t **ways)
{
    const schema_atom_t *list = NULL;
    schema_atom_t *a;

    if (strcmp(key, "contains") == 0) {
        contains(c, s, v, negated, p, ways);
    } else if (strcmp(key, "uniqueItems") == 0) {
        if (negated) {
            not_there(c, s, key, v);
        } else if (!is_quiet(key, v)) {
            a = atom_new(c, A_UNIQUE, &p->atoms);
            if (a != NULL) {
                a->schema = s;
            }
        }
    } else if (strcmp(key, "items") == 0 && negated && is_schema(v)
               && json_object_get(s, "prefixItems") == NULL) {
        /* some item is not so */
        (void) contain(c, s, v, 1, 1, &list);
        way_put(c, ways, T_ARRAY, list, NULL);
    } else {
        return 0;
    }

    return 1;
}


/* What has no form here. 1: key is one of these. */
static int
unsupported(schema_t *c, const json_t *s, const char *key, const json_t *v)
{
    static const char *const list[] = {
        "$recursiveRef", "extends", "disallow", "divisibleBy"};
    size_t i;

    for (i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
        if (strcmp(list[i], key) == 0) {
            if (!is_quiet(key, v)) {
                (void) grammar_schema_refuse(c, s, key, "cannot be enforced");
            }
            return 1;
        }
    }

    return 0;
}


/* "unevaluated...": of what no schema in its scope has looked at. 1: key is
 * one. */
static int
rest(schema_t *c, const json_t *s, const char *key, const json_t *v,
    int negated, part_t *p)
{
    schema_atom_t *a;
    int kind = strcmp(key, "unevaluatedProperties") == 0 ? A_REST_PROPS
               : strcmp(key, "unevaluatedItems") == 0    ? A_REST_ITEMS
                                                         : -1;

    if (kind < 0) {
        return 0;
    }
    if (negated) {
        not_there(c, s, key, v);
        return 1;
    }
    if (!is_schema(v)) {
        (void) grammar_schema_refuse(c, s, key, "is no schema");
        return 1;
    }
    a = atom_new(c, kind, &p->atoms);
    if (a != NULL) {
        a->schema = s;
        a->term.s = v;
    }

    return 1;
}


/* Keywords of arrays and objects whose schemas are read where they stand, by
 * one atom for all of a schema: what "additional" means is seen beside the
 * others only. 1: key is one. */
static int
structure(schema_t *c, const json_t *s, const char *key, const json_t *v,
    int negated, part_t *p)
{
    static const char *const items[] = {
        "items", "prefixItems", "additionalItems"};
    static const char *const props[] = {
        "properties", "patternProperties", "additionalProperties"};
    const schema_atom_t *old;
    schema_atom_t *a;
    size_t i;
    int kind = -1;

    for (i = 0; i < 3; i++) {
        kind = strcmp(key, items[i]) == 0   ? A_ITEMS
               : strcmp(key, props[i]) == 0 ? A_PROPS
                                            : kind;
    }
    if (kind < 0) {
        return 0;
    }
    if (negated) {
        not_there(c, s, key, v);
        return 1;
    }
    for (old = p->atoms; old != NULL; old = old->next) {
        if (old->kind == kind && old->schema == s) {
            return 1;
        }
    }
    a = atom_new(c, kind, &p->atoms);
    if (a != NULL) {
        a->schema = s;
    }

    return 1;
}


/* Values of "enum", or the one of "const", as an array, which is kept until the
 * compilation ends. */
static void
enumerate(schema_t *c, const json_t *s, const char *key, const json_t *v,
    int negated, part_t *p, const schema_way_t **ways)
{
    const schema_atom_t *list = NULL;
    json_t *values = (json_t *) v;

    if (strcmp(key, "const") == 0) {
        values = json_pack("[O]", v);
        if (json_array_append_new(c->consts, values) != 0) {
            grammar_fail(c->b, "the grammar needs too much memory");
            return;
        }
    } else if (!json_is_array(v)) {
        (void) grammar_schema_refuse(c, s, key, "is no array");
        return;
    }
    if (negated) {
        atom_value(c, A_ENUM, values, 1, &list);
        way_put(c, ways, T_ALL, list, NULL);
    } else {
        atom_value(c, A_ENUM, values, 0, &p->atoms);
    }
}


/* Keywords that combine schemas. 1: key is one. */
static int
combine(schema_t *c, const json_t *s, const char *key, const json_t *v,
    int negated, part_t *p, const schema_way_t **ways)
{
    const schema_way_t *own = NULL;
    const schema_terms_t *t;

    if (strcmp(key, "allOf") == 0) {
        if (negated) {
            each_of(c, s, key, 1, ways);
        } else {
            p->todo = list_terms(c, s, key, 0, p->todo);
        }
    } else if (strcmp(key, "anyOf") == 0) {
        if (negated) {
            t = list_terms(c, s, key, 1, NULL);
            way_put(c, ways, T_ALL, NULL, t);
        } else {
            any_of(c, s, &own);
            choose(c, p, own);
        }
    } else if (strcmp(key, "oneOf") == 0) {
        one_of(c, s, negated, negated ? ways : &own);
        if (!negated) {
            choose(c, p, own);
        }
    } else if (strcmp(key, "if") == 0) {
        if (json_object_get(s, "then") != NULL
            || json_object_get(s, "else") != NULL || (c->rest && !negated)) {
            if_then(c, s, negated, negated ? ways : &own);
            if (!negated) {
                choose(c, p, own);
            }
        }
    } else if (strcmp(key, "not") == 0) {
        if (!is_schema(v)) {
            (void) grammar_schema_refuse(c, s, key, "is no schema");
        } else if (negated) {
            way_put(c, ways, T_ALL, NULL, grammar_schema_term(c, v, 0, NULL));
        } else {
            p->todo = grammar_schema_term(c, v, 1, p->todo);
        }
    } else {
        return 0;
    }

    return 1;
}


/* What is referred to is one term more; not: is one way. */
static void
reference(schema_t *c, const json_t *s, const json_t *v, int negated, part_t *p,
    const schema_way_t **ways)
{
    const json_t *to = NULL;

    if (json_is_string(v)) {
        to = grammar_schema_ref(c, s, json_string_value(v));
    } else {
        (void) grammar_schema_refuse(c, s, "$ref", "is no string");
    }
    if (to == NULL) {
        return;
    }
    if (negated) {
        way_put(c, ways, T_ALL, NULL, grammar_schema_term(c, to, 1, NULL));
    } else {
        p->todo = grammar_schema_term(c, to, 0, p->todo);
    }
}


/* Is a dynamic reference's anchor the only one of its name, and so what it
 * refers to wherever it is met? */
static int
is_static(const schema_t *c, const char *ref)
{
    uint32_t i, n = 0;

    for (i = 0; i < c->anchors_n && ref != NULL && *ref == '#'; i++) {
        n += strcmp(c->anchors[i].name, ref + 1) == 0;
    }

    return n == 1 && c->resources_n == 1;
}


/* One keyword of s; its negation is another way. */
static void
keyword(schema_t *c, const json_t *s, const char *key, const json_t *v,
    int negated, part_t *p, const schema_way_t **ways)
{
    const keyword_t *k = keyword_of(key);
    const schema_atom_t *list = NULL;
    schema_atom_t *a;
    unsigned types;

    assert(json_is_object(s) && v != NULL);
    assert(negated == 0 || negated == 1);
    (void) grammar_tick(c->b);
    if (grammar_schema_shape(c, s, key, v) != 0) {
        return;
    }
    if (k != NULL) {
        if (!negated) {
            (void) keyword_atom(c, s, k, v, 0, &p->atoms);
        } else if (keyword_atom(c, s, k, v, 1, &list) > 0) {
            way_put(c, ways, k->types, list, NULL);
        }
    } else if (strcmp(key, "type") == 0) {
        types = types_of(c, v, s);
        if (negated) {
            way_put(c, ways, T_ALL & ~types, NULL, NULL);
        } else {
            p->types &= types;
        }
    } else if (strcmp(key, "enum") == 0 || strcmp(key, "const") == 0) {
        enumerate(c, s, key, v, negated, p, ways);
    } else if (strcmp(key, "required") == 0) {
        required(c, s, negated, p, ways);
    } else if (strcmp(key, "properties") == 0 && negated) {
        not_properties(c, s, ways);
    } else if (strcmp(key, "dependencies") == 0
               || strcmp(key, "dependentRequired") == 0
               || strcmp(key, "dependentSchemas") == 0) {
        dependent(c, s, key, negated, p, ways);
    } else if (strcmp(key, "propertyNames") == 0) {
        if (negated) {
            not_there(c, s, key, v);
        } else if (!is_schema(v)) {
            (void) grammar_schema_refuse(c, s, key, "is no schema");
        } else {
            a = atom_new(c, A_NAMES, &p->atoms);
            if (a != NULL) {
                a->term.s = v;
            }
        }
    } else if (strcmp(key, "$ref") == 0) {
        reference(c, s, v, negated, p, ways);
    } else if (strcmp(key, "$dynamicRef") == 0) {
        if (is_static(c, json_string_value(v))) {
            reference(c, s, v, negated, p, ways);
        } else {
            (void) grammar_schema_refuse(c, s, key, "cannot be enforced");
        }
    } else if (!combine(c, s, key, v, negated, p, ways)
               && !several(c, s, key, v, negated, p, ways)
               && !structure(c, s, key, v, negated, p)
               && !rest(c, s, key, v, negated, p)) {
        /* what is left tells, or has no form */
        (void) unsupported(c, s, key, v);
    }
}


/* --- the product -------------------------------------------------------- */

/* Was a term taken apart already on the way here? */
static int
met(const schema_terms_t *seen, schema_term_t t)
{
    while (seen != NULL && (seen->t.s != t.s || seen->t.negated != t.negated)) {
        seen = seen->next;
    }

    return seen != NULL;
}


/* The scope of what s asks, which was applied in up; NULL: failed. */
static const schema_scope_t *
scope_of(schema_t *c, const json_t *s, const schema_scope_t *up)
{
    schema_scope_t *scope = grammar_get(c->b, sizeof(*scope));

    if (scope != NULL) {
        scope->s = s;
        scope->up = up;
    }

    return scope;
}


/*
 * Takes all terms apart, also those that come up on the way, until atoms and
 * choices are left; 0: they cannot be satisfied, or failed.  A negated schema
 * is a choice of keyword: one of them must fail.
 */
static int
take_apart(schema_t *c, part_t *p)
{
    const schema_way_t *ways;
    const schema_scope_t *scope;
    const json_t *ref;
    const char *key;
    schema_term_t t;
    json_t *v;

    while (p->todo != NULL && !grammar_tick(c->b) && p->types != 0) {
        t = p->todo->t;
        scope = p->todo->scope;
        p->todo = p->todo->next;
        if (json_is_boolean(t.s)) {
            if (json_is_true(t.s) == (t.negated != 0)) {
                return 0;
            }
            continue;
        }
        if (met(p->seen, t)) {
            continue;
        }
        p->seen = grammar_schema_term(c, t.s, t.negated, p->seen);
        /* what is not so looks at nothing */
        c->scope = t.negated ? NULL : scope_of(c, t.s, scope);

        ways = NULL;
        ref = json_object_get(t.s, "$ref");
        if (ref != NULL && c->old) {
            reference(c, t.s, ref, t.negated, p, &ways);
        } else {
            json_object_foreach((json_t *) t.s, key, v)
            {
                keyword(c, t.s, key, v, t.negated, p, &ways);
            }
        }
        if (t.negated) {
            choose(c, p, ways);
        }
    }

    return !c->b->failed && p->types != 0;
}


/*
 * Goes each way of the first choice, with what is left of the others, to the
 * end: disjunctive normal form, depth first, so that a way that no type is left
 * for is given up before it is multiplied by the next choice.  p is a copy and
 * its lists are only put in front of, so there is nothing to undo.
 */
static void
multiply(schema_t *c, part_t p, uint32_t depth, schema_flat_t ***end)
{
    const choice_t *x;
    const schema_way_t *w;
    const schema_atom_t *a;
    const schema_terms_t *t;
    schema_flat_t *f;
    part_t q;

    assert(p.types != 0 && *end != NULL);
    if (depth > DEPTH_MAX) {
        grammar_fail(c->b, "the schema combines too many schemas");
    }
    if (!take_apart(c, &p)) {
        return;
    }

    assert(p.types != 0 && p.todo == NULL);
    if (p.choices == NULL) {
        f = grammar_get(c->b, sizeof(*f));
        if (++c->flats > FLATS_MAX) {
            grammar_fail(c->b, "the schema has too many alternatives");
        }
        if (f != NULL) {
            f->types = p.types;
            f->atoms = p.atoms;
            **end = f;
            *end = &f->next;
        }
        return;
    }

    x = p.choices;
    p.choices = x->next;
    for (w = x->ways; w != NULL && !c->b->failed; w = w->next) {
        q = p;
        q.types &= w->types;
        for (a = w->atoms; a != NULL; a = a->next) {
            schema_atom_t *own = atom_new(c, a->kind, &q.atoms);

            if (own != NULL) {
                const schema_atom_t *next = own->next;

                *own = *a;
                own->next = next;
            }
        }
        for (t = w->terms; t != NULL; t = t->next) {
            c->scope = t->scope;
            q.todo = grammar_schema_term(c, t->t.s, t->t.negated, q.todo);
        }
        if (q.types != 0) {
            multiply(c, q, depth + 1, end);
        }
    }
}


schema_flat_t *
grammar_schema_flats(schema_t *c, const schema_terms_t *terms)
{
    const schema_scope_t *was = c->scope;
    schema_flat_t *first = NULL, **end = &first;
    part_t p = {T_ALL, NULL, NULL, NULL, NULL};

    /* another value: nothing has looked at it */
    c->scope = NULL;
    for (; terms != NULL; terms = terms->next) {
        p.todo = grammar_schema_term(c, terms->t.s, terms->t.negated, p.todo);
    }
    multiply(c, p, 0, &end);
    c->scope = was;
    assert(*end == NULL || c->b->failed);

    return c->b->failed ? NULL : first;
}
