/*
 * Functions that a template finds by name, and what rows get as arguments.
 *
 * DESIGN.  Python's range, dict; Jinja2's namespace, cycler, joiner; and the
 * two that chat templates are given besides: raise_exception refuses the
 * conversation in the template's own words, strftime_now is the date.
 *
 * A range has at most RANGE_MAX numbers, as in Jinja2's sandbox.
 */
#include "jinja_impl.h"
#include "llm_err.h"


#define RANGE_MAX 100000
#define TIME_MAX  256 /* bytes of a time's format, and of what it gives */

#define FUNCTION(name)                                                         \
    static jv_t fn_##name(jrun_t *r, jv_t v, const jv_t *a, const jargs_t *raw)


/* --- arguments ---------------------------------------------------------- */

/* A boolean is an integer, as in Python. */
int64_t
jinja_arg_int(jrun_t *r, jv_t v, int64_t otherwise)
{
    if (v.t == J_ABSENT) {
        return otherwise;
    }
    if (!jinja_is_int(v)) {
        jinja_fail(
            &r->c, "%s stands where an integer belongs.", jinja_type_name(v));
    }

    return v.i;
}


/* Nothing is turned into a string unasked. */
jstr_t *
jinja_arg_str(jrun_t *r, jv_t v)
{
    assert(v.t != J_ABSENT);
    if (v.t != J_STR) {
        jinja_fail(
            &r->c, "%s stands where a string belongs.", jinja_type_name(v));
    }

    return v.s;
}


/* By truth: any value will do. */
int
jinja_arg_bool(jrun_t *r, jv_t v, int otherwise)
{
    return v.t == J_ABSENT ? otherwise : jinja_true(&r->c, v);
}


/* See jinja_items: a generator is used up. */
jlist_t *
jinja_arg_items(jrun_t *r, jv_t v)
{
    jlist_t *l = jinja_items(&r->c, v);

    assert(v.t != J_ABSENT);

    if (l == NULL) {
        jinja_fail(
            &r->c, "%s stands where a list belongs.", jinja_type_name(v));
    }

    return l;
}


/* --- functions ---------------------------------------------------------- */

/* Only its ends are kept; the numbers are made when they are asked for. */
FUNCTION(range)
{
    int64_t start = 0, stop, step, n;
    jv_t out = {.t = J_RANGE};

    assert(a[0].t != J_ABSENT);

    (void) v, (void) raw;
    stop = jinja_arg_int(r, a[0], 0);
    if (a[1].t != J_ABSENT) {
        start = stop;
        stop = jinja_arg_int(r, a[1], 0);
    }
    step = jinja_arg_int(r, a[2], 1);
    if (step == 0) {
        jinja_fail(&r->c, "The step of a range is 0.");
    }

    if (step > 0 ? stop <= start : stop >= start) {
        n = 0;
    } else if (__builtin_sub_overflow(stop, start, &n) || step == INT64_MIN) {
        n = RANGE_MAX + 1;
    } else {
        n = step > 0 ? (n - 1) / step + 1 : (n + 1) / step + 1;
    }
    if (n > RANGE_MAX) {
        jinja_fail(&r->c, "A range has more than %d numbers.", RANGE_MAX);
    }

    out.r = jinja_mem_get(&r->c, sizeof(*out.r));
    out.r->start = start;
    out.r->stop = stop;
    out.r->step = step;
    out.r->n = (uint32_t) n;

    return out;
}


/* Pairs, of a mapping or a list of pairs, and named arguments. */
static jdict_t *
fn_pairs(jrun_t *r, const jargs_t *raw)
{
    jdict_t *d = jinja_dict_new(&r->c, 0);
    jlist_t *l, *pair;
    uint32_t i;

    if (raw->n > 1) {
        jinja_fail(&r->c, "dict() and namespace() take one mapping.");
    }

    if (raw->n == 1 && raw->v[0].t == J_DICT) {
        for (i = 0; i < raw->v[0].d->n; i++) {
            jinja_dict_set(&r->c, d, raw->v[0].d->v[i].k, raw->v[0].d->v[i].v);
        }
    } else if (raw->n == 1) {
        l = jinja_arg_items(r, raw->v[0]);
        for (i = 0; i < l->n; i++) {
            pair = jinja_arg_items(r, l->v[i]);
            if (pair->n != 2) {
                jinja_fail(&r->c, "A mapping is made of pairs.");
            }
            jinja_dict_set(&r->c, d, pair->v[0], pair->v[1]);
        }
    }

    for (i = 0; i < raw->kw_n; i++) {
        jinja_dict_set(&r->c, d, jinja_str(raw->kw[i].name), raw->kw[i].v);
    }

    return d;
}


