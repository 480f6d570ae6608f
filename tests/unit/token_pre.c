/*
 * Would catch: a word cut elsewhere than where the models' own tokenizers cut
 * it, bytes lost between words, a hostile text that takes more than linear
 * time, a byte alphabet with a hole.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "brief.h"
#include "llm_err.h"
#include "token_impl.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *const names[] = {"default", "gpt-2", "phi-2", "jina-es",
    "jina-de", "gigachat", "a.x-4.0", "mellum", "jais", "exaone4", "trillion",
    "granite-docling", "mpt", "olmo", "smollm", "starcoder", "refact",
    "codeshell", "exaone", "minerva-7b", "mellum2", "command-r", "falcon",
    "qwen2", "deepseek-r1-qwen", "stablelm2", "hunyuan", "megrez", "kormo",
    "grok-2", "solar-open", "qwen35", "llama-bpe", "llama3", "llama-v3",
    "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "minicpm5", "dbrx",
    "smaug-bpe", "chatglm-bpe", "glm4", "jais-2", "gpt-4o", "llama4", "kanana2",
    "minimax-m2", "tekken", "kimi-k2", "youtu", "bailingmoe", "bailingmoe2",
    "llada-moe", "seed-coder", "exaone-moe", "bloom", "gpt3-finnish",
    "poro-chat", "viking", "deepseek-v3", "hunyuan-dense", "joyai-llm",
    "deepseek-llm", "deepseek-coder"};

#define NAMES (sizeof(names) / sizeof(names[0]))

/* The words so far, with a bar behind each. */
typedef struct {
    char text[1024];
    size_t n;
} words_t;

static token_pre_t *
open_pre(const char *name)
{
    gguf_str_t s = {name, strlen(name)};
    char err[512] = "";
    token_rules_t rules;
    token_pre_t *p = token_pre_open("test", &s, &rules, err, sizeof(err));

    if (p == NULL) {
        fail_msg("%s", err);
    }

    return p;
}

static int
note(void *arg, const char *s, size_t len)
{
    words_t *w = arg;

    assert_true(len > 0 && w->n + len + 1 < sizeof(w->text));
    memcpy(w->text + w->n, s, len);
    w->n += len;
    w->text[w->n++] = '|';
    w->text[w->n] = '\0';

    return 0;
}

static void
cuts(const char *name, const char *text, const char *want)
{
    token_pre_t *p = open_pre(name);
    words_t w = {.n = 0};
    const token_words_t words = {note, NULL, NULL, &w};

    assert_int_equal(token_pre_split(p, text, strlen(text), 1, &words), 0);
    if (strcmp(w.text, want) != 0) {
        fail_msg("%s: \"%s\", expected \"%s\"", name, w.text, want);
    }
    token_pre_close(p);
}

static void
test_gpt2(void **state)
{
    (void) state;
    cuts("gpt-2", "", "");
    cuts("gpt-2", "I'll be  back at 12:30!!\n\n x",
        "I|'ll| be| | back| at| 12|:|30|!!|\n\n| x|");
    cuts("gpt-2", "DON'T don't", "DON|'|T| don|'t|");
    cuts("gpt-2", "   ", "   |");
    cuts("gpt-2", "a\t\tb\r\n", "a|\t|\t|b|\r\n|");
    cuts("gpt-2", "na\xc3\xafve \xe4\xbd\xa0\xe5\xa5\xbd\xe3\x80\x82",
        "na\xc3\xafve| \xe4\xbd\xa0\xe5\xa5\xbd|\xe3\x80\x82|");
    /* U+3000 is white space, U+180E is no more */
    cuts("gpt-2", "a\xe3\x80\x80\xe3\x80\x80!",
        "a|\xe3\x80\x80|\xe3\x80\x80|!|");
    cuts("gpt-2", "a\xe1\xa0\x8e!", "a|\xe1\xa0\x8e!|");
}

static void
test_qwen2(void **state)
{
    (void) state;
    cuts("qwen2", "I'll BE'LL 123 4", "I|'ll| BE|'LL| |1|2|3| |4|");
    cuts("qwen2", "a.b (c)\n\n\td  e\r\n  \n f",
        "a|.b| (|c|)\n\n|\td| | e|\r\n  \n| f|");
    cuts("qwen2", "!!\n\n x", "!!\n\n| x|");
    /* U+017F, a long s, is an s to who ignores case */
    cuts("qwen2", "it'\xc5\xbf", "it|'\xc5\xbf|");
    cuts("qwen2", "\xc2\xbd\xe2\x85\xab", "\xc2\xbd|\xe2\x85\xab|");
    cuts("qwen2",
        "a\xe1\xa0\x8e"
        "b",
        "a|\xe1\xa0\x8e"
        "b|");
}

