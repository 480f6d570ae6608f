/*
 * Statements run, and where their text goes.
 *
 * DESIGN.  There is one buffer of output.  What a macro, a block `set` or a
 * filter block writes is written to it too and cut off again as a string, so
 * nesting costs nothing.  Beside the bytes are the runs that say who wrote
 * them; below `floor` lies what an enclosing capture has begun and nothing
 * may be added to.
 *
 * A scope is made for a loop, a macro's body and the blocks that Jinja2 gives
 * one; `if` has none.  A loop clears its scope at each turn, unless a macro
 * that was defined in it may still look there.
 *
 * A loop's recursion and a macro's are calls of C functions; jinja_enter
 * bounds them.
 */
#include "jinja_impl.h"
#include "llm_err.h"

#include <stdlib.h>

typedef enum { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE } flow_t;

static flow_t exec_body(jrun_t *r, const jnode_t *n);


/* --- output ------------------------------------------------------------- */

/* Room for more in a buffer of the run's own. */
static void *
out_grow(jrun_t *r, void *p, size_t bytes)
{
    void *more = realloc(p, bytes);

    if (more == NULL) {
        jinja_fail_as(&r->c, -LLM_ERR_NO_MEMORY, "Out of memory.", 14);
    }

    return more;
}


/* In the form that jinja_str_each calls. */
void
jinja_out_put(void *run, const char *s, size_t len, unsigned origin)
{
    jrun_t *r = run;

    assert(origin <= JINJA_TEMPLATE && r->floor <= r->runs_n);

    if (len == 0) {
        return;
    }
    if (len > r->out_max - r->out_n) {
        jinja_fail(
            &r->c, "The template writes more than %zu bytes.", r->out_max);
    }

    if (r->out_cap - r->out_n < len) {
        r->out = out_grow(r, r->out, (r->out_n + len) * 2 + 1024);
        r->out_cap = (r->out_n + len) * 2 + 1024;
    }
    memcpy(r->out + r->out_n, s, len);
    r->out_n += len;

    if (r->runs_n == r->floor || r->runs[r->runs_n - 1].origin != origin) {
        if (r->runs_n == r->runs_cap) {
            r->runs =
                out_grow(r, r->runs, (r->runs_cap * 2 + 64) * sizeof(*r->runs));
            r->runs_cap = r->runs_cap * 2 + 64;
        }
        r->runs[r->runs_n++].origin = origin;
    }
    r->runs[r->runs_n - 1].end = (uint32_t) r->out_n;
}


/* Closes the last run, as it belongs to the text around. */
void
jinja_out_begin(jrun_t *r, jcapture_t *k)
{
    assert(k != NULL);
    k->out_n = r->out_n;
    k->runs_n = r->runs_n;
    k->floor = r->floor;
    r->floor = r->runs_n;
}


/* Cuts off what was written since, with its runs counted from there. */
jstr_t *
jinja_out_end(jrun_t *r, const jcapture_t *k)
{
    size_t i, at = k->out_n;
    jsb_t b;

    assert(r->floor == k->runs_n && r->out_n >= k->out_n);

    jinja_sb_open(&b, &r->c);
    b.cap = r->out_n - k->out_n;
    b.p = jinja_mem_get(&r->c, b.cap);
    for (i = k->runs_n; i < r->runs_n; i++) {
        jinja_sb_put(&b, r->out + at, r->runs[i].end - at, r->runs[i].origin);
        at = r->runs[i].end;
    }
    assert(at == r->out_n);

    r->out_n = k->out_n;
    r->runs_n = k->runs_n;
    r->floor = k->floor;

    return jinja_sb_end(&b);
}


/* An undefined value is nothing, not a failure: templates rely on it. */
static void
exec_print(jrun_t *r, jv_t v)
{
    assert(v.t != J_ABSENT);
    if (v.t != J_UNDEF) {
        jinja_str_each(&r->c, jinja_to_str(&r->c, v), jinja_out_put, r);
    }
}


/* --- scopes and assignment ---------------------------------------------- */

/* Empty; its first binding takes memory. */
static jscope_t *
scope_new(jrun_t *r, jscope_t *up)
{
    jscope_t *s = jinja_mem_zero(&r->c, 1, sizeof(*s));

    s->up = up;

    return s;
}


