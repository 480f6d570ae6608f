/*
 * Catches: an answer or a stream that is not what OpenAI's service sends:
 * fields, their order, chunk order, usage, the end.  Recorded streams of that
 * service are replayed through the writer and must come out byte for byte
 * (LLM_DATA; skipped without).  Also: an event that makes no sense taken for
 * good, and a failure that leaves half a chunk behind.
 */
#include "openai_test.h"

#include <dirent.h>

static void
call_init(llm_call_t *c, uint32_t route, int stream, uint32_t n)
{
    memset(c, 0, sizeof(*c));
    c->route = route;
    c->stream = stream;
    c->head.n = n;
    c->prompts_n = route == LLM_ROUTE_TEXT ? 1 : 0;
}

#define HEAD(prefix, object)                                                   \
    "'id':'" prefix "ABC123','object':'" object                                \
    "','created':1727346172,'model':'tiny','system_fingerprint':'fp_1',"

#define USAGE                                                                  \
    "'usage':{'prompt_tokens':5,'completion_tokens':3,'total_tokens':8,"       \
    "'prompt_tokens_details':{'cached_tokens':2},"                             \
    "'completion_tokens_details':{'reasoning_tokens':0}}"

static void
test_whole_chat(void **state)
{
    pool_t *pool = pool_new();
    llm_answer_t a;
    llm_call_t c;
    char *s;

    (void) state;

    call_init(&c, LLM_ROUTE_CHAT, 0, 2);
    answer_init(&a, pool, &c);
    assert_int_equal(send_text(&a, 1, "B\"\n", LLM_FINISH_NONE), 0);
    assert_int_equal(send_text(&a, 0, "A", LLM_FINISH_NONE), 0);
    assert_int_equal(send_text(&a, 1, "b", LLM_FINISH_LENGTH), 0);
    assert_int_equal(send_text(&a, 0, "", LLM_FINISH_STOP), 0);
    assert_int_equal(a.out.len, 0);
    assert_int_equal(send_done(&a), 0);
    s = take(&a);
    assert_json(s, strlen(s),
        "{" HEAD("chatcmpl-",
            "chat.completion") "'choices':["
                               "{'index':0,'message':{'role':'assistant','"
                               "content':'A',"
                               "'refusal':null},'logprobs':null,'finish_reason'"
                               ":'stop'},"
                               "{'index':1,'message':{'role':'assistant','"
                               "content':'B\\'\\nb',"
                               "'refusal':null},'logprobs':null,'finish_reason'"
                               ":'length'}]," USAGE "}");
    free(s);
    pool_free(pool);
}

static int
send_kind(llm_answer_t *a, const char *text, uint32_t kind, uint32_t thought)
{
    llm_wire_tokens_t t;

    memset(&t, 0, sizeof(t));
    t.tokens = 1;
    t.kind = kind;
    t.reasoning = thought;
    t.text_len = (uint32_t) strlen(text);

    return llm_dialect_openai.tokens(
        a, &t, (const uint8_t *) text, (const uint8_t *) "");
}

