/*
 * Would catch: a default that is not the family's (rope base, key heads, tied
 * output), a tensor that is missing, misshapen, of a type without kernels or
 * left over and is loaded all the same, a size taken from a hostile file
 * without a limit, and a sentence that does not name file and tensor.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "gguf_make.h"
#include "model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* A key or tensor that differs from the good model's, or is left out. */
typedef struct {
    const char *name;
    uint32_t value;  /* of a key; 0 leaves it out */
    uint64_t d0, d1; /* of a tensor; d0 0 leaves it out */
    uint32_t type;
} change_t;

static const struct {
    const char *key;
    uint32_t value;
} keys[] = {
    {"llama.block_count", 2},
    {"llama.embedding_length", 8},
    {"llama.feed_forward_length", 6},
    {"llama.context_length", 64},
    {"llama.attention.head_count", 2},
    {"llama.attention.head_count_kv", 1},
};

static const struct {
    const char *name;
    uint64_t d0, d1;
} tensors[] = {
    {"token_embd.weight", 8, 10},
    {"output_norm.weight", 8, 0},
    {"output.weight", 8, 10},
#define LAYER(n)                                                               \
    {"blk." n ".attn_norm.weight", 8, 0}, {"blk." n ".attn_q.weight", 8, 8},   \
        {"blk." n ".attn_k.weight", 8, 4}, {"blk." n ".attn_v.weight", 8, 4},  \
        {"blk." n ".attn_output.weight", 8, 8},                                \
        {"blk." n ".ffn_norm.weight", 8, 0},                                   \
        {"blk." n ".ffn_gate.weight", 8, 6},                                   \
        {"blk." n ".ffn_up.weight", 8, 6},                                     \
    {                                                                          \
        "blk." n ".ffn_down.weight", 6, 8                                      \
    }
    LAYER("0"),
    LAYER("1"),
#undef LAYER
};

#define KEYS_N    (sizeof(keys) / sizeof(keys[0]))
#define TENSORS_N (sizeof(tensors) / sizeof(tensors[0]))

static make_t file;

/* Patches the header's counts. */
static void
set_counts(make_t *f, uint64_t tensors_n, uint64_t pairs_n)
{
    memcpy(f->p + 8, &tensors_n, 8);
    memcpy(f->p + 16, &pairs_n, 8);
}

/* The good model but for change; extra appends pairs and counts them. */
static void
make_model(
    make_t *f, const change_t *c, const char *arch, uint32_t (*extra)(make_t *))
{
    size_t i;
    uint64_t d0, d1, offset = 0, tensors_n = 0, pairs_n = 1;
    uint32_t value, type;

    make_head(f, 3, 0, 0);
    make_pair_str(f, "general.architecture", arch);

    for (i = 0; i < KEYS_N; i++) {
        value = keys[i].value;

        if (c != NULL && strcmp(c->name, keys[i].key) == 0) {
            value = c->value;
        }

        if (value != 0) {
            make_pair_u32(f, keys[i].key, value);
            pairs_n++;
        }
    }

    if (extra != NULL) {
        pairs_n += extra(f);
    }

    for (i = 0; i < TENSORS_N; i++) {
        d0 = tensors[i].d0;
        d1 = tensors[i].d1;
        type = 0;

        if (c != NULL && strcmp(c->name, tensors[i].name) == 0) {
            d0 = c->d0;
            d1 = c->d1;
            type = c->type;
        }

        if (d0 != 0) {
            make_tensor(f, tensors[i].name, d0, d1, type, offset);
            offset += 512;
            tensors_n++;
        }
    }

    make_data(f, 32, offset);
    set_counts(f, tensors_n, pairs_n);
}

static gguf_t *
open_file(void)
{
    char err[512];
    gguf_t *g =
        gguf_open_mem(file.p, file.len, "/x/tiny.gguf", err, sizeof(err));

    if (g == NULL) {
        fail_msg("%s", err);
    }

    return g;
}

/* What is in file must be refused with a sentence that has word in it. */
static void
refused(const char *word)
{
    char err[512] = "";
    gguf_t *g = open_file();
    model_t *m = model_open_gguf(g, err, sizeof(err));

    if (m != NULL || strncmp(err, "/x/tiny.gguf: ", 14) != 0
        || strstr(err, word) == NULL || strstr(err, "expected") == NULL
        || strstr(err, "found") == NULL) {
        fail_msg("\"%s\" lacks \"%s\"", err, word);
    }

    gguf_close(g);
}

static model_t *
opened(gguf_t **g)
{
    char err[512];
    model_t *m;

    *g = open_file();
    m = model_open_gguf(*g, err, sizeof(err));

    if (m == NULL) {
        fail_msg("%s", err);
    }

    return m;
}

