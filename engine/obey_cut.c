/*
 * What a forced text is cut to: see obey_cut.h.
 *
 * DESIGN.  The last tokens and the forced bytes are one text, and the tokenizer
 * cuts it.  If the last tokens come out of that as they are, what is behind
 * them is how the whole text would be cut.
 *
 *      tokens so far:  {"   age                       forced:  ":
 *      joined and cut: {"   age   ":                  behind:  3, -, [0-9]
 *      with a 3 behind {"   age   ":   3              so ": is certain;
 *      with a space    {"   age   ":_                 so it would not be
 *
 * The end of the forced text may be cut otherwise when it goes on: so a few of
 * the bytes that may come next are tried behind it, and what comes out the same
 * each time is certain.  The last token of a text that may not go on is left to
 * be sampled, as the answer ends with a token that was.
 *
 * No state; memory of the stack only.
 */
#include "obey_cut.h"

#include <assert.h>
#include <string.h>

#define TAIL_BYTES   64  /* of the last tokens */
#define FORCED       192 /* bytes of a forced text looked at */
#define FORCED_LEAST 2   /* fewer are not worth the look */
#define AFTER        4   /* bytes behind it that are tried */

_Static_assert(OBEY_CUT_MAX >= TAIL_BYTES + FORCED + 2, "a token a byte");

/* The last tokens, and the bytes that must follow. */
typedef struct {
    char s[TAIL_BYTES + FORCED + 1];
    uint32_t n;
    const uint32_t *tail; /* borrowed, as many as have room; */
    uint32_t tail_n;
    size_t first; /* bytes of the first of these */
} joined_t;


/* The last tokens' bytes, as many as fit. */
static void
join_tail(
    const token_t *tok, const uint32_t *tail, uint32_t tail_n, joined_t *j)
{
    uint32_t from = tail_n, i;
    size_t bytes = 0, n = 0;
    const char *p;

    while (from > 0) {
        (void) token_bytes(tok, tail[from - 1], &n);
        if (bytes + n > TAIL_BYTES) {
            break;
        }
        bytes += n;
        from--;
    }

    memset(j, 0, sizeof(*j));
    j->tail = tail + from;
    j->tail_n = tail_n - from;
    for (i = 0; i < j->tail_n; i++) {
        p = token_bytes(tok, j->tail[i], &n);
        memcpy(j->s + j->n, p, n);
        j->n += (uint32_t) n;
        j->first = i == 0 ? n : j->first;
    }
    assert(j->n == bytes);
}


/* How many of ids, n of them, a text begins with when it is cut to tokens. */
static uint32_t
agrees(const token_t *tok, const char *text, size_t len, const uint32_t *ids,
    uint32_t n)
{
    uint32_t own[OBEY_CUT_MAX], i;
    int64_t got;

    got = token_encode(tok, text, len, 0, own, OBEY_CUT_MAX, NULL, NULL);
    for (i = 0; i < n && (int64_t) i < got && own[i] == ids[i]; i++) {
    }

    return i;
}


/* How many of ids, the joined text's, stay as they are whatever follows it, as
 * far as the next byte tells. */
static uint32_t
settled(const token_t *tok, const grammar_t *g, joined_t *j,
    const grammar_state_t *behind, const uint32_t *ids, uint32_t n)
{
    uint64_t next[4];
    uint32_t c, tried = 0, step, set = 0;

    assert(n > 0);
    grammar_next(g, behind, next);
    for (c = 0; c < 4; c++) {
        set += (uint32_t) __builtin_popcountll(next[c]);
    }
    if (set == 0) {
        return n - 1;
    }
    step = set > AFTER ? set / AFTER : 1;

    for (c = 0, set = 0; c < 256 && tried < AFTER && n > 0; c++) {
        if ((next[c / 64] >> c % 64 & 1) == 0 || set++ % step != 0) {
            continue;
        }
        j->s[j->n] = (char) c;
        n = agrees(tok, j->s, j->n + 1, ids, n);
        tried++;
    }

    return n;
}


/*
 * Where in ids, the joined text's, the last tokens end; n + 1: they came out of
 * it differently.  The first of them stands at the edge of the text, where it
 * may: what counts is that a token ends where it does.
 */
static uint32_t
past_tail(
    const token_t *tok, const joined_t *j, const uint32_t *ids, uint32_t n)
{
    size_t bytes = 0, len;
    uint32_t k;

    if (j->tail_n == 0) {
        /* a space that is put before all text is not wanted here */
        return token_strips_space(tok) ? n + 1 : 0;
    }

    for (k = 0; k < n && bytes < j->first; k++) {
        (void) token_bytes(tok, ids[k], &len);
        bytes += k == 0 && token_strips_space(tok) ? len - (len > 0) : len;
    }
    if (bytes != j->first || k + j->tail_n - 1 > n
        || memcmp(ids + k, j->tail + 1, (j->tail_n - 1) * sizeof(*ids)) != 0) {
        return n + 1;
    }

    return k + j->tail_n - 1;
}


/* What must follow, behind the last tokens; 0: too little. */
static uint32_t
join_forced(const grammar_t *g, const grammar_state_t *at, joined_t *j)
{
    uint32_t n = (uint32_t) grammar_forced(g, at, j->s + j->n, FORCED);
    const char *mark = memchr(j->s + j->n, GRAMMAR_TOKEN[0], n);

    /* a token that no text gives is not to be cut */
    n = mark != NULL ? (uint32_t) (mark - (j->s + j->n)) : n;

    return n < FORCED_LEAST ? 0 : n;
}


uint32_t
obey_cut(const token_t *tok, const grammar_t *g, const grammar_state_t *at,
    const uint32_t *tail, uint32_t tail_n, uint32_t *ids)
{
    grammar_state_t behind = {NULL, 0, 0, 0};
    uint32_t n = 0, past, forced;
    int64_t got;
    joined_t j;

    assert(tail_n <= OBEY_CUT_TAIL);

    join_tail(tok, tail, tail_n, &j);
    if (tail_n > 0 && j.tail_n == 0) {
        return 0;
    }
    forced = join_forced(g, at, &j);
    if (forced == 0) {
        return 0;
    }

    if (grammar_state_copy(&behind, at) == 0
        && grammar_feed(g, &behind, j.s + j.n, forced) == forced) {
        j.n += forced;
        got = token_encode(tok, j.s, j.n, 0, ids, OBEY_CUT_MAX, NULL, NULL);
        n = got > 0 ? settled(tok, g, &j, &behind, ids, (uint32_t) got) : 0;
    }
    grammar_state_free(&behind);

    past = past_tail(tok, &j, ids, n);
    if (past >= n) {
        return 0;
    }
    memmove(ids, ids + past, (n - past) * sizeof(*ids));

    return n - past;
}
