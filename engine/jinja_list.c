/*
 * Filters that go through lists.
 *
 * DESIGN.  Rows.  What Python makes a generator of is one here too: it is
 * true though empty, has no length, and can be gone through once.  Only the
 * laziness is not kept: an error is met where the filter stands, not where
 * the loop is.
 *
 * Sorting is a merge sort, stable as Python's; its comparisons count as
 * steps.
 */
#include "jinja_impl.h"

#define FILTER(name)                                                           \
    static jv_t f_##name(jrun_t *r, jv_t v, const jv_t *a, const jargs_t *raw)

#define UNUSED (void) r, (void) v, (void) a, (void) raw


/* --- what filters look at ----------------------------------------------- */

/* The part of v that a dotted path names ("function.name", "0.id"). */
static jv_t
list_part(jrun_t *r, jv_t v, jv_t path)
{
    jstr_t *s, *name;
    size_t from = 0, at, i;
    int64_t n;

    if (path.t != J_STR) {
        return path.t == J_INT ? jinja_get(r, v, path) : v;
    }

    for (s = jinja_str_flat(&r->c, path.s); from <= s->len; from = at + 1) {
        for (at = from; at < s->len && s->s[at] != '.'; at++) {
        }
        name = jinja_str_sub(&r->c, s, from, at);
        for (i = 0, n = 0; i < name->len && i < 9; i++) {
            if (name->s[i] < '0' || name->s[i] > '9') {
                break;
            }
            n = n * 10 + (name->s[i] - '0');
        }
        v = jinja_get(
            r, v, i > 0 && i == name->len ? jinja_int(n) : jinja_str(name));
    }

    return v;
}


/* What a value is compared by: its part, in lower case unless cased. */
static jv_t
list_key(jrun_t *r, jv_t v, jv_t path, int cased)
{
    v = list_part(r, v, path);

    return v.t == J_STR && !cased
               ? jinja_str(jinja_text_case(&r->c, v.s, JINJA_LOWER))
               : v;
}


/* What v holds, or nothing if it is false, as map and select see it. */
static jlist_t *
list_if_true(jrun_t *r, jv_t v)
{
    return jinja_true(&r->c, v) ? jinja_arg_items(r, v)
                                : jinja_list_new(&r->c, 0);
}


/* A named argument, J_ABSENT if it is not given. */
static jv_t
list_named(jrun_t *r, const jargs_t *raw, const char *name)
{
    uint32_t i;

    for (i = 0; i < raw->kw_n; i++) {
        if (jinja_str_is(&r->c, raw->kw[i].name, name)) {
            return raw->kw[i].v;
        }
    }

    return jinja_absent();
}


/* The arguments behind the first n. */
static jargs_t
list_rest(const jargs_t *raw, uint32_t n)
{
    jargs_t a = *raw;

    n = n < a.n ? n : a.n;
    if (n > 0) {
        a.v += n;
        a.n -= n;
    }

    return a;
}


/* --- map, select -------------------------------------------------------- */

/* By a filter that is named first, or by a part: attribute="a.b". */
FILTER(map)
{
    jlist_t *items = list_if_true(r, v), *l = jinja_list_new(&r->c, items->n);
    jv_t path = jinja_absent(), otherwise = jinja_absent(), item;
    const jrow_t *row = NULL;
    jargs_t rest;
    uint32_t i;

    assert(raw != NULL);

    (void) a;
    if (raw->n == 0) {
        path = list_named(r, raw, "attribute");
        otherwise = list_named(r, raw, "default");
        if (path.t == J_ABSENT) {
            jinja_fail(&r->c, "map() takes a filter or an attribute.");
        }
    } else {
        (void) jinja_str_flat(&r->c, jinja_arg_str(r, raw->v[0]));
        row = jinja_filter(raw->v[0].s->s, raw->v[0].s->len);
        if (row == NULL) {
            jinja_fail(&r->c, "map() names a filter that there is not.");
        }
    }
    /* what follows the filter's name are its own arguments */
    rest = list_rest(raw, 1);

    for (i = 0; i < items->n; i++) {
        item = row != NULL ? jinja_call_row(r, row, items->v[i], &rest)
                           : list_part(r, items->v[i], path);
        if (item.t == J_UNDEF && otherwise.t != J_ABSENT) {
            item = otherwise;
        }
        jinja_list_add(&r->c, l, item);
    }

    return jinja_listed(J_GEN, l);
}


