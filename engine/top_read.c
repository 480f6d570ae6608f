/*
 * An engine's state page, as one who only looks gets it.
 *
 * DESIGN.  One message asks, one answers with the page's descriptor, and the
 * engine closes: an observer takes no slot there, is in no list, and can have
 * no effect from then on but by reading memory.  Whoever may connect to the
 * socket may look; that is its mode and group, as for nginx's workers.
 *
 * The page is input: its file's size and seals are looked at before it is
 * mapped (a file that shrinks under a reader kills it), and the list behind
 * it is judged by llm_live.h at each look.
 *
 * That an engine has gone shows in the page: its threads' heartbeats stand.
 */
#include "top.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define TOP_PAGE_MAX (16u << 20) /* of a newer engine's, perhaps */


/* Connects and asks; a socket, or -1 with err. */
static int
top_ask(const char *path, char *err, size_t errlen)
{
    const llm_msg_hello_t hello = {LLM_WIRE_MAGIC, LLM_MSG_OBSERVE,
        LLM_WIRE_VERSION, LLM_WIRE_VERSION_MIN, (uint32_t) getpid()};
    const struct timeval wait = {1, 0};
    struct sockaddr_un sa;
    int fd;

    memset(&sa, 0, sizeof(sa));
    sa.sun_family = AF_UNIX;
    if (strlen(path) >= sizeof(sa.sun_path)) {
        snprintf(err, errlen, "%s: too long for a socket", path);
        return -1;
    }
    memcpy(sa.sun_path, path, strlen(path));

    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd == -1) {
        snprintf(err, errlen, "cannot make a socket: %s", strerror(errno));
        return -1;
    }

    (void) setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
    (void) setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
    if (connect(fd, (const struct sockaddr *) &sa, sizeof(sa)) == -1
        || send(fd, &hello, sizeof(hello), MSG_NOSIGNAL) != sizeof(hello)) {
        snprintf(err, errlen, "no engine at %s: %s", path, strerror(errno));
        (void) close(fd);
        return -1;
    }

    return fd;
}


/* Takes the answer; the page's descriptor, or -1 with err. */
static int
top_answer(int fd, const char *path, uint64_t *size, char *err, size_t errlen)
{
    union {
        llm_msg_state_t state;
        llm_msg_refuse_t refuse;
    } m;
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(sizeof(int))];
    } ctl;
    struct iovec iov = {&m, sizeof(m)};
    struct msghdr msg;
    struct cmsghdr *c;
    int page = -1;
    ssize_t n;

    memset(&m, 0, sizeof(m));
    memset(&msg, 0, sizeof(msg));
    msg.msg_iov = &iov;
    msg.msg_iovlen = 1;
    msg.msg_control = ctl.buf;
    msg.msg_controllen = sizeof(ctl.buf);
    n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
    c = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;

    if (c != NULL && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS
        && c->cmsg_len == CMSG_LEN(sizeof(int))) {
        memcpy(&page, CMSG_DATA(c), sizeof(page));
    }

    if (n >= (ssize_t) sizeof(m.state) && m.state.magic == LLM_WIRE_MAGIC
        && m.state.type == LLM_MSG_STATE && page != -1) {
        *size = m.state.state_size;
        return page;
    }

    if (n == (ssize_t) sizeof(m.refuse) && m.refuse.type == LLM_MSG_REFUSE) {
        snprintf(err, errlen,
            "the engine at %s is too old or too new to be looked at (it speaks"
            " wire versions %u to %u)",
            path, m.refuse.version_min, m.refuse.version);
    } else {
        snprintf(err, errlen, "the engine at %s does not answer", path);
    }
    if (page != -1) {
        (void) close(page);
    }

    return -1;
}


int
top_open(top_source_t *s, const char *path, char *err, size_t errlen)
{
    int fd, page, seals;
    struct stat st;

    memset(s, 0, sizeof(*s));
    fd = top_ask(path, err, errlen);
    if (fd == -1) {
        return -1;
    }
    page = top_answer(fd, path, &s->size, err, errlen);
    (void) close(fd);
    if (page == -1) {
        return -1;
    }

    seals = fcntl(page, F_GET_SEALS);
    if (fstat(page, &st) == 0 && (uint64_t) st.st_size == s->size
        && s->size >= LLM_STATE_SIZE && s->size <= TOP_PAGE_MAX && seals != -1
        && (seals & F_SEAL_SHRINK) != 0) {
        s->page = mmap(NULL, s->size, PROT_READ, MAP_SHARED, page, 0);
        s->page = s->page == MAP_FAILED ? NULL : s->page;
    }
    (void) close(page);

    if (s->page == NULL
        || ((const llm_state_t *) s->page)->magic != LLM_WIRE_MAGIC) {
        snprintf(err, errlen, "what listens at %s is no engine", path);
        top_close(s);
        return -1;
    }

    return 0;
}


void
top_close(top_source_t *s)
{
    if (s->page != NULL) {
        (void) munmap(s->page, s->size);
        s->page = NULL;
    }
}


/* The counters of LLM_METRICS; those an older engine does not know are 0. */
static void
top_take_counters(const llm_state_t *st, top_counts_t *c)
{
    uint32_t i;

#define LOAD(field)         __atomic_load_n(&st->field, __ATOMIC_RELAXED)
#define X(name, kind, help) c->name = LOAD(name);
    LLM_METRICS(X)
#undef X
    c->pid = LOAD(pid);
    c->ready = LOAD(ready);
    c->draining = LOAD(draining);
    for (i = 0; i < LLM_THREADS; i++) {
        c->beats[i] = LOAD(heartbeat[i]);
    }
    if (LOAD(models_n) > 0) {
        memcpy(c->model, st->models[0].name, sizeof(c->model));
        c->model[sizeof(c->model) - 1] = '\0';
    }
#undef LOAD
}


/* The last steps that are whole in the page. */
static void
top_take_steps(const llm_live_t *live, top_snap_t *snap)
{
    uint64_t n = live->head.steps, k;
    uint64_t have = live->head.steps_n < LLM_LIVE_STEPS ? live->head.steps_n
                                                        : LLM_LIVE_STEPS;

    for (k = n > have ? n - have : 0; k < n; k++) {
        llm_live_step_read(
            llm_live_step_at(live, k), &snap->steps[snap->steps_n++]);
    }
    assert(snap->steps_n <= LLM_LIVE_STEPS);
}


void
top_take(const top_source_t *s, uint64_t now_us, top_snap_t *snap)
{
    top_counts_t *c = &snap->c;
    llm_live_t live;
    uint32_t i, n;

    assert(s->page != NULL);

    memset(c, 0, sizeof(*c));
    snap->steps_n = snap->rows_n = 0;
    c->us = now_us;
    top_take_counters(s->page, c);

    c->listed = llm_live_open(&live, s->page, s->size);
    if (!c->listed) {
        return;
    }

    c->head = live.head;
    top_take_steps(&live, snap);

    n = live.head.tenants_n < LLM_LIVE_TENANTS ? (uint32_t) live.head.tenants_n
                                               : LLM_LIVE_TENANTS;
    for (i = 0; i < n; i++) {
        if (!llm_live_tenant(&live, i, &c->tenants[i])) {
            c->tenants[i].who = 0;
        }
    }

    n = llm_live_rows(&live);
    for (i = 0; i < n && snap->rows_n < LLM_LIVE_ROWS_MAX; i++) {
        snap->rows_n +=
            (uint32_t) llm_live_row(&live, i, &snap->rows[snap->rows_n]);
    }
}
