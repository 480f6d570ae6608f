/*
 * Catches: a known field of a wrong type or out of its range that gets
 * through, or is refused without its name; a field that changes the answer's
 * contract and is silently ignored; defaults other than OpenAI's; limits of
 * the configuration that do not bind; memory that fails in the middle.
 */
#include "openai_test.h"

#define MSG  "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define CHAT "{\"model\":\"m\"," MSG
#define TEXT "{\"model\":\"m\",\"prompt\":\"p\""

/* A chat with more fields behind it, written with ' for ". */
static int
more(pool_t *pool, uint32_t route, const char *fields, llm_call_t *call,
    llm_refusal_t *why)
{
    static char body[8192];
    char *p;

    (void) snprintf(body, sizeof(body), "%s%s%s}",
        route == LLM_ROUTE_CHAT ? CHAT : TEXT, fields[0] != '\0' ? "," : "",
        fields);
    for (p = body; *p != '\0'; p++) {
        if (*p == '\'') {
            *p = '"';
        }
    }

    return parse(pool, route, body, call, why);
}

static void
test_defaults(void **state)
{
    pool_t *pool = pool_new();
    llm_refusal_t why;
    llm_call_t c;

    (void) state;

    assert_int_equal(more(pool, LLM_ROUTE_CHAT, "", &c, &why), 0);
    assert_int_equal(c.route, LLM_ROUTE_CHAT);
    assert_int_equal(c.stream, 0);
    assert_int_equal(c.include_usage, 0);
    assert_int_equal(c.head.kind, LLM_KIND_CHAT);
    assert_int_equal(c.head.head_len, sizeof(llm_wire_submit_t));
    assert_int_equal(c.head.flags, 0);
    assert_int_equal(c.head.n, 1);
    assert_int_equal(c.head.max_tokens, 0);
    assert_int_equal(c.head.top_logprobs, 0);
    assert_int_equal(c.head.top_k, 0);
    assert_true(c.head.temperature == 1);
    assert_true(c.head.top_p == 1);
    assert_true(c.head.min_p == 0);
    assert_true(c.head.repetition_penalty == 1);
    assert_true(c.head.presence_penalty == 0);
    assert_true(c.head.frequency_penalty == 0);
    assert_int_equal(c.stops_n, 0);
    assert_int_equal(c.bias_n, 0);
    assert_int_equal(c.model.len, 1);
    assert_memory_equal(c.model.data, "m", 1);
    assert_json(
        c.messages.data, c.messages.len, "[{'role':'user','content':'hi'}]");

    assert_int_equal(more(pool, LLM_ROUTE_TEXT, "", &c, &why), 0);
    assert_int_equal(c.head.kind, LLM_KIND_TEXT);
    assert_int_equal(c.head.max_tokens, 16);
    assert_int_equal(c.prompts_n, 1);
    assert_int_equal(c.prompts[0].len, 1);
    assert_memory_equal(c.prompts[0].data, "p", 1);
    assert_int_equal(c.prompt_is_ids[0], 0);

    pool_free(pool);
}

