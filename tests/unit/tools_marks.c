/*
 * Would catch: a mark that is a token and not asked for as one, in the
 * vocabularies of real models; tokens that a mask allows and the parser does
 * not read as a call; a header of GPT-OSS's that the grammar refuses.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "brief.h"
#include "calls_test.h"
#include "obey.h"
#include "reason.h"
#include "vocab_file.h"

static int
bit(const uint32_t *mask, uint32_t i)
{
    return mask[i / 32] >> i % 32 & 1;
}

/* Texts written by masks with a real vocabulary, and read as its tokens. */
static void
by_tokens(const token_t *tok, const char *name, uint32_t flags, int marked)
{
    static const char *const wanted[] = {"]", "}", "\"}", "\""};
    tools_family_t *f = family(name, tok);
    const grammar_mark_t *marks;
    uint32_t marks_n = tools_marks(f, &marks), id, i, k, seen = 0, like;
    grammar_vocab_t *v = grammar_vocab_open(tok, marks, marks_n);
    uint32_t *room = calloc(grammar_mask_words(v) + 1, sizeof(*room));
    grammar_state_t st = {NULL, 0, 0, 0};
    grammar_t *g;
    const uint32_t *mask;
    const char *s;
    json_t *tools = json_loads(toolsets[0], 0, NULL);
    tools_t *t;
    size_t len;

    assert_int_equal(marks_n > 0, marked);
    g = grammar(f, toolsets[0], NULL, flags, 1);
    assert_non_null(g);
    assert_int_equal(grammar_begin(g, &st), 0);
    t = tools_open(f, toolsets[0], strlen(toolsets[0]), 1, 0);
    got.n = got.text_n = 0;
    got.kind = LLM_TEXT_ANSWER;
    for (i = 0; i < 600; i++) {
        mask = grammar_mask(g, v, &st, room);
        assert_non_null(mask);
        id = draw(token_vocab(tok));
        /* what ends strings and texts is wanted, and so are marks */
        for (k = 0; k < token_vocab(tok) && !bit(mask, id); k++) {
            id = (id + 1) % token_vocab(tok);
        }
        if (bit(mask, token_eos(tok)) && got.n > 0) {
            break;
        }
        assert_true(k < token_vocab(tok));
        for (k = 0; k < 4; k++) {
            like = token_find(tok, wanted[k], strlen(wanted[k]));
            if (like != TOKEN_NONE && bit(mask, like)) {
                id = like;
            }
        }
        for (k = 0; k < marks_n; k++) {
            if (bit(mask, marks[k].id)) {
                id = marks[k].id;
                seen++;
            }
        }
        if (token_is_end(tok, id)) {
            continue;
        }
        s = grammar_vocab_bytes(v, id, &len);
        assert_int_equal(grammar_feed(g, &st, s, len), len);
        if (tools_mark(f, id, &s, &len)) {
            assert_int_equal(tools_feed(t, 0, s, len, 1, take, NULL), 0);
        } else {
            s = token_bytes(tok, id, &len);
            assert_int_equal(tools_feed(t, 0, s, len, 0, take, NULL), 0);
        }
    }
    assert_int_equal(tools_end(t, 0, take, NULL), 0);
    assert_true(i < 600);
    assert_true(got.n > 0);
    assert_int_equal(seen > 0, marked);
    for (i = 0; i < got.n; i++) {
        obeys(tools, &got.calls[i]);
    }
    tools_close(t);
    grammar_state_free(&st);
    grammar_close(g);
    grammar_vocab_close(v);
    tools_family_close(f);
    json_decref(tools);
    free(room);
}

static void
test_tokens(void **state)
{
    const char *data = getenv("LLM_DATA");
    char path[512];
    token_t *tok;
    int seen = 0;

    (void) state;
    data = data != NULL ? data : "../shared/data";
    (void) snprintf(
        path, sizeof(path), "%s/tokenizers/mistral-v3/tokenizer.model", data);
    tok = token_open_model(path, err, sizeof(err));
    if (tok != NULL) {
        by_tokens(tok, "mistral", 0, 1);
        by_tokens(tok, "mistral", TOOLS_GRAMMAR_AUTO | TOOLS_GRAMMAR_ONE, 1);
        token_close(tok);
        seen++;
    }
    (void) snprintf(path, sizeof(path), "%s/tokenizers/qwen3", data);
    tok = brief() ? NULL : token_open_dir(path, err, sizeof(err));
    if (tok != NULL) {
        by_tokens(tok, "hermes", TOOLS_GRAMMAR_ONE, 0);
        token_close(tok);
        seen++;
    }
    if (seen == 0) {
        skip();
    }
}

#define SPACE 263

