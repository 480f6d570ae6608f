/*
 * Ranks that are threads of one process, each with a GPU's device: meet
 * LIBRARY, beside as many of the CPU's.
 *
 * Would catch: a sum whose order is not that of ranks, or differs from rank to
 * rank; rows or columns that are another rank's; room that is written before
 * all have read what was there, in messages one after another and of several
 * pieces; a recorded step that begins with another number than its peers'; a
 * rank that waits for ever for one that never comes; memory that is freed while
 * others read it.
 *
 * Devices are the ranks' own, or one is all ranks', by turns.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../kernels/kernels.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RANKS_MAX 4
#define TOKENS    5
#define SMALL     33
#define LARGE     30000 /* of all tokens more than two pieces */
#define WIDTH     4099  /* no multiple of ranks */
#define STEPS     8

static const char *library;

/* Tokens of each step; sequences of one token are recorded. */
static const struct {
    uint32_t tokens, outs, rows;
} steps[STEPS] = {{5, 2, 1}, {4, 4, 4}, {4, 3, 4}, {3, 3, 3}, {1, 1, 1},
    {2, 0, 1}, {4, 4, 4}, {1, 1, 1}};

typedef struct {
    const kernels_t *kn;
    kn_dev_t *dev;
    kn_comm_sum_t small, large;
    kn_comm_gather_t gather;
    kn_ptr_t x; /* what is below */
} side_t;

/* Of one kind of device, as the ops have it. */
typedef struct {
    float small[TOKENS * SMALL], large[TOKENS * LARGE];
    float from[TOKENS * WIDTH], to[TOKENS * WIDTH];
} numbers_t;

typedef struct {
    uint32_t rank, ranks, wrong, failed;
    uint64_t replayed;
    comm_t *c[2]; /* the GPU's, the CPU's */
    side_t side[2];
    numbers_t in, out[2];
    numbers_t *of_zero; /* rank 0's sums, to be compared with */
    uint32_t steps;     /* that it takes; then it comes no more */
} rank_t;

static void
body(void *arg)
{
    side_t *s = arg;

    s->kn->comm_sum(s->dev, &s->small);
    s->kn->comm_sum(s->dev, &s->large);
    s->kn->comm_sum(s->dev, &s->small);
}

static void
last(void *arg)
{
    side_t *s = arg;

    s->kn->comm_gather(s->dev, &s->gather);
    s->kn->comm_sum(s->dev, &s->small);
}

static int
open_side(rank_t *k, uint32_t i)
{
    side_t *s = &k->side[i];
    char err[256];
    kn_open_t o = {.threads = 1, .comm = k->c[i]};
    kn_limits_t l = {.tokens = TOKENS,
        .rows = TOKENS,
        .outs = TOKENS,
        .blocks = 8,
        .context = 16,
        .heads = 1,
        .head_dim = 32,
        .vocab = 32};

    s->kn = i == 0 ? kernels_cuda(library, err, sizeof(err))
                   : kernels_cpu("ref", err, sizeof(err));
    s->dev = s->kn != NULL ? s->kn->open(&o, err, sizeof(err)) : NULL;
    if (s->dev == NULL || s->kn->reserve(s->dev, &l, err, sizeof(err)) != 0) {
        print_message("%s\n", err);
        comm_abort(k->c[0], err);
        return -1;
    }

    s->x = s->kn->alloc(s->dev, sizeof(numbers_t));
    s->small = (kn_comm_sum_t){
        kn_at(s->x, offsetof(numbers_t, small)), SMALL, KN_TOKENS};
    s->large = (kn_comm_sum_t){
        kn_at(s->x, offsetof(numbers_t, large)), LARGE, KN_TOKENS};
    s->gather = (kn_comm_gather_t){kn_at(s->x, offsetof(numbers_t, from)),
        kn_at(s->x, offsetof(numbers_t, to)), WIDTH, KN_OUTS};

    return 0;
}

/* The step's own numbers, with sums that are rounded. */
static void
fill(rank_t *k, uint32_t nth)
{
    uint32_t i, state = (nth * RANKS_MAX + k->rank) * 2654435761u + 1;
    float *x = (float *) &k->in;

    for (i = 0; i < sizeof(k->in) / sizeof(*x); i++) {
        state = state * 1664525 + 1013904223;
        x[i] = (float) (int32_t) state / (float) (1u << state % 31);
    }
}

