/*
 * Would catch: a family whose formula differs from its makers' (a bias, a
 * norm, a scale, a cap, a window, a rotation or its scaling), against logits
 * that Hugging Face transformers computed from the same tiny checkpoints
 * (tests/data/models/make.py); a window that depends on how the prompt was cut
 * into steps; an architecture that is not known and is not named as such.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "brief.h"
#include "forward.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DIR       "tests/data/models/"
#define TOKENS    320
#define CONTEXT   512
#define BLOCK     16
#define TOLERANCE 1e-4

/*
 * The directories under DIR.  X(name, queries that share a key, is there a
 * GGUF twin?)
 */
#define MODELS(X)                                                              \
    X("llama-llama3", 3, 1)                                                    \
    X("llama-linear", 1, 0)                                                    \
    X("llama-yarn", 3, 1)                                                      \
    X("mistral", 8, 0)                                                         \
    X("qwen2", 3, 1)                                                           \
    X("qwen3", 8, 1)                                                           \
    X("qwen3-yarn", 3, 0)                                                      \
    X("gemma2", 2, 1)                                                          \
    X("gemma3", 3, 1)                                                          \
    X("phi3-long", 3, 1)                                                       \
    X("phi3-short", 1, 0)                                                      \
    X("smollm3", 4, 1)                                                         \
    X("granite", 3, 1)                                                         \
    X("olmo2", 1, 1)                                                           \
    X("mixtral", 3, 1)                                                         \
    X("qwen2-moe", 1, 1)                                                       \
    X("qwen3-moe", 8, 1)                                                       \
    X("qwen3-moe-plain", 3, 0)                                                 \
    X("gpt-oss", 8, 0)                                                         \
    X("gpt-oss-mxfp4", 3, 1)                                                   \
    X("qwen2-moe-dense", 3, 0)                                                 \
    X("qwen3-moe-dense", 8, 0)                                                 \
    X("deepseek2-lite", 3, 1)                                                  \
    X("deepseek2", 8, 0)                                                       \
    X("deepseek3", 9, 1)                                                       \
    X("deepseek3-fp8", 3, 0)                                                   \
    X("deepseek3-plain", 4, 0)

/* golden.bin */
typedef struct {
    uint32_t ids_n, positions_n, vocab;
    uint32_t ids[TOKENS], positions[TOKENS];
    float *logits; /* [positions_n, vocab], owned */
} golden_t;

typedef struct {
    golden_t want;
    model_t *m;
    const kernels_t *kn;
    kn_dev_t *dev;
    forward_t *f;
    kv_t *kv;
    float *got; /* as want.logits, owned */
} rig_t;

static const sample_params_t greedy = {
    .top_p = 1, .repetition_penalty = 1, .logprobs = 1};

static void
take(FILE *f, void *to, size_t size, size_t n)
{
    assert_int_equal(fread(to, size, n, f), n);
}

static void
golden_open(golden_t *g, const char *name)
{
    char path[256];
    FILE *f;
    size_t n;

    snprintf(path, sizeof(path), DIR "%s/golden.bin", name);
    f = fopen(path, "rb");
    assert_non_null(f);
    take(f, &g->ids_n, 4, 1);
    take(f, &g->positions_n, 4, 1);
    take(f, &g->vocab, 4, 1);
    assert_in_range(g->ids_n, 300, TOKENS);
    assert_in_range(g->positions_n, 16, g->ids_n);
    assert_true(g->vocab % 64 != 0 && g->vocab < 4096);
    take(f, g->ids, 4, g->ids_n);
    take(f, g->positions, 4, g->positions_n);
    n = (size_t) g->positions_n * g->vocab;
    g->logits = malloc(n * sizeof(float));
    assert_non_null(g->logits);
    take(f, g->logits, sizeof(float), n);
    assert_int_equal(fgetc(f), EOF);
    fclose(f);
}

/*
 * For steps of at most so many tokens; the cache in groups of layers or in
 * one.  0 when this machine lacks the instruction set.
 */
