/*
 * Tokens to the tree of an expression.
 *
 * DESIGN.  Recursive descent, one function for each level of binding, in the
 * order of Jinja2's grammar, whose oddities are kept (a filter binds tighter
 * than a minus sign; `**` groups from the left):
 *
 *      if else > or > and > not > comparison > + - > ~ > * / // % > **
 *              > sign > postfix . [] () > filter | and test
 *
 * Two bounds make any input safe: how many of these functions are open at
 * once, and how deep the tree gets, which loops build without recursion
 * (a + b + c ...) and the evaluation walks with it.
 */
#include "jinja_impl.h"

#define NEST_MAX 100 /* parentheses and the like; ten functions for each */

static jnode_t *expr_or(jparse_t *p);
static jnode_t *expr_unary(jparse_t *p, int filters);


/* A value that is known now. */
static jnode_t *
expr_const(jparse_t *p, jv_t v)
{
    jnode_t *n = jinja_parse_node(p, N_CONST);

    assert(v.t != J_ABSENT);

    n->value = v;

    return n;
}


/* A string of the template, counted so that threads may share it. */
static jstr_t *
expr_str(jparse_t *p, const char *s, size_t len)
{
    jstr_t *v = jinja_str_of(p->c, s, len, JINJA_TEMPLATE);

    (void) jinja_str_chars(p->c, v);

    return v;
}


/* A node over one part or two; b may be NULL. */
static jnode_t *
expr_pair(jparse_t *p, unsigned kind, unsigned op, jnode_t *a, jnode_t *b)
{
    jnode_t *n = jinja_parse_node(p, kind);

    assert(a != NULL);

    n->op = (uint8_t) op;
    n->line = a->line;
    n->a = a;
    n->b = b;
    jinja_parse_over(p, n, a);
    if (b != NULL) {
        jinja_parse_over(p, n, b);
    }

    return n;
}


/* --- literals ----------------------------------------------------------- */

/* "[a, b]", with or without a comma at its end. */
static jnode_t *
expr_list(jparse_t *p)
{
    jnode_t *n = jinja_parse_node(p, N_LIST);
    uint32_t cap = 0;

    assert(jinja_parse_is(p, T_LBRACKET));

    jinja_parse_want(p, T_LBRACKET, "[");
    while (!jinja_parse_is(p, T_RBRACKET)) {
        if (n->n > 0) {
            jinja_parse_want(p, T_COMMA, ",");
            if (jinja_parse_is(p, T_RBRACKET)) {
                break;
            }
        }
        jinja_parse_add(p, n, jinja_expr(p), &cap);
    }
    jinja_parse_next(p);

    return n;
}


/* "{a: b}", keys and values in turns. */
static jnode_t *
expr_dict(jparse_t *p)
{
    jnode_t *n = jinja_parse_node(p, N_DICT);
    uint32_t cap = 0;

    assert(jinja_parse_is(p, T_LBRACE));

    jinja_parse_want(p, T_LBRACE, "{");
    while (!jinja_parse_is(p, T_RBRACE)) {
        if (n->n > 0) {
            jinja_parse_want(p, T_COMMA, ",");
            if (jinja_parse_is(p, T_RBRACE)) {
                break;
            }
        }
        jinja_parse_add(p, n, jinja_expr(p), &cap);
        jinja_parse_want(p, T_COLON, ":");
        jinja_parse_add(p, n, jinja_expr(p), &cap);
    }
    jinja_parse_next(p);

    return n;
}


/* Neighbouring strings are one. */
static jnode_t *
expr_string(jparse_t *p)
{
    jsb_t b;
    jstr_t *s;

    jinja_sb_open(&b, p->c);
    while (jinja_parse_is(p, T_STR)) {
        jinja_sb_put(&b, p->tok->s, p->tok->len, JINJA_TEMPLATE);
        jinja_parse_next(p);
    }
    s = jinja_sb_end(&b);

    return expr_const(p, jinja_str(expr_str(p, s->s, s->len)));
}


