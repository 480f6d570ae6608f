/*
 * Normalizers: what is done to a text before it is cut into words.
 *
 * DESIGN.  A list of steps, each of which reads a whole text and writes a
 * whole one, from one buffer to another and back.
 *
 * For normal forms utf8proc says what a code point decomposes to, which class
 * a mark has and what two code points compose to.  Marks are put in order
 * here: the library does it by exchanging neighbours, and a megabyte of marks
 * would take it hours.  A run is sorted by class with a count of each class,
 * which is linear and keeps equals in their order.  Most text is in every form
 * as it stands, and is copied; only a character that may change, those like it
 * behind it and the one before are looked at.
 *
 * Bytes that are no UTF-8 are legal and stay what they are; each stretch of
 * characters between them is a text of its own to the steps that look at
 * characters.
 *
 * Lower case is one code point for one, as Unicode's simple mapping has it,
 * but for U+0130, the only one that Rust's to_lowercase makes two of.
 *
 * Steps are made at start and read-only after; a call's texts are from malloc
 * and grow to TOKEN_TEXT_MAX at most.  Runs on text_in's threads.
 */
#include "token_impl.h"
#include "llm_err.h"
#include "utf8.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define NORM_STEPS_MAX 32
#define NORM_CLASSES   256

/* A code point decomposes to 18 at most; the library asks for room. */
#define NORM_DECOMPOSED_MAX 32

typedef struct {
    int kind;
    token_regex_t *regex;  /* owned */
    token_charsmap_t *map; /* owned */
    char *with;            /* owned */
    size_t with_len;
} norm_step_t;

struct token_norm_s {
    uint32_t n;
    norm_step_t steps[NORM_STEPS_MAX];
};

/* Code points on their way to a normal form. */
typedef struct {
    utf8proc_int32_t *p; /* owned */
    size_t n, cap;
} norm_points_t;


/* --- texts that grow ---------------------------------------------------- */

int
token_buf_put(token_buf_t *b, const char *s, size_t len)
{
    size_t cap = b->cap < 256 ? 256 : b->cap;
    char *p;

    assert(b->n <= b->cap);

    if (len > TOKEN_TEXT_MAX - b->n) {
        return -LLM_ERR_CONTEXT_FULL;
    }

    if (len > b->cap - b->n) {
        while (cap < b->n + len) {
            cap *= 2;
        }
        p = realloc(b->p, cap);
        if (p == NULL) {
            return -LLM_ERR_NO_MEMORY;
        }
        b->p = p;
        b->cap = cap;
    }

    if (len > 0) {
        memcpy(b->p + b->n, s, len);
    }
    b->n += len;

    return 0;
}


size_t
token_run(const char *s, size_t len, int *valid)
{
    const uint8_t *p = (const uint8_t *) s;
    uint64_t w;
    size_t i;
    int n;

    assert(valid != NULL);

    *valid = utf8_char(p, len) > 0;

    for (i = 0; i < len; i += (size_t) (n > 0 ? n : 1)) {
        for (; *valid && i + 8 <= len; i += 8) {
            memcpy(&w, s + i, 8);
            if ((w & 0x8080808080808080ull) != 0) {
                break;
            }
        }
        if (i == len) {
            break;
        }
        n = p[i] < 0x80 ? 1 : utf8_char(p + i, len - i);
        if ((n > 0) != *valid) {
            break;
        }
    }

    return i;
}


/* --- opening ------------------------------------------------------------ */

int
token_norm_add(token_norm_t **n, int kind, token_regex_t *regex,
    const char *with, size_t with_len, token_charsmap_t *map)
{
    norm_step_t *s;

    if (*n == NULL) {
        *n = calloc(1, sizeof(**n));
    }

    if (*n == NULL || (*n)->n == NORM_STEPS_MAX) {
        token_regex_close(regex);
        token_charsmap_close(map);
        return -1;
    }

    s = &(*n)->steps[(*n)->n++];
    s->kind = kind;
    s->regex = regex;
    s->map = map;
    s->with = malloc(with_len + 1);
    s->with_len = with_len;
    if (s->with == NULL) {
        return -1;
    }
    if (with_len > 0) {
        memcpy(s->with, with, with_len);
    }

    return 0;
}


