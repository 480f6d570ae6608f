/*
 * Grammars in the notation of llama.cpp's GBNF.
 *
 *      root  ::= item ("," item)*      # a comment
 *      item  ::= "a" | [b-d]{2,3} | "(" root ")"
 *
 * DESIGN.  Recursive descent to nodes.  A rule ends where its line does, but
 * within parentheses and behind "::=" and "|" lines go on; a name that is used
 * before its rule is a rule without a node, which must have got one in the end.
 * Classes and literals are code points; "." is any of them.
 *
 * Recursion follows nesting, at most GRAMMAR_DEPTH_MAX.  Rules are found by a
 * scan: GRAMMAR_RULES_MAX bounds it, and grammars have a few dozens.
 *
 *      grammar  := rule*
 *      rule     := name "::=" either
 *      either   := sequence ("|" sequence)*
 *      sequence := (atom ("*" | "+" | "?" | "{" m ("," n?)? "}")*)*
 *      atom     := literal | class | "." | name | "(" either ")"
 */
#include "grammar_impl.h"

#include <assert.h>
#include <string.h>

#define NAME_MAX_LEN 256
#define NUMBER_MAX   1000000 /* digits behind more are dropped */

/* A text that is read; at never passes len. */
typedef struct {
    grammar_build_t *b;
    const char *s;
    size_t len, at;
    uint32_t depth;       /* of parentheses */
    grammar_str_t *names; /* [rules of this reader]: within the text */
    uint32_t *rules;      /* their numbers in the build */
    uint8_t *made;        /* has it got its node? */
    uint32_t n;
} ebnf_t;

static uint32_t read_either(ebnf_t *r);


/* Fails with the line where reading is; 0, as grammar_fail. */
static uint32_t
refuse(ebnf_t *r, const char *why)
{
    size_t i, line = 1;

    assert(r->at <= r->len);
    for (i = 0; i < r->at && i < r->len; i++) {
        line += r->s[i] == '\n';
    }

    return grammar_fail(r->b, "the grammar, line %zu: %s", line, why);
}


/* The next byte, or a zero at the end: a zero in the text begins nothing, so
 * whoever looks for what may begin here need not tell them apart. */
static char
peek(const ebnf_t *r)
{
    assert(r->at <= r->len);

    return r->at < r->len ? r->s[r->at] : '\0';
}


/* Passes s if it is next. */
static int
eat(ebnf_t *r, const char *s)
{
    size_t n = strlen(s);

    if (n > r->len - r->at || memcmp(r->s + r->at, s, n) != 0) {
        return 0;
    }
    r->at += n;
    assert(r->at <= r->len);

    return 1;
}


/* White space and comments; lines: line ends too. */
static void
skip(ebnf_t *r, int lines)
{
    char c;

    for (; r->at < r->len; r->at++) {
        c = peek(r);
        if (c == '#') {
            while (r->at + 1 < r->len && r->s[r->at + 1] != '\n') {
                r->at++;
            }
        } else if (c != ' ' && c != '\t'
                   && !(lines && (c == '\n' || c == '\r'))) {
            return;
        }
    }
}


/* May c be in a rule's name? */
static int
is_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
           || (c >= '0' && c <= '9') || c == '-' || c == '_';
}


/* A name, borrowed from the text.  One that is longer than any rule's is read
 * as two, of which no rule has the first. */
static grammar_str_t
read_name(ebnf_t *r)
{
    grammar_str_t name = {r->s + r->at, 0};

    while (r->at < r->len && is_name(peek(r)) && name.len < NAME_MAX_LEN) {
        name.len++;
        r->at++;
    }
    if (name.len == 0) {
        refuse(r, "a name is missing");
    }

    return name;
}


/* Which of the reader's rules has the name; a new one if none. */
static uint32_t
rule_of(ebnf_t *r, grammar_str_t name)
{
    uint32_t i;
    char *own;

    assert(name.len <= NAME_MAX_LEN && r->n <= GRAMMAR_RULES_MAX);
    (void) grammar_spend(r->b, r->n);
    for (i = 0; i < r->n; i++) {
        if (r->names[i].len == name.len
            && memcmp(r->names[i].s, name.s, name.len) == 0) {
            return i;
        }
    }
    if (grammar_tick(r->b)) {
        return 0;
    }
    if (r->n == GRAMMAR_RULES_MAX) {
        return refuse(r, "too many rules");
    }
    own = grammar_get(r->b, name.len + 1u);
    if (own != NULL) {
        memcpy(own, name.s, name.len);
        r->names[r->n] = name;
        r->rules[r->n] = grammar_rule(r->b, own);
        r->n++;
    }

    return i;
}


/* --- code points -------------------------------------------------------- */

