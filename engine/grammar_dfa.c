/*
 * Automata that are in one state at a time.
 *
 * DESIGN.  The subset construction (Rabin and Scott): subsets of an automaton's
 * states, made from the beginning on, over classes of bytes that nothing tells
 * apart.  Calls of rules are symbols beside the bytes: where a rule is called
 * from a set of states, one state stands behind the call for all who called.
 *
 * "^" and "$" are edges taken where the text begins or ends: the first set is
 * closed over the former, and a set accepts if the latter lead to an end.
 *
 * Two automata at once (and, but) are walked in pairs, the product; a minimum
 * (Hopcroft's) is not sought, since tables are small and compiling is what a
 * request waits for.  Derivatives of expressions (Brzozowski's) would have
 * "and" and "not" for nothing, but are finite only if each is brought into a
 * normal form; sets of numbers and pairs of them have one.  States that lead
 * nowhere are dropped each time: a text that may begin so can always be brought
 * to an end.
 *
 *      state 0: dead; 1: the beginning; an empty automaton has state 0 only
 *
 * Tables are the build's; work memory is freed on return.
 *
 * A state of the result is the sorted list of those states that matter: that
 * have a byte, a call or an end; what they lead to for nothing is in the list
 * too.  Lists are found by their hash.
 *
 *      nfa states {3, 7, 9}  --byte class 2-->  {4, 9}  --...
 *                            --call of rule 5-->  {12}
 *
 * Time is linear in states times classes times edges of a state.  The limit
 * GRAMMAR_DFA_MAX bounds the first, and the clock is asked for each state that
 * is made.
 */
#include "grammar_impl.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* A target, in a list of those of one class; 0 ends it. */
typedef struct {
    uint32_t to, next;
} subset_todo_t;

/* Subsets under construction. */
typedef struct {
    grammar_build_t *b;
    const grammar_nfa_t *m;
    grammar_dfa_t *d;
    uint32_t ends;        /* alternatives */
    uint32_t *seen, gen;  /* [nfa states] */
    uint32_t *stack;      /* [nfa states] */
    uint32_t *set, set_n; /* [nfa states]: the closure just made */
    uint32_t *items, items_n, items_cap;
    uint32_t *at, at_cap;  /* of each state in items; one more */
    uint32_t *table, mask; /* state numbers by hash */
    uint32_t *next, next_cap;
    uint32_t *accept, accept_cap;
    uint32_t *call_at, call_at_cap;
    grammar_call_t *calls;
    uint32_t calls_n, calls_cap;
    grammar_call_t *called; /* of one state, as it is put together */
    uint32_t called_n, called_cap;
    subset_todo_t *todo; /* targets, by class */
    uint32_t todo_cap;
    uint32_t head[256];
    grammar_pick_t pick;
    void *arg;
} subset_t;


/* --- classes ------------------------------------------------------------ */

/* Bytes between two neighbouring ends of ranges are one class. */
static void
classes_of(const grammar_nfa_t *m, grammar_dfa_t *d)
{
    uint8_t cut[257] = {0};
    uint32_t i;

    for (i = 1; i < m->edges_n; i++) {
        if (m->edges[i].kind == EDGE_BYTE) {
            cut[m->edges[i].lo] = 1;
            cut[m->edges[i].hi + 1] = 1;
        }
    }
    d->classes = 1;
    for (i = 0; i < 256; i++) {
        d->classes += i > 0 && cut[i];
        d->map[i] = (uint8_t) (d->classes - 1);
    }
    assert(d->classes <= 256);
}


/* --- closures ----------------------------------------------------------- */

/* Does a state matter beyond what it leads to for nothing? */
static int
matters(const subset_t *s, uint32_t state)
{
    uint32_t e;

    assert(state < s->m->states);
    if (state < s->ends) {
        return 1;
    }
    for (e = s->m->first[state]; e != 0; e = s->m->edges[e].next) {
        if (s->m->edges[e].kind >= EDGE_BYTE
            && s->m->edges[e].kind != EDGE_BEGIN) {
            return 1;
        }
    }

    return 0;
}


/* An empty closure.  A state is in it if its mark is this one's number, so that
 * nothing has to be cleared. */
static void
closure_open(subset_t *s)
{
    assert(s->gen < UINT32_MAX);

    s->gen++;
    s->set_n = 0;
}


