/*
 * What the thread pool costs, and what a neighbour costs it: pool [MS [CPUS]].
 *
 * First an op with nothing to do, by threads: what its beginning and end take.
 * Then tokens per second of a decode with the products of a 0.5B model (Q8_0,
 * hidden 896, 24 layers, ffn 4864, vocabulary 151936) on two threads, with and
 * without a neighbour that computes on CPU 1 for MS ms of every 2 MS (default
 * 2 and 20), in slices that take turns: medians, and the median ratio of
 * pairs, beside the target.  CPUS: the threads are bound to them, such as 0,1.
 */
#include "cpu/cpu.h"
#include "cpu/pool.h"
#include "cpus.h"
#include "peak.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

#define LAYERS   24
#define DISTINCT 6 /* weights of so many layers, in turn: beyond the caches */
#define HIDDEN   896
#define FFN      4864
#define SLICES   12
#define SLICE    0.6      /* s */
#define KEPT     (2 / 3.) /* of the rate: half a core takes a third at most */

typedef struct {
    kn_matmul_t qkv, out, down;
    kn_gated_t gated;
} layer_t;

typedef struct {
    const kernels_t *kn;
    kn_dev_t *dev;
    kn_rmsnorm_t norm;
    layer_t layer[DISTINCT];
    kn_matmul_t head;
    kn_ptr_t x, y;
} model_t;

static struct {
    uint32_t on;   /* atomic */
    uint32_t stop; /* atomic */
    double ms;
} neighbour;

static void *
neighbour_run(void *arg)
{
    struct timespec pause;
    cpu_set_t set;
    double t;

    (void) arg;
    CPU_ZERO(&set);
    CPU_SET(1, &set);
    (void) pthread_setaffinity_np(pthread_self(), sizeof(set), &set);

    while (!__atomic_load_n(&neighbour.stop, __ATOMIC_RELAXED)) {
        t = peak_now(2);

        while (__atomic_load_n(&neighbour.on, __ATOMIC_RELAXED)
               && peak_now(2) - t < neighbour.ms * 1e-3) {
        }

        pause.tv_sec = 0;
        pause.tv_nsec = (long) (neighbour.ms * 1e6);
        (void) nanosleep(&pause, NULL);
    }

    return NULL;
}

static void
die(const char *what)
{
    fprintf(stderr, "pool: %s\n", what);
    exit(1);
}

static void
nothing(void *arg, uint32_t part, uint32_t worker)
{
    (void) arg;
    (void) part;
    (void) worker;
}

static int
by_value(const void *a, const void *b)
{
    double x = *(const double *) a, y = *(const double *) b;

    return (x > y) - (x < y);
}

/* Us of an op of so many parts that do nothing: the median of many. */
static double
barrier(uint32_t threads, uint32_t parts, const kn_open_t *o)
{
    static double us[3000];
    kn_dev_t dev;
    uint32_t i, j;
    double t;

    memset(&dev, 0, sizeof(dev));
    dev.threads = threads;
    dev.pool = cpu_pool_open(threads, o);
    if (dev.pool == NULL) {
        die("no threads");
    }

    for (i = 0; i < 3000; i++) {
        t = peak_now(2);

        for (j = 0; j < 10; j++) {
            cpu_run(&dev, parts, 1ull << 40, nothing, NULL);
        }

        us[i] = (peak_now(2) - t) * 1e6 / 10;
    }

    cpu_pool_close(dev.pool);

    qsort(us, 3000, sizeof(*us), by_value);

    return us[1500];
}

static void
token(void *arg)
{
    const model_t *m = arg;
    const layer_t *l;
    uint32_t i;

    for (i = 0; i < LAYERS; i++) {
        l = &m->layer[i % DISTINCT];
        m->kn->rmsnorm(m->dev, &m->norm);
        m->kn->matmul(m->dev, &l->qkv);
        m->kn->matmul(m->dev, &l->out);
        m->kn->rmsnorm(m->dev, &m->norm);
        m->kn->gated(m->dev, &l->gated);
        m->kn->matmul(m->dev, &l->down);
    }

    m->kn->matmul(m->dev, &m->head);
}

static const kn_w_t *
matrix(model_t *m, uint32_t n, uint32_t k, const void *data)
{
    char err[200];
    kn_source_t s = {"bench", KN_Q8_0, n, k, data};
    const kn_w_t *w = m->kn->weight_load(m->dev, &s, err, sizeof(err));

    if (w == NULL) {
        die(err);
    }

    return w;
}

/* A product by one more matrix. */
static void
product(model_t *m, kn_matmul_t *a, uint32_t n, uint32_t k, const void *data)
{
    a->x = m->x;
    a->rows = KN_TOKENS;
    a->of[a->n++] = (kn_product_t){matrix(m, n, k, data), {0}, m->y, 1, 0};
}

