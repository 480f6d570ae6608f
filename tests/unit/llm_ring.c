/*
 * Would catch: a record lost, torn, doubled or out of order; room given where
 * there is none; a lost wake-up between two processes; a data race between
 * two threads; and a hostile peer that makes the other side read or write
 * outside the buffer, return what it did not check, or not return at all.
 *
 * LLM_RING_TEST=threads runs the two-thread test alone: that is the one to be
 * built with -fsanitize=thread.  LLM_RING_RECORDS sets how many records.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "brief.h"
#include "llm_ring.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE       4096u
#define SIZE       4096u /* the smallest ring wraps most often */
#define RECORD_MAX (SIZE / 2)
#define LOST_MS    5000 /* asleep so long beside a record: a lost wake-up */

typedef struct {
    uint64_t s;
} rnd_t;

/* One byte ring in a mapping, with pages around data that trap. */
typedef struct {
    uint8_t *map;
    size_t map_len;
    llm_ring_ctl_t *ctl; /* ends where a trap page begins */
    uint8_t *data;       /* a trap page before it and one behind */
    uint8_t *buf;        /* RECORD_MAX bytes up to a trap page */
} room_t;

typedef struct {
    llm_ring_hdr_t hdr;
    uint64_t seq;
} rec_t;


static uint32_t
rnd(rnd_t *r, uint32_t below)
{
    r->s = r->s * 6364136223846793005ull + 1442695040888963407ull;

    return (uint32_t) ((r->s >> 33) % below);
}


static uint64_t
now_ms(void)
{
    struct timespec t;

    (void) clock_gettime(CLOCK_MONOTONIC, &t);

    return (uint64_t) t.tv_sec * 1000 + (uint64_t) t.tv_nsec / 1000000;
}


static uint64_t
records(uint64_t usual)
{
    const char *s = getenv("LLM_RING_RECORDS");

    return s ? strtoull(s, NULL, 10) : brief() ? usual / 4 : usual;
}


