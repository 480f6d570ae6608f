/*
 * Opening: the lock, the state page and the listening socket.
 *
 * DESIGN.  A lock file, PATH.lock, tells a live socket from one that a killed
 * engine left behind: the kernel gives the lock up with the process.  The lock
 * file itself is never unlinked: two engines could then each lock one of their
 * own.  Whoever holds the lock may replace the socket, and nobody else does;
 * so the lock is given up last, after the socket was unlinked.
 *
 * The socket has its mode before it has its name, so there is no moment at
 * which others could connect.  Runs in main before the threads start; only
 * ipc_unlisten is text_in's, when draining.
 *
 * A successor (takeover) binds beside the path and is renamed over it when it
 * can serve, so that the path always leads to somebody.  Then it sends SIGTERM
 * to whom it found there; that one sees another socket in its place, gives the
 * lock up, and serves its workers until they have gone over.
 */
#include "ipc_impl.h"
#include "llm_live.h"
#include "log.h"
#include "mem.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define IPC_BACKLOG 128   /* workers of a reload connect all at once */
#define IPC_LOCKED  -2    /* by another engine */
#define IPC_LOCK_MS 10000 /* for that one to give it up */


/* Where everything is in a segment of this configuration. */
static void
ipc_layout(const ipc_cfg_t *cfg, llm_msg_welcome_t *m)
{
    uint64_t at;

    memset(m, 0, sizeof(*m));
    m->magic = LLM_WIRE_MAGIC;
    m->type = LLM_MSG_WELCOME;
    m->slots = cfg->slots;
    m->submit_size = cfg->submit_size;
    m->event_size = cfg->event_size;
    m->credit_max = cfg->credit_max;
    m->state_size = llm_live_size(cfg->live_rows);

    m->submit_ctl = LLM_SEG_HEAD;
    m->event_ctl = m->submit_ctl + sizeof(llm_ring_ctl_t);
    m->lines = m->event_ctl + sizeof(llm_ring_ctl_t);
    at = m->lines + (uint64_t) cfg->slots * sizeof(llm_slot_line_t);
    m->submit_data = (at + IPC_PAGE - 1) & ~(uint64_t) (IPC_PAGE - 1);
    m->event_data = m->submit_data + cfg->submit_size;
    m->seg_size = m->event_data + cfg->event_size;
}


uint64_t
ipc_segment_bytes(const ipc_cfg_t *cfg)
{
    llm_msg_welcome_t m;

    ipc_layout(cfg, &m);
    return m.seg_size;
}


/* 0, or -1 with the sentence that tells what does not fit. */
static int
ipc_cfg_check(const ipc_cfg_t *cfg, char *err, size_t errlen)
{
    const struct sockaddr_un *sa = NULL;
    uint64_t event_min;

    if (cfg->path[0] == '\0' || strlen(cfg->path) >= sizeof(sa->sun_path)) {
        snprintf(err, errlen,
            "listen: a unix socket's path has 1 to %zu bytes, found %zu: %s",
            sizeof(sa->sun_path) - 1, strlen(cfg->path), cfg->path);
        return -1;
    }

    if (!llm_ring_size_ok(cfg->submit_size)
        || !llm_ring_size_ok(cfg->event_size)) {
        snprintf(err, errlen,
            "submit_ring and event_ring must be powers of two from %u to %u, "
            "found %u and %u",
            LLM_RING_MIN, LLM_RING_MAX, cfg->submit_size, cfg->event_size);
        return -1;
    }

    event_min = llm_event_keep(cfg->slots) + 2 * LLM_TOKENS_MAX;
    if (cfg->event_size < event_min) {
        snprintf(err, errlen,
            "event_ring must be at least %llu bytes for %u slots, found %u",
            (unsigned long long) event_min, cfg->slots, cfg->event_size);
        return -1;
    }

    return 0;
}


