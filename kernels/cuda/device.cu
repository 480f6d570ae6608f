// The back end's table, and its device: opening, memory, and the parts of a
// step.
//
// DESIGN.  One device, one stream of steps, and one of copies between arenas
// that runs beside it.  A step is one upload, of the step block (plan.cu), and
// the launches of the ops that body calls; masks follow (mask.cu); wait() is
// where the host meets them.
//
// All memory is allocated at start, and freed by close: that the steps' scratch
// grows where weights are loaded after reserve() is part of the start.
//
// Thread: the one that opened it.
#include "device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct gpu_mem_s {
    gpu_mem_t *next;
    void *p;
    uint64_t bytes;
    int whose;
};

void *
gpu_mem(kn_dev_t *dev, uint64_t bytes, int whose)
{
    gpu_mem_t *m;

    rt_use(dev->device); // a thread's first call
    m = static_cast<gpu_mem_t *>(calloc(1, sizeof(*m)));
    if (m == NULL) {
        return NULL;
    }

    m->p = whose == GPU_PINNED  ? rt_host_alloc(bytes)
           : whose == GPU_PLAIN ? calloc(1, bytes)
                                : rt_alloc(bytes);
    if (m->p == NULL) {
        dev->refused = bytes;
        free(m);
        return NULL;
    }

    m->next = dev->mem;
    m->bytes = bytes;
    m->whose = whose;
    dev->mem = m;
    dev->used += whose == GPU_DEVICE ? bytes : 0;

    return m->p;
}

static void
mem_end(gpu_mem_t *m)
{
    if (m->whose == GPU_PINNED) {
        rt_host_free(m->p);
    } else if (m->whose == GPU_PLAIN) {
        free(m->p);
    } else {
        rt_free(m->p);
    }
    free(m);
}

void
gpu_mem_free(kn_dev_t *dev, void *p)
{
    gpu_mem_t **at = &dev->mem, *m;

    if (p == NULL) {
        return;
    }

    while ((*at)->p != p) {
        at = &(*at)->next;
    }

    m = *at;
    *at = m->next;
    dev->used -= m->whose == GPU_DEVICE ? m->bytes : 0;
    mem_end(m);
}

static void
dev_close(kn_dev_t *dev)
{
    gpu_mem_t *m;
    uint32_t i;

    if (dev == NULL) {
        return;
    }

    rt_use(dev->device);
    gpu_meet_close(dev);
    gpu_lists_free(dev);
    rt_wait(dev->stream);
    rt_wait(dev->copier);
    for (i = 0; i < GPU_COPIES; i++) {
        rt_event_close(dev->copied[i]);
    }
    rt_event_close(dev->ready);
    rt_stream_close(dev->copier);
    rt_stream_close(dev->stream);
    gpu_experts_free(dev);
    attn_fast_close(dev->attn);
    lt_close(dev->lt);

    while (dev->mem != NULL) {
        m = dev->mem;
        dev->mem = m->next;
        mem_end(m);
    }
    free(dev);
}

static kn_dev_t *
dev_open(const kn_open_t *o, char *err, size_t errlen)
{
    kn_dev_t *dev;
    uint32_t i;

    if (o->comm != NULL && o->comm->ranks > GPU_RANKS) {
        snprintf(err, errlen,
            "device cuda: expected a group of %u ranks at most, found %u",
            GPU_RANKS, o->comm->ranks);
        return NULL;
    }

    dev = static_cast<kn_dev_t *>(calloc(1, sizeof(*dev)));
    if (dev == NULL) {
        snprintf(err, errlen, "device cuda: not enough memory");
        return NULL;
    }

    if (rt_open(dev->name, sizeof(dev->name), err, errlen) != 0) {
        free(dev);
        return NULL;
    }

    dev->comm = o->comm;
    dev->device = (o->comm != NULL ? o->comm->rank : 0) % rt_devices();
    rt_use(dev->device);
    rt_overlap(o->overlap != 0);
    dev->eager = o->eager != 0;
    dev->stream = rt_stream_open();
    dev->copier = rt_stream_open();
    dev->ready = rt_event_open();
    for (i = 0; i < GPU_COPIES; i++) {
        dev->copied[i] = rt_event_open();
    }

    dev->ended =
        static_cast<uint32_t *>(gpu_mem(dev, sizeof(uint32_t), GPU_PINNED));
    if (dev->ended == NULL) {
        dev_close(dev);
        snprintf(err, errlen, "device cuda: not enough memory");
        return NULL;
    }

    if (o->library != 0) {
        dev->lt = lt_open(err, errlen);
        if (dev->lt == NULL) {
            dev_close(dev);
            return NULL;
        }
    }

    return dev;
}

static void
dev_info(const kn_dev_t *dev, kn_info_t *info)
{
    rt_use(dev->device);
    snprintf(info->name, sizeof(info->name), "%s", dev->name);
    info->host = 0;
    info->blind = 0;
    info->used = dev->used + attn_fast_bytes(dev->attn);
    info->own = dev->own + attn_fast_bytes(dev->attn);
    info->left = rt_left();
    info->refused = dev->refused;
    info->recorded = dev->recorded;
    info->recorded_us = dev->recorded_us;
    info->replayed = dev->replayed;
    info->library = dev->library;
}

static kn_ptr_t
dev_alloc(kn_dev_t *dev, uint64_t bytes)
{
    kn_ptr_t p;

    p.a = reinterpret_cast<uintptr_t>(gpu_mem(dev, bytes, GPU_DEVICE));

    return p;
}