/* A name, or one of Python's and Jinja2's spellings of constants. */
static jnode_t *
expr_name(jparse_t *p)
{
    const jtok_t *t = p->tok;
    jnode_t *n;

    assert(jinja_parse_is(p, T_NAME));

    if (jinja_parse_word(p, "true") || jinja_parse_word(p, "True")) {
        n = expr_const(p, jinja_bool(1));
    } else if (jinja_parse_word(p, "false") || jinja_parse_word(p, "False")) {
        n = expr_const(p, jinja_bool(0));
    } else if (jinja_parse_word(p, "none") || jinja_parse_word(p, "None")) {
        n = expr_const(p, jinja_none());
    } else {
        n = jinja_parse_node(p, N_NAME);
        n->name = jinja_parse_name(p, t->s, t->len);
        p->uses |= n->name == p->t->caller    ? MACRO_CALLER
                   : n->name == p->t->kwargs  ? MACRO_KWARGS
                   : n->name == p->t->varargs ? MACRO_VARARGS
                                              : 0;
    }
    jinja_parse_next(p);

    return n;
}


/* Parentheses: a tuple if there is a comma in them, or nothing. */
static jnode_t *
expr_paren(jparse_t *p)
{
    jnode_t *n;

    assert(jinja_parse_is(p, T_LPAREN));

    jinja_parse_want(p, T_LPAREN, "(");
    if (jinja_parse_is(p, T_RPAREN)) {
        n = jinja_parse_node(p, N_TUPLE);
    } else {
        n = jinja_expr_tuple(p, 1);
    }
    jinja_parse_want(p, T_RPAREN, ")");

    return n;
}


/* What can stand alone. */
static jnode_t *
expr_primary(jparse_t *p)
{
    const jtok_t *t = p->tok;
    jv_t v;

    assert(p->tok < p->end);

    switch (t->t) {
    case T_NAME:
        return expr_name(p);
    case T_STR:
        return expr_string(p);
    case T_INT:
    case T_FLOAT:
        v = t->t == T_INT ? jinja_int(t->i) : jinja_float(t->f);
        jinja_parse_next(p);
        return expr_const(p, v);
    case T_LPAREN:
        return expr_paren(p);
    case T_LBRACKET:
        return expr_list(p);
    case T_LBRACE:
        return expr_dict(p);
    default:
        jinja_parse_fail(p, "an expression is missing");
    }
}


/* --- what follows a value ----------------------------------------------- */

/* One argument of a call, in any of its four forms. */
static jnode_t *
expr_arg(jparse_t *p)
{
    const jtok_t *t = p->tok;
    jnode_t *n;

    assert(p->tok < p->end);

    if (jinja_parse_skip(p, T_MUL)) {
        return expr_pair(p, N_STAR, 0, jinja_expr(p), NULL);
    }
    if (jinja_parse_skip(p, T_POW)) {
        return expr_pair(p, N_STAR2, 0, jinja_expr(p), NULL);
    }
    if (t->t == T_NAME && t + 1 < p->end && t[1].t == T_ASSIGN) {
        jinja_parse_next(p);
        jinja_parse_next(p);
        n = expr_pair(p, N_KWARG, 0, jinja_expr(p), NULL);
        n->value = jinja_str(expr_str(p, t->s, t->len));
        return n;
    }

    return jinja_expr(p);
}


/* "(a, b, c=d)" to n's list. */
static void
expr_args(jparse_t *p, jnode_t *n)
{
    uint32_t cap = 0;
    jnode_t *arg;
    int named = 0;

    jinja_parse_want(p, T_LPAREN, "(");
    while (!jinja_parse_is(p, T_RPAREN)) {
        if (n->n > 0) {
            jinja_parse_want(p, T_COMMA, ",");
            if (jinja_parse_is(p, T_RPAREN)) {
                break;
            }
        }
        arg = expr_arg(p);
        if (named && arg->kind != N_KWARG && arg->kind != N_STAR2) {
            jinja_parse_fail(p, "an argument without name follows a named one");
        }
        named |= arg->kind == N_KWARG || arg->kind == N_STAR2;
        jinja_parse_add(p, n, arg, &cap);
    }
    jinja_parse_next(p);
}


