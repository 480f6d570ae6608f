/*
 * The thread that takes requests in: SUBMIT records to token ids.  See
 * text_in.c.
 */
#ifndef TEXT_IN_H
#define TEXT_IN_H

#include "grammar_cache.h"
#include "inner.h"
#include "ipc.h"
#include "reason.h"
#include "template.h"
#include "token.h"
#include "tools.h"

#include <stdint.h>

/*
 * Places of the request table beyond the `requests` option: a request that is
 * refused because the table is full needs one until its ERROR is out.
 */
#define TEXT_IN_SPARE 64

/* Tenants' numbers are below it; names beyond so many share numbers. */
#define TEXT_IN_TENANTS 4096

typedef struct text_in_s text_in_t;

/* All borrowed until text_in_close. */
typedef struct {
    inner_t *in; /* its reqs_n is more than TEXT_IN_SPARE */
    ipc_t *ipc;
    const token_t *tok;
    const template_t *tpl;
    const reason_t *reason;      /* NULL: the model has no marks of thought */
    const tools_family_t *tools; /* NULL: calls are not told from the text */
    grammar_cache_t *grammars;   /* NULL: no output can be made to obey */
    const char *model;           /* the name that requests must give */
    uint32_t context;            /* longest sequence, tokens */
    uint32_t slots;              /* of one worker */
    uint32_t submit_size;        /* of a SUBMIT ring, bytes */
    uint32_t credit_max;         /* bytes */
    uint32_t threads;            /* that tokenise */
    uint32_t compilers;          /* threads that compile grammars */
    uint32_t share;              /* cached prefixes are for all tenants */
    uint64_t space_key[2];       /* nobody outside may know it */
} text_in_cfg_t;

/*
 * Takes the thread's tables and starts the tokenising threads; before
 * mem_seal.  *cfg is copied.  NULL when out of memory or threads.
 */
text_in_t *text_in_open(const text_in_cfg_t *cfg);

/* After the thread has ended, and the loop and text_out. NULL is allowed. */
void text_in_close(text_in_t *ti);

/*
 * The thread: arg is a text_in_t.  Ends when in->stop is set; when
 * in->draining is, it stops listening and refuses what comes (ring in_bell
 * after setting either).  Returns NULL.
 */
void *text_in_run(void *arg);

/*
 * Any thread: the drain deadline has passed.  What is held or still being
 * tokenised ends with ERROR DRAINING at the next turn.
 */
void text_in_kill(text_in_t *ti);

/*
 * One turn without sleeping; nonzero if there may be more to do at once.
 * now_us is the monotonic time.
 */
int text_in_turn(text_in_t *ti, uint64_t now_us);

#endif
