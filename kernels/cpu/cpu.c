/*
 * The CPU back end's device functions, and the choice of instruction set.
 *
 * DESIGN.  A device address is a host address; copies are memcpy; a step runs
 * inside submit, a copy of blocks inside its call, on the caller and the pool's
 * threads, and nothing is left to wait for.  There is one const table per
 * instruction set, and they differ in `open` alone: it puts that set's small
 * functions into the device, the gaps filled from cpu_ref, and the op rows
 * (ref.c, product.c) call those.
 *
 * All memory is anonymous mappings, zeroed and committed as it is touched, so
 * that a buffer sized for the worst step costs what real steps use of it.
 * Weights share mappings, and take huge pages where those are quick to get.
 * They are chained for close; nothing is freed before.
 *
 * The step block is copied by plan, which also works out each token's position
 * and row.  What plan is given comes from the engine's own scheduler: its
 * indices are asserted here, once, and relied upon by the ops.
 */
#include "cpu.h"
#include "panel.h"
#include "pool.h"

#include <assert.h>
#include <cpuid.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

/* Mappings of this size and more are worth huge pages. */
#define HUGE_MIN  (4u << 20)
#define HUGE_PAGE (2u << 20)

/* A huge page that takes so long is not there but has to be got. */
#define HUGE_SLOW_US 2000

/* Weights share mappings of that size, but for small and for large ones. */
#define WEIGHTS_MAP   (64u << 20)
#define WEIGHTS_SHARE (512u << 10)

#define PAGE 4096u

_Static_assert(WEIGHTS_MAP % PAGE == 0, "mem_map() adds nothing to it");

#define THREADS_MAX 256

typedef struct cpu_mem_s {
    struct cpu_mem_s *next;
    size_t size; /* of the mapping, this header's page included */
    size_t left; /* bytes at its end that weights may still have */
    int small;   /* of small pages, for now */
} cpu_mem_t;

static const struct {
    const char *name;
    uint32_t elems, bytes; /* of a block */
} types[KN_TYPES] = {
#define X(name, elems, bytes) {#name, elems, bytes},
    KN_TYPE_LIST(X)
#undef X
};

/*
 * size bytes, in huge pages if they are many: the first page stands before the
 * border of one, so that what begins a mapping holds no huge page.  Or NULL.
 */
static void *
map(size_t size)
{
    size_t more = size >= HUGE_MIN ? HUGE_PAGE : 0, before;
    char *p = mmap(NULL, size + more, PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED || more == 0) {
        return p == MAP_FAILED ? NULL : p;
    }

    before = -((uintptr_t) p + PAGE) % HUGE_PAGE;
    if (before > 0) {
        munmap(p, before);
    }
    p += before;
    munmap(p + size, more - before);
    madvise(p, size, MADV_HUGEPAGE); /* a wish: may fail */

    return p;
}

/*
 * A mapping of its own, of whole pages: the header sits 64 bytes before what is
 * returned.
 */
static void *
mem_map(kn_dev_t *dev, uint64_t bytes)
{
    size_t size;
    cpu_mem_t *mem;

    if (bytes > SIZE_MAX / 2) {
        return NULL;
    }

    size = ((size_t) bytes + 64 + PAGE - 1) & ~(size_t) (PAGE - 1);
    mem = map(size);

    if (mem == NULL) {
        return NULL;
    }

    mem->next = dev->mem;
    mem->size = size;
    mem->left = 0;
    mem->small = 0;
    dev->mem = mem;
    dev->used += size;

    return (char *) mem + 64;
}

static uint64_t
cpu_us(void)
{
    struct timespec t;

    (void) clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t) t.tv_sec * 1000000 + (uint64_t) t.tv_nsec / 1000;
}

/*
 * A mapping for weights, that are about to fill it.  To clear a huge page takes
 * a part of a millisecond, but many where a virtual machine has to get it from
 * its host, which is where huge pages come from there once they were free for
 * seconds.  Then loading would wait for little else, and small ones are taken;
 * the system may make huge ones of them while the engine runs: let_grow().
 */
