// A step of attention (attn.cuh): scores of ATTN_TILE positions, weights of
// these, and the values by their weights.
#ifndef CUDA_ATTN_STEP_H
#define CUDA_ATTN_STEP_H

#include "attn_sum.cuh"

// The row that a lane points at for a matrix [16, 16] of A.
static __device__ __forceinline__ unsigned
attn_row_a(unsigned lane, int ld)
{
    return (lane & 15) * ld + lane / 16 * 16;
}

// Parts of 16 columns of its queries that a warp has in registers for good.  In
// prefill of large heads sums leave no room for them: there, and where it costs
// little, they are read in each step.
template <int D, int SPLIT> struct attn_held_t {
    static const int all = SPLIT > 1 || D > 96 ? 0 : D / 16;
    static const int size = all > 0 ? all : 1; // of an array
};

// Scores of the warp's columns of a step.
template <ATTN_FORM>
static __device__ __forceinline__ void
attn_scores(
    const attn_t *s, unsigned stage, const uint32_t (*q)[4], float (*c)[4])
{
    const int held = attn_held_t<D, SPLIT>::all;
    typedef attn_shared_t<D, TILES, SPLIT, STAGES> at;
    const int n = ATTN_TILE / 8 / SPLIT;
    const unsigned char *k, *from;
    uint32_t a[4], b[4];
    int i, d;

    k = s->shared + at::k + stage * at::kv
        + (s->split * n * 8 + s->lane / 16 * 8 + s->lane % 8) * at::ld
        + s->lane / 8 % 2 * 16;
    from = s->shared + at::q + s->tile * ATTN_ROWS * at::ld
           + attn_row_a(s->lane, at::ld);

#pragma unroll
    for (i = 0; i < n; i++) {
        c[i][0] = c[i][1] = c[i][2] = c[i][3] = 0;
    }

#pragma unroll
    for (d = 0; d < D / 16; d++) {
        if (d >= held) {
            ptx_ldmatrix_x4(a, from + d * 32);
        }
#pragma unroll
        for (i = 0; i < n; i += 2) {
            ptx_ldmatrix_x4(b, k + i * 8 * at::ld + d * 32);
            attn_mma<BF16>(c[i], d < held ? q[d] : a, b);
            attn_mma<BF16>(c[i + 1], d < held ? q[d] : a, b + 2);
        }
    }
}

// x becomes its tangent, of the hyperbola: no worse than 1e-6 of 1.
static __device__ __forceinline__ float
attn_tanh(float x)
{
    return 1.0f - __fdividef(2.0f, ptx_exp2(x * 2.885390082f) + 1.0f);
}

// Caps the scores and hides those of positions that their query does not see.
template <int N>
static __device__ __forceinline__ void
attn_mask(const attn_t *s, uint32_t step, float (*c)[4])
{
    const attn_args_t *a = s->a;
    uint32_t from = step * ATTN_TILE, pos;
    attn_seen_t seen[2];
    int i, e;

    if (a->cap > 0) {
#pragma unroll
        for (i = 0; i < N; i++) {
#pragma unroll
            for (e = 0; e < 4; e++) {
                c[i][e] = attn_tanh(c[i][e] * a->scale);
            }
        }
    }

    if (from >= s->tiles[0].first && from + ATTN_TILE <= s->tiles[0].end) {
        return;
    }

    seen[0] = s->seen[s->g];
    seen[1] = s->seen[s->g + 8];

#pragma unroll
    for (i = 0; i < N; i++) {
#pragma unroll
        for (e = 0; e < 4; e++) {
            pos = from + (s->split * N + i) * 8 + 2 * s->t + e % 2;
            if (pos < seen[e / 2].first || pos >= seen[e / 2].end) {
                c[i][e] = -INFINITY;
            }
        }
    }
}

// Each row's largest score, times factor, over all columns of the step.
template <ATTN_FORM>
static __device__ __forceinline__ void
attn_max(const attn_t *s, const float (*c)[4], float m[2])
{
    typedef attn_shared_t<D, TILES, SPLIT, STAGES> at;
    const int n = ATTN_TILE / 8 / SPLIT;
    float *all = reinterpret_cast<float *>(s->shared + at::max)
                 + s->tile * SPLIT * ATTN_ROWS;
    int i, e;

#pragma unroll
    for (e = 0; e < 2; e++) {
        m[e] = c[0][2 * e];
#pragma unroll
        for (i = 0; i < n; i++) {
            m[e] = fmaxf(m[e], fmaxf(c[i][2 * e], c[i][2 * e + 1]));
        }
        m[e] = fmaxf(m[e], __shfl_xor_sync(GPU_ALL, m[e], 1));
        m[e] = fmaxf(m[e], __shfl_xor_sync(GPU_ALL, m[e], 2));
    }

    if (SPLIT > 1) {
        if (s->t == 0) {
            all[s->split * ATTN_ROWS + s->g] = m[0];
            all[s->split * ATTN_ROWS + s->g + 8] = m[1];
        }
        __syncthreads();
#pragma unroll
        for (i = 0; i < SPLIT; i++) {
            m[0] = fmaxf(m[0], all[i * ATTN_ROWS + s->g]);
            m[1] = fmaxf(m[1], all[i * ATTN_ROWS + s->g + 8]);
        }
    }

    m[0] *= s->a->factor;
    m[1] *= s->a->factor;
}

