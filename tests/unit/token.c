/*
 * Would catch: a token sequence that differs from SentencePiece's by one id, a
 * special piece made from a user's text, a hostile vocabulary that crashes
 * the opening, an encoder that is quadratic or forgets its limits.
 *
 * Vectors: LLM_DATA/models/stories260K/vectors.jsonl (made by SentencePiece),
 * the golden files of TinyStories-656K, ggml-vocab-llama-spm.gguf.out.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "llm_err.h"
#include "token_test.h"

#include <math.h>
#include <time.h>


/* --- vectors ------------------------------------------------------------ */

/*
 * The model file behind the vectors drops extra spaces; the GGUF does not say
 * so.  The key goes in front of the others, with one more that keeps the
 * alignment of what follows.
 */
static uint8_t *
with_collapse(const char *p, size_t *len)
{
    file_t f;
    uint64_t pairs;
    uint8_t yes = 1;

    memset(&f, 0, sizeof(f));
    put(&f, p, 24);
    memcpy(&pairs, p + 16, 8);
    key(&f, "tokenizer.ggml.remove_extra_whitespaces", GGUF_BOOL);
    put(&f, &yes, 1);
    key(&f, "fill", GGUF_STR);
    put_str(&f, "                                ",
        (32 - (f.n - 24 + 8) % 32) % 32);
    assert_int_equal((f.n - 24) % 32, 0);
    pairs += f.pairs;
    memcpy(f.p + 16, &pairs, 8);
    put(&f, p + 24, *len - 24);
    *len = f.n;

    return f.p;
}

static void
test_stories(void **state)
{
    char *raw, *lines;
    uint8_t *p;
    size_t len, lines_len;
    gguf_t *g;
    token_t *t;

    (void) state;
    raw = slurp("models/stories260K/stories260K.gguf", &len);
    lines = slurp("models/stories260K/vectors.jsonl", &lines_len);
    if (raw == NULL || lines == NULL) {
        free(raw);
        free(lines);
        skip();
    }

    p = with_collapse(raw, &len);
    g = gguf_open_mem(p, len, "stories", err, sizeof(err));
    assert_non_null(g);
    t = token_open_gguf(g, err, sizeof(err));
    assert_non_null(t);

    assert_int_equal(token_vocab(t), 512);
    assert_int_equal(token_bos(t), 1);
    assert_int_equal(token_eos(t), 2);
    assert_true(token_is_end(t, 2));
    assert_false(token_is_end(t, 1));
    assert_int_equal(vectors(t, 0, lines), 396);

    token_close(t);
    gguf_close(g);
    free(p);

    free(raw);
    free(lines);
}

/* As the file stands: it names no add_bos_token, and a begin token is meant. */
static void
test_stories_as_is(void **state)
{
    static const uint32_t hello[] = {1, 346, 306, 414, 263, 304, 341};
    static const uint32_t two[] = {1, 410, 346, 306, 414};
    static const uint32_t bos[] = {1};
    gguf_t *g;
    token_t *t;
    char *raw;

    (void) state;
    t = data_open("models/stories260K/stories260K.gguf", &g, &raw);
    if (t == NULL) {
        skip();
    }

    encodes(t, "Hello world", TOKEN_F_BOS, hello, 7);
    encodes(t, "Hello world", 0, hello + 1, 6);
    encodes(t, " Hello", TOKEN_F_BOS, two, 5);
    encodes(t, "", TOKEN_F_BOS, bos, 1);
    encodes(t, "", 0, bos, 0);

    token_close(t);
    gguf_close(g);
    free(raw);
}

