/*
 * Would catch: a word of the o200k family (GPT-4o, GPT-OSS) that is cut
 * elsewhere than Hugging Face's tokenizers cut it, in the pattern that
 * tokenizer.json gives or in the one that GGUF's "gpt-4o" names; a control
 * token of GPT-OSS made from a user's text, or not known as a text's end.
 *
 * Vectors: tests/data/tokenizers/o200k, made by the script beside it.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "token_test.h"

#define DIR    "./tests/data/tokenizers/o200k/"
#define TEXTS  415
#define VOCAB  1510
#define RETURN 1502
#define START  1505

static void
agrees(const token_t *t)
{
    char *lines;
    size_t len;
    unsigned flags;

    assert_int_equal(token_vocab(t), VOCAB);

    for (flags = 0; flags <= TOKEN_F_SPECIAL; flags += TOKEN_F_SPECIAL) {
        lines = slurp(DIR "vectors.jsonl", &len);
        assert_non_null(lines);
        assert_int_equal(vectors(t, flags, lines), TEXTS);
        free(lines);
    }
}

/* Turns begin with a control token, which no user's text can say. */
static void
controls(const token_t *t)
{
    static const char text[] = "<|start|>a";
    int64_t i, n;

    n = token_encode(t, text, strlen(text), 0, ids, IDS_MAX, NULL, NULL);
    assert_true(n > 2);

    for (i = 0; i < n; i++) {
        assert_true(ids[i] < VOCAB - 10);
    }

    n = token_encode(
        t, text, strlen(text), TOKEN_F_SPECIAL, ids, IDS_MAX, NULL, NULL);
    assert_int_equal(n, 2);
    assert_int_equal(ids[0], START);
    assert_true(token_is_end(t, RETURN) && !token_is_end(t, START));
    assert_int_equal(token_eos(t), RETURN);
}

static void
test_json(void **state)
{
    token_t *t = token_open_dir(DIR, err, sizeof(err));

    (void) state;

    if (t == NULL) {
        fail_msg("%s", err);
    }

    agrees(t);
    controls(t);
    token_close(t);
}

static void
test_gguf(void **state)
{
    token_t *t;
    gguf_t *g = gguf_open(DIR "vocab.gguf", err, sizeof(err));

    (void) state;

    if (g == NULL) {
        fail_msg("%s", err);
    }

    t = token_open_gguf(g, err, sizeof(err));

    if (t == NULL) {
        fail_msg("%s", err);
    }

    agrees(t);
    controls(t);
    token_close(t);
    gguf_close(g);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_gguf),
    };

    return cmocka_run_group_tests_name("token_o200k", tests, NULL, NULL);
}
