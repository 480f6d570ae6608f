/*
 * How fast each op is: kernels [ROW...], the rows whose names begin so, or all
 * in the order of what they tell; kernels ceilings, what the machine gives;
 * kernels tiny..., the same at sizes for the emulator.  row.h has the form.
 *
 * DESIGN.  A row is a device of its own and a list of calls of one op, each
 * with weights or keys of its own, so that together they miss every cache; a
 * time is that of a whole list between two marks in the device's stream,
 * divided by its calls, and the figure the median of some.  Launches that
 * follow one another are what a step has, so gaps between them are in it.
 *
 * Sizes are those of an 8B Llama (32 / 8 heads of 128, 4096 and 14336 wide) and
 * of a mixture of 128 experts of which 8 are used (2048 and 768 wide).
 */
#include "clock.h"
#include "probe.h"
#include "row.h"
#include "synth.h"

#include <assert.h>

#define CALLS     64
#define TURNS     24
#define SECONDS   0.5
#define CACHE     ((uint64_t) 192 << 20) /* three times the second cache */
#define BLOCK     16u
#define HIDDEN    4096u
#define FFN       14336u
#define HEADS     32u
#define KV_HEADS  8u
#define DIM       128u
#define VOCAB     128256u
#define EXPERTS   128u
#define USED      8u
#define EXPERT_IN 2048u
#define EXPERT_N  768u
#define FLOATS    (1u << 20)
#define ROWS_MAX  128u

enum {
#define X(op, doc) OP_##op,
    KERNELS(X)
#undef X
};

typedef struct {
    uint32_t op;
    union {
#define X(op, doc) kn_##op##_t op;
        KERNELS(X)
#undef X
    } a;
} call_t;

typedef struct {
    const kernels_t *kn;
    kn_dev_t *dev;
    uint32_t small; /* divides sizes */
    call_t calls[CALLS];
    uint32_t n;
    double bytes, flop; /* of a call */
    kn_step_t step;
    kn_row_t rows[ROWS_MAX];
    kn_out_t *outs;
    uint32_t *tokens, *blocks;
    sample_params_t params;
    uint32_t *mask;
    const kn_w_t *experts[3][EXPERTS];
} job_t;

typedef struct {
    const char *kind;
    void (*build)(job_t *j, uint32_t a, uint32_t b);
    uint32_t a, b;
    double target; /* % of the floor */
    double most;   /* us; or of these */
} def_t;

static void
die(const char *what)
{
    fprintf(stderr, "kernels: %s\n", what);
    exit(1);
}

static void *
host(size_t n)
{
    void *p = calloc(n > 0 ? n : 1, 1);

    if (p == NULL) {
        die("no memory");
    }

    return p;
}

