/*
 * Formatting: "%5.2f" % x and "{:>5}".format(x).
 *
 * DESIGN.  Both forms are read into one description of a field, and one
 * function writes a value by it.  What stands between the fields keeps its
 * origin, so does a string that is put in whole; numbers are data.  Widths
 * cost what they make, so the arena bounds them.
 */
#include "jinja_impl.h"

#include <math.h>
#include <stdio.h>

#define WIDTH_MAX     1000000
#define PRECISION_MAX 60 /* of a number: more digits than any has */

typedef struct {
    uint32_t fill;
    char align; /* '<', '>', '^', '=', 0: not said */
    char sign;  /* '+', ' ', 0 */
    char type;  /* 0: not said */
    int alt, comma;
    int64_t width, precision; /* -1: not said */
} fmt_spec_t;


/* --- one field ---------------------------------------------------------- */

/* n times the character. */
static void
fmt_pad(jsb_t *b, int64_t n, uint32_t fill)
{
    for (; n > 0; n--) {
        jinja_step(b->c, 1);
        jinja_sb_char(b, fill, JINJA_DATA);
    }
}


/* Text in its field; sign: bytes at its front that '=' leaves there. */
static void
fmt_put(jsb_t *b, jstr_t *s, size_t sign, const fmt_spec_t *f, char align)
{
    int64_t more = f->width - (int64_t) jinja_str_chars(b->c, s), left;

    align = f->align != 0 ? f->align : align;
    more = more < 0 ? 0 : more;
    left = align == '>' || align == '=' ? more : align == '^' ? more / 2 : 0;
    (void) jinja_str_flat(b->c, s);

    if (align == '=') {
        jinja_sb_sub(b, s, 0, sign);
        fmt_pad(b, left, f->fill);
        jinja_sb_sub(b, s, sign, s->len);
    } else {
        fmt_pad(b, left, f->fill);
        jinja_sb_str(b, s);
        fmt_pad(b, more - left, f->fill);
    }
}


/* Groups of three digits before a point or an end, with commas. */
static void
fmt_commas(jsb_t *b, const char *p)
{
    size_t n = strspn(p, "0123456789"), i;

    for (i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0) {
            jinja_sb_lit(b, ",");
        }
        jinja_sb_put(b, p + i, 1, JINJA_DATA);
    }
    jinja_sb_lit(b, p + n);
}


/* The digits of |v| by the type. */
static void
fmt_digits(jctx_t *c, const fmt_spec_t *f, jv_t v, char *buf, size_t size)
{
    unsigned long long u;
    int precision = f->precision < 0 ? 6 : (int) f->precision;
    double d = fabs(v.t == J_FLOAT ? v.f : (double) v.i);

    if (precision > PRECISION_MAX) {
        jinja_fail(
            c, "A number is to have more than %d digits.", PRECISION_MAX);
    }

    u = v.i < 0 ? 0 - (unsigned long long) v.i : (unsigned long long) v.i;
    switch (f->type) {
    case 'd':
        (void) snprintf(buf, size, "%llu", u);
        break;
    case 'x':
        (void) snprintf(buf, size, f->alt ? "0x%llx" : "%llx", u);
        break;
    case 'X':
        (void) snprintf(buf, size, f->alt ? "0X%llX" : "%llX", u);
        break;
    case 'o':
        (void) snprintf(buf, size, f->alt ? "0o%llo" : "%llo", u);
        break;
    case 'e':
        (void) snprintf(buf, size, "%.*e", precision, d);
        break;
    case 'E':
        (void) snprintf(buf, size, "%.*E", precision, d);
        break;
    case 'g':
    case 'G':
        (void) snprintf(
            buf, size, f->type == 'g' ? "%.*g" : "%.*G", precision, d);
        break;
    case 'n':
        buf[jinja_float_text(d, buf)] = '\0';
        break;
    case '%':
        (void) snprintf(buf, size, "%.*f%%", precision, d * 100);
        break;
    default:
        (void) snprintf(buf, size, "%.*f", precision, d);
    }
}


