/*
 * Methods of strings, mappings, lists and loops.
 *
 * DESIGN.  Rows.  Those that would change what they belong to are named with
 * no function behind them: `x.append` is then not an item of x, and calling
 * it fails, as in the immutable sandbox.
 */
#include "jinja_impl.h"

#include <utf8proc.h>

/* A method's C function; what a method does not use it leaves. */
#define METHOD(name)                                                           \
    static jv_t m_##name(jrun_t *r, jv_t v, const jv_t *a, const jargs_t *raw)

#define UNUSED (void) r, (void) v, (void) a, (void) raw


/* An argument that is a string, NULL if it was not given or is none. */
static jstr_t *
opt_str(jrun_t *r, jv_t v)
{
    return v.t == J_ABSENT || v.t == J_NONE ? NULL : jinja_arg_str(r, v);
}


/* --- strings: case and ends --------------------------------------------- */

/* Character by character; Python's final sigma is not known. */
METHOD(lower)
{
    UNUSED;
    assert(v.t == J_STR);
    return jinja_str(jinja_text_case(&r->c, v.s, JINJA_LOWER));
}


/* See jinja_text_case for the sharp s. */
METHOD(upper)
{
    UNUSED;
    assert(v.t == J_STR);
    return jinja_str(jinja_text_case(&r->c, v.s, JINJA_UPPER));
}


/* A word begins behind whatever is no letter. */
METHOD(title)
{
    UNUSED;
    assert(v.t == J_STR);
    return jinja_str(jinja_text_case(&r->c, v.s, JINJA_TITLE));
}


/* As the filter. */
METHOD(capitalize)
{
    UNUSED;
    assert(v.t == J_STR);
    return jinja_str(jinja_text_case(&r->c, v.s, JINJA_CAPITAL));
}


/* What has no case stays. */
METHOD(swapcase)
{
    UNUSED;
    assert(v.t == J_STR);
    return jinja_str(jinja_text_case(&r->c, v.s, JINJA_SWAP));
}


/* The argument is a set of characters, no prefix. */
METHOD(strip)
{
    UNUSED;
    assert(v.t == J_STR);
    return jinja_str(jinja_text_strip(&r->c, v.s, opt_str(r, a[0]), 1, 1));
}


/* The same, at the left. */
METHOD(lstrip)
{
    UNUSED;
    assert(v.t == J_STR);
    return jinja_str(jinja_text_strip(&r->c, v.s, opt_str(r, a[0]), 1, 0));
}


/* The same, at the right. */
METHOD(rstrip)
{
    UNUSED;
    assert(v.t == J_STR);
    return jinja_str(jinja_text_strip(&r->c, v.s, opt_str(r, a[0]), 0, 1));
}


/* Does s begin (or end) with one of what v says, a string or a tuple? */
static int
str_borders(jrun_t *r, jstr_t *s, jv_t v, int end)
{
    jstr_t *part;
    uint32_t i;

    if (v.t == J_TUPLE) {
        for (i = 0; i < v.l->n; i++) {
            if (str_borders(
                    r, s, jinja_str(jinja_arg_str(r, v.l->v[i])), end)) {
                return 1;
            }
        }
        return 0;
    }

    part = jinja_str_flat(&r->c, jinja_arg_str(r, v));
    (void) jinja_str_flat(&r->c, s);
    jinja_step(&r->c, part->len / 16 + 1);

    return part->len <= s->len
           && memcmp(s->s + (end ? s->len - part->len : 0), part->s, part->len)
                  == 0;
}


/* The bytes of characters from..to, as Python's optional arguments mean it. */
static jstr_t *
str_within(jrun_t *r, jstr_t *s, jv_t from, jv_t to)
{
    jv_t none = jinja_none();

    return jinja_slice(&r->c, jinja_str(s), from.t == J_ABSENT ? none : from,
        to.t == J_ABSENT ? none : to, none)
        .s;
}


/* One prefix or a tuple of them; a part of the string may be meant. */
METHOD(startswith)
{
    UNUSED;
    assert(v.t == J_STR);
    return jinja_bool(str_borders(r, str_within(r, v.s, a[1], a[2]), a[0], 0));
}


/* The same at the end. */
METHOD(endswith)
{
    UNUSED;
    assert(v.t == J_STR);
    return jinja_bool(str_borders(r, str_within(r, v.s, a[1], a[2]), a[0], 1));
}


