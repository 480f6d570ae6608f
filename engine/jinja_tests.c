/*
 * What can stand behind `is`.
 *
 * DESIGN.  Rows; each is a function of what is tested and up to one argument.
 * A comparison is also called by its sign, as selectattr takes it: "eq", "==".
 */
#include "jinja_impl.h"


/* A test that looks at nothing but the value. */
#define PREDICATE(name, holds)                                                 \
    static jv_t test_##name(                                                   \
        jrun_t *r, jv_t v, const jv_t *a, const jargs_t *raw)                  \
    {                                                                          \
        (void) r, (void) a, (void) raw;                                        \
        assert(v.t != J_ABSENT);                                               \
        return jinja_bool(holds);                                              \
    }

PREDICATE(defined, v.t != J_UNDEF)
PREDICATE(undefined, v.t == J_UNDEF)
PREDICATE(none, v.t == J_NONE)
PREDICATE(boolean, v.t == J_BOOL)
PREDICATE(true, v.t == J_BOOL && v.i != 0)
PREDICATE(false, v.t == J_BOOL && v.i == 0)
PREDICATE(integer, v.t == J_INT)
PREDICATE(float, v.t == J_FLOAT)
PREDICATE(number, jinja_is_number(v))
PREDICATE(string, v.t == J_STR)
PREDICATE(mapping, v.t == J_DICT)
PREDICATE(iterable, v.t == J_UNDEF || v.t == J_STR || v.t == J_LIST
                        || v.t == J_TUPLE || v.t == J_VIEW || v.t == J_GEN
                        || v.t == J_RANGE || v.t == J_DICT || v.t == J_LOOP)

/* What has a length and items: to Python an undefined value has, too. */
PREDICATE(sequence, v.t == J_UNDEF || v.t == J_STR || v.t == J_LIST
                        || v.t == J_TUPLE || v.t == J_RANGE || v.t == J_DICT)
PREDICATE(callable, v.t == J_MACRO || v.t == J_FUNC || v.t == J_METHOD
                        || v.t == J_LOOP || v.t == J_JOINER || v.t == J_UNDEF)
PREDICATE(escaped, v.t == J_STR && v.s->markup)


/* Small numbers are one object in Python, and large ones here too. */
static jv_t
test_sameas(jrun_t *r, jv_t v, const jv_t *a, const jargs_t *raw)
{
    assert(a[0].t != J_ABSENT);
    (void) r, (void) raw;
    return jinja_bool(jinja_same(v, a[0]));
}


#define COMPARISON(name, op)                                                   \
    static jv_t test_##name(                                                   \
        jrun_t *r, jv_t v, const jv_t *a, const jargs_t *raw)                  \
    {                                                                          \
        (void) raw;                                                            \
        return jinja_compare(&r->c, op, v, a[0]);                              \
    }

COMPARISON(eq, T_EQ)
COMPARISON(ne, T_NE)
COMPARISON(lt, T_LT)
COMPARISON(le, T_LE)
COMPARISON(gt, T_GT)
COMPARISON(ge, T_GE)
COMPARISON(in, T_IN)


/* By zero is a failure. */
static jv_t
test_divisibleby(jrun_t *r, jv_t v, const jv_t *a, const jargs_t *raw)
{
    assert(a[0].t != J_ABSENT);
    (void) raw;
    return jinja_bool(!jinja_true(&r->c, jinja_binary(&r->c, T_MOD, v, a[0])));
}


/* Of floats too, as Python's remainder. */
static jv_t
test_odd(jrun_t *r, jv_t v, const jv_t *a, const jargs_t *raw)
{
    assert(v.t != J_ABSENT);
    (void) a, (void) raw;
    v = jinja_binary(&r->c, T_MOD, v, jinja_int(2));
    return jinja_bool(jinja_eq(&r->c, v, jinja_int(1)));
}


/* The same. */
static jv_t
test_even(jrun_t *r, jv_t v, const jv_t *a, const jargs_t *raw)
{
    assert(v.t != J_ABSENT);
    (void) a, (void) raw;
    v = jinja_binary(&r->c, T_MOD, v, jinja_int(2));
    return jinja_bool(jinja_eq(&r->c, v, jinja_int(0)));
}


/* Is it in one case, with at least one letter that has cases? */
static int
test_cased(jrun_t *r, jv_t v, int how)
{
    jstr_t *s = jinja_to_str(&r->c, v), *as, *other;

    as = jinja_text_case(&r->c, s, how);
    other = jinja_text_case(
        &r->c, s, how == JINJA_LOWER ? JINJA_UPPER : JINJA_LOWER);

    return jinja_str_eq(&r->c, s, as) && !jinja_str_eq(&r->c, s, other);
}


