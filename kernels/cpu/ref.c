/*
 * The op rows of vectors on the CPU, and the reference instruction set: plain
 * C.
 *
 * DESIGN.  A row splits its work into parts (rows, tiles, token and head) and
 * hands them to the pool.  A part computes whole outputs, and in an order that
 * does not depend on the split, so threads never change a bit.  The inner
 * loops are the small functions of dev->isa; those below, cpu_ref, are what
 * the others are tested against.  They add in eight lanes of F64 and join them
 * in order: exact enough to judge F32 by, and the compiler can still use two
 * lanes at a time.
 *
 * Runs on the pool's threads; owns no memory; scratch is on the stack.
 */
#include "job.h"
#include "panel.h"

#include "../dequant.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define LANES 8

/* The reference functions */

static float
join_lanes(const double *s)
{
    return (float) (((s[0] + s[4]) + (s[1] + s[5]))
                    + ((s[2] + s[6]) + (s[3] + s[7])));
}

/* lanes += a . b; a block of n is added lane by lane from lane 0 */
static void
add_dot(double *lanes, const float *a, const float *b, uint32_t n)
{
    uint32_t i, j;

    for (i = 0; i + LANES <= n; i += LANES) {
        for (j = 0; j < LANES; j++) {
            lanes[j] += (double) a[i + j] * b[i + j];
        }
    }

    for (j = 0; i < n; i++, j++) {
        lanes[j] += (double) a[i] * b[i];
    }
}

#define X(name, elems, bytes)                                                  \
    static void row_##name(float *dst, const void *src, uint32_t n)            \
    {                                                                          \
        uint32_t i;                                                            \
        const uint8_t *p = src;                                                \
                                                                               \
        assert(n % (elems) == 0);                                              \
                                                                               \
        for (i = 0; i < n; i += (elems), p += (bytes)) {                       \
            dequant_##name(dst + i, p);                                        \
        }                                                                      \
    }
KN_TYPE_LIST(X)
#undef X

/*
 * The product over any type: pieces of a weight row are dequantised and met
 * with every row of x.  A piece is a multiple of all blocks and of LANES, so
 * it leaves no trace in the order.
 */
#define PIECE 256

static void
matmul_ref(const cpu_mm_t *a, uint32_t block, uint32_t bytes,
    void (*row)(float *, const void *, uint32_t))
{
    uint32_t i, j, c, n;
    float w[PIECE];
    double lanes[CPU_TILE_M][LANES];
    const char *src;

    assert(a->m <= CPU_TILE_M && a->k % block == 0);

    for (j = 0; j < a->n; j++) {
        src = (const char *) a->w + j * a->stride;
        memset(lanes, 0, a->m * sizeof(lanes[0]));

        for (c = 0; c < a->k; c += PIECE) {
            n = min_u32(PIECE, a->k - c);
            row(w, src + (size_t) c / block * bytes, n);

            for (i = 0; i < a->m; i++) {
                add_dot(lanes[i], a->x + i * a->ldx + c, w, n);
            }
        }

        for (i = 0; i < a->m; i++) {
            a->y[i * a->ldy + j] = join_lanes(lanes[i]);
        }
    }
}

