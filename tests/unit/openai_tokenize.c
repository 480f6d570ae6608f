/*
 * Catches: a body of /tokenize or /detokenize that asks for something else
 * than its sender meant; an engine's text that makes the answer no JSON.
 */
#include "openai_test.h"

static void
test_parse(void **state)
{
    pool_t *pool = pool_new();
    llm_refusal_t why;
    llm_call_t c;
    const unsigned only = LLM_F_PROMPT | LLM_F_ECHO;

    (void) state;

    assert_int_equal(parse(pool, LLM_ROUTE_TOKENIZE,
                         "{\"model\":\"m\",\"prompt\":\"a b\"}", &c, &why),
        0);
    assert_int_equal(c.head.kind, LLM_KIND_TEXT);
    assert_int_equal(c.head.flags, only | LLM_F_IDS);
    assert_int_equal(c.head.n, 1);
    assert_int_equal(c.prompts_n, 1);
    assert_memory_equal(c.prompts[0].data, "a b", 3);
    assert_int_equal(c.stream, 0);

    assert_int_equal(parse(pool, LLM_ROUTE_TOKENIZE,
                         "{\"model\":\"m\",\"prompt\":\"a\",\"stream\":true,"
                         "\"add_special_tokens\":false}",
                         &c, &why),
        0);
    assert_int_equal(c.head.flags, only | LLM_F_IDS | LLM_F_NO_BOS);
    assert_int_equal(c.stream, 0);

    assert_int_equal(parse(pool, LLM_ROUTE_TOKENIZE,
                         "{\"model\":\"m\",\"messages\":[{\"role\":\"user\","
                         "\"content\":\"Hi\"}]}",
                         &c, &why),
        0);
    assert_int_equal(c.head.kind, LLM_KIND_CHAT);
    assert_true(c.messages.len > 0);
    assert_int_equal(c.prompts_n, 0);

    assert_int_equal(parse(pool, LLM_ROUTE_DETOKENIZE,
                         "{\"model\":\"m\",\"tokens\":[5,6,7]}", &c, &why),
        0);
    assert_int_equal(c.head.flags, only);
    assert_int_equal(c.prompts_n, 1);
    assert_int_equal(c.prompt_is_ids[0], 1);
    assert_int_equal(c.prompts[0].len, 12);

    pool_free(pool);
}

static void
test_refuse(void **state)
{
    static const struct {
        uint32_t route;
        const char *body, *param;
    } rows[] = {
        {LLM_ROUTE_TOKENIZE, "{}", "model"},
        {LLM_ROUTE_TOKENIZE, "{\"model\":\"m\"}", "messages"},
        {LLM_ROUTE_TOKENIZE, "{\"model\":\"m\",\"prompt\":[1]}", "prompt"},
        {LLM_ROUTE_TOKENIZE,
            "{\"model\":\"m\",\"prompt\":\"a\",\"add_special_tokens\":1}",
            "add_special_tokens"},
        {LLM_ROUTE_DETOKENIZE, "{\"model\":\"m\"}", "tokens"},
        {LLM_ROUTE_DETOKENIZE, "{\"model\":\"m\",\"tokens\":[]}", "tokens"},
        {LLM_ROUTE_DETOKENIZE, "{\"model\":\"m\",\"tokens\":[\"a\"]}",
            "tokens"},
        {LLM_ROUTE_DETOKENIZE, "{\"model\":\"m\",\"tokens\":[-1]}", "tokens"},
        {LLM_ROUTE_DETOKENIZE, "[]", ""},
    };
    pool_t *pool = pool_new();
    llm_refusal_t why;
    llm_call_t c;
    size_t i;

    (void) state;

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(parse(pool, rows[i].route, rows[i].body, &c, &why),
            -LLM_ERR_BAD_FIELD);
        assert_string_equal(why.param, rows[i].param);
        assert_true(why.text[0] != '\0');
    }

    pool_free(pool);
}

static int
send_part(llm_answer_t *a, uint32_t choice, const char *text)
{
    llm_wire_tokens_t t;

    memset(&t, 0, sizeof(t));
    t.choice = choice;
    t.text_len = (uint32_t) strlen(text);

    return llm_dialect_openai.tokens(
        a, &t, (const uint8_t *) text, (const uint8_t *) "");
}

static void
test_answer(void **state)
{
    pool_t *pool = pool_new();
    llm_refusal_t why;
    llm_answer_t a;
    llm_call_t c;

    (void) state;

    assert_int_equal(parse(pool, LLM_ROUTE_TOKENIZE,
                         "{\"model\":\"m\",\"prompt\":\"x\"}", &c, &why),
        0);
    answer_init(&a, pool, &c);
    a.context = 4096;
    assert_int_equal(send_part(&a, 0, "1,150"), 0);
    assert_int_equal(send_part(&a, 0, "43,7"), 0);
    assert_int_equal(send_done(&a), 0);
    assert_json(a.out.data, a.out.len,
        "{'count':3,'max_model_len':4096,'tokens':[1,15043,7]}");

    /* what would not be JSON, or is not a prompt's */
    answer_init(&a, pool, &c);
    assert_int_equal(send_part(&a, 0, "1,\"x\""), -LLM_ERR_PROTOCOL);
    assert_int_equal(send_part(&a, 1, "1"), -LLM_ERR_PROTOCOL);
    assert_int_equal(send_text(&a, 0, "1", 0), -LLM_ERR_PROTOCOL);

    assert_int_equal(parse(pool, LLM_ROUTE_DETOKENIZE,
                         "{\"model\":\"m\",\"tokens\":[1]}", &c, &why),
        0);
    answer_init(&a, pool, &c);
    assert_int_equal(send_part(&a, 0, "a \"word"), 0);
    assert_int_equal(send_part(&a, 0, "\n"), 0);
    assert_int_equal(send_done(&a), 0);
    assert_json(a.out.data, a.out.len, "{'prompt':'a \\'word\\n'}");

    pool_free(pool);
}

/* every allocation in turn fails: a refusal, and no half an answer */
static void
test_memory(void **state)
{
    size_t at;
    int rc = -1;
    pool_t *pool;
    llm_refusal_t why;
    llm_answer_t a;
    llm_call_t c;

    (void) state;

    for (at = 1; rc != 0 && at < 100; at++) {
        pool = pool_new();
        pool->fail_at = at;
        rc = parse(pool, LLM_ROUTE_DETOKENIZE,
            "{\"model\":\"m\",\"tokens\":[1,2]}", &c, &why);
        if (rc == 0) {
            answer_init(&a, pool, &c);
            rc = send_part(&a, 0, "some text");
        }
        if (rc == 0) {
            rc = send_done(&a);
        }
        assert_true(rc == 0 || rc == -LLM_ERR_NO_MEMORY);
        pool_free(pool);
    }

    assert_int_equal(rc, 0);
    assert_true(at > 3);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_refuse),
        cmocka_unit_test(test_answer),
        cmocka_unit_test(test_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
