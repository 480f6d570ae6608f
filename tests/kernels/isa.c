/*
 * Fails when a small function of an instruction set (cpu.h) is wrong at some
 * shape, reads or writes outside its rows, or gives an output other bits in a
 * larger tile than alone.  The judge is double precision over the formats as
 * kernels.h words them, so the plain C functions are judged too.
 */
#include "guard.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Of the sum of the terms' sizes: a few dozen roundings of 2^-24. */
#define TOLERANCE 2e-6

/* The functions of *state, a cpu_isa_t, or a skip that can be seen. */
static const cpu_isa_t *
isa_of(void **state)
{
    const cpu_isa_t *isa = *state;
    char err[200];

    if (kernels_cpu(isa->name, err, sizeof(err)) == NULL) {
        print_message("%s: this machine lacks it\n", isa->name);
        skip();
    }

    return isa;
}

typedef struct {
    guard_t x, w, y;
    cpu_mm_t a;
    uint32_t type;
    uint32_t pad; /* elements between rows of x and y */
} case_t;

static size_t
y_at(const case_t *c, uint32_t i, uint32_t j)
{
    return i * c->a.ldy + j;
}

static void
case_open(case_t *c, uint64_t *seed, uint32_t type, uint32_t m, uint32_t n,
    uint32_t k)
{
    cpu_mm_t *a = &c->a;
    uint32_t i, j;
    float *x;
    char *w;

    c->type = type;
    c->pad = rnd(seed) % 3;

    a->m = m;
    a->n = n;
    a->k = k;
    a->ldx = k + c->pad;
    a->ldy = n + c->pad;
    a->stride = type_bytes(type, k) + c->pad * 2;

    if (type == KN_F32) {
        a->stride = type_bytes(type, k + c->pad);
    }

    x = guard_open(&c->x, ((m - 1) * a->ldx + k) * sizeof(float));
    w = guard_open(&c->w, (n - 1) * a->stride + type_bytes(type, k));
    a->y = guard_open(&c->y, ((m - 1) * a->ldy + n) * sizeof(float));
    a->x = x;
    a->w = w;

    for (i = 0; i < m; i++) {
        for (j = 0; j < k; j++) {
            x[i * a->ldx + j] = rnd_float(seed);
        }
    }

    for (j = 0; j < n; j++) {
        rnd_weights(seed, type, w + j * a->stride, k);
    }
}

static void
case_close(case_t *c)
{
    guard_close(&c->x);
    guard_close(&c->w);
    guard_close(&c->y);
}

static void
check_value(const case_t *c, uint32_t i, uint32_t j)
{
    const char *w;
    double sum, size, t;
    uint32_t e;
    float y;

    w = (const char *) c->a.w + j * c->a.stride;

    for (sum = 0, size = 0, e = 0; e < c->a.k; e++) {
        t = weight_at(c->type, w, e) * c->a.x[i * c->a.ldx + e];
        sum += t;
        size += fabs(t);
    }

    y = c->a.y[y_at(c, i, j)];

    if (!(fabs(y - sum) <= TOLERANCE * size)) {
        fail_msg("%s m %u n %u k %u: y[%u, %u] is %g, expected %g",
            type_name(c->type), c->a.m, c->a.n, c->a.k, i, j, y, sum);
    }
}

/* y[i, j] alone has the same bits. */
static void
check_alone(const cpu_isa_t *isa, const case_t *c, uint32_t i, uint32_t j)
{
    cpu_mm_t a = c->a;
    float y = NAN;

    a.x += i * a.ldx;
    a.w = (const char *) a.w + j * a.stride;
    a.y = &y;
    a.m = 1;
    a.n = 1;
    isa->matmul[c->type](&a);

    if (memcmp(&y, &c->a.y[y_at(c, i, j)], sizeof(y)) != 0) {
        fail_msg("%s m %u n %u k %u: y[%u, %u] is %a, alone %a",
            type_name(c->type), c->a.m, c->a.n, c->a.k, i, j,
            c->a.y[y_at(c, i, j)], y);
    }
}

