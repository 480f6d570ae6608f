/*
 * What nginx and the module add to a request's time, at a given load:
 *
 *   gateway_latency PORT REQUESTS/S SECONDS PID
 *
 * DESIGN.  The engine behind it is tests/fake_engine --stamps, whose one token
 * of text is two times by CLOCK_MONOTONIC, in ns: when it saw the SUBMIT
 * record, and when it committed the EVENT record.  With the client's two,
 * before it sends and when the bytes of the event came out (gateway.h), that
 * is
 *
 *     in    before send() -> SUBMIT seen: the client's system call, nginx's
 *           wake-up, the head, the parse, the ring, the engine's wake-up
 *     out   EVENT committed -> bytes on the loopback: nginx's wake-up, the
 *           drain, the chunk, nginx's system call
 *
 * and their sum is all the gateway can have added; what the engine did lies
 * between the two.  Compared with taking the time of a whole request and
 * subtracting that of one sent straight to the engine it needs no assumption
 * that both wait alike, so its p99 is one of single requests.
 *
 * Before tests/bench/relay it measures what two processes add that only hand
 * each request on: no gateway can be below that.
 *
 * Requests are sent when they are due (exponential gaps, one seed), not when
 * the last one is answered, over as many kept connections as that needs.
 */
#include "gateway.h"

#include <math.h>
#include <sys/timerfd.h>

#define CONNECTIONS 64
#define WARM_US     1e6

typedef struct {
    int fd, busy;
    double sent;
    size_t have;
    char buf[4096];
} conn_t;

typedef struct {
    conn_t conns[CONNECTIONS];
    char req[512];
    size_t len;
    double start;
    unsigned late; /* no connection was free */
    samples_t in, out, both;
} load_t;

static double
gap_us(uint64_t *seed, double rate)
{
    *seed = *seed * 6364136223846793005ull + 1442695040888963407ull;

    return -log(((double) (*seed >> 11) + 1) / 9007199254740993.0) * 1e6 / rate;
}

static void
begin(load_t *l)
{
    conn_t *c;

    for (c = l->conns; c < l->conns + CONNECTIONS; c++) {
        if (!c->busy) {
            c->busy = 1;
            c->have = 0;
            c->sent = now_us();
            http_send(c->fd, l->req, l->len);
            return;
        }
    }

    l->late++;
}

/* An answer is two events and the end: the first one carries the times. */
static void
more(load_t *l, conn_t *c)
{
    unsigned long long seen, committed;
    double at, in, out;
    ssize_t n;
    char *text;
    int had;

    had = c->have > 0;
    n = http_recv(c->fd, c->buf + c->have, sizeof(c->buf) - 1 - c->have,
        MSG_DONTWAIT, &at);
    if (n < 0 && errno == EAGAIN) {
        return;
    }
    must(n > 0, "recv");
    c->have += (size_t) n;
    c->buf[c->have] = '\0';

    if (!had) {
        text = strstr(c->buf, "\"text\":\"");
        must(text != NULL
                 && sscanf(text + 8, "%llu %llu", &seen, &committed) == 2,
            c->buf);
        in = (double) seen * 1e-3 - c->sent;
        out = at - (double) committed * 1e-3;
        if (c->sent > l->start + WARM_US) {
            samples_add(&l->in, in);
            samples_add(&l->out, out);
            samples_add(&l->both, in + out);
        }
    }

    if (c->have >= 5 && memcmp(c->buf + c->have - 5, "0\r\n\r\n", 5) == 0) {
        c->busy = 0;
    }
}

static void
arm(int tfd, double at)
{
    struct itimerspec t = {0};

    t.it_value.tv_sec = (time_t) (at / 1e6);
    t.it_value.tv_nsec = (long) (fmod(at, 1e6) * 1e3) + 1;
    must(timerfd_settime(tfd, TFD_TIMER_ABSTIME, &t, NULL) == 0, "timerfd");
}

static void
run(load_t *l, double rate, double seconds)
{
    struct epoll_event ev[CONNECTIONS + 1];
    double due, end;
    uint64_t seed = 1, ticks;
    int ep, tfd, i, n;

    ep = epoll_create1(EPOLL_CLOEXEC);
    tfd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    must(ep >= 0 && tfd >= 0, "epoll");
    watch(ep, tfd, NULL);
    for (i = 0; i < CONNECTIONS; i++) {
        watch(ep, l->conns[i].fd, &l->conns[i]);
    }

    l->start = due = now_us();
    end = l->start + WARM_US + seconds * 1e6;

    while (due < end) {
        arm(tfd, due);
        n = epoll_wait(ep, ev, CONNECTIONS + 1, -1);
        for (i = 0; i < n; i++) {
            if (ev[i].data.ptr != NULL) {
                more(l, ev[i].data.ptr);
            }
        }
        while (due <= now_us() && due < end) {
            begin(l);
            due += gap_us(&seed, rate);
        }
        (void) !read(tfd, &ticks, sizeof(ticks));
    }
}

int
main(int argc, char **argv)
{
    static load_t l;
    usage_t from, to;
    double seconds;
    int i;

    if (argc != 5) {
        printf("tests/bench/gateway.sh runs this one\n");
        return argc == 1 ? 0 : 1;
    }

    for (i = 0; i < CONNECTIONS; i++) {
        l.conns[i].fd = http_connect(argv[1]);
    }
    l.len = http_post(l.req, sizeof(l.req), "/v1/completions", NULL,
        "{\"model\":\"m\",\"prompt\":\"x\",\"max_tokens\":1,\"stream\":true}");
    seconds = atof(argv[3]);

    from = usage_of(argv[4]);
    run(&l, atof(argv[2]), seconds);
    to = usage_of(argv[4]);

    printf("in_p50=%.0f in_p99=%.0f out_p50=%.0f out_p99=%.0f p50=%.0f "
           "p99=%.0f n=%zu late=%u load=%.0f\n",
        samples_at(&l.in, .5), samples_at(&l.in, .99), samples_at(&l.out, .5),
        samples_at(&l.out, .99), samples_at(&l.both, .5),
        samples_at(&l.both, .99), l.both.n, l.late,
        (to.cpu - from.cpu) * 100e6 / (seconds * 1e6 + WARM_US));

    return 0;
}
