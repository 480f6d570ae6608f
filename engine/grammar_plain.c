/*
 * Where any text of a JSON string may come, told of each place of a grammar.
 *
 * DESIGN.  Most of what a model writes in JSON is text of strings, and most
 * tokens are such text.  So masks (grammar_walk.c) take them as a slice that
 * the vocabulary has ready, wherever a place is "plain": every character that
 * needs no escape leads to such a place again, and no control character leads
 * anywhere.  That is the largest set of places of which it is true, found by
 * dropping those of which it is not, until none is dropped.
 *
 *      plain     any text may come          in {"na|   (other keys may be)
 *      home      text leads there and stays    {"x|
 *      inside    within a string at least      "ena|   (of an enum)
 *      chars     a counted repetition of a string's characters
 *
 * A place is judged by those that it leads to, so all must be linked.  Time is
 * asked for at each place, since a hostile grammar drops them one by one.
 */
#include "grammar_impl.h"

#include <assert.h>
#include <string.h>

#define PLACE_STEPS 96 /* to look at all ways on from a place */

/* The classes of bytes of one automaton, whose places are neighbours: what is
 * looked at for each place is looked at by class. */
typedef struct {
    const uint8_t *map; /* whose it is; NULL: no one's yet */
    uint32_t n;
    uint8_t control[256]; /* has a control character */
    uint8_t quote[256];   /* is the quote, and no other byte */
} classes_t;


/* Where a byte leads without a call; frames know no bytes. */
static uint32_t
next_of(const grammar_t *g, uint32_t pos, uint8_t byte)
{
    const grammar_pos_t *p = &g->pos[pos];

    assert(pos < g->pos_n);
    return p->map == NULL ? POS_DEAD : p->next[p->map[byte]];
}


/* Is a place where a character ends one that will do: home, or if there is
 * none, any that is plain? */
static int
arrives(const grammar_t *g, uint32_t pos, uint32_t home)
{
    return home != 0 ? pos == home : g->pos[pos].plain;
}


static void
classes_of(classes_t *x, const uint8_t *map)
{
    uint32_t i;

    if (x->map == map) {
        return;
    }
    x->map = map;
    x->n = 0;
    memset(x->control, 0, sizeof(x->control));
    memset(x->quote, 0, sizeof(x->quote));
    x->quote[map['"']] = 1;
    for (i = 0; i < 256; i++) {
        x->n = map[i] >= x->n ? map[i] + 1u : x->n;
        x->control[map[i]] |= i < 0x20;
        x->quote[map[i]] &= i == '"' || map[i] != map['"'];
    }
    assert(x->n <= 256);
}


/* Does every character of n bytes arrive, the first of which are h[0] to h[1],
 * the second then[0] to then[1]? */
static int
leads_plain(const grammar_t *g, uint32_t pos, const uint8_t h[2],
    const uint8_t then[2], uint32_t n, uint32_t home)
{
    static const uint8_t behind[] = {0x80, 0xbf};
    const uint8_t *map = g->pos[pos].map;
    uint32_t c, next;

    assert(n >= 1 && n <= 4 && h[0] <= h[1]);
    for (c = h[0]; c <= h[1]; c++) {
        if (c > h[0] && map != NULL && map[c] == map[c - 1]) {
            continue;
        }
        next = next_of(g, pos, (uint8_t) c);
        if (next == POS_DEAD
            || (n > 1 ? !leads_plain(g, next, then, behind, n - 1, home)
                      : !arrives(g, next, home))) {
            return 0;
        }
    }

    return 1;
}


/* Does every character of a JSON string that needs no escape arrive, and every
 * control character lead nowhere?  Rows: the first byte, the second, and how
 * many bytes, as Unicode's table 3-7 has them. */
static int
stays_plain(const grammar_t *g, uint32_t pos, uint32_t home)
{
    static const uint8_t heads[][5] = {{0xc2, 0xdf, 0x80, 0xbf, 2},
        {0xe0, 0xe0, 0xa0, 0xbf, 3}, {0xe1, 0xec, 0x80, 0xbf, 3},
        {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4},
        {0xf4, 0xf4, 0x80, 0x8f, 4}};
    const grammar_pos_t *p = &g->pos[pos];
    uint32_t i, next;

    assert(pos < g->pos_n);
    if (p->accept || p->calls_n > 0) {
        return 0;
    }
    for (i = 0; i < 0x80; i++) {
        next = next_of(g, pos, (uint8_t) i);
        if (i < 0x20 ? next != 0
                     : i != '"' && i != '\\' && !arrives(g, next, home)) {
            return 0;
        }
    }
    for (i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
        if (!leads_plain(g, pos, heads[i], heads[i] + 2, heads[i][4], home)) {
            return 0;
        }
    }

    return 1;
}


/* A place that every character of a string leads back to, and no half of one.
 * What follows some text there is what follows none, so that the ends of tokens
 * are walked once for all that may be before them (grammar_walk.c). */
