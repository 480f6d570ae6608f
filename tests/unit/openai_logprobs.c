/*
 * Catches: logprobs of another shape than OpenAI's, bytes of a token that are
 * not exact, numbers that JSON has no words for, entries from the engine that
 * do not add up, offsets that point beside the text.
 */
#include "openai_test.h"

#include <math.h>

static void
call_init(llm_call_t *c, uint32_t route, int stream, uint32_t top)
{
    memset(c, 0, sizeof(*c));
    c->route = route;
    c->stream = stream;
    c->prompts_n = 1;
    c->head.n = 1;
    c->head.flags = LLM_F_LOGPROBS;
    c->head.top_logprobs = top;
}

/* Two tokens, the second a part of a character, with two tops each. */
static uint32_t
two_tokens(uint8_t *lp, uint16_t top)
{
    uint32_t len = 0;

    lp_put(lp, &len, "Hi", 2, -0.5f, top);
    if (top) {
        lp_put(lp, &len, "Yo", 2, -0.25f, 0);
        lp_put(lp, &len, "Hi", 2, -0.5f, 0);
    }
    lp_put(lp, &len, "\xe4\xb8", 2, -INFINITY, top);
    if (top) {
        lp_put(lp, &len, "\"", 1, NAN, 0);
        lp_put(lp, &len, "", 0, 0.0001f, 0);
    }

    return len;
}

/* logprobs of the first choice in an answer or a chunk, as text */
static char *
logprobs_of(const char *s)
{
    json_t *v = json_of(s, strlen(s)), *lp;
    char *r;

    lp = json_object_get(
        json_array_get(json_object_get(v, "choices"), 0), "logprobs");
    assert_non_null(lp);
    r = json_dumps(lp, JSON_COMPACT | JSON_ENCODE_ANY);
    json_decref(v);

    return r;
}

static void
answer_lp(uint32_t route, int stream, uint16_t top, const char *expected)
{
    pool_t *pool = pool_new();
    uint8_t lp[512];
    llm_answer_t a;
    llm_call_t c;
    char *s, *at, *e, *r;
    uint32_t len = two_tokens(lp, top);

    call_init(&c, route, stream, top);
    answer_init(&a, pool, &c);
    assert_int_equal(send_lp(&a, 0, "Hi", lp, len), 0);
    assert_int_equal(send_text(&a, 0, "", LLM_FINISH_STOP), 0);
    assert_int_equal(send_done(&a), 0);
    at = s = take(&a);
    if (stream && route == LLM_ROUTE_CHAT) {
        e = next_event(&at);
        r = logprobs_of(e);
        assert_json(r, strlen(r), "{'content':[],'refusal':null}");
        free(r);
    }
    e = stream ? next_event(&at) : s;
    r = logprobs_of(e);
    assert_json(r, strlen(r), expected);
    free(r);
    if (stream) {
        r = logprobs_of(next_event(&at)); /* the finish chunk */
        assert_string_equal(r, "null");
        free(r);
    }
    free(s);
    pool_free(pool);
}

static void
test_chat(void **state)
{
    int stream;

    (void) state;

    for (stream = 0; stream < 2; stream++) {
        answer_lp(LLM_ROUTE_CHAT, stream, 0,
            "{'content':[{'token':'Hi','logprob':-0.5,'bytes':[72,105],"
            "'top_logprobs':[]},{'token':'\xef\xbf\xbd','logprob':-9999.0,"
            "'bytes':[228,184],'top_logprobs':[]}],'refusal':null}");
        answer_lp(LLM_ROUTE_CHAT, stream, 2,
            "{'content':[{'token':'Hi','logprob':-0.5,'bytes':[72,105],"
            "'top_logprobs':["
            "{'token':'Yo','logprob':-0.25,'bytes':[89,111]},"
            "{'token':'Hi','logprob':-0.5,'bytes':[72,105]}]},"
            "{'token':'\xef\xbf\xbd','logprob':-9999.0,'bytes':[228,184],"
            "'top_logprobs':["
            "{'token':'\\'','logprob':-9999.0,'bytes':[34]},"
            "{'token':'','logprob':0.0,'bytes':[]}]}],'refusal':null}");
    }
}

static void
test_text(void **state)
{
    int stream;

    (void) state;

    for (stream = 0; stream < 2; stream++) {
        answer_lp(LLM_ROUTE_TEXT, stream, 0,
            "{'tokens':['Hi','bytes:\\\\xe4\\\\xb8'],"
            "'token_logprobs':[-0.5,-9999.0],'top_logprobs':null,"
            "'text_offset':[0,2]}");
        answer_lp(LLM_ROUTE_TEXT, stream, 2,
            "{'tokens':['Hi','bytes:\\\\xe4\\\\xb8'],"
            "'token_logprobs':[-0.5,-9999.0],'top_logprobs':["
            "{'Yo':-0.25,'Hi':-0.5},"
            "{'\\'':-9999.0,'':0.0,'bytes:\\\\xe4\\\\xb8':-9999.0}],"
            "'text_offset':[0,2]}");
    }
}

