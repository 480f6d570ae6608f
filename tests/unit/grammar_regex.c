/*
 * Would catch: a regular expression that takes a text which it does not match,
 * or refuses one that it does, by the cases of a well-known suite; a construct
 * that is not regular taken for something else; a pattern that needs more than
 * its share of memory or time.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "grammar_test.h"

static char err[300];

static grammar_t *
regex(const char *s, int search, int ascii)
{
    grammar_opts_t o = {.search = (uint32_t) search, .ascii = (uint32_t) ascii};

    err[0] = '\0';

    return grammar_open_regex(s, strlen(s), &o, err, sizeof(err));
}

/* texts: those taken, NULL, those refused, NULL. */
static void
check(const char *pattern, int search, const char *const *texts)
{
    grammar_t *g = regex(pattern, search, 1);
    int want = 1;

    if (g == NULL) {
        fail_msg("%s: %s", pattern, err);
    }
    for (; *texts != NULL || want; texts++) {
        if (*texts == NULL) {
            want = 0;
        } else if (takes(g, *texts, strlen(*texts)) != want) {
            fail_msg("%s %s %s", pattern, want ? "refuses" : "takes", *texts);
        }
    }
    grammar_close(g);
}

#define CHECK(pattern, search, ...)                                            \
    check(pattern, search, (const char *const[]){__VA_ARGS__, NULL})

static void
test_own(void **state)
{
    (void) state;
    CHECK("abc", 0, "abc", NULL, "ab", "abcd", "");
    CHECK("^a|b|c$", 1, "ax", "xbx", "xc", NULL, "xa", "cx", "x");
    CHECK("^a|b|c$", 0, "a", "b", "c", NULL, "ab", "");
    CHECK("(a|ab)(c|bcd)", 0, "ac", "abc", "abcd", "abbcd", NULL, "ab");
    CHECK("a{2,4}", 0, "aa", "aaaa", NULL, "a", "aaaaa");
    CHECK("(a{2}){2,}", 0, "aaaa", "aaaaaa", NULL, "aa", "aaaaa");
    CHECK("[^a-c]", 0, "d", "\xc3\xa9", "\n", NULL, "a", "dd", "\xff", "\xc3");
    CHECK("a.c", 0, "abc",
        "a\xe2\x82\xac"
        "c",
        NULL, "a\nc",
        "a\xe2\x80\xa8"
        "c");
    CHECK("(?s)a.c(?i:D)", 0, "a\ncd", "a\ncD", NULL, "A\ncd");
    CHECK("\\d+\\.\\d{2}", 0, "3.14", NULL, "3.1", "\xd9\xa3.14");
    CHECK("[\\w.-]+", 0, "a_b-c.d", NULL, "a b", "\xc3\xa9");
    CHECK("\\x41\\u00e9\\u{1F600}\\t", 0, "A\xc3\xa9\xf0\x9f\x98\x80\t", NULL,
        "A");
    CHECK("a{,2}", 0, "a{,2}", NULL, "aa");
    CHECK("$^", 0, "", NULL, "a");
    CHECK("(x$)y?", 0, "x", NULL, "xy");
}

static void
test_unicode(void **state)
{
    grammar_t *g = regex("\\p{Lu}\\p{Ll}*\\PL\\w\\d", 0, 0);

    (void) state;
    if (g == NULL) {
        fail_msg("%s", err);
    }
    assert_true(takes(g, "\xc3\x89t\xc3\xa9 \xd0\xb6\xd9\xa3", 10));
    assert_false(takes(g, "\xc3\xa9t\xc3\xa9 \xd0\xb6\xd9\xa3", 10));
    grammar_close(g);
}

static void
test_refused(void **state)
{
    static const char *const bad[][2] = {{"(a)\\1", "back-references"},
        {"(?<n>a)\\k<n>", "back-references"}, {"a(?=b)", "look-around"},
        {"(?<!a)b", "look-around"}, {"\\bfoo", "word boundaries"},
        {"(a", "without an end"}, {"a)", "closes nothing"},
        {"[a", "without an end"}, {"*a", "repetition of nothing"},
        {"a**", "repetition of a repetition"}, {"a{3,2}", "backwards"},
        {"[z-a]", "backwards"}, {"\\q", "not known"}, {"\\", "half an escape"},
        {"\\x4", "hexadecimal"}, {"\\ud800", "surrogate"},
        {"\\p{Nope}", "property"}, {"\\p{Ge=L}", "property"},
        {"\\p{gc34567890123456=L}", "property"}, {"(?m)a", "flag"},
        {"\xff", "not UTF-8"}, {"(?:a{1000}){1000}", "too large"},
        {"(a|b)*a(a|b){40}", "states"}};
    size_t i;

    (void) state;
    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        grammar_t *g = regex(bad[i][0], 0, 1);

        if (g != NULL || strstr(err, bad[i][1]) == NULL) {
            fail_msg("%s: %s", bad[i][0], g != NULL ? "taken" : err);
        }
    }
}