/* Those of which a test holds, or not; attr: of a part of theirs. */
static jv_t
list_select(jrun_t *r, jv_t v, const jargs_t *raw, int attr, int keep)
{
    jlist_t *items = list_if_true(r, v), *l = jinja_list_new(&r->c, 0);
    const jrow_t *row = NULL;
    jv_t path = jinja_absent(), part;
    uint32_t first = (uint32_t) attr, i;
    jargs_t rest = list_rest(raw, first + 1);

    if (attr) {
        if (raw->n == 0) {
            jinja_fail(&r->c, "An attribute to select by is missing.");
        }
        path = raw->v[0];
    }
    if (raw->n > first) {
        (void) jinja_str_flat(&r->c, jinja_arg_str(r, raw->v[first]));
        row = jinja_test(raw->v[first].s->s, raw->v[first].s->len);
        if (row == NULL) {
            jinja_fail(&r->c, "It is selected by a test that there is not.");
        }
    }

    for (i = 0; i < items->n; i++) {
        part = list_part(r, items->v[i], path);
        if (row != NULL) {
            part = jinja_call_row(r, row, part, &rest);
        }
        if (jinja_true(&r->c, part) == keep) {
            jinja_list_add(&r->c, l, items->v[i]);
        }
    }

    return jinja_listed(J_GEN, l);
}


/* Without a test, those that are true. */
FILTER(select)
{
    UNUSED;
    assert(raw != NULL);
    return list_select(r, v, raw, 0, 1);
}


/* The others. */
FILTER(reject)
{
    UNUSED;
    assert(raw != NULL);
    return list_select(r, v, raw, 0, 0);
}


/* By a part of each; the items come out whole. */
FILTER(selectattr)
{
    UNUSED;
    assert(raw != NULL);
    return list_select(r, v, raw, 1, 1);
}


/* The others. */
FILTER(rejectattr)
{
    UNUSED;
    assert(raw != NULL);
    return list_select(r, v, raw, 1, 0);
}


/* --- order -------------------------------------------------------------- */

typedef struct {
    jv_t *key; /* [keys_n] */
    jv_t v;
} list_sort_t;

typedef struct {
    jctx_t *c;
    uint32_t keys_n;
    int sign; /* -1: backwards */
} list_order_t;


/* By the first key in which they differ. */
static int
sort_cmp(const list_order_t *o, const list_sort_t *a, const list_sort_t *b)
{
    uint32_t i;

    for (i = 0; i < o->keys_n; i++) {
        if (!jinja_eq(o->c, a->key[i], b->key[i])) {
            return o->sign * jinja_cmp(o->c, a->key[i], b->key[i], "sort");
        }
    }

    return 0;
}


/* tmp has room for n.  Of equal ones the left stays left, backwards too. */
static void
sort_merge(const list_order_t *o, list_sort_t *v, list_sort_t *tmp, uint32_t n)
{
    uint32_t half = n / 2, i = 0, j = half, k = 0;

    if (n < 2) {
        return;
    }

    sort_merge(o, v, tmp, half);
    sort_merge(o, v + half, tmp, n - half);
    while (i < half && j < n) {
        tmp[k++] = sort_cmp(o, &v[j], &v[i]) < 0 ? v[j++] : v[i++];
    }
    memcpy(tmp + k, v + i, (half - i) * sizeof(*v));
    k += half - i;
    memcpy(v, tmp, k * sizeof(*v));
}


/* items by the keys that the paths give, as a new list. */
static jlist_t *
list_sorted(
    jrun_t *r, jlist_t *items, const jlist_t *paths, int cased, int backwards)
{
    list_order_t o = {&r->c, paths->n, backwards ? -1 : 1};
    list_sort_t *v = jinja_mem_get(&r->c, items->n * 2 * sizeof(*v));
    jlist_t *l = jinja_list_new(&r->c, items->n);
    uint32_t i, k;

    for (i = 0; i < items->n; i++) {
        v[i].v = items->v[i];
        v[i].key = jinja_mem_get(&r->c, paths->n * sizeof(jv_t));
        for (k = 0; k < paths->n; k++) {
            v[i].key[k] = list_key(r, items->v[i], paths->v[k], cased);
        }
    }
    sort_merge(&o, v, v + items->n, items->n);
    for (i = 0; i < items->n; i++) {
        jinja_list_add(&r->c, l, v[i].v);
    }

    return l;
}


