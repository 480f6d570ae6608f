// CUDA's words on a CPU: what a kernel file includes (through kernels/cuda/
// gpu.h) when a host compiler compiles it, so that kernels run where there is
// no GPU, under sanitizers, and in orders that a GPU would rarely choose.
//
// DESIGN.  Each thread of a block is a fiber; a block runs on one thread of the
// operating system, and blocks side by side on as many as simt_set() says.  A
// fiber runs until it meets others: at a barrier of the block, or at something
// that a warp does together (a shuffle, a vote, a matrix product).  Who goes
// first is drawn from a seed: blocks, warps and lanes.  What a kernel computes
// must not depend on it; a barrier that is missing shows as a result that does.
//
// Stricter than a GPU where that finds errors:
//
//   - a barrier that some threads of a block miss, a lane that is named in a
//     mask and has ended or is elsewhere, and a wait that nobody can end abort,
//     and say which thread waits where;
//   - a block's shared memory is filled with bytes 255, NaNs of every type,
//     before it begins;
//   - an asynchronous copy is done as late as it may be: when it is waited for;
//   - shared memory is one arena, asked for at the launch; __shared__ does not
//     compile.
//
// Under the thread sanitizer every fiber is a thread of its own and barriers
// are all that orders them, so that it names the line where one is missing.
// Reads that instructions do for a lane are in the kernel's translation unit
// for that reason, not in simt.cc, which is compiled without.
//
// Not shown here: time, bank conflicts, the order of memory between blocks, and
// instructions that have no twin.
#ifndef SIMT_H
#define SIMT_H

#include <vector_types.h>
#include <vector_functions.h>

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <functional>
#include <tuple>

#undef __global__
#undef __device__
#undef __host__
#undef __forceinline__
#undef __noinline__
#undef __launch_bounds__
#undef __shared__
#undef __constant__
#undef __restrict__
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__   simt_shared_memory_is_asked_for_at_the_launch
#define __constant__ const
#define __restrict__ __restrict

#define SIMT_LANES 32

// Shared memory that a block may have: unasked, and if a kernel was allowed it,
// as a device of compute capability 9.0 has.
#define SIMT_SHARED     ((size_t) 48 * 1024)
#define SIMT_SHARED_MAX ((size_t) 227 * 1024)

// Where a thread stands: what it does there, and the place in the source.
struct simt_at_t {
    const char *what, *file;
    int line;
};

// From now on: seed 0 is the plain order; blocks run on so many threads.
void simt_set(uint64_t seed, unsigned threads);

// body(arg) once for each thread of each block; returns when all have ended.
void simt_run(
    dim3 grid, dim3 block, size_t shared, void (*body)(void *), void *arg);

// What a stream has to do before a launch on it: set by who has streams.
extern void (*simt_stream)(int stream);

// Takes a launch instead of having it done, for who records; 0: it does not.
extern int (*simt_keep)(int stream, const std::function<void()> &launch);

// Launches of kernel may ask for so many bytes of shared memory; does one ask
// for more, the program ends.
void simt_allow(const void *kernel, size_t n);
void simt_check_allowed(const void *kernel, size_t n);

template <class F>
static inline void
simt_launch(dim3 grid, dim3 block, size_t shared, F kernel)
{
    simt_run(
        grid, block, shared, [](void *p) { (*static_cast<F *>(p))(); },
        &kernel);
}

// Of a kernel that waits for the one before it; all threads must, where
// somebody has set that they must.
extern int simt_must_wait;
void simt_waits(void);

// A launch on a stream: arguments are copied, as parameters of a kernel are.
template <class... P, class... A>
static inline void
simt_start(int stream, dim3 grid, dim3 block, size_t shared,
    void (*kernel)(P...), const A &...args)
{
    const std::tuple<typename std::remove_const<P>::type...> copies(args...);

    simt_check_allowed(reinterpret_cast<const void *>(kernel), shared);
    const auto launch = [grid, block, shared, kernel, copies] {
        simt_launch(grid, block, shared, [&] { std::apply(kernel, copies); });
    };

    if (simt_keep != NULL && simt_keep(stream, launch)) {
        return;
    }
    if (simt_stream != NULL) {
        simt_stream(stream);
    }
    launch();
}

// Of the thread that calls.
uint3 simt_thread(void);
uint3 simt_block(void);
dim3 simt_block_dim(void);
dim3 simt_grid_dim(void);
unsigned simt_lane(void);
unsigned char *simt_shared(void);

// Waits for all threads of the block.
void simt_barrier(simt_at_t at);

// Waits for the lanes in mask to come to the same place.
void simt_meet(unsigned mask, simt_at_t at);

// look(arg) is called by those who wait so, in launches of the calling thread;
// NULL: nothing is.
void simt_watch(void (*look)(void *arg), void *arg);

// Lets others go first; for who waits in a loop for another block.
void simt_pause(void);

// A pointer that the others of the warp may read between two meetings.
void simt_give(const void *p);
const void *simt_given(unsigned lane);

// Asynchronous copies: n bytes and zeros up to bytes.  A copy belongs to the
// group that the next commit ends; simt_next_copy() takes out the next one that
// a wait for all groups but the last `but` is for, which the caller does itself
// (see the top); 0 when there is none.
struct simt_copy_t {
    void *to;
    const void *from;
    unsigned n, bytes, group;
};

void simt_copy(void *to, const void *from, unsigned n, unsigned bytes);
void simt_commit(void);
int simt_next_copy(unsigned but, simt_copy_t *c);

// One line to stderr, with the thread, and abort.
[[noreturn]] void simt_fail(simt_at_t at, const char *why);

#define threadIdx (simt_thread())
#define blockIdx  (simt_block())
#define blockDim  (simt_block_dim())
#define gridDim   (simt_grid_dim())

