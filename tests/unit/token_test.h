/*
 * What the tests of the tokenizers share: files of LLM_DATA and, where a name
 * begins with "./", of the tree; vocabularies in memory; texts with the ids
 * that are expected of them.
 */
#ifndef TOKEN_TEST_H
#define TOKEN_TEST_H

#include "token.h"
#include "utf8.h"
#include "vocab_file.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IDS_MAX 65536

static char err[512];
static uint32_t ids[IDS_MAX];


/* --- files -------------------------------------------------------------- */

static inline char *
slurp(const char *name, size_t *len)
{
    const char *dir = name[0] == '.' ? "." : getenv("LLM_DATA");
    char path[512], *p;
    FILE *f;
    long n;

    (void) snprintf(path, sizeof(path), "%s/%s",
        dir != NULL ? dir : "../shared/data", name);
    *len = 0;
    f = fopen(path, "rb");
    if (f == NULL) {
        return NULL;
    }
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    n = ftell(f);
    rewind(f);
    p = malloc((size_t) n + 1);
    assert_non_null(p);
    assert_int_equal(fread(p, 1, (size_t) n, f), (size_t) n);
    p[n] = '\0';
    *len = (size_t) n;
    (void) fclose(f);

    return p;
}


/* --- a GGUF in memory --------------------------------------------------- */

static inline gguf_t *
file_open(file_t *f)
{
    gguf_t *g;

    file_done(f);
    g = gguf_open_mem(f->p, f->n, "test.gguf", err, sizeof(err));
    if (g == NULL) {
        fail_msg("gguf: %s", err);
    }

    return g;
}

/* Opens, frees the file again; the vocabulary must be refused. */
static inline void
refused(file_t *f, const char *why)
{
    gguf_t *g = file_open(f);

    err[0] = '\0';
    assert_null(token_open_gguf(g, err, sizeof(err)));
    if (strstr(err, why) == NULL || strstr(err, "test.gguf") == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", err, why);
    }
    gguf_close(g);
    free(f->p);
}

static inline void
same_ids(const char *text, int64_t n, const uint32_t *want, size_t want_n)
{
    size_t i;

    if (n != (int64_t) want_n) {
        fail_msg("\"%s\": %lld ids, expected %zu", text, (long long) n, want_n);
    }
    for (i = 0; i < want_n; i++) {
        if (ids[i] != want[i]) {
            fail_msg(
                "\"%s\": id %zu is %u, expected %u", text, i, ids[i], want[i]);
        }
    }
}

static inline void
encodes(const token_t *t, const char *text, unsigned flags,
    const uint32_t *want, size_t want_n)
{
    int64_t n =
        token_encode(t, text, strlen(text), flags, ids, IDS_MAX, NULL, NULL);

    same_ids(text, n, want, want_n);
}


static inline int
utf8_valid(const char *s, size_t len)
{
    size_t at;
    int n;

    for (at = 0; at < len; at += (size_t) n) {
        n = utf8_char((const uint8_t *) s + at, len - at);
        if (n <= 0) {
            return 0;
        }
    }

    return 1;
}

static inline void
decodes(const token_t *t, const char *text, int64_t n, const char *want,
    size_t want_len)
{
    char buf[16384], out[3 * 16384 + 16];
    int strip = token_strips_space(t);
    const char *p;
    size_t len, at = 0, shown = 0;
    utf8_t stream = {{0}, 0};
    int64_t i;

    for (i = 0; i < n; i++) {
        p = token_bytes(t, ids[i], &len);
        if (strip && len > 0 && p[0] == ' ') {
            p++;
            len--;
            strip = 0;
        }
        strip = strip && len == 0;
        assert_true(at + len <= sizeof(buf));
        memcpy(buf + at, p, len);
        at += len;
        /* as it is streamed: what is shown is whole characters, always the
         * beginning of the text, and short of it by less than one */
        shown += utf8_feed(&stream, p, len, out + shown);
        if (shown <= want_len && memcmp(out, want, shown) == 0) {
            assert_true(shown + UTF8_TAIL_MAX >= at || at > want_len);
        }
    }
    shown += utf8_end(&stream, out + shown);
    if (at == want_len && memcmp(buf, want, at) == 0
        && utf8_valid(want, want_len)) {
        assert_int_equal(shown, at);
        assert_memory_equal(out, buf, at);
    }
    if (at != want_len || memcmp(buf, want, at) != 0) {
        fail_msg("\"%s\" comes back as \"%.*s\"", text, (int) at, buf);
    }
}

