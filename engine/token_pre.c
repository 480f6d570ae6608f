/*
 * Pre-tokenizers: the patterns that cut a text into words before byte-level
 * BPE joins bytes inside each word.
 *
 * DESIGN.  A model's pre-tokenizer is a row: the name that files give it and
 * one or more patterns.  The first pattern cuts the text; what it matches and
 * what lies between the matches are pieces, and each piece is cut by the next
 * pattern as if it were the whole text.  What leaves the last pattern is a
 * word, so nothing of a text is ever lost.
 *
 *      "ab 12!"  --\p{N}-->  "ab " "1" "2" "!"  --next-->  "ab" " " "1" ...
 *
 * The patterns are those that the models were trained with, for PCRE2 with
 * UCP.  White space is written as the Unicode property: PCRE2's \s also takes
 * U+180E for a space, which it has not been for long.
 *
 * Invalid UTF-8 is legal: the text is first cut into runs of whole characters
 * and runs of bytes that are none; the latter are words as they are.  PCRE2
 * could be told to do that itself, but then its interpreter, which stands in
 * where its JIT compiler may not run, would look through the rest of the text
 * again for every word.
 *
 * Not done: Qwen's tokenizers compose the text (NFC) before they cut it, so a
 * letter written with a combining accent gets other ids here.
 *
 * Every pattern is linear in the text when compiled.  Should one not be, the
 * match limit, in proportion to the text, ends it with a clean error.
 *
 * Compiled patterns are made at start and read-only after; what one call needs
 * is on its stack or from malloc.  Runs on text_in's threads.
 */
#include "token_impl.h"
#include "llm_err.h"
#include "utf8.h"

#define PCRE2_CODE_UNIT_WIDTH 8

#include <assert.h>
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PRE_PATTERNS_MAX 5

/* Steps of the matcher for each byte of text; the worst runs known take one. */
#define PRE_STEPS_BYTE 16
#define PRE_STEPS_MIN  10000

/* What a match may take from the heap: only the interpreter takes any. */
#define PRE_HEAP_KIB_MAX (64 * 1024)

#define WS      "\\p{WSpace}"
#define NOT_WS  "\\P{WSpace}"
#define ENDINGS "'s|'t|'re|'ve|'m|'ll|'d"
#define SPACES  WS "+(?!" NOT_WS ")|" WS "+"
#define PATTERN_GPT2                                                           \
    ENDINGS "| ?\\p{L}+| ?\\p{N}+| ?[^" WS "\\p{L}\\p{N}]+|" SPACES
#define PATTERN_CL100K(digits)                                                 \
    "(?i:" ENDINGS ")|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" digits "| ?[^" WS  \
    "\\p{L}\\p{N}]+[\\r\\n]*|" WS "*[\\r\\n]+|" SPACES

typedef struct {
    const char *name;
    const char *patterns[PRE_PATTERNS_MAX];
    int whole, add_bos;
} pre_row_t;

static const pre_row_t pre_rows[] = {
    {"default", {PATTERN_GPT2}, 0, 0},
    {"gpt-2", {PATTERN_GPT2}, 0, 0},
    {"phi-2", {PATTERN_GPT2}, 0, 0},
    {"qwen2", {PATTERN_CL100K("")}, 0, 0},
    {"llama-bpe", {PATTERN_CL100K("{1,3}")}, 1, 1},
    {"smollm", {"\\p{N}", PATTERN_GPT2}, 0, 0},
    {"deepseek-coder",
        {"[\\r\\n]", WS "?\\p{L}+", WS "?\\p{P}+",
            "[\\x{800}-\\x{9fa5}\\x{ac00}-\\x{d7ff}]+", "\\p{N}"},
        0, 0},
};

#define PRE_ROWS (sizeof(pre_rows) / sizeof(pre_rows[0]))

struct token_pre_s {
    const pre_row_t *row;
    unsigned n;
    pcre2_code *code[PRE_PATTERNS_MAX];
};

/* One call's. */
typedef struct {
    const token_pre_t *p;
    pcre2_match_data *match;
    pcre2_match_context *limits;
    int (*word)(void *, const char *, size_t);
    void *arg;
} pre_cut_t;


/* --- opening ------------------------------------------------------------ */

static const pre_row_t *
pre_row(const gguf_str_t *name)
{
    size_t i;

    for (i = 0; i < PRE_ROWS; i++) {
        if (name->len == strlen(pre_rows[i].name)
            && memcmp(name->s, pre_rows[i].name, name->len) == 0) {
            return &pre_rows[i];
        }
    }

    return NULL;
}


static void
pre_unknown(const char *file, const gguf_str_t *name, char *err, size_t errlen)
{
    char list[256], bad[48];
    const char *gap;
    size_t i, n = 0;

    for (i = 0; i < PRE_ROWS && n < sizeof(list); i++) {
        gap = i == 0 ? "" : i + 1 < PRE_ROWS ? ", " : " and ";
        n += (size_t) snprintf(
            list + n, sizeof(list) - n, "%s\"%s\"", gap, pre_rows[i].name);
    }

    (void) snprintf(err, errlen,
        "%s: tokenizer.ggml.pre is \"%s\", and only %s are known", file,
        token_load_printable(bad, sizeof(bad), name), list);
}


