/*
 * The picture of an engine at work.
 *
 *      llm-top  MODEL  serving  up 3h12m  pid 7                     02:13:44
 *      what is the matter, if anything is
 *      Steps    how long they take, against the target
 *      Time     the last ones, a column each
 *      Batch    what is in one: prompt tokens, decoding rows
 *      Tokens   the last ones
 *      Blocks   of the KV cache, by state
 *      Cache    how much of prompts was found there
 *      Host     the second tier, if there is one
 *      Queue    requests, by state
 *      Rates    and Latency
 *      TENANT   who gets how much
 *      REQUEST  who is in it, and how far
 *      keys
 *
 * DESIGN.  Every number has its place and every line is there from the first
 * picture on, so that an eye that rests on one sees it change and nothing
 * move.  Rates are differences of counters between two pictures; times are of
 * histograms' differences; what was not counted yet is a dash, not a zero.
 *
 * Colour says how it stands: green goes on, yellow waits or is worked on, red
 * is over the target or failed.  Nothing is told by colour alone.
 */
#include "top.h"
#include "top_pen.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define DRAW_LABEL     9  /* columns of a line's name */
#define DRAW_BAR       24 /* of a bar beside it, in a wide terminal */
#define DRAW_BAR_SHORT 10
#define DRAW_FIXED     13  /* lines that are always there, and the keys' */
#define DRAW_TENANTS   4   /* rows at least, if there are that many */
#define DRAW_NARROW    76  /* columns below which something is left out */
#define DRAW_ROOMY     100 /* from which bars are long */
#define DRAW_WIDE      110 /* from which more is told of a request */
#define DRAW_TEXT_MAX  256

typedef struct {
    top_frame_t *f;
    top_snap_t *now;
    const top_counts_t *since, *long_since;
    const top_view_t *v;
    top_pen_t pen;
} draw_t;


int
top_frame_open(top_frame_t *f, uint32_t lines_max)
{
    f->lines_n = 0;
    f->lines_max = lines_max;
    f->lines = calloc(lines_max, TOP_LINE_MAX);

    return f->lines == NULL ? -1 : 0;
}


void
top_frame_close(top_frame_t *f)
{
    free(f->lines);
    f->lines = NULL;
}


const char *
top_sort_name(top_sort_t sort)
{
#define X(name) #name,
    static const char *const names[TOP_SORTS_N] = {TOP_SORTS(X)};
#undef X

    assert(sort < TOP_SORTS_N);
    return names[sort];
}


/* --- lines ---------------------------------------------------------------- */

/* Is there room for another line? */
static int
line_fits(const draw_t *d)
{
    return d->f->lines_n < d->f->lines_max
           && (d->v->rows == 0 || d->f->lines_n < d->v->rows);
}


/* The next line, with its name; 0: there is none left. */
static int
line_begin(draw_t *d, const char *label)
{
    if (!line_fits(d)) {
        return 0;
    }
    top_pen_open(&d->pen, d->f->lines[d->f->lines_n], TOP_LINE_MAX, d->v->cols,
        d->v->utf8, d->v->color);
    if (label[0] != '\0') {
        top_pen_left(&d->pen, TOP_TITLE, label, DRAW_LABEL);
    }

    return 1;
}


static void
line_end(draw_t *d)
{
    assert(d->f->lines_n < d->f->lines_max);
    top_pen_close(&d->pen, d->v->rows > 0);
    d->f->lines_n++;
}


static void
line_blank(draw_t *d)
{
    if (line_begin(d, "")) {
        line_end(d);
    }
}


/* A number and what it is of. */
static void __attribute__((format(printf, 4, 5)))
put(draw_t *d, top_style_t style, const char *what, const char *fmt, ...)
{
    char text[DRAW_TEXT_MAX];
    va_list args;

    va_start(args, fmt);
    (void) vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    top_pen_text(&d->pen, style, text);
    top_pen_text(&d->pen, TOP_PLAIN, " ");
    top_pen_text(&d->pen, TOP_DIM, what);
    top_pen_text(&d->pen, TOP_PLAIN, "  ");
}


/* The same with the number at the right of width columns. */
static void
put_right(draw_t *d, const char *text, uint32_t width, const char *what)
{
    top_pen_right(&d->pen, TOP_BOLD, text, width);
    top_pen_text(&d->pen, TOP_PLAIN, " ");
    top_pen_text(&d->pen, TOP_DIM, what);
    top_pen_text(&d->pen, TOP_PLAIN, "  ");
}


