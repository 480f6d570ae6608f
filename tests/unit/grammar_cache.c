/*
 * Would catch: a grammar compiled again that is there, or once for each who
 * asks at once; one given to who asked for another; a refusal kept for ever,
 * or not at all; a table that grows beyond its bytes, or drops what is used; a
 * grammar that goes while somebody has it.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "clock.h"
#include "grammar_cache.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS 4

static llm_state_t page;
static token_t *tok;

static grammar_cache_t *
cache(uint64_t bytes, uint64_t refused_us)
{
    const grammar_cache_cfg_t c = {
        tok, NULL, bytes, 1000000, refused_us, &page};
    grammar_cache_t *g = grammar_cache_open(&c);

    assert_non_null(g);
    memset(&page, 0, sizeof(page));

    return g;
}

static grammar_spec_t
regex(const char *s)
{
    const grammar_spec_t spec = {
        LLM_GRAMMAR_REGEX, 0, 0, s, strlen(s), NULL, 0};

    return spec;
}

static grammar_t *
get(grammar_cache_t *c, const grammar_spec_t *s, char *err)
{
    grammar_t *g;

    err[0] = '\0';
    grammar_cache_get(c, s, &g, err, GRAMMAR_CACHE_ERR);
    assert_int_equal(g == NULL, err[0] != '\0');

    return g;
}

/* Is text all that g takes? */
static int
takes(const grammar_t *g, const char *text)
{
    grammar_state_t st = {NULL, 0, 0, 0};
    int yes;

    assert_int_equal(grammar_begin(g, &st), 0);
    yes = grammar_feed(g, &st, text, strlen(text)) == strlen(text)
          && grammar_can_end(g, &st);
    grammar_state_free(&st);

    return yes;
}

static void
test_kept(void **state)
{
    grammar_cache_t *c = cache(1 << 24, 1000000);
    grammar_spec_t s = regex("ab*"), other = regex("ac*");
    char err[GRAMMAR_CACHE_ERR];
    grammar_t *g, *again, *third;

    (void) state;
    assert_null(grammar_cache_vocab(c));
    assert_int_equal(
        grammar_cache_find(c, &s, clock_us(), &g, err, sizeof(err)), 0);
    assert_null(g);

    g = get(c, &s, err);
    assert_true(takes(g, "abb") && !takes(g, "ac"));
    assert_non_null(grammar_cache_vocab(c));
    assert_int_equal(
        grammar_cache_find(c, &s, clock_us(), &again, err, sizeof(err)), 1);
    assert_ptr_equal(again, g);
    third = get(c, &other, err);
    assert_true(takes(third, "acc") && !takes(third, "ab"));

    /* the same text, but of another kind, or read otherwise */
    grammar_close(third);
    s.type = LLM_GRAMMAR_EBNF;
    assert_null(get(c, &s, err));
    s.type = LLM_GRAMMAR_REGEX;
    s.flags = LLM_GRAMMAR_COMPACT;
    third = get(c, &s, err);
    assert_ptr_not_equal(third, g);
    grammar_close(third);

    assert_int_equal(page.grammars_compiled, 3);
    assert_int_equal(page.grammars_reused, 1);
    assert_int_equal(page.grammars_refused, 1);

    /* who has one may keep it longer than the cache does */
    grammar_close(again);
    grammar_cache_close(c);
    assert_true(takes(g, "ab"));
    grammar_close(g);
}

static void
test_kinds(void **state)
{
    static const char cut[] = "\3\0\0\0yes\2\0\0\0n";
    static const char whole[] = "\3\0\0\0yes\2\0\0\0no";
    static const char huge[] = "\377\377\377\377";
    const struct {
        uint32_t type;
        const char *text;
        size_t len;
        const char *yes, *no;
    } rows[] = {
        {LLM_GRAMMAR_JSON, "", 0, "{\"a\":[1]}", "[1]"},
        {LLM_GRAMMAR_SCHEMA, "{\"type\":\"integer\"}", 18, "12", "\"a\""},
        {LLM_GRAMMAR_REGEX, "[0-9]+", 6, "12", "a"},
        {LLM_GRAMMAR_EBNF, "root ::= \"a\" | \"b\"", 18, "b", "c"},
        {LLM_GRAMMAR_CHOICE, whole, sizeof(whole) - 1, "no", "maybe"},
        {LLM_GRAMMAR_CHOICE, cut, sizeof(cut) - 1, NULL, NULL},
        {LLM_GRAMMAR_CHOICE, huge, sizeof(huge) - 1, NULL, NULL},
        {LLM_GRAMMAR_CHOICE, "", 0, NULL, NULL},
        {LLM_GRAMMAR_SCHEMA, "{", 1, NULL, NULL},
        {LLM_GRAMMARS, "", 0, NULL, NULL},
    };
    grammar_cache_t *c = cache(1 << 24, 1000000);
    char err[GRAMMAR_CACHE_ERR];
    grammar_spec_t s;
    grammar_t *g;
    size_t i;

    (void) state;
    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        memset(&s, 0, sizeof(s));
        s.type = rows[i].type;
        s.text = rows[i].text;
        s.len = rows[i].len;
        g = get(c, &s, err);
        assert_int_equal(g != NULL, rows[i].yes != NULL);
        if (g != NULL) {
            assert_true(takes(g, rows[i].yes));
            assert_false(takes(g, rows[i].no));
        }
        grammar_close(g);
    }
    grammar_cache_close(c);
}

