/*
 * Catches: a field that constrains the output, of OpenAI or of another server,
 * that is ignored, taken for another kind, or loses a byte on its way to the
 * engine; one that is let through although it cannot be what it says; two of
 * them in one request; a call that is demanded and is not; numbers and keys of
 * a schema that come out otherwise than they were written.
 */
#include "openai_test.h"

#define MSG  "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define CHAT "{\"model\":\"m\"," MSG
#define TEXT "{\"model\":\"m\",\"prompt\":\"p\""

/* A body with more fields behind it, written with ' for ". */
static int
more(pool_t *pool, uint32_t route, const char *fields, llm_call_t *call,
    llm_refusal_t *why)
{
    static char body[8192];
    char *p;

    (void) snprintf(body, sizeof(body), "%s%s%s}",
        route == LLM_ROUTE_TEXT ? TEXT : CHAT, fields[0] != '\0' ? "," : "",
        fields);
    for (p = body; *p != '\0'; p++) {
        if (*p == '\'') {
            *p = '"';
        }
    }

    return parse(pool, route, body, call, why);
}

typedef struct {
    const char *fields;
    uint32_t type;
    uint32_t flags;
    const char *param;
    const char *text; /* with ' for " */
} row_t;

#define ORDERED LLM_GRAMMAR_ORDERED
#define COMPACT LLM_GRAMMAR_COMPACT
#define LENIENT LLM_GRAMMAR_LENIENT

/* Is the section what the row says, to the byte? */
static void
section_is(const llm_call_t *c, const row_t *row)
{
    llm_wire_grammar_t head;
    size_t n = strlen(row->text), i;
    const char *text;

    if (c->grammar.len != sizeof(head) + n) {
        print_message("%s: %zu bytes\n", row->fields, c->grammar.len);
    }
    assert_int_equal(c->head.flags & LLM_F_GRAMMAR, LLM_F_GRAMMAR);
    assert_int_equal(c->grammar.len, sizeof(head) + n);
    memcpy(&head, c->grammar.data, sizeof(head));
    assert_int_equal(head.type, row->type);
    assert_int_equal(head.flags, row->flags);
    assert_string_equal(head.param, row->param);
    for (i = strlen(head.param); i < sizeof(head.param); i++) {
        assert_int_equal(head.param[i], 0); /* no byte of the worker's */
    }
    text = c->grammar.data + sizeof(head);
    for (i = 0; i < n; i++) {
        assert_int_equal(text[i], row->text[i] == '\'' ? '"' : row->text[i]);
    }
}

#define S      "{'type':'object','properties':{'b':{},'a':{'const':0.1}}}"
#define FORMAT "'response_format':"
#define FORM(tags)                                                             \
    "'format':{'type':'triggered_tags','triggers':['<f>'],'at_least_one':"     \
    "false,'tags':[" tags "]}"
#define A_TAG                                                                  \
    "{'type':'tag','begin':'<f>','content':{'type':'json_schema',"             \
    "'json_schema':{'const':1}},'end':'</f>'}"
#define TAG "'structures':[{'begin':'<f>','end':'</f>'}],'triggers':['<f>']"

