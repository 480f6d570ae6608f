/*
 * Operators: arithmetic, comparison, items and slices.
 *
 * DESIGN.  Python's rules on 64-bit integers: what would leave them is a
 * failure and not a wrong number.  Nothing here can make more than its
 * operands hold, but for repetition, which the arena's limit bounds.
 */
#include "jinja_impl.h"

#include <math.h>


/* As a sentence names it. */
static const char *
op_text(unsigned op)
{
    switch (op) {
    case T_ADD:
        return "+";
    case T_SUB:
        return "-";
    case T_MUL:
        return "*";
    case T_DIV:
        return "/";
    case T_FLOORDIV:
        return "//";
    case T_MOD:
        return "%";
    case T_POW:
        return "**";
    case T_LT:
        return "<";
    case T_LE:
        return "<=";
    case T_GT:
        return ">";
    default:
        assert(op == T_GE);
        return ">=";
    }
}


/* An integer beyond 2^53 is rounded, as in Python. */
static double
op_float(jv_t v)
{
    assert(jinja_is_number(v));

    return v.t == J_FLOAT ? v.f : (double) v.i;
}


/* Python would go on with a longer number. */
noreturn static void
op_overflow(jctx_t *c)
{
    jinja_fail(c, "A number leaves the range of 64 bits.");
}


/* --- numbers ------------------------------------------------------------ */

/* a // b and a % b, rounded down. */
static jv_t
op_divide(jctx_t *c, unsigned op, int64_t a, int64_t b)
{
    int64_t q, m;

    if (b == 0) {
        jinja_fail(c, "A number is divided by zero.");
    }
    if (b == -1) {
        if (a == INT64_MIN && op == T_FLOORDIV) {
            op_overflow(c);
        }
        return jinja_int(op == T_FLOORDIV ? -a : 0);
    }

    q = a / b;
    m = a % b;
    if (m != 0 && (m < 0) != (b < 0)) {
        q--;
        m += b;
    }

    return jinja_int(op == T_FLOORDIV ? q : m);
}


/* A negative exponent makes a float. */
static jv_t
op_power(jctx_t *c, int64_t a, int64_t b)
{
    int64_t v = 1;

    if (b < 0) {
        if (a == 0) {
            jinja_fail(c, "A number is divided by zero.");
        }
        return jinja_float(pow((double) a, (double) b));
    }

    /* squaring: a ends in overflow or is -1, 0, 1 */
    while (b > 0) {
        if (b & 1) {
            if (__builtin_mul_overflow(v, a, &v)) {
                op_overflow(c);
            }
        }
        b >>= 1;
        if (b > 0 && __builtin_mul_overflow(a, a, &a)) {
            op_overflow(c);
        }
    }

    return jinja_int(v);
}


/* Division is the one that leaves the integers. */
static jv_t
op_ints(jctx_t *c, unsigned op, int64_t a, int64_t b)
{
    int64_t v = 0;
    int over;

    switch (op) {
    case T_ADD:
        over = __builtin_add_overflow(a, b, &v);
        break;
    case T_SUB:
        over = __builtin_sub_overflow(a, b, &v);
        break;
    case T_MUL:
        over = __builtin_mul_overflow(a, b, &v);
        break;
    case T_DIV:
        if (b == 0) {
            jinja_fail(c, "A number is divided by zero.");
        }
        return jinja_float((double) a / (double) b);
    case T_POW:
        return op_power(c, a, b);
    default:
        return op_divide(c, op, a, b);
    }
    if (over) {
        op_overflow(c);
    }

    return jinja_int(v);
}


/* A remainder has the divisor's sign. */
static jv_t
op_floats(jctx_t *c, unsigned op, double a, double b)
{
    double m;

    if ((op == T_DIV || op == T_FLOORDIV || op == T_MOD) && b == 0) {
        jinja_fail(c, "A number is divided by zero.");
    }

    switch (op) {
    case T_ADD:
        return jinja_float(a + b);
    case T_SUB:
        return jinja_float(a - b);
    case T_MUL:
        return jinja_float(a * b);
    case T_DIV:
        return jinja_float(a / b);
    case T_FLOORDIV:
        return jinja_float(floor(a / b));
    case T_POW:
        return jinja_float(pow(a, b));
    default:
        m = fmod(a, b);
        return jinja_float(m != 0 && (m < 0) != (b < 0) ? m + b : m);
    }
}


/* A boolean becomes an integer by its sign. */
jv_t
jinja_neg(jctx_t *c, jv_t v, int minus)
{
    if (!jinja_is_number(v)) {
        jinja_fail(c, "%s has no sign.", jinja_type_name(v));
    }
    if (v.t == J_FLOAT) {
        return jinja_float(minus ? -v.f : v.f);
    }
    if (minus && v.i == INT64_MIN) {
        op_overflow(c);
    }

    return jinja_int(minus ? -v.i : v.i);
}


/* --- strings and lists -------------------------------------------------- */

