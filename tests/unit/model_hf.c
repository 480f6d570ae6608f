/*
 * Would catch: a default of config.json that is not the family's; a key that
 * would change what is computed and is ignored; a class, quantisation or
 * scaling that nobody has built and that is run all the same; tied embeddings
 * taken from the wrong name; a broken file that ends in anything but one
 * sentence.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "model.h"
#include "safetensors_make.h"

#include <math.h>
#include <sys/stat.h>

/* Two layers of 8, two heads of 4 over one for keys, 6 within, 10 words. */
#define BASE                                                                   \
    "\"model_type\":\"llama\",\"architectures\":[\"LlamaForCausalLM\"],"       \
    "\"num_hidden_layers\":2,\"hidden_size\":8,\"intermediate_size\":6,"       \
    "\"max_position_embeddings\":64,\"num_attention_heads\":2,"                \
    "\"num_key_value_heads\":1,\"vocab_size\":10"
#define CONFIG "{" BASE "}"

static const struct {
    const char *name;
    uint32_t rows, row;
} tensors[] = {
    {"lm_head.weight", 10, 8},
    {"model.embed_tokens.weight", 10, 8},
    {"model.norm.weight", 0, 8},
#define LAYER(n)                                                               \
    {"model.layers." n ".input_layernorm.weight", 0, 8},                       \
        {"model.layers." n ".mlp.down_proj.weight", 8, 6},                     \
        {"model.layers." n ".mlp.gate_proj.weight", 6, 8},                     \
        {"model.layers." n ".mlp.up_proj.weight", 6, 8},                       \
        {"model.layers." n ".post_attention_layernorm.weight", 0, 8},          \
        {"model.layers." n ".self_attn.k_proj.weight", 4, 8},                  \
        {"model.layers." n ".self_attn.o_proj.weight", 8, 8},                  \
        {"model.layers." n ".self_attn.q_proj.weight", 8, 8},                  \
    {                                                                          \
        "model.layers." n ".self_attn.v_proj.weight", 4, 8                     \
    }
    LAYER("0"),
    LAYER("1"),
#undef LAYER
    {"model.layers.1.self_attn.rotary_emb.inv_freq", 0, 2},
};

#define TENSORS_N (sizeof(tensors) / sizeof(tensors[0]))

/* A tensor that differs from the good model's; with rows 99 it is left out. */
typedef struct {
    const char *name;
    uint32_t rows, row;
    const char *dtype;
} change_t;

static make_st_t file;

/* Appends a tensor to the header; its bytes in all. */
static size_t
add(char *header, size_t size, const char *name, uint32_t rows, uint32_t row,
    const char *dtype, size_t at)
{
    size_t n = strlen(header);
    size_t bytes = strcmp(dtype, "F32") == 0      ? 4
                   : strncmp(dtype, "F8", 2) == 0 ? 1
                   : strcmp(dtype, "I64") == 0    ? 8
                                                  : 2;
    char shape[32];

    bytes *= (size_t) row * (rows == 0 ? 1 : rows);
    snprintf(shape, sizeof(shape), rows == 0 ? "[%u]" : "[%u,%u]",
        rows == 0 ? row : rows, row);
    snprintf(header + n, size - n,
        "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
        n > 1 ? "," : "", name, dtype, shape, at, at + bytes);
    return bytes;
}

/* The good model in dir, but for config and change; out names one tensor. */
static void
make_model(
    const char *dir, const char *config, const change_t *c, const char *out)
{
    size_t i, at = 0;
    char header[16384] = "{";

    for (i = 0; i < TENSORS_N; i++) {
        if (out != NULL && strcmp(tensors[i].name, out) == 0) {
            continue;
        }

        if (c != NULL && strcmp(tensors[i].name, c->name) == 0) {
            at += c->rows == 99 ? 0
                                : add(header, sizeof(header), c->name, c->rows,
                                    c->row, c->dtype, at);
        } else {
            at += add(header, sizeof(header), tensors[i].name, tensors[i].rows,
                tensors[i].row, i % 2 ? "BF16" : "F32", at);
        }
    }

    strcat(header, "}");
    make_st(&file, header, at);
    make_file(dir, "model.safetensors", file.p, file.len);
    make_text(dir, "config.json", config);
}

