/*
 * Would catch: for some way of cutting a text into tokens, turns and records,
 * a client that reads anything but the text up to the first stop string, or
 * logprob entries that are not one per token of it, in order.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "text_choice.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MAX 8192

typedef struct {
    uint8_t text[(TEXT_MAX + 16) * 3];
    uint8_t kinds[(TEXT_MAX + 16) * 3]; /* of each byte */
    size_t text_n;
    uint32_t thought;
    uint32_t tokens, entries, finish, records;
    uint32_t ids[TEXT_MAX + 16];
} client_t;

static text_shared_t sh;
static reason_t *marks;
static client_t client;

/* Takes all records that are ready, as a worker would read them. */
static uint64_t
take(text_choice_t *c)
{
    uint8_t rec[LLM_TOKENS_MAX + 8];
    const uint8_t *text = NULL, *lp = NULL, *bytes;
    llm_wire_tokens_t head;
    llm_wire_lp_t e;
    text_cut_t cut;
    uint64_t payload = 0;
    uint32_t left, at;
    int len;

    while (text_choice_plan(&sh, c, &cut)) {
        memset(rec, 0xee, sizeof(rec));
        text_choice_take(&sh, c, &cut, &head, rec + LLM_TOKENS_HEAD);
        memcpy(rec, &head, LLM_TOKENS_HEAD);
        assert_int_equal(head.hdr.len, text_choice_len(&cut));
        assert_true(head.hdr.len <= LLM_TOKENS_MAX);
        assert_int_equal(rec[head.hdr.len], 0xee);
        assert_true(llm_tokens_ok(rec, head.hdr.len, &head, &text, &lp));
        assert_int_equal(client.finish, 0); /* nothing after the end */

        for (at = 0; at < head.text_len; at += (uint32_t) len) {
            len = utf8_char(text + at, head.text_len - at);
            assert_true(len > 0);
        }
        memcpy(client.text + client.text_n, text, head.text_len);
        memset(client.kinds + client.text_n, (int) head.kind, head.text_len);
        client.thought += head.reasoning;
        client.text_n += head.text_len;
        for (left = head.lp_len; llm_lp_next(&lp, &left, &e, &bytes) == 1;) {
            if (e.logprob < 0) {
                client.ids[client.entries++] = e.token;
            }
        }
        assert_int_equal(left, 0);
        client.tokens += head.tokens;
        client.finish = head.finish;
        client.records++;
        payload += head.text_len + head.lp_len;
    }

    return payload;
}

/* Where the first stop string to end in s begins; n if none does. */
static size_t
naive_cut(const stop_t *stops, const uint8_t *s, size_t n, size_t *end)
{
    size_t at;
    uint32_t i, best;

    for (at = 1; at <= n; at++) {
        for (i = 0, best = 0; i < stops->n; i++) {
            if (stops->len[i] <= at && stops->len[i] > best
                && memcmp(s + at - stops->len[i], stops->s[i], stops->len[i])
                       == 0) {
                best = stops->len[i];
            }
        }
        if (best > 0) {
            *end = at;
            return at - best;
        }
    }
    *end = n;

    return n;
}

/* Bytes that make characters, halves of them, and overlaps of stop strings. */
static uint8_t
some_byte(void)
{
    static const uint8_t some[] = {
        'a', 'b', 'a', 'b', 0xe4, 0xb8, 0x96, 0xf0, 0x9f, 0xff};

    return some[(size_t) rand() % sizeof(some)];
}

/* What a text comes to: characters, told apart as one piece would be. */
typedef struct {
    uint8_t text[(TEXT_MAX + 16) * 3], kinds[(TEXT_MAX + 16) * 3];
    size_t n;
    utf8_t utf8;
    uint32_t kind;
} want_t;

static int
want_put(void *arg, uint32_t kind, const char *p, size_t n)
{
    want_t *w = arg;
    size_t was = w->n;

    if (kind != w->kind) {
        w->n += utf8_end(&w->utf8, (char *) w->text + w->n);
        memset(w->kinds + was, (int) w->kind, w->n - was);
        w->kind = kind;
        was = w->n;
    }
    w->n += utf8_feed(&w->utf8, p, n, (char *) w->text + w->n);
    memset(w->kinds + was, (int) kind, w->n - was);

    return 0;
}

