/*
 * Arrays of a schema: their items, how many, and what is asked of all of them
 * together.
 *
 * DESIGN.  A rule for each of the first items that some schema names, and one
 * for all that are behind them, is an array as the matcher knows it.  Two
 * keywords look at several items at once:
 *
 *      uniqueItems    where items have few values, they are to the matcher what
 *                     keys are in an object: a set of those that were seen
 *      contains       any items, one that matches, any items; what matches is
 *                     guessed, and the guesses are threads of the matcher
 *
 *      {contains: Y, minItems: 2}   [ Y, A, A... ]  |  [ A, A..., Y, A... ]
 *      {contains: Y, prefixItems: [P]}
 *                                   [ P and Y, A... ]  |  [ P, A..., Y, A... ]
 *
 * What is guessed can always be brought to an end: a guess that fails is gone,
 * and one that waits for its item may have it next.
 *
 * Without a form are: unique items whose values are not few, or may begin
 * alike (1 and 12), or come behind others that the schema names; "contains"
 * beside such, or beside "unevaluatedItems", or twice, or more than once or
 * counted among items that the schema names.
 *
 * All memory is the build's.
 */
#include "grammar_schema.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define VALUES_MAX 128 /* of items that are unique */
#define COPIES_MAX 16  /* of items that are counted beside "contains" */


/* --- unique items ------------------------------------------------------- */

/* A value, and how it is written. */
typedef struct {
    const json_t *v;
    const char *s;
    size_t len;
} value_t;

typedef struct {
    value_t v[VALUES_MAX];
    uint32_t n;
} values_t;


/* One more, unless there is one that is equal; 0: it has no place here. */
static int
value_put(schema_t *c, values_t *x, const json_t *v)
{
    char *s, *own;
    uint32_t i;

    if (json_is_array(v) || json_is_object(v) || c->b->failed) {
        return 0;
    }
    for (i = 0; i < x->n; i++) {
        if (grammar_schema_same(c, x->v[i].v, v)) {
            return 1;
        }
    }
    if (x->n == VALUES_MAX) {
        return 0;
    }

    own = grammar_get(c->b, 64);
    if (own != NULL && json_is_number(v)) {
        grammar_schema_digits(v, own, 64);
    } else if (own != NULL) {
        s = json_dumps(v, JSON_ENCODE_ANY);
        own = s == NULL ? NULL : grammar_get(c->b, strlen(s) + 1);
        if (own != NULL) {
            strcpy(own, s);
        }
        free(s);
    }
    if (own == NULL) {
        grammar_fail(c->b, "the grammar needs too much memory");
        return 0;
    }
    x->v[x->n].v = v;
    x->v[x->n].s = own;
    x->v[x->n++].len = strlen(own);

    return 1;
}


/* The values that one flat allows; 0: they are not few. */
static int
flat_values(schema_t *c, const schema_flat_t *f, values_t *x)
{
    const schema_atom_t *a;
    json_t *v;
    size_t i;

    for (a = f->atoms; a != NULL && (a->kind != A_ENUM || a->negated);
         a = a->next) {
    }
    if (a != NULL) {
        json_array_foreach((json_t *) a->value, i, v)
        {
            if (grammar_schema_flat_holds(c, f, v, a) && !value_put(c, x, v)) {
                return 0;
            }
        }
        return 1;
    }
    if (f->types & ~(unsigned) (T_NULL | T_BOOL)) {
        return 0;
    }
    for (i = 0; i < 3; i++) {
        v = i == 0 ? json_null() : i == 1 ? json_true() : json_false();
        if (grammar_schema_flat_holds(c, f, v, NULL) && !value_put(c, x, v)) {
            return 0;
        }
    }

    return 1;
}


static int
by_text(const void *a, const void *b)
{
    return strcmp(((const value_t *) a)->s, ((const value_t *) b)->s);
}


/* All values that an item may have, in the order of what is written; 0: they
 * are not few, or one begins as another is. */
static int
item_values(schema_t *c, const schema_flat_t *f, values_t *x)
{
    const schema_terms_t *terms = grammar_schema_item_terms(c, f, 0);
    const schema_flat_t *item;
    uint32_t i;

    if (terms == NULL || grammar_schema_prefix(f) > 0) {
        return 0;
    }
    for (item = grammar_schema_flats(c, terms); item != NULL;
         item = item->next) {
        if (!flat_values(c, item, x)) {
            return 0;
        }
    }
    qsort(x->v, x->n, sizeof(x->v[0]), by_text);
    for (i = 1; i < x->n; i++) {
        if (strncmp(x->v[i - 1].s, x->v[i].s, x->v[i - 1].len) == 0) {
            return 0;
        }
    }

    return !c->b->failed;
}


