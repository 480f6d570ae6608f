/*
 * Catches: a SentencePiece model that crashes the opening, or a text that
 * makes its character map or encoder crash, loop, write past its room or
 * produce an id out of range.
 *
 * The input is two bytes, the length of the file, low one first; then the
 * file; then the text.
 */
#include "token_use.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MAX 4096

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    static const char ours[] = "Hello  <s>w\xc3\xb6rld e\xcc\x81 12\n\xff,a";
    const char *text = ours;
    size_t file, text_len = sizeof(ours) - 1;
    char err[256] = "";
    token_t *t;

    if (len < 2) {
        return 0;
    }
    file = p[0] | (size_t) p[1] << 8;
    p += 2;
    len -= 2;
    if (file < len) {
        text = (const char *) p + file;
        text_len = len - file;
    }
    file = file < len ? file : len;

    t = token_open_model_mem((const char *) p, file, "fuzz", err, sizeof(err));
    if (t == NULL) {
        if (strncmp(err, "fuzz: ", 6) != 0) {
            abort();
        }
        return 0;
    }

    text_len = text_len < TEXT_MAX ? text_len : TEXT_MAX;
    token_use(t, text, text_len, TOKEN_F_BOS);
    token_use(t, text, text_len, TOKEN_F_SPECIAL);
    token_close(t);

    return 0;
}
