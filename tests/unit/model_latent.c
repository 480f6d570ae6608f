/*
 * Would catch: a GGUF file of DeepSeek's whose heads, groups of experts,
 * scores or further layers are taken for others than its keys and tensors say,
 * in the form with split matrices of keys and values and in the joint one;
 * files from before there was a key for groups that get none; and one that
 * lacks a matrix, or has it twice, and is not refused.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "gguf_make.h"
#include "model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { HIDDEN = 4, HEADS = 2, LATENT = 6, TURNED = 2, KEY = 3, VALUE = 5 };

/* What is in the file; 0: no such key. */
typedef struct {
    uint32_t experts, used, score, groups, groups_used, mtp, key, keys;
    int k_b, v_b, kv_b;
    float log_mul;
} file_t;

static const file_t split = {.experts = 8,
    .used = 2,
    .key = KEY + TURNED,
    .keys = 1,
    .k_b = 1,
    .v_b = 1};

typedef struct {
    make_t f;
    uint64_t offset; /* of the next tensor's data */
    uint32_t n;
} maker_t;

/* A tensor of F32; sizes that are 0 end the list. */
static void
put(maker_t *m, const char *name, uint32_t a, uint32_t b, uint32_t c)
{
    make_str(&m->f, name);
    make_u32(&m->f, 1 + (b > 0) + (c > 0));
    make_u64(&m->f, a);

    if (b > 0) {
        make_u64(&m->f, b);
    }

    if (c > 0) {
        make_u64(&m->f, c);
    }

    make_u32(&m->f, TENSOR_F32);
    make_u64(&m->f, m->offset);
    m->offset += ((uint64_t) a * (b + !b) * (c + !c) * 4 + 31) / 32 * 32;
    m->n++;
}

static void
put_tensors(maker_t *m, const file_t *o)
{
    uint32_t e = o->experts;

    put(m, "token_embd.weight", HIDDEN, 8, 0);
    put(m, "output_norm.weight", HIDDEN, 0, 0);
    put(m, "output.weight", HIDDEN, 8, 0);
    put(m, "blk.0.attn_norm.weight", HIDDEN, 0, 0);
    put(m, "blk.0.attn_q.weight", HIDDEN, HEADS * (KEY + TURNED), 0);
    put(m, "blk.0.attn_kv_a_mqa.weight", HIDDEN, LATENT + TURNED, 0);
    put(m, "blk.0.attn_kv_a_norm.weight", LATENT, 0, 0);
    put(m, "blk.0.attn_output.weight", HEADS * VALUE, HIDDEN, 0);
    put(m, "blk.0.ffn_norm.weight", HIDDEN, 0, 0);
    put(m, "blk.0.ffn_gate_inp.weight", HIDDEN, e, 0);
    put(m, "blk.0.ffn_gate_exps.weight", HIDDEN, 2, e);
    put(m, "blk.0.ffn_up_exps.weight", HIDDEN, 2, e);
    put(m, "blk.0.ffn_down_exps.weight", 2, HIDDEN, e);

    if (o->k_b) {
        put(m, "blk.0.attn_k_b.weight", KEY, LATENT, HEADS);
    }

    if (o->v_b) {
        put(m, "blk.0.attn_v_b.weight", LATENT, VALUE, HEADS);
    }

    if (o->kv_b) {
        put(m, "blk.0.attn_kv_b.weight", LATENT, HEADS * (KEY + VALUE), 0);
    }

    if (o->score == 2) {
        put(m, "blk.0.exp_probs_b.bias", e, 0, 0);
    }

    if (o->mtp > 0) {
        put(m, "blk.1.nextn.eh_proj.weight", 2 * HIDDEN, HIDDEN, 0);
    }
}

static void
pair(maker_t *m, const char *key, uint32_t v)
{
    char name[64];

    if (v > 0) {
        snprintf(name, sizeof(name), "deepseek2.%s", key);
        make_pair_u32(&m->f, name, v);
        m->n++;
    }
}

static void
put_pairs(maker_t *m, const file_t *o)
{
    make_pair_str(&m->f, "general.architecture", "deepseek2");
    m->n++;
    pair(m, "block_count", 1 + o->mtp);
    pair(m, "embedding_length", HIDDEN);
    pair(m, "feed_forward_length", 12);
    pair(m, "context_length", 64);
    pair(m, "attention.head_count", HEADS);
    pair(m, "attention.head_count_kv", o->keys);
    pair(m, "attention.kv_lora_rank", LATENT);
    pair(m, o->k_b ? "attention.key_length_mla" : "attention.key_length",
        o->key);
    pair(m, o->k_b ? "attention.value_length_mla" : "attention.value_length",
        VALUE);
    pair(m, "rope.dimension_count", TURNED);
    pair(m, "expert_count", o->experts);
    pair(m, "expert_used_count", o->used);
    pair(m, "expert_feed_forward_length", 2);
    pair(m, "expert_gating_func", o->score);
    pair(m, "expert_group_count", o->groups);
    pair(m, "expert_group_used_count", o->groups_used);
    pair(m, "nextn_predict_layers", o->mtp);

    if (o->log_mul > 0) {
        make_pair_str(&m->f, "deepseek2.rope.scaling.type", "yarn");
        make_pair_f32(&m->f, "deepseek2.rope.scaling.factor", 4);
        make_pair_f32(
            &m->f, "deepseek2.rope.scaling.yarn_log_multiplier", o->log_mul);
        m->n += 3;
    }
}

