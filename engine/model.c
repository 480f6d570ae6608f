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
#include <sys/mman.h>
#include <unistd.h>

/* Several times the largest models there are; products fit 64 bits. */
#define HIDDEN_MAX   (1u << 17)
#define HEADS_MAX    1024
#define HEAD_DIM_MAX 512
#define VOCAB_MAX    (1u << 22)

/* Tensor types that a matrix may have: the kernels', and F8_E4M3. */
static const uint32_t matrix_types[] = {TENSOR_F32, TENSOR_F16, TENSOR_BF16,
    TENSOR_Q4_0, TENSOR_Q4_1, TENSOR_Q5_0, TENSOR_Q5_1, TENSOR_Q8_0,
    TENSOR_Q2_K, TENSOR_Q3_K, TENSOR_Q4_K, TENSOR_Q5_K, TENSOR_Q6_K,
    TENSOR_IQ3_XXS, TENSOR_IQ3_S, TENSOR_IQ4_NL, TENSOR_IQ4_XS, TENSOR_TQ1_0,
    TENSOR_TQ2_0, TENSOR_MXFP4, TENSOR_F8_E4M3};


/* --- sizes -------------------------------------------------------------- */

/* Sizes of the attention's heads; their defaults depend on each other. */
static int
read_heads(model_opening_t *o)
{
    model_key_name_t name;
    uint32_t value_dim;
    float part = 1;
    model_info_t *info = &o->m->info;

    assert(info->hidden > 0);

    if (!model_need_u32(o, MODEL_KEY_HEADS, HEADS_MAX, &info->heads)) {
        return 0;
    }

    info->kv_heads = info->heads;
    info->head_dim = info->hidden / info->heads;

    if (!model_want_u32(o, MODEL_KEY_KV_HEADS, HEADS_MAX, &info->kv_heads)
        || !model_want_u32(
            o, MODEL_KEY_HEAD_DIM, HEAD_DIM_MAX, &info->head_dim)) {
        return 0;
    }

    if (info->heads % info->kv_heads != 0) {
        return model_fail(o, o->s->keys,
            "key %s: expected a divisor of %u, found %u",
            model_key_shown(o, MODEL_KEY_KV_HEADS, &name), info->heads,
            info->kv_heads);
    }

    if (info->head_dim < 2 || info->head_dim > HEAD_DIM_MAX) {
        return model_fail(o, o->s->keys,
            "size of a head: expected 2 to %d, found %u", HEAD_DIM_MAX,
            info->head_dim);
    }

    value_dim = info->head_dim;

    if (!model_want_f32(o, MODEL_KEY_ROPE_PART, &part)) {
        return 0;
    }

    if (part > 1) {
        return model_fail(o, o->s->keys,
            "key %s: expected a part of the head, found %g",
            model_key_shown(o, MODEL_KEY_ROPE_PART, &name), part);
    }

    info->rope_dims = (uint32_t) ((float) info->head_dim * part);

    if (!model_want_u32(o, MODEL_KEY_VALUE_DIM, HEAD_DIM_MAX, &value_dim)
        || !model_want_u32(
            o, MODEL_KEY_ROPE_DIMS, HEAD_DIM_MAX, &info->rope_dims)) {
        return 0;
    }

    if (value_dim != info->head_dim) {
        return model_fail(o, o->s->keys,
            "key %s: expected the keys' %u, found %u",
            model_key_shown(o, MODEL_KEY_VALUE_DIM, &name), info->head_dim,
            value_dim);
    }

    if (info->rope_dims < 2 || info->rope_dims > info->head_dim
        || info->rope_dims % 2 != 0) {
        return model_fail(o, o->s->keys,
            "key %s: expected an even number up to %u, found %u",
            model_key_shown(o, MODEL_KEY_ROPE_DIMS, &name), info->head_dim,
            info->rope_dims);
    }

    return 1;
}


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
find_top(model_opening_t *o, size_t at, const char **name)
{
    *name = row_at(o->f->top, at)->name[o->s->container];
    return tensor_find(o->s->tensors, o->s->tensors_n, *name);
}

