/*
 * A model's experts: how many, how large, and how a token's are chosen.
 *
 * DESIGN.  What came out is plain numbers in model.h, which are the router's
 * (kernels.h).  DeepSeek's routers are three: of the scores' softmax the
 * largest (greedy); the same within the best groups of experts
 * (group_limited_greedy, a group is as good as its best); and scores by a
 * sigmoid with a bias that counts for the choice alone, within groups as good
 * as their two best (noaux_tc).
 *
 * A layer may have no experts among others that have: the first ones, those in
 * a list, or all but every so many.
 *
 * Only while a model is being opened, on the thread that opens it.
 */
#include "model_impl.h"

#include <assert.h>
#include <string.h>

/* Twice as many as any model has. */
#define EXPERTS_MAX 1024

/* What GGUF says of scores. */
enum { GGUF_SOFTMAX = 1, GGUF_SIGMOID = 2 };

/*
 * GGUF files of DeepSeek's large models that were made before there was a key
 * for groups have none; the models' experts, groups, and used groups.
 */
static const uint32_t unsaid_groups[][3] = {{160, 8, 3}, {256, 8, 4}};

/* Scores, from a number, a word or the family. */
static int
read_score(model_opening_t *o, int *grouped)
{
    char word[64] = "something else";
    uint32_t score = GGUF_SOFTMAX;
    model_key_name_t name;
    model_info_t *info = &o->m->info;

    *grouped = 1;

    if (o->s->container == MODEL_GGUF) {
        if (!model_want_u32(o, MODEL_KEY_EXPERT_SCORE, GGUF_SIGMOID, &score)) {
            return 0;
        }

        info->experts_sigmoid = score == GGUF_SIGMOID;
        return 1;
    }

    info->experts_sigmoid = (o->f->flags & MODEL_SIGMOID) != 0;

    if (info->experts_sigmoid) {
        return 1;
    }

    *grouped = 0;

    if (!model_find_key(o, MODEL_KEY_EXPERT_METHOD, &name)) {
        return 1;
    }

    (void) o->s->word(o->s->at, name.s, word, sizeof(word));
    *grouped = strcmp(word, "group_limited_greedy") == 0;

    return *grouped || strcmp(word, "greedy") == 0
           || model_fail(o, o->s->keys,
               "key %s: expected greedy or group_limited_greedy, found %s",
               name.s, word);
}

static void
find_groups(model_opening_t *o)
{
    size_t i;
    model_key_name_t name;
    model_info_t *info = &o->m->info;

    if (o->s->container != MODEL_GGUF || (o->f->flags & MODEL_LATENT) == 0
        || model_find_key(o, MODEL_KEY_GROUPS, &name)) {
        return;
    }

    for (i = 0; i < sizeof(unsaid_groups) / sizeof(unsaid_groups[0]); i++) {
        if (info->experts == unsaid_groups[i][0]) {
            info->groups = unsaid_groups[i][1];
            info->groups_used = unsaid_groups[i][2];
        }
    }
}

static int
read_groups(model_opening_t *o, int grouped)
{
    uint32_t each;
    model_key_name_t name;
    model_info_t *info = &o->m->info;

    assert(info->experts_used <= info->experts);
    find_groups(o);

    if (!model_want_count(o, MODEL_KEY_GROUPS, EXPERTS_MAX, &info->groups)
        || !model_want_count(
            o, MODEL_KEY_GROUPS_USED, EXPERTS_MAX, &info->groups_used)) {
        return 0;
    }

    if (!grouped || info->groups <= 1) {
        info->groups = 0;
        return 1;
    }

    info->group_best = info->experts_sigmoid ? 2 : 1;
    each = info->experts / info->groups;

    if (info->experts % info->groups != 0 || each < info->group_best) {
        return model_fail(o, o->s->keys,
            "key %s: expected groups of equal length of %u or more of %u "
            "experts, found %u groups",
            model_key_shown(o, MODEL_KEY_GROUPS, &name), info->group_best,
            info->experts, info->groups);
    }

    if (info->groups_used > info->groups
        || info->groups_used * each < info->experts_used) {
        return model_fail(o, o->s->keys,
            "key %s: expected at most %u, with room for %u experts, found %u",
            model_key_shown(o, MODEL_KEY_GROUPS_USED, &name), info->groups,
            info->experts_used, info->groups_used);
    }

    return 1;
}