static void
check_case(const cpu_isa_t *isa, uint64_t *seed, uint32_t type, uint32_t m,
    uint32_t n, uint32_t k)
{
    case_t c;
    uint32_t i, j, u;

    case_open(&c, seed, type, m, n, k);
    isa->matmul[type](&c.a);

    for (i = 0; i < m; i++) {
        for (j = 0; j < n; j++) {
            check_value(&c, i, j);
            check_alone(isa, &c, i, j);
        }

        for (j = n; j < c.a.ldy && i + 1 < m; j++) {
            memcpy(&u, &c.a.y[y_at(&c, i, j)], sizeof(u));
            assert_int_equal(u, 0xffffffff);
        }
    }

    /* The bytes before y, on its page, are as they were. */
    for (i = 1; i <= 64 && (char *) (c.a.y - i) >= c.y.map; i++) {
        memcpy(&u, c.a.y - i, sizeof(u));
        assert_int_equal(u, 0xffffffff);
    }

    case_close(&c);
}

static void
test_matmul(void **state)
{
    static const uint32_t ks[] = {1, 5, 32, 64, 172, 288};
    const cpu_isa_t *isa = isa_of(state);
    uint64_t seed = 1;
    uint32_t type, block, m, k, i;

    for (type = 0; type < KN_TYPES; type++) {
        block = type_elems(type);

        for (k = block; k <= (block < 256 ? 300 : 1024); k += block) {
            check_case(
                isa, &seed, type, 1 + rnd(&seed) % 17, 1 + rnd(&seed) % 9, k);
        }

        for (m = 1; m <= 17; m++) {
            for (i = 0; i < sizeof(ks) / sizeof(ks[0]); i++) {
                k = (ks[i] + block - 1) / block * block;
                check_case(isa, &seed, type, m, 1 + (m + i) % 7, k);
            }
        }

        check_case(
            isa, &seed, type, CPU_TILE_M, CPU_TILE_N, block < 64 ? 64 : block);
        check_case(isa, &seed, type, 3, 5, 4096);
    }
}

/* One impossible number in a row shows in that row's outputs and no other. */
static void
test_matmul_not_finite(void **state)
{
    const cpu_isa_t *isa = isa_of(state);
    uint64_t seed = 2;
    case_t c;
    uint32_t i, j, k;

    for (k = 1; k < 70; k += 23) {
        case_open(&c, &seed, KN_F32, 6, 5, k);
        ((float *) c.x.p)[3 * c.a.ldx + k - 1] = NAN;
        isa->matmul[KN_F32](&c.a);

        for (i = 0; i < 6; i++) {
            for (j = 0; j < 5; j++) {
                assert_int_equal(isnan(c.a.y[y_at(&c, i, j)]) != 0, i == 3);
            }
        }

        case_close(&c);
    }
}

static void
test_row(void **state)
{
    const cpu_isa_t *isa = isa_of(state);
    uint64_t seed = 3;
    uint32_t type, n, i;
    guard_t src, dst;

    for (type = 0; type < KN_TYPES; type++) {
        for (n = type_elems(type); n <= 1024; n += type_elems(type)) {
            guard_open(&src, type_bytes(type, n));
            guard_open(&dst, n * sizeof(float));
            rnd_weights(&seed, type, src.p, n);
            isa->row[type](dst.p, src.p, n);

            for (i = 0; i < n; i++) {
                assert_true(((float *) dst.p)[i] == weight_at(type, src.p, i));
            }

            guard_close(&src);
            guard_close(&dst);
        }
    }
}

/* A matrix [k, n] for strips(): keys of k elements, or k values of n. */
typedef struct {
    guard_t cache;
    const char *rows[CPU_SEEN];
    float *w; /* laid out */
    uint32_t type, values, n, k;
} matrix_t;

