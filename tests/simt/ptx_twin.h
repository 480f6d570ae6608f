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

static inline float
ptx_f16(uint32_t r, unsigned e)
{
    uint16_t h = static_cast<uint16_t>(r >> 16 * e);
    _Float16 f;

    memcpy(&f, &h, sizeof(f));

    return static_cast<float>(f);
}

struct ptx_ab_t {
    uint32_t a[4], b[2];
};

// The products of a k are summed by a tree on a GPU, whose shape is not told;
// here in the order of k, in doubles, and rounded once.
static inline void
ptx_mma(float c[4], const uint32_t a[4], const uint32_t b[2],
    float (*element)(uint32_t, unsigned), simt_at_t at)
{
    unsigned i, k, row, col, g = simt_lane() / 4, t = simt_lane() % 4;
    ptx_ab_t ab, of_a, of_b;
    double sum;

    memcpy(ab.a, a, sizeof(ab.a));
    memcpy(ab.b, b, sizeof(ab.b));
    simt_give(&ab);
    simt_meet(~0u, at);

    for (i = 0; i < 4; i++) {
        row = g + i / 2 * 8;
        col = t * 2 + i % 2;
        sum = static_cast<double>(c[i]);

        for (k = 0; k < 16; k++) {
            memcpy(&of_a, simt_given(row % 8 * 4 + k % 8 / 2), sizeof(of_a));
            memcpy(&of_b, simt_given(col * 4 + k % 8 / 2), sizeof(of_b));
            sum +=
                static_cast<double>(element(of_a.a[row / 8 + k / 8 * 2], k % 2))
                * static_cast<double>(element(of_b.b[k / 8], k % 2));
        }

        c[i] = static_cast<float>(sum);
    }

    simt_meet(~0u, at);
}

static inline void
ptx_mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2], PTX_HERE)
{
    ptx_mma(c, a, b, ptx_bf16, {"mma_bf16", file, line});
}

static inline void
ptx_mma_f16(float c[4], const uint32_t a[4], const uint32_t b[2], PTX_HERE)
{
    ptx_mma(c, a, b, ptx_f16, {"mma_f16", file, line});
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
}

static inline void
ptx_start_next(void)
{
}

#undef PTX_HERE

#endif
