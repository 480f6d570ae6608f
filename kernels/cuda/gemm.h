// Products of few rows of activations with a weight matrix, by one block.
//
// DESIGN.  Weights are what there is to read, so they are read once, 16 bytes a
// lane, straight into the fragments of the matrix product: 16 of their rows are
// operand A, 8 rows of activations operand B.  An operand's k elements may
// stand in any order if both have the same: in a chunk of 32 lane t of a quad
// has elements 8 t to 8 t + 7, the first four of them for the first product of
// 16, the others for the second.  So row-major weights need no shared memory
// and no layout of their own.
//
//      block       8 warps, two tiles of 16 weight rows, NT tiles of 8 rows
//                  of activations
//      warp w      chunks w, w + 8, w + 16, ... of k; GEMM_DEPTH chunks of
//                  weights are on their way at a time, 64 KB a block
//      then        the warps' sums are added in their order, in shared memory
//
// The two tiles are neighbours in one matrix, or the same rows of a gate and
// of what it lets through, whose sums then meet in one thread.
//
// The order of an output's terms: in a chunk the low halves of the activations
// before the high ones, by halves of the chunk; then a warp's chunks; then the
// warps.  It depends on k alone.
//
// F32 weights are multiplied by plain arithmetic in the same frame: they are
// routers and the like, and small.
//
// Bound: memory, up to about 32 rows; then weights are read again by the next
// 32, out of the second cache if they are in it.
#ifndef CUDA_GEMM_H
#define CUDA_GEMM_H

#include "element.h"
#include "ptx.h"
#include "split.h"

#define GEMM_DEPTH 4
#define GEMM_TILE  16 // weight rows

// Bytes of shared memory of a block.
#define GEMM_BYTES(nt) (GPU_WARPS * 2 * (nt) *4 * GPU_LANES * sizeof(float))

// A matrix as a kernel has it.
typedef struct {
    const void *w;
    const float *bias; // or NULL
    uint32_t type, stride, n;
} gemm_mat_t;

// Rows of activations: split, and as they are.
typedef struct {
    const uint16_t *high[SPLIT_KINDS], *low[SPLIT_KINDS];
    const float *back;
    const float *x; // row r is at x + (r / heads) * ld + (r % heads) * between
    uint64_t ld, between;
    uint32_t heads;
    uint32_t first; // the number of split row 0
    uint32_t k;
} gemm_x_t;

// Which of them are the block's columns: split row numbers; columns beyond the
// rows that there are have any row's, and what becomes of them is dropped.
typedef struct {
    const uint32_t *list; // [n] pairs, each of row list[i] / by; or NULL
    uint32_t begin, n, by;
    uint32_t step, add; // column i is row i * step + add, without a list
} gemm_cols_t;

static __device__ __forceinline__ uint32_t
gemm_row(const gemm_cols_t &c, uint32_t i)
{
    i = i < c.n ? i : c.n - 1;

    return c.list != NULL ? c.list[c.begin + i] / c.by
                          : (c.begin + i) * c.step + c.add;
}

// Rows g and g + 8 of a tile, the last one standing for those beyond it.
template <class T>
static __device__ __forceinline__ const T *
gemm_at(const gemm_mat_t &m, uint32_t row)
{
    row = row < m.n ? row : m.n - 1;

    return static_cast<const T *>(m.w) + static_cast<size_t>(row) * m.stride;
}

template <int KIND>
static __device__ __forceinline__ void
gemm_mma(float c[4], const uint32_t a[4], const uint32_t b[2])
{
    if (KIND == SPLIT_F16) {
        ptx_mma_f16(c, a, b);
    } else {
        ptx_mma_bf16(c, a, b);
    }
}

// c += a tile's chunk by one of 8 rows of activations.
template <int KIND>
static __device__ __forceinline__ void
gemm_chunk(float c[4], const uint4 w[2], uint4 low, uint4 high)
{
    const uint32_t first[4] = {w[0].x, w[1].x, w[0].y, w[1].y};
    const uint32_t second[4] = {w[0].z, w[1].z, w[0].w, w[1].w};
    const uint32_t l0[2] = {low.x, low.y}, h0[2] = {high.x, high.y};
    const uint32_t l1[2] = {low.z, low.w}, h1[2] = {high.z, high.w};

    gemm_mma<KIND>(c, first, l0);
    gemm_mma<KIND>(c, first, h0);
    gemm_mma<KIND>(c, second, l1);
    gemm_mma<KIND>(c, second, h1);
}

