/*
 * What opening the forward pass puts on the device: weights, vectors, memory.
 *
 * DESIGN.  A weight keeps its file's bytes, but for three kinds that are made
 * first, one at a time, in memory that is freed again: what no kernel takes is
 * rounded to BF16, what does not lie row by row is put so, and kv_b is taken
 * apart.  A blind device looks at no bytes, and nothing is made for it.
 *
 * One of some ranks has parts (forward_part.c).  A part is a tensor in the
 * file's bytes, of which no others are read; elements of rows do not lie row by
 * row, so they are put so.
 *
 * All of it is counted, in forward_held_t.  The thread that opens the pass, or
 * one for each rank at once.
 */
#include "forward_load.h"
#include "forward_latent.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

/* The kernels' number of a tensor type; KN_TYPES if they have none. */
static uint32_t
kernel_type(uint32_t type)
{
    return kernels_type(tensor_type_name(type));
}

/* size bytes for what is made of t, the caller's; NULL when out of memory. */
static void *
room(forward_load_t *o, const tensor_t *t, uint64_t size)
{
    void *made = malloc(size);

    if (made == NULL) {
        snprintf(o->err, o->errlen, "weight \"%s\": not enough memory",
            tensor_shown(t->name).s);
        o->failed = 1;
    }

    return made;
}

/*
 * *t with its rows one after another, in memory that is the caller's to free;
 * NULL when they are so in the file.  *lay is for what is left to say of it.
 */
static void *
dense(forward_load_t *o, tensor_t *t, tensor_lay_t *lay)
{
    void *made;

    if (tensor_is_dense(t)) {
        return NULL;
    }

    made = room(o, t, t->size);

    if (made != NULL) {
        tensor_dense(t, made);
        t->data = made;
        *lay = *t->lay;
        lay->row_step = lay->elem_step = 0;
        lay->exps = NULL;
        t->lay = lay->scale != NULL ? lay : NULL;
    }

    return made;
}

/* t as BF16, for what no kernel takes; the same. */
static uint16_t *
converted(forward_load_t *o, const tensor_t *t)
{
    uint16_t *made;

    assert(tensor_is_plain(t->type)); /* model_is_matrix has no other such */
    made = room(o, t, t->size / tensor_block_bytes(t->type) * sizeof(*made));

    if (made != NULL) {
        tensor_bf16(t, made);
    }

    return made;
}

/* A weight of type is on the device now. */
static void
count_weight(forward_load_t *o, const tensor_t *t, uint32_t type, int converted)
{
    uint64_t bytes = t->size;
    forward_held_t *h = o->held;

    assert(type < KN_TYPES);

    if (converted) {
        bytes = t->size / tensor_block_bytes(t->type) * 2;
        h->converted += bytes;
        h->rounded += tensor_scale(t) != NULL ? bytes : 0;
    }

    h->weights[type].n++;
    h->weights[type].bytes += bytes;
}

/* From the file's bytes, or from others. */
static const kn_w_t *
load_bytes(forward_load_t *o, const tensor_t *t)
{
    kn_w_t *w;
    tensor_shown_t name;
    kn_source_t s;
    tensor_t as;
    tensor_lay_t lay;
    void *rows = NULL;
    uint16_t *made = NULL;
    int convert;

    if (o->failed) {
        return NULL;
    }

    as = *t;

    if (!o->blind) {
        rows = dense(o, &as, &lay);
    }

    name = tensor_shown(t->name);
    s.name = name.s;
    s.type = kernel_type(t->type);
    s.n = (uint32_t) (t->dims[1] * t->dims[2]);
    s.k = (uint32_t) t->dims[0];
    s.data = as.data;
    convert = s.type == KN_TYPES;

    if (convert) {
        s.type = KN_BF16;
    }

    if (convert && !o->blind && !o->failed) {
        made = converted(o, &as);
        s.data = made;
    }

    w = o->failed ? NULL : o->kn->weight_load(o->dev, &s, o->err, o->errlen);
    o->failed = w == NULL;
    count_weight(o, t, s.type, convert);
    free(made);
    free(rows);
    return w;
}

/* What all ranks load is told of once. */
static void
taken(forward_load_t *o, const tensor_t *t, int part)
{
    if (!o->failed && (part || o->part->rank == 0)) {
        model_taken(o->m, t);
    }
}

const kn_w_t *
forward_load(forward_load_t *o, const tensor_t *t)
{
    const kn_w_t *w = load_bytes(o, t);

    taken(o, t, 0);
    return w;
}

const kn_w_t *
forward_load_rows(forward_load_t *o, const tensor_t *t, forward_cut_t cut)
{
    tensor_part_t p;
    const kn_w_t *w;

    if (cut.n == t->dims[1] * t->dims[2]) {
        return forward_load(o, t);
    }

    w = load_bytes(o, tensor_rows(&p, t, cut.at, cut.n));
    taken(o, &p.t, 1);
    return w;
}