/* trap, ctl page, trap, data, trap, buf, trap; shared with a child. */
static void
room_open(room_t *m)
{
    uint8_t *p;

    m->map_len = 7 * PAGE;
    m->map =
        mmap(NULL, m->map_len, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(m->map != MAP_FAILED);

    p = m->map + PAGE;
    assert_int_equal(mprotect(p, PAGE, PROT_READ | PROT_WRITE), 0);
    m->ctl = (llm_ring_ctl_t *) (void *) (p + PAGE - sizeof(llm_ring_ctl_t));

    p += 2 * PAGE;
    assert_int_equal(mprotect(p, PAGE, PROT_READ | PROT_WRITE), 0);
    m->data = p;

    p += 2 * PAGE;
    assert_int_equal(mprotect(p, PAGE, PROT_READ | PROT_WRITE), 0);
    m->buf = p + PAGE - RECORD_MAX;
}


static void
room_close(room_t *m)
{
    assert_int_equal(munmap(m->map, m->map_len), 0);
}


/* The bytes of record seq depend on seq alone. */
static uint32_t
record_len(uint64_t seq)
{
    rnd_t r = {seq * 0x9e3779b97f4a7c15ull};
    uint32_t how = rnd(&r, 64);

    if (how == 0) {
        return RECORD_MAX;
    }
    if (how == 1) {
        return sizeof(llm_ring_hdr_t);
    }
    if (how < 8) {
        return sizeof(llm_ring_hdr_t) + rnd(&r, RECORD_MAX - 7);
    }

    return sizeof(rec_t) + rnd(&r, 200);
}


static uint8_t
record_byte(uint64_t seq, uint32_t i)
{
    return (uint8_t) (seq * 31 + i * 7 + (i >> 8));
}


static void
record_fill(void *to, uint64_t seq, uint32_t len)
{
    llm_ring_hdr_t *h = to;
    uint8_t *p = to;
    uint32_t i;

    h->type = (uint16_t) (1 + seq % 1000);
    h->flags = (uint16_t) seq;
    for (i = sizeof(*h); i < len; i++) {
        p[i] = record_byte(seq, i);
    }
}


/* 1 if p holds record seq, whole. No cmocka: it also runs in a child. */
static int
record_ok(const uint8_t *p, int64_t n, uint64_t seq)
{
    llm_ring_hdr_t h;
    uint32_t i, len = record_len(seq);

    if (n != (int64_t) len) {
        return 0;
    }
    memcpy(&h, p, sizeof(h));
    if (h.len != len || h.type != 1 + seq % 1000 || h.flags != (uint16_t) seq) {
        return 0;
    }
    for (i = sizeof(h); i < len; i++) {
        if (p[i] != record_byte(seq, i)) {
            return 0;
        }
    }

    return 1;
}


/* --- one thread --------------------------------------------------------- */

static void
empty_and_small(void **state)
{
    room_t m;
    llm_ring_t in, out;
    llm_ring_hdr_t *h;

    (void) state;
    room_open(&m);
    llm_ring_init(&in, m.ctl, m.data, SIZE);
    llm_ring_init(&out, m.ctl, m.data, SIZE);

    assert_int_equal(llm_ring_peek(&out, m.buf, RECORD_MAX), LLM_RING_EMPTY);
    llm_ring_advance(&out); /* nothing was peeked */
    assert_int_equal(out.pos, 0);

    assert_null(llm_ring_reserve(&in, 7, 0));
    assert_null(llm_ring_reserve(&in, RECORD_MAX + 1, 0));
    assert_null(llm_ring_reserve(&in, UINT32_MAX, 0));
    assert_null(llm_ring_reserve(&in, 8, UINT32_MAX));
    assert_null(llm_ring_reserve(&in, 8, SIZE - 7));

    /* a second reserve starts over; what was not committed is not seen */
    assert_non_null(llm_ring_reserve(&in, 1000, 0));
    h = llm_ring_reserve(&in, 17, SIZE - 24);
    assert_ptr_equal(h, m.data);
    h->type = 5;
    assert_int_equal(llm_ring_peek(&out, m.buf, RECORD_MAX), LLM_RING_EMPTY);
    llm_ring_commit(&in);
    llm_ring_commit(&in); /* nothing more is reserved */
    assert_int_equal(in.pos, 24);

    /* too small a buffer leaves the record in place, and none of it copied */
    m.buf[0] = 0xaa;
    assert_int_equal(llm_ring_peek(&out, m.buf, 16), LLM_RING_SMALL);
    assert_int_equal(m.buf[0], 0xaa);
    assert_int_equal(llm_ring_peek(&out, m.buf, 17), 17);
    assert_int_equal(llm_ring_peek(&out, m.buf, 17), 17);
    llm_ring_advance(&out);
    llm_ring_advance(&out); /* once only */
    assert_int_equal(out.pos, 24);
    assert_int_equal(llm_ring_peek(&out, m.buf, 17), LLM_RING_EMPTY);

    /* a record that is too long can be passed over */
    h = llm_ring_reserve(&in, 64, 0);
    h->type = 5;
    llm_ring_commit(&in);
    assert_int_equal(llm_ring_peek(&out, m.buf, 0), LLM_RING_SMALL);
    llm_ring_advance(&out);
    assert_int_equal(llm_ring_peek(&out, m.buf, 64), LLM_RING_EMPTY);
    room_close(&m);
}


/* The flag says who rings whom, also when nobody sleeps. */
static void
sleep_flag(void **state)
{
    room_t m;
    llm_ring_t in, out;
    llm_ring_hdr_t *h;

    (void) state;
    room_open(&m);
    llm_ring_init(&in, m.ctl, m.data, SIZE);
    llm_ring_init(&out, m.ctl, m.data, SIZE);

    assert_false(llm_ring_must_wake(&in));
    assert_true(llm_ring_may_sleep(&out));
    assert_true(llm_ring_must_wake(&in));
    assert_false(llm_ring_must_wake(&in));

    h = llm_ring_reserve(&in, 8, 0);
    h->type = 1;
    assert_true(llm_ring_may_sleep(&out)); /* not committed yet */
    llm_ring_commit(&in);
    assert_false(llm_ring_may_sleep(&out));
    assert_false(llm_ring_must_wake(&in));

    /* peeked is not consumed */
    assert_int_equal(llm_ring_peek(&out, m.buf, 8), 8);
    assert_false(llm_ring_may_sleep(&out));
    llm_ring_advance(&out);
    assert_true(llm_ring_may_sleep(&out));
    room_close(&m);
}


/* From each place in the buffer an empty ring takes the longest record. */
static void
longest_fits_anywhere(void **state)
{
    room_t m;
    llm_ring_t in, out;
    llm_ring_hdr_t *h;
    uint32_t at, i;
    const uint32_t len[2] = {8, RECORD_MAX};

    (void) state;
    room_open(&m);

    for (at = 0; at < SIZE; at += LLM_RING_ALIGN) {
        llm_ring_init(&in, m.ctl, m.data, SIZE);
        llm_ring_init(&out, m.ctl, m.data, SIZE);
        /* the indices pass 2^64 on the way */
        in.pos = in.peer = out.pos = out.peer = UINT64_MAX - SIZE + 1 + at;
        m.ctl->head = m.ctl->tail = in.pos;

        for (i = 0; i < 2; i++) {
            h = llm_ring_reserve(&in, len[i], 0);
            assert_non_null(h);
            h->type = 9;
            llm_ring_commit(&in);
            assert_int_equal(llm_ring_peek(&out, m.buf, RECORD_MAX), len[i]);
            llm_ring_advance(&out);
            assert_int_equal(out.pos, in.pos);
        }
    }

    room_close(&m);
}


/*
 * Random sizes, random fill levels, random keep: what went in comes out, room
 * is refused only where there is none, and keep bytes stay for the records
 * that must not fail.
 */
static void
random_records(void **state)
{
    room_t m;
    llm_ring_t in, out;
    rnd_t r = {1};
    uint64_t put = 0, got = 0, full = 0, kept = 0, skips = 0;
    const uint64_t all = records(1000000);
    uint32_t len, keep, burst, off, skip;
    int64_t n;
    void *h;

    (void) state;
    room_open(&m);
    llm_ring_init(&in, m.ctl, m.data, SIZE);
    llm_ring_init(&out, m.ctl, m.data, SIZE);

    while (got < all) {
        for (burst = rnd(&r, 40); burst > 0 && put < all; burst--) {
            len = record_len(put);
            keep = rnd(&r, 4) == 0 ? rnd(&r, SIZE) : 0;
            off = (uint32_t) in.pos & (SIZE - 1);
            skip = SIZE - off < llm_ring_align(len) ? SIZE - off : 0;

            h = llm_ring_reserve(&in, len, keep);

            /* exactly when it fits */
            assert_int_equal(h != NULL,
                in.pos - out.pos + skip + llm_ring_align(len) + keep <= SIZE);
            if (h == NULL) {
                full++;
                kept += keep > 0;
                continue;
            }
            skips += skip > 0;
            record_fill(h, put++, len);
            llm_ring_commit(&in);
        }

        for (burst = rnd(&r, 40); burst > 0; burst--) {
            n = llm_ring_peek(&out, m.buf, RECORD_MAX);
            if (got == put) {
                assert_int_equal(n, LLM_RING_EMPTY);
                break;
            }
            if (!record_ok(m.buf, n, got)) {
                fail_msg("record %lu is wrong", (unsigned long) got);
            }
            llm_ring_advance(&out);
            got++;
        }
    }

    assert_true(full > 0 && kept > 0 && skips > 0);
    room_close(&m);
}


/*
 * The promise behind keep: with room kept for t records of b bytes and one
 * wrap, t of them go in whatever the ring's place and fill.
 */
static void
kept_room_is_there(void **state)
{
    room_t m;
    llm_ring_t in, out;
    rnd_t r = {7};
    const uint32_t b = 256, t = 5;
    llm_ring_hdr_t *h, seen;
    uint32_t i, round;

    (void) state;
    room_open(&m);
    llm_ring_init(&in, m.ctl, m.data, SIZE);
    llm_ring_init(&out, m.ctl, m.data, SIZE);

    for (round = 0; round < 20000; round++) {
        while ((h = llm_ring_reserve(&in, 8 + rnd(&r, 600), (t + 1) * b))) {
            h->type = 1;
            llm_ring_commit(&in);
        }
        for (i = 0; i < t; i++) {
            h = llm_ring_reserve(&in, b - rnd(&r, 9), 0);
            assert_non_null(h);
            h->type = 2;
            llm_ring_commit(&in);
        }
        for (i = 0; i < t;) {
            assert_true(llm_ring_peek(&out, m.buf, RECORD_MAX) > 0);
            memcpy(&seen, m.buf, sizeof(seen));
            i += seen.type == 2;
            llm_ring_advance(&out);
        }
        assert_int_equal(
            llm_ring_peek(&out, m.buf, RECORD_MAX), LLM_RING_EMPTY);
    }

    room_close(&m);
}


/* --- a producer and a consumer that run at once ------------------------- */

typedef struct {
    llm_ring_ctl_t *ctl;
    uint8_t *data;
    int fd; /* its end of the socket pair */
    uint64_t all;
    uint64_t rings;  /* producer: bytes sent */
    uint64_t arms;   /* consumer: said that it would sleep */
    uint64_t sleeps; /* consumer: did */
    const char *fault;
} side_t;


static void
ring_bell(side_t *s, llm_ring_t *in)
{
    ssize_t n;

    if (!llm_ring_must_wake(in)) {
        return;
    }
    do {
        n = send(s->fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (n == -1 && errno == EINTR);
    s->rings++;
}


/*
 * Until the consumer has taken all, and then a moment that varies.  It must
 * wait, however long: a next commit would mend a wake-up that was lost.
 */
static void
wait_for_consumer(side_t *s, const llm_ring_t *in, rnd_t *r)
{
    const uint64_t since = now_ms();
    uint32_t wait;

    for (wait = 1; s->fault == NULL; wait++) {
        if (__atomic_load_n(&in->ctl->head, __ATOMIC_RELAXED) == in->pos) {
            break;
        }
        if (wait % 4096 == 0) {
            (void) sched_yield();
            if (now_ms() - since > 4 * LOST_MS) {
                s->fault = "the consumer takes nothing";
            }
        }
    }
    for (wait = rnd(r, 1u << rnd(r, 10)); wait > 0; wait--) {
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
    }
}


/*
 * Commits all records, ringing once per turn.  By blocks, turns are of up to
 * eight records, one behind another; or of one, at about the moment when the
 * consumer, having taken the last, is going to sleep: there the races are.
 */
static void *
produce(void *arg)
{
    side_t *s = arg;
    llm_ring_t in;
    rnd_t r = {3};
    uint64_t put = 0, since = now_ms();
    uint32_t turn;
    int close_on;
    void *h;

    llm_ring_init(&in, s->ctl, s->data, SIZE);

    while (put < s->all && s->fault == NULL) {
        close_on = put / 4096 % 2 == 0;
        turn = close_on ? 1 : 1 + rnd(&r, 8);

        for (h = NULL; turn > 0 && put < s->all; turn--) {
            h = llm_ring_reserve(&in, record_len(put), 0);
            if (h == NULL) {
                break;
            }
            record_fill(h, put, record_len(put));
            if (close_on) {
                wait_for_consumer(s, &in, &r);
            }
            llm_ring_commit(&in);
            put++;
        }

        ring_bell(s, &in);

        if (h) {
            since = now_ms();
        } else if (now_ms() - since > 4 * LOST_MS) {
            s->fault = "the consumer takes nothing";
            break;
        } else {
            (void) sched_yield();
        }
    }

    return s;
}


/* Sleeps as an event loop does. NULL, or what went wrong. */
static const char *
sleep_on_bell(side_t *s, llm_ring_t *out)
{
    struct pollfd p = {s->fd, POLLIN, 0};
    char bytes[16];
    int i, n;

    s->arms++;
    if (!llm_ring_may_sleep(out)) {
        return NULL;
    }
    s->sleeps++;

    /* twice: a busy machine may stop the producer on its way to the bell */
    for (i = 0, n = 0; i < 2 && n == 0; i++) {
        n = poll(&p, 1, LOST_MS);
    }
    if (n == 0) {
        return __atomic_load_n(&out->ctl->tail, __ATOMIC_ACQUIRE) != out->pos
                   ? "lost wake-up"
                   : "the producer commits nothing";
    }

    while (recv(s->fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0) {
    }

    return NULL;
}


static void *
consume(void *arg)
{
    side_t *s = arg;
    llm_ring_t out;
    uint8_t buf[RECORD_MAX];
    uint64_t got = 0;
    int64_t n;

    llm_ring_init(&out, s->ctl, s->data, SIZE);

    while (got < s->all && s->fault == NULL) {
        n = llm_ring_peek(&out, buf, sizeof(buf));
        if (n == LLM_RING_EMPTY) {
            s->fault = sleep_on_bell(s, &out);
        } else if (!record_ok(buf, n, got)) {
            s->fault = "wrong record";
        } else {
            llm_ring_advance(&out);
            got++;
        }
    }

    return s;
}


static void
two_threads(void **state)
{
    room_t m;
    int fd[2];
    side_t in, out;
    pthread_t tid;

    (void) state;
    room_open(&m);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fd), 0);
    memset(&in, 0, sizeof(in));
    in.ctl = m.ctl;
    in.data = m.data;
    in.all = records(200000);
    in.fd = fd[0];
    out = in;
    out.fd = fd[1];

    assert_int_equal(pthread_create(&tid, NULL, produce, &in), 0);
    (void) consume(&out);
    assert_int_equal(pthread_join(tid, NULL), 0);

    print_message("           %lu records, %lu sleeps, %lu rings\n",
        (unsigned long) in.all, (unsigned long) out.sleeps,
        (unsigned long) in.rings);
    assert_string_equal(out.fault ? out.fault : "", "");
    assert_string_equal(in.fault ? in.fault : "", "");
    assert_true(out.sleeps > 100 || in.all < 100000);
    assert_true(in.rings <= out.arms); /* no byte that nobody asked for */
    (void) close(fd[0]);
    (void) close(fd[1]);
    room_close(&m);
}


/* The memfd is mapped by each process for itself, at different addresses. */
static void
map_memfd(int memfd, side_t *s)
{
    uint8_t *p =
        mmap(NULL, PAGE + SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);

    if (p == MAP_FAILED) {
        s->fault = "mmap";
        return;
    }
    s->ctl = (llm_ring_ctl_t *) (void *) p;
    s->data = p + PAGE;
}


static void
two_processes(void **state)
{
    side_t s;
    int memfd, fd[2], status = -1;
    pid_t pid;

    (void) state;
    memfd = memfd_create("ring", MFD_CLOEXEC);
    assert_true(memfd >= 0);
    assert_int_equal(ftruncate(memfd, PAGE + SIZE), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fd), 0);
    memset(&s, 0, sizeof(s));
    s.all = records(400000);

    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void) close(fd[1]);
        s.fd = fd[0];
        map_memfd(memfd, &s);
        if (s.fault == NULL) {
            (void) produce(&s);
        }
        _exit(s.fault ? 1 : 0);
    }

    (void) close(fd[0]);
    s.fd = fd[1];
    map_memfd(memfd, &s);
    if (s.fault == NULL) {
        (void) consume(&s);
    }
    if (s.fault) {
        (void) kill(pid, SIGKILL);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);

    print_message("           %lu records, %lu sleeps\n", (unsigned long) s.all,
        (unsigned long) s.sleeps);
    assert_string_equal(s.fault ? s.fault : "", "");
    assert_int_equal(status, 0);
    assert_true(s.sleeps > 100 || s.all < 100000);
    (void) close(fd[1]);
    (void) close(memfd);
    (void) munmap(s.ctl, PAGE + SIZE);
}


