/*
 * What "$ref" refers to.
 *
 * DESIGN.  One walk notes where schemas with an identifier begin (resources),
 * their anchors, and in which of them each schema with a reference stands.  A
 * reference is resolved when it is read: a name of a resource, of this document
 * only, and a JSON pointer or an anchor within it.
 *
 * Names within "properties" and its like are no keywords, and what stands in
 * "enum", "const", "default" and examples is no schema.
 */
#include "grammar_schema.h"

#include <assert.h>
#include <string.h>

#define REF_LEN_MAX 2048


/* A member that is a string; NULL: there is none. */
static const char *
str(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}


/*
 * What base makes of ref, without a fragment; from the build's memory, NULL:
 * failed.  As RFC 3986, 5.2 has it, but "." and ".." stay: nothing is fetched,
 * names are compared with each other only.
 *
 *      http://a/b/c + d    http://a/b/d        http://a/b + /c    http://a/c
 *      http://a/b   + #x   http://a/b          http://a/b + x:y   x:y
 */
static char *
resolve(schema_t *c, const char *base, const char *ref)
{
    size_t n = strcspn(ref, "#"), keep = 0, colon = strcspn(ref, ":/?#");
    const char *p;
    char *out = grammar_get(c->b, strlen(base) + n + 2);

    if (out == NULL || n == 0) {
        return out == NULL ? NULL : strcpy(out, base);
    }
    if (ref[colon] != ':' || colon == 0) {
        p = strstr(base, "://");
        keep = p == NULL ? 0 : (size_t) (p - base) + 3;
        if (*ref == '/') {
            keep += strcspn(base + keep, "/");
        } else {
            p = strrchr(base + keep, '/');
            keep = p == NULL ? keep : (size_t) (p - base) + 1;
        }
    }
    assert(keep <= strlen(base));
    memcpy(out, base, keep);
    memcpy(out + keep, ref, n);

    return out;
}


/* Notes an anchor; of two with one name in a resource the last one counts. */
static void
anchor_put(schema_t *c, const char *name, const json_t *s, uint32_t resource)
{
    assert(name != NULL && resource < c->resources_n);

    if (grammar_room(c->b, &c->anchors, c->anchors_n, &c->anchors_cap,
            sizeof(*c->anchors))
        == 0) {
        c->anchors[c->anchors_n].name = name;
        c->anchors[c->anchors_n].schema = s;
        c->anchors[c->anchors_n++].resource = resource;
    }
}


/* Notes a resource; its number, 0 if failed, which is the document's too. */
static uint32_t
resource_put(schema_t *c, const char *uri, const json_t *root)
{
    assert(uri != NULL && root != NULL);

    if (grammar_room(c->b, &c->resources, c->resources_n, &c->resources_cap,
            sizeof(*c->resources))
        != 0) {
        return 0;
    }
    c->resources[c->resources_n].uri = uri;
    c->resources[c->resources_n].root = root;

    return c->resources_n++;
}


/* Notes a schema's own identifier and anchors; the resource that it is in.  In
 * old drafts an identifier that is a fragment is an anchor, and one beside a
 * reference means nothing.  The document's own names resource 0. */
static uint32_t
identify(schema_t *c, const json_t *s, uint32_t resource)
{
    const char *id = str(s, "$id"), *name;
    char *uri;

    assert(json_is_object(s) && resource < c->resources_n);
    if (id == NULL) {
        id = str(s, "id");
    }
    if (id != NULL && (!c->old || str(s, "$ref") == NULL)) {
        if (*id == '#') {
            anchor_put(c, id + 1, s, resource);
        } else {
            uri = resolve(c, c->resources[resource].uri, id);
            if (uri != NULL && s != c->resources[resource].root) {
                resource = resource_put(c, uri, s);
            } else if (uri != NULL) {
                c->resources[resource].uri = uri;
            }
        }
    }
    name = str(s, "$anchor");
    if (name != NULL) {
        anchor_put(c, name, s, resource);
    }
    name = str(s, "$dynamicAnchor");
    if (name != NULL) {
        anchor_put(c, name, s, resource);
    }

    return resource;
}


static int
is_one_of(const char *s, const char *const *list)
{
    while (*list != NULL && strcmp(*list, s) != 0) {
        list++;
    }

    return *list != NULL;
}


/*
 * All that may be a schema, from s down.  names: what stands here are names and
 * not keywords.  Whatever has a place in the document may be referred to, so
 * keywords that are not known are walked too.  References within resource 0,
 * which is by far most, need no note.
 */
