/*
 * What is stored in the cache, over vectors, a part of vec.h: rotation and
 * rounding.
 */
#ifndef VEC_CACHE_H
#define VEC_CACHE_H

#include "vec_whole.h"

/*
 * a * cos + b * sin, each rounded for itself as in plain C: what is stored is
 * rounded once more, and would differ where two results straddle a half.
 */
ALWAYS vf_t
turned(vf_t a, vf_t cos, vf_t b, vf_t sin)
{
    return V(add)(V(mul)(a, cos), V(mul)(b, sin));
}

static void
rotate_neighbours(float *x, const float *cos, const float *sin, uint32_t half)
{
    uint32_t e, u;
    vf_t v;

    for (e = 0; e + LANES <= 2 * half; e += LANES) {
        v = V(loadu)(x + e);
        v = turned(
            v, V(loadu)(cos + e), V(shuffle)(v, v, 0xb1), V(loadu)(sin + e));
        V(storeu)(x + e, v);
    }

    if (e < 2 * half) {
        u = 2 * half - e;
        v = load_floats(x + e, u);
        v = turned(v, load_floats(cos + e, u), V(shuffle)(v, v, 0xb1),
            load_floats(sin + e, u));
        store_floats(x + e, v, u);
    }
}

static void
rotate_halves(float *x, const float *cos, const float *sin, uint32_t half)
{
    float *y = x + half;
    uint32_t e, u;
    vf_t a, b;

    for (e = 0; e + LANES <= half; e += LANES) {
        a = V(loadu)(x + e);
        b = V(loadu)(y + e);
        V(storeu)(x + e, turned(a, V(loadu)(cos + e), b, V(loadu)(sin + e)));
        b = turned(b, V(loadu)(cos + half + e), a, V(loadu)(sin + half + e));
        V(storeu)(y + e, b);
    }

    if (e < half) {
        u = half - e;
        a = load_floats(x + e, u);
        b = load_floats(y + e, u);
        store_floats(x + e,
            turned(a, load_floats(cos + e, u), b, load_floats(sin + e, u)), u);
        store_floats(y + e,
            turned(b, load_floats(cos + half + e, u), a,
                load_floats(sin + half + e, u)),
            u);
    }
}

static void
kv_put_f16(void *dst, const float *src, uint32_t n)
{
    vh_t h;
    uint32_t e;

    for (e = 0; e + LANES <= n; e += LANES) {
        h = to_f16(V(loadu)(src + e));
        memcpy((char *) dst + (size_t) e * 2, &h, sizeof(h));
    }

    if (e < n) {
        h = to_f16(load_floats(src + e, n - e));
        memcpy((char *) dst + (size_t) e * 2, &h, (n - e) * 2);
    }
}

/* Conversions give what a byte cannot hold as the nearest that it can. */
static void
kv_put_q8_0(void *dst, const float *src, uint32_t n)
{
    char *p = dst;
    uint32_t e;
    int32_t half[2];
    uint16_t h;
    vh_t v;

    assert(n % CPU_STEP == 0);

    for (e = 0; e < n; e += CPU_STEP, p += 2 + CPU_STEP) {
        v = to_f16(V(set1)(top_of(src + e) / 127));
        memcpy(&h, &v, sizeof(h));

        if (h == 0 || h >= 0x7c00) {
            h = h == 0 ? 0 : 0x7e00;
            memset(p + 2, 0, CPU_STEP);
        } else {
            round_step(p + 2, src + e, 1 / _cvtsh_ss(h), 1, half);
        }

        memcpy(p, &h, 2);
    }
}

#endif
