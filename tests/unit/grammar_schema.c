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

/* A schema, and what the refusal says. */
static const char *const bad[][2] = {
    {"{\"properties\":{\"a\":{\"uniqueItems\":true}}}",
        "uniqueItems at #/properties/a"},
    {"{\"uniqueItems\":true,\"items\":{\"enum\":[1,12]}}", "uniqueItems at #"},
    {"{\"contains\":{\"type\":\"null\"},\"prefixItems\":[true],"
     "\"maxContains\":1}",
        "contains at #"},
    {"{\"type\":\"integer\",\"multipleOf\":65537}", "multipleOf at #"},
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
    {"{\"maximum\":18446744073709551615}", "more than 64 bits"},
    {"{\"maximum\":1e400}", "more than 64 bits"},
    {"{\"not\":{\"additionalProperties\":{\"type\":\"null\"}}}",
        "additionalProperties at #/not"},
    {"{\"not\":{\"patternProperties\":{\"a\":{\"type\":\"null\"}}}}",
        "patternProperties at #/not"},
    {"{\"items\":{\"not\":{\"propertyNames\":{\"maxLength\":2}}}}",
        "propertyNames at #/items/not"},
    {"{\"anyOf\":[{},{\"uniqueItems\":true}]}", "uniqueItems at #/anyOf/1"},
    {"{\"$dynamicRef\":\"#x\"}", "$dynamicRef at #"},
    {"{\"$recursiveRef\":\"#\"}", "$recursiveRef at #"},
    {"{\"$ref\":\"http://example.com/x\"}", "$ref at #"},
    {"{\"properties\":{\"a\":{\"$ref\":\"other.json\"}}}",
        "$ref at #/properties/a"},
    {"{\"multipleOf\":1e-400}", "multipleOf at #"},
    {"{\"disallow\":\"string\"}", "disallow at #"},
    /* values that are none */
    {"{\"type\":[\"string\",null]}", "type at #: names no type"},
    {"{\"items\":\"string\"}", "items at #: is no schema"},
    {"{\"items\":[true,1]}", "items at #: is no schema"},
    {"{\"prefixItems\":{}}", "prefixItems at #: is no list"},
    {"{\"additionalItems\":1}", "additionalItems at #"},
    {"{\"minContains\":\"a\"}", "minContains at #: is no whole number"},
    {"{\"maxContains\":-1}", "maxContains at #: is no whole number"},
    {"{\"properties\":[]}", "properties at #: is no object"},
    {"{\"items\":{\"properties\":{\"b\":\"int\"}}}",
        "properties at #/items: is no object of schemas"},
    {"{\"patternProperties\":{\"a\":1}}", "patternProperties at #"},
    {"{\"additionalProperties\":\"no\"}", "additionalProperties at #"},
    {"{\"dependentRequired\":{\"a\":\"b\"}}", "dependentRequired at #"},
    {"{\"dependentSchemas\":{\"a\":[]}}", "dependentSchemas at #"},
    {"{\"not\":{\"dependencies\":{\"a\":[1]}}}", "dependencies at #/not"},
    {"{\"if\":1}", "if at #: is no schema"},
    {"{\"if\":{},\"else\":1}", "#: is no schema"},
    {"{\"format\":7}", "format at #: is no string"},
    {"{\"required\":\"a\"}", "required at #: is no array"},
    {"{\"type\":\"integer\",\"minimum\":3,\"maximum\":2}",
        "nothing can satisfy"}};

