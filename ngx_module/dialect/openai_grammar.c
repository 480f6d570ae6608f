
/*
 * OpenAI's request bodies: what the output is to obey.
 *
 * DESIGN.  Each server has its own fields for that, and clients know those of
 * the server they were written for.  All of them come down to one of the
 * engine's kinds (LLM_GRAMMAR_*), which is written here as SUBMIT has it:
 *
 *     response_format        OpenAI's; in its forms also those of vLLM,
 *                            SGLang, TGI, llama.cpp and Together
 *     guided_...             vLLM's older ones
 *     structured_outputs     vLLM's
 *     json_schema, regex,
 *     ebnf, structural_tag   SGLang's
 *     grammar                TGI's if it is an object, llama.cpp's if a string
 *
 * There is one, or none: a second one is refused with the names of both, as
 * whichever were left out would be missed.  What else such an object asks for
 * and nobody here does is refused too.
 *
 * What is in a schema, an expression or a grammar is the engine's to judge.
 * Its refusal names the field, which goes there with the text (param).
 *
 * OpenAI's "strict": false, which is its default, promises no more than to
 * try; then a schema that cannot be enforced in all is enforced in part.  All
 * others get the whole of it or a refusal.  Properties come in the order in
 * which the schema has them, as OpenAI says, unless json_options frees them.
 */


#include "openai.h"

#include <stdio.h>


#define LLM_OPENAI_GRAMMAR_MAX  (1 << 20)   /* bytes, as the engine has it */
#define LLM_OPENAI_CHOICES_MAX  4096
#define LLM_OPENAI_FORMAT_NAME  64          /* bytes of a schema's name */


/* the one constraint of a request */

typedef struct {
    const char    *param;               /* where it was; NULL: nowhere yet */
    uint32_t       type;                /* LLM_GRAMMAR_* */
    uint32_t       flags;
    const json_t  *value;               /* of a type that was looked at */
} llm_openai_rule_t;


typedef struct {
    const char    *name;
    const char    *param;               /* at most 31 bytes */
    uint32_t       type;
} llm_openai_rule_field_t;


static const llm_openai_rule_field_t  llm_openai_rule_fields[] = {

    { "guided_json", "guided_json", LLM_GRAMMAR_SCHEMA },
    { "guided_regex", "guided_regex", LLM_GRAMMAR_REGEX },
    { "guided_choice", "guided_choice", LLM_GRAMMAR_CHOICE },
    { "guided_grammar", "guided_grammar", LLM_GRAMMAR_EBNF },
    { "json_schema", "json_schema", LLM_GRAMMAR_SCHEMA },
    { "regex", "regex", LLM_GRAMMAR_REGEX },
    { "ebnf", "ebnf", LLM_GRAMMAR_EBNF },
    { "structural_tag", "structural_tag", LLM_GRAMMAR_TAGS },

    { NULL, NULL, 0 }
};


static const llm_openai_rule_field_t  llm_openai_structured_fields[] = {

    { "json", "structured_outputs.json", LLM_GRAMMAR_SCHEMA },
    { "regex", "structured_outputs.regex", LLM_GRAMMAR_REGEX },
    { "choice", "structured_outputs.choice", LLM_GRAMMAR_CHOICE },
    { "grammar", "structured_outputs.grammar", LLM_GRAMMAR_EBNF },
    { "json_object", "structured_outputs.json_object", LLM_GRAMMAR_JSON },
    { "structural_tag", "structured_outputs", LLM_GRAMMAR_TAGS },

    { NULL, NULL, 0 }
};


static int
llm_openai_rule_twice(llm_openai_in_t *in, const char *one, const char *other)
{
    return llm_refuse(in->why, LLM_ERR_BAD_FIELD, other,
                      "Only one of %s and %s may be given.", one, other);
}


static int
llm_openai_filled(const json_t *v)
{
    return json_is_string(v) && json_string_length(v) != 0;
}


static int
llm_openai_choices_ok(const json_t *v)
{
    size_t  i;

    if (!json_is_array(v) || json_array_size(v) == 0
        || json_array_size(v) > LLM_OPENAI_CHOICES_MAX)
    {
        return 0;
    }

    for (i = 0; i < json_array_size(v); i++) {
        if (!llm_openai_filled(json_array_get(v, i))) {
            return 0;
        }
    }

    return 1;
}


/* v, which may be absent, of param, whose type says what it must be */

