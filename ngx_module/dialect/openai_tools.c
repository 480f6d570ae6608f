
/*
 * OpenAI's request bodies: tools, and which of them are to be called.
 *
 * DESIGN.  A declaration is judged as far as everything behind needs it: a
 * name that can be told from the text around it, once, and parameters that are
 * a schema's object of bounded depth.  Then the list goes on as it is: the
 * template shows it to the model, and the engine tells the calls from the text
 * (engine/tools.c).
 *
 * With tool_choice "none" neither is done: the template is not told of tools,
 * as with OpenAI, and what looks like a call is text.  "auto" leaves it to the
 * model whether it calls; a function that is "strict" is then called by its
 * schema.  "required" and a named function are a constraint of the output
 * (openai_grammar.c): a call, or one call of that function.  "allowed_tools"
 * is one of these with fewer tools: the template is told of no others, so that
 * the model need not be held back from them.
 *
 * Where there is another constraint, "auto" leaves nothing to the model: the
 * output obeys, as with vLLM, and so cannot be a call.  The template shows the
 * tools all the same, as the conversation may hold calls of them.
 *
 * functions are the older form of tools, whose answers differ; they are
 * refused.
 */


#include "openai.h"

#include <stdio.h>


#define LLM_OPENAI_TOOLS_MAX   1024
#define LLM_OPENAI_TOOL_NAME   64       /* bytes of a name */
#define LLM_OPENAI_TOOL_DEPTH  64       /* levels of its parameters */


/* what tool_choice says */

typedef struct {
    int            none;
    int            must;                /* there is to be a call */
    const json_t  *name;                /* of this function; or NULL */
    json_t        *tools;               /* owned; of these; NULL: of all */
} llm_openai_choice_t;


static int
llm_openai_tool_refuse(llm_openai_in_t *in, size_t i, const char *field,
    const char *must)
{
    char  param[64];

    (void) snprintf(param, sizeof(param), "tools[%zu]%s", i, field);

    return llm_refuse(in->why, LLM_ERR_BAD_FIELD, param, "%s must be %s.",
                      param, must);
}


/* letters, digits and _ - . */

static int
llm_openai_tool_name(const json_t *v)
{
    char         c;
    size_t       i, len;
    const char  *s;

    s = json_string_value(v);
    len = json_string_length(v);

    if (s == NULL || len == 0 || len > LLM_OPENAI_TOOL_NAME) {
        return 0;
    }

    for (i = 0; i < len; i++) {
        c = s[i];

        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z')
              || (c >= 'A' && c <= 'Z') || c == '_' || c == '-' || c == '.'))
        {
            return 0;
        }
    }

    return 1;
}


/* does a value have at most so many levels? */

static int
llm_openai_shallow(const json_t *v, unsigned levels)
{
    void    *it;
    size_t   i;

    if (!json_is_object(v) && !json_is_array(v)) {
        return 1;
    }

    if (levels == 0) {
        return 0;
    }

    for (i = 0; i < json_array_size(v); i++) {
        if (!llm_openai_shallow(json_array_get(v, i), levels - 1)) {
            return 0;
        }
    }

    for (it = json_object_iter((json_t *) v); it != NULL;
         it = json_object_iter_next((json_t *) v, it))
    {
        if (!llm_openai_shallow(json_object_iter_value(it), levels - 1)) {
            return 0;
        }
    }

    return 1;
}


/* {"name":"...","description":"...","parameters":{...},"strict":false} */

static int
llm_openai_function(llm_openai_in_t *in, size_t i, const json_t *function)
{
    json_t  *v;

    if (!json_is_object(function)
        || !llm_openai_tool_name(llm_openai_field(function, "name")))
    {
        return llm_openai_tool_refuse(in, i, ".function.name",
                                      "1 to 64 letters, digits, _, - or .");
    }

    v = llm_openai_field(function, "description");

    if (v != NULL && !json_is_string(v)) {
        return llm_openai_tool_refuse(in, i, ".function.description",
                                      "a string");
    }

    v = llm_openai_field(function, "strict");

    if (v != NULL && !json_is_boolean(v)) {
        return llm_openai_tool_refuse(in, i, ".function.strict",
                                      "true or false");
    }

    v = llm_openai_field(function, "parameters");

    if (v != NULL
        && (!json_is_object(v)
            || !llm_openai_shallow(v, LLM_OPENAI_TOOL_DEPTH)))
    {
        return llm_openai_tool_refuse(in, i, ".function.parameters",
                                      "an object of at most 64 levels");
    }

    return 0;
}


