/*
 * Would catch: ids of one word given for another, when two share a line or
 * while somebody writes; a word that is never found again.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "token_impl.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define THREADS 4
#define ROUNDS  200000

/* A word's ids follow from its number, and its number from its text. */
static size_t
word_make(uint32_t number, char *word, uint32_t *ids, uint32_t *n)
{
    uint32_t i;

    *n = number % TOKEN_CACHE_IDS + 1;
    for (i = 0; i < *n; i++) {
        ids[i] = number * 31 + i;
    }

    return (size_t) snprintf(word, TOKEN_CACHE_KEY + 1, "%u%s", number,
        number % 3 == 0 ? "-and-some-more" : "");
}

static void
test_found(void **state)
{
    token_cache_t *c = token_cache_open();
    uint32_t ids[TOKEN_CACHE_IDS], got[TOKEN_CACHE_IDS], n, i, hits = 0;
    char word[TOKEN_CACHE_KEY + 1];
    size_t len;

    (void) state;
    assert_non_null(c);
    for (i = 0; i < 1000; i++) {
        len = word_make(i, word, ids, &n);
        assert_int_equal(token_cache_get(c, 0, word, len, got), 0);
        token_cache_put(c, 0, word, len, ids, n);
        assert_int_equal(token_cache_get(c, 0, word, len, got), n);
        assert_memory_equal(got, ids, n * sizeof(ids[0]));
    }
    for (i = 0; i < 1000; i++) {
        len = word_make(i, word, ids, &n);
        hits += token_cache_get(c, 0, word, len, got) == n;
    }
    /* hardly any has had to go for another */
    assert_true(hits > 950);

    /* one that begins another, with zeros behind it, is not it */
    token_cache_put(c, 0, "zero", 4, ids, 1);
    assert_int_equal(token_cache_get(c, 0, "zero\0", 5, got), 0);
    assert_int_equal(token_cache_get(c, 0, "zer", 3, got), 0);

    /* nor is what another step left */
    assert_int_equal(token_cache_get(c, 1, "zero", 4, got), 0);
    token_cache_put(c, 31, "zero", 4, ids + 1, 1);
    assert_int_equal(token_cache_get(c, 0, "zero", 4, got), 1);
    assert_int_equal(got[0], ids[0]);
    assert_int_equal(token_cache_get(c, 31, "zero", 4, got), 1);
    assert_int_equal(got[0], ids[1]);
    token_cache_close(c);
}

typedef struct {
    token_cache_t *c;
    uint32_t seed;
    uint32_t hits, wrong;
} worker_t;

static void *
work(void *arg)
{
    uint32_t ids[TOKEN_CACHE_IDS], got[TOKEN_CACHE_IDS], n, have, i;
    char word[TOKEN_CACHE_KEY + 1];
    worker_t *w = arg;
    size_t len;

    for (i = 0; i < ROUNDS; i++) {
        w->seed = w->seed * 1664525u + 1013904223u;
        /* more words than lines, some of them often */
        len = word_make(
            (w->seed >> 8) % (w->seed >> 31 ? 100000 : 50), word, ids, &n);
        have = token_cache_get(w->c, 0, word, len, got);
        if (have > 0) {
            w->hits++;
            w->wrong += have != n || memcmp(got, ids, n * sizeof(ids[0])) != 0;
        } else {
            token_cache_put(w->c, 0, word, len, ids, n);
        }
    }

    return NULL;
}

static void
test_threads(void **state)
{
    token_cache_t *c = token_cache_open();
    worker_t w[THREADS];
    pthread_t threads[THREADS];
    uint32_t i;

    (void) state;
    assert_non_null(c);
    memset(w, 0, sizeof(w));
    for (i = 0; i < THREADS; i++) {
        w[i].c = c;
        w[i].seed = i + 1;
        assert_int_equal(pthread_create(&threads[i], NULL, work, &w[i]), 0);
    }
    for (i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(w[i].wrong, 0);
        assert_true(w[i].hits > ROUNDS / 4);
    }
    token_cache_close(c);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_found),
        cmocka_unit_test(test_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