/* The same text as one that stands alone, where the vector has that. */
static inline void
special(
    const token_t *t, const json_t *text, const json_t *want, unsigned flags)
{
    size_t i;
    int64_t n;

    if (want == NULL) {
        return;
    }
    n = token_encode(t, json_string_value(text), json_string_length(text),
        flags | TOKEN_F_BOS, ids, IDS_MAX, NULL, NULL);
    assert_int_equal(n, json_array_size(want));
    for (i = 0; i < json_array_size(want); i++) {
        assert_int_equal(ids[i], json_integer_value(json_array_get(want, i)));
    }
}

/* Runs every line of a vectors.jsonl through t; how many there are. */
static inline int
vectors(const token_t *t, unsigned flags, char *lines)
{
    uint32_t want[IDS_MAX / 16];
    json_t *o, *a, *text, *d;
    char *line, *save = NULL;
    size_t i, n;
    int64_t got;
    int done = 0;

    for (line = strtok_r(lines, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save), done++) {
        o = json_loads(line, JSON_ALLOW_NUL, NULL);
        assert_non_null(o);
        text = json_object_get(o, "text");
        a = json_object_get(o, "ids");
        d = json_object_get(o, "decoded");
        n = json_array_size(a);
        assert_true(n <= IDS_MAX / 16);
        for (i = 0; i < n; i++) {
            want[i] = (uint32_t) json_integer_value(json_array_get(a, i));
        }
        got = token_encode(t, json_string_value(text), json_string_length(text),
            flags, ids, IDS_MAX, NULL, NULL);
        same_ids(json_string_value(text), got, want, n);
        special(t, text, json_object_get(o, "ids_with_special"), flags);
        (void) token_encode(t, json_string_value(text),
            json_string_length(text), flags, ids, IDS_MAX, NULL, NULL);
        d = d != NULL ? d : text;
        decodes(t, json_string_value(text), got, json_string_value(d),
            json_string_length(d));
        json_decref(o);
    }

    return done;
}

static inline token_t *
data_open(const char *name, gguf_t **g, char **raw)
{
    token_t *t;
    size_t len;

    *g = NULL;
    *raw = slurp(name, &len);
    if (*raw == NULL) {
        return NULL;
    }
    *g = gguf_open_mem((uint8_t *) *raw, len, name, err, sizeof(err));
    if (*g == NULL) {
        fail_msg("%s", err);
    }
    t = token_open_gguf(*g, err, sizeof(err));
    if (t == NULL) {
        fail_msg("%s", err);
    }

    return t;
}

/* Cuts the next string off *at; NULL after the last one. */
static inline char *
published_next(char **at)
{
    static const char sep[] = "\n__ggml_vocab_test__\n";
    char *text = *at, *end;

    if (text == NULL) {
        return NULL;
    }

    end = strstr(text, sep);
    *at = end == NULL ? NULL : end + sizeof(sep) - 1;
    if (end == NULL && *text != '\0' && text[strlen(text) - 1] == '\n') {
        end = text + strlen(text) - 1;
    }
    if (end != NULL) {
        *end = '\0';
    }

    return *at == NULL && *text == '\0' ? NULL : text;
}

/* Runs NAME.inp through t, compares with NAME.out; how many there are. */
static inline int
published(const token_t *t, unsigned flags, const char *name)
{
    uint32_t want[4096];
    char path[256], *in, *out, *next, *text, *line, *end;
    size_t len, n;
    int done;

    (void) snprintf(path, sizeof(path), "%s.inp", name);
    next = in = slurp(path, &len);
    (void) snprintf(path, sizeof(path), "%s.out", name);
    line = out = slurp(path, &len);
    assert_true(in != NULL && out != NULL);

    for (done = 0; (text = published_next(&next)) != NULL; done++) {
        assert_non_null(line);
        end = strchr(line, '\n');
        if (end != NULL) {
            *end++ = '\0';
        }
        for (n = 0;; n++) {
            while (*line == ' ') {
                line++;
            }
            if (*line == '\0') {
                break;
            }
            want[n] = (uint32_t) strtoul(line, &line, 10);
        }
        encodes(t, text, flags, want, n);
        line = end;
    }

    free(in);
    free(out);

    return done;
}

#endif
