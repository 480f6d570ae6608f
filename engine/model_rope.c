/*
 * A model's rotary angles: bases, scaling, and the factors of long contexts.
 *
 * DESIGN.  A set of angles is a row of numbers, model_rope_t, that is read and
 * checked at opening; what the forward pass gets of it is a frequency for each
 * rotated pair and one number for cosines and sines.  Most models have one
 * set; Gemma 3 has another for its layers with a window.
 *
 * The kinds of scaling are those of Hugging Face (modeling_rope_utils), whose
 * formulas stand beside the functions.  One that is not known is refused.
 *
 * LONGROPE has a list of divisors for sequences within the original context
 * and one for longer ones.  A key in the cache keeps the angle that it was
 * given, so one list is chosen for good: by the longest sequence that is
 * served, as other servers do.
 *
 * Reading runs on the thread that opens the model; the rest on any.
 */
#include "model_impl.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const kind_names[MODEL_ROPE_KINDS_N] = {
#define X(id, name) name,
    MODEL_ROPE_KINDS(X)
#undef X
};

static int
read_kind(model_opening_t *o, model_rope_t *r)
{
    size_t i;
    char word[32];
    model_key_name_t name;

    if (!model_find_key(o, MODEL_KEY_ROPE_KIND, &name)) {
        return 1;
    }

    if (!o->s->word(o->s->at, name.s, word, sizeof(word))) {
        snprintf(word, sizeof(word), "something else");
    }

    for (i = 0; i < MODEL_ROPE_KINDS_N; i++) {
        if (strcmp(word, kind_names[i]) == 0) {
            r->kind = (model_rope_kind_t) i;
            r->kind = r->kind == MODEL_ROPE_SU ? MODEL_ROPE_LONGROPE : r->kind;
            return 1;
        }
    }

    return model_fail(o, o->s->keys,
        "key %s: expected none, default, linear, llama3, yarn or longrope, "
        "found %s",
        name.s, word);
}

/* Llama 3.1's: long waves are slowed down, short ones are not, and between
 * the two it is a mixture. */
static int
read_llama3(model_opening_t *o, model_rope_t *r)
{
    model_key_name_t name;

    if (!model_need_f32(o, MODEL_KEY_ROPE_FACTOR, &r->factor)
        || !model_need_f32(o, MODEL_KEY_ROPE_LOW, &r->low)
        || !model_need_f32(o, MODEL_KEY_ROPE_HIGH, &r->high)
        || !model_need_u32(
            o, MODEL_KEY_ROPE_ORIGINAL, MODEL_CONTEXT_MAX, &r->original)) {
        return 0;
    }

    if (!(r->low < r->high)) {
        return model_fail(o, o->s->keys,
            "key %s: expected a number above low_freq_factor's %g, found %g",
            model_key_shown(o, MODEL_KEY_ROPE_HIGH, &name), r->low, r->high);
    }

    return 1;
}

/* How much attention sharpens when positions are divided by factor. */
static float
yarn_scale(float factor, float weight)
{
    return factor <= 1 ? 1 : 0.1f * weight * logf(factor) + 1;
}

/* GGUF's number is multiplied with the usual one, config.json's replaces it. */
static int
read_yarn(model_opening_t *o, model_rope_t *r)
{
    float all = 0, one = 0, said = 0;
    model_key_name_t name;

    assert(o->m->info.context > 0);
    r->fast = 32;
    r->slow = 1;
    r->truncate =
        o->s->container != MODEL_GGUF || (o->f->flags & MODEL_GGUF_PAIRS) == 0;
    r->original = o->m->info.context;

    if (!model_need_f32(o, MODEL_KEY_ROPE_FACTOR, &r->factor)
        || !model_want_u32(
            o, MODEL_KEY_ROPE_ORIGINAL, MODEL_CONTEXT_MAX, &r->original)
        || !model_want_f32(o, MODEL_KEY_ROPE_FAST, &r->fast)
        || !model_want_f32(o, MODEL_KEY_ROPE_SLOW, &r->slow)
        || !model_want_f32(o, MODEL_KEY_ROPE_MSCALE, &one)
        || !model_want_f32(o, MODEL_KEY_ROPE_MSCALE_ALL, &all)
        || !model_want_flag(o, MODEL_KEY_ROPE_TRUNCATE, &r->truncate)
        || !model_want_f32(o, MODEL_KEY_ROPE_SCALE, &said)) {
        return 0;
    }

    if (!(r->base > 1) || !(r->slow < r->fast)) {
        return model_fail(o, o->s->keys,
            "key %s: expected a base above 1 and beta_fast above beta_slow, "
            "found %g, %g and %g",
            model_key_shown(o, MODEL_KEY_ROPE_KIND, &name), r->base, r->fast,
            r->slow);
    }

    r->scale = one > 0 && all > 0
                   ? yarn_scale(r->factor, one) / yarn_scale(r->factor, all)
                   : yarn_scale(r->factor, 1);

    if (said > 0) {
        r->scale = o->s->container == MODEL_GGUF ? r->scale * said : said;
    }

    return 1;
}