/* To a name, to a namespace's field, or to several at once. */
static void
exec_assign(jrun_t *r, const jnode_t *to, jv_t v)
{
    jlist_t *l;
    jv_t ns;
    uint32_t i;

    assert(v.t != J_ABSENT);

    if (to->kind == N_NAME) {
        jinja_bind(r, to->name, v);
        return;
    }

    if (to->kind == N_NSREF) {
        ns = jinja_lookup(r, to->name);
        if (ns.t != J_NS) {
            jinja_fail(&r->c,
                "%s is no namespace, so nothing can be set "
                "in it.",
                jinja_type_name(ns));
        }
        jinja_dict_set(&r->c, ns.d, to->value, v);
        return;
    }

    assert(to->kind == N_TUPLE);
    l = jinja_items(&r->c, v);
    if (l == NULL || l->n != to->n) {
        jinja_fail(&r->c, "%s cannot be taken apart into %u values.",
            jinja_type_name(v), (unsigned) to->n);
    }
    /* a target may be taken apart itself: "for (a, b), c in ..." */
    for (i = 0; i < to->n; i++) {
        exec_assign(r, to->v[i], l->v[i]);
    }
}


/* n's body in a scope of its own. */
static flow_t
exec_inner(jrun_t *r, const jnode_t *body)
{
    jscope_t *up = r->scope;
    flow_t flow;

    r->scope = scope_new(r, up);
    flow = exec_body(r, body);
    r->scope = up;

    return flow;
}


/* --- loops -------------------------------------------------------------- */

/* Those items for which the loop's own condition holds. */
static jlist_t *
loop_filter(jrun_t *r, const jnode_t *n, jlist_t *items)
{
    jlist_t *l = jinja_list_new(&r->c, 0);
    jscope_t *up = r->scope;
    uint32_t i;

    r->scope = scope_new(r, up);
    for (i = 0; i < items->n; i++) {
        r->scope->n = 0;
        exec_assign(r, n->a, items->v[i]);
        if (jinja_true(&r->c, jinja_eval(r, n->v[1]))) {
            jinja_list_add(&r->c, l, items->v[i]);
        }
    }
    r->scope = up;

    return l;
}


/* Item i, spelt out or counted. */
jv_t
jinja_loop_item(const jloop_t *l, uint32_t i)
{
    assert(i < l->n);

    return l->items != NULL ? l->items->v[i] : jinja_range_at(l->range, i);
}


/* What a loop over v goes through; ranges are not spelt out. */
static jloop_t *
loop_new(jrun_t *r, const jnode_t *n, jv_t v)
{
    jloop_t *l = jinja_mem_zero(&r->c, 1, sizeof(*l));

    l->node = n;
    l->up = r->scope;
    l->last = jinja_absent();

    if (v.t == J_RANGE && n->v[1] == NULL) {
        l->range = v.r;
        l->n = v.r->n;
        return l;
    }

    l->items = jinja_items(&r->c, v);
    if (l->items == NULL) {
        jinja_fail(&r->c, "%s cannot be looped over.", jinja_type_name(v));
    }
    if (n->v[1] != NULL) {
        l->items = loop_filter(r, n, l->items);
    }
    l->n = l->items->n;

    return l;
}


/* One turn after another; `break` and `continue` end here. */
static void
loop_run(jrun_t *r, jloop_t *l)
{
    jscope_t *up = r->scope, *s;
    jv_t v = {.t = J_LOOP, .loop = l};
    flow_t flow = FLOW_ON;

    assert(l->up == up);

    if (l->n == 0) {
        if (l->node->v[0] != NULL) {
            (void) exec_inner(r, l->node->v[0]);
        }
        return;
    }

    s = scope_new(r, up);
    for (; l->i < l->n && flow != FLOW_BREAK; l->i++) {
        if (s->kept) {
            s = scope_new(r, up);
        }
        jinja_step(&r->c, 1);
        s->n = 0;
        r->scope = s;
        jinja_bind(r, r->t->loop, v);
        exec_assign(r, l->node->a, jinja_loop_item(l, l->i));
        flow = exec_body(r, l->node->c);
    }
    l->i--; /* whoever kept it sees the last turn */
    r->scope = up;
}


/* loop(children): the same loop, one deeper, over other items. */
jv_t
jinja_exec_loop(jrun_t *r, jloop_t *l, const jargs_t *a)
{
    jscope_t *scope = r->scope;
    jcapture_t k;
    jloop_t *inner;
    jstr_t *s;

    assert(l->node->kind == N_FOR);

    if (!l->node->flag) {
        jinja_fail(&r->c, "Only a recursive loop can be called.");
    }
    if (a->n != 1 || a->kw_n != 0) {
        jinja_fail(&r->c, "loop() takes one list.");
    }

    jinja_enter(&r->c);
    r->scope = l->up;
    inner = loop_new(r, l->node, a->v[0]);
    inner->depth = l->depth + 1;
    jinja_out_begin(r, &k);
    loop_run(r, inner);
    s = jinja_out_end(r, &k);
    r->scope = scope;
    jinja_leave(&r->c);

    return jinja_str(s);
}


