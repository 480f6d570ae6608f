/*
 * Every op row on the CPU, and the reference instruction set: plain C.
 *
 * DESIGN.  A row splits its work into parts (rows, tiles, token and head) and
 * hands them to the pool.  A part computes whole outputs, and in an order that
 * does not depend on the split, so threads never change a bit.  The inner
 * loops are the small functions of dev->isa; those below, cpu_ref, are what
 * the others are tested against.  They add in eight lanes of F64 and join them
 * in order: exact enough to judge F32 by, and the compiler can still use two
 * lanes at a time.
 *
 * Attention walks a token's positions in partitions of KV_PART, counted from
 * position 0 (a window cuts the first one short) and joined in order by the
 * running maximum.  The partition, not the block or the chunk, decides the
 * order of additions.  The queries that share a key head go together, so that
 * keys and values are read and turned into floats once; a block of keys is to
 * them what a weight is to tokens.
 *
 * Runs on the pool's threads; owns no memory; scratch is on the stack.
 */
#include "cpu.h"

#define DEQUANT_HALF(h) dequant_half_bits(h)

#include "../dequant.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define LANES   8
#define KV_PART 256

/* Queries that attention takes through the cache together. */
#define HEADS 8

/* Tokens of a part where rows are cheap. */
#define ROWS_PART 8

#define HOST(type, ptr) ((type *) (ptr).a)

static uint32_t
parts_of(uint32_t n, uint32_t size)
{
    return (n + size - 1) / size;
}

static uint32_t
min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* The M of an op. */
static uint32_t
rows_of(const kn_dev_t *dev, uint32_t which)
{
    assert(which == KN_TOKENS || which == KN_OUTS);
    return which == KN_TOKENS ? dev->step.tokens_n : dev->step.outs_n;
}

/* The reference functions */

static float
join_lanes(const double *s)
{
    return (float) (((s[0] + s[4]) + (s[1] + s[5]))
                    + ((s[2] + s[6]) + (s[3] + s[7])));
}

/* lanes += a . b; a block of n is added lane by lane from lane 0 */
static void
add_dot(double *lanes, const float *a, const float *b, uint32_t n)
{
    uint32_t i, j;

    for (i = 0; i + LANES <= n; i += LANES) {
        for (j = 0; j < LANES; j++) {
            lanes[j] += (double) a[i + j] * b[i + j];
        }
    }

    for (j = 0; i < n; i++, j++) {
        lanes[j] += (double) a[i] * b[i];
    }
}

#define X(name, elems, bytes)                                                  \
    static void row_##name(float *dst, const void *src, uint32_t n)            \
    {                                                                          \
        uint32_t i;                                                            \
        const uint8_t *p = src;                                                \
                                                                               \
        assert(n % (elems) == 0);                                              \
                                                                               \
        for (i = 0; i < n; i += (elems), p += (bytes)) {                       \
            dequant_##name(dst + i, p);                                        \
        }                                                                      \
    }
KN_TYPE_LIST(X)
#undef X

/*
 * The product over any type: pieces of a weight row are dequantised and met
 * with every row of x.  A piece is a multiple of all blocks and of LANES, so
 * it leaves no trace in the order.
 */
#define PIECE 256

static void
matmul_ref(const cpu_mm_t *a, uint32_t block, uint32_t bytes,
    void (*row)(float *, const void *, uint32_t))
{
    uint32_t i, j, c, n;
    float w[PIECE];
    double lanes[CPU_TILE_M][LANES];
    const char *src;

    assert(a->m <= CPU_TILE_M && a->k % block == 0);

    for (j = 0; j < a->n; j++) {
        src = (const char *) a->w + j * a->stride;
        memset(lanes, 0, a->m * sizeof(lanes[0]));

        for (c = 0; c < a->k; c += PIECE) {
            n = min_u32(PIECE, a->k - c);
            row(w, src + (size_t) c / block * bytes, n);

            for (i = 0; i < a->m; i++) {
                add_dot(lanes[i], a->x + i * a->ldx + c, w, n);
            }
        }

        for (i = 0; i < a->m; i++) {
            a->y[i * a->ldy + j] = join_lanes(lanes[i]);
        }
    }
}