static int
run(rank_t *k, uint32_t i, uint32_t nth)
{
    static const sample_params_t params = {.top_p = 1, .repetition_penalty = 1};
    side_t *s = &k->side[i];
    uint32_t j, n = steps[nth].tokens, tokens[TOKENS] = {0};
    kn_row_t rows[TOKENS] = {{0}};
    kn_out_t outs[TOKENS] = {{0}};
    kn_step_t step = {.tokens_n = n,
        .rows_n = steps[nth].rows,
        .outs_n = steps[nth].outs,
        .list = s,
        .tokens = tokens,
        .rows = rows,
        .outs = outs};

    for (j = 0; j < step.rows_n; j++) {
        rows[j].tok = j;
        rows[j].q_len = n / step.rows_n;
    }
    for (j = 0; j < step.outs_n; j++) {
        outs[j].tok = j;
        outs[j].params = &params;
    }

    s->kn->copy_in(s->dev, s->x, &k->in, sizeof(k->in));
    s->kn->plan(s->dev, &step);
    s->kn->begin(s->dev, body, s);
    s->kn->submit(s->dev, last, s);
    if (s->kn->wait(s->dev) != 0) {
        return -1;
    }
    s->kn->copy_out(s->dev, &k->out[i], s->x, sizeof(k->out[i]));

    return 0;
}

/* The CPU's bits; what is behind the step's rows is as it was. */
static uint32_t
differ(const rank_t *k, uint32_t outs)
{
    const numbers_t *a = &k->out[0], *b = &k->out[1];
    size_t n = (size_t) outs * WIDTH;

    return (memcmp(a->small, b->small, sizeof(a->small)) != 0)
           + (memcmp(a->large, b->large, sizeof(a->large)) != 0)
           + (k->rank == 0 && memcmp(a->to, b->to, n * sizeof(float)) != 0)
           + (memcmp(a->to + n, k->in.to + n, sizeof(a->to) - n * sizeof(float))
               != 0);
}

static void *
rank_main(void *arg)
{
    rank_t *k = arg;
    uint32_t i;
    kn_info_t info;

    if (open_side(k, 0) != 0 || open_side(k, 1) != 0) {
        k->failed = STEPS;
        return NULL;
    }

    for (i = 0; i < k->steps; i++) {
        fill(k, i);
        if (run(k, 0, i) != 0) {
            k->failed++;
            break;
        }
        (void) run(k, 1, i);
        k->wrong += differ(k, steps[i].outs);

        (void) comm_barrier(k->c[1]);
        k->wrong += memcmp(k->out[0].large, k->of_zero->large,
                        (size_t) steps[i].tokens * LARGE * sizeof(float))
                    != 0;
        (void) comm_barrier(k->c[1]);
    }

    k->side[0].kn->info(k->side[0].dev, &info);
    k->replayed = info.replayed;

    return NULL;
}

/* Some ranks, one of which takes fewer steps: who waits for it is told. */
static void
group(uint32_t ranks, uint32_t fewer)
{
    uint32_t r, i;
    char err[256];
    comm_t *c[2][RANKS_MAX];
    pthread_t t[RANKS_MAX];
    rank_t *k = calloc(ranks, sizeof(*k));

    assert_non_null(k);
    for (i = 0; i < 2; i++) {
        assert_int_equal(comm_shm_open(ranks, c[i], err, sizeof(err)), 0);
    }

    for (r = 0; r < ranks; r++) {
        k[r].rank = r;
        k[r].ranks = ranks;
        k[r].c[0] = c[0][r];
        k[r].c[1] = c[1][r];
        k[r].of_zero = &k[0].out[0];
        k[r].steps = STEPS - (r == 1 ? fewer : 0);
        assert_int_equal(pthread_create(&t[r], NULL, rank_main, &k[r]), 0);
    }

    if (fewer > 0) {
        assert_int_equal(pthread_join(t[1], NULL), 0);
        usleep(50000); /* the others wait by now, or will */
        comm_abort(c[0][0], "rank 1 is lost");
        comm_abort(c[1][0], "rank 1 is lost");
    }

    for (r = 0; r < ranks; r++) {
        if (fewer == 0 || r != 1) {
            assert_int_equal(pthread_join(t[r], NULL), 0);
        }
        assert_int_equal(k[r].wrong, 0);
        assert_int_equal(k[r].failed, fewer > 0 && r != 1);
        assert_true(fewer > 0 || k[r].replayed == 4);
    }

    for (r = 0; r < ranks; r++) {
        for (i = 0; i < 2; i++) {
            k[r].side[i].kn->close(k[r].side[i].dev);
            comm_close(c[i][r]);
        }
    }
    free(k);
}

static void
meet(void **state)
{
    (void) state;
    group(1, 0);
    group(2, 0);
    group(3, 0);
    group(4, 0);
}

static void
one_device(void **state)
{
    (void) state;
    assert_int_equal(setenv("LLM_SIMT_DEVICES", "1", 1), 0);
    group(2, 0);
    group(4, 0);
    assert_int_equal(setenv("LLM_SIMT_DEVICES", "8", 1), 0);
}

static void
lost(void **state)
{
    (void) state;
    group(2, 2); /* while what is recorded runs */
    group(4, 1);
}

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(meet),
        cmocka_unit_test(one_device),
        cmocka_unit_test(lost),
    };

    if (argc < 2) {
        printf("no library of a GPU's table is given\n");
        return 77;
    }

    library = argv[1];
    (void) setenv("LLM_SIMT_DEVICES", "8", 1);

    return cmocka_run_group_tests_name("meet", tests, NULL, NULL);
}
