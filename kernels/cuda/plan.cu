// The step block: what plan() makes of the host's, in one piece of memory.
//
//      gpu_step_t | tokens | pos | row | rows | blocks | outs | attention's
//      units | masks, known tokens, biases
//
// Each part begins at a multiple of 16 bytes.  Its pointers are those of the
// device's copy, and kernels find all parts by them: nothing that is recorded
// holds another address than the first.
//
// Of the last two parts, which have no limits, the block has room for a mask of
// each output and a megabyte.  What is more goes into a piece of its own, and a
// copy of its own, that grows when it must: known tokens of many sequences with
// penalties.
//
// STAGES.  A block is filled in pinned memory and copied from there by the
// device when it comes to it.  There are two: one step may be planned while the
// one before it still waits for its copy.  The step before that has ended.
#include "device.h"

#include <string.h>

static uint64_t
padded(uint64_t bytes)
{
    return (bytes + 15) / 16 * 16;
}

// Of the block, for what has no limits.
#define ROOM ((uint64_t) 1 << 20)

uint64_t
gpu_block_size(const kn_limits_t *l)
{
    return padded(sizeof(gpu_step_t)) + ROOM
           + 3 * padded(static_cast<uint64_t>(l->tokens) * sizeof(uint32_t))
           + padded(static_cast<uint64_t>(l->rows) * sizeof(kn_row_t))
           + padded(static_cast<uint64_t>(l->blocks) * sizeof(uint32_t))
           + padded(static_cast<uint64_t>(l->outs) * sizeof(gpu_out_t));
}

// A piece of memory that is filled from its beginning.
typedef struct {
    unsigned char *host, *device;
    uint64_t at, size;
} fill_t;

// Room for n elements; *device is where the device will have them.
template <class T>
static T *
take(fill_t *f, uint64_t n, const T **device)
{
    T *p = reinterpret_cast<T *>(f->host + f->at);

    *device = reinterpret_cast<const T *>(f->device + f->at);
    f->at += padded(n * sizeof(T));
    assert(f->at <= f->size);

    return p;
}

template <class T>
static const T *
fill(fill_t *f, const T *from, uint64_t n)
{
    const T *device;
    T *to = take(f, n, &device);

    if (n > 0) {
        memcpy(to, from, n * sizeof(T));
    }

    return device;
}

static int
penalized(const sample_params_t *p)
{
    return p->repetition_penalty != 1.0f || p->presence_penalty != 0.0f
           || p->frequency_penalty != 0.0f;
}

// Of the tokens that o knows, those that will be looked at.
static uint32_t
looked_at(const kn_out_t *o)
{
    return penalized(o->params) ? o->known_n : 0;
}

// The piece beside the block, with room for n bytes.
static fill_t
extra_room(kn_dev_t *dev, uint64_t n)
{
    int i;
    fill_t f;

    if (n > dev->extra_size) {
        rt_wait(dev->stream);
        gpu_meet_hosts(dev);
        gpu_mem_free(dev, dev->extra);
        dev->extra_size = 2 * n;
        dev->extra =
            static_cast<unsigned char *>(gpu_mem(dev, 2 * n, GPU_DEVICE));
        for (i = 0; i < 2; i++) {
            gpu_mem_free(dev, dev->extra_stage[i]);
            dev->extra_stage[i] =
                static_cast<unsigned char *>(gpu_mem(dev, 2 * n, GPU_PINNED));
        }
        assert(dev->extra != NULL && dev->extra_stage[0] != NULL
               && dev->extra_stage[1] != NULL);
        gpu_meet_hosts(dev);
    }

    f = {dev->extra_stage[dev->planned % 2], dev->extra, 0, dev->extra_size};

    return f;
}

// How many bytes the outputs' tokens and biases take.
static uint64_t
outs_bytes(const kn_step_t *step)
{
    uint64_t n = 0;
    uint32_t i;
    const kn_out_t *o;

    for (i = 0; i < step->outs_n; i++) {
        o = &step->outs[i];
        n += padded(static_cast<uint64_t>(looked_at(o)) * sizeof(uint32_t));
        n += padded(
            static_cast<uint64_t>(o->params->bias_n) * sizeof(sample_bias_t));
    }

    return n;
}

