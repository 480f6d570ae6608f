/*
 * Rules become one table of places: what a matcher walks.
 *
 * DESIGN.  First, what each rule can derive at all, and whether nothing is
 * among it: the least solution over all rules, so that recursion without an
 * end counts as impossible.  Calls of what is impossible are left out, and
 * automata without dead ends are made of the rest (grammar_dfa.c), for the
 * rules that the root reaches.  Their states get numbers of one row:
 *
 *      0 dead    1 done: accepts, no way on    2.. states and frames
 *
 * A call takes at least one byte, and the set of bytes that a rule may begin
 * with decides whether it is tried, so a rule that calls itself first could
 * call for ever: it is refused.
 *
 * An object is two automata, its keys' and that of what is behind a key
 * (":" and the value), and three places that know its frame:
 *
 *      "{" --> OPEN --key--> ":" value --> MEMBER --","--> NEXT --key--> ...
 *                +---"}"-->done              +---"}"-->done
 *
 * What is kept is copied to the grammar's own memory; the build's is freed.
 */
#include "grammar_impl.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    grammar_build_t *b;
    grammar_t *g;
    uint32_t *tail;   /* [rules at first]: what is behind a key */
    uint8_t *reached; /* [rules] */
    uint32_t tail_n;
    uint32_t calls_n, calls_cap;
    uint32_t objects_n, arrays_n, counts_n;
} link_t;


/* --- what can be derived ------------------------------------------------ */

/* Does an automaton lead to an end, by its bytes (nothing: not by them) and by
 * calls of rules that can?  From the beginning on, until nothing is added: most
 * ways lead to higher numbers. */
static int
dfa_can(const grammar_build_t *b, const grammar_dfa_t *d, int nothing)
{
    uint64_t seen[GRAMMAR_DFA_MAX / 64 + 1] = {2};
    const grammar_rule_t *r;
    uint32_t s, i, to;
    int again = 1;

    assert(d->states <= GRAMMAR_DFA_MAX);
    while (again) {
        again = 0;
        for (s = 1; s < d->states; s++) {
            if (!(seen[s / 64] >> s % 64 & 1)) {
                continue;
            }
            if (d->accept[s] != 0) {
                return 1;
            }
            for (i = 0; !nothing && i < d->classes; i++) {
                to = d->next[s * d->classes + i];
                again |= to < s && !(seen[to / 64] >> to % 64 & 1);
                seen[to / 64] |= UINT64_C(1) << to % 64;
            }
            for (i = d->call_at[s]; i < d->call_at[s + 1]; i++) {
                r = &b->rules[d->calls[i].sym];
                to = d->calls[i].to;
                if (nothing ? r->nullable : r->productive) {
                    again |= to < s && !(seen[to / 64] >> to % 64 & 1);
                    seen[to / 64] |= UINT64_C(1) << to % 64;
                }
            }
        }
    }

    return 0;
}


/* Can a node derive some text, or with nothing set: the empty one, as far as is
 * known of the rules that it calls? */
static int
node_can(grammar_build_t *b, uint32_t node, int nothing)
{
    const grammar_node_t *n = &b->nodes[node];
    uint32_t i;

    assert(node < b->nodes_n);
    if (grammar_spend(b, 2)) {
        return 0;
    }
    switch (n->kind) {
    case NODE_NEVER:
        return 0;
    case NODE_EMPTY:
    case NODE_BEGIN:
    case NODE_END:
        return 1;
    case NODE_SEQ:
        for (i = 0; i < n->b; i++) {
            if (!node_can(b, b->kids[n->a + i], nothing)) {
                return 0;
            }
        }
        return 1;
    case NODE_ALT:
        for (i = 0; i < n->b; i++) {
            if (node_can(b, b->kids[n->a + i], nothing)) {
                return 1;
            }
        }
        return 0;
    case NODE_REP:
        return n->min == 0 || node_can(b, n->a, nothing);
    case NODE_REF:
        return nothing ? b->rules[n->a].nullable : b->rules[n->a].productive;
    case NODE_DFA:
        return b->dfas[n->a]->call_at != NULL
                   ? dfa_can(b, b->dfas[n->a], nothing)
                   : !nothing || b->dfas[n->a]->accept[1] != 0;
    default:
        return !nothing;
    }
}


