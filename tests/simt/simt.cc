// Fibers, and who goes next; simt.h says what for.
//
// DESIGN.  One OS thread has a team of fibers, as many as the largest block so
// far, with stacks that stay: teams are kept from launch to launch.  The
// scheduler is the OS thread's own stack: it goes over the warps, lets each
// lane that can run go on until it waits, and then sees whether a meeting is
// complete.  A round that lets nobody go on is a deadlock.
//
// Switching is a dozen instructions of x86-64: what the calling convention lets
// a function destroy needs no saving.  The sanitizers are told of each switch.
//
// This file is compiled without the thread sanitizer: what it does is below the
// program that is tested, and the orders that count are announced by hand.
#include "simt.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#ifdef SIMT_TSAN
#include <sanitizer/tsan_interface.h>
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#define STACK_SIZE ((size_t) 256 * 1024)

enum { RUNS, AT_BARRIER, AT_MEETING, PAUSED, ENDED };

struct fiber_t {
    void *sp;
    char *stack;
    unsigned index; // of the thread in its block
    int state;
    simt_at_t at; // where it waits
    unsigned mask;
    const void *given;
    std::vector<simt_copy_t> copies; // in order, from copied on
    size_t copied;
    unsigned group; // that copies go to
    int waited;     // for the kernel before
    void *tsan;     // what the sanitizers know of it
    void *fake;
};

// An OS thread and the block that it runs.
struct team_t {
    std::vector<fiber_t> fibers;
    std::vector<unsigned> warps; // in the order of this round
    fiber_t *now;
    unsigned n;
    uint3 block;
    dim3 block_dim, grid_dim;
    unsigned char *shared;
    size_t shared_size;
    void (*body)(void *);
    void *arg;
    void (*look)(void *); // simt_watch()'s
    void *look_arg;
    uint64_t random;
    void *sp; // of the scheduler
    void *tsan, *fake;
    const void *stack; // the scheduler's, for the address sanitizer
    size_t stack_size;
    char barrier, meeting[1024 / SIMT_LANES], start; // their addresses count

    ~team_t();
};

void (*simt_stream)(int stream);
int (*simt_keep)(int stream, const std::function<void()> &launch);
int simt_must_wait;

// At a fixed distance from the thread's register: it is read at every step.
static thread_local team_t *team __attribute__((tls_model("initial-exec")));
static thread_local void (*watch)(void *);
static thread_local void *watch_arg;
static std::atomic<uint64_t> seed_now;
static std::atomic<unsigned> threads_now{1};

extern "C" __attribute__((visibility("hidden"))) void simt_switch(
    void **save, void *to);

asm(R"(
        .text
        .globl simt_switch
        .hidden simt_switch
        .type simt_switch, @function
simt_switch:
        pushq %rbp
        pushq %rbx
        pushq %r12
        pushq %r13
        pushq %r14
        pushq %r15
        movq %rsp, (%rdi)
        movq %rsi, %rsp
        popq %r15
        popq %r14
        popq %r13
        popq %r12
        popq %rbx
        popq %rbp
        ret
        .size simt_switch, . - simt_switch
)");

static uint64_t
draw(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return *x;
}

static void
shuffle(std::vector<unsigned> &v, uint64_t *random)
{
    size_t i, j;

    for (i = v.size(); i > 1; i--) {
        j = draw(random) % i;
        std::swap(v[i - 1], v[j]);
    }
}

static void
count_up(std::vector<unsigned> &v, size_t n)
{
    size_t i;

    v.resize(n);
    for (i = 0; i < n; i++) {
        v[i] = static_cast<unsigned>(i);
    }
}

void
simt_set(uint64_t seed, unsigned threads)
{
    assert(threads > 0);
    seed_now = seed;
    threads_now = threads;
}

static void
say(const fiber_t *f, simt_at_t at, const char *why)
{
    const team_t *t = team;

    fprintf(stderr, "simt: block %u,%u,%u thread %u (warp %u, lane %u) %s",
        t->block.x, t->block.y, t->block.z, f->index, f->index / SIMT_LANES,
        f->index % SIMT_LANES, why);
    if (at.what != NULL) {
        fprintf(stderr, ": %s at %s:%d", at.what, at.file, at.line);
    }
    fputc('\n', stderr);
}

void
simt_fail(simt_at_t at, const char *why)
{
    say(team->now, at, why);
    abort();
}

// What orders threads, said to the thread sanitizer.

static void
release(void *token)
{
#ifdef SIMT_TSAN
    if (token != NULL) {
        __tsan_release(token);
    }
#endif
    (void) token;
}

static void
acquire(void *token)
{
#ifdef SIMT_TSAN
    if (token != NULL) {
        __tsan_acquire(token);
    }
#endif
    (void) token;
}

// The scheduler to a fiber, and back.

