/*
 * A model's shape and weights, found in a GGUF file and checked.
 *
 * DESIGN.  A family is a row of a table: its name, and two lists of tensors,
 * one for the top of the model and one for each layer.  A tensor row says
 * under which name it is found, where its pointer goes, and which two of the
 * model's sizes its dimensions must be.  Opening reads the sizes from the
 * file's keys, walks the lists, and refuses a tensor that is missing, of
 * another shape, of a type the kernels do not know, or that no list names: a
 * weight that is silently left out gives fluent nonsense.
 *
 * Every size is held against a cap before anything is multiplied or allocated
 * with it: the file is input.  What passes here, forward.c relies on.
 *
 * A model_t owns its layer table and borrows the rest from the gguf_t.  It is
 * read-only after opening (and renaming), so any thread may look.
 */
#include "model.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Several times the largest models there are; products fit 64 bits. */
#define LAYERS_MAX   1024
#define HIDDEN_MAX   (1u << 17)
#define HEADS_MAX    1024
#define HEAD_DIM_MAX 512
#define FFN_MAX      (1u << 20)
#define VOCAB_MAX    (1u << 22)
#define CONTEXT_MAX  (1u << 24)

/* The sizes that tensors' dimensions are checked against. */
typedef enum {
    DIM_NONE, /* the tensor is a vector */
    DIM_HIDDEN,
    DIM_Q,  /* heads * head_dim */
    DIM_KV, /* kv_heads * head_dim */
    DIM_FFN,
    DIM_VOCAB,
    DIM_ROPE, /* rope_dims / 2 */
    DIMS_N
} dim_t;

typedef struct {
    const char *name; /* in the file; of a layer: after "blk.N." */
    size_t at;        /* of the pointer in model_top_t or model_layer_t */
    dim_t out, in;    /* rows, row length */
    int optional;
} tensor_row_t;

typedef struct {
    const char *arch;
    const tensor_row_t *top; /* ends with a NULL name */
    const tensor_row_t *layer;
} family_t;

struct model_s {
    model_info_t info;
    const gguf_t *g; /* borrowed, NULL for the null model */
    const family_t *family;
    float rope_base;
    float rope_scale; /* positions are divided by it */
    uint64_t dims[DIMS_N];
    model_top_t top;
    model_layer_t *layers; /* [info.layers], owned */
    gguf_tensor_t *made;   /* tensors of the null model, owned */
};

#define TOP(field)   offsetof(model_top_t, field)
#define LAYER(field) offsetof(model_layer_t, field)

static const tensor_row_t llama_top[] = {
    {"token_embd.weight", TOP(embed), DIM_VOCAB, DIM_HIDDEN, 0},
    {"output_norm.weight", TOP(norm), DIM_NONE, DIM_HIDDEN, 0},
    {"output.weight", TOP(output), DIM_VOCAB, DIM_HIDDEN, 1},
    {"rope_freqs.weight", TOP(rope_factors), DIM_NONE, DIM_ROPE, 1},
    {NULL, 0, DIM_NONE, DIM_NONE, 0},
};

static const tensor_row_t llama_layer[] = {
    {"attn_norm.weight", LAYER(attn_norm), DIM_NONE, DIM_HIDDEN, 0},
    {"attn_q.weight", LAYER(q), DIM_Q, DIM_HIDDEN, 0},
    {"attn_k.weight", LAYER(k), DIM_KV, DIM_HIDDEN, 0},
    {"attn_v.weight", LAYER(v), DIM_KV, DIM_HIDDEN, 0},
    {"attn_output.weight", LAYER(o), DIM_HIDDEN, DIM_Q, 0},
    {"ffn_norm.weight", LAYER(ffn_norm), DIM_NONE, DIM_HIDDEN, 0},
    {"ffn_gate.weight", LAYER(gate), DIM_FFN, DIM_HIDDEN, 0},
    {"ffn_up.weight", LAYER(up), DIM_FFN, DIM_HIDDEN, 0},
    {"ffn_down.weight", LAYER(down), DIM_HIDDEN, DIM_FFN, 0},
    {NULL, 0, DIM_NONE, DIM_NONE, 0},
};

static const family_t families[] = {
    {"llama", llama_top, llama_layer},
};

#define FAMILIES_N (sizeof(families) / sizeof(families[0]))

/* Tensor types that the kernels compute with, in the file's numbering. */
static const uint32_t matrix_types[] = {0, 1, 2, 8, 30};

