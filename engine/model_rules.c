/*
 * What a family does with its sizes: scales, caps, and which layers have a
 * window or a rotation.
 *
 * DESIGN.  A plain model has scales of one, no caps, no windows and angles in
 * every layer.  Keys of the container change that, most of them whatever the
 * family, since a key means the same in all that have it; what a family does
 * without a key that says so is a flag of its row.  What came out is plain
 * numbers in model.h, and who computes with them knows no family.
 *
 * Which layers have a window is said in one of three ways, the first that is
 * there counts: layer by layer (layer_types), by a period, by the family.
 *
 * Only while a model is being opened, on the thread that opens it.
 */
#include "model_impl.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* Twice as many as any model has. */
#define EXPERTS_MAX 1024

/* Gemma 2's soft caps; its first GGUF files do not have them. */
#define GEMMA2_ATTN_CAP  50
#define GEMMA2_LOGIT_CAP 30

/* GPT-OSS's bound of gates, which GGUF files do not have; their sigmoid's. */
#define ACT_LIMIT 7
#define ACT_SLOPE 1.702f /* the only one that is built */

/* Layers of the Gemmas whose queries are scaled by hidden / heads. */
#define GEMMA2_27B_LAYERS 46
#define GEMMA3_27B_LAYERS 62

void
model_plain_rules(model_t *m)
{
    model_info_t *info = &m->info;

    assert(info->head_dim > 0);
    info->embed_scale = 1;
    info->attn_scale = 1.0f / sqrtf((float) info->head_dim);
    info->residual_scale = 1;
    info->logit_scale = 1;
}

static int
read_gemma(model_opening_t *o)
{
    float scalar;
    model_info_t *info = &o->m->info;

    assert(info->heads > 0 && info->hidden > 0);
    info->gelu = 1;
    info->embed_scale = sqrtf((float) info->hidden);
    scalar = (float) info->head_dim;

    if (o->s->container == MODEL_HF) {
        info->norm_offset = 1; /* GGUF's weights have it */

        if (!model_need_f32(o, MODEL_KEY_QUERY_SCALAR, &scalar)) {
            return 0;
        }

    } else if (info->layers == GEMMA2_27B_LAYERS
               || info->layers == GEMMA3_27B_LAYERS) {
        scalar = (float) info->hidden / (float) info->heads;
    }

    info->attn_scale = 1.0f / sqrtf(scalar);

    if ((o->f->flags & MODEL_CAPS) && o->s->container == MODEL_GGUF) {
        info->attn_cap = GEMMA2_ATTN_CAP;
        info->logit_cap = GEMMA2_LOGIT_CAP;
    }

    return 1;
}

static int
read_clamp(model_opening_t *o)
{
    float slope = ACT_SLOPE;
    model_key_name_t name;

    o->m->info.act_limit = ACT_LIMIT;

    if (!model_want_f32(o, MODEL_KEY_ACT_LIMIT, &o->m->info.act_limit)
        || !model_want_f32(o, MODEL_KEY_ACT_SLOPE, &slope)) {
        return 0;
    }

    if (slope != ACT_SLOPE) {
        return model_fail(o, o->s->keys, "key %s: expected %g, found %g",
            model_key_shown(o, MODEL_KEY_ACT_SLOPE, &name), ACT_SLOPE, slope);
    }

    return 1;
}

