/*
 * A model: shape, hyper-parameters and weights as its file has them.  Families
 * are rows of a table in model.c; forward.c runs any of them.
 */
#ifndef MODEL_H
#define MODEL_H

#include "gguf.h"

#include <stddef.h>
#include <stdint.h>

typedef struct model_s model_t;

typedef struct {
    char name[128]; /* for /v1/models: file name without .gguf by default */
    char arch[64];
    uint64_t created; /* unix seconds, the file's mtime */
    uint32_t layers, hidden, heads, kv_heads, head_dim, ffn, vocab;
    uint32_t context; /* trained */
    uint64_t weight_bytes;
    uint32_t rope_dims; /* rotated elements of a head, even */
    float eps;          /* of the norms */
} model_info_t;

/*
 * Weights as the file has them, dims[0] being the input's length.  Norms are
 * F32, the others one of F32, F16, BF16, Q8_0, Q4_0.  data is NULL in the
 * null back end's model.
 */
typedef struct {
    const gguf_tensor_t *attn_norm; /* [hidden] */
    const gguf_tensor_t *q;         /* [heads * head_dim, hidden] */
    const gguf_tensor_t *k, *v;     /* [kv_heads * head_dim, hidden] */
    const gguf_tensor_t *o;         /* [hidden, heads * head_dim] */
    const gguf_tensor_t *ffn_norm;  /* [hidden] */
    const gguf_tensor_t *gate, *up; /* [ffn, hidden] */
    const gguf_tensor_t *down;      /* [hidden, ffn] */
} model_layer_t;

typedef struct {
    const gguf_tensor_t *embed;        /* [vocab, hidden] */
    const gguf_tensor_t *norm;         /* [hidden] */
    const gguf_tensor_t *output;       /* [vocab, hidden], embed when tied */
    const gguf_tensor_t *rope_factors; /* [rope_dims / 2] or NULL */
} model_top_t;

/* NULL with one sentence in err. Borrows g until model_close. */
model_t *model_open(const gguf_t *g, char *err, size_t errlen);

/* The null back end's: a shape, no weights. */
model_t *model_open_null(uint32_t vocab, uint32_t context);

void model_close(model_t *m);

/* Gives the model another public name, cut to what info holds. */
void model_rename(model_t *m, const char *name);

const model_info_t *model_info(const model_t *m);
const model_top_t *model_top(const model_t *m);
const model_layer_t *model_layer(const model_t *m, uint32_t i);

/* The angle per position of each rotated pair: freq [rope_dims / 2]. */
void model_rope_freqs(const model_t *m, double *freq);

#endif
