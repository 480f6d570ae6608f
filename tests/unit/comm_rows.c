/*
 * Would catch: a row where ranks meet that takes another count of rows or
 * another rank's columns; a device that goes on after its group was aborted
 * and says nothing.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../kernels/kernels.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define RANKS_MAX 8
#define TOKENS    5
#define OUTS      2
#define WIDTH     33

typedef struct {
    comm_t *c;
    uint32_t wrong, failed;
    const kernels_t *kn;
    kn_dev_t *dev;
    kn_comm_sum_t sum;
    kn_comm_gather_t gather;
    float x[TOKENS * WIDTH], y[OUTS * WIDTH], z[TOKENS * WIDTH];
} rank_t;

/* What rank r has of number i: whole, so that sums are exact. */
static float
value(uint32_t r, uint32_t i)
{
    return (float) (i * 7 % 31 + r * 1000);
}

static void
body(void *arg)
{
    rank_t *k = arg;

    k->kn->comm_sum(k->dev, &k->sum);
    k->kn->comm_gather(k->dev, &k->gather);
}

static void
open_rank(rank_t *k)
{
    char err[256];
    kn_open_t o = {.threads = 1, .comm = k->c};
    kn_limits_t l = {.tokens = TOKENS, .rows = 1, .outs = OUTS, .vocab = 1};

    k->kn = kernels_cpu("ref", err, sizeof(err));
    k->dev = k->kn->open(&o, err, sizeof(err));
    k->failed += k->dev == NULL;
    k->failed += k->kn->reserve(k->dev, &l, err, sizeof(err)) != 0;
    k->sum = (kn_comm_sum_t){{(uintptr_t) k->x}, WIDTH, KN_TOKENS};
    k->gather = (kn_comm_gather_t){
        {(uintptr_t) k->y}, {(uintptr_t) k->z}, WIDTH, KN_OUTS};
}

/* All that there should be, and nothing behind the step's outputs. */
static void
check_rank(rank_t *k)
{
    uint32_t i, r;
    float sum;

    for (i = 0; i < TOKENS * WIDTH; i++) {
        for (sum = 0, r = 0; r < k->c->ranks; r++) {
            sum += value(r, i);
        }

        k->wrong += k->x[i] != sum;
        k->wrong += k->c->rank == 0 && i < OUTS * WIDTH && k->z[i] != (float) i;
        k->wrong += i >= OUTS * WIDTH && k->z[i] != 0;
    }
}

static void *
steps(void *arg)
{
    rank_t *k = arg;
    uint32_t i, n, at, tokens[TOKENS] = {0};
    kn_row_t row = {.q_len = TOKENS};
    kn_out_t outs[OUTS] = {{.tok = 0}, {.tok = 3}};
    kn_step_t s = {.tokens_n = TOKENS,
        .rows_n = 1,
        .outs_n = OUTS,
        .tokens = tokens,
        .rows = &row,
        .outs = outs};

    open_rank(k);
    n = comm_part(WIDTH, k->c->rank, k->c->ranks, &at);

    for (i = 0; i < TOKENS * WIDTH; i++) {
        k->x[i] = value(k->c->rank, i);
    }

    for (i = 0; i < OUTS * n; i++) {
        k->y[i] = (float) (i / n * WIDTH + at + i % n);
    }

    k->kn->plan(k->dev, &s);
    k->kn->submit(k->dev, body, k);
    k->failed += k->kn->wait(k->dev) != 0;
    check_rank(k);

    (void) comm_barrier(k->c);
    comm_abort(k->c, "the end");
    k->kn->submit(k->dev, body, k);
    k->failed += k->kn->wait(k->dev) == 0;
    k->kn->close(k->dev);

    return NULL;
}

static void
rows_meet(void **state)
{
    uint32_t r, ranks;
    char err[256];
    comm_t *c[RANKS_MAX];
    pthread_t t[RANKS_MAX];
    rank_t *k;

    (void) state;

    for (ranks = 1; ranks <= RANKS_MAX; ranks++) {
        assert_int_equal(comm_shm_open(ranks, c, err, sizeof(err)), 0);
        k = calloc(ranks, sizeof(*k));
        assert_non_null(k);

        for (r = 0; r < ranks; r++) {
            k[r].c = c[r];
            assert_int_equal(pthread_create(&t[r], NULL, steps, &k[r]), 0);
        }

        for (r = 0; r < ranks; r++) {
            assert_int_equal(pthread_join(t[r], NULL), 0);
            assert_int_equal(k[r].wrong, 0);
            /* one alone has nobody to hear of the end from */
            assert_int_equal(k[r].failed, ranks == 1);
            comm_close(c[r]);
        }

        free(k);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_meet),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
