/*
 * Would catch: layers of different windows in one group, two layers in one
 * place, more groups than there may be, or a layout that wastes memory on
 * layers that hold whole sequences.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "model_impl.h"

#include <string.h>

#define LAYERS  96
#define CONTEXT 8192

static model_layer_t layers[LAYERS];

/* n layers of which every whole-th looks at everything; 0: none does. */
static model_t
made(uint32_t n, uint32_t window, uint32_t whole)
{
    uint32_t i;
    model_t m;

    assert_true(n <= LAYERS);
    memset(&m, 0, sizeof(m));
    memset(layers, 0, sizeof(layers));
    m.info.layers = n;
    m.layers = layers;

    for (i = 0; i < n; i++) {
        layers[i].window = whole > 0 && (i + 1) % whole == 0 ? 0 : window;
    }

    return m;
}

/* Every layer has a place of its own, in a group of its window. */
static void
check(const model_t *m, const model_groups_t *g)
{
    uint32_t i, group, slot;
    uint8_t taken[MODEL_GROUPS_MAX][LAYERS] = {{0}};

    assert_in_range(g->n, 1, MODEL_GROUPS_MAX);

    for (i = 0; i < m->info.layers; i++) {
        model_place(m, g, i, &group, &slot);
        assert_true(group < g->n && slot < g->slots);
        assert_int_equal(taken[group][slot]++, 0);

        if (g->context > 0) {
            assert_int_equal(g->window[group], layers[i].window);
        }
    }
}

typedef struct {
    const char *like;
    uint32_t layers, window, whole; /* of the model */
    uint32_t n, slots;              /* wanted */
} case_t;

static void
layouts(void **state)
{
    static const case_t cases[] = {
        {"llama", 32, 0, 1, 1, 32},
        {"mistral, all in a window", 32, 4096, 0, 1, 32},
        {"a window that nothing outgrows", 32, CONTEXT, 2, 1, 32},
        {"gpt-oss", 24, 128, 2, 2, 12},
        {"gemma 3, 1B", 26, 512, 6, 7, 4},
        {"gemma 3, 4B", 34, 1024, 6, 7, 5},
        {"gemma 3, 12B", 48, 1024, 6, 6, 8},
        {"gemma 3, 27B", 62, 1024, 6, 7, 10},
        {"one layer of all positions", 62, 1024, 62, 8, 9},
    };
    size_t i;
    model_t m;
    model_groups_t g;

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        m = made(cases[i].layers, cases[i].window, cases[i].whole);
        model_groups(&m, CONTEXT, &g);
        print_message("%s: %u groups of %u\n", cases[i].like, g.n, g.slots);
        assert_int_equal(g.n, cases[i].n);
        assert_int_equal(g.slots, cases[i].slots);

        if (cases[i].window < CONTEXT) {
            check(&m, &g);
        }
    }
}

/* Whatever the windows: never a place twice, never too many groups. */
static void
any(void **state)
{
    static const uint32_t windows[] = {0, 16, 64, 128, 512, 513, 2048, 4096, 7};
    uint32_t round, i, kinds, n;
    model_t m;
    model_groups_t g;
    uint64_t x = 1;

    (void) state;

    for (round = 0; round < 2000; round++) {
        kinds = 1 + round % 9;
        n = 1 + round * 7 % LAYERS;
        m = made(n, 0, 0);

        for (i = 0; i < n; i++) {
            x = x * 6364136223846793005ull + 1442695040888963407ull;
            layers[i].window = windows[(x >> 33) % kinds];
        }

        model_groups(&m, CONTEXT, &g);
        check(&m, &g);
    }
}

/* Nine windows are more than there are groups: then there is one. */
static void
too_many(void **state)
{
    uint32_t i;
    model_t m = made(9, 0, 1);
    model_groups_t g;

    (void) state;

    for (i = 0; i < 9; i++) {
        layers[i].window = 16 + i;
    }

    model_groups(&m, CONTEXT, &g);
    assert_int_equal(g.n, 1);
    assert_int_equal(g.slots, 9);
    assert_int_equal(g.window[0], 0);
    check(&m, &g);
}

/* What is all zero is one group of all layers. */
static void
nothing(void **state)
{
    model_t m = made(4, 16, 2);
    model_groups_t g;

    (void) state;
    memset(&g, 0, sizeof(g));
    g.n = 1;
    g.slots = 4;
    check(&m, &g);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layouts),
        cmocka_unit_test(any),
        cmocka_unit_test(too_many),
        cmocka_unit_test(nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