/* Thought is a field of its own, and counted. */
static void
test_reasoning(void **state)
{
    pool_t *pool = pool_new();
    llm_answer_t a;
    llm_call_t c;
    json_t *v;
    char *s;
    int i;

    (void) state;

    for (i = 0; i < 2; i++) {
        call_init(&c, LLM_ROUTE_CHAT, 0, 1);
        answer_init(&a, pool, &c);
        assert_int_equal(send_kind(&a, "a\"", LLM_TEXT_REASONING, 1), 0);
        assert_int_equal(send_kind(&a, "b", LLM_TEXT_REASONING, 1), 0);
        assert_int_equal(send_text(&a, 0, i ? "c" : "", LLM_FINISH_LENGTH), 0);
        assert_int_equal(send_done(&a), 0);
        s = take(&a);
        v = json_loads(s, 0, NULL);
        assert_non_null(v);
        assert_non_null(strstr(s, "\"reasoning_content\":\"a\\\"b\""));
        assert_non_null(
            strstr(s, i ? "\"content\":\"c\"" : "\"content\":null"));
        assert_non_null(strstr(s, "\"reasoning_tokens\":2"));
        json_decref(v);
        free(s);
    }

    call_init(&c, LLM_ROUTE_CHAT, 1, 1);
    answer_init(&a, pool, &c);
    assert_int_equal(send_kind(&a, "a", LLM_TEXT_REASONING, 90), 0);
    assert_int_equal(send_text(&a, 0, "c", LLM_FINISH_STOP), 0);
    c.include_usage = 1;
    assert_int_equal(send_done(&a), 0);
    s = take(&a);
    assert_non_null(strstr(s, "\"delta\":{\"reasoning_content\":\"a\"}"));
    assert_non_null(strstr(s, "\"delta\":{\"content\":\"c\"}"));
    assert_non_null(strstr(s, "\"reasoning_tokens\":3")); /* of 3 */
    free(s);

    /* a completion is one text */
    call_init(&c, LLM_ROUTE_TEXT, 0, 1);
    answer_init(&a, pool, &c);
    assert_int_equal(
        send_kind(&a, "a", LLM_TEXT_REASONING, 1), -LLM_ERR_PROTOCOL);
    pool_free(pool);
}

/* The arguments of all calls, in brackets behind their names and indexes. */
static void
calls_of(const char *s, char *out)
{
    json_t *v, *calls, *call, *f;
    const char *from = s, *end;
    size_t i;

    *out = '\0';
    for (; (from = strstr(from, "data: {")) != NULL; from = end) {
        from += 6;
        end = strstr(from, "\n\n");
        v = json_loadb(from, (size_t) (end - from), 0, NULL);
        assert_non_null(v);
        calls = json_object_get(
            json_object_get(
                json_array_get(json_object_get(v, "choices"), 0), "delta"),
            "tool_calls");
        json_array_foreach(calls, i, call)
        {
            f = json_object_get(call, "function");
            if (json_object_get(call, "id") != NULL) {
                assert_int_equal(
                    json_string_length(json_object_get(call, "id")), 9);
                assert_string_equal(
                    json_string_value(json_object_get(call, "type")),
                    "function");
                sprintf(out + strlen(out), "[%d %s ",
                    (int) json_integer_value(json_object_get(call, "index")),
                    json_string_value(json_object_get(f, "name")));
            }
            strcat(out, json_string_value(json_object_get(f, "arguments")));
        }
        json_decref(v);
    }
}

