/*
 * The differential runner: every row of the op list on every CPU table, at
 * shapes with edges.  Fails when a table differs from the plain C one by more
 * than rounding, when a row of a batch has other bits than alone or with
 * another number of threads, when an op writes outside its output or reads
 * what no sequence of the step owns, or when an op has no test.
 *
 * Each op is a function that builds its inputs from a case, runs, and gives
 * its output as [rows, width] floats.  Device memory is poisoned with NaN
 * wherever the op has no business.
 */
#include "../unit/brief.h"
#include "cache.h"
#include "rig.h"
#include "router.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS_MOST 4 /* that all must be as one */

static result_t
run_embed(sub_t *s, const case_t *c)
{
    kn_embed_t a = {weight(s, c), {0}, c->scale, 0};
    result_t r;
    uint32_t i;

    /* c->same: of the vocabulary's second part, as it were */
    a.first = c->same ? c->n / 2 + 1 : 0;
    a.y = put(s, NULL, s->step.tokens_n * c->k * sizeof(float));
    call(s, OP_embed, &a);
    r = get_rows(s, c, a.y, c->k);

    for (i = 0; i < r.rows * c->k; i++) {
        assert_true(s->tokens[i / c->k] >= a.first || r.v[i] == 0);
    }

    return r;
}

/* Part i of what rmsnorm did to x: left is x after, y the norm. */
static void
check_norm(const case_t *c, const float *x, const float *add, const float *w,
    const float *left, const float *y)
{
    uint32_t j;
    float v;
    double sum;

    for (sum = 0, j = 0; j < c->k; j++) {
        v = c->add ? x[j] + add[j] : x[j];
        assert_true(left[j] == (c->same ? y[j] : v));
        sum += (double) v * v;
    }

    sum = 1 / sqrt(sum / c->k + 1e-5f);

    for (j = 0; j < c->k; j++) {
        v = c->add ? x[j] + add[j] : x[j];
        assert_true(fabs(y[j] - v * sum * w[j]) < 1e-6 * (fabs(y[j]) + 1));
    }
}

static result_t
run_rmsnorm(sub_t *s, const case_t *c)
{
    kn_rmsnorm_t a;
    float *x, *add, *w, *y, *left;
    uint32_t i, rows, width;
    size_t at;
    result_t r;

    memset(&a, 0, sizeof(a));
    width = c->parts * c->k;
    x = vectors(c->seed + 1, op_rows(c), width);
    add = vectors(c->seed + 2, op_rows(c), width);
    w = vectors(c->seed + 3, 1, c->k);
    rows = c->only == ALL ? op_rows(c) : 1;

    a.x = put_rows(s, c, x, width);
    a.w = put(s, w, c->k * sizeof(float));
    a.y = c->same ? a.x : put(s, NULL, rows * width * sizeof(float));
    a.parts = c->parts;
    a.dim = c->k;
    a.rows = c->which;
    a.eps = 1e-5f;

    if (c->add) {
        a.add = put_rows(s, c, add, width);
    }

    call(s, OP_rmsnorm, &a);

    /* The residual is an output too: [y, x]. */
    y = get(s, a.y, rows * width * sizeof(float));
    left = get(s, a.x, rows * width * sizeof(float));
    r.rows = rows;
    r.width = 2 * width;
    r.v = need((size_t) rows * r.width * sizeof(float));

    for (i = 0; i < rows; i++) {
        memcpy(r.v + i * r.width, y + i * width, width * sizeof(float));
        memcpy(
            r.v + i * r.width + width, left + i * width, width * sizeof(float));
    }

    for (i = 0; i < rows * c->parts; i++) {
        at = (size_t) i * c->k + (c->only == ALL ? 0 : c->only * width);
        check_norm(c, x + at, add + at, w, left + i * c->k, y + i * c->k);
    }

    free(x);
    free(add);
    free(w);
    free(y);
    free(left);

    return r;
}

static result_t
run_add(sub_t *s, const case_t *c)
{
    kn_add_t a = {{0}, {0}, {0}, c->k, c->which};
    float *x, *add, *gate;
    uint32_t i, at;
    result_t r;

    x = vectors(c->seed + 1, op_rows(c), c->k);
    add = vectors(c->seed + 2, op_rows(c), c->k);
    a.x = put_rows(s, c, x, c->k);
    a.add = put_rows(s, c, add, c->k);
    gate = vectors(c->seed + 3, op_rows(c), 1);

    if (c->add) {
        a.gate = put_rows(s, c, gate, 1);
    }

    call(s, OP_add, &a);
    r = get_rows(s, c, a.x, c->k);

    for (i = 0; i < r.rows * c->k; i++) {
        at = i + (c->only == ALL ? 0 : c->only * c->k);
        assert_true(fabs(r.v[i] - x[at]
                         - add[at] / (c->add ? 1 + exp(-gate[at / c->k]) : 1))
                    < 2e-7);
    }

    free(x);
    free(add);
    free(gate);

    return r;
}

