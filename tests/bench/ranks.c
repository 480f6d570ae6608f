/*
 * What it costs that ranks meet: ranks [MODEL].
 *
 * First sums alone, by ranks that do nothing else, at sizes of one token's
 * activations and of a prompt's.  Then steps of a model, the demo's unless
 * another is given, by 1, 2, 4 and 8 ranks with as many threads together as
 * there are processors, or one each where they are more: of one decoding row,
 * of sixteen, and of a prompt.
 *
 * The least time counts, since others use the machine too; beside it is the
 * mean processor time, of all threads, which others hardly touch.
 */
#include "clock.h"
#include "ranks.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define DEMO    "conf/demo/ngx-llm-demo.gguf"
#define ROUNDS  20
#define CONTEXT 512
#define BLOCK   16
#define ROWS    16
#define TOKENS  256

static const sample_params_t greedy = {.top_p = 1, .repetition_penalty = 1};

static double
cpu_us(void)
{
    struct rusage u;

    (void) getrusage(RUSAGE_SELF, &u);
    return (double) (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6
           + (double) (u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

/* --- sums ---------------------------------------------------------------- */

typedef struct {
    comm_t *c;
    uint64_t n;
    uint32_t calls;
    double us; /* of a call, in the quickest round */
} sums_t;

static void *
sums(void *arg)
{
    sums_t *s = arg;
    uint32_t i, j;
    uint64_t start;
    double us;
    float *x = calloc(s->n, sizeof(*x));

    assert(x != NULL);
    s->us = 1e12;

    for (i = 0; i < ROUNDS; i++) {
        (void) comm_barrier(s->c);
        start = clock_us();

        for (j = 0; j < s->calls; j++) {
            (void) comm_sum(s->c, x, s->n);
        }

        us = (double) (clock_us() - start) / s->calls;
        s->us = us < s->us ? us : s->us;
    }

    free(x);
    return NULL;
}

static double
sum_us(uint32_t ranks, uint64_t bytes)
{
    uint32_t i;
    char err[256];
    comm_t *c[8];
    sums_t s[8];
    pthread_t t[8];

    if (comm_shm_open(ranks, c, err, sizeof(err)) != 0) {
        return 0;
    }

    for (i = 0; i < ranks; i++) {
        s[i] = (sums_t){.c = c[i],
            .n = bytes / sizeof(float),
            .calls = bytes > 1 << 20 ? 5 : 100};
        (void) pthread_create(&t[i], NULL, sums, &s[i]);
    }

    for (i = 0; i < ranks; i++) {
        (void) pthread_join(t[i], NULL);
        comm_close(c[i]);
    }

    return s[0].us;
}

static void
print_sums(void)
{
    static const uint64_t sizes[] = {
        4096, 16384, 65536, 1 << 18, 1 << 20, 8 << 20};
    uint32_t i, ranks;

    printf("%-10s%12s%12s%12s   us of a sum\n", "bytes", "2 ranks", "4 ranks",
        "8 ranks");

    for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        printf("%-10llu", (unsigned long long) sizes[i]);

        for (ranks = 2; ranks <= 8; ranks *= 2) {
            printf("%12.1f", sum_us(ranks, sizes[i]));
        }

        printf("\n");
    }
}

/* --- steps --------------------------------------------------------------- */

/* rows sequences of tokens each from position `from` on. */
static void
step(ranks_t *r, uint32_t rows_n, uint32_t from, uint32_t tokens_n)
{
    static uint32_t tables[ROWS][CONTEXT / BLOCK];
    uint32_t i, j, tokens[TOKENS];
    batch_row_t rows[ROWS] = {{0}};
    batch_out_t outs[ROWS];
    sample_out_t sampled[ROWS];
    batch_t b = {.rows_n = rows_n,
        .outs_n = rows_n,
        .tokens_n = rows_n * tokens_n,
        .rows = rows,
        .outs = outs,
        .tokens = tokens};

    assert(b.tokens_n <= TOKENS && rows_n <= ROWS);

    for (i = 0; i < rows_n; i++) {
        for (j = 0; j < CONTEXT / BLOCK; j++) {
            tables[i][j] = i * (CONTEXT / BLOCK) + j;
        }

        rows[i] = (batch_row_t){.seq = i,
            .q_start = from,
            .q_len = tokens_n,
            .kv_len = from + tokens_n,
            .tok = i * tokens_n,
            .blocks = {{tables[i], 0, CONTEXT / BLOCK}}};
        outs[i] = (batch_out_t){.tok = (i + 1) * tokens_n - 1,
            .row = i,
            .pos = from + tokens_n - 1,
            .params = &greedy,
            .known = tokens,
            .known_n = 1,
            .prompt_n = 1};
    }

    for (i = 0; i < b.tokens_n; i++) {
        tokens[i] = 1 + i % 200;
    }

    forward_submit(ranks_forward(r), &b);
    (void) forward_wait(ranks_forward(r), sampled);
}

static void
print_step(ranks_t *r, uint32_t rows, uint32_t from, uint32_t tokens)
{
    uint32_t i;
    uint64_t start, us, least = UINT64_MAX;
    double cpu;

    step(r, rows, from, tokens);
    cpu = cpu_us();

    for (i = 0; i < ROUNDS; i++) {
        start = clock_us();
        step(r, rows, from, tokens);
        us = clock_us() - start;
        least = us < least ? us : least;
    }

    printf(
        "%12llu%10.0f", (unsigned long long) least, (cpu_us() - cpu) / ROUNDS);
}

static int
print_steps(const char *path)
{
    char err[512];
    uint32_t n;
    ranks_t *r;
    ranks_cfg_t c = {.kn = kernels_cpu("auto", err, sizeof(err)),
        .model = model_open(path, err, sizeof(err)),
        .shape = {ROWS, TOKENS, ROWS, CONTEXT, ROWS * CONTEXT / BLOCK, BLOCK,
            KN_F16, .groups = {.n = 0}}};

    if (c.model == NULL) {
        fprintf(stderr, "%s\n", err);
        return 1;
    }

    printf("%-10s%22s%22s%22s   us, cpu us of a step\n", "ranks", "1 row",
        "16 rows", "256 tokens");

    for (n = 1; n <= 8; n *= 2) {
        c.ranks = n;
        r = ranks_open(&c, err, sizeof(err));

        if (r == NULL) {
            printf("%s\n", err);
            continue;
        }

        printf("%-10u", n);
        print_step(r, 1, 256, 1);
        print_step(r, 16, 256, 1);
        print_step(r, 1, 0, 256);
        printf("\n");
        ranks_close(r);
    }

    model_close((model_t *) (uintptr_t) c.model);
    return 0;
}

int
main(int argc, char **argv)
{
    print_sums();
    return print_steps(argc > 1 ? argv[1] : DEMO);
}
