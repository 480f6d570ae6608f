/*
 * Values as text: Python's str() and repr(), and JSON.
 *
 * DESIGN.  Models were trained on what Python printed, so every space, quote
 * and digit here is Python's: 1.0 and not 1, True and not true, 'it' or "it's",
 * {"a": 1} with a space behind the colon.
 *
 * All of it counts as data, also what stands between values: nothing that is
 * printed from a value can name a control token.
 */
#include "jinja_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <utf8proc.h>

static void print_repr(jsb_t *b, jv_t v);
static void json_value(jsb_t *b, jv_t v, const jinja_json_t *how, uint32_t at);


/* --- numbers ------------------------------------------------------------ */

/* The digits of "d.dde+xx", the shortest that give f back, and xx. */
static int
float_digits(double f, char *digits)
{
    char buf[40], *e;
    int p, n = 0;

    for (p = 0; p < 17; p++) {
        (void) snprintf(buf, sizeof(buf), "%.*e", p, f);
        if (strtod(buf, NULL) == f) {
            break;
        }
    }

    e = strchr(buf, 'e');
    assert(e != NULL);
    for (p = 0; buf + p < e; p++) {
        if (buf[p] >= '0' && buf[p] <= '9') {
            digits[n++] = buf[p];
        }
    }
    digits[n] = '\0';

    return atoi(e + 1);
}


/*
 * Python's repr: the shortest digits that read back, an exponent below
 * 1e-4 and from 1e16 on.
 */
size_t
jinja_float_text(double f, char *buf)
{
    char d[24];
    int e, n, at = 0;

    assert(buf != NULL);

    if (!isfinite(f)) {
        return (size_t) sprintf(buf, "%s",
            isnan(f) ? "nan"
            : f < 0  ? "-inf"
                     : "inf");
    }

    e = float_digits(fabs(f), d);
    n = (int) strlen(d);
    if (signbit(f)) {
        buf[at++] = '-';
    }

    if (e < -4 || e >= 16) {
        at += sprintf(buf + at, "%c%s%se%c%02d", d[0], n > 1 ? "." : "", d + 1,
            e < 0 ? '-' : '+', abs(e));
    } else if (e < 0) {
        at += sprintf(buf + at, "0.%.*s%s", -e - 1, "000", d);
    } else if (n <= e + 1) {
        at += sprintf(buf + at, "%s%.*s.0", d, e + 1 - n, "000000000000000");
    } else {
        at += sprintf(buf + at, "%.*s.%s", e + 1, d, d + e + 1);
    }

    assert(at < 40);

    return (size_t) at;
}


/* With a point always: 1.0 is no integer. */
static void
print_float(jsb_t *b, double f)
{
    char buf[40];

    assert(b->c != NULL);

    jinja_sb_put(b, buf, jinja_float_text(f, buf), JINJA_DATA);
}


/* In decimal. */
static void
print_int(jsb_t *b, int64_t i)
{
    char buf[24];
    int n = snprintf(buf, sizeof(buf), "%lld", (long long) i);

    assert(b->c != NULL);

    jinja_sb_put(b, buf, (size_t) n, JINJA_DATA);
}


/* --- repr --------------------------------------------------------------- */

/* Is a character of at least 0x7f shown as it is? */
static int
print_shown(uint32_t cp)
{
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t) cp);

    return k != UTF8PROC_CATEGORY_CN && k != UTF8PROC_CATEGORY_CC
           && k != UTF8PROC_CATEGORY_CF && k != UTF8PROC_CATEGORY_CS
           && k != UTF8PROC_CATEGORY_CO && k != UTF8PROC_CATEGORY_ZL
           && k != UTF8PROC_CATEGORY_ZP && k != UTF8PROC_CATEGORY_ZS;
}