/* Which classes of keys may be: their value can, and what they require.  What
 * requires one that cannot be is gone too, until nothing changes. */
static void
object_classes(grammar_build_t *b, const grammar_object_t *o, uint8_t *ok)
{
    uint32_t c, i;
    const uint32_t *dep;
    int again = 1;

    assert(o->props <= o->classes);
    (void) grammar_spend(b, o->classes);
    for (c = 0; c < o->classes; c++) {
        ok[c] = b->rules[o->rule[c]].productive;
    }
    while (again) {
        again = 0;
        for (i = 0; i < o->deps_n; i++) {
            dep = o->deps + (size_t) i * (1 + o->words);
            if (grammar_spend(b, ok[dep[0]] ? 1 + o->props : 1)) {
                return;
            }
            for (c = 0; c < o->props && ok[dep[0]]; c++) {
                if ((dep[1 + c / 32] >> c % 32 & 1) && !ok[c]) {
                    ok[dep[0]] = 0;
                    again = 1;
                }
            }
        }
    }
}


/* All that is required can be, and there are enough keys. */
static int
object_can(grammar_build_t *b, const grammar_object_t *o)
{
    uint8_t *ok = grammar_scratch(b, o->classes + 1);
    uint32_t c, n = 0, required = 0;
    int can = ok != NULL;

    assert(o->props <= o->classes);
    if (ok == NULL) {
        return 0;
    }
    object_classes(b, o, ok);
    for (c = 0; c < o->props; c++) {
        n += ok[c];
        if (o->required[c / 32] >> c % 32 & 1) {
            required++;
            can = can && ok[c];
        }
    }
    for (; c < o->classes; c++) {
        n = ok[c] ? GRAMMAR_MANY : n;
    }
    grammar_scratch_free(b, ok, o->classes + 1);

    return can && required <= o->max && n >= o->min && o->min <= o->max;
}


/* So many items as there must be can be.  Behind the first ones all are alike,
 * so one of them tells for the rest. */
static int
array_can(grammar_build_t *b, const grammar_array_t *a)
{
    uint32_t i, rule;

    if (a->min > a->max || grammar_spend(b, a->prefix_n)) {
        return 0;
    }
    for (i = 0; i < a->min && i <= a->prefix_n; i++) {
        rule = i < a->prefix_n ? a->prefix[i] : a->rest;
        if (rule == GRAMMAR_MANY || !b->rules[rule].productive) {
            return 0;
        }
    }

    return 1;
}


/* As node_can, for a rule. */
static int
rule_can(grammar_build_t *b, const grammar_rule_t *r, int nothing)
{
    const grammar_rule_t *item;

    switch (r->kind) {
    case RULE_OBJECT:
        return !nothing && object_can(b, r->u.object);
    case RULE_ARRAY:
        return !nothing && array_can(b, r->u.array);
    case RULE_COUNT:
        item = &b->rules[r->u.count.rule];
        return r->u.count.min == 0
               || (nothing ? item->nullable : item->productive);
    default:
        return node_can(b, r->node, nothing);
    }
}


/* The least fixed point, until nothing changes: each round is linear in the
 * nodes, and rounds are as many as rules depend on each other in a row, mostly
 * few, since what is called mostly has a higher number. */
static void
derive(grammar_build_t *b)
{
    grammar_rule_t *r;
    uint32_t i;
    int again = 1;

    while (again && !grammar_tick(b)) {
        again = 0;
        for (i = b->rules_n; i-- > 0;) {
            r = &b->rules[i];
            if (!r->productive && rule_can(b, r, 0)) {
                r->productive = 1;
                again = 1;
            }
            if (!r->nullable && rule_can(b, r, 1)) {
                r->nullable = 1;
                again = 1;
            }
        }
    }
}


/* --- automata of all that the root reaches ------------------------------ */

