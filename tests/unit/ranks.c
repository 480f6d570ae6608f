/*
 * Would catch: a weight, bias, norm or head that goes to the wrong rank, to
 * none or to two; a rank that is not waited for, or whose results are another's
 * bits; a sum whose order depends on the step, the run or who comes first; a
 * part whose blocks are cut in two; a model that cannot be divided and is, or
 * is not refused by one sentence; an aborted group whose steps do not end.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "brief.h"
#include "ranks.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DIR     "tests/data/models/"
#define DEMO    "conf/demo/ngx-llm-demo.gguf"
#define TINY    "TinyStories-656K/TinyStories-656K-Q4_0.gguf"
#define TOKENS  64
#define CONTEXT 512
#define BLOCK   16
#define ROWS    2

/* Outputs of a sequence: every so many positions. */
#define EACH 5

static const sample_params_t greedy = {
    .top_p = 1, .repetition_penalty = 1, .logprobs = 1};

typedef struct {
    model_t *m;
    ranks_t *r;
    uint32_t ranks, vocab, hidden, blocks;
    uint32_t ids[TOKENS];
    uint32_t table[ROWS][CONTEXT / BLOCK];
    float *got; /* [TOKENS, vocab] of sequence 0, owned; of outputs only */
} rig_t;

/* 0 when it cannot be divided so; err has the sentence. */
static int
rig_open(rig_t *g, const char *path, const char *isa, uint32_t ranks,
    uint32_t tokens, char *err)
{
    uint32_t i, j;
    ranks_cfg_t c = {.kn = kernels_cpu(isa, err, 256),
        .ranks = ranks,
        .open = {.threads = 2},
        .shape = {ROWS, ROWS * tokens, ROWS * tokens, CONTEXT,
            ROWS * CONTEXT / BLOCK, BLOCK, KN_F32, .groups = {.n = 0},
            .host_blocks = CONTEXT / BLOCK}};

    memset(g, 0, sizeof(*g));
    assert_non_null(c.kn);
    g->m = model_open(path, err, 256);

    if (g->m == NULL) {
        fail_msg("%s", err);
    }

    c.model = g->m;
    g->ranks = ranks;
    g->r = ranks_open(&c, err, 256);

    if (g->r == NULL) {
        model_close(g->m);
        return 0;
    }

    g->vocab = model_info(g->m)->vocab;
    g->hidden = model_info(g->m)->hidden;
    g->got = calloc((size_t) TOKENS * g->vocab, sizeof(float));
    assert_non_null(g->got);

    for (i = 0; i < TOKENS; i++) {
        g->ids[i] = (i * 7919 + 13) * 31 % g->vocab;
    }

    for (i = 0; i < ROWS; i++) {
        for (j = 0; j < CONTEXT / BLOCK; j++) {
            g->table[i][j] = (j * ROWS + i) * 11 % (ROWS * CONTEXT / BLOCK);
        }
    }

    return 1;
}

static void
rig_close(rig_t *g)
{
    ranks_close(g->r);
    model_close(g->m);
    free(g->got);
}

/* All ranks have the same bits, of what logits are made of. */
static void
check_ranks(const rig_t *g, uint32_t outs)
{
    uint32_t i;
    const float *v, *zero = forward_vectors(ranks_look(g->r, 0));

    for (i = 1; i < g->ranks; i++) {
        v = forward_vectors(ranks_look(g->r, i));
        assert_memory_equal(v, zero, (size_t) outs * g->hidden * sizeof(*v));
    }
}

/*
 * Tokens [from, to) of sequence 0, and beside them [0, beside) of sequence 1.
 * The step's result.
 */