/* By the values, or parts of them: attribute="a,b" is by two. */
FILTER(sort)
{
    jstr_t *comma = jinja_str_lit(&r->c, ",");
    jlist_t *paths;

    assert(v.t != J_ABSENT);

    (void) raw;
    if (a[2].t == J_STR) {
        paths = jinja_text_split(&r->c, a[2].s, comma, -1);
    } else {
        paths = jinja_list_new(&r->c, 1);
        jinja_list_add(&r->c, paths, a[2].t == J_ABSENT ? jinja_none() : a[2]);
    }

    return jinja_listed(
        J_LIST, list_sorted(r, jinja_arg_items(r, v), paths,
                    jinja_arg_bool(r, a[1], 0), jinja_arg_bool(r, a[0], 0)));
}


/* The pairs of a mapping. */
jlist_t *
jinja_filter_pairs(jrun_t *r, jv_t v)
{
    const jargs_t none = {NULL, 0, NULL, 0};

    if (v.t != J_DICT) {
        jinja_fail(&r->c, "%s has no pairs.", jinja_type_name(v));
    }

    return jinja_call_row(r, jinja_method(J_DICT, "items", 5), v, &none).l;
}


/* Pairs by their keys, or by their values. */
FILTER(dictsort)
{
    jlist_t *paths = jinja_list_new(&r->c, 1);
    int by_value = a[1].t != J_ABSENT
                   && jinja_str_is(&r->c, jinja_arg_str(r, a[1]), "value");

    assert(v.t != J_ABSENT);

    (void) raw;
    if (a[1].t != J_ABSENT && !by_value
        && !jinja_str_is(&r->c, a[1].s, "key")) {
        jinja_fail(&r->c, "dictsort() sorts by key or value.");
    }
    jinja_list_add(&r->c, paths, jinja_int(by_value));

    return jinja_listed(
        J_LIST, list_sorted(r, jinja_filter_pairs(r, v), paths,
                    jinja_arg_bool(r, a[0], 0), jinja_arg_bool(r, a[2], 0)));
}


/* The least value, or the greatest. */
static jv_t
list_best(jrun_t *r, jv_t v, const jv_t *a, int sign)
{
    jlist_t *l = jinja_arg_items(r, v);
    int cased = jinja_arg_bool(r, a[0], 0);
    jv_t key, best_key = jinja_none(), best = jinja_undef(NULL);
    uint32_t i;

    for (i = 0; i < l->n; i++) {
        key = list_key(r, l->v[i], a[1], cased);
        if (i == 0 || jinja_cmp(&r->c, key, best_key, "min") * sign > 0) {
            best_key = key;
            best = l->v[i];
        }
    }

    return best;
}


/* Nothing has no least value: that is undefined. */
FILTER(min)
{
    UNUSED;
    assert(v.t != J_ABSENT);
    return list_best(r, v, a, -1);
}


/* The same. */
FILTER(max)
{
    UNUSED;
    assert(v.t != J_ABSENT);
    return list_best(r, v, a, 1);
}


/* The first of those that are equal, in their order. */
FILTER(unique)
{
    jlist_t *items = jinja_arg_items(r, v), *l = jinja_list_new(&r->c, 0);
    jdict_t *seen = jinja_dict_new(&r->c, 0);
    int cased = jinja_arg_bool(r, a[0], 0);
    jv_t key;
    uint32_t i;

    assert(v.t != J_ABSENT);

    (void) raw;
    for (i = 0; i < items->n; i++) {
        key = list_key(r, items->v[i], a[1], cased);
        if (jinja_dict_get(&r->c, seen, key) == NULL) {
            jinja_dict_set(&r->c, seen, key, jinja_none());
            jinja_list_add(&r->c, l, items->v[i]);
        }
    }

    return jinja_listed(J_GEN, l);
}


/* A string stays one; of a list it is a generator, in Python as here. */
FILTER(reverse)
{
    jlist_t *items, *l;
    jv_t none = jinja_none();

    assert(v.t != J_ABSENT);

    (void) a, (void) raw;
    if (v.t == J_STR) {
        return jinja_slice(&r->c, v, none, none, jinja_int(-1));
    }

    items = jinja_arg_items(r, v);
    l = jinja_list_new(&r->c, items->n);
    for (uint32_t i = items->n; i > 0; i--) {
        jinja_list_add(&r->c, l, items->v[i - 1]);
    }

    return jinja_listed(v.t == J_GEN ? J_LIST : J_GEN, l);
}


