/*
 * Free text with structures in it: a text that opens one goes on as its schema
 * says, closes it, and is free again.
 *
 * DESIGN.  Triggers say where a structure opens.  Free text is Aho and
 * Corasick's automaton over them: a state for each beginning of a trigger, in
 * which the text's end is, so that a text of any kind is one step a byte, and
 * there are as many states as triggers have bytes.  Where a trigger is whole
 * the automaton calls the rule of what may stand behind it, and has no other
 * way on:
 *
 *      triggers <a, <b        +--- any other byte ---+
 *                             v                      |
 *                        --> (1) --<--> (2) ---------+
 *                             ^          | a, b
 *                             |          v
 *                             +--rule-- (3) --calls--> "x>" schema "</ax>"
 *
 * The first trigger that is whole counts: what it is the beginning of, or what
 * ends with it, is never read.  Several that are whole at once are all called.
 *
 * Texts behind GRAMMAR_TOKEN are control tokens.  Free text has none of them
 * but those that are said to pass, and a trigger that is one cannot be left
 * half way.
 *
 * The alternative, a "(free | structure)*" left to the subset construction,
 * would let a trigger's own beginning be free text and the rest of it the
 * structure's, and has to compute what is known here.
 *
 * Ownership: all is the build's.  One thread compiles.
 */
#include "grammar_schema.h"

#include <assert.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define LIST_MAX 4096 /* structures, triggers: their pairs are compared */
#define ROOT     1

/* An automaton under construction; all of it is the build's. */
typedef struct {
    grammar_build_t *b;
    grammar_dfa_t *d;
    uint32_t front; /* states before the free text's own */
    uint32_t root;
    uint32_t final; /* behind the one structure; 0: free again */
    uint32_t cap;
    uint32_t *fail; /* [cap]: the longest other beginning that is its end */
    uint32_t *own;  /* [cap]: 1 + the trigger that is whole there */
    uint32_t *more; /* [cap]: a state on the way of fail that has one; 0 */
    uint8_t *bound; /* [cap]: within a control token */
} free_t;


/* --- free text ---------------------------------------------------------- */

/* Bytes that no trigger has are one class. */
static void
classes_of(grammar_dfa_t *d, const grammar_tags_t *t)
{
    const grammar_str_t *lists[] = {t->triggers, t->passes};
    const uint32_t n[] = {t->triggers_n, t->passes_n};
    uint32_t i, k, at;
    uint8_t *class;

    assert(t->triggers_n <= LIST_MAX);
    memset(d->map, 0, sizeof(d->map));
    d->classes = 1;
    d->map[(uint8_t) GRAMMAR_TOKEN[0]] = (uint8_t) d->classes++;
    for (k = 0; k < 2; k++) {
        for (i = 0; i < n[k]; i++) {
            for (at = 0; at < lists[k][i].len; at++) {
                class = &d->map[(uint8_t) lists[k][i].s[at]];
                if (*class == 0) {
                    *class = (uint8_t) d->classes++;
                }
            }
        }
    }
    /* with a front bytes are told apart that no trigger has */
    if (t->front != NULL) {
        for (i = 0; i < 256; i++) {
            d->map[i] = (uint8_t) i;
        }
        d->classes = 256;
    }
    assert(d->classes <= 256);
}


/* The ways of one text, new where there are none.  It ends in its own state,
 * with number what, or (what 0) at the root. */
static void
put_text(free_t *x, const grammar_str_t *s, uint32_t what)
{
    grammar_dfa_t *d = x->d;
    uint32_t at = x->root, i, *next;

    assert(s->len > 0);
    for (i = 0; i < s->len && !grammar_tick(x->b); i++) {
        next = &d->next[at * d->classes + d->map[(uint8_t) s->s[i]]];
        if (what == 0 && i + 1 == s->len && *next == 0) {
            *next = x->root;
        }
        if (*next == 0) {
            assert(d->states < x->cap);
            x->bound[d->states] = x->bound[at] || s->s[i] == GRAMMAR_TOKEN[0];
            *next = d->states++;
        }
        at = *next;
    }
    if (what != 0 && at != x->root && x->own[at] == 0) {
        x->own[at] = what;
    }
}


/* Ways on where none is: those of the longest other beginning that the text
 * ends in.  States by their depth, so that its own are there. */
