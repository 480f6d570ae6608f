/*
 * Attention's two kernels (kernels/cuda/attn.cuh): the numbers of the CPU's
 * reference, and the same bits however a step is made up and shared out.
 *
 *     attn [SEED ...]      with other seeds than 0 blocks, warps and lanes go
 *                          in other orders, and inputs are others
 *
 * It would catch: a position too many or too few, an address of another block
 * or head, a result that depends on who comes first, on neighbours, on where a
 * row is cut.  Queries of zeros weigh all positions alike and exactly, so that
 * there one position more shows however many there are.
 *
 * Built with ATTN_PARTS of 4, partitions become longer after 1024 positions.
 */
#include <stdint.h>
extern "C" {
#include "kernels.h"
}

#include "attn.cuh"
#include "attn_fast.cuh"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <memory>
#include <vector>

#define MAX_ROWS 80

typedef struct {
    const char *name;
    uint32_t rows_n, start[4], len[4];
    uint32_t dim, share, kv_heads, block_tokens, window;
    uint32_t bf16, sinks;
    float cap;
} case_t;

static const case_t cases[] = {
    {"first", 3, {0, 0, 0}, {1, 2, 1}, 64, 4, 2, 16, 0, 1, 1, 0},
    {"blocks", 4, {14, 15, 16, 62}, {1, 1, 1, 1}, 64, 1, 2, 16, 0, 0, 0, 0},
    {"steps", 4, {63, 64, 254, 255}, {1, 1, 2, 1}, 64, 7, 1, 16, 0, 1, 0, 0},
    {"parts", 3, {256, 255, 600}, {1, 3, 1}, 128, 4, 1, 32, 0, 1, 1, 0},
    {"sevens", 2, {300, 5}, {2, 9}, 64, 7, 1, 7, 0, 0, 1, 0.8f},
    {"chunk", 1, {251}, {17}, 64, 8, 1, 16, 0, 1, 0, 0},
    {"whole", 2, {0, 0}, {40, 3}, 64, 4, 1, 16, 0, 0, 0, 0},
    {"one head", 1, {120}, {33}, 128, 1, 1, 64, 0, 1, 0, 0},
    {"window", 3, {400, 20, 255}, {1, 5, 2}, 64, 4, 1, 16, 33, 1, 1, 0},
    {"narrowest", 2, {70, 511}, {1, 3}, 64, 3, 1, 16, 1, 0, 0, 0},
    {"wide window", 2, {520, 100}, {21, 2}, 64, 4, 1, 16, 300, 0, 1, 0.8f},
    {"80", 2, {258, 3}, {1, 18}, 80, 2, 1, 16, 0, 1, 0, 0},
    {"96", 2, {65, 10}, {2, 11}, 96, 3, 1, 4, 50, 0, 1, 0},
    {"256", 2, {257, 30}, {1, 9}, 256, 4, 1, 16, 0, 1, 0, 0.8f},
    {"longer parts", 2, {1022, 1019}, {3, 7}, 64, 4, 1, 64, 0, 1, 1, 0},
    {"many heads", 1, {70}, {1}, 64, 20, 1, 16, 0, 1, 1, 0},
};

typedef std::unique_ptr<unsigned char, void (*)(void *)> mem_t;

static mem_t
mem(size_t n)
{
    unsigned char *p = static_cast<unsigned char *>(rt_alloc(n));

    assert(p != NULL);
    memset(p, 0xff, n);

    return mem_t(p, rt_free);
}

template <class T>
static T *
in(const mem_t &m)
{
    return reinterpret_cast<T *>(m.get());
}

static rt_stream_t stream;
static uint64_t random_now;

static uint32_t
draw(void)
{
    random_now ^= random_now << 13;
    random_now ^= random_now >> 7;
    random_now ^= random_now << 17;

    return static_cast<uint32_t>(random_now >> 32);
}

static uint16_t
bits(int bf16, float v)
{
    return static_cast<uint16_t>(
        bf16 ? attn_pack<1>(v, 0) : attn_pack<0>(v, 0));
}

static float
value(int bf16, uint16_t h)
{
    return bf16 ? ptx_bf16(h, 0) : ptx_f16(h, 0);
}

// A case's sequences in the cache, NaN elsewhere, and its queries.
struct world_t {
    case_t c;
    kn_attn_t a;
    uint64_t size;
    uint32_t tokens, heads;
    std::vector<uint32_t> blocks;
    std::vector<uint32_t> begin; // of a row's blocks, and its first token's
    std::vector<uint32_t> first;
    mem_t cache, q, sinks;

