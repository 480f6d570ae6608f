/*
 * Would catch: an instance that its grammar takes byte by byte and not token by
 * token, or the other way, under a real vocabulary; a mask that forbids a token
 * of a valid text, or lets an invalid one by where bytes do not.
 *
 * The instances of real schemas, cut as each tokenizer cuts them, walked by
 * masks.  One tokenizer and some of the schemas; with LLM_LONG all of both.
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
#define IDS_MAX   65536

typedef struct {
    tokenizer_t in;
    const token_t *tok; /* its */
    grammar_vocab_t *v;
    uint32_t *room, *ids;
    size_t texts, tokens, valid, invalid, otherwise, wrong;
} walk_t;

static char err[600];

static int
bit(const uint32_t *mask, uint32_t i)
{
    return mask[i / 32] >> i % 32 & 1;
}

static int
ends(const walk_t *w, const uint32_t *mask)
{
    uint32_t i;

    for (i = 0; i < token_vocab(w->tok); i++) {
        if (token_is_end(w->tok, i)) {
            return bit(mask, i);
        }
    }

    return -1;
}

/*
 * The text in tokens; how many, 0: the tokenizer has none for it, or others.
 * Where a space is put before all text it is cut behind a line end, as it is
 * behind a prompt.
 */
static size_t
cut(const walk_t *w, const char *s, size_t len)
{
    size_t lead = token_strips_space(w->tok) ? 2 : 0, at = 0, from = 0, n, i, k;
    char *with = malloc(len + 2);
    const char *b;
    int64_t got;

    assert_non_null(with);
    memcpy(with, " \n", 2);
    memcpy(with + lead, s, len);
    got = token_encode(w->tok, with + lead / 2, len + lead / 2, 0, w->ids,
        IDS_MAX, NULL, NULL);
    n = got > 0 ? (size_t) got : 0;

    for (i = 0; i < n; i++) {
        b = token_bytes(w->tok, w->ids[i], &k);
        if (k == 0 || k > len + lead - at || memcmp(with + at, b, k) != 0) {
            break;
        }
        at += k;
        from = at == lead ? i + 1 : from;
    }
    free(with);
    if (i < n || at != len + lead || (from == 0) != (lead == 0)) {
        return 0;
    }
    memmove(w->ids, w->ids + from, (n - from) * sizeof(*w->ids));

    return n - from;
}

/* How many bytes of s the grammar takes; *end: and may end there. */
static size_t
by_bytes(const grammar_t *g, const char *s, size_t len, int *end)
{
    grammar_state_t st = {NULL, 0, 0, 0};
    size_t i;

    assert_int_equal(grammar_begin(g, &st), 0);
    for (i = 0; i < len && grammar_feed(g, &st, s + i, 1) == 1; i++) {
    }
    *end = grammar_can_end(g, &st);
    grammar_state_free(&st);

    return i;
}

/* One instance; 0: tokens and bytes do not agree, or the schema is not kept. */
static int
instance(walk_t *w, grammar_t *g, const char *s, int want)
{
    grammar_state_t st = {NULL, 0, 0, 0};
    size_t len = strlen(s), n = cut(w, s, len), i, k, at = 0, bytes;
    const uint32_t *mask = NULL;
    int may = 1, end, ok, last;
    const char *b;

    if (n == 0) {
        w->otherwise++;
        return 1;
    }

    w->texts++;
    *(want ? &w->valid : &w->invalid) += 1;
    bytes = by_bytes(g, s, len, &end);
    assert_int_equal(grammar_begin(g, &st), 0);
    for (i = 0; i < n; i++) {
        mask = grammar_mask(g, w->v, &st, w->room);
        assert_non_null(mask);
        may = bit(mask, w->ids[i]);
        b = token_bytes(w->tok, w->ids[i], &k);
        w->tokens++;
        if (!may) {
            break;
        }
        if (grammar_feed(g, &st, b, k) != k) {
            return 0;
        }
        at += k;
    }

    if (i < n) { /* the byte that is refused is in the token that is */
        (void) token_bytes(w->tok, w->ids[i], &k);
        ok = !want && bytes >= at && bytes < at + k;
    } else {
        mask = grammar_mask(g, w->v, &st, w->room);
        last = ends(w, mask);
        ok = bytes == len && end == want && grammar_can_end(g, &st) == end
             && (last == -1 || last == end);
    }
    grammar_state_free(&st);

    return ok;
}

static void
file(walk_t *w, const char *path)
{
    json_t *doc = json_load_file(path, JSON_ALLOW_NUL, NULL), *test;
    char *s = json_dumps(json_object_get(doc, "schema"), JSON_ENCODE_ANY);
    grammar_t *g;
    size_t i;
    int want;

    assert_non_null(s);
    g = grammar_open_schema(s, strlen(s), NULL, err, sizeof(err));
    free(s);
    json_array_foreach(json_object_get(doc, "tests"), i, test)
    {
        if (g == NULL) {
            break;
        }
        want = json_is_true(json_object_get(test, "valid"));
        s = json_dumps(json_object_get(test, "data"),
            JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
        assert_non_null(s);
        if (!instance(w, g, s, want)) {
            printf("%s %zu: %s\n", strrchr(path, '/') + 1, i,
                want ? "refused" : "TAKEN");
            w->wrong++;
        }
        free(s);
    }
    grammar_close(g);
    json_decref(doc);
}

static void
open_walk(walk_t *w, const char *name)
{
    memset(w, 0, sizeof(*w));
    if (tokenizer_open(&w->in, name, err, sizeof(err)) != 0) {
        fail_msg("%s", err);
    }
    w->tok = w->in.tok;
    w->v = grammar_vocab_open(w->tok, NULL, 0);
    assert_non_null(w->v);
    w->room = calloc(grammar_mask_words(w->v) + 1, sizeof(uint32_t));
    w->ids = calloc(IDS_MAX, sizeof(uint32_t));
    assert_true(w->room != NULL && w->ids != NULL);
}

static void
close_walk(walk_t *w)
{
    grammar_vocab_close(w->v);
    tokenizer_close(&w->in);
    free(w->room);
    free(w->ids);
}

static void
test_tokenizers(void **state)
{
    int all = getenv("LLM_LONG") != NULL;
    size_t n, i, t, of = all ? TOKENIZERS : 1;
    size_t stride = all ? 1 : brief() ? 24 : 6;
    char *paths[FILES_MAX];
    walk_t w;

    (void) state;
    n = files_of("structured-output/maskbench", ".json", paths, FILES_MAX);
    if (n == 0) {
        skip();
    }
    for (t = 0; t < of; t++) {
        open_walk(&w, tokenizers[t].name);
        for (i = 0; i < n; i += stride) {
            file(&w, paths[i]);
        }
        printf("%s: %zu valid, %zu invalid, %zu tokens, %zu wrong; %zu texts "
               "it does not spell\n",
            tokenizers[t].name, w.valid, w.invalid, w.tokens, w.wrong,
            w.otherwise);
        assert_int_equal(w.wrong, 0);
        assert_true(tokenizers[t].json ? w.valid > 15 && w.invalid > 15
                                             && w.otherwise * 20 < w.texts
                                       : w.texts == 0 && w.otherwise > 100);
        close_walk(&w);
    }
    for (i = 0; i < n; i++) {
        free(paths[i]);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokenizers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
