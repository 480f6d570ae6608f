/*
 * Builds safetensors files in memory, right or wrong ones, and directories of
 * them, for the tests of safetensors.c and model_hf.c.
 */
#ifndef SAFETENSORS_MAKE_H
#define SAFETENSORS_MAKE_H

#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    uint8_t p[2 << 20];
    size_t len;
} make_st_t;

/* A file of this header and n bytes of data. */
static inline void
make_st(make_st_t *f, const char *header, size_t n)
{
    uint64_t len = strlen(header);

    assert(sizeof(len) + len + n <= sizeof(f->p));
    memcpy(f->p, &len, sizeof(len));
    memcpy(f->p + sizeof(len), header, len);
    memset(f->p + sizeof(len) + len, 0x11, n);
    f->len = sizeof(len) + len + n;
}

/* A directory of the test's own. */
static inline char *
make_dir(void)
{
    char *dir = strdup("/tmp/ngx_llm_test_XXXXXX");
    char *made = dir != NULL ? mkdtemp(dir) : NULL;

    assert(made != NULL);
    return made;
}

static inline void
make_file(const char *dir, const char *name, const void *p, size_t n)
{
    char path[1024];
    FILE *f;
    size_t written;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "wb");
    assert(f != NULL);
    written = n > 0 ? fwrite(p, 1, n, f) : 0;
    assert(written == n);
    (void) written;
    fclose(f);
}

static inline void
make_text(const char *dir, const char *name, const char *text)
{
    make_file(dir, name, text, strlen(text));
}

static inline void
make_gone(const char *dir, const char *name)
{
    char path[1024];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    (void) unlink(path);
}

#endif
