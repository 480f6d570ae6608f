/*
 * What the interpreter's own files share: values, the tree, the state of a
 * compilation or rendering.  For those only.
 *
 *      source ─lex─> tokens ─parse, expr─> tree ─exec, eval─> text and runs
 *                                             values: string, value, print
 *                                             rows: filters, tests, methods
 */
#ifndef JINJA_IMPL_H
#define JINJA_IMPL_H

#include "jinja.h"

#include <assert.h>
#include <setjmp.h>
#include <stdnoreturn.h>
#include <string.h>

/* --- memory and failure (jinja_mem.c) ------------------------------------ */

typedef struct jchunk_s jchunk_t;

/* An arena: grows to max bytes, freed as a whole. */
typedef struct {
    jchunk_t *chunks;
    char *at, *end; /* what is free of the newest chunk */
    size_t used, max;
} jmem_t;

/*
 * Embedded first in whatever may fail.  A failure leaves by longjmp to the
 * one setjmp of a compilation or rendering: all memory is the arena's or the
 * state's own, so nothing in between has anything to clean up.
 */
typedef struct {
    jmp_buf leave;
    jmem_t mem;
    char *err; /* [errlen] */
    size_t errlen;
    uint32_t line; /* of what is being read or evaluated */
    int code;      /* after a failure, a negative llm_err.h code */
    uint64_t steps, steps_max, look; /* look: when to ask for cancellation */
    uint32_t depth, depth_max;
    int (*cancelled)(void *);
    void *arg;
} jctx_t;

/* n bytes, aligned to 8, not zeroed; fails at the limit. */
void *jinja_mem_get(jctx_t *c, size_t n);

/* The same of n * size, zeroed. */
void *jinja_mem_zero(jctx_t *c, size_t n, size_t size);

void jinja_mem_free(jmem_t *m);

