/*
 * Sets of code points, and what they are in UTF-8.
 *
 * DESIGN.  Ranges in order, which do not touch, found by bisection and merged
 * on the way in: classes of patterns are a few ranges, properties of Unicode a
 * few hundred.  Surrogates are no characters and never members, so that a
 * complement has none.
 *
 * Properties are the general categories, from utf8proc; scripts are not known.
 * They, and which characters have case, are looked for when a compilation first
 * asks, and kept with it.
 *
 * A range becomes at most 7 sequences of byte ranges:
 *
 *      U+0041-U+10FFFF    [41-7f]
 *                         [c2-df][80-bf]
 *                         [e0][a0-bf][80-bf]  [e1-ec][80-bf][80-bf] ...
 *
 * Any thread; a set belongs to who made it.
 *
 * Invariants: r[i].hi + 1 < r[i + 1].lo; no surrogates; all are at most
 * GRAMMAR_CODE_MAX.  A set that is empty may have no memory.
 */
#include "grammar_impl.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define SURROGATE_LO 0xd800
#define SURROGATE_HI 0xdfff
#define CASE_END     0x1f000 /* letters with case are below: all are tried */
#define CASED_MAX    8192    /* there are some 2,900 */


/* Joins a range with all that it overlaps or touches; ranges mostly come in
 * order. 0, or -1: no memory. */
static int
set_insert(grammar_set_t *s, uint32_t lo, uint32_t hi)
{
    uint32_t i = s->n, k, cap, from = 0;
    grammar_range_t *r;

    assert(lo <= hi && hi <= GRAMMAR_CODE_MAX);
    /* the first that lies not wholly before */
    if (i == 0 || s->r[i - 1].hi + 1 < lo) {
        from = i;
    }
    while (from < i) {
        k = (from + i) / 2;
        if (s->r[k].hi + 1 < lo) {
            from = k + 1;
        } else {
            i = k;
        }
    }
    for (k = i; k < s->n && s->r[k].lo <= hi + 1; k++) {
        lo = s->r[k].lo < lo ? s->r[k].lo : lo;
        hi = s->r[k].hi > hi ? s->r[k].hi : hi;
    }

    if (k == i && s->n == s->cap) {
        cap = s->cap == 0 ? 8 : s->cap * 2;
        r = realloc(s->r, cap * sizeof(*r));
        if (r == NULL) {
            return -1;
        }
        s->r = r;
        s->cap = cap;
    }

    if (s->n > 0) {
        memmove(s->r + i + 1, s->r + k, (s->n - k) * sizeof(*s->r));
    }
    s->n = s->n + 1 - (k - i);
    s->r[i].lo = lo;
    s->r[i].hi = hi;
    assert(i == 0 || s->r[i - 1].hi < lo);

    return 0;
}


int
grammar_set_add(grammar_set_t *s, uint32_t lo, uint32_t hi)
{
    assert(lo <= hi && hi <= GRAMMAR_CODE_MAX);

    if (lo < SURROGATE_LO && hi > SURROGATE_HI) {
        return set_insert(s, lo, SURROGATE_LO - 1) == 0
                   ? set_insert(s, SURROGATE_HI + 1, hi)
                   : -1;
    }
    if (lo >= SURROGATE_LO && lo <= SURROGATE_HI) {
        lo = SURROGATE_HI + 1;
    }
    if (hi >= SURROGATE_LO && hi <= SURROGATE_HI) {
        hi = SURROGATE_LO - 1;
    }

    return lo <= hi ? set_insert(s, lo, hi) : 0;
}


int
grammar_set_join(grammar_set_t *s, const grammar_set_t *more)
{
    uint32_t i;

    assert(s->n <= s->cap);
    for (i = 0; i < more->n; i++) {
        if (grammar_set_add(s, more->r[i].lo, more->r[i].hi) != 0) {
            return -1;
        }
    }

    return 0;
}


int
grammar_set_not(grammar_set_t *s)
{
    grammar_set_t out = {NULL, 0, 0};
    uint32_t i, from = 0;
    int rc = 0;

    assert(s->n <= s->cap);
    for (i = 0; i < s->n && rc == 0; i++) {
        if (s->r[i].lo > from) {
            rc = grammar_set_add(&out, from, s->r[i].lo - 1);
        }
        from = s->r[i].hi + 1;
    }
    if (rc == 0 && from <= GRAMMAR_CODE_MAX) {
        rc = grammar_set_add(&out, from, GRAMMAR_CODE_MAX);
    }

    grammar_set_free(s);
    *s = out;

    return rc;
}