static void
resume(team_t *t, fiber_t *f)
{
    t->now = f;
#ifdef SIMT_TSAN
    __tsan_switch_to_fiber(f->tsan, __tsan_switch_to_fiber_no_sync);
#endif
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&t->fake, f->stack, STACK_SIZE);
#endif
    simt_switch(&t->sp, f->sp);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(t->fake, NULL, NULL);
#endif
}

static void
leave(fiber_t *f)
{
    team_t *t = team;

#ifdef SIMT_TSAN
    __tsan_switch_to_fiber(t->tsan, __tsan_switch_to_fiber_no_sync);
#endif
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(
        f->state == ENDED ? NULL : &f->fake, t->stack, t->stack_size);
#endif
    simt_switch(&f->sp, t->sp);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(f->fake, NULL, NULL);
#endif
}

static void
enter(void)
{
    team_t *t = team;
    fiber_t *f = t->now;

#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(NULL, &t->stack, &t->stack_size);
#endif
    acquire(&t->start);
    t->body(t->arg);
    release(&t->start);

    if (f->copied < f->copies.size()) {
        simt_fail({NULL, NULL, 0}, "ends with copies that it never waited for");
    }
    if (simt_must_wait && !f->waited) {
        simt_fail({NULL, NULL, 0}, "ends without a wait for who was before");
    }
    f->state = ENDED;
    leave(f);
    abort();
}

static void
wait_here(int state, unsigned mask, simt_at_t at, void *token)
{
    fiber_t *f = team->now;

    f->state = state;
    f->mask = mask;
    f->at = at;
    release(token);
    leave(f);
    acquire(token);
}

void
simt_barrier(simt_at_t at)
{
    wait_here(AT_BARRIER, 0, at, &team->barrier);
}

void
simt_meet(unsigned mask, simt_at_t at)
{
    const fiber_t *f = team->now;

    if (!(mask >> f->index % SIMT_LANES & 1)) {
        simt_fail(at, "is not in its own mask");
    }

    wait_here(AT_MEETING, mask, at, &team->meeting[f->index / SIMT_LANES]);
}

void
simt_waits(void)
{
    team->now->waited = 1;
}

void
simt_watch(void (*look)(void *arg), void *arg)
{
    watch = look;
    watch_arg = arg;
}

void
simt_pause(void)
{
    if (team->look != NULL) {
        team->look(team->look_arg);
    }
    std::this_thread::yield();
    wait_here(PAUSED, 0, {NULL, NULL, 0}, NULL);
}

uint3
simt_thread(void)
{
    unsigned i = team->now->index;
    dim3 d = team->block_dim;

    return make_uint3(i % d.x, i / d.x % d.y, i / (d.x * d.y));
}

uint3
simt_block(void)
{
    return team->block;
}

dim3
simt_block_dim(void)
{
    return team->block_dim;
}

dim3
simt_grid_dim(void)
{
    return team->grid_dim;
}

unsigned
simt_lane(void)
{
    return team->now->index % SIMT_LANES;
}

unsigned char *
simt_shared(void)
{
    return team->shared;
}

void
simt_give(const void *p)
{
    team->now->given = p;
}

const void *
simt_given(unsigned lane)
{
    unsigned first = team->now->index / SIMT_LANES * SIMT_LANES;

    assert(lane < SIMT_LANES && first + lane < team->n);

    return team->fibers[first + lane].given;
}

// Asynchronous copies.

void
simt_copy(void *to, const void *from, unsigned n, unsigned bytes)
{
    fiber_t *f = team->now;

    f->copies.push_back({to, from, n, bytes, f->group});
}

void
simt_commit(void)
{
    team->now->group++;
}

int
simt_next_copy(unsigned but, simt_copy_t *c)
{
    fiber_t *f = team->now;

    if (f->copied == f->copies.size()
        || f->copies[f->copied].group + but >= f->group) {
        return 0;
    }

    *c = f->copies[f->copied++];

    return 1;
}

// Blocks.

