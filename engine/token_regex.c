/*
 * Patterns: compiled once, matched from any thread.
 *
 * DESIGN.  PCRE2 with UTF and UCP, compiled to machine code where that may
 * run.  tokenizer.json's patterns are written for Oniguruma, and the two differ
 * in a few places; such a pattern is translated on opening:
 *
 *      \s \S       the Unicode property (PCRE2's \s also takes U+180E)
 *      \w          letters, marks, decimal digits, connecting punctuation
 *      \h          a hexadecimal digit
 *      [a[bc]]     a set within a set is part of it
 *      ^ and $     at every line
 *
 * What cannot be said in PCRE2 (set intersections, a set's complement within a
 * set) is refused; so is (?m), which means another thing there.
 *
 * A literal is looked for as bytes: valid UTF-8 begins a character nowhere but
 * at one.
 *
 * Machine code runs on a part of the thread's stack; a text that needs more is
 * matched again by the interpreter, which takes bounded memory from the heap.
 * The match limit, in proportion to the text, ends a pattern that is not
 * linear.
 *
 * Compiled patterns are read-only; token_match_t is one call's own.
 */
#include "token_impl.h"
#include "llm_err.h"
#include "utf8.h"

#define PCRE2_CODE_UNIT_WIDTH 8

#include <assert.h>
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Steps of the matcher for each byte of text; the worst runs known take one. */
#define REGEX_STEPS_BYTE 16
#define REGEX_STEPS_MIN  10000

/* What a match may take from the heap: only the interpreter takes any. */
#define REGEX_HEAP_KIB_MAX (64 * 1024)

/* Real patterns are shorter than 600 bytes; PCRE2's compiler recurses. */
#define REGEX_LEN_MAX 8192

/* A literal of so few bytes is compared wherever its first one stands. */
#define LITERAL_SHORT 8

#define SET_W "\\p{L}\\p{M}\\p{Nd}\\p{Pc}"

struct token_regex_s {
    pcre2_code *code; /* NULL: a literal */
    int jit;
    size_t literal_len;
    char *literal; /* owned */
};

struct token_match_s {
    pcre2_match_data *data;
    pcre2_match_context *limits;
};


/* --- translation -------------------------------------------------------- */

typedef struct {
    const char *s;
    size_t len, at;
    int depth; /* of sets */
    token_buf_t out;
    const char *why;
} onig_t;


static int
onig_put(onig_t *o, const char *s, size_t len)
{
    if (token_buf_put(&o->out, s, len) != 0) {
        o->why = "there is no memory for it";
        return -1;
    }

    return 0;
}


/* A backslash and what belongs to it. */
static int
onig_escape(onig_t *o)
{
    static const struct {
        char c;
        const char *in, *out; /* in a set, outside */
    } rows[] = {{'s', "\\p{WSpace}", "\\p{WSpace}"},
        {'S', "\\P{WSpace}", "\\P{WSpace}"}, {'w', SET_W, "[" SET_W "]"},
        {'W', NULL, "[^" SET_W "]"}, {'h', "0-9a-fA-F", "[0-9a-fA-F]"},
        {'H', NULL, "[^0-9a-fA-F]"}, {'K', NULL, NULL}, {'Q', NULL, NULL},
        {'E', NULL, NULL}};
    const char *to;
    size_t i;

    assert(o->at < o->len);

    if (o->at + 1 == o->len) {
        o->why = "it ends with a backslash";
        return -1;
    }

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (rows[i].c != o->s[o->at + 1]) {
            continue;
        }
        to = o->depth > 0 ? rows[i].in : rows[i].out;
        if (to == NULL) {
            o->why = "an escape in it is not supported";
            return -1;
        }
        o->at += 2;
        return onig_put(o, to, strlen(to));
    }

    o->at += 2;

    return onig_put(o, o->s + o->at - 2, 2);
}