token_pre_t *
token_pre_open(
    const char *file, const gguf_str_t *name, char *err, size_t errlen)
{
    const pre_row_t *row = pre_row(name);
    PCRE2_UCHAR why[128];
    PCRE2_SIZE at;
    token_pre_t *p;
    unsigned i;
    int rc;

    if (row == NULL) {
        pre_unknown(file, name, err, errlen);
        return NULL;
    }

    p = calloc(1, sizeof(*p));
    if (p == NULL) {
        (void) snprintf(err, errlen, "out of memory for the vocabulary");
        return NULL;
    }
    p->row = row;

    for (i = 0; i < PRE_PATTERNS_MAX && row->patterns[i] != NULL; i++) {
        p->code[i] = pcre2_compile((PCRE2_SPTR) row->patterns[i],
            PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &rc, &at, NULL);
        if (p->code[i] == NULL) {
            (void) pcre2_get_error_message(rc, why, sizeof(why));
            (void) snprintf(err, errlen,
                "the installed PCRE2 does not take the pattern of \"%s\": %s",
                row->name, (const char *) why);
            token_pre_close(p);
            return NULL;
        }
        /* without it, as where memory cannot be made executable, matching
         * is slower and no different */
        (void) pcre2_jit_compile(p->code[i], PCRE2_JIT_COMPLETE);
        p->n++;
    }

    assert(p->n > 0);

    return p;
}


void
token_pre_close(token_pre_t *p)
{
    unsigned i;

    if (p == NULL) {
        return;
    }

    for (i = 0; i < p->n; i++) {
        pcre2_code_free(p->code[i]);
    }
    free(p);
}


void
token_pre_rules(const token_pre_t *p, int *whole, int *add_bos)
{
    *whole = p->row->whole;
    *add_bos = p->row->add_bos;
}


/* --- cutting ------------------------------------------------------------ */

static int
pre_error(int rc)
{
    assert(rc < 0 && rc != PCRE2_ERROR_NOMATCH);

    return rc == PCRE2_ERROR_NOMEMORY ? -LLM_ERR_NO_MEMORY : -LLM_ERR_BAD_TEXT;
}


/* Cuts valid UTF-8 by the patterns from number level on. */
static int
pre_cut(const pre_cut_t *c, unsigned level, const char *s, size_t len)
{
    const PCRE2_SIZE *m = pcre2_get_ovector_pointer(c->match);
    size_t at, from, to;
    int rc = 0;

    if (level == c->p->n) {
        return c->word(c->arg, s, len);
    }

    for (at = 0; at < len && rc == 0; at = to) {
        rc = pcre2_match(c->p->code[level], (PCRE2_SPTR) s, len, at,
            PCRE2_NO_UTF_CHECK, c->match, c->limits);
        if (rc < 0 && rc != PCRE2_ERROR_NOMATCH) {
            return pre_error(rc);
        }

        from = rc < 0 ? len : m[0];
        to = rc < 0 ? len : m[1];
        assert(at <= from && (from < to || from == len) && to <= len);

        rc = from > at ? pre_cut(c, level + 1, s + at, from - at) : 0;
        if (rc == 0 && to > from) {
            rc = pre_cut(c, level + 1, s + from, to - from);
        }
    }

    return rc;
}


/* The length of the run at s that is all characters, or all none. */
static size_t
pre_run(const char *s, size_t len, int *valid)
{
    const uint8_t *p = (const uint8_t *) s;
    size_t i;
    int n;

    *valid = utf8_char(p, len) > 0;

    for (i = 0; i < len; i += (size_t) (n > 0 ? n : 1)) {
        n = utf8_char(p + i, len - i);
        if ((n > 0) != *valid) {
            break;
        }
    }

    return i;
}


int
token_pre_split(const token_pre_t *p, const char *text, size_t len,
    int (*word)(void *, const char *, size_t), void *arg)
{
    pre_cut_t c = {.p = p, .word = word, .arg = arg};
    size_t at, n;
    int valid, rc = 0;

    assert(len <= UINT32_MAX / (2 * PRE_STEPS_BYTE));

    c.match = pcre2_match_data_create(1, NULL);
    c.limits = pcre2_match_context_create(NULL);
    if (c.match == NULL || c.limits == NULL) {
        rc = -LLM_ERR_NO_MEMORY;
        goto done;
    }

    (void) pcre2_set_match_limit(
        c.limits, PRE_STEPS_MIN + PRE_STEPS_BYTE * (uint32_t) len);
    (void) pcre2_set_heap_limit(c.limits, PRE_HEAP_KIB_MAX);

    for (at = 0; at < len && rc == 0; at += n) {
        n = pre_run(text + at, len - at, &valid);
        rc = valid ? pre_cut(&c, 0, text + at, n) : word(arg, text + at, n);
    }

done:
    pcre2_match_context_free(c.limits);
    pcre2_match_data_free(c.match);

    return rc;
}
