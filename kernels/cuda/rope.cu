// Rotary positions, and keys and values into the paged cache.
//
// DESIGN.  Angles are products and functions of doubles, once a step.  A block
// of rope_store is a token: its threads go over pairs of q, then of k, then
// over what is not rotated and the values.  A pair is rotated by one thread,
// which alone reads and writes it, in the same two fused steps for q and k.
//
// Where values are inside of keys (latents) k holds what comes before them, and
// the rotated elements are there.
#include "device.h"
#include "element.h"

// The sine and cosine of an angle, which is first brought into half a turn each
// way: 1 / pi in two doubles, so that what is left is exact to the angle's own
// rounding.  CUDA's sin() does this too, in memory of each thread's own where
// the angle is large; none here is.
static __device__ __forceinline__ void
half_turns(double angle, double *s, double *c)
{
    const double by = 0x1.45f306dc9c883p-2, rest = -0x1.6b01ec5417056p-56;
    double turns = angle * by;
    double left = fma(angle, by, -turns) + angle * rest;

    sincospi(turns - 2 * rint(turns / 2) + left, s, c);
}

__global__ void
rope_angles(const gpu_step_t *step, const double *freq, float *cs,
    uint32_t half, double scale)
{
    uint32_t i, t = blockIdx.x;
    double s, c;
    size_t at;

    gpu_begin();
    if (t >= step->tokens_n) {
        return;
    }

    for (i = threadIdx.x; i < half; i += GPU_THREADS) {
        half_turns(step->pos[t] * freq[i], &s, &c);
        at = (static_cast<size_t>(t) * half + i) * 2;
        cs[at] = static_cast<float>(scale * c);
        cs[at + 1] = static_cast<float>(scale * s);
    }
}

void
cuda_rope_angles(kn_dev_t *dev, const kn_rope_angles_t *a)
{
    GPU_LAUNCH(rope_angles, dim3(gpu_rows(dev, KN_TOKENS)), dim3(GPU_THREADS),
        0, dev->stream, gpu_step(dev), gpu_ptr<const double>(a->freq),
        gpu_ptr<float>(a->cs), a->half, a->scale);
}

// What a token's block needs of the op; by value, 4 KB are allowed.
typedef struct {
    float *q;
    const float *k, *v, *cs;
    uint32_t heads, half, halves;
    unsigned char *cache;
    uint64_t stride, k_off, v_off;
    uint32_t group, type, block_tokens, kv_heads, head_dim, v_dim, inside;
} rope_t;

// Elements of pair i of a head: neighbours, or half apart.
static __device__ __forceinline__ void
pair_of(const rope_t *a, uint32_t i, uint32_t *first, uint32_t *second)
{
    *first = a->halves ? i : 2 * i;
    *second = a->halves ? i + a->half : 2 * i + 1;
}

static __device__ __forceinline__ float2
rotate(float x, float y, const float *cs)
{
    return make_float2(x * cs[0] - y * cs[1], y * cs[0] + x * cs[1]);
}

static __device__ __forceinline__ void
rotate_q(const rope_t *a, float *q, const float *cs)
{
    uint32_t i, h, x, y;
    float2 r;

    for (i = threadIdx.x; i < a->heads * a->half; i += GPU_THREADS) {
        h = i / a->half;
        pair_of(a, i % a->half, &x, &y);
        x += h * a->head_dim;
        y += h * a->head_dim;
        r = rotate(q[x], q[y], cs + i % a->half * 2);
        q[x] = r.x;
        q[y] = r.y;
    }
}

// Where head h has its row of width elements, of the token in its place.
static __device__ __forceinline__ unsigned char *
row_of(const rope_t *a, unsigned char *to, uint32_t h, uint32_t place,
    uint32_t width)
{
    return to
           + (static_cast<size_t>(h) * a->block_tokens + place)
                 * kv_bytes(a->type, width);
}

// Element e of a key head, rotated.
static __device__ __forceinline__ float
rotated(const rope_t *a, const float *k, const float *cs, uint32_t e)
{
    uint32_t i, x, y;
    float2 r;

    if (e >= 2 * a->half) {
        return k[e];
    }

    i = a->halves ? e % a->half : e / 2;
    pair_of(a, i, &x, &y);
    r = rotate(k[x], k[y], cs + i * 2);

    return e == x ? r.x : r.y;
}

// A warp's 32 elements as a block of Q8_0, v being the lane's.
static __device__ __forceinline__ void
put_block(unsigned char *to, float v)
{
    uint32_t lane = threadIdx.x % GPU_LANES, top;
    float d, q;
    __half factor;
    int by;

    // magnitudes order as their bits, and a NaN is the largest
    top = __float_as_uint(v) & 0x7fffffff;
    for (by = GPU_LANES / 2; by > 0; by /= 2) {
        top = max(top, __shfl_xor_sync(GPU_ALL, top, by));
    }

    factor = __float2half_rn(__uint_as_float(top) / 127);
    d = __half2float(factor);
    if (!(d <= 65504)) {
        factor = __ushort_as_half(0x7e00);
        d = 0;
    }

    q = d > 0 ? rintf(v * (1 / d)) : 0;
    q = q < -128 ? -128 : q > 127 ? 127 : q;
    to[2 + lane] = static_cast<unsigned char>(static_cast<int>(q));
    if (lane < 2) {
        to[lane] =
            static_cast<unsigned char>(__half_as_ushort(factor) >> 8 * lane);
    }
}

