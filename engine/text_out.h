/*
 * The thread that turns sampled tokens into text and posts it: token ids to
 * bytes, whole UTF-8 characters, stop strings, EVENT records.
 */
#ifndef TEXT_OUT_H
#define TEXT_OUT_H

#include "inner.h"
#include "ipc.h"
#include "reason.h"
#include "token.h"

#include <stdint.h>

/* All borrowed until text_out_close. */
typedef struct {
    inner_t *in;
    ipc_t *ipc;
    const token_t *tok;
    const reason_t *reason; /* NULL: the model has no marks of thought */
    uint32_t credit_max;    /* bytes: the option; sizes the pending memory */
} text_out_args_t;

typedef struct text_out_s text_out_t;

/*
 * Takes all the memory that the thread will ever use (mem_zero, so before
 * mem_seal).  *a is copied.  NULL when out of memory.
 */
text_out_t *text_out_open(const text_out_args_t *a);

/* After the thread has ended. NULL is allowed. */
void text_out_close(text_out_t *to);

/*
 * The thread: arg is a text_out_t.  Ends when in->stop is set, its rings are
 * empty and no text waits for room (or has waited for a second since).
 * Returns NULL.
 */
void *text_out_run(void *arg);

/*
 * One turn without sleeping: takes what the rings hold, posts, wakes.
 * Returns nonzero if text waits for room in an EVENT ring and the turn must
 * be run again soon.  now_ms is the monotonic time.
 */
int text_out_turn(text_out_t *to, uint64_t now_ms);

#endif