/* Locks PATH.lock; the descriptor, IPC_LOCKED or -1 with err. */
static int
ipc_lock(const char *path, char *err, size_t errlen)
{
    char name[sizeof(((struct sockaddr_un *) 0)->sun_path) + 8];
    int fd, rc = -1;

    snprintf(name, sizeof(name), "%s.lock", path);

    fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd == -1) {
        snprintf(err, errlen, "cannot open the lock file %s: %s", name,
            strerror(errno));
        return -1;
    }

    if (flock(fd, LOCK_EX | LOCK_NB) == -1) {
        if (errno == EWOULDBLOCK) {
            snprintf(err, errlen, "another engine is listening on %s", path);
            rc = IPC_LOCKED;
        } else {
            snprintf(err, errlen, "cannot lock %s: %s", name, strerror(errno));
        }
        (void) close(fd);
        return rc;
    }

    return fd;
}


int
ipc_memfd(const char *name, uint64_t size, unsigned seals, void **map)
{
    int fd, saved;

    fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd == -1) {
        return -1;
    }

    *map = MAP_FAILED;
    if (ftruncate(fd, (off_t) size) == -1) {
        goto failed;
    }

    /* before the seals: they forbid mappings like this one from then on */
    *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (*map == MAP_FAILED) {
        goto failed;
    }

    if (fcntl(fd, F_ADD_SEALS,
            (int) (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL | seals))
        == -1) {
        goto failed;
    }

    return fd;

failed:

    saved = errno;
    if (*map != MAP_FAILED) {
        (void) munmap(*map, size);
    }
    (void) close(fd);
    errno = saved;

    return -1;
}


ipc_t *
ipc_open(const ipc_cfg_t *cfg, char *err, size_t errlen)
{
    ipc_t *ipc = NULL;
    void *map;
    uint32_t i;

    assert(cfg->slots >= 1 && cfg->slots <= LLM_SLOTS_MAX);
    assert(cfg->workers_max >= 1 && cfg->credit_max >= 1);
    assert(cfg->live_rows <= LLM_LIVE_ROWS_MAX);

    if (ipc_cfg_check(cfg, err, errlen) != 0) {
        return NULL;
    }

    ipc = mem_zero(1, sizeof(*ipc));
    if (ipc == NULL) {
        goto no_memory;
    }

    ipc->cfg = *cfg;
    ipc->state_fd = ipc->lock_fd = ipc->listen_fd = ipc->epoll_fd = -1;
    for (i = 0; i < IPC_PENDING_MAX; i++) {
        ipc->pending[i].fd = -1;
    }

    ipc_layout(cfg, &ipc->layout);
    ipc->dirty = mem_zero(cfg->workers_max, sizeof(uint32_t));
    ipc->slots = mem_zero(cfg->workers_max, sizeof(ipc_slot_t));
    if (ipc->dirty == NULL || ipc->slots == NULL) {
        goto no_memory;
    }
    for (i = 0; i < cfg->workers_max; i++) {
        ipc->slots[i].fd = -1;
    }

    ipc->lock_fd = ipc_lock(cfg->path, err, errlen);
    if (ipc->lock_fd == -1 || (ipc->lock_fd < 0 && !cfg->takeover)) {
        goto failed;
    }

    ipc->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    ipc->state_fd = ipc_memfd(
        "llm-state", ipc->layout.state_size, F_SEAL_FUTURE_WRITE, &map);
    if (ipc->epoll_fd == -1 || ipc->state_fd == -1) {
        snprintf(
            err, errlen, "cannot make the state page: %s", strerror(errno));
        goto failed;
    }

    ipc->state = map;
    ipc->state->magic = LLM_WIRE_MAGIC;
    ipc->state->version = LLM_WIRE_VERSION;
    ipc->state->size = sizeof(llm_state_t);
    ipc->state->pid = (uint32_t) getpid();

    return ipc;

no_memory:

    snprintf(err, errlen, "out of memory for %u workers", cfg->workers_max);

failed:

    ipc_close(ipc);
    return NULL;
}


llm_state_t *
ipc_state(ipc_t *ipc)
{
    assert(ipc->state != NULL);
    return ipc->state;
}


uint64_t
ipc_state_size(const ipc_t *ipc)
{
    return ipc->layout.state_size;
}


int
ipc_epoll(ipc_t *ipc, int op, int fd, uint32_t kind, uint32_t i)
{
    struct epoll_event ev;

    memset(&ev, 0, sizeof(ev));
    ev.events = EPOLLIN;
    ev.data.u64 = (uint64_t) kind << 32 | i;

    return epoll_ctl(ipc->epoll_fd, op, fd, &ev);
}


