/*
 * Catches: a path that reaches the wrong endpoint, a wrong method answered
 * with anything but 405 and what would do, errors and model lists that are
 * not of OpenAI's shape or lose what they were told.
 */
#include "openai_test.h"

static const llm_dialect_t *d = &llm_dialect_openai;

static int
route(const char *method, const char *uri, uint32_t *which, llm_str_t *name,
    const char **allow)
{
    char *copy = malloc(strlen(uri) ? strlen(uri) : 1);
    llm_str_t u = {strlen(uri), copy};
    int rc;

    memcpy(copy, uri, strlen(uri)); /* no 0 behind it */
    rc = d->route(str(method), u, which, name, allow);
    if (rc == 0 && *which == LLM_ROUTE_MODEL) {
        name->data = uri + (name->data - copy);
    }
    free(copy);

    return rc;
}

static void
test_routes(void **state)
{
    static const struct {
        const char *method, *uri;
        int rc;
        uint32_t which;
        const char *more; /* the name, or the methods allowed */
    } rows[] = {
        {"POST", "/v1/chat/completions", 0, LLM_ROUTE_CHAT, ""},
        {"POST", "/a/b/v1/chat/completions", 0, LLM_ROUTE_CHAT, ""},
        {"POST", "/chat/completions", 0, LLM_ROUTE_CHAT, ""},
        {"POST", "/v1/completions", 0, LLM_ROUTE_TEXT, ""},
        {"GET", "/v1/models", 0, LLM_ROUTE_MODELS, ""},
        {"HEAD", "/v1/models", 0, LLM_ROUTE_MODELS, ""},
        {"GET", "/v1/models/tiny", 0, LLM_ROUTE_MODEL, "tiny"},
        {"HEAD", "/v1/models/org/tiny", 0, LLM_ROUTE_MODEL, "org/tiny"},
        {"GET", "/v1/models/models/x", 0, LLM_ROUTE_MODEL, "models/x"},
        {"GET", "/v1/models/a b", 0, LLM_ROUTE_MODEL, "a b"},
        {"GET", "/v1/chat/completions", -LLM_ERR_BAD_METHOD, 0, "POST"},
        {"PUT", "/v1/completions", -LLM_ERR_BAD_METHOD, 0, "POST"},
        {"POSTS", "/v1/completions", -LLM_ERR_BAD_METHOD, 0, "POST"},
        {"POST", "/v1/models", -LLM_ERR_BAD_METHOD, 0, "GET, HEAD"},
        {"DELETE", "/v1/models/tiny", -LLM_ERR_BAD_METHOD, 0, "GET, HEAD"},
        {"", "/v1/models/tiny", -LLM_ERR_BAD_METHOD, 0, "GET, HEAD"},
        {"POST", "/v1/chat/completionsx", -LLM_ERR_NO_ROUTE, 0, ""},
        {"POST", "/v1/xcompletions", -LLM_ERR_NO_ROUTE, 0, ""},
        {"POST", "/v1/chat/completions/", -LLM_ERR_NO_ROUTE, 0, ""},
        {"GET", "/v1/models/", -LLM_ERR_NO_ROUTE, 0, ""},
        {"GET", "/v1/model", -LLM_ERR_NO_ROUTE, 0, ""},
        {"GET", "/", -LLM_ERR_NO_ROUTE, 0, ""},
        {"GET", "", -LLM_ERR_NO_ROUTE, 0, ""},
        {"POST", "completions", -LLM_ERR_NO_ROUTE, 0, ""},
    };
    const char *allow;
    uint32_t which;
    llm_str_t name;
    size_t i;

    (void) state;

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        allow = NULL;
        name = str("");
        assert_int_equal(
            route(rows[i].method, rows[i].uri, &which, &name, &allow),
            rows[i].rc);
        if (rows[i].rc == -LLM_ERR_BAD_METHOD) {
            assert_string_equal(allow, rows[i].more);
        }
        if (rows[i].rc == 0) {
            assert_int_equal(which, rows[i].which);
            assert_int_equal(name.len, strlen(rows[i].more));
            assert_memory_equal(name.data, rows[i].more, name.len);
        }
    }
}

static void
error_is(uint32_t err, const char *param, const char *text, int in_stream,
    const char *expected)
{
    pool_t *pool = pool_new();
    llm_refusal_t why;
    llm_buf_t b;

    (void) llm_refuse(&why, err, param, "%s", text);
    llm_buf_init(&b, 10000, pool_alloc, pool);
    assert_int_equal(d->error(&b, &why, in_stream), 0);
    if (in_stream) {
        assert_true(b.len > 8);
        assert_memory_equal(b.data, "data: ", 6);
        assert_memory_equal(b.data + b.len - 3, "}\n\n", 3);
        assert_json(b.data + 6, b.len - 8, expected);
        assert_null(memchr(b.data + 6, '\n', b.len - 8));
    } else {
        assert_json(b.data, b.len, expected);
    }
    pool_free(pool);
}

