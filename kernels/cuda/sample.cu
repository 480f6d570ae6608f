// Logits to one token: the policy of the CPU's sampler, in its order (see
// kernels/cpu/sample.c), by one block for each output.
//
// DESIGN.  Candidates have one total order, value descending then id ascending,
// and all truncations keep a prefix of it.  The last member of a prefix is
// found by halving: the bits of a scaled logit, without the sign, grow as the
// value falls, so 31 walks over the vocabulary find the last key, each adding
// up what is kept up to a key in the middle; then the last id among equals, the
// same way.  No sort, no histogram, and sums in doubles whose order is fixed.
//
// The exponential is the CPU's, operation by operation (no product and sum is
// fused: -fmad=false), so that weights have its bits; sums differ from its in
// the order, by 1e-16, and so do draws.
//
// Adjusted logits and counts are in scratch of the device's, a vocabulary each
// for as many blocks as there are.
#include "reduce.h"

#include "llm_err.h"

#include <float.h>

#define SEEN        0x80000000u
#define LOGPROB_MIN (-9999.0f)
#define EXP_MIN     (-87.0f)
#define INF_BITS    0x7f800000u

// What a block works on.
typedef struct {
    const float *x; // adjusted logits
    uint32_t vocab;
    float max, t;
    uint32_t key, id; // the last that is kept
    unsigned char *shared;
} pick_t;

// exp(x) for x <= 0.
static __device__ __forceinline__ float
exp_neg(float x)
{
    float c, n, r, y;
    int e;

    c = x < EXP_MIN ? EXP_MIN : x;
    e = static_cast<int>(c * 1.44269504f - 0.5f);
    n = static_cast<float>(e);
    r = c - n * 0.693359375f + n * 2.12194440e-4f;

    y = 1.0f / 5040;
    y = y * r + 1.0f / 720;
    y = y * r + 1.0f / 120;
    y = y * r + 1.0f / 24;
    y = y * r + 1.0f / 6;
    y = y * r + 0.5f;
    y = y * r + 1.0f;
    y = y * r + 1.0f;

    return x < EXP_MIN
               ? 0.0f
               : y * __uint_as_float(static_cast<uint32_t>(e + 127) << 23);
}

static __device__ __forceinline__ float
scaled(const pick_t &p, uint32_t i)
{
    return (p.x[i] - p.max) / p.t;
}

static __device__ __forceinline__ uint32_t
key_of(float v)
{
    return __float_as_uint(v) & 0x7fffffffu;
}

static __device__ __forceinline__ int
kept(const pick_t &p, uint32_t key, uint32_t i)
{
    return key < p.key || (key == p.key && i <= p.id);
}

// The weights of what is kept up to a key, or their number.
static __device__ double
mass(const pick_t &p, int weights, uint32_t key)
{
    uint32_t i, k;
    float v;
    double sum = 0;

    for (i = threadIdx.x; i < p.vocab; i += GPU_THREADS) {
        v = scaled(p, i);
        k = key_of(v);
        if (k <= key && kept(p, k, i)) {
            sum += weights ? static_cast<double>(exp_neg(v)) : 1.0;
        }
    }

    return block_reduce(sum, reduce_sum(), p.shared);
}

// How many of that key are kept, of ids below end.
static __device__ uint32_t
equals(const pick_t &p, uint32_t key, uint32_t end)
{
    uint32_t i, n = 0;

    for (i = threadIdx.x; i < end; i += GPU_THREADS) {
        n += key_of(scaled(p, i)) == key && kept(p, key, i);
    }

    return block_reduce(n, reduce_sum(), p.shared);
}

// Keeps the shortest non-empty prefix whose weight (or number) reaches need;
// all when none does.
static __device__ void
keep(pick_t &p, int weights, double need)
{
    uint32_t low = 0, high = INF_BITS, middle, n, all;
    double left;
    float v;

    if (mass(p, weights, high) < need) {
        return;
    }

    while (low < high) {
        middle = (low + high) / 2;
        if (mass(p, weights, middle) >= need) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }

    // the rest of need is met by equals, lowest id first
    left = need - (low > 0 ? mass(p, weights, low - 1) : 0);
    all = equals(p, low, p.vocab);
    v = exp_neg(__uint_as_float(low | SEEN));
    n = 0;
    do {
        n++;
        left -= weights ? static_cast<double>(v) : 1.0;
    } while (left > 0 && n < all);

    high = p.vocab;
    for (middle = 0; middle < high;) {
        if (equals(p, low, (middle + high) / 2 + 1) >= n) {
            high = (middle + high) / 2;
        } else {
            middle = (middle + high) / 2 + 1;
        }
    }
    p.key = low;
    p.id = high;
}

