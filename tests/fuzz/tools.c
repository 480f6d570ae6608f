/*
 * Catches: a text of a model's, or a declaration of a client's, that crashes
 * the search for calls, or comes out otherwise for being cut up; a call
 * without a name, or a name that no client could take.
 *
 * The first byte names the family, the second seeds the cuts; then what the
 * request declares, a 0 byte, and what the model says.
 */
#include "tools.h"
#include "must.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MAX 16384
#define FAMILIES 13

typedef struct {
    char text[TEXT_MAX * 8];
    char kinds[TEXT_MAX * 8];
    size_t n;
    uint32_t kind, name;
} out_t;

static int
take(void *arg, uint32_t kind, const char *p, size_t n)
{
    out_t *o = arg;

    must(kind < LLM_TEXTS && kind != LLM_TEXT_REASONING);
    must(n > 0 && n <= sizeof(o->text) - o->n);
    /* a name, then arguments */
    must(kind != LLM_TEXT_ARGUMENTS || o->kind == LLM_TEXT_CALL
         || o->kind == LLM_TEXT_ARGUMENTS);
    must(o->kind != LLM_TEXT_CALL || kind != LLM_TEXT_ANSWER);
    o->name = kind != LLM_TEXT_CALL      ? 0
              : o->kind == LLM_TEXT_CALL ? o->name + (uint32_t) n
                                         : (uint32_t) n;
    must(o->name <= TOOLS_NAME_MAX);
    memcpy(o->text + o->n, p, n);
    memset(o->kinds + o->n, (int) kind, n);
    o->n += n;
    o->kind = kind;

    return 0;
}

/* Feeds n bytes in pieces of at most most; 0: all at once. */
static void
feed(const tools_family_t *f, const uint8_t *json, size_t json_n,
    const uint8_t *p, size_t n, unsigned seed, size_t most, out_t *o)
{
    tools_t *t = tools_open(f, (const char *) json, json_n, 1, seed & 1);
    size_t len;

    must(t != NULL);
    o->n = 0;
    o->kind = LLM_TEXT_ANSWER;
    for (; n > 0; p += len, n -= len) {
        seed = seed * 1103515245 + 12345;
        len = most == 0 ? n : 1 + (seed >> 16) % most;
        len = len < n ? len : n;
        must(tools_feed(t, 0, (const char *) p, len, 0, take, o) == 0);
    }
    must(tools_end(t, 0, take, o) == 0);
    must(tools_called(t, 0) || !tools_over(t, 0));
    must(o->kind != LLM_TEXT_CALL);
    tools_close(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    static const char *const names[FAMILIES] = {"deepseek", "kimi", "harmony",
        "qwen-coder", "glm", "mistral", "granite", "phi-4", "apriel",
        "nemotron", "hermes", "llama", "json"};
    static tools_family_t *all[FAMILIES];
    static token_t *t;
    static out_t whole, cut;
    const uint8_t *json, *end = p + len;
    const tools_family_t *f;
    char err[512];
    size_t i;

    if (t == NULL) {
        t = token_open_null();
        for (i = 0; i < FAMILIES; i++) {
            must(tools_family_open(
                     &all[i], names[i], NULL, 0, t, err, sizeof(err))
                 == 0);
        }
    }
    if (len < 2 || len > TEXT_MAX) {
        return 0;
    }

    f = all[p[0] % FAMILIES];
    json = p + 2;
    for (i = 2; i < len && p[i] != 0; i++) {
    }
    i += i < len;
    feed(f, json, i - 2, p + i, (size_t) (end - p) - i, p[1] & 1, 0, &whole);
    feed(f, json, i - 2, p + i, (size_t) (end - p) - i, p[1], 1 + p[1] % 9,
        &cut);

    must(whole.n == cut.n);
    must(memcmp(whole.text, cut.text, cut.n) == 0);
    must(memcmp(whole.kinds, cut.kinds, cut.n) == 0);

    return 0;
}
