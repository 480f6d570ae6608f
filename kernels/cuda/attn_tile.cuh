// A block's tile of attention (attn.cuh): what it is called with, where things
// lie in shared memory, and how queries and the cache's positions get there.
#ifndef CUDA_ATTN_TILE_H
#define CUDA_ATTN_TILE_H

#include "attn_plan.h"
#include "gpu.h"
#include "ptx.h"

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

#endif
