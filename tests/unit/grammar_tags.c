/*
 * Would catch: a trigger that occurs outside of a structure, or one that opens
 * none; a structure that its schema refuses, or that is not closed; free text
 * refused; a state more than the triggers have bytes; a wrong document taken,
 * or refused without saying where.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "brief.h"
#include "grammar_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char err[600];

static grammar_t *
open_tags(const char *s, int compact)
{
    grammar_opts_t o = {.compact = (uint32_t) compact};
    grammar_t *g = grammar_open_tags(s, strlen(s), &o, err, sizeof(err));

    if (g == NULL) {
        fail_msg("%s: %s", s, err);
    }

    return g;
}

/* How many bytes of a text are taken; *ends: may it end there? */
static size_t
fed(const grammar_t *g, const char *s, size_t len, int *ends)
{
    grammar_state_t st = {NULL, 0, 0, 0};
    size_t n;

    assert_int_equal(grammar_begin(g, &st), 0);
    n = grammar_feed(g, &st, s, len);
    *ends = grammar_can_end(g, &st);
    grammar_state_free(&st);

    return n;
}

static const char two[] =
    "{\"type\":\"structural_tag\",\"structures\":["
    "{\"begin\":\"<function=f>\",\"schema\":{\"type\":\"object\","
    "\"properties\":{\"a\":{\"type\":\"integer\"}},\"required\":[\"a\"],"
    "\"additionalProperties\":false},\"end\":\"</function>\"},"
    "{\"begin\":\"<function=go>\",\"schema\":{\"const\":7},\"end\":\"\"}],"
    "\"triggers\":[\"<function=\"]}";

static const char over[] =
    "{\"structures\":["
    "{\"begin\":\"aab1\",\"schema\":{\"const\":1},\"end\":\"!\"},"
    "{\"begin\":\"ab2\",\"schema\":{\"const\":2},\"end\":\"!\"},"
    "{\"begin\":\"caabd\",\"schema\":{\"const\":3},\"end\":\"!\"},"
    "{\"begin\":\"x\",\"end\":\"\"}],"
    "\"triggers\":[\"aab\",\"ab\",\"caabd\",\"x\"]}";

typedef struct {
    const char *tags, *text;
    int taken; /* bytes; -1: all, and the text may end; -2: and it may not */
} row_t;

static const row_t rows[] = {
    {two, "", -1},
    {two, "free < text <func, \xc3\xa9 \x01 <<function", -1},
    {two, "<function=f>{\"a\":1}</function>", -1},
    {two, "say <function=f>{\"a\":1}</function> and <function=go>7 on", -1},
    {two, "<<function=go>7<function=go>7", -1},
    {two, "<function=", -2},
    {two, "<function=f>{\"a\":1}", -2},
    {two, "<function=h>", 10},
    {two, "<function=f>{\"a\":\"", 17},
    {two, "<function=f>{\"a\":1}<", -2},
    {two, "<function=f>{\"a\":1}x", 19},
    {two, "<function=go>8", 13},
    {two, "a<function=<", 11},
    /* aab and ab are whole at once, so either may go on */
    {over, "aab11!", -1},
    {over, "aab22!", -1},
    {over, "ab22!aab11!b", -1},
    {over, "ab1", 2},
    {over, "aaab2", -2},
    /* ab is whole before caabd can be */
    {over, "caabd", 4},
    {over, "caab11!caa", -1},
    {over, "x[1,{\"k\":null}]a", -1},
    {over, "xa", 1},
};

static void
test_texts(void **state)
{
    grammar_t *g;
    size_t i, n, len;
    int ends;

    (void) state;
    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        g = open_tags(rows[i].tags, 1);
        len = strlen(rows[i].text);
        n = fed(g, rows[i].text, len, &ends);
        if (rows[i].taken >= 0 ? n != (size_t) rows[i].taken
                               : n != len || ends != (rows[i].taken == -1)) {
            fail_msg("%s: %zu taken, %d", rows[i].text, n, ends);
        }
        grammar_close(g);
    }
}

/* What a text that the grammar took must be: pieces read as the documents
 * "two" say, without the grammar. */
static void
reads(const char *s, size_t len, const grammar_t *f)
{
    static const char mark[] = "<function=", end[] = "</function>";
    const char *at = s, *last = s + len, *to;
    int ends;

    for (;;) {
        at = memmem(at, (size_t) (last - at), mark, sizeof(mark) - 1);
        if (at == NULL) {
            return;
        }
        at += sizeof(mark) - 1;
        if (last - at >= 4 && memcmp(at, "go>7", 4) == 0) {
            at += 4;
            continue;
        }
        assert_true(last - at > 2 && memcmp(at, "f>", 2) == 0);
        to = memmem(at, (size_t) (last - at), end, sizeof(end) - 1);
        assert_non_null(to);
        at += 2;
        assert_int_equal(
            fed(f, at, (size_t) (to - at), &ends), (size_t) (to - at));
        assert_true(ends);
        at = to + sizeof(end) - 1;
    }
}

