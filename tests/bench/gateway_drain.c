/*
 * How many events a process can write in a second of CPU time:
 *
 *   gateway_drain stream PORT CLIENTS SECONDS PID
 *   gateway_drain floor CLIENTS SECONDS
 *
 * stream: so many streams at once, each begun anew when it ends, read and
 * counted here by one epoll loop; events and writes per CPU second of the
 * worker PID, from /proc.  An event is what the client sees as one "data:"
 * line.
 *
 * floor: the same counts for a process that does nothing but write an event
 * to each of so many sockets every 20 ms.  On the loopback a write pays for
 * the receiver's TCP too, so no server can do better with a write per event.
 */
#include "gateway.h"

#include <signal.h>
#include <sys/wait.h>

typedef struct {
    int fd;
    char last;
} stream_t;

typedef struct {
    uint64_t events, bytes;
    int open;
    const char *req; /* sent again when an answer has ended */
    size_t len;
} seen_t;

static void
drain_until(int ep, double end, seen_t *s)
{
    static char buf[READ_AT];
    struct epoll_event ev[256];
    stream_t *st;
    ssize_t got;
    int i, n;

    while (now_us() < end && s->open > 0) {
        n = epoll_wait(ep, ev, 256, 100);

        for (i = 0; i < n; i++) {
            st = ev[i].data.ptr;
            got = recv(st->fd, buf, sizeof(buf), MSG_DONTWAIT);
            if (got <= 0) {
                if (got < 0 && errno == EAGAIN) {
                    continue;
                }
                close(st->fd);
                s->open--;
                continue;
            }

            s->events += count_events(buf, (size_t) got, &st->last);
            s->bytes += (uint64_t) got;
            if (got >= 5 && memcmp(buf + got - 5, "0\r\n\r\n", 5) == 0) {
                http_send(st->fd, s->req, s->len); /* the context was full */
            }
        }
    }
}

/* Counts for some seconds, and says what PID spent on it. */
static void
measure(int ep, seen_t *s, int clients, double seconds, const char *pid)
{
    usage_t from, to;
    double t, cpu, user;

    drain_until(ep, now_us() + 2e6, s); /* all are running by then */
    must(s->open == clients, "all streams open");
    s->events = s->bytes = 0;
    from = usage_of(pid);
    t = now_us();
    drain_until(ep, t + seconds * 1e6, s);
    to = usage_of(pid);
    t = (now_us() - t) / 1e6;
    must(s->open == clients, "all streams open at the end");

    cpu = to.cpu - from.cpu;
    user = to.user - from.user;
    printf("events_s=%.0f cpu=%.2f per_cpu_s=%.0f user_us=%.2f "
           "per_write=%.2f bytes=%.0f\n",
        (double) s->events / t, cpu / t, (double) s->events / cpu,
        user * 1e6 / (double) s->events,
        (double) s->events / (to.writes - from.writes),
        (double) s->bytes / (double) s->events);
}

static stream_t *
streams_open(int clients, int *ep)
{
    stream_t *st;

    files_at_least(clients);
    st = calloc((size_t) clients, sizeof(*st));
    *ep = epoll_create1(EPOLL_CLOEXEC);
    must(clients > 0 && st != NULL && *ep >= 0, "epoll");

    return st;
}

static void
drain(const char *port, int clients, double seconds, const char *pid)
{
    stream_t *st;
    char req[1024];
    seen_t s = {0};
    int ep, i;

    st = streams_open(clients, &ep);
    s.req = req;
    s.len = http_post(req, sizeof(req), "/v1/completions", NULL,
        "{\"model\":\"m\",\"prompt\":\"x\",\"max_tokens\":1000000,"
        "\"stream\":true,\"ignore_eos\":true}");

    for (i = 0; i < clients; i++) {
        st[i].fd = http_connect(port);
        http_send(st[i].fd, s.req, s.len);
        watch(ep, st[i].fd, &st[i]);
        s.open++;
    }

    measure(ep, &s, clients, seconds, pid);
}

/* Writes to each of fds every 20 ms until it is killed. */
static void
floor_write(const int *fds, int clients)
{
    char event[235];
    int i;

    memset(event, 'x', sizeof(event));
    memcpy(event + sizeof(event) - 4, "\n\n\r\n", 4);

    for (;;) {
        double next = now_us() + 20000, left;

        for (i = 0; i < clients; i++) {
            must(write(fds[i], event, sizeof(event)) == sizeof(event), "write");
        }

        left = next - now_us();
        if (left > 0) {
            usleep((useconds_t) left);
        }
    }
}

static void
floor_run(int clients, double seconds)
{
    struct sockaddr_in sa = {.sin_family = AF_INET};
    socklen_t len = sizeof(sa);
    stream_t *st;
    seen_t s = {0};
    char port[16], pid[16];
    int *fds, ep, fd, i;
    pid_t child;

    st = streams_open(clients, &ep);
    fds = calloc((size_t) clients, sizeof(*fds));
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    must(fds != NULL && bind(fd, (struct sockaddr *) &sa, len) == 0, "bind");
    must(listen(fd, 64) == 0, "listen");
    must(getsockname(fd, (struct sockaddr *) &sa, &len) == 0, "getsockname");
    snprintf(port, sizeof(port), "%u", ntohs(sa.sin_port));

    for (i = 0; i < clients; i++) {
        st[i].fd = http_connect(port);
        fds[i] = accept(fd, NULL, NULL);
        must(fds[i] >= 0, "accept");
        watch(ep, st[i].fd, &st[i]);
        s.open++;
    }

    child = fork();
    must(child >= 0, "fork");
    if (child == 0) {
        floor_write(fds, clients);
    }

    snprintf(pid, sizeof(pid), "%d", (int) child);
    measure(ep, &s, clients, seconds, pid);
    kill(child, SIGKILL);
    (void) waitpid(child, NULL, 0);
}

int
main(int argc, char **argv)
{
    if (argc == 6 && strcmp(argv[1], "stream") == 0) {
        drain(argv[2], atoi(argv[3]), atof(argv[4]), argv[5]);
        return 0;
    }

    if (argc == 4 && strcmp(argv[1], "floor") == 0) {
        floor_run(atoi(argv[2]), atof(argv[3]));
        return 0;
    }

    printf("tests/bench/gateway.sh runs this one\n");

    return argc == 1 ? 0 : 1;
}