static void
layer_open(model_t *m, layer_t *l, const void *data)
{
    product(m, &l->qkv, HIDDEN, HIDDEN, data);
    product(m, &l->qkv, 128, HIDDEN, data);
    product(m, &l->qkv, 128, HIDDEN, data);
    product(m, &l->out, HIDDEN, HIDDEN, data);
    product(m, &l->down, HIDDEN, FFN, data);
    l->gated = (kn_gated_t){.gate = matrix(m, FFN, HIDDEN, data),
        .up = matrix(m, FFN, HIDDEN, data),
        .x = m->x,
        .y = m->y,
        .rows = KN_TOKENS,
        .act = KN_SILU};
}

static void
model_open(model_t *m, const kn_open_t *o)
{
    static const uint32_t zero;
    const size_t size = (size_t) 151936 * HIDDEN / 32 * 34;
    kn_limits_t l = {1, 1, 1, 1, 1, 1, 64, 1, 0, 0};
    kn_row_t row;
    kn_step_t step;
    uint32_t i;
    char err[200];
    void *data = calloc(1, size);

    m->kn = kernels_cpu("auto", err, sizeof(err));
    if (m->kn == NULL || data == NULL
        || (m->dev = m->kn->open(o, err, sizeof(err))) == NULL
        || m->kn->reserve(m->dev, &l, err, sizeof(err)) != 0) {
        die("cannot open");
    }

    m->x = m->kn->alloc(m->dev, FFN * 4);
    m->y = m->kn->alloc(m->dev, 151936 * 4);

    for (i = 0; i < DISTINCT; i++) {
        layer_open(m, &m->layer[i], data);
    }

    product(m, &m->head, 151936, HIDDEN, data);
    free(data);
    memset(&m->norm, 0, sizeof(m->norm));
    m->norm.x = m->norm.y = m->norm.w = m->x;
    m->norm.parts = 1;
    m->norm.dim = HIDDEN;
    m->norm.eps = 1;

    memset(&row, 0, sizeof(row));
    memset(&step, 0, sizeof(step));
    row.q_len = 1;
    step.tokens_n = step.rows_n = 1;
    step.tokens = &zero;
    step.rows = &row;
    m->kn->plan(m->dev, &step);
}

/* Tokens per second of a slice. */
static double
slice(model_t *m, uint32_t with)
{
    double t, from;
    uint32_t n = 0;

    __atomic_store_n(&neighbour.on, with, __ATOMIC_RELAXED);
    from = peak_now(2);

    do {
        m->kn->submit(m->dev, token, m);
        m->kn->wait(m->dev);
        n++;
        t = peak_now(2) - from;
    } while (t < SLICE);

    return n / t;
}

static void
beside(model_t *m, double ms)
{
    double alone[SLICES], with[SLICES], ratio[SLICES];
    pthread_t id;
    uint32_t i;

    neighbour.ms = ms;
    neighbour.on = neighbour.stop = 0;
    if (pthread_create(&id, NULL, neighbour_run, NULL) != 0) {
        die("no thread");
    }

    for (i = 0; i < SLICES; i++) {
        alone[i] = slice(m, 0);
        with[i] = slice(m, 1);
        ratio[i] = with[i] / alone[i];
    }

    __atomic_store_n(&neighbour.stop, 1, __ATOMIC_RELAXED);
    (void) pthread_join(id, NULL);
    qsort(alone, SLICES, sizeof(*alone), by_value);
    qsort(with, SLICES, sizeof(*with), by_value);
    qsort(ratio, SLICES, sizeof(*ratio), by_value);
    printf("neighbour %4.1f of %4.1f ms: %5.1f tokens/s alone, %5.1f beside "
           "it; ratio %.2f (%.2f to %.2f), target %.2f %s\n",
        ms, 2 * ms, alone[SLICES / 2], with[SLICES / 2], ratio[SLICES / 2],
        ratio[SLICES / 4], ratio[SLICES * 3 / 4], KEPT,
        ratio[SLICES / 2] >= KEPT ? "met" : "MISSED");
    (void) fflush(stdout);
}

int
main(int argc, char **argv)
{
    kn_open_t o = {.threads = 2};
    cpu_set_t set;
    char err[200];
    model_t m = {0};
    cpus_t cpus;

    (void) sched_getaffinity(0, sizeof(set), &set);
    if (cpus_parse(&cpus, argc > 2 ? argv[2] : "", &set, err, sizeof(err))
        != 0) {
        die(err);
    }

    o.cpus = cpus.v;
    o.cpus_n = cpus.n;
    printf("an op: %.2f us alone; two threads %.2f us in 2 parts, %.2f in 64\n",
        barrier(1, 64, &o), barrier(2, 2, &o), barrier(2, 64, &o));
    (void) fflush(stdout);
    model_open(&m, &o);

    if (cpus.n > 0) {
        CPU_ZERO(&set);
        CPU_SET(cpus.v[0], &set);
        (void) sched_setaffinity(0, sizeof(set), &set);
    }

    if (argc > 1) {
        beside(&m, atof(argv[1]));
    } else {
        beside(&m, 2);
        beside(&m, 20);
    }

    m.kn->close(m.dev);

    return 0;
}
