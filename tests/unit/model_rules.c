/*
 * Would catch: a key of config.json that changes what is computed and is
 * ignored, or taken in a form that it has not; a layer that gets another's
 * window or angles; rotary scaling by a list of the wrong length.  The golden
 * checkpoints' configurations are changed a little and must be refused in a
 * sentence, or give other layers.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "model.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DIR "tests/data/models/"

/* A model of name's weights and its configuration, change put over it. */
static model_t *
open_changed(const char *name, const char *change, char *err, size_t errlen)
{
    char dir[] = "/tmp/rules.XXXXXX", path[256], weights[256], *real;
    json_t *j, *over;
    model_t *m;

    snprintf(path, sizeof(path), DIR "%s/config.json", name);
    j = json_load_file(path, 0, NULL);
    over = json_loads(change, 0, NULL);
    assert_non_null(j);
    assert_non_null(over);
    assert_int_equal(json_object_update(j, over), 0);

    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/config.json", dir);
    assert_int_equal(json_dump_file(j, path, 0), 0);
    snprintf(path, sizeof(path), DIR "%s/model.safetensors", name);
    real = realpath(path, NULL);
    assert_non_null(real);
    snprintf(weights, sizeof(weights), "%s/model.safetensors", dir);
    assert_int_equal(symlink(real, weights), 0);

    m = model_open(dir, err, errlen);
    snprintf(path, sizeof(path), "%s/config.json", dir);
    unlink(path);
    unlink(weights);
    rmdir(dir);
    free(real);
    json_decref(j);
    json_decref(over);

    return m;
}

