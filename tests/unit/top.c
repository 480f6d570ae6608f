/*
 * Catches a picture of an engine that is wider than the terminal, whose lines
 * do not stand below each other, that shows a number as another, or that lets
 * a tenant's name move the cursor.
 */
#include "live.h"
#include "top.h"
#include "top_pen.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 50, LINES = 200 };

/* A page that is written as the engine writes it, and read as llm-top does. */
typedef struct {
    uint8_t *page;
    uint64_t size;
    live_t *live;
    top_snap_t *snap;
    top_counts_t *was;
    top_frame_t frame;
    top_view_t view;
} fix_t;


static int
setup(void **state)
{
    fix_t *f = calloc(1, sizeof(*f));
    live_cfg_t c = {.reqs = ROWS, .batch_tokens = 512, .batch_rows = 64};
    llm_state_t *s;

    assert_non_null(f);
    assert_non_null(setlocale(LC_CTYPE, "C.UTF-8"));
    f->size = llm_live_size(ROWS);
    f->page = calloc(1, f->size);
    f->snap = calloc(1, sizeof(*f->snap));
    f->was = calloc(1, sizeof(*f->was));
    assert_true(f->page != NULL && f->snap != NULL && f->was != NULL);
    assert_int_equal(top_frame_open(&f->frame, LINES), 0);
    c.page = f->page;
    c.size = f->size;
    c.now_us = 1000000;
    f->live = live_open(&c);
    assert_non_null(f->live);

    s = (llm_state_t *) (void *) f->page;
    s->magic = LLM_WIRE_MAGIC;
    s->ready = 1;
    s->pid = 4321;
    s->models_n = 1;
    memcpy(s->models[0].name, "some-model", 11);
    s->blocks_total = 1000;
    s->blocks_free = 250;
    s->blocks_private = 500;
    s->blocks_cached = 230;
    s->blocks_transit = 20;
    s->block_tokens = 16;
    s->requests_max = 50;

    f->view.rows = 40;
    f->view.cols = 120;
    f->view.utf8 = 1;
    f->view.clock = "12:34:56";
    f->view.note = "";
    f->view.keys = "q quit";
    *state = f;

    return 0;
}


static int
teardown(void **state)
{
    fix_t *f = *state;

    live_close(f->live);
    top_frame_close(&f->frame);
    free(f->page);
    free(f->snap);
    free(f->was);
    free(f);

    return 0;
}


static void
add(fix_t *f, uint32_t i, const char *tenant, uint32_t state, uint32_t computed)
{
    live_work_t w = {state, computed, 7, 0, 3};
    req_t r;

    memset(&r, 0, sizeof(r));
    r.gen = i + 1;
    r.tenant = (uint32_t) tenant[0] << 8 | (uint8_t) tenant[strlen(tenant) - 1];
    r.arrival_us = 1000000 + i;
    r.weight = 2;
    r.priority = 3;
    r.choices = 1;
    r.prompt_tokens = 1200;
    r.max_tokens = 100;
    snprintf(r.id, sizeof(r.id), "request-%u", i);
    snprintf(r.tenant_name, sizeof(r.tenant_name), "%s", tenant);
    live_add(f->live, i, &r);
    if (state != LLM_LIVE_WAITING) {
        live_begin(f->live, i, 3000000);
        live_served(f->live, i, computed);
        live_token(f->live, i, 3500000);
        live_show(f->live, i, &w);
    }
}


static void
draw(fix_t *f, uint64_t now_us)
{
    const top_source_t source = {f->page, f->size};

    top_take(&source, now_us, f->snap);
    top_draw(&f->frame, f->snap, f->was->us == 0 ? NULL : f->was,
        f->was->us == 0 ? NULL : f->was, &f->view);
}


/* The first line with this text in it, from line *at on. */
static const char *
line(const fix_t *f, const char *text, uint32_t *at)
{
    for (; *at < f->frame.lines_n; ++*at) {
        if (strstr(f->frame.lines[*at], text) != NULL) {
            return f->frame.lines[*at];
        }
    }

    return NULL;
}


static void
has(const fix_t *f, const char *name, const char *text)
{
    uint32_t at = 0;
    const char *l = line(f, name, &at);

    if (l == NULL || strstr(l, text) == NULL) {
        fail_msg("no \"%s\" in: %s", text, l == NULL ? "(no line)" : l);
    }
}


