/*
 * A model's shape and weights, found in its container and checked.
 *
 * DESIGN.  A container (GGUF file, Hugging Face directory) is a model_source_t:
 * it finds values by key, and has a table of tensors.  Everything else is here
 * and the same for both: reading reads the sizes from the keys, walks the
 * family's lists of tensors, and refuses a tensor that is missing, of another
 * shape, of a type that cannot be computed with, or that no list names: a
 * weight that is silently left out gives fluent nonsense.
 *
 * ROTARY PAIRS.  llama.cpp's converter permutes the rows of q and k so that
 * the two elements of a rotary pair are neighbours, for some families; Hugging
 * Face has them half a head apart.  The layout is a flag of the model that the
 * op rope_store takes (`halves`), rather than a permutation while loading:
 * then a weight keeps the bytes of its file, whatever its quantisation, and
 * what goes with the rows (biases, norms of q and k, fused q-k-v, adapters
 * that are loaded later) needs no permuting along.  The rotation is the only
 * place that sees the layout; it is elementwise, so rows stay independent of
 * the batch, and each pair is rotated by the same two products either way.
 *
 * Every size is held against a cap before anything is multiplied or allocated
 * with it: files are input.  What passes here, forward.c relies on.
 *
 * A model_t owns its layer table and its container, but for one that it was
 * lent; tensors point into that one's mapping.  It is read-only after opening
 * (and renaming), so any thread may look.
 */
#include "model_impl.h"

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

/* Tensor types that a matrix may have. */
static const uint32_t matrix_types[] = {TENSOR_F32, TENSOR_F16, TENSOR_BF16,
    TENSOR_Q8_0, TENSOR_Q4_0, TENSOR_F8_E4M3};

/* What reading needs beside the model; err is set when a function fails. */
typedef struct {
    const model_source_t *s;
    const model_family_t *f;
    model_t *m;
    char *err;
    size_t errlen;
    uint8_t *used; /* [s->tensors_n] */
} opening_t;

/* The name of a key, long enough for any alternative's. */
typedef struct {
    char s[128];
} key_name_t;


/* --- keys --------------------------------------------------------------- */

/* "FILE: sentence"; returns 0, which means failure everywhere here. */
__attribute__((format(printf, 3, 4))) static int
fail(opening_t *o, const char *file, const char *fmt, ...)
{
    int n;
    va_list ap;

    n = snprintf(o->err, o->errlen, "%s: ", file);

    if (n >= 0 && (size_t) n < o->errlen) {
        va_start(ap, fmt);
        vsnprintf(o->err + n, o->errlen - (size_t) n, fmt, ap);
        va_end(ap);
    }

    return 0;
}

static int
find_key(opening_t *o, model_key_t key, key_name_t *name)
{
    return o->s->find(o->s, o->f, key, name->s, sizeof(name->s));
}

static const char *
key_name(opening_t *o, model_key_t key, key_name_t *name)
{
    (void) find_key(o, key, name);
    return name->s;
}

/* A required size from 1 to max. */
static int
need_u32(opening_t *o, model_key_t key, uint32_t max, uint32_t *v)
{
    int there;
    key_name_t name;

    assert(max > 0 && v != NULL);
    there = find_key(o, key, &name);

    if (!there || !o->s->u32(o->s->at, name.s, v)) {
        return fail(o, o->s->keys,
            "key %s: expected a number from 1 to %u, found %s", name.s, max,
            there ? "something else" : "no such key");
    }

    if (*v < 1 || *v > max) {
        return fail(o, o->s->keys, "key %s: expected 1 to %u, found %u", name.s,
            max, *v);
    }

    return 1;
}

/* The same; *v stays as it is when the key is absent. */
static int
want_u32(opening_t *o, model_key_t key, uint32_t max, uint32_t *v)
{
    key_name_t name;

    return !find_key(o, key, &name) || need_u32(o, key, max, v);
}