static void
test_refused(void **state)
{
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

/* What a schema takes, and what it does not: + and - before each text. */
static const struct {
    const char *schema, *texts[14];
} meanings[] = {/* escapes where none is needed */
    {"{\"type\":\"string\",\"maxLength\":1}",
        {"+\"\\u0061\"", "+\"\\ud83d\\ude00\"", "-\"\\ud83d\"",
            "-\"\\u0061b\""}},
    {"{\"enum\":[\"\u00e9/\",\"\U0001f600\"]}",
        {"+\"\u00e9/\"", "+\"\\u00e9/\"", "+\"\\u00E9\\/\"",
            "+\"\\ud83d\\uDE00\"", "-\"\\u00e8/\"", "-\"\\ud83d\\ude01\""}},
    {"{\"type\":\"object\"}", {"+{\"\\u0061\":1}"}},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"const\":1}}}",
        {"+{\"\\u00e9\":2}", "+{\"\\ud83d\\ude00\":2}", "-{\"\\u0061\":2}",
            "-{\"\\ud83d\":2}"}},
    {"{\"type\":\"object\",\"properties\":{\"\u00e9\":{\"const\":1}}}",
        {"+{\"\u00e9\":1}", "-{\"\\u00e9\":2}"}},
    /* exponents */
    {"{\"type\":\"number\",\"minimum\":250,\"maximum\":3e5}",
        {"+2.5e2", "+2.5E+02", "-2.4e2", "+9.99e4", "+3e5", "-3.1e5", "-1e6",
            "-1e-3", "-1e1", "-0e5", "+300000", "-25e1"}},
    {"{\"type\":\"number\",\"exclusiveMinimum\":-0.02,"
     "\"exclusiveMaximum\":5}",
        {"+1e-7", "+-1e-2", "+-1.99e-02", "-1e1", "-5e0", "+4.9e0", "-2e1",
            "+-1e-9", "--2e-2", "--1e0", "--1e5"}},
    {"{\"type\":\"number\",\"minimum\":0}",
        {"+1e10", "+1e-10", "--1e10", "--1e-10", "+0", "-1e100"}},
    {"{\"type\":\"integer\",\"minimum\":0}", {"-1e3", "+1000"}},
    /* multiples */
    {"{\"type\":\"integer\",\"multipleOf\":5003}",
        {"+10006", "-10007", "+0", "+-5003", "-5003.0"}},
    {"{\"type\":\"integer\",\"multipleOf\":3000000}",
        {"+9000000", "-1000000", "+0", "-3000001", "--3000000.0"}},
    {"{\"type\":\"number\",\"multipleOf\":2.5}",
        {"+7.5", "+10", "+-2.50", "-7.25", "-3", "+0.0", "-7.6"}},
    {"{\"type\":\"number\",\"multipleOf\":0.25}",
        {"+0.75", "+0.5", "+1", "-0.3", "-0.751", "+0.7500"}},
    {"{\"not\":{\"multipleOf\":2},\"type\":\"integer\"}", {"+3", "-4"}},
    /* unique items */
    {"{\"type\":\"array\",\"uniqueItems\":true,\"minItems\":1,"
     "\"items\":{\"enum\":[\"a\",\"ab\",3,null]}}",
        {"+[\"a\"]", "+[\"ab\", 3 ,\"a\"]", "-[]", "-[\"a\",\"a\"]",
            "-[3,null,3]", "+[null,3,\"ab\",\"a\"]", "-[\"b\"]", "-{\"a\"}"}},
    {"{\"items\":{\"type\":\"boolean\"},\"uniqueItems\":true,"
     "\"type\":\"array\"}",
        {"+[]", "+[true,false]", "-[true,true]", "-[false,true,false]"}},
    {"{\"enum\":[[1,1],[1,2]],\"uniqueItems\":true}", {"-[1,1]", "+[1,2]"}},
    {"{\"items\":{\"enum\":[\"a\"]},\"uniqueItems\":true,\"type\":"
     "\"array\",\"maxItems\":5}",
        {"+[\"a\"]", "-[\"a\",\"a\"]"}},
    /* items that match */
    {"{\"type\":\"array\",\"contains\":{\"type\":\"integer\"}}",
        {"+[1]", "+[\"a\", 1 ]", "+[1,\"a\"]", "-[]", "-[\"a\"]",
            "+[\"a\",1,2,null]"}},
    {"{\"type\":\"array\",\"contains\":{\"const\":5},\"minItems\":3,"
     "\"maxItems\":4,\"items\":{\"maximum\":6,\"type\":\"integer\"}}",
        {"+[5,1,2]", "+[1,2,3,5]", "-[5,1]", "-[1,2,3]", "-[5,5,5,5,5]",
            "-[1,5,7]"}},
    {"{\"type\":\"array\",\"contains\":{\"const\":5},\"minContains\":2,"
     "\"maxContains\":3}",
        {"-[5]", "+[5,5]", "+[1,5,2,5,3]", "+[5,5,5,1]", "-[5,5,5,5]"}},
    {"{\"type\":\"array\",\"contains\":{\"const\":5},\"minContains\":0,"
     "\"maxContains\":1}",
        {"+[]", "+[1]", "+[5,1]", "-[5,5]"}},
    {"{\"enum\":[[1,2],[3]],\"contains\":{\"const\":2}}", {"+[1,2]", "-[3]"}},
    {"{\"type\":\"array\",\"prefixItems\":[{\"type\":\"integer\"},"
     "{\"type\":\"string\"}],\"contains\":{\"const\":\"x\"}}",
        {"+[1,\"x\"]", "-[1]", "-[1,\"y\"]", "+[1,\"y\",\"x\"]",
            "+[1, \"y\" ,2,\"x\",3]", "-[]", "-[\"x\"]", "+[1,\"x\",5,\"x\"]",
            "-[1,\"y\",2]"}},
    {"{\"type\":\"array\",\"prefixItems\":[{\"type\":\"integer\"},true],"
     "\"items\":false,\"contains\":{\"minimum\":5,\"type\":\"integer\"}}",
        {"+[5]", "+[6,null]", "-[1,null]", "+[1,7]", "-[1,7,8]", "-[4]"}},
    /* not */
    {"{\"type\":\"array\",\"not\":{\"items\":{\"type\":\"integer\"}}}",
        {"-[]", "-[1,2]", "+[1,\"a\"]", "+[\"a\"]"}},
    {"{\"type\":\"array\",\"not\":{\"contains\":{\"const\":1}}}",
        {"+[]", "-[1]", "-[2,1]", "+[2,3]"}},
    /* a key that comes again is no other one */
    {"{\"type\":\"object\",\"minProperties\":2}",
        {"-{\"a\":1,\"a\":2}", "+{\"a\":1,\"b\":2}", "-{\"a\":1}",
            "+{\"a\":1,\"a\":2,\"\":0}"}},
    {"{\"type\":\"object\",\"minProperties\":2,\"properties\":"
     "{\"a\":true}}",
        {"-{\"a\":1}", "+{\"a\":1,\"ab\":2}", "-{\"b\":1,\"b\":2}"}}};