static const int warpSize = SIMT_LANES;

#define SIMT_HERE                                                              \
    const char *file = __builtin_FILE(), int line = __builtin_LINE()

static inline void
__syncthreads(SIMT_HERE)
{
    simt_barrier({"__syncthreads", file, line});
}

static inline void
__syncwarp(unsigned mask = ~0u, SIMT_HERE)
{
    simt_meet(mask, {"__syncwarp", file, line});
}

// What lane from has in v.
template <class T>
static inline T
simt_from(unsigned mask, T v, unsigned from, simt_at_t at)
{
    T r;

    if (!(mask >> from & 1)) {
        simt_fail(at, "reads a lane that is not in the mask");
    }

    simt_give(&v);
    simt_meet(mask, at);
    memcpy(&r, simt_given(from), sizeof(r));
    simt_meet(mask, at);

    return r;
}

template <class T>
static inline T
__shfl_sync(unsigned mask, T v, int from, int width = SIMT_LANES, SIMT_HERE)
{
    unsigned l = simt_lane(), w = static_cast<unsigned>(width);

    return simt_from(mask, v,
        (l & ~(w - 1)) | (static_cast<unsigned>(from) & (w - 1)),
        {"__shfl_sync", file, line});
}

template <class T>
static inline T
__shfl_xor_sync(unsigned mask, T v, int by, int width = SIMT_LANES, SIMT_HERE)
{
    unsigned l = simt_lane(), w = static_cast<unsigned>(width);
    unsigned from = l ^ static_cast<unsigned>(by);

    return simt_from(mask, v, (from & ~(w - 1)) > (l & ~(w - 1)) ? l : from,
        {"__shfl_xor_sync", file, line});
}

template <class T>
static inline T
__shfl_down_sync(
    unsigned mask, T v, unsigned by, int width = SIMT_LANES, SIMT_HERE)
{
    unsigned l = simt_lane(), w = static_cast<unsigned>(width);

    return simt_from(mask, v, (l & (w - 1)) + by < w ? l + by : l,
        {"__shfl_down_sync", file, line});
}

template <class T>
static inline T
__shfl_up_sync(
    unsigned mask, T v, unsigned by, int width = SIMT_LANES, SIMT_HERE)
{
    unsigned l = simt_lane(), w = static_cast<unsigned>(width);

    return simt_from(mask, v, (l & (w - 1)) >= by ? l - by : l,
        {"__shfl_up_sync", file, line});
}

static inline unsigned
simt_vote(unsigned mask, int yes, simt_at_t at)
{
    unsigned i, r = 0;
    int given;

    simt_give(&yes);
    simt_meet(mask, at);

    for (i = 0; i < SIMT_LANES; i++) {
        if (mask >> i & 1) {
            memcpy(&given, simt_given(i), sizeof(given));
            r |= static_cast<unsigned>(given != 0) << i;
        }
    }

    simt_meet(mask, at);

    return r;
}

static inline unsigned
__ballot_sync(unsigned mask, int yes, SIMT_HERE)
{
    return simt_vote(mask, yes, {"__ballot_sync", file, line});
}

static inline int
__any_sync(unsigned mask, int yes, SIMT_HERE)
{
    return simt_vote(mask, yes, {"__any_sync", file, line}) != 0;
}

static inline int
__all_sync(unsigned mask, int yes, SIMT_HERE)
{
    return simt_vote(mask, yes, {"__all_sync", file, line}) == mask;
}

// Blocks may be on several threads.  A GPU orders nothing by these, and there
// is no __threadfence(), which the thread sanitizer would not see: what orders
// blocks is in ptx.h.
template <class T>
static inline T
simt_update(T *p, T (*f)(T was, T v), T v)
{
    T was, is;

    __atomic_load(p, &was, __ATOMIC_RELAXED);
    do {
        is = f(was, v);
    } while (!__atomic_compare_exchange(
        p, &was, &is, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED));

    return was;
}

template <class T>
static inline T
atomicAdd(T *p, T v)
{
    return simt_update<T>(
        p, [](T was, T n) { return static_cast<T>(was + n); }, v);
}

template <class T>
static inline T
atomicMax(T *p, T v)
{
    return simt_update<T>(
        p, [](T was, T n) { return was < n ? n : was; }, v);
}

template <class T>
static inline T
atomicOr(T *p, T v)
{
    return simt_update<T>(
        p, [](T was, T n) { return static_cast<T>(was | n); }, v);
}

template <class T>
static inline T
atomicExch(T *p, T v)
{
    return simt_update<T>(
        p, [](T, T n) { return n; }, v);
}

template <class T>
static inline T
__ldg(const T *p)
{
    return *p;
}

static inline unsigned
max(unsigned a, unsigned b)
{
    return a > b ? a : b;
}

static inline int
__popc(unsigned v)
{
    return __builtin_popcount(v);
}

static inline int
__ffs(int v)
{
    return __builtin_ffs(v);
}

static inline int
__clz(int v)
{
    return v == 0 ? 32 : __builtin_clz(static_cast<unsigned>(v));
}

// libm has another of that name.
#define __expf(x) expf(x)

static inline float
rsqrtf(float x)
{
    return 1 / sqrtf(x);
}

// For |x| of at most 2.
static inline void
sincospi(double x, double *s, double *c)
{
    *s = sin(M_PI * x);
    *c = cos(M_PI * x);
}

static inline float
__fdividef(float x, float y)
{
    return x / y;
}

static inline float
__uint_as_float(unsigned v)
{
    float f;

    memcpy(&f, &v, sizeof(f));

    return f;
}

static inline unsigned
__float_as_uint(float f)
{
    unsigned v;

    memcpy(&v, &f, sizeof(v));

    return v;
}

#undef SIMT_HERE

#endif
