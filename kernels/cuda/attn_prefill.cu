// Attention of rows with more queries: a tile is 128 of them, 16 of each warp,
// which keeps their sums, and their weights, in its registers.  Of the largest
// heads a tile is 64 queries, and two warps share 16 of them, or the sums would
// not fit.  attn.cuh has the rest.
#include "attn.cuh"

#define THREADS 256

template <int D, int BF16>
__global__ void
__launch_bounds__(THREADS, 1) attn_wide(const attn_args_t a)
{
    GPU_SHARED(shared);

    if (blockIdx.x >= a.list->n) {
        ptx_wait_before(); // or the next kernel would not wait for the last
        return;
    }

    attn_block<D, (D > 128 ? 4 : 8), (D > 128 ? 2 : 1), 2, BF16>(&a, shared);
}

template <int D>
static uint32_t
shared_of(void)
{
    return attn_shared_t<D, (D > 128 ? 4 : 8), (D > 128 ? 2 : 1), 2>::size;
}

static uint32_t
size(uint32_t head_dim)
{
    switch (head_dim) {
#define X(d)                                                                   \
    case d:                                                                    \
        return shared_of<d>();
        ATTN_DIMS(X)
#undef X
    default:
        return 0;
    }
}

static uint32_t
queries(uint32_t head_dim)
{
    return size(head_dim) == 0 ? 0 : head_dim > 128 ? 64 : 128;
}

static void
open(uint32_t most)
{
#define X(d)                                                                   \
    if (shared_of<d>() <= most) {                                              \
        rt_allow_shared(attn_wide<d, 0>, shared_of<d>());                      \
        rt_allow_shared(attn_wide<d, 1>, shared_of<d>());                      \
    }
    ATTN_DIMS(X)
#undef X
}

static void
launch(const attn_args_t *a, uint32_t head_dim, uint32_t type, uint32_t units,
    rt_stream_t stream)
{
    (void) stream; // the emulator has one
    dim3 grid(units, a->kv_heads), block(THREADS);

    switch (head_dim) {
#define X(d)                                                                   \
    case d:                                                                    \
        if (type == KN_BF16) {                                                 \
            GPU_LAUNCH(                                                        \
                (attn_wide<d, 1>), grid, block, shared_of<d>(), stream, *a);   \
        } else {                                                               \
            GPU_LAUNCH(                                                        \
                (attn_wide<d, 0>), grid, block, shared_of<d>(), stream, *a);   \
        }                                                                      \
        break;
        ATTN_DIMS(X)
#undef X
    default:
        break;
    }
}

const attn_kernel_t attn_prefill = {queries, size, open, launch};