static int
step(rig_t *g, uint32_t from, uint32_t to, uint32_t beside)
{
    uint32_t i, first = beside;
    uint32_t tokens[ROWS * TOKENS];
    batch_row_t rows[ROWS] = {{0}};
    batch_out_t outs[TOKENS];
    sample_out_t sampled[TOKENS];
    batch_t b = {.rows = rows, .tokens = tokens, .outs = outs};
    forward_t *f = ranks_forward(g->r);

    if (beside > 0) {
        rows[b.rows_n++] = (batch_row_t){.seq = 1,
            .q_len = beside,
            .kv_len = beside,
            .blocks = {{g->table[1], 0, CONTEXT / BLOCK}}};
        memcpy(tokens, g->ids + 1, beside * sizeof(*tokens));
    }

    rows[b.rows_n++] = (batch_row_t){.seq = 0,
        .q_start = from,
        .q_len = to - from,
        .kv_len = to,
        .tok = first,
        .blocks = {{g->table[0], 0, CONTEXT / BLOCK}}};
    memcpy(tokens + first, g->ids + from, (to - from) * sizeof(*tokens));
    b.tokens_n = first + to - from;

    for (i = from; i < to; i++) {
        if (i % EACH == 0) {
            outs[b.outs_n++] = (batch_out_t){.tok = first + i - from,
                .row = b.rows_n - 1,
                .pos = i,
                .params = &greedy,
                .known = g->ids,
                .known_n = i + 1,
                .prompt_n = i + 1};
        }
    }

    forward_submit(f, &b);
    memset(tokens, 0xff, sizeof(tokens)); /* the batch may be reused */
    memset(rows, 0xff, sizeof(rows));

    if (forward_wait(f, sampled) != 0) {
        return -1;
    }

    for (i = 0; i < b.outs_n; i++) {
        assert_int_equal(sampled[i].err, 0);
        memcpy(g->got + (size_t) outs[i].pos * g->vocab, forward_logits(f, i),
            g->vocab * sizeof(float));
    }

    check_ranks(g, b.outs_n);
    return 0;
}

/* The whole in steps of size, now and then with another sequence beside. */
static void
steps(rig_t *g, uint32_t size)
{
    uint32_t from, to;

    memset(g->got, 0, (size_t) TOKENS * g->vocab * sizeof(float));

    for (from = 0; from < TOKENS; from = to) {
        to = from + size < TOKENS ? from + size : TOKENS;
        assert_int_equal(step(g, from, to, from % 3 == 1 ? 5 : 0), 0);
    }
}

/* The largest relative L2 of an output's logits. */
static double
distance(const rig_t *g, const float *want)
{
    uint32_t i, j;
    double d, num, den, far = 0;

    for (i = 0; i < TOKENS; i += EACH) {
        for (num = 0, den = 0, j = 0; j < g->vocab; j++) {
            d = (double) g->got[i * g->vocab + j] - want[i * g->vocab + j];
            num += d * d;
            den += (double) want[i * g->vocab + j] * want[i * g->vocab + j];
        }

        d = sqrt(num / den);
        far = d <= far ? far : d; /* NaN stays */
    }

    return far;
}

/* What it takes to divide it among so many, as its makers made it. */
static int
fits(const char *name, const model_info_t *info, uint32_t n)
{
    return info->heads % n == 0
           && (info->kv_heads % n == 0 || n % info->kv_heads == 0)
           && strcmp(name, "olmo2") != 0
           && (strcmp(name, "gpt-oss-mxfp4") != 0 || n < 4);
}

/* So many ranks against one. */
static void
check(const char *path, const char *isa, uint32_t ranks, double tolerance)
{
    char err[256];
    size_t bytes;
    double far;
    float *one, *many;
    rig_t g;

    assert_true(rig_open(&g, path, isa, ranks, TOKENS, err));
    bytes = (size_t) TOKENS * g.vocab * sizeof(float);
    steps(&g, TOKENS);
    many = g.got;
    g.got = calloc(1, bytes);
    steps(&g, 7);
    assert_memory_equal(many, g.got, bytes);
    rig_close(&g);

    assert_true(rig_open(&g, path, isa, 1, TOKENS, err));
    steps(&g, TOKENS);
    one = g.got;
    g.got = many;
    far = distance(&g, one);
    print_message("%s %s, %u ranks: L2 %.2g\n", path, isa, ranks, far);
    assert_true(far < tolerance);
    free(one);
    rig_close(&g);
}

