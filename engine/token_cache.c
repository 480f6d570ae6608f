/*
 * Words that have been encoded, and their ids: most words of a text have been
 * seen before, and looking one up costs a fraction of joining its bytes again.
 *
 * DESIGN.  A table of lines of 64 bytes, each of which may hold one word.  A
 * word belongs into either of two neighbours: the first if that is free, else
 * the second, and where both are taken, the one that its hash says.  All
 * threads share it, so that short prompts profit from what long ones left: a
 * word's ids follow from the vocabulary alone, whoever asked first.
 *
 *      line    | count, lengths | word, 24 bytes | ids, 8 of 32 bits |
 *
 * Levels tell words from pieces of a text that the pre-tokenizer has not yet
 * looked at with all of its steps (token_pre.c): the same bytes may give other
 * ids there.
 *
 * A line is read and written without a lock: its count is odd while somebody
 * writes, and who reads one that has changed meanwhile has found nothing.  A
 * writer that finds it odd leaves it.
 *
 * Memory: one allocation at opening, CACHE_LINES lines; it never grows.
 */
#include "token_impl.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* 2 MiB: a book has about 15,000 different words */
#define CACHE_LINES 32768u
#define CACHE_WAYS  2u

#define CACHE_KEY_WORDS (TOKEN_CACHE_KEY / 8)
#define CACHE_ID_WORDS  (TOKEN_CACHE_IDS / 2)

typedef struct {
    uint64_t head; /* count << 16 | ids << 12 | level << 6 | length */
    uint64_t key[CACHE_KEY_WORDS];
    uint64_t ids[CACHE_ID_WORDS];
} cache_line_t;

_Static_assert(sizeof(cache_line_t) == 64, "a line is a line");
_Static_assert(
    TOKEN_CACHE_IDS < 16 && TOKEN_CACHE_KEY < 64 && TOKEN_CACHE_LEVELS <= 64,
    "the head has room for them");
_Static_assert((CACHE_LINES & (CACHE_LINES - 1)) == 0, "a power of two");

struct token_cache_s {
    cache_line_t *lines; /* [CACHE_LINES] owned */
};


token_cache_t *
token_cache_open(void)
{
    token_cache_t *c = calloc(1, sizeof(*c));

    if (c == NULL) {
        return NULL;
    }

    /* a multiple of 64, so aligned lines share no other's */
    c->lines = aligned_alloc(64, CACHE_LINES * sizeof(*c->lines));
    if (c->lines == NULL) {
        free(c);
        return NULL;
    }
    memset(c->lines, 0, CACHE_LINES * sizeof(*c->lines));

    return c;
}


void
token_cache_close(token_cache_t *c)
{
    if (c != NULL) {
        free(c->lines);
        free(c);
    }
}


/* The first bytes of s, at most eight, as a number: zeros are behind them. */
static inline uint64_t
cache_load(const char *s, size_t len)
{
    uint64_t v = 0;
    uint32_t a, b;

    if (len >= 8) {
        memcpy(&v, s, 8);
        return v;
    }

    /* a call for some bytes costs more than two loads that overlap */
    if (len >= 4) {
        memcpy(&a, s, 4);
        memcpy(&b, s + len - 4, 4);
        return a | (uint64_t) b << (len - 4) * 8;
    }

    return (uint64_t) (uint8_t) s[0]
           | (uint64_t) (uint8_t) s[len / 2] << len / 2 * 8
           | (uint64_t) (uint8_t) s[len - 1] << (len - 1) * 8;
}


/* The word as numbers, zeros behind it; and the first line it may be in. */
static inline cache_line_t *
cache_lines(const token_cache_t *c, unsigned tag, const char *s, size_t len,
    uint64_t *key, unsigned *way)
{
    uint64_t h = tag * 0x9e3779b97f4a7c15ull;
    unsigned i;

    assert(len > 0 && len <= TOKEN_CACHE_KEY);

    for (i = 0; i < CACHE_KEY_WORDS; i++) {
        key[i] = i * 8 < len ? cache_load(s + i * 8, len - i * 8) : 0;
    }
    for (i = 0; i < CACHE_KEY_WORDS; i++) {
        h = (h ^ key[i]) * 0xff51afd7ed558ccdull;
        h ^= h >> 32;
    }
    *way = h >> 40 & (CACHE_WAYS - 1);

    return &c->lines[h & (CACHE_LINES - 1) & ~(uint64_t) (CACHE_WAYS - 1)];
}