/* ":" and a value, each value's once. */
static uint32_t
tail_of(link_t *l, uint32_t value)
{
    grammar_build_t *b = l->b;
    uint32_t kids[4], white;

    assert(value < l->tail_n);
    if (l->tail[value] == 0) {
        white = b->o.compact ? grammar_empty(b) : grammar_bytes(b, " ", 1);
        if (!b->o.compact) {
            white = grammar_alt2(b, grammar_byte(b, '\t', '\n'),
                grammar_alt2(b, grammar_byte(b, '\r', '\r'), white));
            white = grammar_rep(b, white, 0, GRAMMAR_MANY);
        }
        kids[0] = kids[2] = white;
        kids[1] = grammar_bytes(b, ":", 1);
        kids[3] = grammar_ref_node(b, value);
        l->tail[value] = grammar_rule(b, NULL);
        if (b->failed) {
            return 0;
        }
        b->rules[l->tail[value]].node = grammar_seq(b, kids, 4);
        b->rules[l->tail[value]].productive = 1;
    }

    return l->tail[value];
}


/* Notes that a rule is needed.  There is room for each rule that there was at
 * first, and for its tail. */
static void
reach(link_t *l, grammar_list_t *todo, uint32_t rule)
{
    assert(rule <= 2 * l->tail_n);

    if (!l->reached[rule]) {
        l->reached[rule] = 1;
        (void) grammar_list_put(l->b, todo, rule);
    }
}


/* Keys whose value cannot be are no keys. */
static void
object_reach(link_t *l, grammar_list_t *todo, grammar_object_t *o)
{
    uint8_t *ok = grammar_scratch(l->b, o->classes + 1);
    uint32_t s, c;

    assert(o->props <= o->classes && o->key != NULL);
    if (ok == NULL) {
        return;
    }
    object_classes(l->b, o, ok);
    (void) grammar_spend(l->b, o->key->states);
    for (s = 0; s < o->key->states; s++) {
        assert(o->key->accept[s] <= o->classes);
        if (o->key->accept[s] != 0 && !ok[o->key->accept[s] - 1]) {
            o->key->accept[s] = 0;
        }
    }
    grammar_dfa_trim(l->b, o->key);

    for (c = 0; c < o->classes && !l->b->failed; c++) {
        o->rule[c] = !ok[c]     ? GRAMMAR_MANY
                     : o->array ? o->rule[c]
                                : tail_of(l, o->rule[c]);
        if (ok[c] && !o->array) {
            reach(l, todo, o->rule[c]);
        }
    }
    grammar_scratch_free(l->b, ok, o->classes + 1);
}


/* An array ends before the first item that cannot be. */
static void
array_reach(link_t *l, grammar_list_t *todo, grammar_array_t *a)
{
    uint32_t i, rule;

    for (i = 0; i <= a->prefix_n && i < a->max; i++) {
        rule = i < a->prefix_n ? a->prefix[i] : a->rest;
        if (rule == GRAMMAR_MANY || !l->b->rules[rule].productive) {
            a->max = i;
            break;
        }
        reach(l, todo, rule);
    }
    assert(a->min <= a->max);
}


/* Makes the automaton of a rule, and reaches all that it calls.  No rule is
 * made by that, so r stays where it is. */
static void
plain_reach(link_t *l, grammar_list_t *todo, grammar_rule_t *r)
{
    uint32_t i, node = r->node;
    grammar_dfa_t *d = grammar_dfa(l->b, &node, 1, NULL, NULL);

    assert(r->kind == RULE_PLAIN && r->dfa == NULL);
    if (d == NULL) {
        return;
    }
    r->dfa = d;
    for (i = 0; d->call_at != NULL && i < d->call_at[d->states]; i++) {
        reach(l, todo, d->calls[i].sym);
    }
}


/* From the root on.  Rules that nothing calls are not compiled. */
static void
reach_all(link_t *l, uint32_t root)
{
    grammar_list_t todo = {NULL, 0, 0};
    grammar_rule_t *r;

    reach(l, &todo, root);
    while (todo.n > 0 && !grammar_tick(l->b)) {
        r = &l->b->rules[todo.v[--todo.n]];
        switch (r->kind) {
        case RULE_OBJECT:
            object_reach(l, &todo, r->u.object);
            break;
        case RULE_ARRAY:
            (void) grammar_spend(l->b, r->u.array->prefix_n);
            array_reach(l, &todo, r->u.array);
            break;
        case RULE_COUNT:
            if (l->b->rules[r->u.count.rule].productive) {
                reach(l, &todo, r->u.count.rule);
            } else {
                r->u.count.max = 0;
            }
            break;
        default:
            plain_reach(l, &todo, r);
        }
    }
    grammar_list_free(&todo);
}


