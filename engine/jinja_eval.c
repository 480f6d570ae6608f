/*
 * Expressions evaluated.
 *
 * DESIGN.  The tree is walked as it is: a rendering takes some thousand
 * nodes, and what it costs is the text and not the walk.  Names are numbers;
 * a scope holds a handful of them and is searched from its end.
 *
 * `a.b` looks for a method of a's type first and for an item then, `a["b"]`
 * the other way round, as in Jinja2: so `schema.items` is a method, whatever
 * keys a schema has.  Methods that would change a list or mapping exist, and
 * fail when they are called: the sandbox is the immutable one.
 */
#include "jinja_impl.h"


/* --- names -------------------------------------------------------------- */

/*
 * From the innermost scope out, then the template's own, then functions
 * of ours: so a template may have a variable called "range".
 */
jv_t
jinja_lookup(jrun_t *r, uint32_t name)
{
    const jscope_t *s;
    uint32_t i;

    assert(name < r->t->names_n);

    /* a name that is set in a branch that was not taken is not in its scope
     * and is found further out, as in Jinja2 */
    for (s = r->scope; s != NULL; s = s->up) {
        for (i = s->n; i > 0; i--) {
            if (s->v[i - 1].name == name) {
                return s->v[i - 1].v;
            }
        }
    }

    if (r->root[name].t != J_ABSENT) {
        return r->root[name];
    }
    if (r->t->global[name] != NULL) {
        return (jv_t){.t = J_FUNC, .row = r->t->global[name]};
    }

    return jinja_undef(r->t->name[name]);
}


/* In the innermost scope, where it may replace what is there. */
void
jinja_bind(jrun_t *r, uint32_t name, jv_t v)
{
    jscope_t *s = r->scope;
    jbind_t *more;
    uint32_t i;

    assert(v.t != J_ABSENT && name < r->t->names_n);

    if (s == NULL) {
        r->root[name] = v;
        return;
    }

    for (i = 0; i < s->n; i++) {
        if (s->v[i].name == name) {
            s->v[i].v = v;
            return;
        }
    }

    if (s->n == s->cap) {
        more = jinja_mem_get(&r->c, (s->cap * 2 + 4) * sizeof(*more));
        if (s->n > 0) {
            memcpy(more, s->v, s->n * sizeof(*more));
        }
        s->v = more;
        s->cap = s->cap * 2 + 4;
    }
    s->v[s->n++] = (jbind_t){name, v};
}


/* --- attributes and items ----------------------------------------------- */

/* Names the thing, cut short: it may be a client's key. */
noreturn static void
eval_undefined(jrun_t *r, jv_t v)
{
    assert(v.t == J_UNDEF);
    if (v.s == NULL) {
        jinja_fail(&r->c, "An undefined value is used.");
    }
    (void) jinja_str_flat(&r->c, v.s);
    jinja_fail(&r->c, "%.*s is undefined.",
        (int) (v.s->len < 60 ? v.s->len : 60), v.s->s);
}


/* What a loop tells of itself; the order of names is that of the cases. */
static jv_t
eval_loop_attr(const jloop_t *l, jstr_t *name)
{
    uint32_t i = l->i, n = l->n;

    assert(l->i < l->n);

    static const char *const names[] = {"index", "index0", "revindex",
        "revindex0", "first", "last", "length", "depth", "depth0", "previtem",
        "nextitem"};
    size_t k;

    for (k = 0; k < sizeof(names) / sizeof(names[0]); k++) {
        if (strlen(names[k]) == name->len
            && memcmp(names[k], name->s, name->len) == 0) {
            break;
        }
    }

    switch (k) {
    case 0:
        return jinja_int(i + 1);
    case 1:
        return jinja_int(i);
    case 2:
        return jinja_int(n - i);
    case 3:
        return jinja_int(n - i - 1);
    case 4:
        return jinja_bool(i == 0);
    case 5:
        return jinja_bool(i + 1 == n);
    case 6:
        return jinja_int(n);
    case 7:
        return jinja_int(l->depth + 1);
    case 8:
        return jinja_int(l->depth);
    case 9:
        return i == 0 ? jinja_undef(name) : jinja_loop_item(l, i - 1);
    case 10:
        return i + 1 >= n ? jinja_undef(name) : jinja_loop_item(l, i + 1);
    default:
        return jinja_undef(name);
    }
}


