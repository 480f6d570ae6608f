// From a step's ops to its end: begin(), submit() and wait().
//
// DESIGN.  The last launch of a step writes its number to a word of the host's,
// after which everything that the step wrote is seen there too: results lie in
// the host's memory, where `sample` puts them, and the host looks at the word
// instead of asking the device.  One launch more costs the device a
// microsecond or two, and holds for whatever ops a step has.
#include "device.h"
#include "ptx.h"

__global__ void
submit_end(const gpu_step_t *step, uint32_t *ended)
{
    ptx_store_release(ended, step->number);
}

void
cuda_begin(kn_dev_t *dev, void (*body)(void *arg), void *arg)
{
    assert(dev->given != dev->planned);
    body(arg);
}

void
cuda_submit(kn_dev_t *dev, void (*body)(void *arg), void *arg)
{
    assert(dev->given != dev->planned);
    dev->given = dev->planned;

    body(arg);
    GPU_LAUNCH(submit_end, dim3(1), dim3(1), 0, dev->stream, gpu_step(dev),
        dev->ended);
}

int
cuda_wait(kn_dev_t *dev)
{
    rt_wait_word(dev->ended, dev->given, dev->stream);
    dev->waited = dev->given;

    return 0;
}
