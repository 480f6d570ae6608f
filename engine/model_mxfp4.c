/*
 * Weights in MXFP4 as OpenAI publishes them: a matrix NAME is two tensors of
 * bytes, NAME_blocks [experts, rows, blocks, 16] and NAME_scales [experts,
 * rows, blocks], the quants of each block of 32 and its exponent.
 *
 * DESIGN.  The two are joined before the model is read: the table has one
 * tensor called NAME in their place, of GGUF's type MXFP4, whose exponents lie
 * apart (tensor.h), so that families know nothing of them.  Blocks without
 * scales are refused, and scales without blocks stay in the table, where the
 * reading of the model refuses them.
 *
 * The new table is the caller's; what it points to is the old one's.
 */
#include "model_impl.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCKS "_blocks"
#define SCALES "_scales"
#define TAIL   (sizeof(BLOCKS) - 1) /* of either */

/* Of a row: far above any model's, and its bytes fit 32 bits. */
#define BLOCKS_MAX (1u << 24)

static int
is_blocks(const tensor_t *t)
{
    return t->name.len > TAIL
           && memcmp(t->name.s + t->name.len - TAIL, BLOCKS, TAIL) == 0;
}

/* The scales of blocks t, of the right shape; NULL with one sentence in err. */
static const tensor_t *
find_scales(const tensor_t *list, uint32_t n, const tensor_t *t,
    const char *file, char *err, size_t errlen)
{
    char *name;
    const tensor_t *s = NULL;

    assert(is_blocks(t));

    if (asprintf(&name, "%.*s" SCALES, (int) (t->name.len - TAIL), t->name.s)
        >= 0) {
        s = tensor_find(list, n, name);
        free(name);
    }

    if (s != NULL && s->type == TENSOR_U8 && t->type == TENSOR_U8
        && t->dims[0] == TENSOR_MX_BYTES && t->dims[1] > 0
        && t->dims[1] <= BLOCKS_MAX && t->dims[2] > 0
        && s->dims[0] == t->dims[1] && s->dims[1] == t->dims[2]
        && s->dims[2] == t->dims[3] && s->dims[3] == 1) {
        return s;
    }

    snprintf(err, errlen,
        "%s: tensor \"%s\": expected rows of blocks of %d bytes, and a "
        "tensor " SCALES " beside it with a byte for each block, found %s",
        file, tensor_shown(t->name).s, TENSOR_MX_BYTES,
        s == NULL ? "none" : "another type or shape");
    return NULL;
}

/* The two as one. */
static void
join(tensor_t *to, tensor_lay_t *lay, const tensor_t *blocks,
    const tensor_t *scales)
{
    *to = *blocks;
    to->name.len -= TAIL;
    to->type = TENSOR_MXFP4;
    to->dims_n = 3;
    to->dims[0] = blocks->dims[1] * tensor_block_elems(TENSOR_MXFP4);
    to->dims[1] = blocks->dims[2];
    to->dims[2] = blocks->dims[3];
    to->dims[3] = 1;
    to->size = blocks->size + scales->size;
    to->lay = lay;
    lay->row_step = (uint32_t) blocks->dims[1] * TENSOR_MX_BYTES;
    lay->exps = scales->data;
}

tensor_t *
model_mxfp4_join(const tensor_t *list, uint32_t n, uint32_t *joined_n,
    const char *file, char *err, size_t errlen)
{
    uint32_t i, k = 0;
    const tensor_t *s;
    tensor_lay_t *lay;
    tensor_t *to = model_join_room(n, &lay);
    uint8_t *taken = calloc((size_t) n + 1, 1);

    assert(n == 0 || list != NULL);

    if (to == NULL || taken == NULL) {
        snprintf(err, errlen, "%s: not enough memory", file);
        goto failed;
    }

    for (i = 0; i < n; i++) {
        if (!is_blocks(&list[i])) {
            continue;
        }

        s = find_scales(list, n, &list[i], file, err, errlen);

        if (s == NULL) {
            goto failed;
        }

        join(&to[k++], lay++, &list[i], s);
        taken[i] = 1;
        taken[s - list] = 1;
    }

    for (i = 0; i < n; i++) {
        if (!taken[i]) {
            to[k++] = list[i];
        }
    }

    assert(k <= n);
    qsort(to, k, sizeof(*to), tensor_by_name);
    *joined_n = k;
    free(taken);
    return to;

failed:

    free(to);
    free(taken);
    return NULL;
}
