/*
 * Would catch: a token sequence that differs from Hugging Face's by one id, a
 * special token made from a user's text, a decoder that adds or loses a space,
 * a tokenizer.json that asks for what is not there and is opened all the same,
 * a damaged one that crashes the opening.
 *
 * Vectors: LLM_DATA/{tokenizers,models}/NAME/vectors.jsonl, made by Hugging
 * Face's tokenizers from the tokenizer.json beside it.  The small vocabularies
 * below were given to the same library (0.23.3) by hand; the ids are its.
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
json_open(const char *name)
{
    char path[256], *p;
    token_t *t;
    size_t len;

    (void) snprintf(path, sizeof(path), "%s/tokenizer.json", name);
    p = slurp(path, &len);
    if (p == NULL) {
        skip();
    }
    t = token_open_json_mem(p, len, path, err, sizeof(err));
    free(p);
    if (t == NULL) {
        fail_msg("%s", err);
    }

    return t;
}

/* All of a directory's vectors; nothing in them is a special token. */
static token_t *
agrees(const char *name)
{
    char path[256], *lines;
    token_t *t = json_open(name);
    size_t len;
    unsigned flags;

    (void) snprintf(path, sizeof(path), "%s/vectors.jsonl", name);
    for (flags = 0; flags <= TOKEN_F_SPECIAL; flags += TOKEN_F_SPECIAL) {
        lines = slurp(path, &len);
        assert_non_null(lines);
        assert_int_equal(vectors(t, flags, lines), 396);
        free(lines);
    }

    return t;
}

static int
has(const uint32_t *p, int64_t n, uint32_t id)
{
    int64_t i;

    for (i = 0; i < n; i++) {
        if (p[i] == id) {
            return 1;
        }
    }

    return 0;
}

static int64_t
encode(const token_t *t, const char *text, unsigned flags)
{
    return token_encode(t, text, strlen(text), flags, ids, IDS_MAX, NULL, NULL);
}

static void
test_qwen3(void **state)
{
    static const uint32_t composed[] = {963}, think[] = {151667};
    token_t *t = agrees("tokenizers/qwen3");
    int64_t n;

    (void) state;
    assert_int_equal(token_vocab(t), 151669);
    assert_int_equal(
        published(t, 0, "tokenizers/qwen3/ggml-vocab-qwen2.gguf"), 46);

    /* a letter and its accent are one character first */
    encodes(t, "e\xcc\x81", 0, composed, 1);
    encodes(t, "\xc3\xa9", 0, composed, 1);

    /* what is special stays text in a user's message; <think> is not */
    n = encode(t, "a<|im_end|>b", 0);
    assert_true(n > 3 && !has(ids, n, 151645));
    n = encode(t, "a<|im_end|>b", TOKEN_F_SPECIAL);
    assert_true(n == 3 && ids[1] == 151645);
    encodes(t, "<think>", 0, think, 1);

    assert_true(token_is_end(t, 151643) && token_is_end(t, 151645));
    assert_int_equal(token_bos(t), TOKEN_NONE);
    assert_false(token_strips_space(t));
    token_close(t);
}

static void
test_phi2(void **state)
{
    (void) state;
    token_close(agrees("tokenizers/phi-2"));
}

/* Its tokens take the white space behind them. */
static void
test_phi3(void **state)
{
    static const uint32_t rstrip[] = {921, 32007, 343};
    static const uint32_t both[] = {259, 32010};
    token_t *t = agrees("tokenizers/phi-3-mini");
    int64_t n;

    (void) state;
    encodes(t, "x<|end|>\n\n y", TOKEN_F_SPECIAL, rstrip, 3);
    encodes(t, " <|user|> ", TOKEN_F_SPECIAL, both, 2);
    n = encode(t, "x<|end|>", 0);
    assert_false(has(ids, n, 32007));
    assert_true(token_strips_space(t));
    token_close(t);
}

static void
test_t5(void **state)
{
    token_t *t = agrees("tokenizers/t5-small");
    int64_t n;

    (void) state;
    /* the reference's Unigram finds it in plain text; here nothing does */
    n = encode(t, "a</s>b", 0);
    assert_false(has(ids, n, 1));
    n = encode(t, "a</s>b", TOKEN_F_SPECIAL);
    assert_true(has(ids, n, 1));
    n = encode(t, "a", TOKEN_F_BOS);
    assert_int_equal(ids[n - 1], 1);
    token_close(t);
}