/* Each name that a constraint goes by, and what becomes of it. */
static const row_t rows[] = {
    {FORMAT "{'type':'json_object'}", LLM_GRAMMAR_JSON, 0, "response_format",
        ""},
    {FORMAT "{'type':'json_object','schema':" S "}", LLM_GRAMMAR_SCHEMA,
        ORDERED, "response_format", S},
    {FORMAT "{'type':'json_object','value':" S "}", LLM_GRAMMAR_SCHEMA, ORDERED,
        "response_format", S},
    {FORMAT "{'type':'json_schema','json_schema':{'name':'n','schema':" S "}}",
        LLM_GRAMMAR_SCHEMA, ORDERED | LENIENT, "response_format.json_schema",
        S},
    {FORMAT "{'type':'json_schema','json_schema':{'name':'aZ09_-','schema':" S
            ",'strict':false,'description':'d'}}",
        LLM_GRAMMAR_SCHEMA, ORDERED | LENIENT, "response_format.json_schema",
        S},
    {FORMAT "{'type':'json_schema','json_schema':{'strict':true,'name':'n',"
            "'schema': {\t'type' : 'object' } }}",
        LLM_GRAMMAR_SCHEMA, ORDERED, "response_format.json_schema",
        "{'type':'object'}"},
    {FORMAT "{'type':'json_schema','value':{'schema':" S "}}",
        LLM_GRAMMAR_SCHEMA, ORDERED, "response_format.json_schema", S},
    {FORMAT "{'type':'regex','pattern':'a+'}", LLM_GRAMMAR_REGEX, 0,
        "response_format", "a+"},
    {FORMAT "{'type':'structural_tag'," TAG "}", LLM_GRAMMAR_TAGS, ORDERED,
        "response_format", "{" TAG "}"},
    {FORMAT "{'type':'structural_tag'," FORM(A_TAG) "}", LLM_GRAMMAR_TAGS,
        ORDERED, "response_format",
        "{'structures':[{'begin':'<f>','schema':{'const':1},'end':'</f>'}],"
        "'triggers':['<f>']}"},
    {"'guided_json':" S, LLM_GRAMMAR_SCHEMA, ORDERED, "guided_json", S},
    {"'guided_json':' {}'", LLM_GRAMMAR_SCHEMA, ORDERED, "guided_json", " {}"},
    {"'guided_regex':'\\\\d{2}\\u00e9'", LLM_GRAMMAR_REGEX, 0, "guided_regex",
        "\\d{2}\xc3\xa9"},
    {"'guided_grammar':'root ::= 1'", LLM_GRAMMAR_EBNF, 0, "guided_grammar",
        "root ::= 1"},
    {"'structured_outputs':{'json':" S "}", LLM_GRAMMAR_SCHEMA, ORDERED,
        "structured_outputs.json", S},
    {"'structured_outputs':{'json':'{}','disable_any_whitespace':true,"
     "'disable_additional_properties':false,'disable_fallback':true,"
     "'whitespace_pattern':null,'regex':null}",
        LLM_GRAMMAR_SCHEMA, ORDERED | COMPACT, "structured_outputs.json", "{}"},
    {"'structured_outputs':{'regex':'x'}", LLM_GRAMMAR_REGEX, 0,
        "structured_outputs.regex", "x"},
    {"'structured_outputs':{'grammar':'x'}", LLM_GRAMMAR_EBNF, 0,
        "structured_outputs.grammar", "x"},
    {"'structured_outputs':{'json_object':true}", LLM_GRAMMAR_JSON, 0,
        "structured_outputs.json_object", ""},
    {"'structured_outputs':{'structural_tag':{" TAG "}}", LLM_GRAMMAR_TAGS,
        ORDERED, "structured_outputs", "{" TAG "}"},
    {"'json_schema':" S, LLM_GRAMMAR_SCHEMA, ORDERED, "json_schema", S},
    {"'json_schema':'{}'", LLM_GRAMMAR_SCHEMA, ORDERED, "json_schema", "{}"},
    {"'regex':'x'", LLM_GRAMMAR_REGEX, 0, "regex", "x"},
    {"'ebnf':'x'", LLM_GRAMMAR_EBNF, 0, "ebnf", "x"},
    {"'structural_tag':{" TAG ",'type':'structural_tag'}", LLM_GRAMMAR_TAGS,
        ORDERED, "structural_tag", "{" TAG "}"},
    {"'structural_tag':'{\\u0022triggers\\u0022:[],\\u0022structures\\u0022:"
     "[1]}'",
        LLM_GRAMMAR_TAGS, ORDERED, "structural_tag",
        "{'structures':[1],'triggers':[]}"},
    {"'grammar':'root ::= 1'", LLM_GRAMMAR_EBNF, 0, "grammar", "root ::= 1"},
    {"'grammar':{'type':'regex','value':'x'}", LLM_GRAMMAR_REGEX, 0, "grammar",
        "x"},
    {"'grammar':{'type':'json','value':" S "}", LLM_GRAMMAR_SCHEMA, ORDERED,
        "grammar", S},
    {"'grammar':{'type':'json_object','value':'{}'}", LLM_GRAMMAR_SCHEMA,
        ORDERED, "grammar", "{}"},
    {"'grammar':{'type':'json_schema','value':{'name':'n','schema':{}}}",
        LLM_GRAMMAR_SCHEMA, ORDERED, "grammar", "{}"},

    /* how JSON is written; nothing to what is none */
    {"'guided_json':{},'json_options':{}", LLM_GRAMMAR_SCHEMA, ORDERED,
        "guided_json", "{}"},
    {"'guided_json':{},'json_options':{'whitespace':false}", LLM_GRAMMAR_SCHEMA,
        ORDERED | COMPACT, "guided_json", "{}"},
    {"'guided_json':{},'json_options':{'whitespace':true,'property_order':"
     "'any'}",
        LLM_GRAMMAR_SCHEMA, 0, "guided_json", "{}"},
    {"'guided_json':{},'json_options':{'property_order':'declared'}",
        LLM_GRAMMAR_SCHEMA, ORDERED, "guided_json", "{}"},
    {FORMAT "{'type':'json_object'},'json_options':{'whitespace':false}",
        LLM_GRAMMAR_JSON, COMPACT, "response_format", ""},
    {"'regex':'x','json_options':{'whitespace':false}", LLM_GRAMMAR_REGEX, 0,
        "regex", "x"},

    /* null is absent, and so is what says that there is none */
    {"'guided_json':null,'guided_regex':'x','structured_outputs':null,"
     "'grammar':null,'ebnf':null,'guided_choice':null,'json_options':null,"
     "'guided_whitespace_pattern':null,'response_format':null",
        LLM_GRAMMAR_REGEX, 0, "guided_regex", "x"},
    {FORMAT "{'type':'text'},'regex':'x'", LLM_GRAMMAR_REGEX, 0, "regex", "x"},
    {"'structured_outputs':{'json_object':false,'regex':'x'}",
        LLM_GRAMMAR_REGEX, 0, "structured_outputs.regex", "x"},
};

