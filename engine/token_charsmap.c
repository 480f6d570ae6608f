/*
 * SentencePiece's character maps: which strings of characters become which.
 *
 * DESIGN.  A map is a double array (Darts-clone's layout) that leads from a
 * string to an offset, and the texts that the offsets point at:
 *
 *      | bytes of the array, 4 | array: units of 4 bytes | texts, 0-ended |
 *      unit   bit 8: a value follows; bits 0-7, 31: label; rest: offset
 *
 * It comes from a file, and what its units say is checked at each step rather
 * than once: an index outside the array ends the walk.
 *
 * The two users read it differently, and each is followed.  SentencePiece
 * takes the longest string at each place.  Hugging Face looks at what a user
 * would call one character, if that is shorter than six bytes, and then at
 * each code point; it takes the shortest string that either begins with, and
 * replaces all of it.
 *
 * Memory: a copy of the map; read-only after opening.
 */
#include "token_impl.h"
#include "llm_err.h"
#include "utf8.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* Hugging Face does not look up a longer cluster as one. */
#define CHARSMAP_CLUSTER_MAX 5

struct token_charsmap_s {
    uint32_t *units; /* [units_n] */
    uint32_t units_n;
    char *texts; /* [texts_n], the last is 0 */
    uint32_t texts_n;
    uint8_t plain[128]; /* it and another of ASCII begin nothing in the map */
};


static uint32_t
charsmap_offset(uint32_t unit)
{
    return unit >> 10 << ((unit & 1u << 9) >> 6);
}


/*
 * From the place *at by a byte; 0 if no string goes on so.  *text is what the
 * string until here becomes, NULL if it is none.
 */
static inline int
charsmap_step(
    const token_charsmap_t *m, uint32_t *at, uint8_t byte, const char **text)
{
    uint32_t unit, value;

    *text = NULL;
    *at ^= byte;
    if (byte == 0 || *at >= m->units_n) {
        return 0;
    }
    unit = m->units[*at];
    if ((unit & (1u << 31 | 0xff)) != byte) {
        return 0;
    }
    *at ^= charsmap_offset(unit);
    if (*at >= m->units_n) {
        return 0;
    }

    if (unit >> 8 & 1) {
        value = m->units[*at] & 0x7fffffff;
        *text = value < m->texts_n ? m->texts + value : NULL;
    }

    return 1;
}


/*
 * The text that a string at the beginning of s becomes, NULL if none; *n is
 * the string's length.
 */
static const char *
charsmap_find(const token_charsmap_t *m, int longest, const char *s, size_t len,
    size_t *n)
{
    const char *found = NULL, *text;
    uint32_t at = charsmap_offset(m->units[0]);
    size_t i;

    assert(len > 0);

    for (i = 0; i < len && charsmap_step(m, &at, (uint8_t) s[i], &text); i++) {
        if (text != NULL) {
            found = text;
            *n = i + 1;
            if (!longest) {
                break;
            }
        }
    }

    return found;
}


static void
charsmap_plain(token_charsmap_t *m)
{
    uint32_t at, next;
    const char *text;
    unsigned a, b;

    for (a = 0; a < 128; a++) {
        at = charsmap_offset(m->units[0]);
        m->plain[a] = 1;
        if (!charsmap_step(m, &at, (uint8_t) a, &text)) {
            continue;
        }
        m->plain[a] = text == NULL;
        for (b = 0; b < 128 && m->plain[a]; b++) {
            next = at;
            m->plain[a] = !charsmap_step(m, &next, (uint8_t) b, &text);
        }
    }
}


/* How many characters at s are in no string of the map. */
static size_t
charsmap_run(const token_charsmap_t *m, const char *s, size_t len)
{
    const uint8_t *p = (const uint8_t *) s;
    size_t i;

    for (i = 0; i < len && p[i] < 0x80 && m->plain[p[i]]; i++) {
    }

    /* what is not ASCII may be a mark on the one before */
    return i > 0 && i < len && p[i] >= 0x80 ? i - 1 : i;
}


