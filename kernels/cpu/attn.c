/*
 * Attention over the paged cache on the CPU.
 *
 * DESIGN.  A tile is some consecutive tokens of a row and query heads that
 * share a head of keys: up to QUERIES queries that go through the cache
 * together.  CPU_SEEN positions at a time, keys and values are turned into
 * floats once for all of them and laid out in strips (vec_attn.h); the rest is
 * arithmetic in the first caches.
 *
 * A query's positions are walked in partitions of KV_PART, counted from
 * position 0 (a window cuts the first one short) and joined in order by the
 * running maximum.  The partition, not the block, the tile or the chunk,
 * decides the order of additions, and each query takes in exactly the
 * positions that it sees: scores beyond are computed where that is cheaper,
 * but not looked at, and values beyond never enter.
 *
 * Where a step has few tiles and long contexts, a part is one partition of a
 * tile, its result goes to dev->split, and tiles are joined when all parts
 * have ended: the same sums of the same numbers.
 *
 *      tile    ├──── partition 0 ────┼──── partition 1 ────┼── 2 ──┤
 *              keys, weights, values   the same              ...
 *                       └── y ────── join ──────┘────── join ──┘
 *
 * Runs on the pool's threads; scratch is the worker's.
 */
#include "cache.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define KV_PART 256

/* Queries of a tile: eight times what the widest product takes. */
#define QUERIES 48

/*
 * For so few of them values are not laid out.  Bytes and factors take longer to
 * become floats than halves do: seven queries and more would do it twice.
 */
#define RAW       8
#define RAW_BYTES 6

/* Floats from one query's weights to the next one's, and not a page's part. */
#define LDW (KV_PART + 16)

/* Parts that a thread should have before contexts are split for more. */
#define PARTS_EACH 4

#define SPLIT_MAX ((size_t) 64 << 20)

/* An op's call. */
typedef struct {
    kn_dev_t *dev;
    const kn_attn_t *a;
    uint32_t tiles, units; /* units: partitions of all tiles if split */
    uint32_t groups;       /* of query heads, all heads of keys together */
    uint32_t slot;         /* queries of the largest tile */
} call_t;

/* A tile of a head of keys under way; queries are in the order of tokens. */
typedef struct {
    kn_dev_t *dev;
    const kn_attn_t *a;
    const kn_row_t *row;
    uint32_t h;           /* head of keys */
    uint32_t head, heads; /* the first query head, and how many of a token */
    uint32_t pos, tokens; /* the first token's position */
    uint32_t n;           /* queries: tokens * heads */
    uint32_t width;       /* v_dim rounded up to strips */
    uint32_t raw;         /* are values taken where they lie? */
    void (*mix)(const cpu_strips_t *a);
    float *packed;        /* keys or values in strips */
    float *q[QUERIES];    /* [head_dim] */
    float *w[QUERIES];    /* [KV_PART] scores, then weights */
    float *part[QUERIES]; /* [width] of one partition, scaled by exp(-max) */
    float max[QUERIES];   /* of its scores */
    float sum[QUERIES];   /* of its weights; 0: the query sees none of it */
    float *y[QUERIES];    /* the same of all before */
    float y_max[QUERIES];
    float y_sum[QUERIES];
} seen_t;

static uint32_t
round_up(uint32_t n, uint32_t to)
{
    return (n + to - 1) / to * to;
}

size_t
cpu_attn_work(uint32_t head_dim)
{
    size_t width = round_up(head_dim, CPU_STRIP);

    return sizeof(float)
           * (QUERIES * (LDW + 3 * width) + (CPU_SEEN + 1) * width);
}

/* Floats of a query's result in dev->split: the row, maximum, sum. */
static size_t
split_row(uint32_t width)
{
    return width + 16;
}

size_t
cpu_attn_split(const kn_limits_t *l, uint32_t threads)
{
    uint64_t n, parts = l->context / KV_PART + 2;

    n = (uint64_t) min_u32(l->tokens, PARTS_EACH * threads) * l->heads * parts
        * split_row(round_up(l->head_dim, CPU_STRIP)) * sizeof(float);

    return n < SPLIT_MAX ? (size_t) n : SPLIT_MAX;
}

