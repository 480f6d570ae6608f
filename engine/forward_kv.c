/*
 * How keys and values lie in a block of the pool, and what they take.
 *
 * DESIGN.  A block holds block_tokens positions of every layer of a group
 * (model_groups.c), so that a block is copied or evicted as a whole.  All are
 * of one size:
 *
 *      block:  | slot 0: k | v | slot 1: k | v | ...
 *      k, v:   [kv_heads, block_tokens, head_dim], to a multiple of 64 bytes;
 *              of latents there is no v: it is inside of k
 *
 * Each rank has a pool of its own, of as many blocks, with its own heads in
 * them: a block's number is the same in all.
 */
#include "forward_kv.h"
#include "forward_part.h"

#include <assert.h>
#include <stdio.h>

/* Bytes of one layer's keys in a block. */
uint64_t
forward_kv_part(const model_info_t *info, const forward_cfg_t *c)
{
    uint64_t bytes;

    bytes = (uint64_t) forward_part_kv_heads(info, forward_ranks(c))
            * c->block_tokens * kn_kv_bytes(c->kv_type, info->head_dim);

    return (bytes + 63) & ~(uint64_t) 63;
}

/* Bytes of one layer in a block: its values are as many, or inside of keys. */
uint64_t
forward_kv_layer(const model_info_t *info, const forward_cfg_t *c)
{
    return forward_kv_part(info, c) * (info->latent > 0 ? 1 : 2);
}

/* Rows are whole blocks of the type, latents and what is beside them too. */
int
forward_kv_fits(const model_t *m, uint32_t kv_type, char *err, size_t errlen)
{
    const model_info_t *info = model_info(m);
    uint32_t block = kn_kv_block(kv_type), own;

    assert(kv_type < KN_KV_TYPES && info->latent <= info->head_dim);
    own = info->head_dim - info->latent;

    if (own % block == 0 && info->latent % block == 0) {
        return 0;
    }

    if (info->latent > 0) {
        snprintf(err, errlen,
            "kv_type q8_0 needs latents and their rotated keys of a multiple "
            "of %u elements, found %u and %u",
            block, info->latent, own);
    } else {
        snprintf(err, errlen,
            "kv_type q8_0 needs heads of a multiple of %u elements, found %u",
            block, own);
    }

    return -1;
}

uint64_t
forward_block_bytes(const model_t *m, const forward_cfg_t *c)
{
    const model_info_t *info = model_info(m);

    assert(c->kv_type < KN_KV_TYPES && c->block_tokens > 0);
    return (c->groups.n > 0 ? c->groups.slots : info->layers)
           * forward_kv_layer(info, c);
}