/* Beside one that is marked safe, the other is escaped. */
static jv_t
op_add_strings(jctx_t *c, jstr_t *a, jstr_t *b)
{
    jstr_t *s;

    if (a->markup != b->markup) {
        s = jinja_text_escape(c, a->markup ? b : a);
        a = a->markup ? a : s;
        b = b->markup ? b : s;
    }

    return jinja_str(jinja_str_cat(c, a, b));
}


/* A new list: neither may change. */
static jv_t
op_add_lists(jctx_t *c, jv_t a, jv_t b)
{
    jlist_t *l = jinja_list_new(c, a.l->n + b.l->n);
    uint32_t i;

    assert(a.t == b.t);

    for (i = 0; i < a.l->n; i++) {
        jinja_list_add(c, l, a.l->v[i]);
    }
    for (i = 0; i < b.l->n; i++) {
        jinja_list_add(c, l, b.l->v[i]);
    }

    return jinja_listed(a.t, l);
}


/* v repeated; what is empty stays so, however often. */
static jv_t
op_repeat(jctx_t *c, jv_t v, int64_t times)
{
    jlist_t *l;
    uint32_t i;
    jsb_t b;

    if (v.t == J_STR) {
        jinja_sb_open(&b, c);
        for (; times > 0 && v.s->len > 0; times--) {
            jinja_step(c, 1);
            jinja_sb_str(&b, v.s);
        }
        return jinja_str(jinja_sb_end(&b));
    }

    l = jinja_list_new(c, 0);
    for (; times > 0 && v.l->n > 0; times--) {
        for (i = 0; i < v.l->n; i++) {
            jinja_list_add(c, l, v.l->v[i]);
        }
    }

    return jinja_listed(v.t, l);
}


/* What can be multiplied by an integer. */
static int
op_is_repeated(jv_t v)
{
    return v.t == J_STR || v.t == J_LIST || v.t == J_TUPLE;
}


/* What Python's types allow, and a sentence for the rest. */
jv_t
jinja_binary(jctx_t *c, unsigned op, jv_t a, jv_t b)
{
    jv_t none = jinja_none();

    assert(op >= T_ADD && op <= T_POW);

    if (jinja_is_int(a) && jinja_is_int(b)) {
        return op_ints(c, op, a.i, b.i);
    }
    if (jinja_is_number(a) && jinja_is_number(b)) {
        return op_floats(c, op, op_float(a), op_float(b));
    }

    if (a.t == J_STR && op == T_MOD) {
        return b.t == J_TUPLE ? jinja_percent(c, a.s, b.l->v, b.l->n, none)
                              : jinja_percent(c, a.s, &b, 1, b);
    }
    if (op == T_ADD && a.t == J_STR && b.t == J_STR) {
        return op_add_strings(c, a.s, b.s);
    }
    if (op == T_ADD && a.t == b.t && (a.t == J_LIST || a.t == J_TUPLE)) {
        return op_add_lists(c, a, b);
    }
    if (op == T_MUL && op_is_repeated(a) && jinja_is_int(b)) {
        return op_repeat(c, a, b.i);
    }
    if (op == T_MUL && op_is_repeated(b) && jinja_is_int(a)) {
        return op_repeat(c, b, a.i);
    }

    if (a.t == J_UNDEF || b.t == J_UNDEF) {
        a = a.t == J_UNDEF ? a : b;
        if (a.s != NULL) {
            (void) jinja_str_flat(c, a.s);
            jinja_fail(c, "%.*s is undefined.",
                (int) (a.s->len < 60 ? a.s->len : 60), a.s->s);
        }
    }
    jinja_fail(c, "%s %s %s is not possible.", jinja_type_name(a), op_text(op),
        jinja_type_name(b));
}


/* Equality is defined for all values, order for few. */
jv_t
jinja_compare(jctx_t *c, unsigned op, jv_t a, jv_t b)
{
    int d;

    assert(op >= T_EQ && op <= T_NOT_IN);

    switch (op) {
    case T_EQ:
        return jinja_bool(jinja_eq(c, a, b));
    case T_NE:
        return jinja_bool(!jinja_eq(c, a, b));
    case T_IN:
        return jinja_bool(jinja_in(c, a, b));
    case T_NOT_IN:
        return jinja_bool(!jinja_in(c, a, b));
    default:
        break;
    }

    /* a NaN is in no order with anything */
    if ((a.t == J_FLOAT && isnan(a.f)) || (b.t == J_FLOAT && isnan(b.f))) {
        return jinja_bool(0);
    }
    d = jinja_cmp(c, a, b, op_text(op));

    return jinja_bool(op == T_LT   ? d < 0
                      : op == T_LE ? d <= 0
                      : op == T_GT ? d > 0
                                   : d >= 0);
}


/* --- items and slices --------------------------------------------------- */

