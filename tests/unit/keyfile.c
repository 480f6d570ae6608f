/*
 * Catches: a key file whose pieces are read otherwise than the whole; a line
 * that is accepted although it is wrong, or named with the wrong number; a key
 * that is found under another digest, or lost when the tables grow; a day that
 * is a second off.
 */
#include "keyfile.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define HEX0 "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF"
#define HEX1 "10112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define HEX2 "00112233445566778899aabbccddeeff00112233445566778899aabbccddeefe"

/* Reads text in pieces of at most step bytes; NULL and err if it is refused. */
static llm_keyfile_t *
read_by(const char *text, size_t len, size_t step, char *err)
{
    llm_keyfile_t *kf = llm_keyfile_create();
    size_t at, n;

    assert_non_null(kf);
    err[0] = '\0';
    for (at = 0; at < len; at += n) {
        n = len - at < step ? len - at : step;
        if (llm_keyfile_feed(kf, text + at, n, err) < 0) {
            llm_keyfile_free(kf);
            return NULL;
        }
    }
    if (llm_keyfile_end(kf, err) < 0) {
        llm_keyfile_free(kf);
        return NULL;
    }
    return kf;
}


static void
digest_of(const char *hex, uint8_t *digest)
{
    unsigned v;
    int i;

    for (i = 0; i < LLM_KEY_DIGEST; i++) {
        assert_int_equal(sscanf(hex + 2 * i, "%2x", &v), 1);
        digest[i] = (uint8_t) v;
    }
}


static void
a_file(void **state)
{
    static const char text[] =
        "# a comment\n\n" HEX0
        " prod-1 acme expires=2027-01-31 models=small,large\r\n"
        "   \t\n"
        "\t" HEX1 "\tci:2   acme.test\n" HEX2 " x y models=one";
    char err[LLM_KEYFILE_ERR];
    const llm_key_t *key;
    llm_keyfile_t *kf;
    uint8_t digest[LLM_KEY_DIGEST];
    size_t step;

    (void) state;
    for (step = 1; step < sizeof(text); step++) {
        kf = read_by(text, sizeof(text) - 1, step, err);
        assert_string_equal(err, "");
        assert_int_equal(llm_keyfile_count(kf), 3);

        digest_of(HEX0, digest);
        key = llm_keyfile_find(kf, digest);
        assert_ptr_equal(key, llm_keyfile_row(kf, 0));
        assert_string_equal(key->id, "prod-1");
        assert_string_equal(key->tenant, "acme");
        assert_int_equal(key->line, 3);
        assert_int_equal(key->expires, 1801353600);
        assert_true(llm_key_model(key, "small", 5));
        assert_true(llm_key_model(key, "large", 5));
        assert_false(llm_key_model(key, "larg", 4));
        assert_false(llm_key_model(key, "small,large", 11));
        assert_false(llm_key_model(key, "", 0));

        digest_of(HEX1, digest);
        key = llm_keyfile_find(kf, digest);
        assert_string_equal(key->id, "ci:2");
        assert_string_equal(key->tenant, "acme.test");
        assert_int_equal(key->expires, 0);
        assert_true(llm_key_model(key, "whatever", 8));

        digest_of(HEX2, digest);
        key = llm_keyfile_find(kf, digest);
        assert_true(llm_key_model(key, "one", 3));
        assert_int_equal(key->line, 6);

        digest[31] ^= 1;
        digest[1] ^= 1;
        assert_null(llm_keyfile_find(kf, digest));
        llm_keyfile_free(kf);
    }
}


/* What is wrong, on which line, and a part of the sentence. */
static const struct {
    const char *text;
    const char *err;
} WRONG[] = {{HEX0 " a\n", "line 1: a key's digest"},
    {"\n\n" HEX0 "\n", "line 3: a key's digest"},
    {"0011 a b\n", "line 1: the first word is not a SHA-256"},
    {HEX0 "0 a b\n", "line 1: the first word is not a SHA-256"},
    {"g" HEX0 " a b\n", "SHA-256"},
    {"g0112233445566778899aabbccddeeff00112233445566778899aabbccddeeff a b",
        "SHA-256"},
    {HEX0 " a/b c\n", "an id or a tenant"},
    {HEX0 " a b\xc3\xa4\n", "an id or a tenant"},
    {HEX0 " a 1234567890123456789012345678901234567890123456789012345678901234"
          "5\n",
        "an id or a tenant"},
    {HEX0 " a b c\n", "behind the tenant"},
    {HEX0 " a b expires=\n", "behind the tenant"},
    {HEX0 " a b models=\n", "behind the tenant"},
    {HEX0 " a b models=x models=y\n", "behind the tenant"},
    {HEX0 " a b expires=2027-01-31 expires=2027-01-31\n", "behind the tenant"},
    {HEX0 " a b models=x expires=2027-01-31 z\n", "more than 5 words"},
    {HEX0 " a b models=,x\n", "empty name"},
    {HEX0 " a b models=x,\n", "empty name"},
    {HEX0 " a b models=x,,y\n", "empty name"},
    {HEX0 " a b expires=2027-02-29\n", "expires is not"},
    {HEX0 " a b expires=2100-02-29\n", "expires is not"},
    {HEX0 " a b expires=2027-13-01\n", "expires is not"},
    {HEX0 " a b expires=2027-00-01\n", "expires is not"},
    {HEX0 " a b expires=2027-01-00\n", "expires is not"},
    {HEX0 " a b expires=2027-04-31\n", "expires is not"},
    {HEX0 " a b expires=1969-04-30\n", "expires is not"},
    {HEX0 " a b expires=2027-1-31\n", "expires is not"},
    {HEX0 " a b expires=2027-01-31T24:00:00Z\n", "expires is not"},
    {HEX0 " a b expires=2027-01-31T12:60:00Z\n", "expires is not"},
    {HEX0 " a b expires=2027-01-31T12:00:60Z\n", "expires is not"},
    {HEX0 " a b expires=2027-01-31T12:00:00+\n", "expires is not"},
    {HEX0 " a b expires=2027-01-31 12:00:00Z\n", "behind the tenant"},
    {HEX0 " a b expires=never\n", "expires is not"},
    {HEX0 " a b\n" HEX1 " a b\n", "line 2: the id \"a\" is on line 1"},
    {HEX0 " a b\n\n" HEX0 " b b\n", "line 3: the same key is on line 1"}};

