// Attention on tensor cores over the paged cache: what its two kernels share,
// attn_decode.cu for rows of few queries and attn_prefill.cu for others.  A
// block's tile is in attn_tile.cuh, a step in attn_step.cuh, the sums over
// steps in attn_sum.cuh.
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

#include "attn_step.cuh"
#include "rt.h"
#include "rt_kernel.cuh"

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