/* How many positions a token at pos looks at. */
static uint32_t
attn_seen(const kn_attn_t *a, uint32_t pos)
{
    return a->window == 0 ? pos + 1 : min_u32(pos + 1, a->window);
}

static uint32_t
max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* The first position that token u of a tile looks at. */
static uint32_t
first_of(const seen_t *s, uint32_t u)
{
    return s->pos + u + 1 - attn_seen(s->a, s->pos + u);
}

/* What follows the last one. */
static uint32_t
end_of(const seen_t *s, uint32_t u)
{
    return s->pos + u + 1;
}

/* Keys or values of positions from `from` on; after `to` the last one's. */
static void
cache_rows(const seen_t *s, uint32_t from, uint32_t to, int values,
    const char *rows[CPU_SEEN])
{
    const kn_kv_t *kv = &s->a->kv;
    uint32_t i, n, end;
    size_t stride;
    const char *at;

    assert(from < to);
    stride = values ? value_stride(kv) : kv_size(kv, kv->head_dim);
    to = min_u32(to, from + CPU_SEEN);

    for (n = 0; from < to; from = end) {
        end = from - from % kv->block_tokens + kv->block_tokens;
        end = min_u32(end, to);
        at = values ? value_at(s->dev, kv, s->row, from, s->h)
                    : key_at(s->dev, kv, s->row, from, s->h);

        for (i = from; i < end; i++, at += stride) {
            rows[n++] = at;
        }
    }

    for (i = n; i < CPU_SEEN; i++) {
        rows[i] = rows[n - 1];
    }
}

/* Scores of all queries at positions [from, to), seen by them or not. */
static void
attn_scores(seen_t *s, uint32_t from, uint32_t to)
{
    const char *rows[2][CPU_SEEN];
    float *y[QUERIES];
    uint32_t i, at, next, turn = 0;
    cpu_rows_t r;
    cpu_strips_t p;

    cache_rows(s, from, to, 0, rows[0]);
    memset(&p, 0, sizeof(p));
    p.x = (const float *const *) s->q;
    p.y = y;
    p.w = r.to = s->packed;
    p.m = s->n;
    p.rows = p.to = r.k = s->a->kv.head_dim;
    p.fresh = 1;
    p.ahead_size = kv_size(&s->a->kv, s->a->kv.head_dim);

    for (at = from; at < to; at = next, turn ^= 1) {
        next = min_u32(at + CPU_SEEN, to);
        cache_rows(s, next < to ? next : from, to, next == to, rows[turn ^ 1]);
        r.from = rows[turn];
        p.ahead = rows[turn ^ 1];
        p.n = r.n = next - at;
        s->dev->isa.attn->keys[s->a->kv.type](&r);

        for (i = 0; i < s->n; i++) {
            y[i] = s->w[i] + (at - from);
        }

        s->dev->isa.attn->strips(&p);
    }
}

/* Scores become weights, as far as each query sees them. */
static void
attn_weights(seen_t *s, uint32_t from, uint32_t to)
{
    const kn_attn_t *a = s->a;
    const cpu_isa_t *isa = &s->dev->isa;
    uint32_t i, first, end;
    float *w;

    for (i = 0; i < s->n; i++) {
        first = max_u32(first_of(s, i / s->heads), from);
        end = min_u32(end_of(s, i / s->heads), to);
        s->sum[i] = 0;

        if (first >= end) {
            continue;
        }

        w = s->w[i] + (first - from);

        if (a->cap > 0) {
            isa->soft_cap(w, end - first, a->scale, a->cap);
        }

        s->sum[i] = isa->attn->softmax(
            w, end - first, a->cap > 0 ? 1 : a->scale, &s->max[i]);
    }
}

/* Values of positions [from, to), p->w being laid out from position at on. */
static void
attn_mix(const seen_t *s, const cpu_strips_t *p, uint32_t at, uint32_t u,
    uint32_t end, uint32_t from, uint32_t to)
{
    cpu_strips_t some = *p;

    if (from < to) {
        some.ahead = to - from > CPU_SEEN / 2 ? p->ahead : NULL;
        some.x += u * s->heads;
        some.y += u * s->heads;
        some.m = (end - u) * s->heads;
        some.from = from - at;
        some.to = to - at;
        s->mix(&some);
    }
}

