/*
 * Attachments: how nginx workers come, are given their segment, and go.
 *
 * DESIGN.  A worker's socket carries the handshake and, from then on, single
 * bytes that mean "look"; end of file on it is the worker's death.  All else
 * goes through memory.  One segment per worker, so that a worker can spoil
 * nothing but its own; one state page for all, which workers can only read:
 * it is sealed against new writable mappings after ours was made.
 *
 *      listen ──accept──> pending ──hello──> attached ──EOF──> dead ──> free
 *                            └──2 s, nonsense──> closed    last unref ──^
 *
 * A dead attachment keeps its place in the table, its mapping and its socket
 * until the last request that points into it was freed; see the invariant in
 * ipc.h.  The socket is shut down at once (the worker sees the end) but closed
 * only then, because text_out may be about to ring it, and a closed number
 * could be somebody else's by that time.
 *
 * OWNERSHIP.  text_in owns the table, the pending connections and SUBMIT
 * views; text_out owns EVENT views and the list of rings to wake.  What one
 * tells the other is atomic: `dead` and `stuck`.
 */
#include "ipc_impl.h"
#include "llm_err.h"
#include "log.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define IPC_BYTES_MAX 16  /* doorbell messages cleared in one turn */
#define IPC_PAUSE_MS  100 /* without accept when descriptors ran out */
#define IPC_LINES_MAX 200 /* about workers in a second: all come at a reload */

/* Why text_out wants an attachment gone. */
enum { IPC_STUCK_UNREAD = 1, IPC_STUCK_SLOT };


/* --- attaching ---------------------------------------------------------- */

/*
 * May one more line about workers be logged?  Who can connect can do so ten
 * thousand times a second, and is not to fill a disk with it.
 */
static int
ipc_may_log(ipc_t *ipc)
{
    if (ipc->now_ms - ipc->log_ms >= 1000) {
        if (ipc->log_n > IPC_LINES_MAX) {
            log_line(LOG_WARN, "%u more lines about workers were left out",
                ipc->log_n - IPC_LINES_MAX);
        }
        ipc->log_ms = ipc->now_ms;
        ipc->log_n = 0;
    }

    return ++ipc->log_n <= IPC_LINES_MAX;
}


static void
ipc_pending_close(ipc_pending_t *p)
{
    assert(p->fd != -1);

    (void) close(p->fd);
    p->fd = -1;
}


/* Answers a hello with one sentence and closes. */
static void
ipc_refuse(ipc_t *ipc, ipc_pending_t *p, uint32_t err, const char *text)
{
    llm_msg_refuse_t m;

    memset(&m, 0, sizeof(m));
    m.magic = LLM_WIRE_MAGIC;
    m.type = LLM_MSG_REFUSE;
    m.err = err;
    m.version = LLM_WIRE_VERSION;
    m.version_min = LLM_WIRE_VERSION_MIN;
    snprintf(m.text, sizeof(m.text), "%s", text);

    if (ipc_may_log(ipc)) {
        log_line(LOG_WARN, "worker %d refused: %s", (int) p->peer.pid, text);
    }

    (void) send(p->fd, &m, sizeof(m), MSG_DONTWAIT | MSG_NOSIGNAL);
    ipc_pending_close(p);
}


/* Sends a message with n <= 2 descriptors; 0, or -1 with errno. */
static int
ipc_send(int fd, void *msg, size_t len, const int *fds, size_t n)
{
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(2 * sizeof(int))];
    } ctl;
    struct iovec iov = {msg, len};
    struct msghdr m;
    struct cmsghdr *c;

    assert(n >= 1 && n <= 2);

    memset(&ctl, 0, sizeof(ctl));
    memset(&m, 0, sizeof(m));
    m.msg_iov = &iov;
    m.msg_iovlen = 1;
    m.msg_control = ctl.buf;
    m.msg_controllen = CMSG_SPACE(n * sizeof(int));

    c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(n * sizeof(int));
    memcpy(CMSG_DATA(c), fds, n * sizeof(int));

    return sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t) len ? 0
                                                                         : -1;
}


