
/*
 * Open requests: a row for each, in memory that all workers share, so that
 * what a request has used is settled and written down once, whoever is left to
 * do it.  Plain C over a block of memory; no lock.
 *
 *     FREE --claim--> BUSY --open--> OPEN --close--> CLOSING --free--> FREE
 *
 * A row is its owner's, by a word that is exchanged from 0 to the owner and,
 * when that is dead, from it to another: one alone wins.  Who closes a row
 * writes the line of the usage log, settles, and frees it.  An owner that is
 * killed on the way leaves CLOSING behind, and its line may or may not have
 * been written: it is written again, marked as recovered; a reader drops
 * repeats of an id.  BUSY of a dead owner is freed without a line: nothing has
 * run.
 */


#ifndef LLM_ROWS_H_INCLUDED_
#define LLM_ROWS_H_INCLUDED_


#include "ledger.h"

#include <stddef.h>
#include <stdint.h>


#define LLM_ROW_ID_MAX     128          /* request id, bytes, without the 0 */
#define LLM_ROW_MODEL_MAX  127
#define LLM_ROW_TRACE_MAX  55           /* traceparent (W3C), version 00 */


typedef enum {
    LLM_ROW_FREE = 0,
    LLM_ROW_BUSY,
    LLM_ROW_OPEN,
    LLM_ROW_CLOSING
} llm_row_state_t;


/*
 * A process, so that a new one of the same number is not taken for it: its
 * number, and when it was started in clock ticks since boot.  0 is nobody.
 */

typedef uint64_t  llm_owner_t;

#define llm_owner(pid, started)                                               \
    ((uint64_t) (pid) << 40 | ((uint64_t) (started) & ((1ull << 40) - 1)))
#define llm_owner_pid(owner)      ((uint32_t) ((owner) >> 40))
#define llm_owner_started(owner)  ((owner) & ((1ull << 40) - 1))


/* what a payer has to get back */

typedef struct {
    uint32_t      account;              /* index in the ledger */
    uint32_t      used;                 /* 1: this payer exists */
    llm_limits_t  limits;
} llm_row_payer_t;


typedef struct {
    llm_owner_t      owner;             /* atomic, as the next two */
    uint32_t         state;
    uint32_t         settled;

    uint64_t         began;             /* nanoseconds since 1970 */
    uint64_t         reserved;          /* thousandths; 0: nothing */
    uint64_t         reserved_at;
    uint32_t         weights[3];        /* input, cached, output; thousandths */
    uint32_t         choices;
    llm_row_payer_t  payers[2];         /* tenant, key */

    uint32_t         prompt;            /* tokens, as far as is known */
    uint32_t         cached;
    uint32_t         completion;
    uint32_t         status;            /* HTTP, 0: no head was sent */
    uint32_t         error;             /* llm_err.h, 0: none */
    uint32_t         finish;            /* the caller's own */
    uint32_t         cancel;            /* atomic: the owner is to end it */
    uint32_t         pad;

    char             id[LLM_ROW_ID_MAX + 8];        /* all 0-terminated */
    char             tenant[LLM_KEY_NAME_MAX + 8];
    char             key[LLM_KEY_NAME_MAX + 8];
    char             model[LLM_ROW_MODEL_MAX + 1];
    char             trace[LLM_ROW_TRACE_MAX + 1];
} llm_row_t;


typedef struct {
    llm_row_t  *rows;
    uint32_t    n;
    uint32_t    next;                   /* where to look first */
} llm_rows_t;


/* as many rows as fit into size bytes of memory, which was zero at first */
int llm_rows_open(llm_rows_t *t, void *mem, size_t size);

/*
 * A row for a request of owner: BUSY, zero but for its owner, to be filled in
 * and opened.  NULL when all are in use.
 */
llm_row_t *llm_rows_claim(llm_rows_t *t, llm_owner_t owner);
void llm_row_open(llm_row_t *row);

/* whose it is now */
llm_owner_t llm_row_owner(const llm_row_t *row);

/* OPEN to CLOSING, before the line is written; then settle and free */
void llm_row_close(llm_row_t *row);
void llm_row_free(llm_row_t *row);

/*
 * The next row from *at on whose owner is dead, taken over by the caller and
 * CLOSING; NULL at the table's end.  *again says that its line may have been
 * written already.  dead() is asked about owners that are not self.
 */
llm_row_t *llm_rows_recover(llm_rows_t *t, uint32_t *at, llm_owner_t self,
    int (*dead)(void *arg, llm_owner_t owner), void *arg, int *again);

/* row i if it is open and owner's, else NULL */
llm_row_t *llm_rows_mine(llm_rows_t *t, uint32_t i, llm_owner_t owner);

/* a copy of row i, if it is open and was so all the while; else 0 */
int llm_rows_copy(llm_rows_t *t, uint32_t i, llm_row_t *copy);

/* marks the open rows of this id for their owners; how many there are */
uint32_t llm_rows_cancel(llm_rows_t *t, const char *id, size_t len);

/* is row i open?  Then *account is its tenant's */
int llm_rows_tenant(const llm_rows_t *t, uint32_t i, uint32_t *account);

/* what its counts cost, in thousandths; never more than was reserved */
uint64_t llm_row_cost(const llm_row_t *row);

/*
 * Gives back what was reserved and not used, once: an owner that is killed in
 * here may leave some of it reserved, but nothing is given back twice.
 */
void llm_row_settle(llm_row_t *row, llm_ledger_t *ledger);


#endif /* LLM_ROWS_H_INCLUDED_ */
