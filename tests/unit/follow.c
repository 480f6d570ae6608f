/*
 * Would catch: ranks in other processes whose keys, values or logits are not
 * those of threads, or of one rank alone but for rounding, after prompts in
 * chunks, tokens that were not known when their step was planned, and copies to
 * the second arena and back; one that waits for ever when rank 0 has gone, or
 * follows a message that is none.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "comm_socket.h"
#include "follow.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define DEMO    "conf/demo/ngx-llm-demo.gguf"
#define ROWS    4
#define TOKENS  64
#define CONTEXT 128
#define BLOCK   16
#define BLOCKS  32
#define HOST    8
#define VOCAB   4096 /* at most */
#define LOGITS  64

static const sample_params_t greedy = {.top_p = 1, .repetition_penalty = 1};

/* A rank; of one alone comm, w and thread are not used. */
typedef struct {
    model_t *m;
    const kernels_t *kn;
    kn_dev_t *dev;
    forward_t *f;
    comm_t *comm;
    follow_t *w;
    pthread_t thread;
    int rc;
    char err[256];
} rank_t;

/* Rank 0's batch. */
typedef struct {
    batch_t b;
    batch_row_t rows[ROWS];
    uint32_t tokens[TOKENS];
    batch_out_t outs[ROWS];
    batch_late_t late[ROWS];
    sample_out_t got[ROWS];
    uint32_t blocks[ROWS][CONTEXT / BLOCK];
    uint32_t known[ROWS][CONTEXT];
    float logits[LOGITS][VOCAB]; /* of all outputs so far */
    uint32_t logits_n;
} plan_t;


/* c: its place, which it owns, or NULL: it is alone. */
static void
open_rank(rank_t *k, comm_t *c)
{
    const forward_cfg_t shape = {ROWS, TOKENS, ROWS, CONTEXT, BLOCKS, BLOCK,
        KN_F16, .groups = {.n = 0}, .host_blocks = HOST,
        .rank = c == NULL ? 0 : c->rank, .ranks = c == NULL ? 1 : c->ranks};
    const kn_open_t o = {.threads = 1, .comm = c};
    follow_cfg_t fc = {.comm = c, .shape = shape};
    char err[256];

    memset(k, 0, sizeof(*k));
    k->comm = c;
    k->kn = kernels_cpu("ref", err, sizeof(err));
    k->m = model_open(DEMO, err, sizeof(err));
    assert_non_null(k->m);
    k->dev = k->kn->open(&o, err, sizeof(err));
    assert_non_null(k->dev);
    k->f = forward_open(k->kn, k->dev, k->m, &shape, err, sizeof(err));
    assert_non_null(k->f);
    if (c != NULL) {
        fc.forward = k->f;
        fc.vocab = model_info(k->m)->vocab;
        k->w = follow_open(&fc);
        assert_non_null(k->w);
    }
}


static void
close_rank(rank_t *k)
{
    follow_close(k->w);
    forward_close(k->f);
    k->kn->close(k->dev);
    comm_close(k->comm);
    model_close(k->m);
}


static void *
run(void *arg)
{
    rank_t *k = arg;

    k->rc = follow_run(k->w, k->err, sizeof(k->err));

    return NULL;
}


enum { ALONE, THREADS, SOCKETS };

/* Two ranks, the other one following in a thread; or one alone. */
static void
open_ranks(rank_t k[2], int how)
{
    comm_t *c[2] = {NULL, NULL};
    comm_socket_t cs = {0, 2, NULL, 5000}; /* rank 0 has fds[1], 1 fds[0] */
    char err[256];
    int fds[2], r;

    if (how == THREADS) {
        assert_int_equal(comm_shm_open(2, c, err, sizeof(err)), 0);
    } else if (how == SOCKETS) {
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
        for (r = 0; r < 2; r++) {
            cs.rank = (uint32_t) r;
            cs.fds = fds;
            assert_int_equal(comm_socket_open(&cs, &c[r], err, sizeof(err)), 0);
        }
    }

    open_rank(&k[0], c[0]);
    if (how != ALONE) {
        open_rank(&k[1], c[1]);
        assert_int_equal(pthread_create(&k[1].thread, NULL, run, &k[1]), 0);
    }
}


static void
add_row(plan_t *p, uint32_t seq, uint32_t q_start, uint32_t q_len, int late)
{
    batch_row_t *r = &p->rows[p->b.rows_n];
    batch_out_t *out = &p->outs[p->b.outs_n];
    uint32_t i;

    memset(r, 0, sizeof(*r));
    r->seq = seq;
    r->q_start = q_start;
    r->q_len = q_len;
    r->kv_len = q_start + q_len;
    r->tok = p->b.tokens_n;
    r->blocks[0].ids = p->blocks[seq];
    r->blocks[0].n = CONTEXT / BLOCK;
    for (i = 0; i < q_len; i++) {
        p->tokens[p->b.tokens_n++] = late ? 0 : p->known[seq][q_start + i];
    }
    if (late) {
        p->late[p->b.late_n].tok = r->tok;
        p->late[p->b.late_n++].out = p->b.rows_n;
    }

    memset(out, 0, sizeof(*out));
    out->row = p->b.rows_n++;
    out->tok = p->b.tokens_n - 1;
    out->pos = q_start + q_len - 1;
    out->params = &greedy;
    out->known = p->known[seq];
    out->known_n = out->prompt_n = q_start + q_len;
    p->b.outs_n++;
}


static void
begin(plan_t *p)
{
    p->b.rows_n = p->b.tokens_n = p->b.outs_n = p->b.late_n = 0;
}


