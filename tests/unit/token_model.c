/*
 * Would catch: ids that differ from SentencePiece's, a piece that its user set
 * apart and is not found, a Unigram cut that is not the likeliest, a model
 * file that lies about its lengths and makes the opening read beyond its end.
 *
 * Vectors: LLM_DATA/{tokenizers/llama-2,tokenizers/mistral-v3,
 * models/stories260K}/vectors.jsonl, made by SentencePiece.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "brief.h"
#include "llm_err.h"
#include "token_test.h"

#include <time.h>


/* --- vectors ------------------------------------------------------------ */

static token_t *
agrees(const char *dir, const char *file)
{
    char path[256], *p, *lines;
    token_t *t;
    size_t len;

    (void) snprintf(path, sizeof(path), "%s/%s", dir, file);
    p = slurp(path, &len);
    (void) snprintf(path, sizeof(path), "%s/vectors.jsonl", dir);
    lines = slurp(path, &len);
    if (p == NULL || lines == NULL) {
        free(p);
        free(lines);
        skip();
    }
    free(p);

    (void) snprintf(path, sizeof(path), "%s/%s", dir, file);
    p = slurp(path, &len);
    t = token_open_model_mem(p, len, path, err, sizeof(err));
    free(p);
    if (t == NULL) {
        fail_msg("%s", err);
    }
    assert_int_equal(vectors(t, 0, lines), 396);
    free(lines);

    return t;
}

static void
test_llama2(void **state)
{
    static const uint32_t hello[] = {1, 15043};
    token_t *t = agrees("tokenizers/llama-2", "tokenizer.model");

    (void) state;
    assert_int_equal(token_vocab(t), 32000);
    assert_int_equal(token_bos(t), 1);
    assert_int_equal(token_eos(t), 2);
    assert_true(token_is_end(t, 2));
    assert_true(token_strips_space(t));
    encodes(t, "Hello", TOKEN_F_BOS, hello, 2);
    token_close(t);
}

static void
test_mistral(void **state)
{
    token_t *t = agrees("tokenizers/mistral-v3", "tokenizer.model");
    uint32_t inst = token_find(t, "[INST]", 6);
    int64_t n, i;

    (void) state;
    assert_int_not_equal(inst, TOKEN_NONE);
    n = token_encode(t, "a[INST]b", 8, 0, ids, IDS_MAX, NULL, NULL);
    for (i = 0; i < n; i++) {
        assert_int_not_equal(ids[i], inst);
    }
    n = token_encode(
        t, "[INST]b", 7, TOKEN_F_SPECIAL, ids, IDS_MAX, NULL, NULL);
    assert_true(n > 1 && ids[0] == inst);
    token_close(t);
}

static void
test_stories(void **state)
{
    (void) state;
    token_close(agrees("models/stories260K", "tok512.model"));
}


/* --- models in memory --------------------------------------------------- */

typedef struct {
    uint8_t p[8192];
    size_t n;
} model_t;

static void
put_varint(model_t *m, uint64_t v)
{
    for (; v >= 0x80; v >>= 7) {
        m->p[m->n++] = (uint8_t) (v | 0x80);
    }
    m->p[m->n++] = (uint8_t) v;
}

static void
put_number(model_t *m, unsigned field, uint64_t v)
{
    put_varint(m, field << 3);
    put_varint(m, v);
}

static void
put_bytes(model_t *m, unsigned field, const void *s, size_t len)
{
    put_varint(m, field << 3 | 2);
    put_varint(m, len);
    memcpy(m->p + m->n, s, len);
    m->n += len;
}

static void
put_piece(model_t *m, const char *s, float score, unsigned type)
{
    model_t one = {.n = 0};

    put_bytes(&one, 1, s, strlen(s));
    put_varint(&one, 2 << 3 | 5);
    memcpy(one.p + one.n, &score, 4);
    one.n += 4;
    put_number(&one, 3, type);
    put_bytes(m, 1, one.p, one.n);
}

/* Pieces, then kind (1 Unigram, 2 BPE), then what is done to spaces. */
static void
put_spec(model_t *m, unsigned kind, int prefix, int collapse)
{
    model_t one = {.n = 0};

    put_number(&one, 3, kind);
    put_number(&one, 35, 1);
    put_bytes(m, 2, one.p, one.n);
    one.n = 0;
    put_number(&one, 3, (uint64_t) prefix);
    put_number(&one, 4, (uint64_t) collapse);
    put_bytes(m, 3, one.p, one.n);
}

static token_t *
model_open(const model_t *m)
{
    /* just as long as it is, so that a sanitizer sees who reads on */
    char *p = malloc(m->n);
    token_t *t;

    assert_non_null(p);
    memcpy(p, m->p, m->n);
    t = token_open_model_mem(p, m->n, "m.model", err, sizeof(err));
    free(p);

    return t;
}

#define SP "\xe2\x96\x81"

static void
base(model_t *m)
{
    m->n = 0;
    put_piece(m, "<unk>", 0, 2);
    put_piece(m, "<s>", 0, 3);
    put_piece(m, "</s>", 0, 3);
}

static void
test_user(void **state)
{
    static const uint32_t apart[] = {3, 7, 4}, joined[] = {6};
    model_t m;
    token_t *t;

    (void) state;
    base(&m);
    put_piece(&m, "a", -5, 1);
    put_piece(&m, "b", -5, 1);
    put_piece(&m, SP, -5, 1);
    put_piece(&m, "ab", -1, 1);
    put_piece(&m, "XY", 0, 4);
    put_spec(&m, 2, 0, 0);
    t = model_open(&m);
    if (t == NULL) {
        fail_msg("%s", err);
    }
    encodes(t, "aXYb", 0, apart, 3);
    encodes(t, "ab", 0, joined, 1);
    token_close(t);
}

