/*
 * A tokenizer: text to token ids and back.  Read-only after opening, so any
 * thread may use it.
 */
#ifndef TOKEN_H
#define TOKEN_H

#include "gguf.h"

#include <stddef.h>
#include <stdint.h>

typedef struct token_s token_t;

#define TOKEN_NONE UINT32_MAX

enum {
    /* put the tokens around it that the model wants around a text that stands
     * alone: mostly one, the begin token */
    TOKEN_F_BOS = 1,
    TOKEN_F_SPECIAL = 2 /* text may name control tokens ("<|im_end|>") */
};

/*
 * From the vocabulary in g, whose memory must outlive it.  NULL with one
 * sentence in err.
 */
token_t *token_open_gguf(const gguf_t *g, char *err, size_t errlen);

/*
 * From a Hugging Face tokenizer.json: a file, or len bytes at p that are not
 * needed afterwards and that name stands for in messages.  What the file asks
 * for and is not supported is refused, by name.  NULL with one sentence in
 * err.
 */
token_t *token_open_json(const char *path, char *err, size_t errlen);
token_t *token_open_json_mem(
    const char *p, size_t len, const char *name, char *err, size_t errlen);

/* The same from a SentencePiece model file (BPE or Unigram). */
token_t *token_open_model(const char *path, char *err, size_t errlen);
token_t *token_open_model_mem(
    const char *p, size_t len, const char *name, char *err, size_t errlen);

/*
 * From a Hugging Face directory: tokenizer.json, else tokenizer.model with the
 * tokens that added_tokens.json or tokenizer_config.json add to it; and
 * what tokenizer_config.json, special_tokens_map.json and
 * generation_config.json, which may be absent, say of begin and end.
 */
token_t *token_open_dir(const char *path, char *err, size_t errlen);

/*
 * For the null back end: ids 0 to 255 are the bytes, then a few words that it
 * says, then begin and end.
 */
token_t *token_open_null(void);

void token_close(token_t *t);

uint32_t token_vocab(const token_t *t);
uint32_t token_bos(const token_t *t); /* TOKEN_NONE: has none */
uint32_t token_eos(const token_t *t);

/* Does id end a text (end of text, end of turn)? */
int token_is_end(const token_t *t, uint32_t id);

/*
 * Says that id ends a text too: what a model's configuration knows and its
 * vocabulary does not.  Before other threads look; ids outside are nothing.
 */
void token_add_end(token_t *t, uint32_t id);

/* Which kind it is, for people. */
const char *token_kind(const token_t *t);

/* The id whose piece is exactly s, TOKEN_NONE if none. */
uint32_t token_find(const token_t *t, const char *s, size_t len);

/*
 * Encodes len bytes of UTF-8 (invalid bytes are legal and go to byte pieces
 * or the unknown token) into out, at most cap ids.  Returns how many there
 * are, or -LLM_ERR_CONTEXT_FULL (more than cap), -LLM_ERR_BAD_TEXT (text
 * outside the vocabulary and no unknown token), -LLM_ERR_CANCELLED (cancelled
 * returned nonzero; it is asked every few thousand bytes; may be NULL),
 * -LLM_ERR_NO_MEMORY.  O(len log len), work memory from malloc.
 */
int64_t token_encode(const token_t *t, const char *text, size_t len,
    unsigned flags, uint32_t *out, size_t cap, int (*cancelled)(void *),
    void *arg);

/* Bytes from the end of the span before to end, which is in bytes. */
typedef struct {
    uint32_t end;
    uint32_t control; /* may they name control tokens? */
} token_span_t;

/*
 * The same for a text of which parts are trusted and others are not: a control
 * token is recognised only if all of its bytes lie in one span that allows
 * it.  What is between two such tokens is one text, wherever spans end.  The
 * spans cover the text, and neighbours differ.  flags has no TOKEN_F_SPECIAL.
 */
int64_t token_encode_spans(const token_t *t, const char *text, size_t len,
    const token_span_t *spans, size_t spans_n, unsigned flags, uint32_t *out,
    size_t cap, int (*cancelled)(void *), void *arg);

/*
 * The name of id, as the vocabulary has it ("<|im_end|>"), not 0-terminated,
 * borrowed; empty if id is outside it or has none.
 */
const char *token_piece(const token_t *t, uint32_t id, size_t *len);

/*
 * The bytes that id stands for in running text ("▁a" is " a"; a control token
 * is empty).  Borrowed from t.  An id outside the vocabulary is empty.
 */
const char *token_bytes(const token_t *t, uint32_t id, size_t *len);

/*
 * Does the tokenizer put a space before the text that is not the text's own?
 * Then the first token after BOS loses one leading space when it is shown.
 */
int token_strips_space(const token_t *t);

#endif