/* Sends WELCOME and both descriptors; 0, or -1 with errno. */
static int
ipc_welcome(
    const ipc_t *ipc, int fd, int seg_fd, uint32_t epoch, uint32_t version)
{
    llm_msg_welcome_t m = ipc->layout;
    const int fds[2] = {seg_fd, ipc->state_fd};

    m.epoch = epoch;
    m.version = version;
    assert(llm_welcome_ok(&m));

    return ipc_send(fd, &m, sizeof(m), fds, 2);
}


/*
 * Hands the state page to one who only wants to look, and is done with it: who
 * may connect could attach as well and see the same.
 */
static void
ipc_observe(ipc_t *ipc, ipc_pending_t *p, uint32_t version)
{
    llm_msg_state_t m;

    memset(&m, 0, sizeof(m));
    m.magic = LLM_WIRE_MAGIC;
    m.type = LLM_MSG_STATE;
    m.version = version;
    m.state_size = ipc->layout.state_size;

    if (ipc_send(p->fd, &m, sizeof(m), &ipc->state_fd, 1) == 0) {
        log_line(LOG_DEBUG, "process %d (uid %d) observes", (int) p->peer.pid,
            (int) p->peer.uid);
    }
    ipc_pending_close(p);
}


/* Fills in an attachment whose segment is mapped at s->map. */
static void
ipc_slot_init(ipc_t *ipc, ipc_slot_t *s, int fd, const struct ucred *peer)
{
    const llm_msg_welcome_t *l = &ipc->layout;
    uint8_t *map = s->map;
    llm_seg_head_t *head = (llm_seg_head_t *) (void *) map;

    memset(s, 0, sizeof(*s));
    s->map = map;
    s->fd = fd;
    s->refs = 1;
    s->pub.epoch = ipc->epoch;
    s->pub.slots = l->slots;
    s->pub.pid = (uint32_t) peer->pid;
    s->pub.seg = head;
    s->pub.lines = (const llm_slot_line_t *) (void *) (map + l->lines);

    head->magic = LLM_WIRE_MAGIC;
    head->version = LLM_WIRE_VERSION;
    head->epoch = ipc->epoch;

    llm_ring_init(&s->submit, (llm_ring_ctl_t *) (void *) (map + l->submit_ctl),
        map + l->submit_data, l->submit_size);
    llm_ring_init(&s->event, (llm_ring_ctl_t *) (void *) (map + l->event_ctl),
        map + l->event_data, l->event_size);
}


/* A free place in the table, or NULL. */
static ipc_slot_t *
ipc_slot_free(ipc_t *ipc)
{
    uint32_t i;

    for (i = 0; i < ipc->cfg.workers_max; i++) {
        if (ipc->slots[i].fd == -1) {
            assert(ipc->slots[i].refs == 0);
            return &ipc->slots[i];
        }
    }

    return NULL;
}


static void
ipc_attach(ipc_t *ipc, ipc_pending_t *p, uint32_t version)
{
    ipc_slot_t *s;
    void *map;
    int seg_fd, rc;

    s = ipc_slot_free(ipc);
    if (s == NULL) {
        ipc_refuse(
            ipc, p, LLM_ERR_BUSY, "workers_max workers are attached already");
        return;
    }

    /* an epoch is never used again, not even after 2^32 of them */
    if (ipc->epoch == UINT32_MAX) {
        ipc_refuse(ipc, p, LLM_ERR_BUSY, "the engine has run out of epochs");
        return;
    }

    seg_fd = ipc_memfd("llm-segment", ipc->layout.seg_size, 0, &map);
    if (seg_fd == -1) {
        if (ipc_may_log(ipc)) {
            log_line(LOG_ERROR, "cannot make a segment: %s", strerror(errno));
        }
        ipc_refuse(ipc, p, LLM_ERR_NO_MEMORY,
            "a segment cannot be made: the engine's log says why");
        return;
    }

    ipc->epoch++;
    s->map = map;
    ipc_slot_init(ipc, s, p->fd, &p->peer);

    /* all is ready: the worker may write as soon as this is sent */
    rc = ipc_welcome(ipc, p->fd, seg_fd, ipc->epoch, version);
    (void) close(seg_fd);

    if (rc != 0
        || ipc_epoll(ipc, EPOLL_CTL_MOD, p->fd, IPC_ON_ATT,
               (uint32_t) (s - ipc->slots))
               == -1) {
        if (ipc_may_log(ipc)) {
            log_line(LOG_WARN, "worker %d went away during the handshake",
                (int) p->peer.pid);
        }
        (void) munmap(map, ipc->layout.seg_size);
        s->fd = -1;
        s->refs = 0;
        s->pub.epoch = 0;
        ipc_pending_close(p);
        return;
    }

    p->fd = -1; /* it is s's now */
    __atomic_fetch_add(&ipc->state->attachments, 1, __ATOMIC_RELAXED);

    if (ipc_may_log(ipc)) {
        log_line(LOG_INFO, "worker %d (uid %d) attached, epoch %u",
            (int) p->peer.pid, (int) p->peer.uid, ipc->epoch);
    }
}