/* --- a hostile peer ----------------------------------------------------- */

/* What one may try for an index or a length. */
static uint64_t
edge(rnd_t *r, uint64_t near)
{
    const uint64_t odd[] = {0, 1, 7, 8, 9, 16, RECORD_MAX, RECORD_MAX + 8,
        SIZE - 8, SIZE, SIZE + 8, 2 * SIZE, INT32_MAX, 1ull << 31, UINT32_MAX,
        UINT32_MAX - 7, 1ull << 32, INT64_MAX, 1ull << 63, UINT64_MAX,
        UINT64_MAX - 7};
    uint64_t v = odd[rnd(r, sizeof(odd) / sizeof(odd[0]))];

    switch (rnd(r, 4)) {
    case 0:
        return v;
    case 1:
        return near + v;
    case 2:
        return near - v;
    default:
        return near + rnd(r, SIZE + 16);
    }
}


/* A header that is wrong in one way, or right. */
static llm_ring_hdr_t
edge_hdr(rnd_t *r, uint32_t off)
{
    llm_ring_hdr_t h;

    switch (rnd(r, 4)) {
    case 0:
        h.len = SIZE - off;
        break;
    case 1:
        h.len = 8 + rnd(r, 64);
        break;
    default:
        h.len = (uint32_t) edge(r, 0);
    }
    h.type = (uint16_t) rnd(r, 3);
    h.flags = (uint16_t) rnd(r, 65536);

    return h;
}