/* Escaped if Python would not show it. */
static void
print_repr_char(jsb_t *b, uint32_t cp, char quote)
{
    char buf[16];

    assert(quote == '\'' || quote == '"');

    if (cp == (uint32_t) quote || cp == '\\') {
        (void) snprintf(buf, sizeof(buf), "\\%c", (char) cp);
    } else if (cp == '\n' || cp == '\r' || cp == '\t') {
        (void) snprintf(buf, sizeof(buf), "\\%c",
            cp == '\n'   ? 'n'
            : cp == '\r' ? 'r'
                         : 't');
    } else if (cp < 0x20 || (cp >= 0x7f && !print_shown(cp))) {
        (void) snprintf(buf, sizeof(buf),
            cp < 0x100     ? "\\x%02x"
            : cp < 0x10000 ? "\\u%04x"
                           : "\\U%08x",
            (unsigned) cp);
    } else {
        jinja_sb_char(b, cp, JINJA_DATA);
        return;
    }
    jinja_sb_lit(b, buf);
}


/* Single quotes, but for a text that has those and no double ones. */
static void
print_repr_str(jsb_t *b, jstr_t *s)
{
    char quote[2] = "'";
    uint32_t cp;
    size_t at = 0;

    assert(s != NULL);

    (void) jinja_str_flat(b->c, s);
    if (memchr(s->s, '\'', s->len) != NULL
        && memchr(s->s, '"', s->len) == NULL) {
        quote[0] = '"';
    }

    jinja_sb_lit(b, quote);
    while (at < s->len) {
        at += jinja_char(s->s + at, s->len - at, &cp);
        print_repr_char(b, cp, quote[0]);
    }
    jinja_sb_lit(b, quote);
}


/* The items in any kind of brackets. */
static void
print_repr_items(
    jsb_t *b, const jlist_t *l, const char *open, const char *close)
{
    uint32_t i;

    assert(l != NULL);

    jinja_sb_lit(b, open);
    for (i = 0; i < l->n; i++) {
        if (i > 0) {
            jinja_sb_lit(b, ", ");
        }
        print_repr(b, l->v[i]);
    }
    jinja_sb_lit(b, close);
}


/* The pairs in their order. */
static void
print_repr_dict(jsb_t *b, const jdict_t *d)
{
    uint32_t i;

    assert(d != NULL);

    jinja_sb_lit(b, "{");
    for (i = 0; i < d->n; i++) {
        if (i > 0) {
            jinja_sb_lit(b, ", ");
        }
        print_repr(b, d->v[i].k);
        jinja_sb_lit(b, ": ");
        print_repr(b, d->v[i].v);
    }
    jinja_sb_lit(b, "}");
}


/* The step only where it is not 1. */
static void
print_repr_range(jsb_t *b, const jrange_t *rg)
{
    assert(rg != NULL);
    jinja_sb_lit(b, "range(");
    print_int(b, rg->start);
    jinja_sb_lit(b, ", ");
    print_int(b, rg->stop);
    if (rg->step != 1) {
        jinja_sb_lit(b, ", ");
        print_int(b, rg->step);
    }
    jinja_sb_lit(b, ")");
}


/* Any value; one that holds itself ends at the depth's limit. */
static void
print_repr(jsb_t *b, jv_t v)
{
    assert(v.t != J_ABSENT);
    jinja_enter(b->c);
    jinja_step(b->c, 1);

    switch (v.t) {
    case J_UNDEF:
        jinja_sb_lit(b, "Undefined");
        break;
    case J_NONE:
        jinja_sb_lit(b, "None");
        break;
    case J_BOOL:
        jinja_sb_lit(b, v.i ? "True" : "False");
        break;
    case J_INT:
        print_int(b, v.i);
        break;
    case J_FLOAT:
        print_float(b, v.f);
        break;
    case J_STR:
        print_repr_str(b, v.s);
        break;
    case J_LIST:
        print_repr_items(b, v.l, "[", "]");
        break;
    case J_TUPLE:
        print_repr_items(b, v.l, "(", v.l->n == 1 ? ",)" : ")");
        break;
    case J_VIEW:
        jinja_sb_lit(b, v.l->what);
        print_repr_items(b, v.l, "([", "])");
        break;
    case J_RANGE:
        print_repr_range(b, v.r);
        break;
    case J_DICT:
        print_repr_dict(b, v.d);
        break;
    case J_NS:
        jinja_sb_lit(b, "<Namespace ");
        print_repr_dict(b, v.d);
        jinja_sb_lit(b, ">");
        break;
    default:
        jinja_sb_lit(b, "<");
        jinja_sb_lit(b, jinja_type_name(v));
        jinja_sb_lit(b, ">");
    }

    jinja_leave(b->c);
}


