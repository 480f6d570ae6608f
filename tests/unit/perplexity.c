/*
 * Would catch: products whose rounding of activations costs a model something,
 * or a type of the cache that does.  For each file of TinyStories that meets
 * rounded activations, BF16 made of its F32, and for the demo's, the perplexity
 * of a text by each vector instruction set is that by the plain C one, which
 * computes with the same weights in F32, within 0.2 %; and so is the demo's
 * with keys and values of each type.
 *
 * For every other type the weights of both models are made that type while
 * they are loaded, and the judge is the instruction set's own F32 of the same
 * values: few tokens, and the one instruction set that an engine would take.
 * With LLM_LONG more tokens, and all types and instruction sets.
 */
#include "../kernels/guard.h"

#include "brief.h"
#include "forward.h"
#include "gguf.h"
#include "quantize.h"
#include "safetensors_make.h"
#include "token.h"

#include <jansson.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { WINDOW = 128, BLOCK = 16, TEXT = 96 << 10, MOST = 96 << 10 };

#define X(name, elems, bytes) +1
enum { PACKED_N = 0 KN_PACKED_LIST(X) };
#undef X

#define HF   "/models/TinyStories-656K/"
#define TINY HF "TinyStories-656K-"
#define DEMO "conf/demo/ngx-llm-demo.gguf"

/* what a few hundred tokens may differ by, where thousands hardly do */
#define BRIEF_MOST 0.02

typedef struct {
    uint32_t ids[MOST];
    uint32_t n;
} text_t;

static int
is_long(void)
{
    return getenv("LLM_LONG") != NULL;
}

static const char *
data(void)
{
    const char *dir = getenv("LLM_DATA");

    return dir != NULL ? dir : "../shared/data";
}

/* The beginning of a book by the model's own tokenizer, windows of it. */
static void
read_text(const char *model, text_t *t, uint32_t windows)
{
    static char text[TEXT];
    char err[256], path[512];
    size_t len;
    int64_t n;
    gguf_t *g = gguf_open(model, err, sizeof(err));
    token_t *k = g != NULL ? token_open_gguf(g, err, sizeof(err)) : NULL;
    FILE *f;

    snprintf(path, sizeof(path), "%s/text/tinyshakespeare.txt", data());
    f = fopen(path, "r");
    assert_non_null(f);
    len = fread(text, 1, sizeof(text), f);
    fclose(f);

    if (k == NULL) {
        fail_msg("%s", err);
    }
    n = token_encode(k, text, len, 0, t->ids, MOST, NULL, NULL);
    t->n = windows * WINDOW;
    assert_true(n >= t->n && n <= MOST);
    token_close(k);
    gguf_close(g);
}

/* Minus the logarithm of what the logits give token id. */
static double
loss(const float *l, uint32_t vocab, uint32_t id)
{
    uint32_t i;
    double max = l[0], sum = 0;

    for (i = 1; i < vocab; i++) {
        max = l[i] > max ? l[i] : max;
    }
    for (i = 0; i < vocab; i++) {
        sum += exp(l[i] - max);
    }

    return max + log(sum) - l[id];
}

