/*
 * Would catch: a mask that is not the grammar's where the choice is, or of
 * another choice; thought that is held to the grammar, or an answer that is
 * not; a token beside the grammar that goes unnoticed; a text that is whole
 * and goes on; masks too short for the device; what is left of a request.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "obey.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQS 4
#define OUTS 4

typedef struct {
    token_t *tok;
    reason_t *reason;
    grammar_cache_t *cache;
    obey_t *o;
    req_t r;
    batch_t b;
    batch_row_t rows[OUTS];
    batch_out_t outs[OUTS];
    llm_state_t *page;
    uint32_t vocab;
} fix_t;

static int
setup(void **state)
{
    fix_t *f = calloc(1, sizeof(*f));
    char err[256];

    assert_non_null(f);
    f->page = calloc(1, sizeof(*f->page));
    f->tok = token_open_null();
    assert_true(f->page != NULL && f->tok != NULL);
    assert_int_equal(
        reason_open(&f->reason, "think", NULL, 0, f->tok, err, sizeof(err)), 0);
    f->vocab = token_vocab(f->tok);
    f->b.rows = f->rows;
    f->b.outs = f->outs;
    f->b.rows_max = f->b.outs_max = OUTS;
    *state = f;

    return 0;
}

static void
begin(fix_t *f, const reason_t *reason, uint32_t vocab, const char *regex,
    uint32_t choices)
{
    const grammar_cache_cfg_t cc = {
        f->tok, NULL, 1 << 24, 1000000, 1000000, NULL};
    const grammar_spec_t s = {
        LLM_GRAMMAR_REGEX, 0, 0, regex, strlen(regex), NULL, 0};
    obey_cfg_t oc;
    char err[GRAMMAR_CACHE_ERR];

    f->cache = grammar_cache_open(&cc);
    assert_non_null(f->cache);
    oc = (obey_cfg_t){f->cache, f->tok, reason, vocab, REQS, OUTS, 1, f->page};
    f->o = obey_open(&oc);
    assert_non_null(f->o);

    memset(&f->r, 0, sizeof(f->r));
    f->r.choices = choices;
    grammar_cache_get(f->cache, &s, &f->r.grammar, err, sizeof(err));
    assert_non_null(f->r.grammar);
}

static void
end(fix_t *f)
{
    obey_close(f->o);
    grammar_close(f->r.grammar);
    grammar_cache_close(f->cache);
}

static int
teardown(void **state)
{
    fix_t *f = *state;

    reason_close(f->reason);
    token_close(f->tok);
    free(f->page);
    free(f);

    return 0;
}

/* A step with an output of each of n choices of request i. */
static void
step(fix_t *f, uint32_t i, uint32_t n)
{
    uint32_t k;

    memset(f->outs, 0, sizeof(f->outs));
    f->b.rows_n = f->b.outs_n = n;
    for (k = 0; k < n; k++) {
        f->rows[k].seq = i * LLM_CHOICES_MAX + k;
        f->outs[k].row = k;
        f->outs[k].choice = k;
    }
    obey_masks(f->o, &f->b);
}

/* The bytes that output k may be, as text; "*": any. */
static const char *
allowed(const fix_t *f, uint32_t k)
{
    static char s[300];
    const uint32_t *m = f->outs[k].mask;
    uint32_t i, n = 0;

    if (m == NULL) {
        return "*";
    }
    for (i = 0; i < 256; i++) {
        if (m[i / 32] >> i % 32 & 1) {
            s[n++] = (char) i;
        }
    }
    s[n] = '\0';

    return s;
}

static obey_verdict_t
say(fix_t *f, uint32_t i, uint32_t choice, const char *text)
{
    obey_verdict_t v = OBEY_ON;

    for (; *text != '\0' && v == OBEY_ON; text++) {
        v = obey_took(f->o, i, choice, (uint8_t) *text);
    }
    assert_int_equal(*text, '\0');

    return v;
}