/* The type of product i: of those that k allows, c's own first. */
static uint32_t
type_for(const case_t *c, uint32_t k, uint32_t i)
{
    uint32_t type = c->type;

    while (c->mixed && i > 0) {
        type = (type + 1) % KN_TYPES;
        i -= k % type_elems(type) == 0;
    }

    return type;
}

/* acts_tolerance() of the worst of them. */
static double
mixed_tolerance(const cpu_isa_t *isa, const case_t *c, double tolerance)
{
    uint32_t i;
    double worst = 0;

    for (i = 0; i < KN_PRODUCTS_MAX; i++) {
        worst =
            fmax(worst, acts_tolerance(isa, type_for(c, c->k, i), tolerance));
    }

    return worst;
}

static uint32_t
rows_of_case(const case_t *c)
{
    return c->only == ALL ? op_rows(c) : 1;
}

/* Product i of the case: its matrix, and a bias if there are biases. */
static kn_product_t
put_product(sub_t *s, const case_t *c, uint32_t i, uint32_t n)
{
    case_t one = *c;
    kn_product_t p = {NULL, {0}, {0}, c->scale, c->cap};
    float *bias;

    one.seed += 30 * i;
    one.n = n;
    one.type = type_for(c, c->k, i);
    p.w = weight(s, &one);
    p.y = put(s, NULL, (size_t) rows_of_case(c) * n * sizeof(float));

    if (c->add) {
        bias = vectors(one.seed + 3, 1, n);
        p.bias = put(s, bias, n * sizeof(float));
        free(bias);
    }

    return p;
}

/* Appends b's columns to r's, if it has any. */
static void
beside(result_t *r, result_t b)
{
    uint32_t i;
    result_t both = {NULL, b.rows, r->width + b.width};

    if (r->v == NULL) {
        *r = b;
        return;
    }

    both.v = need((size_t) b.rows * both.width * sizeof(float));

    for (i = 0; i < b.rows; i++) {
        memcpy(both.v + i * both.width, r->v + i * r->width,
            r->width * sizeof(float));
        memcpy(both.v + i * both.width + r->width, b.v + i * b.width,
            b.width * sizeof(float));
    }

    free(r->v);
    free(b.v);
    *r = both;
}

/* Product p of x alone has the bits that got has. */
static void
check_alone(sub_t *s, const case_t *c, kn_ptr_t x, kn_product_t p, uint32_t n,
    const float *got)
{
    kn_matmul_t a = {.x = x, .n = 1, .rows = c->which};
    size_t size = (size_t) rows_of_case(c) * n * sizeof(float);
    float *y;

    p.y = put(s, NULL, size);
    a.of[0] = p;
    call(s, OP_matmul, &a);
    y = get(s, p.y, size);
    assert_memory_equal(y, got, size);
    free(y);
}

/* [y of all products]: as many as fit the case's number. */
static result_t
run_matmul(sub_t *s, const case_t *c)
{
    kn_matmul_t a = {.n = 1 + c->seed / 2 % KN_PRODUCTS_MAX, .rows = c->which};
    const uint32_t n[KN_PRODUCTS_MAX] = {c->n, 1 + c->n / 2, c->n + 64};
    float *x = vectors(c->seed + 2, op_rows(c), c->k);
    uint32_t i;
    result_t r = {NULL, 0, 0}, one;

    a.x = put_rows(s, c, x, c->k);

    for (i = 0; i < a.n; i++) {
        a.of[i] = put_product(s, c, i, n[i]);
    }

    call(s, OP_matmul, &a);

    for (i = 0; i < a.n; i++) {
        one = get_rows(s, c, a.of[i].y, n[i]);

        if (a.n > 1) {
            check_alone(s, c, a.x, a.of[i], n[i], one.v);
        }

        beside(&r, one);
    }

    free(x);

    return r;
}

/* The op is the two products and the activation one after another, by bits. */
static void
check_gated(sub_t *s, const case_t *c, const kn_gated_t *a, kn_product_t gate,
    kn_product_t up, const float *got)
{
    kn_matmul_t two = {.x = a->x, .of = {gate, up}, .n = 2, .rows = a->rows};
    size_t size = (size_t) rows_of_case(c) * c->n * sizeof(float);
    float *g, *u;
    void (*act)(float *gate, const float *up, uint32_t n, float limit);

    call(s, OP_matmul, &two);
    g = get(s, gate.y, size);
    u = get(s, up.y, size);
    act = s->isa != NULL ? s->isa->act_mul[a->act] : cpu_ref.act_mul[a->act];
    act(g, u, rows_of_case(c) * c->n, a->limit);
    assert_memory_equal(g, got, size);
    free(g);
    free(u);
}

