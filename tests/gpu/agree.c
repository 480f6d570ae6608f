/*
 * Do whole models compute on CUDA what they compute on the CPU?  agree
 * [SHAPE...]: random models of shapes run the same steps on both: chunks of
 * prompts, tokens of many sequences, both together, alone.  Exit 1 if not.
 *
 * Would catch what no op alone shows: steps that a device records and replays
 * for other sizes than it recorded, work lists of the step before, an op that
 * begins before the one ahead of it has ended.
 *
 *      logprobs    the best of the CPU's are CUDA's, to a tolerance; and so is
 *                  the token, unless the CPU's best two are within it
 *      again       all steps once more: the same bits, wherever a step stands
 *      alone       a sequence's last token in a step of its own: the same bits
 *      eager, overlapped   the same bits where no step is recorded, and where
 *                  kernels begin before those ahead of them have ended
 */
#include "probe.h"
#include "seqs.h"
#include "synth.h"

#include <math.h>
#include <stdio.h>

#define SEQS   12
#define STEPS  14
#define TOKENS 160
#define TOPS   8

/*
 * Keys, values, queries and weights of attention are rounded to 16 bits, and
 * logits are sums of so many terms: a part of the root of their number.
 */
#define TOLERANCE(shape) (5e-4 * sqrt((shape)->hidden))

static const sample_params_t params = {
    .top_p = 1, .repetition_penalty = 1, .logprobs = 1, .tops = TOPS};

typedef struct {
    synth_pass_t p;
    seqs_t s;
    uint32_t n[STEPS]; /* outputs of a step */
    sample_out_t got[STEPS][SEQS];
} side_t;

