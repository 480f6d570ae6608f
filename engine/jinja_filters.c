/*
 * Filters of one value: text, numbers, JSON, defaults.  Those that go through
 * lists are in jinja_list.c.
 *
 * DESIGN.  Rows.  `safe` and `escape` mark a string: what is then added to it
 * by `+` is escaped, as Jinja2 does even where nothing else is.  tojson is
 * not Jinja2's but that of chat templates: json.dumps, no character escaped
 * that need not be.
 *
 * Of Jinja2's own, striptags, urlize, wordwrap, pprint, random and the
 * function lipsum are not here: web pages need them, and a prompt must come out
 * the same each time.
 */
#include "jinja_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define FILTER(name)                                                           \
    static jv_t f_##name(jrun_t *r, jv_t v, const jv_t *a, const jargs_t *raw)

#define UNUSED (void) r, (void) v, (void) a, (void) raw

#define NUMBER_MAX 64 /* bytes of a number in a string */


/* --- text --------------------------------------------------------------- */

/* White space, or the characters that are given. */
FILTER(trim)
{
    jstr_t *chars =
        a[0].t == J_ABSENT || a[0].t == J_NONE ? NULL : jinja_arg_str(r, a[0]);

    assert(v.t != J_ABSENT);

    (void) raw;

    return jinja_str(
        jinja_text_strip(&r->c, jinja_to_str(&r->c, v), chars, 1, 1));
}


/* Of anything, as its text. */
FILTER(lower)
{
    UNUSED;
    assert(v.t != J_ABSENT);
    return jinja_str(
        jinja_text_case(&r->c, jinja_to_str(&r->c, v), JINJA_LOWER));
}


/* The same. */
FILTER(upper)
{
    UNUSED;
    assert(v.t != J_ABSENT);
    return jinja_str(
        jinja_text_case(&r->c, jinja_to_str(&r->c, v), JINJA_UPPER));
}


/* Not the method's rule: "it's" stays one word here. */
FILTER(title)
{
    UNUSED;
    assert(v.t != J_ABSENT);
    return jinja_str(
        jinja_text_case(&r->c, jinja_to_str(&r->c, v), JINJA_WORDS));
}


/* All but the first character become small. */
FILTER(capitalize)
{
    UNUSED;
    assert(v.t != J_ABSENT);
    return jinja_str(
        jinja_text_case(&r->c, jinja_to_str(&r->c, v), JINJA_CAPITAL));
}


/* Anything can be replaced in, and by. */
FILTER(replace)
{
    UNUSED;
    assert(a[0].t != J_ABSENT && a[1].t != J_ABSENT);
    return jinja_str(jinja_text_replace(&r->c, jinja_to_str(&r->c, v),
        jinja_to_str(&r->c, a[0]), jinja_to_str(&r->c, a[1]),
        a[2].t == J_NONE ? -1 : jinja_arg_int(r, a[2], -1)));
}


/* By a number of spaces or a string; the first line only if told to. */
FILTER(indent)
{
    jstr_t *by;
    int64_t n = 4;

    assert(v.t != J_ABSENT);

    (void) raw;
    if (a[0].t == J_STR) {
        by = a[0].s;
    } else {
        n = jinja_arg_int(r, a[0], 4);
        n = n > INT32_MAX ? INT32_MAX : n;
        by = jinja_text_pad(&r->c, jinja_str_lit(&r->c, ""), n, 0, ' ');
    }

    return jinja_str(jinja_text_indent(&r->c, jinja_to_str(&r->c, v), by,
        jinja_arg_bool(r, a[1], 0), jinja_arg_bool(r, a[2], 0)));
}


/* The odd space goes where Python puts it. */
FILTER(center)
{
    jstr_t *s = jinja_to_str(&r->c, v);
    int64_t width = jinja_arg_int(r, a[0], 80), more, left;

    assert(v.t != J_ABSENT);

    (void) raw;
    more = width > INT32_MAX ? INT32_MAX : width;
    more -= jinja_str_chars(&r->c, s);
    more = more < 0 ? 0 : more;
    left = more / 2 + (more & width & 1);

    return jinja_str(jinja_text_pad(&r->c, s, left, more - left, ' '));
}


