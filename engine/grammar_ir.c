/*
 * Rules as they are read: nodes of regular expressions that may refer to
 * rules, and the memory that a compilation uses.
 *
 * DESIGN.  A node is a number, so trees are arrays and a reader returns values.
 * Failure sticks to the compilation: the first sentence is kept, each later
 * call does nothing and gives NEVER, and the readers need no path for failure.
 * NEVER absorbs in sequences and vanishes in alternatives, so what cannot be
 * is gone before an automaton is made.
 *
 * Limits on nodes, memory and time are here.  There is one account of memory
 * for a compilation, which chunks, vectors, tables of work, the document and
 * the grammar under construction are all counted in; and everything that loops
 * over input says what it spends, so that the time is up at most some 10 ms
 * after it should be.
 *
 * A thread that compiles owns its build.
 *
 * Nodes and what they stand for:
 *
 *      NEVER          nothing at all        EMPTY        the empty text
 *      BYTES, BYTE    these bytes           SET          a code point
 *      SEQ, ALT       kids, in a row        REP          copies, or a loop
 *      REF            a rule, by number     DFA          a ready automaton
 *      BEGIN, END     edges of a text, only where one automaton is all of it
 *
 * Bytes of literals, kids and sets lie in rows of their own, so that a node is
 * of one size.  Rules that are not PLAIN have no node but a specification.
 */
#include "grammar_impl.h"
#include "clock.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK        (16 * 1024)
#define TICK         32   /* steps of a usual piece of work */
#define STEPS_A_LOOK 8192 /* some 50 us */
#define TIME_US      1000000

struct grammar_chunk_s {
    grammar_chunk_t *next;
    size_t used, size;
    _Alignas(16) char data[];
};


/* --- memory ------------------------------------------------------------- */

/* Large pieces have a chunk of their own, behind the one that is in use: the
 * rest of that is not lost. */
void *
grammar_arena_get(grammar_arena_t *a, size_t n)
{
    grammar_chunk_t *c = a->chunks;
    size_t size;
    void *p;

    assert(a->held <= GRAMMAR_MEMORY_MAX);
    if (n > GRAMMAR_MEMORY_MAX) {
        return NULL;
    }
    n = (n + 15) & ~(size_t) 15;

    if (c == NULL || c->size - c->used < n) {
        size = n > CHUNK / 4 ? n : CHUNK;
        c = sizeof(*c) + size > GRAMMAR_MEMORY_MAX - a->held
                ? NULL
                : malloc(sizeof(*c) + size);
        if (c == NULL) {
            return NULL;
        }
        a->held += sizeof(*c) + size;
        c->used = 0;
        c->size = size;
        /* one that is full at once goes behind the one that has room */
        if (size == n && a->chunks != NULL) {
            c->next = a->chunks->next;
            a->chunks->next = c;
        } else {
            c->next = a->chunks;
            a->chunks = c;
        }
    }

    p = c->data + c->used;
    c->used += n;
    a->used += n;
    assert(c->used <= c->size);

    return memset(p, 0, n);
}


void
grammar_arena_free(grammar_arena_t *a)
{
    grammar_chunk_t *c, *next;

    for (c = a->chunks; c != NULL; c = next) {
        next = c->next;
        free(c);
    }
    a->chunks = NULL;
    a->used = a->held = 0;
}


/* What fails first is the cause, what fails later mostly comes of it. */
uint32_t
grammar_fail(grammar_build_t *b, const char *fmt, ...)
{
    va_list ap;

    if (!b->failed) {
        b->failed = 1;
        va_start(ap, fmt);
        (void) vsnprintf(b->err, b->errlen, fmt, ap);
        va_end(ap);
    }

    return 0;
}


void
grammar_fail_at(grammar_build_t *b, const char *fmt, ...)
{
    char was[512], at[128];
    va_list ap;

    assert(b->failed);
    if (b->errlen == 0) {
        return;
    }
    (void) snprintf(was, sizeof(was), "%s", b->err);
    va_start(ap, fmt);
    (void) vsnprintf(at, sizeof(at), fmt, ap);
    va_end(ap);
    (void) snprintf(b->err, b->errlen, "%s: %s", at, was);
}


/* The clock is read once in STEPS_A_LOOK steps, as reading it costs more than
 * most of what asks; one large piece of work is one look. */
