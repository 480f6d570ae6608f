/*
 * The families of models, as data.
 *
 * DESIGN.  A family is a row: what each container calls it, and two lists of
 * tensors, one for the top of the model and one for each layer.  A tensor's
 * row says under which name each container has it, where its pointer goes,
 * and which two of the model's sizes its dimensions must be.  What a family
 * has and the forward pass has not built is a key that must have the harmless
 * value, so that it is refused and not ignored.
 *
 * Two of Hugging Face's families may be one in GGUF: its name is then NULL in
 * all rows but one.
 *
 * All tables are const: any thread.
 */
#include "model_impl.h"

#include <assert.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define TOP(field)   offsetof(model_top_t, field)
#define LAYER(field) offsetof(model_layer_t, field)
#define NONE         MODEL_DIM_NONE
#define HIDDEN       MODEL_DIM_HIDDEN
#define Q            MODEL_DIM_Q
#define KV           MODEL_DIM_KV
#define FFN          MODEL_DIM_FFN
#define VOCAB        MODEL_DIM_VOCAB
#define END                                                                    \
    {                                                                          \
        {NULL, NULL}, 0, NONE, NONE, 0                                         \
    }

/* clang-format off */
static const model_row_t llama_top[] = {
    {{"token_embd.weight", "model.embed_tokens.weight"},
        TOP(embed), VOCAB, HIDDEN, MODEL_OPTIONAL},
    {{"output_norm.weight", "model.norm.weight"},
        TOP(norm), NONE, HIDDEN, 0},
    {{"output.weight", "lm_head.weight"},
        TOP(output), VOCAB, HIDDEN, MODEL_OPTIONAL},
    {{"rope_freqs.weight", NULL},
        TOP(rope_factors), NONE, MODEL_DIM_ROPE, MODEL_OPTIONAL},
    END,
};

static const model_row_t llama_layer[] = {
    {{"attn_norm.weight", "input_layernorm.weight"},
        LAYER(attn_norm), NONE, HIDDEN, 0},
    {{"attn_q.weight", "self_attn.q_proj.weight"},
        LAYER(q), Q, HIDDEN, 0},
    {{"attn_k.weight", "self_attn.k_proj.weight"},
        LAYER(k), KV, HIDDEN, 0},
    {{"attn_v.weight", "self_attn.v_proj.weight"},
        LAYER(v), KV, HIDDEN, 0},
    {{"attn_output.weight", "self_attn.o_proj.weight"},
        LAYER(o), HIDDEN, Q, 0},
    {{"ffn_norm.weight", "post_attention_layernorm.weight"},
        LAYER(ffn_norm), NONE, HIDDEN, 0},
    {{"ffn_gate.weight", "mlp.gate_proj.weight"},
        LAYER(gate), FFN, HIDDEN, 0},
    {{"ffn_up.weight", "mlp.up_proj.weight"},
        LAYER(up), FFN, HIDDEN, 0},
    {{"ffn_down.weight", "mlp.down_proj.weight"},
        LAYER(down), HIDDEN, FFN, 0},
    /* frequencies that follow from the configuration; old checkpoints */
    {{NULL, "self_attn.rotary_emb.inv_freq"},
        0, NONE, MODEL_DIM_ROPE, MODEL_UNUSED},
    END,
};

static const model_must_t llama_musts[] = {
    {"hidden_act", "silu"},
    {"attention_bias", "false"},
    {"mlp_bias", "false"},
    {NULL, NULL},
};

static const model_family_t families[] = {
    {{"llama", "llama"}, "LlamaForCausalLM", {"blk.N.", "model.layers.N."},
        llama_top, llama_layer, llama_musts, MODEL_HF_HALVES},
};
/* clang-format on */

#define FAMILIES_N (sizeof(families) / sizeof(families[0]))

const model_family_t *
model_family_find(int container, const char *arch, size_t len)
{
    size_t i;
    const char *name;

    assert(container < MODEL_CONTAINERS && arch != NULL);

    for (i = 0; i < FAMILIES_N; i++) {
        name = families[i].arch[container];

        if (name != NULL && strlen(name) == len
            && memcmp(name, arch, len) == 0) {
            return &families[i];
        }
    }

    return NULL;
}

void
model_family_prefix(
    const model_family_t *f, int container, uint32_t i, char *buf, size_t size)
{
    const char *prefix = f->prefix[container], *n;

    assert(prefix != NULL && size > 0);
    n = strchr(prefix, 'N');
    assert(n != NULL && n[1] == '.');
    snprintf(buf, size, "%.*s%u%s", (int) (n - prefix), prefix, i, n + 1);
}

const char *
model_family_names(int container, char *buf, size_t size)
{
    int n;
    size_t i, at = 0, left = 0;

    assert(container < MODEL_CONTAINERS && size > 0);
    buf[0] = '\0';

    for (i = 0; i < FAMILIES_N; i++) {
        left += families[i].arch[container] != NULL;
    }

    for (i = 0; i < FAMILIES_N; i++) {
        if (families[i].arch[container] == NULL) {
            continue;
        }

        left--;
        n = snprintf(buf + at, size - at, "%s%s", families[i].arch[container],
            left > 1    ? ", "
            : left == 1 ? " or "
                        : "");

        if (n < 0 || (size_t) n >= size - at) {
            break; /* cut, and terminated */
        }

        at += (size_t) n;
    }

    return buf;
}

static const char *const key_names[MODEL_KEYS_N][MODEL_CONTAINERS] = {
#define X(id, gguf, hf) {gguf, hf},
    MODEL_KEYS(X)
#undef X
};

const char *
model_key_name(model_key_t key, int container)
{
    assert(key < MODEL_KEYS_N && container < MODEL_CONTAINERS);
    return key_names[key][container];
}