/* --- what a rule may begin with, and whether with itself ---------------- */

/* Joins from into to; again is set if to grew. */
static void
first_add(uint64_t to[4], const uint64_t from[4], int *again)
{
    uint32_t i;

    for (i = 0; i < 4; i++) {
        *again |= (from[i] & ~to[i]) != 0;
        to[i] |= from[i];
    }
}


/* One round for a rule: its own first bytes, and those of what it calls first.
 * Objects and arrays begin with their bracket. */
static void
first_of(grammar_build_t *b, grammar_rule_t *r, int *again)
{
    uint64_t own[4] = {0};
    const grammar_dfa_t *d = r->dfa;
    uint32_t i;

    (void) grammar_spend(b, 256);
    if (r->kind == RULE_OBJECT || r->kind == RULE_ARRAY) {
        own[1] = UINT64_C(1)
                 << ((r->kind == RULE_OBJECT && !r->u.object->array ? '{' : '[')
                        - 64);
    } else if (r->kind == RULE_COUNT) {
        if (r->u.count.max > 0) {
            first_add(r->first, b->rules[r->u.count.rule].first, again);
        }
    } else if (!grammar_dfa_empty(d)) {
        for (i = 0; i < 256; i++) {
            if (d->next[d->classes + d->map[i]] != 0) {
                own[i / 64] |= UINT64_C(1) << i % 64;
            }
        }
        for (i = d->call_at == NULL ? 0 : d->call_at[1];
             d->call_at != NULL && i < d->call_at[2] && !grammar_spend(b, 4);
             i++) {
            first_add(r->first, b->rules[d->calls[i].sym].first, again);
        }
    }
    first_add(r->first, own, again);
}


/* Depth first over what begins with what; state: 1 under way, 2 done. */
static void
begins(grammar_build_t *b, uint32_t rule, uint8_t *state, uint32_t depth)
{
    const grammar_rule_t *r = &b->rules[rule];
    const grammar_dfa_t *d = r->dfa;
    uint32_t i;

    assert(rule < b->rules_n);
    if (state[rule] == 1) {
        grammar_fail(b, "rule %s begins with itself",
            r->name == NULL ? "within the grammar" : r->name);
        return;
    }
    if (state[rule] == 2 || grammar_tick(b)) {
        return;
    }
    if (depth > 2 * GRAMMAR_DEPTH_MAX) {
        grammar_fail(b, "rules nest too deeply");
        return;
    }

    state[rule] = 1;
    if (r->kind == RULE_COUNT && r->u.count.max > 0) {
        begins(b, r->u.count.rule, state, depth + 1);
    } else if (r->kind == RULE_PLAIN && d->call_at != NULL
               && !grammar_dfa_empty(d)) {
        for (i = d->call_at[1]; i < d->call_at[2]; i++) {
            begins(b, d->calls[i].sym, state, depth + 1);
        }
    }
    state[rule] = 2;
}


/* Refuses what begins with itself, then joins first bytes until nothing grows.
 */
static void
firsts(link_t *l)
{
    grammar_build_t *b = l->b;
    uint8_t *state = grammar_scratch(b, b->rules_n + 1);
    uint32_t i;
    int again = 1;

    if (state == NULL) {
        return;
    }
    for (i = 0; i < b->rules_n; i++) {
        if (l->reached[i]) {
            begins(b, i, state, 0);
        }
    }
    while (again && !grammar_tick(b)) {
        again = 0;
        for (i = b->rules_n; i-- > 0;) {
            if (l->reached[i]) {
                first_of(b, &b->rules[i], &again);
            }
        }
    }
    grammar_scratch_free(b, state, b->rules_n + 1);
}


/* --- numbers ------------------------------------------------------------ */