static void
test_llama(void **state)
{
    (void) state;
    cuts("llama-bpe", "12345 6789a", "123|45| |678|9|a|");
    cuts("llama-bpe", "We'Ve  x.\n\n", "We|'Ve| | x|.\n\n|");
}

/* Each pattern sees a piece of the one before as if it were the whole text. */
static void
test_sequences(void **state)
{
    (void) state;
    cuts("smollm", "ab 12!  x", "ab| |1|2|!| | x|");
    cuts("smollm", "a  1", "a|  |1|");
    cuts("deepseek-coder", "if (x1): y\r\n  z", "if| (|x|1|):| y|\r|\n| | z|");
    cuts("deepseek-coder",
        "a\xe4\xb8\x80\xe4\xba\x8c+=", "a|\xe4\xb8\x80\xe4\xba\x8c|+=|");
    cuts("deepseek-coder", "\xe0\xa5\x8d\xe0\xa5\x8d ",
        "\xe0\xa5\x8d\xe0\xa5\x8d| |");
}

/* --- the reference ------------------------------------------------------- */

typedef struct {
    const json_t *want; /* lengths of words */
    size_t n;
    const char *name, *text;
} cut_t;

static int
cut_is(void *arg, const char *s, size_t len)
{
    cut_t *c = arg;
    json_int_t want = json_integer_value(json_array_get(c->want, c->n));

    if ((json_int_t) len != want) {
        fail_msg("%s: \"%s\": word %zu is \"%.*s\", expected %d bytes", c->name,
            c->text, c->n, (int) len, s, (int) want);
    }
    c->n++;

    return 0;
}

/* tests/data/cuts: where the models' own pre-tokenizers cut. */
static void
test_reference(void **state)
{
    json_t *o = json_load_file("tests/data/cuts/cuts.json", 0, NULL);
    json_t *texts = json_object_get(o, "texts"), *kind, *name, *text;
    size_t i, k, n, done = 0;

    (void) state;
    assert_non_null(o);
    json_array_foreach(json_object_get(o, "kinds"), i, kind)
    {
        json_array_foreach(json_object_get(kind, "names"), k, name)
        {
            token_pre_t *p = open_pre(json_string_value(name));

            json_array_foreach(texts, n, text)
            {
                cut_t c = {json_array_get(json_object_get(kind, "cuts"), n), 0,
                    json_string_value(name), json_string_value(text)};
                const token_words_t words = {cut_is, NULL, NULL, &c};

                assert_int_equal(token_pre_split(p, c.text,
                                     json_string_length(text), 1, &words),
                    0);
                assert_int_equal(c.n, json_array_size(c.want));
                done++;
            }
            token_pre_close(p);
        }
    }
    assert_true(done > 5000);
    json_decref(o);
}

/* Whose texts are composed first, as the models' own tokenizers do it. */
static void
test_rules(void **state)
{
    static const char *const composed[] = {"qwen2", "qwen35", "command-r",
        "olmo", "mpt", "stablelm2", "hunyuan", "deepseek-r1-qwen"};
    token_rules_t rules;
    char err[512];
    size_t i, k, n = 0;

    (void) state;
    for (i = 0; i < NAMES; i++) {
        gguf_str_t s = {names[i], strlen(names[i])};
        int want = 0;

        token_pre_close(token_pre_open("x", &s, &rules, err, sizeof(err)));
        for (k = 0; k < sizeof(composed) / sizeof(composed[0]); k++) {
            want |= strcmp(composed[k], names[i]) == 0;
        }
        assert_int_equal(rules.nfc, want);
        n += (size_t) want;
    }
    assert_int_equal(n, sizeof(composed) / sizeof(composed[0]));
}