/* Calls, whose names and arguments events cut anywhere. */
static void
test_calls(void **state)
{
    static const char parts[] = "F{\"a\":\"x\"}";
    pool_t *pool = pool_new();
    json_t *v, *m, *calls;
    llm_answer_t a;
    llm_call_t c;
    char *s, out[256];
    int stream;

    (void) state;

    /* a function that the client named: OpenAI's end of it is a stop */
    for (stream = 0; stream < 2; stream++) {
        call_init(&c, LLM_ROUTE_CHAT, stream, 1);
        c.head.wants = LLM_W_CALLS | LLM_W_ONE_CALL;
        c.named = 1;
        answer_init(&a, pool, &c);
        assert_int_equal(send_kind(&a, "f", LLM_TEXT_CALL, 0), 0);
        assert_int_equal(send_kind(&a, "{}", LLM_TEXT_ARGUMENTS, 0), 0);
        assert_int_equal(send_text(&a, 0, "", LLM_FINISH_CALLS), 0);
        assert_int_equal(send_done(&a), 0);
        s = take(&a);
        assert_non_null(strstr(s, "\"finish_reason\":\"stop\""));
        assert_null(strstr(s, "\"finish_reason\":\"tool_calls\""));
        free(s);
    }

    for (stream = 0; stream < 2; stream++) {
        call_init(&c, LLM_ROUTE_CHAT, stream, 1);
        c.head.wants = LLM_W_CALLS;
        answer_init(&a, pool, &c);
        assert_int_equal(send_kind(&a, "get_", LLM_TEXT_CALL, 0), 0);
        assert_int_equal(send_kind(&a, "it", LLM_TEXT_CALL, 0), 0);
        assert_int_equal(send_kind(&a, "{\"a\":", LLM_TEXT_ARGUMENTS, 0), 0);
        assert_int_equal(send_kind(&a, "\"x\"}", LLM_TEXT_ARGUMENTS, 0), 0);
        assert_int_equal(send_kind(&a, parts, LLM_TEXT_CALL, 0), 0);
        assert_int_equal(send_kind(&a, "{}", LLM_TEXT_ARGUMENTS, 0), 0);
        assert_int_equal(send_text(&a, 0, "", LLM_FINISH_CALLS), 0);
        assert_int_equal(send_done(&a), 0);
        s = take(&a);
        assert_non_null(strstr(s, "\"finish_reason\":\"tool_calls\""));
        if (stream) {
            calls_of(s, out);
            assert_string_equal(
                out, "[0 get_it {\"a\":\"x\"}[1 F{\"a\":\"x\"} {}");
            free(s);
            continue;
        }
        v = json_loads(s, 0, NULL);
        m = json_object_get(
            json_array_get(json_object_get(v, "choices"), 0), "message");
        assert_true(json_is_null(json_object_get(m, "content")));
        calls = json_object_get(m, "tool_calls");
        assert_int_equal(json_array_size(calls), 2);
        m = json_object_get(json_array_get(calls, 0), "function");
        assert_string_equal(
            json_string_value(json_object_get(m, "name")), "get_it");
        assert_string_equal(json_string_value(json_object_get(m, "arguments")),
            "{\"a\":\"x\"}");
        assert_string_not_equal(
            json_string_value(json_object_get(json_array_get(calls, 0), "id")),
            json_string_value(json_object_get(json_array_get(calls, 1), "id")));
        json_decref(v);
        free(s);
    }

    /* arguments of nothing; calls that were not asked for */
    call_init(&c, LLM_ROUTE_CHAT, 1, 1);
    c.head.wants = LLM_W_CALLS;
    answer_init(&a, pool, &c);
    assert_int_equal(
        send_kind(&a, "{}", LLM_TEXT_ARGUMENTS, 0), -LLM_ERR_PROTOCOL);
    c.head.wants = 0;
    assert_int_equal(send_kind(&a, "f", LLM_TEXT_CALL, 0), -LLM_ERR_PROTOCOL);
    assert_int_equal(send_text(&a, 0, "", LLM_FINISH_CALLS), -LLM_ERR_PROTOCOL);
    pool_free(pool);
}

static void
test_whole_text(void **state)
{
    pool_t *pool = pool_new();
    llm_answer_t a;
    llm_call_t c;
    char *s;

    (void) state;

    call_init(&c, LLM_ROUTE_TEXT, 0, 1);
    c.prompts_n = 2;
    answer_init(&a, pool, &c);
    a.fingerprint = str("");
    assert_int_equal(send_text(&a, 0, "x", LLM_FINISH_STOP), 0);
    assert_int_equal(send_text(&a, 1, "", LLM_FINISH_STOP), 0);
    assert_int_equal(send_done(&a), 0);
    s = take(&a);
    assert_json(s, strlen(s),
        "{'id':'cmpl-ABC123','object':'text_completion','created':1727346172,"
        "'model':'tiny','system_fingerprint':null,'choices':["
        "{'index':0,'text':'x','logprobs':null,'finish_reason':'stop'},"
        "{'index':1,'text':'','logprobs':null,'finish_reason':'stop'}]," USAGE
        "}");
    free(s);
    pool_free(pool);
}

