/*
 * Nodes become states with edges: the automaton that may be in several states.
 *
 * DESIGN.  Thompson's construction: each node leads from one state to another,
 *
 *      x{2,4}      o--x-->o--x-->o--x-->o--x-->o
 *                                |      |      |
 *                                +------+------+---> end
 *
 * and a repetition leaves by one edge from each copy, so that what may be
 * skipped is not walked over.  A set of code points becomes byte sequences;
 * within a JSON string those that must be escaped are written as RFC 8259 has
 * them, in one way for each, so that equal texts are equal bytes.
 *
 * A rule that is called and may be empty is an edge around the call too: then
 * a call always takes a byte.  One that can derive nothing is no edge at all.
 *
 * Recursion follows nesting, which readers limit.
 *
 * Escapes within a JSON string, one for each character that needs one:
 *
 *      "  \"    \  \\    8 \b    9 \t    10 \n    12 \f    13 \r
 *      other control characters: \u00 and two digits, in either case
 *
 * All else stands for itself.  A slash is written as it is.
 */
#include "grammar_impl.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>


/* A state without edges; 0 if failed, which is a state too, so that edges drawn
 * until the failure is seen do no harm. */
static uint32_t
state_new(grammar_build_t *b, grammar_nfa_t *m)
{
    if (grammar_tick(b)) {
        return 0;
    }
    if (m->states == GRAMMAR_NFA_MAX) {
        return grammar_fail(b, "a rule or pattern is too large");
    }
    if (grammar_room(b, &m->first, m->states, &m->states_cap, sizeof(*m->first))
        != 0) {
        return 0;
    }
    m->first[m->states] = 0;

    return m->states++;
}


/* An edge in front of those of from, valid until the next one; NULL: failed. */
static grammar_edge_t *
edge_new(
    grammar_build_t *b, grammar_nfa_t *m, uint32_t from, uint32_t to, int kind)
{
    grammar_edge_t *e;

    if (grammar_room(b, &m->edges, m->edges_n, &m->edges_cap, sizeof(*e))
        != 0) {
        return NULL;
    }
    assert(from < m->states && to < m->states);

    e = &m->edges[m->edges_n];
    memset(e, 0, sizeof(*e));
    e->kind = (uint8_t) kind;
    e->to = to;
    e->next = m->first[from];
    m->first[from] = m->edges_n++;

    return e;
}


/* An edge that takes any byte of lo to hi. */
static void
edge_byte(grammar_build_t *b, grammar_nfa_t *m, uint32_t from, uint32_t to,
    uint8_t lo, uint8_t hi)
{
    grammar_edge_t *e = edge_new(b, m, from, to, EDGE_BYTE);

    assert(lo <= hi);
    if (e != NULL) {
        e->lo = lo;
        e->hi = hi;
    }
}


/* --- code points -------------------------------------------------------- */

/* Where the bytes of a set are put. */
typedef struct {
    grammar_build_t *b;
    grammar_nfa_t *m;
    uint32_t from, to;
} nfa_path_t;


/* One sequence of byte ranges; sequences share only their ends, and the subset
 * construction joins what begins alike. */
static int
put_utf8(void *arg, const uint8_t *lo, const uint8_t *hi, uint32_t n)
{
    const nfa_path_t *p = arg;
    uint32_t at = p->from, next, i;

    assert(n >= 1 && n <= 4);
    for (i = 0; i < n; i++) {
        next = i + 1 == n ? p->to : state_new(p->b, p->m);
        edge_byte(p->b, p->m, at, next, lo[i], hi[i]);
        at = next;
    }

    return p->b->failed ? -1 : 0;
}


/* "\u00" and two digits, in either case. */
static void
put_control(const nfa_path_t *p, uint32_t back, uint32_t c)
{
    uint32_t at = back, next, i;
    uint8_t d = (uint8_t) (c & 15);

    assert(c < 0x20);
    for (i = 0; i < 3; i++) {
        next = state_new(p->b, p->m);
        edge_byte(p->b, p->m, at, next, i == 0 ? 'u' : '0', i == 0 ? 'u' : '0');
        at = next;
    }
    next = state_new(p->b, p->m);
    edge_byte(p->b, p->m, at, next, (uint8_t) ('0' + (c >> 4)),
        (uint8_t) ('0' + (c >> 4)));
    if (d < 10) {
        edge_byte(
            p->b, p->m, next, p->to, (uint8_t) ('0' + d), (uint8_t) ('0' + d));
    } else {
        d = (uint8_t) (d - 10);
        edge_byte(
            p->b, p->m, next, p->to, (uint8_t) ('a' + d), (uint8_t) ('a' + d));
        edge_byte(
            p->b, p->m, next, p->to, (uint8_t) ('A' + d), (uint8_t) ('A' + d));
    }
}


