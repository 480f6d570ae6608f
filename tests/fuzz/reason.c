/*
 * Catches: a text of a model's that crashes the search for marks of thought,
 * makes it hold back without end, or comes out otherwise for being cut up.
 *
 * The first byte names the family, the second seeds the cuts; then a prompt,
 * a 0 byte and what the model says.
 */
#include "reason.h"
#include "must.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MAX 4096

typedef struct {
    char text[TEXT_MAX + 64];
    char kinds[TEXT_MAX + 64];
    size_t n;
} out_t;

static int
take(void *arg, uint32_t kind, const char *p, size_t n)
{
    out_t *o = arg;

    must(kind < LLM_TEXTS && n > 0 && n <= sizeof(o->text) - o->n);
    memcpy(o->text + o->n, p, n);
    memset(o->kinds + o->n, (int) kind, n);
    o->n += n;

    return 0;
}

/* Feeds n bytes in pieces of at most most. */
static void
feed(const reason_t *r, reason_state_t st, const uint8_t *p, size_t n,
    unsigned seed, size_t most, out_t *o)
{
    size_t len;
    uint32_t was;

    o->n = 0;
    for (; n > 0; p += len, n -= len) {
        seed = seed * 1103515245 + 12345;
        len = most == 0 ? n : 1 + (seed >> 16) % most;
        len = len < n ? len : n;
        was = reason_counts(&st);
        must(reason_feed(r, &st, (const char *) p, len, take, o) == 0);
        must(reason_held(r, &st) <= REASON_HELD_MAX);
        (void) reason_count(&st, was);
    }
    must(reason_end(r, &st, take, o) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    static const char *const names[] = {
        "think", "granite", "granite-3.2", "kimi", "apriel"};
    static reason_t *all[5];
    static token_t *t;
    static out_t whole, cut;
    static uint32_t ids[TEXT_MAX];
    reason_state_t st;
    const reason_t *r;
    char err[256];
    size_t i, n;
    int go_on;

    for (i = 0; t == NULL || i < 5; i++) {
        if (t == NULL) {
            t = token_open_null();
        }
        if (all[i] == NULL) {
            must(reason_open(&all[i], names[i], NULL, 0, t, err, sizeof(err))
                 == 0);
        }
    }
    if (len < 2 || len > TEXT_MAX) {
        return 0;
    }

    r = all[p[0] % 5];
    go_on = p[0] >> 7;
    for (n = 0, i = 2; i < len && p[i] != 0; i++) {
        ids[n++] = p[i] == 1 ? token_eos(t) : p[i];
    }
    i += i < len;
    reason_begin(r, ids, n, go_on, &st);
    feed(r, st, p + i, len - i, 0, 0, &whole);
    feed(r, st, p + i, len - i, p[1], 1 + p[1] % 9, &cut);

    must(whole.n == cut.n && whole.n <= len - i);
    must(memcmp(whole.text, cut.text, cut.n) == 0);
    must(memcmp(whole.kinds, cut.kinds, cut.n) == 0);

    return 0;
}
