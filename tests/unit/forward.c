/*
 * Would catch: a wrong formula, rotation, head grouping or dequantisation
 * (logits leave the golden files); a position, block table or partition that
 * goes wrong (whole, chunked and single-token prefill part); arithmetic that
 * depends on the batch or on threads (bits differ from the sequence alone).
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "brief.h"
#include "forward.h"
#include "safetensors_make.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROWS         16
#define TOKENS       512
#define CONTEXT      512
#define BLOCK        16
#define SEQ_BLOCKS   (CONTEXT / BLOCK)
#define BLOCKS       (ROWS * SEQ_BLOCKS)
#define DEMO         "ngx-llm-demo"
#define STORIES      "stories260K/stories260K"
#define TINY         "TinyStories-656K/TinyStories-656K-"
#define TINY_HF      "TinyStories-656K/TinyStories-656K" /* the directory's */
#define LONG_TOKENS  400
/* of all models but one, where equality is not what is looked at */
#define BRIEF_TOKENS 100

static const sample_params_t greedy = {
    .top_p = 1, .repetition_penalty = 1, .logprobs = 1};

typedef struct {
    model_t *m;
    const kernels_t *kn;
    kn_dev_t *dev;
    forward_t *f;
    batch_t b;
    batch_row_t rows[ROWS];
    batch_out_t outs[TOKENS];
    uint32_t tokens[TOKENS];
    sample_out_t got[TOKENS];
    uint32_t blocks[ROWS][SEQ_BLOCKS];
} rig_t;

/*
 * The demo model and what is expected of it are the project's own.  The tail
 * ".gguf" stands for the model itself, which may be a directory's.
 */
static char *
data_path(const char *name, const char *tail)
{
    char *path;
    const char *dir = getenv("LLM_DATA");
    int n;

    if (strcmp(name, TINY_HF) == 0 && strcmp(tail, ".gguf") == 0) {
        name = "TinyStories-656K/model";
        tail = ".safetensors";
    }

    if (strcmp(name, DEMO) == 0) {
        n = asprintf(&path, "%s/%s%s",
            strcmp(tail, ".gguf") == 0 ? "conf/demo" : "tests/data/demo", name,
            tail);
    } else {
        n = asprintf(&path, "%s/models/%s%s",
            dir != NULL ? dir : "../shared/data", name, tail);
    }

    assert_true(n > 0);
    return path;
}

static void
need_data(const char *name)
{
    char *path = data_path(name, ".gguf");
    FILE *f = fopen(path, "r");

    if (f == NULL) {
        print_message("%s is not there\n", path);
        free(path);
        skip();
    }

    fclose(f);
    free(path);
}

/* The model at path; NULL when this machine lacks the instruction set. */
static rig_t *
rig_open_path(
    const char *path, const char *isa, uint32_t threads, uint32_t kv_type)
{
    uint32_t i, j;
    char err[256];
    kn_open_t o = {.threads = threads};
    forward_cfg_t c = {ROWS, TOKENS, TOKENS, CONTEXT, BLOCKS, BLOCK, kv_type,
        .groups = {.n = 0}};
    rig_t *r;

    r = calloc(1, sizeof(*r));
    assert_non_null(r);
    r->kn = kernels_cpu(isa, err, sizeof(err));

    if (r->kn == NULL) {
        print_message("%s\n", err);
        free(r);
        return NULL;
    }

    r->m = model_open(path, err, sizeof(err));

    if (r->m == NULL) {
        fail_msg("%s", err);
    }

    r->dev = r->kn->open(&o, err, sizeof(err));
    assert_non_null(r->dev);
    r->f = forward_open(r->kn, r->dev, r->m, &c, err, sizeof(err));
    assert_non_null(r->f);
    r->b.rows = r->rows;
    r->b.outs = r->outs;
    r->b.tokens = r->tokens;

    /* no sequence has neighbouring blocks */
    for (i = 0; i < ROWS; i++) {
        for (j = 0; j < SEQ_BLOCKS; j++) {
            r->blocks[i][j] = (j * ROWS + i) * 37 % BLOCKS;
        }
    }

    return r;
}

static rig_t *
rig_open(const char *name, const char *isa, uint32_t threads, uint32_t kv_type)
{
    char *path = data_path(name, ".gguf");
    rig_t *r = rig_open_path(path, isa, threads, kv_type);

    free(path);
    return r;
}

