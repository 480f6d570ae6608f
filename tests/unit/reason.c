/*
 * Would catch: a mark that is missed, or taken for one, for some way of
 * cutting the text into tokens; text lost or doubled at a mark; a family not
 * known by its template; a prompt that opens the thought and is not seen to.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "jinja_test.h"
#include "reason.h"
#include "vocab_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char err[256];

/* What came, answer as it is, thought in braces. */
static char got[4096];
static size_t got_n;
static uint32_t got_kind;

static int
take_piece(void *arg, uint32_t kind, const char *p, size_t n)
{
    assert_null(arg);
    assert_true(n > 0 && got_n + n + 4 < sizeof(got));
    if (kind != got_kind) {
        got[got_n++] = kind == LLM_TEXT_REASONING ? '{' : '}';
        got_kind = kind;
    }
    memcpy(got + got_n, p, n);
    got_n += n;

    return 0;
}

static const char *
end(const reason_t *r, reason_state_t *st)
{
    assert_int_equal(reason_end(r, st, take_piece, NULL), 0);
    if (got_kind == LLM_TEXT_REASONING) {
        got[got_n++] = '}';
    }
    got[got_n] = '\0';
    got_n = 0;
    got_kind = LLM_TEXT_ANSWER;

    return got;
}

static void
feed(const reason_t *r, reason_state_t *st, const char *p, size_t n)
{
    assert_int_equal(reason_feed(r, st, p, n, take_piece, NULL), 0);
    assert_true(reason_held(r, st) <= REASON_HELD_MAX);
}

static reason_t *
family(const char *name, const token_t *t)
{
    reason_t *r;

    assert_int_equal(reason_open(&r, name, NULL, 0, t, err, sizeof(err)), 0);
    assert_non_null(r);
    assert_string_equal(reason_name(r), name);

    return r;
}

typedef struct {
    const char *name, *text, *want;
} row_t;

static const row_t rows[] = {
    {"think", "<think>\na\n b\n</think>\n\nc\n", "{a\n b}c\n"},
    {"think", "\n <think>a</think>b</think><think>c", "{a}b</think><think>c"},
    {"think", "<think></think>b", "b"},
    {"think", "<think>\n\n</think>\n\nb", "b"},
    {"think", "<think>a", "{a}"},
    {"think", "<think>a</thin", "{a</thin}"},
    {"think", "<think>a\n\n\n\n</think>b", "{a\n\n}b"},
    {"think", "<think>a</<</think>b", "{a</<}b"},
    {"think", "<think>a\n", "{a\n}"},
    {"think", "x<think>a</think>b", "x<think>a</think>b"},
    {"think", "<<think>a", "<<think>a"},
    {"think", "<thinx", "<thinx"},
    {"think", " \n<thi", " \n<thi"},
    {"think", "         <think>a", "         <think>a"},
    {"think", "", ""},
    {"think", "<think>\xc3\xa9</think>\xc3\xa9", "{\xc3\xa9}\xc3\xa9"},
    {"granite", "<think>a</think>\n<response>b</response>\n", "{a}b"},
    {"granite", "<think>a</think>\n<response>b</response>c", "{a}bc"},
    {"granite", "<think>a</think>b</response>", "{a}b</response>"},
    {"granite", "<think>a</think><resp", "{a}<resp"},
    {"granite", "<think>a</think><response>b</respo", "{a}b</respo"},
    {"granite-3.2",
        "Here is my thought process:\na Here's\nHere's my response:"
        "\nb",
        "{a Here's}b"},
    {"granite-3.2", "Here's my thought process: a Here is my response: b",
        "{ a } b"},
    {"granite-3.2", "Here is it", "Here is it"},
    {"seed", "<seed:think>a</seed:think>b", "{a}b"},
    {"kimi",
        "\xe2\x97\x81think\xe2\x96\xb7"
        "a\xe2\x97\x81/think\xe2\x96\xb7"
        "b",
        "{a}b"},
    {"magistral", "[THINK]a[/THINK]b", "{a}b"},
    {"command", "<|START_THINKING|>a<|END_THINKING|>b", "{a}b"},
};