static void
test_tiny_stories(void **state)
{
    token_t *t = agrees("models/TinyStories-656K");
    int64_t n;

    (void) state;
    n = encode(t, "a", TOKEN_F_BOS);
    assert_true(n > 1 && ids[0] == 1);
    assert_int_equal(token_bos(t), 1);

    /* looked for behind the normalizer, so only where a space is */
    n = encode(t, "a <|end_story|>", TOKEN_F_SPECIAL);
    assert_true(has(ids, n, 2));
    n = encode(t, "a <|end_story|>", 0);
    assert_false(has(ids, n, 2));
    token_close(t);
}


/* --- small vocabularies ------------------------------------------------- */

/* a = 0 to z = 25, space 26, "▁" 27, "é" 28, "ab" 29, "▁a" 30, "bc" 31,
 * <u> 32 */
static const char small_vocab[] =
    "\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"d\":3,\"e\":4,\"f\":5,\"g\":6,"
    "\"h\":7,\"i\":8,\"j\":9,\"k\":10,\"l\":11,\"m\":12,\"n\":13,\"o\":14,"
    "\"p\":15,\"q\":16,\"r\":17,\"s\":18,\"t\":19,\"u\":20,\"v\":21,\"w\":22,"
    "\"x\":23,\"y\":24,\"z\":25,\" \":26,\"\xe2\x96\x81\":27,\"\xc3\xa9\":28,"
    "\"ab\":29,\"\xe2\x96\x81"
    "a\":30,\"bc\":31,\"<u>\":32,\"1\":33,\"2\":34,"
    "\",\":35}";

/* With two merges, and whatever else a test puts in. */
static token_t *
small(const char *pipe, const char *model, const char *added)
{
    char text[4096];
    token_t *t;

    (void) snprintf(text, sizeof(text),
        "{%s\"decoder\":{\"type\":\"Fuse\"},\"added_tokens\":[%s],\"model\":{"
        "\"type\":\"BPE\",%s\"merges\":[[\"a\",\"b\"],\"\xe2\x96\x81 a\","
        "\"b c\"],%s}}",
        pipe, added, model, small_vocab);
    t = token_open_json_mem(text, strlen(text), "small", err, sizeof(err));
    if (t == NULL) {
        fail_msg("%s", err);
    }

    return t;
}

/* The ids as "1,2,3", which is easier to write down. */
static void
gives(const char *pipe, const char *model, const char *added, const char *text,
    const char *want)
{
    token_t *t = small(pipe, model, added);
    int64_t n = encode(t, text, TOKEN_F_SPECIAL), i;
    char got[512] = "";
    size_t at = 0;

    for (i = 0; i < n; i++) {
        at += (size_t) snprintf(
            got + at, sizeof(got) - at, "%s%u", i > 0 ? "," : "", ids[i]);
    }
    if (n < 0 || strcmp(got, want) != 0) {
        fail_msg("%s%s%s: \"%s\" is %s, expected %s", pipe, model, added, text,
            got, want);
    }
    token_close(t);
}

#define NORM(steps)                                                            \
    "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[" steps "]},"
#define PRE(step)  "\"pre_tokenizer\":" step ","
#define UNK        "\"unk_token\":\"<u>\","
#define FUSED      UNK "\"fuse_unk\":true,"
#define TYPE(name) "{\"type\":\"" name "\"}"

static void
test_normalizers(void **state)
{
    (void) state;
    gives(NORM(TYPE("NFC")), "", "", "e\xcc\x81", "28");
    gives(NORM(TYPE("NFD") "," TYPE("StripAccents")), "", "", "\xc3\xa9", "4");
    gives(NORM(TYPE("NFKC")), "", "", "\xef\xbd\x81\xef\xbd\x82", "29");
    gives(NORM(TYPE("NFKD") "," TYPE("NFC")), "", "", "\xc2\xb2", "34");
    gives(NORM(TYPE("Lowercase")), "", "", "ABC", "29,2");
    gives(NORM("{\"type\":\"Strip\",\"strip_left\":true,"
               "\"strip_right\":true}"),
        "", "", " \n a b \t", "0,26,1");
    gives(NORM("{\"type\":\"Strip\",\"strip_left\":false,"
               "\"strip_right\":true}"),
        "", "", " a ", "26,0");
    gives(NORM("{\"type\":\"Prepend\",\"prepend\":\"\xe2\x96\x81\"},"
               "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},"
               "\"content\":\"\xe2\x96\x81\"}"),
        "", "", "a ab", "30,27,29");
    gives(NORM("{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"x+|\\\\d\"},"
               "\"content\":\"ab\"}"),
        "", "", "xx1z", "29,29,25");
    /* nothing is prepended to nothing */
    gives(NORM("{\"type\":\"Prepend\",\"prepend\":\"a\"}"), "", "", "", "");
}