/* Columns of a line that has no styles, or some. */
static uint32_t
width(const char *l)
{
    top_pen_t p;
    char buf[TOP_LINE_MAX], plain[TOP_LINE_MAX];
    size_t n = 0;

    top_pen_open(&p, buf, sizeof(buf), 1000, 1, 0);
    while (*l != '\0') {
        if (l[0] == '\x1b') {
            assert_int_equal(l[1], '[');
            l += 2 + strspn(l + 2, "0123456789;");
            assert_int_equal(*l, 'm');
            l++;
            continue;
        }
        assert_true((uint8_t) *l >= 0x20 && *l != 0x7f);
        plain[n++] = *l++;
    }
    plain[n] = '\0';

    return top_pen_width(&p, plain);
}


static void
test_numbers(void **state)
{
    static const struct {
        double n;
        const char *text;
    } counts[] = {{0, "0"}, {0.4, "0"}, {999, "999"}, {999.4, "999"},
        {999.5, "1.0k"}, {1234, "1.2k"}, {9949, "9.9k"}, {9951, "10k"},
        {99999, "100k"}, {999499, "999k"}, {999501, "1.0M"}, {1e30, "1.0E"},
        {-5, "0"}};
    static const struct {
        uint64_t us;
        const char *text;
    } times[] = {{0, "0 us"}, {999, "999 us"}, {1000, "1.0 ms"},
        {99949, "99.9 ms"}, {99950, "100 ms"}, {999499, "999 ms"},
        {999500, "1.00 s"}, {9994999, "9.99 s"}, {9995000, "10.0 s"},
        {59949999, "59.9 s"}, {60000000, "1m00s"}, {3599999999, "59m59s"},
        {3600000000, "1h00m"}, {86400000000, "1d00h"}, {UINT64_MAX, "-"},
        {UINT64_MAX - 1, "99999d00h"}};
    char out[TOP_NUM];
    uint64_t us;
    double n;
    size_t i;

    (void) state;
    for (i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        assert_string_equal(top_count(out, counts[i].n), counts[i].text);
    }
    for (i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        assert_string_equal(top_time(out, times[i].us), times[i].text);
    }
    for (n = 1; n < 1e18; n *= 1.003) {
        assert_true(strlen(top_count(out, n)) <= 4);
    }
    for (us = 1; us < 8000000000000ull; us += us / 300 + 1) {
        assert_true(strlen(top_time(out, us)) <= 7);
    }
}


static void
test_pen(void **state)
{
    static const struct {
        const char *in, *utf8, *ascii;
    } rows[] = {{"plain", "plain", "plain"},
        {"\x1b[2J\r\n\a", "?[2J???", "?[2J???"},
        {"\xc3\xa9t\xc3\xa9", "\xc3\xa9t\xc3\xa9", "?t?"},
        {"\xff\xfe\x80", "???", "???"}, {"a\xe2\x82", "a?", "a?"},
        {"\xc2\x9b"
         "31m",
            "?31m", "?31m"}, /* CSI in one byte */
        {"\xe2\x80\xae"
         "cba",
            "?cba", "?cba"},                    /* right to left */
        {"e\xcc\x81", "e?", "e?"},              /* an accent alone */
        {"\xe4\xb8\xad", "\xe4\xb8\xad", "?"}}; /* two columns */
    char line[TOP_LINE_MAX];
    top_pen_t p;
    size_t i;

    (void) state;
    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        top_pen_open(&p, line, sizeof(line), 80, 1, 0);
        top_pen_text(&p, TOP_BAD, rows[i].in);
        top_pen_close(&p, 0);
        assert_string_equal(line, rows[i].utf8);
        top_pen_open(&p, line, sizeof(line), 80, 0, 0);
        top_pen_text(&p, TOP_BAD, rows[i].in);
        top_pen_close(&p, 0);
        assert_string_equal(line, rows[i].ascii);
    }

    /* columns: cut, padded, never beyond the end */
    top_pen_open(&p, line, sizeof(line), 12, 1, 0);
    top_pen_left(&p, TOP_PLAIN, "abcdef", 4);
    top_pen_right(&p, TOP_PLAIN, "x", 3);
    top_pen_left(&p, TOP_PLAIN, "\xe4\xb8\xad\xe4\xb8\xad", 3);
    top_pen_text(&p, TOP_PLAIN,
        "\xe4\xb8\xad"
        "12345");
    assert_int_equal(p.col, 12);
    top_pen_text(&p, TOP_PLAIN, "more");
    top_pen_close(&p, 1);
    assert_string_equal(line, "abc~  x\xe4\xb8\xad~\xe4\xb8\xad");

    /* a style is ended, and costs no column */
    top_pen_open(&p, line, sizeof(line), 5, 1, 1);
    top_pen_text(&p, TOP_BAD, "ab");
    top_pen_close(&p, 1);
    assert_string_equal(line, "\x1b[0;1;31mab\x1b[0m   ");

    top_pen_open(&p, line, sizeof(line), 8, 0, 0);
    top_pen_bar(&p, TOP_GOOD, 0.5, 4);
    top_pen_bar(&p, TOP_GOOD, 7, 2);
    top_pen_bar(&p, TOP_GOOD, -1, 2);
    assert_string_equal(line, "##..##..");

    /* more bytes than there are */
    top_pen_open(&p, line, 40, 30, 1, 1);
    for (i = 0; i < 30; i++) {
        top_pen_text(&p, i % 2 ? TOP_BAD : TOP_GOOD, "\xe4\xb8\xad");
    }
    top_pen_close(&p, 1);
    assert_true(strlen(line) < 40);
}


