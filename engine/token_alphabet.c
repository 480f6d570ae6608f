/*
 * GPT-2's byte alphabet: every byte as one visible character.
 *
 * DESIGN.  A byte-level vocabulary stores its pieces as text, so each of the
 * 256 bytes has a character.  Those that are visible in Latin-1 are their own;
 * the other 68 got, in order, the characters from U+0100 on: a space is "Ġ"
 * (U+0120), a line feed "Ċ".
 *
 *      byte        00..20    21..7e   7f..a0    a1..ac  ad     ae..ff
 *      character   U+0100..  itself   U+0121..  itself  U+0143 itself
 *
 * That is three ranges, so both directions are computed and there is no table
 * to keep.  All characters are below U+0800: one or two bytes of UTF-8.
 */
#include "token_impl.h"

#include <assert.h>

#define ALPHABET_MOVED 0x100u
#define ALPHABET_END   (ALPHABET_MOVED + 0x21 + 0x22 + 1)


static uint32_t
alphabet_of_byte(uint8_t b)
{
    if (b <= 0x20) {
        return ALPHABET_MOVED + b;
    }
    if (b >= 0x7f && b <= 0xa0) {
        return ALPHABET_MOVED + 0x21 + (b - 0x7fu);
    }

    return b == 0xad ? ALPHABET_END - 1 : b;
}


/* The byte that character c stands for, -1 if none. */
static int
alphabet_to_byte(uint32_t c)
{
    if (c < ALPHABET_MOVED) {
        return alphabet_of_byte((uint8_t) c) == c ? (int) c : -1;
    }
    if (c >= ALPHABET_END) {
        return -1;
    }

    c -= ALPHABET_MOVED;
    if (c < 0x21) {
        return (int) c;
    }

    return c < 0x21 + 0x22 ? (int) (c - 0x21 + 0x7f) : 0xad;
}


int
token_alphabet_read(const gguf_str_t *p, char *dst, size_t *n)
{
    const uint8_t *s = (const uint8_t *) p->s;
    uint32_t c;
    size_t i = 0;
    int byte;

    for (*n = 0; i < p->len; (*n)++) {
        c = s[i++];
        if (c >= 0x80) {
            /* C2 and C3 begin U+0080 to U+00FF, C4 and C5 the moved ones */
            if (c < 0xc2 || c > 0xc5 || i == p->len || (s[i] & 0xc0) != 0x80) {
                return 0;
            }
            c = (c & 0x1f) << 6 | (s[i++] & 0x3f);
        }
        byte = alphabet_to_byte(c);
        if (byte < 0) {
            return 0;
        }
        if (dst != NULL) {
            dst[*n] = (char) byte;
        }
    }

    assert(*n <= p->len);

    return 1;
}


size_t
token_alphabet_write(const char *s, size_t len, char *dst)
{
    size_t i, n = 0;
    uint32_t c;

    for (i = 0; i < len; i++) {
        c = alphabet_of_byte((uint8_t) s[i]);
        assert(c < ALPHABET_END && alphabet_to_byte(c) == (uint8_t) s[i]);
        if (c < 0x80) {
            dst[n++] = (char) c;
        } else {
            dst[n++] = (char) (0xc0 | c >> 6);
            dst[n++] = (char) (0x80 | (c & 0x3f));
        }
    }

    return n;
}
