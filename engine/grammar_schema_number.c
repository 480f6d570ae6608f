/*
 * Numbers within bounds, as automata over their digits.
 *
 * DESIGN.  A bound that is not negative is compared digit by digit: longer
 * than it, or alike up to a digit that is larger; then the fraction.  What is
 * below zero is the same with bounds and sign turned around, and a value that
 * obeys two bounds is the intersection of two automata.
 *
 *      at least 250:  [1-9][0-9]{3,}  |  [3-9][0-9]{2}  |  2[6-9][0-9]
 *                     |  25[1-9]  |  250, and any fraction behind each
 *                     |  any mantissa, exponent above 2
 *                     |  mantissa at least 2.5, exponent 2
 *
 * With an exponent, of two digits at most, there is one digit before the point,
 * which is no zero: so programs print large numbers and small ones, and so the
 * exponent alone tells sizes apart.  Whole numbers have none.
 *
 * Multiples are read with the remainder as the state, and how many digits came
 * behind the point; what is left of a divisor without its zeros must be small.
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
#define PLACES_MAX   9     /* of a divisor, behind the point */
#define MULTIPLE_MAX 60000 /* states that multiples may need */
#define EXPONENT_MAX 99

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

/* At least b, or above it, with as many digits before the point: larger at the
 * first digit that differs, before the point or behind it; or b itself. */
