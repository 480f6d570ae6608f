// The emulator itself: what must work in it, and what it must find.
//
//     check                      all that must work
//     check FAULT                runs a kernel with that error in it
//
// tests/simt/check.sh calls it with each fault and looks at what is said.
#include "gpu.h"
#include "ptx.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vector>

// The sum of a block's numbers: by warps, then over them.
template <bool barrier>
__global__ void
sum(const float *x, float *y)
{
    GPU_SHARED(shared);
    float *sums = reinterpret_cast<float *>(shared), s;
    unsigned i, t = threadIdx.x;
    int by;

    s = x[blockIdx.x * blockDim.x + t];
    for (by = GPU_LANES / 2; by > 0; by /= 2) {
        s += __shfl_xor_sync(GPU_ALL, s, by);
    }
    if (t % GPU_LANES == 0) {
        sums[t / GPU_LANES] = s;
    }
    if (barrier) {
        __syncthreads();
    }

    s = 0;
    for (i = 0; i < blockDim.x / GPU_LANES; i++) {
        s += sums[i];
    }
    y[blockIdx.x * blockDim.x + t] = s;
}

__global__ void
lanes(unsigned *y)
{
    unsigned i = threadIdx.x, at = blockIdx.x * blockDim.x + i;
    unsigned l = i % GPU_LANES, odd = __ballot_sync(GPU_ALL, l & 1);

    y[at] = __shfl_sync(GPU_ALL, i, 7) == i / 32 * 32 + 7
            && __shfl_sync(GPU_ALL, l, 3, 8) == l / 8 * 8 + 3
            && __shfl_down_sync(GPU_ALL, l, 1) == (l < 31 ? l + 1 : l)
            && __shfl_up_sync(GPU_ALL, l, 2) == (l < 2 ? l : l - 2)
            && __shfl_xor_sync(GPU_ALL, l, 5) == (l ^ 5) && odd == 0xaaaaaaaa
            && __any_sync(GPU_ALL, l == 9) && !__all_sync(GPU_ALL, l == 9);

    // half of a warp goes on alone, then it is whole again
    if (l < 16) {
        y[at] &= __shfl_xor_sync(0xffffu, l, 8) == (l ^ 8);
    }
    __syncwarp();
    y[at] &= __ballot_sync(GPU_ALL, 1) == GPU_ALL;
}

// The last block to come adds up what the others left.
__global__ void
last(const unsigned *x, unsigned *left, unsigned *count, unsigned *y)
{
    GPU_SHARED(shared);
    unsigned *mine = reinterpret_cast<unsigned *>(shared), i, sum = 0;

    if (threadIdx.x == 0) {
        left[blockIdx.x] = x[blockIdx.x] * 2;
        *mine = ptx_add_acq_rel(count, 1);
    }
    __syncthreads();

    if (*mine == gridDim.x - 1 && threadIdx.x == 0) {
        for (i = 0; i < gridDim.x; i++) {
            sum += left[i];
        }
        *y = sum;
    }
}

static void
works(uint64_t seed, unsigned threads)
{
    unsigned i, n = 7 * 96, count = 0, y = 0;
    std::vector<float> x(n), s(n);
    std::vector<unsigned> ok(n), from(50), left(50);

    simt_set(seed, threads);
    for (i = 0; i < n; i++) {
        x[i] = static_cast<float>(i % 96);
    }

    GPU_LAUNCH(sum<true>, dim3(7), dim3(96), 12, 0, x.data(), s.data());
    GPU_LAUNCH(lanes, dim3(7), dim3(96), 0, 0, ok.data());
    for (i = 0; i < n; i++) {
        assert(s[i] == 95 * 96 / 2 && ok[i] == 1);
    }

    for (i = 0; i < 50; i++) {
        from[i] = i;
    }
    GPU_LAUNCH(
        last, dim3(50), dim3(64), 4, 0, from.data(), left.data(), &count, &y);
    assert(y == 49 * 50);
}

// Faults.

__global__ void
divergent(int *y)
{
    if (threadIdx.x < 40) {
        __syncthreads();
    }
    y[threadIdx.x] = 1;
}

__global__ void
ended(int *y)
{
    if (threadIdx.x == 5) {
        return;
    }
    y[threadIdx.x] = static_cast<int>(__ballot_sync(GPU_ALL, 1));
}

__global__ void
apart(int *y)
{
    if (threadIdx.x < 16) {
        y[threadIdx.x] = __shfl_sync(GPU_ALL, 1, 0);
    } else {
        y[threadIdx.x] = __shfl_xor_sync(GPU_ALL, 1, 1);
    }
}

__global__ void
outside(float *y)
{
    GPU_SHARED(shared);

    reinterpret_cast<float *>(shared)[threadIdx.x] = 1;
    __syncthreads();
    y[threadIdx.x] = reinterpret_cast<float *>(shared)[31 - threadIdx.x];
}

// Bytes beyond what the host has there.
__global__ void
beyond(float *y)
{
    y[threadIdx.x + 33] = 1;
}

