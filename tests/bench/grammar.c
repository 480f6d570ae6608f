/*
 * What constrained decoding costs: the time to compile each schema of the
 * maskbench, and of a mask for each token of its valid instances, as the
 * tokenizer splits them; first visits apart and included.
 *
 *   grammar [DIR]    a tokenizer's directory; qwen3 of LLM_DATA unless told
 *   grammar DIR FILE    schemas and token ids from a file, a JSON object a
 *                       line: {"schema": text, "tests": [[id, ...], ...]};
 *                       as many lines out: {"compile_us", "error", "memory",
 *                       "tests": [{"taken", "ends", "masks_us"}, ...]}
 *                       (tests/bench/grammar_peers.py)
 *
 * Processor time of this thread, one try.  No pass or fail.
 */
#include "grammar.h"

#include <dirent.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "times.h"

#define SAMPLES_MAX 400000

static double
cpu_us(void)
{
    struct timespec t;

    (void) clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);

    return (double) t.tv_sec * 1e6 + (double) t.tv_nsec / 1e3;
}

typedef struct {
    times_t compile, masks, again;
    size_t files, compiled, refused, memory, memory_max;
} figures_t;

static void
print(const char *what, times_t *t)
{
    double p50 = times_quantile(t->all, t->n, 500);

    printf("%-28s n %6u  p50 %8.1f  p90 %8.1f  p99 %8.1f  max %9.1f us\n", what,
        t->n, p50, times_quantile(t->all, t->n, 900),
        times_quantile(t->all, t->n, 990), t->n == 0 ? 0 : t->all[t->n - 1]);
}

/* One instance, token by token. */
static void
instance(grammar_t *g, const grammar_vocab_t *v, const token_t *tok,
    const char *text, uint32_t *room, times_t *times, size_t *refused)
{
    static uint32_t ids[65536];
    grammar_state_t st = {NULL, 0, 0, 0};
    const uint32_t *mask;
    const char *s;
    double from;
    int64_t n, i;
    size_t len;

    n = token_encode(tok, text, strlen(text), 0, ids, 65536, NULL, NULL);
    if (grammar_begin(g, &st) != 0) {
        abort();
    }
    for (i = 0; i < n; i++) {
        from = cpu_us();
        mask = grammar_mask(g, v, &st, room);
        times_note(times, cpu_us() - from, 0);
        s = token_bytes(tok, ids[i], &len);
        if (!(mask[ids[i] / 32] >> ids[i] % 32 & 1)
            || grammar_feed(g, &st, s, len) != len) {
            ++*refused;
            break;
        }
    }
    grammar_state_free(&st);
}

static void
schema(figures_t *f, const grammar_vocab_t *v, const token_t *tok,
    const json_t *file, uint32_t *room)
{
    char *text = json_dumps(json_object_get(file, "schema"), JSON_ENCODE_ANY);
    char err[300];
    double from = cpu_us();
    grammar_t *g =
        grammar_open_schema(text, strlen(text), NULL, err, sizeof(err));
    json_t *test;
    size_t i, memory;
    int round;

    f->files++;
    free(text);
    if (g == NULL) {
        return;
    }
    times_note(&f->compile, cpu_us() - from, 0);
    f->compiled++;
    for (round = 0; round < 2; round++) {
        json_array_foreach(json_object_get(file, "tests"), i, test)
        {
            if (json_is_true(json_object_get(test, "valid"))) {
                text =
                    json_dumps(json_object_get(test, "data"), JSON_ENCODE_ANY);
                instance(g, v, tok, text, room,
                    round == 0 ? &f->masks : &f->again, &f->refused);
                free(text);
            }
        }
    }
    memory = grammar_memory(g);
    f->memory += memory;
    f->memory_max = memory > f->memory_max ? memory : f->memory_max;
    grammar_close(g);
}

/* Ids of the file, as far as they are allowed; and whether it may end there. */
static json_t *
case_test(grammar_t *g, const grammar_vocab_t *v, const token_t *tok,
    const json_t *ids, uint32_t *room)
{
    grammar_state_t st = {NULL, 0, 0, 0};
    const uint32_t *mask;
    json_t *times = json_array(), *out;
    size_t i, len, n = json_array_size(ids);
    const char *s;
    double from;
    uint32_t id;

    if (grammar_begin(g, &st) != 0) {
        abort();
    }

    for (i = 0;; i++) {
        from = cpu_us();
        mask = grammar_mask(g, v, &st, room);
        json_array_append_new(times, json_real(cpu_us() - from));
        if (i == n) {
            break;
        }
        id = (uint32_t) json_integer_value(json_array_get(ids, i));
        s = id < token_vocab(tok) ? token_bytes(tok, id, &len) : NULL;
        if (s == NULL || !(mask[id / 32] >> id % 32 & 1)
            || grammar_feed(g, &st, s, len) != len) {
            break;
        }
    }

    out = json_pack("{s:I, s:b, s:o}", "taken", (json_int_t) i, "ends",
        i == n && grammar_can_end(g, &st), "masks_us", times);
    grammar_state_free(&st);

    return out;
}