static void
want_all(want_t *w, const uint8_t *s, size_t n, int apart)
{
    reason_state_t st;

    memset(w, 0, sizeof(*w));
    if (apart) {
        reason_begin(sh.reason, NULL, 0, 0, &st);
        (void) reason_feed(sh.reason, &st, (const char *) s, n, want_put, w);
        (void) reason_end(sh.reason, &st, want_put, w);
    } else {
        (void) want_put(w, LLM_TEXT_ANSWER, (const char *) s, n);
    }
    (void) want_put(w, LLM_TEXTS, NULL, 0); /* an unfinished character */
}

/* About n bytes, among them marks; returns how many. */
static size_t
some_text(uint8_t *s, size_t n, uint32_t marked)
{
    static const char *const pieces[] = {
        "<think>", "\n", "</think>", "<response>", "</response>", "</"};
    size_t i, k;

    for (i = 0; i < n; i++) {
        s[i] = some_byte();
        if (marked && (i == 0 || rand() % 8 == 0)) {
            k = (size_t) rand() % (i == 0 ? 2 : 6);
            memcpy(s + i, pieces[k], strlen(pieces[k]));
            i += strlen(pieces[k]) - 1;
            n = n > i ? n : i + 1;
        }
    }

    return n;
}

static void
one_run(uint32_t logprobs, uint32_t apart)
{
    static want_t want;
    uint8_t s[TEXT_MAX + 16];
    char words[3][4];
    size_t n, i, cut, end;
    sample_out_t out;
    text_choice_t c;
    stop_t stops;
    uint64_t sent = 0, got = 0;
    int rc = 0;

    memset(&client, 0, sizeof(client));
    memset(&stops, 0, sizeof(stops));
    memset(&c, 0, sizeof(c));
    memset(&out, 0, sizeof(out));
    c.logprobs = logprobs;
    c.apart = apart;
    if (apart) {
        reason_begin(sh.reason, NULL, 0, 0, &c.reason);
    }

    n = (size_t) rand() % (rand() % 8 == 0 ? TEXT_MAX : 40);
    n = some_text(s, n, apart);
    for (i = 0; i < (size_t) rand() % 4; i++) {
        for (end = 0; end < 3 + (size_t) rand() % 2; end++) {
            words[i][end] = (char) some_byte();
        }
        assert_int_equal(stop_add(&stops, words[i], end), 0);
    }
    cut = naive_cut(&stops, s, n, &end);

    /* one token per byte, of the null back end's vocabulary */
    for (i = 0; i < n && rc == 0; i++) {
        out.token = s[i];
        out.logprob = -1;
        out.tops_n = rand() % 50 == 0 ? SAMPLE_TOPS_MAX : 0;
        rc = text_choice_token(&sh, &c, &stops, &out, 0, &sent);
        assert_true(rc >= 0);
        if (rand() % 4 == 0) {
            got += take(&c);
        }
    }
    assert_int_equal(rc, end < n || cut < n);
    assert_int_equal(i, end);
    if (rc == 0) {
        assert_int_equal(
            text_choice_token(&sh, &c, &stops, NULL, LLM_FINISH_LENGTH, &sent),
            0);
    }
    got += take(&c);

    want_all(&want, s, cut, apart);
    assert_int_equal(client.text_n, want.n);
    assert_memory_equal(client.text, want.text, want.n);
    assert_memory_equal(client.kinds, want.kinds, want.n);
    assert_true(client.thought <= client.tokens);
    assert_int_equal(client.thought > 0,
        apart && cut >= 7
            && memcmp(s + strspn((char *) s, "\n"), "<think>", 7) == 0);
    assert_int_equal(client.finish, rc ? LLM_FINISH_STOP : LLM_FINISH_LENGTH);
    assert_int_equal(client.tokens, end);
    assert_int_equal(got, sent);
    assert_int_equal(client.entries, logprobs ? cut : 0);
    for (i = 0; i < client.entries; i++) {
        assert_int_equal(client.ids[i], s[i]);
    }

    text_choice_clear(&sh, &c);
    assert_int_equal(sh.pool.used, 0);
}

static void
test_property(void **state)
{
    int i;

    (void) state;
    srand(3);
    for (i = 0; i < 3000; i++) {
        one_run(0, 0);
        one_run(1, 0);
        one_run(0, 1);
        one_run(1, 1);
    }
}