/* Every cut into two, and into single bytes. */
static void
test_cuts(void **state)
{
    token_t *t = token_open_null();
    reason_state_t begun, st;
    reason_t *r;
    size_t i, k, n;

    (void) state;
    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        r = family(rows[i].name, t);
        reason_begin(r, NULL, 0, 0, &begun);
        n = strlen(rows[i].text);

        for (k = 0; k <= n; k++) {
            st = begun;
            feed(r, &st, rows[i].text, k);
            feed(r, &st, rows[i].text + k, n - k);
            assert_string_equal(end(r, &st), rows[i].want);
        }
        st = begun;
        for (k = 0; k < n; k++) {
            feed(r, &st, rows[i].text + k, 1);
        }
        assert_string_equal(end(r, &st), rows[i].want);
        reason_close(r);
    }
    token_close(t);
}

/* Text made of marks' pieces, cut anywhere: always the same, none lost. */
static void
test_random(void **state)
{
    static const char *const parts[] = {"<think>", "</think>", "<", "/", "\n",
        "a", "</thi", "<response>", "</response>", " "};
    token_t *t = token_open_null();
    char text[256], want[4096];
    reason_state_t begun, st;
    size_t i, k, n, at, len;
    reason_t *r;

    (void) state;
    srand(7);
    for (i = 0; i < 4000; i++) {
        r = family(i % 2 ? "think" : "granite", t);
        reason_begin(r, NULL, 0, 0, &begun);
        for (n = 0, k = (size_t) rand() % 12; k > 0; k--) {
            n += (size_t) sprintf(text + n, "%s", parts[(size_t) rand() % 10]);
        }
        st = begun;
        feed(r, &st, text, n);
        strcpy(want, end(r, &st));

        st = begun;
        for (at = 0; at < n; at += len) {
            len = 1 + (size_t) rand() % (n - at);
            feed(r, &st, text + at, len);
        }
        assert_string_equal(end(r, &st), want);
        reason_close(r);
    }
    token_close(t);
}

/* --- what a prompt says -------------------------------------------------- */

static const char *
after(const char *name, const char *prompt, int go_on, const char *text)
{
    token_t *t = token_open_null();
    uint32_t ids[256];
    reason_state_t st;
    reason_t *r = family(name, t);
    size_t i;

    for (i = 0; prompt[i] != '\0'; i++) {
        ids[i] = (uint8_t) prompt[i];
        if (prompt[i] == '|') {
            ids[i] = token_eos(t); /* ends a turn */
        }
    }
    reason_begin(r, ids, i, go_on, &st);
    feed(r, &st, text, strlen(text));
    (void) end(r, &st);
    reason_close(r);
    token_close(t);

    return got;
}

static void
test_prompt(void **state)
{
    (void) state;
    assert_string_equal(after("think", "a|assistant\n", 0, "b"), "b");
    assert_string_equal(
        after("think", "a|assistant\n<think>\n", 0, "\nb</think>c"), "{b}c");
    assert_string_equal(
        after("think", "a|assistant\n<think>\n\n</think>\n\n", 0, "<think>b"),
        "<think>b");
    assert_string_equal(
        after("think", "Say <think>|assistant\n", 0, "b</think>"), "b</think>");
    assert_string_equal(
        after("think", "Say <think> aassistant\n", 0, "<think>b"), "{b}");
    assert_string_equal(after("apriel", "|Here are my reasoning steps:\n", 0,
                            "b\n[BEGIN FINAL RESPONSE]\nc"),
        "{b}c");

    /* a message that goes on */
    assert_string_equal(
        after("think", "a|assistant\n<think>x y", 1, " z</think>b"), "{ z}b");
    assert_string_equal(
        after("think", "a|assistant\n<think>x</think>y", 1, "z</think>"),
        "z</think>");
    assert_string_equal(
        after("think", "a<think>|assistant\ny", 1, "<think>z"), "<think>z");
    assert_string_equal(
        after("think", "a|assistant\n<think>\n\n</think>\n\n<think>y", 1, "z"),
        "{z}");
}

/* --- marks that are control tokens --------------------------------------- */

enum { START = 258, CHANNEL, MESSAGE, END, OPEN, CLOSE };