/* Once. */
METHOD(removeprefix)
{
    UNUSED;
    assert(v.t == J_STR);
    return !str_borders(r, v.s, a[0], 0)
               ? v
               : jinja_str(jinja_str_sub(&r->c, v.s, a[0].s->len, v.s->len));
}


/* Once. */
METHOD(removesuffix)
{
    UNUSED;
    assert(v.t == J_STR);
    return !str_borders(r, v.s, a[0], 1) ? v
                                         : jinja_str(jinja_str_sub(&r->c, v.s,
                                             0, v.s->len - a[0].s->len));
}


/* --- strings: parts ----------------------------------------------------- */

/* At a separator, or at white space of any length. */
METHOD(split)
{
    UNUSED;
    assert(v.t == J_STR);
    return jinja_listed(J_LIST, jinja_text_split(&r->c, v.s, opt_str(r, a[0]),
                                    jinja_arg_int(r, a[1], -1)));
}


/* Differs from split only where a maximum is given. */
METHOD(rsplit)
{
    UNUSED;
    assert(v.t == J_STR);
    return jinja_listed(J_LIST, jinja_text_rsplit(&r->c, v.s, opt_str(r, a[0]),
                                    jinja_arg_int(r, a[1], -1)));
}


/* At whatever ends a line in Unicode. */
METHOD(splitlines)
{
    UNUSED;
    assert(v.t == J_STR);
    return jinja_listed(
        J_LIST, jinja_text_lines(&r->c, v.s, jinja_arg_bool(r, a[0], 0)));
}


/* Before, the separator, behind. */
static jv_t
str_parted(jrun_t *r, jstr_t *s, jv_t by, int last)
{
    jlist_t *l = jinja_list_new(&r->c, 3);
    jstr_t *b = jinja_arg_str(r, by);
    jv_t nothing = jinja_str(jinja_str_lit(&r->c, ""));
    size_t at;

    if (b->len == 0) {
        jinja_fail(&r->c, "A string cannot be split at nothing.");
    }

    (void) jinja_str_flat(&r->c, s);
    at = last ? jinja_text_rfind(&r->c, s, b, s->len)
              : jinja_str_find(&r->c, s, b, 0);
    if (at == SIZE_MAX) {
        jinja_list_add(&r->c, l, last ? nothing : jinja_str(s));
        jinja_list_add(&r->c, l, nothing);
        jinja_list_add(&r->c, l, last ? jinja_str(s) : nothing);
    } else {
        jinja_list_add(&r->c, l, jinja_str(jinja_str_sub(&r->c, s, 0, at)));
        jinja_list_add(&r->c, l, jinja_str(b));
        jinja_list_add(
            &r->c, l, jinja_str(jinja_str_sub(&r->c, s, at + b->len, s->len)));
    }

    return jinja_listed(J_TUPLE, l);
}


/* At the first place. */
METHOD(partition)
{
    UNUSED;
    assert(v.t == J_STR);
    return str_parted(r, v.s, a[0], 0);
}


/* At the last place. */
METHOD(rpartition)
{
    UNUSED;
    assert(v.t == J_STR);
    return str_parted(r, v.s, a[0], 1);
}


/* As the filter, of strings only. */
METHOD(replace)
{
    UNUSED;
    assert(v.t == J_STR);
    return jinja_str(jinja_text_replace(&r->c, v.s, jinja_arg_str(r, a[0]),
        jinja_arg_str(r, a[1]), jinja_arg_int(r, a[2], -1)));
}


/* Of strings only, unlike the filter. */
METHOD(join)
{
    UNUSED;
    assert(v.t == J_STR);
    return jinja_str(jinja_text_join(&r->c, v.s, jinja_arg_items(r, a[0]), 1));
}


/* See jinja_format.c. */
METHOD(format)
{
    UNUSED;
    assert(v.t == J_STR);
    return jinja_format(r, v.s, raw);
}


/* Where a search begins: the character from, -1 beyond the end. */
static int64_t
str_start(jrun_t *r, jstr_t *s, jv_t from)
{
    int64_t n = jinja_str_chars(&r->c, s), at;

    at = from.t == J_NONE ? 0 : jinja_arg_int(r, from, 0);
    at = at < 0 ? at + n : at;

    return at < 0 ? 0 : at > n ? -1 : at;
}