static void
rig_close(rig_t *r)
{
    forward_close(r->f);
    r->kn->close(r->dev);
    model_close(r->m);
    free(r);
}

/* Adds ids[from .. to) of sequence seq; outputs from position out on. */
static void
add_row(rig_t *r, uint32_t seq, const uint32_t *ids, uint32_t from, uint32_t to,
    uint32_t out)
{
    uint32_t p;
    batch_out_t *o;
    batch_row_t *row = &r->rows[r->b.rows_n++];

    row->seq = seq;
    row->q_start = from;
    row->q_len = to - from;
    row->kv_len = to;
    row->tok = r->b.tokens_n;
    row->adapter = 0;
    row->blocks[0].n = SEQ_BLOCKS;
    row->blocks[0].first = 0;
    row->blocks[0].ids = r->blocks[seq];

    for (p = from; p < to; p++) {
        if (p >= out) {
            o = &r->outs[r->b.outs_n++];
            o->row = r->b.rows_n - 1;
            o->tok = r->b.tokens_n;
            o->pos = p;
            o->choice = 0;
            o->params = &greedy;
            o->known = ids;
            o->known_n = p + 1;
            o->prompt_n = p + 1;
        }

        r->tokens[r->b.tokens_n++] = ids[p];
    }
}

static void
run(rig_t *r)
{
    forward_submit(r->f, &r->b);
    forward_wait(r->f, r->got);
    r->b.rows_n = 0;
    r->b.tokens_n = 0;
    r->b.outs_n = 0;
}

static uint32_t
ids_of(json_t *list, uint32_t *ids)
{
    size_t i;

    assert_in_range(json_array_size(list), 1, CONTEXT);

    for (i = 0; i < json_array_size(list); i++) {
        ids[i] = (uint32_t) json_integer_value(json_array_get(list, i));
    }

    return (uint32_t) i;
}

static json_t *
golden(const char *name)
{
    char *path = data_path(name, ".golden.json");
    json_t *j = json_load_file(path, 0, NULL);

    assert_non_null(j);
    free(path);
    return j;
}

/* Relative L2 of logits against list; *worst grows to the largest error. */
static double
distance(const float *logits, json_t *list, double *worst)
{
    size_t i;
    double d, v, num = 0, den = 0;

    for (i = 0; i < json_array_size(list); i++) {
        v = json_number_value(json_array_get(list, i));
        d = logits[i] - v;
        num += d * d;
        den += v * v;
        *worst = fabs(d) > *worst ? fabs(d) : *worst;
    }

    return sqrt(num / den);
}

/* Greedy tokens after the prompt, up to the first margin that is too small. */
static uint32_t
check_greedy(rig_t *r, json_t *c, uint32_t *ids, uint32_t n, double worst)
{
    size_t i;
    uint32_t checked = 0;
    json_t *want = json_object_get(c, "greedy_ids");
    json_t *margins = json_object_get(c, "greedy_margins");

    for (i = 0; i < json_array_size(want); i++) {
        if (json_number_value(json_array_get(margins, i)) < 4 * worst) {
            break;
        }

        ids[n] = r->got[0].token;
        assert_int_equal(r->got[0].err, 0);
        assert_int_equal(ids[n], json_integer_value(json_array_get(want, i)));
        add_row(r, 0, ids, n, n + 1, n);
        run(r);
        n++;
        checked++;
    }

    return checked;
}

static void
check_nll(rig_t *r, json_t *j, double tolerance)
{
    uint32_t i, t, n, vocab, ids[CONTEXT];
    double sum, max, got, want, away = 0;
    const float *l;
    json_t *nll = json_object_get(j, "nll");
    json_t *list = json_object_get(nll, "token_logprobs");

    n = ids_of(json_object_get(nll, "ids"), ids);
    vocab = model_info(r->m)->vocab;
    add_row(r, 0, ids, 0, n, 0);
    run(r);

    for (i = 0; i + 1 < n; i++) {
        l = forward_logits(r->f, i);
        max = l[0];

        for (t = 1; t < vocab; t++) {
            max = l[t] > max ? l[t] : max;
        }

        for (t = 0, sum = 0; t < vocab; t++) {
            sum += exp(l[t] - max);
        }

        got = l[ids[i + 1]] - max - log(sum);
        want = json_number_value(json_array_get(list, i));
        assert_true(fabs(got - want) <= tolerance * (1 + fabs(want)));
        away += got - want;
    }

    /* errors go both ways: perplexity does not move */
    assert_true(fabs(away / (n - 1)) <= tolerance / 10);
}

