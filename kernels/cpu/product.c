/*
 * The op rows of matrices on the CPU.
 *
 * DESIGN.  A product is cut into tiles of CPU_TILE_M rows by CPU_TILE_N
 * outputs, which are the parts that the pool's threads take.
 *
 * A weight is in panels where the instruction set has products over them
 * (panel.h), else as the file has it.  Panels of most types want activations as
 * whole numbers (cpu_acts_t): the rows of a matmul are made so once, before the
 * tiles; where rows are few or apart, each part makes its own in its scratch.
 * A row's numbers depend on the row alone.
 *
 * Runs on the pool's threads; owns no memory; scratch is the device's or a
 * worker's.
 */
#include "job.h"
#include "panel.h"

#include <assert.h>
#include <string.h>

/* Rows of activations: floats, and the numbers that some weights want. */
typedef struct {
    const float *x; /* row i at x + i * ldx */
    size_t ldx;
    uint32_t k;
    uint32_t bytes; /* of a number; 0: there are none */
    char *q;        /* [rows, k] */
    cpu_step_t *s;  /* [rows, k / CPU_STEP] */
} cpu_acts_t;

/* What w wants its activations to be: bytes of a number, 0 for floats. */
static uint32_t
wanted(const kn_dev_t *dev, const kn_w_t *w)
{
    return w->panels ? dev->isa.panels->bytes[w->type] : 0;
}

/* Room for so many rows of numbers, from scratch on. */
static void
acts_room(cpu_acts_t *x, uint32_t bytes, uint32_t rows, char *scratch)
{
    size_t n = (size_t) rows * x->k;

    x->bytes = bytes;
    x->s = (cpu_step_t *) (void *) scratch;
    x->q = scratch + n / CPU_STEP * sizeof(*x->s);
}

static void
acts_row(const kn_dev_t *dev, const cpu_acts_t *x, uint32_t i)
{
    dev->isa.panels->whole[x->bytes](x->q + (size_t) i * x->k * x->bytes,
        x->s + (size_t) i * (x->k / CPU_STEP), x->x + i * x->ldx, x->k);
}

/* Rows that a part makes for itself. */
static void
acts_here(const kn_dev_t *dev, cpu_acts_t *x, const kn_w_t *w, uint32_t m,
    uint32_t worker)
{
    uint32_t i, bytes = wanted(dev, w);

    if (bytes == 0) {
        x->bytes = 0;
        return;
    }

    assert(cpu_numbers(m, x->k) <= dev->work_size);
    acts_room(x, bytes, m, dev->work + worker * dev->work_size);
    for (i = 0; i < m; i++) {
        acts_row(dev, x, i);
    }
}

/*
 * Rows [i, i + m) of x by outputs [n0, n0 + n) of w, to y, whose row is those
 * of i; m is at most CPU_TILE_M, n at most CPU_TILE_N.
 */
static void
product(const kn_dev_t *dev, const kn_w_t *w, const cpu_acts_t *x, uint32_t i,
    uint32_t m, uint32_t n0, uint32_t n, float *y, size_t ldy)
{
    cpu_mm_t mm;
    cpu_panels_t a;
    const float *rows = x->x + i * x->ldx;

    assert(m <= CPU_TILE_M && n <= CPU_TILE_N && n0 + n <= w->n);
    assert(x->k == w->k && x->bytes == wanted(dev, w));

    if (!w->panels) {
        mm = (cpu_mm_t){rows, w->data + n0 * w->stride, y, x->ldx, ldy,
            w->stride, m, n, w->k};
        dev->isa.matmul[w->type](&mm);
        return;
    }

    a = (cpu_panels_t){
        rows, x->ldx, NULL, NULL, w->data, w->stride, y, ldy, m, w->k, n0, n};
    if (x->bytes > 0) {
        a.q = x->q + (size_t) i * x->k * x->bytes;
        a.s = x->s + (size_t) i * (x->k / CPU_STEP);
    }
    dev->isa.panels->mm[w->type](&a);
}

