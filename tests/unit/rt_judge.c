/*
 * Would catch: a machine whose GPU will not do and that is not told so, or not
 * why; a driver that is refused for its minor version.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "cuda/rt_judge.h"

#include <string.h>

#define CASES (sizeof(cases) / sizeof(cases[0]))

static const struct {
    rt_found_t found;
    const char *says; /* NULL: it will do */
} cases[] = {
    {{0, 13000, 0, 0, 0, "", "CUDA driver version is insufficient"},
        "no NVIDIA driver"},
    {{12040, 13000, 0, 0, 0, "", "CUDA driver version is insufficient"},
        "the driver is for CUDA 12.4, and one for 13.0 or later"},
    {{13000, 13000, 0, 0, 0, "", NULL}, "this machine has no GPU"},
    {{13000, 13000, 0, 0, 0, "", "no CUDA-capable device is detected"},
        "no GPU (no CUDA-capable device is detected)"},
    {{13000, 13000, 1, 7, 5, "Tesla T4", NULL},
        "expected compute capability 8.0 or more, found 7.5 (Tesla T4)"},
    {{13000, 13000, 1, 9, 0, "H200", "all devices are busy"},
        "cannot be used: all devices are busy"},
    {{13000, 13000, 1, 0, 0, "", "unknown error"},
        "cannot be used: unknown error"},
    {{13000, 13010, 1, 8, 0, "A100", NULL}, NULL},
    {{14000, 13010, 2, 12, 0, "RTX", NULL}, NULL},
};

static void
test_sentences(void **state)
{
    char err[400];
    size_t i;

    (void) state;

    for (i = 0; i < CASES; i++) {
        memset(err, 0, sizeof(err));
        assert_int_equal(rt_judge(&cases[i].found, err, sizeof(err)),
            cases[i].says == NULL ? 0 : -1);

        if (cases[i].says != NULL) {
            assert_non_null(strstr(err, cases[i].says));
            assert_null(strchr(err, '\n'));
            assert_ptr_equal(strstr(err, "device cuda: "), err);
        }
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sentences)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
