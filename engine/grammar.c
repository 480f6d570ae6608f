/*
 * The ways in: a text in one of the languages becomes a grammar.
 *
 * DESIGN.  Each opens a compilation, has a reader make rules, and links them.
 * Nothing is shared between compilations but tables that never change, so they
 * run in as many threads as are wanted.
 */
#include "grammar_impl.h"

#include <assert.h>
#include <string.h>


static int
too_long(grammar_build_t *b, size_t len)
{
    if (len > GRAMMAR_TEXT_MAX) {
        grammar_fail(
            b, "the grammar is longer than %u bytes", GRAMMAR_TEXT_MAX);
    }

    return b->failed;
}


/* A rule that is one node. */
static uint32_t
rule_of(grammar_build_t *b, uint32_t node)
{
    uint32_t rule = grammar_rule(b, NULL);

    if (!b->failed) {
        b->rules[rule].node = node;
    }

    return rule;
}


grammar_t *
grammar_open_regex(const char *s, size_t len, const grammar_opts_t *o,
    char *err, size_t errlen)
{
    grammar_build_t b;
    grammar_dfa_t *d = NULL;
    unsigned flags;

    grammar_build_open(&b, o, err, errlen);
    flags = (b.o.search ? REGEX_SEARCH : 0) | (b.o.ascii ? REGEX_ECMA : 0);
    if (!too_long(&b, len)) {
        d = grammar_regex(&b, s, len, flags, "the regular expression");
    }

    return grammar_link(&b, rule_of(&b, grammar_dfa_node(&b, d)));
}


grammar_t *
grammar_open_choice(const char *const *s, const size_t *len, size_t n,
    const grammar_opts_t *o, char *err, size_t errlen)
{
    grammar_build_t b;
    grammar_list_t l = {NULL, 0, 0};
    uint32_t node;
    size_t i, sum = 0;

    grammar_build_open(&b, o, err, errlen);
    for (i = 0; i < n && !b.failed; i++) {
        sum += len[i];
        if (!too_long(&b, sum)) {
            (void) grammar_list_put(&b, &l, grammar_bytes(&b, s[i], len[i]));
        }
    }
    node = grammar_list_alt(&b, &l);
    assert(node == 0 || n > 0);

    return grammar_link(&b, rule_of(&b, node));
}