/* The sign apart from the digits, so that zeros can go between. */
static void
fmt_number(jsb_t *b, jv_t v, const fmt_spec_t *f)
{
    char buf[512];
    jsb_t n;
    int minus = v.t == J_FLOAT ? signbit(v.f) != 0 : v.i < 0;
    const char *sign = minus            ? "-"
                       : f->sign == '+' ? "+"
                       : f->sign == ' ' ? " "
                                        : "";

    assert(jinja_is_number(v));

    fmt_digits(b->c, f, v, buf, sizeof(buf));
    jinja_sb_open(&n, b->c);
    jinja_sb_lit(&n, sign);
    if (f->comma) {
        fmt_commas(&n, buf);
    } else {
        jinja_sb_lit(&n, buf);
    }
    fmt_put(b, jinja_sb_end(&n), strlen(sign), f, '>');
}


/* Any value by its field. */
static void
fmt_value(jsb_t *b, jv_t v, const fmt_spec_t *f)
{
    fmt_spec_t g = *f;
    jstr_t *s;

    if (g.type == 'i' || g.type == 'u') {
        g.type = 'd';
    }
    if (g.type == 0 && jinja_is_number(v) && (v.t != J_BOOL)
        && (g.precision >= 0 || g.comma || g.sign)) {
        g.type = v.t != J_FLOAT ? 'd' : g.precision >= 0 ? 'g' : 'n';
    }

    if (g.type != 0 && g.type != 's' && g.type != 'r') {
        if (!jinja_is_number(v)) {
            jinja_fail(
                b->c, "%s is formatted as a number.", jinja_type_name(v));
        }
        if (strchr("dxXo", g.type) != NULL && v.t == J_FLOAT) {
            if (!(fabs(v.f) < 9e18)) {
                jinja_fail(b->c, "A number leaves the range of 64 bits.");
            }
            v = jinja_int((int64_t) v.f);
        }
        fmt_number(b, v, &g);
        return;
    }

    s = g.type == 'r' ? jinja_repr(b->c, v) : jinja_to_str(b->c, v);
    if (g.precision >= 0 && g.precision < jinja_str_chars(b->c, s)) {
        (void) jinja_str_flat(b->c, s);
        s = jinja_str_sub(
            b->c, s, 0, jinja_str_at(b->c, s, (uint32_t) g.precision));
    }
    fmt_put(b, s, 0, &g, jinja_is_number(v) ? '>' : '<');
}


/* Digits at p, before end, to *v; returns where they end. */
static const char *
fmt_int(jctx_t *c, const char *p, const char *end, int64_t *v)
{
    const char *from = p;
    int64_t n = 0;

    for (; p < end && *p >= '0' && *p <= '9'; p++) {
        n = n * 10 + (*p - '0');
        if (n > WIDTH_MAX) {
            jinja_fail(c, "A field is wider than %d.", WIDTH_MAX);
        }
    }
    if (p > from) {
        *v = n;
    }

    return p;
}


/* A field of which nothing is said. */
static fmt_spec_t
fmt_none(void)
{
    fmt_spec_t f = {.fill = ' ', .width = 0, .precision = -1};

    return f;
}


/* --- "%" ---------------------------------------------------------------- */