static void
test_all_fields(void **state)
{
    pool_t *pool = pool_new();
    llm_refusal_t why;
    llm_call_t c;

    (void) state;

    assert_int_equal(more(pool, LLM_ROUTE_CHAT,
                         "'stream':true,'stream_options':{'include_usage':true,"
                         "'include_obfuscation':false},'max_tokens':5,"
                         "'max_completion_tokens':7,'temperature':0.5,"
                         "'top_p':0.25,'n':2,'stop':['a','\\u00e9\\u0000'],"
                         "'presence_penalty':-2,'frequency_penalty':2,"
                         "'logit_bias':{'50256':-100,'0':1.5},'logprobs':true,"
                         "'top_logprobs':20,'seed':-3,'top_k':40,'min_p':0.125,"
                         "'repetition_penalty':1.25,'ignore_eos':true,"
                         "'cache_salt':'s\\u0000t',"
                         "'user':'u','metadata':{'a':['b']},'store':false",
                         &c, &why),
        0);
    assert_int_equal(c.stream, 1);
    assert_int_equal(c.include_usage, 1);
    assert_int_equal(c.head.max_tokens, 7);
    assert_true(c.head.temperature == 0.5f);
    assert_true(c.head.top_p == 0.25f);
    assert_int_equal(c.head.n, 2);
    assert_int_equal(c.stops_n, 2);
    assert_int_equal(c.stops[0].len, 1);
    assert_int_equal(c.stops[1].len, 3);
    assert_memory_equal(c.stops[1].data, "\xc3\xa9\0", 3);
    assert_true(c.head.presence_penalty == -2);
    assert_true(c.head.frequency_penalty == 2);
    assert_int_equal(c.bias_n, 2);
    assert_int_equal(c.bias[0].token, 50256);
    assert_true(c.bias[0].bias == -100);
    assert_int_equal(c.bias[1].token, 0);
    assert_true(c.bias[1].bias == 1.5f);
    assert_int_equal(
        c.head.flags, LLM_F_LOGPROBS | LLM_F_SEED | LLM_F_IGNORE_EOS);
    assert_int_equal(c.head.top_logprobs, 20);
    assert_true(c.head.seed == (uint64_t) -3);
    assert_int_equal(c.head.top_k, 40);
    assert_true(c.head.min_p == 0.125f);
    assert_true(c.head.repetition_penalty == 1.25f);
    assert_int_equal(c.salt.len, 3);
    assert_memory_equal(c.salt.data, "s\0t", 3);

    pool_free(pool);
}

static void
test_null_is_absent(void **state)
{
    static const char nulls[] =
        "'stream':null,'stream_options':null,'max_tokens':null,"
        "'max_completion_tokens':null,'temperature':null,'top_p':null,"
        "'n':null,'stop':null,'presence_penalty':null,'frequency_penalty':null,"
        "'logit_bias':null,'logprobs':null,'top_logprobs':null,'seed':null,"
        "'top_k':null,'min_p':null,'repetition_penalty':null,"
        "'ignore_eos':null,'cache_salt':null,'tools':null,'tool_choice':null,'"
        "functions':null,"
        "'function_call':null,'response_format':null,'audio':null,"
        "'modalities':null,'suffix':null,'best_of':null,'echo':null";
    pool_t *pool = pool_new();
    llm_call_t a, b;
    llm_refusal_t why;

    (void) state;

    assert_int_equal(more(pool, LLM_ROUTE_CHAT, nulls, &a, &why), 0);
    assert_int_equal(more(pool, LLM_ROUTE_CHAT, "", &b, &why), 0);
    assert_memory_equal(&a.head, &b.head, sizeof(a.head));
    assert_int_equal(more(pool, LLM_ROUTE_TEXT, nulls, &a, &why), 0);
    assert_int_equal(more(pool, LLM_ROUTE_TEXT, "", &b, &why), 0);
    assert_memory_equal(&a.head, &b.head, sizeof(a.head));

    pool_free(pool);
}

typedef struct {
    const char *fields;
    const char *param; /* NULL: accepted */
    uint32_t err;
} row_t;

static void
rows_run(uint32_t route, const row_t *rows, size_t n)
{
    pool_t *pool;
    llm_refusal_t why;
    llm_call_t c;
    size_t i;
    int rc, want;

    for (i = 0; i < n; i++) {
        pool = pool_new();
        want = rows[i].param == NULL ? 0
               : rows[i].err != 0    ? -(int) rows[i].err
                                     : -LLM_ERR_BAD_FIELD;
        rc = more(pool, route, rows[i].fields, &c, &why);
        if (rc != want || (rc != 0 && strcmp(why.param, rows[i].param) != 0)) {
            print_message(
                "%s: %d, %s: %s\n", rows[i].fields, rc, why.param, why.text);
        }
        assert_int_equal(rc, want);
        if (rc != 0) {
            assert_int_equal(why.err, -rc);
            assert_string_equal(why.param, rows[i].param);
            assert_true(why.text[0] != '\0' || rc == -LLM_ERR_NO_MODEL);
        }
        pool_free(pool);
    }
}

