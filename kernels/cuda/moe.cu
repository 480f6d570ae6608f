// Experts' products, the simple form.
//
// DESIGN.  A pair is a token and one of its experts; pair p is of token p /
// used. Four launches for the tokens that there is scratch for, of which the
// host needs to know nothing but their number:
//
//      moe_sort    pairs in the order of experts, and where each begins
//      moe_gated   act(gate, up) of each pair, into mid; x is split by tokens
//      moe_down    its product with down, into scratch; mid is split by pairs
//      moe_sum     a token's pairs, in the order of its ids
//
// The products are gemm.h's, an expert's pairs being the columns: a block of
// the grid is an expert, some of its rows and some of its pairs, and ends at
// once where there are none.  So a product has the bits that it has in matmul.
//
// A layer's matrices are a table on the device, made when the op is first seen.
#include "gemm.h"
#include "act.h"

#include <stdlib.h>
#include <string.h>

#define GATE 0
#define UP   1
#define DOWN 2

// An expert's matrices.
typedef struct {
    gemm_mat_t m[3];
} expert_t;

struct gpu_experts_s {
    gpu_experts_t *next;
    expert_t *host;       // [n]
    expert_t *device;     // [n]
    uint32_t n, kinds[2]; // of gate and up together, and of down
};

// The tokens of a part of an op.
typedef struct {
    uint32_t which, first, n, used, experts;
} part_t;

static __device__ __forceinline__ uint32_t
part_pairs(const gpu_step_t *step, const part_t &p)
{
    uint32_t all = gpu_rows_in(step, p.which);
    uint32_t n = all > p.first ? all - p.first : 0;

    return (n < p.n ? n : p.n) * p.used;
}

// One block.  Each thread has some experts, and goes over all ids.
__global__ void
moe_sort(const gpu_step_t *step, part_t p, const uint32_t *ids, uint32_t *pairs,
    uint32_t *begins)
{
    uint32_t i, e, at, n = part_pairs(step, p);

    gpu_begin();
    ids += static_cast<size_t>(p.first) * p.used;

    for (e = threadIdx.x; e < p.experts; e += GPU_THREADS) {
        at = 0;
        for (i = 0; i < n; i++) {
            at += ids[i] == e;
        }
        begins[e + 1] = at;
    }
    __syncthreads();

    if (threadIdx.x == 0) {
        begins[0] = 0;
        for (e = 0; e < p.experts; e++) {
            begins[e + 1] += begins[e];
        }
    }
    __syncthreads();

    for (e = threadIdx.x; e < p.experts; e += GPU_THREADS) {
        at = begins[e];
        for (i = 0; i < n; i++) {
            if (ids[i] == e) {
                pairs[at++] = i;
            }
        }
    }
}

typedef struct {
    const expert_t *experts;
    const uint32_t *pairs, *begins;
    const float *bias[3]; // all experts'
    float *y;             // [pairs of the part, n]
    uint32_t used, act;
    float limit;
} moe_t;

// The block's pairs of its expert.
static __device__ __forceinline__ gemm_cols_t
pairs_of(const moe_t &a, uint32_t by)
{
    uint32_t begin = a.begins[blockIdx.z], end = a.begins[blockIdx.z + 1];
    gemm_cols_t c = {a.pairs, begin, end - begin, by, 0, 0};

    return c;
}

// The block's expert's matrix, with its bias.
static __device__ __forceinline__ gemm_mat_t
matrix(const moe_t &a, uint32_t which)
{
    gemm_mat_t m = a.experts[blockIdx.z].m[which];

    m.bias = a.bias[which] == NULL
                 ? NULL
                 : a.bias[which] + static_cast<size_t>(blockIdx.z) * m.n;

    return m;
}

