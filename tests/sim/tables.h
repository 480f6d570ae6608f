/*
 * What the simulator prints and checks.  Each prints its part and returns how
 * many of the things that must hold did not.
 */
#ifndef TABLES_H
#define TABLES_H

#include "run.h"

/* The short form, for every change: a few seconds. */
int check_all(void);

/* a. Capacity under Sarathi's rule, minutes; and of each trace. */
int capacity_table(void);
int traces_table(void);

/* b. The prefix cache; check: on small trees, for every change. */
int cache_table(void);
int cache_check(void);
int overhead_table(void); /* what it costs who shares nothing */

/* b2. What the order of those who wait makes of it; check: few of them. */
int order_table(void);
int order_check(void);

/* c. Fairness among tenants. */
int fairness_table(void);

/* The same of the prefix cache; check: short floods. */
int share_table(void);
int share_check(void);

/* d. Three times the capacity. */
int overload_table(void);

/* e. Aborts, stalls, small pools; check: few, for every change. */
int trouble_table(void);
int trouble_check(void);

/* Counts that `what`, a literal, was looked at; nonzero, and said at once, if
 * it does not hold. */
int table_expect(int ok, const char *what);

/* Prints all that was looked at since the last time, with its verdict. */
void table_verdicts(void);

#endif
