/*
 * Would catch a SUBMIT record whose lengths lead outside it, an older
 * sender's short head read past its end, a list that is counted one way and
 * copied another, and a log line that a client can break.  Values out of
 * range, one by one, are in text_in.c.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "submit.h"

#include <stdlib.h>
#include <string.h>

static const submit_rules_t rules = {"m", 100, 4096};


static uint32_t
add(uint8_t *rec, uint32_t len, uint32_t type, const void *p, uint32_t n)
{
    const llm_wire_sec_t sec = {type, n};

    memcpy(rec + len, &sec, sizeof(sec));
    memcpy(rec + len + sizeof(sec), p, n);

    return (uint32_t) (len + sizeof(sec) + ((n + 7) & ~7u));
}


/* A sound record of many parts; its length. */
static uint32_t
make(uint8_t *rec, uint32_t head_len)
{
    static const llm_wire_bias_t bias[3] = {{1, 1}, {99, -100}, {5, 0.5f}};
    llm_wire_submit_t h;
    uint32_t len = head_len;

    memset(&h, 0, sizeof(h));
    h.hdr.type = LLM_REC_SUBMIT;
    h.head_len = head_len;
    h.kind = LLM_KIND_TEXT;
    h.n = 2;
    h.credit = 10;
    h.temperature = 2;
    h.top_p = 1;
    h.repetition_penalty = 10;
    h.weight = 1;
    memset(rec, 0xee, head_len);
    memcpy(rec, &h, head_len < sizeof(h) ? head_len : sizeof(h));

    len = add(rec, len, LLM_SEC_MODEL, "m", 1);
    len = add(rec, len, LLM_SEC_BIAS, bias, sizeof(bias[0]));
    len = add(rec, len, LLM_SEC_STOP, "abc", 3);
    len = add(rec, len, LLM_SEC_PROMPT, "hello", 5);
    len = add(rec, len, 12345, "?", 1);
    len = add(rec, len, LLM_SEC_BIAS, bias + 1, 2 * sizeof(bias[0]));
    len = add(rec, len, LLM_SEC_STOP, "x", 1);
    len = add(rec, len, LLM_SEC_REQUEST_ID, "a\nb\0c\xff%s", 8);

    return len;
}


static void
test_sound(void **state)
{
    _Alignas(8) uint8_t rec[1024], keep[256];
    uint8_t long_[LLM_SALT_MAX + 1];
    uint32_t len, head_len;
    submit_fail_t why;
    submit_t s;
    req_t r;

    (void) state;

    /* as it is, and from a newer sender whose head is longer */
    for (head_len = 112; head_len <= 128; head_len += 16) {
        len = make(rec, head_len);
        assert_int_equal(submit_parse(rec, len, &s), 0);
        assert_int_equal(submit_check(&s, &rules, &why), 0);
        assert_int_equal(submit_keep_size(&s), 3 * 8 + 4);

        memset(&r, 0, sizeof(r));
        submit_fill(&s, &rules, rec, len, keep, &r);
        assert_int_equal(r.choices, 2);
        assert_int_equal(r.params.bias_n, 3);
        assert_int_equal(r.params.bias[1].token, 99);
        assert_int_equal(r.params.bias[2].token, 5);
        assert_int_equal(r.stops_n, 2);
        assert_memory_equal(r.stops[0].s, "abc", 3);
        assert_memory_equal(r.stops[1].s, "x", 1);
        assert_string_equal(r.id, "a_b_c__s");
        assert_int_equal(r.queue_ms, 0);
    }

    /* who waits for a first token waits no longer in a queue either */
    s.head.first_ms = 70;
    submit_fill(&s, &rules, rec, len, keep, &r);
    assert_int_equal(r.queue_ms, 70);
    s.head.queue_ms = 80;
    submit_fill(&s, &rules, rec, len, keep, &r);
    assert_int_equal(r.queue_ms, 70);
    s.head.queue_ms = 60;
    submit_fill(&s, &rules, rec, len, keep, &r);
    assert_int_equal(r.queue_ms, 60);

    /* the salt of the prefix cache, and one too long */
    len = make(rec, 112);
    len = add(rec, len, LLM_SEC_SALT, "pepper", 6);
    assert_int_equal(submit_parse(rec, len, &s), 0);
    assert_int_equal(submit_check(&s, &rules, &why), 0);
    assert_int_equal(s.salt.len, 6);
    assert_memory_equal(s.salt.p, "pepper", 6);
    memset(long_, 'x', sizeof(long_));
    len = add(rec, make(rec, 112), LLM_SEC_SALT, long_, LLM_SALT_MAX);
    assert_int_equal(submit_parse(rec, len, &s), 0);
    assert_int_equal(submit_check(&s, &rules, &why), 0);
    len = add(rec, make(rec, 112), LLM_SEC_SALT, long_, LLM_SALT_MAX + 1);
    assert_int_equal(submit_parse(rec, len, &s), 0);
    assert_int_equal(submit_check(&s, &rules, &why), -1);
    assert_string_equal(why.param, "cache_salt");

    /* the shortest head there is: what it lacks is zero, and refused */
    len = make(rec, 24);
    assert_int_equal(submit_parse(rec, len, &s), 0);
    assert_int_equal(s.head.n, 0);
    assert_int_equal(s.head.weight, 0);
    assert_int_equal(submit_check(&s, &rules, &why), -1);
}


/* Every cut of a record, and every byte of it changed. */
static void
test_lies(void **state)
{
    _Alignas(8) uint8_t rec[1024], keep[LLM_BIAS_MAX * 8 + 4096];
    uint32_t len, n, i, sound = 0;
    uint8_t *exact, was;
    submit_fail_t why;
    submit_t s;
    req_t r;

    (void) state;
    len = make(rec, 112);

    for (n = 8; n < len; n++) {
        exact = malloc(n); /* so that a sanitizer sees one byte too far */
        assert_non_null(exact);
        memcpy(exact, rec, n);
        sound += submit_parse(exact, n, &s) == 0;
        free(exact);
    }
    assert_int_equal(sound, 8); /* a cut between two parts lies about nothing */

    exact = malloc(len);
    assert_non_null(exact);
    for (i = 8; i < len; i++) {
        for (n = 0; n < 4; n++) {
            memcpy(exact, rec, len);
            was = exact[i];
            exact[i] = (const uint8_t[]){0xff, 0x80, 0, (uint8_t) (was + 1)}[n];
            if (submit_parse(exact, len, &s) == 0
                && submit_check(&s, &rules, &why) == 0) {
                assert_true(submit_keep_size(&s) <= sizeof(keep));
                memset(&r, 0, sizeof(r));
                submit_fill(&s, &rules, exact, len, keep, &r);
                assert_true(r.choices <= LLM_CHOICES_MAX);
            }
        }
    }
    free(exact);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sound),
        cmocka_unit_test(test_lies),
    };

    return cmocka_run_group_tests_name("submit", tests, NULL, NULL);
}
