/*
 * The engine's side of tests/bench/cpu.py: cpu MODEL THREADS [ISA] loads a
 * model and computes what its input asks for, each line answered by one with
 * microseconds:
 *
 *      prefill TOKENS CHUNK         a new sequence's TOKENS, CHUNK in a step
 *      decode ROWS BEGIN STEPS      STEPS tokens more of each of ROWS sequences
 *                                   that have BEGIN tokens, all of them
 *                                   together in a step
 *      ops                          of all steps since the last such line, for
 *                                   each op: name, microseconds, bytes that it
 *                                   had to read, multiply-adds
 *
 * Its first line says what a token costs: see ready().  tests/bench/peer/
 * llama.c is the same for llama.cpp, so both take turns within seconds.
 *
 * DESIGN.  Steps go through the forward pass as the engine's loop gives them,
 * sampling and all.  A prompt's last token has an output, and each of a
 * decode's.  Tokens are drawn: what a model with random weights says is as
 * good.  Blocks of a sequence lie apart, as in a pool that has been used.
 *
 * Each op is timed on its way to the device, which costs a step some hundred
 * reads of a clock.  Products go by the name of their weight.  Bytes and
 * multiply-adds are those of weights and of attention; the rest has 0.
 */
#include "clock.h"
#include "forward.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    ROWS = 64,
    BLOCK = 16,
    EACH = 16,            /* blocks of a sequence that decodes, */
    LONGEST = 4096,       /* and the tokens of one that does not */
    BLOCKS = ROWS * EACH, /* both are in the same pool */
    COSTS = 64,
    WEIGHTS = 4096,
    TOKENS = 1024 /* of a step */
};

_Static_assert(BLOCKS *BLOCK >= LONGEST, "a prompt fits in");

/* What an op, or the product with a weight, took; see `ops`. */
typedef struct {
    const char *op;
    char weight[32];
    double us, bytes, macs;
} cost_t;

/* Which weight has which name. */
typedef struct {
    const kn_w_t *w;
    char name[32];
    double bytes, macs; /* macs: of a row */
} weight_t;

typedef struct {
    kernels_t kn;
    kn_dev_t *dev;
    model_t *model;
    forward_t *f;
    forward_cfg_t c;
    batch_row_t rows[ROWS];
    uint32_t tokens[TOKENS];
    batch_out_t outs[ROWS];
    sample_out_t got[ROWS];
    batch_t b;
    uint32_t tables[ROWS][EACH], whole[BLOCKS];
    uint32_t filled[ROWS]; /* tokens computed once: what lies there later is
                            * another prompt's, and as good */
    uint64_t seed;
    cost_t costs[COSTS];
    weight_t weights[WEIGHTS];
    uint32_t costs_n, weights_n;
} bench_t;

static const kernels_t *own; /* of the CPU, as they are */
static bench_t *bench;       /* an op has no other way to it */

static const sample_params_t greedy = {.top_p = 1, .repetition_penalty = 1};


static uint32_t
below(bench_t *t, uint32_t n)
{
    t->seed = t->seed * 6364136223846793005u + 1442695040888963407u;

    return (uint32_t) ((t->seed >> 32) * n >> 32);
}


static void
fail(const char *what)
{
    fprintf(stderr, "cpu: %s\n", what);
    exit(1);
}


static double
now_us(void)
{
    struct timespec t;

    (void) clock_gettime(CLOCK_MONOTONIC, &t);

    return (double) t.tv_sec * 1e6 + (double) t.tv_nsec * 1e-3;
}


/* Adds to what an op has cost. */
static void
count(const char *op, const char *weight, double us, double bytes, double macs)
{
    cost_t *c = bench->costs, *end = c + bench->costs_n;

    while (c < end && (c->op != op || strcmp(c->weight, weight) != 0)) {
        c++;
    }
    if (c == end) {
        assert(bench->costs_n < COSTS);
        *c = (cost_t){.op = op};
        snprintf(c->weight, sizeof(c->weight), "%s", weight);
        bench->costs_n++;
    }
    c->us += us;
    c->bytes += bytes;
    c->macs += macs;
}


