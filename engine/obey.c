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
 *                      (when the device has the step: forward_masks)
 *      obey_took       state ── bytes of the token ──> state
 *      obey_end
 *
 * THOUGHT.  What a model thinks before it answers is free.  Where a prompt
 * leaves off says whether it thinks already; where it may begin to, the token
 * that opens thought is allowed beside the grammar's.  Behind the mark that
 * closes it the grammar begins.  Headers (GPT-OSS) are free too, unless the
 * grammar is one of calls, which have the function's name in theirs.
 *
 * JUMPS.  Where a grammar leaves no choice of text, the tokens are those that
 * the tokenizer cuts it to (obey_cut.c), and no others are allowed: a model
 * that spells a key letter by letter is not itself any more.  So they need not
 * be sampled: the model computes them all at once, as it does a prompt's, but
 * where each is to have logprobs.  The text is the same either way.
 *
 * WHITE SPACE.  A grammar that has white space between any two tokens of JSON
 * lets a small model write nothing else for ever.  A run of it ends behind
 * BLANK_LINES line ends or BLANK_BYTES bytes, if anything else may come.
 *
 * THREADS.  A device that computes by itself does so while masks are made.  The
 * CPU's back end does not: there they take 1 to 2.5 % of the time of 32 streams
 * with 32 schemas on the smallest model that there is, and 0.15 % of a 0.5B's,
 * half of which at most a thread beside those that compute could win.
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
#include "obey_cut.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define BLANK_LINES 2
#define BLANK_BYTES 40

typedef struct {
    grammar_state_t at;
    reason_state_t reason;
    uint32_t thinks; /* what comes is free */
    uint32_t heads;  /* headers are the grammar's: it has their tokens */
    uint32_t may;    /* or it may begin to be */
    uint32_t text;   /* the last tokens that the grammar took were text */
    uint32_t tail_n; /* these */
    uint32_t tail[OBEY_CUT_TAIL];
    uint32_t blank, lines;    /* of the white space that it ends with */
    uint32_t sure_at, sure_n; /* tokens that are certain, and of them */
    uint32_t *sure;           /* owned, [OBEY_CUT_MAX]; those to come */
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

/* Is what comes no matter of the grammar? */
static int
is_free(const obey_seq_t *s)
{
    return reason_thinks(&s->reason)
           || (reason_in_head(&s->reason) && !s->heads);
}


/* Does a grammar begin with a token that has no text?  In the form that has
 * headers it knows those. */
static int
has_heads(const obey_t *o, const grammar_t *g, const grammar_state_t *at)
{
    const uint8_t token = (uint8_t) GRAMMAR_TOKEN[0];
    uint64_t next[4];

    if (strcmp(reason_name(o->c.reason), "harmony") != 0) {
        return 0;
    }
    grammar_next(g, at, next);

    return next[token / 64] >> token % 64 & 1;
}


static int
begin_seq(const obey_t *o, const req_t *r, obey_seq_t *s)
{
    if (grammar_begin(r->grammar, &s->at) != 0) {
        return -1;
    }
    if (o->c.reason != NULL) {
        s->reason = r->reason;
        s->heads = (uint32_t) has_heads(o, r->grammar, &s->at);
        s->thinks = (uint32_t) is_free(s);
        s->may = reason_may_think(&s->reason) && o->opener != TOKEN_NONE;
    }

    s->text = 1;

    return 0;
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
        free(q->seqs[k].sure);
    }
    free(q->seqs);
    memset(q, 0, sizeof(*q));
    o->n--;
}


/* --- masks -------------------------------------------------------------- */

/* Has it had enough white space? */
static int
is_blank(const obey_seq_t *s)
{
    return s->lines >= BLANK_LINES || s->blank >= BLANK_BYTES;
}


/* Takes white space out of row, the mask of s, if that leaves anything. */
static void
end_blank(const obey_req_t *q, const obey_seq_t *s, const grammar_vocab_t *v,
    uint32_t *row)
{
    uint32_t words = grammar_mask_words(v), k, any = 0;
    const uint32_t *m;

    grammar_vocab_no_white(v, row);
    for (k = 0; k < words; k++) {
        any |= row[k];
    }
    if (any == 0) {
        m = grammar_mask(q->g, v, &s->at, row); /* again */
        if (m != NULL && m != row) {
            memcpy(row, m, words * sizeof(*row));
        }
    }
}


