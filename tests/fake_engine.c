/*
 * An engine without a model, for tests of the nginx module: it attaches
 * workers as the real one does and answers every request with counted words,
 * or misbehaves in one of the ways that its command line names.
 *
 * DESIGN.  One thread and poll().  Nothing is shared with the real engine but
 * the wire's headers, so a mistake there does not hide one here.  Tokens are
 * paced by --rate and by the client's credit, cancels end a request at its
 * next token.  With --stamps a token's text is two times, in ns of
 * CLOCK_MONOTONIC: when its SUBMIT was seen, and now (tests/bench).  Each
 * happening is one line on stdout, for tests to wait for:
 *
 *     listening | attach EPOCH pid=P | submit EPOCH SLOT len=N | stall SLOT
 *     cancel EPOCH SLOT tokens=N | done EPOCH SLOT | detach EPOCH held=N
 *     silent SLOT (all tokens, and --never-done)
 *
 * With --hold no token is sent before SIGUSR1 comes.
 *
 * With --mutate it is sound but for one field at a time (mutate.h): of the
 * welcome, the segment, the state page, a ring's words or a record.  It says
 * nothing then but how many cases there were.
 *
 * SIGTERM drains: no request is cut, then exit 0.
 */
#include "fake_options.h"
#include "llm_err.h"
#include "mutate.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define PEERS_MAX  64
#define RECORD_MAX (2u << 20)

typedef struct {
    llm_wire_submit_t head;
    uint64_t sent;   /* payload bytes */
    uint64_t due_us; /* of the next token */
    uint64_t seen_ns;
    uint32_t gen; /* 0: the slot is free */
    uint32_t at;  /* tokens sent, of each choice */
    uint32_t max;
    uint32_t choices;
    int stalled;
    int silent;
    int held; /* waits for ADMIT */

    /* --mutate */
    uint32_t row;     /* what becomes of it; MUTATE_ROWS: nothing more */
    uint32_t row_at;  /* at which token */
    uint64_t late_us; /* when its sound end follows the other; 0: never */
} job_t;

typedef struct {
    int fd; /* -1: unused */
    int hello;
    uint8_t *seg;
    uint64_t seg_size;
    llm_slot_line_t *lines;
    llm_ring_t submit, event;
    uint32_t epoch;
    uint32_t held;
    job_t *jobs; /* [slots] */

    /* --mutate */
    llm_state_t *state; /* its own; NULL: the one for all */
    uint64_t pause_us;  /* until then nothing is put right */
    uint64_t close_us;  /* when it has had its time; 0: never */
} peer_t;

typedef struct {
    options_t o;
    peer_t peers[PEERS_MAX];
    llm_state_t *state;
    int state_fd, listen_fd;
    uint32_t epoch;
    uint64_t tokens_sent;
    uint8_t *rec; /* [RECORD_MAX] */
    mutate_t mutate;
    uint32_t first_row, row; /* the last ones of a handshake, of a request */
} fake_t;

/* What is changed in the handshake, and what in an attachment at work. */
#define FAKE_FIRST                                                             \
    (1u << MUTATE_MESSAGE | 1u << MUTATE_WELCOME | 1u << MUTATE_SEG            \
        | 1u << MUTATE_STATE)
#define FAKE_WORDS                                                             \
    (1u << MUTATE_SEG | 1u << MUTATE_STATE | 1u << MUTATE_SUBMIT_CTL           \
        | 1u << MUTATE_EVENT_CTL | 1u << MUTATE_LINE)
#define FAKE_RECORDS                                                           \
    (1u << MUTATE_COUNTED | 1u << MUTATE_TOKENS | 1u << MUTATE_LP              \
        | 1u << MUTATE_DONE | 1u << MUTATE_ERROR)
#define FAKE_TELL 100   /* cases between two lines */
#define FAKE_LOOK 3000  /* microseconds for a worker to see a word */
#define FAKE_LIFE 30000 /* the same, of an attachment that began with one */

static volatile sig_atomic_t fake_term, fake_go;


static void
fake_on_term(int sig)
{
    (void) sig;
    fake_term = 1;
}


static void
fake_on_go(int sig)
{
    (void) sig;
    fake_go = 1;
}


static uint64_t
fake_now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t) ts.tv_sec * 1000000000 + (uint64_t) ts.tv_nsec;
}