/* A run of bytes that are no characters is a word. */
static void
test_invalid(void **state)
{
    size_t i;

    (void) state;
    cuts("qwen2", "a\xff\xfe 1\xc3", "a|\xff\xfe| |1|\xc3|");
    cuts("gpt-2", " \xf0\x9f\x98", " |\xf0\x9f\x98|");
    for (i = 0; i < NAMES; i++) {
        cuts(names[i], "a\xed\xa0\x80\xc0\xaf\xf4\x90\x80\x80z",
            "a|\xed\xa0\x80\xc0\xaf\xf4\x90\x80\x80|z|");
    }
}

static int
third(void *arg, const char *s, size_t len)
{
    (void) s;
    (void) len;

    return ++(*(int *) arg) == 3 ? -LLM_ERR_CANCELLED : 0;
}

static void
test_ends(void **state)
{
    size_t i;
    int n;

    (void) state;
    for (i = 0; i < NAMES; i++) {
        token_pre_t *p = open_pre(names[i]);
        const token_words_t words = {third, NULL, NULL, &n};

        n = 0;
        assert_int_equal(token_pre_split(p, "a, b, c, d", 10, 1, &words),
            -LLM_ERR_CANCELLED);
        assert_int_equal(n, 3);
        token_pre_close(p);
    }
}

static int
add(void *arg, const char *s, size_t len)
{
    (void) s;
    *(size_t *) arg += len;

    return 0;
}

/* One of each that has patterns of its own. */
static const char *const kinds[] = {"gpt-2", "qwen2", "llama-bpe", "gpt-4o",
    "tekken", "smollm", "deepseek-v3", "deepseek-coder", "falcon", "qwen35",
    "minicpm5", "jais-2", "kimi-k2", "youtu", "bailingmoe", "seed-coder",
    "exaone-moe", "viking", "deepseek-llm"};

/* Much of what a matcher could go wrong on. */
static void
test_linear(void **state)
{
    static const char *const runs[] = {" ", "\n", " \n", "a", "1", "!", "'",
        "\t ", "a ", " a", "\xc2\xa0", "\xe4\xb8\x80", "\xff", "\xff ", "'s",
        "\xcc\x81", "\xe3\x80\x80 \r"};
    size_t n = brief() ? 1 << 16 : 1 << 18, i, k, at, len, sum;
    char *big = malloc(n + 1);
    clock_t start;

    (void) state;
    assert_non_null(big);
    for (k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
        token_pre_t *p = open_pre(kinds[k]);
        const token_words_t words = {add, NULL, NULL, &sum};

        for (i = 0; i < sizeof(runs) / sizeof(runs[0]); i++) {
            len = strlen(runs[i]);
            for (at = 0; at + len <= n; at += len) {
                memcpy(big + at, runs[i], len);
            }
            big[at++] = 'x';
            sum = 0;
            start = clock();
            assert_int_equal(token_pre_split(p, big, at, 1, &words), 0);
            assert_int_equal(sum, at);
            assert_true((double) (clock() - start) / CLOCKS_PER_SEC < 2.0);
        }
        token_pre_close(p);
    }
    free(big);
}

/* --- pieces that are known already ---------------------------------------- */

#define MEMO       4096
#define MEMO_WORDS 16384

typedef struct {
    words_t w;
    size_t from; /* where the last word begins */
    token_cache_t *memo;
    char words[MEMO_WORDS][TOKEN_CACHE_KEY + 2];
    uint32_t n;
    unsigned hits;
} memo_t;

static int
memo_word(void *arg, const char *s, size_t len)
{
    memo_t *m = arg;

    m->from = m->w.n;

    return note(&m->w, s, len);
}

static int
memo_known(void *arg, unsigned level, const char *s, size_t len)
{
    memo_t *m = arg;
    uint32_t ids[TOKEN_CACHE_IDS];

    if (token_cache_get(m->memo, level, s, len, ids) == 0) {
        return 0;
    }
    m->hits++;
    assert_int_equal(
        note(&m->w, m->words[ids[0]], strlen(m->words[ids[0]])), 0);

    return 1;
}

/* The word that came last is the piece, be it bytes or their letters. */
static void
memo_note(void *arg, unsigned level, const char *s, size_t len)
{
    memo_t *m = arg;
    size_t n = m->w.n - m->from - 1;

    assert_true(n <= len && n <= TOKEN_CACHE_KEY);
    if (m->n < MEMO_WORDS && memchr(s, '\0', len) == NULL) {
        memcpy(m->words[m->n], m->w.text + m->from, n);
        m->words[m->n][n] = '\0';
        token_cache_put(m->memo, level, s, len, &m->n, 1);
        m->n++;
    }
}