#define ROWS(route, rows) rows_run(route, rows, sizeof(rows) / sizeof(rows[0]))

/* Fields that both routes know. */
static const row_t both[] = {
    {"'stream':1", "stream", 0},
    {"'stream':'true'", "stream", 0},
    {"'stream':false", NULL, 0},
    {"'stream_options':{}", "stream_options", 0},
    {"'stream':true,'stream_options':[]", "stream_options", 0},
    {"'stream':true,'stream_options':{}", NULL, 0},
    {"'stream':true,'stream_options':{'include_usage':1}",
        "stream_options.include_usage", 0},
    {"'max_tokens':0", "max_tokens", 0},
    {"'max_tokens':-1", "max_tokens", 0},
    {"'max_tokens':1.5", "max_tokens", 0},
    {"'max_tokens':16.0", NULL, 0},
    {"'max_tokens':1e3", NULL, 0},
    {"'max_tokens':1e300", "max_tokens", 0},
    {"'max_tokens':2147483647", NULL, 0},
    {"'max_tokens':2147483648", "max_tokens", 0},
    {"'max_tokens':'5'", "max_tokens", 0},
    {"'max_tokens':{}", "max_tokens", 0},
    {"'temperature':0", NULL, 0},
    {"'temperature':2", NULL, 0},
    {"'temperature':2.0001", "temperature", 0},
    {"'temperature':-0.1", "temperature", 0},
    {"'temperature':'1'", "temperature", 0},
    {"'temperature':true", "temperature", 0},
    {"'top_p':0", NULL, 0},
    {"'top_p':1.01", "top_p", 0},
    {"'top_p':-1", "top_p", 0},
    {"'min_p':2", "min_p", 0},
    {"'top_k':-1", NULL, 0},
    {"'top_k':-2", "top_k", 0},
    {"'top_k':0.5", "top_k", 0},
    {"'repetition_penalty':0", "repetition_penalty", 0},
    {"'repetition_penalty':10.5", "repetition_penalty", 0},
    {"'presence_penalty':2.1", "presence_penalty", 0},
    {"'frequency_penalty':-2.1", "frequency_penalty", 0},
    {"'frequency_penalty':[]", "frequency_penalty", 0},
    {"'n':0", "n", 0},
    {"'n':17", "n", 0},
    {"'n':16", NULL, 0},
    {"'n':'2'", "n", 0},
    {"'n':true", "n", 0},
    {"'seed':9223372036854775807", NULL, 0},
    {"'seed':-9223372036854775808", NULL, 0},
    {"'seed':1.5", "seed", 0},
    {"'seed':'x'", "seed", 0},
    {"'seed':0", NULL, 0},
    {"'seed':9223372036854775808", "", 0},
    {"'ignore_eos':0", "ignore_eos", 0},
    {"'cache_salt':'x'", NULL, 0},
    {"'cache_salt':''", "cache_salt", 0},
    {"'cache_salt':7", "cache_salt", 0},
    {"'stop':'x'", NULL, 0},
    {"'stop':[]", NULL, 0},
    {"'stop':''", "stop", 0},
    {"'stop':5", "stop", 0},
    {"'stop':['a','b','']", "stop[2]", 0},
    {"'stop':['a',1]", "stop[1]", 0},
    {"'stop':[null]", "stop[0]", 0},
    {"'stop':{}", "stop", 0},
    {"'logit_bias':[]", "logit_bias", 0},
    {"'logit_bias':{}", NULL, 0},
    {"'logit_bias':{'1':100.5}", "logit_bias", 0},
    {"'logit_bias':{'1':'1'}", "logit_bias", 0},
    {"'logit_bias':{'1':null}", "logit_bias", 0},
    {"'logit_bias':{'':1}", "logit_bias", 0},
    {"'logit_bias':{'a':1}", "logit_bias", 0},
    {"'logit_bias':{'+1':1}", "logit_bias", 0},
    {"'logit_bias':{'-1':1}", "logit_bias", 0},
    {"'logit_bias':{'01':1}", "logit_bias", 0},
    {"'logit_bias':{'1 ':1}", "logit_bias", 0},
    {"'logit_bias':{'4294967295':1}", "logit_bias", 0},
    {"'logit_bias':{'18446744073709551617':1}", "logit_bias", 0},
    {"'logit_bias':{'4294967294':1,'0':-1}", NULL, 0},
    {"'response_format':{'type':'text'}", NULL, 0},
    {"'tools':[]", NULL, 0},
    {"'tools':{}", "tools", 0},
    {"'tool_choice':'auto'", NULL, 0},
    {"'tool_choice':1", "tool_choice", 0},
    {"'functions':[{}]", "functions", LLM_ERR_UNSUPPORTED},
    {"'functions':[{}],'function_call':'none'", NULL, 0},
    {"'audio':{}", "audio", LLM_ERR_UNSUPPORTED},
    {"'modalities':['text']", NULL, 0},
    {"'modalities':['text','audio']", "modalities", LLM_ERR_UNSUPPORTED},
    {"'modalities':[1]", "modalities", 0},
    {"'modalities':'text'", "modalities", 0},
    {"'user':1,'metadata':[],'store':'x','service_tier':{}", NULL, 0},
    {"'model':5", "model", 0},
    {"'model':''", "model", 0},
    {"'model':null", "model", 0},
    {"'temperature':9,'temperature':1", NULL, 0},
    {"'temperature':1,'temperature':9", "temperature", 0},
};