static void *
map_weights(kn_dev_t *dev, uint64_t bytes)
{
    char *p = mem_map(dev, bytes), *first;
    uint64_t from;

    if (p == NULL || dev->mem->size < HUGE_MIN) {
        return p;
    }

    first = (char *) dev->mem + PAGE;
    assert((uintptr_t) first % HUGE_PAGE == 0);
    from = cpu_us();
    *(volatile char *) first = 0;
    if (cpu_us() - from > HUGE_SLOW_US) {
        madvise(dev->mem, dev->mem->size, MADV_NOHUGEPAGE);
        dev->mem->small = 1;
        dev->small = 1;
    }

    return p;
}

/* A step is near, so weights have been loaded: now pages may become huge. */
static void
let_grow(kn_dev_t *dev)
{
    cpu_mem_t *mem;

    for (mem = dev->mem; mem != NULL; mem = mem->next) {
        if (mem->small) {
            madvise(mem, mem->size, MADV_HUGEPAGE);
        }
    }

    dev->small = 0;
}

/*
 * bytes for a weight, 64-byte aligned: of a mapping that weights share, as a
 * huge page that is only begun is held whole.
 */
static void *
weight_room(kn_dev_t *dev, uint64_t bytes)
{
    cpu_mem_t *mem;
    char *p;

    if (bytes < WEIGHTS_SHARE || bytes > WEIGHTS_MAP / 4) {
        return map_weights(dev, bytes);
    }

    bytes = (bytes + 63) & ~(uint64_t) 63;

    for (mem = dev->mem; mem != NULL && mem->left < bytes; mem = mem->next) {
    }

    if (mem == NULL) {
        if (map_weights(dev, WEIGHTS_MAP - 64) == NULL) {
            return NULL;
        }
        mem = dev->mem;
        mem->left = WEIGHTS_MAP - 64;
        dev->used -= mem->left; /* what is taken of it counts */
    }

    p = (char *) mem + mem->size - mem->left;
    mem->left -= bytes;
    dev->used += bytes;
    assert(((uintptr_t) p & 63) == 0);

    return p;
}

static uint32_t
cores(void)
{
    int n;
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof(set), &set) != 0) {
        return 1;
    }

    n = CPU_COUNT(&set);
    return n < 1 ? 1 : n > THREADS_MAX ? THREADS_MAX : (uint32_t) n;
}

/* isa, its gaps filled from cpu_ref */
static void
fill_isa(cpu_isa_t *out, const cpu_isa_t *isa)
{
    int i;

    *out = *isa;

    for (i = 0; i < KN_TYPES; i++) {
        out->matmul[i] = isa->matmul[i] ? isa->matmul[i] : cpu_ref.matmul[i];
        out->row[i] = isa->row[i] ? isa->row[i] : cpu_ref.row[i];
    }

    for (i = 0; i < KN_KV_TYPES; i++) {
        out->kv_put[i] = isa->kv_put[i] ? isa->kv_put[i] : cpu_ref.kv_put[i];
    }

    for (i = 0; i < 2; i++) {
        out->rotate[i] = isa->rotate[i] ? isa->rotate[i] : cpu_ref.rotate[i];
    }

    for (i = 0; i < KN_ACTS; i++) {
        out->act_mul[i] =
            isa->act_mul[i] ? isa->act_mul[i] : cpu_ref.act_mul[i];
    }

    out->attn = isa->attn ? isa->attn : cpu_ref.attn;
    out->rmsnorm = isa->rmsnorm ? isa->rmsnorm : cpu_ref.rmsnorm;
    out->soft_cap = isa->soft_cap ? isa->soft_cap : cpu_ref.soft_cap;
}