/* From the grammar's own memory. */
static void *
own(link_t *l, size_t n)
{
    void *p = NULL;

    /* what is built and what it is built from are there at once */
    if (!grammar_spend(l->b, n / 64) && grammar_hold(l->b, n) == 0) {
        p = grammar_arena_get(&l->g->mem, n);
    }

    if (p == NULL) {
        grammar_fail(l->b, "the grammar needs too much memory");
    }

    return p;
}


/* Does a state accept, and lead nowhere?  Then it is POS_DONE. */
static int
is_bare(const grammar_dfa_t *d, uint32_t s)
{
    uint32_t c;

    assert(s > 0 && s < d->states);
    if (d->accept[s] == 0
        || (d->call_at != NULL && d->call_at[s] != d->call_at[s + 1])) {
        return 0;
    }
    for (c = 0; c < d->classes; c++) {
        if (d->next[s * d->classes + c] != 0) {
            return 0;
        }
    }

    return 1;
}


/* Gives a rule its places; its first is at *at, which is moved behind them.  An
 * object has three for its frame, then its keys' automaton. */
static void
number(link_t *l, grammar_rule_t *r, uint32_t *at)
{
    switch (r->kind) {
    case RULE_OBJECT:
        r->pos = *at;
        *at += 4 + r->u.object->key->states;
        l->objects_n++;
        break;
    case RULE_ARRAY:
        r->pos = *at;
        *at += 3;
        l->arrays_n++;
        break;
    case RULE_COUNT:
        r->pos = *at;
        *at += 1;
        l->counts_n++;
        break;
    default:
        assert(r->kind == RULE_PLAIN && r->dfa != NULL);
        r->pos = *at;
        *at += r->dfa->states;
        l->calls_cap +=
            r->dfa->call_at == NULL ? 0 : r->dfa->call_at[r->dfa->states];
    }
}


/* The place of a state of an automaton whose state 1 is at base + 1. */
static uint32_t
place(const grammar_dfa_t *d, uint32_t base, uint32_t s)
{
    assert(s < d->states);

    return s == 0 ? POS_DEAD : is_bare(d, s) ? POS_DONE : base + s;
}


/*
 * Copies an automaton's states to places; key: the object that it is of.  Where
 * a rule that is called begins is known only when all are copied (put_all).  A
 * key's states keep their places, since the place behind a key is its object's.
 */
static void
put_dfa(link_t *l, const grammar_dfa_t *d, uint32_t base, uint32_t rule,
    const grammar_obj_t *key, uint32_t spec)
{
    uint8_t *map = own(l, 256);
    uint32_t *next =
        own(l, (size_t) d->states * d->classes * sizeof(*next) + 1);
    grammar_pos_t *p;
    uint32_t s, c, to;

    assert(base + d->states <= l->g->pos_n);
    if (map != NULL) {
        memcpy(map, d->map, 256);
    }
    for (s = 1; s < d->states && !grammar_spend(l->b, d->classes); s++) {
        p = &l->g->pos[base + s];
        p->kind = key != NULL ? POS_KEY : POS_PLAIN;
        p->spec = spec;
        p->rule = rule;
        p->map = map;
        p->next = next + (size_t) s * d->classes;
        p->accept = d->accept[s] != 0;
        p->key_class = key != NULL ? d->accept[s] : 0;
        for (c = 0; c < d->classes; c++) {
            to = d->next[s * d->classes + c];
            p->next[c] =
                key != NULL ? (to == 0 ? 0 : base + to) : place(d, base, to);
        }
        p->calls = l->calls_n;
        for (c = d->call_at == NULL ? 0 : d->call_at[s];
             d->call_at != NULL && c < d->call_at[s + 1]; c++) {
            assert(l->calls_n < l->calls_cap);
            l->g->calls[l->calls_n].rule = d->calls[c].sym;
            l->g->calls[l->calls_n].pos = l->b->rules[d->calls[c].sym].pos;
            l->g->calls[l->calls_n++].to = place(d, base, d->calls[c].to);
        }
        p->calls_n = l->calls_n - p->calls;
    }
}


/* Which names a key may still become: [lo, hi), and whether another one.  Names
 * are numbered in the order of their bytes, so those with a common beginning
 * are a range.  Backwards until nothing changes. */
