/*
 * The matrix that makes keys and values of a latent, taken apart.
 */
#ifndef FORWARD_LATENT_H
#define FORWARD_LATENT_H

#include "model.h"

/* Of each head: what queries and what values are multiplied with. */
typedef struct {
    tensor_t k;                  /* [heads * latent, key_dim] */
    tensor_t v;                  /* [heads * value_dim, latent] */
    uint64_t converted, rounded; /* bytes of them, as in forward_held_t */
    void *data[2];               /* owned */
} forward_latent_t;

/*
 * Takes kv_b apart.  0 with one sentence in err.  If blind, only what the parts
 * are is said, and they have no data.
 */
int forward_latent_open(forward_latent_t *l, const tensor_t *kv_b,
    const model_info_t *info, int blind, char *err, size_t errlen);

/* Frees what was made; l may be zeroed. */
void forward_latent_close(forward_latent_t *l);

#endif
