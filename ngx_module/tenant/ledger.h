
/*
 * The ledger: what each tenant and each key has used, in memory that all
 * workers share, and perhaps a file does too (llm_zone).  Plain C over a
 * block of memory; no lock, no clock.
 *
 *     head, accounts[n]
 *
 * An account is found by a hash of its kind and name, is made by whoever asks
 * for it first, and stays: a tenant that is configured away and back has the
 * same one.  Its meters are single words (meter.h), so that a worker may be
 * killed at any moment, and two masters may share the file during a binary
 * upgrade.
 */


#ifndef LLM_LEDGER_H_INCLUDED_
#define LLM_LEDGER_H_INCLUDED_


#include "keyfile.h"
#include "meter.h"

#include <stddef.h>
#include <stdint.h>


/* tokens are counted in thousandths: a cached one may count for a part */

#define LLM_LEDGER_UNIT  1000


typedef enum {
    LLM_ACCOUNT_TENANT = 1,
    LLM_ACCOUNT_KEY = 2
} llm_account_kind_t;


typedef struct {
    uint64_t  id;                       /* 0: free */
    uint64_t  requests;                 /* bucket */
    uint64_t  tokens;                   /* bucket */
    uint64_t  day;                      /* budget */
    uint64_t  month;                    /* budget */

    uint64_t  asked;                    /* requests, ever */
    uint64_t  refused;
    uint64_t  input;                    /* tokens, ever */
    uint64_t  cached;
    uint64_t  output;

    uint32_t  blocked;                  /* by the administrator */
    uint32_t  kind;
    char      name[LLM_KEY_NAME_MAX + 8];   /* 0-terminated */
    uint64_t  day_granted;              /* budgets: on top of the limits */
    uint64_t  month_granted;
    uint64_t  pad[2];
} llm_account_t;

_Static_assert(sizeof(llm_account_t) == 192, "three cache lines");


typedef struct {
    uint64_t  magic;
    uint32_t  version;
    uint32_t  accounts_n;               /* a power of two */
    uint64_t  lost;                     /* lines of the usage log, ever */
    uint64_t  pad[21];
} llm_ledger_head_t;

_Static_assert(sizeof(llm_ledger_head_t) == 192, "as an account");


typedef struct {
    llm_ledger_head_t  *head;
    llm_account_t      *accounts;
    uint32_t            mask;
} llm_ledger_t;


/* limits of an account; of each part 0 is none; tokens in thousandths */

typedef struct {
    llm_rate_t  requests;
    llm_rate_t  tokens;
    uint64_t    day;
    uint64_t    month;
} llm_limits_t;


/* one who pays for a request; its tenant and its key do */

typedef struct {
    llm_account_t       *account;
    const llm_limits_t  *limits;
} llm_payer_t;


typedef enum {
    LLM_LIMIT_NONE = 0,
    LLM_LIMIT_REQUESTS,                 /* a minute */
    LLM_LIMIT_TOKENS,                   /* a minute */
    LLM_LIMIT_DAY,
    LLM_LIMIT_MONTH
} llm_limit_t;


/* why something was refused: whose limit, which, and for how long */

typedef struct {
    uint32_t     payer;                 /* index */
    llm_limit_t  limit;
    uint64_t     wait;                  /* nanoseconds */
} llm_refusal_of_t;


/*
 * The ledger in mem, of size bytes, aligned to a cache line: as many accounts
 * as fit.  Memory that is all zero is made into an empty one.  0; -1 if it is
 * too small or holds something else, or another version's or size's.
 */
int llm_ledger_open(llm_ledger_t *l, void *mem, size_t size);

/* the account, made if need be; NULL when its places are all taken */
llm_account_t *llm_ledger_account(llm_ledger_t *l, llm_account_kind_t kind,
    const char *name, size_t len);

/* the name of account i; "" if it has none, or there is no such account */
const char *llm_ledger_name(const llm_ledger_t *l, uint32_t i);

/*
 * Takes one request from the buckets of n payers, or from none of them.  now
 * is in nanoseconds since 1970.
 */
llm_meter_t llm_ledger_ask(const llm_payer_t *payer, uint32_t n,
    uint64_t now, llm_refusal_of_t *why);

/* the same for cost, from buckets and budgets */
llm_meter_t llm_ledger_reserve(const llm_payer_t *payer, uint32_t n,
    uint64_t cost, uint64_t now, llm_refusal_of_t *why);

/*
 * What was reserved at the time reserved_at has been used in part: the rest
 * goes back to everyone.
 */
void llm_ledger_settle(const llm_payer_t *payer, uint32_t n, uint64_t cost,
    uint64_t used, uint64_t reserved_at);


#endif /* LLM_LEDGER_H_INCLUDED_ */