/* GPT-OSS's tokens: bytes, then these. */
static token_t *
harmony_open(file_t *f, gguf_t **g)
{
    static const char *const names[] = {"<s>", "</s>", "<|start|>",
        "<|channel|>", "<|constrain|>", "<|message|>", "<|end|>"};
    static char bytes[256][8];
    piece_t v[264];
    token_t *t;
    uint32_t i;

    for (i = 0; i < 256; i++) {
        (void) snprintf(bytes[i], sizeof(bytes[i]), "<0x%02X>", i);
        v[i] = (piece_t){bytes[i], 0, 6};
    }
    for (i = 0; i < 7; i++) {
        v[256 + i] = (piece_t){names[i], 0, 3};
    }
    v[SPACE] = (piece_t){"\xe2\x96\x81", 0, 1};
    file_vocab(f, v, 264);
    file_done(f);
    *g = gguf_open_mem(f->p, f->n, "harmony", err, sizeof(err));
    assert_non_null(*g);
    t = token_open_gguf(*g, err, sizeof(err));
    assert_non_null(t);

    return t;
}

typedef struct {
    tools_t *t;
} said_t;

static int
take_said(void *arg, uint32_t kind, const char *p, size_t n)
{
    said_t *s = arg;

    return kind == LLM_TEXT_ANSWER ? tools_feed(s->t, 0, p, n, 0, take, NULL)
                                   : 0;
}

/* Capitals are tokens, in the order of their names; what is thought is not fed
 * to the grammar.  1: all was allowed, and may end. */
static int
harmony_says(const token_t *tok, uint32_t flags, const char *said)
{
    static const char capitals[] = "SCXME";
    tools_family_t *f = family("harmony", tok);
    const grammar_mark_t *marks;
    uint32_t n = tools_marks(f, &marks), id, was, prompt[10] = {258};
    grammar_vocab_t *v = grammar_vocab_open(tok, marks, n);
    grammar_t *g = grammar(f, toolsets[0], NULL, flags, 0);
    uint32_t *room = calloc(grammar_mask_words(v) + 1, sizeof(*room));
    grammar_state_t st = {NULL, 0, 0, 0};
    reason_state_t rs;
    said_t to;
    reason_t *r;
    const char *at, *s;
    size_t len;
    int ok = 1;

    assert_int_equal(n, 5);
    assert_non_null(g);
    assert_int_equal(
        reason_open(&r, "harmony", NULL, 0, tok, err, sizeof(err)), 0);
    for (len = 0; len < 9; len++) {
        prompt[1 + len] = (uint8_t) "assistant"[len];
    }
    reason_begin(r, prompt, 10, 0, &rs);
    assert_int_equal(grammar_begin(g, &st), 0);
    to.t = tools_open(f, toolsets[0], strlen(toolsets[0]), 1, 0);
    got.n = got.text_n = 0;
    got.kind = LLM_TEXT_ANSWER;
    for (; *said != '\0' && ok; said++) {
        at = strchr(capitals, *said);
        id = at != NULL ? 258 + (uint32_t) (at - capitals) : (uint8_t) *said;
        was = (uint32_t) reason_thinks(&rs);
        if (!was) {
            ok = bit(grammar_mask(g, v, &st, room), id);
            s = grammar_vocab_bytes(v, id, &len);
            assert_int_equal(grammar_feed(g, &st, s, len) == len, ok);
        }
        s = token_bytes(tok, id, &len);
        if (reason_is_mark(r, &rs, id)) {
            assert_int_equal(reason_mark(r, &rs, id, take_said, &to), 0);
        } else {
            assert_int_equal(reason_feed(r, &rs, s, len, take_said, &to), 0);
        }
    }
    ok = ok && grammar_can_end(g, &st);
    assert_int_equal(reason_end(r, &rs, take_said, &to), 0);
    assert_int_equal(tools_end(to.t, 0, take, NULL), 0);
    tools_close(to.t);
    reason_close(r);
    grammar_state_free(&st);
    grammar_close(g);
    grammar_vocab_close(v);
    tools_family_close(f);
    free(room);

    return ok;
}

/* Headers with their tokens, and as they are handed on without. */
static void
test_harmony(void **state)
{
    static const struct {
        const char *said;
        int required, automatic;
        size_t calls, text;
    } rows[] = {
        {"Ccommentary to=functions.weather_2 XjsonM{}", 1, 1, 1, 0},
        {"Ccommentary to=functions.weather_2M{}", 1, 1, 1, 0},
        {" to=functions.weather_2Ccommentary jsonM{}", 1, 1, 1, 0},
        {"CanalysisMhm, to=functions.ESassistantCcommentary "
         "to=functions.weather XjsonM{\"s\": \"\", \"e\": \"red\"}",
            1, 1, 1, 0},
        {"CanalysisMhmEScommentary", 0, 1, 0, 0},
        {"Ccommentary to=functions.other", 0, 0, 0, 0},
        {"Ccommentary to=functions.weather_2 XjsonM{\"a\"", 0, 0, 1, 0},
        {"CfinalMhi", 0, 1, 0, 2},
        {"CcommentaryMFirst.ESassistantCcommentary to=functions.weather_2 "
         "XjsonM{}",
            0, 1, 1, 6},
    };
    gguf_t *g;
    file_t f;
    token_t *tok = harmony_open(&f, &g);
    size_t i;

    (void) state;
    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (harmony_says(tok, 0, rows[i].said) != rows[i].required) {
            fail_msg("required: %s", rows[i].said);
        }
        if (harmony_says(tok, TOOLS_GRAMMAR_AUTO, rows[i].said)
            != rows[i].automatic) {
            fail_msg("automatic: %s", rows[i].said);
        }
        if (rows[i].automatic) {
            assert_int_equal(got.n, rows[i].calls);
            assert_int_equal(got.text_n, rows[i].text);
        }
    }
    token_close(tok);
    gguf_close(g);
    free(f.p);
}