const kn_w_t *
forward_load_cols(forward_load_t *o, const tensor_t *t, forward_cut_t cut)
{
    tensor_part_t p;
    const kn_w_t *w;

    if (cut.n == t->dims[0]) {
        return forward_load(o, t);
    }

    w = load_bytes(o, tensor_cols(&p, t, cut.at, cut.n));
    taken(o, &p.t, 1);
    return w;
}

/* n x size bytes by one of the device's two ways. */
static kn_ptr_t
allocate(forward_load_t *o, kn_ptr_t (*by)(kn_dev_t *dev, uint64_t bytes),
    uint64_t n, uint64_t size, const char *what)
{
    kn_ptr_t p = {0};

    if (o->failed) {
        return p;
    }

    if (size == 0 || n <= UINT64_MAX / size) {
        p = by(o->dev, n * size);
    }

    if (p.a == 0) {
        snprintf(o->err, o->errlen,
            "%s: expected %llu x %llu bytes, found no memory for them", what,
            (unsigned long long) n, (unsigned long long) size);
        o->failed = 1;
        return p;
    }

    *o->count += n * size;
    return p;
}

kn_ptr_t
forward_alloc(forward_load_t *o, uint64_t n, uint64_t size, const char *what)
{
    return allocate(o, o->kn->alloc, n, size, what);
}

kn_ptr_t
forward_alloc_host(
    forward_load_t *o, uint64_t n, uint64_t size, const char *what)
{
    return allocate(o, o->kn->alloc_host, n, size, what);
}

/*
 * t, one vector or some, + offset as F32: model.c lets no type pass that is
 * not exact so.
 */
static kn_ptr_t
vector(forward_load_t *o, const tensor_t *t, float offset, int part)
{
    uint64_t i, n = t->dims[0] * t->dims[1];
    kn_ptr_t p;
    tensor_t as = *t;
    tensor_lay_t lay;
    void *rows;
    float *v;

    p = forward_alloc(o, n, sizeof(float), "vector");

    if (o->failed || t->data == NULL) {
        return p;
    }

    rows = dense(o, &as, &lay);
    v = o->failed ? NULL : room(o, t, n * sizeof(*v));

    if (v != NULL) {
        tensor_plain(as.type, as.data, n, v);

        for (i = 0; offset != 0 && i < n; i++) {
            v[i] += offset;
        }

        o->kn->copy_in(o->dev, p, v, n * sizeof(*v));
        o->held->weights[KN_F32].n++;
        taken(o, t, part);
    }

    free(rows);
    free(v);
    return p;
}

kn_ptr_t
forward_vector(forward_load_t *o, const tensor_t *t, float offset)
{
    return vector(o, t, offset, 0);
}

/* The same; null where there is none. */
kn_ptr_t
forward_some_vector(forward_load_t *o, const tensor_t *t)
{
    const kn_ptr_t none = {0};

    return t != NULL ? forward_vector(o, t, 0) : none;
}

kn_ptr_t
forward_some_cut(forward_load_t *o, const tensor_t *t, forward_cut_t cut)
{
    tensor_part_t p;

    if (t == NULL || cut.n == t->dims[0]) {
        return forward_some_vector(o, t);
    }

    return vector(o, tensor_cols(&p, t, cut.at, cut.n), 0, 1);
}

/* Rows of the rank's heads, of so many each. */
static const tensor_t *
heads_of(
    const forward_load_t *o, tensor_part_t *p, const tensor_t *t, uint64_t rows)
{
    const forward_part_t *part = o->part;

    return tensor_rows(p, t, part->head * rows, part->info.heads * rows);
}

/*
 * The two matrices of each of the rank's heads, made of one or as the file has
 * them.
 */
void
forward_load_latent(forward_load_t *o, const model_layer_t *l, const kn_w_t **k,
    const kn_w_t **v)
{
    forward_latent_t made;
    forward_held_t *h = o->held;
    tensor_part_t part;
    const tensor_t *kv_b;
    const model_info_t *info = &o->part->info;

    if (l->kv_b == NULL) {
        *k = load_bytes(o, heads_of(o, &part, l->k_b, info->latent));
        taken(o, &part.t, 1);
        *v = load_bytes(o, heads_of(o, &part, l->v_b, info->value_dim));
        taken(o, &part.t, 1);
        return;
    }

    kv_b = heads_of(o, &part, l->kv_b, info->key_dim + info->value_dim);

    if (o->failed
        || !forward_latent_open(
            &made, kv_b, info, o->blind, o->err, o->errlen)) {
        o->failed = 1;
        return;
    }

    *k = load_bytes(o, &made.k);
    *v = load_bytes(o, &made.v);
    h->converted += made.converted;
    h->rounded += made.rounded;
    forward_latent_close(&made);

    taken(o, kv_b, 1);
}