int
grammar_spend(grammar_build_t *b, size_t steps)
{
    assert(b->spent < STEPS_A_LOOK);

    if (steps < STEPS_A_LOOK - b->spent) {
        b->spent += (uint32_t) steps;
        return b->failed;
    }
    b->spent = 0;
    if (clock_us() > b->o.until_us) {
        grammar_fail(b, "the grammar takes too long to compile");
    }

    return b->failed;
}


int
grammar_tick(grammar_build_t *b)
{
    return grammar_spend(b, TICK);
}


/* Not what it is for but all that is asked for costs time: to clear it. */
void *
grammar_get(grammar_build_t *b, size_t n)
{
    void *p =
        grammar_spend(b, n / 64 + 8) ? NULL : grammar_arena_get(&b->mem, n);

    if (p == NULL) {
        grammar_fail(b, "the grammar needs too much memory");
    }

    return p;
}


int
grammar_hold(grammar_build_t *b, size_t n)
{
    assert(b->mem.held <= GRAMMAR_MEMORY_MAX);
    if (b->failed || n > GRAMMAR_MEMORY_MAX - b->mem.held) {
        grammar_fail(b, "the grammar needs too much memory");
        return -1;
    }
    b->mem.held += n;

    return 0;
}


void
grammar_drop(grammar_build_t *b, size_t n)
{
    assert(n <= b->mem.held);

    b->mem.held -= n;
}


void *
grammar_scratch(grammar_build_t *b, size_t n)
{
    void *p = NULL;

    if (!grammar_spend(b, n / 64) && grammar_hold(b, n) == 0) {
        p = calloc(n + 1, 1);
        if (p == NULL) {
            grammar_drop(b, n);
            grammar_fail(b, "the grammar needs too much memory");
        }
    }

    return p;
}


void
grammar_scratch_free(grammar_build_t *b, void *p, size_t n)
{
    if (p != NULL) {
        free(p);
        grammar_drop(b, n);
    }
}


/* v is the address of the pointer to the vector, whatever it is of.  Doubling
 * keeps appending linear; while a vector is moved both are held. */
int
grammar_room(
    grammar_build_t *b, void *v, uint32_t n, uint32_t *cap, size_t size)
{
    uint32_t more = *cap < 16 ? 16 : *cap * 2;
    void **p = v, *q;

    assert(n <= *cap);
    if (b->failed || n < *cap) {
        return b->failed ? -1 : 0;
    }

    if (grammar_hold(b, more * size) != 0) {
        return -1;
    }
    q = realloc(*p, more * size);
    if (q == NULL) {
        grammar_drop(b, more * size);
        grammar_fail(b, "the grammar needs too much memory");
        return -1;
    }
    grammar_drop(b, *cap * size);
    *p = q;
    *cap = more;

    return 0;
}


void
grammar_room_free(grammar_build_t *b, void *v, uint32_t *cap, size_t size)
{
    void **p = v;

    free(*p);
    grammar_drop(b, *cap * size);
    *p = NULL;
    *cap = 0;
}


void
grammar_build_open(
    grammar_build_t *b, const grammar_opts_t *o, char *err, size_t errlen)
{
    memset(b, 0, sizeof(*b));
    if (o != NULL) {
        b->o = *o;
    }
    if (b->o.until_us == 0) {
        b->o.until_us = clock_us() + TIME_US;
    }
    b->err = err;
    b->errlen = errlen;
    b->json_any = b->json_string = b->json_number = GRAMMAR_MANY;
    b->json_integer = b->json_array = b->json_object = GRAMMAR_MANY;

    /* node 0 is NEVER */
    if (grammar_room(b, &b->nodes, 0, &b->nodes_cap, sizeof(*b->nodes)) == 0) {
        memset(&b->nodes[0], 0, sizeof(b->nodes[0]));
        b->nodes_n = 1;
    }
    assert(b->failed || b->nodes[0].kind == NODE_NEVER);
}


void
grammar_build_close(grammar_build_t *b)
{
    uint32_t i;

    for (i = 0; i < b->sets_n; i++) {
        grammar_set_free(&b->sets[i]);
    }
    grammar_unicode_free(b->unicode);
    free(b->sets);
    free(b->nodes);
    free(b->kids);
    free(b->rules);
    free(b->dfas);
    free(b->text);
    grammar_arena_free(&b->mem);
    memset(b, 0, sizeof(*b));
    b->failed = 1;
}