static void
matrix_open(matrix_t *m, const cpu_isa_t *isa, uint64_t *seed, uint32_t type,
    uint32_t values, uint32_t n, uint32_t k)
{
    uint32_t i, count = values ? k : n, width = values ? n : k;
    size_t stride = type_bytes(type, width);
    cpu_rows_t a;

    m->type = type;
    m->values = values;
    m->n = n;
    m->k = k;
    guard_open(&m->cache, count * stride);
    rnd_weights(seed, type, m->cache.p, (size_t) count * width);
    m->w = aligned_alloc(64, (CPU_SEEN + 1) * 320 * sizeof(float));
    assert_non_null(m->w);
    memset(m->w, 0xff, (CPU_SEEN + 1) * 320 * sizeof(float));

    /* in no order */
    for (i = 0; i < count; i++) {
        m->rows[i] = (char *) m->cache.p + (i * 7 + 3) % count * stride;
    }

    a.to = m->w;
    a.from = m->rows;
    a.n = count;
    a.k = width;
    (values ? isa->attn->values[type] : isa->attn->keys[type])(&a);
}

static double
matrix_at(const matrix_t *m, uint32_t c, uint32_t j)
{
    return m->values ? weight_at(m->type, m->rows[c], j)
                     : weight_at(m->type, m->rows[j], c);
}

/* What is laid out is what the same rows give as floats, bit for bit. */
static void
check_plain(const cpu_isa_t *isa, const matrix_t *m)
{
    uint32_t i, count = m->values ? m->k : m->n, width;
    size_t size = (CPU_SEEN + 1) * 320 * sizeof(float);
    float *rows = malloc(count * 320 * sizeof(float));
    const char *from[CPU_SEEN];
    cpu_rows_t a;

    width = m->values ? m->n : m->k;
    a.to = aligned_alloc(64, size);
    assert_true(rows != NULL && a.to != NULL);
    memset(a.to, 0xff, size);

    for (i = 0; i < count; i++) {
        cpu_ref.row[m->type](rows + (size_t) i * 320, m->rows[i], width);
        from[i] = (const char *) (rows + (size_t) i * 320);
    }

    a.from = from;
    a.n = count;
    a.k = width;
    (m->values ? isa->attn->values : isa->attn->keys)[KN_F32](&a);
    assert_memory_equal(a.to, m->w, size);
    free(a.to);
    free(rows);
}

/* Row i alone, its terms in two calls: the same bits. */
static void
check_strips_alone(const cpu_isa_t *isa, const cpu_strips_t *p,
    const float *before, uint32_t i)
{
    float row[320], *y = row;
    cpu_strips_t a = *p;

    memset(row, 0xff, sizeof(row));
    memcpy(row, before, p->n * sizeof(float));
    a.x += i;
    a.y = &y;
    a.m = 1;
    a.to = p->from + (p->to - p->from + 1) / 2;
    isa->attn->strips(&a);
    a.from = a.to;
    a.to = p->to;
    a.fresh = 0;

    if (a.from < a.to) {
        isa->attn->strips(&a);
    }

    assert_memory_equal(row, p->y[i], p->n * sizeof(float));
}

/* y of the cache's own rows: the same bits. */
static void
check_mix(const cpu_isa_t *isa, const matrix_t *m, const cpu_strips_t *p,
    const float *before, uint32_t i)
{
    float row[320], *y = row;
    cpu_strips_t a = *p;

    memcpy(row, before, p->n * sizeof(float));
    a.x += i;
    a.y = &y;
    a.m = 1;
    a.w = NULL;
    a.cache = m->rows;
    isa->attn->mix[m->type](&a);
    assert_memory_equal(row, p->y[i], p->n * sizeof(float));
}

