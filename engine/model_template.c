/*
 * The chat templates that came with a model, as text.
 *
 *      chat_template.jinja                        the model's own
 *      additional_chat_templates/tool_use.jinja   for conversations with tools
 *      tokenizer_config.json, "chat_template"     what the files do not give:
 *              a text, or a list of {"name": ..., "template": ...}
 *
 * In GGUF they are keys.  Nothing here judges them: template.c compiles.
 *
 * The texts of a directory are the model's, those of GGUF are in its mapping.
 */
#include "model_impl.h"

#include <assert.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Real ones have some KiB; tokenizer_config.json lists added tokens too. */
#define TEMPLATE_MAX  (1u << 20)
#define TOKENIZER_MAX (4u << 20)

/* DIR/NAME if there is such a file; 0 only when it cannot be read. */
static int
take_file(
    const char *dir, const char *name, char **text, char *err, size_t errlen)
{
    int ok = 1;
    size_t len = 0;
    char *path;

    assert(*text == NULL);

    if (asprintf(&path, "%s/%s", dir, name) < 0) {
        snprintf(err, errlen, "%s: not enough memory", dir);
        return 0;
    }

    if (access(path, F_OK) == 0) {
        *text = model_hf_text(path, TEMPLATE_MAX, &len, err, errlen);
        ok = *text != NULL;
    }

    if (*text != NULL) {
        (*text)[len] = '\0';
    }

    free(path);
    return ok;
}

/* A copy of j's text to *to, unless there is one; j may be anything. */
static int
take_text(const json_t *j, char **to)
{
    if (!json_is_string(j) || *to != NULL) {
        return 1;
    }

    *to = strdup(json_string_value(j));
    return *to != NULL;
}

/* A text, or a list of named ones. */
static int
take_key(model_t *m, const json_t *j)
{
    int ok = take_text(j, &m->chat);
    size_t i;
    const json_t *v;
    const char *name;

    json_array_foreach(j, i, v)
    {
        name = json_string_value(json_object_get(v, "name"));
        v = json_object_get(v, "template");

        if (name != NULL && strcmp(name, "default") == 0) {
            ok = ok && take_text(v, &m->chat);
        } else if (name != NULL && strcmp(name, "tool_use") == 0) {
            ok = ok && take_text(v, &m->chat_tools);
        }
    }

    return ok;
}

int
model_hf_templates(model_t *m, const char *dir, char *err, size_t errlen)
{
    int ok = 1;
    char *path;
    json_t *j;

    assert(m->chat == NULL && m->chat_tools == NULL);

    if (!take_file(dir, "chat_template.jinja", &m->chat, err, errlen)
        || !take_file(dir, "additional_chat_templates/tool_use.jinja",
            &m->chat_tools, err, errlen)) {
        return 0;
    }

    if (asprintf(&path, "%s/tokenizer_config.json", dir) < 0) {
        snprintf(err, errlen, "%s: not enough memory", dir);
        return 0;
    }

    if (access(path, F_OK) == 0) {
        /* its numbers may be of any size, and none is of interest */
        j = model_hf_object(path, TOKENIZER_MAX,
            JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, err, errlen);
        ok = j != NULL;

        if (ok && !take_key(m, json_object_get(j, "chat_template"))) {
            snprintf(err, errlen, "%s: not enough memory", path);
            ok = 0;
        }

        json_decref(j);
    }

    free(path);
    return ok;
}

static gguf_str_t
text_of(const char *s)
{
    gguf_str_t v = {s, s != NULL ? strlen(s) : 0};

    return v;
}

void
model_templates(const model_t *m, gguf_str_t *own, gguf_str_t *tools)
{
    *own = text_of(m->chat);
    *tools = text_of(m->chat_tools);

    if (m->gguf == NULL) {
        return;
    }

    assert(own->s == NULL && tools->s == NULL);
    (void) gguf_str(m->gguf, "tokenizer.chat_template", own);
    (void) gguf_str(m->gguf, "tokenizer.chat_template.tool_use", tools);
}