/* The mean loss of ids[0 .. n), windows of them apart. */
static double
mean_loss(const char *path, const kernels_t *kn, uint32_t kv, const text_t *t)
{
    static const sample_params_t greedy = {.top_p = 1, .repetition_penalty = 1};
    char err[256];
    forward_cfg_t c = {1, WINDOW, WINDOW, WINDOW, WINDOW / BLOCK, BLOCK, kv,
        .groups = {.n = 0}};
    kn_open_t o = {.threads = 2};
    uint32_t from, i, n, sum_n = 0, blocks[WINDOW / BLOCK];
    batch_row_t row = {0};
    batch_out_t outs[WINDOW];
    batch_t b = {.rows_n = 1, .rows = &row, .outs = outs};
    sample_out_t got[WINDOW];
    model_t *m = model_open(path, err, sizeof(err));
    kn_dev_t *dev = kn->open(&o, err, sizeof(err));
    forward_t *f;
    double sum = 0;

    assert_true(m != NULL && dev != NULL);
    f = forward_open(kn, dev, m, &c, err, sizeof(err));
    assert_non_null(f);

    for (i = 0; i < WINDOW / BLOCK; i++) {
        blocks[i] = i;
    }
    row.blocks[0].ids = blocks;
    row.blocks[0].n = WINDOW / BLOCK;
    memset(outs, 0, sizeof(outs));

    for (from = 0; from + 1 < t->n; from += n) {
        n = t->n - from < WINDOW ? t->n - from : WINDOW;
        row.q_len = row.kv_len = n;
        b.tokens_n = b.outs_n = n;
        b.tokens = (uint32_t *) (uintptr_t) (t->ids + from); /* only read */

        for (i = 0; i < n; i++) {
            outs[i].tok = outs[i].pos = i;
            outs[i].params = &greedy;
            outs[i].known = t->ids + from;
            outs[i].known_n = outs[i].prompt_n = i + 1;
        }

        forward_submit(f, &b);
        forward_wait(f, got);
        for (i = 0; i + 1 < n; i++, sum_n++) {
            sum += loss(forward_logits(f, i), model_info(m)->vocab,
                t->ids[from + i + 1]);
        }
    }

    forward_close(f);
    kn->close(dev);
    model_close(m);
    return sum / sum_n;
}

/* A model, and a GGUF file that has its tokenizer. */
static void
check(const char *path, const char *words)
{
    static const char *const sets[] = {
        "avx2", "avxvnni", "avx512", "avx512vnni", "avx512bf16"};
    char err[256];
    uint32_t i;
    double plain, loss;
    const kernels_t *kn;
    static text_t t;

    read_text(words, &t, brief() ? 2 : 32);
    plain = mean_loss(path, kernels_cpu("ref", err, sizeof(err)), KN_F32, &t);

    for (i = 0; i < sizeof(sets) / sizeof(sets[0]); i++) {
        kn = kernels_cpu(sets[i], err, sizeof(err));
        if (kn == NULL) {
            print_message("%s\n", err);
            continue;
        }
        loss = mean_loss(path, kn, KN_F32, &t);
        print_message("%s: perplexity of %u tokens %.3f, by %s %+.3f %%\n",
            path, t.n, exp(plain), sets[i], 100 * (exp(loss - plain) - 1));
        assert_true(
            fabs(exp(loss - plain) - 1) <= (brief() ? BRIEF_MOST : 0.002));
    }
}

/* The cache's types, with whatever instruction set there is. */
static void
check_cache(const char *path)
{
    static const struct {
        const char *name;
        uint32_t kv;
        double most;
    } types[] = {{"f16", KN_F16, 1e-3}, {"bf16", KN_BF16, 2e-3},
        {"q8_0", KN_Q8_0, 2e-3}};
    char err[256];
    uint32_t i;
    double plain, loss;
    const kernels_t *kn = kernels_cpu("auto", err, sizeof(err));
    static text_t t;

    read_text(path, &t, brief() ? 2 : 32);
    plain = mean_loss(path, kn, KN_F32, &t);

    for (i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        loss = mean_loss(path, kn, types[i].kv, &t);
        print_message("%s: perplexity of %u tokens %.3f, with kv %s %+.4f %%\n",
            path, t.n, exp(plain), types[i].name,
            100 * (exp(loss - plain) - 1));
        assert_true(fabs(exp(loss - plain) - 1)
                    <= (brief() ? BRIEF_MOST : types[i].most));
    }
}

static void
tiny(void **state)
{
    const char *type = *state;
    char path[512];

    snprintf(path, sizeof(path), "%s" TINY "%s.gguf", data(), type);
    if (access(path, R_OK) != 0) {
        print_message("%s is not there\n", path);
        skip();
    }
    check(path, path);
}

