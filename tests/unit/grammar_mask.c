/*
 * Would catch: a token allowed that the grammar does not take, or forbidden
 * that it does, in any state, with the cache and without; a state that a copy
 * shares; bytes called forced that have an alternative.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "brief.h"
#include "grammar_test.h"

static char err[600];

static uint32_t seed = 1;
static char text[4096]; /* so far */

static uint32_t
draw(uint32_t n)
{
    seed = seed * 1664525u + 1013904223u;

    return (seed >> 8) % n;
}

static int
bit(const uint32_t *mask, uint32_t i)
{
    return mask[i / 32] >> i % 32 & 1;
}

/* May token id come next?  Fed by itself. */
static int
alone(const grammar_t *g, const token_t *tok, const grammar_state_t *st,
    uint32_t id)
{
    grammar_state_t own = {NULL, 0, 0, 0};
    const char *s;
    size_t len;
    int yes;

    if (token_is_end(tok, id)) {
        return grammar_can_end(g, st);
    }
    s = token_bytes(tok, id, &len);
    if (len == 0 || len > 255) {
        return 0;
    }
    assert_int_equal(grammar_state_copy(&own, st), 0);
    yes = grammar_feed(g, &own, s, len) == len;
    grammar_state_free(&own);

    return yes;
}

/* Every token, or every so many-th of a large vocabulary. */
static void
compare(grammar_t *g, const grammar_vocab_t *v, const token_t *tok,
    const grammar_state_t *st, uint32_t stride, uint32_t *room)
{
    const uint32_t *mask = grammar_mask(g, v, st, room);
    uint32_t i;

    assert_non_null(mask);
    for (i = draw(stride); i < token_vocab(tok); i += stride) {
        if (bit(mask, i) != alone(g, tok, st, i)) {
            fail_msg("token %u: mask %d behind %s", i, bit(mask, i), text);
        }
    }
}

/* Writes a text by masks alone; how many tokens. */
static uint32_t
wander(grammar_t *g, const grammar_vocab_t *v, const token_t *tok,
    uint32_t steps, uint32_t stride)
{
    uint32_t *room = calloc(grammar_mask_words(v) + 1, sizeof(*room)), i, id, k;
    grammar_state_t st = {NULL, 0, 0, 0};
    const uint32_t *mask;
    const char *s;
    size_t len;

    assert_non_null(room);
    assert_int_equal(grammar_begin(g, &st), 0);
    text[0] = '\0';
    for (i = 0; i < steps; i++) {
        compare(g, v, tok, &st, stride, room);
        mask = grammar_mask(g, v, &st, room);
        for (k = 0, id = draw(token_vocab(tok));
             k < token_vocab(tok) && !bit(mask, id);
             k++, id = (id + 1) % token_vocab(tok)) {
        }
        /* there is always a way on */
        assert_true(k < token_vocab(tok));
        if (token_is_end(tok, id)) {
            break;
        }
        s = token_bytes(tok, id, &len);
        assert_int_equal(grammar_feed(g, &st, s, len), len);
        (void) snprintf(text + strlen(text), sizeof(text) - strlen(text),
            "%.*s", (int) len, s);
    }
    grammar_state_free(&st);
    free(room);

    return i;
}

static const char *const schemas[] = {
    "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},"
    "\"number\":{\"type\":\"integer\",\"minimum\":3,\"maximum\":250},"
    "\"tags\":{\"type\":\"array\",\"items\":{\"enum\":[\"a\",\"b\"]},"
    "\"maxItems\":3}},\"required\":[\"name\",\"tags\"]}",
    "{\"properties\":{\"na\":{\"const\":1},\"nab\":{\"const\":2}},"
    "\"required\":[\"nab\"],\"maxProperties\":2,\"type\":\"object\","
    "\"additionalProperties\":false}",
    "{\"anyOf\":[{\"type\":\"object\",\"required\":[\"x\"],\"properties\":"
    "{\"x\":{\"type\":\"string\",\"maxLength\":30}}},{\"type\":\"array\","
    "\"items\":{\"$ref\":\"#\"}}]}",
    "{\"type\":\"string\",\"pattern\":\"^[a-z\\\\u00e0-\\\\u00ff ]{3,20}$\"}",
    ("{\"type\":\"object\",\"minProperties\":2,\"patternProperties\":"
     "{\"^x\":{\"type\":\"boolean\"}},\"propertyNames\":{\"maxLength\":5}}"),
    /* beside names, and where text leads home from several places at once */
    "{\"type\":\"object\",\"properties\":{\"na\":{\"type\":\"string\","
    "\"minLength\":1},\"name\":true,\"\\u00e4\":{\"type\":\"null\"}},"
    "\"required\":[\"na\"],\"minProperties\":3}",
    "{\"type\":\"array\",\"items\":{\"anyOf\":[{\"enum\":[\"ab\",\"a\\\"c\"]},"
    "{\"type\":\"string\",\"minLength\":2,\"maxLength\":40},"
    "{\"type\":\"string\",\"minLength\":20,\"maxLength\":21}]},"
    "\"maxItems\":9}",
    ("{\"type\":\"array\",\"contains\":{\"type\":\"string\",\"pattern\":"
     "\"b$\"},\"minItems\":2,\"items\":{\"type\":[\"string\",\"object\"],"
     "\"maxProperties\":1}}"),
    ("{\"type\":\"array\",\"uniqueItems\":true,\"items\":{\"enum\":"
     "[\"a\",\"ab\",null,7]}}"),
    /* a place for each character */
    "{\"type\":\"array\",\"items\":{\"type\":\"string\",\"minLength\":2,"
    "\"maxLength\":5},\"minItems\":3}",
    "{\"type\":\"string\",\"pattern\":\"^a.{0,4}b?$\"}",
    /* a place where some kinds of text go on and on */
    "{\"type\":\"string\",\"pattern\":\"^[a-z]\\\\w*:[A-Z0-9 .-]+[^/ ]*!$\"}"};