/* Adds a state and all that it leads to for nothing: by empty edges, and those
 * that are open at the text's beginning or end.  Depth first; a state is marked
 * when it is stacked, so each is stacked once and the stack has room. */
static void
closure_add(subset_t *s, uint32_t state, int begin, int end)
{
    const grammar_edge_t *edges = s->m->edges;
    uint32_t n = 0, e, steps = 0;

    assert(state < s->m->states);
    if (s->seen[state] == s->gen) {
        return;
    }
    s->seen[state] = s->gen;
    s->stack[n++] = state;

    while (n > 0) {
        state = s->stack[--n];
        if (matters(s, state)) {
            s->set[s->set_n++] = state;
        }
        for (e = s->m->first[state]; e != 0; e = edges[e].next) {
            steps++;
            if ((edges[e].kind == EDGE_NONE
                    || (edges[e].kind == EDGE_BEGIN && begin)
                    || (edges[e].kind == EDGE_END && end))
                && s->seen[edges[e].to] != s->gen) {
                s->seen[edges[e].to] = s->gen;
                s->stack[n++] = edges[e].to;
            }
        }
    }
    assert(s->set_n <= s->m->states);
    (void) grammar_spend(s->b, steps + 4);
}


static int
by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *) a, y = *(const uint32_t *) b;

    return (x > y) - (x < y);
}


/* The closure in order: by insertion if it is small, as it mostly is, and by
 * the marks of all states if it is a good part of them. */
static void
closure_sort(subset_t *s)
{
    uint32_t i, k, x, *v = s->set, n = s->set_n;

    if (n > 32 && n > s->m->states / 16) {
        for (i = k = 0; k < n; i++) {
            if (s->seen[i] == s->gen && matters(s, i)) {
                v[k++] = i;
            }
        }
        assert(i <= s->m->states);
        (void) grammar_spend(s->b, i);
        return;
    }
    if (n > 32) {
        qsort(v, n, sizeof(*v), by_number);
        (void) grammar_spend(s->b, 16 * (size_t) n);
        return;
    }
    for (i = 1; i < n; i++) {
        x = v[i];
        for (k = i; k > 0 && v[k - 1] > x; k--) {
            v[k] = v[k - 1];
        }
        v[k] = x;
    }
}


/* --- states ------------------------------------------------------------- */

static uint32_t
hash(const uint32_t *v, uint32_t n)
{
    uint64_t h = n;
    uint32_t i;

    for (i = 0; i < n; i++) {
        h = (h ^ v[i]) * 0x9e3779b97f4a7c15ull;
        h ^= h >> 29;
    }

    return (uint32_t) (h ^ h >> 32);
}


/* Keeps the table at most half full. 0, or -1: failed.  The dead state, 0, is
 * not in it: 0 is an empty place. */
static int
table_grow(subset_t *s)
{
    uint32_t size = (s->mask + 1) * 2, i, k, *more;

    if (s->table != NULL && s->d->states * 2 < s->mask) {
        return 0;
    }
    size = size < 64 ? 64 : size;
    assert((size & (size - 1)) == 0);
    more = grammar_scratch(s->b, size * sizeof(*more));
    if (more == NULL || grammar_spend(s->b, s->items_n)) {
        grammar_scratch_free(s->b, more, size * sizeof(*more));
        return -1;
    }
    for (i = 1; i < s->d->states; i++) {
        k = hash(s->items + s->at[i], s->at[i + 1] - s->at[i]);
        while (more[k & (size - 1)] != 0) {
            k++;
        }
        more[k & (size - 1)] = i;
    }
    grammar_scratch_free(s->b, s->table, (s->mask + 1) * sizeof(*more));
    s->table = more;
    s->mask = size - 1;

    return 0;
}


/* Appends the closure as a new state; 0: failed. */
static uint32_t
state_put(subset_t *s)
{
    grammar_dfa_t *d = s->d;
    uint32_t i;

    assert(s->set_n > 0 || d->states == 0); /* the dead one only is empty */
    if (d->states == GRAMMAR_DFA_MAX) {
        return grammar_fail(s->b, "a rule or pattern needs more than %u states",
            GRAMMAR_DFA_MAX);
    }

    for (i = 0; i < s->set_n; i++) {
        if (grammar_room(
                s->b, &s->items, s->items_n, &s->items_cap, sizeof(uint32_t))
            != 0) {
            return 0;
        }
        s->items[s->items_n++] = s->set[i];
    }
    if (grammar_room(s->b, &s->at, d->states + 1, &s->at_cap, sizeof(uint32_t))
        != 0) {
        return 0;
    }
    s->at[d->states + 1] = s->items_n;
    if (s->items_n > GRAMMAR_NFA_MAX * 8) {
        return grammar_fail(s->b, "a rule or pattern is too ambiguous");
    }

    return d->states++;
}


