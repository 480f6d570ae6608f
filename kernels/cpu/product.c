/*
 * The op rows of products on the CPU.
 *
 * DESIGN.  A product is cut into tiles of CPU_TILE_M rows by CPU_TILE_N
 * outputs, which are the parts that the pool's threads take.  Products of one
 * x are one list of parts.  A gate's tile and what it lets through are one
 * part's, so that the activation finds both in the nearest cache.
 *
 * A weight is in panels where the instruction set has products over them
 * (panel.h), else as the file has it.  Panels of most types want activations as
 * numbers of a kind (cpu_acts_t): the rows of an op are made so once, before
 * the tiles, for each kind that one of its weights wants; where rows are few or
 * apart, each part makes its own in its scratch.  A row's numbers depend on the
 * row alone.
 *
 * Runs on the pool's threads; owns no memory; scratch is the device's or a
 * worker's.
 */
#include "product.h"

#include <assert.h>
#include <string.h>

/* The kind. */
static uint32_t
wanted(const kn_dev_t *dev, const kn_w_t *w)
{
    return w->panels ? dev->isa.panels->kind[w->type] : CPU_FLOATS;
}

uint32_t
cpu_acts_kinds(const kn_dev_t *dev, const kn_w_t *w)
{
    return 1u << wanted(dev, w);
}

void
cpu_acts_room(cpu_acts_t *x, uint32_t kinds, uint32_t rows, char *scratch)
{
    uint32_t b;
    size_t n = (size_t) rows * x->k;

    /* steps first, for their alignment */
    for (b = 1; b < CPU_KINDS; b++) {
        x->s[b] = NULL;
        if ((kinds >> b & 1) && cpu_in_steps(b)) {
            x->s[b] = (cpu_step_t *) (void *) scratch;
            scratch += n / CPU_STEP * sizeof(cpu_step_t);
        }
    }

    for (b = 1; b < CPU_KINDS; b++) {
        x->q[b] = kinds >> b & 1 ? scratch : NULL;
        scratch += (kinds >> b & 1) * n * cpu_number(b);
    }
}

/* The step of number `first` of all rows'; NULL where there are no steps. */
static cpu_step_t *
step_at(const cpu_acts_t *x, uint32_t b, size_t first)
{
    return x->s[b] != NULL ? x->s[b] + first / CPU_STEP : NULL;
}

void
cpu_acts_put(const kn_dev_t *dev, const cpu_acts_t *x, uint32_t i, uint32_t at,
    uint32_t n, const float *from)
{
    uint32_t b;
    size_t first = (size_t) i * x->k + at;

    for (b = 1; b < CPU_KINDS; b++) {
        if (x->q[b] != NULL) {
            assert(!cpu_in_steps(b) || (at | n) % CPU_STEP == 0);
            dev->isa.panels->numbers[b](
                x->q[b] + first * cpu_number(b), step_at(x, b, first), from, n);
        }
    }
}

/* Rows [from, to) of x. */
static void
acts_rows(const kn_dev_t *dev, const cpu_acts_t *x, uint32_t from, uint32_t to)
{
    uint32_t i;

    for (i = from; i < to; i++) {
        cpu_acts_put(dev, x, i, 0, x->k, x->x + i * x->ldx);
    }
}

/* Outputs without a bias and the like. */
static void
product(const kn_dev_t *dev, const kn_w_t *w, const cpu_acts_t *x,
    const cpu_out_t *o)
{
    cpu_mm_t mm;
    cpu_panels_t a;
    uint32_t b = wanted(dev, w);
    const float *rows = x->x != NULL ? x->x + o->i * x->ldx : NULL;
    size_t first = (size_t) o->i * x->k;

    assert(o->m <= CPU_TILE_M && o->n <= CPU_TILE_N);
    assert(x->k == w->k && o->n0 + o->n <= w->n);
    assert(b > 0 || rows != NULL);

    if (!w->panels) {
        mm = (cpu_mm_t){rows, w->data + o->n0 * w->stride, o->y, x->ldx, o->ldy,
            w->stride, o->m, o->n, w->k};
        dev->isa.matmul[w->type](&mm);
        return;
    }

    a = (cpu_panels_t){rows, x->ldx, NULL, NULL, w->data, w->stride, o->y,
        o->ldy, o->m, w->k, o->n0, o->n};

    if (b > 0) {
        assert(x->q[b] != NULL);
        a.q = x->q[b] + first * cpu_number(b);
        a.s = step_at(x, b, first);
    }

    dev->isa.panels->mm[w->type](&a);
}

