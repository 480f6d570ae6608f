/*
 * What the machine gives at most, measured beside what is judged by it:
 * multiply-adds of registers, and bytes read of memory.
 */
#ifndef PEAK_H
#define PEAK_H

#include <immintrin.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define PEAK_THREADS_MAX 256
#define PEAK_AHEAD       (16u << 10) /* what attention does not: for the best */

typedef struct {
    const char *isa;
    const uint64_t *p; /* [n], or none: arithmetic */
    size_t n;
    uint64_t sum; /* used, so that the reads are done */
} peak_part_t;

/* One thread's time is its own, others' is the clock's. */
static inline double
peak_now(uint32_t threads)
{
    struct timespec t;

    (void) clock_gettime(
        threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);

    return (double) t.tv_sec + (double) t.tv_nsec * 1e-9;
}

#define PEAK_ROUNDS 500000

/* Twelve sums, so that none waits for the one before it. */
#define PEAK_FMA(name, targets, vec, op, set)                                  \
    __attribute__((target(targets))) static inline void name(float *out)       \
    {                                                                          \
        vec s[12], x = set(1e-9f);                                             \
        int i, j;                                                              \
                                                                               \
        for (j = 0; j < 12; j++) {                                             \
            s[j] = set(1e-9f * (float) j);                                     \
        }                                                                      \
        for (i = 0; i < PEAK_ROUNDS; i++) {                                    \
            _Pragma("GCC unroll 12") for (j = 0; j < 12; j++)                  \
            {                                                                  \
                s[j] = op(s[j], x, x);                                         \
            }                                                                  \
            __asm__ volatile("" : "+x"(x));                                    \
        }                                                                      \
        for (j = 1; j < 12; j++) {                                             \
            s[0] = op(s[j], x, s[0]);                                          \
        }                                                                      \
        *out = s[0][0];                                                        \
    }

PEAK_FMA(peak_fma8, "avx2,fma", __m256, _mm256_fmadd_ps, _mm256_set1_ps)
PEAK_FMA(peak_fma16, "avx512f", __m512, _mm512_fmadd_ps, _mm512_set1_ps)

static inline void *
peak_run(void *arg)
{
    peak_part_t *part = arg;
    uint64_t s[8] = {0};
    float f = 0;
    size_t i, j;

    if (part->p == NULL && part->isa[3] == '5') {
        peak_fma16(&f);
    } else if (part->p == NULL) {
        peak_fma8(&f);
    }

    for (i = 0; part->p != NULL && i + 8 <= part->n; i += 8) {
        __builtin_prefetch(
            (void *) ((uintptr_t) (part->p + i) + PEAK_AHEAD), 0, 2);

        for (j = 0; j < 8; j++) {
            s[j] += part->p[i + j];
        }
    }

    for (part->sum = f == 1, j = 0; j < 8; j++) {
        part->sum += s[j];
    }

    return NULL;
}

/* Seconds that so many threads take together. */
static inline double
peak_seconds(const char *isa, const uint64_t *p, size_t n, uint32_t threads)
{
    pthread_t id[PEAK_THREADS_MAX];
    peak_part_t part[PEAK_THREADS_MAX];
    uint64_t sum = 0;
    double t = peak_now(threads);
    uint32_t i;

    n /= threads;

    for (i = 0; i < threads; i++) {
        part[i] = (peak_part_t){isa, p != NULL ? p + i * n : NULL, n, 0};
        if (i > 0 && pthread_create(&id[i], NULL, peak_run, &part[i]) != 0) {
            abort();
        }
    }

    (void) peak_run(&part[0]);

    for (i = 0; i < threads; i++) {
        if (i > 0) {
            (void) pthread_join(id[i], NULL);
        }
        sum += part[i].sum;
    }

    t = peak_now(threads) - t;

    return sum == 1 ? t + 1e-12 : t;
}

/* GMAC/s of F32 by isa (avx2, avx512) on so many threads. */
static inline double
peak_gmacs(const char *isa, uint32_t threads)
{
    double lanes = isa[3] == '5' ? 16 : 8;

    return threads * lanes * 12 * PEAK_ROUNDS
           / peak_seconds(isa, NULL, 0, threads) / 1e9;
}

/* GB/s read of n words at p by so many threads. */
static inline double
peak_gbs(const uint64_t *p, size_t n, uint32_t threads)
{
    return (double) (n * sizeof(*p)) / peak_seconds("avx2", p, n, threads)
           / 1e9;
}

#endif
