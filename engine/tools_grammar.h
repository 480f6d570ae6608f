/*
 * What tools_grammar.c (calls, and the text around them) and
 * tools_grammar_xml.c (parameters that are elements) share.  For those only.
 */
#ifndef TOOLS_GRAMMAR_H
#define TOOLS_GRAMMAR_H

#include "grammar_schema.h"
#include "tools_impl.h"

#include <jansson.h>
#include <stdint.h>
#include <string.h>

#define SEQ(b, ...)                                                            \
    grammar_seq(b, (const uint32_t[]){__VA_ARGS__},                            \
        sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))
#define ALT(b, ...)                                                            \
    grammar_alt(b, (const uint32_t[]){__VA_ARGS__},                            \
        sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

typedef struct {
    json_t *params; /* borrowed; NULL: not said */
    size_t at;      /* in the request's array */
    const char *name;
    uint32_t len;
    int strict;
    int loose; /* its schema cannot be compiled, and need not be */
} tools_callee_t;

/* One compilation. */
typedef struct {
    grammar_build_t *b;
    const tools_family_t *f;
    const tools_row_t *row;
    const tools_schema_t *types; /* as the parser knows them */
    const tools_callee_t *functions;
    uint32_t n;
    uint32_t flags;
    size_t held;     /* what the request's JSON is counted for */
    uint32_t white;  /* node: between tokens of JSON */
    uint32_t breaks; /* node: newlines that need not be */
    uint32_t *args;  /* [n] nodes of arguments; 0: not yet */
    uint32_t call; /* rule of a call behind its mark; GRAMMAR_MANY: none yet */
    grammar_dfa_t *open_text; /* without the mark that ends a value */
} tools_make_t;

/* A text as it is. */
static inline uint32_t
tools_text(tools_make_t *x, const char *s)
{
    return grammar_bytes(x->b, s, strlen(s));
}

/* node or nothing. */
static inline uint32_t
tools_maybe(tools_make_t *x, uint32_t node)
{
    return grammar_rep(x->b, node, 0, 1);
}

/* A mark as a model writes it: a token if it is one, else a text. */
uint32_t tools_make_mark(tools_make_t *x, const char *s);

/* The name of f, then what is behind it: a rule of its own, or all would be one
 * automaton. */
uint32_t tools_make_name(
    tools_make_t *x, const tools_callee_t *f, uint32_t behind);

/* --- tools_grammar_xml.c --- */

/* What values' texts are: to be called as a compilation begins. */
void tools_make_texts(tools_make_t *x);

/* The parameters of f. */
uint32_t tools_make_elements(tools_make_t *x, const tools_callee_t *f);

/* Calls from their name on, to the mark that ends one. */
uint32_t tools_make_xml(tools_make_t *x);

#endif