static int
llm_openai_rule(llm_openai_in_t *in, llm_openai_rule_t *rule,
    const char *param, uint32_t type, const json_t *v)
{
    int          ok;
    const char  *must;

    if (v == NULL) {
        return 0;
    }

    switch (type) {

    case LLM_GRAMMAR_JSON:
        ok = json_is_boolean(v);
        must = "true or false";
        break;

    case LLM_GRAMMAR_CHOICE:
        ok = llm_openai_choices_ok(v);
        must = "an array of 1 to 4096 strings that are not empty";
        break;

    case LLM_GRAMMAR_REGEX:
    case LLM_GRAMMAR_EBNF:
        ok = llm_openai_filled(v);
        must = "a string that is not empty";
        break;

    default: /* LLM_GRAMMAR_SCHEMA, LLM_GRAMMAR_TAGS */
        ok = json_is_object(v) || llm_openai_filled(v);
        must = "an object, or a string that holds one";
    }

    if (!ok) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, param, "%s must be %s.",
                          param, must);
    }

    if (json_is_false(v)) {
        return 0;
    }

    if (rule->param != NULL) {
        return llm_openai_rule_twice(in, rule->param, param);
    }

    rule->param = param;
    rule->type = type;
    rule->value = v;

    return 0;
}


static int
llm_openai_rule_each(llm_openai_in_t *in, llm_openai_rule_t *rule,
    const json_t *object, const llm_openai_rule_field_t *fields)
{
    int                             rc;
    const llm_openai_rule_field_t  *f;

    for (f = fields; f->name != NULL; f++) {

        rc = llm_openai_rule(in, rule, f->param, f->type,
                             llm_openai_field(object, f->name));
        if (rc != 0) {
            return rc;
        }
    }

    return 0;
}


/*
 * {"name":"...","schema":{...},"strict":true}, which TGI has under another
 * name and without a need for its own.
 */

static int
llm_openai_format_schema(llm_openai_in_t *in, llm_openai_rule_t *rule,
    const char *field, const json_t *format)
{
    int          rc, strict;
    char         path[64], param[96];
    json_t      *v, *spec;
    const char  *where, *name;

    spec = llm_openai_field(format, "json_schema");
    where = "json_schema";
    strict = 0;

    if (spec == NULL && llm_openai_field(format, "value") != NULL) {
        spec = llm_openai_field(format, "value");
        where = "value";
        strict = 1;
    }

    (void) snprintf(path, sizeof(path), "%s.%s", field, where);

    if (!json_is_object(spec)) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, path,
                          "%s must be an object.", path);
    }

    v = llm_openai_field(spec, "name");
    name = json_string_value(v);

    if ((v != NULL || !strict)
        && (name == NULL || name[0] == '\0'
            || json_string_length(v) > LLM_OPENAI_FORMAT_NAME
            || strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-"
                            "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
               != json_string_length(v)))
    {
        (void) snprintf(param, sizeof(param), "%s.name", path);

        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, param,
                          "%s must be 1 to %d letters, digits, _ or -.", param,
                          LLM_OPENAI_FORMAT_NAME);
    }

    (void) snprintf(param, sizeof(param), "%s.strict", path);

    rc = llm_openai_bool(in, spec, "strict", param, &strict);
    if (rc != 0) {
        return rc;
    }

    v = llm_openai_field(spec, "schema");

    if (!json_is_object(v)) {
        (void) snprintf(param, sizeof(param), "%s.schema", path);

        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, param,
                          "%s must be an object.", param);
    }

    if (!strict) {
        rule->flags |= LLM_GRAMMAR_LENIENT;
    }

    return llm_openai_rule(in, rule, strcmp(field, "grammar") == 0
                                     ? field : "response_format.json_schema",
                           LLM_GRAMMAR_SCHEMA, v);
}


/* {"type":"...", ...}, in the ways of those who have such an object */

