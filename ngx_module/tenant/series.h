
/*
 * Series: what /metrics tells of each tenant, in memory that all workers
 * share.  Plain C over a block of memory; no lock, no clock.
 *
 *     owners[n], series[n]
 *
 * A monitoring system keeps each label for ever, so there are as many series
 * as the block has room for and no more: a tenant gets one when it is first
 * seen and keeps it.  Those that come later share the first one, and requests
 * of no tenant have the second.  Thus no counter ever falls.
 *
 * Buckets hold the counts of their own range; who prints them adds them up.
 */


#ifndef LLM_SERIES_H_INCLUDED_
#define LLM_SERIES_H_INCLUDED_


#include <stddef.h>
#include <stdint.h>


#define LLM_SERIES_MAX   256
#define LLM_SERIES_REST  0              /* those that came too late */
#define LLM_SERIES_NONE  1              /* no tenant is known */


/* upper bounds in milliseconds; behind them there is one more bucket */

#define LLM_SERIES_BOUNDS(X)                                                  \
    X(1) X(2) X(5) X(10) X(20) X(50) X(100) X(200) X(500)                     \
    X(1000) X(2000) X(5000) X(10000) X(20000) X(60000) X(300000)

#define X(ms)  + 1

enum { LLM_SERIES_BUCKETS = LLM_SERIES_BOUNDS(X) + 1 };

#undef X


/* X(name, help): seconds */

#define LLM_SERIES_TIMES(X)                                                   \
    X(first_token_seconds, "from the request's end to the first event")       \
    X(inter_token_seconds, "between two tokens of a choice")                  \
    X(queue_seconds, "from arrival to the first computed token")              \
    X(request_seconds, "from the request's end to the answer's")

enum {
#define X(name, help)  LLM_SERIES_##name,
    LLM_SERIES_TIMES(X)
#undef X
    LLM_SERIES_TIMES_N
};


/* X(name): how a request ended */

#define LLM_SERIES_ENDS(X)                                                    \
    X(ok) X(refused) X(client_error) X(server_error) X(abort)

enum {
#define X(name)  LLM_SERIES_END_##name,
    LLM_SERIES_ENDS(X)
#undef X
    LLM_SERIES_ENDS_N
};


typedef struct {
    uint64_t  counts[LLM_SERIES_BUCKETS];
    uint64_t  sum;                      /* milliseconds */
} llm_histogram_t;


typedef struct {
    uint64_t         ends[LLM_SERIES_ENDS_N];
    uint64_t         prompt;            /* tokens */
    uint64_t         cached;
    uint64_t         completion;
    llm_histogram_t  times[LLM_SERIES_TIMES_N];
} llm_series_t;


typedef struct {
    uint32_t      *owners;              /* account's index + 1; 0: free */
    llm_series_t  *series;
    uint32_t       n;
} llm_series_table_t;


/* of all buckets but the last */
extern const uint64_t  llm_series_bounds[];

/* as many as fit into size bytes of memory, which was zero at first, or -1 */
int llm_series_open(llm_series_table_t *t, void *mem, size_t size);

/* that of the account of this index, by now or for ever */
llm_series_t *llm_series_get(llm_series_table_t *t, uint32_t account);

/* whose it is: the account's index; -1: nobody's */
int64_t llm_series_owner(const llm_series_table_t *t, uint32_t i);

/* n times ms, or one end */
void llm_series_time(llm_series_t *s, uint32_t which, uint64_t ms, uint64_t n);
void llm_series_end(llm_series_t *s, uint32_t which);


#endif /* LLM_SERIES_H_INCLUDED_ */
