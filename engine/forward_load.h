/*
 * Weights, vectors and memory on the device, for opening a forward pass.
 */
#ifndef FORWARD_LOAD_H
#define FORWARD_LOAD_H

#include "forward.h"
#include "forward_part.h"

/* The first error counts, and later calls do nothing. */
typedef struct {
    const kernels_t *kn; /* borrowed, as all are */
    kn_dev_t *dev;
    const model_t *m;
    const forward_part_t *part;
    forward_held_t *held;
    int blind;       /* of the device: kn_info_t */
    uint64_t *count; /* what allocations are for, in held */
    char *err;
    size_t errlen;
    int failed;
} forward_load_t;

/* The weight of t; NULL after a failure. */
const kn_w_t *forward_load(forward_load_t *o, const tensor_t *t);

/* The same of some rows, or of some elements of each row. */
const kn_w_t *forward_load_rows(
    forward_load_t *o, const tensor_t *t, forward_cut_t cut);
const kn_w_t *forward_load_cols(
    forward_load_t *o, const tensor_t *t, forward_cut_t cut);

/*
 * The two matrices of each of the rank's heads, made of one or as the file has
 * them.
 */
void forward_load_latent(forward_load_t *o, const model_layer_t *l,
    const kn_w_t **k, const kn_w_t **v);

/* n x size bytes, zeroed; null after a failure.  what is for its sentence. */
kn_ptr_t forward_alloc(
    forward_load_t *o, uint64_t n, uint64_t size, const char *what);

/* The same of memory that the host may read, too. */
kn_ptr_t forward_alloc_host(
    forward_load_t *o, uint64_t n, uint64_t size, const char *what);

/*
 * t, one vector or some, + offset as F32: model.c lets no type pass that is
 * not exact so.
 */
kn_ptr_t forward_vector(forward_load_t *o, const tensor_t *t, float offset);

/* The same without offset; null where there is none. */
kn_ptr_t forward_some_vector(forward_load_t *o, const tensor_t *t);

/* The same of some elements of each vector. */
kn_ptr_t forward_some_cut(
    forward_load_t *o, const tensor_t *t, forward_cut_t cut);

#endif