static void
wrong_lines(void **state)
{
    char err[LLM_KEYFILE_ERR];
    size_t i, step;

    (void) state;
    for (i = 0; i < sizeof(WRONG) / sizeof(WRONG[0]); i++) {
        for (step = 1; step < 300; step += 7) {
            assert_null(
                read_by(WRONG[i].text, strlen(WRONG[i].text), step, err));
            if (!strstr(err, WRONG[i].err)) {
                fail_msg("%s: %s", WRONG[i].text, err);
            }
        }
    }
    assert_null(read_by("ab\0cd\n", 6, 2, err));
    assert_string_equal(err, "line 1: it holds a zero byte");
}


static void
long_lines(void **state)
{
    static char text[LLM_KEY_LINE_MAX + 2];
    char err[LLM_KEYFILE_ERR];
    llm_keyfile_t *kf;
    size_t step;

    (void) state;
    for (step = 1; step < sizeof(text); step = step * 3 + 1) {
        memset(text, '#', sizeof(text));
        kf = read_by(text, LLM_KEY_LINE_MAX, step, err);
        assert_non_null(kf);
        llm_keyfile_free(kf);
        text[0] = '\n';
        assert_null(read_by(text, sizeof(text), step, err));
        assert_string_equal(err, "line 2: it is longer than 4096 bytes");
    }
}


static void
many_keys(void **state)
{
    enum { N = 20000 };

    llm_keyfile_t *kf = llm_keyfile_create();
    char err[LLM_KEYFILE_ERR], line[200];
    uint8_t digest[LLM_KEY_DIGEST];
    const llm_key_t *key;
    uint32_t i;
    int n;

    (void) state;
    for (i = 0; i < N; i++) {
        /* the tables' hash sees only a few values */
        n = snprintf(line, sizeof(line), "%08x%048x%08x id%u t%u\n", i % 7, 0,
            i, i, i % 10);
        assert_int_equal(llm_keyfile_feed(kf, line, (size_t) n, err), 0);
        if (i == 2000) {
            break;
        }
    }
    for (i = 2001; i < N; i++) {
        n = snprintf(line, sizeof(line), "%08x%048x%08x id%u t%u\n",
            i * 2654435761u, 0, i, i, i % 10);
        assert_int_equal(llm_keyfile_feed(kf, line, (size_t) n, err), 0);
    }
    assert_int_equal(llm_keyfile_end(kf, err), 0);
    assert_int_equal(llm_keyfile_count(kf), N);
    for (i = 0; i < N; i++) {
        snprintf(line, sizeof(line), "%08x%048x%08x",
            i <= 2000 ? i % 7 : i * 2654435761u, 0, i);
        digest_of(line, digest);
        key = llm_keyfile_find(kf, digest);
        assert_ptr_equal(key, llm_keyfile_row(kf, i));
        assert_int_equal(strtoul(key->id + 2, NULL, 10), i);
    }
    llm_keyfile_free(kf);
    llm_keyfile_free(NULL);
}


/* Every day of four centuries, against the C library. */
static void
days(void **state)
{
    char err[LLM_KEYFILE_ERR], line[200];
    llm_keyfile_t *kf;
    struct tm tm;
    time_t t;
    int n;

    (void) state;
    for (t = 365 * 86400; t < (time_t) 146097 * 86400; t += 86400 * 5 + 3601) {
        kf = llm_keyfile_create();
        gmtime_r(&t, &tm);
        n = snprintf(line, sizeof(line),
            HEX0 " a b expires=%04d-%02d-%02dT%02d:%02d:%02dZ",
            tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min,
            tm.tm_sec);
        assert_int_equal(llm_keyfile_feed(kf, line, (size_t) n, err), 0);
        assert_int_equal(llm_keyfile_end(kf, err), 0);
        assert_int_equal(llm_keyfile_row(kf, 0)->expires, t);
        llm_keyfile_free(kf);
    }
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file),
        cmocka_unit_test(wrong_lines),
        cmocka_unit_test(long_lines),
        cmocka_unit_test(many_keys),
        cmocka_unit_test(days),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