void
cpu_panels_fill(cpu_panel_isa_t *out, const cpu_panel_isa_t *isa)
{
    int i;

    if (isa->rest != NULL) {
        cpu_panels_fill(out, isa->rest);
    } else {
        *out = *isa;
    }

    for (i = 0; i < KN_TYPES; i++) {
        if (isa->mm[i] != NULL) {
            out->mm[i] = isa->mm[i];
            out->kind[i] = isa->kind[i];
        }
        assert(out->mm[i] != NULL);
    }

    for (i = 0; i < CPU_KINDS; i++) {
        if (isa->numbers[i] != NULL) {
            out->numbers[i] = isa->numbers[i];
        }
    }
}

static void
dev_close(kn_dev_t *dev)
{
    cpu_mem_t *mem, *next;

    if (dev == NULL) {
        return;
    }

    cpu_pool_close(dev->pool);

    for (mem = dev->mem; mem != NULL; mem = next) {
        next = mem->next;
        munmap(mem, mem->size);
    }

    free(dev);
}

static kn_dev_t *
dev_open(const cpu_isa_t *isa, const kn_open_t *o, char *err, size_t errlen)
{
    kn_dev_t *dev;

    assert(o->threads <= THREADS_MAX && o->cpus_n <= THREADS_MAX);
    dev = calloc(1, sizeof(*dev));

    if (dev == NULL) {
        snprintf(err, errlen, "device cpu: not enough memory");
        return NULL;
    }

    fill_isa(&dev->isa, isa);
    if (isa->panels != NULL) {
        cpu_panels_fill(&dev->panels, isa->panels);
        dev->isa.panels = &dev->panels;
    }
    dev->threads = o->threads != 0  ? o->threads
                   : o->cpus_n != 0 ? o->cpus_n
                                    : cores();
    dev->comm = o->comm;
    dev->pool = cpu_pool_open(dev->threads, o);

    if (dev->pool == NULL) {
        snprintf(
            err, errlen, "device cpu: cannot start %u threads", dev->threads);
        dev_close(dev);
        return NULL;
    }

    return dev;
}

static void
dev_info(const kn_dev_t *dev, kn_info_t *info)
{
    snprintf(info->name, sizeof(info->name), "cpu %s, %u thread%s",
        dev->isa.name, dev->threads, dev->threads == 1 ? "" : "s");
    info->host = 1;
    info->blind = 0;
    info->used = dev->used;
    info->library = 0;
    info->own = info->left = info->refused = 0;
    info->recorded = info->recorded_us = info->replayed = 0;
}

static kn_ptr_t
dev_alloc(kn_dev_t *dev, uint64_t bytes)
{
    kn_ptr_t p;

    p.a = (uintptr_t) mem_map(dev, bytes);
    return p;
}

static uint32_t
max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static size_t
max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Scratch for steps up to the limits, with the weights that there are. */
static int
dev_scratch(kn_dev_t *dev)
{
    const kn_limits_t *l = &dev->limits;
    size_t size;

    size = max_size(cpu_sample_work(l->vocab), cpu_attn_work(l->head_dim));
    size = max_size(size, cpu_numbers(CPU_TILE_M, dev->k_max));
    size = max_size(
        size, (size_t) l->tokens * l->used * CPU_TILE_N * sizeof(float));
    dev->work_size = (size + 63) & ~(size_t) 63;
    dev->work = mem_map(dev, (uint64_t) dev->threads * dev->work_size);
    dev->numbers_size = cpu_numbers(l->tokens, dev->k_max);
    dev->numbers = mem_map(dev, dev->numbers_size);

    return dev->work != NULL && dev->numbers != NULL ? 0 : -1;
}

/* The same of experts: x and mid as numbers, and x as it is. */
static int
dev_pairs(kn_dev_t *dev)
{
    const kn_limits_t *l = &dev->limits;
    size_t pairs = (size_t) l->tokens * l->used;

    if (pairs == 0) {
        return 0;
    }

    dev->pairs_size = 2 * cpu_numbers(1, l->expert_k);
    dev->pairs_size += l->expert_k * sizeof(float);
    dev->pairs_size = pairs * dev->pairs_size + 3 * 64; /* alignment's */
    dev->pairs = mem_map(dev, dev->pairs_size);
    dev->places = mem_map(dev, pairs * sizeof(*dev->places));

    return dev->pairs != NULL && dev->places != NULL ? 0 : -1;
}

