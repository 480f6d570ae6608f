/*
 * What planning costs: sched_plan and sched_commit with sequences that decode
 * in every seat, prompts in chunks, and a queue behind them, as the engine has
 * them: with the prefix cache, fair, two classes in some lines.
 *
 *      sched                   a table over ten times as much
 *      sched SEATS WAITING TENANTS CLASSES TARGET_US STEPS [RUNS]
 *                              one line of it, for a profiler
 *      sched record            the last line alone
 *
 * Each step's plan and commit are timed together, with a request that ends and
 * one that comes in most of them; sched_took beside it.  Plans are of two
 * kinds, those that let somebody in and those that do not, as the former cost
 * more: "p99" is mostly of them.
 *
 * Others on the machine disturb.  "alone" leaves out the steps during which
 * the thread was switched out.  "least" is of the least that each step took in
 * some runs of the same steps, which is what they cost where nobody takes
 * caches and cycles away.  The digest tells whether another commit planned the
 * same; it is the same in each run.  "machine" is no step but arithmetic over
 * 64 KiB that always is the same and takes some 40 us where nobody disturbs,
 * between every few of the steps: as far as it has a tail, so has the machine,
 * whatever it computes.
 * The last lines are in processor time: what the prefix cache adds to a step
 * where nothing is shared, which `sim overhead` sets against a step's length;
 * and what a recording adds for the thread that is recorded.
 *
 * The target is 50 us, p99, for 256 seats and 1,000 waiting.
 */
#include "record.h"
#include "sched.h"
#include "times.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    STEPS = 4000,
    WARM = 1500,
    RUNS = 9,
    CONTEXT = 4096,
    BT = 16,
    PROMPT = 576
};

/* What a tenant's prompts have in common: eight blocks. */
enum { SHARED = 128 };

/* Arithmetic that the machine is judged by: words of it, how long it is to
 * take, and after how many steps each. */
enum { PROBE_WORDS = 65536 / 8, PROBE_US = 40, PROBE_STEPS = 8 };

/* What one line is about. */
typedef struct {
    uint32_t seats, waiting, tenants, classes, target_us, steps;
    int apart; /* no two prompts begin alike */
    int bare;  /* without the prefix cache */
} size_line_t;

/* Times of a kind of steps, of all runs, and the least of each step. */
typedef struct {
    times_t t;
    double least[STEPS];
    uint32_t least_n;
} kind_t;

/* What a step did, and the least that it took. */
typedef struct {
    double least, least_took, least_probe;
    int admits;
} step_t;

typedef struct {
    sched_t *s;
    kv_t *kv;
    recorder_t *rec; /* NULL: nothing is recorded */
    batch_t b;
    sched_take_t *takes;
    req_t *reqs;
    uint32_t *ids; /* [reqs, PROMPT] */
    const size_line_t *l;
    uint64_t digest;
    double ends_us; /* if apart: what it takes to end requests */
    uint32_t n, seed;
} bench_t;


static uint32_t
below(bench_t *t, uint32_t n)
{
    t->seed = t->seed * 1664525u + 1013904223u;

    return (uint32_t) ((uint64_t) t->seed * n >> 32);
}


static void
add(bench_t *t, uint32_t i)
{
    req_t *r = &t->reqs[i];
    uint32_t *ids = t->ids + (size_t) i * PROMPT, k;
    int rc;

    memset(r, 0, sizeof(*r));
    r->n = r->prompts_n = r->choices = 1;
    r->prompts[0].ids = ids;
    r->prompts[0].len = 64 + below(t, PROMPT - 64);
    r->max_tokens = 50 + below(t, 400);
    r->tenant = below(t, t->l->tenants);
    r->space = r->tenant + 1;
    r->priority = below(t, t->l->classes);
    r->weight = 1;
    for (k = 0; k < PROMPT; k++) {
        ids[k] =
            k < SHARED && !t->l->apart ? r->tenant * SHARED + k : t->seed + k;
    }
    rc = sched_add(t->s, i, r);
    assert(rc == 0);
    (void) rc;
}


/* Processor time: what others on the machine take is not in it. */
static double
used_us(void)
{
    struct timespec ts;

    (void) clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);

    return (double) ts.tv_sec * 1e6 + (double) ts.tv_nsec / 1e3;
}


static void
print(const char *name, kind_t *k)
{
    times_t *t = &k->t;

    printf("  %-8s %6u %8.1f %8.1f %8.1f %8.1f %8.1f %8u\n", name, k->least_n,
        times_quantile(t->all, t->n, 500), times_quantile(t->all, t->n, 990),
        times_quantile(t->alone, t->alone_n, 990),
        times_quantile(k->least, k->least_n, 500),
        times_quantile(k->least, k->least_n, 990), t->n - t->alone_n);
}


