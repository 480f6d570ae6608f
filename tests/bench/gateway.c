/*
 * What nginx and the module cost, beside an engine that computes nothing; see
 * gateway.sh, which starts both and calls
 *
 *   gateway latency PORT SOCKET MODEL REQUESTS
 *   gateway drain PORT MODEL CLIENTS SECONDS PID
 *   gateway floor CLIENTS SECONDS
 *
 * latency: the same request of one token in turns over HTTP on one kept
 * connection, and straight to the engine as a worker would send it.  What
 * HTTP takes beyond the engine's own time (queue, prefill and decode in DONE)
 * holds the hand-overs between the engine's threads too, beyond the straight
 * way it is the gateway alone.
 *
 * drain: so many streams at once, each begun anew when it ends, read and
 * counted here by one epoll loop; events and writes per CPU second of the
 * worker PID, from /proc.  An event is what the client sees as one "data:"
 * line.
 *
 * floor: the same counts for a process that does nothing but write an event
 * to each of so many sockets every 20 ms.  On the loopback a write pays for
 * the receiver's TCP too, so no server can do better with a write per event.
 */
#include "llm_wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#define assert_true(x)         must((x), #x)
#define assert_non_null(x)     must((x) != NULL, #x)
#define assert_int_equal(a, b) must((a) == (b), #a " == " #b)

static void
must(int holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "gateway: %s: %s\n", what, strerror(errno));
        exit(1);
    }
}

#include "../unit/ipc_client.h"

#define WARM    200
#define READ_AT (64u << 10)

static double
now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);

    return (double) t.tv_sec * 1e6 + (double) t.tv_nsec * 1e-3;
}

static int
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

    return fd;
}

static size_t
http_request(char *buf, size_t size, const char *model, uint32_t max_tokens,
    const char *more)
{
    char body[512];
    int n;

    n = snprintf(body, sizeof(body),
        "{\"model\":\"%s\",\"prompt\":\"x\",\"max_tokens\":%u%s}", model,
        max_tokens, more);
    n = snprintf(buf, size,
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
        "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
        n, body);
    must(n > 0 && (size_t) n < size, "the request's length");

    return (size_t) n;
}

/* One request and its whole answer, which has a Content-Length. */
static double
http_one(int fd, const char *req, size_t len)
{
    static char buf[READ_AT];
    char *body, *length;
    size_t have, want;
    double t;
    ssize_t n;

    t = now_us();
    must(send(fd, req, len, MSG_NOSIGNAL) == (ssize_t) len, "send");
    have = 0;
    want = sizeof(buf);

    while (have < want) {
        n = recv(fd, buf + have, sizeof(buf) - 1 - have, 0);
        must(n > 0, "recv");
        have += (size_t) n;
        buf[have] = '\0';
        body = strstr(buf, "\r\n\r\n");

        if (body != NULL && want == sizeof(buf)) {
            must(strncmp(buf, "HTTP/1.1 200", 12) == 0, buf);
            length = strcasestr(buf, "\r\nContent-Length:");
            must(length != NULL, "Content-Length");
            want = (size_t) (body + 4 - buf) + strtoul(length + 17, NULL, 10);
        }
    }

    return now_us() - t;
}

static uint32_t
section(uint8_t *p, uint32_t type, const char *text)
{
    llm_wire_sec_t s = {type, (uint32_t) strlen(text)};

    memset(p, 0, sizeof(s) + s.len + 8);
    memcpy(p, &s, sizeof(s));
    memcpy(p + sizeof(s), text, s.len);

    return ((uint32_t) sizeof(s) + s.len + 7) & ~7u;
}

