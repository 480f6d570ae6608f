/*
 * Would catch: a sum over sockets with other bits than one by threads; both
 * sides waiting for the other to read; a rank in another process that dies,
 * stops, or sends what it should not, and is waited for for ever; an abort
 * that the others do not hear of; a stranger's bytes that reach a buffer.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "brief.h"
#include "comm_values.h"
#include "comm_socket.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RANKS_MAX 5
#define FLOATS    600001 /* more than two pieces */
#define WAIT_MS   300

typedef struct {
    comm_t *c;
    uint32_t rounds;
    uint32_t wrong, failed;
} rank_t;

static uint64_t
size_of(uint32_t round)
{
    static const uint64_t n[] = {1, 17, 4096, 1 << 18, FLOATS, (1 << 18) + 1};

    return n[round % 6];
}

static void
round_sum(rank_t *k, float *x, uint32_t round)
{
    uint64_t i, n = size_of(round);
    float want;

    for (i = 0; i < n; i++) {
        x[i] = value(round, k->c->rank, i);
    }
    k->failed += comm_sum(k->c, x, n) != 0;
    for (i = 0; i < n; i++) {
        want = sum_of(round, k->c->ranks, i);
        k->wrong += memcmp(&want, &x[i], sizeof(want)) != 0;
    }
}

/* Rows that are longer than a piece, too, and ranks that have no column. */
static void
round_gather(rank_t *k, float *x, uint32_t round)
{
    static const uint32_t widths[] = {3, 1001, 600000, 100};
    uint32_t ranks = k->c->ranks, at, n, col, r, row;
    uint32_t width = widths[round % 4], rows = width > 1001 ? 1 : 37;
    uint32_t root = round % (ranks + 1);
    int mine;

    root = root == ranks ? COMM_ALL : root;
    mine = root == COMM_ALL || root == k->c->rank;
    n = comm_part(width, k->c->rank, ranks, &at);
    for (row = 0; row < rows; row++) {
        for (col = 0; col < width; col++) {
            x[(size_t) row * width + col] =
                col - at < n ? value(round, row, col) : -1.5f;
        }
    }

    k->failed += comm_gather(k->c, root, x, rows, width) != 0;

    for (row = 0; row < rows; row++) {
        for (r = 0; r < ranks; r++) {
            n = comm_part(width, r, ranks, &at);
            for (col = at; col < at + n; col++) {
                k->wrong +=
                    (mine || r == k->c->rank)
                    && x[(size_t) row * width + col] != value(round, row, col);
            }
        }
    }
}

static void
round_cast(rank_t *k, float *x, uint32_t round)
{
    uint64_t i, n = size_of(round);
    uint32_t root = round % k->c->ranks;

    for (i = 0; i < n; i++) {
        x[i] = k->c->rank == root ? value(round, 9, i) : 0;
    }
    k->failed += comm_cast(k->c, root, x, n * sizeof(*x)) != 0;
    for (i = 0; i < n; i++) {
        k->wrong += x[i] != value(round, 9, i);
    }
}

static void *
calls(void *arg)
{
    float *x = malloc(37 * 1001 < FLOATS ? FLOATS * sizeof(*x) : 0);
    rank_t *k = arg;
    uint32_t i;

    for (i = 0; x != NULL && i < k->rounds; i++) {
        round_sum(k, x, i);
        round_gather(k, x, i);
        round_cast(k, x, i);
        k->failed += comm_barrier(k->c) != 0;
    }
    free(x);

    return NULL;
}

/* Ranks joined as a star of socket pairs; fds of rank 0 and of each other. */
static void
join(uint32_t ranks, int *root, int *others)
{
    uint32_t r;
    int pair[2];

    for (r = 1; r < ranks; r++) {
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
        root[r] = pair[0];
        others[r] = pair[1];
    }
}

static comm_t *
open_rank(uint32_t rank, uint32_t ranks, const int *fds)
{
    const comm_socket_t cfg = {rank, ranks, fds, WAIT_MS};
    char err[256];
    comm_t *c;

    assert_int_equal(comm_socket_open(&cfg, &c, err, sizeof(err)), 0);

    return c;
}

