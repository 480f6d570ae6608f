/*
 * What filters and methods do to strings.
 *
 * DESIGN.  All of it keeps origins: each character of a result is of whoever
 * wrote the character that it was made from.  What was cut or replaced in a
 * message stays the client's, and what a template put around it stays the
 * template's.
 *
 * Cases are mapped by utf8proc, one character to one; of those that become
 * two only the sharp s is known, which is the one that text has.
 *
 * The functions take strings flat or not and give back flat ones.
 */
#include "jinja_impl.h"

#include <utf8proc.h>

#define SHARP_S 0xdf


/* --- case --------------------------------------------------------------- */

/* ASCII without a call. */
static uint32_t
text_lower(uint32_t cp)
{
    if (cp < 0x80) {
        return cp >= 'A' && cp <= 'Z' ? cp + 32 : cp;
    }

    return (uint32_t) utf8proc_tolower((utf8proc_int32_t) cp);
}


/* title: of the few letters that have a third form. */
static uint32_t
text_upper(uint32_t cp, int title)
{
    if (cp < 0x80) {
        return cp >= 'a' && cp <= 'z' ? cp - 32 : cp;
    }

    return (uint32_t) (title ? utf8proc_totitle((utf8proc_int32_t) cp)
                             : utf8proc_toupper((utf8proc_int32_t) cp));
}


/* Is there another form of it? */
static int
text_has_case(uint32_t cp)
{
    return text_lower(cp) != cp || text_upper(cp, 0) != cp;
}


/* Does the title filter see a word's beginning behind cp? */
static int
text_parts_words(uint32_t cp)
{
    return cp == '-' || cp == '(' || cp == '{' || cp == '[' || cp == '<'
           || jinja_is_space(cp);
}


/* One character, which stands at a word's beginning or not. */
static void
text_put_case(jsb_t *b, uint32_t cp, int how, int begins, unsigned origin)
{
    int up = how == JINJA_UPPER || (how != JINJA_LOWER && begins);

    if (how == JINJA_SWAP) {
        up = text_upper(cp, 0) != cp;
    }

    if (up && cp == SHARP_S) {
        jinja_sb_put(b, how == JINJA_UPPER || how == JINJA_WORDS ? "SS" : "Ss",
            2, origin);
    } else if (up) {
        jinja_sb_char(b,
            text_upper(cp, how != JINJA_UPPER && how != JINJA_WORDS), origin);
    } else {
        jinja_sb_char(b, text_lower(cp), origin);
    }
}


/*
 * What a word is differs from method to filter, so `begins` is found out
 * for each character.
 */
jstr_t *
jinja_text_case(jctx_t *c, jstr_t *s, int how)
{
    size_t at = 0, k;
    uint32_t cp;
    int begins = 1;
    jsb_t b;

    assert(s != NULL);

    (void) jinja_str_flat(c, s);
    jinja_step(c, s->len);
    jinja_sb_open(&b, c);

    for (; at < s->len; at += k) {
        k = jinja_char(s->s + at, s->len - at, &cp);
        text_put_case(&b, cp, how, begins, jinja_str_origin(s, at));
        begins = how == JINJA_TITLE   ? !text_has_case(cp)
                 : how == JINJA_WORDS ? text_parts_words(cp)
                                      : 0;
    }

    return jinja_sb_end(&b);
}


/* --- ends --------------------------------------------------------------- */

/* Is cp among chars, or white space if there are none? */
static int
text_is_stripped(const jstr_t *chars, uint32_t cp)
{
    uint32_t other;
    size_t at = 0;

    if (chars == NULL) {
        return jinja_is_space(cp);
    }

    while (at < chars->len) {
        at += jinja_char(chars->s + at, chars->len - at, &other);
        if (other == cp) {
            return 1;
        }
    }

    return 0;
}


