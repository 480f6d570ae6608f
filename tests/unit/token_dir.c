/*
 * Would catch: a directory whose begin or end token is another than its files
 * say, a model that never stops because a file beside the vocabulary was
 * passed over, a damaged file that is taken for an absent one.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "token_impl.h"
#include "token_test.h"

#include <unistd.h>

static const char vocab[] =
    "{\"decoder\":{\"type\":\"Fuse\"},\"added_tokens\":["
    "{\"id\":2,\"content\":\"<b>\",\"special\":true},"
    "{\"id\":3,\"content\":\"<e>\",\"special\":true},"
    "{\"id\":4,\"content\":\"<f>\",\"special\":true}],"
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[]}";

static char dir[64];

static const char *const names[] = {"tokenizer.json", "tokenizer.model",
    "tokenizer_config.json", "special_tokens_map.json",
    "generation_config.json", "added_tokens.json"};

static int
setup(void **state)
{
    (void) state;
    (void) snprintf(dir, sizeof(dir), "/tmp/token-dir-XXXXXX");

    return mkdtemp(dir) == NULL ? -1 : 0;
}

static int
teardown(void **state)
{
    char path[128];
    size_t i;

    (void) state;
    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        (void) snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        (void) unlink(path);
    }

    return rmdir(dir);
}

static void
put_file(const char *name, const char *text, size_t len)
{
    char path[128];
    FILE *f;

    (void) snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

static void
put_text(const char *name, const char *text)
{
    put_file(name, text, strlen(text));
}

/* The vocabulary, with a template that puts <b> before a text or none. */
static void
put_vocab(int begin)
{
    char text[1024];

    (void) snprintf(text, sizeof(text), "%s%s}", vocab,
        begin ? ",\"post_processor\":{\"type\":\"TemplateProcessing\","
                "\"single\":[{\"SpecialToken\":{\"id\":\"<b>\"}},"
                "{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"<b>\":"
                "{\"ids\":[2]}}}"
              : "");
    put_text("tokenizer.json", text);
}

static token_t *
opens(void)
{
    token_t *t = token_open_dir(dir, err, sizeof(err));

    if (t == NULL) {
        fail_msg("%s", err);
    }

    return t;
}

static void
refuses(const char *why)
{
    assert_null(token_open_dir(dir, err, sizeof(err)));
    if (strncmp(err, dir, strlen(dir)) != 0 || strstr(err, why) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", err, why);
    }
}

static void
test_nothing(void **state)
{
    (void) state;
    refuses("neither a tokenizer.json nor a tokenizer.model");
}

static void
test_alone(void **state)
{
    static const uint32_t with[] = {2, 0, 1};
    token_t *t;

    (void) state;
    put_vocab(1);
    t = opens();
    encodes(t, "ab", TOKEN_F_BOS, with, 3);
    encodes(t, "ab", 0, with + 1, 2);
    assert_int_equal(token_bos(t), 2);
    assert_int_equal(token_eos(t), TOKEN_NONE);
    token_close(t);
}

static void
test_config(void **state)
{
    static const uint32_t with[] = {2, 0, 1, 3};
    token_t *t;

    (void) state;
    put_vocab(0);
    put_text("tokenizer_config.json",
        "{\"bos_token\":\"<b>\",\"eos_token\":{\"content\":\"<e>\"},"
        "\"add_bos_token\":true,\"add_eos_token\":true}");
    t = opens();
    encodes(t, "ab", TOKEN_F_BOS, with, 4);
    assert_int_equal(token_eos(t), 3);
    assert_true(token_is_end(t, 3));
    assert_false(token_is_end(t, 4));
    token_close(t);

    /* it may also take away what the vocabulary's file puts there */
    put_vocab(1);
    put_text("tokenizer_config.json",
        "{\"bos_token\":\"<b>\",\"add_bos_token\":false}");
    t = opens();
    encodes(t, "ab", TOKEN_F_BOS, with + 1, 2);
    assert_int_equal(token_bos(t), 2);
    token_close(t);
}

/* All that end an answer; the map where the configuration is silent. */
static void
test_ends(void **state)
{
    token_t *t;

    (void) state;
    put_vocab(0);
    put_text("special_tokens_map.json",
        "{\"bos_token\":{\"content\":\"<b>\"},\"eos_token\":\"<e>\"}");
    put_text("generation_config.json", "{\"eos_token_id\":[4,3,99,-1,\"x\"]}");
    t = opens();
    assert_int_equal(token_bos(t), 2);
    assert_int_equal(token_eos(t), 3);
    assert_true(token_is_end(t, 3));
    assert_true(token_is_end(t, 4));
    assert_false(token_is_end(t, 2));
    token_close(t);

    put_text("generation_config.json", "{\"eos_token_id\":4}");
    t = opens();
    assert_true(token_is_end(t, 4));
    token_close(t);
}