static result_t
run_gated(sub_t *s, const case_t *c)
{
    case_t plain = *c;
    kn_product_t gate, up;
    kn_gated_t a;
    float *x = vectors(c->seed + 2, op_rows(c), c->k);
    result_t r;

    plain.scale = 1;
    plain.cap = 0;
    gate = put_product(s, &plain, 0, c->n);
    up = put_product(s, &plain, 1, c->n);
    a = (kn_gated_t){.gate = gate.w,
        .up = up.w,
        .gate_bias = gate.bias,
        .up_bias = up.bias,
        .x = put_rows(s, c, x, c->k),
        .y = put(s, NULL, (size_t) rows_of_case(c) * c->n * sizeof(float)),
        .rows = c->which,
        .act = c->act,
        .limit = c->limit};
    call(s, OP_gated, &a);
    r = get_rows(s, c, a.y, c->n);
    check_gated(s, c, &a, gate, up, r.v);
    free(x);

    return r;
}

static result_t
run_rope_angles(sub_t *s, const case_t *c)
{
    kn_rope_angles_t a = {{0}, {0}, c->half, c->scale};
    double freq[128];
    uint32_t i, t;
    size_t at;
    result_t r;

    for (i = 0; i < c->half; i++) {
        freq[i] = pow(10000, -(double) i / c->half);
    }

    a.freq = put(s, freq, c->half * sizeof(double));
    a.cs = put(s, NULL, s->step.tokens_n * c->half * 2 * sizeof(float));
    call(s, OP_rope_angles, &a);
    r = get_rows(s, c, a.cs, c->half * 2);

    for (t = 0; t < s->step.tokens_n; t++) {
        for (i = 0; i < c->half; i++) {
            at = (size_t) (t * c->half + i) * 2;
            assert_true(
                fabs(r.v[at] - c->scale * cos(s->pos[t] * freq[i])) < 2e-7);
            assert_true(
                fabs(r.v[at + 1] - c->scale * sin(s->pos[t] * freq[i])) < 2e-7);
        }
    }

    return r;
}

static result_t
run_headmul(sub_t *s, const case_t *c)
{
    kn_headmul_t a;
    case_t all = *c;
    float *x, *w;
    const float *from;
    uint32_t i, j, e, t, h, out = c->rest + c->n;
    double v, sum, size;
    result_t r;

    all.n = c->heads * c->n;
    memset(&a, 0, sizeof(a));
    a.w = weight(s, &all);
    a.heads = c->heads;
    a.rest = c->rest;
    a.rows = c->which;
    x = vectors(c->seed + 2, op_rows(c), c->heads * (c->k + c->rest));
    a.x = put_rows(s, c, x, c->heads * (c->k + c->rest));
    a.y = put(s, NULL,
        (c->only == ALL ? op_rows(c) : 1) * c->heads * out * sizeof(float));
    call(s, OP_headmul, &a);
    r = get_rows(s, c, a.y, c->heads * out);
    w = need((size_t) all.n * c->k * sizeof(float));
    weight_floats(&all, w);

    for (i = 0; i < r.rows * c->heads; i++) {
        t = i / c->heads + (c->only == ALL ? 0 : c->only);
        h = i % c->heads;
        from = x + (size_t) (t * c->heads + h) * (c->k + c->rest);
        assert_memory_equal(
            r.v + (size_t) i * out, from + c->k, c->rest * sizeof(float));

        for (j = 0; j < c->n; j++) {
            for (sum = size = 0, e = 0; e < c->k; e++) {
                v = (double) from[e] * w[(size_t) (h * c->n + j) * c->k + e];
                sum += v;
                size += fabs(v);
            }

            v = r.v[(size_t) i * out + c->rest + j];
            assert_true(
                fabs(v - sum) <= acts_tolerance(s->isa, c->type, 2e-6) * size);
        }
    }

    free(x);
    free(w);

    return r;
}

/* What moe_ffn is given, rows of the case. */
typedef struct {
    float *x, *weights; /* [rows, k], [rows, USED] */
    float *bias[3];     /* [EXPERTS, n], [EXPERTS, n], [EXPERTS, k] */
    uint32_t ids[TOKENS_MAX * USED];
} moe_in_t;

/* The case of matrix m of expert e: 0 is the gate, 1 up, 2 down. */
static case_t
expert_case(const case_t *c, uint32_t m, uint32_t e)
{
    case_t one = *c;

    one.seed = c->seed + 20 * (m * EXPERTS + e);
    one.n = m < 2 ? c->n : c->k;
    one.k = m < 2 ? c->k : c->n;
    one.type = type_for(c, one.k, (m + e) % KN_PRODUCTS_MAX);

    return one;
}