static void
put_fails(free_t *x)
{
    grammar_dfa_t *d = x->d;
    uint32_t *queue = grammar_get(x->b, x->cap * sizeof(*queue));
    uint32_t head = 0, tail = 0, s, c, to, f, *next;

    if (queue == NULL) {
        return;
    }
    assert(x->fail[x->root] == x->root);
    queue[tail++] = x->root;
    while (head < tail && !grammar_spend(x->b, d->classes)) {
        assert(tail <= x->cap);
        s = queue[head++];
        f = x->fail[s];
        for (c = 0; c < d->classes; c++) {
            next = &d->next[s * d->classes + c];
            to = s == x->root ? x->root : d->next[f * d->classes + c];
            if (*next != 0 && *next != x->root) {
                x->fail[*next] = x->bound[*next] ? x->root : to;
                queue[tail++] = *next;
            } else if (!x->bound[s] && *next == 0) {
                *next = to;
            }
        }
        /* of a control token nothing but itself is a part */
        if (s == x->root && d->next[s * d->classes + d->map[0xff]] == x->root) {
            d->next[s * d->classes + d->map[0xff]] = 0;
        }
        x->more[s] = s == x->root ? 0 : x->own[f] != 0 ? f : x->more[f];
    }
}


/* The state whose trigger is whole in s: itself, or the end of it; 0: none. */
static uint32_t
whole(const free_t *x, uint32_t s)
{
    return x->own[s] != 0 ? s : x->more[s];
}


/* Where a trigger is whole nothing but its rule goes on; rules NULL: nothing
 * does. */
static void
put_calls(free_t *x, const uint32_t *rules)
{
    grammar_dfa_t *d = x->d;
    uint32_t s, at, n = 0, to = x->final != 0 ? x->final : x->root;

    for (s = 0; s < d->states; s++) {
        for (at = whole(x, s); at != 0; at = x->more[at]) {
            n++;
        }
    }
    d->calls = grammar_get(x->b, (n + 1) * sizeof(*d->calls));

    for (s = n = 0; s < d->states && !grammar_tick(x->b); s++) {
        d->call_at[s] = n;
        at = whole(x, s);
        if (at != 0) {
            memset(&d->next[s * d->classes], 0, d->classes * sizeof(*d->next));
            d->accept[s] = 0;
        }
        for (; at != 0 && rules != NULL; at = x->more[at]) {
            assert(x->own[at] > 0 && to != 0);
            d->calls[n].sym = rules[x->own[at] - 1];
            d->calls[n++].to = to;
        }
    }
    d->call_at[d->states] = n;
}


/* Texts of the front go on as it does, or as free text does from its beginning:
 * no trigger begins in one.  Where it is whole the text has no way on. */
static void
put_front(free_t *x, const grammar_dfa_t *front, int ends)
{
    grammar_dfa_t *d = x->d;
    uint32_t s, i, to;

    assert(d->classes == 256 && front->call_at == NULL);
    for (s = 1; s < front->states && !grammar_spend(x->b, 256); s++) {
        if (front->accept[s] != 0) {
            continue;
        }
        d->accept[s] = ends != 0;
        for (i = 0; i < 256; i++) {
            to = front->next[s * front->classes + front->map[i]];
            d->next[s * 256 + i] = to == 0 ? d->next[x->root * 256 + i]
                                   : front->accept[to] != 0 ? 0
                                                            : to;
        }
    }
}


/* Room for so many states. 0, or -1: failed. */
static int
free_open(free_t *x, uint32_t states)
{
    grammar_dfa_t *d = x->d = grammar_get(x->b, sizeof(*d));

    x->cap = states;
    x->fail = grammar_get(x->b, states * sizeof(*x->fail));
    x->own = grammar_get(x->b, states * sizeof(*x->own));
    x->more = grammar_get(x->b, states * sizeof(*x->more));
    x->bound = grammar_get(x->b, states);

    return x->b->failed ? -1 : 0;
}


/*
 * Free text with rules behind its triggers.  first: it ends with the first
 * structure; ends: it may end before one.  rules NULL: triggers never occur.
 */
