/*
 * Values other than strings: truth, equality, order, membership, lists,
 * dictionaries, and what JSON becomes.
 *
 * DESIGN.  Python's rules, as far as a template can see them.  Lists and
 * dictionaries live in the arena and are never changed once a template holds
 * them (the sandbox forbids it), but for namespaces.
 *
 * A dictionary is its pairs in the order in which they came.  Up to SMALL of
 * them are looked through; from there on an index is kept, so that a client
 * cannot make lookups slow by sending a large object.
 *
 * All JSON is converted at the beginning: the strings stay jansson's, so this
 * costs little, and from there on there is one kind of value.
 */
#include "jinja_impl.h"

#include <math.h>

#define SMALL 8


/* --- names and truth ---------------------------------------------------- */

/* As a sentence names it. */
const char *
jinja_type_name(jv_t v)
{
    static const char *const names[J_TYPES] = {[J_ABSENT] = "nothing",
        [J_UNDEF] = "an undefined value",
        [J_NONE] = "none",
        [J_BOOL] = "a boolean",
        [J_INT] = "an integer",
        [J_FLOAT] = "a float",
        [J_STR] = "a string",
        [J_LIST] = "a list",
        [J_TUPLE] = "a tuple",
        [J_VIEW] = "a view of a mapping",
        [J_GEN] = "a generator",
        [J_RANGE] = "a range",
        [J_DICT] = "a mapping",
        [J_NS] = "a namespace",
        [J_MACRO] = "a macro",
        [J_METHOD] = "a method",
        [J_FUNC] = "a function",
        [J_LOOP] = "a loop",
        [J_CYCLER] = "a cycler",
        [J_JOINER] = "a joiner"};

    assert(v.t < J_TYPES && names[v.t] != NULL);

    return names[v.t];
}


/* Of a generator there is none. */
int64_t
jinja_len(jctx_t *c, jv_t v)
{
    assert(v.t != J_ABSENT);
    switch (v.t) {
    case J_UNDEF:
        return 0;
    case J_STR:
        return jinja_str_chars(c, v.s);
    case J_LIST:
    case J_TUPLE:
    case J_VIEW:
        return v.l->n;
    case J_RANGE:
        return v.r->n;
    case J_DICT:
        return v.d->n;
    default:
        return -1;
    }
}


/* As Python sees it: what is empty, zero or nothing is false. */
int
jinja_true(jctx_t *c, jv_t v)
{
    assert(v.t != J_ABSENT);
    switch (v.t) {
    case J_UNDEF:
    case J_NONE:
        return 0;
    case J_BOOL:
    case J_INT:
        return v.i != 0;
    case J_FLOAT:
        return v.f != 0;
    case J_STR:
        return v.s->len > 0;
    case J_LIST:
    case J_TUPLE:
    case J_VIEW:
    case J_RANGE:
    case J_DICT:
        return jinja_len(c, v) > 0;
    case J_LOOP:
        return v.loop->n > 0;
    default:
        assert(v.t != J_ABSENT);
        return 1;
    }
}


/* --- equality and order ------------------------------------------------- */

/* As a float. */
static double
value_number(jv_t v)
{
    assert(jinja_is_number(v));
    return v.t == J_FLOAT ? v.f : (double) v.i;
}


/* Item by item. */
static int
value_eq_lists(jctx_t *c, const jlist_t *a, const jlist_t *b)
{
    uint32_t i;

    assert(a != NULL && b != NULL);

    if (a->n != b->n) {
        return 0;
    }
    for (i = 0; i < a->n; i++) {
        if (!jinja_eq(c, a->v[i], b->v[i])) {
            return 0;
        }
    }

    return 1;
}


/* Whatever their orders. */
static int
value_eq_dicts(jctx_t *c, jdict_t *a, jdict_t *b)
{
    uint32_t i;
    jv_t *v;

    assert(a != NULL && b != NULL);

    if (a->n != b->n) {
        return 0;
    }
    for (i = 0; i < a->n; i++) {
        v = jinja_dict_get(c, b, a->v[i].k);
        if (v == NULL || !jinja_eq(c, a->v[i].v, *v)) {
            return 0;
        }
    }

    return 1;
}


