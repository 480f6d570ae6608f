// A tile's sums of attention (attn.cuh): joined from partition to partition,
// left in memory for another block and fetched from there, and turned into
// results.
#ifndef CUDA_ATTN_SUM_H
#define CUDA_ATTN_SUM_H

#include "attn_tile.cuh"

// What is subtracted: where nothing is seen 2^-inf is to be 0.
static __device__ __forceinline__ float
attn_base(float m)
{
    return m == -INFINITY ? 0 : m;
}

// Row e of the thread's two.
template <int N>
static __device__ __forceinline__ void
attn_clear(attn_sum_t<N> *sum, int e)
{
    int i;

    sum->l[e] = 0;
    sum->m[e] = -INFINITY;
#pragma unroll
    for (i = 0; i < N; i++) {
        sum->o[i][2 * e] = sum->o[i][2 * e + 1] = 0;
    }
}

// *to takes in *x, of a later partition, in the rows that are wanted.  Fused as
// it is written, so that every kernel rounds where the others do.
template <int N>
static __device__ __forceinline__ void
attn_fold(attn_sum_t<N> *to, const attn_sum_t<N> *x, const int wanted[2])
{
    float m, by, with;
    int i, e;

#pragma unroll
    for (e = 0; e < 2; e++) {
        if (!wanted[e]) {
            continue;
        }

        m = fmaxf(to->m[e], x->m[e]);
        by = ptx_exp2(to->m[e] - attn_base(m));
        with = ptx_exp2(x->m[e] - attn_base(m));
        to->m[e] = m;
        to->l[e] = fmaf(x->l[e], with, to->l[e] * by);
#pragma unroll
        for (i = 0; i < N; i++) {
            to->o[i][2 * e] = fmaf(x->o[i][2 * e], with, to->o[i][2 * e] * by);
            to->o[i][2 * e + 1] =
                fmaf(x->o[i][2 * e + 1], with, to->o[i][2 * e + 1] * by);
        }
    }
}

// The warp's tile in slot `slot`: two numbers of a lane side by side, first all
// columns, of rows g and of rows g + 8, then sums and maxima of rows.
template <int D>
static __device__ __forceinline__ float *
attn_slot(const attn_t *s, uint32_t slot)
{
    return s->a->slots
           + (static_cast<size_t>(slot + s->tile) * s->a->kv_heads + s->head)
                 * (ATTN_ROWS * (D + 2));
}

template <int D, int N>
static __device__ __forceinline__ void
attn_leave(const attn_t *s, uint32_t slot, const attn_sum_t<N> *sum,
    const int wanted[2])
{
    float2 *o = reinterpret_cast<float2 *>(attn_slot<D>(s, slot));
    unsigned i, e, column;

    // rows that have no sum yet leave nothing, which joins as nothing
#pragma unroll
    for (e = 0; e < 2; e++) {
        if (s->g + 8 * e >= s->rows) {
            continue;
        }
#pragma unroll
        for (i = 0; i < N; i++) {
            column = s->split * N + i;
            if (column < D / 8) {
                o[(column * 2 + e) * GPU_LANES + s->lane] =
                    wanted[e]
                        ? make_float2(sum->o[i][2 * e], sum->o[i][2 * e + 1])
                        : make_float2(0, 0);
            }
        }
        if (s->t == 0 && s->split == 0) {
            o[ATTN_ROWS * D / 2 + s->g + 8 * e] =
                wanted[e] ? make_float2(sum->l[e], sum->m[e])
                          : make_float2(0, -INFINITY);
        }
    }
}

template <int D, int N>
static __device__ __forceinline__ void
attn_fetch(const attn_t *s, uint32_t slot, attn_sum_t<N> *sum)
{
    const float2 *o = reinterpret_cast<float2 *>(attn_slot<D>(s, slot));
    unsigned i, e, column;
    float2 v;

#pragma unroll
    for (e = 0; e < 2; e++) {
        attn_clear(sum, e);
        if (s->g + 8 * e >= s->rows) {
            continue;
        }
#pragma unroll
        for (i = 0; i < N; i++) {
            column = s->split * N + i;
            if (column < D / 8) {
                v = o[(column * 2 + e) * GPU_LANES + s->lane];
                sum->o[i][2 * e] = v.x;
                sum->o[i][2 * e + 1] = v.y;
            }
        }
        v = o[ATTN_ROWS * D / 2 + s->g + 8 * e];
        sum->l[e] = v.x;
        sum->m[e] = v.y;
    }
}

// The sink takes its share; results to their places.
template <int D, int N>
static __device__ __forceinline__ void
attn_finish(const attn_t *s, const attn_sum_t<N> *sum)
{
    const attn_args_t *a = s->a;
    unsigned i, e, column;
    uint32_t query, head;
    float sink, m, by;
    float *y;

#pragma unroll
    for (e = 0; e < 2; e++) {
        if (s->g + 8 * e >= s->rows) {
            continue;
        }

        query = s->u->query + s->tile * ATTN_ROWS + s->g + 8 * e;
        head = s->head * a->share + query % a->share;
        by = 1.0f / sum->l[e];
        if (a->sinks != NULL) {
            sink = a->sinks[head];
            m = fmaxf(sum->m[e], sink * 1.442695041f);
            by = ptx_exp2(sum->m[e] - m);
            by = by
                 / fmaf(sum->l[e], by, ptx_exp2(fmaf(sink, 1.442695041f, -m)));
        }

        y = a->y
            + (static_cast<size_t>(s->u->tok + query / a->share) * a->kv_heads
                      * a->share
                  + head)
                  * D;
#pragma unroll
        for (i = 0; i < N; i++) {
            column = s->split * N + i;
            if (column < D / 8) {
                // 0 is added for the sign of a zero, which others may change
                *reinterpret_cast<float2 *>(y + column * 8 + 2 * s->t) =
                    make_float2(fmaf(sum->o[i][2 * e], by, 0.0f),
                        fmaf(sum->o[i][2 * e + 1], by, 0.0f));
            }
        }
    }
}

#endif
