// Elements of 16 and 32 bits as floats and back, rounded to nearest even.
#ifndef CUDA_ELEMENT_H
#define CUDA_ELEMENT_H

#include "gpu.h"

#include "../kernels.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

// Element i of p, of type KN_F32, KN_F16 or KN_BF16.
static __device__ __forceinline__ float
element_get(uint32_t type, const void *p, size_t i)
{
    switch (type) {

    case KN_F16:
        return __half2float(static_cast<const __half *>(p)[i]);

    case KN_BF16:
        return __bfloat162float(static_cast<const __nv_bfloat16 *>(p)[i]);

    default:
        return static_cast<const float *>(p)[i];
    }
}

static __host__ __device__ __forceinline__ void
element_put(uint32_t type, void *p, size_t i, float v)
{
    switch (type) {

    case KN_F16:
        static_cast<__half *>(p)[i] = __float2half_rn(v);
        break;

    case KN_BF16:
        static_cast<__nv_bfloat16 *>(p)[i] = __float2bfloat16_rn(v);
        break;

    default:
        static_cast<float *>(p)[i] = v;
    }
}

static __host__ __device__ __forceinline__ size_t
element_size(uint32_t type)
{
    return type == KN_F32 ? 4 : 2;
}

// Bytes of n elements of a row of the cache.
static __device__ __forceinline__ size_t
kv_bytes(uint32_t type, size_t n)
{
    return type == KN_Q8_0 ? n / 32 * 34 : n * element_size(type);
}

// Element i of a row of the cache.
static __device__ __forceinline__ float
kv_get(uint32_t type, const unsigned char *row, size_t i)
{
    const unsigned char *block;
    float d;

    if (type != KN_Q8_0) {
        return element_get(type, row, i);
    }

    block = row + i / 32 * 34;
    d = __half2float(__ushort_as_half(
        static_cast<unsigned short>(block[0] | block[1] << 8)));

    return d * static_cast<float>(static_cast<signed char>(block[2 + i % 32]));
}

#endif
