/*
 * Activations of a step, on the device.
 */
#ifndef FORWARD_ACTS_H
#define FORWARD_ACTS_H

#include "forward_load.h"

/* Activations; [tokens, ...] but for those of the outputs. */
typedef struct {
    kn_ptr_t x, n, h;      /* [tokens, hidden] */
    kn_ptr_t q, a;         /* [tokens, heads * head_dim] */
    kn_ptr_t k, v;         /* [tokens, kv_heads * head_dim] */
    kn_ptr_t qa;           /* [tokens, q_latent] */
    kn_ptr_t ql;           /* [tokens, heads * head_dim], by latents' matrices;
                              then q is [tokens, heads, key_dim + rope_dims] or
                              [tokens, heads, value_dim], a of latents, and
                              k and v are an entry's two parts */
    kn_ptr_t gate;         /* [tokens, ffn], or [tokens, experts_used, ffn] */
    kn_ptr_t router;       /* [tokens, experts] */
    kn_ptr_t shared;       /* [tokens, shared_ffn] */
    kn_ptr_t shared_by;    /* [tokens] */
    kn_ptr_t h2;           /* [tokens, hidden] */
    kn_ptr_t ids, weights; /* [tokens, experts_used] */
    kn_ptr_t cs[MODEL_ROPES_MAX]; /* [tokens, rope_dims / 2, 2] */
    kn_ptr_t g;                   /* [outs, hidden] */
    kn_ptr_t own;                 /* [outs, vocab of the rank], if not all */
    kn_ptr_t logits;              /* [outs, vocab] */
    kn_ptr_t out;                 /* [outs] sample_out_t, of the host */
} forward_acts_t;

/* Allocates them, for steps of c and the rank's part of the model. */
void forward_acts(forward_load_t *l, const forward_cfg_t *c, forward_acts_t *a);

#endif