/* a(...) */
static jnode_t *
expr_call(jparse_t *p, jnode_t *a)
{
    jnode_t *n = expr_pair(p, N_CALL, 0, a, NULL);

    assert(jinja_parse_is(p, T_LPAREN));

    expr_args(p, n);

    return n;
}


/* One of the places of a slice, NULL if nothing stands there. */
static jnode_t *
expr_slice_part(jparse_t *p)
{
    if (jinja_parse_is(p, T_COLON) || jinja_parse_is(p, T_COMMA)
        || jinja_parse_is(p, T_RBRACKET)) {
        return NULL;
    }

    return jinja_expr(p);
}


/* What stands in brackets: an item or a slice. */
static jnode_t *
expr_subscript(jparse_t *p)
{
    jnode_t *from = expr_slice_part(p), *n;

    assert(p->tok < p->end);

    if (!jinja_parse_skip(p, T_COLON)) {
        if (from == NULL) {
            jinja_parse_fail(p, "a subscript is missing");
        }
        return from;
    }

    n = jinja_parse_node(p, N_SLICE);
    n->a = from;
    n->b = expr_slice_part(p);
    if (jinja_parse_skip(p, T_COLON)) {
        n->c = expr_slice_part(p);
    }
    jinja_parse_over(p, n, n->a);
    jinja_parse_over(p, n, n->b);
    jinja_parse_over(p, n, n->c);

    return n;
}


/* a[b]; with commas the key is a tuple. */
static jnode_t *
expr_item(jparse_t *p, jnode_t *a)
{
    jnode_t *n, *part, *tuple = NULL;
    uint32_t cap = 0;

    assert(jinja_parse_is(p, T_LBRACKET));

    jinja_parse_want(p, T_LBRACKET, "[");
    part = expr_subscript(p);
    while (jinja_parse_skip(p, T_COMMA)) {
        if (tuple == NULL) {
            tuple = jinja_parse_node(p, N_TUPLE);
            jinja_parse_add(p, tuple, part, &cap);
        }
        jinja_parse_add(p, tuple, expr_subscript(p), &cap);
    }
    jinja_parse_want(p, T_RBRACKET, "]");

    n = expr_pair(p, N_ITEM, 0, a, tuple != NULL ? tuple : part);

    return n;
}


/* a.b, and a.0, which is an item. */
static jnode_t *
expr_attr(jparse_t *p, jnode_t *a)
{
    const jtok_t *t;
    jnode_t *n, *key;

    assert(jinja_parse_is(p, T_DOT));

    jinja_parse_want(p, T_DOT, ".");
    t = p->tok;
    if (t->t == T_INT) {
        key = expr_const(p, jinja_int(t->i));
        jinja_parse_next(p);
        return expr_pair(p, N_ITEM, 0, a, key);
    }
    if (t->t != T_NAME) {
        jinja_parse_fail(p, "a name is missing behind a dot");
    }
    jinja_parse_next(p);

    n = expr_pair(p, N_ATTR, 0, a, NULL);
    n->value = jinja_str(expr_str(p, t->s, t->len));
    n->flag = (uint8_t) jinja_method_name(t->s, t->len);

    return n;
}


/* Attributes, items and calls, as many as follow. */
static jnode_t *
expr_after(jparse_t *p, jnode_t *n)
{
    assert(n != NULL);
    for (;;) {
        if (jinja_parse_is(p, T_DOT)) {
            n = expr_attr(p, n);
        } else if (jinja_parse_is(p, T_LBRACKET)) {
            n = expr_item(p, n);
        } else if (jinja_parse_is(p, T_LPAREN)) {
            n = expr_call(p, n);
        } else {
            return n;
        }
    }
}


/* A value with what follows it, without filters. */
jnode_t *
jinja_expr_postfix(jparse_t *p)
{
    return expr_after(p, expr_primary(p));
}


