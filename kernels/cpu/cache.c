/*
 * The op rows of the paged cache on the CPU: what is stored, attention, and
 * copies of blocks.
 *
 * DESIGN.  Attention walks a token's positions in partitions of KV_PART,
 * counted from position 0 (a window cuts the first one short) and joined in
 * order by the running maximum.  The partition, not the block or the chunk,
 * decides the order of additions.  The queries that share a key head go
 * together, up to HEADS of them, so that keys and values are read and turned
 * into floats once; a block of keys is to them what a weight is to tokens.
 *
 * Runs on the pool's threads; owns no memory; scratch is on the stack.
 */
#include "job.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define KV_PART 256

/* Queries that attention takes through the cache together. */
#define HEADS 8

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
    cs = HOST(const float, a->cs); /* NULL where nothing turns */
    cs = a->half > 0 ? cs + (size_t) t * a->half * 2 : cs;
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
copy_part(void *arg, uint32_t part, uint32_t worker)
{
    const job_t *j = arg;
    const kn_copy_t *a = j->a;

    (void) worker;
    memcpy(HOST(char, a->dst) + a->to[part] * a->stride,
        HOST(const char, a->src) + a->from[part] * a->stride, a->stride);
}

/* Other threads help with much: one alone does not fill the memory's bus. */
void
cpu_copy(kn_dev_t *dev, const kn_copy_t *a)
{
    job_t j = {dev, a, a->n};

    assert(a->src.a != 0 && a->dst.a != 0 && a->stride > 0);

    cpu_run(dev, a->n, a->n * a->stride / 4, copy_part, &j);
    dev->copies++;
}
