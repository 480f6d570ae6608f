/*
 * Where a model's chat templates are found.
 *
 * DESIGN.  In this order, and the first that there is counts:
 *
 *      the file that the option chat_template names
 *      a GGUF's  tokenizer.chat_template, tokenizer.chat_template.tool_use
 *      in a Hugging Face directory
 *                chat_template.jinja, additional_chat_templates/tool_use.jinja
 *                tokenizer_config.json: "chat_template", a string or a list
 *                of {"name": "default" or "tool_use", "template": ...}
 *
 * Only the option's file must be there; a model without any template is
 * served all the same.  A file of a directory that cannot be used is as good
 * as absent: the tokenizer's reader has judged what matters more.
 *
 * Memory: a GGUF's are borrowed from its mapping, the others are copies that
 * template_unload frees; the compiler copies once more, so they need not live
 * longer than the call of template_open.  Runs at start.
 */
#include "template.h"

#include <assert.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* tokenizer_config.json lists added tokens, too: real ones stay below 1 MB. */
#define CONFIG_MAX ((size_t) 16 << 20)


/*
 * Reads a file of at most max bytes (of a longer one one byte more, so that
 * whoever uses it sees).  0, or -1 with errno.
 */
static int
load_file(const char *path, size_t max, char **text, size_t *len)
{
    FILE *f = fopen(path, "rb");
    char *p = NULL, *more;
    size_t cap = 0, n = 0;

    if (f == NULL) {
        return -1;
    }

    while (n <= max && n == cap) {
        cap = cap == 0 ? 65536 : cap * 2;
        cap = cap > max + 1 ? max + 1 : cap;
        more = realloc(p, cap);
        if (more == NULL || cap == n) {
            break;
        }
        p = more;
        n += fread(p + n, 1, cap - n, f);
    }

    if (p == NULL || ferror(f)) {
        (void) fclose(f);
        free(p);
        return -1;
    }
    (void) fclose(f);

    *text = p;
    *len = n;

    return 0;
}


/* A file beside a model's others, if it is there and not too long. */
static void
load_beside(
    const char *dir, const char *name, size_t max, char **text, size_t *len)
{
    char path[4096];
    int n = snprintf(path, sizeof(path), "%s/%s", dir, name);

    *text = NULL;
    *len = 0;
    if (n > 0 && (size_t) n < sizeof(path)
        && load_file(path, max, text, len) == 0 && *len > max) {
        free(*text);
        *text = NULL;
    }
}


/* A copy of a JSON string, unless there is a text already. */
static void
load_string(const json_t *v, char **owned, template_text_t *text)
{
    size_t len = json_string_length(v);

    if (!json_is_string(v) || text->s != NULL) {
        return;
    }

    *owned = malloc(len + 1);
    if (*owned != NULL) {
        memcpy(*owned, json_string_value(v), len);
        text->s = *owned;
        text->len = len;
    }
}


/* What tokenizer_config.json has. */
static void
load_config(template_files_t *f, const char *dir)
{
    json_t *j = NULL, *v, *one;
    const char *name;
    size_t len, i;
    char *text;

    load_beside(dir, "tokenizer_config.json", CONFIG_MAX, &text, &len);
    if (text != NULL) {
        j = json_loadb(text, len, 0, NULL);
        free(text);
    }

    v = json_object_get(j, "chat_template");
    load_string(v, &f->owned[0], &f->own);
    for (i = 0; i < json_array_size(v); i++) {
        one = json_array_get(v, i);
        name = json_string_value(json_object_get(one, "name"));
        one = json_object_get(one, "template");
        if (name != NULL && strcmp(name, "default") == 0) {
            load_string(one, &f->owned[0], &f->own);
        } else if (name != NULL && strcmp(name, "tool_use") == 0) {
            load_string(one, &f->owned[1], &f->tools);
        }
    }
    json_decref(j);
}


/* What a directory has. */
static void
load_dir(template_files_t *f, const char *dir)
{
    load_beside(dir, "chat_template.jinja", TEMPLATE_SOURCE_MAX, &f->owned[0],
        &f->own.len);
    f->own.s = f->owned[0];
    if (f->own.s == NULL) {
        load_config(f, dir);
        return;
    }

    load_beside(dir, "additional_chat_templates/tool_use.jinja",
        TEMPLATE_SOURCE_MAX, &f->owned[1], &f->tools.len);
    f->tools.s = f->owned[1];
}


int
template_load(template_files_t *f, const char *file, const gguf_t *g,
    const char *dir, char *err, size_t errlen)
{
    gguf_str_t s;

    assert(file != NULL && errlen > 0);
    memset(f, 0, sizeof(*f));

    if (file[0] != '\0') {
        if (load_file(file, TEMPLATE_SOURCE_MAX, &f->owned[0], &f->own.len)
            != 0) {
            (void) snprintf(err, errlen, "cannot read the chat template %s: %s",
                file, strerror(errno));
            return -1;
        }
        f->own.s = f->owned[0];
        return 0;
    }

    if (g == NULL) {
        if (dir != NULL) {
            load_dir(f, dir);
        }
        return 0;
    }

    if (gguf_str(g, "tokenizer.chat_template", &s)) {
        f->own = (template_text_t){s.s, s.len};
    }
    if (gguf_str(g, "tokenizer.chat_template.tool_use", &s)) {
        f->tools = (template_text_t){s.s, s.len};
    }

    return 0;
}


void
template_unload(template_files_t *f)
{
    free(f->owned[0]);
    free(f->owned[1]);
    memset(f, 0, sizeof(*f));
}
