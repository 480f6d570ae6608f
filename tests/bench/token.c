/*
 * How fast text becomes tokens: MB of text a second of processor time, best of
 * TRIES, with vocabularies of LLM_DATA in every container.
 *
 *   token [TEXT [VOCAB...]]    tinyshakespeare.txt unless told; a VOCAB is a
 *                              .gguf, .json or .model file
 *
 * One call takes the whole text, as for one long prompt; the second figure is
 * with a call for each line.  No pass or fail; tests/bench/tokenize.sh sets
 * the peer's figures beside these.
 */
#include "token.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TRIES 5

static double
cpu_s(void)
{
    struct timespec t;

    (void) clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);

    return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}

/* NULL if there is no such file. */
static char *
slurp(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    char *p = NULL;
    long n;

    if (f == NULL) {
        return NULL;
    }
    if (fseek(f, 0, SEEK_END) == 0 && (n = ftell(f)) > 0) {
        rewind(f);
        p = malloc((size_t) n);
        *len = p != NULL ? fread(p, 1, (size_t) n, f) : 0;
    }
    (void) fclose(f);

    return p;
}

/* Encodes text in one call or line by line; the ids. */
static int64_t
encode(const token_t *t, const char *text, size_t len, int lines, uint32_t *out)
{
    const char *end;
    int64_t n, sum = 0;
    size_t at, part;

    for (at = 0; at < len; at += part) {
        end = lines ? memchr(text + at, '\n', len - at) : NULL;
        part = end != NULL ? (size_t) (end - text) - at + 1 : len - at;
        n = token_encode(t, text + at, part, 0, out + sum,
            2 * len + 1 - (size_t) sum, NULL, NULL);
        if (n < 0) {
            return n;
        }
        sum += n;
    }

    return sum;
}

/* By what the file is called. */
static token_t *
vocab_open(const char *path, gguf_t **g, char *err, size_t errlen)
{
    const char *end = strrchr(path, '.');

    *g = NULL;
    if (end != NULL && strcmp(end, ".json") == 0) {
        return token_open_json(path, err, errlen);
    }
    if (end != NULL && strcmp(end, ".model") == 0) {
        return token_open_model(path, err, errlen);
    }
    *g = gguf_open(path, err, errlen);

    return *g != NULL ? token_open_gguf(*g, err, errlen) : NULL;
}

static void
row(const char *path, const char *text, size_t len, uint32_t *out)
{
    double best[2] = {1e9, 1e9}, start, s, open;
    const char *name = path + strlen(path);
    char err[256];
    int64_t n = 0;
    token_t *t;
    gguf_t *g;
    int i, lines;

    /* the directory tells one tokenizer.json from another */
    for (i = 0; name > path && (name[-1] != '/' || ++i < 2); name--) {
    }

    start = cpu_s();
    t = vocab_open(path, &g, err, sizeof(err));
    open = cpu_s() - start;
    if (t == NULL) {
        printf("skipped: %s\n", err);
        gguf_close(g);
        return;
    }

    for (lines = 0; lines < 2; lines++) {
        for (i = 0; i < TRIES && n >= 0; i++) {
            start = cpu_s();
            n = encode(t, text, len, lines, out);
            s = cpu_s() - start;
            best[lines] = s < best[lines] ? s : best[lines];
        }
    }

    printf("%-42s %8lld ids %6.1f MB/s whole %6.1f MB/s by line; open %.2f s\n",
        name, (long long) n, (double) len / best[0] / 1e6,
        (double) len / best[1] / 1e6, open);
    token_close(t);
    gguf_close(g);
}


int
main(int argc, char **argv)
{
    static const char *const vocabs[] = {"qwen3/tokenizer.json",
        "phi-2/tokenizer.json", "phi-3-mini/tokenizer.json",
        "t5-small/tokenizer.json", "llama-2/tokenizer.model",
        "mistral-v3/tokenizer.model", "gguf-vocab/ggml-vocab-gpt-2.gguf",
        "gguf-vocab/ggml-vocab-deepseek-coder.gguf",
        "gguf-vocab/ggml-vocab-llama-spm.gguf"};
    const char *dir = getenv("LLM_DATA");
    char path[512], *text;
    uint32_t *out;
    size_t len = 0;
    int i;

    dir = dir != NULL ? dir : "../shared/data";
    (void) snprintf(path, sizeof(path), "%s/text/tinyshakespeare.txt", dir);
    text = slurp(argc > 1 ? argv[1] : path, &len);
    if (text == NULL) {
        printf("skipped: there is no %s\n", argc > 1 ? argv[1] : path);
        return 0;
    }

    out = malloc((2 * len + 1) * sizeof(*out));
    if (out == NULL) {
        return 1;
    }

    for (i = 2; i < argc; i++) {
        row(argv[i], text, len, out);
    }
    for (i = 0; argc < 3 && i < (int) (sizeof(vocabs) / sizeof(vocabs[0]));
         i++) {
        (void) snprintf(path, sizeof(path), "%s/tokenizers/%s", dir, vocabs[i]);
        row(path, text, len, out);
    }

    free(text);
    free(out);

    return 0;
}
