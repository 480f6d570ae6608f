/*
 * Loads with the statistics of the published traces, for where the files are
 * absent: quantiles of lengths, rate and burstiness of arrivals, and for
 * Mooncake how prompts share prefixes.  `sim check` compares them with the
 * traces where those are there.
 *
 * DESIGN.  A length is drawn by turning the distribution function round:
 * between two quantiles of the table it is log-linear.  Prompt and output are
 * drawn apart; what ties them in the traces is not modelled.  Gaps between
 * arrivals are gamma distributed, but for some that are silences; how one gap
 * depends on the last is not modelled, either.  A Mooncake
 * prompt goes on from an earlier and no longer one, as far back as they do in
 * the trace, or begins a new conversation behind the block that all share.
 */
#include "trace.h"

#include <assert.h>
#include <math.h>

enum { QUANTILES = 11, TRIES = 12 };

static const double at[QUANTILES] = {
    0, .05, .10, .25, .50, .75, .90, .95, .99, .999, 1};

typedef struct {
    uint32_t n;     /* requests */
    double gap_s;   /* between arrivals, mean; 0: all at once */
    double cv;      /* of the gaps */
    double quiet;   /* share of gaps that are silences instead */
    double quiet_s; /* how long these are, mean */
    double goes_on; /* share of prompts that may continue an earlier one */
    uint32_t prompt[QUANTILES], output[QUANTILES];
} shape_t;

/* Measured over the files; the prefix share is 37 % of Mooncake's blocks. */
static const shape_t shapes[TRACE_N] = {
    [TRACE_CONV] = {19366, 0.1808, 1.09, 0, 0, 0,
        {2, 181, 207, 396, 1020, 1189, 2735, 4083, 4142, 6212, 14050},
        {7, 41, 54, 85, 129, 395, 424, 451, 601, 954, 1000}},
    [TRACE_CODE] = {8819, 0.1108, 2.21, 57.0 / 8818, 43.25, 0,
        {3, 75, 147, 578, 1469, 2745, 5186, 7302, 7436, 7437, 7437},
        {6, 6, 7, 9, 13, 24, 55, 90, 252, 831, 1899}},
    [TRACE_MOONCAKE] = {12031, 0.2940, 0.37, 0, 0, 0.52,
        {891, 901, 964, 2307, 6909, 15368, 27367, 39552, 85401, 121301, 126195},
        {1, 10, 24, 157, 350, 472, 597, 698, 1120, 2000, 2000}},
    [TRACE_SHAREGPT] = {30731, 0, 1, 0, 0, 0,
        {1, 29, 74, 580, 1730, 3735, 5696, 6563, 7434, 7855, 8141},
        {2, 44, 84, 228, 415, 628, 834, 920, 998, 1021, 1024}},
    [TRACE_SERVEGEN] = {20000, 0.0384, 2.78, 0, 0, 0,
        {161, 171, 173, 177, 187, 198, 207, 215, 228, 268, 454},
        {1, 1, 1, 2, 3, 3, 3, 3, 3, 3, 3}},
    [TRACE_REASON] = {17785, 0.5068, 2.05, 0, 0, 0,
        {664, 751, 784, 836, 974, 1257, 1261, 1267, 1819, 2272, 2810},
        {139, 218, 259, 303, 368, 444, 530, 593, 750, 1024, 1024}},
};


/* How many requests before it lies the one that a prompt continues. */
static const uint32_t back[QUANTILES] = {
    1, 85, 141, 229, 423, 901, 1662, 2400, 5110, 11018, 12000};


static uint32_t
length(const uint32_t *q, rnd_t *r)
{
    double u = rnd_uniform(r), f;
    int i = 0;

    while (i < QUANTILES - 2 && u > at[i + 1]) {
        i++;
    }
    f = (u - at[i]) / (at[i + 1] - at[i]);
    assert(f >= 0 && f <= 1 && q[i] > 0);

    return (uint32_t) (q[i] * pow((double) q[i + 1] / q[i], f) + 0.5);
}


/* Prefix blocks of the request added last: those of `from` first, if any. */
static void
share(load_t *l, size_t from, int any, uint32_t *fresh)
{
    uint32_t have = 0, want, i;

    want = (l->v[l->n - 1].prompt + LOAD_HASH_TOKENS - 1) / LOAD_HASH_TOKENS;

    if (any) {
        have = l->v[from].hashes_n;
    } else if (want > 0) {
        load_hash(l, 0); /* what every conversation begins with */
        want--;
    }
    have = have < want ? have : want;
    for (i = 0; i < have; i++) {
        load_hash(l, l->hashes[l->v[from].hash + i]);
    }
    for (; i < want; i++) {
        load_hash(l, ++*fresh);
    }
}


/*
 * The request that the one added last continues, of those since first: of a
 * few that might be, the longest that is not longer.  l->n: none.
 */
static size_t
before(const load_t *l, size_t first, rnd_t *r)
{
    uint32_t want = l->v[l->n - 1].prompt / LOAD_HASH_TOKENS, most = 0, i, d;
    size_t best = l->n, k;

    for (i = 0; i < TRIES; i++) {
        d = length(back, r);
        if (d >= l->n - first) {
            continue;
        }
        k = l->n - 1 - d;
        if (l->v[k].hashes_n <= want && l->v[k].hashes_n >= most) {
            most = l->v[k].hashes_n;
            best = k;
        }
    }

    return best;
}


/* Times of arrival of requests [first, n), of the mean rate that they are to
 * have whatever was drawn. */
static void
arrive(load_t *l, size_t first, const shape_t *s, rnd_t *r)
{
    double mean = s->gap_s * (1 - s->quiet) + s->quiet_s * s->quiet, at = 0;
    double by;
    size_t i;

    assert(l->n - first > 1);
    for (i = first + 1; i < l->n; i++) {
        at += rnd_uniform(r) < s->quiet ? rnd_exponential(r, s->quiet_s)
                                        : rnd_gamma(r, s->gap_s, s->cv);
        l->v[i].at_us = (uint64_t) (1e6 * at);
    }
    by = mean * (double) (l->n - first - 1) / at;
    for (i = first + 1; i < l->n; i++) {
        l->v[i].at_us = (uint64_t) ((double) l->v[i].at_us * by);
    }
}


void
trace_generate(trace_t t, load_t *l, uint64_t seed)
{
    const shape_t *s = &shapes[t];
    size_t first = l->n, from, i;
    uint32_t fresh = 0;
    rnd_t r;

    assert((unsigned) t < TRACE_N);
    rnd_seed(&r, seed);

    for (i = 0; i < s->n; i++) {
        (void) load_add(l, length(s->prompt, &r), length(s->output, &r));
        if (s->goes_on > 0) {
            from = rnd_uniform(&r) < s->goes_on ? before(l, first, &r) : l->n;
            share(l, from, from < l->n, &fresh);
        }
    }

    if (s->gap_s > 0) {
        arrive(l, first, s, &r);
    }
}