// 53 bits in [0, 1): Philox4x32-10.
static __device__ double
uniform(uint64_t seed, uint32_t pos, uint32_t choice)
{
    uint32_t c0 = pos, c1 = choice, c2 = 0, c3 = 0;
    uint32_t k0 = static_cast<uint32_t>(seed);
    uint32_t k1 = static_cast<uint32_t>(seed >> 32);
    uint64_t p0, p1;
    int i;

    for (i = 0; i < 10; i++) {
        p0 = static_cast<uint64_t>(0xD2511F53u) * c0;
        p1 = static_cast<uint64_t>(0xCD9E8D57u) * c2;
        c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
        c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
        c1 = static_cast<uint32_t>(p1);
        c3 = static_cast<uint32_t>(p0);
        k0 += 0x9E3779B9u; // the golden ratio
        k1 += 0xBB67AE85u; // sqrt(3) - 1
    }

    return static_cast<double>((static_cast<uint64_t>(c0) << 32 | c1) >> 11)
           * 0x1p-53;
}

static __device__ __forceinline__ float
weight(const pick_t &p, float min_p, uint32_t i)
{
    float v = scaled(p, i), w;

    if (!kept(p, key_of(v), i)) {
        return 0;
    }
    w = exp_neg(v);

    return min_p > 0 && w < (min_p < 1 ? min_p : 1) ? 0 : w;
}

// The token at the share u of the weight: each thread adds up a run of tokens,
// the first then looks for the run, and in it.
static __device__ uint32_t
draw(const pick_t &p, float min_p, double u)
{
    double *sums = reinterpret_cast<double *>(p.shared + REDUCE_BYTES);
    uint32_t *found = reinterpret_cast<uint32_t *>(sums + GPU_THREADS);
    uint32_t i, j, run = gpu_parts(p.vocab, GPU_THREADS);
    uint32_t begin = threadIdx.x * run, end, last = 0;
    double sum = 0, target = 0;
    float w;

    end = begin + run < p.vocab ? begin + run : p.vocab;
    for (i = begin; i < end; i++) {
        sum += static_cast<double>(weight(p, min_p, i));
    }
    sums[threadIdx.x] = sum;
    __syncthreads();

    if (threadIdx.x == 0) {
        for (j = 0; j < GPU_THREADS; j++) {
            target += sums[j];
        }
        target *= u;

        sum = 0;
        for (j = 0; j + 1 < GPU_THREADS && sum + sums[j] <= target; j++) {
            sum += sums[j];
        }

        // the sum may round to less than the target at its very end; then it
        // is the last one that has weight
        for (i = j * run; i < p.vocab; i++) {
            w = weight(p, min_p, i);
            sum += static_cast<double>(w);
            if (w > 0) {
                last = i;
                if (sum > target) {
                    break;
                }
            }
        }
        *found = last;
    }
    __syncthreads();

    return *found;
}

// The largest, or INFINITY when one of them is NaN or +Inf.
static __device__ float
top_of(const float *x, uint32_t n, unsigned char *shared)
{
    uint32_t i, bad = 0;
    float max = -INFINITY;

    for (i = threadIdx.x; i < n; i += GPU_THREADS) {
        max = x[i] > max ? x[i] : max;
        bad += x[i] < INFINITY ? 0 : 1;
    }
    bad = block_reduce(bad, reduce_sum(), shared);
    max = block_reduce(max, reduce_max(), shared);

    return bad > 0 ? INFINITY : max;
}

// The first of x that is v, after number after - 1.
static __device__ uint32_t
first_of(
    const float *x, uint32_t n, float v, uint32_t after, unsigned char *shared)
{
    uint32_t i, first = n;

    for (i = threadIdx.x; i < n && first == n; i += GPU_THREADS) {
        if (i >= after && x[i] == v) {
            first = i;
        }
    }

    return block_reduce(first, reduce_least(), shared);
}