/*
 * At a space unless told to kill words; a text that is hardly too long
 * stays whole.
 */
FILTER(truncate)
{
    jstr_t *s = jinja_str_flat(&r->c, jinja_to_str(&r->c, v)), *cut;
    jstr_t *end = a[2].t == J_ABSENT ? jinja_str_lit(&r->c, "...")
                                     : jinja_arg_str(r, a[2]);
    jstr_t *space = jinja_str_lit(&r->c, " ");
    int64_t max = jinja_arg_int(r, a[0], 255), leeway, keep;
    size_t at;

    assert(v.t != J_ABSENT);

    (void) raw;
    leeway = a[3].t == J_NONE ? 5 : jinja_arg_int(r, a[3], 5);
    keep = max - (int64_t) jinja_str_chars(&r->c, end);
    if (keep < 0 || leeway < 0 || max > INT32_MAX || leeway > INT32_MAX) {
        jinja_fail(&r->c, "truncate() is given lengths that do not fit.");
    }
    if (jinja_str_chars(&r->c, s) <= max + leeway) {
        return jinja_str(s);
    }

    cut = jinja_str_sub(&r->c, s, 0, jinja_str_at(&r->c, s, (uint32_t) keep));
    if (!jinja_arg_bool(r, a[1], 0)) {
        at = jinja_text_rfind(&r->c, cut, space, cut->len);
        cut = at == SIZE_MAX ? cut : jinja_str_sub(&r->c, cut, 0, at);
    }

    return jinja_str(jinja_str_cat(&r->c, cut, end));
}


/* A copy of s that is marked. */
static jstr_t *
text_marked(jrun_t *r, jstr_t *s)
{
    jstr_t *copy = jinja_mem_get(&r->c, sizeof(*copy));

    *copy = *jinja_str_flat(&r->c, s);
    copy->markup = 1;

    return copy;
}


/* Printing it changes nothing; only "+" looks at the mark. */
FILTER(safe)
{
    UNUSED;
    assert(v.t != J_ABSENT);
    return jinja_str(text_marked(r, jinja_to_str(&r->c, v)));
}


/* Once: what is marked has been escaped already. */
FILTER(escape)
{
    UNUSED;
    assert(v.t != J_ABSENT);
    return v.t == J_STR && v.s->markup
               ? v
               : jinja_str(jinja_text_escape(&r->c, jinja_to_str(&r->c, v)));
}


/* Also what is marked. */
FILTER(forceescape)
{
    UNUSED;
    assert(v.t != J_ABSENT);
    return jinja_str(jinja_text_escape(&r->c, jinja_to_str(&r->c, v)));
}


/* A mark stays. */
FILTER(string)
{
    UNUSED;
    assert(v.t != J_ABSENT);
    return jinja_str(jinja_to_str(&r->c, v));
}


/* "%s" by values, or "%(name)s" by named ones. */
FILTER(format)
{
    jv_t map = {.t = J_DICT};
    uint32_t i;

    assert(v.t != J_ABSENT);

    (void) a;
    if (raw->n > 0 && raw->kw_n > 0) {
        jinja_fail(&r->c, "format() takes values with names or without.");
    }
    if (raw->kw_n == 0) {
        return jinja_percent(
            &r->c, jinja_to_str(&r->c, v), raw->v, raw->n, jinja_none());
    }

    map.d = jinja_dict_new(&r->c, raw->kw_n);
    for (i = 0; i < raw->kw_n; i++) {
        jinja_dict_set(&r->c, map.d, jinja_str(raw->kw[i].name), raw->kw[i].v);
    }

    return jinja_percent(&r->c, jinja_to_str(&r->c, v), NULL, 0, map);
}


