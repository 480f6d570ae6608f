// Each instruction of kernels/cuda/ptx.h, alone, against what the manual says
// it computes: on the emulator this judges the twins, on a GPU the wrappers and
// with them whether emulator and GPU mean the same.  Prints a line each; exit 1
// if one differs.
//
// The judge is written over whole matrices, not over lanes: a wrong layout
// cannot be wrong here in the same way.
#include "gpu.h"
#include "ptx.h"
#include "rt.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REPS 20

typedef struct {
    uint16_t a[16][16], b[16][8]; // bits of numbers of 16 bits
    float c[16][8];
} mma_in_t;

static rt_stream_t stream;
static uint64_t random_now = 88172645463325252u;

static uint32_t
draw(void)
{
    random_now ^= random_now << 13;
    random_now ^= random_now >> 7;
    random_now ^= random_now << 17;

    return static_cast<uint32_t>(random_now >> 32);
}

// A number of 16 bits from 2^-8 to 2, either sign, as bits; exponents are bits
// 10 to 14 with a middle of 15 (F16), or 7 to 14 with one of 127 (BF16).
static uint16_t
draw_bits(int bf16)
{
    uint32_t e = draw() % 9, sign = draw() & 0x8000;

    return static_cast<uint16_t>(bf16 ? sign | (119 + e) << 7 | (draw() & 127)
                                      : sign | (7 + e) << 10 | (draw() & 1023));
}

static double
value(uint16_t h, int bf16)
{
    int e = bf16 ? (h >> 7 & 255) - 127 : (h >> 10 & 31) - 15;
    double f = bf16 ? 1 + (h & 127) / 128.0 : 1 + (h & 1023) / 1024.0;

    return ldexp(h & 0x8000 ? -f : f, e);
}

