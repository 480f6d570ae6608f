/*
 * Fails when a weight that went into a panel does not come out as it was, when
 * activations as numbers are not what they stand for, or when a product over
 * panels is wrong, reads or writes outside its rows, or gives an output other
 * bits among others than alone.  The judge of products is double precision over
 * the formats as kernels.h words them and the numbers that the product was
 * given, so it allows for roundings only.
 */
#include "guard.h"
#include "cpu/panel.h"

#include <math.h>
#include <stdlib.h>

#define TOLERANCE 2e-6
#define N_MAX     67

typedef struct {
    const char *name;
    const cpu_panel_isa_t *panels;
} set_t;

#define SETS(S)                                                                \
    S(avx2)                                                                    \
    S(avxvnni)                                                                 \
    S(avx512)                                                                  \
    S(avx512vnni)

#define S(name) static const set_t set_##name = {#name, &cpu_panels_##name};
SETS(S)
S(avx512bf16) /* what it has of its own */
#undef S

/* The products of *state, or a skip that can be seen. */
static const cpu_panel_isa_t *
panels_of(void **state)
{
    const set_t *set = *state;
    char err[200];

    if (kernels_cpu(set->name, err, sizeof(err)) == NULL) {
        print_message("%s: this machine lacks it\n", set->name);
        skip();
    }

    return set->panels;
}

/* Each row of a panel that is full, and of one that is not. */
static void
test_pack(void **state)
{
    uint64_t seed = 1;
    uint32_t type, unit, n, i, k;
    guard_t src, panel, row;
    const char *from;

    (void) state;

    for (i = 0; i < KN_TYPES * 2 * PANEL; i++) {
        type = i % KN_TYPES;
        unit = i / KN_TYPES % 2 ? 2 : 4;
        n = 1 + i / KN_TYPES / 2;

        k = type_elems(type)
            * (1 + rnd(&seed) % (type_elems(type) > 1 ? 3 : 200));
        from = guard_open(&src, n * type_bytes(type, k));
        rnd_weights(&seed, type, src.p, (size_t) n * k);
        guard_open(&panel, panel_bytes(type, k));
        guard_open(&row, type_bytes(type, k));
        panel_pack(type, unit, panel.p, from, n, k);
        assert_true(
            panel_bytes(type, k) <= PANEL * type_bytes(type, k) * 105 / 100);

        for (n--;; n--) {
            panel_row(type, unit, row.p, panel.p, n, k);
            assert_memory_equal(
                row.p, from + n * type_bytes(type, k), type_bytes(type, k));
            if (n == 0) {
                break;
            }
        }

        guard_close(&src);
        guard_close(&panel);
        guard_close(&row);
    }
}

/* Step s of x as numbers. */
static void
check_step(const float *x, const void *q, const cpu_step_t *s, uint32_t bytes)
{
    uint32_t i, j;
    int32_t n, most = 0, half[2] = {0, 0};
    float top = 0;

    for (i = 0; i < CPU_STEP; i++) {
        n = bytes == 1 ? ((const int8_t *) q)[i] : ((const int16_t *) q)[i];
        half[i / 16] += n;
        most = abs(n) > most ? abs(n) : most;
        top = fabsf(x[i]) > top ? fabsf(x[i]) : top;
        /* 32767 times what F32 rounds away is a hundredth */
        assert_true(fabs((double) s->d * n - x[i]) <= 0.51 * s->d);
    }

    assert_int_equal(most, top == 0 ? 0 : bytes == 1 ? 127 : 32767);
    assert_true(s->sum == s->d * (float) (half[0] + half[1]));
    for (j = 0; j < 2; j++) {
        assert_true(s->half[j] == s->d * (float) half[j]);
    }
}