/* A method, J_UNDEF if it is out of bounds, J_ABSENT if there is none. */
static jv_t
eval_method(jrun_t *r, jv_t obj, jstr_t *name)
{
    const jrow_t *row = jinja_method(obj.t, name->s, name->len);
    jv_t v = {.t = J_METHOD};

    if (row == NULL) {
        return jinja_absent();
    }
    if (row->fn == NULL) {
        return jinja_undef(name);
    }

    v.b = jinja_mem_get(&r->c, sizeof(*v.b));
    v.b->self = obj;
    v.b->row = row;

    return v;
}


/* obj.name; method: might it be one's name? */
static jv_t
eval_attr(jrun_t *r, jv_t obj, jstr_t *name, int method)
{
    jv_t v;

    assert(name->s != NULL);

    if (obj.t == J_UNDEF) {
        eval_undefined(r, obj);
    }

    if (method) {
        v = eval_method(r, obj, name);
        if (v.t != J_ABSENT) {
            return v;
        }
    }
    if (obj.t == J_LOOP) {
        return eval_loop_attr(obj.loop, name);
    }
    if (obj.t == J_CYCLER && jinja_str_is(&r->c, name, "current")) {
        return obj.l->v[obj.l->at];
    }
    if (obj.t == J_TUPLE && obj.l->what != NULL && obj.l->n == 2) {
        if (jinja_str_is(&r->c, name, "grouper")) {
            return obj.l->v[0];
        }
        if (jinja_str_is(&r->c, name, "list")) {
            return obj.l->v[1];
        }
    }

    v = jinja_item(&r->c, obj, jinja_str(name));

    return v.t == J_ABSENT ? jinja_undef(name) : v;
}


/*
 * An item first: a mapping from a client may have a key that is also the
 * name of a method.
 */
jv_t
jinja_get(jrun_t *r, jv_t obj, jv_t key)
{
    jv_t v;

    if (obj.t == J_UNDEF) {
        eval_undefined(r, obj);
    }

    v = jinja_item(&r->c, obj, key);
    if (v.t != J_ABSENT) {
        return v;
    }
    if (key.t != J_STR) {
        return jinja_undef(NULL);
    }

    (void) jinja_str_flat(&r->c, key.s);

    return eval_attr(r, obj, key.s, 1);
}


/* The parts are evaluated in order, as they may be calls. */
static jv_t
eval_slice(jrun_t *r, jv_t obj, const jnode_t *n)
{
    jv_t none = jinja_none();
    jv_t a = n->a != NULL ? jinja_eval(r, n->a) : none;
    jv_t b = n->b != NULL ? jinja_eval(r, n->b) : none;
    jv_t c = n->c != NULL ? jinja_eval(r, n->c) : none;

    assert(n->kind == N_SLICE);

    return jinja_slice(&r->c, obj, a, b, c);
}


/* --- calls -------------------------------------------------------------- */

/* Where a named argument belongs, or a failure. */
static uint32_t
eval_param(jrun_t *r, const jrow_t *row, jstr_t *name)
{
    uint32_t i;

    for (i = 0; i < JINJA_PARAMS_MAX && row->params[i] != NULL; i++) {
        if (jinja_str_is(&r->c, name, row->params[i])) {
            return i;
        }
    }

    jinja_fail(&r->c, "%s() has no argument of that name.", row->name);
}


/*
 * Arguments are sorted here, so that the functions themselves only see
 * places: an argument's number in params is its number in a.
 */