static uint64_t
fake_now_us(void)
{
    return fake_now_ns() / 1000;
}


/* a token's text; its length */
static uint32_t
fake_text(const fake_t *f, const job_t *j, char *text, size_t size)
{
    if (f->o.stamps) {
        return (uint32_t) snprintf(text, size, "%llu %llu ",
            (unsigned long long) j->seen_ns,
            (unsigned long long) fake_now_ns());
    }

    return (uint32_t) snprintf(text, size, "w%u ", j->at);
}


static void
fake_die(const char *what)
{
    fprintf(stderr, "fake_engine: %s: %s\n", what, strerror(errno));
    exit(1);
}


static int
fake_memfd(const char *name, size_t size)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd == -1 || ftruncate(fd, (off_t) size) == -1) {
        fake_die("memfd");
    }

    return fd;
}


static void
fake_open_state(fake_t *f)
{
    llm_state_t *s;

    f->state_fd = fake_memfd("state", LLM_STATE_SIZE);
    s = mmap(NULL, LLM_STATE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
        f->state_fd, 0);
    if (s == MAP_FAILED) {
        fake_die("mmap");
    }

    s->magic = LLM_WIRE_MAGIC;
    s->version = LLM_WIRE_VERSION;
    s->size = sizeof(llm_state_t) + f->o.more;
    s->ready = !f->o.not_ready;
    s->models_n = 1;
    s->pid = (uint32_t) getpid();
    snprintf(s->models[0].name, LLM_NAME_MAX, "%s", f->o.model);
    s->models[0].created = 1700000000;
    s->models[0].context = 4096;
    s->blocks_total = 100;
    s->blocks_free = 100;
    f->state = s;

    if (fcntl(
            f->state_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
        == -1) {
        fake_die("F_ADD_SEALS");
    }
}


static void
fake_open_socket(fake_t *f)
{
    struct sockaddr_un sa;

    memset(&sa, 0, sizeof(sa));
    sa.sun_family = AF_UNIX;
    snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", f->o.listen);
    unlink(f->o.listen);

    f->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (f->listen_fd == -1
        || bind(f->listen_fd, (struct sockaddr *) &sa, sizeof(sa)) == -1
        || chmod(f->o.listen, 0666) == -1 || listen(f->listen_fd, 64) == -1) {
        fake_die(f->o.listen);
    }
}


static void
fake_detach(peer_t *p)
{
    printf("detach %u held=%u\n", p->epoch, p->held);
    close(p->fd);
    free(p->jobs);
    if (p->seg != NULL) {
        munmap(p->seg, p->seg_size);
    }
    if (p->state != NULL) {
        munmap(p->state, LLM_STATE_SIZE);
    }
    memset(p, 0, sizeof(*p));
    p->fd = -1;
}


static void
fake_refuse(fake_t *f, peer_t *p)
{
    llm_msg_refuse_t m;

    (void) f;
    memset(&m, 0, sizeof(m));
    m.magic = LLM_WIRE_MAGIC;
    m.type = LLM_MSG_REFUSE;
    m.err = LLM_ERR_BUSY;
    m.version = LLM_WIRE_VERSION;
    m.version_min = LLM_WIRE_VERSION_MIN;
    snprintf(m.text, sizeof(m.text), "too many\nworkers");
    (void) !send(p->fd, &m, sizeof(m), MSG_NOSIGNAL);
}


/* the segment, and the welcome that describes it */
static int
fake_segment(fake_t *f, peer_t *p, llm_msg_welcome_t *m)
{
    llm_seg_head_t *head;
    int fd;

    memset(m, 0, sizeof(*m));
    m->magic = LLM_WIRE_MAGIC;
    m->type = LLM_MSG_WELCOME;
    m->version = LLM_WIRE_VERSION;
    m->epoch = ++f->epoch;
    m->slots = f->o.slots;
    m->submit_size = f->o.mutate ? 64u << 10 : 4u << 20;
    /* what llm_welcome_ok() asks of many slots */
    m->event_size = m->slots > 1024 ? 8u << 20 : 1u << 20;
    if (f->o.mutate) {
        m->event_size = 64u << 10;
    }
    m->credit_max = 256u << 10;
    m->submit_ctl = LLM_SEG_HEAD;
    m->event_ctl = m->submit_ctl + sizeof(llm_ring_ctl_t);
    m->lines = m->event_ctl + sizeof(llm_ring_ctl_t);
    m->submit_data = (m->lines + m->slots * sizeof(llm_slot_line_t) + 4095)
                     & ~(uint64_t) 4095;
    m->event_data = m->submit_data + m->submit_size;
    m->seg_size = m->event_data + m->event_size;
    m->state_size = LLM_STATE_SIZE;

    fd = fake_memfd("segment", m->seg_size);
    p->seg = mmap(NULL, m->seg_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p->seg == MAP_FAILED
        || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
               == -1) {
        fake_die("segment");
    }

    head = (llm_seg_head_t *) (void *) p->seg;
    head->magic = LLM_WIRE_MAGIC;
    head->version = LLM_WIRE_VERSION;
    head->epoch = m->epoch;

    p->epoch = m->epoch;
    p->seg_size = m->seg_size;
    p->lines = (llm_slot_line_t *) (void *) (p->seg + m->lines);
    p->jobs = calloc(m->slots, sizeof(job_t));
    llm_ring_init(&p->submit,
        (llm_ring_ctl_t *) (void *) (p->seg + LLM_SEG_HEAD),
        p->seg + m->submit_data, m->submit_size);
    llm_ring_init(&p->event,
        (llm_ring_ctl_t *) (void *) (p->seg + m->event_ctl),
        p->seg + m->event_data, m->event_size);

    return fd;
}


static void
fake_send(int fd, const void *m, size_t len, const int *fds, size_t n)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(2 * sizeof(int))];
    } control;
    struct cmsghdr *c;
    struct msghdr msg;
    struct iovec iov = {(void *) (uintptr_t) m, len};

    memset(&msg, 0, sizeof(msg));
    memset(&control, 0, sizeof(control));
    msg.msg_iov = &iov;
    msg.msg_iovlen = 1;

    if (n > 0) {
        msg.msg_control = &control;
        msg.msg_controllen = CMSG_SPACE(n * sizeof(int));
        c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(n * sizeof(int));
        memcpy(CMSG_DATA(c), fds, n * sizeof(int));
    }

    (void) !sendmsg(fd, &msg, MSG_NOSIGNAL);
}