static int
rig_open(rig_t *r, const char *name, const char *file, const char *isa,
    uint32_t tokens, int groups)
{
    char path[256], err[256];
    kn_open_t o = {.threads = 2};
    forward_cfg_t c = {
        1, tokens, tokens, CONTEXT, 0, BLOCK, KN_F32, .groups = {.n = 0}};
    kv_cfg_t kc;

    memset(r, 0, sizeof(*r));
    r->kn = kernels_cpu(isa, err, sizeof(err));

    if (r->kn == NULL) {
        print_message("%s\n", err);
        return 0;
    }

    golden_open(&r->want, name);
    snprintf(path, sizeof(path), DIR "%s%s", name, file);
    r->m = model_open(path, err, sizeof(err));

    if (r->m == NULL) {
        fail_msg("%s", err);
    }

    assert_int_equal(model_info(r->m)->vocab, r->want.vocab);
    r->dev = r->kn->open(&o, err, sizeof(err));
    assert_non_null(r->dev);

    if (groups) {
        model_groups(r->m, CONTEXT, &c.groups);
    }

    /* as few blocks as it can be done with: those left behind come again */
    forward_kv(&c, 1, &kc);
    c.blocks = (uint32_t) kv_blocks_for(&kc, CONTEXT);
    kc.blocks = c.blocks;
    r->kv = kv_open(&kc);
    assert_non_null(r->kv);
    r->f = forward_open(r->kn, r->dev, r->m, &c, err, sizeof(err));

    if (r->f == NULL) {
        fail_msg("%s", err);
    }

    r->got =
        calloc((size_t) r->want.positions_n * r->want.vocab, sizeof(*r->got));
    assert_non_null(r->got);

    return 1;
}

static void
rig_close(rig_t *r)
{
    forward_close(r->f);
    kv_close(r->kv);
    r->kn->close(r->dev);
    model_close(r->m);
    free(r->want.logits);
    free(r->got);
}

/* Tokens [from, to) in one step; the logits that are wanted to r->got. */
static void
step(rig_t *r, uint32_t from, uint32_t to)
{
    uint32_t i, vocab = r->want.vocab;
    uint32_t which[TOKENS];
    batch_row_t row = {0, from, to - from, to, 0, 0, {{NULL, 0, 0}}};
    batch_out_t outs[TOKENS];
    sample_out_t sampled[TOKENS];
    batch_t b = {.rows_n = 1,
        .tokens_n = to - from,
        .rows = &row,
        .tokens = r->want.ids + from,
        .outs = outs};

    for (i = 0; i < r->want.positions_n; i++) {
        if (r->want.positions[i] >= from && r->want.positions[i] < to) {
            which[b.outs_n] = i;
            outs[b.outs_n++] = (batch_out_t){.tok = r->want.positions[i] - from,
                .pos = r->want.positions[i],
                .params = &greedy,
                .known = r->want.ids,
                .known_n = to,
                .prompt_n = to};
        }
    }

    for (i = 0; i < kv_groups(r->kv); i++) {
        row.blocks[i].ids =
            kv_table(r->kv, 0, i, &row.blocks[i].first, &row.blocks[i].n);
    }

    forward_submit(r->f, &b);
    forward_wait(r->f, sampled);
    kv_slide(r->kv, 0, to, r->want.ids_n);
    kv_check_deep(r->kv);

    for (i = 0; i < b.outs_n; i++) {
        assert_int_equal(sampled[i].err, 0);
        memcpy(r->got + (size_t) which[i] * vocab, forward_logits(r->f, i),
            vocab * sizeof(float));
    }
}

static void
in_chunks(rig_t *r, uint32_t size)
{
    uint32_t from, to;

    memset(r->got, 0xff,
        (size_t) r->want.positions_n * r->want.vocab * sizeof(float));
    assert_int_equal(kv_grow(r->kv, 0, r->want.ids_n), 0);

    for (from = 0; from < r->want.ids_n; from = to) {
        to = from + size < r->want.ids_n ? from + size : r->want.ids_n;
        step(r, from, to);
    }
}

/* The largest relative L2 of a position's logits. */
static double
distance(const rig_t *r)
{
    uint32_t i, j;
    double d, num, den, far = 0;
    const float *got, *want;

    for (i = 0; i < r->want.positions_n; i++) {
        got = r->got + (size_t) i * r->want.vocab;
        want = r->want.logits + (size_t) i * r->want.vocab;

        for (num = 0, den = 0, j = 0; j < r->want.vocab; j++) {
            d = (double) got[j] - want[j];
            num += d * d;
            den += (double) want[j] * want[j];
        }

        d = sqrt(num / den);
        far = d <= far ? far : d; /* NaN stays */
    }

    return far;
}

/* The cache has latents where there are such, and nothing beside. */
static void
check_cache(const rig_t *r)
{
    const model_info_t *info = model_info(r->m);
    forward_cfg_t c = {.block_tokens = BLOCK, .kv_type = KN_F32};
    uint64_t entry = info->latent > 0
                         ? info->latent + info->rope_dims
                         : 2 * (uint64_t) info->kv_heads * info->head_dim;

    assert_int_equal(forward_block_bytes(r->m, &c),
        info->layers * BLOCK * entry * sizeof(float));
}

