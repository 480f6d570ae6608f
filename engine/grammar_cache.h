/*
 * Compiled grammars, kept for whoever asks for the same again.  See
 * grammar_cache.c.
 */
#ifndef GRAMMAR_CACHE_H
#define GRAMMAR_CACHE_H

#include "grammar.h"
#include "llm_wire.h"
#include "tools.h"

#include <stddef.h>
#include <stdint.h>

#define GRAMMAR_CACHE_ERR 160 /* bytes of a sentence that is kept */

typedef struct grammar_cache_s grammar_cache_t;

typedef struct {
    const token_t *tok;          /* borrowed, as is the next */
    const tools_family_t *tools; /* NULL: the model's form is not known */
    uint64_t bytes;              /* of grammars that are kept, about */
    uint64_t compile_us;         /* that one may take */
    uint64_t refused_us;         /* how long a refusal is kept */
    llm_state_t *state;          /* its rows of the state page; may be NULL */
} grammar_cache_cfg_t;

/* What is asked for, all borrowed; what is equal in all is the same. */
typedef struct {
    uint32_t type;  /* LLM_GRAMMAR_* */
    uint32_t flags; /* likewise */
    uint32_t one;   /* TOOLS: one call at most */
    const char *text;
    size_t len;
    const char *tools; /* TOOLS: the declared functions, JSON; else NULL */
    size_t tools_len;
} grammar_spec_t;

/* NULL: out of memory. */
grammar_cache_t *grammar_cache_open(const grammar_cache_cfg_t *cfg);

/* When nobody has a grammar of it any more; NULL is allowed. */
void grammar_cache_close(grammar_cache_t *c);

/*
 * Is the answer known?  1: *g is the caller's to close, or NULL and err says
 * why it was refused.  0: it is to be compiled, and that takes long.  Any
 * thread.
 */
int grammar_cache_find(grammar_cache_t *c, const grammar_spec_t *s,
    uint64_t now_us, grammar_t **g, char *err, size_t errlen);

/*
 * The same, compiled if need be, once for all who ask meanwhile.  *g is NULL
 * with one sentence in err if it was refused.  Any thread, which may wait for
 * others'.
 */
void grammar_cache_get(grammar_cache_t *c, const grammar_spec_t *s,
    grammar_t **g, char *err, size_t errlen);

/* What masks are made of; not NULL once a grammar has come of the cache. */
const grammar_vocab_t *grammar_cache_vocab(const grammar_cache_t *c);

#endif
