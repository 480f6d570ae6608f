/*
 * Would catch: a nibble of MXFP4 that goes to another place on the way from
 * safetensors to the kernels, an exponent that goes to another block, a row or
 * an element that is another's in a matrix that is not dense, bytes read
 * beyond it; blocks and scales that do not belong together and are joined; a
 * damaged checkpoint that is taken for more than its bytes.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "kernels.h"
#include "model_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const float e2m1[] = {
    0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};

static uint64_t
rnd(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return *x;
}

/* n random bytes of their own memory, so that what is beyond is noticed. */
static uint8_t *
bytes(uint64_t *seed, size_t n)
{
    uint8_t *p = malloc(n);
    size_t i;

    assert_non_null(p);

    for (i = 0; i < n; i++) {
        p[i] = (uint8_t) (rnd(seed) >> 32);
    }

    return p;
}

/* Every step-th row of rows, from the first one on. */
static void
check_blocks(uint32_t blocks, uint32_t rows, uint32_t step)
{
    uint64_t seed = blocks * 100 + rows * 10 + step;
    uint32_t i, row, e, k = blocks * 32, n = (rows + step - 1) / step;
    uint8_t *q = bytes(&seed, (size_t) rows * blocks * 16);
    uint8_t *exps = bytes(&seed, (size_t) rows * blocks);
    tensor_lay_t lay = {.row_step = step * blocks * 16, .exps = exps};
    tensor_t t = {.type = TENSOR_MXFP4,
        .dims_n = 2,
        .dims = {k, n, 1, 1},
        .data = q,
        .lay = &lay};
    uint8_t *made;
    float *got, want;

    assert_true(tensor_set_size(&t));
    assert_false(tensor_is_dense(&t));
    assert_int_equal(
        tensor_extent(&t), ((uint64_t) (n - 1) * step + 1) * blocks * 16);
    made = malloc(t.size);
    got = malloc((size_t) n * k * sizeof(*got));
    assert_true(made != NULL && got != NULL);
    tensor_dense(&t, made);
    kernels_dequant(KN_MXFP4, got, made, (uint64_t) n * k);

    for (row = 0; row < n; row++) {
        for (i = 0; i < k; i++) {
            e = row * step * blocks + i / 32;
            want = ldexpf(
                e2m1[q[e * 16 + i % 32 / 2] >> i % 2 * 4 & 15], exps[e] - 127);
            assert_true(got[row * k + i] == want);
        }
    }

    free(q);
    free(exps);
    free(made);
    free(got);
}

static void
blocks(void **state)
{
    uint32_t b, rows, step;

    (void) state;

    for (b = 1; b < 4; b++) {
        for (rows = 1; rows < 20; rows++) {
            for (step = 1; step < 3; step++) {
                check_blocks(b, rows, step);
            }
        }
    }
}

/* Every step-th column of a matrix whose rows are inputs. */
static void
check_across(uint32_t type, uint32_t size, uint32_t k, uint32_t n, int step)
{
    uint64_t seed = k * 100 + n * 10 + size;
    uint32_t i, row, columns = n * (uint32_t) step;
    uint8_t *p = bytes(&seed, (size_t) k * columns * size), *made;
    tensor_lay_t lay = {
        .row_step = (uint32_t) step * size, .elem_step = columns * size};
    tensor_t t = {.type = type,
        .dims_n = 2,
        .dims = {k, n, 1, 1},
        .data = p + (step - 1) * size,
        .lay = &lay};

    assert_true(tensor_set_size(&t));
    assert_true(t.data + tensor_extent(&t) == p + (size_t) k * columns * size);
    made = malloc(t.size);
    assert_non_null(made);
    tensor_dense(&t, made);

    for (row = 0; row < n; row++) {
        for (i = 0; i < k; i++) {
            assert_memory_equal(made + (row * k + i) * size,
                p + (i * columns + row * step + step - 1) * size, size);
        }
    }

    free(p);
    free(made);
}

static void
across(void **state)
{
    uint32_t k, n;
    int step;

    (void) state;

    for (k = 1; k < 40; k += 7) {
        for (n = 1; n < 40; n++) {
            for (step = 1; step < 3; step++) {
                check_across(TENSOR_F32, 4, k, n, step);
                check_across(TENSOR_BF16, 2, k, n, step);
                check_across(TENSOR_F8_E4M3, 1, k, n, step);
            }
        }
    }
}