static void
check_golden(
    const char *name, const char *isa, uint32_t kv_type, double tolerance)
{
    size_t i;
    uint32_t n, ids[CONTEXT], checked = 0;
    double d, far = 0, worst = 0;
    json_t *j, *c;
    rig_t *r;

    r = rig_open(name, isa, 1, kv_type);

    if (r == NULL) {
        return; /* the machine lacks it, and has said so */
    }

    j = golden(name);

    json_array_foreach(json_object_get(j, "cases"), i, c)
    {
        n = ids_of(json_object_get(c, "prompt_ids"), ids);
        add_row(r, 0, ids, 0, n, n - 1);
        run(r);
        d = distance(
            forward_logits(r->f, 0), json_object_get(c, "logits_last"), &worst);
        far = d > far ? d : far;
        assert_true(d <= tolerance);
        checked += check_greedy(r, c, ids, n, worst);
    }

    print_message("%s %s kv %u: L2 %.2g, %u greedy tokens\n", name, isa,
        kv_type, far, checked);
    assert_true(checked > (tolerance < 2.5e-2 ? 20 : 0));
    check_nll(r, j, 10 * tolerance);
    json_decref(j);
    rig_close(r);
}

/*
 * The oracle's memory is the kernels' tests'; once through a model will do.
 * The vector sets may round activations: rounded is their tolerance.
 */
static void
each_rounded(
    const char *name, uint32_t kv_type, double tolerance, double rounded)
{
    need_data(name);

    if (!brief() || (strcmp(name, STORIES) == 0 && kv_type == KN_F32)) {
        check_golden(name, "ref", kv_type, tolerance);
    }

    if (brief_isa("avx2")) {
        check_golden(name, "avx2", kv_type, rounded);
    }

    check_golden(name, "avx512", kv_type, rounded);
}

static void
each_isa(const char *name, uint32_t kv_type, double tolerance)
{
    each_rounded(name, kv_type, tolerance, tolerance);
}

static void
golden_demo(void **state)
{
    (void) state;
    each_rounded(DEMO, KN_F32, 1e-5, 2e-4);
}

static void
golden_f32(void **state)
{
    (void) state;
    each_isa(STORIES, KN_F32, 1e-5);
}

/* Safetensors: pairs half a head apart, one matrix for both ends. */
static void
golden_hf(void **state)
{
    (void) state;
    each_isa(TINY_HF, KN_F32, 1e-5);
}

static void
golden_f16(void **state)
{
    (void) state;
    each_isa(TINY "F16", KN_F32, 1e-5);
}

static void
golden_q8_0(void **state)
{
    (void) state;
    each_rounded(TINY "Q8_0", KN_F32, 1e-5, 2e-4);
}

static void
golden_q4_0(void **state)
{
    (void) state;
    each_rounded(TINY "Q4_0", KN_F32, 1e-5, 3e-2);
}

static void
golden_q5_1(void **state)
{
    (void) state;
    each_rounded(TINY "Q5_1", KN_F32, 1e-5, 3e-2);
}

/* Q5_0 and Q8_0: no row of it is long enough for Q4_K. */
static void
golden_q4_k_m(void **state)
{
    (void) state;
    each_rounded(TINY "Q4_K_M", KN_F32, 1e-5, 3e-2);
}

static void
golden_kv_f16(void **state)
{
    (void) state;
    each_isa(STORIES, KN_F16, 2e-3);
}

static void
golden_kv_bf16(void **state)
{
    (void) state;
    each_isa(STORIES, KN_BF16, 2e-2);
}

static void
golden_kv_q8_0(void **state)
{
    (void) state;
    each_rounded(DEMO, KN_Q8_0, 3e-2, 3e-2);
}

