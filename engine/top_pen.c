/*
 * One line of a terminal.
 *
 * DESIGN.  The pen counts columns, not bytes: a character may be several bytes
 * and two columns wide, an escape sequence is many bytes and none.  All text
 * goes through one function that lets only printable characters pass, so a
 * tenant's name cannot move the cursor, change the title or ring the bell; a
 * character without width (an accent to be combined, a change of direction)
 * would shift what stands beside it and is a '?' too.
 *
 * INVARIANT.  col <= cols, n < cap, and the line ends in a whole character.
 * A style is written when it changes only, so that a plain line has none.
 */
#include "top_pen.h"
#include "utf8.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <wchar.h>

#define PEN_ROOM 32 /* bytes that a character with its style may need */

static const char *const pen_codes[TOP_STYLES_N] = {
#define X(name, code) "\x1b[" code "m",
    PEN_STYLES(X)
#undef X
};


void
top_pen_open(
    top_pen_t *p, char *line, size_t cap, uint32_t cols, int utf8, int color)
{
    assert(cap >= PEN_ROOM && cols > 0);

    memset(p, 0, sizeof(*p));
    p->line = line;
    p->cap = cap;
    p->cols = cols;
    p->utf8 = utf8;
    p->color = color;
    line[0] = '\0';
}


/* Writes bytes that take width columns, if there is room. */
static void
pen_put(
    top_pen_t *p, top_style_t style, const char *s, size_t n, uint32_t width)
{
    const char *code = pen_codes[style];
    size_t code_n = strlen(code);

    assert(n < PEN_ROOM / 2);

    if (p->col + width > p->cols || p->n + PEN_ROOM > p->cap) {
        return;
    }
    if (p->color && style != p->style) {
        memcpy(p->line + p->n, code, code_n);
        p->n += code_n;
        p->style = style;
    }
    memcpy(p->line + p->n, s, n);
    p->n += n;
    p->col += width;
    p->line[p->n] = '\0';
}


void
top_pen_close(top_pen_t *p, int filled)
{
    if (filled) {
        top_pen_to(p, p->cols);
    }
    if (p->style != TOP_PLAIN) {
        memcpy(p->line + p->n, "\x1b[0m", 5);
        p->n += 4;
        p->style = TOP_PLAIN;
    }
    assert(p->col <= p->cols && p->n < p->cap);
}


void
top_pen_to(top_pen_t *p, uint32_t col)
{
    size_t n;

    /* a heading's blanks are part of it, others have no style */
    while (p->col < col && p->col < p->cols) {
        n = p->n;
        pen_put(p, p->style == TOP_HEAD ? TOP_HEAD : TOP_PLAIN, " ", 1, 1);
        if (p->n == n) {
            return; /* no bytes left */
        }
    }
}


/* The code point of a valid character of len bytes. */
static uint32_t
pen_point(const uint8_t *s, int len)
{
    static const uint8_t first[5] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    uint32_t c = s[0] & first[len];
    int i;

    for (i = 1; i < len; i++) {
        c = c << 6 | (s[i] & 0x3f);
    }

    return c;
}


/*
 * The next character of *text: its bytes at *s, *n of them, and its columns.
 * 0 at the end.
 */
static uint32_t
pen_next(const top_pen_t *p, const char **text, const char **s, size_t *n)
{
    const uint8_t *t = (const uint8_t *) *text;
    size_t left = strlen(*text);
    int len, width = 1;

    if (left == 0) {
        return 0;
    }

    len = utf8_char(t, left < 4 ? left : 4);
    *s = *text;
    *n = 1;
    if (len == 1 && t[0] >= 0x20 && t[0] < 0x7f) {
        *text += 1;
        return 1;
    }

    *text += len > 0 ? len : len < 0 ? -len : (int) left;
    if (len > 1 && p->utf8) {
        *n = (size_t) len;
        width = wcwidth((wchar_t) pen_point(t, len));
    }
    if (len <= 1 || !p->utf8 || width < 1) {
        *s = "?";
        *n = 1;
        width = 1;
    }

    return (uint32_t) width;
}


uint32_t
top_pen_width(const top_pen_t *p, const char *text)
{
    uint32_t width = 0, w;
    const char *s;
    size_t n;

    while ((w = pen_next(p, &text, &s, &n)) > 0) {
        width += w;
    }

    return width;
}


/* Writes what fits into max columns. */
static void
pen_some(top_pen_t *p, top_style_t style, const char *text, uint32_t max)
{
    uint32_t w;
    const char *s;
    size_t n;

    while ((w = pen_next(p, &text, &s, &n)) > 0 && w <= max) {
        pen_put(p, style, s, n, w);
        max -= w;
    }
}


void
top_pen_text(top_pen_t *p, top_style_t style, const char *text)
{
    pen_some(p, style, text, p->cols - p->col);
}