/* Rows that stand alone with others between them. */
static void
rows_apart(void **state)
{
    float p[5][3] = {{1, 2, 3}, {0}, {4, 5, 6}, {0}, {7, 8, 9}};
    float made[9];
    uint32_t i;
    tensor_lay_t lay = {.row_step = 2 * sizeof(p[0])};
    tensor_t t = {.type = TENSOR_F32,
        .dims_n = 2,
        .dims = {3, 3, 1, 1},
        .size = sizeof(made),
        .data = (const uint8_t *) p,
        .lay = &lay};

    (void) state;
    tensor_dense(&t, made);

    for (i = 0; i < 9; i++) {
        assert_true(made[i] == (float) (i + 1));
    }
}

static tensor_t
named(const char *name, uint32_t type, uint64_t a, uint64_t b, uint64_t c,
    uint64_t d)
{
    static const uint8_t data[1 << 16];
    tensor_t t = {.name = {name, strlen(name)},
        .type = type,
        .dims_n = 4,
        .dims = {a, b, c, d},
        .data = data};

    assert_true(tensor_set_size(&t) && t.size <= sizeof(data));
    return t;
}

static void
joined(void **state)
{
    char err[256];
    uint32_t n;
    tensor_t *got, list[] = {
                       named("a_blocks", TENSOR_U8, 16, 3, 6, 2),
                       named("a_scales", TENSOR_U8, 3, 6, 2, 1),
                       named("a_other", TENSOR_F32, 5, 1, 1, 1),
                       named("b_scales", TENSOR_U8, 3, 6, 2, 1),
                   };

    (void) state;
    qsort(list, 4, sizeof(list[0]), tensor_by_name);
    got = model_mxfp4_join(list, 4, &n, "file", err, sizeof(err));
    assert_non_null(got);
    assert_int_equal(n, 3); /* scales without blocks are left over */
    assert_non_null(tensor_find(got, n, "b_scales"));
    assert_non_null(tensor_find(got, n, "a_other"));
    assert_ptr_equal(tensor_find(got, n, "a"), got);
    assert_int_equal(got->type, TENSOR_MXFP4);
    assert_int_equal(got->dims[0], 96);
    assert_int_equal(got->dims[1], 6);
    assert_int_equal(got->dims[2], 2);
    assert_int_equal(got->dims[3], 1);
    assert_int_equal(got->size, 3 * 6 * 2 * 17);
    assert_int_equal(got->lay->row_step, 48);
    assert_non_null(got->lay->exps);
    free(got);
}

/* Scales that blocks a of dims 16, 3, 6, 2 must not have, and other blocks. */
static void
refused(void **state)
{
    size_t i;
    char err[256];
    uint32_t n = 0;
    struct {
        tensor_t blocks, scales;
        const char *words;
    } cases[] = {
#define GOOD   named("a_blocks", TENSOR_U8, 16, 3, 6, 2)
#define SCALES named("a_scales", TENSOR_U8, 3, 6, 2, 1)
        {GOOD, named("b_scales", TENSOR_U8, 3, 6, 2, 1), "found none"},
        {GOOD, named("a_scales", TENSOR_I8, 3, 6, 2, 1), "found another type"},
        {GOOD, named("a_scales", TENSOR_U8, 4, 6, 2, 1), "found another type"},
        {GOOD, named("a_scales", TENSOR_U8, 3, 5, 2, 1), "found another type"},
        {GOOD, named("a_scales", TENSOR_U8, 3, 6, 1, 1), "found another type"},
        {GOOD, named("a_scales", TENSOR_U8, 3, 6, 2, 2), "found another type"},
        {named("a_blocks", TENSOR_U8, 8, 3, 6, 2), SCALES, "another type"},
        {named("a_blocks", TENSOR_F16, 16, 3, 6, 2), SCALES, "another type"},
        {named("a_blocks", TENSOR_U8, 16, 0, 6, 2),
            named("a_scales", TENSOR_U8, 0, 6, 2, 1), "another type"},
        {named("a_blocks", TENSOR_U8, 16, 3, 0, 2),
            named("a_scales", TENSOR_U8, 3, 0, 2, 1), "another type"},
        {named("a_blocks", TENSOR_U8, 16, (1 << 24) + 1ull, 0, 2),
            named("a_scales", TENSOR_U8, (1 << 24) + 1ull, 0, 2, 1),
            "another type"},
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        tensor_t list[2] = {cases[i].blocks, cases[i].scales};

        err[0] = '\0';
        assert_null(model_mxfp4_join(list, 2, &n, "file", err, sizeof(err)));
        assert_non_null(strstr(err, "file: tensor \"a_blocks\": expected"));
        assert_non_null(strstr(err, cases[i].words));
    }
}