/* {"type":"function","function":{...}} */

static int
llm_openai_tool(llm_openai_in_t *in, size_t i, const json_t *tool)
{
    char     param[48];
    json_t  *type;

    type = json_is_object(tool) ? llm_openai_field(tool, "type") : NULL;

    if (!json_is_string(type)) {
        return llm_openai_tool_refuse(in, i, "", "an object with a type");
    }

    if (strcmp(json_string_value(type), "function") != 0) {
        (void) snprintf(param, sizeof(param), "tools[%zu].type", i);

        return llm_refuse(in->why, LLM_ERR_UNSUPPORTED, param,
                          "Only tools of type \"function\" are supported.");
    }

    return llm_openai_function(in, i, llm_openai_field(tool, "function"));
}


/* every one of them, and their names, each of which is of one tool */

static int
llm_openai_tools_each(llm_openai_in_t *in, json_t *tools)
{
    int          rc;
    json_t      *tool, *names;
    size_t       i;
    const char  *name;

    names = json_object();
    if (names == NULL) {
        return llm_refuse(in->why, LLM_ERR_NO_MEMORY, NULL, NULL);
    }

    rc = 0;

    json_array_foreach(tools, i, tool) {

        rc = llm_openai_tool(in, i, tool);
        if (rc != 0) {
            break;
        }

        name = json_string_value(json_object_get(json_object_get(tool,
                                                  "function"), "name"));

        if (json_object_get(names, name) != NULL) {
            rc = llm_openai_tool_refuse(in, i, ".function.name",
                                        "another one than of all before it");
            break;
        }

        if (json_object_set_new(names, name, json_true()) != 0) {
            rc = llm_refuse(in->why, LLM_ERR_NO_MEMORY, NULL, NULL);
            break;
        }
    }

    json_decref(names);

    return rc;
}


/* the tool of that name; NULL: there is none */

static json_t *
llm_openai_tool_of(llm_openai_in_t *in, const char *name)
{
    json_t  *tools, *tool, *v;
    size_t   i;

    tools = llm_openai_field(in->root, "tools");

    json_array_foreach(tools, i, tool) {
        v = json_object_get(json_object_get(tool, "function"), "name");

        if (json_is_string(v) && strcmp(json_string_value(v), name) == 0) {
            return tool;
        }
    }

    return NULL;
}


/* {"type":"function","function":{"name":"..."}}, of a tool that there is */

static int
llm_openai_choice_named(llm_openai_in_t *in, const json_t *choice,
    const json_t **which)
{
    json_t      *tool, *v;
    const char  *name;

    v = llm_openai_field(choice, "function");
    name = json_is_object(v) ? json_string_value(llm_openai_field(v, "name"))
                             : NULL;

    if (name == NULL) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "tool_choice",
                          "tool_choice must have a type and the name of a "
                          "function.");
    }

    tool = llm_openai_tool_of(in, name);

    if (tool == NULL) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD,
                          "tool_choice.function.name",
                          "tool_choice names a function that tools has not.");
    }

    *which = json_object_get(json_object_get(tool, "function"), "name");

    return 0;
}


/* one of those allowed joins the others */

