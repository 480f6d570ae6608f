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
} model_info_t;

/* NULL with one sentence in err. Borrows g until model_close. */
model_t *model_open(const gguf_t *g, char *err, size_t errlen);

/* The null back end's: a shape, no weights. */
model_t *model_open_null(uint32_t vocab, uint32_t context);

void model_close(model_t *m);

const model_info_t *model_info(const model_t *m);

#endif