    world_t() : cache(NULL, rt_free), q(NULL, rt_free), sinks(NULL, rt_free) {}
};

// A step of some rows; tokens of rows are those of the case's, at from[row].
struct step_t {
    std::vector<kn_row_t> rows;
    std::vector<uint32_t> from;
    uint32_t tokens;
};

// Blocks of a row from the first that a token at start looks at.
static kn_blocks_t
blocks_of(const world_t &w, uint32_t r, uint32_t start, uint32_t len)
{
    kn_blocks_t b;
    uint32_t bt = w.c.block_tokens, first = 0;

    if (w.c.window > 0 && start + 1 > w.c.window) {
        first = (start + 1 - w.c.window) / bt;
    }
    b.at = w.begin[r] + first;
    b.first = first;
    b.n = (start + len + bt - 1) / bt - first;

    return b;
}

static void
step_row(const world_t &w, step_t *s, uint32_t r, uint32_t skip, uint32_t len)
{
    kn_row_t row;

    memset(&row, 0, sizeof(row));
    row.q_start = w.c.start[r] + skip;
    row.q_len = len;
    row.tok = s->tokens;
    row.blocks[w.a.kv.group] = blocks_of(w, r, row.q_start, len);
    s->rows.push_back(row);
    s->from.push_back(w.first[r] + skip);
    s->tokens += len;
}

static kn_kv_t
shape_of(const case_t *c)
{
    kn_kv_t kv;
    uint64_t one =
        static_cast<uint64_t>(c->kv_heads) * c->block_tokens * c->dim * 2;

    one = (one + 63) / 64 * 64;
    memset(&kv, 0, sizeof(kv));
    kv.k_off = one;
    kv.v_off = 3 * one;
    kv.stride = 4 * one;
    kv.group = c->share % KN_GROUPS;
    kv.type = c->bf16 ? KN_BF16 : KN_F16;
    kv.block_tokens = c->block_tokens;
    kv.kv_heads = c->kv_heads;
    kv.head_dim = kv.v_dim = c->dim;

    return kv;
}

// Keys and values of a row's positions that its tokens look at.
static void
fill(world_t *w, uint32_t r)
{
    const kn_kv_t *kv = &w->a.kv;
    uint32_t pos, h, i, first = 0, bt = kv->block_tokens;
    uint16_t *k, *v;
    size_t at;

    if (w->c.window > 0 && w->c.start[r] + 1 > w->c.window) {
        first = w->c.start[r] + 1 - w->c.window;
    }

    for (pos = first; pos < w->c.start[r] + w->c.len[r]; pos++) {
        for (h = 0; h < kv->kv_heads; h++) {
            at = w->blocks[w->begin[r] + pos / bt] * kv->stride
                 + (static_cast<size_t>(h) * bt + pos % bt) * kv->head_dim * 2;
            k = reinterpret_cast<uint16_t *>(w->cache.get() + at + kv->k_off);
            v = reinterpret_cast<uint16_t *>(w->cache.get() + at + kv->v_off);
            for (i = 0; i < kv->head_dim; i++) {
                k[i] = bits(w->c.bf16, draw() / 2147483648.0f - 1);
                v[i] = bits(w->c.bf16, draw() / 2147483648.0f - 1);
            }
        }
    }
}

static void
open(world_t *w, const case_t *c, uint64_t seed, int zero)
{
    uint32_t r, i, n = 0;
    float v;

    random_now = (seed + 1) * 0x9e3779b97f4a7c15u;
    w->c = *c;
    w->heads = c->share * c->kv_heads;
    memset(&w->a, 0, sizeof(w->a));
    w->a.kv = shape_of(c);
    w->a.heads = w->heads;
    w->a.window = c->window;
    w->a.cap = c->cap;
    w->a.scale = 3.0f / sqrtf(static_cast<float>(c->dim));

    w->tokens = 0;
    for (r = 0; r < c->rows_n; r++) {
        w->begin.push_back(n);
        w->first.push_back(w->tokens);
        n += (c->start[r] + c->len[r] - 1) / c->block_tokens + 1;
        w->tokens += c->len[r];
    }
    for (i = 0; i < n; i++) {
        w->blocks.push_back((i * 7 + 3) % (n % 7 == 0 ? n + 1 : n));
    }

    w->size = (n + 1) * w->a.kv.stride;
    w->cache = mem(w->size);
    for (r = 0; r < c->rows_n; r++) {
        fill(w, r);
    }

    n = w->tokens * w->heads * c->dim;
    w->q = mem(n * sizeof(float));
    for (i = 0; i < n; i++) {
        v = zero ? 0 : draw() / 1073741824.0f - 2;
        in<float>(w->q)[i] = value(c->bf16, bits(c->bf16, v));
    }
    w->sinks = mem(w->heads * sizeof(float));
    for (i = 0; i < w->heads; i++) {
        in<float>(w->sinks)[i] = draw() / 1073741824.0f - 2;
    }

    w->a.kv.kv.a = reinterpret_cast<uintptr_t>(w->cache.get());
    w->a.sinks.a = c->sinks ? reinterpret_cast<uintptr_t>(w->sinks.get()) : 0;
}