/* A head of what is no multiple of a block is refused in a sentence. */
static void
kv_q8_0_refused(void **state)
{
    char err[256] = "", *path = data_path(STORIES, ".gguf");
    kn_open_t o = {.threads = 1};
    forward_cfg_t c = {ROWS, TOKENS, TOKENS, CONTEXT, BLOCKS, BLOCK, KN_Q8_0,
        .groups = {.n = 0}};
    const kernels_t *kn = kernels_cpu("ref", err, sizeof(err));
    kn_dev_t *dev;
    model_t *m;

    (void) state;
    need_data(STORIES);
    m = model_open(path, err, sizeof(err));
    assert_non_null(m);
    dev = kn->open(&o, err, sizeof(err));
    assert_non_null(dev);
    assert_int_equal(forward_kv_fits(m, KN_F16, err, sizeof(err)), 0);
    assert_null(forward_open(kn, dev, m, &c, err, sizeof(err)));
    assert_string_equal(
        err, "kv_type q8_0 needs heads of a multiple of 32 elements, found 8");
    kn->close(dev);
    model_close(m);
    free(path);
}

/* A long text: the golden one again and again. */
static void
long_ids(const char *name, uint32_t *ids)
{
    uint32_t i, n;
    json_t *j = golden(name);

    n = ids_of(json_object_get(json_object_get(j, "nll"), "ids"), ids);

    for (i = n; i < LONG_TOKENS; i++) {
        ids[i] = ids[i % n];
    }

    json_decref(j);
}

/* Logits of the first n positions of ids, computed in chunks of size. */
static float *
in_chunks(rig_t *r, const uint32_t *ids, uint32_t n, uint32_t size)
{
    uint32_t from, to, i, vocab = model_info(r->m)->vocab;
    float *all;

    all = calloc(n * (size_t) vocab, sizeof(float));
    assert_non_null(all);

    for (from = 0; from < n; from = to) {
        to = from + size < n ? from + size : n;
        add_row(r, 3, ids, from, to, from);
        run(r);

        for (i = from; i < to; i++) {
            memcpy(all + (size_t) i * vocab, forward_logits(r->f, i - from),
                vocab * sizeof(float));
        }
    }

    return all;
}

static void
check_chunks(const char *name, const char *isa, uint32_t kv_type)
{
    static const uint32_t sizes[] = {1, 7, 64, 150, 257};
    const uint32_t n = brief() ? BRIEF_TOKENS : LONG_TOKENS;
    uint32_t i, ids[CONTEXT];
    size_t bytes;
    float *whole, *parts;
    rig_t *r = rig_open(name, isa, 1, kv_type);

    if (r == NULL) {
        return;
    }

    long_ids(name, ids);
    bytes = (size_t) n * model_info(r->m)->vocab * sizeof(float);
    whole = in_chunks(r, ids, n, n);

    for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]) && sizes[i] < n; i++) {
        parts = in_chunks(r, ids, n, sizes[i]);
        assert_memory_equal(whole, parts, bytes);
        free(parts);
    }

    free(whole);
    rig_close(r);
}

static void
chunks_agree_demo(void **state)
{
    (void) state;
    check_chunks(DEMO, "auto", KN_F16);
    check_chunks(DEMO, "auto", KN_Q8_0);
}

static void
chunks_agree(void **state)
{
    (void) state;
    need_data(STORIES);
    if (!brief()) {
        check_chunks(STORIES, "ref", KN_F32);
    }
    if (brief_isa("avx2")) {
        check_chunks(STORIES, "avx2", KN_F16);
    }
    check_chunks(STORIES, "avx512", KN_BF16);
    check_chunks(TINY_HF, "auto", KN_F16);
    check_chunks(TINY "Q8_0", "auto", KN_F32);
    check_chunks(TINY "Q4_0", "auto", KN_F16);
    check_chunks(TINY "Q5_1", "auto", KN_F16);
}

static void
threads_agree(void **state)
{
    const uint32_t n = brief() ? BRIEF_TOKENS : LONG_TOKENS;
    uint32_t ids[CONTEXT], threads;
    size_t bytes;
    float *one = NULL, *some;
    rig_t *r;

    (void) state;
    long_ids(DEMO, ids);

    for (threads = 1; threads <= 4; threads++) {
        r = rig_open(DEMO, "auto", threads, KN_Q8_0);
        bytes = (size_t) n * model_info(r->m)->vocab * sizeof(float);
        some = in_chunks(r, ids, n, n - 1); /* and one token alone */

        if (one == NULL) {
            one = some;
        } else {
            assert_memory_equal(one, some, bytes);
            free(some);
        }

        rig_close(r);
    }

    free(one);
}