void
cpu_product(const kn_dev_t *dev, const kn_product_t *p, const cpu_acts_t *x,
    const cpu_out_t *o)
{
    uint32_t i, c;
    float *y = o->y;
    const float *bias = HOST(const float, p->bias);

    product(dev, p->w, x, o);

    for (i = 0; i < o->m; i++, y += o->ldy) {
        for (c = 0; bias != NULL && c < o->n; c++) {
            y[c] += bias[o->n0 + c];
        }

        for (c = 0; p->scale != 1 && c < o->n; c++) {
            y[c] *= p->scale;
        }

        if (p->cap > 0) {
            dev->isa.soft_cap(y, o->n, 1, p->cap);
        }
    }
}

void
cpu_gated_product(const kn_dev_t *dev, const kn_gated_t *a, const cpu_acts_t *x,
    const cpu_out_t *o)
{
    uint32_t i;
    float up[CPU_TILE_M * CPU_TILE_N];
    kn_product_t p = {a->gate, a->gate_bias, {0}, 1, 0};
    cpu_out_t to = *o;

    cpu_product(dev, &p, x, o);
    p.w = a->up;
    p.bias = a->up_bias;
    to.y = up;
    to.ldy = CPU_TILE_N;
    cpu_product(dev, &p, x, &to);

    for (i = 0; i < o->m; i++) {
        dev->isa.act_mul[a->act](
            o->y + i * o->ldy, up + i * CPU_TILE_N, o->n, a->limit);
    }
}

/* What the parts of an op share. */
typedef struct {
    kn_dev_t *dev;
    const void *a;
    cpu_acts_t x;
    uint32_t m;
} acts_job_t;

static void
acts_part(void *arg, uint32_t part, uint32_t worker)
{
    const acts_job_t *j = arg;

    (void) worker;
    acts_rows(
        j->dev, &j->x, part * ROWS_PART, min_u32(j->m, (part + 1) * ROWS_PART));
}

/* An op's rows, x [m, k], and numbers of them where some are wanted. */
static acts_job_t
acts_job(kn_dev_t *dev, const void *a, kn_ptr_t x, uint32_t k, uint32_t m,
    uint32_t kinds)
{
    acts_job_t j = {dev, a, {.x = HOST(const float, x), .ldx = k, .k = k}, m};

    if (kinds > 1) {
        assert(cpu_numbers(m, k) <= dev->numbers_size);
        cpu_acts_room(&j.x, kinds, m, dev->numbers);
        cpu_run(dev, parts_of(m, ROWS_PART), (uint64_t) m * k * ACTS_COST,
            acts_part, &j);
    }

    return j;
}

/*
 * Tile number part of a product of m rows and w's outputs.  Numbers run over
 * the tiles of rows first: neighbours share weights.
 */
static cpu_out_t
tile(uint32_t part, uint32_t m, const kn_w_t *w, kn_ptr_t y)
{
    uint32_t tiles = parts_of(m, CPU_TILE_M);
    cpu_out_t o;

    o.i = part % tiles * CPU_TILE_M;
    o.m = min_u32(CPU_TILE_M, m - o.i);
    o.n0 = part / tiles * CPU_TILE_N;
    o.n = min_u32(CPU_TILE_N, w->n - o.n0);
    o.y = HOST(float, y) + (size_t) o.i * w->n + o.n0;
    o.ldy = w->n;

    return o;
}

static uint32_t
tiles_of(uint32_t m, const kn_w_t *w)
{
    return parts_of(m, CPU_TILE_M) * parts_of(w->n, CPU_TILE_N);
}