/* Runs of letters, numbers and underscores. */
FILTER(wordcount)
{
    jstr_t *s = jinja_str_flat(&r->c, jinja_to_str(&r->c, v));
    int64_t n = 0;
    int inside = 0, word;
    uint32_t cp;
    size_t at;

    UNUSED;
    jinja_step(&r->c, s->len / 4);
    for (at = 0; at < s->len; inside = word) {
        at += jinja_char(s->s + at, s->len - at, &cp);
        word = jinja_is_word(cp);
        n += word && !inside;
    }

    return jinja_int(n);
}


/* --- addresses and attributes -------------------------------------------- */

/* Anything as a part of an address; query: a slash is no part of one. */
static void
url_put(jrun_t *r, jsb_t *b, jv_t v, int query)
{
    static const char hex[] = "0123456789ABCDEF";
    jstr_t *s = jinja_str_flat(&r->c, jinja_to_str(&r->c, v));
    char code[3] = "%";
    size_t i;
    char c;

    jinja_step(&r->c, s->len / 4);
    for (i = 0; i < s->len; i++) {
        c = s->s[i];
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
            || (c >= '0' && c <= '9') || (c == '/' && !query)
            || (c != '\0' && strchr("_.-~", c) != NULL)) {
            jinja_sb_sub(b, s, i, i + 1);
        } else if (c == ' ' && query) {
            jinja_sb_put(b, "+", 1, jinja_str_origin(s, i));
        } else {
            code[1] = hex[(uint8_t) c >> 4];
            code[2] = hex[c & 15];
            jinja_sb_put(b, code, 3, jinja_str_origin(s, i));
        }
    }
}


/* Text, or pairs as "a=b&c=d". */
FILTER(urlencode)
{
    jlist_t *l = NULL, *pair;
    uint32_t i;
    jsb_t b;

    UNUSED;
    jinja_sb_open(&b, &r->c);
    if (v.t == J_DICT) {
        l = jinja_filter_pairs(r, v);
    } else if (v.t != J_STR) {
        l = jinja_items(&r->c, v);
    }
    if (l == NULL) {
        url_put(r, &b, v, 0);
    }

    for (i = 0; l != NULL && i < l->n; i++) {
        pair = jinja_arg_items(r, l->v[i]);
        if (pair->n != 2) {
            jinja_fail(&r->c, "urlencode() takes text or pairs.");
        }
        jinja_sb_lit(&b, i > 0 ? "&" : "");
        url_put(r, &b, pair->v[0], 1);
        jinja_sb_lit(&b, "=");
        url_put(r, &b, pair->v[1], 1);
    }

    return jinja_str(jinja_sb_end(&b));
}


static void
attr_key(jrun_t *r, jv_t key)
{
    jstr_t *s = jinja_str_flat(&r->c, jinja_arg_str(r, key));
    uint32_t cp;
    size_t at;

    for (at = 0; at < s->len;) {
        at += jinja_char(s->s + at, s->len - at, &cp);
        if (cp == '/' || cp == '>' || cp == '=' || jinja_is_space(cp)) {
            jinja_fail(&r->c, "xmlattr() has a name that can be none.");
        }
    }
}


/* A mapping as ' a="b" c="d"', without what is none. */
FILTER(xmlattr)
{
    jlist_t *l = jinja_filter_pairs(r, v), *pair;
    int space = jinja_arg_bool(r, a[0], 1);
    uint32_t i;
    jsb_t b;

    UNUSED;
    jinja_sb_open(&b, &r->c);
    for (i = 0; i < l->n; i++) {
        pair = l->v[i].l;
        if (pair->v[1].t == J_NONE || pair->v[1].t == J_UNDEF) {
            continue;
        }
        attr_key(r, pair->v[0]);
        jinja_sb_lit(&b, space ? " " : "");
        space = 1;
        jinja_sb_str(&b, f_escape(r, pair->v[0], NULL, NULL).s);
        jinja_sb_lit(&b, "=\"");
        jinja_sb_str(&b, f_escape(r, pair->v[1], NULL, NULL).s);
        jinja_sb_lit(&b, "\"");
    }

    return jinja_str(jinja_sb_end(&b));
}


/* --- numbers ------------------------------------------------------------ */

