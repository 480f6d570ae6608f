/*
 * What the fuzz targets of grammars share: one is opened, and if it is one, a
 * text is written by it a byte at a time, as bytes of the input choose.  At
 * each the mask of a vocabulary of bytes must say what the grammar does.
 */
#ifndef GRAMMAR_USE_H
#define GRAMMAR_USE_H

#include "grammar.h"

#include <stdlib.h>
#include <string.h>

#define USE_STEPS 64
#define USE_WORDS 16 /* of a mask of bytes, and the few tokens beside */

typedef grammar_t *(*grammar_use_t)(const char *s, size_t len,
    const grammar_opts_t *o, char *err, size_t errlen);


/* Bytes, each a token of its number; made once, and kept. */
static inline const grammar_vocab_t *
grammar_use_vocab(void)
{
    static grammar_vocab_t *v;

    if (v == NULL) {
        v = grammar_vocab_open(token_open_null(), NULL, 0);
    }
    if (v == NULL || grammar_mask_words(v) > USE_WORDS) {
        abort();
    }

    return v;
}


/* The byte that marks begin with is no token's. */
static inline void
grammar_compare(grammar_t *g, const grammar_state_t *st, const uint64_t set[4])
{
    uint32_t room[USE_WORDS], byte;
    const uint32_t *mask = grammar_mask(g, grammar_use_vocab(), st, room);

    for (byte = 0; byte < 255 && mask != NULL; byte++) {
        if ((mask[byte / 32] >> byte % 32 & 1)
            != (set[byte / 64] >> byte % 64 & 1)) {
            abort();
        }
    }
}


static inline void
grammar_walk(grammar_t *g, const uint8_t *p, size_t len)
{
    grammar_state_t st = {NULL, 0, 0, 0};
    uint64_t set[4];
    uint32_t i, byte, tries;
    char c;

    if (grammar_begin(g, &st) != 0) {
        abort();
    }
    for (i = 0; i < USE_STEPS; i++) {
        grammar_next(g, &st, set);
        grammar_compare(g, &st, set);
        byte = len == 0 ? 0 : p[i % len];
        for (tries = 0; tries < 256 && !(set[byte / 64] >> byte % 64 & 1);
             tries++) {
            byte = (byte + 1) % 256;
        }
        if (tries == 256) {
            break;
        }
        c = (char) byte;
        if (grammar_feed(g, &st, &c, 1) != 1) {
            abort();
        }
    }
    (void) grammar_can_end(g, &st);
    grammar_state_free(&st);
}


static inline int
grammar_use(grammar_use_t open, const uint8_t *p, size_t len)
{
    grammar_opts_t o;
    char err[300] = "";
    grammar_t *g;

    if (len == 0) {
        return 0;
    }
    memset(&o, 0, sizeof(o));
    o.compact = p[0] & 1;
    o.ordered = p[0] >> 1 & 1;
    o.lenient = p[0] >> 2 & 1;
    o.ascii = p[0] >> 3 & 1;
    o.search = p[0] >> 4 & 1;
    g = open((const char *) p + 1, len - 1, &o, err, sizeof(err));
    if (g != NULL) {
        grammar_walk(g, p, len);
        grammar_close(g);
    } else if (err[0] == '\0') {
        abort();
    }

    return 0;
}

#endif