static uint32_t seed = 7;

static uint32_t
draw(uint32_t n)
{
    seed = seed * 1664525u + 1013904223u;

    return (seed >> 8) % n;
}

/* Random texts, which like the trigger's bytes. */
static void
test_walks(void **state)
{
    static const char *const likes[] = {"<function=", "go>7", "f>",
        "{\"a\":", "1}", "</function>", "<", "n", " "};
    static const char schema[] =
        "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"}},"
        "\"required\":[\"a\"],\"additionalProperties\":false}";
    grammar_opts_t o = {.compact = 1};
    grammar_t *g = open_tags(two, 1), *f;
    grammar_state_t st = {NULL, 0, 0, 0};
    uint32_t walk, n, structures = 0, byte;
    const char *like;
    uint64_t set[4];
    char text[4096];
    size_t len;

    (void) state;
    f = grammar_open_schema(schema, sizeof(schema) - 1, &o, err, sizeof(err));
    assert_non_null(f);
    for (walk = 0; walk < (brief() ? 50u : 400u); walk++) {
        assert_int_equal(grammar_begin(g, &st), 0);
        for (n = 0; n < sizeof(text) - 16;) {
            if (n > 60 && grammar_can_end(g, &st)) {
                break;
            }
            like = likes[draw(sizeof(likes) / sizeof(likes[0]))];
            if (draw(4) > 0) {
                len = grammar_feed(g, &st, like, strlen(like));
                memcpy(text + n, like, len);
                n += (uint32_t) len;
                continue;
            }
            grammar_next(g, &st, set);
            do {
                byte = draw(256);
            } while (!(set[byte / 64] >> byte % 64 & 1));
            text[n++] = (char) byte;
            assert_int_equal(grammar_feed(g, &st, text + n - 1, 1), 1);
        }
        assert_true(n < sizeof(text) - 16);
        reads(text, n, f);
        structures += memmem(text, n, "<function=", 10) != NULL;
    }
    assert_true(structures > walk / 10);
    grammar_state_free(&st);
    grammar_close(f);
    grammar_close(g);
}

/* Within C: tags alone, at least one, at most one, texts that pass. */
static void
test_form(void **state)
{
    static const struct {
        int free, some, one;
        const char *text;
        int ok;
    } forms[] = {
        {0, 0, 0, "", 1},
        {0, 1, 0, "", 0},
        {0, 1, 0, "(1)(1)", 1},
        {0, 1, 1, "(1)(", 0},
        {0, 1, 1, "(1)", 1},
        {1, 1, 0, "a", 0},
        {1, 1, 0, "a(1)b(1)", 1},
        {1, 1, 1, "a(1)", 1},
        {1, 1, 1, "a(1)b", 0},
        {1, 0, 1, "a", 1},
        {1, 0, 1, "a(1)", 1},
        {1, 0, 1, "a(1)b", 0},
        {1, 0, 0, "a" GRAMMAR_TOKEN "pb", 1},
        {1, 0, 0, GRAMMAR_TOKEN "q", 0},
        {1, 0, 0, "p" GRAMMAR_TOKEN "(1)" GRAMMAR_TOKEN "p", 1},
        {1, 0, 0, GRAMMAR_TOKEN "(", 0},
        {1, 0, 0, " n-1", 1},
        {1, 0, 0, " n1(", 0},
        {1, 0, 0, " nn", 1},
        {1, 0, 0, "n1", 1},
    };
    static const grammar_str_t triggers[] = {{"(", 1}, {GRAMMAR_TOKEN "(", 2}};
    static const grammar_str_t pass = {GRAMMAR_TOKEN "p", 2};
    grammar_build_t b;
    grammar_tag_t tags[2];
    grammar_tags_t t;
    grammar_t *g;
    uint32_t root, node;
    size_t i, len;
    int ends;

    (void) state;
    for (i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        grammar_build_open(&b, NULL, err, sizeof(err));
        node = grammar_bytes(&b, "1)", 2);
        tags[0] = (grammar_tag_t){triggers[0], node};
        tags[1] = (grammar_tag_t){triggers[1], node};
        t = (grammar_tags_t){tags, 1u + (forms[i].free != 0), triggers, 2,
            &pass, 1, NULL, forms[i].free, forms[i].some, forms[i].one};
        node = grammar_bytes(&b, " n1", 3);
        t.front = grammar_dfa(&b, &node, 1, NULL, NULL);
        node = grammar_tags(&b, &t);
        root = grammar_rule(&b, NULL);
        b.rules[root].node = node;
        g = grammar_link(&b, root);
        assert_non_null(g);
        len = strlen(forms[i].text);
        if ((fed(g, forms[i].text, len, &ends) == len && ends) != forms[i].ok) {
            fail_msg("%zu: %s", i, forms[i].text);
        }
        grammar_close(g);
    }
}