/* Python's `is`, as far as values have an identity here. */
int
jinja_same(jv_t a, jv_t b)
{
    assert(a.t != J_ABSENT && b.t != J_ABSENT);
    if (a.t != b.t) {
        return 0;
    }

    switch (a.t) {
    case J_UNDEF:
    case J_NONE:
        return 1;
    case J_FLOAT:
        return a.f == b.f;
    case J_STR:
        return a.s == b.s
               || (a.s->s != NULL && b.s->s != NULL && a.s->len == b.s->len
                   && memcmp(a.s->s, b.s->s, a.s->len) == 0);
    default:
        return a.i == b.i; /* a number, or the pointer in its place */
    }
}


/* Numbers by value, the rest by type and value; never a failure. */
int
jinja_eq(jctx_t *c, jv_t a, jv_t b)
{
    int eq = 0;

    assert(a.t != J_ABSENT && b.t != J_ABSENT);

    jinja_step(c, 1);

    if (jinja_is_int(a) && jinja_is_int(b)) {
        return a.i == b.i;
    }
    if (jinja_is_number(a) && jinja_is_number(b)) {
        return value_number(a) == value_number(b);
    }
    if (a.t != b.t) {
        return 0;
    }

    jinja_enter(c);
    switch (a.t) {
    case J_UNDEF:
    case J_NONE:
        eq = 1;
        break;
    case J_STR:
        eq = jinja_str_eq(c, a.s, b.s);
        break;
    case J_LIST:
    case J_TUPLE:
        eq = value_eq_lists(c, a.l, b.l);
        break;
    case J_DICT:
        eq = value_eq_dicts(c, a.d, b.d);
        break;
    case J_RANGE:
        eq = a.r->n == b.r->n && (a.r->n == 0 || a.r->start == b.r->start)
             && (a.r->n <= 1 || a.r->step == b.r->step);
        break;
    default:
        eq = a.i == b.i;
    }
    jinja_leave(c);

    return eq;
}


/* Lists by the first items that differ. */
int
jinja_cmp(jctx_t *c, jv_t a, jv_t b, const char *op)
{
    double x, y;
    uint32_t i;
    int d;

    assert(op != NULL);

    jinja_step(c, 1);

    if (jinja_is_int(a) && jinja_is_int(b)) {
        return (a.i > b.i) - (a.i < b.i);
    }
    if (jinja_is_number(a) && jinja_is_number(b)) {
        x = value_number(a);
        y = value_number(b);
        return (x > y) - (x < y);
    }
    if (a.t == J_STR && b.t == J_STR) {
        return jinja_str_cmp(c, a.s, b.s);
    }
    if (a.t != b.t || (a.t != J_LIST && a.t != J_TUPLE)) {
        jinja_fail(c, "%s cannot be ordered against %s (%s).",
            jinja_type_name(a), jinja_type_name(b), op);
    }

    jinja_enter(c);
    for (i = 0, d = 0; i < a.l->n && i < b.l->n; i++) {
        if (!jinja_eq(c, a.l->v[i], b.l->v[i])) {
            d = jinja_cmp(c, a.l->v[i], b.l->v[i], op);
            break;
        }
    }
    if (i == a.l->n || i == b.l->n) {
        d = (a.l->n > b.l->n) - (a.l->n < b.l->n);
    }
    jinja_leave(c);

    return d;
}


/* Is a among the n values? */
static int
value_among(jctx_t *c, jv_t a, const jv_t *v, uint32_t n)
{
    uint32_t i;

    for (i = 0; i < n; i++) {
        if (jinja_eq(c, a, v[i])) {
            return 1;
        }
    }

    return 0;
}