/* Bars may be short where numbers need the room. */
static uint32_t
bar_width(const draw_t *d)
{
    return d->v->cols >= DRAW_ROOMY ? DRAW_BAR : DRAW_BAR_SHORT;
}


/* A bar of n <= 3 parts of whole. */
static void
bar(draw_t *d, const uint64_t *part, const top_style_t *style, uint32_t n,
    uint64_t whole)
{
    uint32_t width = bar_width(d), col = 0, end, i;
    double sum = 0;

    assert(n <= 3);
    for (i = 0; i < n; i++) {
        sum += (double) part[i];
        end = whole > 0 && sum < (double) whole
                  ? (uint32_t) (sum / (double) whole * width + 0.5)
              : whole > 0 ? width
                          : 0;
        /* what there is of something can be seen */
        end = part[i] > 0 && end == col && col < width ? col + 1 : end;
        for (; col < end; col++) {
            top_pen_shade(&d->pen, style[i], i);
        }
    }
    for (; col < width; col++) {
        top_pen_shade(&d->pen, TOP_DIM, 3);
    }
    top_pen_text(&d->pen, TOP_PLAIN, "  ");
}


/* --- numbers -------------------------------------------------------------- */

/* How much a counter grew in a second since then; -1: nobody knows. */
static double
rate(const draw_t *d, uint64_t now, uint64_t then)
{
    uint64_t us;

    if (d->since == NULL || d->now->c.us <= d->since->us) {
        return -1;
    }
    us = d->now->c.us - d->since->us;

    return now > then ? (double) (now - then) * 1e6 / (double) us : 0;
}


static const char *
rate_text(char out[TOP_NUM], double r)
{
    if (r < 0) {
        snprintf(out, TOP_NUM, "-");
    } else if (r > 0 && r < 9.95) {
        snprintf(out, TOP_NUM, "%.1f", r);
    } else {
        (void) top_count(out, r);
    }

    return out;
}


/*
 * Inside of a bucket values are taken to lie evenly: a bucket is a fifth wide,
 * so that is what the answer may be off by.
 */
uint64_t
top_quantile(const uint64_t now[LLM_LIVE_BUCKETS],
    const uint64_t before[LLM_LIVE_BUCKETS], double q)
{
    double n[LLM_LIVE_BUCKETS], sum = 0, want;
    uint64_t low, high;
    uint32_t i;

    for (i = 0; i < LLM_LIVE_BUCKETS; i++) {
        n[i] = now[i] > before[i] ? (double) (now[i] - before[i]) : 0;
        sum += n[i];
    }
    if (sum == 0) {
        return UINT64_MAX;
    }

    want = sum * q;
    for (i = 0; i < LLM_LIVE_BUCKETS - 1 && n[i] < want; i++) {
        want -= n[i];
    }

    low = llm_live_bound(i);
    high = llm_live_bound(i + 1);
    want = n[i] > 0 ? want / n[i] : 0;

    return low + (uint64_t) (want * (double) (high - low));
}


static int
by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *) a, y = *(const uint32_t *) b;

    return (x > y) - (x < y);
}


/* --- the head ------------------------------------------------------------- */

/*
 * Which engine it is, how long it has run, and the time of day at the right: a
 * picture that is passed on says when it was taken.
 */
static void
draw_title(draw_t *d)
{
    static const char *const drains[] = {"serving", "draining", "succeeded"};
    const top_counts_t *c = &d->now->c;
    const char *state;
    char text[DRAW_TEXT_MAX], up[TOP_NUM];
    uint32_t w;

    if (!line_begin(d, "")) {
        return;
    }

    top_pen_text(&d->pen, TOP_HEAD, " llm-top");
    if (c->us == 0) {
        top_pen_text(&d->pen, TOP_HEAD, "  no engine");
    } else {
        state = c->draining < 3 ? drains[c->draining] : "draining";
        state = c->ready ? state : "loading";
        top_pen_text(&d->pen, TOP_HEAD, "  ");
        top_pen_text(&d->pen, TOP_HEAD, c->model);
        (void) top_time(up, c->listed && c->us > c->head.started_us
                                ? c->us - c->head.started_us
                                : UINT64_MAX);
        snprintf(text, sizeof(text), "  %s  up %s  pid %u  workers %llu", state,
            up, c->pid, (unsigned long long) c->attachments);
        top_pen_text(&d->pen, TOP_HEAD, text);
    }

    snprintf(text, sizeof(text), " %s ", d->v->clock);
    w = top_pen_width(&d->pen, text);
    if (d->v->rows > 0 && d->pen.col + w < d->v->cols) {
        top_pen_to(&d->pen, d->v->cols - w);
        top_pen_text(&d->pen, TOP_HEAD, text);
    }
    line_end(d);
}