/* The vocabulary's size is the embedding's; the tokenizer must fit in it. */
static int
read_vocab(model_opening_t *o)
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
        return model_fail(
            o, o->s->weights, "tensor \"%s\": expected one, found none", embed);
    }

    if (t->dims[1] < 1 || t->dims[1] > VOCAB_MAX) {
        return model_fail(o, o->s->weights,
            "tensor \"%s\": expected at most %u rows, found %llu", name,
            VOCAB_MAX, (unsigned long long) t->dims[1]);
    }

    info->vocab = (uint32_t) t->dims[1];
    said = info->vocab;

    if (!model_want_u32(o, MODEL_KEY_VOCAB, VOCAB_MAX, &said)) {
        return 0;
    }

    if (said != info->vocab) {
        return model_fail(o, o->s->weights,
            "tensor \"%s\": expected %u rows, found %u", name, said,
            info->vocab);
    }

    if (o->s->tokens_n > info->vocab) {
        return model_fail(o, o->s->keys,
            "key tokenizer.ggml.tokens: expected at most %u tokens, "
            "found %llu",
            info->vocab, (unsigned long long) o->s->tokens_n);
    }

    return 1;
}

static int
read_sizes(model_opening_t *o)
{
    model_info_t *info = &o->m->info;

    o->m->tied = (o->f->flags & MODEL_TIED) != 0;
    info->eps = 1e-5f;

    return model_need_u32(o, MODEL_KEY_LAYERS, MODEL_LAYERS_MAX, &info->layers)
           && model_need_u32(o, MODEL_KEY_HIDDEN, HIDDEN_MAX, &info->hidden)
           && model_need_u32(o, MODEL_KEY_FFN, MODEL_FFN_MAX, &info->ffn)
           && model_need_u32(
               o, MODEL_KEY_CONTEXT, MODEL_CONTEXT_MAX, &info->context)
           && model_want_flag(o, MODEL_KEY_TIED, &o->m->tied) && read_heads(o)
           && model_read_ropes(o)
           && model_want_f32(o, MODEL_KEY_EPS, &info->eps)
           && model_check_musts(o) && model_read_rules(o) && read_vocab(o);
}

