/*
 * A template's source as tokens.
 *
 * DESIGN.  All tokens are made before parsing: a template is small, and the
 * parser may then look ahead as it likes.  White space is dealt with here and
 * nowhere else, by Jinja2's rules with trim_blocks and lstrip_blocks:
 *
 *      "a \n  {%- if x %}\n b"    '-' takes all white space beside it away
 *      "a \n  {% if x %}\n b"     a block that is first in its line loses the
 *                                 space before it, any block the newline
 *                                 behind it; "+" keeps both
 *      "a \n  {{ x }}\n b"        nothing is taken
 *
 * Line ends become \n, and one at the very end is dropped.
 *
 * Every loop goes forward through the source or searches in it once per tag,
 * so time is linear, but for tags that are never closed, which end it.
 */
#include "jinja_impl.h"

#include <stdlib.h>

typedef struct {
    jctx_t *c;
    const char *s; /* [n] the source */
    size_t n, at;
    uint32_t line;
    size_t line_at; /* where line was counted up to */
    int fresh;      /* is `at` the beginning of a line, as Jinja2 sees it? */
    jtok_t *tok;    /* [cap] */
    uint32_t tok_n, tok_cap;
} jlex_t;

/* Longest first. */
static const struct {
    const char *s;
    uint8_t t;
} lex_ops[] = {{"//", T_FLOORDIV}, {"**", T_POW}, {"==", T_EQ}, {"!=", T_NE},
    {">=", T_GE}, {"<=", T_LE}, {"+", T_ADD}, {"-", T_SUB}, {"/", T_DIV},
    {"*", T_MUL}, {"%", T_MOD}, {"~", T_TILDE}, {">", T_GT}, {"<", T_LT},
    {"=", T_ASSIGN}, {".", T_DOT}, {":", T_COLON}, {"|", T_PIPE},
    {",", T_COMMA}, {";", T_SEMICOLON}, {"(", T_LPAREN}, {")", T_RPAREN},
    {"[", T_LBRACKET}, {"]", T_RBRACKET}, {"{", T_LBRACE}, {"}", T_RBRACE}};


/* --- small things ------------------------------------------------------- */

/* Sets the line that failures name to that of `at`. */
static void
lex_line(jlex_t *x, size_t at)
{
    for (; x->line_at < at; x->line_at++) {
        x->line += x->s[x->line_at] == '\n';
    }
    x->c->line = x->line;
}


/* The next token; it is borrowed until another one follows. */
static jtok_t *
lex_put(jlex_t *x, uint8_t t, const char *s, size_t len)
{
    jtok_t *p;

    assert(s != NULL);

    if (x->tok_n == x->tok_cap) {
        p = jinja_mem_get(x->c, (x->tok_cap * 2 + 64) * sizeof(*p));
        if (x->tok_n > 0) {
            memcpy(p, x->tok, x->tok_n * sizeof(*p));
        }
        x->tok = p;
        x->tok_cap = x->tok_cap * 2 + 64;
    }

    p = &x->tok[x->tok_n++];
    memset(p, 0, sizeof(*p));
    p->t = t;
    p->s = s;
    p->len = (uint32_t) len;
    p->line = x->line;

    return p;
}


/* Does s stand at `at`? */
static int
lex_is(const jlex_t *x, size_t at, const char *s)
{
    size_t n = strlen(s);

    return at <= x->n && x->n - at >= n && memcmp(x->s + at, s, n) == 0;
}


/* Behind the white space at `at`. */
static size_t
lex_space(const jlex_t *x, size_t at)
{
    uint32_t cp;
    size_t k;

    while (at < x->n) {
        k = jinja_char(x->s + at, x->n - at, &cp);
        if (!jinja_is_space(cp)) {
            break;
        }
        at += k;
    }

    return at;
}


/* Before the white space that ends from..to. */
static size_t
lex_space_back(const jlex_t *x, size_t from, size_t to)
{
    uint32_t cp;
    size_t at;

    while (to > from) {
        for (at = to - 1; at > from && ((uint8_t) x->s[at] & 0xc0) == 0x80;) {
            at--;
        }
        (void) jinja_char(x->s + at, to - at, &cp);
        if (!jinja_is_space(cp)) {
            break;
        }
        to = at;
    }

    return to;
}


/* The sign of a tag at `at`, 0 if there is none. */
static int
lex_sign(const jlex_t *x, size_t at)
{
    return at < x->n && (x->s[at] == '-' || x->s[at] == '+') ? x->s[at] : 0;
}


/* --- text --------------------------------------------------------------- */