static void
test_nesting(void **state)
{
    char deep[2001];

    (void) state;
    memset(deep, '(', 2000);
    deep[2000] = '\0';
    assert_null(regex(deep, 0, 1));
    assert_non_null(strstr(err, "too deeply"));
}

/* --- the suite ---------------------------------------------------------- */

typedef struct {
    char regex[4096], hay[65536];
    size_t hay_len;
    int skip, compiles, matches, has_hay;
} case_t;

/* A TOML string behind "=", on one line; 0: it is none, or goes on. */
static int
toml_string(const char *p, char *out, size_t cap, size_t *len)
{
    const char *end;
    size_t n = 0;

    while (*p == ' ') {
        p++;
    }
    if (strncmp(p, "'''", 3) == 0 || strncmp(p, "\"\"\"", 3) == 0) {
        end = strstr(p + 3, strncmp(p, "'''", 3) == 0 ? "'''" : "\"\"\"");
        if (end == NULL || *p == '"') {
            return 0;
        }
        n = (size_t) (end - p - 3);
        memcpy(out, p + 3, n < cap ? n : 0);
    } else if (*p == '\'') {
        end = strchr(p + 1, '\'');
        assert_non_null(end);
        n = (size_t) (end - p - 1);
        memcpy(out, p + 1, n < cap ? n : 0);
    } else if (*p == '"') {
        for (p++; *p != '"'; p++) {
            if (*p == '\\') {
                p++;
                if (strchr("nrt\\\"", *p) == NULL) {
                    return 0;
                }
                out[n++] = *p == 'n'   ? '\n'
                           : *p == 'r' ? '\r'
                           : *p == 't' ? '\t'
                                       : *p;
            } else {
                out[n++] = *p;
            }
        }
    } else {
        return 0;
    }
    assert_true(n < cap);
    out[n] = '\0';
    *len = n;

    return 1;
}

static void
toml_line(case_t *c, const char *line)
{
    size_t n;

    if (strncmp(line, "regex =", 7) == 0) {
        c->skip |= !toml_string(line + 7, c->regex, sizeof(c->regex), &n)
                   || strlen(c->regex) != n;
    } else if (strncmp(line, "haystack =", 10) == 0) {
        c->skip |= !toml_string(line + 10, c->hay, sizeof(c->hay), &c->hay_len);
        c->has_hay = 1;
    } else if (strncmp(line, "matches =", 9) == 0) {
        c->matches = strcmp(line, "matches = []") != 0;
    } else if (strncmp(line, "compiles = false", 16) == 0) {
        c->compiles = 0;
    } else if (strncmp(line, "unicode = false", 15) == 0
               || strncmp(line, "utf8 = false", 12) == 0
               || strncmp(line, "case-insensitive = true", 23) == 0
               || strncmp(line, "unescape", 8) == 0
               || strncmp(line, "bounds", 6) == 0
               || strncmp(line, "anchored = true", 15) == 0
               || strncmp(line, "line-terminator", 15) == 0) {
        c->skip = 1;
    }
}

static void
try_case(const case_t *c, const char *path, uint32_t counts[3])
{
    grammar_t *g;

    if (c->skip || !c->has_hay) {
        counts[2]++;
        return;
    }
    g = regex(c->regex, 1, 0);
    if (g == NULL) {
        counts[1]++;
        return;
    }
    if (c->compiles && takes(g, c->hay, c->hay_len) != c->matches) {
        fail_msg("%s: %s %s %s", path, c->regex,
            c->matches ? "refuses" : "takes", c->hay);
    }
    counts[0]++;
    grammar_close(g);
}

static void
test_suite(void **state)
{
    static case_t c;
    uint32_t counts[3] = {0, 0, 0};
    char *paths[64], *text, *line, *rest;
    size_t n, i, len;

    (void) state;
    n = files_of("structured-output/regex", ".toml", paths, 64);
    if (n == 0) {
        skip();
    }
    for (i = 0; i < n; i++) {
        text = slurp(paths[i], &len);
        assert_non_null(text);
        memset(&c, 0, sizeof(c));
        c.skip = 1;
        for (line = strtok_r(text, "\n", &rest);;
             line = strtok_r(NULL, "\n", &rest)) {
            if (line == NULL || strcmp(line, "[[test]]") == 0) {
                try_case(&c, paths[i], counts);
                c.skip = c.has_hay = c.matches = 0;
                c.compiles = 1;
                if (line == NULL) {
                    break;
                }
                continue;
            }
            toml_line(&c, line);
        }
        free(text);
        free(paths[i]);
    }
    printf("%u cases agree, %u are refused, %u do not apply\n", counts[0],
        counts[1], counts[2]);
    assert_true(counts[0] > 200);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own),
        cmocka_unit_test(test_unicode),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_nesting),
        cmocka_unit_test(test_suite),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