/* A pair whose parts have names too: grouper, list. */
static jv_t
list_group(jrun_t *r, jv_t key, jlist_t *items)
{
    jlist_t *pair = jinja_list_new(&r->c, 2);

    pair->what = JINJA_GROUP;
    jinja_list_add(&r->c, pair, key);
    jinja_list_add(&r->c, pair, jinja_listed(J_LIST, items));

    return jinja_listed(J_TUPLE, pair);
}


/* What items are grouped by: their part, or the default in its place. */
static jv_t
list_group_key(jrun_t *r, jv_t v, const jv_t *a)
{
    v = list_part(r, v, a[0]);

    return v.t == J_UNDEF && a[1].t != J_ABSENT && a[1].t != J_NONE ? a[1] : v;
}


/*
 * Items that have a part in common, in its order; "A" and "a" are the same
 * unless told otherwise, and then the first names the group.
 */
FILTER(groupby)
{
    jlist_t *items = jinja_arg_items(r, v), *l = jinja_list_new(&r->c, 0);
    jlist_t *group = NULL;
    list_order_t o = {&r->c, 1, 1};
    list_sort_t *s = jinja_mem_get(&r->c, items->n * 2 * sizeof(*s));
    jv_t key, nothing = jinja_none();
    uint32_t i;

    assert(a[0].t != J_ABSENT);

    (void) raw;
    for (i = 0; i < items->n; i++) {
        key = list_group_key(r, items->v[i], a);
        if (key.t == J_UNDEF && items->n > 1) {
            jinja_fail(&r->c, "groupby() is by a part that an item lacks.");
        }
        s[i].v = items->v[i];
        s[i].key = jinja_mem_get(&r->c, sizeof(key));
        s[i].key[0] = list_key(r, key, nothing, jinja_arg_bool(r, a[2], 0));
    }
    sort_merge(&o, s, s + items->n, items->n);

    for (i = 0; i < items->n; i++) {
        if (i == 0 || !jinja_eq(&r->c, s[i].key[0], s[i - 1].key[0])) {
            group = jinja_list_new(&r->c, 0);
            key = list_group_key(r, s[i].v, a);
            jinja_list_add(&r->c, l, list_group(r, key, group));
        }
        jinja_list_add(&r->c, group, s[i].v);
    }

    return jinja_listed(J_LIST, l);
}


/* --- parts and sums ----------------------------------------------------- */

/* Undefined if there is none. */
FILTER(first)
{
    jlist_t *l = jinja_arg_items(r, v);

    assert(v.t != J_ABSENT);

    (void) a, (void) raw;

    return l->n > 0 ? l->v[0] : jinja_undef(NULL);
}


/* The same from the end, which a generator does not have. */
FILTER(last)
{
    jlist_t *l;

    assert(v.t != J_ABSENT);

    (void) a, (void) raw;
    if (v.t == J_GEN) {
        jinja_fail(&r->c, "A generator has no last item.");
    }
    l = jinja_arg_items(r, v);

    return l->n > 0 ? l->v[l->n - 1] : jinja_undef(NULL);
}


/* What a loop would see; of a generator what is left. */
FILTER(list)
{
    UNUSED;
    assert(v.t != J_ABSENT);
    return jinja_listed(J_LIST, jinja_arg_items(r, v));
}


/* Unlike the method it takes an undefined value for an empty mapping. */
FILTER(items)
{
    UNUSED;
    assert(v.t != J_ABSENT);
    return v.t == J_UNDEF ? jinja_listed(J_GEN, jinja_list_new(&r->c, 0))
                          : jinja_listed(J_GEN, jinja_filter_pairs(r, v));
}


/* Unlike the method it takes anything. */
FILTER(join)
{
    jlist_t *items = jinja_arg_items(r, v), *l = items;
    jstr_t *by = a[0].t == J_ABSENT ? jinja_str_lit(&r->c, "")
                                    : jinja_to_str(&r->c, a[0]);
    uint32_t i;

    assert(v.t != J_ABSENT);

    (void) raw;
    if (a[1].t != J_ABSENT && a[1].t != J_NONE) {
        l = jinja_list_new(&r->c, items->n);
        for (i = 0; i < items->n; i++) {
            jinja_list_add(&r->c, l, list_part(r, items->v[i], a[1]));
        }
    }

    return jinja_str(jinja_text_join(&r->c, by, l, 0));
}


