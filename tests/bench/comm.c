/*
 * What it costs that ranks meet: a sum over so many floats, by threads of one
 * process and by processes over TCP on this machine, in one run.
 *
 *   comm [SECONDS]    of each row, 0.3 unless told
 *
 * A row is the median over all sums that there was time for, as rank 0 sees
 * them, back to back: nothing is computed in between.  4096 floats are the
 * activations of a token in a layer of a model of 8B, 2^20 those of 256.
 * MB/s: bytes of one rank's floats by that time.  No pass or fail.
 */
#include "comm_socket.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RANKS_MAX 4
#define FLOATS    (1u << 20)
#define TIMES     200000

typedef struct {
    comm_t *c;
    uint64_t n;
    double seconds;
    double median_us; /* of rank 0 */
} side_t;


static void
check(int holds, const char *what)
{
    if (!holds) {
        perror(what);
        exit(1);
    }
}


static double
now_us(void)
{
    struct timespec t;

    (void) clock_gettime(CLOCK_MONOTONIC, &t);

    return (double) t.tv_sec * 1e6 + (double) t.tv_nsec * 1e-3;
}


static int
by_size(const void *a, const void *b)
{
    const float *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}


/* Sums until rank 0 says that the time is up. */
static void *
run(void *arg)
{
    side_t *s = arg;
    float *x = calloc(FLOATS, sizeof(*x));
    float *took = calloc(TIMES, sizeof(*took));
    double start = now_us(), last = start, now;
    uint32_t i, on = 1;

    check(x != NULL && took != NULL, "memory");
    for (i = 0; on; i++) {
        check(comm_sum(s->c, x, s->n) == 0, "sum");
        now = now_us();
        took[i] = (float) (now - last);
        /* all must end after the same sum: each 16th is followed by a word */
        if (i % 16 == 15) {
            on = now - start < s->seconds * 1e6 && i + 17 < TIMES;
            check(comm_cast(s->c, 0, &on, sizeof(on)) == 0, "cast");
            now = now_us();
        }
        last = now;
    }
    qsort(took, i, sizeof(*took), by_size);
    s->median_us = took[i / 2];
    free(took);
    free(x);

    return NULL;
}


static double
by_threads(uint32_t ranks, uint64_t n, double seconds)
{
    side_t s[RANKS_MAX];
    pthread_t t[RANKS_MAX];
    comm_t *c[RANKS_MAX];
    char err[256];
    uint32_t r;

    check(comm_shm_open(ranks, c, err, sizeof(err)) == 0, err);
    for (r = 0; r < ranks; r++) {
        s[r] = (side_t){c[r], n, seconds, 0};
        check(pthread_create(&t[r], NULL, run, &s[r]) == 0, "thread");
    }
    for (r = 0; r < ranks; r++) {
        (void) pthread_join(t[r], NULL);
        comm_close(c[r]);
    }

    return s[0].median_us;
}


/* A connection over the loopback interface. */
static void
connect_pair(int pair[2])
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    socklen_t n = sizeof(a);

    check(bind(listener, (struct sockaddr *) &a, sizeof(a)) == 0
              && listen(listener, 1) == 0
              && getsockname(listener, (struct sockaddr *) &a, &n) == 0,
        "listen");
    pair[1] = socket(AF_INET, SOCK_STREAM, 0);
    check(connect(pair[1], (struct sockaddr *) &a, sizeof(a)) == 0, "connect");
    pair[0] = accept(listener, NULL, NULL);
    check(pair[0] >= 0, "accept");
    (void) close(listener);
}


static comm_t *
open_rank(uint32_t rank, uint32_t ranks, const int *fds)
{
    const comm_socket_t cs = {rank, ranks, fds, 10000};
    char err[256];
    comm_t *c;

    check(comm_socket_open(&cs, &c, err, sizeof(err)) == 0, err);

    return c;
}


static double
by_processes(uint32_t ranks, uint64_t n, double seconds)
{
    int root[RANKS_MAX], pair[2];
    side_t s = {NULL, n, seconds, 0};
    uint32_t r;
    pid_t pid;

    for (r = 1; r < ranks; r++) {
        connect_pair(pair);
        root[r] = pair[0];
        pid = fork();
        check(pid >= 0, "fork");
        if (pid == 0) {
            s.c = open_rank(r, ranks, &pair[1]);
            (void) run(&s);
            _exit(0);
        }
        (void) close(pair[1]);
    }
    s.c = open_rank(0, ranks, root);
    (void) run(&s);
    comm_close(s.c);
    for (r = 1; r < ranks; r++) {
        (void) wait(NULL);
    }

    return s.median_us;
}


int
main(int argc, char **argv)
{
    static const uint64_t sizes[] = {1024, 4096, 32768, FLOATS};
    double seconds = argc > 1 ? atof(argv[1]) : 0.3, threads, processes;
    uint32_t ranks, i;

    printf("%ld processors\n", sysconf(_SC_NPROCESSORS_ONLN));
    printf("ranks   floats   threads, us   MB/s   processes, us   MB/s\n");
    for (ranks = 2; ranks <= RANKS_MAX; ranks += 2) {
        for (i = 0; i < 4; i++) {
            threads = by_threads(ranks, sizes[i], seconds);
            processes = by_processes(ranks, sizes[i], seconds);
            printf("%5u %8llu %13.1f %6.0f %15.1f %6.0f\n", ranks,
                (unsigned long long) sizes[i], threads,
                (double) sizes[i] * 4 / threads, processes,
                (double) sizes[i] * 4 / processes);
        }
    }

    return 0;
}
