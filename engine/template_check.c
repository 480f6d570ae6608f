/*
 * A client's messages judged, and brought into the form that a template takes.
 *
 * DESIGN.  Every type is checked, counts are capped, and what is wrong is
 * answered with the field's path, before any template sees it: templates
 * fail over a wrong type in their own words, which help nobody.
 *
 * Then the messages, which are a private copy, are changed in place:
 *
 *      content [{"type": "text", "text": "a"}, ...]  the texts, joined by \n,
 *                                  unless the template goes through parts
 *      content null or absent      "", unless the template takes null there
 *      role developer              system, unless the template knows it
 *      arguments "{\"a\": 1}"      the object, if the string is one
 *      reasoning_content           also under the template's name for it
 *
 * All else that a message has is left for the template to look at.
 */
#include "template_impl.h"
#include "llm_err.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGES_MAX 4096
#define PARTS_MAX    4096
#define CALLS_MAX    1024


/* The sentence is ours or the template's, the path is ours. */
int
template_refuse(
    template_call_t *p, int code, const char *why, const char *path, ...)
{
    size_t n = strlen(why);
    va_list ap;

    assert(code > 0);

    va_start(ap, path);
    (void) vsnprintf(p->param, p->paramlen, path, ap);
    va_end(ap);
    (void) snprintf(p->err, p->errlen, "%s", why);

    /* a template's sentence may be longer: not cut inside a character */
    if (n >= p->errlen) {
        n = p->errlen - 1;
        while (n > 0 && ((uint8_t) why[n] & 0xc0) == 0x80) {
            n--;
        }
        p->err[n] = '\0';
    }

    return -code;
}


/* Takes the reference to v. */
static int
check_put(json_t *obj, const char *key, json_t *v)
{
    return v == NULL || json_object_set_new(obj, key, v) != 0
               ? -LLM_ERR_NO_MEMORY
               : 0;
}


/* One of five. */
static int
check_role(
    template_call_t *p, json_t *msg, size_t i, const template_takes_t *takes)
{
    static const char *const roles[] = {
        "developer", "system", "user", "assistant", "tool"};
    const json_t *v = json_object_get(msg, "role");
    size_t k;

    assert(takes != NULL);

    if (!json_is_string(v)) {
        return template_refuse(p, LLM_ERR_BAD_FIELD, "A role must be a string.",
            "messages[%zu].role", i);
    }

    for (k = 0; k < sizeof(roles) / sizeof(roles[0]); k++) {
        if (strcmp(json_string_value(v), roles[k]) == 0
            && json_string_length(v) == strlen(roles[k])) {
            return k == 0 && !takes->developer
                       ? check_put(msg, "role", json_string("system"))
                       : 0;
        }
    }

    return template_refuse(p, LLM_ERR_BAD_FIELD,
        "A role must be system, developer, user, assistant or tool.",
        "messages[%zu].role", i);
}


/* Judges a content that is an array of parts, and sums up its text. */
static int
check_parts(template_call_t *p, const json_t *parts, size_t i, size_t *len)
{
    const json_t *type, *text;
    size_t k, n = json_array_size(parts);

    if (n == 0 || n > PARTS_MAX) {
        return template_refuse(p, LLM_ERR_BAD_FIELD,
            "A content must have 1 to 4096 parts.", "messages[%zu].content", i);
    }

    for (k = 0, *len = 0; k < n; k++) {
        type = json_object_get(json_array_get(parts, k), "type");
        text = json_object_get(json_array_get(parts, k), "text");

        if (!json_is_string(type)
            || strcmp(json_string_value(type), "text") != 0) {
            return template_refuse(p, LLM_ERR_BAD_FIELD,
                "Only content parts of type text are supported.",
                "messages[%zu].content[%zu].type", i, k);
        }
        if (!json_is_string(text)) {
            return template_refuse(p, LLM_ERR_BAD_FIELD,
                "The text of a content part must be a string.",
                "messages[%zu].content[%zu].text", i, k);
        }
        *len += json_string_length(text) + 1;
    }

    return 0;
}


/* The parts' texts as one string; len is their sum, with newlines. */
static int
check_flatten(json_t *msg, const json_t *parts, size_t len)
{
    char *text = malloc(len);
    const json_t *part;
    size_t k, at = 0;
    int rc;

    if (text == NULL) {
        return -LLM_ERR_NO_MEMORY;
    }

    for (k = 0; k < json_array_size(parts); k++) {
        part = json_object_get(json_array_get(parts, k), "text");
        if (k > 0) {
            text[at++] = '\n';
        }
        memcpy(text + at, json_string_value(part), json_string_length(part));
        at += json_string_length(part);
    }
    assert(at + 1 == len);

    rc = check_put(msg, "content", json_stringn_nocheck(text, at));
    free(text);

    return rc;
}


