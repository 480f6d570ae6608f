/*
 * The CPU back end's insides, shared by its files.
 *
 *      cpu.c    device functions, thread pool, choice of instruction set
 *      ref.c    the op rows of vectors, over the small functions of a
 *               cpu_isa_t; those functions in plain C (cpu_ref), the oracle
 *      product.c cache.c attn.c   the rows of matrices; of the paged cache;
 *               attention over it (in plain C: attn_ref.c)
 *      router.c moe.c   the choice of experts; their products
 *      avx2.c avx512.c   the same small functions with flags of their own: what
 *               differs between them, the rest being vec.h, vec_attn.h and
 *               vec_cache.h
 *      panel.c  weights as the vector sets read them
 *      avx2_panel.c avx512_panel.c   their products, again what differs, the
 *               rest being vec_panel.h and vec_blocks.h; avxvnni_panel.c
 *               avx512vnni_panel.c the same where there are products of bytes;
 *               avx512bf16_panel.c BF16's alone, where there are products of
 *               that
 *      meet.c   the rows where ranks meet
 *      sample.c the sample row's policy
 *
 * An instruction set is a const table of small functions that run on one
 * thread and know no threads, steps or pages.  What it leaves NULL is taken
 * from cpu_ref when the device is opened.
 */
#ifndef CPU_H
#define CPU_H

#include "../kernels.h"

/*
 * A tile of a matrix product:
 *
 *      y[i * ldy + j] = sum over c < k of x[i * ldx + c] * w[j, c]
 *      for i < m, j < n
 *
 * w points to row 0 of the tile; row j begins j * stride bytes after it.  k is
 * a multiple of the type's block.  Neither x nor w is aligned to more than its
 * elements (weight blocks: 2 bytes) or padded: nothing may be read past
 * x[(m - 1) * ldx + k - 1] or past the last weight row.
 *
 * The order in which the terms of y[i, j] are added, and the rounding of each,
 * must depend on k only: not on m, n, i, j or an address.  m >= 1, n >= 1; the
 * caller chooses tiles of at most CPU_TILE_M by CPU_TILE_N and may choose
 * others at any time.
 */
typedef struct {
    const float *x;
    const void *w;
    float *y;
    size_t ldx, ldy; /* elements */
    size_t stride;   /* bytes */
    uint32_t m, n, k;
} cpu_mm_t;

#define CPU_TILE_M 64
#define CPU_TILE_N 64

/* DeepSeek's latent of 512 and its rotated 64; buffers are on the stack */
#define CPU_HEAD_DIM_MAX 576

/* Positions that are laid out at a time: 16 KiB of keys of 64. */
#define CPU_SEEN 64

/*
 * Rows times a matrix of floats in memory of the caller's own:
 *
 *      y[i][j] += sum over from <= c < to of x[i][c] * w[c, j]
 *      for i < m, j < n
 *
 * w has been laid out by keys() or values(), which see; it has rows rows.  The
 * terms are added to y[i][j] (fresh: to nothing) one by one in the order of c,
 * so they may be cut anywhere, and m and n do not matter.  What follows y[i] up
 * to a multiple of CPU_STRIP may be written too.
 */
typedef struct {
    const float *const *x; /* [m] */
    float *const *y;       /* [m] */
    const float *w;
    const char *const *cache; /* [rows] mix()'s instead of w */
    uint32_t m, n, rows;
    uint32_t from, to; /* from < to */
    uint32_t fresh;    /* 0, 1 */

    /* Rows of the cache that are wanted next, [CPU_SEEN], or NULL. */
    const char *const *ahead;
    size_t ahead_size; /* bytes of each */
} cpu_strips_t;

/* Rows of the cache to lay out, n <= CPU_SEEN of k elements each. */
typedef struct {
    float *to;               /* 64-byte aligned */
    const char *const *from; /* [n] */
    uint32_t n, k;
} cpu_rows_t;

/* No wider than that are the strips of any instruction set. */
#define CPU_STRIP 32

/* What attention does on one thread, by the cache's type where it differs. */
typedef struct {
    /* A matrix [k, n] whose columns are keys: rows is k. */
    void (*keys[KN_KV_TYPES])(const cpu_rows_t *a);

    /* A matrix [n, k] whose rows are values: rows is CPU_SEEN + 1. */
    void (*values[KN_KV_TYPES])(const cpu_rows_t *a);

    void (*strips)(const cpu_strips_t *a);

    /*
     * The same with values as they lie in the cache, which pays for few rows
     * of x; n is a multiple of CPU_STRIP.
     */
    void (*mix[KN_KV_TYPES])(const cpu_strips_t *a);

    /*
     * w[i] = exp(scale * w[i] - *max), *max being the largest scale * w[i];
     * returns the sum of the new w, in an order that depends on n only.
     * scale > 0.
     */
    float (*softmax)(float *w, uint32_t n, float scale, float *max);

    /* y[i] = y[i] * by + x[i] * with; n is a multiple of CPU_STRIP. */
    void (*join)(float *y, const float *x, uint32_t n, float by, float with);
} cpu_attn_t;