/* The state that the closure is; 0: it is empty, or failed. */
static uint32_t
state_of(subset_t *s)
{
    uint32_t k, i;

    if (s->set_n == 0 || grammar_tick(s->b) || table_grow(s) != 0) {
        return 0;
    }

    closure_sort(s);
    (void) grammar_spend(s->b, s->set_n);
    for (k = hash(s->set, s->set_n);; k++) {
        i = s->table[k & s->mask];
        if (i == 0) {
            break;
        }
        if (s->at[i + 1] - s->at[i] == s->set_n
            && memcmp(s->items + s->at[i], s->set, s->set_n * sizeof(*s->set))
                   == 0) {
            return i;
        }
    }

    i = state_put(s);
    s->table[k & s->mask] = i;

    return i;
}


/* --- one state's ways on ------------------------------------------------ */

/* Do two classes lead to the same, in the same order?  Neighbours often do: a
 * range of bytes is cut where another begins. */
static int
same_list(subset_t *s, uint32_t x, uint32_t y)
{
    uint32_t steps = 0;

    while (x != 0 && y != 0 && s->todo[x].to == s->todo[y].to) {
        x = s->todo[x].next;
        y = s->todo[y].next;
        steps++;
    }
    (void) grammar_spend(s->b, steps);

    return x == 0 && y == 0;
}


/* Sorts where a state's edges lead to by classes of bytes. */
static int
todo_of(subset_t *s, uint32_t state)
{
    const grammar_edge_t *e;
    uint32_t i, k, c, n = 1;

    assert(state < s->d->states && s->d->classes <= 256);
    memset(s->head, 0, s->d->classes * sizeof(s->head[0]));
    for (i = s->at[state]; i < s->at[state + 1]; i++) {
        for (k = s->m->first[s->items[i]]; k != 0; k = e->next) {
            e = &s->m->edges[k];
            if (e->kind != EDGE_BYTE) {
                continue;
            }
            c = s->d->map[e->lo];
            if (grammar_spend(s->b, 1u + s->d->map[e->hi] - c)) {
                return -1;
            }
            for (; c <= s->d->map[e->hi]; c++) {
                while (n >= s->todo_cap) {
                    if (grammar_room(s->b, &s->todo, s->todo_cap, &s->todo_cap,
                            sizeof(*s->todo))
                        != 0) {
                        return -1;
                    }
                }
                s->todo[n].to = e->to;
                s->todo[n].next = s->head[c];
                s->head[c] = n++;
            }
        }
    }

    return 0;
}


/* Where a state leads by each class of bytes: the closure of all targets. */
static int
bytes_of(subset_t *s, uint32_t state)
{
    uint32_t i, c, to = 0;

    if (todo_of(s, state) != 0) {
        return -1;
    }

    for (c = 0; c < s->d->classes; c++) {
        if (c == 0 || !same_list(s, s->head[c], s->head[c - 1])) {
            closure_open(s);
            for (i = s->head[c]; i != 0; i = s->todo[i].next) {
                closure_add(s, s->todo[i].to, 0, 0);
            }
            to = state_of(s);
        }
        i = state * s->d->classes + c;
        if (grammar_room(s->b, &s->next, i, &s->next_cap, sizeof(*s->next))
            != 0) {
            return -1;
        }
        s->next[i] = to;
    }

    return 0;
}


/* A call of a rule; the closure is what stands behind it, which is not nothing:
 * it was entered by a call's edge. */
static int
call_put(subset_t *s, uint32_t sym)
{
    uint32_t to = state_of(s);

    if (grammar_room(
            s->b, &s->calls, s->calls_n, &s->calls_cap, sizeof(*s->calls))
        != 0) {
        return -1;
    }
    s->calls[s->calls_n].sym = sym;
    s->calls[s->calls_n++].to = to;
    assert(to != 0 || s->b->failed);

    return 0;
}