// The same as store_k() and store_v(), a block of Q8_0 each warp's.
static __device__ __forceinline__ void
store_blocks(const rope_t *a, const float *k, const float *v, const float *cs,
    unsigned char *keys, unsigned char *values, uint32_t place)
{
    uint32_t i, h, e, own = a->head_dim - (a->inside ? a->v_dim : 0);
    uint32_t width = a->inside ? a->head_dim : a->v_dim;
    uint32_t warp = threadIdx.x / GPU_LANES, lane = threadIdx.x % GPU_LANES;

    for (i = warp; i < a->kv_heads * (own / 32); i += GPU_WARPS) {
        h = i / (own / 32);
        e = i % (own / 32) * 32;
        put_block(row_of(a, keys, h, place, a->head_dim) + kv_bytes(KN_Q8_0, e),
            rotated(a, k + h * own, cs, e + lane));
    }

    for (i = warp; i < a->kv_heads * (a->v_dim / 32); i += GPU_WARPS) {
        h = i / (a->v_dim / 32);
        e = i % (a->v_dim / 32) * 32;
        put_block(row_of(a, values, h, place, width)
                      + kv_bytes(KN_Q8_0, width - a->v_dim + e),
            v[h * a->v_dim + e + lane]);
    }
}

// Key head h of the token in its place, e elements of it being k's own.
static __device__ __forceinline__ void
store_k(const rope_t *a, const float *k, const float *cs, unsigned char *to,
    uint32_t place)
{
    uint32_t i, h, e, x, y, own = a->head_dim - (a->inside ? a->v_dim : 0);
    size_t at;
    float2 r;

    for (i = threadIdx.x; i < a->kv_heads * a->half; i += GPU_THREADS) {
        h = i / a->half;
        pair_of(a, i % a->half, &x, &y);
        r = rotate(k[h * own + x], k[h * own + y], cs + i % a->half * 2);
        at = (static_cast<size_t>(h) * a->block_tokens + place) * a->head_dim;
        element_put(a->type, to, at + x, r.x);
        element_put(a->type, to, at + y, r.y);
    }

    e = own - 2 * a->half;
    for (i = threadIdx.x; i < a->kv_heads * e; i += GPU_THREADS) {
        h = i / e;
        x = 2 * a->half + i % e;
        at = (static_cast<size_t>(h) * a->block_tokens + place) * a->head_dim;
        element_put(a->type, to, at + x, k[h * own + x]);
    }
}

static __device__ __forceinline__ void
store_v(const rope_t *a, const float *v, unsigned char *to, uint32_t place)
{
    uint32_t i, h, width = a->inside ? a->head_dim : a->v_dim;
    uint32_t first = width - a->v_dim;

    for (i = threadIdx.x; i < a->kv_heads * a->v_dim; i += GPU_THREADS) {
        h = i / a->v_dim;
        element_put(a->type, to,
            (static_cast<size_t>(h) * a->block_tokens + place) * width + first
                + i % a->v_dim,
            v[i]);
    }
}

__global__ void
rope_store(const gpu_step_t *step, rope_t a)
{
    uint32_t pos, place, t = blockIdx.x;
    const kn_blocks_t *b;
    unsigned char *block, *values;
    const float *cs, *k, *v;
    size_t own = a.head_dim - (a.inside ? a.v_dim : 0);

    gpu_begin();
    if (t >= step->tokens_n) {
        return;
    }

    pos = step->pos[t];
    place = pos % a.block_tokens;
    b = &step->rows[step->row[t]].blocks[a.group];
    block = a.cache
            + step->blocks[b->at + pos / a.block_tokens - b->first] * a.stride;
    cs = a.cs + static_cast<size_t>(t) * a.half * 2;

    k = a.k + static_cast<size_t>(t) * a.kv_heads * own;
    v = a.v + static_cast<size_t>(t) * a.kv_heads * a.v_dim;
    values = block + (a.inside ? a.k_off : a.v_off);
    rotate_q(&a, a.q + static_cast<size_t>(t) * a.heads * a.head_dim, cs);

    if (a.type == KN_Q8_0) {
        store_blocks(&a, k, v, cs, block + a.k_off, values, place);
    } else {
        store_k(&a, k, cs, block + a.k_off, place);
        store_v(&a, v, values, place);
    }
}

void
cuda_rope_store(kn_dev_t *dev, const kn_rope_store_t *a)
{
    rope_t r = {gpu_ptr<float>(a->q), gpu_ptr<const float>(a->k),
        gpu_ptr<const float>(a->v), gpu_ptr<const float>(a->cs), a->heads,
        a->half, a->halves, gpu_ptr<unsigned char>(a->kv.kv), a->kv.stride,
        a->kv.k_off, a->kv.v_off, a->kv.group, a->kv.type, a->kv.block_tokens,
        a->kv.kv_heads, a->kv.head_dim, a->kv.v_dim, a->kv.inside};

    GPU_LAUNCH(rope_store, dim3(gpu_rows(dev, KN_TOKENS)), dim3(GPU_THREADS), 0,
        dev->stream, gpu_step(dev), r);
}