static void
test_whole(void **state)
{
    const cpu_panel_isa_t *isa = panels_of(state);
    uint64_t seed = 2;
    uint32_t bytes, k, i, at;
    guard_t x, q, s;
    cpu_step_t *steps;
    float *f;

    for (i = 0; i < 200; i++) {
        bytes = cpu_number(i % 2 ? CPU_WORDS : CPU_BYTES);
        k = CPU_STEP * (1 + rnd(&seed) % 5);
        f = guard_open(&x, k * sizeof(float));
        guard_open(&q, (size_t) k * bytes);
        steps = guard_open(&s, k / CPU_STEP * sizeof(*steps));

        for (at = 0; at < k; at++) {
            f[at] = rnd_float(&seed) * (at / CPU_STEP == 1 ? 1e-4f : 10);
            f[at] = i % 8 == 3 && at / CPU_STEP == 0 ? 0 : f[at];
            f[at] *= rnd(&seed) % 50 == 0 ? 1000 : 1;
        }

        isa->numbers[i % 2 ? CPU_WORDS : CPU_BYTES](q.p, steps, f, k);
        for (at = 0; at < k; at += CPU_STEP) {
            check_step(f + at, (char *) q.p + (size_t) at * bytes,
                &steps[at / CPU_STEP], bytes);
        }

        /* next to nothing is nothing, and what is no number is none */
        for (at = 0; at < CPU_STEP; at++) {
            f[at] *= 1e-36f;
        }
        f[k - 1] = i % 3 == 0 ? INFINITY : NAN;
        isa->numbers[i % 2 ? CPU_WORDS : CPU_BYTES](q.p, steps, f, k);
        assert_true(k == CPU_STEP || steps[0].d == 0);
        assert_false(isfinite(steps[k / CPU_STEP - 1].d));
        guard_close(&x);
        guard_close(&q);
        guard_close(&s);
    }
}

/* f as BF16, as cpu.h words it. */
static uint16_t
bf16_of(float f)
{
    uint32_t u, half;

    memcpy(&u, &f, sizeof(u));
    if ((u & 0x7f800000) == 0) {
        return (uint16_t) (u >> 16 & 0x8000);
    }
    if (isnan(f)) {
        return (uint16_t) (u >> 16 | 0x40);
    }

    half = u & 0xffff;
    u >>= 16;

    return (uint16_t) (u + (half > 0x8000 || (half == 0x8000 && u % 2)));
}

static void
test_rounded(void **state)
{
    const cpu_panel_isa_t *isa = panels_of(state);
    uint64_t seed = 7;
    uint32_t k, i, u;
    guard_t x, q;
    uint16_t h;
    float f;

    for (k = 1; k <= 300; k++) {
        guard_open(&x, k * sizeof(float));
        guard_open(&q, (size_t) k * 2);

        for (i = 0; i < k; i++) {
            u = rnd(&seed);
            u = rnd(&seed) % 2 ? u : (u & 0xffff0000) | 0x8000;  /* halves */
            u = rnd(&seed) % 16 ? u : u & 0x807fffff;            /* too small */
            u = rnd(&seed) % 16 ? u : (u & 0xffff) | 0x7f800000; /* too large */
            memcpy((char *) x.p + (size_t) i * 4, &u, 4);
        }

        isa->numbers[CPU_BF16](q.p, NULL, x.p, k);

        for (i = 0; i < k; i++) {
            memcpy(&h, (char *) q.p + (size_t) i * 2, 2);
            memcpy(&f, (char *) x.p + (size_t) i * 4, 4);
            if (h != bf16_of(f)) {
                fail_msg("%a became 0x%04x", f, h);
            }
        }

        memcpy(&h, (char *) q.p - 2, 2);
        assert_int_equal(h, 0xffff);
        guard_close(&x);
        guard_close(&q);
    }
}

typedef struct {
    guard_t x, q, s, w, y;
    char *rows; /* the weights as a file has them, owned */
    cpu_panels_t a;
    uint32_t type, n; /* n: all outputs of the matrix */
    uint32_t kind;    /* of activations */
} case_t;

static void
fill_acts(case_t *c, const cpu_panel_isa_t *isa, uint64_t *seed, uint32_t m,
    uint32_t k)
{
    cpu_panels_t *a = &c->a;
    float *x = guard_open(&c->x, ((m - 1) * a->ldx + k) * sizeof(float));
    uint32_t bytes = cpu_number(c->kind);
    char *q = guard_open(&c->q, (size_t) m * k * (bytes ? bytes : 1));
    cpu_step_t *s = guard_open(
        &c->s, (size_t) m * ((k + CPU_STEP - 1) / CPU_STEP) * sizeof(*s));
    uint32_t i, j;

    for (i = 0; i < m; i++) {
        for (j = 0; j < k; j++) {
            x[i * a->ldx + j] = rnd_float(seed);
        }
        if (c->kind != CPU_FLOATS) {
            isa->numbers[c->kind](q + (size_t) i * k * bytes,
                s + i * (k / CPU_STEP), x + i * a->ldx, k);
        }
    }

    /* what a type does not want is not looked at */
    a->x = c->kind == CPU_FLOATS ? x : NULL;
    a->q = c->kind == CPU_FLOATS ? NULL : q;
    a->s = cpu_in_steps(c->kind) ? s : NULL;
}

