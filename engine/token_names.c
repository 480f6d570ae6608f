/*
 * Pre-tokenizers by the names that GGUF files give them.
 *
 * DESIGN.  A row is a name and one or more patterns, those that the models
 * were trained with.  The first cuts the text, the next cuts what the first
 * left, matched or not (token_pre.c).  White space is written as the Unicode
 * property: PCRE2's \s also takes U+180E for a space, which it has not been for
 * long.
 *
 * Not done: Qwen's tokenizers compose the text (NFC) before they cut it, which
 * a GGUF file cannot say; a letter written with a combining accent gets other
 * ids here than from the same model's tokenizer.json.
 */
#include "token_impl.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define NAMES_PATTERNS_MAX 6

#define WS      TOKEN_WS
#define ENDINGS TOKEN_ENDINGS
#define SPACES  TOKEN_SPACES
#define GPT2    TOKEN_PATTERN_GPT2
#define BREAKS  WS "*[\\r\\n]+|"
#define OTHER   " ?[^" WS "\\p{L}\\p{N}]+[\\r\\n]*|"
#define CL100K(digits)                                                         \
    "(?i:" ENDINGS ")|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" digits             \
    "|" OTHER BREAKS SPACES

/* Words of the o200k family: capitals, then small letters. */
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define O200K_WORD(ends)                                                       \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" ends                          \
    "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" ends "|"
#define O200K(ends, digits)                                                    \
    O200K_WORD(ends)                                                           \
    "\\p{N}" digits "| ?[^" WS "\\p{L}\\p{N}]+[\\r\\n/]*|" BREAKS SPACES

#define DEEPSEEK3                                                              \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|"                   \
    "[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| "                            \
    "?[\\p{P}\\p{S}]+[\\r\\n]*|" BREAKS SPACES

typedef struct {
    const char *name;
    const char *patterns[NAMES_PATTERNS_MAX];
    token_rules_t rules;
} names_row_t;

static const names_row_t names_rows[] = {
    {"default", {GPT2}, {0, 0}},
    {"gpt-2", {GPT2}, {0, 0}},
    {"phi-2", {GPT2}, {0, 0}},
    {"jina-es", {GPT2}, {0, 0}},
    {"olmo", {GPT2}, {0, 0}},
    {"qwen2", {CL100K("")}, {0, 0}},
    {"deepseek-r1-qwen", {CL100K("")}, {0, 0}},
    {"stablelm2", {CL100K("")}, {0, 0}},
    {"llama-bpe", {CL100K("{1,3}")}, {1, 1}},
    {"dbrx", {CL100K("{1,3}")}, {0, 0}},
    {"smaug-bpe", {CL100K("{1,3}")}, {0, 0}},
    {"gpt-4o", {O200K("(?i:" ENDINGS ")?", "{1,3}")}, {0, 0}},
    {"tekken", {O200K("", "")}, {1, 1}},
    {"smollm", {"\\p{N}", GPT2}, {0, 0}},
    {"starcoder", {"\\p{N}", GPT2}, {0, 0}},
    {"refact", {"\\p{N}", GPT2}, {0, 0}},
    {"command-r", {"\\p{N}", GPT2}, {0, 0}},
    {"deepseek-v3",
        {"\\p{N}{1,3}", "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{30ff}]+", DEEPSEEK3},
        {0, 0}},
    {"deepseek-coder",
        {"[\\r\\n]", WS "?\\p{L}+", WS "?\\p{P}+",
            "[\\x{800}-\\x{9fa5}\\x{ac00}-\\x{d7ff}]+", "\\p{N}"},
        {0, 0}},
};

#define NAMES_ROWS (sizeof(names_rows) / sizeof(names_rows[0]))


static const names_row_t *
names_row(const gguf_str_t *name)
{
    size_t i;

    for (i = 0; i < NAMES_ROWS; i++) {
        if (name->len == strlen(names_rows[i].name)
            && memcmp(name->s, names_rows[i].name, name->len) == 0) {
            return &names_rows[i];
        }
    }

    return NULL;
}


static void
names_unknown(
    const char *file, const gguf_str_t *name, char *err, size_t errlen)
{
    char list[512], bad[48];
    const char *gap;
    size_t i, n = 0;

    for (i = 0; i < NAMES_ROWS && n < sizeof(list); i++) {
        gap = i == 0 ? "" : i + 1 < NAMES_ROWS ? ", " : " and ";
        n += (size_t) snprintf(
            list + n, sizeof(list) - n, "%s\"%s\"", gap, names_rows[i].name);
    }

    (void) snprintf(err, errlen,
        "%s: tokenizer.ggml.pre is \"%s\", and only %s are known", file,
        token_load_printable(bad, sizeof(bad), name), list);
}


token_pre_t *
token_pre_open(const char *file, const gguf_str_t *name, token_rules_t *rules,
    char *err, size_t errlen)
{
    const names_row_t *row = names_row(name);
    token_step_t step = {.kind = TOKEN_PRE_CUT, .behavior = TOKEN_CUT_ISOLATED};
    char why[128];
    token_pre_t *p;
    unsigned i;

    assert(rules != NULL);

    if (row == NULL) {
        names_unknown(file, name, err, errlen);
        return NULL;
    }

    p = token_pre_new();
    if (p == NULL) {
        (void) snprintf(err, errlen, "out of memory for the vocabulary");
        return NULL;
    }

    for (i = 0; i < NAMES_PATTERNS_MAX && row->patterns[i] != NULL; i++) {
        step.regex = token_regex_open(row->patterns[i],
            strlen(row->patterns[i]), TOKEN_REGEX_PCRE, why, sizeof(why));
        if (step.regex == NULL || token_pre_add(p, &step) != 0) {
            (void) snprintf(err, errlen,
                "the installed PCRE2 does not take the pattern of \"%s\": %s",
                row->name, why);
            token_pre_close(p);
            return NULL;
        }
    }

    token_pre_ready(p);
    *rules = row->rules;

    return p;
}