/* A string's text without white space and underscores; 0 if it is too long. */
static int
number_text(jrun_t *r, jstr_t *s, char *buf)
{
    size_t i, n = 0;

    s = jinja_str_flat(&r->c, jinja_text_strip(&r->c, s, NULL, 1, 1));
    for (i = 0; i < s->len; i++) {
        if (s->s[i] == '_' && i > 0 && i + 1 < s->len) {
            continue;
        }
        if (n + 1 >= NUMBER_MAX || s->s[i] == '\0') {
            return 0;
        }
        buf[n++] = s->s[i];
    }
    buf[n] = '\0';

    return n > 0;
}


/* 1 if s is a number to Python's float(): no hexadecimal, nothing behind it. */
static int
number_float(jrun_t *r, jstr_t *s, double *f)
{
    char buf[NUMBER_MAX], *end;

    assert(f != NULL);

    if (!number_text(r, s, buf) || strpbrk(buf, "xXpP(") != NULL) {
        return 0;
    }
    *f = strtod(buf, &end);

    return *end == '\0';
}


/* 1 if s is a number to Python's int() of that base. */
static int
number_int(jrun_t *r, jstr_t *s, int base, int64_t *i)
{
    char buf[NUMBER_MAX], *end;

    assert(i != NULL);

    if (!number_text(r, s, buf) || (strchr(buf, 'x') != NULL && base != 16)) {
        return 0;
    }
    *i = strtoll(buf, &end, base);
    if (*end == '\0' && (*i == INT64_MAX || *i == INT64_MIN)) {
        jinja_fail(&r->c, "A number leaves the range of 64 bits.");
    }

    return *end == '\0';
}


/* An undefined value is no number, and has no default either. */
static void
number_defined(jrun_t *r, jv_t v)
{
    if (v.t == J_UNDEF) {
        jinja_fail(&r->c, "An undefined value is no number.");
    }
}


/*
 * A string that is none gives the default; a float loses what is behind
 * its point.
 */
FILTER(int)
{
    jv_t otherwise = a[0].t == J_ABSENT ? jinja_int(0) : a[0];
    int64_t base = jinja_arg_int(r, a[1], 10), i;
    double f;

    assert(v.t != J_ABSENT);

    (void) raw;
    number_defined(r, v);
    if (base != 0 && (base < 2 || base > 36)) {
        return otherwise;
    }

    if (jinja_is_int(v)) {
        return jinja_int(v.i);
    }
    if (v.t == J_STR && number_int(r, v.s, (int) base, &i)) {
        return jinja_int(i);
    }
    if (v.t == J_FLOAT || (v.t == J_STR && number_float(r, v.s, &f))) {
        f = v.t == J_FLOAT ? v.f : f;
        if (!isfinite(f)) {
            return otherwise;
        }
        if (!(fabs(f) < 9e18)) {
            jinja_fail(&r->c, "A number leaves the range of 64 bits.");
        }
        return jinja_int((int64_t) f);
    }

    return otherwise;
}


/* The same for floats. */
FILTER(float)
{
    double f;

    assert(v.t != J_ABSENT);

    (void) raw;
    number_defined(r, v);
    if (jinja_is_number(v)) {
        return jinja_float(v.t == J_FLOAT ? v.f : (double) v.i);
    }
    if (v.t == J_STR && number_float(r, v.s, &f)) {
        return jinja_float(f);
    }

    return a[0].t == J_ABSENT ? jinja_float(0) : a[0];
}


/* The least integer has no positive like, which jinja_neg says. */
FILTER(abs)
{
    UNUSED;
    assert(v.t != J_ABSENT);
    if (v.t == J_FLOAT) {
        return jinja_float(fabs(v.f));
    }

    return jinja_neg(&r->c, v, jinja_is_int(v) && v.i < 0);
}


