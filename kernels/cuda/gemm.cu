// Products of activations with weights: matmul, gated and headmul; gemm.h says
// how.
//
// DESIGN.  An op first splits its rows, once for all of its products, and then
// has one launch for these, whatever their types.  Where the scratch has no
// room for all rows, it goes over them in parts.
//
// Rows beyond 64, prompts, go the same way in tiles of 32, unless a library is
// asked for (lt.h): then their products with the low halves of activations and
// with the high ones are two of the library's, the second added to the first,
// and what a product is beyond its sums, or a gate, is a pass behind them.  The
// library has no epilogue for it, and our sums are in two parts for it.  Its
// bits are not ours, and depend on the number of rows.
#include "gemm.h"
#include "act.h"

// The products of one launch.
typedef struct {
    gemm_mat_t m[KN_PRODUCTS_MAX];
    float *y[KN_PRODUCTS_MAX];
    float scale[KN_PRODUCTS_MAX], cap[KN_PRODUCTS_MAX];
    uint32_t end[KN_PRODUCTS_MAX]; // pairs of tiles of it and those before it
    uint32_t n;
    uint64_t ldy;  // elements between rows, if it is not the product's n
    uint32_t rest; // of a head's output before its product
} products_t;

// The block's columns, of rows first to first + n of a count times heads.
static __device__ __forceinline__ gemm_cols_t
columns(const gpu_step_t *step, const split_rows_t &rows, uint32_t head)
{
    uint32_t all = gpu_rows_in(step, rows.which) * rows.heads;
    uint32_t n = all > rows.first ? all - rows.first : 0;
    gemm_cols_t c = {NULL, 0, 0, 1, rows.heads, head};

    c.n = (n < rows.n ? n : rows.n) / rows.heads;

    return c;
}

template <int NT>
__global__ void
__launch_bounds__(GPU_THREADS) gemm_products(
    const gpu_step_t *step, gemm_x_t x, split_rows_t rows, products_t p)
{
    GPU_SHARED(shared);
    float *sums = reinterpret_cast<float *>(shared), v, *y;
    const gemm_cols_t cols = columns(step, rows, blockIdx.z);
    uint32_t i, j, r, c, n, of, col = blockIdx.x * NT * 8, pair = blockIdx.y;
    gemm_mat_t m;
    uint32_t row[2];

    if (col >= cols.n) {
        gpu_begin();
        return;
    }

    for (of = 0; pair >= p.end[of]; of++) {
    }
    pair -= of > 0 ? p.end[of - 1] : 0;
    n = p.m[of].n;
    m = p.m[of];
    m.w =
        static_cast<const char *>(m.w)
        + static_cast<size_t>(blockIdx.z) * n * m.stride * element_size(m.type);
    row[0] = pair * 2 * GEMM_TILE;
    row[1] = row[0] + GEMM_TILE;
    gemm_block<NT>(sums, x, cols, col, m, m, row, 1);

    for (i = threadIdx.x; i < 2 * GEMM_TILE * NT * 8; i += GPU_THREADS) {
        j = i / (GEMM_TILE * NT * 8);
        v = gemm_output<NT>(sums, j, i % (GEMM_TILE * NT * 8), &r, &c);
        r += row[0] + j * GEMM_TILE;
        c += col;

        if (r < n && c < cols.n) {
            v = gemm_product(v, x, gemm_row(cols, c), m, r);
            v *= p.scale[of];
            v = p.cap[of] > 0 ? p.cap[of] * tanhf(1 / p.cap[of] * v) : v;
            y = p.y[of]
                + (rows.first + gemm_row(cols, c)) * (p.ldy > 0 ? p.ldy : n);
            y[p.rest + r] = v;
        }
    }
}

typedef struct {
    gemm_mat_t gate, up;
    float *y;
    uint32_t act;
    float limit;
} gated_t;

