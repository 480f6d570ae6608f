/*
 * Pre-tokenizers: what cuts a text into words before a word's bytes or
 * characters are joined.
 *
 * DESIGN.  A list of steps.  A cut has a pattern: what it matches and what lies
 * between the matches are pieces (which of them stay, and which are put
 * together, is its behavior), and each piece is cut by the next step as if it
 * were the whole text.  Other steps write the piece anew: a space before it,
 * spaces as "▁", bytes as letters.  What leaves the last step is a word.
 *
 *      "ab 12!"  --\p{N}-->  "ab " "1" "2" "!"  --next-->  "ab" " " "1" ...
 *
 * Invalid UTF-8 is legal: the text is first cut into runs of whole characters
 * and runs of bytes that are none; the latter are words as they are.  PCRE2
 * could be told to do that itself, but then its interpreter, which stands in
 * where its JIT compiler may not run, would look through the rest of the text
 * again for every word.
 *
 * Where several cuts follow each other, most words are through after the first
 * ones, and the others look at each of them to find nothing.  What a step does
 * to a piece follows from its bytes alone; so who takes the words is asked
 * about short pieces before a step, and told of those that came out of all
 * further ones as they went in (token_cache.c).
 *
 * Letters are there for pre-tokenizers that cut what "ByteLevel" left
 * (Falcon's): words come out as bytes again, whatever they were on the way.
 *
 * Steps are made at start and read-only after; what one call needs is on its
 * stack or from malloc, one buffer for each step that writes, since a step is
 * done with a piece before the next one comes.  Runs on text_in's threads.
 */
#include "token_impl.h"
#include "llm_err.h"
#include "utf8.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PRE_STEPS_MAX 16

struct token_pre_s {
    uint32_t n;
    uint32_t noted; /* pieces are noted from this step on; 0: never */
    token_step_t steps[PRE_STEPS_MAX];
};

/* One call's. */
typedef struct {
    const token_pre_t *p;
    token_match_t *match;
    token_buf_t bufs[PRE_STEPS_MAX];
    const char *begin; /* of the whole text, NULL: it is no beginning */
    int letters;       /* words are in the byte alphabet */
    const char *piece; /* the one that was looked up last */
    size_t piece_len;
    const char *last; /* the word that came out last */
    size_t last_len;
    const token_words_t *words;
} pre_cut_t;

/* A cut's way through a piece. */
typedef struct {
    pre_cut_t *c;
    uint32_t level;
    const char *s;
    size_t from, to; /* what is not handed on yet */
    int pending;     /* is there any? */
    int matched;     /* is it a match? */
} pre_part_t;

static int pre_run(pre_cut_t *c, uint32_t level, const char *s, size_t len);


/* --- opening ------------------------------------------------------------ */

token_pre_t *
token_pre_new(void)
{
    return calloc(1, sizeof(token_pre_t));
}


int
token_pre_add(token_pre_t *p, const token_step_t *step)
{
    assert(step->kind != TOKEN_PRE_CUT || step->regex != NULL);

    if (p->n == PRE_STEPS_MAX) {
        token_regex_close(step->regex);
        return -1;
    }
    p->steps[p->n++] = *step;

    return 0;
}


void
token_pre_trim(token_pre_t *p)
{
    if (p->n > 0 && p->steps[p->n - 1].kind == TOKEN_PRE_LETTERS) {
        p->n--;
    }
}


void
token_pre_close(token_pre_t *p)
{
    uint32_t i;

    if (p == NULL) {
        return;
    }

    for (i = 0; i < p->n; i++) {
        token_regex_close(p->steps[i].regex);
    }
    free(p);
}


void
token_pre_ready(token_pre_t *p)
{
    uint32_t at = p->n;

    while (at > 0 && p->steps[at - 1].kind == TOKEN_PRE_CUT) {
        at--;
    }

    /* what leaves the first of several cuts, not the whole text */
    p->noted = p->n < at + 2 ? 0 : at + 1;
}


/* --- cutting ------------------------------------------------------------ */

static int
part_flush(pre_part_t *p)
{
    int rc = 0;

    assert(p->from <= p->to);

    if (p->pending && p->to > p->from) {
        rc = pre_run(p->c, p->level + 1, p->s + p->from, p->to - p->from);
    }
    p->pending = 0;

    return rc;
}


/*
 * The next part of a piece, a match or what lies between two; parts come in
 * order and without gaps.
 */
