/*
 * The arithmetic interface: what a back end (cpu, null, cuda) gives to
 * forward.c.  It knows no requests and no models.
 *
 * DESIGN.  Two parts.  Device functions own memory, weights and steps; op rows
 * compute.  An op is one function over one plain-data args struct, and a back
 * end is one table of them, so that an op can be tested against another back
 * end's, recorded and replayed.
 *
 * An args struct never changes after start.  What changes from step to step
 * (which tokens, where their keys lie, how many rows, what to sample) is the
 * step block, kn_step_t: plan() copies it to an address of the device's own
 * that stays the same, and the ops read it there.  So a back end may record
 * the ops of a step once and replay them:
 *
 *      plan(dev, &step)          copies the block, makes work lists
 *      begin(dev, body, arg)     calls body(arg), which calls the ops; or
 *                                replays what it recorded of an earlier call
 *                                of the same list of ops (kn_step_t's list)
 *      masks(dev, outs)          copies which tokens may come
 *      submit(dev, body, arg)    as begin, of the ops that are left: sample,
 *                                which looks at the masks; then the step ends
 *      wait(dev)                 the step's results can be copied out, or read
 *                                where they are of the host's memory
 *
 * So a device that computes by itself has begun when the masks are made.
 *
 * The count of rows of an op is therefore not a number in its args, but a
 * choice between the block's two counts: KN_TOKENS or KN_OUTS.
 *
 * RULE (batch invariance).  The order in which the terms of an output are
 * added depends on the weight's type, on k and on the back end's instruction
 * set only: never on the number of rows, threads, chunks or other sequences.
 * Row i of a batch has the bits that it has alone.
 *
 * Matrices are row-major and dense; activations are F32.
 *
 * Some devices may compute one model together, each with a part of its weights
 * (comm.h): every one is opened with its place in their group, takes the same
 * steps and calls the same ops, and the comm_ rows are where they meet.
 *
 * This file keeps to the common subset of C and C++ because nvcc reads it.
 */
#ifndef KERNELS_H
#define KERNELS_H

#include "comm.h"
#include "sample.h"

#include <stddef.h>
#include <stdint.h>

/*
 * Element types, of weights (all) and of keys and values (the first four).
 * X(name, elements in a block, bytes of a block)
 *
 * Q8_0: f16 scale d, 32 x i8 q; value = d * q.
 * Q4_0: f16 scale d, 16 bytes; the low nibbles are elements 0 to 15, the high
 *       ones 16 to 31; value = d * (nibble - 8).
 *
 * The packed types are GGUF's of those names; dequant.h has their layouts.
 */
#define KN_PLAIN_LIST(X)                                                       \
    X(F32, 1, 4)                                                               \
    X(F16, 1, 2)                                                               \
    X(BF16, 1, 2)                                                              \
    X(Q8_0, 32, 34)                                                            \
    X(Q4_0, 32, 18)

#define KN_PACKED_LIST(X)                                                      \
    X(Q4_1, 32, 20)                                                            \
    X(Q5_0, 32, 22)                                                            \
    X(Q5_1, 32, 24)                                                            \
    X(Q2_K, 256, 84)                                                           \
    X(Q3_K, 256, 110)                                                          \
    X(Q4_K, 256, 144)                                                          \
    X(Q5_K, 256, 176)                                                          \
    X(Q6_K, 256, 210)                                                          \
    X(IQ4_NL, 32, 18)                                                          \
    X(IQ4_XS, 256, 136)                                                        \
    X(IQ3_S, 256, 110)                                                         \
    X(IQ3_XXS, 256, 98)                                                        \
    X(TQ1_0, 256, 54)                                                          \
    X(TQ2_0, 256, 66)                                                          \
    X(MXFP4, 32, 17)

#define KN_TYPE_LIST(X)                                                        \
    KN_PLAIN_LIST(X)                                                           \
    KN_PACKED_LIST(X)

enum {
#define X(name, elems, bytes) KN_##name,
    KN_TYPE_LIST(X)
#undef X
        KN_TYPES
};

#define KN_KV_TYPES 4 /* KN_F32, KN_F16, KN_BF16, KN_Q8_0 */

/* Elements of a block of a type of the cache; rows are whole blocks. */
static inline uint32_t
kn_kv_block(uint32_t type)
{
    return type == KN_Q8_0 ? 32 : 1;
}

