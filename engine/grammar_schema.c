/*
 * JSON Schema, drafts 4 to 2020-12, as a grammar.
 *
 * DESIGN.  What is demanded is kept or refused, never ignored: a keyword that
 * has no form here is an error that names it and where it stands.  A document
 * is read, the places of its identifiers noted, and rules made of the root and
 * of all that it leads to:
 *
 *      terms --flats--> alternatives --nodes--> rule, which asks for rules
 *
 * Names that the standard does not define are annotations, as it says.  With
 * the option to be lenient what cannot be enforced is left out, and the first
 * such keyword is told in a warning.
 *
 * All memory but the document's is the build's; one thread.
 *
 * Which file does what:
 *
 *      grammar_schema_ref.c      identifiers, anchors, "$ref"
 *      grammar_schema_flat.c     keywords and their negations to alternatives
 *      grammar_schema_value.c    "enum", "const"; trials of values
 *      grammar_schema_emit.c     strings, objects to nodes and rules
 *      grammar_schema_array.c    arrays
 *      grammar_schema_number.c   bounds and multiples
 *      grammar_schema_format.c   formats as regular expressions
 *
 * Refused by keyword: uniqueItems of items whose values are not few, contains
 * beside what looks at items too, references out of the document, dynamic
 * references with a choice, formats that are not regular, multiples of what is
 * large and prime, and "not" of what would say that some further property is
 * there.
 *
 * One text may be written in several ways.  Where any will do, a string may
 * have any escape; literals, their characters that are not ASCII, as "\u00e9",
 * and "\/".  What a pattern or a format asks for, and names of properties, are
 * written with the escapes that they need and no other.
 */
#include "grammar_schema.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POINTER_MAX 512

/* Bytes of an object or an array that is empty, and of a member or an item, a
 * number or the head of a text, with its share of tables half full. */
#define OBJECT_SIZE 288
#define ARRAY_SIZE  192
#define MEMBER_SIZE 128


/* --- saying where ------------------------------------------------------- */

/* Appends a step, cut where there is no room; how long the path is then. */
static size_t
path_step(char *path, size_t n, const char *key)
{
    assert(n < POINTER_MAX);

    if (n + 1 < POINTER_MAX) {
        path[n++] = '/';
    }
    for (; *key != '\0' && n + 2 < POINTER_MAX; key++) {
        if (*key == '~' || *key == '/') {
            path[n++] = '~';
            path[n++] = *key == '~' ? '0' : '1';
        } else {
            path[n++] = *key;
        }
    }
    path[n] = '\0';

    return n;
}


/* The JSON pointer of s below at; 0: it is not there. */
static int
path_of(const json_t *at, const json_t *s, char *path, size_t n)
{
    const char *key;
    char number[24];
    json_t *v;
    size_t i;

    assert(n < POINTER_MAX);
    path[n] = '\0';
    if (at == s) {
        return 1;
    }
    json_object_foreach((json_t *) at, key, v)
    {
        if (path_of(v, s, path, path_step(path, n, key))) {
            return 1;
        }
    }
    json_array_foreach((json_t *) at, i, v)
    {
        (void) snprintf(number, sizeof(number), "%zu", i);
        if (path_of(v, s, path, path_step(path, n, number))) {
            return 1;
        }
    }

    return 0;
}


int
grammar_schema_refuse(
    schema_t *c, const json_t *s, const char *keyword, const char *why)
{
    char path[POINTER_MAX + 1] = "";

    if (c->b->failed) {
        return 1;
    }
    if (c->b->o.lenient) {
        if (c->b->o.warn != NULL && !c->warned) {
            (void) path_of(c->doc, s, path, 0);
            (void) snprintf(c->b->o.warn, c->b->o.warn_len,
                "%s at #%s is ignored: %s", keyword, path, why);
        }
        c->warned = 1;
        return 0;
    }
    (void) path_of(c->doc, s, path, 0);
    grammar_fail(c->b, "%s at #%s: %s", keyword, path, why);
    assert(c->b->failed);

    return 1;
}


/* --- the whole ---------------------------------------------------------- */

/* Nodes of all rules that were asked for.  Making one may ask for more, which
 * are put behind it; a limit on rules ends what would go on for ever. */
void
grammar_schema_rules(schema_t *c)
{
    grammar_list_t l = {NULL, 0, 0};
    const schema_flat_t *f;
    uint32_t i, node;

    assert(c->rules_n <= c->rules_cap && c->rules_made <= c->rules_n);
    /* what is made may ask for more */
    for (; c->rules_made < c->rules_n && !grammar_tick(c->b); c->rules_made++) {
        i = c->rules_made;
        l.n = 0;
        c->flats = 0;
        for (f = grammar_schema_flats(c, c->rules[i].terms);
             f != NULL && !c->b->failed; f = f->next) {
            (void) grammar_list_put(c->b, &l, grammar_schema_flat_node(c, f));
        }
        node = c->b->failed ? 0 : grammar_alt(c->b, l.v, l.n);
        if (!c->b->failed) {
            c->b->rules[c->rules[i].rule].node = node;
        }
    }
    grammar_list_free(&l);
}


/*
 * What a text takes as a document, at most: the reader's structures, counted by
 * what stands for each, and texts, once each.
 */