int
grammar_list_put(grammar_build_t *b, grammar_list_t *l, uint32_t x)
{
    if (grammar_room(b, &l->v, l->n, &l->cap, sizeof(*l->v)) != 0) {
        return -1;
    }
    l->v[l->n++] = x;

    return 0;
}


void
grammar_list_free(grammar_list_t *l)
{
    free(l->v);
    memset(l, 0, sizeof(*l));
}


/* --- nodes -------------------------------------------------------------- */

/* A node, 0 (NEVER) if failed. */
static uint32_t
node_new(grammar_build_t *b, int kind, uint32_t x, uint32_t y)
{
    grammar_node_t *n;

    if (grammar_tick(b)) {
        return 0;
    }
    if (b->nodes_n == GRAMMAR_NODES_MAX) {
        return grammar_fail(b, "the grammar is too large");
    }
    if (grammar_room(b, &b->nodes, b->nodes_n, &b->nodes_cap, sizeof(*b->nodes))
        != 0) {
        return 0;
    }

    n = &b->nodes[b->nodes_n];
    memset(n, 0, sizeof(*n));
    n->kind = (uint8_t) kind;
    n->a = x;
    n->b = y;

    return b->nodes_n++;
}


uint32_t
grammar_empty(grammar_build_t *b)
{
    return node_new(b, NODE_EMPTY, 0, 0);
}


uint32_t
grammar_bytes(grammar_build_t *b, const char *s, size_t len)
{
    uint32_t at = b->text_n;

    if (len == 0) {
        return grammar_empty(b);
    }

    /* grammar_room grows a vector that is full: let it seem so */
    while (len > b->text_cap - b->text_n && !b->failed) {
        b->text_n = b->text_cap;
        (void) grammar_room(b, &b->text, b->text_n, &b->text_cap, 1);
        b->text_n = at;
    }
    if (b->failed) {
        return 0;
    }
    memcpy(b->text + at, s, len);
    b->text_n += (uint32_t) len;

    return node_new(b, NODE_BYTES, at, (uint32_t) len);
}


uint32_t
grammar_byte(grammar_build_t *b, uint8_t lo, uint8_t hi)
{
    assert(lo <= hi);

    return node_new(b, NODE_BYTE, lo, hi);
}


/* Takes s over, whatever becomes of it; the empty set is NEVER. */
uint32_t
grammar_set_node(grammar_build_t *b, grammar_set_t *s, int json)
{
    uint32_t n;

    assert(s->n <= s->cap);
    if (s->n == 0
        || grammar_room(b, &b->sets, b->sets_n, &b->sets_cap, sizeof(*b->sets))
               != 0
        || grammar_hold(b, s->cap * sizeof(*s->r)) != 0) {
        grammar_set_free(s);
        return 0;
    }

    b->sets[b->sets_n] = *s;
    memset(s, 0, sizeof(*s));
    n = node_new(b, NODE_SET, b->sets_n++, 0);
    if (n != 0) {
        b->nodes[n].json = json != 0;
    }

    return n;
}


/* Kids are copied to the row; those of nodes given up stay there, unused. */
static uint32_t
node_kids(grammar_build_t *b, int kind, const uint32_t *kids, uint32_t n)
{
    uint32_t at = b->kids_n, i;

    for (i = 0; i < n; i++) {
        assert(kids[i] < b->nodes_n || b->failed);
        if (grammar_room(b, &b->kids, b->kids_n, &b->kids_cap, sizeof(*b->kids))
            != 0) {
            return 0;
        }
        b->kids[b->kids_n++] = kids[i];
    }

    return node_new(b, kind, at, n);
}


uint32_t
grammar_seq(grammar_build_t *b, const uint32_t *kids, uint32_t n)
{
    uint32_t i;

    for (i = 0; i < n; i++) {
        if (kids[i] == 0) {
            return 0;
        }
    }

    return n == 0   ? grammar_empty(b)
           : n == 1 ? kids[0]
                    : node_kids(b, NODE_SEQ, kids, n);
}