int
ipc_watch(ipc_t *ipc, int fd)
{
    return ipc_epoll(ipc, EPOLL_CTL_ADD, fd, IPC_ON_EXTRA, 0);
}


/* Removes a socket that a dead engine left; 0, or -1 with err. */
static int
ipc_unstale(const char *path, char *err, size_t errlen)
{
    struct stat st;

    if (lstat(path, &st) == -1) {
        return 0; /* nothing there, or bind will say what is wrong */
    }

    if (!S_ISSOCK(st.st_mode)) {
        snprintf(err, errlen, "%s exists and is not a socket", path);
        return -1;
    }

    log_line(LOG_NOTICE, "replacing the stale socket %s", path);

    if (unlink(path) == -1) {
        snprintf(err, errlen, "cannot remove the stale socket %s: %s", path,
            strerror(errno));
        return -1;
    }

    return 0;
}


/* Gives the bound socket its group and mode; 0, or -1 with err. */
static int
ipc_permit(ipc_t *ipc, const char *path, char *err, size_t errlen)
{
    const struct group *gr;
    struct stat st;

    /* first, so that what fails from here on unlinks it again */
    if (lstat(path, &st) == -1) {
        snprintf(err, errlen, "cannot find %s: %s", path, strerror(errno));
        return -1;
    }
    ipc->dev = st.st_dev;
    ipc->ino = st.st_ino;

    if (ipc->cfg.group != NULL && ipc->cfg.group[0] != '\0') {
        gr = getgrnam(ipc->cfg.group);
        if (gr == NULL) {
            snprintf(err, errlen, "socket_group: there is no group \"%s\"",
                ipc->cfg.group);
            return -1;
        }
        if (chown(path, (uid_t) -1, gr->gr_gid) == -1) {
            snprintf(err, errlen, "cannot give %s to the group %s: %s", path,
                ipc->cfg.group, strerror(errno));
            return -1;
        }
    }

    if (chmod(path, 0660) == -1) {
        snprintf(err, errlen, "cannot set the mode of %s: %s", path,
            strerror(errno));
        return -1;
    }

    return 0;
}


/* The process that listens on path, 0 if there is none. */
static pid_t
ipc_other(const char *path)
{
    socklen_t len = sizeof(struct ucred);
    struct sockaddr_un sa;
    struct ucred peer;
    int fd;

    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd == -1) {
        return 0;
    }

    memset(&sa, 0, sizeof(sa));
    memset(&peer, 0, sizeof(peer));
    sa.sun_family = AF_UNIX;
    memcpy(sa.sun_path, path, strlen(path));

    if (connect(fd, (const struct sockaddr *) &sa, sizeof(sa)) == -1
        || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == -1) {
        peer.pid = 0;
    }
    (void) close(fd);

    return peer.pid;
}


/* Puts our socket, called name until now, in the other's place. 0, or -1. */
static int
ipc_succeed(ipc_t *ipc, const char *name, pid_t other, char *err, size_t errlen)
{
    const struct timespec nap = {0, 5000000};
    const char *path = ipc->cfg.path;
    int i;

    /* first, so that nobody is without an engine if it may not be done */
    if (kill(other, 0) == -1) {
        snprintf(err, errlen,
            "cannot signal process %d, which listens on %s: "
            "%s",
            (int) other, path, strerror(errno));
        return -1;
    }

    if (rename(name, path) == -1) {
        snprintf(err, errlen, "cannot rename %s to %s: %s", name, path,
            strerror(errno));
        return -1;
    }

    log_line(LOG_NOTICE, "succeeding process %d on %s", (int) other, path);
    (void) kill(other, SIGTERM);

    for (i = 0; i < IPC_LOCK_MS / 5; i++) {
        ipc->lock_fd = ipc_lock(path, err, errlen);
        if (ipc->lock_fd != IPC_LOCKED) {
            return ipc->lock_fd == -1 ? -1 : 0;
        }
        (void) nanosleep(&nap, NULL);
    }

    snprintf(
        err, errlen, "process %d does not let go of %s", (int) other, path);

    return -1;
}