static token_t *
control_open(file_t *f, gguf_t **g)
{
    static const char *const names[] = {"<s>", "</s>", "<|start|>",
        "<|channel|>", "<|message|>", "<|end|>", "[THINK]", "[/THINK]"};
    static char bytes[256][8];
    piece_t v[264];
    token_t *t;
    uint32_t i;

    for (i = 0; i < 256; i++) {
        (void) snprintf(bytes[i], sizeof(bytes[i]), "<0x%02X>", i);
        v[i] = (piece_t){bytes[i], 0, 6};
    }
    for (i = 0; i < 8; i++) {
        v[256 + i] = (piece_t){names[i], 0, 3};
    }
    file_vocab(f, v, 264);
    file_done(f);
    *g = gguf_open_mem(f->p, f->n, "marks", err, sizeof(err));
    assert_non_null(*g);
    t = token_open_gguf(*g, err, sizeof(err));
    assert_non_null(t);

    return t;
}

/* Capitals stand for control tokens; what is counted comes behind. */
static const char *
told(const reason_t *r, const char *prompt, const char *text, int go_on)
{
    static char buf[4200];
    static const char letters[] = "SCMEOX";
    uint32_t ids[256], was, thought = 0;
    reason_state_t st;
    const char *at;
    size_t i;

    for (i = 0; prompt[i] != '\0'; i++) {
        at = strchr(letters, prompt[i]);
        ids[i] = at != NULL ? START + (uint32_t) (at - letters)
                            : (uint8_t) prompt[i];
    }
    reason_begin(r, ids, i, go_on, &st);

    for (i = 0; text[i] != '\0'; i++) {
        was = reason_counts(&st);
        at = strchr(letters, text[i]);
        if (at == NULL) {
            feed(r, &st, text + i, 1);
        } else if (reason_is_mark(r, &st, START + (uint32_t) (at - letters))) {
            assert_int_equal(
                reason_mark(r, &st, START + (uint32_t) (at - letters),
                    take_piece, NULL),
                0);
        }
        thought += reason_count(&st, was);
    }
    (void) snprintf(buf, sizeof(buf), "%s %u", end(r, &st), thought);

    return buf;
}

static void
test_harmony(void **state)
{
    file_t f;
    gguf_t *g;
    token_t *t = control_open(&f, &g), *null = token_open_null();
    reason_t *r;

    (void) state;
    assert_false(token_is_end(t, END)); /* the answer comes behind it */
    assert_int_equal(
        reason_open(&r, "auto", "a<|channel|>b", 13, t, err, sizeof(err)), 0);
    assert_string_equal(reason_name(r), "harmony");

    assert_string_equal(
        told(r, "EuMhiESassistant", "CanalysisMa\nbESassistantCfinalMc", 0),
        "{a\nb}c 14");
    assert_string_equal(told(r, "EuMhiESassistant", "CfinalMc", 0), "c 0");
    assert_string_equal(told(r, "ESassistant",
                            "CanalysisMaESassistantCanalysisMbESassistant"
                            "CfinalMc",
                            0),
        "{a\nb}c 34");
    assert_string_equal(
        told(r, "ESassistant",
            "CanalysisMaESassistant to=functions.fCcommentary jsonM{}", 0),
        "{a}assistant to=functions.fcommentary json{} 12");
    /* names of functions are long */
    assert_string_equal(
        told(r, "ESassistant",
            "Ccommentary to=functions.a_name_that_is_long_and_then_is_longer_"
            "still_as_names_may_be jsonM{}",
            0),
        "assistantcommentary to=functions.a_name_that_is_long_and_then_is_"
        "longer_still_as_names_may_be json{} 0");
    assert_string_equal(told(r, "ESassistant", "CanalysisMa", 0), "{a} 11");
    assert_string_equal(told(r, "ESassistant", "Canal", 0), " 0");
    assert_string_equal(told(r, "", "no header", 0), "no header 0");
    assert_string_equal(told(r, "ESassistantCfinalMx", "yE", 1), "y 0");
    assert_string_equal(
        told(r, "ESassistantCanalysisMx", "yESassistantCfinalMz", 1), "{y}z 2");
    reason_close(r);

    /* a model without these tokens is not of the family */
    assert_int_equal(
        reason_open(&r, "auto", "<|channel|>", 11, null, err, sizeof(err)), 0);
    assert_null(r);
    assert_int_equal(
        reason_open(&r, "harmony", NULL, 0, null, err, sizeof(err)), -1);
    assert_non_null(strstr(err, "control tokens"));

    r = family("magistral", t);
    assert_string_equal(told(r, "a", "OabXc", 0), "{ab}c 4");
    assert_string_equal(told(r, "a", " Oa\nX\nOc", 0), "{a}c 5");
    assert_string_equal(told(r, "aO", "bXc", 0), "{b}c 2");
    assert_string_equal(told(r, "aOX", "bXc", 0), "bc 0");
    assert_string_equal(told(r, "a", "bOcX", 0), "bc 0");
    reason_close(r);

    token_close(t);
    token_close(null);
    gguf_close(g);
    free(f.p);
}