/* A required number that is positive and finite. */
static int
need_f32(opening_t *o, model_key_t key, float *v)
{
    int there;
    key_name_t name;

    there = find_key(o, key, &name);

    if (!there || !o->s->f32(o->s->at, name.s, v) || !isfinite(*v)
        || !(*v > 0)) {
        return fail(o, o->s->keys,
            "key %s: expected a number above 0, found %s", name.s,
            there ? "something else" : "no such key");
    }

    return 1;
}

/* The same; *v stays as it is when the key is absent. */
static int
want_f32(opening_t *o, model_key_t key, float *v)
{
    key_name_t name;

    return !find_key(o, key, &name) || need_f32(o, key, v);
}

/* True or false; *v stays as it is when the key is absent. */
static int
want_flag(opening_t *o, model_key_t key, int *v)
{
    char word[32];
    key_name_t name;

    if (!find_key(o, key, &name)) {
        return 1;
    }

    if (!o->s->word(o->s->at, name.s, word, sizeof(word))
        || (strcmp(word, "true") != 0 && strcmp(word, "false") != 0)) {
        return fail(o, o->s->keys,
            "key %s: expected true or false, found something else", name.s);
    }

    *v = strcmp(word, "true") == 0;
    return 1;
}

/* Keys that would change what is computed have the value that does not. */
static int
check_musts(opening_t *o)
{
    char word[64];
    const model_must_t *must;

    assert(o->f->musts != NULL);

    for (must = o->f->musts; must->key != NULL; must++) {
        if (!o->s->has(o->s->at, must->key)) {
            continue;
        }

        if (!o->s->word(o->s->at, must->key, word, sizeof(word))) {
            snprintf(word, sizeof(word), "something else");
        }

        if (strcmp(word, must->value) != 0) {
            return fail(o, o->s->keys,
                "key %s: expected %s, as nothing else is built for the %s "
                "family, found %s",
                must->key, must->value, o->m->info.arch, word);
        }
    }

    return 1;
}

/* Sizes of the attention's heads; their defaults depend on each other. */
static int
read_heads(opening_t *o)
{
    key_name_t name;
    uint32_t value_dim;
    model_info_t *info = &o->m->info;

    assert(info->hidden > 0);

    if (!need_u32(o, MODEL_KEY_HEADS, HEADS_MAX, &info->heads)) {
        return 0;
    }

    info->kv_heads = info->heads;
    info->head_dim = info->hidden / info->heads;

    if (!want_u32(o, MODEL_KEY_KV_HEADS, HEADS_MAX, &info->kv_heads)
        || !want_u32(o, MODEL_KEY_HEAD_DIM, HEAD_DIM_MAX, &info->head_dim)) {
        return 0;
    }

    if (info->heads % info->kv_heads != 0) {
        return fail(o, o->s->keys, "key %s: expected a divisor of %u, found %u",
            key_name(o, MODEL_KEY_KV_HEADS, &name), info->heads,
            info->kv_heads);
    }

    if (info->head_dim < 2 || info->head_dim > HEAD_DIM_MAX) {
        return fail(o, o->s->keys, "size of a head: expected 2 to %d, found %u",
            HEAD_DIM_MAX, info->head_dim);
    }

    value_dim = info->head_dim;
    info->rope_dims = info->head_dim;

    if (!want_u32(o, MODEL_KEY_VALUE_DIM, HEAD_DIM_MAX, &value_dim)
        || !want_u32(o, MODEL_KEY_ROPE_DIMS, HEAD_DIM_MAX, &info->rope_dims)) {
        return 0;
    }

    if (value_dim != info->head_dim) {
        return fail(o, o->s->keys, "key %s: expected the keys' %u, found %u",
            key_name(o, MODEL_KEY_VALUE_DIM, &name), info->head_dim, value_dim);
    }

    if (info->rope_dims > info->head_dim || info->rope_dims % 2 != 0) {
        return fail(o, o->s->keys,
            "key %s: expected an even number up to %u, found %u",
            key_name(o, MODEL_KEY_ROPE_DIMS, &name), info->head_dim,
            info->rope_dims);
    }

    return 1;
}


/* --- rotary angles ------------------------------------------------------ */