/* One peek: its answer is one of the four, and what it copied is sound. */
static int64_t
judged_peek(llm_ring_t *out, room_t *m, uint32_t cap)
{
    const llm_ring_t was = *out;
    llm_ring_hdr_t h;
    int64_t n;

    n = llm_ring_peek(out, m->buf + RECORD_MAX - cap, cap);

    assert_int_equal(out->pos, was.pos);
    assert_int_equal(out->pos % LLM_RING_ALIGN, 0);
    assert_true(out->peer - out->pos <= SIZE);
    assert_true(out->next <= out->peer - out->pos);

    if (n > 0) {
        assert_true(n <= cap && n <= RECORD_MAX);
        memcpy(&h, m->buf + RECORD_MAX - cap, sizeof(h));
        assert_int_equal(h.len, n);
        assert_int_not_equal(h.type, 0);
        assert_true(out->next >= n);
    } else {
        assert_true(
            n == LLM_RING_EMPTY || n == LLM_RING_BROKEN || n == LLM_RING_SMALL);
        assert_int_equal(out->next > 0, n == LLM_RING_SMALL);
    }

    return n;
}


/* Consumer against a producer that writes anything between its calls. */
static void
hostile_producer(void **state)
{
    room_t m;
    llm_ring_t out;
    rnd_t r = {11};
    llm_ring_hdr_t h;
    uint32_t i, off;
    uint64_t seen[4] = {0};
    int64_t n;

    (void) state;
    room_open(&m);
    llm_ring_init(&out, m.ctl, m.data, SIZE);

    for (i = 0; i < 2000000; i++) {
        if (rnd(&r, 4096) == 0) {
            llm_ring_init(&out, m.ctl, m.data, SIZE);
            out.pos = out.peer = edge(&r, 0) & ~7ull;
        }
        if (rnd(&r, 2)) {
            m.ctl->tail = edge(&r, rnd(&r, 2) ? out.pos : m.ctl->tail);
        }
        if (rnd(&r, 8) == 0) {
            m.ctl->head = edge(&r, out.pos);
            m.ctl->sleeps = (uint32_t) edge(&r, 0);
        }
        off = (uint32_t) (out.pos & (SIZE - 1));
        h = edge_hdr(&r, off);
        memcpy(m.data + off, &h, sizeof(h));
        h = edge_hdr(&r, 0);
        memcpy(
            m.data + (rnd(&r, 2) ? 0 : (off + 8) & (SIZE - 1)), &h, sizeof(h));

        n = judged_peek(
            &out, &m, rnd(&r, 2) ? RECORD_MAX : rnd(&r, RECORD_MAX + 1));
        seen[n > 0 ? 0 : 1 - n]++;

        if (rnd(&r, 2)) {
            llm_ring_advance(&out);
        }
        if (rnd(&r, 16) == 0) {
            (void) llm_ring_may_sleep(&out);
        }
    }

    /* the cases are there, or the test tests nothing */
    assert_true(
        seen[0] > 1000 && seen[1] > 1000 && seen[2] > 1000 && seen[3] > 1000);
    room_close(&m);
}