static void
test_counts(void **state)
{
    static const struct {
        const char *text;
        uint32_t n;
    } c[] = {{"<think>ab</think>c", 17}, {"<thinx", 0}, {" \n<think>a", 10},
        {"abc", 0}, {"<think></think>\n\nb", 15}};
    token_t *t = token_open_null();
    reason_t *r = family("think", t);
    reason_state_t st;
    uint32_t was, n;
    size_t i, k;

    (void) state;
    for (i = 0; i < sizeof(c) / sizeof(c[0]); i++) {
        reason_begin(r, NULL, 0, 0, &st);
        for (k = 0, n = 0; c[i].text[k] != '\0'; k++) {
            was = reason_counts(&st);
            feed(r, &st, c[i].text + k, 1);
            n += reason_count(&st, was);
        }
        (void) end(r, &st);
        assert_int_equal(n, c[i].n);
    }

    /* one token that begins and ends it */
    reason_begin(r, NULL, 0, 0, &st);
    was = reason_counts(&st);
    feed(r, &st, "<think>a</think>b", 17);
    assert_int_equal(reason_count(&st, was), 1);
    assert_string_equal(end(r, &st), "{a}b");
    reason_close(r);
    token_close(t);
}

/* --- which family it is --------------------------------------------------- */

static void
test_names(void **state)
{
    static const struct {
        const char *file, *name;
    } c[] = {{"Qwen-Qwen3-0.6B", "think"}, {"Qwen-QwQ-32B", "think"},
        {"deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", "think"},
        {"HuggingFaceTB-SmolLM3-3B", "think"}, {"GLM-4.6", "think"},
        {"StepFun3.5-Flash", "think"},
        {"NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "think"},
        {"ibm-granite-granite-3.3-2B-Instruct", "granite"},
        {"CohereForAI-c4ai-command-r7b-12-2024-tool_use", "command"},
        {"Apriel-1.6-15b-Thinker-fixed", "apriel"},
        {"openai-gpt-oss-120b", "harmony"}, {"vicuna", NULL},
        {"meta-llama-Llama-3.1-8B-Instruct", NULL}};
    file_t f;
    gguf_t *g;
    token_t *t = control_open(&f, &g), *null = token_open_null();
    char path[128], *src;
    size_t i, len, found = 0;
    reason_t *r;

    (void) state;
    assert_int_equal(
        reason_open(&r, "thing", NULL, 0, null, err, sizeof(err)), -1);
    assert_non_null(strstr(err, "found \"thing\""));
    assert_int_equal(
        reason_open(&r, "off", "<think></think>", 15, null, err, sizeof(err)),
        0);
    assert_null(r);
    assert_int_equal(
        reason_open(&r, "auto", "x", 1, null, err, sizeof(err)), 0);
    assert_null(r);

    /* by the vocabulary alone */
    assert_int_equal(reason_open(&r, "auto", "x", 1, t, err, sizeof(err)), 0);
    assert_string_equal(reason_name(r), "magistral");
    reason_close(r);

    for (i = 0; i < sizeof(c) / sizeof(c[0]); i++) {
        (void) snprintf(
            path, sizeof(path), "chat-templates/%s.jinja", c[i].file);
        src = jinja_test_file(path, &len);
        if (src == NULL) {
            continue;
        }
        assert_int_equal(reason_open(&r, "auto", src, len, i == 10 ? t : null,
                             err, sizeof(err)),
            0);
        if (c[i].name == NULL) {
            assert_null(r);
        } else {
            assert_non_null(r);
            assert_string_equal(reason_name(r), c[i].name);
        }
        reason_close(r);
        free(src);
        found++;
    }
    token_close(t);
    token_close(null);
    gguf_close(g);
    free(f.p);
    if (found == 0) {
        skip();
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_prompt),
        cmocka_unit_test(test_harmony),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