/* Positions of all rows that are read, and read by each token. */
static void
looked_at(double *read, double *pairs)
{
    const batch_row_t *r = bench->rows;
    uint32_t i;

    *read = *pairs = 0;
    for (i = 0; i < bench->b.rows_n; i++, r++) {
        *read += r->kv_len;
        *pairs += r->q_len * (r->q_start + (r->q_len + 1) / 2.0);
    }
}


static void
count_attn(const char *op, const kn_attn_t *a, double us)
{
    double read, pairs, key = a->kv.head_dim + a->kv.v_dim;

    looked_at(&read, &pairs);
    count(op, "", us, read * a->kv.kv_heads * key * 2, pairs * a->heads * key);
}


/* Adds the rows' products with w; its name, "" if there is none. */
static const char *
count_weight(const kn_w_t *w, uint32_t rows, double *bytes, double *macs)
{
    const weight_t *t;

    for (t = bench->weights; t < bench->weights + bench->weights_n; t++) {
        if (t->w == w) {
            *bytes += t->bytes;
            *macs += t->macs * rows;
            return t->name;
        }
    }
    return "";
}


/* Products of one x go by the first one's name. */
static void
count_matmul(const char *op, const kn_matmul_t *a, double us)
{
    double bytes = 0, macs = 0;
    const char *name = NULL;
    uint32_t i, rows;

    rows = a->rows == KN_OUTS ? bench->b.outs_n : bench->b.tokens_n;
    for (i = a->n; i-- > 0;) {
        name = count_weight(a->of[i].w, rows, &bytes, &macs);
    }
    count(op, name, us, bytes, macs);
}


static void
count_gated(const char *op, const kn_gated_t *a, double us)
{
    double bytes = 0, macs = 0;
    const char *name;

    (void) count_weight(a->up, bench->b.tokens_n, &bytes, &macs);
    name = count_weight(a->gate, bench->b.tokens_n, &bytes, &macs);
    count(op, name, us, bytes, macs);
}


/* By the type of its arguments; ops of other types are but timed. */
#define COUNT(name, a, us)                                                     \
    _Generic((a),                                                              \
        const kn_attn_t *: count_attn,                                         \
        const kn_matmul_t *: count_matmul,                                     \
        const kn_gated_t *: count_gated,                                       \
        default: count_other)(name, (const void *) (a), us)

static void
count_other(const char *op, const void *a, double us)
{
    (void) a;
    count(op, "", us, 0, 0);
}


