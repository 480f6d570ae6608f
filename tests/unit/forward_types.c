/*
 * Would catch: a weight type that is not computed with as it stands, in any of
 * the places where a model has weights (embedding, projections, output): a
 * model of each type gives what its twin gives, which has the same weights
 * written out as F32, and by the plain C set its very bits; and norms as BF16
 * or F16 give the bits of F32 ones.
 */
#include "../kernels/guard.h"

#include "brief.h"
#include "forward.h"
#include "gguf_make.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define WIDTH  256 /* a multiple of every block */
#define VOCAB  96
#define TOKENS 20
#define BLOCK  4

static const struct {
    const char *name;
    uint32_t rows; /* 0 for a norm */
} tensors[] = {
    {"token_embd.weight", VOCAB},
    {"output_norm.weight", 0},
    {"output.weight", VOCAB},
    {"blk.0.attn_norm.weight", 0},
    {"blk.0.attn_q.weight", WIDTH},
    {"blk.0.attn_k.weight", WIDTH},
    {"blk.0.attn_v.weight", WIDTH},
    {"blk.0.attn_output.weight", WIDTH},
    {"blk.0.ffn_norm.weight", 0},
    {"blk.0.ffn_gate.weight", WIDTH},
    {"blk.0.ffn_up.weight", WIDTH},
    {"blk.0.ffn_down.weight", WIDTH},
};

#define TENSORS_N (sizeof(tensors) / sizeof(tensors[0]))

/* The file's number of a kernels' type. */
static uint32_t
number_of(uint32_t type)
{
    uint32_t i;

    for (i = 0; i < 64; i++) {
        if (tensor_type_name(i) != NULL
            && strcmp(tensor_type_name(i), type_name(type)) == 0) {
            return i;
        }
    }

    fail_msg("%s is no type of the file", type_name(type));
    return 0;
}

/*
 * Like a norm's weights, but near 1/128, or attention would look at one token
 * only and which one hang on a hair; and the same in all three types.
 */
static void
rnd_norm(uint64_t *seed, uint32_t type, void *p, uint32_t n)
{
    uint32_t i, u;
    uint16_t h;
    float f;

    for (i = 0; i < n; i++) {
        u = rnd(seed) % 128;
        f = (1 + (float) u / 128) / 128;
        h = (uint16_t) (type == KN_F16 ? 0x2000 | u << 3 : 0x3c00 | u);

        if (type == KN_F32) {
            memcpy((char *) p + i * 4, &f, 4);
        } else {
            memcpy((char *) p + i * 2, &h, 2);
        }
    }
}

/*
 * A model of one layer, its matrices of type and its norms of norm; or its
 * twin, where both are given as F32.
 */
static uint8_t *
make_model(uint32_t type, uint32_t norm, int twin, size_t *len)
{
    static make_t head;
    uint32_t i, t, elems;
    uint64_t offset, seed, at[TENSORS_N];
    uint8_t *file, *data, *packed;

    make_head(&head, 3, TENSORS_N, 6);
    make_pair_str(&head, "general.architecture", "llama");
    make_pair_u32(&head, "llama.block_count", 1);
    make_pair_u32(&head, "llama.embedding_length", WIDTH);
    make_pair_u32(&head, "llama.feed_forward_length", WIDTH);
    make_pair_u32(&head, "llama.context_length", 64);
    make_pair_u32(&head, "llama.attention.head_count", 4);

    for (offset = 0, i = 0; i < TENSORS_N; i++) {
        t = twin ? KN_F32 : tensors[i].rows == 0 ? norm : type;
        elems = WIDTH * (tensors[i].rows == 0 ? 1 : tensors[i].rows);
        make_tensor(&head, tensors[i].name, WIDTH, tensors[i].rows,
            number_of(t), offset);
        at[i] = offset;
        offset += (type_bytes(t, elems) + 31) / 32 * 32;
    }

    make_data(&head, 32, 0);
    *len = head.len + offset;
    file = calloc(1, *len);
    packed = malloc(WIDTH * WIDTH * sizeof(float));
    assert_true(file != NULL && packed != NULL);
    memcpy(file, head.p, head.len);

    for (seed = 77, i = 0; i < TENSORS_N; i++) {
        data = file + head.len + at[i];
        elems = WIDTH * tensors[i].rows;

        if (elems == 0) {
            rnd_norm(&seed, twin ? KN_F32 : norm, data, WIDTH);
        } else if (twin) {
            rnd_weights(&seed, type, packed, elems);
            kernels_dequant(type, (float *) (void *) data, packed, elems);
        } else {
            rnd_weights(&seed, type, data, elems);
        }
    }

    free(packed);
    return file;
}