/* What of s must be escaped within a JSON string, behind one backslash that all
 * share. */
static void
put_escapes(const nfa_path_t *p, const grammar_set_t *s)
{
    static const char what[] = "\"\\\b\f\n\r\t", how[] = "\"\\bfnrt";
    uint32_t back = 0, c;
    const char *at;

    _Static_assert(sizeof(what) == sizeof(how), "each has what it is written");
    for (c = 0; c <= '\\'; c++) {
        at = c == 0 ? NULL : strchr(what, (int) c);
        if ((c >= 0x20 && at == NULL) || !grammar_set_has(s, c)) {
            continue;
        }
        if (back == 0) {
            back = state_new(p->b, p->m);
            edge_byte(p->b, p->m, p->from, back, '\\', '\\');
        }
        if (at != NULL) {
            edge_byte(p->b, p->m, back, p->to, (uint8_t) how[at - what],
                (uint8_t) how[at - what]);
        } else {
            put_control(p, back, c);
        }
    }
}


/* A set of code points; within a JSON string what must be escaped is. */
static void
put_set(const nfa_path_t *p, const grammar_set_t *s, int json)
{
    grammar_set_t plain = {NULL, 0, 0};
    int rc = 0;

    assert(p->from < p->m->states);
    if (grammar_spend(p->b, 8 * (size_t) s->n)) {
        return;
    }
    if (!json) {
        (void) grammar_set_utf8(s, put_utf8, (void *) p);
        return;
    }

    /* all but what is escaped */
    if (grammar_set_add(&plain, 0x20, 0x21) != 0
        || grammar_set_add(&plain, 0x23, 0x5b) != 0
        || grammar_set_add(&plain, 0x5d, GRAMMAR_CODE_MAX) != 0
        || grammar_set_and(&plain, s) != 0) {
        rc = -1;
    }
    if (rc == 0) {
        (void) grammar_set_utf8(&plain, put_utf8, (void *) p);
        put_escapes(p, s);
    } else {
        grammar_fail(p->b, "the grammar needs too much memory");
    }
    grammar_set_free(&plain);
}


/* --- nodes -------------------------------------------------------------- */

/* Each of these leads from one state to the other by what the node derives. */
static void put_node(grammar_build_t *b, grammar_nfa_t *m, uint32_t node,
    uint32_t from, uint32_t to);


static void
put_bytes(grammar_build_t *b, grammar_nfa_t *m, const grammar_node_t *n,
    uint32_t from, uint32_t to)
{
    uint32_t i, next;

    assert(from < m->states && to < m->states);
    for (i = 0; i < n->b && !b->failed; i++) {
        next = i + 1 == n->b ? to : state_new(b, m);
        edge_byte(b, m, from, next, (uint8_t) b->text[n->a + i],
            (uint8_t) b->text[n->a + i]);
        from = next;
    }
}


/* Copies, then a loop or a way out of each copy that need not be. */
static void
put_rep(grammar_build_t *b, grammar_nfa_t *m, const grammar_node_t *n,
    uint32_t from, uint32_t to)
{
    uint32_t i, next;

    assert(from < m->states && to < m->states);
    for (i = 0; i < n->min && !b->failed; i++) {
        next = state_new(b, m);
        put_node(b, m, n->a, from, next);
        from = next;
    }

    if (n->max == GRAMMAR_MANY) {
        /* a state of its own: what leads here from before may lead elsewhere */
        next = state_new(b, m);
        (void) edge_new(b, m, from, next, EDGE_NONE);
        put_node(b, m, n->a, next, next);
        from = next;
    }

    for (; i < n->max && n->max != GRAMMAR_MANY && !b->failed; i++) {
        (void) edge_new(b, m, from, to, EDGE_NONE);
        next = state_new(b, m);
        put_node(b, m, n->a, from, next);
        from = next;
    }
    (void) edge_new(b, m, from, to, EDGE_NONE);
}


static void put_ref(grammar_build_t *b, grammar_nfa_t *m, uint32_t rule,
    uint32_t from, uint32_t to);