jv_t
jinja_call_row(jrun_t *r, const jrow_t *row, jv_t self, const jargs_t *raw)
{
    jv_t a[JINJA_PARAMS_MAX];
    uint32_t i, max = 0;

    jinja_step(&r->c, 1);

    if (row->fn == NULL) {
        jinja_fail(&r->c,
            "%s() would change a value, which templates may "
            "not.",
            row->name);
    }

    for (i = 0; i < JINJA_PARAMS_MAX; i++) {
        a[i] = jinja_absent();
        max += row->params[i] != NULL;
    }
    if (max > 0 && row->params[0][0] == '*') {
        return row->fn(r, self, a, raw);
    }

    if (raw->n > max) {
        jinja_fail(&r->c, "%s() takes at most %u arguments.", row->name,
            (unsigned) max);
    }
    for (i = 0; i < raw->n; i++) {
        a[i] = raw->v[i];
    }
    for (i = 0; i < raw->kw_n; i++) {
        uint32_t at = eval_param(r, row, raw->kw[i].name);

        if (a[at].t != J_ABSENT) {
            jinja_fail(&r->c, "%s() is given an argument twice.", row->name);
        }
        a[at] = raw->kw[i].v;
    }
    for (i = 0; i < row->need; i++) {
        if (a[i].t == J_ABSENT) {
            jinja_fail(&r->c, "%s() lacks the argument %s.", row->name,
                row->params[i]);
        }
    }

    return row->fn(r, self, a, raw);
}


/* What is called may be anything that a template can name. */
jv_t
jinja_call(jrun_t *r, jv_t f, const jargs_t *a)
{
    assert(f.t != J_ABSENT);
    switch (f.t) {
    case J_FUNC:
        return jinja_call_row(r, f.row, jinja_none(), a);
    case J_METHOD:
        return jinja_call_row(r, f.b->row, f.b->self, a);
    case J_MACRO:
        return jinja_exec_macro(r, f.m, a);
    case J_LOOP:
        return jinja_exec_loop(r, f.loop, a);
    case J_JOINER:
        return f.l->at++ == 0 ? jinja_str(jinja_str_lit(&r->c, "")) : f.l->v[0];
    case J_UNDEF:
        eval_undefined(r, f);
    default:
        jinja_fail(&r->c, "%s cannot be called.", jinja_type_name(f));
    }
}


/* Values as further arguments; l is NULL if they are no list. */
static void
eval_star(jrun_t *r, jargs_t *a, jlist_t *l, uint32_t more)
{
    jv_t *v;

    if (l == NULL) {
        jinja_fail(&r->c, "What follows * is no list.");
    }
    if (l->n > UINT32_MAX / 64) {
        jinja_fail(&r->c, "There are too many arguments.");
    }

    v = jinja_mem_get(&r->c, (a->n + l->n + more) * sizeof(*v));
    if (a->n > 0) {
        memcpy(v, a->v, a->n * sizeof(*v));
    }
    if (l->n > 0) {
        memcpy(v + a->n, l->v, l->n * sizeof(*v));
    }
    jinja_step(&r->c, l->n);
    a->v = v;
    a->n += l->n;
}


/* One more named argument. */
static void
eval_kw(jrun_t *r, jargs_t *a, uint32_t *cap, jstr_t *name, jv_t v)
{
    jkw_t *more;

    assert(name != NULL && v.t != J_ABSENT);

    if (a->kw_n == *cap) {
        *cap = *cap * 2 + 4;
        more = jinja_mem_get(&r->c, *cap * sizeof(*more));
        if (a->kw_n > 0) {
            memcpy(more, a->kw, a->kw_n * sizeof(*more));
        }
        a->kw = more;
    }

    (void) jinja_str_flat(&r->c, name);
    a->kw[a->kw_n].name = name;
    a->kw[a->kw_n++].v = v;
}


/* A mapping's pairs as named arguments. */
static void
eval_star2(jrun_t *r, jargs_t *a, uint32_t *cap, jv_t v)
{
    uint32_t i;

    if (v.t != J_DICT) {
        jinja_fail(&r->c, "What follows ** is no mapping.");
    }
    for (i = 0; i < v.d->n; i++) {
        if (v.d->v[i].k.t != J_STR) {
            jinja_fail(&r->c, "An argument's name is no string.");
        }
        jinja_step(&r->c, 1);
        eval_kw(r, a, cap, v.d->v[i].k.s, v.d->v[i].v);
    }
}