/* Of anything, as its text. */
static jv_t
test_lower(jrun_t *r, jv_t v, const jv_t *a, const jargs_t *raw)
{
    assert(v.t != J_ABSENT);
    (void) a, (void) raw;
    return jinja_bool(test_cased(r, v, JINJA_LOWER));
}


/* The same. */
static jv_t
test_upper(jrun_t *r, jv_t v, const jv_t *a, const jargs_t *raw)
{
    assert(v.t != J_ABSENT);
    (void) a, (void) raw;
    return jinja_bool(test_cased(r, v, JINJA_UPPER));
}


/* Is there a filter so called? */
static jv_t
test_filter(jrun_t *r, jv_t v, const jv_t *a, const jargs_t *raw)
{
    assert(v.t != J_ABSENT);
    (void) a, (void) raw;
    return jinja_bool(
        v.t == J_STR
        && jinja_filter(jinja_str_flat(&r->c, v.s)->s, v.s->len) != NULL);
}


/* Is there a test so called? */
static jv_t
test_test(jrun_t *r, jv_t v, const jv_t *a, const jargs_t *raw)
{
    assert(v.t != J_ABSENT);
    (void) a, (void) raw;
    return jinja_bool(
        v.t == J_STR
        && jinja_test(jinja_str_flat(&r->c, v.s)->s, v.s->len) != NULL);
}


static const jrow_t tests[] = {
    {"defined", 0, {NULL}, test_defined, 0},
    {"undefined", 0, {NULL}, test_undefined, 0},
    {"none", 0, {NULL}, test_none, 0},
    {"boolean", 0, {NULL}, test_boolean, 0},
    {"true", 0, {NULL}, test_true, 0},
    {"false", 0, {NULL}, test_false, 0},
    {"integer", 0, {NULL}, test_integer, 0},
    {"float", 0, {NULL}, test_float, 0},
    {"number", 0, {NULL}, test_number, 0},
    {"string", 0, {NULL}, test_string, 0},
    {"mapping", 0, {NULL}, test_mapping, 0},
    {"iterable", 0, {NULL}, test_iterable, 0},
    {"sequence", 0, {NULL}, test_sequence, 0},
    {"callable", 0, {NULL}, test_callable, 0},
    {"sameas", 1, {"other"}, test_sameas, 0},
    {"eq", 1, {"other"}, test_eq, 0},
    {"equalto", 1, {"other"}, test_eq, 0},
    {"==", 1, {"other"}, test_eq, 0},
    {"ne", 1, {"other"}, test_ne, 0},
    {"!=", 1, {"other"}, test_ne, 0},
    {"lt", 1, {"other"}, test_lt, 0},
    {"lessthan", 1, {"other"}, test_lt, 0},
    {"<", 1, {"other"}, test_lt, 0},
    {"le", 1, {"other"}, test_le, 0},
    {"<=", 1, {"other"}, test_le, 0},
    {"gt", 1, {"other"}, test_gt, 0},
    {"greaterthan", 1, {"other"}, test_gt, 0},
    {">", 1, {"other"}, test_gt, 0},
    {"ge", 1, {"other"}, test_ge, 0},
    {">=", 1, {"other"}, test_ge, 0},
    {"in", 1, {"seq"}, test_in, 0},
    {"divisibleby", 1, {"num"}, test_divisibleby, 0},
    {"odd", 0, {NULL}, test_odd, 0},
    {"even", 0, {NULL}, test_even, 0},
    {"lower", 0, {NULL}, test_lower, 0},
    {"upper", 0, {NULL}, test_upper, 0},
    {"escaped", 0, {NULL}, test_escaped, 0},
    {"filter", 0, {NULL}, test_filter, 0},
    {"test", 0, {NULL}, test_test, 0},
};


/* Signs are names here: "==". */
const jrow_t *
jinja_test(const char *name, size_t len)
{
    assert(name != NULL);
    return jinja_row(tests, sizeof(tests) / sizeof(tests[0]), name, len);
}


/*
 * One after the other: tables are short, and asked when a template is
 * compiled.
 */
const jrow_t *
jinja_row(const jrow_t *rows, size_t n, const char *name, size_t len)
{
    size_t i;

    assert(n > 0);

    for (i = 0; i < n; i++) {
        if (strlen(rows[i].name) == len
            && memcmp(rows[i].name, name, len) == 0) {
            return &rows[i];
        }
    }

    return NULL;
}
