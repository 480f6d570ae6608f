/*
 * Would catch a list of processors that is read otherwise than it is written,
 * one that names what is not there and is taken, and hostile text that makes
 * the reader run on.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "cpus.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>


static void
allow(cpu_set_t *set, uint32_t n)
{
    uint32_t i;

    CPU_ZERO(set);
    for (i = 0; i < n; i++) {
        CPU_SET(i, set);
    }
}


static void
test_lists(void **state)
{
    static const struct {
        const char *text;
        uint32_t n, v[8];
    } lists[] = {{"", 0, {0}}, {"3", 1, {3}}, {"0-3,8", 5, {0, 1, 2, 3, 8}},
        {"9,1-1,4-6", 5, {9, 1, 4, 5, 6}}, {"007", 1, {7}}};
    cpu_set_t set;
    char err[256];
    cpus_t c;
    size_t i;

    (void) state;
    allow(&set, 10);
    for (i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        assert_int_equal(
            cpus_parse(&c, lists[i].text, &set, err, sizeof(err)), 0);
        assert_int_equal(c.n, lists[i].n);
        assert_memory_equal(c.v, lists[i].v, c.n * sizeof(c.v[0]));
    }
}


static void
test_refused(void **state)
{
    static const struct {
        const char *text, *why;
    } bad[] = {{"a", "\"a\""}, {",", "numbers"}, {"1,", "numbers"},
        {",1", "numbers"}, {"1,,2", "numbers"}, {"1-", "numbers"},
        {"-1", "numbers"}, {"3-1", "numbers"}, {"1 ", "numbers"},
        {" 1", "numbers"}, {"1-2-3", "numbers"}, {"0x1", "numbers"},
        {"+1", "numbers"}, {"10", "found 10"}, {"0-12", "found 10"},
        {"0,3-5,4", "found 4 again"}, {"99999999999999999999", "or more"},
        {"0-99999999999999999999", "found 10"}};
    char err[256], *copy;
    cpu_set_t set;
    cpus_t c;
    size_t i;

    (void) state;
    allow(&set, 10);
    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        copy = strdup(bad[i].text); /* of its own size, for the sanitizers */
        assert_non_null(copy);
        err[0] = '\0';
        assert_int_equal(cpus_parse(&c, copy, &set, err, sizeof(err)), -1);
        assert_non_null(strstr(err, "option cpus"));
        assert_non_null(strstr(err, bad[i].why));
        free(copy);
    }
}


/* As many as there may be, and one more. */
static void
test_most(void **state)
{
    cpu_set_t set;
    char err[256];
    cpus_t c;

    (void) state;
    allow(&set, CPUS_MAX + 1);
    assert_int_equal(cpus_parse(&c, "0-255", &set, err, sizeof(err)), 0);
    assert_int_equal(c.n, CPUS_MAX);
    assert_int_equal(cpus_parse(&c, "0-256", &set, err, sizeof(err)), -1);
    assert_non_null(strstr(err, "at most 256"));
}


/* Whatever the text is, it ends, and what is taken is allowed, each once. */
static void
test_any_text(void **state)
{
    static const char letters[] = "0123456789,,--- x";
    char text[24], err[64];
    uint32_t i, j, k, n, taken = 0;
    uint64_t seed = 1;
    cpu_set_t set;
    cpus_t c;

    (void) state;
    allow(&set, 70);
    for (i = 0; i < 200000; i++) {
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        n = (uint32_t) (seed >> 60) % 8;
        for (j = 0; j < n; j++) {
            seed = seed * 6364136223846793005ull + 1442695040888963407ull;
            text[j] = letters[(seed >> 40) % (sizeof(letters) - 1)];
        }
        text[n] = '\0';
        if (cpus_parse(&c, text, &set, err, sizeof(err)) != 0) {
            continue;
        }
        taken++;
        for (j = 0; j < c.n; j++) {
            assert_true(c.v[j] < 70);
            for (k = 0; k < j; k++) {
                assert_int_not_equal(c.v[j], c.v[k]);
            }
        }
    }
    assert_true(taken > 1000);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_most),
        cmocka_unit_test(test_any_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
