/*
 * Would catch: a row of a product whose bits depend on how many rows there
 * are, from 1 to 64, or on the number of threads, from 1 to 4, for some type
 * of weights on some instruction set.  tests/kernels/ops.c has all ops, but
 * few numbers of rows.
 */
#include "../unit/brief.h"
#include "rig.h"

enum {
    ROWS_N = 64,
    THREADS_N = 4,
    OUTS = 130, /* three tiles, the last one of two outputs */
    WIDTH = 256 /* a block of any type; 16 rows are worth a second thread */
};

typedef struct {
    sub_t s;
    kn_matmul_t a;
    kn_ptr_t x; /* [ROWS_N, WIDTH] */
    kn_row_t row;
} product_t;

static void
product_open(product_t *p, const char *isa, uint32_t type, uint32_t threads)
{
    case_t c = {.seed = 5 + type, .n = OUTS, .k = WIDTH, .type = type};
    float *x = vectors(c.seed + 2, ROWS_N, WIDTH);

    memset(p, 0, sizeof(*p));
    sub_open(&p->s, isa, threads);
    p->x = put(&p->s, x, (size_t) ROWS_N * WIDTH * sizeof(float));
    p->a.rows = KN_TOKENS;
    p->a.n = 1;
    p->a.of[0].w = weight(&p->s, &c);
    p->a.of[0].scale = 1;
    p->a.of[0].y = put(&p->s, NULL, ROWS_N * OUTS * sizeof(float));
    free(x);
}

/* rows of x from first on, times the matrix: y [rows, OUTS] */
static void
product(product_t *p, uint32_t first, uint32_t rows, float *y)
{
    p->a.x = kn_at(p->x, (uint64_t) first * WIDTH * sizeof(float));
    p->row = (kn_row_t){0, rows, 0, {{0, 0, 0}}};
    p->s.step = (kn_step_t){
        .tokens_n = rows, .rows_n = 1, .tokens = p->s.tokens, .rows = &p->row};
    call(&p->s, OP_matmul, &p->a);
    p->s.kn->copy_out(
        p->s.dev, y, p->a.of[0].y, (size_t) rows * OUTS * sizeof(float));
}

static void
check_rows(product_t *p, uint32_t rows, uint32_t type, const float *alone)
{
    static float got[ROWS_N * OUTS];
    uint32_t first = ROWS_N - rows;

    memset(got, 0xff, sizeof(got));
    product(p, first, rows, got);

    if (memcmp(got, alone + first * OUTS, rows * OUTS * sizeof(float)) != 0) {
        fail_msg("%s: %u rows by %u threads are not as alone", type_name(type),
            rows, p->s.dev->threads);
    }
}

static void
check_type(const char *isa, uint32_t type)
{
    static product_t by[THREADS_N];
    static float alone[ROWS_N * OUTS];
    uint32_t i, rows, step = strcmp(isa, "ref") == 0 || brief() ? 9 : 1;

    for (i = 0; i < THREADS_N; i++) {
        product_open(&by[i], isa, type, i + 1);
    }

    for (i = 0; i < ROWS_N; i++) {
        product(&by[0], i, 1, alone + i * OUTS);
    }

    for (rows = 1; rows <= ROWS_N; rows += step) {
        for (i = 0; i < THREADS_N; i++) {
            check_rows(&by[i], rows, type, alone);
        }
    }

    for (i = 0; i < THREADS_N; i++) {
        by[i].s.kn->close(by[i].s.dev);
    }
}

static void
rows_agree(void **state)
{
    const char *isa = *state;
    char err[200];
    uint32_t type;

    if (kernels_cpu(isa, err, sizeof(err)) == NULL) {
        print_message("%s\n", err);
        skip();
    }

    for (type = 0; type < KN_TYPES; type++) {
        if (strcmp(isa, "avx512bf16") != 0 || type == KN_BF16) {
            check_type(isa, type);
        }
    }
}

int
main(void)
{
    static char sets[][16] = {
        "ref", "avx2", "avxvnni", "avx512", "avx512vnni", "avx512bf16"};
    struct CMUnitTest tests[sizeof(sets) / sizeof(sets[0])];
    size_t i, n = sizeof(sets) / sizeof(sets[0]);

    for (i = 0; i < n; i++) {
        tests[i] =
            (struct CMUnitTest){sets[i], rows_agree, NULL, NULL, sets[i]};
    }

    return _cmocka_run_group_tests("rows", tests, n, NULL, NULL);
}
