
/*
 * The table of open requests.
 *
 * DESIGN.  The owner's word is the lock of a row: whoever has exchanged it
 * from 0, or from a dead owner, is alone with the row.  States change in one
 * direction only, and each is such that a successor can go on from it.  A free
 * row is looked for from behind the last one that was found, so it is near
 * unless the table is nearly full.
 *
 * What is written here was checked by whoever filled it in; what is read of a
 * row that another process wrote (indices, strings) is bounded here.
 */


#include "rows.h"

#include <string.h>


int
llm_rows_open(llm_rows_t *t, void *mem, size_t size)
{
    if (size < sizeof(llm_row_t)) {
        return -1;
    }

    size /= sizeof(llm_row_t);

    t->rows = mem;
    t->n = size > 1u << 20 ? 1u << 20 : (uint32_t) size;
    t->next = 0;

    return 0;
}


static inline uint32_t
llm_row_state(const llm_row_t *row)
{
    return __atomic_load_n(&row->state, __ATOMIC_ACQUIRE);
}


static inline void
llm_row_set(llm_row_t *row, llm_row_state_t state)
{
    __atomic_store_n(&row->state, state, __ATOMIC_RELEASE);
}


static inline int
llm_row_take(llm_row_t *row, llm_owner_t from, llm_owner_t to)
{
    return __atomic_compare_exchange_n(&row->owner, &from, to, 0,
                                       __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}


llm_row_t *
llm_rows_claim(llm_rows_t *t, llm_owner_t owner)
{
    uint32_t    i;
    llm_row_t  *row;

    for (i = 0; i < t->n; i++) {

        row = &t->rows[t->next];
        t->next = t->next + 1 == t->n ? 0 : t->next + 1;

        if (__atomic_load_n(&row->owner, __ATOMIC_RELAXED) == 0
            && llm_row_take(row, 0, owner))
        {
            llm_row_set(row, LLM_ROW_BUSY);

            memset((char *) row + offsetof(llm_row_t, settled), 0,
                   sizeof(llm_row_t) - offsetof(llm_row_t, settled));

            return row;
        }
    }

    return NULL;
}


void
llm_row_open(llm_row_t *row)
{
    llm_row_set(row, LLM_ROW_OPEN);
}


void
llm_row_close(llm_row_t *row)
{
    llm_row_set(row, LLM_ROW_CLOSING);
}


void
llm_row_free(llm_row_t *row)
{
    llm_row_set(row, LLM_ROW_FREE);
    __atomic_store_n(&row->owner, 0, __ATOMIC_RELEASE);
}


/* text that ends within its size and needs no escapes in a log */

static void
llm_row_plain(char *text, size_t size)
{
    text[size - 1] = '\0';

    for ( /* void */ ; *text != '\0'; text++) {
        if ((unsigned char) *text < 0x20 || *text == 0x7f || *text == '"'
            || *text == '\\')
        {
            *text = '?';
        }
    }
}


llm_row_t *
llm_rows_recover(llm_rows_t *t, uint32_t *at, llm_owner_t self,
    int (*dead)(void *arg, llm_owner_t owner), void *arg, int *again)
{
    llm_row_t    *row;
    llm_owner_t   owner;

    for ( /* void */ ; *at < t->n; (*at)++) {

        row = &t->rows[*at];
        owner = __atomic_load_n(&row->owner, __ATOMIC_ACQUIRE);

        if (owner == 0 || owner == self || !dead(arg, owner)
            || !llm_row_take(row, owner, self))
        {
            continue;
        }

        switch (llm_row_state(row)) {

        case LLM_ROW_OPEN:
            llm_row_close(row);
            *again = 0;
            break;

        case LLM_ROW_CLOSING:
            *again = 1;
            break;

        default:
            llm_row_free(row);
            continue;
        }

        /* what another has written */

        llm_row_plain(row->id, sizeof(row->id));
        llm_row_plain(row->tenant, sizeof(row->tenant));
        llm_row_plain(row->key, sizeof(row->key));
        llm_row_plain(row->model, sizeof(row->model));
        llm_row_plain(row->trace, sizeof(row->trace));

        (*at)++;

        return row;
    }

    return NULL;
}


llm_row_t *
llm_rows_mine(llm_rows_t *t, uint32_t i, llm_owner_t owner)
{
    llm_row_t  *row;

    row = &t->rows[i];

    return __atomic_load_n(&row->owner, __ATOMIC_ACQUIRE) == owner
           && llm_row_state(row) == LLM_ROW_OPEN
           ? row : NULL;
}


llm_owner_t
llm_row_owner(const llm_row_t *row)
{
    return __atomic_load_n(&row->owner, __ATOMIC_ACQUIRE);
}


/*
 * A row that is freed and claimed in between has another state for a while, or
 * began at another time.
 */

int
llm_rows_copy(llm_rows_t *t, uint32_t i, llm_row_t *copy)
{
    uint64_t    began;
    llm_row_t  *row;

    row = &t->rows[i];

    if (llm_row_state(row) != LLM_ROW_OPEN) {
        return 0;
    }

    began = __atomic_load_n(&row->began, __ATOMIC_RELAXED);

    memcpy(copy, row, sizeof(llm_row_t));

    /* written as it is, as only a release keeps the reads above before it */

    return __atomic_fetch_add(&row->state, 0, __ATOMIC_ACQ_REL)
           == LLM_ROW_OPEN
           && __atomic_load_n(&row->began, __ATOMIC_RELAXED) == began;
}


uint32_t
llm_rows_cancel(llm_rows_t *t, const char *id, size_t len)
{
    uint32_t    i, n;
    llm_row_t  *row;

    if (len == 0 || len >= sizeof(t->rows[0].id)) {
        return 0;
    }

    n = 0;

    for (i = 0; i < t->n; i++) {

        row = &t->rows[i];

        if (llm_row_state(row) == LLM_ROW_OPEN
            && memcmp(row->id, id, len) == 0 && row->id[len] == '\0')
        {
            __atomic_store_n(&row->cancel, 1, __ATOMIC_RELAXED);
            n++;
        }
    }

    return n;
}


int
llm_rows_tenant(const llm_rows_t *t, uint32_t i, uint32_t *account)
{
    const llm_row_t  *row;

    row = &t->rows[i];

    if (llm_row_state(row) != LLM_ROW_OPEN || !row->payers[0].used) {
        return 0;
    }

    *account = row->payers[0].account;

    return 1;
}


uint64_t
llm_row_cost(const llm_row_t *row)
{
    uint64_t  cost, cached;

    cached = row->cached < row->prompt ? row->cached : row->prompt;

    cost = (row->prompt - cached) * (uint64_t) row->weights[0]
           + cached * row->weights[1]
           + row->completion * (uint64_t) row->weights[2];

    return cost < row->reserved ? cost : row->reserved;
}


void
llm_row_settle(llm_row_t *row, llm_ledger_t *ledger)
{
    uint32_t     i, n;
    llm_payer_t  payer[2];

    if (row->reserved == 0
        || __atomic_exchange_n(&row->settled, 1, __ATOMIC_ACQ_REL))
    {
        return;
    }

    n = 0;

    for (i = 0; i < 2; i++) {
        if (row->payers[i].used && row->payers[i].account <= ledger->mask) {
            payer[n].account = &ledger->accounts[row->payers[i].account];
            payer[n].limits = &row->payers[i].limits;
            n++;
        }
    }

    llm_ledger_settle(payer, n, row->reserved, llm_row_cost(row),
                      row->reserved_at);
}