static void
test_values(void **state)
{
    (void) state;

    ROWS(LLM_ROUTE_CHAT, both);
    ROWS(LLM_ROUTE_TEXT, both);
}

#define TOOL "{'type':'function','function':{'name':'f'}}"

static void
test_values_chat(void **state)
{
    static const row_t rows[] = {
        {"'max_completion_tokens':0", "max_completion_tokens", 0},
        {"'logprobs':1", "logprobs", 0},
        {"'logprobs':false", NULL, 0},
        {"'top_logprobs':1", "top_logprobs", 0},
        {"'top_logprobs':0", NULL, 0},
        {"'logprobs':true,'top_logprobs':21", "top_logprobs", 0},
        {"'logprobs':true,'top_logprobs':20", NULL, 0},
        {"'logprobs':true,'top_logprobs':true", "top_logprobs", 0},
        {"'best_of':7", NULL, 0},
        {"'echo':7", NULL, 0},
        {"'tools':[" TOOL "]", NULL, 0},
        {"'tools':[" TOOL "],'tool_choice':'auto'", NULL, 0},
        {"'tools':[" TOOL "],'tool_choice':'none'", NULL, 0},
        {"'tool_choice':{'type':'function'}", "tool_choice", 0},
        {"'tool_choice':'any'", "tool_choice", 0},
        {"'tool_choice':{'type':'custom'}", "tool_choice.type",
            LLM_ERR_UNSUPPORTED},
        {"'tool_choice':{'type':'function','function':{'name':'f'}}",
            "tool_choice.function.name", 0},
        {"'parallel_tool_calls':1", "parallel_tool_calls", 0},
        {"'parallel_tool_calls':false", NULL, 0},
        {"'tools':[" TOOL ",5]", "tools[1]", 0},
        {"'tools':[{'type':'code'}]", "tools[0].type", LLM_ERR_UNSUPPORTED},
        {"'tools':[{'type':'function'}]", "tools[0].function.name", 0},
        {"'tools':[{'type':'function','function':{'name':''}}]",
            "tools[0].function.name", 0},
        {"'tools':[{'type':'function','function':{'name':'a b'}}]",
            "tools[0].function.name", 0},
        {"'tools':[{'type':'function','function':{'name':"
         "'123456789a123456789b123456789c123456789d123456789e123456789f"
         "1234'}}]",
            NULL, 0},
        {"'tools':[{'type':'function','function':{'name':"
         "'123456789a123456789b123456789c123456789d123456789e123456789f"
         "12345'}}]",
            "tools[0].function.name", 0},
        {"'tools':[" TOOL "," TOOL "]", "tools[1].function.name", 0},
        {"'tools':[{'type':'function','function':{'name':'f',"
         "'parameters':[]}}]",
            "tools[0].function.parameters", 0},
        {"'tools':[{'type':'function','function':{'name':'f',"
         "'parameters':{'a':[{}]}}}]",
            NULL, 0},
        {"'tools':[{'type':'function','function':{'name':'f',"
         "'description':1}}]",
            "tools[0].function.description", 0},
        {"'tools':[{'type':'function','function':{'name':'f','strict':1}}]",
            "tools[0].function.strict", 0},
        {"'documents':[{'text':'x'}]", NULL, 0},
        {"'documents':{}", "documents", 0},
        {"'chat_template_kwargs':{'enable_thinking':false}", NULL, 0},
        {"'chat_template_kwargs':[]", "chat_template_kwargs", 0},
        {"'chat_template':'{{ x }}'", "chat_template", LLM_ERR_UNSUPPORTED},
        {"'add_generation_prompt':false", NULL, 0},
        {"'add_generation_prompt':0", "add_generation_prompt", 0},
        {"'separate_reasoning':true", NULL, 0},
        {"'separate_reasoning':1", "separate_reasoning", 0},
        {"'continue_final_message':false", NULL, 0},
        {"'continue_final_message':true", "continue_final_message", 0},
        {"'continue_final_message':1", "continue_final_message", 0},
        {"'continue_final_message':true,'add_generation_prompt':true",
            "continue_final_message", 0},
    };

    (void) state;

    ROWS(LLM_ROUTE_CHAT, rows);
}

