/*
 * How many records per second one ring carries from one thread or process to
 * another, the consumer sleeping when it has nothing to do; and, in the same
 * run, a SOCK_SEQPACKET socket pair with one send and one recv per record,
 * which is what one would use instead.
 *
 *   ring [RECORDS]    records per row, 2000000 unless told
 *
 * The producer rings once per 16 records, as one turn of the engine would.
 * Each row is the best of three.  No pass or fail.
 */
#include "llm_ring.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SIZE  (1u << 20)
#define TURN  16
#define TRIES 3

typedef struct {
    llm_ring_ctl_t *ctl;
    uint8_t *data;
    int fd; /* its end of the pair */
    uint32_t len;
    uint64_t records;
    uint64_t sleeps;
} side_t;

typedef void *(*run_t)(void *);


static void
check(int holds, const char *what)
{
    if (!holds) {
        perror(what);
        exit(1);
    }
}


static double
now_s(void)
{
    struct timespec t;

    (void) clock_gettime(CLOCK_MONOTONIC, &t);

    return (double) t.tv_sec + (double) t.tv_nsec * 1e-9;
}


static void *
ring_produce(void *arg)
{
    side_t *s = arg;
    llm_ring_t in;
    llm_ring_hdr_t *h;
    uint64_t i;

    llm_ring_init(&in, s->ctl, s->data, SIZE);

    for (i = 0; i < s->records; i++) {
        while ((h = llm_ring_reserve(&in, s->len, 0)) == NULL) {
            if (llm_ring_must_wake(&in)) {
                (void) send(s->fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
            }
            (void) sched_yield();
        }
        h->type = 1;
        memset(h + 1, (int) i, s->len - sizeof(*h));
        llm_ring_commit(&in);

        if ((i % TURN == TURN - 1 || i + 1 == s->records)
            && llm_ring_must_wake(&in)) {
            (void) send(s->fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
        }
    }

    return s;
}


static void *
ring_consume(void *arg)
{
    side_t *s = arg;
    struct pollfd p = {s->fd, POLLIN, 0};
    llm_ring_t out;
    uint8_t buf[4096];
    uint64_t got = 0;
    int64_t n;

    llm_ring_init(&out, s->ctl, s->data, SIZE);

    while (got < s->records) {
        n = llm_ring_peek(&out, buf, sizeof(buf));
        if (n > 0) {
            llm_ring_advance(&out);
            got++;
            continue;
        }
        check(n == LLM_RING_EMPTY, "peek");
        if (llm_ring_may_sleep(&out)) {
            s->sleeps++;
            check(poll(&p, 1, 10000) == 1, "poll");
            while (recv(s->fd, buf, sizeof(buf), MSG_DONTWAIT) > 0) {
            }
        }
    }

    return s;
}


static void *
socket_produce(void *arg)
{
    side_t *s = arg;
    uint8_t buf[4096];
    uint64_t i;

    for (i = 0; i < s->records; i++) {
        memset(buf, (int) i, s->len);
        check(
            send(s->fd, buf, s->len, MSG_NOSIGNAL) == (ssize_t) s->len, "send");
    }

    return s;
}


static void *
socket_consume(void *arg)
{
    side_t *s = arg;
    uint8_t buf[4096];
    uint64_t i;

    for (i = 0; i < s->records; i++) {
        check(recv(s->fd, buf, sizeof(buf), 0) == (ssize_t) s->len, "recv");
    }

    return s;
}


/* Seconds for all records from a thread or a process to this one. */
static double
pass(side_t *s, int processes, run_t produce, run_t consume)
{
    pthread_t tid;
    pid_t pid = 0;
    side_t in = *s;
    int fd[2], status = 0;
    double since;

    memset(s->ctl, 0, sizeof(*s->ctl));
    s->sleeps = 0;
    check(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fd) == 0, "socketpair");
    in.fd = fd[0];
    s->fd = fd[1];
    since = now_s();

    if (processes) {
        pid = fork();
        check(pid >= 0, "fork");
        if (pid == 0) {
            (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
            (void) produce(&in);
            _exit(0);
        }
    } else {
        check(pthread_create(&tid, NULL, produce, &in) == 0, "thread");
    }

    (void) consume(s);
    since = now_s() - since;

    if (processes) {
        check(waitpid(pid, &status, 0) == pid && status == 0, "child");
    } else {
        check(pthread_join(tid, NULL) == 0, "join");
    }
    (void) close(fd[0]);
    (void) close(fd[1]);

    return since;
}


static void
row(const char *name, side_t *s, int processes, run_t produce, run_t consume)
{
    double best = 0, t;
    uint64_t sleeps = 0;
    int i;

    for (i = 0; i < TRIES; i++) {
        t = pass(s, processes, produce, consume);
        if (i == 0 || t < best) {
            best = t;
            sleeps = s->sleeps;
        }
    }

    printf("%-7s %-9s %5u B %10.0f records/s %8.1f ns/record", name,
        processes ? "processes" : "threads", s->len, (double) s->records / best,
        best * 1e9 / (double) s->records);
    if (sleeps > 0) {
        printf(" %8lu sleeps", (unsigned long) sleeps);
    }
    printf("\n");
}


static void
print_machine(void)
{
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "r");

    while (f && fgets(line, sizeof(line), f)) {
        if (strncmp(line, "model name", 10) == 0) {
            printf("%ld x%s", sysconf(_SC_NPROCESSORS_ONLN),
                strchr(line, ':') ? strchr(line, ':') + 1 : "?\n");
            break;
        }
    }
    if (f) {
        (void) fclose(f);
    }
}


int
main(int argc, char **argv)
{
    static const uint32_t lens[] = {64, 1024};
    const uint64_t records = argc > 1 ? strtoull(argv[1], NULL, 10) : 2000000;
    uint8_t *map;
    side_t s;
    size_t i;
    int processes;

    map = mmap(NULL, 4096 + SIZE, PROT_READ | PROT_WRITE,
        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(map != MAP_FAILED, "mmap");
    memset(&s, 0, sizeof(s));
    memset(map, 0, 4096 + SIZE); /* page faults are not what is measured */
    s.ctl = (llm_ring_ctl_t *) (void *) map;
    s.data = map + 4096;

    print_machine();
    printf("ring of %u bytes, %lu records, best of %d\n", SIZE,
        (unsigned long) records, TRIES);

    for (i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
        for (processes = 0; processes < 2; processes++) {
            s.len = lens[i];
            s.records = records;
            row("ring", &s, processes, ring_produce, ring_consume);
            s.records = records / 10 + 1;
            row("socket", &s, processes, socket_produce, socket_consume);
        }
    }

    return munmap(map, 4096 + SIZE) == 0 ? 0 : 1;
}