void
model_set_dims(model_t *m)
{
    const model_info_t *info = &m->info;

    m->dims[MODEL_DIM_NONE] = 1;
    m->dims[MODEL_DIM_HIDDEN] = info->hidden;
    m->dims[MODEL_DIM_Q] = (uint64_t) info->heads * info->head_dim;
    m->dims[MODEL_DIM_KV] = (uint64_t) info->kv_heads * info->head_dim;
    m->dims[MODEL_DIM_QKV] = m->dims[MODEL_DIM_Q] + 2 * m->dims[MODEL_DIM_KV];
    m->dims[MODEL_DIM_HEAD] = info->head_dim;
    m->dims[MODEL_DIM_HEADS] = info->heads;
    m->dims[MODEL_DIM_FFN] = info->ffn;
    m->dims[MODEL_DIM_EXPERTS] = info->experts;
    m->dims[MODEL_DIM_EXPERT] = info->expert_ffn;
    m->dims[MODEL_DIM_EXPERT_GATE_UP] = 2 * (uint64_t) info->expert_ffn;
    m->dims[MODEL_DIM_SHARED] = info->shared_ffn;
    m->dims[MODEL_DIM_GATE_UP] = 2 * (uint64_t) info->ffn;
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

/* A type that the row's tensor may have; norms and biases are small. */
static int
check_type(model_opening_t *o, const model_row_t *row, const tensor_t *t)
{
    size_t i, at = 0;
    char list[256] = "F32, F16 or BF16";
    int vectors =
        row->out == MODEL_DIM_NONE || (row->flags & MODEL_VECTORS) != 0;

    if (vectors ? tensor_is_plain(t->type) && t->type != TENSOR_F8_E4M3
                : model_is_matrix(t->type)) {
        return 1;
    }

    for (i = 0; !vectors && i < sizeof(matrix_types) / sizeof(matrix_types[0]);
         i++) {
        at += (size_t) snprintf(list + at, sizeof(list) - at, "%s%s",
            i == 0 ? "" : ", ", tensor_type_name(matrix_types[i]));
        assert(at < sizeof(list));
    }

    return model_fail(o, o->s->weights,
        "tensor \"%s\": expected type %s, found %s", tensor_shown(t->name).s,
        list, tensor_type_name(t->type));
}

/* The vectors that t's are made of, whose elements take turns in them. */
static void
take_turns(
    model_opening_t *o, const model_row_t *row, const tensor_t *t, void *base)
{
    uint32_t i, n = 0, bytes = tensor_block_bytes(t->type);
    tensor_t *view;

    assert(tensor_is_plain(t->type) && tensor_is_dense(t));

    while (row->pieces[n].out != MODEL_DIM_NONE) {
        n++;
    }

    for (i = 0; i < n; i++) {
        view = o->piece++;
        *view = *t;
        view->dims[0] = o->m->dims[row->pieces[i].out];
        view->size = view->dims[0] * view->dims[1] * bytes;
        view->data = t->data + i * bytes;
        view->lay = o->lay;
        o->lay->elem_step = n * bytes;
        o->lay++->row_step = (uint32_t) t->dims[0] * bytes;
        assert(view->dims[0] * n == t->dims[0]);
        *(const tensor_t **) (void *) ((char *) base + row->pieces[i].at) =
            view;
    }
}

/* The tensors that t is made of, each a view of some of its rows. */
static void
take_pieces(
    model_opening_t *o, const model_row_t *row, const tensor_t *t, void *base)
{
    uint64_t bytes, from = 0;
    const model_piece_t *p;
    tensor_t *view;

    assert(t->dims[1] > 0 && t->size % t->dims[1] == 0);
    bytes = t->size / t->dims[1];

    for (p = row->pieces; p->out != MODEL_DIM_NONE; p++) {
        view = o->piece++;
        *view = *t;
        view->dims[1] = o->m->dims[p->out];
        view->size = view->dims[1] * bytes;
        view->data = t->data + from;
        from += view->size;
        *(const tensor_t **) (void *) ((char *) base + p->at) = view;
    }

    assert(from == t->size);
}

/* How many pieces the tensors of a list have. */
static uint32_t
count_pieces(const model_row_t *row)
{
    uint32_t n = 0;
    const model_piece_t *p;

    for (; row->name[0] != NULL || row->name[1] != NULL; row++) {
        for (p = row->pieces; p != NULL && p->out != MODEL_DIM_NONE; p++) {
            n++;
        }
    }

    return n;
}

/* The tensor called name; missing is what a list may do without. */
static const tensor_t *
find_tensor(
    model_opening_t *o, const model_row_t *row, const char *name, int *missing)
{
    const tensor_t *t;

    assert(row->in < MODEL_DIMS && row->out < MODEL_DIMS);
    t = tensor_find(o->s->tensors, o->s->tensors_n, name);
    *missing = t == NULL && (row->flags & (MODEL_OPTIONAL | MODEL_UNUSED)) != 0;

    if (t != NULL) {
        o->used[t - o->s->tensors] = 1;
    } else if (!*missing) {
        model_fail(
            o, o->s->weights, "tensor \"%s\": expected one, found none", name);
    }

    return t;
}

/* Are the rows of t its inputs? */
static int
is_across(const model_row_t *row, const tensor_t *t)
{
    return (row->flags & MODEL_ACROSS) != 0 && t->type != TENSOR_MXFP4;
}

/* Is t of the row's shape, so many in one, and of a type for it? */
static int
check_tensor(model_opening_t *o, const model_row_t *row, const tensor_t *t,
    uint64_t depth)
{
    char more[32] = "";
    uint64_t in = o->m->dims[row->in], out = o->m->dims[row->out];
    int views = row->pieces != NULL || depth > 1;
    int across = is_across(row, t);

    if (depth > 1) {
        snprintf(more, sizeof(more), ", %llu", (unsigned long long) depth);
    }

    if (t->dims[0] != (across ? out : in) || t->dims[1] != (across ? in : out)
        || t->dims[2] != depth || t->dims[3] != 1) {
        return model_fail(o, o->s->weights,
            "tensor \"%s\": expected shape [%llu, %llu%s], "
            "found [%llu, %llu, %llu, %llu]",
            tensor_shown(t->name).s, (unsigned long long) (across ? out : in),
            (unsigned long long) (across ? in : out), more,
            (unsigned long long) t->dims[0], (unsigned long long) t->dims[1],
            (unsigned long long) t->dims[2], (unsigned long long) t->dims[3]);
    }

    if (views
        && (tensor_scale(t) != NULL
            || (!tensor_is_dense(t) && (row->flags & MODEL_ACROSS) == 0))) {
        return model_fail(o, o->s->weights,
            "tensor \"%s\": expected a fused matrix without factors of blocks, "
            "found some",
            tensor_shown(t->name).s);
    }

    o->m->info.weight_bytes += t->size;
    return check_type(o, row, t);
}

/* A list of the experts' tensors in *slot, with room for views; NULL if not. */
static tensor_t *
new_experts(model_opening_t *o, const tensor_t ***slot)
{
    uint32_t n = o->m->info.experts;

    assert(n > 0 && *slot == NULL);
    *slot = calloc(n, sizeof(**slot) + sizeof(tensor_t) + sizeof(tensor_lay_t));

    if (*slot == NULL) {
        model_fail(o, o->s->weights, "experts: not enough memory");
        return NULL;
    }

    return (tensor_t *) (void *) (*slot + n);
}

/*
 * Piece i of n that take turns, of out rows, of each expert's matrix in t:
 * views in *slot, none of them dense.
 */
static int
take_piece(model_opening_t *o, const model_row_t *row, const tensor_t *t,
    uint32_t i, uint32_t n, uint64_t out, const tensor_t ***slot)
{
    uint32_t e;
    uint64_t step, in = o->m->dims[row->in], bytes;
    int across = is_across(row, t);
    tensor_t *views = new_experts(o, slot);
    tensor_lay_t *lay;

    if (views == NULL) {
        return 0;
    }

    lay = (tensor_lay_t *) (void *) (views + o->m->info.experts);

    for (e = 0; e < o->m->info.experts; e++, views++, lay++) {
        *views = *t;
        views->dims_n = 2;
        views->dims[0] = in;
        views->dims[1] = out;
        views->dims[2] = 1;
        views->size = t->size / o->m->info.experts / n;
        bytes = tensor_block_bytes(t->type);
        step = across ? bytes : tensor_row_bytes(t);
        lay->elem_step = across ? (uint32_t) (n * out * bytes) : 0;
        lay->row_step = (uint32_t) (n * step);
        views->data = t->data + i * step
                      + e * (across ? in * n * out * bytes : n * out * step);
        views->lay = lay;

        if (t->lay != NULL) {
            lay->exps =
                t->lay->exps + (views->data - t->data) / TENSOR_MX_BYTES;
        }

        (*slot)[e] = views;
    }

    return 1;
}

/* The same of all pieces of the tensor called name, or of it whole. */
static int
take_fused(
    model_opening_t *o, const model_row_t *row, const char *name, void *base)
{
    int missing;
    uint32_t i, n = 0;
    const model_piece_t one = {row->at, row->out}, *p = &one;
    const tensor_t *t = find_tensor(o, row, name, &missing);

    if (t == NULL || !check_tensor(o, row, t, o->m->info.experts)) {
        return 0;
    }

    while (row->pieces != NULL && row->pieces[n].out != MODEL_DIM_NONE) {
        n++;
    }

    p = n > 0 ? row->pieces : p;
    n = n > 0 ? n : 1;

    for (i = 0; i < n; i++) {
        if (!take_piece(o, row, t, i, n, o->m->dims[p[i].out],
                (const tensor_t ***) (void *) ((char *) base + p[i].at))) {
            return 0;
        }
    }

    return 1;
}

/*
 * A matrix of each expert: *slot is a list of them, with room for views where
 * one tensor has them all.
 */
static int
take_experts(model_opening_t *o, const model_row_t *row, const char *name,
    const tensor_t ***slot)
{
    int missing;
    char one[96];
    uint32_t e, n = o->m->info.experts;
    const tensor_t *t = NULL;
    tensor_t *views;
    int each = strchr(name, 'N') != NULL;

    views = new_experts(o, slot);

    if (views == NULL) {
        return 0;
    }

    for (e = 0; e < n; e++) {
        if (each || e == 0) {
            snprintf(one, sizeof(one), "%s", name);

            if (each) {
                model_family_expand(name, e, one, sizeof(one));
            }

            t = find_tensor(o, row, one, &missing);

            if (t == NULL || !check_tensor(o, row, t, each ? 1 : n)) {
                return 0;
            }
        }

        if (each) {
            (*slot)[e] = t;
            continue;
        }

        views[e] = *t;
        views[e].dims[2] = 1;
        views[e].size = t->size / n;
        views[e].data = t->data + e * views[e].size;
        (*slot)[e] = &views[e];
    }

    return 1;
}

/* Finds the tensor called name, checks it against row, puts it in its place. */
static int
take_tensor(
    model_opening_t *o, const model_row_t *row, const char *name, void *base)
{
    int missing;
    const tensor_t *t, **slot;

    if (row->flags & MODEL_ACROSS) {
        return take_fused(o, row, name, base);
    }

    if (row->flags & MODEL_EACH) {
        return take_experts(o, row, name,
            (const tensor_t ***) (void *) ((char *) base + row->at));
    }

    t = find_tensor(o, row, name, &missing);

    if (t == NULL) {
        return missing;
    }

    if (row->flags & MODEL_UNUSED) {
        return 1;
    }

    if (!check_tensor(o, row, t, 1)) {
        return 0;
    }

    if (row->flags & MODEL_TURNS) {
        take_turns(o, row, t, base);
    } else if (row->pieces != NULL) {
        take_pieces(o, row, t, base);
    } else {
        slot = (const tensor_t **) (void *) ((char *) base + row->at);
        assert(*slot == NULL);
        *slot = t;
    }

    return 1;
}

/* Finds the tensors of one list; base is the struct that row->at is of. */
static int
take_list(
    model_opening_t *o, const model_row_t *row, const char *prefix, void *base)
{
    char name[96];
    const char *tail;

    for (; row->name[0] != NULL || row->name[1] != NULL; row++) {
        tail = row->name[o->s->container];

        if (tail == NULL) {
            continue;
        }

        snprintf(name, sizeof(name), "%s%s", prefix, tail);

        if (!take_tensor(o, row, name, base)) {
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
tie(model_opening_t *o)
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
        return model_fail(
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
all_used(model_opening_t *o)
{
    uint32_t i;

    for (i = 0; i < o->s->tensors_n; i++) {
        if (!o->used[i]) {
            return model_fail(o, o->s->weights,
                "tensor \"%s\": expected only tensors of the %s family, "
                "found this one",
                tensor_shown(o->s->tensors[i].name).s, o->m->info.arch);
        }
    }

    return 1;
}

static int
read_tensors(model_opening_t *o)
{
    uint32_t i;
    char prefix[64];
    model_t *m = o->m;

    assert(m->info.layers > 0 && o->used != NULL);

    if (!take_list(o, o->f->top, "", &m->top) || !tie(o)
        || !model_take_rope_factors(o)) {
        return 0;
    }

    for (i = 0; i < m->info.layers; i++) {
        model_family_prefix(o->f, o->s->container, i, prefix, sizeof(prefix));

        if (!take_list(o, o->f->layer, prefix, &m->layers[i])) {
            return 0;
        }
    }

    return all_used(o) && model_read_layers(o);
}

int
model_read(model_t *m, const model_family_t *f, const model_source_t *s,
    char *err, size_t errlen)
{
    int ok = 0;
    model_opening_t o = {.s = s, .f = f, .m = m, .err = err, .errlen = errlen};

    assert(m->layers == NULL && s->container < MODEL_CONTAINERS);
    m->family = f;
    snprintf(m->info.arch, sizeof(m->info.arch), "%s", f->arch[s->container]);

    if (!read_sizes(&o)) {
        return 0;
    }

    model_set_dims(m);
    m->layers = calloc(m->info.layers, sizeof(*m->layers));
    o.used = calloc((size_t) s->tensors_n + 1, 1);
    m->made = calloc(
        (size_t) m->info.layers * count_pieces(f->layer) + 1, sizeof(*m->made));
    m->lays = calloc(
        (size_t) m->info.layers * count_pieces(f->layer) + 1, sizeof(*m->lays));
    o.piece = m->made;
    o.lay = m->lays;

    if (m->layers == NULL || m->made == NULL || m->lays == NULL
        || o.used == NULL) {
        model_fail(&o, s->weights, "layers: not enough memory");
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

/* Bytes of the name s before what only tells shards apart. */
static size_t
without_shard(const char *s, size_t n)
{
    static const char form[] = "-00000-of-00000";
    size_t i, tail = sizeof(form) - 1;

    if (n <= tail) {
        return n;
    }

    for (i = 0; i < tail; i++) {
        if (form[i] == '0' ? s[n - tail + i] < '0' || s[n - tail + i] > '9'
                           : s[n - tail + i] != form[i]) {
            return n;
        }
    }

    return n - tail;
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
        n = without_shard(s, n - end);
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
    uint32_t i;

    if (m == NULL) {
        return;
    }

    assert(m->gguf == NULL || m->hf == NULL);

    for (i = 0; m->layers != NULL && i < m->info.layers; i++) {
        free(m->layers[i].experts_gate);
        free(m->layers[i].experts_up);
        free(m->layers[i].experts_down);
    }

    if (m->owns_gguf) {
        gguf_close((gguf_t *) (uintptr_t) m->gguf);
    }

    model_hf_close(m->hf);
    free(m->ropes[0].factors[0]);
    free(m->ropes[0].factors[1]);
    free(m->layers);
    free(m->made);
    free(m->lays);
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

void
model_watch(model_t *m, void (*taken)(void *arg, uint64_t bytes), void *arg)
{
    m->taken = taken;
    m->taken_arg = arg;
}

/* The pages of n bytes, whole ones only, are given back. */
static void
give_back(const uint8_t *p, uint64_t n)
{
    uintptr_t from, to, page = (uintptr_t) sysconf(_SC_PAGESIZE);

    assert((page & (page - 1)) == 0);
    from = ((uintptr_t) p + page - 1) & ~(page - 1);
    to = ((uintptr_t) p + n) & ~(page - 1);

    if (from < to) {
        (void) madvise((void *) from, to - from, MADV_DONTNEED);
    }
}

/*
 * The system has the file and reads what was given back again if need be, so
 * a matrix whose rows take turns with those of t loses nothing.  Memory that
 * is no mapping of ours (tests) is left alone.
 */
void
model_taken(const model_t *m, const tensor_t *t)
{
    uint64_t n = tensor_extent(t);

    if (m->owns_gguf || model_dir(m) != NULL) {
        give_back(t->data, n);

        if (t->lay != NULL && t->lay->exps != NULL) {
            give_back(t->lay->exps, n / TENSOR_MX_BYTES);
        }
    }

    if (m->taken != NULL) {
        m->taken(m->taken_arg, t->size);
    }
}

void
model_container(const model_t *m, char *buf, size_t size)
{
    uint32_t n;

    assert(buf != NULL && size > 0);

    if (m->hf == NULL) {
        snprintf(buf, size, "%s", m->gguf != NULL ? "GGUF" : "none");
        return;
    }

    n = model_hf_files(m->hf);
    snprintf(buf, size, "safetensors, %u file%s", n, n == 1 ? "" : "s");
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
