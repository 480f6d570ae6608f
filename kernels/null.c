/*
 * The null back end: no arithmetic.  Every op does nothing but `sample`, which
 * says the words of the null tokenizer in turn, so that everything around the
 * model can be tested at any speed and without weights.
 *
 * The word sampled after position p is number p % words of the vocabulary,
 * which is laid out as token_open_null has it: 256 bytes, the words, begin and
 * end.  So a text depends on its length only.
 *
 * Memory is plain zeroed memory, chained for close.  Ranks of a group do not
 * meet: there is nothing to add up.
 */
#include "kernels.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define BYTES_N 256
#define ENDS_N  2 /* begin and end, behind the words */

typedef struct mem_s {
    struct mem_s *next;
    size_t size;
} mem_t;

struct kn_w_s {
    uint32_t n, k;
};

struct kn_dev_s {
    mem_t *mem; /* owned list */
    uint64_t used;
    kn_limits_t limits;
    kn_out_t *outs; /* [limits.outs] */
    uint32_t outs_n;
};

static kn_ptr_t
null_alloc(kn_dev_t *dev, uint64_t bytes)
{
    mem_t *mem;
    kn_ptr_t p = {0};

    if (bytes > SIZE_MAX / 2) {
        return p;
    }

    /*
     * A mapping, so that what is not touched costs nothing; and none that the
     * system refuses for its size, since plans are made with this device too.
     */
    mem = mmap(NULL, (size_t) bytes + 64, PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (mem == MAP_FAILED) {
        return p;
    }

    mem->next = dev->mem;
    mem->size = (size_t) bytes + 64;
    dev->mem = mem;
    dev->used += mem->size;
    p.a = (uintptr_t) mem + 64;

    return p;
}

static kn_dev_t *
null_open(const kn_open_t *o, char *err, size_t errlen)
{
    kn_dev_t *dev;

    (void) o;
    dev = calloc(1, sizeof(*dev));

    if (dev == NULL) {
        snprintf(err, errlen, "device null: not enough memory");
    }

    return dev;
}

static void
null_close(kn_dev_t *dev)
{
    mem_t *mem, *next;

    if (dev == NULL) {
        return;
    }

    for (mem = dev->mem; mem != NULL; mem = next) {
        next = mem->next;
        munmap(mem, mem->size);
    }

    free(dev);
}

static void
null_info(const kn_dev_t *dev, kn_info_t *info)
{
    snprintf(info->name, sizeof(info->name), "null");
    info->host = 0;
    info->blind = 1;
    info->used = dev->used;
    info->library = 0;
    info->own = info->left = info->refused = 0;
    info->recorded = info->recorded_us = info->replayed = 0;
}

static kn_w_t *
null_weight_load(kn_dev_t *dev, const kn_source_t *s, char *err, size_t errlen)
{
    kn_w_t *w;

    w = (kn_w_t *) null_alloc(dev, sizeof(*w)).a;

    if (w == NULL) {
        snprintf(err, errlen, "weight \"%s\": not enough memory", s->name);
        return NULL;
    }

    w->n = s->n;
    w->k = s->k;
    return w;
}

static void
null_copy_in(kn_dev_t *dev, kn_ptr_t dst, const void *src, uint64_t n)
{
    (void) dev;
    memcpy((void *) dst.a, src, n);
}

static void
null_copy_out(kn_dev_t *dev, void *dst, kn_ptr_t src, uint64_t n)
{
    (void) dev;
    memcpy(dst, (const void *) src.a, n);
}

/* There is nothing in a block, so a copy has ended when it begins. */
static int
null_copied(const kn_dev_t *dev, uint64_t nth)
{
    (void) dev;
    (void) nth;
    return KN_COPY_DONE;
}

static int
null_reserve(kn_dev_t *dev, const kn_limits_t *l, char *err, size_t errlen)
{
    if (l->outs > dev->limits.outs) {
        dev->limits.outs = l->outs;
    }

    dev->outs = (kn_out_t *) null_alloc(
        dev, (uint64_t) dev->limits.outs * sizeof(*dev->outs))
                    .a;

    if (dev->outs == NULL) {
        snprintf(err, errlen, "device null: not enough memory");
        return -1;
    }

    return 0;
}

static void
null_plan(kn_dev_t *dev, const kn_step_t *step)
{
    uint32_t i;

    assert(step->outs_n <= dev->limits.outs);

    dev->outs_n = step->outs_n;

    if (step->outs_n > 0) {
        memcpy(dev->outs, step->outs, step->outs_n * sizeof(*dev->outs));
    }
    for (i = 0; i < step->outs_n; i++) {
        dev->outs[i].mask = NULL;
    }
}

static void
null_masks(kn_dev_t *dev, const kn_out_t *outs)
{
    uint32_t i;

    for (i = 0; i < dev->outs_n; i++) {
        dev->outs[i].mask = outs[i].mask;
    }
}

static void
null_submit(kn_dev_t *dev, void (*body)(void *arg), void *arg)
{
    (void) dev;
    body(arg);
}

static int
null_wait(kn_dev_t *dev)
{
    (void) dev;
    return 0;
}

/* The next word, or what comes behind it that may. */
static uint32_t
null_token(const kn_out_t *o, uint32_t vocab, uint32_t words)
{
    uint32_t i, t = BYTES_N + o->pos % words;

    for (i = 0; o->mask != NULL && i < vocab; i++, t = (t + 1) % vocab) {
        if (o->mask[t / 32] >> t % 32 & 1) {
            break;
        }
    }

    return t;
}

/* The words from the sampled one on stand as its alternatives. */
static void
null_sample(kn_dev_t *dev, const kn_sample_t *a)
{
    uint32_t i, j, words;
    const kn_out_t *o;
    sample_out_t *out;

    assert(a->vocab > BYTES_N + ENDS_N);
    words = a->vocab - BYTES_N - ENDS_N;

    for (i = 0; i < dev->outs_n; i++) {
        o = &dev->outs[i];
        out = (sample_out_t *) a->out.a + i;
        memset(out, 0, sizeof(*out));
        out->token =
            o->wanted > 0 ? o->wanted - 1 : null_token(o, a->vocab, words);
        out->logprob = -0.5f;
        out->tops_n = o->params->tops < words ? o->params->tops : words;

        if (out->tops_n > SAMPLE_TOPS_MAX) {
            out->tops_n = SAMPLE_TOPS_MAX;
        }

        for (j = 0; j < out->tops_n; j++) {
            out->top_ids[j] = BYTES_N + (o->pos + j) % words;
            out->top_logprobs[j] = -0.5f - (float) j;
        }
    }
}

/* The rows without arithmetic. X(op) */
#define IDLE(X)                                                                \
    X(embed)                                                                   \
    X(rmsnorm)                                                                 \
    X(add)                                                                     \
    X(matmul)                                                                  \
    X(gated)                                                                   \
    X(headmul)                                                                 \
    X(rope_angles)                                                             \
    X(rope_store)                                                              \
    X(attn)                                                                    \
    X(router)                                                                  \
    X(moe_ffn)                                                                 \
    X(comm_sum)                                                                \
    X(comm_gather)                                                             \
    X(gather)                                                                  \
    X(copy)

#define X(op)                                                                  \
    static void null_##op(kn_dev_t *dev, const kn_##op##_t *a)                 \
    {                                                                          \
        (void) dev;                                                            \
        (void) a;                                                              \
    }
IDLE(X)
#undef X

const kernels_t *
kernels_null(void)
{
    /* clang-format off */
    static const kernels_t table = {
        .open = null_open,
        .close = null_close,
        .info = null_info,
        .alloc = null_alloc,
        .alloc_host = null_alloc,
        .weight_load = null_weight_load,
        .copy_in = null_copy_in,
        .copy_out = null_copy_out,
        .reserve = null_reserve,
        .plan = null_plan,
        .begin = null_submit,
        .submit = null_submit,
        .masks = null_masks,
        .wait = null_wait,
        .copied = null_copied,
#define X(op, doc) .op = null_##op,
        KERNELS(X)
#undef X
    };
    /* clang-format on */

    return &table;
}