static int
llm_openai_format(llm_openai_in_t *in, llm_openai_rule_t *rule,
    const char *field)
{
    json_t      *v, *inner;
    const char  *type;

    v = llm_openai_field(in->root, field);

    if (v == NULL) {
        return 0;
    }

    type = json_string_value(llm_openai_field(v, "type"));

    if (type == NULL) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, field,
                          "%s must be an object with a type.", field);
    }

    if (strcmp(type, "text") == 0) {
        return 0;
    }

    if (strcmp(type, "json_schema") == 0) {
        return llm_openai_format_schema(in, rule, field, v);
    }

    inner = llm_openai_field(v, "value");

    if (strcmp(type, "json_object") == 0 || strcmp(type, "json") == 0) {

        if (inner == NULL) {
            inner = llm_openai_field(v, "schema");
        }

        return inner != NULL
               ? llm_openai_rule(in, rule, field, LLM_GRAMMAR_SCHEMA, inner)
               : llm_openai_rule(in, rule, field, LLM_GRAMMAR_JSON,
                                 json_true());
    }

    if (strcmp(type, "regex") == 0) {

        if (inner == NULL) {
            inner = llm_openai_field(v, "pattern");
        }

        return llm_openai_rule(in, rule, field, LLM_GRAMMAR_REGEX,
                               inner != NULL ? inner : json_null());
    }

    if (strcmp(type, "structural_tag") == 0) {
        return llm_openai_rule(in, rule, field, LLM_GRAMMAR_TAGS, v);
    }

    return llm_refuse(in->why, LLM_ERR_UNSUPPORTED, field,
                      "%s may be of type text, json_object, json_schema, regex "
                      "or structural_tag.", field);
}


/* vLLM's; what it lets a client say of how, but for white space, is refused */

static int
llm_openai_structured(llm_openai_in_t *in, llm_openai_rule_t *rule)
{
    int          rc, compact, closed;
    json_t      *v;
    const char  *before;

    v = llm_openai_field(in->root, "structured_outputs");

    if (v == NULL) {
        return 0;
    }

    before = rule->param;

    rc = llm_openai_rule_each(in, rule, v, llm_openai_structured_fields);
    if (rc != 0) {
        return rc;
    }

    if (rule->param == before) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "structured_outputs",
                          "structured_outputs must be an object with json, "
                          "regex, choice, grammar, json_object or "
                          "structural_tag.");
    }

    compact = 0;
    rc = llm_openai_bool(in, v, "disable_any_whitespace",
                         "structured_outputs.disable_any_whitespace",
                         &compact);
    if (rc != 0) {
        return rc;
    }

    if (compact) {
        rule->flags |= LLM_GRAMMAR_COMPACT;
    }

    closed = 0;
    rc = llm_openai_bool(in, v, "disable_additional_properties",
                         "structured_outputs.disable_additional_properties",
                         &closed);
    if (rc != 0) {
        return rc;
    }

    if (closed || llm_openai_field(v, "whitespace_pattern") != NULL) {
        return llm_refuse(in->why, LLM_ERR_UNSUPPORTED, "structured_outputs",
                          "structured_outputs.%s is not supported.",
                          closed ? "disable_additional_properties"
                                 : "whitespace_pattern");
    }

    return 0;
}


/* {"whitespace":true,"property_order":"declared"}, our own */

static int
llm_openai_json_options(llm_openai_in_t *in, llm_openai_rule_t *rule)
{
    int          rc, space, any;
    json_t      *v, *order;
    const char  *s;

    v = llm_openai_field(in->root, "json_options");

    if (v != NULL && !json_is_object(v)) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, "json_options",
                          "json_options must be an object.");
    }

    space = 1;
    rc = llm_openai_bool(in, v, "whitespace", "json_options.whitespace",
                         &space);
    if (rc != 0) {
        return rc;
    }

    order = llm_openai_field(v, "property_order");
    s = json_string_value(order);
    any = s != NULL && strcmp(s, "any") == 0;

    if (order != NULL && !any && (s == NULL || strcmp(s, "declared") != 0)) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD,
                          "json_options.property_order",
                          "json_options.property_order must be \"declared\" "
                          "or \"any\".");
    }

    if (!space) {
        rule->flags |= LLM_GRAMMAR_COMPACT;
    }

    if (!any) {
        rule->flags |= LLM_GRAMMAR_ORDERED;
    }

    return 0;
}


/*
 * {"begin":"...","content":{"type":"json_schema","json_schema":{}},"end":"..."}
 * as the structure that it is
 */