static int
by_rule(const void *a, const void *b)
{
    const grammar_call_t *x = a, *y = b;

    return x->sym != y->sym ? (x->sym > y->sym ? 1 : -1)
                            : (x->to > y->to) - (x->to < y->to);
}


/* The calls that leave a state's members, in the order of rules. */
static int
called_of(subset_t *s, uint32_t state)
{
    const grammar_edge_t *e;
    uint32_t i, k, steps = 0;

    s->called_n = 0;
    for (i = s->at[state]; i < s->at[state + 1]; i++) {
        for (k = s->m->first[s->items[i]]; k != 0; k = e->next, steps++) {
            e = &s->m->edges[k];
            if (e->kind != EDGE_CALL) {
                continue;
            }
            if (grammar_room(s->b, &s->called, s->called_n, &s->called_cap,
                    sizeof(*s->called))
                != 0) {
                return -1;
            }
            s->called[s->called_n].sym = e->sym;
            s->called[s->called_n++].to = e->to;
        }
    }
    if (s->called_n > 1) {
        qsort(s->called, s->called_n, sizeof(*s->called), by_rule);
    }

    return grammar_spend(s->b, steps + 16 * (size_t) s->called_n) ? -1 : 0;
}


/* Each rule that is called from a state, once, with all that stands behind. */
static int
calls_of(subset_t *s, uint32_t state)
{
    uint32_t i, sym;

    if (called_of(s, state) != 0) {
        return -1;
    }
    for (i = 0; i < s->called_n;) {
        sym = s->called[i].sym;
        closure_open(s);
        for (; i < s->called_n && s->called[i].sym == sym; i++) {
            closure_add(s, s->called[i].to, 0, 0);
        }
        if (call_put(s, sym) != 0) {
            return -1;
        }
    }

    if (grammar_room(
            s->b, &s->call_at, state + 1, &s->call_at_cap, sizeof(*s->call_at))
        != 0) {
        return -1;
    }
    s->call_at[state + 1] = s->calls_n;

    return 0;
}


/* Which alternatives end in a state, if the text does.  The beginning is where
 * both edges of a text may be at once: "^$" takes the empty one. */
static int
accept_of(subset_t *s, uint32_t state)
{
    uint32_t i, n = 0, a = 0;

    closure_open(s);
    for (i = s->at[state]; i < s->at[state + 1]; i++) {
        closure_add(s, s->items[i], state == 1, 1);
    }
    closure_sort(s);
    while (n < s->set_n && s->set[n] < s->ends) {
        n++;
    }
    if (n > 0) {
        a = s->pick != NULL ? s->pick(s->arg, s->set, n) : s->set[0] + 1;
    }

    if (grammar_room(
            s->b, &s->accept, state, &s->accept_cap, sizeof(*s->accept))
        != 0) {
        return -1;
    }
    s->accept[state] = a;

    return 0;
}


/* --- the whole ---------------------------------------------------------- */

/* A copy in the build's memory; NULL: failed. */
static void *
keep(grammar_build_t *b, const void *p, size_t n)
{
    void *q = grammar_get(b, n == 0 ? 1 : n);

    if (q != NULL && n > 0) {
        memcpy(q, p, n);
    }

    return q;
}


/* The tables, from the growing ones.  One that calls nothing has no calls. */
static void
subset_keep(subset_t *s)
{
    grammar_dfa_t *d = s->d;

    assert(d->states > 0 && d->classes > 0);
    d->next =
        keep(s->b, s->next, (size_t) d->states * d->classes * sizeof(*s->next));
    d->accept = keep(s->b, s->accept, d->states * sizeof(*s->accept));
    if (s->calls_n > 0) {
        d->call_at =
            keep(s->b, s->call_at, (d->states + 1) * sizeof(*s->call_at));
        d->calls = keep(s->b, s->calls, s->calls_n * sizeof(*s->calls));
    }
}


/* States in the order in which they are met, each with its ways on, until none
 * is left that is new. */