static void *
read_file(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    char *p;

    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *n = (size_t) ftell(f);
    rewind(f);
    p = malloc(*n);
    assert_true(p != NULL && fread(p, 1, *n, f) == *n);
    fclose(f);

    return p;
}

/* A header of tensors of F32 as one of BF16. */
static char *
halve_header(const char *header, uint64_t len)
{
    json_t *h = json_loadb(header, len, 0, NULL), *t, *offsets;
    const char *name;
    json_int_t at;
    size_t i;
    char *text;

    assert_non_null(h);
    json_object_foreach(h, name, t)
    {
        offsets = json_object_get(t, "data_offsets");
        if (offsets != NULL) {
            json_object_set_new(t, "dtype", json_string("BF16"));
        }
        for (i = 0; i < json_array_size(offsets); i++) {
            at = json_integer_value(json_array_get(offsets, i));
            json_array_set_new(offsets, i, json_integer(at / 2));
        }
    }

    /* spaces behind: what follows is to be aligned */
    text = json_dumps(h, JSON_COMPACT);
    assert_non_null(text);
    i = strlen(text);
    text = realloc(text, i + 9);
    assert_non_null(text);
    memset(text + i, ' ', 8);
    text[(i + 7) / 8 * 8] = '\0';
    json_decref(h);

    return text;
}

/* TinyStories of F32, rounded to BF16. */
static void
tiny_bf16(void **state)
{
    char path[512], words[512], *dir, *from, *header;
    make_st_t *to;
    size_t n, config_n;
    uint64_t len;
    void *config;

    (void) state;
    snprintf(path, sizeof(path), "%s" HF "model.safetensors", data());
    snprintf(words, sizeof(words), "%s" TINY "F16.gguf", data());
    if (access(path, R_OK) != 0 || access(words, R_OK) != 0) {
        print_message("%s is not there\n", path);
        skip();
    }

    from = read_file(path, &n);
    memcpy(&len, from, sizeof(len));
    header = halve_header(from + sizeof(len), len);
    n = (n - sizeof(len) - len) / sizeof(float);
    to = malloc(sizeof(*to));
    assert_non_null(to);
    make_st(to, header, n * 2);
    cpu_ref.kv_put[KN_BF16](to->p + to->len - n * 2,
        (float *) (void *) (from + sizeof(len) + len), (uint32_t) n);

    dir = make_dir();
    make_file(dir, "model.safetensors", to->p, to->len);
    snprintf(path, sizeof(path), "%s" HF "config.json", data());
    config = read_file(path, &config_n);
    make_file(dir, "config.json", config, config_n);
    check(dir, words);

    make_gone(dir, "model.safetensors");
    make_gone(dir, "config.json");
    assert_int_equal(rmdir(dir), 0);
    free(config);
    free(dir);
    free(to);
    free(header);
    free(from);
}

static void
demo(void **state)
{
    char path[512];

    (void) state;
    snprintf(path, sizeof(path), "%s/text/tinyshakespeare.txt", data());
    if (access(path, R_OK) != 0) {
        print_message("%s is not there\n", path);
        skip();
    }
    check(DEMO, DEMO);
    check_cache(DEMO);
}

/* What the table below makes of weights: a type's blocks, or their values. */
static struct {
    const kernels_t *kn;
    uint32_t type;
    int floats;
} made_of;

/* Are n weights about what they were before?  Three values still are. */
static void
check_near(const float *was, const float *is, size_t n)
{
    double diff = 0, size = 0;
    size_t i;

    for (i = 0; i < n; i++) {
        diff += (double) (was[i] - is[i]) * (was[i] - is[i]);
        size += (double) was[i] * was[i];
    }

    assert_true(diff <= 0.3 * size);
}

