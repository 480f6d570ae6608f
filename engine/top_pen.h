/*
 * Writes one line of a terminal: text in a style, at a column, never beyond
 * the line's end, and nothing that the terminal would obey but what the pen
 * itself writes.  llm-top's.
 */
#ifndef TOP_PEN_H
#define TOP_PEN_H

#include <stddef.h>
#include <stdint.h>

/* X(style, what a terminal is told) */
#define PEN_STYLES(X)                                                          \
    X(PLAIN, "0")                                                              \
    X(BOLD, "0;1")                                                             \
    X(DIM, "0;2")                                                              \
    X(TITLE, "0;1;36")                                                         \
    X(HEAD, "0;7")                                                             \
    X(GOOD, "0;32")                                                            \
    X(WARN, "0;33")                                                            \
    X(BAD, "0;1;31")                                                           \
    X(BLUE, "0;34")                                                            \
    X(CYAN, "0;36")                                                            \
    X(VIOLET, "0;35")

/* clang-format off */
typedef enum {
#define X(name, code) TOP_##name,
    PEN_STYLES(X)
#undef X
    TOP_STYLES_N
} top_style_t;
/* clang-format on */

typedef struct {
    char *line; /* borrowed, of cap bytes */
    size_t n, cap;
    uint32_t col, cols;
    int utf8, color;
    top_style_t style; /* as the terminal knows it */
} top_pen_t;

/* Begins a line of cols columns in cap bytes. */
void top_pen_open(
    top_pen_t *p, char *line, size_t cap, uint32_t cols, int utf8, int color);

/* Ends it; filled: with blanks up to its end. */
void top_pen_close(top_pen_t *p, int filled);

/*
 * Text that may be anybody's: what is no printable character is a '?', and so
 * is what is not ASCII where there is no UTF-8.
 */
void top_pen_text(top_pen_t *p, top_style_t style, const char *text);

/* Text of at most width columns, then blanks up to it; cut text ends in '~'. */
void top_pen_left(
    top_pen_t *p, top_style_t style, const char *text, uint32_t width);

/* The same with the blanks before it. */
void top_pen_right(
    top_pen_t *p, top_style_t style, const char *text, uint32_t width);

/* Blanks up to column col, if it is not beyond that. */
void top_pen_to(top_pen_t *p, uint32_t col);

/* A bar of width columns, of which share (0 to 1) is filled. */
void top_pen_bar(top_pen_t *p, top_style_t style, double share, uint32_t width);

/* One column of a part of a whole: shade 0 to 2, or 3 for what is left. */
void top_pen_shade(top_pen_t *p, top_style_t style, uint32_t shade);

/* One column that stands level (0 to 1) high. */
void top_pen_level(top_pen_t *p, top_style_t style, double level);

/* Columns of text, as top_pen_text writes it. */
uint32_t top_pen_width(const top_pen_t *p, const char *text);

/* --- numbers as text ------------------------------------------------------ */

#define TOP_NUM 16 /* bytes that any of these needs */

/* "0", "999", "1.2k", "12k", "3.4M"; at most 4 columns. */
const char *top_count(char out[TOP_NUM], double n);

/* "400 us", "12.3 ms", "1.23 s", "2m05s", "3h12m", "2d04h"; UINT64_MAX: "-". */
const char *top_time(char out[TOP_NUM], uint64_t us);

#endif
