/*
 * Would catch: a weight type whose elements are not the bits that the format's
 * authors give (quant-vectors.gguf has rows of each type with their values and
 * their products with a vector), on any instruction set; a type of the file
 * that has no kernel.
 */
#include "../kernels/guard.h"

#include "gguf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TYPES_N 19
#define ROWS    12
#define WIDTH   512

static gguf_t *
open_vectors(void)
{
    char path[512], err[512];
    const char *dir = getenv("LLM_DATA");
    gguf_t *g;

    snprintf(path, sizeof(path), "%s/models/quant-vectors/quant-vectors.gguf",
        dir != NULL ? dir : "../shared/data");

    if (access(path, R_OK) != 0) {
        print_message("%s is not there\n", path);
        skip();
    }

    g = gguf_open(path, err, sizeof(err));

    if (g == NULL) {
        fail_msg("%s", err);
    }

    return g;
}

/* The tensor called like t and tail. */
static const tensor_t *
beside(const gguf_t *g, const tensor_t *t, const char *tail)
{
    char name[64];

    snprintf(name, sizeof(name), "%.*s%s", (int) t->name.len, t->name.s, tail);
    return gguf_tensor(g, name);
}

/* The tensor number i if it is a quantized one, with what it must become. */
static const tensor_t *
quantized(const gguf_t *g, uint32_t i, uint32_t *type)
{
    const tensor_t *t = gguf_tensor_at(g, i);

    if (beside(g, t, ".dequant") == NULL) {
        return NULL;
    }

    *type = kernels_type(tensor_type_name(t->type));

    if (*type == KN_TYPES) {
        fail_msg("%s has no kernel", tensor_type_name(t->type));
    }

    assert_int_equal(t->dims[0], WIDTH);
    assert_int_equal(t->dims[1], ROWS);
    return t;
}

static void
values(void **state)
{
    gguf_t *g = open_vectors();
    const tensor_t *t, *want;
    static float got[ROWS * WIDTH];
    uint32_t i, type, n = 0;

    (void) state;

    for (i = 0; i < gguf_tensors_n(g); i++) {
        t = quantized(g, i, &type);

        if (t == NULL) {
            continue;
        }

        want = beside(g, t, ".dequant");
        memset(got, 0xff, sizeof(got));
        kernels_dequant(type, got, t->data, ROWS * WIDTH);
        assert_int_equal(want->size, sizeof(got));
        assert_memory_equal(got, want->data, sizeof(got));
        n++;
    }

    assert_int_equal(n, TYPES_N);
    gguf_close(g);
}

typedef struct {
    const kernels_t *kn;
    kn_dev_t *dev;
    kn_embed_t embed;
    kn_matmul_t matmul;
} rig_t;

static void
body(void *arg)
{
    const rig_t *r = arg;

    r->kn->embed(r->dev, &r->embed);
    r->kn->matmul(r->dev, &r->matmul);
}

/* One step: all rows looked up, and the last of ROWS vectors multiplied. */
static void
check_device(rig_t *r, const gguf_t *g, const tensor_t *t, uint32_t type,
    const kn_step_t *step)
{
    char err[256];
    float got[ROWS * WIDTH], x;
    double want, size, away;
    uint32_t i, j;
    const tensor_t *values = beside(g, t, ".dequant");
    kn_source_t src = {"w", type, ROWS, WIDTH, t->data};

    r->embed.w = r->kn->weight_load(r->dev, &src, err, sizeof(err));
    assert_non_null(r->embed.w);
    r->matmul.of[0].w = r->embed.w;
    r->kn->plan(r->dev, step);
    r->kn->submit(r->dev, body, r);
    r->kn->wait(r->dev);
    r->kn->copy_out(r->dev, got, r->embed.y, sizeof(got));
    assert_memory_equal(got, values->data, sizeof(got));
    r->kn->copy_out(
        r->dev, got, r->matmul.of[0].y, ROWS * ROWS * sizeof(float));

    for (i = 0; i < ROWS; i++) {
        memcpy(&x, beside(g, t, ".matvec")->data + i * sizeof(x), sizeof(x));
        want = x;

        /* of the terms' sizes: a sum of 512 in F32 loses a few roundings */
        for (size = 0, j = 0; j < WIDTH; j++) {
            float v, w;

            memcpy(&w, values->data + (i * WIDTH + j) * sizeof(w), sizeof(w));
            memcpy(&v, gguf_tensor(g, "x")->data + j * sizeof(v), sizeof(v));
            size += fabs((double) v * w);
        }

        for (j = 0; j < ROWS; j++) {
            away = fabs(got[j * ROWS + i] - want);

            if (!(away
                    <= acts_tolerance(&r->dev->isa, type, 1e-5) / 10 * size)) {
                fail_msg("%s row %u: %g from %g", tensor_type_name(t->type), i,
                    away, want);
            }
        }
    }
}