/* Places that do not overlap, from a character on and up to one. */
METHOD(str_count)
{
    jstr_t *part = jinja_arg_str(r, a[0]), *s = str_within(r, v.s, a[1], a[2]);
    size_t at = 0;
    int64_t n = 0;

    assert(v.t == J_STR);

    (void) raw;
    if (str_start(r, v.s, a[1]) < 0) {
        return jinja_int(0);
    }
    if (part->len == 0) {
        return jinja_int((int64_t) jinja_str_chars(&r->c, s) + 1);
    }
    while ((at = jinja_str_find(&r->c, s, part, at)) != SIZE_MAX) {
        at += part->len;
        n++;
    }

    return jinja_int(n);
}


/* The first place or the last one, in characters, -1 if there is none. */
static jv_t
str_place(jrun_t *r, jstr_t *s, const jv_t *a, int last)
{
    jstr_t *part = jinja_arg_str(r, a[0]), *in = str_within(r, s, a[1], a[2]);
    int64_t from = str_start(r, s, a[1]);
    size_t at;

    (void) jinja_str_flat(&r->c, in);
    at = last ? jinja_text_rfind(&r->c, in, part, in->len)
              : jinja_str_find(&r->c, in, part, 0);
    if (from < 0 || at == SIZE_MAX) {
        return jinja_int(-1);
    }

    return jinja_int(
        from + jinja_str_chars(&r->c, jinja_str_sub(&r->c, in, 0, at)));
}


/* Between two places, as a slice has them. */
METHOD(find)
{
    UNUSED;
    assert(v.t == J_STR);
    return str_place(r, v.s, a, 0);
}


/* The last place. */
METHOD(rfind)
{
    UNUSED;
    assert(v.t == J_STR);
    return str_place(r, v.s, a, 1);
}


/* As find, but it must be there. */
METHOD(index)
{
    jv_t at = m_find(r, v, a, raw);

    assert(v.t == J_STR);

    if (at.i < 0) {
        jinja_fail(&r->c, "index() does not find the string.");
    }

    return at;
}


/* As rfind, but it must be there. */
METHOD(rindex)
{
    jv_t at = m_rfind(r, v, a, raw);

    assert(v.t == J_STR);

    if (at.i < 0) {
        jinja_fail(&r->c, "rindex() does not find the string.");
    }

    return at;
}


/* --- strings: width ----------------------------------------------------- */

/* how: below 0 filled up at the left, above at the right, 0 at both. */
static jv_t
str_padded(jrun_t *r, jv_t v, const jv_t *a, int how)
{
    jstr_t *fill = opt_str(r, a[1]);
    int64_t more = jinja_arg_int(r, a[0], 0), left, width = more;
    uint32_t cp = ' ';

    assert(v.t == J_STR);

    if (fill != NULL) {
        if (jinja_str_chars(&r->c, fill) != 1) {
            jinja_fail(&r->c, "A string is filled up with one character.");
        }
        (void) jinja_char(jinja_str_flat(&r->c, fill)->s, fill->len, &cp);
    }

    more = more > INT32_MAX ? INT32_MAX : more;
    more -= jinja_str_chars(&r->c, v.s);
    if (more <= 0) {
        return v;
    }
    left = how < 0 ? more : how > 0 ? 0 : more / 2 + (more & width & 1);

    return jinja_str(jinja_text_pad(&r->c, v.s, left, more - left, cp));
}


/* The text stands left. */
METHOD(ljust)
{
    UNUSED;
    assert(v.t == J_STR);
    return str_padded(r, v, a, 1);
}


/* The text stands right. */
METHOD(rjust)
{
    UNUSED;
    assert(v.t == J_STR);
    return str_padded(r, v, a, -1);
}


/* The text stands in the middle. */
METHOD(center)
{
    UNUSED;
    assert(v.t == J_STR);
    return str_padded(r, v, a, 0);
}


/* Zeros go behind a sign. */
METHOD(zfill)
{
    int64_t more = jinja_arg_int(r, a[0], 0);
    size_t sign;

    assert(v.t == J_STR);

    (void) raw;
    more = more > INT32_MAX ? INT32_MAX : more;
    more -= jinja_str_chars(&r->c, v.s);
    (void) jinja_str_flat(&r->c, v.s);
    sign = v.s->len > 0 && (v.s->s[0] == '-' || v.s->s[0] == '+');

    return jinja_str(jinja_str_cat(&r->c, jinja_str_sub(&r->c, v.s, 0, sign),
        jinja_text_pad(
            &r->c, jinja_str_sub(&r->c, v.s, sign, v.s->len), more, 0, '0')));
}


