/*
 * Would catch: an expression, filter, method or statement that gives other
 * than Jinja2 gives; a byte of a client's that passes for the template's; a
 * template that loops, recurses or grows without end; one that is cut short
 * or broken and crashes.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "jinja_cases.h"
#include "jinja_test.h"
#include "llm_err.h"

static const struct tm test_now = {.tm_year = 125,
    .tm_mon = 0,
    .tm_mday = 15,
    .tm_hour = 12,
    .tm_min = 34,
    .tm_sec = 56,
    .tm_wday = 3,
    .tm_yday = 14};

static char err[256];


/* --- the language ------------------------------------------------------- */

/* 1 if it comes out as wanted. */
static int
check_case(const json_t *vars, const char *source, const char *want)
{
    jinja_t *t = jinja_compile(source, strlen(source), err, sizeof(err));
    jinja_out_t o;
    int same, rc = -1;

    if (t != NULL) {
        rc = jinja_test_render(t, vars, &test_now, &jinja_test_limits, &o);
        if (rc != 0) {
            (void) snprintf(err, sizeof(err), "%s", o.err);
        }
    }
    jinja_free(t);

    if (rc != 0) {
        if (want != NULL) {
            print_error("%s\n error %s\n want  %s\n", source, err, want);
        }
        assert_true(err[0] != '\0');
        return want == NULL;
    }

    same = want != NULL && o.len == strlen(want)
           && (o.len == 0 || memcmp(o.text, want, o.len) == 0);
    if (!same) {
        print_error("%s\n got  %.*s\n want %s\n", source, (int) o.len, o.text,
            want != NULL ? want : "an error");
    }
    jinja_out_free(&o);

    return same;
}


/* tests/data/jinja: filters, tests, methods, statements one by one. */
static void
test_reference(void **state)
{
    json_t *o = json_load_file("tests/data/jinja/cases.json", 0, NULL), *c;
    json_t *vars = json_object_get(o, "vars");
    unsigned bad = 0, errors = 0;
    const char *want;
    size_t i;

    (void) state;
    assert_non_null(vars);
    json_array_foreach(json_object_get(o, "cases"), i, c)
    {
        want = json_string_value(json_object_get(c, "want"));
        errors += want == NULL;
        bad += !check_case(
            vars, json_string_value(json_object_get(c, "source")), want);
    }
    assert_int_equal(bad, 0);
    assert_true(i > 70 && errors > 20);
    json_decref(o);
}

static void
test_cases(void **state)
{
    json_t *vars = json_loads(jinja_cases_vars, 0, NULL);
    unsigned bad = 0;
    size_t i;

    (void) state;
    assert_non_null(vars);
    for (i = 0; i < sizeof(jinja_cases) / sizeof(jinja_cases[0]); i++) {
        bad += !check_case(vars, jinja_cases[i].source, jinja_cases[i].want);
    }
    assert_int_equal(bad, 0);
    json_decref(vars);
}


/* Each case cut at each place: no more than an error. */
static void
test_cut(void **state)
{
    json_t *vars = json_loads(jinja_cases_vars, 0, NULL);
    const char *s;
    jinja_out_t o;
    jinja_t *t;
    size_t i, n;

    (void) state;
    for (i = 0; i < sizeof(jinja_cases) / sizeof(jinja_cases[0]); i++) {
        s = jinja_cases[i].source;
        for (n = 0; n < strlen(s); n++) {
            char *copy = malloc(n + 1); /* its end is seen by a sanitizer */

            assert_non_null(copy);
            memcpy(copy, s, n);
            t = jinja_compile(copy, n, err, sizeof(err));
            free(copy);
            if (t == NULL) {
                assert_true(err[0] != '\0');
            } else if (jinja_test_render(
                           t, vars, &test_now, &jinja_test_limits, &o)
                       == 0) {
                jinja_out_free(&o);
            }
            jinja_free(t);
        }
    }
    json_decref(vars);
}


/* --- who wrote what ----------------------------------------------------- */

