/*
 * Builds GGUF files in memory, right or wrong ones, for the tests of gguf.c
 * and model.c.
 */
#ifndef GGUF_MAKE_H
#define GGUF_MAKE_H

#include "gguf.h"

#include <assert.h>
#include <string.h>

typedef struct {
    uint8_t p[1 << 20];
    size_t len;
} make_t;

static inline void
make_bytes(make_t *f, const void *p, size_t n)
{
    assert(f->len + n <= sizeof(f->p));
    memcpy(f->p + f->len, p, n);
    f->len += n;
}

static inline void
make_u32(make_t *f, uint32_t v)
{
    make_bytes(f, &v, sizeof(v));
}

static inline void
make_u64(make_t *f, uint64_t v)
{
    make_bytes(f, &v, sizeof(v));
}

static inline void
make_str(make_t *f, const char *s)
{
    make_u64(f, strlen(s));
    make_bytes(f, s, strlen(s));
}

static inline void
make_head(make_t *f, uint32_t version, uint64_t tensors, uint64_t pairs)
{
    f->len = 0;
    make_bytes(f, "GGUF", 4);
    make_u32(f, version);
    make_u64(f, tensors);
    make_u64(f, pairs);
}

static inline void
make_pair_u32(make_t *f, const char *key, uint32_t v)
{
    make_str(f, key);
    make_u32(f, GGUF_U32);
    make_u32(f, v);
}

static inline void
make_pair_f32(make_t *f, const char *key, float v)
{
    make_str(f, key);
    make_u32(f, GGUF_F32);
    make_bytes(f, &v, sizeof(v));
}

static inline void
make_pair_str(make_t *f, const char *key, const char *v)
{
    make_str(f, key);
    make_u32(f, GGUF_STR);
    make_str(f, v);
}

static inline void
make_tensor(make_t *f, const char *name, uint64_t d0, uint64_t d1,
    uint32_t type, uint64_t offset)
{
    make_str(f, name);
    make_u32(f, d1 == 0 ? 1 : 2);
    make_u64(f, d0);

    if (d1 != 0) {
        make_u64(f, d1);
    }

    make_u32(f, type);
    make_u64(f, offset);
}

/* n bytes of data after padding to align */
static inline void
make_data(make_t *f, size_t align, size_t n)
{
    while (f->len % align != 0) {
        make_bytes(f, "", 1);
    }

    assert(f->len + n <= sizeof(f->p));
    memset(f->p + f->len, 0x11, n);
    f->len += n;
}

#endif