/* What a template gets goes on as it came, and is gone with tool_choice. */
static void
test_template(void **state)
{
    pool_t *pool = pool_new();
    llm_refusal_t why;
    llm_call_t c;

    (void) state;

    assert_int_equal(more(pool, LLM_ROUTE_CHAT,
                         "'tools':[" TOOL "],'documents':[ 1 ],"
                         "'chat_template_kwargs':{ 'a' : 'b' "
                         "},'add_generation_prompt':false",
                         &c, &why),
        0);
    assert_int_equal(c.head.flags, LLM_F_TEMPLATE | LLM_F_NO_TURN);
    assert_json(c.tools.data, c.tools.len, "[" TOOL "]");
    assert_int_equal(c.head.wants, LLM_W_REASONING | LLM_W_CALLS);
    assert_int_equal(c.documents.len, 3);
    assert_memory_equal(c.documents.data, "[1]", 3);
    assert_int_equal(c.kwargs.len, 9);
    assert_memory_equal(c.kwargs.data, "{\"a\":\"b\"}", 9);

    assert_int_equal(more(pool, LLM_ROUTE_CHAT,
                         "'tools':[" TOOL "],'tool_choice':'none'", &c, &why),
        0);
    assert_int_equal(c.head.flags, 0);
    assert_int_equal(c.tools.len, 0);
    assert_int_equal(c.head.wants & LLM_W_CALLS, 0);

    assert_int_equal(more(pool, LLM_ROUTE_CHAT,
                         "'continue_final_message':true,'messages':[{'role':"
                         "'assistant','content':'a'}]",
                         &c, &why),
        0);
    assert_int_equal(c.head.flags, LLM_F_NO_TURN | LLM_F_GO_ON);
    assert_int_equal(c.head.wants, LLM_W_REASONING);

    assert_int_equal(
        more(pool, LLM_ROUTE_CHAT, "'separate_reasoning':false", &c, &why), 0);
    assert_int_equal(c.head.wants, 0);
    assert_int_equal(more(pool, LLM_ROUTE_TEXT, "", &c, &why), 0);
    assert_int_equal(c.head.wants, 0);

    pool_free(pool);
}

