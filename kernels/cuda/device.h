// The device as the op rows see it: its stream, its memory, and the step block.
//
// The step block lies at an address of the device that stays the same, so that
// recorded launches find each step's tokens there.  It is one piece of memory,
// filled on the host and copied in one go: the head, then the arrays that it
// points to, packed, so that a small step is a small copy.
#ifndef CUDA_DEVICE_H
#define CUDA_DEVICE_H

#include "attn_fast.cuh"
#include "gpu.h"
#include "lt.h"
#include "ptx.h"
#include "rt.h"

#include "../kernels.h"

#include <assert.h>

// Threads of a block where nothing asks for another number.
#define GPU_THREADS 256
#define GPU_WARPS   (GPU_THREADS / GPU_LANES)

// Rows of a weight are padded with zeros to whole chunks of so many elements.
#define GPU_CHUNK 32u

// Outputs that are sampled at a time: each has a vocabulary of scratch.
#define GPU_SAMPLED 64u

// A token whose logits are wanted, with what the host's pointers led to.
typedef struct {
    uint32_t tok, pos, choice, wanted;
    uint32_t known_n, prompt_n;
    const uint32_t *known;  // [known_n], if there are penalties
    const uint32_t **mask;  // leads to one of the limits' vocabulary, or NULL
    sample_params_t params; // bias is the device's
} gpu_out_t;

// A step as kernels read it; all pointers are the device's.
typedef struct {
    uint32_t tokens_n, rows_n, outs_n;
    uint32_t number;        // of the step, counted from 1
    const uint32_t *tokens; // [tokens_n]
    const uint32_t *pos;    // [tokens_n]
    const uint32_t *row;    // [tokens_n], each below rows_n
    const kn_row_t *rows;   // [rows_n]
    const uint32_t *blocks; // [blocks_n]
    const gpu_out_t *outs;  // [outs_n]
    attn_list_t lists[ATTN_SHAPES][2];
} gpu_step_t;

// Memory that close() gives back.
typedef struct gpu_mem_s gpu_mem_t;

// Rows of k elements of KN_F32, KN_F16 or KN_BF16, stride apart; see weight.cu.
struct kn_w_s {
    void *data; // device
    uint32_t type, n, k;
    uint32_t stride; // elements
};

// Activations as tensor cores read them (split.cu), and what experts leave.
typedef struct {
    uint64_t room;     // elements that each of the following has
    uint16_t *high[2]; // by SPLIT_*
    uint16_t *low[2];
    float *back;      // [room / GPU_CHUNK] by rows
    float *wide;      // [room] moe_ffn: what its experts' products are; gated:
                      // what a library's are
    uint32_t *pairs;  // [room / GPU_CHUNK] in the order of experts
    uint32_t *begins; // [KN_EXPERTS_MAX + 1] where an expert's begin
} gpu_scratch_t;

typedef struct gpu_experts_s gpu_experts_t; // moe.cu

// What ranks share (comm.cu), and how many there may be: their blocks must all
// be there at once.
typedef struct gpu_meet_s gpu_meet_t;
#define GPU_RANKS 32u

#define GPU_COPIES  64u // calls of copy that can be on their way
#define GPU_BUCKETS 14u // numbers of rows that steps are recorded for
#define GPU_LISTS   4u  // lists of ops that are

// Parts of a step: of begin(), and of submit().
enum { GPU_FIRST, GPU_LAST, GPU_PARTS };

// What is recorded of a list of ops, by part and bucket (submit.cu).
typedef struct {
    const void *list; // kn_step_t's; NULL: there is none
    rt_graph_t graphs[GPU_PARTS][GPU_BUCKETS];
    int seen[GPU_PARTS][GPU_BUCKETS]; // has one been run, if none is recorded?
} gpu_list_t;

struct kn_dev_s {
    char name[64];
    uint32_t device;  // its number
    comm_t *comm;     // NULL: alone
    gpu_meet_t *meet; // NULL: a group of one
    uint32_t *stop;   // host: the group has been aborted
    rt_stream_t stream, copier;
    gpu_mem_t *mem;
    uint64_t used;
    uint64_t own;     // of that, for steps; attention's is beside it
    uint64_t refused; // bytes that there was no memory for; 0: there was

    kn_limits_t limits;
    uint32_t k_max; // of the weights that there are, whole chunks
    gpu_scratch_t scratch;
    attn_fast_t *attn;      // attention on tensor cores
    gpu_experts_t *experts; // of the layers that have been seen
    float *logits;          // [GPU_SAMPLED, vocab] the sampler's own
    uint32_t *seen;         // [GPU_SAMPLED, vocab]