/* Text from..to stands before a tag of this sign; print: before {{. */
static void
lex_text(jlex_t *x, size_t from, size_t to, int sign, int print)
{
    size_t start;

    lex_line(x, from);

    if (sign == '-') {
        to = lex_space_back(x, from, to);
    } else if (sign != '+' && !print) {
        start = to;
        while (start > from && x->s[start - 1] != '\n') {
            start--;
        }
        if ((start > from || x->fresh)
            && lex_space_back(x, start, to) == start) {
            to = start;
        }
    }

    if (to > from) {
        (void) lex_put(x, T_DATA, x->s + from, to - from);
    }
}


/* The place behind a closing tag of two bytes that stands at `end`. */
static size_t
lex_behind(jlex_t *x, size_t end, int sign, int trims)
{
    size_t at = end + 2;

    if (sign == '-') {
        at = lex_space(x, at);
    } else if (sign == 0 && trims && lex_is(x, at, "\n")) {
        at++;
    }
    x->fresh = x->s[at - 1] == '\n';

    return at;
}


/* Nothing in it is looked at, so it cannot hold another. */
static void
lex_comment(jlex_t *x, size_t body)
{
    const char *p = memmem(x->s + body, x->n - body, "#}", 2);
    size_t end;
    int sign = 0;

    assert(body <= x->n);

    if (p == NULL) {
        lex_line(x, body);
        jinja_fail(x->c, "A comment is not closed.");
    }

    end = (size_t) (p - x->s);
    if (end > body) {
        sign = lex_sign(x, end - 1);
    }
    x->at = lex_behind(x, end, sign, 1);
}


/* The place behind "{%- word" at `at`, 0 if that is not what stands there. */
static size_t
lex_tag_word(const jlex_t *x, size_t at, const char *word)
{
    if (!lex_is(x, at, "{%")) {
        return 0;
    }
    at += 2;
    at = lex_space(x, at + (lex_sign(x, at) != 0));
    if (!lex_is(x, at, word)) {
        return 0;
    }

    return lex_space(x, at + strlen(word));
}


/* {% raw %} at `at`: 1 if there was one, and it is read. */
static int
lex_raw(jlex_t *x, size_t at)
{
    size_t body = lex_tag_word(x, at, "raw"), from, end;
    const char *p;
    int sign;

    sign = body > 0 && lex_is(x, body, "-%}") ? '-' : 0;
    if (body == 0 || !lex_is(x, body + (sign != 0), "%}")) {
        return 0;
    }
    body += 2 + (sign != 0);
    x->fresh = 0; /* nothing is trimmed behind it */
    if (sign != 0) {
        body = lex_space(x, body);
    }

    /* what looks like a tag in it is text, unless it is the one that ends it */
    for (from = body;; from = at + 2) {
        p = memmem(x->s + from, x->n - from, "{%", 2);
        if (p == NULL) {
            lex_line(x, body);
            jinja_fail(x->c, "A raw block is not closed.");
        }
        at = (size_t) (p - x->s);
        end = lex_tag_word(x, at, "endraw");
        sign = end > 0 ? lex_sign(x, end) : 0;
        if (end > 0 && lex_is(x, end + (sign != 0), "%}")) {
            break;
        }
    }

    lex_text(x, body, at, lex_sign(x, at + 2), 0);
    x->at = lex_behind(x, end + (sign != 0), sign, 1);

    return 1;
}


/* --- expressions -------------------------------------------------------- */

/* Up to max digits of base at p; their value. */
static uint32_t
lex_digits(const char *p, size_t n, size_t max, uint32_t base, size_t *used)
{
    uint32_t v = 0, d;

    for (*used = 0; *used < max && *used < n; (*used)++) {
        char ch = p[*used];

        d = ch >= '0' && ch <= '9'   ? (uint32_t) (ch - '0')
            : ch >= 'a' && ch <= 'f' ? (uint32_t) (ch - 'a' + 10)
            : ch >= 'A' && ch <= 'F' ? (uint32_t) (ch - 'A' + 10)
                                     : base;
        if (d >= base) {
            break;
        }
        v = v * base + d;
    }

    return v;
}


/* What stands behind a backslash, to dst; returns the bytes read. */
static size_t
lex_escape(jlex_t *x, const char *p, size_t n, char *dst, size_t *len)
{
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    const char *one = memchr(from, *p, sizeof(from) - 1);
    size_t used, want;
    uint32_t cp;

    *len = 0;
    if (one != NULL) {
        dst[(*len)++] = to[one - from];
        return 1;
    }
    if (*p == '\n') {
        return 1;
    }
    if (*p >= '0' && *p <= '7') {
        cp = lex_digits(p, n, 3, 8, &used);
        *len = jinja_char_put(dst, cp);
        return used;
    }

    want = *p == 'x' ? 2 : *p == 'u' ? 4 : *p == 'U' ? 8 : 0;
    if (want > 0) {
        cp = lex_digits(p + 1, n - 1, want, 16, &used);
        if (used < want || cp > 0x10ffff) {
            jinja_fail(x->c, "A string has a broken escape.");
        }
        *len = jinja_char_put(dst, cp);
        return 1 + used;
    }

    dst[(*len)++] = '\\';

    return 0;
}