/* The field behind a '%' at p; returns what follows it. */
static const char *
percent_spec(jctx_t *c, const char *p, const char *end, fmt_spec_t *f)
{
    for (; p < end && strchr("#0- +", *p) != NULL && *p != '\0'; p++) {
        if (*p == '#') {
            f->alt = 1;
        } else if (*p == '0' && f->align == 0) {
            f->align = '=';
            f->fill = '0';
        } else if (*p == '-') {
            f->align = '<';
            f->fill = ' ';
        } else if (*p != '0' && f->sign != '+') {
            f->sign = *p;
        }
    }

    p = fmt_int(c, p, end, &f->width);
    if (p < end && *p == '.') {
        f->precision = 0;
        p = fmt_int(c, p + 1, end, &f->precision);
    }
    if (p >= end || *p == '\0' || strchr("srdiuxXoeEfFgG%", *p) == NULL) {
        jinja_fail(c, "A format has a field of no known type.");
    }
    f->type = *p == 'F' ? 'f' : *p;

    /* only numbers are filled up with zeros, and strings stand right */
    if (f->type == 's' || f->type == 'r') {
        f->fill = ' ';
        f->align = f->align == '<' ? '<' : '>';
    }

    return p + 1;
}


/* The value of "%(key)s", whose ')' is found. */
static jv_t
percent_key(jctx_t *c, jv_t map, jstr_t *fmt, const char **p)
{
    const char *end = fmt->s + fmt->len;
    const char *close = memchr(*p, ')', (size_t) (end - *p));
    jv_t *v = NULL;

    if (close == NULL || map.t != J_DICT) {
        jinja_fail(c, "A format names a key, but has no mapping.");
    }
    v = jinja_dict_str(c, map.d,
        jinja_str_of(c, *p + 1, (size_t) (close - *p) - 1, JINJA_DATA));
    if (v == NULL) {
        jinja_fail(c, "A format names a key that is missing.");
    }
    *p = close + 1;

    return *v;
}


/* Fields take values in order, or by key from a mapping. */
jv_t
jinja_percent(jctx_t *c, jstr_t *fmt, const jv_t *a, uint32_t n, jv_t map)
{
    const char *p, *end, *at;
    uint32_t used = 0;
    fmt_spec_t f;
    jsb_t b;
    jv_t v;

    assert(n == 0 || a != NULL);

    p = jinja_str_flat(c, fmt)->s;
    end = p + fmt->len;
    jinja_sb_open(&b, c);

    while (p < end) {
        at = memchr(p, '%', (size_t) (end - p));
        at = at == NULL ? end : at;
        jinja_sb_sub(&b, fmt, (size_t) (p - fmt->s), (size_t) (at - fmt->s));
        if (at == end) {
            break;
        }

        p = at + 1;
        v = jinja_absent();
        if (p < end && *p == '(') {
            v = percent_key(c, map, fmt, &p);
        }
        f = fmt_none();
        p = percent_spec(c, p, end, &f);
        if (f.type == '%') {
            jinja_sb_sub(
                &b, fmt, (size_t) (at - fmt->s), (size_t) (at - fmt->s) + 1);
            continue;
        }
        if (v.t == J_ABSENT) {
            if (used >= n) {
                jinja_fail(c, "A format has more fields than values.");
            }
            v = a[used++];
        }
        fmt_value(&b, v, &f);
    }

    if (used < n && map.t != J_DICT) {
        jinja_fail(c, "A format has fewer fields than values.");
    }

    return jinja_str(jinja_sb_end(&b));
}


/* --- "{}" --------------------------------------------------------------- */

/* The four ways to stand in a field. */
static int
brace_align(char ch)
{
    return ch == '<' || ch == '>' || ch == '^' || ch == '=';
}


/* What stands behind the colon, p..end. */
static void
brace_spec(jctx_t *c, const char *p, const char *end, fmt_spec_t *f)
{
    size_t k = p < end ? jinja_char(p, (size_t) (end - p), &f->fill) : 0;

    if (k > 0 && p + k < end && brace_align(p[k])) {
        f->align = p[k];
        p += k + 1;
    } else {
        f->fill = ' ';
        if (k > 0 && brace_align(*p)) {
            f->align = *p++;
        }
    }

    if (p < end && (*p == '+' || *p == '-' || *p == ' ')) {
        f->sign = *p == '-' ? 0 : *p;
        p++;
    }
    if (p < end && *p == '#') {
        f->alt = 1;
        p++;
    }
    if (p < end && *p == '0') {
        f->fill = '0';
        f->align = f->align != 0 ? f->align : '=';
        p++;
    }
    p = fmt_int(c, p, end, &f->width);
    if (p < end && (*p == ',' || *p == '_')) {
        f->comma = 1;
        p++;
    }
    if (p < end && *p == '.') {
        p = fmt_int(c, p + 1, end, &f->precision);
    }
    if (p < end && *p != '\0' && strchr("sdxXoeEfFgG%", *p) != NULL) {
        f->type = *p == 'F' ? 'f' : *p;
        p++;
    }
    if (p != end) {
        jinja_fail(c, "A format has a field of no known form.");
    }
}


