/*
 * Catches: messages that reach the engine other than they were sent, or that
 * no engine could use; prompts of the wrong kind or number; token ids that
 * are not.
 */
#include "openai_test.h"

static int
chat(pool_t *pool, const char *messages, llm_call_t *c, llm_refusal_t *why)
{
    size_t len = strlen(messages) + 64;
    char *body = malloc(len), *p;
    int rc;

    (void) snprintf(body, len, "{'model':'m','messages':%s}", messages);
    for (p = body; *p != '\0'; p++) {
        if (*p == '\'') {
            *p = '"';
        }
    }
    rc = parse(pool, LLM_ROUTE_CHAT, body, c, why);
    free(body);

    return rc;
}

static void
test_messages(void **state)
{
    static const struct {
        const char *messages, *param; /* NULL: accepted */
    } rows[] = {
        {"[{'role':'user','content':'hi'}]", NULL},
        {"[{'role':'user','content':null}]", NULL},
        {"[{'role':'assistant'}]", NULL},
        {"[{'role':'user','content':[]}]", NULL},
        {"[{'role':'user','content':[{'type':'text','text':'x'}]}]", NULL},
        {"[{'role':'x','name':5,'tool_calls':[1]}]", NULL},
        {"null", "messages"},
        {"[]", "messages"},
        {"{}", "messages"},
        {"'hi'", "messages"},
        {"5", "messages"},
        {"['hi']", "messages[0]"},
        {"[{'role':'user'},null]", "messages[1]"},
        {"[{}]", "messages[0].role"},
        {"[{'role':'user'},{'role':5}]", "messages[1].role"},
        {"[{'role':''}]", "messages[0].role"},
        {"[{'role':null}]", "messages[0].role"},
        {"[{'role':'user','content':5}]", "messages[0].content"},
        {"[{'role':'user','content':{}}]", "messages[0].content"},
        {"[{'role':'user','content':[{},'x']}]", "messages[0].content[1]"},
        {"[{'role':'user','content':[null]}]", "messages[0].content[0]"},
    };
    pool_t *pool = pool_new();
    llm_refusal_t why;
    llm_call_t c;
    size_t i;
    int rc;

    (void) state;

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        rc = chat(pool, rows[i].messages, &c, &why);
        if (rows[i].param == NULL) {
            assert_int_equal(rc, 0);
            assert_json(c.messages.data, c.messages.len, rows[i].messages);
        } else {
            assert_int_equal(rc, -LLM_ERR_BAD_FIELD);
            assert_string_equal(why.param, rows[i].param);
        }
    }

    pool_free(pool);
}

static void
test_messages_missing(void **state)
{
    pool_t *pool = pool_new();
    llm_refusal_t why;
    llm_call_t c;

    (void) state;

    assert_int_equal(parse(pool, LLM_ROUTE_CHAT, "{\"model\":\"m\"}", &c, &why),
        -LLM_ERR_BAD_FIELD);
    assert_string_equal(why.param, "messages");
    assert_int_equal(parse(pool, LLM_ROUTE_TEXT, "{\"model\":\"m\"}", &c, &why),
        -LLM_ERR_BAD_FIELD);
    assert_string_equal(why.param, "prompt");

    pool_free(pool);
}

static void
test_messages_count(void **state)
{
    static const char one[] = "{'role':'user','content':'x'},";
    char *s = malloc(5000 * sizeof(one));
    llm_refusal_t why;
    llm_call_t c;
    pool_t *pool;
    size_t i, n;

    (void) state;

    for (n = 4096; n <= 4097; n++) {
        pool = pool_new();
        s[0] = '[';
        for (i = 0; i < n; i++) {
            memcpy(s + 1 + i * (sizeof(one) - 1), one, sizeof(one) - 1);
        }
        memcpy(s + n * (sizeof(one) - 1), "]", 2);
        assert_int_equal(
            chat(pool, s, &c, &why), n == 4096 ? 0 : -LLM_ERR_BAD_FIELD);
        pool_free(pool);
    }
    free(s);
}

/* What must not be lost on the way: NUL, big numbers, order, any script. */
static void
test_messages_exact(void **state)
{
    static const char m[] =
        "[{'role':'user','content':'a\\u0000b\\ud83d\\ude00 \\u4e16\\n',"
        "'z':1e300,'y':-9223372036854775808,'x':0.1,'w':[[[true]]]}]";
    pool_t *pool = pool_new();
    llm_refusal_t why;
    llm_call_t c;

    (void) state;

    assert_int_equal(chat(pool, m, &c, &why), 0);
    assert_json(c.messages.data, c.messages.len, m);
    assert_true(
        memmem(c.messages.data, c.messages.len, "\xe4\xb8\x96", 3) != NULL);
    assert_null(memchr(c.messages.data, '\0', c.messages.len));

    pool_free(pool);
}