/* What opening needs beside the model; err is set when a function fails. */
typedef struct {
    const gguf_t *g;
    model_t *m;
    char *err;
    size_t errlen;
} opening_t;

/* "PATH: sentence"; returns 0, which means failure everywhere here. */
__attribute__((format(printf, 2, 3))) static int
fail(opening_t *o, const char *fmt, ...)
{
    int n;
    va_list ap;

    n = snprintf(o->err, o->errlen, "%s: ", gguf_name(o->g));

    if (n >= 0 && (size_t) n < o->errlen) {
        va_start(ap, fmt);
        vsnprintf(o->err + n, o->errlen - (size_t) n, fmt, ap);
        va_end(ap);
    }

    return 0;
}

/* "llama.block_count", in buf */
static const char *
arch_key(const opening_t *o, const char *tail, char *buf, size_t len)
{
    snprintf(buf, len, "%s.%s", o->m->info.arch, tail);
    return buf;
}

/* A required size from 1 to max. */
static int
need_u32(opening_t *o, const char *tail, uint32_t max, uint32_t *v)
{
    char key[128];

    arch_key(o, tail, key, sizeof(key));

    if (!gguf_u32(o->g, key, v)) {
        return fail(o, "key %s: expected a number from 1 to %u, found %s", key,
            max, gguf_has(o->g, key) ? "something else" : "no such key");
    }

    if (*v < 1 || *v > max) {
        return fail(o, "key %s: expected 1 to %u, found %u", key, max, *v);
    }

    return 1;
}

/* The same; *v stays as it is when the key is absent. */
static int
want_u32(opening_t *o, const char *tail, uint32_t max, uint32_t *v)
{
    char key[128];

    if (!gguf_has(o->g, arch_key(o, tail, key, sizeof(key)))) {
        return 1;
    }

    return need_u32(o, tail, max, v);
}

/* A positive, finite number; *v stays as it is when the key is absent. */
static int
want_f32(opening_t *o, const char *tail, float *v)
{
    char key[128];

    if (!gguf_has(o->g, arch_key(o, tail, key, sizeof(key)))) {
        return 1;
    }

    if (!gguf_f32(o->g, key, v) || !isfinite(*v) || !(*v > 0)) {
        return fail(
            o, "key %s: expected a number above 0, found something else", key);
    }

    return 1;
}

static int
read_family(opening_t *o)
{
    size_t i;
    gguf_str_t arch;
    model_info_t *info = &o->m->info;

    if (!gguf_str(o->g, "general.architecture", &arch)) {
        return fail(
            o, "key general.architecture: expected a name, found no such text");
    }

    for (i = 0; i < FAMILIES_N; i++) {
        if (strlen(families[i].arch) == arch.len
            && memcmp(families[i].arch, arch.s, arch.len) == 0) {
            o->m->family = &families[i];
            snprintf(info->arch, sizeof(info->arch), "%s", families[i].arch);
            return 1;
        }
    }

    for (i = 0; i < arch.len && i < sizeof(info->arch) - 1; i++) {
        info->arch[i] = arch.s[i] > ' ' && arch.s[i] < 127 ? arch.s[i] : '?';
    }

    return fail(o,
        "key general.architecture: expected one that is supported (llama), "
        "found \"%s\"",
        info->arch);
}

/* Sizes of the attention's heads; their defaults depend on each other. */
static int
read_heads(opening_t *o)
{
    uint32_t value_dim;
    model_info_t *info = &o->m->info;

    if (!need_u32(o, "attention.head_count", HEADS_MAX, &info->heads)) {
        return 0;
    }

    info->kv_heads = info->heads;
    info->head_dim = info->hidden / info->heads;

    if (!want_u32(o, "attention.head_count_kv", HEADS_MAX, &info->kv_heads)
        || !want_u32(
            o, "attention.key_length", HEAD_DIM_MAX, &info->head_dim)) {
        return 0;
    }

    if (info->heads % info->kv_heads != 0) {
        return fail(o,
            "key %s.attention.head_count_kv: expected a divisor of %u, "
            "found %u",
            info->arch, info->heads, info->kv_heads);
    }

    if (info->head_dim < 2 || info->head_dim > HEAD_DIM_MAX) {
        return fail(o, "size of a head: expected 2 to %d, found %u",
            HEAD_DIM_MAX, info->head_dim);
    }

    value_dim = info->head_dim;
    info->rope_dims = info->head_dim;

    if (!want_u32(o, "attention.value_length", HEAD_DIM_MAX, &value_dim)
        || !want_u32(
            o, "rope.dimension_count", HEAD_DIM_MAX, &info->rope_dims)) {
        return 0;
    }

    if (value_dim != info->head_dim) {
        return fail(o,
            "key %s.attention.value_length: expected the keys' %u, found %u",
            info->arch, info->head_dim, value_dim);
    }

    if (info->rope_dims > info->head_dim || info->rope_dims % 2 != 0) {
        return fail(o,
            "key %s.rope.dimension_count: expected an even number up to %u, "
            "found %u",
            info->arch, info->head_dim, info->rope_dims);
    }

    return 1;
}

