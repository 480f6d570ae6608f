/*
 * How fast attention is beside what the machine gives in the same seconds:
 * attn [THREADS [ISA [TYPE]]].  A line is a prompt's chunk of 512 tokens behind
 * a context, or streams that decode one token each; multiply-adds per second
 * as a part of the peak, and bytes of keys and values per second as a part of
 * what a plain read gets.
 *
 * Layers take turns as in a model, so that a stream's keys do not stay in the
 * caches; blocks lie as if at random.  Each figure is the best of some turns:
 * others' load only ever takes away.  One thread's time is that of its own
 * clock, and so without what others took.
 */
#include "kernels.h"
#include "peak.h"

#include <string.h>
#include <sys/mman.h>

#define BLOCK       16
#define DIM         64
#define CHUNK       512
#define ARENA       ((uint64_t) 320 << 20)
#define LAYERS_MAX  24
#define TURNS       5
#define STREAMS_MAX 32
#define CONTEXT_MAX 32768
#define BLOCKS_MAX  (STREAMS_MAX * 4096 / BLOCK + STREAMS_MAX)
#define PROBE       ((size_t) 128 << 20)

typedef struct {
    const char *isa;
    uint32_t threads, type;
    uint32_t heads, kv_heads;
    uint32_t streams, context, tokens; /* each stream's */
    const uint64_t *probe;
} case_t;

typedef struct {
    const kernels_t *kn;
    kn_dev_t *dev;
    kn_attn_t a[LAYERS_MAX];
    uint32_t layers;
} job_t;

static void
die(const char *what)
{
    fprintf(stderr, "attn: %s\n", what);
    exit(1);
}

static void
body(void *arg)
{
    const job_t *j = arg;
    uint32_t i;

    for (i = 0; i < j->layers; i++) {
        j->kn->attn(j->dev, &j->a[i]);
    }
}

static uint64_t
layer_bytes(const case_t *c)
{
    return 2ull * c->kv_heads * BLOCK * kn_kv_bytes(c->type, DIM);
}

/* The step: every stream's tokens behind its context. */
static void
plan(const case_t *c, job_t *j, uint32_t blocks_n)
{
    static uint32_t tokens[CHUNK], blocks[BLOCKS_MAX];
    static kn_row_t rows[STREAMS_MAX];
    uint32_t i, each = blocks_n / c->streams, n = blocks_n;
    uint64_t seed = 1;
    kn_step_t step;

    for (i = 0; i < n; i++) {
        blocks[i] = i;
    }

    for (i = n - 1; i > 0; i--) {
        uint32_t k, v = blocks[i];

        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        k = (uint32_t) (seed >> 33) % (i + 1);
        blocks[i] = blocks[k];
        blocks[k] = v;
    }

    memset(&step, 0, sizeof(step));
    memset(rows, 0, sizeof(rows));

    for (i = 0; i < c->streams; i++) {
        rows[i].q_start = c->context;
        rows[i].q_len = c->tokens;
        rows[i].tok = i * c->tokens;
        rows[i].blocks[0].at = i * each;
        rows[i].blocks[0].n = each;
    }

    step.tokens_n = c->streams * c->tokens;
    step.rows_n = c->streams;
    step.blocks_n = n;
    step.tokens = tokens;
    step.rows = rows;
    step.blocks = blocks;
    j->kn->plan(j->dev, &step);
}

/* Numbers of about one in size, of any type. */
static void
fill(const case_t *c, void *p, uint64_t bytes)
{
    uint64_t i, seed = 7;
    uint32_t *w = p;

    for (i = 0; i < bytes / 4; i++) {
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        w[i] = (uint32_t) (seed >> 32) & 0x83ff83ff;
        w[i] |= c->type == KN_F16 ? 0x38003800 : 0x3f003f00;
    }

    /* of Q8_0 the factors too: the numbers are what they are */
    for (i = 0; c->type == KN_Q8_0 && i + 34 <= bytes; i += 34) {
        memcpy((char *) p + i, "\x00\x1c", 2);
    }
}

static void
arguments(const case_t *c, job_t *j, uint32_t blocks_n)
{
    kn_ptr_t kv, q, y;
    uint64_t rows = (uint64_t) c->streams * c->tokens * c->heads * DIM;
    kn_attn_t *a;
    uint32_t i;

    j->layers = (uint32_t) (ARENA / (blocks_n * layer_bytes(c)));
    if (c->tokens > 1) {
        j->layers = 1 + 4096 / (c->context + CHUNK);
    }
    j->layers = j->layers < 1 ? 1 : j->layers;
    j->layers = j->layers > LAYERS_MAX ? LAYERS_MAX : j->layers;
    kv = j->kn->alloc(j->dev, blocks_n * j->layers * layer_bytes(c));
    q = j->kn->alloc(j->dev, rows * 4);
    y = j->kn->alloc(j->dev, rows * 4);

    if (kv.a == 0 || q.a == 0 || y.a == 0) {
        die("no memory");
    }

    fill(c, (void *) kv.a, blocks_n * j->layers * layer_bytes(c));
    for (i = 0; i < rows; i++) {
        ((float *) q.a)[i] = (float) (i * 7919 % 1000) * 1e-3f - 0.5f;
    }

    for (i = 0; i < j->layers; i++) {
        a = &j->a[i];
        memset(a, 0, sizeof(*a));
        a->q = q;
        a->y = y;
        a->heads = c->heads;
        a->scale = 0.125f;
        a->kv.kv = kv;
        a->kv.stride = j->layers * layer_bytes(c);
        a->kv.k_off = i * layer_bytes(c);
        a->kv.v_off = a->kv.k_off + layer_bytes(c) / 2;
        a->kv.type = c->type;
        a->kv.block_tokens = BLOCK;
        a->kv.kv_heads = c->kv_heads;
        a->kv.head_dim = a->kv.v_dim = DIM;
    }
}