/*
 * The line is there also when nothing is the matter, so that what comes below
 * does not jump when something is.
 */
static void
draw_note(draw_t *d)
{
    if ((d->v->rows > 0 || d->v->note[0] != '\0') && line_begin(d, "")) {
        top_pen_text(&d->pen, TOP_BAD, d->v->note);
        line_end(d);
    }
}


/* --- steps ---------------------------------------------------------------- */

/*
 * The bar is the 99th of a hundred steps against the target: it is full where
 * streams begin to feel it, long before the mean says so.
 */
static void
draw_steps(draw_t *d)
{
    const top_snap_t *s = d->now;
    uint64_t target = s->c.head.step_target_us;
    uint32_t us[LLM_LIVE_STEPS], n = s->steps_n, i;
    uint64_t p50 = UINT64_MAX, p99 = UINT64_MAX, most = UINT64_MAX;
    char t[4][TOP_NUM];

    if (!line_begin(d, "Steps")) {
        return;
    }

    for (i = 0; i < n; i++) {
        us[i] = s->steps[i].us;
    }
    if (n > 0) {
        qsort(us, n, sizeof(us[0]), by_number);
        p50 = us[n / 2];
        p99 = us[(uint32_t) ((n - 1) * 0.99)];
        most = us[n - 1];
    }

    if (target > 0) {
        top_pen_bar(&d->pen,
            p99 != UINT64_MAX && p99 > target ? TOP_BAD : TOP_GOOD,
            n > 0 ? (double) p99 / (double) target : 0, bar_width(d));
    } else {
        top_pen_left(&d->pen, TOP_DIM, "no target", bar_width(d));
    }
    top_pen_text(&d->pen, TOP_PLAIN, "  ");
    put_right(d, top_time(t[0], p50), 7, "p50");
    put_right(d, top_time(t[1], p99), 7, "p99");
    put_right(d, top_time(t[2], most), 7, "max");
    put_right(d,
        rate_text(
            t[3], rate(d, s->c.turns, d->since == NULL ? 0 : d->since->turns)),
        4, "steps/s");
    if (target > 0) {
        put_right(d, top_time(t[0], target), 7, "target");
    }
    line_end(d);
}


/*
 * The last steps, a column each, the newest at the right: their time, or the
 * tokens in them.  Time is scaled by the target, or by the longest that is
 * shown if that is longer; tokens by what a step may have.
 */
static void
draw_history(draw_t *d, int tokens)
{
    const top_snap_t *s = d->now;
    uint64_t target = s->c.head.step_target_us, most = 1;
    uint32_t width = d->v->cols - DRAW_LABEL, from, i;
    const llm_live_step_t *step;
    top_style_t style;
    uint64_t value;

    if (!line_begin(d, tokens ? "Tokens" : "Time")) {
        return;
    }

    width = width < 128 ? width : 128;
    from = s->steps_n > width ? s->steps_n - width : 0;
    most = tokens ? s->c.head.batch_tokens : target;
    for (i = from; !tokens && i < s->steps_n; i++) {
        most = s->steps[i].us > most ? s->steps[i].us : most;
    }
    most = most > 0 ? most : 1;

    top_pen_to(&d->pen, d->pen.col + width - (s->steps_n - from));
    for (i = from; i < s->steps_n; i++) {
        step = &s->steps[i];
        value = tokens ? step->prefill + (uint64_t) step->decode : step->us;
        style = step->prefill > 0 ? TOP_WARN : TOP_GOOD;
        if (!tokens && target > 0 && step->us > target) {
            style = TOP_BAD;
        }
        top_pen_level(&d->pen, style, (double) value / (double) most);
    }
    line_end(d);
}


/*
 * Decoding rows first, as the plan puts them first: what a prompt gets of a
 * step is what they leave.
 */