int
grammar_set_and(grammar_set_t *s, const grammar_set_t *other)
{
    grammar_set_t out = {NULL, 0, 0};
    uint32_t i = 0, k = 0, lo, hi;
    int rc = 0;

    assert(s->n <= s->cap);
    while (i < s->n && k < other->n && rc == 0) {
        lo = s->r[i].lo > other->r[k].lo ? s->r[i].lo : other->r[k].lo;
        hi = s->r[i].hi < other->r[k].hi ? s->r[i].hi : other->r[k].hi;
        if (lo <= hi) {
            rc = grammar_set_add(&out, lo, hi);
        }
        if (s->r[i].hi < other->r[k].hi) {
            i++;
        } else {
            k++;
        }
    }

    grammar_set_free(s);
    *s = out;

    return rc;
}


int
grammar_set_has(const grammar_set_t *s, uint32_t c)
{
    uint32_t lo = 0, hi = s->n, mid;

    assert(s->n <= s->cap);
    while (lo < hi) {
        mid = (lo + hi) / 2;
        if (s->r[mid].hi < c) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }

    return lo < s->n && s->r[lo].lo <= c;
}


void
grammar_set_free(grammar_set_t *s)
{
    assert(s->n <= s->cap);

    free(s->r);
    memset(s, 0, sizeof(*s));
}


/* --- what Unicode says -------------------------------------------------- */

/* By utf8proc_category_t. */
static const char *const names[] = {"Cn", "Lu", "Ll", "Lt", "Lm", "Lo", "Mn",
    "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po",
    "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co"};

#define CATEGORIES (sizeof(names) / sizeof(names[0]))

/* A character that has another case, and the one that it folds to. */
typedef struct {
    uint32_t c, to;
} cased_t;

/* What a compilation has asked for, which takes a walk over Unicode each. */
struct grammar_unicode_s {
    grammar_set_t all[CATEGORIES];
    cased_t cased[CASED_MAX]; /* in order of c */
    uint32_t cased_n;
    int categories; /* nonzero: they are there */
};


void
grammar_unicode_free(grammar_unicode_t *u)
{
    size_t i;

    for (i = 0; u != NULL && i < CATEGORIES; i++) {
        grammar_set_free(&u->all[i]);
    }
    free(u);
}


/* One character that it folds to: most of case is pairs. */
static uint32_t
fold(uint32_t c)
{
    if (c < 128) {
        return c >= 'A' && c <= 'Z' ? c + 32 : c;
    }

    return (uint32_t) utf8proc_tolower(utf8proc_toupper((utf8proc_int32_t) c));
}


/* What folds to another, and what another folds to. 0, or -1: no memory. */
static int
cased_make(grammar_unicode_t *u)
{
    uint8_t *is = calloc(CASE_END, 1);
    uint32_t c;

    if (is == NULL) {
        return -1;
    }
    for (c = 0; c < CASE_END; c++) {
        if (fold(c) != c) {
            is[c] = 1;
            is[fold(c) < CASE_END ? fold(c) : c] = 1;
        }
    }
    for (c = 0; c < CASE_END; c++) {
        if (is[c]) {
            assert(u->cased_n < CASED_MAX);
            u->cased[u->cased_n].c = c;
            u->cased[u->cased_n++].to = fold(c);
        }
    }
    free(is);

    return 0;
}


/* The next one that may be of another category than c: planes that nothing is
 * assigned in, and the private ones, are passed at once. */
static uint32_t
code_next(uint32_t c)
{
    return c == 0x40000    ? 0xe0000
           : c == 0xf0000  ? 0xffffe
           : c == 0x100000 ? 0x10fffe
                           : c + 1;
}


static int
categories_make(grammar_unicode_t *u)
{
    uint32_t c, from = 0, was = UTF8PROC_CATEGORY_CC, now;
    int rc = 0;

    for (c = 0; c <= GRAMMAR_CODE_MAX + 1 && rc == 0; c = code_next(c)) {
        now = c > GRAMMAR_CODE_MAX
                  ? CATEGORIES
                  : (uint32_t) utf8proc_category((utf8proc_int32_t) c);
        if (now != was) {
            assert(was < CATEGORIES);
            rc = grammar_set_add(&u->all[was], from, c - 1);
            was = now;
            from = c;
        }
    }
    u->categories = rc == 0;

    return rc;
}


/* What is asked for first makes it. 0, or -1: no memory. */
static int
unicode_make(grammar_unicode_t **u, int categories)
{
    if (*u == NULL) {
        *u = calloc(1, sizeof(**u));
    }
    if (*u == NULL) {
        return -1;
    }
    if (categories) {
        return (*u)->categories ? 0 : categories_make(*u);
    }

    return (*u)->cased_n > 0 ? 0 : cased_make(*u);
}