static void
step(rank_t *k, plan_t *p)
{
    uint32_t i, vocab = model_info(k->m)->vocab;

    forward_submit(k->f, &p->b);
    assert_int_equal(forward_wait(k->f, p->got), 0);
    for (i = 0; i < p->b.outs_n; i++) {
        assert_true(p->logits_n < LOGITS);
        memcpy(p->logits[p->logits_n++], forward_logits(k->f, i),
            vocab * sizeof(float));
    }
}


static void
prepare(plan_t *p)
{
    uint32_t s, i;

    memset(p, 0, sizeof(*p));
    p->b.rows = p->rows;
    p->b.tokens = p->tokens;
    p->b.outs = p->outs;
    p->b.late = p->late;
    for (s = 0; s < ROWS; s++) {
        for (i = 0; i < CONTEXT / BLOCK; i++) {
            p->blocks[s][i] = (i * ROWS + s) * 7 % BLOCKS;
        }
        for (i = 0; i < CONTEXT; i++) {
            p->known[s][i] = 30 + (s * 31 + i * 7) % 200;
        }
    }
}


static void
wait_copy(rank_t *k, uint64_t nth)
{
    while (forward_copied(k->f, nth) == KN_COPY_RUNS) { /* soon */
    }
}


/* What a sequence of steps of all kinds gives. */
static void
work(rank_t *k, plan_t *p)
{
    const uint32_t slots[2] = {3, 7};
    uint32_t i, moved[2];

    prepare(p);

    /* a prompt in chunks beside others */
    begin(p);
    add_row(p, 0, 0, 20, 0);
    add_row(p, 1, 0, 33, 0);
    step(k, p);
    begin(p);
    add_row(p, 2, 0, 5, 0);
    add_row(p, 0, 20, 17, 0);
    add_row(p, 1, 33, 1, 0);
    step(k, p);

    /* its first two blocks go out and come back elsewhere */
    wait_copy(k, forward_copy(k->f, 0, p->blocks[0], slots, 2));
    moved[0] = p->blocks[3][5];
    moved[1] = p->blocks[3][6];
    wait_copy(k, forward_copy(k->f, 1, slots, moved, 2));
    memcpy(p->blocks[0], moved, sizeof(moved));

    /* and tokens that are not known before the step before has ended */
    begin(p);
    add_row(p, 0, 37, 1, 0);
    add_row(p, 1, 34, 1, 0);
    add_row(p, 2, 5, 1, 0);
    step(k, p);
    for (i = 0; i < 10; i++) {
        begin(p);
        add_row(p, 0, 38 + i, 1, 1);
        add_row(p, 1, 35 + i, 1, 1);
        add_row(p, 2, 6 + i, 1, 1);
        step(k, p);
    }
}


static void
test_all_compute_the_same(void **state)
{
    static plan_t p[3];
    uint32_t i, t, vocab;
    float a, b;
    rank_t k[2];
    int how;

    (void) state;
    for (how = ALONE; how <= SOCKETS; how++) {
        open_ranks(k, how);
        vocab = model_info(k[0].m)->vocab;
        assert_true(vocab <= VOCAB);
        work(&k[0], &p[how]);
        if (how != ALONE) {
            follow_end(k[0].w);
            assert_int_equal(pthread_join(k[1].thread, NULL), 0);
            assert_int_equal(k[1].rc, 0);
            close_rank(&k[1]);
        }
        close_rank(&k[0]);
    }

    assert_int_equal(p[SOCKETS].logits_n, p[ALONE].logits_n);
    assert_memory_equal(
        p[SOCKETS].logits, p[THREADS].logits, sizeof(p[0].logits));
    for (i = 0; i < p[ALONE].logits_n; i++) {
        for (t = 0; t < vocab; t++) {
            a = p[ALONE].logits[i][t];
            b = p[SOCKETS].logits[i][t];
            assert_true(fabsf(a - b) < 0.01f);
        }
    }
}


static void
test_it_ends_with_rank_0(void **state)
{
    static plan_t p;
    rank_t k[2];

    (void) state;
    open_ranks(k, SOCKETS);
    prepare(&p);
    begin(&p);
    add_row(&p, 0, 0, 20, 0);
    step(&k[0], &p);
    close_rank(&k[0]); /* without a word */
    assert_int_equal(pthread_join(k[1].thread, NULL), 0);
    assert_int_equal(k[1].rc, -1);
    assert_string_equal(k[1].err, "rank 0 has gone");
    close_rank(&k[1]);
}


static void
test_it_follows_no_nonsense(void **state)
{
    uint64_t bytes[2] = {20, UINT64_MAX};
    uint8_t message[20] = {9};
    rank_t k[2];

    (void) state;
    open_ranks(k, SOCKETS);
    assert_int_equal(comm_cast(k[0].comm, 0, bytes, 8), 0);
    assert_int_equal(comm_cast(k[0].comm, 0, message, 20), 0);
    assert_int_equal(pthread_join(k[1].thread, NULL), 0);
    assert_int_equal(k[1].rc, -1);
    assert_string_equal(k[1].err, "the step is damaged: its version cannot be");
    assert_int_equal(comm_barrier(k[0].comm), -1);
    assert_string_equal(comm_error(k[0].comm), k[1].err);
    close_rank(&k[0]);
    close_rank(&k[1]);

    open_ranks(k, SOCKETS);
    assert_int_equal(comm_cast(k[0].comm, 0, bytes + 1, 8), 0);
    assert_int_equal(pthread_join(k[1].thread, NULL), 0);
    assert_int_equal(k[1].rc, -1);
    assert_non_null(strstr(k[1].err, "is too long"));
    close_rank(&k[0]);
    close_rank(&k[1]);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_compute_the_same),
        cmocka_unit_test(test_it_ends_with_rank_0),
        cmocka_unit_test(test_it_follows_no_nonsense),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
