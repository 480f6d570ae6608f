/*
 * Chat templates: a conversation to token ids.  Markup becomes special tokens,
 * what users wrote never does: "<|im_end|>" in a message is plain text.
 */
#ifndef TEMPLATE_H
#define TEMPLATE_H

#include "gguf.h"
#include "token.h"

#include <stddef.h>
#include <stdint.h>
#include <time.h>

typedef struct template_s template_t; /* read-only after opening */

#define TEMPLATE_SOURCE_MAX (1u << 20) /* bytes of a template */

/* Not 0-terminated; s is NULL: there is none. */
typedef struct {
    const char *s;
    size_t len;
} template_text_t;

/* A model's templates as they were found. */
typedef struct {
    template_text_t own, tools; /* either may be absent */
    char *owned[2];             /* what of them is no part of a GGUF */
} template_files_t;

/*
 * Finds them: file, if it is not empty, else what g has, else what lies in
 * dir (both may be NULL; template_load.c says where).  0, or -1 with one
 * sentence in err if file cannot be read.  Ended by template_unload, which
 * template_open's result does not need to wait for.
 */
int template_load(template_files_t *f, const char *file, const gguf_t *g,
    const char *dir, char *err, size_t errlen);
void template_unload(template_files_t *f);

/*
 * Compiles a model's own template, and the one for conversations with tools
 * if it has such; either may be absent.  Without any, or where it does not
 * compile, conversations take a fixed form (template.c says which); in the
 * latter case warn says why it does not, else it is empty.  NULL when out of
 * memory.  tok is borrowed until template_close.
 */
template_t *template_open(const token_t *tok, template_text_t own,
    template_text_t tools, char *warn, size_t warnlen);

/* NULL is allowed. */
void template_close(template_t *t);

/* Which form conversations take, for the log. */
const char *template_form(const template_t *t);

/* JSON as the client sent it, untrusted. */
typedef struct {
    template_text_t messages;  /* an array */
    template_text_t tools;     /* an array, may be absent */
    template_text_t documents; /* the same */
    template_text_t kwargs;    /* an object: further variables, may be absent */
    int no_prompt; /* without what the assistant's turn begins with */
    int go_on;     /* the last message is not over: nothing comes behind it */
    time_t now;    /* what templates that ask for the date are told */
} template_input_t;

/*
 * Writes at most cap ids to out, the generation prompt, or with go_on the last
 * message's text, at their end.  Returns
 * the count or a negative llm_err.h code as token_encode does, also
 * -LLM_ERR_BAD_FIELD and -LLM_ERR_BAD_MESSAGES; then err holds one sentence
 * for the client, the template's own if it refuses, and param the field to
 * blame ("messages[2].role"), both 0-terminated.
 */
int64_t template_encode(const template_t *t, const template_input_t *in,
    uint32_t *out, size_t cap, int (*cancelled)(void *), void *arg, char *err,
    size_t errlen, char *param, size_t paramlen);

#endif