static void
test_fields(void **state)
{
    llm_refusal_t why;
    llm_call_t c;
    pool_t *pool;
    uint32_t route;
    size_t i;

    (void) state;

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        for (route = LLM_ROUTE_CHAT; route <= LLM_ROUTE_TEXT; route++) {
            pool = pool_new();
            if (more(pool, route, rows[i].fields, &c, &why) != 0) {
                fail_msg("%s: %s", rows[i].fields, why.text);
            }
            section_is(&c, &rows[i]);
            pool_free(pool);
        }
    }

    /* not of those who only ask for tokens */
    pool = pool_new();
    assert_int_equal(
        more(pool, LLM_ROUTE_TOKENIZE, "'guided_regex':'x'", &c, &why), 0);
    assert_int_equal(c.head.flags & LLM_F_GRAMMAR, 0);
    assert_int_equal(
        more(pool, LLM_ROUTE_CHAT, FORMAT "{'type':'text'}", &c, &why), 0);
    assert_int_equal(c.head.flags & LLM_F_GRAMMAR, 0);
    assert_int_equal(c.grammar.len, 0);
    pool_free(pool);
}

/* Texts with their lengths, whatever bytes are in them. */
static void
test_choices(void **state)
{
    static const char *fields[] = {
        "'guided_choice':['a','\\u00e9\\u0000b']",
        "'structured_outputs':{'choice':['a','\\u00e9\\u0000b']}",
    };
    static const char want[] = "\1\0\0\0a\4\0\0\0\xc3\xa9\0b";
    static char long_list[70000];
    pool_t *pool = pool_new();
    llm_wire_grammar_t head;
    llm_refusal_t why;
    llm_call_t c;
    size_t i, len;
    int n;

    (void) state;

    for (i = 0; i < 2; i++) {
        assert_int_equal(more(pool, LLM_ROUTE_CHAT, fields[i], &c, &why), 0);
        assert_int_equal(c.grammar.len, sizeof(head) + sizeof(want) - 1);
        memcpy(&head, c.grammar.data, sizeof(head));
        assert_int_equal(head.type, LLM_GRAMMAR_CHOICE);
        assert_int_equal(head.flags, 0);
        assert_memory_equal(
            c.grammar.data + sizeof(head), want, sizeof(want) - 1);
    }

    for (n = 4096; n <= 4097; n++) {
        len = (size_t) snprintf(
            long_list, sizeof(long_list), TEXT ",\"guided_choice\":[");
        for (i = 0; i < (size_t) n; i++) {
            len += (size_t) snprintf(long_list + len, sizeof(long_list) - len,
                "%s\"%zu\"", i ? "," : "", i);
        }
        (void) snprintf(long_list + len, sizeof(long_list) - len, "]}");
        assert_int_equal(parse(pool, LLM_ROUTE_TEXT, long_list, &c, &why),
            n == 4096 ? 0 : -LLM_ERR_BAD_FIELD);
    }
    assert_string_equal(why.param, "guided_choice");
    pool_free(pool);
}