static void
test_quantile(void **state)
{
    uint64_t now[LLM_LIVE_BUCKETS] = {0}, before[LLM_LIVE_BUCKETS] = {0};
    uint32_t i;

    (void) state;
    assert_int_equal(top_quantile(now, before, 0.5), UINT64_MAX);
    for (i = 0; i < 99; i++) {
        now[llm_live_bucket(10000)]++;
    }
    now[llm_live_bucket(500000)]++;
    assert_int_equal(llm_live_bucket(top_quantile(now, before, 0.5)),
        llm_live_bucket(10000));
    assert_in_range(top_quantile(now, before, 0.995),
        llm_live_bound(llm_live_bucket(500000)),
        llm_live_bound(llm_live_bucket(500000) + 1));

    /* only what came since */
    before[llm_live_bucket(10000)] = 99;
    assert_in_range(top_quantile(now, before, 0.01),
        llm_live_bound(llm_live_bucket(500000)),
        llm_live_bound(llm_live_bucket(500000) + 1));
    before[3] = 1000; /* nonsense: it fell */
    (void) top_quantile(now, before, 0.5);
    now[LLM_LIVE_BUCKETS - 1] = UINT64_MAX;
    (void) top_quantile(now, before, 1);
}


static void
test_draw(void **state)
{
    const llm_live_step_t step = {12300, 448, 12};
    fix_t *f = *state;
    llm_state_t *s = (llm_state_t *) (void *) f->page;
    uint32_t i, at = 0;

    add(f, 0, "acme", LLM_LIVE_DECODE, 1500);
    add(f, 1, "globex", LLM_LIVE_PREFILL, 450);
    add(f, 2, "acme", LLM_LIVE_WAITING, 0);
    s->requests_running = 2;
    s->requests_waiting = 1;
    s->requests_held = 4;
    for (i = 0; i < 300; i++) {
        live_step(f->live, &step);
    }

    /* at first nothing is known of rates */
    draw(f, 5000000);
    has(f, "llm-top", "some-model  serving  up 4.00 s  pid 4321");
    has(f, "llm-top", "12:34:56 ");
    has(f, "Steps", "12.3 ms p50  12.3 ms p99  12.3 ms max     - steps/s");
    has(f, "Steps", "no target");
    has(f, "Batch", "  12 decoding    448 prefill  of 512 tokens  64 rows");
    has(f, "Blocks",
        " 75 % used   250 free   500 private   230 cached    20 t");
    has(f, "Queue",
        "  2 running     0 stalled     1 waiting    1 in text  of 50");
    has(f, "Rates", "    - out tok/s");
    has(f, "Cache", "    - hits     - asked/s");
    has(f, "Latency", "TTFT       - p50");
    has(f, "request-0", "acme");
    has(f, "request-0",
        "3 decode          1.2k     7/100      3      0  2.00 s");
    has(f, "request-1",
        "3 prefill     450/1.2k     7/100      3      0  2.00 s");
    has(f, "request-2",
        "3 waiting         1.2k     0/100      0      0  4.00 s");
    has(f, "q quit", "1-3 of 3");

    /* then they are, and shares, and a target */
    *f->was = f->snap->c;
    live_served(f->live, 0, 300);
    live_served(f->live, 1, 100);
    live_token(f->live, 0, 5500000);
    s->completion_tokens = 24680;
    s->turns = 20;
    s->cache_asked = 2000;
    s->cache_hits = 500;
    live_target(f->live, 10000);
    draw(f, 7000000);
    has(f, "Steps", "10 steps/s");
    has(f, "Steps", "10.0 ms target");
    has(f, "Rates", "  12k out tok/s");
    has(f, "Cache", " 25 % hits  1.0k asked/s   250 found/s     0 blocks evi");
    has(f, "Latency", "ITL  1.");
    (void) line(f, "TENANT", &at);
    at++;
    assert_non_null(line(f, "acme", &at));
    assert_non_null(strstr(f->frame.lines[at], " 75.0 %      150    0.5"));
    at++;
    assert_non_null(line(f, "globex", &at));
    assert_non_null(strstr(f->frame.lines[at], " 25.0 %       50      0"));
}