/* Records into the file at path from here on. */
static void
bench_record(
    bench_t *t, const sched_cfg_t *c, const kv_cfg_t *kc, const char *path)
{
    record_head_t h;
    char err[256];

    record_head(&h, c, kc, 2 * t->n, &t->b);
    t->rec = record_open(path, 1ull << 34, &h, err, sizeof(err));
    if (t->rec == NULL || record_start(t->rec, err, sizeof(err)) != 0) {
        fprintf(stderr, "%s\n", err);
        abort();
    }
    sched_tap(t->s, record_tell, t->rec);
}


/* path: of a recording, or NULL. */
static void
bench_open(bench_t *t, const size_line_t *l, const char *path)
{
    static const uint32_t none[1];
    kv_cfg_t kc = {l->seats * 64, BT, 0, CONTEXT, 2048, 1, none};
    sched_cfg_t c = {.rows = l->seats,
        .tokens = l->seats + 1024,
        .context = CONTEXT,
        .tile = 64,
        .target_us = l->target_us,
        .floor = 5,
        .pass_us = 5000000};
    uint32_t i;

    memset(t, 0, sizeof(*t));
    t->l = l;
    t->seed = 1;
    t->n = l->seats + l->waiting;
    c.reqs = t->n;
    kc.seqs = t->n * LLM_CHOICES_MAX;
    t->kv = kv_open(&kc);
    if (t->kv == NULL || (!l->bare && kv_cache(t->kv, 2 * t->n, 12345) != 0)) {
        abort();
    }
    t->s = sched_open(&c, t->kv);
    t->b.rows_max = t->b.outs_max = c.rows;
    t->b.tokens_max = c.tokens;
    t->b.rows = calloc(c.rows, sizeof(batch_row_t));
    t->b.outs = calloc(c.rows, sizeof(batch_out_t));
    t->b.tokens = calloc(c.tokens, sizeof(uint32_t));
    t->takes = calloc(c.rows, sizeof(sched_take_t));
    t->reqs = calloc(t->n, sizeof(req_t));
    t->ids = calloc(t->n, PROMPT * sizeof(uint32_t));
    if (t->s == NULL || t->b.rows == NULL || t->b.outs == NULL
        || t->b.tokens == NULL || t->takes == NULL || t->reqs == NULL
        || t->ids == NULL) {
        abort();
    }

    if (path != NULL) {
        bench_record(t, &c, &kc, path);
    }
    for (i = 0; i < t->n; i++) {
        add(t, i);
    }
}


/* Bytes that were recorded. */
static uint64_t
bench_close(bench_t *t)
{
    uint64_t bytes = record_close(t->rec);

    sched_close(t->s);
    kv_close(t->kv);
    free(t->b.rows);
    free(t->b.outs);
    free(t->b.tokens);
    free(t->takes);
    free(t->reqs);
    free(t->ids);

    return bytes;
}


/* What was planned, and those who have ended make room for others. */
static void
after(bench_t *t)
{
    const batch_row_t *row;
    uint32_t i, req;
    double from;

    for (i = 0; i < t->b.rows_n; i++) {
        row = &t->b.rows[i];
        t->digest = (t->digest ^ row->seq ^ (uint64_t) row->q_start << 20
                        ^ (uint64_t) row->q_len << 44)
                    * 0x9e3779b97f4a7c15ull;
        t->digest ^= t->digest >> 29;
    }
    for (i = 0; i < t->b.outs_n; i++) {
        req = t->takes[i].req;
        if (sched_done(t->s, req)) {
            from = t->l->apart ? used_us() : 0;
            sched_end(t->s, req);
            t->ends_us += t->l->apart ? used_us() - from : 0;
            add(t, req);
        }
    }
}


/* The times of one line, by kind of step. */
enum { PLAIN, ADMITS, ALL, TOOK, MACHINE, KINDS };

static kind_t kinds[KINDS];
static step_t steps[STEPS];


/* So many words' worth of it. */
static uint64_t
probe(uint32_t words)
{
    static uint64_t memory[PROBE_WORDS];
    uint64_t sum = 1, *p;
    uint32_t i;

    for (i = 0; i < words; i++) {
        p = &memory[i % PROBE_WORDS];
        *p = *p * 6364136223846793005ull + sum;
        sum += *p >> 32;
    }

    return sum;
}


/* How many words that are, on this machine with nobody beside. */
static uint32_t
probe_words(void)
{
    double least = 1e9, us;
    uint32_t i;
    span_t span;
    int alone;

    for (i = 0; i < 1000; i++) {
        span = span_begin();
        (void) probe(PROBE_WORDS);
        us = span_end(&span, &alone);
        least = us < least ? us : least;
    }

    return (uint32_t) (PROBE_WORDS * PROBE_US / least);
}