static void
check_strips(const cpu_isa_t *isa, uint64_t *seed, const matrix_t *m)
{
    enum { M = 20, WIDTH = 320 };
    static float before[M][WIDTH], y[M][WIDTH];
    const float *x[M];
    float *to[M];
    guard_t q[M];
    uint32_t i, j, c;
    double sum, size, t;
    cpu_strips_t p;

    memset(&p, 0, sizeof(p));
    p.m = 1 + rnd(seed) % M;
    p.n = m->n;
    p.rows = m->values ? CPU_SEEN + 1 : m->k;
    p.from = m->values ? rnd(seed) % m->k : 0;
    p.to = m->values ? p.from + 1 + rnd(seed) % (m->k - p.from) : m->k;
    p.fresh = rnd(seed) % 2;
    p.x = x;
    p.y = to;
    p.w = m->w;
    p.ahead = rnd(seed) % 2 ? m->rows : NULL;
    p.ahead_size = 1;

    for (i = 0; i < p.m; i++) {
        x[i] = guard_open(&q[i], m->k * sizeof(float));
        to[i] = y[i];
        rnd_weights(seed, KN_F32, q[i].p, m->k);
        rnd_weights(seed, KN_F32, y[i], WIDTH);
        memcpy(before[i], y[i], sizeof(y[i]));
    }

    /* a fetch is of CPU_SEEN rows */
    p.ahead = (m->values ? m->k : m->n) == CPU_SEEN ? p.ahead : NULL;
    isa->attn->strips(&p);

    for (i = 0; i < p.m; i++) {
        for (j = 0; j < p.n; j++) {
            sum = p.fresh ? 0 : before[i][j];
            size = fabs(sum);

            for (c = p.from; c < p.to; c++) {
                t = x[i][c] * matrix_at(m, c, j);
                sum += t;
                size += fabs(t);
            }

            assert_true(fabs(y[i][j] - sum) <= 1.3e-7 * (p.to - p.from) * size);
        }

        for (j = (p.n + CPU_STRIP - 1) / CPU_STRIP * CPU_STRIP; j < WIDTH;
             j++) {
            assert_true(y[i][j] == before[i][j]);
        }

        check_strips_alone(isa, &p, before[i], i);

        if (m->values && m->n % CPU_STRIP == 0) {
            check_mix(isa, m, &p, before[i], i);
        }

        guard_close(&q[i]);
    }
}

static void
test_strips(void **state)
{
    const cpu_isa_t *isa = isa_of(state);
    uint64_t seed = 4;
    uint32_t i, type, values, width;
    matrix_t m;

    for (i = 0; isa->attn != NULL && i < 800; i++) {
        type = i % KN_KV_TYPES;
        values = i / KN_KV_TYPES % 2;
        width = 1 + rnd(&seed) % 300;
        width = values && i % 5 == 0 ? 32 * (1 + i % 9) : width;
        width += kn_kv_block(type) - 1;
        width -= width % kn_kv_block(type);

        if (values) {
            matrix_open(
                &m, isa, &seed, type, 1, width, 1 + rnd(&seed) % CPU_SEEN);
        } else {
            matrix_open(&m, isa, &seed, type, 0,
                i % 5 ? 1 + rnd(&seed) % CPU_SEEN : CPU_SEEN, width);
        }

        check_plain(isa, &m);
        check_strips(isa, &seed, &m);
        free(m.w);
        guard_close(&m.cache);
    }
}

static void
test_join(void **state)
{
    const cpu_isa_t *isa = isa_of(state);
    uint64_t seed = 11;
    float y[320], x[320], before[320];
    uint32_t n, i;
    double v;

    for (n = CPU_STRIP; isa->attn != NULL && n <= 320; n += CPU_STRIP) {
        rnd_weights(&seed, KN_F32, y, 320);
        rnd_weights(&seed, KN_F32, x, 320);
        memcpy(before, y, sizeof(y));
        isa->attn->join(y, x, n, 0.3f, 0.7f);

        for (i = 0; i < 320; i++) {
            v = before[i] * (double) 0.3f + x[i] * (double) 0.7f;
            v = i < n ? v : before[i];
            assert_true(
                fabs(y[i] - v) <= 2e-7 * (fabs(x[i]) + fabs(before[i])));
        }
    }
}

/* Pair i of x, by neighbours or halves: where its elements are. */
static uint32_t
pair_at(uint32_t halves, uint32_t half, uint32_t i, uint32_t second)
{
    return halves ? i + second * half : 2 * i + second;
}