/* The experts' numbers; a layer without experts among others is not built. */
static int
read_experts(model_opening_t *o)
{
    uint32_t n = 0, step = 1;
    model_key_name_t name;
    model_info_t *info = &o->m->info;

    if ((o->f->flags & MODEL_EXPERTS) == 0) {
        return 1;
    }

    info->expert_ffn = info->ffn;
    info->experts_normed = (o->f->flags & MODEL_NORMED) != 0
                           || ((o->f->flags & MODEL_GGUF_NORMED) != 0
                               && o->s->container == MODEL_GGUF);

    if (!model_need_u32(o, MODEL_KEY_EXPERTS, EXPERTS_MAX, &info->experts)
        || !model_need_u32(
            o, MODEL_KEY_EXPERTS_USED, info->experts, &info->experts_used)
        || !model_want_u32(
            o, MODEL_KEY_EXPERT_FFN, MODEL_FFN_MAX, &info->expert_ffn)
        || !model_want_flag(o, MODEL_KEY_EXPERTS_NORMED, &info->experts_normed)
        || !model_want_u32(o, MODEL_KEY_EXPERT_STEP, 1, &step)) {
        return 0;
    }

    if ((o->f->flags & MODEL_CLAMP) && !read_clamp(o)) {
        return 0;
    }

    if ((o->f->flags & MODEL_SHARED)
        && !model_need_u32(
            o, MODEL_KEY_SHARED_FFN, MODEL_FFN_MAX, &info->shared_ffn)) {
        return 0;
    }

    if (model_find_key(o, MODEL_KEY_DENSE_LAYERS, &name)
        && (!o->s->list(o->s->at, name.s, &n) || n > 0)) {
        return model_fail(o, o->s->keys,
            "key %s: expected no layers, as all have experts here, found %u",
            name.s, n);
    }

    return 1;
}

int
model_read_rules(model_opening_t *o)
{
    float divisor = 1;
    model_key_name_t name;
    model_info_t *info = &o->m->info;

    model_plain_rules(o->m);

    if (!read_experts(o)) {
        return 0;
    }

    if ((o->f->flags & MODEL_GEMMA) && !read_gemma(o)) {
        return 0;
    }

    if (!model_want_f32(o, MODEL_KEY_EMBED_SCALE, &info->embed_scale)
        || !model_want_f32(o, MODEL_KEY_RESIDUAL_SCALE, &info->residual_scale)
        || !model_want_f32(o, MODEL_KEY_ATTN_SCALE, &info->attn_scale)
        || !model_want_f32(o, MODEL_KEY_ATTN_CAP, &info->attn_cap)
        || !model_want_f32(o, MODEL_KEY_LOGIT_CAP, &info->logit_cap)
        || !model_want_f32(o, MODEL_KEY_LOGIT_DIVISOR, &divisor)) {
        return 0;
    }

    if (info->experts > 0 && info->residual_scale != 1) {
        return model_fail(o, o->s->keys,
            "key %s: expected 1 where there are experts, found %g",
            model_key_shown(o, MODEL_KEY_RESIDUAL_SCALE, &name),
            info->residual_scale);
    }

    info->logit_scale = 1 / divisor;
    return 1;
}

/* Has the list at key, if it is there, an element for each layer? */
static int
layer_list(
    model_opening_t *o, model_key_t key, model_key_name_t *name, uint32_t *n)
{
    *n = 0;

    if (!model_find_key(o, key, name)) {
        return 1;
    }

    if (!o->s->list(o->s->at, name->s, n) || *n != o->m->info.layers) {
        return model_fail(o, o->s->keys,
            "key %s: expected a list of %u elements, found %u", name->s,
            o->m->info.layers, *n);
    }

    return 1;
}

/* Windows by name. */
static int
windows_by_type(model_opening_t *o, const char *name, uint32_t window)
{
    uint32_t i;
    char word[64];
    model_layer_t *l;

    for (i = 0; i < o->m->info.layers; i++) {
        l = &o->m->layers[i];

        if (!o->s->item_word(o->s->at, name, i, word, sizeof(word))) {
            word[0] = '\0';
        }

        if (strcmp(word, "sliding_attention") == 0) {
            l->window = window;
        } else if (strcmp(word, "full_attention") != 0) {
            return model_fail(o, o->s->keys,
                "key %s: expected full_attention or sliding_attention, found "
                "%s",
                name, word[0] != '\0' ? word : "something else");
        }
    }

    return 1;
}

/* From which layer on there are windows; none where nothing is said. */
static int
read_from(model_opening_t *o, uint32_t *from)
{
    model_key_name_t name;

    *from = o->m->info.layers;

    if (model_find_key(o, MODEL_KEY_WINDOW_FROM, &name)
        && !o->s->u32(o->s->at, name.s, from)) {
        return model_fail(o, o->s->keys,
            "key %s: expected a number, found something else", name.s);
    }

    return 1;
}