static json_t *
case_line(const grammar_vocab_t *v, const token_t *tok, const json_t *line,
    uint32_t *room)
{
    const char *text = json_string_value(json_object_get(line, "schema"));
    json_t *tests = json_array(), *test;
    char err[300] = "no schema";
    double from = cpu_us(), compiled;
    grammar_t *g = text == NULL ? NULL
                                : grammar_open_schema(
                                    text, strlen(text), NULL, err, sizeof(err));
    size_t i, memory = 0;

    compiled = cpu_us() - from;

    if (g != NULL) {
        json_array_foreach(json_object_get(line, "tests"), i, test)
        {
            json_array_append_new(tests, case_test(g, v, tok, test, room));
        }

        memory = grammar_memory(g);
        grammar_close(g);
    }

    return json_pack("{s:f, s:s?, s:I, s:o}", "compile_us", compiled, "error",
        g == NULL ? err : NULL, "memory", (json_int_t) memory, "tests", tests);
}

/* A line for each of the file's; 0, or 1. */
static int
cases(const char *path, const grammar_vocab_t *v, const token_t *tok,
    uint32_t *room)
{
    FILE *f = fopen(path, "r");
    json_t *in, *out;

    if (f == NULL) {
        perror(path);
        return 1;
    }

    while ((in = json_loadf(f, JSON_DISABLE_EOF_CHECK, NULL)) != NULL) {
        out = case_line(v, tok, in, room);
        (void) json_dumpf(out, stdout, JSON_COMPACT);
        (void) putchar('\n');
        json_decref(out);
        json_decref(in);
    }

    (void) fclose(f);
    return 0;
}

int
main(int argc, char **argv)
{
    const char *data = getenv("LLM_DATA");
    char path[600], err[300];
    figures_t f;
    grammar_vocab_t *v;
    struct dirent *e;
    uint32_t *room;
    token_t *tok;
    json_t *file;
    double from;
    DIR *d;

    data = data == NULL ? "../shared/data" : data;
    (void) snprintf(path, sizeof(path), "%s/tokenizers/qwen3", data);
    tok = token_open_dir(argc > 1 ? argv[1] : path, err, sizeof(err));
    if (tok == NULL) {
        printf("%s\n", err);
        return 77;
    }
    (void) snprintf(path, sizeof(path), "%s/structured-output/maskbench", data);
    d = opendir(path);
    if (d == NULL) {
        token_close(tok);
        return 77;
    }

    times_pin();
    memset(&f, 0, sizeof(f));
    times_open(&f.compile, 1000);
    times_open(&f.masks, SAMPLES_MAX);
    times_open(&f.again, SAMPLES_MAX);
    from = cpu_us();
    v = grammar_vocab_open(tok, NULL, 0);
    if (v == NULL) {
        abort();
    }
    from = cpu_us() - from;
    room = calloc(grammar_mask_words(v) + 1, sizeof(*room));
    if (argc > 2) {
        return cases(argv[2], v, tok, room);
    }
    printf(
        "vocabulary of %u: opened in %.1f ms\n", token_vocab(tok), from / 1e3);
    while ((e = readdir(d)) != NULL) {
        (void) snprintf(path, sizeof(path), "%s/structured-output/maskbench/%s",
            data, e->d_name);
        file = strstr(path, ".json") == NULL ? NULL
                                             : json_load_file(path, 0, NULL);
        if (file != NULL) {
            schema(&f, v, tok, file, room);
            json_decref(file);
        }
    }
    (void) closedir(d);

    printf("%zu of %zu schemas, %zu valid instances refused\n", f.compiled,
        f.files, f.refused);
    print("compile", &f.compile);
    print("mask, first visits included", &f.masks);
    print("mask, second time", &f.again);
    printf("memory of a grammar and its masks: %.0f KiB on average, "
           "%.0f KiB at most\n",
        (double) f.memory / 1024 / (double) (f.compiled + !f.compiled),
        (double) f.memory_max / 1024);
    times_close(&f.compile);
    times_close(&f.masks);
    times_close(&f.again);
    free(room);
    grammar_vocab_close(v);
    token_close(tok);

    return 0;
}
