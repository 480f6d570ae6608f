/*
 * llama.cpp's side of tests/bench/cpu.py: cpu_peer MODEL THREADS MODE loads a
 * model and computes what its input asks for, each line answered by one with
 * microseconds: `prefill TOKENS CHUNK` and `decode ROWS BEGIN STEPS` as
 * tests/bench/cpu.c has them, and
 *
 *      use FLASH UBATCH     how it computes from now on: flash attention 0 or
 *                           1, tokens of a micro-batch; it answers 0
 *
 * cpu_peer quantize FROM TO TYPE THREADS writes a file of another type, as
 * llama-quantize does.
 *
 * MODE is how weights lie in memory, a sum of 1: the file is mapped, else read;
 * and 2: they are repacked, where llama.cpp knows how.
 *
 * DESIGN.  What is asked of llama.cpp is what its own batched bench asks, call
 * by call; but the model stays loaded, so that it and the engine can take turns
 * within seconds.  CHUNK is left to it: a prompt is one batch, which it cuts
 * into micro-batches.  There is a context for each number of sequences, as
 * small as they need, for that is what suits it best.  Nothing is sampled.
 *
 * This file is compiled by tests/bench/peer.sh alone.
 */
#include <llama.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CONTEXTS = 32, EACH = 256, LONGEST = 4096, ROWS = 64 };

typedef struct {
    int flash, ubatch, rows;
    int filled; /* tokens that each sequence keeps */
    struct llama_context *ctx;
} context_t;

static struct llama_model *model;
static struct llama_batch batch;
static context_t contexts[CONTEXTS];
static int contexts_n, threads, vocab, flash, ubatch = 512;


static double
now_us(void)
{
    struct timespec t;

    (void) clock_gettime(CLOCK_MONOTONIC, &t);

    return (double) t.tv_sec * 1e6 + (double) t.tv_nsec * 1e-3;
}


static void
fail(const char *what)
{
    fprintf(stderr, "cpu_peer: %s\n", what);
    exit(1);
}


/* Only what went wrong. */
static void
quiet(enum ggml_log_level level, const char *text, void *arg)
{
    (void) arg;
    if (level == GGML_LOG_LEVEL_ERROR) {
        fputs(text, stderr);
    }
}


/* A context for so many sequences, as it is to compute now. */
static context_t *
context(int rows)
{
    struct llama_context_params p = llama_context_default_params();
    context_t *c;
    int i;

    for (i = 0; i < contexts_n; i++) {
        c = &contexts[i];
        if (c->rows == rows && c->flash == flash && c->ubatch == ubatch) {
            return c;
        }
    }
    if (contexts_n == CONTEXTS) {
        fail("too many contexts");
    }

    p.n_ctx = (uint32_t) (rows == 0 ? LONGEST : rows * EACH);
    p.n_batch = (uint32_t) (rows == 0 ? LONGEST : EACH);
    p.n_ubatch = (uint32_t) ubatch;
    p.n_seq_max = (uint32_t) (rows == 0 ? 1 : rows);
    p.n_threads = p.n_threads_batch = threads;
    p.flash_attn_type =
        flash ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    p.no_perf = true;

    c = &contexts[contexts_n++];
    *c = (context_t){flash, ubatch, rows, 0, llama_init_from_model(model, p)};
    if (c->ctx == NULL) {
        fail("no context");
    }

    return c;
}


static void
add(int pos, int seq, int out)
{
    int i = batch.n_tokens++;

    batch.token[i] = rand() % vocab;
    batch.pos[i] = pos;
    batch.n_seq_id[i] = 1;
    batch.seq_id[i][0] = seq;
    batch.logits[i] = (int8_t) out;
}


static void
run(struct llama_context *ctx)
{
    if (llama_decode(ctx, batch) != 0) {
        fail("llama_decode failed");
    }
    llama_synchronize(ctx);
    batch.n_tokens = 0;
}