/* A string that has nothing to strip is given back. */
jstr_t *
jinja_text_strip(jctx_t *c, jstr_t *s, jstr_t *chars, int left, int right)
{
    size_t from = 0, to, at, k, cost = chars == NULL ? 1 : chars->len / 4 + 1;
    uint32_t cp;

    assert(s != NULL);

    (void) jinja_str_flat(c, s);
    if (chars != NULL) {
        (void) jinja_str_flat(c, chars);
    }
    to = s->len;

    while (left && from < to) {
        jinja_step(c, cost);
        k = jinja_char(s->s + from, to - from, &cp);
        if (!text_is_stripped(chars, cp)) {
            break;
        }
        from += k;
    }

    while (right && to > from) {
        jinja_step(c, cost);
        at = to - 1;
        while (at > from && ((uint8_t) s->s[at] & 0xc0) == 0x80) {
            at--;
        }
        (void) jinja_char(s->s + at, to - at, &cp);
        if (!text_is_stripped(chars, cp)) {
            break;
        }
        to = at;
    }

    return from == 0 && to == s->len ? s : jinja_str_sub(c, s, from, to);
}


/* --- parts -------------------------------------------------------------- */

/* "" is found before each character, and behind the last. */
static jstr_t *
text_interleave(jctx_t *c, jstr_t *s, jstr_t *by, int64_t count)
{
    size_t at, k;
    uint32_t cp;
    jsb_t b;

    jinja_sb_open(&b, c);
    for (at = 0; at < s->len; at += k) {
        if (count != 0) {
            jinja_sb_str(&b, by);
            count -= count > 0;
        }
        k = jinja_char(s->s + at, s->len - at, &cp);
        jinja_sb_sub(&b, s, at, at + k);
    }
    if (count != 0) {
        jinja_sb_str(&b, by);
    }

    return jinja_sb_end(&b);
}


/* Each part stays of whoever wrote it. */
jstr_t *
jinja_text_replace(jctx_t *c, jstr_t *s, jstr_t *old, jstr_t *by, int64_t count)
{
    size_t at, from = 0;
    jsb_t b;

    assert(old != NULL && by != NULL);

    (void) jinja_str_flat(c, s);
    if (old->len == 0) {
        return text_interleave(c, s, by, count);
    }

    jinja_sb_open(&b, c);
    for (; count != 0; count -= count > 0) {
        at = jinja_str_find(c, s, old, from);
        if (at == SIZE_MAX) {
            break;
        }
        jinja_sb_sub(&b, s, from, at);
        jinja_sb_str(&b, by);
        from = at + old->len;
    }
    if (from == 0) {
        return s;
    }
    jinja_sb_sub(&b, s, from, s->len);

    return jinja_sb_end(&b);
}


/* The separator between, never at an end. */
jstr_t *
jinja_text_join(jctx_t *c, jstr_t *by, const jlist_t *l, int strict)
{
    uint32_t i;
    jsb_t b;

    assert(by != NULL && l != NULL);

    jinja_sb_open(&b, c);
    for (i = 0; i < l->n; i++) {
        if (strict && l->v[i].t != J_STR) {
            jinja_fail(
                c, "%s cannot be joined to strings.", jinja_type_name(l->v[i]));
        }
        if (i > 0) {
            jinja_sb_str(&b, by);
        }
        jinja_sb_str(&b, jinja_to_str(c, l->v[i]));
    }

    return jinja_sb_end(&b);
}


/* Does a line end with cp? */
static int
text_ends_line(uint32_t cp)
{
    return (cp >= 10 && cp <= 13) || (cp >= 28 && cp <= 30) || cp == 0x85
           || cp == 0x2028 || cp == 0x2029;
}