token_charsmap_t *
token_charsmap_open(const uint8_t *p, size_t len, const char **why)
{
    token_charsmap_t *m;
    uint32_t size;

    *why = "it is damaged";
    if (len < 4 || len > TOKEN_TEXT_MAX) {
        return NULL;
    }
    size = p[0] | (uint32_t) p[1] << 8 | (uint32_t) p[2] << 16
           | (uint32_t) p[3] << 24;
    if (size < 4 || size % 4 != 0 || size >= len - 4) {
        return NULL;
    }

    m = calloc(1, sizeof(*m));
    if (m == NULL) {
        *why = "there is no memory for it";
        return NULL;
    }

    m->units_n = size / 4;
    m->texts_n = (uint32_t) (len - 4 - size) + 1;
    m->units = malloc(size);
    m->texts = malloc(m->texts_n);
    if (m->units == NULL || m->texts == NULL) {
        token_charsmap_close(m);
        *why = "there is no memory for it";
        return NULL;
    }

    memcpy(m->units, p + 4, size);
    memcpy(m->texts, p + 4 + size, m->texts_n - 1);
    m->texts[m->texts_n - 1] = '\0';
    charsmap_plain(m);

    return m;
}


void
token_charsmap_close(token_charsmap_t *m)
{
    if (m != NULL) {
        free(m->units);
        free(m->texts);
        free(m);
    }
}


/* The length of the character at s, 1 for a byte that is none. */
static size_t
charsmap_char(const char *s, size_t len)
{
    int n = utf8_char((const uint8_t *) s, len);

    return n > 0 ? (size_t) n : 1;
}


/* Appends what s becomes if it begins with a string of the map; else 1. */
static int
charsmap_replace(
    const token_charsmap_t *m, const char *s, size_t len, token_buf_t *out)
{
    const char *to;
    size_t n;

    to = charsmap_find(m, 0, s, len, &n);

    return to == NULL ? 1 : token_buf_put(out, to, strlen(to));
}


/* The length of the cluster at s: what a user sees as one character. */
static size_t
charsmap_cluster(const char *s, size_t len)
{
    utf8proc_int32_t a, b, state = 0;
    size_t i, n;

    assert(len > 0);

    /* between two of ASCII there always is a border, but for CR LF */
    if ((uint8_t) s[0] < 0x80 && s[0] != '\r'
        && (len == 1 || (uint8_t) s[1] < 0x80)) {
        return 1;
    }

    n = charsmap_char(s, len);
    if (utf8proc_iterate((const utf8proc_uint8_t *) s, (utf8proc_ssize_t) n, &a)
        < 0) {
        return n;
    }

    for (i = n; i < len; i += n) {
        n = charsmap_char(s + i, len - i);
        if (utf8proc_iterate(
                (const utf8proc_uint8_t *) s + i, (utf8proc_ssize_t) n, &b)
                < 0
            || utf8proc_grapheme_break_stateful(a, b, &state)) {
            break;
        }
        a = b;
    }

    return i;
}


static int
charsmap_clusters(
    const token_charsmap_t *m, const char *text, size_t len, token_buf_t *out)
{
    size_t at, n, i, part;
    int rc = 0;

    for (at = 0; at < len && rc == 0; at += n) {
        n = charsmap_run(m, text + at, len - at);
        if (n > 0) {
            rc = token_buf_put(out, text + at, n);
            continue;
        }
        n = charsmap_cluster(text + at, len - at);
        rc = n <= CHARSMAP_CLUSTER_MAX ? charsmap_replace(m, text + at, n, out)
                                       : 1;
        if (rc <= 0) {
            continue;
        }
        for (rc = 0, i = 0; i < n && rc == 0; i += part) {
            part = charsmap_char(text + at + i, n - i);
            rc = charsmap_replace(m, text + at + i, part, out);
            rc = rc > 0 ? token_buf_put(out, text + at + i, part) : rc;
        }
    }

    return rc;
}


int
token_charsmap_run(const token_charsmap_t *m, int graphemes, const char *text,
    size_t len, token_buf_t *out)
{
    const char *to;
    size_t at, n;
    int rc = 0;

    assert(m->units_n > 0 && m->texts[m->texts_n - 1] == '\0');

    if (graphemes) {
        return charsmap_clusters(m, text, len, out);
    }

    for (at = 0; at < len && rc == 0; at += n) {
        n = charsmap_run(m, text + at, len - at);
        if (n > 0) {
            rc = token_buf_put(out, text + at, n);
            continue;
        }
        to = charsmap_find(m, 1, text + at, len - at, &n);
        if (to != NULL) {
            rc = token_buf_put(out, to, strlen(to));
        } else {
            n = charsmap_char(text + at, len - at);
            rc = token_buf_put(out, text + at, n);
        }
    }

    return rc;
}
