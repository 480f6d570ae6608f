/*
 * The experts' feed-forward on the CPU.
 *
 * DESIGN.  A pair is a token and one of its experts.  Pairs are sorted by
 * expert, so that those of an expert stand in a row, a run, and its matrices
 * are read once a step, by tiles of its tokens:
 *
 *      x, a row for each pair, floats or numbers as the matrices want
 *      a part: a run, and a tile of its gate's outputs     -> mid [pairs, ffn]
 *      a part: a tile of outputs of all runs, then their sums         -> y
 *
 * The first part makes numbers of its tile of mid at once.  The second
 * has all that it adds in its own scratch, and adds by token: in the order of
 * the token's experts, so who else is in the step changes nothing.
 *
 * Where tokens share no expert, as with one token, a run is a pair.
 *
 * Runs on the pool's threads; owns no memory; scratch is the device's or a
 * worker's.
 */
#include "panel.h"
#include "product.h"

#include <assert.h>
#include <string.h>

/* An expert's pairs: those from number `from` on. */
typedef struct {
    uint32_t expert;
    uint32_t from, n;
} run_t;

typedef struct {
    kn_dev_t *dev;
    const kn_moe_ffn_t *a;
    uint32_t m, pairs;
    const uint32_t *places; /* [m, used] the number of a token's pair */
    cpu_acts_t x, mid;      /* [pairs, dim], [pairs, ffn] */
    float *rows;            /* x.x; NULL: nobody wants floats */
    uint32_t width;         /* of a tile of outputs */
    uint32_t runs_n;
    run_t runs[KN_EXPERTS_MAX];
} moe_t;

/* Runs and places, by counting. */
static void
sort(moe_t *j, uint32_t *places)
{
    uint32_t i, e, at, n[KN_EXPERTS_MAX] = {0};
    const kn_moe_ffn_t *a = j->a;
    const uint32_t *ids = HOST(const uint32_t, a->ids);

    for (i = 0; i < j->pairs; i++) {
        assert(ids[i] < a->experts);
        n[ids[i]]++;
    }

    for (at = 0, e = 0; e < a->experts; e++) {
        if (n[e] > 0) {
            j->runs[j->runs_n++] = (run_t){e, at, n[e]};
            at += n[e];
            n[e] = at - n[e]; /* where the next of e goes */
        }
    }

    assert(at == j->pairs);

    for (i = 0; i < j->pairs; i++) {
        places[i] = n[ids[i]]++;
    }

    j->places = places;
}

/* The next n bytes from *at on, and *at behind them. */
static char *
take(char **at, size_t n)
{
    char *from = *at;

    *at += (n + 63) & ~(size_t) 63;

    return from;
}

/* Rooms for x and mid, as the runs' experts want them. */
static void
rooms(moe_t *j)
{
    uint32_t i, e, ins = 0, mids = 0;
    const kn_moe_ffn_t *a = j->a;
    char *at = j->dev->pairs;

    for (i = 0; i < j->runs_n; i++) {
        e = j->runs[i].expert;
        ins |= cpu_acts_kinds(j->dev, a->gate[e]);
        ins |= cpu_acts_kinds(j->dev, a->up[e]);
        mids |= cpu_acts_kinds(j->dev, a->down[e]);
    }

    j->x.k = j->x.ldx = a->dim;
    j->mid.k = j->mid.ldx = a->ffn;
    j->mid.x = HOST(const float, a->mid);

    if ((ins & 1) != 0) {
        j->rows = (float *) (void *) take(
            &at, (size_t) j->pairs * a->dim * sizeof(float));
        j->x.x = j->rows;
    }

    cpu_acts_room(
        &j->x, ins, j->pairs, take(&at, cpu_numbers(j->pairs, a->dim)));
    cpu_acts_room(
        &j->mid, mids, j->pairs, take(&at, cpu_numbers(j->pairs, a->ffn)));
    assert(at <= j->dev->pairs + j->dev->pairs_size);
}

/* Row `to` of x becomes what row `from` is. */
static void
copy_row(const cpu_acts_t *x, uint32_t to, uint32_t from)
{
    uint32_t b;
    size_t steps = x->k / CPU_STEP, n;

    for (b = 1; b < CPU_KINDS; b++) {
        n = (size_t) x->k * cpu_number(b);
        if (x->q[b] != NULL) {
            memcpy(x->q[b] + to * n, x->q[b] + from * n, n);
        }
        if (x->s[b] != NULL) {
            memcpy(x->s[b] + to * steps, x->s[b] + from * steps,
                steps * sizeof(cpu_step_t));
        }
    }
}

/* A part is ROWS_PART tokens: a row for each of their pairs. */
static void
rows_part(void *arg, uint32_t part, uint32_t worker)
{
    const moe_t *j = arg;
    uint32_t t, i, end, dim = j->a->dim;
    const uint32_t *places;
    const float *from;

    (void) worker;
    end = min_u32(j->m, (part + 1) * ROWS_PART);

    for (t = part * ROWS_PART; t < end; t++) {
        from = HOST(const float, j->a->x) + (size_t) t * dim;
        places = j->places + (size_t) t * j->a->used;
        cpu_acts_put(j->dev, &j->x, places[0], 0, dim, from);

        for (i = 1; i < j->a->used; i++) {
            copy_row(&j->x, places[i], places[0]);
        }

        for (i = 0; j->rows != NULL && i < j->a->used; i++) {
            memcpy(
                j->rows + (size_t) places[i] * dim, from, dim * sizeof(*from));
        }
    }
}

