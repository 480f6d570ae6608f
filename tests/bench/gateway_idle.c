/*
 * What an open stream that says nothing costs a process in memory:
 *
 *   gateway_idle PORT STREAMS TLS PID
 *
 * opens so many streams, plain or over TLS, waits for the first event of each,
 * and prints how much PID has grown by each (Pss of /proc/PID/smaps_rollup).  A
 * tenth as many are opened before, so that what grows once has grown.
 */
#include "gateway.h"

#include <openssl/ssl.h>

typedef struct {
    const char *port, *pid;
    SSL_CTX *tls; /* NULL: plain */
    char req[512];
    size_t len;
} idle_t;

static double
pss_kb(const char *pid)
{
    char path[64], line[256];
    double kb = -1;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%s/smaps_rollup", pid);
    f = fopen(path, "r");
    must(f != NULL, path);
    while (fgets(line, sizeof(line), f) != NULL) {
        (void) sscanf(line, "Pss: %lf", &kb);
    }
    fclose(f);
    must(kb > 0, path);

    return kb;
}

static void
open_one(const idle_t *o)
{
    char buf[4096];
    size_t have = 0;
    SSL *ssl = NULL;
    double at;
    ssize_t n;
    int fd;

    fd = http_connect(o->port);
    if (o->tls != NULL) {
        ssl = SSL_new(o->tls);
        must(ssl != NULL && SSL_set_fd(ssl, fd) == 1, "SSL_new");
        must(SSL_connect(ssl) == 1, "SSL_connect");
        must(SSL_write(ssl, o->req, (int) o->len) == (int) o->len, "SSL_write");
    } else {
        http_send(fd, o->req, o->len);
    }

    do {
        n = ssl ? SSL_read(ssl, buf + have, (int) (sizeof(buf) - 1 - have))
                : http_recv(fd, buf + have, sizeof(buf) - 1 - have, 0, &at);
        must(n > 0, "the first event");
        have += (size_t) n;
        buf[have] = '\0';
    } while (strstr(buf, "\n\n") == NULL);

    must(strncmp(buf, "HTTP/1.1 200", 12) == 0, buf);
}

int
main(int argc, char **argv)
{
    idle_t o = {0};
    double from;
    int i, n;

    if (argc != 5) {
        printf("tests/bench/gateway.sh runs this one\n");
        return argc == 1 ? 0 : 1;
    }

    o.port = argv[1];
    o.pid = argv[4];
    n = atoi(argv[2]);
    files_at_least(2 * n);
    if (atoi(argv[3])) {
        o.tls = SSL_CTX_new(TLS_client_method());
        must(o.tls != NULL, "SSL_CTX_new");
        SSL_CTX_set_mode(o.tls, SSL_MODE_RELEASE_BUFFERS);
    }
    /* one token, and from an engine with --never-done no end */
    o.len = http_post(o.req, sizeof(o.req), "/v1/completions", NULL,
        "{\"model\":\"m\",\"prompt\":\"x\",\"max_tokens\":1,\"stream\":true}");

    for (i = 0; i < n / 10; i++) {
        open_one(&o);
    }
    from = pss_kb(o.pid);
    for (i = 0; i < n; i++) {
        open_one(&o);
    }

    printf("kib=%.1f\n", (pss_kb(o.pid) - from) / n);

    return 0;
}