static int
llm_openai_choice_allow(llm_openai_in_t *in, const json_t *v,
    llm_openai_choice_t *choice)
{
    json_t      *function, *tool;
    size_t       i;
    const char  *name;

    function = json_is_object(v) ? llm_openai_field(v, "function") : NULL;
    name = json_is_object(function)
           ? json_string_value(llm_openai_field(function, "name"))
           : json_is_object(v) ? json_string_value(llm_openai_field(v, "name"))
                               : NULL;

    tool = name != NULL ? llm_openai_tool_of(in, name) : NULL;

    if (tool == NULL) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD,
                          "tool_choice.allowed_tools.tools",
                          name != NULL
                          ? "tool_choice allows a function that tools has not."
                          : "tool_choice.allowed_tools.tools must have the "
                            "names of functions.");
    }

    for (i = 0; i < json_array_size(choice->tools); i++) {
        if (json_array_get(choice->tools, i) == tool) {
            return 0;
        }
    }

    if (json_array_append(choice->tools, tool) != 0) {
        return llm_refuse(in->why, LLM_ERR_NO_MEMORY, NULL, NULL);
    }

    return 0;
}


/*
 * {"type":"allowed_tools","allowed_tools":{"mode":"auto","tools":[...]}}, or
 * without the inner object, as the Responses API has it
 */

static int
llm_openai_choice_allowed(llm_openai_in_t *in, const json_t *v,
    llm_openai_choice_t *choice)
{
    int          rc;
    json_t      *tools, *tool;
    size_t       i;
    const char  *mode;

    if (json_is_object(llm_openai_field(v, "allowed_tools"))) {
        v = llm_openai_field(v, "allowed_tools");
    }

    mode = json_string_value(llm_openai_field(v, "mode"));
    tools = llm_openai_field(v, "tools");

    choice->must = mode != NULL && strcmp(mode, "required") == 0;

    if (!choice->must && (mode == NULL || strcmp(mode, "auto") != 0)) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD,
                          "tool_choice.allowed_tools.mode",
                          "tool_choice.allowed_tools.mode must be \"auto\" or "
                          "\"required\".");
    }

    if (json_array_size(tools) == 0) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD,
                          "tool_choice.allowed_tools.tools",
                          "tool_choice.allowed_tools.tools must be an array of "
                          "at least one tool.");
    }

    choice->tools = json_array();
    if (choice->tools == NULL) {
        return llm_refuse(in->why, LLM_ERR_NO_MEMORY, NULL, NULL);
    }

    json_array_foreach(tools, i, tool) {

        rc = llm_openai_choice_allow(in, tool, choice);
        if (rc != 0) {
            return rc;
        }
    }

    return 0;
}


static int
llm_openai_choice_object(llm_openai_in_t *in, const json_t *v,
    llm_openai_choice_t *choice)
{
    const char  *type;

    type = json_string_value(llm_openai_field(v, "type"));

    if (type != NULL && strcmp(type, "allowed_tools") == 0) {
        return llm_openai_choice_allowed(in, v, choice);
    }

    if (type != NULL && strcmp(type, "function") != 0) {
        return llm_refuse(in->why, LLM_ERR_UNSUPPORTED, "tool_choice.type",
                          "Only a tool_choice of type \"function\" or "
                          "\"allowed_tools\" is known.");
    }

    if (type == NULL) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "tool_choice",
                          "tool_choice must have a type and the name of a "
                          "function.");
    }

    choice->must = 1;

    return llm_openai_choice_named(in, v, &choice->name);
}


static int
llm_openai_tool_choice(llm_openai_in_t *in, llm_openai_choice_t *choice)
{
    json_t      *v;
    const char  *s;

    v = llm_openai_field(in->root, "tool_choice");

    memset(choice, 0, sizeof(*choice));

    if (v == NULL) {
        return 0;
    }

    if (json_is_object(v)) {
        return llm_openai_choice_object(in, v, choice);
    }

    s = json_string_value(v);

    choice->none = s != NULL && strcmp(s, "none") == 0;
    choice->must = s != NULL && strcmp(s, "required") == 0;

    if (choice->must
        && json_array_size(llm_openai_field(in->root, "tools")) == 0)
    {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "tool_choice",
                          "A tool_choice of \"required\" needs tools.");
    }

    if (choice->none || choice->must
        || (s != NULL && strcmp(s, "auto") == 0))
    {
        return 0;
    }

    return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "tool_choice",
                      "tool_choice must be \"none\", \"auto\", \"required\" "
                      "or an object.");
}


