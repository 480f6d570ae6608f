/*
 * Would catch: a text that masks alone allow and that its schema forbids, or
 * that cannot be brought to an end, over real schemas: what is drawn is read by
 * the grammar again, is JSON, and is tried as a value against the schema, which
 * is other code than that which made the grammar.
 *
 *   GRAMMAR_RANDOM=N GRAMMAR_RANDOM_OUT=FILE grammar_random
 *
 * draws N texts, and writes those that ended for others to judge
 * (tests/grammar_random.sh): a line {"file": ..., "text": ...} each.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "brief.h"
#include "grammar_test.h"

#include <jansson.h>

#define FILES_MAX 400
#define TEXT_MAX  65536
#define STEPS_MAX 1500

typedef struct {
    const token_t *tok;
    grammar_vocab_t *v;
    uint32_t *room;
    uint32_t byte[256]; /* the token that is one byte; UINT32_MAX: none */
    FILE *out;
    size_t walks, ended, tried;
} draw_t;

static char err[600];
static char text[TEXT_MAX];
static uint64_t seed = 1;

static uint32_t
draw(uint32_t n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;

    return (uint32_t) (seed >> 33) % n;
}

static int
bit(const uint32_t *mask, uint32_t i)
{
    return i != UINT32_MAX && mask[i / 32] >> i % 32 & 1;
}

/* A token that is allowed: one of those that lead to an end, the more likely
 * the longer the text is, or any. */
static uint32_t
choose(const draw_t *d, const uint32_t *mask, uint32_t step, const char *name)
{
    static const char ends[] = "\"}]:,0123456789tfn[{-";
    uint32_t vocab = token_vocab(d->tok), id, k;
    const char *p;

    if (draw(100) < 25 + step / 2) {
        for (p = ends; *p != '\0'; p++) {
            if (bit(mask, d->byte[(uint8_t) *p])) {
                return d->byte[(uint8_t) *p];
            }
        }
    }
    id = draw(vocab);
    for (k = 0; k < vocab && !bit(mask, id); k++) {
        id = (id + 1) % vocab;
    }
    if (k == vocab) {
        fail_msg("%s: no way on behind %s", name, text);
    }

    return id;
}

/* Draws a text; its length, 0: it became too long. */
static size_t
walk(draw_t *d, grammar_t *g, const char *name)
{
    grammar_state_t st = {NULL, 0, 0, 0};
    const uint32_t *mask;
    uint32_t step, id;
    size_t n = 0, len;
    const char *s;
    int ended = 0;

    assert_int_equal(grammar_begin(g, &st), 0);
    for (step = 0; step < STEPS_MAX && n + 300 < TEXT_MAX; step++) {
        ended = grammar_can_end(g, &st) && draw(100) < 30 + step;
        if (ended) {
            break;
        }
        mask = grammar_mask(g, d->v, &st, d->room);
        assert_non_null(mask);
        text[n] = '\0';
        id = choose(d, mask, step, name);
        ended = token_is_end(d->tok, id);
        if (ended) {
            break;
        }
        s = token_bytes(d->tok, id, &len);
        if (grammar_feed(g, &st, s, len) != len) {
            fail_msg("%s: %.*s, then %.*s", name, (int) n, text, (int) len, s);
        }
        memcpy(text + n, s, len);
        n += len;
    }
    text[n] = '\0';
    assert_true(!ended || grammar_can_end(g, &st));
    grammar_state_free(&st);

    return ended ? n : 0;
}

/* Does the value hold, tried against the schema?  The schema with a constant
 * beside it is empty if not. */