/* The first of those with case that is not below c. */
static uint32_t
cased_from(const grammar_unicode_t *u, uint32_t c)
{
    uint32_t lo = 0, hi = u->cased_n, mid;

    while (lo < hi) {
        mid = (lo + hi) / 2;
        if (u->cased[mid].c < c) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    assert(lo <= u->cased_n);

    return lo;
}


/* Whatever folds to what a member folds to: those that do are neighbours of few
 * others, so all that have case are looked at once. */
int
grammar_set_fold(grammar_set_t *s, grammar_unicode_t **u)
{
    grammar_set_t folded = {NULL, 0, 0}, out = {NULL, 0, 0};
    const cased_t *all;
    uint32_t i, k, n;
    int rc = 0;

    assert(s->n <= s->cap);
    if (unicode_make(u, 0) != 0) {
        return -1;
    }
    all = (*u)->cased;
    n = (*u)->cased_n;
    for (i = 0; i < s->n && rc == 0; i++) {
        for (k = cased_from(*u, s->r[i].lo);
             k < n && all[k].c <= s->r[i].hi && rc == 0; k++) {
            rc = grammar_set_add(&folded, all[k].to, all[k].to);
        }
    }
    for (k = 0; k < n && folded.n > 0 && rc == 0; k++) {
        if (grammar_set_has(&folded, all[k].to)) {
            rc = grammar_set_add(&out, all[k].c, all[k].c);
        }
    }
    if (rc == 0) {
        rc = grammar_set_join(s, &out);
    }
    grammar_set_free(&folded);
    grammar_set_free(&out);

    return rc;
}


int
grammar_set_property(
    grammar_set_t *s, grammar_unicode_t **u, const char *name, size_t len)
{
    static const char *const longer[][2] = {{"Letter", "L"}, {"Mark", "M"},
        {"Number", "N"}, {"Punctuation", "P"}, {"Symbol", "S"},
        {"Separator", "Z"}, {"Uppercase_Letter", "Lu"},
        {"Lowercase_Letter", "Ll"}, {"Decimal_Number", "Nd"}};
    size_t i;
    int rc = 0, any = 0;

    assert(s->n <= s->cap);
    for (i = 0; i < sizeof(longer) / sizeof(longer[0]); i++) {
        if (strlen(longer[i][0]) == len
            && memcmp(longer[i][0], name, len) == 0) {
            name = longer[i][1];
            len = strlen(name);
        }
    }
    if (len == 0 || len > 2) {
        return 1;
    }

    if (unicode_make(u, 1) != 0) {
        return -1;
    }
    for (i = 0; i < CATEGORIES && rc == 0; i++) {
        if (names[i][0] == name[0] && (len == 1 || names[i][1] == name[1])) {
            any = 1;
            rc = grammar_set_join(s, &(*u)->all[i]);
        }
    }

    return rc != 0 ? -1 : !any;
}


/* --- UTF-8 -------------------------------------------------------------- */

/* A character's bytes; how many they are. */
static uint32_t
encode(uint32_t c, uint8_t *out)
{
    assert(c <= GRAMMAR_CODE_MAX);
    if (c < 0x80) {
        out[0] = (uint8_t) c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (uint8_t) (0xc0 | c >> 6);
        out[1] = (uint8_t) (0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (uint8_t) (0xe0 | c >> 12);
        out[1] = (uint8_t) (0x80 | (c >> 6 & 0x3f));
        out[2] = (uint8_t) (0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (uint8_t) (0xf0 | c >> 18);
    out[1] = (uint8_t) (0x80 | (c >> 12 & 0x3f));
    out[2] = (uint8_t) (0x80 | (c >> 6 & 0x3f));
    out[3] = (uint8_t) (0x80 | (c & 0x3f));

    return 4;
}


/* Splits where a tail does not run over all of its bytes. */
static int
range_utf8(uint32_t lo, uint32_t hi, grammar_utf8_put_t put, void *arg)
{
    static const uint32_t last[] = {0x7f, 0x7ff, 0xffff};
    uint8_t a[4], z[4];
    uint32_t i, m, n;
    int rc;

    assert(lo <= hi);
    for (i = 0; i < 3; i++) {
        if (lo <= last[i] && hi > last[i]) {
            rc = range_utf8(lo, last[i], put, arg);
            return rc != 0 ? rc : range_utf8(last[i] + 1, hi, put, arg);
        }
    }

    n = encode(lo, a);
    for (i = 1; i < n; i++) {
        m = (1u << 6 * i) - 1;
        if ((lo & ~m) != (hi & ~m)) {
            if ((lo & m) != 0) {
                rc = range_utf8(lo, lo | m, put, arg);
                return rc != 0 ? rc : range_utf8((lo | m) + 1, hi, put, arg);
            }
            if ((hi & m) != m) {
                rc = range_utf8(lo, (hi & ~m) - 1, put, arg);
                return rc != 0 ? rc : range_utf8(hi & ~m, hi, put, arg);
            }
        }
    }

    i = encode(hi, z);
    assert(i == n);

    return put(arg, a, z, n);
}


int
grammar_set_utf8(const grammar_set_t *s, grammar_utf8_put_t put, void *arg)
{
    uint32_t i;
    int rc = 0;

    assert(s->n <= s->cap);
    for (i = 0; i < s->n && rc == 0; i++) {
        rc = range_utf8(s->r[i].lo, s->r[i].hi, put, arg);
    }

    return rc;
}