/* Bytes of n elements, whole blocks, of a row of the cache. */
static inline uint64_t
kn_kv_bytes(uint32_t type, uint64_t n)
{
    return type == KN_F32 ? n * 4 : type == KN_Q8_0 ? n / 32 * 34 : n * 2;
}

/* An address in device memory. The host must not dereference it. */
typedef struct {
    uintptr_t a; /* 0 is null */
} kn_ptr_t;

static inline kn_ptr_t
kn_at(kn_ptr_t p, uint64_t bytes)
{
    p.a += (uintptr_t) bytes;
    return p;
}

typedef struct kn_dev_s kn_dev_t; /* an open device */
typedef struct kn_w_s kn_w_t;     /* a weight matrix, laid out as it likes */

/*
 * CPU: thread i, of those that the device starts, stays on cpus[i % cpus_n];
 * thread 0 is the caller of ops, and its own to place.
 */
typedef struct {
    uint32_t threads;     /* CPU: 0 is one per CPU of the list, or per core */
    const uint32_t *cpus; /* [cpus_n], there to be used; borrowed by open */
    uint32_t cpus_n;      /* 0: threads go where the system moves them */
    comm_t *comm;         /* NULL: alone; borrowed until close */
    uint32_t eager;       /* GPU: no step is recorded */
    uint32_t overlap;     /* GPU: launches begin before the one before ends */
    uint32_t library;     /* GPU: products of many rows are a library's, which
                           * do not keep the rule of batch invariance */
} kn_open_t;

typedef struct {
    char name[64]; /* "cpu avx2, 8 threads" */
    int host;      /* is a kn_ptr_t an address of the host's too? (tests) */
    int blind;     /* does weight_load not look at the data? */
    uint64_t used; /* bytes allocated, weights and all */

    /* GPU, else 0: bytes of used that no caller asked for, but steps take;
     * that nobody has; and of the allocation that found no memory last */
    uint64_t own, left, refused;

    /* GPU: lists of launches, the time that making them took, their use */
    uint64_t recorded, recorded_us, replayed;

    uint64_t library; /* GPU: products that a library was given */
} kn_info_t;

/* The most that a step will ever hold; sizes the device's own memory. */
typedef struct {
    uint32_t tokens, rows, outs;
    uint32_t blocks;          /* block ids of all rows of a step together */
    uint32_t context;         /* longest kv_len */
    uint32_t heads, head_dim; /* of queries */
    uint32_t vocab;
    uint32_t used, expert_k; /* experts of a token, the longest side of their
                              * matrices; 0: the model has none */
} kn_limits_t;

/* A matrix [n, k] to load: n outputs, k inputs; rows of k elements of type. */
typedef struct {
    const char *name; /* for the error sentence */
    uint32_t type;
    uint32_t n, k;
    const void *data; /* unaligned; borrowed during the call */
} kn_source_t;

/* Layers of different windows have different blocks: groups of them. */
#define KN_GROUPS 8

/* Those of a row: its blocks number first to first + n - 1. */
typedef struct {
    uint32_t at; /* their ids are blocks[at .. at + n) */
    uint32_t first;
    uint32_t n; /* up to the last position, from the first that is read */
} kn_blocks_t;

/* A sequence's consecutive tokens in a step. */
typedef struct {
    uint32_t q_start; /* position of the first one */
    uint32_t q_len;
    uint32_t tok; /* they are tokens[tok .. tok + q_len) */
    kn_blocks_t blocks[KN_GROUPS];
} kn_row_t;

/* A token whose logits are wanted. See sample.h for the policy. */
typedef struct {
    uint32_t tok; /* index into tokens[] */
    uint32_t pos; /* its position; the sampled token's is pos + 1 */
    uint32_t choice;
    uint32_t known_n, prompt_n;    /* known[0 .. prompt_n) is prompt */
    const uint32_t *known;         /* [known_n], host, lives until wait() */
    const sample_params_t *params; /* host, lives until wait() */
    uint32_t wanted;      /* 1 + a token: it is not sampled but this one */
    const uint32_t *mask; /* [(vocab + 31) / 32], host, lives until wait(): bit
                           * t % 32 of word t / 32 says that token t may come;
                           * NULL: all may.  For masks() alone to look at. */
} kn_out_t;

/*
 * The step block as the host fills it in.  Rows are in the order of tokens and
 * cover them without a gap; outs are in the order of tok.
 */
