/*
 * Choices and their grammars: see obey.h.
 *
 * DESIGN.  Beside each request that has a grammar stands a state for each of
 * its choices.  Before a step the state gives the mask of the output that the
 * choice has in it; behind the step the token sampled moves the state.  A
 * choice that lost its blocks keeps its state: what was sampled stays known.
 *
 *      obey_begin      state at the grammar's beginning
 *      obey_masks      batch_out_t.mask <── grammar_mask(state)
 *      obey_took       state ── bytes of the token ──> state
 *      obey_end
 *
 * THOUGHT.  What a model thinks before it answers is free.  Where a prompt
 * leaves off says whether it thinks already; where it may begin to, the token
 * that opens thought is allowed beside the grammar's.  Behind the mark that
 * closes it the grammar begins.
 *
 * JUMPS.  Where a grammar leaves no choice, the next tokens need not be
 * sampled: the model computes them all at once, as it does a prompt's.  They
 * are those that the tokenizer gives for the text: the last tokens and what is
 * forced are cut together, and nothing jumps if the last tokens came out of it
 * differently; and the end is left to the model as far as it would come out
 * differently with what may follow.  So no token is ever taken back.
 *
 * What cannot be kept is never let through: without memory for a mask the
 * output may be no token at all, and the request ends with an error.
 *
 * MEMORY.  A mask lies in its grammar's cache, or in a row here: where that
 * cache is full, the opening token is added, or the model has more logits than
 * its tokenizer has tokens.  Rows are made when the first request comes.
 *
 * Thread: the loop's alone.
 */
#include "obey.h"
#include "clock.h"
#include "mem.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define TAIL         4   /* tokens that a forced text is joined to */
#define TAIL_BYTES   64  /* of them */
#define FORCED       192 /* bytes of it looked at */
#define FORCED_LEAST 2   /* fewer are not worth the look */
#define AFTER        4   /* bytes behind it that are tried */
#define WORK         (TAIL_BYTES + FORCED + 8) /* ids of a joined text */

typedef struct {
    grammar_state_t at;
    reason_state_t reason;
    uint32_t thinks; /* what comes is free */
    uint32_t may;    /* or it may begin to be */
    uint32_t tail_n; /* the last tokens that the grammar took */
    uint32_t tail[TAIL];
} obey_seq_t;

typedef struct {
    grammar_t *g; /* borrowed; NULL: none */
    uint32_t choices;
    uint32_t jumps;   /* may it? */
    obey_seq_t *seqs; /* [choices] owned */
} obey_req_t;

struct obey_s {
    obey_cfg_t c;
    uint32_t words;   /* of a mask, as the device reads it */
    uint32_t opener;  /* token that opens thought, or TOKEN_NONE */
    uint32_t n;       /* requests with a grammar */
    obey_req_t *reqs; /* [reqs_n] */
    uint32_t *rows;   /* [outs_max * words]; NULL: not made yet */
    uint32_t *none;   /* [words]: no token */
};

/* Where the bytes behind thought go. */
typedef struct {
    const grammar_t *g;
    grammar_state_t *at;
} obey_put_t;


obey_t *
obey_open(const obey_cfg_t *c)
{
    obey_t *o = mem_zero(1, sizeof(*o));

    assert(c->vocab > 0 && c->outs_max > 0);

    if (o == NULL) {
        return NULL;
    }

    o->c = *c;
    o->words = (c->vocab + 31) / 32;
    o->opener = c->reason == NULL ? TOKEN_NONE : reason_opener(c->reason);
    o->reqs = mem_zero(c->reqs_n, sizeof(*o->reqs));
    o->none = mem_zero(o->words, sizeof(*o->none));
    if (o->reqs == NULL || o->none == NULL) {
        obey_close(o);
        return NULL;
    }

    return o;
}


void
obey_close(obey_t *o)
{
    uint32_t i;

    if (o == NULL) {
        return;
    }

    for (i = 0; o->reqs != NULL && i < o->c.reqs_n; i++) {
        obey_end(o, i);
    }
    mem_free(o->reqs);
    mem_free(o->none);
    free(o->rows);
    mem_free(o);
}


/* --- requests ----------------------------------------------------------- */