static int
set_up(void **state)
{
    *state = make_dir();
    return 0;
}

static int
tear_down(void **state)
{
    make_gone(*state, "model.safetensors");
    make_gone(*state, "config.json");
    make_gone(*state, "generation_config.json");
    assert_int_equal(rmdir(*state), 0);
    free(*state);
    return 0;
}

static model_t *
opened(const char *dir)
{
    char err[512];
    model_t *m = model_open(dir, err, sizeof(err));

    if (m == NULL) {
        fail_msg("%s", err);
    }

    return m;
}

/* What is in dir must be refused: a sentence of file with word in it. */
static void
refused(const char *dir, const char *name, const char *word)
{
    char err[512] = "", start[512];
    model_t *m = model_open(dir, err, sizeof(err));

    snprintf(start, sizeof(start), "%s/%s: ", dir, name);

    if (m != NULL || strncmp(err, start, strlen(start)) != 0
        || strstr(err, word) == NULL || strstr(err, "expected") == NULL
        || strstr(err, "found") == NULL) {
        fail_msg("\"%s\" lacks \"%s\" or \"%s\"", err, start, word);
    }
}

static void
good(void **state)
{
    const char *dir = *state;
    char path[512];
    model_t *m;
    const model_info_t *info;
    double freq[2];

    make_model(dir, CONFIG, NULL, NULL);
    m = opened(dir);
    info = model_info(m);
    assert_string_equal(info->name, strrchr(dir, '/') + 1);
    assert_string_equal(info->arch, "llama");
    assert_int_equal(info->layers, 2);
    assert_int_equal(info->hidden, 8);
    assert_int_equal(info->heads, 2);
    assert_int_equal(info->kv_heads, 1);
    assert_int_equal(info->head_dim, 4);
    assert_int_equal(info->rope_dims, 4);
    assert_int_equal(info->rope_halves, 1);
    assert_int_equal(info->ffn, 6);
    assert_int_equal(info->vocab, 10);
    assert_int_equal(info->context, 64);
    assert_true(info->created > 0);
    model_rope_freqs(m, 0, 64, freq);
    assert_true(freq[0] == 1.0 && fabs(freq[1] - 0.01) < 1e-12);
    assert_ptr_not_equal(model_top(m)->output, model_top(m)->embed);
    assert_int_equal(model_layer(m, 1)->down->dims[0], 6);
    assert_string_equal(model_dir(m), dir);
    assert_null(model_gguf(m));
    model_close(m);

    /* a file of it, and a path with slashes, are the same */
    snprintf(path, sizeof(path), "%s/model.safetensors", dir);
    m = opened(path);
    assert_string_equal(model_dir(m), dir);
    model_close(m);
    snprintf(path, sizeof(path), "%s/config.json", dir);
    m = opened(path);
    assert_string_equal(model_info(m)->name, strrchr(dir, '/') + 1);
    model_close(m);
    snprintf(path, sizeof(path), "%s///", dir);
    m = opened(path);
    assert_string_equal(model_info(m)->name, strrchr(dir, '/') + 1);
    model_close(m);
    snprintf(path, sizeof(path), "%s/.", dir);
    m = opened(path);
    assert_string_equal(model_info(m)->name, strrchr(dir, '/') + 1);
    model_close(m);
}

static void
tied(void **state)
{
    const char *dir = *state;
    model_t *m;
    uint64_t bytes;
    static const char config[] = "{" BASE ",\"tie_word_embeddings\":true}";

    make_model(dir, CONFIG, NULL, NULL);
    m = opened(dir);
    bytes = model_info(m)->weight_bytes;
    model_close(m);

    /* of both, that of the input counts: it is BF16, the other F32 */
    make_model(dir, config, NULL, NULL);
    m = opened(dir);
    assert_int_equal(model_top(m)->embed->type, TENSOR_BF16);
    assert_ptr_equal(model_top(m)->output, model_top(m)->embed);
    assert_int_equal(bytes - model_info(m)->weight_bytes, 10 * 8 * 4);
    model_close(m);

    make_model(dir, config, NULL, "lm_head.weight");
    m = opened(dir);
    assert_ptr_equal(model_top(m)->output, model_top(m)->embed);
    model_close(m);

    make_model(dir, config, NULL, "model.embed_tokens.weight");
    m = opened(dir);
    assert_non_null(model_top(m)->embed);
    assert_ptr_equal(model_top(m)->output, model_top(m)->embed);
    model_close(m);

    make_model(dir, CONFIG, NULL, "lm_head.weight");
    refused(dir, "model.safetensors", "\"lm_head.weight\": expected one");
    make_model(dir, CONFIG, NULL, "model.embed_tokens.weight");
    refused(dir, "model.safetensors",
        "\"model.embed_tokens.weight\": expected one");
}