/* The experts of all tokens, which are one for who computes. */
static int
read_shared(model_opening_t *o)
{
    uint32_t count = 0;
    model_info_t *info = &o->m->info;

    if (o->f->flags & MODEL_SHARED) {
        return model_need_u32(
            o, MODEL_KEY_SHARED_FFN, MODEL_FFN_MAX, &info->shared_ffn);
    }

    if (o->f->flags & MODEL_COUNTED) {
        if (!model_want_count(o, MODEL_KEY_SHARED_COUNT, EXPERTS_MAX, &count)) {
            return 0;
        }

        assert(info->expert_ffn <= MODEL_FFN_MAX);
        info->shared_ffn = count * info->expert_ffn;
    }

    return 1;
}

int
model_read_experts(model_opening_t *o)
{
    int grouped;
    uint32_t one = 1;
    model_info_t *info = &o->m->info;

    info->experts_scale = 1;

    if ((o->f->flags & MODEL_EXPERTS) == 0) {
        return 1;
    }

    info->expert_ffn = info->ffn;
    info->experts_normed =
        (o->f->flags & MODEL_NORMED) != 0
        || ((o->f->flags & MODEL_GGUF_NORMED) != 0
            && o->s->container == MODEL_GGUF)
        || ((o->f->flags & MODEL_SIGMOID) != 0 && o->s->container == MODEL_HF);

    return model_need_u32(o, MODEL_KEY_EXPERTS, EXPERTS_MAX, &info->experts)
           && model_need_u32(
               o, MODEL_KEY_EXPERTS_USED, info->experts, &info->experts_used)
           && model_want_u32(
               o, MODEL_KEY_EXPERT_FFN, MODEL_FFN_MAX, &info->expert_ffn)
           && model_want_flag(
               o, MODEL_KEY_EXPERTS_NORMED, &info->experts_normed)
           && model_want_u32(o, MODEL_KEY_EXPERT_FREQ, 1, &one)
           && model_want_f32(o, MODEL_KEY_EXPERT_SCALE, &info->experts_scale)
           && read_score(o, &grouped) && read_groups(o, grouped)
           && read_shared(o);
}

/* Layers named in a list have none. */
static int
read_dense_list(model_opening_t *o)
{
    uint32_t i, n = 0;
    float layer;
    model_key_name_t name;

    if (!model_find_key(o, MODEL_KEY_DENSE_LAYERS, &name)) {
        return 1;
    }

    if (!o->s->list(o->s->at, name.s, &n)) {
        return model_fail(o, o->s->keys,
            "key %s: expected a list of numbers, found something else", name.s);
    }

    for (i = 0; i < n; i++) {
        if (!o->s->item_f32(o->s->at, name.s, i, &layer) || !(layer >= 0)) {
            return model_fail(o, o->s->keys,
                "key %s: expected numbers of layers, found something else",
                name.s);
        }

        /* those beyond the last layer say nothing */
        if (layer < (float) o->m->info.layers) {
            o->m->layers[(uint32_t) layer].dense = 1;
        }
    }

    return 1;
}

int
model_read_dense(model_opening_t *o)
{
    uint32_t i, step = 1, first = 0;
    const model_info_t *info = &o->m->info;

    assert(o->m->layers != NULL);

    if (info->experts == 0) {
        return 1;
    }

    if (!model_want_u32(o, MODEL_KEY_EXPERT_STEP, MODEL_LAYERS_MAX, &step)
        || !model_want_count(o, MODEL_KEY_DENSE_FIRST, info->layers, &first)) {
        return 0;
    }

    for (i = 0; i < info->layers; i++) {
        o->m->layers[i].dense = i < first || (i + 1) % step != 0;
    }

    return read_dense_list(o);
}
