/*
 * Tokens to the tree of a template: statements, and what the two parsers
 * share.
 *
 * DESIGN.  As Jinja2's parser, without the statements that need other
 * templates.  What is wrong is found here and not when a conversation comes:
 * unknown statements, filters and tests (except in branches, where Jinja2
 * waits too), `break` outside of loops.
 *
 * `elif` is a chain that is run by a loop, everything else that nests counts
 * into the tree's depth.
 */
#include "jinja_impl.h"

#include <stdarg.h>
#include <stdio.h>

#define DEPTH_MAX 400 /* of the tree */
#define BLOCK_MAX 60  /* statements in one another */

static jnode_t *parse_body(jparse_t *p, const char *const *ends);


/* --- for both parsers --------------------------------------------------- */

/* At the line of the token at hand. */
noreturn void
jinja_parse_fail(jparse_t *p, const char *fmt, ...)
{
    char why[160];
    va_list ap;

    assert(fmt != NULL);

    va_start(ap, fmt);
    (void) vsnprintf(why, sizeof(why), fmt, ap);
    va_end(ap);

    p->c->line = p->tok->line;
    jinja_fail(p->c, "%s.", why);
}


/* Stays at the end, so that no one can run past it. */
void
jinja_parse_next(jparse_t *p)
{
    assert(p->tok < p->end);

    /* the last one is T_EOF and stays */
    if (p->tok + 1 < p->end) {
        p->tok++;
    }
}


/* Is the token at hand of this kind? */
int
jinja_parse_is(const jparse_t *p, unsigned t)
{
    return p->tok->t == t;
}


/* Is it this name?  Words of the language are names to the lexer. */
int
jinja_parse_word(const jparse_t *p, const char *word)
{
    assert(word != NULL);
    return p->tok->t == T_NAME && p->tok->len == strlen(word)
           && memcmp(p->tok->s, word, p->tok->len) == 0;
}


/* If it is of this kind: 1, and it is read. */
int
jinja_parse_skip(jparse_t *p, unsigned t)
{
    if (!jinja_parse_is(p, t)) {
        return 0;
    }
    jinja_parse_next(p);

    return 1;
}


/* The same of a name. */
int
jinja_parse_skip_word(jparse_t *p, const char *word)
{
    if (!jinja_parse_word(p, word)) {
        return 0;
    }
    jinja_parse_next(p);

    return 1;
}


/* It must be of this kind; what names it in the sentence otherwise. */
void
jinja_parse_want(jparse_t *p, unsigned t, const char *what)
{
    assert(what != NULL);
    if (!jinja_parse_skip(p, t)) {
        jinja_parse_fail(p, "%s is missing", what);
    }
}


/* The number of a name; equal names have one number. */
uint32_t
jinja_parse_name(jparse_t *p, const char *s, size_t len)
{
    jinja_t *t = p->t;
    jstr_t *name = jinja_str_of(p->c, s, len, JINJA_DATA);
    jv_t *v;

    assert(s != NULL);

    (void) jinja_str_chars(p->c, name);
    v = jinja_dict_str(p->c, t->names, name);
    if (v == NULL) {
        jinja_dict_set(
            p->c, t->names, jinja_str(name), jinja_int((int64_t) t->names->n));
        return t->names->n - 1;
    }

    return (uint32_t) v->i;
}


/* An empty node, of the line at hand. */
jnode_t *
jinja_parse_node(jparse_t *p, unsigned kind)
{
    jnode_t *n = jinja_mem_zero(p->c, 1, sizeof(*n));

    assert(kind <= N_CONTINUE);

    n->kind = (uint8_t) kind;
    n->line = p->tok->line;
    n->depth = 1;

    return n;
}


/* So the evaluator needs no bound of its own for one expression. */
void
jinja_parse_over(jparse_t *p, jnode_t *n, const jnode_t *part)
{
    assert(n->depth > 0);
    if (part != NULL && part->depth >= n->depth) {
        n->depth = (uint16_t) (part->depth + 1);
    }
    if (n->depth > DEPTH_MAX) {
        jinja_parse_fail(p, "it is nested too deep");
    }
}