static void
case_open(case_t *c, const cpu_panel_isa_t *isa, uint64_t *seed, uint32_t type,
    uint32_t m, uint32_t n, uint32_t k)
{
    cpu_panels_t *a = &c->a;
    size_t row = type_bytes(type, k);
    uint32_t p, panels = (n + PANEL - 1) / PANEL;
    char *w;

    memset(c, 0, sizeof(*c));
    c->type = type;
    c->n = n;
    c->kind = isa->kind[type];
    c->rows = malloc(n * row);
    assert_non_null(c->rows);
    rnd_weights(seed, type, c->rows, (size_t) n * k);

    a->m = m;
    a->k = k;
    a->n0 = rnd(seed) % n;
    a->n0 = rnd(seed) % 3 == 0 ? 0 : a->n0;
    a->n = n - a->n0 - rnd(seed) % (n - a->n0) / 4;
    a->ldx = k + rnd(seed) % 3;
    a->ldy = a->n + rnd(seed) % 3;
    a->stride = panel_bytes(type, k);
    w = guard_open(&c->w, panels * a->stride);

    for (p = 0; p < panels; p++) {
        panel_pack(type, cpu_unit(c->kind), w + p * a->stride,
            c->rows + p * PANEL * row,
            n - p * PANEL < PANEL ? n % PANEL : PANEL, k);
    }

    a->w = w;
    a->y = guard_open(&c->y, ((m - 1) * a->ldy + a->n) * sizeof(float));
    fill_acts(c, isa, seed, m, k);
}

static void
case_close(case_t *c)
{
    guard_close(&c->x);
    guard_close(&c->q);
    guard_close(&c->s);
    guard_close(&c->w);
    guard_close(&c->y);
    free(c->rows);
}

/* Activation e of row i as the product sees it. */
static double
act_at(const case_t *c, uint32_t i, uint32_t e)
{
    const cpu_panels_t *a = &c->a;
    size_t at = (size_t) i * a->k + e;

    if (c->kind == CPU_FLOATS) {
        return a->x[i * a->ldx + e];
    }

    if (c->kind == CPU_BF16) {
        return weight_at(KN_BF16, a->q, (uint32_t) at);
    }

    return (double) a->s[at / CPU_STEP].d
           * (c->kind == CPU_BYTES ? ((const int8_t *) a->q)[at]
                                   : ((const int16_t *) a->q)[at]);
}

static void
check_value(const case_t *c, uint32_t i, uint32_t j)
{
    const cpu_panels_t *a = &c->a;
    const char *w = c->rows + (a->n0 + j) * type_bytes(c->type, a->k);
    double sum = 0, size = 0, t;
    uint32_t e;
    float y = a->y[i * a->ldy + j];

    for (e = 0; e < a->k; e++) {
        t = weight_at(c->type, w, e) * act_at(c, i, e);
        sum += t;
        size += fabs(t);
    }

    if (!(fabs(y - sum) <= TOLERANCE * size)) {
        fail_msg("%s m %u n %u k %u: y[%u, %u] is %g, expected %g",
            type_name(c->type), a->m, a->n, a->k, i, j, y, sum);
    }
}

/* Row i of it alone, output j alone: the same bits. */
static void
check_alone(const cpu_panel_isa_t *isa, const case_t *c, uint32_t i, uint32_t j)
{
    cpu_panels_t a = c->a;
    float y = NAN;

    if (c->kind == CPU_FLOATS) {
        a.x += i * a.ldx;
    } else {
        a.q = (const char *) a.q + (size_t) i * a.k * cpu_number(c->kind);
        a.s = a.s != NULL ? a.s + i * (a.k / CPU_STEP) : NULL;
    }

    a.y = &y;
    a.m = 1;
    a.n0 += j;
    a.n = 1;
    isa->mm[c->type](&a);

    if (memcmp(&y, &c->a.y[i * c->a.ldy + j], sizeof(y)) != 0) {
        fail_msg("%s m %u n %u k %u: y[%u, %u] is %a, alone %a",
            type_name(c->type), c->a.m, c->a.n, c->a.k, i, j,
            c->a.y[i * c->a.ldy + j], y);
    }
}