// A warp's share of the products, by tensor cores.
template <int KIND, int NT>
static __device__ __forceinline__ void
gemm_cores(float acc[2][NT][4], const gemm_x_t &x, const gemm_cols_t &cols,
    uint32_t col, const gemm_mat_t &m0, const gemm_mat_t &m1,
    const uint32_t row[2], int begins)
{
    uint32_t c, lane = threadIdx.x % GPU_LANES, g = lane / 4, t = lane % 4;
    uint32_t chunks = gpu_parts(x.k, GPU_CHUNK), kpad = chunks * GPU_CHUNK;
    const uint16_t *w[2][2];
    uint4 a[GEMM_DEPTH][2][2], low, high;
    size_t at[NT];
    int i, j, d;

    w[0][0] = gemm_at<uint16_t>(m0, row[0] + g) + t * 8;
    w[0][1] = gemm_at<uint16_t>(m0, row[0] + g + 8) + t * 8;
    w[1][0] = gemm_at<uint16_t>(m1, row[1] + g) + t * 8;
    w[1][1] = gemm_at<uint16_t>(m1, row[1] + g + 8) + t * 8;
#pragma unroll
    for (j = 0; j < NT; j++) {
        at[j] =
            static_cast<size_t>(gemm_row(cols, col + j * 8 + g)) * kpad + t * 8;
    }

    for (c = threadIdx.x / GPU_LANES; c < chunks; c += GPU_WARPS * GEMM_DEPTH) {
#pragma unroll
        for (d = 0; d < GEMM_DEPTH; d++) {
            if (c + d * GPU_WARPS < chunks) {
#pragma unroll
                for (i = 0; i < 4; i++) {
                    a[d][i / 2][i % 2] = ptx_load_once(
                        w[i / 2][i % 2] + (c + d * GPU_WARPS) * GPU_CHUNK);
                }
            }
        }

        // weights are on their way, whatever the kernel before does
        if (begins) {
            gpu_begin();
            begins = 0;
        }

#pragma unroll
        for (d = 0; d < GEMM_DEPTH; d++) {
            if (c + d * GPU_WARPS < chunks) {
#pragma unroll
                for (j = 0; j < NT; j++) {
                    low = *reinterpret_cast<const uint4 *>(
                        x.low[KIND] + at[j] + (c + d * GPU_WARPS) * GPU_CHUNK);
                    high = *reinterpret_cast<const uint4 *>(
                        x.high[KIND] + at[j] + (c + d * GPU_WARPS) * GPU_CHUNK);
                    gemm_chunk<KIND>(acc[0][j], a[d][0], low, high);
                    gemm_chunk<KIND>(acc[1][j], a[d][1], low, high);
                }
            }
        }
    }

    if (begins) { // a warp without a chunk
        gpu_begin();
    }
}

// The same of F32 weights, into shared memory: the lane's sums one by one.  Not
// unrolled, as code is a cost and speed is not wanted here.
template <int NT>
static __device__ __forceinline__ void
gemm_plain(float *shared, const gemm_x_t &x, const gemm_cols_t &cols,
    uint32_t col, const gemm_mat_t &m, uint32_t row, uint32_t tile)
{
    uint32_t i, c, e, end, r, lane = threadIdx.x % GPU_LANES;
    uint32_t warp = threadIdx.x / GPU_LANES;
    const float *w, *from;
    float sum;

#pragma unroll 1
    for (i = 0; i < NT * 4; i++) {
        r = gemm_row(cols, col + i / 4 * 8 + lane % 4 * 2 + i % 2) + x.first;
        from = x.x + r / x.heads * x.ld + r % x.heads * x.between;
        w = gemm_at<float>(m, row + lane / 4 + i % 4 / 2 * 8);
        sum = 0;

#pragma unroll 1
        for (c = warp * GPU_CHUNK; c < x.k; c += GPU_WARPS * GPU_CHUNK) {
            end = c + GPU_CHUNK < x.k ? c + GPU_CHUNK : x.k;
#pragma unroll 4
            for (e = c; e < end; e++) {
                sum = fmaf(w[e], from[e], sum);
            }
        }
        shared[((warp * 2 + tile) * NT * 4 + i) * GPU_LANES + lane] = sum;
    }
}