/* The mask of what may come next in s, as long as the device reads. */
static const uint32_t *
mask_of(
    const obey_t *o, const obey_req_t *q, const obey_seq_t *s, uint32_t *row)
{
    const grammar_vocab_t *v = grammar_cache_vocab(o->c.grammars);
    uint32_t words = grammar_mask_words(v);
    const uint32_t *m;

    assert(words <= o->words);

    if (s->sure_at < s->sure_n) {
        memset(row, 0, o->words * sizeof(*row));
        row[s->sure[s->sure_at] / 32] |= 1u << s->sure[s->sure_at] % 32;
        return row;
    }

    m = grammar_mask(q->g, v, &s->at, row);
    if (m == NULL) {
        return o->none;
    }

    if (words < o->words || s->may || is_blank(s)) {
        if (m != row) {
            memcpy(row, m, words * sizeof(*row));
        }
        memset(row + words, 0, (o->words - words) * sizeof(*row));
        if (is_blank(s)) {
            end_blank(q, s, v, row);
        }
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
    s->thinks = (uint32_t) is_free(s);

    return rc;
}


/* reason_put_t: the grammar has had it. */
static int
put_nowhere(void *arg, uint32_t kind, const char *p, size_t n)
{
    assert(arg == NULL && kind < LLM_TEXTS && (p != NULL || n == 0));

    return 0;
}


/* A header's token, or one behind it, which the grammar has taken: does it
 * begin a thought? */
static void
follow(const obey_t *o, obey_seq_t *s, uint32_t token)
{
    const char *p;
    size_t n;

    if (reason_is_mark(o->c.reason, &s->reason, token)) {
        (void) reason_mark(o->c.reason, &s->reason, token, put_nowhere, NULL);
    } else {
        p = token_bytes(o->c.tok, token, &n);
        (void) reason_feed(o->c.reason, &s->reason, p, n, put_nowhere, NULL);
    }
    s->thinks = (uint32_t) is_free(s);
}


/* The last tokens of the answer, in their order. */
static void
keep_tail(obey_seq_t *s, uint32_t token)
{
    assert(s->tail_n <= OBEY_CUT_TAIL);

    if (s->tail_n == OBEY_CUT_TAIL) {
        memmove(s->tail, s->tail + 1, (s->tail_n - 1) * sizeof(*s->tail));
        s->tail_n--;
    }
    s->tail[s->tail_n++] = token;
}


/* The white space that the answer ends with. */
static void
count_blank(obey_seq_t *s, const char *p, size_t n)
{
    size_t i;

    for (i = 0; i < n; i++) {
        if (p[i] != ' ' && p[i] != '\n' && p[i] != '\r' && p[i] != '\t') {
            s->blank = s->lines = 0;
            continue;
        }
        s->blank++;
        s->lines += p[i] == '\n';
    }
}


/* Which tokens must come, if any. */
static void
look_ahead(const obey_t *o, const obey_req_t *q, obey_seq_t *s)
{
    s->sure_at = s->sure_n = 0;
    if (s->sure == NULL) {
        s->sure = malloc(OBEY_CUT_MAX * sizeof(*s->sure));
    }
    if (s->sure != NULL && (s->tail_n > 0 || !s->text)) {
        s->sure_n = obey_cut(o->c.tok, grammar_cache_vocab(o->c.grammars), q->g,
            &s->at, s->tail, s->tail_n, s->sure);
    }
}


/* The next token of the answer; 0, or -1 if it is not allowed. */
static int
answer(const obey_t *o, const obey_req_t *q, obey_seq_t *s, uint32_t token)
{
    size_t n, text;
    const char *p =
        grammar_vocab_bytes(grammar_cache_vocab(o->c.grammars), token, &n);

    if (n == 0 || feed(q->g, &s->at, p, n) != 0
        || (s->sure_at < s->sure_n && s->sure[s->sure_at] != token)) {
        return -1;
    }

    count_blank(s, p, n);
    (void) token_bytes(o->c.tok, token, &text);
    s->text = text > 0;
    if (text > 0) {
        keep_tail(s, token);
    } else {
        s->tail_n = 0;
    }
    if (s->sure_at < s->sure_n) {
        s->sure_at++;
    }
    if (s->heads) {
        follow(o, s, token);
    }
    if (s->thinks) {
        s->sure_at = s->sure_n = 0;
    } else if (s->sure_at == s->sure_n) {
        look_ahead(o, q, s);
    }

    return 0;
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
        rc = answer(o, q, s, token);
    }

    if (rc != 0) {
        return OBEY_BROKEN;
    }
    if (is_over(q, s)) {
        return OBEY_OVER;
    }

    return q->jumps && s->sure_at < s->sure_n ? OBEY_JUMP : OBEY_ON;
}


/* --- what is certain ---------------------------------------------------- */

uint32_t
obey_jump(obey_t *o, uint32_t i, uint32_t choice, uint32_t *ids, uint32_t cap)
{
    const obey_req_t *q = &o->reqs[i];
    obey_seq_t *s = &q->seqs[choice];
    uint32_t n = 0;
    int rc;

    assert(q->g != NULL && choice < q->choices && q->jumps);

    while (n < cap && s->sure_at < s->sure_n) {
        ids[n] = s->sure[s->sure_at];
        rc = answer(o, q, s, ids[n++]);
        assert(rc == 0);
        (void) rc;
    }
    (void) __atomic_add_fetch(&o->c.state->jump_tokens, n, __ATOMIC_RELAXED);

    return n;
}
