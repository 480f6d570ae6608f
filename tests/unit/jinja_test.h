/*
 * What the tests of templates share: files of LLM_DATA or the tree, and a
 * rendering with variables from JSON.
 */
#ifndef JINJA_TEST_H
#define JINJA_TEST_H

#include "jinja.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JINJA_TEST_VARS 32

static const jinja_limits_t jinja_test_limits = {
    10000000, 1000, (size_t) 64 << 20, (size_t) 16 << 20};

/* A whole file, NULL if it is not there; the caller frees it. */
static inline char *
jinja_test_file(const char *name, size_t *len)
{
    const char *dir = getenv("LLM_DATA");
    char path[1024], *p = NULL;
    FILE *f;

    (void) snprintf(path, sizeof(path), "%s/%s",
        dir != NULL ? dir : "../shared/data", name);
    f = fopen(path, "rb");
    *len = 0;
    if (f == NULL) {
        return NULL;
    }
    if (fseek(f, 0, SEEK_END) == 0 && ftell(f) >= 0) {
        *len = (size_t) ftell(f);
        rewind(f);
        p = malloc(*len + 1);
        if (p != NULL && fread(p, 1, *len, f) != *len) {
            free(p);
            p = NULL;
        }
    }
    (void) fclose(f);

    return p;
}

/* Renders t over the members of vars; bos_token and eos_token are its own. */
static inline int
jinja_test_render(const jinja_t *t, const json_t *vars, const struct tm *now,
    const jinja_limits_t *limits, jinja_out_t *out)
{
    jinja_var_t v[JINJA_TEST_VARS];
    jinja_args_t args = {.vars = v, .limits = limits, .now = now};
    json_t *obj = (json_t *) (uintptr_t) vars;
    void *it;

    for (it = json_object_iter(obj);
         it != NULL && args.vars_n < JINJA_TEST_VARS;
         it = json_object_iter_next(obj, it)) {
        v[args.vars_n].name = json_object_iter_key(it);
        v[args.vars_n].value = json_object_iter_value(it);
        v[args.vars_n].origin =
            strstr(json_object_iter_key(it), "s_token") != NULL ? JINJA_TEMPLATE
                                                                : JINJA_DATA;
        args.vars_n++;
    }

    return jinja_render(t, &args, out);
}

#endif