static void
key_ranges(link_t *l, const grammar_dfa_t *d, uint32_t base, uint32_t props)
{
    grammar_pos_t *p, *q;
    uint32_t s, c, lo, hi;
    int again = 1, nameless;

    assert(base + d->states <= l->g->pos_n);
    while (again) {
        again = 0;
        for (s = d->states; s-- > 1 && !grammar_spend(l->b, 2 * d->classes);) {
            p = &l->g->pos[base + s];
            lo = p->hi == 0 ? props : p->lo;
            hi = p->hi;
            nameless = p->nameless;
            if (p->key_class > props) {
                nameless = 1;
            } else if (p->key_class > 0) {
                lo = p->key_class - 1 < lo ? p->key_class - 1 : lo;
                hi = p->key_class > hi ? p->key_class : hi;
            }
            for (c = 0; c < d->classes; c++) {
                if (p->next[c] != 0) {
                    q = &l->g->pos[p->next[c]];
                    lo = q->hi > 0 && q->lo < lo ? q->lo : lo;
                    hi = q->hi > hi ? q->hi : hi;
                    nameless |= q->nameless;
                }
            }
            again |= hi != p->hi || (hi > 0 && lo != p->lo)
                     || nameless != p->nameless;
            p->lo = hi > 0 ? lo : 0;
            p->hi = hi;
            p->nameless = (uint8_t) nameless;
        }
    }
}


/* A place whose frame it is; spec: of its object, array or count. */
static void
put_frame(link_t *l, uint32_t pos, int kind, uint32_t spec, uint32_t rule)
{
    grammar_pos_t *p = &l->g->pos[pos];

    assert(pos > POS_DONE && pos < l->g->pos_n);
    p->kind = (uint8_t) kind;
    p->spec = spec;
    p->rule = rule;
}


/* Who requires one that requires others requires them too, and so does the
 * object: where properties come in order it must be known before the first of
 * them is passed. */
static void
deps_close(link_t *l, grammar_object_t *o)
{
    uint32_t i, k, w, *dep, *other;
    int again = 1;

    while (again && !grammar_tick(l->b)) {
        again = 0;
        for (i = 0; i <= o->deps_n; i++) {
            dep = i == o->deps_n ? o->required
                                 : o->deps + (size_t) i * (1 + o->words) + 1;
            if (grammar_spend(l->b, 2 * o->deps_n)) {
                return;
            }
            for (k = 0; k < o->deps_n; k++) {
                other = o->deps + (size_t) k * (1 + o->words);
                if (!(dep[other[0] / 32] >> other[0] % 32 & 1)) {
                    continue;
                }
                for (w = 0; w < o->words; w++) {
                    again |= (other[1 + w] & ~dep[w]) != 0;
                    dep[w] |= other[1 + w];
                }
            }
        }
    }
}


/* An object's places and all that the matcher must know of it.  Members are
 * counted as far as a bound asks: to the end if there is a maximum, else up to
 * the minimum, so that states beyond look alike. */
static void
put_object(link_t *l, uint32_t rule)
{
    grammar_rule_t *r = &l->b->rules[rule];
    grammar_object_t *o = r->u.object;
    uint32_t k = l->objects_n++, c, words = o->words;
    grammar_obj_t *x = &l->g->objects[k];

    assert(r->kind == RULE_OBJECT && r->pos > POS_DONE);
    x->o = *o;
    x->open = r->pos;
    x->next = r->pos + 1;
    x->member = r->pos + 2;
    x->key = grammar_dfa_empty(o->key) ? POS_DEAD : r->pos + 4;
    x->ordered = l->b->o.ordered && !o->array;
    x->counts = o->max != GRAMMAR_MANY ? GRAMMAR_MANY : o->min;
    x->distinct = o->min > 1 && o->classes > o->props;
    put_frame(l, x->open, POS_OPEN, k, rule);
    put_frame(l, x->next, POS_NEXT, k, rule);
    put_frame(l, x->member, POS_MEMBER, k, rule);

    x->value = own(l, (o->classes + 1) * sizeof(*x->value));
    x->o.required = own(l, words * sizeof(uint32_t) + 1);
    x->o.order = own(l, o->props * sizeof(uint32_t) + 1);
    x->o.deps = own(l, o->deps_n * (1 + words) * sizeof(uint32_t) + 1);
    if (l->b->failed) {
        return;
    }
    memcpy(x->o.required, o->required, words * sizeof(uint32_t));
    memcpy(x->o.order, o->order, o->props * sizeof(uint32_t));
    if (o->deps_n > 0) {
        memcpy(x->o.deps, o->deps, o->deps_n * (1 + words) * sizeof(uint32_t));
        deps_close(l, &x->o);
    }
    for (c = 0; c < o->classes; c++) {
        x->value[c] = o->rule[c] == GRAMMAR_MANY ? POS_DEAD
                      : o->array                 ? x->member
                                 : l->b->rules[o->rule[c]].pos + 1;
    }
    x->o.key = NULL;
    x->o.rule = NULL;
    put_dfa(l, o->key, r->pos + 3, rule, x, k);
    if (!l->b->failed) {
        key_ranges(l, o->key, r->pos + 3, o->props);
    }
}