/* Half to even on the exact value, as Python's round(). */
FILTER(round)
{
    int64_t digits = jinja_arg_int(r, a[0], 0);
    jstr_t *how = a[1].t == J_ABSENT ? jinja_str_lit(&r->c, "common")
                                     : jinja_arg_str(r, a[1]);
    char buf[400];
    double f, by;

    assert(v.t != J_ABSENT);

    (void) raw;
    if (!jinja_is_number(v) || digits < 0 || digits > 15) {
        jinja_fail(&r->c, "%s cannot be rounded so.", jinja_type_name(v));
    }

    f = v.t == J_FLOAT ? v.f : (double) v.i;
    by = pow(10, (double) digits);
    if (jinja_str_is(&r->c, how, "ceil")) {
        return jinja_float(ceil(f * by) / by);
    }
    if (jinja_str_is(&r->c, how, "floor")) {
        return jinja_float(floor(f * by) / by);
    }
    if (!jinja_str_is(&r->c, how, "common")) {
        jinja_fail(&r->c, "round() knows common, ceil and floor.");
    }
    if (v.t != J_FLOAT || !isfinite(f)) {
        return v;
    }

    /* printf rounds the exact value, as Python does */
    (void) snprintf(buf, sizeof(buf), "%.*f", (int) digits, f);

    return jinja_float(strtod(buf, NULL));
}


/* In kB, MB and so on; binary: in KiB, MiB. */
FILTER(filesizeformat)
{
    static const char prefixes[] = "kMGTPEZY";
    double f = 0, base = jinja_arg_bool(r, a[0], 0) ? 1024 : 1000, unit;
    char buf[400];
    jsb_t b;
    int i = 0;

    assert(v.t != J_ABSENT);

    (void) raw;
    if (jinja_is_number(v)) {
        f = v.t == J_FLOAT ? v.f : (double) v.i;
    } else if (v.t != J_STR || !number_float(r, v.s, &f)) {
        jinja_fail(&r->c, "%s is no size.", jinja_type_name(v));
    }
    if (!isfinite(f)) {
        jinja_fail(&r->c, "A size has no end.");
    }

    if (f == 1) {
        return jinja_str(jinja_str_lit(&r->c, "1 Byte"));
    }
    if (f < base) {
        (void) snprintf(buf, sizeof(buf), "%.0f Bytes", trunc(f) + 0.0);
    } else {
        for (unit = base * base; i < 7 && f >= unit; i++) {
            unit *= base;
        }
        (void) snprintf(buf, sizeof(buf), "%.1f %c%sB", base * f / unit,
            base == 1024 && i == 0 ? 'K' : prefixes[i],
            base == 1024 ? "i" : "");
    }

    jinja_sb_open(&b, &r->c);
    jinja_sb_lit(&b, buf);

    return jinja_str(jinja_sb_end(&b));
}


/* --- other -------------------------------------------------------------- */

/* For what is undefined; with its second argument for what is false, too. */
FILTER(default)
{
    int boolean = jinja_arg_bool(r, a[1], 0);

    assert(v.t != J_ABSENT);

    (void) raw;
    if (v.t == J_UNDEF || (boolean && !jinja_true(&r->c, v))) {
        return a[0].t == J_ABSENT ? jinja_str(jinja_str_lit(&r->c, "")) : a[0];
    }

    return v;
}


/* Attributes only: of a mapping it finds no keys. */
FILTER(attr)
{
    jv_t item;

    assert(a[0].t != J_ABSENT);

    (void) raw;
    if (v.t == J_DICT || v.t == J_UNDEF) {
        return jinja_undef(jinja_arg_str(r, a[0])); /* attributes, no items */
    }
    item = jinja_get(r, v, jinja_str(jinja_arg_str(r, a[0])));

    return item;
}


/* Characters of a string, not bytes. */
FILTER(length)
{
    int64_t n = jinja_len(&r->c, v);

    assert(v.t != J_ABSENT);

    (void) a, (void) raw;
    if (n < 0) {
        jinja_fail(&r->c, "%s has no length.", jinja_type_name(v));
    }

    return jinja_int(n);
}


/* The two separators of tojson, from a pair. */
static void
json_separators(jrun_t *r, jv_t v, jinja_json_t *how)
{
    jlist_t *l = jinja_arg_items(r, v);

    if (l->n != 2) {
        jinja_fail(&r->c, "tojson() takes two separators.");
    }
    how->comma = jinja_arg_str(r, l->v[0]);
    how->colon = jinja_arg_str(r, l->v[1]);
}