/*
 * Rows of activations by some outputs of a matrix in panels (panel.h):
 *
 *      y[i * ldy + j] = sum over c < k of x[i, c] * w[n0 + j, c]
 *      for i < m, j < n
 *
 * Weights of plain types take x as floats, or BF16 as BF16; those in blocks
 * take whole numbers, CPU_STEP of them (a step) with a factor of their own.  k
 * is a multiple of the type's block, m at most CPU_TILE_M.  The order in which
 * the terms of an output are added depends on type and k only.
 */
#define CPU_STEP 32

/* What activations are to a weight. */
enum {
    CPU_FLOATS, /* as they are */
    CPU_BYTES,  /* whole numbers, in steps */
    CPU_WORDS,
    CPU_BF16, /* to nearest even; those below normal numbers are nothing */
    CPU_KINDS
};

typedef struct {
    float d;       /* an activation is d times its number */
    float sum;     /* of the step's activations as they are so */
    float half[2]; /* of the first sixteen, of the others */
} cpu_step_t;

typedef struct {
    const float *x; /* row i at x + i * ldx; plain types */
    size_t ldx;
    const void *q;       /* numbers [m, k] of panels.kind[type] */
    const cpu_step_t *s; /* [m, k / CPU_STEP] where they are in steps */
    const char *w;       /* panel 0 of the matrix */
    size_t stride;       /* bytes of a panel */
    float *y;
    size_t ldy;
    uint32_t m, k, n0, n;
} cpu_panels_t;

/* What an instruction set has for panels. */
typedef struct cpu_panel_isa_s {
    /* From where all is taken that is not here, or NULL: cpu_panels_fill() */
    const struct cpu_panel_isa_s *rest;

    void (*mm[KN_TYPES])(const cpu_panels_t *a);
    uint8_t kind[KN_TYPES]; /* of the activations that a type meets */

    /* k activations as numbers of a kind. */
    void (*numbers[CPU_KINDS])(
        void *q, cpu_step_t *s, const float *x, uint32_t k);
} cpu_panel_isa_t;

extern const cpu_panel_isa_t cpu_panels_avx2;
extern const cpu_panel_isa_t cpu_panels_avxvnni;
extern const cpu_panel_isa_t cpu_panels_avx512;
extern const cpu_panel_isa_t cpu_panels_avx512vnni;
extern const cpu_panel_isa_t cpu_panels_avx512bf16;

/* isa, what it has not taken from its rest. */
void cpu_panels_fill(cpu_panel_isa_t *out, const cpu_panel_isa_t *isa);

/*
 * Keeps v in a register here.  Sums of whole numbers may be added in any order,
 * and compilers like to keep all the terms of a step until its end.
 */
#ifndef CPU_HERE
#define CPU_HERE(v) __asm__("" : "+v"(v))
#endif

/* How far ahead of what they multiply products ask for weights. */
#define CPU_AHEAD 4096

typedef struct {
    const char *name;

    /* The product over the file's rows, by weight type: plain C's alone. */
    void (*matmul[KN_TYPES])(const cpu_mm_t *a);

    /* n elements at src, dequantised: exact, no rounding but the format's. */
    void (*row[KN_TYPES])(float *dst, const void *src, uint32_t n);

    /* Rounds n elements to nearest even into a cache row. */
    void (*kv_put[KN_KV_TYPES])(void *dst, const float *src, uint32_t n);

    /*
     * Rotates half pairs of x: neighbours [0], or halves [1], x[i] and
     * x[half + i].  cos has a pair's cosine for each of its elements, where it
     * stands; sin its sine, for the pair's first element less it.
     */
    void (*rotate[2])(
        float *x, const float *cos, const float *sin, uint32_t half);

    /* Attention's part, all of it or NULL. */
    const cpu_attn_t *attn;

    /*
     * x += add, where it is not NULL; y = x / sqrt(mean(x^2) + eps) * w.  y
     * may be x.
     */
    void (*rmsnorm)(float *y, float *x, const float *add, const float *w,
        uint32_t n, float eps);

    /*
     * gate[i] = act(gate[i], up[i]), by activation: element i alone decides
     * its bits.
     */
    void (*act_mul[KN_ACTS])(
        float *gate, const float *up, uint32_t n, float limit);

    /* x[i] = cap * tanh(scale * x[i] / cap): element i alone decides. */
    void (*soft_cap)(float *x, uint32_t n, float scale, float cap);

    /* NULL: weights stay as the file has them, as they do for plain C. */
    const cpu_panel_isa_t *panels;
} cpu_isa_t;

extern const cpu_isa_t cpu_ref;
extern const cpu_isa_t cpu_avx2;
extern const cpu_isa_t cpu_avx512;
extern const cpu_attn_t cpu_attn_ref;