static const char *const rope_names[MODEL_ROPES_N] = {
#define X(id, name) name,
    MODEL_ROPES(X)
#undef X
};

static int
read_rope_kind(opening_t *o)
{
    size_t i;
    char word[32];
    key_name_t name;

    if (!find_key(o, MODEL_KEY_ROPE_KIND, &name)) {
        return 1;
    }

    if (!o->s->word(o->s->at, name.s, word, sizeof(word))) {
        snprintf(word, sizeof(word), "something else");
    }

    for (i = 0; i < MODEL_ROPES_N; i++) {
        if (strcmp(word, rope_names[i]) == 0) {
            o->m->rope.kind = (model_rope_kind_t) i;
            return 1;
        }
    }

    return fail(o, o->s->keys,
        "key %s: expected none, default, linear or llama3, found %s", name.s,
        word);
}

/* Base and scaling of the angles. */
static int
read_rope(opening_t *o)
{
    key_name_t name;
    model_rope_t *r = &o->m->rope;
    unsigned halves;

    halves = o->s->container == MODEL_HF ? MODEL_HF_HALVES : MODEL_GGUF_HALVES;
    o->m->info.rope_halves = (o->f->flags & halves) != 0;
    r->kind = MODEL_ROPE_NONE;
    r->base = 10000.0f;
    r->factor = 1.0f;

    if (!want_f32(o, MODEL_KEY_ROPE_BASE, &r->base) || !read_rope_kind(o)) {
        return 0;
    }

    if (r->kind == MODEL_ROPE_LINEAR) {
        return want_f32(o, MODEL_KEY_ROPE_FACTOR, &r->factor);
    }

    if (r->kind != MODEL_ROPE_LLAMA3) {
        return 1;
    }

    if (!need_f32(o, MODEL_KEY_ROPE_FACTOR, &r->factor)
        || !need_f32(o, MODEL_KEY_ROPE_LOW, &r->low)
        || !need_f32(o, MODEL_KEY_ROPE_HIGH, &r->high)
        || !need_u32(o, MODEL_KEY_ROPE_ORIGINAL, CONTEXT_MAX, &r->original)) {
        return 0;
    }

    if (!(r->low < r->high)) {
        return fail(o, o->s->keys,
            "key %s: expected a number above low_freq_factor's %g, found %g",
            key_name(o, MODEL_KEY_ROPE_HIGH, &name), r->low, r->high);
    }

    return 1;
}

/*
 * Llama 3's scaling: slow angles are divided by the factor, fast ones stay,
 * and in between the two are mixed.
 */
static double
llama3_freq(const model_rope_t *r, double freq)
{
    double turns, mix;

    assert(r->low < r->high && r->factor > 0);
    turns = r->original * freq / (2 * M_PI); /* in the original context */

    if (turns < r->low) {
        return freq / r->factor;
    }

    if (turns > r->high) {
        return freq;
    }

    mix = (turns - r->low) / (r->high - r->low);
    return (1 - mix) * freq / r->factor + mix * freq;
}

double
model_rope_freqs(const model_t *m, uint32_t set, uint32_t context, double *freq)
{
    uint32_t i;
    float factor;
    const model_rope_t *r = &m->rope;
    const tensor_t *t = m->top.rope_factors;

    (void) context;
    assert(set < m->info.ropes);
    assert(m->info.rope_dims % 2 == 0 && r->factor > 0);

    for (i = 0; i < m->info.rope_dims / 2; i++) {
        freq[i] = pow(r->base, -2.0 * i / m->info.rope_dims);
        freq[i] = r->kind == MODEL_ROPE_LLAMA3 ? llama3_freq(r, freq[i])
                                               : freq[i] / r->factor;

        if (t != NULL) {
            tensor_plain(t->type,
                t->data + (uint64_t) i * tensor_block_bytes(t->type), 1,
                &factor);
            freq[i] /= factor;
        }
    }

    return 1;
}


/* --- sizes -------------------------------------------------------------- */