typedef struct {
    uint32_t tokens_n, rows_n, outs_n, blocks_n;
    const void *list; /* body's name: those of one name call the same ops with
                       * the same args, whatever the step, until reserve() is
                       * called; NULL: it has none, and is not recorded */
    const uint32_t *tokens; /* [tokens_n] ids, each below the vocabulary */
    const kn_row_t *rows;   /* [rows_n] */
    const uint32_t *blocks; /* [blocks_n] */
    const kn_out_t *outs;   /* [outs_n] */
} kn_step_t;

/* Which count of the step block gives an op's rows, written M below. */
enum { KN_TOKENS, KN_OUTS };

/*
 * The paged cache as one layer sees it.  Block b begins at kv + b * stride;
 * in it the layer's keys are [kv_heads, block_tokens, head_dim] at k_off, its
 * values [kv_heads, block_tokens, v_dim] at v_off.  Or a value is the last
 * v_dim elements of its key, and stored as such only (inside; v_off is then
 * not looked at).  Position p of a sequence is token p % block_tokens of its
 * block number p / block_tokens in the layer's group.
 *
 * A head's key or value of one position is a row of whole blocks of the type:
 * of Q8_0, factors among the numbers, so that what is one position's lies
 * together and a row is found and copied as any other type's.
 */
typedef struct {
    kn_ptr_t kv;
    uint32_t group;
    uint64_t stride, k_off, v_off; /* bytes */
    uint32_t type;                 /* below KN_KV_TYPES */
    uint32_t block_tokens;
    uint32_t kv_heads, head_dim, v_dim;
    uint32_t inside; /* 0, 1 */
} kn_kv_t;

/* How much of a key is no value. */
static inline uint32_t
kn_kv_own(const kn_kv_t *kv)
{
    return kv->head_dim - (kv->inside ? kv->v_dim : 0);
}

/*
 * y[t] = scale * row tokens[t] - first of w; zeros where w has no such row, as
 * it may be a part of the vocabulary.
 */
typedef struct {
    const kn_w_t *w; /* [n, dim] */
    kn_ptr_t y;      /* [tokens, dim] */
    float scale;
    uint32_t first; /* the token whose row is w's first */
} kn_embed_t;

/*
 * x += add, if there is one; y = x / sqrt(mean(x^2) + eps) * w, the mean being
 * that of each part of x alone.  y may be x.
 */
typedef struct {
    kn_ptr_t x;   /* [M, parts, dim] */
    kn_ptr_t add; /* [M, parts, dim] or null */
    kn_ptr_t w;   /* [dim] F32 */
    kn_ptr_t y;   /* [M, parts, dim] */
    uint32_t parts, dim;
    uint32_t rows;
    float eps;
} kn_rmsnorm_t;

/* x += add; with a gate x += add / (1 + exp(-gate)) */
typedef struct {
    kn_ptr_t x;    /* [M, dim] */
    kn_ptr_t add;  /* [M, dim] */
    kn_ptr_t gate; /* [M] or null */
    uint32_t dim;
    uint32_t rows;
} kn_add_t;

/* y = scale * (x w^T + bias); then, if cap > 0, y = cap * tanh(y / cap) */
typedef struct {
    const kn_w_t *w; /* [n, k] */
    kn_ptr_t bias;   /* [n] F32 or null */
    kn_ptr_t y;      /* [M, n] */
    float scale, cap;
} kn_product_t;

/* Queries, keys and values. */
#define KN_PRODUCTS_MAX 3

/*
 * Products of one x, so that it need be read, and made into whatever their
 * weights want, once.  The matrices have one k; their n and their types are
 * their own, and so are their y, none of which is x.  A product has the bits
 * that it has alone.
 */
typedef struct {
    kn_ptr_t x; /* [M, k] */
    kn_product_t of[KN_PRODUCTS_MAX];
    uint32_t n; /* how many, at least 1 */
    uint32_t rows;
} kn_matmul_t;

/*
 * Each head of x times a matrix of its own.  What a head has beyond k elements
 * goes, as it is, before its product:
 *
 *      y[t, h] = x[t, h, k ...], x[t, h, 0 ... k) w[h]^T
 */
typedef struct {
    const kn_w_t *w; /* [heads * n, k], the matrices one after another */
    kn_ptr_t x;      /* [M, heads, k + rest] */
    kn_ptr_t y;      /* [M, heads, rest + n] */
    uint32_t heads, rest;
    uint32_t rows;
} kn_headmul_t;