static void
bench(const case_t *c)
{
    kn_open_t o;
    kn_limits_t l = {STREAMS_MAX * CHUNK, STREAMS_MAX, 1, BLOCKS_MAX,
        CONTEXT_MAX, 32, DIM, 1, 0, 0};
    uint32_t i, each, blocks_n;
    double best = 1e9, gmacs = 0, gbs = 0, t, macs, bytes;
    char err[200];
    job_t j;

    memset(&o, 0, sizeof(o));
    o.threads = c->threads;
    j.kn = kernels_cpu(c->isa, err, sizeof(err));
    if (j.kn == NULL || (j.dev = j.kn->open(&o, err, sizeof(err))) == NULL
        || j.kn->reserve(j.dev, &l, err, sizeof(err)) != 0) {
        die(err);
    }

    each = (c->context + c->tokens + BLOCK - 1) / BLOCK;
    blocks_n = each * c->streams;
    arguments(c, &j, blocks_n);
    plan(c, &j, blocks_n);
    macs = (double) c->streams * c->heads * c->tokens * 2 * DIM
           * (c->context + (c->tokens + 1) / 2.0);
    bytes = (double) blocks_n * (double) layer_bytes(c);

    for (i = 0; i < TURNS; i++) {
        t = peak_gmacs(c->isa, c->threads);
        gmacs = t > gmacs ? t : gmacs;
        t = peak_gbs(c->probe, PROBE / 8, c->threads);
        gbs = t > gbs ? t : gbs;
        t = peak_now(c->threads);
        j.kn->submit(j.dev, body, &j);
        j.kn->wait(j.dev);
        t = (peak_now(c->threads) - t) / j.layers;
        best = t < best ? t : best;
    }

    printf("%2u/%u heads  %2u x %3u tokens at %5u  %9.1f us  %6.1f GMAC/s "
           "(%3.0f %% of %5.1f)  %5.1f GB/s (%3.0f %% of %4.1f)\n",
        c->heads, c->kv_heads, c->streams, c->tokens, c->context, best * 1e6,
        macs / best / 1e9, macs / best / 1e7 / gmacs, gmacs, bytes / best / 1e9,
        bytes / best / 1e7 / gbs, gbs);
    (void) fflush(stdout);
    j.kn->close(j.dev);
}

int
main(int argc, char **argv)
{
    static const uint32_t heads[2][2] = {{32, 8}, {14, 2}};
    static const uint32_t chunks[] = {0, 2048, 8192};
    static const uint32_t streams[] = {1, 8, 32};
    static const uint32_t far[] = {8191, 32767};
    const char *type = argc > 3 ? argv[3] : "F16";
    uint64_t *mem;
    uint32_t s, i;
    case_t c;

    memset(&c, 0, sizeof(c));
    c.threads = argc > 1 ? (uint32_t) atol(argv[1]) : 2;
    c.isa = argc > 2 ? argv[2] : "avx2";
    c.type = kernels_type(type);
    if (c.threads < 1 || c.threads > PEAK_THREADS_MAX
        || c.type >= KN_KV_TYPES) {
        die("usage: attn [THREADS [ISA [F32 | F16 | BF16 | Q8_0]]]");
    }

    mem = mmap(NULL, PROBE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
        -1, 0);
    if (mem == MAP_FAILED) {
        die("no memory");
    }
    (void) madvise(mem, PROBE, MADV_HUGEPAGE);
    memset(mem, 1, PROBE);
    c.probe = mem;
    printf("%s, %s, %u thread%s\n", c.isa, type, c.threads,
        c.threads == 1 ? "" : "s");

    for (s = 0; s < 2; s++) {
        c.heads = heads[s][0];
        c.kv_heads = heads[s][1];
        c.streams = 1;
        c.tokens = CHUNK;

        for (i = 0; i < 3; i++) {
            c.context = chunks[i];
            bench(&c);
        }

        c.tokens = 1;
        for (i = 0; i < 6; i++) {
            c.streams = streams[i / 2];
            c.context = i % 2 ? 4095 : 1023;
            bench(&c);
        }

        c.streams = 1;
        for (i = 0; i < 2; i++) {
            c.context = far[i];
            bench(&c);
        }
    }

    return 0;
}
