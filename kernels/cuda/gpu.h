// What every kernel file begins with: CUDA's own words under nvcc, those of
// tests/simt/simt.h under a host compiler, where a kernel runs without a GPU.
//
// Two things differ in how they are written, and are macros here: a launch,
// and the block's shared memory, which is always asked for at the launch.
#ifndef GPU_H
#define GPU_H

#ifdef __CUDACC__

#include "rt_launch.cuh"

#define GPU_LAUNCH(kernel, grid, block, shared, stream, ...)                   \
    rt_launch(grid, block, shared, stream, kernel, __VA_ARGS__)

#define GPU_SHARED(p)                                                          \
    extern __shared__ __align__(128) unsigned char gpu_shared_[];              \
    unsigned char *p = gpu_shared_

#else

#include "simt.h"

#define GPU_LAUNCH(kernel, grid, block, shared, stream, ...)                   \
    simt_start(stream, grid, block, shared, kernel, __VA_ARGS__)

#define GPU_SHARED(p) unsigned char *p = simt_shared()

#endif

#define GPU_LANES 32
#define GPU_ALL   0xffffffffu

#endif
