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

#define SCHED_MORE 16 /* tokens at once */

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
    uint32_t jump;
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
begin_spec(fix_t *f, const reason_t *reason, uint32_t vocab, grammar_spec_t s,
    uint32_t choices)
{
    const grammar_cache_cfg_t cc = {
        f->tok, NULL, 1 << 24, 1000000, 1000000, NULL};
    obey_cfg_t oc;
    char err[GRAMMAR_CACHE_ERR];

    f->cache = grammar_cache_open(&cc);
    assert_non_null(f->cache);
    oc = (obey_cfg_t){
        f->cache, f->tok, reason, vocab, REQS, OUTS, f->jump, f->page};
    f->o = obey_open(&oc);
    assert_non_null(f->o);

    memset(&f->r, 0, sizeof(f->r));
    f->r.choices = choices;
    grammar_cache_get(f->cache, &s, &f->r.grammar, err, sizeof(err));
    assert_non_null(f->r.grammar);
}

static void
begin(fix_t *f, const reason_t *reason, uint32_t vocab, const char *regex,
    uint32_t choices)
{
    begin_spec(f, reason, vocab,
        (grammar_spec_t){
            LLM_GRAMMAR_REGEX, 0, 0, regex, strlen(regex), NULL, 0},
        choices);
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

/* White space ends some time, where anything else may come. */
static void
test_blank(void **state)
{
    fix_t *f = *state;

    begin(f, NULL, f->vocab, "a[ \n]*b? {50}c", 1);
    assert_int_equal(obey_begin(f->o, 0, &f->r), 0);
    assert_int_equal(say(f, 0, 0, "a \n "), OBEY_ON);
    step(f, 0, 1);
    assert_string_equal(allowed(f, 0), "\n b");
    assert_int_equal(say(f, 0, 0, "\n"), OBEY_ON);
    step(f, 0, 1);
    assert_string_equal(allowed(f, 0), "b");
    assert_int_equal(say(f, 0, 0, "b          "), OBEY_ON);
    assert_int_equal(say(f, 0, 0, "                              "), OBEY_ON);
    step(f, 0, 1);
    assert_string_equal(allowed(f, 0), " ");
    assert_int_equal(say(f, 0, 0, "          c"), OBEY_OVER);
    end(f);
}

/* What is certain comes without being sampled, but the last token. */
static void
test_jump(void **state)
{
    fix_t *f = *state;
    uint32_t ids[SCHED_MORE] = {0};

    f->jump = 1;
    begin(f, NULL, f->vocab, "x=hello;[01]end", 1);
    assert_int_equal(obey_begin(f->o, 0, &f->r), 0);
    assert_int_equal(say(f, 0, 0, "x"), OBEY_JUMP);
    assert_int_equal(obey_jump(f->o, 0, 0, ids, 0), 0);
    assert_int_equal(obey_jump(f->o, 0, 0, ids, 3), 3);
    assert_true(ids[0] == '=' && ids[1] == 'h' && ids[2] == 'e');
    step(f, 0, 1);
    assert_string_equal(allowed(f, 0), "l");
    assert_int_equal(obey_jump(f->o, 0, 0, ids, SCHED_MORE), 4);
    assert_true(ids[0] == 'l' && ids[3] == ';');
    step(f, 0, 1);
    assert_string_equal(allowed(f, 0), "01");
    assert_int_equal(obey_jump(f->o, 0, 0, ids, SCHED_MORE), 0);
    assert_int_equal(say(f, 0, 0, "1"), OBEY_JUMP);
    assert_int_equal(obey_jump(f->o, 0, 0, ids, SCHED_MORE), 2);
    assert_int_equal(say(f, 0, 0, "d"), OBEY_OVER);
    assert_int_equal(f->page->jump_tokens, 9);
    obey_end(f->o, 0);

    /* who wants logprobs wants them of each token */
    f->r.params.logprobs = 1;
    assert_int_equal(obey_begin(f->o, 0, &f->r), 0);
    assert_int_equal(say(f, 0, 0, "x"), OBEY_ON);
    end(f);
}

/*
 * A model that says text as the tokenizer cuts it: what jumps is what it would
 * have said.  How many tokens of how many did.
 */
static uint32_t
say_cut(fix_t *f, const char *text, uint32_t *all)
{
    uint32_t ids[512], more[SCHED_MORE], i, k, n, jumped = 0;
    int64_t got =
        token_encode(f->tok, text, strlen(text), 0, ids, 512, NULL, NULL);
    obey_verdict_t v = OBEY_ON;
    const char *s;
    size_t len;

    assert_true(got > 0);
    if (token_strips_space(f->tok)) { /* behind a prompt there is none */
        s = token_bytes(f->tok, ids[0], &len);
        assert_true(len > 1 && s[0] == ' ');
        ids[0] = token_find(f->tok, s + 1, len - 1);
    }
    assert_int_equal(obey_begin(f->o, 0, &f->r), 0);
    for (i = 0; i < got; i++) {
        step(f, 0, 1);
        if (!(f->outs[0].mask[ids[i] / 32] >> ids[i] % 32 & 1)) {
            fail_msg("token %u of %s is not allowed", i, text);
        }
        v = obey_took(f->o, 0, 0, ids[i]);
        assert_int_not_equal(v, OBEY_BROKEN);
        n = v == OBEY_JUMP ? obey_jump(f->o, 0, 0, more, SCHED_MORE) : 0;
        for (k = 0; k < n; k++) {
            assert_true(i + 1 < got);
            assert_int_equal(more[k], ids[++i]);
        }
        jumped += n;
    }
    obey_end(f->o, 0);
    *all = (uint32_t) got;

    return jumped;
}

static void
test_cut(void **state)
{
    static const char schema[] =
        "{\"type\":\"object\",\"additionalProperties\":false,\"required\":["
        "\"first_name\",\"age\",\"preferred contact\",\"tags\"],"
        "\"properties\":{\"first_name\":{\"type\":\"string\"},\"age\":{"
        "\"type\":\"integer\"},\"preferred contact\":{\"enum\":[\"e-mail\","
        "\"telephone\"]},\"tags\":{\"type\":\"array\",\"items\":{"
        "\"type\":\"boolean\"}}}}";
    static const char *const texts[] = {
        "{\"first_name\":\"Ada\",\"age\":36,\"preferred contact\":"
        "\"telephone\",\"tags\":[true,false]}",
        "{\"first_name\":\" \\n\",\"age\":-1,\"preferred contact\":"
        "\"e-mail\",\"tags\":[]}"};
    static const char *const names[] = {
        "qwen3", "phi-2", "llama-2", "mistral-v3"};
    const char *data = getenv("LLM_DATA");
    fix_t *f = *state;
    token_t *own = f->tok;
    char path[512], err[256];
    uint32_t i, k, all, jumped, tried = 0;

    f->jump = 1;
    for (i = 0; data != NULL && i < sizeof(names) / sizeof(names[0]); i++) {
        (void) snprintf(path, sizeof(path), "%s/tokenizers/%s", data, names[i]);
        f->tok = token_open_dir(path, err, sizeof(err));
        if (f->tok == NULL) {
            continue;
        }
        tried++;
        begin_spec(f, NULL, token_vocab(f->tok),
            (grammar_spec_t){LLM_GRAMMAR_SCHEMA,
                LLM_GRAMMAR_COMPACT | LLM_GRAMMAR_ORDERED, 0, schema,
                sizeof(schema) - 1, NULL, 0},
            1);
        for (k = 0; k < sizeof(texts) / sizeof(texts[0]); k++) {
            jumped = say_cut(f, texts[k], &all);
            assert_true(jumped * 4 > all);
        }
        end(f);
        token_close(f->tok);
    }
    f->tok = own;
    if (tried == 0) {
        skip();
    }
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
        T(test_blank),
        T(test_jump),
        T(test_cut),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
