/*
 * Regular expressions: the part of the usual syntax that is regular.
 *
 * DESIGN.  Recursive descent to nodes, then one automaton, so that "^" and "$"
 * mean the edges of this text wherever it stands in a grammar.  What is not
 * regular (back-references, look-around) or depends on what stands beside the
 * text (word boundaries, lines) is refused by name.  Laziness and groups do
 * not change what is matched and are read over.
 *
 * Two dialects: Unicode everywhere, as Rust and RE2 have it, and ECMAScript,
 * which JSON Schema asks for: \d and \w are ASCII, "." stops at all line ends,
 * "[" in a class is itself.
 *
 * With REGEX_JSON the automaton reads the inside of a JSON string.
 *
 * Recursion follows nesting, at most GRAMMAR_DEPTH_MAX.  All reading stops at
 * the first refusal; what was made until then is dropped with the build.
 *
 *      either   := sequence ("|" sequence)*
 *      sequence := repeated*
 *      repeated := atom ("*" | "+" | "?" | "{" m ("," n?)? "}")? "?"?
 *      atom     := "(" flags? either ")" | "[" members "]" | "." | "^" | "$"
 *                  | "\" escape | a code point
 *
 * Flags known are i (case), s (dot takes line ends), U and u, which change
 * nothing here.  Braces that say no number stand for themselves.
 */
#include "grammar_impl.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define NUMBER_MAX 1000000 /* digits behind more are dropped: it is too many */
#define SET_STEPS  4096    /* to fold a set's case, or join a property */

/* A pattern that is read; at never passes len. */
typedef struct {
    grammar_build_t *b;
    const char *what; /* it is called in messages */
    const char *s;
    size_t len, at;
    unsigned flags;
    uint32_t depth; /* of groups */
    int fold, dot;  /* (?i), (?s) */
} reader_t;

#define CLASSES "dDwWsSpP"

static uint32_t read_either(reader_t *r);


/* Fails with what is wrong and where; 0, as grammar_fail. */
static uint32_t
refuse(reader_t *r, const char *why)
{
    assert(r->at <= r->len);

    return grammar_fail(r->b, "%s: %s at byte %zu", r->what, why, r->at);
}


/* Does s stand where reading is? */
static int
is_next(const reader_t *r, const char *s)
{
    size_t n = strlen(s);

    assert(r->at <= r->len);
    return n <= r->len - r->at && memcmp(r->s + r->at, s, n) == 0;
}


/* Passes s if it is next. */
static int
eat(reader_t *r, const char *s)
{
    if (!is_next(r, s)) {
        return 0;
    }
    r->at += strlen(s);
    assert(r->at <= r->len);

    return 1;
}


/* --- code points -------------------------------------------------------- */

/* Neither overlong forms nor surrogates are text. */
uint32_t
grammar_utf8(const char *s, size_t len, uint32_t *code)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const uint8_t *p = (const uint8_t *) s;
    uint32_t n, i, c;

    if (len == 0) {
        return 0;
    }
    n = p[0] < 0x80   ? 1
        : p[0] < 0xc2 ? 0
        : p[0] < 0xe0 ? 2
        : p[0] < 0xf0 ? 3
        : p[0] < 0xf5 ? 4
                      : 0;
    if (n == 0 || n > len) {
        return 0;
    }

    c = n == 1 ? p[0] : p[0] & (0x7fu >> n);
    for (i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
        c = c << 6 | (p[i] & 0x3f);
    }
    if (c < least[n] || c > GRAMMAR_CODE_MAX || (c >= 0xd800 && c < 0xe000)) {
        return 0;
    }
    *code = c;

    return n;
}


uint32_t
grammar_code(grammar_build_t *b, uint32_t code, int json)
{
    grammar_set_t s = {NULL, 0, 0};

    if (grammar_set_add(&s, code, code) != 0) {
        return grammar_fail(b, "the grammar needs too much memory");
    }

    return grammar_set_node(b, &s, json);
}