/* As an item of a list is shown. */
jstr_t *
jinja_repr(jctx_t *c, jv_t v)
{
    jsb_t b;

    assert(v.t != J_ABSENT);

    jinja_sb_open(&b, c);
    print_repr(&b, v);

    return jinja_sb_end(&b);
}


/* A string is itself, what is undefined is empty. */
jstr_t *
jinja_to_str(jctx_t *c, jv_t v)
{
    assert(v.t != J_ABSENT);
    switch (v.t) {
    case J_STR:
        return v.s;
    case J_UNDEF:
        return jinja_str_lit(c, "");
    default:
        return jinja_repr(c, v);
    }
}


/* --- JSON --------------------------------------------------------------- */

/* Half of a character beyond 16 bits, or a whole one. */
static void
json_unit(jsb_t *b, uint32_t unit)
{
    char buf[8];

    (void) snprintf(buf, sizeof(buf), "\\u%04x", (unsigned) (unit & 0xffff));
    jinja_sb_lit(b, buf);
}


/* A character that is not written as it is. */
static void
json_escape(jsb_t *b, uint32_t cp)
{
    static const char from[] = "\"\\\n\r\t\b\f", to[] = "\"\\nrtbf";
    const char *p = cp < 0x80 && cp > 0 ? strchr(from, (int) cp) : NULL;
    char buf[3] = "\\";

    if (p != NULL) {
        buf[1] = to[p - from];
        jinja_sb_lit(b, buf);
    } else if (cp >= 0x10000) {
        json_unit(b, 0xd800 + ((cp - 0x10000) >> 10));
        json_unit(b, 0xdc00 + ((cp - 0x10000) & 0x3ff));
    } else {
        json_unit(b, cp);
    }
}


/* Stretches without anything special are copied whole. */
static void
print_json_string(jsb_t *b, jstr_t *s, int ascii)
{
    size_t at, from = 0, n;
    uint32_t cp;

    assert(s != NULL);

    (void) jinja_str_flat(b->c, s);
    jinja_sb_lit(b, "\"");

    for (at = 0; at < s->len; at += n) {
        n = 1;
        cp = (uint8_t) s->s[at];
        if (cp >= 0x80 && ascii) {
            n = jinja_char(s->s + at, s->len - at, &cp);
        } else if (cp >= 0x20 && cp != '"' && cp != '\\') {
            continue;
        }
        jinja_sb_put(b, s->s + from, at - from, JINJA_DATA);
        json_escape(b, cp);
        from = at + n;
    }

    jinja_sb_put(b, s->s + from, s->len - from, JINJA_DATA);
    jinja_sb_lit(b, "\"");
}


/* What is no number has names that JSON does not know. */
static void
json_float(jsb_t *b, double f)
{
    assert(b->c != NULL);
    if (isfinite(f)) {
        print_float(b, f);
    } else {
        jinja_sb_lit(b, isnan(f) ? "NaN" : f < 0 ? "-Infinity" : "Infinity");
    }
}


/* A new line, indented, if lines are wanted. */
static void
json_line(jsb_t *b, const jinja_json_t *how, uint32_t deep)
{
    int64_t i;

    if (how->indent < 0) {
        return;
    }

    jinja_sb_lit(b, "\n");
    for (i = 0; i < how->indent * deep; i++) {
        jinja_sb_put(b, how->indent_by, how->indent_len, JINJA_DATA);
    }
}


/* Empty ones stay on one line. */
static void
json_list(jsb_t *b, const jlist_t *l, const jinja_json_t *how, uint32_t deep)
{
    uint32_t i;

    assert(l != NULL);

    jinja_sb_lit(b, "[");
    for (i = 0; i < l->n; i++) {
        if (i > 0) {
            jinja_sb_str(b, how->comma);
        }
        json_line(b, how, deep + 1);
        json_value(b, l->v[i], how, deep + 1);
    }
    if (l->n > 0) {
        json_line(b, how, deep);
    }
    jinja_sb_lit(b, "]");
}