static void
test_meaning(void **state)
{
    const char *const *text;
    grammar_t *g;
    size_t i;

    (void) state;
    for (i = 0; i < sizeof(meanings) / sizeof(meanings[0]); i++) {
        g = grammar_open_schema(meanings[i].schema, strlen(meanings[i].schema),
            NULL, err, sizeof(err));
        if (g == NULL) {
            fail_msg("%s: %s", meanings[i].schema, err);
        }
        for (text = meanings[i].texts; *text != NULL; text++) {
            if (takes(g, *text + 1, strlen(*text + 1)) != (**text == '+')) {
                fail_msg("%s: %s", meanings[i].schema, *text);
            }
        }
        grammar_close(g);
    }
}

/* Names whose escapes begin alike: when those were there, no backslash may
 * come, as nothing could follow it. */
static void
test_escaped_names(void **state)
{
    static const char s[] = "{\"properties\":{\"\\\"x\":{},\"A\":{},\"\\\\y\":"
                            "{}},\"additionalProperties\":false,\"type\":"
                            "\"object\"}",
                      text[] = "{\"\\\"x\":1,\"\\\\y\":1,\"\\";
    grammar_t *g = grammar_open_schema(s, strlen(s), NULL, err, sizeof(err));
    grammar_state_t st = {NULL, 0, 0, 0};

    (void) state;
    assert_non_null(g);
    assert_int_equal(grammar_begin(g, &st), 0);
    assert_int_equal(
        grammar_feed(g, &st, text, strlen(text)), strlen(text) - 1);
    assert_int_equal(grammar_feed(g, &st, "A\":2}", 5), 5);
    assert_true(grammar_can_end(g, &st));
    grammar_state_free(&st);
    grammar_close(g);
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
        cmocka_unit_test(test_meaning),
        cmocka_unit_test(test_escaped_names),
        cmocka_unit_test(test_zero),
        cmocka_unit_test(test_hostile),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
