/*
 * What the tests of the dialect share: an allocator that hands out exact
 * pieces (so that a sanitizer sees each overrun) and can be told to fail, and
 * short ways to parse a body, to make events and to read an answer back.
 */
#ifndef OPENAI_TEST_H
#define OPENAI_TEST_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "dialect.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POOL_MAX 65536

typedef struct {
    void *p[POOL_MAX];
    size_t n;
    size_t fail_at; /* the allocation of this number fails; 0 is none */
} pool_t;

static inline void *
pool_alloc(void *arg, size_t size)
{
    pool_t *pool = arg;

    if (pool->n + 1 == pool->fail_at || pool->n == POOL_MAX) {
        pool->fail_at = pool->n + 1;
        return NULL;
    }

    pool->p[pool->n] = malloc(size ? size : 1);

    return pool->p[pool->n++];
}

static inline pool_t *
pool_new(void)
{
    return calloc(1, sizeof(pool_t));
}

static inline void
pool_free(pool_t *pool)
{
    while (pool->n > 0) {
        free(pool->p[--pool->n]);
    }

    free(pool);
}

static inline llm_str_t
str(const char *s)
{
    llm_str_t r = {strlen(s), s};

    return r;
}

static const llm_caps_t no_caps = {0, 0, 0};

static inline int
parse(pool_t *pool, uint32_t route, const char *body, llm_call_t *call,
    llm_refusal_t *why)
{
    return llm_dialect_openai.parse(
        str(body), route, &no_caps, pool_alloc, pool, call, why);
}

/* An answer whose fields are as the recorded streams have them. */
static inline void
answer_init(llm_answer_t *a, pool_t *pool, const llm_call_t *call)
{
    memset(a, 0, sizeof(*a));
    a->call = call;
    a->id = str("ABC123");
    a->model = str("tiny");
    a->fingerprint = str("fp_1");
    a->created = 1727346172;
    llm_buf_init(&a->out, 16 << 20, pool_alloc, pool);
}

static inline int
send_text(llm_answer_t *a, uint32_t choice, const char *text, uint32_t finish)
{
    llm_wire_tokens_t t;

    memset(&t, 0, sizeof(t));
    t.choice = choice;
    t.finish = finish;
    t.tokens = 1;
    t.text_len = (uint32_t) strlen(text);

    return llm_dialect_openai.tokens(
        a, &t, (const uint8_t *) text, (const uint8_t *) "");
}

/* Appends a logprob entry as the wire has it. */
static inline void
lp_put(uint8_t *lp, uint32_t *len, const char *bytes, size_t n, float logprob,
    uint16_t top)
{
    llm_wire_lp_t e = {7, logprob, (uint16_t) n, top};

    memcpy(lp + *len, &e, sizeof(e));
    memcpy(lp + *len + sizeof(e), bytes, n);
    memset(lp + *len + sizeof(e) + n, 0, (4 - n % 4) % 4);
    *len += (uint32_t) (sizeof(e) + n + (4 - n % 4) % 4);
}

static inline int
send_lp(llm_answer_t *a, uint32_t choice, const char *text, const uint8_t *lp,
    uint32_t lp_len)
{
    llm_wire_tokens_t t;
    uint8_t *copy;
    int rc;

    memset(&t, 0, sizeof(t));
    t.choice = choice;
    t.tokens = 1;
    t.text_len = (uint32_t) strlen(text);
    t.lp_len = lp_len;

    copy = malloc(lp_len ? lp_len : 1);
    memcpy(copy, lp, lp_len);
    rc = llm_dialect_openai.tokens(a, &t, (const uint8_t *) text, copy);
    free(copy);

    return rc;
}

static inline int
send_done(llm_answer_t *a)
{
    llm_wire_done_t d;

    memset(&d, 0, sizeof(d));
    d.prompt_tokens = 5;
    d.cached_tokens = 2;
    d.completion_tokens = 3;

    return llm_dialect_openai.done(a, &d);
}

/* Takes what was written, as the caller of a dialect does. 0-terminated. */
static inline char *
take(llm_answer_t *a)
{
    char *s = malloc(a->out.len + 1);

    memcpy(s, a->out.len != 0 ? a->out.data : "", a->out.len);
    s[a->out.len] = '\0';
    a->out.data = NULL;
    a->out.len = a->out.cap = 0;

    return s;
}

/* A JSON text, which must be whole, as a tree. */
static inline json_t *
json_of(const char *s, size_t len)
{
    json_error_t e;
    json_t *v = json_loadb(s, len, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &e);

    if (v == NULL) {
        print_message("%s in: %.*s\n", e.text, (int) len, s);
    }
    assert_non_null(v);

    return v;
}

/* Does the text equal the JSON expected, written with ' for "? */
static inline void
assert_json(const char *s, size_t len, const char *expected)
{
    char *want = strdup(expected), *p;
    json_t *a, *b;

    for (p = want; *p != '\0'; p++) {
        if (*p == '\'') {
            *p = '"';
        }
    }
    a = json_of(s, len);
    b = json_of(want, strlen(want));
    if (!json_equal(a, b)) {
        print_message("have %.*s\nwant %s\n", (int) len, s, want);
    }
    assert_true(json_equal(a, b));
    json_decref(a);
    json_decref(b);
    free(want);
}

/*
 * The next event of a stream: its data without "data: " and the blank line
 * behind it, NULL at the end.
 */
static inline char *
next_event(char **at)
{
    char *s = *at, *end;

    if (*s == '\0') {
        return NULL;
    }

    assert_memory_equal(s, "data: ", 6);
    end = strstr(s, "\n\n");
    assert_non_null(end);
    *end = '\0';
    *at = end + 2;

    return s + 6;
}

static inline const char *
data_dir(void)
{
    const char *d = getenv("LLM_DATA");

    return d != NULL ? d : "../shared/data";
}

/* A whole file, 0-terminated; NULL when it cannot be read. */
static inline char *
file_read(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    char *s;
    long n;

    *len = 0;
    if (f == NULL) {
        return NULL;
    }
    fseek(f, 0, SEEK_END);
    n = ftell(f);
    rewind(f);
    s = malloc((size_t) n + 1);
    *len = fread(s, 1, (size_t) n, f);
    s[*len] = '\0';
    fclose(f);

    return s;
}

#endif
