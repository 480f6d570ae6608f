/*
 * What the value of a keyword must look like.
 *
 * DESIGN.  A keyword whose value is none that it can have ("items": "string",
 * a list where an object should be) asks for something, and nobody can say for
 * what: so it is refused like one that cannot be enforced, and not left out.
 * Most keywords are read in one place, which sees that by itself; those here
 * are read where a value is made of several of them, and only if one is.
 *
 *      table: keyword ──> what it is, or what each of its members is
 *
 * No state, no memory.
 */
#include "grammar_schema.h"

#include <assert.h>
#include <string.h>

enum {
    SCHEMA = 1, /* an object, true or false */
    SCHEMAS,    /* a list of those */
    STRINGS,    /* a list of strings */
    STRING,
    COUNT,
    EITHER,   /* a schema or a list of them */
    REQUIRES, /* a schema or a list of strings */
    KINDS = 16,
    MEMBERS = KINDS /* added: an object, each of whose members is one */
};

static const struct {
    const char *key;
    uint8_t shape;
    const char *why;
} shapes[] = {
    {"items", EITHER, "is no schema, nor a list of them"},
    {"prefixItems", SCHEMAS, "is no list of schemas"},
    {"additionalItems", SCHEMA, "is no schema"},
    {"minContains", COUNT, "is no whole number"},
    {"maxContains", COUNT, "is no whole number"},
    {"properties", MEMBERS + SCHEMA, "is no object of schemas"},
    {"patternProperties", MEMBERS + SCHEMA, "is no object of schemas"},
    {"additionalProperties", SCHEMA, "is no schema"},
    {"dependentRequired", MEMBERS + STRINGS, "is no object of lists of names"},
    {"dependentSchemas", MEMBERS + SCHEMA, "is no object of schemas"},
    {"dependencies", MEMBERS + REQUIRES,
        "is no object of schemas and lists of names"},
    {"if", SCHEMA, "is no schema"},
    {"then", SCHEMA, "is no schema"},
    {"else", SCHEMA, "is no schema"},
    {"format", STRING, "is no string"},
};


static int is_shaped(const json_t *v, unsigned shape);


/* Has each of a list's elements that shape? */
static int
are_shaped(const json_t *list, unsigned shape)
{
    size_t i;

    for (i = 0; i < json_array_size(list); i++) {
        if (!is_shaped(json_array_get(list, i), shape)) {
            return 0;
        }
    }

    return json_is_array(list);
}


static int
is_shaped(const json_t *v, unsigned shape)
{
    const char *name;
    json_t *member;

    if (shape >= MEMBERS) {
        json_object_foreach((json_t *) v, name, member)
        {
            if (!is_shaped(member, shape - MEMBERS)) {
                return 0;
            }
        }
        return json_is_object(v);
    }

    switch (shape) {
    case SCHEMA:
        return json_is_object(v) || json_is_boolean(v);
    case SCHEMAS:
        return are_shaped(v, SCHEMA);
    case STRINGS:
        return are_shaped(v, STRING);
    case STRING:
        return json_is_string(v);
    case COUNT:
        return json_is_number(v) && json_number_value(v) >= 0;
    case EITHER:
        return is_shaped(v, SCHEMA) || are_shaped(v, SCHEMA);
    default:
        assert(shape == REQUIRES);
        return is_shaped(v, SCHEMA) || are_shaped(v, STRING);
    }
}


int
grammar_schema_shape(
    schema_t *c, const json_t *s, const char *key, const json_t *v)
{
    size_t i;

    assert(json_is_object(s) && v != NULL);

    for (i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        if (strcmp(shapes[i].key, key) == 0) {
            return is_shaped(v, shapes[i].shape)
                       ? 0
                       : grammar_schema_refuse(c, s, key, shapes[i].why);
        }
    }

    return 0;
}