/* The row of a list whose pointer goes to at. */
static const model_row_t *
row_at(const model_row_t *row, size_t at)
{
    while (row->at != at) {
        assert(row->name[MODEL_GGUF] != NULL || row->name[MODEL_HF] != NULL);
        row++;
    }

    return row;
}

static const tensor_t *
find_top(opening_t *o, size_t at, const char **name)
{
    *name = row_at(o->f->top, at)->name[o->s->container];
    return tensor_find(o->s->tensors, o->s->tensors_n, *name);
}

/* The vocabulary's size is the embedding's; the tokenizer must fit in it. */
static int
read_vocab(opening_t *o)
{
    uint32_t said;
    const tensor_t *t;
    const char *name, *embed;
    model_info_t *info = &o->m->info;

    t = find_top(o, offsetof(model_top_t, embed), &embed);
    name = embed;

    if (t == NULL && o->s->container == MODEL_HF && o->m->tied) {
        t = find_top(o, offsetof(model_top_t, output), &name);
    }

    if (t == NULL) {
        return fail(
            o, o->s->weights, "tensor \"%s\": expected one, found none", embed);
    }

    if (t->dims[1] < 1 || t->dims[1] > VOCAB_MAX) {
        return fail(o, o->s->weights,
            "tensor \"%s\": expected at most %u rows, found %llu", name,
            VOCAB_MAX, (unsigned long long) t->dims[1]);
    }

    info->vocab = (uint32_t) t->dims[1];
    said = info->vocab;

    if (!want_u32(o, MODEL_KEY_VOCAB, VOCAB_MAX, &said)) {
        return 0;
    }

    if (said != info->vocab) {
        return fail(o, o->s->weights,
            "tensor \"%s\": expected %u rows, found %u", name, said,
            info->vocab);
    }

    if (o->s->tokens_n > info->vocab) {
        return fail(o, o->s->keys,
            "key tokenizer.ggml.tokens: expected at most %u tokens, "
            "found %llu",
            info->vocab, (unsigned long long) o->s->tokens_n);
    }

    return 1;
}

static int
read_sizes(opening_t *o)
{
    model_info_t *info = &o->m->info;

    o->m->tied = (o->f->flags & MODEL_TIED) != 0;
    info->eps = 1e-5f;

    return need_u32(o, MODEL_KEY_LAYERS, LAYERS_MAX, &info->layers)
           && need_u32(o, MODEL_KEY_HIDDEN, HIDDEN_MAX, &info->hidden)
           && need_u32(o, MODEL_KEY_FFN, FFN_MAX, &info->ffn)
           && need_u32(o, MODEL_KEY_CONTEXT, CONTEXT_MAX, &info->context)
           && want_flag(o, MODEL_KEY_TIED, &o->m->tied) && read_heads(o)
           && read_rope(o) && want_f32(o, MODEL_KEY_EPS, &info->eps)
           && check_musts(o) && read_vocab(o);
}

void
model_set_dims(model_t *m)
{
    model_info_t *info = &m->info;

    info->ropes = 1;
    info->embed_scale = 1;
    info->attn_scale = 1.0f / sqrtf((float) info->head_dim);
    info->residual_scale = 1;
    info->logit_scale = 1;

    m->dims[MODEL_DIM_NONE] = 1;
    m->dims[MODEL_DIM_HIDDEN] = info->hidden;
    m->dims[MODEL_DIM_Q] = (uint64_t) info->heads * info->head_dim;
    m->dims[MODEL_DIM_KV] = (uint64_t) info->kv_heads * info->head_dim;
    m->dims[MODEL_DIM_FFN] = info->ffn;
    m->dims[MODEL_DIM_VOCAB] = info->vocab;
    m->dims[MODEL_DIM_ROPE] = info->rope_dims / 2;
}


/* --- tensors ------------------------------------------------------------ */

int
model_is_matrix(uint32_t type)
{
    size_t i;

    for (i = 0; i < sizeof(matrix_types) / sizeof(matrix_types[0]); i++) {
        if (type == matrix_types[i]) {
            return 1;
        }
    }

    return 0;
}