/* A part of a string, a key of a mapping, an item of a list. */
int
jinja_in(jctx_t *c, jv_t a, jv_t b)
{
    jlist_t *l;

    assert(a.t != J_ABSENT && b.t != J_ABSENT);

    if (b.t == J_STR) {
        if (a.t != J_STR) {
            jinja_fail(c, "%s cannot be in a string.", jinja_type_name(a));
        }
        return jinja_str_find(c, b.s, a.s, 0) != SIZE_MAX;
    }
    if (b.t == J_DICT) {
        return jinja_dict_get(c, b.d, a) != NULL;
    }

    l = jinja_items(c, b);
    if (l == NULL) {
        jinja_fail(c, "Nothing can be in %s.", jinja_type_name(b));
    }

    return value_among(c, a, l->v, l->n);
}


/* --- lists -------------------------------------------------------------- */

/* cap is what is known to come; more may. */
jlist_t *
jinja_list_new(jctx_t *c, uint32_t cap)
{
    jlist_t *l = jinja_mem_zero(c, 1, sizeof(*l));

    if (cap > 0) {
        l->v = jinja_mem_get(c, cap * sizeof(*l->v));
        l->cap = cap;
    }

    return l;
}


/* Only by who makes the list, before a template has it. */
void
jinja_list_add(jctx_t *c, jlist_t *l, jv_t v)
{
    jv_t *more;
    uint32_t cap;

    assert(v.t != J_ABSENT);
    jinja_step(c, 1);

    if (l->n == l->cap) {
        cap = l->cap * 2 + 4;
        more = jinja_mem_get(c, cap * sizeof(*more));
        if (l->n > 0) {
            memcpy(more, l->v, l->n * sizeof(*more));
        }
        l->v = more;
        l->cap = cap;
    }

    l->v[l->n++] = v;
}


/* Cannot overflow: the ends of a range are 64-bit numbers. */
jv_t
jinja_range_at(const jrange_t *r, uint32_t i)
{
    assert(i < r->n);

    return jinja_int(r->start + r->step * (int64_t) i);
}


/* The characters of a string as strings. */
static jlist_t *
value_chars(jctx_t *c, jstr_t *s)
{
    jlist_t *l = jinja_list_new(c, jinja_str_chars(c, s));
    size_t at, end;
    uint32_t cp;

    (void) jinja_str_flat(c, s);
    for (at = 0; at < s->len; at = end) {
        end = at + jinja_char(s->s + at, s->len - at, &cp);
        jinja_list_add(c, l, jinja_str(jinja_str_sub(c, s, at, end)));
    }

    return l;
}


/* What is left of a generator; it is empty from now on. */
static jlist_t *
value_drain(jctx_t *c, jlist_t *g)
{
    jlist_t *l = jinja_list_new(c, 0);

    assert(g->at <= g->n);
    l->v = g->at < g->n ? g->v + g->at : NULL;
    l->n = l->cap = g->n - g->at;
    g->at = g->n;

    return l;
}


/* Lists are not copied. */
jlist_t *
jinja_items(jctx_t *c, jv_t v)
{
    jlist_t *l;
    uint32_t i;

    switch (v.t) {
    case J_UNDEF:
        return jinja_list_new(c, 0);
    case J_LIST:
    case J_TUPLE:
    case J_VIEW:
        return v.l;
    case J_GEN:
        return value_drain(c, v.l);
    case J_STR:
        return value_chars(c, v.s);
    case J_RANGE:
        l = jinja_list_new(c, v.r->n);
        for (i = 0; i < v.r->n; i++) {
            jinja_list_add(c, l, jinja_range_at(v.r, i));
        }
        return l;
    case J_DICT:
        l = jinja_list_new(c, v.d->n);
        for (i = 0; i < v.d->n; i++) {
            jinja_list_add(c, l, v.d->v[i].k);
        }
        return l;
    default:
        return NULL;
    }
}


/* --- dictionaries ------------------------------------------------------- */

/*
 * Eight bytes at a time.  Not keyed: collisions cost steps, which have a
 * limit.
 */
