/*
 * What the fuzz targets of tokenizers do with one that opens: a text to ids,
 * each of which must exist.
 */
#ifndef TOKEN_USE_H
#define TOKEN_USE_H

#include "token.h"

#include <stdlib.h>

#define IDS_MAX 4096


static inline void
token_use(const token_t *t, const char *text, size_t len, unsigned flags)
{
    static uint32_t ids[IDS_MAX];
    int64_t n, i;
    size_t m;

    n = token_encode(t, text, len, flags, ids, IDS_MAX, NULL, NULL);
    if (n > IDS_MAX) {
        abort();
    }
    for (i = 0; i < n; i++) {
        if (ids[i] >= token_vocab(t)) {
            abort();
        }
        (void) token_bytes(t, ids[i], &m);
        (void) token_is_end(t, ids[i]);
    }
}

#endif
