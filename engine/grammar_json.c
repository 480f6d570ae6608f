/*
 * Any JSON, as RFC 8259 has it.
 *
 * DESIGN.  Rules made once for a compilation and shared by all places that ask
 * for no more.  A string's characters may be escaped in every way, but half of
 * a surrogate pair, which is no text, is not a character.
 *
 * Objects are RULE_OBJECT with one class of keys, arrays RULE_ARRAY: so free
 * JSON nests as deeply as the matcher's stack may, and white space is what the
 * options say.  Numbers, strings and words are automata without calls, which
 * whoever may have any value shares with whoever asks for one type.
 */
#include "grammar_schema.h"

#include <assert.h>


/* A rule that is one node. */
static uint32_t
rule_of(grammar_build_t *b, uint32_t node)
{
    uint32_t rule = grammar_rule(b, NULL);

    if (b->failed) {
        return 0;
    }
    assert(rule < b->rules_n);
    b->rules[rule].node = node;

    return rule;
}


/* What a regular expression of ours matches, as a node. */
static uint32_t
regex_node(grammar_build_t *b, const char *s, size_t len)
{
    return grammar_dfa_node(b, grammar_regex(b, s, len, REGEX_ECMA, "JSON"));
}

#define REGEX(b, s) regex_node(b, s, sizeof(s) - 1)


uint32_t
grammar_json_char(grammar_build_t *b)
{
    return REGEX(b,
        "[^\"\\\\\\x00-\\x1f]|\\\\(?:[\"\\\\/bfnrt]"
        "|u(?:[0-9a-cefA-CEF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}"
        "|[dD][89abAB][0-9a-fA-F]{2}\\\\u[dD][c-fC-F][0-9a-fA-F]{2}))");
}


uint32_t
grammar_json_white(grammar_build_t *b)
{
    return b->o.compact ? grammar_empty(b) : REGEX(b, "[ \\t\\n\\r]*");
}


uint32_t
grammar_json_string(grammar_build_t *b)
{
    uint32_t kids[3];

    if (b->json_string == GRAMMAR_MANY) {
        kids[0] = kids[2] = grammar_bytes(b, "\"", 1);
        kids[1] = grammar_copies(b, grammar_json_char(b), 0, GRAMMAR_MANY);
        if (b->only != NULL) {
            kids[1] = grammar_dfa_node(b,
                grammar_dfa_only(b, grammar_dfa(b, &kids[1], 1, NULL, NULL)));
        }
        b->json_string = rule_of(b, grammar_seq(b, kids, 3));
    }

    assert(b->failed || b->json_string < b->rules_n);
    return b->json_string;
}


uint32_t
grammar_json_number(grammar_build_t *b, int integer)
{
    uint32_t *rule = integer ? &b->json_integer : &b->json_number;

    if (*rule == GRAMMAR_MANY) {
        *rule = rule_of(b, integer ? REGEX(b, "0|-?[1-9][0-9]*")
                                   : REGEX(b, "-?(?:0|[1-9][0-9]*)"
                                              "(?:\\.[0-9]+)?"
                                              "(?:[eE][-+]?[0-9]+)?"));
    }

    assert(b->failed || *rule < b->rules_n);
    return *rule;
}


uint32_t
grammar_json_array(grammar_build_t *b)
{
    grammar_array_t *a;

    if (b->json_array == GRAMMAR_MANY) {
        a = grammar_get(b, sizeof(*a));
        b->json_array = grammar_rule(b, NULL);
        if (b->failed) {
            return 0;
        }
        b->rules[b->json_array].kind = RULE_ARRAY;
        b->rules[b->json_array].u.array = a;
        a->max = GRAMMAR_MANY;
        a->rest = grammar_json_any(b);
    }

    assert(b->failed || b->json_array < b->rules_n);
    return b->json_array;
}


/* All keys are of one class. */
static uint32_t
any_key(void *arg, const uint32_t *which, uint32_t n)
{
    (void) arg;
    (void) which;
    assert(n == 1);

    return 1;
}


uint32_t
grammar_json_object(grammar_build_t *b)
{
    grammar_object_t *o;
    uint32_t key, kids[3];

    if (b->json_object == GRAMMAR_MANY) {
        o = grammar_get(b, sizeof(*o));
        b->json_object = grammar_rule(b, NULL);
        if (b->failed) {
            return 0;
        }
        b->rules[b->json_object].kind = RULE_OBJECT;
        b->rules[b->json_object].u.object = o;
        o->rule = grammar_get(b, sizeof(*o->rule));
        o->required = grammar_get(b, sizeof(*o->required));
        o->order = grammar_get(b, sizeof(*o->order));
        o->max = GRAMMAR_MANY;
        o->classes = 1;
        /* whether two are the same is not asked, so they may be escaped too */
        kids[0] = kids[2] = grammar_bytes(b, "\"", 1);
        kids[1] = grammar_copies(b, grammar_json_char(b), 0, GRAMMAR_MANY);
        key = grammar_seq(b, kids, 3);
        o->key = grammar_dfa_only(b, grammar_dfa(b, &key, 1, any_key, NULL));
        if (!b->failed) {
            o->rule[0] = grammar_json_any(b);
        }
    }

    assert(b->failed || b->json_object < b->rules_n);
    return b->json_object;
}


uint32_t
grammar_json_any(grammar_build_t *b)
{
    uint32_t kids[5];

    if (b->json_any == GRAMMAR_MANY) {
        b->json_any = grammar_rule(b, NULL);
        kids[0] = grammar_ref_node(b, grammar_json_object(b));
        kids[1] = grammar_ref_node(b, grammar_json_array(b));
        kids[2] = grammar_ref_node(b, grammar_json_string(b));
        kids[3] = grammar_ref_node(b, grammar_json_number(b, 0));
        kids[4] = REGEX(b, "true|false|null");
        if (!b->failed) {
            b->rules[b->json_any].node = grammar_alt(b, kids, 5);
        }
    }

    assert(b->failed || b->json_any < b->rules_n);
    return b->json_any;
}
