/*
 * Would catch: a stop string missed across two tokens, text let out that
 * belongs to one, text held back that no longer can, a cut at the wrong byte.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "stop.h"

#include <stdlib.h>
#include <string.h>

static stop_t p;
static stop_state_t st;

static void
stops(const char *const *s, size_t n)
{
    size_t i;

    memset(&p, 0, sizeof(p));
    memset(&st, 0, sizeof(st));
    for (i = 0; i < n; i++) {
        assert_int_equal(stop_add(&p, s[i], strlen(s[i])), 0);
    }
}

static void
test_held(void **state)
{
    static const char *const s[] = {"\n\nQ:", "\n#"};
    const char *held;
    size_t used;
    uint32_t len;

    (void) state;
    stops(s, 2);
    assert_int_equal(stop_feed(&p, &st, "text\n", 5, &used, &len), 0);
    assert_int_equal(stop_held(&p, &st, &held), 1);
    assert_int_equal(stop_feed(&p, &st, "\n", 1, &used, &len), 0);
    assert_int_equal(stop_held(&p, &st, &held), 2);
    assert_memory_equal(held, "\n\n", 2);
    assert_int_equal(stop_feed(&p, &st, "Q", 1, &used, &len), 0);
    assert_int_equal(stop_held(&p, &st, &held), 3);
    assert_int_equal(stop_feed(&p, &st, "x", 1, &used, &len), 0);
    assert_int_equal(stop_held(&p, &st, &held), 0);
    assert_int_equal(stop_feed(&p, &st, "\n\n\n#ab", 6, &used, &len), 1);
    assert_int_equal(used, 4);
    assert_int_equal(len, 2);
}

/* Both end at the same byte: the longer one is cut. */
static void
test_longest(void **state)
{
    static const char *const s[] = {"bc", "abc"};
    size_t used;
    uint32_t len;

    (void) state;
    stops(s, 2);
    assert_int_equal(stop_feed(&p, &st, "ab", 2, &used, &len), 0);
    assert_int_equal(stop_feed(&p, &st, "cd", 2, &used, &len), 1);
    assert_int_equal(used, 1);
    assert_int_equal(len, 3);
}

static void
test_limits(void **state)
{
    char big[LLM_STOP_LEN_MAX + 1];
    const char *held;
    size_t used;
    uint32_t len, i;

    (void) state;
    memset(big, 'a', sizeof(big));
    memset(&p, 0, sizeof(p));
    memset(&st, 0, sizeof(st));
    assert_int_equal(stop_feed(&p, &st, "abc", 3, &used, &len), 0);
    assert_int_equal(stop_held(&p, &st, &held), 0);
    assert_int_equal(stop_add(&p, "", 0), -1);
    assert_int_equal(stop_add(&p, big, sizeof(big)), -1);
    for (i = 0; i < LLM_STOPS_MAX; i++) {
        assert_int_equal(stop_add(&p, big, LLM_STOP_LEN_MAX), 0);
    }
    assert_int_equal(stop_add(&p, "a", 1), -1);

    for (i = 0; i + 1 < LLM_STOP_LEN_MAX; i++) {
        assert_int_equal(stop_feed(&p, &st, "a", 1, &used, &len), 0);
    }
    assert_int_equal(stop_held(&p, &st, &held), LLM_STOP_LEN_MAX - 1);
    assert_int_equal(stop_feed(&p, &st, "a", 1, &used, &len), 1);
    assert_int_equal(len, LLM_STOP_LEN_MAX);
}

/* The longest end of text[0..n) that begins a string: by trying all. */
static size_t
naive_held(const char *text, size_t n)
{
    size_t k, best = 0;
    uint32_t i;

    for (i = 0; i < p.n; i++) {
        for (k = 1; k < p.len[i] && k <= n; k++) {
            if (k > best && memcmp(text + n - k, p.s[i], k) == 0) {
                best = k;
            }
        }
    }

    return best;
}

static size_t
naive_match(const char *text, size_t n)
{
    size_t best = 0;
    uint32_t i;

    for (i = 0; i < p.n; i++) {
        if (p.len[i] <= n && p.len[i] > best
            && memcmp(text + n - p.len[i], p.s[i], p.len[i]) == 0) {
            best = p.len[i];
        }
    }

    return best;
}

/* Small alphabets make every kind of overlap. */
static void
one_run(void)
{
    char s[4][8], text[64];
    const char *held;
    size_t n = 0, i, used, part, k;
    uint32_t len;
    int hit;

    memset(&p, 0, sizeof(p));
    memset(&st, 0, sizeof(st));
    for (i = 0; i < 1 + (size_t) rand() % 4; i++) {
        k = 1 + (size_t) rand() % 7;
        for (used = 0; used < k; used++) {
            s[i][used] = (char) ('a' + rand() % 2);
        }
        assert_int_equal(stop_add(&p, s[i], k), 0);
    }

    while (n < sizeof(text)) {
        part = 1 + (size_t) rand() % 5;
        part = part < sizeof(text) - n ? part : sizeof(text) - n;
        for (i = 0; i < part; i++) {
            text[n + i] = (char) ('a' + rand() % 2);
        }
        hit = stop_feed(&p, &st, text + n, part, &used, &len);
        for (i = 0; i < part && naive_match(text, n + i + 1) == 0; i++) {
        }
        assert_int_equal(hit, i < part);
        if (hit) {
            assert_int_equal(used, i + 1);
            assert_int_equal(len, naive_match(text, n + i + 1));
            return;
        }
        n += part;
        k = stop_held(&p, &st, &held);
        assert_int_equal(k, naive_held(text, n));
        assert_memory_equal(held, text + n - k, k);
    }
}

static void
test_property(void **state)
{
    int i;

    (void) state;
    srand(7);
    for (i = 0; i < 20000; i++) {
        one_run();
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_held),
        cmocka_unit_test(test_longest),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_property),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