/* Numbers become strings, by their JSON. */
static void
json_key(jsb_t *b, jv_t k, const jinja_json_t *how)
{
    assert(k.t != J_ABSENT);
    if (k.t == J_STR) {
        print_json_string(b, k.s, how->ascii);
    } else if (k.t == J_NONE || jinja_is_number(k)) {
        jinja_sb_lit(b, "\"");
        json_value(b, k, how, 0);
        jinja_sb_lit(b, "\"");
    } else {
        jinja_fail(b->c, "%s cannot be a key in JSON.", jinja_type_name(k));
    }
}


/* Sorts pairs by key: a merge sort, as the order of equal ones stays. */
static void
json_sort(jctx_t *c, jpair_t *v, jpair_t *tmp, uint32_t n)
{
    uint32_t half = n / 2, i = 0, j = half, k = 0;

    if (n < 2) {
        return;
    }

    json_sort(c, v, tmp, half);
    json_sort(c, v + half, tmp, n - half);
    while (i < half && j < n) {
        tmp[k++] = jinja_cmp(c, v[j].k, v[i].k, "sort") < 0 ? v[j++] : v[i++];
    }
    memcpy(tmp + k, v + i, (half - i) * sizeof(*v));
    k += half - i;
    memcpy(v, tmp, k * sizeof(*v));
}


/* A copy is sorted, if they are to be. */
static void
json_dict(jsb_t *b, const jdict_t *d, const jinja_json_t *how, uint32_t deep)
{
    jpair_t *v = d->v;
    uint32_t i;

    assert(d != NULL);

    if (how->sort && d->n > 1) {
        v = jinja_mem_get(b->c, d->n * 2 * sizeof(*v));
        memcpy(v, d->v, d->n * sizeof(*v));
        json_sort(b->c, v, v + d->n, d->n);
    }

    jinja_sb_lit(b, "{");
    for (i = 0; i < d->n; i++) {
        if (i > 0) {
            jinja_sb_str(b, how->comma);
        }
        json_line(b, how, deep + 1);
        json_key(b, v[i].k, how);
        jinja_sb_str(b, how->colon);
        json_value(b, v[i].v, how, deep + 1);
    }
    if (d->n > 0) {
        json_line(b, how, deep);
    }
    jinja_sb_lit(b, "}");
}


/* What has no form in JSON is a failure, also what is undefined. */
static void
json_value(jsb_t *b, jv_t v, const jinja_json_t *how, uint32_t deep)
{
    assert(v.t != J_ABSENT);
    jinja_enter(b->c);
    jinja_step(b->c, 1);

    switch (v.t) {
    case J_NONE:
        jinja_sb_lit(b, "null");
        break;
    case J_BOOL:
        jinja_sb_lit(b, v.i ? "true" : "false");
        break;
    case J_INT:
        print_int(b, v.i);
        break;
    case J_FLOAT:
        json_float(b, v.f);
        break;
    case J_STR:
        print_json_string(b, v.s, how->ascii);
        break;
    case J_LIST:
    case J_TUPLE:
        json_list(b, v.l, how, deep);
        break;
    case J_DICT:
        json_dict(b, v.d, how, deep);
        break;
    default:
        jinja_fail(b->c, "%s has no form in JSON.", jinja_type_name(v));
    }

    jinja_leave(b->c);
}


/* Strips what a string of the template's brought in: it is data now. */
static void
json_data(void *sb, const char *s, size_t len, unsigned origin)
{
    (void) origin;
    jinja_sb_put(sb, s, len, JINJA_DATA);
}


/* The separators are stripped of their origin first. */
jstr_t *
jinja_to_json(jctx_t *c, jv_t v, const jinja_json_t *how)
{
    jinja_json_t h = *how;
    jsb_t b;

    assert(how != NULL);

    jinja_sb_open(&b, c);
    jinja_str_each(c, how->comma, json_data, &b);
    h.comma = jinja_sb_end(&b);
    jinja_sb_open(&b, c);
    jinja_str_each(c, how->colon, json_data, &b);
    h.colon = jinja_sb_end(&b);

    jinja_sb_open(&b, c);
    json_value(&b, v, &h, 0);

    return jinja_sb_end(&b);
}
