/*
 * What a step of a whole model costs: engine SHAPE [ROW...], in the order of
 * what they tell, or only those rows whose names begin so; row.h has the form.
 *
 * DESIGN.  Steps go through forward_submit and forward_wait as the loop's do,
 * each decoding row with the token that was sampled before.  Three times are
 * taken of each step, medians are shown:
 *
 *      step    by the host's clock, from one step's end to the next one's
 *      busy    on the device, from the step's block being there to the end of
 *              its last launch
 *      idle    on the device, from that end to when the next block is there:
 *              what the host does between steps, and its copy, is all in it
 *
 * The last two are between marks that the device puts into its own stream
 * (probe.h), the first of them after plan(), the second after submit().
 *
 *      engine SHAPE streams N...   N streams at once from prompts to the end
 *
 * A stream is PROMPT tokens and then OUTPUT sampled ones; each step has the
 * next token of all that decode, and prompts up to BUDGET.  The figure is us
 * for an output token of all streams together.
 */
#include "clock.h"
#include "probe.h"
#include "row.h"
#include "seqs.h"
#include "synth.h"

#define PROMPT  512u
#define OUTPUT  128u
#define BUDGET  2048u
#define CHUNK   8192u /* of a prompt that is alone */
#define STREAMS 128u
#define WARM    3u
#define STEPS   60u
#define ROOM    (WARM + STEPS) /* tokens that a decoding row may grow by */
#define SECONDS 4.0 /* of a row, unless its fewest steps take longer */

typedef struct {
    const char *name;
    uint32_t streams, context; /* that decode */
    uint32_t prompt;           /* tokens of one more */
    double target;             /* % of the floor, */
    double experts;            /* of a shape with experts; 0: none */
    int idle;                  /* is it looked at? */
} case_t;

static const case_t cases[] = {
    {"decode b1 1k", 1, 1024, 0, 85, 55, 1},
    {"decode b128 1k", 128, 1024, 0, 75, 0, 1},
    {"prefill 2k", 0, 0, 2048, 70, 70, 0},
    {"decode b32 1k", 32, 1024, 0, 0, 70, 0},
    {"decode b8 1k", 8, 1024, 0, 0, 0, 0},
    {"mixed 64 x 1k + 512", 64, 1024, 512, 70, 0, 0},
    {"prefill 512", 0, 0, 512, 0, 0, 0},
    {"decode b1 8k", 1, 8192, 0, 85, 55, 0},
    {"decode b32 8k", 32, 8192, 0, 0, 0, 0},
    {"prefill 8k", 0, 0, 8192, 0, 0, 0},
    {"decode b8 8k", 8, 8192, 0, 0, 0, 0},
    {"prefill 32k", 0, 0, 32768, 0, 0, 0},
    {"decode b128 8k", 128, 8192, 0, 75, 0, 0},
};

#define CASES (sizeof(cases) / sizeof(cases[0]))

/* A pool that b128 at 8k would need is more than there is. */
#define POOL_MAX 48e9

typedef struct {
    synth_pass_t p;
    seqs_t s;
    uint32_t small; /* divides all sizes: the emulator's */
    uint32_t warm;  /* steps that do not count */
    sample_out_t got[STREAMS + 1];
    double step[STEPS], busy[STEPS], idle[STEPS];
    uint32_t n;
} bench_t;

static const kernels_t *own;
static uint32_t marked; /* marks of a run: 2 a step */


static void
marked_plan(kn_dev_t *dev, const kn_step_t *step)
{
    own->plan(dev, step);
    probe_mark(dev, marked % PROBE_MARKS);
}


static void
marked_submit(kn_dev_t *dev, void (*body)(void *arg), void *arg)
{
    own->submit(dev, body, arg);
    probe_mark(dev, (marked + 1) % PROBE_MARKS);
    marked += 2;
}


static uint32_t
scaled(const bench_t *t, uint32_t n)
{
    return n == 0 ? 0 : n / t->small > 3 ? n / t->small : 3;
}


static uint32_t
streams_of(const bench_t *t, const case_t *c)
{
    return t->small > 1 && c->streams > 2 ? 2 : c->streams;
}