static void
test_rotate(void **state)
{
    const cpu_isa_t *isa = isa_of(state);
    float before[300], cos[300], sin[300], angle;
    uint64_t seed = 12;
    uint32_t half, halves, i, a, b;
    double x, y;
    guard_t g;

    for (half = 1; half <= 150; half++) {
        for (halves = 0; isa->rotate[0] != NULL && halves < 2; halves++) {
            guard_open(&g, half * 2 * sizeof(float));

            for (i = 0; i < half; i++) {
                a = pair_at(halves, half, i, 0);
                b = pair_at(halves, half, i, 1);
                angle = rnd_float(&seed) * 4;
                cos[a] = cos[b] = cosf(angle);
                sin[a] = -sinf(angle);
                sin[b] = sinf(angle);
                before[a] = ((float *) g.p)[a] = rnd_float(&seed);
                before[b] = ((float *) g.p)[b] = rnd_float(&seed);
            }

            isa->rotate[halves](g.p, cos, sin, half);

            for (i = 0; i < half; i++) {
                a = pair_at(halves, half, i, 0);
                b = pair_at(halves, half, i, 1);
                x = (double) before[a] * cos[a] - (double) before[b] * sin[b];
                y = (double) before[b] * cos[b] + (double) before[a] * sin[b];
                assert_true(fabs(((float *) g.p)[a] - x) < 2e-7);
                assert_true(fabs(((float *) g.p)[b] - y) < 2e-7);
            }

            guard_close(&g);
        }
    }
}

static void
test_softmax(void **state)
{
    const cpu_isa_t *isa = isa_of(state);
    uint64_t seed = 8;
    float before[300], max, sum;
    double top, total, v;
    uint32_t n, i;
    guard_t w;

    for (n = 1; isa->attn != NULL && n <= 300; n++) {
        guard_open(&w, n * sizeof(float));

        for (top = -INFINITY, i = 0; i < n; i++) {
            before[i] = rnd_float(&seed) * (n % 2 ? 300 : 3);
            ((float *) w.p)[i] = before[i];
            top = fmax(top, before[i] * 0.25f);
        }

        sum = isa->attn->softmax(w.p, n, 0.25f, &max);
        assert_true(max == (float) top);

        for (total = 0, i = 0; i < n; i++) {
            v = exp(before[i] * 0.25f - (float) top);
            total += v;
            assert_true(fabs(((float *) w.p)[i] - v) <= 1e-6 * v + 2e-38);
        }

        assert_true(fabs(sum - total) <= 1e-5 * total);

        /* one that is no number is not lost */
        memcpy(w.p, before, n * sizeof(float));
        ((float *) w.p)[n / 2] = NAN;
        assert_true(isnan(isa->attn->softmax(w.p, n, 0.25f, &max)));
        guard_close(&w);
    }
}

static void
test_rmsnorm(void **state)
{
    const cpu_isa_t *isa = isa_of(state);
    uint64_t seed = 9;
    float before[300], sum;
    guard_t x, y, w, add;
    uint32_t n, i, with;
    double s, v;

    for (n = 1; isa->rmsnorm != NULL && n <= 300; n++) {
        with = n % 3 != 0;
        guard_open(&x, n * sizeof(float));
        guard_open(&y, n * sizeof(float));
        guard_open(&w, n * sizeof(float));
        guard_open(&add, n * sizeof(float));
        rnd_weights(&seed, KN_F32, x.p, n);
        rnd_weights(&seed, KN_F32, w.p, n);
        rnd_weights(&seed, KN_F32, add.p, n);
        memcpy(before, x.p, n * sizeof(float));
        isa->rmsnorm(y.p, x.p, with ? add.p : NULL, w.p, n, 1e-5f);

        for (s = 0, i = 0; i < n; i++) {
            sum = before[i] + (with ? ((float *) add.p)[i] : 0);
            assert_true(((float *) x.p)[i] == sum);
            s += (double) sum * sum;
        }

        for (i = 0; i < n; i++) {
            v = ((float *) x.p)[i] / sqrt(s / n + 1e-5) * ((float *) w.p)[i];
            assert_true(fabs(((float *) y.p)[i] - v) <= 1e-6 * fabs(v));
        }

        guard_close(&x);
        guard_close(&y);
        guard_close(&w);
        guard_close(&add);
    }
}