static void
wrong_keys(void **state)
{
    static const struct {
        const char *more, *word;
    } list[] = {
        {",\"head_dim\":3", "model.safetensors"}, /* odd */
        {",\"head_dim\":\"x\"", "key head_dim: expected a number from 1"},
        {",\"rms_norm_eps\":0", "key rms_norm_eps: expected a number above 0"},
        {",\"rms_norm_eps\":1e300", "key rms_norm_eps"},
        {",\"rope_theta\":-1", "key rope_theta: expected a number above 0"},
        {",\"rope_parameters\":{\"rope_theta\":[]}",
            "key rope_parameters.rope_theta"},
        {",\"hidden_act\":\"gelu\"", "key hidden_act: expected silu"},
        {",\"hidden_act\":[]", "key hidden_act: expected silu"},
        {",\"attention_bias\":true",
            "key attention_bias: expected what the weights say"},
        {",\"mlp_bias\":true", "key mlp_bias: expected what the weights say"},
        {",\"tie_word_embeddings\":1", "expected true or false"},
        {",\"rope_scaling\":{\"type\":\"dynamic\"}",
            "key rope_scaling.type: expected none, default, linear, llama3"},
        {",\"rope_scaling\":{\"rope_type\":\"llama3\"}",
            "key rope_scaling.factor: expected a number above 0, found no"},
        {",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,"
         "\"low_freq_factor\":4,\"high_freq_factor\":4,"
         "\"original_max_position_embeddings\":8192}",
            "key rope_scaling.high_freq_factor: expected a number above"},
        {",\"quantization_config\":{\"quant_method\":\"gptq\"}",
            "key quantization_config.quant_method: expected none, mxfp4 or "},
        {",\"vocab_size\":11", "JSON object"}, /* a key twice */
    };
    size_t i;
    char config[2048];

    for (i = 1; i < sizeof(list) / sizeof(list[0]); i++) {
        snprintf(config, sizeof(config), "{" BASE "%s}", list[i].more);
        make_model(*state, config, NULL, NULL);
        refused(*state, "config.json", list[i].word);
    }

    snprintf(config, sizeof(config), "{" BASE "%s}", list[0].more);
    make_model(*state, config, NULL, NULL);
    refused(*state, "config.json", "even number up to 3");
}

/* The number of a required key is left out, too large, and no number. */
static void
required_keys(void **state)
{
    static const char *const keys[] = {"num_hidden_layers", "hidden_size",
        "intermediate_size", "max_position_embeddings", "num_attention_heads"};
    static const char *const values[] = {
        "null", "0", "-1", "99999999", "1e2", "\"2\"", "99999999999999999999"};
    size_t i, k;
    char config[2048], word[128], *at;

    for (i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        for (k = 0; k < sizeof(values) / sizeof(values[0]); k++) {
            snprintf(word, sizeof(word), "\"%s\":", keys[i]);
            snprintf(config, sizeof(config), "%s", CONFIG);
            at = strstr(config, word) + strlen(word);
            snprintf(at, sizeof(config) - (size_t) (at - config), "%s%s",
                values[k],
                strstr(CONFIG, word) + strlen(word)
                    + strcspn(strstr(CONFIG, word) + strlen(word), ","));
            make_model(*state, config, NULL, NULL);
            snprintf(word, sizeof(word), "key %s: expected ", keys[i]);
            refused(*state, "config.json",
                values[k][0] == '9' && k == 6 ? "JSON object" : word);
        }
    }
}

