/*
 * Sizes of latent attention (DeepSeek's MLA), whose keys and values are made
 * of one compressed vector for each token.
 *
 * DESIGN.  The cache has what is the same for all heads: the rotated part of
 * the key, then the latent.  A head's key is made of the latent by a matrix of
 * its own, and so is its value; but a product with such a key is the product
 * of the latent with what the same matrix makes of the query.  So for
 * attention there is one head of keys of latent + rope_dims elements, whose
 * values are their last ones, and that is what head_dim and kv_heads say here.
 * What a head's key and value would be in full, key_dim and value_dim, is for
 * the matrices before and after.
 *
 * GGUF files have these matrices side by side (attn_k_b and attn_v_b), older
 * ones and Hugging Face's joined (kv_b); the first kind counts one key head,
 * the second as many as heads.
 *
 * Only while a model is being opened, on the thread that opens it.
 */
#include "model_impl.h"

#include <assert.h>

/* Several times the largest models there are; products fit 64 bits. */
#define HEADS_MAX  1024
#define PART_MAX   1024
#define LATENT_MAX (1u << 14)

/* What the norms of latents add, whatever the others do. */
#define LATENT_EPS 1e-6f

/* A head's key in full is said without what is rotated, or with it. */
static int
read_key(model_opening_t *o)
{
    uint32_t whole = 0;
    model_info_t *info = &o->m->info;
    model_key_name_t name;
    model_key_t key = MODEL_KEY_KEY_WHOLE;

    if (o->s->container == MODEL_HF) {
        return model_need_u32(o, MODEL_KEY_KEY_PART, PART_MAX, &info->key_dim);
    }

    if (!model_find_key(o, key, &name)) {
        key = MODEL_KEY_HEAD_DIM;
    }

    if (!model_need_u32(o, key, 2 * PART_MAX, &whole)) {
        return 0;
    }

    if (whole <= info->rope_dims) {
        return model_fail(o, o->s->keys,
            "key %s: expected more than the rotated %u, found %u",
            model_key_shown(o, key, &name), info->rope_dims, whole);
    }

    info->key_dim = whole - info->rope_dims;
    return 1;
}

static int
read_value(model_opening_t *o)
{
    model_key_name_t name;
    model_key_t key = MODEL_KEY_VALUE_WHOLE;

    if (o->s->container == MODEL_GGUF && !model_find_key(o, key, &name)) {
        key = MODEL_KEY_VALUE_DIM;
    }

    return model_need_u32(o, key, PART_MAX, &o->m->info.value_dim);
}

int
model_read_latent(model_opening_t *o)
{
    uint32_t keys;
    model_key_name_t name;
    model_info_t *info = &o->m->info;

    assert(o->f->flags & MODEL_LATENT);

    if (!model_need_u32(o, MODEL_KEY_HEADS, HEADS_MAX, &info->heads)
        || !model_need_u32(o, MODEL_KEY_LATENT, LATENT_MAX, &info->latent)
        || !model_want_count(o, MODEL_KEY_Q_LATENT, LATENT_MAX, &info->q_latent)
        || !model_need_u32(o, MODEL_KEY_ROPE_DIMS, PART_MAX, &info->rope_dims)
        || !read_key(o) || !read_value(o)) {
        return 0;
    }

    if (info->rope_dims % 2 != 0) {
        return model_fail(o, o->s->keys,
            "key %s: expected an even number, found %u",
            model_key_shown(o, MODEL_KEY_ROPE_DIMS, &name), info->rope_dims);
    }

    keys = info->heads;

    if (!model_want_u32(o, MODEL_KEY_KV_HEADS, HEADS_MAX, &keys)) {
        return 0;
    }

    if (keys != info->heads && keys != 1) {
        return model_fail(o, o->s->keys, "key %s: expected %u or 1, found %u",
            model_key_shown(o, MODEL_KEY_KV_HEADS, &name), info->heads, keys);
    }

    info->kv_heads = 1;
    info->head_dim = info->latent + info->rope_dims;
    info->latent_eps = LATENT_EPS;
    return 1;
}

int
model_check_latent(model_opening_t *o)
{
    uint32_t i;
    const model_layer_t *l;
    char prefix[64];

    for (i = 0; i < o->m->info.layers && o->m->info.latent > 0; i++) {
        l = &o->m->layers[i];

        if ((l->k_b != NULL) != (l->v_b != NULL)
            || (l->k_b != NULL) == (l->kv_b != NULL)) {
            model_family_prefix(
                o->f, o->s->container, i, prefix, sizeof(prefix));
            return model_fail(o, o->s->weights,
                "layer \"%s\": expected attn_kv_b, or attn_k_b and attn_v_b, "
                "found %s",
                prefix,
                l->k_b != NULL && l->v_b != NULL ? "all of them"
                                                 : "not so many of them");
        }
    }

    return 1;
}
