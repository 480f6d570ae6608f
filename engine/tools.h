/*
 * Calls of tools, told from the text around them by the form that a model's
 * family writes them in.
 */
#ifndef TOOLS_H
#define TOOLS_H

#include "grammar.h"
#include "llm_wire.h"
#include "token.h"

#include <stddef.h>
#include <stdint.h>

/* Bytes of what may turn out to be a call that are held back at most. */
#define TOOLS_HELD_MAX 8192

#define TOOLS_NAME_MAX 128 /* bytes of a function's name */

/* A family's form, read-only after opening. */
typedef struct tools_family_s tools_family_t;

/* What one request may call, and where each of its choices is. */
typedef struct tools_s tools_t;

/*
 * Takes n bytes of one kind: LLM_TEXT_ANSWER; LLM_TEXT_CALL, which are the
 * name of a call that begins; LLM_TEXT_ARGUMENTS, of the last call.  0, or
 * negative to stop.
 */
typedef int (*tools_put_t)(void *arg, uint32_t kind, const char *p, size_t n);

/*
 * The form that is called name, or with "auto" the one that the chat
 * template's source (may be NULL) shows; "off" is none.  0 with *f, which is
 * NULL if there is none; -1 with one sentence in err.
 */
int tools_family_open(tools_family_t **f, const char *name, const char *source,
    size_t len, const token_t *tok, char *err, size_t errlen);
void tools_family_close(tools_family_t *f);

/* What it is called. */
const char *tools_family_name(const tools_family_t *f);

/* Does a token without text stand for a part of a call?  Then *s, *n. */
int tools_mark(const tools_family_t *f, uint32_t id, const char **s, size_t *n);

/*
 * The tokens without text that grammars of f's calls speak of, for
 * grammar_vocab_open: into *marks, which is f's; how many.  f may be NULL.
 */
uint32_t tools_marks(const tools_family_t *f, const grammar_mark_t **marks);

enum {
    TOOLS_GRAMMAR_ONE = 1,  /* at most one call, and nothing behind it */
    TOOLS_GRAMMAR_AUTO = 2, /* free text until the model opens a call */
    TOOLS_GRAMMAR_FLAGS = 3
};

/*
 * What a model of the family may write to call the functions that a request's
 * tools, a JSON array, declare; name (if name_len > 0) is the only one that it
 * may.  One with "strict" is held to all of its schema; of others what cannot
 * be enforced is not.  Where tokens are marks (tools_marks) they are asked for
 * by GRAMMAR_TOKEN.  In the form of GPT-OSS it begins behind the prompt's
 * "<|start|>assistant" and has the headers of thoughts, not their text.  NULL
 * with one sentence in err.
 */
grammar_t *tools_grammar(const tools_family_t *f, const char *tools, size_t len,
    const char *name, size_t name_len, uint32_t flags, const grammar_opts_t *o,
    char *err, size_t errlen);

/*
 * For the functions that json, the request's tools, declares; f is borrowed.
 * one: a choice ends with its first call.  NULL: out of memory.
 */
tools_t *tools_open(const tools_family_t *f, const char *json, size_t len,
    uint32_t choices, int one);

/* NULL is allowed. */
void tools_close(tools_t *t);

const tools_family_t *tools_family(const tools_t *t);

/*
 * The next n bytes of a choice's answer.  mark: they are those of a token that
 * tools_mark knows.  0, or what put gave.
 */
int tools_feed(tools_t *t, uint32_t choice, const char *p, size_t n, int mark,
    tools_put_t put, void *arg);

/* The text is over: what was held back is no call, or a whole one. */
int tools_end(tools_t *t, uint32_t choice, tools_put_t put, void *arg);

/* Has the choice ended with a call that is whole? */
int tools_called(const tools_t *t, uint32_t choice);

/* Is it to end here, as one call is all that is wanted? */
int tools_over(const tools_t *t, uint32_t choice);

#endif