/* What is changed in whose config.json, and words of the refusal. */
static const struct {
    const char *name, *change, *words;
} cases[] = {
    {"mistral", "{\"hidden_act\": \"relu\"}", "key hidden_act: expected silu"},
    {"gemma2", "{\"hidden_activation\": \"gelu\"}",
        "key hidden_activation: expected gelu_pytorch_tanh"},
    {"gemma3", "{\"use_bidirectional_attention\": true}",
        "key use_bidirectional_attention: expected false"},
    {"gemma2", "{\"query_pre_attn_scalar\": null}",
        "key query_pre_attn_scalar: expected a number above 0"},
    {"gemma2", "{\"attn_logit_softcapping\": -1}",
        "key attn_logit_softcapping: expected a number above 0"},
    {"gemma3", "{\"sliding_window\": null}", "key sliding_window"},
    {"gemma3", "{\"sliding_window\": 0}", "key sliding_window"},
    {"gemma3", "{\"sliding_window_pattern\": [1]}",
        "key sliding_window_pattern: expected a number"},
    {"granite", "{\"logits_scaling\": \"8\"}",
        "key logits_scaling: expected a number above 0"},
    {"granite", "{\"attention_multiplier\": 0}",
        "key attention_multiplier: expected a number above 0"},
    {"llama-linear", "{\"attention_bias\": false}",
        "key attention_bias: expected what the weights say"},
    {"llama-linear", "{\"mlp_bias\": false}",
        "key mlp_bias: expected what the weights say"},
    {"llama-llama3", "{\"attention_bias\": true}",
        "key attention_bias: expected what the weights say"},
    {"llama-llama3", "{\"attention_bias\": 1}",
        "key attention_bias: expected true or false"},
    {"qwen3-yarn", "{\"layer_types\": [\"full_attention\"]}",
        "key layer_types: expected a list of 2 elements, found 1"},
    {"qwen3-yarn", "{\"layer_types\": \"full_attention\"}",
        "key layer_types: expected a list of 2 elements, found 0"},
    {"qwen3-yarn",
        "{\"layer_types\": [\"full_attention\", \"linear_attention\"]}",
        "found linear_attention"},
    {"qwen3-yarn", "{\"layer_types\": [\"full_attention\", 7]}",
        "found something else"},
    {"qwen2", "{\"max_window_layers\": \"all\"}",
        "key max_window_layers: expected a number"},
    {"qwen2", "{\"use_sliding_window\": \"yes\"}",
        "key use_sliding_window: expected true or false"},
    {"smollm3", "{\"no_rope_layers\": [1, 1]}",
        "key no_rope_layers: expected a list of 4"},
    {"smollm3", "{\"no_rope_layers\": [1, 1, \"no\", 1]}",
        "key no_rope_layers: expected numbers"},
    {"smollm3", "{\"no_rope_layers\": null, \"no_rope_layer_interval\": 0}",
        "key no_rope_layer_interval: expected 1 to"},
    {"mistral", "{\"rope_scaling\": {\"type\": \"dynamic\"}}",
        "expected none, default, linear, llama3, yarn or longrope, found "
        "dynamic"},
    {"mistral", "{\"rope_scaling\": {\"type\": \"yarn\"}}",
        "key rope_scaling.factor"},
    {"llama-yarn", "{\"rope_theta\": 1}", "expected a base above 1"},
    {"qwen3-yarn",
        "{\"rope_parameters\": {\"rope_type\": \"yarn\", \"factor\": 2,"
        " \"beta_fast\": 1, \"beta_slow\": 2}}",
        "beta_fast above beta_slow"},
    {"phi3-long", "{\"partial_rotary_factor\": 1.5}",
        "key partial_rotary_factor: expected a part"},
    {"phi3-long", "{\"partial_rotary_factor\": 0.1}",
        "expected an even number"},
    {"phi3-long", "{\"original_max_position_embeddings\": null}",
        "original_max_position_embeddings: expected a number"},
    {"phi3-long",
        "{\"rope_scaling\": {\"type\": \"su\", \"short_factor\": [1]}}",
        "key rope_scaling.short_factor: expected a list of 6 numbers, "
        "found 1"},
    {"phi3-long",
        "{\"rope_scaling\": {\"type\": \"longrope\", \"short_factor\":"
        " [1, 1, 1, 1, 1, 1], \"long_factor\": [1, 1, 1, 1, 1, 0]}}",
        "key rope_scaling.long_factor: expected numbers above 0"},
    {"phi3-long", "{\"num_key_value_heads\": 3}",
        "qkv_proj.weight\": expected shape [72, 144], found [72, 120"},
    {"qwen3", "{\"head_dim\": 9}", "expected"},
    {"mixtral", "{\"num_local_experts\": 6}",
        "block_sparse_moe.gate.weight\": expected shape [48, 6], found"},
    {"mixtral", "{\"num_local_experts\": 0}",
        "key num_local_experts: expected 1 to 1024, found 0"},
    {"mixtral", "{\"num_experts_per_tok\": 6}",
        "key num_experts_per_tok: expected 1 to 5, found 6"},
    {"mixtral", "{\"residual_multiplier\": 0.5}",
        "key residual_multiplier: expected 1"},
    {"qwen3-moe", "{\"mlp_only_layers\": [1]}",
        "key mlp_only_layers: expected no layers"},
    {"qwen3-moe", "{\"decoder_sparse_step\": 2}",
        "key decoder_sparse_step: expected 1 to 1, found 2"},
    {"qwen3-moe", "{\"moe_intermediate_size\": 24}",
        "experts.0.gate_proj.weight\": expected shape [48, 24], found"},
    {"gpt-oss", "{\"hidden_act\": \"gelu\"}",
        "key hidden_act: expected silu, as nothing else is built for the "
        "gpt_oss family, found gelu"},
    {"gpt-oss", "{\"attention_bias\": false}",
        "key attention_bias: expected true"},
    {"gpt-oss", "{\"swiglu_alpha\": 1.5}",
        "key swiglu_alpha: expected 1.702, found 1.5"},
    {"gpt-oss", "{\"swiglu_limit\": 0}",
        "key swiglu_limit: expected a number above 0"},
    {"gpt-oss", "{\"num_local_experts\": 6}",
        "mlp.router.weight\": expected shape [72, 6], found"},
    {"gpt-oss", "{\"intermediate_size\": 24}",
        "mlp.experts.gate_up_proj\": expected shape [48, 72, 5], found [44"},
    {"gpt-oss-mxfp4", "{\"intermediate_size\": 64}",
        "mlp.experts.gate_up_proj\": expected shape [64, 128, 7], found [64, "
        "192, 7"},
    {"gpt-oss-mxfp4", "{\"quantization_config\": null}",
        "mlp.experts.gate_up_proj\": expected one, found none"},
    {"gpt-oss-mxfp4", "{\"quantization_config\": {\"quant_method\": \"awq\"}}",
        "quant_method: expected none, mxfp4 or fp8"},
    {"gpt-oss", "{\"layer_types\": [\"sliding_attention\", 1, 2]}",
        "key layer_types: expected full_attention or sliding_attention"},
    {"olmo2", "{\"model_type\": \"llama\"}",
        "key architectures: expected LlamaForCausalLM"},
};