/* cap is the caller's: a node has no room for it, and needs it only now. */
void
jinja_parse_add(jparse_t *p, jnode_t *n, jnode_t *part, uint32_t *cap)
{
    jnode_t **v;

    assert(part != NULL);

    if (n->n == *cap) {
        *cap = *cap * 2 + 4;
        v = jinja_mem_get(p->c, *cap * sizeof(jnode_t *));
        if (n->n > 0) {
            memcpy(v, n->v, n->n * sizeof(jnode_t *));
        }
        n->v = v;
    }

    n->v[n->n++] = part;
    jinja_parse_over(p, n, part);
}


/* --- statements --------------------------------------------------------- */

/* The end of a statement's tag, then its body up to one of ends. */
static jnode_t *
parse_inside(jparse_t *p, const char *const *ends)
{
    (void) jinja_parse_skip(p, T_COLON);
    jinja_parse_want(p, T_BLOCK_END, "the end of a statement");

    return parse_body(p, ends);
}


/* A statement's body up to the tag called end, which is passed. */
static void
parse_block(jparse_t *p, jnode_t *n, const char *end)
{
    const char *const ends[] = {end, NULL};
    int soft = p->soft;

    p->soft = 0;
    n->c = parse_inside(p, ends);
    jinja_parse_next(p);
    jinja_parse_over(p, n, n->c);
    p->soft = soft;
}


/* What stands behind "else", NULL if nothing does; then the same. */
static jnode_t *
parse_else(jparse_t *p, jnode_t *n, const char *end)
{
    const char *const ends[] = {end, NULL};
    jnode_t *body = NULL;

    if (jinja_parse_skip_word(p, "else")) {
        body = parse_inside(p, ends);
        jinja_parse_over(p, n, body);
    }
    jinja_parse_next(p);

    return body;
}


/* All branches are soft: what they name may be missing. */
static jnode_t *
parse_if(jparse_t *p)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    jnode_t *first = NULL, *n = NULL, **at = &first;
    int soft = p->soft;

    assert(jinja_parse_word(p, "if"));

    p->soft = 1;
    do {
        jinja_parse_next(p);
        n = *at = jinja_parse_node(p, N_IF);
        n->a = jinja_expr_tuple(p, 0);
        n->b = parse_inside(p, ends);
        jinja_parse_over(p, first, n->a);
        jinja_parse_over(p, first, n->b);
        at = &n->c;
    } while (jinja_parse_word(p, "elif"));

    n->c = parse_else(p, first, "endif");
    p->soft = soft;

    return first;
}


/* Its parts are looked at in the order in which they stand. */
static jnode_t *
parse_for(jparse_t *p)
{
    static const char *const ends[] = {"endfor", "else", NULL};
    jnode_t *n = jinja_parse_node(p, N_FOR);
    int soft = p->soft;

    assert(jinja_parse_word(p, "for"));

    n->v = jinja_mem_zero(p->c, 2, sizeof(jnode_t *));
    jinja_parse_next(p);
    n->a = jinja_expr_target(p, 0);
    if (!jinja_parse_skip_word(p, "in")) {
        jinja_parse_fail(p, "in is missing");
    }
    n->b = jinja_expr_tuple(p, 0);

    p->soft = 0;
    if (jinja_parse_skip_word(p, "if")) {
        n->v[1] = jinja_expr(p);
        jinja_parse_over(p, n, n->v[1]);
    }
    n->flag = (uint8_t) jinja_parse_skip_word(p, "recursive");

    p->loops++;
    n->c = parse_inside(p, ends);
    p->loops--;
    n->v[0] = parse_else(p, n, "endfor");
    jinja_parse_over(p, n, n->b);
    jinja_parse_over(p, n, n->c);
    p->soft = soft;

    return n;
}


/* With "=" a value, without it a body. */
static jnode_t *
parse_set(jparse_t *p)
{
    jnode_t *n = jinja_parse_node(p, N_SET);

    assert(jinja_parse_word(p, "set"));

    jinja_parse_next(p);
    n->a = jinja_expr_target(p, 1);
    if (jinja_parse_skip(p, T_ASSIGN)) {
        n->b = jinja_expr_tuple(p, 1);
        jinja_parse_over(p, n, n->b);
        return n;
    }

    n->kind = N_SET_BLOCK;
    n->b = jinja_expr_filters(p, NULL, 0);
    jinja_parse_over(p, n, n->b);
    parse_block(p, n, "endset");

    return n;
}


