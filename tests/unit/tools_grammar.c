/*
 * Would catch: a text that the grammar of a family's calls admits and its
 * parser does not read as exactly those calls, or whose arguments the schema
 * refuses; a call that obeys and is refused; a schema that cannot be enforced
 * and is thought to be; free text that is held to a form.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "brief.h"
#include "calls_test.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DS(a, b) "<\xef\xbd\x9ctool\xe2\x96\x81" a b "\xef\xbd\x9c>"
#define U        "\xe2\x96\x81"

static calls_t want;

/* --- families ----------------------------------------------------------- */

/* How a text is read here: what opens calls, and what is between a name and its
 * arguments; what else the walks like to write. */
typedef struct {
    const char *name;
    const char *opens[3];
    enum { OBJECTS, NAMED, CODER, GLM } kind;
    const char *likes[6];
} family_t;

static const family_t families[] = {
    {"hermes", {"<tool_call>"}, OBJECTS, {"</tool_call>"}},
    {"granite", {"<|tool_call|>", "<tool_call>"}, OBJECTS, {"</tool_call>"}},
    {"phi-4", {"functools[", "<|tool_call|>"}, OBJECTS, {"<|/tool_call|>"}},
    {"apriel", {"<tool_calls>"}, OBJECTS, {"</tool_calls>"}},
    {"nemotron", {"<TOOLCALL>"}, OBJECTS, {"</TOOLCALL>"}},
    {"llama", {"<|python_tag|>"}, OBJECTS, {"; {"}},
    {"json", {NULL}, OBJECTS, {"[{"}},
    {"mistral", {"[TOOL_CALLS]"}, OBJECTS, {"[CALL_ID]", "[ARGS]"}},
    {"deepseek", {DS("calls" U, "begin"), DS("call" U, "begin")}, NAMED,
        {DS("call" U, "end"), DS("calls" U, "end"), DS("", "sep"), "function"}},
    {"kimi", {"<|tool_calls_section_begin|>", "<|tool_call_begin|>"}, NAMED,
        {"<|tool_call_end|>", "<|tool_calls_section_end|>"}},
    {"harmony", {"to=functions."}, NAMED, {"commentary ", " json"}},
    {"qwen-coder", {"<tool_call>", "<function="}, CODER,
        {"</function>", "</parameter>", "<parameter=", "</tool_call>"}},
    {"glm", {"<tool_call>"}, GLM,
        {"</arg_value>", "</tool_call>", "<arg_key>", "<arg_value>"}},
};

#define FAMILIES (sizeof(families) / sizeof(families[0]))

/* --- read here ---------------------------------------------------------- */

