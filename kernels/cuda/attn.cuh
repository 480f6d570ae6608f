// Attention on tensor cores over the paged cache: what its two kernels share,
// attn_decode.cu for rows of few queries and attn_prefill.cu for others.
//
// DESIGN.  A query is a token and a head.  Those of a row's tokens whose heads
// share a head of keys are packed, in the order of tokens, into tiles of 16 or
// more; a block goes with a tile through the partitions of the cache that its
// unit says (attn_plan.h), ATTN_TILE positions in a step:
//
//      scores    S [16, 64] = Q [16, D] K^T       tensor cores, F32 sums
//      weights   P = 2^(S * factor - maximum)     rounded to the cache's type
//      mix       O [16, D] = O * by + P V         tensor cores, F32 sums
//                l = l * by + P 1                 the same
//
// Queries are rounded to the cache's type as well: 8 or 11 bits of a factor,
// as everywhere where attention is multiplied by tensor cores.
//
// ONE ORDER.  A query's result has the same bits whether it comes alone, in a
// chunk, with whatever neighbours, and in however many units: the two kernels
// compute one thing.  What it takes:
//
//   - steps are cut at multiples of 64 positions, and partitions at those of
//     256 or more, by what the query sees (attn_bits): not where a chunk, a
//     tile or a window begins;
//   - each partition's sums begin at nothing and are joined, in order, to those
//     before (attn_fold), whether they are still in registers or were left in
//     memory by another block;
//   - an element of S is summed over D in steps of 16, one of O over a step's
//     positions in the order of these, by the same instruction: where warps
//     share a tile each has other columns, of S as of O, and never a part of a
//     sum.  Weights are therefore handed on through shared memory there;
//   - the sum of weights is a product with ones, so that its order is that of
//     any column of O, and not one of lanes and shuffles;
//   - a position that a query does not see has the weight 0, which adds
//     nothing, so that what others see of a step does not show.
//
// What that costs: where a warp has a tile for itself (prefill) a second set of
// sums, 64 registers for 128 columns, and every 256 positions 128 instructions
// on them for 512 of tensor cores; where warps share one (decode) two barriers
// more in a step than if each kept sums of its own, behind loads that take
// longer.  Sums in memory are 2 KB for 128 KB of the cache where 4 heads share
// it, and only where a tile is cut.
//
// Positions of a step that no query of the tile sees are never read from the
// cache: they are zeros in shared memory.  Those that only some see are, of the
// same sequence, and multiplied by 0 for the others; so the rule is for finite
// values, and a sequence that has others has no tokens to lose.
//
// Bound: decode by memory, of which 2 of 3 stages are always on their way, 128
// KB on a multiprocessor; prefill by the tensor cores and by shared memory,
// from which 16 queries of a warp read all keys and values.
#ifndef CUDA_ATTN_H
#define CUDA_ATTN_H

#include "attn_plan.h"
#include "gpu.h"
#include "ptx.h"
#include "rt.h"
#include "rt_kernel.cuh"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <math.h>

#define ATTN_RING 4 // steps whose positions' addresses are in shared memory

// Elements of a head that there are kernels for. X(elements)
#define ATTN_DIMS(X)                                                           \
    X(64)                                                                      \
    X(80)                                                                      \
    X(96)                                                                      \
    X(128)                                                                     \
    X(256)

// What both kernels are called with.
typedef struct {
    const attn_list_t *list;       // device: where the step has its units
    const uint32_t *const *blocks; // device: where it has its blocks
    const float *q;                // [tokens, kv_heads * share, D]
    float *y;                      // the same
    const float *sinks;            // [kv_heads * share] or null
    const unsigned char *kv;
    uint64_t stride, k_off, v_off;
    uint32_t block_tokens, kv_heads, share, window;
    float cap;      // 0 is none
    float scale;    // of a score; with a cap, of what its tangent is taken of
    float factor;   // what it is multiplied by for a power of 2
    float *slots;   // [slots, kv_heads, ATTN_ROWS * (D + 2)]
    uint32_t *came; // [tiles, kv_heads], zeros between launches
} attn_args_t;

