/*
 * The machine's ceilings: see probe.h.
 *
 * DESIGN.  A copy and a read are grids of as many blocks as the device holds a
 * few times over, each thread with eight loads of 16 bytes on their way, over
 * memory many times the size of the caches.  The figure is the median of some
 * turns, as that of every row beside it is.
 */
#include "probe.h"
#include "probe_rt.h"

#include "device.h"

#include <algorithm>

#define TURNS   15
#define DEPTH   8
#define THREADS 256
#define BLOCKS  (PROBE_EMULATED ? 3 : 132 * 16)

static __device__ __forceinline__ void
load(uint4 v[DEPTH], const uint4 *p, size_t at, size_t step)
{
    int i;

#pragma unroll
    for (i = 0; i < DEPTH; i++) {
        v[i] = p[at + i * step];
    }
}

/* n is whole turns of the grid. */
__global__ void
probe_copy_kernel(const uint4 *from, uint4 *to, size_t n)
{
    size_t at = blockIdx.x * blockDim.x + threadIdx.x;
    size_t step = static_cast<size_t>(gridDim.x) * blockDim.x;
    uint4 v[DEPTH];
    int i;

    for (; at < n; at += DEPTH * step) {
        load(v, from, at, step);
#pragma unroll
        for (i = 0; i < DEPTH; i++) {
            to[at + i * step] = v[i];
        }
    }
}

/* Its words' sum decides on a write that never is, so that they are read. */
__global__ void
probe_read_kernel(const uint4 *from, uint4 *to, size_t n)
{
    size_t at = blockIdx.x * blockDim.x + threadIdx.x;
    size_t step = static_cast<size_t>(gridDim.x) * blockDim.x;
    uint4 v[DEPTH];
    uint32_t sum = 0;
    int i;

    for (; at < n; at += DEPTH * step) {
        load(v, from, at, step);
#pragma unroll
        for (i = 0; i < DEPTH; i++) {
            sum |= v[i].x | v[i].y | v[i].z | v[i].w;
        }
    }
    if (sum == 0x80000000u) {
        to[0].x = sum;
    }
}

__global__ void
probe_fill_kernel(uint4 *to, size_t n)
{
    size_t at = blockIdx.x * blockDim.x + threadIdx.x;
    size_t step = static_cast<size_t>(gridDim.x) * blockDim.x;
    uint32_t h;

    for (; at < n; at += step) {
        h = static_cast<uint32_t>(at) * 2654435761u & 0x7fffffffu;
        to[at] = make_uint4(h, h ^ h >> 7, h * 5 & 0x7fffffffu, h >> 3);
    }
}

static double
median(double *v, int n)
{
    std::sort(v, v + n);
    return v[n / 2];
}

/* Bytes that a turn moves, per us. */
static double
stream_speed(uint64_t bytes, int copies)
{
    size_t turn = static_cast<size_t>(BLOCKS) * THREADS * DEPTH;
    size_t n = std::max<size_t>(bytes / 16 / turn, 1) * turn;
    uint4 *from = static_cast<uint4 *>(rt_alloc(n * 16));
    uint4 *to = static_cast<uint4 *>(rt_alloc(copies ? n * 16 : 16));
    rt_stream_t s = rt_stream_open();
    probe_time_t a = probe_time_open(), b = probe_time_open();
    double us[TURNS];
    int i;

    if (from == NULL || to == NULL) {
        fprintf(stderr, "probe: no memory for %zu bytes\n", n * 16);
        exit(1);
    }

    GPU_LAUNCH(probe_fill_kernel, dim3(BLOCKS), dim3(THREADS), 0, s, from, n);
    for (i = -2; i < TURNS; i++) {
        probe_time_put(a, s);
        if (copies) {
            GPU_LAUNCH(probe_copy_kernel, dim3(BLOCKS), dim3(THREADS), 0, s,
                from, to, n);
        } else {
            GPU_LAUNCH(probe_read_kernel, dim3(BLOCKS), dim3(THREADS), 0, s,
                from, to, n);
        }
        probe_time_put(b, s);
        rt_wait(s);
        us[i < 0 ? 0 : i] = probe_time_us(a, b);
    }

    rt_free(from);
    rt_free(to);
    rt_stream_close(s);

    return static_cast<double>(n) * (copies ? 32 : 16) / median(us, TURNS);
}

extern "C" double
probe_copy(uint64_t bytes)
{
    return stream_speed(bytes, 1);
}

extern "C" double
probe_read(uint64_t bytes)
{
    return stream_speed(bytes, 0);
}

extern "C" double
probe_launch(uint32_t n, int next)
{
    rt_stream_t s = rt_stream_open();
    probe_time_t a = probe_time_open(), b = probe_time_open();
    probe_graph_t g = probe_graph_open(s, n, next);
    double us[TURNS];
    int i;

    for (i = -2; i < TURNS; i++) {
        probe_time_put(a, s);
        probe_graph_run(g, s);
        probe_time_put(b, s);
        rt_wait(s);
        us[i < 0 ? 0 : i] = probe_time_us(a, b) / n;
    }
    probe_graph_close(g);
    rt_stream_close(s);

    return median(us, TURNS);
}

static probe_time_t marks[PROBE_MARKS];

extern "C" void
probe_mark(kn_dev_t *dev, uint32_t i)
{
    if (marks[i] == NULL) {
        marks[i] = probe_time_open();
    }
    probe_time_put(marks[i], dev->stream);
}

extern "C" double
probe_between(uint32_t from, uint32_t to)
{
    return probe_time_us(marks[from], marks[to]);
}