/* --- strings: what they are made of ------------------------------------- */

enum {
    IS_DIGIT = 1,
    IS_ALPHA = 2,
    IS_SPACE = 4,
    IS_UPPER = 8,
    IS_LOWER = 16,
    IS_NUMBER = 32
};

/* By Unicode's categories. */
static unsigned
char_kind(uint32_t cp)
{
    switch (utf8proc_category((utf8proc_int32_t) cp)) {
    case UTF8PROC_CATEGORY_ND:
        return IS_DIGIT | IS_NUMBER;
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
        return IS_NUMBER;
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LT:
        return IS_ALPHA | IS_UPPER;
    case UTF8PROC_CATEGORY_LL:
        return IS_ALPHA | IS_LOWER;
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
        return IS_ALPHA;
    default:
        return jinja_is_space(cp) ? IS_SPACE : 0;
    }
}


/* Is it part of a word, as \\w has it? */
int
jinja_is_word(uint32_t cp)
{
    return cp == '_' || (char_kind(cp) & (IS_ALPHA | IS_NUMBER)) != 0;
}


/* Is each character of a kind, and there is one?  without: none of these. */
static jv_t
str_made_of(jrun_t *r, jstr_t *s, unsigned kinds, unsigned without)
{
    size_t at;
    uint32_t cp;
    int found = 0;

    (void) jinja_str_flat(&r->c, s);
    jinja_step(&r->c, s->len / 4);
    for (at = 0; at < s->len;) {
        at += jinja_char(s->s + at, s->len - at, &cp);
        if (char_kind(cp) & kinds) {
            found = 1;
        } else if (without == 0 || (char_kind(cp) & without)) {
            return jinja_bool(0);
        }
    }

    return jinja_bool(found);
}


/* Raised, lowered and circled digits are digits too, but not decimal. */
static int
char_is_digit(uint32_t cp)
{
    static const uint32_t ranges[][2] = {{0xb2, 0xb3}, {0xb9, 0xb9},
        {0x1369, 0x1371}, {0x19da, 0x19da}, {0x2070, 0x2070}, {0x2074, 0x2079},
        {0x2080, 0x2089}, {0x2460, 0x2468}, {0x2474, 0x247c}, {0x2488, 0x2490},
        {0x24ea, 0x24ea}, {0x24f5, 0x24fd}, {0x24ff, 0x24ff}, {0x2776, 0x277e},
        {0x2780, 0x2788}, {0x278a, 0x2792}, {0x10a40, 0x10a43},
        {0x10e60, 0x10e68}, {0x11052, 0x1105a}, {0x1f100, 0x1f10a}};
    size_t i;

    for (i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        if (cp >= ranges[i][0] && cp <= ranges[i][1]) {
            return 1;
        }
    }

    return 0;
}


/* Unlike the others it asks for more than a category. */
METHOD(isdigit)
{
    uint32_t cp;
    size_t at;

    UNUSED;
    assert(v.t == J_STR);
    (void) jinja_str_flat(&r->c, v.s);
    jinja_step(&r->c, v.s->len / 4);
    for (at = 0; at < v.s->len;) {
        at += jinja_char(v.s->s + at, v.s->len - at, &cp);
        if (!(char_kind(cp) & IS_DIGIT) && !char_is_digit(cp)) {
            return jinja_bool(0);
        }
    }

    return jinja_bool(v.s->len > 0);
}


/* Those that numbers are written with, in any script. */
METHOD(isdecimal)
{
    UNUSED;
    assert(v.t == J_STR);
    return str_made_of(r, v.s, IS_DIGIT, 0);
}


/* Fractions and Roman numbers, too. */
METHOD(isnumeric)
{
    UNUSED;
    assert(v.t == J_STR);
    return str_made_of(r, v.s, IS_NUMBER, 0);
}


/* Letters of any script. */
METHOD(isalpha)
{
    UNUSED;
    assert(v.t == J_STR);
    return str_made_of(r, v.s, IS_ALPHA, 0);
}


/* Either of them. */
METHOD(isalnum)
{
    UNUSED;
    assert(v.t == J_STR);
    return str_made_of(r, v.s, IS_ALPHA | IS_NUMBER, 0);
}


/* As strip sees it. */
METHOD(isspace)
{
    UNUSED;
    assert(v.t == J_STR);
    return str_made_of(r, v.s, IS_SPACE, 0);
}


