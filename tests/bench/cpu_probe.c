/*
 * What the machine could do, for tests/bench/cpu.py to hold figures against:
 * cpu_probe MIB THREADS reads lines and answers each with a number.
 *
 *      read MS     GB/s that all threads together read from MIB of memory
 *      fp32 MS     GMAC/s, 10^9 multiply-adds a second, of all threads: fused
 *                  multiply-adds of floats
 *      bf16 MS     products of bfloat16 pairs, added up as floats
 *      int8 MS     products of bytes, each sum widened at once, as weights of
 *                  eight bits ask for
 *      int4 MS     the same of weights of four bits, whose sums fit in 16 bits
 *                  a few times
 *
 * An instruction that the machine lacks gives 0.
 *
 * DESIGN.  A peak is what independent chains of one instruction reach, enough
 * of them to hide its latency and few enough to stay in registers; nothing is
 * loaded.  Which instruction is a matter of what the machine has: vpdpbusd
 * where there is VNNI, of 512 bits where there is AVX-512, else vpmaddubsw and
 * what widens its sums.  Reading only reads: each thread its own stretch, with
 * the prefetches that the matrix products have too.
 *
 * Threads are started for each line, and none is left to disturb others.
 */
#include "clock.h"

#include <assert.h>
#include <immintrin.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { THREADS = 256, TURN = 4096, CHAINS = 10 };

#define AHEAD (16u << 10) /* bytes to prefetch: pages end the machine's own */

typedef struct job_s {
    double (*run)(const struct job_s *j); /* work done in a turn */
    const char *mem;
    size_t bytes;
    uint64_t until; /* us */
    double done;
    pthread_t thread;
} job_t;

/* An instruction of two operands, its result in a third or added to it. */
#define OF(op, to, a, b)                                                       \
    __asm__ volatile(op " %2, %1, %0" : "=v"(to) : "v"(a), "v"(b))
#define INTO(op, to, a) __asm__ volatile(op " %1, %0, %0" : "+v"(to) : "v"(a))
#define ADD(op, to, a, b)                                                      \
    __asm__ volatile(op " %2, %1, %0" : "+v"(to) : "v"(a), "v"(b))

/* TURN rounds of CHAINS chains, all in registers; STEP is one of s[k]. */
#define ROUNDS(VEC, STEP)                                                      \
    VEC s[CHAINS] = {{0}};                                                     \
    int i, k;                                                                  \
    (void) j;                                                                  \
    for (i = 0; i < TURN; i++) {                                               \
        _Pragma("GCC unroll 10") for (k = 0; k < CHAINS; k++) { STEP; }        \
    }


__attribute__((target("avx2,fma"))) static double
fp32_avx2(const job_t *j)
{
    __m256 a = _mm256_set1_ps(1e-3f);

    ROUNDS(__m256, ADD("vfmadd231ps", s[k], a, a))

    return 8.0 * TURN * CHAINS;
}


__attribute__((target("avx512f"))) static double
fp32_avx512(const job_t *j)
{
    __m512 a = _mm512_set1_ps(1e-3f);

    ROUNDS(__m512, ADD("vfmadd231ps", s[k], a, a))

    return 16.0 * TURN * CHAINS;
}


__attribute__((target("avx512f,avx512bf16"))) static double
bf16_avx512(const job_t *j)
{
    __m512i a = _mm512_set1_epi16(0x3c80);

    ROUNDS(__m512i, ADD("vdpbf16ps", s[k], a, a))

    return 32.0 * TURN * CHAINS;
}


/* A product of bytes, widened twice: two multiplications and a sum. */
__attribute__((target("avx2"))) static double
int8_avx2(const job_t *j)
{
    __m256i a = _mm256_set1_epi8(3), one = _mm256_set1_epi16(1), p;

    ROUNDS(__m256i, OF("vpmaddubsw", p, a, a); OF("vpmaddwd", p, p, one);
           INTO("vpaddd", s[k], p))

    return 32.0 * TURN * CHAINS;
}


/*
 * A multiplication and a sum of 16 bits, which holds eight products of 15 and
 * 127, twice; after eight rounds it is widened.
 */
__attribute__((target("avx2"))) static double
int4_avx2(const job_t *j)
{
    __m256i a = _mm256_set1_epi8(3), one = _mm256_set1_epi16(1), p;

    ROUNDS(
        __m256i, OF("vpmaddubsw", p, a, a); INTO("vpaddw", s[k], p);
        if ((i & 7) == 7) {
            OF("vpmaddwd", p, s[k], one);
            OF("vpaddd", s[k], p, p);
        })

    return 32.0 * TURN * CHAINS;
}


