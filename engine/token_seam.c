/*
 * Seams: places of a text that no piece of a vocabulary reaches over.
 *
 * DESIGN.  A vocabulary of characters often comes without a pre-tokenizer, and
 * a whole text is then one word.  Where no piece has a byte x followed by a
 * byte y, nothing that merges make ever reaches over an x that a y follows, so
 * what is before such a place and what is behind it cannot know of each other.
 * A text that is cut there gives the same ids, and its parts are short and
 * come again and again (token_cache.c).
 *
 *      ▁In▁the▁beginning,\n▁God   -->   ▁In | ▁the | ▁beginning | ,\n | ▁God
 *
 * The table has a bit for each pair of bytes: is there a piece that has them?
 * A "▁" counts as one byte, that of the space it stands for, or every "“"
 * would look like one.  A character is never cut in two.
 *
 * Unknown text is the exception, since a run of it is one token: a text may
 * have seams all over only if every byte has a piece, else just before spaces.
 *
 * The table is made at start and read-only after.
 */
#include "token_impl.h"

#include <assert.h>
#include <string.h>

#define SEAM_SPACE     "\xe2\x96\x81"
#define SEAM_SPACE_LEN 3


/* The byte that the text at s counts as; returns how many it takes. */
static inline size_t
seam_byte(const char *s, size_t left, uint8_t *y)
{
    if (s[0] == SEAM_SPACE[0] && left >= SEAM_SPACE_LEN
        && memcmp(s, SEAM_SPACE, SEAM_SPACE_LEN) == 0) {
        *y = ' ';
        return SEAM_SPACE_LEN;
    }
    *y = (uint8_t) s[0];

    return 1;
}


void
token_seam_open(token_t *t)
{
    unsigned x;

    assert(!t->bpe && !t->unigram);

    t->seams = 1;
    memset(t->joined, t->bytes_n == 256 ? 0 : 0xff, sizeof(t->joined));
    for (x = 0; x < 256 && t->bytes_n < 256; x++) {
        t->joined[x][' ' / 8] &= x == ' ' ? 0xff : (uint8_t) ~(1u << ' ' % 8);
    }
}


void
token_seam_piece(token_t *t, const char *s, size_t len)
{
    uint8_t x = 0, y;
    size_t i, n;

    assert(t->seams);

    for (i = 0; i < len; i += n, x = y) {
        n = seam_byte(s + i, len - i, &y);
        if (i > 0) {
            t->joined[x][y / 8] |= (uint8_t) (1u << y % 8);
        }
    }
}


size_t
token_seam_next(const token_t *t, const char *s, size_t len, size_t from)
{
    uint8_t x, y;
    size_t at, n;

    assert(t->seams && from < len);

    for (at = from + seam_byte(s + from, len - from, &x); at < len; x = y) {
        n = seam_byte(s + at, len - at, &y);
        if ((y & 0xc0) != 0x80 && !(t->joined[x][y / 8] >> y % 8 & 1)) {
            break;
        }
        at += n;
    }

    return at;
}