/*
 * Its arguments are in the order of transformers' own filter but for the
 * first: templates name them.
 */
FILTER(tojson)
{
    jinja_json_t how = {.indent = -1, .indent_by = " ", .indent_len = 1};
    enum { INDENT, ASCII, SEPARATORS, SORT };

    assert(v.t != J_ABSENT);

    (void) raw;
    if (a[INDENT].t == J_STR) {
        (void) jinja_str_flat(&r->c, a[INDENT].s);
        how.indent = 1;
        how.indent_by = a[INDENT].s->s;
        how.indent_len = a[INDENT].s->len;
    } else if (a[INDENT].t != J_ABSENT && a[INDENT].t != J_NONE) {
        how.indent = jinja_arg_int(r, a[INDENT], 0);
        how.indent = how.indent < 0 ? 0 : how.indent;
        if (how.indent > 1000) {
            jinja_fail(&r->c, "tojson() indents by at most 1000.");
        }
    }

    /* json.dumps leaves the space behind a comma away where lines end */
    how.comma = jinja_str_lit(&r->c, how.indent < 0 ? ", " : ",");
    how.colon = jinja_str_lit(&r->c, ": ");
    if (a[SEPARATORS].t != J_ABSENT && a[SEPARATORS].t != J_NONE) {
        json_separators(r, a[SEPARATORS], &how);
    }
    how.ascii = jinja_arg_bool(r, a[ASCII], 0);
    how.sort = jinja_arg_bool(r, a[SORT], 0);

    return jinja_str(jinja_to_json(&r->c, v, &how));
}


static const jrow_t filters[] = {
    {"trim", 0, {"chars"}, f_trim, 0},
    {"lower", 0, {NULL}, f_lower, 0},
    {"upper", 0, {NULL}, f_upper, 0},
    {"title", 0, {NULL}, f_title, 0},
    {"capitalize", 0, {NULL}, f_capitalize, 0},
    {"replace", 2, {"old", "new", "count"}, f_replace, 0},
    {"indent", 0, {"width", "first", "blank"}, f_indent, 0},
    {"center", 0, {"width"}, f_center, 0},
    {"truncate", 0, {"length", "killwords", "end", "leeway"}, f_truncate, 0},
    {"safe", 0, {NULL}, f_safe, 0},
    {"escape", 0, {NULL}, f_escape, 0},
    {"e", 0, {NULL}, f_escape, 0},
    {"forceescape", 0, {NULL}, f_forceescape, 0},
    {"string", 0, {NULL}, f_string, 0},
    {"format", 0, {"*"}, f_format, 0},
    {"wordcount", 0, {NULL}, f_wordcount, 0},
    {"urlencode", 0, {NULL}, f_urlencode, 0},
    {"xmlattr", 0, {"autospace"}, f_xmlattr, 0},
    {"filesizeformat", 0, {"binary"}, f_filesizeformat, 0},
    {"int", 0, {"default", "base"}, f_int, 0},
    {"float", 0, {"default"}, f_float, 0},
    {"abs", 0, {NULL}, f_abs, 0},
    {"round", 0, {"precision", "method"}, f_round, 0},
    {"default", 0, {"default_value", "boolean"}, f_default, 0},
    {"d", 0, {"default_value", "boolean"}, f_default, 0},
    {"attr", 1, {"name"}, f_attr, 0},
    {"length", 0, {NULL}, f_length, 0},
    {"count", 0, {NULL}, f_length, 0},
    {"tojson", 0, {"indent", "ensure_ascii", "separators", "sort_keys"},
        f_tojson, 0},
};


/* The two tables share no name. */
const jrow_t *
jinja_filter(const char *name, size_t len)
{
    const jrow_t *row =
        jinja_row(filters, sizeof(filters) / sizeof(filters[0]), name, len);

    assert(name != NULL);

    return row != NULL ? row : jinja_filter_list(name, len);
}
