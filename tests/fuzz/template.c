/*
 * Catches: messages that crash the template, make it write past its room, or
 * smuggle a marker in: there are as many as the form has, whatever was said.
 *
 * The input is the messages; its first byte says which vocabulary.
 */
#include "llm_err.h"
#include "template.h"
#include "../unit/vocab_file.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IDS_MAX 8192

/* Bytes, begin, end and ChatML's markers. */
static token_t *
chatml_open(file_t *f, gguf_t **g)
{
    static char names[256][8];
    piece_t v[260];
    char err[256];
    uint32_t i;

    for (i = 0; i < 256; i++) {
        (void) snprintf(names[i], sizeof(names[i]), "<0x%02X>", i);
        v[i] = (piece_t){names[i], 0, 6};
    }
    v[256] = (piece_t){"<s>", 0, 3};
    v[257] = (piece_t){"</s>", 0, 3};
    v[258] = (piece_t){"<|im_start|>", 0, 3};
    v[259] = (piece_t){"<|im_end|>", 0, 3};
    file_vocab(f, v, 260);
    file_done(f);
    *g = gguf_open_mem(f->p, f->n, "fuzz", err, sizeof(err));

    return token_open_gguf(*g, err, sizeof(err));
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    static uint32_t ids[IDS_MAX];
    static token_t *chatml, *null;
    static file_t f;
    static gguf_t *g;
    char err[256], param[64];
    const token_t *t;
    int64_t n, i;
    size_t cap;
    int starts = 0, ends = 0;

    if (chatml == NULL) {
        chatml = chatml_open(&f, &g);
        null = token_open_null();
    }
    if (len == 0) {
        return 0;
    }

    t = *p & 1 ? chatml : null;
    cap = *p & 2 ? 16 : IDS_MAX;
    n = template_encode(t, (const char *) p + 1, len - 1, ids, cap, NULL, NULL,
        err, sizeof(err), param, sizeof(param));

    if (n > (int64_t) cap || n == 0 || n <= -LLM_ERR_END) {
        abort();
    }
    if ((n == -LLM_ERR_BAD_FIELD || n == -LLM_ERR_BAD_MESSAGES)
        && (err[0] == '\0' || param[0] == '\0')) {
        abort();
    }

    for (i = 0; i < n; i++) {
        starts += ids[i] == 258 && t == chatml;
        ends += ids[i] == 259 && t == chatml;
        if (ids[i] >= token_vocab(t) || (ids[i] == 257 && t == chatml)) {
            abort();
        }
    }
    if (n > 0 && t == chatml && starts != ends + 1) {
        abort();
    }

    return 0;
}
