/*
 * How many short requests a process answers in a second of CPU time:
 *
 *   gateway_requests PORT CONNECTIONS SECONDS PID [KEY]
 *
 * Chat requests of one token, not streamed, over kept connections, the next
 * one when the last one is answered.
 */
#include "gateway.h"

typedef struct {
    int fd;
    size_t have, want; /* of an answer; want 0: its head is not whole */
    char buf[8192];
} conn_t;

/* 1 when the answer is complete */
static int
more(conn_t *c)
{
    char *body, *length;
    double at;
    ssize_t n;

    n = http_recv(c->fd, c->buf + c->have, sizeof(c->buf) - 1 - c->have,
        MSG_DONTWAIT, &at);
    if (n < 0 && errno == EAGAIN) {
        return 0;
    }
    must(n > 0, "recv");
    c->have += (size_t) n;
    c->buf[c->have] = '\0';
    body = strstr(c->buf, "\r\n\r\n");

    if (c->want == 0 && body != NULL) {
        must(strncmp(c->buf, "HTTP/1.1 200", 12) == 0, c->buf);
        length = strcasestr(c->buf, "\r\nContent-Length:");
        must(length != NULL, "Content-Length");
        c->want = (size_t) (body + 4 - c->buf) + strtoul(length + 17, NULL, 10);
    }

    return c->want != 0 && c->have >= c->want;
}

static uint64_t
run_until(int ep, double end, const char *req, size_t len)
{
    struct epoll_event ev[256];
    uint64_t answers = 0;
    conn_t *c;
    int i, n;

    while (now_us() < end) {
        n = epoll_wait(ep, ev, 256, 100);

        for (i = 0; i < n; i++) {
            c = ev[i].data.ptr;
            if (more(c)) {
                answers++;
                c->have = c->want = 0;
                http_send(c->fd, req, len);
            }
        }
    }

    return answers;
}

int
main(int argc, char **argv)
{
    uint64_t answers;
    usage_t from, to;
    conn_t *conns;
    char req[512];
    size_t len;
    double t, cpu;
    int ep, i, n;

    if (argc < 5) {
        printf("tests/bench/gateway.sh runs this one\n");
        return argc == 1 ? 0 : 1;
    }

    n = atoi(argv[2]);
    conns = calloc((size_t) n, sizeof(*conns));
    ep = epoll_create1(EPOLL_CLOEXEC);
    must(n > 0 && conns != NULL && ep >= 0, "epoll");
    len = http_post(req, sizeof(req), "/v1/chat/completions",
        argc > 5 ? argv[5] : NULL,
        "{\"model\":\"m\",\"max_tokens\":1,"
        "\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}]}");

    for (i = 0; i < n; i++) {
        conns[i].fd = http_connect(argv[1]);
        http_send(conns[i].fd, req, len);
        watch(ep, conns[i].fd, &conns[i]);
    }

    (void) run_until(ep, now_us() + 1e6, req, len);
    from = usage_of(argv[4]);
    t = now_us();
    answers = run_until(ep, t + atof(argv[3]) * 1e6, req, len);
    t = (now_us() - t) * 1e-6;
    to = usage_of(argv[4]);
    cpu = to.cpu - from.cpu;

    printf("requests_s=%.0f cpu=%.2f per_cpu_s=%.0f\n", (double) answers / t,
        cpu / t, (double) answers / cpu);

    return 0;
}