static void
test_cuts(void **state)
{
#define SPLIT(pattern, behavior, invert)                                       \
    PRE("{\"type\":\"Split\",\"pattern\":{" pattern "},\"behavior\":"          \
        "\"" behavior "\",\"invert\":" invert "}")
#define B "\"String\":\"b\""

    (void) state;
    gives("", "", "", "abbc", "29,31");
    gives(SPLIT(B, "Isolated", "false"), "", "", "abbc", "0,1,1,2");
    gives(SPLIT(B, "Removed", "false"), "", "", "abbc", "0,2");
    gives(SPLIT(B, "Removed", "true"), "", "", "abbc", "1,1");
    gives(SPLIT(B, "MergedWithPrevious", "false"), "", "", "abbc", "29,1,2");
    gives(SPLIT(B, "MergedWithNext", "false"), "", "", "abbc", "0,1,31");
    gives(SPLIT(B, "Contiguous", "false"), "", "", "abbc", "0,1,1,2");
    gives(SPLIT("\"Regex\":\"[b[c]]\"", "Contiguous", "false"), "", "", "abca",
        "0,31,0");
    gives(PRE("{\"type\":\"Digits\",\"individual_digits\":true}"), "", "",
        "a12b", "0,33,34,1");
    gives(PRE("{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\","
              "\"prepend_scheme\":\"always\",\"split\":true}"),
        "", "", "a ab", "30,27,29");
    gives(PRE("{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\","
              "\"prepend_scheme\":\"never\",\"split\":true}"),
        "", "", "a ac", "0,30,2");
    gives(PRE(TYPE("WhitespaceSplit")), "", "", " ab\tc ", "29,2");
    gives(PRE(TYPE("Whitespace")), "", "", "a,b c", "0,35,1,2");
    gives(PRE(TYPE("BertPreTokenizer")), "", "", "a,b c", "0,35,1,2");
    gives(PRE("{\"type\":\"Punctuation\",\"behavior\":\"Isolated\"}"), "", "",
        "ab,bc", "29,35,31");
}

static void
test_unknown(void **state)
{
    (void) state;
    gives("", UNK, "", "aXYb", "0,32,32,1");
    gives("", FUSED, "", "aXYb", "0,32,1");
    gives("", FUSED, "", "XaY", "32,0,32");
    /* without one it is an error, and no text is lost in silence */
    {
        token_t *t = small("", "", "");

        assert_int_equal(encode(t, "aX", 0), -LLM_ERR_BAD_TEXT);
        token_close(t);
    }
}

#define ADD(id, content, flags)                                                \
    "{\"id\":" #id ",\"content\":\"" content "\"" flags "}"

static void
test_added(void **state)
{
    (void) state;
    gives("", "", ADD(40, "bc", ""), "abc", "0,40");
    gives("", "", ADD(40, "x", ",\"lstrip\":true"), "a  xb", "0,40,1");
    gives("", "", ADD(40, "x", ",\"rstrip\":true"), "a x  b", "0,26,40,1");
    gives("", "", ADD(40, "x", ",\"single_word\":true"), "ax x,xa x",
        "0,23,26,40,35,23,0,26,40");
    /* the longest wins */
    gives("", "", ADD(40, "xy", "") "," ADD(41, "xyz", ""), "xyzxy", "41,40");
    /* as it stands, or in its normal form */
    gives(NORM(TYPE("Lowercase")), "", ADD(40, "X", ",\"normalized\":true"),
        "xX", "40,40");
    gives(NORM(TYPE("Lowercase")), "", ADD(40, "X", ",\"normalized\":false"),
        "xX", "23,40");
    /* stretches between them are texts of their own */
    gives(NORM("{\"type\":\"Prepend\",\"prepend\":\"\xe2\x96\x81\"}"), "",
        ADD(40, "X", ""), "aXa", "30,40,30");
}

