/*
 * Activations: sized for the largest step, of what the rank has.
 *
 * DESIGN.  Layers take turns in them, so there is one of each kind, as wide as
 * the widest layer wants it.  Memory is the device's; all zero before.  The
 * thread that opens the pass.
 */
#include "forward_acts.h"

#include <assert.h>

static uint64_t
max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static void
attention(forward_load_t *l, const forward_cfg_t *c, forward_acts_t *a)
{
    const model_info_t *info = &l->part->info;
    uint64_t t = c->tokens_max, f = sizeof(float);
    uint64_t head = info->head_dim, whole = info->key_dim + info->rope_dims;

    if (info->latent == 0) {
        a->q = forward_alloc(l, t, info->heads * head * f, "activations");
        a->a = forward_alloc(l, t, info->heads * head * f, "activations");
        a->k = forward_alloc(l, t, info->kv_heads * head * f, "activations");
        a->v = forward_alloc(l, t, info->kv_heads * head * f, "activations");
        return;
    }

    whole = max_u64(whole, info->value_dim);
    a->q = forward_alloc(l, t, info->heads * whole * f, "activations");
    a->ql = forward_alloc(l, t, info->heads * head * f, "activations");
    a->a = forward_alloc(l, t, info->heads * info->latent * f, "activations");
    a->k = forward_alloc(l, t, info->rope_dims * f, "activations");
    a->v = forward_alloc(l, t, info->latent * f, "activations");

    if (info->q_latent > 0) {
        a->qa = forward_alloc(l, t, info->q_latent * f, "activations");
    }
}

/* Those of gates: layers with experts and without share them. */
static void
gates(forward_load_t *l, const forward_cfg_t *c, forward_acts_t *a)
{
    uint32_t i;
    const model_info_t *info = &l->part->info;
    uint64_t t = c->tokens_max, f = sizeof(float);
    uint64_t gate = (uint64_t) info->experts_used * info->expert_ffn;

    for (i = 0; i < info->layers; i++) {
        if (model_layer(l->m, i)->router == NULL) {
            gate = max_u64(gate, info->ffn);
        }
    }

    a->gate = forward_alloc(l, t, gate * f, "activations");

    if (info->experts > 0) {
        a->router = forward_alloc(l, t, info->experts * f, "activations");
        a->ids = forward_alloc(l, t, info->experts_used * f, "activations");
        a->weights = forward_alloc(l, t, info->experts_used * f, "activations");
        a->shared_by = forward_alloc(l, t, f, "activations");
    }

    if (info->shared_ffn > 0) {
        a->shared = forward_alloc(l, t, info->shared_ffn * f, "activations");
        a->h2 = forward_alloc(l, t, info->hidden * f, "activations");
    }
}

void
forward_acts(forward_load_t *l, const forward_cfg_t *c, forward_acts_t *a)
{
    uint32_t i;
    const model_info_t *info = &l->part->info;
    uint64_t t = c->tokens_max, outs = c->outs_max;
    uint64_t f = sizeof(float);

    a->x = forward_alloc(l, t, info->hidden * f, "activations");
    a->n = forward_alloc(l, t, info->hidden * f, "activations");
    a->h = forward_alloc(l, t, info->hidden * f, "activations");
    attention(l, c, a);
    gates(l, c, a);

    for (i = 0; i < info->ropes; i++) {
        a->cs[i] = forward_alloc(l, t, info->rope_dims * f, "activations");
    }

    a->g = forward_alloc(l, outs, info->hidden * f, "outputs");
    a->own = l->part->ranks > 1
                 ? forward_alloc(l, outs, l->part->vocab.n * f, "logits")
                 : a->own;
    a->logits = forward_alloc(l, outs, info->vocab * f, "logits");
    a->out = forward_alloc_host(l, outs, sizeof(sample_out_t), "outputs");
}
