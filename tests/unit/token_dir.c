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
    "generation_config.json"};

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
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
