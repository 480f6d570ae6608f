/*
 * Memory that ends where a page begins which cannot be touched, and numbers
 * for filling it.
 */
#ifndef GUARD_H
#define GUARD_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "cpu/cpu.h"
#include "packed.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct {
    char *map;
    size_t size;
    void *p; /* n bytes, the last one just before the guard page */
} guard_t;

/* Filled with ones: every float in it is NaN. */
static inline void *
guard_open(guard_t *g, size_t n)
{
    size_t page;

    page = (size_t) sysconf(_SC_PAGESIZE);
    g->size = (n + page - 1) / page * page + page;
    g->map = mmap(NULL, g->size, PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(g->map != MAP_FAILED);
    memset(g->map, 0xff, g->size);
    assert_int_equal(mprotect(g->map + g->size - page, page, PROT_NONE), 0);
    g->p = g->map + g->size - page - n;

    return g->p;
}

static inline void
guard_close(guard_t *g)
{
    assert_int_equal(munmap(g->map, g->size), 0);
}

static inline uint32_t
rnd(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;

    return (uint32_t) ((*s * 0x2545F4914F6CDD1Dull) >> 32);
}

/* In [-1, 1). */
static inline float
rnd_float(uint64_t *s)
{
    return (float) (int32_t) rnd(s) * 0x1p-31f;
}

static inline uint32_t
type_elems(uint32_t type)
{
#define X(name, elems, bytes) elems,
    static const uint32_t v[] = {KN_TYPE_LIST(X)};
#undef X

    return v[type];
}

static inline const char *
type_name(uint32_t type)
{
#define X(name, elems, bytes) #name,
    static const char *const v[] = {KN_TYPE_LIST(X)};
#undef X

    return v[type];
}

static inline size_t
type_bytes(uint32_t type, size_t n)
{
#define X(name, elems, bytes) bytes,
    static const uint32_t v[] = {KN_TYPE_LIST(X)};
#undef X

    return n / type_elems(type) * v[type];
}

/* The scales of a block: one or two halves, or MXFP4's exponent. */
static inline void
rnd_scales(uint64_t *s, uint32_t type, uint8_t *b)
{
    static const struct {
        uint8_t at, n;
    } scales[KN_TYPES] = {
        [KN_Q8_0] = {0, 1},
        [KN_Q4_0] = {0, 1},
        [KN_Q4_1] = {0, 2},
        [KN_Q5_0] = {0, 1},
        [KN_Q5_1] = {0, 2},
        [KN_Q2_K] = {80, 2},
        [KN_Q3_K] = {108, 1},
        [KN_Q4_K] = {0, 2},
        [KN_Q5_K] = {0, 2},
        [KN_Q6_K] = {208, 1},
        [KN_IQ4_NL] = {0, 1},
        [KN_IQ4_XS] = {0, 1},
        [KN_IQ3_S] = {0, 1},
        [KN_IQ3_XXS] = {0, 1},
        [KN_TQ1_0] = {52, 1},
        [KN_TQ2_0] = {64, 1},
        [KN_MXFP4] = {0, 0},
    };
    uint32_t i;
    uint16_t h;

    for (i = 0; i < scales[type].n; i++) {
        h = (uint16_t) (rnd(s) & 0x83ff);
        h |= (rnd(s) % 9) << 10;
        memcpy(b + scales[type].at + i * 2, &h, 2);
    }

    if (type == KN_MXFP4) {
        b[0] = (uint8_t) (118 + rnd(s) % 9);
    }
}

/*
 * n elements of finite numbers of about one in size, subnormal halves among
 * them, as bits: no conversion is trusted.
 */
static inline void
rnd_weights(uint64_t *s, uint32_t type, void *p, size_t n)
{
    uint8_t *b = p;
    size_t i, size;
    uint16_t h;
    float f;

    if (type == KN_F32) {
        for (i = 0; i < n; i++) {
            f = rnd_float(s);
            memcpy(b + i * 4, &f, 4);
        }

    } else if (type == KN_F16 || type == KN_BF16) {
        for (i = 0; i < n; i++) {
            h = (uint16_t) (rnd(s) & (type == KN_F16 ? 0x83ff : 0x80ff));
            h |= type == KN_F16 ? (rnd(s) % 16) << 10 : 0x3e00 + rnd(s) % 256;
            memcpy(b + i * 2, &h, 2);
        }

    } else {
        size = type_bytes(type, type_elems(type));

        for (i = 0; i < n / type_elems(type) * size; i++) {
            b[i] = (uint8_t) rnd(s);
        }

        for (i = 0; i < n / type_elems(type); i++) {
            rnd_scales(s, type, b + i * size);
        }
    }
}

static inline double
half_value(uint16_t h)
{
    double m;
    int e;

    e = h >> 10 & 31;
    m = e ? 1024 + (h & 1023) : h & 1023;

    for (e = e ? e : 1; e < 25; e++) {
        m /= 2;
    }

    for (; e > 25; e--) {
        m *= 2;
    }

    return h & 0x8000 ? -m : m;
}

/* The set's functions; one that it lacks is not there.  CUDA has none. */
static inline const cpu_isa_t *
isa_named(const char *name)
{
    static cpu_panel_isa_t panels;
    static cpu_isa_t bf16;

    if (strcmp(name, "avx512bf16") == 0) {
        cpu_panels_fill(&panels, &cpu_panels_avx512bf16);
        bf16 = cpu_avx512;
        bf16.name = "avx512bf16";
        bf16.panels = &panels;
        return &bf16;
    }

    return strcmp(name, "cuda") == 0     ? NULL
           : strcmp(name, "avx2") == 0   ? &cpu_avx2
           : strcmp(name, "avx512") == 0 ? &cpu_avx512
                                         : &cpu_ref;
}

/*
 * What rounding activations to numbers may do to a product with a weight of
 * type, relative L2, where tolerance is for those that take them as they are.
 * Without an instruction set it is CUDA's: activations of 16 bits or more, and
 * packed weights as F16.
 */
static inline double
acts_tolerance(const cpu_isa_t *isa, uint32_t type, double tolerance)
{
    static const double more[CPU_KINDS] = {0, 1e-2, 4e-5, 3e-3};
    uint32_t kind;

    if (isa == NULL) {
        return tolerance
               + (type == KN_F32                       ? 0
                   : type == KN_F16 || type == KN_BF16 ? 8e-6
                                                       : 5e-4);
    }

    kind = isa->panels != NULL ? isa->panels->kind[type] : CPU_FLOATS;

    return tolerance + more[kind];
}

/* Element e of a row, from the words of kernels.h. */
static inline double
weight_at(uint32_t type, const void *row, uint32_t e)
{
    const uint8_t *b = row;
    uint16_t h;
    uint32_t u;
    float f;

    switch (type) {

    case KN_F32:
        memcpy(&f, b + (size_t) e * 4, 4);
        return f;

    case KN_F16:
        memcpy(&h, b + (size_t) e * 2, 2);
        return half_value(h);

    case KN_BF16:
        memcpy(&h, b + (size_t) e * 2, 2);
        u = (uint32_t) h << 16;
        memcpy(&f, &u, 4);
        return f;

    case KN_Q8_0:
        b += (size_t) e / 32 * 34;
        memcpy(&h, b, 2);
        return half_value(h) * (int8_t) b[2 + e % 32];

    case KN_Q4_0:
        b += (size_t) e / 32 * 18;
        memcpy(&h, b, 2);
        u = b[2 + e % 16];
        u = e % 32 < 16 ? u & 15 : u >> 4;
        return half_value(h) * ((double) u - 8);

    default:
        b += type_bytes(type, e);
        return packed_at(type, b, e % type_elems(type));
    }
}

#endif