/* A pending connection has something to say: it must be a hello. */
static void
ipc_hello(ipc_t *ipc, ipc_pending_t *p)
{
    llm_msg_hello_t m;
    uint32_t version;
    ssize_t n;
    char text[128];

    if (p->fd == -1) {
        return;
    }

    /* recv takes no descriptors: the kernel closes what is sent along */
    n = recv(p->fd, &m, sizeof(m), MSG_DONTWAIT);

    if (n == -1 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n <= 0) {
        ipc_pending_close(p);
        return;
    }

    /* a newer hello is longer; its beginning is this */
    if ((size_t) n < sizeof(m) || m.magic != LLM_WIRE_MAGIC
        || (m.type != LLM_MSG_HELLO && m.type != LLM_MSG_OBSERVE)) {
        ipc_refuse(
            ipc, p, LLM_ERR_PROTOCOL, "the first message is not a hello");
        return;
    }

    if (m.version < m.version_min || m.version < LLM_WIRE_VERSION_MIN
        || m.version_min > LLM_WIRE_VERSION) {
        snprintf(text, sizeof(text),
            "the worker speaks wire versions %u to %u, the engine %u to %u",
            m.version_min, m.version, LLM_WIRE_VERSION_MIN, LLM_WIRE_VERSION);
        ipc_refuse(ipc, p, LLM_ERR_PROTOCOL, text);
        return;
    }

    version = m.version < LLM_WIRE_VERSION ? m.version : LLM_WIRE_VERSION;
    if (m.type == LLM_MSG_OBSERVE) {
        ipc_observe(ipc, p, version);
    } else {
        ipc_attach(ipc, p, version);
    }
}


/*
 * A place for a connection: a free one, or that of who has been silent for
 * longest.  So a crowd that says nothing keeps nobody out.
 */
static ipc_pending_t *
ipc_pending_place(ipc_t *ipc)
{
    ipc_pending_t *p, *oldest = &ipc->pending[0];
    uint32_t i;

    for (i = 0; i < IPC_PENDING_MAX; i++) {
        p = &ipc->pending[i];
        if (p->fd == -1) {
            return p;
        }
        if (p->seq < oldest->seq) {
            oldest = p;
        }
    }

    if (ipc_may_log(ipc)) {
        log_line(LOG_WARN, "process %d gave way: too many without a hello",
            (int) oldest->peer.pid);
    }
    ipc_pending_close(oldest);

    return oldest;
}


/* Takes one connection; 0, or -1 when there is none to take. */
static int
ipc_accept(ipc_t *ipc, uint64_t now_ms)
{
    socklen_t len = sizeof(struct ucred);
    ipc_pending_t *p;
    int fd;

    fd = accept4(ipc->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd == -1) {
        if (errno == ECONNABORTED || errno == EINTR) {
            return 0;
        }
        if (errno != EAGAIN && ipc->accept_ms == 0) {
            /* no descriptors left: the event would fire for ever */
            log_line(LOG_ERROR, "cannot accept: %s", strerror(errno));
            ipc->accept_ms = now_ms + IPC_PAUSE_MS;
            (void) epoll_ctl(
                ipc->epoll_fd, EPOLL_CTL_DEL, ipc->listen_fd, NULL);
        }
        return -1;
    }

    p = ipc_pending_place(ipc);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &p->peer, &len) == -1
        || ipc_epoll(ipc, EPOLL_CTL_ADD, fd, IPC_ON_PENDING,
               (uint32_t) (p - ipc->pending))
               == -1) {
        if (ipc_may_log(ipc)) {
            log_line(LOG_WARN, "a connection was closed: %s", strerror(errno));
        }
        (void) close(fd);
        return 0;
    }

    p->fd = fd;
    p->seq = ipc->accepted++;
    p->deadline_ms = now_ms + IPC_HELLO_MS;

    /* a worker says hello at once, so it mostly need not wait among others */
    ipc_hello(ipc, p);

    return 0;
}


