/*
 * Jinja templates as chat models carry them: compiled once, rendered often,
 * and of every byte of the result it is known whether the template's author
 * wrote it or a client.
 *
 * The language is that of Jinja2 3.1 with trim_blocks, lstrip_blocks, the
 * loop controls, `generation` blocks, raise_exception, strftime_now and a
 * tojson that escapes nothing, in the immutable sandbox; without extends,
 * include, import and block, which need more than one file.
 */
#ifndef JINJA_H
#define JINJA_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

typedef struct jinja_s jinja_t; /* a compiled template, read-only */

#define JINJA_SOURCE_MAX (1u << 20) /* bytes of a template */

/*
 * Compiles len bytes of src, which is copied.  NULL with one sentence in err
 * ("line 3: ...") if it is no template, or takes too much memory.
 */
jinja_t *jinja_compile(const char *src, size_t len, char *err, size_t errlen);

/* NULL is allowed. */
void jinja_free(jinja_t *t);

/* Does the template name s anywhere, as a variable, attribute or string? */
int jinja_mentions(const jinja_t *t, const char *s);

/* Who wrote a byte. */
enum { JINJA_DATA = 0, JINJA_TEMPLATE = 1 };

/* A variable; value is borrowed during the rendering. */
typedef struct {
    const char *name;
    const json_t *value;
    unsigned origin; /* of its strings: JINJA_DATA, JINJA_TEMPLATE */
} jinja_var_t;

/* All must be set; what exceeds one ends the rendering with a sentence. */
typedef struct {
    uint64_t steps_max; /* nodes evaluated, and 16 bytes copied are one */
    uint32_t depth_max; /* of nested evaluations, some 300 bytes of stack */
    size_t memory_max;  /* of values, bytes */
    size_t output_max;  /* bytes, at most 2^31 */
} jinja_limits_t;

typedef struct {
    const jinja_var_t *vars; /* of two with one name the first counts */
    size_t vars_n;
    const jinja_limits_t *limits;
    const struct tm *now;     /* what strftime_now says, local time */
    int (*cancelled)(void *); /* asked every few thousand steps, or NULL */
    void *arg;
} jinja_args_t;

/* Bytes from the end of the run before to end are of one origin. */
typedef struct {
    uint32_t end;
    uint32_t origin;
} jinja_run_t;

typedef struct {
    char *text; /* [len], not 0-terminated, owned */
    size_t len;
    jinja_run_t *runs; /* [runs_n], neighbours differ, the last ends at len */
    size_t runs_n;
    int raised;    /* the template itself refused, by raise_exception */
    char err[256]; /* one sentence, whole UTF-8 characters */
} jinja_out_t;

/*
 * Renders.  0 with *out filled, which the caller hands to jinja_out_free, or
 * -LLM_ERR_BAD_MESSAGES (the template refuses what it is given, fails over it,
 * or reaches a limit; out->err says which), -LLM_ERR_CANCELLED,
 * -LLM_ERR_NO_MEMORY; then there is nothing to free.
 */
int jinja_render(const jinja_t *t, const jinja_args_t *args, jinja_out_t *out);

void jinja_out_free(jinja_out_t *out);

/* Bytes of s without what Python calls white space at its end. */
size_t jinja_trimmed(const char *s, size_t len);

#endif