/* A weight: panels, or the file's rows as they are. */
struct kn_w_s {
    const char *data; /* 64-byte aligned, owned by the device */
    size_t stride;    /* bytes from panel to panel, or from row to row */
    uint32_t type, n, k;
    uint32_t panels;     /* 0, 1 */
    struct kn_w_s *next; /* of the device */
};

/*
 * The sampler for one output (sample.c): see sample.h for the policy.  logits
 * [vocab] are not written.  work is cpu_sample_work(vocab) bytes, 64-byte
 * aligned, of any content, for this call only.  Neither blocks nor allocates.
 * The draw's Philox counter is (o->pos + 1, o->choice), its key params->seed.
 */
void cpu_sample_one(const float *logits, uint32_t vocab, const kn_out_t *o,
    void *work, sample_out_t *out);
size_t cpu_sample_work(uint32_t vocab);

/* Bytes of a number of a kind; none where floats are taken as they are. */
static inline uint32_t
cpu_number(uint32_t kind)
{
    return kind == CPU_FLOATS ? 0 : kind == CPU_BYTES ? 1 : 2;
}

/* Have numbers of a kind steps? */
static inline int
cpu_in_steps(uint32_t kind)
{
    return kind == CPU_BYTES || kind == CPU_WORDS;
}

/* As many bytes of a weight's row stand side by side: see panel_pack(). */
static inline uint32_t
cpu_unit(uint32_t kind)
{
    return kind == CPU_BYTES || kind == CPU_BF16 ? 4 : 2;
}

/*
 * Bytes of rows of k activations as numbers of two kinds, with steps: there are
 * no words where there is BF16.
 */
static inline size_t
cpu_numbers(uint32_t rows, uint32_t k)
{
    return (size_t) rows * (k * 3 + k / CPU_STEP * 2 * sizeof(cpu_step_t));
}

/* Bytes that attention asks of a worker's scratch, for such heads. */
size_t cpu_attn_work(uint32_t head_dim);

/* Bytes that it asks for one more split of a step's longest contexts. */
size_t cpu_attn_split(const kn_limits_t *l, uint32_t threads);

typedef struct cpu_pool_s cpu_pool_t;

/* What a token of the step needs to know, made by plan(). */
typedef struct {
    uint32_t pos;
    uint32_t row;
} cpu_tok_t;

/* Tokens of a row that attention takes together. */
typedef struct {
    uint32_t tok, tokens;
    uint32_t unit; /* its first partition's number among all tiles' */
} cpu_tile_t;

struct kn_dev_s {
    cpu_isa_t isa;          /* complete: gaps are filled from cpu_ref */
    cpu_panel_isa_t panels; /* isa.panels, complete, where it has them */
    cpu_pool_t *pool;       /* owned */
    uint32_t threads;       /* workers, the caller being number 0 */
    comm_t *comm;           /* borrowed; NULL: alone */
    int aborted;            /* its group was, in a call of ours */
    struct kn_w_s *weights; /* owned list */
    struct cpu_mem_s *mem;  /* owned list of all allocations */
    uint64_t used;
    kn_limits_t limits;
    kn_step_t step;   /* pointers below, or borrowed by outs until wait */
    uint32_t *tokens; /* [limits.tokens] */
    kn_row_t *rows;   /* [limits.rows] */
    uint32_t *blocks; /* [limits.blocks] */
    kn_out_t *outs;   /* [limits.outs] */
    cpu_tok_t *toks;  /* [limits.tokens] */
    uint64_t copies;  /* calls of copy */
    char *work;       /* [threads][work_size] scratch for one op */
    size_t work_size;
    char *numbers; /* a matrix of activations as numbers: cpu_numbers() */
    size_t numbers_size;
    uint32_t k_max;    /* of the weights in panels */
    cpu_tile_t *tiles; /* [limits.tokens], attention's */
    float *split;      /* [split_size] bytes of results to be joined */
    size_t split_size;
    uint32_t *places; /* [limits.tokens, limits.used], of experts (moe.c) */
    char *pairs;      /* their activations, as they want them */
    size_t pairs_size;
    uint32_t small; /* 0, 1: weights lie in small pages, for now */
};

/*
 * Calls fn(arg, part, worker) once for each part < parts, on any of the
 * pool's threads, and returns when all have returned.  worker < dev->threads
 * names the scratch that the call may use.  cost is the work in all, about in
 * multiply-adds: too small for a second thread, and the caller does it alone.
 */
void cpu_run(kn_dev_t *dev, uint32_t parts, uint64_t cost,
    void (*fn)(void *arg, uint32_t part, uint32_t worker), void *arg);

/* The op rows (ref.c, product.c, moe.c, cache.c, router.c, meet.c). */
#define X(op, doc) void cpu_##op(kn_dev_t *dev, const kn_##op##_t *a);
KERNELS(X)
#undef X

#endif
