/*
 * Flats become nodes, and sub-schemas rules.
 *
 * DESIGN.  A rule is a set of terms, made once however often it is asked for;
 * so references in circles are rules that call each other, and "allOf" of two
 * objects is one object whose properties are the terms of both.  Rules are made
 * from a list of those that wait, not by recursion.
 *
 * A string with patterns is an intersection of automata; one with lengths only
 * is counted.  The keys of an object are one automaton that tells names from
 * each other, from those that patterns match (each combination of patterns is a
 * class), and from the rest.
 *
 * Names are written in one way only (grammar_nfa.c), so that one cannot come in
 * disguise, as "\u0061" for "a", and pass for one that is not known.
 */
#include "grammar_schema.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define COPIES_SHORT 12 /* characters of a string; more are counted */
#define STATES_LARGE 16 /* of a pattern: it is worth a rule of its own */


/* --- rules -------------------------------------------------------------- */

/* By address: two uses of one schema have one json_t, and within a compilation
 * any order will do. */
static int
by_term(const void *a, const void *b)
{
    const schema_term_t *x = a, *y = b;

    return x->s != y->s ? (x->s > y->s ? 1 : -1) : x->negated - y->negated;
}


/* Terms in order, each once, without those that ask for nothing: equal sets are
 * equal lists, and have the same hash. */
static const schema_terms_t *
normal(schema_t *c, const schema_terms_t *terms, uint32_t *n, uint32_t *hash)
{
    const schema_terms_t *t;
    schema_term_t *v;
    uint32_t i, k = 0;
    uint64_t h = 0;

    *n = *hash = 0;
    for (t = terms; t != NULL; t = t->next) {
        k++;
    }
    (void) grammar_spend(c->b, 16 * (size_t) k);
    v = grammar_get(c->b, (k + 1) * sizeof(*v));
    if (v == NULL) {
        return NULL;
    }
    for (t = terms, k = 0; t != NULL; t = t->next) {
        if (t->t.negated || json_is_false(t->t.s)
            || (json_is_object(t->t.s) && json_object_size(t->t.s) > 0)) {
            v[k++] = t->t;
        }
    }
    qsort(v, k, sizeof(*v), by_term);
    for (t = NULL, i = 0; i < k; i++) {
        if (i == 0 || by_term(&v[i], &v[i - 1]) != 0) {
            t = grammar_schema_term(c, v[i].s, v[i].negated, t);
            h = (h ^ (uintptr_t) v[i].s ^ (unsigned) v[i].negated)
                * 0x9e3779b97f4a7c15ull;
            ++*n;
        }
    }
    *hash = (uint32_t) (h >> 32);

    return t;
}


/* Are two lists that are normal equal? */
static int
same_terms(const schema_terms_t *x, const schema_terms_t *y)
{
    while (x != NULL && y != NULL && by_term(&x->t, &y->t) == 0) {
        x = x->next;
        y = y->next;
    }

    return x == NULL && y == NULL;
}


/* {"type": "string"} and its like, and no demand at all: the rule that there is
 * already, shared by all that ask for no more.  GRAMMAR_MANY: none. */
static uint32_t
rule_known(schema_t *c, const schema_terms_t *t)
{
    const json_t *s, *type;
    const char *name;

    if (t == NULL) {
        return grammar_json_any(c->b);
    }
    s = t->t.s;
    type = json_object_get(s, "type");
    name = json_string_value(type);
    if (t->next != NULL || t->t.negated || name == NULL
        || json_object_size(s)
               != 1u + (json_object_get(s, "description") != NULL)
                      + (json_object_get(s, "title") != NULL)) {
        return GRAMMAR_MANY;
    }

    return strcmp(name, "string") == 0    ? grammar_json_string(c->b)
           : strcmp(name, "number") == 0  ? grammar_json_number(c->b, 0)
           : strcmp(name, "integer") == 0 ? grammar_json_number(c->b, 1)
           : strcmp(name, "object") == 0  ? grammar_json_object(c->b)
           : strcmp(name, "array") == 0   ? grammar_json_array(c->b)
                                          : GRAMMAR_MANY;
}


/* Sets of terms that were met are found by their hash, in a row that is walked:
 * even large schemas have some hundreds. */
