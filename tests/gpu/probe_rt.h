/*
 * What probe.cu asks of CUDA's runtime beyond kernels/cuda/rt.h, and its twins:
 * times, and many launches at once.
 */
#ifndef PROBE_RT_H
#define PROBE_RT_H

#include "gpu.h"
#include "rt.h"

#include <stdio.h>
#include <stdlib.h>

#ifdef __CUDACC__

#define PROBE_EMULATED 0

static void
probe_check(cudaError_t e, const char *what)
{
    if (e != cudaSuccess) {
        fprintf(stderr, "probe: %s: %s\n", what, cudaGetErrorString(e));
        exit(1);
    }
}

typedef cudaEvent_t probe_time_t;

static inline probe_time_t
probe_time_open(void)
{
    probe_time_t t;

    probe_check(cudaEventCreate(&t), "making an event");
    return t;
}

static inline void
probe_time_put(probe_time_t t, rt_stream_t s)
{
    probe_check(cudaEventRecord(t, s), "recording an event");
}

static inline double
probe_time_us(probe_time_t from, probe_time_t to)
{
    float ms;

    probe_check(cudaEventSynchronize(to), "waiting for an event");
    probe_check(cudaEventElapsedTime(&ms, from, to), "between events");
    return ms * 1e3;
}

static __device__ __forceinline__ void
probe_before(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;\n"
                 "griddepcontrol.wait;" ::
                     : "memory");
#endif
}

/* The emulator's launch has to have an argument. */
static __global__ void
probe_nothing(int)
{
    probe_before();
}

/* n launches as one graph; the stream that they are for. */
typedef cudaGraphExec_t probe_graph_t;

static inline void
probe_launch_one(rt_stream_t s, int next)
{
    cudaLaunchConfig_t c = {};
    cudaLaunchAttribute a = {};

    a.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    a.val.programmaticStreamSerializationAllowed = 1;
    c.gridDim = dim3(1);
    c.blockDim = dim3(32);
    c.stream = s;
    c.attrs = &a;
    c.numAttrs = next ? 1 : 0;
    probe_check(cudaLaunchKernelEx(&c, probe_nothing, 0), "launching");
}

static inline probe_graph_t
probe_graph_open(rt_stream_t s, unsigned n, int next)
{
    cudaGraph_t g;
    probe_graph_t e;
    unsigned i;

    probe_check(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal),
        "recording a graph");
    for (i = 0; i < n; i++) {
        probe_launch_one(s, next);
    }
    probe_check(cudaStreamEndCapture(s, &g), "recording a graph");
    probe_check(cudaGraphInstantiate(&e, g, 0), "making a graph");
    probe_check(cudaGraphDestroy(g), "ending a graph");
    return e;
}

static inline void
probe_graph_run(probe_graph_t g, rt_stream_t s)
{
    probe_check(cudaGraphLaunch(g, s), "launching a graph");
}

static inline void
probe_graph_close(probe_graph_t g)
{
    probe_check(cudaGraphExecDestroy(g), "ending a graph");
}

#else

#include <time.h>

#define PROBE_EMULATED 1

typedef double *probe_time_t;

static inline probe_time_t
probe_time_open(void)
{
    return static_cast<double *>(calloc(1, sizeof(double)));
}

static inline void
probe_time_put(probe_time_t t, rt_stream_t s)
{
    struct timespec now;

    rt_wait(s);
    (void) clock_gettime(CLOCK_MONOTONIC, &now);
    *t = static_cast<double>(now.tv_sec) * 1e6
         + static_cast<double>(now.tv_nsec) * 1e-3;
}

static inline double
probe_time_us(probe_time_t from, probe_time_t to)
{
    return *to - *from;
}

static inline void
probe_nothing(int)
{
}

typedef unsigned probe_graph_t;

static inline probe_graph_t
probe_graph_open(rt_stream_t s, unsigned n, int next)
{
    (void) s;
    (void) next;
    return n;
}

static inline void
probe_graph_run(probe_graph_t g, rt_stream_t s)
{
    unsigned i;

    (void) s; /* the emulator has one */
    for (i = 0; i < g; i++) {
        GPU_LAUNCH(probe_nothing, dim3(1), dim3(32), 0, s, 0);
    }
}

static inline void
probe_graph_close(probe_graph_t g)
{
    (void) g;
}

#endif

#endif