static void
refused(void **state)
{
    size_t i;
    char err[1024];
    model_t *m;

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        err[0] = '\0';
        m = open_changed(cases[i].name, cases[i].change, err, sizeof(err));

        if (m != NULL || strstr(err, cases[i].words) == NULL) {
            fail_msg("%s with %s: \"%s\" lacks \"%s\"", cases[i].name,
                cases[i].change, err, cases[i].words);
        }
    }
}

/* What the layers of a changed model have, "window/angles" of each. */
static void
layers_are(const char *name, const char *change, const char *expected)
{
    char err[1024] = "", got[256] = "";
    size_t at = 0;
    uint32_t i;
    const model_layer_t *l;
    model_t *m = open_changed(name, change, err, sizeof(err));

    if (m == NULL) {
        fail_msg("%s with %s: %s", name, change, err);
    }

    for (i = 0; i < model_info(m)->layers; i++) {
        l = model_layer(m, i);
        at += (size_t) snprintf(got + at, sizeof(got) - at, "%s%u/%c",
            i > 0 ? " " : "", l->window,
            l->rope < MODEL_ROPES_MAX ? (char) ('0' + l->rope) : '-');
    }

    assert_string_equal(got, expected);
    model_close(m);
}

static void
layers(void **state)
{
    (void) state;
    layers_are("llama-llama3", "{}", "0/0 0/0 0/0");
    layers_are("llama-llama3", "{\"sliding_window\": 9}", "0/0 0/0 0/0");
    layers_are("mistral", "{}", "33/0 33/0 33/0");
    layers_are("mistral", "{\"sliding_window\": null}", "0/0 0/0 0/0");
    layers_are("gemma2", "{}", "32/0 0/0 32/0 0/0");
    layers_are("gemma3", "{}", "47/1 47/1 0/0 47/1");
    layers_are(
        "gemma3", "{\"sliding_window_pattern\": 2}", "47/1 0/0 47/1 0/0");
    layers_are(
        "gemma3", "{\"sliding_window_pattern\": null}", "47/1 47/1 47/1 47/1");
    layers_are("gemma3",
        "{\"layer_types\": [\"full_attention\", \"sliding_attention\","
        " \"sliding_attention\", \"full_attention\"]}",
        "0/0 47/1 47/1 0/0");
    layers_are("qwen2", "{}", "0/0 0/0");
    layers_are("qwen2",
        "{\"use_sliding_window\": true, \"max_window_layers\": 1}", "0/0 64/0");
    layers_are("qwen2",
        "{\"use_sliding_window\": true, \"max_window_layers\": 0}",
        "64/0 64/0");
    layers_are("gpt-oss", "{}", "33/0 0/0 33/0");
    layers_are("gpt-oss", "{\"layer_types\": null}", "33/0 0/0 33/0");
    layers_are("smollm3", "{}", "0/0 0/0 0/0 0/-");
    layers_are(
        "smollm3", "{\"no_rope_layers\": [0, 1, 0, 1]}", "0/- 0/0 0/- 0/0");
    layers_are("smollm3",
        "{\"no_rope_layers\": null, \"no_rope_layer_interval\": 2}",
        "0/0 0/- 0/0 0/-");
}

/* LongRoPE's list is chosen by the longest sequence that is served. */
static void
long_and_short(void **state)
{
    char err[1024] = "";
    double near[6], far[6], scale;
    model_t *m = open_changed("phi3-long", "{}", err, sizeof(err));

    (void) state;
    assert_non_null(m);
    scale = model_rope_freqs(m, 0, 128, near);
    assert_true(scale == model_rope_freqs(m, 0, 129, far));
    assert_true(fabs(scale - sqrt(1 + log(4) / log(128))) < 1e-6);
    assert_true(fabs(near[5] / far[5] - 16.2 / 1.9) < 1e-5);
    assert_true(near[0] == 1 && far[0] == 1);
    model_close(m);
}