static void
test_values_text(void **state)
{
    static const row_t rows[] = {
        {"'logprobs':true", "logprobs", 0},
        {"'logprobs':0", NULL, 0},
        {"'logprobs':20", NULL, 0},
        {"'logprobs':21", "logprobs", 0},
        {"'logprobs':-1", "logprobs", 0},
        {"'best_of':1", NULL, 0},
        {"'n':3,'best_of':3", NULL, 0},
        {"'n':3,'best_of':4", "best_of", LLM_ERR_UNSUPPORTED},
        {"'best_of':2", "best_of", LLM_ERR_UNSUPPORTED},
        {"'best_of':'2'", "best_of", 0},
        {"'tools':[{}]", "tools", LLM_ERR_UNSUPPORTED},
        {"'tools':[{}],'tool_choice':'auto'", "tools", LLM_ERR_UNSUPPORTED},
        {"'tools':[{}],'tool_choice':'none'", NULL, 0},
        {"'tool_choice':'required'", "tool_choice", LLM_ERR_UNSUPPORTED},
        {"'echo':1", "echo", 0},
        {"'echo':true", NULL, 0},
        {"'echo':true,'logprobs':1", NULL, 0},
        {"'echo':true,'logprobs':1,'prompt_logprobs':1", NULL, 0},
        {"'echo':true,'logprobs':1,'prompt_logprobs':2", "prompt_logprobs", 0},
        {"'prompt_logprobs':20", NULL, 0},
        {"'prompt_logprobs':21", "prompt_logprobs", 0},
        {"'prompt_logprobs':-1", "prompt_logprobs", 0},
        {"'prompt_logprobs':1,'stream':true", "prompt_logprobs", 0},
        {"'max_tokens':0", "max_tokens", 0},
        {"'max_tokens':0,'echo':true", NULL, 0},
        {"'max_tokens':0,'prompt_logprobs':0", NULL, 0},
        {"'suffix':'x'", "suffix", LLM_ERR_UNSUPPORTED},
        {"'max_completion_tokens':'x'", NULL, 0},
        {"'top_logprobs':'x'", NULL, 0},
    };
    pool_t *pool = pool_new();
    llm_refusal_t why;
    llm_call_t c;

    (void) state;

    ROWS(LLM_ROUTE_TEXT, rows);
    assert_int_equal(more(pool, LLM_ROUTE_TEXT, "'logprobs':0", &c, &why), 0);
    assert_int_equal(c.head.flags, LLM_F_LOGPROBS);
    assert_int_equal(more(pool, LLM_ROUTE_TEXT, "'echo':true", &c, &why), 0);
    assert_int_equal(c.head.flags, LLM_F_ECHO);

    /* scoring, as evaluation harnesses ask for it */
    assert_int_equal(more(pool, LLM_ROUTE_TEXT,
                         "'echo':true,'max_tokens':0,'logprobs':3", &c, &why),
        0);
    assert_int_equal(c.head.flags,
        LLM_F_ECHO | LLM_F_LOGPROBS | LLM_F_PROMPT_LPS | LLM_F_SCORE);
    assert_int_equal(c.head.prompt_tops, 3);
    assert_int_equal(c.head.max_tokens, 1);
    assert_int_equal(c.prompt_logprobs, 0);
    assert_int_equal(
        more(pool, LLM_ROUTE_CHAT, "'prompt_logprobs':2", &c, &why), 0);
    assert_int_equal(c.head.flags, LLM_F_PROMPT_LPS);
    assert_int_equal(c.head.prompt_tops, 2);
    assert_int_equal(c.prompt_logprobs, 1);
    pool_free(pool);
}

