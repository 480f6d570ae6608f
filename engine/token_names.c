/*
 * Pre-tokenizers by the names that GGUF files give them.
 *
 * DESIGN.  A row is a name and one or more patterns, those that the models
 * were trained with.  The first cuts the text, the next cuts what the first
 * left, matched or not (token_pre.c).  White space is written as the Unicode
 * property: PCRE2's \s also takes U+180E for a space, which it has not been for
 * long.
 *
 * The rest of a row is what the models' own tokenizers do besides and a GGUF
 * file does not say: compose the text (NFC) before it is cut, take a word that
 * is a piece whole, put a begin token before a text.
 *
 * A name that is in no row is refused: ids that are nearly right are worse than
 * none.  Left out are those whose patterns look ahead over a whole number to
 * cut it from its end ("afmoe", "superbpe", "tiny_aya"), which takes the square
 * of its length.
 */
#include "token_impl.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define NAMES_PATTERNS_MAX 6

/* No pattern: from here on bytes are letters, and what is cut are those. */
#define LETTERS ""

#define WS             TOKEN_WS
#define ENDINGS        TOKEN_ENDINGS
#define SPACES         TOKEN_SPACES
#define GPT2           TOKEN_PATTERN_GPT2
#define BREAKS         WS "*[\\r\\n]+|"
#define OTHER          " ?[^" WS "\\p{L}\\p{N}]+[\\r\\n]*|"
#define WORDS          "(?i:" ENDINGS ")|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define CL100K(digits) WORDS "\\p{N}" digits "|" OTHER BREAKS SPACES

/* Qwen 3.5: marks are parts of words. */
#define QWEN35                                                                 \
    "(?i:" ENDINGS ")|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}|"           \
    " ?[^" WS "\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" BREAKS SPACES

/* Runs of spaces by powers of two. */
#define JAIS2_RUN(n) WS "{" n "}(?!\\P{WSpace})|"
#define JAIS2                                                                  \
    WORDS "\\p{N}{1,3}|" OTHER BREAKS JAIS2_RUN("512") JAIS2_RUN("256")        \
        JAIS2_RUN("128") JAIS2_RUN("64") JAIS2_RUN("32") JAIS2_RUN("16")       \
            JAIS2_RUN("8") JAIS2_RUN("4") JAIS2_RUN("1,2") WS

/* Nothing is given back where nothing follows. */
#define EXAONE_MOE                                                             \
    "(?i:" ENDINGS ")|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*+(?: "             \
    "\\p{L}\\p{M}*+)*+)++|\\p{N}| ?[^" WS "\\p{L}\\p{N}]+[\\r\\n/]?|" WS       \
    "*[\\r\\n]|" SPACES
#define BAILING                                                                \
    "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^" WS      \
    "\\p{L}\\p{N}]++[\\r\\n]*|" WS "*[\\r\\n]|" SPACES
#define SEED WORDS "\\p{N}| ?[^" WS "\\p{L}\\p{N}\\r\\n]+|" BREAKS SPACES

/* Words of the o200k family: capitals, then small letters. */
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define O200K_WORD(upper, lower, ends)                                         \
    "[^\\r\\n\\p{L}\\p{N}]?" upper "*" lower "+" ends                          \
    "|[^\\r\\n\\p{L}\\p{N}]?" upper "+" lower "*" ends "|"
#define O200K(ends, digits)                                                    \
    O200K_WORD(UPPER, LOWER, ends)                                             \
    "\\p{N}" digits "| ?[^" WS "\\p{L}\\p{N}]+[\\r\\n/]*|" BREAKS SPACES

/*
 * The same without Chinese characters, which are words of their own.  PCRE2's
 * \p{Han} would also take what other scripts share with them.
 */