static void
check_isa(const char *isa)
{
    char err[256];
    uint32_t i, type, n = 0, tokens[ROWS];
    gguf_t *g = open_vectors();
    const tensor_t *t, *x = gguf_tensor(g, "x");
    kn_open_t o = {.threads = 1};
    kn_limits_t l = {ROWS, 1, 1, 1, ROWS, 1, 64, 1, 0, 0};
    kn_row_t row = {0, ROWS, 0, {{0, 0, 0}}};
    kn_step_t step = {
        .tokens_n = ROWS, .rows_n = 1, .tokens = tokens, .rows = &row};
    rig_t r;

    memset(&r, 0, sizeof(r));
    r.kn = kernels_cpu(isa, err, sizeof(err));

    if (r.kn == NULL) {
        print_message("%s\n", err);
        gguf_close(g);
        skip();
    }

    r.dev = r.kn->open(&o, err, sizeof(err));
    assert_non_null(r.dev);
    assert_int_equal(r.kn->reserve(r.dev, &l, err, sizeof(err)), 0);
    r.embed.y = r.kn->alloc(r.dev, ROWS * WIDTH * sizeof(float));
    r.matmul.x = r.kn->alloc(r.dev, ROWS * WIDTH * sizeof(float));
    r.matmul.of[0].y = r.kn->alloc(r.dev, ROWS * ROWS * sizeof(float));
    r.matmul.rows = KN_TOKENS;
    r.matmul.n = 1;
    r.matmul.of[0].scale = 1;
    r.embed.scale = 1;

    for (i = 0; i < ROWS; i++) {
        tokens[i] = i;
        r.kn->copy_in(r.dev,
            kn_at(r.matmul.x, i * (uint64_t) WIDTH * sizeof(float)), x->data,
            WIDTH * sizeof(float));
    }

    for (i = 0; i < gguf_tensors_n(g); i++) {
        t = quantized(g, i, &type);

        if (t != NULL) {
            check_device(&r, g, t, type, &step);
            n++;
        }
    }

    assert_int_equal(n, TYPES_N);
    r.kn->close(r.dev);
    gguf_close(g);
}

static void
products_ref(void **state)
{
    (void) state;
    check_isa("ref");
}

static void
products_avx2(void **state)
{
    (void) state;
    check_isa("avx2");
}

static void
products_avx512(void **state)
{
    (void) state;
    check_isa("avx512");
}

static void
names(void **state)
{
    (void) state;
    assert_int_equal(kernels_type("F32"), KN_F32);
    assert_int_equal(kernels_type("MXFP4"), KN_MXFP4);
    assert_int_equal(kernels_type("Q4_k"), KN_TYPES);
    assert_int_equal(kernels_type(""), KN_TYPES);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values),
        cmocka_unit_test(products_ref),
        cmocka_unit_test(products_avx2),
        cmocka_unit_test(products_avx512),
        cmocka_unit_test(names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