/* Producer against a consumer that writes anything between its calls. */
static void
hostile_consumer(void **state)
{
    room_t m;
    llm_ring_t in, was;
    rnd_t r = {12};
    uint8_t *h;
    uint32_t i, len;
    uint64_t given = 0, refused = 0;

    (void) state;
    room_open(&m);
    llm_ring_init(&in, m.ctl, m.data, SIZE);

    for (i = 0; i < 1000000; i++) {
        if (rnd(&r, 2)) {
            m.ctl->head = edge(&r, rnd(&r, 2) ? in.pos : in.peer);
            m.ctl->tail = edge(&r, in.pos);
            m.ctl->sleeps = (uint32_t) edge(&r, 0);
        }
        was = in;
        len = (uint32_t) edge(&r, 0) & (rnd(&r, 8) ? RECORD_MAX - 1 : ~0u);
        h = llm_ring_reserve(&in, len, rnd(&r, 4) ? 0 : (uint32_t) edge(&r, 0));

        assert_true(in.pos == was.pos && in.pos - in.peer <= SIZE);
        assert_true(in.peer - was.peer <= SIZE); /* never back */

        if (h == NULL) {
            refused++;
            assert_int_equal(in.next, 0);
            continue;
        }
        given++;
        assert_true(h >= m.data && h + len <= m.data + SIZE);
        assert_true(len >= 8 && len <= RECORD_MAX);
        memset(h + 8, 0xff, len - 8); /* its own, to the last byte */
        if (rnd(&r, 4)) {
            llm_ring_commit(&in);
            assert_int_equal(m.ctl->tail, in.pos);
        }
        (void) llm_ring_must_wake(&in);
    }

    assert_true(given > 1000 && refused > 1000);
    room_close(&m);
}


