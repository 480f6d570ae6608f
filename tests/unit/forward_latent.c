/*
 * Would catch: a head that gets another's matrix, or keys that are not turned
 * over, when the matrix that makes keys and values of a latent is taken apart;
 * values that are not the file's bits, or keys further from the file's than
 * rounding to BF16, of any type of tensor; F8 whose factors of blocks end in
 * the middle of a head; bytes converted that are not told.
 */
#include "../kernels/guard.h"

#include "forward_latent.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { HEADS = 3, LATENT = 256, KEY = 20, VALUE = 13 };

#define ROWS (HEADS * (KEY + VALUE))

static const model_info_t info = {
    .heads = HEADS, .latent = LATENT, .key_dim = KEY, .value_dim = VALUE};

/* What an element of the result is, as a float. */
static float
element(const tensor_t *t, uint64_t row, uint64_t col)
{
    float v, some[LATENT];
    uint64_t bytes = t->size / t->dims[1];
    const uint8_t *p = t->data + row * bytes;

    if (tensor_is_plain(t->type)) {
        p += col * tensor_block_bytes(t->type);
        tensor_plain(t->type, p, 1, &v);
        return v;
    }

    kernels_dequant(kernels_type(tensor_type_name(t->type)), some, p, LATENT);
    return some[col];
}

/* One head's matrices against the rows of want [ROWS, LATENT]. */
static void
check_head(const forward_latent_t *l, const float *want, uint32_t h, int exact)
{
    uint32_t i, j;
    const float *row;
    float v, worst = exact ? 0 : 1.0f / 256;

    for (i = 0; i < KEY + VALUE; i++) {
        row = want + (size_t) (h * (KEY + VALUE) + i) * LATENT;

        for (j = 0; j < LATENT; j++) {
            if (i < KEY) {
                v = element(&l->k, h * LATENT + j, i);
                assert_true(fabsf(v - row[j]) <= worst * fabsf(row[j]));
            } else {
                v = element(&l->v, h * VALUE + i - KEY, j);
                assert_true(l->v.type == TENSOR_BF16 && !exact
                                ? fabsf(v - row[j]) <= worst * fabsf(row[j])
                                : v == row[j]);
            }
        }
    }
}

static void
check(const tensor_t *t, const float *want, int exact, uint32_t v_type)
{
    uint32_t h;
    char err[256];
    forward_latent_t l, blind;

    assert_true(forward_latent_open(&l, t, &info, 0, err, sizeof(err)));
    assert_int_equal(l.k.dims[0], KEY);
    assert_int_equal(l.k.dims[1], HEADS * LATENT);
    assert_int_equal(l.v.dims[0], LATENT);
    assert_int_equal(l.v.dims[1], HEADS * VALUE);
    assert_int_equal(l.v.type, v_type);

    for (h = 0; h < HEADS; h++) {
        check_head(&l, want, h, exact);
    }

    assert_int_equal(l.converted, (l.k.type == t->type ? 0 : l.k.size)
                                      + (l.v.type == t->type ? 0 : l.v.size));
    assert_int_equal(l.rounded, exact ? 0 : l.converted);
    assert_true(forward_latent_open(&blind, t, &info, 1, err, sizeof(err)));
    assert_true(blind.k.size == l.k.size && blind.v.size == l.v.size);
    assert_true(blind.k.data == NULL && blind.v.data == NULL);
    assert_true(blind.converted == l.converted && blind.rounded == l.rounded);
    forward_latent_close(&blind);
    forward_latent_close(&l);
}

/* The file's number of a kernels' type. */
static uint32_t
number_of(uint32_t type)
{
    return (uint32_t) tensor_type_find(
        type_name(type), strlen(type_name(type)));
}

static void
types(void **state)
{
    uint32_t type;
    uint64_t seed = 5;
    guard_t g;
    float *want = malloc(ROWS * LATENT * sizeof(*want));
    tensor_t t;

    (void) state;
    assert_non_null(want);

    for (type = 0; type < KN_TYPES; type++) {
        t = (tensor_t){.name = {"kv_b", 4},
            .type = number_of(type),
            .dims_n = 2,
            .dims = {LATENT, ROWS, 1, 1}};
        assert_true(tensor_set_size(&t));
        t.data = guard_open(&g, t.size);
        rnd_weights(&seed, type, g.p, ROWS * LATENT);
        kernels_dequant(type, want, t.data, ROWS * LATENT);
        check(&t, want, type <= KN_BF16, t.type);
        guard_close(&g);
    }

    free(want);
}

/* 99 rows and 256 columns: blocks of 128 that no head begins with. */
static void
f8(void **state)
{
    uint32_t i, row, factors;
    uint64_t seed = 9;
    float factor[2] = {0.37f, 1.9f};
    float *want = malloc(ROWS * LATENT * sizeof(*want));
    guard_t g;
    tensor_t scale = {.type = TENSOR_F32,
        .dims_n = 2,
        .dims = {2, 1, 1, 1},
        .size = sizeof(factor),
        .data = (const uint8_t *) factor};
    const tensor_lay_t lay = {.scale = &scale};
    tensor_t t = {.name = {"kv_b", 4},
        .type = TENSOR_F8_E4M3,
        .dims_n = 2,
        .dims = {LATENT, ROWS, 1, 1}};

    (void) state;
    assert_non_null(want);
    assert_true(tensor_set_size(&t));
    t.data = guard_open(&g, t.size);

    for (i = 0; i < t.size; i++) {
        ((uint8_t *) g.p)[i] = (uint8_t) (rnd(&seed) & 0xfe); /* no NaN */
    }

    for (factors = 0; factors < 2; factors++) {
        t.lay = factors ? &lay : NULL;
        tensor_plain(t.type, t.data, ROWS * LATENT, want);

        for (row = 0; factors && row < ROWS; row++) {
            for (i = 0; i < LATENT; i++) {
                want[row * LATENT + i] *= factor[i / 128];
            }
        }

        check(&t, want, !factors, TENSOR_BF16);
    }

    guard_close(&g);
    free(want);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(types),
        cmocka_unit_test(f8),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
