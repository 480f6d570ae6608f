/*
 * The sampler's walks over a vocabulary in plain C: see scan.h.
 *
 * The exponential is our own: the C library's may be another function on
 * another machine.
 */
#include "scan.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define LANES 8

static float
tops(const float *x, uint32_t n, float *top)
{
    uint32_t i, end, bad = 0;
    float max, all = -INFINITY;

    assert(n > 0);

    for (i = 0; i < n;) {
        end = n - i < SCAN_BLOCK ? n : i + SCAN_BLOCK;

        /* +Inf is not below itself, and NaN below nothing */
        for (max = -INFINITY; i < end; i++) {
            max = x[i] > max ? x[i] : max;
            bad |= x[i] < INFINITY ? 0 : 1;
        }

        top[(end - 1) / SCAN_BLOCK] = max;
        all = max > all ? max : all;
    }

    return bad ? INFINITY : all;
}

/*
 * exp(x) for x <= 0, within a few ulp: x = n ln 2 + r with |r| <= ln 2 / 2,
 * ln 2 in two parts so that n times the first is exact, and the series of
 * exp(r), whose first left-out term is below 1e-8.
 */
static inline float
exp_neg(float x)
{
    float c, n, r, y;
    int32_t e;

    c = x < SCAN_EXP_MIN ? SCAN_EXP_MIN : x;
    e = (int32_t) (c * 1.44269504f - 0.5f);
    n = (float) e;
    r = c - n * 0.693359375f + n * 2.12194440e-4f;

    y = 1.0f / 5040;
    y = y * r + 1.0f / 720;
    y = y * r + 1.0f / 120;
    y = y * r + 1.0f / 24;
    y = y * r + 1.0f / 6;
    y = y * r + 0.5f;
    y = y * r + 1.0f;
    y = y * r + 1.0f;

    e = (e + 127) * (1 << 23);
    memcpy(&n, &e, sizeof(n));

    return x < SCAN_EXP_MIN ? 0.0f : y * n;
}

static double
join(const double lane[LANES])
{
    return ((lane[0] + lane[1]) + (lane[2] + lane[3]))
           + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

static double
weights(const float *x, uint32_t n, float max, float t, float *w)
{
    double lane[LANES] = {0};
    uint32_t i;
    float v;

    assert(t > 0);

    for (i = 0; i < n; i++) {
        v = exp_neg((x[i] - max) / t);
        lane[i % LANES] += v;

        if (w != NULL) {
            w[i] = v;
        }
    }

    return join(lane);
}

static double
sum(const float *w, uint32_t n)
{
    double lane[LANES] = {0};
    uint32_t i;

    assert(n > 0);

    for (i = 0; i < n; i++) {
        lane[i % LANES] += w[i];
    }

    return join(lane);
}

static void
allow(float *x, const float *from, uint32_t n, const uint32_t *mask)
{
    uint32_t i;

    for (i = 0; i < n; i++) {
        x[i] = mask[i / 32] >> i % 32 & 1 ? from[i] : -INFINITY;
    }
}

const cpu_scan_t cpu_scan_ref = {tops, weights, allow, sum};
