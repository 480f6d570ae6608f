/*
 * What the experts' feed-forward costs: moe [THREADS [ISA]].  32 experts of
 * which a token uses 4, dim 1024, ffn 512; by weight type and by tokens of a
 * step.  Microseconds of a step and of a token, and multiply-adds per second.
 *
 * Experts are drawn evenly, each step's anew.  There are enough layers to miss
 * every cache with one token, as there are in a model.  Each figure is the best
 * of some steps: others' load only ever takes away.
 */
#include "kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define EXPERTS 32
#define USED    4
#define DIM     1024
#define FFN     512
#define LAYERS  3
#define TOKENS  256
#define STEPS   12 /* at least, */
#define SECONDS 0.5

typedef struct {
    const kernels_t *kn;
    kn_dev_t *dev;
    kn_moe_ffn_t a[LAYERS];
    const kn_w_t *w[LAYERS][3][EXPERTS];
    uint64_t seed;
} job_t;

static void
die(const char *what)
{
    fprintf(stderr, "moe: %s\n", what);
    exit(1);
}

static double
now(void)
{
    struct timespec t;

    (void) clock_gettime(CLOCK_MONOTONIC, &t);

    return (double) t.tv_sec + (double) t.tv_nsec * 1e-9;
}

static uint32_t
below(job_t *j, uint32_t n)
{
    j->seed = j->seed * 6364136223846793005u + 1442695040888963407u;

    return (uint32_t) ((j->seed >> 32) * n >> 32);
}

/* Each token's experts, none twice. */
static void
draw(job_t *j)
{
    uint32_t i, k, part = EXPERTS / USED, ids[TOKENS][USED];

    for (i = 0; i < TOKENS; i++) {
        for (k = 0; k < USED; k++) {
            ids[i][k] =
                k == 0 ? below(j, EXPERTS)
                       : (ids[i][0] + k * part + below(j, part / 2)) % EXPERTS;
        }
    }

    j->kn->copy_in(j->dev, j->a[0].ids, ids, sizeof(ids));
}

static void
body(void *arg)
{
    const job_t *j = arg;
    uint32_t i;

    for (i = 0; i < LAYERS; i++) {
        j->kn->moe_ffn(j->dev, &j->a[i]);
    }
}

/* Seconds of a layer with so many tokens. */
static double
turn(job_t *j, uint32_t tokens)
{
    static const uint32_t ids[TOKENS];
    kn_row_t row = {0, tokens, 0, {{0, 0, 0}}};
    kn_step_t step;
    double t;

    memset(&step, 0, sizeof(step));
    step.tokens_n = tokens;
    step.rows_n = 1;
    step.tokens = ids;
    step.rows = &row;
    draw(j);

    j->kn->plan(j->dev, &step);
    t = now();
    j->kn->submit(j->dev, body, j);
    j->kn->wait(j->dev);

    return (now() - t) / LAYERS;
}

static void
load(job_t *j, uint32_t type)
{
    static const uint32_t shape[3][2] = {{FFN, DIM}, {FFN, DIM}, {DIM, FFN}};
    static char data[FFN * DIM * 4];
    uint32_t l, m, e;
    char err[200];
    kn_source_t s = {"bench", type, 0, 0, data};

    for (l = 0; l < LAYERS; l++) {
        for (m = 0; m < 3; m++) {
            s.n = shape[m][0];
            s.k = shape[m][1];
            for (e = 0; e < EXPERTS; e++) {
                j->w[l][m][e] =
                    j->kn->weight_load(j->dev, &s, err, sizeof(err));
                if (j->w[l][m][e] == NULL) {
                    die(err);
                }
            }
        }
    }
}

static kn_ptr_t
floats(job_t *j, size_t n)
{
    kn_ptr_t p = j->kn->alloc(j->dev, n * sizeof(float));

    if (p.a == 0) {
        die("no memory");
    }

    return p;
}

static void
bench(const char *name, uint32_t type, const char *isa, uint32_t threads)
{
    static const uint32_t counts[] = {1, 8, 32, 256};
    kn_open_t o = {.threads = threads};
    kn_limits_t l = {.tokens = TOKENS,
        .rows = 1,
        .outs = 1,
        .blocks = 1,
        .context = TOKENS,
        .heads = 1,
        .head_dim = 64,
        .vocab = 1,
        .used = USED,
        .expert_k = DIM};
    char err[200];
    uint32_t i, n;
    double best, t, from;
    job_t j = {.seed = 1};

    j.kn = kernels_cpu(isa, err, sizeof(err));
    j.dev = j.kn == NULL ? NULL : j.kn->open(&o, err, sizeof(err));
    if (j.dev == NULL || j.kn->reserve(j.dev, &l, err, sizeof(err)) != 0) {
        die(err);
    }

    load(&j, type);
    j.a[0] = (kn_moe_ffn_t){.x = floats(&j, TOKENS * DIM),
        .ids = floats(&j, TOKENS * USED),
        .weights = floats(&j, TOKENS * USED),
        .mid = floats(&j, TOKENS * USED * FFN),
        .y = floats(&j, TOKENS * DIM),
        .dim = DIM,
        .ffn = FFN,
        .experts = EXPERTS,
        .used = USED,
        .rows = KN_TOKENS,
        .act = KN_SILU};
    for (i = 0; i < LAYERS; i++) {
        j.a[i] = j.a[0];
        j.a[i].gate = j.w[i][0];
        j.a[i].up = j.w[i][1];
        j.a[i].down = j.w[i][2];
    }

    for (i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        from = now();
        best = 1e9;
        for (n = 0; n < STEPS || now() - from < SECONDS; n++) {
            t = turn(&j, counts[i]);
            best = t < best ? t : best;
        }
        printf("%-6s %4u tokens %9.1f us, %7.1f a token, %6.1f GMAC/s\n", name,
            counts[i], best * 1e6, best * 1e6 / counts[i],
            3.0 * USED * DIM * FFN * counts[i] / best / 1e9);
        (void) fflush(stdout);
    }

    j.kn->close(j.dev);
}

int
main(int argc, char **argv)
{
    uint32_t threads = argc > 1 ? (uint32_t) atoi(argv[1]) : 2;
    const char *isa = argc > 2 ? argv[2] : "auto";

    printf("%u experts, %u used, dim %u, ffn %u; %u threads\n", EXPERTS, USED,
        DIM, FFN, threads);
    bench("Q4_0", KN_Q4_0, isa, threads);
    bench("Q8_0", KN_Q8_0, isa, threads);
    bench("F16", KN_F16, isa, threads);

    return 0;
}
