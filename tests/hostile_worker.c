/*
 * A worker that means harm: what an nginx worker that was taken over could do
 * to the engine and, through it, to the other workers.  It attaches as any
 * worker does and then breaks every rule of llm_wire.h that it can break from
 * its own segment and socket.
 *
 *   hostile_worker SOCKET MODE SECONDS [SEED [CASES]]
 *
 * Says at the end how often it was let in, thrown out and what it wrote.  The
 * mode "mutate" is sound but for one field at a time (mutate.h); it ends when
 * it has had its cases.  For t/workers.t and t/mutate.t; nothing here asserts
 * anything about the engine.
 */
#include "mutate.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define CROWD     1000 /* connections at once that say nothing */
#define ANSWER_MS 3000
#define RECORD    (64 * 1024)

typedef struct {
    const char *path;
    int fd; /* -1: not attached */
    llm_msg_welcome_t w;
    uint8_t *seg;
    llm_ring_t submit, event;
    llm_slot_line_t *lines;
} worker_t;

static uint64_t end_ms, seed;
static unsigned long attached, detached, written, cases_max;


static uint64_t
clock_ms(void)
{
    struct timespec ts;

    (void) clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t) ts.tv_sec * 1000 + (uint64_t) ts.tv_nsec / 1000000;
}


static int
goes_on(void)
{
    return clock_ms() < end_ms;
}


static uint64_t
rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}


static void
nap(long ms)
{
    const struct timespec ts = {ms / 1000, ms % 1000 * 1000000};

    (void) nanosleep(&ts, NULL);
}


/* --- the socket --------------------------------------------------------- */

static int
reach(const char *path)
{
    struct sockaddr_un sa;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    memset(&sa, 0, sizeof(sa));
    sa.sun_family = AF_UNIX;
    snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);

    if (fd >= 0 && connect(fd, (const struct sockaddr *) &sa, sizeof(sa))) {
        (void) close(fd);
        fd = -1;
    }

    return fd;
}


/* Sends len bytes and, if fds is set, a few descriptors with them. */
static void
say(int fd, const void *p, size_t len, int fds)
{
    int pass[8] = {0, 1, 2, 0, 1, 2, 0, 1};
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(sizeof(pass))];
    } ctl;
    struct iovec iov = {(void *) (uintptr_t) p, len};
    struct msghdr msg;

    memset(&msg, 0, sizeof(msg));
    memset(&ctl, 0, sizeof(ctl));
    msg.msg_iov = &iov;
    msg.msg_iovlen = 1;

    if (fds) {
        msg.msg_control = ctl.buf;
        msg.msg_controllen = sizeof(ctl.buf);
        CMSG_FIRSTHDR(&msg)->cmsg_level = SOL_SOCKET;
        CMSG_FIRSTHDR(&msg)->cmsg_type = SCM_RIGHTS;
        CMSG_FIRSTHDR(&msg)->cmsg_len = CMSG_LEN(sizeof(pass));
        memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), pass, sizeof(pass));
    }

    written += sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) > 0;
}


static void
leave(worker_t *k)
{
    if (k->seg != NULL) {
        (void) munmap(k->seg, k->w.seg_size);
        k->seg = NULL;
    }
    if (k->fd != -1) {
        (void) close(k->fd);
        k->fd = -1;
    }
}


/* Takes the WELCOME; 0, or -1 when it was something else. */
static int
welcome(worker_t *k)
{
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(2 * sizeof(int))];
    } ctl;
    struct iovec iov = {&k->w, sizeof(k->w)};
    struct msghdr msg;
    int fds[2];

    memset(&msg, 0, sizeof(msg));
    msg.msg_iov = &iov;
    msg.msg_iovlen = 1;
    msg.msg_control = ctl.buf;
    msg.msg_controllen = sizeof(ctl.buf);

    if (recvmsg(k->fd, &msg, MSG_CMSG_CLOEXEC) != (ssize_t) sizeof(k->w)
        || k->w.type != LLM_MSG_WELCOME || CMSG_FIRSTHDR(&msg) == NULL) {
        return -1;
    }

    memcpy(fds, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fds));
    k->seg = mmap(
        NULL, k->w.seg_size, PROT_READ | PROT_WRITE, MAP_SHARED, fds[0], 0);
    (void) close(fds[0]);
    (void) close(fds[1]);
    if (k->seg == MAP_FAILED) {
        k->seg = NULL;
        return -1;
    }

    llm_ring_init(&k->submit,
        (llm_ring_ctl_t *) (void *) (k->seg + k->w.submit_ctl),
        k->seg + k->w.submit_data, k->w.submit_size);
    llm_ring_init(&k->event,
        (llm_ring_ctl_t *) (void *) (k->seg + k->w.event_ctl),
        k->seg + k->w.event_data, k->w.event_size);
    k->lines = (llm_slot_line_t *) (void *) (k->seg + k->w.lines);

    return 0;
}


