/*
 * What a step takes on the CPU: steps MODEL [SECONDS] runs steps of all sizes
 * through the forward pass and prints one line each:
 *
 *      step US ROWS CONTEXT TOKENS START WAITED
 *
 * ROWS sequences with CONTEXT tokens decode, each with tables of its own, and
 * one prompt computes TOKENS from position START on; its threads waited WAITED
 * microseconds for a core.  tests/bench/fit makes a cost model of them.
 *
 * DESIGN.  Sizes are drawn, evenly in their logarithm, because a grid leaves
 * gaps in five dimensions; who fits keeps some of the lines out.  A step is
 * run until its threads got the cores that they asked for, five times at most,
 * and the least counts: what others on the machine take is not the step's.  All
 * memory is written to when it is allocated, or reads of blocks would all meet
 * the kernel's one page of zeros.
 */
#include "clock.h"
#include "forward.h"

#include <assert.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ROWS = 33,
    CONTEXT = 4096,
    BLOCK = 16,
    EACH = CONTEXT / BLOCK, /* blocks of a sequence */
    TOKENS = 640,
    REPEAT = 5
};

#define QUIET 0.01 /* of a step's time waited for cores: nobody disturbed it */

typedef struct {
    uint32_t rows, context, tokens, start;
} shape_t;

typedef struct {
    kernels_t kn;
    kn_dev_t *dev;
    model_t *model;
    forward_t *f;
    forward_cfg_t c;
    uint32_t vocab;
    batch_row_t rows[ROWS];
    uint32_t tokens[TOKENS];
    batch_out_t outs[ROWS];
    sample_out_t got[ROWS];
    batch_t b;
    uint32_t tables[ROWS][EACH];
    uint64_t seed;
} bench_t;

static const kernels_t *own; /* of the CPU, as they are */

static const sample_params_t greedy = {.top_p = 1, .repetition_penalty = 1};


static uint32_t
below(bench_t *t, uint32_t n)
{
    t->seed = t->seed * 6364136223846793005u + 1442695040888963407u;

    return (uint32_t) ((t->seed >> 32) * n >> 32);
}


/* From 1 to most, evenly in the logarithm. */
static uint32_t
drawn(bench_t *t, uint32_t most)
{
    double at = below(t, 1000000) / 1e6;

    return (uint32_t) exp(at * log(most + 1.0));
}


static void
fail(const char *what)
{
    fprintf(stderr, "steps: %s\n", what);
    exit(1);
}


/* The device's own alloc, and each page written. */
static kn_ptr_t
alloc(kn_dev_t *dev, uint64_t bytes)
{
    kn_ptr_t p = own->alloc(dev, bytes);

    if (p.a != 0) {
        memset((void *) p.a, 0, bytes);
    }

    return p;
}


static void
open_all(bench_t *t, const char *path)
{
    kn_open_t ko = {0};
    char err[512];
    uint32_t i, k;

    own = kernels_cpu("auto", err, sizeof(err));
    if (own == NULL) {
        fail(err);
    }
    t->kn = *own;
    t->kn.alloc = alloc;
    t->dev = own->open(&ko, err, sizeof(err));
    t->model = t->dev == NULL ? NULL : model_open(path, err, sizeof(err));
    if (t->model == NULL) {
        fail(err);
    }

    t->c.rows_max = t->c.outs_max = ROWS;
    t->c.tokens_max = TOKENS;
    t->c.context = CONTEXT;
    t->c.blocks = ROWS * EACH;
    t->c.block_tokens = BLOCK;
    t->c.kv_type = KN_F16;
    model_groups(t->model, CONTEXT, &t->c.groups);
    if (t->c.groups.n > 1) {
        fail("the model has layers with windows");
    }
    t->f = forward_open(&t->kn, t->dev, t->model, &t->c, err, sizeof(err));
    if (t->f == NULL) {
        fail(err);
    }

    t->vocab = model_info(t->model)->vocab;
    t->b = (batch_t){.rows_max = ROWS,
        .tokens_max = TOKENS,
        .outs_max = ROWS,
        .rows = t->rows,
        .tokens = t->tokens,
        .outs = t->outs};
    for (i = 0; i < ROWS; i++) {
        for (k = 0; k < EACH; k++) {
            /* far apart, as in a pool that has been used */
            t->tables[i][k] = (k * ROWS + i) * 257u % (ROWS * EACH);
        }
    }
}


