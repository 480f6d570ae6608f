/*
 * The scheduler in virtual time: the shipped code under cost models of a step
 * and seeded or recorded arrivals, hours of serving in seconds.
 *
 *      sim check       scenarios with what must hold; exit 1 if it does not
 *      sim             all tables
 *      sim TABLE...    some of them
 *
 * The figures are of the models, not of a machine.
 */
#include "tables.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* X(name, function, what it shows) */
#define SIM_TABLES(X)                                                          \
    X(check, check_all, "scenarios that must hold")                            \
    X(capacity, capacity_table, "rate under objectives, by policy")            \
    X(traces, traces_table, "rate under an objective, by trace")               \
    X(overhead, overhead_table, "what the prefix cache costs")                 \
    X(cache, cache_table, "what the prefix cache finds, and what it could")    \
    X(order, order_table, "what the cache finds under each policy")            \
    X(fairness, fairness_table, "service of tenants, and isolation")           \
    X(overload, overload_table, "three times the capacity")                    \
    X(trouble, trouble_table, "aborts, stalls, pools too small")


static void
usage(void)
{
    printf("sim [TABLE]...\n");
#define X(name, function, doc) printf("  %-10s %s\n", #name, doc);
    SIM_TABLES(X)
#undef X
}


static double
now_s(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return (double) ts.tv_sec + (double) ts.tv_nsec / 1e9;
}


/* One part, with what was checked in it and how long it took. */
static int
part(const char *name, const char *doc, int (*function)(void))
{
    double from = now_s();
    clock_t used = clock();
    int bad;

    printf("\n==== %s: %s\n", name, doc);
    bad = function();
    printf("checked in %s:\n", name);
    table_verdicts();
    printf("  %.1f s, %.1f of them computing\n", now_s() - from,
        (double) (clock() - used) / CLOCKS_PER_SEC);
    fflush(stdout);

    return bad;
}


int
main(int argc, char **argv)
{
    int i, known, bad = 0;
    double from = now_s();

    for (i = 1; i < argc; i++) {
        known = 0;
#define X(name, function, doc) known |= strcmp(argv[i], #name) == 0;
        SIM_TABLES(X)
#undef X
        if (!known) {
            usage();
            return 1;
        }
    }

#define X(name, function, doc)                                                 \
    for (i = argc == 1 ? 0 : 1; i < argc; i++) {                               \
        if (i == 0 || strcmp(argv[i], #name) == 0) {                           \
            bad += part(#name, doc, function);                                 \
            break;                                                             \
        }                                                                      \
    }
    SIM_TABLES(X)
#undef X

    printf("\n%s, %.0f s in all, %.0f of them computing\n",
        bad ? "FAILED" : "ok", now_s() - from,
        (double) clock() / CLOCKS_PER_SEC);

    return bad != 0;
}
