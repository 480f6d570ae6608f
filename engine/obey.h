/*
 * Where running choices are in the grammars that their output obeys: the masks
 * of a step's outputs, and what its tokens came to.  The loop's.
 */
#ifndef OBEY_H
#define OBEY_H

#include "batch.h"
#include "grammar_cache.h"
#include "reason.h"
#include "req.h"

#include <stdint.h>

typedef struct obey_s obey_t;

typedef struct {
    const grammar_cache_t *grammars; /* borrowed, as are the next */
    const token_t *tok;
    const reason_t *reason; /* NULL: the model has no marks of thought */
    uint32_t vocab;         /* of the model, tokens */
    uint32_t reqs_n;
    uint32_t outs_max;
    uint32_t jump;      /* may tokens follow without being sampled? */
    llm_state_t *state; /* its rows of the state page */
} obey_cfg_t;

/* What a token is to the grammar of its choice. */
typedef enum {
    OBEY_ON,    /* more may follow */
    OBEY_JUMP,  /* and some must: see obey_jump */
    OBEY_OVER,  /* the text is whole, and nothing may */
    OBEY_BROKEN /* it is not allowed, or there is no memory */
} obey_verdict_t;

/* NULL: out of memory. */
obey_t *obey_open(const obey_cfg_t *c);
void obey_close(obey_t *o);

/* Request i, which has a grammar, comes.  0, or -LLM_ERR_NO_MEMORY. */
int obey_begin(obey_t *o, uint32_t i, const req_t *r);

/* It leaves; one that has no grammar may too. */
void obey_end(obey_t *o, uint32_t i);

/* Sets the masks of b's outputs, which live until the next call. */
void obey_masks(obey_t *o, batch_t *b);

/* Request i's choice, if it has a grammar, got token, which ends no text. */
obey_verdict_t obey_took(
    obey_t *o, uint32_t i, uint32_t choice, uint32_t token);

/* The tokens that must follow, at most cap, into ids; they are taken.  How
 * many. */
uint32_t obey_jump(
    obey_t *o, uint32_t i, uint32_t choice, uint32_t *ids, uint32_t cap);

#endif
