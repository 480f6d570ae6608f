/*
 * What tests/kernels/ops.c uses of cmocka, for a machine that has none: the
 * first check that fails ends its test, which is said, and the next one runs.
 */
#ifndef GPU_CMOCKA_H
#define GPU_CMOCKA_H

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*test)(void **state);
    void *setup, *teardown;
    void *state;
};

static jmp_buf cmocka_out; /* 1: failed, 2: skipped */

#define print_message(...) (void) fprintf(stderr, __VA_ARGS__)

#define fail_msg(...)                                                          \
    do {                                                                       \
        print_message("%s:%d: ", __FILE__, __LINE__);                          \
        print_message(__VA_ARGS__);                                            \
        print_message("\n");                                                   \
        longjmp(cmocka_out, 1);                                                \
    } while (0)

#define skip() longjmp(cmocka_out, 2)

#define assert_true(c)                                                         \
    do {                                                                       \
        if (!(c)) {                                                            \
            fail_msg("not so: %s", #c);                                        \
        }                                                                      \
    } while (0)

#define assert_non_null(p) assert_true((p) != NULL)

#define assert_int_equal(a, b)                                                 \
    do {                                                                       \
        if ((unsigned long long) (a) != (unsigned long long) (b)) {            \
            fail_msg("%s is %lld, not %s, %lld", #a, (long long) (a), #b,      \
                (long long) (b));                                              \
        }                                                                      \
    } while (0)

#define assert_memory_equal(a, b, n)                                           \
    do {                                                                       \
        if (memcmp(a, b, n) != 0) {                                            \
            fail_msg("%s and %s differ", #a, #b);                              \
        }                                                                      \
    } while (0)

/* Runs the tests; how many failed. */
static inline int
_cmocka_run_group_tests(const char *group, const struct CMUnitTest *tests,
    size_t n, void *setup, void *teardown)
{
    /* volatile: they live across a longjmp */
    volatile size_t i;
    volatile int failed = 0, skipped = 0;
    void *state;
    int how;

    (void) setup;
    (void) teardown;
    for (i = 0; i < n; i++) {
        how = setjmp(cmocka_out);
        if (how == 0) {
            state = tests[i].state;
            tests[i].test(&state);
        }
        failed += how == 1;
        skipped += how == 2;
        printf("%s %s\n",
            how == 0   ? "ok"
            : how == 1 ? "FAILED"
                       : "skipped",
            tests[i].name);
        (void) fflush(stdout);
    }
    printf("%s: %zu passed, %d failed, %d skipped\n", group,
        n - (size_t) (failed + skipped), failed, skipped);

    return failed;
}

#endif