void
token_norm_close(token_norm_t *n)
{
    uint32_t i;

    if (n == NULL) {
        return;
    }

    for (i = 0; i < n->n; i++) {
        token_regex_close(n->steps[i].regex);
        token_charsmap_close(n->steps[i].map);
        free(n->steps[i].with);
    }
    free(n);
}


/* --- characters --------------------------------------------------------- */

/* The character at s: its length; 1 and *c -1 for a byte that is none. */
static size_t
norm_char(const char *s, size_t len, utf8proc_int32_t *c)
{
    int n = utf8_char((const uint8_t *) s, len);

    *c = -1;
    if (n <= 0) {
        return 1;
    }
    (void) utf8proc_iterate((const utf8proc_uint8_t *) s, n, c);
    assert(*c >= 0);

    return (size_t) n;
}


static int
norm_put(token_buf_t *out, utf8proc_int32_t c)
{
    utf8proc_uint8_t s[4];
    utf8proc_ssize_t n = utf8proc_encode_char(c, s);

    assert(n > 0 && n <= 4);

    return token_buf_put(out, (const char *) s, (size_t) n);
}


int
token_is_space(int32_t c)
{
    return c == ' ' || (c >= 9 && c <= 13) || c == 0x85 || c == 0xa0
           || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028
           || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}


/* By simple mappings, character for character, as Unicode has them. */
static int
norm_lower(const char *s, size_t len, token_buf_t *out)
{
    utf8proc_int32_t c;
    size_t at, n;
    int rc = 0;

    for (at = 0; at < len && rc == 0; at += n) {
        n = norm_char(s + at, len - at, &c);
        if (c < 0) {
            rc = token_buf_put(out, s + at, n);
        } else if (c == 0x130) {
            rc = token_buf_put(out, "i\xcc\x87", 3);
        } else {
            rc = norm_put(out, utf8proc_tolower(c));
        }
    }

    return rc;
}


static int
norm_accents(const char *s, size_t len, token_buf_t *out)
{
    utf8proc_int32_t c;
    size_t at, n;
    int rc = 0;

    for (at = 0; at < len && rc == 0; at += n) {
        n = norm_char(s + at, len - at, &c);
        if (c < 0 || utf8proc_category(c) != UTF8PROC_CATEGORY_MN) {
            rc = token_buf_put(out, s + at, n);
        }
    }

    return rc;
}


static int
norm_strip(const char *s, size_t len, int kind, token_buf_t *out)
{
    utf8proc_int32_t c;
    size_t at, n, from = len, to = 0;

    for (at = 0; at < len; at += n) {
        n = norm_char(s + at, len - at, &c);
        if (!token_is_space(c)) {
            from = from == len ? at : from;
            to = at + n;
        }
    }

    from = kind == TOKEN_NORM_STRIP_LEFT ? from : 0;
    to = kind == TOKEN_NORM_STRIP_LEFT ? len : to;

    return token_buf_put(out, s + from, to - from);
}


/* --- normal forms ------------------------------------------------------- */

static int
points_room(norm_points_t *p, size_t more)
{
    size_t cap = p->cap < 1024 ? 1024 : p->cap;
    utf8proc_int32_t *q;

    if (p->n + more <= p->cap) {
        return 0;
    }

    while (cap < p->n + more) {
        cap *= 2;
    }
    q = realloc(p->p, cap * sizeof(*q));
    if (q == NULL) {
        return -LLM_ERR_NO_MEMORY;
    }
    p->p = q;
    p->cap = cap;

    return 0;
}


static int
points_class(utf8proc_int32_t c)
{
    return utf8proc_get_property(c)->combining_class;
}


