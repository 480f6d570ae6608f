// CUDA's runtime; rt.h has the contract.
#include "rt.h"
#include "rt_judge.h"
#include "rt_launch.cuh"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

static void
check(cudaError_t e, const char *what)
{
    if (e != cudaSuccess) {
        rt_die(what, cudaGetErrorString(e));
    }
}

int
rt_open(char *name, size_t n, char *err, size_t errlen)
{
    rt_found_t found = {};
    cudaDeviceProp p;
    cudaError_t e;

    cudaDriverGetVersion(&found.driver);
    cudaRuntimeGetVersion(&found.runtime);
    e = cudaGetDeviceCount(&found.devices);
    if (e != cudaSuccess) {
        found.devices = 0;
    }

    if (found.devices > 0) {
        e = cudaGetDeviceProperties(&p, 0);
        if (e == cudaSuccess) {
            found.major = p.major;
            found.minor = p.minor;
            snprintf(found.name, sizeof(found.name), "%s", p.name);
            e = cudaSetDevice(0);
        }
    }
    if (found.devices > 0 && e == cudaSuccess && found.major >= RT_MAJOR_MIN) {
        e = cudaFree(NULL); // makes the context, or says why not
    }

    found.error = e != cudaSuccess ? cudaGetErrorString(e) : NULL;
    if (rt_judge(&found, err, errlen) != 0) {
        return -1;
    }

    snprintf(name, n, "cuda %s", found.name);

    return 0;
}

uint32_t
rt_devices(void)
{
    int n;

    check(cudaGetDeviceCount(&n), "asking for the devices");

    return static_cast<uint32_t>(n);
}

void
rt_use(uint32_t device)
{
    check(cudaSetDevice(static_cast<int>(device)), "choosing a device");
}

int
rt_peer(uint32_t device)
{
    int own, can, other = static_cast<int>(device);
    cudaError_t e;

    check(cudaGetDevice(&own), "asking for the device");
    check(cudaDeviceCanAccessPeer(&can, own, other), "asking for a peer");
    if (!can) {
        return -1;
    }

    e = cudaDeviceEnablePeerAccess(other, 0);
    if (e == cudaErrorPeerAccessAlreadyEnabled) {
        (void) cudaGetLastError();
        return 0;
    }
    check(e, "opening a peer's memory");

    return 0;
}

static thread_local void (*watch)(void *arg);
static thread_local void *watch_arg;

void
rt_watch(void (*look)(void *arg), void *arg)
{
    watch = look;
    watch_arg = arg;
}

int rt_overlaps;

void
rt_overlap(int yes)
{
    int device, major;

    check(cudaGetDevice(&device), "asking for the device");
    check(cudaDeviceGetAttribute(
              &major, cudaDevAttrComputeCapabilityMajor, device),
        "asking for the device");
    rt_overlaps = yes && major >= 9;
}

size_t
rt_left(void)
{
    size_t left, all;

    check(cudaMemGetInfo(&left, &all), "asking for free memory");

    return left;
}

rt_stream_t
rt_stream_open(void)
{
    rt_stream_t s;

    check(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking),
        "opening a stream");

    return s;
}

void
rt_stream_close(rt_stream_t s)
{
    check(cudaStreamDestroy(s), "closing a stream");
}

void *
rt_alloc(size_t n)
{
    void *p;
    cudaError_t e = cudaMalloc(&p, n > 0 ? n : 1);

    if (e == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        return NULL;
    }
    check(e, "allocating");
    check(cudaMemset(p, 0, n), "zeroing");
    check(cudaDeviceSynchronize(), "zeroing");

    return p;
}

void
rt_free(void *p)
{
    check(cudaFree(p), "freeing");
}

void *
rt_host_alloc(size_t n)
{
    void *p;
    cudaError_t e = cudaHostAlloc(&p, n > 0 ? n : 1, cudaHostAllocDefault);

    if (e == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        return NULL;
    }
    check(e, "allocating host memory");
    memset(p, 0, n);

    return p;
}

void
rt_host_free(void *p)
{
    check(cudaFreeHost(p), "freeing host memory");
}

void
rt_copy_in(void *to, const void *from, size_t n)
{
    check(cudaMemcpy(to, from, n, cudaMemcpyDefault), "copying in");
    check(cudaDeviceSynchronize(), "copying in");
}