/* Ids that have the same bytes are one key, the likelier of them. */
static void
test_text_equal(void **state)
{
    pool_t *pool = pool_new();
    uint8_t lp[512];
    llm_answer_t a;
    llm_call_t c;
    uint32_t len = 0;
    char *s, *r;

    (void) state;

    lp_put(lp, &len, "A", 1, -3, 3);
    lp_put(lp, &len, "A", 1, -1, 0);
    lp_put(lp, &len, "B", 1, -2, 0);
    lp_put(lp, &len, "A", 1, -3, 0);
    call_init(&c, LLM_ROUTE_TEXT, 0, 3);
    answer_init(&a, pool, &c);
    assert_int_equal(send_lp(&a, 0, "A", lp, len), 0);
    assert_int_equal(send_text(&a, 0, "", LLM_FINISH_STOP), 0);
    assert_int_equal(send_done(&a), 0);
    s = take(&a);
    r = logprobs_of(s);
    assert_json(r, strlen(r),
        "{'tokens':['A'],'token_logprobs':[-3.0],'top_logprobs':["
        "{'A':-1.0,'B':-2.0}],'text_offset':[0]}");
    free(r);
    free(s);
    pool_free(pool);
}

/* Offsets count characters over all events, parts of one only once. */
static void
test_offsets(void **state)
{
    pool_t *pool = pool_new();
    uint8_t lp[512];
    llm_answer_t a;
    llm_call_t c;
    uint32_t len = 0;
    char *s, *at, *r;

    (void) state;

    call_init(&c, LLM_ROUTE_TEXT, 1, 0);
    answer_init(&a, pool, &c);
    lp_put(lp, &len, "\xe4\xb8", 2, -1, 0);
    lp_put(lp, &len, "\x96", 1, -1, 0);
    lp_put(lp, &len, "\xc3\xa9x", 3, -1, 0);
    assert_int_equal(send_lp(&a, 0, "\xe4\xb8\x96\xc3\xa9x", lp, len), 0);
    len = 0;
    lp_put(lp, &len, "y", 1, -1, 0);
    assert_int_equal(send_lp(&a, 0, "y", lp, len), 0);
    at = s = take(&a);
    r = logprobs_of(next_event(&at));
    assert_json(r, strlen(r),
        "{'tokens':['bytes:\\\\xe4\\\\xb8','bytes:\\\\x96','\xc3\xa9x'],"
        "'token_logprobs':[-1.0,-1.0,-1.0],'top_logprobs':null,"
        "'text_offset':[0,1,1]}");
    free(r);
    r = logprobs_of(next_event(&at));
    assert_json(r, strlen(r),
        "{'tokens':['y'],'token_logprobs':[-1.0],'top_logprobs':null,"
        "'text_offset':[3]}");
    free(r);
    free(s);
    pool_free(pool);
}

/* Entries cut at each byte, and tops that are not there. */
static void
test_nonsense(void **state)
{
    uint8_t lp[512];
    llm_answer_t a;
    llm_call_t c;
    pool_t *pool;
    uint32_t len = two_tokens(lp, 2), cut;
    int route, stream, rc;

    (void) state;

    for (route = LLM_ROUTE_CHAT; route <= LLM_ROUTE_TEXT; route++) {
        for (stream = 0; stream < 2; stream++) {
            for (cut = 1; cut <= len; cut++) {
                pool = pool_new();
                call_init(&c, (uint32_t) route, stream, 2);
                answer_init(&a, pool, &c);
                rc = send_lp(&a, 0, "Hi", lp, cut);
                assert_int_equal(
                    rc, cut == len || cut == 48 ? 0 : -LLM_ERR_PROTOCOL);
                assert_int_equal(a.out.len != 0, rc == 0 && stream);
                pool_free(pool);
            }
        }
    }
}

static void
test_not_asked(void **state)
{
    pool_t *pool = pool_new();
    uint8_t lp[512];
    llm_answer_t a;
    llm_call_t c;
    uint32_t len = two_tokens(lp, 0);
    char *s, *r;

    (void) state;

    call_init(&c, LLM_ROUTE_CHAT, 0, 0);
    c.head.flags = 0;
    answer_init(&a, pool, &c);
    assert_int_equal(send_lp(&a, 0, "Hi", lp, len), 0);
    assert_int_equal(send_text(&a, 0, "", LLM_FINISH_STOP), 0);
    assert_int_equal(send_done(&a), 0);
    s = take(&a);
    r = logprobs_of(s);
    assert_string_equal(r, "null");
    free(r);
    free(s);
    pool_free(pool);
}

/*
 * The real service's entries, token by token: what it wrote for a token's
 * bytes and logprob, we write for the same, to the letter.
 */
