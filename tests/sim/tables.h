/*
 * What the simulator prints and checks.  Each prints its part and returns how
 * many of the things that must hold did not.
 */
#ifndef TABLES_H
#define TABLES_H

#include "run.h"

/* The short form, for every change: a few seconds. */
int check_all(void);

/* a. Capacity under Sarathi's rule, minutes. */
int capacity_table(void);

/* b. The prefix cache; check: on small trees, for every change. */
int cache_table(void);
int cache_check(void);

/* c. Fairness among tenants. */
int fairness_table(void);

/* d. Three times the capacity. */
int overload_table(void);

/* e. Aborts, stalls, small pools; check: few, for every change. */
int trouble_table(void);
int trouble_check(void);

/* Says what did not hold, and counts it. */
int table_expect(int ok, const char *what);

#endif
