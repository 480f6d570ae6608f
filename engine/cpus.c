/*
 * The list of processors that the device's threads stay on.
 *
 * DESIGN.  A list as taskset(1) and a cpuset have it: numbers and ranges,
 * thread i on the i-th.  What this process may not use is refused at start,
 * where it can be said; later a thread would fail to start, and nobody would
 * know why.
 *
 * Runs in main before the threads start; allocates nothing.
 */
#include "cpus.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>


/* A number at *p, which moves behind it; -1 if there is none. */
static int
cpus_number(const char **p)
{
    char *end;
    long v;

    if (!isdigit((unsigned char) **p)) {
        return -1;
    }
    v = strtol(*p, &end, 10); /* too much for a long is too much */
    *p = end;

    return v < CPU_SETSIZE ? (int) v : CPU_SETSIZE;
}


/* Adds processor cpu; 0, or -1 with err. */
static int
cpus_add(cpus_t *c, int cpu, const cpu_set_t *allowed, char *err, size_t errlen)
{
    uint32_t i;

    assert(cpu >= 0 && c->n <= CPUS_MAX);

    if (cpu >= CPU_SETSIZE || !CPU_ISSET((size_t) cpu, allowed)) {
        snprintf(err, errlen,
            "option cpus: expected CPUs that this process may use, found %d%s",
            cpu, cpu >= CPU_SETSIZE ? " or more" : "");
        return -1;
    }

    for (i = 0; i < c->n; i++) {
        if (c->v[i] == (uint32_t) cpu) {
            snprintf(err, errlen,
                "option cpus: expected each CPU once, found %d again", cpu);
            return -1;
        }
    }

    if (c->n == CPUS_MAX) {
        snprintf(err, errlen, "option cpus: expected at most %d, found more",
            CPUS_MAX);
        return -1;
    }
    c->v[c->n++] = (uint32_t) cpu;

    return 0;
}


int
cpus_parse(cpus_t *c, const char *list, const cpu_set_t *allowed, char *err,
    size_t errlen)
{
    const char *p = list;
    int from, to;

    c->n = 0;

    while (*list != '\0') {
        from = to = cpus_number(&p);
        if (from >= 0 && *p == '-') {
            p++;
            to = cpus_number(&p);
        }

        if (from < 0 || to < from || (*p != '\0' && *p != ',')
            || (*p == ',' && p[1] == '\0')) {
            snprintf(err, errlen,
                "option cpus: expected numbers and ranges such as 0-3,8, "
                "found \"%.64s\"",
                list);
            return -1;
        }

        for (; from <= to; from++) {
            if (cpus_add(c, from, allowed, err, errlen) != 0) {
                return -1;
            }
        }

        if (*p++ == '\0') {
            break;
        }
    }

    return 0;
}