/* Blocks that a case needs. */
static uint32_t
blocks_of(const bench_t *t, const case_t *c)
{
    uint32_t n = streams_of(t, c) + (c->prompt > 0);
    uint32_t most = scaled(t, c->context) + ROOM;

    most = most > scaled(t, c->prompt) ? most : scaled(t, c->prompt);
    return n * ((most + SEQS_BLOCK - 1) / SEQS_BLOCK);
}


static int
fits(const bench_t *t, const synth_t *s, const case_t *c)
{
    return (double) blocks_of(t, c) * SEQS_BLOCK * synth_kv_bytes(s) < POOL_MAX;
}


static int
asked(const case_t *c, int argc, char **argv)
{
    int i, yes = argc <= 2;

    for (i = 2; i < argc; i++) {
        yes |= strncmp(c->name, argv[i], strlen(argv[i])) == 0;
    }

    return yes;
}


/* Kernels may begin while the ones before them end; rows' names say so. */
static int
overlapped(void)
{
    return row_env("GPU_OVERLAP", 0) > 0;
}

static int
open_all(bench_t *t, const synth_t *s, uint32_t blocks)
{
    forward_cfg_t c;
    kn_open_t o;
    char err[512];
    uint64_t from = clock_us();

    memset(&c, 0, sizeof(c));
    memset(&o, 0, sizeof(o));
    o.overlap = overlapped();
    c.rows_max = STREAMS + 1;
    c.outs_max = STREAMS + 1;
    c.tokens_max = CHUNK;
    c.context = scaled(t, 32768) + PROMPT + OUTPUT;
    c.blocks = blocks % 7919 == 0 ? blocks + 1 : blocks;
    c.block_tokens = SEQS_BLOCK;
    c.kv_type = KN_F16;

    own = llm_cuda_kernels();
    if (synth_open(&t->p, s, own, &o, &c, err, sizeof(err)) != 0) {
        fprintf(stderr, "engine: %s\n", err);
        return -1;
    }
    t->p.kn.plan = marked_plan;
    t->p.kn.submit = marked_submit;
    row_figure(
        "loading weights, s", (double) (clock_us() - from) / 1e6, 0, s->name);

    return 0;
}


/* One step, and its times; the first of a row has no step before it. */
static void
step(bench_t *t, double *from, uint32_t i)
{
    double now;

    forward_submit(t->p.f, &t->s.b);
    forward_wait(t->p.f, t->got);
    now = (double) clock_us();
    if (i >= t->warm && t->n < STEPS) {
        t->step[t->n++] = now - *from;
    }
    *from = now;
}


/* What the marks of the last n steps say. */
static void
read_marks(bench_t *t, uint32_t n)
{
    uint32_t i, at = marked - 2 * n;

    for (i = 0; i < n; i++, at += 2) {
        t->busy[i] = probe_between(at % PROBE_MARKS, (at + 1) % PROBE_MARKS);
        t->idle[i] = probe_between((at - 1) % PROBE_MARKS, at % PROBE_MARKS);
    }
}


/* Steps of rows that decode, and of a prompt beside them. */
static void
run_decode(bench_t *t, const case_t *c, uint32_t steps)
{
    uint32_t i, k, n = streams_of(t, c), context = scaled(t, c->context);
    double from = 0;

    for (i = 0; i < t->warm + steps; i++) {
        seqs_begin(&t->s);
        for (k = 0; k < n; k++) {
            seqs_add(&t->s, k, context + i, 1, 1,
                i > 0 ? &t->got[k].token : NULL, &seqs_greedy);
        }
        if (c->prompt > 0) {
            seqs_add(&t->s, n, 0, scaled(t, c->prompt), 1, NULL, &seqs_greedy);
        }
        step(t, &from, i);
    }
    read_marks(t, t->n);
}


/* A prompt by chunks, from an empty cache; a time is that of all of it. */
static void
run_prefill(bench_t *t, const case_t *c, uint32_t times)
{
    uint32_t i, at, n, all = scaled(t, c->prompt);
    double from;

    for (i = 0; i <= times; i++) {
        from = (double) clock_us();
        for (at = 0; at < all; at += n) {
            n = all - at < CHUNK ? all - at : CHUNK;
            seqs_begin(&t->s);
            seqs_add(&t->s, 0, at, n, at + n == all, NULL, &seqs_greedy);
            forward_submit(t->p.f, &t->s.b);
            forward_wait(t->p.f, t->got);
        }
        if (i > 0) {
            t->step[t->n++] = (double) clock_us() - from;
        }
    }
}