/*
 * The same for tokens [u, end), each as far as it sees them: first what some
 * see, then what all do, then again what some do.
 */
static void
attn_spread(const seen_t *s, const cpu_strips_t *p, uint32_t at, uint32_t u,
    uint32_t end, uint32_t from, uint32_t to)
{
    uint32_t mid = u + (end - u) / 2, all, some;

    if (from >= to) {
        return;
    }

    all = min_u32(max_u32(from, first_of(s, end - 1)), to);
    some = max_u32(min_u32(to, end_of(s, u)), from);

    if (end - u == 1) {
        attn_mix(s, p, at, u, end, all, some);
        return;
    }

    if (all >= some) {
        all = to; /* there is nothing that all see */
        some = to;
    }

    attn_spread(s, p, at, u, mid, from, all);
    attn_spread(s, p, at, mid, end, from, all);
    attn_mix(s, p, at, u, end, all, some);
    attn_spread(s, p, at, u, mid, some, to);
    attn_spread(s, p, at, mid, end, some, to);
}

/* s->part of values of positions [from, to); the tile goes on up to end. */
static void
attn_values(seen_t *s, uint32_t from, uint32_t to, uint32_t end)
{
    const char *rows[2][CPU_SEEN];
    const float *x[QUERIES];
    uint32_t i, at, next, turn = 0;
    cpu_rows_t r;
    cpu_strips_t p;

    for (i = 0; i < s->n; i++) {
        memset(s->part[i], 0, s->width * sizeof(float));
    }

    cache_rows(s, from, to, 1, rows[0]);
    memset(&p, 0, sizeof(p));
    p.x = x;
    p.y = s->part;
    p.w = r.to = s->packed;
    p.n = r.k = s->a->kv.v_dim;
    p.rows = CPU_SEEN + 1;
    p.ahead_size = kv_size(&s->a->kv, s->a->kv.head_dim);

    for (at = from; at < to; at = next, turn ^= 1) {
        next = min_u32(at + CPU_SEEN, to);
        p.ahead = next < end ? rows[turn ^ 1] : NULL;

        if (next < end) {
            cache_rows(
                s, next, next < to ? to : end, next < to, rows[turn ^ 1]);
        }

        r.from = rows[turn];
        r.n = next - at;
        p.cache = rows[turn];

        if (!s->raw) {
            s->dev->isa.attn->values[s->a->kv.type](&r);
        }

        for (i = 0; i < s->n; i++) {
            x[i] = s->w[i] + (at - from);
        }

        attn_spread(s, &p, at, 0, s->tokens, at, next);
    }
}

/*
 * s->part, max, sum of positions [from, to) of one partition; the next one
 * goes on from there, if end is not to.
 */
static void
attn_partition(seen_t *s, uint32_t from, uint32_t to, uint32_t end)
{
    assert(from < to && from / KV_PART == (to - 1) / KV_PART);
    attn_scores(s, from, to);
    attn_weights(s, from, to);
    attn_values(s, from, to, end);
}

/* Query i's y takes in x, of a later partition. */
static void
attn_join(seen_t *s, uint32_t i, const float *x, float max, float sum)
{
    float top, by, with;

    if (s->y_sum[i] == 0) {
        memcpy(s->y[i], x, s->width * sizeof(float));
        s->y_max[i] = max;
        s->y_sum[i] = sum;
        return;
    }

    top = s->y_max[i] > max ? s->y_max[i] : max;
    by = expf(s->y_max[i] - top);
    with = expf(max - top);
    s->y_max[i] = top;
    s->y_sum[i] = s->y_sum[i] * by + sum * with;
    s->dev->isa.attn->join(s->y[i], x, s->width, by, with);
}

/* The sink of query i, of that head, takes its share. */
static void
attn_sink(seen_t *s, uint32_t i, uint32_t head)
{
    uint32_t c;
    float sink, by;

    sink = HOST(const float, s->a->sinks)[head];

    if (sink <= s->y_max[i]) {
        s->y_sum[i] += expf(sink - s->y_max[i]);
        return;
    }

    by = expf(s->y_max[i] - sink);
    s->y_sum[i] = s->y_sum[i] * by + 1;

    for (c = 0; c < s->a->kv.v_dim; c++) {
        s->y[i][c] *= by;
    }
}