/* n hexadecimal digits, which are a character's number. */
static uint32_t
read_hex(ebnf_t *r, uint32_t n)
{
    uint32_t v = 0, i;
    char c;

    assert(n <= 8); /* 32 bits */
    for (i = 0; i < n; i++, r->at++) {
        c = peek(r);
        if (c >= '0' && c <= '9') {
            v = v << 4 | (uint32_t) (c - '0');
        } else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f') {
            v = v << 4 | (uint32_t) ((c | 0x20) - 'a' + 10);
        } else {
            return refuse(r, "a bad hexadecimal escape");
        }
    }

    return v > GRAMMAR_CODE_MAX || (v >= 0xd800 && v < 0xe000)
               ? refuse(r, "an escape that is no character")
               : v;
}


/* A character of a literal or class, escaped or not. */
static uint32_t
read_code(ebnf_t *r)
{
    static const char what[] = "nrt\\\"[]-^.", how[] = "\n\r\t\\\"[]-^.";
    uint32_t code = 0, n;
    const char *at;
    char c;

    _Static_assert(sizeof(what) == sizeof(how), "each has what it stands for");
    if (!eat(r, "\\")) {
        n = grammar_utf8(r->s + r->at, r->len - r->at, &code);
        r->at += n;
        return n == 0 ? refuse(r, "text that is not UTF-8, or an end") : code;
    }
    c = peek(r);
    at = c == '\0' ? NULL : strchr(what, c);
    r->at += r->at < r->len;
    if (at != NULL) {
        return (uint8_t) how[at - what];
    }

    return c == 'x'   ? read_hex(r, 2)
           : c == 'u' ? read_hex(r, 4)
           : c == 'U' ? read_hex(r, 8)
                      : refuse(r, "an escape that is not known");
}


/* Up to the quote that ends it, behind the one that begins it. */
static uint32_t
read_literal(ebnf_t *r)
{
    grammar_list_t l = {NULL, 0, 0};
    uint32_t node;

    assert(r->at > 0 && r->s[r->at - 1] == '"');
    while (!r->b->failed && !eat(r, "\"")) {
        (void) grammar_list_put(r->b, &l, grammar_code(r->b, read_code(r), 0));
    }
    node = grammar_list_seq(r->b, &l);

    return node;
}


/* Up to the "]", behind the "[".  A "-" is itself where no range can be. */
static uint32_t
read_class(ebnf_t *r)
{
    grammar_set_t s = {NULL, 0, 0};
    int negated = eat(r, "^"), rc = 0;
    uint32_t lo, hi;

    while (!r->b->failed && rc == 0 && !eat(r, "]")) {
        lo = hi = read_code(r);
        if (peek(r) == '-' && r->at + 1 < r->len && r->s[r->at + 1] != ']') {
            r->at++;
            hi = read_code(r);
        }
        if (lo > hi && !r->b->failed) {
            refuse(r, "a range that runs backwards");
        }
        rc = r->b->failed ? 0 : grammar_set_add(&s, lo, hi);
    }
    if (negated && rc == 0) {
        rc = grammar_set_not(&s);
    }
    if (rc != 0) {
        grammar_fail(r->b, "the grammar needs too much memory");
    }

    return grammar_set_node(r->b, &s, 0);
}


/* ".", which takes line ends too. */
static uint32_t
any(ebnf_t *r)
{
    grammar_set_t s = {NULL, 0, 0};

    if (grammar_set_add(&s, 0, GRAMMAR_CODE_MAX) != 0) {
        grammar_fail(r->b, "the grammar needs too much memory");
    }

    return grammar_set_node(r->b, &s, 0);
}


/* --- what is made of them ----------------------------------------------- */

/* What a repetition is of. */
static uint32_t
read_atom(ebnf_t *r)
{
    uint32_t node;

    assert(r->depth <= GRAMMAR_DEPTH_MAX);
    if (eat(r, "\"")) {
        return read_literal(r);
    }
    if (eat(r, "[")) {
        return read_class(r);
    }
    if (eat(r, ".")) {
        return any(r);
    }
    if (!eat(r, "(")) {
        node = rule_of(r, read_name(r));
        return r->b->failed ? 0 : grammar_ref_node(r->b, r->rules[node]);
    }

    if (++r->depth > GRAMMAR_DEPTH_MAX) {
        return refuse(r, "groups nest too deeply");
    }
    node = read_either(r);
    r->depth--;
    skip(r, 1);
    if (!r->b->failed && !eat(r, ")")) {
        return refuse(r, "a group without an end");
    }

    return node;
}


/* 1 with a number, which stays far below GRAMMAR_MANY; 0: none is next. */
static int
read_number(ebnf_t *r, uint32_t *n)
{
    size_t from = r->at;

    for (*n = 0; peek(r) >= '0' && peek(r) <= '9'; r->at++) {
        *n = *n > NUMBER_MAX ? *n : *n * 10 + (uint32_t) (peek(r) - '0');
    }

    return r->at > from;
}