/* keep: with what ended them. */
jlist_t *
jinja_text_lines(jctx_t *c, jstr_t *s, int keep)
{
    jlist_t *l = jinja_list_new(c, 0);
    size_t from = 0, at = 0, k;
    uint32_t cp;

    assert(s != NULL);

    (void) jinja_str_flat(c, s);
    jinja_step(c, s->len / 4);

    while (at < s->len) {
        k = jinja_char(s->s + at, s->len - at, &cp);
        if (!text_ends_line(cp)) {
            at += k;
            continue;
        }
        if (cp == '\r' && at + 1 < s->len && s->s[at + 1] == '\n') {
            k = 2;
        }
        jinja_list_add(
            c, l, jinja_str(jinja_str_sub(c, s, from, keep ? at + k : at)));
        from = at += k;
    }
    if (from < s->len) {
        jinja_list_add(c, l, jinja_str(jinja_str_sub(c, s, from, s->len)));
    }

    return l;
}


/* Words between white space, at most max + 1 of them if max >= 0. */
static jlist_t *
text_words(jctx_t *c, jstr_t *s, int64_t max)
{
    jlist_t *l = jinja_list_new(c, 0);
    size_t at = 0, from, k;
    uint32_t cp;

    jinja_step(c, s->len / 4);
    for (;;) {
        for (; at < s->len; at += k) {
            k = jinja_char(s->s + at, s->len - at, &cp);
            if (!jinja_is_space(cp)) {
                break;
            }
        }
        if (at == s->len) {
            return l;
        }
        if (max-- == 0) {
            jinja_list_add(c, l, jinja_str(jinja_str_sub(c, s, at, s->len)));
            return l;
        }
        for (from = at; at < s->len; at += k) {
            k = jinja_char(s->s + at, s->len - at, &cp);
            if (jinja_is_space(cp)) {
                break;
            }
        }
        jinja_list_add(c, l, jinja_str(jinja_str_sub(c, s, from, at)));
    }
}


/* A last empty part counts, as in Python. */
jlist_t *
jinja_text_split(jctx_t *c, jstr_t *s, jstr_t *by, int64_t max)
{
    jlist_t *l;
    size_t from = 0, at;

    assert(s != NULL);

    (void) jinja_str_flat(c, s);
    if (by == NULL) {
        return text_words(c, s, max);
    }
    if (by->len == 0) {
        jinja_fail(c, "A string cannot be split at nothing.");
    }

    l = jinja_list_new(c, 0);
    for (; max != 0; max -= max > 0) {
        at = jinja_str_find(c, s, by, from);
        if (at == SIZE_MAX) {
            break;
        }
        jinja_list_add(c, l, jinja_str(jinja_str_sub(c, s, from, at)));
        from = at + by->len;
    }
    jinja_list_add(c, l, jinja_str(jinja_str_sub(c, s, from, s->len)));

    return l;
}


/* The last place of b in a before `end`, SIZE_MAX: none. */
size_t
jinja_text_rfind(jctx_t *c, jstr_t *a, jstr_t *b, size_t end)
{
    size_t at;

    (void) jinja_str_flat(c, a);
    (void) jinja_str_flat(c, b);
    assert(end <= a->len);

    if (b->len > end) {
        return SIZE_MAX;
    }
    for (at = end - b->len;; at--) {
        jinja_step(c, 1 + b->len / 16);
        if (memcmp(a->s + at, b->s, b->len) == 0) {
            return at;
        }
        if (at == 0) {
            return SIZE_MAX;
        }
    }
}


/* The pieces of a list that was made from its end. */
static jlist_t *
text_turned(jctx_t *c, jlist_t *back)
{
    jlist_t *l = jinja_list_new(c, back->n);

    while (back->n > 0) {
        jinja_list_add(c, l, back->v[--back->n]);
    }

    return l;
}