#define X(name, elems, bytes)                                                  \
    static void matmul_##name(const cpu_mm_t *a)                               \
    {                                                                          \
        matmul_ref(a, elems, bytes, row_##name);                               \
    }
KN_TYPE_LIST(X)
#undef X

static uint16_t
to_bf16(float f)
{
    uint32_t u;

    memcpy(&u, &f, sizeof(u));

    if ((u & 0x7fffffff) > 0x7f800000) {
        return (uint16_t) (u >> 16 | 0x40); /* NaN stays one */
    }

    return (uint16_t) ((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static uint16_t
to_f16(float f)
{
    uint32_t u, sign, mag, odd;
    float half;

    memcpy(&u, &f, sizeof(u));
    sign = u >> 16 & 0x8000;
    mag = u & 0x7fffffff;

    if (mag > 0x7f800000) {
        return (uint16_t) (sign | 0x7e00);
    }

    if (mag >= 0x477ff000) { /* rounds to 65536 or more */
        return (uint16_t) (sign | 0x7c00);
    }

    if (mag < 0x38800000) {
        /* subnormal: at this magnitude the addition rounds at 2^-24, and what
         * is left in the low bits is the half's */
        memcpy(&half, &mag, sizeof(half));
        half += 0.5f;
        memcpy(&mag, &half, sizeof(mag));
        return (uint16_t) (sign | (mag - 0x3f000000));
    }

    odd = mag >> 13 & 1;
    mag += 0xfff + odd - (112u << 23);
    return (uint16_t) (sign | mag >> 13);
}

static void
put_F32(void *dst, const float *src, uint32_t n)
{
    memcpy(dst, src, n * sizeof(float));
}

static void
put_F16(void *dst, const float *src, uint32_t n)
{
    uint32_t i;

    for (i = 0; i < n; i++) {
        ((uint16_t *) dst)[i] = to_f16(src[i]);
    }
}

static void
put_BF16(void *dst, const float *src, uint32_t n)
{
    uint32_t i;

    for (i = 0; i < n; i++) {
        ((uint16_t *) dst)[i] = to_bf16(src[i]);
    }
}

/* Of 32 the largest magnitude, a NaN being the largest. */
static float
top_of(const float *x)
{
    uint32_t i, u, top = 0;
    float f;

    for (i = 0; i < 32; i++) {
        memcpy(&u, x + i, sizeof(u));
        u &= 0x7fffffff;
        top = u > top ? u : top;
    }

    memcpy(&f, &top, sizeof(f));
    return f;
}

static void
put_Q8_0(void *dst, const float *src, uint32_t n)
{
    char *p = dst;
    uint32_t i, e;
    uint16_t h;
    float d, r;
    long q;

    assert(n % 32 == 0);

    for (i = 0; i < n; i += 32, p += 34) {
        h = to_f16(top_of(src + i) / 127);
        h = h < 0x7c00 ? h : 0x7e00;
        memcpy(p, &h, 2);
        memset(p + 2, 0, 32);

        if (h == 0 || h == 0x7e00) {
            continue;
        }

        d = dequant_half_bits(h);
        r = 1 / d;

        for (e = 0; e < 32; e++) {
            q = lrintf(src[i + e] * r);
            p[2 + e] = (char) (q < -128 ? -128 : q > 127 ? 127 : q);
        }
    }
}

static void
rotate_neighbours(float *x, const float *cos, const float *sin, uint32_t half)
{
    uint32_t i;
    float a, b;

    for (i = 0; i < 2 * half; i += 2) {
        a = x[i];
        b = x[i + 1];
        x[i] = a * cos[i] + b * sin[i];
        x[i + 1] = b * cos[i + 1] + a * sin[i + 1];
    }
}

static void
rotate_halves(float *x, const float *cos, const float *sin, uint32_t half)
{
    uint32_t i;
    float a, b;

    for (i = 0; i < half; i++) {
        a = x[i];
        b = x[half + i];
        x[i] = a * cos[i] + b * sin[i];
        x[half + i] = b * cos[half + i] + a * sin[half + i];
    }
}

static void
rmsnorm_ref(
    float *y, float *x, const float *add, const float *w, uint32_t n, float eps)
{
    uint32_t i;
    float r;
    double s[LANES] = {0};

    for (i = 0; add != NULL && i < n; i++) {
        x[i] += add[i];
    }

    add_dot(s, x, x, n);
    r = 1.0f / sqrtf(join_lanes(s) / (float) n + eps);

    for (i = 0; i < n; i++) {
        y[i] = x[i] * r * w[i];
    }
}

static float
silu(float g, float u, float limit)
{
    (void) limit;
    return g / (1.0f + expf(-g)) * u;
}

static float
gelu(float g, float u, float limit)
{
    const float twice = 1.59576912f; /* 2 sqrt(2 / pi) */

    (void) limit;
    return g / (1.0f + expf(-twice * (g + 0.044715f * g * g * g))) * u;
}

/* NaN is beyond no limit and stays. */
static float
clamp(float g, float u, float limit)
{
    g = g > limit ? limit : g;
    u = u > limit ? limit : u < -limit ? -limit : u;

    return g / (1.0f + expf(-1.702f * g)) * (u + 1.0f);
}

#define X(name, fn)                                                            \
    static void fn##_mul(float *gate, const float *up, uint32_t n, float l)    \
    {                                                                          \
        uint32_t i;                                                            \
                                                                               \
        for (i = 0; i < n; i++) {                                              \
            gate[i] = fn(gate[i], up[i], l);                                   \
        }                                                                      \
    }
KN_ACT_LIST(X)
#undef X

static void
soft_cap_ref(float *x, uint32_t n, float scale, float cap)
{
    uint32_t i;

    for (i = 0; i < n; i++) {
        x[i] = cap * tanhf(scale / cap * x[i]);
    }
}

const cpu_isa_t cpu_ref = {
    .name = "ref",
#define X(name, elems, bytes)                                                  \
    .matmul[KN_##name] = matmul_##name, .row[KN_##name] = row_##name,
    KN_TYPE_LIST(X)
#undef X
        .kv_put = {put_F32, put_F16, put_BF16, put_Q8_0},
    .rotate = {rotate_neighbours, rotate_halves},
    .attn = &cpu_attn_ref,
    .rmsnorm = rmsnorm_ref,
#define X(name, fn) .act_mul[KN_##name] = fn##_mul,
    KN_ACT_LIST(X)
#undef X
        .soft_cap = soft_cap_ref,
};

/* The op rows */

/* Row id of w as floats. */
static void
embed_row(
    kn_dev_t *dev, const kn_w_t *w, uint32_t id, uint32_t worker, float *y)
{
    char *row = dev->work + worker * dev->work_size;

    assert(id < w->n);

    if (!w->panels) {
        dev->isa.row[w->type](y, w->data + id * w->stride, w->k);
        return;
    }

    assert((size_t) w->k * 4 <= dev->work_size); /* no type takes more */
    panel_row(w->type, cpu_unit(dev->isa.panels->kind[w->type]), row,
        w->data + id / PANEL * w->stride, id % PANEL, w->k);
    dev->isa.row[w->type](y, row, w->k);
}

static void
embed_part(void *arg, uint32_t part, uint32_t worker)
{
    const job_t *j = arg;
    const kn_embed_t *a = j->a;
    uint32_t t, c, end, row;
    float *y;

    end = min_u32(j->m, (part + 1) * ROWS_PART);

    for (t = part * ROWS_PART; t < end; t++) {
        y = HOST(float, a->y) + (size_t) t * a->w->k;
        row = j->dev->tokens[t] - a->first; /* large where it is before */

        if (row >= a->w->n) {
            memset(y, 0, a->w->k * sizeof(*y));
            continue;
        }

        embed_row(j->dev, a->w, row, worker, y);

        for (c = 0; a->scale != 1 && c < a->w->k; c++) {
            y[c] *= a->scale;
        }
    }
}

void
cpu_embed(kn_dev_t *dev, const kn_embed_t *a)
{
    run_rows(dev, a, dev->step.tokens_n, a->w->k, embed_part);
}

static void
rmsnorm_part(void *arg, uint32_t part, uint32_t worker)
{
    const job_t *j = arg;
    const kn_rmsnorm_t *a = j->a;
    uint32_t t, end;
    size_t at;

    (void) worker;
    end = a->parts * min_u32(j->m, (part + 1) * ROWS_PART);

    for (t = a->parts * part * ROWS_PART; t < end; t++) {
        at = (size_t) t * a->dim;
        j->dev->isa.rmsnorm(HOST(float, a->y) + at, HOST(float, a->x) + at,
            a->add.a != 0 ? HOST(const float, a->add) + at : NULL,
            HOST(const float, a->w), a->dim, a->eps);
    }
}

void
cpu_rmsnorm(kn_dev_t *dev, const kn_rmsnorm_t *a)
{
    assert(a->parts > 0 && a->dim > 0);
    run_rows(dev, a, rows_of(dev, a->rows), 2 * (uint64_t) a->parts * a->dim,
        rmsnorm_part);
}

static void
add_part(void *arg, uint32_t part, uint32_t worker)
{
    const job_t *j = arg;
    const kn_add_t *a = j->a;
    uint32_t t, c, end;
    const float *add;
    float *x, by;

    (void) worker;
    end = min_u32(j->m, (part + 1) * ROWS_PART);

    for (t = part * ROWS_PART; t < end; t++) {
        x = HOST(float, a->x) + (size_t) t * a->dim;
        add = HOST(const float, a->add) + (size_t) t * a->dim;
        by = 1;

        if (a->gate.a != 0) {
            by = 1.0f / (1.0f + expf(-HOST(const float, a->gate)[t]));
        }

        for (c = 0; c < a->dim; c++) {
            x[c] += by * add[c];
        }
    }
}

void
cpu_add(kn_dev_t *dev, const kn_add_t *a)
{
    assert(a->x.a != a->add.a);
    run_rows(dev, a, rows_of(dev, a->rows), a->dim, add_part);
}

static void
rope_angles_part(void *arg, uint32_t part, uint32_t worker)
{
    const job_t *j = arg;
    const kn_rope_angles_t *a = j->a;
    uint32_t t, i, end;
    double angle;
    float *cs;

    (void) worker;
    end = min_u32(j->m, (part + 1) * ROWS_PART);

    for (t = part * ROWS_PART; t < end; t++) {
        cs = HOST(float, a->cs) + (size_t) t * a->half * 2;

        for (i = 0; i < a->half; i++) {
            angle = j->dev->toks[t].pos * HOST(const double, a->freq)[i];
            cs[2 * i] = (float) (a->scale * cos(angle));
            cs[2 * i + 1] = (float) (a->scale * sin(angle));
        }
    }
}

void
cpu_rope_angles(kn_dev_t *dev, const kn_rope_angles_t *a)
{
    run_rows(
        dev, a, dev->step.tokens_n, 100 * (uint64_t) a->half, rope_angles_part);
}

void
cpu_gather(kn_dev_t *dev, const kn_gather_t *a)
{
    uint32_t i;

    for (i = 0; i < dev->step.outs_n; i++) {
        memcpy(HOST(float, a->y) + (size_t) i * a->dim,
            HOST(const float, a->x) + (size_t) dev->outs[i].tok * a->dim,
            a->dim * sizeof(float));
    }
}

static void
sample_part(void *arg, uint32_t part, uint32_t worker)
{
    const job_t *j = arg;
    const kn_sample_t *a = j->a;

    cpu_sample_one(HOST(const float, a->logits) + (size_t) part * a->vocab,
        a->vocab, &j->dev->outs[part],
        j->dev->work + worker * j->dev->work_size,
        HOST(sample_out_t, a->out) + part);
}

void
cpu_sample(kn_dev_t *dev, const kn_sample_t *a)
{
    job_t j = {dev, a, dev->step.outs_n};

    assert(cpu_sample_work(a->vocab) <= dev->work_size);
    cpu_run(dev, j.m, (uint64_t) j.m * a->vocab * 32, sample_part, &j);
}
