// The rows where ranks meet, for ranks that are threads of one process, each
// with a device of its own or some with the same one; kernels/comm.h has the
// group and the order of a sum.
//
// DESIGN.  Each rank has a piece of its device's memory that all others read
// and write (meet_t): flags, and room for what it has to say, twice.  A row is
// one launch in every rank, of which block b of all ranks work together and
// need no other block:
//
//      put     the block copies its part of the rank's numbers to its room
//      meet    says to all ranks that it has come to number n, and waits until
//              all have
//      take    adds up the rooms of rank 0, 1, 2, ...: all ranks the same bits;
//              or, in rank 0, puts the columns of all side by side
//
// What is larger than the rooms goes in pieces.  A number's room is its parity:
// a rank puts number n + 2 where n was, after all have come to n + 1, and so
// have taken n.  Numbers lie in the device's memory and go on by themselves,
// so that a launch can be recorded; which elements are a block's is made of
// the step's rows and never of the grid, which is always the same.
//
// All blocks of all ranks must be there at once, or those that wait keep away
// those that are waited for: the grid is small, and the kernel after this one
// begins to come only when no block waits any more.  What makes a host wait
// for its device, or for all (memory, a kernel's first launch), must not happen
// while a rank there waits for one that has not been launched: before each row
// the hosts meet as well.  Replays need no such thing.
//
// ABORT.  The host looks at the group while it waits (rt_watch), and tells its
// kernels by a word of its own memory, which they look at now and then.  A
// block that has seen it neither puts nor takes any more, and the step ends
// with numbers that nobody will see.
//
// The memory of all is freed by the last one that is closed, since others may
// still read it.  Large sums would be faster by a library that sends each
// number twice and not as often as there are ranks.
#include "device.h"
#include "rt_kernel.cuh"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define MEET_RANKS  GPU_RANKS
#define MEET_BLOCKS 16u
#define MEET_SLICE  4096u // floats of a block's room
#define MEET_LOOKS  256u  // at a flag, for each at the host's word

typedef struct meet_s meet_t;

struct meet_s {
    float room[2][MEET_BLOCKS][MEET_SLICE];
    uint32_t flags[MEET_BLOCKS][MEET_RANKS]; // numbers that ranks came to
    uint32_t number[MEET_BLOCKS];            // that this one came to last
    uint32_t over[MEET_BLOCKS];              // 1: the block waits no more
    uint32_t rank, ranks;
    const uint32_t *stop; // the host's: not 0 when the group has been aborted
    meet_t *of[MEET_RANKS];
};

// What the ranks share on the host.
struct gpu_meet_s {
    meet_t *of[MEET_RANKS];
    uint32_t device[MEET_RANKS];
    uint32_t open; // atomic: ranks not closed
};

// The elements of n that a block does at a time, a multiple of 4.
static __device__ __forceinline__ uint32_t
meet_part(uint64_t n)
{
    uint64_t each = (n + MEET_BLOCKS - 1) / MEET_BLOCKS;

    each = (each + 3) / 4 * 4;
    each = each < 4 * GPU_THREADS ? 4 * GPU_THREADS : each;

    return each < MEET_SLICE ? static_cast<uint32_t>(each) : MEET_SLICE;
}

// comm_part(), on the device.
static __device__ __forceinline__ uint32_t
meet_columns(const meet_t *me, uint32_t rank, uint32_t width, uint32_t *first)
{
    const uint64_t w = width;

    *first = static_cast<uint32_t>(w * rank / me->ranks);

    return static_cast<uint32_t>(w * (rank + 1) / me->ranks) - *first;
}

// Elements at to at + part of x, if they are below n, to the block's room.
static __device__ __forceinline__ void
meet_put(meet_t *me, uint32_t number, const float *x, uint64_t at,
    uint32_t part, uint64_t n)
{
    float *room = me->room[number % 2][blockIdx.x];
    uint32_t i;
    float4 v;

    for (i = 4 * threadIdx.x; i < part && at + i < n; i += 4 * GPU_THREADS) {
        const float *from = x + at + i;

        v.x = from[0];
        v.y = at + i + 1 < n ? from[1] : 0;
        v.z = at + i + 2 < n ? from[2] : 0;
        v.w = at + i + 3 < n ? from[3] : 0;
        *reinterpret_cast<float4 *>(room + i) = v;
    }
}

// What was put is told by a thread for each rank, and what they have put seen
// by all threads afterwards; or 1: the block has nothing more to do, ever.
static __device__ __forceinline__ uint32_t
meet_all(meet_t *me, uint32_t number)
{
    uint32_t i, r = threadIdx.x, b = blockIdx.x;

    __syncthreads();
    if (r < me->ranks) {
        ptx_store_release(&me->of[r]->flags[b][me->rank], number);
        for (i = 1;
             static_cast<int32_t>(ptx_load_acquire(&me->flags[b][r]) - number)
             < 0;
             i++) {
            if (i % MEET_LOOKS == 0 && ptx_load_acquire(me->stop) != 0) {
                ptx_store_release(&me->over[b], 1);
                break;
            }
        }
    }
    __syncthreads();

    return me->over[b];
}