/* As put_object; the first items are told apart, so they are counted too. */
static void
put_array(link_t *l, uint32_t rule)
{
    grammar_rule_t *r = &l->b->rules[rule];
    const grammar_array_t *a = r->u.array;
    uint32_t k = l->arrays_n++;
    grammar_arr_t *x = &l->g->arrays[k];

    assert(r->kind == RULE_ARRAY && r->pos > POS_DONE);
    x->prefix_n = a->prefix_n;
    x->rest = a->rest;
    x->min = a->min;
    x->max = a->max;
    x->counts = a->min > a->prefix_n ? a->min : a->prefix_n;
    x->counts = a->max != GRAMMAR_MANY ? GRAMMAR_MANY : x->counts;
    x->first = r->pos;
    x->item = r->pos + 1;
    x->items = r->pos + 2;
    put_frame(l, x->first, POS_FIRST, k, rule);
    put_frame(l, x->item, POS_ITEM, k, rule);
    put_frame(l, x->items, POS_ITEMS, k, rule);
    x->prefix = own(l, a->prefix_n * sizeof(uint32_t) + 1);
    if (x->prefix != NULL && a->prefix_n > 0) {
        memcpy(x->prefix, a->prefix, a->prefix_n * sizeof(uint32_t));
    }
}


/* A counted repetition is one place. */
static void
put_count(link_t *l, uint32_t rule)
{
    grammar_rule_t *r = &l->b->rules[rule];
    uint32_t k = l->counts_n++;
    grammar_cnt_t *x = &l->g->counts[k];

    assert(r->kind == RULE_COUNT && r->pos > POS_DONE);
    x->rule = r->u.count.rule;
    x->max = r->u.count.max;
    /* an item that may be nothing may be so as often as is asked */
    x->min = l->b->rules[x->rule].nullable ? 0 : r->u.count.min;
    x->counts = x->max != GRAMMAR_MANY ? GRAMMAR_MANY : x->min;
    x->pos = r->pos;
    put_frame(l, x->pos, POS_COUNT, k, rule);
}


/* --- the whole ---------------------------------------------------------- */

/* Numbers the places of all rules that are reached, then fills them in.  Rules
 * keep their numbers; those that are not reached have no place. */