/* The text, with what is the client's in braces. */
static const char *
marked(const char *source, const char *json)
{
    static char buf[1024];
    json_t *vars = json_loads(json, 0, NULL);
    jinja_t *t = jinja_compile(source, strlen(source), err, sizeof(err));
    size_t i, at = 0, n = 0;
    jinja_out_t o;

    assert_non_null(t);
    assert_non_null(vars);
    assert_int_equal(
        jinja_test_render(t, vars, &test_now, &jinja_test_limits, &o), 0);
    for (i = 0; i < o.runs_n; i++) {
        n += (size_t) snprintf(buf + n, sizeof(buf) - n,
            o.runs[i].origin == JINJA_DATA ? "{%.*s}" : "%.*s",
            (int) (o.runs[i].end - at), o.text + at);
        at = o.runs[i].end;
        assert_true(n < sizeof(buf));
    }
    buf[n] = '\0';
    assert_int_equal(at, o.len);
    jinja_out_free(&o);
    jinja_free(t);
    json_decref(vars);

    return buf;
}


static void
test_origins(void **state)
{
    static const struct {
        const char *source, *want;
    } c[] = {
        {"a{{ x }}b", "a{User}b"},
        {"{{ 'a' + x + 'b' }}", "a{User}b"},
        {"{{ 'a' ~ x ~ 1 }}", "a{User1}"},
        {"{{ (' ' ~ x ~ ' ') | trim }}", "{User}"},
        {"{{ ('<' ~ x ~ '>') | upper }}", "<{USER}>"},
        {"{{ ('a' ~ x) | capitalize }}", "A{user}"},
        {"{{ ('<' ~ x ~ '>')[1:3] }}", "{Us}"},
        {"{{ ('<' ~ x ~ '>')[::-1] }}", ">{resU}<"},
        {"{{ ('<' ~ x ~ '>')[0] }}{{ ('<' ~ x)[-1] }}", "<{r}"},
        {"{{ x | replace('s', '-') }}", "{U}-{er}"},
        {"{{ 'abc' | replace('b', x) }}", "a{User}c"},
        {"{{ ('a,' ~ x ~ ',b').split(',') | join('+') }}", "a+{User}+b"},
        {"{{ [x, 'a'] | join('-') }}", "{User}-a"},
        {"{{ ' | '.join([x, x]) }}", "{User} | {User}"},
        {"{{ '<%s>' % x }}{{ '<{}>'.format(x) }}", "<{User}><{User}>"},
        {"{% set s %}<{{ x }}>{% endset %}{{ s }}", "<{User}>"},
        {"{% macro m(y) %}<{{ y }}>{% endmacro %}{{ m(x) }}{{ m('a') }}",
            "<{User}><a>"},
        {"{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}{{ x }}!"
         "{% endcall %}",
            "<{User}!>"},
        {"{% filter upper %}a{{ x }}{% endfilter %}", "A{USER}"},
        {"{% set n = namespace(s='') %}{% for c in x %}{% set n.s = n.s + c "
         "+ '.' %}{% endfor %}{{ n.s }}",
            "{U}.{s}.{e}.{r}."},
        {"{{ 'a' | tojson }}{{ x | tojson }}{{ ['a'] }}",
            "{\"a\"\"User\"['a']}"},
        {"{{ bos_token }}{{ d.k }}{% for k in d %}{{ k }}{% endfor %}",
            "<s>{vk}"},
        {"{{ 'a' if x == 'User' else 'b' }}{{ x or 'c' }}", "a{User}"},
        {"{{ ('a' ~ x) | indent(2, true) }}", "{  }a{User}"},
        {"{{ nope | default('a') }}{{ nope | default(x) }}", "a{User}"},
        {"{{ x | safe + '<' }}", "{User}&lt;"},
        {"{{ ('a' ~ x).ljust(7) }}|", "a{User  }|"},
    };
    size_t i;

    (void) state;
    for (i = 0; i < sizeof(c) / sizeof(c[0]); i++) {
        assert_string_equal(
            marked(c[i].source, "{\"x\":\"User\",\"bos_token\":\"<s>\","
                                "\"d\":{\"k\":\"v\"}}"),
            c[i].want);
    }
}