static int
llm_openai_tag(llm_openai_in_t *in, const llm_openai_rule_t *rule,
    const json_t *tag, llm_buf_t *b)
{
    json_t      *begin, *end, *content, *schema;
    const char  *type;

    begin = json_is_object(tag) ? llm_openai_field(tag, "begin") : NULL;
    end = json_is_object(tag) ? llm_openai_field(tag, "end") : NULL;
    content = json_is_object(tag) ? llm_openai_field(tag, "content") : NULL;
    type = json_is_object(content)
           ? json_string_value(llm_openai_field(content, "type")) : NULL;

    if (!json_is_string(begin) || !json_is_string(end) || type == NULL) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, rule->param,
                          "A tag must have a begin and an end, which are "
                          "strings, and a content with a type.");
    }

    if (strcmp(type, "json_schema") != 0) {
        return llm_refuse(in->why, LLM_ERR_UNSUPPORTED, rule->param,
                          "A tag's content may be of type json_schema only.");
    }

    schema = llm_openai_field(content, "json_schema");

    if (schema == NULL) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, rule->param,
                          "A tag's content must have a json_schema.");
    }

    llm_buf_lit(b, "{\"begin\":");
    llm_openai_json(b, begin);
    llm_buf_lit(b, ",\"schema\":");
    llm_openai_json(b, schema);
    llm_buf_lit(b, ",\"end\":");
    llm_openai_json(b, end);
    llm_buf_lit(b, "}");

    return 0;
}


/*
 * XGrammar's newer form, {"type":"triggered_tags","triggers":[...],
 * "tags":[...]}; of its formats the one that is the same as the older form
 */

static int
llm_openai_tags_format(llm_openai_in_t *in, const llm_openai_rule_t *rule,
    const json_t *format, llm_buf_t *b)
{
    int          rc;
    size_t       i;
    json_t      *triggers, *tags, *tag;
    const char  *type;

    type = json_is_object(format)
           ? json_string_value(llm_openai_field(format, "type")) : NULL;

    if (type == NULL || strcmp(type, "triggered_tags") != 0) {
        return llm_refuse(in->why, LLM_ERR_UNSUPPORTED, rule->param,
                          "A structural tag's format may be of type "
                          "triggered_tags only.");
    }

    if (json_is_true(llm_openai_field(format, "at_least_one"))
        || json_is_true(llm_openai_field(format, "stop_after_first"))
        || json_array_size(llm_openai_field(format, "excludes")) != 0)
    {
        return llm_refuse(in->why, LLM_ERR_UNSUPPORTED, rule->param,
                          "triggered_tags with at_least_one, stop_after_first "
                          "or excludes is not supported.");
    }

    triggers = llm_openai_field(format, "triggers");
    tags = llm_openai_field(format, "tags");

    if (!json_is_array(triggers) || !json_is_array(tags)) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, rule->param,
                          "triggered_tags must have triggers and tags, which "
                          "are arrays.");
    }

    llm_buf_lit(b, "{\"structures\":[");

    json_array_foreach(tags, i, tag) {

        if (i != 0) {
            llm_buf_lit(b, ",");
        }

        rc = llm_openai_tag(in, rule, tag, b);
        if (rc != 0) {
            return rc;
        }
    }

    llm_buf_lit(b, "],\"triggers\":");
    llm_openai_json(b, triggers);
    llm_buf_lit(b, "}");

    return 0;
}


/* {"structures":[...],"triggers":[...]}, and nothing that is beside them */

static int
llm_openai_tags(llm_openai_in_t *in, const llm_openai_rule_t *rule,
    const json_t *v, llm_buf_t *b)
{
    json_t  *structures, *triggers;

    if (llm_openai_field(v, "format") != NULL) {
        return llm_openai_tags_format(in, rule, llm_openai_field(v, "format"),
                                      b);
    }

    structures = llm_openai_field(v, "structures");
    triggers = llm_openai_field(v, "triggers");

    if (!json_is_array(structures) || !json_is_array(triggers)) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, rule->param,
                          "A structural tag must have structures and "
                          "triggers, which are arrays.");
    }

    llm_buf_lit(b, "{\"structures\":");
    llm_openai_json(b, structures);
    llm_buf_lit(b, ",\"triggers\":");
    llm_openai_json(b, triggers);
    llm_buf_lit(b, "}");

    return 0;
}


static int
llm_openai_tags_text(llm_openai_in_t *in, const llm_openai_rule_t *rule,
    llm_buf_t *b)
{
    int        rc;
    json_t    *v;
    llm_str_t  text;

    text.data = json_string_value(rule->value);
    text.len = json_string_length(rule->value);

    rc = llm_json_read(text, &v, in->why);

    if (rc == -LLM_ERR_NO_MEMORY) {
        return rc;
    }

    if (rc != 0) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, rule->param,
                          "%s must be an object, or a string that holds one.",
                          rule->param);
    }

    rc = llm_openai_tags(in, rule, v, b);

    json_decref(v);

    return rc;
}


/* what is behind the head of the section */