static void
test_long_lists(void **state)
{
    static char f[70000];
    pool_t *pool = pool_new();
    llm_refusal_t why;
    llm_call_t c;
    size_t len;
    int i, n;

    (void) state;

    for (n = 16; n <= 17; n++) {
        len = (size_t) snprintf(f, sizeof(f), CHAT ",\"stop\":[");
        for (i = 0; i < n; i++) {
            len += (size_t) snprintf(
                f + len, sizeof(f) - len, "%s\"%d\"", i ? "," : "", i);
        }
        (void) snprintf(f + len, sizeof(f) - len, "]}");
        assert_int_equal(parse(pool, LLM_ROUTE_CHAT, f, &c, &why),
            n == 16 ? 0 : -LLM_ERR_BAD_FIELD);
    }
    assert_string_equal(why.param, "stop");

    for (n = 1024; n <= 1025; n++) {
        len = (size_t) snprintf(f, sizeof(f), CHAT ",\"logit_bias\":{");
        for (i = 0; i < n; i++) {
            len += (size_t) snprintf(
                f + len, sizeof(f) - len, "%s\"%d\":1", i ? "," : "", i);
        }
        (void) snprintf(f + len, sizeof(f) - len, "}}");
        assert_int_equal(parse(pool, LLM_ROUTE_CHAT, f, &c, &why),
            n == 1024 ? 0 : -LLM_ERR_BAD_FIELD);
    }
    assert_string_equal(why.param, "logit_bias");

    for (n = 256; n <= 257; n++) {
        (void) snprintf(f, sizeof(f), CHAT ",\"stop\":\"%0*d\"}", n, 1);
        assert_int_equal(parse(pool, LLM_ROUTE_CHAT, f, &c, &why),
            n == 256 ? 0 : -LLM_ERR_BAD_FIELD);
    }

    for (n = 127; n <= 128; n++) {
        (void) snprintf(f, sizeof(f), "{\"model\":\"%0*d\"," MSG "}", n, 1);
        assert_int_equal(parse(pool, LLM_ROUTE_CHAT, f, &c, &why),
            n == 127 ? 0 : -LLM_ERR_NO_MODEL);
    }
    assert_string_equal(why.param, "model");

    pool_free(pool);
}

static void
test_caps(void **state)
{
    static const struct {
        uint32_t route, max, def, want;
        const char *more;
    } rows[] = {
        {LLM_ROUTE_CHAT, 0, 0, 0, ""},
        {LLM_ROUTE_CHAT, 100, 0, 100, ""},
        {LLM_ROUTE_CHAT, 100, 50, 50, ""},
        {LLM_ROUTE_CHAT, 100, 500, 100, ""},
        {LLM_ROUTE_CHAT, 0, 50, 50, ""},
        {LLM_ROUTE_CHAT, 100, 50, 99, ",\"max_tokens\":99"},
        {LLM_ROUTE_CHAT, 100, 50, 100, ",\"max_tokens\":101"},
        {LLM_ROUTE_CHAT, 100, 50, 100, ",\"max_completion_tokens\":1000"},
        {LLM_ROUTE_TEXT, 0, 0, 16, ""},
        {LLM_ROUTE_TEXT, 8, 0, 8, ""},
        {LLM_ROUTE_TEXT, 0, 50, 50, ""},
        {LLM_ROUTE_TEXT, 8, 50, 8, ",\"max_tokens\":1000"},
    };
    pool_t *pool = pool_new();
    llm_refusal_t why;
    llm_caps_t caps;
    llm_call_t c;
    char body[256];
    size_t i;

    (void) state;

    memset(&caps, 0, sizeof(caps));
    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        caps.max_tokens = rows[i].max;
        caps.default_max_tokens = rows[i].def;
        (void) snprintf(body, sizeof(body), "%s%s}",
            rows[i].route == LLM_ROUTE_CHAT ? CHAT : TEXT, rows[i].more);
        assert_int_equal(llm_dialect_openai.parse(str(body), rows[i].route,
                             &caps, pool_alloc, pool, &c, &why),
            0);
        assert_int_equal(c.head.max_tokens, rows[i].want);
    }

    pool_free(pool);
}