/* y = x w^T + bias, w being matrix m of expert e, in the plainest way. */
static void
expert_naive(const case_t *c, const moe_in_t *in, uint32_t m, uint32_t e,
    const double *x, double *y)
{
    uint32_t i, j;
    case_t one = expert_case(c, m, e);
    uint64_t seed = one.seed + 1;
    char *w = need(type_bytes(one.type, (size_t) one.n * one.k));

    rnd_weights(&seed, one.type, w, (size_t) one.n * one.k);

    for (i = 0; i < one.n; i++) {
        y[i] = c->add ? in->bias[m][e * one.n + i] : 0;

        for (j = 0; j < one.k; j++) {
            y[i] += x[j] * weight_at(one.type, w, i * one.k + j);
        }
    }

    free(w);
}

/* The same of the activation. */
static double
act_naive(const case_t *c, double g, double u)
{
    if (c->act == KN_CLAMP) {
        g = fmin(g, c->limit);
        return g / (1 + exp(-1.702 * g))
               * (fmax(fmin(u, c->limit), -c->limit) + 1);
    }

    return c->act == KN_SILU
               ? g / (1 + exp(-g)) * u
               : g / 2 * (1 + tanh(sqrt(2 / M_PI) * (g + 0.044715 * g * g * g)))
                     * u;
}

/* Is y row's sum over its experts?  Where their matrices are small. */
static void
check_moe(const cpu_isa_t *isa, const case_t *c, const moe_in_t *in,
    uint32_t row, const float *y)
{
    enum { MOST = 64 };
    double x[MOST], gate[MOST], up[MOST], out[MOST], sum[MOST] = {0};
    double diff = 0, size = 0;
    uint32_t i, j, e;

    if (c->k > MOST || c->n > MOST) {
        return;
    }

    for (j = 0; j < c->k; j++) {
        x[j] = in->x[row * c->k + j];
    }

    for (i = row * USED; i < (row + 1) * USED; i++) {
        e = in->ids[i];
        expert_naive(c, in, 0, e, x, gate);
        expert_naive(c, in, 1, e, x, up);

        for (j = 0; j < c->n; j++) {
            gate[j] = act_naive(c, gate[j], up[j]);
        }

        expert_naive(c, in, 2, e, gate, out);

        for (j = 0; j < c->k; j++) {
            sum[j] += in->weights[i] * out[j];
        }
    }

    for (j = 0; j < c->k; j++) {
        diff += (sum[j] - y[j]) * (sum[j] - y[j]);
        size += sum[j] * sum[j];
    }

    /* NaN fails */
    assert_true(sqrt(diff) <= 3 * mixed_tolerance(isa, c, 1e-6) * sqrt(size));
}

static void
moe_inputs(const case_t *c, moe_in_t *in)
{
    uint32_t i;

    in->x = vectors(c->seed + 9, op_rows(c), c->k);
    in->weights = vectors(c->seed + 8, op_rows(c), USED);

    for (i = 0; i < 3; i++) {
        in->bias[i] = vectors(c->seed + 5 + i, EXPERTS, i < 2 ? c->n : c->k);
    }

    for (i = 0; i < op_rows(c) * USED; i++) {
        in->ids[i] = !c->same        ? (i / USED * 2 + i % USED) % EXPERTS
                     : i % USED == 0 ? 0
                                     : 1 + (i / USED * 2 + i % USED) % 4;
    }
}

/* What expert e makes of all rows of x, by the op's matrices: [rows, k] */
static float *
expert_alone(sub_t *s, const case_t *c, const kn_moe_ffn_t *a, uint32_t e)
{
    size_t rows = rows_of_case(c), f = sizeof(float);
    kn_gated_t gated = {.gate = a->gate[e],
        .up = a->up[e],
        .x = a->x,
        .y = put(s, NULL, rows * c->n * f),
        .rows = a->rows,
        .act = a->act,
        .limit = a->limit};
    kn_matmul_t down = {.x = gated.y, .n = 1, .rows = a->rows};

    down.of[0] =
        (kn_product_t){a->down[e], {0}, put(s, NULL, rows * c->k * f), 1, 0};

    if (c->add) {
        gated.gate_bias = kn_at(a->gate_bias, e * c->n * f);
        gated.up_bias = kn_at(a->up_bias, e * c->n * f);
        down.of[0].bias = kn_at(a->down_bias, e * c->k * f);
    }

    call(s, OP_gated, &gated);
    call(s, OP_matmul, &down);

    return get(s, down.of[0].y, rows * c->k * f);
}