/* Notes how long it took after that step. */
static void
probe_note(int64_t number)
{
    static uint32_t words;
    static volatile uint64_t sink; /* or nothing need be computed */
    int alone = 1;
    span_t span;
    double us;

    words = words > 0 ? words : probe_words();
    if (number < 0 || number % PROBE_STEPS != 0) {
        return;
    }
    span = span_begin();
    sink = probe(words);
    us = span_end(&span, &alone);
    (void) sink;
    times_note(&kinds[MACHINE].t, us, alone);
    if (us < steps[number].least_probe) {
        steps[number].least_probe = us;
    }
}


/* One step; from the first measured one on, numbered from 0, it is noted. */
static void
step(bench_t *t, uint64_t now, int64_t number)
{
    sched_stats_t was, is;
    double us, took;
    int alone = 1;
    span_t span;
    step_t *st;

    sched_stats(t->s, &was);
    span = span_begin();
    sched_plan(t->s, now, &t->b);
    us = span_end(&span, &alone);
    sched_stats(t->s, &is);
    memset(t->takes, 0, t->b.outs_n * sizeof(*t->takes));

    span = span_begin();
    sched_commit(t->s, &t->b, t->takes);
    us += span_end(&span, &alone);
    span = span_begin();
    sched_took(t->s, &t->b, 10000 + 10 * t->b.tokens_n);
    took = span_end(&span, &alone);

    if (number >= 0) {
        st = &steps[number];
        st->admits = is.running > was.running;
        times_note(&kinds[ALL].t, us, alone);
        times_note(&kinds[st->admits ? ADMITS : PLAIN].t, us, alone);
        times_note(&kinds[TOOK].t, took, alone);
        st->least = us < st->least ? us : st->least;
        st->least_took = took < st->least_took ? took : st->least_took;
    }
}


/* All steps once; the digest of what was planned, and the mean of rows. */
static uint32_t
run(const size_line_t *l, double *rows)
{
    static bench_t t;
    uint32_t i;

    bench_open(&t, l, NULL);
    *rows = 0;

    for (i = 0; i < WARM + l->steps; i++) {
        step(&t, i * 20000ull, (int64_t) i - WARM);
        probe_note((int64_t) i - WARM);
        *rows += i < WARM ? 0 : t.b.rows_n / (double) l->steps;
        after(&t);
    }
    (void) bench_close(&t);

    return (uint32_t) t.digest;
}


static void
bench(const size_line_t *l, uint32_t runs)
{
    static const char *const names[] = {
        "plain", "admits", "all", "took", "machine"};
    uint32_t i, digest = 0;
    kind_t *of;
    double rows = 0;

    for (i = 0; i < KINDS; i++) {
        times_open(&kinds[i].t, runs * l->steps);
        kinds[i].least_n = 0;
    }
    for (i = 0; i < l->steps; i++) {
        steps[i].least = steps[i].least_took = steps[i].least_probe = 1e9;
    }
    for (i = 0; i < runs; i++) {
        digest = run(l, &rows);
    }
    for (i = 0; i < l->steps; i++) {
        of = &kinds[steps[i].admits ? ADMITS : PLAIN];
        of->least[of->least_n++] = steps[i].least;
        of = &kinds[ALL];
        of->least[of->least_n++] = steps[i].least;
        of = &kinds[TOOK];
        of->least[of->least_n++] = steps[i].least_took;
        if (i % PROBE_STEPS == 0) {
            of = &kinds[MACHINE];
            of->least[of->least_n++] = steps[i].least_probe;
        }
    }

    printf("%u seats, %u waiting, %u tenants, %u classes%s: %.0f rows, "
           "digest %08x\n",
        l->seats, l->waiting, l->tenants, l->classes,
        l->target_us > 0 ? ", target" : "", rows, digest);
    for (i = 0; i < KINDS; i++) {
        print(names[i], &kinds[i]);
        times_close(&kinds[i].t);
    }
}


/* Plan, commit and ends of a step with or without the prefix cache where no two
 * prompts begin alike; the least of three runs. */
static double
bench_apart(int bare)
{
    const size_line_t l = {256, 1000, 100, 1, 0, STEPS, 1, bare};
    double least = 0, sum, from;
    static bench_t t;
    uint32_t i, n;

    for (n = 0; n < 3; n++) {
        bench_open(&t, &l, NULL);
        for (i = 0, sum = 0; i < WARM + l.steps; i++) {
            from = used_us();
            sched_plan(t.s, i * 20000ull, &t.b);
            memset(t.takes, 0, t.b.outs_n * sizeof(*t.takes));
            sched_commit(t.s, &t.b, t.takes);
            sum += i >= WARM ? used_us() - from : 0;
            t.ends_us = i >= WARM ? t.ends_us : 0;
            after(&t);
        }
        sum = (sum + t.ends_us) / l.steps;
        least = n == 0 || sum < least ? sum : least;
        (void) bench_close(&t);
    }

    return least;
}


