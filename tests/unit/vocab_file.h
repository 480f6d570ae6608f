/*
 * Builds a GGUF file that is nothing but a vocabulary, in memory, for tests.
 */
#ifndef VOCAB_FILE_H
#define VOCAB_FILE_H

#include "gguf.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define SP "\xe2\x96\x81" /* the space of pieces */

typedef struct {
    uint8_t *p;
    size_t n, cap;
    uint64_t pairs;
} file_t;

static inline void
put(file_t *f, const void *p, size_t n)
{
    if (f->cap - f->n < n || f->p == NULL) {
        f->cap = 2 * (f->n + n) + 64;
        f->p = realloc(f->p, f->cap);
        assert(f->p != NULL);
    }
    if (n > 0) {
        memcpy(f->p + f->n, p, n);
    }
    f->n += n;
}

static inline void
put_u32(file_t *f, uint32_t v)
{
    put(f, &v, 4);
}

static inline void
put_str(file_t *f, const char *s, uint64_t n)
{
    put(f, &n, 8);
    put(f, s, n);
}

static inline void
file_init(file_t *f)
{
    uint64_t zero = 0;

    memset(f, 0, sizeof(*f));
    put(f, "GGUF", 4);
    put_u32(f, 3);
    put(f, &zero, 8);
    put(f, &zero, 8);
}

static inline void
key(file_t *f, const char *name, uint32_t type)
{
    f->pairs++;
    put_str(f, name, strlen(name));
    put_u32(f, type);
}

static inline void
key_u32(file_t *f, const char *name, uint32_t v)
{
    key(f, name, GGUF_U32);
    put_u32(f, v);
}

static inline void
key_str(file_t *f, const char *name, const char *v)
{
    key(f, name, GGUF_STR);
    put_str(f, v, strlen(v));
}

static inline void
key_arr(file_t *f, const char *name, uint32_t type, uint64_t n)
{
    key(f, name, GGUF_ARR);
    put_u32(f, type);
    put(f, &n, 8);
}

typedef struct {
    const char *s;
    float score;
    uint32_t type;
} piece_t;

/* What a vocabulary of n pieces looks like in a file. */
static inline void
file_vocab(file_t *f, const piece_t *v, uint32_t n)
{
    uint32_t i;

    file_init(f);
    key_str(f, "tokenizer.ggml.model", "llama");
    key_arr(f, "tokenizer.ggml.tokens", GGUF_STR, n);
    for (i = 0; i < n; i++) {
        put_str(f, v[i].s, strlen(v[i].s));
    }
    key_arr(f, "tokenizer.ggml.scores", GGUF_F32, n);
    for (i = 0; i < n; i++) {
        put(f, &v[i].score, 4);
    }
    key_arr(f, "tokenizer.ggml.token_type", GGUF_I32, n);
    for (i = 0; i < n; i++) {
        put_u32(f, v[i].type);
    }
}

/*
 * Writes the number of pairs; then the file is whole, in memory of just its
 * size, so that a sanitizer sees who reads on.  The caller frees p.
 */
static inline void
file_done(file_t *f)
{
    memcpy(f->p + 16, &f->pairs, 8);
    f->p = realloc(f->p, f->n);
    f->cap = f->n;
    assert(f->p != NULL);
}

#endif
