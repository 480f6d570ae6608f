/*
 * How many characters of text a place has room for.
 *
 * DESIGN.  A string of few characters is an automaton with a place for each of
 * them, and from a place any character leads to the next.  What tokens of text
 * fit there is told by their lengths, which the vocabulary has as masks; to
 * walk it would be to look at nearly all of it, anew for each place.
 *
 *      at most 3:   p ──any──> q ──any──> r ──any──> s     from p: 3
 *
 * Any character is one that stands in a JSON string as itself.  It is asked for
 * by ranges of bytes, each of which leads to one place or to none.
 *
 * No state, no memory.
 */
#include "grammar_vocab.h"

#include <assert.h>

#define MANY UINT32_MAX /* places, or none that is known */

/* Bytes of characters, in the order of the first. */
static const struct {
    uint8_t n, lo[4], hi[4];
} chars[] = {{1, {0x20}, {0x21}}, {1, {0x23}, {0x5b}}, {1, {0x5d}, {0x7f}},
    {2, {0xc2, 0x80}, {0xdf, 0xbf}},
    {3, {0xe0, 0xa0, 0x80}, {0xe0, 0xbf, 0xbf}},
    {3, {0xe1, 0x80, 0x80}, {0xec, 0xbf, 0xbf}},
    {3, {0xed, 0x80, 0x80}, {0xed, 0x9f, 0xbf}},
    {3, {0xee, 0x80, 0x80}, {0xef, 0xbf, 0xbf}},
    {4, {0xf0, 0x90, 0x80, 0x80}, {0xf0, 0xbf, 0xbf, 0xbf}},
    {4, {0xf1, 0x80, 0x80, 0x80}, {0xf3, 0xbf, 0xbf, 0xbf}},
    {4, {0xf4, 0x80, 0x80, 0x80}, {0xf4, 0x8f, 0xbf, 0xbf}}};


/* May a place decide alone? */
static int
is_alone(const grammar_pos_t *p)
{
    return p->map != NULL && p->kind == POS_PLAIN && p->calls_n == 0
           && !p->accept;
}


/* Where all bytes from lo to hi lead; MANY: not to one place. */
static uint32_t
one_place(const grammar_pos_t *p, uint8_t lo, uint8_t hi)
{
    uint32_t to = p->next[p->map[lo]], byte;

    assert(lo <= hi);
    for (byte = lo + 1u; byte <= hi; byte++) {
        if (p->next[p->map[byte]] != to) {
            return MANY;
        }
    }

    return to;
}


/* Where any character leads from pos; MANY: not to one place. */
static uint32_t
any_char(const grammar_pos_t *all, uint32_t pos)
{
    uint32_t i, k, at, to = MANY;

    /* the vocabulary's masks of text have no token with a control character */
    if (!is_alone(&all[pos]) || one_place(&all[pos], 0, 0x1f) != POS_DEAD) {
        return MANY;
    }
    for (i = 0; i < sizeof(chars) / sizeof(chars[0]); i++) {
        at = pos;
        for (k = 0; k < chars[i].n && at != MANY && at != POS_DEAD; k++) {
            at = !is_alone(&all[at])
                     ? MANY
                     : one_place(&all[at], chars[i].lo[k], chars[i].hi[k]);
        }
        if (at == MANY || (i > 0 && at != to)) {
            return MANY;
        }
        to = at;
    }

    return to;
}


uint32_t
grammar_text_left(const grammar_t *g, uint32_t pos)
{
    uint32_t n, to;

    for (n = 0; n < TOKEN_LEN_MAX; n++, pos = to) {
        to = any_char(g->pos, pos);
        if (to == MANY) {
            return 0;
        }
        if (to == POS_DEAD) {
            return n;
        }
        if (to == pos) {
            break;
        }
    }

    return TOKEN_LEN_MAX;
}