/* Nothing is ASCII, too. */
METHOD(isascii)
{
    size_t i;

    UNUSED;
    assert(v.t == J_STR);
    (void) jinja_str_flat(&r->c, v.s);
    jinja_step(&r->c, v.s->len / 16);
    for (i = 0; i < v.s->len && (uint8_t) v.s->s[i] < 0x80; i++) {
    }

    return jinja_bool(i == v.s->len);
}


/* Capitals only where no letter is before them, small letters where one is. */
METHOD(istitle)
{
    unsigned kind;
    int before = 0, found = 0;
    uint32_t cp;
    size_t at;

    UNUSED;
    assert(v.t == J_STR);
    (void) jinja_str_flat(&r->c, v.s);
    jinja_step(&r->c, v.s->len / 4);
    for (at = 0; at < v.s->len;) {
        at += jinja_char(v.s->s + at, v.s->len - at, &cp);
        kind = char_kind(cp) & (IS_UPPER | IS_LOWER);
        if (kind != 0 && (kind == IS_LOWER) != before) {
            return jinja_bool(0);
        }
        before = kind != 0;
        found |= before;
    }

    return jinja_bool(found);
}


/* Spaces up to the next column that is a multiple of tabsize. */
METHOD(expandtabs)
{
    int64_t size = jinja_arg_int(r, a[0], 8), column = 0, n;
    uint32_t cp;
    size_t at, len;
    jsb_t b;

    UNUSED;
    assert(v.t == J_STR);
    (void) jinja_str_flat(&r->c, v.s);
    jinja_sb_open(&b, &r->c);
    for (at = 0; at < v.s->len; at += len) {
        jinja_step(&r->c, 1);
        len = jinja_char(v.s->s + at, v.s->len - at, &cp);
        if (cp != '\t') {
            jinja_sb_sub(&b, v.s, at, at + len);
            column = cp == '\n' || cp == '\r' ? 0 : column + 1;
            continue;
        }
        for (n = size > 0 ? size - column % size : 0; n > 0; n--, column++) {
            jinja_step(&r->c, 1);
            jinja_sb_char(&b, ' ', jinja_str_origin(v.s, at));
        }
    }

    return jinja_str(jinja_sb_end(&b));
}


/* Characters without case do not matter. */
METHOD(isupper)
{
    UNUSED;
    assert(v.t == J_STR);
    return str_made_of(r, v.s, IS_UPPER, IS_LOWER);
}


/* The same. */
METHOD(islower)
{
    UNUSED;
    assert(v.t == J_STR);
    return str_made_of(r, v.s, IS_LOWER, IS_UPPER);
}


/* --- mappings ----------------------------------------------------------- */

/* None if it is not there, unlike an item, which is undefined. */
METHOD(get)
{
    jv_t *p = jinja_dict_get(&r->c, v.d, a[0]);

    assert(v.t == J_DICT);

    (void) raw;

    return p != NULL ? *p : a[1].t != J_ABSENT ? a[1] : jinja_none();
}


/* The pairs as they are now; nothing can change them. */
METHOD(items)
{
    jlist_t *l = jinja_list_new(&r->c, v.d->n), *pair;
    uint32_t i;

    assert(v.t == J_DICT);

    (void) a, (void) raw;
    for (i = 0; i < v.d->n; i++) {
        pair = jinja_list_new(&r->c, 2);
        jinja_list_add(&r->c, pair, v.d->v[i].k);
        jinja_list_add(&r->c, pair, v.d->v[i].v);
        jinja_list_add(&r->c, l, jinja_listed(J_TUPLE, pair));
    }
    l->what = "dict_items";

    return jinja_listed(J_VIEW, l);
}


/* In the order in which they came. */
METHOD(keys)
{
    jlist_t *l = jinja_items(&r->c, v);

    assert(v.t == J_DICT);

    (void) a, (void) raw;
    l->what = "dict_keys";

    return jinja_listed(J_VIEW, l);
}


/* In the order of their keys. */
METHOD(values)
{
    jlist_t *l = jinja_list_new(&r->c, v.d->n);
    uint32_t i;

    assert(v.t == J_DICT);

    (void) a, (void) raw;
    for (i = 0; i < v.d->n; i++) {
        jinja_list_add(&r->c, l, v.d->v[i].v);
    }
    l->what = "dict_values";

    return jinja_listed(J_VIEW, l);
}