/* Binds and listens at name; 0, or -1 with err. */
static int
ipc_bind(ipc_t *ipc, const char *name, char *err, size_t errlen)
{
    struct sockaddr_un sa;
    int fd;

    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd == -1) {
        snprintf(err, errlen, "cannot make a socket: %s", strerror(errno));
        return -1;
    }

    memset(&sa, 0, sizeof(sa));
    sa.sun_family = AF_UNIX;
    memcpy(sa.sun_path, name, strlen(name));

    /* the mode before bind, so that the path is never open to all */
    if (fchmod(fd, 0660) == -1
        || bind(fd, (const struct sockaddr *) &sa, sizeof(sa)) == -1) {
        snprintf(err, errlen, "cannot bind %s: %s", name, strerror(errno));
        (void) close(fd);
        return -1;
    }

    ipc->listen_fd = fd;

    if (ipc_permit(ipc, name, err, errlen) != 0) {
        return -1;
    }

    if (listen(fd, IPC_BACKLOG) == -1
        || ipc_epoll(ipc, EPOLL_CTL_ADD, fd, IPC_ON_LISTEN, 0) == -1) {
        snprintf(err, errlen, "cannot listen on %s: %s", name, strerror(errno));
        return -1;
    }

    return 0;
}


int
ipc_listen(ipc_t *ipc, char *err, size_t errlen)
{
    char name[sizeof(((struct sockaddr_un *) 0)->sun_path)];
    const char *path = ipc->cfg.path;
    pid_t other;

    assert(ipc->listen_fd == -1 && ipc->lock_fd != -1);

    if (ipc->lock_fd == IPC_LOCKED) {
        other = ipc_other(path);

        if (other > 0) {
            if ((size_t) snprintf(
                    name, sizeof(name), "%s.%d", path, (int) getpid())
                >= sizeof(name)) {
                snprintf(
                    err, errlen, "no room for another name beside %s", path);
                return -1;
            }
            (void) unlink(name);
            if (ipc_bind(ipc, name, err, errlen) == 0
                && ipc_succeed(ipc, name, other, err, errlen) == 0) {
                return 0;
            }
            (void) unlink(name);
            return -1;
        }

        /* it has gone meanwhile */
        ipc->lock_fd = ipc_lock(path, err, errlen);
        if (ipc->lock_fd < 0) {
            return -1;
        }
    }

    if (ipc_unstale(path, err, errlen) != 0) {
        return -1;
    }

    return ipc_bind(ipc, path, err, errlen);
}


int
ipc_replaced(const ipc_t *ipc)
{
    struct stat st;

    return ipc->listen_fd != -1 && lstat(ipc->cfg.path, &st) == 0
           && S_ISSOCK(st.st_mode)
           && (st.st_dev != ipc->dev || st.st_ino != ipc->ino);
}


void
ipc_unlisten(ipc_t *ipc)
{
    struct stat st;

    if (ipc->listen_fd != -1) {
        if (lstat(ipc->cfg.path, &st) == 0 && st.st_dev == ipc->dev
            && st.st_ino == ipc->ino) {
            (void) unlink(ipc->cfg.path);
        }
        (void) close(ipc->listen_fd);
        ipc->listen_fd = -1;
    }

    /* last: who gets the lock may bind at once */
    if (ipc->lock_fd >= 0) {
        (void) close(ipc->lock_fd);
    }
    ipc->lock_fd = -1;
}


void
ipc_close(ipc_t *ipc)
{
    uint32_t i;

    if (ipc == NULL) {
        return;
    }

    for (i = 0; ipc->slots != NULL && i < ipc->cfg.workers_max; i++) {
        if (ipc->slots[i].fd != -1) {
            (void) munmap(ipc->slots[i].map, ipc->layout.seg_size);
            (void) close(ipc->slots[i].fd);
        }
    }
    for (i = 0; i < IPC_PENDING_MAX; i++) {
        if (ipc->pending[i].fd != -1) {
            (void) close(ipc->pending[i].fd);
        }
    }

    ipc_unlisten(ipc);

    if (ipc->state != NULL) {
        (void) munmap(ipc->state, ipc->layout.state_size);
    }
    if (ipc->state_fd != -1) {
        (void) close(ipc->state_fd);
    }
    if (ipc->epoll_fd != -1) {
        (void) close(ipc->epoll_fd);
    }

    mem_free(ipc->dirty);
    mem_free(ipc->slots);
    mem_free(ipc);
}