/* The stream's next event is this; NULL: [DONE] and the end. */
static void
event_is(char **at, const char *expected)
{
    char *e = next_event(at);

    assert_non_null(e);
    if (expected == NULL) {
        assert_string_equal(e, "[DONE]");
        assert_int_equal(**at, '\0');
    } else {
        assert_json(e, strlen(e), expected);
    }
}

static void
test_stream_chat(void **state)
{
    static const char open[] =
        "{" HEAD("chatcmpl-", "chat.completion.chunk") "'choices':[";
    pool_t *pool = pool_new();
    llm_answer_t a;
    llm_call_t c;
    char *s, *at, want[1024];
    int i;
    const char *tail[2] = {"}]}", "}],'usage':null}"};

    (void) state;

    for (i = 0; i < 2; i++) {
        call_init(&c, LLM_ROUTE_CHAT, 1, 1);
        c.include_usage = i;
        answer_init(&a, pool, &c);
        assert_int_equal(send_text(&a, 0, "Hi\xe2\x80\xa8", 0), 0);
        assert_int_equal(send_text(&a, 0, "", 0), 0);
        at = s = take(&a);
        (void) snprintf(want, sizeof(want),
            "%s{'index':0,'delta':{'role':'assistant','content':'','refusal':"
            "null},'logprobs':null,'finish_reason':null%s",
            open, tail[i]);
        event_is(&at, want);
        (void) snprintf(want, sizeof(want),
            "%s{'index':0,'delta':{'content':'Hi\xe2\x80\xa8'},'logprobs':"
            "null,'finish_reason':null%s",
            open, tail[i]);
        event_is(&at, want);
        assert_int_equal(*at, '\0');
        free(s);

        assert_int_equal(send_text(&a, 0, "!", LLM_FINISH_LENGTH), 0);
        assert_int_equal(send_done(&a), 0);
        at = s = take(&a);
        (void) snprintf(want, sizeof(want),
            "%s{'index':0,'delta':{'content':'!'},'logprobs':null,"
            "'finish_reason':null%s",
            open, tail[i]);
        event_is(&at, want);
        (void) snprintf(want, sizeof(want),
            "%s{'index':0,'delta':{},'logprobs':null,'finish_reason':'length'"
            "%s",
            open, tail[i]);
        event_is(&at, want);
        if (i) {
            (void) snprintf(want, sizeof(want), "%s]," USAGE "}", open);
            event_is(&at, want);
        }
        event_is(&at, NULL);
        free(s);
    }
    pool_free(pool);
}

static void
test_stream_text(void **state)
{
    static const char open[] =
        "{" HEAD("cmpl-", "text_completion") "'choices':[";
    pool_t *pool = pool_new();
    llm_answer_t a;
    llm_call_t c;
    char *s, *at, want[1024];

    (void) state;

    call_init(&c, LLM_ROUTE_TEXT, 1, 2);
    answer_init(&a, pool, &c);
    assert_int_equal(send_text(&a, 1, "x", 0), 0);
    assert_int_equal(send_text(&a, 1, "", LLM_FINISH_STOP), 0);
    assert_int_equal(send_text(&a, 0, "", LLM_FINISH_LENGTH), 0);
    assert_int_equal(send_done(&a), 0);
    at = s = take(&a);
    (void) snprintf(want, sizeof(want),
        "%s{'index':1,'text':'x','logprobs':null,'finish_reason':null}]}",
        open);
    event_is(&at, want);
    (void) snprintf(want, sizeof(want),
        "%s{'index':1,'text':'','logprobs':null,'finish_reason':'stop'}]}",
        open);
    event_is(&at, want);
    (void) snprintf(want, sizeof(want),
        "%s{'index':0,'text':'','logprobs':null,'finish_reason':'length'}]}",
        open);
    event_is(&at, want);
    event_is(&at, NULL);
    free(s);
    pool_free(pool);
}

