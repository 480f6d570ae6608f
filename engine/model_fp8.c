/*
 * Weights in F8_E4M3 with a factor for each block of 128 x 128, as DeepSeek
 * publishes them and others after it: each such tensor, NAME, has another one
 * beside it, NAME_scale_inv, which is what its elements are multiplied by.
 *
 * DESIGN.  The two are joined before the model is read: the factors leave the
 * table and hang on their weight (tensor.h), so that families know nothing of
 * them.  A weight without factors is refused, and factors without a weight
 * stay in the table, where the reading of the model refuses them.
 *
 * The new table is the caller's; what it points to is the old one's.
 */
#include "model_impl.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TAIL "_scale_inv"

/* The factors of t, of the right shape; NULL with one sentence in err. */
static const tensor_t *
find_scale(const tensor_t *list, uint32_t n, const tensor_t *t,
    const char *file, char *err, size_t errlen)
{
    char *name;
    const tensor_t *s = NULL;
    const uint64_t block = TENSOR_SCALE_BLOCK;

    assert(t->type == TENSOR_F8_E4M3);

    if (asprintf(&name, "%.*s" TAIL, (int) t->name.len, t->name.s) >= 0) {
        s = tensor_find(list, n, name);
        free(name);
    }

    if (s != NULL && s->type == TENSOR_F32 && t->dims[2] == 1 && t->dims[3] == 1
        && s->dims[2] == 1 && s->dims[3] == 1
        && s->dims[0] == (t->dims[0] + block - 1) / block
        && s->dims[1] == (t->dims[1] + block - 1) / block) {
        return s;
    }

    snprintf(err, errlen,
        "%s: tensor \"%s\": expected a tensor " TAIL " beside it, F32, one "
        "element for each block of %u x %u, found %s",
        file, tensor_shown(t->name).s, TENSOR_SCALE_BLOCK, TENSOR_SCALE_BLOCK,
        s == NULL ? "none" : "another type or shape");
    return NULL;
}

tensor_t *
model_join_room(uint32_t n, tensor_lay_t **lays)
{
    tensor_t *to = calloc(
        1, ((size_t) n + 1) * sizeof(*to) + ((size_t) n / 2) * sizeof(**lays));

    if (to != NULL) {
        *lays = (tensor_lay_t *) (void *) (to + n + 1);
    }

    return to;
}

tensor_t *
model_fp8_join(const tensor_t *list, uint32_t n, uint32_t *joined_n,
    const char *file, char *err, size_t errlen)
{
    uint32_t i, k = 0;
    tensor_lay_t *lay;
    tensor_t *to = model_join_room(n, &lay);
    const tensor_t **scales = calloc((size_t) n + 1, sizeof(*scales));
    uint8_t *taken = calloc((size_t) n + 1, 1);

    assert(n == 0 || list != NULL);

    if (to == NULL || scales == NULL || taken == NULL) {
        snprintf(err, errlen, "%s: not enough memory", file);
        goto failed;
    }

    for (i = 0; i < n; i++) {
        if (list[i].type != TENSOR_F8_E4M3) {
            continue;
        }

        scales[i] = find_scale(list, n, &list[i], file, err, errlen);

        if (scales[i] == NULL) {
            goto failed;
        }

        taken[scales[i] - list] = 1;
    }

    for (i = 0; i < n; i++) {
        if (taken[i]) {
            continue;
        }

        to[k] = list[i];

        if (scales[i] != NULL) {
            lay->scale = scales[i];
            to[k].lay = lay++;
        }

        k++;
    }

    assert(k <= n);
    *joined_n = k;
    free(scales);
    free(taken);
    return to;

failed:

    free(to);
    free(scales);
    free(taken);
    return NULL;
}