static uint32_t
hash_bytes(const char *s, size_t n)
{
    uint64_t h = 0xcbf29ce484222325ull, w;

    assert(s != NULL);

    for (; n >= 8; s += 8, n -= 8) {
        memcpy(&w, s, 8);
        h = (h ^ w) * 0xff51afd7ed558ccdull;
        h ^= h >> 32;
    }
    w = n;
    memcpy(&w, s, n > 0 ? n : 0);
    h = (h ^ w ^ (uint64_t) n << 56) * 0xc4ceb9fe1a85ec53ull;

    return (uint32_t) (h >> 32);
}


/* Equal keys have equal hashes: 1, 1.0 and True are one key. */
static uint32_t
hash_key(jctx_t *c, jv_t k)
{
    uint32_t h = 7, i;
    double f;

    switch (k.t) {
    case J_STR:
        (void) jinja_str_flat(c, k.s);
        jinja_step(c, k.s->len / 16);
        return hash_bytes(k.s->s, k.s->len);
    case J_BOOL:
    case J_INT:
    case J_FLOAT:
        f = value_number(k);
        f = f == 0 ? 0 : f;
        return hash_bytes((const char *) &f, sizeof(f));
    case J_TUPLE:
        jinja_enter(c);
        for (i = 0; i < k.l->n; i++) {
            h = h * 31 + hash_key(c, k.l->v[i]);
        }
        jinja_leave(c);
        return h;
    case J_LIST:
    case J_DICT:
        jinja_fail(c, "%s cannot be a key.", jinja_type_name(k));
    default:
        return k.t;
    }
}


/* cap is what is known to come; more may. */
jdict_t *
jinja_dict_new(jctx_t *c, uint32_t cap)
{
    jdict_t *d = jinja_mem_zero(c, 1, sizeof(*d));

    if (cap > 0) {
        d->v = jinja_mem_get(c, cap * sizeof(*d->v));
        d->cap = cap;
    }

    return d;
}


/* There is room: the index is twice as large as the pairs. */
static void
dict_index_put(jdict_t *d, uint32_t place)
{
    uint32_t i = d->v[place].hash & d->mask;

    assert(place < d->n);

    while (d->index[i] != 0) {
        i = (i + 1) & d->mask;
    }
    d->index[i] = place + 1;
}


/* Anew each time the pairs have moved to a larger place. */
static void
dict_index_make(jctx_t *c, jdict_t *d)
{
    uint32_t size = 32, i;

    assert(d->n <= d->cap);

    while (size < d->cap * 2) {
        size *= 2;
    }

    d->index = jinja_mem_zero(c, size, sizeof(*d->index));
    d->mask = size - 1;
    jinja_step(c, size / 16 + d->n);
    for (i = 0; i < d->n; i++) {
        dict_index_put(d, i);
    }
}


/* Strings, which are most keys, without a call. */
static int
dict_is(jctx_t *c, const jpair_t *p, jv_t k, uint32_t hash)
{
    assert(k.t != J_ABSENT);
    if (p->k.t == J_STR && k.t == J_STR) {
        return p->hash == hash && p->k.s->len == k.s->len
               && memcmp(p->k.s->s, k.s->s, k.s->len) == 0;
    }

    return p->hash == hash && jinja_eq(c, p->k, k);
}


/* The pair, or NULL. */
static jpair_t *
dict_find(jctx_t *c, jdict_t *d, jv_t k, uint32_t hash)
{
    uint32_t i;

    assert(k.t != J_ABSENT);

    if (d->index == NULL) {
        assert(d->n <= SMALL);
        for (i = 0; i < d->n; i++) {
            if (dict_is(c, &d->v[i], k, hash)) {
                return &d->v[i];
            }
        }
        return NULL;
    }

    /* half of it is empty, so this ends */
    for (i = hash & d->mask; d->index[i] != 0; i = (i + 1) & d->mask) {
        jinja_step(c, 1);
        assert(d->index[i] <= d->n);
        if (dict_is(c, &d->v[d->index[i] - 1], k, hash)) {
            return &d->v[d->index[i] - 1];
        }
    }

    return NULL;
}