/* The name of a filter or test: "a.b" is one name. */
static void
expr_row_name(jparse_t *p, char *buf, size_t cap, size_t *len)
{
    *len = 0;

    for (;;) {
        if (p->tok->t != T_NAME) {
            jinja_parse_fail(p, "the name of a filter or test is missing");
        }
        if (p->tok->len + *len + 2 > cap) {
            jinja_parse_fail(p, "there is no filter or test of so long a name");
        }
        memcpy(buf + *len, p->tok->s, p->tok->len);
        *len += p->tok->len;
        jinja_parse_next(p);
        if (!jinja_parse_is(p, T_DOT)) {
            break;
        }
        jinja_parse_next(p);
        buf[(*len)++] = '.';
    }
}


/* As in Jinja2, what lies in a branch may be unknown until it is reached. */
static void
expr_row(jparse_t *p, jnode_t *n, const char *name, size_t len)
{
    char *copy;

    n->row =
        n->kind == N_FILTER ? jinja_filter(name, len) : jinja_test(name, len);
    if (n->row == NULL && !p->soft && p->unknown == NULL) {
        p->unknown = n;
    }

    copy = jinja_mem_get(p->c, len + 1);
    memcpy(copy, name, len);
    n->value = jinja_str(expr_str(p, copy, len));
}


/* One filter, behind its "|"; of is NULL in a block. */
static jnode_t *
expr_filter(jparse_t *p, jnode_t *of)
{
    jnode_t *n = jinja_parse_node(p, N_FILTER);
    char name[64];
    size_t len;

    assert(p->tok < p->end);

    n->a = of;
    jinja_parse_over(p, n, of);
    expr_row_name(p, name, sizeof(name), &len);
    expr_row(p, n, name, len);
    if (jinja_parse_is(p, T_LPAREN)) {
        expr_args(p, n);
    }

    return n;
}


/*
 * One test, behind its `is`.  An argument may follow without parentheses:
 * "x is divisibleby 3".
 */
static jnode_t *
expr_test(jparse_t *p, jnode_t *of)
{
    jnode_t *n = expr_pair(p, N_TEST, 0, of, NULL);
    uint32_t cap = 0;
    char name[64];
    size_t len;
    unsigned t;

    assert(of != NULL);

    n->op = (uint8_t) jinja_parse_skip_word(p, "not");
    expr_row_name(p, name, sizeof(name), &len);
    expr_row(p, n, name, len);

    t = p->tok->t;
    if (t == T_LPAREN) {
        expr_args(p, n);
    } else if ((t == T_NAME || t == T_STR || t == T_INT || t == T_FLOAT
                   || t == T_LBRACKET || t == T_LBRACE)
               && !jinja_parse_word(p, "else") && !jinja_parse_word(p, "or")
               && !jinja_parse_word(p, "and")) {
        if (jinja_parse_word(p, "is")) {
            jinja_parse_fail(p, "tests cannot follow each other");
        }
        jinja_parse_add(p, n, jinja_expr_postfix(p), &cap);
    }

    return n;
}


/* Filters and tests, as many as follow. */
jnode_t *
jinja_expr_filters(jparse_t *p, jnode_t *n, int pipe_is_gone)
{
    if (pipe_is_gone) {
        n = expr_filter(p, n);
    }

    for (;;) {
        if (jinja_parse_skip(p, T_PIPE)) {
            n = expr_filter(p, n);
        } else if (n == NULL) {
            return n;
        } else if (jinja_parse_skip_word(p, "is")) {
            n = expr_test(p, n);
        } else if (jinja_parse_is(p, T_LPAREN)) {
            n = expr_call(p, n);
        } else {
            return n;
        }
    }
}


/* --- levels ------------------------------------------------------------- */

/* Signs bind weaker than filters: "-1|abs" is minus one. */
static jnode_t *
expr_unary(jparse_t *p, int filters)
{
    jnode_t *n;

    assert(p->nest <= NEST_MAX);

    if (++p->nest > NEST_MAX) {
        jinja_parse_fail(p, "it is nested too deep");
    }

    if (jinja_parse_skip(p, T_SUB)) {
        n = expr_pair(p, N_NEG, 0, expr_unary(p, 0), NULL);
    } else if (jinja_parse_skip(p, T_ADD)) {
        n = expr_pair(p, N_POS, 0, expr_unary(p, 0), NULL);
    } else {
        n = jinja_expr_postfix(p);
    }
    n = expr_after(p, n);
    if (filters) {
        n = jinja_expr_filters(p, n, 0);
    }
    p->nest--;

    return n;
}