/* From its quote on.  What it says is never longer than how it is written. */
static void
lex_string(jlex_t *x)
{
    const char *p = x->s + x->at + 1;
    size_t n = 0, left = x->n - x->at - 1, i, k, len, out = 0;
    char *dst;

    assert(x->at < x->n);

    while (n < left && p[n] != x->s[x->at]) {
        n += p[n] == '\\' ? 2 : 1;
    }
    if (n >= left) {
        jinja_fail(x->c, "A string is not closed.");
    }

    /* no escape is shorter than what it stands for */
    dst = jinja_mem_get(x->c, n + 1);
    for (i = 0; i < n; i += k) {
        k = 1;
        if (p[i] == '\\') {
            k += lex_escape(x, p + i + 1, n - i - 1, dst + out, &len);
            out += len;
        } else {
            dst[out++] = p[i];
        }
    }
    assert(out <= n);

    (void) lex_put(x, T_STR, dst, out);
    x->at += n + 2;
}


/* Of ASCII's alone, unlike the C library's under some locales. */
static int
is_digit(char ch)
{
    return ch >= '0' && ch <= '9';
}


/* Copies digits without their underscores. */
static void
lex_copy_digits(jlex_t *x, char *buf, size_t *n, size_t cap)
{
    while (x->at < x->n
           && (is_digit(x->s[x->at])
               || (x->s[x->at] == '_' && x->at + 1 < x->n
                   && is_digit(x->s[x->at + 1])))) {
        if (*n + 1 >= cap) {
            jinja_fail(x->c, "A number is too long.");
        }
        if (x->s[x->at] != '_') {
            buf[(*n)++] = x->s[x->at];
        }
        x->at++;
    }
    buf[*n] = '\0';
}


/* 0x1f, 0o17, 0b11: 1 if it is one. */
static int
lex_based(jlex_t *x)
{
    char kind = x->n - x->at > 2 && x->s[x->at] == '0'
                    ? (char) (x->s[x->at + 1] | 0x20)
                    : 0;
    uint32_t base = kind == 'x' ? 16 : kind == 'o' ? 8 : kind == 'b' ? 2 : 0;
    size_t used;
    uint32_t v;

    if (base == 0) {
        return 0;
    }
    v = lex_digits(x->s + x->at + 2, x->n - x->at - 2, 7, base, &used);
    if (used == 0) {
        return 0;
    }
    (void) lex_put(x, T_INT, x->s + x->at, used + 2);
    x->tok[x->tok_n - 1].i = v;
    x->at += used + 2;

    return 1;
}


/* An integer or a float, underscores dropped. */
static void
lex_number(jlex_t *x)
{
    size_t from = x->at, n = 0, e;
    char buf[64];
    int real = 0;

    assert(is_digit(x->s[x->at]));

    if (lex_based(x)) {
        return;
    }

    lex_copy_digits(x, buf, &n, sizeof(buf));

    /* "a.1.2" are two items, not one number */
    if (lex_is(x, x->at, ".") && x->at + 1 < x->n && is_digit(x->s[x->at + 1])
        && (x->tok_n == 0 || x->tok[x->tok_n - 1].t != T_DOT)) {
        real = 1;
        buf[n++] = '.';
        x->at++;
        lex_copy_digits(x, buf, &n, sizeof(buf));
    }

    e = x->at + 1;
    if ((lex_is(x, x->at, "e") || lex_is(x, x->at, "E"))) {
        e += lex_sign(x, e) != 0;
        if (e < x->n && is_digit(x->s[e]) && n + 3 < sizeof(buf)) {
            real = 1;
            buf[n++] = 'e';
            if (e > x->at + 1) {
                buf[n++] = x->s[e - 1];
            }
            x->at = e;
            lex_copy_digits(x, buf, &n, sizeof(buf));
        }
    }

    if (real) {
        lex_put(x, T_FLOAT, x->s + from, x->at - from)->f = strtod(buf, NULL);
    } else if (n > 18) {
        jinja_fail(x->c, "A number is too large.");
    } else {
        lex_put(x, T_INT, x->s + from, x->at - from)->i =
            strtoll(buf, NULL, 10);
    }
}


/*
 * Letters beyond ASCII are not told from other characters there: names of
 * templates are ASCII in practice.
 */