/* What becomes of m rows of a tile; its outputs are [n0, n0 + n) of a. */
static void
matmul_finish(const kn_dev_t *dev, const kn_matmul_t *a, uint32_t m,
    uint32_t n0, uint32_t n, float *y)
{
    uint32_t i, c;
    const float *bias = HOST(const float, a->bias);

    for (i = 0; i < m; i++, y += a->w->n) {
        for (c = 0; bias != NULL && c < n; c++) {
            y[c] += bias[n0 + c];
        }

        for (c = 0; a->scale != 1 && c < n; c++) {
            y[c] *= a->scale;
        }

        if (a->cap > 0) {
            dev->isa.soft_cap(y, n, 1, a->cap);
        }
    }
}

typedef struct {
    kn_dev_t *dev;
    const kn_matmul_t *a;
    cpu_acts_t x;
    uint32_t m;
} matmul_job_t;

static void
matmul_acts_part(void *arg, uint32_t part, uint32_t worker)
{
    const matmul_job_t *j = arg;
    uint32_t i, end = min_u32(j->m, (part + 1) * ROWS_PART);

    (void) worker;
    for (i = part * ROWS_PART; i < end; i++) {
        acts_row(j->dev, &j->x, i);
    }
}

/* Part numbers run over the tiles of m first: neighbours share weights. */
static void
matmul_part(void *arg, uint32_t part, uint32_t worker)
{
    const matmul_job_t *j = arg;
    const kn_matmul_t *a = j->a;
    uint32_t i, m, n0, n, tiles_m = parts_of(j->m, CPU_TILE_M);
    float *y;

    (void) worker;
    i = part % tiles_m * CPU_TILE_M;
    m = min_u32(CPU_TILE_M, j->m - i);
    n0 = part / tiles_m * CPU_TILE_N;
    n = min_u32(CPU_TILE_N, a->w->n - n0);
    y = HOST(float, a->y) + (size_t) i * a->w->n + n0;
    product(j->dev, a->w, &j->x, i, m, n0, n, y, a->w->n);

    if (a->bias.a != 0 || a->scale != 1 || a->cap > 0) {
        matmul_finish(j->dev, a, m, n0, n, y);
    }
}

void
cpu_matmul(kn_dev_t *dev, const kn_matmul_t *a)
{
    matmul_job_t j = {dev, a,
        {HOST(const float, a->x), a->w->k, a->w->k, 0, NULL, NULL},
        rows_of(dev, a->rows)};
    uint32_t bytes = wanted(dev, a->w);

    if (bytes > 0) {
        assert(cpu_numbers(j.m, a->w->k) <= dev->numbers_size);
        acts_room(&j.x, bytes, j.m, dev->numbers);
        cpu_run(dev, parts_of(j.m, ROWS_PART), (uint64_t) j.m * a->w->k,
            matmul_acts_part, &j);
    }

    cpu_run(dev, parts_of(j.m, CPU_TILE_M) * parts_of(a->w->n, CPU_TILE_N),
        (uint64_t) j.m * a->w->n * a->w->k, matmul_part, &j);
}

/* Part numbers run over the tiles of m first, then over those of a head. */
static void
headmul_part(void *arg, uint32_t part, uint32_t worker)
{
    const job_t *j = arg;
    const kn_headmul_t *a = j->a;
    uint32_t i, h, c, m, n0, n, tiles, k = a->w->k, each = a->w->n / a->heads;
    size_t ldx = (size_t) a->heads * (k + a->rest);
    size_t ldy = (size_t) a->heads * (a->rest + each);
    cpu_acts_t x;
    float *y;

    tiles = parts_of(j->m, CPU_TILE_M);
    i = part % tiles * CPU_TILE_M;
    m = min_u32(CPU_TILE_M, j->m - i);
    part /= tiles;
    h = part / parts_of(each, CPU_TILE_N);
    n0 = part % parts_of(each, CPU_TILE_N) * CPU_TILE_N;
    n = min_u32(CPU_TILE_N, each - n0);

    x.x = HOST(const float, a->x) + i * ldx + h * (k + a->rest);
    x.ldx = ldx;
    x.k = k;
    acts_here(j->dev, &x, a->w, m, worker);
    y = HOST(float, a->y) + i * ldy + h * (a->rest + each);
    product(j->dev, a->w, &x, 0, m, h * each + n0, n, y + a->rest + n0, ldy);

    for (c = 0; n0 == 0 && a->rest > 0 && c < m; c++) {
        memcpy(y + c * ldy, x.x + c * ldx + k, a->rest * sizeof(*y));
    }
}