/* Sequence s is ids from s on: all differ, and so do their lengths. */
static void
check_batch(
    const char *name, const char *isa, uint32_t kv_type, const uint32_t *ids)
{
    uint32_t s, step, vocab, n[ROWS];
    float *alone;
    rig_t *r = rig_open(name, isa, 2, kv_type);

    if (r == NULL) {
        return;
    }

    vocab = model_info(r->m)->vocab;
    alone = calloc((size_t) ROWS * 8 * vocab, sizeof(float));
    assert_non_null(alone);

    for (s = 0; s < ROWS; s++) {
        n[s] = 5 + 3 * s;

        for (step = 0; step < 8; step++) {
            add_row(r, s, ids + s, step == 0 ? 0 : n[s] + step - 1, n[s] + step,
                n[s] + step - 1);
            run(r);
            memcpy(alone + ((size_t) s * 8 + step) * vocab,
                forward_logits(r->f, 0), vocab * sizeof(float));
        }
    }

    /* the even ones begin first: prompts meet single tokens in a step */
    for (step = 0; step < 9; step++) {
        uint32_t own, out = 0, at[ROWS];

        for (s = 0; s < ROWS; s++) {
            own = step - s % 2;
            at[s] = UINT32_MAX;

            if (own >= 8) {
                continue;
            }

            add_row(r, s, ids + s, own == 0 ? 0 : n[s] + own - 1, n[s] + own,
                n[s] + own - 1);
            at[s] = out++;
        }

        run(r);

        for (s = 0; s < ROWS; s++) {
            own = step - s % 2;

            if (at[s] != UINT32_MAX) {
                assert_memory_equal(forward_logits(r->f, at[s]),
                    alone + ((size_t) s * 8 + own) * vocab,
                    vocab * sizeof(float));
            }
        }
    }

    free(alone);
    rig_close(r);
}

static void
batch_is_alone_demo(void **state)
{
    uint32_t ids[CONTEXT];

    (void) state;
    long_ids(DEMO, ids);
    check_batch(DEMO, "auto", KN_F32, ids);
    check_batch(DEMO, "auto", KN_Q8_0, ids);
}

static void
batch_is_alone(void **state)
{
    static const char *const names[] = {
        STORIES, TINY_HF, TINY "F16", TINY "Q8_0", TINY "Q4_0", TINY "Q4_K_M"};
    static const char *const isas[] = {"ref", "avx2", "avx512"};
    uint32_t i, k, ids[CONTEXT];

    (void) state;
    need_data(STORIES);

    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        long_ids(names[i], ids);

        for (k = brief() ? 1 : 0; k < 3; k++) {
            if (brief_isa(isas[k])) {
                check_batch(names[i], isas[k], KN_F32, ids);
            }
        }
    }
}

#define F8_CONFIG                                                              \
    "{\"model_type\":\"llama\",\"num_hidden_layers\":1,\"hidden_size\":24,"    \
    "\"intermediate_size\":40,\"max_position_embeddings\":512,"                \
    "\"num_attention_heads\":3,\"num_key_value_heads\":1,\"vocab_size\":50}"

