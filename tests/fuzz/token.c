/*
 * Catches: a vocabulary that crashes the opening, or a text that makes the
 * encoder crash, loop, write past its room or produce an id out of range.
 *
 * The input is a list of pieces (type, score, length, bytes), an empty length
 * ends it; the rest is the text.  So that the fuzzer need not invent a file,
 * the vocabulary is written around the pieces; bits of the first byte leave
 * parts of it out or make them lie.
 */
#include "token_use.h"
#include "../unit/vocab_file.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PIECES_MAX 300

typedef struct {
    const uint8_t *s;
    uint8_t len, type;
    float score;
} fuzz_piece_t;

static void
build(file_t *f, unsigned how, const fuzz_piece_t *v, uint32_t n)
{
    uint32_t i, types_n = how & 1 ? n / 2 : n;

    file_init(f);
    key_str(f, "tokenizer.ggml.model", "llama");
    key_arr(f, "tokenizer.ggml.tokens", GGUF_STR, n);
    for (i = 0; i < n; i++) {
        put_str(f, (const char *) v[i].s, v[i].len);
    }
    if (!(how & 2)) {
        key_arr(f, "tokenizer.ggml.scores", GGUF_F32, n);
        for (i = 0; i < n; i++) {
            put(f, &v[i].score, 4);
        }
    }
    if (!(how & 4)) {
        key_arr(f, "tokenizer.ggml.token_type", GGUF_I32, types_n);
        for (i = 0; i < types_n; i++) {
            put_u32(f, v[i].type);
        }
    }
    if (!(how & 8)) {
        key_u32(f, "tokenizer.ggml.bos_token_id", how >> 5);
        key_u32(f, "tokenizer.ggml.unknown_token_id", n > 2 ? 2 : UINT32_MAX);
    }
    if (how & 16) {
        key(f, "tokenizer.ggml.remove_extra_whitespaces", GGUF_BOOL);
        put(f, "\1", 1);
    }
    file_done(f);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    fuzz_piece_t v[PIECES_MAX];
    char err[256];
    uint32_t n = 0;
    unsigned how;
    token_t *t;
    gguf_t *g;
    file_t f;

    if (len == 0) {
        return 0;
    }

    how = *p++;
    len--;
    while (len >= 6 && p[5] != 0 && p[5] <= len - 6 && n < PIECES_MAX) {
        v[n].type = p[0];
        memcpy(&v[n].score, p + 1, 4);
        v[n].len = (uint8_t) (p[5] - 1);
        v[n].s = p + 6;
        len -= 6 + (size_t) p[5] - 1;
        p += 6 + (size_t) p[5] - 1;
        n++;
    }

    build(&f, how, v, n);
    g = gguf_open_mem(f.p, f.n, "fuzz", err, sizeof(err));
    t = g != NULL ? token_open_gguf(g, err, sizeof(err)) : NULL;
    if (t != NULL) {
        token_use(t, (const char *) p, len, TOKEN_F_BOS);
        token_use(t, (const char *) p, len, TOKEN_F_BOS | TOKEN_F_SPECIAL);
    }
    token_close(t);
    gguf_close(g);
    free(f.p);

    return 0;
}