#define HAN_NOT "[^\\p{sc:Han}\\p{N}\\p{P}\\p{S}\\p{Z}\\p{C}"
#define KIMI                                                                   \
    "\\p{sc:Han}+|" O200K_WORD(HAN_NOT "\\p{Ll}]", HAN_NOT "\\p{Lu}\\p{Lt}]",  \
        "(?i:" ENDINGS ")?") "\\p{N}{1,3}|" OTHER BREAKS SPACES

#define YOUTU                                                                  \
    "[\\x{ac00}-\\x{d7a3}\\x{3131}-\\x{318e}]+|"                               \
    "[\\x{ff01}\\x{2026}\\x{201c}\\x{201d}\\x{2018}\\x{2019}\\x{2014}"         \
    "\\x{ff1a}\\x{ff1b}\\x{ff0c}\\x{3001}-\\x{303f}\\x{fe30}-\\x{fe4f}]+|"     \
    "[\\x{3105}-\\x{312f}]+|[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{30ff}]+"

/* BLOOM and what was made after it. */
#define BLOOM                                                                  \
    " ?[^(" WS "|.,!?\\x{2026}\\x{3002}\\x{ff0c}\\x{3001}\\x{964}\\x{6d4}"     \
    "\\x{60c})]+"

/* Falcon: what is punctuation to Unicode or in ASCII. */
#define PUNCTUATION "[\\p{P}$+<=>^`|~]+"

#define CJK "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{30ff}]+"
#define DEEPSEEK3                                                              \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|"                   \
    "[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| "                            \
    "?[\\p{P}\\p{S}]+[\\r\\n]*|" BREAKS SPACES

#define DEEPSEEK_CJK "[\\x{800}-\\x{9fa5}\\x{ac00}-\\x{d7ff}]+"
#define DEEPSEEK_SIGNS                                                         \
    "[!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}"         \
    "\\x{3000}-\\x{3002}]+"

/* Letters that have cases, in the Unicode of their day. */
#define DEEPSEEK_LETTERS                                                       \
    "A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}"              \
    "\\x{1bc}-\\x{1bf}\\x{1c4}-\\x{293}\\x{295}-\\x{2af}"                      \
    "\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}\\x{37f}\\x{386}"       \
    "\\x{388}-\\x{38a}\\x{38c}\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}"              \
    "\\x{3f7}-\\x{481}\\x{48a}-\\x{52f}\\x{531}-\\x{556}"                      \
    "\\x{10a0}-\\x{10c5}\\x{13a0}-\\x{13f5}\\x{13f8}-\\x{13fd}"                \
    "\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}\\x{1d00}-\\x{1d2b}"                \
    "\\x{1d6b}-\\x{1d77}\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}"                \
    "\\x{1f18}-\\x{1f1d}\\x{1f20}-\\x{1f45}\\x{1f48}-\\x{1f4d}"                \
    "\\x{1f50}-\\x{1f57}\\x{1f59}\\x{1f5b}\\x{1f5d}\\x{1f5f}-\\x{1f7d}"        \
    "\\x{1f80}-\\x{1fb4}\\x{1fb6}-\\x{1fbc}\\x{1fbe}\\x{1fc2}-\\x{1fc4}"       \
    "\\x{1fc6}-\\x{1fcc}\\x{1fd0}-\\x{1fd3}\\x{1fd6}-\\x{1fdb}"                \
    "\\x{1fe0}-\\x{1fec}\\x{1ff2}-\\x{1ff4}\\x{1ff6}-\\x{1ffc}\\x{2102}"       \
    "\\x{2107}\\x{210a}-\\x{2113}\\x{2115}\\x{2119}-\\x{211d}\\x{2124}"        \
    "\\x{2126}\\x{2128}\\x{212a}-\\x{212d}\\x{212f}-\\x{2134}\\x{2139}"        \
    "\\x{213c}-\\x{213f}\\x{2145}-\\x{2149}\\x{214e}\\x{2183}\\x{2184}"        \
    "\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}\\x{2ceb}-\\x{2cee}\\x{2cf2}"       \
    "\\x{2cf3}\\x{a640}-\\x{a66d}\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}"       \
    "\\x{a771}-\\x{a787}\\x{a78b}-\\x{a78e}\\x{ab70}-\\x{abbf}"                \
    "\\x{fb00}-\\x{fb06}\\x{fb13}-\\x{fb17}\\x{ff21}-\\x{ff3a}"                \
    "\\x{ff41}-\\x{ff5a}\\x{10400}-\\x{1044f}\\x{104b0}-\\x{104d3}"            \
    "\\x{104d8}-\\x{104fb}\\x{10c80}-\\x{10cb2}\\x{10cc0}-\\x{10cf2}"          \
    "\\x{118a0}-\\x{118df}\\x{1e900}-\\x{1e943}"