/* Any values of F8 but NaN, or the same in BF16; norms are 1 in F32. */
static void
make_f8(const char *dir, int f8)
{
    static const struct {
        const char *name;
        uint32_t rows, row;
    } list[] = {{"model.embed_tokens.weight", 50, 24},
        {"lm_head.weight", 50, 24}, {"model.norm.weight", 0, 24},
        {"model.layers.0.input_layernorm.weight", 0, 24},
        {"model.layers.0.post_attention_layernorm.weight", 0, 24},
        {"model.layers.0.self_attn.q_proj.weight", 24, 24},
        {"model.layers.0.self_attn.k_proj.weight", 8, 24},
        {"model.layers.0.self_attn.v_proj.weight", 8, 24},
        {"model.layers.0.self_attn.o_proj.weight", 24, 24},
        {"model.layers.0.mlp.gate_proj.weight", 40, 24},
        {"model.layers.0.mlp.up_proj.weight", 40, 24},
        {"model.layers.0.mlp.down_proj.weight", 24, 40}};
    static uint8_t data[1 << 16];
    static make_st_t file;
    char header[4096] = "{", shape[32];
    size_t i, j, n, at = 0, size;
    uint8_t bytes[2048];
    float one = 1;
    uint32_t x = 12345;
    tensor_t t = {.type = TENSOR_F8_E4M3, .data = bytes};

    for (i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
        n = (size_t) list[i].row * (list[i].rows != 0 ? list[i].rows : 1);
        size = list[i].rows == 0 ? 4 * n : f8 ? n : 2 * n;
        assert_true(n <= sizeof(bytes) && at + size <= sizeof(data));

        for (j = 0; j < n; j++) {
            x = x * 1664525 + 1013904223;
            bytes[j] = (uint8_t) (x >> 31 << 7 | (x >> 16 & 0x3f));
            memcpy(data + at + 4 * j, &one, list[i].rows == 0 ? 4 : 0);
        }

        if (list[i].rows != 0 && f8) {
            memcpy(data + at, bytes, n);
        } else if (list[i].rows != 0) {
            t.size = n;
            tensor_bf16(&t, (uint16_t *) (void *) (data + at));
        }

        snprintf(shape, sizeof(shape), list[i].rows == 0 ? "%u" : "%u,%u",
            list[i].rows == 0 ? list[i].row : list[i].rows, list[i].row);
        j = strlen(header);
        snprintf(header + j, sizeof(header) - j,
            "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],"
            "\"data_offsets\":[%zu,%zu]}",
            i > 0 ? "," : "", list[i].name,
            list[i].rows == 0 ? "F32"
            : f8              ? "F8_E4M3"
                              : "BF16",
            shape, at, at + size);
        at += size;
    }

    strcat(header, "}");
    make_st(&file, header, at);
    memcpy(file.p + file.len - at, data, at);
    make_file(dir, "model.safetensors", file.p, file.len);
    make_text(dir, "config.json", F8_CONFIG);
}

/* Weights in F8_E4M3 are computed with as they are: their BF16 twin's bits. */
static void
f8_is_bf16(void **state)
{
    uint32_t i, f8, ids[30];
    float logits[2][50];
    char *dir = make_dir();
    rig_t *r;

    (void) state;

    for (i = 0; i < 30; i++) {
        ids[i] = i * 7 % 50;
    }

    for (f8 = 0; f8 < 2; f8++) {
        make_f8(dir, (int) f8);
        r = rig_open_path(dir, "auto", 1, KN_F32);
        assert_int_equal(forward_held(r->f)->weights[KN_BF16].n, 9);
        assert_int_equal(forward_held(r->f)->converted > 0, f8);
        add_row(r, 0, ids, 0, 30, 29);
        run(r);
        memcpy(logits[f8], forward_logits(r->f, 0), sizeof(logits[f8]));
        assert_int_equal(r->got[0].err, 0);
        rig_close(r);
    }

    assert_memory_equal(logits[0], logits[1], sizeof(logits[0]));
    make_gone(dir, "model.safetensors");
    make_gone(dir, "config.json");
    assert_int_equal(rmdir(dir), 0);
    free(dir);
}

/* A step without outputs computes the cache all the same. */
static void
no_outputs(void **state)
{
    uint32_t ids[CONTEXT];
    float *first;
    size_t bytes;
    rig_t *r;

    (void) state;
    long_ids(DEMO, ids);
    r = rig_open(DEMO, "auto", 1, KN_F32);
    bytes = model_info(r->m)->vocab * sizeof(float);
    add_row(r, 0, ids, 0, 50, 49);
    run(r);
    first = malloc(bytes);
    assert_non_null(first);
    memcpy(first, forward_logits(r->f, 0), bytes);
    add_row(r, 1, ids, 0, 49, UINT32_MAX);
    run(r);
    add_row(r, 1, ids, 49, 50, 49);
    run(r);
    assert_memory_equal(first, forward_logits(r->f, 0), bytes);
    free(first);
    rig_close(r);
}