/* The rule of items that are unique; 0: failed. */
static uint32_t
unique_rule(schema_t *c, const values_t *x, const grammar_array_t *array)
{
    grammar_object_t *o = grammar_get(c->b, sizeof(*o));
    uint32_t nodes[VALUES_MAX], rule = grammar_rule(c->b, NULL),
                                nothing = grammar_rule(c->b, NULL), i;

    assert(x->n <= VALUES_MAX);
    if (c->b->failed) {
        return 0;
    }
    c->b->rules[nothing].node = grammar_empty(c->b);
    o->array = 1;
    o->props = o->classes = x->n;
    o->words = (x->n + 31) / 32;
    o->min = array->min;
    o->max = array->max < x->n ? array->max : x->n;
    o->required = grammar_get(c->b, (o->words + 1) * sizeof(*o->required));
    o->order = grammar_get(c->b, (x->n + 1) * sizeof(*o->order));
    o->rule = grammar_get(c->b, (x->n + 1) * sizeof(*o->rule));
    for (i = 0; i < x->n && !c->b->failed; i++) {
        o->order[i] = i;
        o->rule[i] = nothing;
        nodes[i] = json_is_string(x->v[i].v)
                       ? grammar_schema_quoted(c, json_string_value(x->v[i].v),
                           json_string_length(x->v[i].v))
                       : grammar_bytes(c->b, x->v[i].s, x->v[i].len);
    }
    if (!c->b->failed) {
        o->key = grammar_dfa(c->b, nodes, x->n, NULL, NULL);
        c->b->rules[rule].kind = RULE_OBJECT;
        c->b->rules[rule].u.object = o;
    }

    return rule;
}


/* --- an item that matches ----------------------------------------------- */

/* An item behind others, or in front of them. */
typedef struct {
    uint32_t before, behind; /* "item," and ",item" */
    uint32_t item;
} item_t;


static item_t
item_of(schema_t *c, uint32_t comma, const schema_terms_t *terms)
{
    item_t x;

    x.item = grammar_ref_node(c->b, grammar_schema_rule(c, terms));
    x.before = grammar_seq2(c->b, x.item, comma);
    x.behind = grammar_seq2(c->b, comma, x.item);

    return x;
}


/* One that matches among min to max items: with so many in front of it. */
static uint32_t
one_among(schema_t *c, item_t any, item_t one, uint32_t min, uint32_t max)
{
    uint32_t kids[3], i, last = max == GRAMMAR_MANY ? min : max - 1, more;
    grammar_list_t l = {NULL, 0, 0};

    assert(min <= max && max > 0);
    for (i = 0; i <= last && !c->b->failed; i++) {
        more = i + 1 < min ? min - 1 - i : 0;
        kids[0] = grammar_rep(c->b, any.before, i,
            max == GRAMMAR_MANY && i == last ? GRAMMAR_MANY : i);
        kids[1] = one.item;
        kids[2] = grammar_rep(c->b, any.behind, more,
            max == GRAMMAR_MANY ? GRAMMAR_MANY : max - 1 - i);
        (void) grammar_list_put(c->b, &l, grammar_seq(c->b, kids, 3));
    }

    return grammar_list_alt(c->b, &l);
}


/* So many that match, and others. */
static uint32_t
some_among(schema_t *c, item_t other, item_t one, uint32_t min, uint32_t max)
{
    uint32_t kids[4], next, none;

    assert(min <= max && max > 0);
    next = grammar_seq2(
        c->b, grammar_rep(c->b, other.behind, 0, GRAMMAR_MANY), one.behind);
    kids[0] = grammar_rep(c->b, other.before, 0, GRAMMAR_MANY);
    kids[1] = one.item;
    kids[2] = grammar_rep(c->b, next, min == 0 ? 0 : min - 1,
        max == GRAMMAR_MANY ? GRAMMAR_MANY : max - 1);
    kids[3] = grammar_rep(c->b, other.behind, 0, GRAMMAR_MANY);
    next = grammar_seq(c->b, kids, 4);
    if (min > 0) {
        return next;
    }
    none = grammar_rep(c->b,
        grammar_seq2(
            c->b, other.item, grammar_rep(c->b, other.behind, 0, GRAMMAR_MANY)),
        0, 1);

    return grammar_alt2(c->b, none, next);
}