static void
test_nonsense(void **state)
{
    pool_t *pool = pool_new();
    llm_answer_t a;
    llm_call_t c;
    size_t len;
    int stream;

    (void) state;

    for (stream = 0; stream < 2; stream++) {
        call_init(&c, LLM_ROUTE_CHAT, stream, 2);
        answer_init(&a, pool, &c);
        assert_int_equal(send_text(&a, 0, "x", 0), 0);
        len = a.out.len;
        assert_int_equal(send_text(&a, 2, "x", 0), -LLM_ERR_PROTOCOL);
        assert_int_equal(send_text(&a, UINT32_MAX, "x", 0), -LLM_ERR_PROTOCOL);
        assert_int_equal(send_text(&a, 0, "x", 3), -LLM_ERR_PROTOCOL);
        assert_int_equal(send_done(&a), -LLM_ERR_PROTOCOL);
        assert_int_equal(a.out.len, len);
        assert_int_equal(send_text(&a, 0, "x", LLM_FINISH_STOP), 0);
        len = a.out.len;
        assert_int_equal(send_text(&a, 0, "x", 0), -LLM_ERR_PROTOCOL);
        assert_int_equal(send_done(&a), -LLM_ERR_PROTOCOL);
        assert_int_equal(a.out.len, len);
        assert_int_equal(send_text(&a, 1, "x", LLM_FINISH_STOP), 0);
        assert_int_equal(send_done(&a), 0);
    }
    pool_free(pool);
}

/* Whatever the limit or the failing allocation, out holds whole events. */
static void
test_failing(void **state)
{
    pool_t *pool;
    llm_answer_t a;
    llm_refusal_t why;
    llm_call_t c;
    size_t max, i, was;
    char *s, *at;
    int rc, done = 0;

    (void) state;

    (void) llm_refuse(&why, LLM_ERR_NO_MEMORY, NULL, NULL);

    for (max = 0; max < 2600; max += 13) {
        pool = pool_new();
        call_init(&c, LLM_ROUTE_CHAT, 1, 1);
        answer_init(&a, pool, &c);
        a.out.max = max;
        pool->fail_at = max < 1300 ? 0 : 1 + max / 13 % 7;
        if (pool->fail_at != 0) {
            a.out.max = 1 << 20;
        }
        for (i = 0, rc = 0; i < 9 && rc == 0; i++) {
            was = a.out.len;
            rc = send_text(&a, 0, "some text", i == 8 ? LLM_FINISH_STOP : 0);
            assert_true(rc == 0 || rc == -LLM_ERR_NO_MEMORY);
            assert_true(rc == 0 || a.out.len == was);
        }
        if (rc == 0 && send_done(&a) == 0) {
            done++;
        }
        (void) llm_dialect_openai.error(&a.out, &why, 1);
        at = s = take(&a);
        while (next_event(&at) != NULL) {
        }
        free(s);
        pool_free(pool);
    }
    assert_true(done > 0);
}

/* A recorded choice's content becomes an event, as the engine would send it. */
static void
replay_chunk(llm_answer_t *a, const json_t *choice)
{
    const json_t *delta = json_object_get(choice, "delta");
    const json_t *v = json_object_get(delta, "content");
    const char *finish =
        json_string_value(json_object_get(choice, "finish_reason"));
    uint32_t i =
        (uint32_t) json_integer_value(json_object_get(choice, "index"));

    if (json_object_get(delta, "role") != NULL) {
        return; /* the writer's own affair */
    }

    if (finish != NULL) {
        assert_int_equal(send_text(a, i, "",
                             strcmp(finish, "stop") == 0 ? LLM_FINISH_STOP
                                                         : LLM_FINISH_LENGTH),
            0);
    } else {
        assert_non_null(v);
        assert_int_equal(send_text(a, i, json_string_value(v), 0), 0);
    }
}