typedef struct {
    const char *fields;
    const char *param;
    const char *text; /* a part of it */
    uint32_t err;     /* 0: BAD_FIELD */
} bad_t;

#define SCHEMA(inner) FORMAT "{'type':'json_schema','json_schema':" inner "}"
#define SO            "structured_outputs"

static const bad_t bad[] = {
    {FORMAT "'json'", "response_format", "object", 0},
    {FORMAT "{}", "response_format", "object", 0},
    {FORMAT "{'type':5}", "response_format", "object", 0},
    {FORMAT "{'type':'yaml'}", "response_format", "json_schema, regex",
        LLM_ERR_UNSUPPORTED},
    {FORMAT "{'type':'json_schema'}", "response_format.json_schema", "object",
        0},
    {SCHEMA("{'schema':{}}"), "response_format.json_schema.name", "letters", 0},
    {SCHEMA("{'name':'','schema':{}}"), "response_format.json_schema.name", "",
        0},
    {SCHEMA("{'name':'a b','schema':{}}"), "response_format.json_schema.name",
        "", 0},
    {SCHEMA("{'name':'a\\u0000','schema':{}}"),
        "response_format.json_schema.name", "", 0},
    {SCHEMA("{'name':5,'schema':{}}"), "response_format.json_schema.name", "",
        0},
    {SCHEMA("{'name':'123456789a123456789b123456789c123456789d123456789e"
            "123456789f12345','schema':{}}"),
        "response_format.json_schema.name", "64", 0},
    {SCHEMA("{'name':'n'}"), "response_format.json_schema.schema", "object", 0},
    {SCHEMA("{'name':'n','schema':'{}'}"), "response_format.json_schema.schema",
        "", 0},
    {SCHEMA("{'name':'n','schema':[]}"), "response_format.json_schema.schema",
        "", 0},
    {SCHEMA("{'name':'n','schema':{},'strict':1}"),
        "response_format.json_schema.strict", "true or false", 0},
    {FORMAT "{'type':'regex'}", "response_format", "string", 0},
    {FORMAT "{'type':'regex','value':5}", "response_format", "string", 0},
    {FORMAT "{'type':'json_object','schema':[]}", "response_format", "object",
        0},
    {FORMAT "{'type':'structural_tag'}", "response_format", "triggers", 0},
    {FORMAT "{'type':'structural_tag','format':{}}", "response_format",
        "format", LLM_ERR_UNSUPPORTED},
    {FORMAT "{'type':'structural_tag','format':{'type':'any_text'}}",
        "response_format", "triggered_tags only", LLM_ERR_UNSUPPORTED},
    {FORMAT "{'type':'structural_tag','format':{'type':'triggered_tags',"
            "'triggers':[],'tags':[],'stop_after_first':true}}",
        "response_format", "stop_after_first", LLM_ERR_UNSUPPORTED},
    {FORMAT "{'type':'structural_tag','format':{'type':'triggered_tags',"
            "'triggers':[],'tags':{}}}",
        "response_format", "arrays", 0},
    {FORMAT "{'type':'structural_tag'," FORM("1") "}", "response_format",
        "a content with a type", 0},
    {FORMAT "{'type':'structural_tag'," FORM(
         A_TAG ",{'begin':'<f>','end':'x','content':{'type':'any_text'}}") "}",
        "response_format", "json_schema only", LLM_ERR_UNSUPPORTED},
    {FORMAT "{'type':'structural_tag'," FORM(
         "{'begin':'<f>','end':'x','content':{'type':'json_schema'}}") "}",
        "response_format", "have a json_schema", 0},
    {"'guided_json':5", "guided_json", "object", 0},
    {"'guided_json':''", "guided_json", "object", 0},
    {"'guided_json':true", "guided_json", "object", 0},
    {"'guided_regex':''", "guided_regex", "empty", 0},
    {"'guided_regex':['x']", "guided_regex", "string", 0},
    {"'guided_choice':[]", "guided_choice", "4096", 0},
    {"'guided_choice':['a','']", "guided_choice", "empty", 0},
    {"'guided_choice':['a',1]", "guided_choice", "strings", 0},
    {"'guided_choice':'a'", "guided_choice", "array", 0},
    {"'guided_grammar':{}", "guided_grammar", "string", 0},
    {"'guided_whitespace_pattern':' *'", "guided_whitespace_pattern",
        "not supported", LLM_ERR_UNSUPPORTED},
    {"'json_schema':[]", "json_schema", "object", 0},
    {"'regex':1", "regex", "string", 0},
    {"'ebnf':false", "ebnf", "string", 0},
    {"'structural_tag':'{'", "structural_tag", "holds one", 0},
    {"'structural_tag':'[]'", "structural_tag", "triggers", 0},
    {"'structural_tag':{'structures':[],'triggers':{}}", "structural_tag",
        "arrays", 0},
    {"'grammar':5", "grammar", "type", 0},
    {"'grammar':''", "grammar", "empty", 0},
    {"'grammar':{'type':'json_schema','value':5}", "grammar.value", "object",
        0},
    {"'grammar':{'type':'json_schema','value':{}}", "grammar.value.schema",
        "object", 0},
    {"'grammar':{'type':'lark','value':'x'}", "grammar", "type",
        LLM_ERR_UNSUPPORTED},
    {"'" SO "':{}", SO, "must be an object with", 0},
    {"'" SO "':[]", SO, "must be an object with", 0},
    {"'" SO "':{'json_object':false}", SO, "must be an object with", 0},
    {"'" SO "':{'json_object':1}", SO ".json_object", "true or false", 0},
    {"'" SO "':{'choice':[]}", SO ".choice", "4096", 0},
    {"'" SO "':{'regex':'x','whitespace_pattern':'x'}", SO,
        "whitespace_pattern is not", LLM_ERR_UNSUPPORTED},
    {"'" SO "':{'json':{},'disable_additional_properties':true}", SO,
        "additional_properties is not", LLM_ERR_UNSUPPORTED},
    {"'" SO "':{'json':{},'disable_any_whitespace':1}",
        SO ".disable_any_whitespace", "true or false", 0},
    {"'" SO "':{'json':{},'regex':'x'}", SO ".regex",
        "Only one of structured_outputs.json and structured_outputs.regex", 0},
    {"'json_options':[]", "json_options", "object", 0},
    {"'json_options':{'whitespace':'no'}", "json_options.whitespace",
        "true or false", 0},
    {"'json_options':{'property_order':'sorted'}",
        "json_options.property_order", "declared", 0},
    {"'json_options':{'property_order':1}", "json_options.property_order",
        "declared", 0},

    /* two of a kind, or of two */
    {FORMAT "{'type':'json_object'},'guided_json':{}", "guided_json",
        "Only one of response_format and guided_json may be given.", 0},
    {"'guided_regex':'x','guided_choice':['x']", "guided_choice",
        "Only one of guided_regex and guided_choice may be given.", 0},
    {"'regex':'x','grammar':'x'", "grammar", "Only one of regex and grammar",
        0},
    {"'regex':'x','" SO "':{'regex':'x'}", SO ".regex", "Only one of regex", 0},
};

