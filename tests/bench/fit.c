/*
 * A cost model of measured steps: fit TABLE reads what tests/bench/steps
 * prints, fits the simulator's model to it, says how far that is from steps
 * that were kept out, and writes TABLE for the simulator (cost.h).
 *
 * DESIGN.  The model is linear in its figures: the time at the first point,
 * and how much more each one after it takes, so that more tokens never take
 * less; read_us, attn_us and out_us.  No point lies beyond the steps measured.
 * Least squares of the relative error, as a step of 20 ms and one of 2 s
 * matter alike, by coordinate descent that keeps each figure at or above zero.
 * Every third step is kept out; the table is then of all.  Steps whose threads
 * had to wait for cores are left out of everything.
 */
#include "../sim/cost.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    STEPS = 20000,
    SWEEPS = 20000,
    POINTS = 9,
    READ = POINTS,
    ATTN,
    OUT,
    FIGURES,
    KEPT_OUT = 3
};

#define BUSY 0.1 /* share of a step's time */

static const double points[POINTS] = {1, 4, 8, 16, 32, 64, 128, 256, 512};

typedef struct {
    double us;
    uint32_t rows, context, tokens, start;
} step_t;

typedef struct {
    step_t v[STEPS];
    size_t n, dropped;
    double most; /* tokens of a step */
} steps_t;


static int
steps_read(steps_t *s, FILE *f)
{
    char line[256];
    double waited;
    step_t *v;

    while (s->n < STEPS && fgets(line, sizeof(line), f) != NULL) {
        v = &s->v[s->n];
        if (sscanf(line, "step %lf %u %u %u %u %lf", &v->us, &v->rows,
                &v->context, &v->tokens, &v->start, &waited)
                != 6
            || v->us <= 0 || v->rows + v->tokens == 0) {
            continue;
        }
        if (waited > BUSY * v->us) {
            s->dropped++;
        } else {
            s->most = fmax(s->most, v->rows + v->tokens);
            s->n++;
        }
    }

    return s->n >= 3 * FIGURES ? 0 : -1;
}


/* The batch that a step was, for the simulator's own arithmetic. */
static double
model_us(const cost_t *c, const step_t *s)
{
    batch_row_t row = {.q_len = 1, .kv_len = s->context};
    batch_row_t prompt = {.q_start = s->start, .q_len = s->tokens};
    batch_t b = {.tokens_n = s->rows + s->tokens, .outs_n = s->rows};

    return cost_us(c, &b) + s->rows * cost_row_us(c, &row)
           + (s->tokens > 0 ? cost_row_us(c, &prompt) : 0);
}


/* How much each figure weighs in the step's time. */
static void
terms(const step_t *s, int points_n, double x[FIGURES])
{
    double n = s->rows + s->tokens, share;
    int i = 0, k;

    memset(x, 0, FIGURES * sizeof(x[0]));
    while (i < points_n - 2 && n > points[i + 1]) {
        i++;
    }
    share = n <= points[0] ? 0 : (n - points[i]) / (points[i + 1] - points[i]);
    for (k = 0; k <= i; k++) {
        x[k] = 1; /* all up to there, and a part of what comes behind */
    }
    x[i + 1] = share;
    x[READ] = (double) s->rows * s->context;
    x[ATTN] = s->tokens > 1 ? s->tokens * (s->start + s->tokens / 2.0) : 0;
    x[OUT] = s->rows;
}


static void
solve(double a[FIGURES][FIGURES], const double b[], double v[])
{
    double sum;
    int sweep, i, k;

    memset(v, 0, FIGURES * sizeof(v[0]));
    for (sweep = 0; sweep < SWEEPS; sweep++) {
        for (i = 0; i < FIGURES; i++) {
            if (a[i][i] <= 0) {
                continue;
            }
            sum = b[i];
            for (k = 0; k < FIGURES; k++) {
                sum -= a[i][k] * v[k];
            }
            v[i] = fmax(0, v[i] + sum / a[i][i]);
        }
    }
}


/* Fits c to the steps, but for each one in KEPT_OUT if out is set. */
static void
fit(cost_t *c, const steps_t *s, int out)
{
    double a[FIGURES][FIGURES] = {{0}}, b[FIGURES] = {0}, v[FIGURES];
    double x[FIGURES];
    int i, k, n = 2;
    size_t at;

    while (n < POINTS && points[n] <= s->most) {
        n++;
    }
    for (at = 0; at < s->n; at++) {
        if (out && at % KEPT_OUT == 0) {
            continue;
        }
        terms(&s->v[at], n, x);
        for (i = 0; i < FIGURES; i++) {
            for (k = 0; k < FIGURES; k++) {
                a[i][k] += x[i] * x[k] / (s->v[at].us * s->v[at].us);
            }
            b[i] += x[i] / s->v[at].us;
        }
    }
    solve(a, b, v);

    memset(c, 0, sizeof(*c));
    c->name = "fitted";
    c->points_n = n;
    for (i = 0; i < n; i++) {
        c->points[i].tokens = points[i];
        c->points[i].us = v[i] + (i > 0 ? c->points[i - 1].us : 0);
    }
    c->read_us = v[READ];
    c->attn_us = v[ATTN];
    c->out_us = v[OUT];
}


static int
by_value(const void *a, const void *b)
{
    double x = *(const double *) a, y = *(const double *) b;

    return (x > y) - (x < y);
}


/* Errors of the steps that were kept out, relative. */
static void
judge(const cost_t *c, const steps_t *s, FILE *f)
{
    static double miss[STEPS];
    double sum = 0;
    size_t at, n = 0;

    for (at = 0; at < s->n; at += KEPT_OUT) {
        miss[n] = fabs(model_us(c, &s->v[at]) / s->v[at].us - 1);
        sum += miss[n++];
    }
    qsort(miss, n, sizeof(miss[0]), by_value);
    fprintf(f,
        "# %zu steps of 1 to %.0f tokens; error of the %zu kept out: mean "
        "%.1f %%, median %.1f %%, p90 %.1f %%, most %.1f %%; %zu were "
        "disturbed and do not count\n",
        s->n, s->most, n, 100 * sum / (double) n, 100 * miss[n / 2],
        100 * miss[n * 9 / 10], 100 * miss[n - 1], s->dropped);
}


static void
write_figures(const cost_t *c, FILE *f)
{
    int i;

    fprintf(f, "base_us 0\nread_us %.4f\nattn_us %.4f\nout_us %.1f\n",
        c->read_us, c->attn_us, c->out_us);
    for (i = 0; i < c->points_n; i++) {
        fprintf(f, "point %.0f %.0f\n", c->points[i].tokens, c->points[i].us);
    }
}


int
main(int argc, char **argv)
{
    static steps_t s;
    cost_t part, all;
    FILE *f;

    if (argc < 2) {
        printf("usage: fit TABLE <STEPS\n");
        return 0;
    }
    if (steps_read(&s, stdin) != 0) {
        fprintf(stderr,
            "fit: %zu undisturbed steps are too few, %zu were disturbed\n", s.n,
            s.dropped);
        return 1;
    }

    fit(&part, &s, 1);
    fit(&all, &s, 0);
    f = fopen(argv[1], "w");
    if (f == NULL) {
        perror(argv[1]);
        return 1;
    }
    judge(&part, &s, f);
    write_figures(&all, f);
    judge(&part, &s, stdout);
    write_figures(&all, stdout);
    if (fclose(f) != 0) {
        perror(argv[1]);
        return 1;
    }

    /* what was written is what the simulator reads */
    return cost_file(&part, argv[1]) == 0 ? 0 : 1;
}