static void
replay_usage(llm_answer_t *a, const json_t *usage)
{
    llm_wire_done_t d;

    memset(&d, 0, sizeof(d));
    d.prompt_tokens =
        (uint32_t) json_integer_value(json_object_get(usage, "prompt_tokens"));
    d.completion_tokens = (uint32_t) json_integer_value(
        json_object_get(usage, "completion_tokens"));
    assert_int_equal(llm_dialect_openai.done(a, &d), 0);
}

/* Takes out, of ours, what the service did not send when it was recorded. */
static void
cut(char *s, const char *what)
{
    char *p;

    while ((p = strstr(s, what)) != NULL) {
        memmove(p, p + strlen(what), strlen(p + strlen(what)) + 1);
    }
}

static void
replay(char *recorded)
{
    pool_t *pool = pool_new();
    json_t *v, *choice, *first = NULL;
    char *copy = strdup(recorded), *at = copy, *e, *ours;
    llm_answer_t a;
    llm_call_t c;
    size_t i;

    call_init(&c, LLM_ROUTE_CHAT, 1, 3);
    c.include_usage = 1;
    answer_init(&a, pool, &c);

    while ((e = next_event(&at)) != NULL && strcmp(e, "[DONE]") != 0) {
        v = json_of(e, strlen(e));
        if (first == NULL) {
            first = json_incref(v);
            a.id = str(json_string_value(json_object_get(v, "id")) + 9);
            a.model = str(json_string_value(json_object_get(v, "model")));
            a.fingerprint = str(
                json_string_value(json_object_get(v, "system_fingerprint")));
            a.created = json_integer_value(json_object_get(v, "created"));
        }
        if (json_array_size(json_object_get(v, "choices")) == 0) {
            for (i = 0; i < 3; i++) { /* those that it does not have */
                a.choices[i].finish |= a.choices[i].started ? 0 : 1;
            }
            replay_usage(&a, json_object_get(v, "usage"));
        }
        json_array_foreach(json_object_get(v, "choices"), i, choice)
        {
            replay_chunk(&a, choice);
        }
        json_decref(v);
    }

    ours = take(&a);
    cut(ours, ",\"usage\":null");
    cut(ours, "\"prompt_tokens_details\":{\"cached_tokens\":0},");
    if (strcmp(ours, recorded) != 0) {
        print_message("have %s\nwant %s\n", ours, recorded);
    }
    assert_string_equal(ours, recorded);
    free(ours);
    free(copy);
    json_decref(first);
    pool_free(pool);
}

static void
test_recorded(void **state)
{
    char path[512], file[1024], *s;
    struct dirent *e;
    int played = 0;
    size_t len;
    DIR *d;

    (void) state;

    (void) snprintf(path, sizeof(path), "%s/http-json/openai-sse", data_dir());
    d = opendir(path);
    if (d == NULL) {
        print_message("no %s\n", path);
        skip();
    }
    while ((e = readdir(d)) != NULL) {
        if (strstr(e->d_name, ".txt") == NULL) {
            continue;
        }
        (void) snprintf(file, sizeof(file), "%s/%s", path, e->d_name);
        s = file_read(file, &len);
        assert_non_null(s);

        /* the others are refusals and tool calls */

        if (strstr(s, "\"content\":null") == NULL) {
            replay(s);
            played++;
        }
        free(s);
    }
    closedir(d);
    print_message("%d streams\n", played);
    assert_int_equal(played, 4);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_chat),
        cmocka_unit_test(test_reasoning),
        cmocka_unit_test(test_calls),
        cmocka_unit_test(test_whole_text),
        cmocka_unit_test(test_stream_chat),
        cmocka_unit_test(test_stream_text),
        cmocka_unit_test(test_nonsense),
        cmocka_unit_test(test_failing),
        cmocka_unit_test(test_recorded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