/* By every number of ranks, or it is refused. */
static void
check_each(const char *name, const char *file)
{
    static const uint32_t sizes[] = {2, 3, 4, 8};
    char path[256], err[256];
    model_t *m;
    uint32_t i;
    rig_t g;

    snprintf(path, sizeof(path), DIR "%s%s", name, file);

    for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        m = model_open(path, err, sizeof(err));
        assert_non_null(m);

        if (fits(name, model_info(m), sizes[i])) {
            check(path, "ref", sizes[i], 1e-5);
        } else {
            assert_false(rig_open(&g, path, "ref", sizes[i], TOKENS, err));
            assert_memory_equal(err, "tensor_parallel ", 16);
        }

        model_close(m);
    }
}

/* The names under DIR, of what has something of its own to be divided. */
static void
families(void **state)
{
    static const char *const names[] = {
        "mistral",         /* more ranks than key heads */
        "llama-linear",    /* and fewer; tied ends */
        "qwen2",           /* biases */
        "qwen3",           /* norms of heads */
        "gemma2",          /* norms before the residual, caps, windows */
        "granite",         /* scaled residuals */
        "olmo2",           /* a norm of all heads */
        "qwen2-moe",       /* a gated expert of all tokens */
        "qwen3-moe-dense", /* layers without experts */
        "gpt-oss",         /* sinks, biases of experts; rows take turns */
        "gpt-oss-mxfp4",   /* blocks, and exponents apart */
        "deepseek2",       /* latents, of queries too; an expert of all */
        "deepseek3",       /* groups of experts */
        "deepseek3-fp8",   /* factors */
    };
    uint32_t i;

    (void) state;

    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (!brief() || i % 5 == 3) {
            check_each(names[i], "");
        }
    }

    check_each("gpt-oss-mxfp4", "/model.gguf");
    check_each("deepseek3", "/model.gguf");
}

/*
 * Blocks of weights, and vectors: activations are rounded to whole numbers
 * there, and one that is next to a border may go another way.
 */
static void
blocks(void **state)
{
    char err[256];

    (void) state;
    check(DEMO, "ref", 2, 1e-5);
    check(DEMO, "ref", 8, 1e-5);

    if (kernels_cpu("avx2", err, sizeof(err)) != NULL) {
        check(DEMO, "avx2", 4, 1e-3);
        check(DIR "qwen3", "avx2", 8, 1e-5);
    }
}

static void
quantised(void **state)
{
    const char *dir = getenv("LLM_DATA");
    char path[256], err[256];
    rig_t g;
    FILE *f;

    (void) state;
    snprintf(path, sizeof(path), "%s/models/" TINY,
        dir != NULL ? dir : "../shared/data");
    f = fopen(path, "r");

    if (f == NULL) {
        print_message("%s is not there\n", path);
        skip();
    }

    fclose(f);
    check(path, "ref", 2, 1e-5);
    check(path, "ref", 4, 1e-5);

    /* heads of 16 in blocks of 32 */
    assert_false(rig_open(&g, path, "ref", 8, TOKENS, err));
    assert_string_equal(err,
        "tensor_parallel 8: weight \"blk.0.attn_output.weight\": expected rows "
        "of whole blocks of 32 elements for each rank, found 16 of 1 heads");
}

static uint64_t
bytes_of(const forward_held_t *h)
{
    uint32_t i;
    uint64_t n = 0;

    for (i = 0; i < KN_TYPES; i++) {
        n += h->weights[i].bytes;
    }

    return n;
}