static void
test_bodies(void **state)
{
    static const struct {
        const char *body;
        int rc;
    } rows[] = {
        {"", -LLM_ERR_BAD_JSON},
        {"{", -LLM_ERR_BAD_JSON},
        {"{}x", -LLM_ERR_BAD_JSON},
        {"nope", -LLM_ERR_BAD_JSON},
        {"{'model':'m'}", -LLM_ERR_BAD_JSON},
        {"{}", -LLM_ERR_BAD_FIELD},
        {"[]", -LLM_ERR_BAD_FIELD},
        {"null", -LLM_ERR_BAD_FIELD},
        {"5", -LLM_ERR_BAD_FIELD},
        {"\"x\"", -LLM_ERR_BAD_FIELD},
        {CHAT "}", 0},
        {" \n" CHAT "}\r\n", 0},
        {CHAT ",\"x\":\"\xff\"}", -LLM_ERR_BAD_JSON},
    };
    pool_t *pool = pool_new();
    llm_refusal_t why;
    llm_call_t c;
    size_t i;

    (void) state;

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(
            parse(pool, LLM_ROUTE_CHAT, rows[i].body, &c, &why), rows[i].rc);
    }
    assert_int_equal(
        parse(pool, LLM_ROUTE_MODELS, CHAT "}", &c, &why), -LLM_ERR_INTERNAL);

    pool_free(pool);
}

/* Where the configuration names a default, a request need not. */
static void
test_model_optional(void **state)
{
    static const llm_caps_t caps = {.model_optional = 1};
    static const struct {
        const char *model;
        int rc;
        size_t len;
    } rows[] = {
        {"", 0, 0},
        {"\"model\":null,", 0, 0},
        {"\"model\":\"m\",", 0, 1},
        {"\"model\":5,", -LLM_ERR_BAD_FIELD, 0},
    };
    pool_t *pool = pool_new();
    llm_refusal_t why;
    llm_call_t c;
    char body[256];
    size_t i;

    (void) state;

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        (void) snprintf(body, sizeof(body), "{%s" MSG "}", rows[i].model);
        assert_int_equal(llm_dialect_openai.parse(str(body), LLM_ROUTE_CHAT,
                             &caps, pool_alloc, pool, &c, &why),
            rows[i].rc);
        assert_int_equal(c.model.len, rows[i].len);
        assert_int_equal(parse(pool, LLM_ROUTE_CHAT, body, &c, &why),
            rows[i].len == 1 ? 0 : -LLM_ERR_BAD_FIELD);
    }

    pool_free(pool);
}

/* Each allocation in turn fails: a clean refusal, nothing left behind. */
static void
test_memory(void **state)
{
    static const char *bodies[] = {
        CHAT ",\"stop\":[\"a\",\"b\"],\"logit_bias\":{\"1\":1}}",
        "{\"model\":\"m\",\"prompt\":[\"a\",\"b\"],\"stop\":\"x\"}",
        "{\"model\":\"m\",\"prompt\":[[1,2],[3]]}",
    };
    llm_refusal_t why;
    llm_call_t c;
    pool_t *pool;
    size_t i, k;
    int rc;

    (void) state;

    for (i = 0; i < 3; i++) {
        for (k = 1, rc = -1; rc != 0; k++) {
            assert_true(k < 20);
            pool = pool_new();
            pool->fail_at = k;
            rc = parse(pool, i == 0 ? LLM_ROUTE_CHAT : LLM_ROUTE_TEXT,
                bodies[i], &c, &why);
            assert_true(rc == 0 || rc == -LLM_ERR_NO_MEMORY);
            pool_free(pool);
        }
        assert_true(k > 3);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_all_fields),
        cmocka_unit_test(test_null_is_absent),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_values_chat),
        cmocka_unit_test(test_template),
        cmocka_unit_test(test_values_text),
        cmocka_unit_test(test_long_lists),
        cmocka_unit_test(test_caps),
        cmocka_unit_test(test_model_optional),
        cmocka_unit_test(test_bodies),
        cmocka_unit_test(test_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