/* By "+", so lists can be summed from a list on. */
FILTER(sum)
{
    jlist_t *l = jinja_arg_items(r, v);
    jv_t sum = a[1].t == J_ABSENT ? jinja_int(0) : a[1];
    uint32_t i;

    assert(v.t != J_ABSENT);

    (void) raw;
    for (i = 0; i < l->n; i++) {
        sum = jinja_binary(&r->c, T_ADD, sum, list_part(r, l->v[i], a[0]));
    }

    return sum;
}


/* Lists of n, the last one filled up if there is something to do so. */
FILTER(batch)
{
    jlist_t *items = jinja_arg_items(r, v), *l = jinja_list_new(&r->c, 0);
    jlist_t *part = NULL;
    int64_t n = jinja_arg_int(r, a[0], 1);
    uint32_t i;

    assert(a[0].t != J_ABSENT);

    (void) raw;
    if (n < 1) {
        jinja_fail(&r->c, "batch() takes a number from 1 on.");
    }
    for (i = 0; i < items->n; i++) {
        if (i % n == 0) {
            part = jinja_list_new(&r->c, 0);
            jinja_list_add(&r->c, l, jinja_listed(J_LIST, part));
        }
        jinja_list_add(&r->c, part, items->v[i]);
    }
    while (
        part != NULL && part->n < n && a[1].t != J_ABSENT && a[1].t != J_NONE) {
        jinja_list_add(&r->c, part, a[1]);
    }

    return jinja_listed(J_GEN, l);
}


/* So many lists of the same length; the first ones have what is left over. */
FILTER(slice)
{
    jlist_t *items = jinja_arg_items(r, v), *l = jinja_list_new(&r->c, 0),
            *part;
    int64_t n = jinja_arg_int(r, a[0], 1), i, each, extra;
    uint32_t at = 0, end;

    assert(a[0].t != J_ABSENT);

    (void) raw;
    if (n == 0) {
        jinja_fail(&r->c, "slice() takes another number than 0.");
    }
    each = n > 0 ? items->n / n : 0;
    extra = n > 0 ? items->n % n : 0;

    for (i = 0; i < n; i++) {
        jinja_step(&r->c, 1);
        part = jinja_list_new(&r->c, 0);
        jinja_list_add(&r->c, l, jinja_listed(J_LIST, part));
        for (end = at + (uint32_t) each + (i < extra); at < end; at++) {
            jinja_list_add(&r->c, part, items->v[at]);
        }
        if (i >= extra && a[1].t != J_ABSENT && a[1].t != J_NONE) {
            jinja_list_add(&r->c, part, a[1]);
        }
    }
    assert(n < 0 || at == items->n);

    return jinja_listed(J_GEN, l);
}


static const jrow_t filters[] = {
    {"map", 0, {"*"}, f_map, 0},
    {"select", 0, {"*"}, f_select, 0},
    {"reject", 0, {"*"}, f_reject, 0},
    {"selectattr", 0, {"*"}, f_selectattr, 0},
    {"rejectattr", 0, {"*"}, f_rejectattr, 0},
    {"sort", 0, {"reverse", "case_sensitive", "attribute"}, f_sort, 0},
    {"dictsort", 0, {"case_sensitive", "by", "reverse"}, f_dictsort, 0},
    {"min", 0, {"case_sensitive", "attribute"}, f_min, 0},
    {"max", 0, {"case_sensitive", "attribute"}, f_max, 0},
    {"unique", 0, {"case_sensitive", "attribute"}, f_unique, 0},
    {"reverse", 0, {NULL}, f_reverse, 0},
    {"first", 0, {NULL}, f_first, 0},
    {"last", 0, {NULL}, f_last, 0},
    {"list", 0, {NULL}, f_list, 0},
    {"items", 0, {NULL}, f_items, 0},
    {"join", 0, {"d", "attribute"}, f_join, 0},
    {"sum", 0, {"attribute", "start"}, f_sum, 0},
    {"batch", 1, {"linecount", "fill_with"}, f_batch, 0},
    {"slice", 1, {"slices", "fill_with"}, f_slice, 0},
    {"groupby", 1, {"attribute", "default", "case_sensitive"}, f_groupby, 0},
};


/* Those of this file only; jinja_filter asks here last. */
const jrow_t *
jinja_filter_list(const char *name, size_t len)
{
    assert(name != NULL);
    return jinja_row(filters, sizeof(filters) / sizeof(filters[0]), name, len);
}
