/*
 * What a forced text is cut to: see obey_cut.h.
 *
 * DESIGN.  The last tokens and the forced bytes are one text, and the tokenizer
 * cuts it.  If the last tokens come out of that as they are, what is behind
 * them is how the whole text would be cut.
 *
 *      tokens so far:  {"   age                       forced:  ":
 *      joined and cut: {"   age   ":                  behind:  3, -, [0-9]
 *      there is a token ":1, none ":2 to ":9 or ":-   so ": is not certain
 *
 * The end of the forced text may be cut otherwise when it goes on.  A token
 * that is another then reaches over the end: so what is certain is what lies
 * before all places where a token of the vocabulary begins that the text has up
 * to its end, and that goes on with a byte which may be next.  The last token
 * of a text that may not go on is left to be sampled, as an answer ends with a
 * token that was.
 *
 * No state; memory of the stack only.
 */
#include "obey_cut.h"

#include <assert.h>
#include <string.h>

#define TAIL_BYTES   64  /* of the last tokens */
#define FORCED       192 /* bytes of a forced text looked at */
#define FORCED_LEAST 2   /* fewer are not worth the look */
#define REACH        32  /* bytes of a token before the end of the text */

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


/* How many of ids, the joined text's, stay as they are whatever follows it. */
static uint32_t
settled(const token_t *tok, const grammar_vocab_t *v, const joined_t *j,
    const uint64_t next[4], const uint32_t *ids, uint32_t n)
{
    uint32_t from, still = j->n, i;
    size_t bytes = 0, len;

    assert(n > 0);
    if ((next[0] | next[1] | next[2] | next[3]) == 0) {
        return n - 1;
    }

    /* before any place where a token begins that reaches over the end */
    for (from = j->n; from-- > 0 && j->n - from <= REACH;) {
        if (grammar_vocab_goes_on(v, j->s + from, j->n - from, next)) {
            still = from;
        }
    }

    for (i = 0; i < n; i++) {
        (void) token_bytes(tok, ids[i], &len);
        bytes += i == 0 && token_strips_space(tok) ? len - (len > 0) : len;
        if (bytes > still) {
            break;
        }
    }

    return i;
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
obey_cut(const token_t *tok, const grammar_vocab_t *v, const grammar_t *g,
    const grammar_state_t *at, const uint32_t *tail, uint32_t tail_n,
    uint32_t *ids)
{
    grammar_state_t behind = {NULL, 0, 0, 0};
    uint32_t n = 0, past, forced;
    uint64_t next[4];
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
        grammar_next(g, &behind, next);
        n = got > 0 ? settled(tok, v, &j, next, ids, (uint32_t) got) : 0;
    }
    grammar_state_free(&behind);

    past = past_tail(tok, &j, ids, n);
    if (past >= n) {
        return 0;
    }
    memmove(ids, ids + past, (n - past) * sizeof(*ids));

    return n - past;
}
