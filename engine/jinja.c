/*
 * Chat templates compiled and rendered: the ways in.
 *
 * DESIGN.  Compiling makes a tree in an arena that is never written to again,
 * so any number of threads may render from it.  A rendering has an arena and
 * an output buffer of its own; it cannot touch anything else: there is no
 * file, no clock but the one that is handed in, no random number.
 *
 * A template comes with a model, a conversation from a client, and neither is
 * trusted to be harmless together: steps, depth, memory and output each have
 * a limit that the caller sets, and whoever exceeds one gets a sentence.
 *
 * Ownership: jinja_t belongs to whoever compiled it; jinja_out_t's text to
 * whoever rendered.
 */
#include "jinja_impl.h"
#include "llm_err.h"

#include <stdio.h>
#include <stdlib.h>

#define COMPILE_MEMORY ((size_t) 64 << 20)
#define COMPILE_STEPS  100000000
#define COMPILE_DEPTH  1000

_Static_assert(sizeof(jv_t) == 16, "values are passed by value");


/* --- compiling ---------------------------------------------------------- */

/* The names as an array, and which of them are functions of ours. */
static void
compile_names(jinja_t *t)
{
    uint32_t i;

    t->names_n = t->names->n;
    t->name = jinja_mem_get(&t->c, t->names_n * sizeof(jstr_t *));
    t->global = jinja_mem_get(&t->c, t->names_n * sizeof(jrow_t *));

    for (i = 0; i < t->names_n; i++) {
        assert(t->names->v[i].v.i == (int64_t) i);
        t->name[i] = t->names->v[i].k.s;
        t->global[i] = jinja_function(t->name[i]->s, t->name[i]->len);
    }
}


/* The whole way from source to tree; leaves by longjmp if it fails. */
static void
compile(jinja_t *t, const char *src, size_t len)
{
    jparse_t p = {.t = t, .c = &t->c};
    char *copy = jinja_mem_get(&t->c, len + 1);
    const jtok_t *tok;
    uint32_t n;

    assert(t->body == NULL);

    memcpy(copy, src, len);
    t->src = copy;
    t->src_len = len;

    t->names = jinja_dict_new(&t->c, 0);
    t->loop = jinja_parse_name(&p, "loop", 4);
    t->caller = jinja_parse_name(&p, "caller", 6);
    t->varargs = jinja_parse_name(&p, "varargs", 7);
    t->kwargs = jinja_parse_name(&p, "kwargs", 6);

    tok = jinja_lex(&t->c, copy, len, &n);
    p.tok = tok;
    p.end = tok + n;
    t->body = jinja_parse(&p);
    compile_names(t);
}


/* 0, or -1: it failed, and why is in t->c.err. */
static int
compile_try(jinja_t *t, const char *src, size_t len)
{
    if (setjmp(t->c.leave) != 0) {
        return -1;
    }
    compile(t, src, len);

    return 0;
}


/*
 * The arena's limit is generous: a tree takes some fifty times its
 * source, and the largest real template has 17 KB.
 */
jinja_t *
jinja_compile(const char *src, size_t len, char *err, size_t errlen)
{
    jinja_t *t;

    assert(src != NULL || len == 0);
    assert(errlen > 0);

    if (len > JINJA_SOURCE_MAX) {
        snprintf(err, errlen, "The chat template is longer than %u bytes.",
            JINJA_SOURCE_MAX);
        return NULL;
    }

    t = calloc(1, sizeof(*t));
    if (t == NULL) {
        snprintf(err, errlen, "Out of memory.");
        return NULL;
    }

    t->c.mem.max = COMPILE_MEMORY;
    t->c.err = err;
    t->c.errlen = errlen;
    t->c.steps_max = COMPILE_STEPS;
    t->c.depth_max = COMPILE_DEPTH;
    if (compile_try(t, src, len) != 0) {
        jinja_free(t);
        return NULL;
    }

    /* it was the caller's */
    t->c.err = NULL;
    t->c.errlen = 0;

    return t;
}


void
jinja_free(jinja_t *t)
{
    if (t == NULL) {
        return;
    }

    jinja_mem_free(&t->c.mem);
    free(t);
}


/*
 * In its source, so a comment counts too: who writes one about a role
 * knows it.
 */
int
jinja_mentions(const jinja_t *t, const char *s)
{
    assert(t->src != NULL);
    return memmem(t->src, t->src_len, s, strlen(s)) != NULL;
}


/* --- rendering ---------------------------------------------------------- */

/* The variables that the template names at all; the others cost nothing. */
static void
render_vars(jrun_t *r, const jinja_args_t *args)
{
    const jinja_var_t *var;
    jstr_t *name;
    size_t i;
    jv_t *v;

    r->root = jinja_mem_zero(&r->c, r->t->names_n, sizeof(*r->root));

    for (i = 0; i < args->vars_n; i++) {
        var = &args->vars[i];
        assert(var->name != NULL && var->origin <= JINJA_TEMPLATE);

        name = jinja_str_of(&r->c, var->name, strlen(var->name), JINJA_DATA);
        v = jinja_dict_str(&r->c, r->t->names, name);
        if (v != NULL && r->root[v->i].t == J_ABSENT) {
            r->root[v->i] = jinja_from_json(&r->c, var->value, var->origin);
        }
    }
}


/* 0, or -1: it failed, and how is in r->c. */
static int
render_try(jrun_t *r, const jinja_args_t *args)
{
    if (setjmp(r->c.leave) != 0) {
        return -1;
    }
    render_vars(r, args);
    jinja_exec(r);

    return 0;
}


/*
 * All of a rendering's state is on this function's stack or hangs from
 * it, and is freed here whichever way the rendering ends.
 */
int
jinja_render(const jinja_t *t, const jinja_args_t *args, jinja_out_t *out)
{
    const jinja_limits_t *l = args->limits;
    jrun_t r;
    int rc;

    assert(t->body != NULL && args != NULL);

    assert(l->steps_max > 0 && l->depth_max > 0);
    assert(l->memory_max < (size_t) 1 << 31);
    assert(l->output_max <= (size_t) 1 << 31);

    memset(&r, 0, sizeof(r));
    memset(out, 0, sizeof(*out));
    r.t = t;
    r.now = args->now;
    r.out_max = l->output_max;
    r.piped = jinja_none();
    r.c.mem.max = l->memory_max;
    r.c.err = out->err;
    r.c.errlen = sizeof(out->err);
    r.c.steps_max = l->steps_max;
    r.c.depth_max = l->depth_max;
    r.c.cancelled = args->cancelled;
    r.c.arg = args->arg;

    rc = render_try(&r, args);
    jinja_mem_free(&r.c.mem);

    if (rc != 0) {
        assert(r.c.code < 0 && out->err[0] != '\0');
        out->raised = r.raised;
        free(r.out);
        free(r.runs);
        return r.c.code;
    }

    out->text = r.out;
    out->len = r.out_n;
    out->runs = r.runs;
    out->runs_n = r.runs_n;
    assert(r.runs_n == 0 || r.runs[r.runs_n - 1].end == r.out_n);

    return 0;
}


/* Also of one that was freed already. */
void
jinja_out_free(jinja_out_t *out)
{
    assert(out != NULL);
    free(out->text);
    free(out->runs);
    out->text = NULL;
    out->runs = NULL;
    out->len = out->runs_n = 0;
}