static size_t
document_size(const char *s, size_t len)
{
    size_t i, n = len;
    int within = 0;

    for (i = 0; i < len; i++) {
        if (within) {
            i += s[i] == '\\';
            within = i < len && s[i] != '"';
            continue;
        }
        within = s[i] == '"';
        n += s[i] == '{'                  ? OBJECT_SIZE
             : s[i] == '['                ? ARRAY_SIZE
             : s[i] == ',' || s[i] == ':' ? MEMBER_SIZE
                                          : 0;
    }

    return n;
}


/* A text that is read in pieces, between which it may be seen that the time is
 * up. */
typedef struct {
    grammar_build_t *b;
    const char *s;
    size_t len;
} pieces_t;

static size_t
piece(void *to, size_t n, void *arg)
{
    pieces_t *p = arg;

    n = n < p->len ? n : p->len;
    if (grammar_spend(p->b, 16 * n)) {
        return (size_t) -1;
    }
    memcpy(to, p->s, n);
    p->s += n;
    p->len -= n;

    return n;
}


json_t *
grammar_document(grammar_build_t *b, const char *what, const char *s,
    size_t len, size_t *held)
{
    pieces_t p = {b, s, len};
    json_error_t e = {0};
    json_t *doc = NULL;

    *held = 0;
    if (len > GRAMMAR_TEXT_MAX) {
        grammar_fail(b, "%s is longer than %u bytes", what, GRAMMAR_TEXT_MAX);
    }
    if (b->failed || grammar_hold(b, document_size(s, len)) != 0) {
        return NULL;
    }
    *held = document_size(s, len);
    doc = json_load_callback(piece, &p, JSON_DECODE_ANY | JSON_ALLOW_NUL, &e);
    if (doc == NULL && json_error_code(&e) == json_error_numeric_overflow) {
        grammar_fail(b,
            "%s has a number of more than 64 bits, which is not supported: at "
            "byte %d",
            what, e.position);
    } else if (doc == NULL) {
        grammar_fail(
            b, "%s is no JSON: %s at byte %d", what, e.text, e.position);
    }

    return doc;
}


int
grammar_schema_begin(schema_t *c, grammar_build_t *b, json_t *doc)
{
    const char *dialect;

    memset(c, 0, sizeof(*c));
    c->b = b;
    c->doc = doc;
    c->consts = json_array();
    if (c->consts == NULL) {
        grammar_fail(b, "the grammar needs too much memory");
    }
    if (!json_is_object(c->doc) && !json_is_boolean(c->doc)) {
        grammar_fail(b, "the schema is no object");
    }
    if (b->failed) {
        return -1;
    }

    dialect = json_string_value(json_object_get(c->doc, "$schema"));
    c->old = dialect != NULL
             && (strstr(dialect, "draft-07") != NULL
                 || strstr(dialect, "draft-06") != NULL
                 || strstr(dialect, "draft-04") != NULL);
    grammar_schema_places(c);

    return b->failed ? -1 : 0;
}


uint32_t
grammar_schema_make(schema_t *c, const json_t *s, int object)
{
    const char *type = json_string_value(json_object_get(s, "type"));
    const schema_terms_t *t = NULL;
    json_t *only;
    uint32_t rule;

    assert(c->doc != NULL);
    if (object
        && (type == NULL || strcmp(type, "object") != 0
            || json_object_get(s, "$ref") != NULL)) {
        only = json_pack("{s:s}", "type", "object");
        if (json_array_append_new(c->consts, only) != 0) {
            return grammar_fail(c->b, "the grammar needs too much memory");
        }
        t = grammar_schema_term(c, only, 0, NULL);
    }
    rule = grammar_schema_rule(c, grammar_schema_term(c, s, 0, t));
    grammar_schema_rules(c);

    return c->b->failed ? 0 : rule;
}


void
grammar_schema_end(schema_t *c)
{
    grammar_build_t *b = c->b;

    json_decref(c->doc);
    json_decref(c->consts);
    grammar_room_free(b, &c->places, &c->places_cap, sizeof(*c->places));
    grammar_room_free(
        b, &c->resources, &c->resources_cap, sizeof(*c->resources));
    grammar_room_free(b, &c->anchors, &c->anchors_cap, sizeof(*c->anchors));
    grammar_room_free(b, &c->rules, &c->rules_cap, sizeof(*c->rules));
    grammar_room_free(b, &c->patterns, &c->patterns_cap, sizeof(*c->patterns));
    grammar_room_free(b, &c->strings, &c->strings_cap, sizeof(*c->strings));
}


grammar_t *
grammar_open_schema(const char *s, size_t len, const grammar_opts_t *o,
    char *err, size_t errlen)
{
    grammar_build_t b;
    uint32_t root = 0;
    size_t held;
    json_t *doc;
    schema_t c;

    grammar_build_open(&b, o, err, errlen);
    doc = grammar_document(&b, "the schema", s, len, &held);
    if (grammar_schema_begin(&c, &b, doc) == 0) {
        root = grammar_schema_make(&c, doc, 0);
    }
    grammar_schema_end(&c);
    grammar_drop(&b, held);

    return grammar_link(&b, root);
}


grammar_t *
grammar_open_json(const grammar_opts_t *o, char *err, size_t errlen)
{
    grammar_build_t b;
    uint32_t root;

    grammar_build_open(&b, o, err, errlen);
    root = grammar_json_object(&b);

    return grammar_link(&b, root);
}
