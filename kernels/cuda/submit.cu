// From a step's ops to its end: begin(), submit() and wait().
//
// DESIGN.  The last launch of a step writes its number to a word of the host's,
// after which everything that the step wrote is seen there too: results lie in
// the host's memory, where `sample` puts them, and the host looks at the word
// instead of asking the device.  One launch more costs the device a
// microsecond or two, and holds for whatever ops a step has.
//
// RECORDING.  A step of decoding, rows of one token each and no more outputs,
// is some hundred launches of microseconds.  Those of each of its two parts are
// recorded and replayed as one, by buckets of rows: all grids are those of the
// bucket's rows, and blocks beyond the step's own counts, which kernels read in
// the step block, end at once.  No argument holds more of a step than that, so
// a recorded step has the bits of one that is not, and what decides over a
// recording is in its key:
//
//      list      the ops and their args
//      part      those of begin(), or of submit()
//      bucket    rows; outputs are as many at most
//
// The first step of a bucket runs as it is: kernels are loaded by it, tables
// and attention's shapes made, none of which may be recorded.  The second is
// recorded, which takes some milliseconds, once; info tells how many.  All
// others are replayed.  Memory that changes its address takes all recordings
// with it.
#include "device.h"
#include "ptx.h"

#include <string.h>
#include <time.h>

static const uint32_t buckets[GPU_BUCKETS] = {
    1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256};

__global__ void
submit_end(const gpu_step_t *step, uint32_t *ended)
{
    gpu_begin();
    ptx_store_release(ended, step->number);
}

// One of the parts of a step, which the last one ends.
static void
launch_all(kn_dev_t *dev, uint32_t part, void (*body)(void *arg), void *arg)
{
    body(arg);
    if (part == GPU_LAST) {
        GPU_LAUNCH(submit_end, dim3(1), dim3(1), 0, dev->stream, gpu_step(dev),
            dev->ended);
    }
}

static void
list_end(gpu_list_t *l)
{
    uint32_t i, part;

    for (part = 0; part < GPU_PARTS; part++) {
        for (i = 0; i < GPU_BUCKETS; i++) {
            if (l->graphs[part][i] != NULL) {
                rt_graph_close(l->graphs[part][i]);
            }
        }
    }
    memset(l, 0, sizeof(*l));
}

void
gpu_lists_free(kn_dev_t *dev)
{
    gpu_list_t *l;

    rt_wait(dev->stream); // they may run
    for (l = dev->lists; l < dev->lists + GPU_LISTS; l++) {
        list_end(l);
    }
}

// The list of that number; one that is new takes the place of the oldest.
static gpu_list_t *
list_of(kn_dev_t *dev, const void *list)
{
    gpu_list_t *l;

    for (l = dev->lists; l < dev->lists + GPU_LISTS; l++) {
        if (l->list == list) {
            return l;
        }
    }

    l = &dev->lists[dev->lists_n++ % GPU_LISTS];
    rt_wait(dev->stream);
    list_end(l);
    l->list = list;

    return l;
}

static uint64_t
now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);

    return static_cast<uint64_t>(t.tv_sec) * 1000000u
           + static_cast<uint64_t>(t.tv_nsec) / 1000;
}

static uint32_t
less(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

// The launches of any step of so many rows at most; NULL, for good, if there is
// no memory for them.
static rt_graph_t
record(kn_dev_t *dev, uint32_t part, uint32_t rows, void (*body)(void *arg),
    void *arg)
{
    const uint32_t tokens_n = dev->counts[KN_TOKENS];
    const uint32_t outs_n = dev->counts[KN_OUTS];
    uint64_t begin = now_us();
    rt_graph_t g;

    dev->counts[KN_TOKENS] = rows;
    dev->counts[KN_OUTS] = less(rows, dev->limits.outs);
    attn_fast_recorded(dev->attn, rows);
    rt_record(dev->stream);
    launch_all(dev, part, body, arg);
    g = rt_recorded(dev->stream);
    attn_fast_recorded(dev->attn, 0);
    dev->counts[KN_TOKENS] = tokens_n;
    dev->counts[KN_OUTS] = outs_n;

    dev->recorded += g != NULL;
    dev->recorded_us += now_us() - begin;
    dev->eager = g == NULL;
    if (g == NULL && dev->comm != NULL) { // others have it, and do not wait
        comm_t *c = dev->comm;

        c->ops->abort(c, "device cuda: not enough memory for a recording");
    }
    gpu_meet_hosts(dev);

    return g;
}

// Launches a part, or what is recorded of it.
static void
give(kn_dev_t *dev, uint32_t part, void (*body)(void *arg), void *arg)
{
    uint32_t b, rows;
    gpu_list_t *l;

    for (b = 0; b < GPU_BUCKETS && buckets[b] < dev->counts[KN_TOKENS]; b++) {
    }
    if (dev->eager || dev->list == NULL || b == GPU_BUCKETS) {
        launch_all(dev, part, body, arg);
        return;
    }

    l = list_of(dev, dev->list);
    rows = less(buckets[b], less(dev->limits.rows, dev->limits.tokens));
    if (l->graphs[part][b] == NULL && l->seen[part][b]) {
        l->graphs[part][b] = record(dev, part, rows, body, arg);
    }
    l->seen[part][b] = 1;

    if (l->graphs[part][b] == NULL) {
        launch_all(dev, part, body, arg);
        return;
    }

    assert(attn_fast_fits(dev->attn, rows));
    rt_replay(l->graphs[part][b], dev->stream);
    dev->replayed += part == GPU_LAST;
}

void
cuda_begin(kn_dev_t *dev, void (*body)(void *arg), void *arg)
{
    assert(dev->given != dev->planned);
    give(dev, GPU_FIRST, body, arg);
}

void
cuda_submit(kn_dev_t *dev, void (*body)(void *arg), void *arg)
{
    assert(dev->given != dev->planned);
    dev->given = dev->planned;
    give(dev, GPU_LAST, body, arg);
}

int
cuda_wait(kn_dev_t *dev)
{
    rt_wait_word(dev->ended, dev->given, dev->stream);
    dev->waited = dev->given;

    return gpu_meet_ended(dev);
}