static void
what_it_is(void **state)
{
    static const struct {
        const char *config, *word;
    } list[] = {
        {"{\"model_type\":\"mamba\"}", "olmo2), found \"mamba\""},
        {"{\"model_type\":\"a\\u001bb\"}", "found \"a?b\""},
        {"{\"model_type\":7}", "found \"\""},
        {"{}", "key model_type"},
        {"[]", "a JSON object"},
        {"", "a JSON object"},
        {"{", "a JSON object"},
        {"{\"model_type\":\"llama\",\"architectures\":["
         "\"LlamaForSequenceClassification\"]}",
            "expected LlamaForCausalLM, found "
            "\"LlamaForSequenceClassification\""},
        {"{\"model_type\":\"llama\",\"architectures\":[7]}",
            "key architectures"},
    };
    size_t i;
    char err[512];

    for (i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
        make_model(*state, list[i].config, NULL, NULL);
        refused(*state, "config.json", list[i].word);
    }

    make_gone(*state, "config.json");
    refused(*state, "config.json", "found none");
    make_model(*state, CONFIG, NULL, NULL);
    make_gone(*state, "model.safetensors");
    assert_null(model_open(*state, err, sizeof(err)));
    assert_non_null(strstr(err, "found neither"));
}

static void
wrong_tensors(void **state)
{
    size_t i;
    char word[128];
    change_t c = {0};

    for (i = 2; i < TENSORS_N; i++) {
        if (strstr(tensors[i].name, "inv_freq") != NULL) {
            continue;
        }

        c.name = tensors[i].name;
        snprintf(word, sizeof(word), "tensor \"%s\": expected ", c.name);
        make_model(*state, CONFIG, NULL, c.name);
        refused(*state, "model.safetensors", word);
        c.rows = tensors[i].rows;
        c.row = tensors[i].row + 1;
        c.dtype = "F16";
        make_model(*state, CONFIG, &c, NULL);
        refused(*state, "model.safetensors", word);
        c.row = tensors[i].row;
        c.dtype = "I64";
        make_model(*state, CONFIG, &c, NULL);
        refused(*state, "model.safetensors", word);
        refused(*state, "model.safetensors", "found I64");
    }

    /* a norm is not quantised, and what is left over is not left out */
    c.name = "model.norm.weight";
    c.rows = 0;
    c.row = 8;
    c.dtype = "F8_E4M3";
    make_model(*state, CONFIG, &c, NULL);
    refused(*state, "model.safetensors", "found F8_E4M3");
    make_model(*state,
        "{\"model_type\":\"llama\",\"num_hidden_layers\":1,\"hidden_size\":8,"
        "\"intermediate_size\":6,\"max_position_embeddings\":64,"
        "\"num_attention_heads\":2,\"num_key_value_heads\":1}",
        NULL, NULL);
    refused(*state, "model.safetensors", "\"model.layers.1.");
}

static double
ends_of(const char *dir, const char *config, const char *generation)
{
    uint32_t i;
    double sum = 0;
    model_t *m;

    make_model(dir, config, NULL, NULL);
    make_gone(dir, "generation_config.json");

    if (generation != NULL) {
        make_text(dir, "generation_config.json", generation);
    }

    m = opened(dir);

    for (i = 0; i < model_info(m)->ends_n; i++) {
        sum += pow(100, i) * model_info(m)->ends[i];
    }

    model_close(m);
    return sum;
}

static void
ends(void **state)
{
    static const char one[] = "{" BASE ",\"eos_token_id\":7}";

    assert_true(ends_of(*state, CONFIG, NULL) == 0);
    assert_true(ends_of(*state, one, NULL) == 7);
    assert_true(ends_of(*state, one, "{\"eos_token_id\":[2,3]}") == 302);
    assert_true(ends_of(*state, one, "{\"eos_token_id\":null}") == 7);
    assert_true(
        ends_of(*state, one, "{\"eos_token_id\":[10,-1,9,\"x\"]}") == 9);
    make_text(*state, "generation_config.json", "{");
    refused(*state, "generation_config.json", "a JSON object");
}

/* The published formula, in the order that it is published in. */
static double
llama3(double f, double factor, double low, double high, double original)
{
    double wave = 2 * M_PI / f, smooth;

    if (wave < original / high) {
        return f;
    }

    if (wave > original / low) {
        return f / factor;
    }

    smooth = (original / wave - low) / (high - low);
    return (1 - smooth) * f / factor + smooth * f;
}