/* Stretches without escapes are one node of bytes each. */
uint32_t
grammar_text(grammar_build_t *b, const char *s, size_t len, int json)
{
    grammar_list_t l = {NULL, 0, 0};
    uint32_t code, n, out;
    size_t at, from = 0;

    for (at = 0; at < len; at += n) {
        n = grammar_utf8(s + at, len - at, &code);
        if (n == 0) {
            grammar_list_free(&l);
            return 0;
        }
        if (json && (code < 0x20 || code == '"' || code == '\\')) {
            if (at > from) {
                (void) grammar_list_put(
                    b, &l, grammar_bytes(b, s + from, at - from));
            }
            (void) grammar_list_put(b, &l, grammar_code(b, code, 1));
            from = at + n;
        }
    }
    if (at > from || l.n == 0) {
        (void) grammar_list_put(b, &l, grammar_bytes(b, s + from, at - from));
    }
    out = grammar_list_seq(b, &l);

    return out;
}


/* One code point of the pattern. */
static uint32_t
read_code(reader_t *r)
{
    uint32_t code = 0, n = grammar_utf8(r->s + r->at, r->len - r->at, &code);

    if (n == 0) {
        return refuse(r, "text that is not UTF-8");
    }
    r->at += n;

    return code;
}


/* --- sets --------------------------------------------------------------- */

/* A step of a set: no memory is a failure. */
static void
must(reader_t *r, int rc)
{
    if (rc != 0) {
        grammar_fail(r->b, "the grammar needs too much memory");
    }
}


static void
add(reader_t *r, grammar_set_t *s, uint32_t lo, uint32_t hi)
{
    assert(lo <= hi);

    must(r, grammar_set_add(s, lo, hi));
    /* what is put in between moves all that is behind */
    (void) grammar_spend(r->b, 8 + s->n / 16);
}


/* Both cases, if case does not matter. */
static void
fold(reader_t *r, grammar_set_t *s)
{
    if (r->fold && !grammar_spend(r->b, SET_STEPS + s->n)) {
        must(r, grammar_set_fold(s, &r->b->unicode));
    }
}


/* All that have a general category. */
static void
add_property(reader_t *r, grammar_set_t *s, const char *name, size_t len)
{
    int rc = grammar_set_property(s, &r->b->unicode, name, len);

    (void) grammar_spend(r->b, SET_STEPS);
    if (rc > 0) {
        refuse(r, "a Unicode property that is not a general category");
    }
    must(r, rc < 0);
}


/* What \d, \w and \s are in each dialect. */
static void
add_digits(reader_t *r, grammar_set_t *s)
{
    if (r->flags & REGEX_ECMA) {
        add(r, s, '0', '9');
    } else {
        add_property(r, s, "Nd", 2);
    }
}


static void
add_words(reader_t *r, grammar_set_t *s)
{
    add_digits(r, s);
    if (r->flags & REGEX_ECMA) {
        add(r, s, 'A', 'Z');
        add(r, s, 'a', 'z');
        add(r, s, '_', '_');
        return;
    }
    add_property(r, s, "L", 1);
    add_property(r, s, "M", 1);
    add_property(r, s, "Pc", 2);
    add(r, s, 0x200c, 0x200d);
}


static void
add_white(reader_t *r, grammar_set_t *s)
{
    add(r, s, '\t', '\r');
    add(r, s, ' ', ' ');
    add(r, s, 0xa0, 0xa0);
    add(r, s, 0x1680, 0x1680);
    add(r, s, 0x2000, 0x200a);
    add(r, s, 0x2028, 0x2029);
    add(r, s, 0x202f, 0x202f);
    add(r, s, 0x205f, 0x205f);
    add(r, s, 0x3000, 0x3000);
    if (r->flags & REGEX_ECMA) {
        add(r, s, 0xfeff, 0xfeff);
    } else {
        add(r, s, 0x85, 0x85);
    }
}


