/*
 * How much of its asks a cache can find when that many of them run at once and
 * the order is chosen by who knows all of them beforehand.
 */
#ifndef OFFLINE_H
#define OFFLINE_H

#include "tree.h"

typedef struct {
    uint32_t at_once; /* groups under way */
    uint32_t running; /* asks, at most */
    uint32_t blocks;  /* of the pool */
    uint32_t block_tokens;
} offline_t;

/* Prompt tokens found. */
uint64_t offline_found(const asks_t *a, const offline_t *c);

#endif