/* The golden files' prompts; and text outside a vocabulary without bytes. */
static void
golden(const char *gguf, const char *json)
{
    uint32_t want[1024];
    gguf_t *g;
    token_t *t;
    char *raw, *gold;
    json_t *o, *cases, *a, *text;
    size_t len, i, k, n;

    t = data_open(gguf, &g, &raw);
    gold = slurp(json, &len);
    if (t == NULL || gold == NULL) {
        skip();
    }

    o = json_loadb(gold, len, 0, NULL);
    cases = json_object_get(o, "cases");
    assert_true(json_array_size(cases) > 0);
    for (i = 0; i < json_array_size(cases); i++) {
        text = json_object_get(json_array_get(cases, i), "prompt");
        a = json_object_get(json_array_get(cases, i), "prompt_ids");
        n = json_array_size(a);
        assert_true(n <= 1024);
        for (k = 0; k < n; k++) {
            want[k] = (uint32_t) json_integer_value(json_array_get(a, k));
        }
        encodes(t, json_string_value(text), TOKEN_F_BOS, want, n);
    }
    json_decref(o);
    free(gold);

    token_close(t);
    gguf_close(g);
    free(raw);
}

static void
test_golden_stories(void **state)
{
    (void) state;
    golden("models/stories260K/stories260K.gguf",
        "models/stories260K/stories260K.golden.json");
}

static void
test_golden_tiny(void **state)
{
    static const char *const kinds[] = {"F16", "Q8_0", "Q4_0"};
    char gguf[128], json[128];
    size_t i;

    (void) state;
    for (i = 0; i < 3; i++) {
        (void) snprintf(gguf, sizeof(gguf),
            "models/TinyStories-656K/TinyStories-656K-%s.gguf", kinds[i]);
        (void) snprintf(json, sizeof(json),
            "models/TinyStories-656K/TinyStories-656K-%s.golden.json",
            kinds[i]);
        golden(gguf, json);
    }
}

static void
test_no_bytes(void **state)
{
    const char *text = "h\xc3\xa9llo \xe4\xb8\x96\xe7\x95\x8c";
    gguf_t *g;
    token_t *t;
    char *raw;
    int64_t n, i;
    int unknown = 0;

    (void) state;
    t = data_open(
        "models/TinyStories-656K/TinyStories-656K-F16.gguf", &g, &raw);
    if (t == NULL) {
        skip();
    }

    n = token_encode(
        t, text, strlen(text), TOKEN_F_BOS, ids, IDS_MAX, NULL, NULL);
    assert_true(n > 3);
    for (i = 0; i < n; i++) {
        unknown += ids[i] == 0;
    }
    /* one for the e, one for the run of two characters */
    assert_int_equal(unknown, 2);
    assert_int_equal(ids[n - 1], 0);

    /* special pieces by name only where the caller allows them */
    assert_int_equal(token_encode(t, "<|end_story|>", 13, TOKEN_F_SPECIAL, ids,
                         IDS_MAX, NULL, NULL),
        1);
    assert_int_equal(ids[0], 2);
    n = token_encode(t, "<|end_story|>", 13, 0, ids, IDS_MAX, NULL, NULL);
    for (i = 0; i < n; i++) {
        assert_int_not_equal(ids[i], 2);
    }
    assert_true(token_is_end(t, 2));

    token_close(t);
    gguf_close(g);
    free(raw);
}

/* Published strings and ids of the 32,000 piece vocabulary. */
static void
test_llama_spm(void **state)
{
    const char *name = "tokenizers/gguf-vocab/ggml-vocab-llama-spm.gguf";
    gguf_t *g;
    token_t *t;
    char *raw;

    (void) state;
    t = data_open(name, &g, &raw);
    if (t == NULL) {
        skip();
    }
    assert_int_equal(published(t, 0, name), 46);
    token_close(t);
    gguf_close(g);
    free(raw);
}


/* --- rules -------------------------------------------------------------- */

static token_t *
vocab_open(const piece_t *v, uint32_t n, file_t *f, gguf_t **g)
{
    token_t *t;

    file_vocab(f, v, n);
    *g = file_open(f);
    t = token_open_gguf(*g, err, sizeof(err));
    if (t == NULL) {
        fail_msg("%s", err);
    }

    return t;
}

