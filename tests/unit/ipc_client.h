/*
 * A worker's end of an attachment, for tests: connects, says hello, takes the
 * segment.  Everything happens in the test's own process and thread.
 */
#ifndef IPC_CLIENT_H
#define IPC_CLIENT_H

#include "llm_wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

typedef struct {
    int fd; /* -1: closed */
    int seg_fd, state_fd;
    llm_msg_welcome_t w;     /* type 0: none came */
    llm_msg_refuse_t refuse; /* type 0: none came */
    uint8_t *seg;
    llm_ring_t submit, event;
    llm_slot_line_t *lines;
} client_t;

/* Connects to path. */
static inline void
client_connect(client_t *c, const char *path)
{
    struct sockaddr_un sa;

    memset(c, 0, sizeof(*c));
    c->seg_fd = c->state_fd = -1;
    c->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_true(c->fd >= 0);

    memset(&sa, 0, sizeof(sa));
    sa.sun_family = AF_UNIX;
    snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
    assert_int_equal(
        connect(c->fd, (const struct sockaddr *) &sa, sizeof(sa)), 0);
}

static inline void
client_hello(client_t *c, uint32_t version_min, uint32_t version)
{
    const llm_msg_hello_t m = {LLM_WIRE_MAGIC, LLM_MSG_HELLO, version,
        version_min, (uint32_t) getpid()};

    assert_int_equal(send(c->fd, &m, sizeof(m), 0), sizeof(m));
}

/* The answer to hello: 1 WELCOME, 0 REFUSE, -1 end of file or nothing. */
static inline int
client_answer(client_t *c)
{
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(2 * sizeof(int))];
    } ctl;
    union {
        llm_msg_welcome_t w;
        llm_msg_refuse_t r;
    } m;
    struct iovec iov = {&m, sizeof(m)};
    struct msghdr msg;
    int fds[2];
    ssize_t n;

    memset(&msg, 0, sizeof(msg));
    msg.msg_iov = &iov;
    msg.msg_iovlen = 1;
    msg.msg_control = ctl.buf;
    msg.msg_controllen = sizeof(ctl.buf);
    n = recvmsg(c->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    if (n == (ssize_t) sizeof(m.r) && m.r.type == LLM_MSG_REFUSE) {
        c->refuse = m.r;
        return 0;
    }
    if (n != (ssize_t) sizeof(m.w)) {
        return -1;
    }

    assert_non_null(CMSG_FIRSTHDR(&msg));
    memcpy(fds, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fds));
    c->seg_fd = fds[0];
    c->state_fd = fds[1];
    c->w = m.w;
    assert_true(llm_welcome_ok(&c->w));

    c->seg = mmap(
        NULL, c->w.seg_size, PROT_READ | PROT_WRITE, MAP_SHARED, c->seg_fd, 0);
    assert_true(c->seg != MAP_FAILED);
    llm_ring_init(&c->submit,
        (llm_ring_ctl_t *) (void *) (c->seg + c->w.submit_ctl),
        c->seg + c->w.submit_data, c->w.submit_size);
    llm_ring_init(&c->event,
        (llm_ring_ctl_t *) (void *) (c->seg + c->w.event_ctl),
        c->seg + c->w.event_data, c->w.event_size);
    c->lines = (llm_slot_line_t *) (void *) (c->seg + c->w.lines);

    return 1;
}

/* How many bytes the doorbell has, or -1 at its end. */
static inline int
client_rings(client_t *c)
{
    char buf[8];
    ssize_t n;
    int k = 0;

    while ((n = recv(c->fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0) {
        k++;
    }

    return n == 0 ? -1 : k;
}

static inline void
client_close(client_t *c)
{
    if (c->seg != NULL) {
        (void) munmap(c->seg, c->w.seg_size);
        (void) close(c->seg_fd);
        (void) close(c->state_fd);
        c->seg = NULL;
    }
    if (c->fd != -1) {
        (void) close(c->fd);
        c->fd = -1;
    }
}

#endif