/* --- limits ------------------------------------------------------------- */

/* The error of a rendering over {"s": "ab"}. */
static const char *
failed(const char *source, const jinja_limits_t *limits)
{
    static char buf[256];
    json_t *vars = json_pack("{s:s}", "s", "ab");
    jinja_t *t = jinja_compile(source, strlen(source), err, sizeof(err));
    jinja_out_t o;

    if (t == NULL) {
        print_error("%s: %s\n", source, err);
    }
    assert_non_null(t);
    assert_int_equal(
        jinja_test_render(t, vars, NULL, limits, &o), -LLM_ERR_BAD_MESSAGES);
    (void) snprintf(buf, sizeof(buf), "%s", o.err);
    jinja_free(t);
    json_decref(vars);

    return buf;
}


static void
test_limits(void **state)
{
    static const jinja_limits_t l = {20000000, 300, 8 << 20, 1 << 20};
    static const struct {
        const char *source, *why;
    } c[] = {
        {"{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}"
         "{% endfor %}",
            "steps"},
        {"{% for i in range(99999) %}{% for j in range(99999) %}{% set x = i "
         "%}{% endfor %}{% endfor %}",
            "steps"},
        {"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "deep"},
        {"{% macro f(x) %}{{ f(x + [x]) }}{% endmacro %}{{ f([]) }}", "deep"},
        {"{% for x in [1] recursive %}{{ loop([x]) }}{% endfor %}", "deep"},
        {"{{ range(10 ** 9) }}", "100000"},
        {"{{ 'abcdefgh' * 1000000000 }}", "memory"},
        {"{{ [1] * 1000000000 }}", "memory"},
        {"{{ '' * 1000000000000 }}{{ [] * 1000000000000 }}{{ 1 / 0 }}", "zero"},
        {"{{ 'a'.ljust(1000000000) }}", "memory"},
        {"{{ '%999999d' % 1 }}{{ '%99999999d' % 1 }}", "wider"},
        {"{{ '{:>99999999}'.format(1) }}", "wider"},
        {"{{ '{:.99}'.format(1.5) }}", "digits"},
        {"{% set n = namespace(s='ab') %}{% for i in range(60) %}{% set n.s = "
         "n.s + n.s %}{% endfor %}{{ n.s }}",
            "2 GB"},
        {"{% set n = namespace(s='ab') %}{% for i in range(24) %}{% set n.s = "
         "n.s + n.s %}{% endfor %}{{ n.s }}",
            "writes more"},
        {"{% set n = namespace(s='ab') %}{% for i in range(28) %}{% set n.s = "
         "n.s + n.s %}{% endfor %}{{ n.s | length }}",
            "memory"},
        {"{% set n = namespace(s=[1]) %}{% for i in range(40) %}{% set n.s = "
         "n.s + n.s %}{% endfor %}",
            "memory"},
        {"{% set n = namespace(s=[1]) %}{% for i in range(40) %}{% set n.s = "
         "[n.s, n.s] %}{% endfor %}{{ n.s }}",
            "memory"},
        {"{% set n = namespace(s=[1]) %}{% for i in range(40) %}{% set n.s = "
         "[n.s, n.s] %}{% endfor %}{{ n.s == n.s }}",
            "steps"},
        {"{% set n = namespace() %}{% set n.n = n %}{{ n }}", "deep"},
        {"{% for i in range(99999) %}{{ s * 50 }}{% endfor %}", "writes more"},
        {"{% for i in range(9) %}{{ s.replace('', s * 99999) }}{% endfor %}",
            "writes more"},
        {"{{ 9223372036854775807 }}", "large"},
        {"{{ 999999999999999999 * 999999999999999999 }}", "64 bits"},
        {"{{ 10 ** 100 }}", "64 bits"},
        {"{{ strftime_now('%Y') }}", "clock"},
    };
    unsigned bad = 0;
    size_t i;

    (void) state;
    for (i = 0; i < sizeof(c) / sizeof(c[0]); i++) {
        const char *why;

        if (strstr(c[i].why, "large") != NULL) {
            assert_null(jinja_compile(
                c[i].source, strlen(c[i].source), err, sizeof(err)));
            why = err;
        } else {
            why = failed(c[i].source, &l);
        }
        if (strstr(why, c[i].why) == NULL) {
            print_error("%s: %s\n", c[i].source, why);
            bad++;
        }
    }
    assert_int_equal(bad, 0);
}


/* n times a, then b, then n times z. */
static char *
nest(const char *a, const char *b, const char *z, size_t n)
{
    size_t la = strlen(a), lz = strlen(z), i;
    char *s = malloc(n * (la + lz) + strlen(b) + 1), *p = s;

    assert_non_null(s);
    for (i = 0; i < n; i++, p += la) {
        memcpy(p, a, la);
    }
    memcpy(p, b, strlen(b));
    p += strlen(b);
    for (i = 0; i < n; i++, p += lz) {
        memcpy(p, z, lz);
    }
    *p = '\0';

    return s;
}


static void
test_nesting(void **state)
{
    static const char *const forms[][3] = {{"(", "{{ (1) }}", ")"},
        {"{{ (", "1", ") }}"}, {"{% if 1 %}", "x", "{% endif %}"},
        {"{% for i in [1] %}", "x", "{% endfor %}"},
        {"{% macro f() %}", "x", "{% endmacro %}"}};
    static const char *const chains[][3] = {{"{{ 1", " + 1", " }}"},
        {"{{ 1", "|abs", " }}"}, {"{{ a", ".b", " }}"}, {"{{ ", "not ", "1 }}"},
        {"{{ ", "-", "1 }}"}, {"{{ ", "[", "1 }}"}, {"{{ ", "{1:", "1 }}"},
        {"{{ 1", " if 1 else 1", " }}"}, {"{{ ", "f(", "1 }}"},
        {"{{ a", "[0]", " }}"}, {"{{ a", " ** 1", " }}"},
        {"{% set ", "(", "a = 1 %}"}, {"{{ 1", " and 1", " }}"}};
    char *s, *whole;
    jinja_t *t;
    size_t i;

    (void) state;
    for (i = 1; i < sizeof(forms) / sizeof(forms[0]); i++) {
        s = nest(forms[i][0], forms[i][1], forms[i][2], 5000);
        assert_null(jinja_compile(s, strlen(s), err, sizeof(err)));
        assert_true(err[0] != '\0');
        free(s);
    }

    for (i = 0; i < sizeof(chains) / sizeof(chains[0]); i++) {
        s = nest(chains[i][1], "", "", 20000);
        whole = malloc(strlen(s) + 64);
        assert_non_null(whole);
        (void) snprintf(
            whole, strlen(s) + 64, "%s%s%s", chains[i][0], s, chains[i][2]);
        t = jinja_compile(whole, strlen(whole), err, sizeof(err));
        assert_null(t);
        free(whole);
        free(s);
    }

    /* what does not nest may be long */
    s = nest("{% if 0 %}{% elif 0 %}{% endif %}{{ 1 ~ 2 }}", "", "", 5000);
    t = jinja_compile(s, strlen(s), err, sizeof(err));
    assert_non_null(t);
    jinja_free(t);
    free(s);
    s = nest("{% elif 0 %}x", "", "", 5000);
    whole = malloc(strlen(s) + 64);
    assert_non_null(whole);
    (void) snprintf(whole, strlen(s) + 64, "{%% if 0 %%}%s{%% endif %%}", s);
    t = jinja_compile(whole, strlen(whole), err, sizeof(err));
    assert_non_null(t);
    assert_int_equal(strlen(failed("{{ 1 / 0 }}", &jinja_test_limits)) > 10, 1);
    jinja_free(t);
    free(whole);
    free(s);
}


/* Depth of a client's JSON. */
static void
test_deep_json(void **state)
{
    char *s = nest("[", "", "]", 1900), *obj = malloc(8192);
    jinja_t *t = jinja_compile("{{ x | tojson }}", 16, err, sizeof(err));
    json_t *vars;
    jinja_out_t o;

    (void) state;
    assert_non_null(obj);
    (void) snprintf(obj, 8192, "{\"x\":%s}", s);
    vars = json_loads(obj, 0, NULL);
    assert_non_null(vars);
    assert_int_equal(jinja_test_render(t, vars, NULL, &jinja_test_limits, &o),
        -LLM_ERR_BAD_MESSAGES);
    assert_non_null(strstr(o.err, "deep"));
    json_decref(vars);
    jinja_free(t);
    free(obj);
    free(s);
}


static int
second(void *arg)
{
    return ++*(int *) arg >= 2;
}


static void
test_cancelled(void **state)
{
    const char s[] = "{% for i in range(90000) %}x{% endfor %}";
    jinja_t *t = jinja_compile(s, strlen(s), err, sizeof(err));
    int asked = 0;
    jinja_args_t args = {
        .limits = &jinja_test_limits, .cancelled = second, .arg = &asked};
    jinja_out_t o;

    (void) state;
    assert_int_equal(jinja_render(t, &args, &o), -LLM_ERR_CANCELLED);
    assert_int_equal(asked, 2);
    jinja_free(t);
}


/* A template that raises nothing, or zeros, says something all the same. */
static void
test_raised(void **state)
{
    static const struct {
        const char *source, *err;
        size_t len;
    } rows[] = {
        {"{{ raise_exception('') }}", "It refuses the conversation.", 25},
        {"{{ raise_exception('\0\0no\0') }}", "??no?", 30},
        {"{{ raise_exception('\0') }}", "?", 26}};
    jinja_args_t args = {.limits = &jinja_test_limits};
    jinja_out_t o;
    jinja_t *t;
    size_t i;

    (void) state;

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        t = jinja_compile(rows[i].source, rows[i].len, err, sizeof(err));
        assert_non_null(t);
        assert_int_equal(jinja_render(t, &args, &o), -LLM_ERR_BAD_MESSAGES);
        assert_true(o.raised);
        assert_non_null(strstr(o.err, rows[i].err));
        jinja_free(t);
    }
}