/* The numbers that families compute with, against their makers' formulas. */
static void
numbers(void **state)
{
    char err[1024] = "";
    model_t *m;
    const model_info_t *info;

    (void) state;
    m = open_changed("gemma3", "{}", err, sizeof(err));
    assert_non_null(m);
    info = model_info(m);
    assert_true(info->gelu && info->norm_offset == 1 && info->ropes == 2);
    assert_true(fabs(info->embed_scale - sqrt(72)) < 1e-5);
    assert_true(fabs(info->attn_scale - 1 / sqrt(19)) < 1e-6);
    assert_true(info->attn_cap == 0 && info->logit_cap == 0);
    model_close(m);

    m = open_changed("granite", "{}", err, sizeof(err));
    assert_non_null(m);
    info = model_info(m);
    assert_true(!info->gelu && info->norm_offset == 0);
    assert_true(fabs(info->logit_scale - 1 / 3.0) < 1e-6);
    assert_true(fabs(info->residual_scale - 0.31) < 1e-6);
    assert_true(fabs(info->attn_scale - 0.19) < 1e-6);
    model_close(m);

    m = model_open(DIR "gemma2/model.gguf", err, sizeof(err));
    assert_non_null(m);
    info = model_info(m);
    assert_true(info->norm_offset == 0 && info->rope_halves);
    assert_true(info->attn_cap == 3 && info->logit_cap == 2.5f);
    model_close(m);

    m = model_open(DIR "smollm3/model.gguf", err, sizeof(err));
    assert_non_null(m);
    assert_true(!model_info(m)->rope_halves);
    model_close(m);
}

/* xorshift: the same mutations on every run */
static uint32_t
rnd(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;

    return (uint32_t) (*s >> 32);
}

static unsigned
touch(const tensor_t *t)
{
    return t == NULL || t->size == 0 ? 0 : t->data[0] + t->data[t->size - 1];
}

/* The first and last byte of what is a view or one of many. */
static unsigned
touch_layers(const model_t *m)
{
    uint32_t i, e;
    unsigned sum = 0;
    const model_layer_t *l;

    for (i = 0; i < model_info(m)->layers; i++) {
        l = model_layer(m, i);
        sum += touch(l->q) + touch(l->k) + touch(l->v) + touch(l->o);
        sum += touch(l->gate) + touch(l->up) + touch(l->down);

        for (e = 0; e < model_info(m)->experts; e++) {
            sum += touch(l->experts_gate[e]) + touch(l->experts_up[e]);
            sum += touch(l->experts_down[e]);
        }
    }

    return sum;
}

/* A file with some bits turned over where keys and shapes are. */
static void
mutated(void **state)
{
    static const char *const names[] = {"gemma2", "phi3-long", "smollm3",
        "qwen2-moe", "qwen3-moe", "gpt-oss-mxfp4"};
    char path[256], err[1024];
    uint8_t *bytes;
    uint32_t i, j, n, at[8], opened = 0, refused_n = 0;
    uint64_t seed = 88172645463325252ull;
    size_t k, len;
    unsigned sum = 0;
    double freqs[256];
    FILE *f;
    gguf_t *g;
    model_t *m;

    (void) state;

    for (k = 0; k < sizeof(names) / sizeof(names[0]); k++) {
        snprintf(path, sizeof(path), DIR "%s/model.gguf", names[k]);
        f = fopen(path, "rb");
        assert_non_null(f);
        bytes = malloc(1 << 20);
        assert_non_null(bytes);
        len = fread(bytes, 1, 1 << 20, f);
        fclose(f);

        for (i = 0; i < 400; i++) {
            n = 1 + rnd(&seed) % 8;

            for (j = 0; j < n; j++) {
                at[j] = rnd(&seed) % 4096;
                bytes[at[j]] ^= (uint8_t) (1 << j);
            }

            err[0] = '\0';
            g = gguf_open_mem(bytes, len, "x.gguf", err, sizeof(err));
            m = g == NULL ? NULL : model_open_gguf(g, err, sizeof(err));

            if (m != NULL) {
                sum += touch_layers(m);
                sum += model_rope_freqs(m, 0, 512, freqs) > 0;
                opened++;
                model_close(m);
            } else {
                assert_true(err[0] != '\0');
                refused_n++;
            }

            gguf_close(g);

            while (j-- > 0) {
                bytes[at[j]] ^= (uint8_t) (1 << j);
            }
        }

        free(bytes);
    }

    print_message("%u opened, %u refused (%u)\n", opened, refused_n, sum);
    assert_true(opened > 20 && refused_n > 200);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refused),
        cmocka_unit_test(layers),
        cmocka_unit_test(long_and_short),
        cmocka_unit_test(numbers),
        cmocka_unit_test(mutated),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