template <int NT>
__global__ void
__launch_bounds__(GPU_THREADS) moe_gated(gemm_x_t x, moe_t a)
{
    GPU_SHARED(shared);
    float *sums = reinterpret_cast<float *>(shared), g, u;
    gpu_begin(); // pairs are those that the kernel before has sorted
    const gemm_cols_t cols = pairs_of(a, a.used);
    uint32_t i, r, c, pair, col = blockIdx.x * NT * 8;
    const uint32_t row[2] = {blockIdx.y * GEMM_TILE, blockIdx.y * GEMM_TILE};

    if (col >= cols.n) {
        return;
    }

    const gemm_mat_t gate = matrix(a, GATE), up = matrix(a, UP);
    gemm_block<NT>(sums, x, cols, col, gate, up, row, 0);

    for (i = threadIdx.x; i < GEMM_TILE * NT * 8; i += GPU_THREADS) {
        g = gemm_output<NT>(sums, 0, i, &r, &c);
        u = gemm_output<NT>(sums, 1, i, &r, &c);
        r += row[0];
        c += col;

        if (r < gate.n && c < cols.n) {
            pair = a.pairs[cols.begin + c];
            g = gemm_product(g, x, pair / a.used, gate, r);
            u = gemm_product(u, x, pair / a.used, up, r);
            a.y[static_cast<size_t>(pair) * gate.n + r] =
                act_of(a.act, g, u, a.limit);
        }
    }
}

template <int NT>
__global__ void
__launch_bounds__(GPU_THREADS) moe_down(gemm_x_t x, moe_t a)
{
    GPU_SHARED(shared);
    float *sums = reinterpret_cast<float *>(shared), v;
    gpu_begin();
    const gemm_cols_t cols = pairs_of(a, 1);
    uint32_t i, j, r, c, pair, col = blockIdx.x * NT * 8;
    const uint32_t row[2] = {
        blockIdx.y * 2 * GEMM_TILE, blockIdx.y * 2 * GEMM_TILE + GEMM_TILE};

    if (col >= cols.n) {
        return;
    }

    const gemm_mat_t down = matrix(a, DOWN);
    gemm_block<NT>(sums, x, cols, col, down, down, row, 0);

    for (i = threadIdx.x; i < 2 * GEMM_TILE * NT * 8; i += GPU_THREADS) {
        j = i / (GEMM_TILE * NT * 8);
        v = gemm_output<NT>(sums, j, i % (GEMM_TILE * NT * 8), &r, &c);
        r += row[0] + j * GEMM_TILE;
        c += col;

        if (r < down.n && c < cols.n) {
            pair = a.pairs[cols.begin + c];
            a.y[static_cast<size_t>(pair) * down.n + r] =
                gemm_product(v, x, pair, down, r);
        }
    }
}

// A block is a token.
__global__ void
moe_sum(const gpu_step_t *step, part_t p, const float *wide,
    const float *weights, float *y, uint32_t dim)
{
    uint32_t i, r, t = blockIdx.x;
    float sum;

    gpu_begin();
    if (t * p.used >= part_pairs(step, p)) {
        return;
    }

    weights += static_cast<size_t>(p.first + t) * p.used;
    for (i = threadIdx.x; i < dim; i += GPU_THREADS) {
        sum = 0;
        for (r = 0; r < p.used; r++) {
            sum += weights[r]
                   * wide[(static_cast<size_t>(t) * p.used + r) * dim + i];
        }
        y[static_cast<size_t>(p.first + t) * dim + i] = sum;
    }
}

static int
same(const gpu_experts_t *l, const expert_t *v, uint32_t n)
{
    return l->n == n && memcmp(l->host, v, n * sizeof(*v)) == 0;
}

// The op's table; the device's copy is made the first time.
static const gpu_experts_t *
table(kn_dev_t *dev, const kn_moe_ffn_t *a)
{
    const kn_w_t *const *w[3] = {a->gate, a->up, a->down};
    kn_ptr_t none = {0};
    gpu_experts_t *l;
    expert_t *v;
    uint32_t e, i;

    v = static_cast<expert_t *>(calloc(a->experts, sizeof(*v)));
    assert(v != NULL);
    for (e = 0; e < a->experts; e++) {
        for (i = 0; i < 3; i++) {
            v[e].m[i].w = w[i][e]->data;
            v[e].m[i].type = w[i][e]->type;
            v[e].m[i].stride = w[i][e]->stride;
            v[e].m[i].n = w[i][e]->n;
        }
    }
    (void) none;

    for (l = dev->experts; l != NULL; l = l->next) {
        if (same(l, v, a->experts)) {
            free(v);
            return l;
        }
    }

    l = static_cast<gpu_experts_t *>(calloc(1, sizeof(*l)));
    assert(l != NULL);
    l->next = dev->experts;
    l->host = v;
    l->n = a->experts;
    for (e = 0; e < a->experts; e++) {
        l->kinds[0] |= split_kind(v[e].m[GATE].type);
        l->kinds[0] |= split_kind(v[e].m[UP].type);
        l->kinds[1] |= split_kind(v[e].m[DOWN].type);
    }
    l->device = static_cast<expert_t *>(
        gpu_mem(dev, a->experts * sizeof(*v), GPU_DEVICE));
    assert(l->device != NULL);
    rt_copy_in(l->device, v, a->experts * sizeof(*v));
    dev->experts = l;

    return l;
}