/* Attaches properly, again if it was thrown out. 0, or -1 for now. */
static int
attach(worker_t *k)
{
    const llm_msg_hello_t hello = {LLM_WIRE_MAGIC, LLM_MSG_HELLO,
        LLM_WIRE_VERSION, LLM_WIRE_VERSION_MIN, (uint32_t) getpid()};
    struct pollfd p;
    char buf[64];
    ssize_t n = -1;

    if (k->fd != -1) {
        while ((n = recv(k->fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0) {
        }
        if (n == -1 && errno == EAGAIN) {
            return 0;
        }
        detached++;
        leave(k);
    }

    k->fd = reach(k->path);
    p.fd = k->fd;
    p.events = POLLIN;
    if (k->fd != -1
        && send(k->fd, &hello, sizeof(hello), MSG_NOSIGNAL) == sizeof(hello)
        && poll(&p, 1, ANSWER_MS) == 1 && welcome(k) == 0) {
        attached++;
        return 0;
    }

    leave(k);
    nap(2);

    return -1;
}


static void
ring(const worker_t *k)
{
    (void) send(k->fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}


/* --- records ------------------------------------------------------------ */

static uint32_t
section(uint8_t *rec, uint32_t at, uint32_t type, const void *p, uint32_t len)
{
    const llm_wire_sec_t sec = {type, len};

    memcpy(rec + at, &sec, sizeof(sec));
    memcpy(rec + at + sizeof(sec), p, len);
    memset(rec + at + sizeof(sec) + len, 0, (8 - (len & 7)) & 7);

    return at + (uint32_t) sizeof(sec) + ((len + 7) & ~7u);
}


/* A sound SUBMIT of one prompt; its length. rec has room for it. */
static uint32_t
submit(const worker_t *k, uint32_t slot, uint32_t gen, uint8_t *rec,
    const char *prompt, uint32_t len)
{
    const char *model = getenv("MODEL");
    llm_wire_submit_t h;
    uint32_t at = sizeof(h);

    if (model == NULL || model[0] == '\0') {
        model = "m"; /* make hands it on empty */
    }
    memset(&h, 0, sizeof(h));
    h.hdr.type = LLM_REC_SUBMIT;
    h.id.epoch = k->w.epoch;
    h.id.slot = slot;
    h.id.gen = gen;
    h.head_len = sizeof(h);
    h.kind = LLM_KIND_TEXT;
    h.flags = LLM_F_IGNORE_EOS;
    h.n = 1;
    h.credit = UINT32_MAX;
    h.temperature = 1;
    h.top_p = 1;
    h.repetition_penalty = 1;
    h.weight = 1;
    at = section(rec, at, LLM_SEC_MODEL, model, (uint32_t) strlen(model));
    /* what JSON must escape, and what a terminal would obey */
    at = section(rec, at, LLM_SEC_TENANT, "hostile\"\x1b[2J\xff", 13);
    at = section(rec, at, LLM_SEC_PROMPT, prompt, len);
    h.hdr.len = at;
    memcpy(rec, &h, sizeof(h));

    return at;
}


static int
push(worker_t *k, const uint8_t *rec, uint32_t len)
{
    uint8_t *p = llm_ring_reserve(&k->submit, len, 0);

    if (p == NULL) {
        return -1;
    }
    memcpy(p, rec, len);
    llm_ring_commit(&k->submit);
    written++;

    return 0;
}


/* --- modes -------------------------------------------------------------- */

/* A crowd that connects, says nothing, and comes again when it is closed. */
static void
silent(worker_t *k)
{
    static int fds[CROWD];
    char c;
    int i;

    memset(fds, -1, sizeof(fds));
    while (goes_on()) {
        for (i = 0; i < CROWD; i++) {
            if (fds[i] != -1 && recv(fds[i], &c, 1, MSG_DONTWAIT) == 0) {
                (void) close(fds[i]);
                fds[i] = -1;
            }
            if (fds[i] == -1) {
                fds[i] = reach(k->path);
                written += fds[i] != -1;
            }
        }
        nap(1);
    }
}


/* First messages of any length and content, with descriptors. */
static void
garbage(worker_t *k)
{
    uint64_t m[512];
    llm_msg_hello_t hello;
    uint32_t i;
    int fd;

    while (goes_on()) {
        fd = reach(k->path);
        if (fd == -1) {
            nap(1);
            continue;
        }
        for (i = 0; i < 512; i++) {
            m[i] = rnd();
        }
        if (rnd() % 2) {
            memset(&hello, 0, sizeof(hello));
            hello.magic = LLM_WIRE_MAGIC;
            hello.type = (uint32_t) (rnd() % 6);
            hello.version = (uint32_t) (rnd() % 4) - 1;
            hello.version_min = (uint32_t) (rnd() % 4) - 1;
            memcpy(m, &hello, sizeof(hello));
        }
        for (i = (uint32_t) (rnd() % 4); i > 0; i--) {
            say(fd, m, rnd() % sizeof(m), rnd() % 2 == 0);
        }
        (void) close(fd);
    }
}


/* Comes, leaves something behind or not, goes. */
static void
churn(worker_t *k)
{
    static uint8_t rec[RECORD];
    uint32_t i, n;

    while (goes_on()) {
        if (attach(k) != 0) {
            continue;
        }
        n = (uint32_t) (rnd() % 8);
        for (i = 0; i < n; i++) {
            (void) push(k, rec, submit(k, i, 1, rec, "hello", 5));
        }
        ring(k);
        if (rnd() % 2) {
            nap(1);
        }
        leave(k);
    }
}


/* Doorbells, nothing but doorbells, of all sizes. */
static void
flood(worker_t *k)
{
    static uint8_t big[65536];
    uint32_t i;

    while (goes_on()) {
        if (attach(k) != 0) {
            continue;
        }
        for (i = 0; i < 256; i++) {
            say(k->fd, big, 1 + rnd() % (i % 16 ? 8 : sizeof(big)),
                i % 64 == 0);
        }
    }
}


/* Writes anything anywhere in its segment, at any time. */
static void
scribble(worker_t *k)
{
    static const uint64_t odd[] = {0, 1, 7, 8, UINT64_MAX, 1ull << 63, 4096};
    const llm_msg_welcome_t *w = &k->w;
    uint64_t at, from, len, i, v;

    while (goes_on()) {
        if (attach(k) != 0) {
            continue;
        }
        for (i = 0; i < 2000; i++) {
            switch (rnd() % 6) {
            case 0:
                from = w->submit_ctl, len = sizeof(llm_ring_ctl_t);
                break;
            case 1:
                from = w->event_ctl, len = sizeof(llm_ring_ctl_t);
                break;
            case 2:
                from = w->lines, len = w->slots * sizeof(llm_slot_line_t);
                break;
            case 3:
                from = w->submit_data, len = w->submit_size;
                break;
            case 4:
                from = w->event_data, len = w->event_size;
                break;
            default:
                from = 0, len = w->seg_size;
                break;
            }
            at = from + rnd() % len / 8 * 8;
            v = rnd();
            v = v % 3 ? v >> (rnd() % 64) : odd[v % 7];
            memcpy(k->seg + at, &v, sizeof(v));
            written++;
        }
        ring(k);
    }
}


/* Sound rings, unsound records: one or a few words of a SUBMIT are changed. */
static void
records(worker_t *k)
{
    static uint8_t rec[RECORD];
    static uint8_t event[LLM_TOKENS_MAX];
    uint32_t i, n, len, gen = 0, v;

    while (goes_on()) {
        if (attach(k) != 0) {
            continue;
        }
        for (i = 0; i < 64; i++) {
            len = submit(k, (uint32_t) rnd() % 32, ++gen, rec, "once", 4);
            for (n = (uint32_t) (rnd() % 4); n > 0; n--) {
                v = (uint32_t) (rnd() >> (rnd() % 64));
                memcpy(rec + 8 + rnd() % (len - 8) / 4 * 4, &v, 4);
            }
            (void) push(k, rec, len);
            k->lines[rnd() % 32].taken = rnd() >> (rnd() % 64);
            k->lines[rnd() % 32].cancel = gen - (uint32_t) (rnd() % 40);
        }
        ring(k);
        while (
            rnd() % 64 && llm_ring_peek(&k->event, event, sizeof(event)) > 0) {
            llm_ring_advance(&k->event);
        }
    }
}


/* Claims that all text was taken, and reads none: credit without end. */
static void
greedy(worker_t *k)
{
    static uint8_t rec[RECORD];
    llm_wire_submit_t h;
    uint32_t i, len;

    while (goes_on()) {
        if (attach(k) != 0) {
            continue;
        }
        for (i = 0; i < 64 && k->submit.pos < (1 << 14); i++) {
            k->lines[i].taken = UINT64_MAX;
            len = submit(k, i, 1, rec, "hello", 5);
            memcpy(&h, rec, sizeof(h));
            h.n = LLM_CHOICES_MAX;
            h.flags |= LLM_F_LOGPROBS;
            h.top_logprobs = LLM_TOP_LOGPROBS_MAX;
            memcpy(rec, &h, sizeof(h));
            (void) push(k, rec, len);
        }
        ring(k);
        nap(20);
    }
}


/* As many requests as there is room for, none of which ever goes on. */
static void
hog(worker_t *k)
{
    static uint8_t rec[RECORD], event[LLM_TOKENS_MAX];
    static uint32_t gen[LLM_SLOTS_MAX];
    llm_wire_submit_t h;
    llm_wire_error_t e;
    uint32_t i, len;

    while (goes_on()) {
        if (attach(k) != 0) {
            continue;
        }
        if (k->submit.pos == 0) {
            memset(gen, 0, sizeof(gen));
        }
        for (i = 0; i < k->w.slots; i++) {
            if (gen[i] % 2 == 0) {
                len = submit(k, i, gen[i] + 1, rec, "hello", 5);
                memcpy(&h, rec, sizeof(h));
                h.credit = 1;
                memcpy(rec, &h, sizeof(h));
                gen[i] += push(k, rec, len) == 0;
            }
        }
        ring(k);
        while (llm_ring_peek(&k->event, event, sizeof(event)) > 0) {
            llm_ring_advance(&k->event);
            memcpy(&e, event, sizeof(e));
            gen[e.id.slot % LLM_SLOTS_MAX] += e.hdr.type == LLM_REC_ERROR;
        }
        nap(1);
    }
}


/* Uses slots again and again and reads no end of any. */
static void
reuse(worker_t *k)
{
    static uint8_t rec[RECORD];
    uint32_t gen = 0, len;

    while (goes_on()) {
        if (attach(k) != 0) {
            continue;
        }
        gen++;
        len = submit(k, gen % 8, gen, rec, "", 0);
        if (push(k, rec, len) != 0) {
            nap(1);
        }
        ring(k);
    }
}


/* Prompts that take long to turn into tokens, as many as it has slots. */
static void
prompts(worker_t *k)
{
    static uint8_t event[LLM_TOKENS_MAX];
    static char text[RECORD - 4096];
    static uint8_t rec[RECORD];
    uint32_t i, len, gen = 0;

    for (i = 0; i < sizeof(text); i++) {
        text[i] = (char) (i % 7 ? 'a' + rnd() % 26 : ' ');
    }

    while (goes_on()) {
        if (attach(k) != 0) {
            continue;
        }
        gen++;
        len = submit(k, gen % k->w.slots, gen, rec, text, sizeof(text));
        if (push(k, rec, len) != 0) {
            nap(1);
        }
        ring(k);
        while (llm_ring_peek(&k->event, event, sizeof(event)) > 0) {
            llm_ring_advance(&k->event);
        }
    }
}


/* --- one field at a time ------------------------------------------------ */

#define MUTATE_WAIT_MS 1000 /* for an answer that always comes */
#define MUTATE_LOOK_MS 1    /* for one that may */
#define MUTATE_STAY    64   /* cases of one attachment */
#define MUTATE_OURS                                                            \
    (1u << MUTATE_MESSAGE | 1u << MUTATE_HELLO | 1u << MUTATE_SEG              \
        | 1u << MUTATE_SUBMIT_CTL | 1u << MUTATE_EVENT_CTL | 1u << MUTATE_LINE \
        | 1u << MUTATE_SUBMIT | 1u << MUTATE_SEC | 1u << MUTATE_ADMIT)

static unsigned long unread; /* records that were not looked at in time */


/* Has the engine thrown us out?  Takes its doorbells on the way. */
static int
thrown_out(const worker_t *k)
{
    char buf[64];
    ssize_t n;

    while ((n = recv(k->fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0) {
    }

    return n == 0 || errno != EAGAIN;
}


/* Takes all events; 1 if one of type was among them. */
static int
take_events(worker_t *k, uint32_t type)
{
    static uint8_t event[LLM_TOKENS_MAX];
    llm_ring_hdr_t h;
    int found = 0;

    while (llm_ring_peek(&k->event, event, sizeof(event)) > 0) {
        llm_ring_advance(&k->event);
        memcpy(&h, event, sizeof(h));
        found |= h.type == type;
    }

    return found;
}


/* Until the engine has read all that was submitted, or has thrown us out. */
static void
wait_read(worker_t *k)
{
    uint64_t end = clock_ms() + MUTATE_WAIT_MS;

    ring(k);
    while (__atomic_load_n(&k->submit.ctl->head, __ATOMIC_ACQUIRE)
           != k->submit.pos) {
        if (thrown_out(k)) {
            return;
        }
        if (clock_ms() > end) {
            unread++;
            return;
        }
        (void) take_events(k, 0);
        (void) sched_yield();
    }
}


/* A first message that is no sound hello, and what comes back. */
static void
mutate_hello(worker_t *k, mutate_t *m, uint32_t row)
{
    uint8_t buf[2 * sizeof(llm_msg_hello_t)];
    llm_msg_hello_t hello = {LLM_WIRE_MAGIC, LLM_MSG_HELLO, LLM_WIRE_VERSION,
        LLM_WIRE_VERSION_MIN, (uint32_t) getpid()};
    struct pollfd p;
    size_t len = sizeof(hello);
    int fds = 0;

    if (mutate_rows[row].kind == MUTATE_HELLO) {
        mutate_field(m, row, &hello);
    } else {
        switch (mutate_rows[row].at) {
        case MUTATE_EMPTY:
            len = 0;
            break;
        case MUTATE_SHORT:
            len = mutate_random(m) % len;
            break;
        case MUTATE_LONG:
            len += 1 + mutate_random(m) % len;
            break;
        default:
            fds = 1;
            break;
        }
        m->count[row]++;
        m->cases++;
    }

    memset(buf, 0xff, sizeof(buf));
    memcpy(buf, &hello, sizeof(hello));
    p.fd = reach(k->path);
    p.events = POLLIN;
    if (p.fd != -1) {
        say(p.fd, buf, len, fds);
        (void) poll(&p, 1, MUTATE_WAIT_MS);
        (void) close(p.fd);
    }
}


/* A SUBMIT with a section of each kind; its length. */
static uint32_t
submit_rich(
    const worker_t *k, mutate_t *m, uint32_t slot, uint32_t gen, uint8_t *rec)
{
    static const char chat[] = "[{\"role\":\"user\",\"content\":\"x\"}]";
    const llm_wire_bias_t bias = {7, 1.5f};
    const uint32_t ids[] = {1, 2, 3};
    uint32_t len = submit(k, slot, gen, rec, "hello", 5), at = len;
    llm_wire_submit_t h;

    memcpy(&h, rec, sizeof(h));
    h.max_tokens = 3;
    if (mutate_random(m) % 3 == 0) {
        /* the prompt is the last section, of 16 bytes */
        h.kind = LLM_KIND_CHAT;
        at = section(
            rec, len - 16, LLM_SEC_MESSAGES, chat, (uint32_t) sizeof(chat) - 1);
    } else {
        at = section(rec, at, LLM_SEC_PROMPT_IDS, ids, sizeof(ids));
    }
    at = section(rec, at, LLM_SEC_STOP, "stop", 4);
    at = section(rec, at, LLM_SEC_BIAS, &bias, sizeof(bias));
    at = section(rec, at, LLM_SEC_REQUEST_ID, "case", 4);
    if (mutate_random(m) % 2) {
        h.flags |= LLM_F_LOGPROBS;
        h.top_logprobs = 2;
    }
    h.hdr.len = at;
    memcpy(rec, &h, sizeof(h));

    return at;
}


/* The place of a section's head in a SUBMIT, picked at random. */
static uint8_t *
pick_section(mutate_t *m, uint8_t *rec, uint32_t len)
{
    uint32_t at = 0, place[16], n = 0, head = (uint32_t) sizeof(llm_wire_sec_t);
    const uint8_t *body;
    llm_wire_sec_t sec;

    while (n < 16 && llm_submit_section(rec, len, &at, &sec, &body) == 1) {
        place[n++] = (uint32_t) (body - rec) - head;
    }

    return rec + place[mutate_random(m) % n];
}


/* A changed SUBMIT, or a sound one whose ADMIT is changed. */
static void
mutate_record(
    worker_t *k, mutate_t *m, uint32_t row, uint32_t slot, uint32_t gen)
{
    static _Alignas(8) uint8_t rec[RECORD];
    uint32_t kind = mutate_rows[row].kind;
    uint32_t len = submit_rich(k, m, slot, gen, rec);
    uint64_t end = clock_ms() + MUTATE_WAIT_MS;
    llm_wire_submit_t h;
    llm_wire_admit_t a;
    uint8_t *p;

    memcpy(&h, rec, sizeof(h));
    if (kind == MUTATE_ADMIT) {
        h.flags |= LLM_F_HOLD;
        memcpy(rec, &h, sizeof(h));
        if (push(k, rec, len) != 0) {
            return;
        }
        wait_read(k);
        while (!take_events(k, LLM_REC_COUNTED) && !thrown_out(k)
               && clock_ms() < end) {
            (void) sched_yield();
        }
        memset(&a, 0, sizeof(a));
        a.hdr.len = len = sizeof(a);
        a.hdr.type = LLM_REC_ADMIT;
        a.id = h.id;
        a.max_tokens = 2;
        memcpy(rec, &a, sizeof(a));
    }

    /* in the ring, so that its length in there is changed, too */
    p = llm_ring_reserve(&k->submit, len, 0);
    if (p == NULL) {
        return;
    }
    memcpy(p, rec, len);
    mutate_field(m, row, kind == MUTATE_SEC ? pick_section(m, p, len) : p);
    llm_ring_commit(&k->submit);
    written++;
    wait_read(k);
}


/* A changed word, beside a request that runs. */
static void
mutate_word(worker_t *k, mutate_t *m, uint32_t row, uint32_t slot, uint32_t gen)
{
    static _Alignas(8) uint8_t rec[RECORD];
    struct pollfd p = {k->fd, POLLIN, 0};

    (void) push(k, rec, submit_rich(k, m, slot, gen, rec));
    wait_read(k);
    if (thrown_out(k)) {
        return;
    }

    switch (mutate_rows[row].kind) {
    case MUTATE_SEG:
        mutate_field(m, row, k->seg);
        break;
    case MUTATE_SUBMIT_CTL:
        mutate_field(m, row, k->submit.ctl);
        break;
    case MUTATE_EVENT_CTL:
        mutate_field(m, row, k->event.ctl);
        break;
    default:
        mutate_field(m, row, &k->lines[slot]);
        break;
    }
    ring(k);
    (void) poll(&p, 1, MUTATE_LOOK_MS);
    written++;
}


static void
mutate(worker_t *k)
{
    const char *name = "nothing";
    uint32_t row = 0, kind, gen = 0, slot, least;
    mutate_t m;

    mutate_open(&m, seed);
    while (goes_on() && m.cases < cases_max) {
        if (attach(k) != 0) {
            continue;
        }
        gen++;
        slot = gen % k->w.slots;
        kind = mutate_rows[mutate_next(&row, MUTATE_OURS)].kind;
        if (kind == MUTATE_HELLO || kind == MUTATE_MESSAGE) {
            mutate_hello(k, &m, row);
        } else if (kind == MUTATE_SUBMIT || kind == MUTATE_SEC
                   || kind == MUTATE_ADMIT) {
            mutate_record(k, &m, row, slot, gen);
        } else {
            mutate_word(k, &m, row, slot, gen);
        }

        /* whatever became of it, it is to make room */
        __atomic_store_n(&k->lines[slot].cancel, gen, __ATOMIC_RELEASE);
        ring(k);
        (void) take_events(k, 0);
        if (gen % MUTATE_STAY == 0) {
            leave(k);
        }
    }

    least = mutate_least(&m, MUTATE_OURS, &name);
    printf("mutated %llu in all, %s least: %u, not read %lu\n",
        (unsigned long long) m.cases, name, least, unread);
}


/*
 * Not hostile: as a worker of another version would, its fixed parts are more
 * (or less) than ours by so many bytes.  Says how the request ended.
 */
static void
version(worker_t *k, int more)
{
    static _Alignas(8) uint8_t rec[RECORD], longer[RECORD];
    uint8_t hello[sizeof(llm_msg_hello_t) + 32];
    const llm_msg_hello_t h = {LLM_WIRE_MAGIC, LLM_MSG_HELLO,
        LLM_WIRE_VERSION + (more > 0), LLM_WIRE_VERSION_MIN,
        (uint32_t) getpid()};
    uint32_t grow = more > 0 ? (uint32_t) more : 0, at, len, head;
    int counted = 0, done = 0;
    llm_wire_submit_t s;
    llm_wire_admit_t a;
    struct pollfd p;

    memset(hello, 0xff, sizeof(hello));
    memcpy(hello, &h, sizeof(h));
    k->fd = reach(k->path);
    p.fd = k->fd;
    p.events = POLLIN;
    if (k->fd == -1 || send(k->fd, hello, sizeof(h) + grow, MSG_NOSIGNAL) == -1
        || poll(&p, 1, ANSWER_MS) != 1 || welcome(k) != 0) {
        printf("version %+d: not attached\n", more);
        return;
    }

    /* a record that is not known, then a SUBMIT with a section that is not */
    memset(longer, 0xff, 64);
    s.hdr.len = 40;
    s.hdr.type = 99;
    s.hdr.flags = 0;
    memcpy(longer, &s.hdr, sizeof(s.hdr));
    if (more > 0) {
        (void) push(k, longer, 40);
    }
    len = submit(k, 0, 1, rec, "hello", 5);
    memcpy(&s, rec, sizeof(s));
    head = (uint32_t) ((int) sizeof(s) + more);
    s.head_len = head;
    s.flags |= LLM_F_HOLD;
    s.max_tokens = 5;
    memset(longer, 0xff, sizeof(s) + grow);
    at = section(rec, len, 99, "what is that", 12);
    memcpy(longer, &s, more < 0 ? head : sizeof(s));
    memcpy(longer + head, rec + sizeof(s), at - sizeof(s));
    s.hdr.len = head + at - (uint32_t) sizeof(s);
    memcpy(longer, &s.hdr, sizeof(s.hdr));
    (void) push(k, longer, s.hdr.len);
    ring(k);

    while (goes_on() && !done && !thrown_out(k)) {
        if (!counted && (counted = take_events(k, LLM_REC_COUNTED)) != 0) {
            memset(&a, 0, sizeof(a));
            a.hdr.len = (uint32_t) sizeof(a) + grow;
            a.hdr.type = LLM_REC_ADMIT;
            a.id = s.id;
            memset(longer, 0xff, sizeof(a) + grow);
            memcpy(longer, &a, sizeof(a));
            (void) push(k, longer, a.hdr.len);
            ring(k);
        }
        done = counted && take_events(k, LLM_REC_DONE);
        nap(1);
    }
    printf("version %+d: counted %d, done %d\n", more, counted, done);
}


static void
newer(worker_t *k)
{
    version(k, 16);
}


static void
older(worker_t *k)
{
    version(k, -8);
}


int
main(int argc, char **argv)
{
#define M(name)                                                                \
    {                                                                          \
#name, name                                                            \
    }
    static const struct {
        const char *name;
        void (*run)(worker_t *k);
    } modes[] = {M(silent), M(garbage), M(churn), M(flood), M(scribble),
        M(records), M(greedy), M(hog), M(reuse), M(prompts), M(mutate),
        M(newer), M(older)};
#undef M
    worker_t k;
    size_t i;

    if (argc < 4) {
        fprintf(stderr,
            "usage: hostile_worker SOCKET MODE SECONDS [SEED [CASES]]\n");
        return 2;
    }

    memset(&k, 0, sizeof(k));
    k.path = argv[1];
    k.fd = -1;
    end_ms = clock_ms() + (uint64_t) (atof(argv[3]) * 1000);
    cases_max = argc > 5 ? strtoul(argv[5], NULL, 0) : 1000;
    seed = argc > 4 ? strtoull(argv[4], NULL, 0) * 2654435761u + 1 : 88172645;

    for (i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        if (strcmp(argv[2], modes[i].name) == 0) {
            modes[i].run(&k);
            leave(&k);
            printf("%s: attached %lu times, thrown out %lu times, wrote %lu\n",
                argv[2], attached, detached, written);
            return 0;
        }
    }

    fprintf(stderr, "hostile_worker: no mode \"%s\"\n", argv[2]);

    return 2;
}
