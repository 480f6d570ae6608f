/*
 * Attention's small functions in plain C, the oracle of the others: a matrix
 * is row after row, n floats each, whatever it is made of.
 */
#include "cpu.h"

#include <assert.h>
#include <math.h>

static void
keys(const cpu_rows_t *a, uint32_t type)
{
    float row[CPU_HEAD_DIM_MAX];
    uint32_t i, e;

    assert(a->n <= CPU_SEEN && a->k <= CPU_HEAD_DIM_MAX);

    for (i = 0; i < a->n; i++) {
        cpu_ref.row[type](row, a->from[i], a->k);

        for (e = 0; e < a->k; e++) {
            a->to[(size_t) e * a->n + i] = row[e];
        }
    }
}

static void
values(const cpu_rows_t *a, uint32_t type)
{
    uint32_t i;

    assert(a->n <= CPU_SEEN);

    for (i = 0; i < a->n; i++) {
        cpu_ref.row[type](a->to + (size_t) i * a->k, a->from[i], a->k);
    }
}

static void
strips(const cpu_strips_t *a)
{
    uint32_t i, j, c;
    const float *w;
    float *y, x;

    assert(a->from < a->to && a->to <= a->rows);

    for (i = 0; i < a->m; i++) {
        y = a->y[i];

        for (j = 0; a->fresh && j < a->n; j++) {
            y[j] = 0;
        }

        for (c = a->from; c < a->to; c++) {
            x = a->x[i][c];
            w = a->w + (size_t) c * a->n;

            for (j = 0; j < a->n; j++) {
                y[j] += x * w[j];
            }
        }
    }
}

/* Row by row, as strips() takes a matrix. */
static void
mix(const cpu_strips_t *a, uint32_t type)
{
    float row[CPU_HEAD_DIM_MAX];
    const float *x;
    uint32_t i, c;
    cpu_strips_t one = *a;

    assert(a->n <= CPU_HEAD_DIM_MAX);
    one.w = row;
    one.x = &x;
    one.m = one.rows = one.to = 1;
    one.from = 0;

    for (c = a->from; c < a->to; c++) {
        cpu_ref.row[type](row, a->cache[c], a->n);

        for (i = 0; i < a->m; i++) {
            x = a->x[i] + c;
            one.y = a->y + i;
            one.fresh = a->fresh && c == a->from;
            strips(&one);
        }
    }
}

static float
softmax(float *w, uint32_t n, float scale, float *max)
{
    uint32_t i;
    float sum;

    *max = -INFINITY;

    for (i = 0; i < n; i++) {
        w[i] *= scale;
        *max = w[i] > *max ? w[i] : *max;
    }

    for (sum = 0, i = 0; i < n; i++) {
        w[i] = expf(w[i] - *max);
        sum += w[i];
    }

    return sum;
}

static void
join(float *y, const float *x, uint32_t n, float by, float with)
{
    uint32_t i;

    for (i = 0; i < n; i++) {
        y[i] = y[i] * by + x[i] * with;
    }
}

#define X(name)                                                                \
    static void keys_##name(const cpu_rows_t *a) { keys(a, KN_##name); }       \
    static void values_##name(const cpu_rows_t *a) { values(a, KN_##name); }   \
    static void mix_##name(const cpu_strips_t *a) { mix(a, KN_##name); }
X(F32)
X(F16)
X(BF16)
X(Q8_0)
#undef X

const cpu_attn_t cpu_attn_ref = {
    .keys = {keys_F32, keys_F16, keys_BF16, keys_Q8_0},
    .values = {values_F32, values_F16, values_BF16, values_Q8_0},
    .strips = strips,
    .mix = {mix_F32, mix_F16, mix_BF16, mix_Q8_0},
    .softmax = softmax,
    .join = join,
};