/* Base and scaling of the rotary angles. */
static int
read_rope(opening_t *o)
{
    char key[128];
    gguf_str_t type;

    o->m->rope_base = 10000.0f;
    o->m->rope_scale = 1.0f;

    if (!want_f32(o, "rope.freq_base", &o->m->rope_base)) {
        return 0;
    }

    arch_key(o, "rope.scaling.type", key, sizeof(key));

    if (!gguf_str(o->g, key, &type)
        || (type.len == 4 && memcmp(type.s, "none", 4) == 0)) {
        return 1;
    }

    if (type.len != 6 || memcmp(type.s, "linear", 6) != 0) {
        return fail(o,
            "key %s: expected none or linear, found another kind of scaling",
            key);
    }

    return want_f32(o, "rope.scaling.factor", &o->m->rope_scale);
}

/* The vocabulary's size is the embedding's; the tokenizer must fit in it. */
static int
read_vocab(opening_t *o)
{
    uint32_t said;
    gguf_arr_t tokens;
    const gguf_tensor_t *t;
    model_info_t *info = &o->m->info;

    t = gguf_tensor(o->g, "token_embd.weight");

    if (t == NULL) {
        return fail(
            o, "tensor \"token_embd.weight\": expected one, found none");
    }

    if (t->dims[1] > VOCAB_MAX) {
        return fail(o,
            "tensor \"token_embd.weight\": expected at most %u rows, "
            "found %llu",
            VOCAB_MAX, (unsigned long long) t->dims[1]);
    }

    info->vocab = (uint32_t) t->dims[1];
    said = info->vocab;

    if (!want_u32(o, "vocab_size", VOCAB_MAX, &said)) {
        return 0;
    }

    if (said != info->vocab) {
        return fail(o,
            "tensor \"token_embd.weight\": expected %u rows, found %u", said,
            info->vocab);
    }

    if (gguf_arr(o->g, "tokenizer.ggml.tokens", &tokens)
        && tokens.n > info->vocab) {
        return fail(o,
            "key tokenizer.ggml.tokens: expected at most %u tokens, "
            "found %llu",
            info->vocab, (unsigned long long) tokens.n);
    }

    return 1;
}

static int
read_sizes(opening_t *o)
{
    model_info_t *info = &o->m->info;

    if (!need_u32(o, "block_count", LAYERS_MAX, &info->layers)
        || !need_u32(o, "embedding_length", HIDDEN_MAX, &info->hidden)
        || !need_u32(o, "feed_forward_length", FFN_MAX, &info->ffn)
        || !need_u32(o, "context_length", CONTEXT_MAX, &info->context)
        || !read_heads(o) || !read_rope(o) || !read_vocab(o)) {
        return 0;
    }

    info->eps = 1e-5f;
    return want_f32(o, "attention.layer_norm_rms_epsilon", &info->eps);
}

static void
set_dims(model_t *m)
{
    const model_info_t *info = &m->info;

    m->dims[DIM_NONE] = 1;
    m->dims[DIM_HIDDEN] = info->hidden;
    m->dims[DIM_Q] = (uint64_t) info->heads * info->head_dim;
    m->dims[DIM_KV] = (uint64_t) info->kv_heads * info->head_dim;
    m->dims[DIM_FFN] = info->ffn;
    m->dims[DIM_VOCAB] = info->vocab;
    m->dims[DIM_ROPE] = info->rope_dims / 2;
}

static int
type_fits(const tensor_row_t *row, uint32_t type)
{
    size_t i;

    if (row->out == DIM_NONE) {
        return type == matrix_types[0]; /* F32 */
    }

    for (i = 0; i < sizeof(matrix_types) / sizeof(matrix_types[0]); i++) {
        if (type == matrix_types[i]) {
            return 1;
        }
    }

    return 0;
}

