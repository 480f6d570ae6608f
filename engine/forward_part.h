/*
 * What one of some ranks has of a model.
 */
#ifndef FORWARD_PART_H
#define FORWARD_PART_H

#include "model.h"

/* Rows of a weight, or elements of its rows: so many from at on. */
typedef struct {
    uint32_t at, n;
} forward_cut_t;

typedef struct {
    uint32_t rank, ranks;

    /*
     * The model's, but for the rank's own heads and kv_heads, and of ffn,
     * expert_ffn and shared_ffn the most that it has in any layer.
     */
    model_info_t info;

    uint32_t head, kv_head; /* its first ones */
    forward_cut_t vocab;    /* rows of both ends' matrices */
} forward_part_t;

/*
 * Rank's part; ranks >= 1.  0, or -1 with one sentence in err when the model
 * has something that cannot be divided so.
 */
int forward_part(forward_part_t *p, const model_t *m, uint32_t rank,
    uint32_t ranks, char *err, size_t errlen);

/*
 * What a rank has of the side that a gate's three matrices share, down being
 * the one with rows of it.
 */
forward_cut_t forward_part_ffn(const forward_part_t *p, const tensor_t *down);

/* Key heads that a rank of so many has. */
uint32_t forward_part_kv_heads(const model_info_t *info, uint32_t ranks);

#endif
