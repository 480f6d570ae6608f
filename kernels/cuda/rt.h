// What the back end asks of CUDA's runtime, behind names of its own, so that
// the same host code runs on the emulator (tests/simt/rt_twin.cc).
//
// Errors after start are fatal: most of them stay, and a device that has one
// computes nothing right again.  One line to stderr says which call, and why,
// and the process ends (rt_judge.h).
#ifndef RT_H
#define RT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __CUDACC__
#include <cuda_runtime.h>
typedef cudaStream_t rt_stream_t;
typedef cudaEvent_t rt_event_t;
typedef cudaGraphExec_t rt_graph_t;
#else
typedef int rt_stream_t;
typedef struct rt_event_s *rt_event_t;
typedef struct rt_graph_s *rt_graph_t;
#endif

// Takes the first device for this thread: its name, and the bytes that it has.
// 0, or -1 with one sentence in err where there is no driver, no device, or
// none that the kernels were built for.
int rt_open(char *name, size_t n, char *err, size_t errlen);

// How many devices there are, of which the first was taken; from now on the
// thread uses another.
uint32_t rt_devices(void);
void rt_use(uint32_t device);

// The thread's device may read and write another's memory: 0, or -1.
int rt_peer(uint32_t device);

// look(arg) is called now and then while the thread waits for a stream; NULL:
// nothing is.
void rt_watch(void (*look)(void *arg), void *arg);

// Bytes of the device's memory that nobody has.
size_t rt_left(void);

// From now on a launch may begin while the one before it on its stream ends:
// all kernels wait for that themselves (gpu_begin).  0: none does, as on
// devices that cannot.
void rt_overlap(int yes);

rt_stream_t rt_stream_open(void);
void rt_stream_close(rt_stream_t s);

// Memory of the device, zeroed, to any op's alignment; NULL when there is none
// left.
void *rt_alloc(size_t n);
void rt_free(void *p);

// The same of the host's, where the device can copy to and from by itself.
void *rt_host_alloc(size_t n);
void rt_host_free(void *p);

// Have ended when they return.
void rt_copy_in(void *to, const void *from, size_t n);
void rt_copy_out(void *to, const void *from, size_t n);

// In the stream's order; what is of the host is of rt_host_alloc().
void rt_copy_start(void *to, const void *from, size_t n, rt_stream_t s);

// A place in a stream's order: has what was before it ended?
rt_event_t rt_event_open(void);
void rt_event_close(rt_event_t e);
void rt_event_put(rt_event_t e, rt_stream_t s);
int rt_event_ended(rt_event_t e);
void rt_event_wait(rt_event_t e);

// What s is given from now on begins when e has ended.
void rt_stream_after(rt_stream_t s, rt_event_t e);

// What was launched on it before has ended when it returns.
void rt_wait(rt_stream_t s);

// Returns when *word, of rt_host_alloc(), is value or has gone beyond it, which
// something that s was given writes with a release; what was written before
// that is seen then.  The host looks, first without a pause, and asks the
// device nothing but, now and then, whether it has failed.
void rt_wait_word(const uint32_t *word, uint32_t value, rt_stream_t s);

// Launches on s between the two are kept, and not done.  They must be nothing
// but launches: no memory is given or taken meanwhile, nothing is copied.  NULL
// when there is no memory for them.
void rt_record(rt_stream_t s);
rt_graph_t rt_recorded(rt_stream_t s);

// All of them once, with the arguments that they were recorded with.
void rt_replay(rt_graph_t g, rt_stream_t s);
void rt_graph_close(rt_graph_t g);

#endif