/* All arguments of a call, filter or test. */
static void
eval_args(jrun_t *r, const jnode_t *n, jargs_t *a, jv_t caller)
{
    uint32_t i, cap = 0;
    const jnode_t *arg;

    assert(n->kind == N_CALL || n->kind == N_FILTER || n->kind == N_TEST);

    memset(a, 0, sizeof(*a));
    if (n->n > 0) {
        a->v = jinja_mem_get(&r->c, n->n * sizeof(*a->v));
    }

    for (i = 0; i < n->n; i++) {
        arg = n->v[i];
        if (arg->kind == N_STAR) {
            eval_star(
                r, a, jinja_items(&r->c, jinja_eval(r, arg->a)), n->n - i);
        } else if (arg->kind == N_STAR2) {
            eval_star2(r, a, &cap, jinja_eval(r, arg->a));
        } else if (arg->kind == N_KWARG) {
            eval_kw(r, a, &cap, arg->value.s, jinja_eval(r, arg->a));
        } else {
            a->v[a->n++] = jinja_eval(r, arg);
        }
    }

    if (caller.t != J_ABSENT) {
        eval_kw(r, a, &cap, r->t->name[r->t->caller], caller);
    }
}


/*
 * A method is called without being made a value first: most calls in
 * templates are.
 */
jv_t
jinja_eval_call(jrun_t *r, const jnode_t *n, jv_t caller)
{
    const jnode_t *f = n->a;
    const jrow_t *row = NULL;
    jv_t obj = jinja_absent(), called = jinja_absent();
    jargs_t a;

    assert(n->kind == N_CALL);

    if (f->kind == N_ATTR && f->flag) {
        obj = jinja_eval(r, f->a);
        row = jinja_method(obj.t, f->value.s->s, f->value.s->len);
        if (row == NULL) {
            called = eval_attr(r, obj, f->value.s, 0);
        }
    } else {
        called = jinja_eval(r, f);
    }

    eval_args(r, n, &a, caller);
    r->c.line = n->line;

    return row != NULL ? jinja_call_row(r, row, obj, &a)
                       : jinja_call(r, called, &a);
}


/* Filters and tests alike: rows that take a value. */
static jv_t
eval_filter(jrun_t *r, const jnode_t *n)
{
    jv_t v = n->a != NULL ? jinja_eval(r, n->a) : r->piped;
    jargs_t a;

    assert(n->kind == N_FILTER || n->kind == N_TEST);

    if (n->row == NULL) {
        jinja_fail(&r->c, "There is no %s named \"%.*s\".",
            n->kind == N_FILTER ? "filter" : "test", (int) n->value.s->len,
            n->value.s->s);
    }

    eval_args(r, n, &a, jinja_absent());
    r->c.line = n->line;

    return jinja_call_row(r, n->row, v, &a);
}


/* --- the rest ----------------------------------------------------------- */

/* A list or tuple, spelt out. */
static jv_t
eval_items(jrun_t *r, const jnode_t *n)
{
    jlist_t *l = jinja_list_new(&r->c, n->n);
    uint32_t i;

    assert(n->kind == N_LIST || n->kind == N_TUPLE);

    for (i = 0; i < n->n; i++) {
        jinja_list_add(&r->c, l, jinja_eval(r, n->v[i]));
    }

    return jinja_listed(n->kind == N_LIST ? J_LIST : J_TUPLE, l);
}


/* Of equal keys the last value counts, at the first one's place. */
static jv_t
eval_dict(jrun_t *r, const jnode_t *n)
{
    jv_t v = {.t = J_DICT}, k;
    uint32_t i;

    assert(n->kind == N_DICT && n->n % 2 == 0);

    v.d = jinja_dict_new(&r->c, n->n / 2);
    for (i = 0; i + 1 < n->n; i += 2) {
        k = jinja_eval(r, n->v[i]);
        jinja_dict_set(&r->c, v.d, k, jinja_eval(r, n->v[i + 1]));
    }

    return v;
}