/* The sandbox forbids to change it, so it is like any other. */
FUNCTION(dict)
{
    assert(raw != NULL);
    (void) v, (void) a;
    return (jv_t){.t = J_DICT, .d = fn_pairs(r, raw)};
}


/* The one value whose fields can be set. */
FUNCTION(namespace)
{
    assert(raw != NULL);
    (void) v, (void) a;
    return (jv_t){.t = J_NS, .d = fn_pairs(r, raw)};
}


/* Its values in turns, one at each next(). */
FUNCTION(cycler)
{
    jlist_t *l = jinja_list_new(&r->c, raw->n);
    uint32_t i;

    assert(raw != NULL);

    (void) v, (void) a;
    if (raw->n == 0) {
        jinja_fail(&r->c, "cycler() takes at least one value.");
    }
    for (i = 0; i < raw->n; i++) {
        jinja_list_add(&r->c, l, raw->v[i]);
    }

    return jinja_listed(J_CYCLER, l);
}


/* Nothing at its first call, the separator from then on. */
FUNCTION(joiner)
{
    jlist_t *l = jinja_list_new(&r->c, 1);

    assert(raw != NULL);

    (void) v, (void) raw;
    jinja_list_add(&r->c, l,
        a[0].t == J_ABSENT ? jinja_str(jinja_str_lit(&r->c, ", ")) : a[0]);

    return jinja_listed(J_JOINER, l);
}


/* The sentence is the template's own, so no line is named before it. */
FUNCTION(raise_exception)
{
    jstr_t *s = jinja_to_str(&r->c, a[0]);

    assert(a[0].t != J_ABSENT);

    (void) v, (void) raw;
    (void) jinja_str_flat(&r->c, s);
    r->raised = 1;
    if (s->len == 0) {
        jinja_fail(&r->c, "It refuses the conversation.");
    }
    jinja_fail_as(&r->c, -LLM_ERR_BAD_MESSAGES, s->s, s->len);
}


/* Names of days and months are English: the engine sets no locale. */
FUNCTION(strftime_now)
{
    jstr_t *s = jinja_str_flat(&r->c, jinja_arg_str(r, a[0]));
    char fmt[TIME_MAX + 2], buf[TIME_MAX + 2], *copy;
    size_t n;

    assert(a[0].t != J_ABSENT);

    (void) v, (void) raw;
    if (r->now == NULL) {
        jinja_fail(&r->c, "There is no clock.");
    }
    if (s->len > TIME_MAX || memchr(s->s, '\0', s->len) != NULL) {
        jinja_fail(&r->c, "A time's format is too long.");
    }

    /* a first character of ours tells an empty result from a failure */
    fmt[0] = 'x';
    memcpy(fmt + 1, s->s, s->len);
    fmt[s->len + 1] = '\0';
    n = strftime(buf, sizeof(buf), fmt, r->now);
    if (n == 0) {
        jinja_fail(&r->c, "A time is longer than %d bytes.", TIME_MAX);
    }

    copy = jinja_mem_get(&r->c, n);
    memcpy(copy, buf + 1, n - 1);

    return jinja_str(jinja_str_of(&r->c, copy, n - 1, JINJA_DATA));
}


static const jrow_t functions[] = {
    {"range", 1, {"start", "stop", "step"}, fn_range, 0},
    {"dict", 0, {"*"}, fn_dict, 0},
    {"namespace", 0, {"*"}, fn_namespace, 0},
    {"cycler", 0, {"*"}, fn_cycler, 0},
    {"joiner", 0, {"sep"}, fn_joiner, 0},
    {"raise_exception", 1, {"message"}, fn_raise_exception, 0},
    {"strftime_now", 1, {"format"}, fn_strftime_now, 0},
};


/* Looked up once for each name of a template, when it is compiled. */
const jrow_t *
jinja_function(const char *name, size_t len)
{
    assert(name != NULL);
    return jinja_row(
        functions, sizeof(functions) / sizeof(functions[0]), name, len);
}