static void
good(void **state)
{
    gguf_t *g;
    model_t *m;
    const model_info_t *info;
    double freq[2];

    (void) state;
    make_model(&file, NULL, "llama", NULL);
    m = opened(&g);
    info = model_info(m);
    assert_string_equal(info->name, "tiny");
    assert_string_equal(info->arch, "llama");
    assert_int_equal(info->layers, 2);
    assert_int_equal(info->hidden, 8);
    assert_int_equal(info->heads, 2);
    assert_int_equal(info->kv_heads, 1);
    assert_int_equal(info->head_dim, 4);
    assert_int_equal(info->rope_dims, 4);
    assert_int_equal(info->ffn, 6);
    assert_int_equal(info->vocab, 10);
    assert_int_equal(info->context, 64);
    assert_true(info->eps == 1e-5f);
    assert_true(info->weight_bytes > 0);
    model_rope_freqs(m, 0, 512, freq);
    assert_true(freq[0] == 1.0 && fabs(freq[1] - 0.01) < 1e-12);
    assert_ptr_equal(
        model_layer(m, 1)->down, gguf_tensor(g, "blk.1.ffn_down.weight"));
    assert_ptr_equal(model_top(m)->output, gguf_tensor(g, "output.weight"));
    assert_null(model_top(m)->rope_factors);
    model_rename(m, "other");
    assert_string_equal(info->name, "other");
    model_close(m);
    gguf_close(g);
}

static void
defaults(void **state)
{
    gguf_t *g;
    model_t *m;
    change_t tied = {"output.weight", 0, 0, 0, 0};
    change_t mha = {"llama.attention.head_count_kv", 0, 0, 0, 0};

    (void) state;
    make_model(&file, &tied, "llama", NULL);
    m = opened(&g);
    assert_non_null(model_top(m)->embed);
    assert_ptr_equal(model_top(m)->output, model_top(m)->embed);
    model_close(m);
    gguf_close(g);

    make_model(&file, &mha, "llama", NULL);
    refused("tensor \"blk.0.attn_k.weight\": expected shape [8, 8]");
}

static void
wrong_keys(void **state)
{
    size_t i;
    char word[128];
    change_t c = {0};

    (void) state;

    for (i = 0; i < KEYS_N - 1; i++) {
        c.name = keys[i].key;
        c.value = 0;
        snprintf(word, sizeof(word), "key %s: ", c.name);
        make_model(&file, &c, "llama", NULL);
        refused(word);
        refused("found no such key");
        c.value = UINT32_MAX;
        make_model(&file, &c, "llama", NULL);
        refused(word);
    }

    c.name = "llama.attention.head_count_kv";
    c.value = 3;
    make_model(&file, &c, "llama", NULL);
    refused("divisor of 2, found 3");

    make_model(&file, NULL, "mamba", NULL);
    refused("found \"mamba\"");
    make_model(&file, NULL, "a\033b", NULL);
    refused("found \"a?b\"");
}

static void
wrong_tensors(void **state)
{
    size_t i;
    char word[128];
    change_t c = {0};

    (void) state;

    for (i = 0; i < TENSORS_N; i++) {
        c.name = tensors[i].name;
        snprintf(word, sizeof(word), "tensor \"%s\": expected ", c.name);

        if (strcmp(c.name, "output.weight") != 0) {
            c.d0 = 0;
            make_model(&file, &c, "llama", NULL);
            refused(word);
        }

        c.d0 = tensors[i].d0 + 1;
        c.d1 = tensors[i].d1;
        make_model(&file, &c, "llama", NULL);
        refused(word);
    }

    c.name = "blk.1.ffn_up.weight";
    c.d0 = 8;
    c.d1 = 6;
    c.type = 27; /* I64 */
    make_model(&file, &c, "llama", NULL);
    refused("TQ2_0, MXFP4, F8_E4M3, found I64");

    c.name = "output_norm.weight";
    c.d1 = 0;
    c.type = 27;
    make_model(&file, &c, "llama", NULL);
    refused("expected type F32, F16 or BF16, found I64");
}

static void
one_more_layer(void **state)
{
    change_t c = {"llama.block_count", 1, 0, 0, 0};

    (void) state;
    make_model(&file, &c, "llama", NULL);
    refused("tensor \"blk.1."); /* left over */
    c.value = 3;
    make_model(&file, &c, "llama", NULL);
    refused("tensor \"blk.2.attn_norm.weight\": expected one, found none");
}

static uint32_t
extra_text_base(make_t *f)
{
    make_pair_str(f, "llama.rope.freq_base", "many");
    return 1;
}

static uint32_t
extra_ntk(make_t *f)
{
    make_pair_str(f, "llama.rope.scaling.type", "ntk");
    return 1;
}