static uint32_t
min(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static int
side_open(
    side_t *d, const synth_t *shape, const kernels_t *kn, const kn_open_t *o)
{
    forward_cfg_t c;
    char err[512];

    memset(&c, 0, sizeof(c));
    c.rows_max = SEQS;
    c.tokens_max = TOKENS;
    c.outs_max = TOKENS;
    c.context = 512;
    c.blocks = SEQS * 32;
    c.block_tokens = SEQS_BLOCK;
    c.kv_type = KN_F16;

    if (kn == NULL
        || synth_open(&d->p, shape, kn, o, &c, err, sizeof(err)) != 0) {
        printf("%s: %s\n", shape->name, kn == NULL ? "no CPU table" : err);
        return -1;
    }
    seqs_open(&d->s, SEQS, TOKENS, c.blocks, shape->vocab);

    return 0;
}

static void
side_close(side_t *d)
{
    seqs_close(&d->s);
    synth_close(&d->p);
}

/* Sequence i's prompt, and how much of it a step computes. */
static uint32_t
prompt_of(uint32_t i)
{
    return 3 + i * 13 % 61;
}

/*
 * Step i: prompts by chunks, the more sequences decode the later it is, in
 * other numbers each time.  done is [SEQS], tokens computed.
 */
static void
compose(seqs_t *s, uint32_t i, uint32_t *done)
{
    uint32_t k, n, left = 16 + i * 29 % 90;

    seqs_begin(s);
    for (k = 0; k < SEQS; k++) {
        if (done[k] < prompt_of(k) ? left == 0 : (i + k) % 5 == 0) {
            continue;
        }

        n = done[k] < prompt_of(k) ? min(left, prompt_of(k) - done[k]) : 1;
        left -= done[k] < prompt_of(k) ? n : 0;
        seqs_add(s, k, done[k], n, 1, NULL, &params);
        done[k] += n;
    }
}

static void
run_all(side_t *d, sample_out_t (*got)[SEQS], uint32_t *done)
{
    uint32_t i;

    memset(done, 0, SEQS * sizeof(*done));
    for (i = 0; i < STEPS; i++) {
        compose(&d->s, i, done);
        d->n[i] = d->s.b.outs_n;
        forward_submit(d->p.f, &d->s.b);
        forward_wait(d->p.f, got[i]);
    }
}

/* The logprob that o has for token; NAN if it is none of its best. */
static float
logprob_of(const sample_out_t *o, uint32_t token)
{
    uint32_t i;

    for (i = 0; i < o->tops_n; i++) {
        if (o->top_ids[i] == token) {
            return o->top_logprobs[i];
        }
    }

    return NAN;
}

/* By how much the better half of a's best are others in b; infinite if b has
 * them not, or another token without need. */
static double
apart(const sample_out_t *a, const sample_out_t *b, double tolerance)
{
    uint32_t i;
    double d, worst = 0;

    if (a->err != 0 || b->err != 0 || a->tops_n < TOPS || b->tops_n < TOPS) {
        return INFINITY;
    }
    if (a->token != b->token
        && a->top_logprobs[0] - a->top_logprobs[1] > 2 * tolerance) {
        return INFINITY;
    }
    for (i = 0; i < TOPS / 2; i++) {
        d = fabs(logprob_of(b, a->top_ids[i]) - a->top_logprobs[i]);
        worst = d <= worst ? worst : isnan(d) ? INFINITY : d;
    }

    return worst;
}

static int
same(const sample_out_t *a, const sample_out_t *b)
{
    return a->token == b->token && a->err == b->err
           && memcmp(&a->logprob, &b->logprob, sizeof(a->logprob)) == 0
           && memcmp(a->top_ids, b->top_ids, TOPS * sizeof(*a->top_ids)) == 0
           && memcmp(a->top_logprobs, b->top_logprobs,
                  TOPS * sizeof(*a->top_logprobs))
                  == 0;
}

/* Each sequence's last token once more, by itself: how many differ. */
static uint32_t
alone(side_t *d, const uint32_t *done)
{
    uint32_t k, i, j, bad = 0;
    sample_out_t one, with[SEQS];

    seqs_begin(&d->s);
    for (k = 0; k < SEQS; k++) {
        seqs_add(&d->s, k, done[k] - 1, 1, 1, NULL, &params);
    }
    forward_submit(d->p.f, &d->s.b);
    forward_wait(d->p.f, with);

    for (k = 0; k < SEQS; k++) {
        seqs_begin(&d->s);
        seqs_add(&d->s, k, done[k] - 1, 1, 1, NULL, &params);
        forward_submit(d->p.f, &d->s.b);
        forward_wait(d->p.f, &one);
        i = !same(&one, &with[k]);
        j = one.err != 0;
        bad += i + j;
    }

    return bad;
}

/* How many outputs have other bits in got than in want, whose counts are n. */
static uint32_t
differ(const uint32_t *n, sample_out_t (*want)[SEQS], sample_out_t (*got)[SEQS])
{
    uint32_t i, k, bad = 0;

    for (i = 0; i < STEPS; i++) {
        for (k = 0; k < n[i]; k++) {
            bad += !same(&want[i][k], &got[i][k]);
        }
    }

    return bad;
}

/* Those of a device that is opened in another way; all, if it cannot be. */
static uint32_t
otherwise(const synth_t *shape, side_t *gpu, const kn_open_t *o)
{
    static side_t other;
    static sample_out_t got[STEPS][SEQS];
    uint32_t done[SEQS], bad;

    if (side_open(&other, shape, llm_cuda_kernels(), o) != 0) {
        return STEPS * SEQS;
    }
    run_all(&other, got, done);
    bad = differ(gpu->n, gpu->got, got);
    run_all(&other, got, done); /* from recordings, if it makes any */
    bad += differ(gpu->n, gpu->got, got);
    side_close(&other);

    return bad;
}

static int
check(const char *name)
{
    static const kn_open_t plain, eager = {.eager = 1}, over = {.overlap = 1};
    static side_t cpu, gpu;
    static sample_out_t again[STEPS][SEQS];
    const synth_t *shape = synth_named(name);
    uint32_t i, k, done[SEQS], outs = 0, bad[4];
    double d, worst = 0;
    kn_info_t info;
    char err[256];

    if (shape == NULL) {
        printf("%s: there is no such shape\n", name);
        return 0;
    }
    if (side_open(&cpu, shape, kernels_cpu("auto", err, sizeof(err)), &plain)
        != 0) {
        return 0;
    }
    if (side_open(&gpu, shape, llm_cuda_kernels(), &plain) != 0) {
        side_close(&cpu);
        return 0;
    }

    run_all(&cpu, cpu.got, done);
    run_all(&gpu, gpu.got, done);
    run_all(&gpu, again, done);
    bad[0] = differ(gpu.n, gpu.got, again);
    bad[1] = alone(&gpu, done);
    memset(&info, 0, sizeof(info));
    gpu.p.kn.info(gpu.p.dev, &info);

    for (i = 0; i < STEPS; i++) {
        for (k = 0; k < cpu.n[i]; k++, outs++) {
            d = apart(&cpu.got[i][k], &gpu.got[i][k], TOLERANCE(shape));
            worst = d > worst ? d : worst;
        }
    }

    side_close(&cpu);
    side_close(&gpu);
    bad[2] = otherwise(shape, &gpu, &eager);
    bad[3] = otherwise(shape, &gpu, &over);
    printf("%-13s %u outputs: logprobs %.1e apart; again %u, alone %u, "
           "eager %u, overlapped %u differ; %llu steps replayed\n",
        name, outs, worst, bad[0], bad[1], bad[2], bad[3],
        (unsigned long long) info.replayed);
    (void) fflush(stdout);

    return worst <= TOLERANCE(shape) && bad[0] + bad[1] + bad[2] + bad[3] == 0
           && info.replayed > 0;
}

int
main(int argc, char **argv)
{
    int i, ok = argc > 1;

    for (i = 1; i < argc; i++) {
        ok &= check(argv[i]);
    }

    return !ok;
}
