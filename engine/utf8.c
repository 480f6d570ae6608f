/*
 * UTF-8 in a stream: see utf8.h.
 *
 * DESIGN.  The only state is the beginning of a character that a token has cut
 * off, at most three bytes.  The next bytes go behind it in a small window,
 * so one function judges every case.
 */
#include "utf8.h"

#include <assert.h>
#include <string.h>


int
utf8_char(const uint8_t *p, size_t n)
{
    uint8_t lo = 0x80, hi = 0xbf;
    size_t i, need;

    assert(n > 0);

    if (p[0] < 0x80) {
        return 1;
    }
    if (p[0] < 0xc2 || p[0] > 0xf4) {
        return -1;
    }

    need = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;

    /* the second byte rules out overlong forms, surrogates and what lies
     * above U+10FFFF */
    switch (p[0]) {
    case 0xe0:
        lo = 0xa0;
        break;
    case 0xed:
        hi = 0x9f;
        break;
    case 0xf0:
        lo = 0x90;
        break;
    case 0xf4:
        hi = 0x8f;
        break;
    default:
        break;
    }

    for (i = 1; i < need; i++) {
        if (i == n) {
            return 0;
        }
        if (p[i] < lo || p[i] > hi) {
            return -(int) i;
        }
        lo = 0x80;
        hi = 0xbf;
    }

    return (int) need;
}


static size_t
utf8_put(char *dst, const uint8_t *p, int len)
{
    if (len > 0) {
        memcpy(dst, p, (size_t) len);
        return (size_t) len;
    }
    memcpy(dst, UTF8_REPLACEMENT, 3);

    return 3;
}


/*
 * Finishes the tail with as much of src as it takes.  Returns how many bytes
 * of src are used up; the tail is empty then, or src is.
 */
static size_t
utf8_join(utf8_t *u, const uint8_t *src, size_t n, char *dst, size_t *out)
{
    uint8_t win[UTF8_TAIL_MAX + 1];
    size_t used = 0;
    int len;

    assert(u->n <= UTF8_TAIL_MAX);

    while (u->n > 0 && used < n) {
        memcpy(win, u->tail, u->n);
        win[u->n] = src[used];
        len = utf8_char(win, (size_t) u->n + 1);

        if (len == 0) {
            assert(u->n < UTF8_TAIL_MAX);
            u->tail[u->n++] = src[used++];
            continue;
        }

        /* either the byte completes it, or the tail is no character and the
         * byte is judged afresh */
        used += len > 0;
        *out += utf8_put(dst + *out, win, len);
        u->n = 0;
    }

    return used;
}


size_t
utf8_feed(utf8_t *u, const char *src, size_t n, char *dst)
{
    const uint8_t *p = (const uint8_t *) src;
    size_t at, out = 0;
    int len;

    for (at = utf8_join(u, p, n, dst, &out); at < n;) {
        len = utf8_char(p + at, n - at);
        if (len == 0) {
            assert(n - at <= UTF8_TAIL_MAX);
            u->n = (uint8_t) (n - at);
            memcpy(u->tail, p + at, u->n);
            break;
        }
        out += utf8_put(dst + out, p + at, len);
        at += (size_t) (len > 0 ? len : -len);
    }

    assert(out <= UTF8_OUT_MAX(n));

    return out;
}


size_t
utf8_end(utf8_t *u, char *dst)
{
    if (u->n == 0) {
        return 0;
    }
    u->n = 0;

    return utf8_put(dst, NULL, -1);
}
