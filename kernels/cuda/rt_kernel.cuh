// What a launch needs to know of the device, or to ask of it beforehand; the
// emulator's device has the H200's shared memory and few multiprocessors.
#ifndef RT_KERNEL_H
#define RT_KERNEL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __CUDACC__

#include "rt_judge.h"

#include <cuda_runtime.h>

static inline void
rt_kernel_check(cudaError_t e)
{
    if (e != cudaSuccess) {
        rt_die("preparing kernels", cudaGetErrorString(e));
    }
}

// Launches of kernel may ask for so many bytes of shared memory.
template <class F>
static inline void
rt_allow_shared(F *kernel, size_t n)
{
    rt_kernel_check(cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel),
        cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(n)));
}

// Has the kernel loaded, for which its first launch might wait.
template <class F>
static inline void
rt_ready(F *kernel)
{
    cudaFuncAttributes a;

    rt_kernel_check(
        cudaFuncGetAttributes(&a, reinterpret_cast<const void *>(kernel)));
}

static inline uint32_t
rt_attribute(cudaDeviceAttr which)
{
    int device, n;

    rt_kernel_check(cudaGetDevice(&device));
    rt_kernel_check(cudaDeviceGetAttribute(&n, which, device));

    return static_cast<uint32_t>(n);
}

// The most that a block may have of it, and all that a multiprocessor has.
static inline uint32_t
rt_shared_max(void)
{
    return rt_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
}

static inline uint32_t
rt_shared_all(void)
{
    return rt_attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor);
}

static inline uint32_t
rt_multiprocessors(void)
{
    return rt_attribute(cudaDevAttrMultiProcessorCount);
}

#else

#include "simt.h"

template <class F>
static inline void
rt_allow_shared(F *kernel, size_t n)
{
    simt_allow(reinterpret_cast<const void *>(kernel), n);
}

template <class F>
static inline void
rt_ready(F *kernel)
{
    (void) kernel;
}

static inline uint32_t
rt_shared_max(void)
{
    return 227 * 1024;
}

static inline uint32_t
rt_shared_all(void)
{
    return 228 * 1024;
}

static inline uint32_t
rt_multiprocessors(void)
{
    return 3;
}

#endif

#endif