static float *
new_factors(model_opening_t *o, model_rope_t *r, int which)
{
    assert(r->factors[which] == NULL);
    r->factors[which] =
        calloc(o->m->info.rope_dims / 2, sizeof(*r->factors[which]));

    if (r->factors[which] == NULL) {
        model_fail(o, o->s->keys, "rotary factors: not enough memory");
    }

    return r->factors[which];
}

/* A list of divisors out of the keys. */
static int
read_factors(model_opening_t *o, model_rope_t *r, int which)
{
    float *v;
    uint32_t i, n = 0, want = o->m->info.rope_dims / 2;
    model_key_name_t name;
    model_key_t key = which == 0 ? MODEL_KEY_ROPE_SHORT : MODEL_KEY_ROPE_LONG;

    if (!model_find_key(o, key, &name) || !o->s->list(o->s->at, name.s, &n)
        || n != want) {
        return model_fail(o, o->s->keys,
            "key %s: expected a list of %u numbers, found %u", name.s, want, n);
    }

    v = new_factors(o, r, which);

    for (i = 0; v != NULL && i < n; i++) {
        if (!o->s->item_f32(o->s->at, name.s, i, &v[i]) || !isfinite(v[i])
            || !(v[i] > 0)) {
            return model_fail(o, o->s->keys,
                "key %s: expected numbers above 0, found something else",
                name.s);
        }
    }

    return v != NULL;
}

/* What is common to both containers: when, and how much attention sharpens. */
static int
read_longrope(model_opening_t *o, model_rope_t *r)
{
    float ratio;

    if (!model_need_u32(
            o, MODEL_KEY_ROPE_ORIGINAL, MODEL_CONTEXT_MAX, &r->original)) {
        return 0;
    }

    ratio = (float) o->m->info.context / (float) r->original;

    if (!model_want_f32(o, MODEL_KEY_ROPE_FACTOR, &ratio)) {
        return 0;
    }

    if (ratio > 1 && r->original > 1) {
        r->scale = sqrtf(1 + logf(ratio) / logf((float) r->original));
    }

    return model_want_f32(o, MODEL_KEY_ROPE_SCALE, &r->scale);
}

static int
read_set(model_opening_t *o, model_rope_t *r)
{
    if (!model_want_f32(o, MODEL_KEY_ROPE_BASE, &r->base) || !read_kind(o, r)) {
        return 0;
    }

    switch (r->kind) {

    case MODEL_ROPE_LINEAR:
        return model_want_f32(o, MODEL_KEY_ROPE_FACTOR, &r->factor);

    case MODEL_ROPE_LLAMA3:
        return read_llama3(o, r);

    case MODEL_ROPE_YARN:
        return read_yarn(o, r);

    case MODEL_ROPE_LONGROPE:
        if (!read_longrope(o, r)) {
            return 0;
        }

        /* in a GGUF file the divisors are tensors */
        return o->s->container == MODEL_GGUF
               || (read_factors(o, r, 0) && read_factors(o, r, 1));

    default:
        return 1;
    }
}

void
model_plain_ropes(model_t *m)
{
    uint32_t i;

    m->info.ropes = 1;

    for (i = 0; i < MODEL_ROPES_MAX; i++) {
        m->ropes[i].kind = MODEL_ROPE_NONE;
        m->ropes[i].base = 10000;
        m->ropes[i].factor = 1;
        m->ropes[i].scale = 1;
    }
}

int
model_read_ropes(model_opening_t *o)
{
    unsigned halves;
    model_t *m = o->m;

    halves = o->s->container == MODEL_HF ? MODEL_HF_HALVES : MODEL_GGUF_HALVES;
    m->info.rope_halves = (o->f->flags & halves) != 0;
    model_plain_ropes(m);

    if (o->f->flags & MODEL_TWO_ROPES) {
        m->info.ropes = 2;

        if (!model_want_f32(o, MODEL_KEY_ROPE_LOCAL, &m->ropes[1].base)) {
            return 0;
        }
    }

    return read_set(o, &m->ropes[0]);
}

