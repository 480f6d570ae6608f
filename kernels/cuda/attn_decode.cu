// Attention of rows with few queries: a tile is 16 of them, and four warps
// share it, each with 16 of a step's 64 positions and with a quarter of a
// head's columns.  attn.cuh has the rest.
#include "attn.cuh"

template <int D, int BF16>
__global__ void __launch_bounds__(128, D > 128 ? 1 : 2)
    attn_narrow(const attn_args_t a)
{
    GPU_SHARED(shared);

    if (blockIdx.x >= a.list->n) {
        ptx_wait_before(); // or the next kernel would not wait for the last
        return;
    }

    attn_block<D, 1, 4, (D > 128 ? 2 : 3), BF16>(&a, shared);
}

template <int D>
static uint32_t
shared_of(void)
{
    return attn_shared_t<D, 1, 4, (D > 128 ? 2 : 3)>::size;
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
    return size(head_dim) > 0 ? ATTN_ROWS : 0;
}

static void
open(uint32_t most)
{
#define X(d)                                                                   \
    if (shared_of<d>() <= most) {                                              \
        rt_allow_shared(attn_narrow<d, 0>, shared_of<d>());                    \
        rt_allow_shared(attn_narrow<d, 1>, shared_of<d>());                    \
    }
    ATTN_DIMS(X)
#undef X
}

static void
launch(const attn_args_t *a, uint32_t head_dim, uint32_t type, uint32_t units,
    rt_stream_t stream)
{
    (void) stream; // the emulator has one
    dim3 grid(units, a->kv_heads), block(128);

    switch (head_dim) {
#define X(d)                                                                   \
    case d:                                                                    \
        if (type == KN_BF16) {                                                 \
            GPU_LAUNCH(                                                        \
                (attn_narrow<d, 1>), grid, block, shared_of<d>(), stream, *a); \
        } else {                                                               \
            GPU_LAUNCH(                                                        \
                (attn_narrow<d, 0>), grid, block, shared_of<d>(), stream, *a); \
        }                                                                      \
        break;
        ATTN_DIMS(X)
#undef X
    default:
        break;
    }
}

const attn_kernel_t attn_decode = {queries, size, open, launch};