/* The ids of a line if it holds the word; how many, 0 if not. */
static uint32_t
cache_read(
    const cache_line_t *l, const uint64_t *key, unsigned tag, uint32_t *ids)
{
    uint64_t two, head;
    uint32_t n, i;

    head = __atomic_load_n(&l->head, __ATOMIC_ACQUIRE);
    n = head >> 12 & 0xf;
    if ((head >> 16 & 1) != 0 || (head & 0xfff) != tag) {
        return 0;
    }

    for (i = 0; i < CACHE_KEY_WORDS; i++) {
        if (__atomic_load_n(&l->key[i], __ATOMIC_ACQUIRE) != key[i]) {
            return 0;
        }
    }

    assert(n <= TOKEN_CACHE_IDS);
    for (i = 0; i < n; i += 2) {
        two = __atomic_load_n(&l->ids[i / 2], __ATOMIC_ACQUIRE);
        ids[i] = (uint32_t) two;
        if (i + 1 < n) {
            ids[i + 1] = (uint32_t) (two >> 32);
        }
    }

    /* who has seen a later writer's word or id also sees its odd count */
    return __atomic_load_n(&l->head, __ATOMIC_RELAXED) == head ? n : 0;
}


uint32_t
token_cache_get(
    token_cache_t *c, unsigned level, const char *s, size_t len, uint32_t *ids)
{
    uint64_t key[CACHE_KEY_WORDS];
    unsigned i, way, tag = level << 6 | (unsigned) len;
    const cache_line_t *l = cache_lines(c, tag, s, len, key, &way);
    uint32_t n = 0;

    for (i = 0; i < CACHE_WAYS && n == 0; i++) {
        n = cache_read(&l[i], key, tag, ids);
    }

    return n;
}


void
token_cache_put(token_cache_t *c, unsigned level, const char *s, size_t len,
    const uint32_t *ids, size_t n)
{
    uint64_t key[CACHE_KEY_WORDS], two, head, count;
    unsigned way, free, tag = level << 6 | (unsigned) len;
    cache_line_t *l = cache_lines(c, tag, s, len, key, &way);
    size_t i;

    assert(level < TOKEN_CACHE_LEVELS);
    assert(n > 0 && n <= TOKEN_CACHE_IDS);

    for (free = 0; free < CACHE_WAYS; free++) {
        if (__atomic_load_n(&l[free].head, __ATOMIC_RELAXED) == 0) {
            break;
        }
    }
    l += free < CACHE_WAYS ? free : way;

    head = __atomic_load_n(&l->head, __ATOMIC_RELAXED);
    count = head >> 16;
    if ((count & 1) != 0
        || !__atomic_compare_exchange_n(&l->head, &head,
            (count + 1) << 16 | (head & 0xffff), 0, __ATOMIC_ACQUIRE,
            __ATOMIC_RELAXED)) {
        return;
    }

    /* released one by one: the odd count is seen before any of them */
    for (i = 0; i < CACHE_KEY_WORDS; i++) {
        __atomic_store_n(&l->key[i], key[i], __ATOMIC_RELEASE);
    }
    for (i = 0; i < n; i += 2) {
        two = ids[i] | (i + 1 < n ? (uint64_t) ids[i + 1] << 32 : 0);
        __atomic_store_n(&l->ids[i / 2], two, __ATOMIC_RELEASE);
    }

    __atomic_store_n(&l->head, (count + 2) << 16 | (uint64_t) n << 12 | tag,
        __ATOMIC_RELEASE);
}


int
token_cache_known(const token_t *t, unsigned level, const char *s, size_t len,
    token_sink_t *sink)
{
    uint32_t ids[TOKEN_CACHE_IDS], n, i;
    int rc = 0;

    if (len > TOKEN_CACHE_KEY) {
        return 0;
    }

    n = token_cache_get(t->cache, level, s, len, ids);
    for (i = 0; i < n && rc == 0; i++) {
        rc = token_sink_put(sink, ids[i]);
    }

    return rc != 0 ? rc : n > 0;
}


void
token_cache_note(const token_t *t, unsigned level, const char *s, size_t len,
    const token_sink_t *sink, size_t from)
{
    size_t n = sink->n - from;

    assert(from <= sink->n);

    if (len <= TOKEN_CACHE_KEY && n > 0 && n <= TOKEN_CACHE_IDS) {
        token_cache_put(t->cache, level, s, len, sink->out + from, n);
    }
}
