// Attention over the paged cache, for any type, shape and option.
//
// DESIGN.  A warp is a token and a head.  It goes over the positions that the
// token sees 32 at a time: each lane has a position's score, whose query is in
// shared memory; then each lane has some elements of the sum of values, and the
// weights are in shared memory.  The running maximum and sum are F32, as is all
// arithmetic.  Steps of 32 begin at multiples of 32 positions, so that what a
// token sees, and not where it stands in a step, gives the order.
//
// This is what there is for every case, and slow: each lane reads a key of its
// own, and nothing is shared between the heads of a group.  The common cases
// are attn_fast()'s, which is asked first.
#include "element.h"
#include "reduce.h"

#define PLAIN_DIMS 18 // of 32 elements: heads up to 576

typedef struct {
    const float *q, *sinks;
    float *y;
    const unsigned char *cache;
    uint32_t heads, window;
    float scale, cap;
    uint64_t stride, k_off, v_off;
    uint32_t group, type, block_tokens, kv_heads, head_dim, v_dim, inside;
} plain_t;

// The block that has position pos of a row.
static __device__ __forceinline__ const unsigned char *
block_at(const gpu_step_t *step, const plain_t &a, uint32_t t, uint32_t pos)
{
    const kn_blocks_t *b = &step->rows[step->row[t]].blocks[a.group];
    uint32_t number = pos / a.block_tokens - b->first;

    return a.cache + step->blocks[b->at + number] * a.stride;
}

static __device__ __forceinline__ const unsigned char *
key_at(const gpu_step_t *step, const plain_t &a, uint32_t t, uint32_t pos,
    uint32_t h)
{
    return block_at(step, a, t, pos) + a.k_off
           + (static_cast<size_t>(h) * a.block_tokens + pos % a.block_tokens)
                 * kv_bytes(a.type, a.head_dim);
}

static __device__ __forceinline__ const unsigned char *
value_at(const gpu_step_t *step, const plain_t &a, uint32_t t, uint32_t pos,
    uint32_t h)
{
    return a.inside ? key_at(step, a, t, pos, h)
                          + kv_bytes(a.type, a.head_dim - a.v_dim)
                    : block_at(step, a, t, pos) + a.v_off
                          + (static_cast<size_t>(h) * a.block_tokens
                                + pos % a.block_tokens)
                                * kv_bytes(a.type, a.v_dim);
}

static __device__ __forceinline__ float
score(const plain_t &a, const float *q, const unsigned char *key)
{
    float s = 0;
    uint32_t e;

    for (e = 0; e < a.head_dim; e++) {
        s = fmaf(q[e], kv_get(a.type, key, e), s);
    }
    s *= a.scale;

    return a.cap > 0 ? a.cap * tanhf(s / a.cap) : s;
}

// DIMS: elements of a value, in 32s.
template <int DIMS>
__global__ void
attn_plain(const gpu_step_t *step, plain_t a)
{
    GPU_SHARED(shared);
    float *weights = reinterpret_cast<float *>(shared);
    float *q = weights + GPU_LANES; // [head_dim]
    uint32_t t = blockIdx.x / a.heads, head = blockIdx.x % a.heads;
    uint32_t h = head / (a.heads / a.kv_heads), lane = threadIdx.x;
    uint32_t i, at, end, begin, pos, e;
    float sum = 0, max = -INFINITY, s, w, by, top, acc[DIMS];
    const unsigned char *row;

    gpu_begin();
    if (t >= step->tokens_n) {
        return;
    }

    end = step->pos[t] + 1;
    begin = a.window > 0 && end > a.window ? end - a.window : 0;
    for (e = lane; e < a.head_dim; e += GPU_LANES) {
        q[e] = a.q[static_cast<size_t>(blockIdx.x) * a.head_dim + e];
    }
#pragma unroll
    for (i = 0; i < DIMS; i++) {
        acc[i] = 0;
    }
    if (a.sinks != NULL) { // a score whose value is zeros
        max = a.sinks[head];
        sum = 1;
    }
    __syncwarp();

    for (at = begin / GPU_LANES * GPU_LANES; at < end; at += GPU_LANES) {
        pos = at + lane;
        s = pos >= begin && pos < end ? score(a, q, key_at(step, a, t, pos, h))
                                      : -INFINITY;
        top = fmaxf(max, warp_reduce(s, reduce_max()));
        w = pos >= begin && pos < end ? expf(s - top) : 0;
        by = expf(max - top);
        max = top;
        sum = sum * by + warp_reduce(w, reduce_sum());
        __syncwarp(); // the weights before have been read
        weights[lane] = w;
        __syncwarp();

#pragma unroll
        for (i = 0; i < DIMS; i++) {
            acc[i] *= by;
        }
        for (pos = at > begin ? at : begin; pos < end && pos < at + GPU_LANES;
             pos++) {
            row = value_at(step, a, t, pos, h);
            w = weights[pos - at];
#pragma unroll
            for (i = 0; i < DIMS; i++) {
                e = i * GPU_LANES + lane;
                if (e < a.v_dim) {
                    acc[i] = fmaf(w, kv_get(a.type, row, e), acc[i]);
                }
            }
        }
    }

#pragma unroll
    for (i = 0; i < DIMS; i++) {
        e = i * GPU_LANES + lane;
        if (e < a.v_dim) {
            a.y[static_cast<size_t>(blockIdx.x) * a.v_dim + e] = acc[i] / sum;
        }
    }
}

void
cuda_attn(kn_dev_t *dev, const kn_attn_t *a)
{
    uint32_t n = gpu_rows(dev, KN_TOKENS) * a->heads;
    size_t shared = (GPU_LANES + a->kv.head_dim) * sizeof(float);
    plain_t p = {gpu_ptr<const float>(a->q), gpu_ptr<const float>(a->sinks),
        gpu_ptr<float>(a->y), gpu_ptr<const unsigned char>(a->kv.kv), a->heads,
        a->window, a->scale, a->cap, a->kv.stride, a->kv.k_off, a->kv.v_off,
        a->kv.group, a->kv.type, a->kv.block_tokens, a->kv.kv_heads,
        a->kv.head_dim, a->kv.v_dim, a->kv.inside};
    attn_step_t at = gpu_attn_step(dev);

    assert(a->kv.v_dim <= PLAIN_DIMS * GPU_LANES);
    if (attn_fast(dev->attn, a, &at, dev->stream)) {
        return;
    }

    if (a->kv.v_dim <= 2 * GPU_LANES) {
        GPU_LAUNCH(attn_plain<2>, dim3(n), dim3(GPU_LANES), shared, dev->stream,
            gpu_step(dev), p);
    } else if (a->kv.v_dim <= 4 * GPU_LANES) {
        GPU_LAUNCH(attn_plain<4>, dim3(n), dim3(GPU_LANES), shared, dev->stream,
            gpu_step(dev), p);
    } else {
        GPU_LAUNCH(attn_plain<PLAIN_DIMS>, dim3(n), dim3(GPU_LANES), shared,
            dev->stream, gpu_step(dev), p);
    }
}