template <int NT>
__global__ void
__launch_bounds__(GPU_THREADS, 1)
    gemm_gated(const gpu_step_t *step, gemm_x_t x, split_rows_t rows, gated_t a)
{
    GPU_SHARED(shared);
    float *sums = reinterpret_cast<float *>(shared), g, u;
    const gemm_cols_t cols = columns(step, rows, 0);
    uint32_t i, r, c, split, col = blockIdx.x * NT * 8;
    const uint32_t row[2] = {blockIdx.y * GEMM_TILE, blockIdx.y * GEMM_TILE};

    if (col >= cols.n) {
        gpu_begin();
        return;
    }

    gemm_block<NT>(sums, x, cols, col, a.gate, a.up, row, 1);

    for (i = threadIdx.x; i < GEMM_TILE * NT * 8; i += GPU_THREADS) {
        g = gemm_output<NT>(sums, 0, i, &r, &c);
        u = gemm_output<NT>(sums, 1, i, &r, &c);
        r += row[0];
        c += col;

        if (r < a.gate.n && c < cols.n) {
            split = gemm_row(cols, c);
            g = gemm_product(g, x, split, a.gate, r);
            u = gemm_product(u, x, split, a.up, r);
            a.y[static_cast<size_t>(rows.first + split) * a.gate.n + r] =
                act_of(a.act, g, u, a.limit);
        }
    }
}

gemm_x_t
gemm_x(const kn_dev_t *dev, const split_rows_t *rows)
{
    const gpu_scratch_t *s = &dev->scratch;
    gemm_x_t x;
    int i;

    for (i = 0; i < SPLIT_KINDS; i++) {
        x.high[i] = s->high[i];
        x.low[i] = s->low[i];
    }
    x.back = s->back;
    x.x = rows->x;
    x.ld = rows->ld;
    x.between = rows->between;
    x.heads = rows->heads;
    x.first = rows->first;
    x.k = rows->k;

    return x;
}

gemm_mat_t
gemm_mat(const kn_w_t *w, kn_ptr_t bias)
{
    gemm_mat_t m = {
        w->data, gpu_ptr<const float>(bias), w->type, w->stride, w->n};

    return m;
}

// Calls kernel NAME<tiles of 8 columns>, for so many rows; grid is a dim3 whose
// x is set here.
#define LAUNCH(name, dev, rows, grid, ...)                                     \
    do {                                                                       \
        dim3 g_ = grid;                                                        \
        uint32_t n_ = rows;                                                    \
        if (n_ <= 8) {                                                         \
            g_.x = 1;                                                          \
            GPU_LAUNCH(name<1>, g_, dim3(GPU_THREADS), GEMM_BYTES(1),          \
                (dev)->stream, __VA_ARGS__);                                   \
        } else if (n_ <= 16) {                                                 \
            g_.x = 1;                                                          \
            GPU_LAUNCH(name<2>, g_, dim3(GPU_THREADS), GEMM_BYTES(2),          \
                (dev)->stream, __VA_ARGS__);                                   \
        } else {                                                               \
            g_.x = gpu_parts(n_, 32);                                          \
            GPU_LAUNCH(name<4>, g_, dim3(GPU_THREADS), GEMM_BYTES(4),          \
                (dev)->stream, __VA_ARGS__);                                   \
        }                                                                      \
    } while (0)

#define LIBRARY_ROWS 64 // more than so many

// Is a product of that matrix, for so many rows, the library's?
static int
is_library(const kn_dev_t *dev, const split_rows_t *rows, uint32_t type)
{
    return dev->lt != NULL && rows->n > LIBRARY_ROWS && rows->heads == 1
           && split_kind(type) != 0;
}

// y [rows->n, m.n] = the sums of the split rows with m: 0, or -1.
static int
library_sums(
    kn_dev_t *dev, const split_rows_t *rows, const gemm_mat_t &m, float *y)
{
    const int kind = m.type == KN_F16 ? SPLIT_F16 : SPLIT_BF16;
    lt_product_t p = {dev->scratch.low[kind],
        static_cast<const uint16_t *>(m.w), y, rows->n, m.n, gpu_whole(rows->k),
        m.type == KN_F16, 0};

    assert(m.stride == p.k);
    if (lt_product(dev->lt, &p, dev->stream) != 0) {
        return -1;
    }

    p.x = dev->scratch.high[kind];
    p.add = 1;
    if (lt_product(dev->lt, &p, dev->stream) != 0) {
        return -1;
    }
    dev->library++;

    return 0;
}

