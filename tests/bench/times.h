/*
 * Times measured on a machine that others use: the thread stays on one
 * processor, and what was measured while it was switched out is told from the
 * rest.
 */
#ifndef TIMES_H
#define TIMES_H

#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

/* Times of one kind, in us. */
typedef struct {
    double *all, *alone; /* [max]; alone: not switched out meanwhile */
    uint32_t n, alone_n, max;
} times_t;

/* A measurement under way. */
typedef struct {
    double from;
    long lost;
} span_t;


static inline double
now_us(void)
{
    struct timespec t;

    (void) clock_gettime(CLOCK_MONOTONIC, &t);

    return (double) t.tv_sec * 1e6 + (double) t.tv_nsec * 1e-3;
}


/* How often this thread lost its processor. */
static inline long
switches(void)
{
    struct rusage u;

    (void) getrusage(RUSAGE_THREAD, &u);

    return u.ru_nivcsw + u.ru_nvcsw;
}


static inline span_t
span_begin(void)
{
    span_t s;

    s.lost = switches();
    s.from = now_us();

    return s;
}


/* Us since it began; *alone is cleared if the thread was switched out. */
static inline double
span_end(const span_t *s, int *alone)
{
    double us = now_us() - s->from;

    if (switches() != s->lost) {
        *alone = 0;
    }

    return us;
}


static inline void
times_open(times_t *t, uint32_t max)
{
    t->n = t->alone_n = 0;
    t->max = max;
    t->all = calloc(max, sizeof(double));
    t->alone = calloc(max, sizeof(double));
    if (t->all == NULL || t->alone == NULL) {
        abort();
    }
}


static inline void
times_close(times_t *t)
{
    free(t->all);
    free(t->alone);
}


static inline void
times_note(times_t *t, double us, int alone)
{
    if (t->n == t->max) {
        abort();
    }
    t->all[t->n++] = us;
    if (alone) {
        t->alone[t->alone_n++] = us;
    }
}


/* Ends what span began, and notes it. */
static inline void
times_span(times_t *t, const span_t *span)
{
    int alone = 1;
    double us = span_end(span, &alone);

    times_note(t, us, alone);
}


static inline int
times_by_value(const void *a, const void *b)
{
    double x = *(const double *) a, y = *(const double *) b;

    return (x > y) - (x < y);
}


/* The value that so many of a thousand are below. */
static inline double
times_quantile(double *v, uint32_t n, uint32_t of_1000)
{
    qsort(v, n, sizeof(*v), times_by_value);

    return n == 0 ? 0 : v[(uint64_t) n * of_1000 / 1000];
}


/* Stays on the processor that it is on. */
static inline void
times_pin(void)
{
    cpu_set_t set;
    int cpu = sched_getcpu();

    CPU_ZERO(&set);
    CPU_SET(cpu < 0 ? 0 : cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set) != 0) {
        printf("not pinned to a processor\n");
    }
}

#endif
