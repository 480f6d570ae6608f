/*
 * The op rows of matrices on the CPU.
 *
 * DESIGN.  A product is cut into tiles of CPU_TILE_M rows by CPU_TILE_N
 * outputs, which are the parts that the pool's threads take.
 *
 * Runs on the pool's threads; owns no memory; scratch is on the stack.
 */
#include "job.h"

#include <assert.h>
#include <string.h>

/* What becomes of a tile's products; outputs [n, n + mm->n) of a. */
static void
matmul_finish(
    const kn_dev_t *dev, const kn_matmul_t *a, const cpu_mm_t *mm, uint32_t n)
{
    uint32_t i, c;
    float *y;
    const float *bias = HOST(const float, a->bias);

    for (i = 0; i < mm->m; i++) {
        y = mm->y + i * mm->ldy;

        for (c = 0; bias != NULL && c < mm->n; c++) {
            y[c] += bias[n + c];
        }

        for (c = 0; a->scale != 1 && c < mm->n; c++) {
            y[c] *= a->scale;
        }

        if (a->cap > 0) {
            dev->isa.soft_cap(y, mm->n, 1, a->cap);
        }
    }
}

/* Part numbers run over the tiles of m first: neighbours share weights. */
static void
matmul_part(void *arg, uint32_t part, uint32_t worker)
{
    const job_t *j = arg;
    const kn_matmul_t *a = j->a;
    uint32_t i, n, tiles_m;
    cpu_mm_t mm;

    (void) worker;
    tiles_m = parts_of(j->m, CPU_TILE_M);
    i = part % tiles_m * CPU_TILE_M;
    n = part / tiles_m * CPU_TILE_N;

    mm.x = HOST(const float, a->x) + (size_t) i * a->w->k;
    mm.y = HOST(float, a->y) + (size_t) i * a->w->n + n;
    mm.w = a->w->data + n * a->w->stride;
    mm.ldx = a->w->k;
    mm.ldy = a->w->n;
    mm.stride = a->w->stride;
    mm.m = min_u32(CPU_TILE_M, j->m - i);
    mm.n = min_u32(CPU_TILE_N, a->w->n - n);
    mm.k = a->w->k;

    j->dev->isa.matmul[a->w->type](&mm);

    if (a->bias.a != 0 || a->scale != 1 || a->cap > 0) {
        matmul_finish(j->dev, a, &mm, n);
    }
}

void
cpu_matmul(kn_dev_t *dev, const kn_matmul_t *a)
{
    job_t j = {dev, a, rows_of(dev, a->rows)};

    cpu_run(dev, parts_of(j.m, CPU_TILE_M) * parts_of(a->w->n, CPU_TILE_N),
        (uint64_t) j.m * a->w->n * a->w->k, matmul_part, &j);
}

/* Part numbers run over the tiles of m first, then over those of a head. */
static void
headmul_part(void *arg, uint32_t part, uint32_t worker)
{
    const job_t *j = arg;
    const kn_headmul_t *a = j->a;
    uint32_t i, h, c, n, tiles, each = a->w->n / a->heads;
    const float *x;
    float *y;
    cpu_mm_t mm;

    (void) worker;
    tiles = parts_of(j->m, CPU_TILE_M);
    i = part % tiles * CPU_TILE_M;
    part /= tiles;
    h = part / parts_of(each, CPU_TILE_N);
    n = part % parts_of(each, CPU_TILE_N) * CPU_TILE_N;

    mm.k = a->w->k;
    mm.ldx = (size_t) a->heads * (mm.k + a->rest);
    mm.ldy = (size_t) a->heads * (a->rest + each);
    x = HOST(const float, a->x) + i * mm.ldx + h * (mm.k + a->rest);
    y = HOST(float, a->y) + i * mm.ldy + h * (a->rest + each);
    mm.x = x;
    mm.y = y + a->rest + n;
    mm.w = a->w->data + ((size_t) h * each + n) * a->w->stride;
    mm.stride = a->w->stride;
    mm.m = min_u32(CPU_TILE_M, j->m - i);
    mm.n = min_u32(CPU_TILE_N, each - n);
    j->dev->isa.matmul[a->w->type](&mm);

    for (c = 0; n == 0 && a->rest > 0 && c < mm.m; c++) {
        memcpy(y + c * mm.ldy, x + c * mm.ldx + mm.k, a->rest * sizeof(*y));
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
 * Outputs [n, n + CPU_TILE_N) of x by w, expert e's, whose bias is in biases
 * [experts, w->n] or is none; how many there are.
 */
static uint32_t
expert_tile(const kn_dev_t *dev, const kn_w_t *w, kn_ptr_t biases, uint32_t e,
    const float *x, uint32_t n, float *y)
{
    uint32_t i;
    cpu_mm_t mm;
    const float *bias = HOST(const float, biases);

    mm.x = x;
    mm.y = y;
    mm.w = w->data + n * w->stride;
    mm.ldx = mm.k = w->k;
    mm.ldy = CPU_TILE_N;
    mm.stride = w->stride;
    mm.m = 1;
    mm.n = min_u32(CPU_TILE_N, w->n - n);
    dev->isa.matmul[w->type](&mm);

    for (i = 0; bias != NULL && i < mm.n; i++) {
        y[i] += bias[(size_t) e * w->n + n + i];
    }

    return mm.n;
}

/* A part is a token's expert and a tile of its gate. */
static void
moe_mid_part(void *arg, uint32_t part, uint32_t worker)
{
    const job_t *j = arg;
    const kn_moe_ffn_t *a = j->a;
    uint32_t tiles, row, n, count, e;
    const float *x;
    float *gate, up[CPU_TILE_N];

    (void) worker;
    tiles = parts_of(a->ffn, CPU_TILE_N);
    row = part / tiles;
    n = part % tiles * CPU_TILE_N;
    e = HOST(const uint32_t, a->ids)[row];
    assert(e < a->experts);
    x = HOST(const float, a->x) + (size_t) (row / a->used) * a->dim;
    gate = HOST(float, a->mid) + (size_t) row * a->ffn + n;

    expert_tile(j->dev, a->gate[e], a->gate_bias, e, x, n, gate);
    count = expert_tile(j->dev, a->up[e], a->up_bias, e, x, n, up);
    j->dev->isa.act_mul[a->act](gate, up, count, a->limit);
}

/* A part is a token and a tile of its output. */
static void
moe_out_part(void *arg, uint32_t part, uint32_t worker)
{
    const job_t *j = arg;
    const kn_moe_ffn_t *a = j->a;
    uint32_t tiles, t, n, i, c, count, e;
    size_t row;
    float *y, out[CPU_TILE_N], weight;

    (void) worker;
    tiles = parts_of(a->dim, CPU_TILE_N);
    t = part / tiles;
    n = part % tiles * CPU_TILE_N;
    y = HOST(float, a->y) + (size_t) t * a->dim + n;

    for (i = 0; i < a->used; i++) {
        row = (size_t) t * a->used + i;
        e = HOST(const uint32_t, a->ids)[row];
        weight = HOST(const float, a->weights)[row];
        count = expert_tile(j->dev, a->down[e], a->down_bias, e,
            HOST(const float, a->mid) + row * a->ffn, n, out);

        for (c = 0; c < count; c++) {
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