static void
draw_batch(draw_t *d)
{
    static const top_style_t styles[2] = {TOP_GOOD, TOP_WARN};
    const top_snap_t *s = d->now;
    const llm_live_head_t *h = &s->c.head;
    llm_live_step_t last = {0, 0, 0};
    uint64_t part[2];
    char n[TOP_NUM];

    if (!line_begin(d, "Batch")) {
        return;
    }

    /* the last step stands for now only while there are any */
    if (s->steps_n > 0 && s->c.requests_running > 0) {
        last = s->steps[s->steps_n - 1];
    }
    part[0] = last.decode;
    part[1] = last.prefill;
    bar(d, part, styles, 2, h->batch_tokens);
    put(d, TOP_BOLD, "decoding", "%4u", last.decode);
    put(d, TOP_BOLD, "prefill", "%5u", last.prefill);
    top_pen_text(&d->pen, TOP_DIM, "of ");
    put(d, TOP_PLAIN, "tokens", "%llu", (unsigned long long) h->batch_tokens);
    put(d, TOP_PLAIN, "rows", "%llu", (unsigned long long) h->batch_rows);
    if (s->c.discarded_rows > 0) { /* steps are planned ahead */
        put_right(d,
            rate_text(n, rate(d, s->c.discarded_rows,
                             d->since == NULL ? 0 : d->since->discarded_rows)),
            4, "discarded/s");
    }
    line_end(d);
}


/* --- the rest of the engine ----------------------------------------------- */

/* The pool: every block is exactly one of these, so the bar adds up. */
static void
draw_blocks(draw_t *d)
{
    static const top_style_t styles[3] = {TOP_CYAN, TOP_BLUE, TOP_VIOLET};
    const top_counts_t *c = &d->now->c;
    const uint64_t part[3] = {
        c->blocks_private, c->blocks_cached, c->blocks_transit};
    uint64_t total = c->blocks_total;
    double used = total > 0 ? 1 - (double) c->blocks_free / (double) total : 0;
    char n[4][TOP_NUM];

    if (!line_begin(d, "Blocks")) {
        return;
    }

    bar(d, part, styles, 3, total);
    put(d, TOP_BOLD, "used", "%3.0f %%", used > 0 ? used * 100 : 0);
    put_right(d, top_count(n[0], (double) c->blocks_free), 4, "free");
    put_right(d, top_count(n[1], (double) part[0]), 4, "private");
    put_right(d, top_count(n[2], (double) part[1]), 4, "cached");
    put_right(d, top_count(n[3], (double) part[2]), 4, "transit");
    top_pen_text(&d->pen, TOP_DIM, "of ");
    put(d, TOP_PLAIN, "tokens", "%llu x %llu", (unsigned long long) total,
        (unsigned long long) c->block_tokens);
    line_end(d);
}


/*
 * Of the prompt tokens that the prefix cache was asked for, those that it had,
 * in the last half minute: the share is of admissions, and there are few.
 */
static void
draw_cache(draw_t *d)
{
    static const top_counts_t none;
    static const top_style_t style = TOP_GOOD;
    const top_counts_t *c = &d->now->c, *s = d->since, *was = d->long_since;
    uint64_t asked = 0, hits = 0;
    char n[TOP_NUM];

    if (!line_begin(d, "Cache")) {
        return;
    }

    if (was != NULL && c->cache_asked >= was->cache_asked
        && c->cache_hits >= was->cache_hits) {
        asked = c->cache_asked - was->cache_asked;
        hits = c->cache_hits - was->cache_hits;
    }
    bar(d, &hits, &style, 1, asked);
    if (asked > 0) {
        put(d, TOP_BOLD, "hits", "%3.0f %%",
            (double) hits / (double) asked * 100);
    } else {
        put_right(d, "-", 5, "hits");
    }

    s = s == NULL ? &none : s;
#define RATE(field, what)                                                      \
    put_right(d, rate_text(n, rate(d, c->field, s->field)), 4, what)
    RATE(cache_asked, "asked/s");
    RATE(cache_hits, "found/s");
    RATE(cache_evictions, "blocks evicted/s");
#undef RATE
    line_end(d);
}


/*
 * What lies in host memory, and what of it came back.  An engine has a second
 * tier from its start or never, so no line jumps when this one is left out.
 */
static void
draw_host(draw_t *d)
{
    static const top_counts_t none;
    static const top_style_t style = TOP_BLUE;
    const top_counts_t *c = &d->now->c, *s = d->since;
    uint64_t total = c->host_blocks_total, used = c->host_blocks_used;
    char n[TOP_NUM];

    if (total == 0 || !line_begin(d, "Host")) {
        return;
    }

    bar(d, &used, &style, 1, total);
    put(d, TOP_BOLD, "used", "%3.0f %%", (double) used / (double) total * 100);
    s = s == NULL ? &none : s;
#define RATE(field, what)                                                      \
    put_right(d, rate_text(n, rate(d, c->field, s->field)), 4, what)
    RATE(host_hits, "hits/s");
    RATE(host_tokens, "tokens/s");
    RATE(host_blocks_out, "out/s");
    RATE(host_blocks_lost, "lost/s");
#undef RATE
    top_pen_text(&d->pen, TOP_DIM, "of ");
    put(d, TOP_PLAIN, "blocks", "%llu", (unsigned long long) total);
    line_end(d);
}