static void
open_all(uint32_t ranks, rank_t *k, uint32_t rounds)
{
    int root[RANKS_MAX], others[RANKS_MAX];
    uint32_t r;

    join(ranks, root, others);
    memset(k, 0, ranks * sizeof(*k));
    for (r = 0; r < ranks; r++) {
        k[r].c = open_rank(r, ranks, r == 0 ? root : &others[r]);
        k[r].rounds = rounds;
    }
}

static void
run_all(uint32_t ranks, rank_t *k, void *(*fn)(void *) )
{
    pthread_t t[RANKS_MAX];
    uint32_t r;

    for (r = 0; r < ranks; r++) {
        assert_int_equal(pthread_create(&t[r], NULL, fn, &k[r]), 0);
    }
    for (r = 0; r < ranks; r++) {
        assert_int_equal(pthread_join(t[r], NULL), 0);
    }
}

static void
all_ranks_have_the_sum(void **state)
{
    static const uint32_t sizes[] = {2, 3, 5};
    rank_t k[RANKS_MAX];
    uint32_t i, r;

    (void) state;
    for (i = 0; i < 3; i++) {
        open_all(sizes[i], k, brief() ? 2 : 6);
        run_all(sizes[i], k, calls);
        for (r = 0; r < sizes[i]; r++) {
            assert_int_equal(k[r].wrong, 0);
            assert_int_equal(k[r].failed, 0);
            assert_null(comm_error(k[r].c));
            comm_close(k[r].c);
        }
    }
}

/* Goes on for ever, but for rank 1, which ends all in its round. */
static void *
until_aborted(void *arg)
{
    float *x = calloc(FLOATS, sizeof(*x));
    rank_t *k = arg;
    uint32_t i;

    for (i = 0; x != NULL && !k->failed; i++) {
        if (i == k->rounds && k->c->rank == 1) {
            comm_abort(k->c, "rank 1: out of luck");
            comm_abort(k->c, "another reason");
        }
        k->failed = comm_sum(k->c, x, size_of(i)) != 0;
        k->wrong += !k->failed && i >= k->rounds;
    }
    k->failed += comm_barrier(k->c) != 0;
    k->failed += comm_cast(k->c, 0, x, 4) != 0;
    free(x);

    return NULL;
}

static void
abort_reaches_all(void **state)
{
    rank_t k[RANKS_MAX];
    uint32_t i, r;

    (void) state;
    for (i = 0; i < 8; i++) {
        open_all(4, k, i);
        run_all(4, k, until_aborted);
        for (r = 0; r < 4; r++) {
            assert_int_equal(k[r].failed, 3);
            assert_int_equal(k[r].wrong, 0);
            assert_string_equal(comm_error(k[r].c), "rank 1: out of luck");
        }
        for (r = 0; r < 4; r++) {
            comm_close(k[r].c);
        }
    }
}

static void *
wait_for_cast(void *arg)
{
    rank_t *k = arg;
    uint32_t x;

    k->failed = comm_cast(k->c, 0, &x, sizeof(x)) != 0;

    return NULL;
}

/* From a thread that is no rank, while its rank waits and has no limit. */
static void
abort_from_outside(void **state)
{
    rank_t k[2];
    pthread_t t;

    (void) state;
    open_all(2, k, 0);
    assert_int_equal(pthread_create(&t, NULL, wait_for_cast, &k[1]), 0);
    usleep(2 * WAIT_MS * 1000);
    comm_abort(k[1].c, "the end");
    assert_int_equal(pthread_join(t, NULL), 0);
    assert_int_equal(k[1].failed, 1);
    assert_string_equal(comm_error(k[1].c), "the end");

    /* the other side hears of it, if not why */
    assert_int_equal(comm_barrier(k[0].c), -1);
    assert_string_equal(comm_error(k[0].c), "rank 1 has gone");
    comm_close(k[0].c);
    comm_close(k[1].c);

    /* in no call it can say why */
    open_all(2, k, 0);
    comm_abort(k[0].c, "no more\nsteps");
    assert_int_equal(comm_barrier(k[1].c), -1);
    assert_string_equal(comm_error(k[1].c), "no more?steps");
    comm_close(k[0].c);
    comm_close(k[1].c);
}