static __device__ __forceinline__ float
tame(float x)
{
    return x != x ? -INFINITY : x > FLT_MAX ? FLT_MAX : x;
}

static __device__ __forceinline__ int
penalized(const sample_params_t &p)
{
    return p.repetition_penalty != 1.0f || p.presence_penalty != 0.0f
           || p.frequency_penalty != 0.0f;
}

// Three walks over known: counts are made 0 where they will be looked at, then
// counted, then each token is charged once, by who finds its count.
static __device__ void
penalize(float *x, uint32_t vocab, const gpu_out_t &o, uint32_t *count)
{
    const sample_params_t &p = o.params;
    uint32_t i, c, t;
    float v;

    for (i = threadIdx.x; i < o.known_n; i += GPU_THREADS) {
        if (o.known[i] < vocab) {
            atomicExch(&count[o.known[i]], 0u);
        }
    }
    __syncthreads();

    // a number is below 2^31, so a token that is seen has 2^31 once in it
    for (i = threadIdx.x; i < o.known_n; i += GPU_THREADS) {
        t = o.known[i];
        if (t < vocab) {
            atomicOr(&count[t], SEEN);
            if (i >= o.prompt_n) {
                atomicAdd(&count[t], 1u);
            }
        }
    }
    __syncthreads();

    for (i = threadIdx.x; i < o.known_n; i += GPU_THREADS) {
        t = o.known[i];
        c = t < vocab ? atomicExch(&count[t], 0u) : 0;
        if (c == 0) {
            continue;
        }

        c &= ~SEEN;
        v = x[t];
        v = v > 0 ? v / p.repetition_penalty : v * p.repetition_penalty;
        v -= p.frequency_penalty * static_cast<float>(c);
        v -= c > 0 ? p.presence_penalty : 0.0f;
        x[t] = tame(v);
    }
    __syncthreads();
}

// The raw logits of tokens that may come, with bias and penalties.
static __device__ void
adjust(float *x, const float *logits, uint32_t vocab, const gpu_out_t &o,
    uint32_t *count)
{
    uint32_t i, t;

    for (i = threadIdx.x; i < vocab; i += GPU_THREADS) {
        x[i] = *o.mask == NULL || ((*o.mask)[i / 32] >> i % 32 & 1) ? logits[i]
                                                                    : -INFINITY;
    }
    __syncthreads();

    if (threadIdx.x == 0) { // a token may be there twice
        for (i = 0; i < o.params.bias_n; i++) {
            t = o.params.bias[i].token;
            if (t < vocab) {
                x[t] = tame(x[t] + o.params.bias[i].bias);
            }
        }
    }
    __syncthreads();

    if (penalized(o.params)) {
        penalize(x, vocab, o, count);
    }
}

static __device__ float
logprob(float logit, float max, double log_sum)
{
    double v = static_cast<double>(logit) - static_cast<double>(max) - log_sum;

    return v > static_cast<double>(LOGPROB_MIN) ? static_cast<float>(v)
                                                : LOGPROB_MIN;
}

// The largest of x that come after v, number id, in the order of candidates.
static __device__ float
next_of(const float *x, uint32_t n, float v, uint32_t id, unsigned char *shared)
{
    uint32_t i;
    float max = -INFINITY;

    for (i = threadIdx.x; i < n; i += GPU_THREADS) {
        if (x[i] < v || (x[i] == v && i > id)) {
            max = fmaxf(max, x[i]);
        }
    }

    return block_reduce(max, reduce_max(), shared);
}