static void
check_case(const cpu_panel_isa_t *isa, uint64_t *seed, uint32_t type,
    uint32_t m, uint32_t n, uint32_t k)
{
    case_t c;
    uint32_t i, j, u;

    case_open(&c, isa, seed, type, m, n, k);
    isa->mm[type](&c.a);

    for (i = 0; i < m; i++) {
        for (j = 0; j < c.a.n; j++) {
            check_value(&c, i, j);
            check_alone(isa, &c, i, j);
        }

        for (j = c.a.n; j < c.a.ldy && i + 1 < m; j++) {
            memcpy(&u, &c.a.y[i * c.a.ldy + j], sizeof(u));
            assert_int_equal(u, 0xffffffff);
        }
    }

    /* the bytes before y, on its page, are as they were */
    for (i = 1; i <= 64 && (char *) (c.a.y - i) >= c.y.map; i++) {
        memcpy(&u, c.a.y - i, sizeof(u));
        assert_int_equal(u, 0xffffffff);
    }

    case_close(&c);
}

static void
test_product(void **state)
{
    const cpu_panel_isa_t *isa = panels_of(state);
    uint64_t seed = 3;
    uint32_t type, block, m;

    for (type = 0; type < KN_TYPES; type++) {
        if (isa->mm[type] == NULL) {
            continue;
        }

        block = type_elems(type);
        block = block == 1 ? 1 + rnd(&seed) % 9 : block;

        for (m = 1; m <= 17; m++) {
            check_case(isa, &seed, type, m, 1 + rnd(&seed) % N_MAX,
                block * (1 + rnd(&seed) % (block < 256 ? 12 : 3)));
        }

        check_case(isa, &seed, type, 1, N_MAX, block * 3);
        check_case(isa, &seed, type, 7, 33, block < 32 ? 129 : block);
        check_case(isa, &seed, type, CPU_TILE_M, 19, block < 32 ? 300 : block);
        check_case(isa, &seed, type, 5, 17,
            4096 / type_elems(type) * type_elems(type));
    }
}

/*
 * Long rows of numbers of one sign: a sum that only grows loses the ends of
 * more and more of what it is given, unless there are sums of parts.
 */
static void
test_long(void **state)
{
    enum { K = 1 << 16 };
    const cpu_panel_isa_t *isa = panels_of(state);
    uint64_t seed = 8;
    uint32_t type, i, size;
    case_t c;

    for (type = 0; type < KN_TYPES; type++) {
        if (isa->mm[type] == NULL || type_elems(type) > 1) {
            continue;
        }

        case_open(&c, isa, &seed, type, 1, PANEL, K);
        size = (uint32_t) type_bytes(type, 1);

        for (i = 0; i < PANEL * K; i++) {
            c.rows[i * size + size - 1] &= 0x7f;
        }
        for (i = 0; i < K; i++) {
            ((float *) c.x.p)[i] = fabsf(((float *) c.x.p)[i]);
        }

        panel_pack(type, cpu_unit(c.kind), c.w.p, c.rows, PANEL, K);
        if (c.kind != CPU_FLOATS) {
            isa->numbers[c.kind](c.q.p, NULL, c.x.p, K);
        }
        isa->mm[type](&c.a);

        for (i = 0; i < c.a.n; i++) {
            check_value(&c, 0, i);
        }
        case_close(&c);
    }
}