static void
not_below(text_t *t, const bound_t *b)
{
    size_t n = strlen(b->whole), m = strlen(b->part), i;

    assert(b->whole[0] != 0 && t->n < t->cap);
    put(t, "[]"); /* nothing yet */
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


/* At most b, or below it, likewise.  The first of several digits is not a zero;
 * a fraction that is cut short is smaller. */
static void
not_above(text_t *t, const bound_t *b)
{
    size_t n = strlen(b->whole), m = strlen(b->part), i;
    char lo;

    assert(b->whole[0] != 0 && t->n < t->cap);
    put(t, "[]"); /* nothing yet */
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


/* --- exponents ---------------------------------------------------------- */

#define MANTISSA     "[1-9]" FRACTION "[eE]"
#define ANY_EXPONENT "[-+]?0*[0-9]{1,2}"

/* Digits of x below j, or above it; j is 0 to EXPONENT_MAX. */
static void
below(text_t *t, int j)
{
    int a = j / 10, b = j % 10;

    assert(j >= 0 && j <= EXPONENT_MAX);
    put(t, "0*(?:[]");
    if (a > 0) {
        put(t, "|[0-9]");
    }
    if (a > 1) {
        put(t, "|[1-%d][0-9]", a - 1);
    }
    if (b > 0) {
        put(t, a > 0 ? "|%d[0-%d]" : "|%.0d[0-%d]", a, b - 1);
    }
    put(t, ")");
}


static void
above(text_t *t, int j)
{
    int a = j / 10, b = j % 10;

    assert(j >= 0 && j <= EXPONENT_MAX);
    put(t, "0*(?:[]");
    if (b < 9) {
        put(t, a > 0 ? "|%d[%d-9]" : "|%.0d[%d-9]", a, b + 1);
    }
    if (a < 9) {
        put(t, "|[%d-9][0-9]", a + 1);
    }
    put(t, ")");
}


/* Exponents larger than k, equal to it, or smaller, by sign. */
static void
exponents(text_t *t, int k, int sign)
{
    put(t, "(?:");
    if (sign == 0 && k == 0) {
        put(t, "[-+]?0+");
    } else if (sign == 0) {
        put(t, k > 0 ? "\\+?0*%d" : "-0*%d", abs(k));
    } else if (sign > 0 && k >= 0) {
        put(t, "\\+?");
        above(t, k);
    } else if (sign > 0) {
        put(t, "\\+?0*[0-9]{1,2}|-");
        below(t, -k);
    } else if (k > 0) {
        put(t, "-0*[0-9]{1,2}|\\+?");
        below(t, k);
    } else {
        put(t, "-");
        above(t, -k);
    }
    put(t, ")");
}


/* The mantissa of b, and its exponent; 0: b is zero. */
static int
mantissa_of(const bound_t *b, bound_t *m, int *k)
{
    char digits[2 * DIGITS_MAX + 1];
    size_t n, zeros;

    (void) snprintf(digits, sizeof(digits), "%s%s",
        strcmp(b->whole, "0") == 0 ? "" : b->whole, b->part);
    zeros = strspn(digits, "0");
    for (n = strlen(digits); n > zeros && digits[n - 1] == '0'; n--) {
    }
    if (n == zeros || n - zeros > DIGITS_MAX) {
        return 0;
    }
    *k = strcmp(b->whole, "0") == 0 ? -1 - (int) zeros
                                    : (int) strlen(b->whole) - 1;
    memset(m, 0, sizeof(*m));
    m->exclusive = b->exclusive;
    m->whole[0] = digits[zeros];
    memcpy(m->part, digits + zeros + 1, n - zeros - 1);
    assert(abs(*k) <= EXPONENT_MAX);

    return 1;
}


/* Those with an exponent that are at least b, sign 1, or at most, -1. */
static void
scientific(text_t *t, const bound_t *b, int sign)
{
    bound_t m;
    int k;

    assert(sign == 1 || sign == -1);
    if (!mantissa_of(b, &m, &k)) {
        /* zero, or what has too many digits: the former is below all */
        if (sign > 0 && strpbrk(b->whole, "123456789") == NULL
            && b->part[0] == '\0') {
            put(t, "|" MANTISSA ANY_EXPONENT);
        }
        return;
    }
    put(t, "|" MANTISSA);
    exponents(t, k, sign);
    put(t, "|(?:");
    if (sign > 0) {
        not_below(t, &m);
    } else {
        not_above(t, &m);
    }
    put(t, ")[eE]");
    exponents(t, k, 0);
}


/* Numbers at least b: with more digits, or as many; exponent: may they have
 * one? */
static void
at_least(text_t *t, const bound_t *b, int exponent)
{
    put(t, "[1-9][0-9]{%zu,}" FRACTION "|", strlen(b->whole));
    not_below(t, b);
    if (exponent) {
        scientific(t, b, 1);
    }
}


static void
at_most(text_t *t, const bound_t *b, int exponent)
{
    size_t n = strlen(b->whole);

    if (n > 1) {
        put(t, "(?:0|[1-9][0-9]{0,%zu})" FRACTION "|", n - 2);
    }
    not_above(t, b);
    if (exponent) {
        scientific(t, b, -1);
    }
}


/* The automaton of what was put together here; NULL: failed. */
static grammar_dfa_t *
regex(schema_t *c, const char *s)
{
    size_t n = strlen(s);
    char *own = grammar_get(c->b, n + 1);

    /* the same bounds mostly come again, and are kept by their text */
    return own == NULL
               ? NULL
               : grammar_schema_pattern(c, memcpy(own, s, n), n, REGEX_ECMA);
}


/* --- both signs --------------------------------------------------------- */

/* A limit as the schema has it, any sign. */
typedef struct {
    const json_t *v; /* NULL: none */
    int exclusive;
} limit_t;


/* Numbers on one side of zero, sign and all, within limits; NULL: none. */
static grammar_dfa_t *
side(schema_t *c, int negative, limit_t lo, limit_t hi, int exponent)
{
    char buf[32768];
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
        put(&t, exponent ? "|" MANTISSA ANY_EXPONENT : "|[]");
    } else if (bound_of(lo.v, lo.exclusive, &b)) {
        at_least(&t, &b, exponent);
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
        at_most(&t, &b, exponent);
        put(&t, ")");
        e = regex(c, buf);
        d = e == NULL ? NULL : grammar_dfa_and(c->b, d, e, 0);
    }

    return d;
}


/* --- multiples ---------------------------------------------------------- */

/* Where what is so far leaves a remainder: before the point, or behind it, so
 * many digits of those that matter, then zeros. */
typedef struct {
    grammar_dfa_t *d;
    uint32_t p, places;
} remainder_t;

enum { R_START = 1, R_SIGN, R_ZERO, R_FROM };
enum { R_MINUS = 11, R_POINT, R_CLASSES };


static uint32_t
state_of(const remainder_t *x, uint64_t r, uint32_t point)
{
    assert(r < x->p && point <= x->places + 2);

    return R_FROM + (uint32_t) r * (x->places + 3) + point;
}


/* The ways on from one remainder, and where it may end: with zeros put behind
 * it up to all places it is a multiple. */
static void
remainder_put(const remainder_t *x, uint32_t r)
{
    uint32_t point, i, s, *next;
    uint64_t left;

    for (point = 0; point <= x->places + 2; point++) {
        s = state_of(x, r, point);
        next = x->d->next + (size_t) s * x->d->classes;
        left = r;
        for (i = point == 0 ? 1 : point; i < x->places + 1; i++) {
            left = left * 10 % x->p;
        }
        x->d->accept[s] = point != 1 && left == 0;
        if (point == 0) {
            next[R_POINT] = state_of(x, r, 1);
        }
        for (i = 0; i < 10; i++) {
            if (point <= x->places) {
                next[1 + i] = state_of(x, (r * UINT64_C(10) + i) % x->p,
                    point == 0 ? 0 : point + 1);
            } else if (i == 0) {
                next[1] = state_of(x, r, x->places + 2);
            }
        }
    }
}


/* Numbers that p, with so many digits of it behind the point, divides. */
static grammar_dfa_t *
multiples(schema_t *c, uint32_t p, uint32_t places)
{
    remainder_t x = {grammar_get(c->b, sizeof(*x.d)), p, places};
    grammar_dfa_t *d = x.d;
    uint32_t i;

    assert(p >= 1 && p * (uint64_t) (places + 3) <= MULTIPLE_MAX);
    if (d == NULL) {
        return NULL;
    }
    d->states = R_FROM + p * (places + 3);
    d->classes = R_CLASSES;
    memset(d->map, 0, sizeof(d->map));
    for (i = 0; i < 10; i++) {
        d->map['0' + i] = (uint8_t) (1 + i);
    }
    d->map['-'] = R_MINUS;
    d->map['.'] = R_POINT;
    d->next =
        grammar_get(c->b, (size_t) d->states * d->classes * sizeof(*d->next));
    d->accept = grammar_get(c->b, d->states * sizeof(*d->accept));
    if (c->b->failed) {
        return NULL;
    }

    d->next[R_START * R_CLASSES + R_MINUS] = R_SIGN;
    d->next[R_START * R_CLASSES + 1] = R_ZERO;
    d->next[R_SIGN * R_CLASSES + 1] = R_ZERO;
    d->next[R_ZERO * R_CLASSES + R_POINT] = state_of(&x, 0, 1);
    d->accept[R_ZERO] = 1;
    for (i = 1; i < 10; i++) {
        d->next[R_START * R_CLASSES + 1 + i] = state_of(&x, i % p, 0);
        d->next[R_SIGN * R_CLASSES + 1 + i] = state_of(&x, i % p, 0);
    }
    for (i = 0; i < p && !grammar_tick(c->b); i++) {
        remainder_put(&x, i);
    }
    grammar_dfa_trim(c->b, d);

    return c->b->failed ? NULL : d;
}


/* Multiples of p and so many zeros: of p, with the zeros behind. */
static grammar_dfa_t *
multiples_zeros(schema_t *c, uint32_t p, uint32_t zeros)
{
    static const char all[] = "000000000000000000";
    grammar_dfa_t *whole = regex(c, "-?[1-9][0-9]*");
    uint32_t kids[3], node;

    assert(zeros < sizeof(all));
    if (whole == NULL) {
        return NULL;
    }
    kids[0] = grammar_dfa_node(
        c->b, grammar_dfa_and(c->b, whole, multiples(c, p, 0), 0));
    kids[1] = grammar_bytes(c->b, all, zeros);
    kids[0] = grammar_seq(c->b, kids, 2);
    kids[1] = grammar_dfa_node(c->b, regex(c, "-?0"));
    kids[0] = grammar_alt(c->b, kids, 2);
    kids[1] = grammar_dfa_node(c->b, regex(c, "(?:\\.0+)?"));
    node = grammar_seq(c->b, kids, 2);

    return c->b->failed ? NULL : grammar_dfa(c->b, &node, 1, NULL, NULL);
}


/* The multiples of a number: exactly, by its digits.  What has no few
 * remainders is refused. */
static grammar_dfa_t *
with_multiple(schema_t *c, grammar_dfa_t *d, const schema_atom_t *a)
{
    uint32_t places, zeros = 0;
    unsigned long long p;
    bound_t b;

    assert(a->kind == A_MULTIPLE);
    if (bound_of(a->value, 0, &b) && json_number_value(a->value) > 0
        && strlen(b.part) <= PLACES_MAX
        && strlen(b.whole) + strlen(b.part) <= 18) {
        places = (uint32_t) strlen(b.part);
        strcat(b.whole, b.part);
        p = strtoull(b.whole, NULL, 10);
        if (p * (places + 3) <= MULTIPLE_MAX) {
            return grammar_dfa_and(
                c->b, d, multiples(c, (uint32_t) p, places), a->negated);
        }
        for (; places == 0 && p % 10 == 0; p /= 10) {
            zeros++;
        }
        if (zeros > 0 && p * 3 <= MULTIPLE_MAX) {
            return grammar_dfa_and(
                c->b, d, multiples_zeros(c, (uint32_t) p, zeros), a->negated);
        }
    }
    (void) grammar_schema_refuse(c, a->scope == NULL ? c->doc : a->scope->s,
        "multipleOf", "cannot be enforced");

    return c->b->failed ? NULL : d;
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
    int exponent = (f->types & T_NUMBER) == T_NUMBER, integer;

    for (a = f->atoms; a != NULL; a = a->next) {
        exponent = exponent && a->kind != A_MULTIPLE && a->kind != A_ENUM;
    }
    for (i = 0; i < 2; i++) {
        kids[i] = 0;
        d[i] = side(c, (int) i, lo, hi, exponent);
        if (d[i] != NULL && (f->types & T_NUMBER) != T_NUMBER) {
            /* 1.0 is an integer too, but not how one is written */
            integer = (f->types & T_INT) != 0;
            whole =
                regex(c, integer ? "0|-?[1-9][0-9]*" : "-?[0-9]+(?:\\.0+)?");
            d[i] = grammar_dfa_and(c->b, d[i], whole, !integer);
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
