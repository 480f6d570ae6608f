/*
 * Would catch: a process that takes itself for another rank than it was started
 * as, or for the only one.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "group.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char err[512];
static uint32_t rank, ranks;


static int
place(const char *address, int64_t r, int64_t n)
{
    const group_opts_t o = {address, "", r, n, 1000, 1000};

    err[0] = '\0';

    return group_place(&o, &rank, &ranks, err, sizeof(err));
}


static void
test_place(void **state)
{
    (void) state;
    (void) unsetenv("OMPI_COMM_WORLD_RANK");
    (void) unsetenv("PMI_RANK");
    (void) unsetenv("SLURM_PROCID");

    /* without an address nothing counts */
    (void) setenv("OMPI_COMM_WORLD_RANK", "1", 1);
    (void) setenv("OMPI_COMM_WORLD_SIZE", "2", 1);
    assert_int_equal(place("", -1, 4), 0);
    assert_int_equal(rank, 0);
    assert_int_equal(ranks, 1);

    assert_int_equal(place("a:1", -1, 0), 0);
    assert_int_equal(rank, 1);
    assert_int_equal(ranks, 2);
    assert_int_equal(place("a:1", -1, 2), 0);
    assert_int_equal(rank, 1);
    assert_int_equal(place("a:1", 0, 2), 0);
    assert_int_equal(rank, 0);
    assert_int_equal(place("a:1", -1, 3), -1);
    assert_string_equal(
        err, "tensor_parallel is 3, and mpirun has started 2 processes");
    assert_int_equal(place("a:1", 2, 2), -1);
    assert_non_null(strstr(err, "found rank 2 of 2"));

    (void) unsetenv("OMPI_COMM_WORLD_RANK");
    assert_int_equal(place("a:1", 2, 3), 0);
    assert_int_equal(rank, 2);
    assert_int_equal(ranks, 3);
    assert_int_equal(place("a:1", -1, 3), -1);
    assert_non_null(strstr(err, "needs a rank"));
    assert_int_equal(place("a:1", 0, 0), -1);
    assert_int_equal(place("a:1", 0, 1), -1);
    assert_int_equal(place("a:1", 0, 65), -1);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_place),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