/* The op is each expert for all rows and their sums by rank, by bits. */
static void
check_experts(sub_t *s, const case_t *c, const kn_moe_ffn_t *a,
    const moe_in_t *in, const float *got)
{
    float *out[EXPERTS], y;
    uint32_t i, j, e;
    size_t pair;

    for (e = 0; e < EXPERTS; e++) {
        out[e] = expert_alone(s, c, a, e);
    }

    for (i = 0; i < op_rows(c); i++) {
        for (j = 0; j < c->k; j++) {
            for (y = 0, pair = i * USED; pair < (i + 1) * USED; pair++) {
                y += in->weights[pair] * out[in->ids[pair]][i * c->k + j];
            }

            assert_true(y == got[i * c->k + j]);
        }
    }

    for (e = 0; e < EXPERTS; e++) {
        free(out[e]);
    }
}

static result_t
run_moe_ffn(sub_t *s, const case_t *c)
{
    const kn_w_t *w[3][EXPERTS];
    kn_moe_ffn_t a;
    moe_in_t in;
    case_t one;
    uint32_t i, rows, first;
    result_t r;

    moe_inputs(c, &in);
    memset(&a, 0, sizeof(a));

    for (i = 0; i < 3 * EXPERTS; i++) {
        one = expert_case(c, i / EXPERTS, i % EXPERTS);
        w[i / EXPERTS][i % EXPERTS] = weight(s, &one);
    }

    rows = c->only == ALL ? op_rows(c) : 1;
    first = c->only == ALL ? 0 : c->only;
    a.gate = w[0];
    a.up = w[1];
    a.down = w[2];
    a.dim = c->k;
    a.ffn = c->n;
    a.experts = EXPERTS;
    a.used = USED;
    a.rows = c->which;
    a.act = c->act;
    a.limit = c->limit;
    a.x = put_rows(s, c, in.x, c->k);
    a.ids = put(s, in.ids + first * USED, (size_t) rows * USED * 4);
    a.weights = put_rows(s, c, in.weights, USED);
    a.mid = put(s, NULL, (size_t) rows * USED * c->n * 4);
    a.y = put(s, NULL, (size_t) rows * c->k * 4);

    if (c->add) {
        a.gate_bias = put(s, in.bias[0], EXPERTS * c->n * sizeof(float));
        a.up_bias = put(s, in.bias[1], EXPERTS * c->n * sizeof(float));
        a.down_bias = put(s, in.bias[2], EXPERTS * c->k * sizeof(float));
    }

    call(s, OP_moe_ffn, &a);
    r = get_rows(s, c, a.y, c->k);

    if (c->only == ALL) {
        check_experts(s, c, &a, &in, r.v);
    }

    for (i = 0; i < rows; i += 5) {
        check_moe(s->isa, c, &in, first + i, r.v + i * c->k);
    }

    for (i = 0; i < 3; i++) {
        free(in.bias[i]);
    }

    free(in.x);
    free(in.weights);

    return r;
}

static result_t
run_gather(sub_t *s, const case_t *c)
{
    kn_gather_t a = {{0}, {0}, c->k};
    float *x;
    uint32_t i;
    result_t r;

    x = vectors(c->seed + 1, tokens_of(c), c->k);
    a.x = put(s, x + s->first * c->k, s->step.tokens_n * c->k * sizeof(float));
    a.y = put(s, NULL, s->step.outs_n * c->k * sizeof(float));
    call(s, OP_gather, &a);
    r = get_rows(s, c, a.y, c->k);

    for (i = 0; i < r.rows; i++) {
        assert_memory_equal(r.v + i * c->k,
            x + (s->first + s->outs[i].tok) * c->k, c->k * sizeof(float));
    }

    free(x);

    return r;
}

/* Of one rank; of more, tests/unit/comm.c. */
static result_t
run_comm_sum(sub_t *s, const case_t *c)
{
    kn_comm_sum_t a = {{0}, c->k, c->which};
    float *x = vectors(c->seed + 1, op_rows(c), c->k);
    result_t r;

    a.x = put_rows(s, c, x, c->k);
    call(s, OP_comm_sum, &a);
    r = get_rows(s, c, a.x, c->k);
    assert_memory_equal(r.v, x + (c->only == ALL ? 0 : c->only) * c->k,
        r.rows * c->k * sizeof(float));
    free(x);

    return r;
}

static result_t
run_comm_gather(sub_t *s, const case_t *c)
{
    kn_comm_gather_t a = {{0}, {0}, c->k, c->which};
    float *x = vectors(c->seed + 1, op_rows(c), c->k);
    result_t r;

    a.x = put_rows(s, c, x, c->k);
    a.y = put(s, NULL,
        (c->only == ALL ? op_rows(c) : 1) * (size_t) c->k * sizeof(float));
    call(s, OP_comm_gather, &a);
    r = get_rows(s, c, a.y, c->k);
    assert_memory_equal(r.v, x + (c->only == ALL ? 0 : c->only) * c->k,
        r.rows * c->k * sizeof(float));
    free(x);

    return r;
}