// Queries of the step's tokens, in a step's order.
static mem_t
queries(const world_t &w, const step_t &s)
{
    size_t r, one = w.heads * w.c.dim * sizeof(float);
    mem_t q = mem(s.tokens * one);

    for (r = 0; r < s.rows.size(); r++) {
        memcpy(q.get() + s.rows[r].tok * one, w.q.get() + s.from[r] * one,
            s.rows[r].q_len * one);
    }

    return q;
}

// What of a step comes out, by the case's tokens; others stay as they were.
static void
sort_out(const world_t &w, const step_t &s, const float *y, float *to)
{
    size_t r, one = w.heads * w.c.dim;

    for (r = 0; r < s.rows.size(); r++) {
        memcpy(to + s.from[r] * one, y + s.rows[r].tok * one,
            s.rows[r].q_len * one * sizeof(float));
    }
}

// A step's blocks where the device has them.
struct blocks_t {
    mem_t ids;
    const uint32_t *at;

    explicit blocks_t(const world_t &w)
        : ids(mem(w.blocks.size() * 4)), at(in<uint32_t>(ids))
    {
        memcpy(ids.get(), w.blocks.data(), w.blocks.size() * 4);
    }
};

// The kernels' results of a step, planned for so many units.
static void
run(const world_t &w, const step_t &s, uint32_t units, std::vector<float> *to)
{
    const case_t *c = &w.c;
    attn_shape_t shape = {w.a.kv.group, c->share, c->window,
        attn_decode.queries(c->dim), attn_prefill.queries(c->dim),
        {units, units}, 400};
    kn_limits_t l;
    attn_plan_t p;
    attn_args_t a;
    attn_list_t lists[2];
    uint32_t kind, n, max[2];
    size_t out = static_cast<size_t>(s.tokens) * w.heads * c->dim;

    memset(&l, 0, sizeof(l));
    l.tokens = s.tokens;
    l.rows = static_cast<uint32_t>(s.rows.size());
    max[0] = attn_plan_max(&shape, &l, ATTN_NARROW);
    max[1] = attn_plan_max(&shape, &l, ATTN_WIDE);

    mem_t list[2] = {
        mem(max[0] * sizeof(attn_unit_t)), mem(max[1] * sizeof(attn_unit_t))};
    mem_t q = queries(w, s), y = mem(out * sizeof(float));
    blocks_t blocks(w);

    p.units[0] = in<attn_unit_t>(list[0]);
    p.units[1] = in<attn_unit_t>(list[1]);
    attn_plan(&shape, s.rows.data(), l.rows, &p);
    assert(p.n[0] <= max[0] && p.n[1] <= max[1]);

    n = p.tiles * c->kv_heads;
    mem_t came = mem(n * 4),
          slots = mem(static_cast<size_t>(p.slots) * c->kv_heads * ATTN_ROWS
                      * (c->dim + 2) * sizeof(float));

    memset(came.get(), 0, n * 4);
    memset(&a, 0, sizeof(a));
    a.blocks = &blocks.at;
    a.q = in<float>(q);
    a.y = in<float>(y);
    a.sinks = c->sinks ? in<float>(w.sinks) : NULL;
    a.kv = w.cache.get();
    a.stride = w.a.kv.stride;
    a.k_off = w.a.kv.k_off;
    a.v_off = w.a.kv.v_off;
    a.block_tokens = c->block_tokens;
    a.kv_heads = c->kv_heads;
    a.share = c->share;
    a.window = c->window;
    attn_factors(&a, w.a.scale, c->cap);
    a.slots = in<float>(slots);
    a.came = in<uint32_t>(came);

    for (kind = 0; kind < 2; kind++) {
        if (p.n[kind] > 0) {
            lists[kind].units = p.units[kind];
            lists[kind].n = p.n[kind];
            a.list = &lists[kind];
            // one more than there are: a graph's launches have the most
            (kind == ATTN_NARROW ? attn_decode : attn_prefill)
                .launch(&a, c->dim, w.a.kv.type, p.n[kind] + 1, stream);
            rt_wait(stream);
        }
    }

    for (kind = 0; kind < n; kind++) {
        assert(in<uint32_t>(came)[kind] == 0);
    }
    to->resize(static_cast<size_t>(w.tokens) * w.heads * c->dim);
    sort_out(w, s, in<float>(y), to->data());
}