/* Nothing changes, so a copy need not be one. */
METHOD(copy)
{
    UNUSED;
    return v;
}


/* --- lists, loops ------------------------------------------------------- */

/* The first place in a slice; it must be there. */
METHOD(list_index)
{
    int64_t i = jinja_arg_int(r, a[1], 0);
    int64_t end = jinja_arg_int(r, a[2], v.l->n);

    assert(v.t == J_LIST || v.t == J_TUPLE);

    (void) raw;
    i = i < 0 ? i + v.l->n : i;
    end = end < 0 ? end + v.l->n : end;
    for (i = i < 0 ? 0 : i; i < end && i < v.l->n; i++) {
        if (jinja_eq(&r->c, v.l->v[i], a[0])) {
            return jinja_int(i);
        }
    }
    jinja_fail(&r->c, "index() does not find the value.");
}


/* By equality, so 1 counts 1.0 and True. */
METHOD(list_count)
{
    int64_t n = 0;
    uint32_t i;

    assert(v.t == J_LIST || v.t == J_TUPLE);

    (void) raw;
    for (i = 0; i < v.l->n; i++) {
        n += jinja_eq(&r->c, v.l->v[i], a[0]);
    }

    return jinja_int(n);
}


/* One of its arguments, by the turn of the loop. */
METHOD(cycle)
{
    assert(v.t == J_LOOP);
    (void) a;
    if (raw->n == 0) {
        jinja_fail(&r->c, "cycle() takes at least one value.");
    }

    return raw->v[v.loop->i % raw->n];
}


/* Were other values given at the last call? */
METHOD(changed)
{
    jlist_t *l = jinja_list_new(&r->c, raw->n);
    jv_t now = jinja_listed(J_TUPLE, l);
    uint32_t i;

    assert(v.t == J_LOOP);

    (void) a;
    for (i = 0; i < raw->n; i++) {
        jinja_list_add(&r->c, l, raw->v[i]);
    }
    if (v.loop->last.t != J_ABSENT && jinja_eq(&r->c, v.loop->last, now)) {
        return jinja_bool(0);
    }
    v.loop->last = now;

    return jinja_bool(1);
}


/* The current value; then the next one is current. */
METHOD(next)
{
    jv_t now = v.l->v[v.l->at];

    assert(v.t == J_CYCLER && v.l->n > 0);

    (void) r, (void) a, (void) raw;
    v.l->at = (v.l->at + 1) % v.l->n;

    return now;
}


/* Back to the first value. */
METHOD(reset)
{
    UNUSED;
    assert(v.t == J_CYCLER);
    v.l->at = 0;

    return jinja_none();
}


/* --- rows --------------------------------------------------------------- */

