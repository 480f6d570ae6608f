
/*
 * Meters, by compare and exchange.
 *
 * DESIGN.  A loop of load, compute, exchange; no order with other memory is
 * needed, as a word says all that there is to say (relaxed).
 *
 * A bucket's word may be of a later time than can be: the clock was set back,
 * or the burst made smaller.  The bucket is then made an empty one, so that it
 * fills from now on, and not when the clock is there again.  A little later is
 * nothing: the clocks of two workers differ by what their event loops take.
 */


#include "calendar.h"
#include "meter.h"


#define LLM_MINUTE          60000000000ull     /* nanoseconds */

#define LLM_METER_SKEW      1000000000ull

#define LLM_BUDGET_BITS     48
#define LLM_BUDGET_MASK     ((1ull << LLM_BUDGET_BITS) - 1)


/*
 * The time in which n come back, rounded up, so that a limit is never passed
 * by rounding.
 */

static uint64_t
llm_bucket_time(const llm_rate_t *rate, uint64_t n)
{
    return (uint64_t) (((unsigned __int128) n * LLM_MINUTE + rate->limit - 1)
                       / rate->limit);
}


static inline uint64_t
llm_meter_load(const uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_RELAXED);
}


static inline int
llm_meter_swap(uint64_t *word, uint64_t *old, uint64_t new)
{
    return __atomic_compare_exchange_n(word, old, new, 1, __ATOMIC_RELAXED,
                                       __ATOMIC_RELAXED);
}


/* the word as it counts at the time now */

static inline uint64_t
llm_bucket_now(uint64_t word, uint64_t now, uint64_t room)
{
    if (word < now) {
        return now;
    }

    return word > now + room + LLM_METER_SKEW ? now + room : word;
}


llm_meter_t
llm_bucket_take(uint64_t *word, const llm_rate_t *rate, uint64_t n,
    uint64_t now, uint64_t *wait)
{
    uint64_t  old, full, room, cost;

    if (rate->limit == 0) {
        return LLM_METER_TAKEN;
    }

    if (n > rate->burst) {
        return LLM_METER_NEVER;
    }

    room = llm_bucket_time(rate, rate->burst);
    cost = llm_bucket_time(rate, n);

    old = llm_meter_load(word);

    for ( ;; ) {

        full = llm_bucket_now(old, now, room);

        if (full + cost <= now + room) {

            if (llm_meter_swap(word, &old, full + cost)) {
                return LLM_METER_TAKEN;
            }

            continue;
        }

        /* refused, but a word that cannot be must not stay */

        if (full >= old || llm_meter_swap(word, &old, full)) {
            *wait = full + cost - now - room;
            return LLM_METER_LATER;
        }
    }
}


void
llm_bucket_give(uint64_t *word, const llm_rate_t *rate, uint64_t n,
    uint64_t used)
{
    uint64_t  old, back;

    if (rate->limit == 0 || used >= n) {
        return;
    }

    back = llm_bucket_time(rate, n) - llm_bucket_time(rate, used);

    old = llm_meter_load(word);

    while (!llm_meter_swap(word, &old, old > back ? old - back : 0)) {
        /* void */
    }
}


void
llm_bucket_look(const uint64_t *word, const llm_rate_t *rate, uint64_t now,
    uint64_t *left, uint64_t *full)
{
    uint64_t  room;

    room = llm_bucket_time(rate, rate->burst);
    *full = llm_bucket_now(llm_meter_load(word), now, room) - now;

    if (*full > room) {
        *full = room;
    }

    *left = (uint64_t) ((unsigned __int128) (room - *full) * rate->limit
                        / LLM_MINUTE);

    if (*left > rate->burst) {
        *left = rate->burst;
    }
}


llm_meter_t
llm_budget_take(uint64_t *word, uint64_t limit, uint64_t n, uint32_t period)
{
    uint64_t  old, used, begun;

    if (limit && n > limit) {
        return LLM_METER_NEVER;
    }

    old = llm_meter_load(word);

    do {
        begun = old >> LLM_BUDGET_BITS;
        used = old & LLM_BUDGET_MASK;

        if (begun < period) {
            begun = period;
            used = 0;
        }

        if (limit && used + n > limit) {
            return LLM_METER_LATER;
        }

        used = used + n > LLM_BUDGET_MASK ? LLM_BUDGET_MASK : used + n;

    } while (!llm_meter_swap(word, &old, begun << LLM_BUDGET_BITS | used));

    return LLM_METER_TAKEN;
}


void
llm_budget_give(uint64_t *word, uint64_t n, uint64_t used, uint32_t period)
{
    uint64_t  old, sum;

    if (used >= n) {
        return;
    }

    old = llm_meter_load(word);

    do {
        if (old >> LLM_BUDGET_BITS != period) {
            return;
        }

        sum = old & LLM_BUDGET_MASK;
        sum = sum > n - used ? sum - (n - used) : 0;

    } while (!llm_meter_swap(word, &old,
                             (uint64_t) period << LLM_BUDGET_BITS | sum));
}


uint64_t
llm_budget_used(const uint64_t *word, uint32_t period)
{
    uint64_t  old;

    old = llm_meter_load(word);

    return old >> LLM_BUDGET_BITS < period ? 0 : old & LLM_BUDGET_MASK;
}


/* the first day of a month, in days since 1970; month 0 is January of 1970 */

static int64_t
llm_month_begins(int64_t month)
{
    return llm_days(1970 + month / 12, month % 12 + 1, 1);
}


void
llm_periods(int64_t seconds, llm_periods_t *p)
{
    int64_t  day, month;

    day = seconds < 0 ? 0 : seconds / 86400;

    /* a month is 30.436875 days, give or take one */

    month = day * 1600 / 48699;

    while (llm_month_begins(month + 1) <= day) {
        month++;
    }

    while (llm_month_begins(month) > day) {
        month--;
    }

    p->day = (uint32_t) day + 1;
    p->month = (uint32_t) month + 1;
    p->next_day = (day + 1) * 86400;
    p->next_month = llm_month_begins(month + 1) * 86400;
}
