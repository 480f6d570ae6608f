/*
 * Samples as a histogram: bucket i holds values from STAT_LEAST * 1.01^i.
 */
#include "stat.h"

#include <assert.h>
#include <math.h>

#define STAT_LEAST 1e-6
#define STAT_STEP  0.009950330853168083 /* log 1.01 */

void
stat_add(stat_t *s, double v)
{
    double at = v > STAT_LEAST ? log(v / STAT_LEAST) / STAT_STEP : 0;

    assert(v >= 0);

    s->bucket[at < STAT_BUCKETS - 1 ? (int) at : STAT_BUCKETS - 1]++;
    s->n++;
    s->sum += v;
    s->max = v > s->max ? v : s->max;
    s->over += s->limit > 0 && v > s->limit;
}


double
stat_percentile(const stat_t *s, double p)
{
    uint64_t rank = (uint64_t) (p / 100 * (double) s->n), seen = 0;
    double v;
    int i;

    if (s->n == 0 || rank >= s->n) {
        return s->max;
    }

    for (i = 0; seen + s->bucket[i] <= rank; i++) {
        assert(i < STAT_BUCKETS - 1);
        seen += s->bucket[i];
    }

    v = STAT_LEAST * exp((i + 0.5) * STAT_STEP);

    return v < s->max ? v : s->max;
}


double
stat_mean(const stat_t *s)
{
    return s->n == 0 ? 0 : s->sum / (double) s->n;
}
