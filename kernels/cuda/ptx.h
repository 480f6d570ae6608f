// The instructions that C has no words for, one wrapper each.
//
// DESIGN.  A wrapper does one instruction and nothing else, so that a kernel is
// made of parts that are proven: on a GPU each is compared with its twin
// (tests/simt/ptx_twin.h, written from the PTX manual) before any kernel runs.
// Here is what they do in words of the operands' layouts.
//
// Fragments of a warp, lane l = 4 g + t, g of 0 to 7, t of 0 to 3; a register
// holds two elements of 16 bits, the first in its low half:
//
//      A [16, 16] row by row        a[0] = A[g,     2t .. 2t + 1]
//                                   a[1] = A[g + 8, 2t .. 2t + 1]
//                                   a[2] = A[g,     2t + 8 .. 2t + 9]
//                                   a[3] = A[g + 8, 2t + 8 .. 2t + 9]
//      B [16, 8] column by column   b[0] = B[2t .. 2t + 1, g]
//                                   b[1] = B[2t + 8 .. 2t + 9, g]
//      C [16, 8] F32                c[0], c[1] = C[g,     2t .. 2t + 1]
//                                   c[2], c[3] = C[g + 8, 2t .. 2t + 1]
#ifndef PTX_H
#define PTX_H

#include "gpu.h"

#include <stdint.h>

#ifdef __CUDACC__

// c += a b, of BF16; sums are F32.
static __device__ __forceinline__ void
ptx_mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2])
{
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The same of F16.
static __device__ __forceinline__ void
ptx_mma_f16(float c[4], const uint32_t a[4], const uint32_t b[2])
{
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

static __device__ __forceinline__ uint32_t
ptx_shared(const void *p)
{
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// Four matrices of 8 rows of 16 bytes in shared memory; lane 8 i + j gives the
// address of row j of matrix i.  r[i] is row g, elements 2t and 2t + 1.
static __device__ __forceinline__ void
ptx_ldmatrix_x4(uint32_t r[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 "
                 "{%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(ptx_shared(row))
                 : "memory");
}

// The same, transposed: r[i] is column g, rows 2t and 2t + 1.
static __device__ __forceinline__ void
ptx_ldmatrix_x4_trans(uint32_t r[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 "
                 "{%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(ptx_shared(row))
                 : "memory");
}

// 16 bytes of global memory to shared memory, some time until the wait; the
// first n of them, the others zero.  Past the first cache.
static __device__ __forceinline__ void
ptx_copy_async(void *to, const void *from, uint32_t n)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(ptx_shared(to)), "l"(from), "r"(n)
                 : "memory");
}

static __device__ __forceinline__ void
ptx_copy_commit(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// All groups but the last n have come, for the thread that asked.
template <int n>
static __device__ __forceinline__ void
ptx_copy_wait(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(n) : "memory");
}

// 16 bytes that are read once: kept in no cache longer than need be.
static __device__ __forceinline__ uint4
ptx_load_once(const void *p)
{
    uint4 v;

    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 "
                 "{%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));

    return v;
}

// 2^x to some 2 units of the last place: 1 of 0, 0 of -inf; results and
// arguments that are subnormal are 0.
static __device__ __forceinline__ float
ptx_exp2(float x)
{
    float y;

    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));

    return y;
}

// Blocks to blocks: what was written before is seen by who reads after.

static __device__ __forceinline__ uint32_t
ptx_add_acq_rel(uint32_t *p, uint32_t n)
{
    uint32_t was;

    asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], %2;"
                 : "=r"(was)
                 : "l"(p), "r"(n)
                 : "memory");

    return was;
}

// The same between GPUs, and with the host.

static __device__ __forceinline__ void
ptx_store_release(uint32_t *p, uint32_t v)
{
    asm volatile("st.release.sys.global.u32 [%0], %1;"
                 :
                 : "l"(p), "r"(v)
                 : "memory");
}

static __device__ __forceinline__ uint32_t
ptx_load_acquire(const uint32_t *p)
{
    uint32_t v;

    asm volatile("ld.acquire.sys.global.u32 %0, [%1];"
                 : "=r"(v)
                 : "l"(p)
                 : "memory");

    return v;
}

// Programmatic launches: the kernel before has ended and its writes are seen;
// the next one may begin.
static __device__ __forceinline__ void
ptx_wait_before(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

static __device__ __forceinline__ void
ptx_start_next(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

#else
#include "ptx_twin.h"
#endif

#endif
