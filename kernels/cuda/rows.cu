// The rows that go over elements one by one: embeddings, sums, and what
// picks rows out.
//
// DESIGN.  A block takes a row's elements in steps of its width; the grid is
// [rows, 1].  Nothing here is more than a pass over memory.
#include "device.h"
#include "element.h"

__global__ void
rows_embed(const gpu_step_t *step, const void *w, uint32_t type, uint32_t n,
    uint32_t stride, uint32_t dim, float scale, uint32_t first, float *y)
{
    uint32_t i, row, t = blockIdx.x;
    size_t from;

    gpu_begin();
    if (t >= step->tokens_n) {
        return;
    }

    row = step->tokens[t] - first; // large where it is before
    from = static_cast<size_t>(row) * stride;
    for (i = threadIdx.x; i < dim; i += GPU_THREADS) {
        y[static_cast<size_t>(t) * dim + i] =
            row < n ? scale * element_get(type, w, from + i) : 0;
    }
}

void
cuda_embed(kn_dev_t *dev, const kn_embed_t *a)
{
    GPU_LAUNCH(rows_embed, dim3(gpu_rows(dev, KN_TOKENS)), dim3(GPU_THREADS), 0,
        dev->stream, gpu_step(dev), a->w->data, a->w->type, a->w->n,
        a->w->stride, a->w->k, a->scale, a->first, gpu_ptr<float>(a->y));
}

__global__ void
rows_add(const gpu_step_t *step, uint32_t which, float *x, const float *add,
    const float *gate, uint32_t dim)
{
    uint32_t i, t = blockIdx.x;
    size_t at = static_cast<size_t>(t) * dim;
    float by = 1;

    gpu_begin();
    if (t >= gpu_rows_in(step, which)) {
        return;
    }
    if (gate != NULL) {
        by = 1.0f / (1.0f + expf(-gate[t]));
    }
    for (i = threadIdx.x; i < dim; i += GPU_THREADS) {
        x[at + i] += by * add[at + i];
    }
}

void
cuda_add(kn_dev_t *dev, const kn_add_t *a)
{
    GPU_LAUNCH(rows_add, dim3(gpu_rows(dev, a->rows)), dim3(GPU_THREADS), 0,
        dev->stream, gpu_step(dev), a->rows, gpu_ptr<float>(a->x),
        gpu_ptr<const float>(a->add), gpu_ptr<const float>(a->gate), a->dim);
}

__global__ void
rows_gather(const gpu_step_t *step, const float *x, float *y, uint32_t dim)
{
    uint32_t i, o = blockIdx.x;
    size_t from;

    gpu_begin();
    if (o >= step->outs_n) {
        return;
    }

    from = static_cast<size_t>(step->outs[o].tok) * dim;
    for (i = threadIdx.x; i < dim; i += GPU_THREADS) {
        y[static_cast<size_t>(o) * dim + i] = x[from + i];
    }
}

void
cuda_gather(kn_dev_t *dev, const kn_gather_t *a)
{
    uint32_t n = gpu_rows(dev, KN_OUTS);

    if (n > 0) {
        GPU_LAUNCH(rows_gather, dim3(n), dim3(GPU_THREADS), 0, dev->stream,
            gpu_step(dev), gpu_ptr<const float>(a->x), gpu_ptr<float>(a->y),
            a->dim);
    }
}
