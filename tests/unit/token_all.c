/*
 * Would catch: a tokenizer among those of LLM_DATA that no test opens; a text
 * that comes out otherwise when it is streamed in other pieces; a special token
 * that a user's text turns into; a place where a text is cut and that a piece
 * reaches over.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "brief.h"
#include "token_impl.h"
#include "token_test.h"

#include <dirent.h>

/* Each with the test that holds its ids against vectors. */
typedef struct {
    const char *path;
    const char *vectors; /* texts, one JSON object a line */
    const char *tested;
} row_t;

static const row_t rows[] = {
    {"tokenizers/gguf-vocab/ggml-vocab-deepseek-coder.gguf",
        "tokenizers/phi-2/vectors.jsonl", "token_bpe"},
    {"tokenizers/gguf-vocab/ggml-vocab-gpt-2.gguf",
        "tokenizers/phi-2/vectors.jsonl", "token_bpe"},
    {"tokenizers/gguf-vocab/ggml-vocab-llama-spm.gguf",
        "tokenizers/llama-2/vectors.jsonl", "token"},
    {"tokenizers/llama-2/tokenizer.model", "tokenizers/llama-2/vectors.jsonl",
        "token_model"},
    {"tokenizers/mistral-v3/tokenizer.model",
        "tokenizers/mistral-v3/vectors.jsonl", "token_model"},
    {"tokenizers/phi-2/tokenizer.json", "tokenizers/phi-2/vectors.jsonl",
        "token_json"},
    {"tokenizers/phi-3-mini/tokenizer.json",
        "tokenizers/phi-3-mini/vectors.jsonl", "token_json"},
    {"tokenizers/qwen3/tokenizer.json", "tokenizers/qwen3/vectors.jsonl",
        "token_json"},
    {"tokenizers/t5-small/tokenizer.json", "tokenizers/t5-small/vectors.jsonl",
        "token_json"},
    {"models/TinyStories-656K/tokenizer.json",
        "models/TinyStories-656K/vectors.jsonl", "token_json"},
    {"models/stories260K/tok512.model", "models/stories260K/vectors.jsonl",
        "token_model"},
    {"models/stories260K/stories260K.gguf", "models/stories260K/vectors.jsonl",
        "token"},
};

#define ROWS (sizeof(rows) / sizeof(rows[0]))

