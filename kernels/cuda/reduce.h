// Sums and the like over a block of GPU_THREADS, in an order that is always the
// same: over the lanes, then over the warps.
#ifndef CUDA_REDUCE_H
#define CUDA_REDUCE_H

#include "device.h"

// Shared memory that a reduction has for itself.
#define REDUCE_BYTES (GPU_WARPS * sizeof(double))

struct reduce_sum {
    template <class T>
    __device__ __forceinline__ T
    operator()(T a, T b) const
    {
        return a + b;
    }
};

// NaN only if both are.
struct reduce_max {
    __device__ __forceinline__ float
    operator()(float a, float b) const
    {
        return fmaxf(a, b);
    }
};

struct reduce_least {
    __device__ __forceinline__ uint32_t
    operator()(uint32_t a, uint32_t b) const
    {
        return a < b ? a : b;
    }
};

template <class T, class F>
static __device__ __forceinline__ T
warp_reduce(T v, F f)
{
    int by;

    for (by = GPU_LANES / 2; by > 0; by /= 2) {
        v = f(v, __shfl_xor_sync(GPU_ALL, v, by));
    }

    return v;
}

// Of the block's v, in every thread.  The block may use shared again at once.
template <class T, class F>
static __device__ __forceinline__ T
block_reduce(T v, F f, unsigned char *shared)
{
    T *of = reinterpret_cast<T *>(shared);
    unsigned i, t = threadIdx.x;

    v = warp_reduce(v, f);
    if (t % GPU_LANES == 0) {
        of[t / GPU_LANES] = v;
    }
    __syncthreads();

    v = of[0];
    for (i = 1; i < GPU_WARPS; i++) {
        v = f(v, of[i]);
    }
    __syncthreads();

    return v;
}

#endif