static void
put_hdr(room_t *m, uint32_t off, uint32_t len, uint16_t type)
{
    llm_ring_hdr_t h = {len, type, 0};

    memcpy(m->data + off, &h, sizeof(h));
}


/* Each rule about skips, broken by itself. */
static void
skips_that_lie(void **state)
{
    static const struct {
        uint32_t pos, skip, tail; /* place, skip's length, bytes committed */
        uint32_t len;             /* of the record at 0 behind it */
        uint16_t type;
        int64_t answer;
    } c[] = {
        {SIZE - 16, 16, 24, 8, 1, 8},
        {SIZE - 16, 16, 16 + RECORD_MAX, RECORD_MAX, 1, RECORD_MAX},
        {SIZE - 16, 16, 16, 8, 1, LLM_RING_BROKEN}, /* alone */
        {SIZE - 16, 16, 8, 8, 1, LLM_RING_BROKEN},  /* not all committed */
        {SIZE - 16, 8, 24, 8, 1, LLM_RING_BROKEN},  /* short of the end */
        {SIZE - 16, 15, 24, 8, 1, LLM_RING_BROKEN},
        {SIZE - 16, 24, 40, 8, 1, LLM_RING_BROKEN}, /* past the end */
        {SIZE - 16, 0, 24, 8, 1, LLM_RING_BROKEN},
        {SIZE - 16, 16, 24, SIZE, 0, LLM_RING_BROKEN}, /* two in a row */
        {SIZE - 16, 16, SIZE, 8, 0, LLM_RING_BROKEN},
        {SIZE - 16, 16, 24, 16, 1, LLM_RING_BROKEN}, /* past tail */
        {SIZE - 16, 16, SIZE, RECORD_MAX + 1, 1, LLM_RING_BROKEN},
        {SIZE - 8, 8, 16, 7, 1, LLM_RING_BROKEN},
        {0, SIZE, SIZE, SIZE, 0, LLM_RING_BROKEN}, /* the whole ring */
    };
    room_t m;
    llm_ring_t out;
    size_t i;

    (void) state;
    room_open(&m);

    for (i = 0; i < sizeof(c) / sizeof(c[0]); i++) {
        llm_ring_init(&out, m.ctl, m.data, SIZE);
        out.pos = out.peer = 7 * SIZE + c[i].pos;
        m.ctl->tail = out.pos + c[i].tail;
        put_hdr(&m, 0, c[i].len, c[i].type);
        put_hdr(&m, c[i].pos, c[i].skip, 0);
        if (llm_ring_peek(&out, m.buf, RECORD_MAX) != c[i].answer) {
            fail_msg("case %zu", i);
        }
        llm_ring_advance(&out);
        assert_int_equal(out.pos - 7 * SIZE - c[i].pos,
            c[i].answer > 0 ? c[i].skip + (uint32_t) c[i].answer : 0);
    }

    room_close(&m);
}