// What a product is beyond its sums; a block is a row.
__global__ void
gemm_finish(const gpu_step_t *step, gemm_x_t x, split_rows_t rows, gemm_mat_t m,
    float *y, float scale, float cap)
{
    uint32_t i, r = blockIdx.x;
    float v;

    gpu_begin();
    if (r >= columns(step, rows, 0).n) {
        return;
    }

    y += static_cast<size_t>(rows.first + r) * m.n;
    for (i = threadIdx.x; i < m.n; i += GPU_THREADS) {
        v = gemm_product(y[i], x, r, m, i);
        v *= scale;
        y[i] = cap > 0 ? cap * tanhf(1 / cap * v) : v;
    }
}

// Has the library do what it does of p; the others are what comes back.
static products_t
by_library(kn_dev_t *dev, const split_rows_t *rows, const products_t *p)
{
    products_t own = *p;
    uint32_t i, end = 0;

    own.n = 0;
    for (i = 0; i < p->n; i++) {
        if (is_library(dev, rows, p->m[i].type)
            && library_sums(dev, rows, p->m[i],
                   p->y[i] + static_cast<size_t>(rows->first) * p->m[i].n)
                   == 0) {
            GPU_LAUNCH(gemm_finish, dim3(rows->n), dim3(GPU_THREADS), 0,
                dev->stream, gpu_step(dev), gemm_x(dev, rows), *rows, p->m[i],
                p->y[i], p->scale[i], p->cap[i]);
            continue;
        }

        own.m[own.n] = p->m[i];
        own.y[own.n] = p->y[i];
        own.scale[own.n] = p->scale[i];
        own.cap[own.n] = p->cap[i];
        end += gpu_parts(p->m[i].n, 2 * GEMM_TILE);
        own.end[own.n++] = end;
    }

    return own;
}

// The rows of an op, rows->heads each, by parts that there is room for.
static void
product_parts(kn_dev_t *dev, split_rows_t *rows, const products_t *p)
{
    uint32_t i, all, room, kinds = 0;
    products_t own;

    for (i = 0; i < p->n; i++) {
        kinds |= split_kind(p->m[i].type);
    }

    all = gpu_rows(dev, rows->which) * rows->heads;
    room = split_room(dev, rows->k) / rows->heads * rows->heads;
    assert(room > 0);

    for (rows->first = 0; rows->first < all; rows->first += rows->n) {
        rows->n = all - rows->first < room ? all - rows->first : room;
        split_rows(dev, rows, kinds);
        own = p->ldy > 0 ? *p : by_library(dev, rows, p);
        if (own.n > 0) {
            LAUNCH(gemm_products, dev, rows->n / rows->heads,
                dim3(1, own.end[own.n - 1], rows->heads), gpu_step(dev),
                gemm_x(dev, rows), *rows, own);
        }
    }
}

void
cuda_matmul(kn_dev_t *dev, const kn_matmul_t *a)
{
    uint32_t i, k = a->of[0].w->k, end = 0;
    split_rows_t rows = {gpu_ptr<const float>(a->x), k, 0, k, 1, a->rows, 0, 0};
    products_t p = {};

    assert(a->n > 0 && a->n <= KN_PRODUCTS_MAX);
    p.n = a->n;

    for (i = 0; i < a->n; i++) {
        assert(a->of[i].w->k == k);
        p.m[i] = gemm_mat(a->of[i].w, a->of[i].bias);
        p.y[i] = gpu_ptr<float>(a->of[i].y);
        p.scale[i] = a->of[i].scale;
        p.cap[i] = a->of[i].cap;
        end += gpu_parts(p.m[i].n, 2 * GEMM_TILE);
        p.end[i] = end;
    }

    product_parts(dev, &rows, &p);
}

// What a head has beyond its product's k elements, before its output.
__global__ void
headmul_rest(const gpu_step_t *step, const float *x, float *y, uint32_t which,
    uint32_t heads, uint32_t k, uint32_t rest, uint32_t n)
{
    uint32_t i, r = blockIdx.x;

    gpu_begin();
    if (r >= gpu_rows_in(step, which) * heads) {
        return;
    }

    x += static_cast<size_t>(r) * (k + rest) + k;
    y += static_cast<size_t>(r) * (rest + n);
    for (i = threadIdx.x; i < rest; i += GPU_THREADS) {
        y[i] = x[i];
    }
}