/* One that matches among items of which the first n have terms of their own: it
 * is one of these, or one behind them. */
static uint32_t
one_named(schema_t *c, const schema_flat_t *f, const schema_atom_t *a,
    uint32_t comma, uint32_t n)
{
    uint32_t i, k, kids[3], tail, front = grammar_empty(c->b);
    const schema_terms_t *terms = grammar_schema_item_terms(c, f, n);
    item_t any = item_of(c, comma, terms), own[COPIES_MAX],
           one = item_of(c, comma,
               grammar_schema_term(c, a->term.s, a->term.negated, terms));
    grammar_list_t l = {NULL, 0, 0};

    assert(n > 0 && n <= COPIES_MAX);
    tail = grammar_rep(c->b, any.behind, 0, GRAMMAR_MANY);
    for (i = 0; i < n && !c->b->failed; i++) {
        own[i] = item_of(c, comma, grammar_schema_item_terms(c, f, i));
        front = grammar_seq2(c->b, front, own[i].before);
    }

    /* behind all of them */
    kids[0] = grammar_seq2(
        c->b, front, grammar_rep(c->b, any.before, 0, GRAMMAR_MANY));
    kids[1] = one.item;
    kids[2] = tail;
    (void) grammar_list_put(c->b, &l, grammar_seq(c->b, kids, 3));

    /* or one of them: what is behind it need not be there */
    for (i = n; i-- > 0 && !c->b->failed;) {
        front = grammar_empty(c->b);
        for (k = 0; k < i; k++) {
            front = grammar_seq2(c->b, front, own[k].before);
        }
        one = item_of(c, comma,
            grammar_schema_term(c, a->term.s, a->term.negated,
                grammar_schema_item_terms(c, f, i)));
        kids[0] = front;
        kids[1] = one.item;
        kids[2] = tail;
        (void) grammar_list_put(c->b, &l, grammar_seq(c->b, kids, 3));
        tail = grammar_rep(c->b, grammar_seq2(c->b, own[i].behind, tail), 0, 1);
    }

    return grammar_list_alt(c->b, &l);
}


/* How many must match, at most; GRAMMAR_MANY: no bound. */
static uint32_t
contains_max(const schema_atom_t *a)
{
    double d = json_number_value(a->value);

    assert(a->kind == A_CONTAINS);

    return a->value == NULL || d >= GRAMMAR_MANY ? GRAMMAR_MANY : (uint32_t) d;
}


/* What is between the brackets; *form: 0 if it has none here. */
static uint32_t
contains_body(schema_t *c, const schema_flat_t *f, const schema_atom_t *a,
    const grammar_array_t *array, int *form)
{
    const schema_terms_t *terms = grammar_schema_item_terms(c, f, 0);
    uint32_t comma, kids[3], most = contains_max(a);
    uint32_t named = grammar_schema_prefix(f);
    int counted = array->min > 1 || array->max != GRAMMAR_MANY;
    item_t any, one;

    kids[0] = kids[2] = grammar_json_white(c->b);
    kids[1] = grammar_bytes(c->b, ",", 1);
    comma = grammar_seq(c->b, kids, 3);
    if (named > 0) {
        *form = named <= COPIES_MAX && !counted && a->n == 1
                && most == GRAMMAR_MANY;
        return *form ? one_named(c, f, a, comma, named) : 0;
    }
    one = item_of(
        c, comma, grammar_schema_term(c, a->term.s, a->term.negated, terms));
    *form =
        counted
            ? a->n == 1 && most == GRAMMAR_MANY && array->min <= COPIES_MAX
                  && (array->max == GRAMMAR_MANY || array->max <= COPIES_MAX)
            : a->n <= COPIES_MAX && (most == GRAMMAR_MANY || most <= COPIES_MAX)
                  && (array->min == 0 || a->n > 0);
    if (!*form || a->n > most || array->max == 0) {
        return 0;
    }
    if (most == 0) {
        any = item_of(c, comma,
            grammar_schema_term(c, a->term.s, !a->term.negated, terms));
        return grammar_rep(c->b,
            grammar_seq2(
                c->b, any.item, grammar_rep(c->b, any.behind, 0, GRAMMAR_MANY)),
            0, 1);
    }
    any = item_of(c, comma,
        most == GRAMMAR_MANY
            ? terms
            : grammar_schema_term(c, a->term.s, !a->term.negated, terms));

    return counted ? one_among(c, any, one, array->min, array->max)
                   : some_among(c, any, one, a->n, most);
}