/* "{Lu}", "L", "{Script=Greek}" behind \p. */
static void
read_property(reader_t *r, grammar_set_t *s)
{
    const char *name = r->s + r->at, *end, *is;
    size_t len = 1;

    assert(r->at > 0 && (r->s[r->at - 1] | 0x20) == 'p');
    if (r->at == r->len) {
        refuse(r, "half an escape");
        return;
    }
    if (*name == '{') {
        end = memchr(name, '}', r->len - r->at);
        if (end == NULL) {
            refuse(r, "a Unicode property without an end");
            return;
        }
        r->at += (size_t) (end - name) + 1;
        name++;
        len = (size_t) (end - name);
        is = memchr(name, '=', len);
        if (is != NULL
            && ((is - name == 2 && memcmp(name, "gc", 2) == 0)
                || (is - name == 16
                    && memcmp(name, "General_Category", 16) == 0))) {
            len -= (size_t) (is - name) + 1;
            name = is + 1;
        }
    } else {
        r->at++;
    }
    add_property(r, s, name, len);
}


/* \d and its like, behind the letter, into s.  Case is folded before the set is
 * turned around: (?i)\PL must not take letters. */
static void
read_class(reader_t *r, char c, grammar_set_t *s)
{
    grammar_set_t own = {NULL, 0, 0};

    assert(r->at > 0 && r->s[r->at - 1] == c);
    switch (c | 0x20) {
    case 'd':
        add_digits(r, &own);
        break;
    case 'w':
        add_words(r, &own);
        break;
    case 's':
        add_white(r, &own);
        break;
    default:
        assert((c | 0x20) == 'p');
        read_property(r, &own);
    }
    fold(r, &own);
    if (!(c & 0x20)) {
        must(r, grammar_set_not(&own));
    }
    must(r, grammar_set_join(s, &own));
    (void) grammar_spend(r->b, own.n + s->n);
    grammar_set_free(&own);
}


/* n digits, or any number of them in braces. */
static uint32_t
read_hex(reader_t *r, uint32_t n)
{
    uint32_t v = 0, i, d;
    int braces = eat(r, "{");
    char c;

    assert(n <= 8);
    for (i = 0; braces || i < n; i++) {
        c = r->at < r->len ? r->s[r->at] : 0;
        if (braces && i > 0 && c == '}') {
            r->at++;
            break;
        }
        d = c >= '0' && c <= '9'   ? (uint32_t) c - '0'
            : c >= 'a' && c <= 'f' ? (uint32_t) c - 'a' + 10
            : c >= 'A' && c <= 'F' ? (uint32_t) c - 'A' + 10
                                   : 16;
        if (d == 16 || v > GRAMMAR_CODE_MAX >> 4) {
            return refuse(r, "a bad hexadecimal escape");
        }
        v = v << 4 | d;
        r->at++;
    }

    return v > GRAMMAR_CODE_MAX || (v >= 0xd800 && v < 0xe000)
               ? refuse(r, "an escape of a surrogate")
               : v;
}


/* A code point that is escaped, behind the "\". */
static uint32_t
read_escape(reader_t *r)
{
    static const char what[] = "nrtfva", how[] = "\n\r\t\f\v\a";
    const char *at;
    char c = r->at < r->len ? r->s[r->at] : 0;

    _Static_assert(sizeof(what) == sizeof(how), "each has what it stands for");
    if (r->at == r->len) {
        return refuse(r, "half an escape");
    }
    if ((uint8_t) c >= 0x80) {
        return read_code(r);
    }
    r->at++;
    at = c == 0 ? NULL : strchr(what, c);
    if (at != NULL) {
        return (uint8_t) how[at - what];
    }

    switch (c) {
    case 'x':
        return read_hex(r, 2);
    case 'u':
        return read_hex(r, 4);
    case 'U':
        return read_hex(r, 8);
    case 'c':
        if (r->at < r->len && ((r->s[r->at] | 0x20) >= 'a')
            && ((r->s[r->at] | 0x20) <= 'z')) {
            return r->s[r->at++] & 31;
        }
        return refuse(r, "a bad control escape");
    case '0':
        return 0;
    default:
        break;
    }
    if (c >= '1' && c <= '9') {
        return refuse(r, "back-references are not regular:");
    }
    if ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') {
        return refuse(r, c == 'k' ? "back-references are not regular:"
                         : (c | 0x20) == 'b'
                             ? "word boundaries are not supported:"
                             : "an escape that is not known");
    }

    return (uint8_t) c;
}