static int
is_name(char ch)
{
    return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || ch == '_'
           || is_digit(ch) || (uint8_t) ch >= 0x80;
}


/* One token that is neither string, number nor name; the change in nesting. */
static int
lex_op(jlex_t *x)
{
    size_t i;
    uint8_t t;

    for (i = 0; i < sizeof(lex_ops) / sizeof(lex_ops[0]); i++) {
        if (lex_is(x, x->at, lex_ops[i].s)) {
            break;
        }
    }
    if (i == sizeof(lex_ops) / sizeof(lex_ops[0])) {
        jinja_fail(x->c, "There is a character that belongs to nothing.");
    }

    t = lex_ops[i].t;
    (void) lex_put(x, t, x->s + x->at, strlen(lex_ops[i].s));
    x->at += strlen(lex_ops[i].s);

    if (t == T_LPAREN || t == T_LBRACKET || t == T_LBRACE) {
        return 1;
    }

    return t == T_RPAREN || t == T_RBRACKET || t == T_RBRACE ? -1 : 0;
}


/* The tokens between a tag's begin and its end, and the end. */
static void
lex_expr(jlex_t *x, int print)
{
    const char *close = print ? "}}" : "%}";
    size_t from;
    int nest = 0, sign;

    for (;;) {
        x->at = lex_space(x, x->at);
        lex_line(x, x->at);
        if (x->at >= x->n) {
            jinja_fail(x->c, "A tag is not closed.");
        }

        sign = lex_sign(x, x->at);
        if (print && sign == '+') {
            sign = 0;
        }
        if (nest <= 0 && lex_is(x, x->at + (sign != 0), close)) {
            (void) lex_put(x, print ? T_PRINT_END : T_BLOCK_END, x->s, 0);
            x->at = lex_behind(x, x->at + (sign != 0), sign, !print);
            return;
        }

        if (is_digit(x->s[x->at])) {
            lex_number(x);
        } else if (is_name(x->s[x->at])) {
            for (from = x->at; x->at < x->n && is_name(x->s[x->at]);) {
                x->at++;
            }
            (void) lex_put(x, T_NAME, x->s + from, x->at - from);
        } else if (x->s[x->at] == '\'' || x->s[x->at] == '"') {
            lex_string(x);
        } else {
            nest += lex_op(x);
        }
    }
}


/* --- the whole ---------------------------------------------------------- */

/* \r\n and \r become \n, and one at the end goes. */
static void
lex_source(jlex_t *x, const char *src, size_t len)
{
    char *s = jinja_mem_get(x->c, len + 1);
    size_t i;

    for (i = 0; i < len; i++) {
        if (src[i] == '\r' && i + 1 < len && src[i + 1] == '\n') {
            continue;
        }
        s[x->n++] = src[i] == '\r' ? '\n' : src[i];
    }
    if (x->n > 0 && s[x->n - 1] == '\n') {
        x->n--;
    }

    x->s = s;
}


/* The next "{%", "{{" or "{#" from `at` on, or the end. */
static size_t
lex_find(const jlex_t *x, size_t at)
{
    const char *p;

    for (; at + 1 < x->n; at++) {
        p = memchr(x->s + at, '{', x->n - 1 - at);
        if (p == NULL) {
            break;
        }
        at = (size_t) (p - x->s);
        if (p[1] == '%' || p[1] == '{' || p[1] == '#') {
            return at;
        }
    }

    return x->n;
}


/* Text and tags in turns. */
jtok_t *
jinja_lex(jctx_t *c, const char *src, size_t len, uint32_t *n)
{
    jlex_t x = {.c = c, .line = 1, .fresh = 1};
    size_t tag;
    int sign, print;

    assert(src != NULL);

    lex_source(&x, src, len);

    while (x.at < x.n) {
        tag = lex_find(&x, x.at);
        if (tag == x.n) {
            lex_line(&x, x.at);
            (void) lex_put(&x, T_DATA, x.s + x.at, x.n - x.at);
            break;
        }

        print = x.s[tag + 1] == '{';
        sign = lex_sign(&x, tag + 2);
        lex_text(&x, x.at, tag, sign, print);
        if (x.s[tag + 1] == '%' && lex_raw(&x, tag)) {
            continue;
        }

        x.at = tag + 2 + (sign != 0);
        if (x.s[tag + 1] == '#') {
            lex_comment(&x, x.at);
            continue;
        }
        lex_line(&x, tag);
        (void) lex_put(&x, print ? T_PRINT : T_BLOCK, x.s + tag, 2);
        lex_expr(&x, print);
    }

    lex_line(&x, x.n);
    (void) lex_put(&x, T_EOF, x.s, 0);
    *n = x.tok_n;

    return x.tok;
}
