/*
 * One choice of one request on its way out: sampled tokens in, whole
 * characters and logprob entries out, cut into TOKENS records.
 */
#ifndef TEXT_CHOICE_H
#define TEXT_CHOICE_H

#include "fifo.h"
#include "llm_wire.h"
#include "reason.h"
#include "sample.h"
#include "stop.h"
#include "token.h"
#include "tools.h"
#include "utf8.h"

#include <stddef.h>
#include <stdint.h>

/*
 * The bytes of a token in its logprob entry are cut here, so that an entry
 * with all its tops always fits into a record.
 */
#define TEXT_LP_BYTES_MAX 256

/* What all choices of all requests share. */
typedef struct {
    const token_t *tok;     /* borrowed */
    const reason_t *reason; /* borrowed, NULL: the model has no marks */
    fifo_pool_t pool;
} text_shared_t;

/* All zero is a choice that has not begun. */
typedef struct {
    uint64_t fed;      /* bytes of all tokens so far */
    uint32_t tokens;   /* sampled ones that no record has counted yet */
    uint32_t finish;   /* LLM_FINISH_*: it has ended, no text comes after */
    uint32_t closed;   /* the record with finish has been taken */
    uint32_t strip;    /* the next byte is dropped if it is a space */
    uint32_t logprobs; /* are entries wanted? */
    uint32_t apart;    /* is thought to be told from the answer? */
    uint32_t thought;  /* tokens of it that no record has counted yet */
    uint32_t prompt;   /* entries of the prompt that no record has taken yet */
    utf8_t utf8;
    stop_state_t stop;
    reason_state_t reason; /* moved on if apart */
    tools_t *tools;        /* borrowed, NULL: calls are text */
    uint32_t number;       /* of the choice, for tools */
    fifo_t held;           /* entries whose text is not out: text_lp_t, tops */
    fifo_t text;           /* ready to be posted, whole characters */
    fifo_t groups;         /* entries ready to be posted: text_group_t, bytes */
    fifo_t kinds;   /* text_kind_t: stretches of text before the last one */
    uint32_t kind;  /* LLM_TEXT_* of the last one */
    size_t last;    /* its bytes */
    size_t gone;    /* bytes of the first stretch that are gone */
    size_t behind;  /* bytes at the end of text that no group refers to */
    uint32_t front; /* bytes of the first group's text that are gone */
} text_choice_t;

/*
 * Takes one token (NULL: none), then, unless finish is LLM_FINISH_NONE, the
 * end of the choice, which must not have ended.  *sent grows by the payload
 * that became ready.  Returns 1 if a stop string, or a call when one is
 * wanted, ended the choice within this token, 0 if not, -1 if the pool is used
 * up, or too many entries wait for text behind what may be a stop string: the
 * choice cannot be continued.
 */
int text_choice_token(text_shared_t *sh, text_choice_t *c, const stop_t *stops,
    const sample_out_t *token, uint32_t finish, uint64_t *sent);

/*
 * Takes a token of the prompt, before all sampled ones: its entry, and with
 * echo its text, in which no stop string counts.  logprob is NaN for the
 * first.  last: it is the prompt's last.  0, or -1 as text_choice_token.
 */
int text_choice_prompt(text_shared_t *sh, text_choice_t *c,
    const sample_out_t *token, int echo, int last, uint64_t *sent);

/* A record's measures, as text_choice_plan found them. */
typedef struct {
    uint32_t text, lp; /* payload bytes */
    uint32_t groups;
    uint32_t kind;   /* LLM_TEXT_* */
    uint32_t tail;   /* bytes of what is behind the payload */
    uint32_t finish; /* LLM_FINISH_*: it takes all, and the choice ended */
} text_cut_t;

/*
 * How much goes out with the next record: as much as fits, whole characters,
 * all of one kind, a token's entry with its text.  0: nothing is to be posted.
 */
int text_choice_plan(
    const text_shared_t *sh, const text_choice_t *c, text_cut_t *cut);

/* Bytes of the record that cut describes. */
uint32_t text_choice_len(const text_cut_t *cut);

/*
 * Takes what was planned.  head is the caller's own and filled in but for id
 * and choice; body is what follows it in the record, text_choice_len(cut) -
 * LLM_TOKENS_HEAD bytes, and is only written to.
 */
void text_choice_take(text_shared_t *sh, text_choice_t *c,
    const text_cut_t *cut, llm_wire_tokens_t *head, uint8_t *body);

/* Forgets everything and gives its memory back. */
void text_choice_clear(text_shared_t *sh, text_choice_t *c);

#endif
