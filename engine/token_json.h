/*
 * What reads a tokenizer.json: token_json.c the vocabulary, token_json_pipe.c
 * what is done to a text before and behind it.  For those two only.
 */
#ifndef TOKEN_JSON_H
#define TOKEN_JSON_H

#include "token_impl.h"

#include <jansson.h>

/* Where a failure is told. */
typedef struct {
    const char *name; /* of the file */
    char *err;
    size_t errlen;
} token_json_why_t;

/* Writes one sentence behind the file's name. Always -1. */
int token_json_fail(const token_json_why_t *w, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* How a piece becomes text. */
enum {
    TOKEN_DECODE_REPLACE,  /* from by to */
    TOKEN_DECODE_FALLBACK, /* "<0x0A>" is a byte */
    TOKEN_DECODE_STRIP,    /* drops up to start times from at the beginning */
    TOKEN_DECODE_BYTES     /* letters of the byte alphabet are bytes */
};

#define TOKEN_DECODE_MAX  8
#define TOKEN_DECODE_TEXT 32

typedef struct {
    int kind;
    char from[TOKEN_DECODE_TEXT], to[TOKEN_DECODE_TEXT];
    uint32_t start, stop;
} token_decode_step_t;

typedef struct {
    token_decode_step_t steps[TOKEN_DECODE_MAX];
    uint32_t n;
    int strips; /* a text loses one leading space */
    token_buf_t a, b;
} token_decode_t;

/*
 * Each takes one section of the file, NULL or null being none.  0, or -1 with
 * the reason told.
 */
int token_json_normalizer(
    token_t *t, const json_t *o, const token_json_why_t *w);
int token_json_pre(token_t *t, const json_t *o, const token_json_why_t *w);
int token_json_decoder(
    token_decode_t *d, const json_t *o, const token_json_why_t *w);

/* What a piece stands for; in d->a until the next call. 0, or -1: no memory. */
int token_json_decode(token_decode_t *d, const char *s, size_t len, size_t *n);

/* TOKEN_ADDED_... of an added token: {"special": true, ...}. */
unsigned token_json_flags(const json_t *o);

#endif