static void
try_value(draw_t *d, const json_t *schema, json_t *value, const char *name)
{
    json_t *with = json_copy((json_t *) schema);
    char *s;
    grammar_t *g;

    if (json_is_object(with) && json_object_get(with, "const") == NULL
        && json_object_get(with, "$ref") == NULL) {
        assert_int_equal(json_object_set(with, "const", value), 0);
        err[0] = '\0';
        s = json_dumps(with, JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
        assert_non_null(s);
        /* one that refers to itself would have the constant within, too */
        g = strstr(s, "\"$ref\": \"#\"") != NULL
                ? NULL
                : grammar_open_schema(s, strlen(s), NULL, err, sizeof(err));
        d->tried += g != NULL;
        if (g == NULL && strstr(err, "nothing can satisfy") != NULL) {
            fail_msg("%s: %s", name, text);
        }
        grammar_close(g);
        free(s);
    }
    json_decref(with);
}

static void
note(draw_t *d, const char *name, size_t n)
{
    json_t *line = json_pack("{s:s, s:s%}", "file", name, "text", text, n);

    assert_non_null(line);
    assert_int_equal(json_dumpf(line, d->out, JSON_COMPACT), 0);
    (void) fputc('\n', d->out);
    json_decref(line);
}

static void
judge(draw_t *d, const grammar_t *g, const json_t *schema, size_t n,
    const char *name)
{
    json_error_t e;
    json_t *value;

    text[n] = '\0';
    assert_true(takes(g, text, n));
    value = json_loadb(text, n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &e);
    if (value != NULL) {
        try_value(d, schema, value, name);
        json_decref(value);
    } else if (json_error_code(&e) != json_error_numeric_overflow) {
        /* a number may be any, and need not fit */
        fail_msg("%s: %s: %s", name, e.text, text);
    }
    if (d->out != NULL) {
        note(d, name, n);
    }
}

/* So many texts of one schema. */
static void
file(draw_t *d, const char *path, uint32_t times)
{
    json_error_t e;
    json_t *doc = json_load_file(path, JSON_ALLOW_NUL, &e);
    const json_t *schema = json_object_get(doc, "schema");
    char *s = json_dumps(schema, JSON_ENCODE_ANY);
    grammar_opts_t o = {.compact = draw(2), .ordered = draw(2)};
    grammar_t *g;
    uint32_t i;
    size_t n;

    assert_non_null(s);
    g = grammar_open_schema(s, strlen(s), &o, err, sizeof(err));
    for (i = 0; i < times && g != NULL; i++) {
        n = walk(d, g, path);
        d->walks++;
        if (n == 0 && getenv("GRAMMAR_VERBOSE") != NULL) {
            printf("%s: too long: %.200s\n", strrchr(path, '/') + 1, text);
        }
        if (n > 0) {
            d->ended++;
            judge(d, g, schema, n, strrchr(path, '/') + 1);
        }
    }
    grammar_close(g);
    free(s);
    json_decref(doc);
}

static void
test_random(void **state)
{
    const char *data = getenv("LLM_DATA"), *many = getenv("GRAMMAR_RANDOM"),
               *out = getenv("GRAMMAR_RANDOM_OUT");
    char *paths[FILES_MAX], dir[512];
    uint32_t each, stride = brief() ? 12 : 3, i, len;
    size_t n, k, size;
    draw_t d;
    token_t *tok;

    (void) state;
    memset(&d, 0, sizeof(d));
    n = files_of("structured-output/maskbench", ".json", paths, FILES_MAX);
    if (n == 0) {
        skip();
    }
    (void) snprintf(dir, sizeof(dir), "%s/tokenizers/phi-2", data);
    tok = brief() ? token_open_null() : token_open_dir(dir, err, sizeof(err));
    assert_non_null(tok);
    d.tok = tok;
    d.v = grammar_vocab_open(tok, NULL, 0);
    assert_non_null(d.v);
    d.room = calloc(grammar_mask_words(d.v) + 1, sizeof(uint32_t));
    assert_non_null(d.room);
    memset(d.byte, 0xff, sizeof(d.byte));
    for (i = 0; i < token_vocab(tok); i++) {
        const char *s = token_bytes(tok, i, &size);

        if (size == 1 && !token_is_end(tok, i)) {
            d.byte[(uint8_t) *s] = i;
        }
    }
    if (out != NULL) {
        d.out = fopen(out, "w");
        assert_non_null(d.out);
    }
    len = many == NULL ? 0 : (uint32_t) strtoul(many, NULL, 10);
    stride = many == NULL ? stride : 1;
    each = many == NULL ? 1 : (len + (uint32_t) n - 1) / (uint32_t) n;
    for (k = 0; k < n; k++) {
        if (k % stride == 0) {
            file(&d, paths[k], each);
        }
        free(paths[k]);
    }
    printf("%zu texts, %zu ended, %zu tried as values\n", d.walks, d.ended,
        d.tried);
    /* names that are required are seldom drawn where others may be */
    assert_true(d.ended * 2 >= d.walks);
    assert_true(d.tried * 2 >= d.ended);
    if (d.out != NULL) {
        assert_int_equal(fclose(d.out), 0);
    }
    free(d.room);
    grammar_vocab_close(d.v);
    token_close(tok);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