static void
test_recorded(void **state)
{
    static const char begin[] = "\"refusal\":[{";
    char path[512], *s, *at, *p, *end, *ours;
    pool_t *pool;
    size_t len, k, n = 0;
    json_t *v, *bytes;
    uint8_t lp[512];
    char token[64];
    uint32_t lp_len;
    llm_answer_t a;
    llm_call_t c;

    (void) state;

    (void) snprintf(path, sizeof(path),
        "%s/http-json/openai-sse/569c877e6942.txt", data_dir());
    at = s = file_read(path, &len);
    if (s == NULL) {
        print_message("no %s\n", path);
        skip();
    }
    pool = pool_new();
    call_init(&c, LLM_ROUTE_CHAT, 1, 0);
    answer_init(&a, pool, &c);
    assert_int_equal(send_text(&a, 0, "", 0), 0);
    free(take(&a)); /* the role */

    while ((p = next_event(&at)) != NULL) {
        p = strstr(p, begin);
        if (p == NULL) {
            continue;
        }
        p += sizeof(begin) - 2;
        end = strstr(p, "]},\"finish_reason\"");
        v = json_of(p, (size_t) (end - p));
        bytes = json_object_get(v, "bytes");
        for (k = 0; k < json_array_size(bytes); k++) {
            token[k] = (char) json_integer_value(json_array_get(bytes, k));
        }
        lp_len = 0;
        lp_put(lp, &lp_len, token, k,
            (float) json_number_value(json_object_get(v, "logprob")), 0);
        assert_int_equal(send_lp(&a, 0, "", lp, lp_len), 0);
        ours = take(&a);
        assert_non_null(strstr(ours, "\"content\":[{"));
        assert_memory_equal(
            strstr(ours, "\"content\":[{") + 11, p, (size_t) (end - p));
        free(ours);
        json_decref(v);
        n++;
    }
    print_message("%zu entries\n", n);
    assert_true(n > 5);
    free(s);
    pool_free(pool);
}

static int
send_prompt(llm_answer_t *a, const uint8_t *lp, uint32_t len, uint32_t prompt)
{
    llm_wire_tokens_t t;

    memset(&t, 0, sizeof(t));
    t.lp_len = len;
    t.prompt = prompt;

    return llm_dialect_openai.tokens(a, &t, (const uint8_t *) "", lp);
}

/* A prompt's entries: in the lists with echo, in a field of their own. */
static void
test_prompt(void **state)
{
    static const char *const want[] = {
        "[null,{\"7\":{\"logprob\":-0.5,\"rank\":1,\"decoded_token\":\"b\"}}]",
        "[null,{\"7\":{\"logprob\":-0.5,\"rank\":1,\"decoded_token\":\"b\"}}]"};
    pool_t *pool = pool_new();
    uint8_t lp[256];
    uint32_t len, i;
    llm_answer_t a;
    llm_call_t c;
    char *s, *p;
    json_t *v;

    (void) state;
    for (i = 0; i < 2; i++) {
        call_init(&c, i ? LLM_ROUTE_CHAT : LLM_ROUTE_TEXT, 0, 1);
        c.head.flags |= LLM_F_PROMPT_LPS;
        c.prompt_logprobs = 1;
        answer_init(&a, pool, &c);
        len = 0;
        lp_put(lp, &len, "a", 1, NAN, 0);
        lp_put(lp, &len, "b", 1, -0.5f, 1);
        lp_put(lp, &len, "b", 1, -0.5f, 0);
        lp_put(lp, &len, "c", 1, -1, 0);
        assert_int_equal(send_prompt(&a, lp, len, 2), 0);
        assert_int_equal(send_text(&a, 0, "", LLM_FINISH_STOP), 0);
        assert_int_equal(send_done(&a), 0);
        s = take(&a);
        v = json_of(s, strlen(s));
        p = json_dumps(
            json_object_get(
                i ? v : json_array_get(json_object_get(v, "choices"), 0),
                "prompt_logprobs"),
            JSON_COMPACT);
        assert_string_equal(p, want[i]);
        free(p);
        p = logprobs_of(s);
        assert_null(strstr(p, "\"a\""));
        assert_non_null(strstr(p, "\"c\""));
        free(p);
        free(s);
        json_decref(v);
    }

    /* echoed: null for the first, in both lists */
    call_init(&c, LLM_ROUTE_TEXT, 0, 1);
    c.head.flags |= LLM_F_PROMPT_LPS | LLM_F_ECHO;
    answer_init(&a, pool, &c);
    assert_int_equal(send_prompt(&a, lp, len, 2), 0);
    assert_int_equal(send_text(&a, 0, "", LLM_FINISH_STOP), 0);
    assert_int_equal(send_done(&a), 0);
    s = take(&a);
    p = logprobs_of(s);
    assert_string_equal(p,
        "{\"tokens\":[\"a\",\"b\",\"c\"],\"token_logprobs\":[null,-0.5,-1.0],"
        "\"top_logprobs\":[null,{\"b\":-0.5},{\"c\":-1.0}],"
        "\"text_offset\":[0,1,2]}");
    free(p);
    free(s);

    /* more than there are */
    c.prompt_logprobs = 1;
    answer_init(&a, pool, &c);
    assert_int_equal(send_prompt(&a, lp, len, 4), -LLM_ERR_PROTOCOL);
    pool_free(pool);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prompt),
        cmocka_unit_test(test_chat),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_text_equal),
        cmocka_unit_test(test_offsets),
        cmocka_unit_test(test_nonsense),
        cmocka_unit_test(test_not_asked),
        cmocka_unit_test(test_recorded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