static void
test_special(void **state)
{
    token_t *t = small("", "\"ignore_merges\":true,",
        ADD(40, "<s>", ",\"special\":true") "," ADD(41, "bc", ""));
    static const uint32_t plain[] = {40, 41}, none[] = {41};
    size_t len;

    (void) state;
    encodes(t, "<s>bc", TOKEN_F_SPECIAL, plain, 2);
    assert_int_equal(encode(t, "<s>", 0), -LLM_ERR_BAD_TEXT);
    encodes(t, "bc", 0, none, 1);
    (void) token_bytes(t, 40, &len);
    assert_int_equal(len, 0);
    assert_memory_equal(token_bytes(t, 41, &len), "bc", 2);
    assert_int_equal(token_find(t, "<s>", 3), 40);
    token_close(t);
}


/* --- what is refused ---------------------------------------------------- */

static void
refuses(const char *text, const char *why)
{
    err[0] = '\0';
    assert_null(
        token_open_json_mem(text, strlen(text), "x.json", err, sizeof(err)));
    if (strncmp(err, "x.json: ", 8) != 0 || strstr(err, why) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", err, why);
    }
}

#define MODEL                                                                  \
    "\"decoder\":{\"type\":\"Fuse\"},\"model\":{\"type\":\"BPE\",\"vocab\":"   \
    "{\"a\":0},\"merges\":[]}"

static void
test_refused(void **state)
{
    (void) state;
    refuses("", "no JSON");
    refuses("{\"a\":", "no JSON");
    refuses("[]", "no model");
    refuses("{\"model\":{\"type\":\"WordPiece\"}}", "\"WordPiece\"");
    refuses("{\"normalizer\":{\"type\":\"Nmt\"}," MODEL "}", "\"Nmt\"");
    refuses("{\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"}," MODEL "}",
        "\"UnicodeScripts\"");
    refuses("{\"post_processor\":{\"type\":\"Odd\"}," MODEL "}", "\"Odd\"");
    refuses("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},"
            "\"decoder\":{\"type\":\"WordPiece\"}}",
        "\"WordPiece\"");
    refuses("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}",
        "no decoder");
    refuses("{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":"
            "\"[a&&b]\"},\"behavior\":\"Isolated\"}," MODEL "}",
        "intersection");
    refuses("{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":"
            "\"(a\"},\"behavior\":\"Isolated\"}," MODEL "}",
        "refused");
    refuses("{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":"
            "\"a\"},\"behavior\":\"Odd\"}," MODEL "}",
        "\"Odd\"");
    refuses("{\"decoder\":{\"type\":\"Fuse\"},\"model\":{\"type\":\"BPE\","
            "\"continuing_subword_prefix\":\"##\",\"vocab\":{\"a\":0},"
            "\"merges\":[]}}",
        "continuing_subword_prefix");
    refuses("{\"decoder\":{\"type\":\"Fuse\"},\"model\":{\"type\":\"BPE\","
            "\"vocab\":{\"a\":10000000},\"merges\":[]}}",
        "ids");
    refuses("{\"decoder\":{\"type\":\"Fuse\"},\"model\":{\"type\":\"BPE\","
            "\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}",
        "two pieces");
    refuses("{\"decoder\":{\"type\":\"Fuse\"},\"model\":{\"type\":\"BPE\","
            "\"vocab\":{\"a\":0},\"merges\":[\"ab\"]}}",
        "merge 0");
    refuses("{\"decoder\":{\"type\":\"Fuse\"},\"model\":{\"type\":\"BPE\","
            "\"unk_token\":\"?\",\"vocab\":{\"a\":0},\"merges\":[]}}",
        "unk_token");
    /* what is looked for must be something */
    refuses("{\"decoder\":{\"type\":\"Metaspace\",\"replacement\":\"\"},"
            "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},"
            "\"merges\":[]}}",
        "empty");
    refuses("{\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":"
            "\"\"}," MODEL "}",
        "empty");
    refuses("{\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":"
            "[{\"SpecialToken\":{\"id\":\"x\"}}]}," MODEL "}",
        "template");
}