#define TAG(begin, more)                                                       \
    "{\"triggers\":[\"<\"],\"structures\":[{\"begin\":\"" begin "\"" more "}]" \
    "}"

/* What is wrong is said with its place. */
static void
test_wrong(void **state)
{
    static const struct {
        const char *text, *say;
    } wrong[] = {
        {"", "the text of structural tags is no JSON: "},
        {"[]", "the structural tags are no object"},
        {"{}", "structures: expected an array"},
        {"{\"structures\":[]}", "structures: the array is empty"},
        {"{\"structures\":[1]}", "triggers: expected an array"},
        {"{\"structures\":[1],\"triggers\":[]}",
            "triggers: the array is empty"},
        {"{\"structures\":[1],\"triggers\":[\"a\",2]}",
            "triggers/1: expected a string"},
        {"{\"structures\":[1],\"triggers\":[\"\"]}",
            "triggers/0: the string is empty"},
        {"{\"structures\":[1],\"triggers\":[\"a\"]}",
            "structures/0: expected an object"},
        {TAG("", ",\"end\":\"\""), "structures/0/begin: the string is empty"},
        {TAG("<", ""), "structures/0/end: expected a string"},
        {TAG("a", ",\"end\":\"\""),
            "structures/0/begin: it does not begin with a trigger"},
        {TAG("<", ",\"end\":\"\",\"schema\":3"),
            "structures/0/schema: the schema is no object"},
        {TAG("<", ",\"end\":\"\",\"schema\":{\"properties\":{\"a\":"
                  "{\"uniqueItems\":true}}}"),
            "structures/0/schema: uniqueItems at #/properties/a: "},
    };
    size_t i;

    (void) state;
    for (i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_null(grammar_open_tags(
            wrong[i].text, strlen(wrong[i].text), NULL, err, sizeof(err)));
        if (strncmp(err, wrong[i].say, strlen(wrong[i].say)) != 0) {
            fail_msg("%s: %s", wrong[i].text, err);
        }
    }
}

/* Every beginning and every byte changed: no crash, and one sentence. */
static void
test_hostile(void **state)
{
    char text[sizeof(two)];
    grammar_t *g;
    size_t i;

    (void) state;
    for (i = 0; i < sizeof(two) - 1; i += brief() ? 7 : 1) {
        g = grammar_open_tags(two, i, NULL, err, sizeof(err));
        assert_null(g);
        assert_true(strlen(err) > 10);
        memcpy(text, two, sizeof(two));
        text[i] ^= (char) (1 + draw(127));
        g = grammar_open_tags(text, sizeof(two) - 1, NULL, err, sizeof(err));
        grammar_close(g);
    }
}

/* Many long triggers: as many places as they have bytes, and no more. */
static void
test_size(void **state)
{
    grammar_opts_t o = {.compact = 1};
    char *text = malloc(400000), name[300];
    size_t n, i;
    grammar_t *g;

    (void) state;
    assert_non_null(text);
    n = (size_t) sprintf(text, "{\"structures\":[");
    for (i = 0; i < 120; i++) {
        (void) snprintf(name, sizeof(name), "aaaaaaaaaaaaaaaaaaaa%03zu", i);
        n += (size_t) sprintf(text + n,
            "%s{\"begin\":\"%s>\",\"schema\":{},\"end\":\"\"}", i ? "," : "",
            name);
    }
    n += (size_t) sprintf(text + n, "],\"triggers\":[");
    for (i = 0; i < 120; i++) {
        n += (size_t) sprintf(
            text + n, "%s\"aaaaaaaaaaaaaaaaaaaa%03zu\"", i ? "," : "", i);
    }
    n += (size_t) sprintf(text + n, "]}");
    g = grammar_open_tags(text, n, &o, err, sizeof(err));
    assert_non_null(g);
    /* 20 of the beginning, 2 + 12 + 120 of the numbers, and the rules' */
    assert_true(g->pos_n < 154 + 120 * 5 + 300);
    grammar_close(g);

    n = (size_t) sprintf(
        text, "{\"triggers\":[\"%0*d\"],\"structures\":[]}", 70000, 1);
    assert_null(grammar_open_tags(text, n, &o, err, sizeof(err)));
    free(text);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_walks),
        cmocka_unit_test(test_form),
        cmocka_unit_test(test_wrong),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_size),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
