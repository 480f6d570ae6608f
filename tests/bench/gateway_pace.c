/*
 * How evenly many paced streams come:
 *
 *   gateway_pace PORT STREAMS RATE SECONDS BODIES PID...
 *
 * opens so many streams, one after the other over two seconds, of a server
 * that writes an event to each RATE times a second, and prints percentiles of
 * |gap between two events of a stream - 1/RATE|, when they came out of the
 * server (gateway.h); what CPU time an event cost the processes PID; and, if
 * the text is that of tests/fake_engine --stamps, the time from a committed
 * EVENT record to its bytes.  With BODIES 1 a chat request of 1 MB is posted
 * each second meanwhile, by a process of its own.
 */
#include "gateway.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define OPEN_US 2030000.0 /* not a multiple of any gap: no two bursts */
#define BODY    1000000

typedef struct {
    int fd;
    char last;
    int begun;
    double at; /* of its last event, 0: none yet */
} stream_t;

typedef struct {
    int ep, streams, measuring;
    double gap;
    stream_t *st;
    uint64_t events;
    samples_t jitter, out;
} pace_t;

/* The time of an EVENT record, if there is one. */
static void
stamp(pace_t *p, const char *buf, size_t len, double at)
{
    unsigned long long seen, committed;
    const char *text = memmem(buf, len, "\"text\":\"", 8);

    if (text != NULL && text + 60 < buf + len
        && sscanf(text + 8, "%llu %llu", &seen, &committed) == 2) {
        samples_add(&p->out, at - (double) committed * 1e-3);
    }
}

static void
stream_read(pace_t *p, stream_t *s)
{
    static char buf[READ_AT];
    unsigned events, i;
    double at;
    ssize_t n;

    n = http_recv(s->fd, buf, sizeof(buf) - 1, MSG_DONTWAIT, &at);
    if (n < 0 && errno == EAGAIN) {
        return;
    }
    must(n > 0, "a stream that stays open");
    buf[n] = '\0';
    must(s->begun || strncmp(buf, "HTTP/1.1 200", 12) == 0, buf);
    s->begun = 1;

    events = count_events(buf, (size_t) n, &s->last);

    for (i = 0; i < events; i++) {
        if (p->measuring && s->at != 0) {
            samples_add(&p->jitter, at - s->at > p->gap
                                        ? at - s->at - p->gap
                                        : p->gap - (at - s->at));
        }
        s->at = at;
    }

    if (p->measuring) {
        p->events += events;
        stamp(p, buf, (size_t) n, at);
    }
}

static void
read_until(pace_t *p, double end)
{
    struct epoll_event ev[256];
    double left;
    int i, n;

    while ((left = end - now_us()) > 0) {
        n = epoll_wait(p->ep, ev, 256, left > 1e5 ? 100 : (int) (left / 1e3));
        for (i = 0; i < n; i++) {
            stream_read(p, ev[i].data.ptr);
        }
    }
}

static void
streams_open(pace_t *p, const char *port)
{
    char req[512];
    double start;
    size_t len;
    int i;

    len = http_post(req, sizeof(req), "/v1/completions", NULL,
        "{\"model\":\"m\",\"prompt\":\"x\",\"max_tokens\":1000000,"
        "\"stream\":true}");
    start = now_us();

    for (i = 0; i < p->streams; i++) {
        read_until(p, start + OPEN_US * i / p->streams);
        p->st[i].fd = http_connect(port);
        http_send(p->st[i].fd, req, len);
        watch(p->ep, p->st[i].fd, &p->st[i]);
    }
}

static size_t
body_make(char *buf, size_t size)
{
    char *body;
    size_t n;

    body = malloc(BODY + 1);
    must(body != NULL, "memory");
    n = (size_t) sprintf(body,
        "{\"model\":\"m\",\"max_tokens\":1,"
        "\"messages\":[{\"role\":\"user\",\"content\":\"");
    while (n < BODY - 80) {
        n += (size_t) sprintf(body + n,
            "The same line of a text again, it is \\\"long\\\", %zu.\\n", n);
    }
    while (n < BODY - 4) {
        body[n++] = '.';
    }
    strcpy(body + n, "\"}]}");
    n = http_post(buf, size, "/v1/chat/completions", NULL, body);
    free(body);

    return n;
}

