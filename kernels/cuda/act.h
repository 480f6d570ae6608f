// The gate's activations; kernels.h has the formulas.
#ifndef CUDA_ACT_H
#define CUDA_ACT_H

#include "gpu.h"

#include "../kernels.h"

static __device__ __forceinline__ float
act_of(uint32_t act, float g, float u, float limit)
{
    const float twice = 1.59576912f; // 2 sqrt(2 / pi)

    switch (act) {

    case KN_SILU:
        return g / (1.0f + expf(-g)) * u;

    case KN_GELU:
        return g / (1.0f + expf(-twice * (g + 0.044715f * g * g * g))) * u;

    default: // KN_CLAMP; NaN is beyond no limit and stays
        g = g > limit ? limit : g;
        u = u > limit ? limit : u < -limit ? -limit : u;
        return g / (1.0f + expf(-1.702f * g)) * (u + 1.0f);
    }
}

#endif