static uint32_t
extra_odd_dims(make_t *f)
{
    make_pair_u32(f, "llama.rope.dimension_count", 1);
    return 1;
}

static uint32_t
extra_nan(make_t *f)
{
    make_pair_f32(f, "llama.attention.layer_norm_rms_epsilon", NAN);
    return 1;
}

static uint32_t
extra_base(make_t *f)
{
    make_pair_f32(f, "llama.rope.freq_base", 500000);
    return 1;
}

static uint32_t
extra_linear(make_t *f)
{
    make_pair_str(f, "llama.rope.scaling.type", "linear");
    make_pair_f32(f, "llama.rope.scaling.factor", 4);
    return 2;
}

static uint32_t
extra_tokens(make_t *f)
{
    int i;

    make_str(f, "tokenizer.ggml.tokens");
    make_u32(f, GGUF_ARR);
    make_u32(f, GGUF_STR);
    make_u64(f, 11);

    for (i = 0; i < 11; i++) {
        make_str(f, "t");
    }
    return 1;
}

static void
extra_keys(void **state)
{
    gguf_t *g;
    model_t *m;
    double freq[2];

    (void) state;
    make_model(&file, NULL, "llama", extra_text_base);
    refused("key llama.rope.freq_base");
    make_model(&file, NULL, "llama", extra_ntk);
    refused("key llama.rope.scaling.type: expected none, default, linear");
    make_model(&file, NULL, "llama", extra_odd_dims);
    refused("key llama.rope.dimension_count: expected an even number up to 4");
    make_model(&file, NULL, "llama", extra_nan);
    refused("key llama.attention.layer_norm_rms_epsilon");
    make_model(&file, NULL, "llama", extra_tokens);
    refused("expected at most 10 tokens, found 11");

    make_model(&file, NULL, "llama", extra_base);
    m = opened(&g);
    model_rope_freqs(m, 0, 512, freq);
    assert_true(fabs(freq[1] - 1 / sqrt(500000)) < 1e-12);
    model_close(m);
    gguf_close(g);

    make_model(&file, NULL, "llama", extra_linear);
    m = opened(&g);
    model_rope_freqs(m, 0, 512, freq);
    assert_true(freq[0] == 0.25 && fabs(freq[1] - 0.0025) < 1e-12);
    model_close(m);
    gguf_close(g);
}

static void
null_model(void **state)
{
    model_t *m = model_open_null(300, 777);
    const tensor_t *t;

    (void) state;
    assert_non_null(m);
    assert_string_equal(model_info(m)->name, "null");
    assert_int_equal(model_info(m)->vocab, 300);
    assert_int_equal(model_info(m)->context, 777);
    t = model_top(m)->embed;
    assert_int_equal(t->dims[1], 300);
    assert_null(t->data);
    assert_non_null(model_layer(m, 0)->down);
    model_close(m);
}

static void
real_files(void **state)
{
    static const struct {
        const char *path, *name;
        uint32_t ffn, vocab;
    } files[] = {
        {"stories260K/stories260K", "stories260K", 172, 512},
        {"TinyStories-656K/TinyStories-656K-Q4_0", "TinyStories-656K-Q4_0", 384,
            2048},
        {"TinyStories-656K/TinyStories-656K-Q5_1", "TinyStories-656K-Q5_1", 384,
            2048},
    };
    size_t i;
    char path[512], err[512];
    const char *dir = getenv("LLM_DATA");
    gguf_t *g;
    model_t *m;

    (void) state;

    for (i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        snprintf(path, sizeof(path), "%s/models/%s.gguf",
            dir != NULL ? dir : "../shared/data", files[i].path);

        if (access(path, R_OK) != 0) {
            print_message("%s is not there\n", path);
            skip();
        }

        g = gguf_open(path, err, sizeof(err));
        assert_non_null(g);
        m = model_open_gguf(g, err, sizeof(err));

        assert_non_null(m);
        assert_string_equal(model_info(m)->name, files[i].name);
        assert_int_equal(model_info(m)->ffn, files[i].ffn);
        assert_int_equal(model_info(m)->vocab, files[i].vocab);
        assert_true(model_info(m)->created > 0);
        model_close(m);
        gguf_close(g);
    }
}

int
main(void)
{
    const struct CMUnitTest tests_list[] = {
        cmocka_unit_test(good),
        cmocka_unit_test(defaults),
        cmocka_unit_test(wrong_keys),
        cmocka_unit_test(wrong_tensors),
        cmocka_unit_test(one_more_layer),
        cmocka_unit_test(extra_keys),
        cmocka_unit_test(null_model),
        cmocka_unit_test(real_files),
    };

    return cmocka_run_group_tests(tests_list, NULL, NULL);
}
