/*
 * How fast the CPU's matrix products are, beside what the memory gives in the
 * same seconds: kernels [THREADS [ISA]].  For each instruction set and weight
 * type, a 2048 x 2048 matrix: bytes of weights read per second with one row of
 * activations, multiply-adds per second with 32.
 *
 * One row reads through enough copies of the matrix to miss every cache, and
 * takes turns with a plain read of as much memory by as many threads; 32 rows
 * stay with one copy.  Each figure is the best of a few turns: others' load
 * only ever takes away.
 */
#include "kernels.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define N           2048
#define ROWS        32
#define PROBE_BYTES ((size_t) 256 << 20)
#define AHEAD       (16u << 10) /* what the products do, so is fair to both */
#define COPIES_MAX  64
#define TURNS       5
#define THREADS_MAX 256

#define MIN(a, b) ((a) < (b) ? (a) : (b))

typedef struct {
    const kernels_t *kn;
    kn_dev_t *dev;
    kn_matmul_t a[COPIES_MAX];
    int copies;
} job_t;

typedef struct {
    const uint64_t *p;
    size_t n;
    uint64_t sum;
} part_t;

static double
now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);

    return (double) t.tv_sec + (double) t.tv_nsec * 1e-9;
}

static void *
must(void *p, const char *what)
{
    if (p == NULL || p == MAP_FAILED) {
        fprintf(stderr, "kernels: %s\n", what);
        exit(1);
    }

    return p;
}

static void *
read_part(void *arg)
{
    part_t *part = arg;
    uint64_t s[8] = {0};
    size_t i, j;

    for (i = 0; i + 8 <= part->n; i += 8) {
        /* the processor's own stops at a page; past the end is harmless */
        __builtin_prefetch((void *) ((uintptr_t) (part->p + i) + AHEAD), 0, 2);

        for (j = 0; j < 8; j++) {
            s[j] += part->p[i + j];
        }
    }

    for (j = 0; j < 8; j++) {
        part->sum += s[j];
    }

    return NULL;
}

/* Seconds to read all of p once, by so many threads. */
static double
probe(const uint64_t *p, int threads)
{
    pthread_t id[THREADS_MAX];
    part_t part[THREADS_MAX];
    uint64_t sum;
    size_t n;
    double t;
    int i;

    n = PROBE_BYTES / sizeof(*p) / (size_t) threads;
    sum = 0;
    t = now();

    for (i = 0; i < threads; i++) {
        part[i] = (part_t){p + (size_t) i * n, n, 0};
        if (i > 0 && pthread_create(&id[i], NULL, read_part, &part[i]) != 0) {
            must(NULL, "no thread");
        }
    }

    read_part(&part[0]);

    for (i = 0; i < threads; i++) {
        if (i > 0) {
            pthread_join(id[i], NULL);
        }

        sum += part[i].sum;
    }

    t = now() - t;

    /* The sum is used, so that the reads are done. */
    return sum == 1 ? t + 1e-12 : t;
}

static void
body(void *arg)
{
    const job_t *j = arg;
    int i;

    for (i = 0; i < j->copies; i++) {
        j->kn->matmul(j->dev, &j->a[i]);
    }
}

/* Seconds for the first copies matrices with so many rows. */
static double
turn(job_t *j, uint32_t rows, int copies)
{
    static const uint32_t tokens[ROWS];
    kn_row_t row = {0, rows, 0, {{0, 0, 0}}};
    kn_step_t step;
    double t;

    memset(&step, 0, sizeof(step));
    step.tokens_n = rows;
    step.rows_n = 1;
    step.tokens = tokens;
    step.rows = &row;
    j->copies = copies;

    t = now();
    j->kn->plan(j->dev, &step);
    j->kn->submit(j->dev, body, j);
    j->kn->wait(j->dev);

    return now() - t;
}

static void
bench(const char *isa, const char *type_name, uint32_t type, size_t bytes,
    const uint64_t *mem, int threads)
{
    static char data[N * N * 4];
    kn_open_t o = {.threads = (uint32_t) threads};
    kn_limits_t l = {ROWS, 1, 1, 1, ROWS, 1, 64, 1, 0, 0};
    kn_source_t src = {"bench", type, N, N, data};
    double one, many, read, t;
    kn_ptr_t x, y;
    char err[200];
    int i, copies;
    job_t j;

    j.kn = kernels_cpu(isa, err, sizeof(err));
    if (j.kn == NULL) {
        printf("%-7s %-7s this machine lacks it\n", isa, type_name);
        return;
    }

    j.dev = must(j.kn->open(&o, err, sizeof(err)), err);
    if (j.kn->reserve(j.dev, &l, err, sizeof(err)) != 0) {
        must(NULL, err);
    }

    x = j.kn->alloc(j.dev, ROWS * N * sizeof(float));
    y = j.kn->alloc(j.dev, ROWS * N * sizeof(float));
    must((void *) (x.a && y.a ? x.a : 0), "no memory");
    copies = (int) MIN(PROBE_BYTES / bytes, COPIES_MAX);

    for (i = 0; i < copies; i++) {
        j.a[i] = (kn_matmul_t){.x = x, .n = 1, .rows = KN_TOKENS};
        j.a[i].of[0] = (kn_product_t){
            must(j.kn->weight_load(j.dev, &src, err, sizeof(err)), err), {0}, y,
            1, 0};
    }

    one = many = read = 1e9;

    for (i = 0; i < TURNS; i++) {
        t = probe(mem, threads);
        read = MIN(read, t);
        t = turn(&j, 1, copies);
        one = MIN(one, t);
        t = turn(&j, ROWS, 1);
        many = MIN(many, t);
    }

    read = PROBE_BYTES / read / 1e9;
    one = (double) bytes * copies / one / 1e9;
    printf("%-7s %-7s %6.1f GB/s of %5.1f probed (%3.0f %%) %7.1f GMAC/s\n",
        isa, type_name, one, read, one / read * 100,
        (double) ROWS * N * N / many / 1e9);
    j.kn->close(j.dev);
}

int
main(int argc, char **argv)
{
    static const char *const isas[] = {"ref", "avx2", "avx512"};
    uint64_t *mem;
    long threads;
    size_t i;

    threads = argc > 1 ? atol(argv[1]) : sysconf(_SC_NPROCESSORS_ONLN);
    if (threads < 1 || threads > THREADS_MAX) {
        fprintf(stderr, "usage: kernels [THREADS [ISA]]\n");
        return 1;
    }

    mem = must(mmap(NULL, PROBE_BYTES, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
        "no memory");
    madvise(mem, PROBE_BYTES, MADV_HUGEPAGE);
    memset(mem, 1, PROBE_BYTES);

    printf("%d x %d, %ld threads; 1 row, then %d rows\n", N, N, threads, ROWS);

    for (i = 0; i < sizeof(isas) / sizeof(isas[0]); i++) {
        if (argc > 2 && strcmp(argv[2], isas[i]) != 0) {
            continue;
        }

#define X(name, elems, size)                                                   \
    bench(isas[i], #name, KN_##name, (size_t) N *N / (elems) * (size), mem,    \
        (int) threads);
        KN_TYPE_LIST(X)
#undef X
    }

    return 0;
}