/*
 * Vectors meet the experts of MXFP4 with activations of eight bits, and BF16
 * with BF16 where products of that are.
 */
static double
tolerance(const char *name, const char *isa)
{
    if (strcmp(isa, "avx512bf16") == 0) {
        return 5e-2;
    }

    return strcmp(name, "gpt-oss-mxfp4") == 0 && strcmp(isa, "ref") != 0
               ? 6e-2
               : TOLERANCE;
}

static void
check_isa(const char *name, const char *file, const char *isa, uint32_t group)
{
    static const uint32_t sizes[] = {7, 1};
    const uint32_t sizes_n = brief() ? 1 : 2;
    uint32_t i, heads;
    double far;
    size_t bytes;
    float *whole;
    rig_t r;

    if (!brief_isa(isa) || !rig_open(&r, name, file, isa, TOKENS, 0)) {
        return;
    }

    heads = model_info(r.m)->heads;
    assert_int_equal(heads, group * model_info(r.m)->kv_heads);
    check_cache(&r);
    bytes = (size_t) r.want.positions_n * r.want.vocab * sizeof(float);
    in_chunks(&r, r.want.ids_n);
    far = distance(&r);
    print_message("%s%s %s: L2 %.2g\n", name, file, isa, far);
    assert_true(far < tolerance(name, isa));
    whole = malloc(bytes);
    assert_non_null(whole);
    memcpy(whole, r.got, bytes);
    rig_close(&r);

    for (i = 0; i < sizes_n; i++) {
        assert_true(rig_open(&r, name, file, isa, sizes[i], 1));
        in_chunks(&r, sizes[i]);
        assert_true(distance(&r) < tolerance(name, isa));
        assert_memory_equal(r.got, whole, bytes);
        rig_close(&r);
    }

    free(whole);
}

typedef struct {
    const char *name;
    uint32_t group;
    int gguf;
} row_t;

static void
golden(void **state)
{
    static const char *const isas[] = {"ref", "avx2", "avx512"};
    const row_t *row = *state;
    size_t i;

    for (i = brief() ? 1 : 0; i < sizeof(isas) / sizeof(isas[0]); i++) {
        check_isa(row->name, "", isas[i], row->group);

        if (row->gguf) {
            check_isa(row->name, "/model.gguf", isas[i], row->group);
        }
    }
}

/*
 * Activations of BF16: a model of each kind of layers.  In others of these, of
 * random numbers all of them, another expert may be chosen.
 */
static void
golden_bf16(void **state)
{
    char err[256];

    (void) state;

    if (kernels_cpu("avx512bf16", err, sizeof(err)) == NULL) {
        print_message("%s\n", err);
        skip();
    }

    check_isa("smollm3", "", "avx512bf16", 4);
    check_isa("mixtral", "", "avx512bf16", 3);
    check_isa("deepseek2-lite", "", "avx512bf16", 3);
}

/* The sentence names what was found and lists what is known. */
static void
unknown(void **state)
{
    char dir[] = "/tmp/families.XXXXXX", path[64], err[1024];
    FILE *f;

    (void) state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/config.json", dir);
    f = fopen(path, "w");
    assert_non_null(f);
    fputs("{\"model_type\": \"perceptron\"}\n", f);
    fclose(f);
    assert_null(model_open(dir, err, sizeof(err)));
    print_message("%s\n", err);
    assert_non_null(strstr(err, "\"perceptron\""));
    assert_non_null(strstr(err, "llama, "));
    assert_non_null(strstr(err, "qwen3"));
    assert_non_null(strstr(err, "deepseek_v3"));
    unlink(path);
    rmdir(dir);
}

int
main(void)
{
    static row_t rows[] = {
#define X(name, group, gguf) {name, group, gguf},
        MODELS(X)
#undef X
    };
    /* clang-format off */
    enum {
#define X(name, group, gguf) + 1
        ROWS = 0 MODELS(X)
#undef X
    };
    /* clang-format on */
    struct CMUnitTest tests[ROWS + 2];
    int i;

    for (i = 0; i < ROWS; i++) {
        tests[i] =
            (struct CMUnitTest){rows[i].name, golden, NULL, NULL, &rows[i]};
    }

    tests[ROWS] = (struct CMUnitTest) cmocka_unit_test(golden_bf16);
    tests[ROWS + 1] = (struct CMUnitTest) cmocka_unit_test(unknown);
    return cmocka_run_group_tests_name("families", tests, NULL, NULL);
}