/* Bytes and operations of rows of n tokens behind start, out outputs. */
static void
count(row_t *r, const synth_t *s, uint32_t rows, uint32_t start, uint32_t n,
    uint32_t outs)
{
    double tokens = (double) rows * n, seen = tokens * (start + (n + 1) / 2.0);

    r->bytes = synth_bytes(s, rows * n)
               + (double) rows * (start + n) * synth_kv_bytes(s);
    r->flop = 2 * tokens * synth_layer_weights(s) * s->layers
              + 2 * outs * synth_last_weights(s)
              + 4 * seen * s->heads * s->head_dim * s->layers;
}


/* The row's figures; returns its floor, which is the sum of both parts'. */
static double
floor_of(const bench_t *t, const synth_t *s, const case_t *c, row_t *r)
{
    row_t a, b;
    double floor = 0;
    uint32_t n = streams_of(t, c);

    memset(&a, 0, sizeof(a));
    memset(&b, 0, sizeof(b));
    if (n > 0) {
        count(&a, s, n, scaled(t, c->context) + WARM + STEPS / 2, 1, n);
        floor += row_floor(a.bytes, a.flop);
    }
    if (c->prompt > 0) {
        count(&b, s, 1, 0, scaled(t, c->prompt), 1);
        floor += row_floor(b.bytes, b.flop);
    }
    r->bytes = a.bytes + b.bytes;
    r->flop = a.flop + b.flop;

    return floor;
}


static void
measure(bench_t *t, const synth_t *s, const case_t *c)
{
    char name[96], note[160];
    row_t r;
    double floor, idle = 0, busy;
    uint32_t times, prompts = c->streams == 0;

    memset(&r, 0, sizeof(r));
    snprintf(name, sizeof(name), "%s %s%s", s->name, c->name,
        overlapped() ? ", overlapped" : "");
    r.name = name;
    r.target = s->experts > 0 ? c->experts : c->target;
    floor = floor_of(t, s, c, &r);
    times = t->small > 1 ? 1 : prompts ? 3 : STEPS;
    while (times > (prompts ? 2 : 12) && floor * times * 2 > SECONDS * 1e6) {
        times--;
    }
    /* at a fifth of the floor's speed, on the emulator at whatever it has */
    if (!row_fits(name, 1 + floor * (times + t->warm) * 5 / 1e6)) {
        return;
    }

    t->n = 0;
    seqs_open(&t->s, streams_of(t, c) + (c->prompt > 0), CHUNK, t->p.c.blocks,
        s->vocab);
    if (prompts) {
        run_prefill(t, c, times);
        r.us = row_median(t->step, t->n, &r.spread);
        snprintf(note, sizeof(note), "%.0f tokens/s",
            scaled(t, c->prompt) / r.us * 1e6);
    } else {
        run_decode(t, c, times);
        r.us = row_median(t->step, t->n, &r.spread);
        busy = row_median(t->busy, t->n, NULL);
        idle = row_median(t->idle, t->n, NULL);
        snprintf(note, sizeof(note),
            "%.0f tokens/s decoded; busy %.1f us, idle %.1f us",
            streams_of(t, c) / r.us * 1e6, busy, idle);
    }
    r.note = note;
    row_print_floor(&r, floor);
    if (c->idle) {
        snprintf(name, sizeof(name), "%s idle %s%s", s->name, c->name,
            overlapped() ? ", overlapped" : "");
        row_figure(name, idle, 20, "of the device, between steps");
    }
    seqs_close(&t->s);
}


/* --- streams from their prompts to their ends --------------------------- */

/* Sequence k's part of a step; 0 if it has none. */
static uint32_t
add_stream(bench_t *t, uint32_t k, uint32_t *done, uint32_t *left,
    const uint32_t *last)
{
    uint32_t n, prompt = scaled(t, PROMPT);

    if (done[k] >= prompt) {
        seqs_add(&t->s, k, done[k], 1, 1, &last[k], &seqs_greedy);
        done[k]++;
        return 1;
    }

    n = prompt - done[k] < *left ? prompt - done[k] : *left;
    if (n == 0) {
        return 0;
    }
    seqs_add(&t->s, k, done[k], n, done[k] + n == prompt, NULL, &seqs_greedy);
    done[k] += n;
    *left -= n;

    return n;
}