static void
subset_run(subset_t *s)
{
    grammar_dfa_t *d = s->d;
    uint32_t state;

    /* the dead one */
    d->states = 0;
    if (grammar_room(s->b, &s->at, 0, &s->at_cap, sizeof(*s->at)) != 0) {
        return;
    }
    s->at[0] = 0;
    s->set_n = 0;
    (void) state_put(s);
    assert(s->b->failed || d->states == 1);

    closure_open(s);
    closure_add(s, s->ends, 1, 0);
    (void) state_of(s);

    for (state = 0; state < d->states && !s->b->failed; state++) {
        if (bytes_of(s, state) != 0 || calls_of(s, state) != 0
            || accept_of(s, state) != 0) {
            return;
        }
    }
}


static void
subset_free(subset_t *s)
{
    grammar_build_t *b = s->b;
    size_t n = s->m->states * sizeof(uint32_t);

    grammar_scratch_free(b, s->seen, n);
    grammar_scratch_free(b, s->stack, n);
    grammar_scratch_free(b, s->set, n);
    grammar_scratch_free(b, s->table, (s->mask + 1) * sizeof(uint32_t));
    grammar_room_free(b, &s->items, &s->items_cap, sizeof(*s->items));
    grammar_room_free(b, &s->at, &s->at_cap, sizeof(*s->at));
    grammar_room_free(b, &s->todo, &s->todo_cap, sizeof(*s->todo));
    grammar_room_free(b, &s->next, &s->next_cap, sizeof(*s->next));
    grammar_room_free(b, &s->accept, &s->accept_cap, sizeof(*s->accept));
    grammar_room_free(b, &s->call_at, &s->call_at_cap, sizeof(*s->call_at));
    grammar_room_free(b, &s->calls, &s->calls_cap, sizeof(*s->calls));
    grammar_room_free(b, &s->called, &s->called_cap, sizeof(*s->called));
}


grammar_dfa_t *
grammar_dfa(grammar_build_t *b, const uint32_t *nodes, uint32_t n,
    grammar_pick_t pick, void *arg)
{
    grammar_nfa_t m;
    subset_t s;

    assert(nodes != NULL || n == 0);
    memset(&s, 0, sizeof(s));
    s.b = b;
    s.m = &m;
    s.ends = n;
    s.pick = pick;
    s.arg = arg;
    s.d = grammar_get(b, sizeof(*s.d));

    if (grammar_nfa(b, &m, nodes, n) != 0 || s.d == NULL) {
        goto done;
    }

    classes_of(&m, s.d);
    (void) grammar_spend(b, m.edges_n / 4);
    s.seen = grammar_scratch(b, m.states * sizeof(uint32_t));
    s.stack = grammar_scratch(b, m.states * sizeof(uint32_t));
    s.set = grammar_scratch(b, m.states * sizeof(uint32_t));
    if (s.seen == NULL || s.stack == NULL || s.set == NULL
        || grammar_room(b, &s.call_at, 0, &s.call_at_cap, sizeof(uint32_t))
               != 0) {
        goto done;
    }
    s.call_at[0] = 0;

    subset_run(&s);
    if (!b->failed) {
        subset_keep(&s);
    }
    if (!b->failed) {
        grammar_dfa_trim(b, s.d);
    }

done:
    subset_free(&s);
    grammar_nfa_free(b, &m);

    return b->failed ? NULL : s.d;
}


/* --- what leads nowhere ------------------------------------------------- */

/* Marks states that lead to an accepting one, backwards until nothing changes:
 * numbers mostly grow along the way, so this is few rounds. */
static void
alive_mark(grammar_build_t *b, const grammar_dfa_t *d, uint8_t *alive)
{
    uint32_t s, c;
    int again = 1;

    assert(d->classes > 0);
    while (again) {
        again = 0;
        for (s = d->states; s-- > 1 && !grammar_spend(b, 1);) {
            if (alive[s]) {
                continue;
            }
            (void) grammar_spend(b, d->classes);
            alive[s] = d->accept[s] != 0;
            for (c = 0; c < d->classes && !alive[s]; c++) {
                alive[s] = alive[d->next[s * d->classes + c]];
            }
            for (c = d->call_at == NULL ? 0 : d->call_at[s];
                 d->call_at != NULL && c < d->call_at[s + 1] && !alive[s];
                 c++) {
                alive[s] = alive[d->calls[c].to];
            }
            again |= alive[s];
        }
    }
}