/* Logits of all tokens, in one step and then the last of them alone. */
static float *
logits_of(const kernels_t *kn, const uint8_t *file, size_t len)
{
    static const sample_params_t greedy = {.top_p = 1, .repetition_penalty = 1};
    char err[256];
    uint32_t i, blocks[TOKENS / BLOCK], tokens[TOKENS];
    float *all = malloc((TOKENS + 1) * VOCAB * sizeof(float));
    forward_cfg_t c = {
        1, TOKENS, TOKENS, 64, 64 / BLOCK, BLOCK, KN_F32, .groups = {.n = 0}};
    kn_open_t o = {.threads = 1};
    batch_row_t row = {0};
    batch_out_t outs[TOKENS];
    batch_t b = {0};
    sample_out_t got[TOKENS];
    gguf_t *g = gguf_open_mem(file, len, "made", err, sizeof(err));
    model_t *m = g != NULL ? model_open_gguf(g, err, sizeof(err)) : NULL;
    kn_dev_t *dev = kn->open(&o, err, sizeof(err));
    forward_t *f;

    if (m == NULL) {
        fail_msg("%s", err);
    }

    assert_true(all != NULL && dev != NULL);
    f = forward_open(kn, dev, m, &c, err, sizeof(err));
    assert_non_null(f);
    memset(outs, 0, sizeof(outs));

    for (i = 0; i < TOKENS; i++) {
        tokens[i] = i * 7 % VOCAB;
        blocks[i / BLOCK] = i / BLOCK;
        outs[i].tok = i;
        outs[i].pos = i;
        outs[i].params = &greedy;
        outs[i].known = tokens;
        outs[i].known_n = i + 1;
        outs[i].prompt_n = i + 1;
    }

    row.q_len = TOKENS;
    row.kv_len = TOKENS;
    row.blocks[0].ids = blocks;
    row.blocks[0].first = 0;
    row.blocks[0].n = TOKENS / BLOCK;
    b.rows = &row;
    b.rows_n = 1;
    b.tokens = tokens;
    b.tokens_n = TOKENS;
    b.outs = outs;
    b.outs_n = TOKENS;
    forward_submit(f, &b);
    forward_wait(f, got);

    for (i = 0; i < TOKENS; i++) {
        assert_int_equal(got[i].err, 0);
        memcpy(all + i * VOCAB, forward_logits(f, i), VOCAB * sizeof(float));
    }

    row.q_start = TOKENS - 1;
    row.q_len = 1;
    b.tokens = tokens + TOKENS - 1;
    b.tokens_n = 1;
    b.outs = outs + TOKENS - 1;
    b.outs_n = 1;
    outs[TOKENS - 1].tok = 0;
    forward_submit(f, &b);
    forward_wait(f, got);
    memcpy(all + i * VOCAB, forward_logits(f, 0), VOCAB * sizeof(float));

    forward_close(f);
    kn->close(dev);
    model_close(m);
    gguf_close(g);
    return all;
}

/* Is got what want is, but for what rounding activations does? */
static int
is_near(
    const cpu_isa_t *isa, uint32_t type, const float *got, const float *want)
{
    double diff = 0, size = 0;
    uint32_t i;

    if (isa == &cpu_ref) {
        return memcmp(got, want, (TOKENS + 1) * VOCAB * sizeof(float)) == 0;
    }

    for (i = 0; i < (TOKENS + 1) * VOCAB; i++) {
        diff += ((double) got[i] - want[i]) * ((double) got[i] - want[i]);
        size += (double) want[i] * want[i];
    }

    /* a layer's products and the output's, one upon another */
    return sqrt(diff) <= 4 * acts_tolerance(isa, type, 2e-6) * sqrt(size);
}

static void
check(const kernels_t *kn, const cpu_isa_t *isa, uint32_t type, uint32_t norm)
{
    size_t len, twin_len;
    uint8_t *file = make_model(type, norm, 0, &len);
    uint8_t *twin = make_model(type, norm, 1, &twin_len);
    float *got = logits_of(kn, file, len);
    float *want = logits_of(kn, twin, twin_len);

    if (!is_near(isa, type, got, want)) {
        fail_msg("%s, norms %s", type_name(type), type_name(norm));
    }

    /* and the last token alone is the last of all */
    assert_memory_equal(got + (TOKENS - 1) * VOCAB, got + TOKENS * VOCAB,
        VOCAB * sizeof(float));
    free(got);
    free(want);
    free(file);
    free(twin);
}

static void
twins(void **state)
{
    static const char *const isas[] = {"ref", "avx2", "avx512", "avx512bf16"};
    char err[256];
    size_t i;
    uint32_t type;
    const kernels_t *kn;

    (void) state;

    for (i = 0; i < sizeof(isas) / sizeof(isas[0]); i++) {
        kn = kernels_cpu(isas[i], err, sizeof(err));

        if (kn == NULL) {
            print_message("%s\n", err);
            continue;
        }

        if (!brief_isa(isas[i])) {
            continue;
        }

        for (type = 0; type < KN_TYPES; type++) {
            /* norms F32, F16, BF16 */
            check(kn, isa_named(isas[i]), type, type % 3);
        }
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(twins),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