/* Finds the tensor called name, checks it against row, puts it in *slot. */
static int
take_tensor(opening_t *o, const tensor_row_t *row, const char *name,
    const gguf_tensor_t **slot)
{
    const gguf_tensor_t *t;
    const uint64_t *dims = o->m->dims;

    assert(row->in < DIMS_N && row->out < DIMS_N && *slot == NULL);
    t = gguf_tensor(o->g, name);

    if (t == NULL) {
        return row->optional
               || fail(o, "tensor \"%s\": expected one, found none", name);
    }

    if (t->dims[0] != dims[row->in] || t->dims[1] != dims[row->out]
        || t->dims[2] != 1 || t->dims[3] != 1) {
        return fail(o,
            "tensor \"%s\": expected shape [%llu, %llu], "
            "found [%llu, %llu, %llu, %llu]",
            name, (unsigned long long) dims[row->in],
            (unsigned long long) dims[row->out],
            (unsigned long long) t->dims[0], (unsigned long long) t->dims[1],
            (unsigned long long) t->dims[2], (unsigned long long) t->dims[3]);
    }

    if (!type_fits(row, t->type)) {
        return fail(o, "tensor \"%s\": expected type %s, found %s", name,
            row->out == DIM_NONE ? "F32" : "F32, F16, BF16, Q8_0 or Q4_0",
            gguf_type_name(t->type));
    }

    *slot = t;
    o->m->info.weight_bytes += t->size;
    return 1;
}

/* Finds the tensors of one list; base is the struct that row->at is of. */
static int
take_list(opening_t *o, const tensor_row_t *row, const char *prefix, void *base,
    uint8_t *used)
{
    char name[96];
    const gguf_tensor_t **slot;

    for (; row->name != NULL; row++) {
        snprintf(name, sizeof(name), "%s%s", prefix, row->name);
        slot = (const gguf_tensor_t **) ((char *) base + row->at);

        if (!take_tensor(o, row, name, slot)) {
            return 0;
        }

        if (*slot != NULL) {
            used[*slot - gguf_tensor_at(o->g, 0)] = 1;
        }
    }

    return 1;
}

/* Refuses a tensor that no list names. */
static int
all_used(opening_t *o, const uint8_t *used)
{
    uint32_t i;
    size_t j;
    char name[64];
    gguf_str_t s;

    for (i = 0; i < gguf_tensors_n(o->g); i++) {
        if (used[i]) {
            continue;
        }

        s = gguf_tensor_at(o->g, i)->name;

        for (j = 0; j < s.len && j < sizeof(name) - 1; j++) {
            name[j] = s.s[j] > ' ' && s.s[j] < 127 ? s.s[j] : '?';
        }

        name[j] = '\0';
        return fail(o,
            "tensor \"%s\": expected only tensors of the %s family, "
            "found this one",
            name, o->m->info.arch);
    }

    return 1;
}

static int
read_tensors(opening_t *o)
{
    int ok = 0;
    uint32_t i;
    uint8_t *used;
    char prefix[32];
    model_t *m = o->m;

    used = calloc(gguf_tensors_n(o->g) + 1, 1);

    if (used == NULL) {
        return fail(o, "tensors: not enough memory");
    }

    if (!take_list(o, m->family->top, "", &m->top, used)) {
        goto done;
    }

    if (m->top.output == NULL) {
        m->top.output = m->top.embed; /* tied */
    }

    for (i = 0; i < m->info.layers; i++) {
        snprintf(prefix, sizeof(prefix), "blk.%u.", i);

        if (!take_list(o, m->family->layer, prefix, &m->layers[i], used)) {
            goto done;
        }
    }

    ok = all_used(o, used);

done:

    free(used);
    return ok;
}

/* The file's name without folders and without ".gguf". */
static void
name_by_file(model_t *m)
{
    size_t n;
    const char *s, *path;

    path = gguf_name(m->g);
    s = strrchr(path, '/');
    s = s != NULL ? s + 1 : path;
    n = strlen(s);

    if (n > 5 && strcmp(s + n - 5, ".gguf") == 0) {
        n -= 5;
    }

    if (n > sizeof(m->info.name) - 1) {
        n = sizeof(m->info.name) - 1;
    }

    memcpy(m->info.name, s, n);
    m->info.name[n] = '\0';
}