// Scores are scale * (q . k), capped if cap > 0, and weights powers of e.
static inline void
attn_factors(attn_args_t *a, float scale, float cap)
{
    a->cap = cap;
    a->scale = cap > 0 ? scale / cap : scale;
    a->factor = (cap > 0 ? cap : scale) * 1.442695041f;
}

// A kernel's form.  D: of heads; TILES: of 16 queries, of a block; SPLIT: warps
// that share one; STAGES: steps in shared memory; BF16: or F16.
#define ATTN_FORM  int D, int TILES, int SPLIT, int STAGES, int BF16
#define ATTN_FORM_ D, TILES, SPLIT, STAGES, BF16

// Where things lie in shared memory.  Rows are 16 bytes longer than they are,
// an odd number of those: eight rows then lie in different banks.
template <int D, int TILES, int SPLIT, int STAGES> struct attn_shared_t {
    static const int threads = 32 * TILES * SPLIT;
    static const int queries = ATTN_ROWS * TILES;
    static const int ld = 2 * D + 16;
    static const int ld_p = 2 * ATTN_TILE + 16;
    static const int kv = ATTN_TILE * ld; // keys or values of a step

    static const int where = 0; // [ATTN_RING, ATTN_TILE] addresses
    static const int unit = where + ATTN_RING * ATTN_TILE * 8;
    static const int last = unit + sizeof(attn_unit_t); // one word
    static const int ids = last + 8;     // address of the step's blocks
    static const int block = ids + 8;    // what the block's queries see
    static const int tiles = block + 16; // [TILES, 2]: what all, what any do
    static const int seen = tiles + TILES * 16; // [queries]
    static const int max = seen + queries * 8;  // [TILES, SPLIT, 16]
    static const int p = max + (SPLIT > 1 ? queries * SPLIT * 4 : 0);
    static const int q = p + (SPLIT > 1 ? queries * ld_p : 0);
    static const int k = q + queries * ld;
    static const int v = k + STAGES * kv;
    static const int size = v + STAGES * kv;
};

// A warp's sums of rows g and g + 8: N tiles of 8 columns.
template <int N> struct attn_sum_t {
    float o[N][4];
    float l[2];
    float m[2]; // times factor; -inf where nothing is seen
};

// Positions [first, end) that a token sees.
typedef struct {
    uint32_t first, end;
} attn_seen_t;

// A thread's place and what it is about.
typedef struct {
    const attn_args_t *a;
    const attn_unit_t *u;
    unsigned char *shared;
    uint32_t head;              // of keys
    unsigned tile, split;       // the warp's
    unsigned g, t, lane;        // 4 g + t
    unsigned rows;              // of the warp's 16 that are queries
    const uint32_t *const *ids; // of blocks
    const attn_seen_t *block;   // what any of the block's queries sees,
    const attn_seen_t *tiles;   // all of the warp's, and any of them
    const attn_seen_t *seen;    // [16] each; nothing if it is none
} attn_t;