static int
begin_seq(const obey_t *o, const req_t *r, obey_seq_t *s)
{
    if (o->c.reason != NULL) {
        s->reason = r->reason;
        s->thinks = reason_thinks(&s->reason) || reason_in_head(&s->reason);
        s->may = reason_may_think(&s->reason) && o->opener != TOKEN_NONE;
    }

    return grammar_begin(r->grammar, &s->at);
}


int
obey_begin(obey_t *o, uint32_t i, const req_t *r)
{
    obey_req_t *q = &o->reqs[i];
    uint32_t k;

    assert(i < o->c.reqs_n && r->grammar != NULL);
    assert(q->g == NULL && r->choices >= 1);

    if (o->rows == NULL) {
        o->rows = malloc((size_t) o->c.outs_max * o->words * sizeof(*o->rows));
    }
    q->seqs = calloc(r->choices, sizeof(*q->seqs));
    if (o->rows == NULL || q->seqs == NULL) {
        free(q->seqs);
        q->seqs = NULL;
        return -LLM_ERR_NO_MEMORY;
    }

    q->g = r->grammar;
    q->choices = r->choices;
    q->jumps = o->c.jump && !r->params.logprobs;
    o->n++;
    for (k = 0; k < r->choices; k++) {
        if (begin_seq(o, r, &q->seqs[k]) != 0) {
            obey_end(o, i);
            return -LLM_ERR_NO_MEMORY;
        }
    }

    return 0;
}


void
obey_end(obey_t *o, uint32_t i)
{
    obey_req_t *q = &o->reqs[i];
    uint32_t k;

    if (q->g == NULL) {
        return;
    }

    assert(o->n > 0);
    for (k = 0; k < q->choices; k++) {
        grammar_state_free(&q->seqs[k].at);
    }
    free(q->seqs);
    memset(q, 0, sizeof(*q));
    o->n--;
}


/* --- masks -------------------------------------------------------------- */

/* The mask of what may come next in s, as long as the device reads. */
static const uint32_t *
mask_of(
    const obey_t *o, const obey_req_t *q, const obey_seq_t *s, uint32_t *row)
{
    const grammar_vocab_t *v = grammar_cache_vocab(o->c.grammars);
    uint32_t words = grammar_mask_words(v);
    const uint32_t *m;

    assert(words <= o->words);

    m = grammar_mask(q->g, v, &s->at, row);
    if (m == NULL) {
        return o->none;
    }

    if (words < o->words || s->may) {
        if (m != row) {
            memcpy(row, m, words * sizeof(*row));
        }
        memset(row + words, 0, (o->words - words) * sizeof(*row));
        if (s->may) {
            row[o->opener / 32] |= 1u << o->opener % 32;
        }
        m = row;
    }

    return m;
}


void
obey_masks(obey_t *o, batch_t *b)
{
    uint64_t start, made = 0;
    const obey_req_t *q;
    const obey_seq_t *s;
    batch_out_t *out;
    uint32_t k;

    if (o->n == 0) {
        return;
    }

    start = clock_us();
    for (k = 0; k < b->outs_n; k++) {
        out = &b->outs[k];
        q = &o->reqs[b->rows[out->row].seq / LLM_CHOICES_MAX];
        if (q->g == NULL || out->wanted != 0) {
            continue;
        }
        s = &q->seqs[out->choice];
        if (!s->thinks) {
            out->mask = mask_of(o, q, s, o->rows + (size_t) k * o->words);
            made++;
        }
    }

    if (made > 0) {
        (void) __atomic_add_fetch(&o->c.state->masks, made, __ATOMIC_RELAXED);
        (void) __atomic_add_fetch(
            &o->c.state->mask_us, clock_us() - start, __ATOMIC_RELAXED);
    }
}


/* --- tokens ------------------------------------------------------------- */

static int
feed(const grammar_t *g, grammar_state_t *at, const char *p, size_t n)
{
    return grammar_feed(g, at, p, n) == n ? 0 : -1;
}


/* reason_put_t: what is no thought is the grammar's. */
static int
put_answer(void *arg, uint32_t kind, const char *p, size_t n)
{
    const obey_put_t *to = arg;

    return kind == LLM_TEXT_ANSWER ? feed(to->g, to->at, p, n) : 0;
}