/* Whatever the size, all lines are there and as wide as the terminal. */
static void
test_sizes(void **state)
{
    const llm_live_step_t step = {12300, 448, 12};
    fix_t *f = *state;
    char name[80];
    uint32_t i, cols, rows;

    for (i = 0; i < ROWS; i++) {
        snprintf(name, sizeof(name), "%s-%u",
            i % 3 == 0   ? "\x1b[31mevil\x1b]0;x\a\r\n"
            : i % 3 == 1 ? "\xe4\xb8\xad\xe6\x96\x87 a name that is long"
                         : "t\xff\xfe",
            i);
        add(f, i, name, 1 + i % (LLM_LIVE_STATES_N - 1), i * 997);
        live_step(f->live, &step);
    }
    f->view.note = "a note \x1b that is as long as it is and longer than that";

    for (cols = TOP_COLS_MIN; cols <= TOP_COLS_MAX; cols += 9) {
        for (rows = 1; rows <= 80; rows += rows < 20 ? 1 : 13) {
            f->view.cols = cols;
            f->view.rows = rows;
            f->view.utf8 = (cols + rows) % 3 != 0;
            f->view.color = (cols + rows) % 2;
            f->view.sort = (top_sort_t) (rows % TOP_SORTS_N);
            f->view.scroll = rows * 2;
            draw(f, 5000000);
            assert_int_equal(f->frame.lines_n, rows);
            for (i = 0; i < rows; i++) {
                assert_int_equal(width(f->frame.lines[i]), cols);
            }
        }
    }

    /* as text all requests are there, and no line says that of keys */
    f->view.rows = 0;
    f->view.color = 0;
    f->view.cols = 100;
    draw(f, 5000000);
    assert_true(f->frame.lines_n > ROWS + 10);
    for (i = 0; i < f->frame.lines_n; i++) {
        assert_null(strchr(f->frame.lines[i], '\x1b'));
        assert_null(strstr(f->frame.lines[i], "quit"));
    }
}


/* Only an engine that has a second tier has a line for it; rows that are
 * discarded are told of where there were any. */
static void
test_host(void **state)
{
    fix_t *f = *state;
    llm_state_t *s = (llm_state_t *) (void *) f->page;
    uint32_t at = 0;

    draw(f, 5000000);
    assert_null(line(f, "Host", &at));
    at = 0;
    assert_null(line(f, "discarded", &at));

    s->host_blocks_total = 4000;
    s->host_blocks_used = 3000;
    s->host_hits = 5;
    draw(f, 6000000);
    has(f, "Host", " 75 % used     - hits/s     - tokens/s     - out/s");
    has(f, "Host", "of 4000 blocks");

    *f->was = f->snap->c;
    s->host_hits += 4;
    s->host_tokens += 2480;
    s->host_blocks_out += 1000;
    s->host_blocks_lost += 3;
    s->discarded_rows = 7;
    draw(f, 8000000);
    has(f, "Host", " 2.0 hits/s  1.2k tokens/s   500 out/s   1.5 lost/s");
    has(f, "Batch", " 3.5 discarded/s");

    /* and all is as wide as it should be with them, too */
    test_sizes(state);
}


