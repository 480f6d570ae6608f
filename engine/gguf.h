/*
 * A GGUF file (v2, v3), mapped read-only: its key-value pairs and tensors.
 * Shards are as one file: the first one's keys, the tensors of all.
 * All that comes out has been checked against the file's size: lengths,
 * counts, offsets, alignment, types, duplicate names, nesting.
 */
#ifndef GGUF_H
#define GGUF_H

#include "tensor.h"

#include <stddef.h>
#include <stdint.h>

typedef struct gguf_s gguf_t;

enum {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STR,
    GGUF_ARR,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_TYPES
};

/* Not 0-terminated; borrowed from the file until gguf_close. */
typedef tensor_name_t gguf_str_t;

typedef struct {
    uint32_t type; /* of the elements */
    uint64_t n;
    const uint8_t *data; /* unaligned: use the functions below */
    uint64_t size;       /* bytes of data */
} gguf_arr_t;

/*
 * Opens and checks path, and where it is one of several shards the others
 * beside it.  NULL with one sentence in err (naming file, thing, expected,
 * found) on failure.  The caller closes it.
 */
gguf_t *gguf_open(const char *path, char *err, size_t errlen);

/* The same over memory that the caller keeps until gguf_close (tests, fuzz). */
gguf_t *gguf_open_mem(
    const uint8_t *p, size_t len, const char *name, char *err, size_t errlen);

void gguf_close(gguf_t *g);

/* The path or name it was opened by; of the first shard where there are. */
const char *gguf_name(const gguf_t *g);

/* The file's modification time, unix seconds; 0 for memory. */
uint64_t gguf_mtime(const gguf_t *g);

/* Is there such a key, of whatever type? */
int gguf_has(const gguf_t *g, const char *key);

/*
 * Each returns 1 and sets *v when key exists with a fitting type (integers of
 * any width that fit, F32 or F64 for f32), 0 when it is absent or other.
 */
int gguf_u32(const gguf_t *g, const char *key, uint32_t *v);
int gguf_f32(const gguf_t *g, const char *key, float *v);
int gguf_bool(const gguf_t *g, const char *key, int *v);
int gguf_str(const gguf_t *g, const char *key, gguf_str_t *v);
int gguf_arr(const gguf_t *g, const char *key, gguf_arr_t *v);

/* Element i of an array; 0 unless i < n and the type fits. O(1). */
int gguf_arr_u32(const gguf_arr_t *a, uint64_t i, uint32_t *v);
int gguf_arr_f32(const gguf_arr_t *a, uint64_t i, float *v);

/*
 * Strings of an array have to be walked: *at is 0 to start.  1 with *v, 0 at
 * the end.
 */
int gguf_arr_str(const gguf_arr_t *a, uint64_t *at, gguf_str_t *v);

/* Tensors are numbered in the order of their names; data is aligned. */
uint32_t gguf_tensors_n(const gguf_t *g);
const tensor_t *gguf_tensor_at(const gguf_t *g, uint32_t i);

/* By name, NULL if there is none. O(log n). */
const tensor_t *gguf_tensor(const gguf_t *g, const char *name);

#endif