static void
vocab_close(token_t *t, file_t *f, gguf_t *g)
{
    token_close(t);
    gguf_close(g);
    free(f->p);
}

static void
test_merge_order(void **state)
{
    static const piece_t v[] = {{"<unk>", 0, 2}, {"a", -9, 1}, {"b", -9, 1},
        {"c", -9, 1}, {"aa", -1, 1}, {"bc", -2, 1}, {"ab", -3, 1},
        {"aaaa", -4, 1}, {SP, -9, 1}};
    static const uint32_t ties[] = {8, 4, 1}, score[] = {8, 1, 5};
    static const uint32_t four[] = {8, 7, 4};
    static const uint32_t runs[] = {8, 0, 1, 0};
    file_t f;
    gguf_t *g;
    token_t *t = vocab_open(v, 9, &f, &g);

    (void) state;
    encodes(t, "aaa", 0, ties, 3);  /* leftmost of equals */
    encodes(t, "abc", 0, score, 3); /* the higher score, not the leftmost */
    encodes(t, "aaaaaa", 0, four, 3);
    encodes(t, "xyza\xff\xff", 0, runs, 4); /* a run is one unknown */
    vocab_close(t, &f, g);
}

static void
test_unused(void **state)
{
    static const piece_t v[] = {{"<unk>", 0, 2}, {"a", -9, 1}, {"b", -9, 1},
        {"c", -9, 1}, {"ab", -1, 5}, {"abc", -2, 1}, {SP, -9, 1}};
    static const uint32_t apart[] = {6, 1, 2, 1}, joined[] = {6, 5};
    file_t f;
    gguf_t *g;
    token_t *t = vocab_open(v, 7, &f, &g);

    (void) state;
    encodes(t, "aba", 0, apart, 4);
    encodes(t, "abc", 0, joined, 2);
    vocab_close(t, &f, g);
}

static void
test_special(void **state)
{
    static const piece_t v[] = {{"<unk>", 0, 2}, {"<s>", 0, 3}, {"</s>", 0, 3},
        {"<", -9, 1}, {"s", -9, 1}, {">", -9, 1}, {"/", -9, 1}, {SP, -9, 1},
        {"<s", -1, 1}, {"<|x|>", 0, 4}, {"<s><s>", 0, 3}};
    static const uint32_t plain[] = {7, 8, 5}, two[] = {1, 7, 4, 2};
    static const uint32_t longest[] = {10, 9};
    file_t f;
    gguf_t *g;
    token_t *t = vocab_open(v, 11, &f, &g);
    size_t len;

    (void) state;
    encodes(t, "<s>", 0, plain, 3);
    encodes(t, "<s>", TOKEN_F_SPECIAL, two, 1);
    encodes(t, "<s>s</s>", TOKEN_F_SPECIAL, two, 4);
    encodes(t, "<s><s><|x|>", TOKEN_F_SPECIAL, longest, 2);
    assert_int_equal(token_find(t, "<|x|>", 5), 9);
    assert_int_equal(token_find(t, "<|x", 3), TOKEN_NONE);
    (void) token_bytes(t, 1, &len);
    assert_int_equal(len, 0); /* control: nothing in running text */
    (void) token_bytes(t, 4000000000u, &len);
    assert_int_equal(len, 0);
    assert_memory_equal(token_bytes(t, 9, &len), "<|x|>", 5);
    assert_int_equal(len, 5);
    vocab_close(t, &f, g);
}

static int
never(void *arg)
{
    (*(int *) arg)++;
    return 0;
}

static int
soon(void *arg)
{
    return ++(*(int *) arg) > 3;
}