static __device__ void
logprobs(const float *x, uint32_t vocab, float max, const sample_params_t &s,
    sample_out_t *out, uint32_t token, unsigned char *shared)
{
    uint32_t i, id = 0, n = s.tops < SAMPLE_TOPS_MAX ? s.tops : SAMPLE_TOPS_MAX;
    double sum = 0;
    float v = max, next;

    for (i = threadIdx.x; i < vocab; i += GPU_THREADS) {
        sum += static_cast<double>(exp_neg(x[i] - max));
    }
    sum = log(block_reduce(sum, reduce_sum(), shared));
    n = n < vocab ? n : vocab;

    if (threadIdx.x == 0) {
        out->logprob = logprob(x[token], max, sum);
        out->tops_n = n;
    }

    for (i = 0; i < n; i++) {
        next = i == 0 ? max : next_of(x, vocab, v, id, shared);
        id = first_of(x, vocab, next, i > 0 && next == v ? id + 1 : 0, shared);
        v = next;
        if (threadIdx.x == 0) {
            out->top_ids[i] = id;
            out->top_logprobs[i] = logprob(v, max, sum);
        }
    }
}

// The token of finite logits, or of -Inf; vocab where there is none.
static __device__ uint32_t
choose(const float *logits, uint32_t vocab, const gpu_out_t &o, float max,
    float *x, uint32_t *count, unsigned char *shared)
{
    const sample_params_t &s = o.params;
    pick_t p = {logits, vocab, max, 1, INF_BITS, vocab, shared};

    if (*o.mask != NULL || s.bias_n > 0 || penalized(s)) {
        adjust(x, logits, vocab, o, count);
        p.x = x;
        p.max = top_of(x, vocab, shared);
        if (isinf(p.max)) {
            return vocab; // what little is finite was pushed over the edge
        }
    }

    if (!(s.temperature > 0.0f)) {
        return first_of(p.x, vocab, p.max, 0, shared);
    }

    p.t = s.temperature < FLT_MAX ? s.temperature : FLT_MAX;
    if (s.top_k > 0 && s.top_k < vocab) {
        keep(p, 0, s.top_k);
    }
    if (s.top_p < 1.0f) {
        keep(p, 1, static_cast<double>(s.top_p) * mass(p, 1, INF_BITS));
    }

    return draw(p, s.min_p, uniform(s.seed, o.pos + 1, o.choice));
}

#define SAMPLE_BYTES                                                           \
    (REDUCE_BYTES + GPU_THREADS * sizeof(double) + sizeof(double))

__global__ void
__launch_bounds__(GPU_THREADS)
    sample_out(const gpu_step_t *step, const float *all, uint32_t vocab,
        sample_out_t *outs, float *scratch, uint32_t *counts)
{
    GPU_SHARED(shared);
    uint32_t i, j, token;
    const float *logits;
    float max;

    gpu_begin();
    for (i = blockIdx.x; i < step->outs_n; i += gridDim.x) {
        const gpu_out_t &o = step->outs[i];
        uint32_t *words = reinterpret_cast<uint32_t *>(outs + i);

        for (j = threadIdx.x; j < sizeof(sample_out_t) / 4; j += GPU_THREADS) {
            words[j] = 0;
        }
        __syncthreads();

        logits = all + static_cast<size_t>(i) * vocab;
        max = top_of(logits, vocab, shared);
        token = vocab;
        if (!isinf(max)) {
            token = o.wanted > 0
                        ? o.wanted - 1
                        : choose(logits, vocab, o, max,
                            scratch + static_cast<size_t>(blockIdx.x) * vocab,
                            counts + static_cast<size_t>(blockIdx.x) * vocab,
                            shared);
        }

        if (token == vocab) {
            if (threadIdx.x == 0) {
                outs[i].err = LLM_ERR_NAN_LOGITS;
            }
            continue;
        }

        if (threadIdx.x == 0) {
            outs[i].token = token;
        }
        if (o.wanted > 0 || o.params.logprobs || o.params.tops > 0) {
            logprobs(logits, vocab, max, o.params, outs + i, token, shared);
        }
    }
}

void
cuda_sample(kn_dev_t *dev, const kn_sample_t *a)
{
    uint32_t n = gpu_rows(dev, KN_OUTS);

    assert(a->vocab > 0 && a->vocab <= dev->limits.vocab);
    n = n < GPU_SAMPLED ? n : GPU_SAMPLED;

    if (n > 0) {
        GPU_LAUNCH(sample_out, dim3(n), dim3(GPU_THREADS), SAMPLE_BYTES,
            dev->stream, gpu_step(dev), gpu_ptr<const float>(a->logits),
            a->vocab, gpu_ptr<sample_out_t>(a->out), dev->logits, dev->seen);
    }
}
