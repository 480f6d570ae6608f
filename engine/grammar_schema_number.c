/*
 * Numbers within bounds, as automata over their digits.
 *
 * DESIGN.  A bound that is not negative is compared digit by digit: longer
 * than it, or alike up to a digit that is larger; then the fraction.  What is
 * below zero is the same with bounds and sign turned around, and a value that
 * obeys two bounds is the intersection of two automata.  Numbers with bounds
 * have no exponent: "1e3" would need arithmetic, and models do not write it.
 *
 *      at least 250:  [1-9][0-9]{3,}  |  [3-9][0-9]{2}  |  2[6-9][0-9]
 *                     |  25[1-9]  |  250, and any fraction behind each
 *
 * Multiples of a whole number are read with the remainder as the state.
 *
 * Invariants: digits of a bound have no zeros in front of them but a lone one,
 * and none behind those of the fraction; text is bounded by DIGITS_MAX squared.
 */
#include "grammar_schema.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIGITS_MAX   40
#define MULTIPLE_MAX 4096

/* A bound that is not negative: digits before and behind the point, the latter
 * without zeros at the end. */
typedef struct {
    char whole[DIGITS_MAX + 1], part[DIGITS_MAX + 1];
    int exclusive;
} bound_t;

typedef struct {
    char *s; /* a regular expression */
    size_t n, cap;
} text_t;


