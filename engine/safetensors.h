/*
 * Weights in the safetensors format, mapped read-only: one file, or the shards
 * that an index names.  All that comes out has been checked against the files'
 * sizes: lengths, types, offsets, overlaps, gaps, duplicate names.
 */
#ifndef SAFETENSORS_H
#define SAFETENSORS_H

#include "tensor.h"

#include <stddef.h>
#include <stdint.h>

typedef struct safetensors_s safetensors_t;

/*
 * Opens and checks model.safetensors of a directory or, where there is none,
 * the shards that its model.safetensors.index.json names.  NULL with one
 * sentence in err.  The caller closes it.
 */
safetensors_t *safetensors_open(const char *dir, char *err, size_t errlen);

/* One file over memory that the caller keeps until the end (tests, fuzz). */
safetensors_t *safetensors_open_mem(
    const uint8_t *p, size_t len, const char *name, char *err, size_t errlen);

void safetensors_close(safetensors_t *s);

/* The file or index it was opened by. */
const char *safetensors_name(const safetensors_t *s);

/* How many files. */
uint32_t safetensors_files_n(const safetensors_t *s);

/*
 * All tensors, sorted by name; dims[0] is the row's length, the last number of
 * the file's shape.  data is not aligned.  Borrowed.
 */
const tensor_t *safetensors_tensors(const safetensors_t *s, uint32_t *n);

#endif