/* All of n streams' tokens: how many outputs there were. */
static uint64_t
run_streams(bench_t *t, uint32_t n)
{
    uint32_t done[STREAMS] = {0}, last[STREAMS] = {0}, k, o, left, some;
    uint32_t all = scaled(t, PROMPT) + scaled(t, OUTPUT) - 1;
    uint64_t outs = 0;

    do {
        seqs_begin(&t->s);
        left = BUDGET;
        some = 0;
        /* who decodes first */
        for (o = 0; o < 2 * n; o++) {
            k = o % n;
            if (done[k] < all && (done[k] >= scaled(t, PROMPT)) == (o < n)) {
                some += add_stream(t, k, done, &left, last);
            }
        }
        if (some == 0) {
            break;
        }
        forward_submit(t->p.f, &t->s.b);
        forward_wait(t->p.f, t->got);
        for (o = 0; o < t->s.b.outs_n; o++) {
            last[t->s.b.rows[t->s.b.outs[o].row].seq] = t->got[o].token;
        }
        outs += t->s.b.outs_n;
    } while (1);

    return outs;
}


static void
measure_streams(bench_t *t, const synth_t *s, uint32_t n)
{
    char name[64], note[96];
    uint64_t from, outs;
    double us;

    snprintf(name, sizeof(name), "%s streams %u", s->name, n);
    if (!row_fits(name, 5 + n / 4.0)) {
        return;
    }
    seqs_open(&t->s, n, CHUNK, t->p.c.blocks, s->vocab);
    from = clock_us();
    outs = run_streams(t, n);
    us = (double) (clock_us() - from);
    assert(outs == (uint64_t) n * scaled(t, OUTPUT));
    snprintf(note, sizeof(note), "%.1f tokens/s; %u + %u tokens each",
        (double) outs / us * 1e6, scaled(t, PROMPT), scaled(t, OUTPUT));
    row_figure(name, us / (double) outs, 0, note);
    seqs_close(&t->s);
}


static void
all_streams(bench_t *t, const synth_t *s, int argc, char **argv)
{
    uint32_t n, each = PROMPT + OUTPUT;
    int i;

    if (open_all(t, s, STREAMS * each / SEQS_BLOCK) != 0) {
        exit(1);
    }

    seqs_open(&t->s, 2, CHUNK, t->p.c.blocks, s->vocab);
    (void) run_streams(t, 2); /* warm */
    seqs_close(&t->s);
    for (i = 3; i < argc; i++) {
        n = (uint32_t) atoi(argv[i]);
        if (n > 0 && n <= STREAMS) {
            measure_streams(t, s, n);
        }
    }
}


int
main(int argc, char **argv)
{
    static bench_t t;
    const synth_t *s = argc > 1 ? synth_named(argv[1]) : NULL;
    uint32_t blocks = 1, need;
    char name[96];
    size_t i;

    if (s == NULL) {
        printf("usage: engine SHAPE [ROW... | streams N...]\n");
        return 2;
    }
    t.small = strncmp(s->name, "tiny", 4) == 0 ? 256 : 1;
    t.warm = t.small > 1 ? 1 : WARM;
    if (argc > 2 && strcmp(argv[2], "streams") == 0) {
        all_streams(&t, s, argc, argv);
        synth_close(&t.p);
        return 0;
    }

    for (i = 0; i < CASES; i++) {
        need = blocks_of(&t, &cases[i]);
        if (asked(&cases[i], argc, argv) && fits(&t, s, &cases[i])) {
            blocks = need > blocks ? need : blocks;
        }
    }
    if (!row_fits(s->name, 10 + synth_bytes(s, 1000) / 2e9)
        || open_all(&t, s, blocks) != 0) {
        return 1;
    }

    for (i = 0; i < CASES; i++) {
        if (!asked(&cases[i], argc, argv)) {
            continue;
        }
        if (!fits(&t, s, &cases[i])) {
            snprintf(name, sizeof(name), "%s %s", s->name, cases[i].name);
            row_skip(name, "its keys and values do not fit");
            continue;
        }
        measure(&t, s, &cases[i]);
    }
    synth_close(&t.p);

    return 0;
}