// x = all ranks' x, added up.
__global__ void
comm_add(
    const gpu_step_t *step, uint32_t which, meet_t *me, float *x, uint32_t dim)
{
    uint64_t at, n;
    uint32_t i, r, part, number, b = blockIdx.x;
    float4 v, sum;

    ptx_wait_before();
    n = static_cast<uint64_t>(gpu_rows_in(step, which)) * dim;
    part = meet_part(n);
    number = me->number[b];

    for (at = static_cast<uint64_t>(b) * part; at < n && !me->over[b];
         at += MEET_BLOCKS * part) {
        meet_put(me, ++number, x, at, part, n);
        if (meet_all(me, number)) {
            break;
        }

        for (i = 4 * threadIdx.x; i < part && at + i < n;
             i += 4 * GPU_THREADS) {
            float *to = x + at + i;

            sum = *reinterpret_cast<const float4 *>(
                &me->of[0]->room[number % 2][b][i]);
            for (r = 1; r < me->ranks; r++) {
                v = *reinterpret_cast<const float4 *>(
                    &me->of[r]->room[number % 2][b][i]);
                sum.x += v.x;
                sum.y += v.y;
                sum.z += v.z;
                sum.w += v.w;
            }

            to[0] = sum.x;
            if (at + i + 1 < n) {
                to[1] = sum.y;
            }
            if (at + i + 2 < n) {
                to[2] = sum.z;
            }
            if (at + i + 3 < n) {
                to[3] = sum.w;
            }
        }
    }

    if (threadIdx.x == 0 && number != me->number[b]) {
        me->number[b] = number;
    }
    ptx_start_next();
}

// y = all ranks' columns side by side, in rank 0.  Parts are those of the rank
// that has the most columns.
__global__ void
comm_join(const gpu_step_t *step, uint32_t which, meet_t *me, const float *x,
    float *y, uint32_t width)
{
    uint64_t at, n, own, e;
    uint32_t i, r, first, columns, part, m, number, b = blockIdx.x;

    ptx_wait_before();
    m = gpu_rows_in(step, which);
    n = static_cast<uint64_t>(m) * gpu_parts(width, me->ranks);
    own = static_cast<uint64_t>(m) * meet_columns(me, me->rank, width, &first);
    part = meet_part(n);
    number = me->number[b];

    for (at = static_cast<uint64_t>(b) * part; at < n && !me->over[b];
         at += MEET_BLOCKS * part) {
        meet_put(me, ++number, x, at, part, own);
        if (meet_all(me, number)) {
            break;
        }

        for (r = 0; me->rank == 0 && r < me->ranks; r++) {
            columns = meet_columns(me, r, width, &first);
            for (i = threadIdx.x; i < part; i += GPU_THREADS) {
                e = at + i;
                if (e < static_cast<uint64_t>(m) * columns) {
                    y[e / columns * width + first + e % columns] =
                        me->of[r]->room[number % 2][b][i];
                }
            }
        }
    }

    if (threadIdx.x == 0 && number != me->number[b]) {
        me->number[b] = number;
    }
    ptx_start_next();
}

// The one rank's part is all there is.
__global__ void
comm_copy(const gpu_step_t *step, uint32_t which, const float *x, float *y,
    uint32_t dim)
{
    uint32_t i;
    size_t at = static_cast<size_t>(blockIdx.x) * dim;

    gpu_begin();
    if (blockIdx.x >= gpu_rows_in(step, which)) {
        return;
    }
    for (i = threadIdx.x; i < dim; i += GPU_THREADS) {
        y[at + i] = x[at + i];
    }
}

// Now and then, by who waits for the device.
static void
look(void *arg)
{
    kn_dev_t *dev = static_cast<kn_dev_t *>(arg);

    if (dev->comm->ops->error(dev->comm) != NULL) {
        __atomic_store_n(dev->stop, 1u, __ATOMIC_RELEASE);
    }
}

void
gpu_meet_hosts(kn_dev_t *dev)
{
    if (dev->meet != NULL) {
        (void) dev->comm->ops->barrier(dev->comm); // that fails is seen later
    }
}

int
gpu_meet_ended(kn_dev_t *dev)
{
    return dev->meet != NULL && dev->comm->ops->error(dev->comm) != NULL ? -1
                                                                         : 0;
}

void
cuda_comm_sum(kn_dev_t *dev, const kn_comm_sum_t *a)
{
    if (dev->meet == NULL || gpu_rows(dev, a->rows) == 0) {
        return; // one rank's sum there is already
    }

    gpu_meet_hosts(dev);
    rt_watch(look, dev);
    GPU_LAUNCH(comm_add, dim3(MEET_BLOCKS), dim3(GPU_THREADS), 0, dev->stream,
        gpu_step(dev), a->rows, dev->meet->of[dev->comm->rank],
        gpu_ptr<float>(a->x), a->dim);
}

