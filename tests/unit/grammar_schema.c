/*
 * Would catch: an instance taken that its schema forbids, or refused that it
 * allows, over real schemas and the official suites; a keyword that is ignored;
 * a text that is stuck: with nothing that may come next and no end.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "brief.h"
#include "grammar_test.h"

#include <jansson.h>

#define FILES_MAX 400

static char err[600];

static grammar_t *
schema_of(const json_t *schema, const grammar_opts_t *o)
{
    char *s = json_dumps(schema, JSON_ENCODE_ANY);
    grammar_t *g;

    assert_non_null(s);
    err[0] = '\0';
    g = grammar_open_schema(s, strlen(s), o, err, sizeof(err));
    free(s);

    return g;
}

static int
takes_value(const grammar_t *g, const json_t *v, size_t flags)
{
    char *s = json_dumps(v, JSON_ENCODE_ANY | flags);
    int yes;

    assert_non_null(s);
    yes = takes(g, s, strlen(s));
    free(s);

    return yes;
}

static json_t *
load(const char *path)
{
    json_error_t e;
    json_t *v = json_load_file(path, JSON_DECODE_ANY | JSON_ALLOW_NUL, &e);

    if (v == NULL) {
        printf("%s: %s\n", path, e.text);
    }

    return v;
}

/* --- real schemas ------------------------------------------------------- */

static void
test_maskbench(void **state)
{
    char *paths[FILES_MAX];
    size_t n, i, k, compiled = 0, valid = 0, invalid = 0, wrong = 0;
    size_t tried = 0;
    json_t *file, *test;
    const char *name;
    grammar_t *g;
    int want;

    (void) state;
    n = files_of("structured-output/maskbench", ".json", paths, FILES_MAX);
    if (n == 0) {
        skip();
    }
    for (i = 0; i < n; i++) {
        if (brief() && i % 4 != 0) {
            free(paths[i]);
            continue;
        }
        tried++;
        file = load(paths[i]);
        name = strrchr(paths[i], '/') + 1;
        assert_non_null(file);
        g = schema_of(json_object_get(file, "schema"), NULL);
        if (g == NULL) {
            if (getenv("GRAMMAR_VERBOSE") != NULL) {
                printf("%s: %s\n", name, err);
            }
        } else {
            compiled++;
            json_array_foreach(json_object_get(file, "tests"), k, test)
            {
                want = json_is_true(json_object_get(test, "valid"));
                *(want ? &valid : &invalid) += 1;
                if (takes_value(g, json_object_get(test, "data"),
                        JSON_REAL_PRECISION(15))
                    != want) {
                    printf("%s %zu: %s\n", name, k, want ? "refused" : "TAKEN");
                    wrong++;
                }
            }
            grammar_close(g);
        }
        json_decref(file);
        free(paths[i]);
    }
    printf("%zu of %zu schemas, %zu valid, %zu invalid, %zu wrong\n", compiled,
        tried, valid, invalid, wrong);
    assert_int_equal(wrong, 0);
    assert_true(brief() || compiled * 10 >= tried * 9);
}

/* --- the official suites ------------------------------------------------ */

static void
suite(const char *dir, const char *dialect, size_t counts[5])
{
    char *paths[FILES_MAX];
    json_t *file, *group, *test, *schema;
    size_t n, i, j, k;
    grammar_t *g;
    int want, takes_it;

    n = files_of(dir, ".json", paths, FILES_MAX);
    for (i = 0; i < n; i++) {
        if (brief() && i % 4 != 0) {
            free(paths[i]);
            continue;
        }
        file = load(paths[i]);
        json_array_foreach(file, j, group)
        {
            schema = json_object_get(group, "schema");
            if (json_is_object(schema)
                && json_object_get(schema, "$schema") == NULL) {
                (void) json_object_set_new(
                    schema, "$schema", json_string(dialect));
            }
            g = schema_of(schema, NULL);
            if (g == NULL && strstr(err, "not in this document") != NULL) {
                counts[4]++;
                continue;
            }
            counts[0]++;
            if (g == NULL && strstr(err, "nothing can satisfy") != NULL) {
                counts[1]++;
                json_array_foreach(json_object_get(group, "tests"), k, test)
                {
                    if (json_is_true(json_object_get(test, "valid"))) {
                        counts[2]++;
                        printf("%s %s: empty\n", strrchr(paths[i], '/') + 1,
                            json_string_value(
                                json_object_get(group, "description")));
                        break;
                    }
                }
                continue;
            }
            if (g == NULL) {
                if (getenv("GRAMMAR_VERBOSE") != NULL) {
                    printf("%s: %s\n", strrchr(paths[i], '/') + 1, err);
                }
                continue;
            }
            counts[1]++;
            json_array_foreach(json_object_get(group, "tests"), k, test)
            {
                want = json_is_true(json_object_get(test, "valid"));
                takes_it = takes_value(g, json_object_get(test, "data"),
                    JSON_COMPACT | JSON_REAL_PRECISION(15));
                if (want != takes_it) {
                    counts[want ? 2 : 3]++;
                    if (!want || getenv("GRAMMAR_VERBOSE") != NULL) {
                        printf("%s, %s, %s: %s\n", strrchr(paths[i], '/') + 1,
                            json_string_value(
                                json_object_get(group, "description")),
                            json_string_value(
                                json_object_get(test, "description")),
                            want ? "refused" : "TAKEN");
                    }
                }
            }
            grammar_close(g);
        }
        json_decref(file);
        free(paths[i]);
    }
}