/*
 * Requests by where they stand.  In text are those that are being tokenised,
 * wait for ADMIT, or have their last words still to be sent.
 */
static void
draw_queue(draw_t *d)
{
    static const top_style_t styles[3] = {TOP_GOOD, TOP_BAD, TOP_WARN};
    const top_counts_t *c = &d->now->c;
    uint64_t stalled = c->requests_stalled < c->requests_running
                           ? c->requests_stalled
                           : c->requests_running;
    const uint64_t part[3] = {
        c->requests_running - stalled, stalled, c->requests_waiting};
    uint64_t known = c->requests_running + c->requests_waiting;

    if (!line_begin(d, "Queue")) {
        return;
    }

    /* the seats, and those who wait for one beside them */
    bar(d, part, styles, 3,
        known > c->head.batch_rows ? known : c->head.batch_rows);
    put(d, TOP_BOLD, "running", "%4llu",
        (unsigned long long) c->requests_running);
    put(d, stalled > 0 ? TOP_BAD : TOP_BOLD, "stalled", "%4llu",
        (unsigned long long) stalled);
    put(d, part[2] > 0 ? TOP_WARN : TOP_BOLD, "waiting", "%4llu",
        (unsigned long long) part[2]);
    put(d, TOP_BOLD, "in text", "%3llu",
        (unsigned long long) (c->requests_held > known
                                  ? c->requests_held - known
                                  : 0));
    top_pen_text(&d->pen, TOP_DIM, "of ");
    put(d, TOP_PLAIN, "", "%llu", (unsigned long long) c->requests_max);
    line_end(d);
}


/* Counters' growth in the last seconds. */
static void
draw_rates(draw_t *d)
{
    static const top_counts_t none;
    const top_counts_t *c = &d->now->c, *s = d->since;
    char n[TOP_NUM];

    if (!line_begin(d, "Rates")) {
        return;
    }

    s = s == NULL ? &none : s;
#define RATE(field, what)                                                      \
    put_right(d, rate_text(n, rate(d, c->field, s->field)), 5, what)
    RATE(completion_tokens, "out tok/s");
    RATE(computed_tokens, "computed/s");
    RATE(requests_total, "req/s");
    RATE(requests_done, "done/s");
    RATE(requests_failed, "failed/s");
    RATE(requests_cancelled, "left/s");
    RATE(preemptions, "preempt/s");
#undef RATE
    line_end(d);
}


/*
 * Of the last half minute, not of the last seconds: there are few requests in
 * those, and a quantile of few numbers is one of them.
 */
static void
draw_latency(draw_t *d)
{
    static const struct {
        const char *name;
        uint32_t hist;
    } rows[] = {{"TTFT", LLM_LIVE_FIRST}, {"ITL", LLM_LIVE_GAP},
        {"queue", LLM_LIVE_QUEUE}};
    const uint64_t *before, *now;
    char t[TOP_NUM];
    uint32_t i;

    if (!line_begin(d, "Latency")) {
        return;
    }

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        now = d->now->c.head.hists[rows[i].hist];
        before = d->long_since == NULL
                     ? now
                     : d->long_since->head.hists[rows[i].hist];
        top_pen_text(&d->pen, TOP_DIM, rows[i].name);
        top_pen_right(
            &d->pen, TOP_BOLD, top_time(t, top_quantile(now, before, 0.5)), 8);
        top_pen_text(&d->pen, TOP_DIM, " p50");
        put_right(d, top_time(t, top_quantile(now, before, 0.99)), 8, "p99");
    }
    line_end(d);
}


/* --- tenants -------------------------------------------------------------- */

typedef struct {
    const llm_live_tenant_t *t;
    uint64_t computed; /* in the time that rates are of */
    uint64_t sampled;
} share_t;


static int
by_share(const void *a, const void *b)
{
    const share_t *x = a, *y = b;

    if (x->computed != y->computed) {
        return x->computed < y->computed ? 1 : -1;
    }
    if (x->t->running + x->t->waiting != y->t->running + y->t->waiting) {
        return x->t->running + x->t->waiting < y->t->running + y->t->waiting
                   ? 1
                   : -1;
    }

    return (x->t > y->t) - (x->t < y->t);
}


