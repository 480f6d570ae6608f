/*
 * The step-time model behind step_target.
 *
 * DESIGN.  A step's time is taken as
 *
 *      c0 + c1 min(tokens, knee) + c2 max(tokens - knee, 0)
 *         + c3 reads + c4 pairs + c5 outs            all c >= 0
 *
 * Below the knee a device waits for its weights and tokens are nearly free;
 * above it they cost.  Where the knee is nobody tells, so a few are fitted side
 * by side, and the one that has been wrong least is asked.  Pairs are dear
 * where the context is long: behind four thousand tokens a prompt's token costs
 * a CPU twice what the first one does.  So are outputs where the vocabulary is
 * large beside the model: a row that decodes is half as dear again as a token
 * of a prompt.
 *
 * A fit is least squares over the steps of late: products are summed up with a
 * decay, and the coefficients follow by a few sweeps of coordinate descent that
 * keep each at or above zero, from where the last step left them.  That is a
 * few hundred operations a step, needs no inversion, and cannot run away when
 * all steps look alike, as the sums stay bounded and the coefficients of what
 * was not seen to vary stay where they are.
 *
 * CAUTION.  A step is planned for the target less twice the usual error, and
 * never for more than twice the tokens, or twice the pairs, that were ever
 * measured, and a tile: so it starts small, and does not trust a line where it
 * has no point.  A prompt whose first thousands are in the cache begins where
 * pairs may never have counted for much.  As many pairs as the tokens seen have
 * at short context are let pass, as they cost little beside tokens.
 *
 * One step that took far too long (the machine was busy elsewhere) is counted
 * as a little too long, unless it was larger than any before.
 *
 * Numbers only: no clock, no allocation.  Owned by the scheduler.
 */
#include "sched_pace.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define DECAY  0.995 /* of the sums, a step: two hundred of them count */
#define SWEEPS 16
#define RIPE   4    /* steps before the model is asked */
#define WILD   2.0  /* times the guess: an outlier */
#define MISS   0.05 /* weight of the newest error */

/* Units that make the terms alike in size, so that sweeps converge. */
#define UNIT_TOKENS 128.0
#define UNIT_READS  65536.0
#define UNIT_PAIRS  262144.0
#define UNIT_OUTS   32.0

/* Context at which attention costs little beside everything else. */
#define SHORT 512.0

static const double knees[SCHED_FITS] = {1, 64, 192, 448};


/* What counts as seen before anything was. */
static double
least_seen(uint32_t tile)
{
    return tile < 8 ? 8 : tile;
}


void
sched_pace_init(sched_pace_t *p, uint64_t target_us, uint32_t tile)
{
    uint32_t i;

    assert(target_us > 0 && tile > 0);

    memset(p, 0, sizeof(*p));
    p->target_us = (double) target_us;
    p->tile = tile;
    p->seen.tokens = least_seen(tile);
    for (i = 0; i < SCHED_FITS; i++) {
        p->fits[i].knee = knees[i];
    }
}


/* The terms of a load for one fit. */
static void
terms(const sched_fit_t *f, const sched_load_t *l, double x[SCHED_TERMS])
{
    double over = l->tokens > f->knee ? l->tokens - f->knee : 0;

    x[0] = 1;
    x[1] = (l->tokens - over) / UNIT_TOKENS;
    x[2] = over / UNIT_TOKENS;
    x[3] = l->reads / UNIT_READS;
    x[4] = l->pairs / UNIT_PAIRS;
    x[5] = l->outs / UNIT_OUTS;
}


static double
dot(const double *a, const double *b)
{
    double sum = 0;
    uint32_t i;

    for (i = 0; i < SCHED_TERMS; i++) {
        sum += a[i] * b[i];
    }

    return sum;
}


/* Coordinate descent on the decayed sums. */
static void
fit_solve(sched_fit_t *f)
{
    uint32_t sweep, i;
    double v;

    for (sweep = 0; sweep < SWEEPS; sweep++) {
        for (i = 0; i < SCHED_TERMS; i++) {
            if (f->a[i][i] < 1e-9) {
                continue; /* has not been seen to vary from zero */
            }
            v = f->coef[i] + (f->b[i] - dot(f->a[i], f->coef)) / f->a[i][i];
            f->coef[i] = v > 0 ? v : 0;
        }
    }
}