static void
refused(uint32_t route, const bad_t *row)
{
    pool_t *pool = pool_new();
    int want = row->err ? -(int) row->err : -LLM_ERR_BAD_FIELD, rc;
    llm_refusal_t why;
    llm_call_t c;

    rc = more(pool, route, row->fields, &c, &why);
    if (rc != want || strcmp(why.param, row->param) != 0
        || strstr(why.text, row->text) == NULL) {
        print_message("%s: %d, %s: %s\n", row->fields, rc, why.param, why.text);
    }
    assert_int_equal(rc, want);
    assert_string_equal(why.param, row->param);
    assert_non_null(strstr(why.text, row->text));
    pool_free(pool);
}

static void
test_refused(void **state)
{
    size_t i;

    (void) state;

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        refused(LLM_ROUTE_CHAT, &bad[i]);
        refused(LLM_ROUTE_TEXT, &bad[i]);
    }
}

#define TOOL(name) "{'type':'function','function':" FN(name) "}"
#define STRICT     "{'type':'function','function':{'name':'s','strict':true}}"
#define FN(name)   "{'name':'" name "'}"
#define NAMED(n)   "'tool_choice':{'type':'function','function':" FN(n) "}"
#define ALLOWED(v)                                                             \
    "'tool_choice':{'type':'allowed_tools','allowed_tools':" v "}"