/* The model, or NULL with its sentence in err. */
static model_t *
open_file(const file_t *o, char *err, size_t errlen)
{
    static maker_t m;
    uint32_t tensors, pairs;
    gguf_t *g;
    model_t *made;

    /* once for the counts, and then with them */
    make_head(&m.f, 3, 0, 0);
    m.n = 0;
    put_pairs(&m, o);
    pairs = m.n;
    put_tensors(&m, o);
    tensors = m.n - pairs;
    make_head(&m.f, 3, tensors, pairs);
    put_pairs(&m, o);
    m.offset = 0;
    put_tensors(&m, o);
    make_data(&m.f, 32, m.offset);
    g = gguf_open_mem(m.f.p, m.f.len, "made", err, errlen);

    if (g == NULL) {
        fail_msg("%s", err);
    }

    made = model_open_gguf(g, err, errlen);

    if (made == NULL) {
        gguf_close(g);
    }

    return made;
}

static model_t *
opened(const file_t *o)
{
    char err[512] = "";
    model_t *m = open_file(o, err, sizeof(err));

    if (m == NULL) {
        fail_msg("%s", err);
    }

    return m;
}

static void
closed(model_t *m)
{
    const gguf_t *g = model_gguf(m);

    model_close(m);
    gguf_close((gguf_t *) (uintptr_t) g);
}

static void
refused(const file_t *o, const char *words)
{
    char err[512] = "";

    assert_null(open_file(o, err, sizeof(err)));

    if (strstr(err, words) == NULL) {
        fail_msg("\"%s\" lacks \"%s\"", err, words);
    }
}

static void
heads(void **state)
{
    file_t o = split;
    model_t *m = opened(&o);
    const model_info_t *info = model_info(m);
    const model_layer_t *l = model_layer(m, 0);

    (void) state;
    assert_int_equal(info->head_dim, LATENT + TURNED);
    assert_int_equal(info->kv_heads, 1);
    assert_int_equal(info->key_dim, KEY);
    assert_int_equal(info->value_dim, VALUE);
    assert_true(fabs(info->attn_scale - 1 / sqrt(KEY + TURNED)) < 1e-6);
    assert_true(l->kv_b == NULL && l->k_b != NULL && l->v_b != NULL);
    assert_int_equal(l->v->dims[1], LATENT);
    assert_int_equal(l->k->dims[1], TURNED);
    assert_true(l->k->data == l->v->data + l->v->size);
    closed(m);

    o.k_b = o.v_b = 0;
    o.kv_b = 1;
    o.keys = HEADS;
    o.log_mul = 0.0707f;
    m = opened(&o);
    info = model_info(m);
    assert_int_equal(info->key_dim, KEY);
    assert_int_equal(info->value_dim, VALUE);
    assert_non_null(model_layer(m, 0)->kv_b);
    assert_true(fabs(info->attn_scale
                     - pow(0.0707 * log(4) + 1, 2) / sqrt(KEY + TURNED))
                < 1e-6);
    closed(m);

    o.kv_b = 0;
    refused(&o, "layer \"blk.0.\": expected attn_kv_b, or attn_k_b and");
    o = split;
    o.kv_b = 1;
    refused(&o, "found all of them");
    o.kv_b = o.v_b = 0;
    refused(&o, "found not so many of them");
    o = split;
    o.keys = 3;
    refused(&o, "attention.head_count_kv: expected 2 or 1, found 3");
    o.keys = 1;
    o.key = TURNED;
    refused(&o, "key_length_mla: expected more than the rotated 2, found 2");
    o.key = KEY + TURNED + 1;
    refused(&o, "attn_q.weight\": expected shape [4, 12], found [4, 10");
}

static void
experts(void **state)
{
    file_t o = split;
    model_t *m = opened(&o);
    const model_info_t *info = model_info(m);

    (void) state;
    assert_true(!info->experts_sigmoid && !info->experts_normed);
    assert_true(info->groups == 0 && info->shared_ffn == 0);
    closed(m);

    o.score = 2;
    o.groups = 4;
    o.groups_used = 2;
    m = opened(&o);
    info = model_info(m);
    assert_true(info->experts_sigmoid && info->group_best == 2);
    assert_true(info->groups == 4 && info->groups_used == 2);
    assert_non_null(model_layer(m, 0)->choice_bias);
    closed(m);

    o.score = 3;
    refused(&o, "expert_gating_func: expected 1 to 2, found 3");
    o.score = 1;
    o.groups_used = 0;
    refused(&o, "expert_group_used_count: expected at most 4, with room for 2");

    /* V2 and V3 from before the key */
    o = split;
    o.experts = 160;
    o.used = 6;
    m = opened(&o);
    info = model_info(m);
    assert_true(info->groups == 8 && info->groups_used == 3);
    assert_int_equal(info->group_best, 1);
    closed(m);
    o.experts = 256;
    o.score = 2;
    m = opened(&o);
    info = model_info(m);
    assert_true(info->groups == 8 && info->groups_used == 4);
    closed(m);
}

static void
further(void **state)
{
    file_t o = split;
    model_t *m;

    (void) state;
    o.mtp = 1;
    m = opened(&o);
    assert_int_equal(model_info(m)->layers, 1);
    assert_int_equal(model_info(m)->left_n, 1);
    assert_int_equal(model_info(m)->left_bytes, 2 * HIDDEN * HIDDEN * 4);
    closed(m);
    o.mtp = 9;
    refused(&o, "nextn_predict_layers: expected a number from 0 to 8");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heads),
        cmocka_unit_test(experts),
        cmocka_unit_test(further),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