/*
 * cs[t, i] = scale * cos, sin of pos(t) * freq[i] * 1 rad, from F64 products:
 * once a step, for all layers.  Any scaling of the frequencies is in freq.
 */
typedef struct {
    kn_ptr_t freq; /* [half] F64 */
    kn_ptr_t cs;   /* [tokens, half, 2] */
    uint32_t half;
    double scale;
} kn_rope_angles_t;

/*
 * Rotates the first 2 * half elements of each head of q (in place) and of k,
 * by angle i elements 2i and 2i + 1, or i and i + half if halves; stores k and
 * v in the cache at the tokens' positions, rounded to nearest even.  With half
 * 0 it only stores.  Where values are inside of keys, k has what comes before
 * them, and that is where the rotated elements are.
 *
 * A block of Q8_0 has the factor F16(max / 127), max being its largest
 * magnitude, and of each element x the whole number next to x * (1 / factor),
 * as far as a byte holds it; 0 where the factor is 0.  If an element or the
 * factor is not finite, the factor is NaN, 0x7e00, and the numbers are 0.
 */
typedef struct {
    kn_ptr_t q;  /* [tokens, heads * head_dim] */
    kn_ptr_t k;  /* [tokens, kv_heads * kn_kv_own()] */
    kn_ptr_t v;  /* [tokens, kv_heads * v_dim] */
    kn_ptr_t cs; /* of rope_angles, as many angles as half */
    uint32_t heads, half;
    uint32_t halves; /* 0, 1 */
    kn_kv_t kv;
} kn_rope_store_t;

/*
 * Causal attention of each token over positions 0 to its own, from the cache
 * (where rope_store has put this step's); with a window over the last window
 * of them only.  Query head h reads key head h / (heads / kv_heads).  A score
 * is scale * (q . k), then, if cap > 0, cap * tanh(score / cap).  A sink is
 * one more score of its head, that of a value of zeros.
 */
typedef struct {
    kn_ptr_t q;     /* [tokens, heads * head_dim] */
    kn_ptr_t y;     /* [tokens, heads * v_dim] */
    kn_ptr_t sinks; /* [heads] F32 or null */
    uint32_t heads;
    uint32_t window; /* 0 is none */
    float scale, cap;
    kn_kv_t kv;
} kn_attn_t;

/*
 * The gate's activations, of a gate g and what it lets through, u:
 *
 *      SILU    g / (1 + exp(-g)) * u
 *      GELU    g / (1 + exp(-2v)) * u, v = sqrt(2 / pi) (g + 0.044715 g^3):
 *              by the hyperbolic tangent
 *      CLAMP   g / (1 + exp(-1.702 g)) * (u + 1), g at most limit and u from
 *              -limit to limit
 *
 * X(name, function)
 */
#define KN_ACT_LIST(X)                                                         \
    X(SILU, silu)                                                              \
    X(GELU, gelu)                                                              \
    X(CLAMP, clamp)

enum {
#define X(name, fn) KN_##name,
    KN_ACT_LIST(X)
#undef X
        KN_ACTS
};

/*
 * y = act(x gate^T + gate_bias, x up^T + up_bias), both of one shape; y is not
 * x.  The products have the bits that they have in matmul.
 */
typedef struct {
    const kn_w_t *gate, *up;     /* [n, k] */
    kn_ptr_t gate_bias, up_bias; /* [n] F32 or null, each */
    kn_ptr_t x;                  /* [M, k] */
    kn_ptr_t y;                  /* [M, n] */
    uint32_t rows;
    uint32_t act; /* KN_SILU, ... */
    float limit;  /* of KN_CLAMP */
} kn_gated_t;

/* What an expert's logit is turned into. */
enum { KN_SOFTMAX, KN_SIGMOID, KN_SCORES };

/*
 * The experts of each token: the used ones with the largest scores, the first
 * of equals, in falling order.  Scores are softmax(logits) or sigmoid(logits);
 * a bias is added to them for the choice only.  With groups the experts are so
 * many runs of equal length, and only those of the groups_used best are looked
 * at: a group is as good as its group_best (1 or 2) largest scores together.
 *
 * The weights of the chosen are their scores, or their share of the sum of
 * them (plus 1e-20) if normed, times scale.
 */