/* A file of the golden checkpoints, in as much memory as it has bytes. */
static uint8_t *
read_file(const char *name, const char *file, size_t *len)
{
    char path[128];
    uint8_t *p;
    FILE *f;

    snprintf(path, sizeof(path), "tests/data/models/%s/%s", name, file);
    f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    *len = (size_t) ftell(f);
    rewind(f);
    p = malloc(*len);
    assert_non_null(p);
    assert_int_equal(fread(p, 1, *len, f), *len);
    fclose(f);
    return p;
}

/* Every byte of what loading makes of one; a sum, so that it is made. */
static unsigned
made_of(const tensor_t *t)
{
    uint8_t *p;
    unsigned sum;

    if (tensor_is_dense(t)) {
        return t->data[0] + t->data[t->size - 1];
    }

    p = malloc(t->size);
    assert_non_null(p);
    tensor_dense(t, p);
    sum = p[0] + p[t->size - 1];
    free(p);
    return sum;
}

static unsigned
made_of_all(const model_t *m)
{
    uint32_t i, e;
    unsigned sum = 0;
    const model_layer_t *l;

    for (i = 0; i < model_info(m)->layers; i++) {
        l = model_layer(m, i);
        sum += made_of(l->experts_gate_bias) + made_of(l->experts_up_bias);
        sum += made_of(l->experts_down_bias) + made_of(l->sinks);

        for (e = 0; e < model_info(m)->experts; e++) {
            sum += made_of(l->experts_gate[e]) + made_of(l->experts_up[e]);
            sum += made_of(l->experts_down[e]);
        }
    }

    return sum;
}

/* Some bytes of the configuration and of the weights' table are others. */
static void
check_damaged(const char *name, uint32_t cases)
{
    enum { HEAD = 4096, BYTES = 3 };
    uint64_t seed = 0x9E3779B97F4A7C15ull;
    uint32_t i, j, opened = 0;
    unsigned sum = 0;
    size_t config_n, n;
    uint8_t *config = read_file(name, "config.json", &config_n);
    uint8_t *weights = read_file(name, "model.safetensors", &n);
    uint8_t *at[BYTES], was[BYTES];
    char err[1024];
    model_t *m;

    for (i = 0; i < cases; i++) {
        for (j = 0; j < BYTES; j++) {
            at[j] = i % 2 == 0 ? config + rnd(&seed) % config_n
                               : weights + rnd(&seed) % HEAD;
            was[j] = *at[j];
            *at[j] = rnd(&seed) % 2 ? (uint8_t) ('0' + rnd(&seed) % 10)
                                    : was[j] ^ (uint8_t) (1 << j);
        }

        err[0] = '\0';
        m = model_hf_open_mem(
            (char *) config, config_n, weights, n, err, sizeof(err));

        if (m != NULL) {
            sum += made_of_all(m);
            opened++;
            model_close(m);
        } else {
            assert_true(strlen(err) > 10);
            assert_null(strchr(err, '\n'));
        }

        while (j-- > 0) {
            *at[j] = was[j];
        }
    }

    print_message("%s: %u of %u opened (%u)\n", name, opened, cases, sum % 256);
    assert_in_range(opened, 1, cases / 2);
    free(config);
    free(weights);
}

static void
damaged(void **state)
{
    (void) state;
    check_damaged("gpt-oss", 1000);
    check_damaged("gpt-oss-mxfp4", 1000);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks),
        cmocka_unit_test(across),
        cmocka_unit_test(rows_apart),
        cmocka_unit_test(joined),
        cmocka_unit_test(refused),
        cmocka_unit_test(damaged),
    };

    return cmocka_run_group_tests_name("model_mxfp4", tests, NULL, NULL);
}