// Room for n threads; a stack has a page before it that nobody may touch.
static void
team_grow(team_t *t, unsigned n)
{
    size_t i = t->fibers.size();
    char *p;

    if (i < n) {
        t->fibers.resize(n);
    }

    for (; i < n; i++) {
        p = static_cast<char *>(mmap(NULL, STACK_SIZE + 4096,
            PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        assert(p != MAP_FAILED);
        mprotect(p, 4096, PROT_NONE);
        t->fibers[i].stack = p + 4096;
        t->fibers[i].index = static_cast<unsigned>(i);
#ifdef SIMT_TSAN
        t->fibers[i].tsan = __tsan_create_fiber(0);
#endif
    }
}

team_t::~team_t()
{
    for (fiber_t &f : fibers) {
#ifdef SIMT_TSAN
        __tsan_destroy_fiber(f.tsan);
#endif
        munmap(f.stack - 4096, STACK_SIZE + 4096);
    }
    free(shared);
}

// A fiber that begins: six registers and where to go, the stack as after a
// call.
static void
fiber_begin(fiber_t *f)
{
    void **sp = reinterpret_cast<void **>(f->stack + STACK_SIZE);
    int i;

#ifdef __SANITIZE_ADDRESS__
    __asan_unpoison_memory_region(f->stack, STACK_SIZE);
#endif
    *--sp = NULL;
    *--sp = reinterpret_cast<void *>(enter);
    for (i = 0; i < 6; i++) {
        *--sp = NULL;
    }

    f->sp = sp;
    f->state = RUNS;
    f->group = 0;
    f->waited = 0;
    f->fake = NULL;
    f->copies.clear();
    f->copied = 0;
}

// The same words are often, but need not be, at the same address.
static int
same_word(const char *a, const char *b)
{
    return a == b || strcmp(a, b) == 0;
}

static int
same_place(const fiber_t *a, const fiber_t *b)
{
    return a->state == b->state && a->mask == b->mask
           && a->at.line == b->at.line && same_word(a->at.file, b->at.file)
           && same_word(a->at.what, b->at.what);
}

// Lets the lanes of fiber f's meeting go on if all are there.
static int
meeting_ends(team_t *t, fiber_t *f)
{
    unsigned i, first = f->index / SIMT_LANES * SIMT_LANES;
    fiber_t *o;

    for (i = 0; i < SIMT_LANES; i++) {
        if (!(f->mask >> i & 1)) {
            continue;
        }
        if (first + i >= t->n) {
            say(f, f->at, "waits for a lane that the block does not have");
            abort();
        }

        o = &t->fibers[first + i];
        if (o->state == ENDED) {
            say(f, f->at, "waits for a lane that has ended");
            say(o, {NULL, NULL, 0}, "is that lane");
            abort();
        }
        if (!same_place(f, o)) {
            return 0;
        }
    }

    for (i = 0; i < SIMT_LANES; i++) {
        if (f->mask >> i & 1) {
            t->fibers[first + i].state = RUNS;
        }
    }

    return 1;
}

// Lets each lane of a warp go on once; whether any did.
static int
warp_round(team_t *t, unsigned warp)
{
    unsigned i, first = warp * SIMT_LANES, turn = 0, went = 0;
    unsigned lanes = t->n - first < SIMT_LANES ? t->n - first : SIMT_LANES;
    fiber_t *f;

    if (seed_now != 0) {
        turn = static_cast<unsigned>(draw(&t->random) % lanes);
    }

    for (i = 0; i < lanes; i++) {
        f = &t->fibers[first + (i + turn) % lanes];
        if (f->state == RUNS || f->state == PAUSED) {
            resume(t, f);
            went = 1;
        }
    }

    for (i = 0; i < lanes; i++) {
        f = &t->fibers[first + i];
        if (f->state == AT_MEETING) {
            went |= static_cast<unsigned>(meeting_ends(t, f));
        }
    }

    return static_cast<int>(went);
}

[[noreturn]] static void
stuck(team_t *t)
{
    unsigned i;
    static const char *const states[] = {
        "runs", "waits", "waits", "waits in a loop", "has ended"};

    for (i = 0; i < t->n; i++) {
        say(&t->fibers[i],
            t->fibers[i].state == ENDED ? simt_at_t{NULL, NULL, 0}
                                        : t->fibers[i].at,
            states[t->fibers[i].state]);
    }

    fprintf(stderr, "simt: nobody can go on\n");
    abort();
}

// Whether all are at the block's barrier, which lets them go on.
static int
barrier_ends(team_t *t)
{
    unsigned i;

    for (i = 0; i < t->n; i++) {
        if (t->fibers[i].state != AT_BARRIER
            || !same_place(&t->fibers[i], &t->fibers[0])) {
            return 0;
        }
    }

    for (i = 0; i < t->n; i++) {
        t->fibers[i].state = RUNS;
    }

    return 1;
}

static int
all_ended(const team_t *t)
{
    unsigned i;

    for (i = 0; i < t->n; i++) {
        if (t->fibers[i].state != ENDED) {
            return 0;
        }
    }

    return 1;
}

// With a seed one warp, another after each barrier, does not go on until the
// others cannot: what it should have waited for, or they for it, is then long
// gone or far from there.
#define NOBODY (~0u)

static unsigned
draw_late(team_t *t)
{
    return seed_now == 0 || t->warps.size() == 1
               ? NOBODY
               : static_cast<unsigned>(draw(&t->random) % t->warps.size());
}

static void
run_block(team_t *t, uint3 block)
{
    unsigned i, late;
    int went;

    t->block = block;
    if (t->shared_size > 0) {
        memset(t->shared, 0xff, t->shared_size);
    }
    for (i = 0; i < t->n; i++) {
        fiber_begin(&t->fibers[i]);
    }

    count_up(t->warps, (t->n + SIMT_LANES - 1) / SIMT_LANES);
    late = draw_late(t);
    release(&t->start);

    while (!all_ended(t)) {
        if (seed_now != 0) {
            shuffle(t->warps, &t->random);
        }

        went = 0;
        for (unsigned warp : t->warps) {
            if (warp != late) {
                went |= warp_round(t, warp);
            }
        }
        if (!went && late != NOBODY) {
            late = NOBODY; // all others wait for it
        } else if (!went && !barrier_ends(t)) {
            stuck(t);
        } else if (!went) {
            late = draw_late(t);
        }
    }

    acquire(&t->start);
}

// A launch; its blocks are dealt out, so that each thread has some, however
// late it comes.
struct launch_t {
    dim3 grid, block;
    size_t shared;
    void (*body)(void *);
    void *arg;
    std::vector<unsigned> order;
    unsigned threads;
    void (*look)(void *);
    void *look_arg;
};

// The threads of a block share an arena whose end is the end of what was asked
// for, so that the address sanitizer sees a byte beyond it.
static void
work(const launch_t *l, team_t *t, unsigned nth, uint64_t random)
{
    size_t i;
    unsigned b;
    dim3 g = l->grid;

    team = t;
    t->now = NULL;
    t->n = l->block.x * l->block.y * l->block.z;
    t->block_dim = l->block;
    t->grid_dim = g;
    t->body = l->body;
    t->arg = l->arg;
    t->look = l->look;
    t->look_arg = l->look_arg;
    t->random = random + nth;
    free(t->shared);
    t->shared = NULL;
    t->shared_size = l->shared;
    if (l->shared > 0) {
        i = static_cast<size_t>(posix_memalign(
            reinterpret_cast<void **>(&t->shared), 1024, l->shared));
        assert(i == 0);
    }
    team_grow(t, t->n);
#ifdef SIMT_TSAN
    t->tsan = __tsan_get_current_fiber();
#endif

    for (i = nth; i < l->order.size(); i += l->threads) {
        b = l->order[i];
        run_block(t, make_uint3(b % g.x, b / g.x % g.y, b / (g.x * g.y)));
    }
}

// A team for each thread of a launch.  Launches of one thread come one after
// another; those of several run beside each other.
static team_t *
team_of(unsigned i)
{
    static thread_local std::vector<std::unique_ptr<team_t>> teams;

    while (teams.size() <= i) {
        teams.emplace_back(new team_t());
    }

    return teams[i].get();
}

static std::map<const void *, size_t> allowed;
static std::mutex allowed_lock;

void
simt_allow(const void *kernel, size_t n)
{
    std::lock_guard<std::mutex> lock(allowed_lock);

    allowed[kernel] = n;
}

void
simt_check_allowed(const void *kernel, size_t n)
{
    std::lock_guard<std::mutex> lock(allowed_lock);
    const auto at = allowed.find(kernel);
    size_t most = at == allowed.end() ? SIMT_SHARED : at->second;

    if (n > most && n > SIMT_SHARED) {
        fprintf(stderr,
            "simt: a launch asks for %zu bytes of shared memory, and its "
            "kernel is allowed %zu\n",
            n, most);
        abort();
    }
}

// What a device refuses, it refuses when nobody looks at it any more.
static void
check_launch(dim3 grid, dim3 block, size_t shared)
{
    size_t threads = static_cast<size_t>(block.x) * block.y * block.z;

    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffff
        || grid.y > 65535 || grid.z > 65535 || threads == 0 || threads > 1024
        || shared > SIMT_SHARED_MAX) {
        fprintf(stderr,
            "simt: no launch is of %u, %u, %u blocks of %zu threads with %zu "
            "bytes\n",
            grid.x, grid.y, grid.z, threads, shared);
        abort();
    }
}

void
simt_run(dim3 grid, dim3 block, size_t shared, void (*body)(void *), void *arg)
{
    launch_t l = {
        grid, block, shared, body, arg, {}, threads_now, watch, watch_arg};
    uint64_t random = (seed_now + 1) * 0x9e3779b97f4a7c15u;
    unsigned i;
    std::vector<std::thread> others;

    assert(team == NULL || team->now == NULL);
    check_launch(grid, block, shared);

    count_up(l.order, (size_t) grid.x * grid.y * grid.z);
    if (seed_now != 0) {
        shuffle(l.order, &random);
    }

    for (i = 1; i < l.threads; i++) {
        others.emplace_back(work, &l, team_of(i), i, random);
    }

    work(&l, team_of(0), 0, random);
    team_of(0)->now = NULL;
    for (std::thread &o : others) {
        o.join();
    }
}