#define THREE "'tools':[" TOOL("f") "," TOOL("g.h") "," STRICT "],"

/* What is demanded of calls. */
static void
test_demands(void **state)
{
    static const row_t rows[] = {
        {"'tools':[" TOOL("f") "],'tool_choice':'required'", LLM_GRAMMAR_TOOLS,
            0, "tool_choice", ""},
        {"'tools':[" TOOL("f") "," TOOL("g.h") "]," NAMED("g.h"),
            LLM_GRAMMAR_TOOLS, 0, "tool_choice", "g.h"},
        {"'tools':[" TOOL("f") "," STRICT "]", LLM_GRAMMAR_TOOLS,
            LLM_GRAMMAR_AUTO, "tools", ""},
        {"'tools':[" STRICT "],'tool_choice':'auto'", LLM_GRAMMAR_TOOLS,
            LLM_GRAMMAR_AUTO, "tools", ""},
        {"'tools':[" STRICT "],'tool_choice':'required'", LLM_GRAMMAR_TOOLS, 0,
            "tool_choice", ""},
        {THREE ALLOWED("{'mode':'required','tools':[" TOOL("f") "]}"),
            LLM_GRAMMAR_TOOLS, 0, "tool_choice", ""},
        {THREE ALLOWED("{'mode':'auto','tools':[" STRICT "]}"),
            LLM_GRAMMAR_TOOLS, LLM_GRAMMAR_AUTO, "tools", ""},
    };
    static const bad_t no[] = {
        {"'tools':[" TOOL("f") "],'tool_choice':'required','regex':'x'",
            "tool_choice", "Only one of regex and tool_choice may be given.",
            0},
        {"'tools':[" TOOL("f") "]," NAMED("f") "," FORMAT
                                               "{'type':'json_object'}",
            "tool_choice", "Only one of response_format and tool_choice", 0},
        {"'tool_choice':'required'", "tool_choice", "needs tools", 0},
        {"'tools':[],'tool_choice':'required'", "tool_choice", "needs tools",
            0},
        {NAMED("f"), "tool_choice.function.name", "has not", 0},
        {"'tools':[" TOOL("g") "]," NAMED("f"), "tool_choice.function.name",
            "has not", 0},
        {THREE ALLOWED("{'mode':'required','tools':[" TOOL("x") "]}"),
            "tool_choice.allowed_tools.tools", "has not", 0},
        {THREE ALLOWED("{'mode':'required','tools':[]}"),
            "tool_choice.allowed_tools.tools", "at least one", 0},
        {THREE ALLOWED("{'mode':'auto','tools':['f']}"),
            "tool_choice.allowed_tools.tools", "names", 0},
        {THREE ALLOWED("{'mode':'none','tools':[" TOOL("f") "]}"),
            "tool_choice.allowed_tools.mode", "auto", 0},
        {THREE ALLOWED("1"), "tool_choice.allowed_tools.mode", "auto", 0},
        {ALLOWED("{'mode':'auto','tools':[" TOOL("f") "]}"),
            "tool_choice.allowed_tools.tools", "has not", 0},
    };
    pool_t *pool = pool_new();
    llm_refusal_t why;
    llm_call_t c;
    size_t i;

    (void) state;

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(
            more(pool, LLM_ROUTE_CHAT, rows[i].fields, &c, &why), 0);
        section_is(&c, &rows[i]);
        assert_true(c.tools.len != 0);
    }
    for (i = 0; i < sizeof(no) / sizeof(no[0]); i++) {
        refused(LLM_ROUTE_CHAT, &no[i]);
    }
    pool_free(pool);
}