/* The engine's way through the same: what masks allow at each token.  How many
 * were, up to the first that is not, or to the end, which *over says. */
static size_t
obeyed(const token_t *tok, uint32_t flags, const char *said, int *over)
{
    static const char capitals[] = "SCXME";
    tools_family_t *f = family("harmony", tok);
    const grammar_cache_cfg_t cc = {tok, f, 1 << 24, 5000000, 5000000, NULL};
    grammar_spec_t spec = {.type = LLM_GRAMMAR_TOOLS,
        .flags = flags,
        .text = "",
        .tools = toolsets[0],
        .tools_len = strlen(toolsets[0])};
    llm_state_t *page = calloc(1, sizeof(*page));
    uint32_t prompt[10] = {258}, id;
    batch_row_t row = {0};
    batch_out_t out = {0};
    batch_t b = {.rows = &row, .outs = &out, .rows_n = 1, .outs_n = 1};
    obey_verdict_t v = OBEY_ON;
    grammar_cache_t *cache;
    obey_cfg_t oc;
    reason_t *r;
    req_t *req = calloc(1, sizeof(*req));
    const char *at;
    size_t i, n = strlen(said);
    obey_t *o;

    assert_int_equal(
        reason_open(&r, "harmony", NULL, 0, tok, err, sizeof(err)), 0);
    for (i = 0; i < 9; i++) {
        prompt[1 + i] = (uint8_t) "assistant"[i];
    }
    reason_begin(r, prompt, 10, 0, &req->reason);
    cache = grammar_cache_open(&cc);
    oc = (obey_cfg_t){cache, tok, r, token_vocab(tok), 1, 1, 0, page};
    o = obey_open(&oc);
    req->choices = 1;
    grammar_cache_get(cache, &spec, &req->grammar, err, sizeof(err));
    assert_non_null(req->grammar);
    assert_int_equal(obey_begin(o, 0, req), 0);
    for (i = 0; i < n && v != OBEY_OVER; i++) {
        memset(&out, 0, sizeof(out));
        obey_masks(o, &b);
        at = strchr(capitals, said[i]);
        id = at != NULL       ? 258 + (uint32_t) (at - capitals)
             : said[i] == ' ' ? SPACE
                              : (uint8_t) said[i];
        if (out.mask != NULL && !bit(out.mask, id)) {
            break;
        }
        v = obey_took(o, 0, 0, id);
        assert_int_not_equal(v, OBEY_BROKEN);
    }
    *over = v == OBEY_OVER;
    obey_end(o, 0);
    obey_close(o);
    grammar_close(req->grammar);
    grammar_cache_close(cache);
    reason_close(r);
    tools_family_close(f);
    free(req);
    free(page);

    return i;
}

/* Thought is free, and headers are the grammar's. */
static void
test_obey(void **state)
{
    static const struct {
        const char *said;
        uint32_t flags;
        size_t n; /* 0: all */
        int over;
    } rows[] = {
        {"Ccommentary to=functions.weather_2 XjsonM{}", 0, 0, 1},
        {"CanalysisMfree ESassistantCcommentary to=functions.weather_2 "
         "XjsonM{}",
            0, 0, 1},
        {"Ccommentary to=functions.other", 0, 25, 0},
        {"CfinalMhi", 0, 1, 0},
        {"CfinalMto=functions.", LLM_GRAMMAR_AUTO, 0, 0},
        {"Ccommentary to=functions.other", LLM_GRAMMAR_AUTO, 25, 0},
        {"CanalysisMto=functions.otherESassistantCfinalMhi", LLM_GRAMMAR_AUTO,
            0, 0},
    };
    gguf_t *g;
    file_t f;
    token_t *tok = harmony_open(&f, &g);
    size_t i, n;
    int over;

    (void) state;
    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        n = obeyed(tok, rows[i].flags, rows[i].said, &over);
        if (n != (rows[i].n == 0 ? strlen(rows[i].said) : rows[i].n)
            || over != rows[i].over) {
            fail_msg("%s: %zu, %d", rows[i].said, n, over);
        }
    }
    token_close(tok);
    gguf_close(g);
    free(f.p);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_harmony),
        cmocka_unit_test(test_obey),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
