/*
 * Values by key from a model's container, held against limits.
 *
 * DESIGN.  What is wrong with a value is said here, once and in one form: the
 * file, the key's own name in it, what was expected and what was found.  A key
 * that is absent is either asked for (need) or has a default (want), and a
 * value of another kind is never taken for absent.
 *
 * Only while a model is being opened, on the thread that opens it.
 */
#include "model_impl.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* "FILE: sentence"; returns 0, which means failure everywhere here. */
__attribute__((format(printf, 3, 4))) int
model_fail(model_opening_t *o, const char *file, const char *fmt, ...)
{
    int n;
    va_list ap;

    n = snprintf(o->err, o->errlen, "%s: ", file);

    if (n >= 0 && (size_t) n < o->errlen) {
        va_start(ap, fmt);
        vsnprintf(o->err + n, o->errlen - (size_t) n, fmt, ap);
        va_end(ap);
    }

    return 0;
}

int
model_find_key(model_opening_t *o, model_key_t key, model_key_name_t *name)
{
    assert(key < MODEL_KEYS_N && o->s->find != NULL);
    return o->s->find(o->s, o->f, key, name->s, sizeof(name->s));
}

const char *
model_key_shown(model_opening_t *o, model_key_t key, model_key_name_t *name)
{
    (void) model_find_key(o, key, name);
    return name->s;
}

/* A required size from 1 to max. */
int
model_need_u32(model_opening_t *o, model_key_t key, uint32_t max, uint32_t *v)
{
    int there;
    model_key_name_t name;

    assert(max > 0 && v != NULL);
    there = model_find_key(o, key, &name);

    if (!there || !o->s->u32(o->s->at, name.s, v)) {
        return model_fail(o, o->s->keys,
            "key %s: expected a number from 1 to %u, found %s", name.s, max,
            there ? "something else" : "no such key");
    }

    if (*v < 1 || *v > max) {
        return model_fail(o, o->s->keys, "key %s: expected 1 to %u, found %u",
            name.s, max, *v);
    }

    return 1;
}

/* The same; *v stays as it is when the key is absent. */
int
model_want_u32(model_opening_t *o, model_key_t key, uint32_t max, uint32_t *v)
{
    model_key_name_t name;

    return !model_find_key(o, key, &name) || model_need_u32(o, key, max, v);
}

int
model_want_count(model_opening_t *o, model_key_t key, uint32_t max, uint32_t *v)
{
    model_key_name_t name;

    assert(v != NULL);

    if (!model_find_key(o, key, &name)) {
        return 1;
    }

    if (!o->s->u32(o->s->at, name.s, v) || *v > max) {
        return model_fail(o, o->s->keys,
            "key %s: expected a number from 0 to %u, found another", name.s,
            max);
    }

    return 1;
}

/* A required number that is positive and finite. */
int
model_need_f32(model_opening_t *o, model_key_t key, float *v)
{
    int there;
    model_key_name_t name;

    there = model_find_key(o, key, &name);

    if (!there || !o->s->f32(o->s->at, name.s, v) || !isfinite(*v)
        || !(*v > 0)) {
        return model_fail(o, o->s->keys,
            "key %s: expected a number above 0, found %s", name.s,
            there ? "something else" : "no such key");
    }

    return 1;
}

/* The same; *v stays as it is when the key is absent. */
int
model_want_f32(model_opening_t *o, model_key_t key, float *v)
{
    model_key_name_t name;

    return !model_find_key(o, key, &name) || model_need_f32(o, key, v);
}

/* True or false; *v stays as it is when the key is absent. */
int
model_want_flag(model_opening_t *o, model_key_t key, int *v)
{
    char word[32];
    model_key_name_t name;

    if (!model_find_key(o, key, &name)) {
        return 1;
    }

    if (!o->s->word(o->s->at, name.s, word, sizeof(word))
        || (strcmp(word, "true") != 0 && strcmp(word, "false") != 0)) {
        return model_fail(o, o->s->keys,
            "key %s: expected true or false, found something else", name.s);
    }

    *v = strcmp(word, "true") == 0;
    return 1;
}

/* Keys that would change what is computed have the value that does not. */
int
model_check_musts(model_opening_t *o)
{
    char word[64];
    const model_must_t *must;

    assert(o->f->musts != NULL);

    for (must = o->f->musts; must->key != NULL; must++) {
        if (!o->s->has(o->s->at, must->key)) {
            continue;
        }

        if (!o->s->word(o->s->at, must->key, word, sizeof(word))) {
            snprintf(word, sizeof(word), "something else");
        }

        if (strcmp(word, must->value) != 0) {
            return model_fail(o, o->s->keys,
                "key %s: expected %s, as nothing else is built for the %s "
                "family, found %s",
                must->key, must->value, o->m->info.arch, word);
        }
    }

    return 1;
}