/* Those that have something here, or had; how many, most served first. */
static uint32_t
shares(const draw_t *d, share_t out[LLM_LIVE_TENANTS], uint64_t *sum)
{
    const llm_live_tenant_t *t, *was;
    uint32_t i, n = 0;
    share_t *s;

    *sum = 0;
    for (i = 0; i < LLM_LIVE_TENANTS; i++) {
        t = &d->now->c.tenants[i];
        was = d->since == NULL ? NULL : &d->since->tenants[i];
        s = &out[n];
        memset(s, 0, sizeof(*s));
        s->t = t;
        if (was != NULL && (was->who == t->who || was->who == 0)
            && t->computed >= was->computed && t->sampled >= was->sampled) {
            s->computed = t->computed - was->computed;
            s->sampled = t->sampled - was->sampled;
        }
        if (t->who != 0 && (t->running + t->waiting + s->computed > 0)) {
            *sum += s->computed;
            n++;
        }
    }
    qsort(out, n, sizeof(out[0]), by_share);

    return n;
}


/* A tenant: its part of what was computed, and what it has here. */
static void
draw_tenant(draw_t *d, const share_t *s, uint64_t sum, uint32_t wide)
{
    double share = sum > 0 ? (double) s->computed / (double) sum : 0;
    char text[LLM_LIVE_TEXT + 1], n[TOP_NUM];
    const llm_live_tenant_t *t = s->t;

    if (!line_begin(d, "")) {
        return;
    }

    (void) llm_live_text(t->name, text);
    top_pen_left(&d->pen, TOP_PLAIN, text[0] == '\0' ? "(others)" : text, 17);
    top_pen_text(&d->pen, TOP_PLAIN, " ");
    top_pen_bar(&d->pen, TOP_GOOD, share, wide);
    if (sum > 0) {
        snprintf(n, sizeof(n), "%.1f %%", share * 100);
    } else {
        snprintf(n, sizeof(n), "-");
    }
    top_pen_right(&d->pen, TOP_BOLD, n, 8);
    top_pen_right(&d->pen, TOP_PLAIN, rate_text(n, rate(d, s->computed, 0)), 9);
    top_pen_right(&d->pen, TOP_PLAIN, rate_text(n, rate(d, s->sampled, 0)), 7);
    top_pen_right(&d->pen, TOP_PLAIN, top_count(n, (double) t->running), 6);
    top_pen_right(&d->pen, t->waiting > 0 ? TOP_WARN : TOP_PLAIN,
        top_count(n, (double) t->waiting), 6);
    top_pen_right(&d->pen, TOP_PLAIN, top_count(n, (double) t->blocks), 8);
    top_pen_right(&d->pen, TOP_DIM, top_count(n, (double) t->weight), 8);
    line_end(d);
}


/* Rows at most: half of what is left, but a few; what is more is a number. */
static void
draw_tenants(draw_t *d)
{
    share_t all[LLM_LIVE_TENANTS];
    uint32_t fixed = DRAW_FIXED + (d->now->c.host_blocks_total > 0);
    uint32_t n, max, i, wide;
    char more[DRAW_TEXT_MAX];
    uint64_t sum;

    n = shares(d, all, &sum);
    wide = d->v->cols >= DRAW_NARROW + 24 ? d->v->cols - DRAW_NARROW : 0;
    wide = wide < 40 ? wide : 40;
    max = d->v->rows > fixed ? (d->v->rows - fixed) / 3 : 0;
    max = max < DRAW_TENANTS ? DRAW_TENANTS : max;
    max = d->v->rows == 0 || n < max ? n : max;

    if (!line_begin(d, "")) {
        return;
    }
    if (max < n) {
        snprintf(more, sizeof(more), "TENANT (%u of %u)", max, n);
    } else {
        snprintf(more, sizeof(more), "TENANT");
    }
    top_pen_left(&d->pen, TOP_HEAD, more, 18);
    top_pen_left(&d->pen, TOP_HEAD, "", wide);
    top_pen_text(&d->pen, TOP_HEAD,
        "   SHARE COMPUTED/S  OUT/S   RUN  WAIT  BLOCKS  WEIGHT");
    top_pen_to(&d->pen, d->v->cols);
    line_end(d);

    for (i = 0; i < max; i++) {
        draw_tenant(d, &all[i], sum, wide);
    }
}


/* --- requests ------------------------------------------------------------- */

/* Earlier ones first; that decides when nothing else does. */
static int
by_age(const void *a, const void *b)
{
    const llm_live_row_t *x = a, *y = b;

    if (x->arrival_us != y->arrival_us) {
        return x->arrival_us < y->arrival_us ? -1 : 1;
    }

    return (x->who > y->who) - (x->who < y->who);
}