__global__ void
skewed(float *y)
{
    reinterpret_cast<uint4 *>(y + 1)[threadIdx.x] = make_uint4(0, 0, 0, 0);
}

// Copies that are looked at before they are waited for, or never.
template <bool wait>
__global__ void
copied(const uint4 *x, uint4 *y)
{
    GPU_SHARED(shared);
    uint4 *s = reinterpret_cast<uint4 *>(shared);

    ptx_copy_async(&s[threadIdx.x], &x[threadIdx.x], 16);
    ptx_copy_commit();
    y[threadIdx.x] = s[threadIdx.x];
    if (wait) {
        ptx_copy_wait<0>();
    }
}

__global__ void
rows(uint32_t *y)
{
    GPU_SHARED(shared);
    uint32_t r[4];

    ptx_ldmatrix_x4(r, shared + 20 * threadIdx.x);
    y[threadIdx.x] = r[0];
}

// Blocks that tell one another by words that order nothing.
__global__ void
words(unsigned *left, unsigned *count, unsigned *y)
{
    unsigned i, n;

    if (threadIdx.x == 0) {
        left[blockIdx.x] = blockIdx.x;
        n = atomicAdd(count, 1u);
        for (i = 0; n == gridDim.x - 1 && i < gridDim.x; i++) {
            *y += left[i];
        }
    }
}

// Whether what a kernel computes depends on who goes first.
static int
depends(void)
{
    unsigned i, seed;
    std::vector<float> x(96), y(96), first;

    for (i = 0; i < 96; i++) {
        x[i] = static_cast<float>(i);
    }
    for (seed = 0; seed < 8; seed++) {
        simt_set(seed, 1);
        GPU_LAUNCH(sum<false>, dim3(1), dim3(96), 12, 0, x.data(), y.data());
        if (seed == 0) {
            first = y;
        }
        if (memcmp(first.data(), y.data(), 96 * sizeof(float)) != 0) {
            return 1;
        }
    }

    return 0;
}

static int
fault(const char *name)
{
    std::vector<float> f(64);
    std::vector<int> y(64);
    std::vector<unsigned> left(40), sums(2);
    std::vector<uint4> from(32), to(32);
    int i;

    if (strcmp(name, "divergent") == 0) {
        GPU_LAUNCH(divergent, dim3(1), dim3(64), 0, 0, y.data());
    } else if (strcmp(name, "ended") == 0) {
        GPU_LAUNCH(ended, dim3(1), dim3(32), 0, 0, y.data());
    } else if (strcmp(name, "apart") == 0) {
        GPU_LAUNCH(apart, dim3(1), dim3(32), 0, 0, y.data());
    } else if (strcmp(name, "outside") == 0) {
        GPU_LAUNCH(outside, dim3(1), dim3(32), 124, 0, f.data());
    } else if (strcmp(name, "beyond") == 0) {
        GPU_LAUNCH(beyond, dim3(1), dim3(32), 0, 0, f.data());
    } else if (strcmp(name, "skewed") == 0) {
        GPU_LAUNCH(skewed, dim3(1), dim3(8), 0, 0, f.data());
    } else if (strcmp(name, "unwaited") == 0) {
        GPU_LAUNCH(
            copied<false>, dim3(1), dim3(32), 512, 0, from.data(), to.data());
    } else if (strcmp(name, "early") == 0) {
        GPU_LAUNCH(
            copied<true>, dim3(1), dim3(32), 512, 0, from.data(), to.data());
        printf("it reads %08x\n", to[7].y);
    } else if (strcmp(name, "rows") == 0) {
        GPU_LAUNCH(rows, dim3(1), dim3(32), 700, 0, left.data());
    } else if (strcmp(name, "words") == 0) {
        // the second thread is late for the first
        simt_set(1, 2);
        for (i = 0; i < 3; i++) {
            sums[0] = 0;
            GPU_LAUNCH(words, dim3(40), dim3(32), 0, 0, left.data(),
                sums.data(), sums.data() + 1);
        }
    } else if (strcmp(name, "large") == 0) {
        GPU_LAUNCH(outside, dim3(1), dim3(32), 300000, 0, f.data());
    } else if (strcmp(name, "unasked") == 0) {
        GPU_LAUNCH(outside, dim3(1), dim3(32), 50000, 0, f.data());
    } else if (strcmp(name, "none") == 0) {
        GPU_LAUNCH(outside, dim3(0), dim3(32), 128, 0, f.data());
    } else if (strcmp(name, "race") == 0) {
        return depends() ? printf("it depends on the order\n") > 0 : 0;
    } else {
        return 2;
    }

    return 0;
}

int
main(int argc, char **argv)
{
    uint64_t seed;

    if (argc > 1) {
        return fault(argv[1]);
    }

    for (seed = 0; seed < 20; seed++) {
        works(seed, 1 + seed % 3);
    }
    printf("20 seeds\n");

    return 0;
}