/* "a, b=c)" behind a parenthesis. */
static void
parse_params(jparse_t *p, jnode_t *n)
{
    uint32_t cap = 0;
    jnode_t *param;

    while (!jinja_parse_skip(p, T_RPAREN)) {
        if (n->n > 0) {
            jinja_parse_want(p, T_COMMA, ",");
        }
        param = jinja_parse_node(p, N_PARAM);
        param->name = jinja_parse_name(p, p->tok->s, p->tok->len);
        jinja_parse_want(p, T_NAME, "the name of a parameter");
        if (jinja_parse_skip(p, T_ASSIGN)) {
            param->a = jinja_expr(p);
            jinja_parse_over(p, param, param->a);
        } else if (n->n > 0 && n->v[n->n - 1]->a != NULL) {
            jinja_parse_fail(
                p, "a parameter without default follows one that has it");
        }
        jinja_parse_add(p, n, param, &cap);
    }
}


/* The body of n, in which caller, varargs and kwargs are its own. */
static void
parse_called_body(jparse_t *p, jnode_t *n, const char *end)
{
    uint32_t loops = p->loops;
    uint8_t uses = p->uses;

    p->loops = 0;
    p->uses = 0;
    parse_block(p, n, end);
    n->op = p->uses;
    p->uses = uses;
    p->loops = loops;
}


/* A macro is a name for what is called. */
static jnode_t *
parse_macro(jparse_t *p)
{
    jnode_t *n = jinja_parse_node(p, N_MACRO);

    assert(jinja_parse_word(p, "macro"));

    jinja_parse_next(p);
    n->name = jinja_parse_name(p, p->tok->s, p->tok->len);
    jinja_parse_want(p, T_NAME, "the name of a macro");
    jinja_parse_want(p, T_LPAREN, "(");
    parse_params(p, n);
    parse_called_body(p, n, "endmacro");

    return n;
}


/* The body is a macro called "caller", handed to the call. */
static jnode_t *
parse_call(jparse_t *p)
{
    jnode_t *n = jinja_parse_node(p, N_CALL_BLOCK);

    assert(jinja_parse_word(p, "call"));

    jinja_parse_next(p);
    n->b = jinja_parse_node(p, N_MACRO);
    n->b->name = p->t->caller;
    if (jinja_parse_skip(p, T_LPAREN)) {
        parse_params(p, n->b);
    }
    n->a = jinja_expr_plain(p);
    if (n->a->kind != N_CALL) {
        jinja_parse_fail(p, "a call block needs a call");
    }
    parse_called_body(p, n->b, "endcall");
    jinja_parse_over(p, n, n->a);
    jinja_parse_over(p, n, n->b);

    return n;
}


/* The filter stands without a "|" before it. */
static jnode_t *
parse_filter(jparse_t *p)
{
    jnode_t *n = jinja_parse_node(p, N_FILTER_BLOCK);

    assert(jinja_parse_word(p, "filter"));

    jinja_parse_next(p);
    n->b = jinja_expr_filters(p, NULL, 1);
    jinja_parse_over(p, n, n->b);
    parse_block(p, n, "endfilter");

    return n;
}


/* Any number of names, none included. */
static jnode_t *
parse_with(jparse_t *p)
{
    jnode_t *n = jinja_parse_node(p, N_WITH);
    uint32_t cap = 0;

    assert(jinja_parse_word(p, "with"));

    jinja_parse_next(p);
    while (!jinja_parse_is(p, T_BLOCK_END)) {
        if (n->n > 0) {
            jinja_parse_want(p, T_COMMA, ",");
        }
        jinja_parse_add(p, n, jinja_expr_target(p, 0), &cap);
        jinja_parse_want(p, T_ASSIGN, "=");
        jinja_parse_add(p, n, jinja_expr(p), &cap);
    }
    parse_block(p, n, "endwith");

    return n;
}


/* Marks what an assistant said, for training; a scope like a call's. */
static jnode_t *
parse_generation(jparse_t *p)
{
    jnode_t *n = jinja_parse_node(p, N_SCOPE);

    assert(jinja_parse_word(p, "generation"));

    jinja_parse_next(p);
    parse_block(p, n, "endgeneration");

    return n;
}


/* Only inside of a loop, and not through a macro. */
static jnode_t *
parse_jump(jparse_t *p)
{
    jnode_t *n = jinja_parse_node(
        p, jinja_parse_word(p, "break") ? N_BREAK : N_CONTINUE);

    assert(p->tok->t == T_NAME);

    if (p->loops == 0) {
        jinja_parse_fail(
            p, "%.*s stands outside of a loop", (int) p->tok->len, p->tok->s);
    }
    jinja_parse_next(p);

    return n;
}