static int
white(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

/* Behind the value whose bracket p is at. */
static const char *
value_end(const char *p, const char *end)
{
    int depth = 0, quoted = 0;

    for (; p < end; p++) {
        if (quoted) {
            quoted = *p != '"';
            p += *p == '\\';
        } else if (*p == '"') {
            quoted = 1;
        } else if (*p == '{' || *p == '[') {
            depth++;
        } else if ((*p == '}' || *p == ']') && --depth == 0) {
            return p + 1;
        }
    }
    fail_msg("a value without end");

    return NULL;
}

static const char *
find(const char *p, const char *end, const char *s)
{
    const char *at = memmem(p, (size_t) (end - p), s, strlen(s));

    assert_non_null(at);

    return at + strlen(s);
}

static void
call_args(call_t *x, const char *from, const char *to)
{
    memcpy(x->args, from, (size_t) (to - from));
    x->args_n = (size_t) (to - from);
}

/* {"name": "f", "arguments": {..}, ..}; behind it. */
static const char *
read_object(const char *p, const char *end)
{
    const char *to = value_end(p, end), *at, *q;
    call_t *x = call_new(&want);

    at = find(p, to, "\"name\"");
    at = find(at, to, "\"");
    q = find(at, to, "\"");
    memcpy(x->name, at, (size_t) (q - 1 - at));
    x->name[q - 1 - at] = '\0';
    at = find(q, to, "\"");
    assert_true(strncmp(at, "arguments\"", 10) == 0
                || strncmp(at, "parameters\"", 11) == 0);
    at = find(at, to, "{") - 1;
    call_args(x, at, value_end(at, to));

    return to;
}

/* The longest declared name within a header; arguments behind it. */
static const char *
read_named(const char *p, const char *end, const json_t *tools)
{
    const char *at = find(p, end, "{") - 1, *to = value_end(at, end), *name;
    call_t *x = call_new(&want);
    size_t i;

    for (i = 0; i < json_array_size(tools); i++) {
        name = json_string_value(json_object_get(
            json_object_get(json_array_get(tools, i), "function"), "name"));
        if (memmem(p, (size_t) (at - p), name, strlen(name)) != NULL
            && strlen(name) > strlen(x->name)) {
            strcpy(x->name, name);
        }
    }
    assert_true(x->name[0] != '\0');
    call_args(x, at, to);

    return to;
}

/* A value between marks, as the schema's types say; appended as JSON. */
static void
read_value(
    json_t *args, const json_t *s, const char *key, const char *p, size_t n)
{
    const char *type = json_string_value(json_object_get(s, "type"));
    json_t *v;

    if (n > 0 && *p == '\n') {
        p++;
        n--;
    }
    if (n > 0 && p[n - 1] == '\n') {
        n--;
    }
    v = type != NULL && strcmp(type, "string") == 0
            ? NULL
            : json_loadb(p, n, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    if (v == NULL) {
        v = json_stringn(p, n);
    }
    assert_non_null(v);
    json_object_set_new(args, key, v);
}

/* Elements; behind the last. */
static const char *
read_elements(const char *p, const char *end, const json_t *tools, int coder)
{
    const char *at, *q, *last;
    call_t *x = call_new(&want);
    json_t *args = json_object(), *f = NULL, *props;
    char key[64], *s;
    size_t i;

    if (coder) {
        p = find(p, end, "<function=");
    }
    for (; white(*p); p++) {
    }
    for (q = p; q < end && *q != '>' && *q != '<' && *q != '\n'; q++) {
    }
    memcpy(x->name, p, (size_t) (q - p));
    x->name[q - p] = '\0';
    for (i = 0; i < json_array_size(tools); i++) {
        f = json_object_get(json_array_get(tools, i), "function");
        if (!strcmp(x->name, json_string_value(json_object_get(f, "name")))) {
            break;
        }
    }
    props = json_object_get(json_object_get(f, "parameters"), "properties");
    for (p = q;;) {
        last = coder ? "</function>" : "</tool_call>";
        at = memmem(p, (size_t) (end - p), last, strlen(last));
        assert_non_null(at);
        q = memmem(p, (size_t) (end - p), coder ? "<parameter=" : "<arg_key>",
            coder ? 11 : 9);
        if (q == NULL || q > at) {
            break;
        }
        p = find(q, end, coder ? "=" : ">");
        q = find(p, end, coder ? ">" : "</arg_key>");
        at = q - (coder ? 1 : 10);
        memcpy(key, p, (size_t) (at - p));
        key[at - p] = '\0';
        if (!coder) {
            q = find(q, end, "<arg_value>");
        }
        p = find(q, end, coder ? "</parameter>" : "</arg_value>");
        read_value(args, json_object_get(props, key), key, q,
            (size_t) (p - q) - (coder ? 12 : 12));
    }
    s = json_dumps(args, 0);
    call_args(x, s, s + strlen(s));
    free(s);
    json_decref(args);

    return at + strlen(last);
}

static const char *
over(const char *p, const char *end, const char *s)
{
    for (; p != NULL && p < end && white(*p); p++) {
    }

    return p == NULL || (size_t) (end - p) < strlen(s)
                   || memcmp(p, s, strlen(s)) != 0
               ? NULL
               : p + strlen(s);
}

/* Does a text begin as a call without a mark does? */
static int
is_bare(const json_t *tools, const char *p, const char *end)
{
    const char *at = over(p, end, "["), *q, *name;
    size_t i;

    p = over(at != NULL ? at : p, end, "{");
    q = over(
        over(over(over(p, end, "\"type\""), end, ":"), end, "\"function\""),
        end, ",");
    p = over(
        over(over(q != NULL ? q : p, end, "\"name\""), end, ":"), end, "\"");
    for (i = 0; p != NULL && i < json_array_size(tools); i++) {
        name = json_string_value(json_object_get(
            json_object_get(json_array_get(tools, i), "function"), "name"));
        if ((size_t) (end - p) > strlen(name)
            && memcmp(p, name, strlen(name)) == 0 && p[strlen(name)] == '"') {
            return 1;
        }
    }

    return 0;
}

/* All calls of a text that the grammar admitted. */
static void
read_text(const family_t *f, const json_t *tools, const char *p, size_t n)
{
    const int bare =
        strcmp(f->name, "llama") == 0 || strcmp(f->name, "json") == 0;
    const char *end = p + n, *at, *q, *first, *behind = p;
    size_t i;
    int list;

    want.n = 0;
    for (at = p;;) {
        /* the first mark from here on */
        first = NULL;
        for (i = 0; i < 3 && f->opens[i] != NULL; i++) {
            q = memmem(
                at, (size_t) (end - at), f->opens[i], strlen(f->opens[i]));
            if (q != NULL && (first == NULL || q < first)) {
                first = q;
                behind = q + strlen(f->opens[i]);
            }
        }
        if (at == p && bare && is_bare(tools, p, end)) {
            first = behind = p;
        }
        if (first == NULL) {
            return;
        }
        q = behind;
        if (f->kind == CODER && q[-1] == '=') {
            q = first;
        }
        at = q;
        if (f->kind == NAMED) {
            at = read_named(at, end, tools);
            continue;
        }
        if (f->kind == CODER || f->kind == GLM) {
            at = read_elements(at, end, tools, f->kind == CODER);
            continue;
        }
        list = q > p && q[-1] == '[';
        for (; white(*at); at++) {
        }
        if (strcmp(f->name, "mistral") == 0 && *at != '[') {
            at = read_named(at, end, tools);
            continue;
        }
        list |= *at == '[';
        at += *at == '[';
        for (;;) {
            for (; at < end && white(*at); at++) {
            }
            if (at == end || *at != '{') {
                break;
            }
            at = read_object(at, end);
            for (; at < end && white(*at); at++) {
            }
            if (at == end || *at != (list ? ',' : ';')) {
                break;
            }
            at++;
        }
    }
}

/* --- walks -------------------------------------------------------------- */

static char text[TEXT_MAX];
static size_t text_n;

/* Feeds s as far as it goes. */
static size_t
push(const grammar_t *g, grammar_state_t *st, const char *s, size_t n)
{
    n = n > TEXT_MAX - text_n ? TEXT_MAX - text_n : n;
    n = grammar_feed(g, st, s, n);
    memcpy(text + text_n, s, n);
    text_n += n;

    return n;
}

/* Any byte that may come; 0: none may. */
static int
push_any(const grammar_t *g, grammar_state_t *st)
{
    uint64_t set[4];
    uint32_t byte, i;
    char c;

    /* most often some byte at random will do */
    for (i = 0; i < 8; i++) {
        c = (char) draw(256);
        if (push(g, st, &c, 1) == 1) {
            return 1;
        }
    }
    byte = draw(256);
    grammar_next(g, st, set);
    for (i = 0; i < 256 && !(set[byte / 64] >> byte % 64 & 1); i++) {
        byte = (byte + 1) % 256;
    }
    if (i == 256) {
        assert_true(grammar_can_end(g, st));
        return 0;
    }
    c = (char) byte;
    assert_int_equal(push(g, st, &c, 1), 1);

    return 1;
}

/* A text that the grammar admits; 0: it found no end. */
static int
walk(const grammar_t *g, const family_t *f, const json_t *tools, int free_text)
{
    static const char *const likes[] = {"\"", "}", "]", "{", "true", "null",
        "5", ", ", "\n", "{\"name\": \"", "\\u00e9", "red", "abc"};
    grammar_state_t st = {NULL, 0, 0, 0};
    const char *s = NULL;
    uint32_t k;
    int ends = 0;

    assert_int_equal(grammar_begin(g, &st), 0);
    text_n = 0;
    while (text_n < TEXT_MAX) {
        ends = grammar_can_end(g, &st);
        if (ends && (!free_text || text_n > 30)
            && (text_n > 600 || draw(free_text ? 40 : 3) == 0)) {
            break;
        }
        k = draw(text_n > 500 ? 3 : 4);
        if (k == 0) {
            if (!push_any(g, &st)) {
                break;
            }
            continue;
        }
        s = k == 1   ? likes[draw(sizeof(likes) / sizeof(likes[0]))]
            : k == 2 ? f->likes[draw(6)]
                     : f->opens[draw(3)];
        if (k == 3 && draw(2) == 0) {
            s = json_string_value(json_object_get(
                json_object_get(json_array_get(tools,
                                    draw((uint32_t) json_array_size(tools))),
                    "function"),
                "name"));
        }
        if (s != NULL && push(g, &st, s, strlen(s)) == 0 && k == 2
            && !push_any(g, &st)) {
            break;
        }
    }
    grammar_state_free(&st);

    return ends && text_n < TEXT_MAX;
}

/* What was read here, and by the parser. */
static void
compare(const family_t *f, const json_t *tools, int one)
{
    json_t *a, *b;
    size_t i;

    if (got.n != (one && want.n > 1 ? 1 : want.n)) {
        fail_msg("%s: %zu calls, not %zu, in %.*s", f->name, got.n, want.n,
            (int) text_n, text);
    }
    for (i = 0; i < got.n; i++) {
        assert_string_equal(got.calls[i].name, want.calls[i].name);
        if (f->kind == CODER || f->kind == GLM) {
            a = json_loadb(
                got.calls[i].args, got.calls[i].args_n, JSON_ALLOW_NUL, NULL);
            b = json_loadb(
                want.calls[i].args, want.calls[i].args_n, JSON_ALLOW_NUL, NULL);
            assert_non_null(b);
            if (a == NULL || !json_equal(a, b)) {
                fail_msg("%s: %.*s, not %.*s, in %.*s", f->name,
                    (int) got.calls[i].args_n, got.calls[i].args,
                    (int) want.calls[i].args_n, want.calls[i].args,
                    (int) text_n, text);
            }
            json_decref(a);
            json_decref(b);
        } else {
            assert_int_equal(got.calls[i].args_n, want.calls[i].args_n);
            assert_memory_equal(
                got.calls[i].args, want.calls[i].args, want.calls[i].args_n);
        }
        obeys(tools, &got.calls[i]);
    }
}

/* Every family, every set of tools, every way to ask. */
static void
test_walks(void **state)
{
    token_t *tok = token_open_null();
    const uint32_t rounds = brief() ? 2 : 6;
    uint32_t flags, round, walks = 0, ended = 0, calls = 0;
    tools_family_t *f;
    grammar_t *g;
    json_t *tools;
    tools_t *t;
    size_t i, k, at, n;

    (void) state;
    for (i = 0; i < FAMILIES; i++) {
        f = family(families[i].name, tok);
        for (k = 0; k < TOOLSETS; k++) {
            tools = json_loads(toolsets[k], 0, NULL);
            assert_non_null(tools);
            for (flags = 0; flags <= TOOLS_GRAMMAR_FLAGS;
                 flags += brief() ? 3 : 1) {
                g = grammar(f, toolsets[k], NULL, flags, draw(2) == 0);
                if (g == NULL) {
                    fail_msg("%s: %s", families[i].name, err);
                }
                for (round = 0; round < rounds; round++, walks++) {
                    if (!walk(g, &families[i], tools,
                            flags & TOOLS_GRAMMAR_AUTO)) {
                        continue;
                    }
                    ended++;
                    read_text(&families[i], tools, text, text_n);
                    t = tools_open(f, toolsets[k], strlen(toolsets[k]), 1,
                        flags & TOOLS_GRAMMAR_ONE);
                    got.n = got.text_n = 0;
                    got.kind = LLM_TEXT_ANSWER;
                    for (at = 0; at < text_n; at += n) {
                        n = 1 + draw(9);
                        n = n < text_n - at ? n : text_n - at;
                        assert_int_equal(
                            tools_feed(t, 0, text + at, n, 0, take, NULL), 0);
                    }
                    assert_int_equal(tools_end(t, 0, take, NULL), 0);
                    compare(&families[i], tools, flags & TOOLS_GRAMMAR_ONE);
                    if (!(flags & TOOLS_GRAMMAR_AUTO)) {
                        assert_true(got.n > 0 && got.text_n == 0);
                    }
                    calls += (uint32_t) got.n;
                    tools_close(t);
                }
                grammar_close(g);
            }
            json_decref(tools);
        }
        tools_family_close(f);
    }
    token_close(tok);
    printf("%u texts of %u ended, %u calls\n", ended, walks, calls);
    assert_true(ended > walks / 2 && calls > walks / 2);
}

/* --- texts -------------------------------------------------------------- */

static const char any_tools[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{"
    "\"type\":\"object\",\"properties\":{\"s\":{\"type\":\"string\"},"
    "\"i\":{\"type\":\"integer\"},\"n\":{\"type\":[\"number\",\"null\"]},"
    "\"b\":{\"type\":\"boolean\"},\"o\":{\"type\":\"object\"},"
    "\"a\":{\"type\":\"array\"},\"x\":{\"anyOf\":[{\"type\":\"string\"},"
    "{\"type\":\"number\"}]},\"e\":{\"enum\":[1,2]}}}}},"
    "{\"type\":\"function\",\"function\":{\"name\":\"get.it\"}}]";

/* Texts that models write. 1: required takes it, 2: automatic does. */
static const struct {
    const char *name, *text;
    int how;
} rows[] = {
    {"hermes",
        "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"s\": \"a}\\\"\", "
        "\"i\": 1}}\n</tool_call>",
        3},
    {"hermes",
        "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\n"
        "<tool_call>{\"name\":\"get.it\",\"arguments\": { \"a\" : 1 } }"
        "</tool_call>",
        3},
    {"hermes",
        "Let me.\n\n<tool_call>{\"name\":\"f\",\"arguments\":{}}"
        "</tool_call>\nDone <tool_cal",
        2},
    {"hermes",
        "<tool_call>{\"name\":\"f\",\"arguments\":{\"i\":\"x\"}}"
        "</tool_call>",
        0},
    {"hermes", "<tool_call>{\"name\":\"g\",\"arguments\":{}}</tool_call>", 0},
    {"hermes", "<tool_call> is a mark", 0},
    {"hermes", "", 2},
    {"llama", "{\"name\": \"f\", \"parameters\": {\"s\": \"x\"}}", 3},
    {"llama",
        "\n{\"type\": \"function\", \"name\": \"f\", \"parameters\": {}};"
        " {\"name\": \"get.it\", \"parameters\": {\"a\": 1}}",
        3},
    {"llama", "<|python_tag|>{\"name\": \"f\", \"parameters\": {}}", 3},
    {"llama", "{\"name\": \"z\", \"parameters\": {}}", 2},
    {"llama", "{\"name\": \"f\", \"parameters\": {\"i\": \"1\"}}", 0},
    {"llama", "{\"city\": {\"name\": \"f\"}}", 2},
    {"llama", "See: {\"name\": \"f\", \"parameters\": {\"i\": \"1\"}}", 2},
    {"json",
        "[{\"name\": \"f\", \"arguments\": {}}, {\"name\": \"f\", "
        "\"parameters\": {\"i\": 2}}]",
        3},
    {"json", "[1, 2]", 2},
    {"mistral",
        "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"s\": \"]\"}, "
        "\"id\": \"123456789\"}, {\"name\": \"get.it\", \"arguments\": "
        "{}}]",
        3},
    {"mistral",
        "[TOOL_CALLS]f[ARGS]{\"s\": \"{\"}[TOOL_CALLS]get.it[CALL_ID]"
        "a12345678[ARGS]{}",
        3},
    {"mistral", "Hm.[TOOL_CALLS]f[ARGS]{\"s\": \"{\"}", 2},
    {"deepseek",
        DS("calls" U, "begin") DS("call" U, "begin") "function" DS(
            "", "sep") "f\n```json\n{\"i\": 1}\n```" DS("call" U,
            "end") "\n" DS("call" U, "begin") "function" DS("",
            "sep") "get.it\n```json\n{}\n```" DS("call" U, "end")
            DS("calls" U, "end"),
        3},
    {"deepseek",
        DS("calls" U, "begin") DS("call" U, "begin") "f" DS(
            "", "sep") "{\"i\": 1}" DS("call" U, "end") DS("calls" U, "end"),
        3},
    {"kimi",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0"
        "<|tool_call_argument_begin|>{\"i\": 1}<|tool_call_end|>"
        "<|tool_call_begin|>functions.get.it:1<|tool_call_argument_begin|>{}"
        "<|tool_call_end|><|tool_calls_section_end|>",
        3},
    {"granite", "<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"i\": 1}}]",
        3},
    {"phi-4", "functools[{\"name\": \"f\", \"arguments\": {\"i\": 1}}]", 3},
    {"phi-4",
        "<|tool_call|>[{\"name\": \"f\", \"arguments\": {}}]"
        "<|/tool_call|>",
        3},
    {"phi-4", "import functools", 2},
    {"apriel",
        "\n<tool_calls>[{\"name\": \"f\", \"arguments\": {}, \"id\": 1}]"
        "</tool_calls>",
        3},
    {"nemotron", "<TOOLCALL>[{\"name\": \"f\", \"arguments\": {}}]</TOOLCALL>",
        3},
    {"harmony", "commentary to=functions.f json{\"i\": 1}", 3},
    {"harmony", "assistant to=functions.fcommentary{\"i\": 1}", 3},
    {"harmony", "assistantcommentary to=functions.get.it{}", 3},
    {"harmony", "a commentary", 2},
    {"qwen-coder",
        "<tool_call>\n<function=f>\n<parameter=s>\n12\n</parameter>\n"
        "<parameter=i>\n12\n</parameter>\n<parameter=n>\n-1.5e3\n"
        "</parameter>\n<parameter=b>\ntrue\n</parameter>\n<parameter=o>\n"
        "{\"a\": \"<\"}\n</parameter>\n<parameter=a>[1]</parameter>\n"
        "</function>\n</tool_call>",
        3},
    {"qwen-coder",
        "ok\n<function=f>\n<parameter=s>\na\n\"b\"\n</para\n\t</parameter>\n"
        "<parameter=n>null</parameter><parameter=x>5</parameter>"
        "<parameter=e>2</parameter></function>",
        2},
    {"qwen-coder", "<tool_call>\n<function=get.it>\n</function>\n</tool_call>",
        3},
    {"qwen-coder", "<function=f>\n<parameter=i>\nx\n</parameter></function>",
        0},
    {"qwen-coder",
        "<function=f><parameter=o>{\"a\":\"</parameter>\"}</parameter>"
        "</function>",
        0},
    {"glm",
        "<tool_call>f\n<arg_key>s</arg_key>\n<arg_value>a b</arg_value>\n"
        "<arg_key>i</arg_key>\n<arg_value>3</arg_value>\n</tool_call>\n"
        "<tool_call>get.it</tool_call>",
        3},
};

static int
takes(const grammar_t *g, const char *s)
{
    grammar_state_t st = {NULL, 0, 0, 0};
    int yes;

    assert_int_equal(grammar_begin(g, &st), 0);
    yes = grammar_feed(g, &st, s, strlen(s)) == strlen(s)
          && grammar_can_end(g, &st);
    grammar_state_free(&st);

    return yes;
}

static void
test_texts(void **state)
{
    token_t *tok = token_open_null();
    tools_family_t *f;
    grammar_t *g;
    size_t i;
    int how;

    (void) state;
    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        f = family(rows[i].name, tok);
        for (how = 1; how <= 2; how++) {
            g = grammar(
                f, any_tools, NULL, how == 2 ? TOOLS_GRAMMAR_AUTO : 0, 0);
            if (g == NULL) {
                fail_msg("%s: %s", rows[i].name, err);
            }
            if (takes(g, rows[i].text) != ((rows[i].how & how) != 0)) {
                fail_msg("%s, %s: %s", rows[i].name,
                    how == 2 ? "automatic" : "required", rows[i].text);
            }
            grammar_close(g);
        }
        tools_family_close(f);
    }
    token_close(tok);
}

/* Which functions, how many calls, and what is an error. */
static void
test_demands(void **state)
{
    static const char odd[] =
        "[{\"function\":{\"name\":\"odd\",\"parameters\":{\"type\":\"object\","
        "\"properties\":{\"a\":{\"type\":\"array\",\"uniqueItems\":true,"
        "\"items\":{\"type\":\"int\"}},\"r\":{\"type\":\"string\",\"pattern\":"
        "\"(\"}}}}},{\"function\":{\"name\":\"ok\",\"parameters\":{\"type\":"
        "\"dict\",\"properties\":{\"n\":{\"type\":\"float\"}}}}}]";
    static const char strict[] =
        "[{\"function\":{\"name\":\"a\"}},{\"function\":{\"name\":\"odd\","
        "\"strict\":true,\"parameters\":{\"type\":\"object\",\"properties\":{"
        "\"a\":{\"type\":\"array\",\"uniqueItems\":true}}}}}]";
    static const char whole[] =
        "[{\"function\":{\"name\":\"w\",\"strict\":true,\"parameters\":{"
        "\"type\":\"object\",\"minProperties\":1}}}]";
    token_t *tok = token_open_null();
    tools_family_t *h = family("hermes", tok), *q = family("qwen-coder", tok);
    grammar_t *g;

    (void) state;
    g = grammar(h, any_tools, "get.it", TOOLS_GRAMMAR_ONE, 0);
    assert_non_null(g);
    assert_true(takes(g, "<tool_call>{\"name\":\"get.it\",\"arguments\":{}}"
                         "</tool_call>"));
    assert_false(
        takes(g, "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>"));
    assert_false(takes(g, "<tool_call>{\"name\":\"get.it\",\"arguments\":{}}"
                          "</tool_call><tool_call>{\"name\":\"get.it\","
                          "\"arguments\":{}}</tool_call>"));
    grammar_close(g);

    /* what cannot be enforced is left out, or all of it */
    g = grammar(h, odd, NULL, 0, 0);
    assert_non_null(g);
    assert_true(takes(g, "<tool_call>{\"name\":\"odd\",\"arguments\":{\"r\":1,"
                         "\"z\":[{}]}}</tool_call>"));
    assert_false(takes(g, "<tool_call>{\"name\":\"odd\",\"arguments\":[]}"
                          "</tool_call>"));
    assert_true(takes(g, "<tool_call>{\"name\":\"ok\",\"arguments\":{\"n\":"
                         "1.5}}</tool_call>"));
    assert_false(takes(g, "<tool_call>{\"name\":\"ok\",\"arguments\":{\"n\":"
                          "\"1.5\"}}</tool_call>"));
    grammar_close(g);
    g = grammar(q, odd, NULL, 0, 0);
    assert_non_null(g);
    assert_true(takes(g, "<function=odd><parameter=a>[1]</parameter>"
                         "<parameter=r>)</parameter></function>"));
    assert_false(takes(g, "<function=odd><parameter=a>1</parameter>"
                          "</function>"));
    grammar_close(g);

    assert_null(grammar(h, strict, NULL, 0, 0));
    assert_non_null(strstr(
        err, "tools/1/function/parameters: uniqueItems at #/properties/a: "));
    assert_null(grammar(h, strict, NULL, TOOLS_GRAMMAR_AUTO, 0));
    g = grammar(h, strict, "a", 0, 0);
    assert_non_null(g);
    grammar_close(g);
    g = grammar(h, whole, NULL, 0, 0);
    assert_non_null(g);
    grammar_close(g);
    assert_null(grammar(q, whole, NULL, 0, 0));
    assert_string_equal(err,
        "tools/0/function/parameters: minProperties at #: cannot be enforced "
        "in elements");

    assert_null(grammar(h, any_tools, "none", 0, 0));
    assert_non_null(strstr(err, "no function is called \"none\""));
    assert_null(grammar(h, "[]", NULL, 0, 0));
    assert_null(grammar(h, "{}", NULL, 0, 0));
    assert_null(grammar(h, "[{\"function\":{\"name\":\"a b\"}}]", NULL, 0, 0));
    tools_family_close(h);
    tools_family_close(q);
    token_close(tok);
}

/* --- hostile ------------------------------------------------------------ */

/* Many functions with long names, as a request; its length. */
static size_t
many(char *s, uint32_t n)
{
    size_t len = (size_t) sprintf(s, "[");
    uint32_t i;

    for (i = 0; i < n; i++) {
        len += (size_t) sprintf(s + len,
            "%s{\"function\":{\"name\":\"%03u_name_that_is_long_%u\","
            "\"parameters\":{\"type\":\"object\",\"properties\":{\"p%u\":{"
            "\"type\":\"string\"},\"q\":{\"type\":\"integer\"}},\"required\":["
            "\"q\"]}}}",
            i > 0 ? "," : "", i * 7 % 1000, i, i % 9);
    }

    return len + (size_t) sprintf(s + len, "]");
}

static void
test_hostile(void **state)
{
    token_t *tok = token_open_null();
    char *s = malloc(1 << 20), *t = malloc(sizeof(any_tools));
    tools_family_t *f;
    size_t len, i, k;
    grammar_t *g;

    (void) state;
    for (i = 0; i < FAMILIES; i++) {
        f = family(families[i].name, tok);
        len = many(s, brief() ? 16 : i == 0 || i == 12 ? 1024 : 128);
        g = tools_grammar(f, s, len, NULL, 0, i % 2 ? TOOLS_GRAMMAR_AUTO : 0,
            NULL, err, sizeof(err));
        if (g != NULL) {
            assert_true(grammar_memory(g) < (96u << 20));
        } else {
            /* where the machine is slow */
            assert_non_null(strstr(err, "the grammar takes too long"));
        }
        grammar_close(g);
        tools_family_close(f);
    }

    /* deep schemas, and every byte changed */
    len = (size_t) sprintf(
        s, "[{\"function\":{\"name\":\"deep\",\"parameters\":");
    for (i = 0; i < 500; i++) {
        len += (size_t) sprintf(s + len, "{\"properties\":{\"a\":");
    }
    len += (size_t) sprintf(s + len, "{}");
    for (i = 0; i < 500; i++) {
        len += (size_t) sprintf(s + len, "}}");
    }
    len += (size_t) sprintf(s + len, "}}]");
    for (i = 0; i < FAMILIES; i++) {
        f = family(families[i].name, tok);
        g = grammar(f, s, NULL, 0, 0);
        grammar_close(g);
        for (k = i; k < sizeof(any_tools) - 1; k += brief() ? 411 : 41) {
            memcpy(t, any_tools, sizeof(any_tools));
            t[k] ^= (char) (1 + draw(127));
            g = tools_grammar(f, t, sizeof(any_tools) - 1 - k % 3, NULL, 0,
                draw(4), NULL, err, sizeof(err));
            grammar_close(g);
        }
        tools_family_close(f);
    }
    free(t);
    free(s);
    token_close(tok);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_demands),
        cmocka_unit_test(test_walks),
        cmocka_unit_test(test_hostile),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