static int
check_type(opening_t *o, const model_row_t *row, const tensor_t *t)
{
    size_t i, at = 0;
    char list[128] = "F32, F16 or BF16";

    if (row->out == MODEL_DIM_NONE
            ? tensor_is_plain(t->type) && t->type != TENSOR_F8_E4M3
            : model_is_matrix(t->type)) {
        return 1;
    }

    for (i = 0; row->out != MODEL_DIM_NONE
                && i < sizeof(matrix_types) / sizeof(matrix_types[0]);
         i++) {
        at += (size_t) snprintf(list + at, sizeof(list) - at, "%s%s",
            i == 0 ? "" : ", ", tensor_type_name(matrix_types[i]));
        assert(at < sizeof(list));
    }

    return fail(o, o->s->weights, "tensor \"%s\": expected type %s, found %s",
        tensor_shown(t->name).s, list, tensor_type_name(t->type));
}

/* Finds the tensor called name, checks it against row, puts it in *slot. */
static int
take_tensor(opening_t *o, const model_row_t *row, const char *name,
    const tensor_t **slot)
{
    const tensor_t *t;
    const uint64_t *dims = o->m->dims;

    assert(row->in < MODEL_DIMS && row->out < MODEL_DIMS);
    t = tensor_find(o->s->tensors, o->s->tensors_n, name);

    if (t == NULL) {
        return row->flags != 0
               || fail(o, o->s->weights,
                   "tensor \"%s\": expected one, found none", name);
    }

    o->used[t - o->s->tensors] = 1;

    if (row->flags & MODEL_UNUSED) {
        return 1;
    }

    if (t->dims[0] != dims[row->in] || t->dims[1] != dims[row->out]
        || t->dims[2] != 1 || t->dims[3] != 1) {
        return fail(o, o->s->weights,
            "tensor \"%s\": expected shape [%llu, %llu], "
            "found [%llu, %llu, %llu, %llu]",
            name, (unsigned long long) dims[row->in],
            (unsigned long long) dims[row->out],
            (unsigned long long) t->dims[0], (unsigned long long) t->dims[1],
            (unsigned long long) t->dims[2], (unsigned long long) t->dims[3]);
    }

    assert(*slot == NULL);
    *slot = t;
    o->m->info.weight_bytes += t->size;
    return check_type(o, row, t);
}

/* Finds the tensors of one list; base is the struct that row->at is of. */
static int
take_list(opening_t *o, const model_row_t *row, const char *prefix, void *base)
{
    char name[96];
    const char *tail;

    for (; row->name[0] != NULL || row->name[1] != NULL; row++) {
        tail = row->name[o->s->container];

        if (tail == NULL) {
            continue;
        }

        snprintf(name, sizeof(name), "%s%s", prefix, tail);

        if (!take_tensor(o, row, name,
                (const tensor_t **) (void *) ((char *) base + row->at))) {
            return 0;
        }
    }

    return 1;
}

/*
 * Embeddings that are tied are stored under either name or both, and those of
 * the input count.  A GGUF file says that they are by having no output.
 */
static int
tie(opening_t *o)
{
    model_t *m = o->m;
    model_top_t *top = &m->top;
    const char *name;

    assert(m->dims[MODEL_DIM_VOCAB] > 0);

    if (o->s->container == MODEL_GGUF) {
        m->tied = top->output == NULL;
    }

    if (m->tied && top->embed == NULL) {
        top->embed = top->output;
    }

    if (top->embed == NULL || (top->output == NULL && !m->tied)) {
        (void) find_top(o,
            top->embed == NULL ? offsetof(model_top_t, embed)
                               : offsetof(model_top_t, output),
            &name);
        return fail(
            o, o->s->weights, "tensor \"%s\": expected one, found none", name);
    }

    if (m->tied && top->output != NULL && top->output != top->embed) {
        m->info.weight_bytes -= top->output->size;
    }

    if (m->tied) {
        top->output = top->embed;
    }

    return 1;
}