/* --- time --------------------------------------------------------------- */

/* A megabyte, or a quarter, of what could go wrong: quadratic is minutes. */
static void
linear(const char *name, size_t n)
{
    static const char *const runs[] = {"a", " ", "\n", "1", "\xcc\x81",
        "\xcc\x81\xcc\xa3", "\xe1\xbe\xa2", "\xe4\xb8\x96", "\xff", "a ",
        "\xe2\x96\x81", "<", "\xcc\xa3 "};
    size_t i, at, len;
    token_t *t = json_open(name);
    char *big = malloc(n);
    uint32_t *out = malloc(4 * n * sizeof(*out));
    clock_t start;

    assert_non_null(big);
    assert_non_null(out);
    for (i = 0; i < sizeof(runs) / sizeof(runs[0]); i++) {
        len = strlen(runs[i]);
        for (at = 0; at + len <= n; at += len) {
            memcpy(big + at, runs[i], len);
        }
        start = clock();
        (void) token_encode(
            t, big, at, TOKEN_F_SPECIAL, out, 4 * n, NULL, NULL);
        if ((double) (clock() - start) / CLOCKS_PER_SEC > 5.0) {
            fail_msg("%s: \"%s\" takes too long", name, runs[i]);
        }
    }
    free(big);
    free(out);
    token_close(t);
}

static void
test_linear(void **state)
{
    (void) state;
    linear("tokenizers/qwen3", brief() ? 1 << 18 : 1 << 20);
    linear("tokenizers/phi-3-mini", 1 << 18);
    linear("tokenizers/t5-small", 1 << 18);
}


/* --- damage ------------------------------------------------------------- */

/* Cut short, or with bytes changed: opened or one sentence, never a crash. */
static void
damaged(const char *path, int rounds)
{
    char *p, *bad;
    uint32_t seed = 1, k;
    size_t len, n;
    token_t *t;
    int opened = 0;

    p = slurp(path, &len);
    if (p == NULL) {
        skip();
    }
    /* a seed of the fuzzer has a text behind the file */
    len = strlen(p);

    for (; rounds > 0; rounds--) {
        seed = seed * 1664525u + 1013904223u;
        n = seed >> 29 == 0 ? (seed >> 4) % len + 1 : len;
        bad = malloc(n);
        assert_non_null(bad);
        memcpy(bad, p, n);
        for (k = seed >> 27 & 3; k < 4; k++) {
            seed = seed * 1664525u + 1013904223u;
            bad[(seed >> 3) % n] ^= (char) (1 << (seed >> 29));
        }
        err[0] = '\0';
        t = token_open_json_mem(bad, n, "bad", err, sizeof(err));
        assert_true(t != NULL || strncmp(err, "bad: ", 5) == 0);
        if (t != NULL) {
            (void) encode(t, "Hello <|im_end|> \xc3\xa9\xff", TOKEN_F_SPECIAL);
            opened++;
        }
        token_close(t);
        free(bad);
    }
    free(p);

    /* some bytes are in some piece, and another one does no harm */
    assert_true(opened > 0);
}

/* Small ones, cut out of the real files; and real ones, a few times. */
static void
test_damaged(void **state)
{
    static const char *const seeds[] = {
        "qwen3", "phi-2", "phi-3-mini", "t5-small", "tinystories-656k", "rest"};
    char path[128];
    size_t i;

    (void) state;
    for (i = 0; i < sizeof(seeds) / sizeof(seeds[0]); i++) {
        (void) snprintf(
            path, sizeof(path), "./tests/data/fuzz/token_json/%s", seeds[i]);
        damaged(path, 200);
    }
}

static void
test_damaged_real(void **state)
{
    (void) state;
    damaged("models/TinyStories-656K/tokenizer.json", 100);
    damaged("tokenizers/t5-small/tokenizer.json", 10);
    damaged("tokenizers/phi-3-mini/tokenizer.json", 10);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_qwen3),
        cmocka_unit_test(test_phi2),
        cmocka_unit_test(test_phi3),
        cmocka_unit_test(test_t5),
        cmocka_unit_test(test_tiny_stories),
        cmocka_unit_test(test_normalizers),
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_unknown),
        cmocka_unit_test(test_added),
        cmocka_unit_test(test_special),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_damaged_real),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
