/*
 * Where in the paged cache a position's key and value lie.
 */
#ifndef CPU_CACHE_H
#define CPU_CACHE_H

#include "job.h"

#include <assert.h>

/* Bytes of n elements of a row. */
static inline size_t
kv_size(const kn_kv_t *kv, uint32_t n)
{
    assert(n % kn_kv_block(kv->type) == 0);
    return kn_kv_bytes(kv->type, n);
}

/* Where, after off, row has position pos and head h: width elements each. */
static inline char *
kv_row(const kn_dev_t *dev, const kn_kv_t *kv, const kn_row_t *row,
    uint32_t pos, uint32_t h, uint64_t off, uint32_t width)
{
    uint32_t block, number = pos / kv->block_tokens;
    const kn_blocks_t *blocks = &row->blocks[kv->group];
    uint64_t at;

    assert(kv->group < KN_GROUPS);
    assert(number >= blocks->first && number - blocks->first < blocks->n);

    block = dev->blocks[blocks->at + number - blocks->first];
    at = (uint64_t) h * kv->block_tokens + pos % kv->block_tokens;

    return HOST(char, kv->kv) + block * kv->stride + off
           + at * kv_size(kv, width);
}

/* Where head h's key of position pos of row lies in the cache. */
static inline char *
key_at(const kn_dev_t *dev, const kn_kv_t *kv, const kn_row_t *row,
    uint32_t pos, uint32_t h)
{
    return kv_row(dev, kv, row, pos, h, kv->k_off, kv->head_dim);
}

/* The same for its value. */
static inline char *
value_at(const kn_dev_t *dev, const kn_kv_t *kv, const kn_row_t *row,
    uint32_t pos, uint32_t h)
{
    return kv->inside
               ? key_at(dev, kv, row, pos, h) + kv_size(kv, kn_kv_own(kv))
               : kv_row(dev, kv, row, pos, h, kv->v_off, kv->v_dim);
}

/* Bytes from one position's value to the next one's. */
static inline size_t
value_stride(const kn_kv_t *kv)
{
    return kv_size(kv, kv->inside ? kv->head_dim : kv->v_dim);
}

#endif