static void
null_words(void **state)
{
    uint32_t i, words = 7, ids[CONTEXT] = {0};
    char err[256];
    kn_open_t o = {0};
    forward_cfg_t c = {ROWS, TOKENS, TOKENS, CONTEXT, BLOCKS, BLOCK, KN_F16,
        .groups = {.n = 0}};
    rig_t *r;

    (void) state;
    r = calloc(1, sizeof(*r));
    assert_non_null(r);
    r->kn = kernels_null();
    r->m = model_open_null(256 + words + 2, 4096);
    r->dev = r->kn->open(&o, err, sizeof(err));
    assert_non_null(r->dev);
    assert_true(forward_block_bytes(r->m, &c) > 0);
    r->f = forward_open(r->kn, r->dev, r->m, &c, err, sizeof(err));
    assert_non_null(r->f);
    r->b.rows = r->rows;
    r->b.outs = r->outs;
    r->b.tokens = r->tokens;
    add_row(r, 0, ids, 0, 20, 0);
    run(r);

    for (i = 0; i < 20; i++) {
        assert_int_equal(r->got[i].token, 256 + i % words);
        assert_int_equal(r->got[i].err, 0);
    }

    rig_close(r);
}

static void
count(void *arg)
{
    ++*(uint32_t *) arg;
}

/* A step shows that it gets on, several times a layer. */
static void
watched(void **state)
{
    static const uint32_t ids[] = {3, 4, 5, 6};
    rig_t *r = rig_open(DEMO, "ref", 1, KN_F32);
    uint32_t calls = 0, first;

    (void) state;
    assert_non_null(r);
    forward_watch(r->f, count, &calls);
    add_row(r, 0, ids, 0, 4, 3);
    run(r);
    first = calls;
    assert_true(first >= 8 * model_info(r->m)->layers);

    forward_watch(r->f, NULL, NULL);
    add_row(r, 0, ids, 0, 4, 3);
    run(r);
    assert_int_equal(calls, first);
    rig_close(r);
}

/* Memory that is not there is a sentence, not a crash. */
static void
too_large(void **state)
{
    char err[256], *path;
    kn_open_t o = {.threads = 1};
    forward_cfg_t c = {ROWS, TOKENS, TOKENS, CONTEXT, UINT32_MAX, 1 << 20,
        KN_F32, .groups = {.n = 0}};
    const kernels_t *kn = kernels_cpu("ref", err, sizeof(err));
    kn_dev_t *dev;
    model_t *m;

    (void) state;
    path = data_path(DEMO, ".gguf");
    m = model_open(path, err, sizeof(err));
    assert_non_null(m);
    dev = kn->open(&o, err, sizeof(err));
    assert_non_null(dev);
    err[0] = '\0';
    assert_null(forward_open(kn, dev, m, &c, err, sizeof(err)));
    assert_non_null(strstr(err, "KV blocks"));
    kn->close(dev);
    model_close(m);
    free(path);
}

static void
unknown_isa(void **state)
{
    char err[256];

    (void) state;
    assert_null(kernels_cpu("mmx", err, sizeof(err)));
    assert_non_null(strstr(err, "\"mmx\""));
    assert_non_null(kernels_cpu("auto", err, sizeof(err)));
    assert_non_null(kernels_cpu("ref", err, sizeof(err)));
}

/* --- a device that computes by itself ------------------------------------ */

/* What is submitted runs when it is waited for, as on a device that has a queue
 * of its own: what came before what shows in told. */
static struct {
    kernels_t kn;
    const kernels_t *as; /* who computes */
    void (*bodies[2])(void *arg);
    void *args[2];
    uint32_t bodies_n, ran;
    kn_out_t outs[TOKENS];
    uint32_t outs_n, masked;
    char told[16];
    const uint32_t *mask; /* what the outputs are to have */
} queue;

static void
queue_tell(char what)
{
    size_t n = strlen(queue.told);

    assert_true(n + 1 < sizeof(queue.told));
    queue.told[n] = what;
}

static void
queue_plan(kn_dev_t *dev, const kn_step_t *step)
{
    uint32_t i;

    queue.outs_n = step->outs_n;
    queue.bodies_n = queue.masked = 0;
    memset(queue.told, 0, sizeof(queue.told));
    for (i = 0; i < step->outs_n; i++) {
        assert_null(step->outs[i].mask);
    }
    queue.as->plan(dev, step);
}

static void
queue_body(void (*body)(void *arg), void *arg)
{
    assert_true(queue.bodies_n < 2);
    queue.bodies[queue.bodies_n] = body;
    queue.args[queue.bodies_n++] = arg;
}

static void
queue_begin(kn_dev_t *dev, void (*body)(void *arg), void *arg)
{
    (void) dev;
    queue_body(body, arg);
    queue_tell('b');
}