/* Part numbers run over the products. */
static void
matmul_part(void *arg, uint32_t part, uint32_t worker)
{
    const acts_job_t *j = arg;
    const kn_matmul_t *a = j->a;
    const kn_product_t *p = a->of;
    cpu_out_t o;

    (void) worker;

    for (; part >= tiles_of(j->m, p->w); p++) {
        part -= tiles_of(j->m, p->w);
    }

    assert(p < a->of + a->n);
    o = tile(part, j->m, p->w, p->y);
    cpu_product(j->dev, p, &j->x, &o);
}

void
cpu_matmul(kn_dev_t *dev, const kn_matmul_t *a)
{
    uint32_t i, kinds = 0, parts = 0, k = a->of[0].w->k;
    uint32_t m = rows_of(dev, a->rows);
    uint64_t outs = 0;
    acts_job_t j;

    assert(a->n > 0 && a->n <= KN_PRODUCTS_MAX);

    for (i = 0; i < a->n; i++) {
        assert(a->of[i].w->k == k && a->of[i].y.a != a->x.a);
        kinds |= cpu_acts_kinds(dev, a->of[i].w);
        parts += tiles_of(m, a->of[i].w);
        outs += a->of[i].w->n;
    }

    j = acts_job(dev, a, a->x, k, m, kinds);
    cpu_run(dev, parts, m * outs * k, matmul_part, &j);
}

static void
gated_part(void *arg, uint32_t part, uint32_t worker)
{
    const acts_job_t *j = arg;
    const kn_gated_t *a = j->a;
    cpu_out_t o = tile(part, j->m, a->gate, a->y);

    (void) worker;
    cpu_gated_product(j->dev, a, &j->x, &o);
}

void
cpu_gated(kn_dev_t *dev, const kn_gated_t *a)
{
    uint32_t m = rows_of(dev, a->rows), n = a->gate->n, k = a->gate->k;
    acts_job_t j;

    assert(a->act < KN_ACTS && a->y.a != a->x.a);
    assert(a->up->n == n && a->up->k == k);
    j = acts_job(dev, a, a->x, k, m,
        cpu_acts_kinds(dev, a->gate) | cpu_acts_kinds(dev, a->up));
    cpu_run(
        dev, tiles_of(m, a->gate), 2 * (uint64_t) m * n * k, gated_part, &j);
}

/* Part numbers run over the tiles of m first, then over those of a head. */
static void
headmul_part(void *arg, uint32_t part, uint32_t worker)
{
    const job_t *j = arg;
    const kn_headmul_t *a = j->a;
    uint32_t h, c, tiles = parts_of(j->m, CPU_TILE_M);
    uint32_t k = a->w->k, each = a->w->n / a->heads;
    uint32_t kinds = cpu_acts_kinds(j->dev, a->w);
    size_t ldx = (size_t) a->heads * (k + a->rest);
    size_t i = part % tiles * CPU_TILE_M;
    cpu_acts_t x = {.ldx = ldx, .k = k};
    cpu_out_t o = {.ldy = (size_t) a->heads * (a->rest + each)};
    float *y;

    o.m = min_u32(CPU_TILE_M, j->m - (uint32_t) i);
    part /= tiles;
    h = part / parts_of(each, CPU_TILE_N);
    o.n0 = part % parts_of(each, CPU_TILE_N) * CPU_TILE_N;
    o.n = min_u32(CPU_TILE_N, each - o.n0);
    y = HOST(float, a->y) + i * o.ldy + h * (a->rest + each);
    o.y = y + a->rest + o.n0;

    for (c = 0; o.n0 == 0 && a->rest > 0 && c < o.m; c++) {
        memcpy(y + c * o.ldy,
            HOST(const float, a->x) + (i + c) * ldx + h * (k + a->rest) + k,
            a->rest * sizeof(*y));
    }

    assert(kinds == 1 || cpu_numbers(o.m, k) <= j->dev->work_size);
    x.x = HOST(const float, a->x) + i * ldx + h * (k + a->rest);
    cpu_acts_room(&x, kinds, o.m, j->dev->work + worker * j->dev->work_size);
    acts_rows(j->dev, &x, 0, o.m);
    o.n0 += h * each;
    product(j->dev, a->w, &x, &o);
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