static int
llm_openai_rule_text(llm_openai_in_t *in, const llm_openai_rule_t *rule,
    llm_buf_t *b)
{
    size_t         i;
    json_t        *one;
    uint32_t       len;
    const json_t  *v;

    v = rule->value;

    if (rule->type == LLM_GRAMMAR_JSON) {
        return 0;
    }

    if (rule->type == LLM_GRAMMAR_TAGS) {
        return json_is_string(v) ? llm_openai_tags_text(in, rule, b)
                                 : llm_openai_tags(in, rule, v, b);
    }

    if (json_is_string(v)) {
        llm_buf_add(b, json_string_value(v), json_string_length(v));

    } else if (rule->type == LLM_GRAMMAR_SCHEMA) {
        llm_openai_json(b, v);

    } else {
        for (i = 0; i < json_array_size(v); i++) {
            one = json_array_get(v, i);
            len = (uint32_t) json_string_length(one);

            llm_buf_add(b, &len, sizeof(len));
            llm_buf_add(b, json_string_value(one), len);
        }
    }

    return 0;
}


static int
llm_openai_rule_write(llm_openai_in_t *in, const llm_openai_rule_t *rule)
{
    int                 rc;
    llm_buf_t           b;
    llm_wire_grammar_t  head;

    memset(&head, 0, sizeof(head));
    head.type = rule->type;
    head.flags = rule->flags;
    (void) snprintf(head.param, sizeof(head.param), "%s", rule->param);

    /* see llm_openai_parse_messages() */

    llm_buf_init(&b, in->body_len * 8 + 1024, in->alloc, in->arg);

    llm_buf_add(&b, &head, sizeof(head));

    rc = llm_openai_rule_text(in, rule, &b);
    if (rc != 0) {
        return rc;
    }

    if (b.failed) {
        return llm_refuse(in->why, LLM_ERR_NO_MEMORY, NULL, NULL);
    }

    if (b.len - sizeof(head) > LLM_OPENAI_GRAMMAR_MAX) {
        return llm_refuse(in->why, LLM_ERR_BAD_FIELD, rule->param,
                          "%s must have at most %d bytes.", rule->param,
                          LLM_OPENAI_GRAMMAR_MAX);
    }

    in->call->grammar.data = b.data;
    in->call->grammar.len = b.len;
    in->call->head.flags |= LLM_F_GRAMMAR;

    return 0;
}


int
llm_openai_parse_grammar(llm_openai_in_t *in)
{
    int                rc;
    json_t            *v;
    llm_openai_rule_t  rule;

    memset(&rule, 0, sizeof(rule));

    rc = llm_openai_format(in, &rule, "response_format");
    if (rc != 0) {
        return rc;
    }

    rc = llm_openai_rule_each(in, &rule, in->root, llm_openai_rule_fields);
    if (rc != 0) {
        return rc;
    }

    v = llm_openai_field(in->root, "grammar");

    rc = json_is_string(v)
         ? llm_openai_rule(in, &rule, "grammar", LLM_GRAMMAR_EBNF, v)
         : llm_openai_format(in, &rule, "grammar");

    if (rc != 0) {
        return rc;
    }

    rc = llm_openai_structured(in, &rule);
    if (rc != 0) {
        return rc;
    }

    rc = llm_openai_json_options(in, &rule);
    if (rc != 0 || rule.param == NULL) {
        return rc;
    }

    /* each kind has its own; of what is no JSON there is nothing to say */

    if (rule.type == LLM_GRAMMAR_JSON) {
        rule.flags &= LLM_GRAMMAR_COMPACT;

    } else if (rule.type != LLM_GRAMMAR_SCHEMA
               && rule.type != LLM_GRAMMAR_TAGS)
    {
        rule.flags = 0;
    }

    return llm_openai_rule_write(in, &rule);
}


int
llm_openai_grammar_tools(llm_openai_in_t *in, const json_t *name, int must)
{
    llm_openai_rule_t   rule;
    llm_wire_grammar_t  head;

    if (in->call->head.flags & LLM_F_GRAMMAR) {

        memcpy(&head, in->call->grammar.data, sizeof(head));

        return llm_openai_rule_twice(in, head.param, "tool_choice");
    }

    memset(&rule, 0, sizeof(rule));

    rule.param = must ? "tool_choice" : "tools";
    rule.type = LLM_GRAMMAR_TOOLS;
    rule.flags = must ? 0 : LLM_GRAMMAR_AUTO;
    rule.value = name != NULL ? name : json_null();

    return llm_openai_rule_write(in, &rule);
}