/* n tokens of sequence seq from start on; out: with one sampled behind. */
static void
add(bench_t *t, uint32_t seq, uint32_t start, uint32_t n, int out)
{
    batch_row_t *row = &t->rows[t->b.rows_n];
    batch_out_t *o = &t->outs[t->b.outs_n];
    uint32_t i;

    assert(t->b.rows_n < ROWS && t->b.tokens_n + n <= TOKENS);

    memset(row, 0, sizeof(*row));
    row->seq = seq;
    row->q_start = start;
    row->q_len = n;
    row->kv_len = start + n;
    row->tok = t->b.tokens_n;
    row->blocks[0].ids = t->tables[seq];
    row->blocks[0].n = (start + n + BLOCK - 1) / BLOCK;
    for (i = 0; i < n; i++) {
        t->tokens[t->b.tokens_n++] = below(t, t->vocab);
    }
    if (out) {
        memset(o, 0, sizeof(*o));
        o->row = t->b.rows_n;
        o->tok = t->b.tokens_n - 1;
        o->pos = start + n - 1;
        o->params = &greedy;
        o->known = t->tokens;
        t->b.outs_n++;
    }
    t->b.rows_n++;
}


/* How long all threads have waited for a core so far, us: the kernel counts
 * it. */
static double
waited(void)
{
    DIR *d = opendir("/proc/self/task");
    struct dirent *e;
    char path[512];
    double ns, sum = 0;
    FILE *f;

    while (d != NULL && (e = readdir(d)) != NULL) {
        snprintf(path, sizeof(path), "/proc/self/task/%s/schedstat", e->d_name);
        f = fopen(path, "r");
        if (f != NULL) {
            sum += fscanf(f, "%*u %lf", &ns) == 1 ? ns / 1e3 : 0;
            (void) fclose(f);
        }
    }
    if (d != NULL) {
        (void) closedir(d);
    }

    return sum;
}


static double
run(bench_t *t)
{
    uint64_t from = clock_us();

    forward_submit(t->f, &t->b);
    forward_wait(t->f, t->got);

    return (double) (clock_us() - from);
}


/* Runs it a few times and prints the best. */
static void
measure(bench_t *t, const shape_t *s)
{
    double us, wait, best = 0, best_wait = 0;
    int i;

    for (i = 0; i < REPEAT; i++) {
        wait = waited();
        us = run(t);
        wait = waited() - wait;
        if (i == 0 || us < best) {
            best = us;
            best_wait = wait;
        }
        if (i > 0 && best_wait < QUIET * best) {
            break;
        }
    }
    printf("step %.0f %u %u %u %u %.0f\n", best, s->rows, s->context, s->tokens,
        s->start, best_wait);
    (void) fflush(stdout);
}


static void
compose(bench_t *t, const shape_t *s)
{
    uint32_t i;

    t->b.rows_n = t->b.tokens_n = t->b.outs_n = 0;
    for (i = 0; i < s->rows; i++) {
        add(t, i, s->context - 1, 1, 1);
    }
    if (s->tokens > 0) {
        add(t, ROWS - 1, s->start, s->tokens, 0);
    }
}


static shape_t
draw(bench_t *t)
{
    shape_t s = {0, 1, 0, 0};

    /* steps with a prompt only, with decodes only, and twice both */
    if (below(t, 4) > 0) {
        s.rows = drawn(t, ROWS - 1);
        s.context = 64 + below(t, CONTEXT - 64);
    }
    if (s.rows == 0 || below(t, 3) > 0) {
        s.tokens = 1 + drawn(t, 255);
        s.start = below(t, CONTEXT - s.tokens);
    }

    return s;
}


int
main(int argc, char **argv)
{
    bench_t *t = calloc(1, sizeof(*t));
    double seconds = argc > 2 ? atof(argv[2]) : 60;
    uint64_t until;
    shape_t s;

    if (argc < 2) {
        printf("usage: steps MODEL [SECONDS]\n");
        return 0;
    }
    if (t == NULL) {
        fail("out of memory");
    }

    open_all(t, argv[1]);
    t->seed = 1;

    until = clock_us() + (uint64_t) (seconds * 1e6);
    while (clock_us() < until) {
        s = draw(t);
        compose(t, &s);
        measure(t, &s);
    }

    forward_close(t->f);
    model_close(t->model);
    own->close(t->dev);
    free(t);

    return 0;
}