/* --- living and dying --------------------------------------------------- */

uint32_t
ipc_atts(const ipc_t *ipc)
{
    return ipc->cfg.workers_max;
}


/* The table's place of a live attachment, else NULL. */
static ipc_slot_t *
ipc_live(ipc_t *ipc, uint32_t att)
{
    ipc_slot_t *s;

    assert(att < ipc->cfg.workers_max);
    s = &ipc->slots[att];

    return s->fd != -1 && s->pub.dead == 0 ? s : NULL;
}


ipc_att_t *
ipc_att(ipc_t *ipc, uint32_t att)
{
    ipc_slot_t *s = ipc_live(ipc, att);

    return s == NULL ? NULL : &s->pub;
}


void
ipc_ref(ipc_t *ipc, uint32_t att)
{
    ipc_slot_t *s = ipc_live(ipc, att);

    assert(s != NULL && s->refs >= 1);
    s->refs++;
}


void
ipc_unref(ipc_t *ipc, uint32_t att)
{
    ipc_slot_t *s;
    int rc;

    assert(att < ipc->cfg.workers_max);
    s = &ipc->slots[att];
    assert(s->fd != -1 && s->refs >= 1);

    s->refs--;
    if (s->refs > 0) {
        return;
    }

    assert(s->pub.dead != 0);

    rc = munmap(s->map, ipc->layout.seg_size);
    assert(rc == 0);
    (void) rc;
    (void) close(s->fd);

    s->fd = -1;
    s->map = NULL;
    s->pub.epoch = 0;
    s->pub.lines = NULL;
    s->pub.seg = NULL;
    __atomic_fetch_sub(&ipc->state->attachments, 1, __ATOMIC_RELAXED);
}


void
ipc_detach(ipc_t *ipc, uint32_t att, const char *why)
{
    ipc_slot_t *s = ipc_live(ipc, att);

    assert(s != NULL);

    if (ipc_may_log(ipc)) {
        log_line(LOG_INFO, "worker %u detached, epoch %u: %s, %u requests left",
            s->pub.pid, s->pub.epoch, why, s->refs - 1);
    }

    __atomic_store_n(&s->pub.dead, 1, __ATOMIC_RELEASE);

    /* shut down, not closed: text_out may be about to ring it */
    (void) epoll_ctl(ipc->epoll_fd, EPOLL_CTL_DEL, s->fd, NULL);
    (void) shutdown(s->fd, SHUT_RDWR);

    ipc_unref(ipc, att);
}


/* Clears a doorbell; the bits of ipc_handle. */
static unsigned
ipc_rang(ipc_t *ipc, uint32_t att)
{
    ipc_slot_t *s = ipc_live(ipc, att);
    char buf[64];
    ssize_t n;
    int i;

    if (s == NULL) {
        return 0;
    }

    /* bounded: what a flood leaves behind is there at the next turn */
    for (i = 0; i < IPC_BYTES_MAX; i++) {
        n = recv(s->fd, buf, sizeof(buf), MSG_DONTWAIT);
        if (n > 0) {
            continue;
        }
        if (n == -1 && errno == EINTR) {
            continue;
        }
        if (n == -1 && errno == EAGAIN) {
            break;
        }
        ipc_detach(ipc, att, n == 0 ? "it closed" : strerror(errno));
        return IPC_DIED;
    }

    return IPC_RANG;
}


/* Detaches whom text_out cannot post to; the bits of ipc_handle. */
static unsigned
ipc_unstick(ipc_t *ipc)
{
    uint32_t i, stuck;
    unsigned bits = 0;

    if (__atomic_exchange_n(&ipc->stuck, 0, __ATOMIC_ACQUIRE) == 0) {
        return 0;
    }

    for (i = 0; i < ipc->cfg.workers_max; i++) {
        if (ipc_live(ipc, i) == NULL) {
            continue;
        }
        stuck = __atomic_load_n(&ipc->slots[i].stuck, __ATOMIC_ACQUIRE);
        if (stuck != 0) {
            ipc_detach(ipc, i,
                stuck == IPC_STUCK_UNREAD
                    ? "it reads no events"
                    : "it used slots again that had not ended");
            bits |= IPC_DIED;
        }
    }

    return bits;
}


