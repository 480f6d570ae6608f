
/*
 * The table of series.
 *
 * DESIGN.  Owners are taken from the front by compare and exchange and never
 * given back, so everyone who looks for an account passes the same owners in
 * the same order: it is found where it is, or takes the first place that is
 * free, and no account has two.  A worker that is killed leaves nothing half
 * done.  Counts are single words that are only added to.
 */


#include "series.h"


const uint64_t  llm_series_bounds[] = {
#define X(ms)  ms,
    LLM_SERIES_BOUNDS(X)
#undef X
};


int
llm_series_open(llm_series_table_t *t, void *mem, size_t size)
{
    size_t  n, head;

    n = size / (sizeof(llm_series_t) + sizeof(uint32_t));
    n = n > LLM_SERIES_MAX ? LLM_SERIES_MAX : n;

    for ( ;; ) {

        if (n <= LLM_SERIES_NONE) {
            return -1;
        }

        /* whole cache lines, so that what follows is aligned */

        head = (n * sizeof(uint32_t) + 63) / 64 * 64;

        if (head + n * sizeof(llm_series_t) <= size) {
            break;
        }

        n--;
    }

    t->owners = mem;
    t->series = (llm_series_t *) (void *) ((char *) mem + head);
    t->n = (uint32_t) n;

    return 0;
}


llm_series_t *
llm_series_get(llm_series_table_t *t, uint32_t account)
{
    uint32_t  i, owner;

    for (i = LLM_SERIES_NONE + 1; i < t->n; i++) {

        owner = __atomic_load_n(&t->owners[i], __ATOMIC_RELAXED);

        if (owner == 0
            && __atomic_compare_exchange_n(&t->owners[i], &owner, account + 1,
                                           0, __ATOMIC_RELAXED,
                                           __ATOMIC_RELAXED))
        {
            owner = account + 1;
        }

        if (owner == account + 1) {
            return &t->series[i];
        }
    }

    return &t->series[LLM_SERIES_REST];
}


int64_t
llm_series_owner(const llm_series_table_t *t, uint32_t i)
{
    if (i <= LLM_SERIES_NONE || i >= t->n) {
        return -1;
    }

    return (int64_t) __atomic_load_n(&t->owners[i], __ATOMIC_RELAXED) - 1;
}


void
llm_series_time(llm_series_t *s, uint32_t which, uint64_t ms, uint64_t n)
{
    uint32_t          i;
    llm_histogram_t  *h;

    h = &s->times[which];

    for (i = 0; i < LLM_SERIES_BUCKETS - 1; i++) {
        if (ms <= llm_series_bounds[i]) {
            break;
        }
    }

    (void) __atomic_add_fetch(&h->counts[i], n, __ATOMIC_RELAXED);
    (void) __atomic_add_fetch(&h->sum, ms * n, __ATOMIC_RELAXED);
}


void
llm_series_end(llm_series_t *s, uint32_t which)
{
    (void) __atomic_add_fetch(&s->ends[which], 1, __ATOMIC_RELAXED);
}