static double
prefill(int tokens)
{
    struct llama_context *ctx = context(0)->ctx;
    double from;
    int i;

    llama_memory_clear(llama_get_memory(ctx), false);
    from = now_us();
    for (i = 0; i < tokens; i++) {
        add(i, 0, i == tokens - 1);
    }
    run(ctx);

    return now_us() - from;
}


static double
decode(int rows, int begin, int steps)
{
    context_t *c = context(rows);
    struct llama_context *ctx = c->ctx;
    double from;
    int i, k;

    for (i = 0; i < rows; i++) {
        llama_memory_seq_rm(
            llama_get_memory(ctx), i, c->filled == begin ? begin : 0, -1);
        for (k = 0; k < begin && c->filled != begin; k++) {
            add(k, i, k == begin - 1);
        }
        if (batch.n_tokens > 0) {
            run(ctx);
        }
    }
    c->filled = begin;

    from = now_us();
    for (k = 0; k < steps; k++) {
        for (i = 0; i < rows; i++) {
            add(begin + k, i, 1);
        }
        run(ctx);
    }

    return now_us() - from;
}


/* Microseconds of what a line asks for, or -1: that is not possible. */
static double
answer(const char *line)
{
    int a, b, c;

    if (sscanf(line, "prefill %d %d", &a, &b) == 2 && a > 0 && a <= LONGEST) {
        return prefill(a);
    }
    if (sscanf(line, "decode %d %d %d", &a, &b, &c) == 3 && a > 0 && a <= ROWS
        && b >= 0 && c > 0 && b + c <= EACH) {
        return decode(a, b, c);
    }
    if (sscanf(line, "use %d %d", &a, &b) == 2 && b > 0) {
        flash = a != 0;
        ubatch = b;
        return 0;
    }

    return -1;
}


static int
quantize(char **argv)
{
    static const struct {
        const char *name;
        enum llama_ftype type;
    } types[] = {
        {"BF16", LLAMA_FTYPE_MOSTLY_BF16},
        {"Q8_0", LLAMA_FTYPE_MOSTLY_Q8_0},
        {"Q4_0", LLAMA_FTYPE_MOSTLY_Q4_0},
        {"Q4_K_M", LLAMA_FTYPE_MOSTLY_Q4_K_M},
    };
    struct llama_model_quantize_params p =
        llama_model_quantize_default_params();
    size_t i;

    for (i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (strcmp(argv[4], types[i].name) == 0) {
            p.ftype = types[i].type;
            p.nthread = atoi(argv[5]);
            return llama_model_quantize(argv[2], argv[3], &p) == 0 ? 0 : 1;
        }
    }
    fail("no such type");

    return 1;
}


int
main(int argc, char **argv)
{
    struct llama_model_params p = llama_model_default_params();
    double from = now_us(), us;
    char line[200];
    int mode;

    if (argc < 4) {
        printf("usage: cpu_peer MODEL THREADS MODE\n"
               "       cpu_peer quantize FROM TO TYPE THREADS\n");
        return 0;
    }

    llama_log_set(quiet, NULL);
    llama_backend_init();
    if (argc == 6 && strcmp(argv[1], "quantize") == 0) {
        return quantize(argv);
    }
    threads = atoi(argv[2]);
    mode = atoi(argv[3]);
    p.load_mode = mode & 1 ? LLAMA_LOAD_MODE_MMAP : LLAMA_LOAD_MODE_NONE;
    p.use_extra_bufts = (mode & 2) != 0;
    model = llama_model_load_from_file(argv[1], p);
    if (model == NULL) {
        fail("the model cannot be loaded");
    }
    vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
    batch = llama_batch_init(LONGEST, 0, 1);
    batch.n_tokens = 0;
    printf("ready ms %.0f\n", (now_us() - from) / 1e3);
    (void) fflush(stdout);

    while (fgets(line, sizeof(line), stdin) != NULL) {
        us = answer(line);
        if (us < 0) {
            fail(line);
        }
        printf("%.0f\n", us);
        (void) fflush(stdout);
    }

    return 0;
}