/* The argument that the name p..end means; *next counts unnamed ones. */
static jv_t
brace_value(
    jrun_t *r, const jargs_t *a, const char *p, const char *end, uint32_t *next)
{
    const char *from = p;
    int64_t i = -1;
    uint32_t k;

    while (p < end && *p != '.' && *p != '[') {
        p++;
    }
    if (p == from) {
        i = (*next)++;
    } else if (fmt_int(&r->c, from, p, &i) != p) {
        i = -1;
    }
    if (p != end) {
        jinja_fail(&r->c, "A format looks into a value, which is not known.");
    }

    if (i >= 0) {
        if (i >= (int64_t) a->n) {
            jinja_fail(&r->c, "A format has more fields than values.");
        }
        return a->v[i];
    }
    for (k = 0; k < a->kw_n; k++) {
        if (a->kw[k].name->len == (size_t) (p - from)
            && memcmp(a->kw[k].name->s, from, (size_t) (p - from)) == 0) {
            return a->kw[k].v;
        }
    }
    jinja_fail(&r->c, "A format names a value that is missing.");
}


/* The field from p, behind its brace, to end, where it closes. */
static void
brace_field(jrun_t *r, jsb_t *b, const jargs_t *a, const char *p,
    const char *end, uint32_t *next)
{
    fmt_spec_t f = fmt_none();
    const char *colon = memchr(p, ':', (size_t) (end - p));
    const char *name = colon != NULL ? colon : end;
    int repr = name - p >= 2 && name[-2] == '!';
    jv_t v;

    if (repr && name[-1] != 'r' && name[-1] != 's') {
        jinja_fail(&r->c, "A format has a conversion that is not known.");
    }
    v = brace_value(r, a, p, name - 2 * repr, next);
    if (repr) {
        v = jinja_str(
            name[-1] == 'r' ? jinja_repr(&r->c, v) : jinja_to_str(&r->c, v));
    }
    if (colon != NULL) {
        brace_spec(&r->c, colon + 1, end, &f);
    }
    fmt_value(b, v, &f);
}


/* Braces in twos stand for themselves. */
jv_t
jinja_format(jrun_t *r, jstr_t *fmt, const jargs_t *a)
{
    const char *s = jinja_str_flat(&r->c, fmt)->s, *close;
    size_t at, from = 0, n = fmt->len;
    uint32_t next = 0;
    jsb_t b;

    assert(a != NULL);

    jinja_sb_open(&b, &r->c);
    jinja_step(&r->c, n / 4);

    for (at = 0; at < n; at++) {
        if (s[at] != '{' && s[at] != '}') {
            continue;
        }
        jinja_sb_sub(&b, fmt, from, at);

        if (at + 1 < n && s[at + 1] == s[at]) {
            jinja_sb_sub(&b, fmt, at, at + 1);
            from = ++at + 1;
            continue;
        }
        close = s[at] == '{' ? memchr(s + at, '}', n - at) : NULL;
        if (close == NULL) {
            jinja_fail(&r->c, "A format has a brace without its like.");
        }
        brace_field(r, &b, a, s + at + 1, close, &next);
        at = (size_t) (close - s);
        from = at + 1;
    }
    if (from < n) {
        jinja_sb_sub(&b, fmt, from, n);
    }

    return jinja_str(jinja_sb_end(&b));
}
