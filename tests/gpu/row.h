/*
 * Rows of results, written as soon as they are measured, and the time that is
 * left for more.  Fields are separated by tabs:
 *
 *      row  us  +-%  GB/s  TFLOP/s  floor_us  %floor  target  verdict  note
 *
 * A row's floor is the larger of its bytes by the plain read's speed and its
 * operations by the library's product of 8192^3, both of the same run:
 * GPU_READ (GB/s) and GPU_GEMM (TFLOP/s).  +- is half of what lies between the
 * quarters, of the median.  GPU_UNTIL is when to end, seconds of the clock
 * that `date +%s` shows; a row that would go beyond is skipped by name.
 */
#ifndef ROW_H
#define ROW_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct {
    const char *name;
    double us, spread; /* % */
    double bytes, flop;
    double target; /* % of the floor; 0: none */
    const char *note;
} row_t;

static inline double
row_env(const char *name, double other)
{
    const char *v = getenv(name);

    return v != NULL && v[0] != '\0' ? atof(v) : other;
}

/* Seconds that are left. */
static inline double
row_left(void)
{
    return row_env("GPU_UNTIL", 1e18) - (double) time(NULL);
}

/* Is there time for a row of so many seconds?  It says so if not. */
static inline int
row_fits(const char *name, double seconds)
{
    if (seconds <= row_left()) {
        return 1;
    }

    printf("%s\t\t\t\t\t\t\t\tskipped\tneeds %.0f s, %.0f are left\n", name,
        seconds, row_left());
    (void) fflush(stdout);
    return 0;
}

static inline void
row_skip(const char *name, const char *why)
{
    printf("%s\t\t\t\t\t\t\t\tskipped\t%s\n", name, why);
    (void) fflush(stdout);
}

static inline double
row_floor(double bytes, double flop)
{
    double read = bytes / (row_env("GPU_READ", 4300) * 1e3);
    double gemm = flop / (row_env("GPU_GEMM", 790) * 1e6);

    return read > gemm ? read : gemm;
}

/* floor: us; 0: of the row's bytes and operations. */
static inline void
row_print_floor(const row_t *r, double floor)
{
    double part;

    floor = floor > 0 ? floor : row_floor(r->bytes, r->flop);
    part = floor / r->us * 100;
    printf("%s\t%.1f\t%.1f\t%.1f\t%.2f\t%.1f\t%.1f\t", r->name, r->us,
        r->spread, r->bytes / r->us / 1e3, r->flop / r->us / 1e6, floor, part);
    if (r->target > 0) {
        printf("%.0f\t%s", r->target, part >= r->target ? "met" : "missed");
    } else {
        printf("\tmeasured");
    }
    printf("\t%s\n", r->note != NULL ? r->note : "");
    (void) fflush(stdout);
}

static inline void
row_print(const row_t *r)
{
    row_print_floor(r, 0);
}

/* A figure of its own unit, which is to be below most (0: whatever it is). */
static inline void
row_figure(const char *name, double us, double most, const char *note)
{
    printf("%s\t%.2f\t\t\t\t\t\t", name, us);
    if (most > 0) {
        printf("<%g us\t%s", most, us < most ? "met" : "missed");
    } else {
        printf("\tmeasured");
    }
    printf("\t%s\n", note);
    (void) fflush(stdout);
}

static inline int
row_by_value(const void *a, const void *b)
{
    double x = *(const double *) a, y = *(const double *) b;

    return (x > y) - (x < y);
}

/* The median of v, which it sorts; *spread as above. */
static inline double
row_median(double *v, uint32_t n, double *spread)
{
    double m;

    qsort(v, n, sizeof(*v), row_by_value);
    m = v[n / 2];
    if (spread != NULL) {
        *spread = m > 0 ? (v[n * 3 / 4] - v[n / 4]) / 2 / m * 100 : 0;
    }

    return m;
}

#endif