    unsigned char *block;    // device: the step block, a gpu_step_t first
    unsigned char *stage[2]; // host: plan() fills them in turn
    uint64_t block_size;     // of each
    unsigned char *extra;    // device: what the block has no room for
    unsigned char *extra_stage[2];
    uint64_t extra_size;
    const uint32_t **masks; // device: [outs], and what they lead to (mask.cu)
    const uint32_t **masks_stage;
    uint32_t masked;    // are there any now?
    uint32_t counts[2]; // rows now, by KN_TOKENS and KN_OUTS
    const void *list;   // of the step; NULL if it is not to be recorded
    uint32_t planned;   // number of the step planned last,
    uint32_t given;     // submitted last,
    uint32_t waited;    // and waited for
    uint32_t *ended;    // host: the last one that has ended

    lt_t *lt;         // NULL: products are our own
    uint64_t library; // products that were not

    int eager; // nothing is recorded
    gpu_list_t lists[GPU_LISTS];
    uint32_t lists_n; // that there have been
    uint64_t recorded, recorded_us, replayed;

    rt_event_t ready; // of the step before a copy
    rt_event_t copied[GPU_COPIES];
    uint64_t copies; // calls of copy
};

// Memory that close() frees; zeroed; NULL when there is none left.
enum { GPU_DEVICE, GPU_PINNED, GPU_PLAIN };
void *gpu_mem(kn_dev_t *dev, uint64_t bytes, int whose);

// Gives back what gpu_mem() gave, or NULL.
void gpu_mem_free(kn_dev_t *dev, void *p);

// Scratch for the limits and the weights that there are: 0, or -1.
int gpu_scratch(kn_dev_t *dev);

void cuda_copy(kn_dev_t *dev, const kn_copy_t *a);
int cuda_copied(const kn_dev_t *dev, uint64_t nth);

kn_w_t *cuda_weight_load(
    kn_dev_t *dev, const kn_source_t *s, char *err, size_t errlen);
void cuda_plan(kn_dev_t *dev, const kn_step_t *step);
void cuda_submit(kn_dev_t *dev, void (*body)(void *arg), void *arg);
void cuda_begin(kn_dev_t *dev, void (*body)(void *arg), void *arg);
int cuda_wait(kn_dev_t *dev);
void cuda_masks(kn_dev_t *dev, const kn_out_t *outs);

// Room for the masks of the limits' outputs: 0, or -1.
int gpu_masks_room(kn_dev_t *dev);

// A step begins: it has no masks yet.
void gpu_masks_none(kn_dev_t *dev);

// Forgets what is recorded, since addresses in it change.
void gpu_lists_free(kn_dev_t *dev);

// The bytes of a step block of the limits.
uint64_t gpu_block_size(const kn_limits_t *l);

// Meets the other ranks, once: 0, or -1 with one sentence.
int gpu_meet_open(kn_dev_t *dev, char *err, size_t errlen);
void gpu_meet_close(kn_dev_t *dev);

// Waits until the hosts of all ranks have come: before and after what may wait
// for devices.
void gpu_meet_hosts(kn_dev_t *dev);

// -1 when the group has been aborted, else 0.
int gpu_meet_ended(kn_dev_t *dev);

// Frees what moe_ffn keeps of layers on the host.
void gpu_experts_free(kn_dev_t *dev);

static inline const gpu_step_t *
gpu_step(const kn_dev_t *dev)
{
    return reinterpret_cast<const gpu_step_t *>(dev->block);
}

// What attention's kernels are told of it.
static inline attn_step_t
gpu_attn_step(const kn_dev_t *dev)
{
    gpu_step_t *step = reinterpret_cast<gpu_step_t *>(dev->block);
    attn_step_t at = {&step->blocks, step->lists[0]};

    return at;
}

// Rows of an op in this step.
static inline uint32_t
gpu_rows(const kn_dev_t *dev, uint32_t which)
{
    return dev->counts[which];
}

// What every kernel does first, in all of its threads: where launches overlap
// (rt.h) it is there before the one before it has ended.  Until this it may
// read the step block and weights, which no kernel writes, and write nothing.
// The next one may then come.
static __device__ __forceinline__ void
gpu_begin(void)
{
    ptx_wait_before();
    ptx_start_next();
}

// The same inside a kernel.
static __device__ __forceinline__ uint32_t
gpu_rows_in(const gpu_step_t *step, uint32_t which)
{
    return which == KN_TOKENS ? step->tokens_n : step->outs_n;
}

template <class T>
static inline T *
gpu_ptr(kn_ptr_t p)
{
    return reinterpret_cast<T *>(p.a);
}

static __host__ __device__ __forceinline__ uint32_t
gpu_parts(uint64_t n, uint32_t each)
{
    return static_cast<uint32_t>((n + each - 1) / each);
}

// k elements in whole chunks.
static __host__ __device__ __forceinline__ uint32_t
gpu_whole(uint32_t k)
{
    return gpu_parts(k, GPU_CHUNK) * GPU_CHUNK;
}

// The op rows, each in the file of its kernels.
#define X(op, doc) void cuda_##op(kn_dev_t *dev, const kn_##op##_t *a);
KERNELS(X)
#undef X

#endif