void
rt_copy_out(void *to, const void *from, size_t n)
{
    check(cudaMemcpy(to, from, n, cudaMemcpyDefault), "copying out");
}

void
rt_copy_start(void *to, const void *from, size_t n, rt_stream_t s)
{
    check(cudaMemcpyAsync(to, from, n, cudaMemcpyDefault, s), "copying");
}

rt_event_t
rt_event_open(void)
{
    rt_event_t e;

    check(cudaEventCreateWithFlags(&e, cudaEventDisableTiming),
        "making an event");

    return e;
}

void
rt_event_close(rt_event_t e)
{
    check(cudaEventDestroy(e), "ending an event");
}

void
rt_event_put(rt_event_t e, rt_stream_t s)
{
    check(cudaEventRecord(e, s), "recording an event");
}

int
rt_event_ended(rt_event_t e)
{
    cudaError_t r = cudaEventQuery(e);

    if (r == cudaErrorNotReady) {
        return 0;
    }
    check(r, "copying");

    return 1;
}

void
rt_event_wait(rt_event_t e)
{
    check(cudaEventSynchronize(e), "copying");
}

void
rt_stream_after(rt_stream_t s, rt_event_t e)
{
    check(cudaStreamWaitEvent(s, e, 0), "ordering streams");
}

// How long the host looks without a pause, how long a pause is, and how often
// it asks for errors: a step is milliseconds, and its end should be seen within
// a percent of that.
#define WAIT_SPIN_NS  20000
#define WAIT_PAUSE_NS 10000
#define WAIT_ASK_NS   5000000

void
rt_wait(rt_stream_t s)
{
    const struct timespec pause = {0, WAIT_PAUSE_NS};

    check(cudaGetLastError(), "launching");
    while (watch != NULL && cudaStreamQuery(s) == cudaErrorNotReady) {
        watch(watch_arg);
        nanosleep(&pause, NULL);
    }
    check(cudaStreamSynchronize(s), "computing");
}

static uint64_t
now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);

    return static_cast<uint64_t>(t.tv_sec) * 1000000000u
           + static_cast<uint64_t>(t.tv_nsec);
}

static int
word_is(const uint32_t *word, uint32_t value)
{
    return static_cast<int32_t>(__atomic_load_n(word, __ATOMIC_ACQUIRE) - value)
           >= 0;
}

// A stream that has ended has written the word, or never will.
static void
ask(const uint32_t *word, uint32_t value, rt_stream_t s)
{
    cudaError_t e = cudaStreamQuery(s);

    if (e == cudaErrorNotReady) {
        return;
    }
    check(e, "computing");
    check(word_is(word, value) ? cudaSuccess : cudaErrorUnknown,
        "computing: a step ended without a word");
}

void
rt_wait_word(const uint32_t *word, uint32_t value, rt_stream_t s)
{
    static thread_local int precise;
    const struct timespec pause = {0, WAIT_PAUSE_NS};
    uint64_t begin = now_ns(), asked = begin, now;

    check(cudaGetLastError(), "launching");

    while (!word_is(word, value)) {
        now = now_ns();
        if (now - begin < WAIT_SPIN_NS) {
            continue;
        }
        if (!precise) { // or a pause is 50 us longer than it should be
            (void) prctl(PR_SET_TIMERSLACK, 1000);
            precise = 1;
        }
        if (now - asked > WAIT_ASK_NS) {
            ask(word, value, s);
            asked = now;
            if (watch != NULL) {
                watch(watch_arg);
            }
        }
        nanosleep(&pause, NULL);
    }
}

void
rt_record(rt_stream_t s)
{
    check(cudaGetLastError(), "launching");
    check(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal),
        "recording");
}

rt_graph_t
rt_recorded(rt_stream_t s)
{
    cudaGraph_t graph;
    rt_graph_t g = NULL;
    cudaError_t e;

    check(cudaGetLastError(), "launching");
    check(cudaStreamEndCapture(s, &graph), "recording");
    e = cudaGraphInstantiate(&g, graph, 0);
    if (e == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        g = NULL;
    } else {
        check(e, "recording");
    }
    check(cudaGraphDestroy(graph), "recording");

    return g;
}

void
rt_replay(rt_graph_t g, rt_stream_t s)
{
    check(cudaGraphLaunch(g, s), "launching");
}

void
rt_graph_close(rt_graph_t g)
{
    check(cudaGraphExecDestroy(g), "ending a recording");
}