/* An eighth or so of what there is, with norms for each. */
static void
each_has_its_part(void **state)
{
    char err[256];
    uint32_t i;
    uint64_t whole, sum = 0, n;
    forward_cfg_t c = {.block_tokens = BLOCK, .kv_type = KN_F32, .ranks = 8};
    rig_t g;

    (void) state;
    assert_true(rig_open(&g, DEMO, "ref", 1, TOKENS, err));
    whole = bytes_of(ranks_held(g.r));
    n = ranks_held(g.r)->kv;
    rig_close(&g);

    assert_true(rig_open(&g, DEMO, "ref", 8, TOKENS, err));
    assert_int_equal(ranks_held(g.r)->kv,
        ranks_block_bytes(g.m, &c) * ROWS * CONTEXT / BLOCK);
    assert_true(ranks_held(g.r)->kv >= n);

    for (i = 0; i < 8; i++) {
        n = bytes_of(forward_held(ranks_look(g.r, i)));
        assert_in_range(n, whole / 9, whole / 6);
        sum += n;
    }

    assert_int_equal(sum, bytes_of(ranks_held(g.r)));
    rig_close(&g);
}

/* To the second arena and back, in all ranks. */
static void
copies(void **state)
{
    char err[256];
    uint32_t i, n = CONTEXT / BLOCK, slots[CONTEXT / BLOCK];
    uint32_t ids[CONTEXT / BLOCK];
    uint64_t nth;
    float *want;
    size_t bytes;
    rig_t g;

    (void) state;
    assert_true(rig_open(&g, DIR "qwen3", "ref", 4, TOKENS, err));
    bytes = (size_t) TOKENS * g.vocab * sizeof(float);
    steps(&g, 32);
    want = g.got;
    g.got = calloc(1, bytes);

    for (i = 0; i < n; i++) {
        slots[i] = (i * 5 + 1) % n;
        ids[i] = g.table[0][i];
    }

    for (i = 0; i < TOKENS; i += 32) {
        assert_int_equal(step(&g, i, i + 32, 0), 0);
        nth = forward_copy(ranks_forward(g.r), 0, ids, slots, n);
        assert_int_equal(forward_copied(ranks_forward(g.r), nth), KN_COPY_DONE);

        /* where they were is another's */
        memcpy(g.table[1], ids, sizeof(ids));
        assert_int_equal(step(&g, 0, 1, 30), 0);
        nth = forward_copy(ranks_forward(g.r), 1, slots, ids, n);
        assert_int_equal(forward_copied(ranks_forward(g.r), nth), KN_COPY_DONE);
    }

    assert_memory_equal(want + EACH * g.vocab, g.got + EACH * g.vocab,
        bytes - EACH * g.vocab * sizeof(float));
    free(want);
    rig_close(&g);
}

/* Wherever the ranks are by then. */
static void *
abort_soon(void *arg)
{
    rig_t *g = arg;

    usleep(g->ids[0] * 977 % 3000);
    ranks_abort(g->r, "rank 2 is lost");
    return NULL;
}

static void
aborted(void **state)
{
    uint32_t i, j, k;
    char err[256];
    pthread_t t;
    rig_t g;

    (void) state;

    for (i = 0; i < (brief() ? 5 : 20); i++) {
        assert_true(rig_open(&g, DIR "qwen3", "ref", 4, TOKENS, err));
        assert_null(forward_error(ranks_forward(g.r)));
        g.ids[0] = i;
        assert_int_equal(pthread_create(&t, NULL, abort_soon, &g), 0);

        for (j = 0, k = 0; k == 0; j = (j + 8) % TOKENS) {
            k = step(&g, j, j + 8, 0) != 0;
        }

        assert_int_equal(step(&g, 0, 8, 0), -1);
        assert_string_equal(
            forward_error(ranks_forward(g.r)), "rank 2 is lost");
        assert_int_equal(pthread_join(t, NULL), 0);
        rig_close(&g);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(families),
        cmocka_unit_test(blocks),
        cmocka_unit_test(quantised),
        cmocka_unit_test(each_has_its_part),
        cmocka_unit_test(copies),
        cmocka_unit_test(aborted),
    };

    return cmocka_run_group_tests_name("ranks", tests, NULL, NULL);
}
