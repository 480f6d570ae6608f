/*
 * The least that a front end and an engine in two processes can add:
 *
 *   relay PORT
 *
 * is two processes that hand on each request as nginx and an engine do, and
 * nothing else: one waits in epoll for TCP, passes a message on through a unix
 * socket, and writes what comes back; the other one answers each message with
 * the two times that tests/fake_engine --stamps gives.  gateway_latency cannot
 * tell them apart, so what it measures here is the price of the system calls
 * and wake-ups on this machine at this moment.
 */
#include "gateway.h"

typedef struct {
    int fd;
    unsigned long long seen, committed; /* ns */
} message_t;

static unsigned long long
now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);

    return (unsigned long long) t.tv_sec * 1000000000ull
           + (unsigned long long) t.tv_nsec;
}

static void
engine(int fd)
{
    message_t m;

    while (recv(fd, &m, sizeof(m), 0) == (ssize_t) sizeof(m)) {
        m.seen = now_ns();
        m.committed = now_ns();
        must(send(fd, &m, sizeof(m), 0) == (ssize_t) sizeof(m), "send");
    }

    exit(0);
}

static void
answer(const message_t *m)
{
    char chunk[128], buf[512];
    int n;

    n = snprintf(chunk, sizeof(chunk), "data: {\"text\":\"%llu %llu \"}\n\n",
        m->seen, m->committed);
    n = snprintf(buf, sizeof(buf),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        "%x\r\n%s\r\n0\r\n\r\n",
        (unsigned) n, chunk);
    (void) !send(m->fd, buf, (size_t) n, MSG_NOSIGNAL);
}

static void
relay(int ep, int listener, int to_engine)
{
    static char buf[READ_AT];
    struct epoll_event ev[64];
    message_t m = {0};
    int i, n, fd, on = 1;

    for (;;) {
        n = epoll_wait(ep, ev, 64, -1);
        for (i = 0; i < n; i++) {
            m.fd = ev[i].data.fd;
            if (m.fd == listener) {
                fd = accept(listener, NULL, NULL);
                (void) setsockopt(
                    fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
                watch(ep, fd, (void *) (intptr_t) fd);
            } else if (m.fd == to_engine) {
                must(recv(to_engine, &m, sizeof(m), 0) == (ssize_t) sizeof(m),
                    "recv");
                answer(&m);
            } else if (recv(m.fd, buf, sizeof(buf), 0) > 0) {
                must(send(to_engine, &m, sizeof(m), 0) == (ssize_t) sizeof(m),
                    "send");
            } else {
                close(m.fd);
            }
        }
    }
}

int
main(int argc, char **argv)
{
    struct sockaddr_in sa = {.sin_family = AF_INET};
    int ep, listener, pair[2], on = 1;
    pid_t child;

    if (argc != 2) {
        printf("tests/bench/gateway.sh runs this one\n");
        return argc == 1 ? 0 : 1;
    }

    must(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0, "socketpair");
    child = fork();
    must(child >= 0, "fork");
    if (child == 0) {
        close(pair[0]); /* so that the other process's end is the end */
        engine(pair[1]);
    }
    close(pair[1]);

    ep = epoll_create1(EPOLL_CLOEXEC);
    listener = socket(AF_INET, SOCK_STREAM, 0);
    must(ep >= 0 && listener >= 0, "socket");
    (void) setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    sa.sin_port = htons((uint16_t) atoi(argv[1]));
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    must(bind(listener, (struct sockaddr *) &sa, sizeof(sa)) == 0, "bind");
    must(listen(listener, 1024) == 0, "listen");
    watch(ep, listener, (void *) (intptr_t) listener);
    watch(ep, pair[0], (void *) (intptr_t) pair[0]);
    relay(ep, listener, pair[0]);
}
