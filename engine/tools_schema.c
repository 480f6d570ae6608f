/*
 * What a request's tools declare, as far as reading a model's calls needs it:
 * names of functions, and of their parameters with the types that they take.
 *
 * DESIGN.  Where parameters are elements (tools_xml.c) a value is bare text,
 * and only the declaration says whether 5 is a number or a string.  A type is
 * a set, since a declaration may allow several; nothing known is a string.
 * float, dict and the like, which some declarations have, mean what they say.
 *
 * The tree is jansson's and lives for the length of tools_schema_open; what
 * stays is one block.  Runs on text_in's threads, then read by text_out's.
 */
#include "tools_impl.h"

#include <assert.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define ANY_OF_DEPTH 8   /* alternatives of alternatives that are looked at */
#define SCHEMAS_MAX  256 /* for one type: references may lead in circles */

/* Both lie in one block, parameters behind functions. */
_Static_assert(sizeof(tools_function_t) % _Alignof(tools_param_t) == 0,
    "parameters are aligned");

/* What is found: one walk counts, one writes, and both take the same way, so
 * that what is written is as much as was counted. */
typedef struct {
    tools_schema_t *s;
    uint32_t functions, params;
    size_t bytes;
    char *text; /* NULL: counting */
} schema_walk_t;

static const struct {
    const char *name;
    uint32_t types;
} type_names[] = {
    {"string", TOOLS_STRING},
    {"integer", TOOLS_NUMBER},
    {"number", TOOLS_NUMBER},
    {"boolean", TOOLS_BOOLEAN},
    {"object", TOOLS_OBJECT},
    {"array", TOOLS_ARRAY},
    {"null", TOOLS_NULL},
    {"str", TOOLS_STRING},
    {"int", TOOLS_NUMBER},
    {"float", TOOLS_NUMBER},
    {"bool", TOOLS_BOOLEAN},
    {"dict", TOOLS_OBJECT},
    {"list", TOOLS_ARRAY},
    {"tuple", TOOLS_ARRAY},
    {"any", TOOLS_STRING | TOOLS_NUMBER | TOOLS_BOOLEAN | TOOLS_NULL
                | TOOLS_OBJECT | TOOLS_ARRAY},
};


/* The types that a word names, JSON Schema's or a language's; 0: none. */
static uint32_t
type_of_name(const json_t *v)
{
    size_t i;

    for (i = 0;
         json_is_string(v) && i < sizeof(type_names) / sizeof(type_names[0]);
         i++) {
        if (strcmp(json_string_value(v), type_names[i].name) == 0) {
            return type_names[i].types;
        }
    }

    return 0;
}


/* The type of one of "enum"'s values. */
static uint32_t
type_of_value(const json_t *v)
{
    assert(v != NULL);
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return TOOLS_OBJECT;
    case JSON_ARRAY:
        return TOOLS_ARRAY;
    case JSON_STRING:
        return TOOLS_STRING;
    case JSON_INTEGER:
    case JSON_REAL:
        return TOOLS_NUMBER;
    case JSON_NULL:
        return TOOLS_NULL;
    default:
        return TOOLS_BOOLEAN;
    }
}


/* What a reference within the parameters leads to; NULL: nothing, or it is of
 * another sort. */
static const json_t *
follow(const json_t *root, const char *ref)
{
    char step[128];
    size_t n;

    if (ref == NULL || ref[0] != '#') {
        return NULL;
    }
    for (ref++; *ref == '/' && root != NULL;) {
        for (n = 0, ref++; *ref != '\0' && *ref != '/'; ref++) {
            if (n + 1 == sizeof(step)) {
                return NULL;
            }
            step[n++] = *ref;
            if (*ref == '~' && (ref[1] == '0' || ref[1] == '1')) {
                step[n - 1] = *++ref == '0' ? '~' : '/';
            }
        }
        step[n] = '\0';
        root = json_is_array(root)
                   ? json_array_get(root, strtoul(step, NULL, 10))
                   : json_object_get(root, step);
    }

    return *ref == '\0' ? root : NULL;
}


/* The types that a schema allows, by type, by reference, by alternatives, by
 * its values: the first of these that says anything.  Alternatives deeper than
 * ANY_OF_DEPTH are not looked at. */
static uint32_t
types_of(const json_t *root, const json_t *schema, int depth, uint32_t *left)
{
    static const char *const lists[] = {"anyOf", "oneOf", "allOf"};
    const json_t *v = json_object_get(schema, "type");
    uint32_t types = type_of_name(v);
    size_t i, k;

    assert(depth <= ANY_OF_DEPTH);
    if (*left == 0) {
        return 0;
    }
    --*left;

    for (i = 0; i < json_array_size(v); i++) {
        types |= type_of_name(json_array_get(v, i));
    }
    v = json_object_get(schema, "$ref");
    if (types == 0 && v != NULL && depth < ANY_OF_DEPTH) {
        types =
            types_of(root, follow(root, json_string_value(v)), depth + 1, left);
    }
    for (k = 0; types == 0 && depth < ANY_OF_DEPTH && k < 3; k++) {
        v = json_object_get(schema, lists[k]);
        for (i = 0; i < json_array_size(v); i++) {
            types |= types_of(root, json_array_get(v, i), depth + 1, left);
        }
    }
    if (types == 0) {
        v = json_object_get(schema, "enum");
        for (i = 0; i < json_array_size(v); i++) {
            types |= type_of_value(json_array_get(v, i));
        }
    }
    v = json_object_get(schema, "const");
    if (types == 0 && v != NULL) {
        types = type_of_value(v);
    }

    return types;
}