/* Sorts n marks by class; equals stay in order. */
static int
points_sort(utf8proc_int32_t *p, size_t n)
{
    size_t at[NORM_CLASSES] = {0}, i, sum = 0, was;
    utf8proc_int32_t *to;
    int class, sorted = 1;

    for (i = 1; i < n && sorted; i++) {
        sorted = points_class(p[i - 1]) <= points_class(p[i]);
    }
    if (sorted) {
        return 0;
    }

    to = malloc(n * sizeof(*to));
    if (to == NULL) {
        return -LLM_ERR_NO_MEMORY;
    }

    for (i = 0; i < n; i++) {
        at[points_class(p[i])]++;
    }
    for (class = 0; class < NORM_CLASSES; class ++) {
        was = at[class];
        at[class] = sum;
        sum += was;
    }
    assert(sum == n && at[0] == 0);
    for (i = 0; i < n; i++) {
        to[at[points_class(p[i])]++] = p[i];
    }

    memcpy(p, to, n * sizeof(*to));
    free(to);

    return 0;
}


/* Puts every run of marks in order. */
static int
points_order(norm_points_t *p)
{
    size_t i, from;
    int rc = 0;

    for (i = 0; i < p->n && rc == 0; i++) {
        for (from = i; i < p->n && points_class(p->p[i]) != 0; i++) {
        }
        if (i > from + 1) {
            rc = points_sort(p->p + from, i - from);
        }
    }

    return rc;
}