/* token_rules_t */
#define NONE                                                                   \
    {                                                                          \
        0, 0, 0                                                                \
    }
#define NFC                                                                    \
    {                                                                          \
        0, 0, 1                                                                \
    }
#define WHOLE                                                                  \
    {                                                                          \
        1, 0, 0                                                                \
    }
#define LLAMA                                                                  \
    {                                                                          \
        1, 1, 0                                                                \
    }

typedef struct {
    const char *name;
    const char *patterns[NAMES_PATTERNS_MAX];
    token_rules_t rules;
} names_row_t;

static const names_row_t names_rows[] = {
    {"default", {GPT2}, NONE},
    {"gpt-2", {GPT2}, NONE},
    {"phi-2", {GPT2}, NONE},
    {"jina-es", {GPT2}, NONE},
    {"jina-de", {GPT2}, NONE},
    {"gigachat", {GPT2}, NONE},
    {"a.x-4.0", {GPT2}, NONE},
    {"mellum", {GPT2}, NONE},
    {"jais", {GPT2}, NONE},
    {"exaone4", {GPT2}, NONE},
    {"trillion", {GPT2}, NONE},
    {"granite-docling", {GPT2}, NONE},
    {"mpt", {GPT2}, NFC},
    {"olmo", {GPT2}, NFC},
    {"smollm", {"\\p{N}", GPT2}, NONE},
    {"starcoder", {"\\p{N}", GPT2}, NONE},
    {"refact", {"\\p{N}", GPT2}, NONE},
    {"codeshell", {"\\p{N}", GPT2}, NONE},
    {"exaone", {"\\p{N}", GPT2}, NONE},
    {"minerva-7b", {"\\p{N}", GPT2}, NONE},
    {"mellum2", {"\\p{N}", GPT2}, NONE},
    {"command-r", {"\\p{N}", GPT2}, NFC},
    {"falcon", {PUNCTUATION, GPT2, LETTERS, "\\p{N}+", "[0-9][0-9][0-9]"},
        NONE},
    {"qwen2", {CL100K("")}, NFC},
    {"deepseek-r1-qwen", {CL100K("")}, NFC},
    {"stablelm2", {CL100K("")}, NFC},
    {"hunyuan", {CL100K("")}, {1, 0, 1}},
    {"megrez", {CL100K("")}, NONE},
    {"kormo", {CL100K("")}, NONE},
    {"grok-2", {CL100K("")}, NONE},
    {"solar-open", {CL100K("")}, NONE},
    {"qwen35", {QWEN35}, NFC},
    {"llama-bpe", {CL100K("{1,3}")}, LLAMA},
    {"llama3", {CL100K("{1,3}")}, LLAMA},
    {"llama-v3", {CL100K("{1,3}")}, LLAMA},
    {"falcon3", {CL100K("{1,3}")}, LLAMA},
    {"falcon-h1", {CL100K("{1,3}")}, LLAMA},
    {"pixtral", {CL100K("{1,3}")}, LLAMA},
    {"midm-2.0", {CL100K("{1,3}")}, LLAMA},
    {"lfm2", {CL100K("{1,3}")}, LLAMA},
    {"minicpm5", {"\\p{N}{1,3}", CL100K("+")}, WHOLE},
    {"dbrx", {CL100K("{1,3}")}, NONE},
    {"smaug-bpe", {CL100K("{1,3}")}, NONE},
    {"chatglm-bpe", {CL100K("{1,3}")}, NONE},
    {"glm4", {CL100K("{1,3}")}, NONE},
    {"jais-2", {JAIS2}, NONE},
    {"gpt-4o", {O200K("(?i:" ENDINGS ")?", "{1,3}")}, NONE},
    {"llama4", {O200K("(?i:" ENDINGS ")?", "{1,3}")}, NONE},
    {"kanana2", {O200K("(?i:" ENDINGS ")?", "{1,3}")}, NONE},
    {"minimax-m2", {O200K("(?i:" ENDINGS ")?", "{1,3}")}, NONE},
    {"tekken", {O200K("", "")}, LLAMA},
    {"kimi-k2", {KIMI}, WHOLE},
    {"youtu", {YOUTU, O200K("(?i:" ENDINGS ")?", "")}, WHOLE},
    {"bailingmoe", {BAILING}, NONE},
    {"bailingmoe2", {BAILING}, NONE},
    {"llada-moe", {BAILING}, NONE},
    {"seed-coder", {SEED}, NONE},
    {"exaone-moe", {EXAONE_MOE}, NONE},
    {"bloom", {BLOOM}, NONE},
    {"gpt3-finnish", {BLOOM}, NONE},
    {"poro-chat", {BLOOM}, NONE},
    {"viking", {BLOOM, "\\p{N}"}, NONE},
    {"deepseek-v3", {"\\p{N}{1,3}", CJK, DEEPSEEK3}, NONE},
    {"hunyuan-dense", {"\\p{N}{1,3}", CJK, DEEPSEEK3}, NONE},
    {"joyai-llm", {"\\p{N}{1,3}", CJK, DEEPSEEK3}, NONE},
    {"deepseek-llm",
        {"[\\r\\n]", WS "?[" DEEPSEEK_LETTERS "]+", WS "?" DEEPSEEK_SIGNS,
            WS "+$", DEEPSEEK_CJK, "\\p{N}+"},
        NONE},
    {"deepseek-coder",
        {"[\\r\\n]", WS "?\\p{L}+", WS "?\\p{P}+", DEEPSEEK_CJK, "\\p{N}"},
        NONE},
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


/* 0, or -1 with half a sentence. */
static int
names_step(const char *pattern, token_step_t *step, char *why, size_t whylen)
{
    memset(step, 0, sizeof(*step));

    if (strcmp(pattern, LETTERS) == 0) {
        step->kind = TOKEN_PRE_LETTERS;
        return 0;
    }

    step->kind = TOKEN_PRE_CUT;
    step->behavior = TOKEN_CUT_ISOLATED;
    step->regex = token_regex_open(
        pattern, strlen(pattern), TOKEN_REGEX_PCRE, why, whylen);

    return step->regex != NULL ? 0 : -1;
}


token_pre_t *
token_pre_open(const char *file, const gguf_str_t *name, token_rules_t *rules,
    char *err, size_t errlen)
{
    const names_row_t *row = names_row(name);
    token_step_t step;
    char why[128], bad[48];
    token_pre_t *p;
    unsigned i;

    assert(rules != NULL);

    if (row == NULL) {
        (void) snprintf(err, errlen,
            "%s: tokenizer.ggml.pre is \"%s\", a pre-tokenizer that is not "
            "known",
            file, token_load_printable(bad, sizeof(bad), name));
        return NULL;
    }

    p = token_pre_new();
    if (p == NULL) {
        (void) snprintf(err, errlen, "out of memory for the vocabulary");
        return NULL;
    }

    for (i = 0; i < NAMES_PATTERNS_MAX && row->patterns[i] != NULL; i++) {
        if (names_step(row->patterns[i], &step, why, sizeof(why)) != 0
            || token_pre_add(p, &step) != 0) {
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