/* n floats of a bias, or null: those of expert e. */
static kn_ptr_t
bias_of(kn_ptr_t biases, uint32_t e, uint32_t n)
{
    return biases.a == 0 ? biases
                         : kn_at(biases, (uint64_t) e * n * sizeof(float));
}

/* A part is a run and a tile of its gate. */
static void
mid_part(void *arg, uint32_t part, uint32_t worker)
{
    const moe_t *j = arg;
    const kn_moe_ffn_t *a = j->a;
    uint32_t i, tiles = parts_of(a->ffn, CPU_TILE_N);
    const run_t *run = &j->runs[part / tiles];
    uint32_t e = run->expert, end = run->from + run->n;
    kn_gated_t gated = {.gate = a->gate[e],
        .up = a->up[e],
        .gate_bias = bias_of(a->gate_bias, e, a->ffn),
        .up_bias = bias_of(a->up_bias, e, a->ffn),
        .act = a->act,
        .limit = a->limit};
    cpu_out_t o = {.n0 = part % tiles * CPU_TILE_N, .ldy = a->ffn};

    (void) worker;
    o.n = min_u32(CPU_TILE_N, a->ffn - o.n0);

    for (o.i = run->from; o.i < end; o.i += o.m) {
        o.m = min_u32(CPU_TILE_M, end - o.i);
        o.y = HOST(float, a->mid) + (size_t) o.i * a->ffn + o.n0;
        cpu_gated_product(j->dev, &gated, &j->x, &o);

        for (i = 0; i < o.m; i++) {
            cpu_acts_put(j->dev, &j->mid, o.i + i, o.n0, o.n, o.y + i * a->ffn);
        }
    }
}

/* y [n], of a token, from its pairs' rows, width apart. */
static void
sum_token(const moe_t *j, uint32_t t, const float *rows, uint32_t n, float *y)
{
    uint32_t i, c;
    size_t pair = (size_t) t * j->a->used;
    const float *row, *weights = HOST(const float, j->a->weights) + pair;

    for (i = 0; i < j->a->used; i++) {
        row = rows + (size_t) j->places[pair + i] * j->width;

        for (c = 0; c < n; c++) {
            y[c] = (i > 0 ? y[c] : 0) + weights[i] * row[c];
        }
    }
}

/* A part is a tile of outputs. */
static void
out_part(void *arg, uint32_t part, uint32_t worker)
{
    const moe_t *j = arg;
    const kn_moe_ffn_t *a = j->a;
    uint32_t t, end;
    float *rows =
        (float *) (void *) (j->dev->work + worker * j->dev->work_size);
    kn_product_t down = {.scale = 1};
    cpu_out_t o = {.n0 = part * j->width, .ldy = j->width};
    const run_t *run;

    assert((size_t) j->pairs * j->width * sizeof(*rows) <= j->dev->work_size);
    o.n = min_u32(j->width, a->dim - o.n0);

    for (run = j->runs; run < j->runs + j->runs_n; run++) {
        down.w = a->down[run->expert];
        down.bias = bias_of(a->down_bias, run->expert, a->dim);
        end = run->from + run->n;

        for (o.i = run->from; o.i < end; o.i += o.m) {
            o.m = min_u32(CPU_TILE_M, end - o.i);
            o.y = rows + (size_t) o.i * j->width;
            cpu_product(j->dev, &down, &j->mid, &o);
        }
    }

    for (t = 0; t < j->m; t++) {
        sum_token(
            j, t, rows, o.n, HOST(float, a->y) + (size_t) t * a->dim + o.n0);
    }
}

/* How wide a tile is, so that each thread has some. */
static uint32_t
width_of(const kn_dev_t *dev, uint32_t n)
{
    uint32_t width = CPU_TILE_N;

    while (width > PANEL && parts_of(n, width) < 4 * dev->threads) {
        width /= 2;
    }

    return width;
}

void
cpu_moe_ffn(kn_dev_t *dev, const kn_moe_ffn_t *a)
{
    moe_t j = {.dev = dev, .a = a};
    uint64_t cost;

    j.m = rows_of(dev, a->rows);
    j.pairs = j.m * a->used;
    cost = (uint64_t) j.pairs * a->dim * a->ffn;

    assert(a->act < KN_ACTS && a->used > 0 && a->used <= dev->limits.used);
    assert(a->experts <= KN_EXPERTS_MAX);
    sort(&j, dev->places);
    rooms(&j);
    j.width = width_of(dev, a->dim);

    cpu_run(dev, parts_of(j.m, ROWS_PART),
        (uint64_t) j.m * a->dim * (ACTS_COST + a->used), rows_part, &j);
    cpu_run(
        dev, j.runs_n * parts_of(a->ffn, CPU_TILE_N), 2 * cost, mid_part, &j);
    cpu_run(dev, parts_of(a->dim, j.width), cost, out_part, &j);
}
