/*
 * Would catch: a grammar file read as another language, rules that end at the
 * wrong line, recursion that loses its place, what is no grammar taken for one.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "grammar_test.h"

static char err[300];

static void
check_grammar(grammar_t *g, const char *what, const char *const *texts)
{
    int want = 1;

    for (; *texts != NULL || want; texts++) {
        if (*texts == NULL) {
            want = 0;
        } else if (takes(g, *texts, strlen(*texts)) != want) {
            fail_msg("%s %s %s", what, want ? "refuses" : "takes", *texts);
        }
    }
    grammar_close(g);
}

/* texts: those taken, NULL, those refused, NULL. */
static void
check(const char *ebnf, const char *const *texts)
{
    grammar_t *g =
        grammar_open_ebnf(ebnf, strlen(ebnf), NULL, err, sizeof(err));

    if (g == NULL) {
        fail_msg("%s: %s", ebnf, err);
    }
    check_grammar(g, ebnf, texts);
}

#define CHECK(ebnf, ...) check(ebnf, (const char *const[]){__VA_ARGS__, NULL})

static void
test_own(void **state)
{
    (void) state;
    CHECK("root ::= \"a\" | [b-d]{2,3}", "a", "bc", "bcd", NULL, "b", "bcdb");
    CHECK("root ::= (\"a\"\n  | \"b\") # no more\n\n", "a", "b", NULL, "");
    CHECK("root ::=\n \"x\" y |\n \"z\"\ny ::= \"y\"*", "x", "xyy", "z", NULL,
        "zy");
    /* balanced, ambiguous, right recursive */
    CHECK("root ::= \"(\" root \")\" root | \"\"", "", "(()())()", NULL, "(()",
        ")");
    CHECK("root ::= x x\nx ::= \"a\" x | \"a\"", "aa", "aaaaaaaa", NULL, "a");
    CHECK("root ::= n | m\nn ::= [a-z]+ \"1\"\nm ::= [a-z]+ \"2\"", "abc1",
        "abc2", NULL, "abc", "abc12");
    CHECK("root ::= [^\\n\\x22] . \"\\u20ac\"", "a\n\xe2\x82\xac", NULL,
        "\"a\xe2\x82\xac");
    CHECK("root ::= a{3}\na ::= \"x\"?", "", "x", "xxx", NULL, "xxxx");
    CHECK("root ::= \"a\"{2000,}", NULL, "a");
    /* a rule that may be nothing, again and again */
    CHECK("root ::= x+ (\"-\" x+)*\nx ::= \"a\" | y*\ny ::= [bc]", "", "ab-",
        "-c", NULL, "d");
    CHECK("root ::= x{0,2000}\nx ::= y*\ny ::= \"b\"{0,3}", "", "bbbbb", NULL,
        "a");
    CHECK("root ::= never | \"a\"\nnever ::= \"b\" never", "a", NULL, "b");
}

static void
test_files(void **state)
{
    static const struct {
        const char *name;
        const char *texts[8];
    } files[] = {{"arithmetic.gbnf", {"1+2=3\n", "(a +4) *2 = x\n", NULL,
                                         "1+=3\n", "1+2=3", NULL}},
        {"json.gbnf", {"{\"a\": [1, 2.5e1, \"x\\n\"]}", "{}", NULL, "{\"a\":}",
                          "[1]", NULL}},
        {"json_arr.gbnf", {"[\n{},\n1]", NULL, "[1]", "{}", NULL}},
        {"list.gbnf", {"- a\n- b c\n", NULL, "- a", "a\n", NULL}},
        {"english.gbnf", {"Hello, world!", NULL, "caf\xc3\xa9", NULL}}};
    char *paths[16], *s;
    grammar_t *g;
    size_t n, i, k, len, found = 0;

    (void) state;
    n = files_of("structured-output/gbnf", ".gbnf", paths, 16);
    if (n == 0) {
        skip();
    }
    for (i = 0; i < n; i++) {
        s = slurp(paths[i], &len);
        assert_non_null(s);
        g = grammar_open_ebnf(s, len, NULL, err, sizeof(err));
        if (g == NULL) {
            fail_msg("%s: %s", paths[i], err);
        }
        for (k = 0; k < sizeof(files) / sizeof(files[0]); k++) {
            if (has_end(paths[i], files[k].name)
                && paths[i][strlen(paths[i]) - strlen(files[k].name) - 1]
                       == '/') {
                check_grammar(grammar_ref(g), paths[i], files[k].texts);
                found++;
            }
        }
        grammar_close(g);
        free(s);
        free(paths[i]);
    }
    assert_int_equal(found, 5);
}

static void
test_refused(void **state)
{
    static const char *const bad[][2] = {{"", "no rule root"},
        {"root ::= x", "no rule x"}, {"x ::= \"a\"", "no rule root"},
        {"root ::= root \"a\" | \"a\"", "begins with itself"},
        {"root ::= e root | \"y\"\ne ::= \"\" | \"x\"", "begins with itself"},
        {"root ::= \"a", "not UTF-8, or an end"}, {"root ::= [a", "an end"},
        {"root ::= (\"a\"", "without an end"}, {"root \"a\"", "::="},
        {"root ::= \"a\" ) ", "no rule"}, {"root ::= \"\\q\"", "not known"},
        {"root ::= \"a\"{,3}", "without a number"},
        {"root ::= \"a\"\nroot ::= \"b\"", "already"},
        {"root ::= \"a\" root", "nothing can satisfy"},
        {"root ::= [z-a]", "backwards"}, {"\xff", "name is missing"}};
    char deep[1200];
    size_t i;

    (void) state;
    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        grammar_t *g = grammar_open_ebnf(
            bad[i][0], strlen(bad[i][0]), NULL, err, sizeof(err));

        if (g != NULL || strstr(err, bad[i][1]) == NULL) {
            fail_msg("%s: %s", bad[i][0], g != NULL ? "taken" : err);
        }
    }
    (void) snprintf(deep, sizeof(deep), "root ::= %01000d", 0);
    memset(deep + 9, '(', 1000);
    assert_null(grammar_open_ebnf(deep, strlen(deep), NULL, err, sizeof(err)));
    assert_non_null(strstr(err, "too deeply"));
}

static void
test_choice(void **state)
{
    static const char *const texts[] = {"yes", "no", "nothing", ""};
    static const size_t len[] = {3, 2, 7, 0};
    grammar_t *g = grammar_open_choice(texts, len, 4, NULL, err, sizeof(err));

    (void) state;
    assert_non_null(g);
    check_grammar(grammar_ref(g), "choice",
        (const char *const[]){
            "yes", "no", "nothing", "", NULL, "noth", "y", "yesno", NULL});
    grammar_close(g);
    assert_null(grammar_open_choice(texts, len, 0, NULL, err, sizeof(err)));

    g = grammar_open_json(NULL, err, sizeof(err));
    assert_non_null(g);
    check_grammar(g, "json",
        (const char *const[]){"{}",
            "{\"a\":[1,{\"b\":null}], \"c\":\"\\u00e9\"}", NULL, "[]",
            "{\"a\":\"\\ud800\"}", "{\"a\":01}", "{,}", NULL});
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_choice),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
