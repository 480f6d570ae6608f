/*
 * Opens the tokenizer of a Hugging Face directory.
 *
 * DESIGN.  The vocabulary is tokenizer.json's, or, where there is none,
 * tokenizer.model's.  What neither says, or says differently from how the model
 * is run, stands in files beside it, each of which may be absent:
 *
 *      tokenizer_config.json     begin, end; are they put around a text?
 *      special_tokens_map.json   begin and end, where the former is silent
 *      generation_config.json    all tokens that end an answer
 *
 * A file that is there must be sound, or the directory is refused: a model that
 * does not know its end never stops.  Numbers and names that are no piece's are
 * passed over: such files are often copied from a relative.
 *
 * Numbers are read as floating point: a length without a limit is written as
 * 10^30 there, which fits no integer.
 *
 * Trees are freed before opening ends.  Runs at start.
 */
#include "token_impl.h"

#include <assert.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DIR_PATH_MAX 4096

/* tokenizer_config.json may hold all added tokens and templates. */
#define DIR_FILE_MAX (16u << 20)

typedef struct {
    token_t *t;
    const char *path;
    char *err;
    size_t errlen;
} dir_open_t;


/* The path of a file in the directory; 0 if it is not there. */
static int
dir_has(const dir_open_t *d, const char *name, char *dst)
{
    int n = snprintf(dst, DIR_PATH_MAX, "%s/%s", d->path, name);

    return n > 0 && n < DIR_PATH_MAX && access(dst, F_OK) == 0;
}


/* A file's tree: 1, 0 when absent, -1 with a sentence. */
static int
dir_json(const dir_open_t *d, const char *name, json_t **o)
{
    char path[DIR_PATH_MAX], *p;
    json_error_t why;
    size_t len;

    assert(o != NULL);

    *o = NULL;
    if (!dir_has(d, name, path)) {
        return 0;
    }

    p = token_load_file(path, DIR_FILE_MAX, &len, d->err, d->errlen);
    if (p == NULL) {
        return -1;
    }
    *o = json_loadb(p, len, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &why);
    free(p);

    if (!json_is_object(*o)) {
        (void) snprintf(d->err, d->errlen,
            "%s: it is no JSON object: line %d: %s", path, why.line,
            *o == NULL ? why.text : "another value");
        json_decref(*o);
        *o = NULL;
        return -1;
    }

    return 1;
}


/* "<s>" or {"content": "<s>"}: the piece's id, TOKEN_NONE if none. */
static uint32_t
dir_token(const token_t *t, const json_t *v)
{
    v = json_is_object(v) ? json_object_get(v, "content") : v;

    return json_is_string(v)
               ? token_find(t, json_string_value(v), json_string_length(v))
               : TOKEN_NONE;
}


static void
dir_begin_end(token_t *t, const json_t *o)
{
    uint32_t bos = dir_token(t, json_object_get(o, "bos_token"));
    uint32_t eos = dir_token(t, json_object_get(o, "eos_token"));

    t->bos = bos != TOKEN_NONE ? bos : t->bos;
    t->eos = eos != TOKEN_NONE ? eos : t->eos;
    token_load_end(t, eos);
}


/*
 * Is id put around a text, at the edge where a text that stands alone would
 * have it?  A file that does not say leaves it as it is.
 */
static void
dir_around(token_around_t *a, const json_t *o, const char *key, uint32_t id,
    int behind)
{
    const json_t *v = json_object_get(o, key);
    uint32_t at = behind && a->n > 0 ? a->n - 1 : 0;
    int there = a->n > 0 && a->ids[at] == id;

    if (!json_is_boolean(v) || id == TOKEN_NONE) {
        return;
    }

    if (json_is_true(v) && !there && a->n < TOKEN_AROUND_MAX) {
        at = behind ? a->n : 0;
        memmove(a->ids + at + 1, a->ids + at, (a->n - at) * sizeof(a->ids[0]));
        a->ids[at] = id;
        a->n++;
    } else if (!json_is_true(v) && there) {
        a->n--;
        memmove(a->ids + at, a->ids + at + 1, (a->n - at) * sizeof(a->ids[0]));
    }

    assert(a->n <= TOKEN_AROUND_MAX);
}


/* A number, or a list of numbers. */
static void
dir_ends(token_t *t, const json_t *v)
{
    double n;
    size_t i;

    for (i = 0; i < (json_is_array(v) ? json_array_size(v) : 1); i++) {
        const json_t *one = json_is_array(v) ? json_array_get(v, i) : v;

        n = json_number_value(one);
        if (json_is_number(one) && n >= 0 && n < t->n) {
            token_load_end(t, (uint32_t) n);
            t->eos = t->eos == TOKEN_NONE ? (uint32_t) n : t->eos;
        }
    }
}


static int
dir_config(dir_open_t *d)
{
    json_t *map, *o;
    token_t *t = d->t;
    int rc;

    assert(t != NULL);

    if (dir_json(d, "special_tokens_map.json", &map) < 0) {
        return -1;
    }
    rc = dir_json(d, "tokenizer_config.json", &o);
    if (rc >= 0) {
        dir_begin_end(t, map);
        dir_begin_end(t, o);
        dir_around(&t->before, o, "add_bos_token", t->bos, 0);
        dir_around(&t->after, o, "add_eos_token", t->eos, 1);
    }
    json_decref(map);
    json_decref(o);
    if (rc < 0 || dir_json(d, "generation_config.json", &o) < 0) {
        return -1;
    }

    dir_ends(t, json_object_get(o, "eos_token_id"));
    json_decref(o);

    return 0;
}


token_t *
token_open_dir(const char *path, char *err, size_t errlen)
{
    dir_open_t d = {.path = path, .err = err, .errlen = errlen};
    char file[DIR_PATH_MAX];

    assert(path != NULL && err != NULL && errlen > 0);

    if (dir_has(&d, "tokenizer.json", file)) {
        d.t = token_open_json(file, err, errlen);
    } else if (dir_has(&d, "tokenizer.model", file)) {
        d.t = token_open_model(file, err, errlen);
    } else {
        (void) snprintf(err, errlen,
            "%s: there is neither a tokenizer.json nor a tokenizer.model in it",
            path);
    }

    if (d.t != NULL && dir_config(&d) != 0) {
        token_close(d.t);
        return NULL;
    }

    return d.t;
}