/* The queries' results to their places. */
static void
attn_finish(seen_t *s, uint32_t tok)
{
    const kn_attn_t *a = s->a;
    uint32_t i, c, head;
    float *y, by;

    for (i = 0; i < s->n; i++) {
        head = s->head + i % s->heads;

        if (a->sinks.a != 0) {
            attn_sink(s, i, head);
        }

        y = HOST(float, a->y)
            + ((size_t) (tok + i / s->heads) * a->heads + head) * a->kv.v_dim;
        by = 1.0f / s->y_sum[i];

        for (c = 0; c < a->kv.v_dim; c++) {
            y[c] = s->y[i][c] * by;
        }
    }
}

/* Groups of query heads that share a head of keys and go together. */
static uint32_t
groups_of(const kn_attn_t *a)
{
    return parts_of(a->heads / a->kv.kv_heads, QUERIES);
}

/* A tile's group of heads, with a worker's scratch. */
static void
seen_open(seen_t *s, const call_t *j, const cpu_tile_t *t, uint32_t group,
    uint32_t worker)
{
    const kn_attn_t *a = j->a;
    uint32_t i, first, share = a->heads / a->kv.kv_heads;
    size_t at;
    float *work;

    first = group % groups_of(a) * QUERIES;
    s->dev = j->dev;
    s->a = a;
    s->row = &j->dev->rows[j->dev->toks[t->tok].row];
    s->h = group / groups_of(a);
    s->head = s->h * share + first;
    s->heads = min_u32(QUERIES, share - first);
    s->pos = j->dev->toks[t->tok].pos;
    s->tokens = t->tokens;
    s->n = s->tokens * s->heads;
    s->width = round_up(a->kv.v_dim, CPU_STRIP);
    s->raw = s->n <= (a->kv.type == KN_Q8_0 ? RAW_BYTES : RAW)
             && s->width == a->kv.v_dim;
    s->mix =
        s->raw ? s->dev->isa.attn->mix[a->kv.type] : s->dev->isa.attn->strips;
    assert(s->n <= QUERIES);

    work = (float *) (void *) (j->dev->work + worker * j->dev->work_size);

    for (i = 0; i < s->n; i++) {
        at = (size_t) (t->tok + i / s->heads) * a->heads + s->head
             + i % s->heads;
        s->w[i] = work;
        s->part[i] = s->w[i] + LDW;
        s->y[i] = s->part[i] + s->width;
        s->q[i] = s->y[i] + s->width;
        s->y_sum[i] = 0;
        work = s->q[i] + round_up(a->kv.head_dim, CPU_STRIP);
        memcpy(s->q[i], HOST(const float, a->q) + at * a->kv.head_dim,
            a->kv.head_dim * sizeof(float));
    }

    /* rows are whole strips, so this is as aligned as the scratch */
    s->packed = work;
}

/* Where query i of a part's result lies. */
static float *
split_at(const call_t *j, const seen_t *s, uint32_t part, uint32_t i)
{
    return j->dev->split + ((size_t) part * j->slot + i) * split_row(s->width);
}

/* The tile that unit belongs to. */
static const cpu_tile_t *
tile_of(const call_t *j, uint32_t unit)
{
    const cpu_tile_t *t = j->dev->tiles;
    uint32_t low = 0, high = j->tiles, mid;

    while (high - low > 1) {
        mid = low + (high - low) / 2;

        if (t[mid].unit <= unit) {
            low = mid;
        } else {
            high = mid;
        }
    }

    return &t[low];
}

/* A part is a group of heads of a tile. */
static void
attn_part(void *arg, uint32_t part, uint32_t worker)
{
    const call_t *j = arg;
    const cpu_tile_t *t = &j->dev->tiles[part / j->groups];
    uint32_t i, from, to, end;
    seen_t s;

    seen_open(&s, j, t, part % j->groups, worker);
    end = end_of(&s, s.tokens - 1);

    for (from = first_of(&s, 0); from < end; from = to) {
        to = min_u32(from - from % KV_PART + KV_PART, end);
        attn_partition(&s, from, to, end);

        for (i = 0; i < s.n; i++) {
            if (s.sum[i] != 0) {
                attn_join(&s, i, s.part[i], s.max[i], s.sum[i]);
            }
        }
    }

    attn_finish(&s, t->tok);
}