static void
test_errors(void **state)
{
    int i;

    (void) state;

    for (i = 0; i < 2; i++) {
        error_is(LLM_ERR_BAD_FIELD, "stop[2]", "No \"such\"\n thing.", i,
            "{'error':{'message':'No \\'such\\'\\n thing.','type':"
            "'invalid_request_error','param':'stop[2]','code':"
            "'invalid_value'}}");
        error_is(LLM_ERR_BUSY, "", "", i,
            "{'error':{'message':'Too many requests are in progress.','type':"
            "'rate_limit_error','param':null,'code':'server_busy'}}");
        error_is(12345, "", "", i,
            "{'error':{'message':'The server had an internal error.','type':"
            "'server_error','param':null,'code':'internal_error'}}");
    }
}

/* Fields that came from the engine need not end with a 0. */
static void
test_error_unterminated(void **state)
{
    pool_t *pool = pool_new();
    llm_refusal_t *why = malloc(sizeof(*why));
    llm_buf_t b;
    json_t *v;

    (void) state;

    memset(why, 0xff, sizeof(*why));
    llm_buf_init(&b, 10000, pool_alloc, pool);
    assert_int_equal(d->error(&b, why, 0), 0);
    v = json_of(b.data, b.len);
    json_decref(v);
    free(why);
    pool_free(pool);
}

static void
test_ping(void **state)
{
    pool_t *pool = pool_new();
    llm_buf_t b;

    (void) state;

    llm_buf_init(&b, 100, pool_alloc, pool);
    assert_int_equal(d->ping(&b), 0);
    assert_int_equal(b.len, 8);
    assert_memory_equal(b.data, ": ping\n\n", 8);

    pool_free(pool);
}

static void
test_models(void **state)
{
    static const llm_model_name_t models[] = {
        {"tiny", 1700000000, 0}, {"org/\"big\"", 5, 4096}};
    pool_t *pool = pool_new();
    llm_str_t name = str("org/\"big\"");
    llm_buf_t b;

    (void) state;

    llm_buf_init(&b, 10000, pool_alloc, pool);
    assert_int_equal(d->models(&b, models, 2, NULL), 0);
    assert_json(b.data, b.len,
        "{'object':'list','data':["
        "{'id':'tiny','object':'model','created':1700000000,"
        "'owned_by':'ngx_llm'},"
        "{'id':'org/\\'big\\'','object':'model','created':5,"
        "'owned_by':'ngx_llm','max_model_len':4096}]}");

    b.len = 0;
    assert_int_equal(d->models(&b, models, 0, NULL), 0);
    assert_json(b.data, b.len, "{'object':'list','data':[]}");

    b.len = 0;
    assert_int_equal(d->models(&b, models, 2, &name), 0);
    assert_json(b.data, b.len,
        "{'id':'org/\\'big\\'','object':'model','created':5,"
        "'owned_by':'ngx_llm','max_model_len':4096}");

    b.len = 0;
    name = str("tin");
    assert_int_equal(d->models(&b, models, 2, &name), -LLM_ERR_NO_MODEL);
    assert_int_equal(b.len, 0);

    pool_free(pool);
}

/* Too small a limit leaves the output as it was, and usable. */
static void
test_limits(void **state)
{
    static const llm_model_name_t models[] = {{"tiny", 1700000000, 0}};
    pool_t *pool = pool_new();
    llm_refusal_t why;
    llm_str_t name = str("tiny");
    llm_buf_t b;
    size_t max;

    (void) state;

    (void) llm_refuse(&why, LLM_ERR_BUSY, NULL, NULL);

    for (max = 4; max < 60; max++) {
        llm_buf_init(&b, max, pool_alloc, pool);
        llm_buf_lit(&b, "was!");
        assert_int_equal(d->error(&b, &why, 1), -LLM_ERR_NO_MEMORY);
        assert_int_equal(d->models(&b, models, 1, NULL), -LLM_ERR_NO_MEMORY);
        assert_int_equal(d->models(&b, models, 1, &name), -LLM_ERR_NO_MEMORY);
        assert_int_equal(b.len, 4);
        assert_int_equal(d->ping(&b), max < 12 ? -LLM_ERR_NO_MEMORY : 0);
        assert_memory_equal(b.data, "was!", 4);
    }

    pool_free(pool);
}

static void
test_content_type(void **state)
{
    llm_call_t call;

    (void) state;

    memset(&call, 0, sizeof(call));
    assert_string_equal(d->content_type(&call), "application/json");
    call.stream = 1;
    assert_memory_equal(d->content_type(&call), "text/event-stream", 17);
    assert_string_equal(d->name, "openai");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_routes),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_error_unterminated),
        cmocka_unit_test(test_ping),
        cmocka_unit_test(test_models),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_content_type),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