void
cpu_headmul(kn_dev_t *dev, const kn_headmul_t *a)
{
    job_t j = {dev, a, rows_of(dev, a->rows)};

    assert(a->heads > 0 && a->w->n % a->heads == 0 && a->x.a != a->y.a);
    cpu_run(dev,
        parts_of(j.m, CPU_TILE_M) * a->heads
            * parts_of(a->w->n / a->heads, CPU_TILE_N),
        (uint64_t) j.m * a->w->n * a->w->k, headmul_part, &j);
}

/*
 * Outputs [n0, n0 + CPU_TILE_N) of x by w, expert e's, whose bias is in biases
 * [experts, w->n] or is none; how many there are.
 */
static uint32_t
expert_tile(const kn_dev_t *dev, const kn_w_t *w, kn_ptr_t biases, uint32_t e,
    const cpu_acts_t *x, uint32_t n0, float *y)
{
    uint32_t i, n = min_u32(CPU_TILE_N, w->n - n0);
    const float *bias = HOST(const float, biases);

    product(dev, w, x, 0, 1, n0, n, y, CPU_TILE_N);
    for (i = 0; bias != NULL && i < n; i++) {
        y[i] += bias[(size_t) e * w->n + n0 + i];
    }

    return n;
}

/* A part is a token's expert and a tile of its gate. */
static void
moe_mid_part(void *arg, uint32_t part, uint32_t worker)
{
    const job_t *j = arg;
    const kn_moe_ffn_t *a = j->a;
    uint32_t tiles, row, n0, n, e;
    float *gate, up[CPU_TILE_N];
    cpu_acts_t x;

    tiles = parts_of(a->ffn, CPU_TILE_N);
    row = part / tiles;
    n0 = part % tiles * CPU_TILE_N;
    e = HOST(const uint32_t, a->ids)[row];
    assert(e < a->experts);
    x.x = HOST(const float, a->x) + (size_t) (row / a->used) * a->dim;
    x.ldx = x.k = a->dim;
    gate = HOST(float, a->mid) + (size_t) row * a->ffn + n0;

    acts_here(j->dev, &x, a->gate[e], 1, worker);
    expert_tile(j->dev, a->gate[e], a->gate_bias, e, &x, n0, gate);
    if (wanted(j->dev, a->up[e]) != x.bytes) {
        acts_here(j->dev, &x, a->up[e], 1, worker);
    }
    n = expert_tile(j->dev, a->up[e], a->up_bias, e, &x, n0, up);
    j->dev->isa.act_mul[a->act](gate, up, n, a->limit);
}

/* A part is a token and a tile of its output. */
static void
moe_out_part(void *arg, uint32_t part, uint32_t worker)
{
    const job_t *j = arg;
    const kn_moe_ffn_t *a = j->a;
    uint32_t tiles, t, n0, n, i, c, e;
    size_t row;
    float *y, out[CPU_TILE_N], weight;
    cpu_acts_t x;

    tiles = parts_of(a->dim, CPU_TILE_N);
    t = part / tiles;
    n0 = part % tiles * CPU_TILE_N;
    y = HOST(float, a->y) + (size_t) t * a->dim + n0;
    x.ldx = x.k = a->ffn;

    for (i = 0; i < a->used; i++) {
        row = (size_t) t * a->used + i;
        e = HOST(const uint32_t, a->ids)[row];
        weight = HOST(const float, a->weights)[row];
        x.x = HOST(const float, a->mid) + row * a->ffn;
        acts_here(j->dev, &x, a->down[e], 1, worker);
        n = expert_tile(j->dev, a->down[e], a->down_bias, e, &x, n0, out);

        for (c = 0; c < n; c++) {
            y[c] = (i > 0 ? y[c] : 0) + weight * out[c];
        }
    }
}

void
cpu_moe_ffn(kn_dev_t *dev, const kn_moe_ffn_t *a)
{
    job_t j = {dev, a, rows_of(dev, a->rows)};
    uint64_t cost = (uint64_t) j.m * a->used * a->dim * a->ffn;

    assert(a->act < KN_ACTS && a->used > 0);
    cpu_run(dev, j.m * a->used * parts_of(a->ffn, CPU_TILE_N), 2 * cost,
        moe_mid_part, &j);
    cpu_run(dev, j.m * parts_of(a->dim, CPU_TILE_N), cost, moe_out_part, &j);
}