static void
test_damaged(void **state)
{
    (void) state;
    put_vocab(0);
    put_text("generation_config.json", "{\"eos_token_id\":");
    refuses("generation_config.json");
    put_text("generation_config.json", "[]");
    refuses("no JSON object");
    put_text("generation_config.json", "{}");
    put_text("special_tokens_map.json", "x");
    refuses("special_tokens_map.json");
    put_text("special_tokens_map.json", "{}");
    put_text("tokenizer.json", "{");
    refuses("tokenizer.json");
}

/* tokenizer.model where there is no other, with what stands beside it. */
static void
test_model(void **state)
{
    char *p;
    size_t len;
    token_t *t;

    (void) state;
    p = slurp("models/stories260K/tok512.model", &len);
    if (p == NULL) {
        skip();
    }
    put_file("tokenizer.model", p, len);
    free(p);
    t = opens();
    assert_int_equal(token_vocab(t), 512);
    token_close(t);

    put_text("tokenizer_config.json", "{\"add_bos_token\":false}");
    t = opens();
    assert_int_equal(
        token_encode(t, "", 0, TOKEN_F_BOS, ids, IDS_MAX, NULL, NULL), 0);
    token_close(t);

    /* of two, the first */
    put_vocab(0);
    t = opens();
    assert_int_equal(token_vocab(t), 5);
    token_close(t);
}

/* --- tokens beside a tokenizer.model -------------------------------------- */

/* Copies a file of LLM_DATA; 0 if it is not there. */
static int
copies(const char *from, const char *to)
{
    size_t len;
    char *p = slurp(from, &len);

    if (p == NULL) {
        return 0;
    }
    put_file(to, p, len);
    free(p);

    return 1;
}

/* The same ids from two tokenizers, with special tokens and without. */
static void
same(const token_t *a, const token_t *b, const char *text)
{
    static uint32_t other[IDS_MAX];
    size_t len = strlen(text);
    unsigned flags;
    int64_t n;

    for (flags = 0; flags <= TOKEN_F_SPECIAL; flags += TOKEN_F_SPECIAL) {
        n = token_encode(a, text, len, flags, other, IDS_MAX, NULL, NULL);
        assert_true(n >= 0);
        same_ids(text,
            token_encode(b, text, len, flags, ids, IDS_MAX, NULL, NULL), other,
            (size_t) n);
    }
}

/*
 * Phi 3's pieces are Llama 2's: with them and its own added tokens it gives
 * the ids of its tokenizer.json.
 */
static void
test_phi3(void **state)
{
    static const char *const bits[] = {"<|user|>", "<|end|>", "<|assistant|>",
        "<|endoftext|>", "<s>", "<unk>", " ", "\n", "Hello", " world", "x",
        "\xe2\x96\x81", "<|placeholder1|>", "<|us", "<"};
    const char *data = getenv("LLM_DATA");
    char path[256], text[256], *lines, *config, *legacy;
    uint32_t seed = 1, i, k, id;
    token_t *t, *want;
    size_t len;

    (void) state;
    lines = slurp("tokenizers/phi-3-mini/vectors.jsonl", &len);
    config = slurp("tokenizers/phi-3-mini/tokenizer_config.json", &len);
    if (lines == NULL || config == NULL
        || !copies("tokenizers/llama-2/tokenizer.model", names[1])) {
        free(lines);
        free(config);
        skip();
    }
    /* its tokenizer.json puts the space before every stretch all the same */
    legacy = strstr(config, "\"legacy\": false");
    assert_non_null(legacy);
    memcpy(legacy, "\"legacy\": true ", 15);
    put_file(names[2], config, len);
    free(config);
    t = opens();
    assert_int_equal(vectors(t, 0, lines), 396);
    free(lines);

    (void) snprintf(path, sizeof(path), "%s/tokenizers/phi-3-mini",
        data != NULL ? data : "../shared/data");
    want = token_open_dir(path, err, sizeof(err));
    assert_non_null(want);
    assert_int_equal(token_vocab(t), 32011);
    assert_int_equal(token_vocab(want), 32011);
    assert_int_equal(token_eos(t), token_eos(want));
    /* but for the end that the model's own file names */
    for (id = 0; id < 32011; id++) {
        assert_int_equal(
            token_is_end(t, id), id == 2 || token_is_end(want, id));
    }

    for (i = 0; i < 2000; i++) {
        text[0] = '\0';
        for (k = 0; k < 1 + i % 7; k++) {
            seed = seed * 1664525u + 1013904223u;
            strcat(text, bits[(seed >> 8) % (sizeof(bits) / sizeof(*bits))]);
        }
        same(want, t, text);
    }
    token_close(want);
    token_close(t);
}