/* Fails with a sentence, and the line it is about. */
noreturn void jinja_fail(jctx_t *c, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Fails with a sentence of len bytes as it is. */
noreturn void jinja_fail_as(jctx_t *c, int code, const char *text, size_t len);

/* Called when steps reach look. */
void jinja_look(jctx_t *c);

/* Counts work; fails at the limit, or if it is no longer wanted. */
static inline void
jinja_step(jctx_t *c, uint64_t n)
{
    c->steps += n;
    if (c->steps >= c->look) {
        jinja_look(c);
    }
}

/* Around everything that calls itself. */
static inline void
jinja_enter(jctx_t *c)
{
    if (++c->depth > c->depth_max) {
        jinja_fail(c, "The template is nested more than %u deep.",
            (unsigned) c->depth_max);
    }
}

static inline void
jinja_leave(jctx_t *c)
{
    assert(c->depth > 0);
    c->depth--;
}

/* --- values -------------------------------------------------------------- */

enum {
    J_ABSENT, /* no value at all: an argument that was not given */
    J_UNDEF,
    J_NONE,
    J_BOOL,
    J_INT,
    J_FLOAT,
    J_STR,
    J_LIST,
    J_TUPLE,
    J_VIEW, /* what dict.items() and its like give */
    J_GEN,  /* what map() and its like give: can be gone through once */
    J_RANGE,
    J_DICT,
    J_NS,
    J_MACRO,
    J_METHOD, /* of a value, not yet called */
    J_FUNC,
    J_LOOP,
    J_CYCLER,
    J_JOINER,
    J_TYPES
};

#define JINJA_MIXED 2 /* beside JINJA_DATA and JINJA_TEMPLATE */

#define JINJA_CHARS_UNKNOWN UINT32_MAX

/* Immutable.  A rope is flattened in place when its bytes are wanted. */
typedef struct jstr_s {
    uint32_t len;   /* bytes */
    uint32_t chars; /* characters, JINJA_CHARS_UNKNOWN: not counted yet */
    uint8_t origin; /* of a rope: JINJA_MIXED unless both halves agree */
    uint8_t markup; /* `safe` was said: what is added to it is escaped */
    uint32_t n;     /* flat: runs; rope: its depth */
    const char *s;  /* [len] NULL: a rope */
    union {
        const jinja_run_t *runs; /* [n] if JINJA_MIXED */
        struct jstr_s *half[2];  /* of a rope */
    };
} jstr_t;

typedef struct jlist_s jlist_t;
typedef struct jdict_s jdict_t;
typedef struct jrange_s jrange_t;
typedef struct jmacro_s jmacro_t;
typedef struct jbound_s jbound_t;
typedef struct jloop_s jloop_t;
typedef struct jrow_s jrow_t;
typedef struct jrun_s jrun_t;
typedef struct jnode_s jnode_t;
typedef struct jscope_s jscope_t;

typedef struct {
    uint8_t t; /* J_... */
    union {
        int64_t i; /* J_INT, J_BOOL */
        double f;
        jstr_t *s; /* J_STR; J_UNDEF: its name, or NULL */
        jlist_t *l;
        jrange_t *r;
        jdict_t *d; /* J_DICT, J_NS */
        jmacro_t *m;
        jbound_t *b;
        const jrow_t *row;
        jloop_t *loop;
    };
} jv_t;

struct jlist_s {
    uint32_t n, cap;
    uint32_t at;      /* J_CYCLER, J_JOINER: the state; J_GEN: what is gone */
    const char *what; /* J_VIEW: its name; J_TUPLE: JINJA_GROUP or NULL */
    jv_t *v;          /* [cap] */
};

/* A tuple of two whose items are also called "grouper" and "list". */
#define JINJA_GROUP "group"

typedef struct {
    jv_t k, v;
    uint32_t hash;
} jpair_t;

/* In order of insertion, as Python's. */
struct jdict_s {
    uint32_t n, cap;
    jpair_t *v;      /* [cap] */
    uint32_t *index; /* [mask + 1] place + 1, 0: empty; NULL while n is small */
    uint32_t mask;
};

struct jrange_s {
    int64_t start, stop, step;
    uint32_t n;
};

struct jmacro_s {
    const jnode_t *node;
    jscope_t *scope; /* where it was defined */
};

struct jbound_s {
    jv_t self;
    const jrow_t *row;
};

typedef struct {
    jstr_t *name;
    jv_t v;
} jkw_t;

typedef struct {
    jv_t *v; /* [n] */
    uint32_t n;
    jkw_t *kw; /* [kw_n] */
    uint32_t kw_n;
} jargs_t;

#define JINJA_PARAMS_MAX 5

/*
 * A filter, test, method or function.  fn gets what it is applied to, its
 * arguments in the order of params (J_ABSENT: not given) and as they came;
 * if params[0] is "*" only the latter.
 */
struct jrow_s {
    const char *name;
    uint32_t need; /* arguments that must be given */
    const char *params[JINJA_PARAMS_MAX];
    jv_t (*fn)(jrun_t *r, jv_t self, const jv_t *a, const jargs_t *raw);
    uint8_t type; /* methods: of which type */
};

static inline jv_t
jinja_none(void)
{
    jv_t v = {.t = J_NONE};
    return v;
}

static inline jv_t
jinja_absent(void)
{
    jv_t v = {.t = J_ABSENT};
    return v;
}

static inline jv_t
jinja_undef(jstr_t *name)
{
    jv_t v = {.t = J_UNDEF, .s = name};
    return v;
}

static inline jv_t
jinja_bool(int b)
{
    jv_t v = {.t = J_BOOL, .i = b != 0};
    return v;
}

static inline jv_t
jinja_int(int64_t i)
{
    jv_t v = {.t = J_INT, .i = i};
    return v;
}

static inline jv_t
jinja_float(double f)
{
    jv_t v = {.t = J_FLOAT, .f = f};
    return v;
}

static inline jv_t
jinja_str(jstr_t *s)
{
    jv_t v = {.t = J_STR, .s = s};
    assert(s != NULL);
    return v;
}

static inline jv_t
jinja_listed(uint8_t t, jlist_t *l)
{
    jv_t v = {.t = t, .l = l};
    assert(l != NULL);
    return v;
}

static inline int
jinja_is_int(jv_t v)
{
    return v.t == J_INT || v.t == J_BOOL;
}

static inline int
jinja_is_number(jv_t v)
{
    return jinja_is_int(v) || v.t == J_FLOAT;
}

/* --- strings (jinja_string.c) -------------------------------------------- */

/* Of bytes that stay where they are. */
jstr_t *jinja_str_of(jctx_t *c, const char *s, size_t len, unsigned origin);

/* Of a constant of ours; it counts as data. */
jstr_t *jinja_str_lit(jctx_t *c, const char *s);

/* Makes it flat, so that s->s can be read.  Returns s. */
jstr_t *jinja_str_flat(jctx_t *c, jstr_t *s);

/* One behind the other. */
jstr_t *jinja_str_cat(jctx_t *c, jstr_t *a, jstr_t *b);

/* Bytes from..to of a flat string, with their origins. */
jstr_t *jinja_str_sub(jctx_t *c, jstr_t *s, size_t from, size_t to);

/* Characters in it. */
uint32_t jinja_str_chars(jctx_t *c, jstr_t *s);

/* Where character i begins in a flat string; len if there is none. */
size_t jinja_str_at(jctx_t *c, jstr_t *s, uint32_t i);


/* Comparisons look at bytes, whoever wrote them. */
int jinja_str_eq(jctx_t *c, jstr_t *a, jstr_t *b);
int jinja_str_cmp(jctx_t *c, jstr_t *a, jstr_t *b);
int jinja_str_is(jctx_t *c, jstr_t *s, const char *lit);

/* The origin of byte i of a flat string. */
unsigned jinja_str_origin(const jstr_t *s, size_t i);

/* First place of b in a flat a from byte `from` on, or SIZE_MAX. */
size_t jinja_str_find(jctx_t *c, jstr_t *a, jstr_t *b, size_t from);

/* Calls put for each stretch of one origin, in order. */
void jinja_str_each(jctx_t *c, jstr_t *s,
    void (*put)(void *, const char *, size_t, unsigned), void *arg);

/* Reads one character at p (n >= 1 bytes left); returns its length. */
size_t jinja_char(const char *p, size_t n, uint32_t *cp);

/* Writes one; returns its length. */
size_t jinja_char_put(char *p, uint32_t cp);

/* Is it white space to Python?  Is it part of a word? */
int jinja_is_space(uint32_t cp);
int jinja_is_word(uint32_t cp);

/* A string that is being put together. */
typedef struct {
    jctx_t *c;
    char *p;
    size_t n, cap;
    jinja_run_t *runs;
    uint32_t runs_n, runs_cap;
} jsb_t;


/*
 * Put together in order; the string of it shares the builder's memory, which
 * is not used again.
 */
void jinja_sb_open(jsb_t *b, jctx_t *c);
void jinja_sb_put(void *b, const char *s, size_t len, unsigned origin);
void jinja_sb_lit(jsb_t *b, const char *s); /* data */
void jinja_sb_char(jsb_t *b, uint32_t cp, unsigned origin);
void jinja_sb_str(jsb_t *b, jstr_t *s);
void jinja_sb_sub(jsb_t *b, jstr_t *s, size_t from, size_t to);
jstr_t *jinja_sb_end(jsb_t *b);

/* --- other values (jinja_value.c) ---------------------------------------- */


/* What a value is, for sentences: "a string". */
const char *jinja_type_name(jv_t v);

/* Its truth, as Python sees it. */
int jinja_true(jctx_t *c, jv_t v);

/*
 * Lists and dictionaries are filled by whoever makes them, and not changed
 * once a template has them; but for a namespace's.
 */
jlist_t *jinja_list_new(jctx_t *c, uint32_t cap);
void jinja_list_add(jctx_t *c, jlist_t *l, jv_t v);
jdict_t *jinja_dict_new(jctx_t *c, uint32_t cap);
void jinja_dict_set(jctx_t *c, jdict_t *d, jv_t k, jv_t v);

/* NULL if there is none; fails if k cannot be a key. */
jv_t *jinja_dict_get(jctx_t *c, jdict_t *d, jv_t k);
jv_t *jinja_dict_str(jctx_t *c, jdict_t *d, jstr_t *k);


/*
 * Equality never fails, whatever the types; nested values are compared to
 * the depth's limit.
 */
int jinja_eq(jctx_t *c, jv_t a, jv_t b);

/* -1, 0, 1; fails if they cannot be ordered; op is for the sentence. */
int jinja_cmp(jctx_t *c, jv_t a, jv_t b, const char *op);

/* Are they one object, as far as values have an identity? */
int jinja_same(jv_t a, jv_t b);

/* Is a in b?  Fails if nothing can be in b. */
int jinja_in(jctx_t *c, jv_t a, jv_t b);

/* len(v), or -1 if it has none. */
int64_t jinja_len(jctx_t *c, jv_t v);

/*
 * What a loop over v sees, as a list that is not to be changed.  NULL if v
 * cannot be gone through.  A J_GEN is used up by it.
 */
jlist_t *jinja_items(jctx_t *c, jv_t v);

/* Item i of a range. */
jv_t jinja_range_at(const jrange_t *r, uint32_t i);


/* All of j, whose strings are borrowed; they are of that origin. */
jv_t jinja_from_json(jctx_t *c, const json_t *j, unsigned origin);

/* --- values as text (jinja_print.c) -------------------------------------- */


/*
 * str(v), and repr(v); what is made of a value is data, a string stays as it
 * is.
 */
jstr_t *jinja_to_str(jctx_t *c, jv_t v);
jstr_t *jinja_repr(jctx_t *c, jv_t v);

typedef struct {
    int64_t indent; /* -1: all in one line */
    const char *indent_by;
    size_t indent_len;
    jstr_t *comma, *colon;
    int ascii, sort;
} jinja_json_t;


/* json.dumps(v); all of it is data.  Fails if v has no such form. */
jstr_t *jinja_to_json(jctx_t *c, jv_t v, const jinja_json_t *how);

/* A float as Python shows it; buf has 40 bytes. Returns the length. */
size_t jinja_float_text(double f, char *buf);

/* --- operators (jinja_op.c) ---------------------------------------------- */

/* op is a token's number. */
jv_t jinja_binary(jctx_t *c, unsigned op, jv_t a, jv_t b);

/* The same of comparisons, T_IN and T_NOT_IN among them; a boolean. */
jv_t jinja_compare(jctx_t *c, unsigned op, jv_t a, jv_t b);

/* A sign before v. */
jv_t jinja_neg(jctx_t *c, jv_t v, int minus);

/* obj[key], J_ABSENT if there is no such item. */
jv_t jinja_item(jctx_t *c, jv_t obj, jv_t key);

/* obj[from:to:step], each may be J_NONE. */
jv_t jinja_slice(jctx_t *c, jv_t obj, jv_t from, jv_t to, jv_t step);

/* --- formatting (jinja_format.c) ----------------------------------------- */

/*
 * "%s" by n values, or by keys of map ("%(key)s"), which is J_NONE if there
 * is none.
 */
jv_t jinja_percent(jctx_t *c, jstr_t *fmt, const jv_t *a, uint32_t n, jv_t map);

/*
 * "{}".format(a): fields take values in order, by number or by name.  One
 * that looks into a value ("{0.x}") is refused: it could go anywhere.
 */
jv_t jinja_format(jrun_t *r, jstr_t *fmt, const jargs_t *a);

/* --- tokens (jinja_lex.c) ------------------------------------------------ */

enum {
    T_EOF,
    T_DATA, /* text between tags */
    T_PRINT,
    T_PRINT_END,
    T_BLOCK,
    T_BLOCK_END,
    T_NAME,
    T_STR,
    T_INT,
    T_FLOAT,
    T_ADD,
    T_SUB,
    T_MUL,
    T_DIV,
    T_FLOORDIV,
    T_MOD,
    T_POW,
    T_TILDE,
    T_EQ,
    T_NE,
    T_LT,
    T_LE,
    T_GT,
    T_GE,
    T_IN, /* these two are made by the parser */
    T_NOT_IN,
    T_ASSIGN,
    T_DOT,
    T_COLON,
    T_PIPE,
    T_COMMA,
    T_SEMICOLON,
    T_LPAREN,
    T_RPAREN,
    T_LBRACKET,
    T_RBRACKET,
    T_LBRACE,
    T_RBRACE
};

typedef struct {
    uint8_t t;
    uint32_t line;
    uint32_t len;
    const char *s; /* [len] in the source, or what a string says */
    union {
        int64_t i;
        double f;
    };
} jtok_t;

/* The tokens of a template, T_EOF at their end. */
jtok_t *jinja_lex(jctx_t *c, const char *src, size_t len, uint32_t *n);

/* --- the tree (jinja_parse.c, jinja_expr.c) ------------------------------ */

enum {
    /* expressions */
    N_CONST, /* value */
    N_NAME,  /* name */
    N_TUPLE, /* v; as a target too */
    N_LIST,
    N_DICT, /* v: key, value, key, value */
    N_ATTR, /* a.value */
    N_ITEM, /* a[b] */
    N_SLICE,
    N_CALL,    /* a(v) */
    N_FILTER,  /* a | row(v); a is NULL in a filter block */
    N_TEST,    /* a is row(v) */
    N_KWARG,   /* value=a, among arguments */
    N_STAR,    /* *a */
    N_STAR2,   /* **a */
    N_BINARY,  /* a op b */
    N_COMPARE, /* a, then v: N_OPERAND */
    N_OPERAND, /* op a */
    N_AND,
    N_OR,
    N_NOT,
    N_NEG,
    N_POS,
    N_CAT,  /* v */
    N_COND, /* a if b else c */
    /* statements */
    N_DATA,
    N_PRINT,        /* a */
    N_BODY,         /* v */
    N_IF,           /* a: condition; b: body; c: N_IF or N_BODY or NULL */
    N_FOR,          /* a: target; b: what over; c: body; v: else, filter */
    N_SET,          /* a: target; b: value */
    N_SET_BLOCK,    /* a: target; b: filter or NULL; c: body */
    N_NSREF,        /* a target: name.value */
    N_MACRO,        /* v: N_PARAM; c: body */
    N_PARAM,        /* name; a: default or NULL */
    N_CALL_BLOCK,   /* a: N_CALL; b: N_MACRO */
    N_FILTER_BLOCK, /* b: filter; c: body */
    N_WITH,         /* v: target, value, ...; c: body */
    N_SCOPE,        /* c */
    N_BREAK,
    N_CONTINUE
};

enum { MACRO_VARARGS = 1, MACRO_KWARGS = 2, MACRO_CALLER = 4 };

struct jnode_s {
    uint8_t kind;
    uint8_t op;   /* a token's number; N_MACRO: MACRO_...; N_TEST: not */
    uint8_t flag; /* N_FOR: recursive; N_ATTR: may be a method's name */
    uint16_t depth;
    uint32_t line;
    uint32_t name; /* number of a name */
    uint32_t n;    /* of v */
    jnode_t *a, *b, *c;
    jnode_t **v;
    jv_t value;
    const jrow_t *row; /* N_FILTER, N_TEST: NULL if there is no such thing */
};

/* A compiled template. */
struct jinja_s {
    jctx_t c; /* its arena */
    const jnode_t *body;
    jdict_t *names;        /* string to number */
    jstr_t **name;         /* [names_n] */
    const jrow_t **global; /* [names_n] the function of that name, or NULL */
    uint32_t names_n;
    uint32_t loop, caller, varargs, kwargs; /* numbers of these names */
    const char *src;                        /* [src_len] in the arena */
    size_t src_len;
};

typedef struct {
    jinja_t *t;
    jctx_t *c;         /* &t->c */
    const jtok_t *tok; /* [n] the current one */
    const jtok_t *end;
    uint32_t nest;   /* parse functions that are open */
    uint32_t blocks; /* statements that are open */
    uint32_t loops;  /* around this place, in this macro */
    int soft;        /* an unknown filter fails only when it is reached */
    const jnode_t *unknown; /* a filter or test that fails the template */
    uint8_t uses;           /* MACRO_... named in the macro at hand */
} jparse_t;

noreturn void jinja_parse_fail(jparse_t *p, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Reads the token at hand. */
void jinja_parse_next(jparse_t *p);

/* Questions about the token at hand: its kind, the name it is. */
int jinja_parse_is(const jparse_t *p, unsigned t);
int jinja_parse_word(const jparse_t *p, const char *word);

/* The same, and it is read if so; the last one fails if not. */
int jinja_parse_skip(jparse_t *p, unsigned t);
int jinja_parse_skip_word(jparse_t *p, const char *word);
void jinja_parse_want(jparse_t *p, unsigned t, const char *what);

/* A name's number; and a new node of some kind. */
uint32_t jinja_parse_name(jparse_t *p, const char *s, size_t len);
jnode_t *jinja_parse_node(jparse_t *p, unsigned kind);

/* Notes how deep a node is over its parts, and bounds it. */
void jinja_parse_over(jparse_t *p, jnode_t *n, const jnode_t *part);
void jinja_parse_add(jparse_t *p, jnode_t *n, jnode_t *part, uint32_t *cap);

/* The whole template. */
const jnode_t *jinja_parse(jparse_t *p);

/* Expressions: any; without `if`; with commas; the rest of "| a | b". */
jnode_t *jinja_expr(jparse_t *p);
jnode_t *jinja_expr_plain(jparse_t *p);
jnode_t *jinja_expr_tuple(jparse_t *p, int with_if);
jnode_t *jinja_expr_filters(jparse_t *p, jnode_t *of, int pipe_is_gone);
jnode_t *jinja_expr_target(jparse_t *p, int with_ns);
jnode_t *jinja_expr_postfix(jparse_t *p);

/* --- a rendering (jinja_exec.c, jinja_eval.c) ---------------------------- */

typedef struct {
    uint32_t name;
    jv_t v;
} jbind_t;

/*
 * Names of a loop's turn, a macro's call or a block.  Looked through from the
 * end: there are a handful, and what was set last is asked for most.
 */
struct jscope_s {
    jscope_t *up; /* NULL: the template's own */
    jbind_t *v;   /* [cap] */
    uint32_t n, cap;
    uint8_t kept; /* a macro was defined in it */
};

/*
 * What `loop` is inside of one.  Items of a range are not spelt out, so that
 * counting takes no memory.
 */
struct jloop_s {
    const jnode_t *node;
    jscope_t *up;
    jlist_t *items; /* NULL: it goes through range */
    const jrange_t *range;
    uint32_t n;     /* of items */
    uint32_t i;     /* the current item */
    uint32_t depth; /* of recursion, from 0 */
    jv_t last;      /* what changed() was told last */
};

/*
 * One rendering.  The template is shared and only read; all else is its own,
 * on the stack of jinja_render or hanging from it.
 */
struct jrun_s {
    jctx_t c;
    const jinja_t *t;
    jv_t *root;      /* [names_n] the template's own variables */
    jscope_t *scope; /* the innermost, NULL: only root */
    const struct tm *now;
    jv_t piped; /* what a filter block or `set` block has written */
    int raised;

    /* what is written so far, captures included; owned */
    char *out;
    size_t out_n, out_cap, out_max;
    jinja_run_t *runs;
    size_t runs_n, runs_cap;
    size_t floor; /* runs below it are closed */
};


/* The value of an expression; never J_ABSENT. */
jv_t jinja_eval(jrun_t *r, const jnode_t *n);

/* A call; caller, if not J_ABSENT, is one more named argument. */
jv_t jinja_eval_call(jrun_t *r, const jnode_t *n, jv_t caller);

/* Calls a value, or a row with what it is applied to. */
jv_t jinja_call(jrun_t *r, jv_t f, const jargs_t *a);
jv_t jinja_call_row(jrun_t *r, const jrow_t *row, jv_t self, const jargs_t *a);

/* obj.name or obj[name], J_UNDEF if there is neither. */
jv_t jinja_get(jrun_t *r, jv_t obj, jv_t key);


/* What a name means here, J_UNDEF if nothing; and sets it in this scope. */
jv_t jinja_lookup(jrun_t *r, uint32_t name);
void jinja_bind(jrun_t *r, uint32_t name, jv_t v);

/* Runs the template; the text is then in r->out. */
void jinja_exec(jrun_t *r);

/* Calls a macro, or the loop that is at hand; the text that comes of it. */
jv_t jinja_exec_macro(jrun_t *r, jmacro_t *m, const jargs_t *a);
jv_t jinja_exec_loop(jrun_t *r, jloop_t *l, const jargs_t *a);
jv_t jinja_loop_item(const jloop_t *l, uint32_t i);

/* What is written from here on goes to a string. */
typedef struct {
    size_t out_n, runs_n, floor;
} jcapture_t;


/* Writes; and cuts off as a string what was written since a beginning. */
void jinja_out_put(void *run, const char *s, size_t len, unsigned origin);
void jinja_out_begin(jrun_t *r, jcapture_t *k);
jstr_t *jinja_out_end(jrun_t *r, const jcapture_t *k);

/* --- rows (jinja_filters.c, jinja_list.c, ...) --------------------------- */

/* Each is NULL if there is none of that name. */
const jrow_t *jinja_filter(const char *name, size_t len);
/* The pairs of a mapping, each a tuple; fails if v is none. */
jlist_t *jinja_filter_pairs(jrun_t *r, jv_t v);
const jrow_t *jinja_filter_list(const char *name, size_t len);
const jrow_t *jinja_test(const char *name, size_t len);
const jrow_t *jinja_function(const char *name, size_t len);

/* A method of a type; its fn is NULL if the sandbox forbids it. */
const jrow_t *jinja_method(uint8_t type, const char *name, size_t len);

/* Has any type a method, or an attribute that is out of bounds, so called? */
int jinja_method_name(const char *name, size_t len);

/* The row of a table that is called so, NULL if none. */
const jrow_t *jinja_row(
    const jrow_t *rows, size_t n, const char *name, size_t len);

/* Arguments as C values; each fails with the row's name if it does not fit. */
int64_t jinja_arg_int(jrun_t *r, jv_t v, int64_t otherwise);
jstr_t *jinja_arg_str(jrun_t *r, jv_t v);
int jinja_arg_bool(jrun_t *r, jv_t v, int otherwise);

/* What a loop over v sees, or a failure. */
jlist_t *jinja_arg_items(jrun_t *r, jv_t v);

/* --- strings changed (jinja_text.c) -------------------------------------- */

/*
 * WORDS is the filter `title`, TITLE the method: they differ in what a word
 * is.
 */
enum {
    JINJA_LOWER,
    JINJA_UPPER,
    JINJA_TITLE,
    JINJA_WORDS,
    JINJA_CAPITAL,
    JINJA_SWAP
};
jstr_t *jinja_text_case(jctx_t *c, jstr_t *s, int how);

/* Without what is in chars (NULL: white space) at the left, right. */
jstr_t *jinja_text_strip(
    jctx_t *c, jstr_t *s, jstr_t *chars, int left, int right);

/* count < 0: all of them; the same for max. */
jstr_t *jinja_text_replace(
    jctx_t *c, jstr_t *s, jstr_t *old, jstr_t *by, int64_t count);

/* by is NULL: at white space. */
jlist_t *jinja_text_split(jctx_t *c, jstr_t *s, jstr_t *by, int64_t max);
jlist_t *jinja_text_rsplit(jctx_t *c, jstr_t *s, jstr_t *by, int64_t max);
jlist_t *jinja_text_lines(jctx_t *c, jstr_t *s, int keep);
size_t jinja_text_rfind(jctx_t *c, jstr_t *a, jstr_t *b, size_t end);

/* strict: all are strings already. */
jstr_t *jinja_text_join(jctx_t *c, jstr_t *by, const jlist_t *l, int strict);
jstr_t *jinja_text_escape(jctx_t *c, jstr_t *s);

/* With so many characters before and behind it. */
jstr_t *jinja_text_pad(
    jctx_t *c, jstr_t *s, int64_t left, int64_t right, uint32_t fill);
jstr_t *jinja_text_indent(
    jctx_t *c, jstr_t *s, jstr_t *by, int first, int blank);

#endif
