/*
 * The tokens that a text is cut to which must come.  See obey_cut.c.
 */
#ifndef OBEY_CUT_H
#define OBEY_CUT_H

#include "grammar.h"
#include "token.h"

#include <stdint.h>

#define OBEY_CUT_TAIL 4   /* tokens before it that are looked at */
#define OBEY_CUT_MAX  264 /* tokens that it may be */

/*
 * What must follow in g at `at`, behind the last tokens tail (at most
 * OBEY_CUT_TAIL; 0: behind one that is no text), as far as it is certain how it
 * is cut: into ids, OBEY_CUT_MAX of them.  How many; 0: it is not.
 */
uint32_t obey_cut(const token_t *tok, const grammar_vocab_t *v,
    const grammar_t *g, const grammar_state_t *at, const uint32_t *tail,
    uint32_t tail_n, uint32_t *ids);

#endif
