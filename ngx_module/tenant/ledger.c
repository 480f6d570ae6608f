
/*
 * Accounts, and taking from several of them.
 *
 * DESIGN.  An account's id is a hash of 64 bits that takes its place in the
 * table by compare and exchange, so there is no moment at which a place is
 * neither free nor somebody's.  The name beside it is for people: it is
 * written by whoever finds it missing, always the same bytes.  Two names of
 * one hash would share an account; among a million accounts that happens once
 * in ten million ledgers, and names are the administrator's.
 *
 * A place is looked for in a run of LLM_LEDGER_RUN places; an account is never
 * removed, so the first free one of the run ends the search.
 *
 * What is in the memory is input, as it may be a file: every index is masked,
 * and a name is read within its bounds.
 */


#include "ledger.h"
#include "hash.h"

#include <string.h>


#define LLM_LEDGER_MAGIC    0x3172676c6d6c6c00ull   /* "\0llmlgr1" */
#define LLM_LEDGER_VERSION  1
#define LLM_LEDGER_RUN      64

#define LLM_SECOND          1000000000ull


int
llm_ledger_open(llm_ledger_t *l, void *mem, size_t size)
{
    uint64_t            magic;
    uint32_t            n;
    llm_ledger_head_t  *head;

    if (size < sizeof(llm_ledger_head_t)
               + LLM_LEDGER_RUN * sizeof(llm_account_t))
    {
        return -1;
    }

    size = (size - sizeof(llm_ledger_head_t)) / sizeof(llm_account_t);

    for (n = LLM_LEDGER_RUN; n <= size / 2 && n < 1u << 30; n *= 2) {
        /* void */
    }

    head = mem;
    magic = __atomic_load_n(&head->magic, __ATOMIC_ACQUIRE);

    if (magic == 0) {

        /* whoever else does this writes the same */

        head->version = LLM_LEDGER_VERSION;
        head->accounts_n = n;
        __atomic_store_n(&head->magic, LLM_LEDGER_MAGIC, __ATOMIC_RELEASE);

    } else if (magic != LLM_LEDGER_MAGIC
               || head->version != LLM_LEDGER_VERSION
               || head->accounts_n != n)
    {
        return -1;
    }

    l->head = head;
    l->accounts = (llm_account_t *) (head + 1);
    l->mask = n - 1;

    return 0;
}


/* only names that an administrator gave come in here */

static uint64_t
llm_ledger_hash(llm_account_kind_t kind, const char *name, size_t len)
{
    uint64_t  h;

    h = llm_hash((LLM_HASH_BASIS ^ (uint64_t) kind) * LLM_HASH_PRIME, name,
                 len);

    return h ? h : 1;
}


llm_account_t *
llm_ledger_account(llm_ledger_t *l, llm_account_kind_t kind, const char *name,
    size_t len)
{
    uint64_t        hash, id;
    uint32_t        i;
    llm_account_t  *a;

    hash = llm_ledger_hash(kind, name, len);

    for (i = 0; i < LLM_LEDGER_RUN; i++) {

        a = &l->accounts[(hash + i) & l->mask];
        id = __atomic_load_n(&a->id, __ATOMIC_ACQUIRE);

        if (id == 0) {
            if (__atomic_compare_exchange_n(&a->id, &id, hash, 0,
                                            __ATOMIC_ACQ_REL,
                                            __ATOMIC_ACQUIRE))
            {
                id = hash;
            }
        }

        if (id != hash) {
            continue;
        }

        if (a->kind == 0) {
            memcpy(a->name, name, len < LLM_KEY_NAME_MAX ? len
                                                         : LLM_KEY_NAME_MAX);
            a->kind = kind;
        }

        return a;
    }

    return NULL;
}


const char *
llm_ledger_name(const llm_ledger_t *l, uint32_t i)
{
    const char  *name;

    if (i > l->mask) {
        return "";
    }

    name = l->accounts[i].name;

    if (memchr(name, '\0', sizeof(l->accounts[i].name)) == NULL
        || !llm_key_name_ok(name, strlen(name)))
    {
        return "";
    }

    return name;
}


