
/*
 * Meters: how much may be used now.  Each is one 64-bit word that any number
 * of processes share without a lock; a process that is killed leaves it as
 * good as it was.  Plain C, no state, no clock.
 *
 * A bucket (requests or tokens per minute, with a burst) is the generic cell
 * rate algorithm (ITU-T I.371, 1993): the word is the time at which the bucket
 * will be full again, nanoseconds since 1970.  Taking moves it on by the time
 * in which what was taken comes back, and is allowed as long as it stays
 * within the burst.  Giving back moves it back.
 *
 * A budget (tokens per day or month) is a count and the period that it counts,
 * in one word, so that the first use of a new period begins it.
 *
 * Taking from several at once is taking from each, and giving back what was
 * taken when one refuses: for a moment the others had less than they might,
 * never more.
 */


#ifndef LLM_METER_H_INCLUDED_
#define LLM_METER_H_INCLUDED_


#include <stdint.h>


#define LLM_METER_MAX      (1ull << 40)  /* limits and amounts */
#define LLM_BUDGET_MAX     (1ull << 47)


typedef struct {
    uint64_t  limit;                    /* a minute; 0: no bucket */
    uint64_t  burst;                    /* what it holds, >= 1 */
} llm_rate_t;


typedef enum {
    LLM_METER_NEVER = -1,               /* more than it ever holds */
    LLM_METER_LATER = 0,
    LLM_METER_TAKEN = 1
} llm_meter_t;


/*
 * Takes n (from 1 to LLM_METER_MAX) at the time now, in nanoseconds.  If that
 * is refused *wait is, of LLM_METER_LATER, how many nanoseconds from now n
 * will be there, if nobody else takes any.
 */
llm_meter_t llm_bucket_take(uint64_t *word, const llm_rate_t *rate,
    uint64_t n, uint64_t now, uint64_t *wait);

/* of n that were taken, used were used: the rest goes back */
void llm_bucket_give(uint64_t *word, const llm_rate_t *rate, uint64_t n,
    uint64_t used);

/* what is there at the time now, and in how many nanoseconds it is full */
void llm_bucket_look(const uint64_t *word, const llm_rate_t *rate,
    uint64_t now, uint64_t *left, uint64_t *full);

/*
 * Takes n (up to LLM_BUDGET_MAX) of a budget of limit (0: none) in a period,
 * whose number (from 1 to 65535) never falls, but for a clock that is set
 * back: then the later period counts on.
 */
llm_meter_t llm_budget_take(uint64_t *word, uint64_t limit, uint64_t n,
    uint32_t period);

/* the rest goes back, if the period of the taking has not ended meanwhile */
void llm_budget_give(uint64_t *word, uint64_t n, uint64_t used,
    uint32_t period);

/* what has been used in the period */
uint64_t llm_budget_used(const uint64_t *word, uint32_t period);

/*
 * The periods of a time in seconds since 1970, UTC: days and months from 1 on,
 * and when the next ones begin.
 */
typedef struct {
    uint32_t  day;
    uint32_t  month;
    int64_t   next_day;
    int64_t   next_month;
} llm_periods_t;

void llm_periods(int64_t seconds, llm_periods_t *p);


#endif /* LLM_METER_H_INCLUDED_ */