/* A token of thought, or of the marks around it. */
static int
think(const obey_t *o, const obey_req_t *q, obey_seq_t *s, uint32_t token)
{
    obey_put_t to = {q->g, &s->at};
    const char *p;
    size_t n;
    int rc;

    s->may = 0;
    if (reason_is_mark(o->c.reason, &s->reason, token)) {
        rc = reason_mark(o->c.reason, &s->reason, token, put_answer, &to);
    } else {
        p = token_bytes(o->c.tok, token, &n);
        rc = reason_feed(o->c.reason, &s->reason, p, n, put_answer, &to);
    }
    s->thinks = reason_thinks(&s->reason) || reason_in_head(&s->reason);

    return rc;
}


/* The last tokens of the answer, in their order. */
static void
keep_tail(obey_seq_t *s, uint32_t token)
{
    assert(s->tail_n <= TAIL);

    if (s->tail_n == TAIL) {
        memmove(s->tail, s->tail + 1, (TAIL - 1) * sizeof(*s->tail));
        s->tail_n--;
    }
    s->tail[s->tail_n++] = token;
}


/* May nothing follow, so that the text is whole as it is? */
static int
is_over(const obey_req_t *q, const obey_seq_t *s)
{
    uint64_t next[4];

    if (s->thinks || !grammar_can_end(q->g, &s->at)) {
        return 0;
    }
    grammar_next(q->g, &s->at, next);

    return (next[0] | next[1] | next[2] | next[3]) == 0;
}


obey_verdict_t
obey_took(obey_t *o, uint32_t i, uint32_t choice, uint32_t token)
{
    const obey_req_t *q = &o->reqs[i];
    obey_seq_t *s;
    const char *p;
    size_t n;
    int rc;

    if (q->g == NULL) {
        return OBEY_ON;
    }

    assert(choice < q->choices && token < o->c.vocab);
    s = &q->seqs[choice];

    if (s->thinks || (s->may && token == o->opener)) {
        rc = think(o, q, s, token);
    } else {
        s->may = 0;
        p = grammar_vocab_bytes(grammar_cache_vocab(o->c.grammars), token, &n);
        rc = n == 0 ? -1 : feed(q->g, &s->at, p, n);
        keep_tail(s, token);
    }

    if (rc != 0) {
        return OBEY_BROKEN;
    }
    if (is_over(q, s)) {
        return OBEY_OVER;
    }

    return q->jumps && !s->thinks && s->tail_n > 0 ? OBEY_JUMP : OBEY_ON;
}


/* --- what is certain ---------------------------------------------------- */

/* The last tokens, and the bytes that must follow. */
typedef struct {
    char s[TAIL_BYTES + FORCED + 1];
    uint32_t n;
    uint32_t tail_n; /* tokens of the former, the first are left out; */
    size_t first;    /* bytes of the first of these */
} joined_t;


/* The last tokens' bytes, as many as fit. */
static void
join_tail(const obey_t *o, const obey_seq_t *s, joined_t *j)
{
    uint32_t from = s->tail_n, i;
    size_t bytes = 0, n;
    const char *p;

    while (from > 0) {
        (void) token_bytes(o->c.tok, s->tail[from - 1], &n);
        if (bytes + n > TAIL_BYTES) {
            break;
        }
        bytes += n;
        from--;
    }

    j->n = 0;
    j->first = 0;
    j->tail_n = s->tail_n - from;
    if (j->tail_n > 0) {
        (void) token_bytes(o->c.tok, s->tail[from], &j->first);
    }
    for (i = from; i < s->tail_n; i++) {
        p = token_bytes(o->c.tok, s->tail[i], &n);
        memcpy(j->s + j->n, p, n);
        j->n += (uint32_t) n;
    }
    assert(j->n == bytes);
}


/* How many of ids, n of them, a text begins with when it is cut to tokens. */
static uint32_t
agrees(const obey_t *o, const char *text, size_t len, const uint32_t *ids,
    uint32_t n)
{
    int64_t got;
    uint32_t own[WORK], i;

    got = token_encode(o->c.tok, text, len, 0, own, WORK, NULL, NULL);
    for (i = 0; i < n && (int64_t) i < got && own[i] == ids[i]; i++) {
    }

    return i;
}