/* --- macros ------------------------------------------------------------- */

/* The parameter of that name, or NULL. */
static const jnode_t *
macro_param(jrun_t *r, const jnode_t *n, jstr_t *name)
{
    uint32_t i;

    for (i = 0; i < n->n; i++) {
        if (jinja_str_eq(&r->c, name, r->t->name[n->v[i]->name])) {
            return n->v[i];
        }
    }

    return NULL;
}


/* Is it bound in the innermost scope? */
static int
macro_bound(const jrun_t *r, uint32_t name)
{
    uint32_t i;

    for (i = 0; i < r->scope->n; i++) {
        if (r->scope->v[i].name == name) {
            return 1;
        }
    }

    return 0;
}


/*
 * Named arguments; those without a parameter go to kwargs, if the macro
 * names that, or are a mistake.
 */
static void
macro_named(jrun_t *r, const jnode_t *n, const jargs_t *a)
{
    jv_t rest = {.t = J_DICT};
    const jnode_t *param;
    jstr_t *name;
    uint32_t i;

    assert(n->kind == N_MACRO);

    rest.d = jinja_dict_new(&r->c, 0);
    for (i = 0; i < a->kw_n; i++) {
        name = a->kw[i].name;
        param = macro_param(r, n, name);

        if (param != NULL) {
            if (macro_bound(r, param->name)) {
                jinja_fail(&r->c, "A macro is given an argument twice.");
            }
            jinja_bind(r, param->name, a->kw[i].v);
        } else if ((n->op & MACRO_CALLER)
                   && jinja_str_is(&r->c, name, "caller")) {
            jinja_bind(r, r->t->caller, a->kw[i].v);
        } else if (n->op & MACRO_KWARGS) {
            jinja_dict_set(&r->c, rest.d, jinja_str(name), a->kw[i].v);
        } else {
            jinja_fail(&r->c, "A macro has no argument \"%.*s\".",
                (int) (name->len < 60 ? name->len : 60), name->s);
        }
    }
    if (n->op & MACRO_KWARGS) {
        jinja_bind(r, r->t->kwargs, rest);
    }
}


/* Binds the arguments in the macro's scope, which is the innermost. */
static void
macro_bind(jrun_t *r, const jnode_t *n, const jargs_t *a)
{
    jlist_t *rest = jinja_list_new(&r->c, 0);
    const jnode_t *param;
    uint32_t i;

    for (i = 0; i < a->n; i++) {
        if (i < n->n) {
            jinja_bind(r, n->v[i]->name, a->v[i]);
        } else if (n->op & MACRO_VARARGS) {
            jinja_list_add(&r->c, rest, a->v[i]);
        } else {
            jinja_fail(
                &r->c, "A macro takes at most %u arguments.", (unsigned) n->n);
        }
    }

    macro_named(r, n, a);

    for (i = 0; i < n->n; i++) {
        param = n->v[i];
        if (!macro_bound(r, param->name)) {
            jinja_bind(r, param->name,
                param->a != NULL ? jinja_eval(r, param->a)
                                 : jinja_undef(r->t->name[param->name]));
        }
    }
    if (n->op & MACRO_VARARGS) {
        jinja_bind(r, r->t->varargs, jinja_listed(J_TUPLE, rest));
    }
    if ((n->op & MACRO_CALLER) && !macro_bound(r, r->t->caller)) {
        jinja_bind(r, r->t->caller, jinja_undef(r->t->name[r->t->caller]));
    }
}


/*
 * Its scope hangs below the one where it was defined, not where it is
 * called.
 */
jv_t
jinja_exec_macro(jrun_t *r, jmacro_t *m, const jargs_t *a)
{
    jscope_t *scope = r->scope;
    jcapture_t k;
    jstr_t *s;

    assert(m->node->kind == N_MACRO);

    jinja_enter(&r->c);
    r->scope = scope_new(r, m->scope);
    macro_bind(r, m->node, a);
    jinja_out_begin(r, &k);
    (void) exec_body(r, m->node->c);
    s = jinja_out_end(r, &k);
    r->scope = scope;
    jinja_leave(&r->c);

    return jinja_str(s);
}