uint32_t
grammar_schema_rule(schema_t *c, const schema_terms_t *terms)
{
    uint32_t n, hash, i, rule;

    terms = normal(c, terms, &n, &hash);
    rule = c->b->failed ? 0 : rule_known(c, terms);
    if (rule != GRAMMAR_MANY) {
        return rule;
    }

    (void) grammar_spend(c->b, c->rules_n / 4);
    for (i = 0; i < c->rules_n; i++) {
        if (c->rules[i].hash == hash && c->rules[i].n == n
            && same_terms(c->rules[i].terms, terms)) {
            return c->rules[i].rule;
        }
    }
    rule = grammar_rule(c->b, NULL);
    if (grammar_room(
            c->b, &c->rules, c->rules_n, &c->rules_cap, sizeof(*c->rules))
        != 0) {
        return 0;
    }
    c->rules[c->rules_n].terms = terms;
    c->rules[c->rules_n].n = n;
    c->rules[c->rules_n].hash = hash;
    c->rules[c->rules_n++].rule = rule;

    return rule;
}


/* --- strings ------------------------------------------------------------ */

/* The inside of a string of a format.  Formats that ask for nothing have become
 * no atoms. */
static grammar_dfa_t *
format_dfa(schema_t *c, const schema_atom_t *a)
{
    const char *re = grammar_schema_format(json_string_value(a->value));

    assert(a->kind == A_FORMAT && re != NULL && *re != '\0');

    return grammar_schema_pattern(c, re, strlen(re), REGEX_ECMA | REGEX_JSON);
}


/* The inside of a string in which a pattern matches somewhere. */
static grammar_dfa_t *
pattern_dfa(schema_t *c, const schema_atom_t *a)
{
    assert(a->kind == A_PATTERN && json_is_string(a->value));

    return grammar_schema_pattern(c, json_string_value(a->value),
        json_string_length(a->value), REGEX_ECMA | REGEX_JSON | REGEX_SEARCH);
}


/* Characters within a string, min to max of them, each written in one way. */
static grammar_dfa_t *
chars_dfa(schema_t *c, uint32_t min, uint32_t max)
{
    grammar_set_t s = {NULL, 0, 0};
    uint32_t node;

    if (grammar_set_add(&s, 0, GRAMMAR_CODE_MAX) != 0) {
        grammar_fail(c->b, "the grammar needs too much memory");
    }
    node = grammar_copies(c->b, grammar_set_node(c->b, &s, 1), min, max);

    return c->b->failed ? NULL : grammar_dfa(c->b, &node, 1, NULL, NULL);
}


/* The narrowest bounds of all, and whether anything but bounds is asked for. */
static void
lengths(const schema_flat_t *f, uint32_t *min, uint32_t *max, int *patterns)
{
    const schema_atom_t *a;

    assert(f->types & T_STRING);
    *min = 0;
    *max = GRAMMAR_MANY;
    *patterns = 0;
    for (a = f->atoms; a != NULL; a = a->next) {
        if (a->kind == A_MINLEN && a->n > *min) {
            *min = a->n;
        } else if (a->kind == A_MAXLEN && a->n < *max) {
            *max = a->n;
        }
        *patterns |= a->kind == A_PATTERN || a->kind == A_FORMAT
                     || (a->kind == A_ENUM && a->negated);
    }
}


/* Without the texts that "not" names. */
static grammar_dfa_t *
string_without(schema_t *c, grammar_dfa_t *d, const json_t *list)
{
    uint32_t node;
    json_t *v;
    size_t i;

    assert(json_is_array(list));
    json_array_foreach((json_t *) list, i, v)
    {
        if (json_is_string(v) && d != NULL) {
            node = grammar_text(
                c->b, json_string_value(v), json_string_length(v), 1);
            d = grammar_dfa_and(
                c->b, d, grammar_dfa(c->b, &node, 1, NULL, NULL), 1);
        }
    }

    return d;
}


/* The inside of a string that f allows; NULL: there is none, or failed.  It is
 * the intersection of all that is asked for, which multiplies states, up to
 * GRAMMAR_DFA_MAX; two patterns and a length are some thousands. */
static grammar_dfa_t *
string_dfa(schema_t *c, const schema_flat_t *f)
{
    const schema_atom_t *a;
    grammar_dfa_t *d = NULL, *e;
    uint32_t min, max;
    int patterns, pass;

    lengths(f, &min, &max, &patterns);
    /* what must match first: complements are of something */
    for (pass = 0; pass < 2 && !c->b->failed; pass++) {
        if (pass == 1 && (d == NULL || min > 0 || max != GRAMMAR_MANY)) {
            if (min > max) {
                return NULL;
            }
            e = chars_dfa(c, min, max);
            d = d == NULL ? e : grammar_dfa_and(c->b, d, e, 0);
        }
        for (a = f->atoms; a != NULL && !c->b->failed; a = a->next) {
            if (a->kind == A_ENUM && pass == 1) {
                assert(a->negated); /* the other is written out */
                d = string_without(c, d, a->value);
                continue;
            }
            if ((a->kind != A_PATTERN && a->kind != A_FORMAT)
                || a->negated != pass) {
                continue;
            }
            e = a->kind == A_FORMAT ? format_dfa(c, a) : pattern_dfa(c, a);
            d = d == NULL ? e : grammar_dfa_and(c->b, d, e, a->negated);
        }
    }

    return c->b->failed ? NULL : d;
}