/* Plan and commit of a step, of the least that each took in some runs; bytes:
 * that a step has in the recording at path, if there is to be one. */
static double
bench_plain(const char *path, double *bytes)
{
    const size_line_t l = {256, 1000, 100, 1, 0, STEPS, 0, 0};
    static double least[WARM + STEPS];
    static bench_t t;
    double sum = 0, us;
    uint32_t i, n;

    for (n = 0; n < RUNS; n++) {
        bench_open(&t, &l, path);
        for (i = 0; i < WARM + l.steps; i++) {
            us = used_us();
            sched_plan(t.s, i * 20000ull, &t.b);
            memset(t.takes, 0, t.b.outs_n * sizeof(*t.takes));
            sched_commit(t.s, &t.b, t.takes);
            us = used_us() - us;
            least[i] = n == 0 || us < least[i] ? us : least[i];
            after(&t);
            if (i % 256 == 0) { /* for the disk: real steps take longer */
                (void) usleep(30000);
            }
        }
        if (path != NULL && !record_on(t.rec)) {
            fprintf(stderr, "the disk is too slow to record this\n");
            abort();
        }
        *bytes = (double) bench_close(&t) / (WARM + l.steps);
    }
    for (i = WARM; i < WARM + l.steps; i++) {
        sum += least[i];
    }

    return sum / l.steps;
}


static void
bench_recorded(void)
{
    char path[] = "/tmp/bench.XXXXXX", old[32];
    double with, without, bytes;
    int fd = mkstemp(path);
    cpu_set_t all;

    if (fd == -1) {
        return;
    }
    (void) close(fd);
    memset(&all, 0xff, sizeof(all)); /* the one who writes is another thread */
    (void) sched_setaffinity(0, sizeof(all), &all);
    without = bench_plain(NULL, &bytes);
    with = bench_plain(path, &bytes);
    printf("256 seats, 100 tenants: plan and commit of a step take %.1f us on "
           "average,\n  %.1f with a recording of %.0f bytes a step: %+.1f\n",
        without, with, bytes, with - without);
    snprintf(old, sizeof(old), "%s.old", path);
    (void) unlink(path);
    (void) unlink(old);
}


int
main(int argc, char **argv)
{
    static const size_line_t lines[] = {{26, 100, 4, 1, 0, STEPS, 0, 0},
        {256, 1000, 1, 1, 0, STEPS, 0, 0}, {256, 1000, 100, 1, 0, STEPS, 0, 0},
        {256, 1000, 1000, 1, 0, STEPS, 0, 0},
        {256, 1000, 100, 2, 0, STEPS, 0, 0},
        {256, 1000, 100, 1, 30000, STEPS, 0, 0},
        {256, 10000, 100, 1, 0, STEPS, 0, 0},
        {256, 10000, 1000, 2, 0, STEPS, 0, 0},
        {2560, 10000, 1, 1, 0, STEPS / 4, 0, 0},
        {2560, 10000, 100, 1, 0, STEPS / 4, 0, 0},
        {2560, 10000, 1000, 1, 0, STEPS / 4, 0, 0}};
    double without, with;
    size_line_t one = {.apart = 0};
    size_t i;

    times_pin();
    if (argc == 2 && strcmp(argv[1], "record") == 0) {
        bench_recorded();
        return 0;
    }
    printf("us           steps      p50      p99    alone    least    least "
           "switched\n");
    printf("                                        p99      p50      p99\n");

    if (argc == 7 || argc == 8) {
        one.seats = (uint32_t) strtoul(argv[1], NULL, 10);
        one.waiting = (uint32_t) strtoul(argv[2], NULL, 10);
        one.tenants = (uint32_t) strtoul(argv[3], NULL, 10);
        one.classes = (uint32_t) strtoul(argv[4], NULL, 10);
        one.target_us = (uint32_t) strtoul(argv[5], NULL, 10);
        one.steps = (uint32_t) strtoul(argv[6], NULL, 10);
        one.steps = one.steps < STEPS ? one.steps : STEPS;
        bench(&one, argc == 8 ? (uint32_t) strtoul(argv[7], NULL, 10) : 1);
        return 0;
    }

    for (i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        bench(&lines[i], RUNS);
    }
    without = bench_apart(1);
    with = bench_apart(0);
    printf("256 seats, nothing shared: plan, commit and ends of a step take "
           "%.1f us on average,\n  %.1f without the prefix cache: %+.1f\n",
        with, without, with - without);
    bench_recorded();

    return 0;
}