/* sample_out_t is words, which are compared as such. */
static result_t
run_sample(sub_t *s, const case_t *c)
{
    kn_sample_t a = {{0}, {0}, c->k};
    float *logits;
    uint32_t i, n;
    static uint32_t masks[7][1000 / 32 + 1];

    logits = vectors(c->seed + 1, op_rows(c), c->k);
    logits[(op_rows(c) - 1) * c->k] = NAN;
    for (i = 0; i < 7 * (1000 / 32 + 1); i++) {
        masks[i % 7][i / 7] = 0x9e3779b9u * (i + 1) ^ (uint32_t) c->seed;
    }

    for (i = 0; i < s->step.outs_n; i++) {
        n = c->only == ALL ? i : c->only;
        s->params[i].temperature = n % 3 ? 1.5f : 0;
        s->params[i].top_p = n % 2 ? 0.9f : 1;
        s->params[i].top_k = n % 5 ? 0 : 7;
        s->params[i].repetition_penalty = n % 4 ? 1 : 1.3f;
        s->params[i].tops = n % 21;
        s->params[i].seed = n;
        s->outs[i].known_n = n % TOKENS_MAX;
        s->outs[i].prompt_n = n / 2;
        s->outs[i].mask = n % 3 == 1 ? masks[n % 7] : NULL;
    }

    a.logits = put_rows(s, c, logits, c->k);
    a.out = put(s, NULL, s->step.outs_n * sizeof(sample_out_t));
    s->masks = c->seed % 2 == 0; /* else those of the step before are gone */
    call(s, OP_sample, &a);
    s->masks = 0;
    free(logits);

    return get_rows(s, c, a.out, sizeof(sample_out_t) / sizeof(float));
}

/* Largest relative L2 by which tables may differ; 0 asks for equal bits. */
typedef struct {
    const char *name;
    result_t (*run)(sub_t *s, const case_t *c);
    double tolerance;
} op_t;

#define TOLERANCE_embed       0
#define TOLERANCE_rmsnorm     1e-6
#define TOLERANCE_add         0
#define TOLERANCE_matmul      1e-6
#define TOLERANCE_gated       1e-6
#define TOLERANCE_headmul     1e-6
#define TOLERANCE_rope_angles 0
#define TOLERANCE_rope_store  1e-6
#define TOLERANCE_attn        2e-6
#define TOLERANCE_router      1e-6
#define TOLERANCE_moe_ffn     3e-6
#define TOLERANCE_comm_sum    0
#define TOLERANCE_comm_gather 0
#define TOLERANCE_gather      0
#define TOLERANCE_sample      0
#define TOLERANCE_copy        0

static const op_t ops[OPS] = {
#define X(op, doc) {#op, run_##op, TOLERANCE_##op},
    KERNELS(X)
#undef X
};

static result_t
run(const op_t *op, const char *isa, uint32_t threads, const case_t *c)
{
    static sub_t s;
    result_t r;

    sub_open(&s, isa, threads);
    sub_step(&s, c);
    r = op->run(&s, c);
    s.kn->close(s.dev);

    return r;
}

static void
check_close(
    const op_t *op, const result_t *a, const result_t *b, double tolerance)
{
    double diff, size;
    size_t i;

    assert_int_equal(a->rows, b->rows);
    assert_int_equal(a->width, b->width);

    if (tolerance == 0) {
        assert_memory_equal(
            a->v, b->v, (size_t) a->rows * a->width * sizeof(float));
        return;
    }

    for (diff = 0, size = 0, i = 0; i < (size_t) a->rows * a->width; i++) {
        diff += ((double) a->v[i] - b->v[i]) * ((double) a->v[i] - b->v[i]);
        size += (double) a->v[i] * a->v[i];
    }

    /* Written so that NaN fails. */
    if (!(sqrt(diff) <= tolerance * sqrt(size))) {
        fail_msg("%s: relative error %g, allowed %g", op->name,
            sqrt(diff / size), tolerance);
    }
}

static double
tolerance_of(const op_t *op, const char *isa, const case_t *c)
{
    int o = (int) (op - ops), product = o == OP_matmul || o == OP_headmul;

    if (strcmp(isa, "cuda") == 0 && o == OP_embed) {
        return acts_tolerance(NULL, c->type, 0);
    }

    if (strcmp(isa, "cuda") == 0 && o == OP_rope_angles) {
        return 1e-7; /* its own cosine */
    }

    if (strcmp(isa, "cuda") == 0 && o == OP_attn) {
        return op->tolerance + attn_rounding(c->type);
    }

    if (!product && o != OP_moe_ffn && o != OP_gated) {
        return op->tolerance;
    }

    /* outputs may be few and near nothing, or one and nearer: that the right
     * numbers met shows here; how exactly, tests/kernels/panel.c says */
    return (c->n == 1 ? 15 : 5) * mixed_tolerance(isa_named(isa), c, 6e-7);
}