void
ipc_wait(ipc_t *ipc, int timeout_ms)
{
    assert(timeout_ms >= 0);

    ipc->events_n =
        epoll_wait(ipc->epoll_fd, ipc->events, IPC_EVENTS, timeout_ms);
    if (ipc->events_n == -1) {
        assert(errno == EINTR);
        ipc->events_n = 0;
    }
}


/* Closes who said no hello in time, and listens again after a pause. */
static void
ipc_deadlines(ipc_t *ipc, uint64_t now_ms)
{
    ipc_pending_t *p;
    uint32_t i;

    for (i = 0; i < IPC_PENDING_MAX; i++) {
        p = &ipc->pending[i];
        if (p->fd != -1 && now_ms >= p->deadline_ms) {
            if (ipc_may_log(ipc)) {
                log_line(LOG_WARN, "process %d connected and said no hello",
                    (int) p->peer.pid);
            }
            ipc_pending_close(p);
        }
    }

    if (ipc->accept_ms != 0 && now_ms >= ipc->accept_ms) {
        ipc->accept_ms = 0;
        if (ipc->listen_fd != -1) {
            (void) ipc_epoll(
                ipc, EPOLL_CTL_ADD, ipc->listen_fd, IPC_ON_LISTEN, 0);
        }
    }
}


unsigned
ipc_handle(ipc_t *ipc, uint64_t now_ms)
{
    uint32_t i, n;
    unsigned bits;
    int e;

    ipc->now_ms = now_ms;
    bits = ipc_unstick(ipc);

    for (e = 0; e < ipc->events_n; e++) {
        i = (uint32_t) ipc->events[e].data.u64;

        switch (ipc->events[e].data.u64 >> 32) {
        case IPC_ON_LISTEN:
            for (n = 0; ipc->listen_fd != -1 && n < IPC_PENDING_MAX; n++) {
                if (ipc_accept(ipc, now_ms) != 0) {
                    break;
                }
            }
            break;
        case IPC_ON_EXTRA:
            bits |= IPC_EXTRA;
            break;
        case IPC_ON_PENDING:
            assert(i < IPC_PENDING_MAX);
            ipc_hello(ipc, &ipc->pending[i]);
            break;
        default:
            bits |= ipc_rang(ipc, i);
            break;
        }
    }

    ipc->events_n = 0;
    ipc_deadlines(ipc, now_ms);

    return bits;
}


int
ipc_timeout(const ipc_t *ipc, uint64_t now_ms, int max_ms)
{
    uint64_t next = now_ms + (uint64_t) max_ms;
    uint32_t i;

    assert(max_ms >= 0);

    for (i = 0; i < IPC_PENDING_MAX; i++) {
        if (ipc->pending[i].fd != -1 && ipc->pending[i].deadline_ms < next) {
            next = ipc->pending[i].deadline_ms;
        }
    }

    if (ipc->accept_ms != 0 && ipc->accept_ms < next) {
        next = ipc->accept_ms;
    }

    return next > now_ms ? (int) (next - now_ms) : 0;
}


int
ipc_succeeded(const ipc_t *ipc)
{
    return __atomic_load_n(&ipc->state->draining, __ATOMIC_RELAXED)
           == LLM_DRAIN_SUCCEEDED;
}


void
ipc_refuse_all(ipc_t *ipc)
{
    __atomic_store_n(&ipc->state->draining, LLM_DRAIN_ENDS, __ATOMIC_RELEASE);
}