/* A node between quotes. */
static uint32_t
quotes(schema_t *c, uint32_t node)
{
    uint32_t kids[3];

    kids[0] = kids[2] = grammar_bytes(c->b, "\"", 1);
    kids[1] = node;

    return grammar_seq(c->b, kids, 3);
}


/* Does an atom ask something of a string? */
static int
asks_string(const schema_atom_t *a)
{
    return (a->kind >= A_MINLEN && a->kind <= A_FORMAT)
           || (a->kind == A_ENUM && a->negated);
}


/* Do two lists ask the same of a string, in the same order? */
static int
same_string(schema_t *c, const schema_atom_t *x, const schema_atom_t *y)
{
    for (;; x = x->next, y = y->next) {
        while (x != NULL && !asks_string(x)) {
            x = x->next;
        }
        while (y != NULL && !asks_string(y)) {
            y = y->next;
        }
        if (x == NULL || y == NULL) {
            return x == y;
        }
        if (grammar_spend(c->b, 8) || x->kind != y->kind || x->n != y->n
            || x->negated != y->negated
            || (x->value != y->value
                && (x->kind == A_ENUM
                    || (x->value != NULL
                        && !json_equal(x->value, y->value))))) {
            return 0;
        }
    }
}


/* What patterns make of a string is one rule for all that ask the same: it may
 * be large, and masks of a place in it are made once (grammar_walk.c). */
static uint32_t
pattern_node(schema_t *c, const schema_flat_t *f)
{
    grammar_dfa_t *d;
    uint32_t i, rule;

    for (i = 0; i < c->strings_n; i++) {
        if (same_string(c, c->strings[i].atoms, f->atoms)) {
            return grammar_ref_node(c->b, c->strings[i].rule);
        }
    }
    d = grammar_dfa_only(c->b, string_dfa(c, f));
    if (d == NULL || d->states < STATES_LARGE) {
        return d == NULL ? 0 : quotes(c, grammar_dfa_node(c->b, d));
    }
    rule = grammar_rule(c->b, NULL);
    if (grammar_room(c->b, &c->strings, c->strings_n, &c->strings_cap,
            sizeof(*c->strings))
        != 0) {
        return 0;
    }
    c->strings[c->strings_n].atoms = f->atoms;
    c->strings[c->strings_n++].rule = rule;
    c->b->rules[rule].node = quotes(c, grammar_dfa_node(c->b, d));

    return c->b->failed ? 0 : grammar_ref_node(c->b, rule);
}


/* One automaton if there are patterns; else characters, however each is
 * written, in copies if few and counted by the matcher if many: a string of
 * 2,000 characters needs no 2,000 states. */
static uint32_t
string_node(schema_t *c, const schema_flat_t *f)
{
    uint32_t min, max, node, rule, item, less;
    int patterns;

    lengths(f, &min, &max, &patterns);
    if (min > max) {
        return 0;
    }
    /* what only some texts may be an automaton counts, if few */
    patterns |= c->b->only != NULL && (min > 0 || max != GRAMMAR_MANY)
                && (max != GRAMMAR_MANY ? max : min) <= COPIES_SHORT;
    if (patterns) {
        return pattern_node(c, f);
    }
    if (min == 0 && max == GRAMMAR_MANY) {
        return grammar_ref_node(c->b, grammar_json_string(c->b));
    }

    node = grammar_json_char(c->b);
    if (c->b->only != NULL && !c->b->failed) {
        less = grammar_bytes(c->b, "<", 1);
        node = grammar_dfa_node(
            c->b, grammar_dfa_and(c->b, grammar_dfa(c->b, &node, 1, NULL, NULL),
                      grammar_dfa(c->b, &less, 1, NULL, NULL), 1));
    }
    if (min <= COPIES_SHORT && (max == GRAMMAR_MANY || max <= COPIES_SHORT)) {
        return quotes(c, grammar_copies(c->b, node, min, max));
    }
    item = grammar_rule(c->b, NULL);
    rule = grammar_rule(c->b, NULL);
    if (c->b->failed) {
        return 0;
    }
    c->b->rules[item].node = node;
    c->b->rules[rule].kind = RULE_COUNT;
    c->b->rules[rule].u.count.rule = item;
    c->b->rules[rule].u.count.min = min;
    c->b->rules[rule].u.count.max = max;

    return quotes(c, grammar_ref_node(c->b, rule));
}


