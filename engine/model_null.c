/*
 * The null back end's model: a shape without weights, so that everything
 * around a model can be tested without one.
 *
 * DESIGN.  It is of the first family, of one tiny layer; its tensors have
 * dimensions and no data.
 */
#include "model_impl.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TENSORS_MAX 64 /* of the family's two lists */

/* Stand-ins for the tensors of one list that must be there. */
static tensor_t *
make_tensors(model_t *m, const model_row_t *row, void *base, tensor_t *next)
{
    const char *name;

    for (; row->name[0] != NULL || row->name[1] != NULL; row++) {
        name = row->name[MODEL_GGUF];

        if (name == NULL || (row->flags != 0 && row->out != MODEL_DIM_VOCAB)) {
            continue;
        }

        assert(next < m->made + TENSORS_MAX);
        next->name.s = name;
        next->name.len = strlen(name);
        next->dims_n = row->out == MODEL_DIM_NONE ? 1 : 2;
        next->dims[0] = m->dims[row->in];
        next->dims[1] = m->dims[row->out];
        next->dims[2] = 1;
        next->dims[3] = 1;
        *(const tensor_t **) (void *) ((char *) base + row->at) = next++;
    }

    return next;
}

model_t *
model_open_null(uint32_t vocab, uint32_t context)
{
    model_t *m;
    tensor_t *next;
    char err[64];

    assert(vocab > 258 && context > 0);

    m = model_new("null", err, sizeof(err));

    if (m == NULL) {
        return NULL;
    }

    m->family = model_family_find(MODEL_GGUF, "llama", 5);
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
    model_plain_ropes(m);
    model_plain_rules(m);
    model_set_dims(m);

    m->layers = calloc(1, sizeof(*m->layers));
    m->made = calloc(TENSORS_MAX, sizeof(*m->made));

    if (m->layers == NULL || m->made == NULL) {
        model_close(m);
        return NULL;
    }

    assert(m->family != NULL && m->dims[MODEL_DIM_VOCAB] == vocab);
    next = make_tensors(m, m->family->top, &m->top, m->made);
    make_tensors(m, m->family->layer, &m->layers[0], next);
    m->top.output = m->top.embed;

    return m;
}