/* --- classes ------------------------------------------------------------ */

/* "[:alpha:]", at the colon. */
static int
read_posix(reader_t *r, grammar_set_t *s)
{
    static const struct {
        const char *name;
        const char *ranges; /* pairs */
    } list[] = {{":alpha:]", "azAZ"}, {":digit:]", "09"},
        {":alnum:]", "azAZ09"}, {":upper:]", "AZ"}, {":lower:]", "az"},
        {":space:]", "\t\r  "}, {":blank:]", "\t\t  "},
        {":punct:]", "!/:@[`{~"}, {":xdigit:]", "09afAF"},
        {":word:]", "azAZ09__"}, {":print:]", " ~"}, {":graph:]", "!~"}};
    const char *p;
    size_t i;

    assert(r->at > 0 && r->s[r->at - 1] == '[');
    for (i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
        if (eat(r, list[i].name)) {
            for (p = list[i].ranges; *p != '\0'; p += 2) {
                add(r, s, (uint8_t) p[0], (uint8_t) p[1]);
            }
            return 1;
        }
    }

    return 0;
}


/* One member: 1 with its code point, 0 if it is a set, which s has. */
static int
read_member(reader_t *r, grammar_set_t *s, uint32_t *code)
{
    char c;

    if (eat(r, "\\")) {
        c = r->at < r->len ? r->s[r->at] : 0;
        if (c != 0 && strchr(CLASSES, c) != NULL) {
            r->at++;
            read_class(r, c, s);
            return 0;
        }
        if (eat(r, "b")) {
            *code = '\b';
            return 1;
        }
        if (eat(r, "-")) {
            *code = '-';
            return 1;
        }
        *code = read_escape(r);
        return 1;
    }

    if (!(r->flags & REGEX_ECMA)) {
        if (is_next(r, "&&") || is_next(r, "--") || is_next(r, "~~")) {
            refuse(r, "operations on sets are not supported:");
            return 0;
        }
        if (eat(r, "[")) {
            if (!read_posix(r, s)) {
                refuse(r, "a set within a set is not supported:");
            }
            return 0;
        }
    }
    *code = read_code(r);

    return 1;
}


/* Up to the "]" that ends the class.  ECMAScript's may be empty. */
static void
read_members(reader_t *r, grammar_set_t *s)
{
    uint32_t lo, hi;
    int first = !(r->flags & REGEX_ECMA);

    while (!r->b->failed) {
        if (r->at == r->len) {
            refuse(r, "a class without an end");
            return;
        }
        if (!first && eat(r, "]")) {
            return;
        }
        first = 0;
        if (!read_member(r, s, &lo)) {
            continue;
        }
        hi = lo;
        if (is_next(r, "-") && r->at + 1 < r->len && r->s[r->at + 1] != ']'
            && !is_next(r, "--")) {
            r->at++;
            if (!read_member(r, s, &hi)) {
                add(r, s, '-', '-');
                hi = lo;
            }
        }
        if (hi < lo) {
            refuse(r, "a range that runs backwards");
            return;
        }
        add(r, s, lo, hi);
    }
}


/* A class, behind its "[". */
static uint32_t
read_brackets(reader_t *r)
{
    grammar_set_t s = {NULL, 0, 0};
    int negated = eat(r, "^");

    read_members(r, &s);
    fold(r, &s);
    if (negated) {
        must(r, grammar_set_not(&s));
    }

    return grammar_set_node(r->b, &s, r->flags & REGEX_JSON);
}


/* "."; lines: also what ends a line. */
static uint32_t
any(reader_t *r, int lines)
{
    grammar_set_t s = {NULL, 0, 0};

    if (!lines) {
        add(r, &s, '\n', '\n');
        if (r->flags & REGEX_ECMA) {
            add(r, &s, '\r', '\r');
            add(r, &s, 0x2028, 0x2029);
        }
    }
    must(r, grammar_set_not(&s));

    return grammar_set_node(r->b, &s, r->flags & REGEX_JSON);
}


