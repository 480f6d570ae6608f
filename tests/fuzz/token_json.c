/*
 * Catches: a tokenizer.json that crashes the opening, or a text that makes
 * its normalizer, pre-tokenizer or encoder crash, loop, write past its room or
 * produce an id out of range.
 *
 * The input is the file, then a zero and the text; a file without one gets a
 * text of ours.  No JSON has a zero in it.
 */
#include "token_use.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MAX 512 /* a pattern may take its time for each byte */

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    static const char ours[] = "Hello  <s>w\xc3\xb6rld e\xcc\x81 12\n\xff,a";
    const uint8_t *end = len > 0 ? memchr(p, '\0', len) : NULL;
    const char *text = end != NULL ? (const char *) end + 1 : ours;
    size_t file = end != NULL ? (size_t) (end - p) : len;
    size_t text_len = end != NULL ? len - file - 1 : sizeof(ours) - 1;
    char err[256] = "";
    token_t *t;

    t = token_open_json_mem(
        len > 0 ? (const char *) p : "", file, "fuzz", err, sizeof(err));
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