// The same as the device does it, twice: a shape is seen, and known.
static void
run_fast(
    const world_t &w, const step_t &s, int recorded, std::vector<float> *to)
{
    size_t out = static_cast<size_t>(s.tokens) * w.heads * w.c.dim;
    mem_t q = queries(w, s), y = mem(out * sizeof(float));
    blocks_t blocks(w);
    kn_step_t step;
    kn_limits_t l;
    kn_attn_t a = w.a;
    attn_fast_t *f;
    attn_list_t lists[ATTN_SHAPES][2];
    std::vector<unsigned char> units;
    const attn_step_t at = {&blocks.at, lists[0]};
    int i, r;

    memset(&l, 0, sizeof(l));
    l.tokens = s.tokens;
    l.rows = static_cast<uint32_t>(s.rows.size());
    l.head_dim = w.c.dim;
    memset(&step, 0, sizeof(step));
    step.rows_n = l.rows;
    step.rows = s.rows.data();
    a.q.a = reinterpret_cast<uintptr_t>(q.get());
    a.y.a = reinterpret_cast<uintptr_t>(y.get());

    f = attn_fast_open(&l);
    assert(f != NULL);
    for (i = 0; i < 2; i++) {
        memset(y.get(), 0xff, out * sizeof(float));
        units.resize(attn_fast_plan(f, &step));
        attn_fast_put(f, units.data(), units.data(), lists);
        if (i == 1 && recorded && s.tokens == l.rows) {
            assert(attn_fast_fits(f, l.rows + 3)); // of a larger bucket
            attn_fast_recorded(f, l.rows + 3);
        }
        r = attn_fast(f, &a, &at, stream);
        assert(r == 1);
        rt_wait(stream);
    }

    a.kv.type = KN_F32;
    r = attn_fast(f, &a, &at, stream);
    assert(r == 0);
    attn_fast_close(f);
    to->resize(static_cast<size_t>(w.tokens) * w.heads * w.c.dim);
    sort_out(w, s, in<float>(y), to->data());
}

static void
body(void *arg)
{
    void **p = static_cast<void **>(arg);
    const kernels_t *k = static_cast<const kernels_t *>(p[0]);

    k->attn(static_cast<kn_dev_t *>(p[1]), static_cast<kn_attn_t *>(p[2]));
}

// The reference's results of the whole case.
static void
reference(const world_t &w, const step_t &s, std::vector<float> *y)
{
    char err[200];
    const kernels_t *k = kernels_cpu("ref", err, sizeof(err));
    kn_open_t o = {};
    kn_dev_t *dev = k->open(&o, err, sizeof(err));
    std::vector<uint32_t> tokens(s.tokens);
    kn_limits_t l;
    kn_step_t step;
    kn_attn_t a = w.a;
    void *arg[3] = {const_cast<kernels_t *>(k), dev, &a};
    int r;

    assert(dev != NULL);
    memset(&l, 0, sizeof(l));
    l.tokens = s.tokens;
    l.rows = static_cast<uint32_t>(s.rows.size());
    l.outs = 1;
    l.blocks = static_cast<uint32_t>(w.blocks.size());
    l.context = 2000;
    l.heads = w.heads;
    l.head_dim = w.c.dim;
    l.vocab = 2;
    r = k->reserve(dev, &l, err, sizeof(err));
    assert(r == 0);

    memset(&step, 0, sizeof(step));
    step.tokens_n = s.tokens;
    step.rows_n = l.rows;
    step.blocks_n = l.blocks;
    step.tokens = tokens.data();
    step.rows = s.rows.data();
    step.blocks = w.blocks.data();
    y->resize(static_cast<size_t>(w.tokens) * w.heads * w.c.dim);
    a.q.a = reinterpret_cast<uintptr_t>(w.q.get());
    a.y.a = reinterpret_cast<uintptr_t>(y->data());
    k->plan(dev, &step);
    k->submit(dev, body, arg);
    k->wait(dev);
    k->close(dev);
}

static double
furthest(const std::vector<float> &a, const std::vector<float> &b)
{
    double d, worst = 0;
    size_t i;

    assert(a.size() == b.size() && a.size() > 0);
    for (i = 0; i < a.size(); i++) {
        d = fabs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
        worst = d <= worst ? worst : d; // NaN is worst
        if (isnan(d)) {
            return d;
        }
    }

    return worst;
}