/* What calls are for each choice, and where output obeys else. */
static void
test_calls(void **state)
{
    static const struct {
        const char *fields;
        uint32_t wants;
        int named;
    } wants[] = {
        {"'tools':[" TOOL("f") "]", LLM_W_CALLS, 0},
        {"'tools':[" TOOL("f") "],'tool_choice':'required'", LLM_W_CALLS, 0},
        {"'tools':[" TOOL("f") "],'tool_choice':'required',"
                               "'parallel_tool_calls':false",
            LLM_W_CALLS | LLM_W_ONE_CALL, 0},
        {"'tools':[" TOOL("f") "]," NAMED("f"), LLM_W_CALLS | LLM_W_ONE_CALL,
            1},
        {"'tools':[" TOOL("f") "],'tool_choice':'none','regex':'x'", 0, 0},
        {"'tools':[" TOOL("f") "],'tool_choice':'auto','regex':'x'", 0, 0},
        {"'tools':[" STRICT "],'regex':'x'", 0, 0},
        {"'tools':[],'regex':'x'", 0, 0},
        {THREE ALLOWED("{'mode':'auto','tools':[" TOOL("f") "]}"), LLM_W_CALLS,
            0},
        {THREE ALLOWED("{'mode':'auto','tools':[" STRICT "]}") ",'regex':'x'",
            0, 0},
    };
    pool_t *pool = pool_new();
    llm_wire_grammar_t head;
    llm_refusal_t why;
    llm_call_t c;
    size_t i;

    (void) state;

    for (i = 0; i < sizeof(wants) / sizeof(wants[0]); i++) {
        assert_int_equal(
            more(pool, LLM_ROUTE_CHAT, wants[i].fields, &c, &why), 0);
        assert_int_equal(c.head.wants & ~LLM_W_REASONING, wants[i].wants);
        assert_int_equal(c.named, wants[i].named);
    }
    /* the field wins over "auto"; the template has the tools all the same */
    assert_int_equal(more(pool, LLM_ROUTE_CHAT,
                         "'tools':[" STRICT "],'regex':'x'", &c, &why),
        0);
    memcpy(&head, c.grammar.data, sizeof(head));
    assert_int_equal(head.type, LLM_GRAMMAR_REGEX);
    assert_true(c.tools.len != 0);

    /* of several, those that are allowed, each once */
    assert_int_equal(
        more(pool, LLM_ROUTE_CHAT,
            THREE "'tool_choice':{'type':'allowed_tools','mode':'required',"
                  "'tools':[{'type':'function','name':'g.h'}," TOOL(
                      "f") "," TOOL("g.h") "]}",
            &c, &why),
        0);
    assert_json(c.tools.data, c.tools.len, "[" TOOL("g.h") "," TOOL("f") "]");

    /* and so has one who asks how many tokens that is */
    assert_int_equal(
        more(pool, LLM_ROUTE_TOKENIZE,
            "'tools':[" TOOL("f") "],'tool_choice':'required'", &c, &why),
        0);
    assert_int_equal(c.head.flags & LLM_F_GRAMMAR, 0);
    assert_true(c.tools.len != 0);
    pool_free(pool);
}