static void
test_suites(void **state)
{
    size_t counts[5] = {0, 0, 0, 0, 0};

    (void) state;
    suite("structured-output/json-schema-test-suite/draft2020-12",
        "https://json-schema.org/draft/2020-12/schema", counts);
    suite("structured-output/json-schema-test-suite/draft7",
        "http://json-schema.org/draft-07/schema#", counts);
    if (counts[0] == 0) {
        skip();
    }
    printf("%zu of %zu groups, %zu with remote references apart; "
           "%zu instances refused, %zu taken wrongly\n",
        counts[1], counts[0], counts[4], counts[2], counts[3]);
    assert_int_equal(counts[3], 0);
    assert_true(brief() || counts[1] * 100 >= counts[0] * 85);
}

/* --- our own ------------------------------------------------------------ */

static void
test_refused(void **state)
{
    static const char *const bad[][2] = {
        {"{\"properties\":{\"a\":{\"uniqueItems\":true}}}",
            "uniqueItems at #/properties/a"},
        {"{\"contains\":{\"type\":\"null\"}}", "contains at #"},
        {"{\"$ref\":\"#/$defs/x\"}", "$ref at #: leads to no schema"},
        {"{\"type\":\"strin\"}", "type at #: names no type"},
        {"{\"pattern\":\"(?=a)\"}", "look-around"},
        {"{\"format\":\"idn-email\"}", "format at #: idn-email"},
        {"{\"maxLength\":-1}", "maxLength at #"}, {"{", "no JSON"},
        {"[]", "no object"}, {"false", "nothing can satisfy"},
        {"{\"type\":\"object\",\"required\":[\"a\"],\"properties\":"
         "{\"a\":{\"$ref\":\"#\"}}}",
            "nothing can satisfy"},
        {"{\"enum\":[]}", "nothing can satisfy"},
        {"{\"$ref\":\"#/$defs/a%4\",\"$defs\":{\"a\":{}}}",
            "$ref at #: leads to no schema"},
        {"{\"not\":{\"dependencies\":{\"a\":[1]}}}", "nothing can satisfy"},
        {"{\"type\":\"integer\",\"minimum\":3,\"maximum\":2}",
            "nothing can satisfy"}};
    static const char *const left[] = {
        "{\"anyOf\":[{},{},{},{},{}],\"unevaluatedProperties\":false}",
        "{\"anyOf\":1}", "{\"oneOf\":1}", "{\"if\":1,\"then\":false}"};
    char warn[200] = "";
    grammar_opts_t o = {.lenient = 1, .warn = warn, .warn_len = sizeof(warn)};
    grammar_t *g;
    size_t i;

    (void) state;
    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        g = grammar_open_schema(
            bad[i][0], strlen(bad[i][0]), NULL, err, sizeof(err));
        if (g != NULL || strstr(err, bad[i][1]) == NULL) {
            fail_msg("%s: %s", bad[i][0], g != NULL ? "taken" : err);
        }
    }

    g = grammar_open_schema(bad[0][0], strlen(bad[0][0]), &o, err, sizeof(err));
    assert_non_null(g);
    assert_non_null(strstr(warn, "uniqueItems at #/properties/a is ignored"));
    grammar_close(g);

    /* what is left out asks for nothing */
    for (i = 0; i < sizeof(left) / sizeof(left[0]); i++) {
        g = grammar_open_schema(left[i], strlen(left[i]), &o, err, sizeof(err));
        assert_non_null(g);
        assert_true(takes(g, "7", 1));
        grammar_close(g);
    }
}

/* A pattern is all of its text, whatever is in it. */
static void
test_zero(void **state)
{
    static const char s[] = "{\"pattern\":\"^a\\u0000b$\"}";
    grammar_t *g = grammar_open_schema(s, strlen(s), NULL, err, sizeof(err));

    (void) state;
    assert_non_null(g);
    assert_true(takes(g, "\"a\\u0000b\"", 10));
    assert_false(takes(g, "\"a\"", 3));
    grammar_close(g);
}

static void
test_hostile(void **state)
{
    static const char *const parts[][3] = {
        /* nested so deep, combined so often, counted so far */
        {"{\"items\":", "true", "}"}, {"{\"not\":", "{}", "}"},
        {"{\"anyOf\":[{\"minimum\":1},", "{\"maximum\":1}", "]}"}};
    static const char *const wide[] = {"{\"pattern\":\"(a|b)*a(a|b){30}$\"}",
        "{\"pattern\":\"((a{0,99}){0,99}){0,99}\"}",
        "{\"pattern\":\"^(\\\\S+\\\\s+){0,5000}$\",\"maxLength\":9000}",
        "{\"allOf\":[{\"$ref\":\"#\"},{\"$ref\":\"#/allOf/0\"}]}",
        "{\"$ref\":\"#\"}"};
    static char s[65536];
    size_t i, k, n;
    grammar_t *g;

    (void) state;
    for (i = 0; i < 3; i++) {
        for (k = n = 0; k < 900; k++) {
            n += (size_t) sprintf(s + n, "%s", parts[i][0]);
        }
        n += (size_t) sprintf(s + n, "%s", parts[i][1]);
        for (k = 0; k < 900; k++) {
            n += (size_t) sprintf(s + n, "%s", parts[i][2]);
        }
        g = grammar_open_schema(s, n, NULL, err, sizeof(err));
        assert_null(g);
        assert_non_null(strstr(err, "deeply"));
        for (k = 0; k < n; k += 997) {
            assert_null(grammar_open_schema(s, k, NULL, err, sizeof(err)));
        }
    }
    for (i = 0; i < sizeof(wide) / sizeof(wide[0]); i++) {
        err[0] = '\0';
        g = grammar_open_schema(
            wide[i], strlen(wide[i]), NULL, err, sizeof(err));
        assert_true(g != NULL || err[0] != '\0');
        grammar_close(g);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_maskbench),
        cmocka_unit_test(test_suites),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_zero),
        cmocka_unit_test(test_hostile),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