/* Drops states in place: number[s] <= s. */
static void
states_move(
    grammar_build_t *b, grammar_dfa_t *d, const uint32_t *number, uint32_t n)
{
    uint32_t s, c, k = 0, to, from = 0, end;

    assert(n >= 1 && n <= d->states);
    for (s = 0; s < d->states && !grammar_spend(b, d->classes); s++) {
        end = d->call_at == NULL ? 0 : d->call_at[s + 1];
        if (s > 0 && number[s] == 0) {
            from = end;
            continue;
        }
        to = number[s];
        assert(to <= s);
        for (c = 0; c < d->classes; c++) {
            d->next[to * d->classes + c] = number[d->next[s * d->classes + c]];
        }
        d->accept[to] = d->accept[s];
        for (; from < end; from++) {
            if (number[d->calls[from].to] != 0) {
                d->calls[k].sym = d->calls[from].sym;
                d->calls[k++].to = number[d->calls[from].to];
            }
        }
        if (d->call_at != NULL) {
            d->call_at[to + 1] = k;
        }
    }
    d->states = n;
}


/* If the beginning leads nowhere, nothing is left but the dead state. */
void
grammar_dfa_trim(grammar_build_t *b, grammar_dfa_t *d)
{
    uint32_t s, n = 1, was = d->states;
    uint8_t *alive = grammar_scratch(b, was);
    uint32_t *number = grammar_scratch(b, was * sizeof(*number));

    if (alive == NULL || number == NULL) {
        goto done;
    }

    assert(d->states > 0);
    alive_mark(b, d, alive);
    if (d->states > 1 && alive[1]) {
        for (s = 1; s < d->states; s++) {
            number[s] = alive[s] ? n++ : 0;
        }
    }
    if (n < d->states) {
        states_move(b, d, number, n);
    }

done:
    grammar_scratch_free(b, alive, was);
    grammar_scratch_free(b, number, was * sizeof(*number));
}


int
grammar_dfa_empty(const grammar_dfa_t *d)
{
    assert(d->classes > 0);

    return d->states <= 1;
}


uint32_t
grammar_dfa_run(const grammar_dfa_t *d, const char *s, size_t len)
{
    uint32_t state = !grammar_dfa_empty(d);
    size_t i;

    assert(d->call_at == NULL);
    for (i = 0; i < len && state != 0; i++) {
        state = d->next[state * d->classes + d->map[(uint8_t) s[i]]];
    }

    return d->accept[state];
}


/* --- two at once -------------------------------------------------------- */

/* A state of each; y may be the dead one, where only x must accept. */
typedef struct {
    uint32_t x, y;
} pair_t;

/* Pairs met so far, by number; pair 0 is dead. */
typedef struct {
    pair_t *v;
    uint32_t n, cap;
    uint32_t *table, mask; /* numbers by hash; 0: empty */
} pairs_t;


static uint32_t
pair_hash(uint32_t x, uint32_t y)
{
    uint64_t h = ((uint64_t) x << 32 | y) * 0x9e3779b97f4a7c15ull;

    return (uint32_t) (h >> 32);
}


/* Keeps the table at most half full. 0, or -1: failed. */
static int
pairs_grow(grammar_build_t *b, pairs_t *p)
{
    uint32_t size = p->table == NULL ? 256 : (p->mask + 1) * 2, i, k, *more;

    assert(p->n > 0 && p->n <= p->cap);
    if (p->table != NULL && p->n * 2 < p->mask) {
        return 0;
    }
    more = grammar_scratch(b, size * sizeof(*more));
    if (more == NULL) {
        return -1;
    }
    (void) grammar_spend(b, 2 * (size_t) p->n);
    for (i = 1; i < p->n; i++) {
        k = pair_hash(p->v[i].x, p->v[i].y);
        while (more[k & (size - 1)] != 0) {
            k++;
        }
        more[k & (size - 1)] = i;
    }
    grammar_scratch_free(b, p->table, (p->mask + 1) * sizeof(*more));
    p->table = more;
    p->mask = size - 1;

    return 0;
}