/* An array with items that match; 0: it has no form, or failed. */
static uint32_t
contains_node(schema_t *c, const schema_flat_t *f, const schema_atom_t *a,
    const grammar_array_t *array, int *form)
{
    uint32_t kids[5];

    kids[0] = grammar_bytes(c->b, "[", 1);
    kids[1] = kids[3] = grammar_json_white(c->b);
    kids[2] = contains_body(c, f, a, array, form);
    kids[4] = grammar_bytes(c->b, "]", 1);

    return grammar_seq(c->b, kids, 5);
}


/* --- arrays ------------------------------------------------------------- */

/* How many items there may be, and the keywords about several of them. */
static void
demands(const schema_flat_t *f, grammar_array_t *x,
    const schema_atom_t **unique, const schema_atom_t **contains, int *alone)
{
    const schema_atom_t *a;
    int rest = 0;

    x->max = GRAMMAR_MANY;
    *alone = 1;
    for (a = f->atoms; a != NULL; a = a->next) {
        if (a->kind == A_MINITEMS && a->n > x->min) {
            x->min = a->n;
        } else if (a->kind == A_MAXITEMS && a->n < x->max) {
            x->max = a->n;
        } else if (a->kind == A_UNIQUE) {
            *unique = a;
        } else if (a->kind == A_CONTAINS && (a->n > 0 || a->value != NULL)) {
            *alone = *contains == NULL;
            *contains = a;
        }
        rest |= a->kind == A_REST_ITEMS;
    }
    /* what is contained has been looked at */
    for (a = f->atoms; a != NULL && rest; a = a->next) {
        if (a->kind == A_CONTAINS) {
            *contains = a;
            *alone = 0;
        }
    }
    if (x->max <= 1) {
        *unique = NULL;
    }
    if (*unique != NULL) {
        *alone = 0;
    }
}


/* A rule for each of the first items that some schema names, and one for all
 * that are behind them. */
static uint32_t
plain_node(schema_t *c, const schema_flat_t *f, grammar_array_t *x)
{
    uint32_t i, n = grammar_schema_prefix(f), rule;

    assert(x->min <= x->max);
    x->prefix_n = n;
    x->prefix = grammar_get(c->b, (n + 1) * sizeof(*x->prefix));
    for (i = 0; i <= n && !c->b->failed; i++) {
        rule = grammar_schema_rule(c, grammar_schema_item_terms(c, f, i));
        if (i < n) {
            x->prefix[i] = rule;
        } else {
            x->rest = rule;
        }
    }
    rule = grammar_rule(c->b, NULL);
    if (c->b->failed) {
        return 0;
    }
    c->b->rules[rule].kind = RULE_ARRAY;
    c->b->rules[rule].u.array = x;

    return grammar_ref_node(c->b, rule);
}


/* Refused by the schema that asks for it; lenient: it asks for nothing. */
static int
refuse(schema_t *c, const schema_atom_t *a, const char *keyword)
{
    return grammar_schema_refuse(
        c, a->schema, keyword, "cannot be enforced for such items");
}


uint32_t
grammar_schema_array(schema_t *c, const schema_flat_t *f)
{
    grammar_array_t *x = grammar_get(c->b, sizeof(*x));
    const schema_atom_t *unique = NULL, *contains = NULL;
    values_t *values;
    uint32_t node;
    int alone, form = 0;

    assert(f->types & T_ARRAY);
    if (x == NULL) {
        return 0;
    }
    demands(f, x, &unique, &contains, &alone);
    if (x->min > x->max) {
        return 0;
    }

    if (contains != NULL) {
        node = alone ? contains_node(c, f, contains, x, &form) : 0;
        if (form || c->b->failed || refuse(c, contains, "contains")) {
            return node;
        }
    }
    if (unique != NULL) {
        values = grammar_get(c->b, sizeof(*values));
        if (values != NULL && item_values(c, f, values)) {
            return grammar_ref_node(c->b, unique_rule(c, values, x));
        }
        if (c->b->failed || refuse(c, unique, "uniqueItems")) {
            return 0;
        }
    }

    return plain_node(c, f, x);
}