/* One character, in both cases if case does not matter. */
static uint32_t
literal(reader_t *r, uint32_t code)
{
    grammar_set_t s = {NULL, 0, 0};

    add(r, &s, code, code);
    fold(r, &s);

    return grammar_set_node(r->b, &s, r->flags & REGEX_JSON);
}


/* --- groups and atoms --------------------------------------------------- */

/* "i-s", up to the ")" or ":" that ends it. */
static void
read_flags(reader_t *r)
{
    int on = 1;
    char c;

    assert(r->at > 0 && r->s[r->at - 1] == '?');
    for (; r->at < r->len && r->s[r->at] != ')' && r->s[r->at] != ':';
         r->at++) {
        c = r->s[r->at];
        if (c == '-') {
            on = 0;
        } else if (c == 'i') {
            r->fold = on;
        } else if (c == 's') {
            r->dot = on;
        } else if (c != 'U' && !(c == 'u' && on)) {
            refuse(r, "a flag that is not supported");
            return;
        }
    }
}


/* node, if the group ends here. */
static uint32_t
group_end(reader_t *r, uint32_t node)
{
    return r->b->failed || eat(r, ")") ? node
                                       : refuse(r, "a group without an end");
}


/* Behind "(".  Flags hold to the end of the group that they stand in. */
static uint32_t
read_group(reader_t *r)
{
    int fold = r->fold, dot = r->dot;
    const char *end;
    uint32_t node;

    assert(r->at > 0 && r->s[r->at - 1] == '(');
    if (is_next(r, "?=") || is_next(r, "?!") || is_next(r, "?<=")
        || is_next(r, "?<!")) {
        return refuse(r, "look-around is not regular:");
    }
    if (is_next(r, "?>")) {
        return refuse(r, "atomic groups are not supported:");
    }

    if (eat(r, "?P<") || eat(r, "?<")) {
        end = memchr(r->s + r->at, '>', r->len - r->at);
        if (end == NULL) {
            return refuse(r, "a group's name without an end");
        }
        r->at = (size_t) (end - r->s) + 1;
    } else if (eat(r, "?")) {
        if (is_next(r, ")")) {
            return refuse(r, "a group that says nothing");
        }
        read_flags(r);
        if (!eat(r, ":")) {
            /* for the rest of the group around it */
            return r->b->failed ? 0 : group_end(r, grammar_empty(r->b));
        }
    }

    if (++r->depth > GRAMMAR_DEPTH_MAX) {
        return refuse(r, "groups nest too deeply");
    }
    node = read_either(r);
    r->depth--;
    r->fold = fold;
    r->dot = dot;

    return group_end(r, node);
}


/* Behind "\". */
static uint32_t
read_back(reader_t *r)
{
    grammar_set_t s = {NULL, 0, 0};
    char c = r->at < r->len ? r->s[r->at] : 0;

    assert(r->at > 0 && r->s[r->at - 1] == '\\');
    if (c == 'A' || c == 'z') {
        r->at++;
        return grammar_edge_node(r->b, c == 'z');
    }
    if (c != 0 && strchr(CLASSES, c) != NULL) {
        r->at++;
        read_class(r, c, &s);
        return grammar_set_node(r->b, &s, r->flags & REGEX_JSON);
    }

    return literal(r, read_escape(r));
}


/* What a repetition is of. */
static uint32_t
read_atom(reader_t *r)
{
    assert(r->depth <= GRAMMAR_DEPTH_MAX);

    if (eat(r, "(")) {
        return read_group(r);
    }
    if (eat(r, "[")) {
        return read_brackets(r);
    }
    if (eat(r, ".")) {
        return any(r, r->dot);
    }
    if (eat(r, "\\")) {
        return read_back(r);
    }
    if (eat(r, "^")) {
        return grammar_edge_node(r->b, 0);
    }
    if (eat(r, "$")) {
        return grammar_edge_node(r->b, 1);
    }
    if (is_next(r, "*") || is_next(r, "+") || is_next(r, "?")) {
        return refuse(r, "a repetition of nothing");
    }

    return literal(r, read_code(r));
}