/* The same where any byte may stand, and where only some characters may. */
static const char *const regexes[] = {"[\\s\\S]{2}\"", "[\\s\\S]*\"!",
    "[^\\x00-\\x1f]{2,4}\"", "x[^\\x00-\\x1f\"\\\\]*\"",
    "x[a-z\\u00e0-\\uffff_]*[0-9]+z"};

static void
try_all(const token_t *tok, uint32_t steps, uint32_t stride, int ordered)
{
    grammar_opts_t o = {.compact = 1, .ordered = (uint32_t) ordered};
    grammar_vocab_t *v = grammar_vocab_open(tok, NULL, 0);
    grammar_t *g;
    size_t i;

    assert_non_null(v);
    for (i = 0; i < sizeof(schemas) / sizeof(schemas[0]); i++) {
        g = grammar_open_schema(
            schemas[i], strlen(schemas[i]), &o, err, sizeof(err));
        if (g == NULL) {
            fail_msg("%s: %s", schemas[i], err);
        }
        /* the second time masks come from the cache */
        (void) wander(g, v, tok, steps, stride);
        (void) wander(g, v, tok, steps, stride);
        grammar_close(g);
    }
    for (i = 0; i < sizeof(regexes) / sizeof(regexes[0]); i++) {
        g = grammar_open_regex(
            regexes[i], strlen(regexes[i]), &o, err, sizeof(err));
        if (g == NULL) {
            fail_msg("%s: %s", regexes[i], err);
        }
        (void) wander(g, v, tok, steps, stride);
        (void) wander(g, v, tok, steps, stride);
        grammar_close(g);
    }
    grammar_vocab_close(v);
}

static void
test_bytes(void **state)
{
    token_t *tok = token_open_null();

    (void) state;
    assert_non_null(tok);
    try_all(tok, brief() ? 40 : 150, 1, 0);
    try_all(tok, brief() ? 40 : 150, 1, 1);
    token_close(tok);
}

static void
test_vocabulary(void **state)
{
    int all = getenv("LLM_LONG") != NULL;
    tokenizer_t t;
    size_t i;

    (void) state;
    for (i = 0; i < (all ? TOKENIZERS : 1); i++) {
        if (tokenizer_open(&t, tokenizers[i].name, err, sizeof(err)) != 0) {
            skip();
        }
        if (tokenizers[i].json) {
            try_all(t.tok,
                all       ? 25
                : brief() ? 4
                          : 12,
                all       ? 13
                : brief() ? 211
                          : 31,
                all && i % 2);
        }
        tokenizer_close(&t);
    }
}