model_t *
model_open(const gguf_t *g, char *err, size_t errlen)
{
    model_t *m;
    opening_t o = {.g = g, .err = err, .errlen = errlen};

    assert(g != NULL && err != NULL && errlen > 0);

    m = calloc(1, sizeof(*m));

    if (m == NULL) {
        fail(&o, "model: not enough memory");
        return NULL;
    }

    o.m = m;
    m->g = g;
    m->info.created = gguf_mtime(g);
    name_by_file(m);

    if (!read_family(&o) || !read_sizes(&o)) {
        goto failed;
    }

    set_dims(m);
    m->layers = calloc(m->info.layers, sizeof(*m->layers));

    if (m->layers == NULL) {
        fail(&o, "layers: not enough memory");
        goto failed;
    }

    if (!read_tensors(&o)) {
        goto failed;
    }

    assert(m->top.embed != NULL && m->top.output != NULL);
    assert(m->info.heads % m->info.kv_heads == 0);
    return m;

failed:

    model_close(m);
    return NULL;
}

/* Stand-ins for the tensors of one list, without data. */
static gguf_tensor_t *
make_tensors(
    model_t *m, const tensor_row_t *row, void *base, gguf_tensor_t *next)
{
    for (; row->name != NULL; row++) {
        if (row->optional) {
            continue;
        }

        next->name.s = row->name;
        next->name.len = strlen(row->name);
        next->dims_n = row->out == DIM_NONE ? 1 : 2;
        next->dims[0] = m->dims[row->in];
        next->dims[1] = m->dims[row->out];
        next->dims[2] = 1;
        next->dims[3] = 1;
        *(const gguf_tensor_t **) ((char *) base + row->at) = next++;
    }

    return next;
}

model_t *
model_open_null(uint32_t vocab, uint32_t context)
{
    model_t *m;
    gguf_tensor_t *next;

    assert(vocab > 258 && context > 0);

    m = calloc(1, sizeof(*m));

    if (m == NULL) {
        return NULL;
    }

    m->family = &families[0];
    snprintf(m->info.name, sizeof(m->info.name), "null");
    snprintf(m->info.arch, sizeof(m->info.arch), "null");
    m->info.layers = 1;
    m->info.hidden = 2;
    m->info.heads = 1;
    m->info.kv_heads = 1;
    m->info.head_dim = 2;
    m->info.rope_dims = 2;
    m->info.ffn = 2;
    m->info.vocab = vocab;
    m->info.context = context;
    m->info.eps = 1e-5f;
    m->rope_base = 10000.0f;
    m->rope_scale = 1.0f;
    set_dims(m);

    m->layers = calloc(1, sizeof(*m->layers));
    m->made = calloc(sizeof(llama_top) / sizeof(llama_top[0])
                         + sizeof(llama_layer) / sizeof(llama_layer[0]),
        sizeof(*m->made));

    if (m->layers == NULL || m->made == NULL) {
        model_close(m);
        return NULL;
    }

    next = make_tensors(m, m->family->top, &m->top, m->made);
    make_tensors(m, m->family->layer, &m->layers[0], next);
    m->top.output = m->top.embed;

    return m;
}

void
model_close(model_t *m)
{
    if (m == NULL) {
        return;
    }

    free(m->layers);
    free(m->made);
    free(m);
}

void
model_rename(model_t *m, const char *name)
{
    assert(name != NULL && name[0] != '\0');
    snprintf(m->info.name, sizeof(m->info.name), "%s", name);
}

const model_info_t *
model_info(const model_t *m)
{
    return &m->info;
}

const model_top_t *
model_top(const model_t *m)
{
    return &m->top;
}

const model_layer_t *
model_layer(const model_t *m, uint32_t i)
{
    assert(i < m->info.layers);
    return &m->layers[i];
}

void
model_rope_freqs(const model_t *m, double *freq)
{
    uint32_t i;
    float factor;
    const gguf_tensor_t *t = m->top.rope_factors;

    assert(m->info.rope_dims % 2 == 0 && m->rope_scale > 0);

    for (i = 0; i < m->info.rope_dims / 2; i++) {
        freq[i] = pow(m->rope_base, -2.0 * i / m->info.rope_dims);
        freq[i] /= m->rope_scale;

        if (t != NULL) {
            memcpy(&factor, t->data + i * sizeof(factor), sizeof(factor));
            freq[i] /= factor;
        }
    }
}