/* Is h the half nearest to f, the even one of two? */
static int
is_nearest_half(float f, uint16_t h)
{
    double d, other;
    uint16_t up, down;

    if (isnan(f)) {
        return (h & 0x7fff) > 0x7c00;
    }

    if ((h >> 15) != (signbit(f) ? 1 : 0)) {
        return 0;
    }

    if (fabsf(f) >= 65520) {
        return (h & 0x7fff) == 0x7c00;
    }

    if ((h & 0x7fff) >= 0x7c00) {
        return 0;
    }

    d = fabs(half_value(h) - f);
    up = (h & 0x7fff) + 1;
    other = fabs(half_value(up) - fabs(f));

    if (up < 0x7c00 && (d > other || (d == other && (h & 1)))) {
        return 0;
    }

    down = (h & 0x7fff) - 1;
    other = fabs(half_value(down) - fabs(f));

    return (h & 0x7fff) == 0 || !(d > other || (d == other && (h & 1)));
}

static void
test_put_f16(void **state)
{
    const cpu_isa_t *isa = isa_of(state);
    uint64_t seed = 5;
    uint32_t n, i, u;
    guard_t src, dst;
    uint16_t h;
    float f;

    for (n = 1; isa->kv_put[KN_F16] != NULL && n <= 300; n++) {
        guard_open(&src, n * sizeof(float));
        guard_open(&dst, n * 2);

        for (i = 0; i < n; i++) {
            /* Any exponent near a half's, half of them ties. */
            u = (rnd(&seed) & 0x807fffff) | (90 + rnd(&seed) % 56) << 23;
            u = rnd(&seed) % 2 ? u : (u & 0xffffe000) | 0x1000;
            u = rnd(&seed) % 50 ? u : rnd(&seed) | 0x7f800000;
            memcpy((char *) src.p + i * 4, &u, 4);
        }

        isa->kv_put[KN_F16](dst.p, src.p, n);

        for (i = 0; i < n; i++) {
            memcpy(&h, (char *) dst.p + i * 2, 2);
            memcpy(&f, (char *) src.p + i * 4, 4);

            if (!is_nearest_half(f, h)) {
                fail_msg("%a became 0x%04x", f, h);
            }
        }

        memcpy(&h, (char *) dst.p - 2, 2);
        assert_int_equal(h, 0xffff);
        guard_close(&src);
        guard_close(&dst);
    }
}

static void
test_put_others(void **state)
{
    const cpu_isa_t *isa = isa_of(state);
    uint64_t seed = 6;
    guard_t src, dst;
    uint32_t n, i, u, r;
    uint16_t h;
    float f;

    for (n = 1; n <= 300; n++) {
        guard_open(&src, n * sizeof(float));

        for (i = 0; i < n; i++) {
            u = rnd(&seed);
            u = rnd(&seed) % 2 ? u : (u & 0xffff0000) | 0x8000;
            memcpy((char *) src.p + i * 4, &u, 4);
        }

        if (isa->kv_put[KN_F32] != NULL) {
            guard_open(&dst, n * sizeof(float));
            isa->kv_put[KN_F32](dst.p, src.p, n);
            assert_memory_equal(dst.p, src.p, n * sizeof(float));
            guard_close(&dst);
        }

        guard_open(&dst, n * 2);

        if (isa->kv_put[KN_BF16] != NULL) {
            isa->kv_put[KN_BF16](dst.p, src.p, n);
        }

        for (i = 0; isa->kv_put[KN_BF16] != NULL && i < n; i++) {
            memcpy(&h, (char *) dst.p + i * 2, 2);
            memcpy(&u, (char *) src.p + i * 4, 4);
            memcpy(&f, &u, 4);
            r = u & 0xffff;
            u >>= 16;
            u += r > 0x8000 || (r == 0x8000 && (u & 1));
            assert_true(isnan(f) ? (h & 0x7fff) > 0x7f80 : h == u);
        }

        guard_close(&dst);
        guard_close(&src);
    }
}

