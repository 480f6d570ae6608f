// A launch on a GPU.
//
// DESIGN.  Launches of one stream follow one another, and each costs a
// microsecond in which nothing is computed.  With the attribute that is set here
// (programmatic stream serialization, compute capability 9.0) the next one's
// blocks come while the last ones of this are at work, read what does not
// depend on it, and wait for its end themselves: gpu_begin().  A kernel that
// did not wait would break the order of all that come after it.  A recording
// keeps it.
#ifndef RT_LAUNCH_H
#define RT_LAUNCH_H

#include <cuda_runtime.h>

extern int rt_overlaps; // rt.cu's: does the attribute count?

template <class... P, class... A>
static inline void
rt_launch(dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
    void (*kernel)(P...), const A &...args)
{
    cudaLaunchConfig_t c = {};
    cudaLaunchAttribute overlap = {};

    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
    c.gridDim = grid;
    c.blockDim = block;
    c.dynamicSmemBytes = shared;
    c.stream = stream;
    c.attrs = &overlap;
    c.numAttrs = rt_overlaps != 0;

    // an error stays, and is found where the step ends
    (void) cudaLaunchKernelEx(&c, kernel, static_cast<P>(args)...);
}

#endif