/* A record that cannot be posted yet grows; what was planned is taken. */
static void
test_plan(void **state)
{
    sample_out_t out;
    text_choice_t c;
    text_cut_t cut;
    stop_t stops;
    uint64_t sent = 0;
    int i;

    (void) state;
    memset(&client, 0, sizeof(client));
    memset(&stops, 0, sizeof(stops));
    memset(&c, 0, sizeof(c));
    memset(&out, 0, sizeof(out));
    out.token = 'x';
    assert_int_equal(text_choice_plan(&sh, &c, &cut), 0);
    for (i = 1; i <= 20000; i++) {
        (void) text_choice_token(&sh, &c, &stops, &out, 0, &sent);
        assert_int_equal(text_choice_plan(&sh, &c, &cut), 1);
        assert_true(text_choice_len(&cut) <= LLM_TOKENS_MAX);
        assert_true(cut.text == (uint32_t) i || cut.text > 8000);
    }
    take(&c);
    assert_int_equal(client.records, 3);
    assert_int_equal(client.text_n, 20000);
    text_choice_clear(&sh, &c);
}

static const char tools[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]";

/* The client's text as one string, calls as [name|arguments]. */
static const char *
with_calls(void)
{
    static char s[3 * TEXT_MAX];
    uint8_t was = LLM_TEXT_ANSWER;
    size_t i, n = 0;

    for (i = 0; i < client.text_n; i++) {
        if (client.kinds[i] != was) {
            s[n++] = client.kinds[i] == LLM_TEXT_CALL        ? '['
                     : client.kinds[i] == LLM_TEXT_ARGUMENTS ? '|'
                                                             : ']';
        }
        was = client.kinds[i];
        s[n++] = (char) client.text[i];
    }
    s[n] = '\0';

    return s;
}

/* A token each, taken now and then; the end is the model's own. */
static const char *
say_ids(const uint32_t *ids, size_t n, const stop_t *stops, int one,
    const tools_family_t *f, uint32_t logprobs)
{
    sample_out_t out;
    text_choice_t c;
    uint64_t sent = 0, got = 0;
    size_t i;
    int rc = 0;

    memset(&client, 0, sizeof(client));
    memset(&c, 0, sizeof(c));
    memset(&out, 0, sizeof(out));
    out.logprob = -1;
    c.logprobs = logprobs;
    c.tools = tools_open(f, tools, sizeof(tools) - 1, 1, one);
    for (i = 0; i < n && rc == 0; i++) {
        out.token = ids[i];
        rc = text_choice_token(&sh, &c, stops, &out, 0, &sent);
        assert_true(rc >= 0);
        if (rand() % 3 == 0) {
            got += take(&c);
        }
    }
    if (rc == 0) {
        assert_int_equal(
            text_choice_token(&sh, &c, stops, NULL, LLM_FINISH_STOP, &sent), 0);
    }
    got += take(&c);
    assert_int_equal(got, sent);
    assert_int_equal(client.tokens, i);
    /* those of a stop string are none */
    i -= rc == 1 && !one ? stops->len[0] : 0;
    assert_int_equal(client.entries, logprobs ? i : 0);
    tools_close(c.tools);
    text_choice_clear(&sh, &c);
    assert_int_equal(sh.pool.used, 0);

    return with_calls();
}

/* Calls are apart, an entry for each token or none; one ends the text. */
static void
test_calls(void **state)
{
    static const char said[] =
        "\xc3\xa9\n<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":"
        "\"\xc3\xa9\"}}"
        "</tool_call>\n<tool_call>{\"name\":\"g\",\"arguments\":{}}";
    uint32_t ids[sizeof(said)];
    tools_family_t *f;
    stop_t stops;
    char why[256];
    size_t i;
    int k;

    (void) state;
    memset(&stops, 0, sizeof(stops));
    assert_int_equal(
        tools_family_open(&f, "hermes", NULL, 0, sh.tok, why, sizeof(why)), 0);
    for (i = 0; i + 1 < sizeof(said); i++) {
        ids[i] = (uint8_t) said[i];
    }
    for (k = 0; k < 50; k++) {
        assert_string_equal(say_ids(ids, i, &stops, 0, f, (uint32_t) k % 2),
            "\xc3\xa9[f|{\"a\":\"\xc3\xa9\"}[g|{}");
        assert_int_equal(client.finish, LLM_FINISH_CALLS);
        assert_string_equal(say_ids(ids, i, &stops, 1, f, (uint32_t) k % 2),
            "\xc3\xa9[f|{\"a\":\"\xc3\xa9\"}");
        assert_int_equal(client.finish, LLM_FINISH_CALLS);
    }
    /* a stop string within the arguments leaves them open */
    assert_int_equal(stop_add(&stops, "\"}}", 3), 0);
    assert_string_equal(
        say_ids(ids, i, &stops, 0, f, 1), "\xc3\xa9[f|{\"a\":\"\xc3\xa9");
    assert_int_equal(client.finish, LLM_FINISH_STOP);
    tools_family_close(f);
}