static int
part_put(pre_part_t *p, size_t from, size_t to, int matched)
{
    const token_step_t *step = &p->c->p->steps[p->level];
    int join = 0, rc;

    matched ^= step->invert;

    switch (step->behavior) {

    case TOKEN_CUT_REMOVED:
        if (matched) {
            return 0;
        }
        break;

    case TOKEN_CUT_PREVIOUS:
        /* only the first of several matches in a row */
        join = p->pending && matched && !p->matched;
        break;

    case TOKEN_CUT_NEXT:
        join = p->pending && p->matched && !matched;
        break;

    case TOKEN_CUT_CONTIGUOUS:
        join = p->pending && matched == p->matched;
        break;

    default:
        break;
    }

    if (join) {
        assert(p->to == from);
        p->to = to;
        p->matched = matched;
        return 0;
    }

    rc = part_flush(p);
    p->pending = 1;
    p->matched = matched;
    p->from = from;
    p->to = to;

    return rc;
}


/* The length of the character at s[at]. */
static size_t
pre_char(const char *s, size_t len, size_t at)
{
    size_t n = 1;

    while (at + n < len && ((uint8_t) s[at + n] & 0xc0) == 0x80) {
        n++;
    }

    return n;
}


/* The step's next match from look on, as token_match() finds it. */
static int
pre_next(pre_cut_t *c, uint32_t level, const char *s, size_t len, size_t look,
    size_t *from, size_t *to)
{
    return look <= len ? token_match(
               c->match, c->p->steps[level].regex, s, len, look, from, to)
                       : 0;
}


/* The same where matches and what lies between them are all words' own. */
static int
pre_isolated(pre_cut_t *c, uint32_t level, const char *s, size_t len)
{
    size_t at = 0, look = 0, from, to;
    int rc = 0, found;

    while (at < len && rc == 0) {
        found = pre_next(c, level, s, len, look, &from, &to);
        if (found < 0) {
            return found;
        }
        if (!found) {
            return pre_run(c, level + 1, s + at, len - at);
        }
        if (from > at) {
            rc = pre_run(c, level + 1, s + at, from - at);
        }
        if (to > from && rc == 0) {
            rc = pre_run(c, level + 1, s + from, to - from);
        }
        look = to > from ? to : to + pre_char(s, len, to);
        at = to;
    }

    return rc;
}


/* Cuts at a pattern's matches; behavior says to whom a match belongs. */
static int
pre_cut(pre_cut_t *c, uint32_t level, const char *s, size_t len)
{
    pre_part_t p = {.c = c, .level = level, .s = s};
    size_t at = 0, look = 0, from, to;
    int rc = 0, found;

    while (at < len && rc == 0) {
        found = pre_next(c, level, s, len, look, &from, &to);
        if (found < 0) {
            return found;
        }
        if (!found) {
            rc = part_put(&p, at, len, 0);
            break;
        }
        if (from > at) {
            rc = part_put(&p, at, from, 0);
        }
        if (to > from && rc == 0) {
            rc = part_put(&p, from, to, 1);
        }
        /* an empty match cuts, and the next begins a character later */
        look = to > from ? to : to + pre_char(s, len, to);
        at = to;
    }

    return rc != 0 ? rc : part_flush(&p);
}


/* --- writing ------------------------------------------------------------ */

static int
pre_space(pre_cut_t *c, uint32_t level, const char *s, size_t len)
{
    token_buf_t *b = &c->bufs[level];
    int rc;

    if (s[0] == ' ') {
        return pre_run(c, level + 1, s, len);
    }

    b->n = 0;
    rc = token_buf_put(b, " ", 1);
    rc = rc == 0 ? token_buf_put(b, s, len) : rc;

    return rc != 0 ? rc : pre_run(c, level + 1, b->p, b->n);
}


static int
pre_meta(pre_cut_t *c, uint32_t level, const char *s, size_t len)
{
    const token_step_t *step = &c->p->steps[level];
    size_t with_len = strlen(step->with), i, n;
    token_buf_t *b = &c->bufs[level];
    int prepend = step->scheme == TOKEN_META_ALWAYS
                  || (step->scheme == TOKEN_META_FIRST && s == c->begin);
    int rc = 0;

    if (s[0] == ' '
        || (len >= with_len && memcmp(s, step->with, with_len) == 0)) {
        prepend = 0;
    }

    b->n = 0;
    if (prepend) {
        rc = token_buf_put(b, step->with, with_len);
    }
    for (i = 0; i < len && rc == 0; i += n) {
        for (n = 0; i + n < len && s[i + n] != ' '; n++) {
        }
        rc = token_buf_put(b, s + i, n);
        if (rc == 0 && i + n < len) {
            rc = token_buf_put(b, step->with, with_len);
            n++;
        }
    }

    return rc != 0 ? rc : pre_run(c, level + 1, b->p, b->n);
}