static const jrow_t methods[] = {
    {"lower", 0, {NULL}, m_lower, J_STR},
    {"casefold", 0, {NULL}, m_lower, J_STR},
    {"upper", 0, {NULL}, m_upper, J_STR},
    {"title", 0, {NULL}, m_title, J_STR},
    {"capitalize", 0, {NULL}, m_capitalize, J_STR},
    {"swapcase", 0, {NULL}, m_swapcase, J_STR},
    {"strip", 0, {"chars"}, m_strip, J_STR},
    {"lstrip", 0, {"chars"}, m_lstrip, J_STR},
    {"rstrip", 0, {"chars"}, m_rstrip, J_STR},
    {"startswith", 1, {"prefix", "start", "end"}, m_startswith, J_STR},
    {"endswith", 1, {"suffix", "start", "end"}, m_endswith, J_STR},
    {"removeprefix", 1, {"prefix"}, m_removeprefix, J_STR},
    {"removesuffix", 1, {"suffix"}, m_removesuffix, J_STR},
    {"split", 0, {"sep", "maxsplit"}, m_split, J_STR},
    {"rsplit", 0, {"sep", "maxsplit"}, m_rsplit, J_STR},
    {"splitlines", 0, {"keepends"}, m_splitlines, J_STR},
    {"partition", 1, {"sep"}, m_partition, J_STR},
    {"rpartition", 1, {"sep"}, m_rpartition, J_STR},
    {"replace", 2, {"old", "new", "count"}, m_replace, J_STR},
    {"join", 1, {"iterable"}, m_join, J_STR},
    {"format", 0, {"*"}, m_format, J_STR},
    {"count", 1, {"sub", "start", "end"}, m_str_count, J_STR},
    {"find", 1, {"sub", "start", "end"}, m_find, J_STR},
    {"rfind", 1, {"sub", "start", "end"}, m_rfind, J_STR},
    {"index", 1, {"sub", "start", "end"}, m_index, J_STR},
    {"rindex", 1, {"sub", "start", "end"}, m_rindex, J_STR},
    {"ljust", 1, {"width", "fillchar"}, m_ljust, J_STR},
    {"rjust", 1, {"width", "fillchar"}, m_rjust, J_STR},
    {"center", 1, {"width", "fillchar"}, m_center, J_STR},
    {"zfill", 1, {"width"}, m_zfill, J_STR},
    {"isdigit", 0, {NULL}, m_isdigit, J_STR},
    {"isdecimal", 0, {NULL}, m_isdecimal, J_STR},
    {"isnumeric", 0, {NULL}, m_isnumeric, J_STR},
    {"isascii", 0, {NULL}, m_isascii, J_STR},
    {"istitle", 0, {NULL}, m_istitle, J_STR},
    {"expandtabs", 0, {"tabsize"}, m_expandtabs, J_STR},
    {"isalpha", 0, {NULL}, m_isalpha, J_STR},
    {"isalnum", 0, {NULL}, m_isalnum, J_STR},
    {"isspace", 0, {NULL}, m_isspace, J_STR},
    {"isupper", 0, {NULL}, m_isupper, J_STR},
    {"islower", 0, {NULL}, m_islower, J_STR},
    {"get", 1, {"key", "default"}, m_get, J_DICT},
    {"items", 0, {NULL}, m_items, J_DICT},
    {"keys", 0, {NULL}, m_keys, J_DICT},
    {"values", 0, {NULL}, m_values, J_DICT},
    {"copy", 0, {NULL}, m_copy, J_DICT},
    {"clear", 0, {"*"}, NULL, J_DICT},
    {"pop", 0, {"*"}, NULL, J_DICT},
    {"popitem", 0, {"*"}, NULL, J_DICT},
    {"setdefault", 0, {"*"}, NULL, J_DICT},
    {"update", 0, {"*"}, NULL, J_DICT},
    {"index", 1, {"value", "start", "stop"}, m_list_index, J_LIST},
    {"count", 1, {"value"}, m_list_count, J_LIST},
    {"copy", 0, {NULL}, m_copy, J_LIST},
    {"append", 0, {"*"}, NULL, J_LIST},
    {"clear", 0, {"*"}, NULL, J_LIST},
    {"extend", 0, {"*"}, NULL, J_LIST},
    {"insert", 0, {"*"}, NULL, J_LIST},
    {"pop", 0, {"*"}, NULL, J_LIST},
    {"remove", 0, {"*"}, NULL, J_LIST},
    {"reverse", 0, {"*"}, NULL, J_LIST},
    {"sort", 0, {"*"}, NULL, J_LIST},
    {"index", 1, {"value", "start", "stop"}, m_list_index, J_TUPLE},
    {"count", 1, {"value"}, m_list_count, J_TUPLE},
    {"cycle", 0, {"*"}, m_cycle, J_LOOP},
    {"changed", 0, {"*"}, m_changed, J_LOOP},
    {"next", 0, {NULL}, m_next, J_CYCLER},
    {"reset", 0, {NULL}, m_reset, J_CYCLER},
};

#define METHODS_N (sizeof(methods) / sizeof(methods[0]))


/* The first letter tells most names apart. */
static int
method_is(const jrow_t *row, const char *name, size_t len)
{
    assert(row->name != NULL);
    return row->name[0] == name[0] && strlen(row->name) == len
           && memcmp(row->name, name, len) == 0;
}


/* Rows of one name differ in their type. */
const jrow_t *
jinja_method(uint8_t type, const char *name, size_t len)
{
    size_t i;

    assert(name != NULL);

    assert(type < J_TYPES);

    for (i = 0; i < METHODS_N && len > 0; i++) {
        if (methods[i].type == type && method_is(&methods[i], name, len)) {
            return &methods[i];
        }
    }

    return NULL;
}


/*
 * Asked when a template is compiled, so that most attributes need not be
 * looked for here when it runs.
 */
int
jinja_method_name(const char *name, size_t len)
{
    size_t i;

    assert(name != NULL);

    for (i = 0; i < METHODS_N && len > 0; i++) {
        if (method_is(&methods[i], name, len)) {
            return 1;
        }
    }

    return 0;
}