/* kernels_t's, by that.  Rows that are no whole blocks are Q8_0, or floats. */
static kn_w_t *
load_made(kn_dev_t *dev, const kn_source_t *from, char *err, size_t errlen)
{
    kn_source_t s = *from;
    kn_w_t *w;
    size_t n = (size_t) s.n * s.k;
    float *x = malloc(n * sizeof(*x)), *is = malloc(n * sizeof(*is));
    void *q;

    s.type = s.k % type_elems(made_of.type) == 0 ? made_of.type : KN_Q8_0;
    s.data = q = malloc(type_bytes(s.type, n));
    assert_true(x != NULL && is != NULL && q != NULL);
    kernels_dequant(from->type, x, from->data, n);
    quantize(s.type, q, x, n);
    kernels_dequant(s.type, is, q, n);
    check_near(x, is, n);

    if (made_of.floats) {
        s.type = KN_F32;
        s.data = is;
    }

    w = made_of.kn->weight_load(dev, &s, err, errlen);
    free(q);
    free(is);
    free(x);

    return w;
}

static double
loss_of(const char *path, uint32_t type, int floats, const text_t *t)
{
    kernels_t kn = *made_of.kn;

    kn.weight_load = load_made;
    made_of.type = type;
    made_of.floats = floats;

    return mean_loss(path, &kn, KN_F32, t);
}

/* A model's weights as blocks of a type, beside their values. */
static void
check_made(const char *path, uint32_t type, const char *isa)
{
    static text_t t;
    char err[256];
    double plain, loss;

    made_of.kn = kernels_cpu(isa, err, sizeof(err));

    if (made_of.kn == NULL) {
        print_message("%s\n", err);
        return;
    }

    read_text(path, &t, is_long() ? 128 : 2);
    plain = loss_of(path, type, 1, &t);
    loss = loss_of(path, type, 0, &t);
    print_message("%s as %s: perplexity of %u tokens %.3f, by %s %+.3f %%\n",
        path, type_name(type), t.n, exp(plain), isa,
        100 * (exp(loss - plain) - 1));
    assert_true(fabs(exp(loss - plain) - 1) <= (is_long() ? 0.002 : 0.02));
}

static void
made(void **state)
{
    static const char *const sets[] = {
        "auto", "avx2", "avxvnni", "avx512", "avx512vnni", "avx512bf16"};
    const uint32_t type = kernels_type(*state);
    uint32_t i, n = is_long() ? sizeof(sets) / sizeof(sets[0]) : 1;
    char path[512];

    snprintf(path, sizeof(path), "%s" TINY "F16.gguf", data());
    if (access(path, R_OK) != 0) {
        print_message("%s is not there\n", path);
        skip();
    }

    for (i = n > 1; i < n; i++) {
        if (!brief()) {
            check_made(DEMO, type, sets[i]);
        }
        if (type_elems(type) <= 32) { /* its rows have 128 */
            check_made(path, type, sets[i]);
        }
    }
}

int
main(void)
{
    static char types[][8] = {"Q8_0", "Q4_0", "Q5_1", "Q4_K_M"};
#define X(name, elems, bytes) #name,
    static char all[][8] = {KN_PACKED_LIST(X) KN_PLAIN_LIST(X)};
#undef X
    struct CMUnitTest tests[6 + KN_TYPES] = {
        cmocka_unit_test(demo),
        cmocka_unit_test(tiny_bf16),
        {"Q8_0", tiny, NULL, NULL, types[0]},
        {"Q4_0", tiny, NULL, NULL, types[1]},
        {"Q5_1", tiny, NULL, NULL, types[2]},
        {"Q4_K_M", tiny, NULL, NULL, types[3]},
    };
    size_t i, n = 6;

    /* the packed ones first: of the others there are files; that of Q4_K_M is
     * Q5_0 and Q8_0, because its rows have 128 */
    for (i = 0; i < (brief() ? 1 : is_long() ? KN_TYPES : PACKED_N); i++) {
        tests[n++] = (struct CMUnitTest){all[i], made, NULL, NULL, all[i]};
    }

    return _cmocka_run_group_tests("perplexity", tests, n, NULL, NULL);
}
