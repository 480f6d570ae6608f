/*
 * Would catch: a sum that is added in another order in some rank, run or size;
 * a rank that is let go before its buffer is ready, or whose buffer is written
 * after it was let go; columns of another rank's, or that root alone should
 * have and all get; a rank that sleeps for ever beside more ranks than
 * processors; an abort that a waiting rank does not hear of, or that keeps
 * another's words.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "brief.h"
#include "comm_values.h"
#include "comm.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RANKS_MAX 8

typedef struct {
    comm_t *c;
    uint32_t rounds;
    uint32_t wrong; /* calls with another result than they should have */
    uint32_t failed;
} rank_t;

/* Sizes of both ways, whole lines or not. */
static uint64_t
size_of(uint32_t round)
{
    static const uint64_t n[] = {1, 3, 16, 17, 4096, 8190, 16384, 70001};

    return n[mix(round) % (round % 16 == 0 ? 8 : 6)];
}

static void
round_sum(rank_t *k, float *x, uint32_t round)
{
    uint64_t i, n = size_of(round);
    uint32_t ranks = k->c->ranks;
    float want;

    for (i = 0; i < n; i++) {
        x[i] = value(round, k->c->rank, i);
    }

    k->failed += comm_sum(k->c, x, n) != 0;

    for (i = 0; i<n; i += n> 64 ? n / 64 : 1) {
        want = sum_of(round, ranks, i);
        k->wrong += memcmp(&want, &x[i], sizeof(want)) != 0;
    }

    want = sum_of(round, ranks, n - 1);
    k->wrong += memcmp(&want, &x[n - 1], sizeof(want)) != 0;
}