/* With 2, 3 and 4 threads as alone, by turns. */
static void
check_threads(
    const op_t *op, const char *isa, const case_t *c, const result_t *one)
{
    uint32_t most = strcmp(isa, "cuda") == 0 ? 2 : THREADS_MOST;
    uint32_t n = 2 + (uint32_t) (c->seed % (most - 1));
    result_t many = run(op, isa, n, c);

    assert_int_equal(many.rows, one->rows);
    assert_int_equal(many.width, one->width);
    assert_memory_equal(
        one->v, many.v, (size_t) one->rows * one->width * sizeof(float));
    free(many.v);
}

/* One table at one case: against the oracle's result, threads, rows alone. */
static void
check_isa(
    const op_t *op, const char *isa, const case_t *c, const result_t *oracle)
{
    result_t one, alone;
    case_t single = *c;
    uint32_t i;

    one = run(op, isa, 1, c);
    check_close(op, oracle, &one, tolerance_of(op, isa, c));
    check_threads(op, isa, c, &one);

    /* In long batches some of the rows, the last one too. */
    for (i = 0; i<one.rows; i += one.rows - i> 18 ? 7 : 1) {
        single.only = i;
        alone = run(op, isa, 1, &single);
        assert_int_equal(alone.rows, 1);
        assert_memory_equal(
            alone.v, one.v + (size_t) i * one.width, one.width * sizeof(float));
        free(alone.v);
    }

    free(one.v);
}

/* Batches: one token, one prompt, chunks and decoding tokens together. */
static void
shape(case_t *c, uint32_t i)
{
    static const struct {
        uint32_t n, q_start[ROWS_MAX], q_len[ROWS_MAX];
    } list[] = {
        {1, {0}, {1}},
        {1, {0}, {17}},
        {2, {15, 16}, {1, 1}},
        {4, {0, 63, 300, 5}, {2, 1, 1, 4}},
        {3, {254, 0, 600}, {5, 8, 5}},
        {1, {31}, {2}},
        {3, {0, 0, 0}, {30, 40, 9}},
    };

    i %= sizeof(list) / sizeof(list[0]);
    c->rows_n = list[i].n;
    memcpy(c->q_start, list[i].q_start, sizeof(c->q_start));
    memcpy(c->q_len, list[i].q_len, sizeof(c->q_len));
}

/* Sizes of heads that the op and the cache allow: rope needs no whole head. */
static case_t
make_case(int op, uint32_t i)
{
    static const uint32_t dims[] = {8, 16, 20, 33, 64, 80, 128, 576};
    static const uint32_t groups[] = {1, 3, 8, 9, 50};
    static const uint32_t blocks[] = {16, 4, 7, 32};
    static const uint32_t widths[] = {1, 5, 172, 64, 300, 31, 33, 256};
    static const uint32_t windows[] = {0, 1, 33, 0, 300};
    static const uint32_t outputs[] = {1, 2, 7, 63, 64, 65, 130};
    case_t c;
    uint32_t block;

    memset(&c, 0, sizeof(c));
    shape(&c, i);
    c.only = ALL;
    c.seed = i * 7919 + 17;
    c.which = op == OP_gather || op == OP_sample ? KN_OUTS
              : op == OP_rmsnorm || op == OP_add || op == OP_matmul
                      || op == OP_headmul || op == OP_gated || op == OP_router
                      || op == OP_moe_ffn || op == OP_comm_sum
                      || op == OP_comm_gather
                  ? i / 3 % 2 ? KN_OUTS : KN_TOKENS
                  : KN_TOKENS;
    c.scale = i % 4 == 3 ? 0.37f : 1;
    c.cap = i / 4 % 2 ? 0.8f : 0;

    if (op == OP_attn || op == OP_rope_store) {
        c.type = (i + i / 8) % KN_KV_TYPES;
        block = kn_kv_block(c.type);
        c.head_dim = (dims[i % 8] + block - 1) / block * block;
        c.v_dim = i % 6 == 5 ? dims[i / 2 % 7] : c.head_dim;
        c.v_dim = (c.v_dim + block - 1) / block * block;
        c.kv_heads = c.head_dim > 128 ? 1 : 1 + i % 2;
        c.heads = c.kv_heads * groups[i / 2 % (c.head_dim < 40 ? 5 : 4)];
        c.half = i % 4 ? c.head_dim / 2 : c.head_dim / 4;
        c.half = i % 5 == 2 ? 0 : c.half;
        c.inside = i % 8 == 7 || i / 4 % 3 == 1;

        if (c.inside) {
            c.half = i % 5 == 2 ? 0 : c.head_dim / 18;
            c.v_dim = c.head_dim - 2 * c.half - i % 2;
            c.v_dim -= c.head_dim > block ? c.v_dim % block : 0;
            c.v_dim = c.v_dim < block ? block : c.v_dim;
            c.half = c.v_dim == c.head_dim ? 0 : c.half;
        }

        c.halves = i / 2 % 2;
        c.window = windows[i / 2 % 5];
        c.group = i / 2 % KN_GROUPS;
        c.sinks = i / 8 % 2;
        c.block_tokens = blocks[i / 3 % 4];
        c.n = c.k = 1;
        return c;
    }

    c.type = i % KN_TYPES;
    block = type_elems(c.type);
    c.k = (widths[i % 8] + block - 1) / block * block;
    c.n = op == OP_moe_ffn ? c.k : outputs[i % 7];
    c.half = 1 + i % 64;
    c.block_tokens = 16;
    c.add = (op == OP_moe_ffn ? i / 5 : i) % 2;
    c.same = i / 2 % 3 == 1;
    c.mixed = op != OP_headmul && i / 3 % 3 == 1;
    c.parts = i / 4 % 3 ? 1 : 3;
    c.act = i / 2 % KN_ACTS;
    c.limit = 0.6f;

    if (op == OP_headmul) {
        c.heads = 1 + i % 5;
        c.rest = i / 3 % 3 * 5;
    }

    if (op == OP_router) {
        c.groups = i / 2 % 3 && c.k % 4 == 0 ? 4 : 0;
        c.score = i / 4 % KN_SCORES;
        c.group_best = 1 + i / 3 % 2;
    }

    return c;
}