/* Words from the end on, max of them and what is left. */
static jlist_t *
text_rwords(jctx_t *c, jstr_t *s, int64_t max)
{
    jlist_t *l = jinja_list_new(c, 0);
    size_t end = s->len, at;
    uint32_t cp;

    for (; max >= 0; max--) {
        end = jinja_text_strip(c, jinja_str_sub(c, s, 0, end), NULL, 0, 1)->len;
        for (at = end; at > 0; at--) {
            (void) jinja_char(s->s + at - 1, s->len - at + 1, &cp);
            if (((uint8_t) s->s[at - 1] & 0xc0) != 0x80 && jinja_is_space(cp)) {
                break;
            }
            jinja_step(c, 1);
        }
        if (max == 0) {
            break;
        }
        if (at == end) {
            return text_turned(c, l);
        }
        while (at < end && ((uint8_t) s->s[at] & 0xc0) == 0x80) {
            at++;
        }
        jinja_list_add(c, l, jinja_str(jinja_str_sub(c, s, at, end)));
        end = at;
    }

    if (end > 0) {
        jinja_list_add(c, l, jinja_str(jinja_str_sub(c, s, 0, end)));
    }

    return text_turned(c, l);
}


/* Only a maximum makes it differ from the other. */
jlist_t *
jinja_text_rsplit(jctx_t *c, jstr_t *s, jstr_t *by, int64_t max)
{
    jlist_t *back = jinja_list_new(c, 0);
    size_t end, at;

    assert(s != NULL);

    if (max < 0) {
        return jinja_text_split(c, s, by, -1);
    }
    if (by == NULL) {
        return text_rwords(c, jinja_str_flat(c, s), max);
    }
    if (by->len == 0) {
        jinja_fail(c, "A string cannot be split at nothing.");
    }

    (void) jinja_str_flat(c, s);
    for (end = s->len; max > 0; max--, end = at) {
        at = jinja_text_rfind(c, s, by, end);
        if (at == SIZE_MAX) {
            break;
        }
        jinja_list_add(
            c, back, jinja_str(jinja_str_sub(c, s, at + by->len, end)));
    }

    jinja_list_add(c, back, jinja_str(jinja_str_sub(c, s, 0, end)));

    return text_turned(c, back);
}


/* --- additions ---------------------------------------------------------- */

/* MarkupSafe's five characters. */
jstr_t *
jinja_text_escape(jctx_t *c, jstr_t *s)
{
    static const char from[] = "&<>'\"";
    static const char *const to[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    const char *p;
    jstr_t *out;
    size_t at;
    jsb_t b;

    assert(s != NULL);

    (void) jinja_str_flat(c, s);
    jinja_sb_open(&b, c);
    for (at = 0; at < s->len; at++) {
        p = memchr(from, s->s[at], sizeof(from) - 1);
        if (p != NULL) {
            jinja_sb_put(&b, to[p - from], strlen(to[p - from]),
                jinja_str_origin(s, at));
        } else {
            jinja_sb_sub(&b, s, at, at + 1);
        }
    }
    out = jinja_sb_end(&b);
    out->markup = 1;

    return out;
}


/* Negative counts are none. */
jstr_t *
jinja_text_pad(jctx_t *c, jstr_t *s, int64_t left, int64_t right, uint32_t fill)
{
    jsb_t b;

    assert(s != NULL);

    jinja_sb_open(&b, c);
    for (; left > 0; left--) {
        jinja_step(c, 1);
        jinja_sb_char(&b, fill, JINJA_DATA);
    }
    jinja_sb_str(&b, s);
    for (; right > 0; right--) {
        jinja_step(c, 1);
        jinja_sb_char(&b, fill, JINJA_DATA);
    }

    return jinja_sb_end(&b);
}


/* Line ends become newlines; one at the very end stays. */
jstr_t *
jinja_text_indent(jctx_t *c, jstr_t *s, jstr_t *by, int first, int blank)
{
    jlist_t *l = jinja_text_lines(
        c, jinja_str_cat(c, s, jinja_str_of(c, "\n", 1, JINJA_DATA)), 0);
    uint32_t i;
    jsb_t b;

    assert(s != NULL && by != NULL);

    jinja_sb_open(&b, c);
    for (i = 0; i < l->n; i++) {
        if (i > 0) {
            jinja_sb_lit(&b, "\n");
        }
        if (i == 0 ? first : blank || l->v[i].s->len > 0) {
            jinja_sb_str(&b, by);
        }
        jinja_sb_str(&b, l->v[i].s);
    }

    return jinja_sb_end(&b);
}
