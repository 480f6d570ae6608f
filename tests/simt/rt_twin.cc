// The runtime of a device that is the host: memory that ends where it ends, for
// the address sanitizer, and begins where a device's would.
//
// Launches that are recorded are kept and done when they are replayed; what a
// device refuses meanwhile ends the program here too.
//
// A copy that is only started is done as late as it may be: when somebody waits
// for its stream, launches on it, or looks at an event behind it.
//
// What a machine would be found to have, and what goes wrong, is words of the
// environment:
//
//      LLM_SIMT_DRIVER     CUDA's number of the driver, 0 for none; 13000
//      LLM_SIMT_DEVICES    how many there are; 1
//      LLM_SIMT_MAJOR      compute capability; 9
//      LLM_SIMT_MEMORY     bytes that the device has
//      LLM_SIMT_FAIL       the number of the step that fails, from 1
//
// The emulator's schedule is that of LLM_SIMT_SEED, on LLM_SIMT_THREADS
// threads.
#include "../../kernels/cuda/rt.h"
#include "../../kernels/cuda/rt_judge.h"

#include "simt.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <vector>

struct copy_t {
    void *to;
    const void *from;
    size_t n;
};

// What a stream has still to do, in order; the number of all that it was given.
struct queue_t {
    std::vector<copy_t> copies;
    size_t done;
};

struct rt_graph_s {
    std::vector<std::function<void()>> launches;
};

struct rt_event_s {
    rt_stream_t stream;
    size_t after; // copies of the stream
};

// Ranks are threads: what all have is locked, and a stream is one thread's.
static std::mutex lock;
static std::deque<queue_t> queues;
static size_t memory = static_cast<size_t>(1) << 40; // that nobody has
static std::map<void *, size_t> given;
static std::atomic<unsigned long> fails_in; // so many steps; 0: none does
static uint32_t devices = 1;
static thread_local rt_graph_t recording; // NULL: nothing is recorded
static thread_local rt_stream_t recorded;

static queue_t &
queue(rt_stream_t s)
{
    std::lock_guard<std::mutex> locked(lock);

    return queues[static_cast<size_t>(s)];
}

static void
drain(rt_stream_t s, size_t until)
{
    queue_t &q = queue(s);

    for (; q.done < until; q.done++) {
        const copy_t &c = q.copies[q.done];
        memcpy(c.to, c.from, c.n);
    }
}

static int
keep(int stream, const std::function<void()> &launch)
{
    if (recording == NULL || stream != recorded) {
        return 0;
    }
    recording->launches.push_back(launch);

    return 1;
}

// What is no launch.
static void
not_recorded(const char *what)
{
    if (recording != NULL) {
        fprintf(stderr, "rt: %s while launches are recorded\n", what);
        abort();
    }
}

static unsigned long
number(const char *name, unsigned long other)
{
    const char *v = getenv(name);

    return v != NULL ? strtoul(v, NULL, 10) : other;
}

int
rt_open(char *name, size_t n, char *err, size_t errlen)
{
    rt_found_t found = {};

    found.driver = static_cast<int>(number("LLM_SIMT_DRIVER", 13000));
    found.runtime = 13000;
    found.devices = static_cast<int>(number("LLM_SIMT_DEVICES", 1));
    found.major = static_cast<int>(number("LLM_SIMT_MAJOR", 9));
    snprintf(found.name, sizeof(found.name), "emulated");
    if (rt_judge(&found, err, errlen) != 0) {
        return -1;
    }

    std::lock_guard<std::mutex> locked(lock);
    memory = number("LLM_SIMT_MEMORY", static_cast<size_t>(1) << 40);
    devices = static_cast<uint32_t>(found.devices);
    fails_in = number("LLM_SIMT_FAIL", 0);
    if (simt_stream == NULL) { // others may launch by now
        simt_stream = rt_wait;
        simt_keep = keep;
    }
    simt_set(number("LLM_SIMT_SEED", 0),
        static_cast<unsigned>(number("LLM_SIMT_THREADS", 1)));
    snprintf(name, n, "cuda, emulated");

    return 0;
}

uint32_t
rt_devices(void)
{
    std::lock_guard<std::mutex> locked(lock);

    return devices;
}