static const struct {
    const char *word;
    jnode_t *(*parse)(jparse_t *p);
} statements[] = {{"if", parse_if}, {"for", parse_for}, {"set", parse_set},
    {"macro", parse_macro}, {"call", parse_call}, {"filter", parse_filter},
    {"with", parse_with}, {"generation", parse_generation},
    {"break", parse_jump}, {"continue", parse_jump}};


/* By its first word. */
static jnode_t *
parse_statement(jparse_t *p)
{
    jnode_t *n;
    size_t i;

    assert(p->tok < p->end);

    for (i = 0; i < sizeof(statements) / sizeof(statements[0]); i++) {
        if (jinja_parse_word(p, statements[i].word)) {
            n = statements[i].parse(p);
            jinja_parse_want(p, T_BLOCK_END, "the end of a statement");
            return n;
        }
    }

    if (p->tok->t == T_NAME) {
        jinja_parse_fail(p, "there is no statement \"%.*s\" here",
            (int) (p->tok->len < 40 ? p->tok->len : 40), p->tok->s);
    }
    jinja_parse_fail(p, "a statement is missing");
}


/* --- bodies ------------------------------------------------------------- */

/* Text between tags: the template's own, all of it. */
static jnode_t *
parse_text(jparse_t *p)
{
    jnode_t *n = jinja_parse_node(p, N_DATA);

    assert(p->tok->t == T_DATA);

    n->value =
        jinja_str(jinja_str_of(p->c, p->tok->s, p->tok->len, JINJA_TEMPLATE));
    (void) jinja_str_chars(p->c, n->value.s);
    jinja_parse_next(p);

    return n;
}


/* "{{ a, b }}" prints a tuple. */
static jnode_t *
parse_print(jparse_t *p)
{
    jnode_t *n = jinja_parse_node(p, N_PRINT);

    assert(p->tok->t == T_PRINT);

    jinja_parse_next(p);
    n->a = jinja_expr_tuple(p, 1);
    jinja_parse_over(p, n, n->a);
    jinja_parse_want(p, T_PRINT_END, "}}");

    return n;
}


/* At the word of a tag: is it one of those that end this body? */
static int
parse_ends(const jparse_t *p, const char *const *ends)
{
    for (; ends != NULL && *ends != NULL; ends++) {
        if (jinja_parse_word(p, *ends)) {
            return 1;
        }
    }

    return 0;
}


/* Up to the tag of one of ends, whose word is then at hand; NULL: the end. */
static jnode_t *
parse_body(jparse_t *p, const char *const *ends)
{
    jnode_t *n = jinja_parse_node(p, N_BODY);
    uint32_t cap = 0;

    if (++p->blocks > BLOCK_MAX) {
        jinja_parse_fail(p, "it is nested too deep");
    }

    for (;;) {
        if (jinja_parse_is(p, T_EOF)) {
            if (ends != NULL) {
                jinja_parse_fail(p, "the statement of line %u is not closed",
                    (unsigned) n->line);
            }
            break;
        }
        if (jinja_parse_is(p, T_DATA)) {
            jinja_parse_add(p, n, parse_text(p), &cap);
        } else if (jinja_parse_is(p, T_PRINT)) {
            jinja_parse_add(p, n, parse_print(p), &cap);
        } else {
            jinja_parse_want(p, T_BLOCK, "a tag");
            if (parse_ends(p, ends)) {
                break;
            }
            jinja_parse_add(p, n, parse_statement(p), &cap);
        }
    }
    p->blocks--;

    return n;
}


/*
 * What is unknown and not in a branch fails here, at the end: "nope if x"
 * is a branch, which is seen behind the name.
 */
const jnode_t *
jinja_parse(jparse_t *p)
{
    const jnode_t *n = parse_body(p, NULL);

    assert(p->tok < p->end);

    assert(p->nest == 0 && p->loops == 0 && p->blocks == 0);

    if (p->unknown != NULL) {
        p->c->line = p->unknown->line;
        jinja_fail(p->c, "There is no %s named \"%.*s\".",
            p->unknown->kind == N_FILTER ? "filter" : "test",
            (int) p->unknown->value.s->len, p->unknown->value.s->s);
    }

    return n;
}