static void
test_limits(void **state)
{
    static const piece_t v[] = {
        {"a", -9, 1}, {"aa", -1, 1}, {SP, -9, 1}, {"<0x41>", 0, 6}};
    size_t n = 1 << 20;
    char *big = malloc(n);
    uint32_t *out = malloc(n * sizeof(*out));
    file_t f;
    gguf_t *g;
    token_t *t = vocab_open(v, 4, &f, &g);
    clock_t start;
    int asked = 0;

    (void) state;
    assert_non_null(big);
    assert_non_null(out);
    memset(big, 'a', n);

    assert_int_equal(token_encode(t, "aaaa", 4, 0, out, 2, NULL, NULL),
        -LLM_ERR_CONTEXT_FULL);
    assert_int_equal(token_encode(t, "aaaa", 4, 0, out, 3, NULL, NULL), 3);
    assert_int_equal(token_encode(t, "b", 1, 0, out, 3, NULL, NULL),
        -LLM_ERR_BAD_TEXT); /* no byte piece for it, no unknown token */
    assert_int_equal(token_encode(t, "A", 1, 0, out, 3, NULL, NULL), 2);
    assert_int_equal(out[1], 3);

    /* quadratic work would take minutes */
    start = clock();
    assert_int_equal(
        token_encode(t, big, n, 0, out, n, never, &asked), n / 2 + 1);
    assert_true((double) (clock() - start) / CLOCKS_PER_SEC < 20.0);
    assert_true(asked > 100);

    asked = 0;
    assert_int_equal(
        token_encode(t, big, n, 0, out, n, soon, &asked), -LLM_ERR_CANCELLED);

    vocab_close(t, &f, g);
    free(big);
    free(out);
}

static void
test_null(void **state)
{
    token_t *t = token_open_null();
    size_t len, i, words = 0;
    const char *p;

    (void) state;
    assert_non_null(t);
    assert_int_equal(
        token_encode(t, "h\xff", 2, TOKEN_F_BOS, ids, 3, NULL, NULL), 3);
    assert_int_equal(ids[0], token_bos(t));
    assert_int_equal(ids[1], 'h');
    assert_int_equal(ids[2], 255);
    assert_int_equal(token_encode(t, "abcd", 4, 0, ids, 3, NULL, NULL),
        -LLM_ERR_CONTEXT_FULL);

    for (i = 0; i < 256; i++) {
        p = token_bytes(t, (uint32_t) i, &len);
        assert_int_equal(len, 1);
        assert_int_equal((uint8_t) p[0], i);
    }
    for (; i < token_vocab(t); i++) {
        (void) token_bytes(t, (uint32_t) i, &len);
        words += len > 0;
    }
    assert_true(words >= 16);
    assert_int_equal(token_eos(t), token_vocab(t) - 1);
    assert_int_equal(token_bos(t), token_vocab(t) - 2);
    assert_true(token_is_end(t, token_eos(t)));
    assert_false(token_strips_space(t));
    token_close(t);
}


/* --- hostile vocabularies ----------------------------------------------- */

static void
test_refused(void **state)
{
    static const piece_t v[] = {{"a", 0, 1}, {"b", 0, 1}};
    file_t f;

    (void) state;
    file_init(&f);
    refused(&f, "tokenizer.ggml.model");

    file_init(&f);
    key_str(&f, "tokenizer.ggml.model", "bert");
    refused(&f, "\"bert\"");

    file_init(&f);
    key_str(&f, "tokenizer.ggml.model", "llama");
    refused(&f, "tokenizer.ggml.tokens");

    file_init(&f);
    key_str(&f, "tokenizer.ggml.model", "llama");
    key_arr(&f, "tokenizer.ggml.tokens", GGUF_STR, 0);
    refused(&f, "0 pieces");

    file_init(&f);
    key_str(&f, "tokenizer.ggml.model", "llama");
    key_arr(&f, "tokenizer.ggml.tokens", GGUF_U32, 1);
    put_u32(&f, 1);
    refused(&f, "array of strings");

    file_vocab(&f, v, 2);
    key_u32(&f, "tokenizer.ggml.bos_token_id", 2);
    refused(&f, "bos_token_id is 2, expected less than 2");
}

