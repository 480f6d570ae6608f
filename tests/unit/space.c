/*
 * Catches a hash that is not the one it is said to be, and names that run
 * into each other.
 */
#include "space.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>


/* The paper's: key 00 01 .. 0f, input 00 01 .. 0e; and that of no input. */
static void
test_reference(void **state)
{
    const uint64_t key[2] = {0x0706050403020100ull, 0x0f0e0d0c0b0a0908ull};
    uint8_t in[15];
    space_part_t part = {in, sizeof(in)};
    size_t i;

    (void) state;
    for (i = 0; i < sizeof(in); i++) {
        in[i] = (uint8_t) i;
    }
    assert_true(space_of(key, &part, 1) == 0xa129ca6149be45e5ull);
    part.len = 8;
    assert_true(space_of(key, &part, 1) == 0x93f5f5799a932462ull);
    part.len = 0;
    assert_true(space_of(key, &part, 1) == 0x726fdb47dd0e0e31ull);
}


static void
test_parts(void **state)
{
    const uint64_t key[2] = {1, 2}, other[2] = {1, 3};
    const uint8_t *t = (const uint8_t *) "abc";
    const space_part_t ab_c[] = {{t, 2}, {t + 2, 1}};
    const space_part_t a_bc[] = {{t, 1}, {t + 1, 2}};
    const space_part_t abc_[] = {{t, 3}, {NULL, 0}};
    const space_part_t _abc[] = {{NULL, 0}, {t, 3}};

    (void) state;
    assert_true(space_of(key, ab_c, 2) == space_of(key, ab_c, 2));
    assert_true(space_of(key, ab_c, 2) != space_of(other, ab_c, 2));
    assert_true(space_of(key, ab_c, 2) != space_of(key, a_bc, 2));
    assert_true(space_of(key, abc_, 2) != space_of(key, _abc, 2));
    assert_true(space_of(key, abc_, 2) != space_of(key, ab_c, 2));
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference),
        cmocka_unit_test(test_parts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