/* One element inside [ ]. */
static int
onig_set(onig_t *o)
{
    const char *s = o->s + o->at, *end;
    size_t left = o->len - o->at;

    assert(o->depth > 0 && o->at < o->len);

    if (left >= 2 && memcmp(s, "&&", 2) == 0) {
        o->why = "an intersection of sets is not supported";
        return -1;
    }

    if (left >= 2 && memcmp(s, "[:", 2) == 0) {
        end = memchr(s + 2, ']', left - 2);
        if (end != NULL && end[-1] == ':') {
            o->at += (size_t) (end - s) + 1;
            return onig_put(o, s, (size_t) (end - s) + 1);
        }
    }

    if (s[0] == '[') {
        if (left >= 2 && s[1] == '^') {
            o->why = "a complement within a set is not supported";
            return -1;
        }
        o->depth++;
        o->at++;
        return 0;
    }

    if (s[0] == ']') {
        o->depth--;
        o->at++;
        return o->depth == 0 ? onig_put(o, "]", 1) : 0;
    }

    o->at++;

    return onig_put(o, s, 1);
}


/* The beginning of a set; a ] that comes first is a member of it. */
static int
onig_open(onig_t *o)
{
    size_t n = 1;

    assert(o->depth == 0);

    if (o->at + n < o->len && o->s[o->at + n] == '^') {
        n++;
    }
    if (onig_put(o, o->s + o->at, n) != 0) {
        return -1;
    }
    o->depth = 1;
    o->at += n;

    if (o->at < o->len && o->s[o->at] == ']') {
        o->at++;
        return onig_put(o, "\\]", 2);
    }

    return 0;
}


/* Oniguruma's spellings to PCRE2's, where they differ. */
static int
onig_translate(onig_t *o)
{
    size_t i;
    int rc = 0;

    while (o->at < o->len && rc == 0) {
        if (o->s[o->at] == '\\') {
            rc = onig_escape(o);
        } else if (o->depth > 0) {
            rc = onig_set(o);
        } else if (o->s[o->at] == '[') {
            rc = onig_open(o);
        } else {
            /* (?m: and (?im) mean that a dot takes line feeds */
            for (i = o->at + 2; o->s[o->at] == '(' && i < o->len; i++) {
                if (o->s[o->at + 1] != '?' || strchr("imx-", o->s[i]) == NULL) {
                    break;
                }
                if (o->s[i] == 'm') {
                    o->why = "the option m is not supported";
                    return -1;
                }
            }
            rc = onig_put(o, o->s + o->at++, 1);
        }
    }

    return rc;
}


/* --- compiling ---------------------------------------------------------- */

static pcre2_code *
regex_compile(
    const char *s, size_t len, uint32_t options, char *why, size_t whylen)
{
    pcre2_code *code;
    PCRE2_UCHAR text[128];
    PCRE2_SIZE at;
    int rc;

    code = pcre2_compile((PCRE2_SPTR) s, len, options, &rc, &at, NULL);
    if (code == NULL) {
        (void) pcre2_get_error_message(rc, text, sizeof(text));
        (void) snprintf(why, whylen, "%s", (const char *) text);
    }

    return code;
}


/* As PCRE2 or Oniguruma has it. 0, or -1 with why. */
static int
regex_pattern(token_regex_t *r, const char *pattern, size_t len, int kind,
    char *why, size_t whylen)
{
    onig_t o = {.s = pattern, .len = len};
    uint32_t options = PCRE2_UTF | PCRE2_UCP;

    if (kind == TOKEN_REGEX_PCRE) {
        r->code = regex_compile(pattern, len, options, why, whylen);
    } else if (onig_translate(&o) != 0) {
        (void) snprintf(why, whylen, "%s", o.why);
    } else {
        r->code = regex_compile(
            o.out.p, o.out.n, options | PCRE2_MULTILINE, why, whylen);
    }
    free(o.out.p);

    if (r->code == NULL) {
        return -1;
    }

    /* without it, as where memory cannot be made executable, matching is
     * slower and no different */
    r->jit = pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE) == 0;

    return 0;
}


static int
regex_literal(
    token_regex_t *r, const char *s, size_t len, char *why, size_t whylen)
{
    size_t i;
    int n;

    for (i = 0; i < len; i += (size_t) n) {
        n = utf8_char((const uint8_t *) s + i, len - i);
        if (n <= 0) {
            (void) snprintf(why, whylen, "it is not UTF-8");
            return -1;
        }
    }

    r->literal = malloc(len);
    if (r->literal == NULL) {
        (void) snprintf(why, whylen, "there is no memory for it");
        return -1;
    }
    memcpy(r->literal, s, len);
    r->literal_len = len;

    return 0;
}