static void
fit_add(sched_fit_t *f, const sched_load_t *l, double us, int ripe, int seen)
{
    double x[SCHED_TERMS], guess, miss;
    uint32_t i, k;

    terms(f, l, x);
    guess = dot(f->coef, x);

    if (ripe) {
        if (seen && us > WILD * guess && guess > 0) {
            us = WILD * guess;
        }
        miss = (us > guess ? us - guess : guess - us) / us;
        f->miss += MISS * (miss - f->miss);
    }

    for (i = 0; i < SCHED_TERMS; i++) {
        for (k = 0; k < SCHED_TERMS; k++) {
            f->a[i][k] = DECAY * f->a[i][k] + x[i] * x[k];
        }
        f->b[i] = DECAY * f->b[i] + x[i] * us;
    }

    fit_solve(f);
}


/* Was a step as large in what is dear measured before? */
static int
was_seen(const sched_pace_t *p, const sched_load_t *l)
{
    return l->tokens <= p->seen.tokens
           && l->pairs <= fmax(p->seen.pairs, SHORT * p->seen.tokens);
}


void
sched_pace_took(sched_pace_t *p, const sched_load_t *l, double us)
{
    uint32_t i;

    assert(l->tokens > 0 && us >= 0);

    us = us < 1 ? 1 : us;
    for (i = 0; i < SCHED_FITS; i++) {
        fit_add(&p->fits[i], l, us, p->steps >= RIPE, was_seen(p, l));
    }

    for (i = 0; i < SCHED_FITS; i++) {
        if (p->fits[i].miss < p->fits[p->best].miss) {
            p->best = i;
        }
    }
    p->steps++;
    p->seen.tokens = fmax(p->seen.tokens, l->tokens);
    p->seen.pairs = fmax(p->seen.pairs, l->pairs);
}


double
sched_pace_guess(const sched_pace_t *p, const sched_load_t *l)
{
    const sched_fit_t *f = &p->fits[p->best];
    double x[SCHED_TERMS];

    assert(p->best < SCHED_FITS);
    terms(f, l, x);

    return dot(f->coef, x);
}


/* Does the step keep to the target with q more tokens from start on? */
static int
fits_in(const sched_pace_t *p, const sched_load_t *l, uint32_t start,
    uint32_t q, int scored)
{
    double margin = 1 + 2 * p->fits[p->best].miss;
    sched_load_t sum = *l, half;

    sched_load_row(&sum, start, q, scored ? q : 1);
    if (p->steps < RIPE) {
        return sum.tokens <= 2 * least_seen(p->tile);
    }

    /* a tile more, or rounding to tiles would stop the growth */
    half.tokens = sum.tokens / 2;
    half.pairs = (sum.pairs - p->tile * ((double) start + q)) / 2;

    return was_seen(p, &half)
           && sched_pace_guess(p, &sum) * margin <= p->target_us;
}


uint32_t
sched_pace_most(const sched_pace_t *p, const sched_load_t *l, uint32_t start,
    uint32_t want, int scored)
{
    uint32_t lo = 0, hi = want, mid;

    assert(want > 0);

    if (fits_in(p, l, start, want, scored)) {
        return want;
    }

    /* lo fits, hi does not */
    while (hi - lo > 1) {
        mid = lo + (hi - lo) / 2;
        if (fits_in(p, l, start, mid, scored)) {
            lo = mid;
        } else {
            hi = mid;
        }
    }

    return lo;
}


uint32_t
sched_pace_room(const sched_pace_t *p, const sched_load_t *l, uint32_t start,
    uint32_t want, int scored)
{
    uint32_t most = sched_pace_most(p, l, start, want, scored);
    uint64_t n = (uint64_t) l->tokens, tiles, up;

    tiles = (n + most) / p->tile * p->tile;
    if (most == want || tiles == n + most) {
        return most;
    }
    if (tiles <= n) {
        return 0;
    }

    /* the tokens that a tile computes are what counts: beside many rows whole
     * tiles may be few of the prompt's, and with a part of one more the better
     */
    up = tiles + p->tile;

    return most * tiles > (tiles - n) * up ? most : (uint32_t) (tiles - n);
}