/* now and then, how many cases there have been */
static void
fake_tell(fake_t *f, int last)
{
    const mutate_t *m = &f->mutate;
    const char *name = "nothing";
    uint32_t least;

    if (last || m->cases % FAKE_TELL == 0) {
        least = mutate_least(m, FAKE_FIRST | FAKE_WORDS | FAKE_RECORDS, &name);
        fprintf(stderr, "mutated %llu%s, %s least: %u\n",
            (unsigned long long) m->cases, last ? " in all" : "", name, least);
    }
}


/* A state page that is this peer's alone, for what is done to it. */
static int
fake_own_state(fake_t *f, peer_t *p)
{
    int fd = fake_memfd("state", LLM_STATE_SIZE);

    p->state =
        mmap(NULL, LLM_STATE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p->state == MAP_FAILED) {
        fake_die("mmap");
    }
    memcpy(p->state, f->state, LLM_STATE_SIZE);

    return fd;
}


/* The handshake, changed in one place two times of three. */
static void
fake_mutate_welcome(fake_t *f, peer_t *p, llm_msg_welcome_t *m, int *fds)
{
    uint32_t row = MUTATE_ROWS, kind = MUTATE_KINDS, what = MUTATE_MESSAGES;
    size_t len = sizeof(*m), n = 2;
    int state_fd = fake_own_state(f, p), odd = -1, pair[2];
    uint8_t buf[2 * sizeof(*m)];

    if (mutate_random(&f->mutate) % 3) {
        row = mutate_next(&f->first_row, FAKE_FIRST);
        kind = mutate_rows[row].kind;
        p->close_us = fake_now_us() + FAKE_LIFE;
    }

    if (kind == MUTATE_WELCOME) {
        mutate_field(&f->mutate, row, m);
    } else if (kind == MUTATE_SEG) {
        mutate_field(&f->mutate, row, p->seg);
    } else if (kind == MUTATE_STATE) {
        mutate_field(&f->mutate, row, p->state);
    } else if (kind == MUTATE_MESSAGE) {
        what = mutate_rows[row].at;
        f->mutate.count[row]++;
        f->mutate.cases++;
    }

    if (what != MUTATE_UNSEALED
        && fcntl(
               state_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
               == -1) {
        fake_die("F_ADD_SEALS");
    }

    if (what == MUTATE_NO_MEMFD) {
        odd = open("/dev/zero", O_RDWR | O_CLOEXEC);
    } else if (what == MUTATE_TOO_SMALL) {
        odd = fake_memfd("small", 4096);
    }

    memset(buf, 0xff, sizeof(buf));
    memcpy(buf, m, sizeof(*m));
    len = what == MUTATE_EMPTY   ? 0
          : what == MUTATE_SHORT ? mutate_random(&f->mutate) % len
          : what == MUTATE_LONG  ? len + 1 + mutate_random(&f->mutate) % len
                                 : len;
    n = what == MUTATE_NO_FDS ? 0 : what == MUTATE_ONE_FD ? 1 : 2;
    pair[0] = what == MUTATE_SWAPPED ? state_fd : odd != -1 ? odd : fds[0];
    pair[1] = what == MUTATE_SWAPPED ? fds[0] : state_fd;
    fake_send(p->fd, buf, len, pair, n);
    fake_tell(f, 0);

    (void) close(state_fd);
    if (odd != -1) {
        (void) close(odd);
    }
}


static void
fake_welcome(fake_t *f, peer_t *p, uint32_t pid)
{
    uint8_t buf[sizeof(llm_msg_welcome_t) + MORE_MAX];
    llm_msg_welcome_t m;
    int fds[2];

    fds[0] = fake_segment(f, p, &m);
    fds[1] = f->state_fd;

    if (f->o.bad_version) {
        m.version = LLM_WIRE_VERSION + 7;
    }

    printf("attach %u pid=%u\n", p->epoch, pid);
    if (f->o.mutate) {
        fake_mutate_welcome(f, p, &m, fds);
    } else {
        memset(buf, 0xff, sizeof(buf));
        memcpy(buf, &m, sizeof(m));
        fake_send(p->fd, buf, sizeof(m) + f->o.more, fds, 2);
    }
    close(fds[0]);
    p->hello = 1;
}


static void
fake_accept(fake_t *f)
{
    int i, fd;

    fd = accept4(f->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd == -1) {
        return;
    }

    for (i = 0; i < PEERS_MAX; i++) {
        if (f->peers[i].fd == -1) {
            f->peers[i].fd = fd;
            return;
        }
    }

    close(fd);
}


/* hello, doorbell or EOF */
static void
fake_read(fake_t *f, peer_t *p)
{
    llm_msg_hello_t m;
    ssize_t n;

    n = recv(p->fd, &m, sizeof(m), 0);

    if (n <= 0) {
        if (n == 0 || errno != EAGAIN) {
            fake_detach(p);
        }
        return;
    }

    if (p->hello || f->o.hang_hello || n != (ssize_t) sizeof(m)
        || m.type != LLM_MSG_HELLO) {
        return;
    }

    if (f->o.refuse) {
        fake_refuse(f, p);
        fake_detach(p);
        return;
    }

    fake_welcome(f, p, m.pid);
}


static void
fake_wake(peer_t *p)
{
    if (llm_ring_must_wake(&p->event)) {
        (void) !send(p->fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
}


/* Room for a record, and what a newer version has behind it. */
static void *
fake_reserve(fake_t *f, peer_t *p, uint32_t len)
{
    uint8_t *rec = llm_ring_reserve(&p->event, len + f->o.more, 0);

    if (rec != NULL) {
        memset(rec + len, 0xff, f->o.more);
    }

    return rec;
}


/*
 * Publishes a record, changed if it is the one that its request was to have
 * changed; 1 then.
 */
static int
fake_commit(fake_t *f, peer_t *p, job_t *j, uint32_t kind, void *rec)
{
    llm_wire_tokens_t t;
    uint8_t *at = rec;
    uint32_t was = j->row;
    int mine;

    mine = was < MUTATE_ROWS
           && (mutate_rows[was].kind == kind
               || (kind == MUTATE_TOKENS && mutate_rows[was].kind == MUTATE_LP))
           && (kind != MUTATE_TOKENS || j->at == j->row_at);

    if (mine) {
        if (mutate_rows[was].kind == MUTATE_LP) {
            memcpy(&t, rec, LLM_TOKENS_HEAD);
            at += LLM_TOKENS_HEAD + ((t.text_len + 3) & ~3u);
            /* the first entry or the last */
            if (t.lp_len == 0) {
                mine = 0;
            } else if (mutate_random(&f->mutate) % 2) {
                at += t.lp_len - t.lp_len / (1 + j->head.top_logprobs);
            }
        }
    }

    if (mine) {
        mutate_field(&f->mutate, was, at);
        j->row = MUTATE_ROWS;
        fake_tell(f, 0);
    }

    llm_ring_commit(&p->event);
    fake_wake(p);

    return mine;
}


/* Changes a word of the segment or of the state page, while all goes on. */
static void
fake_mutate_word(fake_t *f, peer_t *p, uint32_t slot)
{
    uint32_t row = p->jobs[slot].row;

    switch (mutate_rows[row].kind) {
    case MUTATE_SEG:
        mutate_field(&f->mutate, row, p->seg);
        break;
    case MUTATE_STATE:
        mutate_field(&f->mutate, row, p->state);
        break;
    case MUTATE_SUBMIT_CTL:
        mutate_field(&f->mutate, row, p->submit.ctl);
        break;
    case MUTATE_EVENT_CTL:
        mutate_field(&f->mutate, row, p->event.ctl);
        break;
    case MUTATE_LINE:
        mutate_field(&f->mutate, row, &p->lines[slot]);
        break;
    default:
        return;
    }

    p->jobs[slot].row = MUTATE_ROWS;
    p->pause_us = fake_now_us() + FAKE_LOOK;
    (void) !send(p->fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    fake_tell(f, 0);
}


/* nonsense of the kind asked for, in answer to a request */
static void
fake_garbage(fake_t *f, peer_t *p, uint32_t slot)
{
    const char *kind = f->o.garbage;
    llm_wire_tokens_t *t;
    llm_ring_ctl_t *ctl = p->event.ctl;

    if (!strcmp(kind, "tail")) {
        __atomic_store_n(&ctl->tail, 1ull << 62, __ATOMIC_RELEASE);
        fake_wake(p);
        return;
    }

    t = llm_ring_reserve(&p->event, sizeof(*t), 0);
    if (t == NULL) {
        return;
    }

    memset((uint8_t *) t + sizeof(t->hdr), 0, sizeof(*t) - sizeof(t->hdr));
    t->hdr.type = LLM_REC_TOKENS;
    t->id.epoch = p->epoch;
    t->id.slot = slot;
    t->id.gen = p->jobs[slot].gen;

    if (!strcmp(kind, "len")) {
        t->hdr.len = 0x7fffffff;
    } else if (!strcmp(kind, "type")) {
        t->hdr.type = 77;
    } else if (!strcmp(kind, "epoch")) {
        t->id.epoch ^= 1;
    } else if (!strcmp(kind, "slot")) {
        t->id.slot = 0xffffffff;
    } else if (!strcmp(kind, "gen")) {
        t->id.gen += 1;
    } else if (!strcmp(kind, "choice")) {
        t->choice = LLM_CHOICES_MAX - 1;
    } else if (!strcmp(kind, "text")) {
        t->text_len = 0xfffffff0;
    } else if (!strcmp(kind, "done")) {
        t->hdr.type = LLM_REC_DONE; /* too short for one */
    }

    llm_ring_commit(&p->event);
    fake_wake(p);
}


static void
fake_end(fake_t *f, peer_t *p, uint32_t slot, uint32_t err)
{
    job_t *j = &p->jobs[slot];
    llm_wire_done_t *d;
    llm_wire_error_t *e;
    int changed;

    if (err == 0) {
        d = fake_reserve(f, p, sizeof(*d));
        if (d == NULL) {
            return; /* again at the next turn */
        }
        memset((uint8_t *) d + sizeof(d->hdr), 0, sizeof(*d) - sizeof(d->hdr));
        d->hdr.type = LLM_REC_DONE;
        d->id = j->head.id;
        d->prompt_tokens = 7;
        d->cached_tokens = 2;
        d->completion_tokens = j->at * j->choices;
        d->queue_us = 1500;
        d->prefill_us = 2500;
        d->decode_us = 10000;
        f->state->requests_done++;
        changed = fake_commit(f, p, j, MUTATE_DONE, d);
    } else {
        e = fake_reserve(f, p, sizeof(*e));
        if (e == NULL) {
            return;
        }
        memset((uint8_t *) e + sizeof(e->hdr), 0, sizeof(*e) - sizeof(e->hdr));
        e->hdr.type = LLM_REC_ERROR;
        e->id = j->head.id;
        e->err = err;
        e->prompt_tokens = 7;
        e->completion_tokens = j->at * j->choices;
        changed = fake_commit(f, p, j, MUTATE_ERROR, e);
    }

    if (changed) {
        /* the worker may or may not have taken it for one */
        j->late_us = fake_now_us() + FAKE_LIFE;
        return;
    }

    if (err == LLM_ERR_CANCELLED) {
        printf("cancel %u %u tokens=%u\n", p->epoch, slot, j->at);
    } else {
        printf("done %u %u\n", p->epoch, slot);
    }

    j->gen = 0;
    p->held--;
}


static void
fake_may_die(fake_t *f)
{
    if (f->o.die_after >= 0 && f->tokens_sent >= (uint64_t) f->o.die_after) {
        printf("dying\n");
        kill(getpid(), SIGKILL);
    }
}


/* one token of each choice; 0 when the ring is full */
static int
fake_token(fake_t *f, peer_t *p, uint32_t slot)
{
    job_t *j = &p->jobs[slot];
    uint32_t c, i, len, lp_len, need, tops, tail[2];
    llm_wire_tokens_t *t;
    llm_wire_lp_t lp;
    uint8_t *at;
    char text[4096];

    len = fake_text(f, j, text, sizeof(text));
    while (len < f->o.bytes && len < sizeof(text)) {
        text[len++] = '.';
    }

    tops = 1 + j->head.top_logprobs;
    lp_len = j->head.flags & LLM_F_LOGPROBS
                 ? tops * (uint32_t) (sizeof(lp) + ((len + 3) & ~3u))
                 : 0;
    need = (uint32_t) sizeof(*t) + ((len + 3) & ~3u) + lp_len;

    if (need > LLM_TOKENS_MAX
        || p->event.size - (p->event.pos - p->event.peer)
               < (uint64_t) j->choices * (need + 8)) {
        /* all choices or none, so the view must be fresh */
        p->event.peer = __atomic_load_n(&p->event.ctl->head, __ATOMIC_ACQUIRE);
        if (p->event.size - (p->event.pos - p->event.peer)
            < 4ull * j->choices * (need + 8)) {
            return 0;
        }
    }

    for (c = 0; c < j->choices; c++) {
        t = fake_reserve(f, p, need);
        if (t == NULL) {
            return 0;
        }
        t->hdr.type = LLM_REC_TOKENS;
        t->id = j->head.id;
        t->choice = c;
        t->finish = j->at + 1 == j->max ? LLM_FINISH_LENGTH : LLM_FINISH_NONE;
        t->tokens = 1;
        t->text_len = len;
        t->lp_len = lp_len;
        at = (uint8_t *) t + LLM_TOKENS_HEAD;
        memcpy(at, text, len);
        at += (len + 3) & ~3u;
        for (i = 0; i < tops && lp_len; i++) {
            lp.token = j->at;
            lp.logprob = -0.5f * (float) (i + 1);
            lp.len = (uint16_t) len;
            lp.top = (uint16_t) (i == 0 ? tops - 1 : 0);
            memcpy(at, &lp, sizeof(lp));
            memcpy(at + sizeof(lp), text, len);
            at += sizeof(lp) + ((len + 3) & ~3u);
        }
        tail[0] = tail[1] =
            j->at < f->o.think && (j->head.wants & LLM_W_REASONING) != 0;
        memcpy(at, tail, sizeof(tail));
        (void) fake_commit(f, p, j, MUTATE_TOKENS, t);
        j->sent += len + lp_len;
        f->tokens_sent++;
    }

    j->at++;
    f->state->completion_tokens += j->choices;

    fake_may_die(f);

    return 1;
}


/* a request that may not run before it is admitted */
static void
fake_counted(fake_t *f, peer_t *p, job_t *j)
{
    llm_wire_counted_t *c = fake_reserve(f, p, sizeof(*c));

    if (c == NULL) {
        return; /* it will have been cancelled */
    }

    c->hdr.type = LLM_REC_COUNTED;
    c->id = j->head.id;
    c->prompt_tokens = 7;
    c->max_tokens = j->max;
    c->choices = j->choices;
    (void) fake_commit(f, p, j, MUTATE_COUNTED, c);
}


/* What is to go wrong with a request of a --mutate engine. */
static void
fake_plan(fake_t *f, job_t *j)
{
    j->row = MUTATE_ROWS;

    if (f->o.mutate && mutate_random(&f->mutate) % 4) {
        j->row = mutate_next(&f->row, FAKE_WORDS | FAKE_RECORDS);
        j->row_at = (uint32_t) (mutate_random(&f->mutate) % j->max);
    }
}


static void
fake_submit(fake_t *f, peer_t *p, uint32_t len)
{
    llm_wire_submit_t s;
    llm_wire_sec_t sec;
    const uint8_t *body;
    uint32_t at = 0, prompts = 0;
    uint64_t seen_ns = fake_now_ns();
    job_t *j;
    int rc;

    memcpy(&s, f->rec, sizeof(s));

    if (s.hdr.type == LLM_REC_ADMIT && s.id.slot < f->o.slots) {
        p->jobs[s.id.slot].held = 0;
        return;
    }

    while ((rc = llm_submit_section(f->rec, len, &at, &sec, &body)) == 1) {
        if (sec.type == LLM_SEC_PROMPT || sec.type == LLM_SEC_PROMPT_IDS
            || sec.type == LLM_SEC_MESSAGES) {
            prompts++;
        }
    }

    if (s.id.slot < f->o.slots && p->jobs[s.id.slot].late_us) {
        p->jobs[s.id.slot].gen = 0; /* it had been taken for an end */
        p->held--;
    }

    if (rc < 0 || s.hdr.type != LLM_REC_SUBMIT || s.id.epoch != p->epoch
        || s.id.slot >= f->o.slots || p->jobs[s.id.slot].gen || s.id.gen == 0
        || prompts == 0 || s.n == 0) {
        printf("broken-submit\n");
        fake_detach(p);
        return;
    }

    j = &p->jobs[s.id.slot];
    memset(j, 0, sizeof(*j));
    j->head = s;
    j->gen = s.id.gen;
    j->choices = prompts * s.n;
    j->max = s.max_tokens ? s.max_tokens : f->o.tokens;
    j->seen_ns = seen_ns;
    j->due_us = seen_ns / 1000 + f->o.delay_ms * 1000ull;
    j->held = (s.flags & LLM_F_HOLD) != 0;
    p->held++;
    f->state->requests_total++;
    printf("submit %u %u len=%u\n", p->epoch, s.id.slot, len);
    fake_may_die(f);
    fake_plan(f, j);

    if (f->o.garbage) {
        fake_garbage(f, p, s.id.slot);
        return;
    }
    if (j->held) {
        fake_counted(f, p, j);
    }
    if (f->o.error) {
        fake_end(f, p, s.id.slot, f->o.error);
    } else if (j->row < MUTATE_ROWS) {
        if (mutate_rows[j->row].kind == MUTATE_ERROR) {
            fake_end(f, p, s.id.slot, LLM_ERR_INTERNAL);
        } else {
            fake_mutate_word(f, p, s.id.slot);
        }
    }
}


/* one step of a request; 1 if it could do more at once */
static int
fake_step(fake_t *f, peer_t *p, uint32_t slot, uint64_t now)
{
    job_t *j = &p->jobs[slot];
    uint64_t taken = __atomic_load_n(&p->lines[slot].taken, __ATOMIC_ACQUIRE);

    if (j->late_us) {
        if (now >= j->late_us) {
            j->late_us = 0;
            fake_end(f, p, slot, 0);
        }
        return 0;
    }

    if (__atomic_load_n(&p->lines[slot].cancel, __ATOMIC_ACQUIRE) == j->gen) {
        fake_end(f, p, slot, LLM_ERR_CANCELLED);
        return 1;
    }

    if (f->o.garbage || now < j->due_us || j->held || (f->o.hold && !fake_go)) {
        return 0;
    }

    if (j->at == j->max) {
        if (!f->o.never_done) {
            fake_end(f, p, slot, 0);
        } else if (!j->silent) {
            j->silent = 1;
            printf("silent %u\n", slot);
        }
        return 0;
    }

    if (j->sent - taken >= j->head.credit) {
        if (!j->stalled) {
            j->stalled = 1;
            f->state->credit_stalls++;
            printf("stall %u\n", slot);
        }
        return 0;
    }

    j->stalled = 0;

    if (!fake_token(f, p, slot)) {
        return 0;
    }

    if (f->o.rate) {
        j->due_us += 1000000 / f->o.rate;
    }

    return 1;
}


/* all that can be done for a peer now; 1 if there is more */
static int
fake_turn(fake_t *f, peer_t *p)
{
    uint64_t now = fake_now_us();
    int64_t n;
    uint32_t i;
    int more = 0;

    if (p->close_us && now >= p->close_us) {
        fake_detach(p);
        return 0;
    }
    if (now < p->pause_us) {
        return 0;
    }

    while ((n = llm_ring_peek(&p->submit, f->rec, RECORD_MAX)) > 0) {
        llm_ring_advance(&p->submit);
        fake_submit(f, p, (uint32_t) n);
        if (p->fd == -1 || now < p->pause_us) {
            return 0;
        }
    }

    if (n < 0) {
        printf("broken-ring\n");
        fake_detach(p);
        return 0;
    }

    for (i = 0; i < f->o.slots && p->held; i++) {
        if (p->jobs[i].gen) {
            more |= fake_step(f, p, i, now);
        }
    }

    fake_wake(p);

    return more;
}


static int
fake_sleep(fake_t *f, peer_t *p)
{
    llm_seg_head_t *head = (llm_seg_head_t *) (void *) p->seg;

    (void) f;
    (void) __atomic_exchange_n(&head->line_sleeps, 1, __ATOMIC_SEQ_CST);

    return llm_ring_may_sleep(&p->submit);
}


static void
fake_run(fake_t *f)
{
    struct pollfd fds[PEERS_MAX + 1];
    int i, busy, timeout;
    uint32_t held;

    for (;;) {
        busy = 0;
        held = 0;

        for (i = 0; i < PEERS_MAX; i++) {
            if (f->peers[i].fd != -1 && f->peers[i].hello) {
                busy |= fake_turn(f, &f->peers[i]);
                held += f->peers[i].held;
            }
        }

        f->state->requests_held = held;
        f->state->turns++;

        if (!f->o.no_heartbeat) {
            for (i = 0; i < LLM_THREADS; i++) {
                __atomic_fetch_add(
                    &f->state->heartbeat[i], 1, __ATOMIC_RELAXED);
            }
        }

        if (fake_term) {
            __atomic_store_n(&f->state->draining, 1, __ATOMIC_RELAXED);
            if (held == 0) {
                return;
            }
        }

        for (i = 0; i < PEERS_MAX; i++) {
            fds[i].fd = f->peers[i].fd;
            fds[i].events = POLLIN;
            fds[i].revents = 0;
            if (f->peers[i].fd != -1 && f->peers[i].hello
                && !fake_sleep(f, &f->peers[i])) {
                busy = 1;
            }
        }
        fds[PEERS_MAX].fd = f->listen_fd;
        fds[PEERS_MAX].events = POLLIN;

        timeout = busy ? 0 : held ? 1 : f->o.mutate ? 2 : 200;

        if (poll(fds, PEERS_MAX + 1, timeout) <= 0) {
            continue;
        }

        for (i = 0; i < PEERS_MAX; i++) {
            if (fds[i].fd != -1 && fds[i].revents) {
                fake_read(f, &f->peers[i]);
            }
        }
        if (fds[PEERS_MAX].revents) {
            fake_accept(f);
        }
    }
}


int
main(int argc, char **argv)
{
    fake_t *f = calloc(1, sizeof(*f));
    int i;

    if (f == NULL || (f->rec = malloc(RECORD_MAX)) == NULL) {
        fake_die("memory");
    }

    for (i = 0; i < PEERS_MAX; i++) {
        f->peers[i].fd = -1;
    }

    setvbuf(stdout, NULL, _IOLBF, 0);
    fake_options(&f->o, argc, argv);
    signal(SIGTERM, fake_on_term);
    signal(SIGINT, fake_on_term);
    signal(SIGUSR1, fake_on_go);
    fake_open_state(f);
    fake_open_socket(f);
    printf("listening\n");
    if (f->o.mutate) {
        mutate_open(&f->mutate, f->o.mutate);
        (void) !freopen("/dev/null", "w", stdout);
    }
    fake_run(f);
    if (f->o.mutate) {
        fake_tell(f, 1);
    }
    unlink(f->o.listen);
    free(f->rec);
    free(f);

    return 0;
}