// Scores become weights, as the operand A of four products; the sums so far
// are brought to the new maximum.
template <ATTN_FORM, int N>
static __device__ __forceinline__ void
attn_weights(const attn_t *s, float (*c)[4], attn_sum_t<N> *sum, float(*l),
    uint32_t (*p)[4])
{
    typedef attn_shared_t<D, TILES, SPLIT, STAGES> at;
    const int n = ATTN_TILE / 8 / SPLIT;
    unsigned char *to = s->shared + at::p + s->tile * ATTN_ROWS * at::ld_p;
    float m[2], by[2], base[2];
    uint32_t r[n][2];
    int i, e;

    attn_max<ATTN_FORM_>(s, c, m);

#pragma unroll
    for (e = 0; e < 2; e++) {
        m[e] = fmaxf(m[e], sum->m[e]);
        base[e] = attn_base(m[e]);
        by[e] = ptx_exp2(sum->m[e] - base[e]);
        sum->m[e] = m[e];
#pragma unroll
        for (i = 0; i < n; i++) {
            c[i][2 * e] = ptx_exp2(fmaf(c[i][2 * e], s->a->factor, -base[e]));
            c[i][2 * e + 1] =
                ptx_exp2(fmaf(c[i][2 * e + 1], s->a->factor, -base[e]));
            r[i][e] = attn_pack<BF16>(c[i][2 * e], c[i][2 * e + 1]);
        }
    }

    // most steps have no new maximum, and a product with 1 is none
    if (__any_sync(GPU_ALL, by[0] != 1 || by[1] != 1)) {
#pragma unroll
        for (i = 0; i < N; i++) {
            sum->o[i][0] *= by[0];
            sum->o[i][1] *= by[0];
            sum->o[i][2] *= by[1];
            sum->o[i][3] *= by[1];
        }
        l[0] *= by[0];
        l[2] *= by[1];
    }

    if constexpr (SPLIT == 1) {
#pragma unroll
        for (i = 0; i < n; i++) {
            p[i / 2][i % 2 * 2] = r[i][0];
            p[i / 2][i % 2 * 2 + 1] = r[i][1];
        }
    } else {
#pragma unroll
        for (i = 0; i < n; i++) {
            e = (s->split * n + i) * 16 + s->t * 4;
            *reinterpret_cast<uint32_t *>(to + s->g * at::ld_p + e) = r[i][0];
            *reinterpret_cast<uint32_t *>(to + (s->g + 8) * at::ld_p + e) =
                r[i][1];
        }
        __syncthreads();
#pragma unroll
        for (i = 0; i < ATTN_TILE / 16; i++) {
            ptx_ldmatrix_x4(p[i], to + attn_row_a(s->lane, at::ld_p) + i * 32);
        }
    }
}

// Tiles of 8 columns of a head that the warp has, all of them but the last
// one's: that may have fewer.
template <int D, int SPLIT> struct attn_columns_t {
    static const int n = (D / 8 + SPLIT - 1) / SPLIT;
};

// Values of a step by their weights, and the weights' sum.
template <ATTN_FORM, int N>
static __device__ __forceinline__ void
attn_mix(const attn_t *s, unsigned stage, const uint32_t (*p)[4],
    attn_sum_t<N> *sum, float *l)
{
    typedef attn_shared_t<D, TILES, SPLIT, STAGES> at;
    const unsigned char *v = s->shared + at::v + stage * at::kv
                             + s->lane * at::ld + s->split * N * 16;
    const uint32_t one = BF16 ? 0x3f803f80 : 0x3c003c00;
    const uint32_t ones[2] = {one, one};
    uint32_t b[4];
    int i, k;

#pragma unroll
    for (k = 0; k < ATTN_TILE / 32; k++) {
        attn_mma<BF16>(l, p[2 * k], ones);
        attn_mma<BF16>(l, p[2 * k + 1], ones);
#pragma unroll
        for (i = 0; i < N; i++) {
            if (D / 8 % SPLIT == 0 || s->split * N + i < D / 8) {
                ptx_ldmatrix_x4_trans(b, v + k * 32 * at::ld + i * 16);
                attn_mma<BF16>(sum->o[i], p[2 * k], b);
                attn_mma<BF16>(sum->o[i], p[2 * k + 1], b + 2);
            }
        }
    }
}

#endif
