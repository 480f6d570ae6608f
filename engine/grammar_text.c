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
 * Patterns go on and on in one place by kinds of characters ([a-z0-9_]+).  Of a
 * trie's node is known which kinds of bytes are below it; where all of these
 * lead from a place to itself, all tokens below it fit.
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


/* Kinds of what is one byte, by its first and last; the rest is KIND_OTHER. */
static const struct {
    uint8_t kind, lo, hi;
} kinds[] = {{1, 'a', 'z'}, {2, 'A', 'Z'}, {4, '0', '9'}, {8, ' ', ' '},
    {16, '_', '_'}, {32, '-', '.'}, {KIND_OTHER, '!', '!'},
    {KIND_OTHER, '#', ','}, {KIND_OTHER, '/', '/'}, {KIND_OTHER, ':', '@'},
    {KIND_OTHER, '[', '['}, {KIND_OTHER, ']', '^'}, {KIND_OTHER, '`', '`'},
    {KIND_OTHER, '{', 0x7f}};

#define BAD UINT32_MAX /* no UTF-8, nor what follows */

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


/* Where all characters of row i of the table lead from pos; MANY: not to one
 * place. */
static uint32_t
row_place(const grammar_pos_t *all, uint32_t pos, uint32_t i)
{
    uint32_t k;

    for (k = 0; k < chars[i].n && pos != MANY && pos != POS_DEAD; k++) {
        pos = !is_alone(&all[pos])
                  ? MANY
                  : one_place(&all[pos], chars[i].lo[k], chars[i].hi[k]);
    }

    return pos;
}


/* Where any character leads from pos; MANY: not to one place. */
static uint32_t
any_char(const grammar_pos_t *all, uint32_t pos)
{
    uint32_t i, at, to = MANY;

    /* the vocabulary's masks of text have no token with a control character */
    if (!is_alone(&all[pos]) || one_place(&all[pos], 0, 0x1f) != POS_DEAD) {
        return MANY;
    }
    for (i = 0; i < sizeof(chars) / sizeof(chars[0]); i++) {
        at = row_place(all, pos, i);
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


uint8_t
grammar_text_kind(uint8_t byte, uint32_t *utf8)
{
    uint32_t row = *utf8 >> 8, at = *utf8 & 0xff, i;

    if (*utf8 == 0) {
        for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
            if (byte >= kinds[i].lo && byte <= kinds[i].hi) {
                return kinds[i].kind;
            }
        }
        for (row = 0; row < sizeof(chars) / sizeof(chars[0])
                      && (chars[row].n == 1 || byte < chars[row].lo[0]
                          || byte > chars[row].hi[0]);
             row++) {
        }
    }
    if (*utf8 == BAD || row == sizeof(chars) / sizeof(chars[0])
        || byte < chars[row].lo[at] || byte > chars[row].hi[at]) {
        *utf8 = BAD;
        return KIND_NEVER;
    }
    assert(at < chars[row].n);
    *utf8 = at + 1 == chars[row].n ? 0 : row << 8 | (at + 1);

    return KIND_OTHER;
}


uint8_t
grammar_text_loops(const grammar_t *g, uint32_t pos)
{
    const grammar_pos_t *p = &g->pos[pos];
    uint8_t loops = KIND_NEVER - 1;
    uint32_t i;

    if (!is_alone(p)) {
        return 0;
    }
    for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (loops & kinds[i].kind
            && one_place(p, kinds[i].lo, kinds[i].hi) != pos) {
            loops &= (uint8_t) ~kinds[i].kind;
        }
    }
    for (i = 0; i < sizeof(chars) / sizeof(chars[0]) && loops & KIND_OTHER;
         i++) {
        if (chars[i].n > 1 && row_place(g->pos, pos, i) != pos) {
            loops &= (uint8_t) ~KIND_OTHER;
        }
    }

    return loops;
}