/* A mark that is a token without text, as Mistral's vocabulary has it. */
static void
test_call_tokens(void **state)
{
    static const char list[] = "[{\"name\": \"f\", \"arguments\": {\"a\": 1}}]";
    const char *data = getenv("LLM_DATA");
    const token_t *was = sh.tok;
    uint32_t ids[256];
    tools_family_t *f;
    char path[512], why[256];
    stop_t stops;
    token_t *tok;
    int64_t n;

    (void) state;
    snprintf(path, sizeof(path), "%s/tokenizers/mistral-v3",
        data != NULL ? data : "../shared/data");
    tok = token_open_dir(path, why, sizeof(why));
    if (tok == NULL) {
        skip();
    }
    memset(&stops, 0, sizeof(stops));
    assert_int_equal(stop_add(&stops, "zz", 2), 0);
    assert_int_equal(
        tools_family_open(&f, "mistral", NULL, 0, tok, why, sizeof(why)), 0);
    sh.tok = tok;

    ids[0] = token_find(tok, "[TOOL_CALLS]", 12);
    assert_int_not_equal(ids[0], TOKEN_NONE);
    n = token_encode(tok, list, sizeof(list) - 1, 0, ids + 1, 255, NULL, NULL);
    assert_true(n > 0);
    assert_string_equal(
        say_ids(ids, (size_t) n + 1, &stops, 0, f, 1), "[f|{\"a\": 1}");
    assert_int_equal(client.finish, LLM_FINISH_CALLS);

    /* of a list that is none, the token has no text */
    n = token_encode(tok, "[x]", 3, 0, ids + 1, 255, NULL, NULL);
    assert_non_null(
        strstr(say_ids(ids, (size_t) n + 1, &stops, 0, f, 1), "[x]"));
    assert_null(strstr(with_calls(), "TOOL"));
    assert_int_equal(client.finish, LLM_FINISH_STOP);

    sh.tok = was;
    tools_family_close(f);
    token_close(tok);
}

static int
setup(void **state)
{
    char why[256];

    (void) state;
    sh.tok = token_open_null();
    if (reason_open(&marks, "granite", NULL, 0, sh.tok, why, sizeof(why))
        != 0) {
        return -1;
    }
    sh.reason = marks;

    return fifo_pool_open(&sh.pool, 8 << 20);
}

static int
teardown(void **state)
{
    (void) state;
    token_close((token_t *) sh.tok);
    reason_close(marks);
    fifo_pool_close(&sh.pool);

    return 0;
}

/* Tokens without text behind a stop string's beginning: bounded. */
static void
test_nothing_said(void **state)
{
    sample_out_t out;
    text_choice_t c;
    stop_t stops;
    uint64_t sent = 0;
    uint32_t n;
    int rc = 0;

    (void) state;
    memset(&stops, 0, sizeof(stops));
    memset(&c, 0, sizeof(c));
    memset(&out, 0, sizeof(out));
    c.logprobs = 1;
    assert_int_equal(stop_add(&stops, "ab", 2), 0);

    out.token = 'a';
    out.tops_n = SAMPLE_TOPS_MAX;
    assert_int_equal(text_choice_token(&sh, &c, &stops, &out, 0, &sent), 0);

    out.token = token_eos(sh.tok);
    for (n = 0; n < 100000 && rc == 0; n++) {
        rc = text_choice_token(&sh, &c, &stops, &out, 0, &sent);
    }
    assert_int_equal(rc, -1);
    assert_true(n > LLM_STOP_LEN_MAX && n < 10 * LLM_STOP_LEN_MAX);
    assert_int_equal(sent, 0);
    text_choice_clear(&sh, &c);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_said),
        cmocka_unit_test(test_property),
        cmocka_unit_test(test_plan),
        cmocka_unit_test(test_calls),
        cmocka_unit_test(test_call_tokens),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