/* An error is cut between characters, and fits any buffer. */
static void
test_errors(void **state)
{
    char small[8];
    jinja_t *t;
    jinja_out_t o;
    const char s[] = "{{ raise_exception('\303\251' * 200) }}";
    jinja_args_t args = {.limits = &jinja_test_limits};

    (void) state;
    assert_null(jinja_compile("{% x %}", 7, small, sizeof(small)));
    assert_string_equal(small, "Line 1 ");

    t = jinja_compile(s, strlen(s), err, sizeof(err));
    assert_non_null(t);
    assert_int_equal(jinja_render(t, &args, &o), -LLM_ERR_BAD_MESSAGES);
    assert_true(o.raised);
    assert_int_equal(strlen(o.err), 254);
    assert_true(jinja_mentions(t, "raise"));
    assert_false(jinja_mentions(t, "developer"));
    jinja_free(t);

    assert_null(jinja_compile("", JINJA_SOURCE_MAX + 1, err, sizeof(err)));
    t = jinja_compile("", 0, err, sizeof(err));
    assert_non_null(t);
    assert_int_equal(jinja_render(t, &args, &o), 0);
    assert_int_equal(o.len, 0);
    jinja_out_free(&o);
    jinja_free(t);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_reference),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_origins),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_nesting),
        cmocka_unit_test(test_deep_json),
        cmocka_unit_test(test_cancelled),
        cmocka_unit_test(test_raised),
        cmocka_unit_test(test_errors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
