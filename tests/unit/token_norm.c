/*
 * Would catch: a normal form that is not Unicode's, marks in another order,
 * bytes that are no characters lost or changed, a character map that is read
 * beyond its end.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "token_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void
becomes(const token_norm_t *n, const char *text, const char *want)
{
    token_buf_t b = {NULL, 0, 0};

    assert_int_equal(token_norm_run(n, text, strlen(text), &b), 0);
    if (b.n != strlen(want) || (b.n > 0 && memcmp(b.p, want, b.n) != 0)) {
        fail_msg("\"%s\" becomes \"%.*s\", expected \"%s\"", text, (int) b.n,
            b.n > 0 ? b.p : "", want);
    }
    free(b.p);
}

static void
form(int kind, const char *text, const char *want)
{
    token_norm_t *n = NULL;

    assert_int_equal(token_norm_add(&n, kind, NULL, "", 0, NULL), 0);
    becomes(n, text, want);
    token_norm_close(n);
}

static void
test_forms(void **state)
{
    (void) state;
    form(TOKEN_NORM_NFC, "plain", "plain");
    form(TOKEN_NORM_NFC, "e\xcc\x81", "\xc3\xa9");
    form(TOKEN_NORM_NFC, "longer than eight e\xcc\x81 bytes",
        "longer than eight \xc3\xa9 bytes");
    form(TOKEN_NORM_NFD, "x\xc3\xa9y", "xe\xcc\x81y");
    form(TOKEN_NORM_NFKC, "\xef\xac\x81\xc2\xb2", "fi2");
    form(TOKEN_NORM_NFKD, "\xe1\xba\x9b\xcc\xa3", "s\xcc\xa3\xcc\x87");
    form(TOKEN_NORM_NFC, "\xe2\x80\x9cq\xe2\x80\x9d",
        "\xe2\x80\x9cq\xe2\x80\x9d");
    /* marks by class: a dot below before an acute above */
    form(TOKEN_NORM_NFD, "a\xcc\x81\xcc\xa3", "a\xcc\xa3\xcc\x81");
    form(TOKEN_NORM_NFC, "a\xcc\x81\xcc\xa3", "\xe1\xba\xa1\xcc\x81");
    /* Hangul is computed */
    form(
        TOKEN_NORM_NFC, "\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8", "\xea\xb0\x81");
    form(
        TOKEN_NORM_NFD, "\xea\xb0\x81", "\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8");
    /* excluded from composition; and one that decomposes for ever */
    form(TOKEN_NORM_NFC, "\xe0\xa5\x98", "\xe0\xa4\x95\xe0\xa4\xbc");
    form(TOKEN_NORM_NFC, "\xe2\x84\xab", "\xc3\x85");
    /* a mark at the beginning, and after what takes none */
    form(TOKEN_NORM_NFC, "\xcc\x81", "\xcc\x81");
    form(TOKEN_NORM_NFC, "\xe4\xb8\x96\xcc\x81 e\xcc\x81",
        "\xe4\xb8\x96\xcc\x81 \xc3\xa9");
    form(TOKEN_NORM_NFC, "", "");
}

/* Each stretch between bytes that are none is a text of its own. */
static void
test_invalid(void **state)
{
    (void) state;
    form(TOKEN_NORM_NFC, "e\xff\xcc\x81", "e\xff\xcc\x81");
    form(TOKEN_NORM_NFC,
        "\xff"
        "e\xcc\x81\xe2\x82",
        "\xff\xc3\xa9\xe2\x82");
    form(TOKEN_NORM_LOWER,
        "A\xff"
        "B",
        "a\xff"
        "b");
    form(TOKEN_NORM_ACCENTS, "a\xcc\x81\xff", "a\xff");
}

