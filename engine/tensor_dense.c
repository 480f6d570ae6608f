/*
 * A matrix that its file has in another order, made into rows of blocks.
 *
 * DESIGN.  Three things make a tensor other than dense, and all come from how
 * experts are published in safetensors: rows of two matrices take turns, a
 * matrix is written input by input, and the exponents of MXFP4 lie apart from
 * its blocks.  The tensor says so by steps and a second address (its lay), so
 * that a view costs nothing; who needs the bytes makes them for one matrix at
 * a time and gives them to the device.
 *
 * A block of MXFP4 has its 32 elements two by two in safetensors, and its
 * first half in the low nibbles and the second one in the high nibbles in
 * GGUF, which is the kernels' form.  Nibbles change places, nothing else does.
 *
 * Nothing is owned; any thread.
 */
#include "tensor.h"

#include <assert.h>
#include <string.h>

/* Rows that are gathered together: neighbours in memory, if they take turns */
#define ROWS 16u

const tensor_t *
tensor_scale(const tensor_t *t)
{
    assert(t != NULL);
    return t->lay == NULL ? NULL : t->lay->scale;
}

int
tensor_is_dense(const tensor_t *t)
{
    const tensor_lay_t *l = t->lay;

    assert(l == NULL || l->row_step != 0
           || (l->elem_step == 0 && l->exps == NULL));
    return l == NULL || l->row_step == 0;
}

uint64_t
tensor_row_bytes(const tensor_t *t)
{
    uint32_t elems = tensor_block_elems(t->type);

    assert(t->dims[0] % elems == 0);
    return t->dims[0] / elems
           * (t->lay != NULL && t->lay->exps != NULL
                   ? TENSOR_MX_BYTES
                   : tensor_block_bytes(t->type));
}

uint64_t
tensor_extent(const tensor_t *t)
{
    uint64_t row = tensor_row_bytes(t);

    if (tensor_is_dense(t)) {
        return t->size;
    }

    assert(t->dims[0] > 0 && t->dims[1] > 0);

    if (t->lay->elem_step != 0) {
        row =
            (t->dims[0] - 1) * t->lay->elem_step + tensor_block_bytes(t->type);
    }

    return (t->dims[1] - 1) * t->lay->row_step + row;
}

/* A block of safetensors, whose exponent is e, as GGUF has it. */
static void
mx_block(uint8_t *dst, const uint8_t *q, uint8_t e)
{
    uint32_t i;

    dst[0] = e;

    for (i = 0; i < TENSOR_MX_BYTES / 2; i++) {
        dst[1 + 2 * i] = (uint8_t) ((q[i] & 15) | q[i + 8] << 4);
        dst[2 + 2 * i] = (uint8_t) (q[i] >> 4 | (q[i + 8] & 0xf0));
    }
}

static void
mx_rows(const tensor_t *t, uint8_t *dst)
{
    uint64_t row, i, blocks;
    const uint8_t *q, *e;

    assert(t->type == TENSOR_MXFP4 && t->lay->row_step % TENSOR_MX_BYTES == 0);
    blocks = t->dims[0] / tensor_block_elems(t->type);

    for (row = 0; row < t->dims[1]; row++) {
        q = t->data + row * t->lay->row_step;
        e = t->lay->exps + row * t->lay->row_step / TENSOR_MX_BYTES;

        for (i = 0; i < blocks; i++) {
            mx_block(dst, q + i * TENSOR_MX_BYTES, e[i]);
            dst += TENSOR_MX_BYTES + 1;
        }
    }
}

/*
 * Elements of size bytes that stand alone, whatever is between them.  size is
 * a constant wherever this is inlined, and copying then a move.
 */
static inline __attribute__((always_inline)) void
gather(const tensor_t *t, uint8_t *dst, uint32_t size)
{
    uint64_t first, row, end, i, k = t->dims[0];
    uint64_t row_step = t->lay->row_step, step = t->lay->elem_step;

    for (first = 0; first < t->dims[1]; first = end) {
        end = first + ROWS < t->dims[1] ? first + ROWS : t->dims[1];

        for (i = 0; i < k; i++) {
            for (row = first; row < end; row++) {
                memcpy(dst + (row * k + i) * size,
                    t->data + row * row_step + i * step, size);
            }
        }
    }
}

static void
gather_plain(const tensor_t *t, uint8_t *dst)
{
    assert(tensor_is_plain(t->type));

    switch (tensor_block_bytes(t->type)) {

    case 1:
        gather(t, dst, 1);
        break;

    case 2:
        gather(t, dst, 2);
        break;

    default:
        assert(tensor_block_bytes(t->type) == 4);
        gather(t, dst, 4);
    }
}

void
tensor_dense(const tensor_t *t, void *dst)
{
    uint64_t row, bytes = tensor_row_bytes(t);

    assert(!tensor_is_dense(t) && t->data != NULL);
    assert(t->dims[2] == 1 && t->dims[3] == 1);

    if (t->lay->exps != NULL) {
        mx_rows(t, dst);
        return;
    }

    if (t->lay->elem_step != 0) {
        gather_plain(t, dst);
        return;
    }

    for (row = 0; row < t->dims[1]; row++) {
        memcpy((uint8_t *) dst + row * bytes, t->data + row * t->lay->row_step,
            bytes);
    }
}