/* Numbers that grow sixfold when they are written out again. */
static void
test_messages_grow(void **state)
{
    pool_t *pool = pool_new();
    char *s = malloc(100000);
    llm_refusal_t why;
    llm_call_t c;
    size_t len, i;

    (void) state;

    len = (size_t) sprintf(s, "[{'role':'user','x':[0.1");
    for (i = 0; i < 20000; i++) {
        memcpy(s + len, ",0.1", 4);
        len += 4;
    }
    memcpy(s + len, "]}]", 4);
    assert_int_equal(chat(pool, s, &c, &why), 0);
    assert_json(c.messages.data, c.messages.len, s);
    free(s);

    pool_free(pool);
}

static int
text(pool_t *pool, const char *prompt, int n, llm_call_t *c, llm_refusal_t *why)
{
    char body[1024], *p;

    (void) snprintf(
        body, sizeof(body), "{'model':'m','n':%d,'prompt':%s}", n, prompt);
    for (p = body; *p != '\0'; p++) {
        if (*p == '\'') {
            *p = '"';
        }
    }

    return parse(pool, LLM_ROUTE_TEXT, body, c, why);
}

static void
test_prompt_kinds(void **state)
{
    pool_t *pool = pool_new();
    const uint32_t ids[] = {1, 0, 4294967294u};
    llm_refusal_t why;
    llm_call_t c;

    (void) state;

    assert_int_equal(text(pool, "'a\\u0000\\u00e9'", 1, &c, &why), 0);
    assert_int_equal(c.prompts_n, 1);
    assert_int_equal(c.prompts[0].len, 4);
    assert_memory_equal(c.prompts[0].data, "a\0\xc3\xa9", 4);
    assert_int_equal(c.prompt_is_ids[0], 0);

    assert_int_equal(text(pool, "''", 1, &c, &why), 0);
    assert_int_equal(c.prompts_n, 1);
    assert_int_equal(c.prompts[0].len, 0);

    assert_int_equal(text(pool, "['x','yz']", 2, &c, &why), 0);
    assert_int_equal(c.prompts_n, 2);
    assert_int_equal(c.head.n, 2);
    assert_memory_equal(c.prompts[1].data, "yz", 2);

    assert_int_equal(text(pool, "[1,0.0,4294967294]", 1, &c, &why), 0);
    assert_int_equal(c.prompts_n, 1);
    assert_int_equal(c.prompt_is_ids[0], 1);
    assert_int_equal(c.prompts[0].len, sizeof(ids));
    assert_memory_equal(c.prompts[0].data, ids, sizeof(ids));

    assert_int_equal(text(pool, "[[1],[1,0,4294967294]]", 1, &c, &why), 0);
    assert_int_equal(c.prompts_n, 2);
    assert_int_equal(c.prompts[0].len, 4);
    assert_int_equal(c.prompts[1].len, sizeof(ids));
    assert_memory_equal(c.prompts[1].data, ids, sizeof(ids));
    assert_int_equal(c.prompt_is_ids[0], 1);
    assert_int_equal(c.prompt_is_ids[1], 1);

    pool_free(pool);
}

static void
test_prompt_values(void **state)
{
    static const struct {
        const char *prompt;
        int n;
        const char *param;
    } rows[] = {
        {"null", 1, "prompt"},
        {"5", 1, "prompt"},
        {"{}", 1, "prompt"},
        {"true", 1, "prompt"},
        {"[]", 1, "prompt"},
        {"[[]]", 1, "prompt[0]"},
        {"[[1],[]]", 1, "prompt[1]"},
        {"[null]", 1, "prompt[0]"},
        {"[{}]", 1, "prompt[0]"},
        {"['a',1]", 1, "prompt[1]"},
        {"[[1],'a']", 1, "prompt[1]"},
        {"[1,'a']", 1, "prompt"},
        {"[-1]", 1, "prompt"},
        {"[1.5]", 1, "prompt"},
        {"[4294967295]", 1, "prompt"},
        {"[[1,-1]]", 1, "prompt[0]"},
        {"[[1,[2]]]", 1, "prompt[0]"},
        {"['a','a','a','a','a','a','a','a','a','a','a','a','a','a','a','a',"
         "'a']",
            1, "prompt"},
        {"['a','b','c']", 6, "n"},
        {"['a','b']", 9, "n"},
    };
    pool_t *pool = pool_new();
    llm_refusal_t why;
    llm_call_t c;
    size_t i;

    (void) state;

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(text(pool, rows[i].prompt, rows[i].n, &c, &why),
            -LLM_ERR_BAD_FIELD);
        assert_string_equal(why.param, rows[i].param);
    }
    assert_int_equal(text(pool, "['a','b']", 8, &c, &why), 0);
    assert_int_equal(text(pool, "['a','b','c']", 5, &c, &why), 0);

    pool_free(pool);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_messages_missing),
        cmocka_unit_test(test_messages_count),
        cmocka_unit_test(test_messages_exact),
        cmocka_unit_test(test_messages_grow),
        cmocka_unit_test(test_prompt_kinds),
        cmocka_unit_test(test_prompt_values),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