static void
test_refused(void **state)
{
    grammar_cache_t *c = cache(1 << 24, 1000);
    const grammar_spec_t s = regex("(");
    char err[GRAMMAR_CACHE_ERR], again[GRAMMAR_CACHE_ERR];
    uint64_t now;
    grammar_t *g;

    (void) state;
    assert_null(get(c, &s, err));
    now = clock_us();
    assert_int_equal(page.grammars_refused, 1);
    assert_int_equal(
        grammar_cache_find(c, &s, now - 900, &g, again, sizeof(again)), 1);
    assert_null(g);
    assert_string_equal(again, err);
    assert_int_equal(
        grammar_cache_find(c, &s, now + 1000, &g, again, sizeof(again)), 0);
    grammar_cache_close(c);
}

static void
test_room(void **state)
{
    enum { MANY = 600 };
    char err[GRAMMAR_CACHE_ERR], text[32], first[] = "first[a-z]*";
    grammar_spec_t s = regex(first);
    grammar_cache_t *c;
    grammar_t *g;
    uint32_t i;
    int known, there = 0;

    (void) state;

    /* no bytes: the last one stays, and no other */
    c = cache(0, 1000000);
    grammar_close(get(c, &s, err));
    s = regex("second");
    grammar_close(get(c, &s, err));
    assert_int_equal(
        grammar_cache_find(c, &s, clock_us(), &g, err, sizeof(err)), 1);
    grammar_close(g);
    s = regex(first);
    assert_int_equal(
        grammar_cache_find(c, &s, clock_us(), &g, err, sizeof(err)), 0);
    grammar_cache_close(c);

    /* more than there are places: what is used all the time stays */
    c = cache(1ull << 40, 1000000);
    grammar_close(get(c, &s, err));
    for (i = 0; i < MANY; i++) {
        snprintf(text, sizeof(text), "other%u", i);
        s = regex(text);
        grammar_close(get(c, &s, err));
        s = regex(first);
        known = grammar_cache_find(c, &s, clock_us(), &g, err, sizeof(err));
        assert_true(known && g != NULL);
        grammar_close(g);
    }
    for (i = 0; i < MANY; i++) {
        snprintf(text, sizeof(text), "other%u", i);
        s = regex(text);
        there += grammar_cache_find(c, &s, clock_us(), &g, err, sizeof(err));
        grammar_close(g);
    }
    assert_in_range(there, MANY / 2, MANY - 1);
    grammar_cache_close(c);
}

/* --- at once ------------------------------------------------------------ */

typedef struct {
    grammar_cache_t *c;
    pthread_barrier_t *all;
    pthread_t id;
    grammar_t *g;
} asker_t;

static void *
ask(void *arg)
{
    asker_t *a = arg;
    const grammar_spec_t s = regex("[a-z]{1,300}x[0-9]{1,300}");
    char err[GRAMMAR_CACHE_ERR];

    (void) pthread_barrier_wait(a->all);
    grammar_cache_get(a->c, &s, &a->g, err, sizeof(err));

    return NULL;
}

static void
test_at_once(void **state)
{
    grammar_cache_t *c = cache(1 << 26, 1000000);
    pthread_barrier_t all;
    asker_t a[THREADS];
    uint32_t i;

    (void) state;
    (void) pthread_barrier_init(&all, NULL, THREADS);
    for (i = 0; i < THREADS; i++) {
        a[i] = (asker_t){c, &all, 0, NULL};
        assert_int_equal(pthread_create(&a[i].id, NULL, ask, &a[i]), 0);
    }
    for (i = 0; i < THREADS; i++) {
        (void) pthread_join(a[i].id, NULL);
        assert_non_null(a[i].g);
        assert_ptr_equal(a[i].g, a[0].g);
    }
    assert_int_equal(page.grammars_compiled, 1);
    for (i = 0; i < THREADS; i++) {
        grammar_close(a[i].g);
    }
    (void) pthread_barrier_destroy(&all);
    grammar_cache_close(c);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kept),
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_room),
        cmocka_unit_test(test_at_once),
    };
    int rc;

    tok = token_open_null();
    assert(tok != NULL);
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    token_close(tok);

    return rc;
}