void
top_pen_left(top_pen_t *p, top_style_t style, const char *text, uint32_t width)
{
    uint32_t end = p->col + width;

    if (width > 0 && top_pen_width(p, text) > width) {
        pen_some(p, style, text, width - 1);
        pen_put(p, style, "~", 1, 1);
    } else {
        pen_some(p, style, text, width);
    }
    top_pen_to(p, end);
}


void
top_pen_right(top_pen_t *p, top_style_t style, const char *text, uint32_t width)
{
    uint32_t w = top_pen_width(p, text);

    if (w < width) {
        top_pen_to(p, p->col + width - w);
        width = w;
    }
    top_pen_left(p, style, text, width);
}


void
top_pen_shade(top_pen_t *p, top_style_t style, uint32_t shade)
{
    static const char *const utf8[4] = {"\u2588", "\u2593", "\u2592", "\u00b7"};
    static const char *const ascii[4] = {"#", "=", "~", "."};
    const char *s;

    assert(shade < 4);
    s = p->utf8 ? utf8[shade] : ascii[shade];
    pen_put(p, style, s, strlen(s), 1);
}


/*
 * In eighths of a column where there are characters for that, so that a bar
 * moves with its number and not in jumps.
 */
void
top_pen_bar(top_pen_t *p, top_style_t style, double share, uint32_t width)
{
    static const char *const eighths[8] = {"", "\u258f", "\u258e", "\u258d",
        "\u258c", "\u258b", "\u258a", "\u2589"};
    uint32_t n, full, part, i;

    share = share > 0 ? share < 1 ? share : 1 : 0;
    n = (uint32_t) (share * width * 8 + 0.5);
    full = p->utf8 ? n / 8 : (n + 4) / 8;
    part = p->utf8 ? n % 8 : 0;

    for (i = 0; i < width; i++) {
        if (i < full) {
            top_pen_shade(p, style, 0);
        } else if (i == full && part > 0) {
            pen_put(p, style, eighths[part], 3, 1);
        } else {
            top_pen_shade(p, TOP_DIM, 3);
        }
    }
}


/* U+2581 to U+2588 lie one behind the other, in the last byte of three. */
void
top_pen_level(top_pen_t *p, top_style_t style, double level)
{
    static const char ascii[9] = "_.-=+*%#";
    char out[4];
    int i;

    level = level > 0 ? level < 1 ? level : 1 : 0;
    i = (int) (level * 7 + 0.5);
    assert(i >= 0 && i < 8);

    if (p->utf8) {
        memcpy(out, "\u2581", 4);
        out[2] = (char) (out[2] + i); /* U+2581 to U+2588 */
        pen_put(p, style, out, 3, 1);
    } else {
        pen_put(p, style, &ascii[i], 1, 1);
    }
}


/*
 * Two digits at least: 9.9k and 10k.  Borders are where rounding would add a
 * digit, so that columns keep their width.
 */
const char *
top_count(char out[TOP_NUM], double n)
{
    static const char unit[] = " kMGTPE";
    int u = 0;

    n = n > 0 ? n < 1e18 ? n : 1e18 : 0;
    while (n >= 999.5) {
        n /= 1000;
        u++;
    }

    if (u == 0) {
        snprintf(out, TOP_NUM, "%.0f", n);
    } else {
        snprintf(out, TOP_NUM, n < 9.95 ? "%.1f%c" : "%.0f%c", n, unit[u]);
    }

    return out;
}


const char *
top_time(char out[TOP_NUM], uint64_t us)
{
    uint64_t s = us / 1000000;

    if (us == UINT64_MAX) {
        snprintf(out, TOP_NUM, "-");
    } else if (us < 1000) {
        snprintf(out, TOP_NUM, "%u us", (unsigned) us);
    } else if (us < 99950) {
        snprintf(out, TOP_NUM, "%.1f ms", (double) us / 1000);
    } else if (us < 999500) {
        snprintf(out, TOP_NUM, "%.0f ms", (double) us / 1000);
    } else if (us < 9995000) {
        snprintf(out, TOP_NUM, "%.2f s", (double) us / 1e6);
    } else if (us < 60 * 1000000ull) {
        snprintf(out, TOP_NUM, "%.1f s", (double) us / 1e6);
    } else if (s < 3600) {
        snprintf(
            out, TOP_NUM, "%um%02us", (unsigned) (s / 60), (unsigned) (s % 60));
    } else if (s < 86400) {
        snprintf(out, TOP_NUM, "%uh%02um", (unsigned) (s / 3600),
            (unsigned) (s / 60 % 60));
    } else {
        s = s / 86400 < 99999 ? s : 99999 * 86400ull;
        snprintf(out, TOP_NUM, "%ud%02uh", (unsigned) (s / 86400),
            (unsigned) (s / 3600 % 24));
    }

    return out;
}