/* --- repetition --------------------------------------------------------- */

/* 1 with a number, which stays far below GRAMMAR_MANY; 0: none is next. */
static int
read_number(reader_t *r, uint32_t *n)
{
    size_t from = r->at;

    for (*n = 0; r->at < r->len && r->s[r->at] >= '0' && r->s[r->at] <= '9';
         r->at++) {
        *n = *n > NUMBER_MAX ? *n : *n * 10 + (uint32_t) (r->s[r->at] - '0');
    }

    return r->at > from;
}


/* "{2,5}": 1 with what it says; braces that say nothing are themselves. */
static int
read_braces(reader_t *r, uint32_t *min, uint32_t *max)
{
    size_t from = r->at;

    if (eat(r, "{") && read_number(r, min)) {
        *max = *min;
        if (eat(r, ",") && !read_number(r, max)) {
            *max = GRAMMAR_MANY;
        }
        if (eat(r, "}")) {
            return 1;
        }
    }
    r->at = from;

    return 0;
}


/* An atom and what repeats it.  Always copies, as a pattern is one automaton
 * and calls nothing; what needs too many of them is refused when it is made. */
static uint32_t
read_repeated(reader_t *r)
{
    uint32_t node = read_atom(r), min, max, times = 0;

    while (!r->b->failed) {
        if (eat(r, "*")) {
            min = 0;
            max = GRAMMAR_MANY;
        } else if (eat(r, "+")) {
            min = 1;
            max = GRAMMAR_MANY;
        } else if (eat(r, "?")) {
            min = 0;
            max = 1;
        } else if (!read_braces(r, &min, &max)) {
            break;
        }
        if (min > max) {
            return refuse(r, "a repetition that runs backwards");
        }
        if (++times > 1) {
            return refuse(r, "a repetition of a repetition");
        }
        node = grammar_copies(r->b, node, min, max);
        (void) eat(r, "?"); /* lazy */
    }

    return node;
}


/* Up to the end, or what ends an alternative. */
static uint32_t
read_sequence(reader_t *r)
{
    grammar_list_t l = {NULL, 0, 0};
    uint32_t node;

    while (r->at < r->len && !is_next(r, "|") && !is_next(r, ")")
           && !grammar_tick(r->b)) {
        if (grammar_list_put(r->b, &l, read_repeated(r)) != 0) {
            break;
        }
    }
    node = grammar_list_seq(r->b, &l);

    return node;
}


/* Alternatives, up to the end or a ")" that is not theirs. */
static uint32_t
read_either(reader_t *r)
{
    grammar_list_t l = {NULL, 0, 0};
    uint32_t node;

    assert(r->depth <= GRAMMAR_DEPTH_MAX);
    do {
        if (grammar_list_put(r->b, &l, read_sequence(r)) != 0) {
            break;
        }
    } while (eat(r, "|"));
    node = grammar_list_alt(r->b, &l);

    return node;
}


/* Search is a text of any kind on both sides; "^" and "$" within still mean the
 * edges, which such a text then has passed or not. */
grammar_dfa_t *
grammar_regex(grammar_build_t *b, const char *s, size_t len, unsigned flags,
    const char *what)
{
    reader_t r = {b, what, s, len, 0, flags, 0, 0, 0};
    uint32_t node = read_either(&r), rest, all[3];

    if (!b->failed && r.at < len) {
        refuse(&r, "a \")\" that closes nothing");
    }
    if (flags & REGEX_SEARCH) {
        rest = grammar_copies(b, any(&r, 1), 0, GRAMMAR_MANY);
        all[0] = all[2] = rest;
        all[1] = node;
        node = grammar_seq(b, all, 3);
    }

    return b->failed ? NULL : grammar_dfa(b, &node, 1, NULL, NULL);
}