static void
rope(void **state)
{
    double freq[32], f;
    uint32_t i, kinds[3] = {0};
    model_t *m;
    change_t q = {"model.layers.0.self_attn.q_proj.weight", 8, 8, "F32"};

    make_model(*state,
        "{" BASE ",\"rope_theta\":500000.0,\"rope_scaling\":"
        "{\"type\":\"linear\",\"factor\":4.0}}",
        &q, NULL);
    m = opened(*state);
    model_rope_freqs(m, 0, 64, freq);
    assert_true(freq[0] == 0.25);
    assert_true(fabs(freq[1] - 0.25 / sqrt(500000)) < 1e-12);
    model_close(m);

    /* one angle of each kind: 1 rad, 0.1, 0.01 and so on a token */
    for (i = 0; i < 2; i++) {
        char config[2048];
        double original = i == 0 ? 256 : 2500;

        snprintf(config, sizeof(config),
            "{" BASE ",\"rope_theta\":10000,\"rope_scaling\":{\"rope_type\":"
            "\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,"
            "\"high_freq_factor\":4.0,"
            "\"original_max_position_embeddings\":%.0f}}",
            original);
        make_model(*state, config, NULL, NULL);
        m = opened(*state);
        model_rope_freqs(m, 0, 64, freq);

        for (f = 1; f > 0.001; f *= 0.01) {
            double want = llama3(f, 8, 1, 4, original);

            assert_true(fabs(freq[f < 1] - want) < 1e-15);
            kinds[want == f ? 0 : want == f / 8 ? 1 : 2]++;
        }

        model_close(m);
    }

    assert_true(kinds[0] > 0 && kinds[1] > 0 && kinds[2] > 0);
}

static uint64_t
next_random(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return *x;
}

#define FP8                                                                    \
    "{" BASE ",\"quantization_config\":{\"quant_method\":\"fp8\","             \
    "\"fmt\":\"e4m3\",\"weight_block_size\":[128,%u]}}"

/* The good model with one matrix in F8; factors of this shape and dtype. */
static void
make_fp8(const char *dir, uint32_t block, const char *scale, uint32_t rows,
    const char *dtype)
{
    static const char name[] = "model.layers.0.mlp.up_proj.weight";
    size_t i, at = 0;
    char header[16384] = "{", config[2048];

    for (i = 0; i < TENSORS_N; i++) {
        at += add(header, sizeof(header), tensors[i].name, tensors[i].rows,
            tensors[i].row,
            strcmp(tensors[i].name, name) == 0 ? "F8_E4M3" : "F32", at);
    }

    if (scale != NULL) {
        at += add(header, sizeof(header), scale, rows, 1, dtype, at);
    }

    strcat(header, "}");
    make_st(&file, header, at);
    make_file(dir, "model.safetensors", file.p, file.len);
    snprintf(config, sizeof(config), FP8, block);
    make_text(dir, "config.json", config);
}

static void
fp8(void **state)
{
    static const char scale[] = "model.layers.0.mlp.up_proj.weight_scale_inv";
    const tensor_t *t;
    model_t *m;

    make_fp8(*state, 128, scale, 1, "F32");
    m = opened(*state);
    t = model_layer(m, 0)->up;
    assert_int_equal(t->type, TENSOR_F8_E4M3);
    assert_non_null(tensor_scale(t));
    assert_int_equal(tensor_scale(t)->size, 4);
    assert_null(tensor_scale(model_layer(m, 0)->gate));
    model_close(m);

    make_fp8(*state, 64, scale, 1, "F32");
    refused(*state, "config.json", "found fp8 of another form");
    make_fp8(*state, 128, NULL, 0, "");
    refused(*state, "model.safetensors", "_scale_inv beside it");
    make_fp8(*state, 128, scale, 2, "F32");
    refused(*state, "model.safetensors", "found another type or shape");
    make_fp8(*state, 128, scale, 1, "F16");
    refused(*state, "model.safetensors", "found another type or shape");

    /* factors that are of no such weight are left over */
    make_fp8(*state, 128, scale, 1, "F32");
    make_text(*state, "config.json", CONFIG);
    refused(*state, "model.safetensors", "weight_scale_inv\": expected only");
}

