/*
 * What the readers of JSON Schema share: terms, and what they come to.  For
 * the files grammar_schema*.c only.
 *
 *      schema --grammar_schema_flat.c--> alternatives, each a set of types
 *      with atoms --grammar_schema_emit.c--> nodes, and rules for sub-schemas
 */
#ifndef GRAMMAR_SCHEMA_H
#define GRAMMAR_SCHEMA_H

#include "grammar_impl.h"

#include <jansson.h>
#include <stdint.h>

/* A schema, or its negation. */
typedef struct {
    const json_t *s; /* an object, true or false */
    int negated;
} schema_term_t;

/* The schemas that one is applied in, to the same value, from itself up. */
typedef struct schema_scope_s {
    const json_t *s;
    const struct schema_scope_s *up;
} schema_scope_t;

typedef struct schema_terms_s {
    schema_term_t t;
    const schema_scope_t *scope;
    const struct schema_terms_s *next;
} schema_terms_t;

enum {
    T_NULL = 1,
    T_TRUE = 2,
    T_FALSE = 128,
    T_BOOL = T_TRUE | T_FALSE,
    T_INT = 4,  /* numbers that are whole */
    T_FRAC = 8, /* and those that are not */
    T_STRING = 16,
    T_ARRAY = 32,
    T_OBJECT = 64,
    T_NUMBER = T_INT | T_FRAC,
    T_ALL = 255
};

/* One demand on values of a type; of others it asks nothing. */
enum {
    A_MIN, /* value: a number */
    A_MAX,
    A_XMIN, /* exclusive */
    A_XMAX,
    A_MULTIPLE, /* value; may be negated */
    A_MINLEN,   /* n */
    A_MAXLEN,
    A_PATTERN, /* value; may be negated */
    A_FORMAT,  /* value; may be negated */
    A_MINITEMS,
    A_MAXITEMS,
    A_ITEMS, /* of schema: items, prefixItems and what older ones had */
    A_EACH,  /* term: of each item */
    A_MINPROPS,
    A_MAXPROPS,
    A_REQUIRED,   /* name */
    A_PROP,       /* name, term: if it is there */
    A_PROPS,      /* of schema: properties, patternProperties, additional... */
    A_REST_PROPS, /* of schema: unevaluatedProperties, term */
    A_REST_ITEMS,
    A_NAMES,    /* term: of each key */
    A_DEP,      /* name; value: names that it requires */
    A_UNIQUE,   /* of schema: uniqueItems */
    A_CONTAINS, /* of schema; term; n: how many items must be so; value: how
                   many may, NULL: any number */
    A_ENUM      /* value: an array; of all types; may be negated */
};

typedef struct schema_atom_s {
    int kind, negated;
    uint32_t n;
    const json_t *value, *schema;
    const char *name; /* borrowed from the document */
    size_t name_len;
    schema_term_t term;
    const schema_scope_t *scope;
    const struct schema_atom_s *next;
} schema_atom_t;

/* Ways in which a demand may be met: one of them. */
typedef struct schema_way_s {
    unsigned types;
    const schema_atom_t *atoms;
    const schema_terms_t *terms;
    const struct schema_way_s *next;
} schema_way_t;

/* What a value must be, all at once. */
typedef struct schema_flat_s {
    unsigned types; /* never none */
    const schema_atom_t *atoms;
    struct schema_flat_s *next;
} schema_flat_t;

typedef struct {
    const json_t *schema;
    uint32_t resource;
} schema_place_t;

typedef struct {
    const char *uri; /* from the build's memory */
    const json_t *root;
} schema_resource_t;

typedef struct {
    const char *name;
    const json_t *schema;
    uint32_t resource;
} schema_anchor_t;

typedef struct {
    const schema_terms_t *terms;
    uint32_t n, hash, rule;
} schema_rule_t;

typedef struct {
    const char *s; /* borrowed from the document, or constant */
    size_t len;
    unsigned flags;
    grammar_dfa_t *dfa;
} schema_pattern_t;

/* A string that has patterns: what is asked of it, as atoms, and its rule. */
typedef struct {
    const schema_atom_t *atoms;
    uint32_t rule;
} schema_string_t;

typedef struct {
    grammar_build_t *b;
    json_t *doc;         /* owned */
    json_t *consts;      /* owned: arrays of one, for "const" */
    int old;             /* a draft where "$ref" has no siblings */
    uint32_t depth;      /* of checks within checks */
    uint32_t flats;      /* of a rule, so far */
    uint32_t escapes;    /* characters of literals that may be escaped */
    uint32_t any_key[2]; /* nodes: a key without a name; it, escaped */
    int warned;
    int rest;                    /* is there an "unevaluated..." anywhere? */
    const schema_scope_t *scope; /* of what is taken apart */
    schema_place_t *places;
    uint32_t places_n, places_cap;
    schema_resource_t *resources;
    uint32_t resources_n, resources_cap;
    schema_anchor_t *anchors;
    uint32_t anchors_n, anchors_cap;
    schema_rule_t *rules;
    uint32_t rules_n, rules_cap, rules_made;
    schema_pattern_t *patterns;
    uint32_t patterns_n, patterns_cap;
    schema_string_t *strings;
    uint32_t strings_n, strings_cap;
} schema_t;

