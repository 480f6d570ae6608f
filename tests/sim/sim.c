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

/* X(name, function, what it shows) */
#define SIM_TABLES(X)                                                          \
    X(check, check_all, "scenarios that must hold")                            \
    X(capacity, capacity_table, "rate under objectives, by policy")            \
    X(cache, cache_table, "what the prefix cache finds, and what it could")    \
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


int
main(int argc, char **argv)
{
    int i, known, bad = 0;

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
            bad += function();                                                 \
            break;                                                             \
        }                                                                      \
    }
    SIM_TABLES(X)
#undef X

    printf("%s\n", bad ? "FAILED" : "ok");

    return bad != 0;
}