/* An automaton's states, ranges of bytes and calls, as they are. */
static void
put_dfa(grammar_build_t *b, grammar_nfa_t *m, const grammar_dfa_t *d,
    uint32_t from, uint32_t to)
{
    uint32_t s, c, i, k, n = 0, base = m->states, next;
    uint16_t ends[257]; /* where the next class begins, and where all end */

    assert(from < m->states && to < m->states);
    for (s = 1; s < d->states && !b->failed; s++) {
        (void) state_new(b, m);
    }
    for (c = 0; c < 256; c++) {
        if (c == 0 || d->map[c] != d->map[c - 1]) {
            ends[n++] = (uint16_t) c;
        }
    }
    ends[n] = 256;
    if (grammar_spend(b, n * (size_t) d->states)) {
        return;
    }

    (void) edge_new(b, m, from, base, EDGE_NONE);
    for (s = 1; s < d->states && !b->failed; s++) {
        for (i = 0; i < n; i = k) {
            next = d->next[s * d->classes + d->map[ends[i]]];
            for (k = i + 1;
                 k < n && d->next[s * d->classes + d->map[ends[k]]] == next;
                 k++) {
            }
            if (next != 0) {
                edge_byte(b, m, base + s - 1, base + next - 1,
                    (uint8_t) ends[i], (uint8_t) (ends[k] - 1));
            }
        }
        for (c = d->call_at == NULL ? 0 : d->call_at[s];
             d->call_at != NULL && c < d->call_at[s + 1]; c++) {
            put_ref(
                b, m, d->calls[c].sym, base + s - 1, base + d->calls[c].to - 1);
        }
        if (d->accept[s] != 0) {
            (void) edge_new(b, m, base + s - 1, to, EDGE_NONE);
        }
    }
}


/* A call.  What may be nothing is gone around, so that calls take bytes; what
 * cannot be has no way. */
static void
put_ref(grammar_build_t *b, grammar_nfa_t *m, uint32_t rule, uint32_t from,
    uint32_t to)
{
    const grammar_rule_t *r = &b->rules[rule];
    grammar_edge_t *e;

    assert(from < m->states && to < m->states);
    if (r->nullable) {
        (void) edge_new(b, m, from, to, EDGE_NONE);
    }
    if (r->productive) {
        e = edge_new(b, m, from, to, EDGE_CALL);
        if (e != NULL) {
            e->sym = rule;
        }
    }
}


/* Kids side by side, or one behind the other. */
static void
put_list(grammar_build_t *b, grammar_nfa_t *m, const grammar_node_t *n,
    uint32_t from, uint32_t to)
{
    uint32_t i, next;

    assert(from < m->states && to < m->states);
    for (i = 0; i < n->b && !b->failed; i++) {
        if (n->kind == NODE_ALT) {
            put_node(b, m, b->kids[n->a + i], from, to);
            continue;
        }
        next = i + 1 == n->b ? to : state_new(b, m);
        put_node(b, m, b->kids[n->a + i], from, next);
        from = next;
    }
}


static void
put_node(grammar_build_t *b, grammar_nfa_t *m, uint32_t node, uint32_t from,
    uint32_t to)
{
    const grammar_node_t n = b->nodes[node];
    nfa_path_t p = {b, m, from, to};

    if (grammar_tick(b)) {
        return;
    }

    switch (n.kind) {
    case NODE_EMPTY:
        (void) edge_new(b, m, from, to, EDGE_NONE);
        break;
    case NODE_BYTES:
        put_bytes(b, m, &n, from, to);
        break;
    case NODE_BYTE:
        edge_byte(b, m, from, to, (uint8_t) n.a, (uint8_t) n.b);
        break;
    case NODE_SET:
        put_set(&p, &b->sets[n.a], n.json);
        break;
    case NODE_SEQ:
    case NODE_ALT:
        put_list(b, m, &n, from, to);
        break;
    case NODE_REP:
        put_rep(b, m, &n, from, to);
        break;
    case NODE_REF:
        put_ref(b, m, n.a, from, to);
        break;
    case NODE_DFA:
        put_dfa(b, m, b->dfas[n.a], from, to);
        break;
    case NODE_BEGIN:
    case NODE_END:
        (void) edge_new(
            b, m, from, to, n.kind == NODE_BEGIN ? EDGE_BEGIN : EDGE_END);
        break;
    default:
        assert(n.kind == NODE_NEVER);
    }
}


int
grammar_nfa(
    grammar_build_t *b, grammar_nfa_t *m, const uint32_t *nodes, uint32_t n)
{
    uint32_t i;

    memset(m, 0, sizeof(*m));
    for (i = 0; i <= n; i++) {
        (void) state_new(b, m);
    }

    /* edge 0 is none */
    if (b->failed
        || grammar_room(b, &m->edges, 0, &m->edges_cap, sizeof(*m->edges))
               != 0) {
        return -1;
    }
    m->edges_n = 1;
    assert(m->states == n + 1);

    for (i = 0; i < n; i++) {
        put_node(b, m, nodes[i], n, i);
    }

    return b->failed ? -1 : 0;
}


void
grammar_nfa_free(grammar_build_t *b, grammar_nfa_t *m)
{
    grammar_room_free(b, &m->first, &m->states_cap, sizeof(*m->first));
    grammar_room_free(b, &m->edges, &m->edges_cap, sizeof(*m->edges));
    memset(m, 0, sizeof(*m));
}