/* By id only, as it was done before: special by its role. */
static void
test_by_id(void **state)
{
    static const uint32_t plain[] = {513}, control[] = {512, 513};
    token_t *t;
    int64_t n, i;
    size_t len;

    (void) state;
    if (!copies("models/stories260K/tok512.model", names[1])) {
        skip();
    }
    put_text("added_tokens.json",
        "{\"<|im_end|>\": 512, \"<tool>\": 513, \"<pad>\": 520}");
    put_text("special_tokens_map.json",
        "{\"eos_token\": \"<|im_end|>\", \"additional_special_tokens\": "
        "[{\"content\": \"<pad>\"}]}");
    t = opens();
    assert_int_equal(token_vocab(t), 521);
    assert_int_equal(token_eos(t), 512);
    encodes(t, "<tool>", 0, plain, 1);
    encodes(t, "<|im_end|><tool>", TOKEN_F_SPECIAL, control, 2);
    n = token_encode(
        t, "a<|im_end|><pad></s>", 20, 0, ids, IDS_MAX, NULL, NULL);
    assert_true(n > 4);
    for (i = 0; i < n; i++) {
        assert_true(ids[i] < 512 && ids[i] > 2);
    }
    assert_memory_equal(token_bytes(t, 513, &len), "<tool>", 6);
    (void) token_bytes(t, 512, &len);
    assert_int_equal(len, 0);
    (void) token_bytes(t, 515, &len);
    assert_int_equal(len, 0);
    token_close(t);

    /* what the file says is special stays so, whatever is said beside it */
    put_text("tokenizer_config.json",
        "{\"added_tokens_decoder\": {\"2\": {\"content\": \"</s>\"}}}");
    t = opens();
    assert_int_equal(token_vocab(t), 512);
    n = token_encode(t, "</s>", 4, 0, ids, IDS_MAX, NULL, NULL);
    assert_true(n > 1);
    n = token_encode(t, "</s>", 4, TOKEN_F_SPECIAL, ids, IDS_MAX, NULL, NULL);
    assert_true(n == 1 && ids[0] == 2);
    token_close(t);
}

/* Only a text's beginning gets a space where "legacy" is false. */
static void
test_legacy(void **state)
{
    token_t *t;
    int64_t n, k;
    int i;

    (void) state;
    if (!copies("models/stories260K/tok512.model", names[1])) {
        skip();
    }
    for (i = 0; i < 2; i++) {
        put_text("tokenizer_config.json",
            i == 0 ? "{\"legacy\": true}" : "{\"legacy\": false}");
        t = opens();
        n = token_encode(
            t, "a<s>a", 5, TOKEN_F_SPECIAL, ids, IDS_MAX, NULL, NULL);
        for (k = 0; k < n && ids[k] != 1; k++) {
        }
        assert_true(k > 0 && k + 1 < n);
        assert_int_equal(ids[k + 1] == ids[0], i == 0);
        assert_int_equal(ids[n - 1] == token_find(t, "a", 1), i == 1);
        token_close(t);
    }
}

static void
test_bad_tokens(void **state)
{
    static const char *const bad[] = {"{\"a\": -1}", "{\"a\": 1.5}",
        "{\"a\": \"1\"}", "{\"\": 1}", "{\"a\": 1e30}", "{\"a\": 16777216}"};
    char big[TOKEN_PIECE_MAX + 32];
    size_t i;

    (void) state;
    if (!copies("models/stories260K/tok512.model", names[1])) {
        skip();
    }
    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        put_text("added_tokens.json", bad[i]);
        refuses("the added token");
    }
    memset(big, 'x', sizeof(big));
    memcpy(big, "{\"", 2);
    memcpy(big + sizeof(big) - 5, "\": 1}", 5);
    put_file("added_tokens.json", big, sizeof(big));
    refuses("the added token");
    put_text("added_tokens.json", "{\"a\": 1000000}");
    refuses("far beyond");
    put_text("added_tokens.json", "[]");
    refuses("no JSON object");
    put_text("added_tokens.json", "{}");
    put_text("tokenizer_config.json",
        "{\"added_tokens_decoder\": {\"x\": {\"content\": \"a\"}}}");
    refuses("the added token");
    put_text("tokenizer_config.json", "{\"added_tokens_decoder\": {\"1\": 2}}");
    refuses("the added token");
}


/* The published files as they lie. */
static void
test_published(void **state)
{
    static const struct {
        const char *name;
        uint32_t bos, eos;
    } rows[] = {{"tokenizers/qwen3", TOKEN_NONE, 151645},
        {"tokenizers/phi-2", 50256, 50256}, {"tokenizers/phi-3-mini", 1, 32000},
        {"tokenizers/t5-small", TOKEN_NONE, 1},
        {"models/TinyStories-656K", 1, 2}};
    const char *data = getenv("LLM_DATA");
    char path[256];
    token_t *t;
    size_t i;

    (void) state;
    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        (void) snprintf(path, sizeof(path), "%s/%s",
            data != NULL ? data : "../shared/data", rows[i].name);
        if (access(path, F_OK) != 0) {
            skip();
        }
        t = token_open_dir(path, err, sizeof(err));
        if (t == NULL) {
            fail_msg("%s", err);
        }
        assert_int_equal(token_bos(t), rows[i].bos);
        assert_int_equal(token_eos(t), rows[i].eos);
        assert_true(token_is_end(t, rows[i].eos));
        token_close(t);
    }
}


#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_nothing),
        TEST(test_alone),
        TEST(test_config),
        TEST(test_ends),
        TEST(test_damaged),
        TEST(test_model),
        TEST(test_published),
        TEST(test_phi3),
        TEST(test_by_id),
        TEST(test_legacy),
        TEST(test_bad_tokens),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