static void
queue_submit(kn_dev_t *dev, void (*body)(void *arg), void *arg)
{
    (void) dev;
    queue_body(body, arg);
    queue_tell('s');
}

static void
queue_masks(kn_dev_t *dev, const kn_out_t *outs)
{
    (void) dev;
    memcpy(queue.outs, outs, queue.outs_n * sizeof(*outs));
    queue.masked = 1;
    queue_tell('m');
}

static int
queue_wait(kn_dev_t *dev)
{
    uint32_t i;

    for (i = 0; i < queue.bodies_n; i++) {
        if (i + 1 == queue.bodies_n && queue.masked) {
            queue.as->masks(dev, queue.outs);
        }
        (i == 0 ? queue.as->begin : queue.as->submit)(
            dev, queue.bodies[i], queue.args[i]);
    }
    return queue.as->wait(dev);
}

static void
queue_make_masks(void *arg, const batch_t *b)
{
    rig_t *r = arg;
    uint32_t i;

    queue_tell('f');
    assert_ptr_equal(b, &r->b);
    for (i = 0; i < b->outs_n; i++) {
        r->outs[i].mask = i % 2 ? NULL : queue.mask;
    }
}

/*
 * Masks are made when the device has the pass, and before it may sample; they
 * are then obeyed, and those of one step are not the next one's.
 */
static void
masks_late(void **state)
{
    static const uint32_t ids[] = {1, 5, 9, 3};
    uint32_t mask[8192] = {0}, free_token, other, only, i;
    rig_t *r = rig_open(DEMO, "ref", 1, KN_F32);
    forward_cfg_t c = {ROWS, TOKENS, TOKENS, CONTEXT, BLOCKS, BLOCK, KN_F32,
        .groups = {.n = 0}};
    char err[256];

    (void) state;
    memset(&queue, 0, sizeof(queue));
    assert_true(model_info(r->m)->vocab <= 8192 * 32);
    queue.as = r->kn;
    queue.kn = *r->kn;
    queue.kn.plan = queue_plan;
    queue.kn.begin = queue_begin;
    queue.kn.submit = queue_submit;
    queue.kn.masks = queue_masks;
    queue.kn.wait = queue_wait;
    forward_close(r->f);
    r->f = forward_open(&queue.kn, r->dev, r->m, &c, err, sizeof(err));
    assert_non_null(r->f);

    add_row(r, 0, ids, 0, 4, 2);
    run(r);
    assert_string_equal(queue.told, "bs");
    free_token = r->got[0].token;
    other = r->got[1].token;
    only = free_token + 1;
    mask[only / 32] = 1u << only % 32;
    queue.mask = mask;

    forward_masks(r->f, queue_make_masks, r);
    for (i = 0; i < 2; i++) {
        add_row(r, i, ids, 0, 4, 2);
        run(r);
        assert_string_equal(queue.told, "bfms");
        assert_int_equal(r->got[0].token, only);
        assert_int_equal(r->got[1].token, other);
    }

    queue.mask = NULL;
    add_row(r, 0, ids, 0, 4, 2);
    run(r);
    assert_string_equal(queue.told, "bfs");
    assert_int_equal(r->got[0].token, free_token);

    forward_masks(r->f, NULL, NULL);
    rig_close(r);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(masks_late),
        cmocka_unit_test(golden_demo),
        cmocka_unit_test(watched),
        cmocka_unit_test(golden_f32),
        cmocka_unit_test(golden_hf),
        cmocka_unit_test(golden_f16),
        cmocka_unit_test(golden_q8_0),
        cmocka_unit_test(golden_q4_0),
        cmocka_unit_test(golden_q5_1),
        cmocka_unit_test(golden_q4_k_m),
        cmocka_unit_test(golden_kv_f16),
        cmocka_unit_test(golden_kv_bf16),
        cmocka_unit_test(golden_kv_q8_0),
        cmocka_unit_test(kv_q8_0_refused),
        cmocka_unit_test(chunks_agree_demo),
        cmocka_unit_test(chunks_agree),
        cmocka_unit_test(threads_agree),
        cmocka_unit_test(batch_is_alone_demo),
        cmocka_unit_test(batch_is_alone),
        cmocka_unit_test(f8_is_bf16),
        cmocka_unit_test(no_outputs),
        cmocka_unit_test(null_words),
        cmocka_unit_test(too_large),
        cmocka_unit_test(unknown_isa),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
