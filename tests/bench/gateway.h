/*
 * What the load clients of the gateway share: a connection on the loopback,
 * requests, arrivals with the kernel's time, samples, and what a process has
 * used of a CPU.
 *
 * DESIGN.  Clients are one thread and one epoll loop, and share two cores with
 * what they measure.  So an answer's time is not when the client got round to
 * reading it but when its bytes came out of the server: the kernel stamps each
 * segment on its way through the loopback (SO_TIMESTAMPNS), and that clock is
 * brought to CLOCK_MONOTONIC by the difference of the two.
 */
#ifndef GATEWAY_H
#define GATEWAY_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define READ_AT (64u << 10)

static inline void
must(int holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "gateway: %s: %s\n", what, strerror(errno));
        exit(1);
    }
}

static inline double
clock_us(clockid_t id)
{
    struct timespec t;

    clock_gettime(id, &t);

    return (double) t.tv_sec * 1e6 + (double) t.tv_nsec * 1e-3;
}

static inline double
now_us(void)
{
    return clock_us(CLOCK_MONOTONIC);
}

/* As many sockets as both ends of n connections need, and some more. */
static inline void
files_at_least(int n)
{
    struct rlimit lim = {2 * (rlim_t) n + 64, 2 * (rlim_t) n + 64};

    (void) setrlimit(RLIMIT_NOFILE, &lim);
}

static inline int
http_connect(const char *port)
{
    struct sockaddr_in sa = {.sin_family = AF_INET};
    int fd, on = 1;

    sa.sin_port = htons((uint16_t) atoi(port));
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(fd >= 0, "socket");
    must(connect(fd, (struct sockaddr *) &sa, sizeof(sa)) == 0, "connect");
    must(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0,
        "TCP_NODELAY");
    must(setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on)) == 0,
        "SO_TIMESTAMPNS");

    return fd;
}

/* A POST of body with an optional key; returns its length in buf. */
static inline size_t
http_post(
    char *buf, size_t size, const char *path, const char *key, const char *body)
{
    int n;

    n = snprintf(buf, size,
        "POST %s HTTP/1.1\r\nHost: localhost\r\n"
        "Content-Type: application/json\r\n%s%s%sContent-Length: %zu\r\n\r\n%s",
        path, key ? "Authorization: Bearer " : "", key ? key : "",
        key ? "\r\n" : "", strlen(body), body);
    must(n > 0 && (size_t) n < size, "the request's length");

    return (size_t) n;
}

static inline void
http_send(int fd, const char *req, size_t len)
{
    must(send(fd, req, len, MSG_NOSIGNAL) == (ssize_t) len, "send");
}

/*
 * What has come: its length, 0 at the end, -1 if nothing has.  *at is when the
 * last of it left the server, as CLOCK_MONOTONIC has it.
 */
static inline ssize_t
http_recv(int fd, char *buf, size_t size, int flags, double *at)
{
    char control[CMSG_SPACE(sizeof(struct timespec))];
    struct iovec iov = {buf, size};
    struct msghdr msg = {.msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control,
        .msg_controllen = sizeof(control)};
    struct cmsghdr *c;
    struct timespec t;
    double now;
    ssize_t n;

    n = recvmsg(fd, &msg, flags);
    *at = now = now_us();

    for (c = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL; c != NULL;
         c = CMSG_NXTHDR(&msg, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) {
            memcpy(&t, CMSG_DATA(c), sizeof(t));
            *at = (double) t.tv_sec * 1e6 + (double) t.tv_nsec * 1e-3
                  - clock_us(CLOCK_REALTIME) + now;
        }
    }

    return n;
}

static inline void
watch(int ep, int fd, void *ptr)
{
    struct epoll_event ev = {.events = EPOLLIN};

    ev.data.ptr = ptr;
    must(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) == 0, "epoll_ctl");
}

/* Events in what was read; one that is cut in two counts by its end. */
static inline unsigned
count_events(const char *p, size_t n, char *last)
{
    const char *end = p + n;
    unsigned events = 0;

    if (n > 0 && *last == '\n' && p[0] == '\n') {
        events++;
    }

    while ((p = memchr(p, '\n', (size_t) (end - p))) != NULL && p + 1 < end) {
        events += p[1] == '\n';
        p += p[1] == '\n' ? 2 : 1;
    }

    *last = n > 0 ? end[-1] : *last;

    return events;
}

typedef struct {
    double *v;
    size_t n, cap;
} samples_t;

static inline void
samples_add(samples_t *s, double v)
{
    if (s->n == s->cap) {
        s->cap = s->cap ? 2 * s->cap : 4096;
        s->v = realloc(s->v, s->cap * sizeof(*s->v));
        must(s->v != NULL, "memory");
    }
    s->v[s->n++] = v;
}

static inline int
samples_by_value(const void *a, const void *b)
{
    const double x = *(const double *) a, y = *(const double *) b;

    return (x > y) - (x < y);
}

static inline double
samples_at(samples_t *s, double q)
{
    must(s->n > 0, "any sample");
    qsort(s->v, s->n, sizeof(*s->v), samples_by_value);

    return s->v[(size_t) (q * (double) (s->n - 1))];
}

typedef struct {
    double user, cpu, writes;
} usage_t;

/* CPU seconds (user, and user + system) and write calls of a process. */
static inline usage_t
usage_of(const char *pid)
{
    usage_t u = {0, 0, 0};
    unsigned long user, sys;
    char path[64], line[1024];
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%s/stat", pid);
    f = fopen(path, "r");
    must(f != NULL && fgets(line, sizeof(line), f) != NULL, path);
    fclose(f);
    must(sscanf(strrchr(line, ')'),
             ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
             &sys)
             == 2,
        path);
    u.user = (double) user / (double) sysconf(_SC_CLK_TCK);
    u.cpu = (double) (user + sys) / (double) sysconf(_SC_CLK_TCK);
    snprintf(path, sizeof(path), "/proc/%s/io", pid);
    f = fopen(path, "r");
    must(f != NULL, path);
    while (fgets(line, sizeof(line), f) != NULL) {
        (void) sscanf(line, "syscw: %lf", &u.writes);
    }
    fclose(f);

    return u;
}

#endif