/* From the left, as Jinja2 has it and Python has not. */
static jnode_t *
expr_pow(jparse_t *p)
{
    jnode_t *n = expr_unary(p, 1);

    while (jinja_parse_skip(p, T_POW)) {
        n = expr_pair(p, N_BINARY, T_POW, n, expr_unary(p, 1));
    }

    return n;
}


/* The operators of multiplication. */
static jnode_t *
expr_mul(jparse_t *p)
{
    jnode_t *n = expr_pow(p);
    unsigned t;

    for (t = p->tok->t;
         t == T_MUL || t == T_DIV || t == T_FLOORDIV || t == T_MOD;
         t = p->tok->t) {
        jinja_parse_next(p);
        n = expr_pair(p, N_BINARY, t, n, expr_pow(p));
    }

    return n;
}


/* All parts of a "~" are one node. */
static jnode_t *
expr_cat(jparse_t *p)
{
    jnode_t *n = expr_mul(p), *first = n;
    uint32_t cap = 0;

    if (!jinja_parse_is(p, T_TILDE)) {
        return n;
    }

    n = jinja_parse_node(p, N_CAT);
    jinja_parse_add(p, n, first, &cap);
    while (jinja_parse_skip(p, T_TILDE)) {
        jinja_parse_add(p, n, expr_mul(p), &cap);
    }

    return n;
}


/* Plus and minus, which bind weaker than "~". */
static jnode_t *
expr_sum(jparse_t *p)
{
    jnode_t *n = expr_cat(p);
    unsigned t;

    for (t = p->tok->t; t == T_ADD || t == T_SUB; t = p->tok->t) {
        jinja_parse_next(p);
        n = expr_pair(p, N_BINARY, t, n, expr_cat(p));
    }

    return n;
}


/* The comparison at hand, T_EOF if there is none; it is read. */
static unsigned
expr_compare_op(jparse_t *p)
{
    unsigned t = p->tok->t;

    if (t >= T_EQ && t <= T_GE) {
        jinja_parse_next(p);
        return t;
    }
    if (jinja_parse_skip_word(p, "in")) {
        return T_IN;
    }
    if (jinja_parse_word(p, "not") && p->tok + 1 < p->end
        && p->tok[1].t == T_NAME && p->tok[1].len == 2
        && memcmp(p->tok[1].s, "in", 2) == 0) {
        jinja_parse_next(p);
        jinja_parse_next(p);
        return T_NOT_IN;
    }

    return T_EOF;
}


/* Comparisons, which may be a chain. */
static jnode_t *
expr_compare(jparse_t *p)
{
    jnode_t *n = expr_sum(p), *all = NULL;
    uint32_t cap = 0;
    unsigned op;

    while ((op = expr_compare_op(p)) != T_EOF) {
        if (all == NULL) {
            all = expr_pair(p, N_COMPARE, 0, n, NULL);
        }
        jinja_parse_add(
            p, all, expr_pair(p, N_OPERAND, op, expr_sum(p), NULL), &cap);
    }

    return all != NULL ? all : n;
}


/* Any number of them, bounded like parentheses. */
static jnode_t *
expr_not(jparse_t *p)
{
    jnode_t *n;

    assert(p->nest <= NEST_MAX);

    if (!jinja_parse_skip_word(p, "not")) {
        return expr_compare(p);
    }

    if (++p->nest > NEST_MAX) {
        jinja_parse_fail(p, "it is nested too deep");
    }
    n = expr_pair(p, N_NOT, 0, expr_not(p), NULL);
    p->nest--;

    return n;
}


/* Both, from the left. */
static jnode_t *
expr_and(jparse_t *p)
{
    jnode_t *n = expr_not(p);

    while (jinja_parse_skip_word(p, "and")) {
        n = expr_pair(p, N_AND, 0, n, expr_not(p));
    }

    return n;
}


/* Either, from the left. */
static jnode_t *
expr_or(jparse_t *p)
{
    jnode_t *n = expr_and(p);

    while (jinja_parse_skip_word(p, "or")) {
        n = expr_pair(p, N_OR, 0, n, expr_and(p));
    }

    return n;
}


