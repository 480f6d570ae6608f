/*
 * Seeded random numbers: splitmix64 and what is made of it.
 */
#include "rnd.h"

#include <assert.h>
#include <math.h>

void
rnd_seed(rnd_t *r, uint64_t seed)
{
    r->state = seed * 0xd1342543de82ef95ull + 1;
    (void) rnd_next(r);
}


uint64_t
rnd_next(rnd_t *r)
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15ull;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;

    return z ^ z >> 31;
}


double
rnd_uniform(rnd_t *r)
{
    return ((double) (rnd_next(r) >> 11) + 0.5) / 9007199254740992.0;
}


uint32_t
rnd_below(rnd_t *r, uint32_t n)
{
    assert(n > 0);

    return (uint32_t) (rnd_next(r) % n);
}


double
rnd_exponential(rnd_t *r, double mean)
{
    return -mean * log(rnd_uniform(r));
}


static double
normal(rnd_t *r)
{
    return sqrt(-2 * log(rnd_uniform(r)))
           * cos(6.283185307179586 * rnd_uniform(r));
}


/* Shape at least 1: a cubed normal, accepted nearly always. */
static double
gamma_large(rnd_t *r, double shape)
{
    double d = shape - 1.0 / 3, c = 1 / sqrt(9 * d), x, v;

    do {
        x = normal(r);
        v = 1 + c * x;
        v = v * v * v;
    } while (
        v <= 0 || log(rnd_uniform(r)) > x * x / 2 + d - d * v + d * log(v));

    return d * v;
}


double
rnd_gamma(rnd_t *r, double mean, double cv)
{
    double shape = 1 / (cv * cv), g;

    assert(mean >= 0 && cv > 0);

    if (shape >= 1) {
        g = gamma_large(r, shape);
    } else {
        g = gamma_large(r, shape + 1) * pow(rnd_uniform(r), 1 / shape);
    }

    return g * mean / shape;
}