static void
test_refused_arrays(void **state)
{
    file_t f;

    (void) state;
    file_init(&f);
    key_str(&f, "tokenizer.ggml.model", "llama");
    key_arr(&f, "tokenizer.ggml.tokens", GGUF_STR, 2);
    put_str(&f, "a", 1);
    put_str(&f, "b", 1);
    key_arr(&f, "tokenizer.ggml.token_type", GGUF_I32, 1);
    put_u32(&f, 1);
    refused(&f, "1 elements, expected 2");

    file_init(&f);
    key_str(&f, "tokenizer.ggml.model", "llama");
    key_arr(&f, "tokenizer.ggml.tokens", GGUF_STR, 1);
    put_str(&f, "a", 1);
    key_arr(&f, "tokenizer.ggml.token_type", GGUF_I32, 1);
    put_u32(&f, 77);
    refused(&f, "piece 0 is not");

    file_init(&f);
    key_str(&f, "tokenizer.ggml.model", "llama");
    key_arr(&f, "tokenizer.ggml.tokens", GGUF_STR, 1);
    put_str(&f, "a", 1);
    key_arr(&f, "tokenizer.ggml.scores", GGUF_STR, 1);
    put_str(&f, "a", 1);
    refused(&f, "scores");
}

/* Equal and empty pieces, NaN and infinite scores, bytes that are none. */
static void
test_tolerated(void **state)
{
    static const piece_t v[] = {{"", 0, 1}, {"", 0, 3}, {"a", NAN, 1},
        {"a", 5, 1}, {"aa", NAN, 1}, {"aaa", INFINITY, 1}, {"<0xZZ>", 0, 6},
        {"<0x0a>", 0, 6}, {"aa", 3, 3}, {"\xff", 0, 1}, {"<unk>", 0, 2},
        {"<0x0A>", 0, 6}};
    static const uint32_t want[] = {10, 4, 9, 7};
    file_t f;
    gguf_t *g;
    token_t *t = vocab_open(v, 12, &f, &g);
    size_t len;

    (void) state;
    encodes(t, "aa\xff\n", 0, want, 4);
    assert_int_equal(token_find(t, "", 0), 0);
    (void) token_bytes(t, 6, &len);
    assert_int_equal(len, 0);
    vocab_close(t, &f, g);
}

/* Neither scores nor types: still a vocabulary. */
static void
test_bare(void **state)
{
    static const char *const pieces[] = {"<s>", "h", "i", "hi", "<0x21>", SP};
    static const uint32_t want[] = {0, 5, 3, 4};
    file_t f;
    gguf_t *g;
    token_t *t;
    size_t i, len;

    (void) state;
    file_init(&f);
    key_str(&f, "tokenizer.ggml.model", "llama");
    key_arr(&f, "tokenizer.ggml.tokens", GGUF_STR, 6);
    for (i = 0; i < 6; i++) {
        put_str(&f, pieces[i], strlen(pieces[i]));
    }
    key_u32(&f, "tokenizer.ggml.bos_token_id", 0);
    key_u32(&f, "tokenizer.ggml.eos_token_id", UINT32_MAX);
    g = file_open(&f);
    t = token_open_gguf(g, err, sizeof(err));
    assert_non_null(t);
    encodes(t, "hi!", TOKEN_F_BOS, want, 4);
    assert_int_equal(token_eos(t), TOKEN_NONE);
    (void) token_bytes(t, 0, &len);
    assert_int_equal(len, 0);
    vocab_close(t, &f, g);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stories),
        cmocka_unit_test(test_stories_as_is),
        cmocka_unit_test(test_golden_stories),
        cmocka_unit_test(test_golden_tiny),
        cmocka_unit_test(test_no_bytes),
        cmocka_unit_test(test_llama_spm),
        cmocka_unit_test(test_merge_order),
        cmocka_unit_test(test_unused),
        cmocka_unit_test(test_special),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_null),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_refused_arrays),
        cmocka_unit_test(test_tolerated),
        cmocka_unit_test(test_bare),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