/* Posts until it is killed, and counts the answers. */
static void
bodies_post(const char *port, unsigned *answered)
{
    static char req[BODY + 1024], buf[READ_AT];
    double due, at;
    size_t len, done;
    ssize_t n;
    int fd;

    len = body_make(req, sizeof(req));
    fd = http_connect(port);

    for (due = now_us();; due += 1e6) {
        for (done = 0; done < len; done += (size_t) n) {
            n = send(fd, req + done, len - done, MSG_NOSIGNAL);
            must(n > 0, "send");
        }
        n = http_recv(fd, buf, sizeof(buf) - 1, 0, &at);
        must(n > 12, "an answer to 1 MB");
        buf[n] = '\0';
        must(strncmp(buf, "HTTP/1.1 200", 12) == 0, buf);
        __atomic_fetch_add(answered, 1, __ATOMIC_RELAXED);
        if (due + 1e6 > now_us()) {
            usleep((useconds_t) (due + 1e6 - now_us()));
        }
    }
}

static double
usage_sum(char **pids)
{
    double cpu = 0;

    for (; *pids != NULL; pids++) {
        cpu += usage_of(*pids).cpu;
    }

    return cpu;
}

static void
measure(pace_t *p, double seconds, char **pids, const unsigned *bodies)
{
    unsigned before;
    double cpu, t;

    read_until(p, now_us() + 1e6);
    p->measuring = 1;
    before = __atomic_load_n(bodies, __ATOMIC_RELAXED);
    cpu = usage_sum(pids);
    t = now_us();
    read_until(p, t + seconds * 1e6);
    t = now_us() - t;
    cpu = usage_sum(pids) - cpu;

    printf("p50=%.2f p99=%.2f p999=%.2f max=%.1f events_s=%.0f "
           "cpu_us=%.1f bodies=%u",
        samples_at(&p->jitter, .5) * 1e-3, samples_at(&p->jitter, .99) * 1e-3,
        samples_at(&p->jitter, .999) * 1e-3, samples_at(&p->jitter, 1) * 1e-3,
        (double) p->events * 1e6 / t, cpu * 1e6 / (double) p->events,
        __atomic_load_n(bodies, __ATOMIC_RELAXED) - before);
    if (p->out.n > 0) {
        printf(" out_p50=%.0f out_p99=%.0f", samples_at(&p->out, .5),
            samples_at(&p->out, .99));
    }
    printf("\n");
}

int
main(int argc, char **argv)
{
    unsigned *bodies;
    pace_t p = {0};
    pid_t child = 0;

    if (argc < 7) {
        printf("tests/bench/gateway.sh runs this one\n");
        return argc == 1 ? 0 : 1;
    }

    p.streams = atoi(argv[2]);
    p.gap = 1e6 / atof(argv[3]);
    files_at_least(p.streams);
    p.ep = epoll_create1(EPOLL_CLOEXEC);
    p.st = calloc((size_t) p.streams, sizeof(*p.st));
    bodies = mmap(NULL, sizeof(*bodies), PROT_READ | PROT_WRITE,
        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(p.st != NULL && p.ep >= 0 && bodies != MAP_FAILED, "memory");

    streams_open(&p, argv[1]);

    if (atoi(argv[5])) {
        child = fork();
        must(child >= 0, "fork");
        if (child == 0) {
            bodies_post(argv[1], bodies);
        }
    }

    measure(&p, atof(argv[4]), argv + 6, bodies);

    if (child != 0) {
        kill(child, SIGKILL);
        (void) waitpid(child, NULL, 0);
    }

    return 0;
}