typedef struct {
    const kn_dev_t *dev;
    const kn_w_t *w;
    const char *src;
    size_t stride; /* of the source's rows */
} pack_t;

/* A part is a panel, or as many rows. */
static void
pack_part(void *arg, uint32_t part, uint32_t worker)
{
    const pack_t *p = arg;
    const kn_w_t *w = p->w;
    uint32_t left = w->n - part * PANEL;
    char *to = (char *) (uintptr_t) w->data; /* ours still */
    const char *src;

    (void) worker;
    left = left < PANEL ? left : PANEL;
    src = p->src + (size_t) part * PANEL * p->stride;

    if (!w->panels) {
        memcpy(to + (size_t) part * PANEL * w->stride, src, left * w->stride);
        return;
    }

    panel_pack(w->type, cpu_unit(p->dev->isa.panels->kind[w->type]),
        to + part * w->stride, src, left, w->k);
}

static kn_w_t *
dev_weight_load(kn_dev_t *dev, const kn_source_t *s, char *err, size_t errlen)
{
    kn_w_t *w;
    size_t row, stride;
    uint32_t rows = s->n, panels;
    pack_t p;

    assert(s->type < KN_TYPES && s->n > 0 && s->k > 0 && s->data != NULL);

    if (s->k % types[s->type].elems != 0) {
        snprintf(err, errlen,
            "weight \"%s\": expected rows of a multiple of %u for %s, "
            "found %u",
            s->name, types[s->type].elems, types[s->type].name, s->k);
        return NULL;
    }

    row = (size_t) s->k / types[s->type].elems * types[s->type].bytes;
    stride = row;
    panels = dev->isa.panels != NULL;

    if (panels) {
        stride = panel_bytes(s->type, s->k);
        rows = (s->n + PANEL - 1) / PANEL;
    }

    w = weight_room(dev, 64 + (uint64_t) rows * stride);

    if (w != NULL && panels && s->k > dev->k_max) {
        dev->k_max = s->k;
        w = dev_scratch(dev) == 0 ? w : NULL;
    }

    if (w == NULL) {
        snprintf(err, errlen,
            "weight \"%s\": expected %llu bytes, found no "
            "memory for them",
            s->name, (unsigned long long) rows * stride);
        return NULL;
    }

    _Static_assert(sizeof(*w) <= 64, "the weight's head has 64 bytes");
    w->data = (const char *) w + 64;
    w->stride = stride;
    w->type = s->type;
    w->n = s->n;
    w->k = s->k;
    w->panels = panels;

    p = (pack_t){dev, w, s->data, row};
    cpu_run(
        dev, (s->n + PANEL - 1) / PANEL, (uint64_t) s->n * s->k, pack_part, &p);

    return w;
}

static void
dev_copy_in(kn_dev_t *dev, kn_ptr_t dst, const void *src, uint64_t n)
{
    (void) dev;
    memcpy((void *) dst.a, src, n);
}

static void
dev_copy_out(kn_dev_t *dev, void *dst, kn_ptr_t src, uint64_t n)
{
    (void) dev;
    memcpy(dst, (const void *) src.a, n);
}