/* The same model in two files, cut in the middle of a layer. */
static void
sharded(void **state)
{
    const char *dir = *state;
    char header[2][16384] = {"{", "{"}, index[16384] = "{\"weight_map\":{";
    char name[64], from[128];
    size_t i, k, at[2] = {0, 0};
    model_t *m;

    make_model(dir, CONFIG, NULL, NULL);
    make_gone(dir, "model.safetensors");

    for (i = 0; i < TENSORS_N; i++) {
        k = i >= TENSORS_N / 2;
        at[k] += add(header[k], sizeof(header[k]), tensors[i].name,
            tensors[i].rows, tensors[i].row, "F16", at[k]);
        snprintf(index + strlen(index), sizeof(index) - strlen(index),
            "%s\"%s\":\"part%zu.safetensors\"", i > 0 ? "," : "",
            tensors[i].name, k);
    }

    strcat(index, "}}");
    make_text(dir, "model.safetensors.index.json", index);

    for (k = 0; k < 2; k++) {
        strcat(header[k], "}");
        make_st(&file, header[k], at[k]);
        snprintf(name, sizeof(name), "part%zu.safetensors", k);
        make_file(dir, name, file.p, file.len);
    }

    m = opened(dir);
    model_container(m, from, sizeof(from));
    assert_string_equal(from, "safetensors, 2 files");
    assert_int_equal(model_top(m)->embed->type, TENSOR_F16);
    assert_non_null(model_layer(m, 1)->v);
    model_close(m);

    make_gone(dir, "part1.safetensors");
    refused(dir, "part1.safetensors", "open: expected a readable file");
    make_gone(dir, "part0.safetensors");
    make_gone(dir, "model.safetensors.index.json");
}

/* A thousand broken copies of each file: one sentence, or a sound model. */
static void
broken_files(void **state)
{
    static const char *const names[] = {
        "config.json", "model.safetensors", "generation_config.json"};
    uint64_t x = 0x9e3779b97f4a7c15ull;
    uint32_t i, k, j, refusals;
    char err[512], path[512];
    static uint8_t was[1 << 16], now[1 << 16];
    size_t n, cut;
    FILE *f;
    model_t *m;

    make_model(*state, CONFIG, NULL, NULL);
    make_text(*state, "generation_config.json", "{\"eos_token_id\":[2,3]}");

    for (i = 0; i < 3; i++) {
        snprintf(path, sizeof(path), "%s/%s", (const char *) *state, names[i]);
        f = fopen(path, "rb");
        assert_non_null(f);
        n = fread(was, 1, sizeof(was), f);
        fclose(f);

        for (k = 0, refusals = 0; k < 1000; k++) {
            memcpy(now, was, n);
            cut = k % 2 ? n : next_random(&x) % n;

            for (j = 0; k % 2 && j <= k % 5; j++) {
                now[next_random(&x) % n] ^=
                    (uint8_t) (1 << next_random(&x) % 8);
            }

            make_file(*state, names[i], now, cut);
            err[0] = '\0';
            m = model_open(*state, err, sizeof(err));

            if (m == NULL) {
                refusals++;
                assert_int_equal(
                    strncmp(err, *state, strlen((const char *) *state)), 0);
            }

            model_close(m);
        }

        make_file(*state, names[i], was, n);
        assert_true(refusals >= 500);
    }
}

static void
real_one(void **state)
{
    char path[512], err[512];
    const char *data = getenv("LLM_DATA");
    const model_info_t *info;
    model_t *m;

    (void) state;
    snprintf(path, sizeof(path), "%s/models/TinyStories-656K",
        data != NULL ? data : "../shared/data");

    if (access(path, R_OK) != 0) {
        print_message("%s is not there\n", path);
        skip();
    }

    m = model_open(path, err, sizeof(err));
    assert_non_null(m);
    info = model_info(m);
    assert_string_equal(info->name, "TinyStories-656K");
    assert_int_equal(info->vocab, 2048);
    assert_int_equal(info->kv_heads, 4);
    assert_int_equal(info->ends_n, 1);
    assert_int_equal(info->ends[0], 2);
    assert_true(info->eps == 1e-6f);
    model_close(m);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
        TEST(good),
        TEST(tied),
        TEST(wrong_keys),
        TEST(required_keys),
        TEST(what_it_is),
        TEST(wrong_tensors),
        TEST(ends),
        TEST(rope),
        TEST(fp8),
        TEST(sharded),
        TEST(broken_files),
        cmocka_unit_test(real_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
