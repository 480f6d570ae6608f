/*
 * The matrix that makes keys and values of a latent, taken apart: kv_b has for
 * each head the rows of its key, then those of its value.
 *
 * DESIGN.  Values are rows of kv_b as they are, whatever their type: they are
 * gathered.  Queries go through the keys' rows the other way, so these are
 * turned over, and a type whose elements lie in blocks along the rows cannot
 * be: its elements are rounded to BF16, as F8_E4M3 is everywhere.  F8_E4M3
 * with factors goes to BF16 before, since blocks of factors end in the middle
 * of a head.
 *
 * One matrix is taken apart at a time, on the thread that opens the pass.
 */
#include "forward_latent.h"
#include "../kernels/kernels.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Elements that a type has side by side in one block of 1. */
static int
is_single(uint32_t type)
{
    return type == TENSOR_F32 || type == TENSOR_F16 || type == TENSOR_BF16;
}

/* A tensor [rows, len] of type, without data. */
static tensor_t
shape(const tensor_t *from, uint32_t type, uint64_t len, uint64_t rows)
{
    tensor_t t = {.name = from->name, .type = type, .dims_n = 2};
    int fits;

    t.dims[0] = len;
    t.dims[1] = rows;
    t.dims[2] = 1;
    t.dims[3] = 1;
    fits = tensor_set_size(&t);
    assert(fits);
    (void) fits;
    return t;
}

/* Rows of the values, one head after another. */
static void
gather_values(const tensor_t *kv_b, const model_info_t *info, uint8_t *to)
{
    uint64_t h, row = kv_b->size / kv_b->dims[1];
    const uint8_t *from = kv_b->data;

    for (h = 0; h < info->heads; h++) {
        from += info->key_dim * row;
        memcpy(to, from, info->value_dim * row);
        from += info->value_dim * row;
        to += info->value_dim * row;
    }

    assert(from == kv_b->data + kv_b->size);
}

/* Element (i, j) of a head's keys becomes (j, i); elements of size bytes. */
static void
turn_row(const uint8_t *row, uint32_t i, const model_info_t *info, size_t size,
    uint8_t *to)
{
    uint32_t j;

    for (j = 0; j < info->latent; j++) {
        memcpy(
            to + ((size_t) j * info->key_dim + i) * size, row + j * size, size);
    }
}

/*
 * Rows of the keys, turned over.  Those of a packed type go through made, a
 * row of floats and one of BF16 behind it.
 */
static void
turn_keys(
    const tensor_t *kv_b, const model_info_t *info, float *made, uint8_t *to)
{
    uint32_t h, i;
    uint64_t bytes = kv_b->size / kv_b->dims[1];
    size_t size = is_single(kv_b->type) ? tensor_block_bytes(kv_b->type) : 2;
    const uint8_t *row, *from = kv_b->data;
    tensor_t floats = shape(kv_b, TENSOR_F32, info->latent, 1);
    uint32_t type = kernels_type(tensor_type_name(kv_b->type));

    for (h = 0; h < info->heads; h++) {
        for (i = 0; i < info->key_dim; i++, from += bytes) {
            row = from;

            if (!is_single(kv_b->type)) {
                kernels_dequant(type, made, from, info->latent);
                floats.data = (const uint8_t *) made;
                tensor_bf16(&floats, (uint16_t *) (made + info->latent));
                row = (const uint8_t *) (made + info->latent);
            }

            turn_row(row, i, info, size, to);
        }

        from += info->value_dim * bytes;
        to += (size_t) info->latent * info->key_dim * size;
    }

    assert(from == kv_b->data + kv_b->size);
}

/* Allocates, and does it; 0 when there is no memory. */
static int
make(forward_latent_t *l, const tensor_t *kv_b, const model_info_t *info)
{
    int ok;
    tensor_t plain = *kv_b;
    uint16_t *made = NULL;
    float *row = malloc(2 * info->latent * sizeof(*row));

    l->data[0] = malloc(l->k.size);
    l->data[1] = malloc(l->v.size);
    ok = row != NULL && l->data[0] != NULL && l->data[1] != NULL;

    if (ok && kv_b->type == TENSOR_F8_E4M3) {
        plain = shape(kv_b, TENSOR_BF16, kv_b->dims[0], kv_b->dims[1]);
        made = malloc(plain.size);
        ok = made != NULL;

        if (ok) {
            tensor_bf16(kv_b, made);
            plain.data = (const uint8_t *) made;
        }
    }

    if (ok) {
        turn_keys(&plain, info, row, l->data[0]);
        gather_values(&plain, info, l->data[1]);
        l->k.data = l->data[0];
        l->v.data = l->data[1];
    }

    free(row);
    free(made);
    return ok;
}

int
forward_latent_open(forward_latent_t *l, const tensor_t *kv_b,
    const model_info_t *info, int blind, char *err, size_t errlen)
{
    int f8 = kv_b->type == TENSOR_F8_E4M3;
    uint32_t type = f8 ? (uint32_t) TENSOR_BF16 : kv_b->type;

    assert(kv_b->dims[0] == info->latent);
    assert(kv_b->dims[1]
           == (uint64_t) info->heads * (info->key_dim + info->value_dim));
    memset(l, 0, sizeof(*l));
    l->k = shape(kv_b, is_single(type) ? type : (uint32_t) TENSOR_BF16,
        info->key_dim, (uint64_t) info->heads * info->latent);
    l->v = shape(
        kv_b, type, info->latent, (uint64_t) info->heads * info->value_dim);

    if (f8 || !is_single(type)) {
        l->converted = l->k.size + (f8 ? l->v.size : 0);
        l->rounded = f8 && tensor_scale(kv_b) == NULL ? 0 : l->converted;
    }

    if (blind || make(l, kv_b, info)) {
        return 1;
    }

    snprintf(err, errlen, "weight \"%s\": not enough memory",
        tensor_shown(kv_b->name).s);
    forward_latent_close(l);
    return 0;
}

void
forward_latent_close(forward_latent_t *l)
{
    free(l->data[0]);
    free(l->data[1]);
    memset(l, 0, sizeof(*l));
}