static int
dev_reserve(kn_dev_t *dev, const kn_limits_t *l, char *err, size_t errlen)
{
    kn_limits_t *have = &dev->limits;

    if (l->head_dim > CPU_HEAD_DIM_MAX) {
        snprintf(err, errlen,
            "device cpu: expected heads of at most %d, found %u",
            CPU_HEAD_DIM_MAX, l->head_dim);
        return -1;
    }

    have->tokens = max_u32(have->tokens, l->tokens);
    have->rows = max_u32(have->rows, l->rows);
    have->outs = max_u32(have->outs, l->outs);
    have->blocks = max_u32(have->blocks, l->blocks);
    have->context = max_u32(have->context, l->context);
    have->heads = max_u32(have->heads, l->heads);
    have->head_dim = max_u32(have->head_dim, l->head_dim);
    have->vocab = max_u32(have->vocab, l->vocab);
    have->used = max_u32(have->used, l->used);
    have->expert_k = max_u32(have->expert_k, l->expert_k);

    dev->split_size = cpu_attn_split(have, dev->threads);
    dev->tokens = mem_map(dev, have->tokens * sizeof(*dev->tokens));
    dev->rows = mem_map(dev, have->rows * sizeof(*dev->rows));
    dev->blocks = mem_map(dev, have->blocks * sizeof(*dev->blocks));
    dev->outs = mem_map(dev, have->outs * sizeof(*dev->outs));
    dev->toks = mem_map(dev, have->tokens * sizeof(*dev->toks));
    dev->tiles = mem_map(dev, have->tokens * sizeof(*dev->tiles));
    dev->split = mem_map(dev, dev->split_size);

    if (dev->tokens == NULL || dev->rows == NULL || dev->blocks == NULL
        || dev->outs == NULL || dev->toks == NULL || dev->tiles == NULL
        || dev->split == NULL || dev_scratch(dev) != 0 || dev_pairs(dev) != 0) {
        snprintf(err, errlen,
            "device cpu: not enough memory for a step of "
            "%u tokens",
            have->tokens);
        return -1;
    }

    return 0;
}

/* n elements from src, where src may be NULL if there are none */
static void
copy(void *dst, const void *src, size_t n, size_t size)
{
    if (n > 0) {
        memcpy(dst, src, n * size);
    }
}

static void
dev_plan(kn_dev_t *dev, const kn_step_t *step)
{
    uint32_t i, j, t;
    const kn_row_t *row;
    const kn_blocks_t *blocks;

    assert(step->tokens_n <= dev->limits.tokens);
    assert(step->rows_n <= dev->limits.rows);
    assert(step->outs_n <= dev->limits.outs);
    assert(step->blocks_n <= dev->limits.blocks);

    if (dev->small) {
        let_grow(dev);
    }

    copy(dev->tokens, step->tokens, step->tokens_n, sizeof(*dev->tokens));
    copy(dev->rows, step->rows, step->rows_n, sizeof(*dev->rows));
    copy(dev->blocks, step->blocks, step->blocks_n, sizeof(*dev->blocks));
    copy(dev->outs, step->outs, step->outs_n, sizeof(*dev->outs));

    dev->step.tokens_n = step->tokens_n;
    dev->step.rows_n = step->rows_n;
    dev->step.outs_n = step->outs_n;
    dev->step.blocks_n = step->blocks_n;
    dev->step.tokens = dev->tokens;
    dev->step.rows = dev->rows;
    dev->step.blocks = dev->blocks;
    dev->step.outs = dev->outs;

    for (i = 0, t = 0; i < step->rows_n; i++) {
        row = &dev->rows[i];
        assert(row->tok == t && row->q_len <= step->tokens_n - t);

        for (j = 0; j < KN_GROUPS; j++) {
            blocks = &row->blocks[j];
            assert(blocks->at <= step->blocks_n
                   && blocks->n <= step->blocks_n - blocks->at);
        }

        for (j = 0; j < row->q_len; j++, t++) {
            dev->toks[t].pos = row->q_start + j;
            dev->toks[t].row = i;
        }
    }

    assert(t == step->tokens_n);

    for (i = 0; i < step->outs_n; i++) {
        assert(dev->outs[i].tok < step->tokens_n);
        dev->outs[i].mask = NULL;
    }
}

static void
dev_masks(kn_dev_t *dev, const kn_out_t *outs)
{
    uint32_t i;

    for (i = 0; i < dev->step.outs_n; i++) {
        assert(outs[i].tok == dev->outs[i].tok);
        dev->outs[i].mask = outs[i].mask;
    }
}

static void
dev_submit(kn_dev_t *dev, void (*body)(void *arg), void *arg)
{
    (void) dev;
    body(arg);
}

static int
dev_wait(kn_dev_t *dev)
{
    return dev->aborted ? -1 : 0;
}