/* What lies beside a vocabulary and is read with it. */
static const char *const beside[] = {"vectors.jsonl", ".inp", ".out",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"};


static const char *
data_dir(void)
{
    const char *dir = getenv("LLM_DATA");

    return dir != NULL ? dir : "../shared/data";
}

/* One of rows; NULL if it is not there. */
static token_t *
row_open(const row_t *r, gguf_t **g)
{
    char path[512];
    token_t *t;

    *g = NULL;
    (void) snprintf(path, sizeof(path), "%s/%s", data_dir(), r->path);
    if (strstr(path, ".json") != NULL) {
        t = token_open_json(path, err, sizeof(err));
    } else if (strstr(path, ".model") != NULL) {
        t = token_open_model(path, err, sizeof(err));
    } else {
        *g = gguf_open(path, err, sizeof(err));
        t = *g != NULL ? token_open_gguf(*g, err, sizeof(err)) : NULL;
    }
    if (t == NULL && strstr(err, "No such file") == NULL) {
        fail_msg("%s", err);
    }

    return t;
}

static token_t *opened[ROWS];
static gguf_t *files_of[ROWS];

static int
setup(void **state)
{
    size_t i;

    (void) state;
    for (i = 0; i < ROWS; i++) {
        opened[i] = row_open(&rows[i], &files_of[i]);
    }

    return 0;
}

static int
teardown(void **state)
{
    size_t i;

    (void) state;
    for (i = 0; i < ROWS; i++) {
        token_close(opened[i]);
        gguf_close(files_of[i]);
    }

    return 0;
}

/* Calls what with every vocabulary and its texts. */
static void
for_each(void (*what)(const row_t *r, token_t *t, char *lines))
{
    unsigned done = 0;
    char *lines;
    size_t i, len;

    for (i = 0; i < ROWS; i++) {
        lines = slurp(rows[i].vectors, &len);
        if (opened[i] != NULL && lines != NULL) {
            what(&rows[i], opened[i], lines);
            done++;
        }
        free(lines);
    }
    if (done == 0) {
        skip();
    }
    print_message("%u vocabularies\n", done);
    assert_int_equal(done, ROWS);
}


/* --- nothing is left out ------------------------------------------------- */

static int
known(const char *dir, const char *file)
{
    char path[600];
    size_t i;

    (void) snprintf(path, sizeof(path), "tokenizers/%s/%s", dir, file);
    for (i = 0; i < ROWS; i++) {
        if (strcmp(rows[i].path, path) == 0) {
            return 1;
        }
    }
    for (i = 0; i < sizeof(beside) / sizeof(beside[0]); i++) {
        size_t n = strlen(file), m = strlen(beside[i]);

        if (n >= m && strcmp(file + n - m, beside[i]) == 0) {
            return 1;
        }
    }

    return 0;
}

static void
test_covered(void **state)
{
    char path[1024];
    struct dirent *e, *f;
    DIR *top, *dir;
    unsigned files = 0;

    (void) state;
    (void) snprintf(path, sizeof(path), "%s/tokenizers", data_dir());
    top = opendir(path);
    if (top == NULL) {
        skip();
    }
    while ((e = readdir(top)) != NULL) {
        (void) snprintf(
            path, sizeof(path), "%s/tokenizers/%s", data_dir(), e->d_name);
        dir = e->d_name[0] == '.' ? NULL : opendir(path);
        while (dir != NULL && (f = readdir(dir)) != NULL) {
            if (f->d_name[0] != '.' && ++files
                && !known(e->d_name, f->d_name)) {
                fail_msg("no test opens %s/%s", path, f->d_name);
            }
        }
        if (dir != NULL) {
            (void) closedir(dir);
        }
    }
    (void) closedir(top);
    print_message("%u files\n", files);
    assert_int_equal(files, 29);
}


/* --- streaming ----------------------------------------------------------- */

/* All of it at once, then in two parts, wherever the cut. */
static void
splits(const char *text, const char *p, const size_t *ends, size_t n)
{
    static char whole[65536], parts[65536];
    size_t len = n > 0 ? ends[n - 1] : 0, want, got, k, i;
    utf8_t u = {{0}, 0};

    assert_true(UTF8_OUT_MAX(len) < sizeof(whole));
    want = utf8_feed(&u, p, len, whole);
    want += utf8_end(&u, whole + want);

    /* bytes in two parts */
    for (k = 0; k <= len; k++) {
        memset(&u, 0, sizeof(u));
        got = utf8_feed(&u, p, k, parts);
        got += utf8_feed(&u, p + k, len - k, parts + got);
        got += utf8_end(&u, parts + got);
        if (got != want || memcmp(parts, whole, got) != 0) {
            fail_msg("\"%s\": cut after %zu bytes it is another", text, k);
        }
    }

    /* token by token, some of them together */
    for (k = 1; k <= 3; k++) {
        memset(&u, 0, sizeof(u));
        for (i = got = 0; i < n; i += k) {
            size_t from = i == 0 ? 0 : ends[i - 1];
            size_t to = ends[i + k - 1 < n ? i + k - 1 : n - 1];

            got += utf8_feed(&u, p + from, to - from, parts + got);
        }
        got += utf8_end(&u, parts + got);
        if (got != want || memcmp(parts, whole, got) != 0) {
            fail_msg("\"%s\": by %zu tokens it is another", text, k);
        }
    }
}

static void
stream(const row_t *r, token_t *t, char *lines)
{
    static char bytes[16384];
    static size_t ends[16384];
    char *line, *save = NULL;
    size_t len, at, max = brief() ? 100 : 1000;
    int64_t n, i;
    const char *p;

    for (line = strtok_r(lines, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save)) {
        json_t *o = json_loads(line, JSON_ALLOW_NUL, NULL);
        json_t *text = json_object_get(o, "text");

        assert_true(json_is_string(text));
        n = token_encode(t, json_string_value(text), json_string_length(text),
            0, ids, IDS_MAX, NULL, NULL);
        if (n < 0) {
            fail_msg("%s: %s", r->path, line);
        }
        for (i = 0, at = 0; i < n && at < max; i++) {
            p = token_bytes(t, ids[i], &len);
            assert_true(at + len <= sizeof(bytes));
            memcpy(bytes + at, p, len);
            at += len;
            ends[i] = at;
        }
        splits(json_string_value(text), bytes, ends, (size_t) i);
        json_decref(o);
    }
}

static void
test_stream(void **state)
{
    (void) state;
    for_each(stream);
}


/* --- injection ----------------------------------------------------------- */

/* Is id among those that text became? */
static int
becomes(const token_t *t, const char *text, size_t len, unsigned flags,
    const token_span_t *spans, size_t spans_n, uint32_t id)
{
    int64_t n, i;

    n = spans_n > 0
            ? token_encode_spans(
                t, text, len, spans, spans_n, flags, ids, IDS_MAX, NULL, NULL)
            : token_encode(t, text, len, flags, ids, IDS_MAX, NULL, NULL);
    assert_true(n >= 0);
    for (i = 0; i < n; i++) {
        if (ids[i] == id) {
            return 1;
        }
    }

    return 0;
}

/* Every control token's name stays text in a user's message. */
static void
inject(const row_t *r, token_t *t, char *lines)
{
    char text[TOKEN_PIECE_MAX + 8];
    unsigned tried = 0;
    uint32_t id;
    size_t len;

    (void) lines;
    for (id = 0; id < t->n; id++) {
        const gguf_str_t *p = &t->piece[id];
        token_span_t spans[3] = {{2, 1}, {0, 0}, {0, 1}};

        /* of equal pieces the first is meant */
        if (t->type[id] != TOKEN_CONTROL || p->len == 0
            || p->len > TOKEN_SPECIAL_MAX || token_find(t, p->s, p->len) != id
            || tried == (brief() ? 20u : 2000u)) {
            continue;
        }
        len = (size_t) snprintf(
            text, sizeof(text), "a %.*s b", (int) p->len, p->s);
        if (becomes(t, text, len, 0, NULL, 0, id)) {
            fail_msg("%s: \"%s\" becomes %u", r->path, text, id);
        }
        assert_true(becomes(t, text, len, TOKEN_F_SPECIAL, NULL, 0, id));

        /* nor where a template stands around it, or begins or ends it */
        spans[1].end = (uint32_t) (2 + p->len);
        spans[2].end = (uint32_t) len;
        assert_false(becomes(t, text, len, 0, spans, 3, id));
        if (p->len > 1) {
            spans[0].end = 3;
            assert_false(becomes(t, text, len, 0, spans, 3, id));
            spans[0].end = 2;
            spans[1].end--;
            assert_false(becomes(t, text, len, 0, spans, 3, id));
        }
        tried++;
    }
    print_message("%s: %u control tokens; its ids are in tests/unit/%s.c\n",
        r->path, tried, r->tested);
    assert_true(tried > 0);
}

static void
test_injection(void **state)
{
    (void) state;
    for_each(inject);
}


/* --- seams and what is noted ---------------------------------------------- */

/* A text from what vocabularies differ in. */
static size_t
mixture(uint32_t *seed, char *text)
{
    static const char *const bits[] = {" ", "  ", "\n", "\r\n", "\t", "a",
        "the", " The", "LORD", ",", ".", "1", "12", "\xe2\x96\x81", "ing",
        "\xe2\x96\x81\xe2\x96\x81", "\xe2\x80\x99", "\xe2\x80\x9d", "\xc3\xa9",
        "e\xcc\x81", "\xe4\xbd\xa0\xe5\xa5\xbd", "\xe0\xa4\xb9\xe0\xa4\xbf",
        "\xf0\x9f\x98\x80", "\xff", "\x80", "\xe2", "\xe3\x80\x80", "'ll", "!!",
        "==", "//", "    ", "\xc2\xa0", "\xd0\xbf\xd1\x80", "_", "-",
        "\xea\xb0\x80", "<0x0A>", "\x01", "\xe3\x81\x82"};
    size_t n = 0, i, len;

    for (i = 0; i < 1 + (*seed >> 28); i++) {
        const char *s;

        *seed = *seed * 1664525u + 1013904223u;
        s = bits[(*seed >> 8) % (sizeof(bits) / sizeof(bits[0]))];
        len = strlen(s);
        memcpy(text + n, s, len);
        n += len;
    }

    return n;
}

/* Cut at its seams or not, from memory or not: the ids are the same. */
static void
seams(const row_t *r, token_t *t, char *lines)
{
    static uint32_t want[IDS_MAX];
    int was = t->seams, i, rounds = brief() ? 1000 : 10000;
    uint32_t seed = 7;
    char text[512];
    int64_t n, got, good = 0;
    size_t len;

    (void) lines;
    for (i = 0; i < rounds; i++) {
        token_cache_t *cache = t->cache;

        len = mixture(&seed, text);
        t->seams = 0;
        if (i % 64 == 0) {
            t->cache = token_cache_open(); /* that remembers nothing */
            assert_non_null(t->cache);
        }
        n = token_encode(t, text, len, 0, want, IDS_MAX, NULL, NULL);
        if (t->cache != cache) {
            token_cache_close(t->cache);
            t->cache = cache;
        }
        t->seams = was;
        /* not every vocabulary has a piece for every byte */
        got = token_encode(t, text, len, 0, ids, IDS_MAX, NULL, NULL);
        assert_int_equal(got, n);
        if (n >= 0) {
            same_ids(r->path, got, want, (size_t) n);
            good++;
        }
    }
    print_message("%s: %s seams, %d of %d texts\n", r->path,
        was ? "with" : "without", (int) good, rounds);
    assert_true(good > rounds / 2);
}

static void
test_seams(void **state)
{
    (void) state;
    for_each(seams);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_covered),
        cmocka_unit_test(test_stream),
        cmocka_unit_test(test_injection),
        cmocka_unit_test(test_seams),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
