/*
 * The layout of a block of the pool: see forward_kv.c.
 */
#ifndef FORWARD_KV_H
#define FORWARD_KV_H

#include "forward.h"

/* Bytes of one layer's keys in a block; info is the whole model's. */
uint64_t forward_kv_part(const model_info_t *info, const forward_cfg_t *c);

/* Bytes of one layer in a block: its values are as many, or inside of keys. */
uint64_t forward_kv_layer(const model_info_t *info, const forward_cfg_t *c);

#endif