uint32_t
grammar_alt(grammar_build_t *b, const uint32_t *kids, uint32_t n)
{
    return n == 0 ? 0 : n == 1 ? kids[0] : node_kids(b, NODE_ALT, kids, n);
}


uint32_t
grammar_list_seq(grammar_build_t *b, grammar_list_t *l)
{
    uint32_t node = b->failed ? 0 : grammar_seq(b, l->v, l->n);

    grammar_room_free(b, &l->v, &l->cap, sizeof(*l->v));
    l->n = 0;

    return node;
}


uint32_t
grammar_list_alt(grammar_build_t *b, grammar_list_t *l)
{
    uint32_t node = b->failed ? 0 : grammar_alt(b, l->v, l->n);

    grammar_room_free(b, &l->v, &l->cap, sizeof(*l->v));
    l->n = 0;

    return node;
}


uint32_t
grammar_seq2(grammar_build_t *b, uint32_t x, uint32_t y)
{
    uint32_t kids[2] = {x, y};

    assert(b->failed || (x < b->nodes_n && y < b->nodes_n));
    return grammar_seq(b, kids, 2);
}


uint32_t
grammar_alt2(grammar_build_t *b, uint32_t x, uint32_t y)
{
    uint32_t kids[2] = {x, y};

    assert(b->failed || (x < b->nodes_n && y < b->nodes_n));
    return x == 0 ? y : y == 0 ? x : grammar_alt(b, kids, 2);
}


/* A repetition of more copies than are made is a rule that counts. */
static uint32_t
rep_counted(grammar_build_t *b, uint32_t node, uint32_t min, uint32_t max)
{
    uint32_t item = grammar_rule(b, NULL), rule = grammar_rule(b, NULL);

    assert(node < b->nodes_n || b->failed);
    if (b->failed) {
        return 0;
    }
    b->rules[item].node = node;
    b->rules[rule].kind = RULE_COUNT;
    b->rules[rule].u.count.rule = item;
    b->rules[rule].u.count.min = min;
    b->rules[rule].u.count.max = max;

    return grammar_ref_node(b, rule);
}


uint32_t
grammar_rep(grammar_build_t *b, uint32_t node, uint32_t min, uint32_t max)
{
    assert(min <= max);
    if (node != 0
        && (min > GRAMMAR_COPIES_MAX
            || (max != GRAMMAR_MANY && max > GRAMMAR_COPIES_MAX))) {
        return rep_counted(b, node, min, max);
    }

    return grammar_copies(b, node, min, max);
}


uint32_t
grammar_copies(grammar_build_t *b, uint32_t node, uint32_t min, uint32_t max)
{
    uint32_t n;

    assert(min <= max);
    if (node == 0 || max == 0) {
        return min == 0 ? grammar_empty(b) : 0;
    }
    if (min == 1 && max == 1) {
        return node;
    }

    n = node_new(b, NODE_REP, node, 0);
    if (n != 0) {
        b->nodes[n].min = min;
        b->nodes[n].max = max;
    }

    return n;
}


uint32_t
grammar_ref_node(grammar_build_t *b, uint32_t rule)
{
    assert(rule < b->rules_n || b->failed);

    return node_new(b, NODE_REF, rule, 0);
}


uint32_t
grammar_dfa_node(grammar_build_t *b, grammar_dfa_t *d)
{
    if (d == NULL || grammar_dfa_empty(d)
        || grammar_room(b, &b->dfas, b->dfas_n, &b->dfas_cap, sizeof(*b->dfas))
               != 0) {
        return 0;
    }
    b->dfas[b->dfas_n] = d;

    return node_new(b, NODE_DFA, b->dfas_n++, 0);
}


uint32_t
grammar_edge_node(grammar_build_t *b, int end)
{
    return node_new(b, end ? NODE_END : NODE_BEGIN, 0, 0);
}


uint32_t
grammar_rule(grammar_build_t *b, const char *name)
{
    if (b->rules_n == GRAMMAR_RULES_MAX) {
        grammar_fail(b, "the grammar has too many rules");
    }
    if (grammar_room(b, &b->rules, b->rules_n, &b->rules_cap, sizeof(*b->rules))
        != 0) {
        return GRAMMAR_MANY;
    }

    memset(&b->rules[b->rules_n], 0, sizeof(*b->rules));
    b->rules[b->rules_n].name = name;

    return b->rules_n++;
}
