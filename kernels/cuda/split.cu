// Activations as tensor cores read them; split.h says why and how.
#include "split.h"
#include "reduce.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

typedef struct {
    uint16_t *high[SPLIT_KINDS], *low[SPLIT_KINDS];
    float *back;
    uint32_t kinds;
} split_to_t;

// 2^e of bits; e from -126 to 127.
static __device__ __forceinline__ float
power_of_two(int e)
{
    return __uint_as_float(static_cast<uint32_t>(e + 127) << 23);
}

static __device__ __forceinline__ void
split_bf16(const split_to_t &to, size_t at, float v)
{
    __nv_bfloat16 high = __float2bfloat16_rn(v);

    to.high[SPLIT_BF16][at] = __bfloat16_as_ushort(high);
    to.low[SPLIT_BF16][at] =
        __bfloat16_as_ushort(__float2bfloat16_rn(v - __bfloat162float(high)));
}

static __device__ __forceinline__ void
split_f16(const split_to_t &to, size_t at, float v)
{
    __half high = __float2half_rn(v);

    to.high[SPLIT_F16][at] = __half_as_ushort(high);
    to.low[SPLIT_F16][at] =
        __half_as_ushort(__float2half_rn(v - __half2float(high)));
}

// A block is a row.
__global__ void
split_row(const gpu_step_t *step, split_rows_t a, split_to_t to)
{
    GPU_SHARED(shared);
    uint32_t i, kpad = gpu_whole(a.k), r = a.first + blockIdx.x;
    const float *x = a.x + r / a.heads * a.ld + r % a.heads * a.between;
    size_t at = static_cast<size_t>(blockIdx.x) * kpad;
    float v, max = 0, scale = 1;
    int e;

    gpu_begin();
    if (r >= gpu_rows_in(step, a.which) * a.heads) {
        return;
    }

    if (to.kinds & 1u << SPLIT_F16) {
        for (i = threadIdx.x; i < a.k; i += GPU_THREADS) {
            max = fmaxf(max, fabsf(x[i]));
        }
        max = block_reduce(max, reduce_max(), shared);
        e = 13 + 127 - static_cast<int>(__float_as_uint(max) >> 23);
        e = e > 126 ? 126 : e < -114 ? 0 : e; // not finite: as it is
        scale = power_of_two(e);
        if (threadIdx.x == 0) {
            to.back[blockIdx.x] = power_of_two(-e);
        }
    }

    for (i = threadIdx.x; i < kpad; i += GPU_THREADS) {
        v = i < a.k ? x[i] : 0;
        if (to.kinds & 1u << SPLIT_BF16) {
            split_bf16(to, at + i, v);
        }
        if (to.kinds & 1u << SPLIT_F16) {
            split_f16(to, at + i, v * scale);
        }
    }
}

uint32_t
split_room(const kn_dev_t *dev, uint32_t k)
{
    return static_cast<uint32_t>(dev->scratch.room / gpu_whole(k));
}

void
split_rows(kn_dev_t *dev, const split_rows_t *a, uint32_t kinds)
{
    const gpu_scratch_t *s = &dev->scratch;
    split_to_t to;
    int i;

    assert(a->n <= split_room(dev, a->k));

    for (i = 0; i < SPLIT_KINDS; i++) {
        to.high[i] = s->high[i];
        to.low[i] = s->low[i];
    }
    to.back = s->back;
    to.kinds = kinds;

    if (kinds != 0 && a->n > 0) {
        GPU_LAUNCH(split_row, dim3(a->n), dim3(GPU_THREADS), REDUCE_BYTES,
            dev->stream, gpu_step(dev), *a, to);
    }
}
