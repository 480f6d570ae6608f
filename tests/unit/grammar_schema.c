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

/* --- real schemas ----------------------------------------------------------- */

static void
test_maskbench(void **state)
{
    char *paths[FILES_MAX];
    size_t n, i, k, compiled = 0, valid = 0, invalid = 0, wrong = 0;
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
        file = load(paths[i]);
        name = strrchr(paths[i], '/') + 1;
        assert_non_null(file);
        g = schema_of(json_object_get(file, "schema"), NULL);
        if (g == NULL) {
            printf("%s: %s\n", name, err);
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
        n, valid, invalid, wrong);
    assert_int_equal(wrong, 0);
    assert_true(compiled * 10 >= n * 9);
}

/* --- the official suites ----------------------------------------------------- */

static void
suite(const char *dir, const char *dialect, size_t counts[4])
{
    char *paths[FILES_MAX];
    json_t *file, *group, *test, *schema;
    size_t n, i, j, k;
    grammar_t *g;
    int want, takes_it;

    n = files_of(dir, ".json", paths, FILES_MAX);
    for (i = 0; i < n; i++) {
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
    size_t counts[4] = {0, 0, 0, 0};

    (void) state;
    suite("structured-output/json-schema-test-suite/draft2020-12",
        "https://json-schema.org/draft/2020-12/schema", counts);
    suite("structured-output/json-schema-test-suite/draft7",
        "http://json-schema.org/draft-07/schema#", counts);
    if (counts[0] == 0) {
        skip();
    }
    printf("%zu of %zu groups, %zu refused, %zu taken wrongly\n", counts[1],
        counts[0], counts[2], counts[3]);
    assert_int_equal(counts[3], 0);
    assert_true(counts[1] * 100 >= counts[0] * 85);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_maskbench),
        cmocka_unit_test(test_suites),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