/* A stretch of characters in a normal form. */
static int
norm_form(
    const char *s, size_t len, int kind, norm_points_t *p, token_buf_t *out)
{
    int compat = kind == TOKEN_NORM_NFKC || kind == TOKEN_NORM_NFKD;
    int compose = kind == TOKEN_NORM_NFC || kind == TOKEN_NORM_NFKC;
    utf8proc_option_t how =
        UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (compat ? UTF8PROC_COMPAT : 0);
    utf8proc_int32_t c;
    utf8proc_ssize_t got;
    int boundary = 0, rc;
    size_t at, n, i;

    p->n = 0;
    for (at = 0; at < len; at += n) {
        n = norm_char(s + at, len - at, &c);
        assert(c >= 0);
        rc = points_room(p, NORM_DECOMPOSED_MAX);
        if (rc != 0) {
            return rc;
        }
        got = utf8proc_decompose_char(
            c, p->p + p->n, NORM_DECOMPOSED_MAX, how, &boundary);
        assert(got >= 0 && got <= NORM_DECOMPOSED_MAX);
        p->n += (size_t) got;
    }

    rc = points_order(p);
    if (rc != 0) {
        return rc;
    }

    if (compose) {
        got = utf8proc_normalize_utf32(
            p->p, (utf8proc_ssize_t) p->n, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        assert(got >= 0 && (size_t) got <= p->n);
        p->n = (size_t) got;
    }

    for (i = 0; i < p->n && rc == 0; i++) {
        rc = norm_put(out, p->p[i]);
    }

    return rc;
}


/*
 * Is c in every normal form what it is, whatever stands beside it?  Those of
 * ASCII can take a mark behind them, but are none themselves.
 */
static int
norm_inert(utf8proc_int32_t c)
{
    const utf8proc_property_t *p;

    if (c < 0x80) {
        return 1;
    }
    if ((c >= 0x1100 && c < 0x1200) || (c >= 0xac00 && c < 0xd800)) {
        return 0; /* Hangul, which is computed and in no table */
    }
    p = utf8proc_get_property(c);

    return p->combining_class == 0 && p->decomp_seqindex == UINT16_MAX
           && p->comb_index == UINT16_MAX;
}


/*
 * Copies what stays as it is; *at comes to stand at the first character that
 * may change, or before what may join it.
 */
static int
norm_copy(const char *s, size_t len, size_t *at, token_buf_t *out)
{
    size_t from = *at, i = from, last = from, n;
    utf8proc_int32_t c;
    uint64_t w;

    while (i < len) {
        if (i + 8 <= len) {
            memcpy(&w, s + i, 8);
            if ((w & 0x8080808080808080ull) == 0) {
                i += 8;
                last = i - 1;
                continue;
            }
        }
        n = norm_char(s + i, len - i, &c);
        if (c >= 0 && !norm_inert(c)) {
            break;
        }
        last = c < 0 ? i + n : i;
        i += n;
    }
    *at = i == len ? len : last;

    return token_buf_put(out, s + from, *at - from);
}


/* NFC, NFD, NFKC, NFKD, by utf8proc. */
static int
norm_forms(const char *s, size_t len, int kind, token_buf_t *out)
{
    norm_points_t p = {NULL, 0, 0};
    utf8proc_int32_t c;
    size_t at = 0, n, from;
    int rc = 0;

    while (at < len && rc == 0) {
        rc = norm_copy(s, len, &at, out);
        if (rc != 0 || at == len) {
            break;
        }
        /* the character before it, and all that may change */
        from = at;
        at += norm_char(s + at, len - at, &c);
        for (; at < len; at += n) {
            n = norm_char(s + at, len - at, &c);
            if (c < 0 || norm_inert(c)) {
                break;
            }
        }
        rc = norm_form(s + from, at - from, kind, &p, out);
    }
    free(p.p);

    return rc;
}


/* --- replacing ---------------------------------------------------------- */

/* A stretch of valid UTF-8. */
static int
norm_replace_valid(const norm_step_t *step, token_match_t *m, const char *s,
    size_t len, token_buf_t *out)
{
    size_t at = 0, look = 0, from, to;
    int rc = 0, found;

    while (rc == 0 && look <= len && len > 0) {
        found = token_match(m, step->regex, s, len, look, &from, &to);
        if (found < 0) {
            return found;
        }
        if (!found) {
            break;
        }
        rc = token_buf_put(out, s + at, from - at);
        rc = rc == 0 ? token_buf_put(out, step->with, step->with_len) : rc;
        at = look = to;
        if (to == from) {
            for (look++; look < len && ((uint8_t) s[look] & 0xc0) == 0x80;
                 look++) {
            }
        }
    }

    return rc == 0 ? token_buf_put(out, s + at, len - at) : rc;
}


static int
norm_replace(
    const norm_step_t *step, const char *s, size_t len, token_buf_t *out)
{
    token_match_t *m = token_match_open(len);
    size_t at, n;
    int rc = 0, valid;

    if (m == NULL) {
        return -LLM_ERR_NO_MEMORY;
    }

    for (at = 0; at < len && rc == 0; at += n) {
        n = token_run(s + at, len - at, &valid);
        rc = valid ? norm_replace_valid(step, m, s + at, n, out)
                   : token_buf_put(out, s + at, n);
    }
    token_match_close(m);

    return rc;
}


/* --- all steps ---------------------------------------------------------- */

static int
norm_step(const norm_step_t *step, const char *s, size_t len, token_buf_t *out)
{
    int rc;

    switch (step->kind) {
    case TOKEN_NORM_LOWER:
        return norm_lower(s, len, out);
    case TOKEN_NORM_ACCENTS:
        return norm_accents(s, len, out);
    case TOKEN_NORM_STRIP_LEFT:
    case TOKEN_NORM_STRIP_RIGHT:
        return norm_strip(s, len, step->kind, out);
    case TOKEN_NORM_PREPEND:
        rc = len > 0 ? token_buf_put(out, step->with, step->with_len) : 0;
        return rc == 0 ? token_buf_put(out, s, len) : rc;
    case TOKEN_NORM_REPLACE:
        return norm_replace(step, s, len, out);
    case TOKEN_NORM_CHARSMAP:
        return token_charsmap_run(step->map, 1, s, len, out);
    default:
        assert(step->kind <= TOKEN_NORM_NFKD);
        return norm_forms(s, len, step->kind, out);
    }
}


int
token_norm_run(
    const token_norm_t *n, const char *text, size_t len, token_buf_t *out)
{
    token_buf_t b[2] = {{NULL, 0, 0}, {NULL, 0, 0}};
    token_buf_t *to;
    uint32_t i;
    int rc = 0;

    if (n == NULL || n->n == 0) {
        return token_buf_put(out, text, len);
    }

    for (i = 0; i < n->n && rc == 0; i++) {
        to = i + 1 == n->n ? out : &b[i % 2];
        if (to != out) {
            to->n = 0;
        }
        rc = norm_step(&n->steps[i], text, len, to);
        text = to->p != NULL ? to->p : "";
        len = to->n;
    }

    free(b[0].p);
    free(b[1].p);

    return rc;
}
