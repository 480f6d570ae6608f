/*
 * What the tokenizer's own files share: the vocabulary's tables (token_load*.c
 * make them, token.c looks things up) and the two encoders over them
 * (token_spm.c; token_bpe.c with token_pre.c and token_alphabet.c).  For those
 * only.
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

/* Pieces, and merges; it keeps every size below within 32 bits. */
#define TOKEN_VOCAB_MAX (1u << 24)

/* Text is looked at for cancellation after about so many bytes or merges. */
#define TOKEN_CANCEL_EVERY 4096u

/* Piece to id; slots hold id + 1, 0 is empty; linear probing. */
typedef struct {
    uint32_t *slots; /* [mask + 1], owned */
    uint32_t mask;
} token_map_t;

/* Byte-level BPE: two neighbours that may be joined. */
typedef struct {
    uint32_t left, right; /* ids */
    uint32_t rank;        /* the lowest joins first */
    uint32_t joint;       /* id + 1; 0: the slot is empty */
} token_merge_t;

typedef struct token_pre_s token_pre_t;

struct token_s {
    int bpe;     /* byte-level BPE, not SentencePiece's */
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
    uint32_t merge_max;         /* longest in merge, bytes of text */
    uint8_t special_first[256]; /* does a special piece start so? */
    uint8_t special_len[TOKEN_SPECIAL_MAX + 1];
    int add_bos, add_space;
    int collapse; /* runs of spaces are one, none at either end */
    int has_unused;
    int has_user; /* are there pieces that were added as text? */

    /* byte-level BPE only */
    token_merge_t *joins; /* [joins_mask + 1] by left and right, owned */
    uint32_t joins_mask;
    token_pre_t *pre; /* owned */
    int whole;        /* a word that is a piece is not put together */
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

/* The same for byte-level BPE. */
int token_bpe_encode(
    const token_t *t, const char *text, size_t len, token_sink_t *s);

/* The slot of the merge of two pieces, or the empty one where it belongs. */
token_merge_t *token_bpe_slot(const token_t *t, uint32_t left, uint32_t right);

/*
 * A file's pre-tokenizer, rules that go with it, merges; t has its pieces'
 * tables by the time of the latter.  0, or -1 with err.
 */
int token_load_pre(token_t *t, const gguf_t *g, char *err, size_t errlen);
int token_load_merges(token_t *t, const gguf_t *g, char *err, size_t errlen);

/* Notes that text may become piece id, if it is in the byte alphabet. */
void token_load_bpe_piece(token_t *t, uint32_t id);

/* Writes what id, no special one, stands for; dst may be NULL to count. */
size_t token_load_bpe_text(const token_t *t, uint32_t id, char *dst);

/* Copies a file's string for a message: short, printable.  Returns dst. */
const char *token_load_printable(char *dst, size_t size, const gguf_str_t *s);

/*
 * GPT-2's byte alphabet.  Reading turns a piece into the bytes it stands for:
 * 1 with their number, 0 if a character of it is no byte's.  dst may be NULL
 * to count, else has room for p->len.
 */
int token_alphabet_read(const gguf_str_t *p, char *dst, size_t *n);

/* The piece that len bytes would be; dst has room for 2 * len. */
size_t token_alphabet_write(const char *s, size_t len, char *dst);

/* The pre-tokenizer that file calls name; NULL with one sentence in err. */
token_pre_t *token_pre_open(
    const char *file, const gguf_str_t *name, char *err, size_t errlen);

void token_pre_close(token_pre_t *p);

/* Other habits of its models: token_s's whole, and add_bos where unsaid. */
void token_pre_rules(const token_pre_t *p, int *whole, int *add_bos);

/*
 * Cuts text into words and calls word for each, in order; a nonzero result of
 * it ends the cutting and is returned.  Else 0, -LLM_ERR_NO_MEMORY or
 * -LLM_ERR_BAD_TEXT (a word took more steps than any real one).
 */
int token_pre_split(const token_pre_t *p, const char *text, size_t len,
    int (*word)(void *, const char *, size_t), void *arg);

#endif
