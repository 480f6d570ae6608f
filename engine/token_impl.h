/*
 * What the tokenizer's own files share: the vocabulary's tables (token_load.c
 * makes them, token.c looks things up) and the encoder over them
 * (token_spm.c).  For those three only.
 */
#ifndef TOKEN_IMPL_H
#define TOKEN_IMPL_H

#include "token.h"

/* The file format's numbers. */
enum {
    TOKEN_NORMAL = 1,
    TOKEN_UNKNOWN = 2,
    TOKEN_CONTROL = 3,
    TOKEN_USER = 4,
    TOKEN_UNUSED = 5,
    TOKEN_BYTE = 6,
    TOKEN_TYPES
};

/*
 * Pieces longer than this take no part in merging and are not looked for as
 * special ones: it bounds the work per byte of text and the depth to which an
 * unused piece can fall apart.  Real ones stay below 200 bytes.
 */
#define TOKEN_PIECE_MAX   1024
#define TOKEN_SPECIAL_MAX 255

/* Text is looked at for cancellation after about so many bytes or merges. */
#define TOKEN_CANCEL_EVERY 4096u

/* Piece to id; slots hold id + 1, 0 is empty; linear probing. */
typedef struct {
    uint32_t *slots; /* [mask + 1], owned */
    uint32_t mask;
} token_map_t;

struct token_s {
    char *bytes; /* [256] the null back end's pieces, owned; else NULL */
    uint32_t n;
    gguf_str_t *piece; /* [n] as the file has it, borrowed */
    uint8_t *type;     /* [n] TOKEN_NORMAL... */
    float *score;      /* [n] never NaN */
    uint8_t *end;      /* [n] does it end a text? */
    char *text;        /* all that token_bytes gives, in a row */
    size_t *text_at;   /* [n + 1] where in it */
    token_map_t all;   /* every piece; of equal ones the first */
    token_map_t merge; /* those that plain text may become */
    uint32_t bos, eos, unk;
    uint32_t byte_id[256];      /* TOKEN_NONE: no such piece */
    uint32_t bytes_n;           /* how many of byte_id there are */
    uint32_t merge_max;         /* longest in merge, bytes */
    uint8_t special_first[256]; /* does a special piece start so? */
    uint8_t special_len[TOKEN_SPECIAL_MAX + 1];
    int add_bos, add_space;
    int collapse; /* runs of spaces are one, none at either end */
    int has_unused;
};

/* Where ids go, and who is asked for cancellation. */
typedef struct {
    uint32_t *out;
    size_t n, cap;
    int fused; /* the last id stands for a run of unknown text */
    int (*cancelled)(void *);
    void *arg;
} token_sink_t;

/* Room for n pieces. 0, or -1 when out of memory. */
int token_map_open(token_map_t *m, uint32_t n);

/* Adds t's piece id, unless there is one like it. */
void token_map_put(const token_t *t, token_map_t *m, uint32_t id);

/* The id of exactly these bytes, TOKEN_NONE if none. */
uint32_t token_map_get(
    const token_t *t, const token_map_t *m, const char *s, size_t len);

/* 0, or -LLM_ERR_CONTEXT_FULL. */
int token_sink_put(token_sink_t *s, uint32_t id);

static inline int
token_sink_cancelled(const token_sink_t *s)
{
    return s->cancelled != NULL && s->cancelled(s->arg);
}

/*
 * Appends the ids of plain text; prefix says that a space of the tokenizer's
 * own goes before it.  0 or what token_encode returns.
 */
int token_spm_encode(const token_t *t, const char *text, size_t len, int prefix,
    token_sink_t *s);

#endif