/* A name, copied when there is where to. */
static const char *
walk_name(schema_walk_t *w, const char *name, size_t len)
{
    char *at = NULL;

    if (w->text != NULL) {
        at = w->text + w->bytes;
        memcpy(at, name, len);
    }
    w->bytes += len;

    return at;
}


/* A function and its parameters, which lie in a row from first on.  One without
 * a name is none. */
static void
walk_function(schema_walk_t *w, const json_t *f)
{
    json_t *name = json_object_get(f, "name"), *v;
    json_t *root = json_object_get(f, "parameters");
    json_t *params = json_object_get(root, "properties");
    tools_function_t *to;
    const char *key, *at;
    uint32_t left;
    size_t len;

    if (!json_is_string(name) || json_string_length(name) == 0) {
        return;
    }

    at = walk_name(w, json_string_value(name), json_string_length(name));
    if (w->text != NULL) {
        to = &w->s->functions[w->functions];
        to->name = at;
        to->len = (uint32_t) json_string_length(name);
        to->first = w->params;
        to->n = (uint32_t) json_object_size(params);
    }
    w->functions++;

    json_object_keylen_foreach(params, key, len, v)
    {
        at = walk_name(w, key, len);
        if (w->text != NULL) {
            left = SCHEMAS_MAX;
            w->s->params[w->params] = (tools_param_t){
                at, (uint32_t) len, types_of(root, v, 0, &left)};
        }
        w->params++;
    }
}


/* All declarations, from the beginning; what is none is passed over. */
static void
walk_all(schema_walk_t *w, const json_t *tools)
{
    size_t i;

    w->functions = w->params = 0;
    w->bytes = 0;
    for (i = 0; i < json_array_size(tools); i++) {
        walk_function(w, json_object_get(json_array_get(tools, i), "function"));
    }
}


int
tools_schema_open(tools_schema_t *s, const char *json, size_t len)
{
    json_t *tools = json_loadb(json, len, JSON_ALLOW_NUL, NULL);
    schema_walk_t w = {s, 0, 0, 0, NULL};
    size_t functions, params, text;
    char *block;

    memset(s, 0, sizeof(*s));
    walk_all(&w, tools);
    functions = w.functions * sizeof(tools_function_t);
    params = w.params * sizeof(tools_param_t);
    block = malloc(functions + params + w.bytes + 1);
    if (block == NULL) {
        json_decref(tools);
        return -1;
    }

    s->block = block;
    s->functions = (tools_function_t *) (void *) block;
    s->params = (tools_param_t *) (void *) (block + functions);
    w.text = block + functions + params;
    text = w.bytes;
    walk_all(&w, tools);
    assert(w.functions * sizeof(tools_function_t) == functions);
    assert(w.params * sizeof(tools_param_t) == params && w.bytes == text);
    s->functions_n = w.functions;
    s->params_n = w.params;
    json_decref(tools);

    return 0;
}


void
tools_schema_close(tools_schema_t *s)
{
    free(s->block);
    memset(s, 0, sizeof(*s));
}


/* A request declares few functions: they are compared one by one. */
uint32_t
tools_schema_find(const tools_schema_t *s, const char *name, uint32_t len)
{
    uint32_t i;

    for (i = 0; i < s->functions_n; i++) {
        if (s->functions[i].len == len
            && memcmp(s->functions[i].name, name, len) == 0) {
            return i;
        }
    }

    return TOOLS_NONE;
}


uint32_t
tools_schema_types(
    const tools_schema_t *s, uint32_t function, const char *name, uint32_t len)
{
    const tools_function_t *f;
    uint32_t i;

    if (function == TOOLS_NONE) {
        return 0;
    }

    assert(function < s->functions_n);
    f = &s->functions[function];
    assert(f->n <= s->params_n && f->first <= s->params_n - f->n);
    for (i = f->first; i < f->first + f->n; i++) {
        if (s->params[i].len == len
            && memcmp(s->params[i].name, name, len) == 0) {
            return s->params[i].types;
        }
    }

    return 0;
}


uint32_t
tools_schema_prefix(const tools_schema_t *s, const char *p, size_t n)
{
    uint32_t i, best = 0;

    for (i = 0; i < s->functions_n; i++) {
        if (s->functions[i].len <= n && s->functions[i].len > best
            && memcmp(s->functions[i].name, p, s->functions[i].len) == 0) {
            best = s->functions[i].len;
        }
    }

    return best;
}