static void
put_all(link_t *l)
{
    grammar_build_t *b = l->b;
    grammar_t *g = l->g;
    grammar_rule_t *r;
    uint32_t i, at = 2;

    for (i = 0; i < b->rules_n; i++) {
        if (l->reached[i]) {
            number(l, &b->rules[i], &at);
        }
    }
    g->pos_n = at;
    g->pos = own(l, at * sizeof(*g->pos));
    g->calls = own(l, (l->calls_cap + 1) * sizeof(*g->calls));
    g->objects = own(l, (l->objects_n + 1) * sizeof(*g->objects));
    g->arrays = own(l, (l->arrays_n + 1) * sizeof(*g->arrays));
    g->counts = own(l, (l->counts_n + 1) * sizeof(*g->counts));
    g->rules = own(l, (b->rules_n + 1) * sizeof(*g->rules));
    l->objects_n = l->arrays_n = l->counts_n = 0;
    if (b->failed) {
        return;
    }

    g->pos[POS_DONE].accept = 1;
    for (i = 0; i < b->rules_n && !b->failed; i++) {
        r = &b->rules[i];
        if (!l->reached[i]) {
            continue;
        }
        if (r->kind == RULE_OBJECT) {
            put_object(l, i);
        } else if (r->kind == RULE_ARRAY) {
            put_array(l, i);
        } else if (r->kind == RULE_COUNT) {
            put_count(l, i);
        } else {
            put_dfa(l, r->dfa, r->pos, i, NULL, 0);
        }
    }
    assert(l->calls_n <= l->calls_cap);

    for (i = 0; i < b->rules_n && !b->failed; i++) {
        r = &g->rules[i];
        *r = b->rules[i];
        r->name = NULL;
        /* a plain rule begins at its automaton's first state */
        if (r->kind == RULE_PLAIN && l->reached[i]) {
            r->pos = grammar_dfa_empty(r->dfa) ? POS_DEAD : r->pos + 1;
        }
        r->dfa = NULL;
    }
    for (i = 0; i < l->calls_n && !b->failed; i++) {
        g->calls[i].pos = g->rules[g->calls[i].rule].pos;
    }
    g->rules_n = b->rules_n;
}


/* 0, or -1: failed, and the grammar is not whole. */
static int
link_run(link_t *l, uint32_t root)
{
    grammar_build_t *b = l->b;
    uint32_t start;

    assert(root < b->rules_n);
    /* a root that is an object or counts is called by one that is plain */
    start = grammar_rule(b, NULL);
    if (b->failed) {
        return -1;
    }
    b->rules[start].node = grammar_ref_node(b, root);
    derive(b);
    if (!b->failed && !b->rules[start].productive
        && !b->rules[start].nullable) {
        grammar_fail(b, "nothing can satisfy it");
    }

    l->tail_n = b->rules_n;
    l->tail = grammar_scratch(b, b->rules_n * sizeof(*l->tail));
    l->reached = grammar_scratch(b, (size_t) b->rules_n * 2 + 1);
    l->g = calloc(1, sizeof(*l->g));
    if (l->g == NULL) {
        grammar_fail(b, "the grammar needs too much memory");
    }
    if (b->failed) {
        return -1;
    }

    reach_all(l, start);
    if (!b->failed) {
        firsts(l);
    }
    if (!b->failed) {
        put_all(l);
    }
    if (!b->failed) {
        l->g->root = l->g->rules[start].pos;
        l->g->white = !b->o.compact;
        l->g->masks_max =
            b->o.masks_max == 0 ? GRAMMAR_MASKS_MAX : b->o.masks_max;
        grammar_plain(b, l->g, l->counts_n);
    }

    return b->failed ? -1 : 0;
}


grammar_t *
grammar_link(grammar_build_t *b, uint32_t root)
{
    link_t l;
    int rc = -1;

    memset(&l, 0, sizeof(l));
    l.b = b;
    if (!b->failed) {
        rc = link_run(&l, root);
    }
    if (rc != 0 && l.g != NULL) {
        grammar_arena_free(&l.g->mem);
        free(l.g);
        l.g = NULL;
    }
    if (l.g != NULL) {
        l.g->refs = 1;
        rc = pthread_mutex_init(&l.g->lock, NULL);
        assert(rc == 0);
    }
    free(l.tail);
    free(l.reached);
    grammar_build_close(b);

    return l.g;
}


grammar_t *
grammar_ref(grammar_t *g)
{
    uint32_t was = __atomic_fetch_add(&g->refs, 1, __ATOMIC_RELAXED);

    assert(was > 0);
    (void) was;

    return g;
}


void
grammar_close(grammar_t *g)
{
    if (g == NULL || __atomic_sub_fetch(&g->refs, 1, __ATOMIC_ACQ_REL) > 0) {
        return;
    }
    grammar_masks_free(g);
    (void) pthread_mutex_destroy(&g->lock);
    grammar_arena_free(&g->mem);
    free(g);
}


size_t
grammar_memory(const grammar_t *g)
{
    return sizeof(*g) + g->mem.used + grammar_masks_memory(g);
}