/* JSON in, the same JSON out; what it is longer by has a bound. */
static void
test_json(void **state)
{
    static const char *same[] = {
        "{'z':1,'a':[0.1,-0.25,1.0,1e300,2.5e-300,-9223372036854775808]}",
        "{'enum':[0.30000000000000004,0.3,123456789.123,3.14159]}",
        "{'\\u0001\\u2028':'\\\"\\\\/\\n','':[],'e':{},'n':[null,true,false]}",
    };
    static const struct {
        const char *in, *out;
    } number[] = {
        {"1E2", "100.0"},
        {"0.10", "0.1"},
        {"1e15", "1e15"},
        {"-0.0", "-0.0"},
        {"0.1000000000000000055511151231257827", "0.1"},
    };
    char fields[512];
    pool_t *pool = pool_new();
    llm_refusal_t why;
    llm_call_t c;
    row_t row = {
        fields, LLM_GRAMMAR_SCHEMA, LLM_GRAMMAR_ORDERED, "guided_json", NULL};
    size_t i;

    (void) state;

    for (i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
        (void) snprintf(fields, sizeof(fields), "'guided_json':%s", same[i]);
        assert_int_equal(more(pool, LLM_ROUTE_CHAT, fields, &c, &why), 0);
        row.text = same[i];
        assert_json(c.grammar.data + sizeof(llm_wire_grammar_t),
            c.grammar.len - sizeof(llm_wire_grammar_t), same[i]);
        if (i < 2) {
            section_is(&c, &row);
        }
    }
    for (i = 0; i < sizeof(number) / sizeof(number[0]); i++) {
        char out[64];

        (void) snprintf(
            fields, sizeof(fields), "'guided_json':{'const':%s}", number[i].in);
        (void) snprintf(out, sizeof(out), "{'const':%s}", number[i].out);
        assert_int_equal(more(pool, LLM_ROUTE_CHAT, fields, &c, &why), 0);
        row.text = out;
        section_is(&c, &row);
    }

    /* tools and the like have no more digits either */
    assert_int_equal(more(pool, LLM_ROUTE_CHAT,
                         "'chat_template_kwargs':{'t':0.7}", &c, &why),
        0);
    assert_int_equal(c.kwargs.len, strlen("{\"t\":0.7}"));
    assert_memory_equal(c.kwargs.data, "{\"t\":0.7}", c.kwargs.len);
    pool_free(pool);
}

/* A mebibyte, and no more. */
static void
test_long(void **state)
{
    static const char head[] = TEXT ",\"guided_regex\":\"";
    const size_t max = 1 << 20;
    char *body = malloc(sizeof(head) + max + 16);
    llm_refusal_t why;
    llm_call_t c;
    pool_t *pool;
    size_t n;

    (void) state;

    for (n = max; n <= max + 1; n++) {
        pool = pool_new();
        memcpy(body, head, sizeof(head) - 1);
        memset(body + sizeof(head) - 1, 'x', n);
        strcpy(body + sizeof(head) - 1 + n, "\"}");
        assert_int_equal(parse(pool, LLM_ROUTE_TEXT, body, &c, &why),
            n == max ? 0 : -LLM_ERR_BAD_FIELD);
        pool_free(pool);
    }
    assert_string_equal(why.param, "guided_regex");
    assert_non_null(strstr(why.text, "1048576 bytes"));
    free(body);
}

/* Each allocation in turn fails: a clean refusal, nothing left behind. */
static void
test_memory(void **state)
{
    static const char *fields[] = {
        "'guided_json':{'a':[1.5,'x']}",
        "'structural_tag':'{\\u0022triggers\\u0022:[],\\u0022structures\\u0022:"
        "[]}'",
        "'guided_choice':['a','b']",
        "'tools':[" TOOL("f") "],'tool_choice':'required'",
    };
    llm_refusal_t why;
    llm_call_t c;
    pool_t *pool;
    size_t i, k;
    int rc;

    (void) state;

    for (i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        for (k = 1, rc = -1; rc != 0; k++) {
            assert_true(k < 20);
            pool = pool_new();
            pool->fail_at = k;
            rc = more(pool, LLM_ROUTE_CHAT, fields[i], &c, &why);
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
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_choices),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_demands),
        cmocka_unit_test(test_calls),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_long),
        cmocka_unit_test(test_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