/* A string, an array of parts, or nothing where that is allowed. */
static int
check_content(
    template_call_t *p, json_t *msg, size_t i, const template_takes_t *takes)
{
    json_t *v = json_object_get(msg, "content");
    size_t len;
    int rc;

    assert(takes != NULL);

    if (json_is_string(v)) {
        return 0;
    }

    if (json_is_array(v)) {
        rc = check_parts(p, v, i, &len);
        return rc != 0 || takes->parts ? rc : check_flatten(msg, v, len);
    }

    /* an assistant that only called tools has said nothing */
    if ((v == NULL || json_is_null(v))
        && strcmp(json_string_value(json_object_get(msg, "role")), "assistant")
               == 0) {
        return takes->null ? check_put(msg, "content", json_null())
                           : check_put(msg, "content", json_string(""));
    }

    return template_refuse(p, LLM_ERR_BAD_FIELD,
        "A content must be a string or an array of parts.",
        "messages[%zu].content", i);
}


/* Arguments in a string become what they say, if that is an object. */
static int
check_arguments(template_call_t *p, json_t *f, size_t i, size_t k)
{
    json_t *v = json_object_get(f, "arguments"), *parsed;

    if (v == NULL || json_is_object(v)) {
        return 0;
    }
    if (!json_is_string(v)) {
        return template_refuse(p, LLM_ERR_BAD_FIELD,
            "The arguments of a tool call must be a string or an object.",
            "messages[%zu].tool_calls[%zu]", i, k);
    }

    parsed = json_loadb(
        json_string_value(v), json_string_length(v), JSON_ALLOW_NUL, NULL);
    if (json_is_object(parsed)) {
        return check_put(f, "arguments", parsed);
    }
    json_decref(parsed);

    return 0;
}


/* Absent and null are no calls. */
static int
check_calls(template_call_t *p, json_t *msg, size_t i)
{
    json_t *calls = json_object_get(msg, "tool_calls"), *f;
    size_t k, n = json_array_size(calls);
    int rc = 0;

    assert(json_is_object(msg));

    if (calls == NULL || json_is_null(calls)) {
        return 0;
    }
    if (!json_is_array(calls) || n > CALLS_MAX) {
        return template_refuse(p, LLM_ERR_BAD_FIELD,
            "tool_calls must be an array of at most 1024 calls.",
            "messages[%zu].tool_calls", i);
    }

    for (k = 0; k < n && rc == 0; k++) {
        f = json_object_get(json_array_get(calls, k), "function");
        if (!json_is_object(f) || !json_is_string(json_object_get(f, "name"))) {
            return template_refuse(p, LLM_ERR_BAD_FIELD,
                "A tool call must have a function with a name.",
                "messages[%zu].tool_calls[%zu]", i, k);
        }
        rc = check_arguments(p, f, i, k);
    }

    return rc;
}


/* Fields that are strings if they are there. */
static int
check_strings(template_call_t *p, const json_t *msg, size_t i)
{
    static const char *const names[] = {
        "name", "tool_call_id", "reasoning_content"};
    const json_t *v;
    size_t k;

    for (k = 0; k < sizeof(names) / sizeof(names[0]); k++) {
        v = json_object_get(msg, names[k]);
        if (v != NULL && !json_is_null(v) && !json_is_string(v)) {
            return template_refuse(p, LLM_ERR_BAD_FIELD, "It must be a string.",
                "messages[%zu].%s", i, names[k]);
        }
    }

    return 0;
}


/* An assistant's thought, also by the name that the template has for it. */
static int
check_thought(json_t *msg, const template_takes_t *takes)
{
    json_t *v = json_object_get(msg, "reasoning_content");

    assert(json_is_object(msg));

    if (takes->thought == NULL || json_string_length(v) == 0
        || json_object_get(msg, takes->thought) != NULL) {
        return 0;
    }

    return json_object_set(msg, takes->thought, v) != 0 ? -LLM_ERR_NO_MEMORY
                                                        : 0;
}


/* In the order of the messages: the first mistake is told. */
int
template_check(
    template_call_t *p, json_t *messages, const template_takes_t *takes)
{
    size_t i, n = json_array_size(messages);
    json_t *msg;
    int rc = 0;

    assert(takes != NULL);

    if (!json_is_array(messages) || n == 0 || n > MESSAGES_MAX) {
        return template_refuse(p, LLM_ERR_BAD_FIELD,
            "messages must be an array of 1 to 4096 messages.", "messages");
    }

    for (i = 0; i < n; i++) {
        if (!json_is_object(json_array_get(messages, i))) {
            return template_refuse(p, LLM_ERR_BAD_FIELD,
                "A message must be an object.", "messages[%zu]", i);
        }
    }

    for (i = 0; i < n && rc == 0; i++) {
        msg = json_array_get(messages, i);
        if ((rc = check_role(p, msg, i, takes)) == 0
            && (rc = check_content(p, msg, i, takes)) == 0
            && (rc = check_calls(p, msg, i)) == 0
            && (rc = check_strings(p, msg, i)) == 0) {
            rc = check_thought(msg, takes);
        }
    }

    return rc;
}
