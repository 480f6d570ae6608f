/*
 * Would catch: a call that is missed, taken for one, or comes out otherwise
 * for some way of cutting its text; text lost around one; arguments that are
 * not the bytes that the model wrote; a parameter of a wrong type.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tools.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char err[512];

/* What came: text as it is, calls as [name|arguments]. */
static char got[65536];
static size_t got_n;
static uint32_t got_kind;

static void
turn(uint32_t kind)
{
    if (kind == got_kind) {
        return;
    }
    if (got_kind == LLM_TEXT_ARGUMENTS) {
        got[got_n++] = ']';
    }
    if (kind == LLM_TEXT_ARGUMENTS) {
        assert_int_equal(got_kind, LLM_TEXT_CALL);
        got[got_n++] = '|';
    }
    if (kind == LLM_TEXT_CALL) {
        got[got_n++] = '[';
    }
    got_kind = kind;
}

static int
take_piece(void *arg, uint32_t kind, const char *p, size_t n)
{
    assert_null(arg);
    assert_true(kind < LLM_TEXTS && kind != LLM_TEXT_REASONING);
    assert_true(n > 0 && got_n + n + 4 < sizeof(got));
    turn(kind);
    memcpy(got + got_n, p, n);
    got_n += n;

    return 0;
}

static const char tools[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{"
    "\"type\":\"object\",\"properties\":{\"s\":{\"type\":\"string\"},"
    "\"i\":{\"type\":\"integer\"},\"n\":{\"type\":[\"number\",\"null\"]},"
    "\"b\":{\"type\":\"boolean\"},\"o\":{\"type\":\"object\"},"
    "\"a\":{\"type\":\"array\"},\"x\":{\"anyOf\":[{\"type\":\"string\"},"
    "{\"type\":\"number\"}]},\"e\":{\"enum\":[1,2]}}}}},"
    "{\"type\":\"function\",\"function\":{\"name\":\"get.it\"}}]";

typedef struct {
    const char *name, *text, *want;
    int called; /* 2: and only one is wanted */
} row_t;

#define DS(a, b) "<\xef\xbd\x9ctool\xe2\x96\x81" a b "\xef\xbd\x9c>"
#define U        "\xe2\x96\x81"

static const row_t rows[] = {
    /* Hermes, Qwen */
    {"hermes",
        "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"s\": \"a}\\\"\", "
        "\"i\": [1, {}]}}\n</tool_call>",
        "[f|{\"s\": \"a}\\\"\", \"i\": [1, {}]}]", 1},
    {"hermes",
        "Let me see.\n\n<tool_call>{\"name\":\"f\",\"arguments\":{}}"
        "</tool_call>\n<tool_call>{\"name\":\"g\",\"arguments\": "
        "{ \"a\" : 1 } }</tool_call>\n",
        "Let me see.[f|{}][g|{ \"a\" : 1 }]", 1},
    {"hermes",
        "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>"
        "<tool_call>{\"name\":\"g\",\"arguments\":{}}</tool_call>x",
        "[f|{}]", 2},
    {"hermes",
        "<tool_call>\n{\"arguments\": {\"a\": {\"name\": 1}}, \"name\": "
        "\"f\"}\n</tool_call>",
        "[f|{\"a\": {\"name\": 1}}]", 1},
    {"hermes",
        "<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"s\\\": "
        "\\\"\\u00e9\\ud83d\\ude00\\\\n\\\"}\", \"id\": \"x{\"}</tool_call>",
        "[f|{\"s\": \"\xc3\xa9\xf0\x9f\x98\x80\\n\"}]", 1},
    {"hermes",
        "<tool_call>{\"arguments\": \"{\\\"a\\\":1}\", \"name\": \"f\"}"
        "</tool_call>",
        "[f|{\"a\":1}]", 1},
    {"hermes", "<tool_call>{\"name\": \"f\"}</tool_call>", "[f|{}]", 1},
    {"hermes", "<tool_call>{\"name\":\"f\",\"arguments\":null}</tool_call>",
        "[f|{}]", 1},
    {"hermes", "<tool_call>{\"name\":\"f\",\"arguments\":\"\"}</tool_call>",
        "[f|{}]", 1},
    {"hermes",
        "<tool_call>{\"type\":\"function\",\"function\":{\"name\":\"f\","
        "\"arguments\":{\"a\":1}}}</tool_call>",
        "[f|{\"a\":1}]", 1},
    {"hermes", "<tool_call>{\"name\":\"f\",\"arguments\":{}}", "[f|{}]", 1},
    {"hermes", "<tool_call>{\"name\":\"f\",\"arguments\":{}", "[f|{}]", 1},
    {"hermes", "<tool_call>{\"name\":\"f\",\"arguments\":{\"a", "[f|{\"a]", 0},
    {"hermes", "<tool_call>{\"name\":\"f\",\"argu",
        "<tool_call>{\"name\":\"f\",\"argu", 0},
    {"hermes", "<tool_call>\nis a mark</tool_call>",
        "<tool_call>\nis a mark</tool_call>", 0},
    {"hermes", "<tool_call>{\"name\": 1}", "<tool_call>{\"name\": 1}", 0},
    {"hermes", "<tool_call>{\"name\":\"a b\"}", "<tool_call>{\"name\":\"a b\"}",
        0},
    {"hermes", "a <tool <tool_cal b", "a <tool <tool_cal b", 0},
    {"hermes", "<<tool_call><tool_call>{\"name\":\"f\",\"arguments\":{}}",
        "<<tool_call>[f|{}]", 1},
    {"hermes", "{\"name\": \"f\", \"arguments\": {}}",
        "{\"name\": \"f\", \"arguments\": {}}", 0},
    {"hermes",
        "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\nDone.",
        "[f|{}]\nDone.", 1},
    {"hermes", "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool", "[f|{}]",
        1},
    {"hermes", "plain \xc3\xa9\n", "plain \xc3\xa9\n", 0},
    {"hermes", "", "", 0},
    /* Llama */
    {"llama", "{\"name\": \"f\", \"parameters\": {\"s\": \"x\"}}",
        "[f|{\"s\": \"x\"}]", 1},
    {"llama",
        "\n{\"type\": \"function\", \"name\": \"f\", \"parameters\": {}}; "
        "{\"name\": \"get.it\", \"parameters\": {\"a\": 1}}",
        "[f|{}][get.it|{\"a\": 1}]", 1},
    {"llama", "<|python_tag|>{\"name\": \"z\", \"parameters\": {}}", "[z|{}]",
        1},
    {"llama", "{\"name\": \"z\", \"parameters\": {}}",
        "{\"name\": \"z\", \"parameters\": {}}", 0},
    {"llama", "{\"name\": \"f\"}", "{\"name\": \"f\"}", 0},
    {"llama", "{\"city\": {\"name\": \"f\"}}", "{\"city\": {\"name\": \"f\"}}",
        0},
    {"llama", "See: {\"name\": \"f\", \"parameters\": {}}",
        "See: {\"name\": \"f\", \"parameters\": {}}", 0},
    {"json",
        "[{\"name\": \"f\", \"arguments\": {}}, {\"name\": \"f\", "
        "\"parameters\": {\"i\": 2}}]",
        "[f|{}][f|{\"i\": 2}]", 1},
    {"json", "[1, 2]", "[1, 2]", 0},
    /* Mistral */
    {"mistral",
        "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"s\": \"]\"}, "
        "\"id\": \"123456789\"}, {\"name\": \"g\", \"arguments\": {}}]",
        "[f|{\"s\": \"]\"}][g|{}]", 1},
    {"mistral",
        "Hm.[TOOL_CALLS]f[ARGS]{\"s\": \"{\"}[TOOL_CALLS]get.it[CALL_ID]"
        "a1[ARGS]{}",
        "Hm.[f|{\"s\": \"{\"}][get.it|{}]", 1},
    {"mistral", "[TOOL_CALLS] f {}", "[f|{}]", 1},
    {"mistral", "[TOOL_CALLS] []", "[TOOL_CALLS] []", 0},
    {"mistral", "[TOOL_C", "[TOOL_C", 0},
    /* DeepSeek, Kimi */
    {"deepseek",
        "a\n" DS("calls" U, "begin") DS("call" U, "begin") "function" DS(
            "", "sep") "f\n```json\n{\"s\": 1}\n```" DS("call" U,
            "end") "\n" DS("call" U, "begin") "function" DS("",
            "sep") "get.it\n```json\n{}\n```" DS("call" U, "end")
            DS("calls" U, "end"),
        "a[f|{\"s\": 1}][get.it|{}]", 1},
    {"deepseek",
        DS("calls" U, "begin") DS("call" U, "begin") "f" DS(
            "", "sep") "{\"s\": 1}" DS("call" U, "end") DS("calls" U, "end"),
        "[f|{\"s\": 1}]", 1},
    {"kimi",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0"
        "<|tool_call_argument_begin|>{\"a\": 1}<|tool_call_end|>"
        "<|tool_call_begin|>functions.get.it:1<|tool_call_argument_begin|>{}"
        "<|tool_call_end|><|tool_calls_section_end|>",
        "[f|{\"a\": 1}][get.it|{}]", 1},
    /* lists */
    {"granite", "<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"a\": 1}}]",
        "[f|{\"a\": 1}]", 1},
    {"phi-4", "functools[{\"name\": \"f\", \"arguments\": {\"a\": 1}}]",
        "[f|{\"a\": 1}]", 1},
    {"phi-4",
        "<|tool_call|>[{\"name\": \"f\", \"arguments\": {}}]<|/tool_call|>",
        "[f|{}]", 1},
    {"apriel",
        "<tool_calls>[{\"name\": \"f\", \"arguments\": {}, \"id\": 1}]"
        "</tool_calls>",
        "[f|{}]", 1},
    {"nemotron", "<TOOLCALL>[{\"name\": \"f\", \"arguments\": {}}]</TOOLCALL>",
        "[f|{}]", 1},
    /* GPT-OSS: a header as reason.c hands it on, control tokens gone */
    {"harmony", "commentary to=functions.f json{\"a\": 1}", "[f|{\"a\": 1}]",
        1},
    {"harmony", "assistant to=functions.fcommentary{\"a\": 1}",
        "[f|{\"a\": 1}]", 1},
    {"harmony", "assistantcommentary to=functions.get.it{}", "[get.it|{}]", 1},
    {"harmony", "a commentary", "a commentary", 0},
    /* Qwen3-Coder */
    {"qwen-coder",
        "<tool_call>\n<function=f>\n<parameter=s>\n12\n</parameter>\n"
        "<parameter=i>\n12\n</parameter>\n<parameter=n>\n-1.5e3\n"
        "</parameter>\n<parameter=b>\nTrue\n</parameter>\n<parameter=o>\n"
        "{\"a\": \"<\"}\n</parameter>\n<parameter=a>[1]</parameter>\n"
        "</function>\n</tool_call>",
        "[f|{\"s\": \"12\", \"i\": 12, \"n\": -1.5e3, \"b\": true, \"o\": "
        "{\"a\": \"<\"}, \"a\": [1]}]",
        1},
    {"qwen-coder",
        "ok\n<function=f>\n<parameter=s>\na\n\"b\"\n</para\n\t</parameter>\n"
        "<parameter=n>null</parameter><parameter=i>\n012\n</parameter>"
        "<parameter=x>5</parameter><parameter=e>2</parameter>"
        "<parameter=u>7</parameter></function>",
        "ok[f|{\"s\": \"a\\n\\\"b\\\"\\n</para\\n\\u0009\", \"n\": null, "
        "\"i\": \"012\", \"x\": 5, \"e\": 2, \"u\": \"7\"}]",
        1},
    {"qwen-coder", "<tool_call>\n<function=get.it>\n</function>\n</tool_call>",
        "[get.it|{}]", 1},
    {"qwen-coder", "<tool_call>\n<functio", "<tool_call>\n<functio", 0},
    {"qwen-coder", "<tool_call>\n<b>x", "<tool_call>\n<b>x", 0},
    {"qwen-coder", "<function=f>\n<parameter=s>\nab", "[f|{\"s\": \"ab]", 0},
    {"qwen-coder", "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>",
        "[f|{}]", 1},
    {"glm",
        "<tool_call>f\n<arg_key>s</arg_key>\n<arg_value>a b</arg_value>\n"
        "<arg_key>i</arg_key>\n<arg_value>3</arg_value>\n</tool_call>\n"
        "<tool_call>get.it</tool_call>",
        "[f|{\"s\": \"a b\", \"i\": 3}][get.it|{}]", 1},
};

static tools_family_t *
family(const char *name, const token_t *t)
{
    tools_family_t *f;

    assert_int_equal(
        tools_family_open(&f, name, NULL, 0, t, err, sizeof(err)), 0);
    assert_non_null(f);
    assert_string_equal(tools_family_name(f), name);

    return f;
}

static void
feed(tools_t *t, const char *p, size_t n)
{
    assert_int_equal(tools_feed(t, 0, p, n, 0, take_piece, NULL), 0);
}

static const char *
end(tools_t *t)
{
    assert_int_equal(tools_end(t, 0, take_piece, NULL), 0);
    turn(LLM_TEXT_ANSWER);
    got[got_n] = '\0';
    got_n = 0;

    return got;
}

/* Every cut into two and into single bytes. */
static void
test_cuts(void **state)
{
    token_t *tok = token_open_null();
    tools_family_t *f;
    tools_t *t;
    size_t i, k, n, at;

    (void) state;
    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        f = family(rows[i].name, tok);
        n = strlen(rows[i].text);
        for (k = 0; k <= n + 1; k++) {
            t = tools_open(f, tools, sizeof(tools) - 1, 1, rows[i].called == 2);
            assert_non_null(t);
            if (k <= n) {
                feed(t, rows[i].text, k);
                feed(t, rows[i].text + k, n - k);
            }
            for (at = 0; k > n && at < n; at++) {
                feed(t, rows[i].text + at, 1);
            }
            assert_int_equal(tools_over(t, 0), rows[i].called == 2);
            assert_string_equal(end(t), rows[i].want);
            assert_int_equal(tools_called(t, 0), rows[i].called != 0);
            tools_close(t);
        }
        tools_family_close(f);
    }
    token_close(tok);
}

/* What does not fit is text, and none of it is lost. */
static void
test_long(void **state)
{
    token_t *tok = token_open_null();
    tools_family_t *f = family("hermes", tok);
    static const char head[] = "<tool_call>{\"arguments\": {\"a\": \"";
    size_t n = 3 * TOOLS_HELD_MAX, i;
    char *text = malloc(n + 1);
    tools_t *t;

    (void) state;
    memset(text, 'x', n);
    memcpy(text, head, sizeof(head) - 1);
    text[n] = '\0';
    t = tools_open(f, "[]", 2, 1, 0);
    feed(t, text, n);
    assert_string_equal(end(t), text);
    tools_close(t);

    /* arguments behind the name may be of any length */
    memcpy(text, "<tool_call>{\"name\": \"f\", \"arguments\": {\"", 40);
    t = tools_open(f, "nonsense", 8, 1, 0);
    for (i = 0; i < n; i += 7) {
        feed(t, text + i, n - i < 7 ? n - i : 7);
    }
    assert_int_equal(strlen(end(t)), n - 38 + 4);
    assert_int_equal(tools_called(t, 0), 0);
    tools_close(t);

    /* so may white space behind a call, and is nothing */
    memset(text, '\n', n);
    t = tools_open(f, "[]", 2, 1, 0);
    feed(t, "<tool_call>{\"name\":\"f\"}", 23);
    feed(t, text, n);
    assert_string_equal(end(t), "[f|{}]");
    tools_close(t);

    free(text);
    tools_family_close(f);
    token_close(tok);
}

/* A mark that is a token has no text if it proves to be none. */
static void
test_mark(void **state)
{
    token_t *tok = token_open_null();
    tools_family_t *f = family("llama", tok);
    tools_t *t = tools_open(f, "[]", 2, 1, 0);

    (void) state;
    feed(t, "a ", 2);
    assert_int_equal(
        tools_feed(t, 0, "<|python_tag|>", 14, 1, take_piece, NULL), 0);
    feed(t, "print(1)", 8);
    assert_string_equal(end(t), "a print(1)");
    tools_close(t);
    tools_family_close(f);
    token_close(tok);
}

static void
test_names(void **state)
{
    token_t *tok = token_open_null();
    tools_family_t *f;

    (void) state;
    assert_int_equal(
        tools_family_open(&f, "off", "<tool_call>", 11, tok, err, sizeof(err)),
        0);
    assert_null(f);
    assert_int_equal(
        tools_family_open(&f, "auto", "hello", 5, tok, err, sizeof(err)), 0);
    assert_null(f);
    assert_int_equal(
        tools_family_open(&f, "auto", NULL, 0, tok, err, sizeof(err)), 0);
    assert_null(f);
    assert_int_equal(
        tools_family_open(&f, "qwen", NULL, 0, tok, err, sizeof(err)), -1);
    assert_non_null(strstr(err, "expected auto, off, deepseek, "));
    assert_non_null(strstr(err, "found \"qwen\""));
    token_close(tok);
}

/* Published templates say themselves how their models call. */
static void
test_templates(void **state)
{
    static const struct {
        const char *file, *family;
    } known[] = {
        {"Qwen-Qwen2.5-7B-Instruct", "hermes"},
        {"Qwen-Qwen3-0.6B", "hermes"},
        {"NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use", "hermes"},
        {"MiMo-VL", "hermes"},
        {"Qwen3-Coder", "qwen-coder"},
        {"NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "qwen-coder"},
        {"GLM-4.6", "glm"},
        {"meta-llama-Llama-3.1-8B-Instruct", "llama"},
        {"meta-llama-Llama-3.2-3B-Instruct", "llama"},
        {"mistralai-Mistral-Nemo-Instruct-2407", "mistral"},
        {"Mistral-Small-3.2-24B-Instruct-2506", "mistral"},
        {"deepseek-ai-DeepSeek-R1-Distill-Llama-8B", "deepseek"},
        {"deepseek-ai-DeepSeek-V3.1", "deepseek"},
        {"Kimi-K2-Instruct", "kimi"},
        {"openai-gpt-oss-120b", "harmony"},
        {"ibm-granite-granite-3.3-2B-Instruct", "granite"},
        {"fireworks-ai-llama-3-firefunction-v2", "phi-4"},
        {"Apriel-1.6-15b-Thinker-fixed", "apriel"},
        {"google-gemma-2-2b-it", NULL},
        {"alpaca", NULL},
    };
    const char *data = getenv("LLM_DATA");
    static char source[256 << 10];
    token_t *tok = token_open_null();
    tools_family_t *f;
    char path[512];
    size_t i, n, seen = 0;
    FILE *file;

    (void) state;
    for (i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        snprintf(path, sizeof(path), "%s/chat-templates/%s.jinja",
            data != NULL ? data : "../shared/data", known[i].file);
        file = fopen(path, "r");
        if (file == NULL) {
            continue;
        }
        n = fread(source, 1, sizeof(source), file);
        fclose(file);
        assert_int_equal(
            tools_family_open(&f, "auto", source, n, tok, err, sizeof(err)), 0);
        if (f == NULL ? known[i].family != NULL
                      : known[i].family == NULL
                            || strcmp(tools_family_name(f), known[i].family)) {
            fail_msg("%s: %s", known[i].file,
                f != NULL ? tools_family_name(f) : "none");
        }
        tools_family_close(f);
        seen++;
    }
    token_close(tok);
    if (seen == 0) {
        skip();
    }
    printf("%zu templates\n", seen);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_long),
        cmocka_unit_test(test_mark),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_templates),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