/* The largest numbers that a type has, all of one sign, meet the largest x. */
static void
test_largest(void **state)
{
    const cpu_panel_isa_t *isa = panels_of(state);
    uint64_t seed = 4;
    uint32_t type, i, e, fill;
    case_t c;

    for (i = 0; i < KN_TYPES * 4; i++) {
        type = i / 4;

        if (isa->mm[type] == NULL || !cpu_in_steps(isa->kind[type])) {
            continue;
        }

        case_open(&c, isa, &seed, type, 1 + i % 2 * 7, PANEL, 512);
        fill = i % 4 < 2 ? 0xff : 0;

        for (e = 0; e < c.a.m * c.a.k; e++) {
            if (c.kind == CPU_BYTES) {
                ((int8_t *) c.q.p)[e] = fill ? 127 : -127;
            } else {
                ((int16_t *) c.q.p)[e] = fill ? 32767 : -32767;
            }
        }
        for (e = 0; e < c.a.m * c.a.k / CPU_STEP; e++) {
            ((cpu_step_t *) c.s.p)[e].half[0] =
                ((cpu_step_t *) c.s.p)[e].half[1] =
                    ((cpu_step_t *) c.s.p)[e].d
                    * (c.kind == CPU_BYTES ? 127 : 32767) * (fill ? 16 : -16);
            ((cpu_step_t *) c.s.p)[e].sum =
                2 * ((cpu_step_t *) c.s.p)[e].half[0];
        }

        /* all bits of the numbers set, or none; the scales as they are */
        memset(c.rows,
            type == KN_Q8_0    ? (fill ? 0x7f : 0x80)
            : type == KN_MXFP4 ? (fill ? 0x77 : 0xff)
                               : (int) fill,
            PANEL * type_bytes(type, 512));
        for (e = 0; e < PANEL * 512 / type_elems(type); e++) {
            rnd_scales(&seed, type,
                (uint8_t *) c.rows + e * type_bytes(type, type_elems(type)));
        }
        panel_pack(type, cpu_unit(c.kind), c.w.p, c.rows, PANEL, 512);
        isa->mm[type](&c.a);

        for (e = 0; e < c.a.n; e++) {
            check_value(&c, c.a.m - 1, e);
        }
        case_close(&c);
    }
}

/* Each factor that MXFP4 has up to one, those below normal numbers too. */
static void
test_powers(void **state)
{
    const cpu_panel_isa_t *isa = panels_of(state);
    uint64_t seed = 6;
    uint32_t first, i;
    case_t c;

    for (first = 0; first < 128; first += PANEL) {
        case_open(&c, isa, &seed, KN_MXFP4, 1, PANEL, 32);
        c.a.n0 = 0;
        c.a.n = c.a.ldy = PANEL;
        guard_close(&c.y);
        c.a.y = guard_open(&c.y, PANEL * sizeof(float));

        for (i = 0; i < PANEL; i++) {
            c.rows[i * type_bytes(KN_MXFP4, 32)] = (char) (first + i);
        }
        panel_pack(KN_MXFP4, cpu_unit(c.kind), c.w.p, c.rows, PANEL, 32);
        c.a.s = c.s.p;
        ((cpu_step_t *) c.s.p)->d *= 0x1p60f;
        ((cpu_step_t *) c.s.p)->sum *= 0x1p60f;
        isa->mm[KN_MXFP4](&c.a);

        for (i = 0; i < PANEL; i++) {
            check_value(&c, 0, i);
        }
        case_close(&c);
    }
}

/* One impossible number in a row shows in that row's outputs and no other. */
static void
test_not_finite(void **state)
{
    const cpu_panel_isa_t *isa = panels_of(state);
    uint64_t seed = 5;
    case_t c;
    uint32_t type, i, j;
    float *x;

    for (type = 0; type < KN_TYPES; type++) {
        if (isa->mm[type] == NULL) {
            continue;
        }

        case_open(&c, isa, &seed, type, 6, 21, 512);
        x = c.x.p;
        x[3 * c.a.ldx + 100] = NAN;
        if (c.kind != CPU_FLOATS) {
            isa->numbers[c.kind](
                (char *) c.q.p + (size_t) 3 * 512 * cpu_number(c.kind),
                (cpu_step_t *) c.s.p + (size_t) 3 * 512 / CPU_STEP,
                x + 3 * c.a.ldx, 512);
        }
        isa->mm[type](&c.a);

        for (i = 0; i < 6; i++) {
            for (j = 0; j < c.a.n; j++) {
                assert_int_equal(isnan(c.a.y[i * c.a.ldy + j]) != 0, i == 3);
            }
        }
        case_close(&c);
    }
}

#define TESTS(S, name)                                                         \
    S(name, whole)                                                             \
    S(name, product)                                                           \
    S(name, long)                                                              \
    S(name, largest)                                                           \
    S(name, powers)                                                            \
    S(name, not_finite)

#define TESTS_BF16(S, name)                                                    \
    S(name, rounded)                                                           \
    S(name, product)                                                           \
    S(name, long)                                                              \
    S(name, not_finite)

int
main(void)
{
    /* clang-format off */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pack),
#define T(name, f)                                                             \
    {#name " " #f, test_##f, NULL, NULL, (void *) (uintptr_t) &set_##name},
#define S(name) TESTS(T, name)
        SETS(S)
#undef S
        TESTS_BF16(T, avx512bf16)
#undef T
    };
    /* clang-format on */

    return cmocka_run_group_tests_name("panel", tests, NULL, NULL);
}