static void
direct_submit(client_t *c, const char *model, uint32_t gen)
{
    uint8_t rec[512];
    llm_wire_submit_t *h = (void *) rec;
    uint32_t len = sizeof(*h);
    void *to;

    memset(h, 0, sizeof(*h));
    h->hdr.type = LLM_REC_SUBMIT;
    h->id.epoch = c->w.epoch;
    h->id.gen = gen;
    h->head_len = sizeof(*h);
    h->kind = LLM_KIND_TEXT;
    h->n = h->max_tokens = h->weight = 1;
    h->credit = 4096;
    h->top_p = h->repetition_penalty = 1;
    len += section(rec + len, LLM_SEC_MODEL, model);
    len += section(rec + len, LLM_SEC_PROMPT, "x");
    h->hdr.len = len;

    /* as each new user of a slot does */
    __atomic_store_n(&c->lines[0].taken, 0, __ATOMIC_SEQ_CST);

    to = llm_ring_reserve(&c->submit, len, 0);
    must(to != NULL, "room in the SUBMIT ring");
    memcpy(to, rec, len);
    llm_ring_commit(&c->submit);

    if (llm_ring_must_wake(&c->submit)) {
        (void) send(c->fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
}

/* The same request past nginx; *own is the engine's time by its own clock. */
static double
direct_one(client_t *c, const char *model, uint32_t gen, double *own)
{
    struct pollfd p = {c->fd, POLLIN, 0};
    union {
        llm_ring_hdr_t hdr;
        llm_wire_done_t done;
        uint8_t bytes[READ_AT];
    } rec;
    double t;
    int64_t n;

    t = now_us();
    direct_submit(c, model, gen);

    for (;;) {
        n = llm_ring_peek(&c->event, &rec, sizeof(rec));
        if (n == LLM_RING_EMPTY) {
            must(client_rings(c) >= 0, "the engine");
            if (llm_ring_may_sleep(&c->event)) {
                must(poll(&p, 1, 10000) == 1, "an answer in 10 s");
            }
            continue;
        }

        must(n > 0, "a sound record");
        llm_ring_advance(&c->event);
        must(rec.hdr.type != LLM_REC_ERROR, "no ERROR");
        if (rec.hdr.type == LLM_REC_DONE) {
            break;
        }
    }

    *own =
        (double) (rec.done.queue_us + rec.done.prefill_us + rec.done.decode_us);

    return now_us() - t;
}

static int
by_value(const void *a, const void *b)
{
    const double x = *(const double *) a, y = *(const double *) b;

    return (x > y) - (x < y);
}

static double
quantile(double *v, int n, double q)
{
    qsort(v, (size_t) n, sizeof(*v), by_value);

    return v[(int) (q * (n - 1))];
}

static void
latency(const char *port, const char *path, const char *model, int n)
{
    double *http, *direct, *own;
    char req[1024];
    client_t c;
    size_t len;
    int fd, i, at;

    http = calloc((size_t) n, 3 * sizeof(*http));
    must(n > 0 && http != NULL, "REQUESTS");
    direct = http + n;
    own = direct + n;

    client_connect(&c, path);
    client_hello(&c, LLM_WIRE_VERSION_MIN, LLM_WIRE_VERSION);
    while ((i = client_answer(&c)) < 0) {
        struct pollfd p = {c.fd, POLLIN, 0};

        must(poll(&p, 1, 5000) == 1, "an answer to hello");
    }
    must(i == 1, "WELCOME");

    fd = http_connect(port);
    len = http_request(req, sizeof(req), model, 1, "");

    for (i = -WARM; i < n; i++) {
        at = i < 0 ? 0 : i;
        http[at] = http_one(fd, req, len);
        direct[at] = direct_one(&c, model, (uint32_t) (i + WARM + 1), &own[at]);
    }

    printf("%-34s %8s %8s\n", "us, one client, 1 token", "p50", "p99");
#define ROW(name, v)                                                           \
    printf("%-34s %8.0f %8.0f\n", name, quantile(v, n, .5), quantile(v, n, .99))
    ROW("over HTTP, kept connection", http);
    ROW("straight to the engine's socket", direct);
    ROW("engine's own (DONE)", own);
#undef ROW
    printf("%-34s %8.0f %8.0f  (target < 100 at p50)\n", "the gateway adds",
        quantile(http, n, .5) - quantile(direct, n, .5),
        quantile(http, n, .99) - quantile(direct, n, .99));
    printf("%-34s %8.0f\n", "outside the engine's own time",
        quantile(http, n, .5) - quantile(own, n, .5));
    client_close(&c);
}

typedef struct {
    double user, cpu, writes;
} usage_t;

/* CPU seconds and write calls of a process so far. */
static usage_t
usage_of(const char *pid)
{
    usage_t u;
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
    u.writes = 0;
    snprintf(path, sizeof(path), "/proc/%s/io", pid);
    f = fopen(path, "r");
    must(f != NULL, path);
    while (fgets(line, sizeof(line), f) != NULL) {
        (void) sscanf(line, "syscw: %lf", &u.writes);
    }
    fclose(f);

    return u;
}

/* Events in what was read; one that is cut in two counts by its end. */
static uint64_t
count_events(const char *p, size_t n, char *last)
{
    const char *end = p + n;
    uint64_t events = 0;

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
ask(const seen_t *s, int fd)
{
    must(send(fd, s->req, s->len, MSG_NOSIGNAL) == (ssize_t) s->len, "send");
}

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
                ask(s, st->fd); /* the context was full */
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
    printf("%7d %9.0f %6.2f %13.0f %15.0f %13.2f %12.0f\n", clients,
        (double) s->events / t, cpu / t, (double) s->events / cpu,
        user < 0.1 ? 0 : (double) s->events / user, /* 0: too few ticks */
        (double) s->events / (to.writes - from.writes),
        (double) s->bytes / (double) s->events);
}

static stream_t *
streams_open(int clients, int *ep)
{
    struct rlimit lim = {2 * (rlim_t) clients + 64, 2 * (rlim_t) clients + 64};
    stream_t *st;

    (void) setrlimit(RLIMIT_NOFILE, &lim);
    st = calloc((size_t) clients, sizeof(*st));
    *ep = epoll_create1(EPOLL_CLOEXEC);
    must(clients > 0 && st != NULL && *ep >= 0, "epoll");

    return st;
}

static void
watch(int ep, stream_t *st)
{
    struct epoll_event ev = {.events = EPOLLIN};

    ev.data.ptr = st;
    must(epoll_ctl(ep, EPOLL_CTL_ADD, st->fd, &ev) == 0, "epoll_ctl");
}

static void
drain(const char *port, const char *model, int clients, double seconds,
    const char *pid)
{
    stream_t *st;
    char req[1024];
    seen_t s = {0};
    int ep, i;

    st = streams_open(clients, &ep);
    s.req = req;
    s.len = http_request(req, sizeof(req), model, 1000000,
        ",\"stream\":true,\"ignore_eos\":true");

    for (i = 0; i < clients; i++) {
        st[i].fd = http_connect(port);
        ask(&s, st[i].fd);
        watch(ep, &st[i]);
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
        watch(ep, &st[i]);
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
    if (argc == 6 && strcmp(argv[1], "latency") == 0) {
        latency(argv[2], argv[3], argv[4], atoi(argv[5]));
        return 0;
    }

    if (argc == 7 && strcmp(argv[1], "drain") == 0) {
        drain(argv[2], argv[3], atoi(argv[4]), atof(argv[5]), argv[6]);
        return 0;
    }

    if (argc == 4 && strcmp(argv[1], "floor") == 0) {
        floor_run(atoi(argv[2]), atof(argv[3]));
        return 0;
    }

    printf("tests/bench/gateway.sh runs this one\n");

    return argc == 1 ? 0 : 1;
}