/* Absent, not undefined: the caller may know another meaning. */
jv_t
jinja_item(jctx_t *c, jv_t obj, jv_t key)
{
    int64_t n, i;
    size_t from;
    jv_t *v;

    assert(obj.t != J_ABSENT && key.t != J_ABSENT);

    if (obj.t == J_DICT || obj.t == J_NS) {
        if (key.t == J_LIST || key.t == J_DICT) {
            return jinja_absent();
        }
        v = jinja_dict_get(c, obj.d, key);
        return v == NULL ? jinja_absent() : *v;
    }

    if (!jinja_is_int(key)
        || (obj.t != J_LIST && obj.t != J_TUPLE && obj.t != J_STR
            && obj.t != J_RANGE)) {
        return jinja_absent();
    }

    n = jinja_len(c, obj);
    i = key.i < 0 ? key.i + n : key.i;
    if (i < 0 || i >= n) {
        return jinja_absent();
    }
    if (obj.t == J_RANGE) {
        return jinja_range_at(obj.r, (uint32_t) i);
    }
    if (obj.t != J_STR) {
        return obj.l->v[i];
    }

    (void) jinja_str_flat(c, obj.s);
    from = jinja_str_at(c, obj.s, (uint32_t) i);

    return jinja_str(jinja_str_sub(
        c, obj.s, from, jinja_str_at(c, obj.s, (uint32_t) i + 1)));
}


/* A place of a slice, moved to within -1..n or 0..n. */
static int64_t
slice_place(jctx_t *c, jv_t v, int64_t otherwise, int64_t n, int64_t step)
{
    int64_t low = step < 0 ? -1 : 0, high = step < 0 ? n - 1 : n, i;

    if (v.t == J_NONE) {
        return otherwise;
    }
    if (!jinja_is_int(v)) {
        jinja_fail(
            c, "A slice is made of integers, not of %s.", jinja_type_name(v));
    }

    i = v.i < 0 ? v.i + n : v.i;

    return i < low ? low : i > high ? high : i;
}


/* Characters of a string, count of them, from one on, by step. */
static jv_t
slice_str(jctx_t *c, jstr_t *s, int64_t from, int64_t step, int64_t count)
{
    jlist_t *chars;
    jsb_t b;
    size_t at;
    jv_t v = jinja_str(s);

    (void) jinja_str_flat(c, s);
    if (step == 1) {
        at = jinja_str_at(c, s, (uint32_t) from);
        return jinja_str(jinja_str_sub(c, s, at,
            count == 0 ? at : jinja_str_at(c, s, (uint32_t) (from + count))));
    }

    chars = jinja_items(c, v);
    jinja_sb_open(&b, c);
    for (; count > 0; count--, from += step) {
        assert(from >= 0 && from < (int64_t) chars->n);
        jinja_sb_str(&b, chars->v[from].s);
    }

    return jinja_str(jinja_sb_end(&b));
}


/* Python's rules: places beyond the ends are the ends. */
jv_t
jinja_slice(jctx_t *c, jv_t obj, jv_t from, jv_t to, jv_t step)
{
    int64_t n, by, a, z, count;
    jlist_t *l, *all;

    if (step.t != J_NONE && (!jinja_is_int(step) || step.i == 0)) {
        jinja_fail(c, "The step of a slice is an integer, and not 0.");
    }
    if (obj.t == J_UNDEF) {
        jinja_fail(c, "An undefined value has no items.");
    }
    if (obj.t != J_LIST && obj.t != J_TUPLE && obj.t != J_STR
        && obj.t != J_RANGE) {
        return jinja_undef(NULL);
    }

    n = jinja_len(c, obj);
    by = step.t == J_NONE ? 1 : step.i;
    by = by > INT32_MAX ? INT32_MAX : by < -INT32_MAX ? -INT32_MAX : by;
    a = slice_place(c, from, by < 0 ? n - 1 : 0, n, by);
    z = slice_place(c, to, by < 0 ? -1 : n, n, by);
    /* how many there are is known before any is taken: a list of just that
     * size is made, and no place is looked at that is not there */
    count = by > 0 ? (z - a + by - 1) / by : (a - z - by - 1) / -by;
    if (count < 0 || (by > 0 ? z <= a : a <= z)) {
        count = 0;
    }

    if (obj.t == J_STR) {
        return slice_str(c, obj.s, a, by, count);
    }

    all = jinja_items(c, obj);
    if (by == 1) {
        l = jinja_list_new(c, 0); /* nothing changes, so it may be shared */
        l->v = count > 0 ? all->v + a : NULL;
        l->n = l->cap = (uint32_t) count;
        return jinja_listed(obj.t == J_TUPLE ? J_TUPLE : J_LIST, l);
    }

    l = jinja_list_new(c, (uint32_t) count);
    for (; count > 0; count--, a += by) {
        jinja_list_add(c, l, all->v[a]);
    }

    return jinja_listed(obj.t == J_TUPLE ? J_TUPLE : J_LIST, l);
}