void
rt_use(uint32_t device)
{
    assert(device < rt_devices());
}

int
rt_peer(uint32_t device)
{
    return device < rt_devices() ? 0 : -1;
}

void
rt_watch(void (*look)(void *arg), void *arg)
{
    simt_watch(look, arg);
}

size_t
rt_left(void)
{
    std::lock_guard<std::mutex> locked(lock);

    return memory;
}

// Kernels follow one another, but must wait as if they did not.
void
rt_overlap(int yes)
{
    std::lock_guard<std::mutex> locked(lock);

    (void) yes;
    if (!simt_must_wait) {
        simt_must_wait = 1;
    }
}

rt_stream_t
rt_stream_open(void)
{
    std::lock_guard<std::mutex> locked(lock);

    queues.push_back({{}, 0});

    return static_cast<rt_stream_t>(queues.size() - 1);
}

void
rt_stream_close(rt_stream_t s)
{
    queue_t &q = queue(s);

    drain(s, q.copies.size());
    q.copies.clear();
    q.done = 0;
}

void *
rt_alloc(size_t n)
{
    void *p;

    std::lock_guard<std::mutex> locked(lock);

    not_recorded("memory is given");
    if (n > memory || posix_memalign(&p, 256, n > 0 ? n : 1) != 0) {
        return NULL;
    }
    memset(p, 0, n);
    memory -= n;
    given[p] = n;

    return p;
}

void
rt_free(void *p)
{
    std::lock_guard<std::mutex> locked(lock);

    not_recorded("memory is taken");
    memory += given[p];
    given.erase(p);
    free(p);
}

void *
rt_host_alloc(size_t n)
{
    void *p;

    not_recorded("memory is given");
    if (posix_memalign(&p, 256, n > 0 ? n : 1) != 0) {
        return NULL;
    }
    memset(p, 0, n);

    return p;
}

void
rt_host_free(void *p)
{
    not_recorded("memory is taken");
    free(p);
}

void
rt_copy_in(void *to, const void *from, size_t n)
{
    not_recorded("memory is copied");
    memcpy(to, from, n);
}

void
rt_copy_out(void *to, const void *from, size_t n)
{
    memcpy(to, from, n);
}

void
rt_copy_start(void *to, const void *from, size_t n, rt_stream_t s)
{
    not_recorded("memory is copied");
    queue(s).copies.push_back({to, from, n});
}

rt_event_t
rt_event_open(void)
{
    return new rt_event_s{0, 0};
}

void
rt_event_close(rt_event_t e)
{
    delete e;
}

void
rt_event_put(rt_event_t e, rt_stream_t s)
{
    e->stream = s;
    e->after = queue(s).copies.size();
}

// The first look finds it running, as a device's may.
int
rt_event_ended(rt_event_t e)
{
    int ended = queue(e->stream).done >= e->after;

    drain(e->stream, e->after);

    return ended;
}

void
rt_event_wait(rt_event_t e)
{
    drain(e->stream, e->after);
}

void
rt_stream_after(rt_stream_t s, rt_event_t e)
{
    (void) s;
    drain(e->stream, e->after);
}

void
rt_wait(rt_stream_t s)
{
    drain(s, queue(s).copies.size());
}

void
rt_wait_word(const uint32_t *word, uint32_t value, rt_stream_t s)
{
    if (fails_in > 0 && --fails_in == 0) {
        rt_die("computing", "an illegal memory access was encountered");
    }
    rt_wait(s);
    if (static_cast<int32_t>(*word - value) < 0) {
        fprintf(stderr, "rt: a step ended without its word\n");
        abort();
    }
}

void
rt_record(rt_stream_t s)
{
    not_recorded("a recording begins");
    recording = new rt_graph_s();
    recorded = s;
}

rt_graph_t
rt_recorded(rt_stream_t s)
{
    rt_graph_t g = recording;

    assert(g != NULL && s == recorded);
    recording = NULL;

    return g;
}

void
rt_replay(rt_graph_t g, rt_stream_t s)
{
    rt_wait(s);
    for (const std::function<void()> &launch : g->launches) {
        launch();
    }
}

void
rt_graph_close(rt_graph_t g)
{
    delete g;
}