/* a < b < c: each middle part is evaluated once. */
static jv_t
eval_compare(jrun_t *r, const jnode_t *n)
{
    jv_t a = jinja_eval(r, n->a), b, v = jinja_bool(1);
    uint32_t i;

    assert(n->kind == N_COMPARE && n->n > 0);

    for (i = 0; i < n->n && jinja_true(&r->c, v); i++) {
        b = jinja_eval(r, n->v[i]->a);
        v = jinja_compare(&r->c, n->v[i]->op, a, b);
        a = b;
    }

    return v;
}


/* Everything becomes a string, and what was marked safe is no more. */
static jv_t
eval_cat(jrun_t *r, const jnode_t *n)
{
    jstr_t *s = jinja_to_str(&r->c, jinja_eval(r, n->v[0]));
    uint32_t i;

    assert(n->kind == N_CAT && n->n > 1);

    for (i = 1; i < n->n; i++) {
        s = jinja_str_cat(
            &r->c, s, jinja_to_str(&r->c, jinja_eval(r, n->v[i])));
    }

    return jinja_str(s);
}


/* The value itself, not its truth, as in Python. */
static jv_t
eval_and_or(jrun_t *r, const jnode_t *n)
{
    jv_t v = jinja_eval(r, n->a);

    assert(n->kind == N_AND || n->kind == N_OR);

    return jinja_true(&r->c, v) == (n->kind == N_AND) ? jinja_eval(r, n->b) : v;
}


/* Without `else` it is undefined, which prints as nothing. */
static jv_t
eval_cond(jrun_t *r, const jnode_t *n)
{
    assert(n->kind == N_COND);
    if (jinja_true(&r->c, jinja_eval(r, n->b))) {
        return jinja_eval(r, n->a);
    }

    return n->c != NULL ? jinja_eval(r, n->c) : jinja_undef(NULL);
}


/* What is made of two or of one part. */
static jv_t
eval_parts(jrun_t *r, const jnode_t *n)
{
    jv_t a = jinja_eval(r, n->a), b;

    switch (n->kind) {
    case N_ATTR:
        return eval_attr(r, a, n->value.s, n->flag);
    case N_NOT:
        return jinja_bool(!jinja_true(&r->c, a));
    case N_NEG:
    case N_POS:
        return jinja_neg(&r->c, a, n->kind == N_NEG);
    case N_ITEM:
        if (n->b->kind == N_SLICE) {
            return eval_slice(r, a, n->b);
        }
        return jinja_get(r, a, jinja_eval(r, n->b));
    default:
        assert(n->kind == N_BINARY);
        b = jinja_eval(r, n->b);
        return jinja_binary(&r->c, n->op, a, b);
    }
}


/*
 * All that has parts.  Apart from jinja_eval so that constants and names,
 * which are most nodes, take no stack.
 */
static jv_t
eval_deep(jrun_t *r, const jnode_t *n)
{
    jv_t v;

    switch (n->kind) {
    case N_TUPLE:
    case N_LIST:
        return eval_items(r, n);
    case N_DICT:
        return eval_dict(r, n);
    case N_CALL:
        return jinja_eval_call(r, n, jinja_absent());
    case N_FILTER:
        return eval_filter(r, n);
    case N_TEST:
        v = eval_filter(r, n);
        return jinja_bool(jinja_true(&r->c, v) != n->op);
    case N_COMPARE:
        return eval_compare(r, n);
    case N_AND:
    case N_OR:
        return eval_and_or(r, n);
    case N_CAT:
        return eval_cat(r, n);
    case N_COND:
        return eval_cond(r, n);
    case N_SLICE:
        jinja_fail(&r->c, "A slice stands where it means nothing.");
    default:
        return eval_parts(r, n);
    }
}


/* Leaves at once, the rest one level deeper. */
jv_t
jinja_eval(jrun_t *r, const jnode_t *n)
{
    jv_t v;

    assert(n != NULL);

    jinja_step(&r->c, 1);

    if (n->kind == N_CONST) {
        return n->value;
    }
    if (n->kind == N_NAME) {
        return jinja_lookup(r, n->name);
    }

    r->c.line = n->line;
    jinja_enter(&r->c);
    v = eval_deep(r, n);
    jinja_leave(&r->c);
    assert(v.t != J_ABSENT);

    return v;
}