/* All levels, and "a if b else c" on top. */
jnode_t *
jinja_expr(jparse_t *p)
{
    const jnode_t *unknown = p->unknown;
    int soft = p->soft;
    jnode_t *n, *cond;

    if (++p->nest > NEST_MAX) {
        jinja_parse_fail(p, "it is nested too deep");
    }

    n = expr_or(p);
    while (jinja_parse_skip_word(p, "if")) {
        p->soft = 1;
        p->unknown = unknown; /* what came before is a branch, too */
        cond = jinja_parse_node(p, N_COND);
        cond->a = n;
        cond->b = expr_or(p);
        if (jinja_parse_skip_word(p, "else")) {
            cond->c = jinja_expr(p);
        }
        jinja_parse_over(p, cond, cond->a);
        jinja_parse_over(p, cond, cond->b);
        jinja_parse_over(p, cond, cond->c);
        n = cond;
        p->soft = soft;
    }
    p->nest--;

    return n;
}


/* Where an `if` would belong to the statement around. */
jnode_t *
jinja_expr_plain(jparse_t *p)
{
    return expr_or(p);
}


/* Does the tuple end here? */
static int
expr_tuple_ends(const jparse_t *p)
{
    return jinja_parse_is(p, T_PRINT_END) || jinja_parse_is(p, T_BLOCK_END)
           || jinja_parse_is(p, T_RPAREN) || jinja_parse_is(p, T_EOF)
           || jinja_parse_is(p, T_ASSIGN) || jinja_parse_word(p, "in")
           || jinja_parse_word(p, "recursive");
}


/* A comma makes a tuple, also without parentheses. */
jnode_t *
jinja_expr_tuple(jparse_t *p, int with_if)
{
    jnode_t *n = with_if ? jinja_expr(p) : expr_or(p), *tuple = NULL;
    uint32_t cap = 0;

    while (jinja_parse_skip(p, T_COMMA)) {
        if (tuple == NULL) {
            tuple = jinja_parse_node(p, N_TUPLE);
            jinja_parse_add(p, tuple, n, &cap);
        }
        if (expr_tuple_ends(p)) {
            break;
        }
        jinja_parse_add(p, tuple, with_if ? jinja_expr(p) : expr_or(p), &cap);
    }

    return tuple != NULL ? tuple : n;
}


/* One place that is assigned to. */
static jnode_t *
expr_target_one(jparse_t *p, int with_ns)
{
    const jtok_t *t = p->tok;
    jnode_t *n;

    if (jinja_parse_skip(p, T_LPAREN)) {
        if (++p->nest > NEST_MAX) {
            jinja_parse_fail(p, "it is nested too deep");
        }
        n = jinja_expr_target(p, 0);
        p->nest--;
        jinja_parse_want(p, T_RPAREN, ")");
        return n;
    }

    if (t->t != T_NAME) {
        jinja_parse_fail(p, "a name to assign to is missing");
    }
    n = expr_name(p);
    if (n->kind != N_NAME) {
        jinja_parse_fail(p, "a constant cannot be assigned to");
    }

    if (with_ns && jinja_parse_skip(p, T_DOT)) {
        t = p->tok;
        jinja_parse_want(p, T_NAME, "a name");
        n->kind = N_NSREF;
        n->value = jinja_str(expr_str(p, t->s, t->len));
    }

    return n;
}


/* One place, or a tuple of them. */
jnode_t *
jinja_expr_target(jparse_t *p, int with_ns)
{
    jnode_t *n = expr_target_one(p, with_ns), *tuple = NULL;
    uint32_t cap = 0;

    while (jinja_parse_skip(p, T_COMMA)) {
        if (tuple == NULL) {
            tuple = jinja_parse_node(p, N_TUPLE);
            jinja_parse_add(p, tuple, n, &cap);
        }
        if (expr_tuple_ends(p)) {
            break;
        }
        jinja_parse_add(p, tuple, expr_target_one(p, with_ns), &cap);
    }

    return tuple != NULL ? tuple : n;
}