/* --- objects ------------------------------------------------------------ */

/* A key known by name; borrowed from the document. */
typedef struct {
    const char *s;
    size_t len;
    uint32_t order; /* when it came */
} name_t;

typedef struct {
    const json_t *schema; /* whose pattern it is */
    const char *pattern;
    const json_t *value;
} key_pattern_t;

/*
 * An object under construction.  Names are gathered and sorted, then have their
 * numbers; then the keys' automaton is made, which finds the combinations.
 */
typedef struct {
    schema_t *c;
    const schema_flat_t *f;
    grammar_object_t *o;
    name_t *names;
    uint32_t names_n, names_cap;
    key_pattern_t *patterns;
    uint32_t patterns_n, patterns_cap;
    uint32_t *combos; /* [classes - props]: where in sets each begins */
    uint32_t combos_n, combos_cap;
    uint32_t *sets; /* of patterns that match; one past them: any key */
    uint32_t sets_n, sets_cap;
    uint32_t *rules; /* [combos_n] of their values */
    uint32_t rules_n, rules_cap;
} object_t;


/* A name; those that are there twice are told when they are sorted. */
static void
name_put(object_t *x, const char *s, size_t len)
{
    assert(x->o->props == 0); /* no number was given yet */
    if (!grammar_spend(x->c->b, 4)
        && grammar_room(
               x->c->b, &x->names, x->names_n, &x->names_cap, sizeof(*x->names))
               == 0) {
        x->names[x->names_n].s = s;
        x->names[x->names_n].len = len;
        x->names[x->names_n].order = x->names_n;
        x->names_n++;
    }
}


/* The names and patterns of one schema. */
static void
names_of(object_t *x, const json_t *s)
{
    const char *key;
    json_t *v;

    assert(json_is_object(s));
    json_object_foreach(json_object_get(s, "properties"), key, v)
    {
        name_put(x, key, strlen(key));
    }
    json_object_foreach(json_object_get(s, "patternProperties"), key, v)
    {
        if (grammar_room(x->c->b, &x->patterns, x->patterns_n, &x->patterns_cap,
                sizeof(*x->patterns))
            == 0) {
            x->patterns[x->patterns_n].schema = s;
            x->patterns[x->patterns_n].pattern = key;
            x->patterns[x->patterns_n++].value = v;
        }
    }
}


/* In the order of what is written: that of classes. */
static int
by_name(const void *a, const void *b)
{
    const name_t *x = a, *y = b;

    return grammar_schema_order(x->s, x->len, y->s, y->len);
}


/* The one that came first in front of what is the same. */
static int
by_name_first(const void *a, const void *b)
{
    const name_t *x = a, *y = b;
    int d = by_name(a, b);

    return d != 0 ? d : (x->order > y->order) - (x->order < y->order);
}


/* Sorts the names; each is there once then, with the place where it came. */
static void
names_sort(object_t *x)
{
    uint32_t i, n = 0;

    if (x->names_n > 0) {
        qsort(x->names, x->names_n, sizeof(*x->names), by_name_first);
    }
    for (i = 0; i < x->names_n; i++) {
        if (n == 0 || by_name(&x->names[n - 1], &x->names[i]) != 0) {
            x->names[n++] = x->names[i];
        }
    }
    x->names_n = n;
    (void) grammar_spend(x->c->b, 32 * (size_t) n);
}


/* Names that are not under "properties", but required, or forbidden. */
static void
gather_atom(object_t *x, const schema_atom_t *a)
{
    json_t *v;
    size_t i;

    if (a->kind == A_PROP || a->kind == A_REQUIRED || a->kind == A_DEP) {
        name_put(x, a->name, a->name_len);
    }
    if (a->kind == A_DEP) {
        json_array_foreach((json_t *) a->value, i, v)
        {
            if (json_is_string(v)) {
                name_put(x, json_string_value(v), json_string_length(v));
            }
        }
    }
}


/* Names in the order of the document; those only asked for come behind.  Atoms
 * are listed from the last one on, so their schemas are turned around. */
