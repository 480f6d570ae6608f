/*
 * Cuts a stream of bytes into whole UTF-8 characters.
 */
#ifndef UTF8_H
#define UTF8_H

#include <stddef.h>
#include <stdint.h>

#define UTF8_REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */
#define UTF8_TAIL_MAX    3

/* The beginning of a character that is not whole yet. All zero is none. */
typedef struct {
    uint8_t tail[UTF8_TAIL_MAX];
    uint8_t n;
} utf8_t;

/* Bytes that utf8_feed may write for n bytes read. */
#define UTF8_OUT_MAX(n) (3 * ((size_t) (n) + UTF8_TAIL_MAX))

/*
 * Reads n bytes and writes the whole characters that they complete to dst,
 * which has room for UTF8_OUT_MAX(n).  A byte sequence that can be no
 * character becomes U+FFFD, one for each maximal beginning of one, as the
 * Unicode standard recommends.  Returns the bytes written.
 */
size_t utf8_feed(utf8_t *u, const char *src, size_t n, char *dst);

/*
 * The stream ends: an unfinished character becomes U+FFFD.  Writes 0 or 3
 * bytes to dst and returns how many.
 */
size_t utf8_end(utf8_t *u, char *dst);

/*
 * Judges the first character of n bytes (n >= 1).  Returns its length if it
 * is whole and valid; 0 if it is the beginning of one and more is needed; else
 * minus the number of bytes that can be no character.
 */
int utf8_char(const uint8_t *p, size_t n);

#endif