/* Borrowed until the next pair is set. */
jv_t *
jinja_dict_get(jctx_t *c, jdict_t *d, jv_t k)
{
    jpair_t *p = dict_find(c, d, k, hash_key(c, k));

    assert(d != NULL);

    return p == NULL ? NULL : &p->v;
}


/* The same by a string. */
jv_t *
jinja_dict_str(jctx_t *c, jdict_t *d, jstr_t *k)
{
    assert(k != NULL);
    return jinja_dict_get(c, d, jinja_str(k));
}


/* A key that is there keeps its place. */
void
jinja_dict_set(jctx_t *c, jdict_t *d, jv_t k, jv_t v)
{
    uint32_t hash = hash_key(c, k);
    jpair_t *p = dict_find(c, d, k, hash), *more;

    assert(v.t != J_ABSENT);
    jinja_step(c, 1);

    /* only a namespace is ever changed so, once a template has it */
    if (p != NULL) {
        p->v = v;
        return;
    }

    if (d->n == d->cap) {
        more = jinja_mem_get(c, (d->cap * 2 + 4) * sizeof(*more));
        if (d->n > 0) {
            memcpy(more, d->v, d->n * sizeof(*more));
        }
        d->v = more;
        d->cap = d->cap * 2 + 4;
        d->index = NULL;
    }

    d->v[d->n] = (jpair_t){k, v, hash};
    d->n++;
    if (d->index != NULL) {
        dict_index_put(d, d->n - 1);
    } else if (d->n > SMALL) {
        dict_index_make(c, d);
    }
}


/* --- JSON --------------------------------------------------------------- */

/* Item by item. */
static jv_t
value_array(jctx_t *c, const json_t *j, unsigned origin)
{
    size_t i, n = json_array_size(j);
    jlist_t *l;

    assert(json_is_array(j));

    if (n > UINT32_MAX / 64) {
        jinja_fail(c, "An array is too long.");
    }

    l = jinja_list_new(c, (uint32_t) n);
    for (i = 0; i < n; i++) {
        jinja_list_add(c, l, jinja_from_json(c, json_array_get(j, i), origin));
    }

    return jinja_listed(J_LIST, l);
}


/* In jansson's order, which is that of the text. */
static jv_t
value_object(jctx_t *c, const json_t *j, unsigned origin)
{
    /* jansson's iterators do not change what they go through */
    json_t *obj = (json_t *) (uintptr_t) j;
    jv_t v = {.t = J_DICT};
    size_t n = json_object_size(j);
    jstr_t *k;
    void *it;

    assert(json_is_object(j));

    if (n > UINT32_MAX / 64) {
        jinja_fail(c, "An object is too large.");
    }

    v.d = jinja_dict_new(c, (uint32_t) n);
    for (it = json_object_iter(obj); it != NULL;
         it = json_object_iter_next(obj, it)) {
        k = jinja_str_of(
            c, json_object_iter_key(it), json_object_iter_key_len(it), origin);
        jinja_dict_set(c, v.d, jinja_str(k),
            jinja_from_json(c, json_object_iter_value(it), origin));
    }

    return v;
}


/* Numbers are what jansson takes: integers of 64 bits, other floats. */
jv_t
jinja_from_json(jctx_t *c, const json_t *j, unsigned origin)
{
    jv_t v;

    assert(j != NULL);

    switch (json_typeof(j)) {
    case JSON_OBJECT:
    case JSON_ARRAY:
        jinja_enter(c);
        v = json_is_array(j) ? value_array(c, j, origin)
                             : value_object(c, j, origin);
        jinja_leave(c);
        return v;
    case JSON_STRING:
        return jinja_str(jinja_str_of(
            c, json_string_value(j), json_string_length(j), origin));
    case JSON_INTEGER:
        return jinja_int(json_integer_value(j));
    case JSON_REAL:
        return jinja_float(json_real_value(j));
    case JSON_NULL:
        return jinja_none();
    default:
        return jinja_bool(json_is_true(j));
    }
}