/* With what was noted before, the words are the same. */
static void
test_known(void **state)
{
    static const char *const bits[] = {" ", "\n", "a", "the", "12", "3", ",",
        ".", "\xc2\xa0", "\xe4\xb8\x80", "\xe3\x80\x80", "\xe3\x81\x82",
        "\xe0\xa5\xa7", "\xe0\xa5\x8d", "+", "'s", "\xff", "\xcc\x81"};
    const uint32_t rounds = brief() ? MEMO / 4 : MEMO;
    uint32_t seed = 1, i, k, n;
    char text[128];
    static memo_t m;

    (void) state;
    for (k = 0; k < NAMES; k++) {
        token_pre_t *p = open_pre(names[k]);
        const token_words_t asked = {memo_word, memo_known, memo_note, &m};
        const token_words_t plain = {note, NULL, NULL, NULL};
        words_t w;

        memset(&m, 0, sizeof(m));
        m.memo = token_cache_open();
        assert_non_null(m.memo);
        for (i = 0; i < rounds; i++) {
            token_words_t to = plain;

            text[0] = '\0';
            for (n = seed >> 29; n < 8; n++) {
                seed = seed * 1664525u + 1013904223u;
                strcat(
                    text, bits[(seed >> 8) % (sizeof(bits) / sizeof(*bits))]);
            }
            m.w.n = w.n = m.from = 0;
            to.arg = &w;
            assert_int_equal(
                token_pre_split(p, text, strlen(text), 1, &asked), 0);
            assert_int_equal(token_pre_split(p, text, strlen(text), 1, &to), 0);
            assert_int_equal(w.n, m.w.n);
            assert_memory_equal(w.text, m.w.text, w.n);
        }
        if (strcmp(names[k], "deepseek-coder") == 0) {
            assert_true(m.hits > rounds);
        }
        token_cache_close(m.memo);
        token_pre_close(p);
    }
}


static void
test_unknown(void **state)
{
    gguf_str_t s = {"gpt", 3};
    token_rules_t rules;
    char err[512], tiny[8];

    (void) state;
    assert_null(token_pre_open("x.gguf", &s, &rules, err, sizeof(err)));
    assert_string_equal(err, "x.gguf: tokenizer.ggml.pre is \"gpt\", a "
                             "pre-tokenizer that is not known");
    assert_null(token_pre_open("x.gguf", &s, &rules, tiny, sizeof(tiny)));
    assert_int_equal(strlen(tiny), 7);
}

/* Every byte has a character, and no character has two. */
static void
test_alphabet(void **state)
{
    char all[256], piece[512], back[512], one[2];
    gguf_str_t s = {piece, 0};
    size_t i, n;

    (void) state;
    for (i = 0; i < 256; i++) {
        all[i] = (char) i;
    }
    s.len = token_alphabet_write(all, 256, piece);
    assert_int_equal(s.len, 94 + 2 * (256 - 94));
    assert_true(token_alphabet_read(&s, back, &n));
    assert_int_equal(n, 256);
    assert_memory_equal(back, all, 256);

    assert_int_equal(token_alphabet_write(" ", 1, piece), 2);
    assert_memory_equal(piece, "\xc4\xa0", 2);
    assert_int_equal(token_alphabet_write("\xad", 1, piece), 2);
    assert_memory_equal(piece, "\xc5\x83", 2);

    /* of all characters of at most two bytes 256 are letters of it */
    for (i = 0, n = 0; i < 0x800; i++) {
        size_t m;

        piece[0] = (char) (i < 0x80 ? i : 0xc0 | i >> 6);
        piece[1] = (char) (0x80 | (i & 0x3f));
        s.len = i < 0x80 ? 1 : 2;
        n += (size_t) token_alphabet_read(&s, one, &m);
    }
    assert_int_equal(n, 256);
    s = (gguf_str_t){"a\xc4", 2};
    assert_false(token_alphabet_read(&s, back, &n));
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpt2),
        cmocka_unit_test(test_qwen2),
        cmocka_unit_test(test_llama),
        cmocka_unit_test(test_sequences),
        cmocka_unit_test(test_reference),
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_invalid),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_known),
        cmocka_unit_test(test_unknown),
        cmocka_unit_test(test_alphabet),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