/* All that copy was told has been done when it returned. */
static int
dev_copied(const kn_dev_t *dev, uint64_t nth)
{
    assert(nth < dev->copies);
    (void) dev;
    (void) nth;

    return KN_COPY_DONE;
}

static int
has_avx2(void)
{
    unsigned a, b, c, d;

    /* F16C is bit 29 of leaf 1; compilers' builtins do not all know it */
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")
           && __get_cpuid(1, &a, &b, &c, &d) && (c & 1u << 29) != 0;
}

/* AVX-VNNI is bit 4 of leaf 7, 1. */
static int
has_avxvnni(void)
{
    unsigned a, b, c, d;

    return has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d)
           && (a & 1u << 4) != 0;
}

static int
has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f")
           && __builtin_cpu_supports("avx512bw")
           && __builtin_cpu_supports("avx512vl")
           && __builtin_cpu_supports("avx512dq");
}

static int
has_avx512vnni(void)
{
    return has_avx512() && __builtin_cpu_supports("avx512vnni");
}

static int
has_avx512bf16(void)
{
    return has_avx512vnni() && __builtin_cpu_supports("avx512bf16");
}

static int
has_ref(void)
{
    return 1;
}

/*
 * The instruction sets, best first.  X(name, whose small functions, whose
 * products over panels)
 */
#define ISAS(X)                                                                \
    X(avx512bf16, avx512, &cpu_panels_avx512bf16)                              \
    X(avx512vnni, avx512, &cpu_panels_avx512vnni)                              \
    X(avx512, avx512, cpu_avx512.panels)                                       \
    X(avxvnni, avx2, &cpu_panels_avxvnni)                                      \
    X(avx2, avx2, cpu_avx2.panels)                                             \
    X(ref, ref, NULL)

#define X(isa, base, products)                                                 \
    static kn_dev_t *open_##isa(const kn_open_t *o, char *err, size_t errlen)  \
    {                                                                          \
        cpu_isa_t all = cpu_##base;                                            \
                                                                               \
        all.name = #isa;                                                       \
        all.panels = products;                                                 \
        return dev_open(&all, o, err, errlen);                                 \
    }
ISAS(X)
#undef X

/* clang-format off */
#define OP(op, doc) .op = cpu_##op,

static const struct {
    const char *name;
    int (*has)(void);
    kernels_t table;
} isas[] = {
#define X(isa, base, products)                                                 \
    {#isa, has_##isa, {                                                        \
        .open = open_##isa,                                                    \
        .close = dev_close,                                                    \
        .info = dev_info,                                                      \
        .alloc = dev_alloc,                                                    \
        .alloc_host = dev_alloc,                                               \
        .weight_load = dev_weight_load,                                        \
        .copy_in = dev_copy_in,                                                \
        .copy_out = dev_copy_out,                                              \
        .reserve = dev_reserve,                                                \
        .plan = dev_plan,                                                      \
        .begin = dev_submit,                                                   \
        .submit = dev_submit,                                                  \
        .masks = dev_masks,                                                    \
        .wait = dev_wait,                                                      \
        .copied = dev_copied,                                                  \
        KERNELS(OP)                                                            \
    }},
    ISAS(X)
#undef X
};
/* clang-format on */

const kernels_t *
kernels_cpu(const char *isa, char *err, size_t errlen)
{
    size_t i;
    int any;

    any = strcmp(isa, "auto") == 0;

    for (i = 0; i < sizeof(isas) / sizeof(isas[0]); i++) {
        if (!any && strcmp(isa, isas[i].name) != 0) {
            continue;
        }

        if (isas[i].has()) {
            return &isas[i].table;
        }

        if (!any) {
            snprintf(err, errlen,
                "cpu_isa: expected one that this machine has, found %s", isa);
            return NULL;
        }
    }

    snprintf(err, errlen,
        "cpu_isa: expected auto, ref, avx2, avxvnni, avx512, avx512vnni or "
        "avx512bf16, found \"%s\"",
        isa);
    return NULL;
}