/* Appends; a bound's digits limit all that is put, so that there is room. */
static void put(text_t *t, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static void
put(text_t *t, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(t->s + t->n, t->cap - t->n, fmt, ap);
    va_end(ap);
    assert(n >= 0 && (size_t) n < t->cap - t->n);
    t->n += (size_t) n;
}


/* --- bounds ------------------------------------------------------------- */

/* The digits of |v|; 0: they are too many. */
static int
bound_of(const json_t *v, int exclusive, bound_t *b)
{
    char buf[512], *point;
    double d = fabs(json_number_value(v));
    long long i;
    size_t n;
    int digits;

    memset(b, 0, sizeof(*b));
    b->exclusive = exclusive;
    if (json_is_integer(v)) {
        i = json_integer_value(v);
        (void) snprintf(buf, sizeof(buf), "%llu",
            i < 0 ? 0ull - (unsigned long long) i : (unsigned long long) i);
    } else {
        for (digits = 0; digits < DIGITS_MAX; digits++) {
            (void) snprintf(buf, sizeof(buf), "%.*f", digits, d);
            if (strtod(buf, NULL) == d) {
                break;
            }
        }
        if (strtod(buf, NULL) != d) {
            return 0;
        }
    }

    point = strchr(buf, '.');
    if (point != NULL) {
        *point++ = '\0';
        n = strlen(point);
        while (n > 0 && point[n - 1] == '0') {
            point[--n] = '\0';
        }
        if (n > DIGITS_MAX) {
            return 0;
        }
        strcpy(b->part, point);
    }
    if (strlen(buf) > DIGITS_MAX) {
        return 0;
    }
    strcpy(b->whole, buf);

    return 1;
}


/* --- one bound, of what is not negative --------------------------------- */

#define FRACTION "(?:\\.[0-9]+)?"

/* Numbers at least b, or above it: with more digits; or larger at the first
 * digit that differs, before the point or behind it; or b itself. */
static void
at_least(text_t *t, const bound_t *b)
{
    size_t n = strlen(b->whole), m = strlen(b->part), i;

    assert(b->whole[0] != 0 && t->n < t->cap);
    put(t, "[1-9][0-9]{%zu,}" FRACTION, n);
    for (i = 0; i < n; i++) {
        if (b->whole[i] < '9') {
            put(t, "|%.*s[%c-9][0-9]{%zu}" FRACTION, (int) i, b->whole,
                b->whole[i] + 1, n - i - 1);
        }
    }
    for (i = 0; i < m; i++) {
        if (b->part[i] < '9') {
            put(t, "|%s\\.%.*s[%c-9][0-9]*", b->whole, (int) i, b->part,
                b->part[i] + 1);
        }
    }
    if (b->exclusive) {
        put(t, "|%s\\.%s[0-9]*[1-9][0-9]*", b->whole, b->part);
    } else if (m > 0) {
        put(t, "|%s\\.%s[0-9]*", b->whole, b->part);
    } else {
        put(t, "|%s" FRACTION, b->whole);
    }
}


/* Numbers at most b, or below it, likewise.  The first of several digits is not
 * a zero; a fraction that is cut short is smaller. */
static void
at_most(text_t *t, const bound_t *b)
{
    size_t n = strlen(b->whole), m = strlen(b->part), i;
    char lo;

    assert(b->whole[0] != 0 && t->n < t->cap);
    put(t, "[]"); /* nothing yet */
    if (n > 1) {
        put(t, "|(?:0|[1-9][0-9]{0,%zu})" FRACTION, n - 2);
    }
    for (i = 0; i < n; i++) {
        lo = i == 0 && n > 1 ? '1' : '0';
        if (b->whole[i] > lo) {
            put(t, "|%.*s[%c-%c][0-9]{%zu}" FRACTION, (int) i, b->whole, lo,
                b->whole[i] - 1, n - i - 1);
        }
    }
    if (m > 0) {
        put(t, "|%s", b->whole);
    }
    for (i = 0; i < m; i++) {
        if (i > 0) {
            put(t, "|%s\\.%.*s", b->whole, (int) i, b->part);
        }
        if (b->part[i] > '0') {
            put(t, "|%s\\.%.*s[0-%c][0-9]*", b->whole, (int) i, b->part,
                b->part[i] - 1);
        }
    }
    if (!b->exclusive) {
        put(t, m > 0 ? "|%s\\.%s0*" : "|%s(?:\\.%s0+)?", b->whole, b->part);
    }
}


/* The automaton of what was put together here; NULL: failed. */
static grammar_dfa_t *
regex(schema_t *c, const char *s)
{
    return grammar_regex(c->b, s, strlen(s), REGEX_ECMA, "a number");
}


/* --- both signs --------------------------------------------------------- */

/* A limit as the schema has it, any sign. */
typedef struct {
    const json_t *v; /* NULL: none */
    int exclusive;
} limit_t;


/* Numbers on one side of zero, sign and all, within limits; NULL: none. */
static grammar_dfa_t *
side(schema_t *c, int negative, limit_t lo, limit_t hi)
{
    char buf[16384];
    text_t t = {buf, 0, sizeof(buf)};
    grammar_dfa_t *d, *e;
    bound_t b;
    limit_t x;

    if (negative) {
        x = lo;
        lo = hi;
        hi = x;
    }
    /* a lower limit beyond zero on this side asks for nothing */
    if (lo.v != NULL
        && (negative ? json_number_value(lo.v) > 0
                     : json_number_value(lo.v) < 0)) {
        lo.v = NULL;
    }
    if (hi.v != NULL
        && (negative ? json_number_value(hi.v) > 0
                     : json_number_value(hi.v) < 0)) {
        return NULL;
    }

    put(&t, negative ? "-(?:" : "(?:");
    if (lo.v == NULL) {
        put(&t, "(?:0|[1-9][0-9]*)" FRACTION);
    } else if (bound_of(lo.v, lo.exclusive, &b)) {
        at_least(&t, &b);
    } else {
        grammar_fail(c->b, "a bound of a number has too many digits");
    }
    put(&t, ")");
    d = regex(c, buf);

    if (hi.v != NULL && d != NULL) {
        t.n = 0;
        put(&t, negative ? "-(?:" : "(?:");
        if (!bound_of(hi.v, hi.exclusive, &b)) {
            grammar_fail(c->b, "a bound of a number has too many digits");
            return NULL;
        }
        at_most(&t, &b);
        put(&t, ")");
        e = regex(c, buf);
        d = e == NULL ? NULL : grammar_dfa_and(c->b, d, e, 0);
    }

    return d;
}


/* --- multiples ---------------------------------------------------------- */

/* Whole numbers that k divides, with the remainder as the state: state 2 + r
 * behind digits that leave r, 1 the beginning, and two behind a sign. */
static grammar_dfa_t *
multiples(schema_t *c, uint32_t k)
{
    grammar_dfa_t *d = grammar_get(c->b, sizeof(*d));
    uint32_t s, i, first;

    assert(k >= 1 && k <= MULTIPLE_MAX);
    if (d == NULL) {
        return NULL;
    }
    d->states = k + 6;
    d->classes = 14;
    memset(d->map, 0, sizeof(d->map));
    for (i = 0; i < 10; i++) {
        d->map['0' + i] = (uint8_t) (1 + i);
    }
    d->map['-'] = 11;
    d->map['.'] = 12;
    d->next =
        grammar_get(c->b, (size_t) d->states * d->classes * sizeof(*d->next));
    d->accept = grammar_get(c->b, d->states * sizeof(*d->accept));
    if (c->b->failed) {
        return NULL;
    }

    /* k + 2: a sign; k + 3: zero alone; k + 4, k + 5: ".0" */
    for (s = 0; s < k; s++) {
        for (i = 0; i < 10; i++) {
            d->next[(2 + s) * d->classes + 1 + i] = 2 + (s * 10 + i) % k;
        }
        if (s == 0) {
            d->next[(2 + s) * d->classes + 12] = k + 4;
            d->accept[2 + s] = 1;
        }
    }
    for (first = 1; first <= k + 2; first += k + 1) {
        d->next[first * d->classes + 1] = k + 3;
        for (i = 1; i < 10; i++) {
            d->next[first * d->classes + 1 + i] = 2 + i % k;
        }
    }
    d->next[d->classes + 11] = k + 2;
    d->next[(k + 3) * d->classes + 12] = k + 4;
    d->next[(k + 4) * d->classes + 1] = k + 5;
    d->next[(k + 5) * d->classes + 1] = k + 5;
    d->accept[k + 3] = d->accept[k + 5] = 1;

    return d;
}


/* Multiples of whole numbers up to MULTIPLE_MAX, by remainder; of 0.1, 0.01 and
 * so on, by digits behind the point.  Others are refused. */
static grammar_dfa_t *
with_multiple(schema_t *c, grammar_dfa_t *d, const schema_atom_t *a)
{
    double of = json_number_value(a->value);
    char buf[64];
    int k = 0;

    assert(a->kind == A_MULTIPLE);
    if (of == floor(of) && of >= 1 && of <= MULTIPLE_MAX) {
        return grammar_dfa_and(
            c->b, d, multiples(c, (uint32_t) of), a->negated);
    }
    /* so many digits behind the point */
    while (k < 12 && of < 0.999 && !a->negated) {
        of *= 10;
        k++;
        if (fabs(of - 1) < 1e-9) {
            (void) snprintf(buf, sizeof(buf),
                "-?(?:0|[1-9][0-9]*)(?:\\.[0-9]{1,%d}0*)?", k);
            return grammar_dfa_and(c->b, d, regex(c, buf), 0);
        }
    }
    grammar_fail(
        c->b, "multipleOf %g cannot be enforced", json_number_value(a->value));

    return NULL;
}


/* Without the numbers that "not" names, however many zeros they end with. */
static grammar_dfa_t *
without(schema_t *c, grammar_dfa_t *d, const json_t *list)
{
    char digits[64], buf[256], *point;
    size_t i;
    json_t *v;

    json_array_foreach((json_t *) list, i, v)
    {
        if (!json_is_number(v) || d == NULL) {
            continue;
        }
        grammar_schema_digits(v, digits, sizeof(digits));
        if (strpbrk(digits, "eE") != NULL) {
            grammar_fail(c->b, "a number within \"not\" has too many digits");
            return NULL;
        }
        point = strchr(digits, '.');
        if (point != NULL) {
            *point++ = '\0';
            (void) snprintf(buf, sizeof(buf), "%s\\.%s0*", digits, point);
        } else {
            (void) snprintf(buf, sizeof(buf), "%s%s(?:\\.0+)?",
                strcmp(digits, "0") == 0 ? "-?" : "", digits);
        }
        d = grammar_dfa_and(c->b, d, regex(c, buf), 1);
    }

    return d;
}


/* --- the whole ---------------------------------------------------------- */

/* Takes a limit if it is narrower: larger if sign is 1, smaller if -1. */
static void
tighten(limit_t *l, const json_t *v, int exclusive, int sign)
{
    double x = json_number_value(v), y = json_number_value(l->v);

    assert(sign == 1 || sign == -1);
    if (l->v == NULL || sign * (x - y) > 0
        || (x == y && exclusive && !l->exclusive)) {
        l->v = v;
        l->exclusive = exclusive;
    }
}


/* Both sides of zero, each narrowed by all that is asked for. */
static uint32_t
bounded(schema_t *c, limit_t lo, limit_t hi, const schema_flat_t *f)
{
    const schema_atom_t *a;
    grammar_dfa_t *d[2], *whole;
    uint32_t kids[2], i;

    for (i = 0; i < 2; i++) {
        kids[i] = 0;
        d[i] = side(c, (int) i, lo, hi);
        if (d[i] != NULL && (f->types & T_NUMBER) != T_NUMBER) {
            whole = regex(c, "-?[0-9]+(?:\\.0+)?");
            d[i] = grammar_dfa_and(c->b, d[i], whole, (f->types & T_INT) == 0);
        }
        for (a = f->atoms; a != NULL && d[i] != NULL; a = a->next) {
            if (a->kind == A_MULTIPLE) {
                d[i] = with_multiple(c, d[i], a);
            } else if (a->kind == A_ENUM) {
                assert(a->negated);
                d[i] = without(c, d[i], a->value);
            }
        }
        if (d[i] != NULL) {
            kids[i] = grammar_dfa_node(c->b, d[i]);
        }
    }

    return grammar_alt2(c->b, kids[0], kids[1]);
}


uint32_t
grammar_schema_number(schema_t *c, const schema_flat_t *f)
{
    limit_t lo = {NULL, 0}, hi = {NULL, 0};
    const schema_atom_t *a;
    int plain = 1;

    assert((f->types & T_NUMBER) != 0);
    for (a = f->atoms; a != NULL; a = a->next) {
        plain = plain && a->kind != A_MULTIPLE && a->kind != A_ENUM;
        if (a->kind == A_MIN || a->kind == A_XMIN) {
            tighten(&lo, a->value, a->kind == A_XMIN, 1);
        } else if (a->kind == A_MAX || a->kind == A_XMAX) {
            tighten(&hi, a->value, a->kind == A_XMAX, -1);
        }
    }

    if (plain && lo.v == NULL && hi.v == NULL && (f->types & T_INT)) {
        return grammar_ref_node(
            c->b, grammar_json_number(c->b, !(f->types & T_FRAC)));
    }

    return bounded(c, lo, hi, f);
}
