/*
 * A GGUF file as a model's container.
 *
 * DESIGN.  The file says of which family it is, and its keys begin with that
 * name.  gguf.c has checked and sorted all there is; this only finds it.
 *
 * The file is borrowed, by the model too.  Any thread, at opening.
 */
#include "model_impl.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static int
find_here(const model_source_t *s, const model_family_t *f, model_key_t key,
    char *name, size_t size)
{
    const char *tail = model_key_name(key, MODEL_GGUF);

    assert(s->container == MODEL_GGUF && f->arch[MODEL_GGUF] != NULL);
    name[0] = '\0';

    if (tail == NULL) {
        return 0;
    }

    snprintf(name, size, "%s.%s", f->arch[MODEL_GGUF], tail);
    return gguf_has(s->at, name);
}

/* What config.json must not say, a GGUF file cannot say. */
static int
find_must(const void *at, const char *name)
{
    (void) at;
    (void) name;
    return 0;
}

static int
read_u32(const void *at, const char *name, uint32_t *v)
{
    return gguf_u32(at, name, v);
}

static int
read_f32(const void *at, const char *name, float *v)
{
    return gguf_f32(at, name, v);
}

static int
read_word(const void *at, const char *name, char *v, size_t size)
{
    int b;
    gguf_str_t s;

    assert(v != NULL && size > 0);

    if (gguf_bool(at, name, &b)) {
        snprintf(v, size, "%s", b ? "true" : "false");
        return 1;
    }

    if (!gguf_str(at, name, &s)) {
        return 0;
    }

    snprintf(v, size, "%s", tensor_shown(s).s);
    return 1;
}

/* No key that is looked at is a list. */
static int
read_list(const void *at, const char *name, uint32_t *n)
{
    (void) at;
    (void) name;
    (void) n;
    return 0;
}

static const model_family_t *
find_family(const gguf_t *g, char *err, size_t errlen)
{
    char names[1024];
    uint32_t experts;
    gguf_str_t arch;
    const model_family_t *f;

    if (!gguf_str(g, "general.architecture", &arch)) {
        snprintf(err, errlen,
            "%s: key general.architecture: expected a name, found no such text",
            gguf_name(g));
        return NULL;
    }

    f = model_family_find(MODEL_GGUF, arch.s, arch.len);

    if (f == NULL) {
        snprintf(err, errlen,
            "%s: key general.architecture: expected one that is supported "
            "(%s), found \"%s\"",
            gguf_name(g), model_family_names(MODEL_GGUF, names, sizeof(names)),
            tensor_shown(arch).s);
        return NULL;
    }

    /* Mixtral's files call themselves llama */
    snprintf(names, sizeof(names), "%s.%s", f->arch[MODEL_GGUF],
        model_key_name(MODEL_KEY_EXPERTS, MODEL_GGUF));

    return gguf_u32(g, names, &experts) && experts > 0
               ? model_family_with_experts(f)
               : f;
}

model_t *
model_open_gguf(const gguf_t *g, char *err, size_t errlen)
{
    model_t *m;
    gguf_arr_t tokens;
    const model_family_t *f;
    model_source_t s = {.container = MODEL_GGUF,
        .at = g,
        .find = find_here,
        .has = find_must,
        .u32 = read_u32,
        .f32 = read_f32,
        .word = read_word,
        .list = read_list};

    assert(g != NULL && err != NULL && errlen > 0);
    s.keys = gguf_name(g);
    s.weights = gguf_name(g);
    s.tensors_n = gguf_tensors_n(g);
    s.tensors = s.tensors_n > 0 ? gguf_tensor_at(g, 0) : NULL;

    if (gguf_arr(g, "tokenizer.ggml.tokens", &tokens)) {
        s.tokens_n = tokens.n;
    }

    f = find_family(g, err, errlen);
    m = f == NULL ? NULL : model_new(s.keys, err, errlen);

    if (m == NULL) {
        return NULL;
    }

    m->gguf = g;
    m->info.created = gguf_mtime(g);
    model_name(m, gguf_name(g), ".gguf");

    if (!model_read(m, f, &s, err, errlen)) {
        model_close(m);
        return NULL;
    }

    return m;
}
