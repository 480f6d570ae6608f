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
 * tokenizer.json has all tokens that were added; to a tokenizer.model they are
 * in tokenizer_config.json's added_tokens_decoder, each with its flags, or, as
 * it was done before, in added_tokens.json, by id only: there those are special
 * that one of the other files gives a role.  They are found in a text as it
 * stands, whatever "normalized" says, which those tokenizers never looked at.
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
#include "token_json.h"

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
    json_t *map, *config, *list; /* owned; NULL: absent */
    token_extra_t *extra;        /* [extra_n] owned; texts are the trees' */
    uint32_t extra_n;
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
    json_t *o;
    token_t *t = d->t;

    assert(t != NULL);

    dir_begin_end(t, d->map);
    dir_begin_end(t, d->config);
    dir_around(&t->before, d->config, "add_bos_token", t->bos, 0);
    dir_around(&t->after, d->config, "add_eos_token", t->eos, 1);

    if (dir_json(d, "generation_config.json", &o) < 0) {
        return -1;
    }
    dir_ends(t, json_object_get(o, "eos_token_id"));
    json_decref(o);

    return 0;
}


/* --- tokens beside a tokenizer.model -------------------------------------- */

/* Is s what "pad_token" or the like is called, or one of a list? */
static int
dir_has_role(const json_t *o, const char *s)
{
    static const char *const roles[] = {"bos_token", "eos_token", "unk_token",
        "sep_token", "pad_token", "cls_token", "mask_token",
        "additional_special_tokens"};
    const json_t *v, *one;
    size_t i, k;

    for (i = 0; i < sizeof(roles) / sizeof(roles[0]); i++) {
        v = json_object_get(o, roles[i]);
        for (k = 0; k < (json_is_array(v) ? json_array_size(v) : 1); k++) {
            one = json_is_array(v) ? json_array_get(v, k) : v;
            one = json_is_object(one) ? json_object_get(one, "content") : one;
            if (json_is_string(one) && strcmp(json_string_value(one), s) == 0) {
                return 1;
            }
        }
    }

    return 0;
}


static int
dir_bad_token(const dir_open_t *d, const char *s)
{
    (void) snprintf(d->err, d->errlen,
        "%s: the added token \"%.40s\" has no id below %u, or a text that is "
        "not 1 to %d bytes",
        d->path, s, TOKEN_VOCAB_MAX, TOKEN_PIECE_MAX);

    return -1;
}


/* One more of them. */
static int
dir_add(dir_open_t *d, double id, const char *s, size_t len, unsigned flags)
{
    token_extra_t *e = &d->extra[d->extra_n];

    if (!(id >= 0 && id < TOKEN_VOCAB_MAX) || id != (uint32_t) id || len == 0
        || len > TOKEN_PIECE_MAX) {
        return dir_bad_token(d, s);
    }

    e->id = (uint32_t) id;
    e->flags = flags;
    e->s = s;
    e->len = len;
    d->extra_n++;

    return 0;
}


/* {"32000": {"content": "<|end|>", "special": true, ...}, ...} */
static int
dir_decoder(dir_open_t *d, json_t *o)
{
    const char *key;
    char *end;
    json_t *v, *text;
    unsigned flags;
    double id;
    int rc = 0;

    json_object_foreach(o, key, v)
    {
        id = strtod(key, &end);
        text = json_object_get(v, "content");
        if (end == key || *end != '\0' || !json_is_string(text)) {
            return dir_bad_token(d, key);
        }
        flags = token_json_flags(v);
        rc = dir_add(
            d, id, json_string_value(text), json_string_length(text), flags);
        if (rc != 0) {
            break;
        }
    }

    return rc;
}


/* {"<|end|>": 32000, ...} */
static int
dir_by_id(dir_open_t *d)
{
    const char *key;
    json_t *v;
    int special;

    json_object_foreach(d->list, key, v)
    {
        special = dir_has_role(d->map, key) || dir_has_role(d->config, key);
        if (dir_add(d, json_is_number(v) ? json_number_value(v) : -1, key,
                strlen(key), special ? TOKEN_ADDED_SPECIAL : 0)
            != 0) {
            return -1;
        }
    }

    return 0;
}


static token_t *
dir_model(dir_open_t *d, const char *file)
{
    json_t *decoder = json_object_get(d->config, "added_tokens_decoder");
    int first = json_is_false(json_object_get(d->config, "legacy")), rc;
    size_t n;

    if (dir_json(d, "added_tokens.json", &d->list) < 0) {
        return NULL;
    }

    n = json_object_size(json_is_object(decoder) ? decoder : d->list);
    d->extra = calloc(n + 1, sizeof(*d->extra));
    if (d->extra == NULL) {
        (void) snprintf(d->err, d->errlen, "out of memory for the vocabulary");
        return NULL;
    }

    rc = json_is_object(decoder) ? dir_decoder(d, decoder) : dir_by_id(d);
    assert(d->extra_n <= n);

    return rc != 0 ? NULL
                   : token_open_model_added(
                       file, d->extra, d->extra_n, first, d->err, d->errlen);
}


static void
dir_open(dir_open_t *d)
{
    char file[DIR_PATH_MAX];

    if (dir_json(d, "special_tokens_map.json", &d->map) < 0
        || dir_json(d, "tokenizer_config.json", &d->config) < 0) {
        return;
    }

    if (dir_has(d, "tokenizer.json", file)) {
        d->t = token_open_json(file, d->err, d->errlen);
    } else if (dir_has(d, "tokenizer.model", file)) {
        d->t = dir_model(d, file);
    } else {
        (void) snprintf(d->err, d->errlen,
            "%s: there is neither a tokenizer.json nor a tokenizer.model in it",
            d->path);
    }

    if (d->t != NULL && dir_config(d) != 0) {
        token_close(d->t);
        d->t = NULL;
    }
}


token_t *
token_open_dir(const char *path, char *err, size_t errlen)
{
    dir_open_t d = {.path = path, .err = err, .errlen = errlen};

    assert(path != NULL && err != NULL && errlen > 0);

    dir_open(&d);

    json_decref(d.map);
    json_decref(d.config);
    json_decref(d.list);
    free(d.extra);

    return d.t;
}
