/*
 * Shared prefixes: what the operator says that prompts begin with, as token
 * ids.  See prefix.c.
 */
#ifndef PREFIX_H
#define PREFIX_H

#include "template.h"
#include "token.h"

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define PREFIX_MAX      64         /* files */
#define PREFIX_FILE_MAX (2u << 20) /* bytes of one */

typedef struct {
    char *path;     /* owned */
    uint32_t *ids;  /* [n] owned */
    uint32_t n;     /* >= 1 */
    uint32_t dated; /* as many there would be if the date did not change */
} prefix_t;

typedef struct {
    prefix_t v[PREFIX_MAX];
    uint32_t n;
} prefix_set_t;

typedef struct {
    const token_t *tok;
    const template_t *tpl;
    uint32_t most; /* tokens of one */
    time_t now;    /* for templates that ask for the date */
} prefix_rules_t;

/*
 * Adds to set, which was zeroed before its first use, what lies at path: a
 * file, or a directory of files, in the order of their names; such as begin
 * with a dot are none.  0, or -1 with one sentence in err; prefix_free is due
 * either way.
 */
int prefix_load(prefix_set_t *set, const char *path, const prefix_rules_t *r,
    char *err, size_t errlen);

/*
 * The same of one file's len bytes; its name says whether they are JSON
 * (".json") or a system message's text.
 */
int prefix_add(prefix_set_t *set, const char *path, const prefix_rules_t *r,
    const char *text, size_t len, char *err, size_t errlen);

void prefix_free(prefix_set_t *set);

#endif