static int
read_windows(model_opening_t *o)
{
    int used = (o->f->flags & MODEL_WINDOW_ASKED) == 0;
    uint32_t i, n, from, window = 0, pattern = o->f->pattern;
    model_key_name_t name;

    if (!model_want_u32(o, MODEL_KEY_WINDOW, MODEL_CONTEXT_MAX, &window)
        || !model_want_flag(o, MODEL_KEY_WINDOW_USED, &used)
        || !model_want_u32(o, MODEL_KEY_PATTERN, MODEL_LAYERS_MAX, &pattern)
        || !read_from(o, &from)
        || !layer_list(o, MODEL_KEY_LAYER_TYPES, &name, &n)) {
        return 0;
    }

    /* without one its layers' angles would be unknown, too */
    if (window == 0 && (o->f->flags & MODEL_TWO_ROPES)) {
        return model_need_u32(o, MODEL_KEY_WINDOW, MODEL_CONTEXT_MAX, &window);
    }

    window = used ? window : 0;

    if (n > 0) {
        return windows_by_type(o, name.s, window);
    }

    for (i = 0; i < o->m->info.layers; i++) {
        if (o->f->flags & MODEL_WINDOW_ASKED ? i >= from
            : pattern > 1                    ? (i + 1) % pattern != 0
                                             : pattern == 1) {
            o->m->layers[i].window = window;
        }
    }

    return 1;
}

/* Each layer's set of angles, or none. */
static int
read_angles(model_opening_t *o)
{
    uint32_t i, n = 0, interval = 4;
    float turns;
    model_key_name_t name;
    model_layer_t *l;
    int some = (o->f->flags & MODEL_SOME_ROPE) != 0;
    int two = (o->f->flags & MODEL_TWO_ROPES) != 0;

    if (some
        && (!layer_list(o, MODEL_KEY_ROPE_LAYERS, &name, &n)
            || !model_want_u32(
                o, MODEL_KEY_ROPE_INTERVAL, MODEL_LAYERS_MAX, &interval))) {
        return 0;
    }

    assert(o->m->info.ropes == 1 + (uint32_t) two && !(some && two));

    for (i = 0; i < o->m->info.layers; i++) {
        l = &o->m->layers[i];
        l->rope = two && l->window > 0;
        turns = (i + 1) % interval != 0;

        /* the list's name says "no", its ones say yes */
        if (n > 0 && !o->s->item_f32(o->s->at, name.s, i, &turns)) {
            return model_fail(o, o->s->keys,
                "key %s: expected numbers, found something else", name.s);
        }

        if (some && turns == 0) {
            l->rope = MODEL_ROPES_MAX;
        }
    }

    return 1;
}

/* Are there biases exactly where the configuration says so? */
static int
check_biases(model_opening_t *o)
{
    int attn = 0, ffn = 0;
    uint32_t i;
    model_key_name_t name;
    const model_layer_t *l;

    if ((o->f->flags & MODEL_BIAS_KEYS) == 0 || o->s->container != MODEL_HF) {
        return 1;
    }

    if (!model_want_flag(o, MODEL_KEY_ATTN_BIAS, &attn)
        || !model_want_flag(o, MODEL_KEY_FFN_BIAS, &ffn)) {
        return 0;
    }

    for (i = 0; i < o->m->info.layers; i++) {
        l = &o->m->layers[i];

        if ((l->q_bias != NULL) != attn || (l->k_bias != NULL) != attn
            || (l->v_bias != NULL) != attn || (l->o_bias != NULL) != attn) {
            return model_fail(o, o->s->keys,
                "key %s: expected what the weights say, found the opposite",
                model_key_shown(o, MODEL_KEY_ATTN_BIAS, &name));
        }

        if ((l->gate_bias != NULL) != ffn || (l->up_bias != NULL) != ffn
            || (l->down_bias != NULL) != ffn) {
            return model_fail(o, o->s->keys,
                "key %s: expected what the weights say, found the opposite",
                model_key_shown(o, MODEL_KEY_FFN_BIAS, &name));
        }
    }

    return 1;
}

int
model_read_layers(model_opening_t *o)
{
    assert(o->m->layers != NULL);
    return read_windows(o) && read_angles(o) && check_biases(o);
}