/* Nothing to do, and somebody goes. */
static void
a_look_finds_who_has_gone(void **state)
{
    rank_t k[3];
    uint32_t i;

    (void) state;
    open_all(3, k, 0);
    for (i = 0; i < 3; i++) {
        assert_int_equal(comm_socket_look(k[i].c), 0);
    }
    comm_close(k[2].c);
    assert_int_equal(comm_socket_look(k[0].c), -1);
    assert_string_equal(comm_error(k[0].c), "rank 2 has gone");
    assert_int_equal(comm_socket_look(k[1].c), -1);
    assert_string_equal(comm_error(k[1].c), "rank 2 has gone");
    comm_close(k[0].c);
    comm_close(k[1].c);
}

static double
now(void)
{
    struct timespec ts;

    (void) clock_gettime(CLOCK_MONOTONIC, &ts);

    return (double) ts.tv_sec + 1e-9 * (double) ts.tv_nsec;
}

/* A process that is a rank, and takes part until it is killed. */
static pid_t
spawn_rank(uint32_t rank, uint32_t ranks, int *root, int *others)
{
    float x[4] = {0};
    pid_t pid = fork();
    uint32_t r;
    comm_t *c;

    assert_true(pid >= 0);
    if (pid > 0) {
        (void) close(others[rank]);
        return pid;
    }
    for (r = 1; r < ranks; r++) {
        (void) close(root[r]);
        if (r > rank) {
            (void) close(others[r]);
        }
    }
    c = open_rank(rank, ranks, &others[rank]);
    while (comm_sum(c, x, 4) == 0) { /* on */
    }
    _exit(strcmp(comm_error(c), "rank 1 has gone") == 0 ? 0 : 1);
}

static void
death_is_noticed(void **state)
{
    static float x[FLOATS];
    int root[3], others[3], i, status;
    double start;
    pid_t pid[3];
    comm_t *c;

    (void) state;
    for (i = 0; i < 2; i++) {
        join(3, root, others);
        pid[1] = spawn_rank(1, 3, root, others);
        pid[2] = spawn_rank(2, 3, root, others);
        c = open_rank(0, 3, root);
        assert_int_equal(comm_sum(c, x, 4), 0);

        /* one that stops answers nothing, but is there */
        (void) kill(pid[1], i == 0 ? SIGKILL : SIGSTOP);
        start = now();
        while (comm_sum(c, x, 4) == 0) { /* it may be a call behind */
        }
        assert_true(now() - start < 3);
        assert_non_null(strstr(comm_error(c), "rank 1 has"));
        (void) kill(pid[1], SIGKILL);
        assert_int_equal(waitpid(pid[1], &status, 0), pid[1]);

        /* and the third hears which it was */
        assert_int_equal(waitpid(pid[2], &status, 0), pid[2]);
        assert_true(i == 1 || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
        comm_close(c);
    }
}

/* Bytes that are no frame, or another one; nothing of them is kept. */
static void
lies_end_it(void **state)
{
    struct {
        uint32_t kind, nth;
        uint64_t bytes;
        char more[64];
    } f;
    int root[2], others[2], i;
    float x[2] = {1, 2};
    comm_t *c;

    (void) state;
    for (i = 0; i < 6; i++) {
        join(2, root, others);
        c = open_rank(0, 2, root);
        memset(&f, 0x41, sizeof(f));
        f.kind = i == 0 ? 0x41414141 : 0x6c726b01; /* a sum */
        f.nth = i == 1 ? 1 : 0;
        f.bytes = i == 2 ? 4 : i == 3 ? UINT64_MAX : 8;
        if (i == 4) { /* an abort that is too long */
            f.kind = 0x6c726b05;
            f.bytes = 256;
        }
        assert_int_equal(
            send(others[1], &f, i == 5 ? 20 : sizeof(f), 0) > 0, 1);
        assert_int_equal(comm_sum(c, x, 2), -1);
        assert_non_null(strstr(comm_error(c),
            i == 5 ? "rank 1 has not answered" : "rank 1 is at another step"));
        assert_true(x[0] == 1 && x[1] == 2);
        comm_close(c);
        (void) close(others[1]);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_ranks_have_the_sum),
        cmocka_unit_test(abort_reaches_all),
        cmocka_unit_test(abort_from_outside),
        cmocka_unit_test(a_look_finds_who_has_gone),
        cmocka_unit_test(death_is_noticed),
        cmocka_unit_test(lies_end_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