void
cuda_comm_gather(kn_dev_t *dev, const kn_comm_gather_t *a)
{
    uint32_t n = gpu_rows(dev, a->rows);

    if (n == 0) {
        return;
    }

    if (dev->meet == NULL) {
        GPU_LAUNCH(comm_copy, dim3(n), dim3(GPU_THREADS), 0, dev->stream,
            gpu_step(dev), a->rows, gpu_ptr<const float>(a->x),
            gpu_ptr<float>(a->y), a->width);
        return;
    }

    gpu_meet_hosts(dev);
    rt_watch(look, dev);
    GPU_LAUNCH(comm_join, dim3(MEET_BLOCKS), dim3(GPU_THREADS), 0, dev->stream,
        gpu_step(dev), a->rows, dev->meet->of[dev->comm->rank],
        gpu_ptr<const float>(a->x), gpu_ptr<float>(a->y), a->width);
}

// --- open and close ---------------------------------------------------------

// Where rank 0 is, and what it shares there.
typedef struct {
    const void *code; // an address that other processes hardly have
    gpu_meet_t *meet;
    pid_t process;
} place_t;

// Leaves: the last one frees what all had.
static void
leave(gpu_meet_t *g)
{
    uint32_t i;

    if (__atomic_sub_fetch(&g->open, 1, __ATOMIC_ACQ_REL) > 0) {
        return;
    }
    for (i = 0; i < MEET_RANKS; i++) {
        if (g->of[i] != NULL) {
            rt_free(g->of[i]);
        }
    }
    free(g);
}

void
gpu_meet_close(kn_dev_t *dev)
{
    if (dev->meet != NULL) {
        look(dev);
        rt_wait(dev->stream);
        rt_watch(NULL, NULL);
        leave(dev->meet);
        dev->meet = NULL;
    }
}

// A sentence for all ranks, if none has come before it; -1.
static int
fail(kn_dev_t *dev, const char *why, char *err, size_t errlen)
{
    comm_t *c = dev->comm;

    if (why != NULL) {
        c->ops->abort(c, why);
    }
    snprintf(err, errlen, "%s", c->ops->error(c));

    return -1;
}

// What all ranks share, made by rank 0; NULL with dev's group aborted.
static gpu_meet_t *
find(kn_dev_t *dev, const char **why)
{
    comm_t *c = dev->comm;
    place_t at = {reinterpret_cast<const void *>(find), NULL, getpid()};
    place_t mine = at;

    if (c->rank == 0) {
        at.meet = static_cast<gpu_meet_t *>(calloc(1, sizeof(*at.meet)));
        if (at.meet == NULL) {
            *why = "device cuda: not enough memory";
            return NULL;
        }
        at.meet->open = c->ranks;
    }
    // when this fails who has got it is not known: it is left there
    if (c->ops->cast(c, 0, &at, sizeof(at)) != 0) {
        return NULL;
    }
    if (at.code != mine.code || at.process != mine.process) {
        *why = "device cuda: expected all ranks in one process";
        return NULL;
    }

    return at.meet;
}

// Each other rank's memory, for this one's device; 0, or -1.
static int
reach(kn_dev_t *dev)
{
    const gpu_meet_t *g = dev->meet;
    uint32_t i, n = dev->comm->ranks;

    for (i = 0; i < n; i++) {
        if (g->device[i] != dev->device && rt_peer(g->device[i]) != 0) {
            return -1;
        }
    }

    return 0;
}

int
gpu_meet_open(kn_dev_t *dev, char *err, size_t errlen)
{
    comm_t *c = dev->comm;
    const char *why = NULL;
    gpu_meet_t *g;
    meet_t *me;

    if (c == NULL || c->ranks == 1 || dev->meet != NULL) {
        return 0;
    }

    assert(c->ranks <= MEET_RANKS);
    dev->stop =
        static_cast<uint32_t *>(gpu_mem(dev, sizeof(uint32_t), GPU_PINNED));
    g = find(dev, &why);
    if (g == NULL) {
        return fail(dev, why, err, errlen);
    }

    dev->meet = g;
    me = static_cast<meet_t *>(rt_alloc(sizeof(*me)));
    g->of[c->rank] = me;
    g->device[c->rank] = dev->device;
    if (me == NULL || dev->stop == NULL) {
        return fail(dev, "device cuda: not enough memory", err, errlen);
    }
    dev->used += sizeof(*me);
    dev->own += sizeof(*me);

    if (c->ops->barrier(c) != 0) {
        return fail(dev, NULL, err, errlen);
    }
    if (reach(dev) != 0) {
        return fail(dev,
            "device cuda: a rank's GPU cannot reach another's memory", err,
            errlen);
    }

    rt_copy_in(&me->rank, &c->rank, sizeof(me->rank));
    rt_copy_in(&me->ranks, &c->ranks, sizeof(me->ranks));
    rt_copy_in(&me->stop, &dev->stop, sizeof(me->stop));
    rt_copy_in(me->of, g->of, sizeof(me->of));
    rt_ready(comm_add);
    rt_ready(comm_join);

    // all are there before one begins
    return c->ops->barrier(c) == 0 ? 0 : fail(dev, NULL, err, errlen);
}