static uint32_t
min(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* n of the row's sizes, at least so much. */
static uint32_t
scaled(const job_t *j, uint32_t n, uint32_t least)
{
    return n / j->small > least ? n / j->small : least;
}

static kn_ptr_t
room(job_t *j, uint64_t bytes)
{
    kn_ptr_t p = j->kn->alloc(j->dev, bytes);

    if (p.a == 0) {
        die("no memory on the device");
    }

    return p;
}

/* Memory of 16 bit numbers. */
static kn_ptr_t
halves(job_t *j, uint64_t n)
{
    kn_ptr_t p = room(j, n * 2);
    const uint16_t *from = synth_numbers(n < 8 * FLOATS ? n : 8 * FLOATS);
    uint64_t at, some;

    if (from == NULL) {
        die("no memory");
    }
    for (at = 0; at < n; at += some) {
        some = n - at < 8 * FLOATS ? n - at : 8 * FLOATS;
        j->kn->copy_in(j->dev, kn_at(p, at * 2), from, some * 2);
    }

    return p;
}

/* Of floats from -1 to 1. */
static kn_ptr_t
floats(job_t *j, uint64_t n)
{
    static float *from;
    kn_ptr_t p = room(j, n * 4);
    uint64_t at, some;
    uint32_t i;

    if (from == NULL) {
        from = host(FLOATS * sizeof(*from));
        for (i = 0; i < FLOATS; i++) {
            from[i] = (float) (int32_t) (i * 2654435761u) * 0x1p-31f;
        }
    }
    for (at = 0; at < n; at += some) {
        some = n - at < FLOATS ? n - at : FLOATS;
        j->kn->copy_in(j->dev, kn_at(p, at * 4), from, some * 4);
    }

    return p;
}

static const kn_w_t *
weight(job_t *j, uint32_t n, uint32_t k)
{
    kn_source_t s = {"bench", KN_BF16, n, k, NULL};
    const kn_w_t *w;
    char err[200];

    s.data = synth_numbers((size_t) n * k);
    w = s.data == NULL ? NULL
                       : j->kn->weight_load(j->dev, &s, err, sizeof(err));
    if (w == NULL) {
        die(s.data == NULL ? "no memory" : err);
    }

    return w;
}

/* rows sequences of n tokens behind start, all of them outputs if asked. */
static void
step(job_t *j, uint32_t rows, uint32_t start, uint32_t n, int outs)
{
    static const sample_params_t plain = {.top_p = 1, .repetition_penalty = 1};
    uint32_t i, each = (start + n + BLOCK - 1) / BLOCK;

    assert(rows <= ROWS_MAX);
    j->params = plain;
    j->step.tokens_n = rows * n;
    j->step.rows_n = rows;
    j->step.blocks_n = rows * each;
    j->step.outs_n = outs ? rows * n : 0;
    j->step.tokens = j->tokens = host(rows * n * sizeof(*j->tokens));
    j->step.blocks = j->blocks = host(rows * each * sizeof(*j->blocks));
    j->step.outs = j->outs = host(rows * n * sizeof(*j->outs));
    j->step.rows = j->rows;
    j->step.list = j; /* the row's calls, which may be recorded */

    for (i = 0; i < rows; i++) {
        memset(&j->rows[i], 0, sizeof(j->rows[i]));
        j->rows[i].q_start = start;
        j->rows[i].q_len = n;
        j->rows[i].tok = i * n;
        j->rows[i].blocks[0].at = i * each;
        j->rows[i].blocks[0].n = each;
    }
    for (i = 0; i < rows * each; i++) {
        j->blocks[i] = rows * each % 7919 == 0
                           ? i
                           : (uint32_t) ((uint64_t) i * 7919 % (rows * each));
    }
    for (i = 0; i < j->step.outs_n; i++) {
        j->outs[i].tok = i;
        j->outs[i].pos = start + i % n;
        j->outs[i].known = j->tokens;
        j->outs[i].params = &j->params;
    }
}

/* M tokens: of a prompt, or as many as there are sequences. */
static void
tokens(job_t *j, uint32_t m)
{
    step(j, m > ROWS_MAX ? 1 : m, 0, m > ROWS_MAX ? m : 1, 0);
}

/* So many calls read bytes each: as many as miss the cache. */
static uint32_t
calls_of(const job_t *j, double bytes)
{
    double n = (double) CACHE / bytes + 1;

    return j->small > 1 ? 2 : n > CALLS ? CALLS : (uint32_t) n;
}

static void *
call(job_t *j, uint32_t op)
{
    call_t *c = &j->calls[j->n++];

    assert(j->n <= CALLS);
    memset(c, 0, sizeof(*c));
    c->op = op;

    return &c->a;
}

static void
device(job_t *j, uint32_t m, uint32_t context, uint32_t vocab, int experts)
{
    kn_open_t o;
    kn_limits_t l;
    char err[256];

    memset(&o, 0, sizeof(o));
    memset(&l, 0, sizeof(l));
    l.tokens = m > ROWS_MAX ? m : ROWS_MAX;
    l.rows = l.outs = ROWS_MAX;
    l.context = context + m;
    l.blocks = ROWS_MAX * ((context + m) / BLOCK + 2);
    l.heads = HEADS;
    l.head_dim = DIM;
    l.vocab = vocab;
    l.used = experts ? USED : 0;
    l.expert_k = experts ? EXPERT_IN : 0;
    j->dev = j->kn->open(&o, err, sizeof(err));
    if (j->dev == NULL || j->kn->reserve(j->dev, &l, err, sizeof(err)) != 0) {
        die(err);
    }
}

/* --- the rows ------------------------------------------------------------ */

static void
build_norm(job_t *j, uint32_t m, uint32_t b)
{
    uint32_t i, n, dim = scaled(j, HIDDEN, 64);
    kn_rmsnorm_t *a;
    kn_ptr_t w;

    (void) b;
    device(j, m, BLOCK, 1, 0);
    tokens(j, m);
    w = floats(j, dim);
    n = calls_of(j, 16.0 * m * dim);
    for (i = 0; i < n; i++) {
        a = call(j, OP_rmsnorm);
        a->x = floats(j, (uint64_t) m * dim);
        a->add = floats(j, (uint64_t) m * dim);
        a->y = room(j, (uint64_t) m * dim * 4);
        a->w = w;
        a->parts = 1;
        a->dim = dim;
        a->eps = 1e-5f;
    }
    j->bytes = 16.0 * m * dim;
}

static kn_kv_t
cache(const job_t *j, kn_ptr_t kv, uint32_t layers, uint32_t layer)
{
    kn_kv_t c;
    uint64_t part = 2ull * KV_HEADS * BLOCK * DIM;

    (void) j;
    memset(&c, 0, sizeof(c));
    c.kv = kv;
    c.stride = 2 * part * layers;
    c.k_off = 2 * part * layer;
    c.v_off = c.k_off + part;
    c.type = KN_F16;
    c.block_tokens = BLOCK;
    c.kv_heads = KV_HEADS;
    c.head_dim = c.v_dim = DIM;

    return c;
}

static void
build_rope(job_t *j, uint32_t m, uint32_t b)
{
    double bytes =
        (2.0 * HEADS + 2 * KV_HEADS) * DIM * 4 + 2.0 * KV_HEADS * DIM * 2;
    uint32_t i, n;
    kn_rope_store_t *a;
    kn_ptr_t kv, cs;

    (void) b;
    device(j, m, BLOCK, 1, 0);
    tokens(j, m);
    n = calls_of(j, bytes * m);
    kv =
        halves(j, (uint64_t) j->step.blocks_n * n * 2 * KV_HEADS * BLOCK * DIM);
    cs = floats(j, (uint64_t) m * DIM);
    for (i = 0; i < n; i++) {
        a = call(j, OP_rope_store);
        a->q = floats(j, (uint64_t) m * HEADS * DIM);
        a->k = floats(j, (uint64_t) m * KV_HEADS * DIM);
        a->v = floats(j, (uint64_t) m * KV_HEADS * DIM);
        a->cs = cs;
        a->heads = HEADS;
        a->half = DIM / 2;
        a->halves = 1;
        a->kv = cache(j, kv, n, i);
    }
    j->bytes = bytes * m;
}

/* Products of m rows: part 0 is qkv, 1 o, 2 down, 3 the last one. */
static void
build_product(job_t *j, uint32_t m, uint32_t part)
{
    const uint32_t kv = scaled(j, KV_HEADS * DIM, 32);
    uint32_t hidden = scaled(j, HIDDEN, 64), ffn = scaled(j, FFN, 64);
    uint32_t n[4][3] = {
        {hidden, kv, kv}, {hidden}, {hidden}, {scaled(j, VOCAB, 64)}};
    uint32_t i, p, calls, k = part == 2 ? ffn : hidden, all = 0;
    kn_matmul_t *a;
    kn_ptr_t y;

    device(j, m, BLOCK, 1, 0);
    tokens(j, m);
    for (p = 0; p < 3; p++) {
        all += n[part][p];
    }
    calls = calls_of(j, 2.0 * all * k);
    y = room(j, (uint64_t) m * all * 4);
    for (i = 0; i < calls; i++) {
        a = call(j, OP_matmul);
        a->x = floats(j, (uint64_t) m * k);
        for (p = 0; p < 3 && n[part][p] > 0; p++) {
            a->of[p].w = weight(j, n[part][p], k);
            a->of[p].scale = 1;
            a->of[p].y = p == 0 ? y
                                : kn_at(a->of[p - 1].y,
                                    (uint64_t) m * n[part][p - 1] * 4);
        }
        a->n = p;
    }
    j->bytes = 2.0 * all * k + 4.0 * m * (k + all);
    j->flop = 2.0 * m * all * k;
}

static void
build_gated(job_t *j, uint32_t m, uint32_t b)
{
    uint32_t i, n, hidden = scaled(j, HIDDEN, 64), ffn = scaled(j, FFN, 64);
    kn_gated_t *a;
    kn_ptr_t y;

    (void) b;
    device(j, m, BLOCK, 1, 0);
    tokens(j, m);
    n = calls_of(j, 4.0 * hidden * ffn);
    y = room(j, (uint64_t) m * ffn * 4);
    for (i = 0; i < n; i++) {
        a = call(j, OP_gated);
        a->gate = weight(j, ffn, hidden);
        a->up = weight(j, ffn, hidden);
        a->x = floats(j, (uint64_t) m * hidden);
        a->y = y;
        a->act = KN_SILU;
    }
    j->bytes = 4.0 * hidden * ffn + 4.0 * m * (hidden + ffn);
    j->flop = 4.0 * m * hidden * ffn;
}

static void
attention(job_t *j, uint32_t rows, uint32_t start, uint32_t n)
{
    double bytes = (double) rows * (start + n) * 4 * KV_HEADS * DIM;
    uint64_t q = (uint64_t) rows * n * HEADS * DIM;
    uint32_t i, calls;
    kn_attn_t *a;
    kn_ptr_t kv, x, y;

    device(j, rows * n, start + n, 1, 0);
    step(j, rows, start, n, 0);
    calls = n > 1 ? 2 : calls_of(j, bytes);
    kv = halves(
        j, (uint64_t) j->step.blocks_n * calls * 2 * KV_HEADS * BLOCK * DIM);
    x = floats(j, q);
    y = room(j, q * 4);
    for (i = 0; i < calls; i++) {
        a = call(j, OP_attn);
        a->q = x;
        a->y = y;
        a->heads = HEADS;
        a->scale = 0.088f;
        a->kv = cache(j, kv, calls, i);
    }
    j->bytes = bytes + 8.0 * (double) q;
    j->flop = 4.0 * (double) q * (start + (n + 1) / 2.0);
}

static void
build_decode(job_t *j, uint32_t rows, uint32_t context)
{
    attention(j, j->small > 1 ? min(rows, 2) : rows,
        scaled(j, context, BLOCK) - 1, 1);
}

static void
build_prefill(job_t *j, uint32_t n, uint32_t past)
{
    attention(j, 1, past / j->small, scaled(j, n, 8));
}

/* Each token's experts, none twice, anew for each call: how many there are of
 * all. */
static uint32_t
draw(uint32_t *ids, uint32_t m, uint32_t experts, uint32_t call)
{
    uint32_t i, k, e, n = 0, of[EXPERTS], seen[EXPERTS] = {0};

    assert(experts >= USED && experts <= EXPERTS);
    for (e = 0; e < experts; e++) {
        of[e] = e;
    }
    for (i = 0; i < m * USED; i++) {
        /* one of those that the token has not yet goes to its beginning */
        k = i % USED;
        e = k + ((i + call * 977) * 2654435761u >> 8) % (experts - k);
        ids[i] = of[e];
        of[e] = of[k];
        of[k] = ids[i];
        n += seen[ids[i]]++ == 0;
    }

    return n;
}

static void
build_router(job_t *j, uint32_t m, uint32_t b)
{
    uint32_t i;
    kn_router_t *a;

    (void) b;
    device(j, m, BLOCK, 1, 1);
    tokens(j, m);
    for (i = 0; i < scaled(j, 16, 2); i++) {
        a = call(j, OP_router);
        a->logits = floats(j, (uint64_t) m * EXPERTS);
        a->ids = room(j, (uint64_t) m * USED * 4);
        a->weights = room(j, (uint64_t) m * USED * 4);
        a->experts = EXPERTS;
        a->used = USED;
        a->normed = 1;
        a->scale = 1;
    }
    j->bytes = 4.0 * m * (EXPERTS + 2 * USED);
}

static void
build_moe(job_t *j, uint32_t m, uint32_t b)
{
    uint32_t i, e, dim = scaled(j, EXPERT_IN, 64), met = 0;
    uint32_t ffn = scaled(j, EXPERT_N, 32);
    uint32_t experts = j->small > 1 ? 2 * USED : EXPERTS;
    /* a few tokens' experts stay in the cache, unless others' come between */
    uint32_t calls = j->small > 1 ? 2 : m < 16 ? 16 / m : 1;
    uint32_t *ids = host((size_t) m * USED * 4);
    kn_moe_ffn_t *a;

    (void) b;
    device(j, m, BLOCK, 1, 1);
    tokens(j, m);
    for (i = 0; i < 3; i++) {
        for (e = 0; e < experts; e++) {
            j->experts[i][e] = weight(j, i < 2 ? ffn : dim, i < 2 ? dim : ffn);
        }
    }

    for (i = 0; i < calls; i++) {
        met += draw(ids, m, experts, i);
        a = call(j, OP_moe_ffn);
        a->gate = j->experts[0];
        a->up = j->experts[1];
        a->down = j->experts[2];
        a->x = floats(j, (uint64_t) m * dim);
        a->ids = room(j, (uint64_t) m * USED * 4);
        a->weights = floats(j, (uint64_t) m * USED);
        a->mid = room(j, (uint64_t) m * USED * ffn * 4);
        a->y = room(j, (uint64_t) m * dim * 4);
        a->dim = dim;
        a->ffn = ffn;
        a->experts = experts;
        a->used = USED;
        j->kn->copy_in(j->dev, a->ids, ids, (uint64_t) m * USED * 4);
    }
    free(ids);
    j->bytes = 6.0 * met / calls * dim * ffn + 8.0 * m * dim;
    j->flop = 6.0 * m * USED * dim * ffn;
}

/* how: 0 greedy, 1 top_k and top_p, 2 penalties and a mask. */
static void
build_sample(job_t *j, uint32_t m, uint32_t how)
{
    uint32_t i, vocab = scaled(j, VOCAB, 200), words = (vocab + 31) / 32;
    kn_sample_t *a;

    device(j, m, 1024, vocab, 0);
    step(j, m, 1023 / j->small, 1, 1);
    j->params.temperature = how > 0 ? 1 : 0;
    j->params.top_k = how == 1 ? 40 : 0;
    j->params.top_p = how == 1 ? 0.9f : 1;
    j->params.seed = 1;
    j->mask = host(words * 4);
    for (i = 0; i < words; i++) {
        j->mask[i] = 0x77777777;
    }
    if (how == 2) {
        j->params.repetition_penalty = 1.1f;
        j->params.presence_penalty = 0.2f;
        for (i = 0; i < m; i++) {
            j->outs[i].mask = j->mask;
            j->outs[i].known_n = min(m, 16);
        }
    }
    for (i = 0; i < scaled(j, 16, 2); i++) {
        a = call(j, OP_sample);
        a->logits = floats(j, (uint64_t) m * vocab);
        a->out = room(j, m * sizeof(sample_out_t));
        a->vocab = vocab;
    }
    j->bytes = 4.0 * m * vocab;
}

static const def_t defs[] = {
    {"matmul qkv", build_product, 1, 0, 85, 0},
    {"matmul o", build_product, 1, 1, 70, 0},
    {"gate-up", build_gated, 1, 0, 85, 0},
    {"matmul down", build_product, 1, 2, 85, 0},
    {"matmul last", build_product, 1, 3, 85, 0},
    {"decode attention", build_decode, 1, 1024, 20, 0},
    {"decode attention", build_decode, 128, 1024, 85, 0},
    {"decode attention", build_decode, 32, 8192, 85, 0},
    {"prefill attention", build_prefill, 2048, 0, 42, 0},
    {"matmul qkv", build_product, 2048, 0, 0, 0},
    {"gate-up", build_gated, 2048, 0, 0, 0},
    {"matmul down", build_product, 2048, 2, 0, 0},
    {"matmul qkv", build_product, 128, 0, 0, 0},
    {"matmul o", build_product, 128, 1, 0, 0},
    {"gate-up", build_gated, 128, 0, 0, 0},
    {"matmul down", build_product, 128, 2, 0, 0},
    {"matmul last", build_product, 128, 3, 0, 0},
    {"norm, residual", build_norm, 1, 0, 0, 0},
    {"norm, residual", build_norm, 128, 0, 30, 0},
    {"norm, residual", build_norm, 2048, 0, 85, 0},
    {"rope, store", build_rope, 1, 0, 0, 0},
    {"rope, store", build_rope, 128, 0, 30, 0},
    {"rope, store", build_rope, 2048, 0, 70, 0},
    {"sample greedy", build_sample, 1, 0, 0, 15},
    {"sample greedy", build_sample, 128, 0, 0, 0},
    {"sample top_k, top_p", build_sample, 1, 1, 0, 60},
    {"sample top_k, top_p", build_sample, 128, 1, 0, 0},
    {"sample penalties, mask", build_sample, 1, 2, 0, 60},
    {"sample penalties, mask", build_sample, 128, 2, 0, 0},
    {"router", build_router, 1, 0, 0, 6},
    {"router", build_router, 32, 0, 0, 8},
    {"router", build_router, 128, 0, 0, 10},
    {"experts", build_moe, 1, 0, 65, 0},
    {"experts", build_moe, 32, 0, 65, 0},
    {"experts", build_moe, 128, 0, 65, 0},
    {"experts", build_moe, 2048, 0, 45, 0},
    {"prefill attention", build_prefill, 512, 0, 42, 0},
    {"prefill attention", build_prefill, 8192, 0, 42, 0},
    {"prefill attention", build_prefill, 2048, 30720, 42, 0},
    {"decode attention", build_decode, 8, 8192, 85, 0},
    {"decode attention", build_decode, 1, 8192, 0, 0},
    {"decode attention", build_decode, 1, 32768, 0, 0},
    {"decode attention", build_decode, 32, 1024, 0, 0},
    {"decode attention", build_decode, 8, 1024, 0, 0},
    {"decode attention", build_decode, 8, 32768, 85, 0},
    {"matmul qkv", build_product, 8, 0, 85, 0},
    {"gate-up", build_gated, 8, 0, 85, 0},
    {"matmul down", build_product, 8, 2, 85, 0},
    {"matmul qkv", build_product, 32, 0, 85, 0},
    {"matmul o", build_product, 32, 1, 70, 0},
    {"gate-up", build_gated, 32, 0, 85, 0},
    {"matmul down", build_product, 32, 2, 85, 0},
    {"matmul last", build_product, 32, 3, 85, 0},
    {"gate-up", build_gated, 512, 0, 0, 0},
    {"experts", build_moe, 8, 0, 65, 0},
    {"experts", build_moe, 512, 0, 45, 0},
    {"experts", build_moe, 8192, 0, 45, 0},
    {"sample greedy", build_sample, 32, 0, 0, 0},
    {"sample top_k, top_p", build_sample, 32, 1, 0, 0},
};

#define DEFS (sizeof(defs) / sizeof(defs[0]))

static void
body(void *arg)
{
    const job_t *j = arg;
    uint32_t i;

    for (i = 0; i < j->n; i++) {
        switch (j->calls[i].op) {
#define X(name, doc)                                                           \
    case OP_##name:                                                            \
        j->kn->name(j->dev, &j->calls[i].a.name);                              \
        break;
            KERNELS(X)
#undef X
        }
    }
}

/* Us of a call. */
static double
turn(job_t *j)
{
    j->kn->plan(j->dev, &j->step);
    probe_mark(j->dev, 0);
    j->kn->submit(j->dev, body, j);
    probe_mark(j->dev, 1);
    j->kn->wait(j->dev);

    return probe_between(0, 1) / j->n;
}

static void
measure(const def_t *d, const char *name, uint32_t small)
{
    job_t *j = host(sizeof(*j)); /* a new one: a device may know it by this */
    double us[TURNS];
    uint32_t i, n = 0;
    uint64_t from;
    row_t r;
    char note[96];

    j->kn = llm_cuda_kernels();
    j->small = small;
    d->build(j, small > 1 ? min(d->a, 8) : d->a, d->b);
    for (i = 0; i < (small > 1 ? 1u : 3u); i++) {
        (void) turn(j);
    }
    for (from = clock_us(); n < (small > 1 ? 1u : TURNS); n++) {
        if (n >= 5 && (double) (clock_us() - from) > SECONDS * 1e6) {
            break;
        }
        us[n] = turn(j);
    }

    memset(&r, 0, sizeof(r));
    r.name = name;
    r.us = row_median(us, n, &r.spread);
    r.bytes = j->bytes;
    r.flop = j->flop;
    r.target = d->target;
    snprintf(note, sizeof(note), "%u calls, %u times", j->n, n);
    r.note = note;
    if (d->most > 0) {
        row_figure(name, r.us, d->most, note);
    } else {
        row_print(&r);
    }

    j->kn->close(j->dev);
    free(j->tokens);
    free(j->blocks);
    free(j->outs);
    free(j->mask);
    free(j);
}

static void
ceilings(uint32_t small)
{
    uint64_t bytes = (uint64_t) 4 << 30;

    bytes = small > 1 ? 1 << 20 : bytes;
    printf("copy\t%.1f GB/s\n", probe_copy(bytes) / 1e3);
    printf("read\t%.1f GB/s\n", probe_read(bytes) / 1e3);
    (void) fflush(stdout);
    row_figure("launch in a graph", probe_launch(300, 0), 1.4, "300 of them");
    row_figure("launch ahead", probe_launch(300, 1), 0.8, "300 of them");
}

int
main(int argc, char **argv)
{
    uint32_t small = argc > 1 && strcmp(argv[1], "tiny") == 0 ? 64 : 1;
    int k, yes, first = small > 1 ? 2 : 1;
    char name[96];
    size_t i;

    if (argc > first && strcmp(argv[first], "ceilings") == 0) {
        ceilings(small);
        return 0;
    }

    for (i = 0; i < DEFS; i++) {
        if (defs[i].build == build_decode || defs[i].build == build_prefill) {
            snprintf(name, sizeof(name), "%s %u, %u", defs[i].kind, defs[i].a,
                defs[i].b);
        } else {
            snprintf(name, sizeof(name), "%s M %u", defs[i].kind, defs[i].a);
        }
        for (yes = argc <= first, k = first; k < argc; k++) {
            yes |= strncmp(name, argv[k], strlen(argv[k])) == 0;
        }
        if (yes && row_fits(name, 4)) {
            measure(&defs[i], name, small);
        }
    }

    return 0;
}