typedef struct {
    kn_ptr_t logits;  /* [M, experts] */
    kn_ptr_t bias;    /* [experts] F32 or null */
    kn_ptr_t ids;     /* [M, used] u32 */
    kn_ptr_t weights; /* [M, used] */
    uint32_t experts, used;
    uint32_t groups, groups_used, group_best; /* groups 0: there are none */
    uint32_t score;                           /* KN_SOFTMAX, KN_SIGMOID */
    uint32_t normed;                          /* 0, 1 */
    float scale;
    uint32_t rows;
} kn_router_t;

/* At most so many; the CPU's has their scores on its stack. */
#define KN_EXPERTS_MAX 1024

/*
 * y = sum over a token's experts of weight * down(act(gate(x), up(x))), each
 * a product with the expert's own matrix, plus its bias if there are biases;
 * added in the order of ids.  The products have the bits that they have in
 * matmul, whichever tokens share an expert.
 */
typedef struct {
    const kn_w_t *const *gate; /* [experts], host; each [ffn, dim] */
    const kn_w_t *const *up;   /* [experts], host; each [ffn, dim] */
    const kn_w_t *const *down; /* [experts], host; each [dim, ffn] */
    kn_ptr_t gate_bias;        /* [experts, ffn] F32 or null */
    kn_ptr_t up_bias;          /* [experts, ffn] F32 or null */
    kn_ptr_t down_bias;        /* [experts, dim] F32 or null */
    kn_ptr_t x;                /* [M, dim] */
    kn_ptr_t ids, weights;     /* of router */
    kn_ptr_t mid;              /* [M, used, ffn], scratch in any order */
    kn_ptr_t y;                /* [M, dim] */
    uint32_t dim, ffn;
    uint32_t experts, used;
    uint32_t rows;
    uint32_t act; /* KN_SILU, ... */
    float limit;  /* of KN_CLAMP */
} kn_moe_ffn_t;

/* x = the sum of all ranks' x: comm_sum() */
typedef struct {
    kn_ptr_t x; /* [M, dim] */
    uint32_t dim;
    uint32_t rows;
} kn_comm_sum_t;

/*
 * y = all ranks' x side by side, in rank 0; in the others y is scratch.  Rank r
 * has as many columns as comm_part() says of width.
 */
typedef struct {
    kn_ptr_t x; /* [M, columns of the rank] */
    kn_ptr_t y; /* [M, width] */
    uint32_t width;
    uint32_t rows;
} kn_comm_gather_t;

/* y[i] = x[outs[i].tok] */
typedef struct {
    kn_ptr_t x; /* [tokens, dim] */
    kn_ptr_t y; /* [outs, dim] */
    uint32_t dim;
} kn_gather_t;

/*
 * out[i] from logits[i] and outs[i]; sample.h has the policy.  Logits stay as
 * they are.  A row with a logit that is NaN or +Inf, or with none that is
 * finite of those that may come, gets err and no token.
 */
typedef struct {
    kn_ptr_t logits; /* [outs, vocab] */
    kn_ptr_t out;    /* [outs] sample_out_t */
    uint32_t vocab;
} kn_sample_t;

/*
 * Blocks of one arena to another: from[i] of src becomes to[i] of dst.  It is
 * no part of a step but stands between two, and need not have ended when it
 * returns: copied() tells.  Until then nobody writes what it reads, or looks at
 * what it writes; steps may run meanwhile.  No block is in to twice.
 */
typedef struct {
    kn_ptr_t src, dst;         /* one of them may be of alloc_host() */
    uint64_t stride;           /* bytes of a block */
    const uint32_t *from, *to; /* [n], host, live until it has ended */
    uint32_t n;
} kn_copy_t;

/* The op list. X(op, doc) */
#define KERNELS(X)                                                             \
    X(embed, "token ids to vectors")                                           \
    X(rmsnorm, "residual sum, then root mean square norm")                     \
    X(add, "residual sum alone, gated or not")                                 \
    X(matmul, "vectors times some weight matrices")                            \
    X(gated, "two of them, one the other's gate")                              \
    X(headmul, "each head times a matrix of its own")                          \
    X(rope_angles, "cosines and sines of the step's positions")                \
    X(rope_store, "rotates q and k, stores k and v")                           \
    X(attn, "causal attention over the paged cache")                           \
    X(router, "each token's experts")                                          \
    X(moe_ffn, "the experts' gates and products")                              \
    X(comm_sum, "activations, added up over all ranks")                        \
    X(comm_gather, "rows, put together of all ranks' parts")                   \
    X(gather, "rows at the output positions")                                  \
    X(sample, "logits to tokens")                                              \
    X(copy, "blocks from arena to arena")