static void
walk(schema_t *c, json_t *s, uint32_t resource, uint32_t depth, int names)
{
    static const char *const data[] = {
        "enum", "const", "default", "examples", "example", NULL};
    static const char *const maps[] = {"properties", "patternProperties",
        "$defs", "definitions", "dependentSchemas", "dependencies", NULL};
    const char *key;
    json_t *v;
    size_t i;

    assert(resource < c->resources_n);
    if (depth > GRAMMAR_DEPTH_MAX) {
        grammar_fail(c->b, "the schema nests too deeply");
    }
    if (grammar_tick(c->b)) {
        return;
    }
    if (json_is_array(s)) {
        json_array_foreach(s, i, v) { walk(c, v, resource, depth + 1, 0); }
    }
    if (!json_is_object(s)) {
        return;
    }

    if (!names) {
        resource = identify(c, s, resource);
        if (json_object_get(s, "$ref") != NULL && resource > 0
            && grammar_room(c->b, &c->places, c->places_n, &c->places_cap,
                   sizeof(*c->places))
                   == 0) {
            c->places[c->places_n].schema = s;
            c->places[c->places_n++].resource = resource;
        }
    }
    json_object_foreach(s, key, v)
    {
        c->rest |= strncmp(key, "unevaluated", 11) == 0;
        if (names || !is_one_of(key, data)) {
            walk(c, v, resource, depth + 1, !names && is_one_of(key, maps));
        }
    }
}


void
grammar_schema_places(schema_t *c)
{
    assert(c->resources_n == 0);
    (void) resource_put(c, "", c->doc);
    if (!c->b->failed) {
        walk(c, c->doc, 0, 0, 0);
    }
}


/* What a hexadecimal digit says; 16: it is none. */
static unsigned
hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? (unsigned) (c - '0')
           : c >= 'a' && c <= 'f' ? (unsigned) (c - 'a') + 10
           : c >= 'A' && c <= 'F' ? (unsigned) (c - 'A') + 10
                                  : 16;
}


/*
 * One step of a JSON pointer, RFC 6901, from at; *p is moved to what is behind
 * it.  "%25" is undone, since it stands in a URI, then "~1" and "~0".  What is
 * half an escape stands for itself.  NULL: there is nothing of that name.
 */
static const json_t *
pointer_step(const json_t *at, const char **p)
{
    char key[REF_LEN_MAX + 1];
    size_t n = 0, i = 0;
    const char *s = *p;

    for (; *s != '\0' && *s != '/' && n < REF_LEN_MAX; s++) {
        if (*s == '%' && hex_digit(s[1]) < 16 && hex_digit(s[2]) < 16) {
            key[n++] = (char) (hex_digit(s[1]) << 4 | hex_digit(s[2]));
            s += 2;
        } else {
            key[n++] = *s;
        }
    }
    assert(n <= REF_LEN_MAX);
    key[n] = '\0';
    *p = s;
    for (n = i = 0; key[i] != '\0'; i++) {
        if (key[i] == '~' && (key[i + 1] == '0' || key[i + 1] == '1')) {
            key[n++] = key[++i] == '0' ? '~' : '/';
        } else {
            key[n++] = key[i];
        }
    }
    key[n] = '\0';

    if (json_is_array(at)) {
        for (i = n = 0; key[i] >= '0' && key[i] <= '9' && i < 9; i++) {
            n = n * 10 + (size_t) (key[i] - '0');
        }
        return i > 0 && key[i] == '\0' ? json_array_get(at, n) : NULL;
    }

    return json_object_get(at, key);
}


/* The resource first: the one that s stands in, or the one of that name; then a
 * pointer, an anchor, or the whole.  NULL: refused. */
const json_t *
grammar_schema_ref(schema_t *c, const json_t *s, const char *ref)
{
    const char *fragment = strchr(ref, '#'), *p, *uri;
    uint32_t i, resource = 0;
    const json_t *at;

    assert(json_is_object(s) && c->resources_n > 0);
    (void) grammar_spend(
        c->b, c->places_n + 4 * (size_t) (c->resources_n + c->anchors_n));
    for (i = 0; i < c->places_n; i++) {
        if (c->places[i].schema == s) {
            resource = c->places[i].resource;
        }
    }
    if (strlen(ref) > REF_LEN_MAX) {
        (void) grammar_schema_refuse(c, s, "$ref", "is too long");
        return NULL;
    }

    if (*ref != '#') {
        uri = resolve(c, c->resources[resource].uri, ref);
        for (i = 0; uri != NULL && i < c->resources_n
                    && strcmp(c->resources[i].uri, uri) != 0;
             i++) {
        }
        if (uri == NULL || i == c->resources_n) {
            (void) grammar_schema_refuse(
                c, s, "$ref", "is not in this document");
            return NULL;
        }
        resource = i;
    }

    assert(resource < c->resources_n);
    at = c->resources[resource].root;
    p = fragment == NULL ? "" : fragment + 1;
    if (*p == '/') {
        while (at != NULL && *p == '/') {
            p++;
            at = pointer_step(at, &p);
        }
    } else if (*p != '\0') {
        at = NULL;
        for (i = 0; i < c->anchors_n; i++) {
            if (c->anchors[i].resource == resource
                && strcmp(c->anchors[i].name, p) == 0) {
                at = c->anchors[i].schema;
            }
        }
    }
    if (at == NULL || (!json_is_object(at) && !json_is_boolean(at))) {
        (void) grammar_schema_refuse(c, s, "$ref", "leads to no schema");
        return NULL;
    }

    return at;
}