static kn_ptr_t
dev_alloc_host(kn_dev_t *dev, uint64_t bytes)
{
    kn_ptr_t p;

    p.a = reinterpret_cast<uintptr_t>(gpu_mem(dev, bytes, GPU_PINNED));

    return p;
}

static void
dev_copy_in(kn_dev_t *dev, kn_ptr_t dst, const void *src, uint64_t n)
{
    (void) dev;
    rt_copy_in(gpu_ptr<void>(dst), src, n);
}

static void
dev_copy_out(kn_dev_t *dev, void *dst, kn_ptr_t src, uint64_t n)
{
    (void) dev;
    rt_copy_out(dst, gpu_ptr<const void>(src), n);
}

static void
grow(uint32_t *have, uint32_t want)
{
    *have = *have > want ? *have : want;
}

// *p anew, of so many elements, of the device's own.
template <class T>
static int
renew(kn_dev_t *dev, T **p, uint64_t n)
{
    uint64_t others = dev->used - dev->own;

    gpu_mem_free(dev, *p);
    dev->own = dev->used - others;
    *p = static_cast<T *>(gpu_mem(dev, n * sizeof(T), GPU_DEVICE));
    dev->own = dev->used - others;

    return *p != NULL ? 0 : -1;
}

// Elements of activations that an op turns at a time, of its rows: all of a
// step up to SCRATCH_ROWS tokens, else as many as there is room for, and never
// less than a tile of tokens.
#define SCRATCH_ROWS 1024u
#define SCRATCH_TILE 32u

static uint64_t
scratch_room(const kn_dev_t *dev)
{
    const kn_limits_t *l = &dev->limits;
    uint64_t rows, room, other;

    rows = l->tokens < SCRATCH_ROWS ? l->tokens : SCRATCH_ROWS;
    rows = rows > SCRATCH_TILE ? rows : SCRATCH_TILE;
    room = rows * dev->k_max;
    other = rows * l->used * gpu_whole(l->expert_k);
    room = room > other ? room : other;
    other =
        static_cast<uint64_t>(SCRATCH_TILE) * l->heads * gpu_whole(l->head_dim);

    return room > other ? room : other;
}

int
gpu_scratch(kn_dev_t *dev)
{
    gpu_scratch_t *s = &dev->scratch;
    uint64_t room = scratch_room(dev);
    int i, r = 0;

    if (room <= s->room) {
        return 0;
    }

    gpu_lists_free(dev);
    for (i = 0; i < 2; i++) {
        r |= renew(dev, &s->high[i], room) | renew(dev, &s->low[i], room);
    }
    r |= renew(dev, &s->back, room / GPU_CHUNK + 1);
    if (dev->limits.used > 0 || dev->lt != NULL) {
        r |= renew(dev, &s->wide, room);
    }
    if (dev->limits.used > 0) {
        r |= renew(dev, &s->pairs, room / GPU_CHUNK + 1);
        r |= renew(dev, &s->begins, KN_EXPERTS_MAX + 1);
    }
    s->room = r == 0 ? room : 0;

    return r;
}

static int
dev_reserve(kn_dev_t *dev, const kn_limits_t *l, char *err, size_t errlen)
{
    kn_limits_t *have = &dev->limits;
    uint64_t sampled;
    int i, r = 0;

    gpu_lists_free(dev);
    grow(&have->tokens, l->tokens);
    grow(&have->rows, l->rows);
    grow(&have->outs, l->outs);
    grow(&have->blocks, l->blocks);
    grow(&have->context, l->context);
    grow(&have->heads, l->heads);
    grow(&have->head_dim, l->head_dim);
    grow(&have->vocab, l->vocab);
    grow(&have->used, l->used);
    grow(&have->expert_k, l->expert_k);

    sampled = have->outs < GPU_SAMPLED ? have->outs : GPU_SAMPLED;
    r |= renew(dev, &dev->logits, sampled * have->vocab);
    r |= renew(dev, &dev->seen, sampled * have->vocab);

    dev->block_size = gpu_block_size(have);
    r |= renew(dev, &dev->block, dev->block_size);
    for (i = 0; i < 2; i++) {
        gpu_mem_free(dev, dev->stage[i]);
        dev->stage[i] = static_cast<unsigned char *>(
            gpu_mem(dev, dev->block_size, GPU_PINNED));
        r |= dev->stage[i] == NULL;
    }
    r |= gpu_masks_room(dev);
    dev->scratch.room = 0; // experts may be new
    r |= gpu_scratch(dev);

    attn_fast_close(dev->attn);
    dev->attn = attn_fast_open(have);
    if (r == 0 && dev->attn == NULL) {
        dev->refused = 1; // who knows of how much
    }

    if (r != 0 || dev->attn == NULL) {
        snprintf(err, errlen,
            "device cuda: not enough memory for a step of %u tokens",
            have->tokens);
        return -1;
    }

    return gpu_meet_open(dev, err, errlen);
}

// The plug-in's one export.
extern "C" __attribute__((visibility("default"))) const kernels_t *
llm_cuda_kernels(void)
{
#define X(op, doc) cuda_##op,
    static const kernels_t table = {dev_open, dev_close, dev_info, dev_alloc,
        dev_alloc_host, cuda_weight_load, dev_copy_in, dev_copy_out,
        dev_reserve, cuda_plan, cuda_begin, cuda_masks, cuda_submit, cuda_wait,
        cuda_copied, KERNELS(X)};
#undef X

    return &table;
}