#define X(op, doc)                                                             \
    static void timed_##op(kn_dev_t *dev, const kn_##op##_t *a)                \
    {                                                                          \
        double from = now_us();                                                \
                                                                               \
        own->op(dev, a);                                                       \
        COUNT(#op, a, now_us() - from);                                        \
    }
KERNELS(X)
#undef X


/* The device's own alloc, and each page written: a pool that has been used
 * costs no step a page. */
static kn_ptr_t
alloc(kn_dev_t *dev, uint64_t bytes)
{
    kn_ptr_t p = own->alloc(dev, bytes);

    if (p.a != 0) {
        memset((void *) p.a, 0, bytes);
    }

    return p;
}


/* The device's own weight_load, and its name noted: "blk.3.ffn_up.weight" is
 * ffn_up. */
static kn_w_t *
load(kn_dev_t *dev, const kn_source_t *s, char *err, size_t errlen)
{
    static const uint32_t block[KN_TYPES][2] = {
#define X(name, elems, bytes) {elems, bytes},
        KN_TYPE_LIST(X)
#undef X
    };
    kn_w_t *w = own->weight_load(dev, s, err, errlen);
    weight_t *known = &bench->weights[bench->weights_n];
    const char *from, *dot;

    if (w != NULL && bench->weights_n < WEIGHTS) {
        from = strncmp(s->name, "blk.", 4) == 0 ? strchr(s->name + 4, '.') + 1
                                                : s->name;
        dot = strchr(from, '.');
        *known = (weight_t){.w = w,
            .macs = (double) s->n * s->k,
            .bytes =
                (double) s->n * s->k / block[s->type][0] * block[s->type][1]};
        snprintf(known->name, sizeof(known->name), "%.*s",
            (int) (dot == NULL ? strlen(from) : (size_t) (dot - from)), from);
        bench->weights_n++;
    }

    return w;
}


static void
open_all(bench_t *t, const char *path, const char *isa, uint32_t threads)
{
    kn_open_t ko = {.threads = threads};
    char err[512];
    uint32_t i, k;

    own = kernels_cpu(isa, err, sizeof(err));
    if (own == NULL) {
        fail(err);
    }
    t->kn = *own;
    t->kn.weight_load = load;
    t->kn.alloc = alloc;
#define X(op, doc) t->kn.op = timed_##op;
    KERNELS(X)
#undef X
    t->dev = own->open(&ko, err, sizeof(err));
    t->model = t->dev == NULL ? NULL : model_open(path, err, sizeof(err));
    if (t->model == NULL) {
        fail(err);
    }

    t->c.rows_max = t->c.outs_max = ROWS;
    t->c.tokens_max = TOKENS;
    t->c.context = LONGEST;
    t->c.blocks = BLOCKS;
    t->c.block_tokens = BLOCK;
    t->c.kv_type = KN_F16;
    model_groups(t->model, LONGEST, &t->c.groups);
    if (t->c.groups.n > 1) {
        fail("the model has layers with windows");
    }
    t->f = forward_open(&t->kn, t->dev, t->model, &t->c, err, sizeof(err));
    if (t->f == NULL) {
        fail(err);
    }

    t->b = (batch_t){.rows_max = ROWS,
        .tokens_max = TOKENS,
        .outs_max = ROWS,
        .rows = t->rows,
        .tokens = t->tokens,
        .outs = t->outs};
    for (i = 0; i < ROWS; i++) {
        for (k = 0; k < EACH; k++) {
            t->tables[i][k] = (k * ROWS + i) * 257u % BLOCKS;
            t->whole[i * EACH + k] = (i * EACH + k) * 257u % BLOCKS;
        }
    }
}


/*
 * What bounds are computed of: the file's bytes of weights, all of which a
 * step reads; multiply-adds of a token in the layers' matrices, of an output,
 * and of a token with each position that it looks at; bytes of such a position;
 * and how long it took to get ready.
 */
static void
ready(const bench_t *t, double ms)
{
    const model_info_t *m = model_info(t->model);
    uint64_t q = (uint64_t) m->heads * m->head_dim, kv;
    kn_info_t info;

    kv = (uint64_t) m->kv_heads * m->head_dim;
    own->info(t->dev, &info);
    printf("ready weights %llu macs %llu head %llu seen %llu kv %llu ms %.0f "
           "used %llu %s\n",
        (unsigned long long) m->weight_bytes,
        (unsigned long long) m->layers * m->hidden
            * (2 * q + 2 * kv + 3ull * m->ffn),
        (unsigned long long) m->hidden * m->vocab,
        (unsigned long long) m->layers * q * 2,
        (unsigned long long) m->layers * kv * 2 * 2, ms,
        (unsigned long long) info.used, info.name);
    (void) fflush(stdout);
}


static void
clear(bench_t *t)
{
    t->b.rows_n = t->b.tokens_n = t->b.outs_n = 0;
}


/* n tokens of a sequence from start on; out: with one sampled behind. */
static void
add(bench_t *t, const uint32_t *table, uint32_t start, uint32_t n, int out)
{
    batch_row_t *row = &t->rows[t->b.rows_n];
    batch_out_t *o = &t->outs[t->b.outs_n];
    uint32_t i;

    assert(t->b.rows_n < ROWS && t->b.tokens_n + n <= TOKENS);

    memset(row, 0, sizeof(*row));
    row->seq = t->b.rows_n;
    row->q_start = start;
    row->q_len = n;
    row->kv_len = start + n;
    row->tok = t->b.tokens_n;
    row->blocks[0].ids = table;
    row->blocks[0].n = (start + n + BLOCK - 1) / BLOCK;
    for (i = 0; i < n; i++) {
        t->tokens[t->b.tokens_n++] = below(t, model_info(t->model)->vocab);
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


/* Numbers that are not finite would be computed at another speed. */
static void
run(bench_t *t)
{
    uint32_t i;

    forward_submit(t->f, &t->b);
    forward_wait(t->f, t->got);
    for (i = 0; i < t->b.outs_n; i++) {
        if (t->got[i].err != 0) {
            fail("logits are not finite");
        }
    }
}


static double
prefill(bench_t *t, uint32_t tokens, uint32_t chunk)
{
    uint64_t from = clock_us();
    uint32_t at, n;

    for (at = 0; at < tokens; at += n) {
        n = tokens - at < chunk ? tokens - at : chunk;
        clear(t);
        add(t, t->whole, at, n, at + n == tokens);
        run(t);
    }

    return (double) (clock_us() - from);
}


static double
decode(bench_t *t, uint32_t rows, uint32_t begin, uint32_t steps)
{
    uint64_t from;
    uint32_t i, k;

    for (i = 0; i < rows; i++) {
        if (t->filled[i] < begin) {
            clear(t);
            add(t, t->tables[i], 0, begin, 0);
            run(t);
            t->filled[i] = begin;
        }
    }

    from = clock_us();
    for (k = 0; k < steps; k++) {
        clear(t);
        for (i = 0; i < rows; i++) {
            add(t, t->tables[i], begin + k, 1, 1);
        }
        run(t);
    }

    return (double) (clock_us() - from);
}


static void
print_costs(bench_t *t)
{
    const cost_t *c;

    for (c = t->costs; c < t->costs + t->costs_n; c++) {
        printf("%s%s%s %.1f %.0f %.0f ", c->op, c->weight[0] ? "." : "",
            c->weight, c->us, c->bytes, c->macs);
    }
    printf("\n");
    t->costs_n = 0;
}


/* Microseconds of what a line asks for, or -1: that is not possible. */
static double
answer(bench_t *t, const char *line)
{
    unsigned a, b, c;

    if (sscanf(line, "prefill %u %u", &a, &b) == 2 && a > 0 && a <= LONGEST
        && b > 0 && b <= TOKENS) {
        return prefill(t, a, b);
    }
    if (sscanf(line, "decode %u %u %u", &a, &b, &c) == 3 && a > 0 && a <= ROWS
        && b <= EACH * BLOCK && c > 0 && c <= EACH * BLOCK - b) {
        return decode(t, a, b, c);
    }

    return -1;
}


int
main(int argc, char **argv)
{
    bench_t *t = calloc(1, sizeof(*t));
    uint64_t from = clock_us();
    char line[200];
    double us;

    if (argc < 3) {
        printf("usage: cpu MODEL THREADS [ISA]\n");
        return 0;
    }
    if (t == NULL) {
        fail("out of memory");
    }

    t->seed = 1;
    bench = t;
    open_all(t, argv[1], argc > 3 ? argv[3] : "auto", (uint32_t) atoi(argv[2]));
    ready(t, (double) (clock_us() - from) / 1e3);

    while (fgets(line, sizeof(line), stdin) != NULL) {
        if (strcmp(line, "ops\n") == 0) {
            print_costs(t);
        } else {
            us = answer(t, line);
            if (us < 0) {
                fail(line);
            }
            printf("%.0f\n", us);
        }
        (void) fflush(stdout);
    }

    forward_close(t->f);
    model_close(t->model);
    own->close(t->dev);
    free(t);

    return 0;
}