/* The scopes around must outlive it, so loops may not clear theirs. */
static jv_t
macro_new(jrun_t *r, const jnode_t *n)
{
    jv_t v = {.t = J_MACRO};
    jscope_t *s;

    assert(n->kind == N_MACRO);

    v.m = jinja_mem_get(&r->c, sizeof(*v.m));
    v.m->node = n;
    v.m->scope = r->scope;
    for (s = r->scope; s != NULL && !s->kept; s = s->up) {
        s->kept = 1;
    }

    return v;
}


/* --- statements --------------------------------------------------------- */

/* The chain of `elif`, without recursion. */
static flow_t
exec_if(jrun_t *r, const jnode_t *n)
{
    assert(n->kind == N_IF);
    for (; n != NULL && n->kind == N_IF; n = n->c) {
        if (jinja_true(&r->c, jinja_eval(r, n->a))) {
            return exec_body(r, n->b);
        }
    }

    return n != NULL ? exec_body(r, n) : FLOW_ON;
}


/* The body's text through the filters; `set` assigns it, else it is printed. */
static flow_t
exec_block(jrun_t *r, const jnode_t *n)
{
    jv_t piped = r->piped, v;
    jcapture_t k;
    flow_t flow;

    jinja_out_begin(r, &k);
    flow = exec_inner(r, n->c);
    v = jinja_str(jinja_out_end(r, &k));

    if (n->b != NULL) {
        r->piped = v;
        v = jinja_eval(r, n->b);
        r->piped = piped;
    }
    if (n->kind == N_SET_BLOCK) {
        exec_assign(r, n->a, v);
    } else {
        exec_print(r, v);
    }

    return flow;
}


/* Its names are seen inside only. */
static flow_t
exec_with(jrun_t *r, const jnode_t *n)
{
    jscope_t *up = r->scope, *s = scope_new(r, up);
    jv_t v;
    flow_t flow;
    uint32_t i;

    assert(n->kind == N_WITH && n->n % 2 == 0);

    /* all values are those of outside */
    for (i = 0; i + 1 < n->n; i += 2) {
        r->scope = up;
        v = jinja_eval(r, n->v[i + 1]);
        r->scope = s;
        exec_assign(r, n->v[i], v);
    }

    r->scope = s;
    flow = exec_body(r, n->c);
    r->scope = up;

    return flow;
}


/* What is neither text nor printed. */
static flow_t
exec_statement(jrun_t *r, const jnode_t *n)
{
    switch (n->kind) {
    case N_IF:
        return exec_if(r, n);
    case N_FOR:
        loop_run(r, loop_new(r, n, jinja_eval(r, n->b)));
        break;
    case N_SET:
        exec_assign(r, n->a, jinja_eval(r, n->b));
        break;
    case N_SET_BLOCK:
    case N_FILTER_BLOCK:
        return exec_block(r, n);
    case N_MACRO:
        jinja_bind(r, n->name, macro_new(r, n));
        break;
    case N_CALL_BLOCK:
        exec_print(r, jinja_eval_call(r, n->a, macro_new(r, n->b)));
        break;
    case N_WITH:
        return exec_with(r, n);
    case N_SCOPE:
        return exec_inner(r, n->c);
    case N_BREAK:
        return FLOW_BREAK;
    default:
        assert(n->kind == N_CONTINUE);
        return FLOW_CONTINUE;
    }

    return FLOW_ON;
}


/* Statements in order, until one jumps out of the loop around. */
static flow_t
exec_body(jrun_t *r, const jnode_t *body)
{
    flow_t flow = FLOW_ON;
    const jnode_t *n;
    uint32_t i;

    assert(body->kind == N_BODY);
    jinja_enter(&r->c);
    jinja_step(&r->c, 1); /* also where there is nothing in it */

    for (i = 0; i < body->n && flow == FLOW_ON; i++) {
        n = body->v[i];
        jinja_step(&r->c, 1);
        r->c.line = n->line;

        if (n->kind == N_DATA) {
            jinja_str_each(&r->c, n->value.s, jinja_out_put, r);
        } else if (n->kind == N_PRINT) {
            exec_print(r, jinja_eval(r, n->a));
        } else {
            flow = exec_statement(r, n);
        }
    }

    jinja_leave(&r->c);

    return flow;
}


/* From the first to the last statement; captures are closed by then. */
void
jinja_exec(jrun_t *r)
{
    assert(r->t->body->kind == N_BODY);
    (void) exec_body(r, r->t->body);
    assert(r->scope == NULL && r->floor == 0 && r->c.depth == 0);
}