static void
test_orders(void **state)
{
    static const char *const want[TOP_SORTS_N] = {[TOP_BY_state] = "1 3 2 0",
        [TOP_BY_age] = "0 1 2 3",
        [TOP_BY_tokens] = "2 1 3 0",
        [TOP_BY_blocks] = "1 2 3 0",
        [TOP_BY_tenant] = "3 0 1 2"};
    fix_t *f = *state;
    char got[16];
    int k;

    add(f, 0, "b", LLM_LIVE_WAITING, 0);
    add(f, 1, "c", LLM_LIVE_DECODE, 20);
    add(f, 2, "d", LLM_LIVE_STALLED, 30);
    add(f, 3, "a", LLM_LIVE_PREFILL, 10);

    for (k = 0; k < TOP_SORTS_N; k++) {
        f->view.sort = (top_sort_t) k;
        draw(f, 5000000);
        snprintf(got, sizeof(got), "%u %u %u %u",
            (unsigned) (f->snap->rows[0].arrival_us - 1000000),
            (unsigned) (f->snap->rows[1].arrival_us - 1000000),
            (unsigned) (f->snap->rows[2].arrival_us - 1000000),
            (unsigned) (f->snap->rows[3].arrival_us - 1000000));
        assert_string_equal(got, want[k]);
    }
}


/* No engine, and one that keeps no list. */
static void
test_none(void **state)
{
    fix_t *f = *state;

    f->view.note = "no engine at /x";
    memset(f->snap, 0, sizeof(*f->snap));
    top_draw(&f->frame, f->snap, NULL, NULL, &f->view);
    has(f, "llm-top", "no engine");
    assert_int_equal(f->frame.lines_n, 40);

    memset(f->page + LLM_LIVE_AT, 0, 8);
    draw(f, 5000000);
    assert_int_equal(f->snap->c.listed, 0);
    has(f, "Blocks", "500 private");
    f->size = LLM_STATE_SIZE;
    draw(f, 5000000);
    has(f, "Blocks", "500 private");
}


/* What is printed of the steps from number `from` on; the next one's. */
static uint64_t
steps(const fix_t *f, uint64_t from, char *text, size_t size)
{
    const top_source_t source = {f->page, f->size};
    FILE *out = fmemopen(text, size, "w");

    assert_non_null(out);
    text[0] = '\0'; /* it is only written to when there is something */
    from = top_steps_print(&source, from, 1234567, out);
    assert_int_equal(fclose(out), 0);

    return from;
}


/* Each step once, and those that are lost counted. */
static void
test_steps(void **state)
{
    llm_live_step_t step = {12300, 448, 12};
    static char text[LLM_LIVE_STEPS * 32];
    fix_t *f = *state;
    uint64_t next;
    uint32_t i;

    assert_int_equal(steps(f, 0, text, sizeof(text)), 0);
    assert_string_equal(text, "");

    live_step(f->live, &step);
    step.us = 9000;
    step.prefill = 0;
    live_step(f->live, &step);
    next = steps(f, 0, text, sizeof(text));
    assert_int_equal(next, 2);
    assert_string_equal(text, "1.235 12300 12 448\n1.235 9000 12 0\n");
    assert_int_equal(steps(f, next, text, sizeof(text)), 2);

    for (i = 0; i < LLM_LIVE_STEPS + 5; i++) {
        step.us = i;
        live_step(f->live, &step);
    }
    next = steps(f, next, text, sizeof(text));
    assert_int_equal(next, LLM_LIVE_STEPS + 7);
    /* the word behind the newest one is the oldest: it may change in hand */
    assert_memory_equal(text, "# 6 steps missed\n1.235 6 12 0\n", 30);
    for (i = 0; i < next; i++) {
        assert_true(steps(f, i, text, sizeof(text)) == next);
    }

    /* it is another engine's log now: it begins anew */
    assert_int_equal(steps(f, next + 9, text, sizeof(text)), next);
    assert_string_equal(text, "");
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),
        cmocka_unit_test_setup_teardown(test_pen, setup, teardown),
        cmocka_unit_test(test_quantile),
        cmocka_unit_test_setup_teardown(test_draw, setup, teardown),
        cmocka_unit_test_setup_teardown(test_host, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sizes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_orders, setup, teardown),
        cmocka_unit_test_setup_teardown(test_none, setup, teardown),
        cmocka_unit_test_setup_teardown(test_steps, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