/* Refuses a tensor that no list names. */
static int
all_used(opening_t *o)
{
    uint32_t i;

    for (i = 0; i < o->s->tensors_n; i++) {
        if (!o->used[i]) {
            return fail(o, o->s->weights,
                "tensor \"%s\": expected only tensors of the %s family, "
                "found this one",
                tensor_shown(o->s->tensors[i].name).s, o->m->info.arch);
        }
    }

    return 1;
}

static int
read_tensors(opening_t *o)
{
    uint32_t i;
    char prefix[64];
    model_t *m = o->m;

    assert(m->info.layers > 0 && o->used != NULL);

    if (!take_list(o, o->f->top, "", &m->top) || !tie(o)) {
        return 0;
    }

    for (i = 0; i < m->info.layers; i++) {
        model_family_prefix(o->f, o->s->container, i, prefix, sizeof(prefix));

        if (!take_list(o, o->f->layer, prefix, &m->layers[i])) {
            return 0;
        }
    }

    return all_used(o);
}

int
model_read(model_t *m, const model_family_t *f, const model_source_t *s,
    char *err, size_t errlen)
{
    int ok = 0;
    opening_t o = {.s = s, .f = f, .m = m, .err = err, .errlen = errlen};

    assert(m->layers == NULL && s->container < MODEL_CONTAINERS);
    m->family = f;
    snprintf(m->info.arch, sizeof(m->info.arch), "%s", f->arch[s->container]);

    if (!read_sizes(&o)) {
        return 0;
    }

    model_set_dims(m);
    m->layers = calloc(m->info.layers, sizeof(*m->layers));
    o.used = calloc((size_t) s->tensors_n + 1, 1);

    if (m->layers == NULL || o.used == NULL) {
        fail(&o, s->weights, "layers: not enough memory");
    } else {
        ok = read_tensors(&o);
    }

    free(o.used);
    assert(!ok || (m->top.embed != NULL && m->top.output != NULL));
    assert(!ok || m->info.heads % m->info.kv_heads == 0);
    return ok;
}


/* --- opening and looking ------------------------------------------------ */

model_t *
model_new(const char *file, char *err, size_t errlen)
{
    model_t *m;

    m = calloc(1, sizeof(*m));

    if (m == NULL) {
        snprintf(err, errlen, "%s: model: not enough memory", file);
    }

    return m;
}

void
model_name(model_t *m, const char *path, const char *suffix)
{
    size_t n, end = strlen(suffix);
    const char *s;

    assert(path != NULL && path[0] != '\0');

    s = strrchr(path, '/');
    s = s != NULL ? s + 1 : path;
    n = strlen(s);

    if (n > end && strcmp(s + n - end, suffix) == 0) {
        n -= end;
    }

    if (n > sizeof(m->info.name) - 1) {
        n = sizeof(m->info.name) - 1;
    }

    memcpy(m->info.name, s, n);
    m->info.name[n] = '\0';
}

model_t *
model_open(const char *path, char *err, size_t errlen)
{
    model_t *m;
    gguf_t *g;

    assert(path != NULL && err != NULL && errlen > 0);

    if (model_hf_is(path)) {
        return model_hf_open(path, err, errlen);
    }

    g = gguf_open(path, err, errlen);

    if (g == NULL) {
        return NULL;
    }

    m = model_open_gguf(g, err, errlen);

    if (m == NULL) {
        gguf_close(g);
        return NULL;
    }

    m->owns_gguf = 1;
    return m;
}

void
model_close(model_t *m)
{
    if (m == NULL) {
        return;
    }

    assert(m->gguf == NULL || m->hf == NULL);

    if (m->owns_gguf) {
        gguf_close((gguf_t *) (uintptr_t) m->gguf);
    }

    model_hf_close(m->hf);
    free(m->layers);
    free(m->made);
    free(m);
}

const gguf_t *
model_gguf(const model_t *m)
{
    return m->gguf;
}

const char *
model_dir(const model_t *m)
{
    return m->hf != NULL ? model_hf_dir(m->hf) : NULL;
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