static void
fill_outs(
    const kn_dev_t *dev, const kn_step_t *step, gpu_out_t *outs, fill_t *f)
{
    uint32_t i;
    const kn_out_t *o;

    for (i = 0; i < step->outs_n; i++) {
        o = &step->outs[i];
        assert(o->tok < step->tokens_n && o->prompt_n <= o->known_n);
        outs[i].tok = o->tok;
        outs[i].pos = o->pos;
        outs[i].choice = o->choice;
        outs[i].wanted = o->wanted;
        outs[i].known_n = looked_at(o);
        outs[i].prompt_n = o->prompt_n;
        outs[i].known = fill(f, o->known, looked_at(o));
        outs[i].mask = dev->masks + i;
        outs[i].params = *o->params;
        outs[i].params.bias = fill(f, o->params->bias, o->params->bias_n);
    }
}

// Where each token stands; the longest row.
static uint32_t
fill_places(const kn_step_t *step, uint32_t *pos, uint32_t *row)
{
    uint32_t i, j, g, t = 0, longest = 0;
    const kn_row_t *r;

    for (i = 0; i < step->rows_n; i++) {
        r = &step->rows[i];
        assert(r->tok == t && r->q_len <= step->tokens_n - t);

        for (g = 0; g < KN_GROUPS; g++) {
            assert(r->blocks[g].at <= step->blocks_n
                   && r->blocks[g].n <= step->blocks_n - r->blocks[g].at);
        }

        longest = r->q_len > longest ? r->q_len : longest;
        for (j = 0; j < r->q_len; j++, t++) {
            pos[t] = r->q_start + j;
            row[t] = i;
        }
    }

    assert(t == step->tokens_n);

    return longest;
}

void
cuda_plan(kn_dev_t *dev, const kn_step_t *step)
{
    fill_t f, more, *rest;
    gpu_step_t *head;
    const gpu_step_t *at;
    const unsigned char *units_at;
    unsigned char *units;
    gpu_out_t *outs;
    uint32_t *pos, *row;
    uint64_t units_n;
    int ones;

    assert(dev->planned - dev->waited < 2); // its stage has been copied
    dev->planned++;
    f = {dev->stage[dev->planned % 2], dev->block, 0, dev->block_size};
    more = extra_room(dev, 0);

    assert(step->tokens_n <= dev->limits.tokens);
    assert(step->rows_n <= dev->limits.rows);
    assert(step->outs_n <= dev->limits.outs);
    assert(step->blocks_n <= dev->limits.blocks);

    head = take(&f, 1, &at);
    head->tokens_n = step->tokens_n;
    head->rows_n = step->rows_n;
    head->outs_n = step->outs_n;
    head->number = dev->planned;
    head->tokens = fill(&f, step->tokens, step->tokens_n);
    pos = take(&f, step->tokens_n, &head->pos);
    row = take(&f, step->tokens_n, &head->row);
    ones = fill_places(step, pos, row) == 1 && step->rows_n == step->tokens_n;
    head->rows = fill(&f, step->rows, step->rows_n);
    head->blocks = fill(&f, step->blocks, step->blocks_n);
    outs = take(&f, step->outs_n, &head->outs);

    units_n = attn_fast_plan(dev->attn, step);
    if (units_n + outs_bytes(step) <= f.size - f.at) {
        rest = &f;
    } else {
        more = extra_room(dev, units_n + outs_bytes(step) + 16);
        rest = &more;
    }
    units = take(rest, units_n, &units_at);
    attn_fast_put(dev->attn, units, units_at, head->lists);
    fill_outs(dev, step, outs, rest);

    dev->counts[KN_TOKENS] = step->tokens_n;
    dev->counts[KN_OUTS] = step->outs_n;
    dev->list = ones && step->outs_n <= step->tokens_n ? step->list : NULL;

    gpu_masks_none(dev);
    if (more.at > 0) {
        rt_copy_start(more.device, more.host, more.at, dev->stream);
    }
    rt_copy_start(f.device, f.host, f.at, dev->stream);
}