static int
same(const char *what, const case_t *c, const std::vector<float> &a,
    const std::vector<float> &b)
{
    size_t i, one = c->dim;

    for (i = 0; i < a.size(); i++) {
        if (memcmp(&a[i], &b[i], sizeof(float)) != 0) {
            printf("%s: %s: element %zu of query %zu is %.9g, was %.9g\n",
                c->name, what, i % one, i / one, static_cast<double>(b[i]),
                static_cast<double>(a[i]));
            return 0;
        }
    }

    return 1;
}

// The case's rows as they are, cut in two, token by token, backwards.
enum { WHOLE, HALVES, TOKENS, BACKWARDS };

static step_t
step_of(const world_t &w, int how)
{
    step_t s;
    uint32_t i, j, r, len, half;

    s.tokens = 0;
    for (i = 0; i < w.c.rows_n; i++) {
        r = how == BACKWARDS ? w.c.rows_n - 1 - i : i;
        len = w.c.len[r];
        half = how == HALVES ? len / 2 + len % 3 % 2 : 0;

        if (how == TOKENS) {
            for (j = 0; j < len; j++) {
                step_row(w, &s, r, j, 1);
            }
            continue;
        }
        if (half > 0 && half < len) {
            step_row(w, &s, r, 0, half);
        }
        half = half < len ? half : 0;
        step_row(w, &s, r, half, len - half);
    }

    return s;
}

// Bits of the case are the same whatever the step; alone, a row too.
static int
invariant(const world_t &w, const std::vector<float> &y)
{
    std::vector<float> other(y.size());
    size_t one = w.heads * w.c.dim;
    uint32_t r = w.c.rows_n - 1;
    step_t alone;
    int ok = 1;

    run(w, step_of(w, WHOLE), 100, &other);
    ok &= same("in as many units as there can be", &w.c, y, other);
    run_fast(w, step_of(w, WHOLE), w.c.len[0] % 2 == 1, &other);
    ok &= same("as the device plans it", &w.c, y, other);
    run(w, step_of(w, TOKENS), 3, &other);
    ok &= same("token by token", &w.c, y, other);
    run(w, step_of(w, HALVES), 3, &other);
    ok &= same("cut in two", &w.c, y, other);
    run(w, step_of(w, BACKWARDS), 5, &other);
    ok &= same("in another order", &w.c, y, other);

    alone.tokens = 0;
    step_row(w, &alone, r, 0, w.c.len[r]);
    other = y;
    memset(other.data() + w.first[r] * one, 0xff,
        w.c.len[r] * one * sizeof(float));
    run(w, alone, 2, &other);

    return ok & same("alone", &w.c, y, other);
}

static int
check(const case_t *c, uint64_t seed)
{
    std::vector<float> want, y;
    double far, limit = c->bf16 ? 4e-3 : 5e-4, exact;
    int ok = 1;

    {
        world_t w;

        open(&w, c, seed, 1);
        reference(w, step_of(w, WHOLE), &want);
        run(w, step_of(w, WHOLE), 2, &y);
        exact = furthest(want, y);
    }

    world_t w;

    open(&w, c, seed, 0);
    reference(w, step_of(w, WHOLE), &want);
    run(w, step_of(w, WHOLE), 1, &y);
    far = furthest(want, y);
    ok = far < limit && exact < 1e-6 && invariant(w, y);
    printf("%-12s seed %llu  error %.1e, of equal weights %.1e%s\n", c->name,
        static_cast<unsigned long long>(seed), far, exact, ok ? "" : "  BAD");

    return ok;
}

int
main(int argc, char **argv)
{
    const case_t *c;
    uint64_t seed;
    int i = 1, ok = 1;
    char err[200];

    ok = rt_open(err, sizeof(err), err, sizeof(err)) == 0;
    assert(ok);
    stream = rt_stream_open();
    attn_decode.open(rt_shared_max());
    attn_prefill.open(rt_shared_max());

    do {
        seed = argc > 1 ? strtoull(argv[i], NULL, 10) : 0;
        simt_set(seed, 1 + seed % 2);
        for (c = cases; c < cases + sizeof(cases) / sizeof(*cases); c++) {
            if (getenv("CASE") == NULL
                || strcmp(getenv("CASE"), c->name) == 0) {
                ok &= check(c, seed);
            }
        }
    } while (++i < argc);

    rt_stream_close(stream);

    return !ok;
}
