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

#include <stdlib.h>
#include <string.h>

#define TEXT_MAX 8192

typedef struct {
    uint8_t text[TEXT_MAX * 3 + 16];
    size_t text_n;
    uint32_t tokens, entries, finish, records;
    uint32_t ids[TEXT_MAX];
} client_t;

static text_shared_t sh;
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
        text_choice_take(&sh, c, &cut, &head, rec + sizeof(head));
        memcpy(rec, &head, sizeof(head));
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

static void
one_run(uint32_t logprobs)
{
    uint8_t s[TEXT_MAX], want[TEXT_MAX * 3 + 16];
    char words[3][4];
    size_t n, i, cut, end, want_n;
    sample_out_t out;
    text_choice_t c;
    stop_t stops;
    utf8_t u;
    uint64_t sent = 0, got = 0;
    int rc = 0;

    memset(&client, 0, sizeof(client));
    memset(&stops, 0, sizeof(stops));
    memset(&c, 0, sizeof(c));
    memset(&out, 0, sizeof(out));
    memset(&u, 0, sizeof(u));
    c.logprobs = logprobs;

    n = (size_t) rand() % (rand() % 8 == 0 ? TEXT_MAX : 40);
    for (i = 0; i < n; i++) {
        s[i] = some_byte();
    }
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

    want_n = utf8_feed(&u, (char *) s, cut, (char *) want);
    want_n += utf8_end(&u, (char *) want + want_n);
    assert_int_equal(client.text_n, want_n);
    assert_memory_equal(client.text, want, want_n);
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
        one_run(0);
        one_run(1);
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

static int
setup(void **state)
{
    (void) state;
    sh.tok = token_open_null();

    return fifo_pool_open(&sh.pool, 8 << 20);
}

static int
teardown(void **state)
{
    (void) state;
    token_close((token_t *) sh.tok);
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
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