/*
 * A record that turns into something else between two peeks is judged anew,
 * and what the first peek said is not left over for advance.
 */
static void
record_that_changes(void **state)
{
    room_t m;
    llm_ring_t out;

    (void) state;
    room_open(&m);
    llm_ring_init(&out, m.ctl, m.data, SIZE);
    m.ctl->tail = 64;

    put_hdr(&m, 0, 64, 3);
    assert_int_equal(llm_ring_peek(&out, m.buf, RECORD_MAX), 64);
    put_hdr(&m, 0, SIZE, 0);
    assert_int_equal(llm_ring_peek(&out, m.buf, RECORD_MAX), LLM_RING_BROKEN);
    llm_ring_advance(&out);
    assert_int_equal(out.pos, 0);

    put_hdr(&m, 0, 16, 3);
    assert_int_equal(llm_ring_peek(&out, m.buf, RECORD_MAX), 16);
    llm_ring_advance(&out);
    assert_int_equal(out.pos, 16);

    /* tail goes back: nonsense as soon as it is looked at */
    put_hdr(&m, 16, 48, 3);
    m.ctl->tail = 8;
    assert_int_equal(llm_ring_peek(&out, m.buf, RECORD_MAX), 48);
    llm_ring_advance(&out);
    assert_false(llm_ring_may_sleep(&out));
    assert_int_equal(llm_ring_peek(&out, m.buf, RECORD_MAX), LLM_RING_BROKEN);
    room_close(&m);
}


