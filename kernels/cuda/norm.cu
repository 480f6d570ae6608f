// Root mean square norm with the residual before it.
//
// DESIGN.  A block is a part of a row, read twice, the second time out of the
// first cache.  The sum goes over a thread's elements in steps of the block's
// width, then over the lanes, then over the warps: its order depends on dim
// alone.
//
// Bound: in decode the launch; in prefill memory, 3 or 4 floats an element.
#include "reduce.h"

// y may be x: a thread reads no element but its own.
__global__ void
norm_rms(const gpu_step_t *step, uint32_t which, float *x, const float *add,
    const float *w, float *y, uint32_t parts, uint32_t dim, float eps)
{
    GPU_SHARED(shared);
    uint32_t i;
    size_t at = static_cast<size_t>(blockIdx.x) * dim;
    float v, sum = 0;

    gpu_begin();
    if (blockIdx.x >= gpu_rows_in(step, which) * parts) {
        return;
    }

    for (i = threadIdx.x; i < dim; i += GPU_THREADS) {
        v = x[at + i];
        if (add != NULL) {
            v += add[at + i];
            x[at + i] = v;
        }
        sum += v * v;
    }

    sum = block_reduce(sum, reduce_sum(), shared);
    v = 1.0f / sqrtf(sum / static_cast<float>(dim) + eps);

    for (i = threadIdx.x; i < dim; i += GPU_THREADS) {
        y[at + i] = x[at + i] * v * w[i];
    }
}

void
cuda_rmsnorm(kn_dev_t *dev, const kn_rmsnorm_t *a)
{
    uint32_t n = gpu_rows(dev, a->rows) * a->parts;

    GPU_LAUNCH(norm_rms, dim3(n), dim3(GPU_THREADS), REDUCE_BYTES, dev->stream,
        gpu_step(dev), a->rows, gpu_ptr<float>(a->x),
        gpu_ptr<const float>(a->add), gpu_ptr<const float>(a->w),
        gpu_ptr<float>(a->y), a->parts, a->dim, a->eps);
}
