// Which tokens a step may sample.
//
//      dev->masks   [outs] address, or NULL | mask | mask | ...
//
// DESIGN.  Masks come when the step's pass has been given to the device
// already, so they are no part of the step block.  They lie at an address of
// their own that stays the same, with a pointer before them for each output: a
// step without any takes nothing along, and one behind a step that had some
// only the pointers.
//
// Thread: the device's.
#include "device.h"

#include <string.h>

static size_t
mask_words(const kn_dev_t *dev)
{
    return (dev->limits.vocab + 31) / 32;
}

// Where mask n is, behind the pointers at masks.
static uint32_t *
mask_at(const kn_dev_t *dev, const uint32_t **masks, uint32_t n)
{
    return reinterpret_cast<uint32_t *>(masks + dev->limits.outs)
           + n * mask_words(dev);
}

static size_t
bytes_of(const kn_dev_t *dev, uint32_t n)
{
    return dev->limits.outs * sizeof(uint32_t *)
           + n * mask_words(dev) * sizeof(uint32_t);
}

int
gpu_masks_room(kn_dev_t *dev)
{
    size_t bytes = bytes_of(dev, dev->limits.outs);

    gpu_mem_free(dev, dev->masks);
    gpu_mem_free(dev, dev->masks_stage);
    dev->masks =
        static_cast<const uint32_t **>(gpu_mem(dev, bytes, GPU_DEVICE));
    dev->masks_stage =
        static_cast<const uint32_t **>(gpu_mem(dev, bytes, GPU_PINNED));
    dev->masked = 0;

    return dev->masks != NULL && dev->masks_stage != NULL ? 0 : -1;
}

void
gpu_masks_none(kn_dev_t *dev)
{
    if (dev->masked) {
        memset(dev->masks_stage, 0, bytes_of(dev, 0));
        rt_copy_start(
            dev->masks, dev->masks_stage, bytes_of(dev, 0), dev->stream);
        dev->masked = 0;
    }
}

void
cuda_masks(kn_dev_t *dev, const kn_out_t *outs)
{
    uint32_t i, n = 0;

    assert(dev->counts[KN_OUTS] <= dev->limits.outs);
    memset(dev->masks_stage, 0, bytes_of(dev, 0));

    for (i = 0; i < dev->counts[KN_OUTS]; i++) {
        if (outs[i].mask != NULL) {
            memcpy(mask_at(dev, dev->masks_stage, n), outs[i].mask,
                mask_words(dev) * sizeof(uint32_t));
            dev->masks_stage[i] = mask_at(dev, dev->masks, n++);
        }
    }

    rt_copy_start(dev->masks, dev->masks_stage, bytes_of(dev, n), dev->stream);
    dev->masked = 1;
}