/* does a function ask to be called by its schema, whenever it is called? */

static int
llm_openai_strict(const json_t *tools)
{
    size_t   i;
    json_t  *tool;

    json_array_foreach(tools, i, tool) {

        if (json_is_true(json_object_get(json_object_get(tool, "function"),
                                         "strict")))
        {
            return 1;
        }
    }

    return 0;
}


/* calls may come: how, and when they end */

static int
llm_openai_calls(llm_openai_in_t *in, const json_t *tools,
    const llm_openai_choice_t *choice, int parallel)
{
    llm_wire_submit_t  *head;

    head = &in->call->head;

    if (!choice->must && head->flags & LLM_F_GRAMMAR) {
        return 0;
    }

    head->wants |= LLM_W_CALLS;

    /* who names a function gets one call, whose end is no "tool_calls" */

    if (choice->name != NULL || !parallel) {
        head->wants |= LLM_W_ONE_CALL;
    }

    in->call->named = choice->name != NULL;

    if (!choice->must && !llm_openai_strict(tools)) {
        return 0;
    }

    return llm_openai_grammar_tools(in, choice->name, choice->must);
}


/* what is done with them, now that they are known to be good */

static int
llm_openai_tools_use(llm_openai_in_t *in, json_t *tools,
    const llm_openai_choice_t *choice)
{
    int  rc, parallel;

    parallel = 1;
    rc = llm_openai_bool(in, in->root, "parallel_tool_calls",
                         "parallel_tool_calls", &parallel);
    if (rc != 0) {
        return rc;
    }

    if (choice->none || json_array_size(tools) == 0) {
        return 0;
    }

    /* a conversation whose tokens are asked for is only shown the tools */

    if (in->call->route == LLM_ROUTE_CHAT) {
        rc = llm_openai_calls(in, tools, choice, parallel);
        if (rc != 0) {
            return rc;
        }
    }

    return llm_openai_pass(in, tools, &in->call->tools);
}


int
llm_openai_parse_tools(llm_openai_in_t *in)
{
    int                   rc;
    json_t               *v;
    llm_openai_choice_t   choice;

    v = llm_openai_field(in->root, "tools");

    if (v != NULL
        && (!json_is_array(v) || json_array_size(v) > LLM_OPENAI_TOOLS_MAX))
    {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "tools",
                          "tools must be an array of at most %d tools.",
                          LLM_OPENAI_TOOLS_MAX);
    }

    rc = v != NULL ? llm_openai_tools_each(in, v) : 0;
    if (rc != 0) {
        return rc;
    }

    rc = llm_openai_tool_choice(in, &choice);

    if (rc == 0) {
        rc = llm_openai_tools_use(in, choice.tools != NULL ? choice.tools : v,
                                  &choice);
    }

    json_decref(choice.tools);

    return rc;
}


int
llm_openai_refuse_tools(llm_openai_in_t *in, const char *name,
    const char *choice_name)
{
    json_t  *v, *choice;

    v = llm_openai_field(in->root, name);
    choice = llm_openai_field(in->root, choice_name);

    if (v != NULL && !json_is_array(v)) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, name,
                          "%s must be an array.", name);
    }

    if (choice != NULL && !json_is_string(choice) && !json_is_object(choice)) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, choice_name,
                          "%s must be a string or an object.", choice_name);
    }

    if (json_is_string(choice)
        && strcmp(json_string_value(choice), "none") == 0)
    {
        return 0;
    }

    if (json_array_size(v) != 0) {
        return llm_refuse(in->why, LLM_ERR_UNSUPPORTED, name,
                          "%s is not supported.", name);
    }

    /* without tools "auto" asks for nothing; all else asks for a call */

    if (choice != NULL
        && !(json_is_string(choice)
             && strcmp(json_string_value(choice), "auto") == 0))
    {
        return llm_refuse(in->why, LLM_ERR_UNSUPPORTED, choice_name,
                          "%s is not supported.", choice_name);
    }

    return 0;
}