void
cuda_headmul(kn_dev_t *dev, const kn_headmul_t *a)
{
    uint32_t k = a->w->k, n = a->w->n / a->heads;
    uint32_t all = gpu_rows(dev, a->rows) * a->heads;
    split_rows_t rows = {gpu_ptr<const float>(a->x),
        static_cast<uint64_t>(a->heads) * (k + a->rest), k + a->rest, k,
        a->heads, a->rows, 0, 0};
    products_t p = {};
    kn_ptr_t none = {0};

    assert(a->w->n % a->heads == 0);
    p.n = 1;
    p.m[0] = gemm_mat(a->w, none);
    p.m[0].n = n;
    p.y[0] = gpu_ptr<float>(a->y);
    p.scale[0] = 1;
    p.end[0] = gpu_parts(n, 2 * GEMM_TILE);
    p.ldy = a->rest + n;
    p.rest = a->rest;
    product_parts(dev, &rows, &p);

    if (a->rest > 0 && all > 0) {
        GPU_LAUNCH(headmul_rest, dim3(all), dim3(GPU_THREADS), 0, dev->stream,
            gpu_step(dev), rows.x, p.y[0], a->rows, a->heads, k, a->rest, n);
    }
}

// y = the gate of what its own row is, and of up's sums.
__global__ void
gemm_gate(const gpu_step_t *step, gemm_x_t x, split_rows_t rows, gated_t a,
    const float *sums)
{
    uint32_t i, r = blockIdx.x, n = a.gate.n;
    float g, u, *y;

    gpu_begin();
    if (r >= columns(step, rows, 0).n) {
        return;
    }

    y = a.y + static_cast<size_t>(rows.first + r) * n;
    for (i = threadIdx.x; i < n; i += GPU_THREADS) {
        g = gemm_product(y[i], x, r, a.gate, i);
        u = gemm_product(sums[static_cast<size_t>(r) * n + i], x, r, a.up, i);
        y[i] = act_of(a.act, g, u, a.limit);
    }
}

// The same part of the op by the library: 0, or -1.
static int
gated_by_library(kn_dev_t *dev, const split_rows_t *rows, const gated_t &g)
{
    float *y = g.y + static_cast<size_t>(rows->first) * g.gate.n;

    if (!is_library(dev, rows, g.gate.type) || !is_library(dev, rows, g.up.type)
        || static_cast<uint64_t>(rows->n) * g.up.n > dev->scratch.room
        || library_sums(dev, rows, g.gate, y) != 0
        || library_sums(dev, rows, g.up, dev->scratch.wide) != 0) {
        return -1;
    }

    GPU_LAUNCH(gemm_gate, dim3(rows->n), dim3(GPU_THREADS), 0, dev->stream,
        gpu_step(dev), gemm_x(dev, rows), *rows, g,
        static_cast<const float *>(dev->scratch.wide));

    return 0;
}

void
cuda_gated(kn_dev_t *dev, const kn_gated_t *a)
{
    uint32_t all = gpu_rows(dev, a->rows), k = a->gate->k, room;
    split_rows_t rows = {gpu_ptr<const float>(a->x), k, 0, k, 1, a->rows, 0, 0};
    gated_t g = {gemm_mat(a->gate, a->gate_bias), gemm_mat(a->up, a->up_bias),
        gpu_ptr<float>(a->y), a->act, a->limit};

    assert(a->up->k == k && a->up->n == a->gate->n && a->act < KN_ACTS);
    room = split_room(dev, k);

    for (rows.first = 0; rows.first < all; rows.first += rows.n) {
        rows.n = all - rows.first < room ? all - rows.first : room;
        split_rows(
            dev, &rows, split_kind(a->gate->type) | split_kind(a->up->type));
        if (gated_by_library(dev, &rows, g) == 0) {
            continue;
        }
        LAUNCH(gemm_gated, dev, rows.n,
            dim3(1, gpu_parts(a->gate->n, GEMM_TILE)), gpu_step(dev),
            gemm_x(dev, &rows), rows, g);
    }
}