static void
test_letters(void **state)
{
    (void) state;
    form(TOKEN_NORM_LOWER, "\xc3\x89T\xc4\xb0", "\xc3\xa9ti\xcc\x87");
    form(TOKEN_NORM_STRIP_LEFT, " \t\xe3\x80\x80 a b ", "a b ");
    form(TOKEN_NORM_STRIP_RIGHT, " a b \xc2\xa0\n", " a b");
    form(TOKEN_NORM_STRIP_LEFT, "  ", "");
    form(TOKEN_NORM_STRIP_RIGHT, "  ", "");
}


/* --- character maps ----------------------------------------------------- */

/*
 * A becomes b: unit 65 is A's, 64 its value.  AA becomes nothing: from 64 by
 * A it is 1, whose value is 2.
 */
static size_t
map_make(uint8_t *p)
{
    uint32_t units[128] = {0}, size = sizeof(units);

    units[65] = 'A' | 1u << 8 | 1u << 10;
    units[64] = 1u << 31;
    /* from 64 by A: 64 ^ 65 is 1 */
    units[1] = 'A' | 1u << 8 | 3u << 10;
    units[2] = 1u << 31 | 2;
    memcpy(p, &size, 4);
    memcpy(p + 4, units, size);
    memcpy(p + 4 + size, "b\0\0", 3);

    return 4 + size + 3;
}

static void
maps(const token_charsmap_t *m, int graphemes, const char *text,
    const char *want)
{
    token_buf_t b = {NULL, 0, 0};

    assert_int_equal(
        token_charsmap_run(m, graphemes, text, strlen(text), &b), 0);
    if (b.n != strlen(want) || (b.n > 0 && memcmp(b.p, want, b.n) != 0)) {
        fail_msg("\"%s\" becomes \"%.*s\", expected \"%s\"", text, (int) b.n,
            b.n > 0 ? b.p : "", want);
    }
    free(b.p);
}

static void
test_map(void **state)
{
    uint8_t p[1024];
    size_t len = map_make(p);
    const char *why;
    token_charsmap_t *m = token_charsmap_open(p, len, &why);

    (void) state;
    assert_non_null(m);
    maps(m, 0, "xAy", "xby");
    maps(m, 0, "AAA", "b"); /* the longest, then what is left */
    maps(m, 0,
        "\xff"
        "A",
        "\xff"
        "b");
    maps(m, 1, "AAA", "bbb");     /* a character at a time */
    maps(m, 1, "A\xcc\x81", "b"); /* which is all replaced */
    maps(m, 1, "e\xcc\x81", "e\xcc\x81");
    token_charsmap_close(m);
}

/* Any bytes at all: nothing is read beyond them. */
static void
test_map_damaged(void **state)
{
    static const char text[] = "AAxA\xcc\x81"
                               "AAAA\xff";
    uint8_t p[1024], *q;
    size_t len = map_make(p), n;
    uint32_t seed = 3, rounds, k;
    token_charsmap_t *m;
    const char *why;

    (void) state;
    for (rounds = 0; rounds < 5000; rounds++) {
        seed = seed * 1664525u + 1013904223u;
        n = seed & 1 ? len : (seed >> 8) % len;
        q = malloc(n + 1);
        assert_non_null(q);
        memcpy(q, p, n);
        for (k = 0; k < 8 && n > 0; k++) {
            seed = seed * 1664525u + 1013904223u;
            /* mostly where something is */
            q[(seed >> 8)
                % (seed & 1   ? n
                    : n < 280 ? n
                              : 280)] = (uint8_t) (seed >> 24);
        }
        m = token_charsmap_open(q, n, &why);
        if (m != NULL) {
            token_buf_t b = {NULL, 0, 0};

            (void) token_charsmap_run(m, 0, text, sizeof(text) - 1, &b);
            (void) token_charsmap_run(m, 1, text, sizeof(text) - 1, &b);
            free(b.p);
        } else {
            assert_non_null(why);
        }
        token_charsmap_close(m);
        free(q);
    }
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_invalid),
        cmocka_unit_test(test_letters),
        cmocka_unit_test(test_map),
        cmocka_unit_test(test_map_damaged),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