/* How many of ids, the joined text's, stay as they are whatever follows it, as
 * far as the next byte tells. */
static uint32_t
settled(const obey_t *o, const obey_req_t *q, joined_t *j,
    const grammar_state_t *behind, const uint32_t *ids, uint32_t n)
{
    uint64_t next[4];
    uint32_t c, tried = 0, step, set = 0;

    grammar_next(q->g, behind, next);
    for (c = 0; c < 4; c++) {
        set += (uint32_t) __builtin_popcountll(next[c]);
    }
    if (set == 0) {
        return n - 1; /* the text's last token is sampled */
    }
    step = set > AFTER ? set / AFTER : 1;

    for (c = 0, set = 0; c < 256 && tried < AFTER && n > 0; c++) {
        if ((next[c / 64] >> c % 64 & 1) == 0 || set++ % step != 0) {
            continue;
        }
        j->s[j->n] = (char) c;
        n = agrees(o, j->s, j->n + 1, ids, n);
        tried++;
    }

    return n;
}


/* How many of ids, the joined text's, are the last tokens; 0: these came out of
 * it differently.  The first of them stands at the edge, where it may. */
static uint32_t
past_tail(const obey_t *o, const obey_seq_t *s, const joined_t *j,
    const uint32_t *ids, uint32_t n)
{
    const uint32_t *tail = s->tail + s->tail_n - j->tail_n;
    size_t bytes = 0, len;
    uint32_t k;

    for (k = 0; k < n && bytes < j->first; k++) {
        (void) token_bytes(o->c.tok, ids[k], &len);
        /* a space before all text is not the text's */
        bytes += k == 0 && token_strips_space(o->c.tok) ? len - (len > 0) : len;
    }
    if (bytes != j->first || k + j->tail_n - 1 > n
        || memcmp(ids + k, tail + 1, (j->tail_n - 1) * sizeof(*ids)) != 0) {
        return 0;
    }

    return k + j->tail_n - 1;
}


/* They are taken. */
static void
jump_over(const obey_t *o, const obey_req_t *q, obey_seq_t *s,
    const uint32_t *ids, uint32_t n)
{
    const char *p;
    uint32_t i;
    size_t len;
    int rc;

    for (i = 0; i < n; i++) {
        p = token_bytes(o->c.tok, ids[i], &len);
        rc = feed(q->g, &s->at, p, len);
        assert(rc == 0 && len > 0);
        (void) rc;
        keep_tail(s, ids[i]);
    }
}


uint32_t
obey_jump(obey_t *o, uint32_t i, uint32_t choice, uint32_t *ids, uint32_t cap)
{
    const obey_req_t *q = &o->reqs[i];
    obey_seq_t *s = &q->seqs[choice];
    grammar_state_t behind = {NULL, 0, 0, 0};
    uint32_t own[WORK], n = 0, forced, past;
    const char *mark; /* a token that no text gives */
    joined_t j;
    int64_t got;

    assert(q->g != NULL && choice < q->choices && q->jumps && !s->thinks);

    join_tail(o, s, &j);
    forced = (uint32_t) grammar_forced(q->g, &s->at, j.s + j.n, FORCED);
    mark = memchr(j.s + j.n, GRAMMAR_TOKEN[0], forced);
    if (mark != NULL) {
        forced = (uint32_t) (mark - (j.s + j.n));
    }
    if (forced < FORCED_LEAST || j.tail_n == 0 || cap == 0) {
        return 0;
    }

    if (grammar_state_copy(&behind, &s->at) == 0
        && feed(q->g, &behind, j.s + j.n, forced) == 0) {
        j.n += forced;
        got = token_encode(o->c.tok, j.s, j.n, 0, own, WORK, NULL, NULL);
        n = got > 0 ? settled(o, q, &j, &behind, own, (uint32_t) got) : 0;
    }
    grammar_state_free(&behind);

    past = n > 0 ? past_tail(o, s, &j, own, n) : 0;
    if (past == 0) {
        return 0;
    }

    n = n - past < cap ? n - past : cap;
    memcpy(ids, own + past, n * sizeof(*ids));
    jump_over(o, q, s, ids, n);
    (void) __atomic_add_fetch(&o->c.state->jump_tokens, n, __ATOMIC_RELAXED);

    return n;
}
