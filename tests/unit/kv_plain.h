/*
 * A pool of one group without a window, as most tests want it.
 */
#ifndef KV_PLAIN_H
#define KV_PLAIN_H

#include "kv.h"

static inline kv_t *
kv_open_plain(
    uint32_t blocks, uint32_t block_tokens, uint32_t seqs, uint32_t context)
{
    static const uint32_t none[1];
    kv_cfg_t c = {blocks, block_tokens, seqs, context, context, 1, none};

    return kv_open(&c);
}

#endif