static void
test_choices(void **state)
{
    fix_t *f = *state;

    begin(f, NULL, f->vocab, "a[bc]d", 2);
    assert_int_equal(obey_begin(f->o, 3, &f->r), 0);

    step(f, 3, 2);
    assert_string_equal(allowed(f, 0), "a");
    assert_string_equal(allowed(f, 1), "a");
    assert_int_equal(say(f, 3, 1, "a"), OBEY_ON);
    step(f, 3, 2);
    assert_string_equal(allowed(f, 0), "a");
    assert_string_equal(allowed(f, 1), "bc");
    assert_int_equal(say(f, 3, 1, "cd"), OBEY_OVER);
    assert_int_equal(say(f, 3, 0, "ax"), OBEY_BROKEN);
    assert_true(f->page->masks == 4);

    /* who has none is free, and so is what the prompt is scored at */
    step(f, 2, 1);
    assert_string_equal(allowed(f, 0), "*");
    assert_int_equal(say(f, 2, 0, "xyz"), OBEY_ON);
    f->rows[0].seq = 3 * LLM_CHOICES_MAX;
    f->outs[0].wanted = 5;
    obey_masks(f->o, &f->b);
    assert_null(f->outs[0].mask);

    /* the place is the next one's, from the beginning */
    obey_end(f->o, 3);
    obey_end(f->o, 3);
    assert_int_equal(obey_begin(f->o, 3, &f->r), 0);
    step(f, 3, 2);
    assert_string_equal(allowed(f, 1), "a");
    end(f);
}

static void
test_end(void **state)
{
    fix_t *f = *state;
    uint32_t eos = token_eos(f->tok);

    begin(f, NULL, f->vocab, "ab*", 1);
    assert_int_equal(obey_begin(f->o, 0, &f->r), 0);
    step(f, 0, 1);
    assert_false(f->outs[0].mask[eos / 32] >> eos % 32 & 1);
    assert_int_equal(say(f, 0, 0, "ab"), OBEY_ON);
    step(f, 0, 1);
    assert_true(f->outs[0].mask[eos / 32] >> eos % 32 & 1);
    assert_string_equal(allowed(f, 0), "b");
    end(f);
}

/* A model may have more logits than its tokenizer has tokens. */
static void
test_wide(void **state)
{
    fix_t *f = *state;
    uint32_t vocab = f->vocab + 1000, i;

    begin(f, NULL, vocab, "a", 1);
    assert_int_equal(obey_begin(f->o, 0, &f->r), 0);
    step(f, 0, 1);
    assert_string_equal(allowed(f, 0), "a");
    for (i = f->vocab; i < vocab; i++) {
        assert_false(f->outs[0].mask[i / 32] >> i % 32 & 1);
    }
    end(f);
}

static void
test_thought(void **state)
{
    fix_t *f = *state;
    uint32_t open = token_find(f->tok, "<think>", 7);

    begin(f, f->reason, f->vocab, "ab", 1);

    /* the prompt has opened it */
    reason_begin(f->reason, NULL, 0, 0, &f->r.reason);
    assert_true(reason_may_think(&f->r.reason));
    (void) reason_feed(f->reason, &f->r.reason, "<think>", 7, NULL, NULL);
    assert_true(reason_thinks(&f->r.reason));
    assert_int_equal(obey_begin(f->o, 0, &f->r), 0);
    step(f, 0, 1);
    assert_string_equal(allowed(f, 0), "*");
    assert_int_equal(say(f, 0, 0, "xyz</think"), OBEY_ON);
    step(f, 0, 1);
    assert_string_equal(allowed(f, 0), "*");
    assert_int_equal(say(f, 0, 0, ">"), OBEY_ON);
    step(f, 0, 1);
    assert_string_equal(allowed(f, 0), "a");
    assert_int_equal(say(f, 0, 0, "ab"), OBEY_OVER);
    obey_end(f->o, 0);

    /* it may be opened, if that is one token; then it may not any more */
    reason_begin(f->reason, NULL, 0, 0, &f->r.reason);
    assert_int_equal(obey_begin(f->o, 0, &f->r), 0);
    step(f, 0, 1);
    assert_string_equal(allowed(f, 0), "a");
    if (open != TOKEN_NONE) {
        assert_true(f->outs[0].mask[open / 32] >> open % 32 & 1);
    }
    assert_int_equal(say(f, 0, 0, "a"), OBEY_ON);
    step(f, 0, 1);
    assert_string_equal(allowed(f, 0), "b");
    assert_int_equal(say(f, 0, 0, "b"), OBEY_OVER);
    end(f);
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_choices),
        T(test_end),
        T(test_wide),
        T(test_thought),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