static void
gather(object_t *x)
{
    const schema_atom_t *a;
    uint32_t n = 0, i;
    const json_t **s;

    for (a = x->f->atoms; a != NULL; a = a->next) {
        n += a->kind == A_PROPS;
    }
    s = grammar_get(x->c->b, (n + 1) * sizeof(*s));
    if (s == NULL) {
        return;
    }
    for (a = x->f->atoms, i = n; a != NULL; a = a->next) {
        if (a->kind == A_PROPS) {
            s[--i] = a->schema;
        }
    }
    assert(i == 0);
    for (; i < n; i++) {
        names_of(x, s[i]);
    }
    for (a = x->f->atoms; a != NULL; a = a->next) {
        gather_atom(x, a);
    }
    names_sort(x);
}


/* The number of a name, which is there: all that demands name was gathered. */
static uint32_t
index_of(const object_t *x, const char *s, size_t len)
{
    uint32_t lo = 0, hi = x->names_n, mid;
    name_t key = {s, len, 0};

    while (lo < hi) {
        mid = (lo + hi) / 2;
        if (by_name(&x->names[mid], &key) < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    assert(lo < x->names_n && by_name(&x->names[lo], &key) == 0);

    return lo;
}


/* Has a schema in the scope of r's looked at a key that has no name, by the
 * patterns that match it? */
static int
combo_seen(const object_t *x, const schema_atom_t *r, const uint32_t *which,
    uint32_t n)
{
    const schema_atom_t *a;
    uint32_t i;

    assert(r->kind == A_REST_PROPS);
    for (a = x->f->atoms; a != NULL; a = a->next) {
        if (!grammar_schema_within(a->scope, r->schema)) {
            continue;
        }
        if ((a->kind == A_REST_PROPS && a->schema != r->schema)
            || (a->kind == A_PROPS
                && json_object_get(a->schema, "additionalProperties")
                       != NULL)) {
            return 1;
        }
        for (i = 0; i < n && a->kind == A_PROPS; i++) {
            if (which[i] < x->patterns_n
                && x->patterns[which[i]].schema == a->schema) {
                return 1;
            }
        }
    }

    return 0;
}


/* What a key that has no name must be, by the patterns that match it. */
static const schema_terms_t *
combo_terms(object_t *x, const uint32_t *which, uint32_t n)
{
    const schema_terms_t *t = NULL;
    const schema_atom_t *a;
    const json_t *v;
    uint32_t i;
    int any;

    /* in order: the last is the largest */
    assert(n > 0 && which[n - 1] <= x->patterns_n);
    for (a = x->f->atoms; a != NULL; a = a->next) {
        if (a->kind == A_REST_PROPS && !combo_seen(x, a, which, n)) {
            t = grammar_schema_term(x->c, a->term.s, 0, t);
        }
        if (a->kind != A_PROPS) {
            continue;
        }
        any = 0;
        for (i = 0; i < n; i++) {
            if (which[i] < x->patterns_n
                && x->patterns[which[i]].schema == a->schema) {
                t = grammar_schema_term(
                    x->c, x->patterns[which[i]].value, 0, t);
                any = 1;
            }
        }
        v = json_object_get(a->schema, "additionalProperties");
        if (!any && v != NULL) {
            t = grammar_schema_term(x->c, v, 0, t);
        }
    }

    return t;
}


/*
 * The class of a key: its name's, or its combination's, which may be new.  The
 * alternatives are the names, the patterns and any key, in this order, so the
 * first that matches says whether it is a name.
 */
static uint32_t
pick(void *arg, const uint32_t *which, uint32_t n)
{
    object_t *x = arg;
    grammar_build_t *b = x->c->b;
    uint32_t own[64], i, k, from, len;

    assert(n > 0 && which[n - 1] <= x->names_n + x->patterns_n);
    if (which[0] < x->names_n) {
        return 1 + which[0];
    }
    (void) grammar_spend(b, 2 * x->combos_n + n);
    for (i = 0; i < n && i < 64; i++) {
        own[i] = which[i] - x->names_n;
    }
    if (n > 64) {
        return grammar_fail(b, "a key matches too many patterns");
    }
    for (k = 0; k < x->combos_n; k++) {
        from = x->combos[k];
        len = (k + 1 < x->combos_n ? x->combos[k + 1] : x->sets_n) - from;
        if (len == n && memcmp(x->sets + from, own, n * sizeof(*own)) == 0) {
            return 1 + x->names_n + k;
        }
    }

    if (grammar_room(b, &x->combos, k, &x->combos_cap, sizeof(uint32_t)) != 0
        || grammar_room(b, &x->rules, k, &x->rules_cap, sizeof(uint32_t))
               != 0) {
        return 0;
    }
    x->combos[x->combos_n++] = x->sets_n;
    for (i = 0; i < n; i++) {
        if (grammar_room(b, &x->sets, x->sets_n, &x->sets_cap, sizeof(uint32_t))
            != 0) {
            return 0;
        }
        x->sets[x->sets_n++] = own[i];
    }
    x->rules[x->rules_n++] = grammar_schema_rule(x->c, combo_terms(x, own, n));

    return 1 + x->names_n + k;
}


/* Are keys without a name refused at once? */
static int
is_closed(const object_t *x)
{
    const schema_atom_t *a;

    for (a = x->f->atoms; a != NULL; a = a->next) {
        if (a->kind == A_PROPS
            && json_is_false(json_object_get(a->schema, "additionalProperties"))
            && json_object_size(json_object_get(a->schema, "patternProperties"))
                   == 0) {
            return 1;
        }
    }

    return 0;
}


/* Keys that f allows, with their quotes.  Those of "enum" are written out, as
 * they would be as values. */
static uint32_t
name_node(schema_t *c, const schema_flat_t *f)
{
    const schema_atom_t *a;
    grammar_list_t l = {NULL, 0, 0};
    uint32_t node;
    json_t *v;
    size_t i;

    assert(f->types & T_STRING);
    for (a = f->atoms; a != NULL && (a->kind != A_ENUM || a->negated);
         a = a->next) {
    }
    if (a == NULL) {
        return quotes(c, grammar_dfa_node(c->b, string_dfa(c, f)));
    }
    json_array_foreach((json_t *) a->value, i, v)
    {
        if (json_is_string(v) && grammar_schema_flat_holds(c, f, v, a)) {
            (void) grammar_list_put(c->b, &l, grammar_schema_literal(c, v));
        }
    }
    node = grammar_list_alt(c->b, &l);

    return node;
}


/* What "propertyNames" leaves of keys; which class each is of stays. */
static void
names_and(object_t *x)
{
    const schema_atom_t *a;
    const schema_flat_t *f;
    grammar_list_t l = {NULL, 0, 0};
    grammar_build_t *b = x->c->b;
    uint32_t node;

    assert(x->o->key != NULL || b->failed);
    for (a = x->f->atoms; a != NULL && !b->failed; a = a->next) {
        if (a->kind != A_NAMES) {
            continue;
        }
        l.n = 0;
        f = grammar_schema_flats(
            x->c, grammar_schema_term(x->c, a->term.s, a->term.negated, NULL));
        for (; f != NULL && !b->failed; f = f->next) {
            if (f->types & T_STRING) {
                (void) grammar_list_put(b, &l, name_node(x->c, f));
            }
        }
        node = b->failed ? 0 : grammar_alt(b, l.v, l.n);
        x->o->key = grammar_dfa_and(
            b, x->o->key, grammar_dfa(b, &node, 1, NULL, NULL), 0);
    }
    grammar_list_free(&l);
}


#define HEX "[0-9a-fA-F]"

/* Any key, without its quotes.  Where all names are ASCII and nothing else asks
 * what a key is, one may have escapes of what is not, which is none of them. */
static uint32_t
any_key(object_t *x)
{
    static const char escape[] =
        "\\\\u(?:00[89a-fA-F]" HEX "|0[1-9a-fA-F]" HEX "{2}|[1-9a-cefA-CEF]" HEX
        "{3}|[dD](?:[0-7]" HEX "{2}|[89abAB]" HEX "{2}\\\\u[dD][c-fC-F]" HEX
        "{2}))";
    grammar_build_t *b = x->c->b;
    const schema_atom_t *a;
    uint32_t i, *node;
    int escaped = x->patterns_n == 0;
    size_t k;

    for (a = x->f->atoms; a != NULL; a = a->next) {
        escaped = escaped && a->kind != A_NAMES;
    }
    for (i = 0; i < x->names_n && escaped; i++) {
        for (k = 0; k < x->names[i].len; k++) {
            escaped = escaped && (uint8_t) x->names[i].s[k] < 0x80;
        }
    }
    node = &x->c->any_key[escaped];
    if (*node == 0 && escaped) {
        *node = grammar_dfa_node(b, chars_dfa(x->c, 1, 1));
        *node = grammar_alt2(b, *node,
            grammar_dfa_node(b, grammar_regex(b, escape, sizeof(escape) - 1,
                                    REGEX_ECMA, "a key")));
        *node = grammar_copies(b, *node, 0, GRAMMAR_MANY);
    } else if (*node == 0) {
        *node = grammar_dfa_node(b, chars_dfa(x->c, 0, GRAMMAR_MANY));
    }

    return *node;
}


/* The keys' automaton, which asks pick for the class of each set of names and
 * patterns that match at once, and so makes no more classes than there can be.
 */
static void
keys(object_t *x)
{
    grammar_build_t *b = x->c->b;
    grammar_list_t l = {NULL, 0, 0};
    grammar_dfa_t *d;
    uint32_t i;

    assert(x->o->key == NULL && x->combos_n == 0);
    for (i = 0; i < x->names_n; i++) {
        (void) grammar_list_put(b, &l,
            quotes(x->c, grammar_text(b, x->names[i].s, x->names[i].len, 1)));
    }
    if (!is_closed(x)) {
        for (i = 0; i < x->patterns_n && !b->failed; i++) {
            d = grammar_schema_pattern(x->c, x->patterns[i].pattern,
                strlen(x->patterns[i].pattern),
                REGEX_ECMA | REGEX_JSON | REGEX_SEARCH);
            (void) grammar_list_put(
                b, &l, quotes(x->c, grammar_dfa_node(b, d)));
        }
        (void) grammar_list_put(b, &l, quotes(x->c, any_key(x)));
    }
    if (!b->failed) {
        x->o->key = grammar_dfa_only(b, grammar_dfa(b, l.v, l.n, pick, x));
    }
    grammar_list_free(&l);
    names_and(x);
}


/* What is required, how many keys, and what requires what. */
static void
demands(object_t *x)
{
    grammar_object_t *o = x->o;
    const schema_atom_t *a;
    uint32_t i, *dep;
    json_t *v;
    size_t k;

    assert(o->props == x->names_n); /* names have their numbers */
    for (a = x->f->atoms; a != NULL; a = a->next) {
        if (a->kind == A_REQUIRED) {
            i = index_of(x, a->name, a->name_len);
            o->required[i / 32] |= 1u << i % 32;
        } else if (a->kind == A_MINPROPS && a->n > o->min) {
            o->min = a->n;
        } else if (a->kind == A_MAXPROPS && a->n < o->max) {
            o->max = a->n;
        } else if (a->kind == A_DEP) {
            dep = o->deps + (size_t) o->deps_n++ * (1 + o->words);
            dep[0] = index_of(x, a->name, a->name_len);
            json_array_foreach((json_t *) a->value, k, v)
            {
                if (json_is_string(v)) {
                    i = index_of(
                        x, json_string_value(v), json_string_length(v));
                    dep[1 + i / 32] |= 1u << i % 32;
                }
            }
        }
    }
}


/* Names first, since demands and keys go by their numbers. */
static void
object_make(object_t *x)
{
    grammar_build_t *b = x->c->b;
    grammar_object_t *o = x->o;
    const schema_atom_t *a;
    uint32_t i, deps = 0;

    assert(x->names_n == 0);
    gather(x);
    for (a = x->f->atoms; a != NULL; a = a->next) {
        deps += a->kind == A_DEP;
    }
    o->max = GRAMMAR_MANY;
    o->props = x->names_n;
    o->words = (o->props + 31) / 32;
    o->required = grammar_get(b, (o->words + 1) * sizeof(uint32_t));
    o->order = grammar_get(b, (o->props + 1) * sizeof(uint32_t));
    o->deps =
        grammar_get(b, (size_t) (deps + 1) * (1 + o->words) * sizeof(uint32_t));
    if (b->failed) {
        return;
    }
    demands(x);
    assert(o->deps_n <= deps);
    keys(x);

    o->classes = o->props + x->rules_n;
    o->rule = grammar_get(b, (o->classes + 1) * sizeof(uint32_t));
    for (i = 0; i < o->props && !b->failed; i++) {
        o->order[i] = x->names[i].order;
        o->rule[i] =
            grammar_schema_rule(x->c, grammar_schema_key_terms(x->c, x->f,
                                          x->names[i].s, x->names[i].len));
    }
    for (i = 0; i < x->rules_n && !b->failed; i++) {
        o->rule[o->props + i] = x->rules[i];
    }
}


/* Names that the keys' automaton does not take any more cannot be. */
static void
names_left(object_t *x)
{
    grammar_object_t *o = x->o;
    uint8_t *left = grammar_scratch(x->c->b, o->classes + 1);
    uint32_t i;

    for (i = 0; i < o->key->states && left != NULL; i++) {
        assert(o->key->accept[i] <= o->classes);
        left[o->key->accept[i]] = 1;
    }
    for (i = 0; i < o->classes && left != NULL; i++) {
        if (!left[i + 1]) {
            o->rule[i] = grammar_schema_rule(
                x->c, grammar_schema_term(x->c, json_false(), 0, NULL));
        }
    }
    grammar_scratch_free(x->c->b, left, o->classes + 1);
}


/* The lists of the construction. */
static void
object_free(object_t *x)
{
    grammar_build_t *b = x->c->b;

    grammar_room_free(b, &x->names, &x->names_cap, sizeof(*x->names));
    grammar_room_free(b, &x->patterns, &x->patterns_cap, sizeof(*x->patterns));
    grammar_room_free(b, &x->combos, &x->combos_cap, sizeof(*x->combos));
    grammar_room_free(b, &x->sets, &x->sets_cap, sizeof(*x->sets));
    grammar_room_free(b, &x->rules, &x->rules_cap, sizeof(*x->rules));
}


/* The lists are freed here, whatever became of it; the specification is the
 * build's. */
static uint32_t
object_node(schema_t *c, const schema_flat_t *f)
{
    object_t x;
    uint32_t rule;

    assert(f->types & T_OBJECT);
    memset(&x, 0, sizeof(x));
    x.c = c;
    x.f = f;
    x.o = grammar_get(c->b, sizeof(*x.o));
    if (x.o != NULL) {
        object_make(&x);
    }
    if (!c->b->failed) {
        names_left(&x);
    }
    object_free(&x);

    rule = grammar_rule(c->b, NULL);
    if (c->b->failed) {
        return 0;
    }
    c->b->rules[rule].kind = RULE_OBJECT;
    c->b->rules[rule].u.object = x.o;

    return grammar_ref_node(c->b, rule);
}


/* --- flats -------------------------------------------------------------- */

/* One of those values of "enum" that pass all else. */
static uint32_t
values(schema_t *c, const schema_flat_t *f, const schema_atom_t *of)
{
    grammar_list_t l = {NULL, 0, 0};
    uint32_t node;
    json_t *v;
    size_t i;

    assert(of->kind == A_ENUM && json_is_array(of->value));
    json_array_foreach((json_t *) of->value, i, v)
    {
        if (grammar_schema_flat_holds(c, f, v, of)) {
            (void) grammar_list_put(c->b, &l, grammar_schema_literal(c, v));
        }
    }
    node = grammar_list_alt(c->b, &l);

    return node;
}


/* Takes away types that "not" names whole; strings and numbers are taken away
 * where they are made. */
static unsigned
types_left(schema_t *c, const schema_flat_t *f)
{
    const schema_atom_t *a;
    unsigned types = f->types;
    json_t *v;
    size_t i;

    for (a = f->atoms; a != NULL; a = a->next) {
        if (a->kind != A_ENUM) {
            continue;
        }
        assert(a->negated);
        json_array_foreach((json_t *) a->value, i, v)
        {
            types &= ~(unsigned) (json_is_null(v)    ? T_NULL
                                  : json_is_true(v)  ? T_TRUE
                                  : json_is_false(v) ? T_FALSE
                                                     : 0);
            if ((json_is_object(v) && (types & T_OBJECT))
                || (json_is_array(v) && (types & T_ARRAY))) {
                grammar_fail(c->b, "a value that is an object or array "
                                   "cannot be enforced within \"not\"");
            }
        }
    }

    return types;
}


/* Values if they are named; else one alternative for each type. */
uint32_t
grammar_schema_flat_node(schema_t *c, const schema_flat_t *f)
{
    const schema_atom_t *a;
    uint32_t node = 0;
    unsigned types;

    assert(f->types != 0);
    for (a = f->atoms; a != NULL; a = a->next) {
        if (a->kind == A_ENUM && !a->negated) {
            return values(c, f, a);
        }
    }

    types = types_left(c, f);
    if (types & T_OBJECT) {
        node = grammar_alt2(c->b, node, object_node(c, f));
    }
    if (types & T_ARRAY) {
        node = grammar_alt2(c->b, node, grammar_schema_array(c, f));
    }
    if (types & T_STRING) {
        node = grammar_alt2(c->b, node, string_node(c, f));
    }
    if (types & T_NUMBER) {
        node = grammar_alt2(c->b, node, grammar_schema_number(c, f));
    }
    if (types & T_TRUE) {
        node = grammar_alt2(c->b, node, grammar_bytes(c->b, "true", 4));
    }
    if (types & T_FALSE) {
        node = grammar_alt2(c->b, node, grammar_bytes(c->b, "false", 5));
    }
    if (types & T_NULL) {
        node = grammar_alt2(c->b, node, grammar_bytes(c->b, "null", 4));
    }

    return node;
}