/*
 * The JSON of a text, which what is called in sentences; *held is to be dropped
 * (grammar_drop) when it is.  NULL: failed.
 */
json_t *grammar_document(grammar_build_t *b, const char *what, const char *s,
    size_t len, size_t *held);

/*
 * A document within a compilation (grammar_schema.c): doc is taken over, c to
 * be closed in any case.  0, or -1: failed.  Then rules of schemas in it, of
 * which object says that no value but an object is meant; 0: failed.
 */
int grammar_schema_begin(schema_t *c, grammar_build_t *b, json_t *doc);
uint32_t grammar_schema_make(schema_t *c, const json_t *s, int object);
/* Nodes of the rules that were asked for. */
void grammar_schema_rules(schema_t *c);
void grammar_schema_end(schema_t *c);

/* Says that keyword at s cannot be enforced; lenient: warns. Nonzero: fails. */
int grammar_schema_refuse(
    schema_t *c, const json_t *s, const char *keyword, const char *why);

/* Refuses a keyword whose value is none (grammar_schema_shape.c).  As above. */
int grammar_schema_shape(
    schema_t *c, const json_t *s, const char *key, const json_t *v);

/* References (grammar_schema_ref.c). */
void grammar_schema_places(schema_t *c);
const json_t *grammar_schema_ref(schema_t *c, const json_t *s, const char *ref);

/* Flats (grammar_schema_flat.c): the ways to satisfy all terms; NULL: none,
 * or failed. */
schema_flat_t *grammar_schema_flats(schema_t *c, const schema_terms_t *terms);
const schema_terms_t *grammar_schema_term(
    schema_t *c, const json_t *s, int negated, const schema_terms_t *next);
/* Can both be satisfied at once, as far as is seen at first sight? */
int grammar_schema_meets(schema_t *c, schema_term_t x, schema_term_t y);

/* Values (grammar_schema_value.c). */
/* Does v hold?  of: an atom of f whose list v is from, NULL: none. */
int grammar_schema_flat_holds(schema_t *c, const schema_flat_t *f,
    const json_t *v, const schema_atom_t *of);
uint32_t grammar_schema_literal(schema_t *c, const json_t *v);
/* A text between quotes, with the escapes that it needs, one way for each. */
uint32_t grammar_schema_quoted(schema_t *c, const char *s, size_t len);
/* Are two values equal, as JSON Schema has it? */
int grammar_schema_same(schema_t *c, const json_t *x, const json_t *y);
/* Two texts in the order of what is written between quotes: in that order those
 * which begin alike are neighbours. */
int grammar_schema_order(const char *s, size_t n, const char *t, size_t m);
/* The digits of a number, as it is printed; cap is 64 or more. */
void grammar_schema_digits(const json_t *v, char *buf, size_t cap);
/* The automaton of a pattern, made once; s must live as long as c.  NULL:
 * failed. */
grammar_dfa_t *grammar_schema_pattern(
    schema_t *c, const char *s, size_t len, unsigned flags);
/* Is s among the schemas of a scope? */
int grammar_schema_within(const schema_scope_t *scope, const json_t *s);
/* The terms of a key, or of the item at index. */
const schema_terms_t *grammar_schema_key_terms(
    schema_t *c, const schema_flat_t *f, const char *key, size_t len);
const schema_terms_t *grammar_schema_item_terms(
    schema_t *c, const schema_flat_t *f, uint32_t index);
uint32_t grammar_schema_prefix(const schema_flat_t *f);

/*
 * The rule of all that satisfies terms: one that there is, or a new one whose
 * node is made later, so that a schema may lead back to itself.  0: failed.
 */
uint32_t grammar_schema_rule(schema_t *c, const schema_terms_t *terms);
/* Nodes of one flat, of all its types and of its numbers.  0: nothing can be
 * so, or failed. */
uint32_t grammar_schema_flat_node(schema_t *c, const schema_flat_t *f);
uint32_t grammar_schema_number(schema_t *c, const schema_flat_t *f);
uint32_t grammar_schema_array(schema_t *c, const schema_flat_t *f);
/* A regular expression for a format; NULL: it is none of the standard's;
 * "": it is, and cannot be enforced. */
const char *grammar_schema_format(const char *name);

/* Any JSON (grammar_json.c): rules. */
uint32_t grammar_json_any(grammar_build_t *b);
uint32_t grammar_json_object(grammar_build_t *b);
uint32_t grammar_json_array(grammar_build_t *b);
uint32_t grammar_json_string(grammar_build_t *b);
uint32_t grammar_json_number(grammar_build_t *b, int integer);
/* One character of a string, however it is written. */
uint32_t grammar_json_char(grammar_build_t *b);
/* White space between tokens, as the options have it: a node. */
uint32_t grammar_json_white(grammar_build_t *b);

#endif