void
gpu_experts_free(kn_dev_t *dev)
{
    gpu_experts_t *l;

    while (dev->experts != NULL) {
        l = dev->experts;
        dev->experts = l->next;
        free(l->host);
        free(l);
    }
}

// Calls kernel NAME<tiles of 8 pairs> for up to n pairs of an expert.
#define LAUNCH(name, dev, n, y, z, ...)                                        \
    do {                                                                       \
        if ((n) <= 8) {                                                        \
            GPU_LAUNCH(name<1>, dim3(1, y, z), dim3(GPU_THREADS),              \
                GEMM_BYTES(1), (dev)->stream, __VA_ARGS__);                    \
        } else if ((n) <= 16) {                                                \
            GPU_LAUNCH(name<2>, dim3(1, y, z), dim3(GPU_THREADS),              \
                GEMM_BYTES(2), (dev)->stream, __VA_ARGS__);                    \
        } else {                                                               \
            GPU_LAUNCH(name<4>, dim3(gpu_parts(n, 32), y, z),                  \
                dim3(GPU_THREADS), GEMM_BYTES(4), (dev)->stream, __VA_ARGS__); \
        }                                                                      \
    } while (0)

// Tokens p.first to p.first + p.n.
static void
experts_part(kn_dev_t *dev, const kn_moe_ffn_t *a, const gpu_experts_t *l,
    const part_t &p)
{
    const gpu_scratch_t *s = &dev->scratch;
    split_rows_t x = {gpu_ptr<const float>(a->x), a->dim, 0, a->dim, 1, a->rows,
        p.first, p.n};
    split_rows_t mid = {gpu_ptr<const float>(a->mid),
        static_cast<uint64_t>(a->used) * a->ffn, a->ffn, a->ffn, a->used,
        a->rows, p.first * a->used, p.n * a->used};
    moe_t m = {l->device, s->pairs, s->begins,
        {gpu_ptr<const float>(a->gate_bias), gpu_ptr<const float>(a->up_bias),
            gpu_ptr<const float>(a->down_bias)},
        gpu_ptr<float>(a->mid)
            + static_cast<size_t>(p.first) * a->used * a->ffn,
        a->used, a->act, a->limit};

    GPU_LAUNCH(moe_sort, dim3(1), dim3(GPU_THREADS), 0, dev->stream,
        gpu_step(dev), p, gpu_ptr<const uint32_t>(a->ids), s->pairs, s->begins);

    split_rows(dev, &x, l->kinds[0]);
    LAUNCH(moe_gated, dev, p.n, gpu_parts(a->ffn, GEMM_TILE), a->experts,
        gemm_x(dev, &x), m);

    split_rows(dev, &mid, l->kinds[1]);
    m.y = s->wide;
    LAUNCH(moe_down, dev, p.n, gpu_parts(a->dim, 2 * GEMM_TILE), a->experts,
        gemm_x(dev, &mid), m);

    GPU_LAUNCH(moe_sum, dim3(p.n), dim3(GPU_THREADS), 0, dev->stream,
        gpu_step(dev), p, static_cast<const float *>(s->wide),
        gpu_ptr<const float>(a->weights), gpu_ptr<float>(a->y), a->dim);
}

void
cuda_moe_ffn(kn_dev_t *dev, const kn_moe_ffn_t *a)
{
    const gpu_experts_t *l = table(dev, a);
    uint32_t all = gpu_rows(dev, a->rows), room, k;
    part_t p = {a->rows, 0, 0, a->used, a->experts};

    assert(a->experts <= KN_EXPERTS_MAX && a->act < KN_ACTS);
    k = a->dim > a->ffn ? a->dim : a->ffn;
    room = split_room(dev, k) / a->used;
    assert(room > 0);

    for (p.first = 0; p.first < all; p.first += p.n) {
        p.n = all - p.first < room ? all - p.first : room;
        experts_part(dev, a, l, p);
    }
}