/* 32 floats of about one size, or of all, some of them no numbers. */
static void
rnd_block(uint64_t *seed, char *p)
{
    uint32_t i, u, odd = rnd(seed) % 8, top = 1 + rnd(seed) % 250;

    for (i = 0; i < 32; i++) {
        u = (rnd(seed) & 0x807fffff) | (top - rnd(seed) % top % 12) << 23;
        u = odd == 1 ? rnd(seed) & 0xbfffffff : u;
        u = odd == 2 ? rnd(seed) : u;
        u = odd == 3 ? rnd(seed) & 0x80000000 : u;
        u = odd == 4 && i == 7 ? 0x7f800000 | rnd(seed) % 2 << 31 : u;
        u = odd == 5 && i == 31 ? rnd(seed) | 0x7fc00000 : u;
        /* halves between two numbers of a factor of 2^-7 */
        u = odd >= 6 && i > 0 ? (u & 0x80000000) | 0x3c000000 : u;
        memcpy(p + (size_t) i * 4, &u, 4);
    }

    for (i = 0; odd >= 6 && i < 32; i++) {
        float f = (i == 0 ? 127 : (float) (rnd(seed) % 254) / 2) * 0x1p-7f;

        f = rnd(seed) % 2 ? f : -f;
        memcpy(p + (size_t) i * 4, &f, 4);
    }
}

/* Block p says what x are, as nearly as its factor and kernels.h have it. */
static void
check_block(const float *x, const char *p)
{
    uint32_t i;
    double d, q, top = 0;
    int finite = 1, n;
    uint16_t h;

    for (i = 0; i < 32; i++) {
        finite = finite && isfinite(x[i]);
        top = fabs(x[i]) > top ? fabs(x[i]) : top;
    }

    memcpy(&h, p, 2);

    if (!finite || top / 127 >= 65520) {
        assert_int_equal(h, 0x7e00);
        return;
    }

    assert_true(is_nearest_half((float) top / 127.0f, h));
    d = half_value(h);

    for (i = 0; i < 32; i++) {
        n = (int8_t) p[2 + i];
        q = d > 0 ? x[i] / d : 0;
        /* the product with 1 / d is rounded twice */
        assert_true(fabs(q - n) <= 0.5 + 3e-5 || (n == 127 && q > 127)
                    || (n == -128 && q < -128));

        if (d == 0x1p-7 && q * 2 == floor(q * 2)) {
            assert_int_equal(n, (int) nearbyint(q));
        }
    }
}

static void
test_put_q8_0(void **state)
{
    const cpu_isa_t *isa = isa_of(state);
    uint64_t seed = 16;
    uint32_t n, i, j;
    guard_t src, dst;
    char *want;

    for (j = 0; isa->kv_put[KN_Q8_0] != NULL && j < 400; j++) {
        n = 32 * (1 + j % 9);
        guard_open(&src, n * sizeof(float));
        guard_open(&dst, type_bytes(KN_Q8_0, n));
        want = malloc(type_bytes(KN_Q8_0, n));
        assert_non_null(want);

        for (i = 0; i < n; i += 32) {
            rnd_block(&seed, (char *) src.p + (size_t) i * 4);
        }

        isa->kv_put[KN_Q8_0](dst.p, src.p, n);
        cpu_ref.kv_put[KN_Q8_0](want, src.p, n);
        assert_memory_equal(dst.p, want, type_bytes(KN_Q8_0, n));

        for (i = 0; i < n; i += 32) {
            check_block((float *) src.p + i,
                (const char *) dst.p + type_bytes(KN_Q8_0, i));
        }

        free(want);
        guard_close(&src);
        guard_close(&dst);
    }
}

#define LIMIT 2.5f

/* act(x, up), and in *size how its own error grows with that of x. */
static double
act_value(uint32_t act, double x, double up, double *size)
{
    double u = x;

    if (act == KN_GELU) {
        u = sqrt(8 / 3.14159265358979324) * (x + 0.044715 * x * x * x);
    }

    if (act == KN_CLAMP) {
        x = fmin(x, LIMIT);
        up = 1 + fmax(fmin(up, LIMIT), -LIMIT);
        u = 1.702 * x;
    }

    *size = act == KN_SILU ? 1 : 1 + fabs(u) / 4;

    return x / (1 + exp(-u)) * up;
}

/* A gate or an up that is no number lets no other come out. */
static void
check_act_nan(const cpu_isa_t *isa, uint32_t act)
{
    uint32_t i;
    float gate[3] = {NAN, 1, NAN}, up[3] = {1, NAN, NAN};

    isa->act_mul[act](gate, up, 3, LIMIT);

    for (i = 0; i < 3; i++) {
        assert_true(isnan(gate[i]));
    }
}

