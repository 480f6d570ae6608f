/*
 * llm-top's parts: an engine's state page read whole (top_read.c), and drawn
 * as lines of text (top_draw.c, top_pen.c); the log of its steps
 * (top_steps.c).  The terminal is top.c's.
 *
 * Drawing is pure: a picture of these numbers at that size.  So it is tested
 * without a terminal, and looks the same in one and on paper (--once).
 */
#ifndef TOP_H
#define TOP_H

#include "llm_live.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define TOP_COLS_MIN 40
#define TOP_COLS_MAX 400
#define TOP_LINE_MAX 4096 /* bytes of a line with its escape sequences */

/* An engine's state page, mapped. */
typedef struct {
    void *page; /* owned mapping; NULL: there is none */
    uint64_t size;
} top_source_t;

/* What a page says at a moment, but for steps and requests. */
typedef struct {
    uint64_t us; /* the reader's clock, CLOCK_MONOTONIC */
    uint32_t pid;
    uint32_t ready;
    uint32_t draining;
    uint64_t beats[LLM_THREADS]; /* those of a thread that lives grow */
    char model[LLM_NAME_MAX];
#define X(name, kind, help) uint64_t name;
    LLM_METRICS(X)
#undef X
    int listed; /* it has a list; without one all below is zero */
    llm_live_head_t head;
    llm_live_tenant_t tenants[LLM_LIVE_TENANTS]; /* by row; who 0: none */
} top_counts_t;

typedef struct {
    top_counts_t c;
    uint32_t steps_n; /* the last ones, oldest first */
    llm_live_step_t steps[LLM_LIVE_STEPS];
    uint32_t rows_n;
    llm_live_row_t rows[LLM_LIVE_ROWS_MAX];
} top_snap_t;

/* In which order requests stand. */
#define TOP_SORTS(X) X(state) X(age) X(tokens) X(blocks) X(tenant)

/* clang-format off */
typedef enum {
#define X(name) TOP_BY_##name,
    TOP_SORTS(X)
#undef X
    TOP_SORTS_N
} top_sort_t;
/* clang-format on */

/* How it is to be drawn. */
typedef struct {
    uint32_t rows; /* lines that there are; 0: as many as it takes */
    uint32_t cols; /* TOP_COLS_MIN to TOP_COLS_MAX */
    int utf8;      /* else ASCII alone */
    int color;
    top_sort_t sort;
    uint32_t scroll;   /* requests left out on top */
    const char *clock; /* time of day, "" or as it is to be shown */
    const char *note;  /* what is the matter, or "" */
    const char *keys;  /* the last line */
} top_view_t;

typedef struct {
    uint32_t lines_n, lines_max;
    char (*lines)[TOP_LINE_MAX]; /* [lines_max] owned */
} top_frame_t;


/* --- reading -------------------------------------------------------------- */

/*
 * Asks the engine that listens on path for its state page.  0, or -1 with one
 * sentence in err.  Waits a second at most.
 */
int top_open(top_source_t *s, const char *path, char *err, size_t errlen);
void top_close(top_source_t *s);

/* Takes what the page says now. */
void top_take(const top_source_t *s, uint64_t now_us, top_snap_t *snap);

/*
 * Follows the steps of the engine that listens on path, on stdout.  Returns
 * when that engine has gone, or stdout: -1 with one sentence in err.
 */
int top_steps(const char *path, char *err, size_t errlen);

/* Prints those from number `from` on; the number of the next one. */
uint64_t top_steps_print(
    const top_source_t *s, uint64_t from, uint64_t now_us, FILE *f);


/* --- drawing -------------------------------------------------------------- */

/* Room for lines_max lines.  0, or -1 when out of memory. */
int top_frame_open(top_frame_t *f, uint32_t lines_max);
void top_frame_close(top_frame_t *f);

/*
 * Draws now.  Rates are since `since`, times since `long_since`, both earlier
 * moments of the same engine or NULL: then a dash stands for them.  Orders
 * now's rows.  Each line is cols wide, or shorter when view->rows is 0.
 */
void top_draw(top_frame_t *f, top_snap_t *now, const top_counts_t *since,
    const top_counts_t *long_since, const top_view_t *view);

/* The name of an order. */
const char *top_sort_name(top_sort_t sort);

/*
 * The value below which a share q of what a histogram counted since before
 * lies, in microseconds.  UINT64_MAX: it counted nothing.
 */
uint64_t top_quantile(const uint64_t now[LLM_LIVE_BUCKETS],
    const uint64_t before[LLM_LIVE_BUCKETS], double q);

#endif