// A tile's or both tiles' sums of the warp into shared memory.
template <int NT>
static __device__ __forceinline__ void
gemm_leave(float *shared, float acc[2][NT][4], uint32_t tiles)
{
    uint32_t lane = threadIdx.x % GPU_LANES, warp = threadIdx.x / GPU_LANES;
    int i;

#pragma unroll
    for (i = 0; i < 2 * NT * 4; i++) {
        if (tiles >> (i / 4 / NT) & 1) {
            shared[(warp * 2 * NT * 4 + i) * GPU_LANES + lane] =
                acc[i / 4 / NT][i / 4 % NT][i % 4];
        }
    }
}

// What tensor cores do for the tiles that are wanted (bits).
template <int KIND, int NT>
static __device__ __forceinline__ void
gemm_split(float *shared, const gemm_x_t &x, const gemm_cols_t &cols,
    uint32_t col, const gemm_mat_t a, const gemm_mat_t b, const uint32_t row[2],
    uint32_t tiles, int begins)
{
    float acc[2][NT][4];
    int i;

#pragma unroll
    for (i = 0; i < 2 * NT * 4; i++) {
        acc[i / 4 / NT][i / 4 % NT][i % 4] = 0;
    }
    gemm_cores<KIND, NT>(acc, x, cols, col, a, b, row, begins);
    gemm_leave<NT>(shared, acc, tiles);
}

// All the sums of the block, into shared memory; ends with a barrier.  Tile 0
// begins at row[0] of a, tile 1 at row[1] of b.  With begins the kernel has not
// begun (gpu_begin), and does behind the first loads of weights.
template <int NT>
static __device__ __forceinline__ void
gemm_block(float *shared, const gemm_x_t &x, const gemm_cols_t &cols,
    uint32_t col, const gemm_mat_t &a, const gemm_mat_t &b,
    const uint32_t row[2], int begins)
{
    uint32_t f16 = (a.type == KN_F16) | (b.type == KN_F16) << 1;
    uint32_t bf16 = (a.type == KN_BF16) | (b.type == KN_BF16) << 1;

    if (begins && (f16 | bf16) == 0) {
        gpu_begin();
    }

    // where types differ, what is no tile's own is computed and dropped: it
    // stands for the other in its place
    if (f16 != 0) {
        gemm_split<SPLIT_F16, NT>(shared, x, cols, col, f16 == 2 ? b : a,
            f16 == 1 ? a : b, row, f16, begins);
    }
    if (bf16 != 0) {
        gemm_split<SPLIT_BF16, NT>(shared, x, cols, col, bf16 == 2 ? b : a,
            bf16 == 1 ? a : b, row, bf16, begins && f16 == 0);
    }
    if (a.type == KN_F32) {
        gemm_plain<NT>(shared, x, cols, col, a, row[0], 0);
    }
    if (b.type == KN_F32) {
        gemm_plain<NT>(shared, x, cols, col, b, row[1], 1);
    }

    __syncthreads();
}

// Output i of a tile, out of what gemm_block() left: of 16 rows by NT * 8
// columns, *row and *col being where it is.  Neighbouring i are neighbouring
// rows.
template <int NT>
static __device__ __forceinline__ float
gemm_output(const float *shared, uint32_t tile, uint32_t i, uint32_t *row,
    uint32_t *col)
{
    uint32_t warp, lane, number;
    float sum;

    *row = i % GEMM_TILE;
    *col = i / GEMM_TILE;
    lane = *row % 8 * 4 + *col % 8 / 2;
    number = (tile * NT + *col / 8) * 4 + *row / 8 * 2 + *col % 2;

    sum = shared[number * GPU_LANES + lane];
    for (warp = 1; warp < GPU_WARPS; warp++) {
        sum += shared[(warp * 2 * NT * 4 + number) * GPU_LANES + lane];
    }

    return sum;
}

// A sum as the product that it is: split row r, output n of m.
static __device__ __forceinline__ float
gemm_product(
    float sum, const gemm_x_t &x, uint32_t r, const gemm_mat_t &m, uint32_t n)
{
    sum *= m.type == KN_F16 ? x.back[r] : 1.0f;

    return m.bias != NULL ? sum + m.bias[n] : sum;
}

// What an op gives to a kernel; split.h has how rows are split.
gemm_x_t gemm_x(const kn_dev_t *dev, const split_rows_t *rows);
gemm_mat_t gemm_mat(const kn_w_t *w, kn_ptr_t bias);

#endif