/* A control token where a grammar speaks of it, and no text in its stead. */
static void
test_mark(void **state)
{
    static const char *const texts[] = {GRAMMAR_TOKEN "<call>x", "<call>y"};
    static const size_t lens[] = {8, 7};
    token_t *tok = token_open_null();
    grammar_mark_t marks[] = {
        {token_bos(tok), texts[0], 7}, {token_eos(tok), "end", 3}};
    grammar_vocab_t *v = grammar_vocab_open(tok, marks, 2);
    grammar_t *g = grammar_open_choice(texts, lens, 2, NULL, err, sizeof(err));
    uint32_t *room = calloc(grammar_mask_words(v) + 1, sizeof(*room));
    grammar_state_t st = {NULL, 0, 0, 0};
    const uint32_t *mask;
    uint32_t i, n = 0;
    const char *s;
    size_t len;

    (void) state;
    assert_non_null(g);
    assert_int_equal(grammar_begin(g, &st), 0);
    mask = grammar_mask(g, v, &st, room);
    for (i = 0; i < token_vocab(tok); i++) {
        n += (uint32_t) bit(mask, i);
    }
    assert_int_equal(n, 2);
    assert_true(bit(mask, token_bos(tok)));
    assert_true(bit(mask, '<'));
    assert_false(bit(mask, 0xff));

    s = grammar_vocab_bytes(v, token_eos(tok), &len);
    assert_int_equal(len, 0);
    s = grammar_vocab_bytes(v, 'a', &len);
    assert_int_equal(len, 1);
    assert_memory_equal(s, "a", 1);
    s = grammar_vocab_bytes(v, token_bos(tok), &len);
    assert_int_equal(grammar_feed(g, &st, s, len), 7);
    mask = grammar_mask(g, v, &st, room);
    assert_true(bit(mask, 'x'));
    assert_false(bit(mask, 'y'));

    grammar_state_free(&st);
    grammar_close(g);
    grammar_vocab_close(v);
    free(room);
    token_close(tok);
}

static void
test_forced(void **state)
{
    static const char schema[] =
        "{\"type\":\"object\",\"properties\":{\"first\":{\"type\":\"integer\"},"
        "\"second\":{\"enum\":[\"only\"]}},\"required\":[\"first\",\"second\"],"
        "\"additionalProperties\":false}";
    grammar_opts_t o = {.compact = 1, .ordered = 1};
    grammar_state_t st = {NULL, 0, 0, 0}, other = {NULL, 0, 0, 0};
    grammar_t *g =
        grammar_open_schema(schema, sizeof(schema) - 1, &o, err, sizeof(err));
    char out[64];
    size_t n;

    (void) state;
    if (g == NULL) {
        fail_msg("%s", err);
    }
    assert_int_equal(grammar_begin(g, &st), 0);
    n = grammar_forced(g, &st, out, sizeof(out));
    assert_int_equal(n, 9);
    assert_memory_equal(out, "{\"first\":", 9);
    assert_int_equal(grammar_feed(g, &st, out, n), n);
    assert_int_equal(grammar_forced(g, &st, out, sizeof(out)), 0);

    /* a copy is moved alone */
    assert_int_equal(grammar_state_copy(&other, &st), 0);
    assert_int_equal(grammar_feed(g, &other, "12,", 3), 3);
    n = grammar_forced(g, &other, out, sizeof(out));
    assert_int_equal(n, 16);
    assert_memory_equal(out, "\"second\":\"only\"}", 16);
    assert_int_equal(grammar_forced(g, &other, out, 3), 3);
    assert_int_equal(grammar_feed(g, &other, "\"second\":\"only\"}", n), n);
    assert_true(grammar_can_end(g, &other));
    assert_int_equal(grammar_forced(g, &other, out, sizeof(out)), 0);
    assert_int_equal(grammar_feed(g, &st, ",", 1), 0);
    assert_int_equal(grammar_feed(g, &st, "7,x", 3), 2);
    assert_false(grammar_can_end(g, &st));
    grammar_state_free(&st);
    grammar_state_free(&other);
    grammar_close(g);
}

/* A cache that is full gives the same masks, and grows no more. */
static void
test_full(void **state)
{
    static const char schema[] =
        "{\"type\":\"string\",\"minLength\":85,\"maxLength\":90}";
    grammar_opts_t o = {.masks_max = 0};
    token_t *tok = token_open_null();
    grammar_vocab_t *v = grammar_vocab_open(tok, NULL, 0);
    size_t first, full;
    grammar_t *g;
    int bounded;

    (void) state;
    assert_non_null(v);
    for (bounded = 0; bounded < 2; bounded++) {
        o.masks_max = bounded ? 8000 : 0;
        g = grammar_open_schema(
            schema, sizeof(schema) - 1, &o, err, sizeof(err));
        assert_non_null(g);
        (void) wander(g, v, tok, 1, 1);
        first = grammar_memory(g);
        (void) wander(g, v, tok, 300, 1);
        (void) wander(g, v, tok, 300, 1);
        full = grammar_memory(g);
        assert_true(full > first);
        if (bounded != (full <= first + 8000)) {
            fail_msg("%d: %zu and %zu bytes", bounded, first, full);
        }
        grammar_close(g);
    }
    grammar_vocab_close(v);
    token_close(tok);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_vocabulary),
        cmocka_unit_test(test_mark),
        cmocka_unit_test(test_forced),
        cmocka_unit_test(test_full),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