static __device__ __forceinline__ uint32_t
attn_less(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static __device__ __forceinline__ attn_seen_t
attn_sees(const attn_args_t *a, const attn_unit_t *u, uint32_t query)
{
    attn_seen_t s = {0, u->start + query / a->share + 1};

    if (a->window > 0 && s.end > a->window) {
        s.first = s.end - a->window;
    }

    return s;
}

// A thread's place; what queries see is written down by the first threads.
template <ATTN_FORM>
static __device__ __forceinline__ void
attn_begin(attn_t *s, const attn_args_t *a, const attn_unit_t *u,
    unsigned char *shared)
{
    typedef attn_shared_t<D, TILES, SPLIT, STAGES> at;
    unsigned i = threadIdx.x, warp = i / GPU_LANES, n;
    attn_seen_t *block = reinterpret_cast<attn_seen_t *>(shared + at::block);
    attn_seen_t *tiles = reinterpret_cast<attn_seen_t *>(shared + at::tiles);
    const uint32_t **ids =
        reinterpret_cast<const uint32_t **>(shared + at::ids);
    attn_seen_t *seen = reinterpret_cast<attn_seen_t *>(shared + at::seen);
    attn_seen_t none = {0, 0}, from, to;

    if (i < at::queries) {
        seen[i] = i < u->n ? attn_sees(a, u, u->query + i) : none;
    }
    if (i < TILES) {
        tiles[2 * i] = tiles[2 * i + 1] = none;
        if (i * ATTN_ROWS < u->n) {
            n = attn_less(u->n, (i + 1) * ATTN_ROWS);
            from = attn_sees(a, u, u->query + i * ATTN_ROWS);
            to = attn_sees(a, u, u->query + n - 1);
            tiles[2 * i].first = to.first;
            tiles[2 * i].end = from.end;
            tiles[2 * i + 1].first = from.first;
            tiles[2 * i + 1].end = to.end;
        }
    }
    if (i == 0) {
        *ids = *a->blocks;
        block->first = attn_sees(a, u, u->query).first;
        block->end = attn_sees(a, u, u->query + u->n - 1).end;
    }

    s->a = a;
    s->u = u;
    s->shared = shared;
    s->head = blockIdx.y;
    s->tile = warp / SPLIT;
    s->split = warp % SPLIT;
    s->lane = i % GPU_LANES;
    s->g = s->lane / 4;
    s->t = s->lane % 4;
    n = s->tile * ATTN_ROWS;
    s->rows = u->n > n ? attn_less(u->n - n, ATTN_ROWS) : 0;
    s->ids = ids;
    s->block = block;
    s->tiles = tiles + 2 * s->tile;
    s->seen = seen + n;
    __syncthreads();
}

// Two numbers as the cache's type has them, the first in the low half.
template <int BF16>
static __device__ __forceinline__ uint32_t
attn_pack(float lo, float hi)
{
    uint32_t r;

    if (BF16) {
        __nv_bfloat162 v = __floats2bfloat162_rn(lo, hi);
        memcpy(&r, &v, sizeof(r));
    } else {
        __half2 v = __floats2half2_rn(lo, hi);
        memcpy(&r, &v, sizeof(r));
    }

    return r;
}

template <int BF16>
static __device__ __forceinline__ void
attn_mma(float c[4], const uint32_t a[4], const uint32_t b[2])
{
    if (BF16) {
        ptx_mma_bf16(c, a, b);
    } else {
        ptx_mma_f16(c, a, b);
    }
}

// Where, after the cache's begin, the block's head has its key of position pos;
// nothing of other positions is read.
static __device__ __forceinline__ uint64_t
attn_where(const attn_t *s, uint32_t pos, uint32_t row_bytes)
{
    const attn_args_t *a = s->a;
    uint32_t number = pos / a->block_tokens;
    uint32_t place = pos - number * a->block_tokens;

    if (pos < s->block->first || pos >= s->block->end) {
        return 0;
    }

    return (*s->ids)[s->u->at + number - s->u->first] * a->stride + a->k_off
           + static_cast<uint64_t>(s->head * a->block_tokens + place)
                 * row_bytes;
}

static __device__ __forceinline__ uint64_t *
attn_ring(const attn_t *s, uint32_t step)
{
    return reinterpret_cast<uint64_t *>(s->shared)
           + step % ATTN_RING * ATTN_TILE;
}

// Asks for keys and values of a step, into the place of a stage.
template <ATTN_FORM>
static __device__ __forceinline__ void
attn_load(const attn_t *s, uint32_t step, unsigned stage)
{
    typedef attn_shared_t<D, TILES, SPLIT, STAGES> at;
    const attn_args_t *a = s->a;
    const uint64_t *ring = attn_ring(s, step);
    unsigned char *k = s->shared + at::k + stage * at::kv,
                  *v = k + at::v - at::k;
    const int pieces = D / 8;
    unsigned i, row, piece;
    uint32_t pos, n;
    uint64_t from;

#pragma unroll 2
    for (i = threadIdx.x; i < ATTN_TILE * pieces; i += at::threads) {
        row = i / pieces;
        piece = i % pieces * 16;
        pos = step * ATTN_TILE + row;
        n = pos >= s->block->first && pos < s->block->end ? 16 : 0;
        from = ring[row] + piece;
        ptx_copy_async(k + row * at::ld + piece, a->kv + from, n);
        ptx_copy_async(v + row * at::ld + piece,
            a->kv + (n > 0 ? from - a->k_off + a->v_off : 0), n);
    }
}

// The tile's queries, rounded, zeros where there are none.
template <ATTN_FORM>
static __device__ __forceinline__ void
attn_queries(const attn_t *s)
{
    typedef attn_shared_t<D, TILES, SPLIT, STAGES> at;
    const attn_args_t *a = s->a;
    const attn_unit_t *u = s->u;
    unsigned i, row, e;
    uint32_t query, head;
    float4 v;
    uint2 r;

    for (i = threadIdx.x; i < at::queries * (D / 4); i += at::threads) {
        row = i / (D / 4);
        e = i % (D / 4) * 4;
        v = make_float4(0, 0, 0, 0);

        if (row < u->n) {
            query = u->query + row;
            head = s->head * a->share + query % a->share;
            v = *reinterpret_cast<const float4 *>(
                a->q
                + (static_cast<size_t>(u->tok + query / a->share) * a->kv_heads
                          * a->share
                      + head)
                      * D
                + e);
        }

        r.x = attn_pack<BF16>(v.x, v.y);
        r.y = attn_pack<BF16>(v.z, v.w);
        *reinterpret_cast<uint2 *>(s->shared + at::q + row * at::ld + e * 2) =
            r;
    }
}

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

// What is subtracted: where nothing is seen 2^-inf is to be 0.
static __device__ __forceinline__ float
attn_base(float m)
{
    return m == -INFINITY ? 0 : m;
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

// Whether the block is the last of its tile's to come; the others' sums are
// then there to be read.
static __device__ __forceinline__ int
attn_is_last(const attn_t *s, int at)
{
    uint32_t *last = reinterpret_cast<uint32_t *>(s->shared + at);
    uint32_t *came =
        s->a->came + static_cast<size_t>(s->u->tile) * s->a->kv_heads + s->head;

    // the whole block's sums are written, then one thread says so for all:
    // what a release makes seen is what its thread has seen, too
    __syncthreads();
    if (threadIdx.x == 0) {
        *last = ptx_add_acq_rel(came, 1) == s->u->units - 1;
        if (*last) {
            *came = 0;
        }
    }
    __syncthreads();

    return *last != 0;
}

// One step of a warp: from scores to sums.
template <ATTN_FORM, int N>
static __device__ __forceinline__ void
attn_step(const attn_t *s, uint32_t step, unsigned stage,
    const uint32_t (*q)[4], attn_sum_t<N> *part, float *l)
{
    float c[ATTN_TILE / 8 / SPLIT][4];
    uint32_t p[ATTN_TILE / 16][4];

    attn_scores<ATTN_FORM_>(s, stage, q, c);
    attn_mask<ATTN_TILE / 8 / SPLIT>(s, step, c);
    attn_weights<ATTN_FORM_, N>(s, c, part, l, p);
    attn_mix<ATTN_FORM_, N>(s, stage, p, part, l);
}

// Positions up to end are done.  Sums of queries whose partition ends there go
// to those before or, if these are another unit's, to memory.
template <int D, int N>
static __device__ __forceinline__ void
attn_part_ends(const attn_t *s, uint32_t end, attn_sum_t<N> *sum, float *l,
    attn_sum_t<N> *total)
{
    const attn_unit_t *u = s->u;
    uint32_t each = (u->n + ATTN_ROWS - 1) / ATTN_ROWS, mask;
    uint32_t part = ((end - 1) >> u->bits) - (u->from >> u->bits);
    attn_seen_t seen;
    int e, ends[2];

#pragma unroll
    for (e = 0; e < 2; e++) {
        seen = s->seen[s->g + 8 * e];
        mask = (1u << attn_bits(seen.end - seen.first)) - 1;
        ends[e] = end >= u->to || (end & mask) == 0;
        sum->l[e] = l[2 * e];
    }

    if (u->head) {
        attn_fold(total, sum, ends);
    } else {
        attn_leave<D, N>(s, u->slot + part * each, sum, ends);
    }

#pragma unroll
    for (e = 0; e < 2; e++) {
        if (ends[e]) {
            attn_clear(sum, e);
            l[2 * e] = 0;
        }
    }
}

// The sums that a tile's units left, joined in order; several at a time are on
// their way.
template <int D, int N>
static __device__ __forceinline__ void
attn_join(const attn_t *s, attn_sum_t<N> *total)
{
    const int batch = N <= 4 ? 8 : N <= 8 ? 4 : 1, both[2] = {1, 1};
    const attn_unit_t *u = s->u;
    uint32_t i, each = (u->n + ATTN_ROWS - 1) / ATTN_ROWS;
    attn_sum_t<N> part[batch];
    int b;

    attn_clear(total, 0);
    attn_clear(total, 1);

    for (i = 0; i < u->slots; i += batch) {
#pragma unroll
        for (b = 0; b < batch; b++) {
            if (i + b < u->slots) {
                attn_fetch<D, N>(s, u->tile_slot + (i + b) * each, &part[b]);
            }
        }
#pragma unroll
        for (b = 0; b < batch; b++) {
            if (i + b < u->slots) {
                attn_fold(total, &part[b], both);
            }
        }
    }
}

// The block's unit, where registers need not hold it.
template <ATTN_FORM>
static __device__ __forceinline__ const attn_unit_t *
attn_take(const attn_args_t *a, unsigned char *shared)
{
    typedef attn_shared_t<D, TILES, SPLIT, STAGES> at;
    uint32_t *to = reinterpret_cast<uint32_t *>(shared + at::unit);

    if (threadIdx.x < sizeof(attn_unit_t) / 4) {
        to[threadIdx.x] = reinterpret_cast<const uint32_t *>(
            a->list->units + blockIdx.x)[threadIdx.x];
    }
    __syncthreads();

    return reinterpret_cast<const attn_unit_t *>(to);
}

// Before the first step: where the first STAGES of them lie, the queries, and
// what can be asked for.
template <ATTN_FORM>
static __device__ __forceinline__ void
attn_start(const attn_t *s, uint32_t from, uint32_t to)
{
    typedef attn_shared_t<D, TILES, SPLIT, STAGES> at;
    uint32_t i;

    // block ids were there before this kernel's predecessor began: no need to
    // wait for that one's end
    for (i = threadIdx.x; i < STAGES * ATTN_TILE; i += at::threads) {
        attn_ring(s, from + i / ATTN_TILE)[i % ATTN_TILE] =
            attn_where(s, from * ATTN_TILE + i, D * 2);
    }
    ptx_wait_before();
    ptx_start_next();
    attn_queries<ATTN_FORM_>(s);
    __syncthreads();

    for (i = 0; i < STAGES - 1; i++) {
        if (from + i < to) {
            attn_load<ATTN_FORM_>(s, from + i, i);
        }
        ptx_copy_commit();
    }
}

// The tile's result, if all of its units have come.
template <ATTN_FORM, int N>
static __device__ __forceinline__ void
attn_end(const attn_t *s, attn_sum_t<N> *total)
{
    typedef attn_shared_t<D, TILES, SPLIT, STAGES> at;
    const int both[2] = {1, 1};

    if (s->u->units > 1) {
        if (s->u->head) {
            attn_leave<D, N>(s, s->u->slot, total, both);
        }
        if (!attn_is_last(s, at::last)) {
            return;
        }
        attn_join<D, N>(s, total);
    }

    attn_finish<D, N>(s, total);
}

// All of a block's work.
template <ATTN_FORM>
static __device__ __forceinline__ void
attn_block(const attn_args_t *a, unsigned char *shared)
{
    typedef attn_shared_t<D, TILES, SPLIT, STAGES> at;
    const attn_unit_t *u = attn_take<ATTN_FORM_>(a, shared);
    const int n = attn_columns_t<D, SPLIT>::n;
    const int held = attn_held_t<D, SPLIT>::all;
    uint32_t q[attn_held_t<D, SPLIT>::size][4];
    attn_sum_t<n> part, total;
    float l[4] = {0, 0, 0, 0};
    uint32_t step, from = u->from / ATTN_TILE;
    uint32_t to = (u->to + ATTN_TILE - 1) / ATTN_TILE;
    uint64_t next = 0;
    unsigned stage = 0;
    int d;
    attn_t s;

    attn_begin<ATTN_FORM_>(&s, a, u, shared);
    attn_start<ATTN_FORM_>(&s, from, to);

#pragma unroll
    for (d = 0; d < held; d++) {
        ptx_ldmatrix_x4(q[d], shared + at::q + s.tile * ATTN_ROWS * at::ld
                                  + attn_row_a(s.lane, at::ld) + d * 32);
    }
    for (d = 0; d < 2; d++) {
        attn_clear(&part, d);
        attn_clear(&total, d);
    }

    for (step = from; step < to; step++) {
        // the step has come, for all; and all have done with the one before,
        // whose place the next one takes
        ptx_copy_wait<STAGES - 2>();
        __syncthreads();
        if (step + STAGES - 1 < to) {
            attn_load<ATTN_FORM_>(
                &s, step + STAGES - 1, stage == 0 ? STAGES - 1 : stage - 1);
        }
        ptx_copy_commit();

        // asked for here, put away below: it may take as long as the step
        if (threadIdx.x < ATTN_TILE && step + STAGES < to) {
            next = attn_where(
                &s, (step + STAGES) * ATTN_TILE + threadIdx.x, D * 2);
        }

        // a warp that shares its tile does not go alone: there are barriers
        if (SPLIT > 1
            || (s.tiles[1].first < (step + 1) * ATTN_TILE
                && s.tiles[1].end > step * ATTN_TILE)) {
            attn_step<ATTN_FORM_, n>(&s, step, stage, q, &part, l);
        }

        if (threadIdx.x < ATTN_TILE && step + STAGES < to) {
            attn_ring(&s, step + STAGES)[threadIdx.x] = next;
        }
        if (step + 1 == to
            || ((step + 1) * ATTN_TILE & ((1u << u->bits) - 1)) == 0) {
            attn_part_ends<D, n>(&s, (step + 1) * ATTN_TILE, &part, l, &total);
        }
        stage = stage + 1 == STAGES ? 0 : stage + 1;
    }

    attn_end<ATTN_FORM_, n>(&s, &total);
}

// A kernel for all head_dims that it has forms for.
typedef struct {
    uint32_t (*queries)(uint32_t head_dim); // of a tile; 0: there is no form
    uint32_t (*shared)(uint32_t head_dim);  // bytes that a block needs
    void (*open)(uint32_t most); // once for a device, whose blocks' is that
    void (*launch)(const attn_args_t *a, uint32_t head_dim, uint32_t type,
        uint32_t units, rt_stream_t stream);
} attn_kernel_t;

extern const attn_kernel_t attn_decode, attn_prefill;

#endif