static int
by_state(const void *a, const void *b)
{
    static const uint8_t rank[LLM_LIVE_STATES_N + 1] = {[LLM_LIVE_DECODE] = 1,
        [LLM_LIVE_PREFILL] = 2,
        [LLM_LIVE_STALLED] = 3,
        [LLM_LIVE_PREEMPTED] = 4,
        [LLM_LIVE_WAITING] = 5,
        [LLM_LIVE_STATES_N] = 6};
    uint8_t x = rank[llm_live_state(((const llm_live_row_t *) a)->who)];
    uint8_t y = rank[llm_live_state(((const llm_live_row_t *) b)->who)];

    return x != y ? (x > y) - (x < y) : by_age(a, b);
}


static int
by_tokens(const void *a, const void *b)
{
    const llm_live_row_t *x = a, *y = b;

    return x->computed != y->computed ? (x->computed < y->computed ? 1 : -1)
                                      : by_age(a, b);
}


static int
by_blocks(const void *a, const void *b)
{
    const llm_live_row_t *x = a, *y = b;

    return x->blocks != y->blocks ? (x->blocks < y->blocks ? 1 : -1)
                                  : by_age(a, b);
}


static int
by_tenant(const void *a, const void *b)
{
    const llm_live_row_t *x = a, *y = b;
    int rc = memcmp(x->tenant, y->tenant, sizeof(x->tenant));

    return rc != 0 ? rc : by_state(a, b);
}


/* Columns that are as wide as there is room; both with the blank behind. */
typedef struct {
    uint32_t id, tenant;
    int narrow, wide;
} columns_t;


static void
columns(const draw_t *d, columns_t *c)
{
    uint32_t fixed, left;

    c->narrow = d->v->cols < DRAW_NARROW;
    c->wide = d->v->cols >= DRAW_WIDE;
    fixed =
        3 + 10 + 10 + 10 + 7 + (c->narrow ? 0 : 7 + 8) + 8 + (c->wide ? 8 : 0);
    left = d->v->cols > fixed ? d->v->cols - fixed : 0;
    c->id = left * 3 / 5;
    c->id = c->id < 42 ? c->id : 42;
    c->tenant = left - c->id < 26 ? left - c->id : 26;
}


/* A text with a blank behind it, in what is 0 columns nothing. */
static void
cell(draw_t *d, top_style_t style, const char *text, uint32_t width)
{
    if (width > 1) {
        top_pen_left(&d->pen, style, text, width - 1);
        top_pen_text(&d->pen, style == TOP_HEAD ? TOP_HEAD : TOP_PLAIN, " ");
    }
}


/* Names over the columns of draw_request, by the same widths. */
static void
draw_request_head(draw_t *d, const columns_t *c)
{
    if (!line_begin(d, "")) {
        return;
    }

    cell(d, TOP_HEAD, "REQUEST", c->id);
    cell(d, TOP_HEAD, "TENANT", c->tenant);
    top_pen_text(&d->pen, TOP_HEAD, "CL STATE         PROMPT    OUTPUT");
    top_pen_right(&d->pen, TOP_HEAD, "BLOCKS", 7);
    if (!c->narrow) {
        top_pen_right(&d->pen, TOP_HEAD, "CACHED", 7);
        top_pen_right(&d->pen, TOP_HEAD, "WAIT", 8);
    }
    if (c->wide) {
        top_pen_right(&d->pen, TOP_HEAD, "FIRST", 8);
    }
    top_pen_right(&d->pen, TOP_HEAD, "AGE", 8);
    top_pen_to(&d->pen, d->v->cols);
    line_end(d);
}


/* From one time to another, or to now; a dash: it is not there yet. */
static const char *
span(char out[TOP_NUM], uint64_t from, uint64_t to)
{
    return top_time(out, to > from ? to - from : to == 0 ? UINT64_MAX : 0);
}


/*
 * How far it is: of a prompt that is being computed how much of it is, else
 * how long it is; of the answer how much there is, and may be.
 */