token_regex_t *
token_regex_open(
    const char *pattern, size_t len, int kind, char *why, size_t whylen)
{
    token_regex_t *r;
    int rc;

    assert(pattern != NULL && why != NULL && whylen > 0);

    if (len == 0 || len > REGEX_LEN_MAX) {
        (void) snprintf(why, whylen, "it has %zu bytes, expected 1 to %d", len,
            REGEX_LEN_MAX);
        return NULL;
    }

    r = calloc(1, sizeof(*r));
    if (r == NULL) {
        (void) snprintf(why, whylen, "there is no memory for it");
        return NULL;
    }

    rc = kind == TOKEN_REGEX_LITERAL
             ? regex_literal(r, pattern, len, why, whylen)
             : regex_pattern(r, pattern, len, kind, why, whylen);
    if (rc != 0) {
        token_regex_close(r);
        return NULL;
    }

    return r;
}


void
token_regex_close(token_regex_t *r)
{
    if (r != NULL) {
        pcre2_code_free(r->code);
        free(r->literal);
        free(r);
    }
}


/* --- matching ----------------------------------------------------------- */

/* The first literal in s.  memmem is linear, but slow to begin with. */
static const char *
literal_find(const token_regex_t *r, const char *s, size_t len)
{
    const char *end = s + len;

    assert(r->literal_len > 0);

    if (r->literal_len > LITERAL_SHORT) {
        return memmem(s, len, r->literal, r->literal_len);
    }

    while ((size_t) (end - s) >= r->literal_len) {
        s = memchr(s, r->literal[0], (size_t) (end - s) - r->literal_len + 1);
        if (s == NULL || memcmp(s, r->literal, r->literal_len) == 0) {
            return s;
        }
        s++;
    }

    return NULL;
}


token_match_t *
token_match_open(size_t len)
{
    token_match_t *m = calloc(1, sizeof(*m));
    uint32_t steps = UINT32_MAX;

    if (m == NULL) {
        return NULL;
    }

    m->data = pcre2_match_data_create(1, NULL);
    m->limits = pcre2_match_context_create(NULL);
    if (m->data == NULL || m->limits == NULL) {
        token_match_close(m);
        return NULL;
    }

    if (len < (UINT32_MAX - REGEX_STEPS_MIN) / REGEX_STEPS_BYTE) {
        steps = REGEX_STEPS_MIN + REGEX_STEPS_BYTE * (uint32_t) len;
    }
    (void) pcre2_set_match_limit(m->limits, steps);
    (void) pcre2_set_heap_limit(m->limits, REGEX_HEAP_KIB_MAX);

    return m;
}


void
token_match_close(token_match_t *m)
{
    if (m != NULL) {
        pcre2_match_context_free(m->limits);
        pcre2_match_data_free(m->data);
        free(m);
    }
}


int
token_match(token_match_t *m, const token_regex_t *r, const char *s, size_t len,
    size_t at, size_t *from, size_t *to)
{
    const PCRE2_SIZE *found = pcre2_get_ovector_pointer(m->data);
    PCRE2_SPTR text = (PCRE2_SPTR) s;
    const char *p;
    int rc = PCRE2_ERROR_JIT_STACKLIMIT;

    assert(at <= len && (r->code != NULL) == (r->literal == NULL));

    /* characters of valid UTF-8 begin nowhere else */
    if (r->literal != NULL) {
        p = literal_find(r, s + at, len - at);
        *from = p != NULL ? (size_t) (p - s) : len;
        *to = *from + r->literal_len;
        return p != NULL;
    }

    if (r->jit) {
        rc = pcre2_jit_match(
            r->code, text, len, at, PCRE2_NO_UTF_CHECK, m->data, m->limits);
    }
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
        rc = pcre2_match(r->code, text, len, at,
            PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, m->data, m->limits);
    }

    if (rc == PCRE2_ERROR_NOMATCH) {
        return 0;
    }
    if (rc < 0) {
        return rc == PCRE2_ERROR_NOMEMORY ? -LLM_ERR_NO_MEMORY
                                          : -LLM_ERR_BAD_TEXT;
    }

    /* a look-behind may let a match begin earlier, \K later; neither is
     * allowed for here */
    if (found[0] < at || found[1] < found[0]) {
        return -LLM_ERR_BAD_TEXT;
    }
    *from = found[0];
    *to = found[1];
    assert(*to <= len);

    return 1;
}
