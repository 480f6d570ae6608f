/*
 * One GGUF file, for gguf.c, which reads it, and gguf_shard.c, which joins
 * several.
 */
#ifndef GGUF_FILE_H
#define GGUF_FILE_H

#include "gguf.h"

/* Far above any real model, far below what would hurt. */
#define GGUF_TENSORS_MAX 65536

typedef struct gguf_pair_s gguf_pair_t;

struct gguf_s {
    char *name;       /* owned */
    const uint8_t *p; /* [len] */
    size_t len;
    int mapped; /* p is a mapping of ours */
    uint64_t mtime;
    uint64_t align;
    uint32_t pairs_n, tensors_n;
    gguf_pair_t *pairs; /* [pairs_n] by key, owned */
    tensor_t *tensors;  /* [tensors_n] by name, owned */
    gguf_t **shards;    /* [shards_n], owned; the first is this one */
    uint32_t shards_n;  /* 0 for a file that is whole */
};

/* As gguf_open, but of this file alone, whatever it says of others. */
gguf_t *gguf_file_open(const char *path, char *err, size_t errlen);

/* Sorts the tensors by name; 0 with a sentence where two have the same. */
int gguf_file_sort(gguf_t *g, char *err, size_t errlen);

#endif
