/*
 * Would catch: a character split between two events, an invalid byte passed
 * on, a different result when the same bytes come in other pieces.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "utf8.h"

#include <stdlib.h>
#include <string.h>

#define R UTF8_REPLACEMENT

/* Feeds s in pieces of n bytes and compares the whole. */
static void
gives(const char *s, size_t len, size_t n, const char *want)
{
    char out[256];
    size_t at, part, k = 0;
    utf8_t u;

    memset(&u, 0, sizeof(u));
    for (at = 0; at < len; at += part) {
        part = n < len - at ? n : len - at;
        k += utf8_feed(&u, s + at, part, out + k);
    }
    k += utf8_end(&u, out + k);
    out[k] = '\0';
    assert_string_equal(out, want);
    assert_int_equal(utf8_end(&u, out), 0);
}

static void
test_cases(void **state)
{
    static const struct {
        const char *in, *out;
    } c[] = {
        {"plain", "plain"},
        {"\xc3\xa9\xe4\xb8\x96\xf0\x9f\xa6\x99", "\xc3\xa9\xe4\xb8\x96"
                                                 "\xf0\x9f\xa6\x99"},
        {"a\x80z", "a" R "z"},
        {"\xc0\xaf", R R}, /* overlong */
        {"\xe0\x80\xaf", R R R},
        {"\xed\xa0\x80", R R R},       /* surrogate */
        {"\xf4\x90\x80\x80", R R R R}, /* above U+10FFFF */
        {"\xf4\x8f\xbf\xbf", "\xf4\x8f\xbf\xbf"},
        {"\xf5", R},
        {"\xe4\xb8", R}, /* the end comes too early */
        {"\xe4\xb8x", R "x"},
        {"\xe4\xb8\xe4\xb8\x96", R "\xe4\xb8\x96"},
        {"\xf0\x9f\xa6\xc3\xa9", R "\xc3\xa9"},
        {"\xf0\x9f\xf0\x9f\xa6\x99", R "\xf0\x9f\xa6\x99"},
        {"\xff\xfe\xc3", R R R},
    };
    size_t i, n;

    (void) state;
    for (i = 0; i < sizeof(c) / sizeof(c[0]); i++) {
        for (n = 1; n < 6; n++) {
            gives(c[i].in, strlen(c[i].in), n, c[i].out);
        }
    }
}

/* What comes out between two feeds never ends inside a character. */
static void
test_whole(void **state)
{
    static const char s[] = "\xf0\x9f\xa6\x99";
    char out[UTF8_OUT_MAX(1)];
    utf8_t u;
    int i;

    (void) state;
    memset(&u, 0, sizeof(u));
    for (i = 0; i < 3; i++) {
        assert_int_equal(utf8_feed(&u, s + i, 1, out), 0);
    }
    assert_int_equal(utf8_feed(&u, s + 3, 1, out), 4);
    assert_memory_equal(out, s, 4);
}

/* However the bytes are cut, the text is the same, valid, and within bounds. */
static void
test_property(void **state)
{
    static const uint8_t some[] = {0x00, 0x41, 0x80, 0x8f, 0x90, 0x9f, 0xa0,
        0xbf, 0xc1, 0xc3, 0xe0, 0xe4, 0xed, 0xf0, 0xf4, 0xff};
    char in[24], whole[128], cut[128];
    size_t i, n, at, part, k;
    utf8_t u;
    int round, len;

    (void) state;
    srand(11);
    for (round = 0; round < 50000; round++) {
        n = (size_t) rand() % sizeof(in);
        for (i = 0; i < n; i++) {
            in[i] = (char) some[(size_t) rand() % sizeof(some)];
        }
        memset(&u, 0, sizeof(u));
        k = utf8_feed(&u, in, n, whole);
        assert_true(k <= UTF8_OUT_MAX(n));
        k += utf8_end(&u, whole + k);

        for (at = 0; at < k; at += (size_t) len) {
            len = utf8_char((uint8_t *) whole + at, k - at);
            assert_true(len > 0);
        }

        memset(&u, 0, sizeof(u));
        for (at = 0, i = 0; at < n; at += part) {
            part = 1 + (size_t) rand() % 3;
            part = part < n - at ? part : n - at;
            i += utf8_feed(&u, in + at, part, cut + i);
        }
        i += utf8_end(&u, cut + i);
        assert_int_equal(i, k);
        assert_memory_equal(whole, cut, k);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_property),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
