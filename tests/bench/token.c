/*
 * How fast text becomes tokens: MB of text a second of processor time, best of
 * TRIES, with each vocabulary of LLM_DATA that is a GGUF file.
 *
 *   token [TEXT [VOCAB.gguf...]]    tinyshakespeare.txt unless told
 *
 * One call takes the whole text, as for one long prompt; the second figure is
 * with a call for each line.  No pass or fail.
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
            len + 1 - (size_t) sum, NULL, NULL);
        if (n < 0) {
            return n;
        }
        sum += n;
    }

    return sum;
}

static void
row(const char *path, const char *text, size_t len, uint32_t *out)
{
    double best[2] = {1e9, 1e9}, start, s;
    const char *name = strrchr(path, '/');
    char err[256];
    int64_t n = 0;
    token_t *t;
    gguf_t *g;
    int i, lines;

    g = gguf_open(path, err, sizeof(err));
    t = g != NULL ? token_open_gguf(g, err, sizeof(err)) : NULL;
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

    printf("%-32s %9lld ids  %6.1f MB/s whole  %6.1f MB/s by line\n",
        name != NULL ? name + 1 : path, (long long) n,
        (double) len / best[0] / 1e6, (double) len / best[1] / 1e6);
    token_close(t);
    gguf_close(g);
}


int
main(int argc, char **argv)
{
    static const char *const vocabs[] = {
        "gpt-2", "deepseek-coder", "llama-spm"};
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

    out = malloc((len + 1) * sizeof(*out));
    if (out == NULL) {
        return 1;
    }

    for (i = 2; i < argc; i++) {
        row(argv[i], text, len, out);
    }
    for (i = 0; argc < 3 && i < 3; i++) {
        (void) snprintf(path, sizeof(path),
            "%s/tokenizers/gguf-vocab/ggml-vocab-%s.gguf", dir, vocabs[i]);
        row(path, text, len, out);
    }

    free(text);
    free(out);

    return 0;
}