static void
check_act_mul(const cpu_isa_t *isa, uint32_t act)
{
    uint64_t seed = 7;
    guard_t gate, up;
    float before[300], one;
    uint32_t n, i;
    double v, size;

    for (n = 1; n <= 300; n++) {
        guard_open(&gate, n * sizeof(float));
        guard_open(&up, n * sizeof(float));

        for (i = 0; i < n; i++) {
            before[i] = rnd_float(&seed) * (i % 3 == 0 ? 100 : 5);
            ((float *) gate.p)[i] = before[i];
            ((float *) up.p)[i] = rnd_float(&seed) * 4;
        }

        isa->act_mul[act](gate.p, up.p, n, LIMIT);

        for (i = 0; i < n; i++) {
            v = act_value(act, before[i], ((float *) up.p)[i], &size);
            assert_true(fabs(((float *) gate.p)[i] - v)
                        <= 1e-6 * size * fabs(v) + 4e-36);
            one = before[i];
            isa->act_mul[act](&one, (float *) up.p + i, 1, LIMIT);
            assert_memory_equal(&one, (float *) gate.p + i, sizeof(one));
        }

        guard_close(&gate);
        guard_close(&up);
    }
}

static void
test_act_mul(void **state)
{
    const cpu_isa_t *isa = isa_of(state);
    uint32_t act;

    for (act = 0; act < KN_ACTS; act++) {
        if (isa->act_mul[act] != NULL) {
            check_act_mul(isa, act);
            check_act_nan(isa, act);
        }
    }
}

static void
test_soft_cap(void **state)
{
    const cpu_isa_t *isa = isa_of(state);
    uint64_t seed = 10;
    float before[300], one, scale, cap;
    uint32_t n, i;
    double v;
    guard_t x;

    for (n = 1; isa->soft_cap != NULL && n <= 300; n++) {
        guard_open(&x, n * sizeof(float));
        scale = 0.01f + fabsf(rnd_float(&seed));
        cap = 0.5f + 50 * fabsf(rnd_float(&seed));

        for (i = 0; i < n; i++) {
            before[i] = rnd_float(&seed) * (i % 3 == 0 ? 1000 : 0.5f);
            before[i] = i % 10 == 7 ? before[i] * 1e-6f : before[i];
            ((float *) x.p)[i] = before[i];
        }

        isa->soft_cap(x.p, n, scale, cap);

        for (i = 0; i < n; i++) {
            v = cap * tanh((double) scale * before[i] / cap);
            assert_true(fabs(((float *) x.p)[i] - v) <= 1e-6 * fabs(v));
            one = before[i];
            isa->soft_cap(&one, 1, scale, cap);
            assert_memory_equal(&one, (float *) x.p + i, sizeof(one));
        }

        ((float *) x.p)[n / 2] = NAN;
        isa->soft_cap(x.p, n, scale, cap);
        assert_true(isnan(((float *) x.p)[n / 2]));
        guard_close(&x);
    }
}

/* What plain C alone has. */
#define REF_TESTS(T)                                                           \
    T(matmul)                                                                  \
    T(matmul_not_finite)                                                       \
    T(row)

#define TESTS(T)                                                               \
    T(strips)                                                                  \
    T(join)                                                                    \
    T(rotate)                                                                  \
    T(softmax)                                                                 \
    T(rmsnorm)                                                                 \
    T(put_f16)                                                                 \
    T(put_others)                                                              \
    T(put_q8_0)                                                                \
    T(act_mul)                                                                 \
    T(soft_cap)

int
main(void)
{
    /* clang-format off */
    const struct CMUnitTest tests[] = {
#define T(f) {"ref " #f, test_##f, NULL, NULL, (void *) &cpu_ref},
        REF_TESTS(T)
        TESTS(T)
#undef T
#define T(f) {"avx2 " #f, test_##f, NULL, NULL, (void *) &cpu_avx2},
        TESTS(T)
#undef T
#define T(f) {"avx512 " #f, test_##f, NULL, NULL, (void *) &cpu_avx512},
        TESTS(T)
#undef T
    };
    /* clang-format on */

    return cmocka_run_group_tests_name("isa", tests, NULL, NULL);
}