static grammar_dfa_t *
free_text(grammar_build_t *b, const grammar_tags_t *t, const uint32_t *rules,
    int first, int ends)
{
    free_t x = {.b = b};
    uint64_t sum = 3;
    grammar_dfa_t *d;
    uint32_t i;

    for (i = 0; i < t->triggers_n; i++) {
        sum += t->triggers[i].len;
    }
    for (i = 0; i < t->passes_n; i++) {
        sum += t->passes[i].len;
    }
    x.front = t->front == NULL ? 0 : t->front->states - 1;
    sum += x.front;
    if (sum > GRAMMAR_DFA_MAX) {
        grammar_fail(b, "the triggers are too long: more than %u bytes",
            GRAMMAR_DFA_MAX);
    }
    if (b->failed || free_open(&x, (uint32_t) sum) != 0) {
        return NULL;
    }

    d = x.d;
    assert(x.cap >= 3);
    classes_of(d, t);
    d->next = grammar_get(b, sum * d->classes * sizeof(*d->next));
    d->accept = grammar_get(b, sum * sizeof(*d->accept));
    d->call_at = grammar_get(b, (sum + 1) * sizeof(*d->call_at));
    if (b->failed) {
        return NULL;
    }
    x.root = ROOT + x.front;
    x.fail[x.root] = x.root;
    d->states = x.root + 1;
    for (i = 0; i < t->triggers_n; i++) {
        put_text(&x, &t->triggers[i], i + 1);
    }
    for (i = 0; i < t->passes_n; i++) {
        put_text(&x, &t->passes[i], 0);
    }
    for (i = x.root; i < d->states; i++) {
        d->accept[i] = ends && !x.bound[i];
    }
    put_fails(&x);
    if (first) {
        x.final = d->states++;
        d->accept[x.final] = 1;
    }
    put_calls(&x, rules);
    if (t->front != NULL) {
        put_front(&x, t->front, ends);
    }
    if (rules == NULL) {
        d->call_at = NULL;
        grammar_dfa_trim(b, d);
    }

    return b->failed ? NULL : d;
}


grammar_dfa_t *
grammar_dfa_without(grammar_build_t *b, const grammar_str_t *s, uint32_t n)
{
    grammar_tags_t t = {.triggers = s, .triggers_n = n, .free = 1};

    return free_text(b, &t, NULL, 0, 1);
}


/* --- tags --------------------------------------------------------------- */

/* Does s begin with what? */
static int
begins(const grammar_str_t *s, const grammar_str_t *what)
{
    return s->len >= what->len && memcmp(s->s, what->s, what->len) == 0;
}


/* What may stand behind a trigger: the rest of each beginning that it begins,
 * and what is behind that. */
static uint32_t
behind(grammar_build_t *b, const grammar_tags_t *t, const grammar_str_t *s)
{
    grammar_list_t l = {NULL, 0, 0};
    const grammar_tag_t *g;
    uint32_t i, rule, node;

    assert(s->len > 0);
    for (i = 0; i < t->tags_n && !grammar_tick(b); i++) {
        g = &t->tags[i];
        if (begins(&g->begin, s)) {
            (void) grammar_list_put(b, &l,
                grammar_seq2(b,
                    grammar_bytes(
                        b, g->begin.s + s->len, g->begin.len - s->len),
                    g->node));
        }
    }
    node = grammar_list_alt(b, &l);
    rule = grammar_rule(b, NULL);
    if (!b->failed) {
        b->rules[rule].node = node;
    }

    return rule;
}


/* Tags and nothing else. */
static uint32_t
only_tags(grammar_build_t *b, const grammar_tags_t *t)
{
    grammar_list_t l = {NULL, 0, 0};
    uint32_t i;

    for (i = 0; i < t->tags_n && !grammar_tick(b); i++) {
        (void) grammar_list_put(b, &l,
            grammar_seq2(b,
                grammar_bytes(b, t->tags[i].begin.s, t->tags[i].begin.len),
                t->tags[i].node));
    }

    return grammar_rep(
        b, grammar_list_alt(b, &l), t->some != 0, t->one ? 1 : GRAMMAR_MANY);
}


uint32_t
grammar_tags(grammar_build_t *b, const grammar_tags_t *t)
{
    grammar_tags_t more = *t;
    uint32_t i, *rules, node, rest;

    assert(t->tags_n <= LIST_MAX && t->triggers_n <= LIST_MAX);
    if (!t->free) {
        return only_tags(b, t);
    }

    rules = grammar_get(b, (t->triggers_n + 1) * sizeof(*rules));
    for (i = 0; i < t->triggers_n && !b->failed; i++) {
        rules[i] = behind(b, t, &t->triggers[i]);
    }
    if (b->failed) {
        return 0;
    }
    node = grammar_dfa_node(
        b, free_text(b, t, rules, t->one || t->some, !t->some));
    if (t->some && !t->one) {
        more.front = NULL;
        rest = grammar_dfa_node(b, free_text(b, &more, rules, 0, 1));
        node = grammar_seq2(b, node, rest);
    }

    return b->failed ? 0 : node;
}


/* --- read from JSON ----------------------------------------------------- */

/* A text that is not empty, borrowed from v. */
static int
read_text(grammar_build_t *b, const json_t *v, grammar_str_t *s, int empty)
{
    s->s = json_string_value(v);
    s->len = (uint32_t) json_string_length(v);
    if (v == NULL || !json_is_string(v)) {
        grammar_fail(b, "expected a string");
    } else if (s->len == 0 && !empty) {
        grammar_fail(b, "the string is empty");
    }

    return b->failed ? -1 : 0;
}