static const struct {
    const char *isa;
    int op;
} runs[] = {
#define X(name, doc) {"ref", OP_##name},
    KERNELS(X)
#undef X
#define X(name, doc) {"avx2", OP_##name},
        KERNELS(X)
#undef X
#define X(name, doc) {"avx512", OP_##name},
            KERNELS(X)
#undef X
    /* whose weights differ from those of avx512 */
    {"avx512bf16", OP_embed},
    {"avx512bf16", OP_matmul}, {"avx512bf16", OP_gated},
    {"avx512bf16", OP_headmul}, {"avx512bf16", OP_moe_ffn},
#define X(name, doc) {"cuda", OP_##name},
    KERNELS(X)
#undef X
};

/* Is there the table?  It says why not. */
static int
has(const char *isa)
{
    char err[5000];
    const kernels_t *kn;

    kn = strcmp(isa, "cuda") == 0 ? kernels_cuda(plug_in, err, sizeof(err))
                                  : kernels_cpu(isa, err, sizeof(err));

    if (kn == NULL) {
        print_message("%s\n", err);
    }

    return kn != NULL;
}

static void
test_op(void **state)
{
    const char *isa, *each = getenv("LLM_EACH");
    const op_t *op;
    result_t oracle;
    case_t c;
    uint32_t i, step = each != NULL ? (uint32_t) atoi(each) : 1;
    int r;

    assert_true(step > 0);
    r = *(const int *) *state;
    isa = runs[r].isa;
    op = &ops[runs[r].op];

    if (!has(isa)) {
        skip();
    }

    for (i = 0; i < (brief() ? 1 : 2) * KN_TYPES; i += step) {
        c = make_case(runs[r].op, i);
        oracle = run(op, "ref", 1, &c);
        check_isa(op, isa, &c, &oracle);
        free(oracle.v);
    }
}

static int
named(const char *op, int argc, char **argv)
{
    int i, found = argc <= 2;

    for (i = 2; i < argc; i++) {
        found |= strcmp(argv[i], op) == 0;
    }

    return found;
}

/*
 * With a library's path: its table's alone, and only the ops that follow.  With
 * LLM_EACH=n each n-th case, where a sanitizer takes its time.
 */
int
main(int argc, char **argv)
{
    enum { RUNS = sizeof(runs) / sizeof(runs[0]) };
    struct CMUnitTest tests[RUNS];
    char names[RUNS][64];
    int i, n, number[RUNS];

    plug_in = argc > 1 ? argv[1] : NULL;

    for (n = 0, i = 0; i < RUNS; i++) {
        if ((strcmp(runs[i].isa, "cuda") == 0) != (plug_in != NULL)
            || !named(ops[runs[i].op].name, argc, argv)) {
            continue;
        }

        number[n] = i;
        snprintf(names[n], sizeof(names[n]), "%s %s", runs[i].isa,
            ops[runs[i].op].name);
        tests[n] =
            (struct CMUnitTest){names[n], test_op, NULL, NULL, &number[n]};
        n++;
    }

    return _cmocka_run_group_tests("ops", tests, (size_t) n, NULL, NULL);
}
