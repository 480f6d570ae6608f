/*
 * One instruction of a kind each, called what tests/simt/census calls it: so it
 * is seen that the census still reads what this compiler writes.
 */
#include "ptx.h"

#define KERNEL(name) extern "C" __global__ void name

KERNEL(HMMA)(float *c, const uint32_t *a) { ptx_mma_bf16(c, a, a + 4); }

KERNEL(LDSM)(uint32_t *y)
{
    GPU_SHARED(shared);

    ptx_ldmatrix_x4(y, shared);
}

KERNEL(LDGSTS128)(const uint4 *x)
{
    GPU_SHARED(shared);

    ptx_copy_async(shared, x, 16);
    ptx_copy_commit();
    ptx_copy_wait<0>();
}

KERNEL(MUFU)(float *x) { *x = ptx_exp2(*x); }

KERNEL(BAR)(void) { __syncthreads(); }

KERNEL(ATOM)(uint32_t *x, uint32_t *y) { *y = ptx_add_acq_rel(x, 1); }

KERNEL(LDG32)(uint32_t *x) { x[1] = x[0]; }

KERNEL(STG64)(uint2 *x) { x[1] = x[0]; }

KERNEL(LDG128)(uint4 *x) { x[1] = x[0]; }

KERNEL(STG128)(uint4 *x) { x[1] = x[0]; }

KERNEL(LDL32)(uint32_t *x)
{
    volatile uint32_t place[9];

    place[*x] = 3;
    x[1] = place[x[2]];
}

KERNEL(STL32)(uint32_t *x)
{
    volatile uint32_t place[9];

    place[*x] = 3;
    x[1] = place[x[2]];
}
