/*
 * What a model is and what serving it will take, for people: the table of
 * --inspect, and the line of the log when it is loaded.
 */
#ifndef INSPECT_H
#define INSPECT_H

#include "forward.h"
#include "model.h"
#include "token.h"

#include <stddef.h>
#include <stdint.h>

/* All borrowed during the call. */
typedef struct {
    const char *name; /* the public one */
    const char *path;
    const model_t *model;
    const token_t *tok;
    const char *chat;           /* what it has of chat templates */
    const char *reasoning;      /* by which marks thought is told */
    const char *tool_calls;     /* in which form calls are */
    const forward_held_t *held; /* of all ranks */
    const forward_cfg_t *shape;
    uint64_t sequence_blocks; /* of the longest sequence */
    const char *kv_type;
    const char *device;
    uint64_t ring_bytes; /* of each worker */
    uint32_t workers_max;
} inspect_t;

/* What tensors that are left out are for. */
#define INSPECT_LEFT "they predict further tokens (MTP), which is not built"

/* Prints the table to stdout. */
void inspect_print(const inspect_t *in);

/* "weights Q8_0 1.2 MB in 15, F32 0.1 MB in 5; KV pool 8.0 MB; ..." in buf. */
void inspect_held(const forward_held_t *held, char *buf, size_t size);

#endif