void
ipc_drain(ipc_t *ipc)
{
    uint32_t i, drain = LLM_DRAIN_ENDS;

    if (ipc_replaced(ipc)) {
        drain = LLM_DRAIN_SUCCEEDED;
        log_line(LOG_NOTICE, "a successor listens on %s", ipc->cfg.path);
    }

    __atomic_store_n(&ipc->state->draining, drain, __ATOMIC_RELEASE);
    ipc_unlisten(ipc);

    for (i = 0; i < IPC_PENDING_MAX; i++) {
        if (ipc->pending[i].fd != -1) {
            ipc_pending_close(&ipc->pending[i]);
        }
    }

    for (i = 0; i < ipc->cfg.workers_max; i++) {
        if (ipc_live(ipc, i) != NULL) {
            (void) send(ipc->slots[i].fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
        }
    }
}


/* --- SUBMIT: text_in ---------------------------------------------------- */

int64_t
ipc_submit_peek(ipc_t *ipc, uint32_t att, void *buf, uint32_t cap)
{
    ipc_slot_t *s = ipc_live(ipc, att);

    assert(s != NULL);
    return llm_ring_peek(&s->submit, buf, cap);
}


void
ipc_submit_advance(ipc_t *ipc, uint32_t att)
{
    ipc_slot_t *s = ipc_live(ipc, att);

    assert(s != NULL);
    llm_ring_advance(&s->submit);
}


void
ipc_submit_pause(ipc_t *ipc, uint32_t att, int pause)
{
    assert(att < ipc->cfg.workers_max);
    ipc->slots[att].paused = pause != 0;
}


int
ipc_may_sleep(ipc_t *ipc)
{
    ipc_slot_t *s;
    uint32_t i;
    int may = 1;

    for (i = 0; i < ipc->cfg.workers_max; i++) {
        s = ipc_live(ipc, i);
        if (s != NULL && !s->paused && !llm_ring_may_sleep(&s->submit)) {
            may = 0;
        }
    }

    return may;
}


void
ipc_lines_arm(ipc_t *ipc, uint32_t att)
{
    ipc_slot_t *s = ipc_live(ipc, att);

    if (s != NULL) {
        (void) __atomic_exchange_n(
            &s->pub.seg->line_sleeps, 1, __ATOMIC_SEQ_CST);
    }
}


/* --- EVENT: text_out ---------------------------------------------------- */

/* The attachment cannot be served any more: text_in is to detach it. */
static void
ipc_stick(ipc_t *ipc, ipc_slot_t *s, uint32_t why)
{
    __atomic_store_n(&s->stuck, why, __ATOMIC_RELEASE);
    __atomic_store_n(&ipc->stuck, 1, __ATOMIC_RELEASE);
}


void *
ipc_event_reserve(
    ipc_t *ipc, uint32_t att, uint32_t len, int terminal, uint64_t now_ms)
{
    ipc_slot_t *s;
    void *p;

    assert(att < ipc->cfg.workers_max);
    assert(len <= (terminal ? LLM_TERMINAL_MAX : LLM_TOKENS_MAX));

    s = &ipc->slots[att];
    if (__atomic_load_n(&s->pub.dead, __ATOMIC_ACQUIRE) != 0) {
        return NULL;
    }

    p = llm_ring_reserve(
        &s->event, len, terminal ? 0 : llm_event_keep(ipc->layout.slots));
    if (p != NULL) {
        s->full = 0;
        return p;
    }

    if (terminal) {
        ipc_stick(ipc, s, IPC_STUCK_SLOT);
        return NULL;
    }

    /* peer moves only when the worker read something that was there */
    if (!s->full || s->full_peer != s->event.peer) {
        s->full = 1;
        s->full_peer = s->event.peer;
        s->full_since_ms = now_ms;
    } else if (now_ms - s->full_since_ms >= IPC_STUCK_MS) {
        ipc_stick(ipc, s, IPC_STUCK_UNREAD);
    }

    return NULL;
}


void
ipc_event_commit(ipc_t *ipc, uint32_t att)
{
    ipc_slot_t *s;

    assert(att < ipc->cfg.workers_max);
    s = &ipc->slots[att];
    assert(s->event.next != 0);

    llm_ring_commit(&s->event);

    if (!s->dirty) {
        assert(ipc->dirty_n < ipc->cfg.workers_max);
        s->dirty = 1;
        ipc->dirty[ipc->dirty_n++] = att;
    }
}


void
ipc_event_flush(ipc_t *ipc)
{
    ipc_slot_t *s;
    uint32_t i;

    for (i = 0; i < ipc->dirty_n; i++) {
        s = &ipc->slots[ipc->dirty[i]];
        assert(s->dirty && s->fd != -1);
        s->dirty = 0;

        /* EAGAIN: bytes lie there unread already, that is a ring too */
        if (llm_ring_must_wake(&s->event)) {
            (void) send(s->fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
        }
    }

    ipc->dirty_n = 0;
}
