
/*
 * Days since 1970-01-01 of a date of the Gregorian calendar; UTC, no leap
 * seconds.
 */


#ifndef LLM_CALENDAR_H_INCLUDED_
#define LLM_CALENDAR_H_INCLUDED_


#include <stdint.h>


/* month from 1 to 12; year from 1970 on */

static inline int64_t
llm_days(int64_t year, int64_t month, int64_t day)
{
    int64_t  y, m;

    /* a year that begins in March has its odd day at the end */

    y = month > 2 ? year : year - 1;
    m = month > 2 ? month - 3 : month + 9;

    return y * 365 + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1
           - 719468;
}


#endif /* LLM_CALENDAR_H_INCLUDED_ */
