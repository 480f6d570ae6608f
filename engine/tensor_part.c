/*
 * A part of a tensor: some of its rows, or some elements of each.
 *
 * DESIGN.  A part is a tensor of its own that says where its bytes lie, by the
 * same steps as one that its file has in another order (tensor_dense.c), so
 * that whoever can read a tensor can read a part, and nothing but the part.
 * Factors are not cut, as their blocks end where they like: the part says
 * where in them it begins.
 *
 * Nothing is owned; any thread.
 */
#include "tensor.h"

#include <assert.h>
#include <string.h>

/* A matrix of all rows of t, as far as p is concerned t itself. */
static tensor_t *
begin(tensor_part_t *p, const tensor_t *t)
{
    assert(t->dims[3] == 1);
    p->t = *t;
    p->t.dims_n = 2;
    p->t.dims[1] *= p->t.dims[2];
    p->t.dims[2] = 1;
    memset(&p->lay, 0, sizeof(p->lay));

    if (t->lay != NULL) {
        assert(t->dims[2] == 1);
        p->lay = *t->lay;
    }

    return &p->t;
}

/* dims are the part's by now. */
static const tensor_t *
end(tensor_part_t *p)
{
    int fits = tensor_set_size(&p->t);
    const tensor_lay_t *l = &p->lay;

    assert(fits);
    (void) fits;
    p->t.lay = l->row_step != 0 || l->scale != NULL ? l : NULL;
    return &p->t;
}

const tensor_t *
tensor_rows(tensor_part_t *p, const tensor_t *t, uint64_t at, uint64_t n)
{
    tensor_t *part = begin(p, t);
    uint64_t step = p->lay.row_step;

    assert(n > 0 && at <= part->dims[1] && n <= part->dims[1] - at);
    step = step != 0 ? step : tensor_row_bytes(t);

    if (t->data != NULL) {
        part->data += at * step;
    }

    if (p->lay.exps != NULL) {
        p->lay.exps += at * step / TENSOR_MX_BYTES;
    }

    p->lay.scale_row += (uint32_t) at;
    part->dims[1] = n;
    return end(p);
}

const tensor_t *
tensor_cols(tensor_part_t *p, const tensor_t *t, uint64_t at, uint64_t n)
{
    tensor_t *part = begin(p, t);
    uint64_t elems = tensor_block_elems(t->type), row = tensor_row_bytes(t);
    uint64_t step = p->lay.elem_step;

    assert(at % elems == 0 && n % elems == 0);
    assert(n > 0 && at <= part->dims[0] && n <= part->dims[0] - at);

    if (step == 0) {
        step =
            p->lay.exps != NULL ? TENSOR_MX_BYTES : tensor_block_bytes(t->type);
    }

    if (t->data != NULL) {
        part->data += at / elems * step;
    }

    if (p->lay.exps != NULL) {
        p->lay.exps += at / elems;
    }

    if (p->lay.row_step == 0 && part->dims[1] > 1) {
        assert(row <= UINT32_MAX);
        p->lay.row_step = (uint32_t) row;
    }

    p->lay.scale_col += (uint32_t) at;
    part->dims[0] = n;
    return end(p);
}