/* Columns of an odd width, some ranks having none where it is small. */
static void
round_gather(rank_t *k, float *x, uint32_t round)
{
    uint32_t at, n, col, width = round % 3 == 0 ? 3 : 1001, r, ranks;
    uint32_t root, rows = 1 + round % 7, row;
    int mine;

    ranks = k->c->ranks;
    root = round % (ranks + 1) == ranks ? COMM_ALL : round % (ranks + 1);
    n = comm_part(width, k->c->rank, ranks, &at);
    mine = root == COMM_ALL || root == k->c->rank;

    for (row = 0; row < rows; row++) {
        for (col = 0; col < width; col++) {
            x[row * width + col] =
                col - at < n ? value(round, row, col) : -1.5f;
        }
    }

    k->failed += comm_gather(k->c, root, x, rows, width) != 0;

    for (row = 0; row < rows; row++) {
        for (r = 0; r < ranks; r++) {
            n = comm_part(width, r, ranks, &at);

            for (col = at; col < at + n; col++) {
                k->wrong += (mine || r == k->c->rank)
                            && x[row * width + col] != value(round, row, col);
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
    uint32_t i;
    rank_t *k = arg;
    float *x = malloc(70001 * sizeof(*x));

    for (i = 0; i < k->rounds; i++) {
        switch (i % 4) {
        case 0:
        case 1:
            round_sum(k, x, i);
            break;
        case 2:
            round_gather(k, x, i);
            break;
        case 3:
            round_cast(k, x, i);
            k->failed += comm_barrier(k->c) != 0;
        }
    }

    free(x);
    return NULL;
}

/* fn by each of so many ranks, to the end of all. */
static void
all(uint32_t ranks, rank_t *k, comm_t **c, void *(*fn)(void *), uint32_t rounds)
{
    uint32_t i;
    char err[256];
    pthread_t t[RANKS_MAX];

    assert_int_equal(comm_shm_open(ranks, c, err, sizeof(err)), 0);

    for (i = 0; i < ranks; i++) {
        memset(&k[i], 0, sizeof(k[i]));
        k[i].c = c[i];
        k[i].rounds = rounds;
        assert_int_equal(pthread_create(&t[i], NULL, fn, &k[i]), 0);
    }

    for (i = 0; i < ranks; i++) {
        assert_int_equal(pthread_join(t[i], NULL), 0);
    }
}

static void
all_ranks_have_the_sum(void **state)
{
    static const uint32_t sizes[] = {2, 3, 4, 8};
    uint32_t i, r;
    rank_t k[RANKS_MAX];
    comm_t *c[RANKS_MAX];

    (void) state;

    for (i = 0; i < 4; i++) {
        all(sizes[i], k, c, calls, brief() ? 100 : 400);

        for (r = 0; r < sizes[i]; r++) {
            assert_int_equal(k[r].wrong, 0);
            assert_int_equal(k[r].failed, 0);
            assert_null(comm_error(c[r]));
            comm_close(c[r]);
        }
    }
}

static void
parts_cover_all(void **state)
{
    uint32_t n, ranks, r, at, end, len;

    (void) state;

    for (n = 0; n < 70; n++) {
        for (ranks = 1; ranks <= 9; ranks++) {
            for (r = 0, end = 0; r < ranks; r++, end += len) {
                len = comm_part(n, r, ranks, &at);
                assert_int_equal(at, end);
                assert_in_range(len, n / ranks, (n + ranks - 1) / ranks);
            }

            assert_int_equal(end, n);
        }
    }

    len = comm_part(UINT32_MAX, 63, 64, &at);
    assert_int_equal(at + len, UINT32_MAX);
}

static void
alone_is_done_at_once(void **state)
{
    char err[256];
    float x[2] = {1, 2};
    comm_t *c;

    (void) state;
    assert_int_equal(comm_shm_open(1, &c, err, sizeof(err)), 0);
    assert_int_equal(comm_sum(c, x, 2), 0);
    assert_int_equal(comm_gather(c, 0, x, 1, 2), 0);
    assert_int_equal(comm_cast(c, 0, x, sizeof(x)), 0);
    assert_int_equal(comm_barrier(c), 0);
    assert_int_equal(comm_sum(NULL, x, 2), 0);
    assert_int_equal(comm_barrier(NULL), 0);
    assert_null(comm_error(NULL));
    assert_true(x[0] == 1 && x[1] == 2);
    comm_close(c);
    comm_close(NULL);
}

/* Goes on for ever, but for rank 1, which ends all in its round. */
static void *
until_aborted(void *arg)
{
    uint32_t i;
    rank_t *k = arg;
    float *x = calloc(70001, sizeof(*x));

    for (i = 0; !k->failed; i++) {
        if (i == k->rounds && k->c->rank == 1) {
            usleep(2000); /* the others wait by then */
            comm_abort(k->c, "rank 1: out of luck");
            comm_abort(k->c, "another reason");
        }

        k->failed = comm_sum(k->c, x, size_of(i)) != 0;
        k->wrong += !k->failed && i >= k->rounds;
    }

    /* nobody writes here any more */
    memset(x, 0, 70001 * sizeof(*x));
    k->failed += comm_barrier(k->c) != 0;
    k->failed += comm_cast(k->c, 0, x, 4) != 0;
    free(x);
    return NULL;
}

static void
abort_reaches_all(void **state)
{
    uint32_t i, r;
    rank_t k[RANKS_MAX];
    comm_t *c[RANKS_MAX];

    (void) state;

    for (i = 0; i < (brief() ? 10 : 40); i++) {
        all(RANKS_MAX, k, c, until_aborted, i);

        for (r = 0; r < RANKS_MAX; r++) {
            assert_int_equal(k[r].failed, 3);
            assert_int_equal(k[r].wrong, 0);
            assert_string_equal(comm_error(c[r]), "rank 1: out of luck");
        }

        for (r = 0; r < RANKS_MAX; r++) {
            comm_close(c[r]);
        }
    }
}

/* From a thread that is no rank, at any moment. */
static void
abort_from_outside(void **state)
{
    uint32_t i, r;
    char err[256];
    rank_t k[RANKS_MAX];
    comm_t *c[RANKS_MAX];
    pthread_t t[RANKS_MAX];

    (void) state;

    for (i = 0; i < (brief() ? 10 : 60); i++) {
        assert_int_equal(comm_shm_open(4, c, err, sizeof(err)), 0);

        for (r = 0; r < 4; r++) {
            memset(&k[r], 0, sizeof(k[r]));
            k[r].c = c[r];
            k[r].rounds = UINT32_MAX;
            assert_int_equal(
                pthread_create(&t[r], NULL, until_aborted, &k[r]), 0);
        }

        usleep(i * 53 % 1500);
        comm_abort(c[3], "the end");

        for (r = 0; r < 4; r++) {
            assert_int_equal(pthread_join(t[r], NULL), 0);
            assert_int_equal(k[r].failed, 3);
            assert_string_equal(comm_error(c[r]), "the end");
            comm_close(c[r]);
        }
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_cover_all),
        cmocka_unit_test(alone_is_done_at_once),
        cmocka_unit_test(all_ranks_have_the_sum),
        cmocka_unit_test(abort_reaches_all),
        cmocka_unit_test(abort_from_outside),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
