/*
 * Would catch: a chat template that renders other than Jinja2 renders it, or
 * takes a conversation that Jinja2 refuses.
 *
 * LLM_DATA/chat-templates: real templates with what Jinja2 3.1 makes of them
 * (expected/), and published renderings.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "jinja_test.h"

#include <glob.h>

/* 2025-01-15 12:34:56, as expected/ has it; 2025-07-10 of the published. */
static const struct tm expected_now = {.tm_year = 125,
    .tm_mon = 0,
    .tm_mday = 15,
    .tm_hour = 12,
    .tm_min = 34,
    .tm_sec = 56,
    .tm_wday = 3,
    .tm_yday = 14};
static const struct tm published_now = {
    .tm_year = 125, .tm_mon = 6, .tm_mday = 10, .tm_wday = 4, .tm_yday = 190};

static unsigned rendered, refused;


/* The runs cover the text, and neighbours differ. */
static void
check_runs(const jinja_out_t *o)
{
    size_t i;
    uint32_t at = 0;

    for (i = 0; i < o->runs_n; i++) {
        assert_true(o->runs[i].end > at);
        assert_true(i == 0 || o->runs[i].origin != o->runs[i - 1].origin);
        at = o->runs[i].end;
    }
    assert_int_equal(at, o->len);
}


/* 1 if the rendering is as wanted (NULL: refused), else says what is not. */
static int
check(const char *what, const jinja_t *t, const json_t *vars,
    const struct tm *now, const json_t *want)
{
    jinja_out_t o;
    size_t i;
    int rc = jinja_test_render(t, vars, now, &jinja_test_limits, &o);

    if (rc != 0) {
        refused++;
        if (want == NULL) {
            assert_true(o.err[0] != '\0');
            return 1;
        }
        print_error("%s: %s\n", what, o.err);
        return 0;
    }

    rendered++;
    check_runs(&o);
    if (want == NULL) {
        print_error("%s: is to be refused\n", what);
        jinja_out_free(&o);
        return 0;
    }
    for (i = 0; i < o.len && i < json_string_length(want)
                && o.text[i] == json_string_value(want)[i];
         i++) {
    }
    rc = i == o.len && i == json_string_length(want);
    if (!rc) {
        print_error("%s: differs at byte %zu\n got  %.*s\n want %.60s\n", what,
            i, (int) (o.len - i < 60 ? o.len - i : 60), o.text + i,
            json_string_value(want) + i);
    }
    jinja_out_free(&o);

    return rc;
}


/* All cases of one file of expected/; how many of them are wrong. */
static unsigned
check_file(const char *path)
{
    char name[512], err[256], *src;
    const char *base = strrchr(path, '/') + 1;
    json_t *j = json_load_file(path, 0, NULL), *vars, *c;
    unsigned bad = 0;
    jinja_t *t;
    size_t len, i;

    assert_non_null(j);
    (void) snprintf(name, sizeof(name), "chat-templates/%s",
        json_string_value(json_object_get(j, "template")));
    src = jinja_test_file(name, &len);
    assert_non_null(src);
    t = jinja_compile(src, len, err, sizeof(err));
    if (t == NULL) {
        print_error("%s: %s\n", base, err);
    }

    json_array_foreach(json_object_get(j, "cases"), i, c)
    {
        const char *context = json_string_value(json_object_get(c, "context"));
        char *text, file[256];

        (void) snprintf(
            file, sizeof(file), "chat-templates/contexts/%s.json", context);
        text = jinja_test_file(file, &len);
        assert_non_null(text);
        vars = json_loadb(text, len, JSON_ALLOW_NUL, NULL);
        assert_non_null(vars);
        (void) snprintf(name, sizeof(name), "%s, %s", base, context);
        bad += t == NULL
               || !check(
                   name, t, vars, &expected_now, json_object_get(c, "output"));
        json_decref(vars);
        free(text);
    }

    jinja_free(t);
    free(src);
    json_decref(j);

    return bad;
}


static void
test_expected(void **state)
{
    const char *dir = getenv("LLM_DATA");
    char pattern[512];
    unsigned bad = 0;
    glob_t g;
    size_t i;

    (void) state;
    (void) snprintf(pattern, sizeof(pattern),
        "%s/chat-templates/expected/*.json",
        dir != NULL ? dir : "../shared/data");
    if (glob(pattern, 0, NULL, &g) != 0) {
        skip();
    }

    rendered = refused = 0;
    for (i = 0; i < g.gl_pathc; i++) {
        bad += check_file(g.gl_pathv[i]);
    }
    globfree(&g);

    print_message(
        "%u rendered, %u refused, %u wrong\n", rendered, refused, bad);
    assert_int_equal(bad, 0);
    assert_int_equal(rendered, 494);
    assert_int_equal(refused, 66);
}


/* One published rendering was made by an engine that prints {"a": ... */
static void
test_published(void **state)
{
    size_t len, i;
    char *text =
        jinja_test_file("chat-templates/published-renderings.json", &len);
    char err[256];
    json_t *j, *c, *want;
    const char *src;
    unsigned bad = 0, differ = 0;
    jinja_out_t o;
    jinja_t *t;

    (void) state;
    if (text == NULL) {
        skip();
    }
    j = json_loadb(text, len, 0, NULL);
    assert_non_null(j);
    assert_int_equal(json_array_size(j), 27);

    json_array_foreach(j, i, c)
    {
        src = json_string_value(json_object_get(c, "chat_template"));
        want = json_object_get(c, "expected");
        t = jinja_compile(src, strlen(src), err, sizeof(err));
        assert_non_null(t);
        if (json_is_true(json_object_get(c, "jinja2_agrees"))) {
            bad += !check(json_string_value(json_object_get(c, "name")), t,
                json_object_get(c, "data"), &published_now, want);
        } else {
            differ++;
            assert_int_equal(jinja_test_render(t, json_object_get(c, "data"),
                                 &published_now, &jinja_test_limits, &o),
                0);
            assert_non_null(memmem(o.text, o.len, "{'", 2));
            assert_null(strstr(json_string_value(want), "{'"));
            jinja_out_free(&o);
        }
        jinja_free(t);
    }
    json_decref(j);
    free(text);

    assert_int_equal(bad, 0);
    assert_int_equal(differ, 1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_expected),
        cmocka_unit_test(test_published),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
