/*
 * What the tests of grammars share: a grammar and whether it takes a text,
 * and files of the test data.  Behind cmocka.h.
 */
#ifndef GRAMMAR_TEST_H
#define GRAMMAR_TEST_H

#include "gguf.h"
#include "grammar.h"
#include "token.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Does g take all of s, and may it end there? */
static inline int
takes(const grammar_t *g, const char *s, size_t len)
{
    grammar_state_t st = {NULL, 0, 0, 0};
    size_t n;
    int yes;

    assert_int_equal(grammar_begin(g, &st), 0);
    n = grammar_feed(g, &st, s, len);
    yes = n == len && grammar_can_end(g, &st);
    grammar_state_free(&st);

    return yes;
}

/* 0-terminated, in a buffer to be freed; NULL if there is none. */
static inline char *
slurp(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    char *p = NULL;
    long n;

    *len = 0;
    if (f != NULL && fseek(f, 0, SEEK_END) == 0 && (n = ftell(f)) >= 0) {
        rewind(f);
        p = malloc((size_t) n + 1);
        assert_non_null(p);
        *len = fread(p, 1, (size_t) n, f);
        p[*len] = '\0';
    }
    if (f != NULL) {
        (void) fclose(f);
    }

    return p;
}

static inline int
has_end(const char *s, const char *end)
{
    size_t n = strlen(s), k = strlen(end);

    return n >= k && strcmp(s + n - k, end) == 0;
}

static inline int
by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *) a, *(char *const *) b);
}

/*
 * The files of LLM_DATA/dir whose names end so, sorted; how many.  0: there is
 * no such directory.
 */
static inline size_t
files_of(const char *dir, const char *end, char *paths[], size_t most)
{
    const char *data = getenv("LLM_DATA");
    struct dirent *e;
    char path[512];
    size_t n = 0;
    DIR *d;

    if (data == NULL) {
        return 0;
    }
    (void) snprintf(path, sizeof(path), "%s/%s", data, dir);
    d = opendir(path);
    while (d != NULL && (e = readdir(d)) != NULL && n < most) {
        if (has_end(e->d_name, end)) {
            paths[n] = malloc(strlen(path) + strlen(e->d_name) + 2);
            assert_non_null(paths[n]);
            (void) sprintf(paths[n++], "%s/%s", path, e->d_name);
        }
    }
    if (d != NULL) {
        (void) closedir(d);
    }
    qsort(paths, n, sizeof(paths[0]), by_name);

    return n;
}

/* Those of LLM_DATA; json: is there a token for all that JSON is written with?
 */
static const struct {
    const char *name;
    int json;
} tokenizers[] = {{"phi-2", 1}, {"qwen3", 1}, {"phi-3-mini", 1}, {"llama-2", 1},
    {"mistral-v3", 1}, {"t5-small", 0}, {"gguf-vocab/ggml-vocab-gpt-2.gguf", 1},
    {"gguf-vocab/ggml-vocab-deepseek-coder.gguf", 1},
    {"gguf-vocab/ggml-vocab-llama-spm.gguf", 1}};

#define TOKENIZERS (sizeof(tokenizers) / sizeof(tokenizers[0]))

typedef struct {
    token_t *tok;
    gguf_t *gguf; /* NULL: it is a directory's */
} tokenizer_t;

/* 0, or -1 with one sentence in why. */
static inline int
tokenizer_open(tokenizer_t *t, const char *name, char *why, size_t n)
{
    const char *data = getenv("LLM_DATA");
    char path[512];

    t->tok = NULL;
    t->gguf = NULL;
    (void) snprintf(path, sizeof(path), "%s/tokenizers/%s",
        data == NULL ? "../shared/data" : data, name);
    if (!has_end(name, ".gguf")) {
        t->tok = token_open_dir(path, why, n);
    } else if ((t->gguf = gguf_open(path, why, n)) != NULL) {
        t->tok = token_open_gguf(t->gguf, why, n);
    }

    return t->tok == NULL ? -1 : 0;
}

static inline void
tokenizer_close(tokenizer_t *t)
{
    token_close(t->tok);
    if (t->gguf != NULL) {
        gguf_close(t->gguf);
    }
}

#endif