/* JSON of a schema as a node. */
static uint32_t
read_schema(grammar_build_t *b, json_t *v)
{
    schema_t c;
    uint32_t rule;

    if (v == NULL || json_is_null(v)) {
        rule = grammar_json_any(b);
    } else {
        rule = grammar_schema_begin(&c, b, json_incref(v)) == 0
                   ? grammar_schema_make(&c, v, 0)
                   : 0;
        grammar_schema_end(&c);
    }

    return b->failed ? 0 : grammar_ref_node(b, rule);
}


/* One structure. */
static void
read_tag(grammar_build_t *b, const grammar_tags_t *t, json_t *v, size_t i,
    grammar_tag_t *tag)
{
    grammar_str_t end;
    uint32_t k;

    assert(t->triggers_n > 0);
    if (grammar_spend(b, t->triggers_n)) {
        return;
    }
    if (!json_is_object(v)) {
        grammar_fail(b, "structures/%zu: expected an object", i);
        return;
    }
    if (read_text(b, json_object_get(v, "begin"), &tag->begin, 0) != 0) {
        grammar_fail_at(b, "structures/%zu/begin", i);
        return;
    }
    if (read_text(b, json_object_get(v, "end"), &end, 1) != 0) {
        grammar_fail_at(b, "structures/%zu/end", i);
        return;
    }
    for (k = 0; k < t->triggers_n && !begins(&tag->begin, &t->triggers[k]);
         k++) {
    }
    if (k == t->triggers_n) {
        grammar_fail(
            b, "structures/%zu/begin: it does not begin with a trigger", i);
        return;
    }
    tag->node = read_schema(b, json_object_get(v, "schema"));
    if (b->failed) {
        grammar_fail_at(b, "structures/%zu/schema", i);
        return;
    }
    tag->node = grammar_seq2(b, tag->node, grammar_bytes(b, end.s, end.len));
}


/* A list that is neither empty nor too long; its length, 0: failed. */
static uint32_t
read_list(grammar_build_t *b, const json_t *v, const char *name)
{
    size_t n = json_array_size(v);

    if (!json_is_array(v)) {
        grammar_fail(b, "%s: expected an array", name);
    } else if (n == 0) {
        grammar_fail(b, "%s: the array is empty", name);
    } else if (n > LIST_MAX) {
        grammar_fail(b, "%s: more than %d entries", name, LIST_MAX);
    }

    return b->failed ? 0 : (uint32_t) n;
}


/* The node of the whole document. */
static uint32_t
read_tags(grammar_build_t *b, json_t *doc)
{
    json_t *structures = json_object_get(doc, "structures");
    json_t *triggers = json_object_get(doc, "triggers");
    grammar_tags_t t = {.free = 1};
    grammar_str_t *s;
    grammar_tag_t *tags;
    uint32_t i;

    if (!json_is_object(doc)) {
        return grammar_fail(b, "the structural tags are no object");
    }
    t.tags_n = read_list(b, structures, "structures");
    t.triggers_n = read_list(b, triggers, "triggers");
    if (b->failed) {
        return 0;
    }
    t.tags = tags = grammar_get(b, t.tags_n * sizeof(*tags));
    t.triggers = s = grammar_get(b, t.triggers_n * sizeof(*s));
    for (i = 0; i < t.triggers_n && !b->failed; i++) {
        if (read_text(b, json_array_get(triggers, i), &s[i], 0) != 0) {
            grammar_fail_at(b, "triggers/%u", i);
        }
    }
    for (i = 0; i < t.tags_n && !grammar_tick(b); i++) {
        read_tag(b, &t, json_array_get(structures, i), i, &tags[i]);
    }

    return b->failed ? 0 : grammar_tags(b, &t);
}


grammar_t *
grammar_open_tags(const char *s, size_t len, const grammar_opts_t *o, char *err,
    size_t errlen)
{
    grammar_build_t b;
    uint32_t node = 0, root;
    size_t held;
    json_t *doc;

    grammar_build_open(&b, o, err, errlen);
    doc = grammar_document(&b, "the text of structural tags", s, len, &held);
    if (doc != NULL) {
        node = read_tags(&b, doc);
    }
    root = grammar_rule(&b, NULL);
    if (!b.failed) {
        b.rules[root].node = node;
    }
    json_decref(doc);
    grammar_drop(&b, held);

    return grammar_link(&b, root);
}