enum { KN_COPY_RUNS, KN_COPY_DONE, KN_COPY_FAILED };

typedef struct {
    /*
     * NULL with one sentence in err.  All that a device allocates is freed by
     * close, and nothing before.
     */
    kn_dev_t *(*open)(const kn_open_t *o, char *err, size_t errlen);
    void (*close)(kn_dev_t *dev);

    void (*info)(const kn_dev_t *dev, kn_info_t *info);

    /* Zeroed, aligned for any op; null when there is no memory left. */
    kn_ptr_t (*alloc)(kn_dev_t *dev, uint64_t bytes);

    /*
     * The same of the host's memory, which ops may write and blocks may be
     * copied to.  The host may read it as it stands once the step that wrote
     * it has been waited for.
     */
    kn_ptr_t (*alloc_host)(kn_dev_t *dev, uint64_t bytes);

    /*
     * A weight from the file's bytes.  NULL with one sentence in err: no
     * memory, or a shape that the type or the device cannot take (k no
     * multiple of the type's block).
     */
    kn_w_t *(*weight_load)(
        kn_dev_t *dev, const kn_source_t *s, char *err, size_t errlen);

    /* Between host and device; both have ended when the function returns. */
    void (*copy_in)(kn_dev_t *dev, kn_ptr_t dst, const void *src, uint64_t n);
    void (*copy_out)(kn_dev_t *dev, void *dst, kn_ptr_t src, uint64_t n);

    /*
     * Allocates what steps up to these limits need.  Again with the same or
     * other limits: the larger counts, and what was recorded is forgotten.  0,
     * or -1 with one sentence in err.
     */
    int (*reserve)(
        kn_dev_t *dev, const kn_limits_t *l, char *err, size_t errlen);

    /*
     * The parts of a step; see the top.  begin and masks may be left out where
     * submit has all ops, or no output a mask.  The outs of masks are plan's,
     * with their masks.  wait: 0, or -1 when the group has been aborted, and
     * then the results are nothing and no later step has any.
     */
    void (*plan)(kn_dev_t *dev, const kn_step_t *step);
    void (*begin)(kn_dev_t *dev, void (*body)(void *arg), void *arg);
    void (*masks)(kn_dev_t *dev, const kn_out_t *outs);
    void (*submit)(kn_dev_t *dev, void (*body)(void *arg), void *arg);
    int (*wait)(kn_dev_t *dev);

    /*
     * How call nth of `copy` stands, counted from 0 when the device was opened:
     * KN_COPY_*.  They end in the order in which they were called.
     */
    int (*copied)(const kn_dev_t *dev, uint64_t nth);

    /* Called between plan and the end of body only, but for copy. */
#define X(op, doc) void (*op)(kn_dev_t * dev, const kn_##op##_t *a);
    KERNELS(X)
#undef X
} kernels_t;

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The number of the type called name ("Q4_K"), as GGUF calls it too; KN_TYPES
 * when there is none.
 */
uint32_t kernels_type(const char *name);

/*
 * n elements of a type, a multiple of its block, as floats: what every back
 * end takes them for.  src is unaligned host memory.
 */
void kernels_dequant(uint32_t type, float *dst, const void *src, uint64_t n);

/*
 * The CPU's table.  isa is auto, ref, avx2, avxvnni, avx512, avx512vnni or
 * avx512bf16; NULL with one sentence in err when there is none of that name or
 * this machine lacks it.
 */
const kernels_t *kernels_cpu(const char *isa, char *err, size_t errlen);

/*
 * CUDA's table, out of a shared object: library, or llm_cuda.so beside the
 * program where it is NULL or empty.  NULL with one sentence in err when there
 * is none, or it cannot be loaded.  Whether there is a GPU is for open() to
 * say.
 */
const kernels_t *kernels_cuda(const char *library, char *err, size_t errlen);

/* No arithmetic: sample gives the words of token_open_null in turn. */
const kernels_t *kernels_null(void);

#ifdef __cplusplus
}
#endif

#endif
