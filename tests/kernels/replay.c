/*
 * Steps that a GPU records and replays: replay LIBRARY [MODEL ...], of the
 * directories in tests/data/models.
 *
 * Would catch: a launch whose grid or argument holds more of a step than its
 * recording's key says (another number of rows has other bits, or fewer rows
 * are computed than there are); rows beyond a step's own that write, or have
 * experts; a plan of attention that has more units than blocks were recorded;
 * memory that is given while launches are recorded; steps that are not
 * replayed; one whose copy takes what the plan of the next one has written.
 *
 * Two devices, one of which records nothing, go through the same steps.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "forward.h"
#include "kv.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIR     "tests/data/models/"
#define SEQS    5
#define TOKENS  96
#define CONTEXT 128
#define BLOCK   16
#define VOCAB   4096

static const char *library;

static const uint32_t prompts[SEQS] = {3, 17, 1, 40, 9};

/* What a step has of each sequence: a token, two, and is there an output? */
#define ONE  1
#define TWO  2
#define MUTE 4

static const uint8_t steps[][SEQS] = {
    {ONE, ONE, ONE, ONE, ONE},     /* of a bucket of 8: as it is, */
    {ONE, ONE, ONE, ONE, ONE},     /* recorded, and replayed */
    {ONE, ONE, ONE, ONE, ONE},     /* ... and again */
    {0, ONE, 0, ONE, ONE},         /* of 4 */
    {ONE, 0, ONE, ONE, 0},         /* recorded */
    {0, ONE, ONE, ONE, ONE},       /* more of them */
    {ONE, TWO, ONE, 0, 0},         /* not of one token each */
    {ONE, ONE, ONE, ONE, ONE},     /* again of 8 */
    {ONE | MUTE, ONE, 0, ONE, 0},  /* an output less */
    {MUTE, 0, MUTE, 0, 0},         /* of 2, without any: not there yet */
    {ONE, 0, ONE | MUTE, 0, ONE},  /* of 4 */
    {ONE, 0, ONE, ONE, ONE | MUTE} /* of 4 */
};

enum { STEPS = sizeof(steps) / sizeof(steps[0]) };

/* By the table above: recordings of 8 and of 4, and what goes through them. */
#define RECORDED 2
#define REPLAYED 8

typedef struct {
    const kernels_t *kn;
    kn_dev_t *dev;
    model_t *m;
    forward_t *f;
    kv_t *kv;
    uint32_t ids[SEQS][CONTEXT], n[SEQS]; /* what is in the cache */
    sample_params_t params[SEQS];
    sample_out_t got[TOKENS];
    uint32_t outs_n;
} world_t;

/* More than the step block has room for. */
#define BIASES 140000

static sample_bias_t bias[BIASES];
static uint32_t mask[VOCAB / 32];

static void
world_open(world_t *w, const char *name, uint32_t eager, uint32_t by)
{
    char path[256], err[256];
    kn_open_t o = {.eager = eager, .library = by};
    forward_cfg_t c = {SEQS + 2, TOKENS, SEQS + 2, CONTEXT, 0, BLOCK, KN_BF16,
        .groups = {.n = 0}};
    kv_cfg_t kc;
    uint32_t i;

    memset(w, 0, sizeof(*w));
    setenv("LLM_SIMT_SEED", eager ? "0" : "1", 1);
    w->kn = kernels_cuda(library, err, sizeof(err));
    assert_non_null(w->kn);
    snprintf(path, sizeof(path), DIR "%s/model.safetensors", name);
    w->m = model_open(path, err, sizeof(err));
    if (w->m == NULL) {
        fail_msg("%s", err);
    }

    w->dev = w->kn->open(&o, err, sizeof(err));
    assert_non_null(w->dev);
    model_groups(w->m, CONTEXT, &c.groups);
    forward_kv(&c, SEQS, &kc);
    c.blocks = (uint32_t) kv_blocks_for(&kc, CONTEXT) * SEQS;
    kc.blocks = c.blocks;
    w->kv = kv_open(&kc);
    assert_non_null(w->kv);
    w->f = forward_open(w->kn, w->dev, w->m, &c, err, sizeof(err));
    if (w->f == NULL) {
        fail_msg("%s", err);
    }

    for (i = 0; i < SEQS; i++) {
        assert_int_equal(kv_grow(w->kv, i, CONTEXT), 0);
        w->params[i] = (sample_params_t){.temperature = i % 2 ? 0.8f : 0,
            .top_p = i == 3 ? 0.9f : 1,
            .repetition_penalty = i == 1 ? 1.3f : 1,
            .tops = SAMPLE_TOPS_MAX,
            .logprobs = 1,
            .bias_n = i == 2 ? BIASES : 0,
            .seed = i,
            .bias = bias};
    }
}

static void
world_close(world_t *w)
{
    forward_close(w->f);
    kv_close(w->kv);
    w->kn->close(w->dev);
    model_close(w->m);
}

/*
 * n[i] more tokens of each sequence i, of which the last has an output unless
 * mute[i]; then what was sampled is the sequence's next.
 */