/* The number of a pair, 0 if failed. */
static uint32_t
pair_of(grammar_build_t *b, pairs_t *p, uint32_t x, uint32_t y)
{
    uint32_t k, i;

    assert(x != 0 && p->n > 0);
    if (grammar_tick(b) || pairs_grow(b, p) != 0) {
        return 0;
    }
    for (k = pair_hash(x, y);; k++) {
        i = p->table[k & p->mask];
        if (i == 0) {
            break;
        }
        if (p->v[i].x == x && p->v[i].y == y) {
            return i;
        }
    }

    if (p->n == GRAMMAR_DFA_MAX) {
        return grammar_fail(b,
            "patterns that must hold at once need more "
            "than %u states",
            GRAMMAR_DFA_MAX);
    }
    if (grammar_room(b, &p->v, p->n, &p->cap, sizeof(*p->v)) != 0) {
        return 0;
    }
    p->v[p->n].x = x;
    p->v[p->n].y = y;
    p->table[k & p->mask] = p->n;

    return p->n++;
}


/* The classes of both: one of x's with one of y's.  A byte of each in as. */
static void
classes_both(const grammar_dfa_t *x, const grammar_dfa_t *y, grammar_dfa_t *d,
    uint8_t as[256])
{
    uint32_t i, k;

    d->classes = 0;
    for (i = 0; i < 256; i++) {
        for (k = 0; k < d->classes; k++) {
            if (x->map[as[k]] == x->map[i] && y->map[as[k]] == y->map[i]) {
                break;
            }
        }
        if (k == d->classes) {
            as[d->classes++] = (uint8_t) i;
        }
        d->map[i] = (uint8_t) k;
    }
    assert(d->classes >= 1 && d->classes <= 256);
}


/* The product, from both beginnings on.  but: y's complement takes part, whose
 * dead state goes on. */
static void
and_walk(grammar_build_t *b, const grammar_dfa_t *x, const grammar_dfa_t *y,
    int but, grammar_dfa_t *d)
{
    pairs_t p = {NULL, 1, 0, NULL, 0};
    uint32_t i, c, at, to, u, v, next_cap = 0, *next = NULL;
    uint8_t as[256];

    classes_both(x, y, d, as);
    (void) grammar_spend(b, 256 * (size_t) d->classes);
    if (grammar_room(b, &p.v, 0, &p.cap, sizeof(*p.v)) != 0) {
        return;
    }
    memset(&p.v[0], 0, sizeof(p.v[0]));
    if (!grammar_dfa_empty(x)) {
        (void) pair_of(b, &p, 1, !grammar_dfa_empty(y));
    }

    for (i = 0; i < p.n && !grammar_spend(b, 4 * (size_t) d->classes); i++) {
        for (c = 0; c < d->classes; c++) {
            u = x->next[p.v[i].x * x->classes + x->map[as[c]]];
            v = y->next[p.v[i].y * y->classes + y->map[as[c]]];
            to =
                i == 0 || u == 0 || (v == 0 && !but) ? 0 : pair_of(b, &p, u, v);
            at = i * d->classes + c;
            if (grammar_room(b, &next, at, &next_cap, sizeof(*next)) != 0) {
                break;
            }
            next[at] = to;
        }
    }

    d->states = p.n;
    d->next = keep(b, next, (size_t) p.n * d->classes * sizeof(*next));
    d->accept = grammar_get(b, p.n * sizeof(*d->accept));
    for (i = 1; i < p.n && !b->failed; i++) {
        d->accept[i] =
            (y->accept[p.v[i].y] != 0) != (but != 0) ? x->accept[p.v[i].x] : 0;
    }
    grammar_room_free(b, &p.v, &p.cap, sizeof(*p.v));
    grammar_scratch_free(b, p.table, (p.mask + 1) * sizeof(*p.table));
    grammar_room_free(b, &next, &next_cap, sizeof(*next));
}


grammar_dfa_t *
grammar_dfa_and(
    grammar_build_t *b, const grammar_dfa_t *x, const grammar_dfa_t *y, int but)
{
    grammar_dfa_t *d = grammar_get(b, sizeof(*d));

    if (d == NULL || x == NULL || y == NULL) {
        return NULL;
    }

    assert(x->call_at == NULL && y->call_at == NULL);
    and_walk(b, x, y, but, d);
    if (!b->failed) {
        grammar_dfa_trim(b, d);
    }

    return b->failed ? NULL : d;
}


grammar_dfa_t *
grammar_dfa_only(grammar_build_t *b, grammar_dfa_t *d)
{
    assert(d != NULL || b->failed);

    return d == NULL || b->only == NULL ? d : grammar_dfa_and(b, d, b->only, 0);
}
