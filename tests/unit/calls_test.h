/*
 * What the tests of the grammars of calls share: functions that are declared,
 * the calls that the parser reads, and whether they obey.  Behind cmocka.h.
 */
#ifndef CALLS_TEST_H
#define CALLS_TEST_H

#include "tools.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MAX  8192
#define CALLS_MAX 64


static char err[600];
static uint32_t seed = 3;

static inline uint32_t
draw(uint32_t n)
{
    seed = seed * 1664525u + 1013904223u;

    return (seed >> 8) % n;
}

typedef struct {
    char name[TOOLS_NAME_MAX + 1];
    char *args;
    size_t args_n;
} call_t;

/* Calls, and text around them. */
typedef struct {
    call_t calls[CALLS_MAX];
    size_t n;
    uint32_t kind;
    size_t text_n;
} calls_t;

static calls_t got;

static inline call_t *
call_new(calls_t *c)
{
    call_t *x = &c->calls[c->n++];

    assert_true(c->n <= CALLS_MAX);
    if (x->args == NULL) {
        x->args = malloc(2 * TEXT_MAX);
        assert_non_null(x->args);
    }
    x->name[0] = '\0';
    x->args_n = 0;

    return x;
}

static inline int
take(void *arg, uint32_t kind, const char *p, size_t n)
{
    call_t *x = got.n == 0 ? NULL : &got.calls[got.n - 1];
    size_t had;

    assert_null(arg);
    if (kind == LLM_TEXT_CALL) {
        if (got.kind != LLM_TEXT_CALL) {
            x = call_new(&got);
        }
        had = strlen(x->name);
        assert_true(had + n <= TOOLS_NAME_MAX);
        memcpy(x->name + had, p, n);
        x->name[had + n] = '\0';
    } else if (kind == LLM_TEXT_ARGUMENTS) {
        assert_non_null(x);
        assert_true(x->args_n + n <= 2 * TEXT_MAX);
        memcpy(x->args + x->args_n, p, n);
        x->args_n += n;
    } else {
        got.text_n += n;
    }
    got.kind = kind;

    return 0;
}

static const char *const toolsets[] = {
    /* by type, with bounds; and what has no parameters */
    "[{\"type\":\"function\",\"function\":{\"name\":\"weather\",\"strict\":"
    "true,\"parameters\":{\"type\":\"object\",\"properties\":{"
    "\"s\":{\"type\":\"string\"},"
    "\"i\":{\"type\":\"integer\",\"minimum\":-5,\"maximum\":1200},"
    "\"e\":{\"enum\":[\"red\",\"dark <blue>\",\"n\\u00e9\"]},"
    "\"b\":{\"type\":\"boolean\"},"
    "\"n\":{\"type\":[\"null\",\"boolean\"]},"
    "\"l\":{\"type\":\"array\",\"items\":{\"type\":\"string\"},"
    "\"maxItems\":3}},\"required\":[\"s\",\"e\"],\"additionalProperties\":"
    "false}}},"
    "{\"type\":\"function\",\"function\":{\"name\":\"weather_2\","
    "\"parameters\":{\"type\":\"object\",\"properties\":{},"
    "\"additionalProperties\":false}}}]",
    /* references, alternatives, bounds of text, types that are several */
    "[{\"type\":\"function\",\"function\":{\"name\":\"get.it\",\"strict\":true,"
    "\"parameters\":{\"type\":\"object\",\"$defs\":{\"p\":{\"type\":"
    "\"object\",\"properties\":{\"x\":{\"type\":\"integer\",\"maximum\":99,"
    "\"minimum\":0},\"k\":{\"type\":\"string\",\"maxLength\":4}},\"required\":"
    "[\"x\"],\"additionalProperties\":false}},\"properties\":{"
    "\"p\":{\"$ref\":\"#/$defs/p\"},"
    "\"q\":{\"type\":\"string\",\"pattern\":\"^[a-c]+ ?$\",\"maxLength\":5},"
    "\"m\":{\"type\":\"string\",\"minLength\":2,\"maxLength\":6},"
    "\"u\":{\"type\":[\"string\",\"integer\"],\"maximum\":9,\"minimum\":0},"
    "\"v\":{\"anyOf\":[{\"type\":\"string\",\"enum\":[\"null\",\"on\"]},"
    "{\"type\":\"null\"}]},"
    "\"d\":{\"type\":\"string\",\"format\":\"date\"},"
    "\"t\":{\"type\":\"string\",\"minLength\":3,\"maxLength\":40},"
    "\"z\":{\"type\":\"array\",\"items\":{\"type\":\"string\","
    "\"maxLength\":60},\"maxItems\":2}},"
    "\"required\":[\"p\",\"q\"],\"additionalProperties\":false}}}]",
};

#define TOOLSETS (sizeof(toolsets) / sizeof(toolsets[0]))

/* Do arguments obey their schema, by its own grammar?  Each is kept. */
static inline void
obeys(const json_t *tools, const call_t *x)
{
    static struct {
        char *schema;
        grammar_t *g;
    } known[8];
    grammar_opts_t o = {.lenient = 1};
    grammar_state_t st = {NULL, 0, 0, 0};
    json_t *f = NULL;
    grammar_t *g;
    size_t i;
    char *s;

    for (i = 0; i < json_array_size(tools); i++) {
        f = json_object_get(json_array_get(tools, i), "function");
        if (!strcmp(x->name, json_string_value(json_object_get(f, "name")))) {
            break;
        }
    }
    assert_true(i < json_array_size(tools));
    s = json_dumps(json_object_get(f, "parameters"), 0);
    for (i = 0; known[i].schema != NULL && strcmp(known[i].schema, s) != 0;
         i++) {
        assert_true(i < 7);
    }
    if (known[i].schema == NULL) {
        known[i].g = grammar_open_schema(s, strlen(s), &o, err, sizeof(err));
        known[i].schema = strdup(s);
    }
    g = known[i].g;
    assert_non_null(g);
    assert_int_equal(grammar_begin(g, &st), 0);
    if (grammar_feed(g, &st, x->args, x->args_n) != x->args_n
        || !grammar_can_end(g, &st)) {
        fail_msg("%.*s does not obey %s", (int) x->args_n, x->args, s);
    }
    grammar_state_free(&st);
    free(s);
}

static inline tools_family_t *
family(const char *name, const token_t *tok)
{
    tools_family_t *f;

    assert_int_equal(
        tools_family_open(&f, name, NULL, 0, tok, err, sizeof(err)), 0);

    return f;
}

static inline grammar_t *
grammar(const tools_family_t *f, const char *tools, const char *name,
    uint32_t flags, int compact)
{
    grammar_opts_t o = {.compact = (uint32_t) compact};

    return tools_grammar(f, tools, strlen(tools), name,
        name == NULL ? 0 : strlen(name), flags, &o, err, sizeof(err));
}

#endif
