// The choice of each token's experts.
//
// DESIGN.  A warp is a token; its scores are in shared memory.  Experts are a
// few hundred at most, and used ones a few: the largest is looked for again and
// again, each time by all lanes over what is left, which keeps the order of
// equals plain.
#include "reduce.h"

// Shared memory of a block.
typedef struct {
    float score[KN_EXPERTS_MAX], choice[KN_EXPERTS_MAX];
    float good[KN_EXPERTS_MAX];                              // of groups
    unsigned char out[KN_EXPERTS_MAX], used[KN_EXPERTS_MAX]; // taken
} router_t;

#define NONE 0xffffffffu

// Scores of logits.
static __device__ __forceinline__ void
scores(const kn_router_t &a, const float *logits, router_t *r)
{
    uint32_t e, lane = threadIdx.x;
    float max = -INFINITY, sum = 0, v;

    for (e = lane; e < a.experts; e += GPU_LANES) {
        max = fmaxf(max, logits[e]);
    }
    max = warp_reduce(max, reduce_max());

    for (e = lane; e < a.experts; e += GPU_LANES) {
        v = a.score == KN_SIGMOID ? 1.0f / (1.0f + expf(-logits[e]))
                                  : expf(logits[e] - max);
        r->score[e] = v;
        sum += v;
    }
    sum = a.score == KN_SIGMOID ? 1.0f : warp_reduce(sum, reduce_sum());

    for (e = lane; e < a.experts; e += GPU_LANES) {
        r->score[e] /= sum;
    }
}

// The largest of v[0 .. n) that is not out, the first of equals, in all lanes.
// There is one, whatever the numbers are.
static __device__ __forceinline__ uint32_t
largest(const float *v, const unsigned char *out, uint32_t n)
{
    uint32_t i, best = NONE, other;
    float theirs, mine = 0;
    int by;

    for (i = threadIdx.x; i < n; i += GPU_LANES) {
        if (!out[i] && (best == NONE || v[i] > mine)) {
            best = i;
            mine = v[i];
        }
    }

    for (by = GPU_LANES / 2; by > 0; by /= 2) {
        other = __shfl_xor_sync(GPU_ALL, best, by);
        theirs = __shfl_xor_sync(GPU_ALL, mine, by);
        if (other != NONE
            && (best == NONE || theirs > mine
                || (!(mine > theirs) && other < best))) {
            best = other;
            mine = theirs;
        }
    }

    return __shfl_sync(GPU_ALL, best, 0); // with NaNs lanes may differ
}

// Experts of groups that are not among the best are out.
static __device__ __forceinline__ void
groups(const kn_router_t &a, router_t *r)
{
    uint32_t g, i, e, size = a.experts / a.groups;
    float first, second, v;

    for (g = threadIdx.x; g < a.groups; g += GPU_LANES) {
        first = second = -INFINITY;
        for (e = g * size; e < (g + 1) * size; e++) {
            v = r->choice[e];
            second = v > first ? first : v > second ? v : second;
            first = v > first ? v : first;
        }
        r->good[g] = a.group_best == 2 ? first + second : first;
        r->used[g] = 0;
    }
    __syncwarp();

    for (i = 0; i < a.groups_used; i++) {
        g = largest(r->good, r->used, a.groups);
        __syncwarp();
        if (threadIdx.x == 0) {
            r->used[g] = 1;
        }
        __syncwarp();
    }

    for (e = threadIdx.x; e < a.experts; e += GPU_LANES) {
        r->out[e] = !r->used[e / size];
    }
    __syncwarp();
}

__global__ void
router_token(const gpu_step_t *step, kn_router_t a)
{
    GPU_SHARED(shared);
    router_t *r = reinterpret_cast<router_t *>(shared);
    uint32_t i, e, t = blockIdx.x;
    const float *bias = reinterpret_cast<const float *>(a.bias.a);
    uint32_t *ids =
        reinterpret_cast<uint32_t *>(a.ids.a) + static_cast<size_t>(t) * a.used;
    float *w = reinterpret_cast<float *>(a.weights.a)
               + static_cast<size_t>(t) * a.used;
    float sum = 0, v;

    gpu_begin();
    if (t >= gpu_rows_in(step, a.rows)) {
        return;
    }

    scores(a,
        reinterpret_cast<const float *>(a.logits.a)
            + static_cast<size_t>(t) * a.experts,
        r);
    for (e = threadIdx.x; e < a.experts; e += GPU_LANES) {
        r->choice[e] = r->score[e] + (bias != NULL ? bias[e] : 0);
        r->out[e] = 0;
    }
    __syncwarp();

    if (a.groups > 0) {
        groups(a, r);
    }

    for (i = 0; i < a.used; i++) {
        e = largest(r->choice, r->out, a.experts);
        __syncwarp();
        v = r->score[e];
        sum += v;
        if (threadIdx.x == 0) {
            r->out[e] = 1;
            ids[i] = e;
            w[i] = v;
        }
        __syncwarp();
    }

    for (i = threadIdx.x; i < a.used; i += GPU_LANES) {
        w[i] = (a.normed ? w[i] / (sum + 1e-20f) : w[i]) * a.scale;
    }
}

void
cuda_router(kn_dev_t *dev, const kn_router_t *a)
{
    uint32_t n = gpu_rows(dev, a->rows);

    assert(a->used > 0 && a->used <= a->experts);
    assert(a->experts <= KN_EXPERTS_MAX && a->score < KN_SCORES);
    assert(a->groups == 0
           || (a->experts % a->groups == 0 && a->groups_used <= a->groups
               && a->group_best <= 2
               && a->used <= a->experts / a->groups * a->groups_used));

    if (n > 0) {
        GPU_LAUNCH(router_token, dim3(n), dim3(GPU_LANES), sizeof(router_t),
            dev->stream, gpu_step(dev), *a);
    }
}
