// What the instructions of kernels/cuda/ptx.h do, written from the PTX manual,
// with the operands' layouts as that file has them.
//
// The reads that an instruction does for a lane are here, in the kernel's
// translation unit, so that the sanitizers see them.
#ifndef PTX_TWIN_H
#define PTX_TWIN_H

#include "simt.h"

#define PTX_HERE                                                               \
    const char *file = __builtin_FILE(), int line = __builtin_LINE()

// Element e of a register: numbers of 16 bits as a float.

static inline float
ptx_bf16(uint32_t r, unsigned e)
{
    return __uint_as_float((r >> 16 * e & 0xffff) << 16);
}

// Its exponent is 112 less than a float's, but for what is not finite; what is
// subnormal becomes normal by the product.
static inline float
ptx_f16(uint32_t r, unsigned e)
{
    uint32_t h = r >> 16 * e & 0xffff, sign = (h & 0x8000) << 16;
    uint32_t bits = (h & 0x7fff) << 13;

    if ((h & 0x7c00) == 0x7c00) {
        return __uint_as_float(sign | 0x7f800000 | bits);
    }

    return __uint_as_float(
        sign | __float_as_uint(__uint_as_float(bits) * 0x1p112f));
}

struct ptx_ab_t {
    uint32_t a[4], b[2];
};

// The products of a k are summed by a tree on a GPU, whose shape is not told;
// here in the order of k, in doubles, and rounded once.  A lane's four sums are
// of two rows of A, which four lanes have, and two columns of B, of four each.
template <float (*element)(uint32_t, unsigned)>
static inline void
ptx_mma(float c[4], const uint32_t a[4], const uint32_t b[2], simt_at_t at)
{
    unsigned i, j, k, g = simt_lane() / 4, t = simt_lane() % 4;
    ptx_ab_t ab, of;
    double row[2][16], col[2][16], sum;

    memcpy(ab.a, a, sizeof(ab.a));
    memcpy(ab.b, b, sizeof(ab.b));
    simt_give(&ab);
    simt_meet(~0u, at);

    for (i = 0; i < 4; i++) {
        memcpy(&of, simt_given(g * 4 + i), sizeof(of));
        for (j = 0; j < 8; j++) {
            row[j / 2 % 2][2 * i + j % 2 + j / 4 * 8] =
                static_cast<double>(element(of.a[j / 2], j % 2));
        }
    }
    for (i = 0; i < 8; i++) {
        memcpy(&of, simt_given((2 * t + i / 4) * 4 + i % 4), sizeof(of));
        for (j = 0; j < 4; j++) {
            col[i / 4][2 * (i % 4) + j % 2 + j / 2 * 8] =
                static_cast<double>(element(of.b[j / 2], j % 2));
        }
    }

    for (i = 0; i < 4; i++) {
        sum = static_cast<double>(c[i]);
        for (k = 0; k < 16; k++) {
            sum += row[i / 2][k] * col[i % 2][k];
        }
        c[i] = static_cast<float>(sum);
    }

    simt_meet(~0u, at);
}

static inline void
ptx_mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2], PTX_HERE)
{
    ptx_mma<ptx_bf16>(c, a, b, {"mma_bf16", file, line});
}

static inline void
ptx_mma_f16(float c[4], const uint32_t a[4], const uint32_t b[2], PTX_HERE)
{
    ptx_mma<ptx_f16>(c, a, b, {"mma_f16", file, line});
}

// Rows are in shared memory, and at multiples of 16 bytes of it.
static inline const unsigned char *
ptx_row(const void *p, simt_at_t at)
{
    const unsigned char *row = static_cast<const unsigned char *>(p);

    if ((row - simt_shared()) % 16 != 0) {
        simt_fail(at, "has an address that is no multiple of 16");
    }

    return row;
}

static inline void
ptx_ldmatrix(uint32_t r[4], const void *row, int trans, simt_at_t at)
{
    unsigned i, e, g = simt_lane() / 4, t = simt_lane() % 4;
    const unsigned char *p = ptx_row(row, at), *from[4][8];
    uint16_t h[2];

    simt_give(&p);
    simt_meet(~0u, at);
    for (i = 0; i < 32; i++) {
        memcpy(&from[i / 8][i % 8], simt_given(i), sizeof(p));
    }

    for (i = 0; i < 4; i++) {
        for (e = 0; e < 2; e++) {
            memcpy(&h[e],
                trans ? from[i][2 * t + e] + 2 * g
                      : from[i][g] + 2 * (2 * t + e),
                2);
        }
        r[i] = h[0] | static_cast<uint32_t>(h[1]) << 16;
    }

    simt_meet(~0u, at);
}

static inline void
ptx_ldmatrix_x4(uint32_t r[4], const void *row, PTX_HERE)
{
    ptx_ldmatrix(r, row, 0, {"ldmatrix_x4", file, line});
}

static inline void
ptx_ldmatrix_x4_trans(uint32_t r[4], const void *row, PTX_HERE)
{
    ptx_ldmatrix(r, row, 1, {"ldmatrix_x4_trans", file, line});
}

static inline void
ptx_copy_async(void *to, const void *from, uint32_t n, PTX_HERE)
{
    simt_at_t at = {"copy_async", file, line};

    ptx_row(to, at);
    if (n > 16 || reinterpret_cast<uintptr_t>(from) % 16 != 0) {
        simt_fail(at, "copies more than 16 bytes, or from no multiple of 16");
    }
    simt_copy(to, from, n, 16);
}

static inline void
ptx_copy_commit(void)
{
    simt_commit();
}

template <int n>
static inline void
ptx_copy_wait(void)
{
    simt_copy_t c;

    while (simt_next_copy(n, &c)) {
        memcpy(c.to, c.from, c.n);
        memset(static_cast<char *>(c.to) + c.n, 0, c.bytes - c.n);
    }
}

static inline uint4
ptx_load_once(const void *p, PTX_HERE)
{
    uint4 v;

    if (reinterpret_cast<uintptr_t>(p) % 16 != 0) {
        simt_fail({"load_once", file, line}, "reads from no multiple of 16");
    }
    memcpy(&v, p, sizeof(v));

    return v;
}

static inline float
ptx_exp2(float x)
{
    float y = exp2f(fabsf(x) < 0x1p-126f ? 0 : x);

    return y < 0x1p-126f ? 0 : y;
}

static inline uint32_t
ptx_add_acq_rel(uint32_t *p, uint32_t n)
{
    return __atomic_fetch_add(p, n, __ATOMIC_ACQ_REL);
}

static inline void
ptx_store_release(uint32_t *p, uint32_t v)
{
    __atomic_store_n(p, v, __ATOMIC_RELEASE);
}

// Who waits for a value does so in a loop: the others must get their turn.
static inline uint32_t
ptx_load_acquire(const uint32_t *p)
{
    simt_pause();

    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

// Kernels here follow one another.

static inline void
ptx_wait_before(void)
{
    simt_waits();
}

static inline void
ptx_start_next(void)
{
}

#undef PTX_HERE

#endif