llm_meter_t
llm_ledger_ask(const llm_payer_t *payer, uint32_t n, uint64_t now,
    llm_refusal_of_t *why)
{
    uint32_t     i, j;
    llm_meter_t  rv;

    for (i = 0; i < n; i++) {

        rv = llm_bucket_take(&payer[i].account->requests,
                             &payer[i].limits->requests, 1, now, &why->wait);

        if (rv == LLM_METER_TAKEN) {
            continue;
        }

        why->payer = i;
        why->limit = LLM_LIMIT_REQUESTS;

        for (j = 0; j < i; j++) {
            llm_bucket_give(&payer[j].account->requests,
                            &payer[j].limits->requests, 1, 0);
        }

        return rv;
    }

    return LLM_METER_TAKEN;
}


/* with what was granted in the period; 0 stays without a limit */

static uint64_t
llm_ledger_limit(uint64_t limit, const uint64_t *granted, uint32_t period)
{
    return limit ? limit + llm_budget_used(granted, period) : 0;
}


/* from one payer's bucket and budgets, or from none of them */

static llm_meter_t
llm_ledger_take(const llm_payer_t *payer, uint64_t cost, uint64_t now,
    const llm_periods_t *p, llm_refusal_of_t *why)
{
    llm_meter_t          rv;
    llm_account_t       *a;
    const llm_limits_t  *l;

    a = payer->account;
    l = payer->limits;

    why->limit = LLM_LIMIT_TOKENS;

    rv = llm_bucket_take(&a->tokens, &l->tokens, cost, now, &why->wait);

    if (rv != LLM_METER_TAKEN) {
        return rv;
    }

    why->limit = LLM_LIMIT_DAY;
    why->wait = (uint64_t) p->next_day * LLM_SECOND - now;

    rv = llm_budget_take(&a->day, llm_ledger_limit(l->day, &a->day_granted,
                                                   p->day),
                         cost, p->day);

    if (rv == LLM_METER_TAKEN) {

        why->limit = LLM_LIMIT_MONTH;
        why->wait = (uint64_t) p->next_month * LLM_SECOND - now;

        rv = llm_budget_take(&a->month,
                             llm_ledger_limit(l->month, &a->month_granted,
                                              p->month),
                             cost, p->month);

        if (rv == LLM_METER_TAKEN) {
            return LLM_METER_TAKEN;
        }

        llm_budget_give(&a->day, cost, 0, p->day);
    }

    llm_bucket_give(&a->tokens, &l->tokens, cost, 0);

    return rv;
}


llm_meter_t
llm_ledger_reserve(const llm_payer_t *payer, uint32_t n, uint64_t cost,
    uint64_t now, llm_refusal_of_t *why)
{
    uint32_t       i;
    llm_meter_t    rv;
    llm_periods_t  p;

    llm_periods((int64_t) (now / LLM_SECOND), &p);

    for (i = 0; i < n; i++) {

        rv = llm_ledger_take(&payer[i], cost, now, &p, why);

        if (rv != LLM_METER_TAKEN) {
            why->payer = i;
            llm_ledger_settle(payer, i, cost, 0, now);
            return rv;
        }
    }

    return LLM_METER_TAKEN;
}


void
llm_ledger_settle(const llm_payer_t *payer, uint32_t n, uint64_t cost,
    uint64_t used, uint64_t reserved_at)
{
    uint32_t             i;
    llm_periods_t        p;
    llm_account_t       *a;
    const llm_limits_t  *l;

    llm_periods((int64_t) (reserved_at / LLM_SECOND), &p);

    for (i = 0; i < n; i++) {

        a = payer[i].account;
        l = payer[i].limits;

        llm_bucket_give(&a->tokens, &l->tokens, cost, used);
        llm_budget_give(&a->day, cost, used, p.day);
        llm_budget_give(&a->month, cost, used, p.month);
    }
}