static int
pre_letters(pre_cut_t *c, uint32_t level, const char *s, size_t len)
{
    token_buf_t *b = &c->bufs[level];
    char two[2];
    size_t i;
    int rc = 0;

    b->n = 0;
    for (i = 0; i < len && rc == 0; i++) {
        rc = token_buf_put(b, two, token_alphabet_write(s + i, 1, two));
    }
    if (rc == 0) {
        c->letters = 1;
        rc = pre_run(c, level + 1, b->p, b->n);
        c->letters = 0;
    }

    return rc;
}


/* What has left the last step; letters become bytes again where they lie. */
static int
pre_word(pre_cut_t *c, const char *s, size_t len)
{
    gguf_str_t p = {s, len};
    char *bytes;
    size_t n;
    int rc;

    c->last = s;
    c->last_len = len;
    if (!c->letters) {
        return c->words->word(c->words->arg, s, len);
    }

    bytes = malloc(len);
    if (bytes == NULL) {
        return -LLM_ERR_NO_MEMORY;
    }
    /* a pattern cuts between characters, so it is all letters */
    rc = token_alphabet_read(&p, bytes, &n)
             ? c->words->word(c->words->arg, bytes, n)
             : -LLM_ERR_BAD_TEXT;
    free(bytes);

    return rc;
}


/* What one step does to a piece. */
static int
pre_step(pre_cut_t *c, uint32_t level, const char *s, size_t len)
{
    switch (c->p->steps[level].kind) {
    case TOKEN_PRE_CUT:
        return c->p->steps[level].behavior == TOKEN_CUT_ISOLATED
                   ? pre_isolated(c, level, s, len)
                   : pre_cut(c, level, s, len);
    case TOKEN_PRE_SPACE:
        return pre_space(c, level, s, len);
    case TOKEN_PRE_META:
        return pre_meta(c, level, s, len);
    default:
        assert(c->p->steps[level].kind == TOKEN_PRE_LETTERS);
        return pre_letters(c, level, s, len);
    }
}


/*
 * The same for a short piece, which may be a word already; one that the step
 * before left as it was has been asked for there.
 */
static int
pre_noted(pre_cut_t *c, uint32_t level, const char *s, size_t len)
{
    const token_words_t *w = c->words;
    int rc;

    assert(level >= c->p->noted);

    if (level > c->p->noted && c->piece == s && c->piece_len == len) {
        return pre_step(c, level, s, len);
    }
    c->piece = s;
    c->piece_len = len;

    rc = w->known(w->arg, level, s, len);
    if (rc != 0) {
        return rc < 0 ? rc : 0;
    }

    c->last = NULL;
    rc = pre_step(c, level, s, len);
    if (rc == 0 && c->last == s && c->last_len == len) {
        w->note(w->arg, level, s, len);
    }

    return rc;
}


/* Valid UTF-8, at least a byte of it, to the steps from number level on. */
static int
pre_run(pre_cut_t *c, uint32_t level, const char *s, size_t len)
{
    assert(len > 0 && level <= c->p->n);

    if (level == c->p->n) {
        return pre_word(c, s, len);
    }

    return c->p->noted > 0 && level >= c->p->noted && len <= TOKEN_CACHE_KEY
                   && c->words->known != NULL
               ? pre_noted(c, level, s, len)
               : pre_step(c, level, s, len);
}


int
token_pre_split(const token_pre_t *p, const char *text, size_t len, int first,
    const token_words_t *words)
{
    pre_cut_t c = {.p = p, .words = words};
    size_t at, n;
    int valid, rc = 0;
    uint32_t i;

    assert(len <= TOKEN_TEXT_MAX);

    c.begin = first ? text : NULL;
    c.match = token_match_open(len);
    if (c.match == NULL) {
        return -LLM_ERR_NO_MEMORY;
    }

    for (at = 0; at < len && rc == 0; at += n) {
        n = token_run(text + at, len - at, &valid);
        rc = valid ? pre_run(&c, 0, text + at, n)
                   : words->word(words->arg, text + at, n);
    }

    for (i = 0; i < p->n; i++) {
        free(c.bufs[i].p);
    }
    token_match_close(c.match);

    return rc;
}