#define X(name, elems, bytes)                                                  \
    static void matmul_##name(const cpu_mm_t *a)                               \
    {                                                                          \
        matmul_ref(a, elems, bytes, row_##name);                               \
    }
KN_TYPE_LIST(X)
#undef X

static uint16_t
to_bf16(float f)
{
    uint32_t u;

    memcpy(&u, &f, sizeof(u));

    if ((u & 0x7fffffff) > 0x7f800000) {
        return (uint16_t) (u >> 16 | 0x40); /* NaN stays one */
    }

    return (uint16_t) ((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static uint16_t
to_f16(float f)
{
    uint32_t u, sign, mag, odd;
    float half;

    memcpy(&u, &f, sizeof(u));
    sign = u >> 16 & 0x8000;
    mag = u & 0x7fffffff;

    if (mag > 0x7f800000) {
        return (uint16_t) (sign | 0x7e00);
    }

    if (mag >= 0x477ff000) { /* rounds to 65536 or more */
        return (uint16_t) (sign | 0x7c00);
    }

    if (mag < 0x38800000) {
        /* subnormal: at this magnitude the addition rounds at 2^-24, and what
         * is left in the low bits is the half's */
        memcpy(&half, &mag, sizeof(half));
        half += 0.5f;
        memcpy(&mag, &half, sizeof(mag));
        return (uint16_t) (sign | (mag - 0x3f000000));
    }

    odd = mag >> 13 & 1;
    mag += 0xfff + odd - (112u << 23);
    return (uint16_t) (sign | mag >> 13);
}

static void
put_F32(void *dst, const float *src, uint32_t n)
{
    memcpy(dst, src, n * sizeof(float));
}

static void
put_F16(void *dst, const float *src, uint32_t n)
{
    uint32_t i;

    for (i = 0; i < n; i++) {
        ((uint16_t *) dst)[i] = to_f16(src[i]);
    }
}

static void
put_BF16(void *dst, const float *src, uint32_t n)
{
    uint32_t i;

    for (i = 0; i < n; i++) {
        ((uint16_t *) dst)[i] = to_bf16(src[i]);
    }
}

static void
mix_ref(const cpu_mix_t *a, uint32_t bytes,
    void (*row)(float *, const void *, uint32_t))
{
    uint32_t i, j, c, e, n;
    float v[PIECE], p;

    for (j = 0; j < a->n; j++) {
        for (c = 0; c < a->k; c += PIECE) {
            n = min_u32(PIECE, a->k - c);
            row(v, (const char *) a->v + j * a->stride + (size_t) c * bytes, n);

            for (i = 0; i < a->m; i++) {
                p = a->p[i * a->ldp + j];

                for (e = 0; e < n; e++) {
                    a->y[i * a->ldy + c + e] += p * v[e];
                }
            }
        }
    }
}

#define X(name, bytes)                                                         \
    static void mix_##name(const cpu_mix_t *a)                                 \
    {                                                                          \
        mix_ref(a, bytes, row_##name);                                         \
    }
X(F32, 4)
X(F16, 2)
X(BF16, 2)
#undef X

static float
softmax_ref(float *w, uint32_t n, float scale, float *max)
{
    uint32_t i;
    float sum;

    *max = -INFINITY;

    for (i = 0; i < n; i++) {
        w[i] *= scale;
        *max = w[i] > *max ? w[i] : *max;
    }

    for (sum = 0, i = 0; i < n; i++) {
        w[i] = expf(w[i] - *max);
        sum += w[i];
    }

    return sum;
}

static void
rmsnorm_ref(
    float *y, float *x, const float *add, const float *w, uint32_t n, float eps)
{
    uint32_t i;
    float r;
    double s[LANES] = {0};

    for (i = 0; add != NULL && i < n; i++) {
        x[i] += add[i];
    }

    add_dot(s, x, x, n);
    r = 1.0f / sqrtf(join_lanes(s) / (float) n + eps);

    for (i = 0; i < n; i++) {
        y[i] = x[i] * r * w[i];
    }
}

static float
silu(float g, float u, float limit)
{
    (void) limit;
    return g / (1.0f + expf(-g)) * u;
}

static float
gelu(float g, float u, float limit)
{
    const float twice = 1.59576912f; /* 2 sqrt(2 / pi) */

    (void) limit;
    return g / (1.0f + expf(-twice * (g + 0.044715f * g * g * g))) * u;
}

/* NaN is beyond no limit and stays. */
static float
clamp(float g, float u, float limit)
{
    g = g > limit ? limit : g;
    u = u > limit ? limit : u < -limit ? -limit : u;

    return g / (1.0f + expf(-1.702f * g)) * (u + 1.0f);
}

#define X(name, fn)                                                            \
    static void fn##_mul(float *gate, const float *up, uint32_t n, float l)    \
    {                                                                          \
        uint32_t i;                                                            \
                                                                               \
        for (i = 0; i < n; i++) {                                              \
            gate[i] = fn(gate[i], up[i], l);                                   \
        }                                                                      \
    }
KN_ACT_LIST(X)
#undef X

static void
soft_cap_ref(float *x, uint32_t n, float scale, float cap)
{
    uint32_t i;

    for (i = 0; i < n; i++) {
        x[i] = cap * tanhf(scale / cap * x[i]);
    }
}

const cpu_isa_t cpu_ref = {
    .name = "ref",
#define X(name, elems, bytes)                                                  \
    .matmul[KN_##name] = matmul_##name, .row[KN_##name] = row_##name,
    KN_TYPE_LIST(X)
#undef X
        .kv_put = {put_F32, put_F16, put_BF16},
    .mix = {mix_F32, mix_F16, mix_BF16},
    .softmax = softmax_ref,
    .rmsnorm = rmsnorm_ref,
#define X(name, fn) .act_mul[KN_##name] = fn##_mul,
    KN_ACT_LIST(X)
#undef X
        .soft_cap = soft_cap_ref,
};

/* The op rows */

/* What a part needs: the device and the op's arguments. */
typedef struct {
    kn_dev_t *dev;
    const void *a;
    uint32_t m;
} job_t;

/* Runs fn over parts of ROWS_PART rows of m. */
static void
run_rows(kn_dev_t *dev, const void *a, uint32_t m, uint64_t row_cost,
    void (*fn)(void *, uint32_t, uint32_t))
{
    job_t j = {dev, a, m};

    cpu_run(dev, parts_of(m, ROWS_PART), m * row_cost, fn, &j);
}

static void
embed_part(void *arg, uint32_t part, uint32_t worker)
{
    const job_t *j = arg;
    const kn_embed_t *a = j->a;
    uint32_t t, c, end, id;
    float *y;

    (void) worker;
    end = min_u32(j->m, (part + 1) * ROWS_PART);

    for (t = part * ROWS_PART; t < end; t++) {
        id = j->dev->tokens[t];
        assert(id < a->w->n);
        y = HOST(float, a->y) + (size_t) t * a->w->k;
        j->dev->isa.row[a->w->type](y, a->w->data + id * a->w->stride, a->w->k);

        for (c = 0; a->scale != 1 && c < a->w->k; c++) {
            y[c] *= a->scale;
        }
    }
}

void
cpu_embed(kn_dev_t *dev, const kn_embed_t *a)
{
    run_rows(dev, a, dev->step.tokens_n, a->w->k, embed_part);
}

static void
rmsnorm_part(void *arg, uint32_t part, uint32_t worker)
{
    const job_t *j = arg;
    const kn_rmsnorm_t *a = j->a;
    uint32_t t, end;
    size_t at;

    (void) worker;
    end = a->parts * min_u32(j->m, (part + 1) * ROWS_PART);

    for (t = a->parts * part * ROWS_PART; t < end; t++) {
        at = (size_t) t * a->dim;
        j->dev->isa.rmsnorm(HOST(float, a->y) + at, HOST(float, a->x) + at,
            a->add.a != 0 ? HOST(const float, a->add) + at : NULL,
            HOST(const float, a->w), a->dim, a->eps);
    }
}

void
cpu_rmsnorm(kn_dev_t *dev, const kn_rmsnorm_t *a)
{
    assert(a->parts > 0 && a->dim > 0);
    run_rows(dev, a, rows_of(dev, a->rows), 2 * (uint64_t) a->parts * a->dim,
        rmsnorm_part);
}

static void
add_part(void *arg, uint32_t part, uint32_t worker)
{
    const job_t *j = arg;
    const kn_add_t *a = j->a;
    uint32_t t, c, end;
    const float *add;
    float *x, by;

    (void) worker;
    end = min_u32(j->m, (part + 1) * ROWS_PART);

    for (t = part * ROWS_PART; t < end; t++) {
        x = HOST(float, a->x) + (size_t) t * a->dim;
        add = HOST(const float, a->add) + (size_t) t * a->dim;
        by = 1;

        if (a->gate.a != 0) {
            by = 1.0f / (1.0f + expf(-HOST(const float, a->gate)[t]));
        }

        for (c = 0; c < a->dim; c++) {
            x[c] += by * add[c];
        }
    }
}

void
cpu_add(kn_dev_t *dev, const kn_add_t *a)
{
    assert(a->x.a != a->add.a);
    run_rows(dev, a, rows_of(dev, a->rows), a->dim, add_part);
}

/* What becomes of a tile's products; outputs [n, n + mm->n) of a. */
static void
matmul_finish(
    const kn_dev_t *dev, const kn_matmul_t *a, const cpu_mm_t *mm, uint32_t n)
{
    uint32_t i, c;
    float *y;
    const float *bias = HOST(const float, a->bias);

    for (i = 0; i < mm->m; i++) {
        y = mm->y + i * mm->ldy;

        for (c = 0; bias != NULL && c < mm->n; c++) {
            y[c] += bias[n + c];
        }

        for (c = 0; a->scale != 1 && c < mm->n; c++) {
            y[c] *= a->scale;
        }

        if (a->cap > 0) {
            dev->isa.soft_cap(y, mm->n, 1, a->cap);
        }
    }
}

/* Part numbers run over the tiles of m first: neighbours share weights. */
static void
matmul_part(void *arg, uint32_t part, uint32_t worker)
{
    const job_t *j = arg;
    const kn_matmul_t *a = j->a;
    uint32_t i, n, tiles_m;
    cpu_mm_t mm;

    (void) worker;
    tiles_m = parts_of(j->m, CPU_TILE_M);
    i = part % tiles_m * CPU_TILE_M;
    n = part / tiles_m * CPU_TILE_N;

    mm.x = HOST(const float, a->x) + (size_t) i * a->w->k;
    mm.y = HOST(float, a->y) + (size_t) i * a->w->n + n;
    mm.w = a->w->data + n * a->w->stride;
    mm.ldx = a->w->k;
    mm.ldy = a->w->n;
    mm.stride = a->w->stride;
    mm.m = min_u32(CPU_TILE_M, j->m - i);
    mm.n = min_u32(CPU_TILE_N, a->w->n - n);
    mm.k = a->w->k;

    j->dev->isa.matmul[a->w->type](&mm);

    if (a->bias.a != 0 || a->scale != 1 || a->cap > 0) {
        matmul_finish(j->dev, a, &mm, n);
    }
}

void
cpu_matmul(kn_dev_t *dev, const kn_matmul_t *a)
{
    job_t j = {dev, a, rows_of(dev, a->rows)};

    cpu_run(dev, parts_of(j.m, CPU_TILE_M) * parts_of(a->w->n, CPU_TILE_N),
        (uint64_t) j.m * a->w->n * a->w->k, matmul_part, &j);
}

static void
rope_angles_part(void *arg, uint32_t part, uint32_t worker)
{
    const job_t *j = arg;
    const kn_rope_angles_t *a = j->a;
    uint32_t t, i, end;
    double angle;
    float *cs;

    (void) worker;
    end = min_u32(j->m, (part + 1) * ROWS_PART);

    for (t = part * ROWS_PART; t < end; t++) {
        cs = HOST(float, a->cs) + (size_t) t * a->half * 2;

        for (i = 0; i < a->half; i++) {
            angle = j->dev->toks[t].pos * HOST(const double, a->freq)[i];
            cs[2 * i] = (float) (a->scale * cos(angle));
            cs[2 * i + 1] = (float) (a->scale * sin(angle));
        }
    }
}

void
cpu_rope_angles(kn_dev_t *dev, const kn_rope_angles_t *a)
{
    run_rows(
        dev, a, dev->step.tokens_n, 100 * (uint64_t) a->half, rope_angles_part);
}

/* Bytes of an element of the cache. */
static size_t
kv_size(const kn_kv_t *kv)
{
    return kv->type == KN_F32 ? 4 : 2;
}

/* Where, after off, row has position pos and head h: width elements each. */
static char *
kv_row(const kn_dev_t *dev, const kn_kv_t *kv, const kn_row_t *row,
    uint32_t pos, uint32_t h, uint64_t off, uint32_t width)
{
    uint32_t block, number = pos / kv->block_tokens;
    const kn_blocks_t *blocks = &row->blocks[kv->group];
    uint64_t at;

    assert(kv->group < KN_GROUPS);
    assert(number >= blocks->first && number - blocks->first < blocks->n);

    block = dev->blocks[blocks->at + number - blocks->first];
    at = (uint64_t) h * kv->block_tokens + pos % kv->block_tokens;

    return HOST(char, kv->kv) + block * kv->stride + off
           + at * width * kv_size(kv);
}

/* Where head h's key of position pos of row lies in the cache. */
static char *
key_at(const kn_dev_t *dev, const kn_kv_t *kv, const kn_row_t *row,
    uint32_t pos, uint32_t h)
{
    return kv_row(dev, kv, row, pos, h, kv->k_off, kv->head_dim);
}

/* The same for its value. */
static char *
value_at(const kn_dev_t *dev, const kn_kv_t *kv, const kn_row_t *row,
    uint32_t pos, uint32_t h)
{
    return kv->inside
               ? key_at(dev, kv, row, pos, h) + kn_kv_own(kv) * kv_size(kv)
               : kv_row(dev, kv, row, pos, h, kv->v_off, kv->v_dim);
}

/* Bytes from one position's value to the next one's. */
static size_t
value_stride(const kn_kv_t *kv)
{
    return (kv->inside ? kv->head_dim : kv->v_dim) * kv_size(kv);
}

static void
rotate(float *x, const float *cs, uint32_t half)
{
    uint32_t i;
    float a, b;

    for (i = 0; i < half; i++) {
        a = x[2 * i];
        b = x[2 * i + 1];
        x[2 * i] = a * cs[2 * i] - b * cs[2 * i + 1];
        x[2 * i + 1] = a * cs[2 * i + 1] + b * cs[2 * i];
    }
}

/* The same with the pairs' second elements half a rotation behind. */
static void
rotate_halves(float *x, const float *cs, uint32_t half)
{
    uint32_t i;
    float a, b;

    for (i = 0; i < half; i++) {
        a = x[i];
        b = x[half + i];
        x[i] = a * cs[2 * i] - b * cs[2 * i + 1];
        x[half + i] = a * cs[2 * i + 1] + b * cs[2 * i];
    }
}

static void
rope_store_token(kn_dev_t *dev, const kn_rope_store_t *a, uint32_t t)
{
    uint32_t h, dim = a->kv.head_dim, own = kn_kv_own(&a->kv);
    const cpu_tok_t *tok = &dev->toks[t];
    const kn_row_t *row = &dev->rows[tok->row];
    const float *cs, *v;
    float *q, *k;
    void (*turn)(float *, const float *, uint32_t);
    void (*put)(void *, const float *, uint32_t) = dev->isa.kv_put[a->kv.type];

    turn = a->halves ? rotate_halves : rotate;
    cs = HOST(const float, a->cs) + (size_t) t * a->half * 2;
    q = HOST(float, a->q) + (size_t) t * a->heads * dim;
    k = HOST(float, a->k) + (size_t) t * a->kv.kv_heads * own;
    v = HOST(const float, a->v) + (size_t) t * a->kv.kv_heads * a->kv.v_dim;

    for (h = 0; h < a->heads; h++) {
        turn(q + h * dim, cs, a->half);
    }

    for (h = 0; h < a->kv.kv_heads; h++) {
        turn(k + h * own, cs, a->half);
        put(key_at(dev, &a->kv, row, tok->pos, h), k + h * own, own);
        put(value_at(dev, &a->kv, row, tok->pos, h), v + h * a->kv.v_dim,
            a->kv.v_dim);
    }
}

static void
rope_store_part(void *arg, uint32_t part, uint32_t worker)
{
    const job_t *j = arg;
    uint32_t t, end;

    (void) worker;
    end = min_u32(j->m, (part + 1) * ROWS_PART);

    for (t = part * ROWS_PART; t < end; t++) {
        rope_store_token(j->dev, j->a, t);
    }
}

void
cpu_rope_store(kn_dev_t *dev, const kn_rope_store_t *a)
{
    assert(a->kv.type < KN_KV_TYPES && 2 * a->half <= kn_kv_own(&a->kv));
    assert(!a->kv.inside || a->kv.v_dim <= a->kv.head_dim);

    run_rows(dev, a, dev->step.tokens_n,
        3 * (uint64_t) (a->heads + a->kv.kv_heads) * a->kv.head_dim,
        rope_store_part);
}

/* Queries of one token and key head, and what they have seen so far. */
typedef struct {
    const kn_attn_t *a;
    const kn_row_t *row;
    uint32_t h, n;    /* key head, queries */
    uint32_t head;    /* the first query's */
    const float *q;   /* [n, head_dim] */
    float *y;         /* [n, v_dim], scaled by exp(-max) */
    float max[HEADS]; /* of all scores seen */
    float sum[HEADS]; /* of their exponentials, scaled alike */
} seen_t;

/* Queries meet the keys of positions [from, to): w[i, pos - from]. */
static void
attn_scores(
    kn_dev_t *dev, const seen_t *s, uint32_t from, uint32_t to, float *w)
{
    const kn_kv_t *kv = &s->a->kv;
    uint32_t pos;
    cpu_mm_t mm;

    mm.x = s->q;
    mm.ldx = mm.k = kv->head_dim;
    mm.ldy = KV_PART;
    mm.stride = kv->head_dim * kv_size(kv);
    mm.m = s->n;

    for (pos = from; pos < to; pos += mm.n) {
        mm.n = kv->block_tokens - pos % kv->block_tokens;
        mm.n = min_u32(min_u32(mm.n, to - pos), CPU_TILE_N);
        mm.w = key_at(dev, kv, s->row, pos, s->h);
        mm.y = w + (pos - from);
        dev->isa.matmul[kv->type](&mm);
    }
}

/* y[i] += the values of positions [from, to), weighted by w. */
static void
attn_values(kn_dev_t *dev, const seen_t *s, uint32_t from, uint32_t to,
    const float *w, float *y)
{
    const kn_kv_t *kv = &s->a->kv;
    uint32_t pos;
    cpu_mix_t mix;

    mix.y = y;
    mix.ldy = mix.k = kv->v_dim;
    mix.ldp = KV_PART;
    mix.stride = value_stride(kv);
    mix.m = s->n;

    for (pos = from; pos < to; pos += mix.n) {
        mix.n = kv->block_tokens - pos % kv->block_tokens;
        mix.n = min_u32(mix.n, to - pos);
        mix.v = value_at(dev, kv, s->row, pos, s->h);
        mix.p = w + (pos - from);
        dev->isa.mix[kv->type](&mix);
    }
}

/* s->y[i] and its sum take in those of a later partition. */
static void
attn_join(seen_t *s, uint32_t i, float max, float sum, const float *y)
{
    uint32_t c, dim = s->a->kv.v_dim;
    float top, fs, fp, *to;

    top = s->max[i] > max ? s->max[i] : max;
    fs = expf(s->max[i] - top);
    fp = expf(max - top);
    s->max[i] = top;
    s->sum[i] = s->sum[i] * fs + sum * fp;
    to = s->y + (size_t) i * dim;

    for (c = 0; c < dim; c++) {
        to[c] = to[c] * fs + y[c] * fp;
    }
}

/* Weights of n positions from w[i] on; their maximum and sum. */
static void
attn_weights(kn_dev_t *dev, const seen_t *s, float *w, uint32_t n, float *max,
    float *sum)
{
    uint32_t i;
    float scale = s->a->scale;

    for (i = 0; i < s->n; i++, w += KV_PART) {
        if (s->a->cap > 0) {
            dev->isa.soft_cap(w, n, scale, s->a->cap);
        }

        sum[i] = dev->isa.softmax(w, n, s->a->cap > 0 ? 1 : scale, &max[i]);
    }
}

/* The sink of query i takes its share: head is the query's. */
static void
attn_sink(seen_t *s, uint32_t i, uint32_t head)
{
    uint32_t c, dim = s->a->kv.v_dim;
    float sink, f;

    sink = HOST(const float, s->a->sinks)[head];

    if (sink <= s->max[i]) {
        s->sum[i] += expf(sink - s->max[i]);
        return;
    }

    f = expf(s->max[i] - sink);
    s->sum[i] = s->sum[i] * f + 1;

    for (c = 0; c < dim; c++) {
        s->y[(size_t) i * dim + c] *= f;
    }
}

/*
 * Positions from begin to end.  The first partition goes into y as it is;
 * each later one is computed apart and joined.
 */
static void
attn_queries(kn_dev_t *dev, seen_t *s, uint32_t begin, uint32_t end)
{
    float w[HEADS * KV_PART], part[HEADS * CPU_HEAD_DIM_MAX], *y;
    float max[HEADS], sum[HEADS], r;
    uint32_t i, c, from, to, dim = s->a->kv.v_dim;

    for (from = begin; from < end; from = to) {
        to = min_u32(from - from % KV_PART + KV_PART, end);
        y = from == begin ? s->y : part;
        attn_scores(dev, s, from, to, w);
        attn_weights(dev, s, w, to - from, max, sum);
        memset(y, 0, (size_t) s->n * dim * sizeof(float));
        attn_values(dev, s, from, to, w, y);

        for (i = 0; i < s->n; i++) {
            if (from > begin) {
                attn_join(s, i, max[i], sum[i], part + (size_t) i * dim);
            } else {
                s->max[i] = max[i];
                s->sum[i] = sum[i];
            }
        }
    }

    for (i = 0; i < s->n; i++) {
        if (s->a->sinks.a != 0) {
            attn_sink(s, i, s->head + i);
        }

        r = 1.0f / s->sum[i];

        for (c = 0; c < dim; c++) {
            s->y[(size_t) i * dim + c] *= r;
        }
    }
}

/* How many positions a token at pos looks at. */
static uint32_t
attn_seen(const kn_attn_t *a, uint32_t pos)
{
    return a->window == 0 ? pos + 1 : min_u32(pos + 1, a->window);
}

/* Parts of a token: heads of keys, times the queries taken together. */
static uint32_t
attn_parts(const kn_attn_t *a)
{
    return a->kv.kv_heads * parts_of(a->heads / a->kv.kv_heads, HEADS);
}

/* A part is a token, a head of keys, and some of the queries that share it. */
static void
attn_part(void *arg, uint32_t part, uint32_t worker)
{
    const job_t *j = arg;
    const kn_attn_t *a = j->a;
    uint32_t i, t, group, each, end;
    size_t at;
    seen_t s;

    (void) worker;
    group = a->heads / a->kv.kv_heads;
    each = parts_of(group, HEADS);
    t = part / attn_parts(a);
    i = part % each * HEADS;
    s.a = a;
    s.row = &j->dev->rows[j->dev->toks[t].row];
    s.h = part % attn_parts(a) / each;
    s.n = min_u32(HEADS, group - i);
    s.head = s.h * group + i;
    at = (size_t) t * a->heads + s.head;
    s.q = HOST(const float, a->q) + at * a->kv.head_dim;
    s.y = HOST(float, a->y) + at * a->kv.v_dim;
    end = j->dev->toks[t].pos + 1;
    attn_queries(j->dev, &s, end - attn_seen(a, end - 1), end);
}

void
cpu_attn(kn_dev_t *dev, const kn_attn_t *a)
{
    uint32_t i;
    uint64_t seen;
    job_t j = {dev, a, dev->step.tokens_n};

    assert(a->kv.type < KN_KV_TYPES && a->heads % a->kv.kv_heads == 0);
    assert(a->kv.head_dim <= CPU_HEAD_DIM_MAX);
    assert(a->kv.v_dim <= (a->kv.inside ? a->kv.head_dim : CPU_HEAD_DIM_MAX));

    for (i = 0, seen = 0; i < j.m; i++) {
        seen += attn_seen(a, dev->toks[i].pos);
    }

    cpu_run(dev, j.m * attn_parts(a),
        seen * a->heads * (a->kv.head_dim + a->kv.v_dim + 16), attn_part, &j);
}

static void
act_mul_part(void *arg, uint32_t part, uint32_t worker)
{
    const job_t *j = arg;
    const kn_act_mul_t *a = j->a;
    uint32_t t, end;
    size_t at;

    (void) worker;
    end = min_u32(j->m, (part + 1) * ROWS_PART);

    for (t = part * ROWS_PART; t < end; t++) {
        at = (size_t) t * a->dim;
        j->dev->isa.act_mul[a->act](HOST(float, a->gate) + at,
            HOST(const float, a->up) + at, a->dim, a->limit);
    }
}

void
cpu_act_mul(kn_dev_t *dev, const kn_act_mul_t *a)
{
    assert(a->act < KN_ACTS);
    run_rows(
        dev, a, rows_of(dev, a->rows), 8 * (uint64_t) a->dim, act_mul_part);
}

/* The experts of one token: logits are read until an id is taken. */
static void
router_token(const kn_router_t *a, const float *logits, uint32_t *ids, float *w)
{
    uint32_t i, j, e, best;
    float max, sum, taken;

    for (max = logits[0], e = 1; e < a->experts; e++) {
        max = logits[e] > max ? logits[e] : max;
    }

    for (sum = 0, e = 0; e < a->experts; e++) {
        sum += expf(logits[e] - max);
    }

    for (taken = 0, i = 0; i < a->used; i++) {
        for (best = UINT32_MAX, e = 0; e < a->experts; e++) {
            for (j = 0; j < i && ids[j] != e; j++) { /* none */
            }

            if (j == i && (best == UINT32_MAX || logits[e] > logits[best])) {
                best = e;
            }
        }

        ids[i] = best;
        w[i] = expf(logits[best] - max) / sum;
        taken += w[i];
    }

    for (i = 0; a->normed && i < a->used; i++) {
        w[i] /= taken;
    }
}

static void
router_part(void *arg, uint32_t part, uint32_t worker)
{
    const job_t *j = arg;
    const kn_router_t *a = j->a;
    uint32_t t, end;

    (void) worker;
    end = min_u32(j->m, (part + 1) * ROWS_PART);

    for (t = part * ROWS_PART; t < end; t++) {
        router_token(a, HOST(const float, a->logits) + (size_t) t * a->experts,
            HOST(uint32_t, a->ids) + (size_t) t * a->used,
            HOST(float, a->weights) + (size_t) t * a->used);
    }
}

void
cpu_router(kn_dev_t *dev, const kn_router_t *a)
{
    assert(a->used > 0 && a->used <= a->experts);
    run_rows(dev, a, rows_of(dev, a->rows),
        (uint64_t) a->experts * (a->used + 20), router_part);
}

/*
 * Outputs [n, n + CPU_TILE_N) of x by w, expert e's, whose bias is in biases
 * [experts, w->n] or is none; how many there are.
 */
static uint32_t
expert_tile(const kn_dev_t *dev, const kn_w_t *w, kn_ptr_t biases, uint32_t e,
    const float *x, uint32_t n, float *y)
{
    uint32_t i;
    cpu_mm_t mm;
    const float *bias = HOST(const float, biases);

    mm.x = x;
    mm.y = y;
    mm.w = w->data + n * w->stride;
    mm.ldx = mm.k = w->k;
    mm.ldy = CPU_TILE_N;
    mm.stride = w->stride;
    mm.m = 1;
    mm.n = min_u32(CPU_TILE_N, w->n - n);
    dev->isa.matmul[w->type](&mm);

    for (i = 0; bias != NULL && i < mm.n; i++) {
        y[i] += bias[(size_t) e * w->n + n + i];
    }

    return mm.n;
}

/* A part is a token's expert and a tile of its gate. */
static void
moe_mid_part(void *arg, uint32_t part, uint32_t worker)
{
    const job_t *j = arg;
    const kn_moe_ffn_t *a = j->a;
    uint32_t tiles, row, n, count, e;
    const float *x;
    float *gate, up[CPU_TILE_N];

    (void) worker;
    tiles = parts_of(a->ffn, CPU_TILE_N);
    row = part / tiles;
    n = part % tiles * CPU_TILE_N;
    e = HOST(const uint32_t, a->ids)[row];
    assert(e < a->experts);
    x = HOST(const float, a->x) + (size_t) (row / a->used) * a->dim;
    gate = HOST(float, a->mid) + (size_t) row * a->ffn + n;

    expert_tile(j->dev, a->gate[e], a->gate_bias, e, x, n, gate);
    count = expert_tile(j->dev, a->up[e], a->up_bias, e, x, n, up);
    j->dev->isa.act_mul[a->act](gate, up, count, a->limit);
}

/* A part is a token and a tile of its output. */
static void
moe_out_part(void *arg, uint32_t part, uint32_t worker)
{
    const job_t *j = arg;
    const kn_moe_ffn_t *a = j->a;
    uint32_t tiles, t, n, i, c, count, e;
    size_t row;
    float *y, out[CPU_TILE_N], weight;

    (void) worker;
    tiles = parts_of(a->dim, CPU_TILE_N);
    t = part / tiles;
    n = part % tiles * CPU_TILE_N;
    y = HOST(float, a->y) + (size_t) t * a->dim + n;

    for (i = 0; i < a->used; i++) {
        row = (size_t) t * a->used + i;
        e = HOST(const uint32_t, a->ids)[row];
        weight = HOST(const float, a->weights)[row];
        count = expert_tile(j->dev, a->down[e], a->down_bias, e,
            HOST(const float, a->mid) + row * a->ffn, n, out);

        for (c = 0; c < count; c++) {
            y[c] = (i > 0 ? y[c] : 0) + weight * out[c];
        }
    }
}

void
cpu_moe_ffn(kn_dev_t *dev, const kn_moe_ffn_t *a)
{
    job_t j = {dev, a, rows_of(dev, a->rows)};
    uint64_t cost = (uint64_t) j.m * a->used * a->dim * a->ffn;

    assert(a->act < KN_ACTS && a->used > 0);
    cpu_run(dev, j.m * a->used * parts_of(a->ffn, CPU_TILE_N), 2 * cost,
        moe_mid_part, &j);
    cpu_run(dev, j.m * parts_of(a->dim, CPU_TILE_N), cost, moe_out_part, &j);
}

void
cpu_gather(kn_dev_t *dev, const kn_gather_t *a)
{
    uint32_t i;

    for (i = 0; i < dev->step.outs_n; i++) {
        memcpy(HOST(float, a->y) + (size_t) i * a->dim,
            HOST(const float, a->x) + (size_t) dev->outs[i].tok * a->dim,
            a->dim * sizeof(float));
    }
}

static void
sample_part(void *arg, uint32_t part, uint32_t worker)
{
    const job_t *j = arg;
    const kn_sample_t *a = j->a;

    cpu_sample_one(HOST(const float, a->logits) + (size_t) part * a->vocab,
        a->vocab, &j->dev->outs[part],
        j->dev->work + worker * j->dev->work_size,
        HOST(sample_out_t, a->out) + part);
}

void
cpu_sample(kn_dev_t *dev, const kn_sample_t *a)
{
    job_t j = {dev, a, dev->step.outs_n};

    assert(cpu_sample_work(a->vocab) <= dev->work_size);
    cpu_run(dev, j.m, (uint64_t) j.m * a->vocab * 32, sample_part, &j);
}