/* "2,5}", behind the brace. */
static uint32_t
read_braces(ebnf_t *r, uint32_t node)
{
    uint32_t min, max;

    assert(r->at > 0 && r->s[r->at - 1] == '{');
    skip(r, 0);
    if (!read_number(r, &min)) {
        return refuse(r, "a repetition without a number");
    }
    max = min;
    skip(r, 0);
    if (eat(r, ",")) {
        skip(r, 0);
        if (!read_number(r, &max)) {
            max = GRAMMAR_MANY;
        }
        skip(r, 0);
    }
    if (!eat(r, "}") || min > max) {
        return refuse(r, "a bad repetition");
    }

    return grammar_rep(r->b, node, min, max);
}


/* An atom and all that repeats it.  Each repetition is a node around the last
 * one, so there is a limit on them as on nesting. */
static uint32_t
read_repeated(ebnf_t *r)
{
    uint32_t node = read_atom(r), times;

    for (times = 0; !r->b->failed; times++) {
        skip(r, r->depth > 0);
        if (times > GRAMMAR_DEPTH_MAX) {
            return refuse(r, "repetitions nest too deeply");
        }
        if (eat(r, "*")) {
            node = grammar_rep(r->b, node, 0, GRAMMAR_MANY);
        } else if (eat(r, "+")) {
            node = grammar_rep(r->b, node, 1, GRAMMAR_MANY);
        } else if (eat(r, "?")) {
            node = grammar_rep(r->b, node, 0, 1);
        } else if (eat(r, "{")) {
            node = read_braces(r, node);
        } else {
            break;
        }
    }

    return node;
}


/* Up to what cannot begin an atom: whoever called looks at what it is. */
static uint32_t
read_sequence(ebnf_t *r)
{
    grammar_list_t l = {NULL, 0, 0};
    uint32_t node;
    char c;

    for (skip(r, r->depth > 0); !grammar_tick(r->b); skip(r, r->depth > 0)) {
        c = peek(r);
        if (c == '\0' || c == '|' || c == ')' || c == '\n' || c == '\r'
            || grammar_list_put(r->b, &l, read_repeated(r)) != 0) {
            break;
        }
    }
    node = grammar_list_seq(r->b, &l);

    return node;
}


/* Alternatives; each may begin on a line of its own. */
static uint32_t
read_either(ebnf_t *r)
{
    grammar_list_t l = {NULL, 0, 0};
    uint32_t node;

    assert(r->depth <= GRAMMAR_DEPTH_MAX);
    do {
        skip(r, 1);
        if (grammar_list_put(r->b, &l, read_sequence(r)) != 0) {
            break;
        }
    } while (eat(r, "|"));
    node = grammar_list_alt(r->b, &l);

    return node;
}


/* A rule, up to the end of its line. */
static void
read_rule(ebnf_t *r)
{
    uint32_t i = rule_of(r, read_name(r)), node;

    assert(r->b->failed || i < r->n);
    skip(r, 0);
    if (!r->b->failed && !eat(r, "::=")) {
        refuse(r, "\"::=\" is missing");
    }
    if (!r->b->failed && r->made[i]) {
        refuse(r, "a rule that there is already");
    }
    if (r->b->failed) {
        return;
    }
    r->made[i] = 1;
    node = read_either(r);
    skip(r, 0);
    if (!r->b->failed && r->at < r->len && peek(r) != '\n' && peek(r) != '\r') {
        refuse(r, "what is no rule");
    }
    if (!r->b->failed) {
        r->b->rules[r->rules[i]].node = node;
    }
}


/* All rules; the number of the root's. */
static uint32_t
read_grammar(ebnf_t *r)
{
    grammar_str_t root = {"root", 4};
    uint32_t i;

    for (skip(r, 1); r->at < r->len && !r->b->failed; skip(r, 1)) {
        read_rule(r);
    }
    for (i = 0; i < r->n && !r->b->failed; i++) {
        if (!r->made[i]) {
            grammar_fail(r->b, "the grammar has no rule %.*s",
                (int) r->names[i].len, r->names[i].s);
        }
    }
    i = rule_of(r, root);
    assert(r->b->failed || i < r->n);
    if (!r->b->failed && !r->made[i]) {
        grammar_fail(r->b, "the grammar has no rule root");
    }

    return r->b->failed ? 0 : r->rules[i];
}


grammar_t *
grammar_open_ebnf(const char *s, size_t len, const grammar_opts_t *o, char *err,
    size_t errlen)
{
    grammar_build_t b;
    ebnf_t r;
    uint32_t root = 0;

    memset(&r, 0, sizeof(r));
    grammar_build_open(&b, o, err, errlen);
    r.b = &b;
    r.s = s;
    r.len = len;
    if (len > GRAMMAR_TEXT_MAX) {
        grammar_fail(
            &b, "the grammar is longer than %u bytes", GRAMMAR_TEXT_MAX);
    }
    r.names = grammar_get(&b, (GRAMMAR_RULES_MAX + 1) * sizeof(*r.names));
    r.rules = grammar_get(&b, (GRAMMAR_RULES_MAX + 1) * sizeof(*r.rules));
    r.made = grammar_get(&b, GRAMMAR_RULES_MAX + 1);
    if (!b.failed) {
        root = read_grammar(&r);
    }

    return grammar_link(&b, root);
}
