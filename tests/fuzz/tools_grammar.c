/*
 * Catches: functions that a request declares which crash the making of their
 * grammar or take more than their share of time and memory; a text that the
 * grammar of one call admits and the family's parser does not read as one.
 *
 * The first byte names the family, the second has options; the rest is what
 * the request declares.
 */
#include "tools.h"
#include "must.h"

#include <stdlib.h>
#include <string.h>

#define STEPS 200

static const char *const families[] = {"deepseek", "kimi", "harmony",
    "qwen-coder", "glm", "mistral", "granite", "phi-4", "apriel", "nemotron",
    "hermes", "llama", "json"};

static int
take(void *arg, uint32_t kind, const char *p, size_t n)
{
    (void) p;
    must(n > 0 && kind < LLM_TEXTS);
    *(uint32_t *) arg |= 1u << kind;

    return 0;
}

/* A text as the input's bytes choose; 1: it may end. */
static int
walk(const grammar_t *g, const uint8_t *p, size_t len, char *text, size_t *n)
{
    grammar_state_t st = {NULL, 0, 0, 0};
    uint64_t set[4];
    uint32_t byte, tries;
    int ends = 0;

    must(grammar_begin(g, &st) == 0);
    for (*n = 0; *n < STEPS && !ends; ++*n) {
        grammar_next(g, &st, set);
        byte = p[*n * 7 % len];
        for (tries = 0; tries < 256 && !(set[byte / 64] >> byte % 64 & 1);
             tries++) {
            byte = (byte + 1) % 256;
        }
        must(tries < 256);
        text[*n] = (char) byte;
        must(grammar_feed(g, &st, text + *n, 1) == 1);
        ends = grammar_can_end(g, &st);
    }
    grammar_state_free(&st);

    return ends;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    static token_t *tok;
    grammar_opts_t o = {0};
    char err[300] = "", text[STEPS];
    const char *tools = (const char *) p + 2;
    uint32_t flags, kinds = 0;
    tools_family_t *f;
    grammar_t *g;
    tools_t *t;
    size_t n;

    if (len < 3) {
        return 0;
    }
    if (tok == NULL) {
        tok = token_open_null();
    }
    o.compact = p[1] >> 2 & 1;
    o.ordered = p[1] >> 3 & 1;
    flags = p[1] & TOOLS_GRAMMAR_FLAGS;
    must(tools_family_open(&f,
             families[p[0] % (sizeof(families) / sizeof(families[0]))], NULL, 0,
             tok, err, sizeof(err))
         == 0);
    g = tools_grammar(f, tools, len - 2, NULL, 0, flags, &o, err, sizeof(err));
    must(g != NULL || err[0] != '\0');
    if (g != NULL && walk(g, p, len, text, &n)
        && !(flags & TOOLS_GRAMMAR_AUTO)) {
        t = tools_open(f, tools, len - 2, 1, 1);
        must(tools_feed(t, 0, text, n, 0, take, &kinds) == 0);
        must(tools_end(t, 0, take, &kinds) == 0);
        must(tools_called(t, 0));
        must(kinds == (1u << LLM_TEXT_CALL | 1u << LLM_TEXT_ARGUMENTS));
        tools_close(t);
    }
    grammar_close(g);
    tools_family_close(f);

    return 0;
}