/* A tensor's elements as divisors. */
static int
take_factors(model_opening_t *o, model_rope_t *r, int which, const tensor_t *t)
{
    float *v = new_factors(o, r, which);
    uint32_t i, n = o->m->info.rope_dims / 2;

    assert(t->dims[0] == n && tensor_is_plain(t->type));

    if (v == NULL) {
        return 0;
    }

    tensor_plain(t->type, t->data, n, v);

    for (i = 0; i < n; i++) {
        if (!isfinite(v[i]) || !(v[i] > 0)) {
            return model_fail(o, o->s->weights,
                "tensor \"%s\": expected numbers above 0, found something else",
                tensor_shown(t->name).s);
        }
    }

    return 1;
}

int
model_take_rope_factors(model_opening_t *o)
{
    model_rope_t *r = &o->m->ropes[0];
    const model_top_t *top = &o->m->top;
    int one = top->rope_short != NULL, two = top->rope_long != NULL;

    if (one != two
        || (!one && r->kind == MODEL_ROPE_LONGROPE && r->factors[0] == NULL)) {
        return model_fail(o, o->s->weights,
            "tensors of rotary factors: expected short and long ones, "
            "found %s",
            one   ? "short ones"
            : two ? "long ones"
                  : "none");
    }

    if (!one) {
        return 1;
    }

    /* such a file need not name the kind */
    if (r->kind != MODEL_ROPE_LONGROPE && !read_longrope(o, r)) {
        return 0;
    }

    r->kind = MODEL_ROPE_LONGROPE;
    return take_factors(o, r, 0, top->rope_short)
           && take_factors(o, r, 1, top->rope_long);
}

/*
 * Llama 3's scaling: slow angles are divided by the factor, fast ones stay,
 * and in between the two are mixed.
 */
static double
llama3_freq(const model_rope_t *r, double freq)
{
    double turns, mix;

    assert(r->low < r->high && r->factor > 0);
    turns = r->original * freq / (2 * M_PI); /* in the original context */

    if (turns < r->low) {
        return freq / r->factor;
    }

    if (turns > r->high) {
        return freq;
    }

    mix = (turns - r->low) / (r->high - r->low);
    return (1 - mix) * freq / r->factor + mix * freq;
}

/* The pair, not always a whole one, that turns so often in the original. */
static double
yarn_pair(const model_rope_t *r, double turns, uint32_t dims)
{
    assert(r->base > 1 && turns > 0);
    return dims * log(r->original / (turns * 2 * M_PI)) / (2 * log(r->base));
}

/* YaRN: pairs up to one stay, those from another on are divided. */
static double
yarn_freq(const model_rope_t *r, double freq, uint32_t i, uint32_t dims)
{
    double from, to, mix;

    assert(r->slow < r->fast && i < dims / 2);
    from = yarn_pair(r, r->fast, dims);
    to = yarn_pair(r, r->slow, dims);

    if (r->truncate) {
        from = floor(from);
        to = ceil(to);
    }

    from = fmax(from, 0);
    to = fmin(to, dims - 1.0);
    to = from == to ? to + 0.001 : to;
    mix = fmin(fmax((i - from) / (to - from), 0), 1);

    return mix * freq / r->factor + (1 - mix) * freq;
}

double
model_rope_freqs(const model_t *m, uint32_t set, uint32_t context, double *freq)
{
    uint32_t i, dims = m->info.rope_dims;
    float divisor;
    const model_rope_t *r = &m->ropes[set];
    const tensor_t *t = set == 0 ? m->top.rope_factors : NULL;

    assert(set < m->info.ropes);
    assert(dims % 2 == 0 && r->factor > 0);

    for (i = 0; i < dims / 2; i++) {
        freq[i] = pow(r->base, -2.0 * i / dims);

        if (r->kind == MODEL_ROPE_LLAMA3) {
            freq[i] = llama3_freq(r, freq[i]);
        } else if (r->kind == MODEL_ROPE_YARN) {
            freq[i] = yarn_freq(r, freq[i], i, dims);
        } else if (r->kind == MODEL_ROPE_LONGROPE) {
            freq[i] /= r->factors[context > r->original][i];
        } else {
            freq[i] /= r->factor;
        }

        if (t != NULL) {
            tensor_plain(t->type,
                t->data + (uint64_t) i * tensor_block_bytes(t->type), 1,
                &divisor);
            freq[i] /= divisor;
        }
    }

    return r->scale;
}