__attribute__((target("avx512f,avx512vnni"))) static double
int8_vnni512(const job_t *j)
{
    __m512i a = _mm512_set1_epi8(3);

    ROUNDS(__m512i, ADD("vpdpbusd", s[k], a, a))

    return 64.0 * TURN * CHAINS;
}


__attribute__((target("avx2,avxvnni"))) static double
int8_vnni256(const job_t *j)
{
    __m256i a = _mm256_set1_epi8(3);

    ROUNDS(__m256i, ADD("%{vex%} vpdpbusd", s[k], a, a))

    return 32.0 * TURN * CHAINS;
}


/* A pass over the stretch. */
__attribute__((target("avx2"))) static double
read_avx2(const job_t *j)
{
    __m256i s[8] = {{0}};
    const char *p = j->mem, *end = p + j->bytes;
    int k;

    for (; p < end; p += 256) {
        _Pragma("GCC unroll 4") for (k = 0; k < 4; k++)
        {
            /* past the end is harmless */
            __builtin_prefetch(
                (const void *) ((uintptr_t) p + AHEAD + 64u * k), 0, 2);
        }
        _Pragma("GCC unroll 8") for (k = 0; k < 8; k++)
        {
            __asm__ volatile("vpxor %1, %0, %0"
                             : "+x"(s[k])
                             : "m"(*(const __m256i *) (p + 32 * k)));
        }
    }

    return (double) j->bytes;
}


/* The best that the machine has of a kind, NULL if nothing. */
static double (*find(const char *kind))(const job_t *)
{
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    int avx512 = __builtin_cpu_supports("avx512f");

    if (strcmp(kind, "read") == 0) {
        return avx2 ? read_avx2 : NULL;
    }
    if (strcmp(kind, "fp32") == 0) {
        return avx512 ? fp32_avx512 : avx2 ? fp32_avx2 : NULL;
    }
    if (strcmp(kind, "bf16") == 0) {
        return __builtin_cpu_supports("avx512bf16") ? bf16_avx512 : NULL;
    }
    if (strcmp(kind, "int8") != 0 && strcmp(kind, "int4") != 0) {
        return NULL;
    }
    if (__builtin_cpu_supports("avx512vnni")) {
        return int8_vnni512;
    }
    if (__builtin_cpu_supports("avxvnni")) {
        return int8_vnni256;
    }

    return !avx2 ? NULL : kind[3] == '8' ? int8_avx2 : int4_avx2;
}


static void *
work(void *arg)
{
    job_t *j = arg;

    do {
        j->done += j->run(j);
    } while (clock_us() < j->until);

    return NULL;
}


/* 10^9 a second, of all threads together. */
static double
measure(double (*run)(const job_t *), const char *mem, size_t bytes,
    int threads, double ms)
{
    static job_t jobs[THREADS];
    uint64_t from = clock_us();
    size_t part = bytes / (size_t) threads & ~(size_t) 4095;
    double done = 0;
    int i;

    for (i = 0; i < threads; i++) {
        jobs[i] = (job_t){.run = run,
            .mem = mem + (size_t) i * part,
            .bytes = part,
            .until = from + (uint64_t) (ms * 1e3)};
        if (i > 0
            && pthread_create(&jobs[i].thread, NULL, work, &jobs[i]) != 0) {
            fprintf(stderr, "cpu_probe: no thread\n");
            exit(1);
        }
    }

    (void) work(&jobs[0]);
    for (i = 0; i < threads; i++) {
        if (i > 0) {
            (void) pthread_join(jobs[i].thread, NULL);
        }
        done += jobs[i].done;
    }

    return done / (double) (clock_us() - from) / 1e3;
}


int
main(int argc, char **argv)
{
    size_t bytes = argc > 1 ? strtoul(argv[1], NULL, 10) << 20 : 0;
    int threads = argc > 2 ? atoi(argv[2]) : 0;
    double (*run)(const job_t *);
    char line[200], kind[20], *mem;
    double ms;

    if (bytes == 0 || threads < 1 || threads > THREADS) {
        printf("usage: cpu_probe MIB THREADS\n");
        return 0;
    }

    mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
        -1, 0);
    if (mem == MAP_FAILED) {
        fprintf(stderr, "cpu_probe: no memory\n");
        return 1;
    }
    (void) madvise(mem, bytes, MADV_HUGEPAGE);
    memset(mem, 1, bytes);
    printf("ready\n");
    (void) fflush(stdout);

    while (fgets(line, sizeof(line), stdin) != NULL) {
        if (sscanf(line, "%19s %lf", kind, &ms) != 2) {
            fprintf(stderr, "cpu_probe: %s\n", line);
            return 1;
        }
        run = find(kind);
        printf(
            "%.3f\n", run == NULL ? 0 : measure(run, mem, bytes, threads, ms));
        (void) fflush(stdout);
    }

    return 0;
}