static int
is_home(const grammar_t *g, uint32_t pos)
{
    uint32_t i;

    for (i = 0x80; i < 0x100; i++) {
        if ((i < 0xc2 || i > 0xf4) && next_of(g, pos, (uint8_t) i) != 0) {
            return 0;
        }
    }

    return g->pos[pos].plain && stays_plain(g, pos, pos);
}


/* Where a text goes on to that is like no name: mostly one place for a rule. */
static void
find_homes(grammar_build_t *b, grammar_t *g)
{
    enum { UNKNOWN, YES, NO };
    uint8_t *known = grammar_scratch(b, g->pos_n);
    uint32_t i, home;

    for (i = 2; known != NULL && i < g->pos_n && !grammar_spend(b, 4); i++) {
        home = g->pos[i].plain ? next_of(g, i, 0x7f) : 0;
        if (home == 0) {
            continue;
        }
        if (known[home] == UNKNOWN) {
            (void) grammar_spend(b, PLACE_STEPS);
            known[home] = is_home(g, home) ? YES : NO;
        }
        g->pos[i].home = known[home] == YES ? home : 0;
    }
    grammar_scratch_free(b, known, g->pos_n);
}


/* Counted repetitions of a string's characters, and what is around them.  Once
 * such an item is whole the place is DONE, which is taken for plain meanwhile.
 */
static void
find_chars(grammar_build_t *b, grammar_t *g, uint32_t counts_n)
{
    classes_t classes = {NULL, 0, {0}, {0}};
    grammar_pos_t *p;
    uint32_t i, k;

    g->pos[POS_DONE].plain = 1;
    for (i = 0; i < counts_n && !grammar_spend(b, PLACE_STEPS); i++) {
        k = g->rules[g->counts[i].rule].pos;
        g->counts[i].chars = g->rules[g->counts[i].rule].kind == RULE_PLAIN
                             && k > POS_DONE && stays_plain(g, k, 0);
    }
    g->pos[POS_DONE].plain = 0;

    for (i = 2; i < g->pos_n && !grammar_spend(b, 8); i++) {
        p = &g->pos[i];
        p->quote = p->kind == POS_PLAIN && p->map != NULL && !p->accept;
        if (p->quote) {
            classes_of(&classes, p->map);
        }
        for (k = 0; k < classes.n && p->quote; k++) {
            p->quote = classes.quote[k] || p->next[k] == POS_DEAD;
        }
        (void) grammar_spend(b, k);
    }
}


/* The largest set of places that any text of a string stays in: all that might
 * be, less those that lead out of it, until none does. */
static void
find_plain(grammar_build_t *b, grammar_t *g)
{
    grammar_pos_t *p;
    uint32_t i;
    int again = 1;

    for (i = 2; i < g->pos_n; i++) {
        p = &g->pos[i];
        p->plain = p->map != NULL && next_of(g, i, 'a') != 0
                   && next_of(g, i, 0xc3) != 0 && next_of(g, i, '\n') == 0
                   && (p->kind == POS_PLAIN || p->nameless);
    }
    while (again && !b->failed) {
        again = 0;
        /* what leads on has a higher number, mostly */
        for (i = g->pos_n; i-- > 2 && !grammar_spend(b, 1);) {
            if (!g->pos[i].plain || grammar_spend(b, PLACE_STEPS)) {
                continue;
            }
            if (!stays_plain(g, i, 0)) {
                g->pos[i].plain = 0;
                again = 1;
            }
        }
    }
}


/* Is pos within a string, as far as is known: no control character, and nothing
 * but a quote leads out? */
static int
stays_inside(const grammar_t *g, const grammar_pos_t *p, classes_t *x)
{
    uint32_t k;

    classes_of(x, p->map);
    for (k = 0; k < x->n; k++) {
        if (p->next[k] != POS_DEAD && !x->quote[k]
            && (x->control[k] || !g->pos[p->next[k]].inside)) {
            return 0;
        }
    }

    return 1;
}


/* The largest set of places that text leaves by a quote only. */
static void
find_inside(grammar_build_t *b, grammar_t *g)
{
    classes_t classes = {NULL, 0, {0}, {0}};
    grammar_pos_t *p;
    uint32_t i;
    int again = 1;

    for (i = 2; i < g->pos_n; i++) {
        p = &g->pos[i];
        p->inside = p->map != NULL && !p->accept && p->calls_n == 0;
    }
    while (again && !b->failed) {
        again = 0;
        for (i = g->pos_n; i-- > 2 && !grammar_spend(b, 1);) {
            if (!g->pos[i].inside || grammar_spend(b, classes.n)) {
                continue;
            }
            if (!stays_inside(g, &g->pos[i], &classes)) {
                g->pos[i].inside = 0;
                again = 1;
            }
        }
    }
}


void
grammar_plain(grammar_build_t *b, grammar_t *g, uint32_t counts_n)
{
    assert(g->pos_n > POS_DONE);

    find_plain(b, g);
    find_inside(b, g);
    find_homes(b, g);
    find_chars(b, g, counts_n);
}