/* Scribbles over all that is shared until it is killed. */
static void
scribble(room_t *m, uint64_t seed)
{
    rnd_t r = {seed};
    llm_ring_hdr_t h;
    uint64_t head, tail;

    for (;;) {
        head = __atomic_load_n(&m->ctl->head, __ATOMIC_RELAXED);
        tail = __atomic_load_n(&m->ctl->tail, __ATOMIC_RELAXED);

        switch (rnd(&r, 8)) {
        case 0:
            tail = edge(&r, rnd(&r, 2) ? head : tail);
            break;
        case 1:
            head = edge(&r, tail);
            break;
        default:
            tail = head + 8 * rnd(&r, SIZE / 8 + 1);
        }
        __atomic_store_n(&m->ctl->tail, tail, __ATOMIC_RELAXED);
        if (rnd(&r, 2)) {
            __atomic_store_n(&m->ctl->head, head, __ATOMIC_RELAXED);
        }
        __atomic_store_n(&m->ctl->sleeps, rnd(&r, 3), __ATOMIC_RELAXED);

        h = edge_hdr(&r, (uint32_t) head & (SIZE - 8));
        memcpy(m->data + ((uint32_t) head & (SIZE - 8)), &h, sizeof(h));
        h = edge_hdr(&r, 0);
        memcpy(m->data, &h, sizeof(h));
    }
}


/* The same two, while another process writes all over: a second and a half. */
static void
hostile_at_the_same_time(void **state)
{
    room_t m;
    llm_ring_t in, out;
    rnd_t r = {13};
    uint8_t *h;
    uint32_t len;
    uint64_t end, i, seen[2] = {0};
    int status;
    pid_t pid;

    (void) state;
    room_open(&m);
    llm_ring_init(&in, m.ctl, m.data, SIZE);
    llm_ring_init(&out, m.ctl, m.data, SIZE);

    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
        scribble(&m, 5);
    }

    end = now_ms() + 1500;
    for (i = 0; i % 256 != 0 || now_ms() < end; i++) {
        if (i % 256 == 0) { /* stuck for good: as if attached anew */
            llm_ring_init(&in, m.ctl, m.data, SIZE);
            llm_ring_init(&out, m.ctl, m.data, SIZE);
            __atomic_store_n(&m.ctl->head, 0, __ATOMIC_RELAXED);
        }
        if (judged_peek(&out, &m, RECORD_MAX - rnd(&r, 64)) > 0) {
            seen[0]++;
        }
        llm_ring_advance(&out);
        (void) llm_ring_may_sleep(&out);

        len = 8 + rnd(&r, 64);
        h = llm_ring_reserve(&in, len, 0);
        if (h) {
            assert_true(h >= m.data && h + len <= m.data + SIZE);
            memset(h + 8, 1, len - 8);
            llm_ring_commit(&in);
            seen[1]++;
        }
        (void) llm_ring_must_wake(&in);
    }

    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_true(seen[0] > 0 && seen[1] > 0);
    room_close(&m);
}


static void
sizes_that_lie(void **state)
{
    uint32_t i;

    (void) state;
    assert_false(llm_ring_size_ok(0));
    assert_false(llm_ring_size_ok(LLM_RING_MIN / 2));
    assert_false(llm_ring_size_ok(LLM_RING_MIN + 8));
    assert_false(llm_ring_size_ok((uint64_t) LLM_RING_MAX * 2));
    assert_false(llm_ring_size_ok(1ull << 32));
    assert_false(llm_ring_size_ok(1ull << 63));
    assert_false(llm_ring_size_ok(UINT64_MAX));
    for (i = LLM_RING_MIN; i <= LLM_RING_MAX; i *= 2) {
        assert_true(llm_ring_size_ok(i));
        assert_false(llm_ring_size_ok(i - 1));
    }
}


int
main(void)
{
    const struct CMUnitTest all[] = {
        cmocka_unit_test(empty_and_small),
        cmocka_unit_test(sleep_flag),
        cmocka_unit_test(longest_fits_anywhere),
        cmocka_unit_test(random_records),
        cmocka_unit_test(kept_room_is_there),
        cmocka_unit_test(two_threads),
        cmocka_unit_test(two_processes),
        cmocka_unit_test(sizes_that_lie),
        cmocka_unit_test(skips_that_lie),
        cmocka_unit_test(record_that_changes),
        cmocka_unit_test(hostile_producer),
        cmocka_unit_test(hostile_consumer),
        cmocka_unit_test(hostile_at_the_same_time),
    };
    const struct CMUnitTest threads[] = {cmocka_unit_test(two_threads)};
    const char *which = getenv("LLM_RING_TEST");

    /* a call that never returns ends the program, and so the test */
    (void) alarm(240);

    if (which && strcmp(which, "threads") == 0) {
        return cmocka_run_group_tests(threads, NULL, NULL);
    }

    return cmocka_run_group_tests(all, NULL, NULL);
}