static void
run(world_t *w, const uint32_t *n, const uint8_t *mute)
{
    batch_row_t rows[SEQS] = {{0}};
    batch_out_t outs[SEQS];
    uint32_t tokens[TOKENS], of[SEQS], i, g;
    batch_t b = {.rows = rows, .outs = outs, .tokens = tokens};
    batch_row_t *r;

    for (i = 0; i < SEQS; i++) {
        if (n[i] == 0) {
            continue;
        }

        r = &rows[b.rows_n];
        r->q_start = w->n[i];
        r->q_len = n[i];
        r->kv_len = w->n[i] + n[i];
        r->tok = b.tokens_n;
        for (g = 0; g < kv_groups(w->kv); g++) {
            r->blocks[g].ids =
                kv_table(w->kv, i, g, &r->blocks[g].first, &r->blocks[g].n);
        }
        memcpy(
            tokens + b.tokens_n, w->ids[i] + w->n[i], n[i] * sizeof(uint32_t));
        w->n[i] += n[i];
        b.tokens_n += n[i];

        if (!mute[i]) {
            of[b.outs_n] = i;
            outs[b.outs_n++] = (batch_out_t){.row = b.rows_n,
                .tok = b.tokens_n - 1,
                .pos = w->n[i] - 1,
                .params = &w->params[i],
                .known = w->ids[i],
                .known_n = w->n[i],
                .prompt_n = prompts[i],
                .mask = i == 3 ? mask : NULL};
        }
        b.rows_n++;
    }

    memset(w->got, 0, sizeof(w->got));
    forward_submit(w->f, &b);
    forward_wait(w->f, w->got);
    w->outs_n = b.outs_n;

    for (i = 0; i < b.outs_n; i++) {
        assert_int_equal(w->got[i].err, 0);
        w->ids[of[i]][w->n[of[i]]] = w->got[i].token;
    }
}

/* A step on both, which must be one. */
static void
both(world_t *w, const uint32_t *n, const uint8_t *mute)
{
    uint32_t i;

    for (i = 0; i < 2; i++) {
        run(&w[i], n, mute);
    }

    assert_int_equal(w[0].outs_n, w[1].outs_n);
    assert_memory_equal(w[0].got, w[1].got, w[0].outs_n * sizeof(*w[0].got));
    assert_memory_equal(w[0].ids, w[1].ids, sizeof(w[0].ids));
}

static void
check_info(const world_t *w, uint64_t recorded, uint64_t replayed)
{
    kn_info_t info;

    w->kn->info(w->dev, &info);
    /* of the two parts of a step */
    assert_int_equal(info.recorded, 2 * recorded);
    assert_int_equal(info.replayed, replayed);
}

static void
test_model(void **state)
{
    static world_t w[2];
    const char *name = *state;
    const uint8_t none[SEQS] = {0};
    uint32_t n[SEQS], i, j, vocab;
    uint8_t mute[SEQS];

    world_open(&w[0], name, 1, 0);
    world_open(&w[1], name, 0, 0);
    vocab = model_info(w[0].m)->vocab;
    assert_true(vocab <= VOCAB);

    for (i = 0; i < BIASES; i++) {
        bias[i] = (sample_bias_t){i % vocab, i < vocab ? i % 5 * 0.1f : 0};
    }
    for (i = 0; i < VOCAB; i++) {
        mask[i / 32] |= (uint32_t) (i % 3 != 0) << i % 32;
    }
    for (i = 0; i < SEQS; i++) {
        for (j = 0; j < CONTEXT; j++) {
            w[0].ids[i][j] = w[1].ids[i][j] = (i * 31 + j * 7 + 1) % vocab;
        }
    }

    both(w, prompts, none);
    check_info(&w[1], 0, 0);

    for (i = 0; i < STEPS; i++) {
        for (j = 0; j < SEQS; j++) {
            n[j] = steps[i][j] & (ONE | TWO);
            mute[j] = steps[i][j] & MUTE;
            n[j] += steps[i][j] == MUTE;
        }
        both(w, n, mute);
    }

    check_info(&w[0], 0, 0);
    check_info(&w[1], RECORDED, REPLAYED);
    world_close(&w[0]);
    world_close(&w[1]);
}

/* A prompt's products by the library: not the same bits, but the numbers. */
static void
test_library(void **state)
{
    static world_t w[2];
    const uint8_t none[SEQS] = {0};
    uint32_t i, j, vocab;
    kn_info_t info;
    double far = 0;

    for (i = 0; i < 2; i++) {
        world_open(&w[i], *state, 0, i);
        vocab = model_info(w[i].m)->vocab;
        for (j = 0; j < SEQS * CONTEXT; j++) {
            w[i].ids[j / CONTEXT][j % CONTEXT] = (j * 7 + 1) % vocab;
        }
        for (j = 0; j < SEQS; j++) {
            w[i].params[j].bias_n = 0;
        }
        run(&w[i], prompts, none);
        w[i].kn->info(w[i].dev, &info);
        assert_true((info.library > 0) == (i == 1));
    }

    for (i = 0; i < SEQS; i++) {
        for (j = 0; j < 4; j++) {
            far = fmax(far, fabs((double) w[0].got[i].top_logprobs[j]
                                 - (double) w[1].got[i].top_logprobs[j]));
        }
    }

    print_message("logprobs differ by %.1e\n", far);
    assert_true(far > 0 && far < 1e-2);
    world_close(&w[0]);
    world_close(&w[1]);
}

int
main(int argc, char **argv)
{
    static const char *const all[] = {"qwen3", "gemma3", "mixtral"};
    enum { MOST = 16 };
    struct CMUnitTest tests[MOST];
    int i, n = 0;

    if (argc < 2) {
        printf("no library of a GPU's table is given\n");
        return 77;
    }

    library = argv[1];
    for (i = 2; i < argc && n < MOST - 1; i++) {
        tests[n++] =
            (struct CMUnitTest){argv[i], test_model, NULL, NULL, argv[i]};
    }
    for (i = 0; argc == 2 && i < 3; i++) {
        tests[n++] = (struct CMUnitTest){
            all[i], test_model, NULL, NULL, (void *) (uintptr_t) all[i]};
    }

    tests[n++] = (struct CMUnitTest){
        "library", test_library, NULL, NULL, (void *) (uintptr_t) all[0]};

    return _cmocka_run_group_tests("replay", tests, (size_t) n, NULL, NULL);
}
