/*
 * What a model thinks before it answers, told apart from the answer by the
 * marks that its family writes.
 */
#ifndef REASON_H
#define REASON_H

#include "llm_wire.h"
#include "stop.h"
#include "token.h"

#include <stddef.h>
#include <stdint.h>

#define REASON_WHITE_MAX 8   /* white space that may come before a mark */
#define REASON_HEAD_MAX  192 /* bytes of a harmony header: a name is 128 */

/* Bytes that may be held back because they may begin a mark. */
#define REASON_HELD_MAX 64

/* A family's marks, read-only after opening. */
typedef struct reason_s reason_t;

/* Where in its text a choice is.  All zero is in an answer for good. */
typedef struct {
    uint8_t state;  /* reason.c's */
    uint8_t lead;   /* newlines are dropped until something else comes */
    uint8_t breaks; /* newlines held back, which may stand before a mark */
    uint8_t white_n;
    uint8_t again;           /* a stretch of thought has been before */
    uint8_t fresh;           /* no token of the harmony form has come yet */
    uint8_t head_n, channel; /* of head; where in it the channel's name is */
    char white[REASON_WHITE_MAX];
    char head[REASON_HEAD_MAX];
    stop_state_t at;
    uint32_t maybe;   /* tokens that may turn out to have begun thought */
    uint32_t entered; /* thought has begun within this token */
} reason_state_t;

/* Takes n bytes of one kind, LLM_TEXT_*.  0, or negative to stop. */
typedef int (*reason_put_t)(void *arg, uint32_t kind, const char *p, size_t n);

/*
 * The marks that are called name (reason_names), or with "auto" those that
 * source, the chat template's, or tok speaks of; "off" is none.  tok is
 * borrowed.  0 with *r, which is NULL if there are none; -1 with one sentence
 * in err: the name is not known, its tokens are not in tok, out of memory.
 */
int reason_open(reason_t **r, const char *name, const char *source, size_t len,
    const token_t *tok, char *err, size_t errlen);
void reason_close(reason_t *r);

/* What they are called. */
const char *reason_name(const reason_t *r);

/*
 * Sets st to where a prompt of n ids leaves off: some templates write the
 * first mark themselves.  go_on: the prompt ends within the answer.
 */
void reason_begin(const reason_t *r, const uint32_t *ids, size_t n, int go_on,
    reason_state_t *st);

/* Is id, as st stands, a mark that has no bytes?  reason_mark takes it. */
int reason_is_mark(const reason_t *r, const reason_state_t *st, uint32_t id);
int reason_mark(const reason_t *r, reason_state_t *st, uint32_t id,
    reason_put_t put, void *arg);

/* Are the next bytes no text at all, but a header? */
int reason_in_head(const reason_state_t *st);

/* Are they thought? */
int reason_thinks(const reason_state_t *st);

/* Nothing has come but white space: may a mark be next that begins thought? */
int reason_may_think(const reason_state_t *st);

/* The token that begins a thought; TOKEN_NONE: that takes several. */
uint32_t reason_opener(const reason_t *r);

/* The next n bytes of the text; put gets what is known to be of a kind.  0, or
 * what put gave. */
int reason_feed(const reason_t *r, reason_state_t *st, const char *p, size_t n,
    reason_put_t put, void *arg);

/* The text is over: what was held back is none. */
int reason_end(
    const reason_t *r, reason_state_t *st, reason_put_t put, void *arg);

/* Bytes held back. */
size_t reason_held(const reason_t *r, const reason_state_t *st);

/*
 * After each token: how many, this one or some before it too, are now known
 * to be thought.  was: reason_counts before the token was fed.
 */
uint32_t reason_counts(const reason_state_t *st);
uint32_t reason_count(reason_state_t *st, uint32_t was);

#endif
