/*
 * The op rows of the paged cache on the CPU that move things: what is stored
 * there, and copies of blocks.  attn.c reads it.
 *
 * Runs on the pool's threads; owns no memory.
 */
#include "cache.h"
#include "job.h"

#include <assert.h>
#include <string.h>

/* Angles of a token, cs [half, 2], as isa.rotate() takes them. */
static void
spread_angles(const kn_rope_store_t *a, const float *cs, float *cos, float *sin)
{
    uint32_t i, first, second;

    for (i = 0; i < a->half; i++) {
        first = a->halves ? i : 2 * i;
        second = a->halves ? a->half + i : 2 * i + 1;
        cos[first] = cos[second] = cs[2 * i];
        sin[first] = -cs[2 * i + 1];
        sin[second] = cs[2 * i + 1];
    }
}

static void
rope_store_token(kn_dev_t *dev, const kn_rope_store_t *a, uint32_t t)
{
    float cos[CPU_HEAD_DIM_MAX], sin[CPU_HEAD_DIM_MAX];
    uint32_t h, dim = a->kv.head_dim, own = kn_kv_own(&a->kv);
    const cpu_tok_t *tok = &dev->toks[t];
    const kn_row_t *row = &dev->rows[tok->row];
    const cpu_isa_t *isa = &dev->isa;
    const float *v;
    float *q, *k;

    q = HOST(float, a->q) + (size_t) t * a->heads * dim;
    k = HOST(float, a->k) + (size_t) t * a->kv.kv_heads * own;
    v = HOST(const float, a->v) + (size_t) t * a->kv.kv_heads * a->kv.v_dim;

    if (a->half > 0) {
        spread_angles(
            a, HOST(const float, a->cs) + (size_t) t * a->half * 2, cos, sin);

        for (h = 0; h < a->heads; h++) {
            isa->rotate[a->halves](q + h * dim, cos, sin, a->half);
        }

        for (h = 0; h < a->kv.kv_heads; h++) {
            isa->rotate[a->halves](k + h * own, cos, sin, a->half);
        }
    }

    for (h = 0; h < a->kv.kv_heads; h++) {
        isa->kv_put[a->kv.type](
            key_at(dev, &a->kv, row, tok->pos, h), k + h * own, own);
        isa->kv_put[a->kv.type](value_at(dev, &a->kv, row, tok->pos, h),
            v + h * a->kv.v_dim, a->kv.v_dim);
    }
}

static void
rope_store_part(void *arg, uint32_t part, uint32_t worker)
{
    const job_t *j = arg;
    uint32_t t, end;

    (void) worker;
    end = min_u32(j->m, (part + 1) * ROWS_PART);

    for (t = part * ROWS_PART; t < end; t++) {
        rope_store_token(j->dev, j->a, t);
    }
}

void
cpu_rope_store(kn_dev_t *dev, const kn_rope_store_t *a)
{
    assert(a->kv.type < KN_KV_TYPES && 2 * a->half <= kn_kv_own(&a->kv));
    assert(a->kv.head_dim <= CPU_HEAD_DIM_MAX && a->halves <= 1);
    assert(!a->kv.inside || a->kv.v_dim <= a->kv.head_dim);

    run_rows(dev, a, dev->step.tokens_n,
        3 * (uint64_t) (a->heads + a->kv.kv_heads) * a->kv.head_dim,
        rope_store_part);
}

static void
copy_part(void *arg, uint32_t part, uint32_t worker)
{
    const job_t *j = arg;
    const kn_copy_t *a = j->a;

    (void) worker;
    memcpy(HOST(char, a->dst) + a->to[part] * a->stride,
        HOST(const char, a->src) + a->from[part] * a->stride, a->stride);
}

/* Other threads help with much: one alone does not fill the memory's bus. */
void
cpu_copy(kn_dev_t *dev, const kn_copy_t *a)
{
    job_t j = {dev, a, a->n};

    assert(a->src.a != 0 && a->dst.a != 0 && a->stride > 0);

    cpu_run(dev, a->n, a->n * a->stride / 4, copy_part, &j);
    dev->copies++;
}