static void
draw_request(draw_t *d, const llm_live_row_t *r, const columns_t *c)
{
    static const top_style_t styles[LLM_LIVE_STATES_N + 1] = {
        [LLM_LIVE_WAITING] = TOP_WARN,
        [LLM_LIVE_PREFILL] = TOP_CYAN,
        [LLM_LIVE_DECODE] = TOP_GOOD,
        [LLM_LIVE_STALLED] = TOP_BAD,
        [LLM_LIVE_PREEMPTED] = TOP_VIOLET};
    uint64_t now = d->now->c.us;
    char text[LLM_LIVE_TEXT + 1], n[2][TOP_NUM], pair[2 * TOP_NUM];

    if (!line_begin(d, "")) {
        return;
    }

    (void) llm_live_text(r->id, text);
    cell(d, TOP_PLAIN, text, c->id);
    (void) llm_live_text(r->tenant, text);
    cell(d, TOP_PLAIN, text, c->tenant);
    top_pen_right(&d->pen, TOP_DIM, top_count(n[0], (double) r->priority), 2);
    top_pen_text(&d->pen, TOP_PLAIN, " ");
    top_pen_left(&d->pen, styles[llm_live_state(r->who)],
        llm_live_state_name(r->who), 10);

    if (llm_live_state(r->who) == LLM_LIVE_PREFILL) {
        snprintf(pair, sizeof(pair), "%s/%s",
            top_count(n[0], (double) r->computed),
            top_count(n[1], (double) r->prompt));
    } else {
        snprintf(pair, sizeof(pair), "%s", top_count(n[1], (double) r->prompt));
    }
    top_pen_right(&d->pen, TOP_PLAIN, pair, 10);
    snprintf(pair, sizeof(pair), "%s/%s", top_count(n[0], (double) r->sampled),
        top_count(n[1], (double) r->limit));
    top_pen_right(&d->pen, TOP_PLAIN, pair, 10);
    top_pen_right(&d->pen, TOP_PLAIN, top_count(n[0], (double) r->blocks), 7);
    if (!c->narrow) {
        top_pen_right(
            &d->pen, TOP_PLAIN, top_count(n[0], (double) r->cached), 7);
        top_pen_right(&d->pen, r->begun_us == 0 ? TOP_WARN : TOP_PLAIN,
            span(n[0], r->arrival_us, r->begun_us == 0 ? now : r->begun_us), 8);
    }
    if (c->wide) {
        top_pen_right(
            &d->pen, TOP_PLAIN, span(n[0], r->arrival_us, r->first_us), 8);
    }
    top_pen_right(&d->pen, TOP_PLAIN, span(n[0], r->arrival_us, now), 8);
    line_end(d);
}


/* Those that fit, and in the last line which these are. */
static void
draw_requests(draw_t *d)
{
#define X(name) by_##name,
    static int (*const sorts[TOP_SORTS_N])(const void *, const void *) = {
        TOP_SORTS(X)};
#undef X
    uint32_t n = d->now->rows_n, at = d->v->scroll, first, room;
    columns_t c;

    qsort(d->now->rows, n, sizeof(d->now->rows[0]), sorts[d->v->sort]);
    columns(d, &c);
    draw_request_head(d, &c);

    room = d->v->rows > d->f->lines_n + 1 ? d->v->rows - d->f->lines_n - 1 : 0;
    at = n > room && d->v->rows > 0 ? (at < n - room ? at : n - room) : 0;
    for (first = at; at < n && (d->v->rows == 0 || at - first < room); at++) {
        draw_request(d, &d->now->rows[at], &c);
    }

    while (d->v->rows > 0 && d->f->lines_n + 1 < d->v->rows && line_fits(d)) {
        line_blank(d);
    }
    if (d->v->rows > 0 && line_begin(d, "")) {
        top_pen_text(&d->pen, TOP_DIM, d->v->keys);
        if (at > first) {
            char text[DRAW_TEXT_MAX];
            uint32_t w;

            snprintf(text, sizeof(text), "%u-%u of %u", first + 1, at, n);
            w = top_pen_width(&d->pen, text);
            top_pen_to(&d->pen, d->v->cols > w + 1 ? d->v->cols - w - 1 : 0);
            top_pen_text(&d->pen, TOP_PLAIN, text);
        }
        line_end(d);
    }
}


void
top_draw(top_frame_t *f, top_snap_t *now, const top_counts_t *since,
    const top_counts_t *long_since, const top_view_t *view)
{
    draw_t d = {f, now, since, long_since, view, {0}};

    assert(view->cols >= TOP_COLS_MIN && view->cols <= TOP_COLS_MAX);
    assert(view->sort < TOP_SORTS_N && now->rows_n <= LLM_LIVE_ROWS_MAX);

    f->lines_n = 0;
    draw_title(&d);
    draw_note(&d);
    draw_steps(&d);
    draw_history(&d, 0);
    draw_batch(&d);
    draw_history(&d, 1);
    draw_blocks(&d);
    draw_cache(&d);
    draw_host(&d);
    draw_queue(&d);
    draw_rates(&d);
    draw_latency(&d);
    line_blank(&d);
    draw_tenants(&d);
    line_blank(&d);
    draw_requests(&d);
}