static void
test_unigram(void **state)
{
    /* "abc": a|bc costs 4, ab|c 5; unknown ones are one token */
    static const uint32_t cut[] = {3, 7}, runs[] = {3, 0, 4, 2};
    static const uint32_t user[] = {8, 3}, spaces[] = {9, 3, 9, 4};
    model_t m;
    token_t *t;

    (void) state;
    base(&m);
    put_piece(&m, "a", -2, 1);
    put_piece(&m, "b", -3, 1);
    put_piece(&m, "c", -3, 1);
    put_piece(&m, "ab", -2, 1);
    put_piece(&m, "bc", -2, 1);
    put_piece(&m, "aXa", 0, 4);
    put_piece(&m, SP, -4, 1);
    put_spec(&m, 1, 0, 1);
    t = model_open(&m);
    if (t == NULL) {
        fail_msg("%s", err);
    }
    encodes(t, "abc", 0, cut, 2);
    encodes(t, "aXYb", TOKEN_F_BOS, runs, 4);
    encodes(t, "aXaa", 0, user, 2);
    encodes(t, "  a   b ", 0, spaces + 1, 3);
    token_close(t);

    /* with a space before it, as most have */
    base(&m);
    put_piece(&m, "a", -2, 1);
    put_piece(&m, SP "a", -1, 1);
    put_spec(&m, 1, 1, 1);
    t = model_open(&m);
    assert_non_null(t);
    {
        static const uint32_t one[] = {4, 3};

        encodes(t, "aa", 0, one, 2);
    }
    token_close(t);
}

static void
refuses(const model_t *m, const char *why)
{
    err[0] = '\0';
    assert_null(model_open(m));
    if (strncmp(err, "m.model: ", 9) != 0 || strstr(err, why) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", err, why);
    }
}

static void
test_refused(void **state)
{
    model_t m;

    (void) state;
    m.n = 0;
    refuses(&m, "no SentencePiece model");
    memcpy(m.p, "{\"a\":1}", 7);
    m.n = 7;
    refuses(&m, "no SentencePiece model");

    base(&m);
    put_spec(&m, 3, 1, 1);
    refuses(&m, "neither BPE nor Unigram");

    base(&m);
    put_spec(&m, 2, 1, 1);
    put_bytes(&m, 2, "\xc0\x02\x63", 3); /* unk_id 99 */
    refuses(&m, "no piece's");

    base(&m);
    put_spec(&m, 2, 1, 1);
    put_bytes(&m, 2, "\xc0\x01\x01", 3); /* spaces behind words */
    refuses(&m, "treat_whitespace_as_suffix");

    base(&m);
    put_spec(&m, 2, 1, 1);
    put_bytes(&m, 3,
        "\x12\x04"
        "abcd",
        6);
    refuses(&m, "precompiled_charsmap");

    base(&m);
    put_varint(&m, 1 << 3 | 2);
    put_varint(&m, 1u << 30); /* more than there is */
    refuses(&m, "damaged");
}

/* A megabyte of what could go wrong: a quadratic step would take minutes. */
static void
test_linear(void **state)
{
    static const char *const runs[] = {
        "a", " ", "1", "\xcc\x81", "\xff", "\xe2\x96\x81", "a "};
    static char big[1 << 20];
    static uint32_t out[2 << 20];
    const size_t n = brief() ? sizeof(big) / 4 : sizeof(big);
    token_t *t = agrees("tokenizers/llama-2", "tokenizer.model");
    size_t i, at, len;
    clock_t start;

    (void) state;
    for (i = 0; i < sizeof(runs) / sizeof(runs[0]); i++) {
        len = strlen(runs[i]);
        for (at = 0; at + len <= n; at += len) {
            memcpy(big + at, runs[i], len);
        }
        start = clock();
        assert_true(token_encode(t, big, at, 0, out, 2 << 20, NULL, NULL) > 0);
        assert_true((double) (clock() - start) / CLOCKS_PER_SEC < 5.0);
    }
    token_close(t);
}

/* Cut short, or with bytes changed: opened or one sentence, never a crash. */
static void
test_damaged(void **state)
{
    uint32_t seed = 7, k, rounds = 0;
    size_t len, n;
    char *p = slurp("models/stories260K/tok512.model", &len), *bad;
    token_t *t;
    int opened = 0;

    (void) state;
    if (p == NULL) {
        skip();
    }
    for (; rounds < 2000; rounds++) {
        seed = seed * 1664525u + 1013904223u;
        n = seed % 2 == 0 ? (seed >> 4) % len + 1 : len;
        bad = malloc(n);
        assert_non_null(bad);
        memcpy(bad, p, n);
        for (k = 0; k < 3; k++) {
            seed = seed * 1664525u + 1013904223u;
            bad[(seed >> 3) % n] ^= (char) (1 << (seed >> 29));
        }
        err[0] = '\0';
        t = token_open_model_mem(bad, n, "bad", err, sizeof(err));
        assert_true(t != NULL || strncmp(err, "bad: ", 5) == 0);
        if (t != NULL) {
            (void) token_encode(t, "Hello <s> \xc3\xa9\xff", 13,
                TOKEN_F_SPECIAL, ids, IDS_MAX, NULL, NULL);
            opened++;
        }
        token_close(t);
        free(bad);
    }
    free(p);
    assert_true(opened > 0);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_llama2),
        cmocka_unit_test(test_mistral),
        cmocka_unit_test(test_stories),
        cmocka_unit_test(test_user),
        cmocka_unit_test(test_unigram),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_damaged),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
