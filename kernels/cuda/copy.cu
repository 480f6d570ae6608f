// Blocks from arena to arena, beside the steps.
//
// DESIGN.  Copies have a stream of their own, which begins each call's after
// the steps that were given before it.  A call ends with an event; when there
// are as many on their way as events, the oldest is waited for.  The stream
// keeps the calls' order, so that an event that has ended says so of all
// before.
#include "device.h"

void
cuda_copy(kn_dev_t *dev, const kn_copy_t *a)
{
    rt_event_t e = dev->copied[dev->copies % GPU_COPIES];
    unsigned char *dst = gpu_ptr<unsigned char>(a->dst);
    const unsigned char *src = gpu_ptr<const unsigned char>(a->src);
    uint32_t i, run;

    if (dev->copies >= GPU_COPIES) {
        rt_event_wait(e);
    }

    rt_event_put(dev->ready, dev->stream);
    rt_stream_after(dev->copier, dev->ready);

    for (i = 0; i < a->n; i += run) {
        for (run = 1; i + run < a->n && a->from[i + run] == a->from[i] + run
                      && a->to[i + run] == a->to[i] + run;
             run++) {
        }
        rt_copy_start(dst + a->to[i] * a->stride, src + a->from[i] * a->stride,
            run * a->stride, dev->copier);
    }

    rt_event_put(e, dev->copier);
    dev->copies++;
}

int
cuda_copied(const kn_dev_t *dev, uint64_t nth)
{
    assert(nth < dev->copies);

    if (dev->copies - nth > GPU_COPIES) {
        return KN_COPY_DONE; // it has been waited for
    }

    return rt_event_ended(dev->copied[nth % GPU_COPIES]) ? KN_COPY_DONE
                                                         : KN_COPY_RUNS;
}