template <bool bf16>
__global__ void
run_mma(const mma_in_t *in, float *out)
{
    unsigned g = threadIdx.x / 4, t = threadIdx.x % 4, i;
    uint32_t a[4], b[2];
    float c[4];

    for (i = 0; i < 4; i++) {
        const uint16_t *p = &in->a[g + i % 2 * 8][2 * t + i / 2 * 8];

        a[i] = p[0] | static_cast<uint32_t>(p[1]) << 16;
        c[i] = in->c[g + i / 2 * 8][2 * t + i % 2];
    }
    for (i = 0; i < 2; i++) {
        b[i] = in->b[2 * t + i * 8][g]
               | static_cast<uint32_t>(in->b[2 * t + i * 8 + 1][g]) << 16;
    }

    if (bf16) {
        ptx_mma_bf16(c, a, b);
    } else {
        ptx_mma_f16(c, a, b);
    }

    for (i = 0; i < 4; i++) {
        out[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = c[i];
    }
}

// The largest error of c + a b, of the sum of its terms' sizes.
static double
judge_mma(const mma_in_t *in, const float *out, int bf16)
{
    unsigned i, j, k;
    double sum, size, v, worst = 0;

    for (i = 0; i < 16; i++) {
        for (j = 0; j < 8; j++) {
            sum = in->c[i][j];
            size = fabs(sum);
            for (k = 0; k < 16; k++) {
                v = value(in->a[i][k], bf16) * value(in->b[k][j], bf16);
                sum += v;
                size += fabs(v);
            }
            worst = fmax(worst, fabs(out[i * 8 + j] - sum) / size);
        }
    }

    return worst;
}

static int
check_mma(int bf16)
{
    mma_in_t in, *dev = static_cast<mma_in_t *>(rt_alloc(sizeof(in)));
    float out[16 * 8];
    float *y = static_cast<float *>(rt_alloc(sizeof(out)));
    double worst = 0;
    int rep;
    unsigned i;

    for (rep = 0; rep < REPS; rep++) {
        for (i = 0; i < 16 * 16; i++) {
            in.a[i / 16][i % 16] = draw_bits(bf16);
            in.b[i / 16][i % 8] = draw_bits(bf16);
            in.c[i / 16][i % 8] = static_cast<float>(value(draw_bits(0), 0));
        }

        rt_copy_in(dev, &in, sizeof(in));
        if (bf16) {
            GPU_LAUNCH(run_mma<true>, dim3(1), dim3(32), 0, stream, dev, y);
        } else {
            GPU_LAUNCH(run_mma<false>, dim3(1), dim3(32), 0, stream, dev, y);
        }
        rt_wait(stream);
        rt_copy_out(out, y, sizeof(out));
        worst = fmax(worst, judge_mma(&in, out, bf16));
    }

    rt_free(dev);
    rt_free(y);
    printf("mma %-22s error %.1e of the terms\n", bf16 ? "bf16" : "f16", worst);

    // tensor cores cut terms off below the largest one's 24th bit
    return worst < 1e-6;
}

// Rows of a matrix [32, 8 + pad] of 16 bits, through shared memory; lane i
// points at row order[i].
template <bool trans>
__global__ void
run_ldmatrix(const uint16_t *in, const unsigned *order, uint32_t *out)
{
    GPU_SHARED(shared);
    uint16_t *s = reinterpret_cast<uint16_t *>(shared);
    unsigned i, l = threadIdx.x;
    uint32_t r[4];

    for (i = l; i < 32 * 8; i += 32) {
        s[i / 8 * 24 + i % 8] = in[i];
    }
    __syncthreads();

    if (trans) {
        ptx_ldmatrix_x4_trans(r, s + order[l] * 24);
    } else {
        ptx_ldmatrix_x4(r, s + order[l] * 24);
    }

    for (i = 0; i < 4; i++) {
        out[l * 4 + i] = r[i];
    }
}

static int
check_ldmatrix(int trans)
{
    uint16_t in[32 * 8], lo, hi;
    unsigned order[32], i, j, l, g, t, bad = 0;
    uint32_t out[32 * 4], *y = static_cast<uint32_t *>(rt_alloc(sizeof(out)));
    uint16_t *x = static_cast<uint16_t *>(rt_alloc(sizeof(in)));
    unsigned *o = static_cast<unsigned *>(rt_alloc(sizeof(order)));

    for (i = 0; i < 32 * 8; i++) {
        in[i] = static_cast<uint16_t>(i * 257);
    }
    for (i = 0; i < 32; i++) {
        order[i] = i * 5 % 32;
    }

    rt_copy_in(x, in, sizeof(in));
    rt_copy_in(o, order, sizeof(order));
    if (trans) {
        GPU_LAUNCH(
            run_ldmatrix<true>, dim3(1), dim3(32), 32 * 48, stream, x, o, y);
    } else {
        GPU_LAUNCH(
            run_ldmatrix<false>, dim3(1), dim3(32), 32 * 48, stream, x, o, y);
    }
    rt_wait(stream);
    rt_copy_out(out, y, sizeof(out));

    for (l = 0; l < 32; l++) {
        g = l / 4;
        t = l % 4;
        for (j = 0; j < 4; j++) {
            if (trans) {
                lo = in[order[j * 8 + 2 * t] * 8 + g];
                hi = in[order[j * 8 + 2 * t + 1] * 8 + g];
            } else {
                lo = in[order[j * 8 + g] * 8 + 2 * t];
                hi = in[order[j * 8 + g] * 8 + 2 * t + 1];
            }
            bad += out[l * 4 + j] != (lo | static_cast<uint32_t>(hi) << 16);
        }
    }

    rt_free(x);
    rt_free(o);
    rt_free(y);
    printf("ldmatrix x4 %-14s %u of 128 differ\n", trans ? "trans" : "", bad);

    return bad == 0;
}

// Chunk i of a thread goes to place 2 - i, with 16, 7 and 0 bytes of it, in
// three groups; what has come is looked at after each wait.
__global__ void
run_copy(const uint4 *in, uint4 *out)
{
    GPU_SHARED(shared);
    uint4 *s = reinterpret_cast<uint4 *>(shared);
    unsigned l = threadIdx.x;

    ptx_copy_async(&s[l * 3 + 2], &in[l * 3], 16);
    ptx_copy_commit();
    ptx_copy_async(&s[l * 3 + 1], &in[l * 3 + 1], 7);
    ptx_copy_commit();
    ptx_copy_async(&s[l * 3], &in[l * 3 + 2], 0);
    ptx_copy_commit();

    ptx_copy_wait<2>();
    out[l * 3 + 2] = s[l * 3 + 2];
    ptx_copy_wait<0>();
    out[l * 3 + 1] = s[l * 3 + 1];
    out[l * 3] = s[l * 3];
}

static int
check_copy(void)
{
    unsigned char in[96 * 16], out[sizeof(in)], want;
    unsigned i, place, bad = 0;
    static const unsigned bytes[3] = {16, 7, 0};
    uint4 *x = static_cast<uint4 *>(rt_alloc(sizeof(in)));
    uint4 *y = static_cast<uint4 *>(rt_alloc(sizeof(in)));

    for (i = 0; i < sizeof(in); i++) {
        in[i] = static_cast<unsigned char>(draw() | 1);
    }

    rt_copy_in(x, in, sizeof(in));
    GPU_LAUNCH(run_copy, dim3(1), dim3(32), sizeof(in), stream, x, y);
    rt_wait(stream);
    rt_copy_out(out, y, sizeof(out));

    for (i = 0; i < sizeof(in); i++) {
        place = 2 - i / 16 % 3;
        want =
            i % 16 < bytes[place] ? in[(i / 48 * 3 + place) * 16 + i % 16] : 0;
        bad += out[i] != want;
    }

    rt_free(x);
    rt_free(y);
    printf(
        "copy_async                 %u of %zu bytes differ\n", bad, sizeof(in));

    return bad == 0;
}

// Blocks in a chain: each waits for the word of the one before it.
__global__ void
run_flags(const uint4 *in, uint32_t *flags, uint32_t *count, uint4 *out)
{
    uint32_t b = blockIdx.x;

    if (threadIdx.x == 0) {
        out[b] = ptx_load_once(&in[b]);
        if (b > 0) {
            while (ptx_load_acquire(&flags[b - 1]) == 0) {
            }
            out[b].x += out[b - 1].x;
        }
        ptx_store_release(&flags[b], 1);
        ptx_add_acq_rel(count, 1);
    }
}

// No more blocks than run at the same time anywhere.
static int
check_flags(void)
{
    enum { BLOCKS = 4 };
    uint4 in[BLOCKS], out[BLOCKS];
    uint32_t zero[BLOCKS + 1] = {0}, count, sum = 0, i, bad = 0;
    uint4 *x = static_cast<uint4 *>(rt_alloc(sizeof(in)));
    uint4 *y = static_cast<uint4 *>(rt_alloc(sizeof(in)));
    uint32_t *flags = static_cast<uint32_t *>(rt_alloc(sizeof(zero)));

    for (i = 0; i < BLOCKS; i++) {
        in[i] = make_uint4(draw(), draw(), draw(), draw());
    }

    rt_copy_in(x, in, sizeof(in));
    rt_copy_in(flags, zero, sizeof(zero));
    GPU_LAUNCH(run_flags, dim3(BLOCKS), dim3(32), 0, stream, x, flags,
        flags + BLOCKS, y);
    rt_wait(stream);
    rt_copy_out(out, y, sizeof(out));
    rt_copy_out(&count, flags + BLOCKS, sizeof(count));

    for (i = 0; i < BLOCKS; i++) {
        sum += in[i].x;
        bad += out[i].x != sum || out[i].y != in[i].y || out[i].w != in[i].w;
    }

    rt_free(x);
    rt_free(y);
    rt_free(flags);
    printf("flags, load_once           %u of %d blocks differ\n",
        bad + (count != BLOCKS), BLOCKS);

    return bad == 0 && count == BLOCKS;
}

// Terms that are 0 because of A must change nothing, however large B is where A
// is 0: attention gives positions that a query does not see the weight 0, and a
// query's bits may not tell what is there.  Rows of C differ in size, too.
template <bool bf16>
__global__ void
run_nothing(const mma_in_t *in, float *out)
{
    unsigned g = threadIdx.x / 4, t = threadIdx.x % 4, i;
    uint32_t a[4], b[2], none[2];
    float c[2][4];

    for (i = 0; i < 4; i++) {
        const uint16_t *p = &in->a[g + i % 2 * 8][2 * t];

        a[i] = i < 2 ? p[0] | static_cast<uint32_t>(p[1]) << 16 : 0;
        c[0][i] = c[1][i] = in->c[g + i / 2 * 8][2 * t + i % 2];
    }
    b[0] = none[0] =
        in->b[2 * t][g] | static_cast<uint32_t>(in->b[2 * t + 1][g]) << 16;
    b[1] =
        in->b[2 * t + 8][g] | static_cast<uint32_t>(in->b[2 * t + 9][g]) << 16;
    none[1] = 0;

    if (bf16) {
        ptx_mma_bf16(c[0], a, b);
        ptx_mma_bf16(c[1], a, none);
    } else {
        ptx_mma_f16(c[0], a, b);
        ptx_mma_f16(c[1], a, none);
    }

    for (i = 0; i < 4; i++) {
        out[threadIdx.x * 8 + i] = c[0][i];
        out[threadIdx.x * 8 + 4 + i] = c[1][i];
    }
}

static int
check_nothing(int bf16)
{
    mma_in_t in, *dev = static_cast<mma_in_t *>(rt_alloc(sizeof(in)));
    float out[32 * 8], *y = static_cast<float *>(rt_alloc(sizeof(out)));
    unsigned rep, i, bad = 0;

    for (rep = 0; rep < REPS; rep++) {
        for (i = 0; i < 16 * 16; i++) {
            // A and what it meets are small, what meets zeros is the largest
            in.a[i / 16][i % 16] =
                static_cast<uint16_t>(draw_bits(bf16) & 0x8fff);
            in.b[i / 16][i % 8] =
                static_cast<uint16_t>(i / 16 < 8 ? draw_bits(bf16)
                                      : bf16     ? 0x7f7f
                                                 : 0x7bff);
            in.c[i / 16][i % 8] = static_cast<float>(
                ldexp(value(draw_bits(0), 0), -static_cast<int>(i % 40)));
        }

        rt_copy_in(dev, &in, sizeof(in));
        if (bf16) {
            GPU_LAUNCH(run_nothing<true>, dim3(1), dim3(32), 0, stream, dev, y);
        } else {
            GPU_LAUNCH(
                run_nothing<false>, dim3(1), dim3(32), 0, stream, dev, y);
        }
        rt_wait(stream);
        rt_copy_out(out, y, sizeof(out));
        for (i = 0; i < 32; i++) {
            bad += memcmp(&out[i * 8], &out[i * 8 + 4], 16) != 0;
        }
    }

    rt_free(dev);
    rt_free(y);
    printf("mma %-4s with terms of 0      %u of %u differ\n",
        bf16 ? "bf16" : "f16", bad, REPS * 32);

    return bad == 0;
}

__global__ void
run_exp2(const float *in, float *out, unsigned n)
{
    unsigned i;

    for (i = threadIdx.x; i < n; i += blockDim.x) {
        out[i] = ptx_exp2(in[i]);
    }
}

// Attention relies on what the first four are.
static int
check_exp2(void)
{
    enum { N = 1024 };
    float in[N] = {0, -INFINITY, NAN, INFINITY, -0.0f, -125, -130, -200};
    float out[N], *x = static_cast<float *>(rt_alloc(sizeof(in)));
    float *y = static_cast<float *>(rt_alloc(sizeof(out)));
    double worst = 0;
    unsigned i, bad;

    for (i = 8; i < N; i++) {
        in[i] = draw() / 67108864.0f - (i % 2 ? 60 : 32);
    }

    rt_copy_in(x, in, sizeof(in));
    GPU_LAUNCH(run_exp2, dim3(1), dim3(32), 0, stream, x, y, N);
    rt_wait(stream);
    rt_copy_out(out, y, sizeof(out));

    bad = (out[0] != 1) + (out[1] != 0) + !isnan(out[2]) + (out[3] != INFINITY)
          + (out[4] != 1) + !(fabsf(out[5] * 0x1p125f - 1) < 5e-7f)
          + (out[6] != 0) + (out[7] != 0);
    for (i = 8; i < N; i++) {
        worst = fmax(worst, fabs(out[i] / exp2(in[i]) - 1));
    }

    rt_free(x);
    rt_free(y);
    printf(
        "exp2                       %u of 8 differ, error %.1e\n", bad, worst);

    return bad == 0 && worst < 5e-7;
}

int
main(void)
{
    char name[64], err[256] = "";
    int ok = rt_open(name, sizeof(name), err, sizeof(err)) == 0;

    if (!ok) {
        fprintf(stderr, "%s\n", err);
        return 1;
    }
    stream = rt_stream_open();
#ifndef __CUDACC__
    simt_set(1, 4);
    (void) rt_stream_open(); // stream 0, which the device has by itself
#endif
    ok &= check_mma(1);
    ok &= check_mma(0);
    ok &= check_ldmatrix(0);
    ok &= check_ldmatrix(1);
    ok &= check_copy();
    ok &= check_flags();
    ok &= check_nothing(1);
    ok &= check_nothing(0);
    ok &= check_exp2();
    rt_stream_close(stream);

    return !ok;
}