/* A part is one partition of that. */
static void
attn_split_part(void *arg, uint32_t part, uint32_t worker)
{
    const call_t *j = arg;
    const cpu_tile_t *t = tile_of(j, part / j->groups);
    uint32_t i, from, to;
    float *at;
    seen_t s;

    seen_open(&s, j, t, part % j->groups, worker);
    from = (first_of(&s, 0) / KV_PART + part / j->groups - t->unit) * KV_PART;
    to = min_u32(from + KV_PART, end_of(&s, s.tokens - 1));
    from = max_u32(from, first_of(&s, 0));
    attn_partition(&s, from, to, to);

    for (i = 0; i < s.n; i++) {
        at = split_at(j, &s, part, i);
        memcpy(at, s.part[i], s.width * sizeof(float));
        at[s.width] = s.max[i];
        at[s.width + 1] = s.sum[i];
    }
}

/* A part is a group of heads of a tile, whose partitions are all there. */
static void
attn_join_part(void *arg, uint32_t part, uint32_t worker)
{
    const call_t *j = arg;
    const cpu_tile_t *t = &j->dev->tiles[part / j->groups];
    uint32_t i, unit, end;
    const float *at;
    seen_t s;

    end = part / j->groups + 1 < j->tiles ? t[1].unit : j->units;
    seen_open(&s, j, t, part % j->groups, worker);

    for (unit = t->unit; unit < end; unit++) {
        for (i = 0; i < s.n; i++) {
            at = split_at(j, &s, unit * j->groups + part % j->groups, i);

            if (at[s.width + 1] != 0) {
                attn_join(&s, i, at, at[s.width], at[s.width + 1]);
            }
        }
    }

    attn_finish(&s, t->tok);
}

/* Cuts the step's rows into tiles; returns how much is seen in all. */
static uint64_t
attn_tiles(call_t *j)
{
    const kn_attn_t *a = j->a;
    const kn_dev_t *dev = j->dev;
    uint32_t t, i, most, first, last, share = a->heads / a->kv.kv_heads;
    const kn_row_t *row;
    uint64_t seen = 0;
    cpu_tile_t *tile;

    share = min_u32(share, QUERIES);
    most = QUERIES / share;

    for (t = 0; t < dev->step.tokens_n; t += tile->tokens) {
        row = &dev->rows[dev->toks[t].row];
        tile = &dev->tiles[j->tiles++];
        tile->tok = t;
        tile->tokens = min_u32(most, row->tok + row->q_len - t);
        tile->unit = j->units;
        first = dev->toks[t].pos;
        last = first + tile->tokens - 1;
        j->units +=
            last / KV_PART - (first + 1 - attn_seen(a, first)) / KV_PART + 1;
        j->slot = max_u32(j->slot, tile->tokens * share);

        for (i = first; i <= last; i++) {
            seen += attn_seen(a, i);
        }
    }

    return seen;
}

void
cpu_attn(kn_dev_t *dev, const kn_attn_t *a)
{
    uint64_t cost;
    size_t split;
    call_t j = {dev, a, 0, 0, 0, 0};

    assert(a->kv.type < KN_KV_TYPES && a->heads % a->kv.kv_heads == 0);
    assert(a->kv.head_dim <= dev->limits.head_dim);
    assert(a->kv.v_dim <= dev->limits.head_dim);
    assert(!a->kv.inside || a->kv.v_dim <= a->kv.head_dim);

    j.groups = a->kv.kv_heads * groups_of(a);
    cost = attn_tiles(&j) * a->heads * (a->kv.head_dim + a->kv.v_dim + 16);
    split = (size_t) j.units * j.groups * j.slot
            * split_row(round_up(a->kv.v_dim, CPU_STRIP)) * sizeof(float);

    if (j.tiles * j.groups >= PARTS_EACH * dev->threads || dev->threads == 1
        || j.units == j.tiles || split > dev->split_size) {
        cpu_run(dev, j.tiles * j.groups, cost, attn_part, &j);
        return;
    }

    cpu_run(dev, j.units * j.groups, cost, attn_split_part, &j);
    cpu_run(dev, j.tiles * j.groups, split / sizeof(float), attn_join_part, &j);
}
