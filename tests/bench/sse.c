/*
 * A bare C responder, for what nginx is compared with:
 *
 *   sse PORT RATE
 *
 * A POST to /v1/completions gets an endless event stream, RATE events a second
 * from when it was asked (0: one event, then silence); any other one a short
 * JSON answer.  Bodies are read and thrown away.
 *
 * DESIGN.  One thread, epoll, no library.  Streams keep their own time, looked
 * at every millisecond, as tests/fake_engine does it, and an event is as long
 * as the gateway's: what differs from nginx in a run is what nginx does.
 */
#include "gateway.h"

#include <signal.h>

#define CONNS_MAX 8192

typedef struct {
    int fd; /* 0: unused */
    int stream;
    size_t body; /* still to come, bytes */
    size_t have;
    double due; /* of the next event */
    char head[2048];
} conn_t;

typedef struct {
    int ep, listener;
    double gap; /* us; 0: one event only */
    conn_t *conns;
    int top; /* connections ever used */
    char event[256];
    size_t event_len;
} server_t;

static const char sse_head[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";

static const char sse_json[] =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    "Content-Length: 15\r\n\r\n{\"object\":\"ok\"}";

static void
conn_close(conn_t *c)
{
    close(c->fd);
    memset(c, 0, sizeof(*c));
}

static void
conn_write(conn_t *c, const char *p, size_t n)
{
    if (send(c->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t) n) {
        conn_close(c); /* gone, or far too slow for this */
    }
}

static void
conn_accept(server_t *s)
{
    int fd, i, on = 1;

    while ((fd = accept4(s->listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        (void) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        for (i = 0; i < CONNS_MAX && s->conns[i].fd != 0; i++) {
        }
        must(i < CONNS_MAX, "room for a connection");
        s->conns[i].fd = fd;
        s->top = i >= s->top ? i + 1 : s->top;
        watch(s->ep, fd, &s->conns[i]);
    }
}

static void
conn_answer(server_t *s, conn_t *c)
{
    int stream = strncmp(c->head, "POST /v1/completions ", 21) == 0;

    c->have = 0;

    if (!stream) {
        conn_write(c, sse_json, sizeof(sse_json) - 1);
        return;
    }

    c->stream = 1;
    c->due = now_us();
    conn_write(c, sse_head, sizeof(sse_head) - 1);
    if (c->fd != 0 && s->gap == 0) {
        conn_write(c, s->event, s->event_len);
    }
}

/* A head, whose body may follow in the same read. */
static void
conn_head(server_t *s, conn_t *c)
{
    char *end, *length;
    size_t rest;

    c->head[c->have] = '\0';
    end = strstr(c->head, "\r\n\r\n");
    if (end == NULL) {
        must(c->have < sizeof(c->head) - 1, "a short head");
        return;
    }

    length = strcasestr(c->head, "\r\nContent-Length:");
    c->body = length ? strtoul(length + 17, NULL, 10) : 0;
    rest = c->have - (size_t) (end + 4 - c->head);
    c->body -= rest < c->body ? rest : c->body;

    if (c->body == 0) {
        conn_answer(s, c);
    }
}

static void
conn_read(server_t *s, conn_t *c)
{
    static char buf[READ_AT];
    ssize_t n;
    int in_body;

    while (c->fd != 0) {
        in_body = c->body > 0;
        n = in_body ? recv(c->fd, buf, sizeof(buf), 0)
                    : recv(c->fd, c->head + c->have,
                        sizeof(c->head) - 1 - c->have, 0);
        if (n < 0 && errno == EAGAIN) {
            return;
        }
        if (n <= 0) {
            conn_close(c);
        } else if (!in_body) {
            c->have += (size_t) n;
            conn_head(s, c);
        } else {
            c->body -= (size_t) n < c->body ? (size_t) n : c->body;
            if (c->body == 0) {
                conn_answer(s, c);
            }
        }
    }
}

static void
serve(server_t *s)
{
    struct epoll_event ev[256];
    double now;
    conn_t *c;
    int i, n;

    for (;;) {
        n = epoll_wait(s->ep, ev, 256, 1);
        for (i = 0; i < n; i++) {
            if (ev[i].data.ptr == NULL) {
                conn_accept(s);
            } else if (((conn_t *) ev[i].data.ptr)->fd != 0) {
                conn_read(s, ev[i].data.ptr);
            }
        }

        now = now_us();
        for (c = s->conns; s->gap > 0 && c < s->conns + s->top; c++) {
            if (c->stream && now >= c->due) {
                c->due += s->gap;
                conn_write(c, s->event, s->event_len);
            }
        }
    }
}

static void
event_make(server_t *s)
{
    char data[200];
    int n;

    n = snprintf(data, sizeof(data),
        "data: {\"id\":\"cmpl-0123456789abcdef0123456789abcdef\","
        "\"object\":\"text_completion\",\"created\":1700000000,\"model\":\"m\","
        "\"choices\":[{\"index\":0,\"text\":\"word \",\"logprobs\":null}]}"
        "\n\n");
    must(n > 0 && (size_t) n < sizeof(data), "the event's length");
    s->event_len = (size_t) snprintf(
        s->event, sizeof(s->event), "%x\r\n%s\r\n", (unsigned) n, data);
}

int
main(int argc, char **argv)
{
    struct sockaddr_in sa = {.sin_family = AF_INET};
    static server_t s;
    int on = 1;

    if (argc != 3) {
        printf("tests/bench/gateway.sh runs this one\n");
        return argc == 1 ? 0 : 1;
    }

    files_at_least(CONNS_MAX);
    s.gap = atof(argv[2]) > 0 ? 1e6 / atof(argv[2]) : 0;
    s.conns = calloc(CONNS_MAX, sizeof(*s.conns));
    s.ep = epoll_create1(EPOLL_CLOEXEC);
    s.listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    must(s.conns != NULL && s.ep >= 0 && s.listener >= 0, "socket");
    event_make(&s);
    (void) setsockopt(s.listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    sa.sin_port = htons((uint16_t) atoi(argv[1]));
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    must(bind(s.listener, (struct sockaddr *) &sa, sizeof(sa)) == 0, "bind");
    must(listen(s.listener, 1024) == 0, "listen");
    watch(s.ep, s.listener, NULL);
    serve(&s);
}
